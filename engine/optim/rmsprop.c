/* rmsprop.c -- the gradient over its root mean square. Formula: torch.optim.RMSprop. */
#include "engine/optim/optimizer.h"

struct rmsprop {
    double lr, alpha, eps, weight_decay, momentum;
    bool centered, maximize;
};

static const gd_attr rmsprop_attrs[] = {
    GD_FLOAT(struct rmsprop, lr, .min = 0, .number = 1e-2, .doc = "learning rate"),
    GD_FLOAT(struct rmsprop, alpha, .min = 0, .number = 0.99, .doc = "what the averages keep per step"),
    GD_FLOAT(struct rmsprop, eps, .min = 0, .number = 1e-8,
             .doc = "added to the root, so as not to divide by 0"),
    GD_FLOAT(struct rmsprop, weight_decay, .min = 0, .doc = "L2 penalty"),
    GD_FLOAT(struct rmsprop, momentum, .min = 0, .doc = "how much of the last step goes on"),
    GD_BOOL(struct rmsprop, centered,
            .doc = "divide by the standard deviation: subtract the squared average"),
    GD_BOOL(struct rmsprop, maximize, .doc = "go up the gradient"),
};

/* d = (-)g + weight_decay * p; v = alpha v + (1 - alpha) d^2; if centered, a = alpha a + (1 - alpha) d and
 * v - a^2 stands for v below; buffer = momentum * buffer + d / (sqrt(v) + eps); p -= lr * buffer. */
static void rmsprop_step(const gd_optimizer_call *call) {
    const struct rmsprop *a = call->attrs;
    const float sign = a->maximize ? -1.0F : 1.0F, decay = (float)a->weight_decay, eps = (float)a->eps;
    const float alpha = (float)a->alpha, rest = (float)(1 - a->alpha);
    const float momentum = (float)a->momentum, lr = (float)a->lr;
    float *restrict p = call->param, *restrict v = call->slots[0], *restrict buffer = call->slots[1];
    float *restrict average = call->slots[2];
    const float *restrict g = call->grad;
    if (a->centered) {
#pragma omp simd
        for (int64_t i = 0; i < call->count; i++) {
            const float d = sign * g[i] + decay * p[i];
            v[i] = alpha * v[i] + rest * d * d;
            average[i] = alpha * average[i] + rest * d;
            buffer[i] = momentum * buffer[i] + d / (sqrtf(v[i] - average[i] * average[i]) + eps);
            p[i] -= lr * buffer[i];
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        v[i] = alpha * v[i] + rest * d * d;
        buffer[i] = momentum * buffer[i] + d / (sqrtf(v[i]) + eps);
        p[i] -= lr * buffer[i];
    }
}

static const char *const rmsprop_slots[] = {"square_avg", "momentum_buffer", "grad_avg"};

const gd_optimizer gd_optimizer_rmsprop = {
    .kind = {.module = "RMSprop",
             .doc = "The gradient over the root of its average square, with momentum.",
             GD_ATTRS(struct rmsprop, rmsprop_attrs)},
    .slot_count = 3,
    .slot_names = rmsprop_slots,
    .lr_offset = offsetof(struct rmsprop, lr),
    .momentum_offset = offsetof(struct rmsprop, momentum),
    .step = rmsprop_step,
};
