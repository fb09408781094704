/* uri.h -- a request's target taken apart from its raw bytes: path segments and query parameters, each
 * percent-decoded on its own, so that "%2F" never becomes a separator. */
#ifndef GRADD_SERVER_URI_H
#define GRADD_SERVER_URI_H

#include <stddef.h>

#include "proto/gradd_codec.h"

enum { GS_MAX_SEGMENTS = 8, GS_MAX_PARAMETERS = 32, GS_MAX_URI = 8192 };

typedef struct gs_parameter {
    const char *name, *value;
} gs_parameter;

typedef struct gs_uri {
    const char *authority; /* of an absolute target ("http://host/path"), else NULL */
    const char *segments[GS_MAX_SEGMENTS];
    size_t segment_count; /* over GS_MAX_SEGMENTS: more than any route has */
    gs_parameter parameters[GS_MAX_PARAMETERS];
    size_t parameter_count;
} gs_uri;

/**
 * Take `target` apart.
 *
 * @param scratch at least strlen(target) + 1 bytes, which the result points into
 * @return 0; -1: control bytes, "%00", broken escapes, no path at all, a parameter given twice
 */
int gs_uri_parse(const char *target, char *scratch, gs_uri *ret_uri, gp_error *error);
/** A parameter's value, or NULL. */
const char *gs_uri_find(const gs_uri *uri, const char *name);

#endif
