/* regression.c -- losses of a number and the number it should be: MSELoss, L1Loss, SmoothL1Loss, HuberLoss,
 * PoissonNLLLoss. Formulas: torch.nn. */
#include "engine/optim/elementwise.h"

#define TWO_PI 6.28318530717958647692

/* Slope of |d|: 0 at 0, NaN of NaN. */
static inline double sign(double d) {
    return d > 0 ? 1 : d < 0 ? -1 : d;
}

/* ---- MSELoss: l = (x - t)^2 ----------------------------------------------------------------------- */

static const gd_attr mse_attrs[] = {GD_ELEMENTWISE_REDUCTION};

static inline double mse_value(gd_element e) {
    return (e.x - e.t) * (e.x - e.t);
}

static inline double mse_slope(gd_element e) {
    return 2 * (e.x - e.t);
}

GD_ELEMENTWISE(mse, "MSELoss", "mse_loss", "Squared difference of output and target.", NULL,
               .grad_name = "MseLossBackward0", .target_edge = true);

/* ---- L1Loss: l = |x - t| -------------------------------------------------------------------------- */

static const gd_attr l1_attrs[] = {GD_ELEMENTWISE_REDUCTION};

static inline double l1_value(gd_element e) {
    return fabs(e.x - e.t);
}

static inline double l1_slope(gd_element e) {
    return sign(e.x - e.t);
}

static void l1_chain(const struct gd_elementwise *attrs, gd_chain *chain) {
    (void)attrs;
    (void)gd_chain_next(chain, "AbsBackward0");
    (void)gd_chain_pair(chain, "SubBackward0", GD_NEXT_INPUT(0), GD_NEXT_NONE);
}

GD_ELEMENTWISE(l1, "L1Loss", "l1_loss", "Absolute difference of output and target.", NULL, .chain = l1_chain);

/* ---- SmoothL1Loss: l = d^2 / (2 beta) where |d| = |x - t| < beta, else |d| - beta / 2 ---------------- */

static const gd_attr smooth_l1_attrs[] = {
    GD_ELEMENTWISE_REDUCTION,
    GD_FLOAT(struct gd_elementwise, beta, .number = 1, .min = 0,
             .doc = "differences below it are squared; 0: none, as L1Loss"),
};

static inline double smooth_l1_value(gd_element e) {
    const double d = fabs(e.x - e.t), beta = e.attrs->beta;
    return d < beta ? d * d / (2 * beta) : d - beta / 2;
}

static inline double smooth_l1_slope(gd_element e) {
    const double d = e.x - e.t, beta = e.attrs->beta;
    return fabs(d) < beta ? d / beta : sign(d);
}

GD_ELEMENTWISE(smooth_l1, "SmoothL1Loss", "smooth_l1_loss",
               "Squared difference near the target, absolute difference farther off.", NULL,
               .grad_name = "SmoothL1LossBackward0", .target_edge = true);

/* ---- HuberLoss: l = d^2 / 2 where |d| = |x - t| <= delta, else delta (|d| - delta / 2) --------------- */

static const gd_attr huber_attrs[] = {
    GD_ELEMENTWISE_REDUCTION,
    GD_FLOAT(struct gd_elementwise, delta, .number = 1, .min = 0,
             .doc = "differences up to it are squared; above 0"),
};

static int huber_check(const struct gd_elementwise *attrs, gd_error *error) {
    return attrs->delta > 0 ? 0
                            : gd_fail_field(error, GD_E_ATTRIBUTE, "delta",
                                            "HuberLoss: delta must be above 0, not %.10g", attrs->delta);
}

static inline double huber_value(gd_element e) {
    const double d = fabs(e.x - e.t), delta = e.attrs->delta;
    return d <= delta ? d * d / 2 : delta * (d - delta / 2);
}

static inline double huber_slope(gd_element e) {
    const double d = e.x - e.t, delta = e.attrs->delta;
    return fabs(d) <= delta ? d : delta * sign(d);
}

GD_ELEMENTWISE(huber, "HuberLoss", "huber_loss",
               "Squared difference near the target, farther off in proportion to the absolute one.", NULL,
               .check = huber_check, .grad_name = "HuberLossBackward0", .target_edge = true);

/* ---- PoissonNLLLoss: l = exp(x) - t x, or of a rate x itself x - t log(x + eps); in full, Stirling's
 * t log t - t + log(2 pi t) / 2 is added where t > 1 --------------------------------------------------- */

static const gd_attr poisson_nll_attrs[] = {
    GD_ELEMENTWISE_REDUCTION,
    GD_BOOL(struct gd_elementwise, log_input, .number = 1, .doc = "the output is the rate's logarithm"),
    GD_BOOL(struct gd_elementwise, full, .doc = "add the part that depends on the target alone"),
    GD_FLOAT(struct gd_elementwise, eps, .number = 1e-8, .min = 0,
             .doc = "added to the rate in its logarithm, without log_input"),
};

static inline double poisson_nll_value(gd_element e) {
    const struct gd_elementwise *a = e.attrs;
    const double loss = a->log_input ? exp(e.x) - e.t * e.x : e.x - e.t * log(e.x + a->eps);
    const double rest = a->full && e.t > 1 ? e.t * log(e.t) - e.t + log(TWO_PI * e.t) / 2 : 0;
    return loss + rest;
}

static inline double poisson_nll_slope(gd_element e) {
    return e.attrs->log_input ? exp(e.x) - e.t : 1 - e.t / (e.x + e.attrs->eps);
}

static void poisson_nll_chain(const struct gd_elementwise *attrs, gd_chain *chain) {
    if (attrs->full)
        (void)gd_chain_pair(chain, "AddBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    if (attrs->log_input) {
        (void)gd_chain_pair(chain, "SubBackward0", GD_CHAIN_NEXT, chain->count + 2);
        chain->nodes[chain->count++] = (gd_grad_fn){"ExpBackward0", {GD_NEXT_INPUT(0)}, 1};
        (void)gd_chain_pair(chain, "MulBackward0", GD_NEXT_NONE, GD_NEXT_INPUT(0));
    } else {
        (void)gd_chain_pair(chain, "SubBackward0", GD_NEXT_INPUT(0), GD_CHAIN_NEXT);
        (void)gd_chain_pair(chain, "MulBackward0", GD_NEXT_NONE, GD_CHAIN_NEXT);
        (void)gd_chain_next(chain, "LogBackward0");
        chain->nodes[chain->count++] = (gd_grad_fn){"AddBackward1", {GD_NEXT_INPUT(0)}, 1};
    }
}

GD_ELEMENTWISE(poisson_nll, "PoissonNLLLoss", "poisson_nll_loss",
               "Negative log likelihood of a Poisson distribution's counts.", NULL,
               .chain = poisson_nll_chain);
