/* jobs_restart_test.c -- jobs over crashes and restarts, and who follows them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

/* ---- events
 * ------------------------------------------------------------------------------------------------------- */

typedef struct reader {
    char last_id[32];
    int step; /* the last that was seen */
    bool ended;
    char buffer[65536];
} reader;

/* One event: its lines. */
static void take_event(reader *r, char *event) {
    char *id = strstr(event, "id: "), *data = strstr(event, "data: ");
    if (id == event) {
        sscanf(id, "id: %31[0-9]", r->last_id);
    }
    if (strstr(event, "event: metrics")) {
        static const char begins[] = "data: {\"step\":";
        assert_non_null(data);
        assert_memory_equal(data, begins, sizeof begins - 1);
        const int step = (int)strtol(data + sizeof begins - 1, NULL, 10);
        if (step != r->step + 1) {
            fail_msg("step %d follows step %d", step, r->step);
        }
        r->step = step;
    }
    r->ended = r->ended || strstr(event, "event: end") != NULL;
}

/* Connect, read `most` events or to the end, and go. */
static void read_events(const test_daemon *daemon, int id, reader *r, int most) {
    char request[256];
    int fd = test_connect(daemon->port);
    snprintf(request, sizeof request, "GET /v1/jobs/%d/events HTTP/1.0\r\nHost: 127.0.0.1\r\n%s%s%s\r\n", id,
             *r->last_id ? "Last-Event-ID: " : "", r->last_id, *r->last_id ? "\r\n" : "");
    test_send_text(fd, request);
    size_t size = 0;
    bool headed = false;
    while (most > 0 && !r->ended) {
        ssize_t got = recv(fd, r->buffer + size, sizeof r->buffer - 1 - size, 0);
        if (got <= 0) {
            break;
        }
        size += (size_t)got;
        r->buffer[size] = '\0';
        char *at = r->buffer;
        if (!headed && strstr(at, "\r\n\r\n")) {
            headed = true;
            assert_non_null(strstr(at, "text/event-stream"));
            at = strstr(at, "\r\n\r\n") + 4;
        }
        for (char *end; headed && most > 0 && (end = strstr(at, "\n\n")); at = end + 2, most--) {
            *end = '\0';
            take_event(r, at);
        }
        size -= (size_t)(at - r->buffer);
        memmove(r->buffer, at, size);
    }
    close(fd);
}

static void a_reader_that_comes_and_goes_sees_every_step_once(void **state) {
    (void)state;
    test_job_model(&test_shared, TEST_SMALL("events"));
    int id = test_job_post(&test_shared,
                           "{'model': 'events', 'dataset': 'digits', 'steps': 3000, 'batch_size': 8, 'eval': "
                           "{'every_steps': 250}, " TEST_SCALED "}");
    reader r = {.step = 0};
    unsigned seed = 12345;
    int connections = 0;
    for (; !r.ended && connections < 5000; connections++) {
        seed = seed * 1103515245 + 12345;
        read_events(&test_shared, id, &r, 1 + (int)(seed >> 16) % 60);
    }
    assert_true(r.ended);
    assert_int_equal(r.step, 3000);
    assert_true(connections >= 60);
    /* the end again, to one who has it; all of it, to one who has nothing */
    reader again = {.step = 3000};
    memcpy(again.last_id, r.last_id, sizeof again.last_id);
    read_events(&test_shared, id, &again, 10);
    assert_true(again.ended);
    reader late = {.step = 0};
    read_events(&test_shared, id, &late, 1000000);
    assert_true(late.ended);
    assert_int_equal(late.step, 3000);
    test_expect(&test_shared, "GET", "/v1/jobs/99999/events", NULL, 404, "no job");
    test_expect(&test_shared, "GET", "/v1/jobs/1/events?last_event_id=x", NULL, 400, "last_event_id");
}

static void a_reader_sees_every_step_once_over_crashes(void **state) {
    (void)state;
    test_daemon daemon;
    test_folder folder;
    char data[512];
    test_folder_make(&folder);
    snprintf(data, sizeof data, "%s/data", folder.path);
    const char *const arguments[] = {"--data-dir", data, NULL};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_SMALL("m"));
    int id = test_job_post(
        &daemon, "{'model': 'm', 'dataset': 'digits', 'steps': 1500, 'batch_size': 16, 'checkpoint': "
                 "{'every_steps': 100}}");
    reader r = {.step = 0};
    for (int i = 0; i < 3 && !r.ended; i++) {
        read_events(&daemon, id, &r, 300); /* past the last checkpoint */
        (i == 1 ? test_daemon_stop : test_daemon_kill)(&daemon);
        test_daemon_start(&daemon, arguments);
    }
    for (int i = 0; i < 20 && !r.ended; i++) {
        read_events(&daemon, id, &r, 100000);
    }
    assert_true(r.ended);
    assert_int_equal(r.step, 1500);
    test_daemon_stop(&daemon);
    test_folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_daemon_goes_on_with_the_same_bits),
        cmocka_unit_test(a_stopped_daemon_goes_on_with_the_same_bits),
        cmocka_unit_test(what_was_asked_outlives_a_crash),
        cmocka_unit_test(a_reader_that_comes_and_goes_sees_every_step_once),
        cmocka_unit_test(a_reader_sees_every_step_once_over_crashes),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
