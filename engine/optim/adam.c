/* adam.c -- Adam and AdamW, with AMSGrad. Formulas: torch.optim.Adam, torch.optim.AdamW. */
#include "engine/optim/adam.h"

struct adam {
    double lr, betas[2], eps, weight_decay;
    bool amsgrad, maximize;
};

const double gd_adam_betas[2] = {0.9, 0.999};

#define ADAM_ATTRS(decay, what) \
    GD_FLOAT(struct adam, lr, .min = 0, .number = 1e-3, .doc = "learning rate"), GD_BETAS(struct adam), \
        GD_FLOAT(struct adam, eps, .min = 0, .number = 1e-8, \
                 .doc = "added to the root, so as not to divide by 0"), \
        GD_FLOAT(struct adam, weight_decay, .min = 0, .number = (decay), .doc = what), \
        GD_BOOL(struct adam, amsgrad, .doc = "divide by the largest average of squares so far"), \
        GD_BOOL(struct adam, maximize, .doc = "go up the gradient")

static const gd_attr adam_attrs[] = {ADAM_ATTRS(0, "L2 penalty")};
static const gd_attr adamw_attrs[] = {
    ADAM_ATTRS(1e-2, "part of each parameter, times lr, taken off per step")};

int gd_adam_check_betas(const char *what, const double betas[2], gd_error *error) {
    if (betas[0] < 1 && betas[1] < 1)
        return 0;
    return gd_fail_field(error, GD_E_ATTRIBUTE, "betas", "%s: betas must be below 1, not [%g, %g]", what,
                         betas[0], betas[1]);
}

static int adam_check(const void *attrs, gd_error *error) {
    return gd_adam_check_betas("Adam", ((const struct adam *)attrs)->betas, error);
}

static int adamw_check(const void *attrs, gd_error *error) {
    return gd_adam_check_betas("AdamW", ((const struct adam *)attrs)->betas, error);
}

/* d = (-)g + decay * p; p = shrink * p; m = b1 m + (1 - b1) d; v = b2 v + (1 - b2) d^2;
 * p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps), with amsgrad the largest v so far for v. */
static void adam(const gd_optimizer_call *call, float decay, float shrink) {
    const struct adam *a = call->attrs;
    const float sign = a->maximize ? -1.0F : 1.0F, eps = (float)a->eps;
    const float b1 = (float)a->betas[0], c1 = (float)(1 - a->betas[0]);
    const float b2 = (float)a->betas[1], c2 = (float)(1 - a->betas[1]);
    const float rate = (float)(a->lr / (1 - pow(a->betas[0], (double)call->step)));
    const float root = (float)(1 / sqrt(1 - pow(a->betas[1], (double)call->step)));
    float *restrict p = call->param, *restrict m = call->slots[0], *restrict v = call->slots[1];
    float *restrict most = call->slots[2];
    const float *restrict g = call->grad;
    if (a->amsgrad) {
#pragma omp simd
        for (int64_t i = 0; i < call->count; i++) {
            const float d = sign * g[i] + decay * p[i];
            m[i] = b1 * m[i] + c1 * d;
            v[i] = b2 * v[i] + c2 * d * d;
            most[i] = most[i] > v[i] ? most[i] : v[i];
            p[i] = shrink * p[i] - rate * m[i] / (sqrtf(most[i]) * root + eps);
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        m[i] = b1 * m[i] + c1 * d;
        v[i] = b2 * v[i] + c2 * d * d;
        p[i] = shrink * p[i] - rate * m[i] / (sqrtf(v[i]) * root + eps);
    }
}

static void adam_step(const gd_optimizer_call *call) {
    const struct adam *a = call->attrs;
    adam(call, (float)a->weight_decay, 1);
}

static void adamw_step(const gd_optimizer_call *call) {
    const struct adam *a = call->attrs;
    adam(call, 0, (float)(1 - a->lr * a->weight_decay));
}

enum { EXP_AVG, EXP_AVG_SQ, MAX_EXP_AVG_SQ };

static unsigned adam_slots_used(const void *attrs) {
    const struct adam *a = attrs;
    return 1U << EXP_AVG | 1U << EXP_AVG_SQ | (unsigned)a->amsgrad << MAX_EXP_AVG_SQ;
}

static const char *const adam_slots[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

const gd_optimizer gd_optimizer_adam = {
    .kind = {.module = "Adam",
             .doc = "Steps along the average gradient over the root of its average square.",
             GD_ATTRS(struct adam, adam_attrs)},
    .slot_count = 3,
    .slot_names = adam_slots,
    .slots_used = adam_slots_used,
    .lr_offset = offsetof(struct adam, lr),
    .momentum_offset = offsetof(struct adam, betas),
    .check = adam_check,
    .step = adam_step,
};

const gd_optimizer gd_optimizer_adamw = {
    .kind = {.module = "AdamW",
             .doc = "Adam with weight decay apart from the gradient.",
             GD_ATTRS(struct adam, adamw_attrs)},
    .slot_count = 3,
    .slot_names = adam_slots,
    .slots_used = adam_slots_used,
    .lr_offset = offsetof(struct adam, lr),
    .momentum_offset = offsetof(struct adam, betas),
    .check = adamw_check,
    .step = adamw_step,
};
