/* optim_test.c -- optimizers give PyTorch's parameters step by step; clipping, overrides, changes. */
#include <math.h>

#include "tests/support.h"

enum { KEPT = 5 /* steps of each sample whose parameters are all in the golden file */ };

static test_golden golden;

static const char *type_of(const json_t *row) {
    return json_string_value(json_object_get(row, "optimizer"));
}

static int steps_of(const json_t *row) {
    const json_t *steps = json_object_get(row, "steps");
    return steps ? (int)json_integer_value(steps) : KEPT;
}

static json_t *definition(const json_t *optimizer, const char *type) {
    json_t *json = test_json("{'name': 'layer', 'input': {'shape': [4]}, 'loss': {'type': 'MSELoss'},"
                             " 'layers': [{'type': 'Linear', 'name': 'layer', 'out_features': 3}]}");
    json_t *spec = json_copy((json_t *)(uintptr_t)optimizer);
    json_object_set_new(spec, "type", json_string(type));
    json_object_set_new(json, "optimizer", spec);
    return json;
}

static gd_model *model_of(gd_engine *engine, const json_t *optimizer, const char *type) {
    gd_model *model = test_model(engine, definition(optimizer, type));
    static const char *const names[] = {"layer.weight", "layer.bias"};
    for (int i = 0; i < 2; i++) {
        gd_tensor values = test_golden_get(&golden, "%s", names[i]);
        test_set_parameter(model, names[i], &values);
    }
    return model;
}

static void expect_parameters(const gd_model *model, const char *name, int step) {
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        gd_tensor expected = test_golden_get(&golden, "%s/%d/%s", name, step, parameter->name);
        test_close_values(expected.data, parameter->data, parameter->numel, 1e-5, parameter->name);
    }
}

/* What the optimizer keeps, where torch keeps it too. Near a minimum that is what is left of larger numbers
 * that cancel, and as much less exact. */
static void expect_slots(const gd_model *model, const char *name) {
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        const char *slot;
        const float *values;
        for (size_t k = 0; (slot = gd_model_optimizer_slot(model, i, k, &values)); k++) {
            char key[128];
            snprintf(key, sizeof key, "%s/%s/%s", name, slot, parameter->name);
            if (!test_golden_has(&golden, key))
                continue;
            assert_non_null(values);
            test_close_values(test_golden_get(&golden, "%s", key).data, values, parameter->numel, 2e-5, key);
        }
    }
}

static gd_step_options options_of(const json_t *row) {
    return (gd_step_options){.clip_grad_norm = json_number_value(json_object_get(row, "clip_grad_norm")),
                             .clip_grad_value = json_number_value(json_object_get(row, "clip_grad_value"))};
}

/* A batch's rows from..to: a view. */
static gd_tensor part_of(const gd_tensor *batch, int64_t from, int64_t to) {
    gd_tensor part = *batch;
    const int64_t features = gd_numel(&batch->shape) / batch->shape.dim[0];
    part.shape.dim[0] = to - from;
    part.data = (float *)batch->data + from * features;
    return part;
}

/* Gradients of as many equal parts of the batch as the row says, added up. */
static void accumulate(gd_model *model, const json_t *row, const gd_tensor *input, const gd_tensor *target) {
    const json_t *given = json_object_get(row, "accumulate");
    const int64_t rows = input->shape.dim[0], size = rows / (given ? json_integer_value(given) : 1);
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    gd_model_zero_grad(model);
    for (int64_t from = 0; from < rows; from += size) {
        const gd_tensor x = part_of(input, from, from + size), y = part_of(target, from, from + size);
        test_ok(gd_model_forward_backward(model, &x, 1, &y, NULL, &result, &error), &error);
        assert_int_equal(result.count, size);
    }
}

static void train_steps_match(void **state) {
    const json_t *row = *state;
    const char *name = json_string_value(json_object_get(row, "name"));
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, json_object_get(row, "attributes"), type_of(row));
    gd_tensor input = test_golden_get(&golden, "input"), target = test_golden_get(&golden, "target");
    gd_error error = GD_ERROR_INIT;
    const gd_step_options options = options_of(row);
    for (int step = 1; step <= steps_of(row); step++) {
        gd_step_result result;
        if (json_object_get(row, "accumulate")) {
            accumulate(model, row, &input, &target);
            test_ok(gd_model_step(model, &options, &result, &error), &error);
        } else {
            test_ok(gd_model_train_step(model, &input, 1, &target, NULL, &options, &result, &error), &error);
            assert_int_equal(result.count, 6);
            assert_int_equal(result.correct, -1);
        }
        assert_int_equal(result.step, step);
        if (step <= KEPT || step == steps_of(row))
            expect_parameters(model, name, step);
    }
    expect_slots(model, name);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* LBFGS needs the batch, as torch's needs a closure. */
static void expect_step(gd_model *model, const json_t *row) {
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    const gd_step_options options = options_of(row);
    int code = gd_model_step(model, &options, &result, &error);
    if (strcmp(type_of(row), "LBFGS") != 0) {
        test_ok(code, &error);
        return;
    }
    assert_int_equal(code, GD_E_STATE);
    assert_non_null(strstr(error.message, "use train_step"));
}

static void single_calls_match(void **state) {
    const json_t *row = *state;
    const char *name = json_string_value(json_object_get(row, "name"));
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, json_object_get(row, "attributes"), type_of(row));
    gd_tensor input = test_golden_get(&golden, "input"), target = test_golden_get(&golden, "target");
    gd_error error = GD_ERROR_INIT;
    for (int step = 1; step <= steps_of(row); step++) {
        gd_tensor output, loss;
        if (json_object_get(row, "accumulate")) {
            accumulate(model, row, &input, &target);
        } else {
            gd_model_zero_grad(model);
            test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
            test_ok(gd_model_loss(model, &target, NULL, &loss, &error), &error);
            test_ok(gd_model_backward(model, NULL, false, &error), &error);
        }
        expect_step(model, row);
        if (gd_model_steps(model) && (step <= KEPT || step == steps_of(row)))
            expect_parameters(model, name, step);
    }
    gd_model_free(model);
    gd_engine_free(engine);
}

/* ---- one plain model for the rest ------------------------------------------------------------------ */

typedef struct fixture {
    gd_engine *engine;
    gd_model *model;
    gd_tensor input, target;
    float before[12], gradient[12]; /* of layer.weight */
} fixture;

/* The model has its gradients and is about to step. */
static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    json_t *sgd = test_json("{'lr': 0.5}");
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    f->engine = test_engine(1, 0);
    f->model = model_of(f->engine, sgd, "SGD");
    json_decref(sgd);
    f->input = test_golden_get(&golden, "input");
    f->target = test_golden_get(&golden, "target");
    test_ok(gd_model_forward_backward(f->model, &f->input, 1, &f->target, NULL, &result, &error), &error);
    memcpy(f->before, test_parameter(f->model, "layer.weight")->data, sizeof f->before);
    memcpy(f->gradient, test_parameter(f->model, "layer.weight")->grad, sizeof f->gradient);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    gd_model_free(f->model);
    gd_engine_free(f->engine);
    free(f);
    return 0;
}

static void step(fixture *f, const gd_step_options *options, gd_step_result *result) {
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_step(f->model, options, result, &error), &error);
}

static void an_override_counts_for_one_step(void **state) {
    fixture *f = *state;
    const gd_field lr[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 0.25}}};
    const gd_step_options options = {.fields = lr, .field_count = 1};
    gd_step_result result;
    step(f, &options, &result);
    assert_float_equal(result.lr, 0.25, 0);
    const float *weight = test_parameter(f->model, "layer.weight")->data;
    for (int i = 0; i < 12; i++)
        assert_float_equal(weight[i], f->before[i] - 0.25 * f->gradient[i], 1e-6);
    step(f, NULL, &result);
    assert_float_equal(result.lr, 0.5, 0);
}

static void clipping_by_norm_scales_all_gradients(void **state) {
    fixture *f = *state;
    double norm = gd_model_grad_norm(f->model), most = norm / 3;
    const gd_step_options options = {.clip_grad_norm = most};
    gd_step_result result;
    step(f, &options, &result);
    assert_float_equal(result.grad_norm, norm, 1e-6 * norm);
    const float *weight = test_parameter(f->model, "layer.weight")->data;
    for (int i = 0; i < 12; i++)
        assert_float_equal(weight[i], f->before[i] - 0.5 * f->gradient[i] * (most / (norm + 1e-6)), 1e-6);
}

static void clipping_by_a_norm_that_is_not_reached_changes_nothing(void **state) {
    fixture *f = *state;
    const gd_step_options options = {.clip_grad_norm = gd_model_grad_norm(f->model) * 2};
    gd_step_result result;
    step(f, &options, &result);
    const float *weight = test_parameter(f->model, "layer.weight")->data;
    for (int i = 0; i < 12; i++)
        assert_float_equal(weight[i], f->before[i] - 0.5 * f->gradient[i], 1e-7);
}

static void clipping_by_value_cuts_each_element(void **state) {
    fixture *f = *state;
    const double most = 0.05;
    const gd_step_options options = {.clip_grad_value = most};
    gd_step_result result;
    step(f, &options, &result);
    const float *weight = test_parameter(f->model, "layer.weight")->data;
    int cut = 0;
    for (int i = 0; i < 12; i++) {
        double g = fmin(fmax(f->gradient[i], -most), most);
        cut += fabs((double)f->gradient[i]) > most;
        assert_float_equal(weight[i], f->before[i] - 0.5 * g, 1e-6);
    }
    assert_in_range(cut, 1, 11);
}

static void a_step_that_is_not_finite_is_not_taken_when_asked(void **state) {
    fixture *f = *state;
    const gd_step_options options = {.only_finite = true};
    const int64_t before = gd_model_steps(f->model);
    gd_step_result result;
    step(f, &options, &result);
    assert_false(result.skipped);
    assert_int_equal(result.step, before + 1);
    float weight[12];
    memcpy(weight, test_parameter(f->model, "layer.weight")->data, sizeof weight);
    test_parameter(f->model, "layer.weight")->grad[5] = NAN;
    step(f, &options, &result);
    assert_true(result.skipped);
    assert_int_equal(result.step, before + 1);
    assert_int_equal(gd_model_steps(f->model), before + 1);
    assert_memory_equal(weight, test_parameter(f->model, "layer.weight")->data, sizeof weight);
    step(f, NULL, &result); /* else it is, as in torch */
    assert_false(result.skipped);
    assert_true(isnan(test_parameter(f->model, "layer.weight")->data[5]));
}

static void a_change_that_is_only_checked_changes_nothing(void **state) {
    fixture *f = *state;
    const gd_field size[] = {{"step_size", {.kind = GD_VALUE_INT, .integer = 3}}};
    gd_scheduler_spec scheduler = {.type = "StepLR", .fields = size, .field_count = 1};
    const gd_model_patch patch = {.scheduler = &scheduler};
    const uint64_t version = gd_model_version(f->model);
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_check_change(f->model, &patch, &error), &error);
    assert_null(gd_model_scheduler(f->model));
    assert_int_equal(gd_model_version(f->model), version);
    scheduler.type = "Sundial";
    assert_int_equal(gd_model_check_change(f->model, &patch, &error), GD_E_UNKNOWN_KIND);
}

static void hyperparameters_change_without_losing_the_rest(void **state) {
    fixture *f = *state;
    const gd_field lr[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 0.125}}};
    const gd_optimizer_spec spec = {.fields = lr, .field_count = 1};
    const gd_model_patch patch = {.optimizer = &spec};
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    uint64_t version = gd_model_version(f->model);
    test_ok(gd_model_change(f->model, &patch, &error), &error);
    assert_true(gd_model_version(f->model) > version);
    step(f, NULL, &result);
    assert_float_equal(result.lr, 0.125, 0);
}

static void a_bad_change_changes_nothing(void **state) {
    fixture *f = *state;
    const gd_field fields[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 0.125}},
                               {"momentum", {.kind = GD_VALUE_FLOAT, .number = -2}}};
    const gd_optimizer_spec spec = {.fields = fields, .field_count = 2};
    const bool training = false;
    const gd_model_patch patch = {.optimizer = &spec, .training = &training};
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    uint64_t version = gd_model_version(f->model);
    assert_int_equal(gd_model_change(f->model, &patch, &error), GD_E_ATTRIBUTE);
    assert_string_equal(error.field, "momentum");
    assert_int_equal(gd_model_version(f->model), version);
    assert_true(gd_model_training(f->model));
    step(f, NULL, &result);
    assert_float_equal(result.lr, 0.5, 0);
}

static void a_step_without_an_optimizer_is_refused(void **state) {
    fixture *f = *state;
    json_t *json = test_json("{'name': 'a', 'input': {'shape': [4]}, 'loss': {'type': 'MSELoss'},"
                             " 'layers': [{'type': 'Linear', 'out_features': 3}]}");
    gd_model *model = test_model(f->engine, json);
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    assert_int_equal(gd_model_train_step(model, &f->input, 1, &f->target, NULL, NULL, &result, &error),
                     GD_E_STATE);
    assert_non_null(strstr(error.message, "optimizer"));
    gd_model_free(model);
}

/* The tutorial's last lines: weight = weight - learning_rate * gradient. */
static void an_update_by_hand_is_what_sgd_does(void **state) {
    fixture *f = *state;
    gd_step_result result;
    float by_hand[12];
    for (int i = 0; i < 12; i++)
        by_hand[i] = f->before[i] - 0.5F * f->gradient[i];
    step(f, NULL, &result);
    test_close_values(by_hand, test_parameter(f->model, "layer.weight")->data, 12, 1e-7, "layer.weight");
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(an_override_counts_for_one_step),
        T(clipping_by_norm_scales_all_gradients),
        T(clipping_by_a_norm_that_is_not_reached_changes_nothing),
        T(clipping_by_value_cuts_each_element),
        T(a_step_that_is_not_finite_is_not_taken_when_asked),
        T(a_change_that_is_only_checked_changes_nothing),
        T(hyperparameters_change_without_losing_the_rest),
        T(a_bad_change_changes_nothing),
        T(a_step_without_an_optimizer_is_refused),
        T(an_update_by_hand_is_what_sgd_does),
    };
    test_golden_open(&golden, "samples/optimizers.safetensors");
    int failed = test_each_sample("optimizers", "train steps match", train_steps_match, NULL);
    failed += test_each_sample("optimizers", "single calls match", single_calls_match, NULL);
    failed += cmocka_run_group_tests(tests, NULL, NULL);
    test_golden_close(&golden);
    return failed != 0;
}
