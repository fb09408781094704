/* scheduler.h -- what a scheduler is: attributes, some numbers of its own, and what it makes of the
 * optimizer's learning rate (and momentum) from one epoch to the next. Formulas: torch.optim.lr_scheduler, in
 * the chainable form: each acts on the rate as it finds it. */
#ifndef GD_OPTIM_SCHEDULER_H
#define GD_OPTIM_SCHEDULER_H

#include "engine/graph/op.h"

enum { GD_INTERVAL_STEP, GD_INTERVAL_EPOCH };

/** What every scheduler's attribute struct begins with. */
typedef struct gd_interval {
    int interval; /* GD_INTERVAL_... */
} gd_interval;

extern const char *const gd_intervals[];

/* The first row of every table over a struct that begins with `gd_interval every`. */
#define GD_INTERVAL \
    { \
        .name = "interval", .type = GD_ATTR_CHOICE, .offset = offsetof(gd_interval, interval), \
        .choices = gd_intervals, \
        .doc = "advances with every optimizer step, or with epochs, whenever the client says one is over" \
    }

/** What a scheduler turns: fields of the optimizer's attributes. */
typedef struct gd_dials {
    double *lr;
    double *momentum; /* or the first beta; NULL: the optimizer has neither */
} gd_dials;

typedef struct gd_scheduler {
    gd_kind kind;
    bool nests;        /* made of other schedulers */
    bool needs_metric; /* steps by one, given with every epoch */
    size_t state_count;
    const char *const *state_names; /* torch's: "num_bad_epochs" */
    /** What the rows can't say. May be NULL. @return 0; GD_E_ATTRIBUTE */
    int (*check)(const gd_schedule *schedule, gd_error *error);
    /** Does it turn the momentum too? NULL: never. */
    bool (*turns_momentum)(const void *attrs);
    /** Whether there is a next epoch. NULL: always. @return 0; GD_E_STATE */
    int (*ready)(const gd_schedule *schedule, gd_error *error);
    /** Set the dials for schedule->epoch. At epoch 0 the state is all zero, the rate what it is before. */
    void (*step)(gd_schedule *schedule, double metric, gd_dials dials);
} gd_scheduler;

extern const gd_scheduler *const gd_schedulers[];
extern const size_t gd_scheduler_count;

static inline const gd_scheduler *gd_scheduler_of(const gd_schedule *schedule) {
    return (const gd_scheduler *)schedule->kind; /* a gd_scheduler begins with its kind */
}

/* ---- schedule.c ---- */
/** Start from epoch 0. @param base_lr the optimizer's rate before any scheduler */
void gd_schedule_begin(gd_schedule *schedule, double base_lr, gd_dials dials);
/** Go on to the next epoch. @param metric NAN when there is none */
void gd_schedule_advance(gd_schedule *schedule, double metric, gd_dials dials);
/** Whether gd_schedule_advance() may be called. @return 0; GD_E_STATE */
int gd_schedule_ready(const gd_schedule *schedule, gd_error *error);
bool gd_schedule_turns_momentum(const gd_schedule *schedule);

#endif
