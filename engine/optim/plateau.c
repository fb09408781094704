/* plateau.c -- ReduceLROnPlateau. Formula: torch.optim.lr_scheduler.ReduceLROnPlateau. */
#include "engine/optim/scheduler.h"

struct plateau {
    gd_interval every;
    int mode;
    double factor;
    int64_t patience;
    double threshold;
    int threshold_mode;
    int64_t cooldown;
    double min_lr, eps;
};

/* Its epochs come with a metric, so they can't come by themselves. */
static const char *const epochs_only[] = {"epoch", NULL};
static const char *const modes[] = {"min", "max", NULL};
static const char *const threshold_modes[] = {"rel", "abs", NULL};

static const gd_attr plateau_attrs[] = {
    {.name = "interval",
     .type = GD_ATTR_CHOICE,
     .offset = offsetof(gd_interval, interval),
     .choices = epochs_only,
     .doc = "advances with epochs, whenever the client gives a metric"},
    GD_CHOICE(struct plateau, mode, .choices = modes, .doc = "whether a small or a large metric is good"),
    GD_FLOAT(struct plateau, factor, .min = 0, .max = 1, .number = 0.1,
             .doc = "what the rate is multiplied with; below 1"),
    GD_INT(struct plateau, patience, .min = 0, .number = 10, .doc = "epochs without progress to put up with"),
    GD_FLOAT(struct plateau, threshold, .min = 0, .number = 1e-4, .doc = "less than this is no progress"),
    GD_CHOICE(struct plateau, threshold_mode, .choices = threshold_modes,
              .doc = "threshold is a part of the best metric, or a difference from it"),
    GD_INT(struct plateau, cooldown, .min = 0, .doc = "epochs after a change that don't count"),
    GD_FLOAT(struct plateau, min_lr, .min = 0, .doc = "smallest rate"),
    GD_FLOAT(struct plateau, eps, .min = 0, .number = 1e-8, .doc = "a smaller change is not made"),
};

static int plateau_check(const gd_schedule *s, gd_error *error) {
    const struct plateau *a = s->attrs;
    return a->factor < 1 ? 0
                         : gd_fail_field(error, GD_E_ATTRIBUTE, "factor",
                                         "ReduceLROnPlateau: factor must be below 1, not %g", a->factor);
}

static bool is_better(const struct plateau *a, double metric, double best) {
    const double sign = a->mode ? -1 : 1; /* max: 1 */
    const double bar = a->threshold_mode ? best - sign * a->threshold : best * (1 - sign * a->threshold);
    return sign * metric < sign * bar;
}

enum { BEST, NUM_BAD_EPOCHS, COOLDOWN_COUNTER };

static void plateau_step(gd_schedule *s, double metric, gd_dials dials) {
    const struct plateau *a = s->attrs;
    double *state = s->state;
    if (s->epoch == 0) {
        state[BEST] = a->mode ? -INFINITY : INFINITY;
        return;
    }
    if (is_better(a, metric, state[BEST])) {
        state[BEST] = metric;
        state[NUM_BAD_EPOCHS] = 0;
    } else {
        state[NUM_BAD_EPOCHS]++;
    }
    if (state[COOLDOWN_COUNTER] > 0) {
        state[COOLDOWN_COUNTER]--;
        state[NUM_BAD_EPOCHS] = 0;
    }
    if (state[NUM_BAD_EPOCHS] > (double)a->patience) {
        const double lr = fmax(*dials.lr * a->factor, a->min_lr);
        if (*dials.lr - lr > a->eps)
            *dials.lr = lr;
        state[COOLDOWN_COUNTER] = (double)a->cooldown;
        state[NUM_BAD_EPOCHS] = 0;
    }
}

static const char *const plateau_state[] = {"best", "num_bad_epochs", "cooldown_counter"};

const gd_scheduler gd_scheduler_plateau = {
    .kind = {.module = "ReduceLROnPlateau",
             .doc = "Multiplies the rate with factor when a metric has made no progress for a while.",
             GD_ATTRS(struct plateau, plateau_attrs)},
    .needs_metric = true,
    .state_count = 3,
    .state_names = plateau_state,
    .check = plateau_check,
    .step = plateau_step,
};
