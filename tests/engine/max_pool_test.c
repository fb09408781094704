/* max_pool_test.c -- 2x2 windows side by side, which have a kernel of their own: rows of every length, ties
 * and NaN, with every instruction set that this processor has. */
#include <math.h>

#include "engine/core/shape.h"
#include "engine/graph/isa.h"
#include "engine/kernels/pool.h"
#include "tests/support.h"

enum { PLANES = 3, HEIGHT = 5, WIDEST = 80 };

/* Few different values, so that windows have ties, and some NaN. */
static gd_tensor ties(gd_shape shape, uint64_t seed) {
    gd_tensor x = test_random(shape, seed);
    float *value = x.data;
    for (int64_t i = 0; i < gd_numel(&shape); i++)
        value[i] = value[i] > 1.5F ? NAN : roundf(value[i]);
    return x;
}

/* The first of the largest; the last NaN, if there is one. */
static int64_t winner(const float *plane, int64_t width, int64_t p, int64_t q) {
    int64_t best = 2 * p * width + 2 * q;
    for (int64_t i = 1; i < 4; i++) {
        const int64_t at = (2 * p + i / 2) * width + 2 * q + i % 2;
        if (plane[at] > plane[best] || isnan(plane[at]))
            best = at;
    }
    return best;
}

/* How the gradient is wanted: added to what is there; through a ReLU whose output x is. */
typedef struct manner {
    bool accumulate, relu;
} manner;

static void compute(const gd_op *op, void *attrs, manner how, gd_tensor *x, gd_tensor *y, gd_tensor *dy,
                    gd_tensor *dx) {
    gd_error error = GD_ERROR_INIT;
    gd_infer infer = {
        .attrs = attrs, .inputs = &x->shape, .input_count = 1, .output_count = 1, .error = &error};
    test_ok(op->infer(&infer), &error);
    assert_int_equal(infer.saved_count, 1);
    gd_tensor saved = infer.saved[0];
    saved.data = calloc(1, gd_tensor_bytes(&saved));
    assert_non_null(saved.data);
    const gd_call call = {.attrs = attrs,
                          .inputs = x,
                          .outputs = y,
                          .saved = &saved,
                          .input_grads = dx,
                          .output_grads = dy,
                          .accumulate = &how.accumulate,
                          .relu = how.relu,
                          .input_count = 1};
    op->forward(&call);
    op->backward(&call);
    free(saved.data);
}

static void check(const gd_op *op, void *attrs, manner how, int64_t width) {
    const gd_shape in = TEST_SHAPE(1, PLANES, HEIGHT, width),
                   out = TEST_SHAPE(1, PLANES, HEIGHT / 2, width / 2);
    gd_tensor x = ties(in, (uint64_t)width), y = test_random(out, 1), dy = test_random(out, 2);
    gd_tensor dx = test_random(in, 3), expected = test_random(out, 1), gradient = test_random(in, 3);
    if (!how.accumulate)
        memset(gradient.data, 0, gd_tensor_bytes(&gradient));
    for (int64_t at = 0; at < gd_numel(&out); at++) {
        const int64_t q = at % (width / 2), p = at / (width / 2) % (HEIGHT / 2);
        const int64_t first = at / (width / 2 * (HEIGHT / 2)) * HEIGHT * width;
        const int64_t best = first + winner((const float *)x.data + first, width, p, q);
        const float max = ((const float *)x.data)[best];
        ((float *)expected.data)[at] = max;
        if (!(how.relu && max <= 0))
            ((float *)gradient.data)[best] += ((const float *)dy.data)[at];
    }
    compute(op, attrs, how, &x, &y, &dy, &dx);
    test_close(&expected, &y, 0, "y");
    test_close(&gradient, &dx, 0, "dx");
    gd_tensor *const all[] = {&x, &y, &dy, &dx, &expected, &gradient};
    for (size_t i = 0; i < GD_COUNT(all); i++)
        free(all[i]->data);
}

static void rows_of_every_length_take_the_first_maximum(void **state) {
    const gd_isa *isa;
    gd_arena arena = {0};
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_isa_choose(*state, &isa, &error), &error);
    const gd_op *op = test_op(isa, "MaxPool2d");
    const gd_field fields[] = {{"kernel_size", {.kind = GD_VALUE_INT, .integer = 2}}};
    void *attrs = gd_arena_alloc(&arena, 1, op->kind.attr_size);
    assert_non_null(attrs);
    test_ok(gd_attrs_parse(&op->kind, fields, 1, "the layer", &arena, attrs, &error), &error);
    for (int64_t width = 2; width <= WIDEST; width++)
        for (int how = 0; how < 4; how++)
            check(op, attrs, (manner){.accumulate = how & 1, .relu = how & 2}, width);
    gd_arena_release(&arena);
}

/* Windows of any kind: where the largest is a ReLU's 0, nothing goes back. */
static void other_windows_go_back_through_a_relu_too(void **state) {
    (void)state;
    const gd_window w = {.in = {1, 1, 3}, .out = {1, 1, 2}};
    const float y[] = {0, 2}, dy[] = {5, 7};
    const int32_t argmax[] = {0, 1};
    float dx[3] = {0}, rectified[3] = {0};
    gd_max_pool_backward(&w, 1, NULL, dy, argmax, dx);
    gd_max_pool_backward(&w, 1, y, dy, argmax, rectified);
    assert_true(dx[0] == 5 && dx[1] == 7 && dx[2] == 0);
    assert_true(rectified[0] == 0 && rectified[1] == 7 && rectified[2] == 0);
}

int main(void) {
    struct CMUnitTest tests[8] = {cmocka_unit_test(other_windows_go_back_through_a_relu_too)};
    size_t count = 1;
    for (const char *name; count < GD_COUNT(tests) && (name = gd_cpu_features_at(count - 1)); count++)
        tests[count] = (struct CMUnitTest){.name = name,
                                           .test_func = rows_of_every_length_take_the_first_maximum,
                                           .initial_state = (void *)(uintptr_t)name};
    return _cmocka_run_group_tests("max_pool", tests, count, NULL, NULL);
}
