/* retry_test.c -- libgradd and a real daemon, with a proxy between that loses replies: whatever
 * state-changing call it is, it is done once. */
#include "tests/support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clients/c/gradd.h"
#include "tests/daemon.h"

/* Passes bytes on both ways; while `losses` is over 0 it hangs up in place of the reply's first bytes. */
typedef struct proxy {
    int listener;
    int port, daemon_port;
    atomic_int losses, lost;
    pthread_t thread;
    gradd_client *client;
} proxy;

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* @return false: one of them has hung up */
static bool pass_on(int from, int to) {
    char bytes[1 << 16];
    ssize_t got = recv(from, bytes, sizeof bytes, 0);
    return got > 0 && send(to, bytes, (size_t)got, MSG_NOSIGNAL) == got;
}

static void serve_one(proxy *p, int client) {
    struct sockaddr_in address = loopback(p->daemon_port);
    int daemon = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool more = connect(daemon, (struct sockaddr *)&address, sizeof address) == 0;
    while (more) {
        struct pollfd fds[] = {{.fd = client, .events = POLLIN}, {.fd = daemon, .events = POLLIN}};
        more = poll(fds, 2, -1) > 0;
        if (more && fds[0].revents) {
            more = pass_on(client, daemon);
        }
        if (more && fds[1].revents && atomic_load(&p->losses) > 0) { /* the daemon has done it */
            atomic_fetch_sub(&p->losses, 1);
            atomic_fetch_add(&p->lost, 1);
            more = false;
        } else if (more && fds[1].revents) {
            more = pass_on(daemon, client);
        }
    }
    close(daemon);
    close(client);
}

static void *serve(void *argument) {
    proxy *p = argument;
    int client;
    while ((client = accept(p->listener, NULL, NULL)) >= 0) {
        serve_one(p, client);
    }
    return NULL;
}

static int set_up(void **state) {
    static proxy p;
    char server[64];
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    test_shared_start(state);
    p.daemon_port = test_shared.port;
    p.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p.listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(p.listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(listen(p.listener, 8), 0);
    assert_int_equal(pthread_create(&p.thread, NULL, serve, &p), 0);
    snprintf(server, sizeof server, "http://127.0.0.1:%d", ntohs(address.sin_port));
    const gradd_config config = {.server = server, .retries = 5};
    assert_int_equal(gradd_client_new(&config, &p.client, NULL), GRADD_OK);
    *state = &p;
    return 0;
}

static int tear_down(void **state) {
    proxy *p = *state;
    gradd_client_free(p->client);
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listener);
    return test_shared_stop(state);
}

/* The next `count` replies get lost; all of them were, and the call succeeded. */
#define losing(p, count, call) \
    losing_(p, (atomic_store(&(p)->losses, count), call), count, &error, __FILE__, __LINE__)
static void losing_(proxy *p, int code, int count, const gradd_error *error, const char *file, int line) {
    if (code || atomic_exchange(&p->lost, 0) != count || atomic_load(&p->losses)) {
        print_error("%d %s: %s\n", code, code ? error->problem : "", code ? error->message : "");
        _fail(file, line);
    }
}

static const char definition[] =
    "{\"name\": \"m\", \"seed\": 0, \"input\": {\"shape\": [3]},"
    " \"layers\": [{\"type\": \"Linear\", \"name\": \"fc\", \"out_features\": 2}],"
    " \"loss\": {\"type\": \"CrossEntropyLoss\"},"
    " \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.1, \"momentum\": 0.9},"
    " \"scheduler\": {\"type\": \"StepLR\", \"step_size\": 1, \"interval\": \"epoch\"}}";
static const gradd_tensor input = {
    .dtype = GRADD_FLOAT32, .rank = 2, .shape = {2, 3}, .data = (float[]){1, 2, 3, -1, 0, 1}};
static const gradd_tensor target = {.dtype = GRADD_INT64, .rank = 1, .shape = {2}, .data = (int64_t[]){0, 1}};

static int64_t step_of(gradd_client *client, char etag[GRADD_MAX_ETAG]) {
    gradd_model_info info;
    gradd_error error;
    assert_int_equal(gradd_model_show(client, "m", &info, &error), GRADD_OK);
    const int64_t step = info.step;
    memcpy(etag, info.etag, GRADD_MAX_ETAG);
    gradd_model_info_free(&info);
    return step;
}

static void a_call_whose_replies_got_lost_is_done_once(void **state) {
    proxy *p = *state;
    gradd_client *c = p->client;
    gradd_error error;
    gradd_step_result result;
    gradd_model_info info;
    char etag[GRADD_MAX_ETAG], *json = NULL;
    losing(p, 2, gradd_model_create(c, definition, &info, &error));
    assert_string_equal(info.name, "m");
    gradd_model_info_free(&info);
    for (int i = 1; i <= 5; i++) {
        losing(p, i % 3, gradd_model_train_step(c, "m", &input, &target, NULL, &result, &error));
        assert_int_equal(result.step, i);
        assert_int_equal(step_of(c, etag), i);
    }
    losing(p, 1, gradd_model_forward_backward(c, "m", &input, &target, NULL, &result, &error));
    const double norm = result.grad_norm;
    losing(p, 1, gradd_model_step(c, "m", NULL, &result, &error));
    assert_int_equal(result.step, 6);
    assert_true(norm > 0);
    gradd_schedule_result schedule;
    losing(p, 1, gradd_model_scheduler_step(c, "m", NULL, &schedule, &error));
    assert_int_equal(schedule.epoch, 1);
    losing(p, 1, gradd_model_metrics_add(c, "m", "{\"values\": {\"mine\": 1}}", NULL, &json, &error));
    gradd_free(json);
    const gradd_option mine[] = {{"keys", "mine"}, {NULL, NULL}};
    losing(p, 0, gradd_model_metrics(c, "m", mine, &json, &error));
    assert_non_null(strstr(json, "\"count\":[1]"));
    gradd_free(json);
    gradd_checkpoint_list list;
    losing(p, 2, gradd_checkpoint_create(c, "m", NULL, NULL, NULL, &error));
    losing(p, 1, gradd_checkpoint_list_all(c, "m", &list, &error));
    assert_int_equal(list.count, 1);
    losing(p, 1, gradd_checkpoint_restore(c, "m", list.items[0].name, NULL, &error));
    gradd_checkpoint_list_free(&list);
    assert_int_equal(step_of(c, etag), 6);
}

static void the_losses_are_those_of_undisturbed_steps(void **state) {
    proxy *p = *state;
    gradd_error error;
    gradd_step_result disturbed[4], alone;
    char other[1024];
    snprintf(other, sizeof other, "{\"name\": \"n\"%s", strchr(definition, ','));
    losing(p, 0, gradd_model_delete(p->client, "m", false, &error));
    losing(p, 1, gradd_model_create(p->client, definition, NULL, &error));
    losing(p, 1, gradd_model_create(p->client, other, NULL, &error));
    for (int i = 0; i < 4; i++) {
        losing(p, 1, gradd_model_train_step(p->client, "m", &input, &target, NULL, &disturbed[i], &error));
        losing(p, 0, gradd_model_train_step(p->client, "n", &input, &target, NULL, &alone, &error));
        assert_true(disturbed[i].loss == alone.loss);
    }
}

static void a_condition_that_holds_no_longer_changes_nothing(void **state) {
    proxy *p = *state;
    gradd_error error;
    gradd_step_result result;
    char etag[GRADD_MAX_ETAG], later[GRADD_MAX_ETAG];
    const int64_t step = step_of(p->client, etag);
    const gradd_option options[] = {{"if_match", etag}, {NULL, NULL}};
    losing(p, 1, gradd_model_train_step(p->client, "m", &input, &target, options, &result, &error));
    assert_int_equal(result.step, step + 1); /* the condition held at the first try */
    assert_int_equal(gradd_model_train_step(p->client, "m", &input, &target, options, &result, &error),
                     GRADD_E_REFUSED);
    assert_int_equal(error.http_status, 412);
    assert_int_equal(gradd_model_patch(p->client, "m", "{\"training\": false}", options, NULL, &error),
                     GRADD_E_REFUSED);
    assert_int_equal(error.http_status, 412);
    assert_int_equal(step_of(p->client, later), step + 1);
}

static void a_key_of_ones_own_is_done_once_however_often_it_is_called(void **state) {
    proxy *p = *state;
    gradd_error error;
    gradd_step_result result;
    char etag[GRADD_MAX_ETAG];
    const int64_t step = step_of(p->client, etag);
    const gradd_option options[] = {{"idempotency_key", "the-17th-batch"}, {NULL, NULL}};
    for (int i = 0; i < 3; i++) {
        losing(p, i, gradd_model_train_step(p->client, "m", &input, &target, options, &result, &error));
        assert_int_equal(result.step, step + 1);
    }
    assert_int_equal(step_of(p->client, etag), step + 1);
    assert_int_equal(gradd_model_train_step(p->client, "m", &input, NULL, options, &result, &error),
                     GRADD_E_REFUSED); /* another payload */
    assert_int_equal(error.http_status, 422);
}

/* How often each state was come to. */
typedef struct states {
    int queued, running, pausing, paused, cancelling, cancelled;
} states;

static bool count_state(void *argument, const gradd_event *event) {
    states *s = argument;
    const struct {
        const char *part;
        int *count;
    } rows[] = {
        {"\"state\":\"queued\"", &s->queued},         {"\"state\":\"running\"", &s->running},
        {"\"state\":\"pausing\"", &s->pausing},       {"\"state\":\"paused\"", &s->paused},
        {"\"state\":\"cancelling\"", &s->cancelling}, {"\"state\":\"cancelled\"", &s->cancelled},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !strcmp(event->name, "state"); i++) {
        *rows[i].count += strstr(event->data, rows[i].part) != NULL;
    }
    return true;
}

static void wait_for_state(gradd_client *client, int64_t id, const char *state) {
    gradd_job_info job;
    gradd_error error;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(gradd_job_show(client, id, i ? 10 : 0, &job, &error), GRADD_OK);
        const bool there = !strcmp(job.state, state);
        gradd_job_info_free(&job);
        if (there) {
            return;
        }
    }
    fail_msg("the job is not %s", state);
}

static void a_job_is_started_paused_resumed_and_cancelled_once(void **state) {
    proxy *p = *state;
    gradd_error error;
    gradd_job_info job;
    gradd_job_list list;
    gradd_client *direct;
    states counts = {0};
    const gradd_config config = {.server = test_shared.server};
    assert_int_equal(gradd_client_new(&config, &direct, NULL), GRADD_OK);
    losing(p, 1,
           gradd_model_create(p->client,
                              "{\"name\": \"j\", \"input\": {\"shape\": [28, 28]}, \"layers\": [{\"type\": "
                              "\"flatten\"}, {\"type\": \"Linear\", \"out_features\": 10}], \"loss\": "
                              "{\"type\": \"CrossEntropyLoss\"}, \"optimizer\": {\"type\": \"SGD\", \"lr\": "
                              "0.0001}}",
                              NULL, &error));
    losing(p, 2,
           gradd_job_start(p->client,
                           "{\"model\": \"j\", \"dataset\": \"digits\", \"batch_size\": 500, \"epochs\": "
                           "1000000}",
                           NULL, &job, &error));
    const int64_t id = job.id;
    gradd_job_info_free(&job);
    wait_for_state(direct, id, "running");
    losing(p, 2, gradd_job_pause(p->client, id, NULL, &error));
    wait_for_state(direct, id, "paused");
    losing(p, 2, gradd_job_resume(p->client, id, NULL, &error));
    wait_for_state(direct, id, "running");
    losing(p, 2, gradd_job_cancel(p->client, id, NULL, &error));
    wait_for_state(direct, id, "cancelled");
    assert_int_equal(gradd_job_list_all(direct, &list, &error), GRADD_OK);
    assert_int_equal(list.count, 1);
    gradd_job_list_free(&list);
    assert_int_equal(gradd_job_watch(direct, id, NULL, count_state, &counts, &error), GRADD_OK);
    assert_int_equal(counts.queued, 2);
    assert_int_equal(counts.running, 2);
    assert_int_equal(counts.pausing, 1);
    assert_int_equal(counts.paused, 1);
    assert_int_equal(counts.cancelling, 1);
    assert_int_equal(counts.cancelled, 1);
    gradd_client_free(direct);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_whose_replies_got_lost_is_done_once),
        cmocka_unit_test(the_losses_are_those_of_undisturbed_steps),
        cmocka_unit_test(a_condition_that_holds_no_longer_changes_nothing),
        cmocka_unit_test(a_key_of_ones_own_is_done_once_however_often_it_is_called),
        cmocka_unit_test(a_job_is_started_paused_resumed_and_cancelled_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
