/* golden_test.c -- every sample gives PyTorch's numbers: outputs, losses and all gradients. */
#include "tests/sample.h"
#include "tests/support.h"

#define TOLERANCE 1e-5

static test_golden ops, losses;
static json_t *grad_fn, *repr;

static const json_t *graph_of(const char *name, const char *which) {
    return json_object_get(json_object_get(grad_fn, name), which);
}

static void compare_parameter_gradients(const gd_model *model, const char *name) {
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        if (strncmp(parameter->name, "layer.", 6) != 0 && strncmp(parameter->name, "again.", 6) != 0)
            continue;
        gd_tensor expected = test_golden_get(&ops, "%s/grad.%s", name, parameter->name + 6);
        gd_tensor actual = {.dtype = GD_FLOAT32, .shape = parameter->shape, .data = parameter->grad};
        assert_true(parameter->has_grad);
        test_close(&expected, &actual, TOLERANCE, parameter->name);
    }
}

/* The op fed with data: nothing wants a gradient of its input. */
static void an_op_fed_with_data(void **state) {
    const json_t *row = *state;
    const char *name = sample_name(row);
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(engine, sample_definition(row, SAMPLE_DIRECT));
    sample_set_parameters(model, &ops, name);
    gd_tensor inputs[SAMPLE_MAX_INPUTS], output;
    size_t count = sample_inputs(row, &ops, inputs);
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, inputs, count, &output, &error), &error);
    gd_tensor expected = test_golden_get(&ops, "%s/output", name);
    test_close(&expected, &output, TOLERANCE, "output");
    if (gd_model_parameter_count(model) > 0) {
        gd_tensor gradient = test_golden_get(&ops, "%s/output_grad", name);
        test_walk(model, graph_of(name, "direct"));
        test_ok(gd_model_backward(model, &gradient, false, &error), &error);
        compare_parameter_gradients(model, name);
    } else {
        assert_string_equal(gd_model_grad_fn(model, false), "");
    }
    test_ok(gd_model_predict(model, inputs, count, &output, &error), &error);
    test_close(&expected, &output, TOLERANCE, "predict's output");
    gd_model_free(model);
    gd_engine_free(engine);
}

/* The op inside a network: its input's gradient is a parameter's. */
static void an_op_in_a_network(void **state) {
    const json_t *row = *state;
    const char *name = sample_name(row);
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(engine, sample_definition(row, SAMPLE_SOURCE));
    sample_set_parameters(model, &ops, name);
    gd_tensor inputs[SAMPLE_MAX_INPUTS], output, identity;
    size_t count = sample_inputs(row, &ops, inputs);
    for (size_t i = 0; i < count; i++)
        sample_set_source(model, i, &inputs[i]);
    identity = sample_identity(inputs[0].shape.dim[0]);
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &identity, 1, &output, &error), &error);
    gd_tensor expected = test_golden_get(&ops, "%s/output", name);
    gd_tensor gradient = test_golden_get(&ops, "%s/output_grad", name);
    test_close(&expected, &output, TOLERANCE, "output");
    test_walk(model, graph_of(name, "source"));
    test_ok(gd_model_backward(model, &gradient, false, &error), &error);
    compare_parameter_gradients(model, name);
    for (size_t i = 0; i < count; i++) {
        expected = test_golden_get(&ops, "%s/grad.input%zu", name, i);
        gd_tensor actual = sample_source_gradient(model, i, &expected.shape);
        test_close(&expected, &actual, TOLERANCE, "input's gradient");
        free(actual.data);
    }
    free(identity.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void double_values(gd_tensor *tensor) {
    float *values = tensor->data;
    for (int64_t i = 0; i < gd_numel(&tensor->shape); i++)
        values[i] *= 2;
}

static gd_tensor copy_of(const gd_tensor *tensor) {
    gd_tensor copy = *tensor;
    size_t size = (size_t)gd_numel(&copy.shape) * sizeof(float);
    copy.data = malloc(size);
    assert_non_null(copy.data);
    memcpy(copy.data, tensor->data, size);
    return copy;
}

/* The op and itself again on the same input, summed: its input's gradient adds up from both, and neither
 * may write over what the other reads. */
static void an_op_whose_input_is_read_twice(void **state) {
    const json_t *row = *state;
    const char *name = sample_name(row);
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(engine, sample_definition(row, SAMPLE_TWICE));
    sample_set_parameters(model, &ops, name);
    gd_tensor inputs[SAMPLE_MAX_INPUTS], output, identity;
    size_t count = sample_inputs(row, &ops, inputs);
    for (size_t i = 0; i < count; i++)
        sample_set_source(model, i, &inputs[i]);
    identity = sample_identity(inputs[0].shape.dim[0]);
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &identity, 1, &output, &error), &error);
    gd_tensor golden = test_golden_get(&ops, "%s/output", name), expected = copy_of(&golden);
    gd_tensor gradient = test_golden_get(&ops, "%s/output_grad", name);
    double_values(&expected);
    test_close(&expected, &output, TOLERANCE, "output");
    free(expected.data);
    test_ok(gd_model_backward(model, &gradient, false, &error), &error);
    compare_parameter_gradients(model, name);
    for (size_t i = 0; i < count; i++) {
        golden = test_golden_get(&ops, "%s/grad.input%zu", name, i);
        expected = copy_of(&golden);
        double_values(&expected);
        gd_tensor actual = sample_source_gradient(model, i, &expected.shape);
        test_close(&expected, &actual, TOLERANCE, "input's gradient");
        free(actual.data);
        free(expected.data);
    }
    free(identity.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void an_op_prints_as_in_torch(void **state) {
    const json_t *row = *state;
    const json_t *text = json_object_get(repr, sample_name(row));
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = test_model(engine, sample_definition(row, SAMPLE_DIRECT));
    char *actual = gd_graph_repr(gd_model_graph(model));
    char expected[512];
    if (text)
        snprintf(expected, sizeof expected, "Net(\n  (layer): %s\n)", json_string_value(text));
    else
        snprintf(expected, sizeof expected, "Net()"); /* a functional does not stand in repr */
    assert_non_null(actual);
    assert_string_equal(actual, expected);
    free(actual);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void a_loss(void **state) {
    const json_t *row = *state;
    const char *name = sample_name(row);
    gd_tensor output = test_golden_get(&losses, "%s/output", name);
    gd_tensor target = test_golden_get(&losses, "%s/target", name);
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(engine, sample_definition(row, SAMPLE_SOURCE));
    sample_set_source(model, 0, &output);
    gd_tensor identity = sample_identity(output.shape.dim[0]), copy, loss;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &identity, 1, &copy, &error), &error);
    test_close(&output, &copy, 0, "the output handed through");
    test_ok(gd_model_loss(model, &target, NULL, &loss, &error), &error);
    gd_tensor expected = test_golden_get(&losses, "%s/value", name);
    test_close(&expected, &loss, TOLERANCE, "loss");
    test_walk(model, graph_of(name, "source"));
    int code = gd_model_backward(model, NULL, false, &error);
    if (loss.shape.rank == 0) {
        test_ok(code, &error);
        expected = test_golden_get(&losses, "%s/grad.output", name);
        gd_tensor actual = sample_source_gradient(model, 0, &output.shape);
        test_close(&expected, &actual, TOLERANCE, "output's gradient");
        free(actual.data);
    } else { /* torch: grad can be implicitly created only for scalar outputs */
        assert_int_not_equal(code, 0);
        assert_non_null(strstr(error.message, "reduction"));
    }
    free(identity.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

int main(void) {
    int failed = 0;
    test_golden_open(&ops, "ops.safetensors");
    test_golden_open(&losses, "losses.safetensors");
    grad_fn = test_golden_json("grad_fn.json");
    repr = test_golden_json("repr.json");
    failed += test_each_sample("ops", "an op fed with data", an_op_fed_with_data);
    failed += test_each_sample("ops", "an op in a network", an_op_in_a_network);
    failed += test_each_sample("ops", "an op whose input is read twice", an_op_whose_input_is_read_twice);
    failed += test_each_sample("ops", "an op prints as in torch", an_op_prints_as_in_torch);
    failed += test_each_sample("losses", "a loss", a_loss);
    json_decref(grad_fn);
    json_decref(repr);
    test_golden_close(&ops);
    test_golden_close(&losses);
    return failed != 0;
}
