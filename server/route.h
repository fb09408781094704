/* route.h -- which handler answers which request: one row each in routes.def. */
#ifndef GRADD_SERVER_ROUTE_H
#define GRADD_SERVER_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "auth.h"
#include "media.h"
#include "proto/gradd_codec.h"
#include "uri.h"

typedef struct gs_request gs_request;

/** Answers a request. @return 0 with request->reply filled in; -1 with *error filled in */
typedef int gs_handler(gs_request *request, gp_error *error);

typedef enum gs_route_flag {
    GS_WORK = 1,      /* runs on a compute thread; with GS_MODEL in the model's turn, else in a common one */
    GS_MODEL = 2,     /* the first path variable names a model that must exist */
    GS_PUBLIC = 4,    /* needs no token */
    GS_CHANGES = 8,   /* changes what the path names: If-Match guards it */
    GS_HEALTH = 16,   /* answers while draining and over the connection limit; logged at debug level */
    GS_BRIEF = 64,    /* with GS_MODEL and GS_WORK: takes microseconds, so that the loop may run it */
    GS_DURABLE = 128, /* has effects (effect.h), which are committed before its reply: not on the loop */
    GS_ALONE = 512,   /* not while a job has the model */
    GS_TRANSIENT =
        256,      /* changes a model's working memory (graph, gradients), of which checkpoints know nothing */
    GS_ASIDE = 32 /* with GS_MODEL and GS_WORK: not in the model's turn, as it touches only what has a lock */
} gs_route_flag;

/* What a request's body may be. */
typedef enum gs_body_kind {
    GS_BODY_NONE,    /* none; a small one is read and ignored */
    GS_BODY_JSON,    /* JSON, up to --max-json-body */
    GS_BODY_TENSORS, /* any encoding of tensors, up to --max-body */
    GS_BODY_STATE,   /* safetensors, up to --max-body */
    GS_BODY_FILE     /* a dataset's part, up to --max-dataset: into a file as it comes (upload.h) */
} gs_body_kind;

/* What a reply may be: which media types are offered, the default first. */
typedef enum gs_offer {
    GS_OFFER_JSON,
    GS_OFFER_TENSOR,
    GS_OFFER_STATE,
    GS_OFFER_CHECKPOINT,
    GS_OFFER_GRAPH,
    GS_OFFER_HISTORY,
    GS_OFFER_METRICS,
    GS_OFFER_EVENTS,
    GS_OFFER_HTML,
    GS_OFFER_COUNT
} gs_offer;

typedef struct gs_route {
    const char *method,
        *path; /* "/v1/models/{m}/step": {m} a model's name, {c} a checkpoint's, {p} a parameter's ... */
    gs_handler *handler;
    unsigned flags;
    gs_body_kind body;
    gs_offer offer;
    gs_scope scope;
    const char *parameters; /* query parameters, separated by spaces; "*": any, the handler checks them */
    const char *summary;
} gs_route;

enum {
    GS_MAX_VARIABLES = 3,
    GS_ROUTES = 0
#define R(...) +1
#include "routes.def"
#undef R
};

/** The index-th row; index < GS_ROUTES. */
const gs_route *gs_route_at(size_t index);
/**
 * The row for a method and path.
 *
 * @param variables  the path variables' values, in order
 * @param ret_exists whether any method has this path
 * @return NULL when there is none
 */
const gs_route *gs_route_find(const char *method, const gs_uri *uri, const char *variables[GS_MAX_VARIABLES],
                              bool *ret_exists);
/** "GET, HEAD, PATCH, OPTIONS": the methods that a path has. "*" stands for the whole server. */
void gs_route_allow(const gs_uri *uri, char *text, size_t size);
/** Names in the path obey the name rule, and every query parameter is one the row knows.
 *  @return 0; -1: 400 */
int gs_route_check(const gs_route *route, const gs_uri *uri, const char *variables[GS_MAX_VARIABLES],
                   gp_error *error);
/** The media types that a route offers; ends with GS_MEDIA_NONE. */
const gs_media *gs_route_offers(const gs_route *route);

#endif
