/* cross_entropy.c -- softmax and negative log likelihood in one. Formula: torch.nn.CrossEntropyLoss.
 *
 * Both kinds of target and label smoothing come to the same sum: every position i has a loss
 *   l_i = - sum_c k_ic log p_ic,
 * where p is the softmax over the classes (axis 1), and with smoothing e, C classes and weights w
 *   indices:       k_ic = w_c e / C + [c = y_i] (1 - e) w_y, or 0 everywhere if y_i is ignored
 *   probabilities: k_ic = w_c (t_ic (1 - e) + e / C).
 * The mean divides by the sum of w_y over positions that count, or for probabilities by their number. */
#include "engine/kernels/math.h"
#include "engine/kernels/softmax.h"
#include "engine/optim/classes.h"

struct cross_entropy {
    gd_floats weight;
    int64_t ignore_index;
    int reduction;
    double label_smoothing;
};

static const gd_attr cross_entropy_attrs[] = {
    GD_FLOATS(struct cross_entropy, weight, .min = 0, .doc = "a factor for each class"),
    GD_INT(struct cross_entropy, ignore_index, .number = -100, .doc = "a class index that does not count"),
    GD_CHOICE(struct cross_entropy, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the positions' losses"),
    GD_FLOAT(struct cross_entropy, label_smoothing, .min = 0, .max = 1,
             .doc = "share of the target spread over all classes"),
};

static gd_dtype cross_entropy_target_dtype(const void *attrs, const gd_shape *output,
                                           const gd_shape *target) {
    (void)attrs;
    return gd_shape_equal(output, target) ? GD_FLOAT32 : GD_INT64;
}

static int cross_entropy_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                                 gd_loss_plan *ret_plan, gd_error *error) {
    const struct cross_entropy *a = attrs;
    char x[128], y[128], wanted[128];
    int code = gd_classes_check_output("CrossEntropyLoss", &output->shape, &a->weight, error);
    if (code)
        return code;
    const gd_shape positions = gd_loss_without_axis_1(&output->shape);
    const bool indices = gd_shape_equal(&target->shape, &positions);
    if (!indices && !gd_shape_equal(&target->shape, &output->shape))
        return gd_fail_field(
            error, GD_E_SHAPE, "target",
            "CrossEntropyLoss: the target is %s, but an output of %s takes class indices of %s "
            "or class probabilities of the output's shape",
            gd_shape_text(&target->shape, x, sizeof x), gd_shape_text(&output->shape, y, sizeof y),
            gd_shape_text(&positions, wanted, sizeof wanted));
    if (indices && (code = gd_classes_check_indices("CrossEntropyLoss", target, output->shape.dim[1],
                                                    &a->ignore_index, error)))
        return code;
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &positions),
                               .saved = gd_tensor_bytes(output) + sizeof(double), /* log p, and the divisor */
                               .class_indices = indices};
    return 0;
}

/* One position: strides between its classes are `inner`. */
typedef struct position {
    const struct cross_entropy *attrs;
    gd_classes geometry;
    int64_t label;            /* class index; -1: probabilities */
    const float *probability; /* of class 0 */
    bool ignored;
} position;

static position position_at(const gd_loss_call *call, const gd_classes *g, bool indices, int64_t n,
                            int64_t i) {
    position p = {.attrs = call->attrs, .geometry = *g, .label = -1};
    if (indices) {
        p.label = ((const int64_t *)call->target->data)[n * g->inner + i];
        p.ignored = p.label == p.attrs->ignore_index;
    } else {
        p.probability = (const float *)call->target->data + n * g->classes * g->inner + i;
    }
    return p;
}

static bool has_indices(const gd_loss_call *call) {
    return call->target->shape.rank != call->output->shape.rank;
}

/* Whether all k_ic but the label's are 0. */
static bool only_labels(const gd_loss_call *call) {
    const struct cross_entropy *a = call->attrs;
    return has_indices(call) && a->label_smoothing == 0;
}

/* k_ic */
static double coefficient(const position *p, int64_t c) {
    const double smoothing = p->attrs->label_smoothing;
    const double even = smoothing / (double)p->geometry.classes,
                 weight = gd_classes_weight(&p->attrs->weight, c);
    if (p->ignored)
        return 0;
    if (p->probability)
        return weight * ((double)p->probability[c * p->geometry.inner] * (1 - smoothing) + even);
    return weight * (even + (c == p->label ? 1 - smoothing : 0));
}

/* log p of all positions. */
static void log_softmax(const gd_loss_call *call, const gd_classes *g, float *log_p) {
    const gd_softmax lines = {
        .outer = g->batch, .size = g->classes, .inner = g->inner, .scale = 1, .log = true};
    gd_softmax_forward(&lines, call->output->data, log_p);
}

/* The sum over all classes, or what is left of it where only the label counts. */
static double position_loss(const position *p, const float *log_p, bool plain) {
    const int64_t first = plain && !p->ignored ? p->label : 0, last = plain ? first + 1 : p->geometry.classes;
    double loss = 0;
    for (int64_t c = first; c < last; c++) {
        const double k = coefficient(p, c);
        if (k != 0) /* a class that does not count may have log p = -inf */
            loss -= k * (double)log_p[c * p->geometry.inner];
    }
    return loss;
}

static void cross_entropy_forward(const gd_loss_call *call) {
    const struct cross_entropy *a = call->attrs;
    const gd_classes g = gd_classes_of(&call->output->shape);
    const bool indices = has_indices(call);
    double *divisor = call->saved, sum = 0, count = 0;
    float *log_p = (float *)(divisor + 1);
    log_softmax(call, &g, log_p);
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const position p = position_at(call, &g, indices, n, i);
            const double loss = position_loss(&p, log_p + n * g.classes * g.inner + i, only_labels(call));
            if (a->reduction == GD_REDUCE_NONE)
                call->loss[n * g.inner + i] = (float)loss;
            sum += loss;
            count += p.ignored ? 0 : indices ? gd_classes_weight(&a->weight, p.label) : 1;
        }
    *divisor = a->reduction == GD_REDUCE_MEAN ? count : 1;
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum / *divisor);
}

/* dl/dx_c = (p_c sum_c k_c - k_c) / divisor */
static void slopes_of_sample(const gd_loss_call *call, const gd_classes *g, int64_t n, double divisor) {
    const float *log_p = (const float *)((const double *)call->saved + 1);
    for (int64_t i = 0; i < g->inner; i++) {
        const position p = position_at(call, g, has_indices(call), n, i);
        const int64_t at = n * g->classes * g->inner + i;
        double total = 0;
        for (int64_t c = 0; c < g->classes; c++)
            total += coefficient(&p, c);
        for (int64_t c = 0; c < g->classes; c++) {
            const int64_t k = at + c * g->inner;
            const double slope = (double)gd_exp(log_p[k]) * total - coefficient(&p, c);
            call->grad[k] = p.ignored ? 0 : (float)(slope / divisor);
        }
    }
}

/* Some elements of p times their share, which steps by 1 or stays (0). */
GD_INLINE void scale_row(int64_t count, int64_t step, const float *log_p, const float *share, float *to) {
#pragma omp simd
    for (int64_t j = 0; j < count; j++) {
        const float slope = gd_exp(log_p[j]) * share[j * step];
        to[j] = share[j * step] < 0 ? 0 : slope; /* whatever p is */
    }
}

/* The same where only the label counts, (p_c - [c = y]) w_y / divisor, positions side by side. */
static void plain_slopes_of_sample(const gd_loss_call *call, const gd_classes *g, int64_t n, double divisor) {
    enum { SIDE = 64 };
    const int64_t at = n * g->classes * g->inner;
    const float *log_p = (const float *)((const double *)call->saved + 1) + at;
    for (int64_t first = 0; first < g->inner; first += SIDE) {
        const int64_t width = g->inner - first < SIDE ? g->inner - first : SIDE;
        float share[SIDE], *grad = call->grad + at + first; /* w_y / divisor; below 0: does not count */
        for (int64_t j = 0; j < width; j++) {
            const position p = position_at(call, g, true, n, first + j);
            share[j] = p.ignored ? -1 : (float)(gd_classes_weight(&p.attrs->weight, p.label) / divisor);
        }
        if (g->inner == 1)
            scale_row(g->classes, 0, log_p, share, grad);
        else
            for (int64_t c = 0; c < g->classes; c++)
                scale_row(width, 1, log_p + c * g->inner + first, share, grad + c * g->inner);
        for (int64_t j = 0; j < width; j++) {
            const position p = position_at(call, g, true, n, first + j);
            if (!p.ignored)
                grad[p.label * g->inner + j] -= share[j];
        }
    }
}

static void cross_entropy_backward(const gd_loss_call *call) {
    const gd_classes g = gd_classes_of(&call->output->shape);
    const double *divisor = call->saved;
    for (int64_t n = 0; n < g.batch; n++)
        (only_labels(call) ? plain_slopes_of_sample : slopes_of_sample)(call, &g, n, *divisor);
}

static void cross_entropy_accuracy(const gd_loss_call *call, int64_t *correct, int64_t *count) {
    const struct cross_entropy *a = call->attrs;
    gd_classes_accuracy(call, &a->ignore_index, correct, count);
}

/* The nodes torch's composite functions leave behind. */
static int probabilities_grad_fn(const struct cross_entropy *a, gd_chain *chain) {
    if (a->reduction == GD_REDUCE_MEAN)
        (void)gd_chain_next(chain, "DivBackward1");
    (void)gd_chain_next(chain, "NegBackward0");
    (void)gd_chain_next(chain, a->reduction == GD_REDUCE_NONE ? "SumBackward1" : "SumBackward0");
    (void)gd_chain_pair(chain, "MulBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    if (a->weight.data)
        (void)gd_chain_pair(chain, "MulBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    chain->nodes[chain->count++] = (gd_grad_fn){"LogSoftmaxBackward0", {GD_NEXT_INPUT(0)}, 1};
    return chain->count;
}

/* What smoothing adds beside the likelihood, leading back to the log softmax. */
static void smoothing_chain(const struct cross_entropy *a, int log_softmax_node, gd_chain *chain) {
    (void)gd_chain_next(chain, "MulBackward1");
    if (a->reduction == GD_REDUCE_MEAN && a->weight.data) {
        (void)gd_chain_pair(chain, "DivBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
        (void)gd_chain_next(chain, "SumBackward0");
    } else {
        gd_chain_reduction(chain, a->reduction);
        if (a->reduction == GD_REDUCE_MEAN)
            (void)gd_chain_next(chain, "MaskedSelectBackward0");
    }
    (void)gd_chain_pair(chain, "IndexPutBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_next(chain, "NegBackward0");
    (void)gd_chain_next(chain, "SumBackward1");
    if (a->weight.data)
        (void)gd_chain_pair(chain, "MulBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    chain->nodes[chain->count - 1].next[0] = log_softmax_node;
}

static int cross_entropy_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                                 gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct cross_entropy *a = attrs;
    const bool smooth = a->label_smoothing > 0;
    gd_chain chain = {nodes, 0};
    if (!class_indices)
        return probabilities_grad_fn(a, &chain);
    if (smooth) {
        (void)gd_chain_pair(&chain, "AddBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
        (void)gd_chain_next(&chain, "MulBackward1");
    }
    gd_classes_nll_chain(&chain, output, a->reduction);
    const int log_softmax_node = chain.count;
    nodes[chain.count++] = (gd_grad_fn){"LogSoftmaxBackward0", {GD_NEXT_INPUT(0)}, 1};
    if (smooth) {
        nodes[0].next[1] = chain.count;
        smoothing_chain(a, log_softmax_node, &chain);
    }
    return chain.count;
}

const gd_loss gd_loss_cross_entropy = {
    .kind = {.module = "CrossEntropyLoss",
             .function = "cross_entropy",
             .doc = "Softmax and negative log likelihood, for class indices or class probabilities.",
             GD_ATTRS(struct cross_entropy, cross_entropy_attrs)},
    .target_dtype = cross_entropy_target_dtype,
    .target_shape = gd_loss_class_shape,
    .prepare = cross_entropy_prepare,
    .forward = cross_entropy_forward,
    .backward = cross_entropy_backward,
    .accuracy = cross_entropy_accuracy,
    .grad_fn = cross_entropy_grad_fn,
};
