/* conv_test.c -- convolutions against their formula in float64, on shapes that kernels may stumble over and
 * with every instruction set that this processor has. Scratch is exactly as large as asked for, so that the
 * sanitizer sees a step beyond it. */
#include <math.h>

#include "engine/core/shape.h"
#include "engine/graph/isa.h"
#include "tests/support.h"

/* Of a Conv2d. */
typedef struct conv_case {
    int64_t batch, channels, filters, groups;
    int64_t in[2], kernel[2], stride[2], padding[2], dilation[2];
} conv_case;

static const conv_case cases[] = {
    {1, 1, 6, 1, {32, 32}, {3, 3}, {1, 1}, {0, 0}, {1, 1}},
    {5, 1, 7, 1, {10, 10}, {3, 3}, {1, 1}, {0, 0}, {1, 1}},
    {5, 6, 16, 1, {15, 15}, {3, 3}, {1, 1}, {0, 0}, {1, 1}},
    {1, 3, 7, 1, {9, 13}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {5, 7, 1, 1, {4, 30}, {5, 5}, {1, 1}, {2, 2}, {1, 1}},
    {2, 2, 3, 1, {8, 32}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {2, 2, 3, 1, {8, 9}, {1, 1}, {1, 1}, {2, 2}, {1, 1}},
    {2, 5, 4, 1, {9, 13}, {3, 1}, {1, 1}, {0, 0}, {1, 1}},
    {2, 5, 19, 1, {3, 19}, {1, 7}, {1, 1}, {0, 3}, {1, 1}},
    {3, 33, 34, 1, {8, 8}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {2, 4, 5, 1, {7, 4}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {2, 4, 11, 1, {3, 3}, {3, 3}, {1, 1}, {0, 0}, {1, 1}},
    {2, 4, 9, 1, {2, 2}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {2, 3, 17, 1, {11, 24}, {3, 3}, {1, 1}, {1, 1}, {2, 3}},
    {2, 3, 8, 1, {11, 24}, {3, 2}, {2, 1}, {1, 0}, {1, 1}},
    {3, 3, 8, 1, {17, 33}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {3, 3, 8, 1, {16, 32}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {2, 5, 12, 1, {16, 36}, {1, 1}, {2, 2}, {0, 0}, {1, 1}},
    {2, 2, 6, 1, {20, 61}, {5, 4}, {3, 3}, {2, 1}, {1, 2}},
    {2, 2, 6, 1, {9, 40}, {2, 2}, {2, 2}, {0, 0}, {1, 1}},
    {2, 6, 8, 2, {9, 18}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {2, 8, 8, 8, {9, 18}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {2, 4, 48, 2, {9, 18}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {1, 150, 3, 1, {4, 16}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    /* Winograd's: even and odd sizes, borders of 0, 1 and 2, chunks of part of a sample and of several */
    {2, 16, 16, 1, {8, 8}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {9, 17, 20, 1, {9, 11}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {2, 16, 33, 1, {13, 10}, {3, 3}, {1, 1}, {2, 2}, {1, 1}},
    {2, 19, 16, 1, {10, 35}, {3, 3}, {1, 1}, {0, 0}, {1, 1}},
    {1, 16, 17, 1, {9, 150}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {3, 34, 36, 2, {12, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {2, 70, 50, 1, {8, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    /* Steps: phases with and without taps, borders and windows that end before the image or beyond it */
    {3, 16, 32, 1, {16, 16}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {2, 17, 40, 1, {15, 18}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {2, 16, 24, 1, {9, 12}, {1, 1}, {2, 2}, {0, 0}, {1, 1}},
    {2, 9, 50, 1, {11, 14}, {3, 2}, {3, 4}, {2, 1}, {1, 1}},
    {2, 12, 18, 1, {20, 13}, {3, 4}, {2, 3}, {3, 2}, {3, 2}},
    {2, 24, 20, 2, {9, 35}, {5, 3}, {1, 2}, {0, 5}, {1, 1}},
    {1, 10, 9, 1, {11, 11}, {2, 2}, {5, 5}, {0, 0}, {1, 1}},
    {2, 8, 16, 1, {4, 5}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
};

enum { X, Y, WEIGHT, BIAS, TENSORS };
static const char *const names[] = {"dx", "y", "dweight", "dbias"};

/* What goes in, and what must come out: y and the gradients of the others. */
typedef struct problem {
    gd_tensor value[TENSORS]; /* of y: its gradient */
    gd_tensor result[TENSORS], expected[TENSORS];
} problem;

static gd_field ints(const char *name, const int64_t numbers[2]) {
    return (gd_field){name, {.kind = GD_VALUE_INTS, .count = 2, .ints = numbers}};
}

static void *attributes(const gd_op *op, const conv_case *c, gd_arena *arena) {
    const gd_field fields[] = {
        {"in_channels", {.kind = GD_VALUE_INT, .integer = c->channels}},
        {"out_channels", {.kind = GD_VALUE_INT, .integer = c->filters}},
        {"groups", {.kind = GD_VALUE_INT, .integer = c->groups}},
        ints("kernel_size", c->kernel),
        ints("stride", c->stride),
        ints("padding", c->padding),
        ints("dilation", c->dilation),
    };
    void *attrs = gd_arena_alloc(arena, 1, op->kind.attr_size);
    gd_error error = GD_ERROR_INIT;
    assert_non_null(attrs);
    test_ok(gd_attrs_parse(&op->kind, fields, GD_COUNT(fields), "the layer", arena, attrs, &error), &error);
    return attrs;
}

/* ---- the formula ------------------------------------------------------------------------------------ */

/* sums[...] in float64: each product of a weight and a pixel goes into y and, times dy, into the gradients.
 */
static void convolve(const conv_case *c, const problem *p, double *const sums[TENSORS]) {
    const float *x = p->value[X].data, *dy = p->value[Y].data, *weight = p->value[WEIGHT].data;
    const int64_t *out = p->value[Y].shape.dim + 2, *k = c->kernel;
    const int64_t channels = c->channels / c->groups, filters = c->filters / c->groups;
    for (int64_t at = 0; at < gd_numel(&p->value[Y].shape); at++) {
        const int64_t q = at % out[1], r = at / out[1] % out[0], f = at / (out[0] * out[1]) % c->filters;
        const int64_t n = at / (out[0] * out[1] * c->filters);
        sums[BIAS][f] += dy[at];
        sums[Y][at] += ((const float *)p->value[BIAS].data)[f];
        for (int64_t t = 0; t < channels * k[0] * k[1]; t++) {
            const int64_t channel = f / filters * channels + t / (k[0] * k[1]);
            const int64_t i = r * c->stride[0] + t / k[1] % k[0] * c->dilation[0] - c->padding[0];
            const int64_t j = q * c->stride[1] + t % k[1] * c->dilation[1] - c->padding[1];
            if (i < 0 || i >= c->in[0] || j < 0 || j >= c->in[1])
                continue;
            const int64_t pixel = ((n * c->channels + channel) * c->in[0] + i) * c->in[1] + j;
            const int64_t w = f * channels * k[0] * k[1] + t;
            sums[Y][at] += (double)weight[w] * x[pixel];
            sums[X][pixel] += (double)weight[w] * dy[at];
            sums[WEIGHT][w] += (double)x[pixel] * dy[at];
        }
    }
}

/* Results begin as random numbers that gradients are added to, or that are overwritten. */
static void prepare(const conv_case *c, const gd_infer *infer, bool accumulate, problem *p) {
    const gd_shape shapes[] = {infer->inputs[0], infer->outputs[0], infer->params[0].shape,
                               infer->params[1].shape};
    double *sums[TENSORS];
    for (uint64_t i = 0; i < TENSORS; i++) {
        p->value[i] = test_random(shapes[i], 2 * i);
        p->result[i] = test_random(shapes[i], 2 * i + 1);
        p->expected[i] = test_random(shapes[i], 2 * i + 1);
        sums[i] = calloc((size_t)gd_numel(&shapes[i]), sizeof(double));
        assert_non_null(sums[i]);
    }
    convolve(c, p, sums);
    for (int i = 0; i < TENSORS; i++) {
        float *expected = p->expected[i].data;
        for (int64_t e = 0; e < gd_numel(&shapes[i]); e++)
            expected[e] = (float)(sums[i][e] + (i > Y || (i == X && accumulate) ? expected[e] : 0));
        free(sums[i]);
    }
}

/* ---- the op ----------------------------------------------------------------------------------------- */

static void compute(const gd_op *op, const gd_infer *infer, bool accumulate, problem *p) {
    void *scratch = malloc(infer->scratch);
    assert_non_null(scratch);
    memset(scratch, -1, infer->scratch); /* NaN */
    const gd_call call = {
        .attrs = infer->attrs,
        .inputs = &p->value[X],
        .outputs = &p->result[Y],
        .params = &p->value[WEIGHT],
        .input_grads = &p->result[X],
        .output_grads = &p->value[Y],
        .param_grads = &p->result[WEIGHT],
        .accumulate = &accumulate,
        .input_count = 1,
        .scratch = scratch,
    };
    op->forward(&call);
    op->backward(&call);
    free(scratch);
}

static void check(const gd_op *op, const conv_case *c, bool accumulate) {
    gd_arena arena = {0};
    gd_error error = GD_ERROR_INIT;
    const gd_shape input = TEST_SHAPE(c->batch, c->channels, c->in[0], c->in[1]);
    gd_infer infer = {.attrs = attributes(op, c, &arena),
                      .inputs = &input,
                      .input_count = 1,
                      .output_count = 1,
                      .error = &error};
    problem p;
    test_ok(op->infer(&infer), &error);
    prepare(c, &infer, accumulate, &p);
    compute(op, &infer, accumulate, &p);
    for (int i = 0; i < TENSORS; i++) {
        char what[96];
        snprintf(what, sizeof what, "%s of case %d", names[i], (int)(c - cases));
        test_close(&p.expected[i], &p.result[i], 1e-5, what);
        free(p.value[i].data);
        free(p.result[i].data);
        free(p.expected[i].data);
    }
    gd_arena_release(&arena);
}

static void every_shape_agrees_with_the_formula(void **state) {
    const gd_isa *isa;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_isa_choose(*state, &isa, &error), &error);
    for (size_t i = 0; i < GD_COUNT(cases); i++)
        for (int accumulate = 0; accumulate < 2; accumulate++)
            check(test_op(isa, "Conv2d"), &cases[i], accumulate);
}

int main(void) {
    struct CMUnitTest tests[8];
    size_t count = 0;
    for (const char *name; count < GD_COUNT(tests) && (name = gd_cpu_features_at(count)); count++)
        tests[count] = (struct CMUnitTest){.name = name,
                                           .test_func = every_shape_agrees_with_the_formula,
                                           .initial_state = (void *)(uintptr_t)name};
    return _cmocka_run_group_tests("conv", tests, count, NULL, NULL);
}
