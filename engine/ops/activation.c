/* activation.c -- functions of one element. Formulas: the torch.nn module of each row's name. */
#include "engine/kernels/math.h"

#include "engine/graph/op.h"

/* One struct for all of them: an op's table lists those it has. */
struct activation {
    double negative_slope, alpha, lambd, beta, threshold, value, min_val, max_val;
    int approximate;
    bool inplace;
};

#define INPLACE \
    GD_BOOL(struct activation, inplace, .doc = "accepted as in torch; memory is shared where it can be")

static const gd_attr inplace_attrs[] = {INPLACE};
static const gd_attr leaky_relu_attrs[] = {
    GD_FLOAT(struct activation, negative_slope, .number = 0.01, .doc = "factor of negative elements"),
    INPLACE,
};
static const gd_attr elu_attrs[] = {
    GD_FLOAT(struct activation, alpha, .number = 1, .doc = "minus the limit at minus infinity"),
    INPLACE,
};
static const gd_attr hardtanh_attrs[] = {
    GD_FLOAT(struct activation, min_val, .number = -1, .doc = "smallest output"),
    GD_FLOAT(struct activation, max_val, .number = 1, .doc = "largest output"),
    INPLACE,
};
static const gd_attr softplus_attrs[] = {
    GD_FLOAT(struct activation, beta, .number = 1, .doc = "steepness of the bend"),
    GD_FLOAT(struct activation, threshold, .number = 20, .doc = "the identity where beta x is above it"),
};
static const gd_attr softshrink_attrs[] = {
    GD_FLOAT(struct activation, lambd, .number = 0.5, .min = 0, .doc = "how far elements move towards 0"),
};
static const gd_attr hardshrink_attrs[] = {
    GD_FLOAT(struct activation, lambd, .number = 0.5, .doc = "elements up to it, in size, become 0"),
};
static const gd_attr threshold_attrs[] = {
    GD_FLOAT(struct activation, threshold, .required = true, .doc = "elements up to it are replaced"),
    GD_FLOAT(struct activation, value, .required = true, .doc = "what replaces them"),
    INPLACE,
};
static const char *const approximations[] = {"none", "tanh", NULL};
static const gd_attr gelu_attrs[] = {
    GD_CHOICE(struct activation, approximate, .choices = approximations,
              .doc = "the normal distribution exactly, or by tanh"),
};

/* ---- loops ------------------------------------------------------------------------------------------ */

/* Attributes as float32, so that loops hold no conversions. Those an op has not are 0. */
typedef struct constants {
    float negative_slope, alpha, lambd, beta, threshold, value, min_val, max_val;
} constants;

static constants constants_of(const gd_call *call) {
    const struct activation *a = call->attrs;
    return (constants){
        .negative_slope = (float)a->negative_slope,
        .alpha = (float)a->alpha,
        .lambd = (float)a->lambd,
        .beta = (float)a->beta,
        .threshold = (float)a->threshold,
        .value = (float)a->value,
        .min_val = (float)a->min_val,
        .max_val = (float)a->max_val,
    };
}

/* What backward looks at: the input x, or the output y where that tells enough; then an op before it may
 * be overwritten. */
#define SOURCE_x inputs
#define SOURCE_y outputs
#define FLAGS_x GD_SAVES_INPUT
#define FLAGS_y GD_SAVES_OUTPUT

/* FORWARD is y, of x and the constants k; GRADIENT is dL/dx, of g = dL/dy, of SEEN (x or y) and k. Element
 * i of an output or gradient may lie where element i of the input or of the output's gradient does. */
#define LOOPS(NAME, SEEN, FORWARD, GRADIENT) \
    static void NAME##_forward(const gd_call *call) { \
        const constants k = constants_of(call); \
        const float *from = call->inputs[0].data; \
        float *to = call->outputs[0].data; \
        const int64_t count = gd_numel(&call->outputs[0].shape); \
        (void)k; \
        _Pragma("omp simd") for (int64_t i = 0; i < count; i++) { \
            const float x = from[i]; \
            to[i] = (FORWARD); \
        } \
    } \
    static void NAME##_backward(const gd_call *call) { \
        const constants k = constants_of(call); \
        const float *from = call->SOURCE_##SEEN[0].data, *dy = call->output_grads[0].data; \
        float *dx = call->input_grads[0].data; \
        const int64_t count = dx ? gd_numel(&call->outputs[0].shape) : 0; \
        (void)k; \
        if (count && call->accumulate[0]) { \
            _Pragma("omp simd") for (int64_t i = 0; i < count; i++) { \
                const float SEEN = from[i], g = dy[i]; \
                dx[i] += (GRADIENT); \
            } \
        } else { \
            _Pragma("omp simd") for (int64_t i = 0; i < count; i++) { \
                const float SEEN = from[i], g = dy[i]; \
                dx[i] = (GRADIENT); \
            } \
        } \
    }

/* ---- descriptors ------------------------------------------------------------------------------------ */

static int same_shape(gd_infer *infer) {
    infer->outputs[0] = infer->inputs[0];
    return 0;
}

/* A list of attributes in repr: the first without a comma before it. */
static void repr_float(FILE *out, const char *name, double value) {
    fputs(name, out);
    gd_repr_float(out, value);
}

/* torch's default is an integer and stays one in repr. */
static void repr_number(FILE *out, const char *name, double value) {
    if (value == nearbyint(value) && fabs(value) < 1e15)
        fprintf(out, "%s%.0f", name, value);
    else
        repr_float(out, name, value);
}

static void repr_inplace(FILE *out, const void *attrs) {
    if (((const struct activation *)attrs)->inplace)
        fputs("inplace=True", out);
}

static void repr_inplace_last(FILE *out, const void *attrs) {
    if (((const struct activation *)attrs)->inplace)
        fputs(", inplace=True", out);
}

/* The rest are further fields of the descriptor. */
#define DESCRIPTOR(NAME, MODULE, GRAD_NAME, DOC, SEEN, ...) \
    const gd_op gd_op_##NAME = {.kind = {.module = (MODULE), \
                                         .function = #NAME, \
                                         .doc = (DOC), \
                                         .attr_size = sizeof(struct activation)}, \
                                .min_inputs = 1, \
                                .max_inputs = 1, \
                                .flags = GD_BATCH | GD_INPLACE | FLAGS_##SEEN, \
                                .infer = same_shape, \
                                .forward = NAME##_forward, \
                                .backward = NAME##_backward, \
                                .grad_name = (GRAD_NAME), \
                                __VA_ARGS__};
#define WITH(TABLE) .kind.attrs = (TABLE), .kind.attr_count = GD_COUNT(TABLE)

/* A row: torch's names, documentation, what backward sees, y, dL/dx, and further fields. */
#define ACTIVATION(NAME, MODULE, GRAD_NAME, DOC, SEEN, FORWARD, GRADIENT, ...) \
    LOOPS(NAME, SEEN, FORWARD, GRADIENT) \
    DESCRIPTOR(NAME, MODULE, GRAD_NAME, DOC, SEEN, __VA_ARGS__)

/* Where torch's in-place form has a name of its own. */
#define GRAD_NAME_IN_PLACE(NAME, ROOT) \
    static int NAME##_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) { \
        const bool inplace = ((const struct activation *)attrs)->inplace; \
        (void)inputs; \
        nodes[0] = (gd_grad_fn){inplace ? ROOT "Backward1" : ROOT "Backward0", {GD_NEXT_INPUT(0)}, 1}; \
        return 1; \
    }

/* ---- rectifiers ------------------------------------------------------------------------------------- */

/* Comparisons are written so that NaN stays NaN, and gradients at the bends are torch's. */

ACTIVATION(relu, "ReLU", "ReluBackward0", "max(x, 0), element by element.", y, x <= 0 ? 0 : x, y <= 0 ? 0 : g,
           .flags = GD_BATCH | GD_INPLACE | FLAGS_y | GD_RELU, WITH(inplace_attrs), .repr = repr_inplace)

GD_INLINE float clamp(float x, float min, float max) {
    x = x < min ? min : x;
    return x > max ? max : x;
}

ACTIVATION(relu6, "ReLU6", "HardtanhBackward0", "min(max(x, 0), 6), element by element.", y, clamp(x, 0, 6),
           y <= 0 || y >= 6 ? 0 : g, WITH(inplace_attrs), .repr = repr_inplace)

static void leaky_relu_repr(FILE *out, const void *attrs) {
    repr_float(out, "negative_slope=", ((const struct activation *)attrs)->negative_slope);
    repr_inplace_last(out, attrs);
}
GRAD_NAME_IN_PLACE(leaky_relu, "LeakyRelu")
ACTIVATION(leaky_relu, "LeakyReLU", NULL, "x where it is positive, else negative_slope x.", x,
           x > 0 ? x : x * k.negative_slope, x > 0 ? g : g * k.negative_slope, WITH(leaky_relu_attrs),
           .repr = leaky_relu_repr, .grad_fn = leaky_relu_grad_fn)

static int hardtanh_infer(gd_infer *infer) {
    const struct activation *a = infer->attrs;
    if (!(a->max_val > a->min_val))
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "max_val",
                             "max_val must be greater than min_val, %.10g, not %.10g", a->min_val,
                             a->max_val);
    return same_shape(infer);
}
static void hardtanh_repr(FILE *out, const void *attrs) {
    repr_float(out, "min_val=", ((const struct activation *)attrs)->min_val);
    repr_float(out, ", max_val=", ((const struct activation *)attrs)->max_val);
    repr_inplace_last(out, attrs);
}
ACTIVATION(hardtanh, "Hardtanh", "HardtanhBackward0", "min(max(x, min_val), max_val), element by element.", y,
           clamp(x, k.min_val, k.max_val), y <= k.min_val || y >= k.max_val ? 0 : g, WITH(hardtanh_attrs),
           .infer = hardtanh_infer, .repr = hardtanh_repr)

static void threshold_repr(FILE *out, const void *attrs) {
    repr_number(out, "threshold=", ((const struct activation *)attrs)->threshold);
    repr_number(out, ", value=", ((const struct activation *)attrs)->value);
    repr_inplace_last(out, attrs);
}
GRAD_NAME_IN_PLACE(threshold, "Threshold")
ACTIVATION(threshold, "Threshold", NULL, "x where it is above the threshold, else value.", x,
           x <= k.threshold ? k.value : x, x <= k.threshold ? 0 : g, WITH(threshold_attrs),
           .repr = threshold_repr, .grad_fn = threshold_grad_fn)

static void lambd_repr(FILE *out, const void *attrs) {
    gd_repr_float(out, ((const struct activation *)attrs)->lambd);
}
/* Newer versions of torch, as here, let NaN through; torch 1.13 made it 0. */
ACTIVATION(softshrink, "Softshrink", "SoftshrinkBackward0", "x moved towards 0 by lambd, not beyond.", x,
           x > k.lambd ? x - k.lambd : (x < -k.lambd ? x + k.lambd : (x != x ? x : 0)),
           x >= -k.lambd && x <= k.lambd ? 0 : g, WITH(softshrink_attrs), .repr = lambd_repr)
ACTIVATION(hardshrink, "Hardshrink", "HardshrinkBackward0",
           "x where it is further than lambd from 0, else 0.", x, x >= -k.lambd && x <= k.lambd ? 0 : x,
           x >= -k.lambd && x <= k.lambd ? 0 : g, WITH(hardshrink_attrs), .repr = lambd_repr)
ACTIVATION(hardsigmoid, "Hardsigmoid", "HardsigmoidBackward0",
           "min(max(x + 3, 0), 6) / 6, element by element.", x, clamp(x + 3, 0, 6) / 6,
           x > -3 && x < 3 ? g / 6 : 0, WITH(inplace_attrs))
ACTIVATION(hardswish, "Hardswish", "HardswishBackward0", "x min(max(x + 3, 0), 6) / 6, element by element.",
           x, clamp(x + 3, 0, 6) * x / 6, x < -3 ? 0 : (x > 3 ? g : g * (x / 3 + 0.5F)), WITH(inplace_attrs))

/* ---- exponential bends ------------------------------------------------------------------------------ */

static void alpha_repr(FILE *out, const void *attrs) {
    repr_float(out, "alpha=", ((const struct activation *)attrs)->alpha);
    repr_inplace_last(out, attrs);
}
GRAD_NAME_IN_PLACE(elu, "Elu")
ACTIVATION(elu, "ELU", NULL, "x where it is positive, else alpha (e^x - 1).", x,
           x > 0 ? x : k.alpha * gd_expm1(x), x > 0 ? g : g * k.alpha * gd_exp(x), WITH(elu_attrs),
           .repr = alpha_repr, .grad_fn = elu_grad_fn)

static int celu_infer(gd_infer *infer) {
    if (((const struct activation *)infer->attrs)->alpha == 0)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "alpha",
                             "alpha must not be 0, for x is divided by it; 1 is the default");
    return same_shape(infer);
}
GRAD_NAME_IN_PLACE(celu, "Celu")
ACTIVATION(celu, "CELU", NULL, "x where it is positive, else alpha (e^(x / alpha) - 1).", x,
           x > 0 ? x : k.alpha * gd_expm1(x / k.alpha), x > 0 ? g : g * gd_exp(x / k.alpha), WITH(elu_attrs),
           .infer = celu_infer, .repr = alpha_repr, .grad_fn = celu_grad_fn)

/* Fixed so that a layer keeps mean 0 and variance 1: Klambauer et al. 2017, as torch.nn.SELU has them. */
#define SELU_ALPHA 1.6732632423543772F
#define SELU_SCALE 1.0507009873554805F
ACTIVATION(selu, "SELU", NULL, "1.0507 x where it is positive, else 1.0507 * 1.6733 (e^x - 1).", y,
           SELU_SCALE *(x > 0 ? x : SELU_ALPHA * gd_expm1(x)),
           (y > 0 ? SELU_SCALE : y + SELU_SCALE * SELU_ALPHA) * g, WITH(inplace_attrs), .repr = repr_inplace,
           .grad_fn = elu_grad_fn)

static void softplus_repr(FILE *out, const void *attrs) {
    repr_number(out, "beta=", ((const struct activation *)attrs)->beta);
    repr_number(out, ", threshold=", ((const struct activation *)attrs)->threshold);
}
ACTIVATION(softplus, "Softplus", "SoftplusBackward0", "ln(1 + e^(beta x)) / beta, element by element.", x,
           (k.beta * x) > k.threshold ? x : gd_softplus(x * k.beta) / k.beta,
           (k.beta * x) > k.threshold ? g : g * gd_sigmoid(x * k.beta), WITH(softplus_attrs),
           .repr = softplus_repr)

/* ---- sigmoids and what is made of them -------------------------------------------------------------- */

ACTIVATION(sigmoid, "Sigmoid", "SigmoidBackward0", "1 / (1 + e^-x), element by element.", y, gd_sigmoid(x),
           (1 - y) * y * g)
ACTIVATION(logsigmoid, "LogSigmoid", "LogSigmoidBackward0", "ln(1 / (1 + e^-x)), element by element.", y,
           -gd_softplus(-x), g * -gd_expm1(y))
ACTIVATION(tanh, "Tanh", "TanhBackward0", "Hyperbolic tangent, element by element.", y, gd_tanh(x),
           (1 - y * y) * g)

GD_INLINE float square(float x) {
    return x * x;
}

static int tanhshrink_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs;
    (void)inputs;
    nodes[0] = (gd_grad_fn){"SubBackward0", {GD_NEXT_INPUT(0), 1}, 2};
    nodes[1] = (gd_grad_fn){"TanhBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 2;
}
ACTIVATION(tanhshrink, "Tanhshrink", NULL, "x - tanh(x), element by element.", x, x - gd_tanh(x),
           square(gd_tanh(x)) * g, .grad_fn = tanhshrink_grad_fn)

static int softsign_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs;
    (void)inputs;
    nodes[0] = (gd_grad_fn){"DivBackward0", {GD_NEXT_INPUT(0), 1}, 2};
    nodes[1] = (gd_grad_fn){"AddBackward0", {2, GD_NEXT_NONE}, 2};
    nodes[2] = (gd_grad_fn){"AbsBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 3;
}
ACTIVATION(softsign, "Softsign", NULL, "x / (1 + |x|), element by element.", x, x / (1 + fabsf(x)),
           g / square(1 + fabsf(x)), .grad_fn = softsign_grad_fn)

/* d(x s)/dx = s + x s (1 - s) */
GD_INLINE float silu_slope(float x) {
    const float s = gd_sigmoid(x);
    return s * (1 + x * (1 - s));
}
ACTIVATION(silu, "SiLU", "SiluBackward0", "x / (1 + e^-x), element by element.", x, gd_sigmoid(x) * x,
           silu_slope(x) * g, WITH(inplace_attrs), .repr = repr_inplace)

/* tanh(ln(1 + e)) = n / (n + 2) with e = e^x and n = e (e + 2); from x = 20 on that is 1. */
GD_INLINE float mish_n(float x) {
    const float e = gd_exp(x > 20 ? 20 : x);
    return e * (e + 2);
}
/* t + x (1 - t^2) sigmoid(x), with 1 - t = 2 / (n + 2) */
GD_INLINE float mish_slope(float x) {
    const float n = mish_n(x), t = n / (n + 2);
    return t + x * (1 + t) * (2 / (n + 2)) * gd_sigmoid(x);
}
ACTIVATION(mish, "Mish", "MishBackward0", "x tanh(ln(1 + e^x)), element by element.", x,
           mish_n(x) / (mish_n(x) + 2) * x, mish_slope(x) * g, WITH(inplace_attrs), .repr = repr_inplace)

/* GELU's x P(x), with P the normal distribution: P = (1 + erf(x / sqrt 2)) / 2 and P' = e^(-x^2 / 2) /
 * sqrt(2 pi); or P = (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3). */
#define SQRT_1_2 0.70710678118654752F
#define SQRT_2_PI 0.79788456080286536F
GD_INLINE float gelu_slope(float x) {
    return 0.5F * (1 + gd_erf(x * SQRT_1_2)) + x * gd_exp(-0.5F * x * x) * (SQRT_1_2 * SQRT_2_PI * SQRT_1_2);
}
GD_INLINE float gelu_t(float x) {
    return gd_tanh(SQRT_2_PI * (x + 0.044715F * x * x * x));
}
GD_INLINE float gelu_tanh_slope(float x) {
    const float t = gelu_t(x);
    return 0.5F * (1 + t) + 0.5F * x * (1 - t * t) * SQRT_2_PI * (1 + 3 * 0.044715F * x * x);
}
LOOPS(gelu_none, x, 0.5F * x * (1 + gd_erf(x * SQRT_1_2)), gelu_slope(x) * g)
LOOPS(gelu_tanh, x, 0.5F * x * (1 + gelu_t(x)), gelu_tanh_slope(x) * g)

static void gelu_forward(const gd_call *call) {
    (((const struct activation *)call->attrs)->approximate ? gelu_tanh_forward : gelu_none_forward)(call);
}
static void gelu_backward(const gd_call *call) {
    (((const struct activation *)call->attrs)->approximate ? gelu_tanh_backward : gelu_none_backward)(call);
}
static void gelu_repr(FILE *out, const void *attrs) {
    fprintf(out, "approximate='%s'", approximations[((const struct activation *)attrs)->approximate]);
}
DESCRIPTOR(gelu, "GELU", "GeluBackward0", "x times the normal distribution's P(x), element by element.", x,
           WITH(gelu_attrs), .repr = gelu_repr)
