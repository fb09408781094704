/* join.c -- several inputs made one: torch.cat along an axis, torch.stack along a new one. */
#include <inttypes.h>

#include "engine/kernels/strided.h"
#include "engine/ops/axes.h"

/* All inputs must have the batch where the first has it. */
static int check_batch(const gd_infer *infer) {
    for (int i = 1; i < infer->input_count; i++)
        if ((infer->input_axes[i] < 0) != (infer->input_axes[0] < 0))
            return gd_fail_field(infer->error, GD_E_SHAPE, "inputs",
                                 "input %d is one for all samples, and another is not; expand_as repeats it "
                                 "for every sample",
                                 infer->input_axes[0] < 0 ? 0 : i);
        else if (infer->input_axes[i] != infer->input_axes[0])
            return gd_fail_field(infer->error, GD_E_SHAPE, "inputs",
                                 "input %d has the batch on axis %d, and input 0 on axis %d", i,
                                 infer->input_axes[i], infer->input_axes[0]);
    return 0;
}

/* Shapes must agree, but for one axis (-1: none). */
static int check_shapes(const gd_infer *infer, int but) {
    const gd_shape *x = &infer->inputs[0];
    char a[128], b[128];
    for (int i = 1; i < infer->input_count; i++) {
        const gd_shape *z = &infer->inputs[i];
        bool fits = x->rank == z->rank;
        for (int k = 0; fits && k < x->rank; k++)
            fits = k == but || x->dim[k] == z->dim[k];
        if (!fits && infer->input_axes[0] == 0)
            return gd_fail_field(infer->error, GD_E_SHAPE, "inputs",
                                 "input 0 has samples of %s and input %d of %s; they must be equal%s",
                                 gd_sample_text(x, a, sizeof a), i, gd_sample_text(z, b, sizeof b),
                                 but < 0 ? "" : " but for the axis they are joined along");
        if (!fits)
            return gd_fail_field(infer->error, GD_E_SHAPE, "inputs",
                                 "input 0 is %s and input %d is %s; they must be equal%s",
                                 gd_shape_text(x, a, sizeof a), i, gd_shape_text(z, b, sizeof b),
                                 but < 0 ? "" : " but for the axis they are joined along");
    }
    return 0;
}

/* The place of each input in turn in the output. */
typedef struct places {
    gd_box box;
    int64_t steps[GD_MAX_RANK]; /* of the output */
    int axis;
    bool fresh; /* the axis is a new one */
} places;

static places places_of(int64_t dim, const gd_shape *x, const gd_shape *y) {
    places p = {.fresh = y->rank > x->rank, .axis = gd_axis_of(dim, y->rank)};
    gd_row_major(y, p.steps);
    return p;
}

/* Set up the box for an input of this shape, and move on by as much. */
static gd_box next_place(places *p, const gd_shape *x) {
    const int64_t at = p->box.y_at;
    p->box = gd_box_of(x);
    for (int i = 0; i < x->rank; i++)
        p->box.y_step[i] = p->steps[p->fresh && i >= p->axis ? i + 1 : i];
    p->box.y_at = at;
    const gd_box box = p->box;
    p->box.y_at += p->steps[p->axis] * (p->fresh ? 1 : x->dim[p->axis]);
    return box;
}

static void join_forward(const gd_call *call, int64_t dim) {
    places p = places_of(dim, &call->inputs[0].shape, &call->outputs[0].shape);
    for (int i = 0; i < call->input_count; i++) {
        const gd_box box = next_place(&p, &call->inputs[i].shape);
        gd_box_copy(&box, call->inputs[i].data, call->outputs[0].data);
    }
}

static void join_backward(const gd_call *call, int64_t dim) {
    places p = places_of(dim, &call->inputs[0].shape, &call->output_grads[0].shape);
    for (int i = 0; i < call->input_count; i++) {
        const gd_box box = next_place(&p, &call->inputs[i].shape);
        if (call->input_grads[i].data)
            gd_box_return(&box, call->input_grads[i].data, call->output_grads[0].data, call->accumulate[i]);
    }
}

struct join {
    int64_t dim;
};

/* ---- cat --------------------------------------------------------------------------------------------- */

static const gd_attr cat_attrs[] = {
    GD_INT(struct join, dim, .doc = "axis along which inputs follow each other; not the batch, axis 0"),
};

static int cat_infer(gd_infer *infer) {
    const struct join *a = infer->attrs;
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code || (code = check_batch(infer)) || (code = check_shapes(infer, axis)))
        return code;
    gd_shape *y = &infer->outputs[0];
    *y = infer->inputs[0];
    for (int i = 1; i < infer->input_count; i++) /* sizes under 2^31, and few of them */
        y->dim[axis] += infer->inputs[i].dim[axis];
    return 0;
}

static void cat_forward(const gd_call *call) {
    join_forward(call, ((const struct join *)call->attrs)->dim);
}

static void cat_backward(const gd_call *call) {
    join_backward(call, ((const struct join *)call->attrs)->dim);
}

const gd_op gd_op_cat = {
    .kind = {.function = "cat",
             .doc = "Inputs one after the other along an axis.",
             GD_ATTRS(struct join, cat_attrs)},
    .min_inputs = 1,
    .max_inputs = GD_MAX_INPUTS,
    .flags = GD_BATCH,
    .infer = cat_infer,
    .forward = cat_forward,
    .backward = cat_backward,
    .grad_name = "CatBackward0",
};

/* ---- stack ------------------------------------------------------------------------------------------- */

static const gd_attr stack_attrs[] = {
    GD_INT(struct join, dim, .doc = "where the new axis goes; 0: before the batch, which is axis 1 then"),
};

static int stack_infer(gd_infer *infer) {
    const struct join *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    gd_shape *y = &infer->outputs[0];
    int axis;
    int code = gd_axis(infer, "dim", a->dim, x->rank + 1, &axis);
    if (code || (code = check_batch(infer)) || (code = check_shapes(infer, -1)))
        return code;
    if (x->rank == GD_MAX_RANK)
        return gd_fail(infer->error, GD_E_LIMIT, "its output would have over %d axes", GD_MAX_RANK);
    y->rank = x->rank + 1;
    y->dim[axis] = infer->input_count;
    for (int i = 0; i < x->rank; i++)
        y->dim[i < axis ? i : i + 1] = x->dim[i];
    infer->axes[0] += infer->axes[0] >= axis;
    return 0;
}

static void stack_forward(const gd_call *call) {
    join_forward(call, ((const struct join *)call->attrs)->dim);
}

static void stack_backward(const gd_call *call) {
    join_backward(call, ((const struct join *)call->attrs)->dim);
}

const gd_op gd_op_stack = {
    .kind = {.function = "stack",
             .doc = "Inputs of one shape side by side, along a new axis.",
             GD_ATTRS(struct join, stack_attrs)},
    .min_inputs = 1,
    .max_inputs = GD_MAX_INPUTS,
    .flags = GD_BATCH,
    .infer = stack_infer,
    .forward = stack_forward,
    .backward = stack_backward,
    .grad_name = "StackBackward0",
};
