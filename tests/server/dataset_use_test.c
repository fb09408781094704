/* dataset_use_test.c -- datasets as a job uses them: tensors in place, and no change meanwhile. */
#include "tests/support.h"

#include <string.h>

#include "server/server.h"

typedef struct text {
    const char *at;
} text;

static int read_text(void *argument, void *out, size_t room, size_t *ret_size, gp_error *error) {
    text *from = argument;
    size_t size = strlen(from->at);
    (void)error;
    size = size < room ? size : room;
    memcpy(out, from->at, size);
    from->at += size;
    *ret_size = size;
    return 0;
}

static int put(gs_server *server, const char *part, const char *csv, gp_error *error) {
    gs_upload upload;
    text from = {csv};
    bool created;
    gs_upload_init(&upload, server, part);
    gs_upload_receive(&upload, read_text, &from);
    assert_int_equal(upload.error.problem, GP_OK);
    int result = gs_datasets_put(&server->datasets, "d", "train", &upload, NULL, &created, error);
    gs_upload_release(&upload);
    return result;
}

static int setup(void **state) {
    gs_server *server = calloc(1, sizeof *server);
    char why[512];
    gp_error error = {0};
    server->log.level = GS_ERROR;
    server->config.max_dataset = 1 << 20;
    assert_int_equal(gs_store_open(NULL, &server->log, &server->store, why, sizeof why), 0);
    assert_int_equal(gs_datasets_init(&server->datasets, server->store, &server->log, 2, &error), 0);
    *state = server;
    return 0;
}

static int teardown(void **state) {
    gs_server *server = *state;
    gs_datasets_release(&server->datasets);
    gs_store_close(server->store);
    free(server);
    return 0;
}

static void what_is_used_is_neither_changed_nor_deleted(void **state) {
    gs_server *server = *state;
    gd_tensor input, target;
    gp_error error = {0};
    assert_int_equal(put(server, "input", "1,2\n3,4.5\n", &error), 0);
    assert_int_equal(put(server, "target", "7\n8\n", &error), 0);
    gs_dataset *dataset = gs_dataset_find(server, "d");
    assert_non_null(dataset);
    assert_int_equal(gs_dataset_split(dataset, "train", &input, &target, &error), 0);
    assert_int_equal(put(server, "target", "9\n9\n", &error), -1);
    assert_int_equal(error.problem, GP_CONFLICT);
    error = (gp_error){0};
    assert_int_equal(gs_datasets_delete(&server->datasets, "d", &error), -1);
    assert_int_equal(error.problem, GP_CONFLICT);
    assert_int_equal(input.dtype, GD_FLOAT32);
    assert_true(((const float *)input.data)[3] == 4.5f);
    assert_int_equal(((const int64_t *)target.data)[1], 8);
    gs_dataset_unref(dataset);
    error = (gp_error){0};
    assert_int_equal(put(server, "target", "9\n9\n", &error), 0);
    assert_int_equal(gs_datasets_delete(&server->datasets, "d", &error), 0);
    assert_null(gs_dataset_find(server, "d"));
}

static void rows_that_do_not_match_are_named(void **state) {
    gs_server *server = *state;
    gd_tensor input, target;
    gp_error error = {0};
    assert_int_equal(put(server, "input", "1\n2\n3\n", &error), 0);
    gs_dataset *dataset = gs_dataset_find(server, "d");
    assert_int_equal(gs_dataset_split(dataset, "train", &input, &target, &error), -1);
    assert_int_equal(error.problem, GP_NOT_FOUND);
    gs_dataset_unref(dataset);
    error = (gp_error){0};
    assert_int_equal(put(server, "target", "1\n2\n", &error), 0);
    dataset = gs_dataset_find(server, "d");
    assert_int_equal(gs_dataset_split(dataset, "train", &input, &target, &error), -1);
    assert_non_null(strstr(error.detail, "row 2 has no target"));
    gs_dataset_unref(dataset);
}

static void digits_are_a_dataset_like_any_other(void **state) {
    gs_server *server = *state;
    gd_tensor input, target;
    gp_error error = {0};
    gs_dataset *dataset = gs_dataset_find(server, "digits");
    uint8_t pixels[GD_DIGITS_SIDE * GD_DIGITS_SIDE];
    int64_t label;
    assert_int_equal(gs_dataset_split(dataset, "test", &input, &target, &error), 0);
    assert_int_equal(input.shape.dim[0], GD_DIGITS_TEST);
    gd_digits(true, GD_DIGITS_TEST - 1, 1, pixels, &label);
    assert_memory_equal((const uint8_t *)input.data + (GD_DIGITS_TEST - 1) * sizeof pixels, pixels,
                        sizeof pixels);
    assert_int_equal(((const int64_t *)target.data)[GD_DIGITS_TEST - 1], label);
    gs_dataset_unref(dataset);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_used_is_neither_changed_nor_deleted),
        TEST(rows_that_do_not_match_are_named),
        TEST(digits_are_a_dataset_like_any_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
