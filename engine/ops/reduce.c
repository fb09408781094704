/* reduce.c -- many elements to one, along any axes but the batch: torch.sum, mean, var, std, amax, amin,
 * logsumexp.
 *
 * The output, with the reduced axes of size 1, broadcasts to the input; so a reduction is a walk over the
 * input with the output beside it (broadcast.h), forward adding into the output and backward reading from
 * it. Where axis 0 stays it is cut into pieces, one per index of axis 0. Sums are kept in double. */
#include <inttypes.h>

#include "engine/ops/axes.h"
#include "engine/ops/broadcast.h"

struct reduce {
    gd_ints dim;
    bool keepdim, unbiased;
    int64_t correction; /* GD_NONE: by `unbiased` */
};

#define DIM \
    GD_INTS(struct reduce, dim, \
            .doc = "the axis or axes to reduce; left out: all, where there is no batch"), \
        GD_BOOL(struct reduce, keepdim, .doc = "leave the reduced axes there, with size 1")

static const gd_attr reduce_attrs[] = {DIM};
static const gd_attr spread_attrs[] = {
    DIM,
    GD_INT(
        struct reduce, correction, .min = 0, .nullable = true, .number = NAN,
        .doc =
            "what is taken from the number of elements before dividing by it; null: 1, or 0 if not unbiased"),
    GD_BOOL(struct reduce, unbiased, .number = 1, .doc = "false: a correction of 0"),
};

/* ---- which axes --------------------------------------------------------------------------------------- */

/* Bit i: axis i is reduced. */
static unsigned reduced_axes(const struct reduce *a, int rank) {
    unsigned axes = 0;
    for (size_t i = 0; i < a->dim.count; i++)
        axes |= 1U << gd_axis_of(a->dim.data[i], rank);
    return a->dim.count ? axes : (1U << rank) - 1;
}

static int check_axes(const gd_infer *infer) {
    const struct reduce *a = infer->attrs;
    const int rank = infer->inputs[0].rank, batch = infer->input_axes[0];
    unsigned seen = 0;
    if (!a->dim.count && batch >= 0)
        return gd_fail_field(
            infer->error, GD_E_ATTRIBUTE, "dim",
            "without dim all axes would be reduced, and axis %d is the batch: samples are kept "
            "apart; name the axes to reduce",
            batch);
    for (size_t i = 0; i < a->dim.count; i++) {
        int axis;
        int code = gd_sample_axis(infer, "dim", a->dim.data[i], &axis);
        if (code)
            return code;
        if (seen >> axis & 1)
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "dim", "dim names axis %d of %d twice", axis,
                                 rank);
        seen |= 1U << axis;
    }
    return 0;
}

/* The shape with reduced axes of size 1. */
static gd_shape kept_shape(const gd_shape *x, unsigned reduced) {
    gd_shape y = *x;
    for (int i = 0; i < y.rank; i++)
        y.dim[i] = reduced >> i & 1 ? 1 : y.dim[i];
    return y;
}

static int reduce_infer(gd_infer *infer) {
    const struct reduce *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    int code = check_axes(infer);
    if (code)
        return code;
    const unsigned reduced = reduced_axes(a, x->rank);
    const gd_shape kept = kept_shape(x, reduced);
    gd_shape piece = x->rank && !(reduced & 1) ? gd_shape_without_batch(&kept) : kept,
             *y = &infer->outputs[0];
    size_t bytes;
    *y = (gd_shape){0};
    for (int i = 0; i < kept.rank; i++) {
        if (i == infer->input_axes[0])
            infer->axes[0] = y->rank;
        if (a->keepdim || !(reduced >> i & 1))
            y->dim[y->rank++] = kept.dim[i];
    }
    if ((code = gd_shape_bytes(&piece, GD_INT64, &bytes, infer->error)))
        return code;
    infer->scratch = 2 * bytes; /* two doubles per output; sizes are well under half of SIZE_MAX */
    return 0;
}

static int spread_infer(gd_infer *infer) {
    const struct reduce *a = infer->attrs;
    if (a->correction != GD_NONE && a->correction && !a->unbiased)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "correction",
                             "correction %" PRId64 " contradicts unbiased: false, which is a correction of 0",
                             a->correction);
    return reduce_infer(infer);
}

/* ---- walking ------------------------------------------------------------------------------------------- */

typedef struct fold {
    gd_broadcast walk; /* over a piece of the input, beside it the outputs */
    int64_t pieces;
    int64_t inputs, outputs; /* elements of a piece */
    double n;                /* elements that become one */
    double *a, *b;           /* (outputs) scratch */
} fold;

static fold fold_of(const gd_call *call) {
    const gd_shape *x = &call->inputs[0].shape;
    const unsigned reduced = reduced_axes(call->attrs, x->rank);
    const gd_shape kept = kept_shape(x, reduced);
    const bool cut = x->rank && !(reduced & 1);
    const gd_shape from = cut ? gd_shape_without_batch(x) : *x,
                   to = cut ? gd_shape_without_batch(&kept) : kept;
    const gd_shape *const beside[] = {&to};
    fold f = {.walk = gd_broadcast_begin(&from, beside, 1),
              .pieces = cut ? x->dim[0] : 1,
              .inputs = gd_numel(&from),
              .outputs = gd_numel(&to),
              .a = call->scratch};
    f.n = (double)f.inputs / (double)f.outputs;
    f.b = f.a + f.outputs;
    return f;
}

static void fill(double *values, int64_t count, double value) {
    for (int64_t i = 0; i < count; i++)
        values[i] = value;
}

#define INLINE static inline __attribute__((always_inline))

/* What an element adds to its output's sum; c: something of that output. */
typedef double term_formula(float x, double c);

INLINE double itself(float x, double c) {
    (void)c;
    return x;
}
INLINE double square(float x, double c) {
    return (x - c) * (x - c);
}
INLINE double exponential(float x, double c) {
    return expf((float)(x - c));
}
INLINE double equal(float x, double c) {
    return x == (float)c;
}

/* sums[o] = the sum of term(x, c[o]) over the elements of output o. */
INLINE void add_up(const fold *f, const float *x, const double *c, double *sums, term_formula *term) {
    gd_broadcast w = f->walk;
    const int64_t count = w.size[0];
    fill(sums, f->outputs, 0);
    for (int64_t r = 0; r < w.rows; r++, x += count, gd_broadcast_next(&w)) {
        const double *centre = c + w.offset[0];
        double *into = sums + w.offset[0];
        if (w.step[0][0]) {
#pragma omp simd
            for (int64_t i = 0; i < count; i++)
                into[i] += term(x[i], centre[i]);
            continue;
        }
        const double one = *centre;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < count; i++)
            sum += term(x[i], one);
        *into += sum;
    }
}

/* most[o] = sign * the maximum of sign * x over output o's elements; NaN wins. */
static void find_most(const fold *f, const float *x, float sign, double *most) {
    gd_broadcast w = f->walk;
    const int64_t count = w.size[0], step = w.step[0][0];
    fill(most, f->outputs, -(double)INFINITY * sign);
    for (int64_t r = 0; r < w.rows; r++, x += count, gd_broadcast_next(&w)) {
        double *into = most + w.offset[0];
        for (int64_t i = 0; i < count; i++)
            if (sign * x[i] > sign * into[i * step] || isnan(x[i]))
                into[i * step] = x[i];
    }
}

/* An element's gradient from two numbers of its output. */
typedef double slope_formula(float x, double a, double b);

INLINE double constant_slope(float x, double a, double b) {
    (void)x, (void)b;
    return a;
}
INLINE double linear_slope(float x, double a, double b) {
    return a * (x - b);
}
INLINE double exponential_slope(float x, double a, double b) {
    return a * expf((float)(x - b));
}
INLINE double chosen_slope(float x, double a, double b) {
    return x == (float)b ? a : 0 * a;
}

/* dx = (dx +) slope(x, a[o], b[o]) */
INLINE void spread(const fold *f, const float *x, float *dx, bool add, slope_formula *slope) {
    gd_broadcast w = f->walk;
    const int64_t count = w.size[0];
    for (int64_t r = 0; r < w.rows; r++, x += count, dx += count, gd_broadcast_next(&w)) {
        const double *a = f->a + w.offset[0], *b = f->b + w.offset[0];
        if (!add)
            memset(dx, 0, (size_t)count * sizeof *dx);
        if (w.step[0][0]) {
#pragma omp simd
            for (int64_t i = 0; i < count; i++)
                dx[i] += (float)slope(x[i], a[i], b[i]);
        } else {
            const double one_a = *a, one_b = *b;
#pragma omp simd
            for (int64_t i = 0; i < count; i++)
                dx[i] += (float)slope(x[i], one_a, one_b);
        }
    }
}

/* ---- sum, mean, var, std ------------------------------------------------------------------------------- */

enum moment { SUM, MEAN, VAR, STD };

/* var's divisor: max(0, n - correction) */
static double degrees_of_freedom(const gd_call *call, const fold *f) {
    const struct reduce *a = call->attrs;
    const double correction = a->correction != GD_NONE ? (double)a->correction : a->unbiased ? 1 : 0;
    return fmax(0, f->n - correction);
}

/* a[o] = the mean, with b as what add_up reads but does not use. */
static void find_means(const fold *f, const float *x) {
    fill(f->b, f->outputs, 0);
    add_up(f, x, f->b, f->a, itself);
    for (int64_t o = 0; o < f->outputs; o++)
        f->a[o] /= f->n;
}

/* sum; sum / n; sum (x - mean)^2 / (n - correction); its root */
INLINE void moment_forward(const gd_call *call, enum moment moment) {
    const fold f = fold_of(call);
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    const double freedom = degrees_of_freedom(call, &f);
    for (int64_t p = 0; p < f.pieces; p++, x += f.inputs, y += f.outputs) {
        find_means(&f, x);
        if (moment == VAR || moment == STD)
            add_up(&f, x, f.a, f.b, square);
        for (int64_t o = 0; o < f.outputs; o++) {
            const double variance = f.b[o] / freedom;
            y[o] = (float)(moment == SUM    ? f.a[o] * f.n
                           : moment == MEAN ? f.a[o]
                           : moment == VAR  ? variance
                                            : sqrt(variance));
        }
    }
}

/* dx = dy; dy / n; dy 2 (x - mean) / (n - correction); dy (x - mean) / ((n - correction) y), 0 where y is */
INLINE void moment_backward(const gd_call *call, enum moment moment) {
    const fold f = fold_of(call);
    const float *x = call->inputs[0].data, *y = call->outputs[0].data, *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    const double freedom = degrees_of_freedom(call, &f);
    const bool centred = moment == VAR || moment == STD;
    for (int64_t p = 0; dx && p < f.pieces;
         p++, x += f.inputs, dx += f.inputs, y += f.outputs, dy += f.outputs) {
        if (centred)
            find_means(&f, x);
        for (int64_t o = 0; o < f.outputs; o++) {
            if (centred)
                f.b[o] = f.a[o];
            f.a[o] = moment == SUM    ? dy[o]
                     : moment == MEAN ? dy[o] / f.n
                     : moment == VAR  ? dy[o] * 2 / freedom
                     : y[o] == 0      ? 0
                                      : dy[o] / (freedom * y[o]);
        }
        if (centred)
            spread(&f, x, dx, call->accumulate[0], linear_slope);
        else
            spread(&f, x, dx, call->accumulate[0], constant_slope);
    }
}

/* ---- amax, amin, logsumexp ----------------------------------------------------------------------------- */

INLINE void most_forward(const gd_call *call, float sign) {
    const fold f = fold_of(call);
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    for (int64_t p = 0; p < f.pieces; p++, x += f.inputs, y += f.outputs) {
        find_most(&f, x, sign, f.a);
        for (int64_t o = 0; o < f.outputs; o++)
            y[o] = (float)f.a[o];
    }
}

/* dy shared evenly by all elements that equal y; where y is NaN none does, and they get torch's 0 / 0 */
static void most_backward(const gd_call *call) {
    const fold f = fold_of(call);
    const float *x = call->inputs[0].data, *y = call->outputs[0].data, *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    for (int64_t p = 0; dx && p < f.pieces;
         p++, x += f.inputs, dx += f.inputs, y += f.outputs, dy += f.outputs) {
        for (int64_t o = 0; o < f.outputs; o++)
            f.b[o] = y[o];
        add_up(&f, x, f.b, f.a, equal);
        for (int64_t o = 0; o < f.outputs; o++)
            f.a[o] = dy[o] / f.a[o];
        spread(&f, x, dx, call->accumulate[0], chosen_slope);
    }
}

/* y = m + log sum exp(x - m), m being the maximum, or 0 where that is infinite */
static void logsumexp_forward(const gd_call *call) {
    const fold f = fold_of(call);
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    for (int64_t p = 0; p < f.pieces; p++, x += f.inputs, y += f.outputs) {
        find_most(&f, x, 1, f.a);
        for (int64_t o = 0; o < f.outputs; o++)
            f.a[o] = isinf(f.a[o]) ? 0 : f.a[o];
        add_up(&f, x, f.a, f.b, exponential);
        for (int64_t o = 0; o < f.outputs; o++)
            y[o] = (float)(f.a[o] + log(f.b[o]));
    }
}

/* dx = dy exp(x - y) */
static void logsumexp_backward(const gd_call *call) {
    const fold f = fold_of(call);
    const float *x = call->inputs[0].data, *y = call->outputs[0].data, *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    for (int64_t p = 0; dx && p < f.pieces;
         p++, x += f.inputs, dx += f.inputs, y += f.outputs, dy += f.outputs) {
        for (int64_t o = 0; o < f.outputs; o++) {
            f.a[o] = dy[o];
            f.b[o] = y[o];
        }
        spread(&f, x, dx, call->accumulate[0], exponential_slope);
    }
}

/* ---- descriptors --------------------------------------------------------------------------------------- */

#define FUNCTIONS(name, forward_call, backward_call) \
    static void name##_forward(const gd_call *call) { \
        forward_call; \
    } \
    static void name##_backward(const gd_call *call) { \
        backward_call; \
    }
FUNCTIONS(sum, moment_forward(call, SUM), moment_backward(call, SUM))
FUNCTIONS(mean, moment_forward(call, MEAN), moment_backward(call, MEAN))
FUNCTIONS(var, moment_forward(call, VAR), moment_backward(call, VAR))
FUNCTIONS(std, moment_forward(call, STD), moment_backward(call, STD))
FUNCTIONS(amax, most_forward(call, 1), most_backward(call))
FUNCTIONS(amin, most_forward(call, -1), most_backward(call))

/* torch's node goes by whether axes were named, for sum and mean. */
static int named(const void *attrs, const char *some, const char *all, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    nodes[0] = (gd_grad_fn){((const struct reduce *)attrs)->dim.count ? some : all, {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

static int sum_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)inputs;
    return named(attrs, "SumBackward1", "SumBackward0", nodes);
}

static int mean_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)inputs;
    return named(attrs, "MeanBackward1", "MeanBackward0", nodes);
}

#define BOTH (GD_SAVES_INPUT | GD_SAVES_OUTPUT)

/* name, its attributes, infer, what backward reads, its node in torch's graph, documentation */
#define ROWS(X) \
    X(sum, reduce, 0, .grad_fn = sum_grad_fn, "Sum over axes.") \
    X(mean, reduce, 0, .grad_fn = mean_grad_fn, "Mean over axes.") \
    X(var, spread, GD_SAVES_INPUT, .grad_name = "VarBackward0", "Variance over axes.") \
    X(std, spread, BOTH, .grad_name = "StdBackward0", "Standard deviation over axes.") \
    X(amax, reduce, BOTH, .grad_name = "AmaxBackward0", \
      "Maximum over axes; elements that tie share its gradient.") \
    X(amin, reduce, BOTH, .grad_name = "AminBackward0", \
      "Minimum over axes; elements that tie share its gradient.") \
    X(logsumexp, reduce, BOTH, .grad_name = "LogsumexpBackward0", \
      "Logarithm of the sum of exponentials over axes.")

#define X(name, table, saves, node, text) \
    const gd_op gd_op_##name = { \
        .kind = {.function = #name, .doc = text, GD_ATTRS(struct reduce, table##_attrs)}, \
        .min_inputs = 1, \
        .max_inputs = 1, \
        .flags = GD_BATCH | (saves), \
        .infer = table##_infer, \
        .forward = name##_forward, \
        .backward = name##_backward, \
        node, \
    };
ROWS(X)
#undef X
