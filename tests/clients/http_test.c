/* http_test.c -- what libgradd sends, when it sends it again, and what it makes of odd replies: against
 * a server in this program that plays one script of replies. */
#include "tests/fake.h"

#include <math.h>
#include <sys/socket.h>
#include <unistd.h>

static const gradd_tensor scalar = {.dtype = GRADD_FLOAT32, .rank = 1, .shape = {1}, .data = (float[]){1}};

/* ---- trying again --------------------------------------------------------------------------------- */

static void a_get_is_sent_again_after_the_connection_broke(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_HANG_UP, FAKE_OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 3);
}

static void a_get_is_given_up_after_two_more_tries(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_HANG_UP, FAKE_HANG_UP, FAKE_OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_E_NETWORK);
    assert_int_equal(f.error.code, GRADD_E_NETWORK);
    assert_int_equal(test_fake_stop(&f), 3);
}

static void a_put_is_sent_again_whole(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_OK_JSON);
    assert_int_equal(gradd_parameter_put(f.client, "m", "w", &scalar, NULL, &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 2);
    assert_memory_equal(f.requests[0], f.requests[1], sizeof f.requests[0]);
}

/* The value of a header of a request: 64 bytes. */
static const char *header(const char *request, const char *name, char value[64]) {
    const char *at = strstr(request, name);
    snprintf(value, 64, "%.*s", at ? (int)strcspn(at + strlen(name), "\r") : 0, at ? at + strlen(name) : "");
    return value;
}

#define KEY "\r\nIdempotency-Key: "

static void a_post_whose_reply_got_lost_is_sent_again_with_its_key(void **state) {
    (void)state;
    test_fake f;
    char keys[2][64];
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_OK_JSON, FAKE_OK_JSON);
    assert_int_equal(gradd_model_train_step(f.client, "m", &scalar, &scalar, NULL, NULL, &f.error), GRADD_OK);
    assert_int_equal(gradd_model_train_step(f.client, "m", &scalar, &scalar, NULL, NULL, &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 3);
    assert_memory_equal(f.requests[0], f.requests[1], sizeof f.requests[0]);
    assert_int_equal(strlen(header(f.requests[0], KEY, keys[0])), 32);
    assert_string_not_equal(keys[0], header(f.requests[2], KEY, keys[1])); /* another call, another key */
}

static void a_post_is_sent_again_when_a_kept_connection_breaks(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_OK_JSON, FAKE_HANG_UP, FAKE_OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 3);
    assert_memory_equal(f.requests[1], f.requests[2], sizeof f.requests[1]);
}

static void what_the_daemon_is_still_at_is_waited_for(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_IN_USE, FAKE_IN_USE, FAKE_IN_USE, FAKE_IN_USE, FAKE_OK_JSON);
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 6);
}

static void a_key_that_is_in_use_by_another_call_is_told(void **state) {
    (void)state;
    test_fake f;
    const gradd_option options[] = {{"idempotency_key", "mine"}, {NULL, NULL}};
    TEST_PLAY(&f, FAKE_IN_USE, FAKE_OK_JSON);
    assert_int_equal(gradd_model_step(f.client, "m", options, NULL, &f.error), GRADD_E_REFUSED);
    assert_int_equal(test_fake_stop(&f), 1);
    assert_non_null(strstr(f.requests[0], KEY "mine\r\n"));
    assert_null(strstr(strstr(f.requests[0], KEY) + 4, KEY)); /* and no other */
}

/* "Refused" or "unreachable" would say that nothing was done. */
static void after_a_lost_reply_a_busy_daemon_leaves_open_what_was_done(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_BUSY, FAKE_BUSY, FAKE_OK_JSON);
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_NETWORK);
    assert_int_equal(f.error.code, GRADD_E_NETWORK);
    assert_non_null(strstr(f.error.message, "503"));
    assert_int_equal(test_fake_stop(&f), 3);
}

static void a_condition_is_sent_and_a_put_with_one_is_not_sent_again(void **state) {
    (void)state;
    test_fake f;
    const gradd_option options[] = {{"if_match", "\"7-1\""}, {NULL, NULL}};
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_OK_JSON);
    assert_int_equal(gradd_parameter_put(f.client, "m", "w", &scalar, options, &f.error), GRADD_E_NETWORK);
    assert_int_equal(gradd_model_step(f.client, "m", options, NULL, &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 2);
    for (int i = 0; i < 2; i++) {
        assert_non_null(strstr(f.requests[i], "\r\nIf-Match: \"7-1\"\r\n"));
        assert_null(strstr(f.requests[i], "if_match"));
    }
}

static void an_option_cannot_smuggle_in_a_header(void **state) {
    (void)state;
    static const char *const bad[] = {"a\r\nX-Evil: 1", "", "a b", "\x80"};
    test_fake f;
    TEST_PLAY(&f, FAKE_OK_JSON);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const gradd_option options[] = {{"idempotency_key", bad[i]}, {NULL, NULL}};
        assert_int_equal(gradd_model_step(f.client, "m", options, NULL, &f.error), GRADD_E_ARGUMENT);
    }
    assert_int_equal(test_fake_stop(&f), 0);
}

static void neither_patch_nor_delete_is_sent_again(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_HANG_UP, FAKE_OK_JSON);
    assert_int_equal(gradd_model_delete(f.client, "m", false, &f.error), GRADD_E_NETWORK);
    assert_int_equal(gradd_model_patch(f.client, "m", "{}", NULL, NULL, &f.error), GRADD_E_NETWORK);
    assert_int_equal(test_fake_stop(&f), 2);
}

static void a_delete_is_not_sent_again_when_a_kept_connection_breaks(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_OK_JSON, FAKE_HANG_UP, FAKE_OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(gradd_model_delete(f.client, "m", false, &f.error), GRADD_E_NETWORK);
    assert_int_equal(test_fake_stop(&f), 2);
}

static void a_busy_daemon_is_asked_again_but_not_by_patch_and_delete(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_BUSY, FAKE_OK_JSON, FAKE_BUSY, FAKE_OK_JSON, FAKE_BUSY, FAKE_BUSY, FAKE_OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_OK);
    assert_int_equal(gradd_model_delete(f.client, "m", false, &f.error), GRADD_E_REFUSED);
    assert_int_equal(gradd_model_patch(f.client, "m", "{}", NULL, NULL, &f.error), GRADD_E_REFUSED);
    assert_int_equal(f.error.http_status, 503);
    assert_int_equal(test_fake_stop(&f), 6);
}

static void retries_can_be_switched_off(void **state) {
    (void)state;
    test_fake f;
    test_fake_start(&f, (const char *const[]){FAKE_HANG_UP, FAKE_OK_JSON, NULL},
                    (gradd_config){.retries = -1});
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_E_NETWORK);
    assert_int_equal(test_fake_stop(&f), 1);
}

/* The daemon comes up while the client pauses between tries. */
typedef struct late {
    test_fake fake;
    int asked;
} late;

static bool come_up_late(void *argument) {
    late *l = argument;
    if (++l->asked == 10) {
        listen(l->fake.listener, 8);
        pthread_create(&l->fake.thread, NULL, test_fake_serve, &l->fake);
    }
    return false;
}

static void a_post_waits_for_a_daemon_that_does_not_listen_yet(void **state) {
    (void)state;
    late l = {.fake = {.replies = (const char *const[]){FAKE_OK_JSON, NULL}}};
    l.fake.listener = test_fake_bind(&l.fake.port);
    test_fake_client(&l.fake, (gradd_config){.retries = -1});
    assert_int_equal(gradd_model_zero_grad(l.fake.client, "m", &l.fake.error), GRADD_E_UNREACHABLE);
    gradd_client_free(l.fake.client);

    test_fake_client(&l.fake, (gradd_config){.retries = 10, .interrupted = come_up_late, .argument = &l});
    assert_int_equal(gradd_model_zero_grad(l.fake.client, "m", &l.fake.error), GRADD_OK);
    assert_true(l.asked >= 10);
    assert_int_equal(test_fake_stop(&l.fake), 1);
}

/* ---- waiting -------------------------------------------------------------------------------------- */

static bool always(void *argument) {
    (void)argument;
    return true;
}

static void a_waiting_call_can_be_interrupted(void **state) {
    (void)state;
    test_fake f;
    test_fake_start(&f, (const char *const[]){FAKE_OK_JSON, NULL}, (gradd_config){.interrupted = always});
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_E_INTERRUPTED);
    test_fake_stop(&f);
}

static void a_silent_daemon_ends_in_a_timeout_and_a_post_is_not_sent_again(void **state) {
    (void)state;
    test_fake f;
    /* Only half a reply: the client waits for the rest. */
    test_fake_start(
        &f, (const char *const[]){"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", FAKE_OK_JSON, NULL},
        (gradd_config){.timeout_ms = 300});
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_TIMEOUT);
    assert_int_equal(test_fake_stop(&f), 1);
}

static void a_daemon_that_falls_silent_after_quick_replies_ends_in_a_timeout(void **state) {
    (void)state;
    enum { QUICK = 6 };
    test_fake f;
    test_fake_start(&f,
                    (const char *const[]){FAKE_OK_JSON, FAKE_OK_JSON, FAKE_OK_JSON, FAKE_OK_JSON,
                                          FAKE_OK_JSON, FAKE_OK_JSON, "HTTP/1.1 200 OK\r\n", NULL},
                    (gradd_config){.timeout_ms = 300});
    for (int i = 0; i < QUICK; i++)
        assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_TIMEOUT);
    assert_int_equal(test_fake_stop(&f), QUICK + 1);
}

/* ---- connections ---------------------------------------------------------------------------------- */

static void a_connection_that_was_closed_while_idle_is_replaced(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, "HTTP/1.1 200 OK\r\n" FAKE_THEN_CLOSE "Content-Length: 2\r\n\r\n{}", FAKE_OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    usleep(200 * 1000); /* for the end to arrive */
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 2);
}

/* (bytes / 4,) zeros. */
static gradd_tensor large_tensor(size_t bytes) {
    gradd_tensor tensor = {.dtype = GRADD_FLOAT32, .rank = 1, .shape = {(int64_t)(bytes / 4)}};
    tensor.data = calloc(1, bytes);
    assert_non_null(tensor.data);
    return tensor;
}

#define TOO_LARGE "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}"

static void an_answer_before_the_end_of_a_body_ends_it(void **state) {
    (void)state;
    test_fake f;
    gradd_tensor large = large_tensor(31 << 20);
    TEST_PLAY(&f, FAKE_EARLY TOO_LARGE);
    assert_int_equal(gradd_model_predict(f.client, "m", &large, NULL, &f.error), GRADD_E_REFUSED);
    assert_int_equal(f.error.http_status, 413);
    assert_int_equal(test_fake_stop(&f), 1);
    free(large.data);
}

static void a_very_large_body_waits_to_be_asked_for(void **state) {
    (void)state;
    test_fake f;
    gradd_tensor large = large_tensor(33 << 20);
    TEST_PLAY(&f, FAKE_EARLY TOO_LARGE,
              FAKE_EARLY
              "HTTP/1.1 100 Continue\r\n\r\n" TOO_LARGE); /* the second is asked for, and refused at once */
    assert_int_equal(gradd_model_predict(f.client, "m", &large, NULL, &f.error), GRADD_E_REFUSED);
    assert_int_equal(f.error.http_status, 413);
    assert_int_equal(gradd_model_predict(f.client, "m", &large, NULL, &f.error), GRADD_E_REFUSED);
    assert_int_equal(test_fake_stop(&f), 2);
    assert_non_null(strstr(f.requests[0], "\r\nExpect: 100-continue\r\n"));
    assert_int_equal(f.more, 0); /* nothing of a body that was not wanted */
    free(large.data);
}

static void a_body_that_was_asked_for_is_sent_whole(void **state) {
    (void)state;
    test_fake f;
    gradd_tensor large = large_tensor(33 << 20);
    test_fake_start(&f, (const char *const[]){FAKE_EARLY "HTTP/1.1 100 Continue\r\n\r\n", NULL},
                    (gradd_config){.timeout_ms = 3000});
    assert_int_equal(gradd_model_predict(f.client, "m", &large, NULL, &f.error), GRADD_E_TIMEOUT);
    assert_int_equal(test_fake_stop(&f), 1);
    const char *length = strstr(f.requests[0], "Content-Length: ");
    assert_non_null(length);
    assert_int_equal(f.more, strtoul(length + 16, NULL, 10));
    free(large.data);
}

/* ---- what is sent --------------------------------------------------------------------------------- */

static void names_and_options_are_percent_encoded(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_OK_JSON);
    const gradd_option options[] = {{"loss", "{\"a\": 1}"}, {"lr", "1e-3"}, {NULL, NULL}};
    assert_int_equal(gradd_model_loss(f.client, "a/b c", &scalar, options, NULL, &f.error), GRADD_E_REPLY);
    test_fake_stop(&f);
    assert_non_null(strstr(f.requests[0],
                           "POST /v1/models/a%2Fb%20c/loss?loss=%7B%22a%22%3A%201%7D&lr=1e-3 HTTP/1.1\r\n"));
}

static void the_token_of_a_config_is_sent(void **state) {
    (void)state;
    test_fake f;
    test_fake_start(&f, (const char *const[]){FAKE_OK_JSON, NULL}, (gradd_config){.token = "secret"});
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    test_fake_stop(&f);
    assert_non_null(strstr(f.requests[0], "\r\nAuthorization: Bearer secret\r\n"));
}

static void a_token_cannot_smuggle_in_a_header(void **state) {
    (void)state;
    gradd_client *client = NULL;
    gradd_error error;
    const gradd_config config = {.token = "a\r\nX-Evil: 1"};
    assert_int_equal(gradd_client_new(&config, &client, &error), GRADD_E_ARGUMENT);
    assert_null(client);
}

static void a_server_that_is_no_url_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"ftp://localhost", "http://localhost/?x", "http://local host",
                                      "http://user:secret@localhost"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gradd_client *client = NULL;
        const gradd_config config = {.server = bad[i]};
        assert_int_equal(gradd_client_new(&config, &client, NULL), GRADD_E_ARGUMENT);
    }
}

static void bad_arguments_send_nothing(void **state) {
    (void)state;
    test_fake f;
    char endless[5000];
    gradd_tensor bad = scalar;
    TEST_PLAY(&f, FAKE_OK_JSON);
    memset(endless, 'a', sizeof endless);
    endless[sizeof endless - 1] = '\0';
    assert_int_equal(gradd_model_zero_grad(f.client, "", &f.error), GRADD_E_ARGUMENT);
    assert_int_equal(gradd_model_zero_grad(f.client, "..", &f.error), GRADD_E_ARGUMENT);
    assert_int_equal(gradd_model_zero_grad(f.client, endless, &f.error), GRADD_E_ARGUMENT);
    assert_int_equal(gradd_model_forward(f.client, "m", NULL, NULL, &f.error), GRADD_E_ARGUMENT);
    bad.shape[0] = -1;
    assert_int_equal(gradd_model_forward(f.client, "m", &bad, NULL, &f.error), GRADD_E_ARGUMENT);
    bad.shape[0] = INT64_MAX;
    assert_int_equal(gradd_model_forward(f.client, "m", &bad, NULL, &f.error), GRADD_E_ARGUMENT);
    bad.rank = 9;
    assert_int_equal(gradd_model_forward(f.client, "m", &bad, NULL, &f.error), GRADD_E_ARGUMENT);
    assert_int_equal(test_fake_stop(&f), 0);
}

/* ---- odd replies ---------------------------------------------------------------------------------- */

static void a_problem_document_is_passed_on(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(
        &f, "HTTP/1.1 400 Bad\r\nContent-Type: application/problem+json\r\nContent-Length: 82\r\n\r\n"
            "{\"code\": \"shape_mismatch\", \"detail\": \"conv1 wants 1, not 3\", \"request_id\": \"r-17\"}");
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_REFUSED);
    test_fake_stop(&f);
    assert_int_equal(f.error.http_status, 400);
    assert_string_equal(f.error.problem, "shape_mismatch");
    assert_string_equal(f.error.message, "conv1 wants 1, not 3");
    assert_string_equal(f.error.request_id, "r-17");
}

static void a_server_that_is_no_gradd_is_called_so(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, "HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n<html></html>");
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_REFUSED);
    test_fake_stop(&f);
    assert_non_null(strstr(f.error.message, "is it a gradd daemon?"));
}

static void a_reply_over_the_limit_is_refused_announced_or_not(void **state) {
    (void)state;
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n", NULL};
    test_fake f;
    test_fake_start(&f, replies, (gradd_config){.max_reply = 10});
    char *text = NULL;
    assert_int_equal(gradd_server_version(f.client, &text, &f.error), GRADD_E_REPLY);
    assert_int_equal(gradd_server_version(f.client, &text, &f.error), GRADD_E_REPLY);
    assert_non_null(strstr(f.error.message, "limit of 10 bytes"));
    assert_null(text);
    assert_int_equal(test_fake_stop(&f), 2);
}

static void replies_of_every_framing_are_read(void **state) {
    (void)state;
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "4;x=y\r\n{\"a\"\r\n3\r\n: 1\r\n0001\r\n}\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:8\r\n\r\n{\"a\": 1}",
        "HTTP/1.1 200 OK\n" FAKE_THEN_CLOSE "\r\n{\"a\": 1}",
        "HTTP/1.0 200 OK\r\n" FAKE_THEN_CLOSE "Content-Length: 8\r\n\r\n{\"a\": 1}", NULL};
    test_fake f;
    test_fake_start(&f, replies, (gradd_config){.timeout_ms = 20000});
    for (int i = 0; i < 4; i++) {
        char *text = NULL;
        assert_int_equal(gradd_server_version(f.client, &text, &f.error), GRADD_OK);
        assert_string_equal(text, "{\"a\": 1}");
        gradd_free(text);
    }
    assert_int_equal(test_fake_stop(&f), 4);
}

static void what_is_no_http_is_refused(void **state) {
    (void)state;
    static char endless[20000];
    memset(endless, 'a', sizeof endless - 1);
    memcpy(endless, "HTTP/1.1 200 OK\r\nX: ", 20);
    const char *const replies[] = {"SSH-2.0-OpenSSH_9.2\r\n",
                                   "HTTP/1.1 20 OK\r\n\r\n",
                                   "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                                   "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
                                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n",
                                   endless,
                                   NULL};
    test_fake f;
    test_fake_start(&f, replies, (gradd_config){.timeout_ms = 20000, .retries = -1});
    for (size_t i = 0; replies[i]; i++) {
        if (gradd_model_zero_grad(f.client, "m", &f.error) != GRADD_E_NETWORK)
            fail_msg("reply %zu: %s", i, f.error.message);
    }
    assert_int_equal(test_fake_stop(&f), 8);
}

static void replies_that_are_not_what_was_asked_for_are_refused(void **state) {
    (void)state;
    test_fake f;
    gradd_tensor output = {0};
    gradd_step_result result = {.step = 42};
    gradd_model_info info;
    TEST_PLAY(&f, FAKE_OK_JSON, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
              "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"step\":\"a\"}", FAKE_OK_JSON);
    assert_int_equal(gradd_model_forward(f.client, "m", &scalar, &output, &f.error), GRADD_E_REPLY);
    assert_null(output.data);
    assert_int_equal(gradd_model_step(f.client, "m", NULL, &result, &f.error), GRADD_E_REPLY);
    assert_int_equal(gradd_model_step(f.client, "m", NULL, &result, &f.error), GRADD_E_REPLY);
    assert_int_equal(result.step, 42);
    assert_int_equal(gradd_model_show(f.client, "m", &info, &f.error), GRADD_E_REPLY);
    test_fake_stop(&f);
}

static void numbers_that_json_does_not_have_are_read(void **state) {
    (void)state;
    test_fake f;
    gradd_step_result result;
    TEST_PLAY(&f, "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"
                  "{\"step\": 3, \"loss\": \"NaN\", \"grad_norm\": \"Infinity\", \"lr\": 1}");
    assert_int_equal(gradd_model_step(f.client, "m", NULL, &result, &f.error), GRADD_OK);
    test_fake_stop(&f);
    assert_int_equal(result.step, 3);
    assert_true(isnan(result.loss));
    assert_true(isinf(result.grad_norm));
    assert_true(result.lr == 1);
    assert_int_equal(result.correct, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_get_is_sent_again_after_the_connection_broke),
        cmocka_unit_test(a_get_is_given_up_after_two_more_tries),
        cmocka_unit_test(a_put_is_sent_again_whole),
        cmocka_unit_test(a_post_whose_reply_got_lost_is_sent_again_with_its_key),
        cmocka_unit_test(a_post_is_sent_again_when_a_kept_connection_breaks),
        cmocka_unit_test(what_the_daemon_is_still_at_is_waited_for),
        cmocka_unit_test(a_key_that_is_in_use_by_another_call_is_told),
        cmocka_unit_test(after_a_lost_reply_a_busy_daemon_leaves_open_what_was_done),
        cmocka_unit_test(a_condition_is_sent_and_a_put_with_one_is_not_sent_again),
        cmocka_unit_test(an_option_cannot_smuggle_in_a_header),
        cmocka_unit_test(neither_patch_nor_delete_is_sent_again),
        cmocka_unit_test(a_delete_is_not_sent_again_when_a_kept_connection_breaks),
        cmocka_unit_test(a_busy_daemon_is_asked_again_but_not_by_patch_and_delete),
        cmocka_unit_test(retries_can_be_switched_off),
        cmocka_unit_test(a_post_waits_for_a_daemon_that_does_not_listen_yet),
        cmocka_unit_test(a_waiting_call_can_be_interrupted),
        cmocka_unit_test(a_silent_daemon_ends_in_a_timeout_and_a_post_is_not_sent_again),
        cmocka_unit_test(a_daemon_that_falls_silent_after_quick_replies_ends_in_a_timeout),
        cmocka_unit_test(a_connection_that_was_closed_while_idle_is_replaced),
        cmocka_unit_test(an_answer_before_the_end_of_a_body_ends_it),
        cmocka_unit_test(a_very_large_body_waits_to_be_asked_for),
        cmocka_unit_test(a_body_that_was_asked_for_is_sent_whole),
        cmocka_unit_test(names_and_options_are_percent_encoded),
        cmocka_unit_test(the_token_of_a_config_is_sent),
        cmocka_unit_test(a_token_cannot_smuggle_in_a_header),
        cmocka_unit_test(a_server_that_is_no_url_is_refused),
        cmocka_unit_test(bad_arguments_send_nothing),
        cmocka_unit_test(a_problem_document_is_passed_on),
        cmocka_unit_test(a_server_that_is_no_gradd_is_called_so),
        cmocka_unit_test(a_reply_over_the_limit_is_refused_announced_or_not),
        cmocka_unit_test(replies_of_every_framing_are_read),
        cmocka_unit_test(what_is_no_http_is_refused),
        cmocka_unit_test(replies_that_are_not_what_was_asked_for_are_refused),
        cmocka_unit_test(numbers_that_json_does_not_have_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
