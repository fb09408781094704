/* isa_test.c -- choosing the instruction set to compute with; on whole networks all of them agree. */
#include <math.h>

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

/* ---- whole networks ------------------------------------------------------------------------------ */

/* For these inputs no element that feeds a ReLU or a pool is so near another that rounding decides; for about
 * a third of all seeds one is in the deeper networks, and then gradients differ by 0.001 to 0.01. */
enum { INPUT_SEED = 3 };

#define MODELS "clients/examples/models/"

typedef struct network {
    const char *path;
    int64_t batch;
} network;

static const network networks[] = {
    {"clients/examples/lenet.json", 5},
    {"clients/examples/lenet.json", 37},
    {"clients/examples/lenet.json", 64},
    {MODELS "mlp.json", 5},
    {"tests/bench/models/mlp.json", 64},
    {"tests/bench/models/mlp.json", 150},
    {MODELS "vgg11.json", 5},
    {MODELS "resnet20.json", 5},
    {MODELS "autoencoder.json", 5},
    {MODELS "char_lstm.json", 5},
    {MODELS "transformer.json", 5},
};

/* A network after forward and backward from a random gradient of its output. */
typedef struct passed {
    gd_engine *engine;
    gd_model *model;
    gd_tensor input, output, gradient;
    double norm; /* of all gradients together */
} passed;

static gd_shape batched(const gd_shape *one, int64_t batch) {
    gd_shape shape = {.rank = one->rank + 1, .dim = {batch}};
    memcpy(shape.dim + 1, one->dim, (size_t)one->rank * sizeof *one->dim);
    return shape;
}

static passed pass(const network *which, const char *features) {
    passed p = {0};
    gd_error error;
    test_ok(start(features, &p.engine, &error), &error);
    p.model = test_model(p.engine, json_load_file(which->path, 0, NULL));
    const gd_graph *graph = gd_model_graph(p.model);
    const gd_input_spec *input = gd_graph_input(graph, 0);
    const gd_shape shape = batched(&input->shape, which->batch);
    p.input = input->dtype == GD_INT64 ? test_random_classes(gd_numel(&shape), 16, 1)
                                       : test_random(shape, INPUT_SEED);
    p.input.shape = shape;
    p.gradient = test_random(batched(&gd_graph_output(graph, 0)->shape, which->batch), 2);
    test_ok(gd_model_forward(p.model, &p.input, 1, &p.output, &error), &error);
    test_ok(gd_model_backward(p.model, &p.gradient, false, &error), &error);
    p.norm = gd_model_grad_norm(p.model);
    return p;
}

static void passed_free(passed *p) {
    free(p->input.data);
    free(p->gradient.data);
    gd_model_free(p->model);
    gd_engine_free(p->engine);
}

/* The difference's norm is within tolerance of the expected norm; a gradient that is nothing but rounding
 * beside the others (of a bias before a batch norm) stays so. */
static void agree(const float *expected, const float *actual, int64_t count, double tolerance, double nothing,
                  const char *what) {
    double difference = 0;
    for (int64_t i = 0; i < count; i++) {
        const double d = (double)expected[i] - (double)actual[i];
        difference += d * d;
    }
    const double norm = gd_norm(expected, count);
    if (norm <= nothing && gd_norm(actual, count) <= nothing)
        return;
    if (!(sqrt(difference) <= tolerance * norm))
        fail_msg("%s: differs by %.3g of its norm, %.3g", what, sqrt(difference) / norm, norm);
}

static void all_instruction_sets_agree(void **state) {
    const network *which = *state;
    passed portable = pass(which, "portable");
    for (size_t k = 0; strcmp(gd_cpu_features_at(k), "portable") != 0; k++) {
        passed best = pass(which, gd_cpu_features_at(k));
        agree(portable.output.data, best.output.data, gd_numel(&portable.output.shape), 1e-4, 0, "output");
        for (size_t i = 0; i < gd_model_parameter_count(best.model); i++) {
            const gd_parameter *a = gd_model_parameter(portable.model, i),
                               *b = gd_model_parameter(best.model, i);
            assert_int_equal(a->has_grad, b->has_grad);
            if (a->has_grad)
                agree(a->grad, b->grad, a->numel, 1e-4, 1e-6 * portable.norm, a->name);
        }
        passed_free(&best);
    }
    passed_free(&portable);
}

int main(void) {
    enum { NETWORKS = sizeof networks / sizeof networks[0] };
    char names[NETWORKS][96];
    struct CMUnitTest whole[NETWORKS];
    for (size_t i = 0; i < NETWORKS; i++) {
        snprintf(names[i], sizeof names[i], "all_instruction_sets_agree: %s, batch %d", networks[i].path,
                 (int)networks[i].batch);
        whole[i] = (struct CMUnitTest){.name = names[i],
                                       .test_func = all_instruction_sets_agree,
                                       .initial_state = (void *)(uintptr_t)&networks[i]};
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_supported_one_can_be_named),
        cmocka_unit_test(auto_takes_the_best),
        cmocka_unit_test(what_there_is_not_is_refused),
        cmocka_unit_test(another_instruction_set_is_other_code),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(whole, NULL, NULL) != 0;
}
