/* initializer_test.c -- torch.nn.init by name: torch's values, and what makes no sense is refused. */
#include "tests/support.h"

static test_family family;
static gd_engine *engine;

/* One layer whose weight begins as the row says. */
static json_t *definition_of(const json_t *row) {
    const char *param = json_string_value(json_object_get(row, "param"));
    json_t *init = json_copy(json_object_get(row, "attributes")),
           *layer = json_copy(json_object_get(row, "layer"));
    json_object_set(init, "type", json_object_get(row, "initializer"));
    json_object_set_new(layer, "name", json_string("layer"));
    json_object_set_new(layer, "init", json_pack("{s:o}", param ? param : "weight", init));
    return json_pack("{s:s, s:I, s:{s:O}, s:[o]}", "name", "init", "seed",
                     json_integer_value(json_object_get(row, "seed")), "input", "shape",
                     json_object_get(row, "shape"), "layers", layer);
}

static void an_initialiser_gives_torchs_values(void **state) {
    const json_t *row = *state;
    gd_model *model = test_model(engine, definition_of(row));
    const gd_parameter *weight = test_parameter(model, "layer.weight");
    gd_tensor expected =
        test_golden_get(&family.golden, "%s", json_string_value(json_object_get(row, "name")));
    gd_tensor actual = {.dtype = GD_FLOAT32, .shape = weight->shape, .data = weight->data};
    test_close(&expected, &actual, json_is_true(json_object_get(row, "exact")) ? 0 : 2e-6, "weight");
    gd_model_free(model);
}

static void a_bad_initialiser_is_refused(void **state) {
    const json_t *row = *state, *part;
    const char *code = json_string_value(json_object_get(row, "code"));
    const char *field = json_string_value(json_object_get(row, "field"));
    gd_model *model = NULL;
    test_failure failure;
    json_t *definition = definition_of(row);
    size_t i;
    assert_int_not_equal(test_build(engine, definition, &model, &failure), 0);
    assert_null(model);
    assert_string_equal(failure.code, code);
    if (field)
        assert_string_equal(failure.field, field);
    assert_non_null(strstr(failure.message, "layer 'layer'"));
    json_array_foreach(json_object_get(row, "message"), i, part) {
        assert_non_null(strstr(failure.message, json_string_value(part)));
    }
    json_decref(definition);
}

static int count_rows(test_family *samples, void *context) {
    const gd_kind *kind = context;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(samples->rows, "initializers"), i,
                       row) if (strcmp(json_string_value(json_object_get(row, "initializer")),
                                       kind->function) == 0) return 1;
    return 0;
}

static void every_initialiser_has_a_sample(void **state) {
    (void)state;
    const gd_kind *kind;
    for (size_t i = 0; (kind = gd_kind_at(GD_INITIALIZERS, i)); i++)
        if (!test_each_family(count_rows, (void *)(uintptr_t)kind))
            fail_msg("%s has no row in tests/golden/samples", kind->function);
}

static void one_initialiser_leaves_other_parameters_alone(void **state) {
    (void)state;
    gd_model *plain =
        test_model(engine, test_json("{'name': 'a', 'seed': 3, 'input': {'shape': [4]}, 'layers': "
                                     "[{'type': 'Linear', 'out_features': 3}]}"));
    gd_model *zeros =
        test_model(engine, test_json("{'name': 'b', 'seed': 3, 'input': {'shape': [4]}, 'layers': "
                                     "[{'type': 'Linear', 'out_features': 3, "
                                     "'init': {'weight': {'type': 'zeros_'}}}]}"));
    const gd_parameter *a = test_parameter(plain, "0.bias"), *b = test_parameter(zeros, "0.bias");
    assert_memory_equal(a->data, b->data, (size_t)a->numel * sizeof *a->data);
    assert_true(gd_norm(test_parameter(zeros, "0.weight")->data, 12) == 0);
    gd_model_free(plain);
    gd_model_free(zeros);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_initialiser_has_a_sample),
        cmocka_unit_test(one_initialiser_leaves_other_parameters_alone),
    };
    engine = test_engine(1, 0);
    int failed = test_each_sample("initializers", "an initialiser gives torch's values",
                                  an_initialiser_gives_torchs_values, &family);
    failed += test_each_sample("bad_initializers", "is refused", a_bad_initialiser_is_refused, NULL);
    failed += cmocka_run_group_tests(tests, NULL, NULL);
    gd_engine_free(engine);
    return failed != 0;
}
