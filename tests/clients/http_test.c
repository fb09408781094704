/* http_test.c -- what libgradd sends, when it sends it again, and what it makes of odd replies: against
 * a server in this program that plays one script of replies. */
#include "tests/support.h"

#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clients/c/gradd.h"

enum { MAX_REQUESTS = 16, MAX_TEXT = 8192 };

#define OK_JSON "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
#define BUSY "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
#define HANG_UP ""                     /* read the request, then close without a word */
#define THEN_CLOSE "X-Then: close\r\n" /* in a reply: close after it */
#define EARLY "!" /* before a reply: send it once the request's head is there, then read what else comes */

/* Answers the n-th request with the n-th reply; a reply of "" closes the connection. */
typedef struct fake {
    int listener;
    int port;
    const char *const *replies; /* ends with NULL */
    pthread_t thread;
    char requests[MAX_REQUESTS][MAX_TEXT]; /* head and body, NUL-terminated where they hold none */
    int count;
    size_t more; /* bytes that came after an early reply */
    gradd_client *client;
    gradd_error error;
} fake;

/* Head and body, or the head alone. @return false when the client hung up */
static bool read_request(int connection, char *text, bool head_alone) {
    size_t size = 0, whole = 0;
    while (!whole || size < whole) {
        ssize_t got = recv(connection, text + size, MAX_TEXT - 1 - size, 0);
        if (got <= 0) {
            return false;
        }
        size += (size_t)got;
        text[size] = '\0';
        const char *end = strstr(text, "\r\n\r\n");
        if (end && head_alone) {
            break;
        }
        if (end && !whole) {
            const char *length = strstr(text, "Content-Length: ");
            whole = (size_t)(end + 4 - text) + (length ? strtoul(length + 16, NULL, 10) : 0);
        }
    }
    return true;
}

/* Does the client go on with this connection? If it comes with a new one, the old one is left. */
static bool goes_on(const fake *f, int connection) {
    struct pollfd fds[] = {{.fd = connection, .events = POLLIN}, {.fd = f->listener, .events = POLLIN}};
    return poll(fds, 2, -1) > 0 && fds[0].revents;
}

static void read_more(fake *f, int connection) {
    static char bytes[1 << 16];
    ssize_t got;
    while ((got = recv(connection, bytes, sizeof bytes, 0)) > 0) {
        f->more += (size_t)got;
    }
}

static void *serve(void *argument) {
    fake *f = argument;
    while (f->replies[f->count]) {
        int connection = accept(f->listener, NULL, NULL);
        if (connection < 0) {
            break; /* shut down by stop() */
        }
        while (f->replies[f->count] && goes_on(f, connection) &&
               read_request(connection, f->requests[f->count], *f->replies[f->count] == *EARLY)) {
            const char *reply = f->replies[f->count++];
            bool early = *reply == *EARLY;
            reply += early;
            if (!*reply || send(connection, reply, strlen(reply), MSG_NOSIGNAL) < 0 ||
                strstr(reply, THEN_CLOSE)) {
                break;
            }
            if (early) {
                read_more(f, connection);
            }
        }
        close(connection);
    }
    return NULL;
}

static int bind_port(int *ret_port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    *ret_port = ntohs(address.sin_port);
    return listener;
}

static void make_client(fake *f, gradd_config config) {
    char server[64];
    snprintf(server, sizeof server, "http://127.0.0.1:%d/", f->port);
    config.server = server;
    assert_int_equal(gradd_client_new(&config, &f->client, &f->error), GRADD_OK);
}

static void start(fake *f, const char *const *replies, gradd_config config) {
    *f = (fake){.replies = replies};
    f->listener = bind_port(&f->port);
    assert_int_equal(listen(f->listener, 8), 0);
    make_client(f, config);
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
}

/* @return how many requests came in */
static int stop(fake *f) {
    gradd_client_free(f->client);
    shutdown(f->listener, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->listener);
    return f->count;
}

#define PLAY(f, ...) start(f, (const char *const[]){__VA_ARGS__, NULL}, (gradd_config){.timeout_ms = 20000})

static const gradd_tensor scalar = {.dtype = GRADD_FLOAT32, .rank = 1, .shape = {1}, .data = (float[]){1}};

/* ---- trying again --------------------------------------------------------------------------------- */

static void a_get_is_sent_again_after_the_connection_broke(void **state) {
    (void)state;
    fake f;
    PLAY(&f, HANG_UP, HANG_UP, OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(stop(&f), 3);
}

static void a_get_is_given_up_after_two_more_tries(void **state) {
    (void)state;
    fake f;
    PLAY(&f, HANG_UP, HANG_UP, HANG_UP, OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_E_NETWORK);
    assert_int_equal(f.error.code, GRADD_E_NETWORK);
    assert_int_equal(stop(&f), 3);
}

static void a_put_is_sent_again_whole(void **state) {
    (void)state;
    fake f;
    PLAY(&f, HANG_UP, OK_JSON);
    assert_int_equal(gradd_parameter_put(f.client, "m", "w", &scalar, &f.error), GRADD_OK);
    assert_int_equal(stop(&f), 2);
    assert_memory_equal(f.requests[0], f.requests[1], sizeof f.requests[0]);
}

static void a_post_is_never_sent_again(void **state) {
    (void)state;
    fake f;
    PLAY(&f, HANG_UP, OK_JSON);
    assert_int_equal(gradd_model_train_step(f.client, "m", &scalar, &scalar, NULL, NULL, &f.error),
                     GRADD_E_NETWORK);
    assert_int_equal(stop(&f), 1);
}

/* Many a library would send it again here, as the connection had served a request before. */
static void a_post_is_not_sent_again_when_a_kept_connection_breaks(void **state) {
    (void)state;
    fake f;
    PLAY(&f, OK_JSON, HANG_UP, OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_NETWORK);
    assert_int_equal(stop(&f), 2);
}

static void neither_patch_nor_delete_is_sent_again(void **state) {
    (void)state;
    fake f;
    PLAY(&f, HANG_UP, HANG_UP, OK_JSON);
    assert_int_equal(gradd_model_delete(f.client, "m", false, &f.error), GRADD_E_NETWORK);
    assert_int_equal(gradd_model_patch(f.client, "m", "{}", NULL, &f.error), GRADD_E_NETWORK);
    assert_int_equal(stop(&f), 2);
}

static void a_delete_is_not_sent_again_when_a_kept_connection_breaks(void **state) {
    (void)state;
    fake f;
    PLAY(&f, OK_JSON, HANG_UP, OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(gradd_model_delete(f.client, "m", false, &f.error), GRADD_E_NETWORK);
    assert_int_equal(stop(&f), 2);
}

static void a_busy_daemon_is_asked_again_by_get_alone(void **state) {
    (void)state;
    fake f;
    PLAY(&f, BUSY, OK_JSON, BUSY, OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_REFUSED);
    assert_int_equal(f.error.http_status, 503);
    assert_int_equal(stop(&f), 3);
}

static void retries_can_be_switched_off(void **state) {
    (void)state;
    fake f;
    start(&f, (const char *const[]){HANG_UP, OK_JSON, NULL}, (gradd_config){.retries = -1});
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_E_NETWORK);
    assert_int_equal(stop(&f), 1);
}

/* The daemon comes up while the client pauses between tries. */
typedef struct late {
    fake fake;
    int asked;
} late;

static bool come_up_late(void *argument) {
    late *l = argument;
    if (++l->asked == 10) {
        listen(l->fake.listener, 8);
        pthread_create(&l->fake.thread, NULL, serve, &l->fake);
    }
    return false;
}

static void a_post_waits_for_a_daemon_that_does_not_listen_yet(void **state) {
    (void)state;
    late l = {.fake = {.replies = (const char *const[]){OK_JSON, NULL}}};
    l.fake.listener = bind_port(&l.fake.port);
    make_client(&l.fake, (gradd_config){.retries = -1});
    assert_int_equal(gradd_model_zero_grad(l.fake.client, "m", &l.fake.error), GRADD_E_UNREACHABLE);
    gradd_client_free(l.fake.client);

    make_client(&l.fake, (gradd_config){.retries = 10, .interrupted = come_up_late, .argument = &l});
    assert_int_equal(gradd_model_zero_grad(l.fake.client, "m", &l.fake.error), GRADD_OK);
    assert_true(l.asked >= 10);
    assert_int_equal(stop(&l.fake), 1);
}

/* ---- waiting -------------------------------------------------------------------------------------- */

static bool always(void *argument) {
    (void)argument;
    return true;
}

static void a_waiting_call_can_be_interrupted(void **state) {
    (void)state;
    fake f;
    start(&f, (const char *const[]){OK_JSON, NULL}, (gradd_config){.interrupted = always});
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_E_INTERRUPTED);
    stop(&f);
}

static void a_silent_daemon_ends_in_a_timeout_and_a_post_is_not_sent_again(void **state) {
    (void)state;
    fake f;
    /* Only half a reply: the client waits for the rest. */
    start(&f, (const char *const[]){"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", OK_JSON, NULL},
          (gradd_config){.timeout_ms = 300});
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_TIMEOUT);
    assert_int_equal(stop(&f), 1);
}

/* ---- connections ---------------------------------------------------------------------------------- */

static void a_connection_that_was_closed_while_idle_is_replaced(void **state) {
    (void)state;
    fake f;
    PLAY(&f, "HTTP/1.1 200 OK\r\n" THEN_CLOSE "Content-Length: 2\r\n\r\n{}", OK_JSON);
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    usleep(200 * 1000); /* for the end to arrive */
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_OK);
    assert_int_equal(stop(&f), 2);
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
    fake f;
    gradd_tensor large = large_tensor(31 << 20);
    PLAY(&f, EARLY TOO_LARGE);
    assert_int_equal(gradd_model_predict(f.client, "m", &large, NULL, &f.error), GRADD_E_REFUSED);
    assert_int_equal(f.error.http_status, 413);
    assert_int_equal(stop(&f), 1);
    free(large.data);
}

static void a_very_large_body_waits_to_be_asked_for(void **state) {
    (void)state;
    fake f;
    gradd_tensor large = large_tensor(33 << 20);
    PLAY(&f, EARLY TOO_LARGE,
         EARLY "HTTP/1.1 100 Continue\r\n\r\n" TOO_LARGE); /* the second is asked for, and refused at once */
    assert_int_equal(gradd_model_predict(f.client, "m", &large, NULL, &f.error), GRADD_E_REFUSED);
    assert_int_equal(f.error.http_status, 413);
    assert_int_equal(gradd_model_predict(f.client, "m", &large, NULL, &f.error), GRADD_E_REFUSED);
    assert_int_equal(stop(&f), 2);
    assert_non_null(strstr(f.requests[0], "\r\nExpect: 100-continue\r\n"));
    assert_int_equal(f.more, 0); /* nothing of a body that was not wanted */
    free(large.data);
}

static void a_body_that_was_asked_for_is_sent_whole(void **state) {
    (void)state;
    fake f;
    gradd_tensor large = large_tensor(33 << 20);
    start(&f, (const char *const[]){EARLY "HTTP/1.1 100 Continue\r\n\r\n", NULL},
          (gradd_config){.timeout_ms = 3000});
    assert_int_equal(gradd_model_predict(f.client, "m", &large, NULL, &f.error), GRADD_E_TIMEOUT);
    assert_int_equal(stop(&f), 1);
    const char *length = strstr(f.requests[0], "Content-Length: ");
    assert_non_null(length);
    assert_int_equal(f.more, strtoul(length + 16, NULL, 10));
    free(large.data);
}

/* ---- what is sent --------------------------------------------------------------------------------- */

static void names_and_options_are_percent_encoded(void **state) {
    (void)state;
    fake f;
    PLAY(&f, OK_JSON);
    const gradd_option options[] = {{"loss", "{\"a\": 1}"}, {"lr", "1e-3"}, {NULL, NULL}};
    assert_int_equal(gradd_model_loss(f.client, "a/b c", &scalar, options, NULL, &f.error), GRADD_E_REPLY);
    stop(&f);
    assert_non_null(strstr(f.requests[0],
                           "POST /v1/models/a%2Fb%20c/loss?loss=%7B%22a%22%3A%201%7D&lr=1e-3 HTTP/1.1\r\n"));
}

static void the_token_of_a_config_is_sent(void **state) {
    (void)state;
    fake f;
    start(&f, (const char *const[]){OK_JSON, NULL}, (gradd_config){.token = "secret"});
    assert_int_equal(gradd_server_ready(f.client, &f.error), GRADD_OK);
    stop(&f);
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
    fake f;
    char endless[5000];
    gradd_tensor bad = scalar;
    PLAY(&f, OK_JSON);
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
    assert_int_equal(stop(&f), 0);
}

/* ---- odd replies ---------------------------------------------------------------------------------- */

static void a_problem_document_is_passed_on(void **state) {
    (void)state;
    fake f;
    PLAY(&f,
         "HTTP/1.1 400 Bad\r\nContent-Type: application/problem+json\r\nContent-Length: 82\r\n\r\n"
         "{\"code\": \"shape_mismatch\", \"detail\": \"conv1 wants 1, not 3\", \"request_id\": \"r-17\"}");
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_REFUSED);
    stop(&f);
    assert_int_equal(f.error.http_status, 400);
    assert_string_equal(f.error.problem, "shape_mismatch");
    assert_string_equal(f.error.message, "conv1 wants 1, not 3");
    assert_string_equal(f.error.request_id, "r-17");
}

static void a_server_that_is_no_gradd_is_called_so(void **state) {
    (void)state;
    fake f;
    PLAY(&f, "HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n<html></html>");
    assert_int_equal(gradd_model_zero_grad(f.client, "m", &f.error), GRADD_E_REFUSED);
    stop(&f);
    assert_non_null(strstr(f.error.message, "is it a gradd daemon?"));
}

static void a_reply_over_the_limit_is_refused_announced_or_not(void **state) {
    (void)state;
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n", NULL};
    fake f;
    start(&f, replies, (gradd_config){.max_reply = 10});
    char *text = NULL;
    assert_int_equal(gradd_server_version(f.client, &text, &f.error), GRADD_E_REPLY);
    assert_int_equal(gradd_server_version(f.client, &text, &f.error), GRADD_E_REPLY);
    assert_non_null(strstr(f.error.message, "limit of 10 bytes"));
    assert_null(text);
    assert_int_equal(stop(&f), 2);
}

static void replies_of_every_framing_are_read(void **state) {
    (void)state;
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "4;x=y\r\n{\"a\"\r\n3\r\n: 1\r\n0001\r\n}\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:8\r\n\r\n{\"a\": 1}",
        "HTTP/1.1 200 OK\n" THEN_CLOSE "\r\n{\"a\": 1}",
        "HTTP/1.0 200 OK\r\n" THEN_CLOSE "Content-Length: 8\r\n\r\n{\"a\": 1}", NULL};
    fake f;
    start(&f, replies, (gradd_config){.timeout_ms = 20000});
    for (int i = 0; i < 4; i++) {
        char *text = NULL;
        assert_int_equal(gradd_server_version(f.client, &text, &f.error), GRADD_OK);
        assert_string_equal(text, "{\"a\": 1}");
        gradd_free(text);
    }
    assert_int_equal(stop(&f), 4);
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
    fake f;
    start(&f, replies, (gradd_config){.timeout_ms = 20000});
    for (size_t i = 0; replies[i]; i++) {
        if (gradd_model_zero_grad(f.client, "m", &f.error) != GRADD_E_NETWORK)
            fail_msg("reply %zu: %s", i, f.error.message);
    }
    assert_int_equal(stop(&f), 8);
}

static void replies_that_are_not_what_was_asked_for_are_refused(void **state) {
    (void)state;
    fake f;
    gradd_tensor output = {0};
    gradd_step_result result = {.step = 42};
    gradd_model_info info;
    PLAY(&f, OK_JSON, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
         "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"step\":\"a\"}", OK_JSON);
    assert_int_equal(gradd_model_forward(f.client, "m", &scalar, &output, &f.error), GRADD_E_REPLY);
    assert_null(output.data);
    assert_int_equal(gradd_model_step(f.client, "m", NULL, &result, &f.error), GRADD_E_REPLY);
    assert_int_equal(gradd_model_step(f.client, "m", NULL, &result, &f.error), GRADD_E_REPLY);
    assert_int_equal(result.step, 42);
    assert_int_equal(gradd_model_show(f.client, "m", &info, &f.error), GRADD_E_REPLY);
    stop(&f);
}

static void numbers_that_json_does_not_have_are_read(void **state) {
    (void)state;
    fake f;
    gradd_step_result result;
    PLAY(&f, "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"
             "{\"step\": 3, \"loss\": \"NaN\", \"grad_norm\": \"Infinity\", \"lr\": 1}");
    assert_int_equal(gradd_model_step(f.client, "m", NULL, &result, &f.error), GRADD_OK);
    stop(&f);
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
        cmocka_unit_test(a_post_is_never_sent_again),
        cmocka_unit_test(a_post_is_not_sent_again_when_a_kept_connection_breaks),
        cmocka_unit_test(neither_patch_nor_delete_is_sent_again),
        cmocka_unit_test(a_delete_is_not_sent_again_when_a_kept_connection_breaks),
        cmocka_unit_test(a_busy_daemon_is_asked_again_by_get_alone),
        cmocka_unit_test(retries_can_be_switched_off),
        cmocka_unit_test(a_post_waits_for_a_daemon_that_does_not_listen_yet),
        cmocka_unit_test(a_waiting_call_can_be_interrupted),
        cmocka_unit_test(a_silent_daemon_ends_in_a_timeout_and_a_post_is_not_sent_again),
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
