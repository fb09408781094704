/* loop.c -- libuv around http.c's epoll descriptor. */
#include "loop.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "checkpoints.h"
#include "executor.h"
#include "http.h"
#include "jobs.h"
#include "server.h"

enum {
    SWEEP_MS = 500,
    STORE_MS = 200,       /* how often metrics are stored, and models looked at that may have to be */
    LAST_WORDS_MS = 5000, /* for what runs past --drain-timeout */
    LINGER_US = 200,      /* how long to look out for what follows before going to sleep */
    MAX_ROUNDS = 16,      /* of that, before timers and signals have their turn */
    FORCED = 3
};

struct gs_loop {
    gs_server *server;
    uv_loop_t uv;
    uv_poll_t poll;   /* http's descriptor */
    uv_idle_t again;  /* http wants to be called at once */
    uv_timer_t later; /* http wants to be called then */
    uv_timer_t sweep;
    uv_timer_t store;
    uv_timer_t deadline; /* of draining */
    uv_async_t done;
    uv_signal_t signals[2];
    bool late; /* --drain-timeout has passed */
};

static void force(gs_loop *loop, const char *why) {
    gs_log_event(&loop->server->log, GS_WARNING, "stopped by force", GS_S("reason", why));
    _exit(FORCED); /* compute threads still run: there is no order to stop in */
}

static void stop_when_drained(gs_loop *loop) {
    gs_http *http = loop->server->http;
    if (!loop->server->draining || gs_http_queued(http)) {
        return;
    }
    if (gs_jobs_working(loop->server->jobs) && !loop->late) {
        return; /* they take their last checkpoints */
    }
    if (loop->late || !gs_http_active(http)) {
        uv_stop(&loop->uv);
    }
}

static void on_later(uv_timer_t *timer);
static void on_again(uv_idle_t *idle);

/* Is there something to read, now or within a moment? Going to sleep and waking up takes longer than a client
 * that has its answer takes to ask again, or to send the next piece of a body. Whoever computes meanwhile has
 * the processor instead. */
static bool more_follows(const gs_loop *loop) {
    struct pollfd wanted = {.fd = gs_http_fd(loop->server->http), .events = POLLIN};
    const int64_t until = gs_executor_is_busy(&loop->server->executor) ? 0 : gs_clock_us() + LINGER_US;
    int found = poll(&wanted, 1, 0);
    while (!found && gs_clock_us() < until) {
        sched_yield(); /* the client may have to wait for this very processor */
        found = poll(&wanted, 1, 0);
    }
    return found > 0;
}

/* Let http do what there is to do, and arrange for the next time. */
static void drive(gs_loop *loop) {
    gs_http *http = loop->server->http;
    uint64_t cues = gs_http_cues(http);
    int timeout = gs_http_drive(http);
    for (int round = 0; round < MAX_ROUNDS && timeout != 0 && gs_http_cues(http) != cues &&
                        gs_http_active(http) <= 1 && more_follows(loop);
         round++) {
        cues = gs_http_cues(http);
        timeout = gs_http_drive(http);
    }
    if (timeout == 0) {
        uv_idle_start(&loop->again, on_again);
    } else {
        uv_idle_stop(&loop->again);
    }
    if (timeout > 0) {
        uv_timer_start(&loop->later, on_later, (uint64_t)timeout, 0);
    } else {
        uv_timer_stop(&loop->later);
    }
    stop_when_drained(loop);
}

static void on_later(uv_timer_t *timer) {
    drive(timer->data);
}

static void on_again(uv_idle_t *idle) {
    drive(idle->data);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    (void)status;
    (void)events;
    drive(poll->data);
}

static void on_done(uv_async_t *async) {
    gs_loop *loop = async->data;
    gs_http_resume(loop->server->http, gs_executor_take_done(&loop->server->executor));
    gs_http_resume_streams(loop->server->http);
    drive(loop);
}

static void on_sweep(uv_timer_t *timer) {
    gs_loop *loop = timer->data;
    gs_http_sweep(loop->server->http, loop->late);
    gs_jobs_tick(loop->server->jobs);
    drive(loop);
}

static void on_store(uv_timer_t *timer) {
    gs_loop *loop = timer->data;
    gs_metrics_tick(loop->server);
    gs_autosave_tick(loop->server);
}

static void on_deadline(uv_timer_t *timer) {
    gs_loop *loop = timer->data;
    if (loop->late) {
        force(loop, "requests still run after --drain-timeout");
    }
    loop->late = true;
    gs_log_event(&loop->server->log, GS_WARNING, "drain timeout",
                 GS_I("requests", gs_http_active(loop->server->http)),
                 GS_I("jobs", gs_jobs_working(loop->server->jobs)));
    gs_http_sweep(loop->server->http, true);
    uv_timer_start(&loop->deadline, on_deadline, LAST_WORDS_MS, 0);
    drive(loop);
}

static void on_signal(uv_signal_t *handle, int number) {
    gs_loop *loop = handle->data;
    gs_server *server = loop->server;
    if (server->draining) {
        force(loop, "a second signal");
    }
    server->draining = true;
    gs_log_event(&server->log, GS_INFO, "draining", GS_S("signal", number == SIGTERM ? "SIGTERM" : "SIGINT"),
                 GS_I("requests", gs_http_active(server->http)));
    gs_jobs_drain(server->jobs);
    gs_http_quiesce(server->http);
    uv_timer_start(&loop->deadline, on_deadline, (uint64_t)(server->config.drain_timeout * 1000), 0);
    drive(loop);
}

gs_loop *gs_loop_new(gs_server *server) {
    gs_loop *loop = calloc(1, sizeof *loop);
    if (!loop || uv_loop_init(&loop->uv)) {
        free(loop);
        return NULL;
    }
    loop->server = server;
    uv_idle_init(&loop->uv, &loop->again);
    uv_timer_init(&loop->uv, &loop->later);
    uv_timer_init(&loop->uv, &loop->sweep);
    uv_timer_init(&loop->uv, &loop->store);
    uv_timer_init(&loop->uv, &loop->deadline);
    loop->again.data = loop->later.data = loop->sweep.data = loop->store.data = loop->deadline.data = loop;
    for (int i = 0; i < 2; i++) {
        uv_signal_init(&loop->uv, &loop->signals[i]);
        loop->signals[i].data = loop;
    }
    if (uv_async_init(&loop->uv, &loop->done, on_done)) {
        gs_loop_free(loop);
        return NULL;
    }
    loop->done.data = loop;
    return loop;
}

void gs_loop_wake(void *argument) {
    gs_loop *loop = argument;
    uv_async_send(&loop->done);
}

int gs_loop_run(gs_loop *loop) {
    if (uv_poll_init(&loop->uv, &loop->poll, gs_http_fd(loop->server->http))) {
        return -1;
    }
    loop->poll.data = loop;
    if (uv_poll_start(&loop->poll, UV_READABLE, on_readable) ||
        uv_timer_start(&loop->sweep, on_sweep, SWEEP_MS, SWEEP_MS) ||
        uv_timer_start(&loop->store, on_store, STORE_MS, STORE_MS) ||
        uv_signal_start(&loop->signals[0], on_signal, SIGTERM) ||
        uv_signal_start(&loop->signals[1], on_signal, SIGINT)) {
        return -1;
    }
    drive(loop);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    return 0;
}

static void close_handle(uv_handle_t *handle, void *argument) {
    (void)argument;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void gs_loop_free(gs_loop *loop) {
    if (loop) {
        uv_walk(&loop->uv, close_handle, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
        uv_loop_close(&loop->uv);
        free(loop);
    }
}
