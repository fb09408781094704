/* flops.c -- floating-point operations of a step, from a network's layers: multiply-adds of convolutions,
 * linear, recurrent and attention layers, two operations each. README.md has the formula. */
#include "tests/bench/workloads.h"

/* A layer's multiply-adds per sample. */
typedef struct work_of_layer {
    double weights; /* of inputs with weights */
    double pairs;   /* of inputs with inputs: attention's scores and context */
} work_of_layer;

static double product(const int64_t *dim, int count) {
    double n = 1;
    for (int i = 0; i < count; i++)
        n *= (double)dim[i];
    return n;
}

static bool is_kind(const gd_layer *layer, const char *module) {
    return layer->kind->module && strncmp(layer->kind->module, module, strlen(module)) == 0;
}

/* Each weight takes part once at every place of the output: of (channels, ...) all but the first axis, of
 * (..., features) all but the last. */
static work_of_layer work_of(const gd_model *model, const gd_layer *layer) {
    const gd_shape *out = &layer->output;
    const bool conv = is_kind(layer, "Conv"), attention = is_kind(layer, "MultiheadAttention");
    work_of_layer work = {0};
    if (!conv && !attention && !is_kind(layer, "Linear") && !is_kind(layer, "LSTM") &&
        !is_kind(layer, "GRU") && !is_kind(layer, "RNN"))
        return work;
    const double places = product(out->dim + (conv ? 1 : 0), out->rank - 1);
    for (size_t i = 0; i < layer->param_count; i++) {
        const gd_parameter *p = gd_model_parameter(model, layer->first_param + i);
        if (p->shape.rank >= 2)
            work.weights += (double)p->numel * places;
    }
    if (attention) /* T x T scores of E, and T sums of T values of E */
        work.pairs = 2 * places * places * (double)out->dim[out->rank - 1];
    return work;
}

static size_t layer_named(const gd_graph *graph, const char *name) {
    for (size_t i = 0; i < gd_graph_layer_count(graph); i++)
        if (strcmp(gd_graph_layer(graph, i)->name, name) == 0)
            return i;
    return SIZE_MAX;
}

/* needs[i]: what layer i gives has a gradient. @return what layer i reads has one */
static bool reads_gradient(const gd_graph *graph, const bool *needs, const gd_layer *layer) {
    for (size_t i = 0; i < layer->input_count; i++) {
        size_t from = layer_named(graph, layer->inputs[i]);
        if (from != SIZE_MAX && needs[from])
            return true;
    }
    return false;
}

double bench_flops(const gd_model *model, bench_task task, int64_t batch) {
    const gd_graph *graph = gd_model_graph(model);
    const size_t count = gd_graph_layer_count(graph);
    bool needs[GD_MAX_LAYERS] = {0};
    double macs = 0;
    /* Layers may be listed before what they read: so often that it has reached all. */
    for (size_t round = 0, changed = 1; round < count && changed; round++) {
        changed = 0;
        for (size_t i = 0; i < count; i++) {
            const gd_layer *layer = gd_graph_layer(graph, i);
            bool now = layer->param_count > 0 || reads_gradient(graph, needs, layer);
            changed += now != needs[i];
            needs[i] = now;
        }
    }
    for (size_t i = 0; i < count; i++) {
        const gd_layer *layer = gd_graph_layer(graph, i);
        const work_of_layer work = work_of(model, layer);
        const bool train = task == BENCH_TRAIN, back = train && reads_gradient(graph, needs, layer);
        macs += work.weights * (1 + train + back) + work.pairs * (train ? 3 : 1);
    }
    return 2 * macs * (double)batch;
}
