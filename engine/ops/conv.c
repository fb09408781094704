/* conv.c -- convolutions. Formula: torch.nn.Conv2d. */
#include <inttypes.h>

#include "engine/graph/op.h"
#include "engine/kernels/conv.h"
#include "engine/kernels/gemm.h"
#include "engine/ops/window.h"

struct conv2d {
    int64_t in_channels, out_channels, kernel_size[2], stride[2], padding[2], dilation[2], groups;
    bool bias;
};

static const gd_attr conv2d_attrs[] = {
    GD_INT(struct conv2d, in_channels, .min = 1, .inferred = true, .doc = "channels of the input"),
    GD_INT(struct conv2d, out_channels, .min = 1, .required = true, .doc = "channels of the output"),
    GD_INT2(struct conv2d, kernel_size, .min = 1, .required = true, .doc = "window"),
    GD_INT2(struct conv2d, stride, .min = 1, .number = 1, .doc = "step between windows"),
    GD_INT2(struct conv2d, padding, .min = 0, .doc = "zeros around the input"),
    GD_INT2(struct conv2d, dilation, .min = 1, .number = 1, .doc = "step within a window"),
    GD_INT(struct conv2d, groups, .min = 1, .number = 1, .doc = "channel groups that do not see each other"),
    GD_BOOL(struct conv2d, bias, .number = 1, .doc = "add a learnable bias"),
};

static const gd_param_decl conv2d_params[] = {
    {.name = "weight",
     .init = GD_INIT_KAIMING_UNIFORM,
     .doc = "(out_channels, in_channels / groups, kh, kw)"},
    {.name = "bias", .init = GD_INIT_FAN_IN_UNIFORM, .doc = "(out_channels)"},
};

static int conv2d_infer(gd_infer *infer) {
    struct conv2d *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    if (x->rank != 4)
        return gd_window_wrong_rank(infer, 2);
    if (a->in_channels == 0)
        a->in_channels = x->dim[1];
    if (a->in_channels != x->dim[1])
        return gd_fail_field(infer->error, GD_E_SHAPE, "in_channels",
                             "in_channels is %" PRId64 ", but the input has %" PRId64 " channels (axis 1)",
                             a->in_channels, x->dim[1]);
    if (a->in_channels % a->groups || a->out_channels % a->groups)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "groups",
                             "in_channels (%" PRId64 ") and out_channels (%" PRId64
                             ") must both be divisible by groups (%" PRId64 ")",
                             a->in_channels, a->out_channels, a->groups);
    gd_window w;
    int code = gd_window_infer(infer, a->kernel_size, a->stride, a->padding, a->dilation, false, &w);
    if (code)
        return code;
    infer->outputs[0] = GD_SHAPE(x->dim[0], a->out_channels, w.out[0], w.out[1]);
    gd_infer_param_add(
        infer, 0,
        GD_SHAPE(a->out_channels, a->in_channels / a->groups, a->kernel_size[0], a->kernel_size[1]));
    if (a->bias)
        gd_infer_param_add(infer, 1, GD_SHAPE(a->out_channels));

    /* A column matrix for the input and one for its gradient. */
    gd_shape column =
        GD_SHAPE(2, a->in_channels / a->groups, a->kernel_size[0], a->kernel_size[1], w.out[0], w.out[1]);
    return gd_shape_bytes(&column, GD_FLOAT32, &infer->scratch, infer->error);
}

/* Sizes of one group's product: weight (k, c) times columns (c, p). */
typedef struct product {
    gd_window window; /* of one group */
    int64_t k, c, p;
    bool direct; /* 1x1 windows side by side: the image is its own column matrix */
} product;

static product product_of(const gd_call *call) {
    const struct conv2d *a = call->attrs;
    product s;
    s.window = gd_window_of(&call->inputs[0].shape, &call->outputs[0].shape, a->kernel_size, a->stride,
                            a->padding, a->dilation);
    s.window.channels = a->in_channels / a->groups;
    s.k = a->out_channels / a->groups;
    s.c = s.window.channels * a->kernel_size[0] * a->kernel_size[1];
    s.p = s.window.out[0] * s.window.out[1];
    s.direct = s.c == s.window.channels && s.p == s.window.in[0] * s.window.in[1] && a->padding[0] == 0 &&
               a->padding[1] == 0;
    return s;
}

static const float *columns_of(const product *s, const float *image, float *scratch) {
    if (s->direct)
        return image;
    gd_im2col(&s->window, image, scratch);
    return scratch;
}

/* y[n, g] = W[g] columns(x[n, g]) + b, one image and group at a time: they fit the cache. */
static void conv2d_forward(const gd_call *call) {
    const struct conv2d *a = call->attrs;
    const product s = product_of(call);
    const int64_t pixels = s.window.channels * s.window.in[0] * s.window.in[1];
    const float *x = call->inputs[0].data, *weight = call->params[0].data;
    float *y = call->outputs[0].data;
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        for (int64_t g = 0; g < a->groups; g++, x += pixels, y += s.k * s.p) {
            if (a->bias) {
                const float *bias = (const float *)call->params[1].data + g * s.k;
                for (int64_t k = 0; k < s.k; k++)
                    for (int64_t p = 0; p < s.p; p++)
                        y[k * s.p + p] = bias[k];
            }
            gd_gemm(false, false, s.k, s.p, s.c, weight + g * s.k * s.c, columns_of(&s, x, call->scratch), y,
                    a->bias);
        }
}

/* dW += dy columns(x)^T, db += sum of dy, dx = columns^-1(W^T dy). */
static void conv2d_backward(const gd_call *call) {
    const struct conv2d *a = call->attrs;
    const product s = product_of(call);
    const int64_t pixels = s.window.channels * s.window.in[0] * s.window.in[1];
    const float *x = call->inputs[0].data, *weight = call->params[0].data, *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data, *dw = call->param_grads[0].data;
    float *db = a->bias ? call->param_grads[1].data : NULL;
    float *dcolumn = (float *)call->scratch + s.c * s.p;
    if (dx && !call->accumulate[0])
        memset(dx, 0, gd_tensor_bytes(&call->input_grads[0]));
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        for (int64_t g = 0; g < a->groups; g++, x += pixels, dy += s.k * s.p) {
            if (dw)
                gd_gemm(false, true, s.k, s.c, s.p, dy, columns_of(&s, x, call->scratch), dw + g * s.k * s.c,
                        true);
            for (int64_t k = 0; db && k < s.k; k++) {
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t p = 0; p < s.p; p++)
                    sum += dy[k * s.p + p];
                db[g * s.k + k] += sum;
            }
            if (dx) {
                gd_gemm(true, false, s.c, s.p, s.k, weight + g * s.k * s.c, dy, s.direct ? dx : dcolumn,
                        s.direct);
                if (!s.direct)
                    gd_col2im_add(&s.window, dcolumn, dx);
                dx += pixels;
            }
        }
}

static void conv2d_repr(FILE *out, const void *attrs) {
    const struct conv2d *a = attrs;
    fprintf(out, "%" PRId64 ", %" PRId64, a->in_channels, a->out_channels);
    gd_repr_pair(out, ", kernel_size=", a->kernel_size, NULL);
    gd_repr_pair(out, ", stride=", a->stride, NULL);
    gd_repr_pair(out, ", padding=", a->padding, (int64_t[]){0, 0});
    gd_repr_pair(out, ", dilation=", a->dilation, (int64_t[]){1, 1});
    if (a->groups != 1)
        fprintf(out, ", groups=%" PRId64, a->groups);
    if (!a->bias)
        fputs(", bias=False", out);
}

const gd_op gd_op_conv2d = {
    .kind = {.module = "Conv2d",
             .function = "conv2d",
             .doc = "2-d convolution (cross-correlation) over (N, C, H, W).",
             GD_ATTRS(struct conv2d, conv2d_attrs),
             GD_PARAMS(conv2d_params)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = conv2d_infer,
    .forward = conv2d_forward,
    .backward = conv2d_backward,
    .repr = conv2d_repr,
    .grad_name = "ConvolutionBackward0",
};
