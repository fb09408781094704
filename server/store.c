/* store.c -- the thread, its transactions and statements. */
#include "store.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "store_internal.h"

enum {
    MAX_BATCH = 256, /* tasks in one transaction */
    TRY_SECONDS = 2  /* how often to see whether trouble is over */
};

/* ---- statements ------------------------------------------------------------------------------------ */

static int fail(gs_store *store, gp_error *error) {
    int code = sqlite3_errcode(store->db) & 0xff;
    const char *what = sqlite3_errmsg(store->db);
    if (code == SQLITE_CONSTRAINT) {
        return gp_fail(error, GP_CONFLICT, "", "the database: %s", what);
    }
    gp_fail(&store->failure, GP_STORAGE_FAILED, "", "the database: %s", what);
    return gp_fail(error, GP_STORAGE_FAILED, "", "the database: %s", what);
}

static int add_statement(gs_store *store, gs_statement statement) {
    if (store->statement_count == store->statement_capacity) {
        size_t capacity = store->statement_capacity ? 2 * store->statement_capacity : 64;
        gs_statement *grown = reallocarray(store->statements, capacity, sizeof *grown);
        if (!grown) {
            return -1;
        }
        store->statements = grown;
        store->statement_capacity = capacity;
    }
    store->statements[store->statement_count++] = statement;
    return 0;
}

/* NULL: it is wrong, or no memory. */
static sqlite3_stmt *prepare(gs_store *store, gp_error *error, const char *sql) {
    for (size_t i = 0; i < store->statement_count; i++) {
        if (store->statements[i].sql == sql) {
            sqlite3_reset(store->statements[i].compiled);
            return store->statements[i].compiled;
        }
    }
    gs_statement made = {.sql = sql};
    if (sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &made.compiled, NULL)) {
        fail(store, error);
        return NULL;
    }
    if (add_statement(store, made)) {
        sqlite3_finalize(made.compiled);
        gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for a statement");
        return NULL;
    }
    return made.compiled;
}

/* @param copies whether what is bound must outlive this call */
static int bind(sqlite3_stmt *statement, const char *types, bool copies, va_list values) {
    sqlite3_destructor_type life = copies ? SQLITE_TRANSIENT : SQLITE_STATIC;
    int code = SQLITE_OK;
    for (int i = 0; types[i] && !code; i++) {
        switch (types[i]) {
        case 'i':
            code = sqlite3_bind_int64(statement, i + 1, va_arg(values, int64_t));
            break;
        case 'd':
            code = sqlite3_bind_double(statement, i + 1, va_arg(values, double));
            break;
        case 's':
            code = sqlite3_bind_text(statement, i + 1, va_arg(values, const char *), -1, life);
            break;
        case 'b': {
            const void *bytes = va_arg(values, const void *);
            code = sqlite3_bind_blob64(statement, i + 1, bytes, va_arg(values, size_t), life);
            break;
        }
        default:
            code = sqlite3_bind_null(statement, i + 1);
        }
    }
    return code;
}

static sqlite3_stmt *begin(gs_store *store, gp_error *error, const char *sql, const char *types, bool copies,
                           va_list values) {
    sqlite3_stmt *statement = prepare(store, error, sql);
    if (statement && bind(statement, types, copies, values)) {
        fail(store, error);
        return NULL;
    }
    return statement;
}

int gs_sql(gs_store *store, gp_error *error, const char *sql, const char *types, ...) {
    va_list values;
    va_start(values, types);
    sqlite3_stmt *statement = begin(store, error, sql, types, false, values);
    va_end(values);
    if (!statement) {
        return -1;
    }
    int code = sqlite3_step(statement);
    int result = code == SQLITE_DONE || code == SQLITE_ROW ? 0 : fail(store, error);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement); /* which point to what the caller has */
    return result;
}

sqlite3_stmt *gs_sql_query(gs_store *store, gp_error *error, const char *sql, const char *types, ...) {
    va_list values;
    va_start(values, types);
    sqlite3_stmt *statement = begin(store, error, sql, types, true, values);
    va_end(values);
    return statement;
}

int gs_sql_row(gs_store *store, sqlite3_stmt *statement, gp_error *error) {
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        return 1;
    }
    int result = code == SQLITE_DONE ? 0 : fail(store, error);
    sqlite3_reset(statement);
    return result;
}

int64_t gs_sql_last_id(gs_store *store) {
    return sqlite3_last_insert_rowid(store->db);
}

/* ---- trouble --------------------------------------------------------------------------------------- */

void gs_store_note(gs_store *store, gs_trouble kind, const char *what) {
    pthread_mutex_lock(&store->lock);
    char *noted = store->trouble[kind];
    bool changed = what ? strcmp(noted, what) != 0 : *noted;
    if (changed) {
        snprintf(noted, sizeof store->trouble[kind], "%s", what ? what : "");
        pthread_cond_signal(&store->arrived); /* from now on it looks whether that is over */
    }
    pthread_mutex_unlock(&store->lock);
    if (changed && what) {
        gs_log_event(store->log, GS_ERROR, "storage failed", GS_S("reason", what));
    } else if (changed) {
        gs_log_event(store->log, GS_INFO, "storage works again",
                     GS_S("what", kind == GS_TROUBLE_FILES ? "files" : "database"));
    }
}

void gs_store_report(gs_store *store, const gp_error *problem) {
    gs_store_note(store, GS_TROUBLE_FILES, problem ? problem->detail : NULL);
}

bool gs_store_trouble(gs_store *store, char *text, size_t size) {
    pthread_mutex_lock(&store->lock);
    const char *what = *store->trouble[0] ? store->trouble[0] : store->trouble[1];
    snprintf(text, size, "%s", what);
    bool troubled = *what;
    pthread_mutex_unlock(&store->lock);
    return troubled;
}

/* What the batch that ends has shown. */
static void note_database(gs_store *store) {
    gs_store_note(store, GS_TROUBLE_DATABASE, store->failure.problem ? store->failure.detail : NULL);
}

/* Has the trouble gone? The header of the database is written as it is. */
static void try_again(gs_store *store) {
    pthread_mutex_lock(&store->lock);
    bool database = *store->trouble[GS_TROUBLE_DATABASE], files = *store->trouble[GS_TROUBLE_FILES];
    pthread_mutex_unlock(&store->lock);
    if (files) {
        gs_files_try(store);
    }
    if (database) {
        store->failure = (gp_error){0};
        if (gs_sql(store, NULL, "BEGIN IMMEDIATE", "") ||
            gs_sql(store, NULL,
                   "INSERT INTO idempotency(key, fingerprint, status, media, etag, location, created_ms) "
                   "VALUES('', x'', 0, '', '', '', 0)",
                   "") ||
            gs_sql(store, NULL, "DELETE FROM idempotency WHERE key = ''", "") ||
            gs_sql(store, NULL, "COMMIT", "")) {
            sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
        }
        note_database(store);
    }
}

/* ---- tasks ----------------------------------------------------------------------------------------- */

/* End the queries that a task has left in the middle. */
static void reset_statements(gs_store *store) {
    for (size_t i = 0; i < store->statement_count; i++) {
        if (sqlite3_stmt_busy(store->statements[i].compiled)) {
            sqlite3_reset(store->statements[i].compiled);
        }
    }
}

/* Inside the batch's transaction. Some errors (a full disk) take back all of that, and not this task alone.
 */
static int run_task(gs_store *store, gs_store_task *task) {
    gp_error *error = &task->error;
    if (gs_sql(store, error, "SAVEPOINT task", "")) {
        return -1;
    }
    int result = task->run(store, task->argument, error);
    reset_statements(store);
    if (result && !error->problem) {
        gp_fail(error, GP_INTERNAL, "", "a task of the store failed without a reason");
    }
    if (sqlite3_get_autocommit(store->db)) {
        gp_fail(error, GP_STORAGE_FAILED, "", "the database has taken back a transaction");
        return -1;
    }
    if (result && gs_sql(store, error, "ROLLBACK TO task", "")) {
        return -1;
    }
    return gs_sql(store, error, "RELEASE task", "") || result ? -1 : 0;
}

static void finish(gs_store *store, gs_store_task *task) {
    if (task->done) {
        task->done(task, task->result); /* it may be gone now */
        task = NULL;
    }
    pthread_mutex_lock(&store->lock);
    store->completed++;
    if (task) {
        task->finished = true;
    }
    pthread_cond_broadcast(&store->finished);
    pthread_mutex_unlock(&store->lock);
}

static void run_batch(gs_store *store, gs_store_task *batch) {
    gp_error error = {0}; /* of the transaction */
    store->failure = (gp_error){0};
    bool open = !gs_sql(store, &error, "BEGIN IMMEDIATE", "");
    for (gs_store_task *task = batch; task && open; task = task->next) {
        task->result = run_task(store, task);
        open = !sqlite3_get_autocommit(store->db);
        if (!open) {
            error = task->error;
        }
    }
    if (open && gs_sql(store, &error, "COMMIT", "")) {
        open = false;
    }
    if (!sqlite3_get_autocommit(store->db)) {
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    }
    note_database(store);
    for (gs_store_task *task = batch, *next; task; task = next) {
        next = task->next;
        if (!open && !task->result) {
            task->error = error;
            task->result = -1;
        }
        finish(store, task);
    }
}

/* Under the lock: up to MAX_BATCH of the tasks that wait. */
static gs_store_task *take_batch(gs_store *store) {
    gs_store_task *first = store->head, *last = first;
    for (int i = 1; i < MAX_BATCH && last->next; i++) {
        last = last->next;
    }
    store->head = last->next;
    store->tail = store->head ? store->tail : &store->head;
    last->next = NULL;
    return first;
}

/* Under the lock: sleep until a task comes. @return false: it is time to see whether trouble is over */
static bool wait_for_tasks(gs_store *store) {
    while (!store->head && !store->ending) {
        if (!*store->trouble[0] && !*store->trouble[1]) {
            pthread_cond_wait(&store->arrived, &store->lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += TRY_SECONDS;
        if (pthread_cond_timedwait(&store->arrived, &store->lock, &until)) {
            return false;
        }
    }
    return true;
}

static void *work(void *argument) {
    gs_store *store = argument;
    pthread_mutex_lock(&store->lock);
    for (;;) {
        bool waited = wait_for_tasks(store);
        if (waited && !store->head) {
            break;
        }
        gs_store_task *batch = store->head ? take_batch(store) : NULL;
        pthread_mutex_unlock(&store->lock);
        if (batch) {
            run_batch(store, batch);
        } else {
            try_again(store);
        }
        pthread_mutex_lock(&store->lock);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

void gs_store_submit(gs_store *store, gs_store_task *task) {
    task->next = NULL;
    task->error = (gp_error){0};
    task->result = 0;
    task->finished = false;
    pthread_mutex_lock(&store->lock);
    *store->tail = task;
    store->tail = &task->next;
    store->submitted++;
    pthread_cond_signal(&store->arrived);
    pthread_mutex_unlock(&store->lock);
}

int gs_store_do(gs_store *store, int (*run)(gs_store *, void *, gp_error *), void *argument,
                gp_error *error) {
    gs_store_task task = {.run = run, .argument = argument};
    gs_store_submit(store, &task);
    pthread_mutex_lock(&store->lock);
    while (!task.finished) {
        pthread_cond_wait(&store->finished, &store->lock);
    }
    pthread_mutex_unlock(&store->lock);
    return task.result ? gp_fail(error, task.error.problem, task.error.pointer, "%s", task.error.detail) : 0;
}

void gs_store_drain(gs_store *store) {
    pthread_mutex_lock(&store->lock);
    for (uint64_t wanted = store->submitted; store->completed < wanted;) {
        pthread_cond_wait(&store->finished, &store->lock);
    }
    pthread_mutex_unlock(&store->lock);
}

/* ---- opening and closing ---------------------------------------------------------------------------- */

/* One connection, for ever: "exclusive" before WAL needs no shared memory, and no other process gets in.
 * FULL: what is committed is on the disk. */
static const char settings[] =
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
    "PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;"
    "PRAGMA trusted_schema = OFF; PRAGMA journal_size_limit = 67108864;";

static int open_database(gs_store *store, char *why, size_t size) {
    char path[PATH_MAX + 16] = ":memory:";
    if (!store->ephemeral) {
        snprintf(path, sizeof path, "%s/gradd.db", store->path);
        /* made here for its rights, which SQLite then gives to its other files */
        int fd = openat(store->fd, "gradd.db", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            close(fd);
        }
    }
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    if (sqlite3_open_v2(path, &store->db, flags, NULL)) {
        snprintf(why, size, "cannot open %s: %s", path,
                 store->db ? sqlite3_errmsg(store->db) : "out of memory");
        return -1;
    }
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_exec(store->db, settings, NULL, NULL, NULL); /* what fails here fails again in what follows */
    return gs_schema_update(store, why, size);
}

static void close_database(gs_store *store) {
    for (size_t i = 0; i < store->statement_count; i++) {
        sqlite3_finalize(store->statements[i].compiled);
    }
    free(store->statements);
    sqlite3_close(store->db); /* NULL is fine */
}

/* The store's thread takes no signals: they are the loop's. */
static int start_thread(gs_store *store, char *why, size_t size) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    store->started = !pthread_create(&store->thread, NULL, work, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!store->started) {
        snprintf(why, size, "cannot start a thread");
        return -1;
    }
    pthread_setname_np(store->thread, "store");
    return 0;
}

int gs_store_open(const char *folder, gs_log *log, gs_store **ret_store, char *why, size_t size) {
    gs_store *store = calloc(1, sizeof *store);
    if (!store) {
        snprintf(why, size, "out of memory");
        return -1;
    }
    store->log = log;
    store->fd = store->lock_fd = -1;
    for (int i = 0; i < GS_FOLDERS; i++) {
        store->folders[i] = -1;
    }
    store->tail = &store->head;
    pthread_mutex_init(&store->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->arrived, &monotonic);
    pthread_cond_init(&store->finished, NULL);
    pthread_condattr_destroy(&monotonic);
    if (gs_files_open(store, folder, why, size) || open_database(store, why, size) ||
        start_thread(store, why, size)) {
        gs_store_close(store);
        return -1;
    }
    *ret_store = store;
    return 0;
}

void gs_store_close(gs_store *store) {
    if (!store) {
        return;
    }
    if (store->started) {
        pthread_mutex_lock(&store->lock);
        store->ending = true;
        pthread_cond_signal(&store->arrived);
        pthread_mutex_unlock(&store->lock);
        pthread_join(store->thread, NULL);
    }
    close_database(store);
    gs_files_close(store);
    pthread_cond_destroy(&store->arrived);
    pthread_cond_destroy(&store->finished);
    pthread_mutex_destroy(&store->lock);
    free(store);
}
