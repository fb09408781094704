/* workloads.h -- what is timed: networks, batches, and how many operations a step takes. */
#ifndef GRADD_BENCH_WORKLOADS_H
#define GRADD_BENCH_WORKLOADS_H

#include <jansson.h>

#include "engine/gradd_engine.h"
#include "proto/gradd_proto.h"

typedef enum bench_task { BENCH_TRAIN, BENCH_PREDICT } bench_task;

/** A row of workloads.def. */
typedef struct bench_workload {
    const char *name, *model; /* model: path of its JSON */
    bench_task task;
    int64_t batch;
    bool json;                 /* over HTTP by JSON too */
    double want_one, want_all; /* times as fast as PyTorch; 0: nothing is wanted */
    double want_share;         /* of the GEMM peak, one thread */
} bench_workload;

extern const bench_workload bench_workloads[];
extern const size_t bench_workload_count;

/** "train" or "predict". */
const char *bench_task_name(bench_task task);

/** A network to be, and one batch for it, the same on every side. */
typedef struct bench_work {
    json_t *definition; /* with the bench's loss and optimizer */
    gp_model model;
    gd_graph *graph;
    gd_tensor input, target; /* their data belongs to this */
} bench_work;

/** Read a model's definition and make a batch for it. @return 0; -1, said on stderr */
int bench_work_open(const char *path, int64_t batch, bench_work *ret_work);
void bench_work_close(bench_work *work);

/** Floating-point operations of one step of `model` on `batch` samples: see README.md for the formula. */
double bench_flops(const gd_model *model, bench_task task, int64_t batch);

/** Say on stderr what went wrong. @return -1 */
int bench_complain(const char *who, const char *message);

#endif
