/* stream.h -- a reply whose bytes are made as they go out: an export that is larger than memory should be, or
 * events that are yet to happen. */
#ifndef GRADD_SERVER_STREAM_H
#define GRADD_SERVER_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct gs_http gs_http;
typedef struct gs_request gs_request;
typedef struct gs_stream gs_stream;

enum { GS_STREAM_END = -1, GS_STREAM_FAILED = -2 /* the client must see that something is missing */ };

/** Part of what the handler allocates for it; it sets the functions, the rest is http.c's. */
struct gs_stream {
    /**
     * Write up to `size` bytes; at once, as this is the loop's thread.
     *
     * @return how many; GS_STREAM_END, GS_STREAM_FAILED; 0: there are none now, until gs_stream_wake(). While
     *         the daemon drains (server->draining) it must not be 0
     */
    ssize_t (*more)(gs_stream *stream, char *out, size_t size);
    /** It has ended, or its client has gone: after this nobody may wake it. NULL: nobody ever does. */
    void (*detach)(gs_stream *stream);
    /** Free it, after detach. */
    void (*free)(gs_stream *stream);
    gs_http *http;
    gs_request *request;
    gs_stream *next; /* among the woken */
    bool woken;
    bool suspended; /* loop thread alone */
};

/** There are bytes again. Any thread, between gs_reply_stream() and the end of detach. */
void gs_stream_wake(gs_stream *stream);
/** Detach and free one that no reply has taken. NULL is fine. */
void gs_stream_drop(gs_stream *stream);

#endif
