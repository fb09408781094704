/* fold.c -- windows as columns, and columns summed up into an image. Formulas: torch.nn.Unfold,
 * torch.nn.Fold. */
#include <inttypes.h>

#include "engine/ops/window.h"

/* ---- Unfold -------------------------------------------------------------------------------------------- */

struct unfold {
    int64_t kernel_size[2], dilation[2], padding[2], stride[2];
};

static const gd_attr unfold_attrs[] = {
    GD_INT2(struct unfold, kernel_size, .min = 1, .required = true, .doc = "window"),
    GD_INT2(struct unfold, dilation, .min = 1, .number = 1, .doc = "step within a window"),
    GD_INT2(struct unfold, padding, .min = 0, .doc = "zeros around the input"),
    GD_INT2(struct unfold, stride, .min = 1, .number = 1, .doc = "step between windows"),
};

static int unfold_infer(gd_infer *infer) {
    const struct unfold *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    if (x->rank != 4)
        return gd_window_wrong_rank(infer, 2);
    gd_window w;
    int code = gd_window_infer(infer, 2, a->kernel_size, a->stride, a->padding, a->dilation, false, &w);
    if (code)
        return code;
    /* The output has as many elements as this; checked before they are multiplied. */
    const gd_shape column = GD_SHAPE(x->dim[1], w.kernel[1], w.kernel[2], w.out[1], w.out[2]);
    size_t bytes;
    if ((code = gd_shape_bytes(&column, GD_FLOAT32, &bytes, infer->error)))
        return code;
    infer->outputs[0] = GD_SHAPE(x->dim[0], x->dim[1] * gd_window_size(&w), gd_window_count(&w));
    return 0;
}

static gd_window unfold_window(const gd_call *call) {
    const struct unfold *a = call->attrs;
    const gd_shape *x = &call->inputs[0].shape;
    gd_shape windows = *x;
    for (int i = 0; i < 2; i++)
        windows.dim[2 + i] = gd_window_fit(x->dim[2 + i], a->kernel_size[i], a->stride[i], a->padding[i],
                                           a->dilation[i], false);
    return gd_window_of(x, &windows, a->kernel_size, a->stride, a->padding, a->dilation);
}

/* y[n, (c, i, j), (p, q)] = x[n, c, p stride - padding + i dilation, ...] */
static void unfold_forward(const gd_call *call) {
    const gd_window w = unfold_window(call);
    const int64_t image = w.channels * gd_window_pixels(&w);
    const int64_t column = w.channels * gd_window_size(&w) * gd_window_count(&w);
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        gd_im2col(&w, x + n * image, y + n * column);
}

/* dx = the sum of dy over the windows a pixel is in */
static void unfold_backward(const gd_call *call) {
    const gd_window w = unfold_window(call);
    const int64_t image = w.channels * gd_window_pixels(&w);
    const int64_t column = w.channels * gd_window_size(&w) * gd_window_count(&w);
    const float *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    if (!dx)
        return;
    if (!call->accumulate[0])
        memset(dx, 0, gd_tensor_bytes(&call->input_grads[0]));
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        gd_col2im_add(&w, dy + n * column, dx + n * image);
}

static void unfold_repr(FILE *out, const void *attrs) {
    const struct unfold *a = attrs;
    gd_repr_number_or_tuple(out, "kernel_size=", a->kernel_size, 2);
    gd_repr_number_or_tuple(out, ", dilation=", a->dilation, 2);
    gd_repr_number_or_tuple(out, ", padding=", a->padding, 2);
    gd_repr_number_or_tuple(out, ", stride=", a->stride, 2);
}

const gd_op gd_op_unfold = {
    .kind = {.module = "Unfold",
             .function = "unfold",
             .doc = "Windows of (N, C, H, W) as columns: (N, C kh kw, number of windows).",
             GD_ATTRS(struct unfold, unfold_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = unfold_infer,
    .forward = unfold_forward,
    .backward = unfold_backward,
    .repr = unfold_repr,
    .grad_name = "Im2ColBackward0",
};

/* ---- Fold ---------------------------------------------------------------------------------------------- */

struct fold {
    int64_t output_size[2], kernel_size[2], dilation[2], padding[2], stride[2];
};

static const gd_attr fold_attrs[] = {
    GD_INT2(struct fold, output_size, .min = 1, .required = true, .doc = "height and width of the image"),
    GD_INT2(struct fold, kernel_size, .min = 1, .required = true, .doc = "window"),
    GD_INT2(struct fold, dilation, .min = 1, .number = 1, .doc = "step within a window"),
    GD_INT2(struct fold, padding, .min = 0, .doc = "zeros around the image, cut off again"),
    GD_INT2(struct fold, stride, .min = 1, .number = 1, .doc = "step between windows"),
};

/* How windows lie on the output; .channels is left to the caller. */
static gd_window fold_window(const struct fold *a) {
    const gd_shape image = GD_SHAPE(1, 1, a->output_size[0], a->output_size[1]);
    gd_shape windows = image;
    for (int i = 0; i < 2; i++)
        windows.dim[2 + i] = gd_window_fit(a->output_size[i], a->kernel_size[i], a->stride[i], a->padding[i],
                                           a->dilation[i], false);
    return gd_window_of(&image, &windows, a->kernel_size, a->stride, a->padding, a->dilation);
}

static int fold_infer(gd_infer *infer) {
    const struct fold *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    const gd_window w = fold_window(a); /* sizes are int32: neither product below overflows */
    const int64_t size = gd_window_size(&w), windows = gd_window_count(&w);
    char text[128];
    if (x->rank != 3)
        return gd_fail(infer->error, GD_E_SHAPE,
                       "wants samples of [C * kernel height * kernel width, number of windows], got %s",
                       gd_sample_text(x, text, sizeof text));
    if (x->dim[1] % size)
        return gd_fail_field(infer->error, GD_E_SHAPE, "kernel_size",
                             "axis 1 of the input (%" PRId64
                             ") must be divisible by the window's elements (%" PRId64 ")",
                             x->dim[1], size);
    if (x->dim[2] != windows)
        return gd_fail_field(infer->error, GD_E_SHAPE, "output_size",
                             "the output has %" PRId64 " by %" PRId64 " windows, %" PRId64
                             " in all, but axis 2 of the input has %" PRId64,
                             w.out[1], w.out[2], windows, x->dim[2]);
    infer->outputs[0] = GD_SHAPE(x->dim[0], x->dim[1] / size, a->output_size[0], a->output_size[1]);
    const gd_shape column = gd_shape_without_batch(x); /* one sample's gradient */
    return gd_shape_bytes(&column, GD_FLOAT32, &infer->scratch, infer->error);
}

/* y = the sum of x over the windows a pixel is in */
static void fold_forward(const gd_call *call) {
    gd_window w = fold_window(call->attrs);
    w.channels = call->outputs[0].shape.dim[1];
    const int64_t image = w.channels * gd_window_pixels(&w);
    const int64_t column = gd_numel_of(&call->inputs[0].shape, 1, 3);
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    memset(y, 0, gd_tensor_bytes(&call->outputs[0]));
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        gd_col2im_add(&w, x + n * column, y + n * image);
}

/* dx = the windows of dy */
static void fold_backward(const gd_call *call) {
    gd_window w = fold_window(call->attrs);
    w.channels = call->outputs[0].shape.dim[1];
    const int64_t image = w.channels * gd_window_pixels(&w);
    const int64_t column = gd_numel_of(&call->inputs[0].shape, 1, 3);
    const float *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data, *added = call->scratch;
    for (int64_t n = 0; dx && n < call->inputs[0].shape.dim[0]; n++, dx += column) {
        gd_im2col(&w, dy + n * image, call->accumulate[0] ? added : dx);
        for (int64_t i = 0; call->accumulate[0] && i < column; i++)
            dx[i] += added[i];
    }
}

static void fold_repr(FILE *out, const void *attrs) {
    const struct fold *a = attrs;
    gd_repr_number_or_tuple(out, "output_size=", a->output_size, 2);
    gd_repr_number_or_tuple(out, ", kernel_size=", a->kernel_size, 2);
    gd_repr_number_or_tuple(out, ", dilation=", a->dilation, 2);
    gd_repr_number_or_tuple(out, ", padding=", a->padding, 2);
    gd_repr_number_or_tuple(out, ", stride=", a->stride, 2);
}

const gd_op gd_op_fold = {
    .kind = {.module = "Fold",
             .function = "fold",
             .doc = "Columns of windows summed up into (N, C, H, W).",
             GD_ATTRS(struct fold, fold_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = fold_infer,
    .forward = fold_forward,
    .backward = fold_backward,
    .repr = fold_repr,
    .grad_name = "Col2ImBackward0",
};
