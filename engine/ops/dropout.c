/* dropout.c -- elements or channels left out at random in training; in eval mode the identity. Formulas:
 * torch.nn.Dropout, Dropout1d, Dropout2d, AlphaDropout.
 *
 * y = x scale + shift, with a scale and a shift for what is dropped and for what is kept. The draws are those
 * of torch on a CPU (where built without MKL): one uniform double each, kept where it is below 1 - p. */
#include "engine/core/rng.h"
#include "engine/graph/op.h"

struct dropout {
    double p;
    bool inplace;
};

static const gd_attr dropout_attrs[] = {
    GD_FLOAT(struct dropout, p, .number = 0.5, .min = 0, .max = 1, .doc = "how probable it is to be dropped"),
    GD_BOOL(struct dropout, inplace, .doc = "accepted as in torch; memory is shared where it can be"),
};

/* What is saved, one byte for each draw. */
enum { DROPPED, KEPT, UNTOUCHED /* eval mode */, STATES };

/* By state. */
typedef struct factors {
    float scale[STATES], shift[STATES];
} factors;

/* Kept: 1 / (1 - p), so that the mean stays. */
static factors dropout_factors(double p) {
    const float kept = p < 1 ? 1 / (float)(1 - p) : 0;
    return (factors){.scale = {0, kept, 1}};
}

/* Dropped elements become alpha', SELU's limit at minus infinity; then a x + b restores mean and variance:
 * a = ((1 - p) (1 + p alpha'^2))^-1/2, b = -a p alpha' (Klambauer et al. 2017). p = 1 gives 0, as in torch.
 */
static factors alpha_dropout_factors(double p) {
    const double alpha = -1.7580993408473766;
    if (p == 1)
        return (factors){.scale = {0, 0, 1}};
    const double a = 1 / sqrt((1 - p) * (1 + p * alpha * alpha));
    return (factors){.scale = {0, (float)a, 1},
                     .shift = {(float)(a * alpha * (1 - p)), (float)(-a * alpha * p), 0}};
}

/* ---- shapes ----------------------------------------------------------------------------------------- */

/* Random numbers are drawn in one order, so the batch comes whole; p = 0 draws none. */
static int infer_draws(gd_infer *infer, gd_shape draws) {
    infer->outputs[0] = infer->inputs[0];
    infer->whole_batch = ((const struct dropout *)infer->attrs)->p > 0;
    infer->saved[0] = (gd_tensor){.dtype = GD_UINT8, .shape = draws};
    infer->saved_count = infer->whole_batch;
    infer->view = !infer->whole_batch;
    return 0;
}

static int dropout_infer(gd_infer *infer) {
    return infer_draws(infer, infer->inputs[0]);
}

/* One draw for each channel of each sample. */
static int channels_infer(gd_infer *infer, int rank, const char *wanted) {
    const gd_shape *x = &infer->inputs[0];
    char text[128];
    if (x->rank != rank)
        return gd_fail(infer->error, GD_E_SHAPE, "wants samples of %s, got %s", wanted,
                       gd_sample_text(x, text, sizeof text));
    return infer_draws(infer, GD_SHAPE(x->dim[0], x->dim[1]));
}
static int dropout1d_infer(gd_infer *infer) {
    return channels_infer(infer, 3, "[C, L]");
}
static int dropout2d_infer(gd_infer *infer) {
    return channels_infer(infer, 4, "[C, H, W]");
}

/* ---- passes ----------------------------------------------------------------------------------------- */

/* p = 1 draws nothing, as in torch. */
static int draw_state(const gd_call *call, double p) {
    if (!call->training)
        return UNTOUCHED;
    return p < 1 && gd_rng_double(call->rng) < 1 - p ? KEPT : DROPPED;
}

/* y = x scale + shift, `inner` elements for each draw. y may be x. */
static void forward(const gd_call *call, const factors *f, int64_t inner) {
    const double p = ((const struct dropout *)call->attrs)->p;
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    uint8_t *states = call->saved[0].data;
    const int64_t count = gd_numel(&call->outputs[0].shape);
    if (p == 0) /* a view */
        return;
    for (int64_t at = 0, draw = 0; at < count; at += inner, draw++) {
        const int state = draw_state(call, p);
        const float scale = f->scale[state], shift = f->shift[state];
#pragma omp simd
        for (int64_t i = at; i < at + inner; i++)
            y[i] = x[i] * scale + shift;
        if (states)
            states[draw] = (uint8_t)state;
    }
}

/* dx = dy scale. dx may be dy. */
static void backward(const gd_call *call, const factors *f, int64_t inner) {
    const float *dy = call->output_grads[0].data;
    const uint8_t *states = call->saved[0].data; /* NULL: p is 0 */
    float *dx = call->input_grads[0].data;
    const int64_t count = dx ? gd_numel(&call->outputs[0].shape) : 0;
    const bool accumulate = call->accumulate[0];
    if (!states && dx == dy)
        return;
    if (!states)
        inner = count;
    for (int64_t at = 0, draw = 0; at < count; at += inner, draw++) {
        const float scale = f->scale[states ? states[draw] : UNTOUCHED];
#pragma omp simd
        for (int64_t i = at; i < at + inner; i++)
            dx[i] = (accumulate ? dx[i] : 0) + dy[i] * scale;
    }
}

static void dropout_forward(const gd_call *call) {
    const factors f = dropout_factors(((const struct dropout *)call->attrs)->p);
    forward(call, &f, 1);
}
static void dropout_backward(const gd_call *call) {
    const factors f = dropout_factors(((const struct dropout *)call->attrs)->p);
    backward(call, &f, 1);
}

static void channels_forward(const gd_call *call) {
    const factors f = dropout_factors(((const struct dropout *)call->attrs)->p);
    const gd_shape *x = &call->inputs[0].shape;
    forward(call, &f, gd_numel_of(x, 2, x->rank));
}
static void channels_backward(const gd_call *call) {
    const factors f = dropout_factors(((const struct dropout *)call->attrs)->p);
    const gd_shape *x = &call->inputs[0].shape;
    backward(call, &f, gd_numel_of(x, 2, x->rank));
}

static void alpha_dropout_forward(const gd_call *call) {
    const factors f = alpha_dropout_factors(((const struct dropout *)call->attrs)->p);
    forward(call, &f, 1);
}
static void alpha_dropout_backward(const gd_call *call) {
    const factors f = alpha_dropout_factors(((const struct dropout *)call->attrs)->p);
    backward(call, &f, 1);
}

/* ---- descriptors ------------------------------------------------------------------------------------ */

static void dropout_repr(FILE *out, const void *attrs) {
    const struct dropout *a = attrs;
    fputs("p=", out);
    gd_repr_float(out, a->p);
    fprintf(out, ", inplace=%s", a->inplace ? "True" : "False");
}

/* input * noise; nothing for p = 0 */
static int dropout_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)inputs;
    nodes[0] = (gd_grad_fn){"MulBackward0", {GD_NEXT_INPUT(0), GD_NEXT_NONE}, 2};
    return ((const struct dropout *)attrs)->p != 0;
}

/* input * noise + b; for p = 1 input * 0 */
static int alpha_dropout_grad_fn(const void *attrs, const gd_shape *inputs,
                                 gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const double p = ((const struct dropout *)attrs)->p;
    if (p == 0 || p == 1)
        return dropout_grad_fn(attrs, inputs, nodes);
    nodes[0] = (gd_grad_fn){"AddBackward0", {1, GD_NEXT_NONE}, 2};
    nodes[1] = (gd_grad_fn){"MulBackward0", {GD_NEXT_INPUT(0), GD_NEXT_NONE}, 2};
    return 2;
}

#define DROPOUT(NAME, MODULE, INFER, PASSES, GRAD_FN, DOC) \
    const gd_op gd_op_##NAME = {.kind = {.module = (MODULE), \
                                         .function = #NAME, \
                                         .doc = (DOC), \
                                         GD_ATTRS(struct dropout, dropout_attrs)}, \
                                .min_inputs = 1, \
                                .max_inputs = 1, \
                                .flags = GD_BATCH | GD_RANDOM | GD_INPLACE | GD_EVAL_IDENTITY, \
                                .infer = (INFER), \
                                .forward = PASSES##_forward, \
                                .backward = PASSES##_backward, \
                                .repr = dropout_repr, \
                                .grad_fn = (GRAD_FN)};

DROPOUT(dropout, "Dropout", dropout_infer, dropout, dropout_grad_fn,
        "Elements become 0 at random in training, the others 1 / (1 - p) times as large.")
DROPOUT(dropout1d, "Dropout1d", dropout1d_infer, channels, dropout_grad_fn,
        "Channels of (N, C, L) become 0 at random in training.")
DROPOUT(dropout2d, "Dropout2d", dropout2d_infer, channels, dropout_grad_fn,
        "Channels of (N, C, H, W) become 0 at random in training.")
DROPOUT(alpha_dropout, "AlphaDropout", dropout_infer, alpha_dropout, alpha_dropout_grad_fn,
        "Dropout that keeps mean 0 and variance 1, as after SELU, in training.")
