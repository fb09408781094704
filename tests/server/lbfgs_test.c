/* lbfgs_test.c -- LBFGS over HTTP: listed, trained with, refused where it has no batch. */
#include "tests/support.h"

#include "tests/http.h"

#define BATCH "'input': [[1, 2, 3, 4], [4, 3, -2, 1], [0, 1, 0, -1]], 'target': [0, 2, 1]"

static void create(const char *name, const char *optimizer) {
    char json[512];
    snprintf(json, sizeof json,
             "{'name': '%s', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'out_features': 3}], "
             "'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': %s}",
             name, optimizer);
    test_expect(&test_shared, "POST", "/v1/models", json, 201, "\"type\":\"LBFGS\",\"lr\":1");
}

static void it_is_listed_with_its_attributes(void **state) {
    (void)state;
    test_expect(&test_shared, "GET", "/v1/optimizers", NULL, 200, "\"module\":\"LBFGS\"");
    test_expect(&test_shared, "GET", "/v1/optimizers", NULL, 200,
                "\"name\":\"line_search_fn\",\"type\":\"choice\",\"default\":null");
    test_expect(&test_shared, "GET", "/v1/optimizers", NULL, 200, "\"choices\":[\"strong_wolfe\"]");
}

static void train_step_tells_how_often_it_evaluated(void **state) {
    (void)state;
    create("a", "{'type': 'LBFGS', 'max_iter': 4}");
    test_expect(&test_shared, "GET", "/v1/models/a", NULL, 200,
                "\"max_iter\":4,\"max_eval\":null,\"tolerance_grad\":1e-7,\"tolerance_change\":1e-9,"
                "\"history_size\":100,\"line_search_fn\":null");
    test_expect(&test_shared, "POST", "/v1/models/a/train_step", "{" BATCH "}", 200,
                "\"count\":3,\"evaluations\":4,");
    test_expect(&test_shared, "POST", "/v1/models/a/train_step", "{" BATCH ", 'max_iter': 2, 'lr': 0.5}", 200,
                "\"lr\":0.5,");
    test_expect(&test_shared, "PATCH", "/v1/models/a", "{'optimizer': {'line_search_fn': 'strong_wolfe'}}",
                200, "\"line_search_fn\":\"strong_wolfe\"");
    test_expect(&test_shared, "POST", "/v1/models/a/train_step", "{" BATCH ", 'clip_grad_norm': 1}", 200,
                "\"evaluations\":");
    test_expect(&test_shared, "PATCH", "/v1/models/a", "{'optimizer': {'line_search_fn': null}}", 200,
                "\"line_search_fn\":null");
    test_expect(&test_shared, "PATCH", "/v1/models/a", "{'optimizer': {'type': 'SGD', 'lr': 0.5}}", 200,
                "\"SGD\"");
    test_expect(&test_shared, "POST", "/v1/models/a/train_step", "{" BATCH "}", 200,
                "\"count\":3,\"timing_us\"");
}

static void a_step_without_a_batch_is_out_of_order(void **state) {
    (void)state;
    create("b", "{'type': 'LBFGS'}");
    test_expect(&test_shared, "POST", "/v1/models/b/forward_backward", "{" BATCH "}", 200, "loss");
    test_expect(&test_shared, "POST", "/v1/models/b/step", NULL, 409, "wrong_order");
    test_expect(&test_shared, "POST", "/v1/models/b/step", NULL, 409, "use train_step");
    test_expect(&test_shared, "GET", "/v1/models/b", NULL, 200, "\"step\":0,");
}

static void what_it_cannot_do_is_refused(void **state) {
    (void)state;
    create("c", "{'type': 'LBFGS', 'history_size': 5}");
    test_expect(&test_shared, "POST", "/v1/models/c/train_step", "{" BATCH ", 'history_size': 6}", 400,
                "can't be another one for a single step");
    test_expect(&test_shared, "PATCH", "/v1/models/c", "{'optimizer': {'line_search_fn': 'armijo'}}", 400,
                "one of 'strong_wolfe'");
    test_expect(&test_shared, "PATCH", "/v1/models/c",
                "{'optimizer': {'param_groups': [{'params': '*.bias', 'lr': 0.1}]}}", 400,
                "LBFGS has no param_groups");
    test_expect(&test_shared, "PATCH", "/v1/models/c", "{'optimizer': {'history_size': 2000000000}}", 507,
                "out_of_memory");
    test_expect(&test_shared, "POST", "/v1/models/c/train_step", "{" BATCH "}", 200, "\"step\":1,");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_listed_with_its_attributes),
        cmocka_unit_test(train_step_tells_how_often_it_evaluated),
        cmocka_unit_test(a_step_without_a_batch_is_out_of_order),
        cmocka_unit_test(what_it_cannot_do_is_refused),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
