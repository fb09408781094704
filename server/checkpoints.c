/* checkpoints.c -- rows, and what is made of their files. */
#include "checkpoints.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "definition.h"
#include "packs.h"
#include "server.h"
#include "state.h"

static const char *const kind_names[] = {
#define X(kind, name, doc) [kind] = name,
    GS_CHECKPOINT_KINDS(X)
#undef X
};

const char *gs_checkpoint_kind_name(gs_checkpoint_kind kind) {
    return kind_names[kind];
}

void gs_checkpoint_file_name(int64_t id, char *text, size_t size) {
    snprintf(text, size, "%" PRId64 ".safetensors", id);
}

/* ---- rows ------------------------------------------------------------------------------------------------
 */

/* Rows of a model that are asked for. */
typedef struct rows {
    int64_t model, before, job; /* before, job: 0: any */
    const char *name;           /* NULL: any */
    gs_checkpoint *found;
    size_t max, count;
    char *position; /* of the last one */
} rows;

static void copy_text(sqlite3_stmt *row, int column, char *out, size_t size) {
    const unsigned char *text = sqlite3_column_text(row, column);
    snprintf(out, size, "%s", text ? (const char *)text : "");
}

static void read_row(sqlite3_stmt *row, gs_checkpoint *checkpoint) {
    *checkpoint = (gs_checkpoint){.id = sqlite3_column_int64(row, 0),
                                  .step = sqlite3_column_int64(row, 3),
                                  .version = sqlite3_column_int64(row, 4),
                                  .job = sqlite3_column_int64(row, 6),
                                  .metric = NAN,
                                  .damaged = sqlite3_column_int(row, 9),
                                  .bytes = sqlite3_column_int64(row, 10),
                                  .created_ms = sqlite3_column_int64(row, 12)};
    char kind[16];
    copy_text(row, 1, checkpoint->name, sizeof checkpoint->name);
    copy_text(row, 2, kind, sizeof kind);
    for (int i = 0; i < GS_CHECKPOINT_KIND_COUNT; i++) {
        checkpoint->kind = strcmp(kind, kind_names[i]) ? checkpoint->kind : (gs_checkpoint_kind)i;
    }
    copy_text(row, 5, checkpoint->note, sizeof checkpoint->note);
    copy_text(row, 11, checkpoint->sha256, sizeof checkpoint->sha256);
    if (sqlite3_column_type(row, 8) != SQLITE_NULL) {
        checkpoint->metric = sqlite3_column_double(row, 8);
    }
}

static int read_rows(gs_store *store, void *argument, gp_error *error) {
    rows *r = argument;
    sqlite3_stmt *row =
        gs_sql_query(store, error,
                     "SELECT id, name, kind, step, version, note, job, position, metric, damaged, bytes, "
                     "sha256, created_ms FROM checkpoints WHERE model = ?1 AND (?2 = 0 OR id < ?2) AND "
                     "(?3 = 0 OR job = ?3) AND (?4 IS NULL OR name = ?4) ORDER BY id DESC LIMIT ?5",
                     "iiisi", r->model, r->before, r->job, r->name, (int64_t)r->max);
    int more = row ? 1 : -1;
    while (more > 0 && (more = gs_sql_row(store, row, error)) > 0 && r->count < r->max) {
        const char *position = (const char *)sqlite3_column_text(row, 7);
        read_row(row, &r->found[r->count++]);
        free(r->position);
        r->position = position ? strdup(position) : NULL;
        if (position && !r->position) {
            return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for a checkpoint");
        }
    }
    return more < 0 ? -1 : 0;
}

static gs_store *store_of(const gs_hosted *hosted) {
    return hosted->models->server->store;
}

int gs_checkpoint_list(gs_hosted *hosted, const char *name, int64_t before, gs_checkpoint *ret_rows,
                       size_t max, size_t *ret_count, gp_error *error) {
    rows r = {.model = (int64_t)hosted->id, .before = before, .name = name, .found = ret_rows, .max = max};
    int result = gs_store_do(store_of(hosted), read_rows, &r, error);
    free(r.position);
    *ret_count = r.count;
    return result;
}

static int write_mark(gs_store *store, void *argument, gp_error *error) {
    const gs_checkpoint *checkpoint = argument;
    return gs_sql(store, error, "UPDATE checkpoints SET damaged = ? WHERE id = ?", "ii",
                  (int64_t)checkpoint->damaged, checkpoint->id);
}

void gs_checkpoint_mark(gs_server *server, gs_checkpoint *checkpoint, const char *model,
                        const gp_error *why) {
    const bool damaged = why;
    if (why) {
        gs_log_event(&server->log, GS_ERROR, "checkpoint damaged", GS_S("model", model),
                     GS_S("checkpoint", checkpoint->name), GS_I("id", checkpoint->id),
                     GS_S("reason", why->detail));
    }
    if (checkpoint->damaged != damaged) {
        gp_error error = {0};
        checkpoint->damaged = damaged;
        gs_store_do(server->store, write_mark, checkpoint, &error); /* else it is found out again */
    }
}

/* ---- files -----------------------------------------------------------------------------------------------
 */

static int damaged(gp_error *error, const gs_checkpoint *checkpoint, const char *why) {
    return gp_fail(error, GP_DAMAGED, "", "the checkpoint \"%s\" is damaged: %s", checkpoint->name, why);
}

/* Map its file and see that it is what was written. @return 0; -1: GP_DAMAGED or another reason */
static int verify(gs_store *store, gs_restored *restored, gp_error *error) {
    const gs_checkpoint *checkpoint = &restored->checkpoint;
    char name[64], sha256[65];
    gp_error why = {0};
    gs_checkpoint_file_name(checkpoint->id, name, sizeof name);
    if (gs_file_map(store, GS_FOLDER_CHECKPOINTS, name, &restored->data, &restored->size, &why)) {
        return why.problem == GP_NOT_FOUND ? damaged(error, checkpoint, why.detail)
                                           : gp_fail(error, why.problem, "", "%s", why.detail);
    }
    if (restored->size != (size_t)checkpoint->bytes) {
        return damaged(error, checkpoint, "its file is not as long as it was written");
    }
    gs_sha256_hex(restored->data, restored->size, sha256);
    if (strcmp(sha256, checkpoint->sha256) != 0) {
        return damaged(error, checkpoint, "its SHA-256 is not what was written");
    }
    return gs_state_read(restored->data, restored->size, &restored->tensors, &restored->definition, error);
}

/* The row that is asked for, or the next older one. @return 1; 0: there is none; -1 */
static int next_row(gs_hosted *hosted, const char *name, int64_t job, gs_restored *restored,
                    gp_error *error) {
    gs_checkpoint found;
    rows r = {.model = (int64_t)hosted->id,
              .before = restored->checkpoint.id,
              .job = job,
              .name = name,
              .found = &found,
              .max = 1};
    if (gs_store_do(store_of(hosted), read_rows, &r, error)) {
        free(r.position);
        return -1;
    }
    *restored = (gs_restored){.position = r.position};
    if (r.count) {
        restored->checkpoint = found;
    }
    return r.count != 0;
}

static int not_found(const gs_hosted *hosted, const char *name, gp_error *error) {
    return name ? gp_fail(error, GP_NOT_FOUND, "",
                          "the model \"%s\" has no checkpoint named \"%s\"; GET /v1/models/%s/checkpoints "
                          "lists them",
                          hosted->name, name, hosted->name)
                : gp_fail(error, GP_NOT_FOUND, "", "the model \"%s\" has no checkpoint that is whole",
                          hosted->name);
}

int gs_checkpoint_open(gs_hosted *hosted, const char *name, int64_t job, gs_restored *ret_restored,
                       gp_error *error) {
    *ret_restored = (gs_restored){0};
    return gs_checkpoint_open_next(hosted, name, job, ret_restored, error);
}

int gs_checkpoint_open_next(gs_hosted *hosted, const char *name, int64_t job, gs_restored *ret_restored,
                            gp_error *error) {
    gs_restored restored = *ret_restored;
    for (int passed_over = 0;; passed_over++) {
        gp_error why = {0};
        int found = next_row(hosted, name, job, &restored, error);
        if (found <= 0) {
            return found ? -1 : not_found(hosted, name, error);
        }
        int failed = verify(store_of(hosted), &restored, &why);
        if (!failed || why.problem == GP_DAMAGED) {
            gs_checkpoint_mark(hosted->models->server, &restored.checkpoint, hosted->name,
                               failed ? &why : NULL);
        }
        if (!failed) {
            restored.passed_over = passed_over;
            *ret_restored = restored;
            return 0;
        }
        gs_restored_release(&restored);
        if (name || why.problem != GP_DAMAGED) {
            return gp_fail(error, why.problem, "", "%s", why.detail);
        }
    }
}

void gs_restored_release(gs_restored *restored) {
    gs_checkpoint checkpoint = restored->checkpoint;
    gp_safetensors_release(&restored->tensors);
    gs_file_unmap(restored->data, restored->size);
    free(restored->definition);
    free(restored->position);
    *restored = (gs_restored){.checkpoint = checkpoint}; /* where next_row() goes on from */
}

int gs_checkpoint_file(gs_hosted *hosted, const gs_checkpoint *checkpoint, gp_error *error) {
    char name[64];
    struct stat status;
    gs_checkpoint_file_name(checkpoint->id, name, sizeof name);
    int fd = openat(gs_store_folder(store_of(hosted), GS_FOLDER_CHECKPOINTS), name,
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &status) || status.st_size != checkpoint->bytes) {
        if (fd >= 0) {
            close(fd);
        }
        return damaged(error, checkpoint,
                       fd < 0 ? "its file cannot be opened" : "its file is not as long as it was written");
    }
    return fd;
}

/* ---- into models
 * ------------------------------------------------------------------------------------------- */

/* Build a model anew, as the checkpoint is of another definition, and put it in place of the present one. */
static int exchange(gs_hosted *hosted, const gs_restored *restored, int64_t version, gp_error *error) {
    gd_model *model = NULL;
    uint64_t seed;
    char *definition = strdup(restored->definition);
    if (!definition ||
        gs_definition_build(hosted->models->executor->engine, definition, &model, &seed, error) ||
        gs_state_load(model, &restored->tensors, version, error)) {
        gd_model_free(model);
        free(definition);
        return error && error->problem ? -1 : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    gd_model_free(hosted->model);
    free(hosted->definition);
    hosted->model = model;
    hosted->definition = definition;
    return 0;
}

int gs_checkpoint_put(gs_hosted *hosted, const gs_restored *restored, gp_error *error) {
    const int64_t now = (int64_t)gd_model_version(hosted->model), then = restored->checkpoint.version;
    int result = strcmp(hosted->definition, restored->definition) != 0
                     ? exchange(hosted, restored, now > then ? now + 1 : then + 1, error)
                     : gs_state_load(hosted->model, &restored->tensors, 0, error);
    if (!result) {
        gs_hold_release(&hosted->inputs); /* the kept graph is gone */
        gs_hold_release(&hosted->target);
        gs_document_clear(&hosted->document);
        hosted->last_loss = NAN;
        gs_hosted_publish(hosted);
    }
    return result;
}

int gs_checkpoint_load(gs_hosted *hosted, const gs_restored *restored, gp_error *error) {
    gs_saved *saved = &hosted->saved;
    const int64_t step = restored->checkpoint.step;
    if (gs_metrics_store(hosted, error) || gs_checkpoint_put(hosted, restored, error)) {
        return -1;
    }
    pthread_mutex_lock(&hosted->lock);
    saved->cut_step = saved->cut && saved->cut_step < step ? saved->cut_step : step;
    saved->cut = true;
    saved->cuts++;
    pthread_mutex_unlock(&hosted->lock);
    gs_history_cut(&hosted->history, step);
    return 0;
}

int gs_checkpoint_build(gs_models *models, const gs_restored *restored, uint64_t id, const char *name,
                        gs_hosted **ret_hosted, gp_error *error) {
    gd_model *model = NULL;
    uint64_t seed;
    json_t *json = gs_definition_json(restored->definition);
    char *definition = json ? gs_definition_text(json, name) : NULL;
    const char *called = name ? name : json_string_value(json_object_get(json, "name"));
    gs_hosted *hosted = NULL;
    if (definition && called &&
        !gs_definition_build(models->executor->engine, definition, &model, &seed, error) &&
        !gs_state_load(model, &restored->tensors, 0, error)) {
        hosted = gs_hosted_new(models, id, called, model, definition, seed);
    }
    json_decref(json);
    if (!hosted) {
        gd_model_free(model);
        free(definition);
        return error->problem ? -1 : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    *ret_hosted = hosted;
    return 0;
}
