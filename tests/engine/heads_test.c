/* heads_test.c -- networks of several outputs and losses of several terms are PyTorch's: outputs, gradients,
 * the autograd graph, the losses of 50 steps; and what is wrong with them is told. */
#include <math.h>

#include "tests/support.h"

static const char *const cases[] = {"two_heads", "coder", "one_output", "one_scaled"};
enum { CASES = sizeof cases / sizeof cases[0] };

/* A case of golden/heads.json, built. */
typedef struct fixture {
    const char *name;
    gd_engine *engine;
    gd_model *model;
    json_t *all, *torch;
    test_golden golden;
    gd_tensor input, targets[GD_MAX_TERMS], outputs[GD_MAX_HEADS];
} fixture;

static fixture begin(const char *name, int threads) {
    fixture f = {.name = name, .engine = test_engine(threads, 0), .all = test_golden_json("heads.json")};
    gd_error error = GD_ERROR_INIT;
    gd_targets targets;
    f.torch = json_object_get(f.all, name);
    f.model = test_model(f.engine, json_incref(json_object_get(f.torch, "definition")));
    test_golden_open(&f.golden, "heads.safetensors");
    f.input = test_golden_get(&f.golden, "%s/input", name);
    test_ok(gd_model_targets(f.model, NULL, &targets, &error), &error);
    const json_t *names = json_object_get(f.torch, "targets");
    assert_int_equal(targets.count, json_array_size(names));
    for (size_t i = 0; i < targets.count; i++) {
        assert_string_equal(targets.names[i], json_string_value(json_array_get(names, i)));
        f.targets[i] = test_golden_get(&f.golden, "%s/target.%s", name, targets.names[i]);
    }
    return f;
}

static void end(fixture *f) {
    gd_model_free(f->model);
    gd_engine_free(f->engine);
    test_golden_close(&f->golden);
    json_decref(f->all);
}

static float total(fixture *f) {
    gd_tensor loss;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(f->model, &f->input, 1, f->outputs, &error), &error);
    test_ok(gd_model_loss(f->model, f->targets, NULL, &loss, &error), &error);
    assert_int_equal(loss.shape.rank, 0);
    return *(const float *)loss.data;
}

/* All gradients are those of the golden file under `set`; where it has none, there is none. */
static void compare_gradients(const fixture *f, const char *set) {
    for (size_t i = 0; i < gd_model_parameter_count(f->model); i++) {
        const gd_parameter *parameter = gd_model_parameter(f->model, i);
        char name[GP_MAX_NAME];
        snprintf(name, sizeof name, "%s/%s.%s", f->name, set, parameter->name);
        assert_int_equal(parameter->has_grad, test_golden_has(&f->golden, name));
        if (!parameter->has_grad)
            continue;
        const gd_tensor expected = test_golden_get(&f->golden, "%s", name);
        const gd_tensor grad = {GD_FLOAT32, parameter->shape, parameter->grad};
        test_close(&expected, &grad, 1e-5, name);
    }
}

/* ---- PyTorch's numbers ------------------------------------------------------------------------------- */

static void outputs_terms_and_gradients_are_torchs(void **state) {
    fixture f = begin(*state, 2);
    gd_error error = GD_ERROR_INIT;
    double values[GD_MAX_TERMS];
    const gd_tensor losses = test_golden_get(&f.golden, "%s/losses", f.name);
    const float *wanted = losses.data, sum = total(&f);
    test_close_values(wanted, &sum, 1, 1e-5, "the total");
    assert_int_equal(gd_model_loss_values(f.model, values), losses.shape.dim[1] - 1);
    for (int64_t t = 0; t + 1 < losses.shape.dim[1]; t++)
        assert_true(fabs(values[t] - (double)wanted[t + 1]) <= 1e-5 * (1 + fabs(values[t])));
    const gd_graph *graph = gd_model_graph(f.model);
    assert_int_equal(gd_graph_output_count(graph), json_array_size(json_object_get(f.torch, "outputs")));
    for (size_t i = 0; i < gd_graph_output_count(graph); i++) {
        const char *name = json_string_value(json_array_get(json_object_get(f.torch, "outputs"), i));
        const gd_tensor expected = test_golden_get(&f.golden, "%s/output.%s", f.name, name);
        assert_string_equal(gd_graph_output(graph, i)->name, name);
        test_close(&expected, &f.outputs[i], 1e-5, name);
    }
    test_ok(gd_model_backward(f.model, NULL, false, &error), &error);
    compare_gradients(&f, "grad");
    end(&f);
}

static void fifty_steps_have_torchs_losses(void **state) {
    fixture f = begin(*state, 2);
    const gd_tensor losses = test_golden_get(&f.golden, "%s/losses", f.name);
    const int64_t steps = losses.shape.dim[0], width = losses.shape.dim[1];
    assert_int_equal(steps, 50);
    for (int64_t step = 0; step < steps; step++) {
        const float *wanted = (const float *)losses.data + step * width;
        gd_step_result result;
        gd_error error = GD_ERROR_INIT;
        test_ok(gd_model_train_step(f.model, &f.input, 1, f.targets, NULL, NULL, &result, &error), &error);
        if (!(fabs(result.loss - (double)wanted[0]) <= 1e-4 * (1 + fabs((double)wanted[0]))))
            fail_msg("step %d: the loss is %.7g, should be %.7g", (int)step + 1, result.loss,
                     (double)wanted[0]);
        assert_int_equal(result.loss_count, width - 1);
        for (int64_t t = 0; t + 1 < width; t++)
            assert_true(fabs(result.losses[t] - (double)wanted[t + 1]) <= 1e-4);
        assert_int_equal(result.count, f.input.shape.dim[0]);
    }
    end(&f);
}

static void the_graph_of_the_sum_is_torchs(void **state) {
    fixture f = begin(*state, 1);
    (void)total(&f);
    test_walk(f.model, json_object_get(f.torch, "grad_fn"));
    const json_t *root = json_array_get(json_array_get(json_object_get(f.torch, "grad_fn"), 0), 0);
    assert_string_equal(gd_model_loss_grad_fn(f.model), json_string_value(root));
    end(&f);
}

static void gradients_of_some_outputs_go_back(void **state) {
    fixture f = begin(*state, 2);
    gd_error error = GD_ERROR_INIT;
    gd_tensor gradients[GD_MAX_HEADS] = {0};
    const gd_graph *graph = gd_model_graph(f.model);
    const size_t count = gd_graph_output_count(graph);
    test_ok(gd_model_forward(f.model, &f.input, 1, f.outputs, &error), &error);
    if (count == 1) { /* no gradient at all */
        assert_int_equal(gd_model_backward(f.model, gradients, false, &error), GD_E_SHAPE);
    } else {
        for (size_t i = 1; i < count; i++)
            gradients[i] =
                test_golden_get(&f.golden, "%s/gradient.%s", f.name, gd_graph_output(graph, i)->name);
        test_ok(gd_model_backward(f.model, gradients, false, &error), &error);
        compare_gradients(&f, "from_outputs");
    }
    end(&f);
}

/* ---- what else must hold ------------------------------------------------------------------------------- */

/* Shift every parameter along its gradient: the total changes by the gradient's squared norm. */
static void the_total_has_the_slope_that_gradients_say(void **state) {
    fixture f = begin(*state, 1);
    gd_error error = GD_ERROR_INIT;
    (void)total(&f);
    test_ok(gd_model_backward(f.model, NULL, false, &error), &error);
    const double norm = gd_model_grad_norm(f.model), step = 0.01;
    double at[2];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < gd_model_parameter_count(f.model); i++) {
            const gd_parameter *parameter = gd_model_parameter(f.model, i);
            float *moved = malloc((size_t)parameter->numel * sizeof *moved);
            assert_non_null(moved);
            for (int64_t k = 0; k < parameter->numel; k++)
                moved[k] =
                    (float)(parameter->data[k] + (side ? -2 : 1) * step * (double)parameter->grad[k] / norm);
            const gd_tensor values = {GD_FLOAT32, parameter->shape, moved};
            test_set_parameter(f.model, parameter->name, &values);
            free(moved);
        }
        at[side] = (double)total(&f);
    }
    const double measured = (at[0] - at[1]) / (2 * step);
    if (!(fabs(measured - norm) <= 5e-3 * norm))
        fail_msg("the slope is %.7g, the gradients say %.7g", measured, norm);
    end(&f);
}

static void the_bits_do_not_depend_on_threads(void **state) {
    float *first = NULL;
    size_t count = 0;
    for (int threads = 1; threads <= 4; threads++) {
        fixture f = begin(*state, threads);
        gd_step_result result;
        gd_error error = GD_ERROR_INIT;
        for (int step = 0; step < 5; step++)
            test_ok(gd_model_train_step(f.model, &f.input, 1, f.targets, NULL, NULL, &result, &error),
                    &error);
        float *values = test_parameters(f.model, &count);
        if (first)
            assert_memory_equal(first, values, count * sizeof *values);
        else
            first = values;
        if (first != values)
            free(values);
        end(&f);
    }
    free(first);
}

static void a_second_step_takes_no_more_memory(void **state) {
    fixture f = begin(*state, 2);
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_train_step(f.model, &f.input, 1, f.targets, NULL, NULL, &result, &error), &error);
    const size_t bytes = gd_model_memory(f.model);
    test_ok(gd_model_train_step(f.model, &f.input, 1, f.targets, NULL, NULL, &result, &error), &error);
    assert_int_equal(gd_model_memory(f.model), bytes);
    end(&f);
}

static void predict_and_evaluate_give_what_training_sees(void **state) {
    fixture f = begin(*state, 2);
    gd_error error = GD_ERROR_INIT;
    gd_tensor predicted[GD_MAX_HEADS];
    gd_step_result result;
    const float sum = total(&f);
    test_ok(gd_model_predict(f.model, &f.input, 1, predicted, &error), &error);
    for (size_t i = 0; i < gd_graph_output_count(gd_model_graph(f.model)); i++)
        test_close(&f.outputs[i], &predicted[i], 0, "prediction");
    test_ok(gd_model_evaluate(f.model, &f.input, 1, f.targets, &result, &error), &error);
    assert_float_equal(result.loss, sum, 0);
    assert_int_equal(result.correct >= 0, strcmp(f.name, "two_heads") == 0 || strcmp(f.name, "coder") == 0);
    end(&f);
}

/* Layers that take the whole batch end a stretch of work, after which memory is used again; not an output's.
 */
static void an_early_output_outlives_the_layers_after_it(void **state) {
    (void)state;
    static const char layers[] =
        "{'name': 'early', 'seed': 0, 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': "
        "'early', "
        "'out_features': 4}, {'type': 'BatchNorm1d'}, {'type': 'Linear', 'out_features': 4}, {'type': "
        "'BatchNorm1d'}, {'type': 'Linear', 'out_features': 4}, {'type': 'BatchNorm1d'}, {'type': 'Linear', "
        "'name': 'last', 'out_features': 4}], 'outputs': %s}";
    static const char *const outputs[] = {"['early']", "['last', 'early']"};
    gd_engine *engine = test_engine(1, 0);
    gd_tensor input = test_random(TEST_SHAPE(5, 4), 1), got[2][GD_MAX_HEADS];
    gd_model *models[2];
    gd_error error = GD_ERROR_INIT;
    for (int training = 0; training < 2; training++) {
        for (int k = 0; k < 2; k++) {
            char text[1024];
            snprintf(text, sizeof text, layers, outputs[k]); /* NOLINT: the format is the constant above */
            models[k] = test_model(engine, test_json(text));
            test_ok((training ? gd_model_forward : gd_model_predict)(models[k], &input, 1, got[k], &error),
                    &error);
        }
        test_close(&got[0][0], &got[1][1], 0, "the early output");
        gd_model_free(models[0]);
        gd_model_free(models[1]);
    }
    free(input.data);
    gd_engine_free(engine);
}

static void a_head_that_no_term_is_on_gets_no_gradient(void **state) {
    (void)state;
    fixture f = begin("two_heads", 1);
    gd_error error = GD_ERROR_INIT;
    gd_tensor loss;
    const gd_term_spec term = {.loss = {.type = "MSELoss"}, .output = "box", .weight = 1};
    const gd_loss_spec once = {&term, 1};
    gd_targets targets;
    test_ok(gd_model_targets(f.model, &once, &targets, &error), &error);
    assert_int_equal(targets.count, 1);
    assert_string_equal(targets.names[0], "target");
    test_ok(gd_model_forward(f.model, &f.input, 1, f.outputs, &error), &error);
    test_ok(gd_model_loss(f.model, &f.targets[1], &once, &loss, &error), &error);
    test_ok(gd_model_backward(f.model, NULL, false, &error), &error);
    assert_true(test_parameter(f.model, "box.weight")->has_grad);
    assert_true(test_parameter(f.model, "trunk.weight")->has_grad);
    assert_false(test_parameter(f.model, "kind.weight")->has_grad);
    end(&f);
}

static void every_loss_by_class_indices_counts_what_is_right(void **state) {
    (void)state;
    json_t *all = test_golden_json("heads.json"), *row;
    gd_engine *engine = test_engine(1, 0);
    test_golden golden;
    size_t i;
    test_golden_open(&golden, "heads.safetensors");
    const gd_tensor input = test_golden_get(&golden, "scored/input"),
                    target = test_golden_get(&golden, "scored/target");
    assert_true(json_array_size(json_object_get(all, "scored")) > 0);
    json_array_foreach(json_object_get(all, "scored"), i, row) {
        json_t *definition =
            test_json("{'name': 'scored', 'seed': 0, 'input': {'shape': [5]}, 'layers': [{'type': 'Linear', "
                      "'out_features': 4}], 'optimizer': {'type': 'SGD', 'lr': 0}}");
        json_object_set(definition, "loss", json_object_get(row, "loss"));
        gd_model *model = test_model(engine, definition);
        gd_step_result results[2];
        gd_error error = GD_ERROR_INIT;
        test_ok(gd_model_evaluate(model, &input, 1, &target, &results[0], &error), &error);
        test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &results[1], &error), &error);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(results[k].correct, json_integer_value(json_object_get(row, "correct")));
            assert_int_equal(results[k].count, json_integer_value(json_object_get(row, "count")));
        }
        gd_model_free(model);
    }
    test_golden_close(&golden);
    gd_engine_free(engine);
    json_decref(all);
}

/* ---- what is wrong ----------------------------------------------------------------------------------------
 */

#define NET \
    "{'name': 'bad', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'first', " \
    "'out_features': 3}, " \
    "{'type': 'Linear', 'name': 'second', 'out_features': 2}]"

static void bad_outputs_and_terms_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *rest, *code, *message;
    } bad[] = {
        {", 'outputs': {'y': 'secnd'}}", "invalid_graph", "did you mean 'second'?"},
        {", 'outputs': {'y': '@input'}}", "invalid_graph", "no such layer"},
        {", 'outputs': {'y': 'second:1'}}", "invalid_graph", "only 1 output"},
        {", 'outputs': ['first', 'first']}", "invalid_graph", "two outputs are called 'first'"},
        {", 'outputs': {'data': 'second'}}", "invalid_name", "not data"},
        {", 'outputs': {'a b': 'second'}}", "invalid_name", "an output's name"},
        {", 'outputs': ['second:0']}", "invalid_name", "{\"result\": \"second:0\"}"},
        {", 'outputs': {}}", "invalid_value", "at least one"},
        {", 'outputs': 'second'}", "invalid_value", "an object"},
        {", 'outputs': {'y': 3}}", "invalid_value", "a string"},
        {", 'outputs': {'a': 'first', 'b': 'first', 'c': 'first', 'd': 'first', 'e': 'first', 'f': 'first', "
         "'g': 'first', 'h': 'first', 'i': 'first', 'j': 'first', 'k': 'first', 'l': 'first', 'm': 'first', "
         "'n': 'first', 'o': 'first', 'p': 'first', 'q': 'first'}}",
         "limit_exceeded", "17 outputs, at most 16"},
        {", 'outputs': ['first', 'second'], 'loss': {'type': 'MSELoss', 'output': 'secnod'}}",
         "invalid_graph", "did you mean 'second'?"},
        {", 'loss': [{'type': 'MSELoss'}, {'type': 'MSELoss', 'output': 'first'}]}", "invalid_graph",
         "term 2 of the loss: the network has no output 'first'"},
        {", 'loss': [{'type': 'MSELoss', 'target': '@image'}]}", "invalid_graph", "one is '@input'"},
        {", 'loss': [{'type': 'MSELoss', 'target': 'shape'}]}", "invalid_name", "a target's name"},
        {", 'loss': [{'type': 'MSELoss', 'weight': '2'}]}", "invalid_attribute", "weight"},
        {", 'loss': [{'type': 'MSELoss', 'loss_weight': [2]}]}", "invalid_value", "a number"},
        {", 'loss': [{'type': 'MSELoss'}, {'type': 'MSELos'}]}", "unknown_kind", "MSELoss"},
        {", 'loss': []}", "invalid_value", "1 to 12 terms, not 0"},
        {", 'loss': "
         "['MSELoss','MSELoss','MSELoss','MSELoss','MSELoss','MSELoss','MSELoss','MSELoss','MSELoss',"
         "'MSELoss','MSELoss','MSELoss','MSELoss']}",
         "limit_exceeded", "not 13"},
    };
    gd_engine *engine = test_engine(1, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[1024];
        gd_model *model = NULL;
        test_failure failure;
        snprintf(text, sizeof text, NET "%s", bad[i].rest);
        json_t *definition = test_json(text);
        if (test_build(engine, definition, &model, &failure) == 0)
            fail_msg("%s is not refused", bad[i].rest);
        if (strcmp(failure.code, bad[i].code) != 0 || !strstr(failure.message, bad[i].message))
            fail_msg("%s: %s: %s", bad[i].rest, failure.code, failure.message);
        json_decref(definition);
    }
    gd_engine_free(engine);
}

static void bad_targets_name_the_term(void **state) {
    (void)state;
    fixture f = begin("two_heads", 1);
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    gd_tensor wrong[] = {f.targets[0], f.targets[1]};
    wrong[1].shape.dim[1] = 1;
    assert_int_equal(gd_model_train_step(f.model, &f.input, 1, wrong, NULL, NULL, &result, &error),
                     GD_E_SHAPE);
    assert_non_null(strstr(error.message, "term 2 of the loss, on output 'box'"));
    assert_int_equal(gd_model_steps(f.model), 0);
    const gd_field none = {"reduction", {.kind = GD_VALUE_STRING, .string = "none"}};
    const gd_term_spec terms[] = {{.loss = {.type = "CrossEntropyLoss"}, .weight = 1},
                                  {.loss = {"MSELoss", &none, 1}, .output = "box", .weight = 1}};
    const gd_loss_spec once = {terms, 2};
    error = (gd_error)GD_ERROR_INIT;
    assert_int_equal(gd_model_train_step(f.model, &f.input, 1, f.targets, &once, NULL, &result, &error),
                     GD_E_STATE);
    assert_non_null(strstr(error.message, "term 2 of the loss"));
    const gd_term_spec infinite = {.loss = {.type = "MSELoss"}, .weight = INFINITY};
    error = (gd_error)GD_ERROR_INIT;
    assert_int_equal(gd_model_train_step(f.model, &f.input, 1, f.targets, &(gd_loss_spec){&infinite, 1}, NULL,
                                         &result, &error),
                     GD_E_VALUE);
    assert_non_null(strstr(error.message, "finite"));
    end(&f);
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction test;
    } proofs[] = {
        {"outputs_terms_and_gradients_are_torchs", outputs_terms_and_gradients_are_torchs},
        {"fifty_steps_have_torchs_losses", fifty_steps_have_torchs_losses},
        {"the_graph_of_the_sum_is_torchs", the_graph_of_the_sum_is_torchs},
        {"gradients_of_some_outputs_go_back", gradients_of_some_outputs_go_back},
        {"the_total_has_the_slope_that_gradients_say", the_total_has_the_slope_that_gradients_say},
        {"the_bits_do_not_depend_on_threads", the_bits_do_not_depend_on_threads},
        {"a_second_step_takes_no_more_memory", a_second_step_takes_no_more_memory},
        {"predict_and_evaluate_give_what_training_sees", predict_and_evaluate_give_what_training_sees},
    };
    enum { PROOFS = sizeof proofs / sizeof proofs[0], OTHERS = 5 };
    char names[CASES * PROOFS][96];
    struct CMUnitTest tests[OTHERS + CASES * PROOFS] = {
        cmocka_unit_test(an_early_output_outlives_the_layers_after_it),
        cmocka_unit_test(a_head_that_no_term_is_on_gets_no_gradient),
        cmocka_unit_test(every_loss_by_class_indices_counts_what_is_right),
        cmocka_unit_test(bad_outputs_and_terms_are_refused),
        cmocka_unit_test(bad_targets_name_the_term),
    };
    for (size_t i = 0; i < CASES * PROOFS; i++) {
        snprintf(names[i], sizeof names[i], "%s: %s", cases[i / PROOFS], proofs[i % PROOFS].name);
        tests[OTHERS + i] = (struct CMUnitTest){.name = names[i],
                                                .test_func = proofs[i % PROOFS].test,
                                                .initial_state = (void *)(uintptr_t)cases[i / PROOFS]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
