/* model.c -- from JSON to the engine's specification of a network. Only the form of the JSON is checked here;
 * what an attribute may be is for the engine to say, which has the tables. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"
#include "names.h"
#include "reader.h"

/* ---- inputs ------------------------------------------------------------------------------------ */

static int read_shape(gp_reader *r, const json_t *json, const char *pointer, gd_shape *ret_shape) {
    if (!json_is_array(json))
        return gp_wrong_type(r, json, pointer,
                             "a list of axis lengths such as [1, 32, 32], without the batch axis");
    if (json_array_size(json) > GD_MAX_RANK - 1)
        return gp_fail(r->error, GP_LIMIT_EXCEEDED, pointer,
                       "shape has %zu axes; at most %d can stand beside the batch axis",
                       json_array_size(json), GD_MAX_RANK - 1);
    gd_shape shape = {.rank = (int)json_array_size(json)};
    for (size_t i = 0; i < json_array_size(json); i++) {
        const json_t *axis = json_array_get(json, i);
        if (!json_is_integer(axis))
            return gp_wrong_type(r, axis, gp_element(pointer, i).pointer, "an integer, as an axis of shape");
        shape.dim[i] = json_integer_value(axis);
        if (shape.dim[i] < 1)
            return gp_fail(r->error, GP_INVALID_VALUE, gp_element(pointer, i).pointer,
                           "axis %zu of shape is %" PRId64 ", but must be at least 1", i, shape.dim[i]);
    }
    *ret_shape = shape;
    return 0;
}

static int read_dtype(gp_reader *r, const json_t *json, const char *pointer, gd_dtype *ret_dtype) {
    static const gd_dtype dtypes[] = {GD_FLOAT32, GD_INT64};
    const char *name = json_string_value(json);
    for (size_t i = 0; name && i < COUNT(dtypes); i++)
        if (strcmp(gd_dtype_name(dtypes[i]), name) == 0) {
            *ret_dtype = dtypes[i];
            return 0;
        }
    return gp_fail(
        r->error, GP_UNSUPPORTED_DTYPE, pointer,
        "dtype of an input must be \"float32\" or \"int64\" (what is sent in another type is converted)");
}

static int read_input(gp_reader *r, json_t *json, const char *pointer, const char *name,
                      gd_input_spec *ret_input) {
    static const char *const known[] = {"shape", "dtype"};
    const char *key;
    json_t *value;
    gd_input_spec input = {.dtype = GD_FLOAT32};
    char *copy = gp_take(r, strlen(name) + 1, 1);
    if (!copy)
        return -1;
    memcpy(copy, name, strlen(name) + 1);
    input.name = copy;
    if (!json_is_object(json))
        return gp_wrong_type(r, json, pointer, "an object such as {\"shape\": [1, 32, 32]}");
    json_object_foreach(json, key, value) {
        const gp_place at = gp_below(pointer, key);
        const bool is_shape = strcmp(key, "shape") == 0;
        if (!is_shape && strcmp(key, "dtype") != 0)
            return gp_unknown(r, pointer, key, known, COUNT(known));
        if ((is_shape ? read_shape(r, value, at.pointer, &input.shape)
                      : read_dtype(r, value, at.pointer, &input.dtype)) < 0)
            return -1;
    }
    if (!json_object_get(json, "shape"))
        return gp_missing(r, pointer, "shape", ": one sample's shape, without the batch axis");
    *ret_input = input;
    return 0;
}

/* ---- the fields of a model ----------------------------------------------------------------------- */

static int read_name(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    if (!json_is_string(json))
        return gp_wrong_type(r, json, pointer, "a string");
    if (!gp_name_ok(json_string_value(json)))
        return gp_fail(
            r->error, GP_INVALID_NAME, pointer,
            "name must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit");
    snprintf(model->name, sizeof model->name, "%s", json_string_value(json));
    return 0;
}

static int read_class_name(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    if (!json_is_string(json))
        return gp_wrong_type(r, json, pointer, "a string");
    if (!gp_identifier_ok(json_string_value(json)))
        return gp_fail(r->error, GP_INVALID_NAME, pointer,
                       "class_name must be at most %d letters, digits and '_', not beginning with a digit",
                       GD_MAX_NAME - 1);
    return gp_read_string(r, json, pointer, &model->graph.class_name);
}

/* Up to 2^63 - 1 as a number; the upper half of uint64, which JSON parsers lose, as a string. */
static int read_seed(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    uint64_t seed = 0;
    const char *at = json_string_value(json);
    bool fits = json_is_integer(json) && json_integer_value(json) >= 0;
    if (fits)
        seed = (uint64_t)json_integer_value(json);
    if (at && *at) {
        for (fits = true; fits && *at; at++)
            fits = *at >= '0' && *at <= '9' && !__builtin_mul_overflow(seed, 10, &seed) &&
                   !__builtin_add_overflow(seed, (uint64_t)(*at - '0'), &seed);
    }
    if (!fits)
        return gp_fail(r->error, GP_INVALID_VALUE, pointer,
                       "seed must be an integer from 0 to 2^64 - 1 (above 2^63 - 1 as a string)");
    model->config.seed = seed;
    model->has_seed = true;
    return 0;
}

static int read_single_input(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    gd_input_spec *input = gp_take(r, 1, sizeof *input);
    if (!input || read_input(r, json, pointer, "input", input) < 0)
        return -1;
    model->graph.inputs = input;
    model->graph.input_count = 1;
    return 0;
}

static int read_inputs(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    const char *key;
    json_t *value;
    size_t count = 0;
    if (!json_is_object(json) || json_object_size(json) == 0)
        return gp_fail(r->error, GP_INVALID_VALUE, pointer,
                       "inputs must be an object of at least one input, such as {\"x\": {\"shape\": [10]}}");
    gd_input_spec *inputs = gp_take(r, json_object_size(json), sizeof *inputs);
    if (!inputs)
        return -1;
    json_object_foreach(json, key, value) {
        const gp_place at = gp_below(pointer, key);
        if (!gp_layer_name_ok(key))
            return gp_fail(
                r->error, GP_INVALID_NAME, at.pointer,
                "an input's name must be at most %d letters, digits and '_', in words joined by '.'",
                GD_MAX_NAME - 1);
        if (read_input(r, value, at.pointer, key, &inputs[count++]) < 0)
            return -1;
    }
    model->graph.inputs = inputs;
    model->graph.input_count = count;
    return 0;
}

static int read_output(gp_reader *r, const json_t *layer, const char *pointer, const char *name,
                       gd_output_spec *ret_output) {
    char *copy = gp_take(r, strlen(name) + 1, 1);
    if (!copy || gp_read_string(r, layer, pointer, &ret_output->layer) < 0)
        return -1;
    memcpy(copy, name, strlen(name) + 1);
    ret_output->name = copy;
    if (gp_tensor_name_ok(name))
        return 0;
    return gp_fail(
        r->error, GP_INVALID_NAME, pointer,
        "an output's name must be at most %d letters, digits and '_', in words joined by '.', and not "
        "data, shape, dtype or base64; name it as in {\"result\": \"%.64s\"}",
        GD_MAX_NAME - 1, ret_output->layer);
}

/* {"logits": "fc3", ...}, or ["fc3", ...]: outputs called as their layers are. */
static int read_outputs(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    const bool listed = json_is_array(json);
    const size_t count = listed ? json_array_size(json) : json_object_size(json);
    const char *key;
    json_t *value;
    if (!listed && !json_is_object(json))
        return gp_wrong_type(r, json, pointer,
                             "an object such as {\"logits\": \"fc3\"}, or a list of layers' names");
    if (count == 0)
        return gp_fail(r->error, GP_INVALID_VALUE, pointer,
                       "outputs must name at least one layer, or be left out for the last");
    gd_output_spec *outputs = gp_take(r, count, sizeof *outputs);
    if (!outputs)
        return -1;
    model->graph.outputs = outputs;
    model->graph.output_count = count;
    for (size_t i = 0; listed && i < count; i++) {
        value = json_array_get(json, i);
        const char *name = json_is_string(value) ? json_string_value(value) : "";
        if (read_output(r, value, gp_element(pointer, i).pointer, name, &outputs[i]) < 0)
            return -1;
    }
    json_object_foreach(json, key, value) {
        if (read_output(r, value, gp_below(pointer, key).pointer, key, outputs++) < 0)
            return -1;
    }
    return 0;
}

static int read_layer_inputs(gp_reader *r, const json_t *json, const char *pointer, gd_layer_spec *layer) {
    const size_t count = json_array_size(json);
    if (!json_is_array(json) || count == 0)
        return gp_fail(
            r->error, GP_INVALID_VALUE, pointer,
            "inputs must be a list of layers' names and \"@input\", or be left out for the layer before");
    const char **inputs = gp_take(r, count, sizeof *inputs);
    if (!inputs)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (gp_read_string(r, json_array_get(json, i), gp_element(pointer, i).pointer, &inputs[i]) < 0)
            return -1;
    layer->inputs = inputs;
    layer->input_count = count;
    return 0;
}

static int read_layer_list(gp_reader *r, json_t *json, const char *pointer, int depth,
                           const gd_layer_spec **ret_layers, size_t *ret_count);

static int read_layer_name(gp_reader *r, const json_t *json, const char *pointer, const char **ret_name) {
    if (gp_read_string(r, json, pointer, ret_name) < 0)
        return -1;
    if (gp_layer_name_ok(*ret_name))
        return 0;
    return gp_fail(r->error, GP_INVALID_NAME, pointer,
                   "a layer's name must be at most %d letters, digits and '_', in words joined by '.'",
                   GD_MAX_NAME - 1);
}

/* A block: {"type": "Sequential", "name": "layer1", "layers": [...]}, its type any class name. */
static int read_block(gp_reader *r, json_t *json, const char *pointer, int depth, gd_layer_spec *layer) {
    static const char *const known[] = {"type", "name", "inputs", "layers", "requires_grad"};
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) {
        size_t i = 0;
        while (i < COUNT(known) && strcmp(known[i], key) != 0)
            i++;
        if (i == COUNT(known))
            return gp_unknown(r, pointer, key, known, COUNT(known));
    }
    if (!gp_identifier_ok(layer->type))
        return gp_fail(
            r->error, GP_INVALID_NAME, gp_below(pointer, "type").pointer,
            "a block's type must be a class name: letters, digits and '_', not beginning with a digit");
    return read_layer_list(r, json_object_get(json, "layers"), gp_below(pointer, "layers").pointer, depth + 1,
                           &layer->layers, &layer->layer_count);
}

/* {"weight": {"type": "kaiming_normal_", ...}, ...} */
static int read_inits(gp_reader *r, json_t *json, const char *pointer, gd_layer_spec *layer) {
    const char *key;
    json_t *value;
    gd_init_spec *inits = gp_take(r, json_object_size(json), sizeof *inits);
    if (!inits)
        return -1;
    layer->inits = inits;
    json_object_foreach(json, key, value) {
        char *name = gp_take(r, strlen(key) + 1, 1);
        if (!name)
            return -1;
        memcpy(name, key, strlen(key) + 1);
        inits[layer->init_count].param = name;
        if (gp_read_kind(r, value, gp_below(pointer, key).pointer, true, &inits[layer->init_count++].init) <
            0)
            return -1;
    }
    return 0;
}

/* false: the layer begins frozen. */
static int read_requires_grad(gp_reader *r, const json_t *json, const char *pointer, gd_layer_spec *layer) {
    if (json && !json_is_boolean(json))
        return gp_wrong_type(r, json, gp_below(pointer, "requires_grad").pointer, "true or false");
    layer->frozen = json_is_false(json);
    return 0;
}

static int read_layer(gp_reader *r, json_t *json, const char *pointer, int depth, gd_layer_spec *layer) {
    static const char *const others[] = {"type", "name", "inputs", "shares", "requires_grad", "init"};
    if (!json_is_object(json))
        return gp_wrong_type(r, json, pointer,
                             "an object such as {\"type\": \"Linear\", \"out_features\": 10}");
    const json_t *type = json_object_get(json, "type"), *name = json_object_get(json, "name"),
                 *inputs = json_object_get(json, "inputs"), *shares = json_object_get(json, "shares");
    /* an object: initialisers; anything else is an attribute of that name, which PReLU has */
    json_t *init = json_is_object(json_object_get(json, "init")) ? json_object_get(json, "init") : NULL;
    if (!type)
        return gp_missing(r, pointer, "type", "");
    if (gp_read_string(r, type, gp_below(pointer, "type").pointer, &layer->type) < 0 ||
        (name && read_layer_name(r, name, gp_below(pointer, "name").pointer, &layer->name) < 0) ||
        (inputs && read_layer_inputs(r, inputs, gp_below(pointer, "inputs").pointer, layer) < 0) ||
        read_requires_grad(r, json_object_get(json, "requires_grad"), pointer, layer) < 0)
        return -1;
    if (json_object_get(json, "layers"))
        return read_block(r, json, pointer, depth, layer);
    if ((shares && gp_read_string(r, shares, gp_below(pointer, "shares").pointer, &layer->shares) < 0) ||
        (init && read_inits(r, init, gp_below(pointer, "init").pointer, layer) < 0))
        return -1;
    return gp_read_fields(r, json, pointer, others, COUNT(others) - !init, &layer->fields,
                          &layer->field_count);
}

/* Layers, and blocks of layers within them, at most GD_MAX_BLOCKS deep. */
static int read_layer_list(gp_reader *r, json_t *json, const char *pointer, int depth,
                           const gd_layer_spec **ret_layers, size_t *ret_count) {
    const size_t count = json_array_size(json);
    if (!json_is_array(json))
        return gp_wrong_type(r, json, pointer, "a list of layers");
    if (count > GD_MAX_LAYERS)
        return gp_fail(r->error, GP_LIMIT_EXCEEDED, pointer,
                       "the model has %zu layers, at most %d are allowed", count, GD_MAX_LAYERS);
    if (depth > GD_MAX_BLOCKS)
        return gp_fail(r->error, GP_LIMIT_EXCEEDED, pointer, "blocks are nested more than %d deep",
                       GD_MAX_BLOCKS);
    gd_layer_spec *layers = gp_take(r, count, sizeof *layers);
    if (!layers)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (read_layer(r, json_array_get(json, i), gp_element(pointer, i).pointer, depth, &layers[i]) < 0)
            return -1;
    *ret_layers = layers;
    *ret_count = count;
    return 0;
}

static int read_layers(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    return read_layer_list(r, json, pointer, 0, &model->graph.layers, &model->graph.layer_count);
}

/* null: none yet, which is how GET shows it. */
static int read_loss(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    return json_is_null(json) ? 0 : gp_read_terms(r, json, pointer, &model->config.loss);
}

static int read_optimizer(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    return json_is_null(json) ? 0 : gp_read_optimizer(r, json, pointer, true, &model->config.optimizer);
}

static int read_scheduler(gp_reader *r, json_t *json, const char *pointer, gp_model *model) {
    return json_is_null(json) ? 0 : gp_read_schedule(r, json, pointer, &model->config.scheduler);
}

/* ---- a model ----------------------------------------------------------------------------------- */

static const char *const names[] = {"name",   "class_name", "seed", "input",     "inputs",
                                    "layers", "outputs",    "loss", "optimizer", "scheduler"};
/* In the order of names. */
static int (*const readers[])(gp_reader *r, json_t *json, const char *pointer, gp_model *model) = {
    read_name,   read_class_name, read_seed, read_single_input, read_inputs,
    read_layers, read_outputs,    read_loss, read_optimizer,    read_scheduler,
};
_Static_assert(COUNT(names) == COUNT(readers), "every field has a reader");

static int read_model(gp_reader *r, json_t *json, gp_model *model) {
    const char *key;
    json_t *value;
    if (!json_is_object(json))
        return gp_wrong_type(r, json, "", "an object that defines a model");
    json_object_foreach(json, key, value) {
        size_t i = 0;
        while (i < COUNT(names) && strcmp(names[i], key) != 0)
            i++;
        if (i == COUNT(names))
            return gp_unknown(r, "", key, names, COUNT(names));
        if (readers[i](r, value, gp_below("", key).pointer, model) < 0)
            return -1;
    }
    if (!json_object_get(json, "name"))
        return gp_fail(r->error, GP_MISSING_FIELD, "/name", "the model has no \"name\"");
    if (json_object_get(json, "input") && json_object_get(json, "inputs"))
        return gp_fail(r->error, GP_INVALID_VALUE, "/inputs", "give \"input\" or \"inputs\", not both");
    if (model->graph.input_count == 0)
        return gp_fail(r->error, GP_MISSING_FIELD, "/input",
                       "the model has no \"input\": give one sample's shape, as in {\"shape\": [1, 32, 32]}");
    if (!json_object_get(json, "layers"))
        return gp_fail(r->error, GP_MISSING_FIELD, "/layers", "the model has no \"layers\"");
    return 0;
}

int gp_model_read(json_t *json, gp_model *ret_model, gp_error *error) {
    gp_reader r = {.error = error};
    gp_model model = {.graph = {.class_name = "Net"}};
    if (read_model(&r, json, &model) < 0) {
        gp_release(r.memory);
        return -1;
    }
    model.memory = r.memory;
    *ret_model = model;
    return 0;
}

void gp_model_release(gp_model *model) {
    gp_release(model->memory);
    *model = (gp_model){.memory = NULL};
}
