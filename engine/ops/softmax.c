/* softmax.c -- shares along an axis. Formulas: torch.nn.Softmax, Softmin, LogSoftmax, Softmax2d. */
#include <inttypes.h>

#include "engine/kernels/softmax.h"
#include "engine/ops/axes.h"

/* torch's axes, counted with the batch. */
struct softmax {
    int64_t dim;
};

static const gd_attr softmax_attrs[] = {
    GD_INT(struct softmax, dim, .number = NAN, .nullable = true,
           .doc = "axis that sums to 1, the batch being 0; null: 1, or 0 where there are 1 or 3 axes"),
};

/* torch.nn.functional._get_softmax_dim */
static int64_t dim_of(const void *attrs, int rank) {
    const int64_t dim = ((const struct softmax *)attrs)->dim;
    if (dim != GD_NONE)
        return dim;
    return rank == 1 || rank == 3 ? 0 : 1;
}

static int softmax_infer(gd_infer *infer) {
    int axis;
    int code = gd_sample_axis(infer, "dim", dim_of(infer->attrs, infer->inputs[0].rank), &axis);
    infer->outputs[0] = infer->inputs[0];
    return code;
}

/* Softmax2d is softmax over the channels of images. */
static int softmax2d_infer(gd_infer *infer) {
    const gd_shape *x = &infer->inputs[0];
    char text[128];
    if (x->rank != 4)
        return gd_fail(infer->error, GD_E_SHAPE, "wants samples of [C, H, W], got %s",
                       gd_sample_text(x, text, sizeof text));
    ((struct softmax *)infer->attrs)->dim = -3;
    return softmax_infer(infer);
}

/* A tensor as (outer, size, inner) around the axis. */
static gd_softmax lines_of(const gd_call *call, float scale, bool log) {
    const gd_shape *x = &call->inputs[0].shape;
    const int axis = gd_axis_of(dim_of(call->attrs, x->rank), x->rank);
    return (gd_softmax){.outer = gd_numel_of(x, 0, axis),
                        .size = x->dim[axis],
                        .inner = gd_numel_of(x, axis + 1, x->rank),
                        .scale = scale,
                        .log = log};
}

static void forward(const gd_call *call, float scale, bool log) {
    const gd_softmax lines = lines_of(call, scale, log);
    gd_softmax_forward(&lines, call->inputs[0].data, call->outputs[0].data);
}

static void backward(const gd_call *call, float scale, bool log) {
    const gd_softmax lines = lines_of(call, scale, log);
    if (call->input_grads[0].data)
        gd_softmax_backward(&lines, call->outputs[0].data, call->output_grads[0].data, call->accumulate[0],
                            call->input_grads[0].data);
}

static void softmax_forward(const gd_call *call) {
    forward(call, 1, false);
}
static void softmax_backward(const gd_call *call) {
    backward(call, 1, false);
}
static void softmin_forward(const gd_call *call) {
    forward(call, -1, false);
}
static void softmin_backward(const gd_call *call) {
    backward(call, -1, false);
}
static void log_softmax_forward(const gd_call *call) {
    forward(call, 1, true);
}
static void log_softmax_backward(const gd_call *call) {
    backward(call, 1, true);
}

static void softmax_repr(FILE *out, const void *attrs) {
    const int64_t dim = ((const struct softmax *)attrs)->dim;
    if (dim == GD_NONE)
        fputs("dim=None", out);
    else
        fprintf(out, "dim=%" PRId64, dim);
}

/* softmax(-x) */
static int softmin_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs;
    (void)inputs;
    nodes[0] = (gd_grad_fn){"SoftmaxBackward0", {1}, 1};
    nodes[1] = (gd_grad_fn){"NegBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 2;
}

/* What all have; with the attributes, or (Softmax2d) only their struct. */
#define ALONG_AXIS \
    .min_inputs = 1, .max_inputs = 1, .flags = GD_BATCH | GD_INPLACE | GD_SAVES_OUTPUT, .infer = softmax_infer

const gd_op gd_op_softmax = {
    ALONG_AXIS,
    .kind = {.module = "Softmax",
             .function = "softmax",
             .doc = "e^x over its sum along an axis.",
             GD_ATTRS(struct softmax, softmax_attrs)},
    .forward = softmax_forward,
    .backward = softmax_backward,
    .repr = softmax_repr,
    .grad_name = "SoftmaxBackward0",
};

const gd_op gd_op_softmin = {
    ALONG_AXIS,
    .kind = {.module = "Softmin",
             .function = "softmin",
             .doc = "e^-x over its sum along an axis.",
             GD_ATTRS(struct softmax, softmax_attrs)},
    .forward = softmin_forward,
    .backward = softmin_backward,
    .repr = softmax_repr,
    .grad_fn = softmin_grad_fn,
};

const gd_op gd_op_log_softmax = {
    ALONG_AXIS,
    .kind = {.module = "LogSoftmax",
             .function = "log_softmax",
             .doc = "Logarithm of softmax: x - ln(sum of e^x along an axis).",
             GD_ATTRS(struct softmax, softmax_attrs)},
    .forward = log_softmax_forward,
    .backward = log_softmax_backward,
    .repr = softmax_repr,
    .grad_name = "LogSoftmaxBackward0",
};

const gd_op gd_op_softmax2d = {
    ALONG_AXIS,
    .kind = {.module = "Softmax2d",
             .doc = "Softmax over the channels of (N, C, H, W).",
             .attr_size = sizeof(struct softmax)},
    .infer = softmax2d_infer,
    .forward = softmax_forward,
    .backward = softmax_backward,
    .grad_name = "SoftmaxBackward0",
};
