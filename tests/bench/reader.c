/* reader.c -- a job's events, followed over a thousand connections that break off anywhere. */
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/jobs.h"
#include "tests/http.h"
#include "tests/jobs.h"
#include "tests/support.h"

enum { DROPS = 1000, MOST = 6000 /* bytes before one breaks off */, STEPS = 20000, BUFFER = 65536 };

typedef struct reader {
    char last_id[32];
    int64_t step; /* the last one that was seen */
    bool ended, good;
    char buffer[BUFFER];
} reader;

static void take(reader *r, const char *event) {
    const char *id = strstr(event, "id: "), *data = strstr(event, "data: {\"step\":");
    if (id)
        snprintf(r->last_id, sizeof r->last_id, "%.*s", (int)strcspn(id + 4, "\n"), id + 4);
    if (strstr(event, "event: metrics")) {
        const int64_t step = data ? strtoll(data + 14, NULL, 10) : -1;
        r->good = r->good && step == r->step + 1;
        r->step = step;
    }
    r->ended = r->ended || strstr(event, "event: end");
}

/* Connect, read so many bytes or to the end, and go. @return whether an event was left in the middle */
static bool follow(const test_daemon *daemon, int id, reader *r, size_t most) {
    char request[256];
    size_t size = 0, all = 0;
    bool headed = false;
    int fd = test_connect(daemon->port);
    snprintf(request, sizeof request, "GET /v1/jobs/%d/events HTTP/1.0\r\nHost: 127.0.0.1\r\n%s%s%s\r\n", id,
             *r->last_id ? "Last-Event-ID: " : "", r->last_id, *r->last_id ? "\r\n" : "");
    test_send_text(fd, request);
    while (all < most && !r->ended && r->good) {
        const size_t room = BUFFER - 1 - size, left = most - all;
        const ssize_t got = recv(fd, r->buffer + size, left < room ? left : room, 0);
        if (got <= 0)
            break;
        all += (size_t)got;
        size += (size_t)got;
        r->buffer[size] = 0;
        char *at = r->buffer, *end = headed ? NULL : strstr(at, "\r\n\r\n");
        if (end) {
            headed = true;
            r->good = r->good && strstr(at, " 200 ");
            at = end + 4;
        }
        for (; headed && (end = strstr(at, "\n\n")); at = end + 2) {
            *end = 0;
            take(r, at);
        }
        size -= (size_t)(at - r->buffer);
        memmove(r->buffer, at, size);
    }
    close(fd);
    return size > 0;
}

static bool is_running(const test_daemon *daemon, int id) {
    json_t *job = test_job_show(daemon, id, "");
    const bool running = strcmp(test_text_of(job, "state"), "succeeded") != 0;
    json_decref(job);
    return running;
}

int bench_reader_run(const bench_plan *plan, bench_reader *ret_reader) {
    (void)plan;
    static reader r;
    static const char *const arguments[] = {"--log-level", "warning", NULL};
    test_daemon daemon;
    unsigned seed = 1;
    r = (reader){.good = true};
    *ret_reader = (bench_reader){.connections = 0};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_SMALL("followed"));
    const double begin = bench_now();
    int id = test_job_post(&daemon, "{'model': 'followed', 'dataset': 'digits', 'steps': 20000, "
                                    "'batch_size': 64, " TEST_SCALED "}");
    while (!r.ended && r.good && ret_reader->connections < 10 * DROPS) {
        seed = seed * 1103515245 + 12345;
        const bool last = ret_reader->connections >= DROPS;
        ret_reader->in_pieces += follow(&daemon, id, &r, last ? SIZE_MAX : 1 + (seed >> 16) % MOST);
        ret_reader->connections++;
        if (ret_reader->connections % 10 == 0 && is_running(&daemon, id))
            ret_reader->live = r.step;
    }
    ret_reader->seconds = bench_now() - begin;
    ret_reader->steps = r.step;
    test_daemon_stop(&daemon);
    if (!r.good || !r.ended || r.step != STEPS)
        return bench_complain("events", "a step was missing, or was there twice");
    return 0;
}
