/* gate.h -- what a request's head must be before anyone believes it: the holes of the HTTP parser are
 * closed here (request smuggling, control bytes), and so is the way through a victim's browser. */
#ifndef GRADD_SERVER_GATE_H
#define GRADD_SERVER_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/gradd_codec.h"

struct MHD_Connection;
typedef struct gs_server gs_server;

/* member, field name */
#define GS_HEADERS(X) \
    X(host, "Host") \
    X(content_length, "Content-Length") \
    X(transfer_encoding, "Transfer-Encoding") \
    X(content_type, "Content-Type") \
    X(content_encoding, "Content-Encoding") \
    X(authorization, "Authorization") \
    X(origin, "Origin") \
    X(request_id, "X-Request-Id") \
    X(expect, "Expect") \
    X(if_match, "If-Match") \
    X(if_none_match, "If-None-Match") \
    X(accept, "Accept") \
    X(prefer, "Prefer") \
    X(last_event_id, "Last-Event-ID") \
    X(idempotency_key, "Idempotency-Key") \
    X(preflight, "Access-Control-Request-Method")

/** The headers that matter here; NULL when not sent. They live as long as the request. */
typedef struct gs_headers {
#define X(member, name) const char *member;
    GS_HEADERS(X)
#undef X
    bool has_body;
    int64_t length; /* of the body; -1: chunked */
} gs_headers;

enum { GS_MAX_HEADERS = 100, GS_MAX_HEADER_BYTES = 32 * 1024, GS_MAX_KEY = 255 };

/**
 * Read the headers and check them as a whole: syntax, duplicates, framing, version, sizes.
 *
 * @return 0; -1: 400 or 431, after which the connection cannot be trusted and must be closed
 */
int gs_gate_headers(struct MHD_Connection *connection, const char *version, gs_headers *ret_headers,
                    gp_error *error);
/** Host and Origin: a page from elsewhere must not reach the daemon. `authority`: of an absolute
 *  target, or NULL. `local` is the address of our end of the connection. @return 0; -1: 403, 400 */
int gs_gate_origin(const gs_server *server, const gs_headers *headers, const char *authority,
                   const char *local, gp_error *error);
/** The key that an Idempotency-Key's value means, bare or quoted. @return 0; -1: 400 */
int gs_gate_key(const char *value, char ret_key[GS_MAX_KEY + 1], gp_error *error);
/** Is this a loopback address or name ("localhost", "127.0.0.1", "::1")? */
bool gs_is_loopback(const char *host);

#endif
