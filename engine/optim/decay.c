/* decay.c -- schedulers that multiply the rate: StepLR, MultiStepLR, ConstantLR, LinearLR, ExponentialLR,
 * PolynomialLR. Formulas: torch.optim.lr_scheduler's classes of these names. */
#include "engine/optim/scheduler.h"

/* ---- StepLR: lr *= gamma every step_size epochs ------------------------------------------------------- */

struct step_lr {
    gd_interval every;
    int64_t step_size;
    double gamma;
};

static const gd_attr step_lr_attrs[] = {
    GD_INTERVAL,
    GD_INT(struct step_lr, step_size, .min = 1, .required = true, .doc = "epochs between two changes"),
    GD_FLOAT(struct step_lr, gamma, .number = 0.1, .doc = "what the rate is multiplied with"),
};

static void step_lr_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct step_lr *a = s->attrs;
    if (s->epoch > 0 && s->epoch % a->step_size == 0)
        *dials.lr *= a->gamma;
}

const gd_scheduler gd_scheduler_step_lr = {
    .kind = {.module = "StepLR",
             .doc = "Multiplies the rate with gamma every step_size epochs.",
             GD_ATTRS(struct step_lr, step_lr_attrs)},
    .step = step_lr_step,
};

/* ---- MultiStepLR: lr *= gamma at each milestone -------------------------------------------------------- */

struct multi_step_lr {
    gd_interval every;
    gd_ints milestones;
    double gamma;
};

static const gd_attr multi_step_lr_attrs[] = {
    GD_INTERVAL,
    GD_INTS(struct multi_step_lr, milestones, .min = 0, .required = true,
            .doc = "epochs of change; one that is given twice counts twice"),
    GD_FLOAT(struct multi_step_lr, gamma, .number = 0.1, .doc = "what the rate is multiplied with"),
};

static void multi_step_lr_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct multi_step_lr *a = s->attrs;
    int times = 0;
    for (size_t i = 0; i < a->milestones.count; i++)
        times += a->milestones.data[i] == s->epoch;
    if (times)
        *dials.lr *= pow(a->gamma, times);
}

const gd_scheduler gd_scheduler_multi_step_lr = {
    .kind = {.module = "MultiStepLR",
             .doc = "Multiplies the rate with gamma at each milestone.",
             GD_ATTRS(struct multi_step_lr, multi_step_lr_attrs)},
    .step = multi_step_lr_step,
};

/* ---- ConstantLR: lr * factor until total_iters ------------------------------------------------------ */

struct constant_lr {
    gd_interval every;
    double factor;
    int64_t total_iters;
};

static const gd_attr constant_lr_attrs[] = {
    GD_INTERVAL,
    GD_FLOAT(struct constant_lr, factor, .min = 0, .max = 1, .number = 1.0 / 3,
             .doc = "what the rate is multiplied with at first; above 0"),
    GD_INT(struct constant_lr, total_iters, .min = 0, .number = 5,
           .doc = "epochs until the rate is whole again"),
};

static int constant_lr_check(const gd_schedule *s, gd_error *error) {
    const struct constant_lr *a = s->attrs;
    return a->factor > 0 ? 0
                         : gd_fail_field(error, GD_E_ATTRIBUTE, "factor",
                                         "ConstantLR: factor must be above 0, not %g", a->factor);
}

static void constant_lr_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct constant_lr *a = s->attrs;
    if (s->epoch == 0)
        *dials.lr *= a->factor;
    else if (s->epoch == a->total_iters)
        *dials.lr *= 1 / a->factor;
}

const gd_scheduler gd_scheduler_constant_lr = {
    .kind = {.module = "ConstantLR",
             .doc = "A fraction of the rate until total_iters.",
             GD_ATTRS(struct constant_lr, constant_lr_attrs)},
    .check = constant_lr_check,
    .step = constant_lr_step,
};

/* ---- LinearLR: from lr * start_factor to lr * end_factor in a line ---------------------------------- */

struct linear_lr {
    gd_interval every;
    double start_factor, end_factor;
    int64_t total_iters;
};

static const gd_attr linear_lr_attrs[] = {
    GD_INTERVAL,
    GD_FLOAT(struct linear_lr, start_factor, .min = 0, .max = 1, .number = 1.0 / 3,
             .doc = "what the rate is multiplied with at first; above 0"),
    GD_FLOAT(struct linear_lr, end_factor, .min = 0, .max = 1, .number = 1,
             .doc = "what it is multiplied with in the end"),
    GD_INT(struct linear_lr, total_iters, .min = 1, .number = 5, .doc = "epochs from start to end"),
};

static int linear_lr_check(const gd_schedule *s, gd_error *error) {
    const struct linear_lr *a = s->attrs;
    return a->start_factor > 0
               ? 0
               : gd_fail_field(error, GD_E_ATTRIBUTE, "start_factor",
                               "LinearLR: start_factor must be above 0, not %g", a->start_factor);
}

/* The factor of epoch t over that of t - 1. */
static void linear_lr_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct linear_lr *a = s->attrs;
    const double rise = a->end_factor - a->start_factor;
    if (s->epoch == 0)
        *dials.lr *= a->start_factor;
    else if (s->epoch <= a->total_iters)
        *dials.lr *= 1 + rise / ((double)a->total_iters * a->start_factor + (double)(s->epoch - 1) * rise);
}

const gd_scheduler gd_scheduler_linear_lr = {
    .kind = {.module = "LinearLR",
             .doc = "A linear warm-up (or, with end_factor below start_factor, decay) over total_iters.",
             GD_ATTRS(struct linear_lr, linear_lr_attrs)},
    .check = linear_lr_check,
    .step = linear_lr_step,
};

/* ---- ExponentialLR: lr *= gamma every epoch --------------------------------------------------------- */

struct exponential_lr {
    gd_interval every;
    double gamma;
};

static const gd_attr exponential_lr_attrs[] = {
    GD_INTERVAL,
    GD_FLOAT(struct exponential_lr, gamma, .required = true, .doc = "what the rate is multiplied with"),
};

static void exponential_lr_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    if (s->epoch > 0)
        *dials.lr *= ((const struct exponential_lr *)s->attrs)->gamma;
}

const gd_scheduler gd_scheduler_exponential_lr = {
    .kind = {.module = "ExponentialLR",
             .doc = "Multiplies the rate with gamma every epoch.",
             GD_ATTRS(struct exponential_lr, exponential_lr_attrs)},
    .step = exponential_lr_step,
};

/* ---- PolynomialLR: lr * (1 - t / total_iters)^power ------------------------------------------------- */

struct polynomial_lr {
    gd_interval every;
    int64_t total_iters;
    double power;
};

static const gd_attr polynomial_lr_attrs[] = {
    GD_INTERVAL,
    GD_INT(struct polynomial_lr, total_iters, .min = 1, .number = 5, .doc = "epochs until the rate is 0"),
    GD_FLOAT(struct polynomial_lr, power, .number = 1, .doc = "power of what is left of them"),
};

static void polynomial_lr_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct polynomial_lr *a = s->attrs;
    const double epoch = (double)s->epoch, total = (double)a->total_iters;
    if (s->epoch > 0 && s->epoch <= a->total_iters)
        *dials.lr *= pow((1 - epoch / total) / (1 - (epoch - 1) / total), a->power);
}

const gd_scheduler gd_scheduler_polynomial_lr = {
    .kind = {.module = "PolynomialLR",
             .doc = "A power of the part of total_iters that is left.",
             GD_ATTRS(struct polynomial_lr, polynomial_lr_attrs)},
    .step = polynomial_lr_step,
};
