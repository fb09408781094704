/* concurrency_test.c -- many clients at once: every step is counted once, and the numbers are those of the
 * same steps run alone. */
#include "tests/support.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "tests/http.h"

enum { TRAINERS = 32, HAMMERS = 8, STEPS = 20 };

typedef struct client {
    pthread_t thread;
    test_daemon *daemon;
    char model[32];
    int steps;
    bool failed;
} client;

/* The i-th batch of this model: always the same. */
static void batch(const char *model, int i, char *json, size_t size) {
    int seed = model[strlen(model) - 1] + 7 * model[strlen(model) - 2];
    snprintf(json, size, "{\"input\": [[%d, 0.5, -%d.25, 1], [0.125, %d, 2, -1]], \"target\": [%d, %d]}",
             i % 3, seed % 4, (i + seed) % 5, i % 3, seed % 3);
}

/* No assertions in here: cmocka's fail belongs to the main thread. */
static void *train(void *argument) {
    client *c = argument;
    int fd = test_connect(c->daemon->port);
    char path[96], json[256];
    snprintf(path, sizeof path, "/v1/models/%s/train_step", c->model);
    for (int i = 0; i < c->steps; i++) {
        test_reply reply;
        char head[256];
        batch(c->model, i, json, sizeof json);
        snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n",
                 path, strlen(json));
        test_send_text(fd, head);
        test_send_text(fd, json);
        if (!test_receive(fd, false, &reply)) {
            c->failed = true;
            break;
        }
        c->failed |= reply.status != 200;
        test_reply_release(&reply);
    }
    close(fd);
    return NULL;
}

static void run(client *clients, int count) {
    for (int i = 0; i < count; i++) {
        assert_int_equal(pthread_create(&clients[i].thread, NULL, train, &clients[i]), 0);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(clients[i].thread, NULL);
    }
    for (int i = 0; i < count; i++) {
        assert_false(clients[i].failed);
    }
}

/* What a model has become: its weights as text. */
static char *weights(const test_daemon *daemon, const char *model) {
    char path[96];
    test_reply reply;
    snprintf(path, sizeof path, "/v1/models/%s/parameters/fc.weight", model);
    test_call(daemon, "GET", path, NULL, 200, &reply);
    char *copy = strdup(reply.body);
    assert_non_null(copy);
    test_reply_release(&reply);
    return copy;
}

static void trainers_side_by_side_get_what_each_gets_alone(void **state) {
    (void)state;
    test_daemon daemon;
    static client clients[TRAINERS];
    char *together[TRAINERS];
    test_daemon_start(&daemon, (const char *const[]){"--threads", "4", NULL});
    for (int i = 0; i < TRAINERS; i++) {
        clients[i] = (client){.daemon = &daemon, .steps = STEPS};
        snprintf(clients[i].model, sizeof clients[i].model, "m%02d", i);
        test_create_small(&daemon, clients[i].model);
    }
    run(clients, TRAINERS);
    for (int i = 0; i < TRAINERS; i++) {
        char path[64], part[32];
        snprintf(path, sizeof path, "/v1/models/%s", clients[i].model);
        snprintf(part, sizeof part, "\"step\":%d,", STEPS);
        test_expect(&daemon, "GET", path, NULL, 200, part);
        together[i] = weights(&daemon, clients[i].model);
    }
    test_daemon_stop(&daemon);

    test_daemon_start(&daemon, (const char *const[]){"--threads", "1", NULL});
    for (int i = 0; i < TRAINERS; i++) {
        test_create_small(&daemon, clients[i].model);
        run(&clients[i], 1);
        char *alone = weights(&daemon, clients[i].model);
        assert_string_equal(together[i], alone);
        free(alone);
        free(together[i]);
    }
    test_daemon_stop(&daemon);
}

static void clients_that_share_a_model_have_every_step_counted_once(void **state) {
    (void)state;
    test_daemon daemon;
    static client clients[HAMMERS];
    char part[64];
    test_daemon_start(&daemon, (const char *const[]){"--threads", "4", NULL});
    test_create_small(&daemon, "shared");
    for (int i = 0; i < HAMMERS; i++) {
        clients[i] = (client){.daemon = &daemon, .steps = STEPS, .model = "shared"};
    }
    run(clients, HAMMERS);
    snprintf(part, sizeof part, "\"step\":%d,", HAMMERS * STEPS);
    test_expect(&daemon, "GET", "/v1/models/shared", NULL, 200, part);
    snprintf(part, sizeof part, "{\"cursor\":%d,", HAMMERS * STEPS);
    test_expect(&daemon, "GET", "/v1/models/shared/metrics", NULL, 200, part);
    snprintf(part, sizeof part, "gradd_steps_total %d\n", HAMMERS * STEPS);
    test_expect(&daemon, "GET", "/metrics", NULL, 200, part);
    test_daemon_stop(&daemon);
}

/* Models that come and go under others' requests. */
static void *churn(void *argument) {
    client *c = argument;
    static const char definition[] =
        "{\"name\": \"churn\", \"input\": {\"shape\": [4]}, \"layers\": [{\"type\": \"Linear\", "
        "\"out_features\": 3}], \"loss\": {\"type\": \"CrossEntropyLoss\"}, \"optimizer\": "
        "{\"type\": \"SGD\", \"lr\": 0.1}}";
    static const struct {
        const char *method, *path, *body;
    } calls[] = {
        {"POST", "/v1/models", definition},
        {"POST", "/v1/models/churn/train_step", "{\"input\": [[1, 2, 3, 4]], \"target\": [0]}"},
        {"GET", "/v1/models/churn", ""},
        {"GET", "/v1/models", ""},
        {"DELETE", "/v1/models/churn", ""},
    };
    int fd = test_connect(c->daemon->port);
    for (int i = 0; i < c->steps && !c->failed; i++) {
        for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
            char head[256];
            test_reply reply;
            snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n",
                     calls[k].method, calls[k].path, strlen(calls[k].body));
            test_send_text(fd, head);
            test_send_text(fd, calls[k].body);
            if (!test_receive(fd, false, &reply)) {
                c->failed = true;
                break;
            }
            c->failed |= reply.status != 200 && reply.status != 201 && reply.status != 204 &&
                         reply.status != 404 && reply.status != 409;
            test_reply_release(&reply);
        }
    }
    close(fd);
    return NULL;
}

static void models_may_come_and_go_while_others_use_them(void **state) {
    (void)state;
    test_daemon daemon;
    static client clients[HAMMERS];
    test_daemon_start(&daemon, (const char *const[]){"--threads", "4", NULL});
    for (int i = 0; i < HAMMERS; i++) {
        clients[i] = (client){.daemon = &daemon, .steps = STEPS};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, churn, &clients[i]), 0);
    }
    for (int i = 0; i < HAMMERS; i++) {
        pthread_join(clients[i].thread, NULL);
        assert_false(clients[i].failed);
    }
    test_expect(&daemon, "GET", "/v1/models", NULL, 200, "items");
    test_daemon_stop(&daemon);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trainers_side_by_side_get_what_each_gets_alone),
        cmocka_unit_test(clients_that_share_a_model_have_every_step_counted_once),
        cmocka_unit_test(models_may_come_and_go_while_others_use_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
