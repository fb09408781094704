/* sequence.c -- schedulers made of others: SequentialLR, ChainedScheduler. Formulas:
 * torch.optim.lr_scheduler's classes of these names. */
#include "engine/optim/scheduler.h"

/* ---- SequentialLR ----------------------------------------------------------------------------------- */

struct sequential {
    gd_interval every;
    gd_ints milestones;
};

static const gd_attr sequential_attrs[] = {
    GD_INTERVAL,
    GD_INTS(struct sequential, milestones, .min = 1, .required = true,
            .doc = "epoch at which each scheduler but the first takes over"),
};

static int sequential_check(const gd_schedule *s, gd_error *error) {
    const gd_ints *milestones = &((const struct sequential *)s->attrs)->milestones;
    if (milestones->count + 1 != s->child_count)
        return gd_fail_field(error, GD_E_ATTRIBUTE, "milestones",
                             "SequentialLR: %zu schedulers need %zu milestones, not %zu", s->child_count,
                             s->child_count - 1, milestones->count);
    for (size_t i = 1; i < milestones->count; i++)
        if (milestones->data[i] <= milestones->data[i - 1])
            return gd_fail_field(error, GD_E_ATTRIBUTE, "milestones",
                                 "SequentialLR: each milestone must be above the one before, and %lld is not",
                                 (long long)milestones->data[i]);
    return 0;
}

/* Whose turn it is at an epoch, and whether it begins then. */
static gd_schedule *turn(const gd_schedule *s, int64_t epoch, bool *ret_begins) {
    const gd_ints *milestones = &((const struct sequential *)s->attrs)->milestones;
    size_t index = 0;
    while (index < milestones->count && milestones->data[index] <= epoch)
        index++;
    *ret_begins = index ? milestones->data[index - 1] == epoch : epoch == 0;
    return &s->children[index];
}

static int sequential_ready(const gd_schedule *s, gd_error *error) {
    bool begins;
    const gd_schedule *child = turn(s, s->epoch + 1, &begins);
    return begins ? 0 : gd_schedule_ready(child, error);
}

/* Each one starts from the rate before any scheduler. */
static void sequential_step(gd_schedule *s, double metric, gd_dials dials) {
    bool begins;
    gd_schedule *child = turn(s, s->epoch, &begins);
    if (!begins) {
        gd_schedule_advance(child, metric, dials);
        return;
    }
    *dials.lr = s->base_lr;
    gd_schedule_begin(child, s->base_lr, dials);
}

const gd_scheduler gd_scheduler_sequential = {
    .kind = {.module = "SequentialLR",
             .doc = "One scheduler after another: \"schedulers\" is a list of them.",
             GD_ATTRS(struct sequential, sequential_attrs)},
    .nests = true,
    .check = sequential_check,
    .ready = sequential_ready,
    .step = sequential_step,
};

/* ---- ChainedScheduler ------------------------------------------------------------------------------- */

static const gd_attr chained_attrs[] = {GD_INTERVAL};

static int chained_ready(const gd_schedule *s, gd_error *error) {
    int code = 0;
    for (size_t i = 0; i < s->child_count && !code; i++)
        code = gd_schedule_ready(&s->children[i], error);
    return code;
}

/* Each acts on what the one before left. */
static void chained_step(gd_schedule *s, double metric, gd_dials dials) {
    for (size_t i = 0; i < s->child_count; i++)
        if (s->epoch == 0)
            gd_schedule_begin(&s->children[i], s->base_lr, dials);
        else
            gd_schedule_advance(&s->children[i], metric, dials);
}

const gd_scheduler gd_scheduler_chained = {
    .kind = {.module = "ChainedScheduler",
             .doc = "Several schedulers at once, each on what the one before left: \"schedulers\" is a list "
                    "of them.",
             GD_ATTRS(gd_interval, chained_attrs)},
    .nests = true,
    .ready = chained_ready,
    .step = chained_step,
};
