/* avg_pool.c -- average pooling. Formulas: torch.nn.AvgPool2d. */
#include "engine/kernels/pool.h"
#include "engine/ops/pool.h"

/* Over 1, 2 or 3 axes: as many numbers of each list are used. */
struct avg_pool {
    int64_t kernel_size[GD_WINDOW_AXES], stride[GD_WINDOW_AXES], padding[GD_WINDOW_AXES];
    bool ceil_mode, count_include_pad;
    int64_t divisor_override; /* GD_NONE: none; 0 (not settable) in AvgPool1d */
};

static const int64_t dilation[GD_WINDOW_AXES] = {1, 1, 1};

#define ROWS(axes) \
    GD_INTN(struct avg_pool, kernel_size, axes, .min = 1, .required = true, .doc = "window"), \
        GD_INTN(struct avg_pool, stride, axes, .min = 1, .default_from = "kernel_size", \
                .doc = "step between windows"), \
        GD_INTN(struct avg_pool, padding, axes, .min = 0, .doc = "zeros around the input"), \
        GD_BOOL(struct avg_pool, ceil_mode, .doc = "keep a last window that hangs over the edge"), \
        GD_BOOL(struct avg_pool, count_include_pad, .number = 1, .doc = "count the zeros in the average")

#define DIVISOR_ROW \
    GD_INT(struct avg_pool, divisor_override, .number = NAN, .nullable = true, \
           .doc = "divide every window's sum by this; null: by its number of elements")

static const gd_attr avg_pool1d_attrs[] = {ROWS(1)};
static const gd_attr avg_pool2d_attrs[] = {ROWS(2), DIVISOR_ROW};
static const gd_attr avg_pool3d_attrs[] = {ROWS(3), DIVISOR_ROW};

static int avg_pool_infer(gd_infer *infer, int axes) {
    const struct avg_pool *a = infer->attrs;
    if (axes > 1 && a->divisor_override == 0)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "divisor_override",
                             "divisor_override must not be 0");
    int code = gd_pool_infer(infer, axes, a->kernel_size, a->stride, a->padding, dilation, a->ceil_mode);
    infer->scratch = sizeof(float); /* a row of windows */
    return code || gd_mul(infer->scratch, (size_t)infer->outputs[0].dim[1 + axes], &infer->scratch)
               ? code
               : gd_fail(infer->error, GD_E_LIMIT, "its output is larger than any memory");
}

static int avg_pool1d_infer(gd_infer *infer) {
    return avg_pool_infer(infer, 1);
}

static int avg_pool2d_infer(gd_infer *infer) {
    return avg_pool_infer(infer, 2);
}

static int avg_pool3d_infer(gd_infer *infer) {
    return avg_pool_infer(infer, 3);
}

static gd_window window_of(const gd_call *call) {
    const struct avg_pool *a = call->attrs;
    return gd_window_of(&call->inputs[0].shape, &call->outputs[0].shape, a->kernel_size, a->stride,
                        a->padding, dilation);
}

static gd_divisor divisor_of(const gd_call *call) {
    const struct avg_pool *a = call->attrs;
    return (gd_divisor){.divisor = a->divisor_override == GD_NONE ? 0 : a->divisor_override,
                        .include_pad = a->count_include_pad};
}

static void avg_pool_forward(const gd_call *call) {
    const gd_window w = window_of(call);
    gd_avg_pool(&w, divisor_of(call), call->inputs[0].shape.dim[0] * w.channels, call->inputs[0].data,
                call->outputs[0].data);
}

static void avg_pool_backward(const gd_call *call) {
    const gd_window w = window_of(call);
    if (gd_pool_clear(call))
        gd_avg_pool_backward(&w, divisor_of(call), call->input_grads[0].shape.dim[0] * w.channels,
                             call->output_grads[0].data, call->scratch, call->input_grads[0].data);
}

static void avg_pool1d_repr(FILE *out, const void *attrs) {
    const struct avg_pool *a = attrs;
    gd_repr_tuple(out, "kernel_size=", a->kernel_size, 1);
    gd_repr_tuple(out, ", stride=", a->stride, 1);
    gd_repr_tuple(out, ", padding=", a->padding, 1);
}

static void avg_pool_repr(FILE *out, const struct avg_pool *a, int axes) {
    gd_repr_number_or_tuple(out, "kernel_size=", a->kernel_size, axes);
    gd_repr_number_or_tuple(out, ", stride=", a->stride, axes);
    gd_repr_number_or_tuple(out, ", padding=", a->padding, axes);
}

static void avg_pool2d_repr(FILE *out, const void *attrs) {
    avg_pool_repr(out, attrs, 2);
}

static void avg_pool3d_repr(FILE *out, const void *attrs) {
    avg_pool_repr(out, attrs, 3);
}

static int avg_pool1d_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    (void)attrs;
    (void)inputs;
    return gd_pool_grad_fn_1d("AvgPool2DBackward0", nodes);
}

const gd_op gd_op_avg_pool1d = {
    .kind = {.module = "AvgPool1d",
             .function = "avg_pool1d",
             .doc = "Average over windows of (N, C, L).",
             GD_ATTRS(struct avg_pool, avg_pool1d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = avg_pool1d_infer,
    .forward = avg_pool_forward,
    .backward = avg_pool_backward,
    .repr = avg_pool1d_repr,
    .grad_fn = avg_pool1d_grad_fn,
};

const gd_op gd_op_avg_pool2d = {
    .kind = {.module = "AvgPool2d",
             .function = "avg_pool2d",
             .doc = "Average over 2-d windows of (N, C, H, W).",
             GD_ATTRS(struct avg_pool, avg_pool2d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = avg_pool2d_infer,
    .forward = avg_pool_forward,
    .backward = avg_pool_backward,
    .repr = avg_pool2d_repr,
    .grad_name = "AvgPool2DBackward0",
};

const gd_op gd_op_avg_pool3d = {
    .kind = {.module = "AvgPool3d",
             .function = "avg_pool3d",
             .doc = "Average over 3-d windows of (N, C, D, H, W).",
             GD_ATTRS(struct avg_pool, avg_pool3d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = avg_pool3d_infer,
    .forward = avg_pool_forward,
    .backward = avg_pool_backward,
    .repr = avg_pool3d_repr,
    .grad_name = "AvgPool3DBackward0",
};
