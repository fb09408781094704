/* index.c -- elements picked by number: torch.index_select and torch.gather. */
#include <inttypes.h>

#include "engine/kernels/strided.h"
#include "engine/ops/axes.h"

/* ---- index_select: slices of an axis, by a list that is the same for all samples -------------------- */

struct index_select {
    int64_t dim;
    gd_ints index;
};

static const gd_attr index_select_attrs[] = {
    GD_INT(struct index_select, dim, .required = true, .doc = "axis to pick from; not the batch"),
    GD_INTS(struct index_select, index, .required = true, .min = 0,
            .doc = "which of its elements, in this order; any may come more than once"),
};

static int index_select_infer(gd_infer *infer) {
    const struct index_select *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    for (size_t i = 0; i < a->index.count; i++)
        if (a->index.data[i] >= x->dim[axis])
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "index",
                                 "index holds %" PRId64 ", but axis %d has only %" PRId64, a->index.data[i],
                                 axis, x->dim[axis]);
    if (a->index.count < 1 || a->index.count > INT32_MAX)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "index", "index must name at least one element");
    infer->outputs[0] = *x;
    infer->outputs[0].dim[axis] = (int64_t)a->index.count;
    return 0;
}

/* x as (outer, size, inner), the axis in the middle. */
typedef struct middle {
    int64_t outer, size, inner;
} middle;

static middle middle_of(const gd_call *call) {
    const gd_shape *x = &call->inputs[0].shape;
    const int axis = gd_axis_of(((const struct index_select *)call->attrs)->dim, x->rank);
    return (middle){gd_numel_of(x, 0, axis), x->dim[axis], gd_numel_of(x, axis + 1, x->rank)};
}

/* y[o, k] = x[o, index[k]] */
static void index_select_forward(const gd_call *call) {
    const gd_ints *index = &((const struct index_select *)call->attrs)->index;
    const middle m = middle_of(call);
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    for (int64_t o = 0; o < m.outer; o++, x += m.size * m.inner)
        for (size_t k = 0; k < index->count; k++, y += m.inner)
            memcpy(y, x + index->data[k] * m.inner, (size_t)m.inner * sizeof *y);
}

/* dx[o, index[k]] += dy[o, k] */
static void index_select_backward(const gd_call *call) {
    const gd_ints *index = &((const struct index_select *)call->attrs)->index;
    const middle m = middle_of(call);
    const float *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    if (!dx)
        return;
    if (!call->accumulate[0])
        memset(dx, 0, gd_tensor_bytes(&call->input_grads[0]));
    for (int64_t o = 0; o < m.outer; o++, dx += m.size * m.inner)
        for (size_t k = 0; k < index->count; k++, dy += m.inner) {
            float *to = dx + index->data[k] * m.inner;
#pragma omp simd
            for (int64_t i = 0; i < m.inner; i++)
                to[i] += dy[i];
        }
}

const gd_op gd_op_index_select = {
    .kind = {.function = "index_select",
             .doc = "Picks elements of an axis by a list of their numbers.",
             GD_ATTRS(struct index_select, index_select_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = index_select_infer,
    .forward = index_select_forward,
    .backward = index_select_backward,
    .grad_name = "IndexSelectBackward0",
};

/* ---- gather: one element per index, along an axis --------------------------------------------------- */

struct gather {
    int64_t dim;
};

static const gd_attr gather_attrs[] = {
    GD_INT(struct gather, dim, .required = true,
           .doc = "axis along which the second input's indices count; not the batch"),
};

static int gather_infer(gd_infer *infer) {
    const struct gather *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0], *index = &infer->inputs[1];
    char given[128], wanted[128];
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    bool fits = x->rank == index->rank && infer->input_axes[0] == infer->input_axes[1];
    for (int i = 0; fits && i < x->rank; i++)
        fits = i == axis || index->dim[i] <= x->dim[i];
    if (!fits)
        return gd_fail_field(
            infer->error, GD_E_SHAPE, "inputs",
            "the indices are %s and the input %s, the batch included: they must have as many "
            "axes, the batch the same one, and be no longer on any but dim",
            gd_shape_text(index, given, sizeof given), gd_shape_text(x, wanted, sizeof wanted));
    infer->outputs[0] = *index;
    return 0;
}

static int64_t gather_limit(const void *attrs, const gd_shape *inputs, int input) {
    (void)input;
    return inputs[0].dim[gd_axis_of(((const struct gather *)attrs)->dim, inputs[0].rank)];
}

/* Where the elements of one row of the indices (all along their last axis) lie in x. */
typedef struct row {
    int64_t at, step; /* of element k: at + k * step + index[k] * along */
    int64_t count, along;
} row;

static row row_of(const gd_call *call, int64_t number) {
    const gd_shape *x = &call->inputs[0].shape, *index = &call->inputs[1].shape;
    const int last = x->rank - 1, axis = gd_axis_of(((const struct gather *)call->attrs)->dim, x->rank);
    int64_t steps[GD_MAX_RANK];
    gd_row_major(x, steps);
    row r = {.step = last == axis ? 0 : 1, .count = index->dim[last], .along = steps[axis]};
    for (int i = last - 1; i >= 0; i--) {
        r.at += i == axis ? 0 : number % index->dim[i] * steps[i];
        number /= index->dim[i];
    }
    return r;
}

/* y[i, j, ...] = x[i, index[i, j, ...], ...] */
static void gather_forward(const gd_call *call) {
    const float *x = call->inputs[0].data;
    const gd_shape *shape = &call->inputs[1].shape;
    const int64_t *index = call->inputs[1].data, rows = gd_numel_of(shape, 0, shape->rank - 1);
    float *y = call->outputs[0].data;
    for (int64_t n = 0; n < rows; n++) {
        const row r = row_of(call, n);
        for (int64_t k = 0; k < r.count; k++)
            *y++ = x[r.at + k * r.step + *index++ * r.along];
    }
}

/* dx[i, index[i, j, ...], ...] += dy[i, j, ...] */
static void gather_backward(const gd_call *call) {
    const gd_shape *shape = &call->inputs[1].shape;
    const int64_t *index = call->inputs[1].data, rows = gd_numel_of(shape, 0, shape->rank - 1);
    const float *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    if (!dx)
        return;
    if (!call->accumulate[0])
        memset(dx, 0, gd_tensor_bytes(&call->input_grads[0]));
    for (int64_t n = 0; n < rows; n++) {
        const row r = row_of(call, n);
        for (int64_t k = 0; k < r.count; k++)
            dx[r.at + k * r.step + *index++ * r.along] += *dy++;
    }
}

const gd_op gd_op_gather = {
    .kind = {.function = "gather",
             .doc = "Picks elements along an axis by the indices (int64) in the second input.",
             GD_ATTRS(struct gather, gather_attrs)},
    .min_inputs = 2,
    .max_inputs = 2,
    .index_inputs = 2,
    .index_limit = gather_limit,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = gather_infer,
    .forward = gather_forward,
    .backward = gather_backward,
    .grad_name = "GatherBackward0",
};
