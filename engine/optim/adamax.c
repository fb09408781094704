/* adamax.c -- Adam by the infinity norm. Formula: torch.optim.Adamax. */
#include "engine/optim/adam.h"

struct adamax {
    double lr, betas[2], eps, weight_decay;
    bool maximize;
};

static const gd_attr adamax_attrs[] = {
    GD_FLOAT(struct adamax, lr, .min = 0, .number = 2e-3, .doc = "learning rate"),
    GD_BETAS(struct adamax),
    GD_FLOAT(struct adamax, eps, .min = 0, .number = 1e-8,
             .doc = "added to the gradient's size, so as not to divide by 0"),
    GD_FLOAT(struct adamax, weight_decay, .min = 0, .doc = "L2 penalty"),
    GD_BOOL(struct adamax, maximize, .doc = "go up the gradient"),
};

static int adamax_check(const void *attrs, gd_error *error) {
    return gd_adam_check_betas("Adamax", ((const struct adamax *)attrs)->betas, error);
}

/* d = (-)g + weight_decay * p; m = b1 m + (1 - b1) d; u = max(b2 u, |d| + eps);
 * p -= lr / (1 - b1^t) * m / u. */
static void adamax_step(const gd_optimizer_call *call) {
    const struct adamax *a = call->attrs;
    const float sign = a->maximize ? -1.0F : 1.0F, decay = (float)a->weight_decay, eps = (float)a->eps;
    const float b1 = (float)a->betas[0], c1 = (float)(1 - a->betas[0]), b2 = (float)a->betas[1];
    const float rate = (float)(a->lr / (1 - pow(a->betas[0], (double)call->step)));
    float *restrict p = call->param, *restrict m = call->slots[0], *restrict u = call->slots[1];
    const float *restrict g = call->grad;
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        const float kept = b2 * u[i], fresh = fabsf(d) + eps;
        m[i] = b1 * m[i] + c1 * d;
        u[i] = kept > fresh ? kept : fresh;
        p[i] -= rate * m[i] / u[i];
    }
}

static const char *const adamax_slots[] = {"exp_avg", "exp_inf"};

const gd_optimizer gd_optimizer_adamax = {
    .kind = {.module = "Adamax",
             .doc = "Adam by the largest recent gradient in place of the average square.",
             GD_ATTRS(struct adamax, adamax_attrs)},
    .slot_count = 2,
    .slot_names = adamax_slots,
    .lr_offset = offsetof(struct adamax, lr),
    .momentum_offset = offsetof(struct adamax, betas),
    .check = adamax_check,
    .step = adamax_step,
};
