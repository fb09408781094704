/* jobs_restart_test.c -- jobs over crashes and restarts, and from checkpoints that are damaged. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/damage.h"
#include "tests/http.h"
#include "tests/jobs.h"
#include "tests/support.h"

/* ---- crashes
 * -------------------------------------------------------------------------------------------------- */

#define LONG_JOB \
    "'dataset': 'digits', 'epochs': 4, 'batch_size': 64, 'seed': 9, 'eval': {'every_steps': 60}, " \
    "'scheduler': " \
    "{'type': 'StepLR', 'step_size': 1, 'gamma': 0.7, 'interval': 'epoch'}, 'checkpoint': {'every_steps': " \
    "25, 'keep': 2}, " \
    "'transform': " \
    "{'scale': 0.00392156863, 'shift': 2, 'flip': 0.5}}"

/* How a job ends that nobody disturbs. */
static void run_undisturbed(test_daemon *daemon) {
    test_daemon_start(daemon, NULL);
    test_job_model(daemon, TEST_SMALL("m"));
    test_job_wait(daemon, test_job_post(daemon, "{'model': 'm', " LONG_JOB), "succeeded");
}

static void disturb(void (*end)(test_daemon *), const int *steps, size_t count) {
    test_daemon straight, daemon;
    test_folder folder;
    char data[512];
    run_undisturbed(&straight);
    test_folder_make(&folder);
    snprintf(data, sizeof data, "%s/data", folder.path);
    const char *const arguments[] = {"--data-dir", data, NULL};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_SMALL("m"));
    int id = test_job_post(&daemon, "{'model': 'm', " LONG_JOB);
    for (size_t i = 0; i < count; i++) {
        test_job_wait_for_step(&daemon, id, steps[i]);
        end(&daemon);
        test_daemon_start(&daemon, arguments);
    }
    json_t *job = test_job_wait_for(&daemon, id, "succeeded");
    assert_int_equal(test_number_of(job, "step"), 628);
    json_decref(job);
    test_same_training(&straight, "m", &daemon, "m");
    end(&daemon); /* and what has ended is still there */
    test_daemon_start(&daemon, arguments);
    test_job_wait(&daemon, id, "succeeded");
    test_same_training(&straight, "m", &daemon, "m");
    test_daemon_stop(&daemon);
    test_daemon_stop(&straight);
    test_folder_remove(&folder);
}

static void a_killed_daemon_goes_on_with_the_same_bits(void **state) {
    (void)state;
    disturb(test_daemon_kill, (const int[]){1, 70, 170, 480}, 4);
}

static void a_stopped_daemon_goes_on_with_the_same_bits(void **state) {
    (void)state;
    disturb(test_daemon_stop, (const int[]){30, 200, 400}, 3);
}

static void what_was_asked_outlives_a_crash(void **state) {
    (void)state;
    test_daemon daemon;
    test_folder folder;
    char data[512];
    test_folder_make(&folder);
    snprintf(data, sizeof data, "%s/data", folder.path);
    const char *const arguments[] = {"--data-dir", data, "--max-jobs", "1", NULL};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_SMALL("m"));
    test_job_model(&daemon, TEST_SMALL("n"));
    int paused = test_job_post(&daemon, "{'model': 'm', 'dataset': 'digits', 'epochs': 1000}");
    test_job_wait_for_step(&daemon, paused, 20);
    test_job_act(&daemon, paused, "pause", 202, "pausing");
    test_job_wait(&daemon, paused, "paused");
    int running = test_job_post(&daemon, "{'model': 'n', 'dataset': 'digits', 'epochs': 1000}");
    int queued = test_job_post(&daemon, "{'model': 'n', 'dataset': 'digits', 'steps': 3}");
    test_job_wait_for_step(&daemon, running, 5);
    test_daemon_kill(&daemon);
    test_daemon_start(&daemon, arguments);
    json_t *job = test_job_show(&daemon, paused, "");
    assert_string_equal(test_text_of(job, "state"), "paused");
    const double step = test_number_of(job, "step");
    assert_true(step >= 20);
    json_decref(job);
    job = test_job_show(&daemon, queued, "");
    assert_string_equal(test_text_of(job, "state"), "queued");
    json_decref(job);
    test_job_wait(&daemon, running, "running");
    test_job_act(&daemon, running, "cancel", 202, "cancelling");
    test_daemon_kill(&daemon);
    test_daemon_start(&daemon, arguments);
    test_job_wait(&daemon, running, "cancelled");
    test_job_wait(&daemon, queued, "succeeded");
    test_job_act(&daemon, paused, "resume", 202, "queued");
    test_job_wait_for_step(&daemon, paused, (int)step + 5);
    test_job_act(&daemon, paused, "cancel", 202, "cancelling");
    test_job_wait(&daemon, paused, "cancelled");
    assert_int_equal(test_job_post(&daemon, "{'model': 'n', 'dataset': 'digits', 'steps': 3}"), queued + 1);
    test_daemon_stop(&daemon);
    test_folder_remove(&folder);
}

/* ---- checkpoints that are damaged --------------------------------------------------------------------- */

/* One that goes on for as long as it is needed. `length` is its end. */
#define ENDLESS_JOB(length) \
    "{'model': 'm', 'dataset': 'digits', " length ", 'batch_size': 64, 'seed': 9, 'scheduler': {'type': " \
    "'StepLR', 'step_size': 4, 'interval': 'epoch'}, 'checkpoint': {'every_steps': 25, 'keep': 2}, " \
    "'transform': {'scale': 0.00392156863, 'shift': 2, 'flip': 0.5}}"

/* Wait until the store has one of this step, or a later one. */
static void wait_for_checkpoint(const test_daemon *daemon, int id, int step) {
    for (int i = 0; i < 60000; i++) {
        json_t *job = test_job_show(daemon, id, "");
        const bool there = test_number_of(job, "checkpoint_step") >= step;
        json_decref(job);
        if (there) {
            return;
        }
        usleep(1000);
    }
    fail_msg("there is no checkpoint of step %d", step);
}

/* The newest checkpoint in the database of a daemon that is gone. @param path its file, 512 bytes
 * @return its step */
static int newest_checkpoint(const char *data, char *path) {
    sqlite3 *database;
    sqlite3_stmt *row;
    snprintf(path, 512, "%s/gradd.db", data);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(database, "SELECT id, step FROM checkpoints ORDER BY id DESC LIMIT 1",
                                        -1, &row, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    snprintf(path, 512, "%s/checkpoints/%d.safetensors", data, sqlite3_column_int(row, 0));
    const int step = sqlite3_column_int(row, 1);
    sqlite3_finalize(row);
    sqlite3_close(database);
    return step;
}

/* Wait until the job's events have this. */
static void wait_for_event(const test_daemon *daemon, int id, const char *part) {
    static char buffer[1 << 16];
    size_t size = 0, read = 0;
    char request[128];
    int fd = test_connect(daemon->port);
    snprintf(request, sizeof request, "GET /v1/jobs/%d/events HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", id);
    test_send_text(fd, request);
    do {
        const size_t kept = size < 1024 ? size : 1024; /* it may come in two pieces */
        memmove(buffer, buffer + size - kept, kept);
        const ssize_t got = recv(fd, buffer + kept, sizeof buffer - 1 - kept, 0);
        read += (size_t)got;
        if (got <= 0 || read > 1 << 26) {
            fail_msg("job %d does not say: %s", id, part);
        }
        size = kept + (size_t)got;
        buffer[size] = '\0';
    } while (!strstr(buffer, part));
    close(fd);
}

static void a_job_goes_on_from_the_checkpoint_before_a_damaged_one(void **state) {
    (void)state;
    test_daemon straight, daemon;
    test_folder folder;
    char data[512], path[512], says[128], json[1024];
    int step = 0;
    test_folder_make(&folder);
    snprintf(data, sizeof data, "%s/data", folder.path);
    const char *const arguments[] = {"--data-dir", data, NULL};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_SMALL("m"));
    int id = test_job_post(&daemon, ENDLESS_JOB("'epochs': 1000000"));
    for (size_t i = 0; i < test_damage_count; i++) {
        wait_for_checkpoint(&daemon, id, step + 50);
        (i % 2 ? test_daemon_stop : test_daemon_kill)(&daemon);
        step = newest_checkpoint(data, path);
        test_damages[i].apply(path);
        test_daemon_start(&daemon, arguments);
        snprintf(says, sizeof says, "the checkpoint of step %d is damaged: the one before it was taken",
                 step);
        wait_for_event(&daemon, id, says);
        test_daemon_expect_log(&daemon, "checkpoint damaged");
        test_expect(&daemon, "GET", "/v1/models/m/checkpoints", NULL, 200, "\"damaged\":true");
    }
    test_job_wait_for_step(&daemon, id, step + 1);
    test_job_act(&daemon, id, "cancel", 202, "cancelling");
    json_t *job = test_job_wait_for(&daemon, id, "cancelled");
    snprintf(json, sizeof json, ENDLESS_JOB("'steps': %d"), (int)test_number_of(job, "step"));
    json_decref(job);
    test_daemon_start(&straight, NULL);
    test_job_model(&straight, TEST_SMALL("m"));
    test_job_wait(&straight, test_job_post(&straight, json), "succeeded");
    test_same_training(&straight, "m", &daemon, "m");
    test_daemon_kill(&daemon);
    test_daemon_start(&daemon, arguments);
    test_same_training(&straight, "m", &daemon, "m");
    test_daemon_stop(&daemon);
    test_daemon_stop(&straight);
    test_folder_remove(&folder);
}

static void a_job_without_any_whole_checkpoint_fails_and_nothing_else(void **state) {
    (void)state;
    test_daemon straight, daemon;
    test_folder folder;
    char data[512], checkpoints[530];
    test_folder_make(&folder);
    snprintf(data, sizeof data, "%s/data", folder.path);
    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", data);
    const char *const arguments[] = {"--data-dir", data, NULL};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_SMALL("m"));
    int id = test_job_post(&daemon, ENDLESS_JOB("'epochs': 1000000"));
    wait_for_checkpoint(&daemon, id, 50);
    test_daemon_kill(&daemon);
    assert_true(test_damage_all(checkpoints) >= 2);
    for (int i = 0; i < 2; i++) { /* and so it stays */
        test_daemon_start(&daemon, arguments);
        json_t *job = test_job_wait_for(&daemon, id, "failed");
        assert_non_null(
            strstr(test_text_of(json_object_get(job, "error"), "detail"), "no checkpoint of it is whole"));
        json_decref(job);
        wait_for_event(&daemon, id, "no checkpoint of it is whole");
        test_expect(&daemon, "GET", "/v1/health/ready", NULL, 200, "");
        test_expect(&daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":0,"); /* as it was defined */
        (i ? test_daemon_stop : test_daemon_kill)(&daemon);
    }
    run_undisturbed(&straight);
    test_daemon_start(&daemon, arguments); /* what is left is good for another one */
    test_job_wait(&daemon, test_job_post(&daemon, "{'model': 'm', " LONG_JOB), "succeeded");
    test_same_training(&straight, "m", &daemon, "m");
    test_daemon_stop(&straight);
    test_daemon_stop(&daemon);
    test_folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_daemon_goes_on_with_the_same_bits),
        cmocka_unit_test(a_stopped_daemon_goes_on_with_the_same_bits),
        cmocka_unit_test(what_was_asked_outlives_a_crash),
        cmocka_unit_test(a_job_goes_on_from_the_checkpoint_before_a_damaged_one),
        cmocka_unit_test(a_job_without_any_whole_checkpoint_fails_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
