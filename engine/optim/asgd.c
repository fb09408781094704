/* asgd.c -- averaged stochastic gradient descent. Formula: torch.optim.ASGD. */
#include "engine/optim/optimizer.h"

struct asgd {
    double lr, lambd, alpha, t0, weight_decay;
    bool maximize;
};

static const gd_attr asgd_attrs[] = {
    GD_FLOAT(struct asgd, lr, .min = 0, .number = 1e-2, .doc = "learning rate"),
    GD_FLOAT(struct asgd, lambd, .number = 1e-4, .doc = "decay of the parameters, and of the rate"),
    GD_FLOAT(struct asgd, alpha, .number = 0.75, .doc = "power of the rate's decay"),
    GD_FLOAT(struct asgd, t0, .number = 1e6, .doc = "step from which on parameters are averaged"),
    GD_FLOAT(struct asgd, weight_decay, .min = 0, .doc = "L2 penalty"),
    GD_BOOL(struct asgd, maximize, .doc = "go up the gradient"),
};

enum { ETA, MU, NEXT_ETA, NEXT_MU };

/* A step uses the rate that the one before left: eta_t = lr / (1 + lambd lr t)^alpha, at first lr; and
 * mu_t = 1 / max(1, t - t0), at first 1. */
static void asgd_begin(const void *attrs, int64_t step, double *scalars) {
    const struct asgd *a = attrs;
    scalars[ETA] = step == 1 ? a->lr : scalars[NEXT_ETA];
    scalars[MU] = step == 1 ? 1 : scalars[NEXT_MU];
    scalars[NEXT_ETA] = a->lr / pow(1 + a->lambd * a->lr * (double)step, a->alpha);
    scalars[NEXT_MU] = 1 / fmax(1, (double)step - a->t0);
}

/* d = (-)g + weight_decay * p; p = (1 - lambd eta) p - eta d; ax += mu (p - ax). */
static void asgd_step(const gd_optimizer_call *call) {
    const struct asgd *a = call->attrs;
    const float sign = a->maximize ? -1.0F : 1.0F, decay = (float)a->weight_decay;
    const float eta = (float)call->scalars[ETA], mu = (float)call->scalars[MU];
    const float shrink = (float)(1 - a->lambd * call->scalars[ETA]);
    const float keep = mu == 1 ? 0.0F : 1.0F; /* mu 1: ax is p, whatever it was */
    float *restrict p = call->param, *restrict ax = call->slots[0];
    const float *restrict g = call->grad;
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        const float d = sign * g[i] + decay * p[i];
        p[i] = shrink * p[i] - eta * d;
        ax[i] = keep * ax[i] + mu * (p[i] - keep * ax[i]);
    }
}

static const char *const asgd_slots[] = {"ax"};
static const char *const asgd_scalars[] = {"eta", "mu", "next_eta", "next_mu"};

const gd_optimizer gd_optimizer_asgd = {
    .kind = {.module = "ASGD",
             .doc = "Gradient descent that also keeps an average of the parameters.",
             GD_ATTRS(struct asgd, asgd_attrs)},
    .slot_count = 1,
    .slot_names = asgd_slots,
    .scalar_count = 4,
    .scalar_names = asgd_scalars,
    .lr_offset = offsetof(struct asgd, lr),
    .begin = asgd_begin,
    .step = asgd_step,
};
