/* sample.c -- a row of samples as a model. */
#include "tests/sample.h"

const char *sample_name(const json_t *row) {
    return json_string_value(json_object_get(row, "name"));
}

/* One sample's shape: a tensor's without the batch axis. */
static json_t *without_batch(const json_t *shape) {
    json_t *copy = json_copy((json_t *)(uintptr_t)shape);
    json_array_remove(copy, 0);
    return copy;
}

/* A source and, unless it is flat already, a view of its output. @return the name of what to read */
static json_t *add_source(json_t *layers, size_t index, const json_t *shape, const char *feed) {
    json_int_t features = 1;
    size_t axes = json_array_size(shape);
    for (size_t i = 1; i < axes; i++)
        features *= json_integer_value(json_array_get(shape, i));
    json_t *source = json_sprintf("source%zu", index), *view = json_sprintf("view%zu", index);
    json_array_append_new(layers, json_pack("{s:s, s:O, s:I, s:b, s:[s]}", "type", "linear", "name", source,
                                            "out_features", features, "bias", 0, "inputs", feed));
    if (axes == 2) {
        json_decref(view);
        return source;
    }
    json_t *dims = json_deep_copy(shape);
    json_array_set_new(dims, 0, json_integer(-1));
    json_array_append_new(layers, json_pack("{s:s, s:O, s:o, s:[o]}", "type", "view", "name", view, "shape",
                                            dims, "inputs", source));
    return view;
}

/* An input given as {"shape", "constant"} does not depend on the batch. */
static const json_t *constant_of(const json_t *input) {
    return json_is_object(input) ? json_object_get(input, "constant") : NULL;
}

/* It is a layer, and behind a source the source is fed with one: the identity. @return what to read */
static json_t *add_constant(json_t *layers, size_t index, const json_t *input, sample_feed feed) {
    const json_t *shape = json_object_get(input, "shape");
    json_t *name = json_sprintf("constant%zu", index), *data = json_array();
    if (feed == SAMPLE_DIRECT) {
        json_array_append_new(layers, json_pack("{s:s, s:O, s:O, s:O}", "type", "constant", "name", name,
                                                "data", constant_of(input), "shape", shape));
        json_decref(data);
        return name;
    }
    const json_int_t n = json_integer_value(json_array_get(shape, 0));
    for (json_int_t i = 0; i < n * n; i++)
        json_array_append_new(data, json_integer(i % (n + 1) == 0));
    json_array_append_new(layers, json_pack("{s:s, s:O, s:o, s:[I, I]}", "type", "constant", "name", name,
                                            "data", data, "shape", n, n));
    json_t *source = add_source(layers, index, shape, json_string_value(name));
    json_decref(name);
    return source;
}

/* An input given as {"shape", "integers"} holds int64. */
static const json_t *integers_of(const json_t *input) {
    return json_object_get(input, "integers") ? json_object_get(input, "shape") : NULL;
}

static void add_input(json_t *inputs, json_t *names, size_t index, const json_t *shape, const char *dtype) {
    char name[32];
    snprintf(name, sizeof name, "x%zu", index);
    json_object_set_new(inputs, name, json_pack("{s:o, s:s}", "shape", without_batch(shape), "dtype", dtype));
    json_array_append_new(names, json_sprintf("@x%zu", index));
}

static json_t *read_name(const json_t *row, const char *layer) {
    const json_t *read = json_object_get(row, "read");
    return read ? json_sprintf("%s:%d", layer, (int)json_integer_value(read)) : json_string(layer);
}

/* The op itself, and with SAMPLE_TWICE itself again and the sum of both. */
static void add_op(json_t *layers, const json_t *row, json_t *names, sample_feed feed) {
    json_t *layer = json_copy(json_object_get(row, "attributes"));
    json_object_set(layer, "type", json_object_get(row, "op"));
    json_object_set_new(layer, "name", json_string("layer"));
    if (!json_is_true(json_object_get(row, "unfed")))
        json_object_set(layer, "inputs", names);
    json_array_append_new(layers, layer);
    if (feed == SAMPLE_TWICE) {
        layer = json_copy(layer);
        json_object_set_new(layer, "name", json_string("again"));
        json_array_append_new(layers, layer);
        json_array_append_new(layers, json_pack("{s:s, s:[o, o]}", "type", "add", "inputs",
                                                read_name(row, "layer"), read_name(row, "again")));
    } else if (json_object_get(row, "read")) {
        json_array_append_new(layers, json_pack("{s:s, s:s, s:[o]}", "type", "identity", "name", "read",
                                                "inputs", read_name(row, "layer")));
    }
}

json_t *sample_definition(const json_t *row, sample_feed feed) {
    json_t *inputs = json_object(), *layers = json_array(), *names = json_array();
    const json_t *output = json_object_get(row, "output"), *shapes = json_object_get(row, "inputs");
    json_t *definition = json_pack("{s:s, s:s, s:i}", "name", "sample", "class_name", "Net", "seed", 0);
    size_t count = shapes ? json_array_size(shapes) : 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *shape = shapes ? json_array_get(shapes, i) : output;
        if (constant_of(shape)) {
            json_array_append_new(names, add_constant(layers, i, shape, feed));
        } else if (integers_of(shape)) {
            add_input(inputs, names, i, integers_of(shape), "int64");
        } else if (feed == SAMPLE_DIRECT) {
            add_input(inputs, names, i, shape, "float32");
        } else {
            json_object_set_new(inputs, "e", json_pack("{s:[O]}", "shape", json_array_get(shape, 0)));
            json_array_append_new(names, add_source(layers, i, shape, "@e"));
        }
    }
    if (json_object_size(inputs) == 0) /* constants alone: a network has an input all the same */
        json_object_set_new(inputs, "unused", json_pack("{s:[i]}", "shape", 1));
    if (json_object_get(row, "op")) {
        add_op(layers, row, names, feed);
    } else {
        json_t *loss = json_copy(json_object_get(row, "attributes"));
        json_object_set(loss, "type", json_object_get(row, "loss"));
        json_object_set_new(definition, "loss", loss);
    }
    json_decref(names);
    json_object_set_new(definition, "inputs", inputs);
    json_object_set_new(definition, "layers", layers);
    return definition;
}

void sample_set_parameters(gd_model *model, const test_golden *golden, const char *name) {
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        if (strncmp(parameter->name, "layer.", 6) == 0 || strncmp(parameter->name, "again.", 6) == 0) {
            gd_tensor values = test_golden_get(golden, "%s/%s", name, parameter->name + 6);
            test_set_parameter(model, parameter->name, &values);
        }
    }
}

void sample_feed_model(gd_model *model, const json_t *row, const test_golden *golden, sample_feed feed,
                       sample_inputs *ret_inputs) {
    const json_t *shapes = json_object_get(row, "inputs");
    sample_inputs in = {.count = 0};
    assert_in_range(json_array_size(shapes), 1, SAMPLE_MAX_INPUTS);
    for (size_t i = 0; i < json_array_size(shapes); i++) {
        const gd_tensor x = test_golden_get(golden, "%s/input%zu", sample_name(row), i);
        const bool constant = constant_of(json_array_get(shapes, i));
        if (constant && feed == SAMPLE_DIRECT)
            continue;
        if (feed == SAMPLE_DIRECT || integers_of(json_array_get(shapes, i))) {
            in.tensors[in.count++] = x;
            continue;
        }
        if (!in.identity && !constant) { /* the sources' one input */
            in.tensors[in.count] = sample_identity(x.shape.dim[0]);
            in.identity = in.tensors[in.count++].data;
        }
        sample_set_source(model, i, &x);
    }
    if (!in.count) {
        in.tensors[in.count] = sample_identity(1);
        in.identity = in.tensors[in.count++].data;
    }
    *ret_inputs = in;
}

void sample_begin(const json_t *row, const test_golden *golden, sample_feed feed, int threads, sample *ret) {
    ret->engine = test_engine(threads, 0);
    ret->model = test_model(ret->engine, sample_definition(row, feed));
    const bool training = !json_is_true(json_object_get(row, "eval"));
    const gd_model_patch mode = {.training = &training};
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_change(ret->model, &mode, &error), &error);
    sample_set_parameters(ret->model, golden, sample_name(row));
    sample_feed_model(ret->model, row, golden, feed, &ret->in);
}

void sample_end(sample *s) {
    free(s->in.identity);
    gd_model_free(s->model);
    gd_engine_free(s->engine);
}

gd_tensor sample_identity(int64_t n) {
    float *values = calloc((size_t)(n * n), sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < n; i++)
        values[i * n + i] = 1;
    return (gd_tensor){.dtype = GD_FLOAT32, .shape = TEST_SHAPE(n, n), .data = values};
}

/* (rows, columns) to (columns, rows) */
static float *transposed(const float *values, int64_t rows, int64_t columns) {
    float *out = malloc((size_t)(rows * columns) * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            out[j * rows + i] = values[i * columns + j];
    return out;
}

void sample_set_source(gd_model *model, size_t index, const gd_tensor *x) {
    char name[32];
    snprintf(name, sizeof name, "source%zu.weight", index);
    int64_t batch = x->shape.dim[0], features = gd_numel(&x->shape) / batch;
    gd_tensor weight = {.dtype = GD_FLOAT32, .shape = TEST_SHAPE(features, batch)};
    weight.data = transposed(x->data, batch, features);
    test_set_parameter(model, name, &weight);
    free(weight.data);
}

gd_tensor sample_source_gradient(const gd_model *model, size_t index, const gd_shape *shape) {
    char name[32];
    snprintf(name, sizeof name, "source%zu.weight", index);
    const gd_parameter *weight = test_parameter(model, name);
    assert_true(weight->has_grad);
    return (gd_tensor){.dtype = GD_FLOAT32,
                       .shape = *shape,
                       .data = transposed(weight->grad, weight->shape.dim[0], weight->shape.dim[1])};
}
