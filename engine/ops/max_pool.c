/* max_pool.c -- max pooling. Formulas: torch.nn.MaxPool2d. */
#include "engine/kernels/pool.h"

#include "engine/ops/pool.h"

/* Over 1, 2 or 3 axes: as many numbers of each list are used. */
struct max_pool {
    int64_t kernel_size[GD_WINDOW_AXES], stride[GD_WINDOW_AXES], padding[GD_WINDOW_AXES],
        dilation[GD_WINDOW_AXES];
    bool ceil_mode;
};

#define ROWS(axes) \
    GD_INTN(struct max_pool, kernel_size, axes, .min = 1, .required = true, .doc = "window"), \
        GD_INTN(struct max_pool, stride, axes, .min = 1, .default_from = "kernel_size", \
                .doc = "step between windows"), \
        GD_INTN(struct max_pool, padding, axes, .min = 0, .doc = "minus infinity around the input"), \
        GD_INTN(struct max_pool, dilation, axes, .min = 1, .number = 1, .doc = "step within a window"), \
        GD_BOOL(struct max_pool, ceil_mode, .doc = "keep a last window that hangs over the edge")

static const gd_attr max_pool1d_attrs[] = {ROWS(1)};
static const gd_attr max_pool2d_attrs[] = {ROWS(2)};
static const gd_attr max_pool3d_attrs[] = {ROWS(3)};

static gd_window window_of(const struct max_pool *a, const gd_shape *x, const gd_shape *y) {
    return gd_window_of(x, y, a->kernel_size, a->stride, a->padding, a->dilation);
}

/* Kept is which element was the largest: its index in the plane, or in its window of 2x2. */
static int max_pool_infer(gd_infer *infer, int axes) {
    const struct max_pool *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    int code = gd_pool_infer(infer, axes, a->kernel_size, a->stride, a->padding, a->dilation, a->ceil_mode);
    if (code)
        return code;
    const gd_window w = window_of(a, x, &infer->outputs[0]);
    infer->saved[0] = (gd_tensor){.dtype = GD_INT32, .shape = infer->outputs[0]};
    if (gd_pool_is_2x2(&w))
        infer->saved[0] =
            (gd_tensor){.dtype = GD_UINT8,
                        .shape = GD_SHAPE(x->dim[0], x->dim[1], gd_max_pool_2x2_bytes(gd_window_count(&w)))};
    infer->saved_count = 1;
    infer->pools_2x2 = gd_pool_is_2x2(&w);
    return 0;
}

static int max_pool1d_infer(gd_infer *infer) {
    return max_pool_infer(infer, 1);
}

static int max_pool2d_infer(gd_infer *infer) {
    return max_pool_infer(infer, 2);
}

static int max_pool3d_infer(gd_infer *infer) {
    return max_pool_infer(infer, 3);
}

static void max_pool_forward(const gd_call *call) {
    const gd_tensor *x = &call->inputs[0], *y = &call->outputs[0];
    const gd_window w = window_of(call->attrs, &x->shape, &y->shape);
    const int64_t planes = x->shape.dim[0] * w.channels;
    if (gd_pool_is_2x2(&w))
        gd_max_pool_2x2(&w, planes, x->data, y->data, call->saved[0].data);
    else
        gd_max_pool(&w, planes, x->data, y->data, call->saved[0].data);
}

static void max_pool_backward(const gd_call *call) {
    const gd_tensor *dx = &call->input_grads[0], *y = &call->outputs[0];
    const gd_window w = window_of(call->attrs, &dx->shape, &y->shape);
    const int64_t planes = dx->shape.dim[0] * w.channels;
    const float *dy = call->output_grads[0].data, *rectified = call->relu ? y->data : NULL;
    if (dx->data && gd_pool_is_2x2(&w))
        gd_max_pool_2x2_backward(&w, planes, rectified, dy, call->saved[0].data, call->accumulate[0],
                                 dx->data);
    else if (gd_pool_clear(call))
        gd_max_pool_backward(&w, planes, rectified, dy, call->saved[0].data, dx->data);
}

static void max_pool_repr(FILE *out, const struct max_pool *a, int axes) {
    gd_repr_number_or_tuple(out, "kernel_size=", a->kernel_size, axes);
    gd_repr_number_or_tuple(out, ", stride=", a->stride, axes);
    gd_repr_number_or_tuple(out, ", padding=", a->padding, axes);
    gd_repr_number_or_tuple(out, ", dilation=", a->dilation, axes);
    fprintf(out, ", ceil_mode=%s", a->ceil_mode ? "True" : "False");
}

static void max_pool1d_repr(FILE *out, const void *attrs) {
    max_pool_repr(out, attrs, 1);
}

static void max_pool2d_repr(FILE *out, const void *attrs) {
    max_pool_repr(out, attrs, 2);
}

static void max_pool3d_repr(FILE *out, const void *attrs) {
    max_pool_repr(out, attrs, 3);
}

static int max_pool1d_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    (void)attrs;
    (void)inputs;
    return gd_pool_grad_fn_1d("MaxPool2DWithIndicesBackward0", nodes);
}

const gd_op gd_op_max_pool1d = {
    .kind = {.module = "MaxPool1d",
             .function = "max_pool1d",
             .doc = "Maximum over windows of (N, C, L).",
             GD_ATTRS(struct max_pool, max_pool1d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_AFTER_RELU,
    .infer = max_pool1d_infer,
    .forward = max_pool_forward,
    .backward = max_pool_backward,
    .repr = max_pool1d_repr,
    .grad_fn = max_pool1d_grad_fn,
};

const gd_op gd_op_max_pool2d = {
    .kind = {.module = "MaxPool2d",
             .function = "max_pool2d",
             .doc = "Maximum over 2-d windows of (N, C, H, W).",
             GD_ATTRS(struct max_pool, max_pool2d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_AFTER_RELU,
    .infer = max_pool2d_infer,
    .forward = max_pool_forward,
    .backward = max_pool_backward,
    .repr = max_pool2d_repr,
    .grad_name = "MaxPool2DWithIndicesBackward0",
};

const gd_op gd_op_max_pool3d = {
    .kind = {.module = "MaxPool3d",
             .function = "max_pool3d",
             .doc = "Maximum over 3-d windows of (N, C, D, H, W).",
             GD_ATTRS(struct max_pool, max_pool3d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_AFTER_RELU,
    .infer = max_pool3d_infer,
    .forward = max_pool_forward,
    .backward = max_pool_backward,
    .repr = max_pool3d_repr,
    .grad_name = "MaxPool3DWithIndicesBackward0",
};
