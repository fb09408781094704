/* view.c -- the same elements in another shape: torch.flatten, torch.Tensor.view and reshape.
 * Axis 0 is the batch and stays what it is. */
#include <inttypes.h>

#include "engine/graph/op.h"

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
