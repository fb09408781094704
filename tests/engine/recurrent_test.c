/* recurrent_test.c -- RNN, LSTM and GRU fed time first, as torch's default has it. */
#include "engine/graph/op.h"
#include "tests/support.h"

/* A network of these layers over (N, T, 3), once forward and back. */
typedef struct fixture {
    gd_engine *engine;
    gd_model *model;
    gd_tensor output;
} fixture;

static fixture start(const char *layers, int times) {
    char text[512];
    fixture f = {.engine = test_engine(2, 0)};
    snprintf(text, sizeof text, "{'name': 'r', 'seed': 3, 'input': {'shape': [%d, 3]}, 'layers': [%s]}",
             times, layers);
    f.model = test_model(f.engine, test_json(text));
    return f;
}

static fixture run(const char *layers, const gd_tensor *x) {
    fixture f = start(layers, (int)x->shape.dim[1]);
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(f.model, x, 1, &f.output, &error), &error);
    gd_tensor gradient = test_random(f.output.shape, 2);
    test_ok(gd_model_backward(f.model, &gradient, false, &error), &error);
    free(gradient.data);
    return f;
}

static void end(fixture *f) {
    gd_model_free(f->model);
    gd_engine_free(f->engine);
}

/* Between two transposes a layer that wants (T, N, features) is one that wants (N, T, features). */
static void time_first_between_transposes_is_batch_first(void **state) {
    const char *kind = *state;
    char batch_first[256], time_first[256];
    snprintf(batch_first, sizeof batch_first,
             "{'type': '%s', 'hidden_size': 4, 'num_layers': 2, 'bidirectional': true, 'batch_first': true}",
             kind);
    snprintf(time_first, sizeof time_first,
             "{'type': 'transpose', 'dim0': 0, 'dim1': 1}, "
             "{'type': '%s', 'hidden_size': 4, 'num_layers': 2, 'bidirectional': true}, "
             "{'type': 'transpose', 'dim0': 0, 'dim1': 1}",
             kind);
    gd_tensor x = test_random(TEST_SHAPE(7, 5, 3), 1);
    fixture a = run(batch_first, &x), b = run(time_first, &x);
    test_close(&a.output, &b.output, 1e-6, "output");
    assert_int_equal(gd_model_parameter_count(a.model), gd_model_parameter_count(b.model));
    for (size_t i = 0; i < gd_model_parameter_count(a.model); i++) {
        const gd_parameter *p = gd_model_parameter(a.model, i), *q = gd_model_parameter(b.model, i);
        test_close_values(p->grad, q->grad, p->numel, 1e-5, p->name);
    }
    end(&a);
    end(&b);
    free(x.data);
}

/* Many samples go their way in blocks, with few times ahead and back at once; one sample alone, with many. */
static void a_batch_is_its_samples(void **state) {
    enum { SAMPLES = 20, TIMES = 40, SIZE = TIMES * 3 };
    const char *kind = *state;
    char layer[256];
    gd_error error = GD_ERROR_INIT;
    snprintf(layer, sizeof layer,
             "{'type': '%s', 'hidden_size': 4, 'num_layers': 2, 'bidirectional': true, 'batch_first': true}",
             kind);
    gd_tensor x = test_random(TEST_SHAPE(SAMPLES, TIMES, 3), 1);
    fixture whole = run(layer, &x), alone = start(layer, TIMES);
    gd_tensor gradient = test_random(whole.output.shape, 2);
    const size_t size = (size_t)gd_numel(&whole.output.shape) / SAMPLES;
    for (int n = 0; n < SAMPLES; n++) {
        const gd_tensor sample = {GD_FLOAT32, TEST_SHAPE(1, TIMES, 3), (float *)x.data + n * SIZE};
        gd_tensor part = {GD_FLOAT32, TEST_SHAPE(1, TIMES, 8), (float *)gradient.data + (size_t)n * size};
        test_ok(gd_model_forward(alone.model, &sample, 1, &alone.output, &error), &error);
        test_close_values((float *)whole.output.data + (size_t)n * size, alone.output.data, size, 1e-6, kind);
        test_ok(gd_model_backward(alone.model, &part, false, &error), &error);
    }
    for (size_t i = 0; i < gd_model_parameter_count(whole.model); i++) {
        const gd_parameter *p = gd_model_parameter(whole.model, i), *q = gd_model_parameter(alone.model, i);
        test_close_values(p->grad, q->grad, p->numel, 1e-5, p->name);
    }
    end(&whole);
    end(&alone);
    free(gradient.data);
    free(x.data);
}

int main(void) {
    static const char *const kinds[] = {"RNN", "LSTM", "GRU"};
    static const struct CMUnitTest each[] = {cmocka_unit_test(time_first_between_transposes_is_batch_first),
                                             cmocka_unit_test(a_batch_is_its_samples)};
    struct CMUnitTest tests[GD_COUNT(each) * GD_COUNT(kinds)];
    for (size_t i = 0; i < GD_COUNT(tests); i++) {
        tests[i] = each[i / GD_COUNT(kinds)];
        tests[i].initial_state = (void *)(uintptr_t)kinds[i % GD_COUNT(kinds)];
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
