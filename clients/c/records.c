/* records.c -- JSON replies into plain structs, by tables of fields. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

int gradd_reply_json(const gradd_reply *reply, json_t **ret_json, gradd_error *error) {
    json_error_t why;
    json_t *json = json_loadb(reply->data, reply->size, JSON_ALLOW_NUL, &why);
    if (!json) {
        return gradd_fail(error, GRADD_E_REPLY, "the reply is not JSON: %s", why.text);
    }
    *ret_json = json;
    return GRADD_OK;
}

/* Follow "timing_us.parse". NULL: left out, or null. */
static const json_t *find(const json_t *json, const char *path) {
    while (json && *path) {
        size_t length = strcspn(path, ".");
        char key[64];
        if (length >= sizeof key) {
            return NULL;
        }
        memcpy(key, path, length);
        key[length] = '\0';
        json = json_object_get(json, key);
        path += length + (path[length] == '.');
    }
    return json_is_null(json) ? NULL : json;
}

/* Numbers, and the three strings that stand for the numbers JSON doesn't have. */
static bool read_double(const json_t *json, double *out) {
    static const struct {
        const char *text;
        double value;
    } special[] = {{"NaN", NAN}, {"Infinity", INFINITY}, {"-Infinity", -INFINITY}};
    if (json_is_number(json)) {
        *out = json_number_value(json);
        return true;
    }
    const char *text = json_string_value(json);
    for (size_t i = 0; text && i < sizeof special / sizeof *special; i++) {
        if (strcmp(text, special[i].text) == 0) {
            *out = special[i].value;
            return true;
        }
    }
    return false;
}

/* Cut to fit. */
static void copy_text(char *out, size_t size, const char *text) {
    size_t length = strlen(text);
    length = length < size ? length : size - 1;
    memcpy(out, text, length);
    out[length] = '\0';
}

static int wrong_type(const gradd_field *field, gradd_error *error) {
    return gradd_fail(error, GRADD_E_REPLY, "the reply's '%s' has an unexpected type", field->path);
}

static int read_field(const json_t *json, const gradd_field *field, void *out, gradd_error *error) {
    const json_t *value = find(json, field->path);
    if (!value && field->required) {
        return gradd_fail(error, GRADD_E_REPLY, "the reply has no '%s': is it a gradd daemon?", field->path);
    }
    switch (field->type) {
    case GRADD_FIELD_INT:
        if (value && !json_is_integer(value)) {
            return wrong_type(field, error);
        }
        *(int64_t *)out = value ? json_integer_value(value) : -1;
        break;
    case GRADD_FIELD_DOUBLE:
        *(double *)out = NAN;
        if (value && !read_double(value, out)) {
            return wrong_type(field, error);
        }
        break;
    case GRADD_FIELD_BOOL:
        if (value && !json_is_boolean(value)) {
            return wrong_type(field, error);
        }
        *(bool *)out = json_is_true(value);
        break;
    case GRADD_FIELD_TEXT:
    case GRADD_FIELD_STRING: {
        const char *text = json_string_value(value);
        if (value && !text) {
            return wrong_type(field, error);
        }
        if (field->type == GRADD_FIELD_TEXT) {
            copy_text(out, field->size, text ? text : "");
        } else if (text) {
            char *copy = strdup(text);
            if (!copy) {
                return gradd_fail_memory(error);
            }
            *(char **)out = copy;
        }
        break;
    }
    }
    return GRADD_OK;
}

int gradd_record_read(const json_t *json, const gradd_field *fields, size_t count, void *record,
                      gradd_error *error) {
    int code = GRADD_OK;
    for (size_t i = 0; i < count && !code; i++) {
        code = read_field(json, &fields[i], (char *)record + fields[i].offset, error);
    }
    return code;
}

int gradd_ints_read(const json_t *json, int64_t *out, size_t max) {
    size_t count = json_array_size(json);
    if (!json_is_array(json) || count > max) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(json, i);
        if (!json_is_integer(item) && !json_is_null(item)) {
            return -1;
        }
        out[i] = json_is_null(item) ? -1 : json_integer_value(item);
    }
    return (int)count;
}

void gradd_info_free(const gradd_kind *kind, void *info) {
    if (!info) {
        return;
    }
    for (size_t i = 0; i < kind->count; i++) {
        if (kind->fields[i].type == GRADD_FIELD_STRING) {
            free(*(char **)((char *)info + kind->fields[i].offset));
        }
    }
    free(*(char **)((char *)info + kind->json));
    memset(info, 0, kind->size);
}

void gradd_infos_free(const gradd_kind *kind, void *infos, size_t count) {
    for (size_t i = 0; i < count; i++) {
        gradd_info_free(kind, (char *)infos + i * kind->size);
    }
    free(infos);
}

int gradd_info_read(const json_t *json, const gradd_kind *kind, void *ret_info, gradd_error *error) {
    void *info = calloc(1, kind->size);
    if (!info) {
        return gradd_fail_memory(error);
    }
    int code = gradd_record_read(json, kind->fields, kind->count, info, error);
    if (!code) {
        char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        *(char **)((char *)info + kind->json) = text;
        code = text ? GRADD_OK : gradd_fail_memory(error);
    }
    if (code) {
        gradd_info_free(kind, info);
    } else {
        memcpy(ret_info, info, kind->size);
    }
    free(info);
    return code;
}
