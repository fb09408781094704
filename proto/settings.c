/* settings.c -- losses, optimizers and schedulers from JSON. What an attribute may be is for the engine to
 * say. */
#include "names.h"
#include "reader.h"

/* An object's type and attributes; what has one of the names in `others` (the first is "type") is neither. */
static int read_typed(gp_reader *r, json_t *json, const char *pointer, bool type_required,
                      const char *const *others, size_t other_count, gd_kind_spec *ret_spec) {
    gd_kind_spec spec = {.type = NULL};
    if (!json_is_object(json))
        return gp_wrong_type(r, json, pointer, "an object with a \"type\", or the type's name alone");
    const json_t *type = json_object_get(json, "type");
    if (!type && type_required)
        return gp_missing(r, pointer, "type", "");
    if ((type && gp_read_string(r, type, gp_below(pointer, "type").pointer, &spec.type) < 0) ||
        gp_read_fields(r, json, pointer, others, other_count, &spec.fields, &spec.field_count) < 0)
        return -1;
    *ret_spec = spec;
    return 0;
}

int gp_read_kind(gp_reader *r, json_t *json, const char *pointer, bool type_required,
                 gd_kind_spec *ret_spec) {
    static const char *const others[] = {"type"};
    if (json_is_string(json))
        return gp_read_string(r, json, pointer, &ret_spec->type);
    return read_typed(r, json, pointer, type_required, others, COUNT(others), ret_spec);
}

/* A term of a loss. In a list a number "weight" is the term's; "loss_weight" is always, so that "weight" is
 * free to be an attribute of the loss. */
static int read_term(gp_reader *r, json_t *json, const char *pointer, bool listed, gd_term_spec *term) {
    static const char *const others[] = {"type", "output", "target", "loss_weight", "weight"};
    *term = (gd_term_spec){.weight = 1};
    if (!json_is_object(json))
        return gp_read_kind(r, json, pointer, true, &term->loss);
    const json_t *type = json_object_get(json, "type"), *output = json_object_get(json, "output"),
                 *target = json_object_get(json, "target"), *own = json_object_get(json, "weight"),
                 *weight = json_object_get(json, "loss_weight");
    const bool short_form = listed && !weight && json_is_number(own);
    if (!type)
        return gp_missing(r, pointer, "type", "");
    if (weight && !json_is_number(weight))
        return gp_wrong_type(r, weight, gp_below(pointer, "loss_weight").pointer, "a number");
    if (weight || short_form)
        term->weight = json_number_value(weight ? weight : own);
    if (gp_read_string(r, type, gp_below(pointer, "type").pointer, &term->loss.type) < 0 ||
        (output && gp_read_string(r, output, gp_below(pointer, "output").pointer, &term->output) < 0) ||
        (target && gp_read_string(r, target, gp_below(pointer, "target").pointer, &term->target) < 0))
        return -1;
    if (term->target && !gp_tensor_name_ok(term->target + (*term->target == '@')))
        return gp_fail(r->error, GP_INVALID_NAME, gp_below(pointer, "target").pointer,
                       "a target's name must be letters, digits and '_', in words joined by '.', with an @ "
                       "before it where it is an input of the network, and not data, shape, dtype or base64");
    return gp_read_fields(r, json, pointer, others, COUNT(others) - !short_form, &term->loss.fields,
                          &term->loss.field_count);
}

int gp_read_terms(gp_reader *r, json_t *json, const char *pointer, gd_loss_spec *ret_loss) {
    const bool listed = json_is_array(json);
    const size_t count = listed ? json_array_size(json) : 1;
    if (count == 0 || count > GD_MAX_TERMS)
        return gp_fail(r->error, count ? GP_LIMIT_EXCEEDED : GP_INVALID_VALUE, pointer,
                       "a loss must have 1 to %d terms, not %zu", GD_MAX_TERMS, count);
    gd_term_spec *terms = gp_take(r, count, sizeof *terms);
    if (!terms)
        return -1;
    for (size_t i = 0; i < count; i++)
        if ((listed ? read_term(r, json_array_get(json, i), gp_element(pointer, i).pointer, true, &terms[i])
                    : read_term(r, json, pointer, false, &terms[i])) < 0)
            return -1;
    *ret_loss = (gd_loss_spec){.terms = terms, .term_count = count};
    return 0;
}

int gp_loss_spec_read(json_t *json, const char *pointer, gp_loss_spec *ret_spec, gp_error *error) {
    gp_reader r = {.error = error};
    gd_loss_spec spec;
    if (gp_read_terms(&r, json, pointer, &spec) < 0) {
        gp_release(r.memory);
        return -1;
    }
    *ret_spec = (gp_loss_spec){.spec = spec, .memory = r.memory};
    return 0;
}

void gp_loss_spec_release(gp_loss_spec *spec) {
    gp_release(spec->memory);
    *spec = (gp_loss_spec){.memory = NULL};
}

/* "*.bias" or ["*.bias", "bn*"] */
static int read_patterns(gp_reader *r, const json_t *json, const char *pointer, gd_group_spec *group) {
    const bool single = json_is_string(json);
    if (!single && !json_is_array(json))
        return gp_wrong_type(r, json, pointer, "a pattern such as \"*.bias\", or a list of them");
    const size_t count = single ? 1 : json_array_size(json);
    const char **patterns = gp_take(r, count, sizeof *patterns);
    if (!patterns || (single && gp_read_string(r, json, pointer, patterns) < 0))
        return -1;
    for (size_t i = 0; !single && i < count; i++)
        if (gp_read_string(r, json_array_get(json, i), gp_element(pointer, i).pointer, &patterns[i]) < 0)
            return -1;
    group->patterns = patterns;
    group->pattern_count = count;
    return 0;
}

/* {"params": "*.bias", hyperparameters ...} */
static int read_group(gp_reader *r, json_t *json, const char *pointer, gd_group_spec *group) {
    static const char *const others[] = {"params"};
    if (!json_is_object(json))
        return gp_wrong_type(r, json, pointer,
                             "an object such as {\"params\": \"*.bias\", \"weight_decay\": 0}");
    const json_t *params = json_object_get(json, "params");
    if (json_object_get(json, "type"))
        return gp_fail(r->error, GP_UNKNOWN_FIELD, gp_below(pointer, "type").pointer,
                       "a group has the optimizer's type: take \"type\" out");
    if (!params)
        return gp_missing(r, pointer, "params", ": a pattern over parameters' names, or a list of them");
    if (read_patterns(r, params, gp_below(pointer, "params").pointer, group) < 0)
        return -1;
    return gp_read_fields(r, json, pointer, others, COUNT(others), &group->fields, &group->field_count);
}

static int read_groups(gp_reader *r, json_t *json, const char *pointer, gd_optimizer_spec *spec) {
    const size_t count = json_array_size(json);
    if (!json_is_array(json))
        return gp_wrong_type(r, json, pointer,
                             "a list of groups such as {\"params\": \"*.bias\", \"lr\": 0.1}");
    gd_group_spec *groups = gp_take(r, count, sizeof *groups);
    if (!groups)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (read_group(r, json_array_get(json, i), gp_element(pointer, i).pointer, &groups[i]) < 0)
            return -1;
    spec->groups = groups;
    spec->group_count = count;
    return 0;
}

/* {"type": ..., hyperparameters ..., "param_groups": [...]}, or the type's name alone. */
int gp_read_optimizer(gp_reader *r, json_t *json, const char *pointer, bool type_required,
                      gd_optimizer_spec *ret_spec) {
    static const char *const others[] = {"type", "param_groups"};
    gd_kind_spec kind = {.type = NULL};
    gd_optimizer_spec spec = {.type = NULL};
    json_t *groups = json_object_get(json, "param_groups");
    if ((json_is_string(json)
             ? gp_read_string(r, json, pointer, &kind.type)
             : read_typed(r, json, pointer, type_required, others, COUNT(others), &kind)) < 0 ||
        (groups && read_groups(r, groups, gp_below(pointer, "param_groups").pointer, &spec) < 0))
        return -1;
    spec.type = kind.type;
    spec.fields = kind.fields;
    spec.field_count = kind.field_count;
    *ret_spec = spec;
    return 0;
}

int gp_optimizer_spec_read(json_t *json, const char *pointer, gp_optimizer_spec *ret_spec, gp_error *error) {
    gp_reader r = {.error = error};
    gd_optimizer_spec spec;
    if (gp_read_optimizer(&r, json, pointer, false, &spec) < 0) {
        gp_release(r.memory);
        return -1;
    }
    *ret_spec = (gp_optimizer_spec){.spec = spec, .memory = r.memory};
    return 0;
}

void gp_optimizer_spec_release(gp_optimizer_spec *spec) {
    gp_release(spec->memory);
    *spec = (gp_optimizer_spec){.memory = NULL};
}

/* {"type": ..., attributes ..., "schedulers": [of the same form]}; how deep, the JSON parser limits. */
int gp_read_schedule(gp_reader *r, json_t *json, const char *pointer, gd_scheduler_spec *ret_spec) {
    static const char *const others[] = {"type", "schedulers"};
    gd_scheduler_spec spec = {.type = NULL};
    if (!json_is_object(json))
        return gp_wrong_type(r, json, pointer, "an object with a \"type\"");
    const json_t *type = json_object_get(json, "type"), *list = json_object_get(json, "schedulers");
    if (!type)
        return gp_missing(r, pointer, "type", "");
    if (list && !json_is_array(list))
        return gp_wrong_type(r, list, gp_below(pointer, "schedulers").pointer, "a list of schedulers");
    gd_scheduler_spec *schedulers = gp_take(r, json_array_size(list), sizeof *schedulers);
    if (!schedulers || gp_read_string(r, type, gp_below(pointer, "type").pointer, &spec.type) < 0 ||
        gp_read_fields(r, json, pointer, others, COUNT(others), &spec.fields, &spec.field_count) < 0)
        return -1;
    const gp_place at = gp_below(pointer, "schedulers");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (gp_read_schedule(r, json_array_get(list, i), gp_element(at.pointer, i).pointer, &schedulers[i]) <
            0)
            return -1;
    spec.schedulers = schedulers;
    spec.scheduler_count = json_array_size(list);
    *ret_spec = spec;
    return 0;
}

int gp_scheduler_spec_read(json_t *json, const char *pointer, gp_scheduler_spec *ret_spec, gp_error *error) {
    gp_reader r = {.error = error};
    gp_scheduler_spec read = {.memory = NULL};
    if (!json_is_null(json) && gp_read_schedule(&r, json, pointer, &read.spec) < 0) {
        gp_release(r.memory);
        return -1;
    }
    read.memory = r.memory;
    *ret_spec = read;
    return 0;
}

void gp_scheduler_spec_release(gp_scheduler_spec *spec) {
    gp_release(spec->memory);
    *spec = (gp_scheduler_spec){.memory = NULL};
}

int gp_kind_spec_read(json_t *json, const char *pointer, bool type_required, gp_kind_spec *ret_spec,
                      gp_error *error) {
    gp_reader r = {.error = error};
    gd_kind_spec spec;
    if (gp_read_kind(&r, json, pointer, type_required, &spec) < 0) {
        gp_release(r.memory);
        return -1;
    }
    *ret_spec = (gp_kind_spec){.spec = spec, .memory = r.memory};
    return 0;
}

void gp_kind_spec_release(gp_kind_spec *spec) {
    gp_release(spec->memory);
    *spec = (gp_kind_spec){.memory = NULL};
}
