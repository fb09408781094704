/* adagrad.c -- a rate for each element, by all its gradients so far. Formula: torch.optim.Adagrad. */
#include "engine/optim/optimizer.h"

struct adagrad {
    double lr, lr_decay, weight_decay, initial_accumulator_value, eps;
    bool maximize;
};

static const gd_attr adagrad_attrs[] = {
    GD_FLOAT(struct adagrad, lr, .min = 0, .number = 1e-2, .doc = "learning rate"),
    GD_FLOAT(struct adagrad, lr_decay, .min = 0, .doc = "at step t the rate is lr / (1 + (t - 1) lr_decay)"),
    GD_FLOAT(struct adagrad, weight_decay, .min = 0, .doc = "L2 penalty"),
    GD_FLOAT(struct adagrad, initial_accumulator_value, .min = 0,
             .doc = "what the sum of squares starts from"),
    GD_FLOAT(struct adagrad, eps, .min = 0, .number = 1e-10,
             .doc = "added to the root, so as not to divide by 0"),
    GD_BOOL(struct adagrad, maximize, .doc = "go up the gradient"),
};

/* d = (-)g + weight_decay * p; sum += d^2; p -= lr / (1 + (t - 1) lr_decay) * d / (sqrt(sum) + eps). */
static void adagrad_step(const gd_optimizer_call *call) {
    const struct adagrad *a = call->attrs;
    const float sign = a->maximize ? -1.0F : 1.0F, decay = (float)a->weight_decay, eps = (float)a->eps;
    const float start = call->step == 1 ? (float)a->initial_accumulator_value : 0.0F;
    const float rate = (float)(a->lr / (1 + (double)(call->step - 1) * a->lr_decay));
    float *restrict p = call->param, *restrict sum = call->slots[0];
    const float *restrict g = call->grad;
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        sum[i] += start + d * d;
        p[i] -= rate * d / (sqrtf(sum[i]) + eps);
    }
}

static const char *const adagrad_slots[] = {"sum"};

const gd_optimizer gd_optimizer_adagrad = {
    .kind = {.module = "Adagrad",
             .doc = "Steps over the root of the sum of all squared gradients.",
             GD_ATTRS(struct adagrad, adagrad_attrs)},
    .slot_count = 1,
    .slot_names = adagrad_slots,
    .lr_offset = offsetof(struct adagrad, lr),
    .step = adagrad_step,
};
