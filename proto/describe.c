/* describe.c -- the engine's kinds, attributes and layers as JSON, read off their tables. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/gradd_proto.h"

/* Add a member; takes the value, which may be NULL after a failure. @return false: no memory */
static bool put(json_t *object, const char *key, json_t *value) {
    return json_object_set_new(object, key, value) == 0;
}

static bool append(json_t *list, json_t *value) {
    return json_array_append_new(list, value) == 0;
}

/* What was built, or NULL when some part of it failed. */
static json_t *finish(json_t *json, bool complete) {
    if (complete)
        return json;
    json_decref(json);
    return NULL;
}

static json_t *int_list(const int64_t *ints, size_t count) {
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && i < count; i++)
        complete = append(list, ints[i] == GD_NONE ? json_null() : json_integer(ints[i]));
    return finish(list, complete);
}

static json_t *float_list(const double *floats, size_t count) {
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && i < count; i++)
        complete = append(list, gp_json_number(floats[i]));
    return finish(list, complete);
}

json_t *gp_shape_json(const gd_shape *shape) {
    return int_list(shape->dim, (size_t)shape->rank);
}

/* ---- attributes -------------------------------------------------------------------------------- */

static json_t *value_json(const gd_value *value) {
    switch (value->kind) {
    case GD_VALUE_BOOL:
        return json_boolean(value->boolean);
    case GD_VALUE_INT:
        return json_integer(value->integer);
    case GD_VALUE_FLOAT:
        return gp_json_number(value->number);
    case GD_VALUE_STRING:
        return json_string(value->string);
    case GD_VALUE_INTS:
        return int_list(value->ints, value->count);
    case GD_VALUE_FLOATS:
        return float_list(value->floats, value->count);
    case GD_VALUE_NULL:
        break;
    }
    return json_null();
}

json_t *gp_attrs_json(const gd_kind *kind, const void *attrs) {
    json_t *object = json_object();
    bool complete = object;
    for (size_t i = 0; complete && i < kind->attr_count; i++) {
        const gd_value value = gd_attr_read(&kind->attrs[i], attrs);
        complete = put(object, kind->attrs[i].name, value_json(&value));
    }
    return finish(object, complete);
}

static json_t *string_list(const char *const *strings, size_t count) {
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && i < count; i++)
        complete = append(list, json_string(strings[i]));
    return finish(list, complete);
}

/* Names of the parameters in a group. */
static json_t *group_names(const gd_model *model, size_t group) {
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        if (!parameter->buffer && gd_model_group_of(model, i) == group)
            complete = append(list, json_string(parameter->name));
    }
    return finish(list, complete);
}

static json_t *group_json(const gd_model *model, const gd_kind *kind, size_t index, const gd_group *group) {
    json_t *object = json_object(), *attributes = gp_attrs_json(kind, group->attrs);
    bool complete =
        attributes && put(object, "params", string_list(group->patterns, group->pattern_count)) &&
        put(object, "parameters", group_names(model, index)) && json_object_update(object, attributes) == 0 &&
        (isnan(group->initial_lr) || put(object, "initial_lr", gp_json_number(group->initial_lr)));
    json_decref(attributes);
    return finish(object, complete);
}

json_t *gp_optimizer_json(const gd_model *model) {
    const void *attrs;
    const gd_kind *kind = gd_model_optimizer_kind(model, &attrs);
    gd_group group;
    if (!kind)
        return json_null();
    json_t *object = json_object(), *list = json_array(), *attributes = gp_attrs_json(kind, attrs);
    bool complete = list && attributes && put(object, "type", json_string(kind->module)) &&
                    json_object_update(object, attributes) == 0;
    for (size_t i = 1; complete && gd_model_group(model, i, &group); i++)
        complete = append(list, group_json(model, kind, i, &group));
    complete = complete && json_object_set(object, "param_groups", list) == 0;
    json_decref(attributes);
    json_decref(list);
    return finish(object, complete);
}

/* How far it has come: torch's names. */
static json_t *schedule_state_json(const gd_schedule *schedule) {
    json_t *object = json_object();
    bool complete = put(object, "last_epoch", json_integer(schedule->epoch)) &&
                    put(object, "base_lr", gp_json_number(schedule->base_lr));
    for (size_t i = 0; complete && i < schedule->state_count; i++)
        complete = put(object, schedule->state_names[i], gp_json_number(schedule->state[i]));
    return finish(object, complete);
}

json_t *gp_schedule_json(const gd_schedule *schedule) {
    if (!schedule)
        return json_null();
    json_t *object = json_object(), *list = json_array();
    json_t *attributes = gp_attrs_json(schedule->kind, schedule->attrs);
    bool complete = list && attributes && put(object, "type", json_string(schedule->kind->module)) &&
                    json_object_update(object, attributes) == 0;
    for (size_t i = 0; complete && i < schedule->child_count; i++)
        complete = append(list, gp_schedule_json(&schedule->children[i]));
    complete = complete && (!schedule->child_count || json_object_set(object, "schedulers", list) == 0) &&
               put(object, "state", schedule_state_json(schedule));
    json_decref(attributes);
    json_decref(list);
    return finish(object, complete);
}

static json_t *type_json(const gd_attr *attr) {
    switch (attr->type) {
    case GD_ATTR_BOOL:
        return json_string("bool");
    case GD_ATTR_INT:
        return json_string("int");
    case GD_ATTR_FLOAT:
        return json_string("float");
    case GD_ATTR_CHOICE:
        return json_string("choice");
    case GD_ATTR_INTN:
        return json_sprintf("int[%d]", attr->length);
    case GD_ATTR_INTS:
        return json_string("int[]");
    case GD_ATTR_FLOATN:
        return json_sprintf("float[%d]", attr->length);
    case GD_ATTR_FLOATS:
        return json_string("float[]");
    }
    return NULL;
}

/* Of an attribute that takes its default from another one: that one's name. */
static json_t *default_json(const gd_attr *attr) {
    if (attr->default_from)
        return json_string(attr->default_from);
    if (attr->nullable && isnan(attr->number))
        return json_null();
    switch (attr->type) {
    case GD_ATTR_BOOL:
        return json_boolean(attr->number != 0);
    case GD_ATTR_INT:
    case GD_ATTR_INTN:
        return json_integer((json_int_t)attr->number);
    case GD_ATTR_FLOAT:
        return gp_json_number(attr->number);
    case GD_ATTR_CHOICE:
        return json_string(attr->choices[(int)attr->number]);
    case GD_ATTR_INTS:
        return int_list(attr->ints, attr->ints_count);
    case GD_ATTR_FLOATN:
        return float_list(attr->floats, (size_t)attr->length);
    case GD_ATTR_FLOATS:
        break;
    }
    return json_null();
}

static json_t *choices_json(const gd_attr *attr) {
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && attr->choices[i]; i++)
        complete = append(list, json_string(attr->choices[i]));
    return finish(list, complete);
}

static bool put_limit(json_t *object, const char *key, const gd_attr *attr, double limit) {
    if (isinf(limit) || attr->type == GD_ATTR_BOOL || attr->type == GD_ATTR_CHOICE)
        return true;
    const bool whole =
        attr->type != GD_ATTR_FLOAT && attr->type != GD_ATTR_FLOATN && attr->type != GD_ATTR_FLOATS;
    return put(object, key, whole ? json_integer((json_int_t)limit) : json_real(limit));
}

static json_t *attr_json(const gd_attr *attr) {
    json_t *object = json_object();
    const bool has_default = !attr->required && !attr->inferred;
    const bool complete =
        put(object, "name", json_string(attr->name)) && put(object, "type", type_json(attr)) &&
        (!has_default || put(object, "default", default_json(attr))) &&
        put_limit(object, "min", attr, attr->min) && put_limit(object, "max", attr, attr->max) &&
        (!attr->choices || put(object, "choices", choices_json(attr))) &&
        put(object, "required", json_boolean(attr->required)) &&
        put(object, "doc", json_string(attr->doc ? attr->doc : ""));
    return finish(object, complete);
}

/* ---- kinds and layers -------------------------------------------------------------------------- */

static json_t *param_json(const gd_param_decl *param) {
    json_t *object = json_object();
    const bool complete = put(object, "name", json_string(param->name)) &&
                          put(object, "doc", json_string(param->doc ? param->doc : "")) &&
                          put(object, "buffer", json_boolean(param->buffer));
    return finish(object, complete);
}

json_t *gp_kind_json(const gd_kind *kind) {
    json_t *object = json_object(), *attributes = json_array(), *parameters = json_array();
    bool complete = object && attributes && parameters;
    for (size_t i = 0; complete && i < kind->attr_count; i++)
        complete = append(attributes, attr_json(&kind->attrs[i]));
    for (size_t i = 0; complete && i < kind->param_count; i++)
        complete = append(parameters, param_json(&kind->params[i]));
    complete = complete && (!kind->module || put(object, "module", json_string(kind->module))) &&
               (!kind->function || put(object, "function", json_string(kind->function))) &&
               put(object, "doc", json_string(kind->doc ? kind->doc : ""));
    /* Both lists are the object's from here on, whatever came before. */
    complete = put(object, "attributes", attributes) && complete;
    complete = put(object, "parameters", parameters) && complete;
    return finish(object, complete);
}

/* "conv1.weight" for each parameter that the layer has. */
static json_t *param_names(const gd_graph *graph, const gd_layer *layer) {
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && i < layer->param_count; i++)
        complete = append(list, json_string(gd_graph_parameter_name(graph, layer->first_param + i)));
    return finish(list, complete);
}

static json_t *layer_inputs(const gd_layer *layer) {
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && i < layer->input_count; i++)
        complete = append(list, json_string(layer->inputs[i]));
    return finish(list, complete);
}

static json_t *layer_json(const gd_graph *graph, const gd_layer *layer) {
    json_t *object = json_object();
    const char *type = layer->is_module ? layer->kind->module : layer->kind->function;
    const bool complete = put(object, "name", json_string(layer->name)) &&
                          put(object, "type", json_string(type)) &&
                          put(object, "attributes", gp_attrs_json(layer->kind, layer->attrs)) &&
                          put(object, "inputs", layer_inputs(layer)) &&
                          put(object, "output_shape", gp_shape_json(&layer->output)) &&
                          put(object, "parameters", param_names(graph, layer));
    return finish(object, complete);
}

json_t *gp_layers_json(const gd_graph *graph) {
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && i < gd_graph_layer_count(graph); i++)
        complete = append(list, layer_json(graph, gd_graph_layer(graph, i)));
    return finish(list, complete);
}

json_t *gp_outputs_json(const gd_graph *graph) {
    json_t *object = json_object();
    bool complete = object;
    for (size_t i = 0; complete && i < gd_graph_output_count(graph); i++) {
        const gd_output *output = gd_graph_output(graph, i);
        complete = put(object, output->name,
                       json_pack("{s:s, s:o, s:s}", "layer", output->layer, "shape",
                                 gp_shape_json(&output->shape), "dtype", gd_dtype_name(output->dtype)));
    }
    return finish(object, complete);
}

/* A term. One that stands alone shows its output and target where they are not the usual ones. */
static json_t *term_json(const gd_graph *graph, const gd_term *term, bool listed) {
    json_t *object = json_pack("{s:s}", "type", term->kind->module);
    json_t *attributes = gp_attrs_json(term->kind, term->attrs);
    const json_t *own = json_object_get(attributes, "weight");
    const char *weight = json_is_array(own) ? "loss_weight" : "weight";
    bool complete = object && attributes && json_object_update(object, attributes) == 0;
    if (listed || term->output > 0)
        complete = complete && put(object, "output", json_string(gd_graph_output(graph, term->output)->name));
    if (term->target && (listed || strcmp(term->target, "target") != 0))
        complete = complete && put(object, "target", json_string(term->target));
    if (listed)
        complete = complete && put(object, weight, json_real(term->weight));
    json_decref(attributes);
    return finish(object, complete);
}

json_t *gp_loss_json(const gd_model *model) {
    const gd_graph *graph = gd_model_graph(model);
    const gd_term *first = gd_model_loss_term(model, 0);
    if (!first)
        return json_null();
    if (!gd_model_loss_term(model, 1) && first->weight == 1)
        return term_json(graph, first, false);
    json_t *list = json_array();
    bool complete = list;
    for (size_t i = 0; complete && gd_model_loss_term(model, i); i++)
        complete = append(list, term_json(graph, gd_model_loss_term(model, i), true));
    return finish(list, complete);
}
