/* gaussian_nll.c -- negative log likelihood of a normal distribution whose mean x and variance v the network
 * gives. Formula: torch.nn.GaussianNLLLoss:
 *   l = (log v + (x - t)^2 / v) / 2, in full + log(2 pi) / 2, with v at least eps;
 * where v is below eps its gradient is still that of eps, as in torch. */
#include <inttypes.h>

#include "engine/optim/packed.h"

#define LOG_TWO_PI 1.83787706640934548356

struct gaussian_nll {
    bool full;
    double eps;
    int reduction;
};

static const gd_attr gaussian_nll_attrs[] = {
    GD_BOOL(struct gaussian_nll, full, .doc = "add the constant log(2 pi) / 2"),
    GD_FLOAT(struct gaussian_nll, eps, .number = 1e-6, .min = 0, .doc = "the least variance"),
    GD_CHOICE(struct gaussian_nll, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the elements' losses"),
};

static gd_shape gaussian_nll_target_shape(const void *attrs, const gd_shape *output) {
    (void)attrs;
    return output->rank < 2 ? *output : gd_loss_without_axis_1(output);
}

static int gaussian_nll_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                                gd_loss_plan *ret_plan, gd_error *error) {
    const struct gaussian_nll *a = attrs;
    int code =
        gd_packed_check_output("GaussianNLLLoss", &output->shape, 2, 2, "the mean and the variance", error);
    if (code)
        return code;
    const gd_shape part = gd_loss_without_axis_1(&output->shape);
    if ((code = gd_packed_check_target("GaussianNLLLoss", &target->shape, &part, error)))
        return code;
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &part)};
    return 0;
}

static int gaussian_nll_check_output(const void *attrs, const gd_tensor *output, gd_error *error) {
    const gd_packed g = gd_packed_of(&output->shape);
    (void)attrs;
    for (int64_t n = 0; n < g.batch; n++) {
        const float *v = (const float *)output->data + (2 * n + 1) * g.inner;
        for (int64_t i = 0; i < g.inner; i++)
            if (v[i] < 0)
                return gd_fail(
                    error, GD_E_VALUE,
                    "GaussianNLLLoss: the variance of sample %" PRId64
                    " (output[:, 1]) is %.6g; it must not be negative: make it with Softplus or exp",
                    n, (double)v[i]);
    }
    return 0;
}

/* NaN stays NaN. */
static double variance(const struct gaussian_nll *a, float v) {
    return v < a->eps ? a->eps : v;
}

static void gaussian_nll_forward(const gd_loss_call *call) {
    const struct gaussian_nll *a = call->attrs;
    const gd_packed g = gd_packed_of(&call->output->shape);
    const double constant = a->full ? LOG_TWO_PI / 2 : 0;
    double sum = 0;
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const float *x = (const float *)call->output->data + 2 * n * g.inner + i;
            const double d = (double)x[0] - ((const float *)call->target->data)[n * g.inner + i];
            const double v = variance(a, x[g.inner]), loss = (log(v) + d * d / v) / 2 + constant;
            if (a->reduction == GD_REDUCE_NONE)
                call->loss[n * g.inner + i] = (float)loss;
            sum += loss;
        }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum / gd_loss_divisor(a->reduction, g.batch * g.inner));
}

/* dl/dx = (x - t) / v, dl/dv = (1 - (x - t)^2 / v) / (2 v) */
static void gaussian_nll_backward(const gd_loss_call *call) {
    const struct gaussian_nll *a = call->attrs;
    const gd_packed g = gd_packed_of(&call->output->shape);
    const double factor = 1 / gd_loss_divisor(a->reduction, g.batch * g.inner);
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const int64_t at = 2 * n * g.inner + i;
            const float *x = (const float *)call->output->data + at;
            const double d = (double)x[0] - ((const float *)call->target->data)[n * g.inner + i];
            const double v = variance(a, x[g.inner]);
            call->grad[at] = (float)(factor * d / v);
            call->grad[at + g.inner] = (float)(factor * (1 - d * d / v) / (2 * v));
        }
}

static int gaussian_nll_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                                gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct gaussian_nll *a = attrs;
    gd_chain chain = {nodes, 0};
    (void)output, (void)class_indices;
    gd_chain_reduction(&chain, a->reduction);
    if (a->full)
        (void)gd_chain_pair(&chain, "AddBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_pair(&chain, "MulBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    const int sum = gd_chain_pair(&chain, "AddBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_next(&chain, "LogBackward0");
    const int clone = gd_chain_next(&chain, "CloneBackward0"); /* the variance, brought up to eps */
    const int unbind = gd_packed_unbind(&chain);
    nodes[sum].next[1] = gd_chain_pair(&chain, "DivBackward0", GD_CHAIN_NEXT, clone);
    (void)gd_chain_next(&chain, "PowBackward0");
    (void)gd_chain_pair(&chain, "SubBackward0", unbind, GD_NEXT_NONE);
    return chain.count;
}

const gd_loss gd_loss_gaussian_nll = {
    .kind = {.module = "GaussianNLLLoss",
             .function = "gaussian_nll_loss",
             .doc = "Negative log likelihood of a normal distribution; output (N, 2, ...): mean, variance.",
             GD_ATTRS(struct gaussian_nll, gaussian_nll_attrs)},
    .target_dtype = gd_loss_takes_floats,
    .prepare = gaussian_nll_prepare,
    .check_output = gaussian_nll_check_output,
    .target_shape = gaussian_nll_target_shape,
    .forward = gaussian_nll_forward,
    .backward = gaussian_nll_backward,
    .grad_fn = gaussian_nll_grad_fn,
};
