/* elementwise.h -- losses of one output element x and one target element t each.
 *
 * A loss of this kind is a formula l(x, t), its derivative dl/dx, and one use of GD_ELEMENTWISE; checks,
 * loops, weights and reductions are common to all. Weights stand along the last axis, or are one number. */
#ifndef GD_OPTIM_ELEMENTWISE_H
#define GD_OPTIM_ELEMENTWISE_H

#include "engine/optim/loss.h"

/** The attributes of all of them; a loss's rows name those it has, and the others are zero. */
struct gd_elementwise {
    int reduction;
    double beta, delta, margin, eps;
    bool log_target, log_input, full;
    gd_floats weight, pos_weight;
};

enum { GD_REDUCE_BATCHMEAN = GD_REDUCE_SUM + 1 }; /* KLDivLoss: the sum over the batch size */

/** What a formula gets. */
typedef struct gd_element {
    const struct gd_elementwise *attrs;
    double x, t;
    double pos_weight; /* of its column */
} gd_element;

typedef double gd_element_fn(gd_element e);

typedef struct gd_elementwise_rules {
    const char *module;
    /* What a target element may be, and in words. NULL: anything. */
    bool (*allows)(const struct gd_elementwise *attrs, double t);
    const char *allowed;
    /* What the attribute rows can't say. NULL: nothing. @return 0; GD_E_ATTRIBUTE */
    int (*check)(const struct gd_elementwise *attrs, gd_error *error);
    const char *grad_name;                                              /* the one node, or */
    void (*chain)(const struct gd_elementwise *attrs, gd_chain *chain); /* those under the reduction */
    bool target_edge; /* the one node has an edge to the target too */
} gd_elementwise_rules;

int gd_elementwise_prepare(const gd_elementwise_rules *rules, const struct gd_elementwise *attrs,
                           const gd_tensor *output, const gd_tensor *target, gd_loss_plan *ret_plan,
                           gd_error *error);
int gd_elementwise_grad_fn(const gd_elementwise_rules *rules, const struct gd_elementwise *attrs,
                           gd_grad_fn *nodes);
/** A list along the output's last axis, or of one. @return 0; GD_E_ATTRIBUTE */
int gd_elementwise_check_weight(const char *module, const char *name, const gd_floats *weights,
                                const gd_shape *output, gd_error *error);
/** What each slope, or the sum of all losses, is multiplied by. */
double gd_elementwise_factor(const struct gd_elementwise *attrs, const gd_shape *output);

/** log(1 + exp(z)), without overflow; of -z, the sigmoid's negative logarithm. */
static inline double gd_softplus(double z) {
    return (z > 0 ? z : 0) + log1p(exp(-fabs(z)));
}

/** 1 / (1 + exp(-z)) */
static inline double gd_sigmoid(double z) {
    return 1 / (1 + exp(-z));
}

/** A weight of column c; a list of one is for all. */
static inline double gd_elementwise_weight(const gd_floats *weights, int64_t c) {
    return weights->data ? weights->data[weights->count == 1 ? 0 : c] : 1.0;
}

static inline double gd_elementwise_at(const gd_loss_call *call, int64_t i, int64_t c, gd_element_fn *f) {
    const struct gd_elementwise *a = call->attrs;
    const gd_element e = {a, ((const float *)call->output->data)[i], ((const float *)call->target->data)[i],
                          gd_elementwise_weight(&a->pos_weight, c)};
    return gd_elementwise_weight(&a->weight, c) * f(e);
}

static inline int64_t gd_elementwise_columns(const gd_shape *shape) {
    return shape->dim[shape->rank - 1];
}

/* The loops are inline so that each loss has its formula inside. */
static inline void gd_elementwise_forward(const gd_loss_call *call, gd_element_fn *value) {
    const struct gd_elementwise *a = call->attrs;
    const int64_t count = gd_numel(&call->output->shape);
    const int64_t columns = gd_elementwise_columns(&call->output->shape);
    double sum = 0;
    for (int64_t row = 0; row < count; row += columns)
        for (int64_t c = 0; c < columns; c++) {
            const double loss = gd_elementwise_at(call, row + c, c, value);
            if (a->reduction == GD_REDUCE_NONE)
                call->loss[row + c] = (float)loss;
            else
                sum += loss;
        }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum * gd_elementwise_factor(a, &call->output->shape));
}

static inline void gd_elementwise_backward(const gd_loss_call *call, gd_element_fn *slope) {
    const int64_t count = gd_numel(&call->output->shape);
    const int64_t columns = gd_elementwise_columns(&call->output->shape);
    const double factor = gd_elementwise_factor(call->attrs, &call->output->shape);
    for (int64_t row = 0; row < count; row += columns)
        for (int64_t c = 0; c < columns; c++)
            call->grad[row + c] = (float)(factor * gd_elementwise_at(call, row + c, c, slope));
}

/** Define gd_loss_NAME from NAME_value, NAME_slope and NAME_attrs; then the fields of its rules. */
#define GD_ELEMENTWISE(NAME, MODULE, FUNCTION, DOC, CHECK_OUTPUT, ...) \
    static const gd_elementwise_rules NAME##_rules = {.module = MODULE, __VA_ARGS__}; \
    static int NAME##_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target, \
                              gd_loss_plan *ret_plan, gd_error *error) { \
        return gd_elementwise_prepare(&NAME##_rules, attrs, output, target, ret_plan, error); \
    } \
    static void NAME##_forward(const gd_loss_call *call) { \
        gd_elementwise_forward(call, NAME##_value); \
    } \
    static void NAME##_backward(const gd_loss_call *call) { \
        gd_elementwise_backward(call, NAME##_slope); \
    } \
    static int NAME##_grad_fn(const void *attrs, const gd_shape *output, bool class_indices, \
                              gd_grad_fn nodes[GD_MAX_GRAD_FN]) { \
        (void)output, (void)class_indices; \
        return gd_elementwise_grad_fn(&NAME##_rules, attrs, nodes); \
    } \
    const gd_loss gd_loss_##NAME = { \
        .kind = {.module = MODULE, \
                 .function = FUNCTION, \
                 .doc = DOC, \
                 GD_ATTRS(struct gd_elementwise, NAME##_attrs)}, \
        .target_dtype = gd_loss_takes_floats, \
        .prepare = NAME##_prepare, \
        .check_output = CHECK_OUTPUT, \
        .forward = NAME##_forward, \
        .backward = NAME##_backward, \
        .grad_fn = NAME##_grad_fn, \
    }

/* Attribute rows that several losses have. */
#define GD_ELEMENTWISE_REDUCTION \
    GD_CHOICE(struct gd_elementwise, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions, \
              .doc = "what becomes of the elements' losses")
#define GD_ELEMENTWISE_WEIGHT \
    GD_FLOATS(struct gd_elementwise, weight, .doc = "a factor for each element along the last axis")

#endif
