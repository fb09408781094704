/* events_test.c -- who follows a job: every step once, in order, whatever happens to the reader, its
 * connection or the daemon. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/http.h"
#include "tests/jobs.h"
#include "tests/support.h"

typedef struct reader {
    int fd;
    char last_id[32];
    int step;  /* the last that was seen */
    int beats; /* comments that say that the daemon is alive */
    bool paused, ended;
    bool headed; /* the reply's head has been read */
    size_t size; /* of buffer: what has not been taken */
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
    r->beats += !strcmp(event, ": alive");
    r->paused = r->paused || strstr(event, "\"state\":\"paused\"");
    r->ended = r->ended || strstr(event, "event: end");
}

/* Ask for the events on a connection that is open. */
static void ask_events(int fd, int id, reader *r) {
    char request[256];
    r->fd = fd;
    r->headed = false;
    r->size = 0;
    r->buffer[0] = '\0';
    snprintf(request, sizeof request, "GET /v1/jobs/%d/events HTTP/1.0\r\nHost: 127.0.0.1\r\n%s%s%s\r\n", id,
             *r->last_id ? "Last-Event-ID: " : "", r->last_id, *r->last_id ? "\r\n" : "");
    test_send_text(r->fd, request);
}

static void open_events(const test_daemon *daemon, int id, reader *r) {
    ask_events(test_connect(daemon->port), id, r);
}

/* Read `most` events, or to the end. @return false: the connection has ended before */
static bool take_events(reader *r, int most) {
    for (;;) {
        char *at = r->buffer;
        if (!r->headed && strstr(at, "\r\n\r\n")) {
            r->headed = true;
            assert_non_null(strstr(at, "text/event-stream"));
            at = strstr(at, "\r\n\r\n") + 4;
        }
        for (char *end; r->headed && most > 0 && (end = strstr(at, "\n\n")); at = end + 2, most--) {
            *end = '\0';
            take_event(r, at);
        }
        r->size -= (size_t)(at - r->buffer);
        memmove(r->buffer, at, r->size + 1);
        if (most <= 0 || r->ended) {
            return true;
        }
        ssize_t got = recv(r->fd, r->buffer + r->size, sizeof r->buffer - 1 - r->size, 0);
        if (got <= 0) {
            return false;
        }
        r->size += (size_t)got;
        r->buffer[r->size] = '\0';
    }
}

/* Connect, read `most` events or to the end, and go. */
static void read_events(const test_daemon *daemon, int id, reader *r, int most) {
    open_events(daemon, id, r);
    take_events(r, most);
    close(r->fd);
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

/* The job stands further than the checkpoint that it will go on from, and its reader has come before that. */
static void a_reader_of_a_paused_job_misses_no_step_that_is_taken_again(void **state) {
    (void)state;
    test_daemon daemon;
    test_folder folder;
    char data[512], path[512];
    test_folder_make(&folder);
    snprintf(data, sizeof data, "%s/data", folder.path);
    const char *const arguments[] = {"--data-dir", data, NULL};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_SMALL("m"));
    int id = test_job_post(&daemon, "{'model': 'm', 'dataset': 'digits', 'epochs': 1000000, 'checkpoint': "
                                    "{'every_steps': 1000000}, " TEST_SCALED "}");
    test_job_wait_for_step(&daemon, id, 25); /* its only checkpoint is the one that it has begun with */
    test_job_act(&daemon, id, "pause", 202, "pausing");
    test_job_wait(&daemon, id, "paused");
    json_t *list = test_job_call(&daemon, "GET", "/v1/models/m/checkpoints?limit=1", NULL, 200);
    const json_t *newest = json_array_get(json_object_get(list, "items"), 0);
    const int stood = (int)test_number_of(newest, "step");
    snprintf(path, sizeof path, "%s/checkpoints/%d.safetensors", data, (int)test_number_of(newest, "id"));
    json_decref(list);
    test_daemon_kill(&daemon);
    assert_int_equal(unlink(path), 0);
    test_daemon_start(&daemon, arguments);
    reader r = {.step = 0};
    open_events(&daemon, id, &r);
    while (!r.paused) {
        assert_true(take_events(&r, 1));
    }
    assert_true(r.step < stood);
    test_job_act(&daemon, id, "resume", 202, "queued");
    while (r.step < stood + 100) {
        assert_true(take_events(&r, 1));
    }
    test_job_act(&daemon, id, "cancel", 202, "cancelling");
    assert_true(take_events(&r, 1000000));
    assert_true(r.ended);
    close(r.fd);
    test_daemon_stop(&daemon);
    test_folder_remove(&folder);
}

/* A crash may come between the commit of an end and that of the events that tell of it. */
static void an_end_that_was_not_told_before_a_crash_is_told_after_it(void **state) {
    (void)state;
    test_daemon daemon;
    test_folder folder;
    char data[512], path[530];
    sqlite3 *database;
    test_folder_make(&folder);
    snprintf(data, sizeof data, "%s/data", folder.path);
    const char *const arguments[] = {"--data-dir", data, NULL};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_SMALL("m"));
    int id = test_job_post(&daemon, "{'model': 'm', 'dataset': 'digits', 'steps': 20, " TEST_SCALED "}");
    test_job_wait(&daemon, id, "succeeded");
    test_daemon_stop(&daemon);
    snprintf(path, sizeof path, "%s/gradd.db", data);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(database, "DELETE FROM job_events WHERE data LIKE '%succeeded%'", NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_changes(database), 2);
    sqlite3_close(database);
    test_daemon_start(&daemon, arguments);
    reader r = {.step = 0};
    read_events(&daemon, id, &r, 1000000);
    assert_true(r.ended);
    assert_int_equal(r.step, 20);
    assert_string_equal(r.last_id, "20002");
    test_daemon_stop(&daemon);
    test_folder_remove(&folder);
}

/* ---- silence, and readers that are slow ------------------------------------------------------------------
 */

static void a_reader_of_a_job_that_rests_hears_that_it_is_alive(void **state) {
    (void)state;
    test_job_model(&test_shared, TEST_SMALL("rests"));
    int id = test_job_post(&test_shared,
                           "{'model': 'rests', 'dataset': 'digits', 'epochs': 1000000, " TEST_SCALED "}");
    test_job_wait_for_step(&test_shared, id, 5);
    test_job_act(&test_shared, id, "pause", 202, "pausing");
    test_job_wait(&test_shared, id, "paused");
    reader r = {.step = 0};
    open_events(&test_shared, id, &r);
    while (!r.beats) {
        assert_true(take_events(&r, 1));
    }
    assert_true(r.paused && r.step >= 5);
    const int rested = r.step;
    test_job_act(&test_shared, id, "resume", 202, "queued"); /* and it is still followed */
    while (r.step < rested + 5) {
        assert_true(take_events(&r, 1));
    }
    test_job_act(&test_shared, id, "cancel", 202, "cancelling");
    assert_true(take_events(&r, 1000000));
    close(r.fd);
}

/* More events than the kernel keeps for a connection. */
enum { MANY_STEPS = 20000, READERS = 24, MIB = 1 << 20 };

static int post_many_steps(const test_daemon *daemon) {
    char json[256];
    test_job_model(daemon,
                   "{'name': 'm', 'input': {'shape': [28, 28]}, 'layers': [{'type': 'flatten'}, {'type': "
                   "'Linear', 'out_features': 10}], 'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': "
                   "{'type': 'SGD', 'lr': 0.001}}");
    snprintf(json, sizeof json,
             "{'model': 'm', 'dataset': 'digits', 'steps': %d, 'batch_size': 1, " TEST_SCALED "}",
             MANY_STEPS);
    return test_job_post(daemon, json);
}

/* One that takes little at a time, and nothing for now. */
static void open_slowly(const test_daemon *daemon, int id, reader *r) {
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)daemon->port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int least = 1; /* the kernel makes it a few thousand */
    const struct timeval patience = {.tv_sec = 30};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof least), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    ask_events(fd, id, r);
}

/* Resident memory of the daemon, in bytes. */
static size_t memory_of(const test_daemon *daemon) {
    char path[64], line[128];
    snprintf(path, sizeof path, "/proc/%d/statm", (int)daemon->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file));
    fclose(file);
    return strtoul(strchr(line, ' '), NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

/* To the end; where the connection was cut off, on another one. */
static void read_rest(const test_daemon *daemon, int id, reader *r) {
    bool cut = !take_events(r, 1000000);
    close(r->fd);
    for (int i = 0; cut && !r->ended && i < 100; i++) {
        read_events(daemon, id, r, 1000000);
    }
    assert_true(r->ended);
    assert_int_equal(r->step, MANY_STEPS);
}

static void readers_that_do_not_read_hold_up_nothing(void **state) {
    (void)state;
    static reader readers[READERS];
    test_daemon daemon;
    test_daemon_start(&daemon, NULL);
    int id = post_many_steps(&daemon);
    for (int i = 0; i < READERS; i++) {
        open_slowly(&daemon, id, &readers[i]);
    }
    const size_t before = memory_of(&daemon);
    test_job_wait(&daemon, id, "succeeded");
    size_t after = memory_of(&daemon);
    for (int i = 0; i < READERS; i++) {
        read_rest(&daemon, id, &readers[i]);
        after = memory_of(&daemon) > after ? memory_of(&daemon) : after;
    }
    const char *build = getenv("BUILD_DIR");
    if (!strstr(build, "san") && after > before + 24 * MIB) { /* the events are 4 MiB for each of them */
        fail_msg("the daemon has grown from %zu to %zu MiB", before / MIB, after / MIB);
    }
    test_daemon_stop(&daemon);
}

static void a_reader_that_reads_nothing_for_long_is_cut_off_and_goes_on(void **state) {
    (void)state;
    test_daemon daemon;
    char path[300];
    bool cut = false;
    test_daemon_start(&daemon, (const char *const[]){"--request-timeout", "0.5", NULL});
    int id = post_many_steps(&daemon);
    reader r = {.step = 0};
    open_slowly(&daemon, id, &r);
    snprintf(path, sizeof path, "%s/log", daemon.folder.path);
    for (int i = 0; !cut && i < 6000; i++) {
        usleep(10000);
        char *log = test_read_file(path, NULL);
        cut = strstr(log, "taken too slowly");
        free(log);
    }
    assert_true(cut);
    assert_false(take_events(&r, 1000000));
    assert_false(r.ended);
    assert_true(r.step < MANY_STEPS);
    close(r.fd);
    open_events(&daemon, id, &r);
    read_rest(&daemon, id, &r);
    test_daemon_stop(&daemon);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_that_comes_and_goes_sees_every_step_once),
        cmocka_unit_test(a_reader_sees_every_step_once_over_crashes),
        cmocka_unit_test(a_reader_of_a_paused_job_misses_no_step_that_is_taken_again),
        cmocka_unit_test(an_end_that_was_not_told_before_a_crash_is_told_after_it),
        cmocka_unit_test(a_reader_of_a_job_that_rests_hears_that_it_is_alive),
        cmocka_unit_test(readers_that_do_not_read_hold_up_nothing),
        cmocka_unit_test(a_reader_that_reads_nothing_for_long_is_cut_off_and_goes_on),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
