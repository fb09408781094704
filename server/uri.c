/* uri.c */
#include "uri.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* Decode text in place. plus: "+" is a space, as forms write it. */
static bool decode(char *text, bool plus) {
    char *out = text;
    for (const char *in = text; *in; in++) {
        if (*in == '%') {
            int high = hex(in[1]), low = high < 0 ? -1 : hex(in[2]);
            if (low < 0 || high + low == 0) {
                return false;
            }
            *out++ = (char)(high << 4 | low);
            in += 2;
        } else {
            *out++ = plus && *in == '+' ? ' ' : *in;
        }
    }
    *out = '\0';
    return true;
}

static int parse_query(char *query, gs_uri *uri, gp_error *error) {
    while (query) {
        char *name = strsep(&query, "&");
        if (!*name) {
            continue;
        }
        char *value = name;
        strsep(&value, "=");
        if (!decode(name, true) || (value && !decode(value, true))) {
            return gp_fail(error, GP_BAD_REQUEST, "", "the query string has a broken percent escape");
        }
        if (gs_uri_find(uri, name)) {
            return gp_fail(error, GP_BAD_REQUEST, "", "the query parameter \"%.64s\" is given twice", name);
        }
        if (uri->parameter_count == GS_MAX_PARAMETERS) {
            return gp_fail(error, GP_BAD_REQUEST, "", "more than %d query parameters", GS_MAX_PARAMETERS);
        }
        uri->parameters[uri->parameter_count++] = (gs_parameter){name, value ? value : ""};
    }
    return 0;
}

int gs_uri_parse(const char *target, char *scratch, gs_uri *ret_uri, gp_error *error) {
    gs_uri uri = {0};
    for (const char *c = target; *c; c++) {
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f || *c == '#') {
            return gp_fail(error, GP_BAD_REQUEST, "",
                           "the request target has a byte that must be percent-encoded (0x%02x)",
                           (unsigned char)*c);
        }
    }
    memcpy(scratch, target, strlen(target) + 1);
    char *path = scratch;
    if (!strncasecmp(path, "http://", 7) || !strncasecmp(path, "https://", 8)) {
        char *authority = strchr(path, '/') + 2;
        path = strpbrk(authority, "/?");
        memmove(authority - 1, authority, path ? (size_t)(path - authority) : strlen(authority) + 1);
        uri.authority = authority - 1;
        if (path) {
            path[-1] = '\0'; /* the byte that moving freed */
        } else {
            path = authority + strlen(authority); /* "": the root */
        }
    } else if (*path != '/' && strcmp(path, "*") != 0) {
        return gp_fail(error, GP_BAD_REQUEST, "", "the request target must begin with /");
    }
    char *query = path;
    path = strsep(&query, "?");
    if (*path == '/') {
        path++;
    }
    for (char *rest = *path ? path : NULL; rest;) {
        char *segment = strsep(&rest, "/");
        if (!decode(segment, false)) {
            return gp_fail(error, GP_BAD_REQUEST, "", "the path has a broken percent escape or %%00");
        }
        if (uri.segment_count < GS_MAX_SEGMENTS) {
            uri.segments[uri.segment_count] = segment;
        }
        uri.segment_count++;
    }
    if (parse_query(query, &uri, error)) {
        return -1;
    }
    *ret_uri = uri;
    return 0;
}

const char *gs_uri_find(const gs_uri *uri, const char *name) {
    for (size_t i = 0; i < uri->parameter_count; i++) {
        if (!strcmp(uri->parameters[i].name, name)) {
            return uri->parameters[i].value;
        }
    }
    return NULL;
}
