/* initializers.c -- torch.nn.init. Those made of uniform draws (uniform_, xavier_uniform_, kaiming_uniform_)
 * equal torch's bits for the same seed, as do the constant ones; those made of normal draws agree to float32
 * rounding, since torch computes logarithms and cosines with its own approximations. */
#include "engine/model/initializer.h"

#include <inttypes.h>

#include "engine/core/normal.h"

struct init {
    double a, b, mean, std, val, gain;
    int64_t groups;
    int mode, nonlinearity;
};

static const char *const modes[] = {"fan_in", "fan_out", NULL};
static const char *const nonlinearities[] = {"leaky_relu", "relu", "linear", "sigmoid", "tanh", "selu", NULL};

/* ---- gains and fans ------------------------------------------------------------------------------- */

/* torch.nn.init.calculate_gain */
static double gain_of(const struct init *a) {
    const double gains[] = {sqrt(2 / (1 + a->a * a->a)), sqrt(2.0), 1, 1, 5.0 / 3, 0.75};
    return gains[a->nonlinearity];
}

static double fan(const gd_shape *shape, bool out) {
    return (double)(shape->dim[out ? 0 : 1] * gd_numel_of(shape, 2, shape->rank));
}

static double kaiming_std(const struct init *a, const gd_shape *shape) {
    return gain_of(a) / sqrt(fan(shape, a->mode == 1));
}

static double xavier_std(const struct init *a, const gd_shape *shape) {
    return a->gain * sqrt(2 / (fan(shape, false) + fan(shape, true)));
}

/* ---- checks --------------------------------------------------------------------------------------- */

static int check_rank(const gd_shape *shape, int least, int most, const char *what, gd_error *error) {
    char text[128];
    if (shape->rank >= least && shape->rank <= most)
        return 0;
    return gd_fail(error, GD_E_SHAPE, "%s takes a parameter of %d%s axes, not %s", what, least,
                   most > least ? " or more" : "", gd_shape_text(shape, text, sizeof text));
}

static int needs_fans(const void *attrs, const gd_shape *shape, gd_error *error) {
    (void)attrs;
    return check_rank(shape, 2, GD_MAX_RANK, "an initialiser that goes by fan_in and fan_out", error);
}

static int check_matrix(const void *attrs, const gd_shape *shape, gd_error *error) {
    (void)attrs;
    return check_rank(shape, 2, 2, "eye_", error);
}

static int check_orthogonal(const void *attrs, const gd_shape *shape, gd_error *error) {
    (void)attrs;
    return check_rank(shape, 2, GD_MAX_RANK, "orthogonal_", error);
}

static int check_dirac(const void *attrs, const gd_shape *shape, gd_error *error) {
    const struct init *a = attrs;
    int code = check_rank(shape, 3, 5, "dirac_", error);
    if (!code && shape->dim[0] % a->groups)
        return gd_fail_field(error, GD_E_ATTRIBUTE, "groups",
                             "dirac_: axis 0 (%" PRId64 ") must be divisible by "
                             "groups (%" PRId64 ")",
                             shape->dim[0], a->groups);
    return code;
}

static int check_order(const void *attrs, const gd_shape *shape, gd_error *error) {
    const struct init *a = attrs;
    (void)shape;
    return a->a <= a->b
               ? 0
               : gd_fail_field(error, GD_E_ATTRIBUTE, "a", "a (%g) must be at most b (%g)", a->a, a->b);
}

/* ---- fills ---------------------------------------------------------------------------------------- */

static void fill_constant(float *data, int64_t count, double value) {
    for (int64_t i = 0; i < count; i++)
        data[i] = (float)value;
}

static void fill_uniform(gd_rng *rng, float *data, int64_t count, double bound) {
    gd_rng_uniform(rng, data, count, -bound, bound);
}

static void fill_normal(gd_rng *rng, float *data, int64_t count, double mean, double std) {
    gd_rng_normal(rng, data, count);
    for (int64_t i = 0; i < count; i++)
        data[i] = data[i] * (float)std + (float)mean;
}

static void uniform_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    const struct init *a = attrs;
    gd_rng_uniform(rng, data, gd_numel(shape), a->a, a->b);
}

static void normal_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    const struct init *a = attrs;
    fill_normal(rng, data, gd_numel(shape), a->mean, a->std);
}

/* The inverse of erf, by Newton's method on erf itself: (erf)' = 2 / sqrt(pi) exp(-x^2). */
static double inverse_erf(double y) {
    const double limit = 1 - 1e-15, slope = 2 / sqrt(acos(-1));
    y = y > limit ? limit : y < -limit ? -limit : y;
    /* Winitzki's approximation, good to 2 digits, to begin with. */
    const double l = log1p(-y * y), t = 2 / (acos(-1) * 0.147) + l / 2;
    double x = copysign(sqrt(sqrt(t * t - l / 0.147) - t), y);
    for (int i = 0; i < 4; i++)
        x -= (erf(x) - y) / (slope * exp(-x * x));
    return x;
}

/* Uniform between the cumulative probabilities of a and b, through the inverse of the distribution. */
static void trunc_normal_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    const struct init *a = attrs;
    const double low = erf((a->a - a->mean) / a->std / sqrt(2)),
                 high = erf((a->b - a->mean) / a->std / sqrt(2));
    const int64_t count = gd_numel(shape);
    gd_rng_uniform(rng, data, count, low, high);
    for (int64_t i = 0; i < count; i++) {
        const double x = a->mean + a->std * sqrt(2) * inverse_erf((double)data[i]);
        data[i] = (float)(x < a->a ? a->a : x > a->b ? a->b : x);
    }
}

static void constant_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    (void)rng;
    fill_constant(data, gd_numel(shape), ((const struct init *)attrs)->val);
}

static void ones_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    (void)attrs, (void)rng;
    fill_constant(data, gd_numel(shape), 1);
}

static void zeros_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    (void)attrs, (void)rng;
    fill_constant(data, gd_numel(shape), 0);
}

static void eye_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    (void)attrs, (void)rng;
    for (int64_t i = 0; i < shape->dim[0]; i++)
        for (int64_t j = 0; j < shape->dim[1]; j++)
            data[i * shape->dim[1] + j] = i == j;
}

/* A window that hands each channel through: one in the middle, for as many channels as there are. */
static void dirac_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    const struct init *a = attrs;
    const int64_t window = gd_numel_of(shape, 2, shape->rank), out = shape->dim[0] / a->groups;
    const int64_t channels = out < shape->dim[1] ? out : shape->dim[1];
    int64_t middle = 0;
    (void)rng;
    for (int i = 2; i < shape->rank; i++)
        middle = middle * shape->dim[i] + shape->dim[i] / 2;
    fill_constant(data, gd_numel(shape), 0);
    for (int64_t g = 0; g < a->groups; g++)
        for (int64_t c = 0; c < channels; c++)
            data[((g * out + c) * shape->dim[1] + c) * window + middle] = 1;
}

static void xavier_uniform_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    fill_uniform(rng, data, gd_numel(shape), sqrt(3.0) * xavier_std(attrs, shape));
}

static void xavier_normal_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    fill_normal(rng, data, gd_numel(shape), 0, xavier_std(attrs, shape));
}

static void kaiming_uniform_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    fill_uniform(rng, data, gd_numel(shape), sqrt(3.0) * kaiming_std(attrs, shape));
}

static void kaiming_normal_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    fill_normal(rng, data, gd_numel(shape), 0, kaiming_std(attrs, shape));
}

/* Row r of a (rows, columns) matrix or, when transposed, column r: elements `step` apart. */
static float *vector_of(float *data, int64_t r, int64_t columns, bool transposed) {
    return transposed ? data + r : data + r * columns;
}

static double product(const float *x, const float *y, int64_t count, int64_t step) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)x[i * step] * (double)y[i * step];
    return sum;
}

/* The Q of a normal matrix's QR decomposition with a positive diagonal of R, which makes it unique: what
 * Gram and Schmidt give, each vector orthogonalised twice for accuracy. */
static void orthogonal_fill(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data) {
    const struct init *a = attrs;
    const int64_t rows = shape->dim[0], columns = gd_numel_of(shape, 1, shape->rank);
    const bool tall = rows >= columns; /* then columns are made orthogonal, else rows */
    const int64_t vectors = tall ? columns : rows, length = tall ? rows : columns, step = tall ? columns : 1;
    gd_rng_normal(rng, data, rows * columns);
    for (int64_t v = 0; v < vectors; v++) {
        float *x = vector_of(data, v, columns, tall);
        for (int again = 0; again < 2; again++)
            for (int64_t u = 0; u < v; u++) {
                const float *y = vector_of(data, u, columns, tall);
                const double along = product(x, y, length, step);
                for (int64_t i = 0; i < length; i++)
                    x[i * step] -= (float)(along * (double)y[i * step]);
            }
        const double norm = sqrt(product(x, x, length, step));
        for (int64_t i = 0; i < length; i++)
            x[i * step] = (float)((double)x[i * step] / norm);
    }
    for (int64_t i = 0; i < rows * columns; i++)
        data[i] *= (float)a->gain;
}

/* ---- tables --------------------------------------------------------------------------------------- */

static const gd_attr uniform_attrs[] = {
    GD_FLOAT(struct init, a, .doc = "lower bound"),
    GD_FLOAT(struct init, b, .number = 1, .doc = "upper bound"),
};
static const gd_attr normal_attrs[] = {
    GD_FLOAT(struct init, mean, .doc = "mean"),
    GD_FLOAT(struct init, std, .min = 0, .number = 1, .doc = "standard deviation"),
};
static const gd_attr trunc_normal_attrs[] = {
    GD_FLOAT(struct init, mean, .doc = "mean"),
    GD_FLOAT(struct init, std, .min = 1e-30, .number = 1, .doc = "standard deviation"),
    GD_FLOAT(struct init, a, .number = -2, .doc = "least value"),
    GD_FLOAT(struct init, b, .number = 2, .doc = "largest value"),
};
static const gd_attr constant_attrs[] = {
    GD_FLOAT(struct init, val, .required = true, .doc = "the value"),
};
static const gd_attr dirac_attrs[] = {
    GD_INT(struct init, groups, .min = 1, .number = 1, .doc = "of the convolution"),
};
static const gd_attr gain_attrs[] = {
    GD_FLOAT(struct init, gain, .number = 1, .doc = "factor"),
};
static const gd_attr kaiming_attrs[] = {
    GD_FLOAT(struct init, a, .doc = "negative slope of leaky_relu"),
    GD_CHOICE(struct init, mode, .choices = modes, .doc = "keep the variance forwards or backwards"),
    GD_CHOICE(struct init, nonlinearity, .choices = nonlinearities, .doc = "what follows the layer"),
};

#define ROW(id, text, test, ...) \
    const gd_initializer gd_initializer_##id = { \
        .kind = {.function = #id "_", .doc = text, __VA_ARGS__}, .check = test, .fill = id##_fill};

/* clang-format off */
ROW(uniform, "Uniform from a to b.", check_order, GD_ATTRS(struct init, uniform_attrs))
ROW(normal, "Normal.", NULL, GD_ATTRS(struct init, normal_attrs))
ROW(trunc_normal, "Normal, from a to b only.", check_order, GD_ATTRS(struct init, trunc_normal_attrs))
ROW(constant, "One value.", NULL, GD_ATTRS(struct init, constant_attrs))
ROW(ones, "Ones.", NULL)
ROW(zeros, "Zeros.", NULL)
ROW(eye, "Ones on a matrix's diagonal.", check_matrix)
ROW(dirac, "A convolution that hands its input through.", check_dirac, GD_ATTRS(struct init, dirac_attrs))
ROW(xavier_uniform, "Glorot's, uniform.", needs_fans, GD_ATTRS(struct init, gain_attrs))
ROW(xavier_normal, "Glorot's, normal.", needs_fans, GD_ATTRS(struct init, gain_attrs))
ROW(kaiming_uniform, "He's, uniform.", needs_fans, GD_ATTRS(struct init, kaiming_attrs))
ROW(kaiming_normal, "He's, normal.", needs_fans, GD_ATTRS(struct init, kaiming_attrs))
ROW(orthogonal, "A (semi-)orthogonal matrix.", check_orthogonal, GD_ATTRS(struct init, gain_attrs))
/* clang-format on */
