/* groups_test.c -- parameter groups: who is in which, PyTorch's parameters and rates in each, changes,
 * overrides, and memory for no more state than hyperparameters need. */
#include <math.h>

#include "tests/support.h"

static test_golden golden;
static json_t *expected_groups; /* samples/groups.lr.json */

static gd_model *model_of(gd_engine *engine, json_t *optimizer, json_t *scheduler) {
    json_t *json = test_json(
        "{'name': 'net', 'input': {'shape': [4]}, 'loss': {'type': 'MSELoss'}, 'layers': ["
        "{'type': 'Linear', 'name': 'fc1', 'out_features': 5}, {'type': 'Tanh', 'name': 'tanh'},"
        "{'type': 'BatchNorm1d', 'name': 'bn1'}, {'type': 'Linear', 'name': 'fc2', 'out_features': 3}]}");
    json_object_set(json, "optimizer", optimizer);
    if (scheduler)
        json_object_set(json, "scheduler", scheduler);
    gd_model *model = test_model(engine, json);
    for (size_t i = 0; i < gd_model_parameter_count(model); i++)
        if (!gd_model_parameter(model, i)->buffer) {
            const char *name = gd_model_parameter(model, i)->name;
            gd_tensor values = test_golden_get(&golden, "%s", name);
            test_set_parameter(model, name, &values);
        }
    return model;
}

static double train(gd_model *model, const gd_step_options *options) {
    const gd_tensor input = test_golden_get(&golden, "input"), target = test_golden_get(&golden, "target");
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_train_step(model, &input, 1, &target, NULL, options, &result, &error), &error);
    return result.lr;
}

/* A group's attribute: a number, or the first of a list; NAN: there is none of that name. */
static double attribute(const gd_model *model, size_t group, const char *name) {
    const void *attrs;
    const gd_kind *kind = gd_model_optimizer_kind(model, &attrs);
    gd_group g;
    assert_true(gd_model_group(model, group, &g));
    for (size_t i = 0; i < kind->attr_count; i++)
        if (strcmp(kind->attrs[i].name, name) == 0) {
            const gd_value value = gd_attr_read(&kind->attrs[i], g.attrs);
            return value.kind == GD_VALUE_FLOATS ? value.floats[0]
                   : value.kind == GD_VALUE_BOOL ? value.boolean
                                                 : value.number;
        }
    return NAN;
}

static double momentum(const gd_model *model, size_t group) {
    const double plain = attribute(model, group, "momentum");
    return isnan(plain) ? attribute(model, group, "betas") : plain;
}

/* ---- as torch ---------------------------------------------------------------------------------------- */

static void expect_members(const gd_model *model, const json_t *members) {
    size_t count = 0, group, i;
    const json_t *names, *name;
    gd_group g;
    json_array_foreach(members, group, names) {
        assert_true(gd_model_group(model, group, &g));
        json_array_foreach(names, i, name) {
            size_t index;
            assert_non_null(gd_model_find_parameter(model, json_string_value(name), &index));
            assert_int_equal(gd_model_group_of(model, index), group);
            count++;
        }
    }
    assert_false(gd_model_group(model, group, &g));
    assert_int_equal(count, 6);
}

static void expect_parameters(const gd_model *model, const char *name, int step) {
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        if (parameter->buffer)
            continue;
        const gd_tensor expected = test_golden_get(&golden, "%s/%d/%s", name, step, parameter->name);
        test_close_values(expected.data, parameter->data, parameter->numel, 1e-5, parameter->name);
    }
}

static void expect_number(double actual, const json_t *expected, size_t step, size_t group,
                          const char *what) {
    const double wanted = json_number_value(json_array_get(json_array_get(expected, step), group));
    if (!(fabs(actual - wanted) <= 1e-12 * (fabs(wanted) + 1e-3)))
        fail_msg("step %zu, group %zu: the %s is %.17g, should be %.17g", step, group, what, actual, wanted);
}

static void a_hundred_steps_match(void **state) {
    const json_t *row = *state, *metrics = json_object_get(row, "metrics");
    const char *name = json_string_value(json_object_get(row, "name"));
    const json_t *expected = json_object_get(expected_groups, name), *lr = json_object_get(expected, "lr");
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = model_of(engine, json_object_get(row, "optimizer"), json_object_get(row, "scheduler"));
    gd_error error = GD_ERROR_INIT;
    gd_group g;
    expect_members(model, json_object_get(expected, "members"));
    for (int step = 1; step <= 100; step++) {
        for (size_t i = 0; lr && gd_model_group(model, i, &g); i++) {
            expect_number(attribute(model, i, "lr"), lr, (size_t)step - 1, i, "rate");
            expect_number(momentum(model, i), json_object_get(expected, "momentum"), (size_t)step - 1, i,
                          "momentum");
        }
        const double rate = gd_model_lr(model);
        assert_float_equal(rate, attribute(model, 0, "lr"), 0);
        assert_float_equal(train(model, NULL), rate, 0);
        if (step == 1 || step == 10 || step == 100)
            expect_parameters(model, name, step);
        if (metrics) {
            const size_t at = (size_t)step % json_array_size(metrics);
            const double metric = json_number_value(json_array_get(metrics, at));
            test_ok(gd_model_scheduler_step(model, &metric, &error), &error);
        }
    }
    gd_model_free(model);
    gd_engine_free(engine);
}

/* ---- changes ----------------------------------------------------------------------------------------- */

typedef struct fixture {
    gd_engine *engine;
    gd_model *model; /* SGD, lr 0.5; biases: weight_decay 0.25; fc2.weight: lr 0.125 */
} fixture;

static const char groups[] =
    "{'type': 'SGD', 'lr': 0.5, 'param_groups': ["
    "{'params': '*.bias', 'weight_decay': 0.25}, {'params': ['fc2.*'], 'lr': 0.125}]}";

static int set_up_with(void **state, const char *optimizer, const char *scheduler) {
    fixture *f = calloc(1, sizeof *f);
    json_t *how = test_json(optimizer), *schedule = scheduler ? test_json(scheduler) : NULL;
    assert_non_null(f);
    f->engine = test_engine(1, 0);
    f->model = model_of(f->engine, how, schedule);
    json_decref(how);
    json_decref(schedule);
    *state = f;
    return 0;
}

static int set_up(void **state) {
    return set_up_with(state, groups, NULL);
}

static int halving(void **state) {
    return set_up_with(state, groups, "{'type': 'ExponentialLR', 'gamma': 0.5}");
}

static int tear_down(void **state) {
    fixture *f = *state;
    gd_model_free(f->model);
    gd_engine_free(f->engine);
    free(f);
    return 0;
}

/* PATCH {"optimizer": ...} */
static int change(gd_model *model, const char *text, gd_error *error) {
    json_t *json = test_json(text);
    gp_optimizer_spec spec;
    gp_error wire = {0};
    assert_int_equal(gp_optimizer_spec_read(json, "/optimizer", &spec, &wire), 0);
    const gd_model_patch patch = {.optimizer = &spec.spec};
    *error = (gd_error)GD_ERROR_INIT;
    int code = gd_model_change(model, &patch, error);
    gp_optimizer_spec_release(&spec);
    json_decref(json);
    return code;
}

static void must_change(gd_model *model, const char *text) {
    gd_error error;
    test_ok(change(model, text, &error), &error);
}

static void expect_rates(const gd_model *model, double first, double second, double third) {
    assert_float_equal(attribute(model, 0, "lr"), first, 0);
    assert_float_equal(attribute(model, 1, "lr"), second, 0);
    assert_float_equal(attribute(model, 2, "lr"), third, 0);
}

static void a_change_reaches_groups_that_have_no_value_of_their_own(void **state) {
    fixture *f = *state;
    expect_rates(f->model, 0.5, 0.5, 0.125);
    must_change(f->model, "{'lr': 0.25, 'weight_decay': 1}");
    expect_rates(f->model, 0.25, 0.25, 0.125);
    assert_float_equal(attribute(f->model, 0, "weight_decay"), 1, 0);
    assert_float_equal(attribute(f->model, 1, "weight_decay"), 0.25, 0);
    assert_float_equal(attribute(f->model, 2, "weight_decay"), 1, 0);
    must_change(f->model, "{'type': 'SGD', 'lr': 1}");
    expect_rates(f->model, 1, 1, 0.125);
}

static void an_override_reaches_the_same_groups_for_one_step(void **state) {
    fixture *f = *state;
    gd_model *other = f->model;
    const gd_field lr[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 0.0625}}};
    const gd_step_options options = {.fields = lr, .field_count = 1};
    set_up(state);
    fixture *g = *state;
    must_change(other, "{'lr': 0.0625}");
    train(other, NULL);
    assert_float_equal(train(g->model, &options), 0.0625, 0);
    size_t count;
    float *changed = test_parameters(other, &count), *overridden = test_parameters(g->model, &count);
    assert_memory_equal(changed, overridden, count * sizeof *changed);
    expect_rates(g->model, 0.5, 0.5, 0.125);
    must_change(other, "{'lr': 0.5}");
    train(other, NULL);
    train(g->model, NULL);
    free(changed);
    free(overridden);
    changed = test_parameters(other, &count), overridden = test_parameters(g->model, &count);
    assert_memory_equal(changed, overridden, count * sizeof *changed);
    free(changed);
    free(overridden);
    gd_model_free(other);
    gd_engine_free(f->engine);
    free(f);
}

static const float *buffer(const gd_model *model, const char *parameter) {
    size_t index;
    const float *values;
    assert_non_null(gd_model_find_parameter(model, parameter, &index));
    assert_string_equal(gd_model_optimizer_slot(model, index, 0, &values), "momentum_buffer");
    return values;
}

static void new_groups_take_the_place_of_the_old_and_keep_the_state(void **state) {
    fixture *f = *state;
    gd_group group;
    must_change(f->model, "{'momentum': 0.9}");
    train(f->model, NULL);
    const float before = buffer(f->model, "fc1.weight")[3];
    assert_true(before != 0);
    must_change(f->model, "{'lr': 2, 'param_groups': [{'params': 'fc1.*', 'lr': 3}]}");
    assert_float_equal(attribute(f->model, 0, "lr"), 2, 0);
    assert_float_equal(attribute(f->model, 1, "lr"), 3, 0);
    assert_float_equal(attribute(f->model, 1, "momentum"), 0.9, 0);
    assert_float_equal(attribute(f->model, 1, "weight_decay"), 0, 0);
    assert_false(gd_model_group(f->model, 2, &group));
    assert_float_equal(buffer(f->model, "fc1.weight")[3], before, 0);
    must_change(f->model, "{'param_groups': []}");
    assert_false(gd_model_group(f->model, 1, &group));
    assert_float_equal(buffer(f->model, "fc1.weight")[3], before, 0);
    must_change(f->model, "{'type': 'Adam'}"); /* another optimizer: no groups, nothing kept */
    assert_float_equal(gd_model_lr(f->model), 1e-3, 0);
    const float *values;
    assert_string_equal(gd_model_optimizer_slot(f->model, 0, 0, &values), "exp_avg");
    assert_float_equal(values[3], 0, 0);
}

static void a_bad_change_names_its_place_and_changes_nothing(void **state) {
    static const struct {
        const char *json, *path, *field;
    } bad[] = {
        {"{'lr': -1}", "/optimizer", "lr"},
        {"{'lr': 1, 'param_groups': [{'params': '*'}, {'params': 'fc1.*'}]}", "/optimizer/param_groups/1",
         "params"},
        {"{'lr': 1, 'param_groups': [{'params': 'bn1.running_mean'}]}", "/optimizer/param_groups/0",
         "params"},
        {"{'param_groups': [{'params': '*', 'momentum': -1}]}", "/optimizer/param_groups/0", "momentum"},
        {"{'param_groups': [{'params': 'fc1*'}, {'params': '*', 'nesterov': true}]}",
         "/optimizer/param_groups/1", "nesterov"},
        {"{'type': 'Adam', 'param_groups': [{'params': '*', 'momentum': 1}]}", "/optimizer/param_groups/0",
         "momentum"},
    };
    fixture *f = *state;
    const uint64_t version = gd_model_version(f->model);
    const size_t memory = gd_model_memory(f->model);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gd_error error;
        assert_int_equal(change(f->model, bad[i].json, &error), GD_E_ATTRIBUTE);
        assert_string_equal(error.path, bad[i].path);
        assert_string_equal(error.field, bad[i].field);
    }
    expect_rates(f->model, 0.5, 0.5, 0.125);
    assert_int_equal(gd_model_version(f->model), version);
    assert_int_equal(gd_model_memory(f->model), memory);
}

/* A group's own nesterov needs the momentum that it has from the optimizer. */
static void a_change_that_breaks_a_group_is_refused(void **state) {
    fixture *f = *state;
    gd_error error;
    must_change(f->model, "{'momentum': 0.9, 'param_groups': [{'params': '*', 'nesterov': true}]}");
    assert_int_equal(change(f->model, "{'momentum': 0}", &error), GD_E_ATTRIBUTE);
    assert_string_equal(error.path, "/optimizer/param_groups/0");
    assert_float_equal(attribute(f->model, 0, "momentum"), 0.9, 0);
    assert_float_equal(attribute(f->model, 1, "momentum"), 0.9, 0);
}

static void too_many_are_refused(void **state) {
    fixture *f = *state;
    gd_group_spec many[GD_MAX_GROUPS + 1];
    const char *stars[GD_MAX_PATTERNS + 1];
    char longest[2 * GD_MAX_NAME + 1];
    for (size_t i = 0; i < GD_MAX_PATTERNS + 1; i++)
        stars[i] = "*";
    for (size_t i = 0; i < GD_MAX_GROUPS + 1; i++)
        many[i] = (gd_group_spec){.patterns = stars, .pattern_count = 1};
    memset(longest, '*', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    const char *const too_long[] = {longest};
    const gd_group_spec wide = {.patterns = stars, .pattern_count = GD_MAX_PATTERNS + 1};
    const gd_group_spec deep = {.patterns = too_long, .pattern_count = 1};
    const gd_group_spec fits = {.patterns = stars, .pattern_count = GD_MAX_PATTERNS};
    const gd_optimizer_spec refused[] = {{.groups = many, .group_count = GD_MAX_GROUPS + 1},
                                         {.groups = &wide, .group_count = 1},
                                         {.groups = &deep, .group_count = 1}};
    for (size_t i = 0; i < 3; i++) {
        gd_error error = GD_ERROR_INIT;
        const gd_model_patch patch = {.optimizer = &refused[i]};
        assert_int_equal(gd_model_change(f->model, &patch, &error), GD_E_LIMIT);
        assert_non_null(strstr(error.message, "at most"));
    }
    expect_rates(f->model, 0.5, 0.5, 0.125);
    gd_error error = GD_ERROR_INIT;
    const gd_optimizer_spec most = {.groups = &fits, .group_count = 1};
    const gd_model_patch patch = {.optimizer = &most};
    test_ok(gd_model_change(f->model, &patch, &error), &error);
}

/* ---- with a scheduler -------------------------------------------------------------------------------- */

static void new_groups_begin_the_schedule_again(void **state) {
    fixture *f = *state;
    gd_group group;
    train(f->model, NULL);
    expect_rates(f->model, 0.25, 0.25, 0.0625);
    must_change(f->model, "{'lr': 1}"); /* goes on from there */
    expect_rates(f->model, 1, 1, 0.0625);
    train(f->model, NULL);
    expect_rates(f->model, 0.5, 0.5, 0.03125);
    assert_int_equal(gd_model_scheduler(f->model)->epoch, 2);
    must_change(f->model, "{'param_groups': [{'params': 'fc1.*', 'lr': 4}, {'params': 'fc2.*'}]}");
    expect_rates(f->model, 0.5, 4, 0.5);
    assert_int_equal(gd_model_scheduler(f->model)->epoch, 0);
    assert_true(gd_model_group(f->model, 1, &group));
    assert_float_equal(group.initial_lr, 4, 0);
    train(f->model, NULL);
    expect_rates(f->model, 0.25, 2, 0.25);
}

/* ---- memory ------------------------------------------------------------------------------------------ */

/* How many slots of state a model of this optimizer has, before a step and after; what is foretold. */
static size_t slots(const char *optimizer, const char *scheduler) {
    gd_engine *engine = test_engine(1, 0);
    json_t *how = test_json(optimizer), *when = scheduler ? test_json(scheduler) : NULL, *none = json_null();
    gd_model *bare = model_of(engine, none, NULL), *model = model_of(engine, how, when);
    const size_t slab = gd_model_memory(bare) / 2, state = gd_model_memory(model) - gd_model_memory(bare);
    assert_int_equal(state % slab, 0);

    gp_optimizer_spec spec;
    gp_scheduler_spec schedule = {0};
    gp_error wire = {0};
    gd_error error = GD_ERROR_INIT;
    size_t foretold;
    assert_int_equal(gp_optimizer_spec_read(how, "", &spec, &wire), 0);
    assert_int_equal(when ? gp_scheduler_spec_read(when, "", &schedule, &wire) : 0, 0);
    const gd_model_config config = {.optimizer = spec.spec,
                                    .scheduler = schedule.spec,
                                    .loss = {&(gd_term_spec){.loss = {.type = "MSELoss"}, .weight = 1}, 1}};
    test_ok(gd_graph_memory(engine, gd_model_graph(model), &config, 8, &foretold, &error), &error);
    train(model, NULL);
    assert_int_equal(gd_model_memory(model), foretold);
    gp_optimizer_spec_release(&spec);
    gp_scheduler_spec_release(&schedule);
    gd_model_free(bare);
    gd_model_free(model);
    gd_engine_free(engine);
    json_decref(how);
    json_decref(when);
    return state / slab;
}

static void only_state_that_is_used_takes_memory(void **state) {
    (void)state;
    static const struct {
        const char *json;
        size_t slots;
    } rows[] = {
        {"'SGD'", 0},
        {"{'type': 'SGD', 'momentum': 0.9}", 1},
        {"{'type': 'SGD', 'param_groups': [{'params': 'fc1.*', 'momentum': 0.9}]}", 1},
        {"{'type': 'SGD', 'momentum': 0.9, 'param_groups': [{'params': 'fc1.*', 'momentum': 0}]}", 1},
        {"'Adam'", 2},
        {"'AdamW'", 2},
        {"{'type': 'Adam', 'amsgrad': true}", 3},
        {"{'type': 'AdamW', 'param_groups': [{'params': 'fc1.*', 'amsgrad': true}]}", 3},
        {"'RMSprop'", 1},
        {"{'type': 'RMSprop', 'centered': true}", 2},
        {"{'type': 'RMSprop', 'momentum': 0.5}", 2},
        {"{'type': 'RMSprop', 'centered': true, 'param_groups': [{'params': '*', 'momentum': 0.5}]}", 3},
        {"'Rprop'", 2},
        {"'Adagrad'", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (slots(rows[i].json, NULL) != rows[i].slots)
            fail_msg("%s: not %zu slots", rows[i].json, rows[i].slots);
    assert_int_equal(slots("'SGD'", "{'type': 'OneCycleLR', 'max_lr': 1, 'total_steps': 9}"), 1);
    assert_int_equal(
        slots("'SGD'", "{'type': 'OneCycleLR', 'max_lr': 1, 'total_steps': 9, 'cycle_momentum': false}"), 0);
}

static void a_change_that_needs_more_state_gets_it_zeroed_or_is_refused(void **state) {
    fixture *f = *state;
    const size_t before = gd_model_memory(f->model), slab = before / 2;
    gd_error error;
    must_change(f->model, "{'momentum': 0.5}");
    assert_int_equal(gd_model_memory(f->model), before + slab);
    for (int i = 0; i < 20; i++)
        assert_float_equal(buffer(f->model, "fc1.weight")[i], 0, 0);
    must_change(f->model, "{'type': 'Adam', 'lr': 0.5}");
    assert_int_equal(gd_model_memory(f->model), before + 2 * slab);
    must_change(f->model, "{'param_groups': [{'params': 'fc1.*', 'amsgrad': true}]}");
    assert_int_equal(gd_model_memory(f->model), before + 3 * slab);
    must_change(f->model, "{'type': 'SGD', 'lr': 0.5}"); /* another optimizer: what it does not need goes */
    assert_int_equal(gd_model_memory(f->model), before);

    gd_engine *narrow = test_engine(1, before + slab / 2);
    json_t *how = test_json(groups);
    gd_model *model = model_of(narrow, how, NULL);
    const uint64_t version = gd_model_version(model);
    assert_int_equal(change(model, "{'lr': 3, 'momentum': 0.5}", &error), GD_E_MEMORY);
    assert_int_equal(change(model, "{'param_groups': [{'params': '*', 'momentum': 0.5}]}", &error),
                     GD_E_MEMORY);
    assert_int_equal(change(model, "{'type': 'Adam'}", &error), GD_E_MEMORY);
    expect_rates(model, 0.5, 0.5, 0.125);
    assert_int_equal(gd_model_version(model), version);
    assert_int_equal(gd_engine_memory(narrow), before);
    json_decref(how);
    gd_model_free(model);
    gd_engine_free(narrow);
}

static void an_override_that_needs_more_state_gets_it(void **state) {
    fixture *f = *state;
    const gd_field fields[] = {{"momentum", {.kind = GD_VALUE_FLOAT, .number = 0.5}}};
    const gd_step_options options = {.fields = fields, .field_count = 1};
    train(f->model, NULL);
    assert_null(buffer(f->model, "fc1.weight"));
    const size_t memory = gd_model_memory(f->model);
    train(f->model, &options);
    assert_non_null(buffer(f->model, "fc1.weight"));
    const size_t grown = gd_model_memory(f->model);
    assert_true(grown > memory);
    train(f->model, &options);
    train(f->model, NULL);
    assert_int_equal(gd_model_memory(f->model), grown);
}

int main(void) {
#define T(name, set_up) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(a_change_reaches_groups_that_have_no_value_of_their_own, set_up),
        T(an_override_reaches_the_same_groups_for_one_step, set_up),
        T(new_groups_take_the_place_of_the_old_and_keep_the_state, set_up),
        T(a_bad_change_names_its_place_and_changes_nothing, set_up),
        T(a_change_that_breaks_a_group_is_refused, set_up),
        T(too_many_are_refused, set_up),
        T(new_groups_begin_the_schedule_again, halving),
        cmocka_unit_test(only_state_that_is_used_takes_memory),
        T(a_change_that_needs_more_state_gets_it_zeroed_or_is_refused, set_up),
        T(an_override_that_needs_more_state_gets_it, set_up),
    };
    expected_groups = test_golden_json("samples/groups.lr.json");
    test_golden_open(&golden, "samples/groups.safetensors");
    int failed = test_each_sample("groups", "100 steps match", a_hundred_steps_match, NULL);
    failed += cmocka_run_group_tests(tests, NULL, NULL);
    test_golden_close(&golden);
    json_decref(expected_groups);
    return failed != 0;
}
