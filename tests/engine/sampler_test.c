/* sampler_test.c -- a generator shuffles as torch.randperm does, and goes on from its state. Expected values:
 * PyTorch 1.13.1,
 *
 *     g = torch.Generator().manual_seed(SEED)
 *     for _ in range(CALLS):
 *         p = torch.randperm(COUNT, generator=g)
 *         print(p[:8].tolist(), int((p * torch.arange(COUNT)).sum()))
 */
#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

static gd_generator *generator_of(uint64_t seed) {
    gd_generator *generator = gd_generator_new(seed);
    assert_non_null(generator);
    return generator;
}

static void expect_permutation(gd_generator *generator, int64_t count, const int64_t *expected) {
    int64_t order[16];
    gd_generator_permute(generator, count, order);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(order[i], expected[i]);
}

static void permutations_of_one_generator_are_torchs(void **state) {
    (void)state;
    gd_generator *generator = generator_of(0);
    expect_permutation(generator, 10, (int64_t[]){4, 1, 7, 5, 3, 9, 0, 8, 6, 2});
    expect_permutation(generator, 10, (int64_t[]){3, 9, 4, 2, 7, 8, 6, 0, 5, 1});
    gd_generator_free(generator);
}

static void a_permutation_of_one_draws_nothing(void **state) {
    (void)state;
    gd_generator *generator = generator_of(UINT32_MAX);
    expect_permutation(generator, 5, (int64_t[]){1, 3, 4, 2, 0});
    expect_permutation(generator, 1, (int64_t[]){0});
    expect_permutation(generator, 0, NULL);
    expect_permutation(generator, 5, (int64_t[]){0, 1, 3, 2, 4});
    gd_generator_free(generator);
}

/* As manual_seed(2^32 + 5) and manual_seed(5) do in torch. */
static void the_low_32_bits_of_a_seed_count(void **state) {
    (void)state;
    int64_t a[100], b[100];
    gd_generator *large = generator_of((UINT64_C(1) << 32) + 5), *small = generator_of(5);
    gd_generator_permute(large, 100, a);
    gd_generator_permute(small, 100, b);
    assert_memory_equal(a, b, sizeof a);
    gd_generator_free(large);
    gd_generator_free(small);
}

static void three_epochs_of_mnist_are_torchs(void **state) {
    (void)state;
    enum { COUNT = 60000 };
    static const struct {
        int64_t first[8], sum;
    } expected[] = {
        {{36044, 10678, 57327, 55074, 21567, 15479, 9481, 43095}, 53969758505953},
        {{27953, 38120, 7367, 44667, 1513, 24140, 14424, 14285}, 53956073985299},
        {{21389, 51492, 48269, 26716, 3385, 59164, 3985, 52227}, 53999066587995},
    };
    int64_t *order = test_calloc(COUNT, sizeof *order);
    gd_generator *generator = generator_of(0);
    for (size_t epoch = 0; epoch < 3; epoch++) {
        int64_t sum = 0;
        gd_generator_permute(generator, COUNT, order);
        for (int64_t i = 0; i < COUNT; i++)
            sum += i * order[i];
        assert_memory_equal(order, expected[epoch].first, sizeof expected[epoch].first);
        assert_int_equal(sum, expected[epoch].sum);
    }
    gd_generator_free(generator);
    test_free(order);
}

static void a_generator_goes_on_from_its_state(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    int64_t expected[COUNT], order[COUNT];
    size_t size;
    gd_error error = GD_ERROR_INIT;
    gd_generator *one = generator_of(1), *other = generator_of(2);
    gd_generator_permute(one, 777, order);
    const void *bytes = gd_generator_state(one, &size);
    char *copy = test_malloc(size + 1);
    memcpy(copy + 1, bytes, size); /* unaligned, as it may be in a file */
    gd_generator_permute(one, COUNT, expected);
    test_ok(gd_generator_set_state(other, copy + 1, size, &error), &error);
    gd_generator_permute(other, COUNT, order);
    assert_memory_equal(order, expected, sizeof expected);
    test_free(copy);
    gd_generator_free(one);
    gd_generator_free(other);
}

static void what_is_no_state_is_refused(void **state) {
    (void)state;
    static const int32_t places[] = {-1, 625, INT32_MIN, INT32_MAX};
    int64_t expected[20], order[20];
    size_t size;
    gd_generator *one = generator_of(3), *other = generator_of(3);
    gd_error error = GD_ERROR_INIT;
    char *bytes = test_malloc(4096);
    const void *now = gd_generator_state(one, &size);
    memcpy(bytes, now, size);
    assert_int_equal(gd_generator_set_state(one, bytes, size - 1, &error), GD_E_VALUE);
    assert_string_equal(error.message, "a generator's state has 2500 bytes, not 2499");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        memset(bytes, 7, size);
        memcpy(bytes + size - sizeof *places, &places[i], sizeof *places);
        assert_int_equal(gd_generator_set_state(one, bytes, size, NULL), GD_E_VALUE);
    }
    gd_generator_permute(one, 20, order);
    gd_generator_permute(other, 20, expected);
    assert_memory_equal(order, expected, sizeof expected);
    test_free(bytes);
    gd_generator_free(one);
    gd_generator_free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permutations_of_one_generator_are_torchs),
        cmocka_unit_test(a_permutation_of_one_draws_nothing),
        cmocka_unit_test(the_low_32_bits_of_a_seed_count),
        cmocka_unit_test(three_epochs_of_mnist_are_torchs),
        cmocka_unit_test(a_generator_goes_on_from_its_state),
        cmocka_unit_test(what_is_no_state_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
