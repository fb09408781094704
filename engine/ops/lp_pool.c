/* lp_pool.c -- power-average pooling. Formula: torch.nn.LPPool2d. */
#include <inttypes.h>

#include "engine/kernels/pool.h"
#include "engine/ops/pool.h"

struct lp_pool {
    double norm_type;
    int64_t kernel_size[GD_WINDOW_AXES], stride[GD_WINDOW_AXES]; /* stride GD_NONE: kernel_size */
    bool ceil_mode;
};

static const int64_t ones[GD_WINDOW_AXES] = {1, 1, 1}, zeros[GD_WINDOW_AXES] = {0, 0, 0};

#define ROWS(axes) \
    GD_FLOAT(struct lp_pool, norm_type, .required = true, .doc = "p"), \
        GD_INTN(struct lp_pool, kernel_size, axes, .min = 1, .required = true, .doc = "window"), \
        GD_INTN(struct lp_pool, stride, axes, .min = 1, .number = NAN, .nullable = true, \
                .doc = "step between windows; null: kernel_size"), \
        GD_BOOL(struct lp_pool, ceil_mode, .doc = "keep a last window that hangs over the edge")

static const gd_attr lp_pool1d_attrs[] = {ROWS(1)};
static const gd_attr lp_pool2d_attrs[] = {ROWS(2)};

static const int64_t *stride_of(const struct lp_pool *a) {
    return a->stride[0] == GD_NONE ? a->kernel_size : a->stride;
}

/* What is saved: the windows' sums of x^p (N, C, ...). Scratch: a plane of the input, one of the output, and
 * a row of it. */
static int lp_pool_infer(gd_infer *infer, int axes) {
    const struct lp_pool *a = infer->attrs;
    if (a->norm_type == 0)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "norm_type", "norm_type must not be 0");
    for (int axis = 0; axis < axes; axis++)
        if ((a->stride[axis] == GD_NONE) != (a->stride[0] == GD_NONE))
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "stride",
                                 "stride must be given for all axes, or null for all");
    int code = gd_pool_infer(infer, axes, a->kernel_size, stride_of(a), zeros, ones, a->ceil_mode);
    if (code)
        return code;
    infer->saved[0] = (gd_tensor){.shape = infer->outputs[0]};
    infer->saved_count = 1;
    const gd_shape *x = &infer->inputs[0], *y = &infer->outputs[0];
    const gd_shape floats = {
        .rank = 1, .dim = {gd_numel_of(x, 2, x->rank) + gd_numel_of(y, 2, y->rank) + y->dim[y->rank - 1]}};
    return gd_shape_bytes(&floats, GD_FLOAT32, &infer->scratch, infer->error);
}

static int lp_pool1d_infer(gd_infer *infer) {
    return lp_pool_infer(infer, 1);
}

static int lp_pool2d_infer(gd_infer *infer) {
    return lp_pool_infer(infer, 2);
}

static gd_window window_of(const gd_call *call) {
    const struct lp_pool *a = call->attrs;
    return gd_window_of(&call->inputs[0].shape, &call->outputs[0].shape, a->kernel_size, stride_of(a), zeros,
                        ones);
}

/* y = s^(1/p), s = kernel elements * mean of x^p: a window that hangs over the edge is scaled up, as in
 * torch. */
static void lp_pool_forward(const gd_call *call) {
    const gd_window w = window_of(call);
    const int64_t pixels = gd_window_pixels(&w), windows = gd_window_count(&w);
    const double p = ((const struct lp_pool *)call->attrs)->norm_type;
    const float power = (float)p, root = (float)(1 / p), size = (float)gd_window_size(&w);
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data, *sums = call->saved[0].data, *powers = call->scratch;
    for (int64_t plane = 0; plane < gd_numel_of(&call->inputs[0].shape, 0, 2); plane++) {
        for (int64_t i = 0; i < pixels; i++)
            powers[i] = powf(x[i], power);
        gd_avg_pool(&w, (gd_divisor){.include_pad = true}, 1, powers, y);
        for (int64_t i = 0; i < windows; i++)
            y[i] *= size;
        if (sums)
            memcpy(sums + plane * windows, y, (size_t)windows * sizeof *y);
        for (int64_t i = 0; i < windows; i++)
            y[i] = powf(y[i], root);
        x += pixels;
        y += windows;
    }
}

/* ds = dy s^(1/p - 1) / p, d(x^p) = size ds / elements in the window, dx = p x^(p-1) d(x^p). torch takes
 * sign(s) |s| for s, so where s is 0 and the root's slope infinite there is no slope: NaN. */
static void lp_pool_backward(const gd_call *call) {
    const gd_window w = window_of(call);
    const int64_t pixels = gd_window_pixels(&w), windows = gd_window_count(&w);
    const double p = ((const struct lp_pool *)call->attrs)->norm_type;
    const float power = (float)p, root = (float)(1 / p), size = (float)gd_window_size(&w);
    const float *x = call->inputs[0].data, *dy = call->output_grads[0].data, *sums = call->saved[0].data;
    float *dx = call->input_grads[0].data, *dpowers = call->scratch, *means = dpowers + pixels;
    if (!gd_pool_clear(call))
        return;
    for (int64_t plane = 0; plane < gd_numel_of(&call->inputs[0].shape, 0, 2); plane++) {
        for (int64_t i = 0; i < windows; i++) {
            const float slope = sums[i] != 0 ? 1.0F : 0.0F;
            means[i] = dy[i] * size * root * powf(sums[i], root - 1) * slope;
        }
        memset(dpowers, 0, (size_t)pixels * sizeof *dpowers);
        gd_avg_pool_backward(&w, (gd_divisor){.include_pad = true}, 1, means, means + windows, dpowers);
        for (int64_t i = 0; i < pixels; i++)
            dx[i] += power * powf(x[i], power - 1) * dpowers[i];
        x += pixels;
        dx += pixels;
        dy += windows;
        sums += windows;
    }
}

static void lp_pool_repr(FILE *out, const struct lp_pool *a, int axes) {
    fputs("norm_type=", out);
    if (a->norm_type == floor(a->norm_type)) /* usually given as an integer */
        fprintf(out, "%.0f", a->norm_type);
    else
        gd_repr_float(out, a->norm_type);
    gd_repr_number_or_tuple(out, ", kernel_size=", a->kernel_size, axes);
    if (a->stride[0] == GD_NONE)
        fputs(", stride=None", out);
    else
        gd_repr_number_or_tuple(out, ", stride=", a->stride, axes);
    fprintf(out, ", ceil_mode=%s", a->ceil_mode ? "True" : "False");
}

static void lp_pool1d_repr(FILE *out, const void *attrs) {
    lp_pool_repr(out, attrs, 1);
}

static void lp_pool2d_repr(FILE *out, const void *attrs) {
    lp_pool_repr(out, attrs, 2);
}

/* (sign(a) relu(|a|) size)^(1/p), a = avg_pool(x^p) */
static int lp_pool1d_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    static const gd_grad_fn table[] = {
        {"PowBackward0", {1}, 1},       {"MulBackward0", {2, GD_NEXT_NONE}, 2},
        {"MulBackward0", {3, 8}, 2},    {"SignBackward0", {4}, 1},
        {"SqueezeBackward1", {5}, 1},   {"AvgPool2DBackward0", {6}, 1},
        {"UnsqueezeBackward0", {7}, 1}, {"PowBackward0", {GD_NEXT_INPUT(0)}, 1},
        {"ReluBackward0", {9}, 1},      {"AbsBackward0", {4}, 1}};
    (void)attrs;
    (void)inputs;
    return memcpy(nodes, table, sizeof table), (int)GD_COUNT(table);
}

static int lp_pool2d_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    static const gd_grad_fn table[] = {
        {"PowBackward0", {1}, 1},       {"MulBackward0", {2, GD_NEXT_NONE}, 2},
        {"MulBackward0", {3, 6}, 2},    {"SignBackward0", {4}, 1},
        {"AvgPool2DBackward0", {5}, 1}, {"PowBackward0", {GD_NEXT_INPUT(0)}, 1},
        {"ReluBackward0", {7}, 1},      {"AbsBackward0", {4}, 1}};
    (void)attrs;
    (void)inputs;
    return memcpy(nodes, table, sizeof table), (int)GD_COUNT(table);
}

const gd_op gd_op_lp_pool1d = {
    .kind = {.module = "LPPool1d",
             .function = "lp_pool1d",
             .doc = "p-norm of windows of (N, C, L).",
             GD_ATTRS(struct lp_pool, lp_pool1d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = lp_pool1d_infer,
    .forward = lp_pool_forward,
    .backward = lp_pool_backward,
    .repr = lp_pool1d_repr,
    .grad_fn = lp_pool1d_grad_fn,
};

const gd_op gd_op_lp_pool2d = {
    .kind = {.module = "LPPool2d",
             .function = "lp_pool2d",
             .doc = "p-norm of 2-d windows of (N, C, H, W).",
             GD_ATTRS(struct lp_pool, lp_pool2d_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = lp_pool2d_infer,
    .forward = lp_pool_forward,
    .backward = lp_pool_backward,
    .repr = lp_pool2d_repr,
    .grad_fn = lp_pool2d_grad_fn,
};
