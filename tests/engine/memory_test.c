/* memory_test.c -- memory is counted to the byte, limited, and given back. */
#include "tests/support.h"

static const char loss[] = "{'type': 'CrossEntropyLoss'}";
static const char optimizer[] = "{'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}";

static void train_once(gd_model *model, int64_t batch) {
    gd_tensor input = test_random(TEST_SHAPE(batch, 1, 32, 32), 1);
    gd_tensor target = test_random_classes(batch, 10, 2);
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), &error);
    free(input.data);
    free(target.data);
}

/* What gd_graph_memory() says before there is a model. */
static size_t foretold(gd_engine *engine, int64_t batch) {
    gd_model *model = test_model(engine, test_lenet(NULL, NULL));
    const gd_field fields[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 0.01}},
                               {"momentum", {.kind = GD_VALUE_FLOAT, .number = 0.9}}};
    const gd_term_spec term = {.loss = {.type = "CrossEntropyLoss"}, .weight = 1};
    const gd_model_config config = {.loss = {&term, 1}, .optimizer = {"SGD", fields, 2}};
    size_t bytes = 0;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_graph_memory(engine, gd_model_graph(model), &config, batch, &bytes, &error), &error);
    gd_model_free(model);
    return bytes;
}

static void the_foretold_memory_is_what_training_takes(void **state) {
    (void)state;
    static const int64_t batches[] = {1, 37, 64, 130};
    for (int threads = 1; threads <= 3; threads++)
        for (int b = 0; b < 4; b++) {
            gd_engine *engine = test_engine(threads, 0);
            size_t bytes = foretold(engine, batches[b]);
            gd_model *model = test_model(engine, test_lenet(loss, optimizer));
            train_once(model, batches[b]);
            assert_int_equal(gd_model_memory(model), bytes);
            assert_int_equal(gd_engine_memory(engine), bytes);
            train_once(model, batches[b]); /* nothing more is taken */
            assert_int_equal(gd_model_memory(model), bytes);
            gd_model_free(model);
            gd_engine_free(engine);
        }
}

/* Of a sample the pooled planes, where their maxima were and what the linear layers read is kept: 12 kB, and
 * not the 28 kB that the convolutions write, nor as much of gradients. */
static void what_only_a_slice_needs_is_not_kept_for_the_batch(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    const size_t more = foretold(engine, 2048) - foretold(engine, 1024);
    assert_in_range(more / 1024, 8000, 16000);
    gd_engine_free(engine);
}

static void freed_models_give_everything_back(void **state) {
    (void)state;
    gd_engine *engine = test_engine(2, 0);
    assert_int_equal(gd_engine_memory(engine), 0);
    gd_model *a = test_model(engine, test_lenet(loss, optimizer));
    gd_model *b = test_model(engine, test_lenet(loss, optimizer));
    train_once(a, 16);
    train_once(b, 3);
    assert_int_equal(gd_engine_memory(engine), gd_model_memory(a) + gd_model_memory(b));
    gd_model_free(a);
    assert_int_equal(gd_engine_memory(engine), gd_model_memory(b));
    gd_model_free(b);
    assert_int_equal(gd_engine_memory(engine), 0);
    gd_model_free(NULL);
    gd_engine_free(engine);
}

static void a_model_over_the_limit_is_not_made(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 100000); /* LeNet's parameters alone take 325 kB */
    json_t *definition = test_lenet(loss, optimizer);
    gd_model *model = NULL;
    test_failure failure;
    assert_int_equal(test_build(engine, definition, &model, &failure), -1);
    assert_string_equal(failure.code, "out_of_memory");
    assert_non_null(strstr(failure.message, "100000"));
    assert_null(model);
    assert_int_equal(gd_engine_memory(engine), 0);
    json_decref(definition);
    gd_engine_free(engine);
}

static void a_batch_over_the_limit_is_refused_and_the_model_works_on(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    size_t bytes = foretold(engine, 16);
    gd_engine_free(engine);
    engine = test_engine(1, bytes);
    assert_int_equal(gd_engine_memory_limit(engine), bytes);

    gd_model *model = test_model(engine, test_lenet(loss, optimizer));
    train_once(model, 16); /* just fits */
    gd_tensor input = test_random(TEST_SHAPE(512, 1, 32, 32), 1), output;
    gd_tensor target = test_random_classes(512, 10, 2);
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    size_t count;
    float *before = test_parameters(model, &count);
    uint64_t version = gd_model_version(model);
    assert_int_equal(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error),
                     GD_E_MEMORY);
    assert_true(error.message[0] != 0);
    error = (gd_error)GD_ERROR_INIT;
    assert_int_equal(gd_model_forward(model, &input, 1, &output, &error), GD_E_MEMORY);
    float *after = test_parameters(model, &count);
    assert_memory_equal(before, after, count * sizeof *before);
    assert_int_equal(gd_model_version(model), version);
    assert_int_equal(gd_model_steps(model), 1);
    assert_true(gd_engine_memory(engine) <= bytes);
    train_once(model, 16);
    assert_int_equal(gd_model_steps(model), 2);
    free(before);
    free(after);
    free(input.data);
    free(target.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void a_batch_too_large_to_count_is_refused(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = test_model(engine, test_lenet(loss, optimizer));
    size_t bytes = 0, before = gd_engine_memory(engine);
    gd_error error = GD_ERROR_INIT;
    assert_int_not_equal(
        gd_graph_memory(engine, gd_model_graph(model), &(gd_model_config){0}, INT64_MAX / 8, &bytes, &error),
        0);
    float one = 0;
    gd_tensor huge = {GD_FLOAT32, TEST_SHAPE(INT64_MAX / 8, 1, 32, 32), &one}, output;
    error = (gd_error)GD_ERROR_INIT;
    assert_int_not_equal(gd_model_forward(model, &huge, 1, &output, &error), 0);
    assert_int_equal(gd_engine_memory(engine), before);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void a_smaller_limit_refuses_one_byte_less(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    size_t bytes = foretold(engine, 8);
    gd_engine_free(engine);
    engine = test_engine(1, bytes - 1);
    gd_model *model = NULL;
    test_failure failure;
    json_t *definition = test_lenet(loss, optimizer);
    assert_int_equal(test_build(engine, definition, &model, &failure), 0);
    gd_tensor input = test_random(TEST_SHAPE(8, 1, 32, 32), 1);
    gd_tensor target = test_random_classes(8, 10, 2);
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    assert_int_equal(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error),
                     GD_E_MEMORY);
    assert_int_equal(gd_model_steps(model), 0);
    json_decref(definition);
    free(input.data);
    free(target.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_foretold_memory_is_what_training_takes),
        cmocka_unit_test(what_only_a_slice_needs_is_not_kept_for_the_batch),
        cmocka_unit_test(freed_models_give_everything_back),
        cmocka_unit_test(a_model_over_the_limit_is_not_made),
        cmocka_unit_test(a_batch_over_the_limit_is_refused_and_the_model_works_on),
        cmocka_unit_test(a_batch_too_large_to_count_is_refused),
        cmocka_unit_test(a_smaller_limit_refuses_one_byte_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
