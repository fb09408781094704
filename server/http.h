/* http.h -- libmicrohttpd behind one seam: an external epoll descriptor, driven by loop.c. All of it
 * belongs to the loop thread. */
#ifndef GRADD_SERVER_HTTP_H
#define GRADD_SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gs_server gs_server;
typedef struct gs_http gs_http;
typedef struct gs_request gs_request;

/** Serve on a listening socket, which is taken over. NULL: it cannot be done. */
gs_http *gs_http_start(gs_server *server, int listen_fd);
/** The descriptor that turns readable when there is something to do. */
int gs_http_fd(const gs_http *http);
/** Do what there is to do. @return milliseconds until it wants to be called again, -1: not by time */
int gs_http_drive(gs_http *http);
/** Requests that ran are ready to be answered: resume their connections, then drive. */
void gs_http_resume(gs_http *http, gs_request *done);
/** Streams that were woken have bytes again: likewise. */
void gs_http_resume_streams(gs_http *http);
/** Cut off what is too slow, and answer what waited too long. Call it about once a second. */
void gs_http_sweep(gs_http *http, bool expire_all);
/** Accept no more connections. */
void gs_http_quiesce(gs_http *http);
/** Grows when a client has reason to send something at once: the loop has answered it by itself, without
 * another thread, or a piece of its body has come that is not the last. */
uint64_t gs_http_cues(const gs_http *http);
/** Requests past their headers and not completed. */
size_t gs_http_active(const gs_http *http);
/** Requests that are queued or run now: while there are any, the daemon must not stop. */
size_t gs_http_queued(const gs_http *http);
/** Close every connection and free it. NULL is fine. */
void gs_http_stop(gs_http *http);

#endif
