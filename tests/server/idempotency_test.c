/* idempotency_test.c -- Idempotency-Key over real sockets: done once, answered twice. */
#include "tests/support.h"

#include <string.h>
#include <unistd.h>

#include "tests/http.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define BATCH "{'input': [[1, 2, 3, 4], [4, 3, 2, 1]]"
/* {m} is where a name belongs, here and in paths. */
#define MODEL \
    "{'name': '{m}', 'seed': 1, 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'fc', " \
    "'in_features': 4, 'out_features': 3}], 'loss': {'type': 'CrossEntropyLoss'}, " \
    "'optimizer': {'type': 'SGD', 'lr': 0.1}, 'scheduler': {'type': 'StepLR', 'step_size': 1, 'interval': " \
    "'epoch'}}"

/* Requests with a JSON body, ' for ". @param key Idempotency-Key as it is sent, or NULL */
static void call(int port, const char *method, const char *path, const char *key, const char *json,
                 test_reply *ret_reply) {
    char headers[600] = "", body[1024];
    snprintf(body, sizeof body, "%s", json);
    for (char *c = body; *c; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    if (key) {
        snprintf(headers, sizeof headers, "Idempotency-Key: %s\r\n", key);
    }
    int fd = test_connect(port);
    test_request(fd, method, path, headers, body, strlen(body), ret_reply);
    close(fd);
}

static bool is_replayed(const test_reply *reply) {
    char text[16];
    return !strcmp(test_header(reply, "Idempotency-Replayed", text, sizeof text), "true");
}

/* Its status must be the one given, and it must or must not be a reply that was given before. */
static void expect(int port, const char *path, const char *key, const char *json, int status, bool replayed,
                   const char *part) {
    test_reply reply;
    call(port, "POST", path, key, json, &reply);
    if (reply.status != status || is_replayed(&reply) != replayed || !strstr(reply.body, part)) {
        fail_msg("%s, key %.40s: %d, not %d, %sreplayed: %s", path, key, reply.status, status,
                 is_replayed(&reply) ? "" : "not ", reply.body);
    }
    test_reply_release(&reply);
}

/* What tells whether a model has changed. @return etag */
static const char *etag_of(int port, const char *name, char etag[96]) {
    char path[128];
    test_reply reply;
    snprintf(path, sizeof path, "/v1/models/%s", name);
    call(port, "GET", path, NULL, "", &reply);
    assert_int_equal(reply.status, 200);
    test_header(&reply, "ETag", etag, 96);
    test_reply_release(&reply);
    return etag;
}

/* ---- every route ------------------------------------------------------------------------------------- */

typedef struct route {
    const char *method, *path, *flags;
} route;

static const route routes[] = {
#define R(method, path, handler, flags, ...) {#method, path, #flags},
#include "server/routes.def"
#undef R
};

/* A request that succeeds on each route, on a model that has just been made; the steps before it. */
static const struct {
    const char *path, *before[3], *body;
} cases[] = {
    {"/v1/models", {NULL}, MODEL},
    {"/v1/models/{m}/forward", {NULL}, BATCH "}"},
    {"/v1/models/{m}/loss", {"forward"}, "{'target': [0, 1]}"},
    {"/v1/models/{m}/backward", {"forward", "loss"}, "{}"},
    {"/v1/models/{m}/zero_grad", {"forward_backward"}, "{}"},
    {"/v1/models/{m}/step", {"forward_backward"}, "{}"},
    {"/v1/models/{m}/scheduler_step", {NULL}, "{}"},
    {"/v1/models/{m}/forward_backward", {NULL}, BATCH ", 'target': [0, 1]}"},
    {"/v1/models/{m}/train_step", {NULL}, BATCH ", 'target': [0, 1]}"},
    {"/v1/models/{m}/metrics", {NULL}, "{'step': 1, 'values': {'mine': 0.5}}"},
    {"/v1/models/{m}/checkpoints", {NULL}, "{'name': 'c'}"},
    {"/v1/models/{m}/checkpoints/{c}/restore", {"checkpoints"}, "{}"},
    {"/v1/jobs", {NULL}, "{'model': '{m}', 'dataset': 'four', 'batch_size': 2, 'epochs': 100000000}"},
    {"/v1/jobs/{j}/pause", {NULL}, "{}"},
    {"/v1/jobs/{j}/resume", {NULL}, "{}"},
    {"/v1/jobs/{j}/cancel", {NULL}, "{}"},
};

enum { CASES = sizeof cases / sizeof *cases };

static size_t case_of(const char *path) {
    size_t i = 0;
    while (i < CASES && strcmp(cases[i].path, path) != 0) {
        i++;
    }
    return i;
}

/* The first job is the only one. */
static bool is_of_jobs(const char *path) {
    return strstr(path, "/v1/jobs") != NULL;
}

static void fill_in(const char *path, const char *name, char *text, size_t size) {
    const char *j = strstr(path, "{j}");
    if (j) {
        snprintf(text, size, "%.*s1%s", (int)(j - path), path, j + 3);
        return;
    }
    const char *m = strstr(path, "{m}"), *rest = m ? m + 3 : path, *c = strstr(rest, "{c}");
    int before = m ? (int)(m - path) : 0, between = c ? (int)(c - rest) : (int)strlen(rest);
    snprintf(text, size, "%.*s%s%.*s%s%s", before, path, m ? name : "", between, rest, c ? "c" : "",
             c ? c + 3 : "");
}

static void make_model(int port, const char *name) {
    char json[512];
    fill_in(MODEL, name, json, sizeof json);
    expect(port, "/v1/models", NULL, json, 201, false, name);
}

/* The model that case `index` is about, as far as its request needs it. */
static void prepare(int port, size_t index, const char *name) {
    if (is_of_jobs(cases[index].path)) {
        static const char *const parts[] = {"input", "1,2,3,4\n4,3,2,1\n", "target", "0\n2\n"};
        for (size_t i = 0; i < 4; i += 2) { /* a job uses them from the second time on: refused */
            char put[64];
            test_reply reply;
            snprintf(put, sizeof put, "/v1/datasets/four/train/%s", parts[i]);
            call(port, "PUT", put, NULL, parts[i + 1], &reply);
            test_reply_release(&reply);
        }
        make_model(port, name);
        return;
    }
    if (!strstr(cases[index].path, "{m}")) {
        return;
    }
    make_model(port, name);
    for (size_t i = 0; i < 3 && cases[index].before[i]; i++) {
        char path[128];
        snprintf(path, sizeof path, "/v1/models/{m}/%s", cases[index].before[i]);
        size_t step = case_of(path);
        assert_true(step < CASES);
        char filled[160];
        fill_in(path, name, filled, sizeof filled);
        expect(port, filled, NULL, cases[step].body, strstr(path, "checkpoints") ? 201 : 200, false, "");
    }
}

static void same_header(const test_reply *a, const test_reply *b, const char *header) {
    char one[128], other[128];
    assert_string_equal(test_header(a, header, one, sizeof one), test_header(b, header, other, sizeof other));
}

/* What would change if it was done again: the model's ETag; of jobs, which go on by themselves, how many
 * there are. */
static const char *what_there_is(int port, const char *path, const char *name, char text[96]) {
    test_reply reply;
    if (!is_of_jobs(path)) {
        return etag_of(port, name, text);
    }
    call(port, "GET", "/v1/jobs", NULL, "", &reply);
    size_t count = 0;
    for (const char *at = reply.body; (at = strstr(at, "\"spec\"")); at++) {
        count++;
    }
    snprintf(text, 96, "%zu jobs", count);
    test_reply_release(&reply);
    return text;
}

static void check_route(int port, size_t index) {
    char name[32], path[160], body[1024], other[1040], key[64], before[96], after[96];
    test_reply first, second;
    snprintf(name, sizeof name, "m%zu", index);
    snprintf(key, sizeof key, "key-of-%zu", index);
    prepare(port, index, name);
    fill_in(cases[index].path, name, path, sizeof path);
    fill_in(cases[index].body, name, body, sizeof body);
    call(port, "POST", path, key, body, &first);
    if (first.status / 100 != 2 || is_replayed(&first)) {
        fail_msg("%s: %d %s", path, first.status, first.body);
    }
    what_there_is(port, path, name, before);
    call(port, "POST", path, key, body, &second);
    if (second.status != first.status || !is_replayed(&second)) {
        fail_msg("%s again: %d %s", path, second.status, second.body);
    }
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.body, second.body, first.size);
    same_header(&first, &second, "Content-Type");
    same_header(&first, &second, "ETag");
    same_header(&first, &second, "Location");
    same_header(&first, &second, "X-Grad-Fn");
    assert_string_equal(before, what_there_is(port, path, name, after)); /* nothing was done again */
    test_reply_release(&first);
    test_reply_release(&second);
    snprintf(other, sizeof other, "%s ", body);
    expect(port, path, key, other, 422, false, "idempotency_key_reused");
    assert_string_equal(before, what_there_is(port, path, name, after));
}

static void each_post_that_changes_something_is_done_once(void **state) {
    (void)state;
    size_t seen = 0;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(routes[i].method, "POST") != 0 || !strstr(routes[i].flags, "GS_CHANGES")) {
            continue;
        }
        size_t index = case_of(routes[i].path);
        if (index == CASES) {
            fail_msg("routes.def has POST %s, of which `cases` in this test has no request", routes[i].path);
        }
        check_route(test_shared.port, index);
        seen++;
    }
    assert_int_equal(seen, CASES);
}

/* ---- keys ------------------------------------------------------------------------------------------------
 */

#define STEP BATCH ", 'target': [0, 1]}"

static void a_key_may_be_quoted(void **state) {
    (void)state;
    int port = test_shared.port;
    make_model(port, "quoted");
    expect(port, "/v1/models/quoted/train_step", "\"a-quoted-one\"", STEP, 200, false, "");
    expect(port, "/v1/models/quoted/train_step", "a-quoted-one", STEP, 200, true, "");
    expect(port, "/v1/models/quoted/train_step", "\"with \\\" and \\\\\"", STEP, 400, false, ""); /* spaces */
    expect(port, "/v1/models/quoted/train_step", "\"with\\\"and\\\\\"", STEP, 200, false, "");
    expect(port, "/v1/models/quoted/train_step", "with\"and\\", STEP, 200, true, "");
}

static void a_key_that_is_none_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",          "\"\"",    "\"",    "two words", "\"two words\"", "\"open",  "\"a\"b",
        "\"a\";b=1", "\"\\a\"", "\"a\\", "\xc3\xa9",  "\"\xc3\xa9\"",  "\"a\\\"",
    };
    int port = test_shared.port;
    char before[96], after[96], longest[260] = "";
    make_model(port, "refused");
    etag_of(port, "refused", before);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        expect(port, "/v1/models/refused/train_step", bad[i], STEP, 400, false, "Idempotency-Key");
    }
    memset(longest, 'k', 256);
    expect(port, "/v1/models/refused/train_step", longest, STEP, 400, false, "1 to 255");
    assert_string_equal(before, etag_of(port, "refused", after));
    longest[255] = '\0';
    expect(port, "/v1/models/refused/train_step", longest, STEP, 200, false, "");
    expect(port, "/v1/models/refused/train_step", longest, STEP, 200, true, "");
}

static void other_requests_do_not_mind_a_key(void **state) {
    (void)state;
    int port = test_shared.port;
    make_model(port, "others");
    for (int i = 0; i < 2; i++) {
        test_reply reply;
        call(port, "GET", "/v1/models/others", "two words", "", &reply);
        assert_int_equal(reply.status, 200);
        assert_false(is_replayed(&reply));
        test_reply_release(&reply);
        expect(port, "/v1/models/others/predict", "a key", BATCH "}", 200, false, "");
    }
}

static void two_requests_with_one_key_and_other_paths_differ(void **state) {
    (void)state;
    int port = test_shared.port;
    make_model(port, "path-a");
    make_model(port, "path-b");
    expect(port, "/v1/models/path-a/train_step", "paths", STEP, 200, false, "");
    expect(port, "/v1/models/path-b/train_step", "paths", STEP, 422, false, "idempotency_key_reused");
    expect(port, "/v1/models/path-a/train_step?nesterov=false", "paths", STEP, 422, false, "");
}

/* A step with a body of `size` bytes, in one piece or in chunks. */
static void send_long(int port, const char *body, size_t size, bool chunked, int status, bool replayed) {
    enum { CHUNK = 100000 };
    char head[256];
    test_reply reply;
    int fd = test_connect(port);
    test_send_text(
        fd, "POST /v1/models/long/train_step HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: long\r\n");
    snprintf(head, sizeof head,
             chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "Content-Length: %zu\r\n\r\n", size);
    test_send_text(fd, head);
    for (size_t at = 0; chunked && at < size; at += CHUNK) {
        const size_t piece = size - at < CHUNK ? size - at : CHUNK;
        snprintf(head, sizeof head, "%zx\r\n", piece);
        test_send_text(fd, head);
        test_send(fd, body + at, piece);
        test_send_text(fd, "\r\n");
    }
    if (chunked) {
        test_send_text(fd, "0\r\n\r\n");
    } else {
        test_send(fd, body, size);
    }
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, status);
    assert_int_equal(is_replayed(&reply), replayed);
    test_reply_release(&reply);
    close(fd);
}

static void every_byte_of_a_long_body_counts(void **state) {
    (void)state;
    enum { SIZE = 1500000 };
    static const char step[] = "{\"input\": [[1, 2, 3, 4]], \"target\": [0]}";
    const size_t places[] = {sizeof step, SIZE / 2, SIZE - 1};
    int port = test_shared.port;
    char *body = malloc(SIZE);
    assert_non_null(body);
    memset(body, ' ', SIZE);
    memcpy(body, step, sizeof step - 1);
    make_model(port, "long");
    send_long(port, body, SIZE, false, 200, false);
    send_long(port, body, SIZE, false, 200, true);
    send_long(port, body, SIZE, true, 200, true); /* how it comes does not */
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        body[places[i]] = '\n';
        send_long(port, body, SIZE, i % 2, 422, false);
        body[places[i]] = ' ';
    }
    send_long(port, body, SIZE - 1, false, 422, false);
    free(body);
}

static void a_request_that_failed_frees_its_key(void **state) {
    (void)state;
    int port = test_shared.port;
    make_model(port, "failing");
    expect(port, "/v1/models/failing/step", "failing", "{}", 409, false, "");
    expect(port, "/v1/models/failing/forward_backward", NULL, STEP, 200, false, "");
    expect(port, "/v1/models/failing/step", "failing", "{}", 200, false, ""); /* now it can be done */
    expect(port, "/v1/models/failing/step", "failing", "{}", 200, true, "");
}

static void a_model_takes_its_keys_with_it(void **state) {
    (void)state;
    int port = test_shared.port;
    test_reply reply;
    make_model(port, "again");
    expect(port, "/v1/models/again/train_step", "once-for-each", STEP, 200, false, "\"step\":1");
    call(port, "DELETE", "/v1/models/again", NULL, "", &reply);
    assert_int_equal(reply.status, 204);
    test_reply_release(&reply);
    make_model(port, "again");
    expect(port, "/v1/models/again/train_step", "once-for-each", STEP, 200, false, "\"step\":1");
}

/* ---- at the same time ------------------------------------------------------------------------------------
 */

/* All of them have sent their heads, so that the loop runs none by itself; then come the bodies. */
static void a_key_whose_request_runs_is_in_use(void **state) {
    (void)state;
    enum { REQUESTS = 12 };
    static const char body[] = "{\"input\": [[1, 2, 3, 4]], \"target\": [0]}",
                      path[] = "/v1/models/wide/train_step";
    int port = test_shared.port, fds[REQUESTS], done = 0, in_use = 0;
    char head[256], text[16];
    expect(port, "/v1/models", NULL,
           "{'name': 'wide', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'out_features': 2000}, "
           "{'type': "
           "'Linear', 'out_features': 2000}, {'type': 'Linear', 'out_features': 3}], 'loss': {'type': "
           "'CrossEntropyLoss'}, 'optimizer': {'type': 'SGD', 'lr': 0.001}}",
           201, false, "wide");
    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: same\r\nContent-Length: %zu\r\n\r\n",
             path, sizeof body - 1);
    for (int i = 0; i < REQUESTS; i++) {
        fds[i] = test_connect(port);
        test_send_text(fds[i], head);
    }
    for (int i = 0; i < REQUESTS; i++) {
        test_send_text(fds[i], body);
    }
    for (int i = 0; i < REQUESTS; i++) {
        test_reply reply;
        assert_true(test_receive(fds[i], false, &reply));
        done += reply.status == 200 && !is_replayed(&reply);
        if (reply.status != 200) {
            in_use++;
            assert_int_equal(reply.status, 409);
            assert_non_null(strstr(reply.body, "idempotency_key_in_use"));
            assert_string_equal(test_header(&reply, "Retry-After", text, sizeof text), "1");
        }
        test_reply_release(&reply);
        close(fds[i]);
    }
    assert_int_equal(done, 1);
    assert_true(in_use > 0);
    expect(port, path, "same", "{'input': [[1, 2, 3, 4]], 'target': [0]}", 200, true, "\"step\":1");
}

/* ---- limits
 * ------------------------------------------------------------------------------------------------ */

static void a_large_reply_is_not_kept_and_not_made_twice(void **state) {
    (void)state;
    int port = test_shared.port;
    char before[96], after[96];
    expect(port, "/v1/models", NULL,
           "{'name': 'large', 'input': {'shape': [1]}, 'layers': [{'type': 'Linear', 'in_features': 1, "
           "'out_features': 200000}]}",
           201, false, "");
    expect(port, "/v1/models/large/forward", "large", "{'input': [[1]]}", 200, false, "output");
    etag_of(port, "large", before);
    expect(port, "/v1/models/large/forward", "large", "{'input': [[1]]}", 409, false,
           "idempotency_reply_not_kept");
    assert_string_equal(before, etag_of(port, "large", after));
}

static void the_oldest_keys_are_forgotten_first(void **state) {
    (void)state;
    test_daemon daemon;
    test_daemon_start(&daemon, ARGS("--max-idempotency-keys", "2"));
    make_model(daemon.port, "few");
    static const char path[] = "/v1/models/few/train_step";
    expect(daemon.port, path, "1", STEP, 200, false, "\"step\":1");
    expect(daemon.port, path, "2", STEP, 200, false, "\"step\":2");
    expect(daemon.port, path, "1", STEP, 200, true, "\"step\":1");
    expect(daemon.port, path, "3", STEP, 200, false, "\"step\":3");
    expect(daemon.port, path, "2", STEP, 200, true, "\"step\":2");
    expect(daemon.port, path, "1", STEP, 200, false, "\"step\":4");
    test_daemon_stop(&daemon);
}

static void without_room_for_replies_nothing_is_done_twice(void **state) {
    (void)state;
    test_daemon daemon;
    test_daemon_start(&daemon, ARGS("--max-idempotency-memory", "0"));
    make_model(daemon.port, "none");
    expect(daemon.port, "/v1/models/none/train_step", "1", STEP, 200, false, "\"step\":1");
    expect(daemon.port, "/v1/models/none/train_step", "1", STEP, 409, false, "idempotency_reply_not_kept");
    expect(daemon.port, "/v1/models/none/train_step", "2", STEP, 200, false, "\"step\":2");
    test_daemon_stop(&daemon);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_post_that_changes_something_is_done_once),
        cmocka_unit_test(a_key_may_be_quoted),
        cmocka_unit_test(a_key_that_is_none_is_refused),
        cmocka_unit_test(other_requests_do_not_mind_a_key),
        cmocka_unit_test(two_requests_with_one_key_and_other_paths_differ),
        cmocka_unit_test(every_byte_of_a_long_body_counts),
        cmocka_unit_test(a_request_that_failed_frees_its_key),
        cmocka_unit_test(a_model_takes_its_keys_with_it),
        cmocka_unit_test(a_key_whose_request_runs_is_in_use),
        cmocka_unit_test(a_large_reply_is_not_kept_and_not_made_twice),
        cmocka_unit_test(the_oldest_keys_are_forgotten_first),
        cmocka_unit_test(without_room_for_replies_nothing_is_done_twice),
    };
    return cmocka_run_group_tests_name("idempotency", tests, test_shared_start, test_shared_stop);
}
