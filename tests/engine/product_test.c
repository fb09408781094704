/* product_test.c -- the kernels of matrix products against sums in double, at awkward sizes. */
#include "engine/graph/isa.h"
#include "engine/graph/op.h"
#include "engine/kernels/product.h"
#include "engine/kernels/rows.h"
#include "tests/support.h"

enum { MOST = 540, MOST_ROWS = 640, MOST_BIAS = 1100 };

typedef struct matrices {
    float a[MOST * MOST], b[MOST * MOST], c[MOST * MOST], expected[MOST * MOST], bias[MOST_BIAS];
} matrices;

static float number(uint32_t *state) {
    *state = *state * 1664525U + 1013904223U;
    return (float)(*state >> 8) / (1 << 24) - 0.5F;
}

/* Random operands; expected[i, j] (row-major, m x n) = the product. */
static void fill(matrices *x, int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b) {
    uint32_t seed = (uint32_t)(m * 31 + n * 7 + k);
    for (int64_t i = 0; i < m * k; i++)
        x->a[i] = number(&seed);
    for (int64_t i = 0; i < k * n; i++)
        x->b[i] = number(&seed);
    for (int64_t i = 0; i < m * (n + 1); i++)
        x->c[i] = number(&seed);
    for (int64_t i = 0; i < MOST_ROWS; i++)
        x->bias[i] = number(&seed);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)a.at[i * a.row + l * a.column] * b.at[l * b.row + j * b.column];
            x->expected[i * n + j] = (float)sum;
        }
}

static const int64_t sizes[][3] = {{1, 1, 1},      {5, 16, 3},     {6, 16, 256},  {7, 17, 257},
                                   {12, 15, 8},    {13, 33, 64},   {64, 64, 100}, {70, 65, 1},
                                   {3, 130, 40},   {257, 9, 20},   {18, 31, 29},  {120, 64, 84},
                                   {299, 70, 261}, {50, 299, 270}, {72, 96, 300}, {640, 96, 40},
                                   {20, 640, 40},  {40, 288, 290}, {3, 288, 290}, {260, 5, 1100}};

static void near(float expected, float actual, int64_t k, const int64_t *size) {
    if (!(fabsf(expected - actual) <= 1e-6F * (float)(k + 10)))
        fail_msg("%d x %d x %d: %.9g, should be %.9g", (int)size[0], (int)size[1], (int)size[2],
                 (double)actual, (double)expected);
}

static void a_product_is_the_sum_of_products(void **state) {
    matrices *x = malloc(sizeof *x);
    (void)state;
    for (size_t t = 0; t < GD_COUNT(sizes); t++)
        for (int form = 0; form < 8; form++) {
            const int64_t m = sizes[t][0], n = sizes[t][1], k = sizes[t][2], c_row = n + 1;
            const bool accumulate = form & 4;
            const gd_operand a = {x->a, form & 1 ? 1 : k, form & 1 ? m : 1};
            const gd_operand b = {x->b, form & 2 ? 1 : n, form & 2 ? k : 1};
            fill(x, m, n, k, a, b);
            float *before = malloc(sizeof x->c);
            memcpy(before, x->c, sizeof x->c);
            gd_product(m, n, k, a, b, x->c, c_row, accumulate);
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < c_row; j++) {
                    const float was = before[i * c_row + j];
                    const float wanted = j == n ? was : x->expected[i * n + j] + (accumulate ? was : 0);
                    near(wanted, x->c[i * c_row + j], j == n ? -10 : k, sizes[t]);
                }
            free(before);
        }
    free(x);
}

/* Where the gate is 0, which it is at about half of the places, so is C; 1 beside it. */
static void a_gate_lets_a_gradient_through_or_not(void **state) {
    matrices *x = malloc(sizeof *x);
    (void)state;
    for (size_t t = 0; t < GD_COUNT(sizes); t++)
        for (int form = 0; form < 2; form++) {
            const int64_t m = sizes[t][0], n = sizes[t][1], k = sizes[t][2], c_row = n + 1;
            const gd_operand a = {x->a, k, 1}, b = {x->b, form & 1 ? 1 : n, form & 1 ? k : 1};
            float *gate = malloc(sizeof x->c);
            fill(x, m, n, k, a, b);
            for (int64_t i = 0; i < m * c_row; i++) {
                gate[i] = x->c[i] <= 0 ? 0 : x->c[i];
                x->c[i] = 1;
            }
            gd_product_gated(m, n, k, a, b, gate, x->c, c_row);
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < c_row; j++) {
                    const float open = gate[i * c_row + j] > 0 ? 1 : 0;
                    near(j == n ? 1 : x->expected[i * n + j] * open, x->c[i * c_row + j],
                         j == n || open == 0 ? -10 : k, sizes[t]);
                }
            free(gate);
        }
    free(x);
}

/* At the same sizes, where what is beside C's columns must stay; and one whose A is copied several strips at
 * once. */
static void every_instruction_set_multiplies(void **state) {
    matrices *x = malloc(sizeof *x);
    const gd_isa *isa;
    const char *name;
    (void)state;
    for (size_t set = 0; (name = gd_cpu_features_at(set)); set++)
        for (size_t t = 0; t < GD_COUNT(sizes); t++)
            for (int form = 0; form < 8; form++) {
                const int64_t m = sizes[t][0], n = sizes[t][1], k = sizes[t][2], c_row = n + 1;
                const bool a_turned = form & 1, b_turned = form & 2, accumulate = form & 4;
                test_ok(gd_isa_choose(name, &isa, NULL), NULL);
                fill(x, m, n, k, (gd_operand){x->a, a_turned ? 1 : k, a_turned ? m : 1},
                     (gd_operand){x->b, b_turned ? 1 : n, b_turned ? k : 1});
                for (int64_t i = 0; i < m * c_row; i++)
                    x->c[i] = 1;
                isa->gemm(a_turned, b_turned, m, n, k, x->a, a_turned ? m : k, x->b, b_turned ? k : n, x->c,
                          c_row, accumulate);
                for (int64_t i = 0; i < m; i++)
                    for (int64_t j = 0; j < c_row; j++)
                        near(j == n ? 1 : x->expected[i * n + j] + (accumulate ? 1 : 0), x->c[i * c_row + j],
                             j == n ? -10 : k, sizes[t]);
            }
    free(x);
}

static void a_transposed_product_takes_bias_and_relu(void **state) {
    matrices *x = malloc(sizeof *x);
    (void)state;
    for (size_t t = 0; t < GD_COUNT(sizes); t++)
        for (int form = 0; form < 8; form++) {
            const int64_t m = sizes[t][0], n = sizes[t][1], k = sizes[t][2];
            const gd_operand a = {x->a, k, 1}, b = {x->b, form & 1 ? 1 : n, form & 1 ? k : 1};
            const float *bias = form & 2 ? x->bias : NULL;
            fill(x, m, n, k, a, b);
            gd_product_transposed(m, n, k, a, b, bias, form & 4, x->c, m);
            for (int64_t j = 0; j < n; j++)
                for (int64_t i = 0; i < m; i++) {
                    const float y = x->expected[i * n + j] + (bias ? bias[i] : 0);
                    near(form & 4 && y < 0 ? 0 : y, x->c[j * m + i], k, sizes[t]);
                }
        }
    free(x);
}

static void a_product_takes_bias_and_relu(void **state) {
    matrices *x = malloc(sizeof *x);
    (void)state;
    for (size_t t = 0; t < GD_COUNT(sizes); t++)
        for (int form = 0; form < 8; form++) {
            const int64_t m = sizes[t][0], n = sizes[t][1], k = sizes[t][2], c_row = n + 1;
            const gd_operand a = {x->a, k, 1}, b = {x->b, form & 1 ? 1 : n, form & 1 ? k : 1};
            const float *bias = form & 2 ? x->bias : NULL;
            fill(x, m, n, k, a, b);
            for (int64_t i = 0; i < m * c_row; i++)
                x->c[i] = 1;
            gd_product_affine(m, n, k, a, b, bias, form & 4, x->c, c_row);
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < c_row; j++) {
                    const float y = j == n ? 1 : x->expected[i * n + j] + (bias ? bias[j] : 0);
                    near(form & 4 && y < 0 ? 0 : y, x->c[i * c_row + j], j == n ? -10 : k, sizes[t]);
                }
        }
    free(x);
}

/* ---- large weights ---------------------------------------------------------------------------------- */

/* Of the weight, rows or columns; of the batch; depth: steps and strips that are not whole, and several
 * blocks along each. */
static const int64_t large_sizes[][3] = {{260, 70, 1100}, {16, 64, 32}, {17, 33, 31}, {35, 130, 100},
                                         {1050, 40, 64},  {5, 32, 1},   {130, 20, 70}};

typedef struct large_product {
    const gd_isa *isa;
    int64_t count, side, depth;
    bool turned; /* gd_product_transposed(), the weight being on the left; else gd_product_gated() */
} large_product;

/* x->c = the product of x->a and x->b, as (batch, weight). The gate is x->expected. */
static void multiply_large(const large_product *p, matrices *x, const float *bias, bool relu,
                           const float *gate) {
    const gd_operand weight = {p->turned ? x->a : x->b, p->turned ? p->depth : p->count, 1, .large = true};
    if (p->turned)
        p->isa->product_transposed(p->count, p->side, p->depth, weight, (gd_operand){x->b, 1, p->depth}, bias,
                                   relu, x->c, p->count);
    else
        p->isa->product_gated(p->side, p->count, p->depth, (gd_operand){x->a, p->depth, 1}, weight, gate,
                              x->c, p->count);
}

/* @return its element, in double @param ret_size of what it is a sum of */
static double large_element(const large_product *p, const matrices *x, int64_t sample, int64_t feature,
                            double *ret_size) {
    double sum = 0;
    *ret_size = 0;
    for (int64_t l = 0; l < p->depth; l++) {
        const double w = p->turned ? x->a[feature * p->depth + l] : x->b[l * p->count + feature];
        const double term = w * (p->turned ? x->b[sample * p->depth + l] : x->a[sample * p->depth + l]);
        sum += term;
        *ret_size += fabs(term);
    }
    return sum;
}

static void for_each_large_product(void (*check)(const large_product *p, matrices *x)) {
    matrices *x = malloc(sizeof *x);
    const char *name;
    for (size_t set = 0; (name = gd_cpu_features_at(set)); set++)
        for (size_t t = 0; t < 2 * GD_COUNT(large_sizes); t++) {
            const int64_t *size = large_sizes[t / 2];
            large_product p = {.count = size[0], .side = size[1], .depth = size[2], .turned = t % 2};
            uint32_t seed = (uint32_t)t;
            test_ok(gd_isa_choose(name, &p.isa, NULL), NULL);
            for (size_t i = 0; i < GD_COUNT(x->a); i++) {
                x->a[i] = number(&seed) * (1 + 1000 * (float)(i % 3)); /* of several sizes */
                x->b[i] = number(&seed);
                x->c[i] = 1;
            }
            check(&p, x);
        }
    free(x);
}

/* As good as sums of floats: 2^-24 of their sizes for every rounding, which partly cancel out. */
static void is_as_good_as_floats(const large_product *p, matrices *x) {
    double errors = 0;
    multiply_large(p, x, NULL, false, NULL);
    for (int64_t i = 0; i < p->side; i++)
        for (int64_t j = 0; j < p->count; j++) {
            double size;
            const double error = x->c[i * p->count + j] - large_element(p, x, i, j, &size);
            if (!(fabs(error) <= 1e-6 * size))
                fail_msg("%s: %d x %d x %d: off by %.3g of %.3g", p->isa->name, (int)p->count, (int)p->side,
                         (int)p->depth, fabs(error), size);
            errors += error * error / (size * size);
        }
    if (!(sqrt(errors / (double)(p->side * p->count)) <= 1e-7))
        fail_msg("%s: off by %.3g on an average", p->isa->name, sqrt(errors / (double)(p->side * p->count)));
    assert_float_equal(x->c[p->side * p->count], 1, 0); /* behind the last row */
}

static void a_large_weight_is_multiplied_as_well(void **state) {
    (void)state;
    for_each_large_product(is_as_good_as_floats);
}

static void takes_bias_relu_or_gate(const large_product *p, matrices *x) {
    uint32_t seed = 7;
    for (int64_t i = 0; i < p->count * p->side; i++)
        x->expected[i] = i % 5 ? number(&seed) : 0;
    for (int64_t i = 0; i < MOST_BIAS; i++)
        x->bias[i] = number(&seed);
    multiply_large(p, x, x->bias, true, x->expected);
    for (int64_t i = 0; i < p->side; i++)
        for (int64_t j = 0; j < p->count; j++) {
            double size;
            const double y = large_element(p, x, i, j, &size) + (p->turned ? x->bias[j] : 0);
            const bool open = p->turned ? y > 0 : x->expected[i * p->count + j] > 0;
            const float c = x->c[i * p->count + j];
            if (!(fabs(c - (open ? y : 0)) <= 1e-6 * (size + fabs(y))))
                fail_msg("%s: %.9g, should be %.9g", p->isa->name, (double)c, open ? y : 0);
        }
}

static void a_large_weight_takes_bias_relu_or_gate(void **state) {
    (void)state;
    for_each_large_product(takes_bias_relu_or_gate);
}

/* What meets an infinity or NaN is what floats make of it, and nothing else is touched. */
static void stays_what_floats_make_of_it(const large_product *p, matrices *x) {
    for (int in_batch = 0; in_batch < 2; in_batch++) {
        float *to = p->turned == !in_batch ? x->a : x->b; /* the first is at the beginning of either */
        const float was[] = {to[0], to[p->depth / 2]};
        to[0] = INFINITY;
        to[p->depth / 2] = NAN;
        multiply_large(p, x, NULL, false, NULL);
        for (int64_t i = 0; i < p->side; i++)
            for (int64_t j = 0; j < p->count; j++) {
                double size;
                const double y = large_element(p, x, i, j, &size);
                const float c = x->c[i * p->count + j];
                if (isnan(y) ? !isnan(c) : isinf(y) ? c != (float)y : !(fabs(c - y) <= 1e-6 * size))
                    fail_msg("%s: %.9g, should be %.9g", p->isa->name, (double)c, y);
            }
        to[0] = was[0];
        to[p->depth / 2] = was[1];
    }
}

static void a_large_weight_may_be_infinite(void **state) {
    (void)state;
    for_each_large_product(stays_what_floats_make_of_it);
}

static void few_rows_need_no_packing(void **state) {
    matrices *x = malloc(sizeof *x);
    (void)state;
    for (int64_t rows = 1; rows <= GD_FEW_ROWS; rows++) {
        const int64_t out = 37, in = 70, size[] = {rows, out, in};
        const gd_operand input = {x->a, in, 1}, transposed = {x->b, 1, in};
        fill(x, rows, out, in, input, transposed);
        gd_rows_forward(rows, out, in, x->a, in, x->b, x->bias, x->c, out);
        for (int64_t i = 0; i < rows * out; i++)
            near(x->expected[i] + x->bias[i % out], x->c[i], in, size);
        fill(x, rows, in, out, (gd_operand){x->a, out, 1}, (gd_operand){x->b, in, 1});
        gd_rows_backward(rows, out, in, x->a, x->b, in, false, x->c);
        gd_rows_backward(rows, out, in, x->a, x->b, in, true, x->c);
        for (int64_t i = 0; i < rows * in; i++)
            near(2 * x->expected[i], x->c[i], 2 * out, size);
        fill(x, out, in, rows, (gd_operand){x->a, 1, out}, (gd_operand){x->b, in, 1});
        gd_rows_weight(rows, out, in, x->a, out, x->b, false, x->c);
        gd_rows_weight(rows, out, in, x->a, out, x->b, true, x->c);
        for (int64_t i = 0; i < out * in; i++)
            near(2 * x->expected[i], x->c[i], 2 * rows, size);
    }
    free(x);
}

typedef struct followed {
    const matrices *x;
    const int64_t *size;
    int taken[MOST * MOST];
} followed;

static void take(const gd_follower *follower, int64_t from, int64_t count) {
    followed *f = (followed *)(uintptr_t)follower->context;
    for (int64_t i = from; i < from + count; i++) {
        near(f->x->expected[i], f->x->c[i], f->size[2], f->size);
        f->taken[i]++;
    }
}

static void a_follower_takes_each_element_once_when_it_is_complete(void **state) {
    static const int64_t large[][3] = {{100, 290, 300}, {40, 1100, 70}, {30, 600, 128}};
    matrices *x = malloc(sizeof *x);
    followed *f = malloc(sizeof *f);
    (void)state;
    for (size_t t = 0; t < GD_COUNT(sizes) + GD_COUNT(large); t++)
        for (int turned = 0; turned < 2; turned++) {
            const int64_t *size = t < GD_COUNT(sizes) ? sizes[t] : large[t - GD_COUNT(sizes)];
            const int64_t m = size[0], n = size[1], k = size[2];
            const gd_operand a = {x->a, turned ? 1 : k, turned ? m : 1}, b = {x->b, n, 1};
            *f = (followed){.x = x, .size = size};
            const gd_follower follower = {.take = take, .reads = {x->bias}, .read_count = 1, .context = f};
            fill(x, m, n, k, a, b);
            gd_product_followed(m, n, k, a, b, x->c, false, &follower);
            for (int64_t i = 0; i < MOST * MOST; i++)
                assert_int_equal(f->taken[i], i < m * n);
        }
    free(f);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_product_is_the_sum_of_products),
        cmocka_unit_test(every_instruction_set_multiplies),
        cmocka_unit_test(a_transposed_product_takes_bias_and_relu),
        cmocka_unit_test(a_product_takes_bias_and_relu),
        cmocka_unit_test(a_gate_lets_a_gradient_through_or_not),
        cmocka_unit_test(a_large_weight_is_multiplied_as_well),
        cmocka_unit_test(a_large_weight_takes_bias_relu_or_gate),
        cmocka_unit_test(a_large_weight_may_be_infinite),
        cmocka_unit_test(few_rows_need_no_packing),
        cmocka_unit_test(a_follower_takes_each_element_once_when_it_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
