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

enum { SQUARE_AVG, MOMENTUM_BUFFER, GRAD_AVG };

/* d = (-)g + weight_decay * p; v = alpha v + (1 - alpha) d^2; if centered, a = alpha a + (1 - alpha) d and
 * v - a^2 stands for v below; x = d / (sqrt(v) + eps); with momentum, buffer = momentum * buffer + x stands
 * for x; p -= lr * x. Called with constants, so that each of the four cases is a loop of its own. */
static inline __attribute__((always_inline)) void rmsprop(const gd_optimizer_call *call, bool centered,
                                                          bool buffered) {
    const struct rmsprop *a = call->attrs;
    const float sign = a->maximize ? -1.0F : 1.0F, decay = (float)a->weight_decay, eps = (float)a->eps;
    const float alpha = (float)a->alpha, rest = (float)(1 - a->alpha);
    const float momentum = (float)a->momentum, lr = (float)a->lr;
    float *restrict p = call->param, *restrict v = call->slots[SQUARE_AVG];
    float *restrict buffer = call->slots[MOMENTUM_BUFFER], *restrict average = call->slots[GRAD_AVG];
    const float *restrict g = call->grad;
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        v[i] = alpha * v[i] + rest * d * d;
        float spread = v[i];
        if (centered) {
            average[i] = alpha * average[i] + rest * d;
            spread = v[i] - average[i] * average[i];
        }
        float x = d / (sqrtf(spread) + eps);
        if (buffered)
            x = buffer[i] = momentum * buffer[i] + x;
        p[i] -= lr * x;
    }
}

static void rmsprop_step(const gd_optimizer_call *call) {
    const struct rmsprop *a = call->attrs;
    if (a->centered && a->momentum != 0)
        rmsprop(call, true, true);
    else if (a->centered)
        rmsprop(call, true, false);
    else if (a->momentum != 0)
        rmsprop(call, false, true);
    else
        rmsprop(call, false, false);
}

static unsigned rmsprop_slots_used(const void *attrs) {
    const struct rmsprop *a = attrs;
    return 1U << SQUARE_AVG | (unsigned)(a->momentum != 0) << MOMENTUM_BUFFER |
           (unsigned)a->centered << GRAD_AVG;
}

static const char *const rmsprop_slots[] = {"square_avg", "momentum_buffer", "grad_avg"};

const gd_optimizer gd_optimizer_rmsprop = {
    .kind = {.module = "RMSprop",
             .doc = "The gradient over the root of its average square, with momentum.",
             GD_ATTRS(struct rmsprop, rmsprop_attrs)},
    .slot_count = 3,
    .slot_names = rmsprop_slots,
    .slots_used = rmsprop_slots_used,
    .lr_offset = offsetof(struct rmsprop, lr),
    .momentum_offset = offsetof(struct rmsprop, momentum),
    .step = rmsprop_step,
};
