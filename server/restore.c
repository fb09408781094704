/* restore.c -- what comes back when the daemon starts. */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints.h"
#include "definition.h"
#include "idempotency.h"
#include "packs.h"
#include "server.h"

/* A row of table models. */
typedef struct model_row {
    uint64_t id, seed;
    char name[65];
    char *definition;
    int64_t created_ms;
} model_row;

/* What is in the database. */
typedef struct inventory {
    model_row *models;
    size_t model_count;
    int64_t *checkpoints; /* ids, ascending */
    size_t checkpoint_count;
    uint64_t last_model, last_checkpoint; /* ids that were given */
} inventory;

/* ---- reading it; on the store's thread ---------------------------------------------------------------- */

static int no_memory(gp_error *error) {
    return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for what is in the database");
}

static int read_last(gs_store *store, const char *table, uint64_t *ret_last, gp_error *error) {
    sqlite3_stmt *row =
        gs_sql_query(store, error, "SELECT max(seq) FROM sqlite_sequence WHERE name = ?", "s", table);
    if (!row || gs_sql_row(store, row, error) != 1) {
        return -1;
    }
    *ret_last = (uint64_t)sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    return 0;
}

static int add_model(inventory *all, sqlite3_stmt *row) {
    model_row *grown = reallocarray(all->models, all->model_count + 1, sizeof *grown);
    if (!grown) {
        return -1;
    }
    all->models = grown;
    model_row *model = &grown[all->model_count];
    *model = (model_row){.id = (uint64_t)sqlite3_column_int64(row, 0),
                         .definition = strdup((const char *)sqlite3_column_text(row, 2)),
                         .seed = (uint64_t)sqlite3_column_int64(row, 3),
                         .created_ms = sqlite3_column_int64(row, 4)};
    snprintf(model->name, sizeof model->name, "%s", sqlite3_column_text(row, 1));
    all->model_count++;
    return model->definition ? 0 : -1;
}

static int add_checkpoint(inventory *all, sqlite3_stmt *row) {
    int64_t *grown = reallocarray(all->checkpoints, all->checkpoint_count + 1, sizeof *grown);
    if (!grown) {
        return -1;
    }
    all->checkpoints = grown;
    grown[all->checkpoint_count++] = sqlite3_column_int64(row, 0);
    return 0;
}

static int read_table(gs_store *store, const char *sql, int (*add)(inventory *, sqlite3_stmt *),
                      inventory *all, gp_error *error) {
    sqlite3_stmt *row = gs_sql_query(store, error, sql, "");
    int more = row ? 1 : -1;
    while (more > 0 && (more = gs_sql_row(store, row, error)) > 0) {
        if (add(all, row)) {
            return no_memory(error);
        }
    }
    return more;
}

static int read_inventory(gs_store *store, void *argument, gp_error *error) {
    inventory *all = argument;
    return read_last(store, "models", &all->last_model, error) ||
                   read_last(store, "checkpoints", &all->last_checkpoint, error) ||
                   read_table(store, "SELECT id, name, definition, seed, created_ms FROM models ORDER BY id",
                              add_model, all, error) ||
                   read_table(store, "SELECT id FROM checkpoints ORDER BY id", add_checkpoint, all, error)
               ? -1
               : 0;
}

static void release_inventory(inventory *all) {
    for (size_t i = 0; i < all->model_count; i++) {
        free(all->models[i].definition);
    }
    free(all->models);
    free(all->checkpoints);
}

/* ---- one model ------------------------------------------------------------------------------------------
 */

static void log_model(const gs_server *server, gs_level level, const char *event, const char *name,
                      const gp_error *why) {
    gs_log_event(&server->log, level, event, GS_S("model", name), GS_S("reason", why->detail));
}

static gs_hosted *build(gs_server *server, const model_row *row, gp_error *error) {
    gd_model *model = NULL;
    uint64_t seed;
    char *definition = strdup(row->definition);
    gs_hosted *hosted = NULL;
    if (definition && !gs_definition_build(server->engine, definition, &model, &seed, error)) {
        hosted = gs_hosted_new(&server->models, row->id, row->name, model, definition, row->seed);
    }
    if (!hosted) {
        gd_model_free(model);
        free(definition);
        if (!error->problem) {
            no_memory(error);
        }
        return NULL;
    }
    hosted->created_ms = row->created_ms;
    return hosted;
}

/* Its newest checkpoint that is whole; without any it is as it was defined.
 * @return 0 with the version of that; -1 */
static int load_state(gs_server *server, gs_hosted *hosted, uint64_t *ret_version, gp_error *error) {
    gs_restored restored = {0};
    for (;;) {
        gp_error why = {0};
        if (gs_checkpoint_open_next(hosted, NULL, 0, &restored, &why)) {
            *ret_version = gd_model_version(hosted->model);
            return why.problem == GP_NOT_FOUND ? 0 : gp_fail(error, why.problem, "", "%s", why.detail);
        }
        int failed = gs_checkpoint_put(hosted, &restored, &why);
        gs_restored_release(&restored);
        if (!failed) {
            *ret_version = (uint64_t)restored.checkpoint.version;
            return 0;
        }
        if (why.problem != GP_DAMAGED) {
            return gp_fail(error, why.problem, "", "%s", why.detail);
        }
        gs_checkpoint_mark(server, &restored.checkpoint, hosted->name, &why);
    }
}

/* A model's metrics and keys, as of its state. */
typedef struct rest {
    gs_hosted *hosted;
    uint64_t version;
    int damaged;
} rest;

static int load_rest(gs_store *store, void *argument, gp_error *error) {
    rest *r = argument;
    const int64_t model = (int64_t)r->hosted->id;
    return gs_packs_cut(store, model, gd_model_steps(r->hosted->model), error) ||
                   gs_packs_load(store, model, &r->hosted->history, &r->damaged, error) ||
                   gs_idempotency_cut(store, r->hosted->id, r->version, error)
               ? -1
               : 0;
}

static int restore_model(gs_server *server, const model_row *row, gp_error *error) {
    gs_hosted *hosted = build(server, row, error);
    if (!hosted) {
        return -1;
    }
    rest r = {.hosted = hosted};
    uint64_t cuts;
    int result = load_state(server, hosted, &r.version, error) ||
                         gs_store_do(server->store, load_rest, &r, error) ||
                         gs_models_add(&server->models, hosted, error)
                     ? -1
                     : 0;
    if (!result) {
        gs_idempotency_forget(server->idempotency, hosted->id, r.version);
        atomic_store(&hosted->saved.version, gd_model_version(hosted->model));
        atomic_store(&hosted->saved.metrics, gs_history_cursor(&hosted->history, &cuts));
        gs_hosted_publish(hosted);
    }
    if (r.damaged) {
        gs_log_event(&server->log, GS_ERROR, "metrics damaged", GS_S("model", row->name),
                     GS_I("packs", r.damaged));
    }
    gs_hosted_unref(hosted);
    return result;
}

/* ---- all of it ------------------------------------------------------------------------------------------
 */

static int compare_ids(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Is this the file of a row? */
static bool is_known(void *argument, const char *name) {
    const inventory *all = argument;
    char *end, expected[64];
    const int64_t id = strtoll(name, &end, 10);
    gs_checkpoint_file_name(id, expected, sizeof expected);
    return !strcmp(name, expected) && all->checkpoint_count &&
           bsearch(&id, all->checkpoints, all->checkpoint_count, sizeof id, compare_ids);
}

int gs_models_restore(gs_server *server, gp_error *error) {
    inventory all = {0};
    int64_t began = gs_clock_us();
    size_t restored = 0;
    int result = gs_store_do(server->store, read_inventory, &all, error);
    if (!result) {
        atomic_store(&server->models.last_id, all.last_model);
        atomic_store(&server->models.last_checkpoint, all.last_checkpoint);
        gs_store_sweep(server->store, GS_FOLDER_CHECKPOINTS, is_known, &all);
    }
    for (size_t i = 0; i < all.model_count && !result; i++) {
        gp_error why = {0};
        if (restore_model(server, &all.models[i], &why)) {
            log_model(server, GS_ERROR, "model not restored", all.models[i].name, &why);
        } else {
            restored++;
        }
    }
    if (all.model_count) {
        gs_log_event(&server->log, GS_INFO, "models restored", GS_I("models", restored),
                     GS_I("of", all.model_count), GS_I("duration_us", gs_clock_us() - began));
    }
    release_inventory(&all);
    return result;
}
