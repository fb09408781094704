/* history.c -- what it takes to look at a million steps. */
#include <unistd.h>

#include "tests/bench/jobs.h"
#include "tests/http.h"
#include "tests/jobs.h"
#include "tests/support.h"

enum { STEPS = 1000000, NEWS = 100 /* steps that a poll finds */, ROWS = 999, FEATURES = 4 };

/* Numbers without a meaning, as npy: what counts is that a step is small. */
static void upload(const test_daemon *daemon, const char *part, const char *dtype, const char *shape,
                   const void *values, size_t size) {
    char header[129], path[64], *body = malloc(128 + size);
    test_reply reply;
    assert_non_null(body);
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", dtype, shape);
    memcpy(body, "\x93NUMPY\x01\x00\x76\x00", 10);
    snprintf(body + 10, 118, "%-117s", header);
    body[127] = '\n';
    memcpy(body + 128, values, size);
    snprintf(path, sizeof path, "/v1/datasets/tiny/train/%s", part);
    int fd = test_connect(daemon->port);
    test_request(fd, "PUT", path, "", body, 128 + size, &reply);
    close(fd);
    if (reply.status != 201)
        fail_msg("%s", reply.body);
    test_reply_release(&reply);
    free(body);
}

static void upload_tiny(const test_daemon *daemon) {
    float input[ROWS * FEATURES];
    int64_t target[ROWS];
    for (int i = 0; i < ROWS; i++) {
        target[i] = i % 3;
        for (int f = 0; f < FEATURES; f++)
            input[i * FEATURES + f] = (float)((i * 7919 + f * 104729) % 1000) / 500 - 1;
    }
    upload(daemon, "input", "<f4", "(999, 4)", input, sizeof input);
    upload(daemon, "target", "<i8", "(999,)", target, sizeof target);
}

static void train(const test_daemon *daemon, int steps) {
    char json[160];
    snprintf(json, sizeof json, "{'model': 'long', 'dataset': 'tiny', 'steps': %d, 'batch_size': 1}", steps);
    test_job_wait(daemon, test_job_post(daemon, json), "succeeded");
}

/* A number of /metrics, by the name before it. */
static double gauge(const test_daemon *daemon, const char *name) {
    test_reply reply;
    char line[96];
    test_call(daemon, "GET", "/metrics", NULL, 200, &reply);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(reply.body, line);
    double value = at ? strtod(at + strlen(line), NULL) : 0;
    test_reply_release(&reply);
    return value;
}

static void ask(int fd, const char *path, int rounds, bench_query *query) {
    double *times = calloc((size_t)rounds, sizeof *times);
    assert_non_null(times);
    for (int i = -3; i < rounds; i++) {
        test_reply reply;
        const double begin = bench_now();
        test_request(fd, "GET", path, "", NULL, 0, &reply);
        times[i < 0 ? 0 : i] = 1e3 * (bench_now() - begin);
        assert_int_equal(reply.status, 200);
        query->bytes = reply.size;
        test_reply_release(&reply);
    }
    query->p50_ms = bench_median(times, rounds); /* sorts them */
    query->p99_ms = times[(int)(0.99 * (rounds - 1))];
    free(times);
}

int bench_history_run(const bench_plan *plan, bench_history *ret_history) {
    char news[96], nothing[96], threads[16];
    const char *const paths[BENCH_QUERIES] = {news, nothing, "/v1/models/long/metrics?max_points=1000"};
    static const char *const names[BENCH_QUERIES] = {"since, 100 new steps", "since, nothing new",
                                                     "all in 1000 buckets"};
    const char *const arguments[] = {"--threads", threads, "--log-level", "warning", NULL};
    test_daemon daemon;
    snprintf(threads, sizeof threads, "%d", plan->cores);
    test_daemon_start(&daemon, arguments);
    test_create_small(&daemon, "long");
    upload_tiny(&daemon);
    train(&daemon, 1000);
    const double before = gauge(&daemon, "process_resident_memory_bytes"), begin = bench_now();
    train(&daemon, STEPS - 1000 - NEWS);
    *ret_history = (bench_history){.steps = STEPS, .seconds = bench_now() - begin};
    for (int i = 0; i < 2; i++) {
        json_t *body =
            test_job_call(&daemon, "GET", "/v1/models/long/metrics?keys=loss&max_points=1", NULL, 200);
        snprintf(i ? nothing : news, sizeof news, "/v1/models/long/metrics?since=%.0f",
                 test_number_of(body, "cursor"));
        json_decref(body);
        if (!i)
            train(&daemon, NEWS);
    }
    ret_history->memory = gauge(&daemon, "gradd_memory_bytes{kind=\"history\"}");
    ret_history->grown = gauge(&daemon, "process_resident_memory_bytes") - before;
    int fd = test_connect(daemon.port);
    for (int i = 0; i < BENCH_QUERIES; i++) {
        ret_history->queries[i].name = names[i];
        ask(fd, paths[i], plan->seconds > 2 ? 500 : 200, &ret_history->queries[i]);
    }
    close(fd);
    test_daemon_stop(&daemon);
    return 0;
}
