/* conv.c -- convolutions over 1, 2 and 3 axes. Formula: torch.nn.Conv2d. */
#include <inttypes.h>

#include "engine/kernels/gemm.h"
#include "engine/kernels/math.h"
#include "engine/kernels/pooled.h"
#include "engine/kernels/stepping.h"
#include "engine/ops/pad.h"
#include "engine/ops/window.h"

struct conv {
    int64_t in_channels, out_channels, groups;
    int64_t kernel_size[GD_WINDOW_AXES], stride[GD_WINDOW_AXES], padding[GD_WINDOW_AXES],
        dilation[GD_WINDOW_AXES];
    bool bias;
    int padding_mode;
};

/* Choices of padding, beside numbers, and of padding_mode. */
enum { SAME };
static const char *const words[] = {"same", "valid", NULL};
static const char *const modes[] = {"zeros", "reflect", "replicate", "circular", NULL};

#define CONV_ATTRS(n) \
    GD_INT(struct conv, in_channels, .min = 1, .inferred = true, .doc = "channels of the input"), \
        GD_INT(struct conv, out_channels, .min = 1, .required = true, .doc = "channels of the output"), \
        GD_INTN(struct conv, kernel_size, n, .min = 1, .required = true, .doc = "window"), \
        GD_INTN(struct conv, stride, n, .min = 1, .number = 1, .doc = "step between windows"), \
        GD_INTN(struct conv, padding, n, .min = 0, .choices = words, \
                .doc = "border around the input; 'same': the output is as large as the input; 'valid': 0"), \
        GD_INTN(struct conv, dilation, n, .min = 1, .number = 1, .doc = "step within a window"), \
        GD_INT(struct conv, groups, .min = 1, .number = 1, \
               .doc = "channel groups that do not see each other"), \
        GD_BOOL(struct conv, bias, .number = 1, .doc = "add a learnable bias"), \
        GD_CHOICE(struct conv, padding_mode, .choices = modes, .doc = "what stands in the border")

static const gd_attr conv1d_attrs[] = {CONV_ATTRS(1)}, conv2d_attrs[] = {CONV_ATTRS(2)},
                     conv3d_attrs[] = {CONV_ATTRS(3)};

static const gd_param_decl conv_params[] = {
    {.name = "weight",
     .init = GD_INIT_KAIMING_UNIFORM,
     .doc = "(out_channels, in_channels / groups, kernel_size)"},
    {.name = "bias", .init = GD_INIT_FAN_IN_UNIFORM, .doc = "(out_channels)"},
};

/* The border before and after each axis, the last axis first; 'same' may be one more after. */
static void pads_of(const struct conv *a, int axes, int64_t pads[2 * GD_WINDOW_AXES]) {
    const int word = gd_word_of(a->padding);
    for (int i = 0; i < axes; i++) {
        int64_t *pair = pads + 2 * (axes - 1 - i);
        const int64_t total = a->dilation[i] * (a->kernel_size[i] - 1);
        pair[0] = word < 0 ? a->padding[i] : word == SAME ? total / 2 : 0;
        pair[1] = word == SAME ? total - pair[0] : pair[0];
    }
}

/* The windows' number per axis into out. */
static int infer_windows(gd_infer *infer, const struct conv *a, int axes, const int64_t *pads,
                         int64_t out[GD_WINDOW_AXES]) {
    int64_t before[GD_WINDOW_AXES];
    gd_window w;
    if (gd_word_of(a->padding) == SAME) {
        if (!gd_all_are(a->stride, axes, 1))
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "padding",
                                 "padding 'same' needs a stride of 1; give numbers instead");
        for (int i = 0; i < axes; i++)
            out[GD_WINDOW_AXES - axes + i] = infer->inputs[0].dim[2 + i];
        return 0;
    }
    for (int i = 0; i < axes; i++)
        before[i] = pads[2 * (axes - 1 - i)];
    int code = gd_window_infer(infer, axes, a->kernel_size, a->stride, before, a->dilation, false, &w);
    if (!code)
        memcpy(out, w.out, sizeof w.out);
    return code;
}

/* How one group's windows lie; a border that is not zeros becomes part of the image, and they need not know.
 */
static gd_window group_window(const struct conv *a, const gd_shape *x, const gd_shape *y,
                              gd_padding *ret_padding) {
    const int axes = x->rank - 2;
    int64_t pads[2 * GD_WINDOW_AXES], before[GD_WINDOW_AXES] = {0};
    pads_of(a, axes, pads);
    for (int i = 0; i < axes && !a->padding_mode; i++)
        before[i] = pads[2 * (axes - 1 - i)];
    gd_window window = gd_window_of(x, y, a->kernel_size, a->stride, before, a->dilation);
    window.channels = a->in_channels / a->groups;
    *ret_padding = gd_padding_of(x, (gd_pad_mode)a->padding_mode, axes, pads);
    if (a->padding_mode)
        memcpy(window.in, ret_padding->out, sizeof window.in);
    return window;
}

/* Ways to compute a pass straight from the images, the best first. */
typedef struct way {
    bool (*pays)(gd_direct_pass pass, const gd_window *window, int64_t filters);
    bool (*scratch)(gd_direct_pass pass, const gd_window *window, int64_t filters, size_t *ret_bytes);
    void (*forward)(const gd_direct *d, const float *x, const float *weight, const float *bias, bool relu,
                    float *y, void *scratch);
    void (*input_gradient)(const gd_direct *d, const float *dy, const float *weight, bool accumulate,
                           float *dx, void *scratch);
    void (*weight_gradient)(const gd_direct *d, const float *x, const float *dy, float *dweight, float *dbias,
                            void *scratch);
} way;
static const way ways[] = {
    {gd_stepping_pays, gd_stepping_scratch, gd_stepping_forward, gd_stepping_input_gradient,
     gd_stepping_weight_gradient},
    {gd_direct_pays, gd_direct_scratch, gd_direct_forward, gd_direct_input_gradient,
     gd_direct_weight_gradient},
};

/* NULL: by a column matrix. */
static const way *way_of(const struct conv *a, gd_direct_pass pass, const gd_window *window) {
    for (size_t i = 0; i < GD_COUNT(ways) && !a->padding_mode; i++)
        if (ways[i].pays(pass, window, a->out_channels / a->groups))
            return &ways[i];
    return NULL;
}

/* Along with max pooling of the output. */
static int infer_pooled(gd_infer *infer, const gd_window *w) {
    const struct conv *a = infer->attrs;
    size_t bytes;
    infer->may_pool = a->groups == 1 && !a->padding_mode && gd_pooled_pays(w, a->out_channels);
    if (!infer->may_pool)
        return 0;
    if (!gd_pooled_scratch(w, a->out_channels, &bytes))
        return gd_fail(infer->error, GD_E_LIMIT, "its images are larger than any memory; make them smaller");
    infer->scratch = bytes > infer->scratch ? bytes : infer->scratch;
    return 0;
}

/* Scratch, of the pass that needs most: what the direct way asks for, or column matrices of the input and of
 * its gradient and the same for one group with its border. */
static int infer_scratch(gd_infer *infer) {
    const struct conv *a = infer->attrs;
    gd_padding padding;
    const gd_window w = group_window(a, &infer->inputs[0], &infer->outputs[0], &padding);
    const gd_shape columns =
        GD_SHAPE(2, w.channels, w.kernel[0], w.kernel[1], w.kernel[2], w.out[0], w.out[1], w.out[2]);
    const gd_shape padded = GD_SHAPE(2, w.channels, w.in[0], w.in[1], w.in[2]);
    for (int pass = 0; pass < GD_DIRECT_PASSES; pass++) {
        size_t bytes = 0, border = 0;
        int code = 0;
        const way *by = way_of(a, pass, &w);
        if (!by) {
            code = gd_shape_bytes(&columns, GD_FLOAT32, &bytes, infer->error);
            if (!code && a->padding_mode)
                code = gd_shape_bytes(&padded, GD_FLOAT32, &border, infer->error);
            bytes += border; /* both are under a quarter of what a size_t holds */
        } else if (!by->scratch(pass, &w, a->out_channels / a->groups, &bytes)) {
            code =
                gd_fail(infer->error, GD_E_LIMIT, "its images are larger than any memory; make them smaller");
        }
        if (code)
            return code;
        if (bytes > infer->scratch)
            infer->scratch = bytes;
    }
    return infer_pooled(infer, &w);
}

static int conv_infer(gd_infer *infer, int axes) {
    struct conv *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    if (x->rank != axes + 2)
        return gd_window_wrong_rank(infer, axes);
    int64_t pads[2 * GD_WINDOW_AXES] = {0}, out[GD_WINDOW_AXES] = {1, 1, 1};
    pads_of(a, axes, pads);
    gd_padding padding = {.mode = GD_PAD_CONSTANT};
    int code = gd_channels_infer(infer, &a->in_channels, a->out_channels, a->groups);
    if (!code && a->padding_mode)
        code = gd_padding_infer(infer, "padding", (gd_pad_mode)a->padding_mode, axes, pads, &padding);
    if (!code)
        code = infer_windows(infer, a, axes, pads, out);
    if (code)
        return code;
    gd_shape weight = GD_SHAPE(a->out_channels, a->in_channels / a->groups);
    for (int i = 0; i < axes; i++)
        weight.dim[weight.rank++] = a->kernel_size[i];
    size_t bytes;
    if ((code = gd_shape_bytes(&weight, GD_FLOAT32, &bytes, infer->error)))
        return code;
    infer->outputs[0] = gd_window_shape(x->dim[0], a->out_channels, out, axes);
    gd_infer_param_add(infer, 0, weight);
    if (a->bias)
        gd_infer_param_add(infer, 1, GD_SHAPE(a->out_channels));
    return infer_scratch(infer);
}

/* Sizes of one group's product: weight (k, c) times columns (c, p); and where in the scratch its parts are.
 */
typedef struct product {
    gd_window window;   /* of one group */
    gd_padding padding; /* a border that is not zeros */
    int64_t k, c, p, pixels;
    bool plain; /* 1x1 windows side by side: the image is its own column matrix */
    bool padded;
    float *column, *dcolumn, *image, *dimage;
} product;

static product product_of(const gd_call *call) {
    const struct conv *a = call->attrs;
    product s = {.padded = a->padding_mode != 0};
    s.window = group_window(a, &call->inputs[0].shape, &call->outputs[0].shape, &s.padding);
    s.pixels = gd_numel_of(&call->inputs[0].shape, 1, call->inputs[0].shape.rank) / a->groups;
    s.k = a->out_channels / a->groups;
    s.c = s.window.channels * gd_window_size(&s.window);
    s.p = gd_window_count(&s.window);
    s.plain = s.c == s.window.channels && s.p == gd_window_pixels(&s.window) &&
              gd_all_are(s.window.padding, GD_WINDOW_AXES, 0);
    s.column = call->scratch;
    s.dcolumn = s.column + s.c * s.p;
    s.image = s.dcolumn + s.c * s.p;
    s.dimage = s.image + s.window.channels * gd_window_pixels(&s.window);
    return s;
}

static gd_direct direct_of(const gd_call *call, const product *s) {
    const struct conv *a = call->attrs;
    return (gd_direct){.window = s->window,
                       .filters = s->k,
                       .samples = call->inputs[0].shape.dim[0],
                       .x_step = a->groups * s->pixels,
                       .y_step = a->groups * s->k * s->p};
}

static const float *columns_of(const product *s, const float *image) {
    if (s->padded) {
        gd_pad(&s->padding, s->window.channels, image, s->image);
        image = s->image;
    }
    if (s->plain)
        return image;
    gd_im2col(&s->window, image, s->column);
    return s->column;
}

/* y[n, g] = W[g] columns(x[n, g]) + b, one image and group at a time: they fit the cache. */
static void forward_by_columns(const gd_call *call, const product *s) {
    const struct conv *a = call->attrs;
    const float *x = call->inputs[0].data, *weight = call->params[0].data;
    float *y = call->outputs[0].data;
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        for (int64_t g = 0; g < a->groups; g++, x += s->pixels, y += s->k * s->p) {
            if (a->bias) {
                const float *bias = (const float *)call->params[1].data + g * s->k;
                for (int64_t k = 0; k < s->k; k++)
                    for (int64_t p = 0; p < s->p; p++)
                        y[k * s->p + p] = bias[k];
            }
            gd_gemm(false, false, s->k, s->p, s->c, weight + g * s->k * s->c, columns_of(s, x), y, a->bias);
        }
}

static gd_pooled pooled_of(const gd_call *call) {
    const gd_pooling *p = call->pooling;
    return (gd_pooled){.y = p->output.data, .at = p->which.data, .dy = p->output_grad.data, .relu = p->relu};
}

static void conv_forward(const gd_call *call) {
    const struct conv *a = call->attrs;
    const product s = product_of(call);
    if (call->pooling) {
        const gd_direct d = direct_of(call, &s);
        const gd_pooled pooled = pooled_of(call);
        gd_pooled_forward(&d, &pooled, call->inputs[0].data, call->params[0].data,
                          a->bias ? call->params[1].data : NULL, call->scratch);
        return;
    }
    const way *by = way_of(a, GD_DIRECT_FORWARD, &s.window);
    if (!by) {
        forward_by_columns(call, &s);
        if (call->relu)
            gd_relu(gd_numel(&call->outputs[0].shape), call->outputs[0].data);
        return;
    }
    const gd_direct d = direct_of(call, &s);
    const float *x = call->inputs[0].data, *weight = call->params[0].data;
    const float *bias = a->bias ? call->params[1].data : NULL;
    float *y = call->outputs[0].data;
    for (int64_t g = 0; g < a->groups; g++)
        by->forward(&d, x + g * s.pixels, weight + g * s.k * s.c, bias ? bias + g * s.k : NULL, call->relu,
                    y + g * s.k * s.p, call->scratch);
}

/* dx = columns^-1(W^T dy), one image and group at a time. */
static void input_gradient_by_columns(const gd_call *call, const product *s) {
    const struct conv *a = call->attrs;
    const float *dy = call->output_grads[0].data, *weight = call->params[0].data;
    float *dx = call->input_grads[0].data;
    const size_t image_bytes = (size_t)(s->window.channels * gd_window_pixels(&s->window)) * sizeof(float);
    if (!call->accumulate[0])
        memset(dx, 0, gd_tensor_bytes(&call->input_grads[0]));
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        for (int64_t g = 0; g < a->groups; g++, dy += s->k * s->p, dx += s->pixels) {
            float *image = s->padded ? s->dimage : dx;
            if (s->padded)
                memset(image, 0, image_bytes);
            gd_gemm(true, false, s->c, s->p, s->k, weight + g * s->k * s->c, dy,
                    s->plain ? image : s->dcolumn, s->plain);
            if (!s->plain)
                gd_col2im_add(&s->window, s->dcolumn, image);
            if (s->padded)
                gd_pad_back_add(&s->padding, s->window.channels, image, dx);
        }
}

static void input_gradient(const gd_call *call, const product *s) {
    const struct conv *a = call->attrs;
    const float *dy = call->output_grads[0].data, *weight = call->params[0].data;
    float *dx = call->input_grads[0].data;
    const way *by = way_of(a, GD_DIRECT_INPUT_GRADIENT, &s->window);
    if (!by) {
        input_gradient_by_columns(call, s);
        return;
    }
    const gd_direct d = direct_of(call, s);
    for (int64_t g = 0; g < a->groups; g++)
        by->input_gradient(&d, dy + g * s->k * s->p, weight + g * s->k * s->c, call->accumulate[0],
                           dx + g * s->pixels, call->scratch);
}

/* dW += dy columns(x)^T, one image and group at a time; db += sum of dy. Either may not be wanted. */
static void param_gradients_by_columns(const gd_call *call, const product *s, float *dw, float *db) {
    const struct conv *a = call->attrs;
    const float *x = call->inputs[0].data, *dy = call->output_grads[0].data;
    for (int64_t n = 0; n < call->inputs[0].shape.dim[0]; n++)
        for (int64_t g = 0; g < a->groups; g++, x += s->pixels, dy += s->k * s->p) {
            if (dw)
                gd_gemm(false, true, s->k, s->c, s->p, dy, columns_of(s, x), dw + g * s->k * s->c, true);
            for (int64_t k = 0; db && k < s->k; k++) {
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t p = 0; p < s->p; p++)
                    sum += dy[k * s->p + p];
                db[g * s->k + k] += sum;
            }
        }
}

static void param_gradients(const gd_call *call, const product *s) {
    const struct conv *a = call->attrs;
    const float *x = call->inputs[0].data, *dy = call->output_grads[0].data;
    float *dw = call->param_grads[0].data, *db = a->bias ? call->param_grads[1].data : NULL;
    const way *by = way_of(a, GD_DIRECT_WEIGHT_GRADIENT, &s->window);
    if (!dw || !by) {
        param_gradients_by_columns(call, s, dw, db);
        return;
    }
    const gd_direct d = direct_of(call, s);
    for (int64_t g = 0; g < a->groups; g++)
        by->weight_gradient(&d, x + g * s->pixels, dy + g * s->k * s->p, dw + g * s->k * s->c,
                            db ? db + g * s->k : NULL, call->scratch);
}

static void conv_backward(const gd_call *call) {
    const struct conv *a = call->attrs;
    const product s = product_of(call);
    if (call->pooling) {
        const gd_direct d = direct_of(call, &s);
        const gd_pooled pooled = pooled_of(call);
        gd_pooled_backward(&d, &pooled, call->inputs[0].data, call->params[0].data, call->param_grads[0].data,
                           a->bias ? call->param_grads[1].data : NULL, call->accumulate[0],
                           call->input_grads[0].data, call->scratch);
        return;
    }
    param_gradients(call, &s);
    if (call->input_grads[0].data)
        input_gradient(call, &s);
}

static void conv_repr(FILE *out, const void *attrs, int axes) {
    const struct conv *a = attrs;
    fprintf(out, "%" PRId64 ", %" PRId64, a->in_channels, a->out_channels);
    gd_repr_tuple(out, ", kernel_size=", a->kernel_size, axes);
    gd_repr_tuple(out, ", stride=", a->stride, axes);
    const int word = gd_word_of(a->padding);
    if (word >= 0)
        fprintf(out, ", padding=%s", words[word]);
    else if (!gd_all_are(a->padding, axes, 0))
        gd_repr_tuple(out, ", padding=", a->padding, axes);
    if (!gd_all_are(a->dilation, axes, 1))
        gd_repr_tuple(out, ", dilation=", a->dilation, axes);
    if (a->groups != 1)
        fprintf(out, ", groups=%" PRId64, a->groups);
    if (!a->bias)
        fputs(", bias=False", out);
    if (a->padding_mode)
        fprintf(out, ", padding_mode=%s", modes[a->padding_mode]);
}

/* Where the border is not zeros, or 'same' wants one more after than before, torch pads first. */
static int conv_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    const struct conv *a = attrs;
    const int axes = inputs[0].rank - 2;
    int64_t pads[2 * GD_WINDOW_AXES];
    pads_of(a, axes, pads);
    bool first = a->padding_mode;
    for (int i = 0; i < axes; i++)
        first = first || pads[2 * i] != pads[2 * i + 1];
    nodes[0] = (gd_grad_fn){
        "ConvolutionBackward0", {first ? 1 : GD_NEXT_INPUT(0), GD_NEXT_PARAM(0), GD_NEXT_PARAM(1)}, 3};
    return 1 + (first ? gd_padding_grad_fn((gd_pad_mode)a->padding_mode, axes, pads, nodes, 1) : 0);
}

/* The op gd_op_convNd. */
#define CONV_OP(n, DOC) \
    static int conv##n##d_infer(gd_infer *infer) { \
        return conv_infer(infer, n); \
    } \
    static void conv##n##d_repr(FILE *out, const void *attrs) { \
        conv_repr(out, attrs, n); \
    } \
    const gd_op gd_op_conv##n##d = { \
        .kind = {.module = "Conv" #n "d", \
                 .function = "conv" #n "d", \
                 .doc = DOC, \
                 GD_ATTRS(struct conv, conv##n##d_attrs), \
                 GD_PARAMS(conv_params)}, \
        .min_inputs = 1, \
        .max_inputs = 1, \
        .flags = GD_BATCH | GD_SAVES_INPUT | GD_THEN_RELU, \
        .infer = conv##n##d_infer, \
        .forward = conv_forward, \
        .backward = conv_backward, \
        .repr = conv##n##d_repr, \
        .grad_fn = conv_grad_fn, \
    }

CONV_OP(1, "1-d convolution (cross-correlation) over (N, C, L).");
CONV_OP(2, "2-d convolution (cross-correlation) over (N, C, H, W).");
CONV_OP(3, "3-d convolution (cross-correlation) over (N, C, D, H, W).");
