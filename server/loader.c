/* loader.c -- a ring of batches between its thread, which fills them, and the job's steps, which take them.
 */
#include "loader.h"

#include <stdlib.h>
#include <string.h>

struct gs_loader {
    gs_loader_spec spec;
    int64_t batches;         /* of an epoch */
    int64_t *indices;        /* (rows) the epoch's order */
    gd_generator *generator; /* NULL: not shuffled */
    void *order;             /* its state when the present epoch began */
    size_t order_size;
    gs_loaded ring[GS_BATCHES_AHEAD]; /* batch i is in [i % GS_BATCHES_AHEAD] */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t room;
    uint64_t made, taken; /* how many */
    bool starved, stop;
};

int64_t gs_loader_batches(int64_t rows, int64_t batch_size, bool drop_last) {
    return drop_last ? rows / batch_size : rows / batch_size + (rows % batch_size != 0);
}

/* Shuffle for the next epoch, and remember what from. */
static void begin_epoch(gs_loader *loader) {
    size_t size;
    if (loader->generator) {
        const void *state = gd_generator_state(loader->generator, &size);
        memcpy(loader->order, state, size);
        gd_generator_permute(loader->generator, loader->spec.feed->count, loader->indices);
    }
}

static void fill(gs_loader *loader, gs_loaded *to, int64_t epoch, int64_t batch) {
    const gs_feed *feed = loader->spec.feed;
    const int64_t first = batch * loader->spec.batch_size, left = feed->count - first;
    to->epoch = epoch;
    to->batch = batch;
    to->last = batch == loader->batches - 1;
    to->count = left < loader->spec.batch_size ? left : loader->spec.batch_size;
    to->order_size = batch || !loader->generator ? 0 : loader->order_size;
    if (to->order_size) {
        memcpy(to->order, loader->order, to->order_size);
    }
    gs_feed_take(feed, loader->indices + first, 0, to->count, epoch, true, &to->rows);
}

/* Wait for room in the ring. @return false: stop */
static bool wait_for_room(gs_loader *loader) {
    pthread_mutex_lock(&loader->lock);
    while (!loader->stop && loader->made - loader->taken == GS_BATCHES_AHEAD) {
        pthread_cond_wait(&loader->room, &loader->lock);
    }
    bool go_on = !loader->stop;
    pthread_mutex_unlock(&loader->lock);
    return go_on;
}

static void *run(void *argument) {
    gs_loader *loader = argument;
    int64_t batch = loader->spec.batch;
    for (int64_t epoch = loader->spec.epoch;; epoch++, batch = 0) {
        begin_epoch(loader);
        for (; batch < loader->batches; batch++) {
            if (!wait_for_room(loader)) {
                return NULL;
            }
            fill(loader, &loader->ring[loader->made % GS_BATCHES_AHEAD], epoch, batch);
            pthread_mutex_lock(&loader->lock);
            loader->made++;
            bool wanted = loader->starved;
            loader->starved = false;
            pthread_mutex_unlock(&loader->lock);
            if (wanted) {
                loader->spec.ready(loader->spec.argument);
            }
        }
    }
}

static int prepare(gs_loader *loader, gp_error *error) {
    const gs_loader_spec *spec = &loader->spec;
    const int64_t rows = spec->feed->count, size = spec->batch_size < rows ? spec->batch_size : rows;
    bool ok = (loader->indices = malloc((size_t)rows * sizeof *loader->indices));
    for (int64_t i = 0; i < rows && ok; i++) {
        loader->indices[i] = i;
    }
    if (ok && spec->shuffle) {
        ok = (loader->generator = gd_generator_new(spec->seed)) != NULL;
        if (ok) {
            gd_generator_state(loader->generator, &loader->order_size);
            ok = (loader->order = malloc(loader->order_size)) != NULL;
        }
    }
    for (size_t i = 0; i < GS_BATCHES_AHEAD && ok; i++) {
        ok = !gs_rows_init(&loader->ring[i].rows, spec->feed, size, error) &&
             (!loader->order_size || (loader->ring[i].order = malloc(loader->order_size)));
    }
    gd_error cause = GD_ERROR_INIT;
    if (ok && loader->generator && spec->order &&
        gd_generator_set_state(loader->generator, spec->order, spec->order_size, &cause)) {
        return gp_fail_engine(error, &cause, "");
    }
    return ok ? 0 : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for batches");
}

int gs_loader_new(const gs_loader_spec *spec, gs_loader **ret_loader, gp_error *error) {
    gs_loader *loader = calloc(1, sizeof *loader);
    if (!loader) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for batches");
    }
    loader->spec = *spec;
    loader->batches = gs_loader_batches(spec->feed->count, spec->batch_size, spec->drop_last);
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->room, NULL);
    if (prepare(loader, error)) {
        gs_loader_free(loader);
        return -1;
    }
    loader->spec.order = NULL; /* the caller's */
    loader->starved = true;    /* say when the first is there */
    loader->started = !pthread_create(&loader->thread, NULL, run, loader);
    if (!loader->started) {
        gs_loader_free(loader);
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "no thread for batches");
    }
    *ret_loader = loader;
    return 0;
}

void gs_loader_free(gs_loader *loader) {
    if (!loader) {
        return;
    }
    if (loader->started) {
        pthread_mutex_lock(&loader->lock);
        loader->stop = true;
        pthread_cond_signal(&loader->room);
        pthread_mutex_unlock(&loader->lock);
        pthread_join(loader->thread, NULL);
    }
    for (size_t i = 0; i < GS_BATCHES_AHEAD; i++) {
        gs_rows_release(&loader->ring[i].rows);
        free(loader->ring[i].order);
    }
    gd_generator_free(loader->generator);
    pthread_cond_destroy(&loader->room);
    pthread_mutex_destroy(&loader->lock);
    free(loader->indices);
    free(loader->order);
    free(loader);
}

const gs_loaded *gs_loader_peek(gs_loader *loader) {
    pthread_mutex_lock(&loader->lock);
    bool any = loader->made > loader->taken;
    loader->starved = !any;
    const gs_loaded *batch = any ? &loader->ring[loader->taken % GS_BATCHES_AHEAD] : NULL;
    pthread_mutex_unlock(&loader->lock);
    return batch;
}

void gs_loader_pop(gs_loader *loader) {
    pthread_mutex_lock(&loader->lock);
    loader->taken++;
    pthread_cond_signal(&loader->room);
    pthread_mutex_unlock(&loader->lock);
}
