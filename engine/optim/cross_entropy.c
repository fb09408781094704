/* cross_entropy.c -- softmax and negative log likelihood in one. Formula: torch.nn.CrossEntropyLoss.
 *
 * Both kinds of target and label smoothing come to the same sum: every position i has a loss
 *   l_i = - sum_c k_ic log p_ic,
 * where p is the softmax over the classes (axis 1), and with smoothing e, C classes and weights w
 *   indices:       k_ic = w_c e / C + [c = y_i] (1 - e) w_y, or 0 everywhere if y_i is ignored
 *   probabilities: k_ic = w_c (t_ic (1 - e) + e / C).
 * The mean divides by the sum of w_y over positions that count, or for probabilities by their number. */
#include <inttypes.h>

#include "engine/optim/loss.h"

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

/* Output (N, C, d...): positions are (n, i), i running over the product of d. */
typedef struct geometry {
    int64_t batch, classes, inner;
} geometry;

static geometry geometry_of(const gd_shape *output) {
    return (geometry){output->dim[0], output->dim[1], gd_numel_of(output, 2, output->rank)};
}

static gd_dtype cross_entropy_target_dtype(const void *attrs, const gd_shape *output,
                                           const gd_shape *target) {
    (void)attrs;
    return gd_shape_equal(output, target) ? GD_FLOAT32 : GD_INT64;
}

/* The output's shape without its class axis. */
static gd_shape positions_of(const gd_shape *output) {
    gd_shape shape = {.rank = output->rank - 1, .dim = {output->dim[0]}};
    for (int i = 1; i < shape.rank; i++)
        shape.dim[i] = output->dim[i + 1];
    return shape;
}

static int check_indices(const struct cross_entropy *a, const gd_tensor *target, int64_t classes,
                         gd_error *error) {
    const int64_t *y = target->data;
    const int64_t count = gd_numel(&target->shape);
    for (int64_t i = 0; y && i < count; i++)
        if ((y[i] < 0 || y[i] >= classes) && y[i] != a->ignore_index)
            return gd_fail_field(error, GD_E_VALUE, "target",
                                 "CrossEntropyLoss: target element %" PRId64 " is %" PRId64
                                 ", but a class index must be 0 to %" PRId64 ": the output has %" PRId64
                                 " classes (axis 1)",
                                 i, y[i], classes - 1, classes);
    return 0;
}

static int cross_entropy_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                                 gd_loss_plan *ret_plan, gd_error *error) {
    const struct cross_entropy *a = attrs;
    char x[128], y[128], wanted[128];
    if (output->shape.rank < 2)
        return gd_fail(error, GD_E_SHAPE, "CrossEntropyLoss wants an output (N, C, ...), got %s",
                       gd_shape_text(&output->shape, x, sizeof x));
    const geometry g = geometry_of(&output->shape);
    const gd_shape positions = positions_of(&output->shape);
    if (a->weight.data && a->weight.count != (size_t)g.classes)
        return gd_fail_field(error, GD_E_ATTRIBUTE, "weight",
                             "CrossEntropyLoss: weight has %zu elements, but the output has %" PRId64
                             " classes",
                             a->weight.count, g.classes);
    const bool indices = gd_shape_equal(&target->shape, &positions);
    if (!indices && !gd_shape_equal(&target->shape, &output->shape))
        return gd_fail_field(
            error, GD_E_SHAPE, "target",
            "CrossEntropyLoss: the target is %s, but an output of %s takes class indices of %s "
            "or class probabilities of the output's shape",
            gd_shape_text(&target->shape, x, sizeof x), gd_shape_text(&output->shape, y, sizeof y),
            gd_shape_text(&positions, wanted, sizeof wanted));
    int code = indices ? check_indices(a, target, g.classes, error) : 0;
    if (code)
        return code;
    *ret_plan = (gd_loss_plan){.loss = a->reduction == GD_REDUCE_NONE ? positions : (gd_shape){0},
                               .saved = gd_tensor_bytes(output) + sizeof(double), /* log p, and the divisor */
                               .class_indices = indices};
    return 0;
}

static double weight_of(const struct cross_entropy *a, int64_t c) {
    return a->weight.data ? a->weight.data[c] : 1.0;
}

/* One position: strides between its classes are `inner`. */
typedef struct position {
    const struct cross_entropy *attrs;
    geometry geometry;
    int64_t label;            /* class index; -1: probabilities */
    const float *probability; /* of class 0 */
    bool ignored;
} position;

static position position_at(const gd_loss_call *call, const geometry *g, bool indices, int64_t n, int64_t i) {
    position p = {.attrs = call->attrs, .geometry = *g, .label = -1};
    if (indices) {
        p.label = ((const int64_t *)call->target->data)[n * g->inner + i];
        p.ignored = p.label == p.attrs->ignore_index;
    } else {
        p.probability = (const float *)call->target->data + n * g->classes * g->inner + i;
    }
    return p;
}

/* k_ic */
static double coefficient(const position *p, int64_t c) {
    const double smoothing = p->attrs->label_smoothing;
    const double even = smoothing / (double)p->geometry.classes, weight = weight_of(p->attrs, c);
    if (p->ignored)
        return 0;
    if (p->probability)
        return weight * ((double)p->probability[c * p->geometry.inner] * (1 - smoothing) + even);
    return weight * (even + (c == p->label ? 1 - smoothing : 0));
}

/* log p = x - max - log(sum of exp(x - max)) */
static void log_softmax(const float *x, float *log_p, const geometry *g) {
    float max = x[0];
    double sum = 0;
    for (int64_t c = 1; c < g->classes; c++)
        if (x[c * g->inner] > max || x[c * g->inner] != x[c * g->inner])
            max = x[c * g->inner];
    for (int64_t c = 0; c < g->classes; c++)
        sum += exp((double)x[c * g->inner] - max);
    // cppcheck-suppress invalidFunctionArg // the maximum alone adds exp(0)
    const double log_sum = log(sum);
    for (int64_t c = 0; c < g->classes; c++)
        log_p[c * g->inner] = (float)((double)x[c * g->inner] - max - log_sum);
}

static void cross_entropy_forward(const gd_loss_call *call) {
    const struct cross_entropy *a = call->attrs;
    const geometry g = geometry_of(&call->output->shape);
    const bool indices = call->target->shape.rank != call->output->shape.rank;
    double *divisor = call->saved, sum = 0, count = 0;
    float *log_p = (float *)(divisor + 1);
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const position p = position_at(call, &g, indices, n, i);
            const int64_t at = n * g.classes * g.inner + i;
            double loss = 0;
            log_softmax((const float *)call->output->data + at, log_p + at, &g);
            for (int64_t c = 0; c < g.classes; c++) {
                const double k = coefficient(&p, c);
                if (k != 0) /* a class that does not count may have log p = -inf */
                    loss -= k * (double)log_p[at + c * g.inner];
            }
            if (a->reduction == GD_REDUCE_NONE)
                call->loss[n * g.inner + i] = (float)loss;
            sum += loss;
            count += p.ignored ? 0 : indices ? weight_of(a, p.label) : 1;
        }
    *divisor = a->reduction == GD_REDUCE_MEAN ? count : 1;
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum / *divisor);
}

/* dl/dx_c = (p_c sum_c k_c - k_c) / divisor */
static void cross_entropy_backward(const gd_loss_call *call) {
    const geometry g = geometry_of(&call->output->shape);
    const bool indices = call->target->shape.rank != call->output->shape.rank;
    const double *divisor = call->saved;
    const float *log_p = (const float *)(divisor + 1);
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const position p = position_at(call, &g, indices, n, i);
            const int64_t at = n * g.classes * g.inner + i;
            double total = 0;
            for (int64_t c = 0; c < g.classes; c++)
                total += coefficient(&p, c);
            for (int64_t c = 0; c < g.classes; c++) {
                const int64_t k = at + c * g.inner;
                const double slope = exp((double)log_p[k]) * total - coefficient(&p, c);
                call->grad[k] = p.ignored ? 0 : (float)(slope / *divisor);
            }
        }
}

static void cross_entropy_accuracy(const gd_loss_call *call, int64_t *correct, int64_t *count) {
    const geometry g = geometry_of(&call->output->shape);
    *correct = *count = 0;
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const position p = position_at(call, &g, true, n, i);
            const float *x = (const float *)call->output->data + n * g.classes * g.inner + i;
            int64_t best = 0;
            for (int64_t c = 1; c < g.classes; c++)
                if (x[c * g.inner] > x[best * g.inner])
                    best = c;
            *correct += !p.ignored && best == p.label;
            *count += !p.ignored;
        }
}

/* The nodes torch's composite functions leave behind. */
static int cross_entropy_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                                 gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct cross_entropy *a = attrs;
    const bool smooth = a->label_smoothing > 0, mean = a->reduction == GD_REDUCE_MEAN;
    const bool none = a->reduction == GD_REDUCE_NONE;
    int count = 0;
    /* Each node leads to the next unless said otherwise. */
#define NODE(text, ...) (nodes[count] = (gd_grad_fn){text, __VA_ARGS__}, count++)
#define CHAIN(text) NODE(text, {count + 1}, 1)
    if (!class_indices) {
        if (mean)
            CHAIN("DivBackward1");
        CHAIN("NegBackward0");
        CHAIN(none ? "SumBackward1" : "SumBackward0");
        NODE("MulBackward0", {count + 1, GD_NEXT_NONE}, 2);
        if (a->weight.data)
            NODE("MulBackward0", {count + 1, GD_NEXT_NONE}, 2);
        NODE("LogSoftmaxBackward0", {GD_NEXT_INPUT(0)}, 1);
        return count;
    }
    int root = -1;
    if (smooth) {
        root = NODE("AddBackward0", {1, GD_NEXT_NONE}, 2);
        CHAIN("MulBackward1");
    }
    if (output->rank == 2) {
        CHAIN("NllLossBackward0");
    } else if (output->rank == 4) {
        CHAIN("NllLoss2DBackward0");
    } else { /* brought to four axes and back */
        if (none)
            CHAIN("ViewBackward0");
        CHAIN("NllLoss2DBackward0");
        CHAIN("ViewBackward0");
    }
    const int log_softmax_node = NODE("LogSoftmaxBackward0", {GD_NEXT_INPUT(0)}, 1);
    if (smooth) {
        nodes[root].next[1] = count;
        CHAIN("MulBackward1");
        if (mean && a->weight.data) {
            NODE("DivBackward0", {count + 1, GD_NEXT_NONE}, 2);
            CHAIN("SumBackward0");
        } else if (mean) {
            CHAIN("MeanBackward0");
            CHAIN("MaskedSelectBackward0");
        } else if (!none) {
            CHAIN("SumBackward0");
        }
        NODE("IndexPutBackward0", {count + 1, GD_NEXT_NONE}, 2);
        CHAIN("NegBackward0");
        CHAIN("SumBackward1");
        if (a->weight.data)
            NODE("MulBackward0", {count + 1, GD_NEXT_NONE}, 2);
        nodes[count - 1].next[0] = log_softmax_node;
    }
#undef CHAIN
#undef NODE
    return count;
}

const gd_loss gd_loss_cross_entropy = {
    .kind = {.module = "CrossEntropyLoss",
             .function = "cross_entropy",
             .doc = "Softmax and negative log likelihood, for class indices or class probabilities.",
             GD_ATTRS(struct cross_entropy, cross_entropy_attrs)},
    .target_dtype = cross_entropy_target_dtype,
    .prepare = cross_entropy_prepare,
    .forward = cross_entropy_forward,
    .backward = cross_entropy_backward,
    .accuracy = cross_entropy_accuracy,
    .grad_fn = cross_entropy_grad_fn,
};
