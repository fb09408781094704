/* freezing_test.c -- "requires_grad": false on a layer or a block freezes what is inside from the beginning.
 */
#include "tests/support.h"

#define LINEAR "'type': 'Linear', 'out_features': 4"

/* What stands for %s freezes "a" and all of "b", whatever is said inside it; "head" stays free. */
static const char layers[] = "[{" LINEAR ", 'name': 'a'%s},"
                             " {'type': 'B', 'name': 'b'%s, 'layers': [{" LINEAR "}, {'type': 'BatchNorm1d'},"
                             "  {'type': 'C', 'layers': [{" LINEAR ", 'requires_grad': true}]}]},"
                             " {" LINEAR ", 'name': 'head'}]";

static gd_model *network(gd_engine *engine, const char *frozen) {
    char list[512], text[1024];
    snprintf(list, sizeof list, layers, frozen, frozen);
    snprintf(text, sizeof text,
             "{'name': 'n', 'seed': 3, 'input': {'shape': [4]}, 'loss': 'MSELoss',"
             " 'optimizer': {'type': 'SGD', 'lr': 0.1, 'weight_decay': 0.1}, 'layers': %s}",
             list);
    return test_model(engine, test_json(text));
}

static void train(gd_model *model) {
    gd_tensor input = test_random(TEST_SHAPE(5, 4), 1), target = test_random(TEST_SHAPE(5, 4), 2);
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), &error);
    free(input.data);
    free(target.data);
}

static bool in_head(const gd_parameter *parameter) {
    return strncmp(parameter->name, "head.", 5) == 0;
}

static void a_frozen_layer_stays_and_the_others_train_as_before(void **state) {
    (void)state;
    gd_engine *engine = test_engine(2, 0);
    gd_model *frozen = network(engine, ", 'requires_grad': false"), *free_ = network(engine, "");
    size_t count;
    float *before = test_parameters(frozen, &count), *at = before;
    train(frozen);
    train(free_);
    for (size_t i = 0; i < gd_model_parameter_count(frozen); i++) {
        const gd_parameter *p = gd_model_parameter(frozen, i), *q = gd_model_parameter(free_, i);
        assert_int_equal(p->requires_grad, in_head(p));
        assert_int_equal(p->has_grad, in_head(p));
        assert_int_equal(q->requires_grad, !q->buffer);
        if (in_head(p)) { /* the same step as when nothing is frozen */
            assert_memory_equal(p->grad, q->grad, (size_t)p->numel * sizeof(float));
            assert_memory_equal(p->data, q->data, (size_t)p->numel * sizeof(float));
        } else if (!p->buffer) {
            assert_memory_equal(p->data, at, (size_t)p->numel * sizeof(float));
            assert_memory_not_equal(q->data, at, (size_t)q->numel * sizeof(float));
        }
        at += p->numel;
    }
    free(before);
    gd_model_free(frozen);
    gd_model_free(free_);
    gd_engine_free(engine);
}

static void what_was_frozen_can_be_trained_again(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = network(engine, ", 'requires_grad': false");
    size_t index;
    const gd_parameter *weight = gd_model_find_parameter(model, "b.2.0.weight", &index);
    assert_non_null(weight);
    gd_model_set_requires_grad(model, index, true);
    train(model);
    assert_true(weight->has_grad);
    assert_true(gd_norm(weight->grad, weight->numel) > 0);
    assert_false(test_parameter(model, "b.2.0.bias")->has_grad);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void a_composite_is_frozen_as_a_whole(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = test_model(
        engine,
        test_json("{'name': 'n', 'input': {'shape': [3, 4]}, 'layers': [{'type': "
                  "'TransformerEncoder', 'num_layers': 2, 'd_model': 4, 'nhead': 2, 'dim_feedforward': 3,"
                  " 'batch_first': true, 'requires_grad': false}]}"));
    assert_true(gd_model_parameter_count(model) > 20);
    for (size_t i = 0; i < gd_model_parameter_count(model); i++)
        assert_false(gd_model_parameter(model, i)->requires_grad);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *layers, *code, *field, *part;
    } rows[] = {
        {"[{" LINEAR ", 'requires_grad': 'no'}]", "invalid_value", "/layers/0/requires_grad",
         "true or false"},
        {"[{'type': 'B', 'requires_grad': 0, 'layers': [{" LINEAR "}]}]", "invalid_value",
         "/layers/0/requires_grad", "true or false"},
        {"[{" LINEAR ", 'name': 'a'}, {'type': 'Linear', 'shares': 'a', 'requires_grad': false}]",
         "invalid_graph", "requires_grad", "belong to another layer"},
    };
    gd_engine *engine = test_engine(1, 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[512];
        gd_model *model = NULL;
        test_failure failure;
        snprintf(text, sizeof text, "{'name': 'n', 'input': {'shape': [4]}, 'layers': %s}", rows[i].layers);
        json_t *definition = test_json(text);
        assert_int_equal(test_build(engine, definition, &model, &failure), -1);
        assert_string_equal(failure.code, rows[i].code);
        assert_string_equal(failure.field, rows[i].field);
        assert_non_null(strstr(failure.message, rows[i].part));
        json_decref(definition);
    }
    gd_engine_free(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frozen_layer_stays_and_the_others_train_as_before),
        cmocka_unit_test(what_was_frozen_can_be_trained_again),
        cmocka_unit_test(a_composite_is_frozen_as_a_whole),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
