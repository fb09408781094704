/* metrics.c */
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Upper bounds of all buckets but the last, in microseconds. */
static const int64_t request_bounds[GS_REQUEST_BUCKETS - 1] = {500,   1000,   2500,   5000,   10000,
                                                               50000, 100000, 500000, 5000000};
static const int64_t step_bounds[GS_STEP_BUCKETS - 1] = {50,    100,   250,    500,     1000,    2500,
                                                         10000, 50000, 100000, 1000000, 10000000};

static const char *const codes[GS_METRIC_CODES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
static const char *const job_states[GS_METRIC_JOBS] = {
    [GS_JOBS_QUEUED] = "queued", [GS_JOBS_RUNNING] = "running",       [GS_JOBS_PAUSING] = "pausing",
    [GS_JOBS_PAUSED] = "paused", [GS_JOBS_CANCELLING] = "cancelling", [GS_JOBS_SUCCEEDED] = "succeeded",
    [GS_JOBS_FAILED] = "failed", [GS_JOBS_CANCELLED] = "cancelled",
};

/* ---- counting ---------------------------------------------------------------------------------------- */

static size_t bucket_of(const int64_t *bounds, size_t count, int64_t us) {
    size_t bucket = 0;
    while (bucket < count - 1 && us > bounds[bucket]) {
        bucket++;
    }
    return bucket;
}

void gs_metrics_request(gs_metrics *metrics, int route, int status, int64_t took_us, uint64_t in,
                        uint64_t out) {
    const int row = route < 0 || route >= GS_METRIC_ROUTES ? GS_METRIC_ROUTES - 1 : route;
    const int code = status >= 100 && status < 600 ? status / 100 : 0;
    gs_route_times *times = &metrics->requests[row][code];
    times->buckets[bucket_of(request_bounds, GS_REQUEST_BUCKETS, took_us)]++;
    times->seconds += (double)took_us / 1e6;
    metrics->bytes_in += in;
    metrics->bytes_out += out;
}

static void count(atomic_uint_fast64_t *counter, int64_t by) {
    atomic_fetch_add_explicit(counter, (uint64_t)by, memory_order_relaxed);
}

void gs_metrics_step(gs_metrics *metrics, int64_t samples, int64_t took_us) {
    count(&metrics->steps, 1);
    count(&metrics->samples, samples);
    count(&metrics->step_buckets[bucket_of(step_bounds, GS_STEP_BUCKETS, took_us)], 1);
    count(&metrics->step_us, took_us);
}

/* ---- writing ----------------------------------------------------------------------------------------- */

void gs_metrics_head(gp_text *text, const char *name, const char *type, const char *help) {
    gp_text_add(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* One histogram; labels: "" or such as end in a comma. Dozens of lines: none by printf. */
static void write_histogram(gp_text *text, const char *name, const char *labels, const int64_t *bounds,
                            const uint64_t *buckets, size_t bucket_count, double seconds) {
    uint64_t below = 0;
    const size_t begin = text->size;
    gp_text_add(text, "%s_bucket{%sle=\"", name, labels);
    const size_t size = text->size - begin; /* of what each begins with */
    for (size_t i = 0; i < bucket_count; i++) {
        below += buckets[i];
        if (i) {
            gp_text_repeat(text, begin, size);
        }
        if (i < bucket_count - 1) {
            gp_json_write_number(text, (double)bounds[i] / 1e6, 6);
        } else {
            gp_text_append(text, "+Inf", 4);
        }
        gp_text_append(text, "\"} ", 3);
        gp_json_write_integer(text, (int64_t)below);
        gp_text_append(text, "\n", 1);
    }
    const int length = *labels ? (int)strlen(labels) - 1 : 0;
    const char *open = length ? "{" : "", *close = length ? "}" : "";
    gp_text_add(text, "%s_sum%s%.*s%s %.9g\n", name, open, length, labels, close, seconds);
    gp_text_add(text, "%s_count%s%.*s%s %" PRIu64 "\n", name, open, length, labels, close, below);
}

static void write_requests(gp_text *text, const gs_metrics *metrics) {
    static const char name[] = "gradd_http_request_duration_seconds";
    char labels[192];
    gs_metrics_head(
        text, name, "histogram",
        "Time from a request's first line to its reply's last byte, by class of status; none was cut "
        "off.");
    for (size_t row = 0; row < GS_METRIC_ROUTES; row++) {
        const gs_route *route = row < GS_ROUTES ? gs_route_at(row) : NULL;
        for (size_t code = 0; code < GS_METRIC_CODES; code++) {
            const gs_route_times *times = &metrics->requests[row][code];
            uint64_t total = 0;
            for (size_t i = 0; i < GS_REQUEST_BUCKETS; i++) {
                total += times->buckets[i];
            }
            if (total) {
                snprintf(labels, sizeof labels, "route=\"%s\",method=\"%s\",code=\"%s\",",
                         route ? route->path : "none", route ? route->method : "none", codes[code]);
                write_histogram(text, name, labels, request_bounds, times->buckets, GS_REQUEST_BUCKETS,
                                times->seconds);
            }
        }
    }
}

static void write_steps(gp_text *text, const gs_metrics *metrics) {
    uint64_t buckets[GS_STEP_BUCKETS];
    for (size_t i = 0; i < GS_STEP_BUCKETS; i++) {
        buckets[i] = atomic_load_explicit(&metrics->step_buckets[i], memory_order_relaxed);
    }
    gs_metrics_head(text, "gradd_steps_total", "counter", "Optimizer steps taken.");
    gp_text_add(text, "gradd_steps_total %" PRIuFAST64 "\n", atomic_load(&metrics->steps));
    gs_metrics_head(text, "gradd_samples_total", "counter", "Samples trained on.");
    gp_text_add(text, "gradd_samples_total %" PRIuFAST64 "\n", atomic_load(&metrics->samples));
    gs_metrics_head(text, "gradd_step_duration_seconds", "histogram", "Computing time of optimizer steps.");
    write_histogram(text, "gradd_step_duration_seconds", "", step_bounds, buckets, GS_STEP_BUCKETS,
                    (double)atomic_load(&metrics->step_us) / 1e6);
}

static void write_jobs(gp_text *text, const gs_metrics *metrics) {
    size_t counts[GS_METRIC_JOBS] = {0};
    if (metrics->count_jobs) {
        metrics->count_jobs(metrics->count_jobs_argument, counts);
    }
    gs_metrics_head(text, "gradd_jobs", "gauge", "Jobs by state.");
    for (size_t i = 0; i < GS_METRIC_JOBS; i++) {
        gp_text_add(text, "gradd_jobs{state=\"%s\"} %zu\n", job_states[i], counts[i]);
    }
}

void gs_metrics_write(gp_text *text, const gs_metrics *metrics) {
    write_steps(text, metrics);
    write_jobs(text, metrics);
    write_requests(text, metrics);
}
