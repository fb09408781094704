/* loader.h -- a thread that makes a job's batches ahead, a few of them: shuffled as torch.randperm with one
 * generator over the run does, gathered, transformed. */
#ifndef GRADD_SERVER_LOADER_H
#define GRADD_SERVER_LOADER_H

#include "feed.h"

typedef struct gs_loader gs_loader;

typedef struct gs_loader_spec {
    const gs_feed *feed; /* outlives it */
    int64_t batch_size;
    bool shuffle, drop_last;
    uint64_t seed;
    int64_t epoch, batch; /* where to begin */
    const void *order;    /* the generator's state when that epoch began; NULL: as seeded */
    size_t order_size;
    void (*ready)(void *argument); /* there is a batch after gs_loader_peek() gave none; on its thread */
    void *argument;
} gs_loader_spec;

enum { GS_BATCHES_AHEAD = 4 };

typedef struct gs_loaded {
    gs_rows rows;
    int64_t count;
    int64_t epoch, batch; /* from 0 on */
    bool last;            /* of its epoch */
    void *order; /* of an epoch's first batch: the generator's state before it was shuffled, if it is */
    size_t order_size;
} gs_loaded;

/** Batches of an epoch. */
int64_t gs_loader_batches(int64_t rows, int64_t batch_size, bool drop_last);
/** Start it. @return 0; -1: GP_OUT_OF_MEMORY; GP_DAMAGED (the order) */
int gs_loader_new(const gs_loader_spec *spec, gs_loader **ret_loader, gp_error *error);
/** Stops and joins. NULL is fine. */
void gs_loader_free(gs_loader *loader);
/** The next batch, the caller's until gs_loader_pop(); NULL: not yet. */
const gs_loaded *gs_loader_peek(gs_loader *loader);
void gs_loader_pop(gs_loader *loader);

#endif
