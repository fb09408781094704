/* conv_transpose.c -- transposed convolutions over 1, 2 and 3 axes: a convolution's backward as forward.
 * Formula: torch.nn.ConvTranspose2d. */
#include <inttypes.h>

#include "engine/kernels/gemm.h"
#include "engine/ops/window.h"

struct conv_transpose {
    int64_t in_channels, out_channels, groups;
    int64_t kernel_size[GD_WINDOW_AXES], stride[GD_WINDOW_AXES], padding[GD_WINDOW_AXES],
        output_padding[GD_WINDOW_AXES], dilation[GD_WINDOW_AXES];
    bool bias;
    int padding_mode;
};

static const char *const modes[] = {"zeros", NULL};

#define CONV_TRANSPOSE_ATTRS(n) \
    GD_INT(struct conv_transpose, in_channels, .min = 1, .inferred = true, .doc = "channels of the input"), \
        GD_INT(struct conv_transpose, out_channels, .min = 1, .required = true, \
               .doc = "channels of the output"), \
        GD_INTN(struct conv_transpose, kernel_size, n, .min = 1, .required = true, .doc = "window"), \
        GD_INTN(struct conv_transpose, stride, n, .min = 1, .number = 1, .doc = "step between windows"), \
        GD_INTN(struct conv_transpose, padding, n, .min = 0, .doc = "cut off the output on both sides"), \
        GD_INTN(struct conv_transpose, output_padding, n, .min = 0, \
                .doc = "added to the output's size at its end; less than stride or dilation"), \
        GD_INT(struct conv_transpose, groups, .min = 1, .number = 1, \
               .doc = "channel groups that do not see each other"), \
        GD_BOOL(struct conv_transpose, bias, .number = 1, .doc = "add a learnable bias"), \
        GD_INTN(struct conv_transpose, dilation, n, .min = 1, .number = 1, .doc = "step within a window"), \
        GD_CHOICE(struct conv_transpose, padding_mode, .choices = modes, .doc = "as torch's: zeros alone")

static const gd_attr conv_transpose1d_attrs[] = {CONV_TRANSPOSE_ATTRS(1)},
                     conv_transpose2d_attrs[] = {CONV_TRANSPOSE_ATTRS(2)},
                     conv_transpose3d_attrs[] = {CONV_TRANSPOSE_ATTRS(3)};

static const gd_param_decl conv_transpose_params[] = {
    {.name = "weight",
     .init = GD_INIT_KAIMING_UNIFORM,
     .doc = "(in_channels, out_channels / groups, kernel_size)"},
    {.name = "bias", .init = GD_INIT_FAN_IN_UNIFORM, .doc = "(out_channels)"},
};

/* out = (in - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1 */
static int infer_size(gd_infer *infer, const struct conv_transpose *a, int axes, int axis, int64_t *ret_out) {
    const int64_t in = infer->inputs[0].dim[2 + axis];
    const int64_t most = a->stride[axis] > a->dilation[axis] ? a->stride[axis] : a->dilation[axis];
    int64_t out;
    if (a->output_padding[axis] >= most)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "output_padding",
                             "output_padding must be less than stride (%" PRId64 ") or dilation (%" PRId64
                             "), not %" PRId64,
                             a->stride[axis], a->dilation[axis], a->output_padding[axis]);
    const int64_t window = a->dilation[axis] * (a->kernel_size[axis] - 1) + 1;
    if (__builtin_mul_overflow(in - 1, a->stride[axis], &out) || out > INT64_MAX / 4)
        return gd_fail(infer->error, GD_E_LIMIT, "an output larger than any memory; use a smaller stride");
    out += window + a->output_padding[axis] - 2 * a->padding[axis];
    if (out < 1)
        return gd_fail_field(infer->error, GD_E_SHAPE, "padding",
                             "padding of %" PRId64 " leaves nothing of the output's %s, which is %" PRId64
                             " without it",
                             a->padding[axis], gd_window_axis(axes, axis), out + 2 * a->padding[axis]);
    *ret_out = out;
    return 0;
}

static int conv_transpose_infer(gd_infer *infer, int axes) {
    struct conv_transpose *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    if (x->rank != axes + 2)
        return gd_window_wrong_rank(infer, axes);
    int code = gd_channels_infer(infer, &a->in_channels, a->out_channels, a->groups);
    gd_shape *y = &infer->outputs[0];
    *y = GD_SHAPE(x->dim[0], a->out_channels);
    gd_shape weight = GD_SHAPE(a->in_channels, a->out_channels / a->groups);
    for (int i = 0; !code && i < axes; i++) {
        code = infer_size(infer, a, axes, i, &y->dim[y->rank++]);
        weight.dim[weight.rank++] = a->kernel_size[i];
    }
    size_t bytes;
    if (!code)
        code = gd_shape_bytes(&weight, GD_FLOAT32, &bytes, infer->error);
    if (code)
        return code;
    gd_infer_param_add(infer, 0, weight);
    if (a->bias)
        gd_infer_param_add(infer, 1, GD_SHAPE(a->out_channels));
    gd_shape column = GD_SHAPE(gd_numel_of(&weight, 1, weight.rank)); /* one group's column matrix */
    for (int i = 0; i < axes; i++)
        column.dim[column.rank++] = x->dim[2 + i];
    return gd_shape_bytes(&column, GD_FLOAT32, &infer->scratch, infer->error);
}

/* Sizes of one group's product: weight (k, c) transposed times input (k, p) is the columns (c, p). */
typedef struct product {
    gd_window window; /* on the output of one group, which it sees as its image */
    int64_t k, c, p, pixels;
} product;

static product product_of(const gd_call *call) {
    const struct conv_transpose *a = call->attrs;
    product s;
    s.window = gd_window_of(&call->outputs[0].shape, &call->inputs[0].shape, a->kernel_size, a->stride,
                            a->padding, a->dilation);
    s.window.channels = a->out_channels / a->groups;
    s.k = a->in_channels / a->groups;
    s.c = s.window.channels * gd_window_size(&s.window);
    s.p = gd_window_count(&s.window);
    s.pixels = gd_window_pixels(&s.window);
    return s;
}

/* y[n, g] = columns^-1(W[g]^T x[n, g]) + b */
static void conv_transpose_forward(const gd_call *call) {
    const struct conv_transpose *a = call->attrs;
    const product s = product_of(call);
    const float *x = call->inputs[0].data, *weight = call->params[0].data;
    const float *bias = a->bias ? call->params[1].data : NULL;
    float *y = call->outputs[0].data;
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        for (int64_t g = 0; g < a->groups; g++, x += s.k * s.p, y += s.window.channels * s.pixels) {
            for (int64_t c = 0; c < s.window.channels; c++)
                for (int64_t i = 0; i < s.pixels; i++)
                    y[c * s.pixels + i] = bias ? bias[g * s.window.channels + c] : 0;
            gd_gemm(true, false, s.c, s.p, s.k, weight + g * s.k * s.c, x, call->scratch, false);
            gd_col2im_add(&s.window, call->scratch, y);
        }
}

/* dx = W columns(dy), dW += x columns(dy)^T, db += sum of dy. */
static void conv_transpose_backward(const gd_call *call) {
    const struct conv_transpose *a = call->attrs;
    const product s = product_of(call);
    const float *x = call->inputs[0].data, *weight = call->params[0].data, *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data, *dw = call->param_grads[0].data, *column = call->scratch;
    float *db = a->bias ? call->param_grads[1].data : NULL;
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        for (int64_t g = 0; g < a->groups; g++, x += s.k * s.p, dy += s.window.channels * s.pixels) {
            if (dx || dw)
                gd_im2col(&s.window, dy, column);
            if (dw)
                gd_gemm(false, true, s.k, s.c, s.p, x, column, dw + g * s.k * s.c, true);
            for (int64_t c = 0; db && c < s.window.channels; c++) {
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t i = 0; i < s.pixels; i++)
                    sum += dy[c * s.pixels + i];
                db[g * s.window.channels + c] += sum;
            }
            if (dx) {
                gd_gemm(false, false, s.k, s.p, s.c, weight + g * s.k * s.c, column, dx, call->accumulate[0]);
                dx += s.k * s.p;
            }
        }
}

static void conv_transpose_repr(FILE *out, const void *attrs, int axes) {
    const struct conv_transpose *a = attrs;
    fprintf(out, "%" PRId64 ", %" PRId64, a->in_channels, a->out_channels);
    gd_repr_tuple(out, ", kernel_size=", a->kernel_size, axes);
    gd_repr_tuple(out, ", stride=", a->stride, axes);
    if (!gd_all_are(a->padding, axes, 0))
        gd_repr_tuple(out, ", padding=", a->padding, axes);
    if (!gd_all_are(a->dilation, axes, 1))
        gd_repr_tuple(out, ", dilation=", a->dilation, axes);
    if (!gd_all_are(a->output_padding, axes, 0))
        gd_repr_tuple(out, ", output_padding=", a->output_padding, axes);
    if (a->groups != 1)
        fprintf(out, ", groups=%" PRId64, a->groups);
    if (!a->bias)
        fputs(", bias=False", out);
}

/* The op gd_op_conv_transposeNd. */
#define CONV_TRANSPOSE_OP(n, DOC) \
    static int conv_transpose##n##d_infer(gd_infer *infer) { \
        return conv_transpose_infer(infer, n); \
    } \
    static void conv_transpose##n##d_repr(FILE *out, const void *attrs) { \
        conv_transpose_repr(out, attrs, n); \
    } \
    const gd_op gd_op_conv_transpose##n##d = { \
        .kind = {.module = "ConvTranspose" #n "d", \
                 .function = "conv_transpose" #n "d", \
                 .doc = DOC, \
                 GD_ATTRS(struct conv_transpose, conv_transpose##n##d_attrs), \
                 GD_PARAMS(conv_transpose_params)}, \
        .min_inputs = 1, \
        .max_inputs = 1, \
        .flags = GD_BATCH | GD_SAVES_INPUT, \
        .infer = conv_transpose##n##d_infer, \
        .forward = conv_transpose_forward, \
        .backward = conv_transpose_backward, \
        .repr = conv_transpose##n##d_repr, \
        .grad_name = "ConvolutionBackward0", \
    }

CONV_TRANSPOSE_OP(1, "1-d transposed convolution over (N, C, L).");
CONV_TRANSPOSE_OP(2, "2-d transposed convolution over (N, C, H, W).");
CONV_TRANSPOSE_OP(3, "3-d transposed convolution over (N, C, D, H, W).");
