/* golden_test.c -- every sample gives PyTorch's numbers: outputs, losses and all gradients. */
#include "tests/sample.h"
#include "tests/support.h"

#define TOLERANCE 1e-5

static test_family family; /* of the row under test */

static const json_t *graph_of(const char *name, const char *which) {
    return json_object_get(json_object_get(family.grad_fn, name), which);
}

/* A row may say that torch's own graph is another (time unrolled, say). */
static void walk_as_in_torch(const gd_model *model, const json_t *row, const char *which) {
    if (!json_is_true(json_object_get(row, "no_graph")))
        test_walk(model, graph_of(sample_name(row), which));
}

static gd_tensor golden(const json_t *row, const char *what) {
    return test_golden_get(&family.golden, "%s/%s", sample_name(row), what);
}

static bool has_golden(const json_t *row, const char *what) {
    char name[GP_MAX_NAME];
    snprintf(name, sizeof name, "%s/%s", sample_name(row), what);
    return test_golden_has(&family.golden, name);
}

static bool is_copy_of_layer(const gd_parameter *parameter) {
    return strncmp(parameter->name, "layer.", 6) == 0 || strncmp(parameter->name, "again.", 6) == 0;
}

static void compare_parameter_gradients(const gd_model *model, const json_t *row) {
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        char name[GP_MAX_NAME];
        snprintf(name, sizeof name, "grad.%.200s", parameter->name + 6);
        if (!is_copy_of_layer(parameter) || parameter->buffer)
            continue;
        gd_tensor expected = golden(row, name);
        gd_tensor actual = {.dtype = GD_FLOAT32, .shape = parameter->shape, .data = parameter->grad};
        assert_true(parameter->has_grad);
        test_close(&expected, &actual, TOLERANCE, parameter->name);
    }
}

/* Buffers as one forward left them. */
static void compare_buffers(const gd_model *model, const json_t *row) {
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        char name[GP_MAX_NAME];
        snprintf(name, sizeof name, "after.%.200s", parameter->name + 6);
        if (!is_copy_of_layer(parameter) || !parameter->buffer)
            continue;
        gd_tensor expected = golden(row, name);
        gd_tensor actual = {.dtype = parameter->dtype, .shape = parameter->shape, .data = parameter->data};
        test_close(&expected, &actual, TOLERANCE, parameter->name);
    }
}

/* The op fed with data: nothing wants a gradient of its input. */
static void an_op_fed_with_data(void **state) {
    const json_t *row = *state;
    const char *name = sample_name(row);
    sample s;
    sample_begin(row, &family.golden, SAMPLE_DIRECT, 2, &s);
    gd_tensor output;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(s.model, s.in.tensors, s.in.count, &output, &error), &error);
    gd_tensor expected = golden(row, "output");
    test_close(&expected, &output, TOLERANCE, "output");
    compare_buffers(s.model, row);
    if (json_array_size(graph_of(name, "direct")) > 0) {
        gd_tensor gradient = golden(row, "output_grad");
        walk_as_in_torch(s.model, row, "direct");
        test_ok(gd_model_backward(s.model, &gradient, false, &error), &error);
        compare_parameter_gradients(s.model, row);
    } else {
        assert_string_equal(gd_model_output_grad_fn(s.model, 0), "");
    }
    test_ok(gd_model_predict(s.model, s.in.tensors, s.in.count, &output, &error), &error);
    if (has_golden(row, "output_eval"))
        expected = golden(row, "output_eval");
    test_close(&expected, &output, TOLERANCE, "predict's output");
    compare_buffers(s.model, row); /* predict leaves them alone */
    sample_end(&s);
}

static void compare_input_gradients(const gd_model *model, const json_t *row, int factor);

/* The op inside a network: its input's gradient is a parameter's. */
static void an_op_in_a_network(void **state) {
    const json_t *row = *state;
    const json_t *graph = graph_of(sample_name(row), "source");
    sample s;
    sample_begin(row, &family.golden, SAMPLE_SOURCE, 2, &s);
    gd_tensor output;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(s.model, s.in.tensors, s.in.count, &output, &error), &error);
    gd_tensor expected = golden(row, "output");
    test_close(&expected, &output, TOLERANCE, "output");
    if (json_array_size(graph) > 0) {
        gd_tensor gradient = golden(row, "output_grad");
        walk_as_in_torch(s.model, row, "source");
        test_ok(gd_model_backward(s.model, &gradient, false, &error), &error);
        compare_parameter_gradients(s.model, row);
        compare_input_gradients(s.model, row, 1);
    }
    sample_end(&s);
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

static void compare_input_gradients(const gd_model *model, const json_t *row, int factor) {
    for (size_t i = 0; i < json_array_size(json_object_get(row, "inputs")); i++) {
        char name[32];
        snprintf(name, sizeof name, "grad.input%zu", i);
        if (!has_golden(row, name))
            continue; /* integers */
        const gd_tensor once = golden(row, name);
        gd_tensor expected = copy_of(&once), actual = sample_source_gradient(model, i, &once.shape);
        if (factor == 2)
            double_values(&expected);
        test_close(&expected, &actual, TOLERANCE, "input's gradient");
        free(actual.data);
        free(expected.data);
    }
}

/* The op and itself again on the same input, summed: its input's gradient adds up from both, and neither
 * may write over what the other reads. */
static void an_op_whose_input_is_read_twice(void **state) {
    const json_t *row = *state;
    sample s;
    if (golden(row, "output").dtype != GD_FLOAT32)
        return; /* indices are not added */
    sample_begin(row, &family.golden, SAMPLE_TWICE, 2, &s);
    gd_tensor output;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(s.model, s.in.tensors, s.in.count, &output, &error), &error);
    gd_tensor once = golden(row, "output"), expected = copy_of(&once);
    gd_tensor gradient = golden(row, "output_grad");
    double_values(&expected);
    test_close(&expected, &output, TOLERANCE, "output");
    free(expected.data);
    if (json_array_size(graph_of(sample_name(row), "source")) > 0) {
        test_ok(gd_model_backward(s.model, &gradient, false, &error), &error);
        compare_parameter_gradients(s.model, row);
        compare_input_gradients(s.model, row, 2);
    }
    sample_end(&s);
}

/* A module's text as a child of Net: every further line is indented. */
static void expect_inside_net(const char *text, char *out, size_t size) {
    size_t used = (size_t)snprintf(out, size, "Net(\n  (layer): ");
    for (; *text; text++)
        used += (size_t)snprintf(out + used, size - used, "%c%s", *text, *text == '\n' ? "  " : "");
    snprintf(out + used, size - used, "\n)");
    assert_true(used + 3 < size);
}

static void an_op_prints_as_in_torch(void **state) {
    const json_t *row = *state;
    const json_t *text = json_object_get(family.repr, sample_name(row));
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = test_model(engine, sample_definition(row, SAMPLE_DIRECT));
    char *actual = gd_graph_repr(gd_model_graph(model));
    char expected[4096];
    if (text)
        expect_inside_net(json_string_value(text), expected, sizeof expected);
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
    gd_tensor output = golden(row, "output");
    gd_tensor target = has_golden(row, "target") ? golden(row, "target") : (gd_tensor){.data = NULL};
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(engine, sample_definition(row, SAMPLE_SOURCE));
    sample_set_source(model, 0, &output);
    gd_tensor identity = sample_identity(output.shape.dim[0]), copy, loss;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &identity, 1, &copy, &error), &error);
    test_close(&output, &copy, 0, "the output handed through");
    test_ok(gd_model_loss(model, &target, NULL, &loss, &error), &error);
    gd_tensor expected = golden(row, "value");
    test_close(&expected, &loss, TOLERANCE, "loss");
    test_walk(model, graph_of(sample_name(row), "source"));
    int code = gd_model_backward(model, NULL, false, &error);
    if (loss.shape.rank == 0) {
        test_ok(code, &error);
        expected = golden(row, "grad.output");
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
    failed += test_each_sample("ops", "an op fed with data", an_op_fed_with_data, &family);
    failed += test_each_sample("ops", "an op in a network", an_op_in_a_network, &family);
    failed +=
        test_each_sample("ops", "an op whose input is read twice", an_op_whose_input_is_read_twice, &family);
    failed += test_each_sample("ops", "an op prints as in torch", an_op_prints_as_in_torch, &family);
    failed += test_each_sample("losses", "a loss", a_loss, &family);
    return failed != 0;
}
