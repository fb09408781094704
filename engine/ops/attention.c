/* attention.c -- multi-head attention. Formula: torch.nn.MultiheadAttention.
 *
 * Per sample and head, with queries Q (T, d), keys K and values V (S, d) projected from the inputs:
 *   P = softmax(Q K^T / sqrt(d)), masked positions left out; context = P V
 * and the heads' contexts side by side, (T, E), go through out_proj. */
#include <inttypes.h>

#include "engine/core/rng.h"
#include "engine/graph/op.h"
#include "engine/kernels/gemm.h"
#include "engine/kernels/product.h"
#include "engine/kernels/softmax.h"

struct attention {
    int64_t embed_dim, num_heads;
    double dropout;
    bool bias, batch_first, is_causal;
};

static const gd_attr attention_attrs[] = {
    GD_INT(struct attention, embed_dim, .min = 1, .inferred = true, .doc = "features of input and output"),
    GD_INT(struct attention, num_heads, .min = 1, .required = true, .doc = "heads; divides embed_dim"),
    GD_FLOAT(struct attention, dropout, .min = 0, .max = 1,
             .doc = "dropout of attention weights, in training"),
    GD_BOOL(struct attention, bias, .number = 1, .doc = "learnable biases"),
    GD_BOOL(struct attention, batch_first,
            .doc = "inputs are (N, T, E): must be true, the batch comes first"),
    GD_BOOL(struct attention, is_causal, .doc = "a position attends to itself and those before it"),
};

static const gd_param_decl attention_params[] = {
    {.name = "in_proj_weight", .init = GD_INIT_XAVIER_UNIFORM, .doc = "(3 * embed_dim, embed_dim): q, k, v"},
    {.name = "in_proj_bias", .init = GD_INIT_ZEROS, .doc = "(3 * embed_dim)"},
    {.name = "out_proj.weight", .init = GD_INIT_KAIMING_UNIFORM, .doc = "(embed_dim, embed_dim)"},
    {.name = "out_proj.bias", .init = GD_INIT_DRAWN_ZERO, .doc = "(embed_dim)"},
};

/* What forward keeps, in this order. */
enum { Q, K, V, WEIGHTS, CONTEXT, DQ, DK, DV, DROPPED };

static int attention_infer(gd_infer *infer) {
    struct attention *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    const gd_shape *keys = infer->input_count > 1 ? &infer->inputs[1] : x;
    const gd_shape *values = infer->input_count > 2 ? &infer->inputs[2] : keys;
    char text[128], other[128];
    if (!a->batch_first)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "batch_first",
                             "inputs are (N, T, E), the batch first: say batch_first: true");
    if (infer->input_count == 2)
        return gd_fail_field(
            infer->error, GD_E_GRAPH, "inputs",
            "takes 1 input (self-attention), 3 (query, key, value), or 4 (and a key_padding_mask), "
            "not 2");
    for (int i = 0; i < infer->input_count && i < 3; i++)
        if (infer->inputs[i].rank != 3 || infer->input_axes[i] != 0)
            return gd_fail(infer->error, GD_E_SHAPE, "wants samples of [T, embed_dim], got %s as input %d",
                           gd_sample_text(&infer->inputs[i], text, sizeof text), i);
    if (a->embed_dim == 0)
        a->embed_dim = x->dim[2];
    if (x->dim[2] != a->embed_dim || keys->dim[2] != a->embed_dim || values->dim[2] != a->embed_dim)
        return gd_fail_field(infer->error, GD_E_SHAPE, "embed_dim",
                             "embed_dim is %" PRId64 ", but the inputs' last axes have %" PRId64 ", %" PRId64
                             " and %" PRId64,
                             a->embed_dim, x->dim[2], keys->dim[2], values->dim[2]);
    if (!gd_shape_equal(keys, values))
        return gd_fail(infer->error, GD_E_SHAPE, "keys and values must be alike, not %s and %s",
                       gd_sample_text(keys, text, sizeof text), gd_sample_text(values, other, sizeof other));
    if (a->embed_dim % a->num_heads)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "num_heads",
                             "embed_dim (%" PRId64 ") must be divisible by num_heads (%" PRId64 ")",
                             a->embed_dim, a->num_heads);
    const int64_t n = x->dim[0], t = x->dim[1], s = keys->dim[1], e = a->embed_dim;
    if (infer->input_count == 4 && (infer->inputs[3].rank != 2 || infer->inputs[3].dim[1] != s))
        return gd_fail(infer->error, GD_E_SHAPE,
                       "the key_padding_mask must be [%" PRId64 "] a sample, not %s", s,
                       gd_sample_text(&infer->inputs[3], text, sizeof text));
    /* Scratch of one sample: q, k, v, context, two of weights. */
    const gd_shape bound = GD_SHAPE(2, t + s, t + s + e), saved = GD_SHAPE(n, a->num_heads, t, s);
    size_t bytes;
    int code = gd_shape_bytes(&bound, GD_FLOAT32, &infer->scratch, infer->error);
    if (code || (code = gd_shape_bytes(&saved, GD_FLOAT32, &bytes, infer->error)))
        return code;
    infer->outputs[0] = GD_SHAPE(n, t, e);
    gd_infer_param_add(infer, 0, GD_SHAPE(3 * e, e));
    if (a->bias)
        gd_infer_param_add(infer, 1, GD_SHAPE(3 * e));
    gd_infer_param_add(infer, 2, GD_SHAPE(e, e))->early = true;
    if (a->bias)
        gd_infer_param_add(infer, 3, GD_SHAPE(e))->early = true;
    const gd_shape shapes[] = {
        GD_SHAPE(n, t, e), GD_SHAPE(n, s, e), GD_SHAPE(n, s, e), saved, GD_SHAPE(n, t, e),
        GD_SHAPE(n, t, e), GD_SHAPE(n, s, e), GD_SHAPE(n, s, e), saved};
    infer->saved_count = a->dropout > 0 ? DROPPED + 1 : DROPPED;
    for (int i = 0; i < infer->saved_count; i++)
        infer->saved[i] = (gd_tensor){.dtype = GD_FLOAT32, .shape = shapes[i]};
    infer->whole_batch = a->dropout > 0; /* random numbers are drawn in one order */
    return 0;
}

/* One sample of a call. */
typedef struct sample {
    const struct attention *a;
    int64_t t, s, e, d;  /* queries, keys, features, features of a head */
    const int64_t *mask; /* (s) nonzero: left out; NULL: no mask */
    float *q, *k, *v, *context;
    float *weights; /* (heads, t, s), or one head's when nothing is kept */
    float *dropped; /* (heads, t, s) factors; NULL: no dropout */
    float *spare;   /* (t, s) twice: scratch */
    bool kept;
} sample;

static float *saved_of(const gd_call *call, int which, int64_t n) {
    const gd_tensor *saved = &call->saved[which];
    return (float *)saved->data + n * gd_numel_of(&saved->shape, 1, saved->shape.rank);
}

static const float *input_of(const gd_call *call, int which, int64_t n) {
    const gd_tensor *x = &call->inputs[call->input_count > 1 ? which : 0];
    return (const float *)x->data + n * x->shape.dim[1] * x->shape.dim[2];
}

static sample sample_of(const gd_call *call, int64_t n) {
    const struct attention *a = call->attrs;
    sample m = {.a = a, .e = a->embed_dim, .d = a->embed_dim / a->num_heads};
    m.t = call->inputs[0].shape.dim[1];
    m.s = call->inputs[call->input_count > 1 ? 1 : 0].shape.dim[1];
    m.mask = call->input_count == 4 ? (const int64_t *)call->inputs[3].data + n * m.s : NULL;
    m.kept = call->saved[Q].data;
    float *scratch = call->scratch;
    m.q = m.kept ? saved_of(call, Q, n) : scratch;
    m.k = m.kept ? saved_of(call, K, n) : scratch + m.t * m.e;
    m.v = m.kept ? saved_of(call, V, n) : scratch + (m.t + m.s) * m.e;
    m.context = m.kept ? saved_of(call, CONTEXT, n) : scratch + (m.t + 2 * m.s) * m.e;
    m.spare = scratch + 2 * (m.t + m.s) * m.e;
    m.weights = m.kept ? saved_of(call, WEIGHTS, n) : m.spare;
    m.dropped = m.kept && a->dropout > 0 && call->training ? saved_of(call, DROPPED, n) : NULL;
    return m;
}

static const float *bias_of(const gd_call *call, int which) {
    const struct attention *a = call->attrs;
    return a->bias ? call->params[which].data : NULL;
}

static int out_weight(const gd_call *call) {
    return ((const struct attention *)call->attrs)->bias ? 2 : 1;
}

/* y = x W^T + bias, for W (e, e) */
static void affine(int64_t rows, int64_t e, const float *x, const float *weight, const float *bias,
                   float *y) {
    gd_product_affine(rows, e, e, (gd_operand){x, e, 1}, (gd_operand){weight, 1, e}, bias, false, y, e);
}

/* q, k and v of samples n ... n + count - 1, m being the first of them. */
static void project(const gd_call *call, const sample *m, int64_t n, int64_t count) {
    float *const y[] = {m->q, m->k, m->v};
    const float *weight = call->params[0].data, *bias = bias_of(call, 1);
    for (int i = 0; i < 3; i++) {
        const int64_t rows = count * (i ? m->s : m->t);
        affine(rows, m->e, input_of(call, i, n), weight + i * m->e * m->e, bias ? bias + i * m->e : NULL,
               y[i]);
    }
}

/* Scores that do not count are minus infinity, so that their weights are 0. */
static void mask_scores(const sample *m, float *scores) {
    for (int64_t row = 0; row < m->t && (m->mask || m->a->is_causal); row++, scores += m->s)
        for (int64_t j = 0; j < m->s; j++)
            if ((m->mask && m->mask[j]) || (m->a->is_causal && j > row))
                scores[j] = -INFINITY;
}

/* softmax(x / sqrt(d)) of every row */
static gd_softmax rows_of(const sample *m) {
    return (gd_softmax){.outer = m->t, .size = m->s, .inner = 1, .scale = (float)(1 / sqrt((double)m->d))};
}

static void draw_dropout(const gd_call *call, const sample *m) {
    const float keep = (float)(1 - m->a->dropout);
    for (int64_t i = 0; m->dropped && i < m->a->num_heads * m->t * m->s; i++)
        m->dropped[i] = gd_rng_double(call->rng) < 1 - m->a->dropout ? 1 / keep : 0;
}

/* weights = softmax(Q K^T / sqrt(d)), context = weights V, head by head. */
static void attend(const sample *m) {
    const gd_softmax rows = rows_of(m);
    for (int64_t h = 0; h < m->a->num_heads; h++) {
        const int64_t at = h * m->d;
        float *weights = m->weights + (m->kept ? h * m->t * m->s : 0);
        gd_product(m->t, m->s, m->d, (gd_operand){m->q + at, m->e, 1}, (gd_operand){m->k + at, 1, m->e},
                   weights, m->s, false);
        mask_scores(m, weights);
        gd_softmax_forward(&rows, weights, weights);
        if (m->dropped) { /* the weights themselves are kept whole: softmax's gradient needs them */
            const float *factors = m->dropped + h * m->t * m->s;
            for (int64_t i = 0; i < m->t * m->s; i++)
                m->spare[i] = weights[i] * factors[i];
            weights = m->spare;
        }
        gd_product(m->t, m->d, m->s, (gd_operand){weights, m->s, 1}, (gd_operand){m->v + at, m->e, 1},
                   m->context + at, m->e, false);
    }
}

/* All samples at once go through the projections, unless nothing is kept: then scratch holds one. */
static void attention_forward(const gd_call *call) {
    const int out = out_weight(call);
    const int64_t samples = call->inputs[0].shape.dim[0], group = call->saved[Q].data ? samples : 1;
    for (int64_t first = 0; first < samples; first += group) {
        const sample m = sample_of(call, first);
        const int64_t rows = group * m.t;
        float *y = (float *)call->outputs[0].data + first * m.t * m.e;
        project(call, &m, first, group);
        for (int64_t n = first; n < first + group; n++) {
            const sample one = sample_of(call, n);
            draw_dropout(call, &one);
            attend(&one);
        }
        affine(rows, m.e, m.context, call->params[out].data, bias_of(call, out + 1), y);
    }
}

/* ---- backward ------------------------------------------------------------------------------------ */

/* Of one head, from the gradient of its context, dC (t, d):
 *   dV = P^T dC, dP = dC V^T, dS = P (dP - sum over s of P dP), dQ = dS K / sqrt(d), dK = dS^T Q / sqrt(d);
 * with dropout, P and dP each times its factors where they meet. dC is where dQ will be. */
static void head_backward(const sample *m, int64_t h, float *dq, float *dk, float *dv) {
    const int64_t at = h * m->d, count = m->t * m->s;
    const gd_softmax rows = rows_of(m);
    const float *weights = m->weights + h * count, *factors = m->dropped ? m->dropped + h * count : NULL;
    const float *used = factors ? m->spare : weights;
    float *d = m->spare + count; /* (t, s) */
    for (int64_t i = 0; factors && i < count; i++)
        m->spare[i] = weights[i] * factors[i];
    gd_product(m->s, m->d, m->t, (gd_operand){used, 1, m->s}, (gd_operand){dq + at, m->e, 1}, dv + at, m->e,
               false);
    gd_product(m->t, m->s, m->d, (gd_operand){dq + at, m->e, 1}, (gd_operand){m->v + at, 1, m->e}, d, m->s,
               false);
    for (int64_t i = 0; factors && i < count; i++)
        d[i] *= factors[i];
    gd_softmax_backward(&rows, weights, d, false, d);
    gd_product(m->s, m->d, m->t, (gd_operand){d, 1, m->s}, (gd_operand){m->q + at, m->e, 1}, dk + at, m->e,
               false);
    gd_product(m->t, m->d, m->s, (gd_operand){d, m->s, 1}, (gd_operand){m->k + at, m->e, 1}, dq + at, m->e,
               false);
}

/* Gradients of the inputs; one input gets all three. */
static void input_gradients(const gd_call *call) {
    const float *weight = call->params[0].data;
    for (int i = 0; i < 3; i++) {
        const int input = call->input_count > 1 ? i : 0;
        const gd_tensor *grad = &call->input_grads[input], *d = &call->saved[DQ + i];
        const int64_t e = grad->shape.dim[2];
        if (grad->data)
            gd_gemm(false, false, grad->shape.dim[0] * grad->shape.dim[1], e, e, d->data, weight + i * e * e,
                    grad->data, call->accumulate[input] || (call->input_count == 1 && i > 0));
    }
}

static void attention_backward(const gd_call *call) {
    const int64_t e = ((const struct attention *)call->attrs)->embed_dim;
    const int64_t samples = call->inputs[0].shape.dim[0], t = call->inputs[0].shape.dim[1];
    gd_gemm(false, false, samples * t, e, e, call->output_grads[0].data, call->params[out_weight(call)].data,
            call->saved[DQ].data, false);
    for (int64_t n = 0; n < samples; n++) {
        const sample m = sample_of(call, n);
        for (int64_t h = 0; h < m.a->num_heads; h++)
            head_backward(&m, h, saved_of(call, DQ, n), saved_of(call, DK, n), saved_of(call, DV, n));
    }
    input_gradients(call);
}

/* weight[begin ... end) += d^T x and bias += column sums of d, for the columns begin ... end - 1 of d. */
static void add_linear_gradient(const float *d, const float *x, int64_t rows, int64_t e, int64_t begin,
                                int64_t end, float *weight, float *bias) {
    if (begin >= end)
        return;
    if (weight)
        gd_gemm_strided(true, false, end - begin, e, rows, d + begin, e, x, e, weight + begin * e, e, true);
    for (int64_t r = 0; bias && r < rows; r++)
        for (int64_t k = begin; k < end; k++)
            bias[k] += d[r * e + k];
}

static int64_t clamp(int64_t value, int64_t most) {
    return value < 0 ? 0 : value < most ? value : most;
}

/* The row of out_proj.weight at which a third of in_proj_weight's rows has gone by, in whole blocks: a
 * product of fewer rows would copy its other operand for little. */
static int64_t out_row(int64_t in_row, int64_t e) {
    const int64_t blocks = (in_row / 3 + GD_PARAM_ROWS - 1) / GD_PARAM_ROWS;
    return clamp(blocks * GD_PARAM_ROWS, e);
}

/* Rows begin ... end - 1 of in_proj_weight: parts of q, k and v; and now and then a block of out_proj.weight.
 */
static void attention_backward_params(const gd_call *call) {
    const struct attention *a = call->attrs;
    const int64_t e = a->embed_dim, n = call->inputs[0].shape.dim[0], t = call->inputs[0].shape.dim[1];
    const int64_t s = call->inputs[call->input_count > 1 ? 1 : 0].shape.dim[1];
    const int out = out_weight(call);
    float *weight = call->param_grads[0].data, *bias = a->bias ? call->param_grads[1].data : NULL;
    for (int i = 0; i < 3; i++)
        add_linear_gradient(call->saved[DQ + i].data, input_of(call, i, 0), n * (i ? s : t), e,
                            clamp(call->begin - i * e, e), clamp(call->end - i * e, e),
                            weight ? weight + i * e * e : NULL, bias ? bias + i * e : NULL);
    add_linear_gradient(call->output_grads[0].data, call->saved[CONTEXT].data, n * t, e,
                        out_row(call->begin, e), out_row(call->end, e), call->param_grads[out].data,
                        a->bias ? call->param_grads[out + 1].data : NULL);
}

/* torch prints the projection it holds, whose size shows embed_dim. */
static bool attention_children(FILE *out, const void *attrs, int indent) {
    const struct attention *a = attrs;
    fprintf(out,
            "\n%*s(out_proj): NonDynamicallyQuantizableLinear(in_features=%" PRId64 ", out_features=%" PRId64
            ", bias=%s)",
            indent, "", a->embed_dim, a->embed_dim, a->bias ? "True" : "False");
    return true;
}

const gd_op gd_op_attention = {
    .kind = {.module = "MultiheadAttention",
             .function = "multi_head_attention",
             .doc = "Attention of queries to keys and values, several heads side by side.",
             GD_ATTRS(struct attention, attention_attrs),
             GD_PARAMS(attention_params)},
    .min_inputs = 1,
    .max_inputs = 4,
    .index_inputs = 1 << 3,
    .flags = GD_BATCH | GD_RANDOM | GD_SAVES_INPUT,
    .infer = attention_infer,
    .forward = attention_forward,
    .backward = attention_backward,
    .backward_params = attention_backward_params,
    .repr_children = attention_children,
    .grad_name = "TransposeBackward0",
};
