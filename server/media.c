/* media.c -- RFC 9110, 12.5.1. */
#include "media.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const names[GS_MEDIA_COUNT] = {
    [GS_MEDIA_NONE] = "",
    [GS_MEDIA_JSON] = "application/json",
    [GS_MEDIA_NPY] = "application/x-npy",
    [GS_MEDIA_SAFETENSORS] = "application/x-safetensors",
    [GS_MEDIA_OCTETS] = "application/octet-stream",
    [GS_MEDIA_DOT] = "text/vnd.graphviz",
    [GS_MEDIA_CSV] = "text/csv; charset=utf-8",
    [GS_MEDIA_METRICS] = "text/plain; version=0.0.4; charset=utf-8",
    [GS_MEDIA_EVENTS] = "text/event-stream",
    [GS_MEDIA_HTML] = "text/html; charset=utf-8",
    [GS_MEDIA_PROBLEM] = "application/problem+json",
};

const char *gs_media_name(gs_media media) {
    return names[media];
}

/* Length of "type/subtype" at the start of text, without parameters and spaces. */
static size_t essence(const char *text) {
    return strcspn(text, "; \t,");
}

gs_media gs_media_of_content(const char *content_type) {
    if (!content_type) {
        return GS_MEDIA_JSON;
    }
    content_type += strspn(content_type, " \t");
    size_t length = essence(content_type);
    static const struct {
        const char *name;
        gs_media media;
    } read[] = {
        {"application/json", GS_MEDIA_JSON},
        {"application/x-www-form-urlencoded", GS_MEDIA_JSON}, /* what curl -d sends */
        {"application/merge-patch+json", GS_MEDIA_JSON},
        {"application/x-npy", GS_MEDIA_NPY},
        {"application/x-safetensors", GS_MEDIA_SAFETENSORS},
        {"application/octet-stream", GS_MEDIA_OCTETS},
        {"application/gzip", GS_MEDIA_OCTETS},
        {"application/x-gzip", GS_MEDIA_OCTETS},
        {"text/csv", GS_MEDIA_OCTETS},
    };
    for (size_t i = 0; i < sizeof read / sizeof *read; i++) {
        if (strlen(read[i].name) == length && !strncasecmp(read[i].name, content_type, length)) {
            return read[i].media;
        }
    }
    return GS_MEDIA_COUNT;
}

/* How well a range fits a type: 0 not, 1 any, 2 the type, 3 the subtype too. */
static int fit(const char *range, size_t length, const char *name) {
    size_t full = essence(name), type = strcspn(name, "/");
    if (length == 3 && !strncmp(range, "*/*", 3)) {
        return 1;
    }
    if (length == type + 2 && !strncasecmp(range, name, type + 1) && range[type + 1] == '*') {
        return 2;
    }
    return length == full && !strncasecmp(range, name, full) ? 3 : 0;
}

/* The q of a range's parameters, in thousandths. */
static int quality(const char *parameters, size_t length) {
    for (size_t i = 0; i + 2 < length; i++) {
        if ((parameters[i] == ';' || parameters[i] == ' ') && (parameters[i + 1] | 32) == 'q' &&
            parameters[i + 2] == '=') {
            double q = strtod(parameters + i + 3, NULL);
            return q >= 1 ? 1000 : q > 0 ? (int)(q * 1000) : 0;
        }
    }
    return 1000;
}

/* The q of the range that fits `name` most closely; *ret_fit says how closely. */
static int score(const char *accept, const char *name, int *ret_fit) {
    int best = 0, q = 0;
    for (const char *range = accept; *range; range += *range == ',') {
        range += strspn(range, " \t,");
        size_t length = essence(range), whole = strcspn(range, ",");
        int f = fit(range, length, name);
        if (f > best) {
            best = f;
            q = quality(range + length, whole - length);
        }
        range += whole;
    }
    *ret_fit = best;
    return q;
}

gs_media gs_media_negotiate(const char *accept, const gs_media *offers) {
    if (!accept || !*accept) {
        return offers[0];
    }
    gs_media best = GS_MEDIA_NONE;
    int best_q = 0, best_fit = 0;
    for (; *offers; offers++) {
        int f, q = score(accept, names[*offers], &f);
        /* of equal q, the one that was named rather than matched by a wildcard */
        if (q > best_q || (q == best_q && q && f > best_fit)) {
            best = *offers;
            best_q = q;
            best_fit = f;
        }
    }
    return best;
}
