/* model_test.c -- definitions of models in, descriptions and problem documents out. Texts have ' for ". */
#include <math.h>

#include "tests/proto/wire.h"

static int read_model(const char *quoted, gp_model *ret_model, gp_error *error) {
    json_t *json = test_json(quoted);
    *error = (gp_error){.problem = GP_OK};
    const int status = gp_model_read(json, ret_model, error);
    json_decref(json); /* what was read owns its strings */
    return status;
}

#define INPUT "'input': {'shape': [1, 8, 8]}"
#define LAYERS "'layers': [{'type': 'flatten'}]"

static const char full[] =
    "{'name': 'small', 'class_name': 'Small_1', 'seed': 7, 'inputs': {'x': {'shape': [1, 8, 8]}, 'y.z': "
    "{'shape': [],"
    " 'dtype': 'int64'}}, 'layers': [{'type': 'Conv2d', 'name': 'conv1', 'out_channels': 6, 'kernel_size': "
    "[3, 5], 'bias':"
    " false, 'padding_mode': 'zeros', 'eps': 1e-5, 'scales': [1, 2.5], 'nothing': null, 'top': '-Infinity'},"
    " {'type': 'add', 'inputs': ['conv1', '@x']}], 'loss': 'MSELoss', 'optimizer': {'type': 'SGD', 'lr': "
    "0.01, 'momentum': 1}}";

static const gd_value *field(const gd_layer_spec *layer, const char *name) {
    for (size_t i = 0; i < layer->field_count; i++)
        if (strcmp(layer->fields[i].name, name) == 0)
            return &layer->fields[i].value;
    fail_msg("no field %s", name);
    return NULL;
}

static void every_field_of_a_definition_is_read(void **state) {
    (void)state;
    gp_model model;
    gp_error error;
    if (read_model(full, &model, &error) < 0)
        fail_msg("%s", error.detail);
    assert_string_equal(model.name, "small");
    assert_string_equal(model.graph.class_name, "Small_1");
    assert_true(model.has_seed && model.config.seed == 7);
    assert_int_equal(model.graph.input_count, 2);
    assert_string_equal(model.graph.inputs[1].name, "y.z");
    assert_int_equal(model.graph.inputs[1].dtype, GD_INT64);
    assert_int_equal(model.graph.inputs[0].shape.rank, 3);
    assert_int_equal(model.graph.inputs[0].shape.dim[2], 8);
    assert_int_equal(model.graph.layer_count, 2);
    const gd_layer_spec *conv = &model.graph.layers[0], *add = &model.graph.layers[1];
    assert_string_equal(conv->type, "Conv2d");
    assert_string_equal(conv->name, "conv1");
    assert_int_equal(conv->field_count, 8);
    assert_int_equal(field(conv, "out_channels")->integer, 6);
    assert_int_equal(field(conv, "kernel_size")->kind, GD_VALUE_INTS);
    assert_int_equal(field(conv, "kernel_size")->ints[1], 5);
    assert_int_equal(field(conv, "bias")->kind, GD_VALUE_BOOL);
    assert_string_equal(field(conv, "padding_mode")->string, "zeros");
    assert_true(field(conv, "eps")->number == 1e-5);
    assert_int_equal(field(conv, "scales")->kind, GD_VALUE_FLOATS);
    assert_true(field(conv, "scales")->floats[0] == 1 && field(conv, "scales")->floats[1] == 2.5);
    assert_int_equal(field(conv, "nothing")->kind, GD_VALUE_NULL);
    assert_true(isinf(field(conv, "top")->number));
    assert_null(add->name);
    assert_int_equal(add->input_count, 2);
    assert_string_equal(add->inputs[1], "@x");
    assert_string_equal(model.config.loss.terms[0].loss.type, "MSELoss");
    assert_int_equal(model.config.optimizer.field_count, 2);
    gp_model_release(&model);
}

static void what_is_left_out_has_its_default(void **state) {
    (void)state;
    gp_model model;
    gp_error error;
    if (read_model("{'name': 'n', " INPUT ", " LAYERS ", 'loss': null, 'optimizer': null}", &model, &error) <
        0)
        fail_msg("%s", error.detail);
    assert_string_equal(model.graph.class_name, "Net");
    assert_string_equal(model.graph.inputs[0].name, "input");
    assert_int_equal(model.graph.inputs[0].dtype, GD_FLOAT32);
    assert_false(model.has_seed);
    assert_int_equal(model.config.loss.term_count, 0);
    assert_null(model.config.optimizer.type);
    gp_model_release(&model);
}

static void every_seed_of_64_bits_is_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t seed;
    } rows[] = {{"0", 0},
                {"9223372036854775807", INT64_MAX},
                {"'18446744073709551615'", UINT64_MAX},
                {"'9223372036854775808'", (uint64_t)INT64_MAX + 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[256];
        gp_model model;
        gp_error error;
        snprintf(text, sizeof text, "{'name': 'n', 'seed': %s, " INPUT ", " LAYERS "}", rows[i].text);
        assert_int_equal(read_model(text, &model, &error), 0);
        assert_true(model.config.seed == rows[i].seed);
        gp_model_release(&model);
    }
}

static void malformed_definitions_are_refused_in_words(void **state) {
    (void)state;
    static const struct {
        const char *text, *part, *pointer;
    } rows[] = {
        {"[]", "the body must be an object that defines a model, not a list", ""},
        {"{" INPUT ", " LAYERS "}", "has no \"name\"", "/name"},
        {"{'name': 'n', " LAYERS "}", "has no \"input\"", "/input"},
        {"{'name': 'n', " INPUT "}", "has no \"layers\"", "/layers"},
        {"{'name': 'n', " INPUT ", 'layer': []}", "\"layer\" is unknown; did you mean \"layers\"?", "/layer"},
        {"{'name': 'n', 'zzzzzzzzzzz': 1}", "\"zzzzzzzzzzz\" is unknown", "/zzzzzzzzzzz"},
        {"{'name': 'n', 'a/b~c': 1}", "\"a/b~c\" is unknown", "/a~1b~0c"},
        {"{'name': 1}", "name must be a string, not an integer", "/name"},
        {"{'name': ''}", "1 to 64 letters", "/name"},
        {"{'name': '.n'}", "1 to 64 letters", "/name"},
        {"{'name': 'a b'}", "1 to 64 letters", "/name"},
        {"{'name': '../x'}", "1 to 64 letters", "/name"},
        {"{'class_name': '1Net'}", "class_name must be", "/class_name"},
        {"{'class_name': 'a.b'}", "class_name must be", "/class_name"},
        {"{'class_name': null}", "must be a string, not null", "/class_name"},
        {"{'seed': -1}", "from 0 to 2^64 - 1", "/seed"},
        {"{'seed': 1.0}", "from 0 to 2^64 - 1", "/seed"},
        {"{'seed': ''}", "from 0 to 2^64 - 1", "/seed"},
        {"{'seed': '18446744073709551616'}", "from 0 to 2^64 - 1", "/seed"},
        {"{'seed': '1x'}", "from 0 to 2^64 - 1", "/seed"},
        {"{'input': [1, 32, 32]}", "input must be an object such as", "/input"},
        {"{'input': {}}", "input has no \"shape\"", "/input/shape"},
        {"{'input': {'shapes': [1]}}", "did you mean \"shape\"?", "/input/shapes"},
        {"{'input': {'shape': 3}}", "without the batch axis, not an integer", "/input/shape"},
        {"{'input': {'shape': [1, 0]}}", "axis 1 of shape is 0", "/input/shape/1"},
        {"{'input': {'shape': [1, 2.0]}}", "must be an integer", "/input/shape/1"},
        {"{'input': {'shape': [1,1,1,1,1,1,1,1]}}", "8 axes; at most 7", "/input/shape"},
        {"{'input': {'shape': [1], 'dtype': 'uint8'}}", "\"float32\" or \"int64\"", "/input/dtype"},
        {"{'input': {'shape': [1], 'dtype': 3}}", "\"float32\" or \"int64\"", "/input/dtype"},
        {"{'inputs': {}}", "at least one input", "/inputs"},
        {"{'inputs': {'a b': {'shape': [1]}}}", "an input's name", "/inputs/a b"},
        {"{'name': 'n', " INPUT ", 'inputs': {'x': {'shape': [1]}}}", "not both", "/inputs"},
        {"{'layers': {}}", "layers must be a list of layers, not an object", "/layers"},
        {"{'layers': ['relu']}", "layers/0 must be an object such as", "/layers/0"},
        {"{'layers': [{'type': 'relu'}, {'name': 'x'}]}", "layers/1 has no \"type\"", "/layers/1/type"},
        {"{'layers': [{'type': 1}]}", "layers/0/type must be a string", "/layers/0/type"},
        {"{'layers': [{'type': 'relu', 'name': 'a b'}]}", "a layer's name", "/layers/0/name"},
        {"{'layers': [{'type': 'relu', 'name': 'a..b'}]}", "a layer's name", "/layers/0/name"},
        {"{'layers': [{'type': 'relu', 'name': ''}]}", "a layer's name", "/layers/0/name"},
        {"{'layers': [{'type': 'relu', 'inputs': 'x'}]}", "must be a list of layers' names",
         "/layers/0/inputs"},
        {"{'layers': [{'type': 'relu', 'inputs': []}]}", "must be a list of layers' names",
         "/layers/0/inputs"},
        {"{'layers': [{'type': 'relu', 'inputs': [1]}]}", "must be a string", "/layers/0/inputs/0"},
        {"{'layers': [{'type': 'Conv2d', 'kernel_size': {}}]}", "layers/0/kernel_size must be a number",
         "/layers/0/kernel_size"},
        {"{'layers': [{'type': 'Conv2d', 'kernel_size': [[3]]}]}", "must be a number, as an element",
         "/layers/0/kernel_size/0"},
        {"{'layers': [{'type': 'Conv2d', 'kernel_size': [3, '3']}]}", "must be a number, as an element",
         "/layers/0/kernel_size/1"},
        {"{'loss': {'reduction': 'mean'}}", "loss has no \"type\"", "/loss/type"},
        {"{'loss': 3}", "loss must be an object with a \"type\"", "/loss"},
        {"{'optimizer': {'type': ['SGD']}}", "optimizer/type must be a string", "/optimizer/type"},
        {"{'scheduler': {'gamma': 1}}", "scheduler has no \"type\"", "/scheduler/type"},
        {"{'scheduler': {'type': 'SequentialLR', 'schedulers': {}}}", "must be a list of schedulers",
         "/scheduler/schedulers"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gp_model model;
        gp_error error;
        wire_assert_refused(read_model(rows[i].text, &model, &error), &error, rows[i].part, rows[i].text);
        if (strcmp(error.pointer, rows[i].pointer) != 0)
            fail_msg("%s: pointer \"%s\"", rows[i].text, error.pointer);
    }
}

static void too_many_layers_are_refused(void **state) {
    (void)state;
    json_t *layers = json_array(), *json = json_pack("{s:s}", "name", "n");
    for (int i = 0; i <= GD_MAX_LAYERS; i++)
        json_array_append_new(layers, json_pack("{s:s}", "type", "relu"));
    json_object_set_new(json, "layers", layers);
    gp_model model;
    gp_error error = {.problem = GP_OK};
    wire_assert_refused(gp_model_read(json, &model, &error), &error, "4097 layers, at most 4096", "layers");
    assert_int_equal(error.problem, GP_LIMIT_EXCEEDED);
    json_decref(json);
}

static void a_kind_may_leave_out_its_type_where_that_is_allowed(void **state) {
    (void)state;
    json_t *json = test_json("{'lr': 0.5}");
    gp_kind_spec spec;
    gp_error error = {.problem = GP_OK};
    assert_int_equal(gp_kind_spec_read(json, "/optimizer", false, &spec, &error), 0);
    assert_null(spec.spec.type);
    assert_string_equal(spec.spec.fields[0].name, "lr");
    gp_kind_spec_release(&spec);
    wire_assert_refused(gp_kind_spec_read(json, "/optimizer", true, &spec, &error), &error, "has no \"type\"",
                        "type");
    assert_string_equal(error.pointer, "/optimizer/type");
    json_decref(json);
}

static void names_follow_the_rule(void **state) {
    (void)state;
    static const char longest[] = "A...............................................................";
    static const char *const good[] = {"a", "0", "lenet-2.1_b", longest};
    static const char *const bad[] = {
        "",         "-a",  ".a",
        "_a",       "a/b", "a b",
        "\xc3\xa9", "a\n", "A................................................................"};
    assert_int_equal(strlen(good[3]), 64);
    assert_int_equal(strlen(bad[8]), 65);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(gp_name_ok(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(gp_name_ok(bad[i]));
}

/* ---- descriptions ------------------------------------------------------------------------------ */

static json_t *find(json_t *list, const char *key, const char *value) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *item = json_array_get(list, i);
        const char *text = json_string_value(json_object_get(item, key));
        if (text && strcmp(text, value) == 0)
            return item;
    }
    fail_msg("no %s %s", key, value);
    return NULL;
}

static void every_kind_describes_itself(void **state) {
    (void)state;
    for (int family = GD_OPS; family <= GD_OPTIMIZERS; family++)
        for (size_t i = 0; gd_kind_at((gd_family)family, i); i++) {
            const gd_kind *kind = gd_kind_at((gd_family)family, i);
            json_t *json = gp_kind_json(kind), *attributes = json_object_get(json, "attributes");
            assert_non_null(json);
            assert_true(json_object_get(json, "module") || json_object_get(json, "function"));
            assert_int_equal(json_array_size(attributes), kind->attr_count);
            assert_int_equal(json_array_size(json_object_get(json, "parameters")), kind->param_count);
            for (size_t k = 0; k < kind->attr_count; k++) {
                const json_t *attribute = json_array_get(attributes, k);
                assert_true(json_is_string(json_object_get(attribute, "name")));
                assert_true(json_is_string(json_object_get(attribute, "type")));
                assert_true(json_is_boolean(json_object_get(attribute, "required")));
                assert_true(json_is_string(json_object_get(attribute, "doc")));
            }
            json_decref(json);
        }
}

static void a_kind_shows_types_defaults_ranges_and_parameters(void **state) {
    (void)state;
    static const char *const choices[] = {"none", "mean", NULL};
    static const int64_t ints[] = {1, 2};
    static const double floats[] = {0.5, 2};
    const gd_attr attrs[] = {
        {.name = "size",
         .doc = "window",
         .type = GD_ATTR_INTN,
         .length = 2,
         .required = true,
         .min = 1,
         .max = INFINITY},
        {.name = "stride", .type = GD_ATTR_INTN, .length = 2, .default_from = "size", .min = 1, .max = 9},
        {.name = "mode", .type = GD_ATTR_CHOICE, .choices = choices, .number = 1},
        {.name = "bias", .type = GD_ATTR_BOOL, .number = 1, .max = 1},
        {.name = "eps", .type = GD_ATTR_FLOAT, .number = 0.5, .min = -INFINITY, .max = 1.5},
        {.name = "features", .type = GD_ATTR_INT, .inferred = true, .min = 1, .max = 10},
        {.name = "axes",
         .type = GD_ATTR_INTS,
         .ints = ints,
         .ints_count = 2,
         .min = -INFINITY,
         .max = INFINITY},
        {.name = "weight", .type = GD_ATTR_FLOATS, .min = -INFINITY, .max = INFINITY},
        {.name = "betas", .type = GD_ATTR_FLOATN, .length = 2, .floats = floats, .min = 0.25, .max = 4},
    };
    const gd_param_decl params[] = {{.name = "weight", .doc = "w"},
                                    {.name = "mean", .doc = "m", .buffer = true}};
    const gd_kind kind = {
        .function = "f", .doc = "Doc.", .attrs = attrs, .attr_count = 9, .params = params, .param_count = 2};
    json_t *json = gp_kind_json(&kind);
    json_t *expected = test_json(
        "{'function': 'f', 'doc': 'Doc.', 'attributes': ["
        "{'name': 'size', 'type': 'int[2]', 'min': 1, 'required': true, 'doc': 'window'},"
        "{'name': 'stride', 'type': 'int[2]', 'default': 'size', 'min': 1, 'max': 9, 'required': false, "
        "'doc': ''},"
        "{'name': 'mode', 'type': 'choice', 'default': 'mean', 'choices': ['none', 'mean'], 'required': "
        "false, 'doc': ''},"
        "{'name': 'bias', 'type': 'bool', 'default': true, 'required': false, 'doc': ''},"
        "{'name': 'eps', 'type': 'float', 'default': 0.5, 'max': 1.5, 'required': false, 'doc': ''},"
        "{'name': 'features', 'type': 'int', 'min': 1, 'max': 10, 'required': false, 'doc': ''},"
        "{'name': 'axes', 'type': 'int[]', 'default': [1, 2], 'required': false, 'doc': ''},"
        "{'name': 'weight', 'type': 'float[]', 'default': null, 'required': false, 'doc': ''},"
        "{'name': 'betas', 'type': 'float[2]', 'default': [0.5, 2.0], 'min': 0.25, 'max': 4.0, 'required': "
        "false, 'doc': ''}],"
        "'parameters': [{'name': 'weight', 'doc': 'w', 'buffer': false}, {'name': 'mean', 'doc': 'm', "
        "'buffer': true}]}");
    if (!json_equal(json, expected))
        fail_msg("%s", json_dumps(json, 0));
    json_decref(json);
    json_decref(expected);
}

static void the_layers_of_a_graph_are_described(void **state) {
    (void)state;
    gp_model model;
    gp_error error;
    gd_error why = GD_ERROR_INIT;
    gd_graph *graph;
    if (read_model(
            "{'name': 'n', 'input': {'shape': [1, 8, 8]}, 'layers': [{'type': 'Conv2d', 'name': 'conv1', "
            "'out_channels':"
            " 2, 'kernel_size': 3}, {'type': 'relu'}, {'type': 'Conv2d', 'name': 'c.2', 'out_channels': 2,"
            " 'kernel_size': 3, 'padding': 1, 'bias': false}, {'type': 'add', 'inputs': ['1', 'c.2']}]}",
            &model, &error) < 0)
        fail_msg("%s", error.detail);
    test_ok(gd_graph_new(&model.graph, &graph, &why), &why);
    json_t *layers = gp_layers_json(graph), *conv = find(layers, "name", "conv1"),
           *add = json_array_get(layers, 3);
    json_t *expected = test_json("[['conv1.weight', 'conv1.bias'], [], ['c.2.weight'], []]");
    assert_int_equal(json_array_size(layers), 4);
    for (size_t i = 0; i < json_array_size(layers); i++)
        assert_true(json_equal(json_object_get(json_array_get(layers, i), "parameters"),
                               json_array_get(expected, i)));
    json_decref(expected);
    assert_string_equal(json_string_value(json_object_get(conv, "type")), "Conv2d");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(conv, "attributes"), "in_channels")),
                     1);
    expected = test_json("[2, 6, 6]");
    assert_true(json_equal(json_object_get(conv, "output_shape"), expected));
    json_decref(expected);
    expected = test_json("['@input']");
    assert_true(json_equal(json_object_get(conv, "inputs"), expected));
    json_decref(expected);
    expected = test_json("['1', 'c.2']");
    assert_true(json_equal(json_object_get(add, "inputs"), expected));
    json_decref(expected);
    assert_string_equal(json_string_value(json_object_get(add, "type")), "add");
    json_decref(layers);
    gd_graph_unref(graph);
    gp_model_release(&model);
}

/* ---- problem documents ------------------------------------------------------------------------- */

static void a_problem_document_has_all_members_and_stays_valid_json(void **state) {
    (void)state;
    gp_error error = {.problem = GP_OK};
    gp_fail(&error, GP_SHAPE_MISMATCH, "/input", "layer \"%s\" \xff", "x");
    char *text = gp_problem_json(&error, "/v1/models/a\"b", "id-1");
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_t *expected =
        test_json("{'type': '/errors/shape-mismatch', 'title': 'Shapes do not fit', 'status': 400, 'code':"
                  " 'shape_mismatch', 'request_id': 'id-1'}");
    static const char *const keys[] = {"type", "title", "status", "code", "request_id"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_true(json_equal(json_object_get(json, keys[i]), json_object_get(expected, keys[i])));
    assert_string_equal(json_string_value(json_object_get(json, "detail")), "layer \"x\" \xef\xbf\xbd");
    assert_string_equal(json_string_value(json_object_get(json, "instance")), "/v1/models/a\"b");
    json_t *first = json_array_get(json_object_get(json, "errors"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "pointer")), "/input");
    assert_int_equal(json_object_size(json), 8);
    json_decref(expected);
    json_decref(json);
    free(text);
}

static void a_problem_without_a_pointer_lists_no_errors(void **state) {
    (void)state;
    gp_error error = {.problem = GP_OK};
    gp_fail(&error, GP_NOT_FOUND, "", "there is no such model");
    char *text = gp_problem_json(&error, NULL, NULL);
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    assert_null(json_object_get(json, "errors"));
    assert_null(json_object_get(json, "instance"));
    json_decref(json);
    free(text);
}

static void engine_errors_keep_their_code_and_get_a_pointer(void **state) {
    (void)state;
#define ROW(name, code, text) {name, code},
    static const struct {
        int code;
        const char *text;
    } rows[] = {GD_ERRORS(ROW)};
#undef ROW
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gp_error error = {.problem = GP_OK};
        const gd_error cause = {.code = rows[i].code,
                                .layer = 3,
                                .path = "/layers/3",
                                .field = "kernel_size",
                                .message = "too large"};
        assert_int_equal(gp_fail_engine(&error, &cause, ""), -1);
        assert_string_equal(gp_problem_code(error.problem), rows[i].text);
        assert_string_equal(error.pointer, "/layers/3/kernel_size");
        assert_string_equal(error.detail, "too large");
    }
    gp_error error = {.problem = GP_OK};
    const gd_error cause = {.code = GD_E_ATTRIBUTE, .layer = -1, .field = "lr"};
    gp_fail_engine(&error, &cause, "/optimizer");
    assert_string_equal(error.pointer, "/optimizer/lr");
    assert_true(error.detail[0]);
}

static void the_openapi_document_is_built_in(void **state) {
    (void)state;
    json_error_t wrong;
    json_t *json = json_loadb(gp_openapi, gp_openapi_size, JSON_REJECT_DUPLICATES, &wrong);
    if (!json)
        fail_msg("%s", wrong.text);
    assert_memory_equal(json_string_value(json_object_get(json, "openapi")), "3.1", 3);
    assert_int_equal(gp_openapi[gp_openapi_size], '\0');
    json_decref(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_a_definition_is_read),
        cmocka_unit_test(what_is_left_out_has_its_default),
        cmocka_unit_test(every_seed_of_64_bits_is_read),
        cmocka_unit_test(malformed_definitions_are_refused_in_words),
        cmocka_unit_test(too_many_layers_are_refused),
        cmocka_unit_test(a_kind_may_leave_out_its_type_where_that_is_allowed),
        cmocka_unit_test(names_follow_the_rule),
        cmocka_unit_test(every_kind_describes_itself),
        cmocka_unit_test(a_kind_shows_types_defaults_ranges_and_parameters),
        cmocka_unit_test(the_layers_of_a_graph_are_described),
        cmocka_unit_test(a_problem_document_has_all_members_and_stays_valid_json),
        cmocka_unit_test(a_problem_without_a_pointer_lists_no_errors),
        cmocka_unit_test(engine_errors_keep_their_code_and_get_a_pointer),
        cmocka_unit_test(the_openapi_document_is_built_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
