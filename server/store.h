/* store.h -- what outlives the process: a SQLite database, and files beside it, in one folder. One thread,
 * the store's, owns the database; everybody else hands it tasks.
 *
 * Tasks run in the order they came. Those that wait together are committed together: a transaction, and one
 * fsync, for all of them; a task that fails takes back what it did, and only that (a savepoint). A task is
 * done once its transaction is on the disk. */
#ifndef GRADD_SERVER_STORE_H
#define GRADD_SERVER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/gradd_codec.h"

typedef struct gs_log gs_log;
typedef struct gs_store gs_store;
typedef struct sqlite3_stmt sqlite3_stmt;

/** Something to do on the store's thread. The submitter owns it, and keeps it where it is until `done` has
 *  been called, or gs_store_do() has returned. */
typedef struct gs_store_task {
    struct gs_store_task *next; /* the store's */
    /** Inside a transaction; statements by gs_sql(). @return 0; -1 with *error filled in: taken back */
    int (*run)(gs_store *store, void *argument, gp_error *error);
    /** On the store's thread, after the commit (result 0) or after what failed (-1, task->error); the task
     *  may be freed or submitted again. NULL: gs_store_do() waits for it. */
    void (*done)(struct gs_store_task *task, int result);
    void *argument;
    gp_error error;
    int result;
    bool finished; /* the store's */
} gs_store_task;

/**
 * Open, or make, the folder and its database; take its lock; bring the schema up to date; start the thread.
 *
 * @param folder NULL: nothing outlives the process: a database in memory, files in a new folder under TMPDIR
 *               that is removed by gs_store_close()
 * @param why    for the user: names the folder's trouble ("another gradd, process 123, has this folder")
 * @return 0; -1
 */
int gs_store_open(const char *folder, gs_log *log, gs_store **ret_store, char *why, size_t size);
/** Ends when all tasks are done. NULL is fine. */
void gs_store_close(gs_store *store);

/** Hand over a task. Any thread. */
void gs_store_submit(gs_store *store, gs_store_task *task);
/** The same, and wait for it: @return 0; -1 with *error filled in. Any thread but the store's and the loop's.
 */
int gs_store_do(gs_store *store, int (*run)(gs_store *, void *, gp_error *), void *argument, gp_error *error);
/** Wait until every task handed over so far is done. Any thread but the store's. */
void gs_store_drain(gs_store *store);

/** What went wrong last and has not gone well since, with the database or with files: one sentence into text.
 *  While there is trouble the store tries by itself, every other second, whether it is over.
 *  @return false: all is well. Any thread. */
bool gs_store_trouble(gs_store *store, char *text, size_t size);
/** Note trouble with files (problem: what), or that it is over (NULL). Any thread; gs_file_...() does so. */
void gs_store_report(gs_store *store, const gp_error *problem);

/* ---- statements: on the store's thread alone ----------------------------------------------------------- */

/**
 * Run a statement that answers nothing. It is prepared once and kept, by the address of its text.
 *
 * @param types one letter for each "?": i int64_t, d double, s const char * (NULL: null), b const void * and
 *              size_t (NULL: null), n (nothing: null)
 * @return 0; -1: *error says what: GP_CONFLICT when it is against a constraint, else GP_STORAGE_FAILED
 */
int gs_sql(gs_store *store, gp_error *error, const char *sql, const char *types, ...);
/** Begin one that answers rows: step it with gs_sql_row(), read it with sqlite3_column_...(), and go on until
 *  that returns 0, or end it early with sqlite3_reset(). NULL: it failed. */
sqlite3_stmt *gs_sql_query(gs_store *store, gp_error *error, const char *sql, const char *types, ...);
/** @return 1: a row; 0: no more; -1 with *error filled in */
int gs_sql_row(gs_store *store, sqlite3_stmt *statement, gp_error *error);
/** The id of the row that the last INSERT made. */
int64_t gs_sql_last_id(gs_store *store);

/* ---- files: by any thread ------------------------------------------------------------------------------ */

typedef enum gs_folder { GS_FOLDER_CHECKPOINTS, GS_FOLDER_DATASETS, GS_FOLDERS } gs_folder;

/** The descriptor of a folder, for openat(2) and its kind. The store's. */
int gs_store_folder(const gs_store *store, gs_folder folder);

/** A file that is being written: under a name that means nothing, until gs_file_commit(). */
typedef struct gs_file {
    gs_store *store;
    gs_folder folder;
    int fd; /* -1: none */
    char temporary[64];
    uint64_t size;
} gs_file;

/** Each of these fails with GP_STORAGE_FAILED, and leaves nothing to be abandoned.
 *  @param expect bytes that will come, reserved at once so that a full disk shows early; 0: not known */
int gs_file_create(gs_store *store, gs_folder folder, uint64_t expect, gs_file *ret_file, gp_error *error);
int gs_file_write(gs_file *file, const void *bytes, size_t size, gp_error *error);
/** fsync, close, rename to `name`, fsync the folder. On failure the file is gone. */
int gs_file_commit(gs_file *file, const char *name, gp_error *error);
/** Close and unlink one that is not committed; nothing when that has been done. */
void gs_file_abandon(gs_file *file);
/** A file's bytes, mapped read-only; size 0 gives data NULL. @return 0; -1: GP_NOT_FOUND, GP_STORAGE_FAILED
 */
int gs_file_map(const gs_store *store, gs_folder folder, const char *name, const void **ret_data,
                size_t *ret_size, gp_error *error);
void gs_file_unmap(const void *data, size_t size);
/** Remove a file; that it is not there is fine. */
void gs_file_remove(const gs_store *store, gs_folder folder, const char *name);
/** 64 hexadecimal digits and a NUL. */
void gs_sha256_hex(const void *data, size_t size, char text[65]);

/** Remove the files of a folder that `keep` does not want, such as what a crash left. At start. */
void gs_store_sweep(gs_store *store, gs_folder folder, bool (*keep)(void *argument, const char *name),
                    void *argument);

#endif
