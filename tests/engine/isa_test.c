/* isa_test.c -- choosing the instruction set to compute with. */
#include "engine/graph/isa.h"
#include "tests/support.h"

static int start(const char *features, gd_engine **ret_engine, gd_error *error) {
    const gd_engine_config config = {.threads = 1, .helpers_only = true, .cpu_features = features};
    *error = (gd_error)GD_ERROR_INIT;
    return gd_engine_new(&config, ret_engine, error);
}

static void each_supported_one_can_be_named(void **state) {
    (void)state;
    gd_engine *engine;
    gd_error error;
    size_t count = 0;
    for (const char *name; (name = gd_cpu_features_at(count)); count++) {
        test_ok(start(name, &engine, &error), &error);
        assert_string_equal(gd_engine_cpu_features(engine), name);
        gd_engine_free(engine);
    }
    assert_string_equal(gd_cpu_features_at(count - 1), "portable");
}

static void auto_takes_the_best(void **state) {
    (void)state;
    gd_engine *engine;
    gd_error error;
    test_ok(start("auto", &engine, &error), &error);
    assert_string_equal(gd_engine_cpu_features(engine), gd_cpu_features_at(0));
    gd_engine_free(engine);
}

static void what_there_is_not_is_refused(void **state) {
    (void)state;
    gd_engine *engine;
    gd_error error;
    assert_int_equal(start("sse9", &engine, &error), GD_E_VALUE);
    assert_string_equal(error.field, "cpu_features");
    assert_non_null(strstr(error.message, "sse9"));
    assert_non_null(strstr(error.message, "portable"));
}

/* The portable code and the best one must not be the same code by mistake. */
static void another_instruction_set_is_other_code(void **state) {
    (void)state;
    if (!gd_cpu_features_at(1)) {
        print_message("this processor has one instruction set only\n");
        skip();
    }
    const gd_isa *best, *portable;
    test_ok(gd_isa_choose(NULL, &best, NULL), NULL);
    test_ok(gd_isa_choose("portable", &portable, NULL), NULL);
    assert_int_equal(best->op_count, portable->op_count);
    for (size_t i = 0; i < portable->op_count; i++) {
        assert_ptr_equal(gd_isa_op(best, portable->ops[i]), best->ops[i]);
        if (portable->ops[i]->forward)
            assert_true(best->ops[i]->forward != portable->ops[i]->forward);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_supported_one_can_be_named),
        cmocka_unit_test(auto_takes_the_best),
        cmocka_unit_test(what_there_is_not_is_refused),
        cmocka_unit_test(another_instruction_set_is_other_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
