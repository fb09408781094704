/* prelu.c -- rectifiers whose slope below 0 is learned or random. Formulas: torch.nn.PReLU, torch.nn.RReLU.
 */
#include <inttypes.h>

#include "engine/core/rng.h"
#include "engine/graph/op.h"

/* ---- PReLU: one slope for all channels, or one each --------------------------------------------------- */

struct prelu {
    int64_t num_parameters;
    double init;
};

static const gd_attr prelu_attrs[] = {
    GD_INT(struct prelu, num_parameters, .min = 1, .number = 1, .doc = "1, or the number of channels"),
    GD_FLOAT(struct prelu, init, .number = 0.25, .doc = "what slopes begin as"),
};

static const gd_param_decl prelu_params[] = {
    {.name = "weight", .init = GD_INIT_CONSTANT, .doc = "(num_parameters) slopes below 0"},
};

static int prelu_infer(gd_infer *infer) {
    const struct prelu *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    char text[128];
    if (a->num_parameters > 1 && (x->rank < 2 || x->dim[1] != a->num_parameters))
        return gd_fail_field(infer->error, GD_E_SHAPE, "num_parameters",
                             "num_parameters is %" PRId64
                             ", which must be 1 or the number of channels (the first axis) of the input's "
                             "samples, %s",
                             a->num_parameters, gd_sample_text(x, text, sizeof text));
    infer->outputs[0] = *x;
    gd_infer_param_add(infer, 0, GD_SHAPE(a->num_parameters))->value = a->init;
    return 0;
}

/* An input as (samples, channels, inner), with one channel when there is one slope. */
typedef struct planes {
    int64_t samples, channels, inner;
} planes;

static planes planes_of(const gd_call *call) {
    const gd_shape *x = &call->inputs[0].shape;
    const int64_t channels = ((const struct prelu *)call->attrs)->num_parameters;
    if (channels == 1)
        return (planes){1, 1, gd_numel(x)};
    return (planes){x->dim[0], channels, gd_numel_of(x, 2, x->rank)};
}

/* y = x where x > 0, else w x */
static void prelu_forward(const gd_call *call) {
    const planes p = planes_of(call);
    const float *w = call->params[0].data;
    for (int64_t plane = 0; plane < p.samples * p.channels; plane++) {
        const float *x = (const float *)call->inputs[0].data + plane * p.inner;
        float *y = (float *)call->outputs[0].data + plane * p.inner;
        const float slope = w[plane % p.channels];
#pragma omp simd
        for (int64_t i = 0; i < p.inner; i++)
            y[i] = x[i] > 0 ? x[i] : slope * x[i];
    }
}

/* dx = dy where x > 0, else w dy */
static void plane_backward(const float *x, const float *dy, float slope, int64_t count, bool accumulate,
                           float *dx) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        dx[i] = (accumulate ? dx[i] : 0) + (x[i] > 0 ? dy[i] : slope * dy[i]);
}

/* and dw += sum of x dy where x <= 0; first, for dx may lie where dy does. */
static void prelu_backward(const gd_call *call) {
    const planes p = planes_of(call);
    const float *w = call->params[0].data;
    float *dw = call->param_grads[0].data, *dx = call->input_grads[0].data;
    for (int64_t plane = 0; plane < p.samples * p.channels; plane++) {
        const float *x = (const float *)call->inputs[0].data + plane * p.inner;
        const float *dy = (const float *)call->output_grads[0].data + plane * p.inner;
        float sum = 0;
        if (dw) {
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < p.inner; i++)
                sum += x[i] > 0 ? 0 : x[i] * dy[i];
            dw[plane % p.channels] += sum;
        }
        if (dx)
            plane_backward(x, dy, w[plane % p.channels], p.inner, call->accumulate[0], dx + plane * p.inner);
    }
}

static void prelu_repr(FILE *out, const void *attrs) {
    fprintf(out, "num_parameters=%" PRId64, ((const struct prelu *)attrs)->num_parameters);
}

const gd_op gd_op_prelu = {
    .kind = {.module = "PReLU",
             .function = "prelu",
             .doc = "x where it is positive, else x times a learnable slope.",
             GD_ATTRS(struct prelu, prelu_attrs),
             GD_PARAMS(prelu_params)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_INPLACE | GD_SAVES_INPUT,
    .infer = prelu_infer,
    .forward = prelu_forward,
    .backward = prelu_backward,
    .repr = prelu_repr,
    .grad_name = "PreluBackward0",
};

/* ---- RReLU: a slope drawn for each element in training, their mean in eval mode ----------------------- */

struct rrelu {
    double lower, upper;
    bool inplace;
};

static const gd_attr rrelu_attrs[] = {
    GD_FLOAT(struct rrelu, lower, .number = 1.0 / 8, .doc = "smallest slope"),
    GD_FLOAT(struct rrelu, upper, .number = 1.0 / 3, .doc = "largest slope"),
    GD_BOOL(struct rrelu, inplace, .doc = "accepted as in torch; memory is shared where it can be"),
};

static int rrelu_infer(gd_infer *infer) {
    const struct rrelu *a = infer->attrs;
    if (a->lower > a->upper)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "lower",
                             "lower must be at most upper, %.10g, not %.10g", a->upper, a->lower);
    infer->outputs[0] = infer->inputs[0];
    infer->saved[0] = (gd_tensor){.dtype = GD_FLOAT32, .shape = infer->inputs[0]}; /* slopes */
    infer->saved_count = 1;
    return 0;
}

/* y = x where x > 0, else r x with r uniform in [lower, upper): drawn for these elements only, as in torch.
 */
static void rrelu_forward(const gd_call *call) {
    const struct rrelu *a = call->attrs;
    const float *x = call->inputs[0].data, mean = (float)((a->lower + a->upper) / 2);
    float *y = call->outputs[0].data, *slopes = call->saved[0].data;
    const int64_t count = gd_numel(&call->outputs[0].shape);
    for (int64_t i = 0; i < count; i++) {
        float slope = x[i] > 0 ? 1 : mean;
        if (call->training) /* NaN draws nothing */
            slope = x[i] <= 0 ? (float)(gd_rng_double(call->rng) * (a->upper - a->lower) + a->lower) : 1;
        y[i] = x[i] * slope;
        if (slopes)
            slopes[i] = slope;
    }
}

/* dx = dy times the element's slope */
static void rrelu_backward(const gd_call *call) {
    const float *slopes = call->saved[0].data, *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    const int64_t count = dx ? gd_numel(&call->outputs[0].shape) : 0;
    const bool accumulate = call->accumulate[0];
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        dx[i] = (accumulate ? dx[i] : 0) + dy[i] * slopes[i];
}

static void rrelu_repr(FILE *out, const void *attrs) {
    const struct rrelu *a = attrs;
    fputs("lower=", out);
    gd_repr_float(out, a->lower);
    fputs(", upper=", out);
    gd_repr_float(out, a->upper);
    fputs(a->inplace ? ", inplace=True" : "", out);
}

static int rrelu_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const bool inplace = ((const struct rrelu *)attrs)->inplace;
    (void)inputs;
    nodes[0] =
        (gd_grad_fn){inplace ? "RreluWithNoiseBackward1" : "RreluWithNoiseBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

const gd_op gd_op_rrelu = {
    .kind = {.module = "RReLU",
             .function = "rrelu",
             .doc = "x where it is positive, else x times a random slope; in eval mode times their mean.",
             GD_ATTRS(struct rrelu, rrelu_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_RANDOM | GD_INPLACE,
    .infer = rrelu_infer,
    .forward = rrelu_forward,
    .backward = rrelu_backward,
    .repr = rrelu_repr,
    .grad_fn = rrelu_grad_fn,
};
