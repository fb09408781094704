/* store_test.c -- the store by itself: transactions, group commit, files, the lock, refused databases, and
 * what happens when the disk fails. fsync(2) and fdatasync(2), here and in SQLite, are those below. */
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/log.h"
#include "server/store.h"
#include "tests/daemon.h"

/* ---- a disk that can fail --------------------------------------------------------------------------- */

static atomic_int syncs, fail_sync; /* how many were asked for; which one of them fails */

static int sync_or_fail(long call, int fd) {
    if (atomic_fetch_add(&syncs, 1) + 1 == atomic_load(&fail_sync)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}

__attribute__((visibility("default"))) int fsync(int fd) {
    return sync_or_fail(SYS_fsync, fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd) {
    return sync_or_fail(SYS_fdatasync, fd);
}

/* ---- a store in a folder of the test's own ------------------------------------------------------------ */

static gs_log quiet = {.level = GS_ERROR - 1};

typedef struct fixture {
    test_folder folder;
    char path[300]; /* below it, not made yet */
    gs_store *store;
} fixture;

static void reopen(fixture *f) {
    char why[512] = "";
    gs_store_close(f->store);
    f->store = NULL;
    if (gs_store_open(f->path, &quiet, &f->store, why, sizeof why)) {
        fail_msg("%s", why);
    }
}

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    test_folder_make(&f->folder);
    snprintf(f->path, sizeof f->path, "%s/state/gradd", f->folder.path);
    atomic_store(&fail_sync, 0);
    reopen(f);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    atomic_store(&fail_sync, 0);
    gs_store_close(f->store);
    test_folder_remove(&f->folder);
    free(f);
    return 0;
}

/* A model of this name; the table stands for any. */
static int insert(gs_store *store, void *argument, gp_error *error) {
    return gs_sql(store, error,
                  "INSERT INTO models(name, definition, seed, created_ms) VALUES(?, '{}', 1, 2)", "s",
                  (const char *)argument);
}

static int insert_twice(gs_store *store, void *argument, gp_error *error) {
    insert(store, argument, error);
    return insert(store, argument, error);
}

static int count(gs_store *store, void *argument, gp_error *error) {
    sqlite3_stmt *query = gs_sql_query(store, error, "SELECT count(*) FROM models", "");
    if (!query || gs_sql_row(store, query, error) != 1) {
        return -1;
    }
    *(int64_t *)argument = sqlite3_column_int64(query, 0);
    return 0; /* in the middle: the store ends the query */
}

static int64_t models(gs_store *store) {
    int64_t found = -1;
    gp_error error = {0};
    if (gs_store_do(store, count, &found, &error)) {
        fail_msg("%s", error.detail);
    }
    return found;
}

static void add(gs_store *store, const char *name) {
    gp_error error = {0};
    if (gs_store_do(store, insert, (void *)(uintptr_t)name, &error)) {
        fail_msg("%s", error.detail);
    }
}

/* ---- transactions ------------------------------------------------------------------------------------ */

static void what_is_committed_is_there_after_a_restart(void **state) {
    fixture *f = *state;
    add(f->store, "a");
    add(f->store, "b");
    reopen(f);
    assert_int_equal(models(f->store), 2);
}

static void a_task_is_done_once_it_is_on_the_disk(void **state) {
    fixture *f = *state;
    int before = atomic_load(&syncs);
    add(f->store, "a");
    assert_true(atomic_load(&syncs) > before);
    before = atomic_load(&syncs);
    models(f->store); /* reading costs none */
    assert_int_equal(atomic_load(&syncs), before);
}

static void a_failed_task_takes_back_what_it_did(void **state) {
    fixture *f = *state;
    gp_error error = {0};
    assert_int_equal(gs_store_do(f->store, insert_twice, "a", &error), -1);
    assert_int_equal(error.problem, GP_CONFLICT);
    assert_int_equal(models(f->store), 0);
    char text[256];
    assert_false(gs_store_trouble(f->store, text, sizeof text)); /* a constraint is no trouble */
}

/* Many tasks behind one that waits for them, so that they are one batch. */
enum { TASKS = 100 };

typedef struct crowd crowd;

typedef struct member {
    char name[16]; /* first: what insert() is given */
    crowd *crowd;
} member;

struct crowd {
    gs_store_task tasks[TASKS];
    member members[TASKS];
    atomic_int done, failed;
    atomic_bool go;
};

static int hold_up(gs_store *store, void *argument, gp_error *error) {
    (void)store;
    (void)error;
    while (!atomic_load((atomic_bool *)argument)) {
        usleep(100);
    }
    return 0;
}

static void count_done(gs_store_task *task, int result) {
    crowd *c = ((member *)task->argument)->crowd;
    atomic_fetch_add(&c->failed, result != 0);
    atomic_fetch_add(&c->done, 1);
}

/* @param bad the index of a task that fails, or -1 */
static void submit_crowd(fixture *f, crowd *c, int bad) {
    gs_store_task first = {.run = hold_up, .argument = &c->go};
    gs_store_submit(f->store, &first);
    for (int i = 0; i < TASKS; i++) {
        snprintf(c->members[i].name, sizeof c->members[i].name, "m%d", i);
        c->members[i].crowd = c;
        c->tasks[i] = (gs_store_task){
            .run = i == bad ? insert_twice : insert, .done = count_done, .argument = &c->members[i]};
        gs_store_submit(f->store, &c->tasks[i]);
    }
    atomic_store(&c->go, true);
    gs_store_drain(f->store);
    assert_int_equal(atomic_load(&c->done), TASKS);
}

static void tasks_that_wait_together_share_a_commit(void **state) {
    fixture *f = *state;
    crowd *c = calloc(1, sizeof *c);
    int before = atomic_load(&syncs);
    submit_crowd(f, c, -1);
    assert_true(atomic_load(&syncs) - before < TASKS / 10);
    assert_int_equal(atomic_load(&c->failed), 0);
    assert_int_equal(models(f->store), TASKS);
    free(c);
}

static void one_that_fails_in_a_crowd_fails_alone(void **state) {
    fixture *f = *state;
    crowd *c = calloc(1, sizeof *c);
    submit_crowd(f, c, 50);
    assert_int_equal(atomic_load(&c->failed), 1);
    assert_int_equal(c->tasks[50].result, -1);
    assert_int_equal(c->tasks[50].error.problem, GP_CONFLICT);
    assert_int_equal(models(f->store), TASKS - 1);
    free(c);
}

static void a_commit_that_fails_is_reported_and_taken_back(void **state) {
    fixture *f = *state;
    gp_error error = {0};
    char text[256] = "";
    atomic_store(&fail_sync, atomic_load(&syncs) + 1);
    assert_int_equal(gs_store_do(f->store, insert, "a", &error), -1);
    assert_int_equal(error.problem, GP_STORAGE_FAILED);
    assert_true(gs_store_trouble(f->store, text, sizeof text));
    assert_non_null(strstr(text, "the database"));
    add(f->store, "b"); /* the disk works again */
    assert_false(gs_store_trouble(f->store, text, sizeof text));
    reopen(f);
    assert_int_equal(models(f->store), 1);
}

static void trouble_ends_by_itself_when_the_disk_works_again(void **state) {
    fixture *f = *state;
    gp_error error = {0};
    char text[256] = "";
    atomic_store(&fail_sync, atomic_load(&syncs) + 1);
    assert_int_equal(gs_store_do(f->store, insert, "a", &error), -1);
    for (int i = 0; i < 100 && gs_store_trouble(f->store, text, sizeof text); i++) {
        usleep(100 * 1000);
    }
    assert_false(gs_store_trouble(f->store, text, sizeof text));
}

static int add_model_and_checkpoint(gs_store *store, void *argument, gp_error *error) {
    if (insert(store, argument, error)) {
        return -1;
    }
    int64_t id = gs_sql_last_id(store);
    return gs_sql(
               store, error,
               "INSERT INTO checkpoints(model, kind, step, version, metric, bytes, sha256, note, created_ms) "
               "VALUES(?, 'auto', 3, 4, ?, 5, 'x', ?, 6)",
               "ids", id, 0.5, "a note") ||
                   gs_sql(store, error,
                          "INSERT INTO metrics(model, first, last, max_step, rows) VALUES(?, 1, 2, 3, ?)",
                          "ib", id, "\0\1\2", (size_t)3)
               ? -1
               : 0;
}

static int delete_model(gs_store *store, void *argument, gp_error *error) {
    return gs_sql(store, error, "DELETE FROM models WHERE name = ?", "s", (const char *)argument);
}

static int look_for_rest(gs_store *store, void *argument, gp_error *error) {
    sqlite3_stmt *query = gs_sql_query(
        store, error, "SELECT (SELECT count(*) FROM checkpoints), (SELECT sum(length(rows)) FROM metrics)",
        "");
    if (!query || gs_sql_row(store, query, error) != 1) {
        return -1;
    }
    int64_t *found = argument;
    found[0] = sqlite3_column_int64(query, 0);
    found[1] = sqlite3_column_int64(query, 1);
    return gs_sql_row(store, query, error);
}

static void what_belongs_to_a_model_goes_with_it(void **state) {
    fixture *f = *state;
    int64_t found[2];
    gp_error error = {0};
    if (gs_store_do(f->store, add_model_and_checkpoint, "a", &error) ||
        gs_store_do(f->store, look_for_rest, found, &error)) {
        fail_msg("%s", error.detail);
    }
    assert_int_equal(found[0], 1);
    assert_int_equal(found[1], 3);
    assert_int_equal(gs_store_do(f->store, delete_model, "a", &error), 0);
    assert_int_equal(gs_store_do(f->store, look_for_rest, found, &error), 0);
    assert_int_equal(found[0], 0);
    assert_int_equal(found[1], 0);
}

/* ---- the folder -------------------------------------------------------------------------------------- */

static void folders_and_files_are_for_their_owner_alone(void **state) {
    fixture *f = *state;
    static const char *const names[] = {"", "/..", "/checkpoints", "/datasets", "/gradd.db", "/lock"};
    add(f->store, "a");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[400];
        struct stat status;
        snprintf(path, sizeof path, "%s%s", f->path, names[i]);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_mode & 0777, S_ISDIR(status.st_mode) ? 0700 : 0600);
    }
}

static void a_second_daemon_is_refused(void **state) {
    fixture *f = *state;
    gs_store *second = NULL;
    char why[512] = "", pid[64];
    assert_int_equal(gs_store_open(f->path, &quiet, &second, why, sizeof why), -1);
    assert_null(second);
    snprintf(pid, sizeof pid, "another gradd, process %ld, has ", (long)getpid());
    assert_non_null(strstr(why, pid));
    assert_non_null(strstr(why, "--data-dir"));
    add(f->store, "a"); /* the first one does not mind */
}

static void refused_with(fixture *f, const char *part) {
    char why[512] = "";
    gs_store_close(f->store);
    f->store = NULL;
    if (!gs_store_open(f->path, &quiet, &f->store, why, sizeof why) || !strstr(why, part)) {
        fail_msg("\"%s\" is not in: %s", part, why);
    }
}

static void change_database(fixture *f, const char *sql) {
    char path[400];
    sqlite3 *db;
    gs_store_close(f->store);
    f->store = NULL;
    snprintf(path, sizeof path, "%s/gradd.db", f->path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void a_newer_schema_is_refused(void **state) {
    change_database(*state, "PRAGMA user_version = 1000");
    refused_with(*state, "newer gradd (its schema is 1000");
}

static void another_programs_database_is_refused(void **state) {
    change_database(*state, "PRAGMA application_id = 17");
    refused_with(*state, "another program's");
}

/* Overwrite bytes of the database. */
static void damage(fixture *f, off_t offset, size_t size) {
    char path[400];
    char *garbage = malloc(size);
    gs_store_close(f->store);
    f->store = NULL;
    snprintf(path, sizeof path, "%s/gradd.db", f->path);
    int fd = open(path, O_WRONLY);
    memset(garbage, 0x5a, size);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, garbage, size, offset), size);
    close(fd);
    free(garbage);
}

static void a_file_that_is_no_database_is_refused(void **state) {
    damage(*state, 0, 100);
    refused_with(*state, "from a backup");
}

static void a_damaged_database_is_refused(void **state) {
    damage(*state, 4096 + 100, 4096 * 2);
    refused_with(*state, "from a backup");
}

static void an_ephemeral_store_leaves_nothing(void **state) {
    (void)state;
    gs_store *store = NULL;
    gs_file file;
    gp_error error = {0};
    char why[512] = "", path[64];
    assert_int_equal(gs_store_open(NULL, &quiet, &store, why, sizeof why), 0);
    add(store, "a");
    assert_int_equal(models(store), 1);
    assert_int_equal(gs_file_create(store, GS_FOLDER_DATASETS, 0, &file, &error), 0);
    assert_int_equal(gs_file_write(&file, "x", 1, &error), 0);
    assert_int_equal(gs_file_commit(&file, "1", &error), 0);
    char target[400] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", gs_store_folder(store, GS_FOLDER_DATASETS));
    assert_true(readlink(path, target, sizeof target - 1) > 0);
    assert_int_equal(access(target, F_OK), 0);
    gs_store_close(store);
    assert_int_equal(access(target, F_OK), -1);
    *strrchr(target, '/') = '\0';
    assert_int_equal(access(target, F_OK), -1);
}

/* ---- files --------------------------------------------------------------------------------------------- */

static int write_file(fixture *f, const char *name, const char *text, uint64_t expect, gp_error *error) {
    gs_file file;
    return gs_file_create(f->store, GS_FOLDER_CHECKPOINTS, expect, &file, error) ||
                   gs_file_write(&file, text, strlen(text), error) || gs_file_commit(&file, name, error)
               ? -1
               : 0;
}

static void expect_file(fixture *f, const char *name, const char *text) {
    const void *data;
    size_t size;
    gp_error error = {0};
    if (gs_file_map(f->store, GS_FOLDER_CHECKPOINTS, name, &data, &size, &error)) {
        fail_msg("%s: %s", name, error.detail);
    }
    assert_int_equal(size, strlen(text));
    assert_memory_equal(data, text, size);
    gs_file_unmap(data, size);
}

/* How many files there are. */
static bool count_file(void *argument, const char *name) {
    (void)name;
    ++*(int *)argument;
    return true;
}

static int files(fixture *f) {
    int found = 0;
    gs_store_sweep(f->store, GS_FOLDER_CHECKPOINTS, count_file, &found);
    return found;
}

static void a_file_is_there_once_it_is_committed(void **state) {
    fixture *f = *state;
    gs_file file;
    gp_error error = {0};
    assert_int_equal(gs_file_create(f->store, GS_FOLDER_CHECKPOINTS, 100, &file, &error), 0);
    assert_int_equal(gs_file_write(&file, "hello ", 6, &error), 0);
    assert_int_equal(gs_file_write(&file, "world", 5, &error), 0);
    int before = atomic_load(&syncs);
    assert_int_equal(gs_file_commit(&file, "1.safetensors", &error), 0);
    assert_int_equal(atomic_load(&syncs) - before, 2); /* the file, then the folder */
    expect_file(f, "1.safetensors", "hello world");    /* not the 100 bytes that were reserved */
    assert_int_equal(files(f), 1);
    gs_file_remove(f->store, GS_FOLDER_CHECKPOINTS, "1.safetensors");
    gs_file_remove(f->store, GS_FOLDER_CHECKPOINTS, "1.safetensors");
    const void *data;
    size_t size;
    assert_int_equal(gs_file_map(f->store, GS_FOLDER_CHECKPOINTS, "1.safetensors", &data, &size, &error), -1);
    assert_int_equal(error.problem, GP_NOT_FOUND);
}

static void an_empty_file_maps_to_nothing(void **state) {
    fixture *f = *state;
    assert_int_equal(write_file(f, "0", "", 0, NULL), 0);
    expect_file(f, "0", "");
}

/* The first fsync is the file's, the second one the folder's. */
static void an_fsync_that_fails_is_not_tried_again(void **state) {
    fixture *f = *state;
    char text[256] = "";
    assert_int_equal(write_file(f, "old", "old", 0, NULL), 0);
    for (int nth = 1; nth <= 2; nth++) {
        gp_error error = {0};
        int before = atomic_load(&syncs);
        atomic_store(&fail_sync, before + nth);
        assert_int_equal(write_file(f, "new", "new", 0, &error), -1);
        assert_int_equal(error.problem, GP_STORAGE_FAILED);
        assert_int_equal(atomic_load(&syncs) - before, nth);
        assert_int_equal(files(f), 1); /* nothing is left of it */
        expect_file(f, "old", "old");
        assert_true(gs_store_trouble(f->store, text, sizeof text));
    }
    assert_int_equal(write_file(f, "new", "new", 0, NULL), 0);
    assert_false(gs_store_trouble(f->store, text, sizeof text));
}

static void a_file_that_does_not_fit_fails_before_it_is_written(void **state) {
    fixture *f = *state;
    gs_file file;
    gp_error error = {0};
    char text[256] = "";
    assert_int_equal(gs_file_create(f->store, GS_FOLDER_CHECKPOINTS, UINT64_C(1) << 60, &file, &error), -1);
    assert_int_equal(error.problem, GP_STORAGE_FAILED);
    assert_int_equal(files(f), 0);
    assert_true(gs_store_trouble(f->store, text, sizeof text));
}

static bool keep_two(void *argument, const char *name) {
    (void)argument;
    return !strcmp(name, "2");
}

static void a_sweep_leaves_what_is_wanted(void **state) {
    fixture *f = *state;
    gs_file file; /* one that a crash left behind */
    assert_int_equal(gs_file_create(f->store, GS_FOLDER_CHECKPOINTS, 0, &file, NULL), 0);
    close(file.fd);
    assert_int_equal(write_file(f, "1", "one", 0, NULL), 0);
    assert_int_equal(write_file(f, "2", "two", 0, NULL), 0);
    assert_int_equal(files(f), 3);
    gs_store_sweep(f->store, GS_FOLDER_CHECKPOINTS, keep_two, NULL);
    assert_int_equal(files(f), 1);
    expect_file(f, "2", "two");
}

static void sha256_is_that_of_the_standard(void **state) {
    (void)state;
    char text[65];
    gs_sha256_hex("abc", 3, text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

int main(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_is_committed_is_there_after_a_restart),
        T(a_task_is_done_once_it_is_on_the_disk),
        T(a_failed_task_takes_back_what_it_did),
        T(tasks_that_wait_together_share_a_commit),
        T(one_that_fails_in_a_crowd_fails_alone),
        T(a_commit_that_fails_is_reported_and_taken_back),
        T(trouble_ends_by_itself_when_the_disk_works_again),
        T(what_belongs_to_a_model_goes_with_it),
        T(folders_and_files_are_for_their_owner_alone),
        T(a_second_daemon_is_refused),
        T(a_newer_schema_is_refused),
        T(another_programs_database_is_refused),
        T(a_file_that_is_no_database_is_refused),
        T(a_damaged_database_is_refused),
        cmocka_unit_test(an_ephemeral_store_leaves_nothing),
        T(a_file_is_there_once_it_is_committed),
        T(an_empty_file_maps_to_nothing),
        T(an_fsync_that_fails_is_not_tried_again),
        T(a_file_that_does_not_fit_fails_before_it_is_written),
        T(a_sweep_leaves_what_is_wanted),
        cmocka_unit_test(sha256_is_that_of_the_standard),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
