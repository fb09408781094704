/* run.c -- walking a plan forwards and backwards. Nothing here can fail or allocates. */
#include "engine/graph/plan.h"

#include "engine/core/flush.h"

/* One node's call and the tensors it points to. */
typedef struct frame {
    gd_call call;
    gd_tensor inputs[GD_MAX_INPUTS], outputs[GD_MAX_OUTPUTS], saved[GD_MAX_SAVED];
    gd_pooling pooling;
    gd_tensor input_grads[GD_MAX_INPUTS], output_grads[GD_MAX_OUTPUTS], param_grads[GD_MAX_PARAMS];
} frame;

/* Samples first ... first + count - 1 of a tensor with the batch on axis 0. */
static gd_tensor slice(const gd_tensor *whole, int64_t first, int64_t count) {
    gd_tensor part = *whole;
    if (whole->data && whole->shape.dim[0] != count)
        part.data = (char *)whole->data + (size_t)(first * gd_numel_of(&whole->shape, 1, whole->shape.rank)) *
                                              gd_dtype_size(whole->dtype);
    part.shape.dim[0] = count;
    return part;
}

/* What a call that takes `count` samples sees of a value: all of it if it does not depend on the batch, or
 * if the call takes the whole batch. If it is local, then it lies in the runner's scratch. */
static gd_tensor part_of(const gd_plan *plan, const gd_tensor *tensors, const size_t *local, void *scratch,
                         int value, int64_t first, int64_t count) {
    gd_tensor part = tensors[value];
    if (local[value] != SIZE_MAX) {
        part.data = (char *)scratch + local[value];
        part.shape.dim[0] = count;
        return part;
    }
    const bool whole = count == plan->batch || plan->graph->values[value].axis < 0;
    return whole ? part : slice(&part, first, count);
}

/* What the pooling n sees, which is done along with another node. */
static gd_pooling pooling_of(const gd_plan *plan, int n, bool relu, void *scratch, int64_t first,
                             int64_t count) {
    const int value = plan->graph->nodes[n].first_output;
    return (gd_pooling){
        .output = part_of(plan, plan->values, plan->local_value, scratch, value, first, count),
        .output_grad = part_of(plan, plan->grads, plan->local_grad, scratch, value, first, count),
        .which = slice(&plan->saved[n * GD_MAX_SAVED], first, count),
        .relu = relu,
    };
}

static void open_frame(frame *f, const gd_run *run, int n, int64_t first, int64_t count, int slot) {
    const gd_plan *plan = run->plan;
    const gd_node *node = &plan->graph->nodes[n];
    void *scratch = (char *)plan->scratch + (size_t)slot * plan->scratch_bytes;
    for (int i = 0; i < node->input_count; i++)
        f->inputs[i] = part_of(plan, plan->values, plan->local_value, scratch, node->inputs[i], first, count);
    for (int i = 0; i < node->output_count; i++)
        f->outputs[i] =
            part_of(plan, plan->values, plan->local_value, scratch, node->first_output + i, first, count);
    memset(f->saved, 0, sizeof f->saved);
    for (int i = 0; i < plan->saved_count[n]; i++) {
        const gd_tensor *saved = &plan->saved[n * GD_MAX_SAVED + i];
        f->saved[i] = count == plan->batch ? *saved : slice(saved, first, count);
    }
    f->call = (gd_call){
        .attrs = node->attrs,
        .inputs = f->inputs,
        .outputs = f->outputs,
        .params = run->params + node->first_param,
        .saved = f->saved,
        .input_count = node->input_count,
        .scratch = scratch,
        .workspace = plan->workspaces[2 * n],
        .pool = run->pool,
        .rng = run->rng,
        .training = run->training,
        .relu = plan->then_relu[n],
    };
    if (plan->pooling[n] >= 0) {
        f->pooling = pooling_of(plan, plan->pooling[n], plan->then_relu[n], scratch, first, count);
        f->call.pooling = &f->pooling;
    }
}

static void open_grads(frame *f, const gd_run *run, int n, int64_t first, int64_t count) {
    const gd_plan *plan = run->plan;
    const gd_node *node = &plan->graph->nodes[n];
    for (int i = 0; i < node->input_count; i++) {
        f->input_grads[i] =
            part_of(plan, plan->grads, plan->local_grad, f->call.scratch, node->inputs[i], first, count);
        if (!plan->needs[node->inputs[i]])
            f->input_grads[i].data = NULL;
    }
    for (int i = 0; i < node->output_count; i++) {
        f->output_grads[i] = part_of(plan, plan->grads, plan->local_grad, f->call.scratch,
                                     node->first_output + i, first, count);
        if (!plan->reached[node->first_output + i])
            f->output_grads[i].data = NULL;
    }
    f->call.workspace = plan->workspaces[2 * n + 1];
    f->call.relu = plan->after_relu[n];
    f->call.input_grads = f->input_grads;
    f->call.output_grads = f->output_grads;
    f->call.param_grads = run->param_grads + node->first_param;
    f->call.accumulate = plan->accumulate + node->first_input;
}

/* ---- forward --------------------------------------------------------------------------------------- */

typedef struct pass {
    const gd_run *run;
    const gd_segment *segment;
} pass;

static void forward_part(void *context, int64_t part, int slot) {
    const pass *p = context;
    const gd_plan *plan = p->run->plan;
    const int64_t slice = p->segment->slice, begin = part * p->segment->part;
    const int64_t end = gd_smaller(begin + p->segment->part, plan->batch);
    frame f;
    for (int64_t first = begin; first < end; first += slice)
        for (int i = p->segment->first; i < p->segment->last; i++) {
            const int n = plan->graph->order[i];
            if (plan->done[n])
                continue;
            open_frame(&f, p->run, n, first, gd_smaller(end - first, slice), slot);
            plan->ops[n]->forward(&f.call);
        }
}

void gd_run_forward(const gd_run *run) {
    const gd_plan *plan = run->plan;
    const unsigned before = gd_flush_begin();
    for (int s = 0; s < plan->segment_count; s++) {
        pass p = {.run = run, .segment = &plan->segments[s]};
        if (p.segment->parallel) {
            gd_parallel_for(run->pool, p.segment->part_count, forward_part, &p);
        } else {
            frame f;
            const int n = plan->graph->order[p.segment->first];
            open_frame(&f, run, n, 0, plan->batch, 0);
            plan->ops[n]->forward(&f.call);
        }
    }
    gd_flush_end(before);
}

/* ---- backward -------------------------------------------------------------------------------------- */

bool gd_run_trace(const gd_run *run, unsigned outputs) {
    const gd_plan *plan = run->plan;
    const gd_graph *graph = plan->graph;
    for (int v = 0; v < graph->value_count; v++)
        plan->needs[v] = plan->reached[v] = false;
    for (int i = 0; i < graph->node_count; i++) {
        const gd_node *node = &graph->nodes[graph->order[i]];
        bool needs = false;
        for (int k = 0; k < node->param_count; k++)
            needs = needs || run->param_grads[node->first_param + k].data;
        for (int k = 0; k < node->input_count; k++)
            needs = needs || plan->needs[node->inputs[k]];
        for (int k = 0; k < node->output_count; k++)
            plan->needs[node->first_output + k] =
                needs && graph->values[node->first_output + k].dtype == GD_FLOAT32;
    }
    bool any = false;
    for (int i = 0; i < graph->output_count; i++)
        if (outputs >> i & 1) {
            plan->reached[graph->outputs[i]] = true;
            any = any || plan->needs[graph->outputs[i]];
        }
    for (int i = graph->node_count - 1; i >= 0; i--) {
        const int n = graph->order[i];
        const gd_node *node = &graph->nodes[n];
        plan->active[n] = false;
        for (int k = 0; k < node->output_count; k++)
            plan->active[n] |= plan->needs[node->first_output + k] && plan->reached[node->first_output + k];
        for (int k = 0; plan->active[n] && k < node->input_count; k++) {
            plan->accumulate[node->first_input + k] = plan->reached[node->inputs[k]];
            plan->reached[node->inputs[k]] |= plan->needs[node->inputs[k]];
        }
    }
    return any;
}

/* Where a part adds a parameter's gradient: straight to the model when there is one part, else to its own
 * partial sums. */
static void use_partials(frame *f, const pass *p, int n, int64_t part) {
    const gd_plan *plan = p->run->plan;
    const gd_node *node = &plan->graph->nodes[n];
    if (p->segment->part_count == 1 || plan->partial_offset[n] == SIZE_MAX)
        return;
    float *at = plan->partials + (size_t)part * p->segment->partial_floats + plan->partial_offset[n];
    for (int k = 0; k < node->param_count;
         at += gd_partial_size(&p->run->params[node->first_param + k++].shape)) {
        f->param_grads[k] = p->run->param_grads[node->first_param + k];
        if (f->param_grads[k].data)
            f->param_grads[k].data = at;
    }
    f->call.param_grads = f->param_grads;
}

static void clear_partials(const pass *p, int64_t part) {
    const size_t count = p->segment->partial_floats;
    if (p->segment->part_count > 1)
        memset(p->run->plan->partials + (size_t)part * count, 0, count * sizeof(float));
}

/* Has the node anything to do in backward? */
static bool goes_back(const gd_plan *plan, int n) {
    return plan->active[n] && !plan->undone[n];
}

static void backward_part(void *context, int64_t part, int slot) {
    const pass *p = context;
    const gd_plan *plan = p->run->plan;
    const int64_t slice = p->segment->slice, begin = part * p->segment->part;
    const int64_t end = gd_smaller(begin + p->segment->part, plan->batch);
    frame f;
    clear_partials(p, part);
    for (int64_t first = begin; first < end; first += slice)
        for (int i = p->segment->last - 1; i >= p->segment->first; i--) {
            const int n = plan->graph->order[i];
            const int64_t count = gd_smaller(end - first, slice);
            if (!goes_back(plan, n))
                continue;
            open_frame(&f, p->run, n, first, count, slot);
            open_grads(&f, p->run, n, first, count);
            use_partials(&f, p, n, part);
            plan->ops[n]->backward(&f.call);
        }
}

/* Has an earlier node of the segment the same parameters? */
static bool seen_before(const pass *p, int at) {
    const gd_graph *graph = p->run->plan->graph;
    const gd_node *node = &graph->nodes[graph->order[at]];
    for (int i = p->segment->first; i < at; i++) {
        const gd_node *other = &graph->nodes[graph->order[i]];
        if (other->param_count && other->first_param == node->first_param)
            return true;
    }
    return false;
}

static void add_to(float *restrict sum, const float *restrict x, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        sum[i] += x[i];
}

/* Which gradients are overwritten and need no zeros first: of parameters whose every use adds up partial
 * gradients, or overwrites. The others get their zeros. */
static void begin_gradients(const gd_run *run) {
    const gd_plan *plan = run->plan;
    const gd_graph *graph = plan->graph;
    for (int p = 0; p < graph->param_count; p++)
        plan->fresh[p] = false;
    if (!run->zero_grad)
        return;
    for (int n = 0; n < graph->node_count; n++)
        for (int k = 0; plan->active[n] && k < graph->nodes[n].param_count; k++)
            plan->fresh[graph->nodes[n].first_param + k] = true;
    for (int n = 0; n < graph->node_count; n++) {
        const gd_node *node = &graph->nodes[n];
        const bool parts =
            plan->partial_offset[n] != SIZE_MAX && plan->segments[plan->segment_of[n]].part_count > 1;
        for (int k = 0;
             plan->active[n] && !parts && !(node->op->flags & GD_OVERWRITES) && k < node->param_count; k++)
            plan->fresh[node->first_param + k] = false;
    }
    for (int p = 0; p < graph->param_count; p++)
        if (run->param_grads[p].data && !plan->fresh[p])
            memset(run->param_grads[p].data, 0, gd_tensor_bytes(&run->param_grads[p]));
}

/* Partial gradients, added up in the order of the parts. */
static void add_partials(const pass *p) {
    const gd_plan *plan = p->run->plan;
    const gd_graph *graph = plan->graph;
    for (int i = p->segment->first; p->segment->part_count > 1 && i < p->segment->last; i++) {
        const int n = graph->order[i];
        const gd_node *node = &graph->nodes[n];
        if (plan->partial_offset[n] == SIZE_MAX || seen_before(p, i))
            continue;
        const float *at = plan->partials + plan->partial_offset[n];
        for (int k = node->first_param; k < node->first_param + node->param_count; k++) {
            const gd_shape *shape = &p->run->params[k].shape;
            float *grad = p->run->param_grads[k].data;
            const int copied = grad && plan->fresh[k];
            if (copied)
                memcpy(grad, at, (size_t)gd_numel(shape) * sizeof *grad);
            for (int part = copied; grad && part < p->segment->part_count; part++)
                add_to(grad, at + (size_t)part * p->segment->partial_floats, gd_numel(shape));
            plan->fresh[k] = false;
            at += gd_partial_size(shape);
        }
    }
}

/* Rows of a block: each block of a product packs the batch anew, so of many rows there are few blocks. */
static int64_t block_rows(const gd_run *run, int n) {
    enum { BLOCKS = 4 };
    const int64_t rows = run->params[run->plan->graph->nodes[n].first_param].shape.dim[0];
    const int64_t share = gd_ceil_div(gd_ceil_div(rows, BLOCKS), GD_PARAM_ROWS) * GD_PARAM_ROWS;
    return gd_smaller(share, GD_MOST_PARAM_ROWS);
}

static int64_t row_blocks(const gd_run *run, int n) {
    const gd_node *node = &run->plan->graph->nodes[n];
    if (!run->plan->active[n] || !node->op->backward_params || !node->param_count)
        return 0;
    return gd_ceil_div(run->params[node->first_param].shape.dim[0], block_rows(run, n));
}

bool gd_run_completes(const gd_run *run, int param) {
    const gd_graph *graph = run->plan->graph;
    int uses = 0;
    bool completes = false;
    for (int n = 0; n < graph->node_count; n++) {
        const gd_node *node = &graph->nodes[n];
        uses += node->first_param <= param && param < node->first_param + node->param_count;
        completes |= node->first_param == param && node->param_count && run->plan->active[n] &&
                     node->op->flags & GD_FOLLOWED;
    }
    return completes && uses == 1 && run->param_grads[param].data;
}

/* Block `index` of all row blocks of the segment's nodes. */
static void backward_rows(void *context, int64_t index, int slot) {
    const pass *p = context;
    const gd_run *run = p->run;
    int n = -1;
    for (int i = p->segment->first; i < p->segment->last; i++) {
        n = run->plan->graph->order[i];
        const int64_t blocks = row_blocks(run, n);
        if (index < blocks)
            break;
        index -= blocks;
    }
    const int param = run->plan->graph->nodes[n].first_param;
    gd_follower follower;
    frame f;
    open_frame(&f, run, n, 0, run->plan->batch, slot);
    open_grads(&f, run, n, 0, run->plan->batch);
    f.call.begin = index * block_rows(run, n);
    f.call.end = gd_smaller(f.call.begin + block_rows(run, n), f.call.params[0].shape.dim[0]);
    f.call.fresh = run->plan->fresh[param];
    if (run->follow && run->follow->params[param]) {
        run->follow->rows(run->follow->context, param, f.call.begin, &follower);
        f.call.follower = &follower;
    }
    run->plan->ops[n]->backward_params(&f.call);
}

/* Products of a step with a node's weight: as many as it has elements, for each row of its input. */
static double products_of(const gd_plan *plan, int n) {
    const gd_node *node = &plan->graph->nodes[n];
    const gd_shape *x = &plan->values[node->inputs[0]].shape;
    return (double)gd_numel(&plan->graph->params[node->first_param].shape) *
           (double)gd_numel_of(x, 0, x->rank > 1 ? x->rank - 1 : x->rank);
}

/* All row blocks of a segment side by side; but nodes that share parameters one after the other. */
static void backward_params(const pass *whole) {
    const gd_run *run = whole->run;
    for (int first = whole->segment->first, last = first; first < whole->segment->last; first = last) {
        gd_segment stretch = {.first = first, .last = whole->segment->last};
        pass p = {.run = run, .segment = &stretch};
        int64_t blocks = 0;
        double products = 0;
        for (; last < stretch.last && !seen_before(&p, last); last++) {
            const int n = run->plan->graph->order[last];
            blocks += row_blocks(run, n);
            if (row_blocks(run, n))
                products += products_of(run->plan, n);
        }
        stretch.last = last;
        if (products < GD_WAKE)
            for (int64_t i = 0; i < blocks; i++)
                backward_rows(&p, i, 0);
        else
            gd_parallel_for(run->pool, blocks, backward_rows, &p);
        for (int i = first; i < last; i++) {
            const gd_node *node = &run->plan->graph->nodes[run->plan->graph->order[i]];
            for (int k = 0; node->op->backward_params && k < node->param_count; k++)
                run->plan->fresh[node->first_param + k] = false;
        }
    }
}

void gd_run_backward(const gd_run *run) {
    const gd_plan *plan = run->plan;
    const unsigned before = gd_flush_begin();
    begin_gradients(run);
    for (int s = plan->segment_count - 1; s >= 0; s--) {
        pass p = {.run = run, .segment = &plan->segments[s]};
        const int n = plan->graph->order[p.segment->first];
        if (p.segment->parallel) {
            gd_parallel_for(run->pool, p.segment->part_count, backward_part, &p);
            add_partials(&p);
        } else if (goes_back(plan, n)) {
            frame f;
            open_frame(&f, run, n, 0, plan->batch, 0);
            open_grads(&f, run, n, 0, plan->batch);
            plan->ops[n]->backward(&f.call);
        }
        backward_params(&p);
    }
    gd_flush_end(before);
}
