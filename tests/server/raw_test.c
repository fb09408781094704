/* raw_test.c -- the daemon against bytes: what the gate must refuse, and how connections behave. */
#include "tests/support.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/http.h"

#define LIVE "GET /v1/health/live HTTP/1.1\r\nHost: localhost\r\n"

/* Requests that are answered with this status, on a connection of their own each. */
static const struct {
    const char *what, *bytes;
    int status;
    bool closes;
} cases[] = {
    {"a good one", LIVE "\r\n", 200, false},
    {"two Content-Lengths", LIVE "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400, true},
    {"Content-Length beside Transfer-Encoding",
     LIVE "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, true},
    {"an unknown Transfer-Encoding", LIVE "Transfer-Encoding: gzip\r\n\r\n", 400, true},
    {"chunked twice", LIVE "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, true},
    {"a list of encodings", LIVE "Transfer-Encoding: gzip, chunked\r\n\r\n", 400, true},
    {"chunked in HTTP/1.0",
     "GET /v1/health/live HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 400, true},
    {"no Host", "GET /v1/health/live HTTP/1.1\r\n\r\n", 400, true},
    {"two Hosts", LIVE "Host: localhost\r\n\r\n", 400, true},
    {"HTTP/1.0 without Host", "GET /v1/health/live HTTP/1.0\r\n\r\n", 200, true},
    {"a space before the colon", LIVE "X-A : 1\r\n\r\n", 400, true},
    {"a folded header that hides another", LIVE "X-A: a\r\n Content-Length: 5\r\n\r\n", 400, true},
    {"a space in the target", "GET /v1/health/live x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, true},
    {"a bare CR in a value", LIVE "X-A: a\rContent-Length: 5\r\n\r\n", 400, true},
    {"a control byte in a name", LIVE "X-\x01: 1\r\n\r\n", 400, true},
    {"a control byte in a value", LIVE "X-A: a\x01z\r\n\r\n", 400, true},
    {"HTTP/1.2", "GET /v1/health/live HTTP/1.2\r\nHost: localhost\r\n\r\n", 400, true},
    {"%00 in the path", "GET /v1/health/live%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, true},
    {"a broken escape", "GET /v1/health/l%zze HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, true},
    {"an escape of a letter", "GET /v1/health/l%69ve HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, false},
    {"an escaped slash is no separator", "GET /v1/health%2Flive HTTP/1.1\r\nHost: localhost\r\n\r\n", 404,
     false},
    {"a query parameter twice", "GET /v1/models?limit=1&limit=2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400,
     true},
    {"an unknown query parameter", "GET /v1/models?limits=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, false},
    {"an absolute target", "GET http://localhost/v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 200,
     false},
    {"an absolute target elsewhere",
     "GET http://evil.example/v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 403, false},
    {"a foreign Host", "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, false},
    {"a Host with a port", "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n", 200, false},
    {"an IPv6 Host", "GET /v1/models HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, false},
    {"a Host that is none", "GET /v1/models HTTP/1.1\r\nHost: local:host:1\r\n\r\n", 400, false},
    {"a foreign Origin", "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n",
     403, false},
    {"Origin null", "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403, false},
    {"its own Origin", "GET /v1/models HTTP/1.1\r\nHost: localhost:7\r\nOrigin: http://localhost:7\r\n\r\n",
     200, false},
    {"no such path", "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, false},
    {"no such method", "BREW /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, false},
    {"a name against the rule", "GET /v1/models/.x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, false},
    {"a body announced too large",
     "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", 413, true},
    {"a type that is not read",
     "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: 2\r\n\r\n{}",
     415, false},
    {"a type that is not written", "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAccept: text/xml\r\n\r\n",
     406, false},
    {"a type among others",
     "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAccept: text/xml, */*;q=0.1\r\n\r\n", 200, false},
    {"a chunked body",
     "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
     "chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
     400, false},
};

static void each_request_gets_its_status(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_reply reply;
        int fd = test_connect(test_shared.port);
        test_send_text(fd, cases[i].bytes);
        if (!test_receive(fd, false, &reply)) {
            fail_msg("%s: no reply", cases[i].what);
        }
        if (reply.status != cases[i].status) {
            fail_msg("%s: %d, not %d: %s", cases[i].what, reply.status, cases[i].status, reply.body);
        }
        if (cases[i].closes && !test_is_closed(fd)) {
            fail_msg("%s: the connection stays open", cases[i].what);
        }
        if (!cases[i].closes) { /* it must serve the next request */
            test_reply_release(&reply);
            test_send_text(fd, LIVE "\r\n");
            if (!test_receive(fd, false, &reply) || reply.status != 200) {
                fail_msg("%s: the connection does not go on", cases[i].what);
            }
        }
        test_reply_release(&reply);
        close(fd);
    }
}

static void an_error_is_a_problem_document(void **state) {
    (void)state;
    test_reply reply;
    char text[128];
    int fd = test_connect(test_shared.port);
    test_request(fd, "GET", "/v1/models/none", "X-Request-Id: my-id\r\n", "", 0, &reply);
    assert_int_equal(reply.status, 404);
    assert_string_equal(test_header(&reply, "Content-Type", text, sizeof text), "application/problem+json");
    assert_string_equal(test_header(&reply, "X-Request-Id", text, sizeof text), "my-id");
    json_t *json = json_loads(reply.body, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(json, "code")), "not_found");
    assert_string_equal(json_string_value(json_object_get(json, "request_id")), "my-id");
    assert_string_equal(json_string_value(json_object_get(json, "instance")), "/v1/models/none");
    assert_int_equal(json_integer_value(json_object_get(json, "status")), 404);
    json_decref(json);
    test_reply_release(&reply);
    close(fd);
}

static void a_request_id_against_the_name_rule_is_replaced(void **state) {
    (void)state;
    test_reply reply;
    char text[128];
    int fd = test_connect(test_shared.port);
    test_request(fd, "GET", "/v1/health/live", "X-Request-Id: a b\r\n", "", 0, &reply);
    assert_string_not_equal(test_header(&reply, "X-Request-Id", text, sizeof text), "a b");
    assert_true(strlen(text) > 0);
    test_reply_release(&reply);
    close(fd);
}

static void a_long_target_is_414_and_many_headers_are_431(void **state) {
    (void)state;
    enum { SIZE = 20000 };
    char *text = calloc(1, SIZE);
    test_reply reply;
    int fd = test_connect(test_shared.port);
    size_t used = (size_t)snprintf(text, SIZE, "GET /");
    memset(text + used, 'a', 9000);
    snprintf(text + used + 9000, 100, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    test_send_text(fd, text);
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 414);
    assert_true(test_is_closed(fd));
    test_reply_release(&reply);
    close(fd);

    fd = test_connect(test_shared.port);
    used = (size_t)snprintf(text, SIZE, LIVE);
    for (int i = 0; i < 200; i++) {
        used += (size_t)snprintf(text + used, SIZE - used, "X-%d: 1\r\n", i);
    }
    snprintf(text + used, SIZE - used, "\r\n");
    test_send_text(fd, text);
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 431);
    test_reply_release(&reply);
    close(fd);
    free(text);
}

static void requests_may_come_in_one_packet(void **state) {
    (void)state;
    test_reply reply;
    int fd = test_connect(test_shared.port);
    test_send_text(fd, LIVE "\r\n" LIVE "\r\nGET /v1/ops HTTP/1.1\r\nHost: localhost\r\n\r\n" LIVE "\r\n");
    for (int i = 0; i < 4; i++) {
        assert_true(test_receive(fd, false, &reply));
        assert_int_equal(reply.status, 200);
        assert_non_null(strstr(reply.body, i == 2 ? "Conv2d" : "ok"));
        test_reply_release(&reply);
    }
    close(fd);
}

static void head_has_the_headers_of_get_and_no_body(void **state) {
    (void)state;
    test_reply reply;
    char length[32];
    int fd = test_connect(test_shared.port);
    test_send_text(fd, "HEAD /v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" LIVE "\r\n");
    assert_true(test_receive(fd, true, &reply));
    assert_string_equal(test_header(&reply, "Content-Length", length, sizeof length), "15");
    test_reply_release(&reply);
    assert_true(test_receive(fd, false, &reply)); /* nothing stands between */
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    close(fd);
}

static void options_and_405_say_what_is_allowed(void **state) {
    (void)state;
    test_reply reply;
    char allow[128];
    int fd = test_connect(test_shared.port);
    test_request(fd, "OPTIONS", "/v1/models/any", "", "", 0, &reply);
    assert_int_equal(reply.status, 204);
    assert_string_equal(test_header(&reply, "Allow", allow, sizeof allow),
                        "GET, HEAD, PATCH, DELETE, OPTIONS");
    test_reply_release(&reply);
    test_request(fd, "OPTIONS", "*", "", "", 0, &reply);
    assert_int_equal(reply.status, 204);
    test_reply_release(&reply);
    test_request(fd, "PUT", "/v1/models", "", "{}", 2, &reply);
    assert_int_equal(reply.status, 405);
    assert_string_equal(test_header(&reply, "Allow", allow, sizeof allow), "GET, HEAD, POST, OPTIONS");
    test_reply_release(&reply);
    close(fd);
}

static void a_client_that_ends_its_side_still_gets_its_reply(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        test_reply reply;
        int fd = test_connect(test_shared.port);
        test_send_text(fd, "GET /v1/ops HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        assert_true(test_receive(fd, false, &reply));
        assert_int_equal(reply.status, 200);
        test_reply_release(&reply);
        close(fd);
    }
}

static void a_client_that_goes_away_harms_nobody(void **state) {
    (void)state;
    static const char *const halves[] = {
        "",
        "GET",
        LIVE,
        "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        "GET /v1/datasets/digits/train/input?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n"};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        int fd = test_connect(test_shared.port);
        test_send_text(fd, halves[i]);
        close(fd);
    }
    test_expect(&test_shared, "GET", "/v1/health/ready", NULL, 200, "ok");
}

static void expect_100_gets_its_answer_before_the_body(void **state) {
    (void)state;
    test_reply reply;
    int fd = test_connect(test_shared.port);
    test_send_text(
        fd,
        "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 100);
    test_reply_release(&reply);
    test_send_text(fd, "{}");
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 400);
    test_reply_release(&reply);
    close(fd);
    fd = test_connect(test_shared.port);
    test_send_text(
        fd,
        "POST /v1/nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 404);
    test_reply_release(&reply);
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_request_gets_its_status),
        cmocka_unit_test(an_error_is_a_problem_document),
        cmocka_unit_test(a_request_id_against_the_name_rule_is_replaced),
        cmocka_unit_test(a_long_target_is_414_and_many_headers_are_431),
        cmocka_unit_test(requests_may_come_in_one_packet),
        cmocka_unit_test(head_has_the_headers_of_get_and_no_body),
        cmocka_unit_test(options_and_405_say_what_is_allowed),
        cmocka_unit_test(a_client_that_ends_its_side_still_gets_its_reply),
        cmocka_unit_test(a_client_that_goes_away_harms_nobody),
        cmocka_unit_test(expect_100_gets_its_answer_before_the_body),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
