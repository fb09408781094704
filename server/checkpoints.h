/* checkpoints.h -- a model's whole state as a file, and back.
 *
 * A snapshot is a copy of all that a model is (gd_model_state_at()), taken in the model's turn between two
 * steps. Written, it is a checkpoint: a safetensors file, and a row that is its truth. In the transaction of
 * that row are the model's metrics up to its step, the idempotency keys of the requests whose effects it
 * holds, and where the job stands that took it: after a crash these agree, whatever the moment. The newest
 * checkpoint of a model is the state it comes back with.
 *
 * The file has every entry of the state (parameters and buffers under their state_dict names first), and in
 * "__metadata__" what the model was made of, so that it can be loaded by itself. */
#ifndef GRADD_SERVER_CHECKPOINTS_H
#define GRADD_SERVER_CHECKPOINTS_H

#include "effect.h"
#include "models.h"
#include "store.h"

typedef struct gs_server gs_server;
typedef struct gs_snapshot gs_snapshot;

/* kind, as clients see it, its documentation */
#define GS_CHECKPOINT_KINDS(X) \
    X(GS_CHECKPOINT_MANUAL, "manual", "asked for by a client: kept until it is deleted") \
    X(GS_CHECKPOINT_AUTO, "auto", "taken by a job on its way: the last ones are kept") \
    X(GS_CHECKPOINT_BEST, "best", "the best by a job's evaluation: there is one of a model") \
    X(GS_CHECKPOINT_AUTOSAVE, "autosave", \
      "taken when no job runs and the model has changed: the last two are kept")

typedef enum gs_checkpoint_kind {
#define X(kind, name, doc) kind,
    GS_CHECKPOINT_KINDS(X)
#undef X
        GS_CHECKPOINT_KIND_COUNT
} gs_checkpoint_kind;

typedef struct gs_checkpoint {
    int64_t id;
    char name[65]; /* unique in the model: given, or made of kind and step ("auto-1200"); the best's is "best"
                    */
    gs_checkpoint_kind kind;
    int64_t step, version, created_ms, bytes;
    int64_t job;   /* that took it; 0: none */
    double metric; /* that "best" goes by; NAN: none */
    bool damaged;  /* it did not verify when it was last looked at */
    char sha256[65];
    char note[257];
} gs_checkpoint;

/** "manual" ... */
const char *gs_checkpoint_kind_name(gs_checkpoint_kind kind);

/* ---- taking one (snapshot.c) ------------------------------------------------------------------------- */

enum { GS_KEEP_AUTOSAVES = 2 };

/** What goes along with a snapshot. */
typedef struct gs_snapshot_spec {
    gs_checkpoint_kind kind;
    const char *name;     /* NULL: made */
    const char *note;     /* or NULL */
    int64_t job;          /* 0: none */
    const char *position; /* JSON: where that job stands; kept in the row. NULL: none */
    const void *order;    /* the state of the job's generator when its epoch began; a tensor, "job.order" */
    size_t order_size;
    double metric; /* of "best"; looked at with that kind alone */
    int keep;      /* good ones of this kind, job or not; 0: all. Older ones go in the same transaction, their
                      files after it */
} gs_snapshot_spec;

/** Copy the model's state. In the model's turn. @return 0; -1: GP_OUT_OF_MEMORY */
int gs_snapshot_take(gs_hosted *hosted, const gs_snapshot_spec *spec, gs_snapshot **ret_snapshot,
                     gp_error *error);
/** More for the same transaction: called on the store's thread, before the commit. May be set once. */
void gs_snapshot_add(gs_snapshot *snapshot, int (*write)(gs_store *, void *, gp_error *), void *argument);
/** Write it, and free it. `done` is called on the store's thread: checkpoint is NULL when it failed, and
 * error says why (GP_NAME_TAKEN, GP_TOO_MANY_CHECKPOINTS, GP_NOT_FOUND: the model was deleted,
 * GP_STORAGE_FAILED); what there was before is as it was. Any thread. */
void gs_snapshot_write(gs_snapshot *snapshot,
                       void (*done)(void *argument, const gs_checkpoint *checkpoint, const gp_error *error),
                       void *argument);
/** The same, and wait. Any thread but the store's and the loop's. @return 0; -1 */
int gs_snapshot_write_now(gs_snapshot *snapshot, gs_checkpoint *ret_checkpoint, gp_error *error);
/** The same as an effect of a request (effect.h), which frees it. */
gs_effect gs_snapshot_effect(gs_snapshot *snapshot);
/** What it has become; whole once it is written. */
const gs_checkpoint *gs_snapshot_checkpoint(const gs_snapshot *snapshot);
/** It holds a state that the model has been brought back to: with it metrics past its step go, in the store
 *  and in memory. */
void gs_snapshot_cuts_metrics(gs_snapshot *snapshot);
/** Put it into its model again. In the model's turn. @return 0; -1 */
int gs_snapshot_put_back(gs_snapshot *snapshot, gp_error *error);
/** Drop one that will not be written. NULL is fine. */
void gs_snapshot_free(gs_snapshot *snapshot);

/* ---- reading one (checkpoints.c) ------------------------------------------------------------------------
 */

/** A checkpoint's file, verified (size, SHA-256, format) and mapped: its tensors and where its job stood. */
typedef struct gs_restored {
    gs_checkpoint checkpoint;
    const void *data;
    size_t size;
    gp_safetensors tensors; /* views of data */
    char *definition;       /* of the model that it is of */
    char *position;         /* or NULL */
    int passed_over;        /* newer ones that are damaged */
} gs_restored;

/** Open one by name; or, with NULL, the newest that verifies, of this job (0: of any or none): those that
 *  don't are marked damaged and logged. @return 0; -1: GP_NOT_FOUND, GP_DAMAGED, GP_STORAGE_FAILED. Any
 *  thread but the store's and the loop's */
int gs_checkpoint_open(gs_hosted *hosted, const char *name, int64_t job, gs_restored *ret_restored,
                       gp_error *error);
/** With name NULL: likewise, from the one before the checkpoint that *restored was of (released already). */
int gs_checkpoint_open_next(gs_hosted *hosted, const char *name, int64_t job, gs_restored *restored,
                            gp_error *error);
/** Put it into the model: all of it or nothing. The model's version goes up. In the model's turn.
 *  @return 0; -1: GP_DAMAGED, GP_OUT_OF_MEMORY */
int gs_checkpoint_put(gs_hosted *hosted, const gs_restored *restored, gp_error *error);
/** The same, and the metrics past its step are forgotten: in memory at once, in the store with the next
 *  snapshot, which should be taken soon, as no others are stored before. Waits for the store. */
int gs_checkpoint_load(gs_hosted *hosted, const gs_restored *restored, gp_error *error);
/** A model made of it, with its state. @param name NULL: as in its definition  @return 0; -1: GP_DAMAGED ...
 */
int gs_checkpoint_build(gs_models *models, const gs_restored *restored, uint64_t id, const char *name,
                        gs_hosted **ret_hosted, gp_error *error);
void gs_restored_release(gs_restored *restored);

/** Rows of a model, the newest first: those with a smaller id than `before` (0: all), at most `max`.
 *  @param name NULL; or the one of this name alone
 *  @return 0 with *ret_count; -1. Any thread but the store's and the loop's */
int gs_checkpoint_list(gs_hosted *hosted, const char *name, int64_t before, gs_checkpoint *ret_rows,
                       size_t max, size_t *ret_count, gp_error *error);
/** Open the file of one for reading, as it is. @return a descriptor; -1: GP_DAMAGED (not of its size),
 *  GP_STORAGE_FAILED */
int gs_checkpoint_file(gs_hosted *hosted, const gs_checkpoint *checkpoint, gp_error *error);
/** "<id>.safetensors" */
void gs_checkpoint_file_name(int64_t id, char *text, size_t size);
/** Note whether it has verified. */
void gs_checkpoint_mark(gs_server *server, gs_checkpoint *checkpoint, const char *model, const gp_error *why);

/* ---- models outlive the daemon (restore.c, autosave.c) ---------------------------------------------------
 */

/** At start: build every model from its definition and its newest good checkpoint, with its metrics.
 *  @return 0; -1: the database cannot be read. A model that cannot be built is logged and left in the store
 */
int gs_models_restore(gs_server *server, gp_error *error);
/** The timer's: take autosaves of the models that have changed and have no job. Loop thread. */
void gs_autosave_tick(gs_server *server);
/** Likewise: hand new metrics to the store. */
void gs_metrics_tick(gs_server *server);
/** Store a model's metrics, and wait for it. @return 0; -1 */
int gs_metrics_store(gs_hosted *hosted, gp_error *error);
/** The same as part of a transaction, whatever is to be cut; on the store's thread. Once it is committed,
 *  gs_metrics_note() what it gave. */
int gs_metrics_commit(gs_store *store, gs_hosted *hosted, uint64_t *ret_last, gp_error *error);
void gs_metrics_note(gs_hosted *hosted, uint64_t last);
/** At the end, with no request left: save every model that has changed, for at most so long, and wait. */
void gs_autosave_all(gs_server *server, double seconds);

#endif
