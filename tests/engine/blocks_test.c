/* blocks_test.c -- blocks of layers: names and their scopes, repr, shared parameters, errors. Texts have '
 * for ". */
#include "tests/support.h"

/* ---- as in torch ----------------------------------------------------------------------------------- */

#define UNIT \
    "{'type': 'Unit', 'layers': [{'type': 'Linear', 'name': 'fc1', 'out_features': 6}," \
    " {'type': 'ReLU', 'name': 'act'}," \
    " {'type': 'Sequential', 'name': 'body', 'layers': [{'type': 'Linear', 'out_features': 6}," \
    "  {'type': 'Sequential', 'layers': [{'type': 'Tanh'}, {'type': 'Linear', 'out_features': 6, 'bias': " \
    "false}]}]}," \
    " {'type': 'add', 'inputs': ['@input', 'body']}]}"

static void nested_blocks_are_torchs_modules(void **state) {
    (void)state;
    test_golden golden;
    test_golden_open(&golden, "models/blocks.safetensors");
    json_t *torch = test_golden_json("models/blocks.json");
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(
        engine, test_json("{'name': 'blocks', 'class_name': 'Blocks', 'seed': 0, 'input': {'shape': [4]}, "
                          "'layers': [{'type': 'Linear', 'name': 'stem', 'out_features': 6},"
                          "{'type': 'Sequential', 'name': 'units', 'layers': [" UNIT ", " UNIT "]},"
                          "{'type': 'Idle', 'name': 'idle', 'layers': [{'type': 'tanh'}]},"
                          "{'type': 'Linear', 'name': 'head', 'out_features': 3}]}"));
    char *text = gd_graph_repr(gd_model_graph(model));
    assert_non_null(text);
    assert_string_equal(text, json_string_value(json_object_get(torch, "repr")));
    const json_t *names = json_object_get(torch, "state_dict");
    assert_int_equal(gd_model_parameter_count(model), json_array_size(names));
    for (size_t i = 0; i < json_array_size(names); i++)
        assert_string_equal(gd_model_parameter(model, i)->name, json_string_value(json_array_get(names, i)));
    gd_tensor input = test_golden_get(&golden, "input"), output,
              expected = test_golden_get(&golden, "output");
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
    test_close(&expected, &output, 1e-5, "output");
    free(text);
    gd_model_free(model);
    gd_engine_free(engine);
    json_decref(torch);
    test_golden_close(&golden);
}

/* ---- what a name stands for ------------------------------------------------------------------------- */

/* What a network of these layers, fed with (batch, 4, 6), has after forward, MSE and backward. */
typedef struct outcome {
    float *values; /* output, then gradients of all parameters; free() them */
    size_t count;
} outcome;

static gd_model *network(gd_engine *engine, const char *layers) {
    char text[2048];
    const int length = snprintf(text, sizeof text,
                                "{'name': 'n', 'seed': 3, 'input': {'shape': [4, 6]}, 'loss': 'MSELoss',"
                                " 'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}, 'layers': [%s]}",
                                layers);
    assert_in_range(length, 1, sizeof text - 1);
    return test_model(engine, test_json(text));
}

static outcome outcome_of(gd_model *model, int64_t batch) {
    gd_tensor input = test_random(TEST_SHAPE(batch, 4, 6), 1), output, loss;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
    gd_tensor target = test_random(output.shape, 2);
    outcome o = {.count = (size_t)gd_numel(&output.shape)};
    for (size_t i = 0; i < gd_model_parameter_count(model); i++)
        o.count += (size_t)gd_model_parameter(model, i)->numel;
    float *to = o.values = calloc(o.count, sizeof *to);
    assert_non_null(to);
    memcpy(to, output.data, (size_t)gd_numel(&output.shape) * sizeof *to);
    to += gd_numel(&output.shape);
    test_ok(gd_model_loss(model, &target, NULL, &loss, &error), &error);
    test_ok(gd_model_backward(model, NULL, false, &error), &error);
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        assert_true(parameter->has_grad);
        memcpy(to, parameter->grad, (size_t)parameter->numel * sizeof *to);
        to += parameter->numel;
    }
    free(input.data);
    free(target.data);
    return o;
}

static outcome run_layers(const char *layers, int64_t batch, int threads) {
    gd_engine *engine = test_engine(threads, 0);
    gd_model *model = network(engine, layers);
    outcome o = outcome_of(model, batch);
    gd_model_free(model);
    gd_engine_free(engine);
    return o;
}

#define LINEAR(name) "{'type': 'Linear', 'name': '" name "', 'out_features': 6}"

static void a_block_computes_what_its_layers_do_without_it(void **state) {
    (void)state;
    static const struct {
        const char *what, *blocks, *flat;
    } rows[] = {
        {"the first layer reads what stands before the block",
         LINEAR("a") ", {'type': 'B', 'name': 'b', 'layers': [" LINEAR("c") "]}",
         LINEAR("a") ", " LINEAR("c")},
        {"the block's own inputs come first",
         LINEAR("a") ", " LINEAR("d") ", {'type': 'B', 'inputs': ['a'], 'layers': [" LINEAR(
             "c") "]},"
                  "{'type': 'add', 'inputs': ['2', 'd']}",
         LINEAR("a") ", " LINEAR("d") ", {'type': 'Linear', 'name': 'c', 'out_features': 6, 'inputs': ['a']},"
                                      "{'type': 'add', 'inputs': ['c', 'd']}"},
        {"@input is what the block reads, not the network's",
         LINEAR("a") ", {'type': 'B', 'layers': [" LINEAR(
             "c") ", {'type': 'add', 'inputs': ['c', '@input']}]}",
         LINEAR("a") ", " LINEAR("c") ", {'type': 'add', 'inputs': ['c', 'a']}"},
        {"@input passes through blocks that begin with a block",
         LINEAR("a") ", {'type': 'B', 'layers': [{'type': 'B', 'layers': [" LINEAR(
             "c") ", {'type': 'mul', 'inputs': ['c', '@input']}]}]}",
         LINEAR("a") ", " LINEAR("c") ", {'type': 'mul', 'inputs': ['c', 'a']}"},
        {"@input of an inner block is what stands before it",
         LINEAR("a") ", {'type': 'B', 'layers': [" LINEAR(
             "c") ", {'type': 'B', 'layers': [{'type': 'tanh'}, {'type': 'mul', 'inputs': ['0', "
                  "'@input']}]}]}",
         LINEAR("a") ", " LINEAR(
             "c") ", {'type': 'tanh', 'name': 't'}, {'type': 'mul', 'inputs': ['t', 'c']}"},
        {"a sibling hides a layer of the same name outside",
         LINEAR("a") ", {'type': 'B', 'layers': [" LINEAR(
             "a") ", {'type': 'tanh'}, {'type': 'add', 'inputs': "
                  "['1', 'a']}]}",
         LINEAR("a") ", " LINEAR(
             "c") ", {'type': 'tanh', 'name': 't'}, {'type': 'add', 'inputs': ['t', 'c']}"},
        {"names of the scopes around are seen",
         LINEAR("a") ", {'type': 'tanh'}, {'type': 'B', 'layers': [" LINEAR(
             "c") ", {'type': 'add', 'inputs': "
                  "['c', 'a']}]}",
         LINEAR("a") ", {'type': 'tanh'}, " LINEAR("c") ", {'type': 'add', 'inputs': ['c', 'a']}"},
        {"a block's name is its last layer's output, a dotted one a layer's inside",
         "{'type': 'B', 'name': 'b', 'layers': [" LINEAR(
             "c") ", {'type': 'tanh'}]}, {'type': 'add', 'inputs': "
                  "['b', 'b.c']}",
         LINEAR("c") ", {'type': 'tanh', 'name': 't'}, {'type': 'add', 'inputs': ['t', 'c']}"},
        {"one of several outputs is read from inside and outside",
         LINEAR("a") ", {'type': 'B', 'name': 'b', 'layers': [{'type': 'chunk', 'name': 's', 'chunks': 3, "
                     "'dim': "
                     "2}, {'type': 'B', 'layers': [{'type': 'mul', 'inputs': ['s:2', 's:1']}]}]}, {'type': "
                     "'sub', 'inputs': ['b', 'b.s:1']}",
         LINEAR("a") ", {'type': 'chunk', 'name': 's', 'chunks': 3, 'dim': 2}, {'type': 'mul', 'name': 'm', "
                     "'inputs': ['s:2', 's:1']}, {'type': 'sub', 'inputs': ['m', 's:1']}"},
        {"shared parameters are found by the same rules",
         "{'type': 'B', 'name': 'b', 'layers': [" LINEAR(
             "c") ", {'type': 'tanh'}, {'type': 'Linear', 'shares': "
                  "'c'}]}, {'type': 'Linear', 'shares': 'b.c'}",
         LINEAR(
             "c") ", {'type': 'tanh'}, {'type': 'Linear', 'shares': 'c'}, {'type': 'Linear', 'shares': 'c'}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        outcome a = run_layers(rows[i].blocks, 3, 1), b = run_layers(rows[i].flat, 3, 1);
        if (a.count != b.count || memcmp(a.values, b.values, a.count * sizeof *a.values) != 0)
            fail_msg("not so: %s", rows[i].what);
        free(a.values);
        free(b.values);
    }
}

static void a_second_output_is_that_of_the_layer_named(void **state) {
    /* h_n of an LSTM of one layer is its output of the last time */
    (void)state;
    outcome h = run_layers("{'type': 'LSTM', 'name': 'lstm', 'hidden_size': 5, 'batch_first': true},"
                           "{'type': 'transpose', 'dim0': 0, 'dim1': 1, 'inputs': ['lstm:1']},"
                           "{'type': 'select', 'dim': 1, 'index': 0}",
                           7, 2);
    outcome last = run_layers("{'type': 'LSTM', 'name': 'lstm', 'hidden_size': 5, 'batch_first': true},"
                              "{'type': 'select', 'dim': 1, 'index': -1, 'inputs': ['lstm:0']}",
                              7, 2);
    assert_int_equal(h.count, last.count);
    test_close_values(last.values, h.values, (int64_t)h.count, 1e-6, "output and gradients");
    free(h.values);
    free(last.values);
}

/* ---- shared parameters ------------------------------------------------------------------------------ */

#define SHARED LINEAR("fc") ", {'type': 'tanh'}, {'type': 'Linear', 'name': 'again', 'shares': 'fc'}"
#define APART LINEAR("fc") ", {'type': 'tanh'}, " LINEAR("again")

static void shared_parameters_are_one_set_and_gradients_add_up(void **state) {
    (void)state;
    gd_engine *engine = test_engine(2, 0);
    gd_model *shared = network(engine, SHARED), *apart = network(engine, APART);
    assert_int_equal(gd_model_parameter_count(shared), 2);
    assert_string_equal(gd_model_parameter(shared, 0)->name, "fc.weight");
    assert_string_equal(gd_model_parameter(shared, 1)->name, "fc.bias");
    assert_int_equal(gd_model_parameter_count(apart), 4);
    for (size_t i = 0; i < 2; i++) { /* the same values in both layers */
        const gd_parameter *parameter = gd_model_parameter(shared, i);
        const gd_tensor values = {GD_FLOAT32, parameter->shape, parameter->data};
        gd_error error = GD_ERROR_INIT;
        test_ok(gd_model_set_parameter(apart, i, &values, &error), &error);
        test_ok(gd_model_set_parameter(apart, i + 2, &values, &error), &error);
    }
    for (int64_t batch = 1; batch <= 130; batch += 43) {
        gd_model_zero_grad(shared);
        gd_model_zero_grad(apart);
        outcome one = outcome_of(shared, batch), two = outcome_of(apart, batch);
        free(one.values);
        free(two.values);
        for (size_t i = 0; i < 2; i++) {
            const gd_parameter *sum = gd_model_parameter(shared, i);
            const float *a = gd_model_parameter(apart, i)->grad, *b = gd_model_parameter(apart, i + 2)->grad;
            float expected[36];
            assert_in_range(sum->numel, 1, 36);
            for (int64_t k = 0; k < sum->numel; k++)
                expected[k] = a[k] + b[k];
            test_close_values(expected, sum->grad, sum->numel, 1e-5, sum->name);
        }
    }
    gd_model_free(shared);
    gd_model_free(apart);
    gd_engine_free(engine);
}

/* Parameters after some steps in batches of 130; free() them. */
static float *train_shared(int threads, size_t *ret_count) {
    gd_engine *engine = test_engine(threads, 0);
    gd_model *model =
        network(engine, "{'type': 'B', 'name': 'b', 'layers': [" SHARED "]}, {'type': 'Linear', "
                        "'shares': 'b.fc'}");
    gd_tensor input = test_random(TEST_SHAPE(130, 4, 6), 1), target = test_random(TEST_SHAPE(130, 4, 6), 2);
    for (int step = 0; step < 5; step++) {
        gd_step_result result;
        gd_error error = GD_ERROR_INIT;
        test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), &error);
    }
    float *values = test_parameters(model, ret_count);
    free(input.data);
    free(target.data);
    gd_model_free(model);
    gd_engine_free(engine);
    return values;
}

static void shared_parameters_train_to_the_same_bits_with_any_threads(void **state) {
    (void)state;
    size_t count, other;
    float *expected = train_shared(1, &count);
    assert_int_equal(count, 42);
    for (int threads = 2; threads <= 4; threads++) {
        float *values = train_shared(threads, &other);
        assert_int_equal(other, count);
        assert_memory_equal(values, expected, count * sizeof *values);
        free(values);
    }
    free(expected);
}

/* ---- errors ----------------------------------------------------------------------------------------- */

/* Why these layers are refused, and where: the engine's path, or the reader's pointer. */
static void refusal(json_t *layers, test_failure *ret, char *ret_path, size_t path_size) {
    gp_model read;
    gp_error wire = {0};
    gd_error error = GD_ERROR_INIT;
    gd_graph *graph = NULL;
    json_t *definition =
        json_pack("{s:s, s:{s:[i]}, s:o}", "name", "n", "input", "shape", 6, "layers", layers);
    assert_non_null(definition);
    if (gp_model_read(definition, &read, &wire)) {
        snprintf(ret->code, sizeof ret->code, "%s", gp_problem_code(wire.problem));
        snprintf(ret->message, sizeof ret->message, "%s", wire.detail);
        snprintf(ret_path, path_size, "%s", wire.pointer);
    } else {
        const int code = gd_graph_new(&read.graph, &graph, &error);
        snprintf(ret->code, sizeof ret->code, "%s", code ? gd_error_code(code) : "none");
        snprintf(ret->message, sizeof ret->message, "%s", error.message);
        snprintf(ret_path, path_size, "%s%s%s", error.path, *error.field ? "/" : "", error.field);
        gd_graph_unref(graph);
        gp_model_release(&read);
    }
    json_decref(definition);
}

static void check_refusal(json_t *layers, const char *code, const char *path, const char *part) {
    test_failure failure;
    char where[256];
    refusal(layers, &failure, where, sizeof where);
    if (strcmp(failure.code, code) != 0 || strcmp(where, path) != 0 || !strstr(failure.message, part))
        fail_msg("%s at %s: %s\n  should be %s at %s: ... %s", failure.code, where, failure.message, code,
                 path, part);
}

static void what_is_wrong_in_a_block_is_pointed_at(void **state) {
    (void)state;
    static const struct {
        const char *layers, *code, *path, *part;
    } rows[] = {
        {"[{'type': 'relu'}, {'type': 'B', 'name': 'b', 'layers': []}]", "invalid_graph", "/layers/1/layers",
         "the block 'b' has no layers"},
        {"[{'type': 'B', 'name': 'b', 'layers': [{'type': 'B', 'layers': []}]}]", "invalid_graph",
         "/layers/0/layers/0/layers", "the block 'b.0' has no layers"},
        {"[{'type': 'B', 'name': 'b', 'layers': [{'type': 'relu', 'name': 'a'}, {'type': 'tanh', 'name': "
         "'a'}]}]",
         "invalid_graph", "/layers/0/layers/1/name", "two layers are called 'b.a'"},
        {"[{'type': 'B', 'name': 'b', 'layers': [{'type': 'relu', 'name': 'a'}]}, {'type': 'tanh', 'name': "
         "'b.a'}]",
         "invalid_graph", "/layers/1/name", "two layers are called 'b.a'"},
        {"[{'type': 'tanh', 'name': 'b'}, {'type': 'B', 'name': 'b', 'layers': [{'type': 'relu'}]}]",
         "invalid_graph", "/layers/1/name", "two layers are called 'b'"},
        {"[{'type': 'B', 'layers': [{'type': 'relu'}, {'type': 'tanh', 'inputs': ['brother']}]}]",
         "invalid_graph", "/layers/0/layers/1/inputs",
         "layer '0.1' reads 'brother', but there is no such layer"},
        {"[{'type': 'B', 'layers': [{'type': 'relu', 'name': 'a'}]}, {'type': 'tanh', 'inputs': ['a']}]",
         "invalid_graph", "/layers/1/inputs", "reads 'a', but there is no such layer"},
        {"[{'type': 'relu', 'name': 'a'}, {'type': 'B', 'name': 'b', 'inputs': ['nobody'], 'layers': "
         "[{'type': "
         "'tanh', 'inputs': ['a']}]}]",
         "invalid_graph", "/layers/1/inputs", "the block 'b' reads 'nobody', but there is no such layer"},
        {"[{'type': 'B', 'layers': [{'type': 'relu', 'inputs': ['@other']}]}]", "invalid_graph",
         "/layers/0/layers/0/inputs", "reads '@other', but there is no such input"},
        {"[{'type': 'relu', 'name': 'a'}, {'type': 'B', 'layers': [{'type': 'tanh', 'inputs': ['a:1']}]}]",
         "invalid_graph", "/layers/1/layers/0/inputs", "layer 'a' has only 1 output"},
        {"[{'type': 'Linear', 'name': 'fc', 'out_features': 6}, {'type': 'B', 'layers': [{'type': "
         "'Bilinear', "
         "'shares': 'fc'}]}]",
         "invalid_graph", "/layers/1/layers/0/shares", "give it the same type, 'Linear'"},
        {"[{'type': 'Linear', 'name': 'fc', 'out_features': 6}, {'type': 'B', 'layers': [{'type': 'Linear', "
         "'out_features': 6, 'shares': 'fc'}]}]",
         "invalid_graph", "/layers/1/layers/0/shares", "and no attributes"},
        {"[{'type': 'B', 'layers': [{'type': 'Linear', 'shares': 'fc'}]}, {'type': 'Linear', 'name': 'fc', "
         "'out_features': 6}]",
         "invalid_graph", "/layers/0/layers/0/shares", "no layer before it"},
        {"[{'type': 'B', 'name': 'b', 'inputs': ['c'], 'layers': [{'type': 'relu'}]}, {'type': 'C', 'name': "
         "'c', "
         "'inputs': ['b'], 'layers': [{'type': 'tanh'}]}]",
         "invalid_graph", "/layers/0/layers/0/inputs", "layer 'b.0' is part of a cycle"},
        {"[{'type': 'B', 'layers': [{'type': 'Linear', 'out_features': 0}]}]", "invalid_attribute",
         "/layers/0/layers/0/out_features", "layer '0.0' (Linear)"},
        {"[{'type': 'B', 'layers': [{'type': 'Lienar', 'out_features': 3}]}]", "unknown_kind",
         "/layers/0/layers/0/type", "Linear"},
        {"[{'type': 'B', 'layers': [{'type': 'Linear', 'out_features': 3}, {'type': 'Linear', 'in_features': "
         "4, "
         "'out_features': 3}]}]",
         "shape_mismatch", "/layers/0/layers/1/in_features", "layer '0.1' (Linear)"},
        {"[{'type': 'B', 'layers': {}}]", "invalid_value", "/layers/0/layers", "must be a list of layers"},
        {"[{'type': 'B.C', 'layers': [{'type': 'relu'}]}]", "invalid_name", "/layers/0/type", "a class name"},
        {"[{'type': 'B', 'shares': 'a', 'layers': [{'type': 'relu'}]}]", "unknown_field", "/layers/0/shares",
         "\"shares\" is unknown"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_refusal(test_json(rows[i].layers), rows[i].code, rows[i].path, rows[i].part);
}

/* A relu within `depth` blocks. */
static json_t *nested(int depth) {
    json_t *layer = json_pack("{s:s}", "type", "relu");
    for (int i = 0; i < depth; i++)
        layer = json_pack("{s:s, s:[o]}", "type", "B", "layers", layer);
    return json_pack("[o]", layer);
}

static void blocks_nest_as_deep_as_the_limit_and_no_deeper(void **state) {
    (void)state;
    test_failure failure;
    char where[256];
    refusal(nested(GD_MAX_BLOCKS), &failure, where, sizeof where);
    assert_string_equal(failure.code, "none");
    refusal(nested(GD_MAX_BLOCKS + 1), &failure, where, sizeof where);
    assert_string_equal(failure.code, "limit_exceeded");
    assert_non_null(strstr(failure.message, "nested more than 16 deep"));
    assert_int_equal(strncmp(where, "/layers/0/layers/0/layers/0/layers/0", 36), 0);

    gd_layer_spec layers[GD_MAX_BLOCKS + 2] = {{.type = "relu"}}; /* past the reader */
    for (int i = 1; i <= GD_MAX_BLOCKS + 1; i++)
        layers[i] = (gd_layer_spec){.type = "B", .layers = &layers[i - 1], .layer_count = 1};
    const gd_input_spec input = {.name = "input", .shape = TEST_SHAPE(6)};
    const gd_graph_spec spec = {
        .inputs = &input, .input_count = 1, .layers = &layers[GD_MAX_BLOCKS + 1], .layer_count = 1};
    gd_error error = GD_ERROR_INIT;
    gd_graph *graph = NULL;
    assert_int_equal(gd_graph_new(&spec, &graph, &error), GD_E_LIMIT);
    assert_non_null(strstr(error.message, "nested more than 16 deep"));
}

static void names_are_short_with_those_of_all_blocks_around(void **state) {
    (void)state;
    char name[GD_MAX_NAME];
    memset(name, 'a', 70);
    name[70] = 0;
    check_refusal(json_pack("[{s:s, s:s, s:[{s:s, s:s}]}]", "type", "B", "name", name, "layers", "type",
                            "relu", "name", name),
                  "invalid_graph", "/layers/0/layers/0/name", "1 to 127 bytes");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nested_blocks_are_torchs_modules),
        cmocka_unit_test(a_block_computes_what_its_layers_do_without_it),
        cmocka_unit_test(a_second_output_is_that_of_the_layer_named),
        cmocka_unit_test(shared_parameters_are_one_set_and_gradients_add_up),
        cmocka_unit_test(shared_parameters_train_to_the_same_bits_with_any_threads),
        cmocka_unit_test(what_is_wrong_in_a_block_is_pointed_at),
        cmocka_unit_test(blocks_nest_as_deep_as_the_limit_and_no_deeper),
        cmocka_unit_test(names_are_short_with_those_of_all_blocks_around),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
