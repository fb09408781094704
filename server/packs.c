/* packs.c */
#include "packs.h"

#include <sqlite3.h>
#include <stdlib.h>

enum { MAX_PACKS = 64 /* of a model; more are joined when the daemon starts */ };

static int insert(gs_store *store, int64_t model, const gs_pack *pack, gp_error *error) {
    /* what one transaction has added and not settled yet, the next one adds again, and more */
    return gs_sql(store, error,
                  "INSERT OR REPLACE INTO metrics(model, first, last, max_step, rows) VALUES(?, ?, ?, ?, ?)",
                  "iiiib", model, (int64_t)pack->first, (int64_t)pack->last, pack->max_step, pack->data,
                  pack->size);
}

int gs_packs_add(gs_store *store, int64_t model, gs_history *history, uint64_t since, uint64_t *ret_last,
                 gp_error *error) {
    gs_pack pack;
    if (gs_history_pack(history, since, &pack)) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the metrics of a model");
    }
    int result = pack.data ? insert(store, model, &pack, error) : 0;
    *ret_last = pack.last;
    free(pack.data);
    return result;
}

/* Unpack rows, oldest first. @return 0; -1 */
static int unpack(gs_store *store, sqlite3_stmt *row, gs_history *history, int *ret_damaged,
                  gp_error *error) {
    int more = row ? 1 : -1;
    *ret_damaged = 0;
    while (more > 0 && (more = gs_sql_row(store, row, error)) > 0) {
        gp_error why = {0};
        if (!gs_history_unpack(history, sqlite3_column_blob(row, 0), (size_t)sqlite3_column_bytes(row, 0),
                               &why)) {
            continue;
        }
        if (why.problem == GP_OUT_OF_MEMORY) {
            return gp_fail(error, why.problem, "", "%s", why.detail);
        }
        ++*ret_damaged;
    }
    return more;
}

/* One pack in place of many small ones; what is beyond the history's limits goes. */
static int join_packs(gs_store *store, int64_t model, gs_history *history, gp_error *error) {
    uint64_t last;
    return gs_sql(store, error, "DELETE FROM metrics WHERE model = ?", "i", model) ||
                   gs_packs_add(store, model, history, 0, &last, error)
               ? -1
               : 0;
}

int gs_packs_load(gs_store *store, int64_t model, gs_history *history, int *ret_damaged, gp_error *error) {
    sqlite3_stmt *row =
        gs_sql_query(store, error, "SELECT count(*) FROM metrics WHERE model = ?", "i", model);
    if (!row || gs_sql_row(store, row, error) != 1) {
        return -1;
    }
    const int64_t packs = sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    row = gs_sql_query(store, error, "SELECT rows FROM metrics WHERE model = ? ORDER BY first", "i", model);
    if (unpack(store, row, history, ret_damaged, error)) {
        return -1;
    }
    return packs > MAX_PACKS && !*ret_damaged ? join_packs(store, model, history, error) : 0;
}

/* In place of the packs from `first` on, what they have up to a step. */
static int replace(gs_store *store, int64_t model, int64_t first, int64_t step, gs_history *history,
                   gp_error *error) {
    int damaged;
    gs_pack pack;
    sqlite3_stmt *row =
        gs_sql_query(store, error, "SELECT rows FROM metrics WHERE model = ? AND first >= ? ORDER BY first",
                     "ii", model, first);
    if (unpack(store, row, history, &damaged, error)) {
        return -1;
    }
    gs_history_cut(history, step);
    if (gs_history_pack(history, 0, &pack)) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the metrics of a model");
    }
    int result =
        gs_sql(store, error, "DELETE FROM metrics WHERE model = ? AND first >= ?", "ii", model, first);
    if (!result && pack.data) {
        result = insert(store, model, &pack, error);
    }
    free(pack.data);
    return result;
}

int gs_packs_cut(gs_store *store, int64_t model, int64_t step, gp_error *error) {
    static const gs_history_limits limits = {.items = SIZE_MAX / 2, .keys = SIZE_MAX / 2};
    sqlite3_stmt *row = gs_sql_query(
        store, error, "SELECT min(first) FROM metrics WHERE model = ? AND max_step > ?", "ii", model, step);
    if (!row || gs_sql_row(store, row, error) != 1) {
        return -1;
    }
    bool none = sqlite3_column_type(row, 0) == SQLITE_NULL;
    int64_t first = sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    if (none) {
        return 0;
    }
    gs_history history;
    gs_history_init(&history, &limits);
    int result = replace(store, model, first, step, &history, error);
    gs_history_release(&history);
    return result;
}
