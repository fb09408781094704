/* sgd.c -- stochastic gradient descent. Formula: torch.optim.SGD. */
#include "engine/optim/optimizer.h"

struct sgd {
    double lr, momentum, dampening, weight_decay;
    bool nesterov, maximize;
};

static const gd_attr sgd_attrs[] = {
    GD_FLOAT(struct sgd, lr, .min = 0, .number = 1e-3, .doc = "learning rate"),
    GD_FLOAT(struct sgd, momentum, .min = 0, .doc = "how much of the last step goes on"),
    GD_FLOAT(struct sgd, dampening, .doc = "how much less the gradient counts beside momentum"),
    GD_FLOAT(struct sgd, weight_decay, .min = 0, .doc = "L2 penalty"),
    GD_BOOL(struct sgd, nesterov, .doc = "Nesterov momentum"),
    GD_BOOL(struct sgd, maximize, .doc = "go up the gradient"),
};

static int sgd_check(const void *attrs, gd_error *error) {
    const struct sgd *a = attrs;
    if (a->nesterov && (a->momentum <= 0 || a->dampening != 0))
        return gd_fail_field(error, GD_E_ATTRIBUTE, "nesterov",
                             "SGD: nesterov needs a momentum over 0 and a dampening of 0, not %g and %g",
                             a->momentum, a->dampening);
    return 0;
}

/* d = (-)g + weight_decay * p; buffer = momentum * buffer + (1 - dampening) * d, at first d itself;
 * p -= lr * (buffer, or with nesterov d + momentum * buffer). */
static void sgd_step(const gd_optimizer_call *call) {
    const struct sgd *a = call->attrs;
    const float lr = (float)a->lr, momentum = (float)a->momentum, decay = (float)a->weight_decay;
    const float sign = a->maximize ? -1.0F : 1.0F;
    const float fresh = call->step == 1 ? 1.0F : (float)(1 - a->dampening);
    float *restrict p = call->param, *restrict buffer = call->slots[0];
    const float *restrict g = call->grad;
    if (a->momentum == 0) {
        for (int64_t i = 0; i < call->count; i++)
            p[i] -= lr * (sign * g[i] + decay * p[i]);
    } else if (a->nesterov) {
        for (int64_t i = 0; i < call->count; i++) {
            float d = sign * g[i] + decay * p[i];
            buffer[i] = momentum * buffer[i] + fresh * d;
            p[i] -= lr * (d + momentum * buffer[i]);
        }
    } else {
        for (int64_t i = 0; i < call->count; i++) {
            float d = sign * g[i] + decay * p[i];
            buffer[i] = momentum * buffer[i] + fresh * d;
            p[i] -= lr * buffer[i];
        }
    }
}

static unsigned sgd_slots_used(const void *attrs) {
    return ((const struct sgd *)attrs)->momentum != 0;
}

static const char *const sgd_slots[] = {"momentum_buffer"};

const gd_optimizer gd_optimizer_sgd = {
    .kind = {.module = "SGD",
             .doc = "Stochastic gradient descent, with momentum.",
             GD_ATTRS(struct sgd, sgd_attrs)},
    .slot_count = 1,
    .slot_names = sgd_slots,
    .slots_used = sgd_slots_used,
    .lr_offset = offsetof(struct sgd, lr),
    .momentum_offset = offsetof(struct sgd, momentum),
    .check = sgd_check,
    .step = sgd_step,
};
