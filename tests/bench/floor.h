/* floor.h -- what everything else stands on: requests a second, start, idleness, fairness, growth. */
#ifndef GRADD_BENCH_FLOOR_H
#define GRADD_BENCH_FLOOR_H

#include "tests/bench/measure.h"

enum { BENCH_PATHS = 4, BENCH_CONNECTIONS = 32, BENCH_SCALES = 4, BENCH_SPREAD = 2 };

typedef struct bench_load {
    const char *path;
    double per_second;     /* on BENCH_CONNECTIONS connections, kept alive, one request on each at a time */
    double p50_us, p99_us; /* on one */
} bench_load;

typedef struct bench_scale {
    int64_t batch;
    double us_per_sample, growth; /* growth: against the first batch's, less 1 */
    double foreseen, reported;    /* bytes: by the engine's formula, by the daemon after a step */
} bench_scale;

typedef struct bench_spread {
    const char *name;
    double one_per_second, all_per_second; /* steps of the engine with one thread, with all cores */
    double speedup;                        /* of the second, round by round */
} bench_spread;

typedef struct bench_floor {
    bench_load loads[BENCH_PATHS];
    double start_ms;                       /* fork to a health/ready that says 200 */
    double idle_share;                     /* of one core */
    double one_per_second, two_per_second; /* steps of one model; of two at once, both together */
    double two_share;                      /* of twice one's */
    bench_spread spread[BENCH_SPREAD];
    bench_scale scales[BENCH_SCALES];
} bench_floor;

/** GET load->path on a loopback port for `seconds`, twice. @return 0; -1, said on stderr */
int bench_load_run(int port, double seconds, bench_load *load);

/** @return 0; -1, said on stderr */
int bench_floor_measure(const bench_plan *plan, bench_floor *ret_floor);

#endif
