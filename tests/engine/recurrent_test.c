/* recurrent_test.c -- RNN, LSTM and GRU fed time first, as torch's default has it. */
#include "tests/support.h"

/* A network of these layers over (N, T, 3), once forward and back. */
typedef struct fixture {
    gd_engine *engine;
    gd_model *model;
    gd_tensor output;
} fixture;

static fixture run(const char *layers, const gd_tensor *x) {
    char text[512];
    fixture f = {.engine = test_engine(2, 0)};
    gd_error error = GD_ERROR_INIT;
    snprintf(text, sizeof text, "{'name': 'r', 'seed': 3, 'input': {'shape': [5, 3]}, 'layers': [%s]}",
             layers);
    f.model = test_model(f.engine, test_json(text));
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

int main(void) {
    static const char *const kinds[] = {"RNN", "LSTM", "GRU"};
    struct CMUnitTest tests[3];
    for (int i = 0; i < 3; i++)
        tests[i] = (struct CMUnitTest){.name = kinds[i],
                                       .test_func = time_first_between_transposes_is_batch_first,
                                       .initial_state = (void *)(uintptr_t)kinds[i]};
    return cmocka_run_group_tests_name("time_first_between_transposes_is_batch_first", tests, NULL, NULL);
}
