/* unary.c -- functions of one input, element by element: torch.neg, exp, log, sqrt, rsqrt, abs, sin, cos,
 * clamp.
 *
 * One function is one row of FORMULAS and one of ROWS: its value and its derivative as formulas of an
 * element. x: the input's element; y: the output's; g: dL/dy; low, high: clamp's limits. */
#include "engine/graph/op.h"

typedef float value_formula(float x, float low, float high);
typedef float slope_formula(float x, float y, float g, float low, float high);

struct clamp {
    double min, max; /* NAN: none */
};

static const gd_attr clamp_attrs[] = {
    GD_FLOAT(struct clamp, min, .nullable = true, .number = NAN,
             .doc = "the least that comes out; null: no limit"),
    GD_FLOAT(struct clamp, max, .nullable = true, .number = NAN,
             .doc = "the most that comes out; null: no limit"),
};

static int unary_infer(gd_infer *infer) {
    infer->outputs[0] = infer->inputs[0];
    return 0;
}

static int clamp_infer(gd_infer *infer) {
    const struct clamp *a = infer->attrs;
    if (isnan(a->min) && isnan(a->max))
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "min", "it needs min or max or both");
    return unary_infer(infer);
}

/* No limit is an infinite one. */
static float low_of(const gd_call *call) {
    const struct clamp *a = call->attrs;
    return isnan(a->min) ? -INFINITY : (float)a->min;
}

static float high_of(const gd_call *call) {
    const struct clamp *a = call->attrs;
    return isnan(a->max) ? INFINITY : (float)a->max;
}

static float no_limit(const gd_call *call) {
    (void)call;
    return 0;
}

/* ---- loops: inlined into each function's own, where `f` is known ------------------------------------ */

#define INLINE static inline __attribute__((always_inline))

INLINE void forward(const gd_call *call, value_formula *f, float low, float high) {
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    const int64_t count = gd_numel(&call->outputs[0].shape);
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] = f(x[i], low, high);
}

INLINE void backward(const gd_call *call, slope_formula *f, float low, float high) {
    const float *x = call->inputs[0].data, *y = call->outputs[0].data, *g = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    const int64_t count = dx ? gd_numel(&call->outputs[0].shape) : 0;
    if (count && call->accumulate[0]) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] += f(x[i], y[i], g[i], low, high);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] = f(x[i], y[i], g[i], low, high);
    }
}

/* ---- formulas: torch's. NaN stays NaN; abs has no slope at 0, clamp has one at its limits ------------- */

/* The least of high and the larger of x and low; fminf and fmaxf would not be vectorised. */
INLINE float clamped(float x, float low, float high) {
    const float raised = x < low ? low : x;
    return raised > high ? high : raised;
}

/* name, value, dL/dx, clamp's limits */
#define FORMULAS(X) \
    X(neg, -x, -g, no_limit, no_limit) \
    X(exp, expf(x), g *y, no_limit, no_limit) \
    X(log, logf(x), g / x, no_limit, no_limit) \
    X(sqrt, sqrtf(x), g / (2 * y), no_limit, no_limit) \
    X(rsqrt, 1 / sqrtf(x), -0.5F * g * y * y * y, no_limit, no_limit) \
    X(abs, fabsf(x), x > 0 ? g : x < 0 ? -g : 0, no_limit, no_limit) \
    X(sin, sinf(x), g *cosf(x), no_limit, no_limit) \
    X(cos, cosf(x), -g *sinf(x), no_limit, no_limit) \
    X(clamp, clamped(x, low, high), x >= low && x <= high ? g : 0, low_of, high_of)

#define X(name, value, slope, low_limit, high_limit) \
    INLINE float name##_value(float x, float low, float high) { \
        (void)low, (void)high; \
        return value; \
    } \
    INLINE float name##_slope(float x, float y, float g, float low, float high) { \
        (void)x, (void)y, (void)low, (void)high; \
        return slope; \
    } \
    static void name##_forward(const gd_call *call) { \
        forward(call, name##_value, low_limit(call), high_limit(call)); \
    } \
    static void name##_backward(const gd_call *call) { \
        backward(call, name##_slope, low_limit(call), high_limit(call)); \
    }
FORMULAS(X)
#undef X

/* ---- descriptors ------------------------------------------------------------------------------------ */

/* name, torch's node, flags: what backward reads (in place where that is the output), documentation */
#define ROWS(X) \
    X(neg, "NegBackward0", GD_INPLACE, "-x, element by element.") \
    X(exp, "ExpBackward0", GD_INPLACE | GD_SAVES_OUTPUT, "e to the power of x, element by element.") \
    X(log, "LogBackward0", GD_SAVES_INPUT, "Natural logarithm, element by element.") \
    X(sqrt, "SqrtBackward0", GD_INPLACE | GD_SAVES_OUTPUT, "Square root, element by element.") \
    X(rsqrt, "RsqrtBackward0", GD_INPLACE | GD_SAVES_OUTPUT, "1 / sqrt(x), element by element.") \
    X(abs, "AbsBackward0", GD_SAVES_INPUT, "Absolute value, element by element.") \
    X(sin, "SinBackward0", GD_SAVES_INPUT, "Sine, element by element.") \
    X(cos, "CosBackward0", GD_SAVES_INPUT, "Cosine, element by element.")

#define X(name, node, what, text) \
    const gd_op gd_op_##name = { \
        .kind = {.function = #name, .doc = text}, \
        .min_inputs = 1, \
        .max_inputs = 1, \
        .flags = GD_BATCH | (what), \
        .infer = unary_infer, \
        .forward = name##_forward, \
        .backward = name##_backward, \
        .grad_name = node, \
    };
ROWS(X)
#undef X

const gd_op gd_op_clamp = {
    .kind = {.function = "clamp",
             .doc = "Values below min become min, above max max.",
             GD_ATTRS(struct clamp, clamp_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = clamp_infer,
    .forward = clamp_forward,
    .backward = clamp_backward,
    .grad_name = "ClampBackward1",
};
