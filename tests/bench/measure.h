/* measure.h -- one workload on some threads: every side in turn, medians. */
#ifndef GRADD_BENCH_MEASURE_H
#define GRADD_BENCH_MEASURE_H

#include "tests/bench/sides.h"

/** How to measure. */
typedef struct bench_plan {
    bench_side torch; /* its process; to: NULL: there is none */
    char torch_version[64];
    double seconds;   /* for all rounds of a workload */
    double slice;     /* of them for one side's part of a round */
    int gemm_size;    /* rows and columns that give this machine's peak */
    double gemm_peak; /* operations a second at that size, before all else */
    int cores;
} bench_plan;

typedef struct bench_result {
    const bench_workload *workload;
    int threads, rounds;
    double ms[BENCH_KINDS];  /* median of one step; NaN: this side did not take part */
    double rss[BENCH_KINDS]; /* peak memory in MB; of http the daemon's; NaN: likewise */
    double operations;       /* of a step */
    double gemm;             /* operations a second, the median of the same rounds; NaN: not measured */
    /* Medians of what each round gave, so that a slow minute counts on both sides; NaN: a side is missing. */
    double speedup;       /* PyTorch's time to the engine's */
    double http_speedup;  /* PyTorch's time to that over HTTP */
    double http_overhead; /* ms over the engine */
    double share;         /* of the GEMM peak */
} bench_result;

/** Find the size that gives the peak. @return 0; -1 */
int bench_find_peak(bench_plan *plan);
/** @return 0; -1, said on stderr: a side failed, or they do not compute the same */
int bench_measure(const bench_plan *plan, const bench_workload *workload, int threads,
                  bench_result *ret_result);

#endif
