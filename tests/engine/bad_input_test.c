/* bad_input_test.c -- what does not make sense is refused, in words that help, and nothing changes. */
#include "tests/sample.h"

enum { BATCH = 2 };

static gd_engine *engine;

/* A small network from x with an output of one sample's shape, or of [5]. */
static void add_network(json_t *inputs, json_t *layers, const json_t *output) {
    json_int_t features = output ? 1 : 5;
    json_t *shape = json_pack("[i]", -1), *axis;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)output, i, axis) {
        features *= json_integer_value(axis);
        json_array_append(shape, axis);
    }
    json_object_set_new(inputs, "x", json_pack("{s:[i]}", "shape", 3));
    json_array_append_new(layers, json_pack("{s:s, s:I}", "type", "Linear", "out_features", features));
    if (json_array_size(shape) > 2)
        json_array_append_new(layers, json_pack("{s:s, s:O}", "type", "view", "shape", shape));
    json_decref(shape);
}

/* A definition for a bad row: the op on inputs of one sample's shapes, or a small network with the loss
 * or the optimizer or the scheduler in question. */
static json_t *definition_of(const json_t *row) {
    static const char *const keys[] = {"loss", "optimizer"};
    const json_t *shapes = json_object_get(row, "inputs"), *op = json_object_get(row, "op");
    json_t *attributes = json_copy(json_object_get(row, "attributes"));
    json_t *inputs = json_object(), *names = json_array(), *layers = json_array();
    for (size_t i = 0; i < json_array_size(shapes); i++) {
        char name[32];
        snprintf(name, sizeof name, "x%zu", i);
        json_t *shape = json_array_get(shapes, i); /* or {"shape", "dtype"} */
        json_object_set_new(inputs, name,
                            json_is_object(shape) ? json_copy(shape) : json_pack("{s:O}", "shape", shape));
        json_array_append_new(names, json_sprintf("@x%zu", i));
    }
    if (op) {
        json_object_set(attributes, "type", (json_t *)(uintptr_t)op);
        json_object_set_new(attributes, "name", json_string("layer"));
        if (!json_is_true(json_object_get(row, "unfed")))
            json_object_set(attributes, "inputs", names);
        json_array_append(layers, attributes);
    } else {
        add_network(inputs, layers, json_object_get(row, "output"));
    }
    json_t *definition = json_pack("{s:s, s:s, s:i, s:o, s:o}", "name", "bad", "class_name", "Net", "seed", 0,
                                   "inputs", inputs, "layers", layers);
    for (int k = 0; k < 2; k++)
        if (json_is_string(json_object_get(row, keys[k]))) {
            json_object_set(attributes, "type", json_object_get(row, keys[k]));
            json_object_set(definition, keys[k], attributes);
        }
    if (json_object_get(row, "scheduler")) { /* of the row's optimizer, or of any */
        json_t *optimizer = json_incref(json_object_get(row, "optimizer"));
        json_object_set(attributes, "type", json_object_get(row, "scheduler"));
        json_object_set(definition, "scheduler", attributes);
        json_object_set_new(definition, "optimizer",
                            optimizer ? optimizer : test_json("{'type': 'SGD', 'lr': 0.1}"));
    }
    json_decref(attributes);
    json_decref(names);
    return definition;
}

static void expect(const json_t *row, const char *code, const char *field, const char *message) {
    const char *wanted = json_string_value(json_object_get(row, "code"));
    if (wanted[0] && strcmp(wanted, code) != 0)
        fail_msg("code is %s, should be %s: %s", code, wanted, message);
    const json_t *part, *parts = json_object_get(row, "message");
    size_t i;
    json_array_foreach(parts, i, part) if (!strstr(message, json_string_value(part)))
        fail_msg("the message does not say '%s': %s", json_string_value(part), message);
    if (json_object_get(row, "op") && !json_object_get(row, "unnamed") && !strstr(message, "layer"))
        fail_msg("the message does not name the layer: %s", message);
    const char *at = json_string_value(json_object_get(row, "field"));
    if (at && strcmp(at, field) != 0)
        fail_msg("field is '%s', should be '%s': %s", field, at, message);
}

/* The network is fine, but its loss is given a target that does not fit. */
static void expect_at_loss(const json_t *row, gd_model *model) {
    gd_tensor input = test_random(TEST_SHAPE(BATCH, 3), 1), output, loss = {0};
    gd_shape shape = test_shape(json_object_get(row, "target_shape"));
    const char *dtype = json_string_value(json_object_get(row, "target_dtype"));
    gd_tensor target = test_random(shape, 2);
    gd_error error = GD_ERROR_INIT;
    if (dtype && strcmp(dtype, "int64") == 0) {
        int64_t *values = realloc(target.data, sizeof(int64_t) * (size_t)(gd_numel(&shape) + 1));
        assert_non_null(values);
        for (int64_t i = 0; i < gd_numel(&shape); i++)
            values[i] = json_integer_value(json_object_get(row, "target_value"));
        target.data = values;
        target.dtype = GD_INT64;
    } else if (json_object_get(row, "target_value")) {
        for (int64_t i = 0; i < gd_numel(&shape); i++)
            ((float *)target.data)[i] = (float)json_number_value(json_object_get(row, "target_value"));
    }
    uint64_t version = gd_model_version(model);
    test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
    int code = gd_model_loss(model, &target, NULL, &loss, &error);
    expect(row, gd_error_code(code), error.field, error.message);
    assert_null(loss.data);
    gd_step_result result;
    gd_error again = GD_ERROR_INIT;
    assert_int_equal(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &again), code);
    assert_int_equal(gd_model_version(model), version);
    assert_int_equal(gd_model_steps(model), 0);
    assert_false(gd_model_parameter(model, 0)->has_grad);
    free(input.data);
    free(target.data);
}

static void is_refused(void **state) {
    const json_t *row = *state;
    size_t before = gd_engine_memory(engine);
    gd_model *model = NULL;
    test_failure failure;
    json_t *definition = definition_of(row);
    bool at_loss = json_object_get(row, "target_shape");
    if (at_loss)
        json_object_set_new(definition, "optimizer", test_json("{'type': 'SGD', 'lr': 0.1}"));
    int code = test_build(engine, definition, &model, &failure);
    json_decref(definition);
    if (code == 0 && at_loss) {
        expect_at_loss(row, model);
        gd_model_free(model);
    } else {
        if (code == 0)
            gd_model_free(model);
        assert_int_not_equal(code, 0);
        assert_null(model);
        expect(row, failure.code, failure.field, failure.message);
    }
    assert_int_equal(gd_engine_memory(engine), before);
}

int main(void) {
    engine = test_engine(1, 0);
    int failed = test_each_sample("bad", "is refused", is_refused, NULL);
    gd_engine_free(engine);
    return failed != 0;
}
