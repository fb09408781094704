/* lbfgs_test.c -- LBFGS takes torch's steps with as many evaluations; its state; what is refused. */
#include <math.h>

#include "tests/support.h"

static json_t *golden;
static test_golden values;

static json_t *optimizer_of(const json_t *attributes) {
    json_t *spec = json_copy((json_t *)(uintptr_t)attributes);
    json_object_set_new(spec, "type", json_string("LBFGS"));
    return spec;
}

/* A network of tests/golden/make_lbfgs.py with its first parameters. Takes the reference to the optimizer. */
static gd_model *model_of(gd_engine *engine, const char *network, json_t *optimizer) {
    const bool mlp = strcmp(network, "mlp") == 0;
    json_t *json =
        test_json(mlp ? "{'name': 'net', 'input': {'shape': [3]}, 'loss': {'type': 'MSELoss'}, 'layers': ["
                        "{'type': 'Linear', 'out_features': 8}, {'type': 'Tanh'}, {'type': 'Linear', "
                        "'out_features': 2}]}"
                      : "{'name': 'net', 'input': {'shape': [6]}, 'loss': {'type': 'CrossEntropyLoss'},"
                        " 'layers': [{'type': 'Linear', 'out_features': 4}]}");
    json_object_set_new(json, "optimizer", optimizer);
    gd_model *model = test_model(engine, json);
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const char *name = gd_model_parameter(model, i)->name;
        gd_tensor first = test_golden_get(&values, "%s/%s", network, name);
        test_set_parameter(model, name, &first);
    }
    return model;
}

static int step(gd_model *model, const char *network, const gd_step_options *options, gd_step_result *result,
                gd_error *error) {
    gd_tensor input = test_golden_get(&values, "%s/input", network);
    gd_tensor target = test_golden_get(&values, "%s/target", network);
    return gd_model_train_step(model, &input, 1, &target, NULL, options, result, error);
}

static gd_step_result good_step(gd_model *model, const char *network) {
    gd_error error = GD_ERROR_INIT;
    gd_step_result result = {0};
    test_ok(step(model, network, NULL, &result, &error), &error);
    return result;
}

static void expect_parameters(const gd_model *model, const char *run, int after) {
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        gd_tensor expected = test_golden_get(&values, "%s/%d/%s", run, after, parameter->name);
        test_close_values(expected.data, parameter->data, parameter->numel, 1e-5, parameter->name);
    }
}

static void expect_run(gd_engine *engine, const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "name"));
    const char *network = json_string_value(json_object_get(row, "network"));
    const json_t *evaluations = json_object_get(row, "evaluations"), *losses = json_object_get(row, "losses");
    const int kept = (int)json_integer_value(json_object_get(row, "kept"));
    const gd_step_options options = {.clip_grad_norm =
                                         json_number_value(json_object_get(row, "clip_grad_norm"))};
    gd_model *model = model_of(engine, network, optimizer_of(json_object_get(row, "attributes")));
    for (size_t i = 0; i < json_array_size(evaluations); i++) {
        gd_error error = GD_ERROR_INIT;
        gd_step_result result = {0};
        test_ok(step(model, network, &options, &result, &error), &error);
        const int64_t wanted = json_integer_value(json_array_get(evaluations, i));
        if (result.evaluations != wanted)
            fail_msg("%s, step %zu: %d evaluations, should be %d", name, i + 1, (int)result.evaluations,
                     (int)wanted);
        assert_int_equal(result.step, i + 1);
        assert_int_equal(result.count, 64);
        if (i < json_array_size(losses)) {
            const double loss = json_number_value(json_array_get(losses, i));
            assert_float_equal(result.loss, loss, 1e-5 * loss);
        }
        if ((int)i < kept)
            expect_parameters(model, name, (int)i + 1);
    }
    gd_model_free(model);
}

static void runs_match(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    const char *key;
    const json_t *row;
    int runs = 0;
    json_object_foreach(golden, key, row) {
        if (strncmp(key, "run", 3) != 0)
            continue;
        expect_run(engine, row);
        runs++;
    }
    assert_true(runs > 25);
    gd_engine_free(engine);
}

/* Far beyond where float32 and float64 part: the network is learnt nevertheless. */
static void a_regression_is_learnt(void **state) {
    (void)state;
    static const char *const specs[] = {"{'type': 'LBFGS', 'history_size': 10}",
                                        "{'type': 'LBFGS', 'line_search_fn': 'strong_wolfe'}"};
    for (int i = 0; i < 2; i++) {
        gd_engine *engine = test_engine(1, 0);
        gd_model *model = model_of(engine, "mlp", test_json(specs[i]));
        double first = good_step(model, "mlp").loss, last = first;
        for (int s = 0; s < 20; s++)
            last = good_step(model, "mlp").loss;
        if (!(last < first / 100))
            fail_msg("%s: the loss went from %g to %g", specs[i], first, last);
        gd_model_free(model);
        gd_engine_free(engine);
    }
}

/* ---- large vectors ------------------------------------------------------------------------------------ */

/* Several blocks long, with dropout and batch norm: every evaluation draws and counts. */
static gd_model *large_model(gd_engine *engine) {
    return test_model(
        engine,
        test_json(
            "{'name': 'large', 'input': {'shape': [50]}, 'loss': {'type': 'CrossEntropyLoss'}, 'layers': ["
            "{'type': 'Linear', 'out_features': 900}, {'type': 'BatchNorm1d', 'name': 'norm'},"
            "{'type': 'Dropout'}, {'type': 'relu'}, {'type': 'Linear', 'out_features': 5}],"
            "'optimizer': {'type': 'LBFGS', 'max_iter': 4, 'history_size': 3,"
            " 'line_search_fn': 'strong_wolfe'}}"));
}

/* @return evaluations */
static int64_t train_large(gd_model *model) {
    gd_tensor input = test_random(TEST_SHAPE(20, 50), 1), target = test_random_classes(20, 5, 2);
    gd_error error = GD_ERROR_INIT;
    gd_step_result result = {0};
    test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), &error);
    free(input.data);
    free(target.data);
    return result.evaluations;
}

static void any_number_of_threads_gives_the_same_bits(void **state) {
    (void)state;
    float *first = NULL;
    for (int threads = 1; threads <= 4; threads++) {
        gd_engine *engine = test_engine(threads, 0);
        gd_model *model = large_model(engine);
        for (int s = 0; s < 3; s++)
            train_large(model);
        size_t count;
        float *after = test_parameters(model, &count);
        assert_true(count > 3 * 16384);
        if (first) {
            assert_memory_equal(first, after, count * sizeof *after);
            free(after);
        } else {
            first = after;
        }
        gd_model_free(model);
        gd_engine_free(engine);
    }
    free(first);
}

static void every_evaluation_is_a_forward_in_training(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = large_model(engine);
    int64_t evaluations = 0;
    for (int s = 0; s < 3; s++)
        evaluations += train_large(model);
    assert_true(evaluations > 6);
    const int64_t *batches = (const void *)test_parameter(model, "norm.num_batches_tracked")->data;
    assert_int_equal(*batches, evaluations);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* ---- memory and state ------------------------------------------------------------------------------------
 */

static void the_state_is_counted_and_foretold(void **state) {
    (void)state;
    gd_engine *engine = test_engine(2, 0);
    const gd_field fields[] = {{"history_size", {.kind = GD_VALUE_INT, .integer = 7}}};
    const gd_term_spec term = {.loss = {.type = "CrossEntropyLoss"}, .weight = 1};
    const gd_model_config config = {.loss = {&term, 1}, .optimizer = {"LBFGS", fields, 1}};
    gd_model *model = model_of(engine, "logistic", test_json("{'type': 'LBFGS', 'history_size': 7}"));
    gd_error error = GD_ERROR_INIT;
    size_t foretold = 0, before = gd_model_memory(model);
    test_ok(gd_graph_memory(engine, gd_model_graph(model), &config, 64, &foretold, &error), &error);
    good_step(model, "logistic");
    assert_int_equal(gd_model_memory(model), foretold);
    assert_true(before > 2 * 7 * 32 * sizeof(float)); /* (6 + 1) * 4 parameters, on cache lines */
    for (int s = 0; s < 3; s++)
        good_step(model, "logistic");
    assert_int_equal(gd_model_memory(model), foretold);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void a_history_over_the_limit_is_refused(void **state) {
    (void)state;
    static const char *const sizes[] = {"{'type': 'LBFGS', 'history_size': 2000}",
                                        "{'type': 'LBFGS', 'history_size': 2147483647}"};
    gd_engine *engine = test_engine(1, 100000);
    gd_model *model = model_of(engine, "logistic", test_json("{'type': 'LBFGS', 'history_size': 5}"));
    good_step(model, "logistic");
    const uint64_t version = gd_model_version(model);
    for (int i = 0; i < 2; i++) {
        gd_model *refused = NULL;
        test_failure failure;
        json_t *json = test_json("{'name': 'net', 'input': {'shape': [6]}, 'layers': [{'type': 'Linear',"
                                 " 'out_features': 4}]}");
        json_object_set_new(json, "optimizer", test_json(sizes[i]));
        assert_int_equal(test_build(engine, json, &refused, &failure), -1);
        assert_string_equal(failure.code, "out_of_memory");
        json_decref(json);
    }
    const gd_field more[] = {{"history_size", {.kind = GD_VALUE_INT, .integer = 2000}}};
    const gd_optimizer_spec spec = {.fields = more, .field_count = 1};
    gd_error error = GD_ERROR_INIT;
    assert_int_equal(gd_model_change(model, &(gd_model_patch){.optimizer = &spec}, &error), GD_E_MEMORY);
    assert_int_equal(gd_model_version(model), version);
    good_step(model, "logistic");
    gd_model_free(model);
    gd_engine_free(engine);
}

static double number_of(const gd_model *model, const char *name) {
    double value;
    const char *found;
    for (size_t i = 0; (found = gd_model_optimizer_number(model, i, &value)); i++)
        if (strcmp(found, name) == 0)
            return value;
    fail_msg("no number '%s'", name);
    return 0;
}

static void another_history_begins_afresh(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, "mlp", test_json("{'type': 'LBFGS', 'history_size': 3}"));
    good_step(model, "mlp");
    assert_int_equal((int)number_of(model, "n_iter"), 20);
    assert_int_equal((int)number_of(model, "history"), 3);
    const gd_field field = {"history_size", {.kind = GD_VALUE_INT, .integer = 5}};
    const gd_step_options options = {.fields = &field, .field_count = 1};
    const gd_optimizer_spec spec = {.fields = &field, .field_count = 1};
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    assert_int_equal(step(model, "mlp", &options, &result, &error), GD_E_ATTRIBUTE);
    assert_string_equal(error.field, "history_size");
    assert_int_equal((int)number_of(model, "n_iter"), 20);
    error = (gd_error)GD_ERROR_INIT;
    test_ok(gd_model_change(model, &(gd_model_patch){.optimizer = &spec}, &error), &error);
    assert_int_equal((int)number_of(model, "n_iter"), 0);
    good_step(model, "mlp");
    assert_int_equal((int)number_of(model, "history"), 5);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void another_optimizer_gives_the_history_back(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, "mlp", test_json("{'type': 'SGD'}"));
    good_step(model, "mlp");
    const size_t before = gd_model_memory(model);
    const gd_optimizer_spec lbfgs = {.type = "LBFGS"}, sgd = {.type = "SGD"};
    gd_error error = GD_ERROR_INIT;
    double value;
    test_ok(gd_model_change(model, &(gd_model_patch){.optimizer = &lbfgs}, &error), &error);
    assert_true(gd_model_memory(model) > before);
    good_step(model, "mlp");
    test_ok(gd_model_change(model, &(gd_model_patch){.optimizer = &sgd}, &error), &error);
    assert_int_equal(gd_model_memory(model), before);
    assert_int_equal(gd_engine_memory(engine), before);
    assert_null(gd_model_optimizer_number(model, 0, &value));
    good_step(model, "mlp");
    gd_model_free(model);
    gd_engine_free(engine);
}

/* Everything that is kept, from one model into another. */
static void copy_state(const gd_model *from, gd_model *to) {
    gd_error error = GD_ERROR_INIT;
    double number;
    const float *slot;
    for (size_t i = 0; gd_model_optimizer_number(from, i, &number); i++)
        test_ok(gd_model_set_optimizer_number(to, i, number, &error), &error);
    for (size_t p = 0; p < gd_model_parameter_count(from); p++) {
        const gd_parameter *parameter = gd_model_parameter(from, p);
        const gd_tensor tensor = {GD_FLOAT32, parameter->shape, parameter->data};
        test_set_parameter(to, parameter->name, &tensor);
        for (size_t k = 0; gd_model_optimizer_slot(from, p, k, &slot); k++)
            test_ok(gd_model_set_optimizer_slot(to, p, k, slot, &error), &error);
    }
}

static void a_copied_state_goes_on_with_the_same_bits(void **state) {
    (void)state;
    static const char spec[] = "{'type': 'LBFGS', 'history_size': 4, 'max_iter': 6}";
    gd_engine *engine = test_engine(1, 0);
    gd_model *one = model_of(engine, "mlp", test_json(spec)),
             *other = model_of(engine, "mlp", test_json(spec));
    good_step(one, "mlp"); /* more changes than the history holds: it has gone round */
    good_step(one, "mlp");
    copy_state(one, other);
    for (int s = 0; s < 3; s++) {
        good_step(one, "mlp");
        good_step(other, "mlp");
        for (size_t p = 0; p < gd_model_parameter_count(one); p++)
            assert_memory_equal(gd_model_parameter(one, p)->data, gd_model_parameter(other, p)->data,
                                (size_t)gd_model_parameter(one, p)->numel * sizeof(float));
    }
    gd_model_free(one);
    gd_model_free(other);
    gd_engine_free(engine);
}

static void a_state_that_cannot_be_is_refused(void **state) {
    (void)state;
    static const double bad[] = {-1, 4.0000001, 5, 1e300, NAN};
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, "mlp", test_json("{'type': 'LBFGS', 'history_size': 4}"));
    float zeros[64] = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gd_error error = GD_ERROR_INIT;
        assert_int_equal(gd_model_set_optimizer_number(model, 0, bad[i], &error), GD_E_VALUE);
        assert_string_equal(error.field, "history");
    }
    assert_int_equal(gd_model_set_optimizer_number(model, 6, 0, NULL), GD_E_NOT_FOUND);
    assert_int_equal(gd_model_set_optimizer_slot(model, 0, 2, zeros, NULL), GD_E_NOT_FOUND);
    test_ok(gd_model_set_optimizer_number(model, 0, 4, &(gd_error)GD_ERROR_INIT), NULL);
    test_ok(gd_model_set_optimizer_slot(model, 0, 9, zeros, &(gd_error)GD_ERROR_INIT), NULL);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* ---- the rest
 * ---------------------------------------------------------------------------------------------- */

static void a_frozen_parameter_stays(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    for (int when = 0; when < 2; when++) { /* from the beginning, and with a history */
        gd_model *model = model_of(engine, "mlp", test_json("{'type': 'LBFGS', 'max_iter': 5}"));
        if (when)
            good_step(model, "mlp");
        size_t index;
        const gd_parameter *frozen = gd_model_find_parameter(model, "0.weight", &index);
        gd_model_set_requires_grad(model, index, false);
        float before[24];
        memcpy(before, frozen->data, sizeof before);
        const double loss = good_step(model, "mlp").loss;
        assert_true(good_step(model, "mlp").loss < loss);
        assert_memory_equal(before, frozen->data, sizeof before);
        const float *direction;
        assert_string_equal(gd_model_optimizer_slot(model, index, 0, &direction), "d");
        for (int i = 0; i < 24; i++)
            assert_float_equal(direction[i], 0, 0);
        gd_model_free(model);
    }
    gd_engine_free(engine);
}

static void a_schedule_turns_its_rate(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, "logistic", test_json("{'type': 'LBFGS', 'max_iter': 1}"));
    const gd_field gamma = {"gamma", {.kind = GD_VALUE_FLOAT, .number = 0.5}};
    const gd_scheduler_spec scheduler = {.type = "ExponentialLR", .fields = &gamma, .field_count = 1};
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_change(model, &(gd_model_patch){.scheduler = &scheduler}, &error), &error);
    assert_float_equal(good_step(model, "logistic").lr, 1, 0);
    assert_float_equal(good_step(model, "logistic").lr, 0.5, 0);
    assert_float_equal(gd_model_lr(model), 0.25, 0);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* BCELoss takes 0 ... 1 only, and a linear layer soon leaves that. */
static void a_refusal_on_the_way_puts_everything_back(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model =
        test_model(engine, test_json("{'name': 'net', 'input': {'shape': [1]}, 'loss': {'type': 'BCELoss'},"
                                     " 'layers': [{'type': 'Linear', 'name': 'l', 'out_features': 1}],"
                                     " 'optimizer': {'type': 'LBFGS', 'lr': 1000}}"));
    float weight = 0, bias = 0.5, one = 1;
    test_set_parameter(model, "l.weight", &(gd_tensor){GD_FLOAT32, TEST_SHAPE(1, 1), &weight});
    test_set_parameter(model, "l.bias", &(gd_tensor){GD_FLOAT32, TEST_SHAPE(1), &bias});
    gd_tensor input = {GD_FLOAT32, TEST_SHAPE(1, 1), &one}, target = input;
    gd_error error = GD_ERROR_INIT;
    gd_step_result result = {.step = -1};
    assert_int_equal(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), GD_E_VALUE);
    assert_int_equal(result.step, -1);
    assert_int_equal(gd_model_steps(model), 0);
    assert_float_equal(*test_parameter(model, "l.weight")->data, 0, 0);
    assert_float_equal(*test_parameter(model, "l.bias")->data, 0.5, 0);
    assert_int_equal((int)number_of(model, "n_iter"), 0);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* The loss that comes with the request serves all evaluations, and only these. */
static void a_loss_for_once_serves_all_evaluations(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *one = model_of(engine, "mlp", test_json("{'type': 'LBFGS', 'max_iter': 6}"));
    gd_model *other = model_of(engine, "mlp", test_json("{'type': 'LBFGS', 'max_iter': 6}"));
    const gd_term_spec term = {.loss = {.type = "HuberLoss"}, .weight = 1};
    const gd_loss_spec huber = {&term, 1};
    gd_tensor input = test_golden_get(&values, "mlp/input"), target = test_golden_get(&values, "mlp/target");
    gd_error error = GD_ERROR_INIT;
    gd_step_result result, again;
    test_ok(gd_model_train_step(one, &input, 1, &target, &huber, NULL, &result, &error), &error);
    test_ok(gd_model_change(other, &(gd_model_patch){.loss = &huber}, &error), &error);
    test_ok(gd_model_train_step(other, &input, 1, &target, NULL, NULL, &again, &error), &error);
    assert_int_equal(result.evaluations, again.evaluations);
    assert_true(result.evaluations > 2);
    size_t count;
    float *a = test_parameters(one, &count), *b = test_parameters(other, &count);
    assert_memory_equal(a, b, count * sizeof *a);
    free(a);
    free(b);
    gd_model_free(one);
    gd_model_free(other);
    gd_engine_free(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_match),
        cmocka_unit_test(a_regression_is_learnt),
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(every_evaluation_is_a_forward_in_training),
        cmocka_unit_test(the_state_is_counted_and_foretold),
        cmocka_unit_test(a_history_over_the_limit_is_refused),
        cmocka_unit_test(another_history_begins_afresh),
        cmocka_unit_test(another_optimizer_gives_the_history_back),
        cmocka_unit_test(a_copied_state_goes_on_with_the_same_bits),
        cmocka_unit_test(a_state_that_cannot_be_is_refused),
        cmocka_unit_test(a_frozen_parameter_stays),
        cmocka_unit_test(a_schedule_turns_its_rate),
        cmocka_unit_test(a_refusal_on_the_way_puts_everything_back),
        cmocka_unit_test(a_loss_for_once_serves_all_evaluations),
    };
    golden = test_golden_json("lbfgs.json");
    test_golden_open(&values, "lbfgs.safetensors");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    test_golden_close(&values);
    json_decref(golden);
    return failed;
}
