/* rnn.c -- recurrent layers. Formulas: torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU; the first state is zero.
 *
 * Everything inside is time-major, (T, N, features). One (layer, direction) is a strand:
 *   a = x W_ih^T + b_ih
 *   RNN   h = tanh or relu(a + h' W_hh^T + b_hh)
 *   LSTM  i, f, g, o = sigmoid, sigmoid, tanh, sigmoid(a + h' W_hh^T + b_hh); c = f c' + i g;
 *         h = o tanh(c), with proj_size times W_hr^T
 *   GRU   r, z = sigmoid(a + u), n = tanh(a_n + r u_n), u = h' W_hh^T + b_hh; h = (1 - z) n + z h'
 * h', c' being those of the time before (after it, in the reverse direction). Samples are independent, so
 * the steps are shared out in blocks of samples; weights' gradients are products over stretches of times,
 * while the gates' gradients are still in a near cache. */
#include <inttypes.h>

#include "engine/core/rng.h"
#include "engine/graph/op.h"
#include "engine/kernels/math.h"
#include "engine/kernels/product.h"

enum cell { CELL_RNN, CELL_LSTM, CELL_GRU };
enum {
    BLOCK = 16,   /* samples that take their steps together */
    ROWS = 64,    /* of dx that one thread makes at once */
    STRETCH = 256 /* times and samples whose gates' gradients are kept until weights have theirs from them */
};

struct rnn {
    int64_t input_size, hidden_size, num_layers, proj_size;
    bool bias, batch_first, bidirectional;
    double dropout;
    int nonlinearity;
};

static const char *const nonlinearities[] = {"tanh", "relu", NULL};

#define COMMON_ATTRS \
    GD_INT(struct rnn, input_size, .min = 1, .inferred = true, .doc = "features of the input"), \
        GD_INT(struct rnn, hidden_size, .min = 1, .required = true, .doc = "features of the state"), \
        GD_INT(struct rnn, num_layers, .min = 1, .max = 8, .number = 1, .doc = "layers, one on another"), \
        GD_BOOL(struct rnn, bias, .number = 1, .doc = "learnable biases"), \
        GD_BOOL(struct rnn, batch_first, .doc = "the input is (N, T, features), else (T, N, features)"), \
        GD_FLOAT(struct rnn, dropout, .min = 0, .max = 1, .doc = "dropout between layers, in training"), \
        GD_BOOL(struct rnn, bidirectional, .doc = "one more strand that goes backwards in time")

static const gd_attr rnn_attrs[] = {
    COMMON_ATTRS,
    GD_CHOICE(struct rnn, nonlinearity, .choices = nonlinearities, .doc = "of the state"),
};
static const gd_attr lstm_attrs[] = {
    COMMON_ATTRS,
    GD_INT(struct rnn, proj_size, .min = 0, .doc = "features that the state is projected to; 0: none"),
};
static const gd_attr gru_attrs[] = {COMMON_ATTRS};

static const gd_param_decl rnn_params[] = {
    {.name = "weight_ih",
     .init = GD_INIT_UNIFORM,
     .doc = "(gates * hidden_size, features of the layer's input)"},
    {.name = "weight_hh", .init = GD_INIT_UNIFORM, .doc = "(gates * hidden_size, features of the output)"},
    {.name = "bias_ih", .init = GD_INIT_UNIFORM, .doc = "(gates * hidden_size)"},
    {.name = "bias_hh", .init = GD_INIT_UNIFORM, .doc = "(gates * hidden_size)"},
    {.name = "weight_hr", .init = GD_INIT_UNIFORM, .doc = "(proj_size, hidden_size)"},
};
enum { WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH, WEIGHT_HR };

/* ---- sizes --------------------------------------------------------------------------------------- */

/* Everything that follows from attributes and the input's shape. */
typedef struct plan {
    const struct rnn *a;
    enum cell cell;
    int64_t times, batch, features;
    int64_t directions, hidden, out, gates; /* gates: per strand, times hidden */
    int64_t width;                          /* of a layer's output: directions * out */
    int64_t kept;                           /* floats a strand keeps of each time and sample */
    int64_t ahead;   /* times that are projected at once: one, but of few samples more */
    int64_t stretch; /* times that go back at once */
    /* Offsets in floats: the input, then each layer's output, dropped-out output and strands. */
    int64_t layer_floats, strand_floats, state_floats;
} plan;

static plan plan_of(const struct rnn *a, enum cell cell, const gd_shape *x) {
    plan p = {.a = a, .cell = cell};
    p.times = x->dim[a->batch_first ? 1 : 0];
    p.batch = x->dim[a->batch_first ? 0 : 1];
    p.features = x->dim[2];
    p.directions = a->bidirectional ? 2 : 1;
    p.hidden = a->hidden_size;
    p.out = a->proj_size ? a->proj_size : a->hidden_size;
    p.width = p.directions * p.out;
    p.gates = p.hidden * (cell == CELL_LSTM ? 4 : cell == CELL_GRU ? 3 : 1);
    /* LSTM: four gates, c, and with a projection h before it; GRU: r, z, n and u_n; RNN: nothing. */
    p.kept = p.hidden * (cell == CELL_LSTM ? 5 + (a->proj_size > 0) : cell == CELL_GRU ? 4 : 0);
    p.ahead = gd_smaller(p.times, gd_ceil_div(BLOCK, p.batch));
    p.stretch = gd_smaller(p.times, gd_ceil_div(STRETCH, p.batch));
    const int64_t rows = p.times * p.batch;
    p.strand_floats = rows * p.kept;
    p.layer_floats = rows * p.width * (a->dropout > 0 ? 2 : 1) + p.directions * p.strand_floats;
    p.state_floats = rows * p.features + a->num_layers * p.layer_floats;
    return p;
}

static int64_t input_features(const plan *p, int64_t layer) {
    return layer ? p->width : p->features;
}

static float *layer_output(const plan *p, float *state, int64_t layer) {
    return state + p->times * p->batch * p->features + layer * p->layer_floats;
}

/* What a layer reads: the input, or what the layer below gave (and dropout left of it). */
static float *layer_input(const plan *p, float *state, int64_t layer) {
    if (layer == 0)
        return state;
    return layer_output(p, state, layer - 1) + (p->a->dropout > 0 ? p->times * p->batch * p->width : 0);
}

static float *strand_state(const plan *p, float *state, int64_t layer, int64_t direction) {
    return layer_output(p, state, layer) + p->times * p->batch * p->width * (p->a->dropout > 0 ? 2 : 1) +
           direction * p->strand_floats;
}

/* Index of a strand's parameter among the op's. */
static int64_t param_index(const plan *p, int64_t layer, int64_t direction, int which) {
    const int64_t each = 2 + 2 * p->a->bias + (p->a->proj_size > 0);
    const int64_t place = which == WEIGHT_HR ? each - 1 : which;
    return (layer * p->directions + direction) * each + place;
}

static void declare_strand(gd_infer *infer, const plan *p, int64_t layer, int64_t direction) {
    const gd_shape shapes[] = {GD_SHAPE(p->gates, input_features(p, layer)), GD_SHAPE(p->gates, p->out),
                               GD_SHAPE(p->gates), GD_SHAPE(p->gates), GD_SHAPE(p->out, p->hidden)};
    for (int k = WEIGHT_IH; k <= WEIGHT_HR; k++) {
        if ((k == WEIGHT_HR && !p->a->proj_size) || ((k == BIAS_IH || k == BIAS_HH) && !p->a->bias))
            continue;
        gd_infer_param *param = gd_infer_param_add(infer, k, shapes[k]);
        param->value = 1 / sqrt((double)p->hidden);
        snprintf(param->name, sizeof param->name, "%s_l%" PRId64 "%s", rnn_params[k].name, layer,
                 direction ? "_reverse" : "");
    }
}

static int check_input(gd_infer *infer, struct rnn *a) {
    char text[128];
    const gd_shape *x = &infer->inputs[0];
    if (x->rank != 3)
        return gd_fail(infer->error, GD_E_SHAPE, "wants samples of [T, features], got %s",
                       gd_sample_text(x, text, sizeof text));
    if (infer->input_axes[0] != (a->batch_first ? 0 : 1))
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "batch_first",
                             "batch_first is %s, but the batch is axis %d of the input; %s",
                             a->batch_first ? "true" : "false", infer->input_axes[0],
                             a->batch_first ? "permute it to the front" : "use batch_first: true");
    if (a->input_size == 0)
        a->input_size = x->dim[2];
    if (a->input_size != x->dim[2])
        return gd_fail_field(infer->error, GD_E_SHAPE, "input_size",
                             "input_size is %" PRId64 ", but the input's last axis has %" PRId64,
                             a->input_size, x->dim[2]);
    if (a->proj_size >= a->hidden_size)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "proj_size",
                             "proj_size (%" PRId64 ") must be smaller than hidden_size (%" PRId64 ")",
                             a->proj_size, a->hidden_size);
    return 0;
}

static int infer_cell(gd_infer *infer, enum cell cell) {
    struct rnn *a = infer->attrs;
    int code = check_input(infer, a);
    if (code)
        return code;
    const gd_shape *x = &infer->inputs[0];
    /* The largest product below, checked before it is made: everything a strand keeps, for all strands. */
    const gd_shape bound = GD_SHAPE(x->dim[0], x->dim[1], 16 * 2 * a->num_layers, a->hidden_size + x->dim[2]);
    size_t bytes;
    if ((code = gd_shape_bytes(&bound, GD_FLOAT32, &bytes, infer->error)))
        return code;
    const plan p = plan_of(a, cell, x);
    infer->outputs[0] =
        a->batch_first ? GD_SHAPE(p.batch, p.times, p.width) : GD_SHAPE(p.times, p.batch, p.width);
    infer->outputs[1] = GD_SHAPE(a->num_layers * p.directions, p.batch, p.out);
    infer->outputs[2] = GD_SHAPE(a->num_layers * p.directions, p.batch, p.hidden);
    infer->axes[0] = a->batch_first ? 0 : 1;
    infer->axes[1] = infer->axes[2] = 1;
    for (int64_t layer = 0; layer < a->num_layers; layer++)
        for (int64_t d = 0; d < p.directions; d++)
            declare_strand(infer, &p, layer, d);
    const int64_t rows = p.times * p.batch;
    infer->saved[0] = (gd_tensor){.dtype = GD_FLOAT32, .shape = GD_SHAPE(p.state_floats)};
    infer->saved_count = 1;
    /* Forward: gates before activation, h' W_hh^T, both biases, in predict all the state, and W_ih and W_hh
     * packed. */
    const int64_t widest = p.width > p.features ? p.width : p.features;
    infer->workspace = sizeof(float) * (size_t)((p.ahead + 1) * p.batch * p.gates + p.gates + p.state_floats +
                                                gd_packed_floats(widest + p.out, p.gates));
    /* Backward: gradients of a layer's output and input, of the gates (twice, for GRU's two paths), of the
     * state at one time (h, c, and h before the projection), and W_ih and W_hh packed. */
    infer->backward_workspace =
        sizeof(float) *
        (size_t)(rows * 2 * widest + p.batch * (2 * p.stretch * p.gates + p.out + 2 * p.hidden) +
                 gd_packed_floats(p.gates, p.out) + gd_packed_floats(p.gates, widest));
    return 0;
}

/* ---- forward ------------------------------------------------------------------------------------- */

/* One strand on its way through time. */
typedef struct strand {
    const plan *p;
    const gd_call *call;
    float *state;
    int64_t layer, direction;
    int64_t from, to; /* times that are on their way */
    float *a;         /* (to - from, N, gates): forward, before activation; backward, gradients of that */
    float *u;         /* forward: (N, gates) for GRU; backward: as a, gradients of u */
    float *bias;      /* forward: (gates), what a begins as */
    float *dy;        /* backward: (T, N, width) */
    float *dh, *dc;   /* backward: (N, out), (N, hidden) */
    float *draw;      /* backward: (N, hidden), gradient of h before the projection */
    float *dx;        /* backward: (T, N, features) */
    float *packed_ih, *packed_hh; /* forward: W_ih^T, W_hh^T; backward: W_ih, W_hh */
} strand;

static const float *parameter(const strand *s, int which) {
    return s->call->params[param_index(s->p, s->layer, s->direction, which)].data;
}

/* The time that comes before t on this strand's way; -1: none. */
static int64_t previous(const strand *s, int64_t t) {
    const int64_t before = s->direction ? t + 1 : t - 1;
    return before < s->p->times ? before : -1;
}

/* h of a time and sample: a row of the layer's output. */
static float *h_at(const strand *s, int64_t t, int64_t n) {
    return layer_output(s->p, s->state, s->layer) + (t * s->p->batch + n) * s->p->width +
           s->direction * s->p->out;
}

static float *kept_at(const strand *s, int64_t t, int64_t n) {
    return strand_state(s->p, s->state, s->layer, s->direction) + (t * s->p->batch + n) * s->p->kept;
}

/* A row of the gates on their way. */
static float *gates_at(const strand *s, float *gates, int64_t t, int64_t n) {
    return gates + ((t - s->from) * s->p->batch + n) * s->p->gates;
}

static void lstm_cell(const strand *s, int64_t t, int64_t n, float *a) {
    const int64_t h = s->p->hidden, before = previous(s, t);
    float *kept = kept_at(s, t, n), *c = kept + 4 * h;
    float *out = s->p->a->proj_size ? kept + 5 * h : h_at(s, t, n);
    const float *c_before = before < 0 ? c : kept_at(s, before, n) + 4 * h;
    if (before < 0)
        memset(c, 0, (size_t)h * sizeof *c);
#pragma omp simd
    for (int64_t k = 0; k < h; k++) {
        const float i = gd_sigmoid(a[k]), f = gd_sigmoid(a[h + k]);
        const float g = gd_tanh(a[2 * h + k]), o = gd_sigmoid(a[3 * h + k]), sum = i * g + f * c_before[k];
        kept[k] = i;
        kept[h + k] = f;
        kept[2 * h + k] = g;
        kept[3 * h + k] = o;
        c[k] = sum;
        out[k] = o * gd_tanh(sum);
    }
}

static void gru_cell(const strand *s, int64_t t, int64_t n, const float *a, const float *u) {
    const int64_t h = s->p->hidden, before = previous(s, t);
    float *kept = kept_at(s, t, n), *out = h_at(s, t, n);
    const float *h_before = before < 0 ? out : h_at(s, before, n);
    if (before < 0)
        memset(out, 0, (size_t)h * sizeof *out);
#pragma omp simd
    for (int64_t k = 0; k < h; k++) {
        const float r = gd_sigmoid(a[k] + u[k]), z = gd_sigmoid(a[h + k] + u[h + k]);
        const float c = gd_tanh(a[2 * h + k] + r * u[2 * h + k]), sum = (1 - z) * c + z * h_before[k];
        kept[k] = r;
        kept[h + k] = z;
        kept[2 * h + k] = c;
        kept[3 * h + k] = u[2 * h + k];
        out[k] = sum;
    }
}

static void rnn_cell(const strand *s, int64_t t, int64_t n, const float *a) {
    float *out = h_at(s, t, n);
    const bool relu = s->p->a->nonlinearity;
#pragma omp simd
    for (int64_t k = 0; k < s->p->hidden; k++)
        out[k] = !relu ? gd_tanh(a[k]) : a[k] <= 0 ? 0 : a[k];
}

/* What the time before adds: to a, or for GRU apart, u. */
static void recur(const strand *s, int64_t t, int64_t first, int64_t count) {
    const plan *p = s->p;
    const int64_t before = previous(s, t);
    const bool apart = p->cell == CELL_GRU;
    const float *bias = apart && p->a->bias ? parameter(s, BIAS_HH) : NULL;
    float *sum = apart ? s->u + first * p->gates : gates_at(s, s->a, t, first);
    if (before >= 0)
        gd_product_packed(count, p->gates, p->out, (gd_operand){h_at(s, before, first), p->width, 1},
                          s->packed_hh, bias, sum, p->gates, !apart);
    for (int64_t i = 0; apart && before < 0 && i < count * p->gates; i++)
        sum[i] = bias ? bias[i % p->gates] : 0;
}

/* One time step of samples first ... first + count - 1. */
static void forward_step(const strand *s, int64_t t, int64_t first, int64_t count) {
    const plan *p = s->p;
    recur(s, t, first, count);
    for (int64_t n = first; n < first + count; n++) {
        float *a = gates_at(s, s->a, t, n);
        if (p->cell == CELL_LSTM)
            lstm_cell(s, t, n, a);
        else if (p->cell == CELL_GRU)
            gru_cell(s, t, n, a, s->u + n * p->gates);
        else
            rnn_cell(s, t, n, a);
    }
    if (p->a->proj_size)
        gd_product_transposed(p->out, count, p->hidden, (gd_operand){parameter(s, WEIGHT_HR), p->hidden, 1},
                              (gd_operand){kept_at(s, t, first) + 5 * p->hidden, 1, p->kept}, NULL, false,
                              h_at(s, t, first), p->width);
}

static int64_t blocks_of(const plan *p) {
    return gd_ceil_div(p->batch, BLOCK);
}

static int64_t block_size(const plan *p, int64_t block) {
    return gd_smaller(BLOCK, p->batch - block * BLOCK);
}

/* The i-th stretch of at most `count` times on the strand's way. */
static void set_stretch(strand *s, int64_t i, int64_t count) {
    const int64_t times = s->p->times, begin = i * count, end = gd_smaller(begin + count, times);
    s->from = s->direction ? times - end : begin;
    s->to = s->direction ? times - begin : end;
}

/* Time i of a stretch on the strand's way. */
static int64_t time_at(const strand *s, int64_t i) {
    return s->direction ? s->to - 1 - i : s->from + i;
}

/* a = x W_ih^T + bias: where several times are ahead, the block is all samples and rows follow one another.
 */
static void project(const strand *s, int64_t first, int64_t count) {
    const plan *p = s->p;
    const int64_t features = input_features(p, s->layer);
    const float *x = layer_input(p, s->state, s->layer) + (s->from * p->batch + first) * features;
    gd_product_packed((s->to - s->from) * count, p->gates, features, (gd_operand){x, features, 1},
                      s->packed_ih, p->a->bias ? s->bias : NULL, gates_at(s, s->a, s->from, first), p->gates,
                      false);
}

static void forward_block(void *context, int64_t block, int slot) {
    (void)slot;
    strand s = *(const strand *)context;
    const int64_t first = block * BLOCK, count = block_size(s.p, block);
    for (int64_t i = 0; i < gd_ceil_div(s.p->times, s.p->ahead); i++) {
        set_stretch(&s, i, s.p->ahead);
        project(&s, first, count);
        for (int64_t j = 0; j < s.to - s.from; j++)
            forward_step(&s, time_at(&s, j), first, count);
    }
}

/* Weights packed; and the sum of both biases, unless GRU's second goes another way. */
static void prepare_forward(const strand *s) {
    const plan *p = s->p;
    const int64_t features = input_features(p, s->layer);
    gd_product_pack(features, p->gates, (gd_operand){parameter(s, WEIGHT_IH), 1, features}, s->packed_ih);
    gd_product_pack(p->out, p->gates, (gd_operand){parameter(s, WEIGHT_HH), 1, p->out}, s->packed_hh);
    if (!p->a->bias)
        return;
    const float *ih = parameter(s, BIAS_IH), *hh = parameter(s, BIAS_HH);
    for (int64_t k = 0; k < p->gates; k++)
        s->bias[k] = ih[k] + (p->cell == CELL_GRU ? 0 : hh[k]);
}

/* From or to time-major: rows of `features` floats of (N, T) or (T, N). */
static void copy_rows(const plan *p, const float *from, float *to, int64_t features, bool to_time_major) {
    const int64_t batch_step = p->a->batch_first ? p->times : 1, time_step = p->a->batch_first ? 1 : p->batch;
    for (int64_t t = 0; t < p->times; t++)
        for (int64_t n = 0; n < p->batch; n++) {
            const int64_t inside = (t * p->batch + n) * features;
            const int64_t outside = (n * batch_step + t * time_step) * features;
            memcpy(to + (to_time_major ? inside : outside), from + (to_time_major ? outside : inside),
                   (size_t)features * sizeof *to);
        }
}

/* A layer's output as the next one reads it; what is dropped is zero, the rest made up for it. */
static void drop(const plan *p, const gd_call *call, float *state, int64_t layer) {
    const float *y = layer_output(p, state, layer);
    float *x = layer_input(p, state, layer + 1);
    const int64_t count = p->times * p->batch * p->width;
    const bool active = call->training;
    const float keep = (float)(1 - p->a->dropout);
    for (int64_t i = 0; i < count; i++)
        x[i] = !active ? y[i] : gd_rng_double(call->rng) < 1 - p->a->dropout ? y[i] / keep : 0;
}

/* The last state of each strand: h, and for LSTM c. */
static void write_last(const plan *p, const gd_call *call, const strand *s, int outputs) {
    const int64_t t = s->direction ? 0 : p->times - 1, row = s->layer * p->directions + s->direction;
    for (int64_t n = 0; n < p->batch; n++) {
        memcpy((float *)call->outputs[1].data + (row * p->batch + n) * p->out, h_at(s, t, n),
               (size_t)p->out * sizeof(float));
        if (outputs == 3)
            memcpy((float *)call->outputs[2].data + (row * p->batch + n) * p->hidden,
                   kept_at(s, t, n) + 4 * p->hidden, (size_t)p->hidden * sizeof(float));
    }
}

static void forward_cell(const gd_call *call, enum cell cell) {
    const plan p = plan_of(call->attrs, cell, &call->inputs[0].shape);
    float *a = call->workspace, *u = a + p.ahead * p.batch * p.gates, *bias = u + p.batch * p.gates;
    float *packed_hh = bias + p.gates, *packed_ih = packed_hh + gd_packed_floats(p.out, p.gates);
    const int64_t widest = p.width > p.features ? p.width : p.features;
    float *spare = packed_ih + gd_packed_floats(widest, p.gates);
    float *state = call->saved[0].data ? call->saved[0].data : spare;
    copy_rows(&p, call->inputs[0].data, state, p.features, true);
    for (int64_t layer = 0; layer < p.a->num_layers; layer++) {
        for (int64_t d = 0; d < p.directions; d++) {
            strand s = {.p = &p,
                        .call = call,
                        .state = state,
                        .layer = layer,
                        .direction = d,
                        .a = a,
                        .u = u,
                        .bias = bias,
                        .packed_ih = packed_ih,
                        .packed_hh = packed_hh};
            prepare_forward(&s);
            gd_parallel_for(call->pool, blocks_of(&p), forward_block, &s);
            write_last(&p, call, &s, cell == CELL_LSTM ? 3 : 2);
        }
        if (p.a->dropout > 0 && layer + 1 < p.a->num_layers)
            drop(&p, call, state, layer);
    }
    copy_rows(&p, layer_output(&p, state, p.a->num_layers - 1), call->outputs[0].data, p.width, false);
}

/* ---- backward ------------------------------------------------------------------------------------ */

/* Gradients of the gates before activation, from dh (and dc, which becomes that of the time before). */
static void lstm_cell_backward(const strand *s, int64_t t, int64_t n, const float *dh, float *dc, float *da) {
    const int64_t h = s->p->hidden, before = previous(s, t);
    const float *kept = kept_at(s, t, n), *c = kept + 4 * h;
    const float *c_before = before < 0 ? c : kept_at(s, before, n) + 4 * h;
    const float any = before < 0 ? 0 : 1;
#pragma omp simd
    for (int64_t k = 0; k < h; k++) {
        const float i = kept[k], f = kept[h + k], g = kept[2 * h + k], o = kept[3 * h + k];
        const float y = gd_tanh(c[k]), d = dc[k] + dh[k] * o * (1 - y * y);
        da[k] = d * g * i * (1 - i);
        da[h + k] = any * d * c_before[k] * f * (1 - f);
        da[2 * h + k] = d * i * (1 - g * g);
        da[3 * h + k] = dh[k] * y * o * (1 - o);
        dc[k] = d * f;
    }
}

/* As above; du differs from da where r stands between. dh becomes what passes straight to h'. */
static void gru_cell_backward(const strand *s, int64_t t, int64_t n, float *dh, float *da, float *du) {
    const int64_t h = s->p->hidden, before = previous(s, t);
    const float *kept = kept_at(s, t, n), *h_before = h_at(s, before < 0 ? t : before, n);
    const float any = before < 0 ? 0 : 1;
#pragma omp simd
    for (int64_t k = 0; k < h; k++) {
        const float r = kept[k], z = kept[h + k], c = kept[2 * h + k], u = kept[3 * h + k];
        const float dn = dh[k] * (1 - z) * (1 - c * c);
        da[k] = du[k] = dn * u * r * (1 - r);
        da[h + k] = du[h + k] = dh[k] * (any * h_before[k] - c) * z * (1 - z);
        da[2 * h + k] = dn;
        du[2 * h + k] = dn * r;
        dh[k] *= z;
    }
}

static void rnn_cell_backward(const strand *s, int64_t t, int64_t n, const float *dh, float *da) {
    const float *y = h_at(s, t, n);
    const bool relu = s->p->a->nonlinearity;
    for (int64_t k = 0; k < s->p->hidden; k++)
        da[k] = dh[k] * (!relu ? 1 - y[k] * y[k] : y[k] <= 0 ? 0 : 1);
}

static void backward_step(const strand *s, int64_t t, int64_t first, int64_t count) {
    const plan *p = s->p;
    const int64_t h = p->hidden;
    for (int64_t n = first; n < first + count; n++) { /* what the layer's output brings */
        const float *dy = s->dy + (t * p->batch + n) * p->width + s->direction * p->out;
        for (int64_t k = 0; k < p->out; k++)
            s->dh[n * p->out + k] += dy[k];
    }
    if (p->a->proj_size) {
        float *draw = s->draw + first * h;
        gd_product(count, h, p->out, (gd_operand){s->dh + first * p->out, p->out, 1},
                   (gd_operand){parameter(s, WEIGHT_HR), h, 1}, draw, h, false);
        /* dy of this time now holds all that came to h: W_hr's gradient needs it. */
        for (int64_t n = first; n < first + count; n++)
            memcpy(s->dy + (t * p->batch + n) * p->width + s->direction * p->out, s->dh + n * p->out,
                   (size_t)p->out * sizeof(float));
    }
    for (int64_t n = first; n < first + count; n++) {
        float *da = gates_at(s, s->a, t, n), *dh = p->a->proj_size ? s->draw + n * h : s->dh + n * p->out;
        if (p->cell == CELL_LSTM)
            lstm_cell_backward(s, t, n, dh, s->dc + n * h, da);
        else if (p->cell == CELL_GRU)
            gru_cell_backward(s, t, n, dh, da, gates_at(s, s->u, t, n));
        else
            rnn_cell_backward(s, t, n, dh, da);
    }
    gd_product_packed(count, p->out, p->gates, (gd_operand){gates_at(s, s->u, t, first), p->gates, 1},
                      s->packed_hh, NULL, s->dh + first * p->out, p->out, p->cell == CELL_GRU);
}

/* The gradient of the last state, where somebody uses it. */
static void start_backward(const strand *s) {
    const plan *p = s->p;
    const int64_t at = (s->layer * p->directions + s->direction) * p->batch;
    const float *dh = s->call->output_grads[1].data;
    const float *dc = p->cell == CELL_LSTM ? s->call->output_grads[2].data : NULL;
    for (int64_t i = 0; i < p->batch * p->out; i++)
        s->dh[i] = dh ? dh[at * p->out + i] : 0;
    for (int64_t i = 0; i < p->batch * p->hidden; i++)
        s->dc[i] = dc ? dc[at * p->hidden + i] : 0;
}

/* A block of samples through a stretch of times. */
static void backward_block(void *context, int64_t block, int slot) {
    (void)slot;
    const strand *s = context;
    for (int64_t i = s->to - s->from - 1; i >= 0; i--)
        backward_step(s, time_at(s, i), block * BLOCK, block_size(s->p, block));
}

static float *gradient(const strand *s, int which) {
    return s->call->param_grads[param_index(s->p, s->layer, s->direction, which)].data;
}

/* Sums over a stretch of columns begin ... end - 1, added to one gradient or two; NULL: not wanted. */
static void add_column_sums(const strand *s, const float *gates, int64_t begin, int64_t end, float *one,
                            float *two) {
    float sums[GD_MOST_PARAM_ROWS] = {0};
    const int64_t rows = (s->to - s->from) * s->p->batch;
    for (int64_t r = 0; (one || two) && r < rows; r++)
        for (int64_t k = begin; k < end; k++)
            sums[k - begin] += gates[r * s->p->gates + k];
    for (int64_t k = begin; k < end; k++) {
        if (one)
            one[k] += sums[k - begin];
        if (two)
            two[k] += sums[k - begin];
    }
}

static void bias_rows(const strand *s, int64_t begin, int64_t end) {
    float *ih = gradient(s, BIAS_IH), *hh = gradient(s, BIAS_HH);
    const bool same = s->a == s->u;
    add_column_sums(s, s->a, begin, end, ih, same ? hh : NULL);
    if (!same)
        add_column_sums(s, s->u, begin, end, hh, NULL);
}

/* Gates at a time: each block packs x and h anew, so of many gates there are few blocks. */
static int64_t gates_at_once(const plan *p) {
    enum { BLOCKS = 4 };
    return gd_smaller(gd_ceil_div(p->gates, BLOCKS * GD_PARAM_ROWS) * GD_PARAM_ROWS, GD_MOST_PARAM_ROWS);
}

/* dW += gradients^T values of a stretch, for some gates. */
static void weight_rows(const strand *s, int64_t block) {
    const plan *p = s->p;
    const int64_t begin = block * gates_at_once(p), end = gd_smaller(begin + gates_at_once(p), p->gates);
    const int64_t features = input_features(p, s->layer);
    /* All times but the strand's first have an h before them. */
    const int64_t from = s->direction || s->from ? s->from : 1;
    const int64_t to = s->direction && s->to == p->times ? s->to - 1 : s->to;
    float *dw_ih = gradient(s, WEIGHT_IH), *dw_hh = gradient(s, WEIGHT_HH);
    if (dw_ih)
        gd_product(
            end - begin, features, (s->to - s->from) * p->batch, (gd_operand){s->a + begin, 1, p->gates},
            (gd_operand){layer_input(p, s->state, s->layer) + s->from * p->batch * features, features, 1},
            dw_ih + begin * features, features, true);
    if (dw_hh && from < to)
        gd_product(end - begin, p->out, (to - from) * p->batch,
                   (gd_operand){gates_at(s, s->u, from, 0) + begin, 1, p->gates},
                   (gd_operand){h_at(s, previous(s, from), 0), p->width, 1}, dw_hh + begin * p->out, p->out,
                   true);
    if (p->a->bias)
        bias_rows(s, begin, end);
}

/* dW_hr += (gradient of h)^T (h before the projection) */
static void projection_gradient(const strand *s) {
    const plan *p = s->p;
    float *dw = p->a->proj_size ? gradient(s, WEIGHT_HR) : NULL;
    if (dw)
        gd_product(p->out, p->hidden, p->times * p->batch,
                   (gd_operand){s->dy + s->direction * p->out, 1, p->width},
                   (gd_operand){kept_at(s, 0, 0) + 5 * p->hidden, p->kept, 1}, dw, p->hidden, true);
}

/* dx = da W_ih for some rows of a stretch; the second direction adds to the first. */
static void input_rows(const strand *s, int64_t block) {
    const plan *p = s->p;
    const int64_t features = input_features(p, s->layer), first = block * ROWS;
    gd_product_packed(gd_smaller(ROWS, (s->to - s->from) * p->batch - first), features, p->gates,
                      (gd_operand){s->a + first * p->gates, p->gates, 1}, s->packed_ih, NULL,
                      s->dx + (s->from * p->batch + first) * features, features, s->direction > 0);
}

static void weights_or_input(void *context, int64_t index, int slot) {
    (void)slot;
    const strand *s = context;
    const int64_t blocks = gd_ceil_div(s->p->gates, gates_at_once(s->p));
    if (index < blocks)
        weight_rows(s, index);
    else
        input_rows(s, index - blocks);
}

static void backward_strand(strand *s) {
    const plan *p = s->p;
    const int64_t features = input_features(p, s->layer);
    gd_product_pack(p->gates, features, (gd_operand){parameter(s, WEIGHT_IH), features, 1}, s->packed_ih);
    gd_product_pack(p->gates, p->out, (gd_operand){parameter(s, WEIGHT_HH), p->out, 1}, s->packed_hh);
    start_backward(s);
    for (int64_t i = gd_ceil_div(p->times, p->stretch) - 1; i >= 0; i--) {
        set_stretch(s, i, p->stretch);
        gd_parallel_for(s->call->pool, blocks_of(p), backward_block, s);
        gd_parallel_for(s->call->pool,
                        gd_ceil_div(p->gates, gates_at_once(p)) +
                            gd_ceil_div((s->to - s->from) * p->batch, ROWS),
                        weights_or_input, s);
    }
    projection_gradient(s);
}

/* What dropout let through lets its gradient through. */
static void undrop(const plan *p, const gd_call *call, float *state, int64_t layer, float *dx) {
    const float *x = layer_input(p, state, layer), *y = layer_output(p, state, layer - 1);
    const float keep = (float)(1 - p->a->dropout);
    for (int64_t i = 0; call->training && i < p->times * p->batch * p->width; i++)
        dx[i] = keep == 0 || (x[i] == 0 && y[i] != 0) ? 0 : dx[i] / keep;
}

static void backward_cell(const gd_call *call, enum cell cell) {
    const plan p = plan_of(call->attrs, cell, &call->inputs[0].shape);
    const int64_t rows = p.times * p.batch, widest = p.width > p.features ? p.width : p.features;
    const int64_t floats = p.stretch * p.batch * p.gates;
    float *state = call->saved[0].data, *dy = call->workspace, *dx = dy + rows * widest;
    float *da = dx + rows * widest, *du = cell == CELL_GRU ? da + floats : da;
    float *dh = da + 2 * floats, *dc = dh + p.batch * p.out, *draw = dc + p.batch * p.hidden;
    float *packed_hh = draw + p.batch * p.hidden, *packed_ih = packed_hh + gd_packed_floats(p.gates, p.out);
    if (call->output_grads[0].data)
        copy_rows(&p, call->output_grads[0].data, dy, p.width, true);
    else
        memset(dy, 0, (size_t)(rows * p.width) * sizeof *dy);
    for (int64_t layer = p.a->num_layers - 1; layer >= 0; layer--) {
        for (int64_t d = 0; d < p.directions; d++) {
            strand s = {.p = &p,
                        .call = call,
                        .state = state,
                        .layer = layer,
                        .direction = d,
                        .a = da,
                        .u = du,
                        .dy = dy,
                        .dh = dh,
                        .dc = dc,
                        .draw = draw,
                        .dx = dx,
                        .packed_ih = packed_ih,
                        .packed_hh = packed_hh};
            backward_strand(&s);
        }
        if (layer && p.a->dropout > 0)
            undrop(&p, call, state, layer, dx);
        float *swap = dy;
        dy = dx;
        dx = swap;
    }
    float *out = call->input_grads[0].data;
    if (!out)
        return;
    if (!call->accumulate[0]) {
        copy_rows(&p, dy, out, p.features, false);
        return;
    }
    copy_rows(&p, dy, dx, p.features, false);
    for (int64_t i = 0; i < rows * p.features; i++)
        out[i] += dx[i];
}

/* ---- descriptors --------------------------------------------------------------------------------- */

static void rnn_repr(FILE *out, const void *attrs) {
    const struct rnn *a = attrs;
    fprintf(out, "%" PRId64 ", %" PRId64, a->input_size, a->hidden_size);
    if (a->proj_size)
        fprintf(out, ", proj_size=%" PRId64, a->proj_size);
    if (a->num_layers != 1)
        fprintf(out, ", num_layers=%" PRId64, a->num_layers);
    if (!a->bias)
        fputs(", bias=False", out);
    if (a->batch_first)
        fputs(", batch_first=True", out);
    if (a->dropout > 0)
        fprintf(out, ", dropout=%g", a->dropout);
    if (a->bidirectional)
        fputs(", bidirectional=True", out);
}

/* torch unrolls time into its graph; here it is one node, of the name the unrolled output's has. */
static int rnn_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct rnn *a = attrs;
    (void)inputs;
    nodes[0] = (gd_grad_fn){a->batch_first     ? "TransposeBackward0"
                            : a->bidirectional ? "CatBackward0"
                                               : "StackBackward0",
                            {GD_NEXT_INPUT(0), GD_NEXT_PARAM(0), GD_NEXT_PARAM(1)},
                            3};
    return 1;
}

static int two_outputs(const void *attrs) {
    (void)attrs;
    return 2;
}

static int three_outputs(const void *attrs) {
    (void)attrs;
    return 3;
}

#define RECURRENT(name, NAME, text, table, count) \
    static int name##_infer(gd_infer *infer) { \
        return infer_cell(infer, CELL_##NAME); \
    } \
    static void name##_forward(const gd_call *call) { \
        forward_cell(call, CELL_##NAME); \
    } \
    static void name##_backward(const gd_call *call) { \
        backward_cell(call, CELL_##NAME); \
    } \
    const gd_op gd_op_##name = { \
        .kind = {.module = #NAME, .doc = text, GD_ATTRS(struct rnn, table), GD_PARAMS(rnn_params)}, \
        .min_inputs = 1, \
        .max_inputs = 1, \
        .flags = GD_RANDOM, \
        .outputs = count, \
        .infer = name##_infer, \
        .forward = name##_forward, \
        .backward = name##_backward, \
        .repr = rnn_repr, \
        .grad_fn = rnn_grad_fn, \
    };

RECURRENT(rnn, RNN, "Elman layers over time; outputs: all states, the last ones.", rnn_attrs, two_outputs)
RECURRENT(lstm, LSTM, "Long short-term memory; outputs: all states, the last h, the last c.", lstm_attrs,
          three_outputs)
RECURRENT(gru, GRU, "Gated recurrent units; outputs: all states, the last ones.", gru_attrs, two_outputs)
