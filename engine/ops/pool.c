/* pool.c -- pooling. Formulas: torch.nn.MaxPool2d. */
#include "engine/kernels/pool.h"

#include <inttypes.h>

#include "engine/ops/window.h"

struct max_pool2d {
    int64_t kernel_size[2], stride[2], padding[2], dilation[2];
    bool ceil_mode;
};

static const gd_attr max_pool2d_attrs[] = {
    GD_INT2(struct max_pool2d, kernel_size, .min = 1, .required = true, .doc = "window"),
    GD_INT2(struct max_pool2d, stride, .min = 1, .default_from = "kernel_size",
            .doc = "step between windows"),
    GD_INT2(struct max_pool2d, padding, .min = 0, .doc = "minus infinity around the input"),
    GD_INT2(struct max_pool2d, dilation, .min = 1, .number = 1, .doc = "step within a window"),
    GD_BOOL(struct max_pool2d, ceil_mode, .doc = "keep a last window that hangs over the edge"),
};

static int max_pool2d_infer(gd_infer *infer) {
    const struct max_pool2d *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    if (x->rank != 4)
        return gd_window_wrong_rank(infer, 2);
    for (int axis = 0; axis < 2; axis++)
        if (2 * a->padding[axis] > a->kernel_size[axis])
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "padding",
                                 "padding must be at most %" PRId64 ", half of kernel_size (%" PRId64
                                 "), not %" PRId64,
                                 a->kernel_size[axis] / 2, a->kernel_size[axis], a->padding[axis]);
    gd_window w;
    int code =
        gd_window_infer(infer, 2, a->kernel_size, a->stride, a->padding, a->dilation, a->ceil_mode, &w);
    if (code)
        return code;
    infer->outputs[0] = gd_window_shape(x->dim[0], x->dim[1], w.out, 2);
    infer->saved[0] = (gd_tensor){.dtype = GD_INT32, .shape = infer->outputs[0]}; /* argmax in the plane */
    infer->saved_count = 1;
    return 0;
}

static gd_window window_of(const gd_call *call) {
    const struct max_pool2d *a = call->attrs;
    return gd_window_of(&call->inputs[0].shape, &call->outputs[0].shape, a->kernel_size, a->stride,
                        a->padding, a->dilation);
}

static void max_pool2d_forward(const gd_call *call) {
    const gd_window w = window_of(call);
    gd_max_pool(&w, call->inputs[0].shape.dim[0] * w.channels, call->inputs[0].data, call->outputs[0].data,
                call->saved[0].data);
}

static void max_pool2d_backward(const gd_call *call) {
    const gd_window w = window_of(call);
    if (!call->input_grads[0].data)
        return;
    if (!call->accumulate[0])
        memset(call->input_grads[0].data, 0, gd_tensor_bytes(&call->input_grads[0]));
    gd_max_pool_backward(&w, call->input_grads[0].shape.dim[0] * w.channels, call->output_grads[0].data,
                         call->saved[0].data, call->input_grads[0].data);
}

static void max_pool2d_repr(FILE *out, const void *attrs) {
    const struct max_pool2d *a = attrs;
    gd_repr_number_or_tuple(out, "kernel_size=", a->kernel_size, 2);
    gd_repr_number_or_tuple(out, ", stride=", a->stride, 2);
    gd_repr_number_or_tuple(out, ", padding=", a->padding, 2);
    gd_repr_number_or_tuple(out, ", dilation=", a->dilation, 2);
    fprintf(out, ", ceil_mode=%s", a->ceil_mode ? "True" : "False");
}

const gd_op gd_op_max_pool2d = {
    .kind = {.module = "MaxPool2d",
             .function = "max_pool2d",
             .doc = "Maximum over 2-d windows of (N, C, H, W).",
             GD_ATTRS(struct max_pool2d, max_pool2d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = max_pool2d_infer,
    .forward = max_pool2d_forward,
    .backward = max_pool2d_backward,
    .repr = max_pool2d_repr,
    .grad_name = "MaxPool2DWithIndicesBackward0",
};
