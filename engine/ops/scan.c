/* scan.c -- along one axis, any but the batch: torch.cumsum, torch.argmax. */
#include "engine/ops/axes.h"

struct scan {
    int64_t dim;
    bool keepdim;
};

#define DIM(text) GD_INT(struct scan, dim, .required = true, .doc = text)

static const gd_attr cumsum_attrs[] = {DIM("the axis to add up along")};
static const gd_attr argmax_attrs[] = {
    DIM("the axis to look along"),
    GD_BOOL(struct scan, keepdim, .doc = "leave that axis there, with size 1"),
};

/* A tensor as (outer, length, inner), the axis in the middle. */
typedef struct lines {
    int64_t outer, length, inner;
} lines;

static lines lines_of(const gd_call *call) {
    const gd_shape *x = &call->inputs[0].shape;
    const int axis = gd_axis_of(((const struct scan *)call->attrs)->dim, x->rank);
    return (lines){gd_numel_of(x, 0, axis), x->dim[axis], gd_numel_of(x, axis + 1, x->rank)};
}

static int cumsum_infer(gd_infer *infer) {
    int axis;
    infer->outputs[0] = infer->inputs[0];
    return gd_sample_axis(infer, "dim", ((const struct scan *)infer->attrs)->dim, &axis);
}

/* to[k] = (to[k] +) from[k] + ... from the first element on, or backwards from the last. Neighbouring lines
 * go side by side, some at a time; sums are kept in double. */
static void add_along(const lines *l, const float *from, float *to, bool backwards, bool add) {
    enum { SOME = 64 };
    for (int64_t o = 0; o < l->outer; o++)
        for (int64_t first = 0; first < l->inner; first += SOME) {
            const int64_t count = l->inner - first < SOME ? l->inner - first : SOME;
            double sums[SOME] = {0};
            for (int64_t k = 0; k < l->length; k++) {
                const int64_t at = (o * l->length + (backwards ? l->length - 1 - k : k)) * l->inner + first;
#pragma omp simd
                for (int64_t i = 0; i < count; i++) {
                    sums[i] += from[at + i];
                    to[at + i] = (add ? to[at + i] : 0) + (float)sums[i];
                }
            }
        }
}

/* y[k] = x[0] + ... + x[k] */
static void cumsum_forward(const gd_call *call) {
    const lines l = lines_of(call);
    add_along(&l, call->inputs[0].data, call->outputs[0].data, false, false);
}

/* dx[k] = dy[k] + ... + dy[last] */
static void cumsum_backward(const gd_call *call) {
    const lines l = lines_of(call);
    if (call->input_grads[0].data)
        add_along(&l, call->output_grads[0].data, call->input_grads[0].data, true, call->accumulate[0]);
}

const gd_op gd_op_cumsum = {
    .kind = {.function = "cumsum",
             .doc = "Sum of all elements up to each one, along an axis.",
             GD_ATTRS(struct scan, cumsum_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = cumsum_infer,
    .forward = cumsum_forward,
    .backward = cumsum_backward,
    .grad_name = "CumsumBackward0",
};

static int argmax_infer(gd_infer *infer) {
    const struct scan *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    gd_shape *y = &infer->outputs[0];
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    *y = (gd_shape){0};
    for (int i = 0; i < x->rank; i++)
        if (i != axis || a->keepdim)
            y->dim[y->rank++] = i == axis ? 1 : x->dim[i];
    if (!a->keepdim && infer->axes[0] > axis)
        infer->axes[0]--;
    infer->dtypes[0] = GD_INT64;
    infer->limits[0] = x->dim[axis];
    return 0;
}

/* The first of the largest; NaN is larger than all. */
static void argmax_forward(const gd_call *call) {
    const lines l = lines_of(call);
    int64_t *y = call->outputs[0].data;
    for (int64_t o = 0; o < l.outer; o++)
        for (int64_t i = 0; i < l.inner; i++) {
            const float *x = (const float *)call->inputs[0].data + o * l.length * l.inner + i;
            int64_t best = 0;
            for (int64_t k = 1; k < l.length && !isnan(x[best * l.inner]); k++)
                if (x[k * l.inner] > x[best * l.inner] || isnan(x[k * l.inner]))
                    best = k;
            y[o * l.inner + i] = best;
        }
}

/* Indices have no gradient: this is never called. */
static void no_backward(const gd_call *call) {
    (void)call;
}

const gd_op gd_op_argmax = {
    .kind = {.function = "argmax",
             .doc = "Index of the largest element along an axis, int64; has no gradient.",
             GD_ATTRS(struct scan, argmax_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = argmax_infer,
    .forward = argmax_forward,
    .backward = no_backward,
    .grad_name = "",
};
