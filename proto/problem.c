/* problem.c -- problem documents (RFC 9457), and engine errors as wire errors. */
#include <stdio.h>
#include <string.h>

#include "internal.h"
#include "proto/gradd_proto.h"

static gp_problem problem_of(int code) {
    switch (code) {
    case GD_E_UNKNOWN_KIND:
        return GP_UNKNOWN_KIND;
    case GD_E_ATTRIBUTE:
        return GP_INVALID_ATTRIBUTE;
    case GD_E_GRAPH:
        return GP_INVALID_GRAPH;
    case GD_E_SHAPE:
        return GP_SHAPE_MISMATCH;
    case GD_E_DTYPE:
        return GP_DTYPE_MISMATCH;
    case GD_E_VALUE:
        return GP_INVALID_VALUE;
    case GD_E_STATE:
        return GP_WRONG_ORDER;
    case GD_E_NO_GRADIENT:
        return GP_NO_GRADIENT;
    case GD_E_NOT_FOUND:
        return GP_NOT_FOUND;
    case GD_E_LIMIT:
        return GP_LIMIT_EXCEEDED;
    case GD_E_MEMORY:
        return GP_OUT_OF_MEMORY;
    default:
        return GP_INTERNAL;
    }
}

int gp_fail_engine(gp_error *error, const gd_error *cause, const char *prefix) {
    char pointer[sizeof error->pointer];
    snprintf(pointer, sizeof pointer, "%s%s", prefix, cause->path);
    if (cause->field[0])
        gp_pointer_add(pointer, sizeof pointer, cause->field);
    return gp_fail(error, problem_of(cause->code), pointer, "%s",
                   cause->message[0] ? cause->message : gd_error_title(cause->code));
}

static void add_member(gp_text *text, const char *name, const char *value) {
    gp_text_add(text, "%s\"%s\": ", text->size > 1 ? ", " : "", name);
    gp_json_write_string(text, value);
}

char *gp_problem_json(const gp_error *error, const char *instance, const char *request_id) {
    gp_text text = {.data = NULL};
    char type[96];
    const char *code = gp_problem_code(error->problem);
    snprintf(type, sizeof type, "/errors/%s", code);
    for (char *c = type; *c; c++)
        if (*c == '_')
            *c = '-';
    gp_text_append(&text, "{", 1);
    add_member(&text, "type", type);
    add_member(&text, "title", gp_problem_title(error->problem));
    gp_text_add(&text, ", \"status\": %d", gp_problem_status(error->problem));
    add_member(&text, "detail", error->detail);
    if (instance)
        add_member(&text, "instance", instance);
    add_member(&text, "code", code);
    if (request_id)
        add_member(&text, "request_id", request_id);
    if (error->pointer[0]) {
        gp_text_add(&text, ", \"errors\": [{\"pointer\": ");
        gp_json_write_string(&text, error->pointer);
        gp_text_add(&text, ", \"detail\": ");
        gp_json_write_string(&text, error->detail);
        gp_text_add(&text, "}]");
    }
    gp_text_append(&text, "}", 1);
    if (text.failed)
        gp_text_release(&text);
    return text.data;
}
