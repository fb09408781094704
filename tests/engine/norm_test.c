/* norm_test.c -- what samples cannot show of normalisation: batches too small for statistics. */
#include "tests/support.h"

static gd_model *batch_norm_model(gd_engine *engine) {
    return test_model(engine, test_json("{'name': 'norm', 'class_name': 'Net', 'seed': 0,"
                                        " 'inputs': {'x': {'shape': [3]}},"
                                        " 'layers': [{'type': 'Linear', 'out_features': 2},"
                                        "            {'type': 'BatchNorm1d'}]}"));
}

static void one_value_per_channel_is_refused_in_training_alone(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = batch_norm_model(engine);
    gd_tensor one = test_random(TEST_SHAPE(1, 3), 1), output = {0};
    gd_error error = GD_ERROR_INIT;
    assert_int_equal(gd_model_forward(model, &one, 1, &output, &error), GD_E_SHAPE);
    assert_non_null(strstr(error.message, "layer '1' (BatchNorm1d): needs more than 1 value per channel"));
    error = (gd_error)GD_ERROR_INIT;
    test_ok(gd_model_predict(model, &one, 1, &output, &error), &error);
    const bool training = false;
    const gd_model_patch mode = {.training = &training};
    test_ok(gd_model_change(model, &mode, &error), &error);
    test_ok(gd_model_forward(model, &one, 1, &output, &error), &error);
    free(one.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void a_refused_batch_leaves_the_kept_graph_as_it_was(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = batch_norm_model(engine);
    gd_tensor four = test_random(TEST_SHAPE(4, 3), 1), one = test_random(TEST_SHAPE(1, 3), 2), output = {0};
    gd_tensor gradient = test_random(TEST_SHAPE(4, 2), 3);
    gd_error error = GD_ERROR_INIT, refused = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &four, 1, &output, &error), &error);
    assert_int_equal(gd_model_forward(model, &one, 1, &output, &refused), GD_E_SHAPE);
    test_ok(gd_model_backward(model, &gradient, false, &error), &error);
    assert_int_equal(*(const int64_t *)gd_model_parameter(model, 6)->data, 1);
    free(four.data);
    free(one.data);
    free(gradient.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* As in torch 2: nothing is taken into the running statistics. */
static void instance_norm_without_momentum_keeps_its_statistics(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = test_model(
        engine,
        test_json("{'name': 'norm', 'class_name': 'Net', 'seed': 0, 'inputs': {'x': {'shape': [2, 5]}},"
                  " 'layers': [{'type': 'InstanceNorm1d', 'momentum': null,"
                  "             'track_running_stats': true}]}"));
    gd_tensor x = test_random(TEST_SHAPE(3, 2, 5), 1), output = {0};
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &x, 1, &output, &error), &error);
    for (size_t i = 0; i < 2; i++) {
        const gd_parameter *statistic = gd_model_parameter(model, i);
        assert_true(statistic->buffer);
        assert_true(((const float *)statistic->data)[1] == (float)i); /* running_mean, running_var */
    }
    free(x.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_value_per_channel_is_refused_in_training_alone),
        cmocka_unit_test(instance_norm_without_momentum_keeps_its_statistics),
        cmocka_unit_test(a_refused_batch_leaves_the_kept_graph_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
