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

static gradd_value value_of(const json_t *json) {
    switch (json ? json_typeof(json) : JSON_NULL) {
    case JSON_NULL:
        return (gradd_value){.kind = GRADD_NOTHING};
    case JSON_INTEGER:
        return (gradd_value){.kind = GRADD_WHOLE, .whole = json_integer_value(json)};
    case JSON_REAL:
        return (gradd_value){.kind = GRADD_REAL, .real = json_real_value(json)};
    case JSON_TRUE:
    case JSON_FALSE:
        return (gradd_value){.kind = GRADD_BOOLEAN, .boolean = json_is_true(json)};
    case JSON_STRING: {
        const char *text = json_string_value(json);
        return (gradd_value){.kind = GRADD_TEXT, .text = text, .size = strlen(text)};
    }
    default:
        return (gradd_value){.kind = GRADD_OTHER};
    }
}

/* Follow "timing_us.parse". */
static gradd_value find_in_json(const void *source, const char *path) {
    const json_t *json = source;
    while (json && *path) {
        size_t length = strcspn(path, ".");
        char key[64];
        if (length >= sizeof key) {
            return value_of(NULL);
        }
        memcpy(key, path, length);
        key[length] = '\0';
        json = json_object_get(json, key);
        path += length + (path[length] == '.');
    }
    return value_of(json);
}

static gradd_value find_in_members(const void *source, const char *path) {
    return gradd_members_find(source, path);
}

/* Numbers, and the three strings that stand for the numbers JSON doesn't have. */
static bool read_double(const gradd_value *value, double *out) {
    static const struct {
        char text[12];
        double value;
    } special[] = {{"NaN", NAN}, {"Infinity", INFINITY}, {"-Infinity", -INFINITY}};
    if (value->kind == GRADD_WHOLE || value->kind == GRADD_REAL) {
        *out = value->kind == GRADD_WHOLE ? (double)value->whole : value->real;
        return true;
    }
    for (size_t i = 0; value->kind == GRADD_TEXT && i < sizeof special / sizeof *special; i++) {
        if (strlen(special[i].text) == value->size &&
            memcmp(special[i].text, value->text, value->size) == 0) {
            *out = special[i].value;
            return true;
        }
    }
    return false;
}

/* Cut to fit. */
static void copy_text(char *out, size_t size, const gradd_value *value) {
    const size_t length = value->size < size ? value->size : size - 1;
    memcpy(out, value->text, length);
    out[length] = '\0';
}

static int wrong_type(const gradd_field *field, gradd_error *error) {
    return gradd_fail(error, GRADD_E_REPLY, "the reply's '%s' has an unexpected type", field->path);
}

static int read_field(const gradd_value *value, const gradd_field *field, void *out, gradd_error *error) {
    const bool there = value->kind != GRADD_NOTHING;
    if (!there && field->required) {
        return gradd_fail(error, GRADD_E_REPLY, "the reply has no '%s': is it a gradd daemon?", field->path);
    }
    switch (field->type) {
    case GRADD_FIELD_INT:
        if (there && value->kind != GRADD_WHOLE) {
            return wrong_type(field, error);
        }
        *(int64_t *)out = there ? value->whole : -1;
        break;
    case GRADD_FIELD_DOUBLE:
        *(double *)out = NAN;
        if (there && !read_double(value, out)) {
            return wrong_type(field, error);
        }
        break;
    case GRADD_FIELD_BOOL:
        if (there && value->kind != GRADD_BOOLEAN) {
            return wrong_type(field, error);
        }
        *(bool *)out = there && value->boolean;
        break;
    case GRADD_FIELD_TEXT:
    case GRADD_FIELD_STRING:
        if (there && value->kind != GRADD_TEXT) {
            return wrong_type(field, error);
        }
        if (field->type == GRADD_FIELD_TEXT) {
            copy_text(out, field->size, there ? value : &(gradd_value){.text = ""});
        } else if (there && !(*(char **)out = strndup(value->text, value->size))) {
            return gradd_fail_memory(error);
        }
        break;
    }
    return GRADD_OK;
}

/* Fill in a record out of `source`, in which `find` knows its way. */
static int read_fields(gradd_value (*find)(const void *source, const char *path), const void *source,
                       const gradd_field *fields, size_t count, void *record, gradd_error *error) {
    int code = GRADD_OK;
    for (size_t i = 0; i < count && !code; i++) {
        const gradd_value value = find(source, fields[i].path);
        code = read_field(&value, &fields[i], (char *)record + fields[i].offset, error);
    }
    return code;
}

int gradd_record_read(const json_t *json, const gradd_field *fields, size_t count, void *record,
                      gradd_error *error) {
    return read_fields(find_in_json, json, fields, count, record, error);
}

int gradd_reply_record(const gradd_reply *reply, const gradd_field *fields, size_t count, void *record,
                       gradd_error *error) {
    gradd_members members;
    if (gradd_members_read(reply, &members)) {
        return read_fields(find_in_members, &members, fields, count, record, error);
    }
    json_t *json;
    int code = gradd_reply_json(reply, &json, error);
    if (!code) {
        code = gradd_record_read(json, fields, count, record, error);
        json_decref(json);
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
