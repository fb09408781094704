/* effect_test.c -- effects and idempotency keys against a store, without a daemon around them: what is
 * committed together, what is taken back, and which keys outlive a restart. */
#include "tests/support.h"

#include <sqlite3.h>
#include <string.h>

#include "server/effect.h"
#include "server/idempotency.h"
#include "server/request.h"
#include "tests/daemon.h"

static const gs_route durable = {
    .method = "POST", .path = "/v1/models", .flags = GS_WORK | GS_CHANGES | GS_DURABLE};
static const gs_route step = {.method = "POST", .path = "/v1/step", .flags = GS_WORK | GS_MODEL | GS_CHANGES};
static const gs_route forward = {
    .method = "POST", .path = "/v1/forward", .flags = GS_WORK | GS_MODEL | GS_CHANGES | GS_TRANSIENT};

typedef struct fixture {
    test_folder folder;
    gs_server server;
    gs_hosted model; /* as much of one as keys need */
} fixture;

static void close_store(fixture *f) {
    gs_idempotency_free(f->server.idempotency);
    gs_store_close(f->server.store);
    f->server.store = NULL;
}

/* A start of the daemon. */
static void open_store(fixture *f) {
    char why[512] = "";
    gp_error error = {0};
    if (gs_store_open(f->folder.path, &f->server.log, &f->server.store, why, sizeof why)) {
        fail_msg("%s", why);
    }
    f->server.idempotency = gs_idempotency_new(100, 1 << 20);
    if (gs_idempotency_load(f->server.idempotency, f->server.store, &error)) {
        fail_msg("%s", error.detail);
    }
}

static void restart(fixture *f) {
    close_store(f);
    open_store(f);
}

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    test_folder_make(&f->folder);
    f->model.id = 7;
    pthread_mutex_init(&f->model.lock, NULL);
    open_store(f);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    close_store(f);
    pthread_mutex_destroy(&f->model.lock);
    test_folder_remove(&f->folder);
    free(f);
    return 0;
}

/* ---- requests -------------------------------------------------------------------------------------------
 */

static gs_request *request_new(fixture *f, const gs_route *route, const char *key) {
    gs_request *request = calloc(1, sizeof *request);
    request->server = &f->server;
    request->method = route->method;
    request->target = route->path;
    request->route = route;
    request->model = route->flags & GS_MODEL ? &f->model : NULL;
    snprintf(request->key, sizeof request->key, "%s", key);
    return request;
}

static void request_free(gs_request *request) {
    gs_idempotency_end(request);
    gs_reply_clear(&request->reply);
    free(request);
}

static void fill_in_reply(gs_request *request) {
    request->reply = (gs_reply){
        .status = 201, .media = GS_MEDIA_JSON, .body = strdup("{\"a\":1}"), .size = 7, .owned = true};
    snprintf(request->reply.etag, sizeof request->reply.etag, "\"e\"");
    snprintf(request->reply.location, sizeof request->reply.location, "/v1/models/a");
}

/* A step with a key, after which the model has this version. */
static void take_step(fixture *f, const gs_route *route, const char *key, uint64_t version) {
    gs_request *request = request_new(f, route, key);
    assert_true(gs_idempotency_claim(request));
    f->model.summary.version = version;
    fill_in_reply(request);
    gs_effects_end(request);
    gs_idempotency_keep(request);
    request_free(request);
}

/* Is the request's reply known, and is it the first one? */
static bool is_known(fixture *f, const gs_route *route, const char *key) {
    gs_request *request = request_new(f, route, key);
    bool known = !gs_idempotency_claim(request);
    if (known) {
        assert_int_equal(request->error.problem, GP_OK);
        assert_true(request->reply.replayed);
        assert_int_equal(request->reply.status, 201);
        assert_int_equal(request->reply.media, GS_MEDIA_JSON);
        assert_int_equal(request->reply.size, 7);
        assert_memory_equal(request->reply.body, "{\"a\":1}", 7);
        assert_string_equal(request->reply.etag, "\"e\"");
        assert_string_equal(request->reply.location, "/v1/models/a");
    }
    gs_idempotency_drop(request);
    request_free(request);
    return known;
}

/* ---- the store ------------------------------------------------------------------------------------------
 */

static int run_sql(gs_store *store, void *argument, gp_error *error) {
    return gs_sql(store, error, argument, "");
}

static void sql(fixture *f, const char *text) {
    gp_error error = {0};
    if (gs_store_do(f->server.store, run_sql, (void *)(uintptr_t)text, &error)) {
        fail_msg("%s", error.detail);
    }
}

static int count_rows(gs_store *store, void *argument, gp_error *error) {
    sqlite3_stmt *query = gs_sql_query(
        store, error, "SELECT (SELECT count(*) FROM models), (SELECT count(*) FROM idempotency)", "");
    if (!query || gs_sql_row(store, query, error) != 1) {
        return -1;
    }
    int *counts = argument;
    counts[0] = sqlite3_column_int(query, 0);
    counts[1] = sqlite3_column_int(query, 1);
    return 0;
}

static void expect_rows(fixture *f, int models, int keys) {
    int counts[2] = {-1, -1};
    assert_int_equal(gs_store_do(f->server.store, count_rows, counts, NULL), 0);
    assert_int_equal(counts[0], models);
    assert_int_equal(counts[1], keys);
}

static const char insert_model[] =
    "INSERT INTO models(id, name, definition, seed, created_ms) VALUES(7, 'a', '{}', 0, 0)";

/* An effect: a row, and a letter for how it was settled. */
typedef struct change {
    const char *sql;
    char letter;
    char *settled; /* capital: committed */
} change;

static int write_change(gs_store *store, void *argument, gp_error *error) {
    return gs_sql(store, error, ((change *)argument)->sql, "");
}

static void settle_change(void *argument, bool committed) {
    change *c = argument;
    c->settled[strlen(c->settled)] = (char)(committed ? c->letter - 'a' + 'A' : c->letter);
}

/* A request with two effects. @return its problem */
static gp_problem run_two(fixture *f, const char *key, const char *second, char settled[8]) {
    gs_request *request = request_new(f, &durable, key);
    change a = {insert_model, 'a', settled}, b = {second, 'b', settled};
    memset(settled, 0, 8);
    assert_true(gs_idempotency_claim(request));
    fill_in_reply(request);
    assert_int_equal(gs_effect_add(request, (gs_effect){write_change, settle_change, &a}, NULL), 0);
    assert_int_equal(gs_effect_add(request, (gs_effect){write_change, settle_change, &b}, NULL), 0);
    gs_effects_end(request);
    gp_problem problem = request->error.problem;
    if (problem) {
        gs_reply_problem(request);
    }
    gs_idempotency_keep(request);
    request_free(request);
    return problem;
}

static const char insert_dataset[] = "INSERT INTO datasets(name, created_ms) VALUES('d', 0)";

/* ---- tests ----------------------------------------------------------------------------------------------
 */

static void effects_and_key_are_committed_together(void **state) {
    fixture *f = *state;
    char settled[8];
    assert_int_equal(run_two(f, "k", insert_dataset, settled), GP_OK);
    assert_string_equal(settled, "BA"); /* the last one first */
    assert_true(is_known(f, &durable, "k"));
    restart(f);
    expect_rows(f, 1, 1);
    assert_true(is_known(f, &durable, "k"));
}

static void effects_that_cannot_be_committed_are_taken_back(void **state) {
    fixture *f = *state;
    char settled[8];
    assert_int_equal(run_two(f, "k", "INSERT INTO datasets(name) VALUES('d')", settled), GP_CONFLICT);
    assert_string_equal(settled, "ba");
    expect_rows(f, 0, 0);
    assert_int_equal(run_two(f, "k", insert_dataset, settled), GP_OK); /* the key is free */
}

static void effects_of_a_handler_that_fails_are_taken_back(void **state) {
    fixture *f = *state;
    char settled[8] = "";
    change a = {insert_model, 'a', settled};
    gs_request *request = request_new(f, &durable, "k");
    assert_true(gs_idempotency_claim(request));
    assert_int_equal(gs_effect_add(request, (gs_effect){write_change, settle_change, &a}, NULL), 0);
    gp_fail(&request->error, GP_CONFLICT, "", "no");
    gs_effects_end(request);
    gs_reply_problem(request);
    request_free(request);
    assert_string_equal(settled, "a");
    expect_rows(f, 0, 0);
    assert_false(is_known(f, &durable, "k"));
}

static void a_request_has_a_few_effects_at_most(void **state) {
    fixture *f = *state;
    char settled[8] = "";
    change a = {insert_model, 'a', settled};
    gs_request *request = request_new(f, &durable, "");
    for (int i = 0; i < GS_MAX_EFFECTS; i++) {
        assert_int_equal(gs_effect_add(request, (gs_effect){NULL, NULL, NULL}, NULL), 0);
    }
    assert_int_equal(gs_effect_add(request, (gs_effect){write_change, settle_change, &a}, &request->error),
                     -1);
    assert_string_equal(settled, "a");
    gs_effects_end(request);
    request_free(request);
}

/* A checkpoint of the model at a version. */
typedef struct checkpoint {
    fixture *f;
    uint64_t version;
    bool fails;
} checkpoint;

static int write_checkpoint(gs_store *store, void *argument, gp_error *error) {
    checkpoint *c = argument;
    if (gs_idempotency_save(c->f->server.idempotency, store, 7, c->version, error)) {
        return -1;
    }
    return c->fails ? gp_fail(error, GP_STORAGE_FAILED, "", "no room") : 0;
}

static void save(fixture *f, uint64_t version, bool fails) {
    checkpoint c = {f, version, fails};
    gp_error error = {0};
    int result = gs_store_do(f->server.store, write_checkpoint, &c, &error);
    if (!result == fails) {
        fail_msg("%d %s", result, error.detail);
    }
    gs_idempotency_settle(f->server.idempotency, 7, UINT64_MAX, !result);
}

static void keys_of_steps_are_durable_with_their_checkpoint(void **state) {
    fixture *f = *state;
    sql(f, insert_model);
    take_step(f, &step, "one", 1);
    take_step(f, &step, "two", 2);
    expect_rows(f, 1, 0); /* a step costs no commit */
    save(f, 1, false);
    take_step(f, &step, "three", 3);
    assert_true(is_known(f, &step, "one") && is_known(f, &step, "two") && is_known(f, &step, "three"));
    expect_rows(f, 1, 1);
    restart(f); /* as after a crash: the model goes on from version 1 */
    assert_true(is_known(f, &step, "one"));
    assert_false(is_known(f, &step, "two"));
    assert_false(is_known(f, &step, "three"));
}

static void keys_of_a_checkpoint_that_failed_come_with_the_next(void **state) {
    fixture *f = *state;
    sql(f, insert_model);
    take_step(f, &step, "one", 1);
    save(f, 1, true);
    expect_rows(f, 1, 0);
    take_step(f, &step, "two", 2);
    save(f, 2, false);
    expect_rows(f, 1, 2);
    save(f, 2, false); /* nothing is left to be saved */
    restart(f);
    assert_true(is_known(f, &step, "one") && is_known(f, &step, "two"));
}

static void keys_of_working_memory_go_with_it(void **state) {
    fixture *f = *state;
    sql(f, insert_model);
    take_step(f, &forward, "one", 1);
    assert_true(is_known(f, &forward, "one"));
    save(f, 1, false);
    expect_rows(f, 1, 0);
    restart(f);
    assert_false(is_known(f, &forward, "one"));
}

static void keys_go_with_their_model(void **state) {
    fixture *f = *state;
    sql(f, insert_model);
    take_step(f, &step, "saved", 1);
    save(f, 1, false);
    take_step(f, &step, "waits", 2);
    sql(f, "DELETE FROM models");
    gs_idempotency_forget(f->server.idempotency, 7, 0);
    expect_rows(f, 0, 0);
    assert_false(is_known(f, &step, "saved"));
    assert_false(is_known(f, &step, "waits"));
}

static void keys_that_are_being_saved_are_forgotten_afterwards(void **state) {
    fixture *f = *state;
    take_step(f, &step, "one", 1);
    assert_int_equal(gs_store_do(f->server.store, write_checkpoint, &(checkpoint){f, 1, false}, NULL),
                     -1); /* no model */
    gs_idempotency_forget(f->server.idempotency, 7, 0);
    assert_true(is_known(f, &step, "one"));
    gs_idempotency_settle(f->server.idempotency, 7, UINT64_MAX, false);
    assert_false(is_known(f, &step, "one"));
}

static int cut(gs_store *store, void *argument, gp_error *error) {
    (void)argument;
    return gs_idempotency_cut(store, 7, 1, error);
}

static void a_model_that_goes_back_forgets_what_came_later(void **state) {
    fixture *f = *state;
    sql(f, insert_model);
    take_step(f, &step, "one", 1);
    take_step(f, &step, "two", 2);
    save(f, 2, false);
    assert_int_equal(gs_store_do(f->server.store, cut, NULL, NULL), 0);
    gs_idempotency_forget(f->server.idempotency, 7, 1);
    assert_true(is_known(f, &step, "one"));
    assert_false(is_known(f, &step, "two"));
    restart(f);
    assert_true(is_known(f, &step, "one"));
    assert_false(is_known(f, &step, "two"));
}

static void a_key_is_kept_for_a_day(void **state) {
    fixture *f = *state;
    char settled[8];
    run_two(f, "old", insert_dataset, settled);
    sql(f, "UPDATE idempotency SET created_ms = created_ms - 86400000 + 60000");
    restart(f);
    assert_true(is_known(f, &durable, "old"));
    sql(f, "UPDATE idempotency SET created_ms = created_ms - 60000");
    restart(f);
    assert_false(is_known(f, &durable, "old"));
    expect_rows(f, 1, 0);
}

static void the_store_keeps_no_more_keys_than_memory(void **state) {
    fixture *f = *state;
    sql(f, insert_model);
    for (int i = 0; i < 150; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        take_step(f, &step, key, 1);
        save(f, 1, false);
    }
    expect_rows(f, 1, 100);
    restart(f);
    assert_true(is_known(f, &step, "k50") && is_known(f, &step, "k149"));
    assert_false(is_known(f, &step, "k49"));
}

int main(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(effects_and_key_are_committed_together),
        T(effects_that_cannot_be_committed_are_taken_back),
        T(effects_of_a_handler_that_fails_are_taken_back),
        T(a_request_has_a_few_effects_at_most),
        T(keys_of_steps_are_durable_with_their_checkpoint),
        T(keys_of_a_checkpoint_that_failed_come_with_the_next),
        T(keys_of_working_memory_go_with_it),
        T(keys_go_with_their_model),
        T(keys_that_are_being_saved_are_forgotten_afterwards),
        T(a_model_that_goes_back_forgets_what_came_later),
        T(a_key_is_kept_for_a_day),
        T(the_store_keeps_no_more_keys_than_memory),
    };
    return cmocka_run_group_tests_name("effects", tests, NULL, NULL);
}
