/* layer_norm.c -- normalisation over the trailing axes of each sample.
 * Formulas: torch.nn.LayerNorm, torch.nn.RMSNorm (torch 2.4). */
#include <float.h>
#include <inttypes.h>

#include "engine/graph/op.h"
#include "engine/kernels/norm.h"

struct layer_norm {
    gd_ints normalized_shape;
    double eps;
    bool elementwise_affine, bias;
};

static const gd_attr layer_norm_attrs[] = {
    GD_INTS(struct layer_norm, normalized_shape, .min = 1, .required = true,
            .doc = "sizes of the trailing axes to normalise over"),
    GD_FLOAT(struct layer_norm, eps, .min = 0, .number = 1e-5, .doc = "added to the variance"),
    GD_BOOL(struct layer_norm, elementwise_affine, .number = 1,
            .doc = "scale and shift each element by learnable numbers"),
    GD_BOOL(struct layer_norm, bias, .number = 1, .doc = "false: with elementwise_affine, scale only"),
};

static const gd_attr rms_norm_attrs[] = {
    GD_INTS(struct layer_norm, normalized_shape, .min = 1, .required = true,
            .doc = "sizes of the trailing axes to normalise over"),
    GD_FLOAT(struct layer_norm, eps, .min = 0, .number = NAN, .nullable = true,
             .doc = "added to the mean square; null: float32's epsilon"),
    GD_BOOL(struct layer_norm, elementwise_affine, .number = 1,
            .doc = "scale each element by a learnable number"),
};

static const gd_param_decl layer_norm_params[] = {
    {.name = "weight", .init = GD_INIT_ONES, .doc = "(*normalized_shape)"},
    {.name = "bias", .init = GD_INIT_ZEROS, .doc = "(*normalized_shape)"},
};

static void write_sizes(FILE *out, const gd_ints *sizes) {
    fputc('(', out);
    for (size_t i = 0; i < sizes->count; i++)
        fprintf(out, "%s%" PRId64, i ? ", " : "", sizes->data[i]);
    fputs(sizes->count == 1 ? ",)" : ")", out);
}

static int wrong_sizes(gd_infer *infer) {
    const struct layer_norm *a = infer->attrs;
    char text[128], sizes[128] = "";
    FILE *out = fmemopen(sizes, sizeof sizes, "w");
    if (out) {
        write_sizes(out, &a->normalized_shape);
        (void)fclose(out);
    }
    return gd_fail_field(infer->error, GD_E_SHAPE, "normalized_shape",
                         "normalized_shape %s must be the last axes of the input's samples, %s", sizes,
                         gd_sample_text(&infer->inputs[0], text, sizeof text));
}

/* What is saved: mean and 1 / sqrt(var + eps) of every row (N, rows of a sample, 2). */
static int norm_infer(gd_infer *infer, bool bias) {
    const struct layer_norm *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    if (a->normalized_shape.count == 0)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "normalized_shape",
                             "normalized_shape must hold at least 1 size");
    if (a->normalized_shape.count >= (size_t)x->rank)
        return wrong_sizes(infer);
    const int axes = (int)a->normalized_shape.count;
    gd_shape sizes = {.rank = axes};
    for (int i = 0; i < axes; i++) {
        sizes.dim[i] = a->normalized_shape.data[i];
        if (sizes.dim[i] != x->dim[x->rank - axes + i])
            return wrong_sizes(infer);
    }
    infer->outputs[0] = *x;
    if (a->elementwise_affine)
        gd_infer_param_add(infer, 0, sizes);
    if (a->elementwise_affine && bias)
        gd_infer_param_add(infer, 1, sizes);
    infer->saved[0] = (gd_tensor){.shape = GD_SHAPE(x->dim[0], gd_numel_of(x, 1, x->rank - axes), 2)};
    infer->saved_count = 1;
    return 0;
}

static int layer_norm_infer(gd_infer *infer) {
    return norm_infer(infer, ((const struct layer_norm *)infer->attrs)->bias);
}

static int rms_norm_infer(gd_infer *infer) {
    return norm_infer(infer, false);
}

typedef struct rows {
    int64_t count, size;
    const float *weight; /* (size), or NULL */
    double eps;
} rows;

static rows rows_of(const gd_call *call) {
    const struct layer_norm *a = call->attrs;
    const gd_shape *x = &call->inputs[0].shape;
    const int axes = (int)a->normalized_shape.count;
    return (rows){.count = gd_numel_of(x, 0, x->rank - axes),
                  .size = gd_numel_of(x, x->rank - axes, x->rank),
                  .weight = a->elementwise_affine ? call->params[0].data : NULL,
                  .eps = isnan(a->eps) ? (double)FLT_EPSILON : a->eps};
}

/* y = (x - mean) / sqrt(var + eps) weight + bias; without a mean, var is the mean square. */
static void forward(const gd_call *call, bool centred, const float *bias) {
    const rows r = rows_of(call);
    const gd_channels row = {.samples = 1, .channels = 1, .size = r.size, .count = 1};
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data, *saved = call->saved[0].data;
    for (int64_t i = 0; i < r.count; i++, x += r.size, y += r.size) {
        double middle = 0, squares;
        if (centred)
            gd_row_moments(r.size, x, &middle, &squares);
        const float mean = (float)middle;
        if (!centred)
            gd_channels_square(&row, x, &mean, &squares);
        const float inverse = (float)(1 / sqrt(squares / (double)r.size + r.eps));
        gd_row_scale(r.size, x, mean, inverse, r.weight, bias, y);
        if (saved) {
            saved[2 * i] = mean;
            saved[2 * i + 1] = inverse;
        }
    }
}

/* With x' = x - mean, s = 1 / sqrt(var + eps), g = weight dy and rows of m elements:
 *   dweight += dy x' s, dbias += dy, dx = s (g - sum(g) / m - x' s^2 sum(g x') / m)
 * and the same without sum(g) where no mean was subtracted. */
static void backward(const gd_call *call, bool centred, float *dbias) {
    const rows r = rows_of(call);
    const float *x = call->inputs[0].data, *dy = call->output_grads[0].data, *saved = call->saved[0].data;
    float *dx = call->input_grads[0].data, *dweight = r.weight ? call->param_grads[0].data : NULL;
    for (int64_t i = 0; i < r.count; i++, x += r.size, dy += r.size) {
        const float mean = saved[2 * i], inverse = saved[2 * i + 1];
        if (dweight)
#pragma omp simd
            for (int64_t k = 0; k < r.size; k++)
                dweight[k] += dy[k] * (x[k] - mean) * inverse;
        if (dbias)
#pragma omp simd
            for (int64_t k = 0; k < r.size; k++)
                dbias[k] += dy[k];
        if (dx) {
            gd_row_back(r.size, dy, x, r.weight, mean, inverse, centred, call->accumulate[0], dx);
            dx += r.size;
        }
    }
}

static bool has_bias(const struct layer_norm *a) {
    return a->elementwise_affine && a->bias;
}

static void layer_norm_forward(const gd_call *call) {
    forward(call, true, has_bias(call->attrs) ? call->params[1].data : NULL);
}

static void layer_norm_backward(const gd_call *call) {
    backward(call, true, has_bias(call->attrs) ? call->param_grads[1].data : NULL);
}

static void rms_norm_forward(const gd_call *call) {
    forward(call, false, NULL);
}

static void rms_norm_backward(const gd_call *call) {
    backward(call, false, NULL);
}

static void layer_norm_repr(FILE *out, const void *attrs) {
    const struct layer_norm *a = attrs;
    write_sizes(out, &a->normalized_shape);
    fputs(", eps=", out);
    gd_repr_float(out, a->eps);
    fprintf(out, ", elementwise_affine=%s", a->elementwise_affine ? "True" : "False");
}

/* x rsqrt(mean(x^2) + eps) weight, as torch 2.4 puts it together */
static int rms_norm_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const bool affine = ((const struct layer_norm *)attrs)->elementwise_affine;
    (void)inputs;
    int n = 0;
    if (affine)
        nodes[n++] = (gd_grad_fn){"MulBackward0", {1, GD_NEXT_PARAM(0)}, 2};
    nodes[n] = (gd_grad_fn){"MulBackward0", {GD_NEXT_INPUT(0), n + 1}, 2};
    nodes[n + 1] = (gd_grad_fn){"RsqrtBackward0", {n + 2}, 1};
    nodes[n + 2] = (gd_grad_fn){"AddBackward0", {n + 3, GD_NEXT_NONE}, 2};
    nodes[n + 3] = (gd_grad_fn){"MeanBackward1", {n + 4}, 1};
    nodes[n + 4] = (gd_grad_fn){"PowBackward0", {GD_NEXT_INPUT(0)}, 1};
    return n + 5;
}

const gd_op gd_op_layer_norm = {
    .kind = {.module = "LayerNorm",
             .function = "layer_norm",
             .doc = "Normalises the trailing axes of each sample by their mean and variance.",
             GD_ATTRS(struct layer_norm, layer_norm_attrs),
             GD_PARAMS(layer_norm_params)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = layer_norm_infer,
    .forward = layer_norm_forward,
    .backward = layer_norm_backward,
    .repr = layer_norm_repr,
    .grad_name = "NativeLayerNormBackward0",
};

const gd_op gd_op_rms_norm = {
    .kind = {.module = "RMSNorm",
             .function = "rms_norm",
             .doc = "Normalises the trailing axes of each sample by their root mean square.",
             GD_ATTRS(struct layer_norm, rms_norm_attrs),
             .params = layer_norm_params,
             .param_count = 1},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = rms_norm_infer,
    .forward = rms_norm_forward,
    .backward = rms_norm_backward,
    .repr = layer_norm_repr,
    .grad_fn = rms_norm_grad_fn,
};
