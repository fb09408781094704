/* view.c -- the same elements in another shape: torch.flatten, view, reshape, squeeze, unsqueeze, unflatten.
 * Samples stay apart: the batch axis is never joined or cut. */
#include <inttypes.h>

#include "engine/ops/axes.h"

struct flatten {
    int64_t start_dim, end_dim;
};

static const gd_attr flatten_attrs[] = {
    GD_INT(struct flatten, start_dim, .number = 1, .doc = "first axis to join; 0 is the batch and stays"),
    GD_INT(struct flatten, end_dim, .number = -1, .doc = "last axis to join; -1: the last"),
};

static int flatten_infer(gd_infer *infer) {
    const struct flatten *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    int64_t first = a->start_dim < 0 ? a->start_dim + x->rank : a->start_dim;
    int64_t last = a->end_dim < 0 ? a->end_dim + x->rank : a->end_dim;
    if (first == 0)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "start_dim",
                             "start_dim must not be axis 0, the batch; use 1");
    if (x->rank == 1 && first == 1 && last == 0) { /* (N): nothing to join */
        infer->outputs[0] = *x;
        return 0;
    }
    if (first < 0 || last >= x->rank || first > last)
        return gd_fail_field(
            infer->error, GD_E_ATTRIBUTE, first < 0 || first >= x->rank ? "start_dim" : "end_dim",
            "start_dim (%" PRId64 ") and end_dim (%" PRId64 ") must be axes, in order, of an "
            "input with %d axes",
            a->start_dim, a->end_dim, x->rank);
    gd_shape *y = &infer->outputs[0];
    *y = (gd_shape){0};
    for (int i = 0; i < x->rank; i++)
        if (i > first && i <= last)
            y->dim[y->rank - 1] *= x->dim[i];
        else
            y->dim[y->rank++] = x->dim[i];
    return 0;
}

static void view_forward(const gd_call *call) {
    if (call->outputs[0].data != call->inputs[0].data)
        memcpy(call->outputs[0].data, call->inputs[0].data, gd_tensor_bytes(&call->outputs[0]));
}

static void view_backward(const gd_call *call) {
    const float *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    if (!dx || dx == dy)
        return;
    const int64_t count = gd_numel(&call->output_grads[0].shape);
    for (int64_t i = 0; i < count; i++)
        dx[i] = call->accumulate[0] ? dx[i] + dy[i] : dy[i];
}

static void flatten_repr(FILE *out, const void *attrs) {
    const struct flatten *a = attrs;
    fprintf(out, "start_dim=%" PRId64 ", end_dim=%" PRId64, a->start_dim, a->end_dim);
}

/* Joining one axis gives the tensor itself: no node. */
static int flatten_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct flatten *a = attrs;
    const int rank = inputs[0].rank;
    nodes[0] = (gd_grad_fn){"ReshapeAliasBackward0", {GD_NEXT_INPUT(0)}, 1};
    return a->start_dim + (a->start_dim < 0 ? rank : 0) < a->end_dim + (a->end_dim < 0 ? rank : 0);
}

struct view {
    gd_ints shape;
};

static const gd_attr view_attrs[] = {
    GD_INTS(struct view, shape, .min = -1, .required = true,
            .doc = "sizes, the batch axis first as in torch; one of them may be -1: what is left"),
};

/* As in torch, -1 stands for what is left over; the first axis must come out as the batch again. */
static int view_infer(gd_infer *infer) {
    const struct view *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    const int64_t total = gd_numel(x);
    gd_shape *y = &infer->outputs[0];
    char from[128], to[128];
    if (a->shape.count < 1 || a->shape.count > GD_MAX_RANK)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "shape", "shape must have 1 to %d axes, not %zu",
                             GD_MAX_RANK, a->shape.count);
    int64_t known = 1;
    int unknown = -1;
    bool fits = true;
    gd_shape given = {.rank = (int)a->shape.count};
    *y = given;
    for (int i = 0; i < y->rank; i++) {
        y->dim[i] = given.dim[i] = a->shape.data[i];
        if (y->dim[i] >= 0)
            fits = fits && !__builtin_mul_overflow(known, y->dim[i], &known);
        else if (unknown >= 0)
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "shape", "shape may hold -1 only once");
        else
            unknown = i;
    }
    fits = fits && (unknown < 0 ? known == total : known > 0 && total % known == 0);
    if (fits && unknown >= 0)
        y->dim[unknown] = total / known;
    if (!fits || y->dim[0] != x->dim[0])
        return gd_fail_field(
            infer->error, GD_E_SHAPE, "shape",
            "samples of %s cannot be seen as %s with axis 0 still the batch; begin the shape "
            "with -1 and give sizes whose product is %" PRId64,
            gd_sample_text(x, from, sizeof from), gd_shape_text(&given, to, sizeof to),
            x->dim[0] ? total / x->dim[0] : 0);
    return 0;
}

const gd_op gd_op_flatten = {
    .kind = {.module = "Flatten",
             .function = "flatten",
             .doc = "Joins axes into one.",
             GD_ATTRS(struct flatten, flatten_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_VIEW,
    .infer = flatten_infer,
    .forward = view_forward,
    .backward = view_backward,
    .repr = flatten_repr,
    .grad_fn = flatten_grad_fn,
};

static int identity_infer(gd_infer *infer) {
    infer->outputs[0] = infer->inputs[0];
    infer->axes[0] = infer->input_axes[0];
    return 0;
}

/* Hands through, as if it were not there. */
static int identity_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs, (void)inputs, (void)nodes;
    return 0;
}

const gd_op gd_op_identity = {
    .kind = {.module = "Identity", .function = "identity", .doc = "Hands its input through."},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_VIEW,
    .infer = identity_infer,
    .forward = view_forward,
    .backward = view_backward,
    .grad_fn = identity_grad_fn,
};

const gd_op gd_op_view = {
    .kind = {.function = "view",
             .doc = "The same elements in another shape.",
             GD_ATTRS(struct view, view_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_VIEW,
    .infer = view_infer,
    .forward = view_forward,
    .backward = view_backward,
    .grad_name = "ViewBackward0",
};

const gd_op gd_op_reshape = {
    .kind = {.function = "reshape",
             .doc = "The same elements in another shape.",
             GD_ATTRS(struct view, view_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_VIEW,
    .infer = view_infer,
    .forward = view_forward,
    .backward = view_backward,
    .grad_name = "ReshapeAliasBackward0",
};

/* ---- squeeze: axes of size 1 go away ------------------------------------------------------------------- */

struct squeeze {
    gd_ints dim;
};

static const gd_attr squeeze_attrs[] = {
    GD_INTS(struct squeeze, dim,
            .doc = "axes to leave out, where they have size 1; none: all such axes, but never the batch"),
};

static int squeeze_infer(gd_infer *infer) {
    const struct squeeze *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    gd_shape *y = &infer->outputs[0];
    const int batch = infer->input_axes[0];
    unsigned named = a->dim.count ? 0 : ~0U;
    for (size_t i = 0; i < a->dim.count; i++) {
        int axis;
        int code = gd_sample_axis(infer, "dim", a->dim.data[i], &axis);
        if (code)
            return code;
        named |= 1U << axis;
    }
    for (int i = 0; i < x->rank; i++)
        if (i == batch || x->dim[i] != 1 || !(named >> i & 1))
            y->dim[y->rank++] = x->dim[i];
        else
            infer->axes[0] -= i < batch;
    return 0;
}

static int squeeze_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    static const char *const names[] = {"SqueezeBackward0", "SqueezeBackward1", "SqueezeBackward2"};
    const size_t count = ((const struct squeeze *)attrs)->dim.count;
    (void)inputs;
    nodes[0] = (gd_grad_fn){names[count < 2 ? count : 2], {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

const gd_op gd_op_squeeze = {
    .kind = {.function = "squeeze",
             .doc = "Leaves out axes of size 1.",
             GD_ATTRS(struct squeeze, squeeze_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_VIEW,
    .infer = squeeze_infer,
    .forward = view_forward,
    .backward = view_backward,
    .grad_fn = squeeze_grad_fn,
};

/* ---- unsqueeze: a new axis of size 1 ---------------------------------------------------------------- */

struct unsqueeze {
    int64_t dim;
};

static const gd_attr unsqueeze_attrs[] = {
    GD_INT(struct unsqueeze, dim, .required = true,
           .doc = "where the new axis goes; 0: before the batch, which is axis 1 then"),
};

static int unsqueeze_infer(gd_infer *infer) {
    const struct unsqueeze *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    gd_shape *y = &infer->outputs[0];
    int axis;
    int code = gd_axis(infer, "dim", a->dim, x->rank + 1, &axis);
    if (code)
        return code;
    if (x->rank == GD_MAX_RANK)
        return gd_fail(infer->error, GD_E_LIMIT, "its output would have over %d axes", GD_MAX_RANK);
    y->rank = x->rank + 1;
    y->dim[axis] = 1;
    for (int i = 0; i < x->rank; i++)
        y->dim[i < axis ? i : i + 1] = x->dim[i];
    infer->axes[0] += infer->axes[0] >= axis;
    return 0;
}

const gd_op gd_op_unsqueeze = {
    .kind = {.function = "unsqueeze",
             .doc = "Puts in an axis of size 1.",
             GD_ATTRS(struct unsqueeze, unsqueeze_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_VIEW,
    .infer = unsqueeze_infer,
    .forward = view_forward,
    .backward = view_backward,
    .grad_name = "UnsqueezeBackward0",
};

/* ---- unflatten: one axis seen as several ------------------------------------------------------------ */

struct unflatten {
    int64_t dim;
    gd_ints unflattened_size;
};

static const gd_attr unflatten_attrs[] = {
    GD_INT(struct unflatten, dim, .required = true, .doc = "axis to take apart; not the batch"),
    GD_INTS(struct unflatten, unflattened_size, .required = true, .min = -1,
            .doc = "sizes it comes apart into; one of them may be -1: what is left"),
};

/* The sizes for an axis of `size`, -1 filled in. @return false: they do not fit */
static bool unflattened(const gd_ints *sizes, int64_t size, int64_t *ret) {
    int64_t known = 1;
    size_t unknown = sizes->count;
    for (size_t i = 0; i < sizes->count; i++) {
        ret[i] = sizes->data[i];
        if (ret[i] < 0 && unknown < sizes->count)
            return false;
        if (ret[i] < 0)
            unknown = i;
        else if (__builtin_mul_overflow(known, ret[i], &known))
            return false;
    }
    if (unknown == sizes->count)
        return known == size;
    if (known == 0 || size % known)
        return false;
    ret[unknown] = size / known;
    return true;
}

static int unflatten_infer(gd_infer *infer) {
    const struct unflatten *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    gd_shape *y = &infer->outputs[0];
    const size_t parts = a->unflattened_size.count;
    const int most = GD_MAX_RANK - x->rank + 1;
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    if (parts < 1 || parts > (size_t)most)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "unflattened_size",
                             "unflattened_size has %zu sizes; 1 to %d are possible here", parts, most);
    *y = (gd_shape){.rank = x->rank + (int)parts - 1};
    memcpy(y->dim, x->dim, (size_t)axis * sizeof *y->dim);
    if (!unflattened(&a->unflattened_size, x->dim[axis], &y->dim[axis]))
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "unflattened_size",
                             "the product of unflattened_size must be %" PRId64
                             ", the size of axis %d; one size may be -1",
                             x->dim[axis], axis);
    for (int i = axis + 1; i < x->rank; i++)
        y->dim[i + (int)parts - 1] = x->dim[i];
    infer->axes[0] += infer->axes[0] > axis ? (int)parts - 1 : 0;
    return 0;
}

static void unflatten_repr(FILE *out, const void *attrs) {
    const struct unflatten *a = attrs;
    fprintf(out, "dim=%" PRId64 ", unflattened_size=(", a->dim);
    for (size_t i = 0; i < a->unflattened_size.count; i++)
        fprintf(out, "%s%" PRId64, i ? ", " : "", a->unflattened_size.data[i]);
    fputs(a->unflattened_size.count == 1 ? ",)" : ")", out);
}

const gd_op gd_op_unflatten = {
    .kind = {.module = "Unflatten",
             .function = "unflatten",
             .doc = "Takes one axis apart into several.",
             GD_ATTRS(struct unflatten, unflatten_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_VIEW,
    .infer = unflatten_infer,
    .forward = view_forward,
    .backward = view_backward,
    .repr = unflatten_repr,
    .grad_name = "ViewBackward0",
};
