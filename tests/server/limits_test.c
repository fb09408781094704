/* limits_test.c -- every limit refuses with a problem of its own and leaves the daemon well. */
#include "tests/support.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/http.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void more_models_than_allowed_are_429(void **state) {
    (void)state;
    test_daemon daemon;
    test_reply reply;
    char text[32], json[512];
    test_daemon_start(&daemon, ARGS("--max-models", "2"));
    test_create_small(&daemon, "a");
    test_create_small(&daemon, "b");
    snprintf(json, sizeof json, TEST_SMALL_MODEL, "c");
    test_call(&daemon, "POST", "/v1/models", json, 429, &reply);
    assert_non_null(strstr(reply.body, "too_many_models"));
    assert_true(*test_header(&reply, "Retry-After", text, sizeof text) != '\0');
    test_reply_release(&reply);
    test_expect(&daemon, "DELETE", "/v1/models/a", NULL, 204, "");
    test_create_small(&daemon, "c");
    test_daemon_stop(&daemon);
}

static void a_model_over_the_memory_limit_is_507(void **state) {
    (void)state;
    test_daemon daemon;
    test_daemon_start(&daemon, ARGS("--max-memory", "1M"));
    test_expect(
        &daemon, "POST", "/v1/models",
        "{'name': 'big', 'input': {'shape': [10000]}, 'layers': [{'type': 'Linear', 'out_features': 10000}]}",
        507, "out_of_memory");
    test_expect(&daemon, "GET", "/v1/models/big", NULL, 404, "not_found");
    test_create_small(&daemon, "small");
    test_daemon_stop(&daemon);
}

static void a_batch_over_the_memory_limit_changes_nothing(void **state) {
    (void)state;
    enum { ROWS = 40000 };
    static const char head[] = "{\"input\": [", row[] = "[1,2,3,4],", target[] = "[1,2,3,4]], \"target\": [";
    test_daemon daemon;
    test_reply reply;
    test_daemon_start(&daemon, ARGS("--max-memory", "600K"));
    test_create_small(&daemon, "m");
    char *json = malloc(sizeof head + sizeof target + ROWS * (sizeof row + 2) + 16), *end = json;
    assert_non_null(json);
    end += snprintf(end, sizeof head, "%s", head);
    for (int i = 1; i < ROWS; i++) {
        end += snprintf(end, sizeof row, "%s", row);
    }
    end += snprintf(end, sizeof target, "%s", target);
    for (int i = 0; i < ROWS; i++) {
        end += snprintf(end, 4, "0%s", i < ROWS - 1 ? "," : "]}");
    }
    test_call(&daemon, "POST", "/v1/models/m/train_step", json, 507, &reply);
    assert_non_null(strstr(reply.body, "out_of_memory"));
    test_reply_release(&reply);
    free(json);
    test_expect(&daemon, "GET", "/v1/models/m", NULL, 200, "\"version\":1,\"step\":0");
    test_expect(&daemon, "POST", "/v1/models/m/train_step", "{'input': [[1, 2, 3, 4]], 'target': [0]}", 200,
                "\"step\":1");
    test_daemon_stop(&daemon);
}

static void a_body_over_its_limit_is_413_whole_or_chunked(void **state) {
    (void)state;
    test_daemon daemon;
    test_reply reply;
    char text[4096];
    test_daemon_start(&daemon, ARGS("--max-json-body", "1K", "--max-body", "2K"));
    int fd = test_connect(daemon.port);
    test_send_text(fd, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1025\r\n\r\n");
    assert_true(test_receive(fd, false, &reply)); /* without its body */
    assert_int_equal(reply.status, 413);
    assert_non_null(strstr(reply.body, "--max-json-body"));
    assert_string_equal(test_header(&reply, "Connection", text, sizeof text), "close");
    assert_true(test_is_closed(fd));
    test_reply_release(&reply);
    close(fd);
    fd = test_connect(daemon.port);
    memset(text, ' ', sizeof text);
    test_send_text(
        fd, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n600\r\n");
    test_send(fd, text, 0x600);
    test_send_text(fd, "\r\n0\r\n\r\n");
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 413);
    test_reply_release(&reply);
    close(fd);
    fd = test_connect(daemon.port);
    test_request(fd, "POST", "/v1/models", "Content-Type: application/x-npy\r\n", text, 100, &reply);
    assert_int_equal(reply.status, 415);
    test_reply_release(&reply);
    close(fd);
    test_daemon_stop(&daemon);
}

static void bodies_over_their_memory_are_503(void **state) {
    (void)state;
    test_daemon daemon;
    test_reply reply;
    test_daemon_start(&daemon, ARGS("--max-body-memory", "64K"));
    int first = test_connect(daemon.port), second = test_connect(daemon.port);
    test_send_text(first, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{");
    usleep(200000); /* so that it comes first; whichever does, one of them is refused */
    test_send_text(second, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{");
    assert_true(test_receive(second, false, &reply));
    assert_int_equal(reply.status, 503);
    assert_non_null(strstr(reply.body, "overloaded"));
    test_reply_release(&reply);
    close(first);
    close(second);
    test_daemon_stop(&daemon);
}

static void connections_over_the_limit_are_503_and_health_still_answers(void **state) {
    (void)state;
    enum { LIMIT = 4 };
    test_daemon daemon;
    test_reply reply;
    int fds[LIMIT];
    test_daemon_start(&daemon, ARGS("--max-connections", "4"));
    for (int i = 0; i < LIMIT; i++) {
        fds[i] = test_connect(daemon.port);
        test_request(fds[i], "GET", "/v1/health/live", "", "", 0, &reply);
        test_reply_release(&reply);
    }
    int fd = test_connect(daemon.port);
    test_request(fd, "GET", "/v1/models", "", "", 0, &reply);
    assert_int_equal(reply.status, 503);
    assert_non_null(strstr(reply.body, "--max-connections"));
    assert_true(test_is_closed(fd));
    test_reply_release(&reply);
    close(fd);
    test_expect(&daemon, "GET", "/v1/health/live", NULL, 200, "ok");
    test_request(fds[0], "GET", "/v1/models", "", "", 0, &reply); /* those before go on */
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    for (int i = 0; i < LIMIT; i++) {
        close(fds[i]);
    }
    int status = 0;
    for (int tries = 0; tries < 200 && status != 200; tries++) { /* until the daemon has seen them go */
        fd = test_connect(daemon.port);
        test_request(fd, "GET", "/v1/models", "", "", 0, &reply);
        status = reply.status;
        test_reply_release(&reply);
        close(fd);
        usleep(10000);
    }
    assert_int_equal(status, 200);
    test_daemon_stop(&daemon);
}

static void a_flood_beyond_every_limit_passes(void **state) {
    (void)state;
    enum { FLOOD = 150 }; /* past the spare connections too: these wait to be accepted */
    test_daemon daemon;
    int fds[FLOOD];
    test_daemon_start(&daemon, ARGS("--max-connections", "8"));
    for (int i = 0; i < FLOOD; i++) {
        fds[i] = test_connect(daemon.port);
        test_send_text(fds[i], "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    for (int i = 0; i < FLOOD; i++) {
        test_reply reply;
        if (!test_receive(fds[i], false, &reply)) {
            fail_msg("connection %d got no reply", i);
        }
        assert_true(reply.status == 200 || reply.status == 503);
        test_reply_release(&reply);
        close(fds[i]);
    }
    test_daemon_stop(&daemon);
}

static void a_full_queue_is_429_and_the_others_are_served(void **state) {
    (void)state;
    enum { CLIENTS = 24 };
    static const char body[] = "{\"input\": [[1, 2, 3, 4]], \"target\": [0]}";
    test_daemon daemon;
    test_reply reply;
    char text[64];
    int fds[CLIENTS], served = 0, refused = 0;
    test_daemon_start(&daemon, ARGS("--max-queue", "2", "--threads", "1"));
    test_expect(&daemon, "POST", "/v1/models",
                "{'name': 'm', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'out_features': 2000}, "
                "{'type': "
                "'Linear', 'out_features': 2000}, {'type': 'Linear', 'out_features': 3}], 'loss': {'type': "
                "'CrossEntropyLoss'}, 'optimizer': {'type': 'SGD', 'lr': 0.001}}",
                201, "m");
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = test_connect(daemon.port);
        snprintf(text, sizeof text, "POST /v1/models/m/train_step HTTP/1.1\r\n");
        test_send_text(fds[i], text);
        snprintf(text, sizeof text, "Host: localhost\r\nContent-Length: %zu\r\n\r\n", sizeof body - 1);
        test_send_text(fds[i], text);
    }
    for (int i = 0; i < CLIENTS; i++) {
        test_send_text(fds[i], body);
    }
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(test_receive(fds[i], false, &reply));
        if (reply.status == 429) {
            assert_non_null(strstr(reply.body, "queue_full"));
            assert_true(*test_header(&reply, "Retry-After", text, sizeof text) != '\0');
        } else {
            assert_int_equal(reply.status, 200);
        }
        served += reply.status == 200;
        refused += reply.status == 429;
        test_reply_release(&reply);
        close(fds[i]);
    }
    assert_true(served > 0 && refused > 0);
    snprintf(text, sizeof text, "\"step\":%d,", served);
    test_expect(&daemon, "GET", "/v1/models/m", NULL, 200, text);
    test_daemon_stop(&daemon);
}

static void slow_clients_are_cut_off(void **state) {
    (void)state;
    static const char *const slow[] = {
        "", /* says nothing */
        "GET /v1/health/live HTTP/1.1\r\nHost: loc",
        "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        "GET /v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", /* then idles */
    };
    test_daemon daemon;
    test_daemon_start(&daemon, ARGS("--request-timeout", "0.3"));
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        test_reply reply;
        int fd = test_connect(daemon.port);
        test_send_text(fd, slow[i]);
        if (i == 3) {
            assert_true(test_receive(fd, false, &reply));
            test_reply_release(&reply);
        }
        assert_true(test_is_closed(fd)); /* or the read gives up after its half minute, and says so: */
        char byte;
        assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
        close(fd);
    }
    test_daemon_stop(&daemon);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_models_than_allowed_are_429),
        cmocka_unit_test(a_model_over_the_memory_limit_is_507),
        cmocka_unit_test(a_batch_over_the_memory_limit_changes_nothing),
        cmocka_unit_test(a_body_over_its_limit_is_413_whole_or_chunked),
        cmocka_unit_test(bodies_over_their_memory_are_503),
        cmocka_unit_test(connections_over_the_limit_are_503_and_health_still_answers),
        cmocka_unit_test(a_flood_beyond_every_limit_passes),
        cmocka_unit_test(a_full_queue_is_429_and_the_others_are_served),
        cmocka_unit_test(slow_clients_are_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
