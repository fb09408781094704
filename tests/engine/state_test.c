/* state_test.c -- a model that goes on from a state does what the model did that it was taken from, bit for
 * bit, with every optimizer and every scheduler; and a state that does not fit is refused and changes
 * nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

/* ---- a state in memory of its own ---------------------------------------------------------------------- */

typedef struct snapshot {
    gd_state_entry *entries;
    size_t count;
    char *bytes; /* the data one after another, aligned to nothing */
} snapshot;

static size_t bytes_of(const gd_tensor *tensor) {
    return (size_t)gd_numel(&tensor->shape) * gd_dtype_size(tensor->dtype);
}

static snapshot take(const gd_model *model) {
    snapshot s = {.count = gd_model_state_count(model)};
    size_t bytes = 1;
    s.entries = calloc(s.count, sizeof *s.entries);
    assert_non_null(s.entries);
    for (size_t i = 0; i < s.count; i++) {
        gd_model_state_at(model, i, &s.entries[i]);
        bytes += bytes_of(&s.entries[i].tensor);
    }
    s.bytes = malloc(bytes);
    assert_non_null(s.bytes);
    char *to = s.bytes + 1;
    for (size_t i = 0; i < s.count; i++) {
        gd_tensor *tensor = &s.entries[i].tensor;
        memcpy(to, tensor->data, bytes_of(tensor));
        tensor->data = to;
        to += bytes_of(tensor);
    }
    return s;
}

static void drop(snapshot *s) {
    free(s->entries);
    free(s->bytes);
    *s = (snapshot){0};
}

static gd_state_entry *entry_of(const snapshot *s, const char *name) {
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->entries[i].name, name) == 0)
            return &s->entries[i];
    fail_msg("no entry '%s'", name);
    return NULL;
}

static void expect_same(const snapshot *a, const snapshot *b, const char *except) {
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        const gd_state_entry *x = &a->entries[i], *y = &b->entries[i];
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->tensor.dtype, y->tensor.dtype);
        assert_true(gd_shape_equal(&x->tensor.shape, &y->tensor.shape));
        if ((!except || strcmp(x->name, except) != 0) &&
            memcmp(x->tensor.data, y->tensor.data, bytes_of(&x->tensor)) != 0)
            fail_msg("'%s' differs: %lld %lld", x->name, *(long long *)x->tensor.data,
                     *(long long *)y->tensor.data);
    }
}

static void load(gd_model *model, const snapshot *s) {
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_state_load(model, s->entries, s->count, &error), &error);
}

/* ---- models -------------------------------------------------------------------------------------------- */

enum { BATCH = 6, FEATURES = 5, CLASSES = 3 };

/* Running statistics (and an int64 among them), random numbers, a frozen layer, shared parameters. */
static json_t *network(void) {
    return test_json(
        "{'name': 'net', 'seed': 3, 'input': {'shape': [5]}, 'loss': {'type': 'CrossEntropyLoss'},"
        " 'layers': [{'type': 'Linear', 'name': 'fc1', 'out_features': 8},"
        " {'type': 'BatchNorm1d', 'name': 'bn'}, {'type': 'relu', 'name': 'act'},"
        " {'type': 'Dropout', 'name': 'drop', 'p': 0.3},"
        " {'type': 'Linear', 'name': 'still', 'out_features': 8, 'requires_grad': false},"
        " {'type': 'Tanh', 'name': 'tanh'}, {'type': 'Linear', 'name': 'fc2', 'out_features': 3}]}");
}

typedef struct training {
    json_t *definition;
    double metric; /* NAN: the scheduler, if it goes by epochs, takes none */
} training;

static gd_model *build(gd_engine *engine, const training *t, int seed) {
    json_t *definition = json_deep_copy(t->definition);
    json_object_set_new(definition, "seed", json_integer(seed));
    return test_model(engine, definition);
}

/* Of a one-cycle policy that is over. */
static bool is_over(const gd_error *error) {
    return error->code == GD_E_STATE;
}

static void train(gd_model *model, const training *t, int from, int to) {
    for (int step = from; step < to; step++) {
        gd_tensor x = test_random(TEST_SHAPE(BATCH, FEATURES), (uint64_t)step);
        gd_tensor y = test_random_classes(BATCH, CLASSES, (uint64_t)step);
        gd_step_result result;
        gd_error error = GD_ERROR_INIT;
        if (gd_model_train_step(model, &x, 1, &y, NULL, NULL, &result, &error) && !is_over(&error))
            fail_msg("%s", error.message);
        const double metric = t->metric / (1 + step % 5);
        const gd_schedule *schedule = gd_model_scheduler(model);
        gd_error none = GD_ERROR_INIT;
        if (schedule) /* refused where it goes by steps */
            (void)gd_model_scheduler_step(model, isnan(metric) ? NULL : &metric, &none);
        free(x.data);
        free(y.data);
    }
}

/* Train, take the state, train on: a new model, and one that has gone another way before, do the same from
 * there on. */
static void goes_on_the_same(const training *t, int before, int after) {
    gd_engine *engine = test_engine(1, 0);
    gd_model *a = build(engine, t, 1);
    train(a, t, 0, before);
    const uint64_t version = gd_model_version(a);
    snapshot middle = take(a);
    train(a, t, before, before + after);
    snapshot end = take(a);
    for (int other = 0; other < before; other += before - 1) {
        gd_model *b = build(engine, t, 2);
        train(b, t, 100, 100 + other);
        const char *except = gd_model_version(b) < version ? NULL : "model.version"; /* of LBFGS: it varies */
        load(b, &middle);
        snapshot loaded = take(b);
        expect_same(&middle, &loaded, except);
        train(b, t, before, before + after);
        snapshot same = take(b);
        expect_same(&end, &same, except);
        drop(&loaded);
        drop(&same);
        gd_model_free(b);
    }
    drop(&middle);
    drop(&end);
    gd_model_free(a);
    gd_engine_free(engine);
}

/* A sample's attributes with its type. */
static json_t *spec_of(const json_t *row, const char *type) {
    json_t *spec = json_copy(json_object_get(row, "attributes"));
    json_object_set(spec, "type", json_object_get(row, type));
    return spec;
}

static void every_optimizer_goes_on(void **state) {
    const json_t *row = *state;
    for (int grouped = 0; grouped < 2; grouped++) {
        training t = {network(), NAN};
        json_t *optimizer = spec_of(row, "optimizer");
        const bool lbfgs = strcmp(json_string_value(json_object_get(row, "optimizer")), "LBFGS") == 0;
        if (grouped && !lbfgs)
            json_object_set_new(
                optimizer, "param_groups",
                test_json("[{'params': '*.bias', 'lr': 0.01}, {'params': ['bn*', 'fc2.*']}]"));
        json_object_set_new(t.definition, "optimizer", optimizer);
        goes_on_the_same(&t, 3, 4);
        json_decref(t.definition);
    }
}

static void every_scheduler_goes_on(void **state) {
    const json_t *row = *state;
    static const char *const intervals[] = {"step", "epoch"};
    const bool metric = json_object_get(row, "metrics") != NULL;
    for (int i = metric; i < 2; i++) {
        training t = {network(), metric ? 1 : NAN};
        json_t *scheduler = spec_of(row, "scheduler");
        json_t *optimizer = test_json("{'type': 'SGD', 'lr': 0.1, 'param_groups': [{'params': '*.bias'},"
                                      " {'params': 'fc2.*', 'lr': 0.01}]}");
        json_object_set_new(scheduler, "interval", json_string(intervals[i]));
        json_object_update(optimizer, json_object_get(row, "optimizer"));
        json_object_set_new(t.definition, "optimizer", optimizer);
        json_object_set_new(t.definition, "scheduler", scheduler);
        goes_on_the_same(&t, 23, 23);
        json_decref(t.definition);
    }
}

/* ---- what is not in a definition ----------------------------------------------------------------------- */

typedef struct fixture {
    gd_engine *engine;
    training t;
    gd_model *a, *b; /* of one definition; a has taken three steps */
} fixture;

static int set_up_with(void **state, const char *optimizer) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->t = (training){network(), NAN};
    json_object_set_new(f->t.definition, "optimizer", test_json(optimizer));
    f->engine = test_engine(1, 0);
    f->a = build(f->engine, &f->t, 1);
    f->b = build(f->engine, &f->t, 2);
    train(f->a, &f->t, 0, 3);
    *state = f;
    return 0;
}

static int sgd(void **state) {
    return set_up_with(state, "{'type': 'SGD', 'lr': 0.1}");
}

static int adam(void **state) {
    return set_up_with(state, "{'type': 'Adam', 'lr': 0.01, 'param_groups': [{'params': '*.bias'}]}");
}

static int lbfgs(void **state) {
    return set_up_with(state, "{'type': 'LBFGS', 'lr': 0.1, 'max_iter': 3, 'history_size': 4}");
}

static int tear_down(void **state) {
    fixture *f = *state;
    gd_model_free(f->a);
    gd_model_free(f->b);
    gd_engine_free(f->engine);
    json_decref(f->t.definition);
    free(f);
    return 0;
}

/* b takes a's state, and both do the same from there on. */
static void expect_same_from_here(fixture *f) {
    snapshot now = take(f->a);
    load(f->b, &now);
    train(f->a, &f->t, 10, 14);
    train(f->b, &f->t, 10, 14);
    snapshot end = take(f->a), same = take(f->b);
    expect_same(&end, &same, NULL);
    drop(&now);
    drop(&end);
    drop(&same);
}

static size_t index_of(const gd_model *model, const char *name) {
    size_t index;
    assert_non_null(gd_model_find_parameter(model, name, &index));
    return index;
}

static void what_was_frozen_since_stays_so(void **state) {
    fixture *f = *state;
    gd_model_set_requires_grad(f->a, index_of(f->a, "fc1.weight"), false);
    gd_model_set_requires_grad(f->a, index_of(f->a, "still.bias"), true);
    expect_same_from_here(f);
    assert_false(test_parameter(f->b, "fc1.weight")->requires_grad);
    assert_true(test_parameter(f->b, "still.bias")->has_grad);
}

static void eval_mode_and_changed_hyperparameters_stay_so(void **state) {
    fixture *f = *state;
    const gd_field fields[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 0.05}}};
    const gd_optimizer_spec optimizer = {.fields = fields, .field_count = 1};
    const bool eval = false;
    const gd_model_patch patch = {.training = &eval, .optimizer = &optimizer};
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_change(f->a, &patch, &error), &error);
    expect_same_from_here(f);
    assert_false(gd_model_training(f->b));
    assert_float_equal(gd_model_lr(f->b), 0.05, 0);
}

static const gd_field momentum = {"momentum", {.kind = GD_VALUE_FLOAT, .number = 0.9}};

static void step_with_momentum(gd_model *model, int seed) {
    gd_tensor x = test_random(TEST_SHAPE(BATCH, FEATURES), (uint64_t)seed);
    gd_tensor y = test_random_classes(BATCH, CLASSES, (uint64_t)seed);
    const gd_step_options options = {.fields = &momentum, .field_count = 1};
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_train_step(model, &x, 1, &y, NULL, &options, &result, &error), &error);
    free(x.data);
    free(y.data);
}

static void a_slot_that_one_step_turned_on_is_there(void **state) {
    fixture *f = *state;
    step_with_momentum(f->a, 7);
    snapshot now = take(f->a);
    (void)entry_of(&now, "optimizer.state.fc1.weight.momentum_buffer");
    load(f->b, &now);
    step_with_momentum(f->a, 8);
    step_with_momentum(f->b, 8);
    snapshot end = take(f->a), same = take(f->b);
    expect_same(&end, &same, NULL);
    drop(&now);
    drop(&end);
    drop(&same);
}

static void a_slot_that_was_not_there_yet_is_gone(void **state) {
    fixture *f = *state;
    const size_t held = gd_model_memory(f->b);
    snapshot now = take(f->a);
    step_with_momentum(f->b, 7);
    load(f->b, &now);
    snapshot loaded = take(f->b);
    expect_same(&now, &loaded, "model.version");
    load(f->a, &loaded);
    assert_true(gd_model_memory(f->b) > held); /* its arena */
    step_with_momentum(f->a, 8);
    step_with_momentum(f->b, 8);
    snapshot end = take(f->a), same = take(f->b);
    expect_same(&end, &same, "model.version"); /* a has been there before */
    drop(&now);
    drop(&loaded);
    drop(&end);
    drop(&same);
}

static void the_second_of_two_normal_numbers_is_kept(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    json_t *definition =
        test_json("{'name': 'net', 'input': {'shape': [3]}, 'layers': [{'type': 'Linear', 'name': "
                  "'fc', 'out_features': 5, 'init': {'bias': {'type': 'normal_'}}}]}");
    json_t *again = json_deep_copy(definition);
    json_object_set_new(again, "seed", json_integer(9));
    gd_model *a = test_model(engine, definition), *b = test_model(engine, again);
    snapshot now = take(a);
    assert_int_equal(*(uint8_t *)entry_of(&now, "rng.has_spare")->tensor.data, 1);
    load(b, &now);
    snapshot loaded = take(b);
    expect_same(&now, &loaded, "model.version");
    drop(&now);
    drop(&loaded);
    gd_model_free(a);
    gd_model_free(b);
    gd_engine_free(engine);
}

/* ---- gradients and graph ------------------------------------------------------------------------------- */

static void after_a_load_there_are_no_gradients_and_no_graph(void **state) {
    fixture *f = *state;
    gd_tensor x = test_random(TEST_SHAPE(BATCH, FEATURES), 1), output;
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    snapshot now = take(f->a);
    test_ok(gd_model_forward(f->a, &x, 1, &output, &error), &error);
    load(f->a, &now);
    for (size_t i = 0; i < gd_model_parameter_count(f->a); i++)
        assert_false(gd_model_parameter(f->a, i)->has_grad);
    assert_int_equal(gd_model_step(f->a, NULL, &result, NULL), GD_E_STATE);
    assert_int_equal(gd_model_output(f->a, &output, NULL), GD_E_STATE);
    assert_float_equal(gd_model_grad_norm(f->a), 0, 0);
    drop(&now);
    free(x.data);
}

/* A head that the loss was on once has a gradient of zero, which momentum and decay go by; not None. */
static void what_had_a_gradient_once_goes_on_without_one(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    const training t = {
        test_json("{'name': 'net', 'input': {'shape': [5]}, 'outputs': ['a', 'b'],"
                  " 'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9},"
                  " 'layers': [{'type': 'Linear', 'name': 'a', 'out_features': 3},"
                  "  {'type': 'Linear', 'name': 'b', 'inputs': ['@input'], 'out_features': 3}],"
                  " 'loss': {'type': 'CrossEntropyLoss', 'output': 'a'}}"),
        NAN};
    gd_model *a = build(engine, &t, 1), *b = build(engine, &t, 2);
    const gd_term_spec term = {.loss = {.type = "CrossEntropyLoss"}, .output = "b", .weight = 1};
    const gd_loss_spec loss = {&term, 1};
    gd_tensor x = test_random(TEST_SHAPE(BATCH, FEATURES), 1), y = test_random_classes(BATCH, CLASSES, 1);
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_train_step(a, &x, 1, &y, &loss, NULL, &result, &error), &error);
    snapshot now = take(a);
    load(b, &now);
    train(a, &t, 1, 4);
    train(b, &t, 1, 2);
    drop(&now);
    now = take(b); /* and once more, before it has one */
    gd_model *c = build(engine, &t, 3);
    load(c, &now);
    train(c, &t, 2, 4);
    snapshot end = take(a), same = take(c);
    expect_same(&end, &same, NULL);
    drop(&now);
    drop(&end);
    drop(&same);
    free(x.data);
    free(y.data);
    gd_model_free(a);
    gd_model_free(b);
    gd_model_free(c);
    gd_engine_free(engine);
    json_decref(t.definition);
}

static void a_version_only_goes_up(void **state) {
    fixture *f = *state;
    snapshot early = take(f->a);
    const uint64_t then = gd_model_version(f->a);
    train(f->a, &f->t, 3, 6);
    const uint64_t now = gd_model_version(f->a), seen = test_parameter(f->a, "fc1.weight")->version;
    load(f->a, &early);
    assert_int_equal(gd_model_version(f->a), now + 1);
    assert_true(test_parameter(f->a, "fc1.weight")->version > seen);
    load(f->b, &early);
    assert_int_equal(gd_model_version(f->b), then);
    drop(&early);
}

/* ---- names --------------------------------------------------------------------------------------------- */

/* Layers that are called as parts of a state are. */
static void no_name_means_two_things(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    static const char *const blocks[] = {"model", "optimizer", "scheduler", "rng"};
    static const char *const layers[] = {"state", "param_groups", "0", "conv1", "requires_grad"};
    json_t *definition =
        test_json("{'name': 'net', 'input': {'shape': [5]}, 'layers': [],"
                  " 'optimizer': {'type': 'Adam'}, 'scheduler': {'type': 'StepLR', 'step_size': 1}}");
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        json_t *block = json_pack("{s:s, s:s, s:[]}", "type", "Sequential", "name", blocks[i], "layers");
        for (size_t k = 0; k < sizeof layers / sizeof *layers; k++)
            json_array_append_new(json_object_get(block, "layers"),
                                  json_pack("{s:s, s:s, s:[{s:s, s:s, s:i}, {s:s, s:s, s:i}]}", "type",
                                            "Sequential", "name", layers[k], "layers", "type", "Linear",
                                            "name", "lr", "out_features", 5, "type", "Linear", "name",
                                            "conv1", "out_features", 5));
        json_array_append_new(json_object_get(definition, "layers"), block);
    }
    gd_model *model = test_model(engine, definition);
    snapshot s = take(model);
    load(model, &s); /* refuses what is there twice */
    drop(&s);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void a_state_has_pytorchs_names(void **state) {
    fixture *f = *state;
    static const char *const names[] = {
        "fc1.weight",
        "bn.running_mean",
        "bn.num_batches_tracked",
        "model.fc1.weight.requires_grad",
        "optimizer.state.fc2.bias.exp_avg",
        "optimizer.state.fc2.bias.exp_avg_sq",
        "optimizer.param_groups.0.lr",
        "optimizer.param_groups.1.betas",
        "optimizer.param_groups.1.amsgrad",
        "optimizer.steps",
        "rng.state",
        "model.step",
    };
    snapshot s = take(f->a);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        (void)entry_of(&s, names[i]);
    assert_int_equal(entry_of(&s, "bn.num_batches_tracked")->tensor.dtype, GD_INT64);
    assert_int_equal(entry_of(&s, "optimizer.param_groups.1.betas")->tensor.dtype, GD_FLOAT64);
    assert_int_equal(entry_of(&s, "optimizer.param_groups.1.betas")->tensor.shape.dim[0], 2);
    drop(&s);
}

/* ---- what is refused ----------------------------------------------------------------------------------- */

static void expect_refused(fixture *f, const snapshot *s, int code, const char *message) {
    gd_error error = GD_ERROR_INIT;
    snapshot before = take(f->b);
    assert_int_equal(gd_model_state_load(f->b, s->entries, s->count, &error), code);
    if (!strstr(error.message, message))
        fail_msg("\"%s\" should say \"%s\"", error.message, message);
    snapshot after = take(f->b);
    expect_same(&before, &after, NULL);
    drop(&before);
    drop(&after);
}

static void expect_bad_value(fixture *f, const char *name, const void *value, size_t size,
                             const char *message) {
    snapshot s = take(f->a);
    memcpy(entry_of(&s, name)->tensor.data, value, size);
    expect_refused(f, &s, GD_E_VALUE, message);
    drop(&s);
}

#define BAD(f, name, type, value, message) expect_bad_value(f, name, &(type){value}, sizeof(type), message)

static void every_missing_entry_is_named(void **state) {
    fixture *f = *state;
    char message[GD_MAX_STATE_NAME + 64];
    snapshot s = take(f->a);
    for (size_t i = 0; i < s.count; i++) {
        const gd_state_entry missing = s.entries[i];
        s.entries[i] = s.entries[--s.count];
        snprintf(message, sizeof message, "the state has no '%s'", missing.name);
        expect_refused(f, &s, GD_E_NOT_FOUND, message);
        s.count++;
        s.entries[s.count - 1] = s.entries[i];
        s.entries[i] = missing;
    }
    load(f->b, &s);
    drop(&s);
}

static void an_unknown_or_double_entry_is_named(void **state) {
    fixture *f = *state;
    snapshot s = take(f->a);
    s.entries = realloc(s.entries, (s.count + 1) * sizeof *s.entries);
    assert_non_null(s.entries);
    s.entries[s.count] = s.entries[0];
    s.count++;
    expect_refused(f, &s, GD_E_VALUE, "'fc1.weight' is in the state twice");
    snprintf(s.entries[s.count - 1].name, sizeof s.entries->name, "fc9.weight");
    expect_refused(f, &s, GD_E_NOT_FOUND, "the state has 'fc9.weight', but the model has no such thing");
    drop(&s);
}

static void a_wrong_shape_or_dtype_is_named(void **state) {
    fixture *f = *state;
    snapshot s = take(f->a);
    gd_tensor *tensor = &entry_of(&s, "fc1.weight")->tensor;
    tensor->shape = TEST_SHAPE(5, 8);
    expect_refused(f, &s, GD_E_SHAPE, "'fc1.weight' in the state is [5, 8], the model's is [8, 5]");
    tensor->shape = TEST_SHAPE(8, 5);
    tensor->dtype = GD_INT32;
    expect_refused(f, &s, GD_E_DTYPE, "'fc1.weight' in the state is int32, the model's is float32");
    drop(&s);
}

static void values_that_lead_astray_are_refused(void **state) {
    fixture *f = *state;
    BAD(f, "rng.next", int32_t, 625, "'rng.next' in the state holds 625, but it can only be 0 to 624");
    BAD(f, "rng.next", int32_t, -1, "'rng.next'");
    BAD(f, "rng.has_spare", uint8_t, 2, "'rng.has_spare'");
    BAD(f, "model.training", uint8_t, 255, "'model.training'");
    BAD(f, "model.step", int64_t, -1, "'model.step'");
    BAD(f, "model.version", int64_t, INT64_MAX, "'model.version'");
    BAD(f, "model.had_grad", uint8_t, 2, "'model.had_grad'");
    BAD(f, "model.bn.bias.requires_grad", uint8_t, 7, "'model.bn.bias.requires_grad'");
    BAD(f, "optimizer.steps", int64_t, INT64_MIN, "'optimizer.steps'");
    BAD(f, "optimizer.param_groups.1.amsgrad", uint8_t, 3, "'optimizer.param_groups.1.amsgrad'");
}

static void hyperparameters_that_need_a_slot_are_refused_without_it(void **state) {
    fixture *f = *state;
    snapshot s = take(f->a);
    memcpy(entry_of(&s, "optimizer.param_groups.0.momentum")->tensor.data, &(double){0.5}, sizeof(double));
    expect_refused(f, &s, GD_E_NOT_FOUND,
                   "the state has no momentum_buffer of 'fc1.weight', which SGD needs");
    drop(&s);
}

/* Of the LBFGS memory: what leads to places in it. The history is its third number, the oldest its seventh.
 */
static void a_history_that_leads_astray_is_refused(void **state) {
    fixture *f = *state;
    static const struct {
        int number;
        double value;
    } rows[] = {{2, 5}, {2, -1}, {2, NAN}, {2, 0.5}, {6, 4}, {6, NAN}, {6, 1e300}, {6, -1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snapshot s = take(f->a);
        memcpy((char *)entry_of(&s, "optimizer.state")->tensor.data + 8 * rows[i].number, &rows[i].value, 8);
        expect_refused(f, &s, GD_E_VALUE, "'optimizer.state' in the state is none that LBFGS can have");
        drop(&s);
    }
    BAD(f, "optimizer.param_groups.0.line_search_fn", int32_t, 1, "line_search_fn");
    BAD(f, "optimizer.param_groups.0.history_size", int64_t, 0, "history_size");
    snapshot s = take(f->a);
    memcpy(entry_of(&s, "optimizer.param_groups.0.history_size")->tensor.data, &(int64_t){5}, 8);
    expect_refused(f, &s, GD_E_SHAPE, "LBFGS's history_size in the state is not the model's");
    drop(&s);
}

static void a_state_of_another_optimizer_is_refused(void **state) {
    fixture *f = *state;
    json_t *definition = network();
    json_object_set_new(definition, "optimizer", test_json("{'type': 'RMSprop'}"));
    gd_model *other = test_model(f->engine, definition);
    snapshot s = take(other);
    expect_refused(f, &s, GD_E_NOT_FOUND, "optimizer.");
    drop(&s);
    gd_model_free(other);
}

static void without_memory_for_a_slot_nothing_changes(void **state) {
    (void)state;
    fixture f = {.t = {network(), NAN}};
    json_object_set_new(f.t.definition, "optimizer", test_json("{'type': 'SGD'}"));
    gd_engine *large = test_engine(1, 0);
    f.a = build(large, &f.t, 1);
    step_with_momentum(f.a, 1);
    gd_model *probe = build(large, &f.t, 2);
    f.engine = test_engine(1, gd_model_memory(probe) + 64);
    f.b = build(f.engine, &f.t, 2);
    snapshot s = take(f.a);
    expect_refused(&f, &s, GD_E_MEMORY, "");
    drop(&s);
    gd_model_free(probe);
    gd_model_free(f.a);
    gd_model_free(f.b);
    gd_engine_free(large);
    gd_engine_free(f.engine);
    json_decref(f.t.definition);
}

#define WITH(test, set_up) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(what_was_frozen_since_stays_so, sgd),
        WITH(eval_mode_and_changed_hyperparameters_stay_so, adam),
        WITH(a_slot_that_one_step_turned_on_is_there, sgd),
        WITH(a_slot_that_was_not_there_yet_is_gone, sgd),
        cmocka_unit_test(the_second_of_two_normal_numbers_is_kept),
        WITH(after_a_load_there_are_no_gradients_and_no_graph, adam),
        cmocka_unit_test(what_had_a_gradient_once_goes_on_without_one),
        WITH(a_version_only_goes_up, adam),
        cmocka_unit_test(no_name_means_two_things),
        WITH(a_state_has_pytorchs_names, adam),
        WITH(every_missing_entry_is_named, adam),
        WITH(an_unknown_or_double_entry_is_named, adam),
        WITH(a_wrong_shape_or_dtype_is_named, adam),
        WITH(values_that_lead_astray_are_refused, adam),
        WITH(hyperparameters_that_need_a_slot_are_refused_without_it, sgd),
        WITH(a_history_that_leads_astray_is_refused, lbfgs),
        WITH(a_state_of_another_optimizer_is_refused, adam),
        cmocka_unit_test(without_memory_for_a_slot_nothing_changes),
    };
    int failed = test_each_sample("optimizers", "goes on", every_optimizer_goes_on, NULL);
    failed += test_each_sample("schedulers", "goes on", every_scheduler_goes_on, NULL);
    return failed + cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
