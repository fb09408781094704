/* dispatch.c -- a request's way from its headers to its handler. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "http.h"
#include "request.h"

/* Fail, and end the connection after the answer. */
static int fail_closing(gs_request *request) {
    request->reply.close = true;
    return -1;
}

/* The token's scope against the route's. */
static int check_scope(gs_request *request, gs_scope needed) {
    if (needed == GS_SCOPE_NONE) {
        return 0;
    }
    gs_scope scope = gs_auth_scope(request->server->auth, request->headers.authorization);
    if (scope == GS_SCOPE_NONE) {
        return gp_fail(&request->error, GP_UNAUTHORIZED, "",
                       request->headers.authorization ? "the token is not one of this daemon's"
                                                      : "send a token: Authorization: Bearer TOKEN");
    }
    if (scope < needed) {
        return gp_fail(&request->error, GP_FORBIDDEN, "", "the token's scope is %s; this needs %s",
                       gs_scope_name(scope), gs_scope_name(needed));
    }
    return 0;
}

static int find_route(gs_request *request) {
    bool exists;
    const gs_route *route = gs_route_find(request->method, &request->uri, request->variables, &exists);
    if (!route && check_scope(request, GS_SCOPE_READ)) {
        return -1; /* strangers don't learn what there is */
    }
    if (!route && exists) {
        gs_route_allow(&request->uri, request->reply.allow, sizeof request->reply.allow);
        return gp_fail(&request->error, GP_METHOD_NOT_ALLOWED, "", "%.16s is not one of the methods here: %s",
                       request->method, request->reply.allow);
    }
    if (!route) {
        return gp_fail(&request->error, GP_NOT_FOUND, "",
                       "there is nothing at this path; GET /docs lists what there is");
    }
    request->route = route;
    return check_scope(request, route->scope) ||
                   gs_route_check(route, &request->uri, request->variables, &request->error)
               ? -1
               : 0;
}

/* Content-Type and Accept against the route. */
static int check_media(gs_request *request) {
    const gs_route *route = request->route;
    const gs_headers *headers = &request->headers;
    if (headers->has_body && route->body != GS_BODY_NONE) {
        if (headers->content_encoding && strcmp(headers->content_encoding, "identity")) {
            return gp_fail(&request->error, GP_UNSUPPORTED_MEDIA_TYPE, "",
                           "send the body without Content-Encoding");
        }
        request->content = gs_media_of_content(headers->content_type);
        gs_media content = request->content;
        bool json = content == GS_MEDIA_JSON, tensors = content != GS_MEDIA_COUNT;
        /* without a type curl's and ours look the same: let the bytes of a state say what it is */
        if (route->body == GS_BODY_STATE && json && !headers->content_type) {
            request->content = GS_MEDIA_OCTETS;
            json = false;
        }
        if (route->body == GS_BODY_FILE) { /* curl -T sends no type, --data-binary a form's: the bytes tell */
            tensors &= !json || !headers->content_type || !strcasestr(headers->content_type, "json");
        }
        if (route->body == GS_BODY_JSON    ? !json
            : route->body == GS_BODY_STATE ? json || !tensors
                                           : !tensors) {
            static const char *const names[] = {
                [GS_BODY_JSON] = "application/json",
                [GS_BODY_TENSORS] = "application/json, application/x-safetensors, application/x-npy or "
                                    "application/octet-stream",
                [GS_BODY_STATE] = "application/x-safetensors or application/octet-stream",
                [GS_BODY_FILE] = "application/octet-stream, application/x-npy, application/x-safetensors, "
                                 "application/gzip or text/csv"};
            return gp_fail(&request->error, GP_UNSUPPORTED_MEDIA_TYPE, "", "Content-Type must be %s",
                           names[route->body]);
        }
    }
    const gs_media *offers = gs_route_offers(route);
    request->accept = gs_media_negotiate(headers->accept, offers);
    if (request->accept == GS_MEDIA_NONE) {
        return gp_fail(&request->error, GP_NOT_ACCEPTABLE, "",
                       "Accept fits nothing that is offered here: %s%s%s%s%s", gs_media_name(offers[0]),
                       offers[1] ? ", " : "", gs_media_name(offers[1]), offers[1] && offers[2] ? ", " : "",
                       offers[1] ? gs_media_name(offers[2]) : "");
    }
    return 0;
}

static int fail_too_large(gs_request *request) {
    if (!request->route || request->route->body == GS_BODY_NONE) {
        gp_fail(&request->error, GP_BODY_TOO_LARGE, "", "this request takes no body");
        return fail_closing(request);
    }
    bool file = request->route->body == GS_BODY_FILE, json = request->content == GS_MEDIA_JSON;
    gp_fail(&request->error, GP_BODY_TOO_LARGE, "", "the body is larger than the %zu bytes that %s allows%s",
            request->body_limit,
            file   ? "--max-dataset"
            : json ? "--max-json-body"
                   : "--max-body",
            json && request->route->body == GS_BODY_TENSORS ? "; tensors as safetensors are smaller" : "");
    return fail_closing(request);
}

/* A thread for the body, if what it is for may come at all. */
static int prepare_file(gs_request *request) {
    gs_server *server = request->server;
    const gs_headers *headers = &request->headers;
    const bool whole = !strstr(request->route->path, "{part}");
    const int part = whole ? GS_PARTS : gs_part_find(request->variables[2]);
    request->body_limit = (size_t)server->config.max_dataset;
    if (headers->length > server->config.max_dataset) {
        return fail_too_large(request);
    }
    if (part < 0) {
        gp_fail(&request->error, GP_NOT_FOUND, "", "a split has an input and a target, and no \"%.64s\"",
                request->variables[2]);
        return fail_closing(request);
    }
    return gs_datasets_expect(&server->datasets, request->variables[0], request->variables[1], part,
                              headers->if_match, &request->error) ||
                   gs_spool_open(request, &request->error)
               ? fail_closing(request)
               : 0;
}

/* Room for the body, as long as Content-Length says it is. */
static int prepare_body(gs_request *request) {
    gs_server *server = request->server;
    const gs_headers *headers = &request->headers;
    if (!headers->has_body || request->route->body == GS_BODY_NONE) {
        request->body_limit = GS_DISCARD;
        return headers->length > GS_DISCARD ? fail_too_large(request) : 0;
    }
    if (request->route->body == GS_BODY_FILE) {
        return prepare_file(request);
    }
    int64_t limit =
        request->content == GS_MEDIA_JSON && server->config.max_json_body < server->config.max_body
            ? server->config.max_json_body
            : server->config.max_body;
    request->body_limit = (size_t)limit;
    if (headers->length > limit) {
        return fail_too_large(request);
    }
    size_t capacity = headers->length < 0 ? 4096 : (size_t)headers->length;
    request->body =
        gs_buffer_new(&server->bodies, capacity < request->body_limit ? capacity : request->body_limit);
    if (!request->body) {
        gp_fail(&request->error, GP_OVERLOADED, "",
                "request bodies take as much memory as --max-body-memory allows; try again");
        return fail_closing(request);
    }
    return 0;
}

static int fail_unless_available(gs_request *request) {
    bool health = request->route && (request->route->flags & GS_HEALTH);
    if (request->connection->over_limit) {
        request->reply.close = true;
    }
    if (health) {
        return 0;
    }
    if (request->server->draining) {
        gp_fail(&request->error, GP_DRAINING, "", "the daemon is shutting down");
        return fail_closing(request);
    }
    if (request->connection->over_limit) {
        gp_fail(&request->error, GP_OVERLOADED, "",
                "%lld connections are open, as many as --max-connections allows",
                (long long)request->server->config.max_connections);
        return fail_closing(request);
    }
    return 0;
}

static void answer_options(gs_request *request) {
    bool exists = request->uri.segment_count == 1 && !strcmp(request->uri.segments[0], "*");
    if (!exists) {
        gs_route_find("GET", &request->uri, request->variables, &exists);
    }
    if (!exists) {
        gp_fail(&request->error, GP_NOT_FOUND, "",
                "there is nothing at this path; GET /docs lists what there is");
        return;
    }
    gs_reply_nothing(request);
    gs_route_allow(&request->uri, request->reply.allow, sizeof request->reply.allow);
}

int gs_request_admit(gs_request *request, const char *method, const char *version) {
    gp_error *error = &request->error;
    request->head = !strcmp(method, "HEAD");
    request->method = request->head ? "GET" : method;
    if (strlen(request->target) > GS_MAX_URI) {
        gp_fail(error, GP_URI_TOO_LONG, "", "the request target is longer than %d bytes", GS_MAX_URI);
        return fail_closing(request);
    }
    if (gs_gate_headers(request->mhd, version, &request->headers, error) ||
        gs_uri_parse(request->target, request->scratch, &request->uri, error)) {
        return fail_closing(request);
    }
    if (gp_name_ok(request->headers.request_id ? request->headers.request_id : "")) {
        snprintf(request->id, sizeof request->id, "%s", request->headers.request_id);
    }
    if (gs_gate_origin(request->server, &request->headers, request->uri.authority, request->connection->local,
                       error)) {
        return -1;
    }
    if (!strcmp(method, "OPTIONS")) {
        if (!fail_unless_available(request)) {
            answer_options(request);
        }
        return error->problem ? -1 : 0;
    }
    int found = find_route(request);
    if (fail_unless_available(request)) {
        return -1;
    }
    if (found || check_media(request)) {
        return -1;
    }
    if (request->headers.idempotency_key && (request->route->flags & GS_CHANGES) && !strcmp(method, "POST") &&
        gs_gate_key(request->headers.idempotency_key, request->key, error)) {
        return -1;
    }
    if (request->route->flags & GS_MODEL) {
        request->model = gs_models_find(&request->server->models, request->variables[0]);
        if (!request->model) {
            return gp_fail(error, GP_NOT_FOUND, "", "there is no model named \"%s\"", request->variables[0]);
        }
    }
    return prepare_body(request);
}

int gs_request_receive(gs_request *request, const char *bytes, size_t size) {
    request->received += size;
    if (request->spool) {
        if (request->received > request->body_limit) {
            return fail_too_large(request);
        }
        bool last = request->headers.length >= 0 && request->received >= (size_t)request->headers.length;
        request->full = !gs_spool_put(request->spool, bytes, size, last);
        return 0;
    }
    if (!request->body) { /* one that nobody reads */
        return request->received > GS_DISCARD ? fail_too_large(request) : 0;
    }
    if (request->received > request->body_limit) {
        return fail_too_large(request);
    }
    gs_idempotency_receive(request, bytes, size);
    if (!gs_buffer_append(&request->body, bytes, size, request->body_limit)) {
        gp_fail(&request->error, GP_OVERLOADED, "",
                "request bodies take as much memory as --max-body-memory allows; try again");
        return fail_closing(request);
    }
    return 0;
}

/* What may run on the loop's own thread, which saves waking two threads. */
enum {
    QUICK_US = 250,  /* nobody else waits long for it */
    LONE_US = 2000,  /* nobody else has asked for work of late */
    SOLE_US = 20000, /* nobody else is connected: what takes longer gains too little by it */
    LONE_AFTER = 4,  /* that long: requests for work in a row by one connection */
};

/* How long a request may take there. */
static int64_t loop_share_us(const gs_request *request) {
    gs_server *server = request->server;
    bool same = server->worked_for == request->connection;
    server->worked_for = request->connection;
    server->worked_in_row = same ? server->worked_in_row + 1 : 0;
    if (gs_http_active(server->http) > 1) {
        return 0; /* others are there: be brief */
    }
    return server->worked_in_row < LONE_AFTER ? QUICK_US
           : server->metrics.connections > 1  ? LONE_US
                                              : SOLE_US;
}

/* @return false: there is no room, and that is the reply */
static bool wait_in_line(gs_request *request) {
    if (gs_queue_add(request->queue, request)) {
        return true;
    }
    gp_fail(&request->error, GP_QUEUE_FULL, "",
            "%lld requests wait for their turn already, as many as --max-queue allows",
            (long long)request->server->config.max_queue);
    gs_reply_problem(request);
    return false;
}

bool gs_request_dispatch(gs_request *request) {
    gs_server *server = request->server;
    if (!gs_idempotency_claim(request)) {
        if (request->error.problem) {
            gs_reply_problem(request);
        }
        return true;
    }
    if (!(request->route->flags & GS_WORK)) {
        gs_request_run(request);
        request->stage = request->parked ? GS_STAGE_QUEUED : request->stage;
        return !request->parked;
    }
    request->queued_us = gs_clock_us();
    if (request->spool) {
        request->deadline_us = INT64_MAX; /* no turn to wait for: the upload's own thread runs it */
        request->stage = GS_STAGE_QUEUED;
        gs_spool_end(request->spool, true);
        return false;
    }
    request->deadline_us = request->queued_us + (int64_t)(server->config.request_timeout * 1e6);
    bool in_turn = request->model && !(request->route->flags & GS_ASIDE);
    request->queue = in_turn ? &request->model->queue : &server->common;
    int64_t most_us = loop_share_us(request);
    if (in_turn && !(request->route->flags & GS_DURABLE) &&
        gs_queue_run_now(request->queue, request, most_us)) {
        return true;
    }
    request->stage = GS_STAGE_QUEUED;
    return !wait_in_line(request);
}

bool gs_request_move(gs_request *request) {
    request->queue = &request->model->queue;
    return wait_in_line(request);
}

/* Does the ETag stand in If-None-Match? The comparison is the weak one. */
static bool none_match_fails(const char *none_match, const char *etag) {
    return none_match && (!strcmp(none_match, "*") || strstr(none_match, etag));
}

/* Is what If-Match guards as the client thinks it is? */
static int check_preconditions(const gs_request *request, gp_error *error) {
    if (!(request->route->flags & GS_CHANGES) || !request->model || !request->headers.if_match) {
        return 0;
    }
    char etag[96];
    gs_hosted_etag(request->model, etag, sizeof etag);
    if (strstr(request->route->path, "{p}")) {
        size_t index;
        if (!gd_model_find_parameter(request->model->model, request->variables[1], &index)) {
            return 0; /* the handler says 404 */
        }
        gs_parameter_etag(request->model, index, etag, sizeof etag);
    }
    return gs_check_if_match(request, etag, error);
}

/* A model that a job trains is changed by that job alone. */
static int check_alone(const gs_request *request, gp_error *error) {
    const int64_t job = request->route->flags & GS_ALONE ? atomic_load(&request->model->job) : 0;
    return job ? gp_fail(error, GP_CONFLICT, "",
                         "job %" PRId64 " trains the model \"%s\"; wait for its end, or cancel it", job,
                         request->model->name)
               : 0;
}

void gs_request_run(gs_request *request) {
    gp_error *error = &request->error;
    const gs_route *route = request->route;
    request->started_us = gs_clock_us();
    bool queued = request->stage == GS_STAGE_QUEUED && !request->unparked;
    if (queued && request->started_us > request->deadline_us) {
        gp_fail(error, GP_OVERLOADED, "",
                "the request waited longer for its turn than --request-timeout allows; try again");
    } else if (request->model && atomic_load(&request->model->deleted)) {
        gp_fail(error, GP_NOT_FOUND, "", "the model \"%s\" was deleted", request->model->name);
    } else if (!check_alone(request, error) && !check_preconditions(request, error) &&
               route->handler(request, error) && !error->problem) {
        gp_fail(error, GP_INTERNAL, "", "the request failed without a reason");
    }
    if ((request->moves || request->parked) && !error->problem) {
        return; /* to be called again */
    }
    request->moves = false;
    if (request->parked) { /* then this is the loop's thread, which alone writes it: the sweep looks at it */
        request->parked = false;
    }
    gs_effects_end(request);
    if (request->model && request->queue == &request->model->queue &&
        !atomic_load(&request->model->deleted)) {
        gs_hosted_publish(request->model);
    }
    if (!*request->key) {               /* else gs_idempotency_end() has a look at it */
        gs_buffer_unref(request->body); /* what a kept graph reads has references of its own */
        request->body = NULL;
    }
    gs_reply *reply = &request->reply;
    if (error->problem) {
        gs_reply_problem(request);
    } else if (reply->status == 200 && *reply->etag && !strcmp(request->method, "GET") &&
               none_match_fails(request->headers.if_none_match, reply->etag)) {
        gs_reply fresh = {.status = 304, .close = reply->close};
        memcpy(fresh.etag, reply->etag, sizeof fresh.etag);
        gs_reply_clear(reply);
        *reply = fresh;
    }
    gs_idempotency_keep(request);
    request->ended_us = gs_clock_us();
}
