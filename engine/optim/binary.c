/* binary.c -- losses of a yes or no, or of a probability: BCELoss, BCEWithLogitsLoss, KLDivLoss,
 * HingeEmbeddingLoss, SoftMarginLoss. Formulas: torch.nn. */
#include "engine/optim/elementwise.h"

#include <inttypes.h>

static bool is_probability(const struct gd_elementwise *attrs, double t) {
    (void)attrs;
    return t >= 0 && t <= 1;
}

static bool is_sign(const struct gd_elementwise *attrs, double t) {
    (void)attrs;
    return t == 1 || t == -1;
}

/* ---- BCELoss: l = -w (t log x + (1 - t) log(1 - x)), logarithms at least -100 ------------------------ */

static const gd_attr bce_attrs[] = {GD_ELEMENTWISE_REDUCTION, GD_ELEMENTWISE_WEIGHT};

static inline double bce_value(gd_element e) {
    return -e.t * fmax(log(e.x), -100) - (1 - e.t) * fmax(log1p(-e.x), -100);
}

/* torch keeps the divisor from 0 with 1e-12. */
static inline double bce_slope(gd_element e) {
    return (e.x - e.t) / fmax((1 - e.x) * e.x, 1e-12);
}

static int bce_check_output(const void *attrs, const gd_tensor *output, gd_error *error) {
    const float *x = output->data;
    const int64_t count = gd_numel(&output->shape);
    for (int64_t i = 0; i < count; i++)
        if (!is_probability(attrs, x[i]))
            return gd_fail(error, GD_E_VALUE,
                           "BCELoss: output element %" PRId64 " is %.6g, but must be 0 to 1; end the network "
                           "with a Sigmoid, or use BCEWithLogitsLoss",
                           i, (double)x[i]);
    return 0;
}

GD_ELEMENTWISE(bce, "BCELoss", "binary_cross_entropy", "Cross entropy of probabilities, each by itself.",
               bce_check_output, .allows = is_probability, .allowed = "0 to 1",
               .grad_name = "BinaryCrossEntropyBackward0", .target_edge = true);

/* ---- BCEWithLogitsLoss: l = -w (p t log s + (1 - t) log(1 - s)), s the sigmoid of x, p pos_weight;
 * log s = -softplus(-x), log(1 - s) = -softplus(x) ----------------------------------------------------- */

static const gd_attr bce_with_logits_attrs[] = {
    GD_ELEMENTWISE_REDUCTION,
    GD_ELEMENTWISE_WEIGHT,
    GD_FLOATS(struct gd_elementwise, pos_weight,
              .doc = "a factor for the targets that are 1, for each element along the last axis"),
};

static inline double bce_with_logits_value(gd_element e) {
    return e.pos_weight * e.t * gd_softplus(-e.x) + (1 - e.t) * gd_softplus(e.x);
}

static inline double bce_with_logits_slope(gd_element e) {
    return (1 - e.t) * gd_sigmoid(e.x) - e.pos_weight * e.t * gd_sigmoid(-e.x);
}

GD_ELEMENTWISE(bce_with_logits, "BCEWithLogitsLoss", "binary_cross_entropy_with_logits",
               "Sigmoid and cross entropy of each element by itself, in one.", NULL, .allows = is_probability,
               .allowed = "0 to 1", .grad_name = "BinaryCrossEntropyWithLogitsBackward0",
               .target_edge = true);

/* ---- KLDivLoss: l = t (log t - x), with log_target exp(t) (t - x); the output is log probabilities ---- */

static const char *const kl_div_reductions[] = {[GD_REDUCE_NONE] = "none",
                                                [GD_REDUCE_MEAN] = "mean",
                                                [GD_REDUCE_SUM] = "sum",
                                                [GD_REDUCE_BATCHMEAN] = "batchmean",
                                                NULL};

static const gd_attr kl_div_attrs[] = {
    GD_CHOICE(struct gd_elementwise, reduction, .number = GD_REDUCE_MEAN, .choices = kl_div_reductions,
              .doc = "what becomes of the elements' losses; batchmean, the divergence itself, is their sum "
                     "over the batch size"),
    GD_BOOL(struct gd_elementwise, log_target, .doc = "the target is log probabilities too"),
};

static bool kl_div_allows(const struct gd_elementwise *attrs, double t) {
    return attrs->log_target || t >= 0;
}

static inline double kl_div_value(gd_element e) {
    if (e.attrs->log_target)
        return exp(e.t) * (e.t - e.x);
    return (e.t == 0 ? 0 : e.t * log(e.t)) - e.t * e.x;
}

static inline double kl_div_slope(gd_element e) {
    return e.attrs->log_target ? -exp(e.t) : -e.t;
}

static void kl_div_chain(const struct gd_elementwise *attrs, gd_chain *chain) {
    (void)gd_chain_pair(chain, attrs->log_target ? "MulBackward0" : "SubBackward0", GD_NEXT_NONE,
                        GD_CHAIN_NEXT);
    (void)gd_chain_pair(chain, attrs->log_target ? "SubBackward0" : "MulBackward0", GD_NEXT_NONE,
                        GD_NEXT_INPUT(0));
}

GD_ELEMENTWISE(kl_div, "KLDivLoss", "kl_div", "Kullback-Leibler divergence from log probabilities.", NULL,
               .allows = kl_div_allows, .allowed = "a probability, not negative (or set log_target)",
               .chain = kl_div_chain);

/* ---- HingeEmbeddingLoss: l = x where t = 1, max(0, margin - x) where t = -1 --------------------------- */

static const gd_attr hinge_embedding_attrs[] = {
    GD_FLOAT(struct gd_elementwise, margin, .number = 1, .doc = "how far unlike pairs should be apart"),
    GD_ELEMENTWISE_REDUCTION,
};

static inline double hinge_embedding_value(gd_element e) {
    const double d = e.attrs->margin - e.x;
    return e.t == 1 ? e.x : d < 0 ? 0 : d;
}

/* torch's clamp has slope 1 at its end. */
static inline double hinge_embedding_slope(gd_element e) {
    return e.t == 1 ? 1 : e.attrs->margin - e.x >= 0 ? -1 : 0;
}

static void hinge_embedding_chain(const struct gd_elementwise *attrs, gd_chain *chain) {
    (void)attrs;
    (void)gd_chain_pair(chain, "AddBackward0", GD_CHAIN_NEXT, chain->count + 4);
    (void)gd_chain_pair(chain, "WhereBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_next(chain, "ClampMinBackward0");
    (void)gd_chain_pair(chain, "SubBackward0", GD_NEXT_NONE, GD_NEXT_INPUT(0));
    (void)gd_chain_pair(chain, "WhereBackward0", GD_NEXT_INPUT(0), GD_NEXT_NONE);
}

GD_ELEMENTWISE(hinge_embedding, "HingeEmbeddingLoss", "hinge_embedding_loss",
               "Draws distances of like pairs to 0 and those of unlike pairs over a margin.", NULL,
               .allows = is_sign, .allowed = "1 (alike) or -1 (unlike)", .chain = hinge_embedding_chain);

/* ---- SoftMarginLoss: l = log(1 + exp(-t x)) ----------------------------------------------------------- */

static const gd_attr soft_margin_attrs[] = {GD_ELEMENTWISE_REDUCTION};

static inline double soft_margin_value(gd_element e) {
    return gd_softplus(-e.t * e.x);
}

static inline double soft_margin_slope(gd_element e) {
    return -e.t * gd_sigmoid(-e.t * e.x);
}

GD_ELEMENTWISE(soft_margin, "SoftMarginLoss", "soft_margin_loss", "Logistic loss of two classes, 1 and -1.",
               NULL, .allows = is_sign, .allowed = "1 or -1", .grad_name = "SoftMarginLossBackward0");
