/* auth_test.c -- tokens, scopes, origins. */
#include "tests/support.h"

#include <string.h>
#include <unistd.h>

#include "tests/http.h"

static test_daemon daemon_;
static test_folder folder;

/* The last is the SHA-256 of "hashed-token". */
static const char tokens[] = "# tokens of this test\n"
                             "admin-token-1\n"
                             "reader-token-1 read   # a comment\n"
                             "\n"
                             "trainer-token-1\ttrain\n"
                             "sha256:550643f45e135491c47bea94823b37278d5dd91375b285d44001d005d1603a33 read\n";

static int ask(const char *method, const char *path, const char *token, const char *body) {
    char header[256] = "";
    test_reply reply;
    if (token) {
        snprintf(header, sizeof header, "Authorization: Bearer %s\r\n", token);
    }
    int fd = test_connect(daemon_.port);
    test_request(fd, method, path, header, body, strlen(body), &reply);
    int status = reply.status;
    test_reply_release(&reply);
    close(fd);
    return status;
}

static void without_a_token_only_health_and_pages_answer(void **state) {
    (void)state;
    assert_int_equal(ask("GET", "/v1/health/live", NULL, ""), 200);
    assert_int_equal(ask("GET", "/v1/health/ready", NULL, ""), 200);
    assert_int_equal(ask("GET", "/", NULL, ""), 200);
    assert_int_equal(ask("GET", "/v1/models", NULL, ""), 401);
    assert_int_equal(ask("GET", "/metrics", NULL, ""), 401);
    assert_int_equal(ask("GET", "/v1/version", NULL, ""), 401);
    assert_int_equal(ask("GET", "/nowhere", NULL, ""), 401);
}

static void a_401_says_how(void **state) {
    (void)state;
    test_reply reply;
    char text[64];
    test_call(&daemon_, "GET", "/v1/models", NULL, 401, &reply);
    assert_string_equal(test_header(&reply, "WWW-Authenticate", text, sizeof text), "Bearer realm=\"gradd\"");
    test_reply_release(&reply);
}

static void a_wrong_token_is_no_token(void **state) {
    (void)state;
    assert_int_equal(ask("GET", "/v1/models", "admin-token-2", ""), 401);
    assert_int_equal(ask("GET", "/v1/models", "admin-token-", ""), 401);
    assert_int_equal(ask("GET", "/v1/models", "", ""), 401);
    assert_int_equal(ask("GET", "/v1/models?token=admin-token-1", NULL, ""), 401);
}

static void each_scope_includes_those_below(void **state) {
    (void)state;
    static const char model[] =
        "{\"name\": \"m\", \"input\": {\"shape\": [2]}, \"layers\": [{\"type\": \"Linear\", "
        "\"out_features\": 1}]}";
    assert_int_equal(ask("GET", "/v1/models", "reader-token-1", ""), 200);
    assert_int_equal(ask("POST", "/v1/models", "reader-token-1", model), 403);
    assert_int_equal(ask("POST", "/v1/models", "trainer-token-1", model), 201);
    assert_int_equal(ask("POST", "/v1/models/m/predict", "reader-token-1", "{\"input\": [[1, 2]]}"), 200);
    assert_int_equal(ask("POST", "/v1/models/m/forward", "reader-token-1", "{\"input\": [[1, 2]]}"), 403);
    assert_int_equal(ask("GET", "/v1/models/m", "trainer-token-1", ""), 200);
    assert_int_equal(ask("DELETE", "/v1/models/m", "trainer-token-1", ""), 403);
    assert_int_equal(ask("DELETE", "/v1/models/m", "admin-token-1", ""), 204);
}

static void a_hashed_token_serves_as_well(void **state) {
    (void)state;
    assert_int_equal(ask("GET", "/v1/models", "hashed-token", ""), 200);
}

static void an_allowed_origin_gets_cors_headers(void **state) {
    (void)state;
    test_reply reply;
    char text[128];
    int fd = test_connect(daemon_.port);
    test_request(fd, "OPTIONS", "/v1/models",
                 "Origin: https://ui.example\r\nAccess-Control-Request-Method: POST\r\n", "", 0, &reply);
    assert_int_equal(reply.status, 204);
    assert_string_equal(test_header(&reply, "Access-Control-Allow-Origin", text, sizeof text),
                        "https://ui.example");
    assert_non_null(strstr(test_header(&reply, "Access-Control-Allow-Methods", text, sizeof text), "POST"));
    test_reply_release(&reply);
    test_request(fd, "GET", "/v1/models", "Origin: https://other.example\r\n", "", 0, &reply);
    assert_int_equal(reply.status, 403);
    assert_non_null(strstr(reply.body, "--cors-origin"));
    test_reply_release(&reply);
    close(fd);
}

static void an_allowed_host_is_let_in(void **state) {
    (void)state;
    test_reply reply;
    int fd = test_connect(daemon_.port);
    test_send_text(fd, "GET /v1/health/live HTTP/1.1\r\nHost: Gradd.Example:80\r\n\r\n");
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    close(fd);
}

static void a_bad_token_file_is_refused_without_showing_tokens(void **state) {
    (void)state;
    static const char *const bad[] = {"", "short\n", "good-token-1 root\n", "sha256:12 read\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char path[512], program[512];
        test_output output;
        test_folder_write(&folder, "bad", bad[i], strlen(bad[i]), path);
        test_run((const char *const[]){test_program("gradd", program), "--listen", "127.0.0.1:0",
                                       "--token-file", path, NULL},
                 NULL, &output);
        assert_int_equal(output.status, 1);
        assert_non_null(strstr(output.err, "--token-file"));
        assert_null(strstr(output.err, "good-token-1"));
        test_output_release(&output);
    }
}

static int start(void **state) {
    (void)state;
    char path[512];
    test_folder_make(&folder);
    test_folder_write(&folder, "tokens", tokens, strlen(tokens), path);
    test_daemon_start(&daemon_, (const char *const[]){"--token-file", path, "--cors-origin",
                                                      "https://a.example,https://ui.example",
                                                      "--allowed-host", "x.example, gradd.example", NULL});
    return 0;
}

static int stop(void **state) {
    (void)state;
    test_daemon_stop(&daemon_);
    test_folder_remove(&folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_token_only_health_and_pages_answer),
        cmocka_unit_test(a_401_says_how),
        cmocka_unit_test(a_wrong_token_is_no_token),
        cmocka_unit_test(each_scope_includes_those_below),
        cmocka_unit_test(a_hashed_token_serves_as_well),
        cmocka_unit_test(an_allowed_origin_gets_cors_headers),
        cmocka_unit_test(an_allowed_host_is_let_in),
        cmocka_unit_test(a_bad_token_file_is_refused_without_showing_tokens),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
