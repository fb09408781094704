/* autosave.c -- what becomes durable by itself: the state of models that requests have changed, and metrics.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints.h"
#include "packs.h"
#include "server.h"

enum { PAGE = 64 };

/* Visit every model. */
static void each_model(gs_server *server, void (*visit)(gs_server *, gs_hosted *, void *), void *argument) {
    gs_hosted *page[PAGE];
    char after[sizeof page[0]->name] = "";
    size_t count;
    do {
        count = gs_models_list(&server->models, after, page, PAGE);
        for (size_t i = 0; i < count; i++) {
            visit(server, page[i], argument);
            memcpy(after, page[i]->name, sizeof after);
            gs_hosted_unref(page[i]);
        }
    } while (count == PAGE);
}

static bool has_trouble(gs_server *server) {
    char text[sizeof((gp_error *)0)->detail];
    return gs_store_trouble(server->store, text, sizeof text);
}

static bool has_changed(gs_hosted *hosted) {
    return gs_hosted_summary(hosted).version != atomic_load(&hosted->saved.version);
}

/* ---- checkpoints ------------------------------------------------------------------------------------------
 */

static const gs_snapshot_spec autosave = {.kind = GS_CHECKPOINT_AUTOSAVE, .keep = GS_KEEP_AUTOSAVES};

static void log_failure(gs_hosted *hosted, const gp_error *error) {
    gs_log_event(&hosted->models->server->log, GS_ERROR, "autosave failed", GS_S("model", hosted->name),
                 GS_S("reason", error->detail));
}

static void on_saved(void *argument, const gs_checkpoint *checkpoint, const gp_error *error) {
    gs_hosted *hosted = argument;
    if (checkpoint) {
        gs_log_event(&hosted->models->server->log, GS_DEBUG, "autosave", GS_S("model", hosted->name),
                     GS_S("checkpoint", checkpoint->name), GS_I("bytes", checkpoint->bytes));
    } else if (!atomic_load(&hosted->deleted)) {
        log_failure(hosted, error);
    }
    atomic_store(&hosted->saved.busy, false);
}

/* In the model's turn. */
static void save(gs_errand *errand) {
    gs_hosted *hosted = errand->argument;
    gs_snapshot *snapshot;
    gp_error error = {0};
    if (atomic_load(&hosted->deleted) || atomic_load(&hosted->job)) {
        atomic_store(&hosted->saved.busy, false);
    } else if (gs_snapshot_take(hosted, &autosave, &snapshot, &error)) {
        log_failure(hosted, &error);
        atomic_store(&hosted->saved.busy, false);
    } else {
        gs_snapshot_write(snapshot, on_saved, hosted); /* of which it has a reference */
    }
}

static void save_if_due(gs_server *server, gs_hosted *hosted, void *argument) {
    gs_saved *saved = &hosted->saved;
    const int64_t now = *(int64_t *)argument, patience = (int64_t)(server->config.autosave * 1e6);
    if (!has_changed(hosted)) {
        saved->changed_us = 0;
        return;
    }
    saved->changed_us = saved->changed_us ? saved->changed_us : now;
    if (now - saved->changed_us < patience || atomic_load(&hosted->job) || atomic_load(&saved->busy)) {
        return;
    }
    saved->changed_us = now; /* should it fail, that is when to try again from */
    atomic_store(&saved->busy, true);
    saved->errand = (gs_errand){.run = save, .argument = hosted};
    gs_queue_add_errand(&hosted->queue, &saved->errand);
}

void gs_autosave_tick(gs_server *server) {
    int64_t now = gs_clock_us();
    if (server->config.autosave > 0 && !server->config.ephemeral && !has_trouble(server)) {
        each_model(server, save_if_due, &now);
    }
}

static void save_at_end(gs_server *server, gs_hosted *hosted, void *argument) {
    const int64_t until = *(int64_t *)argument;
    gs_snapshot *snapshot;
    gs_checkpoint checkpoint;
    gp_error error = {0};
    if (!has_changed(hosted) || atomic_load(&hosted->job)) {
        return;
    }
    if (gs_clock_us() > until) {
        gp_fail(&error, GP_TIMEOUT, "",
                "there was no time left; what came after the last checkpoint is lost");
        log_failure(hosted, &error);
    } else if (gs_snapshot_take(hosted, &autosave, &snapshot, &error) ||
               gs_snapshot_write_now(snapshot, &checkpoint, &error)) {
        log_failure(hosted, &error);
    } else {
        gs_log_event(&server->log, GS_INFO, "saved", GS_S("model", hosted->name),
                     GS_I("step", checkpoint.step), GS_S("checkpoint", checkpoint.name),
                     GS_I("bytes", checkpoint.bytes));
    }
}

void gs_autosave_all(gs_server *server, double seconds) {
    int64_t until = gs_clock_us() + (int64_t)(seconds * 1e6);
    gs_store_drain(server->store); /* what is on its way counts */
    if (!server->config.ephemeral) {
        each_model(server, save_at_end, &until);
        gs_metrics_tick(server);
    }
    gs_store_drain(server->store); /* which has references on models */
}

/* ---- metrics ----------------------------------------------------------------------------------------------
 */

/* A model with news. */
typedef struct news {
    gs_hosted *hosted;
    uint64_t last; /* up to which they are stored with this */
} news;

/* News of all models, on their way to the store. */
typedef struct delivery {
    gs_store_task task;
    gs_server *server;
    news *items;
    size_t count;
} delivery;

static int write_news(gs_store *store, news *item, gp_error *error) {
    gs_hosted *hosted = item->hosted;
    pthread_mutex_lock(&hosted->lock);
    bool waits = hosted->saved.cut; /* for a checkpoint */
    pthread_mutex_unlock(&hosted->lock);
    item->last = 0;
    if (waits || atomic_load(&hosted->deleted)) {
        return 0;
    }
    gp_error why = {0};
    if (!gs_packs_add(store, (int64_t)hosted->id, &hosted->history, atomic_load(&hosted->saved.metrics),
                      &item->last, &why)) {
        return 0;
    }
    item->last = 0;
    /* a conflict: its row has gone */
    return why.problem == GP_CONFLICT ? 0 : gp_fail(error, why.problem, "", "%s", why.detail);
}

static int write_delivery(gs_store *store, void *argument, gp_error *error) {
    delivery *all = argument;
    int result = 0;
    for (size_t i = 0; i < all->count && !result; i++) {
        result = write_news(store, &all->items[i], error);
    }
    return result;
}

static void note_stored(const news *item) {
    atomic_uint_fast64_t *stored = &item->hosted->saved.metrics;
    uint_fast64_t now = atomic_load(stored);
    while (now < item->last && !atomic_compare_exchange_weak(stored, &now, item->last)) {
    }
}

static void end_delivery(gs_store_task *task, int result) {
    delivery *all = task->argument;
    for (size_t i = 0; i < all->count; i++) {
        if (!result) {
            note_stored(&all->items[i]);
        }
        gs_hosted_unref(all->items[i].hosted);
    }
    atomic_store(&all->server->storing_metrics, false);
    free(all->items);
    free(all);
}

static void add_news(gs_server *server, gs_hosted *hosted, void *argument) {
    delivery *all = argument;
    uint64_t cuts;
    (void)server;
    if (gs_history_cursor(&hosted->history, &cuts) <= atomic_load(&hosted->saved.metrics)) {
        return;
    }
    news *grown = reallocarray(all->items, all->count + 1, sizeof *grown);
    if (grown) { /* else the next time */
        all->items = grown;
        gs_hosted_ref(hosted);
        grown[all->count++] = (news){.hosted = hosted};
    }
}

void gs_metrics_tick(gs_server *server) {
    if (atomic_load(&server->storing_metrics) || server->config.ephemeral || has_trouble(server)) {
        return;
    }
    delivery found = {.server = server};
    each_model(server, add_news, &found);
    delivery *all = found.count ? malloc(sizeof *all) : NULL;
    if (!all) {
        for (size_t i = 0; i < found.count; i++) {
            gs_hosted_unref(found.items[i].hosted);
        }
        free(found.items);
        return;
    }
    *all = found;
    all->task = (gs_store_task){.run = write_delivery, .done = end_delivery, .argument = all};
    atomic_store(&server->storing_metrics, true);
    gs_store_submit(server->store, &all->task);
}

int gs_metrics_commit(gs_store *store, gs_hosted *hosted, uint64_t *ret_last, gp_error *error) {
    const int64_t model = (int64_t)hosted->id;
    pthread_mutex_lock(&hosted->lock);
    const bool cut = hosted->saved.cut;
    const int64_t cut_step = hosted->saved.cut_step;
    const uint64_t stored = atomic_load(&hosted->saved.metrics);
    pthread_mutex_unlock(&hosted->lock);
    if ((cut && gs_packs_cut(store, model, cut_step, error)) ||
        gs_packs_add(store, model, &hosted->history, stored, ret_last, error)) {
        return -1;
    }
    *ret_last = cut ? 0 : *ret_last; /* the checkpoint that settles the cut stores them again */
    return 0;
}

void gs_metrics_note(gs_hosted *hosted, uint64_t last) {
    const news item = {.hosted = hosted, .last = last};
    note_stored(&item);
}

static int write_one(gs_store *store, void *argument, gp_error *error) {
    return write_news(store, argument, error);
}

int gs_metrics_store(gs_hosted *hosted, gp_error *error) {
    news item = {.hosted = hosted};
    int result = gs_store_do(hosted->models->server->store, write_one, &item, error);
    if (!result) {
        note_stored(&item);
    }
    return result;
}
