/* optimizer.c -- a model's optimizer: its groups of parameters with their hyperparameters, and the memory for
 * what it keeps. */
#include "engine/model/model.h"

#include <fnmatch.h>

enum { LONGEST_PATTERN = 2 * GD_MAX_NAME - 1 /* bytes: as long as a parameter's name */ };

_Static_assert(GD_MAX_GROUPS < UINT8_MAX, "a group's index fits in group_of");

static int no_memory(gd_error *error) {
    gd_fail(error, GD_E_MEMORY, "no memory for the optimizer");
    return GD_E_MEMORY;
}

/* ---- groups ------------------------------------------------------------------------------------------ */

/* What is being made. */
typedef struct making {
    gd_optimizer_config config;
    const gd_graph *graph;
    size_t index; /* of the group in question */
    gd_error *error;
} making;

/* Put what a pattern matches into the group. @return how many parameters are there now by this pattern */
static size_t take_matches(making *m, const char *pattern, size_t *ret_taken) {
    size_t matches = 0;
    *ret_taken = 0;
    for (int p = 0; p < m->graph->param_count; p++) {
        uint8_t *group = &m->config.group_of[p];
        if (m->graph->params[p].decl->buffer || fnmatch(pattern, m->graph->params[p].name, 0) != 0)
            continue;
        if (*group && *group != m->index + 1) {
            ++*ret_taken;
            continue;
        }
        *group = (uint8_t)(m->index + 1);
        matches++;
    }
    return matches;
}

static int match(making *m, const char *pattern) {
    size_t taken;
    if (strlen(pattern) > LONGEST_PATTERN)
        return gd_fail_field(m->error, GD_E_LIMIT, "params",
                             "param_groups[%zu]: a pattern has at most %d bytes, not %zu", m->index,
                             LONGEST_PATTERN, strlen(pattern));
    if (take_matches(m, pattern, &taken))
        return 0;
    if (taken)
        return gd_fail_field(
            m->error, GD_E_ATTRIBUTE, "params",
            "param_groups[%zu]: '%s' matches only parameters of earlier groups; take it out, "
            "or put this group before them",
            m->index, pattern);
    return gd_fail_field(m->error, GD_E_ATTRIBUTE, "params",
                         "param_groups[%zu]: '%s' matches no trainable parameter; patterns are over whole "
                         "names such as '%s', with * for any characters",
                         m->index, pattern, m->graph->param_count ? m->graph->params[0].name : "fc1.weight");
}

static int read_patterns(making *m, const gd_group_spec *spec, gd_param_group *group) {
    int code = 0;
    if (!spec->pattern_count)
        return gd_fail_field(
            m->error, GD_E_ATTRIBUTE, "params",
            "param_groups[%zu] needs params: a pattern such as \"*.bias\", or a list of them", m->index);
    const char **patterns = GD_ARENA_NEW(&m->config.arena, const char *, spec->pattern_count);
    if (!patterns)
        return no_memory(m->error);
    for (size_t i = 0; i < spec->pattern_count && !code; i++) {
        code = match(m, spec->patterns[i]);
        if (!code && !(patterns[i] = gd_arena_strdup(&m->config.arena, spec->patterns[i])))
            code = no_memory(m->error);
    }
    group->patterns = patterns;
    group->pattern_count = spec->pattern_count;
    return code;
}

/* What the rows can't say; of a group it says which. */
static int check(const gd_optimizer_config *config, size_t group, gd_error *error) {
    char where[32];
    int code = config->optimizer->check ? config->optimizer->check(config->groups[group].attrs, error) : 0;
    if (!group)
        return code;
    snprintf(where, sizeof where, "/param_groups/%zu", group - 1);
    return gd_within(error, where, code);
}

/* The group begins as the default one. */
static int read_group(making *m, const gd_group_spec *spec) {
    const gd_kind *kind = &m->config.optimizer->kind;
    gd_param_group *group = &m->config.groups[m->index + 1];
    char what[64];
    snprintf(what, sizeof what, "%s's param_groups[%zu]", kind->module, m->index);
    memcpy(group->attrs, m->config.groups[0].attrs, sizeof group->attrs);
    group->own = gd_attrs_given(kind, spec->fields, spec->field_count);
    int code = read_patterns(m, spec, group);
    return code ? code : gd_attrs_update(kind, spec->fields, spec->field_count, what, group->attrs, m->error);
}

static int read_groups(making *m, const gd_optimizer_spec *spec) {
    size_t patterns = 0;
    int code = 0;
    for (size_t i = 0; i < spec->group_count; i++)
        patterns += spec->groups[i].pattern_count;
    if (patterns > GD_MAX_PATTERNS)
        return gd_fail_field(m->error, GD_E_LIMIT, "param_groups",
                             "param_groups have %zu patterns, at most %d are allowed", patterns,
                             GD_MAX_PATTERNS);
    for (m->index = 0; m->index < spec->group_count && !code; m->index++) {
        char where[32];
        snprintf(where, sizeof where, "/param_groups/%zu", m->index);
        code = gd_within(m->error, where, read_group(m, &spec->groups[m->index]));
        if (!code)
            code = check(&m->config, m->index + 1, m->error);
    }
    return code;
}

static int make_tables(making *m, const gd_optimizer_spec *spec) {
    gd_optimizer_config *config = &m->config;
    if (spec->group_count > GD_MAX_GROUPS) {
        gd_fail_field(m->error, GD_E_LIMIT, "param_groups",
                      "there are %zu param_groups, at most %d are allowed", spec->group_count, GD_MAX_GROUPS);
        return GD_E_LIMIT;
    }
    config->group_count = 1 + spec->group_count;
    config->groups = GD_ARENA_NEW(&config->arena, gd_param_group, config->group_count);
    config->spare = GD_ARENA_NEW(&config->arena, gd_param_group, config->group_count);
    config->group_of = GD_ARENA_NEW(&config->arena, uint8_t, (size_t)m->graph->param_count);
    return config->groups && config->spare && config->group_of ? 0 : no_memory(m->error);
}

/* The default group, from the optimizer's own hyperparameters. */
static int read_default(making *m, const gd_optimizer_spec *spec, const gd_optimizer_config *from) {
    const gd_kind *kind = &m->config.optimizer->kind;
    char *attrs = m->config.groups[0].attrs;
    int code;
    if (from) {
        memcpy(attrs, from->groups[0].attrs, kind->attr_size);
        code = gd_attrs_update(kind, spec->fields, spec->field_count, kind->module, attrs, m->error);
    } else {
        code = gd_attrs_parse(kind, spec->fields, spec->field_count, kind->module, NULL, attrs, m->error);
    }
    return code ? code : check(&m->config, 0, m->error);
}

int gd_optimizer_configure(const gd_isa *isa, const gd_optimizer_spec *spec, const gd_graph *graph,
                           const gd_optimizer_config *from, gd_optimizer_config *ret_config,
                           gd_error *error) {
    making m = {.graph = graph, .error = error};
    if (!from && !spec->type) {
        *ret_config = m.config;
        return 0;
    }
    if (from) {
        m.config.optimizer = from->optimizer;
    } else {
        const gd_kind *kind = gd_kind_find(GD_OPTIMIZERS, spec->type, error);
        if (!kind)
            return gd_within(error, "/optimizer", GD_E_UNKNOWN_KIND);
        m.config.optimizer = gd_isa_optimizer(isa, (const gd_optimizer *)kind); /* it begins with its kind */
    }
    int code = make_tables(&m, spec);
    if (!code)
        code = read_default(&m, spec, from);
    if (!code && spec->group_count && m.config.optimizer->closure)
        code = gd_fail_field(error, GD_E_ATTRIBUTE, "param_groups",
                             "%s has no param_groups: all parameters are one to it",
                             m.config.optimizer->kind.module);
    if (!code)
        code = read_groups(&m, spec);
    if (code)
        gd_optimizer_config_release(&m.config);
    else
        *ret_config = m.config;
    return gd_within(error, "/optimizer", code);
}

void gd_optimizer_config_release(gd_optimizer_config *config) {
    gd_arena_release(&config->arena);
    *config = (gd_optimizer_config){0};
}

int gd_optimizer_override(const gd_optimizer_config *config, const gd_field *fields, size_t field_count,
                          gd_optimizer_config *ret_config, gd_error *error) {
    gd_optimizer_config changed = *config;
    const gd_optimizer *optimizer = config->optimizer;
    changed.groups = config->spare;
    memcpy(changed.groups, config->groups, config->group_count * sizeof *config->groups);
    const uint64_t given = gd_attrs_given(&optimizer->kind, fields, field_count);
    char *attrs = changed.groups[0].attrs;
    int code = gd_attrs_update(&optimizer->kind, fields, field_count, optimizer->kind.module, attrs, error);
    for (size_t g = 0; g < changed.group_count && !code; g++) {
        if (g)
            gd_attrs_copy(&optimizer->kind, given & ~changed.groups[g].own, attrs, changed.groups[g].attrs);
        code = check(&changed, g, error);
    }
    if (!code)
        *ret_config = changed;
    return code;
}

/* ---- what it keeps ----------------------------------------------------------------------------------- */

size_t gd_optimizer_closure_bytes(const gd_optimizer_config *config, size_t slab_floats) {
    const gd_closure_optimizer *closure = config->optimizer ? config->optimizer->closure : NULL;
    return closure ? closure->state_bytes(config->groups[0].attrs, (int64_t)slab_floats) : 0;
}

/* Bit k: some group uses block k, now or once the scheduler turns its momentum. */
static unsigned slots_used(const gd_optimizer_config *config, const gd_schedule *schedule) {
    const gd_optimizer *optimizer = config->optimizer;
    if (!optimizer)
        return 0;
    if (optimizer->closure)
        return 1U << GD_CLOSURE_STATE;
    if (!optimizer->slots_used)
        return (1U << optimizer->slot_count) - 1;
    const bool turned = schedule && gd_schedule_turns_momentum(schedule);
    unsigned used = 0;
    for (size_t g = 0; g < config->group_count; g++) {
        gd_param_group group = config->groups[g];
        if (turned)
            *(double *)(void *)(group.attrs + optimizer->momentum_offset) = 0.5; /* any but 0 */
        used |= optimizer->slots_used(group.attrs);
    }
    return used;
}

void gd_optimizer_state_sizes(const gd_optimizer_config *config, const gd_schedule *schedule,
                              size_t slab_floats, size_t ret_sizes[GD_STATE_BLOCKS]) {
    const unsigned used = slots_used(config, schedule);
    for (int k = 0; k < GD_MAX_SLOTS; k++)
        ret_sizes[k] = used >> k & 1 ? slab_floats * sizeof(float) : 0;
    ret_sizes[GD_CLOSURE_STATE] = gd_optimizer_closure_bytes(config, slab_floats);
}

int gd_model_make_state(gd_model *model, const gd_optimizer_config *config, const gd_schedule *schedule,
                        gd_error *error) {
    gd_block *blocks[GD_STATE_BLOCKS];
    size_t sizes[GD_STATE_BLOCKS];
    gd_optimizer_state_sizes(config, schedule, model->slab_floats, sizes);
    for (int k = 0; k < GD_STATE_BLOCKS; k++)
        blocks[k] = &model->state[k];
    return gd_blocks_grow(blocks, sizes, GD_STATE_BLOCKS, gd_model_budget(model), error);
}

void gd_model_clear_state(gd_model *model) {
    const size_t params = (size_t)model->graph->param_count;
    const unsigned used = slots_used(&model->optimizer, model->schedule.schedule);
    for (int k = 0; k < GD_STATE_BLOCKS; k++)
        if (!(used >> k & 1))
            gd_block_release(&model->state[k], gd_model_budget(model));
        else if (model->state[k].data)
            memset(model->state[k].data, 0, model->state[k].size);
    memset(model->param_steps, 0, params * sizeof *model->param_steps);
    memset(model->param_scalars, 0, params * GD_MAX_SCALARS * sizeof *model->param_scalars);
}

/* ---- looking at it ----------------------------------------------------------------------------------- */

const gd_kind *gd_model_optimizer_kind(const gd_model *model, const void **ret_attrs) {
    const gd_optimizer_config *config = &model->optimizer;
    *ret_attrs = config->optimizer ? config->groups[0].attrs : NULL;
    return config->optimizer ? &config->optimizer->kind : NULL;
}

bool gd_model_group(const gd_model *model, size_t index, gd_group *ret_group) {
    if (index >= model->optimizer.group_count)
        return false;
    const gd_param_group *group = &model->optimizer.groups[index];
    const gd_schedule *schedule = gd_schedule_of(&model->schedule, index);
    *ret_group = (gd_group){.attrs = group->attrs,
                            .patterns = group->patterns,
                            .pattern_count = group->pattern_count,
                            .initial_lr = schedule ? schedule->base_lr : NAN};
    return true;
}

size_t gd_model_group_of(const gd_model *model, size_t parameter) {
    return model->optimizer.optimizer ? model->optimizer.group_of[parameter] : 0;
}

double gd_model_lr(const gd_model *model) {
    return model->optimizer.optimizer ? *gd_optimizer_lr(&model->optimizer, 0) : NAN;
}
