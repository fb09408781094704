/* schedule.c -- a model's scheduler: made from a specification, bound to the optimizer, stepped. */
#include "engine/model/model.h"

void gd_schedule_config_release(gd_schedule_config *config) {
    gd_arena_release(&config->arena);
    free(config->groups);
    *config = (gd_schedule_config){0};
}

static int make(const gd_scheduler_spec *spec, bool nested, gd_arena *arena, gd_schedule *schedule,
                gd_error *error);

static int make_children(const gd_scheduler_spec *spec, gd_arena *arena, gd_schedule *schedule,
                         gd_error *error) {
    const char *name = schedule->kind->module;
    if (!gd_scheduler_of(schedule)->nests)
        return spec->scheduler_count ? gd_fail_field(error, GD_E_ATTRIBUTE, "schedulers",
                                                     "%s has no attribute 'schedulers'", name)
                                     : 0;
    if (spec->scheduler_count < 1 || spec->scheduler_count > GD_MAX_SCHEDULERS)
        return gd_fail_field(error, GD_E_ATTRIBUTE, "schedulers",
                             "%s needs a list \"schedulers\" of 1 to %d, not %zu", name, GD_MAX_SCHEDULERS,
                             spec->scheduler_count);
    schedule->children = GD_ARENA_NEW(arena, gd_schedule, spec->scheduler_count);
    if (!schedule->children)
        return gd_fail(error, GD_E_MEMORY, "no memory for the scheduler");
    schedule->child_count = spec->scheduler_count;
    int code = 0;
    for (size_t i = 0; i < spec->scheduler_count && !code; i++)
        code = make(&spec->schedulers[i], true, arena, &schedule->children[i], error);
    return code;
}

/* What can't stand within another: one that is made of others, has a pace or wants a metric of its own. */
static int check_nested(const gd_schedule *schedule, gd_error *error) {
    const gd_scheduler *scheduler = gd_scheduler_of(schedule);
    if (scheduler->nests || scheduler->needs_metric)
        return gd_fail_field(error, GD_E_ATTRIBUTE, "schedulers", "%s can't be one of several schedulers",
                             schedule->kind->module);
    if (!gd_schedule_by_step(schedule))
        return gd_fail_field(error, GD_E_ATTRIBUTE, "interval",
                             "%s is one of several schedulers: give interval to the one they make up",
                             schedule->kind->module);
    return 0;
}

static int make(const gd_scheduler_spec *spec, bool nested, gd_arena *arena, gd_schedule *schedule,
                gd_error *error) {
    const gd_kind *kind = gd_kind_find(GD_SCHEDULERS, spec->type, error);
    if (!kind)
        return GD_E_UNKNOWN_KIND;
    const gd_scheduler *scheduler = (const gd_scheduler *)kind; /* a gd_scheduler begins with its kind */
    *schedule = (gd_schedule){
        .kind = kind, .state_count = scheduler->state_count, .state_names = scheduler->state_names};
    void *attrs = gd_arena_alloc(arena, 1, kind->attr_size);
    schedule->attrs = attrs;
    int code = attrs
                   ? gd_attrs_parse(kind, spec->fields, spec->field_count, kind->module, arena, attrs, error)
                   : gd_fail(error, GD_E_MEMORY, "no memory for the scheduler");
    if (!code && nested)
        code = check_nested(schedule, error);
    if (!code)
        code = make_children(spec, arena, schedule, error);
    if (!code && scheduler->check)
        code = scheduler->check(schedule, error);
    return code;
}

int gd_schedule_configure(const gd_scheduler_spec *spec, gd_schedule_config *ret_config, gd_error *error) {
    gd_schedule_config config = {0};
    int code = 0;
    if (spec->type) {
        config.schedule = GD_ARENA_NEW(&config.arena, gd_schedule, 1);
        code = config.schedule ? make(spec, false, &config.arena, config.schedule, error)
                               : gd_fail(error, GD_E_MEMORY, "no memory for the scheduler");
    }
    if (code)
        gd_schedule_config_release(&config);
    else
        *ret_config = config;
    return code;
}

int gd_schedule_fits(const gd_schedule *schedule, const gd_optimizer_config *optimizer, gd_error *error) {
    if (!schedule)
        return 0;
    if (!optimizer->optimizer)
        return gd_fail(error, GD_E_STATE,
                       "%s needs an optimizer, and the model has none; give it one first or along with it",
                       schedule->kind->module);
    if (!optimizer->optimizer->momentum_offset && gd_schedule_turns_momentum(schedule))
        return gd_fail_field(error, GD_E_ATTRIBUTE, "cycle_momentum",
                             "%s would cycle the momentum, but %s has none; set cycle_momentum to false",
                             schedule->kind->module, optimizer->optimizer->kind.module);
    return 0;
}

/* ---- one for each group: same attributes, other rates -------------------------------------------------- */

/* A scheduler and its children; those have none (check_nested). */
static size_t nodes_of(const gd_schedule *schedule) {
    return 1 + schedule->child_count;
}

gd_schedule *gd_schedule_of(const gd_schedule_config *config, size_t group) {
    return config->schedule ? config->groups + group * nodes_of(config->schedule) : NULL;
}

int gd_schedule_for_groups(const gd_schedule_config *config, size_t count, gd_schedule **ret_groups,
                           gd_error *error) {
    const gd_schedule *from = config->schedule;
    if (!from) {
        *ret_groups = NULL;
        return 0;
    }
    const size_t nodes = nodes_of(from);
    gd_schedule *groups = calloc(count, nodes * sizeof *groups);
    if (!groups)
        return gd_fail(error, GD_E_MEMORY, "no memory for the scheduler");
    for (size_t g = 0; g < count; g++) {
        gd_schedule *own = groups + g * nodes;
        own[0] = *from;
        own[0].children = own + 1;
        for (size_t i = 0; i < from->child_count; i++)
            own[1 + i] = from->children[i];
    }
    *ret_groups = groups;
    return 0;
}

static gd_dials dials_of(const gd_optimizer_config *config, size_t group) {
    const size_t momentum = config->optimizer->momentum_offset;
    return (gd_dials){.lr = gd_optimizer_lr(config, group),
                      .momentum =
                          momentum ? (double *)(void *)(config->groups[group].attrs + momentum) : NULL};
}

void gd_schedule_start(gd_schedule_config *config, gd_schedule *groups,
                       const gd_optimizer_config *optimizer) {
    free(config->groups);
    config->groups = groups;
    for (size_t g = 0; config->schedule && g < optimizer->group_count; g++)
        gd_schedule_begin(gd_schedule_of(config, g), *gd_optimizer_lr(optimizer, g), dials_of(optimizer, g));
}

bool gd_schedule_by_step(const gd_schedule *schedule) {
    return !gd_scheduler_of(schedule)->needs_metric &&
           ((const gd_interval *)schedule->attrs)->interval == GD_INTERVAL_STEP;
}

void gd_model_advance(gd_model *model, double metric) {
    for (size_t g = 0; g < model->optimizer.group_count; g++)
        gd_schedule_advance(gd_schedule_of(&model->schedule, g), metric, dials_of(&model->optimizer, g));
}

const gd_schedule *gd_model_scheduler(const gd_model *model) {
    return gd_schedule_of(&model->schedule, 0);
}

int gd_model_scheduler_step(gd_model *model, const double *metric, gd_error *error) {
    const gd_schedule *schedule = gd_model_scheduler(model);
    if (!schedule)
        return gd_fail(
            error, GD_E_STATE,
            "the model has no scheduler; give it one first: PATCH it with {\"scheduler\": {\"type\": "
            "\"StepLR\", ...}}");
    const char *name = schedule->kind->module;
    if (gd_schedule_by_step(schedule))
        return gd_fail(error, GD_E_STATE,
                       "%s advances with every optimizer step; for epochs give it \"interval\": \"epoch\"",
                       name);
    if (gd_scheduler_of(schedule)->needs_metric != (metric != NULL))
        return gd_fail_field(error, GD_E_VALUE, "metric", metric ? "%s takes no metric" : "%s needs a metric",
                             name);
    int code = gd_schedule_ready(schedule, error);
    if (code)
        return code;
    gd_model_advance(model, metric ? *metric : NAN);
    model->version++;
    return 0;
}
