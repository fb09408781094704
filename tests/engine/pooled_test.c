/* pooled_test.c -- a convolution and the max pooling behind it in one pass: against their formula in float64,
 * with every instruction set that this processor has, and in networks where they may and may not be joined.
 * Scratch is exactly as large as asked for, so that the sanitizer sees a step beyond it. */
#include <math.h>

#include "engine/core/shape.h"
#include "engine/graph/isa.h"
#include "tests/support.h"

/* ---- one pass ------------------------------------------------------------------------------------------ */

typedef struct pooled_case {
    int64_t batch, channels, filters, height, width;
} pooled_case;

/* Odd and even sizes, one window and many, blocks of filters and of channels that are not full. */
static const pooled_case cases[] = {
    {3, 1, 6, 32, 32}, {5, 6, 16, 15, 15}, {1, 1, 1, 4, 4},   {2, 1, 7, 5, 7},    {2, 2, 13, 9, 4},
    {2, 3, 5, 6, 70},  {1, 5, 3, 21, 37},  {3, 7, 11, 8, 13}, {2, 13, 15, 10, 9}, {1, 20, 2, 7, 36},
};

/* How the gradients are wanted, and of what. */
typedef struct manner {
    bool relu, accumulate, no_input, no_weight, predict;
} manner;
static const manner manners[] = {{0},
                                 {.relu = true},
                                 {.accumulate = true},
                                 {.relu = true, .no_input = true},
                                 {.relu = true, .no_weight = true},
                                 {.relu = true, .predict = true}};

enum { X, Y, WEIGHT, BIAS, TENSORS };
static const char *const names[] = {"dx", "y", "dweight", "dbias"};

/* What goes in, and what must come out: y, and the gradients of the others. */
typedef struct problem {
    gd_tensor value[TENSORS]; /* of y: its gradient */
    gd_tensor result[TENSORS], expected[TENSORS];
} problem;

static double product(const pooled_case *c, const problem *p, int64_t n, int64_t f, int64_t row,
                      int64_t column) {
    double sum = ((const float *)p->value[BIAS].data)[f];
    for (int64_t t = 0; t < c->channels * 9; t++) {
        const int64_t pixel =
            ((n * c->channels + t / 9) * c->height + row + t / 3 % 3) * c->width + column + t % 3;
        sum += (double)((const float *)p->value[WEIGHT].data)[f * c->channels * 9 + t] *
               ((const float *)p->value[X].data)[pixel];
    }
    return sum;
}

static void send_back(const pooled_case *c, const problem *p, int64_t n, int64_t f, int64_t row,
                      int64_t column, double g, double *const sums[TENSORS]) {
    sums[BIAS][f] += g;
    for (int64_t t = 0; t < c->channels * 9; t++) {
        const int64_t w = f * c->channels * 9 + t;
        const int64_t pixel =
            ((n * c->channels + t / 9) * c->height + row + t / 3 % 3) * c->width + column + t % 3;
        sums[WEIGHT][w] += g * ((const float *)p->value[X].data)[pixel];
        sums[X][pixel] += g * ((const float *)p->value[WEIGHT].data)[w];
    }
}

/* The largest of each window, and its gradient back to what it was made of. */
static void compute_expected(const pooled_case *c, const problem *p, bool relu, double *const sums[TENSORS]) {
    const int64_t rows = p->value[Y].shape.dim[2], columns = p->value[Y].shape.dim[3];
    for (int64_t at = 0; at < gd_numel(&p->value[Y].shape); at++) {
        const int64_t q = at % columns, r = at / columns % rows, f = at / columns / rows % c->filters;
        const int64_t n = at / columns / rows / c->filters;
        double max = -INFINITY;
        int64_t best = 0;
        for (int64_t e = 0; e < 4; e++) {
            const double y = product(c, p, n, f, 2 * r + e / 2, 2 * q + e % 2);
            best = y > max ? e : best;
            max = y > max ? y : max;
        }
        sums[Y][at] = relu && max < 0 ? 0 : max;
        if (!relu || max > 0)
            send_back(c, p, n, f, 2 * r + best / 2, 2 * q + best % 2, ((const float *)p->value[Y].data)[at],
                      sums);
    }
}

/* Results begin as random numbers that gradients are added to, or that are overwritten. */
static void prepare(const pooled_case *c, const manner *how, problem *p) {
    const gd_shape shapes[] = {
        TEST_SHAPE(c->batch, c->channels, c->height, c->width),
        TEST_SHAPE(c->batch, c->filters, (c->height - 2) / 2, (c->width - 2) / 2),
        TEST_SHAPE(c->filters, c->channels, 3, 3),
        TEST_SHAPE(c->filters),
    };
    double *sums[TENSORS];
    for (uint64_t i = 0; i < TENSORS; i++) {
        p->value[i] = test_random(shapes[i], 2 * i);
        p->result[i] = test_random(shapes[i], 2 * i + 1);
        p->expected[i] = test_random(shapes[i], 2 * i + 1);
        sums[i] = calloc((size_t)gd_numel(&shapes[i]), sizeof(double));
        assert_non_null(sums[i]);
    }
    compute_expected(c, p, how->relu, sums);
    const bool left[TENSORS] = {how->no_input || how->predict, false, how->no_weight || how->predict,
                                how->no_weight || how->predict};
    for (int i = 0; i < TENSORS; i++) {
        float *expected = p->expected[i].data;
        for (int64_t e = 0; !left[i] && e < gd_numel(&shapes[i]); e++)
            expected[e] = (float)(sums[i][e] + (i > Y || (i == X && how->accumulate) ? expected[e] : 0));
        free(sums[i]);
    }
}

static void *attributes(const gd_op *op, const pooled_case *c, gd_arena *arena) {
    const gd_field fields[] = {
        {"in_channels", {.kind = GD_VALUE_INT, .integer = c->channels}},
        {"out_channels", {.kind = GD_VALUE_INT, .integer = c->filters}},
        {"kernel_size", {.kind = GD_VALUE_INT, .integer = 3}},
    };
    void *attrs = gd_arena_alloc(arena, 1, op->kind.attr_size);
    gd_error error = GD_ERROR_INIT;
    assert_non_null(attrs);
    test_ok(gd_attrs_parse(&op->kind, fields, GD_COUNT(fields), "the layer", arena, attrs, &error), &error);
    return attrs;
}

/* What the pooling would save. */
static gd_tensor saved_by(const gd_op *pool, const gd_shape *input, gd_arena *arena) {
    const gd_field fields[] = {{"kernel_size", {.kind = GD_VALUE_INT, .integer = 2}}};
    void *attrs = gd_arena_alloc(arena, 1, pool->kind.attr_size);
    gd_error error = GD_ERROR_INIT;
    assert_non_null(attrs);
    test_ok(gd_attrs_parse(&pool->kind, fields, 1, "the layer", arena, attrs, &error), &error);
    gd_infer infer = {.attrs = attrs, .inputs = input, .input_count = 1, .output_count = 1, .error = &error};
    test_ok(pool->infer(&infer), &error);
    assert_true(infer.pools_2x2);
    gd_tensor saved = infer.saved[0];
    saved.data = malloc(gd_tensor_bytes(&saved));
    assert_non_null(saved.data);
    return saved;
}

static void compute(const gd_op *conv, const gd_op *pool, const pooled_case *c, const manner *how,
                    problem *p) {
    gd_arena arena = {0};
    gd_error error = GD_ERROR_INIT;
    gd_infer infer = {
        .attrs = attributes(conv, c, &arena),
        .inputs = &p->value[X].shape,
        .input_count = 1,
        .output_count = 1,
        .error = &error
    };
    test_ok(conv->infer(&infer), &error);
    assert_true(infer.may_pool);
    gd_pooling pooling = {.output = p->result[Y],
                          .output_grad = p->value[Y],
                          .which = saved_by(pool, &infer.outputs[0], &arena),
                          .relu = how->relu};
    gd_tensor input_grad = p->result[X], param_grads[] = {p->result[WEIGHT], p->result[BIAS]};
    const gd_tensor unseen = {.dtype = GD_FLOAT32, .shape = infer.outputs[0]};
    uint8_t *which = pooling.which.data;
    input_grad.data = how->no_input ? NULL : input_grad.data;
    for (int i = 0; i < 2 && how->no_weight; i++)
        param_grads[i].data = NULL;
    pooling.which.data = how->predict ? NULL : which;
    void *scratch = malloc(infer.scratch);
    assert_non_null(scratch);
    memset(scratch, -1, infer.scratch); /* NaN */
    const gd_call call = {
        .attrs = infer.attrs,
        .inputs = &p->value[X],
        .outputs = &unseen,
        .params = &p->value[WEIGHT],
        .input_grads = &input_grad,
        .param_grads = param_grads,
        .pooling = &pooling,
        .accumulate = &how->accumulate,
        .input_count = 1,
        .scratch = scratch,
    };
    conv->forward(&call);
    memset(scratch, -1, infer.scratch);
    if (!how->predict)
        conv->backward(&call);
    free(scratch);
    free(which);
    gd_arena_release(&arena);
}

static void every_shape_agrees_with_the_formula(void **state) {
    const gd_isa *isa;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_isa_choose(*state, &isa, &error), &error);
    for (size_t i = 0; i < GD_COUNT(cases); i++)
        for (size_t k = 0; k < GD_COUNT(manners); k++) {
            problem p;
            prepare(&cases[i], &manners[k], &p);
            compute(test_op(isa, "Conv2d"), test_op(isa, "MaxPool2d"), &cases[i], &manners[k], &p);
            for (int t = 0; t < TENSORS; t++) {
                char what[96];
                snprintf(what, sizeof what, "%s of case %zu, manner %zu", names[t], i, k);
                test_close(&p.expected[t], &p.result[t], 1e-5, what);
                free(p.value[t].data);
                free(p.result[t].data);
                free(p.expected[t].data);
            }
        }
}

/* ---- networks ---------------------------------------------------------------------------------------- */

#define CONV(name) "{'type': 'Conv2d', 'name': '" name "', 'out_channels': 6, 'kernel_size': 3}"
#define POOL "{'type': 'max_pool2d', 'kernel_size': 2}"
#define RELU "{'type': 'relu'}"
#define TANH "{'type': 'tanh'}"

/* Layers between the first convolution and the last. */
static const char *const networks[] = {
    POOL,
    RELU ", " POOL,
    POOL ", " RELU,
    POOL ", " POOL,
    RELU ", " POOL ", " POOL,
    RELU ", " RELU ", " POOL,
    RELU ", " POOL ", " CONV("again") ", " POOL,
    TANH ", " POOL,
    "{'type': 'max_pool2d', 'kernel_size': 2, 'ceil_mode': true}",
};

/* What a network says and sends back. */
typedef struct passed {
    gd_engine *engine;
    gd_model *model;
    gd_tensor outputs[GD_MAX_HEADS];
} passed;

static passed pass(const char *middle, const char *outputs, const gd_tensor *input, float *predicted) {
    static const char layers[] =
        "{'name': 'net', 'seed': 3, 'input': {'shape': [2, 23, 20]}, 'outputs': %s, 'layers': "
        "[" CONV(
            "first") ", %s, {'type': 'flatten'}, {'type': 'Linear', 'name': 'last', 'out_features': 3}]}";
    char text[2048];
    gd_error error = GD_ERROR_INIT;
    gd_tensor gradients[GD_MAX_HEADS] = {{0}};
    passed p = {.engine = test_engine(1, 0)};
    snprintf(text, sizeof text, layers, outputs, middle);
    p.model = test_model(p.engine, test_json(text));
    test_ok(gd_model_predict(p.model, input, 1, p.outputs, &error), &error);
    memcpy(predicted, p.outputs[0].data, gd_tensor_bytes(&p.outputs[0]));
    test_ok(gd_model_forward(p.model, input, 1, p.outputs, &error), &error);
    gradients[0] = test_random(p.outputs[0].shape, 5);
    test_ok(gd_model_backward(p.model, gradients, false, &error), &error);
    free(gradients[0].data);
    return p;
}

/* A network whose first layer's output is looked at cannot do without it, and is the same otherwise. */
static void networks_are_the_same_joined_or_not(void **state) {
    (void)state;
    enum { BATCH = 7, CLASSES = 3 };
    gd_tensor input = test_random(TEST_SHAPE(BATCH, 2, 23, 20), 1);
    for (size_t i = 0; i < GD_COUNT(networks); i++) {
        float predicted[2][BATCH * CLASSES];
        passed joined = pass(networks[i], "['last']", &input, predicted[0]);
        passed seen = pass(networks[i], "['last', 'first']", &input, predicted[1]);
        test_close(&seen.outputs[0], &joined.outputs[0], 1e-5, networks[i]);
        test_close_values(predicted[1], predicted[0], BATCH * CLASSES, 1e-5, networks[i]);
        for (size_t k = 0; k < gd_model_parameter_count(seen.model); k++) {
            const gd_parameter *a = gd_model_parameter(seen.model, k),
                               *b = gd_model_parameter(joined.model, k);
            test_close_values(a->grad, b->grad, a->numel, 1e-5, networks[i]);
        }
        passed *const both[] = {&joined, &seen};
        for (int k = 0; k < 2; k++) {
            gd_model_free(both[k]->model);
            gd_engine_free(both[k]->engine);
        }
    }
    free(input.data);
}

int main(void) {
    struct CMUnitTest tests[8] = {cmocka_unit_test(networks_are_the_same_joined_or_not)};
    size_t count = 1;
    for (const char *name; count < GD_COUNT(tests) && (name = gd_cpu_features_at(count - 1)); count++)
        tests[count] = (struct CMUnitTest){.name = name,
                                           .test_func = every_shape_agrees_with_the_formula,
                                           .initial_state = (void *)(uintptr_t)name};
    return _cmocka_run_group_tests("pooled", tests, count, NULL, NULL);
}
