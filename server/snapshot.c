/* snapshot.c -- the state of a model in one piece of memory, as the file that it becomes; and its way to the
 * disk: the file, then its row with all that belongs to it in one transaction. */
#include <inttypes.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints.h"
#include "idempotency.h"
#include "packs.h"
#include "server.h"
#include "state.h"

struct gs_snapshot {
    gs_hosted *hosted; /* a reference */
    gs_checkpoint row;
    bool named;     /* its name was given */
    int64_t within; /* the job that has begun to train the model, where this is no checkpoint of it; or 0 */
    int keep;
    char *position;
    gs_buffer *file;
    int (*write)(gs_store *, void *, gp_error *);
    void *write_argument;
    void (*done)(void *argument, const gs_checkpoint *checkpoint, const gp_error *error);
    void *done_argument;
    gs_store_task task;
    /* metrics */
    bool cuts_memory; /* see gs_snapshot_cuts_metrics() */
    bool cut;         /* what was pending of this when it was written */
    uint64_t cuts;
    uint64_t metrics; /* sequence number that is stored with it */
    /* the store's thread: ids whose files go after the commit */
    int64_t *gone;
    size_t gone_count;
};

static gs_server *server_of(const gs_snapshot *snapshot) {
    return snapshot->hosted->models->server;
}

/* ---- taking it ---------------------------------------------------------------------------------------- */

static void describe(gs_snapshot *snapshot, const gs_snapshot_spec *spec) {
    gs_hosted *hosted = snapshot->hosted;
    gs_checkpoint *row = &snapshot->row;
    *row = (gs_checkpoint){.id = (int64_t)atomic_fetch_add(&hosted->models->last_checkpoint, 1) + 1,
                           .kind = spec->kind,
                           .step = gd_model_steps(hosted->model),
                           .version = (int64_t)gd_model_version(hosted->model),
                           .created_ms = gs_time_ms(),
                           .job = spec->job,
                           .metric = spec->kind == GS_CHECKPOINT_BEST ? spec->metric : NAN};
    const int64_t job = atomic_load(&hosted->job);
    snapshot->within = !spec->job && hosted->began == job ? job : 0;
    snapshot->named = spec->name;
    snapshot->keep = spec->kind == GS_CHECKPOINT_BEST ? 1 : spec->keep;
    if (spec->name) {
        snprintf(row->name, sizeof row->name, "%s", spec->name);
    } else if (spec->kind == GS_CHECKPOINT_BEST) {
        snprintf(row->name, sizeof row->name, "best");
    } else {
        snprintf(row->name, sizeof row->name, "%s-%" PRId64, gs_checkpoint_kind_name(row->kind), row->step);
    }
    snprintf(row->note, sizeof row->note, "%s", spec->note ? spec->note : "");
}

int gs_snapshot_take(gs_hosted *hosted, const gs_snapshot_spec *spec, gs_snapshot **ret_snapshot,
                     gp_error *error) {
    gs_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for a checkpoint");
    }
    gs_hosted_ref(hosted);
    snapshot->hosted = hosted;
    describe(snapshot, spec);
    snapshot->position = spec->position ? strdup(spec->position) : NULL;
    if (spec->position && !snapshot->position) {
        gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for a checkpoint");
    } else if (!gs_state_file(hosted, &snapshot->row, spec->order, spec->order_size, &snapshot->file,
                              error)) {
        snapshot->row.bytes = (int64_t)snapshot->file->size;
        *ret_snapshot = snapshot;
        return 0;
    }
    gs_snapshot_free(snapshot);
    return -1;
}

void gs_snapshot_free(gs_snapshot *snapshot) {
    if (snapshot) {
        gs_buffer_unref(snapshot->file);
        free(snapshot->position);
        free(snapshot->gone);
        gs_hosted_unref(snapshot->hosted);
        free(snapshot);
    }
}

void gs_snapshot_add(gs_snapshot *snapshot, int (*write)(gs_store *, void *, gp_error *), void *argument) {
    snapshot->write = write;
    snapshot->write_argument = argument;
}

const gs_checkpoint *gs_snapshot_checkpoint(const gs_snapshot *snapshot) {
    return &snapshot->row;
}

void gs_snapshot_cuts_metrics(gs_snapshot *snapshot) {
    snapshot->cuts_memory = true;
}

int gs_snapshot_put_back(gs_snapshot *snapshot, gp_error *error) {
    gs_restored restored = {
        .checkpoint = snapshot->row, .data = snapshot->file->data, .size = snapshot->file->size};
    int result = gs_state_read(restored.data, restored.size, &restored.tensors, &restored.definition, error);
    if (!result) {
        result = gs_checkpoint_put(snapshot->hosted, &restored, error);
    }
    restored.data = NULL; /* it is not mapped */
    gs_restored_release(&restored);
    return result;
}

/* ---- the transaction; on the store's thread ------------------------------------------------------------ */

static int count(gs_store *store, sqlite3_stmt *query, int64_t *ret_count, gp_error *error) {
    if (!query || gs_sql_row(store, query, error) != 1) {
        return -1;
    }
    *ret_count = sqlite3_column_int64(query, 0);
    sqlite3_reset(query);
    return 0;
}

/* A job that has no checkpoint of its own would begin anew after a crash, on the model as the newest
 * checkpoint has it. That must not hold steps of the job already. */
static int check_job(gs_store *store, const gs_snapshot *snapshot, gp_error *error) {
    int64_t own = 1;
    if (snapshot->within && count(store,
                                  gs_sql_query(store, error, "SELECT count(*) FROM checkpoints WHERE job = ?",
                                               "i", snapshot->within),
                                  &own, error)) {
        return -1;
    }
    return own ? 0
               : gp_fail(error, GP_CONFLICT, "",
                         "job %" PRId64 ", which trains the model, has no checkpoint of its own yet, which "
                         "has to come first; see the job's storage_error, and try again",
                         snapshot->within);
}

/* Is there room for it? Before its file is written. */
static int check(gs_store *store, gs_snapshot *snapshot, gp_error *error) {
    gs_checkpoint *row = &snapshot->row;
    const int64_t model = (int64_t)snapshot->hosted->id;
    const int64_t limit = server_of(snapshot)->config.max_checkpoints;
    int64_t models, named, manual;
    if (count(store, gs_sql_query(store, error, "SELECT count(*) FROM models WHERE id = ?", "i", model),
              &models, error) ||
        count(store,
              gs_sql_query(store, error,
                           "SELECT count(*) FROM checkpoints WHERE model = ? AND name = ? AND NOT "
                           "(kind = 'best' AND ?)",
                           "isi", model, row->name, (int64_t)(row->kind == GS_CHECKPOINT_BEST)),
              &named, error) ||
        count(store,
              gs_sql_query(store, error,
                           "SELECT count(*) FROM checkpoints WHERE model = ? AND kind = 'manual'", "i",
                           model),
              &manual, error)) {
        return -1;
    }
    if (!models) {
        return gp_fail(error, GP_NOT_FOUND, "", "the model \"%s\" was deleted", snapshot->hosted->name);
    }
    if (named && snapshot->named) {
        return gp_fail(error, GP_NAME_TAKEN, "/name",
                       "the model has a checkpoint named \"%s\"; delete it first or take another name",
                       row->name);
    }
    if (named) {
        snprintf(row->name, sizeof row->name, "%s-%" PRId64 "-%" PRId64, gs_checkpoint_kind_name(row->kind),
                 row->step, row->id);
    }
    if (row->kind == GS_CHECKPOINT_MANUAL && manual >= limit) {
        return gp_fail(
            error, GP_TOO_MANY_CHECKPOINTS, "",
            "the model has %" PRId64 " checkpoints, as many as --max-checkpoints allows; delete one", manual);
    }
    return 0;
}

static int write_file(gs_store *store, gs_snapshot *snapshot, gp_error *error) {
    char name[64];
    gs_file file;
    const gs_buffer *bytes = snapshot->file;
    gs_checkpoint_file_name(snapshot->row.id, name, sizeof name);
    gs_sha256_hex(bytes->data, bytes->size, snapshot->row.sha256);
    return gs_file_create(store, GS_FOLDER_CHECKPOINTS, bytes->size, &file, error) ||
                   gs_file_write(&file, bytes->data, bytes->size, error) || gs_file_commit(&file, name, error)
               ? -1
               : 0;
}

static int note_gone(gs_snapshot *snapshot, int64_t id, gp_error *error) {
    int64_t *grown = realloc(snapshot->gone, (snapshot->gone_count + 1) * sizeof *grown);
    if (!grown) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for a checkpoint");
    }
    snapshot->gone = grown;
    grown[snapshot->gone_count++] = id;
    return 0;
}

/* Drop what is older than the last good ones that are to be kept beside this one. */
static int drop_old(gs_store *store, gs_snapshot *snapshot, gp_error *error) {
    const char *kind = gs_checkpoint_kind_name(snapshot->row.kind);
    const int64_t model = (int64_t)snapshot->hosted->id;
    if (!snapshot->keep) {
        return 0;
    }
    snapshot->gone_count = 0;
    sqlite3_stmt *old = gs_sql_query(
        store, error,
        "SELECT id FROM checkpoints WHERE model = ?1 AND kind = ?2 AND id <= (SELECT id FROM checkpoints "
        "WHERE model = ?1 AND kind = ?2 AND (NOT damaged OR kind = 'best') ORDER BY id DESC LIMIT 1 OFFSET "
        "?3)",
        "isi", model, kind, (int64_t)(snapshot->keep - 1));
    int more = old ? 1 : -1;
    while (more > 0 && (more = gs_sql_row(store, old, error)) > 0) {
        if (note_gone(snapshot, sqlite3_column_int64(old, 0), error)) {
            return -1;
        }
    }
    for (size_t i = 0; i < snapshot->gone_count && !more; i++) {
        more = gs_sql(store, error, "DELETE FROM checkpoints WHERE id = ?", "i", snapshot->gone[i]);
    }
    return more;
}

static int insert(gs_store *store, const gs_snapshot *snapshot, gp_error *error) {
    const gs_checkpoint *row = &snapshot->row;
    return gs_sql(
        store, error,
        "INSERT INTO checkpoints(id, model, name, kind, step, version, note, job, position, metric, "
        "bytes, sha256, created_ms) VALUES(?, ?, ?, ?, ?, ?, nullif(?, ''), nullif(?, 0), ?, ?, ?, "
        "?, ?)",
        "iissiisisdisi", row->id, (int64_t)snapshot->hosted->id, row->name,
        gs_checkpoint_kind_name(row->kind), row->step, row->version, row->note, row->job, snapshot->position,
        row->metric, row->bytes, row->sha256, row->created_ms);
}

/* Metrics up to here; where the model was brought back to an earlier step, those past it go first. That is
 * asked now, and not when the snapshot was taken: the one before it may have done it, and what came since
 * must not go again. */
static int write_metrics(gs_store *store, gs_snapshot *snapshot, gp_error *error) {
    gs_hosted *hosted = snapshot->hosted;
    const int64_t model = (int64_t)hosted->id;
    pthread_mutex_lock(&hosted->lock);
    const uint64_t stored = atomic_load(&hosted->saved.metrics);
    const int64_t cut_step = hosted->saved.cut_step;
    snapshot->cut = hosted->saved.cut;
    snapshot->cuts = hosted->saved.cuts;
    pthread_mutex_unlock(&hosted->lock);
    snapshot->metrics = stored;
    if (snapshot->cut && gs_packs_cut(store, model, cut_step, error)) {
        return -1;
    }
    if ((snapshot->cut || !snapshot->cuts_memory) && /* else all that there is was stored before */
        gs_packs_add(store, model, &hosted->history, stored, &snapshot->metrics, error)) {
        return -1;
    }
    /* in memory they are cut once this is committed */
    return snapshot->cuts_memory ? gs_packs_cut(store, model, snapshot->row.step, error) : 0;
}

static int commit(gs_store *store, void *argument, gp_error *error) {
    gs_snapshot *snapshot = argument;
    return check_job(store, snapshot, error) || check(store, snapshot, error) ||
                   write_file(store, snapshot, error) || drop_old(store, snapshot, error) ||
                   insert(store, snapshot, error) || write_metrics(store, snapshot, error) ||
                   gs_idempotency_save(server_of(snapshot)->idempotency, store, snapshot->hosted->id,
                                       (uint64_t)snapshot->row.version, error) ||
                   (snapshot->write && snapshot->write(store, snapshot->write_argument, error))
               ? -1
               : 0;
}

/* ---- afterwards ---------------------------------------------------------------------------------------- */

static void remove_file(const gs_snapshot *snapshot, int64_t id) {
    char name[64];
    gs_checkpoint_file_name(id, name, sizeof name);
    gs_file_remove(server_of(snapshot)->store, GS_FOLDER_CHECKPOINTS, name);
}

static void raise(atomic_uint_fast64_t *number, uint64_t value) {
    uint_fast64_t now = atomic_load(number);
    while (now < value && !atomic_compare_exchange_weak(number, &now, value)) {
    }
}

/* What is on the disk now. */
static void note_saved(gs_snapshot *snapshot) {
    gs_hosted *hosted = snapshot->hosted;
    raise(&hosted->saved.version, (uint64_t)snapshot->row.version);
    if (snapshot->cuts_memory) {
        gs_history_cut(&hosted->history, snapshot->row.step);
    }
    pthread_mutex_lock(&hosted->lock); /* both at once: see write_metrics() */
    raise(&hosted->saved.metrics, snapshot->metrics);
    if (snapshot->cut && hosted->saved.cuts == snapshot->cuts) {
        hosted->saved.cut = false;
    }
    pthread_mutex_unlock(&hosted->lock);
}

static void settle(void *argument, bool committed) {
    gs_snapshot *snapshot = argument;
    if (committed) {
        note_saved(snapshot);
        for (size_t i = 0; i < snapshot->gone_count; i++) {
            remove_file(snapshot, snapshot->gone[i]);
        }
    } else {
        remove_file(snapshot, snapshot->row.id);
    }
    gs_idempotency_settle(server_of(snapshot)->idempotency, snapshot->hosted->id,
                          (uint64_t)snapshot->row.version, committed);
}

static void settle_and_free(void *argument, bool committed) {
    settle(argument, committed);
    gs_snapshot_free(argument);
}

gs_effect gs_snapshot_effect(gs_snapshot *snapshot) {
    return (gs_effect){.write = commit, .settle = settle_and_free, .argument = snapshot};
}

static void finish(gs_store_task *task, int result) {
    gs_snapshot *snapshot = task->argument;
    settle(snapshot, !result);
    snapshot->done(snapshot->done_argument, result ? NULL : &snapshot->row, &task->error);
    gs_snapshot_free(snapshot);
}

void gs_snapshot_write(gs_snapshot *snapshot,
                       void (*done)(void *argument, const gs_checkpoint *checkpoint, const gp_error *error),
                       void *argument) {
    snapshot->done = done;
    snapshot->done_argument = argument;
    snapshot->task = (gs_store_task){.run = commit, .done = finish, .argument = snapshot};
    gs_store_submit(server_of(snapshot)->store, &snapshot->task);
}

int gs_snapshot_write_now(gs_snapshot *snapshot, gs_checkpoint *ret_checkpoint, gp_error *error) {
    int result = gs_store_do(server_of(snapshot)->store, commit, snapshot, error);
    settle(snapshot, !result);
    *ret_checkpoint = snapshot->row;
    gs_snapshot_free(snapshot);
    return result;
}
