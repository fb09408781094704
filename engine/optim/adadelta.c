/* adadelta.c -- steps in the parameters' own units. Formula: torch.optim.Adadelta. */
#include "engine/optim/optimizer.h"

struct adadelta {
    double lr, rho, eps, weight_decay;
    bool maximize;
};

static const gd_attr adadelta_attrs[] = {
    GD_FLOAT(struct adadelta, lr, .min = 0, .number = 1, .doc = "what the step is multiplied with"),
    GD_FLOAT(struct adadelta, rho, .min = 0, .max = 1, .number = 0.9,
             .doc = "what the averages keep per step"),
    GD_FLOAT(struct adadelta, eps, .min = 0, .number = 1e-6, .doc = "added to the averages under the roots"),
    GD_FLOAT(struct adadelta, weight_decay, .min = 0, .doc = "L2 penalty"),
    GD_BOOL(struct adadelta, maximize, .doc = "go up the gradient"),
};

/* d = (-)g + weight_decay * p; v = rho v + (1 - rho) d^2; x = d sqrt(u + eps) / sqrt(v + eps);
 * u = rho u + (1 - rho) x^2; p -= lr x. */
static void adadelta_step(const gd_optimizer_call *call) {
    const struct adadelta *a = call->attrs;
    const float sign = a->maximize ? -1.0F : 1.0F, decay = (float)a->weight_decay, eps = (float)a->eps;
    const float rho = (float)a->rho, rest = (float)(1 - a->rho), lr = (float)a->lr;
    float *restrict p = call->param, *restrict v = call->slots[0], *restrict u = call->slots[1];
    const float *restrict g = call->grad;
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        v[i] = rho * v[i] + rest * d * d;
        const float x = sqrtf(u[i] + eps) / sqrtf(v[i] + eps) * d;
        u[i] = rho * u[i] + rest * x * x;
        p[i] -= lr * x;
    }
}

static const char *const adadelta_slots[] = {"square_avg", "acc_delta"};

const gd_optimizer gd_optimizer_adadelta = {
    .kind = {.module = "Adadelta",
             .doc = "Steps as large as those before, by the gradient over its root mean square.",
             GD_ATTRS(struct adadelta, adadelta_attrs)},
    .slot_count = 2,
    .slot_names = adadelta_slots,
    .lr_offset = offsetof(struct adadelta, lr),
    .step = adadelta_step,
};
