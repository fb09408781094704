/* scheduler_test.c -- schedulers over HTTP: given, shown, advanced, taken away. */
#include "tests/support.h"

#include "tests/http.h"

#define STEP "{'input': [[1, 2, 3, 4]], 'target': [0]}"

static void patch(const char *name, const char *json, int status, const char *part) {
    char path[64];
    snprintf(path, sizeof path, "/v1/models/%s", name);
    test_expect(&test_shared, "PATCH", path, json, status, part);
}

static void schedulers_are_listed_with_their_attributes(void **state) {
    (void)state;
    test_expect(&test_shared, "GET", "/v1/schedulers", NULL, 200,
                "\"module\":\"CosineAnnealingWarmRestarts\"");
    test_expect(&test_shared, "GET", "/v1/schedulers", NULL, 200, "\"choices\":[\"step\",\"epoch\"]");
    test_expect(&test_shared, "GET", "/v1/optimizers", NULL, 200,
                "\"type\":\"float[2]\",\"default\":[0.9,0.999]");
}

static void a_scheduler_advances_with_each_step(void **state) {
    (void)state;
    test_expect(&test_shared, "POST", "/v1/models",
                "{'name': 'a', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'out_features': 3}], "
                "'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': {'type': 'AdamW', 'lr': 0.5}, "
                "'scheduler': {'type': 'ExponentialLR', 'gamma': 0.5}}",
                201,
                "\"scheduler\":{\"type\":\"ExponentialLR\",\"interval\":\"step\",\"gamma\":0.5,"
                "\"state\":{\"last_epoch\":0,\"base_lr\":0.5}}");
    test_expect(&test_shared, "POST", "/v1/models/a/train_step", STEP, 200, "\"lr\":0.5,");
    test_expect(&test_shared, "POST", "/v1/models/a/train_step", STEP, 200, "\"lr\":0.25,");
    test_expect(&test_shared, "POST", "/v1/models/a/step", NULL, 200, "\"lr\":0.125,");
    test_expect(&test_shared, "GET", "/v1/models/a", NULL, 200,
                "\"state\":{\"last_epoch\":3,\"base_lr\":0.5}");
    test_expect(&test_shared, "GET", "/v1/models/a", NULL, 200, "\"type\":\"AdamW\",\"lr\":0.0625,");
    test_expect(&test_shared, "POST", "/v1/models/a/scheduler_step", NULL, 409, "every optimizer step");
    patch("a", "{'scheduler': null}", 200, "\"scheduler\":null");
    test_expect(&test_shared, "POST", "/v1/models/a/train_step", STEP, 200, "\"lr\":0.0625,");
    test_expect(&test_shared, "POST", "/v1/models/a/scheduler_step", NULL, 409, "no scheduler");
}

static void an_epoch_comes_from_the_client(void **state) {
    (void)state;
    test_create_small(&test_shared, "b");
    patch("b", "{'scheduler': {'type': 'StepLR', 'step_size': 1, 'gamma': 0.5, 'interval': 'epoch'}}", 200,
          "\"interval\":\"epoch\"");
    test_expect(&test_shared, "POST", "/v1/models/b/train_step", STEP, 200, "\"lr\":0.1");
    test_expect(&test_shared, "POST", "/v1/models/b/train_step", STEP, 200, "\"lr\":0.1");
    test_expect(&test_shared, "POST", "/v1/models/b/scheduler_step", NULL, 200, "{\"epoch\":1,\"lr\":0.05");
    test_expect(&test_shared, "POST", "/v1/models/b/scheduler_step", "{'metric': 1}", 400, "takes no metric");
    test_expect(&test_shared, "POST", "/v1/models/b/scheduler_step", "{'epoch': 1}", 400, "unknown_field");
    test_expect(&test_shared, "POST", "/v1/models/b/train_step", STEP, 200, "\"lr\":0.05");
}

static void a_plateau_goes_by_a_metric(void **state) {
    (void)state;
    test_create_small(&test_shared, "c");
    patch("c", "{'scheduler': {'type': 'ReduceLROnPlateau', 'patience': 0, 'factor': 0.5}}", 200,
          "\"best\":\"Infinity\"");
    test_expect(&test_shared, "POST", "/v1/models/c/scheduler_step", "{'metric': 2}", 200,
                "{\"epoch\":1,\"lr\":0.1");
    test_expect(&test_shared, "POST", "/v1/models/c/scheduler_step", "{'metric': 'NaN'}", 200,
                "{\"epoch\":2,\"lr\":0.05");
    test_expect(&test_shared, "GET", "/v1/models/c", NULL, 200, "\"best\":2");
    test_expect(&test_shared, "POST", "/v1/models/c/scheduler_step", NULL, 400, "needs a metric");
    test_expect(&test_shared, "POST", "/v1/models/c/scheduler_step", "{'metric': 'low'}", 400,
                "metric must be a number");
    test_expect(&test_shared, "POST", "/v1/models/c/scheduler_step", "{'metric': null}", 400,
                "metric must be a number");
}

static void schedulers_within_one_are_shown(void **state) {
    (void)state;
    test_create_small(&test_shared, "d");
    patch("d",
          "{'scheduler': {'type': 'SequentialLR', 'milestones': [2], 'schedulers': ["
          "{'type': 'LinearLR', 'start_factor': 0.5, 'total_iters': 2}, "
          "{'type': 'ConstantLR', 'factor': 1}]}}",
          200, "\"milestones\":[2],\"schedulers\":[{\"type\":\"LinearLR\"");
    test_expect(&test_shared, "POST", "/v1/models/d/train_step", STEP, 200, "\"lr\":0.05");
    test_expect(&test_shared, "POST", "/v1/models/d/train_step", STEP, 200, "\"lr\":0.075");
    test_expect(&test_shared, "POST", "/v1/models/d/train_step", STEP, 200, "\"lr\":0.1");
}

static void a_bad_scheduler_is_refused_and_changes_nothing(void **state) {
    (void)state;
    test_create_small(&test_shared, "e");
    patch("e", "{'scheduler': {}}", 400, "/scheduler/type");
    patch("e", "{'scheduler': 'StepLR'}", 400, "scheduler must be an object");
    patch("e", "{'scheduler': {'type': 'StepLR'}, 'optimizer': {'lr': 0.5}}", 400, "StepLR needs step_size");
    patch("e", "{'scheduler': {'type': 'StepLr', 'step_size': 1}}", 400, "did you mean 'StepLR'");
    patch("e", "{'scheduler': {'type': 'ChainedScheduler', 'schedulers': 3}}", 400, "a list of schedulers");
    patch("e", "{'scheduler': {'type': 'ChainedScheduler', 'schedulers': [3]}}", 400,
          "/scheduler/schedulers/0");
    test_expect(&test_shared, "GET", "/v1/models/e", NULL, 200, "\"scheduler\":null");
    test_expect(&test_shared, "GET", "/v1/models/e", NULL, 200, "\"lr\":0.1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedulers_are_listed_with_their_attributes),
        cmocka_unit_test(a_scheduler_advances_with_each_step),
        cmocka_unit_test(an_epoch_comes_from_the_client),
        cmocka_unit_test(a_plateau_goes_by_a_metric),
        cmocka_unit_test(schedulers_within_one_are_shown),
        cmocka_unit_test(a_bad_scheduler_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
