/* nadam.c -- Adam with Nesterov momentum. Formula: torch.optim.NAdam. */
#include "engine/optim/adam.h"

struct nadam {
    double lr, betas[2], eps, weight_decay, momentum_decay;
    bool decoupled_weight_decay, maximize;
};

static const gd_attr nadam_attrs[] = {
    GD_FLOAT(struct nadam, lr, .min = 0, .number = 2e-3, .doc = "learning rate"),
    GD_BETAS(struct nadam),
    GD_FLOAT(struct nadam, eps, .min = 0, .number = 1e-8,
             .doc = "added to the root, so as not to divide by 0"),
    GD_FLOAT(struct nadam, weight_decay, .min = 0, .doc = "L2 penalty"),
    GD_FLOAT(struct nadam, momentum_decay, .min = 0, .number = 4e-3, .doc = "how fast momentum grows"),
    GD_BOOL(struct nadam, decoupled_weight_decay,
            .doc =
                "take weight_decay times lr off each parameter, as AdamW does, and leave the gradient alone"),
    GD_BOOL(struct nadam, maximize, .doc = "go up the gradient"),
};

static int nadam_check(const void *attrs, gd_error *error) {
    return gd_adam_check_betas("NAdam", ((const struct nadam *)attrs)->betas, error);
}

/* mu_t = b1 (1 - 0.96^(t momentum_decay) / 2). */
static double momentum(const struct nadam *a, int64_t step) {
    return a->betas[0] * (1 - 0.5 * pow(0.96, (double)step * a->momentum_decay));
}

enum { MU_PRODUCT };

/* The product of all momenta so far, this step's included. */
static void nadam_begin(const void *attrs, int64_t step, double *scalars) {
    scalars[MU_PRODUCT] = (step == 1 ? 1 : scalars[MU_PRODUCT]) * momentum(attrs, step);
}

/* m and v as Adam's, with M the product of momenta up to this step;
 * p -= lr (mu_{t+1} m / (1 - M mu_{t+1}) + (1 - mu_t) d / (1 - M)) / (sqrt(v / (1 - b2^t)) + eps). */
static void nadam_step(const gd_optimizer_call *call) {
    const struct nadam *a = call->attrs;
    const double product = call->scalars[MU_PRODUCT], next = momentum(a, call->step + 1);
    const float of_m = (float)(a->lr * next / (1 - product * next));
    const float of_d = (float)(a->lr * (1 - momentum(a, call->step)) / (1 - product));
    const float decay = a->decoupled_weight_decay ? 0.0F : (float)a->weight_decay;
    const float shrink = a->decoupled_weight_decay ? (float)(1 - a->lr * a->weight_decay) : 1.0F;
    const float sign = a->maximize ? -1.0F : 1.0F, eps = (float)a->eps;
    const float b1 = (float)a->betas[0], c1 = (float)(1 - a->betas[0]);
    const float b2 = (float)a->betas[1], c2 = (float)(1 - a->betas[1]);
    const float root = (float)(1 / sqrt(1 - pow(a->betas[1], (double)call->step)));
    float *restrict p = call->param, *restrict m = call->slots[0], *restrict v = call->slots[1];
    const float *restrict g = call->grad;
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        m[i] = b1 * m[i] + c1 * d;
        v[i] = b2 * v[i] + c2 * d * d;
        p[i] = shrink * p[i] - (of_m * m[i] + of_d * d) / (sqrtf(v[i]) * root + eps);
    }
}

static const char *const nadam_slots[] = {"exp_avg", "exp_avg_sq"};
static const char *const nadam_scalars[] = {"mu_product"};

const gd_optimizer gd_optimizer_nadam = {
    .kind = {.module = "NAdam", .doc = "Adam with Nesterov momentum.", GD_ATTRS(struct nadam, nadam_attrs)},
    .slot_count = 2,
    .slot_names = nadam_slots,
    .scalar_count = 1,
    .scalar_names = nadam_scalars,
    .lr_offset = offsetof(struct nadam, lr),
    .momentum_offset = offsetof(struct nadam, betas),
    .check = nadam_check,
    .begin = nadam_begin,
    .step = nadam_step,
};
