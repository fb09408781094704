/* expand.c -- repetition along axes of size 1 and new ones in front: torch.Tensor.expand and expand_as. */
#include <inttypes.h>

#include "engine/kernels/strided.h"
#include "engine/ops/axes.h"

/* x under y, lined up at the right; where x is repeated its step is 0. */
static gd_box box_of(const gd_shape *x, const gd_shape *y) {
    gd_box box = gd_box_of(y);
    int64_t steps[GD_MAX_RANK];
    const int more = y->rank - x->rank;
    gd_row_major(x, steps);
    for (int i = 0; i < y->rank; i++)
        box.x_step[i] = i < more || x->dim[i - more] != y->dim[i] ? 0 : steps[i - more];
    return box;
}

static void expand_forward(const gd_call *call) {
    const gd_box box = box_of(&call->inputs[0].shape, &call->outputs[0].shape);
    gd_box_copy(&box, call->inputs[0].data, call->outputs[0].data);
}

/* dx = dy summed over what x was repeated along. */
static void expand_backward(const gd_call *call) {
    const gd_tensor *dx = &call->input_grads[0], *dy = &call->output_grads[0];
    if (!dx->data)
        return;
    if (!call->accumulate[0])
        memset(dx->data, 0, gd_tensor_bytes(dx));
    const gd_box box = box_of(&dx->shape, &dy->shape);
    gd_box_return(&box, dx->data, dy->data, true);
}

/* ---- expand: to sizes given --------------------------------------------------------------------------- */

struct expand {
    gd_ints size;
};

static const gd_attr expand_attrs[] = {
    GD_INTS(struct expand, size, .required = true, .min = -1,
            .doc = "sizes of all axes, new ones in front; -1 leaves an axis as it is, as the batch must be"),
};

static int check_size(const gd_infer *infer, int axis, int64_t given, int64_t size, bool batch) {
    if (batch && given != -1)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "size",
                             "size is %" PRId64 " at axis %d, the batch; -1 leaves that as it is", given,
                             axis);
    if (given != -1 && given != size && size != 1)
        return gd_fail_field(infer->error, GD_E_SHAPE, "size",
                             "axis %d would become %" PRId64 ", but it has %" PRId64
                             ", and only axes of size 1 can be repeated",
                             axis, given, size);
    return 0;
}

static int expand_infer(gd_infer *infer) {
    const struct expand *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    gd_shape *y = &infer->outputs[0];
    if (a->size.count < (size_t)x->rank || a->size.count > GD_MAX_RANK)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "size",
                             "size has %zu axes; the input has %d, the batch included, and at most %d are "
                             "possible",
                             a->size.count, x->rank, GD_MAX_RANK);
    y->rank = (int)a->size.count;
    const int more = y->rank - x->rank;
    for (int i = 0; i < y->rank; i++) {
        y->dim[i] = a->size.data[i];
        if (i < more && y->dim[i] == -1)
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "size",
                                 "size is -1 at axis %d, which is new; give its size", i);
        if (i < more)
            continue;
        int code = check_size(infer, i, y->dim[i], x->dim[i - more], i - more == infer->input_axes[0]);
        if (code)
            return code;
        if (y->dim[i] == -1)
            y->dim[i] = x->dim[i - more];
    }
    infer->axes[0] += infer->axes[0] < 0 ? 0 : more;
    return 0;
}

const gd_op gd_op_expand = {
    .kind = {.function = "expand",
             .doc = "Repeats along axes of size 1 and new ones in front.",
             GD_ATTRS(struct expand, expand_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = expand_infer,
    .forward = expand_forward,
    .backward = expand_backward,
    .grad_name = "ExpandBackward0",
};

/* ---- expand_as: to the second input's sizes, for every sample where the first is one for all -------- */

static int expand_as_infer(gd_infer *infer) {
    const gd_shape *x = &infer->inputs[0], *y = &infer->inputs[1];
    const int more = y->rank - x->rank, batch = infer->input_axes[1];
    char a[128], b[128];
    bool fits = more >= 0 && (infer->input_axes[0] < 0 || infer->input_axes[0] + more == batch);
    for (int i = 0; fits && i < x->rank; i++)
        fits = x->dim[i] == 1 ||
               (x->dim[i] == y->dim[i + more] && (i + more != batch || infer->input_axes[0] >= 0));
    if (!fits)
        return gd_fail(
            infer->error, GD_E_SHAPE,
            "%s does not expand to %s: lined up at the right, each size must be the same or 1, and "
            "the batch under the batch",
            gd_shape_text(x, a, sizeof a), gd_shape_text(y, b, sizeof b));
    infer->outputs[0] = *y;
    infer->axes[0] = batch;
    return 0;
}

static void expand_as_backward(const gd_call *call) {
    expand_backward(call);
    if (call->input_grads[1].data && !call->accumulate[1]) /* only its shape was used */
        memset(call->input_grads[1].data, 0, gd_tensor_bytes(&call->input_grads[1]));
}

static int expand_as_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs, (void)inputs;
    nodes[0] = (gd_grad_fn){"ExpandBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

const gd_op gd_op_expand_as = {
    .kind = {.function = "expand_as",
             .doc =
                 "Repeats the first input to the second's shape; one for all samples becomes one for each."},
    .min_inputs = 2,
    .max_inputs = 2,
    .flags = GD_BATCH,
    .infer = expand_as_infer,
    .forward = expand_forward,
    .backward = expand_as_backward,
    .grad_fn = expand_as_grad_fn,
};
