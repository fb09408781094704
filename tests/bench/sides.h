/* sides.h -- the ways to take a step, each in a process of its own, so that its memory is its own too.
 *
 * A side is spoken to over two pipes: it answers "ready VALUE PID OPERATIONS" once it has taken its first
 * step (VALUE is the loss, or of predict the first output), then to each line "STEPS" the seconds they took;
 * "0" ends it, and its last answer is its peak memory in KiB. */
#ifndef GRADD_BENCH_SIDES_H
#define GRADD_BENCH_SIDES_H

#include <sys/types.h>

#include "tests/bench/workloads.h"

typedef enum bench_kind {
    BENCH_ENGINE, /* gradd's engine, in-process */
    BENCH_HTTP,   /* libgradd: safetensors, one keep-alive connection */
    BENCH_JSON,   /* libcurl: a JSON body made beforehand */
    BENCH_TORCH,  /* PyTorch: torch_steps.py */
    BENCH_GEMM,   /* this machine's measure: a product of square matrices, one thread */
    BENCH_KINDS
} bench_kind;

/** "engine", "http", ... */
const char *bench_kind_name(bench_kind kind);

typedef struct bench_side {
    pid_t pid;         /* 0: not one of ours to wait for */
    pid_t worker;      /* the process itself, also where it is not ours to wait for */
    FILE *to, *from;   /* NULL: it is not running */
    double value;      /* what its first step gave */
    double operations; /* of a step, where the side counts them */
} bench_side;

/** What a side is to do. */
typedef struct bench_job {
    const char *name, *model; /* of the workload; path of its JSON. For BENCH_GEMM: model is unused */
    bench_task task;
    int64_t batch; /* of BENCH_GEMM: rows and columns */
    int threads;
    const char *server; /* for BENCH_HTTP, BENCH_JSON */
    const char *hosted; /* the model's name in the daemon */
} bench_job;

/** Start it, wait until it is ready. @param torch for BENCH_TORCH @return 0; -1, said on stderr */
int bench_side_start(bench_kind kind, const bench_job *job, const bench_side *torch, bench_side *ret_side);
/** PyTorch, to start sides from. @param ret_version its version, of `size` bytes */
int bench_torch_start(const char *python, bench_side *ret_torch, char *ret_version, size_t size);
/** Ask for steps, and wait for them: seconds. Negative: it failed, said on stderr. Separate for sides that
 *  are to work at once. */
int bench_side_ask(const bench_side *side, int steps);
double bench_side_answer(const bench_side *side);
double bench_side_run(const bench_side *side, int steps);
/** Have all threads of a process run on one processor: the turn-th, again from the first after the last.
 *  What cannot be set stays as it is. */
void bench_pin(pid_t pid, int turn);
/** How many steps take about so many seconds, at least 1; also warms it up. 0: it failed. */
int bench_side_steps(const bench_side *side, double seconds);
/** End it. One that is not running is fine. @return its peak memory in KiB; 0: unknown */
long bench_side_end(bench_side *side);
/** The same for PyTorch's own process. */
void bench_torch_end(bench_side *torch);

/** Peak memory (VmHWM) of a process in KiB; pid 0: of this one. */
long bench_peak_memory(pid_t pid);
/** Seconds of the monotonic clock. */
double bench_now(void);
double bench_median(double *values, int count);

/** The program as a side: what bench_side_start() runs. @return exit status */
int bench_side_main(int argc, char **argv);

#endif
