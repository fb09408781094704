/* spool.h -- a request's body as it comes, taken by a thread of its own while the loop goes on, however slow
 * the disk is. No more than about GS_SPOOL_BYTES of it are in memory: when there are, the connection is
 * suspended until the thread has caught up. */
#ifndef GRADD_SERVER_SPOOL_H
#define GRADD_SERVER_SPOOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "proto/gradd_codec.h"

typedef struct gs_request gs_request;
typedef struct gs_spool gs_spool;

enum { GS_SPOOL_BYTES = 1 << 20 /* of one body, when its connection is suspended */ };

/** All bodies that come this way now. */
typedef struct gs_spools {
    pthread_mutex_t lock; /* guards count */
    pthread_cond_t idle;  /* count is zero */
    size_t count, limit;
    atomic_bool stop; /* give up: what takes long looks at it */
} gs_spools;

void gs_spools_init(gs_spools *spools, size_t limit);
/** Wait until the last thread has ended: each has been told to by gs_spool_end(). */
void gs_spools_release(gs_spools *spools);

/* ---- the loop's side ------------------------------------------------------------------------------- */

/** Begin request->spool. @return 0; -1: 503, there are as many as --max-uploads allows */
int gs_spool_open(gs_request *request, gp_error *error);
/** Add a piece, which is copied. @return whether there is room for another one: else suspend the connection;
 *  it comes back by way of gs_http_resume(). There always is after the last piece: on resuming libmicrohttpd
 *  looks for bytes to read, and would drop a client that has closed its own side */
bool gs_spool_put(gs_spool *spool, const char *bytes, size_t size, bool last);
/** No more comes, and the spool is the thread's alone. Whole: so is the request, which the thread runs and
 *  which then comes back as one that is done. Else the client has gone, or the request is refused. */
void gs_spool_end(gs_spool *spool, bool whole);

#endif
