/* metrics.h -- counters of the daemon for GET /metrics, in Prometheus' text format. */
#ifndef GRADD_SERVER_METRICS_H
#define GRADD_SERVER_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "proto/gradd_proto.h"

enum { GS_METRIC_ROUTES = 64, GS_METRIC_BUCKETS = 10 };

/** Of one route. Loop thread alone. */
typedef struct gs_route_metrics {
    uint64_t replies[6];                 /* by status class; [0]: cut off before a reply */
    uint64_t buckets[GS_METRIC_BUCKETS]; /* of the duration, not cumulative; the last: anything longer */
    double seconds;
} gs_route_metrics;

typedef struct gs_metrics {
    gs_route_metrics routes[GS_METRIC_ROUTES]; /* by the row's index; the last: no route */
    uint64_t bytes_in, bytes_out;              /* of bodies */
    int64_t connections, connections_total;
    int64_t requests;                    /* begun, not completed */
    atomic_uint_fast64_t steps, samples; /* of optimizers; of training batches. Any thread */
} gs_metrics;

/** Upper bounds of all buckets but the last, in microseconds. */
extern const int64_t gs_metric_bounds_us[GS_METRIC_BUCKETS - 1];

/** Count a completed request. `route`: its row's index, or -1; status 0: cut off before a reply. */
void gs_metrics_count(gs_metrics *metrics, int route, int status, int64_t duration_us, uint64_t in,
                      uint64_t out);

#endif
