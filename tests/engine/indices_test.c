/* indices_test.c -- indices are checked before anything runs, a padding row stays zero, and what shape ops
 * do adds up when several are put together. */
#include "tests/support.h"

enum { ROWS = 5, LENGTH = 3, BATCH = 2 };

typedef struct fixture {
    gd_engine *engine;
    gd_model *model;
} fixture;

static fixture begin(const char *definition) {
    fixture f = {.engine = test_engine(2, 0)};
    f.model = test_model(f.engine, test_json(definition));
    return f;
}

static void end(fixture *f) {
    gd_model_free(f->model);
    gd_engine_free(f->engine);
}

static fixture begin_embedding(void) {
    return begin("{'name': 'words', 'seed': 3, 'inputs': {'words': {'shape': [3], 'dtype': 'int64'}},"
                 " 'loss': {'type': 'MSELoss'}, 'optimizer': {'type': 'SGD', 'lr': 0.1}, 'layers': ["
                 "{'type': 'Embedding', 'name': 'table', 'num_embeddings': 5, 'embedding_dim': 4,"
                 " 'padding_idx': 1}, {'type': 'Flatten'}, {'type': 'Linear', 'out_features': 2}]}");
}

static gd_tensor indices(int64_t *values) {
    return (gd_tensor){.dtype = GD_INT64, .shape = TEST_SHAPE(BATCH, LENGTH), .data = values};
}

static void expect_refusal(int code, const gd_error *error, const char *index) {
    assert_int_equal(code, GD_E_VALUE);
    assert_string_equal(error->field, "words");
    assert_non_null(strstr(error->message, index));
    assert_non_null(strstr(error->message, "'table'"));
    assert_non_null(strstr(error->message, "0 ... 4"));
}

static void an_index_out_of_range_is_refused_by_every_pass(void **state) {
    (void)state;
    static const struct {
        int64_t index;
        const char *text;
    } wrong[] = {{ROWS, "index 5"}, {-1, "index -1"}, {INT64_MAX, "9223372036854775807"}};
    fixture f = begin_embedding();
    gd_tensor target = test_random(TEST_SHAPE(BATCH, 2), 1), output;
    gd_step_result result;
    const uint64_t version = gd_model_version(f.model);
    for (size_t w = 0; w < sizeof wrong / sizeof wrong[0]; w++) {
        int64_t values[BATCH * LENGTH] = {0, 1, 2, 3, 4, wrong[w].index};
        gd_tensor x = indices(values);
        gd_error errors[5] = {GD_ERROR_INIT, GD_ERROR_INIT, GD_ERROR_INIT, GD_ERROR_INIT, GD_ERROR_INIT};
        const int codes[] = {
            gd_model_forward(f.model, &x, 1, &output, &errors[0]),
            gd_model_predict(f.model, &x, 1, &output, &errors[1]),
            gd_model_evaluate(f.model, &x, 1, &target, &result, &errors[2]),
            gd_model_forward_backward(f.model, &x, 1, &target, NULL, &result, &errors[3]),
            gd_model_train_step(f.model, &x, 1, &target, NULL, NULL, &result, &errors[4]),
        };
        for (int i = 0; i < 5; i++)
            expect_refusal(codes[i], &errors[i], wrong[w].text);
    }
    assert_int_equal(gd_model_version(f.model), version);
    assert_int_equal(gd_model_steps(f.model), 0);
    gd_error error = GD_ERROR_INIT;
    assert_int_equal(gd_model_output(f.model, &output, &error), GD_E_STATE);
    free(target.data);
    end(&f);
}

static void the_padding_row_stays_zero(void **state) {
    (void)state;
    fixture f = begin_embedding();
    gd_tensor target = test_random(TEST_SHAPE(BATCH, 2), 1);
    int64_t values[BATCH * LENGTH] = {0, 1, 2, 1, 4, 4};
    gd_tensor x = indices(values);
    const gd_parameter *table = test_parameter(f.model, "table.weight");
    const float untouched = table->data[3 * 4], touched = table->data[0];
    for (int step = 0; step < 3; step++) {
        gd_step_result result;
        gd_error error = GD_ERROR_INIT;
        test_ok(gd_model_train_step(f.model, &x, 1, &target, NULL, NULL, &result, &error), &error);
    }
    for (int k = 0; k < 4; k++)
        assert_true(table->data[4 + k] == 0);
    assert_true(table->data[3 * 4] == untouched); /* not in the batch */
    assert_true(table->data[0] != touched);
    free(target.data);
    end(&f);
}

static void expect_looked_up(const char *layers, const char *message) {
    char text[1024];
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = NULL;
    test_failure failure;
    snprintf(text, sizeof text, "{'name': 'a', 'inputs': {'x': {'shape': [7]}}, 'layers': [%s]}", layers);
    json_t *definition = test_json(text);
    const int code = test_build(engine, definition, &model, &failure);
    assert_int_equal(code != 0, message != NULL);
    if (message) {
        assert_string_equal(failure.code, "invalid_graph");
        assert_non_null(strstr(failure.message, message));
    }
    json_decref(definition);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void computed_indices_must_be_known_to_be_small_enough(void **state) {
    (void)state;
#define TABLE(rows) "{'type': 'Embedding', 'num_embeddings': " #rows ", 'embedding_dim': 2}"
    expect_looked_up("{'type': 'argmax', 'dim': 1}, " TABLE(7), NULL);
    expect_looked_up("{'type': 'argmax', 'dim': 1}, " TABLE(6), "0 ... 5");
    expect_looked_up("{'type': 'arange', 'start': 8, 'end': 1, 'step': -3}, " TABLE(9), NULL);
    expect_looked_up("{'type': 'arange', 'start': 8, 'end': 1, 'step': -3}, " TABLE(8), "larger");
    expect_looked_up("{'type': 'arange', 'start': 2, 'end': -2, 'step': -1}, " TABLE(8), "any");
    expect_looked_up("{'type': 'constant', 'data': [0, 3], 'dtype': 'int64'}, " TABLE(4), NULL);
    expect_looked_up("{'type': 'constant', 'data': [0, 3], 'dtype': 'int64'}, " TABLE(3), "larger");
    expect_looked_up("{'type': 'constant', 'data': [0, -1], 'dtype': 'int64'}, " TABLE(3), "any");
#undef TABLE
}

/* One table of positions for all samples: its gradient is the sum of theirs. */
static void positions_are_looked_up_once_for_all_samples(void **state) {
    (void)state;
    enum { SAMPLES = 37, PLACES = 3, WIDTH = 2 };
    fixture f = begin("{'name': 'positions', 'inputs': {'x': {'shape': [3, 2]}}, 'layers': ["
                      "{'type': 'arange', 'end': 3}, {'type': 'Embedding', 'name': 'table',"
                      " 'num_embeddings': 4, 'embedding_dim': 2}, {'type': 'expand_as', 'name': 'each',"
                      " 'inputs': ['table', '@x']}, {'type': 'add', 'inputs': ['@x', 'each']}]}");
    gd_tensor x = test_random(TEST_SHAPE(SAMPLES, PLACES, WIDTH), 1), output;
    gd_tensor gradient = test_random(x.shape, 2);
    gd_error error = GD_ERROR_INIT;
    const gd_parameter *table = test_parameter(f.model, "table.weight");
    test_ok(gd_model_forward(f.model, &x, 1, &output, &error), &error);
    const float *y = output.data, *dy = gradient.data;
    for (int i = 0; i < SAMPLES * PLACES * WIDTH; i++)
        assert_true(y[i] == ((const float *)x.data)[i] + table->data[i % (PLACES * WIDTH)]);
    test_ok(gd_model_backward(f.model, &gradient, false, &error), &error);
    for (int k = 0; k < 4 * WIDTH; k++) {
        double sum = 0;
        for (int n = 0; k < PLACES * WIDTH && n < SAMPLES; n++)
            sum += dy[n * PLACES * WIDTH + k];
        assert_float_equal(table->grad[k], sum, 1e-4);
    }
    free(x.data);
    free(gradient.data);
    end(&f);
}

/* A model whose layers undo each other gives back its input, and hands gradients through unchanged. */
static void expect_identity(const char *layers) {
    char definition[2048];
    snprintf(definition, sizeof definition,
             "{'name': 'round', 'inputs': {'e': {'shape': [6]}}, 'layers': ["
             "{'type': 'Linear', 'name': 'source', 'out_features': 24, 'bias': false},"
             "{'type': 'view', 'name': 'x', 'shape': [-1, 2, 3, 4]}, %s]}",
             layers);
    fixture f = begin(definition);
    gd_tensor input = test_random(TEST_SHAPE(37, 6), 4), weight = test_random(TEST_SHAPE(24, 6), 5), output;
    gd_tensor gradient = test_random(TEST_SHAPE(37, 2, 3, 4), 6);
    gd_error error = GD_ERROR_INIT;
    test_set_parameter(f.model, "source.weight", &weight);
    test_ok(gd_model_forward(f.model, &input, 1, &output, &error), &error);
    const float *e = input.data, *w = weight.data, *y = output.data, *dy = gradient.data;
    assert_true(gd_shape_equal(&output.shape, &gradient.shape));
    for (int n = 0; n < 37; n++)
        for (int j = 0; j < 24; j++) {
            double sum = 0;
            for (int i = 0; i < 6; i++)
                sum += (double)e[n * 6 + i] * w[j * 6 + i];
            assert_float_equal(y[n * 24 + j], sum, 1e-4);
        }
    test_ok(gd_model_backward(f.model, &gradient, false, &error), &error);
    const float *dw = test_parameter(f.model, "source.weight")->grad;
    for (int j = 0; j < 24; j++)
        for (int i = 0; i < 6; i++) {
            double sum = 0;
            for (int n = 0; n < 37; n++)
                sum += (double)dy[n * 24 + j] * e[n * 6 + i];
            assert_float_equal(dw[j * 6 + i], sum, 1e-3);
        }
    free(input.data);
    free(weight.data);
    free(gradient.data);
    end(&f);
}

static void what_is_taken_apart_can_be_put_together(void **state) {
    (void)state;
    expect_identity("{'type': 'chunk', 'name': 'c', 'chunks': 2, 'dim': -1},"
                    "{'type': 'cat', 'dim': 3, 'inputs': ['c', 'c:1']}");
    expect_identity("{'type': 'split', 'name': 's', 'split_size_or_sections': [1, 2], 'dim': 2},"
                    "{'type': 'cat', 'dim': 2, 'inputs': ['s', 's:1']}");
    expect_identity("{'type': 'select', 'name': 'a', 'dim': 1, 'index': 0, 'inputs': ['x']},"
                    "{'type': 'select', 'name': 'b', 'dim': 1, 'index': 1, 'inputs': ['x']},"
                    "{'type': 'stack', 'dim': 1, 'inputs': ['a', 'b']}");
}

static void the_batch_may_move_and_come_back(void **state) {
    (void)state;
    expect_identity("{'type': 'transpose', 'dim0': 0, 'dim1': 2}, {'type': 'flip', 'dims': [0, 1]},"
                    "{'type': 'flip', 'dims': [1, 0]}, {'type': 'transpose', 'dim0': 2, 'dim1': 0}");
    expect_identity(
        "{'type': 'permute', 'dims': [3, 1, 2, 0]}, {'type': 'unsqueeze', 'dim': 0},"
        "{'type': 'squeeze', 'dim': 0}, {'type': 'roll', 'shifts': [1], 'dims': [0]},"
        "{'type': 'roll', 'shifts': [-1], 'dims': [0]}, {'type': 'permute', 'dims': [3, 1, 2, 0]}");
    expect_identity("{'type': 'transpose', 'dim0': 0, 'dim1': 1, 'name': 't'},"
                    "{'type': 'chunk', 'name': 'c', 'chunks': 2, 'dim': 0},"
                    "{'type': 'cat', 'name': 'd', 'dim': 0, 'inputs': ['c', 'c:1']},"
                    "{'type': 'transpose', 'dim0': 0, 'dim1': 1}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_out_of_range_is_refused_by_every_pass),
        cmocka_unit_test(the_padding_row_stays_zero),
        cmocka_unit_test(computed_indices_must_be_known_to_be_small_enough),
        cmocka_unit_test(positions_are_looked_up_once_for_all_samples),
        cmocka_unit_test(what_is_taken_apart_can_be_put_together),
        cmocka_unit_test(the_batch_may_move_and_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
