/* model.c -- from JSON to the engine's specifications: models, losses, optimizers, schedulers. Only the form
 * of the JSON is checked here; what an attribute may be is for the engine to say, which has the tables. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "names.h"
#include "proto/gradd_proto.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Memory of what was read: blocks that are freed together. */
typedef struct block {
    struct block *next;
    max_align_t data[];
} block;

typedef struct reader {
    block *memory;
    gp_error *error;
} reader;

/* Zeroed memory for `count` items, at least one. NULL: failed, r->error says so. */
static void *take(reader *r, size_t count, size_t size) {
    size_t bytes;
    block *fresh = NULL;
    if (!__builtin_mul_overflow(count ? count : 1, size, &bytes) &&
        !__builtin_add_overflow(bytes, sizeof *fresh, &bytes))
        fresh = calloc(1, bytes);
    if (!fresh) {
        gp_fail(r->error, GP_OUT_OF_MEMORY, "", "no memory for the definition");
        return NULL;
    }
    fresh->next = r->memory;
    r->memory = fresh;
    return fresh->data;
}

static void release(void *memory) {
    for (block *b = memory, *next; b; b = next) {
        next = b->next;
        free(b);
    }
}

/* ---- where it stands, and what it is ------------------------------------------------------------ */

/* A value's place in the document. */
typedef struct place {
    char pointer[192];
} place;

static place below(const char *pointer, const char *token) {
    place p;
    snprintf(p.pointer, sizeof p.pointer, "%s", pointer);
    gp_pointer_add(p.pointer, sizeof p.pointer, token);
    return p;
}

static place element(const char *pointer, size_t index) {
    char token[24];
    snprintf(token, sizeof token, "%zu", index);
    return below(pointer, token);
}

static const char *type_text(const json_t *json) {
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_NULL:
        return "null";
    default:
        return json_is_true(json) ? "true" : "false";
    }
}

/* What errors call the value: "layers/3/kernel_size". */
static const char *subject(const char *pointer) {
    return *pointer ? pointer + 1 : "the body";
}

static int wrong_type(reader *r, const json_t *json, const char *pointer, const char *wanted) {
    return gp_fail(r->error, GP_INVALID_VALUE, pointer, "%s must be %s, not %s", subject(pointer), wanted,
                   type_text(json));
}

static int missing(reader *r, const char *pointer, const char *field, const char *hint) {
    return gp_fail(r->error, GP_MISSING_FIELD, below(pointer, field).pointer, "%s has no \"%s\"%s",
                   subject(pointer), field, hint);
}

static int unknown(reader *r, const char *pointer, const char *field, const char *const *known,
                   size_t count) {
    const char *nearest = gp_nearest(field, known, count);
    return gp_fail(r->error, GP_UNKNOWN_FIELD, below(pointer, field).pointer, "\"%s\" is unknown%s%s%s",
                   field, nearest ? "; did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?" : "");
}

/* ---- values ------------------------------------------------------------------------------------ */

static int read_string(reader *r, const json_t *json, const char *pointer, const char **ret_string) {
    if (!json_is_string(json))
        return wrong_type(r, json, pointer, "a string");
    char *copy = take(r, json_string_length(json) + 1, 1);
    if (!copy)
        return -1;
    memcpy(copy, json_string_value(json), json_string_length(json) + 1);
    *ret_string = copy;
    return 0;
}

/* "NaN", "Infinity" and "-Infinity" stand for the numbers that JSON lacks. */
static bool is_number(const json_t *json, double *ret_number) {
    const char *text = json_string_value(json);
    if (json_is_number(json))
        *ret_number = json_number_value(json);
    else if (text && strcmp(text, "NaN") == 0)
        *ret_number = (double)__builtin_nanf("");
    else if (text && strcmp(text, "Infinity") == 0)
        *ret_number = (double)__builtin_inff();
    else if (text && strcmp(text, "-Infinity") == 0)
        *ret_number = -(double)__builtin_inff();
    else
        return false;
    return true;
}

/* A list of integers, or with one real in it of doubles; the engine knows which may be null. */
static int read_list(reader *r, const json_t *json, const char *pointer, gd_value *ret_value) {
    const size_t count = json_array_size(json);
    int64_t *ints = take(r, count, sizeof *ints);
    double *floats = take(r, count, sizeof *floats);
    bool integers = true;
    if (!ints || !floats)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(json, i);
        if (json_is_null(item))
            floats[i] = NAN;
        else if (!is_number(item, &floats[i]))
            return wrong_type(r, item, element(pointer, i).pointer, "a number, as an element of a list");
        ints[i] = json_is_null(item) ? GD_NONE : json_integer_value(item);
        integers &= json_is_integer(item) || json_is_null(item);
    }
    *ret_value = integers ? (gd_value){.kind = GD_VALUE_INTS, .count = count, .ints = ints}
                          : (gd_value){.kind = GD_VALUE_FLOATS, .count = count, .floats = floats};
    return 0;
}

static int read_value(reader *r, const json_t *json, const char *pointer, gd_value *ret_value) {
    double number;
    switch (json_typeof(json)) {
    case JSON_NULL:
        *ret_value = (gd_value){.kind = GD_VALUE_NULL};
        return 0;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret_value = (gd_value){.kind = GD_VALUE_BOOL, .boolean = json_is_true(json)};
        return 0;
    case JSON_INTEGER:
        *ret_value = (gd_value){.kind = GD_VALUE_INT, .integer = json_integer_value(json)};
        return 0;
    case JSON_REAL:
    case JSON_STRING:
        if (is_number(json, &number)) {
            *ret_value = (gd_value){.kind = GD_VALUE_FLOAT, .number = number};
            return 0;
        }
        ret_value->kind = GD_VALUE_STRING;
        return read_string(r, json, pointer, &ret_value->string);
    case JSON_ARRAY:
        return read_list(r, json, pointer, ret_value);
    default:
        return wrong_type(r, json, pointer, "a number, a string, true, false, null or a list of numbers");
    }
}

/* Every member of an object whose key is not among `others`, as an attribute. */
static int read_fields(reader *r, json_t *json, const char *pointer, const char *const *others,
                       size_t other_count, const gd_field **ret_fields, size_t *ret_count) {
    gd_field *fields = take(r, json_object_size(json), sizeof *fields);
    size_t count = 0;
    const char *key;
    json_t *value;
    if (!fields)
        return -1;
    json_object_foreach(json, key, value) {
        size_t i = 0;
        while (i < other_count && strcmp(others[i], key) != 0)
            i++;
        if (i < other_count)
            continue;
        char *name = take(r, strlen(key) + 1, 1);
        if (!name || read_value(r, value, below(pointer, key).pointer, &fields[count].value) < 0)
            return -1;
        memcpy(name, key, strlen(key) + 1);
        fields[count++].name = name;
    }
    *ret_fields = fields;
    *ret_count = count;
    return 0;
}

/* ---- losses, optimizers and schedulers ------------------------------------------------------------ */

/* An object's type and attributes; what has one of the names in `others` (the first is "type") is neither. */
static int read_typed(reader *r, json_t *json, const char *pointer, bool type_required,
                      const char *const *others, size_t other_count, gd_kind_spec *ret_spec) {
    gd_kind_spec spec = {.type = NULL};
    if (!json_is_object(json))
        return wrong_type(r, json, pointer, "an object with a \"type\", or the type's name alone");
    const json_t *type = json_object_get(json, "type");
    if (!type && type_required)
        return missing(r, pointer, "type", "");
    if ((type && read_string(r, type, below(pointer, "type").pointer, &spec.type) < 0) ||
        read_fields(r, json, pointer, others, other_count, &spec.fields, &spec.field_count) < 0)
        return -1;
    *ret_spec = spec;
    return 0;
}

static int read_kind(reader *r, json_t *json, const char *pointer, bool type_required,
                     gd_kind_spec *ret_spec) {
    static const char *const others[] = {"type"};
    if (json_is_string(json))
        return read_string(r, json, pointer, &ret_spec->type);
    return read_typed(r, json, pointer, type_required, others, COUNT(others), ret_spec);
}

/* A term of a loss. In a list a number "weight" is the term's; "loss_weight" is always, so that "weight" is
 * free to be an attribute of the loss. */
static int read_term(reader *r, json_t *json, const char *pointer, bool listed, gd_term_spec *term) {
    static const char *const others[] = {"type", "output", "target", "loss_weight", "weight"};
    *term = (gd_term_spec){.weight = 1};
    if (!json_is_object(json))
        return read_kind(r, json, pointer, true, &term->loss);
    const json_t *type = json_object_get(json, "type"), *output = json_object_get(json, "output"),
                 *target = json_object_get(json, "target"), *own = json_object_get(json, "weight"),
                 *weight = json_object_get(json, "loss_weight");
    const bool short_form = listed && !weight && json_is_number(own);
    if (!type)
        return missing(r, pointer, "type", "");
    if (weight && !json_is_number(weight))
        return wrong_type(r, weight, below(pointer, "loss_weight").pointer, "a number");
    if (weight || short_form)
        term->weight = json_number_value(weight ? weight : own);
    if (read_string(r, type, below(pointer, "type").pointer, &term->loss.type) < 0 ||
        (output && read_string(r, output, below(pointer, "output").pointer, &term->output) < 0) ||
        (target && read_string(r, target, below(pointer, "target").pointer, &term->target) < 0))
        return -1;
    if (target && !gp_tensor_name_ok(term->target + (*term->target == '@')))
        return gp_fail(r->error, GP_INVALID_NAME, below(pointer, "target").pointer,
                       "a target's name must be letters, digits and '_', in words joined by '.', with an @ "
                       "before it where it is an input of the network, and not data, shape, dtype or base64");
    return read_fields(r, json, pointer, others, COUNT(others) - !short_form, &term->loss.fields,
                       &term->loss.field_count);
}

static int read_terms(reader *r, json_t *json, const char *pointer, gd_loss_spec *ret_loss) {
    const bool listed = json_is_array(json);
    const size_t count = listed ? json_array_size(json) : 1;
    if (count == 0 || count > GD_MAX_TERMS)
        return gp_fail(r->error, count ? GP_LIMIT_EXCEEDED : GP_INVALID_VALUE, pointer,
                       "a loss must have 1 to %d terms, not %zu", GD_MAX_TERMS, count);
    gd_term_spec *terms = take(r, count, sizeof *terms);
    if (!terms)
        return -1;
    for (size_t i = 0; i < count; i++)
        if ((listed ? read_term(r, json_array_get(json, i), element(pointer, i).pointer, true, &terms[i])
                    : read_term(r, json, pointer, false, &terms[i])) < 0)
            return -1;
    *ret_loss = (gd_loss_spec){.terms = terms, .term_count = count};
    return 0;
}

int gp_loss_spec_read(json_t *json, const char *pointer, gp_loss_spec *ret_spec, gp_error *error) {
    reader r = {.error = error};
    gd_loss_spec spec;
    if (read_terms(&r, json, pointer, &spec) < 0) {
        release(r.memory);
        return -1;
    }
    *ret_spec = (gp_loss_spec){.spec = spec, .memory = r.memory};
    return 0;
}

void gp_loss_spec_release(gp_loss_spec *spec) {
    release(spec->memory);
    *spec = (gp_loss_spec){.memory = NULL};
}

/* "*.bias" or ["*.bias", "bn*"] */
static int read_patterns(reader *r, const json_t *json, const char *pointer, gd_group_spec *group) {
    const bool single = json_is_string(json);
    if (!single && !json_is_array(json))
        return wrong_type(r, json, pointer, "a pattern such as \"*.bias\", or a list of them");
    const size_t count = single ? 1 : json_array_size(json);
    const char **patterns = take(r, count, sizeof *patterns);
    if (!patterns || (single && read_string(r, json, pointer, patterns) < 0))
        return -1;
    for (size_t i = 0; !single && i < count; i++)
        if (read_string(r, json_array_get(json, i), element(pointer, i).pointer, &patterns[i]) < 0)
            return -1;
    group->patterns = patterns;
    group->pattern_count = count;
    return 0;
}

/* {"params": "*.bias", hyperparameters ...} */
static int read_group(reader *r, json_t *json, const char *pointer, gd_group_spec *group) {
    static const char *const others[] = {"params"};
    if (!json_is_object(json))
        return wrong_type(r, json, pointer,
                          "an object such as {\"params\": \"*.bias\", \"weight_decay\": 0}");
    const json_t *params = json_object_get(json, "params");
    if (json_object_get(json, "type"))
        return gp_fail(r->error, GP_UNKNOWN_FIELD, below(pointer, "type").pointer,
                       "a group has the optimizer's type: take \"type\" out");
    if (!params)
        return missing(r, pointer, "params", ": a pattern over parameters' names, or a list of them");
    if (read_patterns(r, params, below(pointer, "params").pointer, group) < 0)
        return -1;
    return read_fields(r, json, pointer, others, COUNT(others), &group->fields, &group->field_count);
}

static int read_groups(reader *r, json_t *json, const char *pointer, gd_optimizer_spec *spec) {
    const size_t count = json_array_size(json);
    if (!json_is_array(json))
        return wrong_type(r, json, pointer, "a list of groups such as {\"params\": \"*.bias\", \"lr\": 0.1}");
    gd_group_spec *groups = take(r, count, sizeof *groups);
    if (!groups)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (read_group(r, json_array_get(json, i), element(pointer, i).pointer, &groups[i]) < 0)
            return -1;
    spec->groups = groups;
    spec->group_count = count;
    return 0;
}

/* {"type": ..., hyperparameters ..., "param_groups": [...]}, or the type's name alone. */
static int read_optimizer_spec(reader *r, json_t *json, const char *pointer, bool type_required,
                               gd_optimizer_spec *ret_spec) {
    static const char *const others[] = {"type", "param_groups"};
    gd_kind_spec kind = {.type = NULL};
    gd_optimizer_spec spec = {.type = NULL};
    json_t *groups = json_object_get(json, "param_groups");
    if ((json_is_string(json)
             ? read_string(r, json, pointer, &kind.type)
             : read_typed(r, json, pointer, type_required, others, COUNT(others), &kind)) < 0 ||
        (groups && read_groups(r, groups, below(pointer, "param_groups").pointer, &spec) < 0))
        return -1;
    spec.type = kind.type;
    spec.fields = kind.fields;
    spec.field_count = kind.field_count;
    *ret_spec = spec;
    return 0;
}

int gp_optimizer_spec_read(json_t *json, const char *pointer, gp_optimizer_spec *ret_spec, gp_error *error) {
    reader r = {.error = error};
    gd_optimizer_spec spec;
    if (read_optimizer_spec(&r, json, pointer, false, &spec) < 0) {
        release(r.memory);
        return -1;
    }
    *ret_spec = (gp_optimizer_spec){.spec = spec, .memory = r.memory};
    return 0;
}

void gp_optimizer_spec_release(gp_optimizer_spec *spec) {
    release(spec->memory);
    *spec = (gp_optimizer_spec){.memory = NULL};
}

/* {"type": ..., attributes ..., "schedulers": [of the same form]}; how deep, the JSON parser limits. */
static int read_schedule(reader *r, json_t *json, const char *pointer, gd_scheduler_spec *ret_spec) {
    static const char *const others[] = {"type", "schedulers"};
    gd_scheduler_spec spec = {.type = NULL};
    if (!json_is_object(json))
        return wrong_type(r, json, pointer, "an object with a \"type\"");
    const json_t *type = json_object_get(json, "type"), *list = json_object_get(json, "schedulers");
    if (!type)
        return missing(r, pointer, "type", "");
    if (list && !json_is_array(list))
        return wrong_type(r, list, below(pointer, "schedulers").pointer, "a list of schedulers");
    gd_scheduler_spec *schedulers = take(r, json_array_size(list), sizeof *schedulers);
    if (!schedulers || read_string(r, type, below(pointer, "type").pointer, &spec.type) < 0 ||
        read_fields(r, json, pointer, others, COUNT(others), &spec.fields, &spec.field_count) < 0)
        return -1;
    const place at = below(pointer, "schedulers");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (read_schedule(r, json_array_get(list, i), element(at.pointer, i).pointer, &schedulers[i]) < 0)
            return -1;
    spec.schedulers = schedulers;
    spec.scheduler_count = json_array_size(list);
    *ret_spec = spec;
    return 0;
}

int gp_scheduler_spec_read(json_t *json, const char *pointer, gp_scheduler_spec *ret_spec, gp_error *error) {
    reader r = {.error = error};
    gp_scheduler_spec read = {.memory = NULL};
    if (!json_is_null(json) && read_schedule(&r, json, pointer, &read.spec) < 0) {
        release(r.memory);
        return -1;
    }
    read.memory = r.memory;
    *ret_spec = read;
    return 0;
}

void gp_scheduler_spec_release(gp_scheduler_spec *spec) {
    release(spec->memory);
    *spec = (gp_scheduler_spec){.memory = NULL};
}

int gp_kind_spec_read(json_t *json, const char *pointer, bool type_required, gp_kind_spec *ret_spec,
                      gp_error *error) {
    reader r = {.error = error};
    gd_kind_spec spec;
    if (read_kind(&r, json, pointer, type_required, &spec) < 0) {
        release(r.memory);
        return -1;
    }
    *ret_spec = (gp_kind_spec){.spec = spec, .memory = r.memory};
    return 0;
}

void gp_kind_spec_release(gp_kind_spec *spec) {
    release(spec->memory);
    *spec = (gp_kind_spec){.memory = NULL};
}

/* ---- inputs ------------------------------------------------------------------------------------ */

static int read_shape(reader *r, const json_t *json, const char *pointer, gd_shape *ret_shape) {
    if (!json_is_array(json))
        return wrong_type(r, json, pointer,
                          "a list of axis lengths such as [1, 32, 32], without the batch axis");
    if (json_array_size(json) > GD_MAX_RANK - 1)
        return gp_fail(r->error, GP_LIMIT_EXCEEDED, pointer,
                       "shape has %zu axes; at most %d can stand beside the batch axis",
                       json_array_size(json), GD_MAX_RANK - 1);
    gd_shape shape = {.rank = (int)json_array_size(json)};
    for (size_t i = 0; i < json_array_size(json); i++) {
        const json_t *axis = json_array_get(json, i);
        if (!json_is_integer(axis))
            return wrong_type(r, axis, element(pointer, i).pointer, "an integer, as an axis of shape");
        shape.dim[i] = json_integer_value(axis);
        if (shape.dim[i] < 1)
            return gp_fail(r->error, GP_INVALID_VALUE, element(pointer, i).pointer,
                           "axis %zu of shape is %" PRId64 ", but must be at least 1", i, shape.dim[i]);
    }
    *ret_shape = shape;
    return 0;
}

static int read_dtype(reader *r, const json_t *json, const char *pointer, gd_dtype *ret_dtype) {
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

static int read_input(reader *r, json_t *json, const char *pointer, const char *name,
                      gd_input_spec *ret_input) {
    static const char *const known[] = {"shape", "dtype"};
    const char *key;
    json_t *value;
    gd_input_spec input = {.dtype = GD_FLOAT32};
    char *copy = take(r, strlen(name) + 1, 1);
    if (!copy)
        return -1;
    memcpy(copy, name, strlen(name) + 1);
    input.name = copy;
    if (!json_is_object(json))
        return wrong_type(r, json, pointer, "an object such as {\"shape\": [1, 32, 32]}");
    json_object_foreach(json, key, value) {
        const place at = below(pointer, key);
        const bool is_shape = strcmp(key, "shape") == 0;
        if (!is_shape && strcmp(key, "dtype") != 0)
            return unknown(r, pointer, key, known, COUNT(known));
        if ((is_shape ? read_shape(r, value, at.pointer, &input.shape)
                      : read_dtype(r, value, at.pointer, &input.dtype)) < 0)
            return -1;
    }
    if (!json_object_get(json, "shape"))
        return missing(r, pointer, "shape", ": one sample's shape, without the batch axis");
    *ret_input = input;
    return 0;
}

/* ---- the fields of a model ----------------------------------------------------------------------- */

static int read_name(reader *r, json_t *json, const char *pointer, gp_model *model) {
    if (!json_is_string(json))
        return wrong_type(r, json, pointer, "a string");
    if (!gp_name_ok(json_string_value(json)))
        return gp_fail(
            r->error, GP_INVALID_NAME, pointer,
            "name must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit");
    snprintf(model->name, sizeof model->name, "%s", json_string_value(json));
    return 0;
}

static int read_class_name(reader *r, json_t *json, const char *pointer, gp_model *model) {
    if (!json_is_string(json))
        return wrong_type(r, json, pointer, "a string");
    if (!gp_identifier_ok(json_string_value(json)))
        return gp_fail(r->error, GP_INVALID_NAME, pointer,
                       "class_name must be at most %d letters, digits and '_', not beginning with a digit",
                       GD_MAX_NAME - 1);
    return read_string(r, json, pointer, &model->graph.class_name);
}

/* Up to 2^63 - 1 as a number; the upper half of uint64, which JSON parsers lose, as a string. */
static int read_seed(reader *r, json_t *json, const char *pointer, gp_model *model) {
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

static int read_single_input(reader *r, json_t *json, const char *pointer, gp_model *model) {
    gd_input_spec *input = take(r, 1, sizeof *input);
    if (!input || read_input(r, json, pointer, "input", input) < 0)
        return -1;
    model->graph.inputs = input;
    model->graph.input_count = 1;
    return 0;
}

static int read_inputs(reader *r, json_t *json, const char *pointer, gp_model *model) {
    const char *key;
    json_t *value;
    size_t count = 0;
    if (!json_is_object(json) || json_object_size(json) == 0)
        return gp_fail(r->error, GP_INVALID_VALUE, pointer,
                       "inputs must be an object of at least one input, such as {\"x\": {\"shape\": [10]}}");
    gd_input_spec *inputs = take(r, json_object_size(json), sizeof *inputs);
    if (!inputs)
        return -1;
    json_object_foreach(json, key, value) {
        const place at = below(pointer, key);
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

static int read_output(reader *r, const json_t *layer, const char *pointer, const char *name,
                       gd_output_spec *ret_output) {
    char *copy = take(r, strlen(name) + 1, 1);
    if (!copy || read_string(r, layer, pointer, &ret_output->layer) < 0)
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
static int read_outputs(reader *r, json_t *json, const char *pointer, gp_model *model) {
    const bool listed = json_is_array(json);
    const size_t count = listed ? json_array_size(json) : json_object_size(json);
    const char *key;
    json_t *value;
    if (!listed && !json_is_object(json))
        return wrong_type(r, json, pointer,
                          "an object such as {\"logits\": \"fc3\"}, or a list of layers' names");
    if (count == 0)
        return gp_fail(r->error, GP_INVALID_VALUE, pointer,
                       "outputs must name at least one layer, or be left out for the last");
    gd_output_spec *outputs = take(r, count, sizeof *outputs);
    if (!outputs)
        return -1;
    model->graph.outputs = outputs;
    model->graph.output_count = count;
    for (size_t i = 0; listed && i < count; i++) {
        value = json_array_get(json, i);
        const char *name = json_is_string(value) ? json_string_value(value) : "";
        if (read_output(r, value, element(pointer, i).pointer, name, &outputs[i]) < 0)
            return -1;
    }
    json_object_foreach(json, key, value) {
        if (read_output(r, value, below(pointer, key).pointer, key, outputs++) < 0)
            return -1;
    }
    return 0;
}

static int read_layer_inputs(reader *r, const json_t *json, const char *pointer, gd_layer_spec *layer) {
    const size_t count = json_array_size(json);
    if (!json_is_array(json) || count == 0)
        return gp_fail(
            r->error, GP_INVALID_VALUE, pointer,
            "inputs must be a list of layers' names and \"@input\", or be left out for the layer before");
    const char **inputs = take(r, count, sizeof *inputs);
    if (!inputs)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (read_string(r, json_array_get(json, i), element(pointer, i).pointer, &inputs[i]) < 0)
            return -1;
    layer->inputs = inputs;
    layer->input_count = count;
    return 0;
}

static int read_layer_list(reader *r, json_t *json, const char *pointer, int depth,
                           const gd_layer_spec **ret_layers, size_t *ret_count);

static int read_layer_name(reader *r, const json_t *json, const char *pointer, const char **ret_name) {
    if (read_string(r, json, pointer, ret_name) < 0)
        return -1;
    if (gp_layer_name_ok(*ret_name))
        return 0;
    return gp_fail(r->error, GP_INVALID_NAME, pointer,
                   "a layer's name must be at most %d letters, digits and '_', in words joined by '.'",
                   GD_MAX_NAME - 1);
}

/* A block: {"type": "Sequential", "name": "layer1", "layers": [...]}, its type any class name. */
static int read_block(reader *r, json_t *json, const char *pointer, int depth, gd_layer_spec *layer) {
    static const char *const known[] = {"type", "name", "inputs", "layers", "requires_grad"};
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) {
        size_t i = 0;
        while (i < COUNT(known) && strcmp(known[i], key) != 0)
            i++;
        if (i == COUNT(known))
            return unknown(r, pointer, key, known, COUNT(known));
    }
    if (!gp_identifier_ok(layer->type))
        return gp_fail(
            r->error, GP_INVALID_NAME, below(pointer, "type").pointer,
            "a block's type must be a class name: letters, digits and '_', not beginning with a digit");
    return read_layer_list(r, json_object_get(json, "layers"), below(pointer, "layers").pointer, depth + 1,
                           &layer->layers, &layer->layer_count);
}

/* {"weight": {"type": "kaiming_normal_", ...}, ...} */
static int read_inits(reader *r, json_t *json, const char *pointer, gd_layer_spec *layer) {
    const char *key;
    json_t *value;
    gd_init_spec *inits = take(r, json_object_size(json), sizeof *inits);
    if (!inits)
        return -1;
    layer->inits = inits;
    json_object_foreach(json, key, value) {
        char *name = take(r, strlen(key) + 1, 1);
        if (!name)
            return -1;
        memcpy(name, key, strlen(key) + 1);
        inits[layer->init_count].param = name;
        if (read_kind(r, value, below(pointer, key).pointer, true, &inits[layer->init_count++].init) < 0)
            return -1;
    }
    return 0;
}

/* false: the layer begins frozen. */
static int read_requires_grad(reader *r, const json_t *json, const char *pointer, gd_layer_spec *layer) {
    if (json && !json_is_boolean(json))
        return wrong_type(r, json, below(pointer, "requires_grad").pointer, "true or false");
    layer->frozen = json_is_false(json);
    return 0;
}

static int read_layer(reader *r, json_t *json, const char *pointer, int depth, gd_layer_spec *layer) {
    static const char *const others[] = {"type", "name", "inputs", "shares", "requires_grad", "init"};
    if (!json_is_object(json))
        return wrong_type(r, json, pointer, "an object such as {\"type\": \"Linear\", \"out_features\": 10}");
    const json_t *type = json_object_get(json, "type"), *name = json_object_get(json, "name"),
                 *inputs = json_object_get(json, "inputs"), *shares = json_object_get(json, "shares");
    /* an object: initialisers; anything else is an attribute of that name, which PReLU has */
    json_t *init = json_is_object(json_object_get(json, "init")) ? json_object_get(json, "init") : NULL;
    if (!type)
        return missing(r, pointer, "type", "");
    if (read_string(r, type, below(pointer, "type").pointer, &layer->type) < 0 ||
        (name && read_layer_name(r, name, below(pointer, "name").pointer, &layer->name) < 0) ||
        (inputs && read_layer_inputs(r, inputs, below(pointer, "inputs").pointer, layer) < 0) ||
        read_requires_grad(r, json_object_get(json, "requires_grad"), pointer, layer) < 0)
        return -1;
    if (json_object_get(json, "layers"))
        return read_block(r, json, pointer, depth, layer);
    if ((shares && read_string(r, shares, below(pointer, "shares").pointer, &layer->shares) < 0) ||
        (init && read_inits(r, init, below(pointer, "init").pointer, layer) < 0))
        return -1;
    return read_fields(r, json, pointer, others, COUNT(others) - !init, &layer->fields, &layer->field_count);
}

/* Layers, and blocks of layers within them, at most GD_MAX_BLOCKS deep. */
static int read_layer_list(reader *r, json_t *json, const char *pointer, int depth,
                           const gd_layer_spec **ret_layers, size_t *ret_count) {
    const size_t count = json_array_size(json);
    if (!json_is_array(json))
        return wrong_type(r, json, pointer, "a list of layers");
    if (count > GD_MAX_LAYERS)
        return gp_fail(r->error, GP_LIMIT_EXCEEDED, pointer,
                       "the model has %zu layers, at most %d are allowed", count, GD_MAX_LAYERS);
    if (depth > GD_MAX_BLOCKS)
        return gp_fail(r->error, GP_LIMIT_EXCEEDED, pointer, "blocks are nested more than %d deep",
                       GD_MAX_BLOCKS);
    gd_layer_spec *layers = take(r, count, sizeof *layers);
    if (!layers)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (read_layer(r, json_array_get(json, i), element(pointer, i).pointer, depth, &layers[i]) < 0)
            return -1;
    *ret_layers = layers;
    *ret_count = count;
    return 0;
}

static int read_layers(reader *r, json_t *json, const char *pointer, gp_model *model) {
    return read_layer_list(r, json, pointer, 0, &model->graph.layers, &model->graph.layer_count);
}

/* null: none yet, which is how GET shows it. */
static int read_loss(reader *r, json_t *json, const char *pointer, gp_model *model) {
    return json_is_null(json) ? 0 : read_terms(r, json, pointer, &model->config.loss);
}

static int read_optimizer(reader *r, json_t *json, const char *pointer, gp_model *model) {
    return json_is_null(json) ? 0 : read_optimizer_spec(r, json, pointer, true, &model->config.optimizer);
}

static int read_scheduler(reader *r, json_t *json, const char *pointer, gp_model *model) {
    return json_is_null(json) ? 0 : read_schedule(r, json, pointer, &model->config.scheduler);
}

/* ---- a model ----------------------------------------------------------------------------------- */

static const char *const names[] = {"name",   "class_name", "seed", "input",     "inputs",
                                    "layers", "outputs",    "loss", "optimizer", "scheduler"};
/* In the order of names. */
static int (*const readers[])(reader *r, json_t *json, const char *pointer, gp_model *model) = {
    read_name,   read_class_name, read_seed, read_single_input, read_inputs,
    read_layers, read_outputs,    read_loss, read_optimizer,    read_scheduler,
};
_Static_assert(COUNT(names) == COUNT(readers), "every field has a reader");

static int read_model(reader *r, json_t *json, gp_model *model) {
    const char *key;
    json_t *value;
    if (!json_is_object(json))
        return wrong_type(r, json, "", "an object that defines a model");
    json_object_foreach(json, key, value) {
        size_t i = 0;
        while (i < COUNT(names) && strcmp(names[i], key) != 0)
            i++;
        if (i == COUNT(names))
            return unknown(r, "", key, names, COUNT(names));
        if (readers[i](r, value, below("", key).pointer, model) < 0)
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
    reader r = {.error = error};
    gp_model model = {.graph = {.class_name = "Net"}};
    if (read_model(&r, json, &model) < 0) {
        release(r.memory);
        return -1;
    }
    model.memory = r.memory;
    *ret_model = model;
    return 0;
}

void gp_model_release(gp_model *model) {
    release(model->memory);
    *model = (gp_model){.memory = NULL};
}
