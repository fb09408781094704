/* schema.c -- the tables, as a list of steps from each version to the next. A step that was released is
 * never changed: a change is one more step. Times are milliseconds since 1970, hashes hexadecimal SHA-256. */
#include <sqlite3.h>
#include <stdio.h>

#include "store_internal.h"

enum { APPLICATION_ID = 0x67726164 /* "grad": so that no other program's database is taken for ours */ };

static const char *const steps[] = {
    /* 1 */
    /* definition: as POST /v1/models takes it, with what PATCH changed; seed: the bits of a uint64 */
    "CREATE TABLE models("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL,"
    " seed INTEGER NOT NULL, created_ms INTEGER NOT NULL) STRICT;"

    "CREATE TABLE datasets("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL) STRICT;"

    /* file: its name in the folder datasets; offset, bytes: where in it the elements are */
    "CREATE TABLE dataset_parts("
    " dataset INTEGER NOT NULL REFERENCES datasets ON DELETE CASCADE, split TEXT NOT NULL, part TEXT NOT "
    "NULL,"
    " file TEXT NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL, offset INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,"
    " PRIMARY KEY(dataset, split, part)) STRICT, WITHOUT ROWID;"

    /* A job outlives its model and its dataset: it bears their names. */
    "CREATE TABLE jobs("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER REFERENCES models ON DELETE SET NULL,"
    " model_name TEXT NOT NULL, dataset TEXT NOT NULL, spec TEXT NOT NULL, state TEXT NOT NULL,"
    " progress TEXT, error TEXT, created_ms INTEGER NOT NULL, started_ms INTEGER, ended_ms INTEGER) STRICT;"
    "CREATE INDEX jobs_by_model ON jobs(model);"
    "CREATE INDEX jobs_by_state ON jobs(state);"

    "CREATE TABLE job_events("
    " job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, seq INTEGER NOT NULL, time_ms INTEGER NOT NULL,"
    " kind TEXT NOT NULL, at_row INTEGER, data TEXT NOT NULL, PRIMARY KEY(job, seq)) STRICT, WITHOUT ROWID;"

    /* position: where the job stood, as JSON; its file is checkpoints/<id>.safetensors */
    "CREATE TABLE checkpoints("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,"
    " name TEXT, kind TEXT NOT NULL CHECK(kind IN ('manual', 'auto', 'best', 'autosave')),"
    " step INTEGER NOT NULL, version INTEGER NOT NULL, note TEXT,"
    " job INTEGER REFERENCES jobs ON DELETE SET NULL, position TEXT, metric REAL,"
    " damaged INTEGER NOT NULL DEFAULT 0,"
    " bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, created_ms INTEGER NOT NULL, UNIQUE(model, name)) STRICT;"
    "CREATE INDEX checkpoints_by_age ON checkpoints(model, id);"
    "CREATE INDEX checkpoints_by_job ON checkpoints(job);"

    /* rows: packed, from the first to the last of them; a rowid keeps the blobs out of the index */
    "CREATE TABLE metrics("
    " model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE, first INTEGER NOT NULL,"
    " last INTEGER NOT NULL, max_step INTEGER NOT NULL, rows BLOB NOT NULL, PRIMARY KEY(model, first)) "
    "STRICT;"

    /* model, version: of a step, whose effect is in the model's checkpoints from that version on; null: its
     * effect was committed with it. body null: the reply was too large to be kept. */
    "CREATE TABLE idempotency("
    " id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, fingerprint BLOB NOT NULL, status INTEGER NOT NULL,"
    " media TEXT NOT NULL, etag TEXT NOT NULL, location TEXT NOT NULL, body BLOB,"
    " model INTEGER REFERENCES models ON DELETE CASCADE, version INTEGER, created_ms INTEGER NOT NULL) "
    "STRICT;"
    "CREATE INDEX idempotency_by_model ON idempotency(model, version);"
    "CREATE INDEX idempotency_by_age ON idempotency(created_ms);",
};

enum { NEWEST = sizeof steps / sizeof *steps };

static int read_number(gs_store *store, const char *sql, int64_t *ret_number) {
    gp_error error = {0};
    sqlite3_stmt *query = gs_sql_query(store, &error, sql, "");
    if (!query || gs_sql_row(store, query, &error) != 1) {
        return -1;
    }
    *ret_number = sqlite3_column_int64(query, 0);
    sqlite3_reset(query);
    return 0;
}

/* Is the file whole, as far as SQLite can tell? */
static bool is_sound(gs_store *store) {
    gp_error error = {0};
    sqlite3_stmt *query = gs_sql_query(store, &error, "PRAGMA quick_check(1)", "");
    if (!query || gs_sql_row(store, query, &error) != 1) {
        return false;
    }
    bool sound = !sqlite3_stricmp((const char *)sqlite3_column_text(query, 0), "ok");
    sqlite3_reset(query);
    return sound;
}

static int apply(gs_store *store, int64_t version) {
    char set[96];
    snprintf(set, sizeof set, "PRAGMA user_version = %lld; PRAGMA application_id = %d; COMMIT",
             (long long)version, APPLICATION_ID);
    if (!sqlite3_exec(store->db, "BEGIN", NULL, NULL, NULL) &&
        !sqlite3_exec(store->db, steps[version - 1], NULL, NULL, NULL) &&
        !sqlite3_exec(store->db, set, NULL, NULL, NULL)) {
        return 0;
    }
    return -1; /* the transaction ends with the connection */
}

int gs_schema_update(gs_store *store, char *why, size_t size) {
    int64_t version, application, tables;
    if (!is_sound(store) || read_number(store, "PRAGMA user_version", &version) ||
        read_number(store, "PRAGMA application_id", &application) ||
        read_number(store, "SELECT count(*) FROM sqlite_schema", &tables)) {
        snprintf(why, size,
                 "the database %s/gradd.db cannot be read (%s); put a copy from a backup in its place, or "
                 "move it (and gradd.db-wal) away to begin with an empty one",
                 store->path, sqlite3_errcode(store->db) ? sqlite3_errmsg(store->db) : "it is damaged");
        return -1;
    }
    if (application != APPLICATION_ID && (application || tables)) {
        snprintf(why, size, "%s/gradd.db is another program's database; give another --data-dir",
                 store->path);
        return -1;
    }
    if (version > NEWEST) {
        snprintf(why, size,
                 "%s/gradd.db was written by a newer gradd (its schema is %lld, this one knows %d); run that "
                 "one, or give another --data-dir",
                 store->path, (long long)version, NEWEST);
        return -1;
    }
    while (version < NEWEST) {
        if (apply(store, ++version)) {
            snprintf(why, size, "%s/gradd.db cannot be brought to schema %lld: %s", store->path,
                     (long long)version, sqlite3_errmsg(store->db));
            return -1;
        }
    }
    return 0;
}
