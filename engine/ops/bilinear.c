/* bilinear.c -- a form of two inputs. Formula: torch.nn.Bilinear. */
#include <inttypes.h>

#include "engine/graph/op.h"
#include "engine/kernels/gemm.h"

struct bilinear {
    int64_t in1_features, in2_features, out_features;
    bool bias;
};

static const gd_attr bilinear_attrs[] = {
    GD_INT(struct bilinear, in1_features, .min = 1, .inferred = true, .doc = "size of input 1's last axis"),
    GD_INT(struct bilinear, in2_features, .min = 1, .inferred = true, .doc = "size of input 2's last axis"),
    GD_INT(struct bilinear, out_features, .min = 1, .required = true,
           .doc = "size of the output's last axis"),
    GD_BOOL(struct bilinear, bias, .number = 1, .doc = "add a learnable bias"),
};

static const gd_param_decl bilinear_params[] = {
    {.name = "weight", .init = GD_INIT_UNIFORM, .doc = "(out_features, in1_features, in2_features)"},
    {.name = "bias", .init = GD_INIT_UNIFORM, .doc = "(out_features)"},
};

enum { ROWS = 16 }; /* computed in one product */

/* The size of an input's last axis, into the attribute if that was left open. */
static int infer_features(gd_infer *infer, int input, const char *name, int64_t *features) {
    const gd_shape *x = &infer->inputs[input];
    const int64_t last = x->dim[x->rank - 1];
    char text[128];
    if (*features == 0)
        *features = last;
    if (*features != last)
        return gd_fail_field(infer->error, GD_E_SHAPE, name,
                             "%s is %" PRId64
                             ", but the last axis of the samples of input %d, %s, has %" PRId64,
                             name, *features, input + 1, gd_sample_text(x, text, sizeof text), last);
    return 0;
}

static int bilinear_infer(gd_infer *infer) {
    struct bilinear *a = infer->attrs;
    const gd_shape *x1 = &infer->inputs[0], *x2 = &infer->inputs[1];
    char first[128], second[128];
    bool fit = x1->rank == x2->rank && x1->rank >= 2;
    for (int i = 0; fit && i < x1->rank - 1; i++)
        fit = x1->dim[i] == x2->dim[i];
    if (!fit)
        return gd_fail(
            infer->error, GD_E_SHAPE,
            "wants samples of [..., in1_features] and [..., in2_features] with equal axes before the "
            "last, got %s and %s",
            gd_sample_text(x1, first, sizeof first), gd_sample_text(x2, second, sizeof second));
    int code = infer_features(infer, 0, "in1_features", &a->in1_features);
    if (!code)
        code = infer_features(infer, 1, "in2_features", &a->in2_features);
    if (code)
        return code;
    infer->outputs[0] = *x1;
    infer->outputs[0].dim[x1->rank - 1] = a->out_features;
    const double bound = 1 / sqrt((double)a->in1_features);
    gd_infer_param_add(infer, 0, GD_SHAPE(a->out_features, a->in1_features, a->in2_features))->value = bound;
    if (a->bias)
        gd_infer_param_add(infer, 1, GD_SHAPE(a->out_features))->value = bound;
    const gd_shape products = GD_SHAPE(2, ROWS, a->in1_features, a->in2_features); /* and their gradients */
    return gd_shape_bytes(&products, GD_FLOAT32, &infer->scratch, infer->error);
}

/* z[r, (i, j)] = x1[r, i] x2[r, j] */
static void multiply_out(const struct bilinear *a, int64_t rows, const float *x1, const float *x2, float *z) {
    for (int64_t r = 0; r < rows; r++, x2 += a->in2_features)
        for (int64_t i = 0; i < a->in1_features; i++, x1++, z += a->in2_features)
            for (int64_t j = 0; j < a->in2_features; j++)
                z[j] = *x1 * x2[j];
}

static int64_t rows_of(const gd_call *call) {
    return gd_numel_of(&call->inputs[0].shape, 0, call->inputs[0].shape.rank - 1);
}

/* y[r, o] = sum of x1[r, i] W[o, i, j] x2[r, j] over i and j, + b[o] */
static void bilinear_forward(const gd_call *call) {
    const struct bilinear *a = call->attrs;
    const int64_t count = rows_of(call), terms = a->in1_features * a->in2_features;
    const float *x1 = call->inputs[0].data, *x2 = call->inputs[1].data;
    float *y = call->outputs[0].data;
    for (int64_t r = 0; r < count; r += ROWS) {
        const int64_t rows = count - r < ROWS ? count - r : ROWS;
        float *block = y + r * a->out_features;
        multiply_out(a, rows, x1 + r * a->in1_features, x2 + r * a->in2_features, call->scratch);
        for (int64_t i = 0; a->bias && i < rows; i++)
            memcpy(block + i * a->out_features, call->params[1].data, (size_t)a->out_features * sizeof *y);
        gd_gemm(false, true, rows, a->out_features, terms, call->scratch, call->params[0].data, block,
                a->bias);
    }
}

/* dx1[r, i] = sum of dz[r, i, j] x2[r, j] over j, dx2 the same over i; either may be NULL. */
static void input_gradients(const gd_call *call, int64_t first, int64_t rows, const float *dz) {
    const struct bilinear *a = call->attrs;
    const int64_t n1 = a->in1_features, n2 = a->in2_features;
    for (int64_t r = first; r < first + rows; r++, dz += n1 * n2) {
        const float *x1 = (const float *)call->inputs[0].data + r * n1;
        const float *x2 = (const float *)call->inputs[1].data + r * n2;
        float *dx1 = call->input_grads[0].data, *dx2 = call->input_grads[1].data;
        for (int64_t i = 0; dx1 && i < n1; i++) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < n2; j++)
                sum += dz[i * n2 + j] * x2[j];
            dx1[r * n1 + i] = sum + (call->accumulate[0] ? dx1[r * n1 + i] : 0);
        }
        if (!dx2)
            continue;
        dx2 += r * n2;
        if (!call->accumulate[1])
            memset(dx2, 0, (size_t)n2 * sizeof *dx2);
        for (int64_t i = 0; i < n1; i++)
            for (int64_t j = 0; j < n2; j++)
                dx2[j] += dz[i * n2 + j] * x1[i];
    }
}

/* With z = x1 x2 multiplied out: dz = dy W, dW += dy^T z, db += column sums of dy. */
static void bilinear_backward(const gd_call *call) {
    const struct bilinear *a = call->attrs;
    const int64_t count = rows_of(call), terms = a->in1_features * a->in2_features;
    const float *x1 = call->inputs[0].data, *x2 = call->inputs[1].data;
    float *z = call->scratch, *dz = z + ROWS * terms, *dw = call->param_grads[0].data;
    float *db = a->bias ? call->param_grads[1].data : NULL;
    for (int64_t r = 0; r < count; r += ROWS) {
        const int64_t rows = count - r < ROWS ? count - r : ROWS;
        const float *dy = (const float *)call->output_grads[0].data + r * a->out_features;
        if (dw) {
            multiply_out(a, rows, x1 + r * a->in1_features, x2 + r * a->in2_features, z);
            gd_gemm(true, false, a->out_features, terms, rows, dy, z, dw, true);
        }
        for (int64_t i = 0; db && i < rows; i++)
            for (int64_t o = 0; o < a->out_features; o++)
                db[o] += dy[i * a->out_features + o];
        if (call->input_grads[0].data || call->input_grads[1].data) {
            gd_gemm(false, false, rows, terms, a->out_features, dy, call->params[0].data, dz, false);
            input_gradients(call, r, rows, dz);
        }
    }
}

static void bilinear_repr(FILE *out, const void *attrs) {
    const struct bilinear *a = attrs;
    fprintf(out, "in1_features=%" PRId64 ", in2_features=%" PRId64 ", out_features=%" PRId64 ", bias=%s",
            a->in1_features, a->in2_features, a->out_features, a->bias ? "True" : "False");
}

/* torch sees all rows as a matrix, whatever the rank, and adds the bias at the end. */
static int bilinear_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    int n = 0;
    (void)inputs;
    if (((const struct bilinear *)attrs)->bias)
        nodes[n++] = (gd_grad_fn){"AddBackward0", {1, GD_NEXT_PARAM(1)}, 2};
    nodes[n] = (gd_grad_fn){"ReshapeAliasBackward0", {n + 1}, 1};
    nodes[n + 1] = (gd_grad_fn){"TrilinearBackward0", {n + 2, GD_NEXT_PARAM(0), n + 3}, 3};
    nodes[n + 2] = (gd_grad_fn){"ReshapeAliasBackward0", {GD_NEXT_INPUT(0)}, 1};
    nodes[n + 3] = (gd_grad_fn){"ReshapeAliasBackward0", {GD_NEXT_INPUT(1)}, 1};
    return n + 4;
}

const gd_op gd_op_bilinear = {
    .kind = {.module = "Bilinear",
             .function = "bilinear",
             .doc = "Form of two inputs: y = x1^T W x2 + b.",
             GD_ATTRS(struct bilinear, bilinear_attrs),
             GD_PARAMS(bilinear_params)},
    .min_inputs = 2,
    .max_inputs = 2,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = bilinear_infer,
    .forward = bilinear_forward,
    .backward = bilinear_backward,
    .repr = bilinear_repr,
    .grad_fn = bilinear_grad_fn,
};
