/* radam.c -- Adam that starts without the second moment. Formula: torch.optim.RAdam. */
#include "engine/optim/adam.h"

struct radam {
    double lr, betas[2], eps, weight_decay;
    bool decoupled_weight_decay, maximize;
};

static const gd_attr radam_attrs[] = {
    GD_FLOAT(struct radam, lr, .min = 0, .number = 1e-3, .doc = "learning rate"),
    GD_BETAS(struct radam),
    GD_FLOAT(struct radam, eps, .min = 0, .number = 1e-8,
             .doc = "added to the root, so as not to divide by 0"),
    GD_FLOAT(struct radam, weight_decay, .min = 0, .doc = "L2 penalty"),
    GD_BOOL(struct radam, decoupled_weight_decay,
            .doc =
                "take weight_decay times lr off each parameter, as AdamW does, and leave the gradient alone"),
    GD_BOOL(struct radam, maximize, .doc = "go up the gradient"),
};

static int radam_check(const void *attrs, gd_error *error) {
    return gd_adam_check_betas("RAdam", ((const struct radam *)attrs)->betas, error);
}

/* How far the second moment can be trusted: the root of the ratio of variances, from the length rho_t of
 * the average that v is so far; 0 while rho_t <= 5. */
static double rectification(const struct radam *a, int64_t step) {
    const double power = pow(a->betas[1], (double)step);
    const double most = 2 / (1 - a->betas[1]) - 1;
    const double rho = most - 2 * (double)step * power / (1 - power);
    if (!(rho > 5))
        return 0;
    return sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho));
}

/* m and v as Adam's; p -= lr / (1 - b1^t) * m, times rectification * sqrt(1 - b2^t) / (sqrt(v) + eps) once
 * there is enough to go by. */
static void radam_step(const gd_optimizer_call *call) {
    const struct radam *a = call->attrs;
    const double rectified = rectification(a, call->step);
    const double plain = a->lr / (1 - pow(a->betas[0], (double)call->step));
    const double root = sqrt(1 - pow(a->betas[1], (double)call->step));
    const float rate = (float)(rectified > 0 ? plain * rectified * root : plain);
    const float adaptive = rectified > 0 ? 1.0F : 0.0F; /* 0: divide by 1 */
    const float eps = rectified > 0 ? (float)a->eps : 1.0F;
    const float decay = a->decoupled_weight_decay ? 0.0F : (float)a->weight_decay;
    const float shrink = a->decoupled_weight_decay ? (float)(1 - a->lr * a->weight_decay) : 1.0F;
    const float sign = a->maximize ? -1.0F : 1.0F;
    const float b1 = (float)a->betas[0], c1 = (float)(1 - a->betas[0]);
    const float b2 = (float)a->betas[1], c2 = (float)(1 - a->betas[1]);
    float *restrict p = call->param, *restrict m = call->slots[0], *restrict v = call->slots[1];
    const float *restrict g = call->grad;
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        m[i] = b1 * m[i] + c1 * d;
        v[i] = b2 * v[i] + c2 * d * d;
        p[i] = shrink * p[i] - rate * m[i] / (adaptive * sqrtf(v[i]) + eps);
    }
}

static const char *const radam_slots[] = {"exp_avg", "exp_avg_sq"};

const gd_optimizer gd_optimizer_radam = {
    .kind = {.module = "RAdam",
             .doc = "Adam whose step is rectified while few gradients have been seen.",
             GD_ATTRS(struct radam, radam_attrs)},
    .slot_count = 2,
    .slot_names = radam_slots,
    .lr_offset = offsetof(struct radam, lr),
    .momentum_offset = offsetof(struct radam, betas),
    .check = radam_check,
    .step = radam_step,
};
