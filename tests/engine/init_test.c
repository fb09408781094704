/* init_test.c -- parameters begin with PyTorch's bits, and so do the random numbers behind them. */
#include "engine/core/normal.h"
#include "tests/support.h"

static void same_bits(const gd_tensor *expected, const void *actual, const char *what) {
    const unsigned char *a = expected->data, *b = actual;
    size_t size = (size_t)gd_numel(&expected->shape) * gd_dtype_size(expected->dtype);
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i])
            fail_msg("%s: element %zu differs", what, i / gd_dtype_size(expected->dtype));
}

static void lenet_begins_as_in_torch_bit_for_bit(void **state) {
    (void)state;
    test_golden golden;
    test_golden_open(&golden, "lenet_init.safetensors");
    gd_engine *engine = test_engine(1, 0);
    gd_model *model = test_model(engine, test_lenet(NULL, NULL));
    assert_int_equal(gd_model_parameter_count(model), 10);
    assert_int_equal(golden.tensors.count, 10);
    for (size_t i = 0; i < 10; i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        gd_tensor expected = test_golden_get(&golden, "%s", parameter->name);
        assert_true(gd_shape_equal(&expected.shape, &parameter->shape));
        same_bits(&expected, parameter->data, parameter->name);
        assert_true(parameter->requires_grad);
        assert_false(parameter->has_grad);
        assert_false(parameter->buffer);
    }
    gd_model_free(model);
    gd_engine_free(engine);
    test_golden_close(&golden);
}

/* The layers of init.json in a row, each fed with an input of its own. */
static json_t *layers_of_init(int64_t seed) {
    json_t *rows = test_golden_json("init.json"), *layers = json_array(), *inputs = json_object();
    for (size_t i = 0; i < json_object_size(rows); i++) {
        char key[32];
        snprintf(key, sizeof key, "%zu", i);
        json_t *row = json_object_get(rows, key), *layer = json_copy(json_object_get(row, "layer"));
        snprintf(key, sizeof key, "x%zu", i);
        json_object_set_new(inputs, key,
                            json_pack("{s:O, s:s}", "shape", json_object_get(row, "shape"), "dtype",
                                      json_object_get(json_object_get(row, "layer"), "num_embeddings")
                                          ? "int64"
                                          : "float32"));
        json_object_set_new(layer, "inputs", json_pack("[o]", json_sprintf("@x%zu", i)));
        json_array_append_new(layers, layer);
    }
    json_decref(rows);
    return json_pack("{s:s, s:I, s:o, s:o}", "name", "init", "seed", (json_int_t)seed, "inputs", inputs,
                     "layers", layers);
}

static void other_layers_begin_as_in_torch_for_any_seed(void **state) {
    (void)state;
    static const int64_t seeds[] = {0, 1, 4294967295, 123456789012345};
    test_golden golden;
    test_golden_open(&golden, "init.safetensors");
    gd_engine *engine = test_engine(1, 0);
    for (size_t s = 0; s < sizeof seeds / sizeof seeds[0]; s++) {
        gd_model *model = test_model(engine, layers_of_init(seeds[s]));
        for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
            const gd_parameter *parameter = gd_model_parameter(model, i);
            gd_tensor expected =
                test_golden_get(&golden, "seed_%lld/%s", (long long)seeds[s], parameter->name);
            assert_true(gd_shape_equal(&expected.shape, &parameter->shape));
            same_bits(&expected, parameter->data, parameter->name);
        }
        gd_model_free(model);
    }
    gd_engine_free(engine);
    test_golden_close(&golden);
}

/* Sixteen and more at a time; fewer, of which an odd one is kept for the next; and more again. */
static void compare_normal(const test_golden *golden, gd_rng *rng, int seed) {
    static const int counts[] = {1000, 16, 5, 33, 4, 1, 15};
    float values[1000];
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        gd_tensor normal = test_golden_get(golden, "seed_%d/normal_%d", seed, counts[i]);
        assert_int_equal(gd_numel(&normal.shape), counts[i]);
        gd_rng_normal(rng, values, counts[i]);
        same_bits(&normal, values, "normal");
    }
}

static void the_generator_draws_what_torch_draws(void **state) {
    (void)state;
    static const int seeds[] = {0, 12345};
    test_golden golden;
    test_golden_open(&golden, "rng.safetensors");
    for (size_t s = 0; s < 2; s++) {
        gd_rng rng;
        gd_tensor words = test_golden_get(&golden, "seed_%d/u32", seeds[s]);
        gd_rng_seed(&rng, (uint64_t)seeds[s]);
        for (int64_t i = 0; i < gd_numel(&words.shape); i++)
            assert_int_equal(gd_rng_u32(&rng), ((const int64_t *)words.data)[i]);
        gd_tensor uniform = test_golden_get(&golden, "seed_%d/uniform", seeds[s]);
        float values[1000];
        assert_int_equal(gd_numel(&uniform.shape), 1000);
        gd_rng_seed(&rng, (uint64_t)seeds[s]);
        gd_rng_uniform(&rng, values, 1000, 0, 1);
        same_bits(&uniform, values, "uniform");
        gd_rng_seed(&rng, (uint64_t)seeds[s]);
        compare_normal(&golden, &rng, seeds[s]);
    }
    test_golden_close(&golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lenet_begins_as_in_torch_bit_for_bit),
        cmocka_unit_test(other_layers_begin_as_in_torch_for_any_seed),
        cmocka_unit_test(the_generator_draws_what_torch_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
