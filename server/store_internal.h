/* store_internal.h -- what store.c, files.c and schema.c share. */
#ifndef GRADD_SERVER_STORE_INTERNAL_H
#define GRADD_SERVER_STORE_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "log.h"
#include "store.h"

typedef struct sqlite3 sqlite3;

/* A statement that was prepared once. */
typedef struct gs_statement {
    const char *sql; /* its address is the key */
    sqlite3_stmt *compiled;
} gs_statement;

typedef enum gs_trouble { GS_TROUBLE_DATABASE, GS_TROUBLE_FILES, GS_TROUBLES } gs_trouble;

struct gs_store {
    const gs_log *log;
    char path[PATH_MAX]; /* of the folder */
    bool ephemeral;
    int fd, lock_fd; /* the folder; the lock in it. -1: not open */
    int folders[GS_FOLDERS];
    atomic_uint file_count; /* for names of files that are being written */

    /* the store's thread alone */
    sqlite3 *db;
    gs_statement *statements;
    size_t statement_count, statement_capacity;
    gp_error failure; /* of the database, in the batch that runs */

    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t arrived, finished;
    gs_store_task *head, **tail;
    uint64_t submitted, completed;
    bool ending;
    char trouble[GS_TROUBLES][sizeof((gp_error *)0)->detail]; /* "": none */
};

/** Note what went wrong (NULL: it goes well), and log when that changes. Any thread. */
void gs_store_note(gs_store *store, gs_trouble kind, const char *what);

/** Make or find the folder (NULL: a temporary one) and what is in it, and take its lock. @return 0; -1: why
 */
int gs_files_open(gs_store *store, const char *folder, char *why, size_t size);
void gs_files_close(gs_store *store);
/** Can a file be written now? Tells by gs_store_trouble(). */
void gs_files_try(gs_store *store);

/** Bring the database to the newest schema. @return 0; -1: why */
int gs_schema_update(gs_store *store, char *why, size_t size);

#endif
