/* groups_test.c -- parameter groups over HTTP: given, shown, changed, overridden, refused. */
#include "tests/support.h"

#include "tests/http.h"

#define STEP "{'input': [[1, 2, 3, 4]], 'target': [0]"
#define MODEL(name, groups) \
    "{'name': '" name "', 'seed': 1, 'input': {'shape': [4]}, 'layers': [" \
    "{'type': 'Linear', 'name': 'fc1', 'out_features': 5}, {'type': 'relu'}, " \
    "{'type': 'Linear', 'name': 'fc2', 'out_features': 3}], 'loss': {'type': 'CrossEntropyLoss'}, " \
    "'optimizer': {'type': 'SGD', 'lr': 0.5, 'momentum': 0.75, 'param_groups': " groups "}}"

/* The optimizer of GET /v1/models/{name}. A new reference. */
static json_t *shown(const char *name) {
    char path[64];
    test_reply reply;
    snprintf(path, sizeof path, "/v1/models/%s", name);
    test_call(&test_shared, "GET", path, NULL, 200, &reply);
    json_t *model = json_loads(reply.body, 0, NULL);
    json_t *optimizer = json_incref(json_object_get(model, "optimizer"));
    assert_non_null(optimizer);
    json_decref(model);
    test_reply_release(&reply);
    return optimizer;
}

static double number(const json_t *object, const char *key) {
    assert_true(json_is_number(json_object_get(object, key)));
    return json_number_value(json_object_get(object, key));
}

static void expect_strings(const json_t *list, const char *expected) {
    json_t *wanted = test_json(expected);
    if (!json_equal(list, wanted)) {
        fail_msg("it is not %s", expected);
    }
    json_decref(wanted);
}

static void groups_are_shown_with_patterns_names_and_hyperparameters(void **state) {
    (void)state;
    test_expect(&test_shared, "POST", "/v1/models",
                MODEL("a", "[{'params': ['*.bias', 'fc9'], 'weight_decay': 0.25}]"), 400,
                "\"pointer\": \"/optimizer/param_groups/0/params\"");
    test_expect(
        &test_shared, "POST", "/v1/models",
        MODEL("a", "[{'params': '*.bias', 'weight_decay': 0.25}, {'params': ['fc2.*'], 'lr': 0.125}]"), 201,
        "\"param_groups\":[{\"params\":[\"*.bias\"]");
    json_t *optimizer = shown("a"), *groups = json_object_get(optimizer, "param_groups");
    assert_int_equal(json_array_size(groups), 2);
    const json_t *first = json_array_get(groups, 0), *second = json_array_get(groups, 1);
    expect_strings(json_object_get(first, "params"), "['*.bias']");
    expect_strings(json_object_get(first, "parameters"), "['fc1.bias', 'fc2.bias']");
    expect_strings(json_object_get(second, "parameters"), "['fc2.weight']");
    assert_float_equal(number(first, "lr"), 0.5, 0);
    assert_float_equal(number(first, "weight_decay"), 0.25, 0);
    assert_float_equal(number(second, "lr"), 0.125, 0);
    assert_float_equal(number(second, "momentum"), 0.75, 0);
    assert_null(json_object_get(first, "initial_lr"));
    json_decref(optimizer);
}

static void a_change_and_an_override_spare_what_is_a_groups_own(void **state) {
    (void)state;
    test_expect(&test_shared, "POST", "/v1/models",
                MODEL("b", "[{'params': 'fc2.*', 'lr': 0.125}, {'params': '*.bias'}]"), 201, "");
    test_expect(&test_shared, "PATCH", "/v1/models/b", "{'optimizer': {'lr': 0.25}}", 200, "");
    test_expect(&test_shared, "POST", "/v1/models/b/train_step", STEP ", 'lr': 2}", 200, "\"lr\":2,");
    test_expect(&test_shared, "POST", "/v1/models/b/train_step", STEP "}", 200, "\"lr\":0.25,");
    json_t *optimizer = shown("b"), *groups = json_object_get(optimizer, "param_groups");
    assert_float_equal(number(optimizer, "lr"), 0.25, 0);
    assert_float_equal(number(json_array_get(groups, 0), "lr"), 0.125, 0);
    assert_float_equal(number(json_array_get(groups, 1), "lr"), 0.25, 0);
    json_decref(optimizer);
    test_expect(&test_shared, "PATCH", "/v1/models/b",
                "{'optimizer': {'param_groups': [{'params': '*', 'lr': 3}]}}", 200,
                "\"parameters\":[\"fc1.weight\",\"fc1.bias\",\"fc2.weight\",\"fc2.bias\"],\"lr\":3");
    test_expect(&test_shared, "PATCH", "/v1/models/b", "{'optimizer': {'param_groups': []}}", 200,
                "\"param_groups\":[]");
}

static void every_group_has_its_schedule(void **state) {
    (void)state;
    test_expect(&test_shared, "POST", "/v1/models", MODEL("c", "[{'params': 'fc2.*', 'lr': 0.125}]"), 201,
                "");
    test_expect(&test_shared, "PATCH", "/v1/models/c",
                "{'scheduler': {'type': 'ExponentialLR', 'gamma': 0.5}}", 200, "\"initial_lr\":0.125");
    test_expect(&test_shared, "POST", "/v1/models/c/train_step", STEP "}", 200, "\"lr\":0.5,");
    json_t *optimizer = shown("c");
    assert_float_equal(number(optimizer, "lr"), 0.25, 0);
    assert_float_equal(number(json_array_get(json_object_get(optimizer, "param_groups"), 0), "lr"), 0.0625,
                       0);
    json_decref(optimizer);
}

static void what_is_wrong_is_named_and_nothing_changes(void **state) {
    (void)state;
    static const struct {
        const char *json, *pointer;
    } bad[] = {
        {"{'optimizer': {'lr': -1}}", "\"pointer\": \"/optimizer/lr\""},
        {"{'optimizer': {'lr': 1, 'param_groups': [{'params': 'fc1.*'}, {'params': 'fc3.*'}]}}",
         "\"pointer\": \"/optimizer/param_groups/1/params\""},
        {"{'optimizer': {'lr': 1, 'param_groups': [{'params': '*'}, {'params': 'fc1.*'}]}}",
         "\"pointer\": \"/optimizer/param_groups/1/params\""},
        {"{'optimizer': {'param_groups': [{'params': '*', 'lr': -1}]}}",
         "\"pointer\": \"/optimizer/param_groups/0/lr\""},
        {"{'optimizer': {'param_groups': [{'params': '*', 'rate': 1}]}}",
         "\"pointer\": \"/optimizer/param_groups/0/rate\""},
        {"{'optimizer': {'param_groups': [{'lr': 1}]}}", "\"pointer\": \"/optimizer/param_groups/0/params\""},
        {"{'optimizer': {'param_groups': [{'params': '*', 'type': 'SGD'}]}}",
         "\"pointer\": \"/optimizer/param_groups/0/type\""},
        {"{'optimizer': {'param_groups': null}}", "\"pointer\": \"/optimizer/param_groups\""},
    };
    test_expect(&test_shared, "POST", "/v1/models", MODEL("d", "[{'params': 'fc2.*', 'lr': 0.125}]"), 201,
                "");
    json_t *before = shown("d");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_expect(&test_shared, "PATCH", "/v1/models/d", bad[i].json, 400, bad[i].pointer);
    }
    test_expect(&test_shared, "POST", "/v1/models/d/train_step", STEP ", 'param_groups': []}", 400,
                "PATCH the model");
    json_t *after = shown("d");
    assert_true(json_equal(before, after));
    json_decref(before);
    json_decref(after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_are_shown_with_patterns_names_and_hyperparameters),
        cmocka_unit_test(a_change_and_an_override_spare_what_is_a_groups_own),
        cmocka_unit_test(every_group_has_its_schedule),
        cmocka_unit_test(what_is_wrong_is_named_and_nothing_changes),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
