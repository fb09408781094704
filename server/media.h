/* media.h -- media types: what a body is in, and what a reply should be in. */
#ifndef GRADD_SERVER_MEDIA_H
#define GRADD_SERVER_MEDIA_H

#include <stdbool.h>

typedef enum gs_media {
    GS_MEDIA_NONE,
    GS_MEDIA_JSON,
    GS_MEDIA_NPY,
    GS_MEDIA_SAFETENSORS,
    GS_MEDIA_OCTETS, /* to be told from the first bytes */
    GS_MEDIA_DOT,
    GS_MEDIA_CSV,
    GS_MEDIA_METRICS, /* Prometheus text */
    GS_MEDIA_EVENTS,  /* Server-Sent Events */
    GS_MEDIA_HTML,
    GS_MEDIA_PROBLEM,
    GS_MEDIA_COUNT
} gs_media;

/** "application/json" */
const char *gs_media_name(gs_media media);
/** Of a Content-Type's value (NULL: none was sent). GS_MEDIA_COUNT: not one that a request may have. */
gs_media gs_media_of_content(const char *content_type);
/** The best of `offers` (ends with GS_MEDIA_NONE; ties go to the earlier) for an Accept header's value
 *  (NULL: anything will do). GS_MEDIA_NONE: none of them is acceptable. */
gs_media gs_media_negotiate(const char *accept, const gs_media *offers);

#endif
