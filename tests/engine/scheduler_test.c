/* scheduler_test.c -- schedulers give PyTorch's rates step by step; by epoch, changed, refused. */
#include <math.h>

#include "tests/support.h"

static json_t *rates; /* samples/schedulers.lr.json */

/* A model of one weight with a gradient, so that it can step. */
static gd_model *model_of(gd_engine *engine, const json_t *optimizer, const json_t *scheduler) {
    json_t *json = test_json("{'name': 'layer', 'input': {'shape': [1]}, 'loss': {'type': 'MSELoss'},"
                             " 'layers': [{'type': 'Linear', 'name': 'layer', 'out_features': 1}]}");
    json_object_set(json, "optimizer", (json_t *)(uintptr_t)optimizer);
    json_object_set(json, "scheduler", (json_t *)(uintptr_t)scheduler);
    gd_model *model = test_model(engine, json);
    float one = 1;
    const gd_tensor x = {GD_FLOAT32, TEST_SHAPE(1, 1), &one};
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward_backward(model, &x, 1, &x, NULL, &result, &error), &error);
    return model;
}

/* An attribute of the optimizer: a number, or the first of a list. */
static double attribute(const gd_model *model, const char *name) {
    const void *attrs;
    const gd_kind *kind = gd_model_optimizer_kind(model, &attrs);
    for (size_t i = 0; i < kind->attr_count; i++)
        if (strcmp(kind->attrs[i].name, name) == 0) {
            const gd_value value = gd_attr_read(&kind->attrs[i], attrs);
            return value.kind == GD_VALUE_FLOATS ? value.floats[0] : value.number;
        }
    return NAN;
}

static double momentum(const gd_model *model) {
    const double plain = attribute(model, "momentum");
    return isnan(plain) ? attribute(model, "betas") : plain;
}

static void expect_number(double actual, const json_t *list, size_t step, const char *what) {
    const double expected = json_number_value(json_array_get(list, step));
    if (!(fabs(actual - expected) <= 1e-12 * (fabs(expected) + 1e-3)))
        fail_msg("step %zu: the %s is %.17g, should be %.17g", step, what, actual, expected);
}

static double step(gd_model *model) {
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_step(model, NULL, &result, &error), &error);
    return result.lr;
}

/* Every sample once with each step, and once epoch by epoch. */
static void rates_match(const json_t *row, bool by_epoch) {
    const json_t *expected = json_object_get(rates, json_string_value(json_object_get(row, "name")));
    const json_t *lr = json_object_get(expected, "lr"), *turned = json_object_get(expected, "momentum");
    const json_t *metrics = json_object_get(row, "metrics");
    json_t *optimizer = test_json("{'type': 'SGD', 'lr': 0.1}");
    json_t *scheduler = json_copy(json_object_get(row, "attributes"));
    json_object_update(optimizer, json_object_get(row, "optimizer"));
    if (json_object_get(json_object_get(row, "optimizer"), "type"))
        json_object_set_new(optimizer, "lr", json_real(0.1));
    json_object_set(scheduler, "type", json_object_get(row, "scheduler"));
    if (by_epoch)
        json_object_set_new(scheduler, "interval", json_string("epoch"));
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, optimizer, scheduler);
    assert_true(json_array_size(lr) > 0);
    for (size_t i = 0; i < json_array_size(lr); i++) {
        gd_error error = GD_ERROR_INIT;
        if (turned)
            expect_number(momentum(model), turned, i, "momentum");
        expect_number(step(model), lr, i, "rate");
        double metric =
            metrics ? json_number_value(json_array_get(metrics, i % json_array_size(metrics))) : 0;
        if (by_epoch)
            test_ok(gd_model_scheduler_step(model, metrics ? &metric : NULL, &error), &error);
        assert_int_equal(gd_model_scheduler(model)->epoch, i + 1);
    }
    gd_model_free(model);
    gd_engine_free(engine);
    json_decref(optimizer);
    json_decref(scheduler);
}

static void rates_match_by_step(void **state) {
    if (!json_object_get(*state, "metrics"))
        rates_match(*state, false);
}

static void rates_match_by_epoch(void **state) {
    rates_match(*state, true);
}

/* ---- the rest ---------------------------------------------------------------------------------------- */

typedef struct fixture {
    gd_engine *engine;
    gd_model *model; /* SGD with lr 1 and momentum 0.5, and what set_up_with() was told */
} fixture;

static int set_up_with(void **state, const char *text) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    json_t *optimizer = test_json("{'type': 'SGD', 'lr': 1, 'momentum': 0.5}"), *scheduler = test_json(text);
    f->engine = test_engine(1, 0);
    f->model = model_of(f->engine, optimizer, scheduler);
    json_decref(optimizer);
    json_decref(scheduler);
    *state = f;
    return 0;
}

static int halving(void **state) {
    return set_up_with(state, "{'type': 'ExponentialLR', 'gamma': 0.5}");
}

static int by_epoch(void **state) {
    return set_up_with(state, "{'type': 'ExponentialLR', 'gamma': 0.5, 'interval': 'epoch'}");
}

static int plateau(void **state) {
    return set_up_with(state, "{'type': 'ReduceLROnPlateau', 'patience': 0}");
}

static int one_cycle(void **state) {
    return set_up_with(state, "{'type': 'OneCycleLR', 'max_lr': 1, 'total_steps': 3}");
}

static int tear_down(void **state) {
    fixture *f = *state;
    gd_model_free(f->model);
    gd_engine_free(f->engine);
    free(f);
    return 0;
}

static int change(gd_model *model, const gd_scheduler_spec *scheduler, const gd_optimizer_spec *optimizer,
                  gd_error *error) {
    const gd_model_patch patch = {.scheduler = scheduler, .optimizer = optimizer};
    return gd_model_change(model, &patch, error);
}

static void an_override_leaves_the_schedule_alone(void **state) {
    fixture *f = *state;
    const gd_field lr[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 7}}};
    const gd_step_options options = {.fields = lr, .field_count = 1};
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_step(f->model, &options, &result, &error), &error);
    assert_float_equal(result.lr, 7, 0);
    assert_float_equal(step(f->model), 0.5, 0);
}

static void a_changed_rate_goes_on_from_there(void **state) {
    fixture *f = *state;
    const gd_field lr[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 8}}};
    const gd_optimizer_spec spec = {.fields = lr, .field_count = 1};
    gd_error error = GD_ERROR_INIT;
    step(f->model);
    test_ok(change(f->model, NULL, &spec, &error), &error);
    assert_float_equal(step(f->model), 8, 0);
    assert_float_equal(step(f->model), 4, 0);
    assert_int_equal(gd_model_scheduler(f->model)->epoch, 3);
}

static void without_a_scheduler_the_rate_stays(void **state) {
    fixture *f = *state;
    const gd_scheduler_spec none = {.type = NULL};
    gd_error error = GD_ERROR_INIT;
    step(f->model);
    test_ok(change(f->model, &none, NULL, &error), &error);
    assert_null(gd_model_scheduler(f->model));
    assert_float_equal(step(f->model), 0.5, 0);
    assert_float_equal(step(f->model), 0.5, 0);
    assert_int_equal(gd_model_scheduler_step(f->model, NULL, &error), GD_E_STATE);
}

static void a_new_scheduler_begins_at_the_present_rate(void **state) {
    fixture *f = *state;
    const gd_field factor[] = {{"factor", {.kind = GD_VALUE_FLOAT, .number = 0.25}}};
    const gd_scheduler_spec constant = {.type = "ConstantLR", .fields = factor, .field_count = 1};
    gd_error error = GD_ERROR_INIT;
    step(f->model);
    test_ok(change(f->model, &constant, NULL, &error), &error);
    assert_float_equal(gd_model_scheduler(f->model)->base_lr, 0.5, 0);
    assert_int_equal(gd_model_scheduler(f->model)->epoch, 0);
    assert_float_equal(step(f->model), 0.125, 0);
}

static void a_new_optimizer_begins_the_schedule_again(void **state) {
    fixture *f = *state;
    const gd_field lr[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 16}}};
    const gd_optimizer_spec spec = {.type = "Adam", .fields = lr, .field_count = 1};
    gd_error error = GD_ERROR_INIT;
    step(f->model);
    test_ok(change(f->model, NULL, &spec, &error), &error);
    assert_float_equal(step(f->model), 16, 0);
    assert_float_equal(step(f->model), 8, 0);
    assert_int_equal(gd_model_scheduler(f->model)->epoch, 2);
}

static void a_bad_change_changes_nothing(void **state) {
    fixture *f = *state;
    const gd_scheduler_spec bad = {.type = "StepLR"}, cyclic = {.type = "CyclicLR"};
    const gd_optimizer_spec adagrad = {.type = "Adagrad"};
    gd_error error = GD_ERROR_INIT;
    const uint64_t version = gd_model_version(f->model);
    assert_int_equal(change(f->model, &bad, &adagrad, &error), GD_E_ATTRIBUTE);
    assert_string_equal(error.field, "step_size");
    assert_int_equal(change(f->model, &cyclic, NULL, NULL), GD_E_ATTRIBUTE);
    assert_int_equal(gd_model_version(f->model), version);
    assert_float_equal(step(f->model), 1, 0);
    assert_float_equal(step(f->model), 0.5, 0);
}

static void an_optimizer_without_momentum_is_refused_by_a_cycle(void **state) {
    fixture *f = *state;
    const gd_optimizer_spec adagrad = {.type = "Adagrad"};
    gd_error error = GD_ERROR_INIT;
    const double lr = attribute(f->model, "lr");
    assert_int_equal(change(f->model, NULL, &adagrad, &error), GD_E_ATTRIBUTE);
    assert_non_null(strstr(error.message, "Adagrad has none"));
    assert_float_equal(step(f->model), lr, 0);
}

static void by_epoch_steps_keep_the_rate(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    const double metric = 1;
    assert_float_equal(step(f->model), 1, 0);
    assert_float_equal(step(f->model), 1, 0);
    const uint64_t version = gd_model_version(f->model);
    test_ok(gd_model_scheduler_step(f->model, NULL, &error), &error);
    assert_true(gd_model_version(f->model) > version);
    assert_float_equal(step(f->model), 0.5, 0);
    assert_int_equal(gd_model_scheduler_step(f->model, &metric, &error), GD_E_VALUE);
    assert_string_equal(error.field, "metric");
    assert_float_equal(step(f->model), 0.5, 0);
}

static void by_step_an_epoch_is_refused(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    assert_int_equal(gd_model_scheduler_step(f->model, NULL, &error), GD_E_STATE);
    assert_non_null(strstr(error.message, "\"interval\": \"epoch\""));
    assert_float_equal(step(f->model), 1, 0);
}

static void a_plateau_needs_a_metric(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    const double metrics[] = {2, 2, NAN};
    assert_int_equal(gd_model_scheduler_step(f->model, NULL, &error), GD_E_VALUE);
    assert_int_equal(gd_model_scheduler(f->model)->epoch, 0);
    for (int i = 0; i < 3; i++)
        test_ok(gd_model_scheduler_step(f->model, &metrics[i], NULL), &error);
    assert_float_equal(gd_model_scheduler(f->model)->state[0], 2, 0); /* best */
    assert_float_equal(step(f->model), 0.01, 1e-15);
}

static void past_its_end_one_cycle_refuses_the_step(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    for (int i = 0; i < 3; i++)
        step(f->model);
    const float weight = test_parameter(f->model, "layer.weight")->data[0];
    assert_int_equal(gd_model_step(f->model, NULL, &result, &error), GD_E_STATE);
    assert_non_null(strstr(error.message, "3 steps are over"));
    assert_float_equal(test_parameter(f->model, "layer.weight")->data[0], weight, 0);
    assert_int_equal(gd_model_steps(f->model), 3);
}

int main(void) {
#define T(name, set_up) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(an_override_leaves_the_schedule_alone, halving),
        T(a_changed_rate_goes_on_from_there, halving),
        T(without_a_scheduler_the_rate_stays, halving),
        T(a_new_scheduler_begins_at_the_present_rate, halving),
        T(a_new_optimizer_begins_the_schedule_again, halving),
        T(a_bad_change_changes_nothing, halving),
        T(an_optimizer_without_momentum_is_refused_by_a_cycle, one_cycle),
        T(by_epoch_steps_keep_the_rate, by_epoch),
        T(by_step_an_epoch_is_refused, halving),
        T(a_plateau_needs_a_metric, plateau),
        T(past_its_end_one_cycle_refuses_the_step, one_cycle),
    };
    rates = test_golden_json("samples/schedulers.lr.json");
    int failed = test_each_sample("schedulers", "rates match by step", rates_match_by_step, NULL);
    failed += test_each_sample("schedulers", "rates match by epoch", rates_match_by_epoch, NULL);
    failed += cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(rates);
    return failed != 0;
}
