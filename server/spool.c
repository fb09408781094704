/* spool.c -- a ring of bytes between the loop, which fills it, and a thread, which empties it. */
#include "spool.h"

#include <stdlib.h>
#include <string.h>

#include "request.h"
#include "upload.h"

enum { PIECE = 256 * 1024 /* at least what libmicrohttpd hands over at once */ };

struct gs_spool {
    gs_server *server;
    gs_request *request; /* the loop's until the body is there */
    gs_buffer *ring;
    gs_upload upload; /* the thread's */
    pthread_mutex_t lock;
    pthread_cond_t more; /* bytes, or the end */
    size_t first, used;  /* in the ring */
    bool ended, whole;
    bool full; /* the loop waits for room */
};

void gs_spools_init(gs_spools *spools, size_t limit) {
    *spools = (gs_spools){.limit = limit};
    pthread_mutex_init(&spools->lock, NULL);
    pthread_cond_init(&spools->idle, NULL);
}

void gs_spools_release(gs_spools *spools) {
    pthread_mutex_lock(&spools->lock);
    while (spools->count) {
        pthread_cond_wait(&spools->idle, &spools->lock);
    }
    pthread_mutex_unlock(&spools->lock);
    pthread_cond_destroy(&spools->idle);
    pthread_mutex_destroy(&spools->lock);
}

static bool enter(gs_spools *spools) {
    pthread_mutex_lock(&spools->lock);
    bool room = spools->count < spools->limit;
    spools->count += room;
    pthread_mutex_unlock(&spools->lock);
    return room;
}

static void leave(gs_spools *spools) {
    pthread_mutex_lock(&spools->lock);
    if (!--spools->count) {
        pthread_cond_broadcast(&spools->idle);
    }
    pthread_mutex_unlock(&spools->lock);
}

static void free_spool(gs_spool *spool) {
    gs_buffer_unref(spool->ring);
    pthread_cond_destroy(&spool->more);
    pthread_mutex_destroy(&spool->lock);
    free(spool);
}

/* ---- the loop's side ----------------------------------------------------------------------------- */

bool gs_spool_put(gs_spool *spool, const char *bytes, size_t size, bool last) {
    const size_t capacity = spool->ring->capacity;
    pthread_mutex_lock(&spool->lock);
    size_t at = (spool->first + spool->used) % capacity;
    size_t straight = size < capacity - at ? size : capacity - at;
    memcpy(spool->ring->data + at, bytes, straight);
    memcpy(spool->ring->data, bytes + straight, size - straight);
    spool->used += size; /* fits: a piece is smaller than what is above GS_SPOOL_BYTES */
    spool->full = !last && spool->used >= GS_SPOOL_BYTES;
    bool room = !spool->full;
    pthread_cond_signal(&spool->more);
    pthread_mutex_unlock(&spool->lock);
    return room;
}

void gs_spool_end(gs_spool *spool, bool whole) {
    pthread_mutex_lock(&spool->lock);
    spool->ended = true;
    spool->whole = whole;
    spool->full = false;
    pthread_cond_signal(&spool->more);
    pthread_mutex_unlock(&spool->lock);
}

/* ---- the thread's -------------------------------------------------------------------------------- */

/* A gp_read: waits for bytes. */
static int read_spool(void *argument, void *out, size_t room, size_t *ret_size, gp_error *error) {
    gs_spool *spool = argument;
    const size_t capacity = spool->ring->capacity;
    pthread_mutex_lock(&spool->lock);
    while (!spool->used && !spool->ended) {
        pthread_cond_wait(&spool->more, &spool->lock);
    }
    size_t straight = capacity - spool->first;
    size_t size = spool->used < straight ? spool->used : straight;
    size = size < room ? size : room;
    bool gone = spool->ended && !spool->whole;
    memcpy(out, spool->ring->data + spool->first, gone ? 0 : size);
    spool->first = (spool->first + size) % capacity;
    spool->used -= size;
    bool wake = spool->full && spool->used <= GS_SPOOL_BYTES / 2;
    spool->full &= !wake;
    pthread_mutex_unlock(&spool->lock);
    if (wake) {
        gs_executor_post(&spool->server->executor, spool->request);
    }
    *ret_size = size;
    return gone ? gp_fail(error, GP_BAD_REQUEST, "", "the body did not come whole") : 0;
}

/* What comes after the body was refused. @return whether the client has sent all of it */
static bool discard(gs_spool *spool) {
    char bytes[16384];
    size_t size = 1;
    while (size) {
        if (read_spool(spool, bytes, sizeof bytes, &size, NULL)) {
            return false;
        }
    }
    return true;
}

static void *run(void *argument) {
    gs_spool *spool = argument;
    gs_server *server = spool->server;
    gs_upload_receive(&spool->upload, read_spool, spool);
    gs_request *request = discard(spool) ? spool->request : NULL;
    if (request) {
        request->upload = &spool->upload;
        gs_request_run(request);
        request->upload = NULL;
        request->spool = NULL;
    }
    gs_upload_release(&spool->upload);
    free_spool(spool);
    if (request) {
        gs_executor_post(&server->executor, request);
    }
    leave(&server->spools);
    return NULL;
}

static gs_spool *new_spool(gs_request *request, gp_error *error) {
    gs_server *server = request->server;
    gs_spool *spool = calloc(1, sizeof *spool);
    if (!spool) {
        gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the upload");
        return NULL;
    }
    spool->server = server;
    spool->request = request;
    gs_upload_init(&spool->upload, server,
                   strstr(request->route->path, "{part}") ? request->variables[2] : NULL);
    pthread_mutex_init(&spool->lock, NULL);
    pthread_cond_init(&spool->more, NULL);
    spool->ring = gs_buffer_new(&server->bodies, GS_SPOOL_BYTES + PIECE);
    if (!spool->ring) {
        gp_fail(error, GP_OVERLOADED, "",
                "request bodies take as much memory as --max-body-memory allows; try again");
        free_spool(spool);
        return NULL;
    }
    return spool;
}

int gs_spool_open(gs_request *request, gp_error *error) {
    gs_spools *spools = &request->server->spools;
    pthread_t thread;
    if (!enter(spools)) {
        return gp_fail(error, GP_OVERLOADED, "",
                       "%zu uploads are on their way, as many as --max-uploads allows; try again",
                       spools->limit);
    }
    gs_spool *spool = new_spool(request, error);
    if (spool && pthread_create(&thread, NULL, run, spool)) {
        gp_fail(error, GP_OVERLOADED, "", "there can be no thread for the upload now; try again");
        free_spool(spool);
        spool = NULL;
    }
    if (!spool) {
        leave(spools);
        return -1;
    }
    pthread_detach(thread);
    request->spool = spool;
    return 0;
}
