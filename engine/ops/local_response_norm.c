/* local_response_norm.c -- normalisation by neighbouring channels.
 * Formula: torch.nn.LocalResponseNorm (Krizhevsky et al. 2012). */
#include <inttypes.h>

#include "engine/graph/op.h"

struct local_response_norm {
    int64_t size;
    double alpha, beta, k;
};

static const gd_attr local_response_norm_attrs[] = {
    GD_INT(struct local_response_norm, size, .min = 1, .required = true, .doc = "channels of a window"),
    GD_FLOAT(struct local_response_norm, alpha, .number = 1e-4, .doc = "factor of the mean square"),
    GD_FLOAT(struct local_response_norm, beta, .number = 0.75, .doc = "exponent"),
    GD_FLOAT(struct local_response_norm, k, .number = 1, .doc = "added to the mean square"),
};

/* What is saved: the denominator before it is raised (N, C, ...). */
static int local_response_norm_infer(gd_infer *infer) {
    const gd_shape *x = &infer->inputs[0];
    char text[128];
    if (x->rank < 3)
        return gd_fail(infer->error, GD_E_SHAPE, "wants samples of [C, L, ...], got %s",
                       gd_sample_text(x, text, sizeof text));
    infer->outputs[0] = *x;
    infer->saved[0] = (gd_tensor){.shape = *x};
    infer->saved_count = 1;
    const gd_shape sample = gd_shape_without_batch(x);
    return gd_shape_bytes(&sample, GD_FLOAT32, &infer->scratch, infer->error);
}

typedef struct sizes {
    int64_t samples, channels, area;
    int64_t before, after; /* channels of a window on either side */
    float factor;          /* alpha / size */
} sizes;

static sizes sizes_of(const gd_call *call) {
    const struct local_response_norm *a = call->attrs;
    const gd_shape *x = &call->inputs[0].shape;
    return (sizes){.samples = x->dim[0],
                   .channels = x->dim[1],
                   .area = gd_numel_of(x, 2, x->rank),
                   .before = a->size / 2,
                   .after = (a->size - 1) / 2,
                   .factor = (float)(a->alpha / (double)a->size)};
}

/* sum = values of channels c - before ... c + after, as far as there are such */
static void window_sum(const sizes *s, int64_t c, int64_t before, int64_t after, const float *values,
                       float *sum) {
    const int64_t first = c - before > 0 ? c - before : 0;
    const int64_t last = c + after < s->channels - 1 ? c + after : s->channels - 1;
    memset(sum, 0, (size_t)s->area * sizeof *sum);
    for (int64_t n = first; n <= last; n++)
#pragma omp simd
        for (int64_t i = 0; i < s->area; i++)
            sum[i] += values[n * s->area + i];
}

/* y = x / d^beta, d = k + alpha / size sum(x^2 of the channels c - size / 2 ... c + (size - 1) / 2) */
static void local_response_norm_forward(const gd_call *call) {
    const struct local_response_norm *a = call->attrs;
    const sizes s = sizes_of(call);
    const int64_t volume = s.channels * s.area;
    const float k = (float)a->k, beta = (float)a->beta;
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data, *d = call->saved[0].data, *squares = call->scratch;
    for (int64_t n = 0; n < s.samples; n++, x += volume, y += volume) {
        for (int64_t i = 0; i < volume; i++)
            squares[i] = x[i] * x[i];
        for (int64_t c = 0; c < s.channels; c++) {
            float *row = y + c * s.area;
            window_sum(&s, c, s.before, s.after, squares, row);
            for (int64_t i = 0; i < s.area; i++)
                row[i] = k + s.factor * row[i];
            if (d)
                memcpy(d + n * volume + c * s.area, row, (size_t)s.area * sizeof *row);
            for (int64_t i = 0; i < s.area; i++)
                row[i] = x[c * s.area + i] * powf(row[i], -beta);
        }
    }
}

/* dx = dy / d^beta - 2 alpha beta / size x sum(t), t = dy x / d^(beta + 1) of the channels whose window
 * holds this one: c - (size - 1) / 2 ... c + size / 2. */
static void local_response_norm_backward(const gd_call *call) {
    const struct local_response_norm *a = call->attrs;
    const sizes s = sizes_of(call);
    const int64_t volume = s.channels * s.area;
    const float beta = (float)a->beta, factor = 2 * s.factor * beta;
    const float *x = call->inputs[0].data, *dy = call->output_grads[0].data, *d = call->saved[0].data;
    float *dx = call->input_grads[0].data, *t = call->scratch;
    if (!dx)
        return;
    for (int64_t n = 0; n < s.samples; n++, x += volume, dy += volume, d += volume, dx += volume) {
        for (int64_t i = 0; i < volume; i++) {
            const float inverse = powf(d[i], -beta);
            t[i] = dy[i] * x[i] * inverse / d[i];
            dx[i] = (call->accumulate[0] ? dx[i] : 0) + dy[i] * inverse;
        }
        for (int64_t c = 0; c < s.channels; c++) {
            const int64_t first = c - s.after > 0 ? c - s.after : 0;
            const int64_t last = c + s.before < s.channels - 1 ? c + s.before : s.channels - 1;
            for (int64_t other = first; other <= last; other++)
#pragma omp simd
                for (int64_t i = 0; i < s.area; i++)
                    dx[c * s.area + i] -= factor * x[c * s.area + i] * t[other * s.area + i];
        }
    }
}

static void local_response_norm_repr(FILE *out, const void *attrs) {
    const struct local_response_norm *a = attrs;
    fprintf(out, "%" PRId64 ", alpha=", a->size);
    gd_repr_float(out, a->alpha);
    fputs(", beta=", out);
    gd_repr_float(out, a->beta);
    fputs(", k=", out);
    gd_repr_float(out, a->k);
}

/* torch pads and pools the squares along the channels, as an image (N, 1, C, L) or (N, 1, C, H, ...). */
static int local_response_norm_grad_fn(const void *attrs, const gd_shape *inputs,
                                       gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    enum { X = GD_NEXT_INPUT(0), NONE = GD_NEXT_NONE };
    static const gd_grad_fn line[] = {
        {"DivBackward0", {X, 1}, 2},        {"PowBackward0", {2}, 1},       {"AddBackward0", {3, NONE}, 2},
        {"MulBackward0", {4, NONE}, 2},     {"SqueezeBackward1", {5}, 1},   {"AvgPool2DBackward0", {6}, 1},
        {"ConstantPadNdBackward0", {7}, 1}, {"UnsqueezeBackward0", {8}, 1}, {"MulBackward0", {X, X}, 2}};
    static const gd_grad_fn image[] = {
        {"DivBackward0", {X, 1}, 2},     {"PowBackward0", {2}, 1},           {"AddBackward0", {3, NONE}, 2},
        {"MulBackward0", {4, NONE}, 2},  {"ViewBackward0", {5}, 1},          {"SqueezeBackward1", {6}, 1},
        {"AvgPool3DBackward0", {7}, 1},  {"ConstantPadNdBackward0", {8}, 1}, {"ViewBackward0", {9}, 1},
        {"UnsqueezeBackward0", {10}, 1}, {"MulBackward0", {X, X}, 2}};
    (void)attrs;
    if (inputs[0].rank == 3)
        return memcpy(nodes, line, sizeof line), (int)GD_COUNT(line);
    return memcpy(nodes, image, sizeof image), (int)GD_COUNT(image);
}

const gd_op gd_op_local_response_norm = {
    .kind = {.module = "LocalResponseNorm",
             .function = "local_response_norm",
             .doc = "Divides by a power of the mean square of neighbouring channels.",
             GD_ATTRS(struct local_response_norm, local_response_norm_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = local_response_norm_infer,
    .forward = local_response_norm_forward,
    .backward = local_response_norm_backward,
    .repr = local_response_norm_repr,
    .grad_fn = local_response_norm_grad_fn,
};
