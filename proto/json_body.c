/* json_body.c -- request bodies: an object whose tensors are scanned here and whose other members are
 * handed to jansson one by one, after a flat pass has bounded their depth (jansson recurses). */
#include <stdlib.h>
#include <string.h>

#include "json_parse.h"
#include "names.h"
#include "proto/gradd_proto.h"

static gp_json_source source(const char *body, size_t size, gp_error *error) {
    return (gp_json_source){.scan = {body, body + size}, .begin = body, .error = error};
}

/* Skip one value, checking strings and depth; its grammar is left to jansson.
 * @param depth levels that are open around it */
static int skip_value(gp_json_source *json, int depth) {
    gp_scan *scan = &json->scan;
    const int outside = depth;
    do {
        const char c = gp_scan_peek(scan);
        const char *wrong = NULL;
        if (scan->at == scan->end)
            return gp_json_fail_at(json, scan->at, "the text ends too early");
        if (c == '"') {
            wrong = gp_scan_string(scan, NULL, 0);
            if (wrong)
                return gp_json_fail_at(json, scan->at, "there is %s", wrong);
        } else if (strchr("[{", c) && c) {
            if (++depth > GP_MAX_DEPTH)
                return gp_json_fail_at(json, scan->at, "nested deeper than %d levels", GP_MAX_DEPTH);
            scan->at++;
        } else if (strchr("]},:", c) && c) {
            if (depth == outside)
                return gp_json_fail_at(json, scan->at, "a value is expected");
            depth -= c == ']' || c == '}';
            scan->at++;
        } else {
            while (scan->at < scan->end && !memchr(" \t\r\n,:[]{}\"", *scan->at, 11))
                scan->at++;
        }
    } while (depth > outside);
    return 0;
}

static int read_other(gp_json_source *json, const char *key, json_t *rest) {
    json_error_t wrong;
    gp_scan_space(&json->scan);
    const char *start = json->scan.at;
    if (json_object_get(rest, key))
        return gp_json_fail_at(json, start, "\"%s\" is given twice", key);
    if (skip_value(json, 1) < 0)
        return -1;
    json_t *value =
        json_loadb(start, (size_t)(json->scan.at - start), JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &wrong);
    if (!value)
        return gp_json_fail_at(json, start + (wrong.position > 0 ? wrong.position - 1 : 0), "%s", wrong.text);
    if (json_object_set_new(rest, key, value) < 0)
        return gp_fail(json->error, GP_OUT_OF_MEMORY, "", "no memory for the request");
    return 0;
}

/* Does an object of named tensors follow, and not a tensor as an object? Its first key tells. */
static bool parts_follow(const gp_json_source *json) {
    gp_scan ahead = json->scan;
    char key[GP_MAX_NAME];
    return gp_scan_take(&ahead, '{') && gp_scan_peek(&ahead) == '"' &&
           !gp_scan_string(&ahead, key, sizeof key) && !gp_tensor_key(key);
}

static int read_part(gp_json_source *json, gp_json_member *member) {
    gp_json_part *part = &member->parts[member->part_count];
    char pointer[192] = "", key[GD_MAX_NAME];
    const char *start = json->scan.at;
    const char *wrong = gp_scan_string(&json->scan, key, sizeof key);
    if (wrong)
        return gp_json_fail_at(json, start, "there is %s", wrong);
    if (!gp_scan_take(&json->scan, ':'))
        return gp_json_fail_at(json, json->scan.at, "':' is expected after \"%s\"", key);
    gp_pointer_add(pointer, sizeof pointer, member->name);
    gp_pointer_add(pointer, sizeof pointer, key);
    if (member->part_count == member->part_limit)
        return gp_fail(json->error, GP_LIMIT_EXCEEDED, pointer, "%s holds more than %zu tensors",
                       member->name, member->part_limit);
    for (size_t i = 0; i < member->part_count; i++)
        if (strcmp(member->parts[i].name, key) == 0)
            return gp_json_fail_at(json, start, "\"%s\" is given twice", key);
    memcpy(part->name, key, sizeof key);
    if (gp_json_scan_tensor(json, (gp_json_place){part->name, pointer}, &part->tensor) < 0)
        return -1;
    member->part_count++;
    return 0;
}

static int read_parts(gp_json_source *json, gp_json_member *member) {
    (void)gp_scan_take(&json->scan, '{');
    do {
        if (read_part(json, member) < 0)
            return -1;
    } while (gp_scan_take(&json->scan, ','));
    return gp_scan_take(&json->scan, '}') ? 0
                                          : gp_json_fail_at(json, json->scan.at, "',' or '}' is expected");
}

static int read_member(gp_json_source *json, gp_json_member *member) {
    char pointer[192] = "";
    gp_pointer_add(pointer, sizeof pointer, member->name);
    if (member->found)
        return gp_json_fail_at(json, json->scan.at, "\"%s\" is given twice", member->name);
    if (member->parts && parts_follow(json)) {
        if (read_parts(json, member) < 0)
            return -1;
    } else if (gp_json_scan_tensor(json, (gp_json_place){member->name, pointer}, &member->tensor) < 0) {
        return -1;
    }
    member->found = true;
    return 0;
}

static int read_object(gp_json_source *json, gp_json_member *members, size_t count, json_t *rest) {
    gp_scan *scan = &json->scan;
    if (!gp_scan_take(scan, '{'))
        return gp_json_fail_at(json, scan->at, "%s",
                               scan->at == scan->end ? "the body is empty; at least {} is expected"
                                                     : "the body must be a JSON object");
    if (gp_scan_take(scan, '}'))
        return 0;
    do {
        char key[GP_MAX_NAME];
        size_t i = 0;
        const char *wrong = gp_scan_string(scan, key, sizeof key);
        if (wrong)
            return gp_json_fail_at(json, scan->at, "there is %s", wrong);
        if (!gp_scan_take(scan, ':'))
            return gp_json_fail_at(json, scan->at, "':' is expected after \"%s\"", key);
        while (i < count && strcmp(members[i].name, key) != 0)
            i++;
        if ((i < count ? read_member(json, &members[i]) : read_other(json, key, rest)) < 0)
            return -1;
    } while (gp_scan_take(scan, ','));
    return gp_scan_take(scan, '}') ? 0 : gp_json_fail_at(json, scan->at, "',' or '}' is expected");
}

static int read_end(gp_json_source *json) {
    gp_scan_space(&json->scan);
    return json->scan.at == json->scan.end
               ? 0
               : gp_json_fail_at(json, json->scan.at, "something follows the end of the JSON text");
}

static int check_required(const gp_json_member *members, size_t count, gp_error *error) {
    for (size_t i = 0; i < count; i++)
        if (members[i].required && !members[i].found) {
            char pointer[192] = "";
            gp_pointer_add(pointer, sizeof pointer, members[i].name);
            return gp_fail(error, GP_MISSING_FIELD, pointer, "\"%s\" is missing: give a tensor",
                           members[i].name);
        }
    return 0;
}

int gp_json_read(const char *body, size_t size, gp_json_member *members, size_t member_count,
                 json_t **ret_rest, gp_error *error) {
    gp_json_source json = source(body, size, error);
    json_t *rest = json_object();
    for (size_t i = 0; i < member_count; i++) {
        members[i].found = false;
        members[i].part_count = 0;
        members[i].tensor = (gp_json_tensor){.memory = NULL};
    }
    if (!rest)
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "no memory for the request");
    if (read_object(&json, members, member_count, rest) < 0 || read_end(&json) < 0 ||
        check_required(members, member_count, error) < 0) {
        json_decref(rest);
        return -1;
    }
    *ret_rest = rest;
    return 0;
}

int gp_json_read_tensor(const char *body, size_t size, gp_json_tensor *ret_tensor, gp_error *error) {
    gp_json_source json = source(body, size, error);
    gp_json_tensor tensor;
    if (gp_json_scan_tensor(&json, (gp_json_place){"tensor", ""}, &tensor) < 0)
        return -1;
    if (read_end(&json) < 0) {
        free(tensor.memory);
        return -1;
    }
    *ret_tensor = tensor;
    return 0;
}

void gp_json_members_release(gp_json_member *members, size_t member_count) {
    for (size_t i = 0; i < member_count; i++) {
        for (size_t k = 0; k < members[i].part_count; k++)
            free(members[i].parts[k].tensor.memory);
        free(members[i].tensor.memory);
        members[i].part_count = 0;
        members[i].tensor = (gp_json_tensor){.memory = NULL};
        members[i].found = false;
    }
}
