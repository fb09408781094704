/* cosine.c -- CosineAnnealingLR, CosineAnnealingWarmRestarts. Formulas: torch.optim.lr_scheduler's classes of
 * these names. */
#include "engine/optim/scheduler.h"

struct cosine {
    gd_interval every;
    int64_t T_max;
    double eta_min;
};

static const gd_attr cosine_attrs[] = {
    GD_INTERVAL,
    GD_INT(struct cosine, T_max, .min = 1, .required = true, .doc = "epochs from the rate to eta_min"),
    GD_FLOAT(struct cosine, eta_min, .doc = "smallest rate"),
};

/* 1 + cos(pi t / T). */
static double height(double t, double T) {
    return 1 + cos(M_PI * t / T);
}

/* eta_min + (base_lr - eta_min) (1 + cos(pi t / T_max)) / 2, from the rate of t - 1; at the turning point,
 * where that says nothing, from base_lr. */
static void cosine_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct cosine *a = s->attrs;
    const double t = (double)s->epoch, T = (double)a->T_max, lr = *dials.lr;
    if (s->epoch == 0)
        return;
    if ((s->epoch - 1 - a->T_max) % (2 * a->T_max) == 0)
        *dials.lr = lr + (s->base_lr - a->eta_min) * (1 - cos(M_PI / T)) / 2;
    else
        *dials.lr = height(t, T) / height(t - 1, T) * (lr - a->eta_min) + a->eta_min;
}

const gd_scheduler gd_scheduler_cosine = {
    .kind = {.module = "CosineAnnealingLR",
             .doc = "Down to eta_min and up again along a cosine.",
             GD_ATTRS(struct cosine, cosine_attrs)},
    .step = cosine_step,
};

struct restarts {
    gd_interval every;
    int64_t T_0, T_mult;
    double eta_min;
};

static const gd_attr restarts_attrs[] = {
    GD_INTERVAL,
    GD_INT(struct restarts, T_0, .min = 1, .required = true, .doc = "epochs until the first restart"),
    GD_INT(struct restarts, T_mult, .min = 1, .number = 1, .doc = "how much longer it is until the next"),
    GD_FLOAT(struct restarts, eta_min, .doc = "smallest rate"),
};

enum { T_CUR, T_I };

/* eta_min + (base_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2, T_cur epochs after the last restart. */
static void restarts_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct restarts *a = s->attrs;
    double *state = s->state;
    if (s->epoch == 0) {
        state[T_I] = (double)a->T_0;
    } else if (++state[T_CUR] >= state[T_I]) {
        state[T_CUR] -= state[T_I];
        state[T_I] *= (double)a->T_mult;
    }
    *dials.lr = a->eta_min + (s->base_lr - a->eta_min) * height(state[T_CUR], state[T_I]) / 2;
}

static const char *const restarts_state[] = {"T_cur", "T_i"};

const gd_scheduler gd_scheduler_restarts = {
    .kind = {.module = "CosineAnnealingWarmRestarts",
             .doc = "Down to eta_min along a cosine, and again from the top.",
             GD_ATTRS(struct restarts, restarts_attrs)},
    .state_count = 2,
    .state_names = restarts_state,
    .step = restarts_step,
};
