/* http.c -- libmicrohttpd's callbacks, the replies it gets, and the sweep over slow connections. */
#include "http.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "connection.h"
#include "idempotency.h"
#include "loop.h"
#include "request.h"

enum {
    STREAM_PIECE = 64 * 1024,      /* bytes that a stream is asked for at a time */
    CONNECTION_MEMORY = 64 * 1024, /* of each connection: a head, then pieces of a body, half as large; twice
                                     in a request libmicrohttpd clears it */
    SPARE_CONNECTIONS = 64,        /* beyond --max-connections: to be answered 503 */
    MAX_ROUNDS = 16
};

struct gs_http {
    gs_server *server;
    struct MHD_Daemon *daemon;
    gs_connection *connections;
    size_t active, queued;
    uint64_t cues;
    char run[sizeof "0a1b2c3d-"]; /* what the ids of its requests begin with */
    uint64_t next_request;
    int epoll_fd;
    bool ended_any;       /* a connection has closed since the last run */
    pthread_mutex_t lock; /* guards woken, and of streams next and woken */
    gs_stream *woken;
};

/* ---- connections ---------------------------------------------------------------------------------- */

static void local_address(gs_connection *connection) {
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    if (getsockname(connection->fd, (struct sockaddr *)&address, &size)) {
        return;
    }
    const void *bytes = &((struct sockaddr_in *)&address)->sin_addr;
    if (address.ss_family == AF_INET6) {
        const struct in6_addr *v6 = &((struct sockaddr_in6 *)&address)->sin6_addr;
        bytes = v6;
        if (IN6_IS_ADDR_V4MAPPED(v6)) {
            address.ss_family = AF_INET;
            bytes = &v6->s6_addr[12];
        }
    }
    inet_ntop(address.ss_family, bytes, connection->local, sizeof connection->local);
}

static void open_connection(gs_http *http, struct MHD_Connection *mhd, void **context) {
    gs_server *server = http->server;
    gs_connection *connection = calloc(1, sizeof *connection);
    *context = connection;
    if (!connection) {
        return; /* its requests are refused */
    }
    connection->server = server;
    connection->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    connection->since_us = gs_clock_us();
    if (server->listens_anywhere) {
        local_address(connection);
    }
    connection->next = http->connections;
    if (http->connections) {
        http->connections->previous = connection;
    }
    http->connections = connection;
    server->metrics.connections_total++;
    connection->over_limit = ++server->metrics.connections > server->config.max_connections;
}

static void close_connection(gs_http *http, gs_connection *connection) {
    http->ended_any = true; /* there may be room for one that waits to be accepted */
    if (!connection) {
        return;
    }
    *(connection->previous ? &connection->previous->next : &http->connections) = connection->next;
    if (connection->next) {
        connection->next->previous = connection->previous;
    }
    http->server->metrics.connections--;
    if (http->server->worked_for == connection) {
        http->server->worked_for = NULL;
    }
    free(connection);
}

static void on_connection(void *argument, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        open_connection(argument, mhd, context);
    } else {
        close_connection(argument, *context);
    }
}

/* ---- replies --------------------------------------------------------------------------------------- */

/* Seconds after which trying again makes sense; 0: it does not. */
static int retry_after(gp_problem problem) {
    switch (problem) {
    case GP_QUEUE_FULL:
    case GP_TOO_MANY_JOBS:
    case GP_OVERLOADED:
    case GP_IDEMPOTENCY_KEY_IN_USE:
        return 1;
    case GP_DRAINING:
    case GP_STORAGE_FAILED:
        return 5;
    case GP_TOO_MANY_MODELS:
    case GP_TOO_MANY_DATASETS:
        return 60;
    default:
        return 0;
    }
}

static void add_cors(const gs_request *request, struct MHD_Response *response) {
    const char *origin = request->headers.origin;
    if (!origin || !gs_config_listed(request->server->config.cors_origin, origin)) {
        return;
    }
    MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(response, "Vary", "Origin");
    MHD_add_response_header(response, "Access-Control-Expose-Headers",
                            "ETag, Location, X-Request-Id, X-Grad-Fn, Retry-After, Idempotency-Replayed");
    if (request->headers.preflight) {
        MHD_add_response_header(response, "Access-Control-Allow-Methods", request->reply.allow);
        MHD_add_response_header(response, "Access-Control-Allow-Headers",
                                "Authorization, Content-Type, If-Match, If-None-Match, X-Request-Id, "
                                "Idempotency-Key");
        MHD_add_response_header(response, "Access-Control-Max-Age", "600");
    }
}

static void add_headers(const gs_request *request, struct MHD_Response *response) {
    const gs_reply *reply = &request->reply;
    if (reply->media != GS_MEDIA_NONE) {
        MHD_add_response_header(response, "Content-Type", gs_media_name(reply->media));
    }
    MHD_add_response_header(response, "X-Request-Id", request->id);
    if (*reply->etag) {
        MHD_add_response_header(response, "ETag", reply->etag);
        MHD_add_response_header(response, "Cache-Control", "no-cache");
        MHD_add_response_header(response, "Vary", "Accept");
    }
    if (*reply->location) {
        MHD_add_response_header(response, "Location", reply->location);
    }
    if (*reply->allow) {
        MHD_add_response_header(response, "Allow", reply->allow);
    }
    if (reply->grad_fn) {
        MHD_add_response_header(response, "X-Grad-Fn", reply->grad_fn);
    }
    if (reply->replayed) {
        MHD_add_response_header(response, "Idempotency-Replayed", "true");
    }
    if (reply->media == GS_MEDIA_HTML) {
        MHD_add_response_header(response, "Content-Security-Policy",
                                "default-src 'self'; frame-ancestors 'none'");
        MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    }
    int seconds = retry_after(request->error.problem);
    if (seconds) {
        char text[16];
        snprintf(text, sizeof text, "%d", seconds);
        MHD_add_response_header(response, "Retry-After", text);
    }
    if (request->error.problem == GP_UNAUTHORIZED) {
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"gradd\"");
    }
    if (request->head && request->stream) {
        /* libmicrohttpd 0.9.75 would send the last chunk of a body that a HEAD does not have. */
        MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    }
    if (reply->close || request->server->draining) {
        MHD_add_response_header(response, "Connection", "close");
    }
    add_cors(request, response);
}

/* The next bytes of a stream. */
static ssize_t read_stream(void *argument, uint64_t position, char *out, size_t size) {
    gs_stream *stream = argument;
    gs_request *request = stream->request;
    (void)position;
    ssize_t got = stream->more(stream, out, size);
    if (got > 0) {
        request->reply.size += (size_t)got;
        request->connection->since_us = gs_clock_us();
    } else if (!got) {
        stream->suspended = true;
        MHD_suspend_connection(request->mhd);
    } else {
        got = got == GS_STREAM_END ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
    }
    return got;
}

static void free_stream(void *argument) {
    gs_stream_drop(argument);
}

static struct MHD_Response *make_response(const gs_reply *reply) {
    return reply->is_file ? MHD_create_response_from_fd64(reply->size, reply->file)
           : reply->stream
               ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_PIECE, read_stream, reply->stream,
                                                   free_stream)
               : MHD_create_response_from_buffer(
                     reply->size, reply->body, reply->owned ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result send_reply(gs_request *request) {
    gs_reply *reply = &request->reply;
    struct MHD_Response *response = make_response(reply);
    if (!response) {
        return MHD_NO; /* closes the connection */
    }
    reply->owned = reply->is_file = false; /* the response has it now */
    request->stream = reply->stream;
    reply->stream = NULL;
    add_headers(request, response);
    enum MHD_Result result = MHD_queue_response(request->mhd, (unsigned)reply->status, response);
    MHD_destroy_response(response);
    request->stage = GS_STAGE_REPLIED;
    request->connection->since_us = gs_clock_us();
    return result;
}

static enum MHD_Result send_problem(gs_request *request) {
    gs_reply_problem(request);
    return send_reply(request);
}

/* ---- requests -------------------------------------------------------------------------------------- */

/* "0a1b2c3d-17": of this run of the daemon, and the request's number in it. */
static void make_id(gs_http *http, char *id) {
    const size_t size = sizeof http->run - 1;
    memcpy(id, http->run, size);
    *gp_write_decimal(id + size, ++http->next_request) = '\0';
}

/* The first thing known of a request: its target, raw. What is returned becomes its context. */
static void *on_target(void *argument, const char *target, struct MHD_Connection *mhd) {
    gs_http *http = argument;
    gs_connection *connection =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    size_t size = strlen(target) + 1;
    gs_request *request = connection ? malloc(sizeof *request + 2 * size) : NULL;
    if (!request) {
        return NULL;
    }
    *request = (gs_request){.server = http->server, .connection = connection, .mhd = mhd};
    request->target = memcpy(request->texts, target, size);
    request->scratch = request->texts + size;
    request->began_us = gs_clock_us();
    make_id(http, request->id);
    connection->request = request;
    return request;
}

/* The headers are there. */
static enum MHD_Result begin(gs_http *http, gs_request *request, const char *method, const char *version) {
    http->active++;
    request->connection->since_us = gs_clock_us();
    request->connection->since_bytes = 0;
    request->stage = GS_STAGE_BODY;
    if (!gs_request_admit(request, method, version)) {
        return MHD_YES;
    }
    const gs_headers *headers = &request->headers;
    bool small = headers->length >= 0 && headers->length <= GS_DISCARD && !headers->expect;
    if (!request->reply.close && (!headers->has_body || small)) {
        /* Wait for the end of the body: after an answer before it, the connection would be closed. */
        request->stage = GS_STAGE_DISCARD;
        return MHD_YES;
    }
    request->reply.close = true;
    return send_problem(request);
}

/* Nobody wants the rest of the body. */
static void drop_body(gs_request *request) {
    gs_buffer_unref(request->body);
    request->body = NULL;
    if (request->spool) {
        gs_spool_end(request->spool, false);
        request->spool = NULL;
    }
}

/* Until there is room. */
static void wait_for_room(gs_http *http, gs_request *request) {
    request->full = false;
    http->queued++;
    request->suspended = true;
    MHD_suspend_connection(request->mhd);
}

/* A piece of the body. */
static enum MHD_Result receive(gs_http *http, gs_request *request, const char *bytes, size_t size) {
    if (request->stage == GS_STAGE_DISCARD) {
        request->received += size;
        /* A chunked body that went over its limit: no answer can be queued before its end. */
        return request->received > request->body_limit + 16 * GS_DISCARD ? MHD_NO : MHD_YES;
    }
    if (request->stage == GS_STAGE_BODY && gs_request_receive(request, bytes, size)) {
        request->stage = GS_STAGE_DISCARD;
        drop_body(request);
    } else if (request->body) {
        http->cues += request->received != (size_t)request->headers.length;
    } else if (request->full) {
        wait_for_room(http, request);
    }
    return MHD_YES;
}

static enum MHD_Result on_request(void *argument, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *bytes, size_t *size,
                                  void **context) {
    gs_http *http = argument;
    gs_request *request = *context;
    (void)mhd;
    (void)url;
    if (!request) {
        return MHD_NO;
    }
    if (request->stage == GS_STAGE_NEW) {
        return begin(http, request, method, version);
    }
    if (*size) {
        enum MHD_Result result = receive(http, request, bytes, *size);
        *size = 0;
        return result;
    }
    switch (request->stage) {
    case GS_STAGE_DISCARD:
        return send_problem(request);
    case GS_STAGE_BODY:
        request->body_us = gs_clock_us();
        if (!request->route || gs_request_dispatch(request)) { /* no route: OPTIONS, answered already */
            return send_reply(request);
        }
        http->queued++;
        request->waited = true;
        return MHD_YES;
    case GS_STAGE_QUEUED:
        /* Suspended here, not above: only now does libmicrohttpd no longer look for bytes to read, which it
         * would do on resuming, and would drop a client that has closed its own side. */
        request->suspended = true;
        MHD_suspend_connection(mhd);
        return MHD_YES;
    case GS_STAGE_DONE:
        return send_reply(request);
    default:
        return MHD_YES;
    }
}

static void log_request(const gs_request *request, int64_t now) {
    int status = request->stage == GS_STAGE_REPLIED ? request->reply.status : 0;
    const gs_route *route = request->route;
    int64_t waited = request->queue && request->started_us ? request->started_us - request->queued_us : 0;
    gs_level level = status >= 500 && status != 503        ? GS_WARNING
                     : route && (route->flags & GS_HEALTH) ? GS_DEBUG
                                                           : GS_INFO;
    gs_log_event(
        &request->server->log, level, status ? "request" : "request cut off", GS_S("request_id", request->id),
        GS_S("method", request->head     ? "HEAD"
                       : request->method ? request->method
                                         : ""),
        GS_S("path", request->target), GS_I("status", status), GS_I("duration_us", now - request->began_us),
        GS_I("queue_us", waited), GS_I("bytes_in", request->received), GS_I("bytes_out", request->reply.size),
        GS_S(request->error.problem ? "code" : NULL, gp_problem_code(request->error.problem)));
}

static void on_completed(void *argument, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode code) {
    gs_http *http = argument;
    gs_request *request = *context;
    (void)mhd;
    *context = NULL;
    if (!request) {
        return;
    }
    int64_t now = gs_clock_us();
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && request->stage == GS_STAGE_REPLIED) {
        request->stage = GS_STAGE_DONE; /* the reply did not go out whole */
    }
    if (request->stage != GS_STAGE_NEW) {
        http->active--;
        http->cues += !request->waited;
        size_t row = 0;
        while (row < GS_ROUTES && gs_route_at(row) != request->route) {
            row++;
        }
        gs_metrics_request(&http->server->metrics, row < GS_ROUTES ? (int)row : -1,
                           request->stage == GS_STAGE_REPLIED ? request->reply.status : 0,
                           now - request->began_us, request->received, request->reply.size);
    }
    log_request(request, now);
    request->connection->request = NULL;
    request->connection->since_us = now;
    gs_idempotency_end(request);
    free(request->fingerprint);
    drop_body(request);
    gs_reply_clear(&request->reply);
    if (request->model) {
        gs_hosted_unref(request->model);
    }
    free(request);
}

void gs_http_resume(gs_http *http, gs_request *done) {
    while (done) {
        gs_request *request = done;
        done = request->next;
        request->next = NULL;
        if (request->stage == GS_STAGE_QUEUED) {
            if (request->parked) {
                request->parked = false;
                request->unparked = true;
                gs_request_run(request);
            }
            request->stage = GS_STAGE_DONE;
        } else { /* its body goes on; that it did not come was our doing */
            request->connection->since_us = gs_clock_us();
            request->connection->since_bytes = request->received;
        }
        http->queued--;
        if (request->suspended) {
            request->suspended = false;
            MHD_resume_connection(request->mhd);
        }
    }
}

/* ---- streams --------------------------------------------------------------------------------------- */

void gs_stream_wake(gs_stream *stream) {
    gs_http *http = stream->http;
    pthread_mutex_lock(&http->lock);
    if (!stream->woken) {
        stream->woken = true;
        stream->next = http->woken;
        http->woken = stream;
    }
    pthread_mutex_unlock(&http->lock);
    gs_loop_wake(http->server->loop);
}

void gs_stream_drop(gs_stream *stream) {
    if (!stream) {
        return;
    }
    if (stream->detach) {
        stream->detach(stream);
    }
    if (stream->http) { /* nobody adds it again from here on */
        pthread_mutex_lock(&stream->http->lock);
        gs_stream **at = &stream->http->woken;
        while (*at && *at != stream) {
            at = &(*at)->next;
        }
        if (*at) {
            *at = stream->next;
        }
        pthread_mutex_unlock(&stream->http->lock);
    }
    stream->free(stream);
}

static void resume_stream(gs_stream *stream) {
    if (stream->suspended) { /* else it is asked for more anyway */
        stream->suspended = false;
        stream->request->connection->since_us = gs_clock_us();
        MHD_resume_connection(stream->request->mhd);
    }
}

static gs_stream *take_woken(gs_http *http) {
    pthread_mutex_lock(&http->lock);
    gs_stream *stream = http->woken;
    if (stream) {
        http->woken = stream->next;
        stream->woken = false;
    }
    pthread_mutex_unlock(&http->lock);
    return stream;
}

void gs_http_resume_streams(gs_http *http) {
    for (gs_stream *stream; (stream = take_woken(http));) {
        resume_stream(stream);
    }
}

static void unpark_all(gs_http *http) {
    for (gs_connection *c = http->connections; c; c = c->next) {
        if (c->request && c->request->parked) {
            c->request->unpark(c->request);
        }
    }
}

static void resume_all_streams(gs_http *http) {
    for (gs_connection *c = http->connections; c; c = c->next) {
        if (c->request && c->request->stage == GS_STAGE_REPLIED && c->request->stream) {
            resume_stream(c->request->stream);
        }
    }
}

/* ---- the sweep ------------------------------------------------------------------------------------- */

static void cut(gs_connection *connection, const char *why) {
    if (!connection->cut) {
        connection->cut = true;
        gs_log_event(&connection->server->log, GS_INFO, "connection cut off", GS_S("reason", why));
        shutdown(connection->fd, SHUT_RDWR); /* libmicrohttpd sees its end and closes it */
    }
}

/* Was `bytes` since `since` slower than the minimum rate, after a grace of `grace` microseconds? */
static bool too_slow(int64_t since, int64_t now, int64_t grace, size_t bytes) {
    int64_t late = now - since - grace;
    return late > 0 && (double)bytes < (double)late / 1e6 * GS_MIN_RATE;
}

/* Over and over, so that a body which came fast at first may not stop for long. */
static bool body_is_too_slow(gs_connection *connection, const gs_request *request, int64_t now,
                             int64_t grace) {
    if (too_slow(connection->since_us, now, grace, request->received - connection->since_bytes)) {
        return true;
    }
    if (now - connection->since_us > 2 * grace) {
        connection->since_us = now;
        connection->since_bytes = request->received;
    }
    return false;
}

/* Has the client gone, or ended its side, before its body was whole? Of bytes and an end that come together
 * libmicrohttpd sees the bytes alone. */
static bool has_gone(gs_connection *connection, const gs_request *request) {
    struct pollfd wanted = {.fd = connection->fd, .events = POLLRDHUP};
    int left = 0;
    bool ended =
        !request->suspended && poll(&wanted, 1, 0) == 1 && !ioctl(connection->fd, FIONREAD, &left) && !left;
    bool again = ended && connection->ended; /* twice, as some bytes may be in libmicrohttpd's hands */
    connection->ended = ended;
    return again;
}

static void expire(gs_http *http, gs_request *request) {
    if (gs_queue_remove(request->queue, request)) {
        gp_fail(&request->error, GP_OVERLOADED, "",
                "the request waited longer for its turn than --request-timeout allows; try again");
        gs_reply_problem(request);
        gs_http_resume(http, request);
    }
}

void gs_http_sweep(gs_http *http, bool expire_all) {
    int64_t now = gs_clock_us(), grace = (int64_t)(http->server->config.request_timeout * 1e6);
    if (expire_all) {
        atomic_store(&http->server->spools.stop, true);
    }
    for (gs_connection *c = http->connections, *next; c; c = next) {
        next = c->next;
        gs_request *request = c->request;
        int64_t age = now - c->since_us;
        switch (request ? request->stage : GS_STAGE_NEW) {
        case GS_STAGE_NEW:
            if (age > grace || (c->over_limit && age > 2000000)) {
                cut(c, request ? "headers took too long" : "idle");
            }
            break;
        case GS_STAGE_BODY:
        case GS_STAGE_DISCARD:
            if (!request->suspended && body_is_too_slow(c, request, now, grace)) {
                cut(c, "the body came too slowly");
            } else if (has_gone(c, request)) {
                cut(c, "the client has gone");
            }
            break;
        case GS_STAGE_QUEUED:
            if (request->parked && (expire_all || now > request->deadline_us)) {
                request->unpark(request);
            } else if (request->queue && (expire_all || now > request->deadline_us)) {
                expire(http, request);
            }
            break;
        case GS_STAGE_DONE:
            break;
        case GS_STAGE_REPLIED: /* how much has gone is not known: give it time for all */
            if (request->stream ? !request->stream->suspended && age > grace
                                : age > grace + (int64_t)((double)request->reply.size / GS_MIN_RATE * 1e6)) {
                cut(c, "the reply was taken too slowly");
            }
            break;
        }
    }
}

/* ---- the daemon ------------------------------------------------------------------------------------ */

__attribute__((format(printf, 2, 0))) static void on_log(void *argument, const char *format,
                                                         va_list arguments) {
    gs_http *http = argument;
    char text[256];
    vsnprintf(text, sizeof text, format, arguments);
    text[strcspn(text, "\n")] = '\0';
    gs_log_event(&http->server->log, GS_DEBUG, "http", GS_S("message", text));
}

gs_http *gs_http_start(gs_server *server, int listen_fd) {
    gs_http *http = calloc(1, sizeof *http);
    if (!http) {
        close(listen_fd);
        return NULL;
    }
    http->server = server;
    snprintf(http->run, sizeof http->run, "%08" PRIx32 "-", (uint32_t)server->models.boot);
    pthread_mutex_init(&http->lock, NULL);
    /* Not "strict for client": it lets nothing less through, but answers a missing Host itself, twice over.
     */
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, http,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, http, MHD_OPTION_LISTEN_SOCKET, listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)server->config.max_connections + SPARE_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
        MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_URI_LOG_CALLBACK,
        on_target, http, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, http, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info) {
        gs_http_stop(http);
        return NULL;
    }
    http->epoll_fd = info->epoll_fd;
    return http;
}

int gs_http_fd(const gs_http *http) {
    return http->epoll_fd;
}

int gs_http_drive(gs_http *http) {
    int timeout = 0;
    /* A large body comes in many pieces, each of which asks to be called again at once: a few rounds here
     * save as many trips around the event loop. */
    for (int round = 0; round < MAX_ROUNDS && timeout == 0; round++) {
        /* The listening socket comes back to epoll, after the limit was hit, only in the run that follows. */
        do {
            http->ended_any = false;
            MHD_run(http->daemon);
        } while (http->ended_any);
        unsigned long long wanted;
        timeout = MHD_get_timeout(http->daemon, &wanted) == MHD_NO ? -1
                  : wanted > 60000                                 ? 60000
                                                                   : (int)wanted;
    }
    return timeout;
}

void gs_http_quiesce(gs_http *http) {
    int fd = MHD_quiesce_daemon(http->daemon);
    if (fd >= 0) {
        close(fd);
    }
    unpark_all(http);         /* they are answered now, instead of waiting for what may happen */
    resume_all_streams(http); /* they end now, instead of waiting for bytes */
}

size_t gs_http_active(const gs_http *http) {
    return http->active;
}

uint64_t gs_http_cues(const gs_http *http) {
    return http->cues;
}

size_t gs_http_queued(const gs_http *http) {
    return http->queued;
}

void gs_http_stop(gs_http *http) {
    if (!http) {
        return;
    }
    if (http->daemon) {
        resume_all_streams(http); /* libmicrohttpd does not stop with suspended ones */
        MHD_stop_daemon(http->daemon);
    }
    pthread_mutex_destroy(&http->lock);
    free(http);
}
