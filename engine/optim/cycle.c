/* cycle.c -- schedulers between two rates, with the momentum the other way round: CyclicLR, OneCycleLR.
 * Formulas: torch.optim.lr_scheduler's classes of these names. */
#include "engine/optim/scheduler.h"

static int check_momentum(const char *what, double base, double max, gd_error *error) {
    if (base < 1 && max < 1)
        return 0;
    return gd_fail_field(error, GD_E_ATTRIBUTE, base < 1 ? "max_momentum" : "base_momentum",
                         "%s: base_momentum and max_momentum must be below 1, not %g and %g", what, base,
                         max);
}

/* ---- CyclicLR ------------------------------------------------------------------------------------------ */

struct cyclic {
    gd_interval every;
    double base_lr, max_lr;
    int64_t step_size_up, step_size_down;
    int mode;
    double gamma;
    bool cycle_momentum;
    double base_momentum, max_momentum;
};

enum { TRIANGULAR, TRIANGULAR2, EXP_RANGE };
static const char *const cyclic_modes[] = {"triangular", "triangular2", "exp_range", NULL};

static const gd_attr cyclic_attrs[] = {
    GD_INTERVAL,
    GD_FLOAT(struct cyclic, base_lr, .min = 0, .required = true, .doc = "smallest rate"),
    GD_FLOAT(struct cyclic, max_lr, .min = 0, .required = true, .doc = "largest rate of the first cycle"),
    GD_INT(struct cyclic, step_size_up, .min = 1, .number = 2000, .doc = "epochs from base_lr to max_lr"),
    GD_INT(struct cyclic, step_size_down, .min = 1, .nullable = true, .number = NAN,
           .doc = "epochs back; null: as many as up"),
    GD_CHOICE(struct cyclic, mode, .choices = cyclic_modes,
              .doc = "the same cycle again and again, half as high each time, or gamma^epoch as high"),
    GD_FLOAT(struct cyclic, gamma, .number = 1, .doc = "of exp_range"),
    GD_BOOL(struct cyclic, cycle_momentum, .number = 1,
            .doc = "momentum (or the first beta) goes the other way"),
    GD_FLOAT(struct cyclic, base_momentum, .min = 0, .max = 1, .number = 0.8, .doc = "smallest momentum"),
    GD_FLOAT(struct cyclic, max_momentum, .min = 0, .max = 1, .number = 0.9, .doc = "largest momentum"),
};

static int cyclic_check(const gd_schedule *s, gd_error *error) {
    const struct cyclic *a = s->attrs;
    return check_momentum("CyclicLR", a->base_momentum, a->max_momentum, error);
}

static bool cyclic_turns_momentum(const void *attrs) {
    return ((const struct cyclic *)attrs)->cycle_momentum;
}

/* base_lr + (max_lr - base_lr) * (how far up the present cycle is) * (how high it is). */
static void cyclic_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct cyclic *a = s->attrs;
    const double up = (double)a->step_size_up, epoch = (double)s->epoch;
    const double total = up + (a->step_size_down == GD_NONE ? up : (double)a->step_size_down);
    const double ratio = up / total, cycle = floor(1 + epoch / total), x = 1 + epoch / total - cycle;
    const double share = x <= ratio ? x / ratio : (x - 1) / (ratio - 1);
    const double scale = a->mode == TRIANGULAR    ? 1
                         : a->mode == TRIANGULAR2 ? 1 / pow(2, cycle - 1)
                                                  : pow(a->gamma, epoch);
    *dials.lr = a->base_lr + (a->max_lr - a->base_lr) * share * scale;
    if (a->cycle_momentum)
        *dials.momentum = a->max_momentum - (a->max_momentum - a->base_momentum) * share * scale;
}

const gd_scheduler gd_scheduler_cyclic = {
    .kind = {.module = "CyclicLR",
             .doc = "Up and down between two rates, again and again.",
             GD_ATTRS(struct cyclic, cyclic_attrs)},
    .check = cyclic_check,
    .turns_momentum = cyclic_turns_momentum,
    .step = cyclic_step,
};

/* ---- OneCycleLR ---------------------------------------------------------------------------------------- */

struct one_cycle {
    gd_interval every;
    double max_lr;
    int64_t total_steps, epochs, steps_per_epoch;
    double pct_start;
    int anneal_strategy;
    bool cycle_momentum;
    double base_momentum, max_momentum, div_factor, final_div_factor;
    bool three_phase;
};

static const char *const anneal_strategies[] = {"cos", "linear", NULL};

static const gd_attr one_cycle_attrs[] = {
    GD_INTERVAL,
    GD_FLOAT(struct one_cycle, max_lr, .min = 0, .required = true, .doc = "largest rate"),
    GD_INT(struct one_cycle, total_steps, .min = 1, .nullable = true, .number = NAN,
           .doc = "length of the cycle; null: epochs * steps_per_epoch"),
    GD_INT(struct one_cycle, epochs, .min = 1, .nullable = true, .number = NAN, .doc = "see total_steps"),
    GD_INT(struct one_cycle, steps_per_epoch, .min = 1, .nullable = true, .number = NAN,
           .doc = "see total_steps"),
    GD_FLOAT(struct one_cycle, pct_start, .min = 0, .max = 1, .number = 0.3,
             .doc = "part of the cycle on the way up"),
    GD_CHOICE(struct one_cycle, anneal_strategy, .choices = anneal_strategies,
              .doc = "along a cosine or a line"),
    GD_BOOL(struct one_cycle, cycle_momentum, .number = 1,
            .doc = "momentum (or the first beta) goes the other way"),
    GD_FLOAT(struct one_cycle, base_momentum, .min = 0, .max = 1, .number = 0.85, .doc = "smallest momentum"),
    GD_FLOAT(struct one_cycle, max_momentum, .min = 0, .max = 1, .number = 0.95, .doc = "largest momentum"),
    GD_FLOAT(struct one_cycle, div_factor, .min = 0, .number = 25,
             .doc = "max_lr over the first rate; above 0"),
    GD_FLOAT(struct one_cycle, final_div_factor, .min = 0, .number = 1e4,
             .doc = "the first rate over the last; above 0"),
    GD_BOOL(struct one_cycle, three_phase,
            .doc = "down to the first rate as fast as up, then on to the last; else straight to the last"),
};

static int64_t total_steps(const struct one_cycle *a) {
    return a->total_steps != GD_NONE ? a->total_steps : a->epochs * a->steps_per_epoch;
}

static int one_cycle_check(const gd_schedule *s, gd_error *error) {
    const struct one_cycle *a = s->attrs;
    if (a->total_steps == GD_NONE && (a->epochs == GD_NONE || a->steps_per_epoch == GD_NONE))
        return gd_fail_field(error, GD_E_ATTRIBUTE, "total_steps",
                             "OneCycleLR needs total_steps, or epochs and steps_per_epoch");
    if (!(a->div_factor > 0))
        return gd_fail_field(error, GD_E_ATTRIBUTE, "div_factor", "OneCycleLR: div_factor must be above 0");
    if (!(a->final_div_factor > 0))
        return gd_fail_field(error, GD_E_ATTRIBUTE, "final_div_factor",
                             "OneCycleLR: final_div_factor must be above 0");
    return check_momentum("OneCycleLR", a->base_momentum, a->max_momentum, error);
}

static bool one_cycle_turns_momentum(const void *attrs) {
    return ((const struct one_cycle *)attrs)->cycle_momentum;
}

static int one_cycle_ready(const gd_schedule *s, gd_error *error) {
    const int64_t total = total_steps(s->attrs);
    if (s->epoch < total)
        return 0;
    return gd_fail(error, GD_E_STATE,
                   "OneCycleLR's %lld steps are over; give the model another scheduler, or none",
                   (long long)total);
}

/* From start to end, part 0 ... 1 of the way. */
static double anneal(const struct one_cycle *a, double start, double end, double part) {
    return a->anneal_strategy ? (end - start) * part + start
                              : end + (start - end) / 2 * (cos(M_PI * part) + 1);
}

typedef struct phase {
    double end; /* its last epoch */
    double from_lr, to_lr, from_momentum, to_momentum;
} phase;

static void one_cycle_step(gd_schedule *s, double metric, gd_dials dials) {
    (void)metric;
    const struct one_cycle *a = s->attrs;
    const double total = (double)total_steps(a), epoch = (double)s->epoch, up = a->pct_start * total;
    const double first = a->max_lr / a->div_factor, last = first / a->final_div_factor;
    const phase one = {up - 1, first, a->max_lr, a->max_momentum, a->base_momentum};
    const phase phases[2][3] = {
        {one, {total - 1, a->max_lr, last, a->base_momentum, a->max_momentum}},
        {one,
         {2 * up - 2, a->max_lr, first, a->base_momentum, a->max_momentum},
         {total - 1, first, last, a->max_momentum, a->max_momentum}},
    };
    const phase *at = phases[a->three_phase], *final = at + 1 + a->three_phase;
    double start = 0;
    while (at < final && epoch > at->end)
        start = (at++)->end;
    const double part = at->end == start ? 1 : (epoch - start) / (at->end - start);
    *dials.lr = anneal(a, at->from_lr, at->to_lr, part);
    if (a->cycle_momentum)
        *dials.momentum = anneal(a, at->from_momentum, at->to_momentum, part);
}

const gd_scheduler gd_scheduler_one_cycle = {
    .kind = {.module = "OneCycleLR",
             .doc = "Once up to max_lr and far down again, over total_steps.",
             GD_ATTRS(struct one_cycle, one_cycle_attrs)},
    .check = one_cycle_check,
    .turns_momentum = one_cycle_turns_momentum,
    .ready = one_cycle_ready,
    .step = one_cycle_step,
};
