/* sampler_test.c -- gradctl shuffles as torch.randperm does. Expected values: PyTorch 1.13.1,
 *
 *     g = torch.Generator().manual_seed(SEED)
 *     for _ in range(CALLS):
 *         p = torch.randperm(COUNT, generator=g)
 *         print(p[:8].tolist(), int((p * torch.arange(COUNT)).sum()))
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h wants the three above first */
#include <cmocka.h>

#include "clients/ctl/sampler.h"

static void assert_permutation(ctl_generator *generator, int64_t count, const int64_t *expected) {
    int64_t order[16];
    ctl_randperm(generator, count, order);
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(order[i], expected[i]);
    }
}

static void permutations_of_one_generator_are_torchs(void **state) {
    (void)state;
    ctl_generator generator;
    ctl_generator_seed(&generator, 0);
    assert_permutation(&generator, 10, (int64_t[]){4, 1, 7, 5, 3, 9, 0, 8, 6, 2});
    assert_permutation(&generator, 10, (int64_t[]){3, 9, 4, 2, 7, 8, 6, 0, 5, 1});
}

static void a_permutation_of_one_draws_nothing(void **state) {
    (void)state;
    ctl_generator generator;
    ctl_generator_seed(&generator, UINT32_MAX);
    assert_permutation(&generator, 5, (int64_t[]){1, 3, 4, 2, 0});
    assert_permutation(&generator, 1, (int64_t[]){0});
    assert_permutation(&generator, 0, NULL);
    assert_permutation(&generator, 5, (int64_t[]){0, 1, 3, 2, 4});
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
    ctl_generator generator;
    ctl_generator_seed(&generator, 0);
    for (size_t epoch = 0; epoch < 3; epoch++) {
        int64_t sum = 0;
        ctl_randperm(&generator, COUNT, order);
        for (int64_t i = 0; i < COUNT; i++) {
            sum += i * order[i];
        }
        assert_memory_equal(order, expected[epoch].first, sizeof expected[epoch].first);
        assert_int_equal(sum, expected[epoch].sum);
    }
    test_free(order);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permutations_of_one_generator_are_torchs),
        cmocka_unit_test(a_permutation_of_one_draws_nothing),
        cmocka_unit_test(three_epochs_of_mnist_are_torchs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
