/* metrics.c */
#include "metrics.h"

const int64_t gs_metric_bounds_us[GS_METRIC_BUCKETS - 1] = {500,   1000,   2500,   5000,   10000,
                                                            50000, 100000, 500000, 5000000};

void gs_metrics_count(gs_metrics *metrics, int route, int status, int64_t duration_us, uint64_t in,
                      uint64_t out) {
    gs_route_metrics *row =
        &metrics->routes[route < 0 || route >= GS_METRIC_ROUTES ? GS_METRIC_ROUTES - 1 : route];
    row->replies[status >= 100 && status < 600 ? status / 100 : 0]++;
    int bucket = 0;
    while (bucket < GS_METRIC_BUCKETS - 1 && duration_us > gs_metric_bounds_us[bucket]) {
        bucket++;
    }
    row->buckets[bucket]++;
    row->seconds += (double)duration_us / 1e6;
    metrics->bytes_in += in;
    metrics->bytes_out += out;
}
