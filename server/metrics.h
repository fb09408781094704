/* metrics.h -- counters of the daemon for GET /metrics, in Prometheus' text format. Every label's values are
 * few, and known in advance. */
#ifndef GRADD_SERVER_METRICS_H
#define GRADD_SERVER_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "proto/gradd_proto.h"
#include "route.h"

enum {
    GS_METRIC_ROUTES = GS_ROUTES + 1, /* the last: no route */
    GS_METRIC_CODES = 6,              /* 1xx ... 5xx; [0]: cut off before a reply */
    GS_REQUEST_BUCKETS = 10,
    GS_STEP_BUCKETS = 12
};

/** How long something takes. Bounds are a table's. */
typedef struct gs_route_times {
    uint64_t buckets[GS_REQUEST_BUCKETS]; /* not cumulative; the last: anything longer */
    double seconds;
} gs_route_times;

/** States that jobs are counted by, as GET /v1/jobs has them. */
typedef enum gs_metric_job {
    GS_JOBS_QUEUED,
    GS_JOBS_RUNNING,
    GS_JOBS_PAUSING,
    GS_JOBS_PAUSED,
    GS_JOBS_CANCELLING,
    GS_JOBS_SUCCEEDED,
    GS_JOBS_FAILED,
    GS_JOBS_CANCELLED,
    GS_METRIC_JOBS
} gs_metric_job;

typedef struct gs_metrics {
    /* loop thread alone */
    gs_route_times requests[GS_METRIC_ROUTES][GS_METRIC_CODES]; /* by the row's index */
    uint64_t bytes_in, bytes_out;                               /* of bodies */
    int64_t connections, connections_total;
    void (*count_jobs)(void *argument, size_t counts[GS_METRIC_JOBS]); /* NULL: there are none */
    void *count_jobs_argument;
    /* any thread */
    atomic_uint_fast64_t steps, samples; /* of optimizers; of training batches */
    atomic_uint_fast64_t step_buckets[GS_STEP_BUCKETS], step_us;
} gs_metrics;

/** Count a completed request. `route`: its row's index, or -1; status 0: cut off before a reply. Loop thread.
 */
void gs_metrics_request(gs_metrics *metrics, int route, int status, int64_t took_us, uint64_t in,
                        uint64_t out);
/** Count an optimizer's step, with the samples of its batch. Any thread. */
void gs_metrics_step(gs_metrics *metrics, int64_t samples, int64_t took_us);

/** What stands before a metric's values. */
void gs_metrics_head(gp_text *text, const char *name, const char *type, const char *help);
/** gradd_steps_total, gradd_step_duration_seconds, gradd_http_request_duration_seconds, gradd_jobs ... */
void gs_metrics_write(gp_text *text, const gs_metrics *metrics);

#endif
