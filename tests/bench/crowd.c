/* crowd.c -- clients that poll while a job trains: a quarter each the job, what is new of its metrics, its
 * model, and Prometheus' page. */
#include <errno.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/jobs.h"
#include "tests/http.h"
#include "tests/jobs.h"
#include "tests/support.h"

enum { ROUNDS = 11, ROOM = 1 << 20 /* for a reply */, ANSWERS = 1 << 20, PATIENCE = 5 /* seconds */ };

/** Requests a second of all clients together. */
static const double paces[BENCH_PACES] = {500, 4000};

typedef struct client {
    int fd, kind;      /* which of the paths it asks for */
    uint64_t cursor;   /* of its last look at the metrics */
    double due, asked; /* asked: 0 while it waits for nothing */
    size_t size;       /* of the reply so far */
    char *reply;
} client;

typedef struct crowd {
    int epoll, job;
    client clients[BENCH_CLIENTS];
    double *times; /* of answers, ms */
    int answers;
} crowd;

/* ---- one client -------------------------------------------------------------------------------------- */

static int ask(crowd *c, client *one, double now) {
    char path[96], request[192];
    switch (one->kind) {
    case 0:
        snprintf(path, sizeof path, "/v1/jobs/%d", c->job);
        break;
    case 1:
        snprintf(path, sizeof path, "/v1/models/busy/metrics?since=%llu", (unsigned long long)one->cursor);
        break;
    case 2:
        snprintf(path, sizeof path, "/v1/models/busy");
        break;
    default:
        snprintf(path, sizeof path, "/metrics");
    }
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
    one->asked = now;
    one->size = 0;
    return send(one->fd, request, (size_t)size, MSG_NOSIGNAL) == size
               ? 0
               : bench_complain("crowd", strerror(errno));
}

/* Is the reply whole? With a length, or in chunks, of which an empty one is the last. -1: it is no good */
static int is_whole(const client *one) {
    const char *body = strstr(one->reply, "\r\n\r\n");
    if (!body)
        return 0;
    if (strncmp(one->reply, "HTTP/1.1 200", 12) != 0)
        return bench_complain("crowd", one->reply);
    const char *length = strcasestr(one->reply, "\r\nContent-Length:");
    if (length && length < body)
        return one->size >= (size_t)(body + 4 - one->reply) + strtoul(length + 17, NULL, 10);
    return one->size >= 5 && memcmp(one->reply + one->size - 5, "0\r\n\r\n", 5) == 0;
}

/* @return 1: it has its answer; 0: not yet; -1: it failed */
static int hear(client *one) {
    const ssize_t got = recv(one->fd, one->reply + one->size, ROOM - 1 - one->size, 0);
    if (got <= 0)
        return bench_complain("crowd", got ? strerror(errno) : "the daemon closed a connection");
    one->size += (size_t)got;
    one->reply[one->size] = 0;
    const int whole = is_whole(one);
    const char *cursor = whole > 0 ? strstr(one->reply, "{\"cursor\":") : NULL;
    if (cursor)
        one->cursor = strtoull(cursor + 10, NULL, 10);
    return whole;
}

/* ---- all of them ------------------------------------------------------------------------------------- */

/* Those that are due ask. @return seconds until the next one is */
static double ask_due(crowd *c, double now, double interval) {
    double next = interval;
    for (int i = 0; i < BENCH_CLIENTS; i++) {
        client *one = &c->clients[i];
        if (!one->asked && one->due <= now) {
            one->due = one->due + interval > now ? one->due + interval : now + interval;
            if (ask(c, one, now))
                return -1;
        }
        next = !one->asked && one->due - now < next ? one->due - now : next;
    }
    return next;
}

/* Let them poll for some seconds, and then hear the answers that are on their way. @return 0; -1 */
static int let_poll(crowd *c, double seconds, double pace) {
    struct epoll_event events[BENCH_CLIENTS];
    const double begin = bench_now(), interval = BENCH_CLIENTS / pace;
    int waiting = 0;
    for (int i = 0; i < BENCH_CLIENTS; i++)
        c->clients[i].due = begin + interval * i / BENCH_CLIENTS;
    double now = begin;
    while (now - begin < seconds || waiting) {
        double next = now - begin < seconds ? ask_due(c, now, interval) : 0.1;
        if (next < 0 || now - begin > seconds + PATIENCE)
            return bench_complain("crowd", "an answer does not come");
        int ready = epoll_wait(c->epoll, events, BENCH_CLIENTS, (int)(1e3 * next) + 1);
        for (int i = 0; i < ready; i++) {
            client *one = events[i].data.ptr;
            const int heard = hear(one);
            if (heard < 0)
                return -1;
            if (heard && c->answers < ANSWERS)
                c->times[c->answers++] = 1e3 * (bench_now() - one->asked);
            one->asked = heard ? 0 : one->asked;
        }
        waiting = 0;
        for (int i = 0; i < BENCH_CLIENTS; i++)
            waiting += c->clients[i].asked > 0;
        now = bench_now();
    }
    return 0;
}

static void gather(crowd *c, const test_daemon *daemon, int job) {
    *c = (crowd){.epoll = epoll_create1(EPOLL_CLOEXEC), .job = job};
    c->times = calloc(ANSWERS, sizeof *c->times);
    assert_non_null(c->times);
    json_t *body = test_job_call(daemon, "GET", "/v1/models/busy/metrics?keys=loss&max_points=1", NULL, 200);
    const uint64_t cursor = (uint64_t)test_number_of(body, "cursor");
    json_decref(body);
    for (int i = 0; i < BENCH_CLIENTS; i++) {
        client *one = &c->clients[i];
        *one = (client){
            .fd = test_connect(daemon->port), .kind = i % 4, .cursor = cursor, .reply = malloc(ROOM)};
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
        assert_non_null(one->reply);
        assert_int_equal(epoll_ctl(c->epoll, EPOLL_CTL_ADD, one->fd, &event), 0);
    }
}

static void disperse(crowd *c) {
    for (int i = 0; i < BENCH_CLIENTS; i++) {
        close(c->clients[i].fd);
        free(c->clients[i].reply);
    }
    close(c->epoll);
    free(c->times);
}

/* ---- the measure --------------------------------------------------------------------------------------- */

static double step_of(const test_daemon *daemon, int job) {
    json_t *shown = test_job_show(daemon, job, "");
    const double step = test_number_of(shown, "step");
    json_decref(shown);
    return step;
}

/* The job's steps a second while they poll at this pace; 0: while they do not. Negative: a poll failed. */
static double speed(crowd *c, const test_daemon *daemon, double pace, double seconds) {
    const double before = step_of(daemon, c->job), begin = bench_now();
    if (!pace)
        usleep((useconds_t)(1e6 * seconds));
    else if (let_poll(c, seconds, pace))
        return -1;
    const double now = bench_now();
    return (step_of(daemon, c->job) - before) / (now - begin);
}

/* In each round at each pace, before and after it the job alone. */
static int measure(crowd *c, const test_daemon *daemon, double seconds, bench_crowd *ret_crowd) {
    double alone[ROUNDS * BENCH_PACES], share[BENCH_PACES][ROUNDS], *times = c->times,
                                                                    took[BENCH_PACES] = {0};
    int counts[BENCH_PACES] = {0};
    double *kept[BENCH_PACES] = {times, times + ANSWERS / BENCH_PACES};
    double before = speed(c, daemon, 0, seconds);
    for (int round = -1; round < ROUNDS; round++) { /* the first is to warm up */
        const int to = round < 0 ? 0 : round;
        for (int pace = 0; pace < BENCH_PACES; pace++) {
            counts[pace] = to ? counts[pace] : 0;
            took[pace] = to ? took[pace] : 0;
            c->times = kept[pace] + counts[pace];
            c->answers = 0;
            const double begin = bench_now(), steps = speed(c, daemon, paces[pace], seconds);
            took[pace] += bench_now() - begin;
            counts[pace] += c->answers;
            const double after = speed(c, daemon, 0, seconds);
            if (steps < 0 || after <= 0 || before <= 0)
                return -1;
            share[pace][to] = 2 * steps / (before + after);
            alone[to * BENCH_PACES + pace] = before = after;
        }
    }
    c->times = times;
    ret_crowd->alone = bench_median(alone, ROUNDS * BENCH_PACES);
    for (int pace = 0; pace < BENCH_PACES; pace++) {
        bench_pace *p = &ret_crowd->paces[pace];
        *p = (bench_pace){.asked = paces[pace],
                          .answered = counts[pace] / took[pace],
                          .p50_ms = bench_median(kept[pace], counts[pace]),
                          .share = bench_median(share[pace], ROUNDS)};
        p->p99_ms = kept[pace][(int)(0.99 * (counts[pace] - 1))];
        p->worst_ms = kept[pace][counts[pace] - 1];
    }
    return 0;
}

int bench_crowd_run(const bench_plan *plan, bench_crowd *ret_crowd) {
    static crowd c;
    char threads[16];
    const char *const arguments[] = {"--threads", threads, "--log-level", "warning", NULL};
    test_daemon daemon;
    snprintf(threads, sizeof threads, "%d", plan->cores);
    *ret_crowd = (bench_crowd){.alone = 0};
    test_daemon_start(&daemon, arguments);
    test_job_model(&daemon, TEST_LENET("busy"));
    int job = test_job_post(&daemon, "{'model': 'busy', 'dataset': 'digits', 'epochs': 100000, "
                                     "'batch_size': 64, " TEST_PADDED "}");
    test_job_wait_for_step(&daemon, job, 100);
    gather(&c, &daemon, job);
    int result = measure(&c, &daemon, plan->seconds > 2 ? 1 : 0.5, ret_crowd);
    disperse(&c);
    test_job_act(&daemon, job, "cancel", 202, "cancel");
    test_job_wait(&daemon, job, "cancelled");
    test_daemon_stop(&daemon);
    return result;
}
