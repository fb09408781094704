/* reader.c */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "names.h"
#include "reader.h"

/* Memory of what was read: blocks that are freed together. */
typedef struct block {
    struct block *next;
    max_align_t data[];
} block;

void *gp_take(gp_reader *r, size_t count, size_t size) {
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

void gp_release(void *memory) {
    for (block *b = memory, *next; b; b = next) {
        next = b->next;
        free(b);
    }
}

/* ---- where it stands, and what it is ------------------------------------------------------------ */

gp_place gp_below(const char *pointer, const char *token) {
    gp_place p;
    snprintf(p.pointer, sizeof p.pointer, "%s", pointer);
    gp_pointer_add(p.pointer, sizeof p.pointer, token);
    return p;
}

gp_place gp_element(const char *pointer, size_t index) {
    char token[24];
    snprintf(token, sizeof token, "%zu", index);
    return gp_below(pointer, token);
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

int gp_wrong_type(gp_reader *r, const json_t *json, const char *pointer, const char *wanted) {
    return gp_fail(r->error, GP_INVALID_VALUE, pointer, "%s must be %s, not %s", subject(pointer), wanted,
                   type_text(json));
}

int gp_missing(gp_reader *r, const char *pointer, const char *field, const char *hint) {
    return gp_fail(r->error, GP_MISSING_FIELD, gp_below(pointer, field).pointer, "%s has no \"%s\"%s",
                   subject(pointer), field, hint);
}

int gp_unknown(gp_reader *r, const char *pointer, const char *field, const char *const *known, size_t count) {
    const char *nearest = gp_nearest(field, known, count);
    return gp_fail(r->error, GP_UNKNOWN_FIELD, gp_below(pointer, field).pointer, "\"%s\" is unknown%s%s%s",
                   field, nearest ? "; did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?" : "");
}

/* ---- values ------------------------------------------------------------------------------------ */

int gp_read_string(gp_reader *r, const json_t *json, const char *pointer, const char **ret_string) {
    if (!json_is_string(json))
        return gp_wrong_type(r, json, pointer, "a string");
    char *copy = gp_take(r, json_string_length(json) + 1, 1);
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
static int read_list(gp_reader *r, const json_t *json, const char *pointer, gd_value *ret_value) {
    const size_t count = json_array_size(json);
    int64_t *ints = gp_take(r, count, sizeof *ints);
    double *floats = gp_take(r, count, sizeof *floats);
    bool integers = true;
    if (!ints || !floats)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(json, i);
        if (json_is_null(item))
            floats[i] = NAN;
        else if (!is_number(item, &floats[i]))
            return gp_wrong_type(r, item, gp_element(pointer, i).pointer,
                                 "a number, as an element of a list");
        ints[i] = json_is_null(item) ? GD_NONE : json_integer_value(item);
        integers &= json_is_integer(item) || json_is_null(item);
    }
    *ret_value = integers ? (gd_value){.kind = GD_VALUE_INTS, .count = count, .ints = ints}
                          : (gd_value){.kind = GD_VALUE_FLOATS, .count = count, .floats = floats};
    return 0;
}

static int read_value(gp_reader *r, const json_t *json, const char *pointer, gd_value *ret_value) {
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
        return gp_read_string(r, json, pointer, &ret_value->string);
    case JSON_ARRAY:
        return read_list(r, json, pointer, ret_value);
    default:
        return gp_wrong_type(r, json, pointer, "a number, a string, true, false, null or a list of numbers");
    }
}

/* Every member of an object whose key is not among `others`, as an attribute. */
int gp_read_fields(gp_reader *r, json_t *json, const char *pointer, const char *const *others,
                   size_t other_count, const gd_field **ret_fields, size_t *ret_count) {
    gd_field *fields = gp_take(r, json_object_size(json), sizeof *fields);
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
        char *name = gp_take(r, strlen(key) + 1, 1);
        if (!name || read_value(r, value, gp_below(pointer, key).pointer, &fields[count].value) < 0)
            return -1;
        memcpy(name, key, strlen(key) + 1);
        fields[count++].name = name;
    }
    *ret_fields = fields;
    *ret_count = count;
    return 0;
}
