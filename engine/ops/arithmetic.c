/* arithmetic.c -- functions of two inputs, or of an input and a number, with torch's broadcasting: torch.add,
 * sub, mul, div, pow, maximum, minimum.
 *
 * One function is one row of ROWS at the end: its value and its two derivatives as formulas of an element.
 * a, b: the inputs' elements; y: the output's; g: dL/dy; p: alpha. */
#include "engine/ops/broadcast.h"

typedef float value_formula(float a, float b, float p);
typedef float slope_formula(float a, float b, float y, float g, float p);

struct binary {
    double other; /* the second input; NAN: it is an input */
    double alpha;
};

#define OTHER(field, text) GD_FLOAT(struct binary, other, .nullable = true, .number = NAN, .doc = text)

static const gd_attr scaled_attrs[] = {
    OTHER(other, "a number instead of the second input"),
    GD_FLOAT(struct binary, alpha, .number = 1, .doc = "factor of the second input"),
};
static const gd_attr binary_attrs[] = {OTHER(other, "a number instead of the second input")};
static const gd_attr pow_attrs[] = {
    {.name = "exponent",
     .type = GD_ATTR_FLOAT,
     .offset = offsetof(struct binary, other),
     .min = -INFINITY,
     .max = INFINITY,
     .nullable = true,
     .number = NAN,
     .doc = "a number instead of the second input"},
};

static int binary_infer(gd_infer *infer, const char *attribute) {
    const struct binary *a = infer->attrs;
    if ((infer->input_count == 2) != isnan(a->other))
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, attribute,
                             "it takes either two inputs, or one and a number, %s; it was given %s",
                             attribute,
                             infer->input_count == 2 ? "both a second input and the number" : "neither");
    return gd_broadcast_infer(infer);
}

static int two_infer(gd_infer *infer) {
    return binary_infer(infer, "other");
}

static int pow_infer(gd_infer *infer) {
    return binary_infer(infer, "exponent");
}

/* The second input, or the number in its place as a tensor without axes. */
static gd_tensor second_of(const gd_call *call, float *number) {
    *number = (float)((const struct binary *)call->attrs)->other;
    return call->input_count == 2 ? call->inputs[1] : (gd_tensor){.dtype = GD_FLOAT32, .data = number};
}

static gd_broadcast begin(const gd_call *call, const gd_tensor *b) {
    const gd_shape *const shapes[] = {&call->inputs[0].shape, &b->shape};
    return gd_broadcast_begin(&call->outputs[0].shape, shapes, 2);
}

/* ---- loops: inlined into each function's own, where `f` and the steps are known --------------------- */

#define INLINE static inline __attribute__((always_inline))

INLINE void row_forward(value_formula *f, int64_t count, const float *a, int64_t a_step, const float *b,
                        int64_t b_step, float p, float *y) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] = f(a[i * a_step], b[i * b_step], p);
}

INLINE void forward(const gd_call *call, value_formula *f) {
    float number;
    const gd_tensor second = second_of(call, &number);
    const float p = (float)((const struct binary *)call->attrs)->alpha;
    gd_broadcast w = begin(call, &second);
    float *y = call->outputs[0].data;
    const int64_t count = w.size[0];
    for (int64_t r = 0; r < w.rows; r++, y += count, gd_broadcast_next(&w)) {
        const float *a = (const float *)call->inputs[0].data + w.offset[0];
        const float *b = (const float *)second.data + w.offset[1];
        if (w.step[0][0] && w.step[1][0])
            row_forward(f, count, a, 1, b, 1, p, y);
        else if (w.step[0][0])
            row_forward(f, count, a, 1, b, 0, p, y);
        else
            row_forward(f, count, a, 0, b, w.step[1][0], p, y);
    }
}

/* Where the input was repeated along the row its gradient is the row's sum. */
INLINE void row_backward(slope_formula *f, int64_t count, const float *a, int64_t a_step, const float *b,
                         int64_t b_step, const float *y, const float *g, float p, float *dx,
                         int64_t dx_step) {
    if (dx_step) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] += f(a[i * a_step], b[i * b_step], y[i], g[i], p);
        return;
    }
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++)
        sum += f(a[i * a_step], b[i * b_step], y[i], g[i], p);
    *dx += (float)sum;
}

/* Inputs of one shape, and nothing to add to. */
INLINE void row_slopes(slope_formula *f, int64_t count, const float *a, const float *b, const float *y,
                       const float *g, float p, float *dx) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        dx[i] = f(a[i], b[i], y[i], g[i], p);
}

/* dL/d(input `which`): what comes back through every place where an element was used. */
INLINE void backward(const gd_call *call, slope_formula *f, int which) {
    if (which >= call->input_count || !call->input_grads[which].data)
        return;
    if (which == 0 && call->input_grads[0].data == call->output_grads[0].data)
        return; /* GD_INPLACE is for those whose dL/da is g */
    float number;
    const gd_tensor second = second_of(call, &number);
    const float p = (float)((const struct binary *)call->attrs)->alpha;
    gd_broadcast w = begin(call, &second);
    const float *y = call->outputs[0].data, *g = call->output_grads[0].data;
    if (!call->accumulate[which] && w.rows == 1 && w.step[0][0] && w.step[1][0]) {
        row_slopes(f, w.size[0], call->inputs[0].data, second.data, y, g, p, call->input_grads[which].data);
        return;
    }
    if (!call->accumulate[which])
        memset(call->input_grads[which].data, 0, gd_tensor_bytes(&call->input_grads[which]));
    const int64_t count = w.size[0];
    for (int64_t r = 0; r < w.rows; r++, y += count, g += count, gd_broadcast_next(&w)) {
        const float *a = (const float *)call->inputs[0].data + w.offset[0];
        const float *b = (const float *)second.data + w.offset[1];
        float *dx = (float *)call->input_grads[which].data + w.offset[which];
        if (w.step[0][0] && w.step[1][0])
            row_backward(f, count, a, 1, b, 1, y, g, p, dx, 1);
        else if (w.step[0][0])
            row_backward(f, count, a, 1, b, 0, y, g, p, dx, which == 0);
        else
            row_backward(f, count, a, 0, b, w.step[1][0], y, g, p, dx, which == 1 && w.step[1][0]);
    }
}

/* ---- formulas: torch's, with its rules where two inputs tie and at the edges ------------------------ */

/* The gradient of a maximum or minimum: all of it, half of it where both are equal, none. */
INLINE float share(bool chosen, bool tie, float g) {
    return chosen ? tie ? g / 2 : g : 0;
}

/* name, value, dL/da, dL/db */
#define FORMULAS(X) \
    X(add, a + p * b, g, p * g) \
    X(sub, a - p * b, g, -p * g) \
    X(mul, a *b, g *b, g *a) \
    X(div, a / b, g / b, -g * (a / b) / b) \
    X(pow, powf(a, b), b == 0 ? 0 : g * b * powf(a, b - 1), a == 0 && b >= 0 ? 0 : g * y * logf(a)) \
    X(maximum, a > b || isnan(a) ? a : b, share(!(a < b), a == b, g), share(!(a > b), a == b, g)) \
    X(minimum, a < b || isnan(a) ? a : b, share(!(a > b), a == b, g), share(!(a < b), a == b, g))

#define X(name, value, da, db) \
    INLINE float name##_value(float a, float b, float p) { \
        (void)p; \
        return value; \
    } \
    INLINE float name##_da(float a, float b, float y, float g, float p) { \
        (void)a, (void)b, (void)y, (void)p; \
        return da; \
    } \
    INLINE float name##_db(float a, float b, float y, float g, float p) { \
        (void)a, (void)b, (void)y, (void)p; \
        return db; \
    } \
    static void name##_forward(const gd_call *call) { \
        forward(call, name##_value); \
    } \
    static void name##_backward(const gd_call *call) { \
        backward(call, name##_da, 0); \
        backward(call, name##_db, 1); \
    }
FORMULAS(X)
#undef X

/* ---- descriptors ------------------------------------------------------------------------------------ */

/* A number in the second input's place stands in torch's graph as None. */
#define GRAD_FN(op, node) \
    static int op##_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) { \
        (void)inputs; \
        const bool number = !isnan(((const struct binary *)attrs)->other); \
        nodes[0] = (gd_grad_fn){node, {GD_NEXT_INPUT(0), number ? GD_NEXT_NONE : GD_NEXT_INPUT(1)}, 2}; \
        return 1; \
    }
GRAD_FN(add, "AddBackward0")
GRAD_FN(sub, "SubBackward0")
GRAD_FN(mul, "MulBackward0")
GRAD_FN(div, "DivBackward0")
GRAD_FN(maximum, "MaximumBackward0")
GRAD_FN(minimum, "MinimumBackward0")

static int pow_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)inputs;
    nodes[0] = isnan(((const struct binary *)attrs)->other)
                   ? (gd_grad_fn){"PowBackward1", {GD_NEXT_INPUT(0), GD_NEXT_INPUT(1)}, 2}
                   : (gd_grad_fn){"PowBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

/* name, its attributes, infer, what backward reads or need not, documentation */
#define ROWS(X) \
    X(add, scaled_attrs, two_infer, GD_INPLACE, "Sum of two inputs, the second times alpha.") \
    X(sub, scaled_attrs, two_infer, GD_INPLACE, "Difference of two inputs, the second times alpha.") \
    X(mul, binary_attrs, two_infer, GD_SAVES_INPUT, "Product of two inputs.") \
    X(div, binary_attrs, two_infer, GD_SAVES_INPUT, "Quotient of two inputs.") \
    X(pow, pow_attrs, pow_infer, GD_SAVES_INPUT | GD_SAVES_OUTPUT, \
      "The first input to the power of the second.") \
    X(maximum, binary_attrs, two_infer, GD_SAVES_INPUT, "The larger of two inputs.") \
    X(minimum, binary_attrs, two_infer, GD_SAVES_INPUT, "The smaller of two inputs.")

#define X(name, table, check, saves, text) \
    const gd_op gd_op_##name = { \
        .kind = {.function = #name, .doc = text, GD_ATTRS(struct binary, table)}, \
        .min_inputs = 1, \
        .max_inputs = 2, \
        .flags = GD_BATCH | (saves), \
        .infer = check, \
        .forward = name##_forward, \
        .backward = name##_backward, \
        .grad_fn = name##_grad_fn, \
    };
ROWS(X)
#undef X
