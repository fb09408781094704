/* permute.c -- the same elements in another order: torch.permute, transpose, flip and roll. */
#include <inttypes.h>

#include "engine/kernels/strided.h"
#include "engine/ops/axes.h"

/* ---- permute and transpose: output axis i is input axis order[i]; the batch may move ---------------- */

static void reorder(gd_infer *infer, const int *order) {
    const gd_shape *x = &infer->inputs[0];
    gd_shape *y = &infer->outputs[0];
    y->rank = x->rank;
    for (int i = 0; i < x->rank; i++) {
        y->dim[i] = x->dim[order[i]];
        if (order[i] == infer->input_axes[0])
            infer->axes[0] = i;
    }
}

static gd_box reordered(const gd_shape *x, const int *order) {
    gd_box box = {.rank = x->rank};
    gd_shape y = {.rank = x->rank};
    int64_t steps[GD_MAX_RANK];
    gd_row_major(x, steps);
    for (int i = 0; i < x->rank; i++) {
        box.size[i] = y.dim[i] = x->dim[order[i]];
        box.x_step[i] = steps[order[i]];
    }
    gd_row_major(&y, box.y_step);
    return box;
}

struct permute {
    gd_ints dims;
};

static const gd_attr permute_attrs[] = {
    GD_INTS(struct permute, dims, .required = true,
            .doc = "input axis of each output axis; the batch, axis 0, may go elsewhere"),
};

static int permute_infer(gd_infer *infer) {
    const struct permute *a = infer->attrs;
    const int rank = infer->inputs[0].rank;
    int order[GD_MAX_RANK];
    unsigned seen = 0;
    if (a->dims.count != (size_t)rank)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "dims",
                             "dims has %zu axes, but the input has %d, the batch included", a->dims.count,
                             rank);
    for (int i = 0; i < rank; i++) {
        int code = gd_axis(infer, "dims", a->dims.data[i], rank, &order[i]);
        if (code)
            return code;
        if (seen & 1U << order[i])
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "dims", "dims names axis %d twice", order[i]);
        seen |= 1U << order[i];
    }
    reorder(infer, order);
    return 0;
}

static gd_box permute_box(const gd_call *call) {
    const struct permute *a = call->attrs;
    const gd_shape *x = &call->inputs[0].shape;
    int order[GD_MAX_RANK] = {0};
    for (int i = 0; i < x->rank; i++)
        order[i] = gd_axis_of(a->dims.data[i], x->rank);
    return reordered(x, order);
}

static void permute_forward(const gd_call *call) {
    const gd_box box = permute_box(call);
    gd_box_copy(&box, call->inputs[0].data, call->outputs[0].data);
}

static void permute_backward(const gd_call *call) {
    const gd_box box = permute_box(call);
    if (call->input_grads[0].data)
        gd_box_return(&box, call->input_grads[0].data, call->output_grads[0].data, call->accumulate[0]);
}

const gd_op gd_op_permute = {
    .kind = {.function = "permute",
             .doc = "The axes in another order.",
             GD_ATTRS(struct permute, permute_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = permute_infer,
    .forward = permute_forward,
    .backward = permute_backward,
    .grad_name = "PermuteBackward0",
};

struct transpose {
    int64_t dim0, dim1;
};

static const gd_attr transpose_attrs[] = {
    GD_INT(struct transpose, dim0, .required = true, .doc = "an axis; the batch is axis 0"),
    GD_INT(struct transpose, dim1, .required = true, .doc = "the axis it changes places with"),
};

static void transpose_order(const struct transpose *a, int rank, int *order) {
    for (int i = 0; i < rank; i++)
        order[i] = i;
    order[gd_axis_of(a->dim0, rank)] = gd_axis_of(a->dim1, rank);
    order[gd_axis_of(a->dim1, rank)] = gd_axis_of(a->dim0, rank);
}

static int transpose_infer(gd_infer *infer) {
    const struct transpose *a = infer->attrs;
    const int rank = infer->inputs[0].rank;
    int order[GD_MAX_RANK], axis;
    int code = gd_axis(infer, "dim0", a->dim0, rank, &axis);
    if (code || (code = gd_axis(infer, "dim1", a->dim1, rank, &axis)))
        return code;
    transpose_order(a, rank, order);
    reorder(infer, order);
    return 0;
}

static gd_box transpose_box(const gd_call *call) {
    int order[GD_MAX_RANK];
    transpose_order(call->attrs, call->inputs[0].shape.rank, order);
    return reordered(&call->inputs[0].shape, order);
}

static void transpose_forward(const gd_call *call) {
    const gd_box box = transpose_box(call);
    gd_box_copy(&box, call->inputs[0].data, call->outputs[0].data);
}

static void transpose_backward(const gd_call *call) {
    const gd_box box = transpose_box(call);
    if (call->input_grads[0].data)
        gd_box_return(&box, call->input_grads[0].data, call->output_grads[0].data, call->accumulate[0]);
}

const gd_op gd_op_transpose = {
    .kind = {.function = "transpose",
             .doc = "Two axes change places.",
             GD_ATTRS(struct transpose, transpose_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = transpose_infer,
    .forward = transpose_forward,
    .backward = transpose_backward,
    .grad_name = "TransposeBackward0",
};

/* ---- flip: the same box, walked backwards along some axes -------------------------------------------- */

/* Axes of the samples, each at most once. */
static int check_axes(const gd_infer *infer, const gd_ints *dims) {
    unsigned seen = 0;
    for (size_t i = 0; i < dims->count; i++) {
        int axis;
        int code = gd_sample_axis(infer, "dims", dims->data[i], &axis);
        if (code)
            return code;
        if (seen & 1U << axis)
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "dims", "dims names axis %d twice", axis);
        seen |= 1U << axis;
    }
    return 0;
}

struct flip {
    gd_ints dims;
};

static const gd_attr flip_attrs[] = {
    GD_INTS(struct flip, dims, .required = true, .doc = "axes to turn around; not the batch"),
};

static int flip_infer(gd_infer *infer) {
    const struct flip *a = infer->attrs;
    infer->outputs[0] = infer->inputs[0];
    return check_axes(infer, &a->dims);
}

static gd_box flip_box(const gd_call *call) {
    const struct flip *a = call->attrs;
    gd_box box = gd_box_of(&call->inputs[0].shape);
    for (size_t i = 0; i < a->dims.count; i++) {
        const int axis = gd_axis_of(a->dims.data[i], box.rank);
        box.x_at += box.x_step[axis] * (box.size[axis] - 1);
        box.x_step[axis] = -box.x_step[axis];
    }
    return box;
}

static void flip_forward(const gd_call *call) {
    const gd_box box = flip_box(call);
    gd_box_copy(&box, call->inputs[0].data, call->outputs[0].data);
}

static void flip_backward(const gd_call *call) {
    const gd_box box = flip_box(call);
    if (call->input_grads[0].data)
        gd_box_return(&box, call->input_grads[0].data, call->output_grads[0].data, call->accumulate[0]);
}

const gd_op gd_op_flip = {
    .kind = {.function = "flip",
             .doc = "Turns the order along some axes around.",
             GD_ATTRS(struct flip, flip_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = flip_infer,
    .forward = flip_forward,
    .backward = flip_backward,
    .grad_name = "FlipBackward0",
};

/* ---- roll: y[i] = x[(i - shift) mod size]; two pieces along each axis -------------------------------- */

struct roll {
    gd_ints shifts, dims;
};

static const gd_attr roll_attrs[] = {
    GD_INTS(struct roll, shifts, .required = true, .doc = "places by which elements move on, one per axis"),
    GD_INTS(struct roll, dims, .required = true,
            .doc = "axes along which they move, the last ones to the front; not the batch"),
};

static int roll_infer(gd_infer *infer) {
    const struct roll *a = infer->attrs;
    infer->outputs[0] = infer->inputs[0];
    if (a->shifts.count != a->dims.count || a->dims.count == 0)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "shifts",
                             "shifts has %zu numbers and dims %zu: give one shift for each axis",
                             a->shifts.count, a->dims.count);
    return check_axes(infer, &a->dims);
}

/* Piece `index` of 2^count: bit i tells which part along dims[i]: what moves on, or what wraps around.
 * @return false: it is empty */
static bool roll_box(const gd_call *call, unsigned index, gd_box *box) {
    const struct roll *a = call->attrs;
    *box = gd_box_of(&call->inputs[0].shape);
    for (size_t i = 0; i < a->dims.count; i++) {
        const int axis = gd_axis_of(a->dims.data[i], box->rank);
        const int64_t size = box->size[axis];
        const int64_t shift = (a->shifts.data[i] % size + size) % size; /* 0 ... size - 1 */
        if (index >> i & 1) { /* the last `shift` come to the front */
            box->size[axis] = shift;
            box->x_at += (size - shift) * box->x_step[axis];
        } else {
            box->size[axis] = size - shift;
            box->y_at += shift * box->y_step[axis];
        }
        if (box->size[axis] == 0)
            return false;
    }
    return true;
}

static void roll_forward(const gd_call *call) {
    const struct roll *a = call->attrs;
    gd_box box;
    for (unsigned piece = 0; piece < 1U << a->dims.count; piece++)
        if (roll_box(call, piece, &box))
            gd_box_copy(&box, call->inputs[0].data, call->outputs[0].data);
}

static void roll_backward(const gd_call *call) {
    const struct roll *a = call->attrs;
    gd_box box;
    for (unsigned piece = 0; call->input_grads[0].data && piece < 1U << a->dims.count; piece++)
        if (roll_box(call, piece, &box))
            gd_box_return(&box, call->input_grads[0].data, call->output_grads[0].data, call->accumulate[0]);
}

const gd_op gd_op_roll = {
    .kind = {.function = "roll",
             .doc = "Moves elements along axes; those pushed off the end come in at the front.",
             GD_ATTRS(struct roll, roll_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = roll_infer,
    .forward = roll_forward,
    .backward = roll_backward,
    .grad_name = "RollBackward0",
};
