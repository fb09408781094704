/* random_test.c -- layers that draw random numbers in training: torch's numbers for the same seed, the right
 * statistics, the mask going back as it came, and nothing drawn where nothing is random. */
#include <math.h>

#include "tests/support.h"

enum { SAMPLES = 64, FEATURES = 625, COUNT = SAMPLES * FEATURES };

/* One layer, given as JSON without its braces, fed with samples of a shape. */
static gd_model *model_of(gd_engine *engine, const char *layer, const char *shape, int seed) {
    char text[512];
    snprintf(text, sizeof text,
             "{'name': 'random', 'class_name': 'Net', 'seed': %d, 'inputs': {'x': {'shape': %s}},"
             " 'layers': [{%s}]}",
             seed, shape, layer);
    return test_model(engine, test_json(text));
}

/* The same behind a Linear that hands its input through, whose weight's gradient is the layer's input's. */
static gd_model *model_behind_linear(gd_engine *engine, const char *layer, int64_t features, int seed) {
    char text[512];
    snprintf(text, sizeof text,
             "{'name': 'random', 'class_name': 'Net', 'seed': %d, 'inputs': {'x': {'shape': [1]}}, 'layers':"
             " [{'type': 'Linear', 'name': 'source', 'out_features': %d, 'bias': false}, {%s}]}",
             seed, (int)features, layer);
    return test_model(engine, test_json(text));
}

static gd_tensor filled(gd_shape shape, float value) {
    gd_tensor tensor = test_random(shape, 1);
    for (int64_t i = 0; i < gd_numel(&shape); i++)
        ((float *)tensor.data)[i] = value;
    return tensor;
}

static gd_tensor forward(gd_model *model, const gd_tensor *x) {
    gd_tensor output;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, x, 1, &output, &error), &error);
    return output;
}

static gd_tensor predict(gd_model *model, const gd_tensor *x) {
    gd_tensor output;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_predict(model, x, 1, &output, &error), &error);
    return output;
}

static void train_mode(gd_model *model, bool training) {
    const gd_model_patch mode = {.training = &training};
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_change(model, &mode, &error), &error);
}

/* ---- PyTorch's numbers ------------------------------------------------------------------------------ */

/* Two forwards in training right after torch.manual_seed(), so that the second continues where the first
 * stopped. */
static void draws_are_those_of_torch(void **state) {
    (void)state;
    json_t *rows = test_golden_json("random.json"), *row;
    const char *name;
    test_golden golden;
    test_golden_open(&golden, "random.safetensors");
    assert_true(json_object_size(rows) > 0);
    json_object_foreach(rows, name, row) {
        gd_engine *engine = test_engine(2, 0);
        const gd_tensor x = test_golden_get(&golden, "%s/input", name);
        const gd_tensor expected[] = {test_golden_get(&golden, "%s/first", name),
                                      test_golden_get(&golden, "%s/second", name)};
        json_t *shape = json_array(), *layer = json_deep_copy(row);
        for (int i = 1; i < x.shape.rank; i++)
            json_array_append_new(shape, json_integer(x.shape.dim[i]));
        gd_model *model = test_model(engine, json_pack("{s:s, s:s, s:i, s:{s:{s:o}}, s:[o]}", "name",
                                                       "random", "class_name", "Net", "seed", 5, "inputs",
                                                       "x", "shape", shape, "layers", layer));
        for (int i = 0; i < 2; i++) {
            const gd_tensor output = forward(model, &x);
            test_close(&expected[i], &output, 2e-6, name);
        }
        gd_model_free(model);
        gd_engine_free(engine);
    }
    test_golden_close(&golden);
    json_decref(rows);
}

/* ---- statistics ------------------------------------------------------------------------------------- */

/* Of ones, a share p becomes 0 and the rest 1 / (1 - p); five standard deviations are allowed. */
static void dropout_drops_p_of_all_and_scales_the_rest(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, "'type': 'Dropout', 'p': 0.3", "[625]", 1);
    gd_tensor x = filled(TEST_SHAPE(SAMPLES, FEATURES), 1);
    const gd_tensor y = forward(model, &x);
    int64_t dropped = 0;
    for (int64_t i = 0; i < COUNT; i++) {
        const float value = ((const float *)y.data)[i];
        dropped += value == 0;
        assert_true(value == 0 || fabsf(value - 1 / 0.7F) < 1e-6F);
    }
    assert_true(fabs((double)dropped - 0.3 * COUNT) < 5 * sqrt(0.3 * 0.7 * COUNT));
    free(x.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void dropout2d_drops_whole_channels(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, "'type': 'Dropout2d', 'p': 0.5", "[25, 5, 5]", 1);
    gd_tensor x = filled(TEST_SHAPE(SAMPLES, 25, 5, 5), 1);
    const gd_tensor y = forward(model, &x);
    int64_t dropped = 0;
    for (int64_t channel = 0; channel < COUNT / 25; channel++) {
        const float *values = (const float *)y.data + channel * 25;
        assert_true(values[0] == 0 || values[0] == 2);
        dropped += values[0] == 0;
        for (int i = 1; i < 25; i++)
            assert_true(values[i] == values[0]);
    }
    assert_true(fabs((double)dropped - COUNT / 50.0) < 5 * sqrt(COUNT / 100.0));
    free(x.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* Of numbers with mean 0 and variance 1, whatever their distribution. */
static void alpha_dropout_keeps_mean_and_variance(void **state) {
    (void)state;
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = model_of(engine, "'type': 'AlphaDropout', 'p': 0.4", "[625]", 1);
    gd_tensor x = test_random(TEST_SHAPE(SAMPLES, FEATURES), 1);
    float *values = x.data;
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < COUNT; i++) {
        sum += values[i];
        squares += (double)values[i] * values[i];
    }
    const double mean = sum / COUNT, deviation = sqrt(squares / COUNT - mean * mean);
    for (int64_t i = 0; i < COUNT; i++)
        values[i] = (float)((values[i] - mean) / deviation);
    const gd_tensor y = forward(model, &x);
    sum = squares = 0;
    for (int64_t i = 0; i < COUNT; i++) {
        sum += ((const float *)y.data)[i];
        squares += (double)((const float *)y.data)[i] * ((const float *)y.data)[i];
    }
    assert_true(fabs(sum / COUNT) < 0.03);
    assert_true(fabs(squares / COUNT - 1) < 0.05);
    free(x.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* ---- backward --------------------------------------------------------------------------------------- */

/* The gradient is dropped and scaled as the output was; y = scale x + shift with x = 1. */
static void what_goes_back_is_masked_as_what_went_forward(void **state) {
    (void)state;
    static const struct kind {
        const char *layer;
        double dropped, kept, shift_of_kept; /* of p = 0.5 */
    } kinds[] = {
        {"'type': 'Dropout'", 0, 2, 0},
        {"'type': 'AlphaDropout'", 0, 0.8864053, 0.7791939},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        gd_engine *engine = test_engine(2, 0);
        gd_model *model = model_behind_linear(engine, kinds[k].layer, 200, 3);
        gd_tensor one = filled(TEST_SHAPE(1, 1), 1), ones = filled(TEST_SHAPE(200, 1), 1);
        gd_tensor gradient = filled(TEST_SHAPE(1, 200), 3);
        gd_error error = GD_ERROR_INIT;
        test_set_parameter(model, "source.weight", &ones);
        const gd_tensor y = forward(model, &one);
        float kept[200];
        int64_t count = 0;
        for (int i = 0; i < 200; i++) {
            kept[i] = fabs(((const float *)y.data)[i] - (kinds[k].kept + kinds[k].shift_of_kept)) < 1e-5;
            count += kept[i] != 0;
        }
        assert_in_range(count, 50, 150);
        train_mode(model, false); /* what was drawn is what counts */
        test_ok(gd_model_backward(model, &gradient, false, &error), &error);
        const float *grad = test_parameter(model, "source.weight")->grad;
        for (int i = 0; i < 200; i++)
            assert_true(fabs(grad[i] - 3 * (kept[i] != 0 ? kinds[k].kept : kinds[k].dropped)) < 1e-5);
        free(one.data);
        free(ones.data);
        free(gradient.data);
        gd_model_free(model);
        gd_engine_free(engine);
    }
}

/* Below 0 the gradient is the slope that was drawn, y / x. */
static void rrelu_goes_back_with_the_slopes_it_drew(void **state) {
    (void)state;
    gd_engine *engine = test_engine(2, 0);
    gd_model *model = model_behind_linear(engine, "'type': 'RReLU', 'lower': 0.25, 'upper': 0.75", 200, 3);
    gd_tensor one = filled(TEST_SHAPE(1, 1), 1), minus = filled(TEST_SHAPE(200, 1), -2);
    gd_tensor gradient = filled(TEST_SHAPE(1, 200), 3);
    gd_error error = GD_ERROR_INIT;
    test_set_parameter(model, "source.weight", &minus);
    const gd_tensor y = forward(model, &one);
    float slopes[200];
    double sum = 0;
    for (int i = 0; i < 200; i++) {
        slopes[i] = ((const float *)y.data)[i] / -2;
        sum += slopes[i];
        assert_true(slopes[i] >= 0.25F && slopes[i] <= 0.75F);
    }
    assert_true(fabs(sum / 200 - 0.5) < 0.06);
    test_ok(gd_model_backward(model, &gradient, false, &error), &error);
    for (int i = 0; i < 200; i++)
        assert_true(fabsf(test_parameter(model, "source.weight")->grad[i] - 3 * slopes[i]) < 1e-5F);
    free(one.data);
    free(minus.data);
    free(gradient.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* ---- what is drawn, and when ------------------------------------------------------------------------ */

static const char *const random_layers[] = {"'type': 'Dropout'", "'type': 'AlphaDropout'", "'type': 'RReLU'"};
enum { RANDOM_LAYERS = sizeof random_layers / sizeof random_layers[0] };

static bool same(const gd_tensor *a, const float *b) {
    return memcmp(a->data, b, (size_t)gd_numel(&a->shape) * sizeof *b) == 0;
}

static void the_seed_decides(void **state) {
    (void)state;
    for (int k = 0; k < RANDOM_LAYERS; k++) {
        gd_tensor x = test_random(TEST_SHAPE(4, 50), 1);
        float first[200], second[200];
        for (int threads = 1; threads <= 3; threads += 2)
            for (int seed = 1; seed <= 2; seed++) {
                gd_engine *engine = test_engine(threads, 0);
                gd_model *model = model_of(engine, random_layers[k], "[50]", seed);
                gd_tensor y = forward(model, &x);
                if (threads == 1 && seed == 1)
                    memcpy(first, y.data, sizeof first);
                assert_true(same(&y, first) == (seed == 1));
                y = forward(model, &x);
                if (threads == 1 && seed == 1)
                    memcpy(second, y.data, sizeof second);
                assert_true(same(&y, second) == (seed == 1));
                assert_false(same(&y, first));
                gd_model_free(model);
                gd_engine_free(engine);
            }
        free(x.data);
    }
}

static void predict_and_eval_mode_draw_nothing(void **state) {
    (void)state;
    for (int k = 0; k < RANDOM_LAYERS; k++) {
        gd_engine *engine = test_engine(1, 0);
        gd_tensor x = test_random(TEST_SHAPE(4, 50), 1);
        float second[200];
        for (int round = 0; round < 2; round++) {
            gd_model *model = model_of(engine, random_layers[k], "[50]", 1);
            (void)forward(model, &x);
            if (round == 1) {
                const gd_tensor once = predict(model, &x);
                float predicted[200];
                memcpy(predicted, once.data, sizeof predicted);
                const gd_tensor twice = predict(model, &x);
                assert_true(same(&twice, predicted));
                train_mode(model, false);
                const gd_tensor evaluated = forward(model, &x);
                assert_true(same(&evaluated, predicted));
                train_mode(model, true);
            }
            const gd_tensor y = forward(model, &x);
            if (round == 0)
                memcpy(second, y.data, sizeof second);
            assert_true(same(&y, second));
            gd_model_free(model);
        }
        free(x.data);
        gd_engine_free(engine);
    }
}

static void in_eval_mode_dropout_leaves_its_input_and_no_trace(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        gd_engine *engine = test_engine(1, 0);
        gd_model *model = model_behind_linear(engine, random_layers[k], 20, 3);
        gd_tensor one = filled(TEST_SHAPE(1, 1), 1), values = test_random(TEST_SHAPE(20, 1), 7);
        test_set_parameter(model, "source.weight", &values);
        (void)forward(model, &one);
        assert_string_equal(gd_model_output_grad_fn(model, 0), k ? "AddBackward0" : "MulBackward0");
        train_mode(model, false);
        const gd_tensor y = forward(model, &one);
        assert_true(same(&y, values.data));
        assert_string_equal(gd_model_output_grad_fn(model, 0), "MmBackward0");
        free(one.data);
        free(values.data);
        gd_model_free(model);
        gd_engine_free(engine);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_are_those_of_torch),
        cmocka_unit_test(dropout_drops_p_of_all_and_scales_the_rest),
        cmocka_unit_test(dropout2d_drops_whole_channels),
        cmocka_unit_test(alpha_dropout_keeps_mean_and_variance),
        cmocka_unit_test(what_goes_back_is_masked_as_what_went_forward),
        cmocka_unit_test(rrelu_goes_back_with_the_slopes_it_drew),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(predict_and_eval_mode_draw_nothing),
        cmocka_unit_test(in_eval_mode_dropout_leaves_its_input_and_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
