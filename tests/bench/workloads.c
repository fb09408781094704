/* workloads.c -- the table of workloads, their networks, and the batch that every side computes on. */
#include "tests/bench/workloads.h"

#define TRAIN BENCH_TRAIN
#define PREDICT BENCH_PREDICT
#define W(name, model, task, batch, json, one, all, share) {name, model, task, batch, json, one, all, share},
const bench_workload bench_workloads[] = {
#include "tests/bench/workloads.def"
};
#undef W
const size_t bench_workload_count = sizeof bench_workloads / sizeof *bench_workloads;

const char *bench_task_name(bench_task task) {
    return task == BENCH_TRAIN ? "train" : "predict";
}

int bench_complain(const char *who, const char *message) {
    fprintf(stderr, "bench: %s: %s\n", who, message);
    return -1;
}

/* Knuth's multiplicative hash: cheap, and the same in numpy (torch_steps.py). */
static uint32_t scatter(int64_t i) {
    return (uint32_t)i * 2654435761u;
}

enum { SYMBOLS = 64 /* of int64 inputs */ };

/* (batch, ...sample): float32 in [-1, 1), int64 in [0, below). */
static int fill(gd_dtype dtype, const gd_shape *sample, int64_t batch, int64_t below, gd_tensor *ret_tensor) {
    gd_shape shape = {.rank = sample->rank + 1, .dim = {batch}};
    size_t bytes;
    for (int i = 0; i < sample->rank; i++)
        shape.dim[i + 1] = sample->dim[i];
    if (gd_shape_bytes(&shape, dtype, &bytes, NULL))
        return bench_complain("batch", "it is too large");
    void *data = malloc(bytes);
    if (!data)
        return bench_complain("batch", "no memory");
    for (int64_t i = 0, n = gd_numel(&shape); i < n; i++)
        if (dtype == GD_INT64)
            ((int64_t *)data)[i] = (scatter(i) >> 16) % below;
        else
            ((float *)data)[i] = (float)(scatter(i) >> 8) * 0x1p-23F - 1;
    *ret_tensor = (gd_tensor){dtype, shape, data};
    return 0;
}

/* The batch for a graph: its input, and for an output (classes, ...) class indices of (...). */
static int make_batch(bench_work *work, int64_t batch) {
    const gd_input_spec *input = gd_graph_input(work->graph, 0);
    const gd_shape output = gd_graph_output(work->graph, 0)->shape;
    gd_shape target = {.rank = output.rank - 1};
    for (int i = 0; i < target.rank; i++)
        target.dim[i] = output.dim[i + 1];
    return fill(input->dtype, &input->shape, batch, SYMBOLS, &work->input) ||
                   fill(GD_INT64, &target, batch, output.dim[0], &work->target)
               ? -1
               : 0;
}

int bench_work_open(const char *path, int64_t batch, bench_work *ret_work) {
    bench_work *work = ret_work;
    gp_error wire = {0};
    gd_error error = GD_ERROR_INIT;
    *work = (bench_work){.definition = json_load_file(path, 0, NULL)};
    if (!work->definition)
        return bench_complain(path, "no such file, or no JSON");
    json_object_set_new(work->definition, "loss", json_pack("{s:s}", "type", "CrossEntropyLoss"));
    json_object_set_new(work->definition, "optimizer",
                        json_pack("{s:s, s:f, s:f}", "type", "SGD", "lr", 0.01, "momentum", 0.9));
    if (gp_model_read(work->definition, &work->model, &wire))
        return bench_complain(path, wire.detail);
    if (gd_graph_new(&work->model.graph, &work->graph, &error))
        return bench_complain(path, error.message);
    return make_batch(work, batch);
}

void bench_work_close(bench_work *work) {
    free(work->input.data);
    free(work->target.data);
    gd_graph_unref(work->graph);
    gp_model_release(&work->model);
    json_decref(work->definition);
}
