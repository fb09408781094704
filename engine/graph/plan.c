/* plan.c -- segments, sharing, liveness, and the layout of the arena.
 *
 * Moments of a training pass: segment s runs forward at s, the loss stands at S (their number), segment s
 * runs backward at 2S - s. */
#include "engine/graph/plan.h"

#include <limits.h>

/* Buffers, by what they hold. */
static gd_buffer *value_buffer(const gd_plan *plan, int value) {
    return &plan->buffers[value];
}
static gd_buffer *grad_buffer(const gd_plan *plan, int value) {
    return &plan->buffers[plan->graph->value_count + value];
}
static gd_buffer *saved_buffer(const gd_plan *plan, int node, int i) {
    return &plan->buffers[2 * plan->graph->value_count + node * GD_MAX_SAVED + i];
}
/* pass 0: forward's, 1: backward's */
static gd_buffer *workspace_buffer(const gd_plan *plan, int node, int pass) {
    return &plan->buffers[2 * plan->graph->value_count + plan->graph->node_count * GD_MAX_SAVED + 2 * node +
                          pass];
}
static gd_buffer *partial_buffer(const gd_plan *plan) {
    return &plan->buffers[plan->buffer_count - 1];
}

static bool partial_gradients(const gd_plan *plan, int node) {
    return plan->training && plan->segments[plan->segment_of[node]].parallel &&
           !plan->graph->nodes[node].op->backward_params;
}

static void cut_segments(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    for (int i = 0; i < graph->node_count; i++) {
        int node = graph->order[i];
        const bool parallel = graph->nodes[node].parallel;
        gd_segment *last = &plan->segments[plan->segment_count - 1];
        if (plan->segment_count && parallel && last->parallel)
            last->last++;
        else
            plan->segments[plan->segment_count++] =
                (gd_segment){.first = i, .last = i + 1, .parallel = parallel, .part_count = 1};
        plan->segment_of[node] = plan->segment_count - 1;
    }
}

/* The node that makes input 0 of node `n`, if nobody else reads that; -1: there is none. */
static int only_source(const gd_graph *graph, int n) {
    const gd_node *node = &graph->nodes[n];
    const int in = node->input_count ? node->inputs[0] : -1;
    return in >= 0 && graph->values[in].uses == 1 ? graph->values[in].node : -1;
}

/* The same, through views. */
static int source_through_views(const gd_graph *graph, int n) {
    do
        n = only_source(graph, n);
    while (n >= 0 && graph->nodes[n].view);
    return n;
}

/* Backward through a ReLU whose output only one op reads may as well be done by that op: of its own output,
 * or of the ReLU's, it can tell where that was 0. In the first case the ReLU's output need not be kept. */
static void join_backwards(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    for (int n = 0; plan->training && n < graph->node_count; n++) {
        const gd_node *node = &graph->nodes[n];
        const int before = node->op->flags & GD_AFTER_RELU ? source_through_views(graph, n) : -1;
        if (before < 0 || !(graph->nodes[before].op->flags & GD_RELU))
            continue;
        plan->after_relu[n] = plan->undone[before] = only_source(graph, before) >= 0;
    }
}

/* May the node's output 0 lie where its input 0 does? Other inputs may have made it larger. */
static bool fits_in_place(const gd_graph *graph, const gd_node *node) {
    const gd_graph_value *in = &graph->values[node->inputs[0]], *out = &graph->values[node->first_output];
    return node->view || ((node->op->flags & GD_INPLACE) && in->dtype == out->dtype &&
                          gd_shape_equal(&in->shape, &out->shape));
}

/* Decide which outputs use their input's memory. A view always may; an op that writes in place may when
 * nobody else reads that memory, now or in backward. */
static void share_values(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    bool *kept = plan->kept;   /* by root */
    bool *alone = plan->needs; /* by root: every value in it is used once; scratch use of the table */
    for (int v = 0; v < graph->value_count; v++) {
        plan->value_root[v] = v;
        kept[v] = false;
        alone[v] = graph->values[v].uses <= 1;
    }
    for (int i = 0; i < graph->node_count; i++) {
        const gd_node *node = &graph->nodes[graph->order[i]];
        const unsigned flags = node->op->flags;
        const int out = node->first_output, in = node->input_count ? node->inputs[0] : -1;
        const int root = in < 0 ? -1 : plan->value_root[in];
        const bool external = in < 0 || graph->values[root].node < 0;
        for (int k = 0; plan->training && (flags & GD_SAVES_INPUT) && k < node->input_count; k++)
            kept[plan->value_root[node->inputs[k]]] = true;
        if (node->input_count &&
            (node->view || (fits_in_place(graph, node) && !external && alone[root] && !kept[root]))) {
            plan->value_root[out] = root;
            alone[root] = alone[root] && alone[out];
        }
        const bool saves = ((flags & GD_SAVES_OUTPUT) && !plan->undone[graph->order[i]]) ||
                           (plan->after_relu[graph->order[i]] && !(flags & GD_SAVES_INPUT));
        for (int k = 0; plan->training && saves && k < node->output_count; k++)
            kept[plan->value_root[out + k]] = true;
    }
}

/* A ReLU that overwrites what an op has just written may as well be done by that op. */
static void join_relus(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    for (int n = 0; n < graph->node_count; n++) {
        const gd_node *node = &graph->nodes[n];
        const int in = node->input_count ? node->inputs[0] : -1,
                  before = in < 0 ? -1 : graph->values[in].node;
        if (!(node->op->flags & GD_RELU) || before < 0 || !(graph->nodes[before].op->flags & GD_THEN_RELU))
            continue;
        plan->done[n] = plan->value_root[node->first_output] == plan->value_root[in] &&
                        plan->value_root[in] == in && graph->values[in].uses == 1 &&
                        !gd_value_is_output(graph, in);
        plan->then_relu[before] = plan->done[n];
    }
}

/* An input's gradient may lie where the output's does if nobody else adds to it. */
static void share_grads(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    for (int v = 0; v < graph->value_count; v++)
        plan->grad_root[v] = v;
    for (int i = graph->node_count - 1; i >= 0; i--) {
        const gd_node *node = &graph->nodes[graph->order[i]];
        const int in = node->input_count ? node->inputs[0] : -1;
        if (in >= 0 && fits_in_place(graph, node) && graph->values[in].uses == 1 &&
            graph->values[in].node >= 0)
            plan->grad_root[in] = plan->grad_root[node->first_output];
    }
}

/* Parameters are under 2^31 elements and few, so this cannot overflow. */
size_t gd_partial_size(const gd_shape *param) {
    return ((size_t)gd_numel(param) + 15) & ~(size_t)15;
}

/* Where an earlier node of the same segment has put the same parameters; SIZE_MAX: nowhere. */
static size_t shared_partials(const gd_plan *plan, const gd_segment *segment, int at) {
    const gd_graph *graph = plan->graph;
    const int first_param = graph->nodes[graph->order[at]].first_param;
    for (int i = segment->first; i < at; i++) {
        const gd_node *other = &graph->nodes[graph->order[i]];
        if (other->param_count && other->first_param == first_param)
            return plan->partial_offset[graph->order[i]];
    }
    return SIZE_MAX;
}

static void place_partials(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    for (int n = 0; n < graph->node_count; n++)
        plan->partial_offset[n] = SIZE_MAX;
    for (int s = 0; s < plan->segment_count; s++) {
        gd_segment *segment = &plan->segments[s];
        for (int i = segment->first; i < segment->last; i++) {
            const int n = graph->order[i];
            const gd_node *node = &graph->nodes[n];
            if (!node->param_count || !partial_gradients(plan, n) ||
                (plan->partial_offset[n] = shared_partials(plan, segment, i)) != SIZE_MAX)
                continue;
            plan->partial_offset[n] = segment->partial_floats;
            for (int k = 0; k < node->param_count; k++)
                segment->partial_floats += gd_partial_size(&graph->params[node->first_param + k].shape);
        }
    }
}

/* One allocation for all tables: take the next `count` of `type`. */
#define TAKE(field, count) (plan->field = take(&memory, (count) * sizeof *plan->field))
static void *take(char **memory, size_t bytes) {
    void *result = *memory;
    *memory += (bytes + 15) & ~(size_t)15;
    return result;
}

int gd_plan_new(const gd_graph *graph, const gd_isa *isa, bool training, gd_plan *plan, gd_error *error) {
    const size_t values = (size_t)graph->value_count, nodes = (size_t)graph->node_count;
    const size_t edges = (size_t)graph->edge_count, params = (size_t)graph->param_count;
    *plan = (gd_plan){.graph = graph, .training = training};
    plan->buffer_count = (int)(2 * values + nodes * (GD_MAX_SAVED + 2) + 1);
    const size_t buffers = (size_t)plan->buffer_count;

    /* A generous bound: every table's element is at most a gd_tensor, plus its rounding. */
    size_t bytes = values * (2 * sizeof(gd_tensor) + 2 * sizeof(size_t) + 2 * sizeof(int) + 4) +
                   nodes * (sizeof(gd_segment) + GD_MAX_SAVED * sizeof(gd_tensor) + 3 * sizeof(int) + 7 +
                            2 * (sizeof(size_t) + sizeof(void *)) + sizeof(void *)) +
                   buffers * (sizeof(gd_buffer) + sizeof(int)) + nodes * sizeof(size_t) + edges + params +
                   30 * 16;
    char *memory = plan->memory = calloc(1, bytes);
    if (!memory)
        return gd_fail(error, GD_E_MEMORY, "no memory for a plan");
    TAKE(values, values);
    TAKE(grads, values);
    TAKE(saved, nodes * GD_MAX_SAVED);
    TAKE(workspace_bytes, 2 * nodes);
    TAKE(workspaces, 2 * nodes);
    TAKE(buffers, buffers);
    TAKE(partial_offset, nodes);
    TAKE(local_value, values);
    TAKE(local_grad, values);
    TAKE(ops, nodes);
    TAKE(segments, nodes);
    TAKE(segment_of, nodes);
    TAKE(saved_count, nodes);
    TAKE(value_root, values);
    TAKE(grad_root, values);
    TAKE(sorted, buffers);
    TAKE(kept, values);
    TAKE(then_relu, nodes);
    TAKE(done, nodes);
    TAKE(after_relu, nodes);
    TAKE(undone, nodes);
    TAKE(pooling, nodes);
    TAKE(unseen, values);
    TAKE(pools, nodes);
    TAKE(may_pool, nodes);
    TAKE(needs, values);
    TAKE(reached, values);
    TAKE(active, nodes);
    TAKE(accumulate, edges);
    TAKE(fresh, params);
    for (int n = 0; n < graph->node_count; n++)
        plan->ops[n] = gd_isa_op(isa, graph->nodes[n].op);
    cut_segments(plan);
    join_backwards(plan);
    share_values(plan);
    join_relus(plan);
    share_grads(plan);
    place_partials(plan);
    return 0;
}

void gd_plan_release(gd_plan *plan) {
    free(plan->memory);
    *plan = (gd_plan){0};
}

/* ---- laying out for a batch ------------------------------------------------------------------------ */

static void live(gd_buffer *buffer, int moment) {
    if (moment < buffer->first)
        buffer->first = moment;
    if (moment > buffer->last)
        buffer->last = moment;
}

static int backward_moment(const gd_plan *plan, int node) {
    return 2 * plan->segment_count - plan->segment_of[node];
}

/* When each buffer is needed, and how large it is. */
static void measure(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    const int loss = plan->segment_count, end = 2 * plan->segment_count;
    for (int b = 0; b < plan->buffer_count; b++)
        plan->buffers[b] = (gd_buffer){.first = end + 1, .last = -1};
    for (int v = 0; v < graph->value_count; v++) {
        gd_buffer *value = value_buffer(plan, plan->value_root[v]),
                  *grad = grad_buffer(plan, plan->grad_root[v]);
        const int node = graph->values[v].node;
        if (node < 0)
            continue; /* graph inputs are the caller's, and have no gradient */
        if (!plan->unseen[v])
            live(value, plan->segment_of[node]);
        const bool output = gd_value_is_output(graph, v);
        if (plan->kept[plan->value_root[v]] || output)
            live(value, end);
        value->size = gd_tensor_bytes(&plan->values[v]);
        if (plan->training && !plan->unseen[v]) {
            live(grad, backward_moment(plan, node));
            if (output)
                live(grad, loss);
            grad->size = gd_tensor_bytes(&plan->grads[v]);
            grad->shared = grad->shared || graph->nodes[node].op->backward_params || graph->values[v].axis;
        }
        value->shared = value->shared || graph->values[v].axis;
    }
    for (int n = 0; n < graph->node_count; n++) {
        const gd_node *node = &graph->nodes[n];
        for (int i = 0; i < node->input_count; i++) {
            const int v = node->inputs[i];
            if (graph->values[v].node < 0)
                continue;
            if (plan->unseen[v])
                continue;
            live(value_buffer(plan, plan->value_root[v]), plan->segment_of[n]);
            if (plan->training)
                live(grad_buffer(plan, plan->grad_root[v]), backward_moment(plan, n));
        }
        for (int pass = 0; pass < 1 + plan->training; pass++) {
            gd_buffer *workspace = workspace_buffer(plan, n, pass);
            workspace->size = plan->workspace_bytes[2 * n + pass];
            live(workspace, pass ? backward_moment(plan, n) : plan->segment_of[n]);
        }
        for (int i = 0; plan->training && i < plan->saved_count[n]; i++) {
            gd_buffer *saved = saved_buffer(plan, n, i);
            saved->size = gd_tensor_bytes(&plan->saved[n * GD_MAX_SAVED + i]);
            live(saved, plan->segment_of[n]);
            live(saved, end);
        }
    }
    for (int s = 0; plan->training && s < plan->segment_count; s++) {
        const gd_segment *segment = &plan->segments[s];
        const size_t bytes = (size_t)segment->part_count * segment->partial_floats * sizeof(float);
        if (segment->part_count == 1 || !bytes)
            continue;
        live(partial_buffer(plan), end - s);
        if (bytes > partial_buffer(plan)->size)
            partial_buffer(plan)->size = bytes;
    }
    /* A view of a graph input has no memory of its own. */
    for (int v = 0; v < graph->value_count; v++)
        if (graph->values[plan->value_root[v]].node < 0)
            value_buffer(plan, plan->value_root[v])->size = 0;
}

/* Samples of a slice instead of all. */
static void make_local(gd_buffer *buffer, int64_t batch, int64_t slice) {
    *buffer = (gd_buffer){.size = buffer->size / (size_t)batch * (size_t)gd_smaller(slice, batch),
                          .first = INT_MAX,
                          .last = -1,
                          .local = true};
}

/* What only one parallel segment needs, and only while it runs in one direction, is local: but for gradients
 * that backward_params() reads when all slices have gone through. */
static void find_local(gd_plan *plan, int64_t batch) {
    const gd_graph *graph = plan->graph;
    for (int v = 0; v < graph->value_count; v++) {
        const gd_graph_value *value = &graph->values[v];
        const gd_segment *segment = value->node < 0 ? NULL : &plan->segments[plan->segment_of[value->node]];
        gd_buffer *buffers[] = {value_buffer(plan, v), grad_buffer(plan, v)};
        for (int i = 0; segment && segment->parallel && i < 2; i++)
            if (!buffers[i]->shared && buffers[i]->size && buffers[i]->first == buffers[i]->last)
                make_local(buffers[i], batch, segment->slice);
    }
}

static void live_if_local(gd_buffer *buffer, int moment) {
    if (buffer->local)
        live(buffer, moment);
}

/* Local buffers' moments: forward through the node at i is moment i, backward twice their number less i. */
static void measure_local(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    for (int i = 0; i < graph->node_count; i++) {
        const gd_node *node = &graph->nodes[graph->order[i]];
        const int pooling = plan->pooling[graph->order[i]];
        for (int k = 0; k < node->input_count + node->output_count + (pooling >= 0); k++) {
            const int v = k < node->input_count ? node->inputs[k]
                          : k < node->input_count + node->output_count
                              ? node->first_output + k - node->input_count
                              : graph->nodes[pooling].first_output;
            live_if_local(value_buffer(plan, plan->value_root[v]), i);
            live_if_local(grad_buffer(plan, plan->grad_root[v]), 2 * graph->node_count - i);
        }
    }
}

static int larger_first(const void *a, const void *b, void *context) {
    const gd_buffer *buffers = context;
    const gd_buffer *x = &buffers[*(const int *)a], *y = &buffers[*(const int *)b];
    if (x->size != y->size)
        return x->size < y->size ? 1 : -1;
    return x < y ? -1 : x > y;
}

/* Give every buffer, of the arena or of a runner, the lowest place where it meets no other that lives at the
 * same time, large ones first. Quadratic in their number, and fast: a step's buffers are tens or hundreds.
 * *bytes: where they begin, and then where they end. */
static int place(gd_plan *plan, bool local, size_t *bytes, gd_error *error) {
    const size_t begin = *bytes;
    int count = 0;
    for (int b = 0; b < plan->buffer_count; b++) {
        gd_buffer *buffer = &plan->buffers[b];
        if (!buffer->size || buffer->first > buffer->last || buffer->local != local)
            continue;
        buffer->offset = begin;
        if (!gd_round_up(buffer->size, &buffer->size))
            return gd_fail(error, GD_E_LIMIT, "this batch is larger than any memory");
        plan->sorted[count++] = b;
    }
    qsort_r(plan->sorted, (size_t)count, sizeof *plan->sorted, larger_first, plan->buffers);
    for (int i = 0; i < count; i++) {
        gd_buffer *buffer = &plan->buffers[plan->sorted[i]];
        for (bool moved = true; moved;) {
            moved = false;
            for (int k = 0; k < i; k++) {
                const gd_buffer *other = &plan->buffers[plan->sorted[k]];
                bool together = buffer->first <= other->last && other->first <= buffer->last;
                if (together && buffer->offset < other->offset + other->size &&
                    other->offset < buffer->offset + buffer->size) {
                    buffer->offset = other->offset + other->size;
                    moved = true;
                }
            }
        }
        size_t end;
        if (!gd_add(buffer->offset, buffer->size, &end) || end > (size_t)INT64_MAX / 4)
            return gd_fail(error, GD_E_LIMIT, "this batch is larger than any memory");
        if (end > *bytes)
            *bytes = end;
    }
    return 0;
}

static double elements_of(const gd_plan *plan, int value) {
    return (double)gd_numel(&plan->values[value].shape);
}

/* Elements that a node reads and writes, and the products it makes: of each output one per element of a row
 * of its weight. */
static double touched(const gd_plan *plan, int n, double *ret_products) {
    const gd_node *node = &plan->graph->nodes[n];
    double in = 0, out = 0;
    for (int i = 0; i < node->input_count; i++)
        in += elements_of(plan, node->inputs[i]);
    for (int i = 0; i < node->output_count; i++)
        out += elements_of(plan, node->first_output + i);
    *ret_products = 0;
    if (node->param_count) {
        const gd_shape *weight = &plan->graph->params[node->first_param].shape;
        *ret_products = out * (double)gd_numel_of(weight, weight->rank > 1, weight->rank);
    }
    return in + out;
}

/* Slices small enough for the cache, as many parts as the work is worth. */
static void share_out(const gd_plan *plan, gd_segment *segment, int64_t batch) {
    double most = 1, work = 0, read = 0;
    for (int i = segment->first; i < segment->last; i++) {
        double products, elements = touched(plan, plan->graph->order[i], &products);
        if (plan->done[plan->graph->order[i]])
            continue;
        most = elements > most ? elements : most;
        read += elements;
        work += elements + products;
    }
    const double room = GD_SLICE_BYTES * (work > GD_HEAVY * read ? 8.0 : 1.0);
    const double fit = room * (double)batch / (most * sizeof(float)), worth = work / GD_GRAIN;
    const int64_t most_parts = batch < GD_MAX_PARTS ? batch : GD_MAX_PARTS;
    const int64_t parts = worth < 1 ? 1 : worth > (double)most_parts ? most_parts : (int64_t)worth;
    segment->slice = fit < 1 ? 1 : fit > GD_MAX_SLICE ? GD_MAX_SLICE : (int64_t)fit;
    if (segment->slice > gd_ceil_div(batch, parts))
        segment->slice = gd_ceil_div(batch, parts);
    segment->part = gd_ceil_div(gd_ceil_div(batch, segment->slice), parts) * segment->slice;
    segment->part_count = (int)gd_ceil_div(batch, segment->part);
}

static int infer_shapes(gd_plan *plan, int64_t batch, gd_shape *shapes, gd_error *error) {
    const gd_graph *graph = plan->graph;
    size_t scratch = 0;
    for (int i = 0; i < graph->input_count; i++)
        shapes[i] = gd_shape_batched(&graph->inputs[i].shape, batch);
    for (int i = 0; i < graph->node_count; i++) {
        const int n = graph->order[i];
        gd_infer infer;
        int code = gd_node_infer(graph, n, plan->ops[n], shapes, &infer, error);
        if (code)
            return code;
        plan->saved_count[n] = infer.saved_count;
        plan->pools[n] = infer.pools_2x2;
        plan->may_pool[n] = infer.may_pool;
        for (int k = 0; k < infer.saved_count; k++)
            plan->saved[n * GD_MAX_SAVED + k] = infer.saved[k];
        plan->workspace_bytes[2 * n] = infer.workspace;
        plan->workspace_bytes[2 * n + 1] = infer.backward_workspace;
        if (infer.scratch > scratch)
            scratch = infer.scratch;
    }
    for (int v = 0; v < graph->value_count; v++) {
        plan->values[v] = (gd_tensor){.dtype = graph->values[v].dtype, .shape = shapes[v]};
        plan->grads[v] = (gd_tensor){.dtype = GD_FLOAT32, .shape = shapes[v]};
    }
    if (!gd_round_up(scratch, &plan->scratch_bytes))
        return gd_fail(error, GD_E_LIMIT, "this batch is larger than any memory");
    return 0;
}

/* A pooling may as well be done by what it reads, if that can, and does the ReLU between them already. */
static void join_poolings(gd_plan *plan) {
    const gd_graph *graph = plan->graph;
    for (int n = 0; n < graph->node_count; n++)
        plan->pooling[n] = -1;
    for (int v = 0; v < graph->value_count; v++)
        plan->unseen[v] = false;
    for (int n = 0; n < graph->node_count; n++) {
        if (!plan->pools[n])
            continue;
        const int before = only_source(graph, n);
        const bool relu = before >= 0 && plan->done[before] && (graph->nodes[before].op->flags & GD_RELU);
        const int source = relu ? only_source(graph, before) : before;
        const bool joined = source >= 0 && plan->may_pool[source] &&
                            plan->segment_of[source] == plan->segment_of[n] &&
                            (!relu || !plan->training || plan->after_relu[n]);
        plan->done[n] = plan->undone[n] = joined;
        if (!joined)
            continue;
        plan->pooling[source] = n;
        plan->unseen[graph->nodes[before].first_output] = true;
        plan->unseen[graph->nodes[source].first_output] = true;
    }
}

static size_t local_offset(const gd_buffer *buffer) {
    return buffer->local ? buffer->offset : SIZE_MAX;
}

/* The arena, and what runners need for themselves behind what ops ask for. */
static int lay_out_memory(gd_plan *plan, int64_t batch, gd_error *error) {
    measure(plan);
    find_local(plan, batch);
    measure_local(plan);
    plan->arena_bytes = 0;
    int code = place(plan, false, &plan->arena_bytes, error);
    if (!code)
        code = place(plan, true, &plan->scratch_bytes, error);
    for (int v = 0; !code && v < plan->graph->value_count; v++) {
        plan->local_value[v] = local_offset(value_buffer(plan, plan->value_root[v]));
        plan->local_grad[v] = local_offset(grad_buffer(plan, plan->grad_root[v]));
    }
    return code;
}

int gd_plan_layout(gd_plan *plan, int64_t batch, gd_error *error) {
    if (plan->batch == batch)
        return 0;
    plan->batch = 0;
    /* infer() writes attributes only where they were left open, which building the graph has settled. */
    gd_shape *shapes = malloc((size_t)plan->graph->value_count * sizeof *shapes);
    if (!shapes)
        return gd_fail(error, GD_E_MEMORY, "no memory for a plan");
    int code = infer_shapes(plan, batch, shapes, error);
    free(shapes);
    if (code)
        return code;
    join_poolings(plan);
    for (int s = 0; s < plan->segment_count; s++)
        if (plan->segments[s].parallel)
            share_out(plan, &plan->segments[s], batch);
    if ((code = lay_out_memory(plan, batch, error)))
        return code;
    plan->batch = batch;
    return 0;
}

int gd_plan_check_training(const gd_plan *plan, gd_error *error) {
    for (int n = 0; n < plan->graph->node_count; n++) {
        const gd_node *node = &plan->graph->nodes[n];
        gd_shape inputs[GD_MAX_INPUTS];
        for (int i = 0; i < node->input_count; i++)
            inputs[i] = plan->values[node->inputs[i]].shape;
        int code = gd_node_check_training(plan->graph, n, inputs, error);
        if (code)
            return code;
    }
    return 0;
}

void gd_plan_bind(gd_plan *plan, const gd_tensor *inputs, void *arena, void *scratch) {
    const gd_graph *graph = plan->graph;
    for (int v = 0; v < graph->value_count; v++) {
        const int root = plan->value_root[v];
        plan->values[v].data = graph->values[root].node < 0 ? inputs[root].data
                               : plan->local_value[v] != SIZE_MAX
                                   ? NULL
                                   : (char *)arena + value_buffer(plan, root)->offset;
        plan->grads[v].data = plan->training && graph->values[v].node >= 0 && plan->local_grad[v] == SIZE_MAX
                                  ? (char *)arena + grad_buffer(plan, plan->grad_root[v])->offset
                                  : NULL;
    }
    for (int n = 0; n < 2 * graph->node_count; n++)
        plan->workspaces[n] = (char *)arena + workspace_buffer(plan, n / 2, n % 2)->offset;
    for (int n = 0; n < graph->node_count; n++)
        for (int i = 0; i < plan->saved_count[n]; i++)
            plan->saved[n * GD_MAX_SAVED + i].data =
                plan->training ? (char *)arena + saved_buffer(plan, n, i)->offset : NULL;
    plan->partials = (float *)((char *)arena + partial_buffer(plan)->offset);
    plan->scratch = scratch;
}
