/* daemon.h -- for tests that run programs: the daemon in the background, others to their end. The
 * programs come from $BUILD_DIR. Whatever goes wrong in here fails the test that called it. */
#ifndef GRADD_TESTS_DAEMON_H
#define GRADD_TESTS_DAEMON_H

#include <sys/types.h>

/** A folder of the test's own. */
typedef struct test_folder {
    char path[256];
} test_folder;

void test_folder_make(test_folder *folder);
/** Delete it with all that is in it. */
void test_folder_remove(const test_folder *folder);
/** Write a file into it. @param path where it is then: 512 bytes */
void test_folder_write(const test_folder *folder, const char *name, const void *data, size_t size,
                       char *path);

/** A daemon on a loopback port that the kernel chose. */
typedef struct test_daemon {
    pid_t pid;
    char server[64]; /* "http://127.0.0.1:40123" */
    int port;
    test_folder folder; /* its log: "log" */
} test_daemon;

/** Start it and wait until it is ready. @param arguments more of them, ends with NULL; or NULL. Unless
 *  --data-dir is one of them it is ephemeral. */
void test_daemon_start(test_daemon *daemon, const char *const *arguments);
/** SIGTERM, and it must end with exit status 0. */
void test_daemon_stop(test_daemon *daemon);
/** The same. @return its log, for free() */
char *test_daemon_end(test_daemon *daemon);
/** Its log has this. */
void test_daemon_expect_log(const test_daemon *daemon, const char *part);
/** SIGKILL: as if the machine had lost its power. */
void test_daemon_kill(test_daemon *daemon);

/** One daemon for all tests of a program, with no more arguments: for cmocka_run_group_tests(). */
extern test_daemon test_shared;
int test_shared_start(void **state);
int test_shared_stop(void **state);

/** What a program said. Release with test_output_release(). */
typedef struct test_output {
    int status; /* exit status; 128 + signal */
    char *out, *err;
} test_output;

/** Run a program to its end. @param arguments [0] is its path, ends with NULL
 *  @param environment "NAME=value" to be added, ends with NULL; or NULL */
void test_run(const char *const *arguments, const char *const *environment, test_output *ret_output);
void test_output_release(test_output *output);
/** Start a program without waiting; its output goes to the folder's "out" and "err". */
pid_t test_start(const char *const *arguments, const char *const *environment, const test_folder *folder);
/** Wait for its end. @return exit status; 128 + signal */
int test_wait(pid_t pid);
/** "$BUILD_DIR/name" into path of 512 bytes; returns path. */
const char *test_program(const char *name, char *path);

#endif
