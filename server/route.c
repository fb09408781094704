/* route.c */
#include "route.h"

#include <stdio.h>
#include <string.h>

#include "handlers/handlers.h"
#include "proto/gradd_proto.h"

enum { GS_NO_FLAGS = 0 };

static const gs_route routes[] = {
#define R(method_, path_, handler_, flags_, body_, offer_, scope_, parameters_, summary_) \
    {.method = #method_, \
     .path = path_, \
     .handler = gs_handle_##handler_, \
     .flags = GS_##flags_, \
     .body = GS_BODY_##body_, \
     .offer = GS_OFFER_##offer_, \
     .scope = GS_SCOPE_##scope_, \
     .parameters = parameters_, \
     .summary = summary_},
#include "routes.def"
#undef R
};

static const gs_media offers[GS_OFFER_COUNT][4] = {
    [GS_OFFER_JSON] = {GS_MEDIA_JSON},
    [GS_OFFER_TENSOR] = {GS_MEDIA_JSON, GS_MEDIA_NPY, GS_MEDIA_SAFETENSORS},
    [GS_OFFER_STATE] = {GS_MEDIA_SAFETENSORS},
    [GS_OFFER_CHECKPOINT] = {GS_MEDIA_SAFETENSORS, GS_MEDIA_JSON},
    [GS_OFFER_GRAPH] = {GS_MEDIA_JSON, GS_MEDIA_DOT},
    [GS_OFFER_HISTORY] = {GS_MEDIA_JSON, GS_MEDIA_CSV},
    [GS_OFFER_METRICS] = {GS_MEDIA_METRICS},
    [GS_OFFER_EVENTS] = {GS_MEDIA_EVENTS},
    [GS_OFFER_HTML] = {GS_MEDIA_HTML},
};

const gs_route *gs_route_at(size_t index) {
    return &routes[index];
}

const gs_media *gs_route_offers(const gs_route *route) {
    return offers[route->offer];
}

/* Does the path fit the pattern? Fills in the variables. */
static bool matches(const char *pattern, const gs_uri *uri, const char *variables[GS_MAX_VARIABLES]) {
    size_t variable = 0, i = 0;
    pattern++; /* the leading "/" */
    for (; *pattern; i++) {
        if (i >= uri->segment_count || i >= GS_MAX_SEGMENTS) {
            return false;
        }
        const char *segment = uri->segments[i];
        if (*pattern == '{') {
            variables[variable++] = segment;
            pattern += strcspn(pattern, "/");
        } else {
            for (; *pattern && *pattern != '/' && *pattern == *segment; pattern++) {
                segment++;
            }
            if (*segment) {
                return false;
            }
        }
        if (*pattern && *pattern++ != '/') {
            return false;
        }
    }
    return i == uri->segment_count;
}

const gs_route *gs_route_find(const char *method, const gs_uri *uri, const char *variables[GS_MAX_VARIABLES],
                              bool *ret_exists) {
    for (size_t i = 0; i < GS_ROUTES; i++) {
        if (!strcmp(routes[i].method, method) && matches(routes[i].path, uri, variables)) {
            *ret_exists = true;
            return &routes[i];
        }
    }
    *ret_exists = false;
    for (size_t i = 0; i < GS_ROUTES && !*ret_exists; i++) {
        *ret_exists = matches(routes[i].path, uri, variables);
    }
    return NULL;
}

void gs_route_allow(const gs_uri *uri, char *text, size_t size) {
    bool whole_server = uri->segment_count == 1 && !strcmp(uri->segments[0], "*");
    static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    size_t used = 0;
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        const char *variables[GS_MAX_VARIABLES];
        bool has = whole_server;
        for (size_t i = 0; i < GS_ROUTES && !has; i++) {
            has = !strcmp(routes[i].method, methods[m]) && matches(routes[i].path, uri, variables);
        }
        if (has && used < size) {
            used += (size_t)snprintf(text + used, size - used, "%s%s, ", methods[m], m ? "" : ", HEAD");
        }
    }
    if (used < size) {
        snprintf(text + used, size - used, "OPTIONS");
    }
}

/* Is name one of the words in list? */
static bool listed(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = list; *at; at += strspn(at, " ")) {
        size_t span = strcspn(at, " ");
        if (span == length && !strncmp(at, name, length)) {
            return true;
        }
        at += span;
    }
    return false;
}

int gs_route_check(const gs_route *route, const gs_uri *uri, const char *variables[GS_MAX_VARIABLES],
                   gp_error *error) {
    size_t index = 0;
    for (const char *brace = strchr(route->path, '{'); brace; brace = strchr(brace + 1, '{'), index++) {
        if (strchr("mdsc", brace[1]) && !gp_name_ok(variables[index])) {
            return gp_fail(error, GP_INVALID_NAME, "",
                           "\"%.80s\" is no name: 1 to 64 letters, digits, \".\", \"_\" or \"-\", the first "
                           "a letter or digit",
                           variables[index]);
        }
    }
    for (size_t i = 0; i < uri->parameter_count && strcmp(route->parameters, "*"); i++) {
        if (!listed(route->parameters, uri->parameters[i].name)) {
            return gp_fail(error, GP_UNKNOWN_PARAMETER, "", "unknown query parameter \"%.64s\"; %s takes %s",
                           uri->parameters[i].name, route->path,
                           *route->parameters ? route->parameters : "none");
        }
    }
    return 0;
}
