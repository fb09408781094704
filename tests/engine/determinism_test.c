/* determinism_test.c -- the same bits for any number of threads, and run to run. */
#include <pthread.h>

#include "tests/support.h"

enum { STEPS = 6, MOST = 160 };

static const int64_t batches[] = {1, 2, 7, 37, 64, 130};
enum { BATCHES = sizeof batches / sizeof batches[0] };

/* Train LeNet for a few steps. @return its parameters; free() them */
static float *train_on(gd_engine *engine, int64_t batch, size_t *ret_count, double *ret_loss) {
    gd_model *model = test_model(
        engine, test_lenet("{'type': 'CrossEntropyLoss'}", "{'type': 'SGD', 'lr': 0.05, 'momentum': 0.9}"));
    gd_tensor input = test_random(TEST_SHAPE(batch, 1, 32, 32), 1);
    gd_tensor target = test_random_classes(batch, 10, 2);
    gd_error error = GD_ERROR_INIT;
    gd_step_result result = {0};
    for (int step = 0; step < STEPS; step++)
        test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), &error);
    float *values = test_parameters(model, ret_count);
    *ret_loss = result.loss;
    free(input.data);
    free(target.data);
    gd_model_free(model);
    return values;
}

static float *train(int threads, int64_t batch, size_t *ret_count, double *ret_loss) {
    gd_engine *engine = test_engine(threads, 0);
    float *values = train_on(engine, batch, ret_count, ret_loss);
    gd_engine_free(engine);
    return values;
}

static void same_bits_for_any_number_of_threads(void **state) {
    static const int threads[] = {1, 2, 3, 4};
    (void)state;
    for (int b = 0; b < BATCHES; b++) {
        size_t count;
        double loss, other_loss;
        float *expected = train(threads[0], batches[b], &count, &loss);
        for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
            float *values = train(threads[t], batches[b], &count, &other_loss);
            if (memcmp(values, expected, count * sizeof *values) != 0 || loss != other_loss)
                fail_msg("batch %lld: %d threads give other bits than one", (long long)batches[b],
                         threads[t]);
            free(values);
        }
        free(expected);
    }
}

/* An example network that is trained: its parameters' and buffers' bytes do not depend on threads or chance.
 */
typedef struct example {
    const char *path;
    gd_shape input, target;
    int64_t symbols, classes; /* symbols 0: the input is float32 */
} example;

static const example examples[] = {
    {"clients/examples/models/resnet20.json", TEST_SHAPE(19, 3, 32, 32), TEST_SHAPE(19), 0, 10},
    {"clients/examples/models/char_lstm.json", TEST_SHAPE(35, 32), TEST_SHAPE(35, 32), 65, 65},
    {"clients/examples/models/transformer.json", TEST_SHAPE(35, 16), TEST_SHAPE(35), 100, 4},
    {"tests/bench/models/mlp.json", TEST_SHAPE(70, 1024), TEST_SHAPE(70), 0, 10},
};

static gd_tensor classes_of(gd_shape shape, int64_t classes, uint64_t seed) {
    gd_tensor tensor = test_random_classes(gd_numel(&shape), classes, seed);
    tensor.shape = shape;
    return tensor;
}

static float *train_example(const example *e, int threads, size_t *ret_count) {
    json_error_t why;
    json_t *definition = json_load_file(e->path, 0, &why);
    assert_non_null(definition);
    gd_engine *engine = test_engine(threads, 0);
    gd_model *model = test_model(engine, definition);
    gd_tensor input = e->symbols ? classes_of(e->input, e->symbols, 1) : test_random(e->input, 1);
    gd_tensor target = classes_of(e->target, e->classes, 2);
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    for (int step = 0; step < 3; step++)
        test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), &error);
    float *values = test_parameters(model, ret_count);
    free(input.data);
    free(target.data);
    gd_model_free(model);
    gd_engine_free(engine);
    return values;
}

static void examples_give_the_same_bits_every_time(void **state) {
    static const int threads[] = {1, 2, 3, 4, 2, 2};
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        size_t count;
        float *expected = train_example(&examples[i], 1, &count);
        for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
            float *values = train_example(&examples[i], threads[t], &count);
            if (memcmp(values, expected, count * sizeof *values) != 0)
                fail_msg("%s: %d threads give other bits than one", examples[i].path, threads[t]);
            free(values);
        }
        free(expected);
    }
}

static void a_model_left_between_other_batches_gives_the_same_bits(void **state) {
    /* plans of other batch sizes in between must leave nothing behind that counts */
    (void)state;
    size_t count;
    float *values[2];
    for (int disturbed = 0; disturbed < 2; disturbed++) {
        gd_engine *engine = test_engine(2, 0);
        gd_model *model = test_model(engine, test_lenet("{'type': 'CrossEntropyLoss'}",
                                                        "{'type': 'SGD', 'lr': 0.05, 'momentum': 0.9}"));
        gd_tensor input = test_random(TEST_SHAPE(MOST, 1, 32, 32), 1), output;
        gd_tensor target = test_random_classes(MOST, 10, 2);
        gd_error error = GD_ERROR_INIT;
        gd_step_result result;
        for (int step = 0; step < STEPS; step++) {
            input.shape.dim[0] = target.shape.dim[0] = 20;
            test_ok(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, &error), &error);
            if (!disturbed)
                continue;
            input.shape.dim[0] = target.shape.dim[0] = MOST - step * 20;
            test_ok(gd_model_predict(model, &input, 1, &output, &error), &error);
            test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
            test_ok(gd_model_evaluate(model, &input, 1, &target, &result, &error), &error);
        }
        values[disturbed] = test_parameters(model, &count);
        free(input.data);
        free(target.data);
        gd_model_free(model);
        gd_engine_free(engine);
    }
    assert_memory_equal(values[0], values[1], count * sizeof **values);
    free(values[0]);
    free(values[1]);
}

static void a_sample_is_predicted_alike_in_any_company(void **state) {
    /* to the rounding of float32: a product of another size may round otherwise */
    (void)state;
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = test_model(engine, test_lenet(NULL, NULL));
    gd_tensor input = test_random(TEST_SHAPE(MOST, 1, 32, 32), 1), output;
    gd_error error = GD_ERROR_INIT;
    float all[MOST * 10];
    test_ok(gd_model_predict(model, &input, 1, &output, &error), &error);
    memcpy(all, output.data, sizeof all);
    for (int64_t n = 0; n < MOST; n += 23) {
        gd_tensor one = {GD_FLOAT32, TEST_SHAPE(1, 1, 32, 32), (float *)input.data + n * 1024};
        test_ok(gd_model_predict(model, &one, 1, &output, &error), &error);
        test_close_values(all + n * 10, output.data, 10, 1e-5, "output");
    }
    free(input.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* Models on one engine, each driven by its own thread. */
typedef struct runner {
    gd_engine *engine;
    float *values;
    size_t count;
    double loss;
} runner;

static void *run(void *argument) {
    runner *r = argument;
    r->values = train_on(r->engine, 37, &r->count, &r->loss);
    return NULL;
}

static void models_trained_side_by_side_give_the_same_bits_as_alone(void **state) {
    enum { RUNNERS = 4 };
    (void)state;
    size_t count;
    double loss;
    float *expected = train(1, 37, &count, &loss);
    runner runners[RUNNERS];
    pthread_t threads[RUNNERS];
    gd_engine *engine = test_engine(3, 0);
    for (int i = 0; i < RUNNERS; i++) {
        runners[i] = (runner){.engine = engine};
        assert_int_equal(pthread_create(&threads[i], NULL, run, &runners[i]), 0);
    }
    for (int i = 0; i < RUNNERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_non_null(runners[i].values);
        assert_memory_equal(runners[i].values, expected, count * sizeof *expected);
        free(runners[i].values);
    }
    free(expected);
    gd_engine_free(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_for_any_number_of_threads),
        cmocka_unit_test(examples_give_the_same_bits_every_time),
        cmocka_unit_test(a_model_left_between_other_batches_gives_the_same_bits),
        cmocka_unit_test(a_sample_is_predicted_alike_in_any_company),
        cmocka_unit_test(models_trained_side_by_side_give_the_same_bits_as_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
