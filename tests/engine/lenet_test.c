/* lenet_test.c -- the tutorial's network gives PyTorch's numbers, and still does after 100 steps. */
#include <math.h>

#include "tests/support.h"

enum { STEPS = 100, BATCHES = 4, BATCH = 8 };

static void it_prints_as_in_torch(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = test_model(engine, test_lenet(NULL, NULL));
    char *expected = test_read_file("tests/golden/lenet_repr.txt", NULL);
    char *actual = gd_graph_repr(gd_model_graph(model));
    assert_non_null(actual);
    assert_string_equal(actual, expected);
    free(actual);
    free(expected);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void check_loss(const char *type, const char *json) {
    test_golden golden;
    test_golden_open(&golden, "lenet.safetensors");
    json_t *graphs = test_golden_json("lenet_grad_fn.json");
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(engine, test_lenet(json, NULL));
    gd_tensor input = test_golden_get(&golden, "input"), output, loss;
    gd_tensor target = test_golden_get(&golden, "%s/target", type);
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
    gd_tensor expected = test_golden_get(&golden, "output");
    test_close(&expected, &output, 1e-5, "output");
    test_walk(model, json_object_get(graphs, "lenet"));
    assert_string_equal(gd_model_output_grad_fn(model, 0), "AddmmBackward0");

    test_ok(gd_model_loss(model, &target, NULL, &loss, &error), &error);
    expected = test_golden_get(&golden, "%s/value", type);
    test_close(&expected, &loss, 1e-5, "loss");
    char graph[64];
    snprintf(graph, sizeof graph, "lenet_%s", type);
    test_walk(model, json_object_get(graphs, graph));

    test_ok(gd_model_backward(model, NULL, false, &error), &error);
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        expected = test_golden_get(&golden, "%s/grad.%s", type, parameter->name);
        gd_tensor actual = {.dtype = GD_FLOAT32, .shape = parameter->shape, .data = parameter->grad};
        test_close(&expected, &actual, 1e-5, parameter->name);
    }
    gd_model_free(model);
    gd_engine_free(engine);
    json_decref(graphs);
    test_golden_close(&golden);
}

static void output_and_gradients_match_with_mse(void **state) {
    (void)state;
    check_loss("MSELoss", "{'type': 'MSELoss'}");
}

static void output_and_gradients_match_with_cross_entropy(void **state) {
    (void)state;
    check_loss("CrossEntropyLoss", "{'type': 'CrossEntropyLoss'}");
}

/* Steps through the golden batches; the loss of each, and the last parameters where they were kept. */
static void check_run(const char *name) {
    test_golden golden;
    test_golden_open(&golden, "lenet_steps.safetensors");
    json_t *runs = test_golden_json("lenet_runs.json"), *optimizer = json_object_get(runs, name);
    assert_non_null(optimizer);
    json_object_set_new(optimizer, "type", json_string("SGD"));
    json_t *definition = test_lenet("{'type': 'CrossEntropyLoss'}", NULL);
    json_object_set(definition, "optimizer", optimizer);
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(engine, definition);
    gd_tensor inputs = test_golden_get(&golden, "input"), targets = test_golden_get(&golden, "target");
    gd_tensor losses = test_golden_get(&golden, "%s/losses", name);
    gd_error error = GD_ERROR_INIT;
    for (int step = 0; step < STEPS; step++) {
        int batch = step % BATCHES;
        gd_tensor input = {GD_FLOAT32, TEST_SHAPE(BATCH, 1, 32, 32),
                           (float *)inputs.data + (size_t)batch * BATCH * 1024};
        gd_tensor target = {GD_INT64, TEST_SHAPE(BATCH), (int64_t *)targets.data + (size_t)batch * BATCH};
        gd_step_result result;
        test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), &error);
        assert_int_equal(result.step, step + 1);
        double expected = ((const float *)losses.data)[step];
        if (!(fabs(result.loss - expected) <= 1e-4 * (1 + fabs(expected))))
            fail_msg("step %d: the loss is %.7g, should be %.7g", step + 1, result.loss, expected);
    }
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        char key[256];
        snprintf(key, sizeof key, "%s/%s", name, parameter->name);
        if (!test_golden_has(&golden, key))
            continue;
        gd_tensor expected = test_golden_get(&golden, "%s", key);
        test_close_values(expected.data, parameter->data, parameter->numel, 1e-4, key);
    }
    gd_model_free(model);
    gd_engine_free(engine);
    json_decref(runs);
    test_golden_close(&golden);
}

static void a_hundred_steps_with_momentum_match(void **state) {
    (void)state;
    check_run("momentum");
}

static void a_hundred_steps_with_nesterov_and_weight_decay_match(void **state) {
    (void)state;
    check_run("nesterov_weight_decay");
}

static void a_hundred_steps_with_dampening_and_weight_decay_match(void **state) {
    (void)state;
    check_run("dampening_weight_decay");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_prints_as_in_torch),
        cmocka_unit_test(output_and_gradients_match_with_mse),
        cmocka_unit_test(output_and_gradients_match_with_cross_entropy),
        cmocka_unit_test(a_hundred_steps_with_momentum_match),
        cmocka_unit_test(a_hundred_steps_with_nesterov_and_weight_decay_match),
        cmocka_unit_test(a_hundred_steps_with_dampening_and_weight_decay_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
