/* schedule.c -- running any scheduler. */
#include "engine/optim/scheduler.h"

const char *const gd_intervals[] = {"step", "epoch", NULL};

void gd_schedule_begin(gd_schedule *schedule, double base_lr, gd_dials dials) {
    schedule->base_lr = base_lr;
    schedule->epoch = 0;
    memset(schedule->state, 0, sizeof schedule->state);
    gd_scheduler_of(schedule)->step(schedule, NAN, dials);
}

void gd_schedule_advance(gd_schedule *schedule, double metric, gd_dials dials) {
    schedule->epoch++;
    gd_scheduler_of(schedule)->step(schedule, metric, dials);
}

int gd_schedule_ready(const gd_schedule *schedule, gd_error *error) {
    const gd_scheduler *scheduler = gd_scheduler_of(schedule);
    return scheduler->ready ? scheduler->ready(schedule, error) : 0;
}

bool gd_schedule_turns_momentum(const gd_schedule *schedule) {
    const gd_scheduler *scheduler = gd_scheduler_of(schedule);
    if (scheduler->turns_momentum && scheduler->turns_momentum(schedule->attrs))
        return true;
    for (size_t i = 0; i < schedule->child_count; i++)
        if (gd_schedule_turns_momentum(&schedule->children[i]))
            return true;
    return false;
}
