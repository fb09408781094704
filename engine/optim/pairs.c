/* pairs.c -- losses of two things and whether they belong together: MarginRankingLoss and
 * CosineEmbeddingLoss. Formulas: torch.nn. torch's clamp(min=0) has slope 1 at 0. */
#include "engine/optim/packed.h"

struct pair {
    double margin;
    int reduction;
};

static gd_shape pair_target_shape(const void *attrs, const gd_shape *output) {
    (void)attrs;
    return output->rank < 2 ? *output : gd_loss_without_axis_1(output);
}

/* ---- MarginRankingLoss: l = max(0, -t (x1 - x2) + margin), t = 1 where x1 should be above x2 --------- */

static const gd_attr margin_ranking_attrs[] = {
    GD_FLOAT(struct pair, margin, .doc = "how far above the other one should be"),
    GD_CHOICE(struct pair, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the pairs' losses"),
};

static int margin_ranking_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                                  gd_loss_plan *ret_plan, gd_error *error) {
    const struct pair *a = attrs;
    int code = gd_packed_check_output("MarginRankingLoss", &output->shape, 2, 2, "two things to rank", error);
    if (code)
        return code;
    const gd_shape part = gd_loss_without_axis_1(&output->shape);
    if ((code = gd_packed_check_target("MarginRankingLoss", &target->shape, &part, error)) ||
        (code = gd_packed_check_signs("MarginRankingLoss", target, error)))
        return code;
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &part)};
    return 0;
}

/* -t (x1 - x2) + margin; x points at x1. */
static double shortfall(const struct pair *a, const float *x, int64_t inner, double t) {
    return -t * ((double)x[0] - x[inner]) + a->margin;
}

static void margin_ranking_forward(const gd_loss_call *call) {
    const struct pair *a = call->attrs;
    const gd_packed g = gd_packed_of(&call->output->shape);
    double sum = 0;
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const float *x = (const float *)call->output->data + 2 * n * g.inner + i;
            const double z = shortfall(a, x, g.inner, ((const float *)call->target->data)[n * g.inner + i]);
            const double loss = z < 0 ? 0 : z;
            if (a->reduction == GD_REDUCE_NONE)
                call->loss[n * g.inner + i] = (float)loss;
            sum += loss;
        }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum / gd_loss_divisor(a->reduction, g.batch * g.inner));
}

static void margin_ranking_backward(const gd_loss_call *call) {
    const struct pair *a = call->attrs;
    const gd_packed g = gd_packed_of(&call->output->shape);
    const double factor = 1 / gd_loss_divisor(a->reduction, g.batch * g.inner);
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const int64_t at = 2 * n * g.inner + i;
            const double t = ((const float *)call->target->data)[n * g.inner + i];
            const double z = shortfall(a, (const float *)call->output->data + at, g.inner, t);
            const float slope = z >= 0 ? (float)(factor * t) : 0;
            call->grad[at] = -slope;
            call->grad[at + g.inner] = slope;
        }
}

static int margin_ranking_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                                  gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct pair *a = attrs;
    gd_chain chain = {nodes, 0};
    (void)output, (void)class_indices;
    gd_chain_reduction(&chain, a->reduction);
    (void)gd_chain_next(&chain, "ClampMinBackward0");
    (void)gd_chain_next(&chain, "AddBackward1");
    (void)gd_chain_pair(&chain, "MulBackward0", GD_NEXT_NONE, GD_CHAIN_NEXT);
    (void)gd_chain_pair(&chain, "SubBackward0", GD_CHAIN_NEXT, GD_CHAIN_NEXT);
    (void)gd_packed_unbind(&chain);
    return chain.count;
}

const gd_loss gd_loss_margin_ranking = {
    .kind = {.module = "MarginRankingLoss",
             .function = "margin_ranking_loss",
             .doc = "Ranks x1 above (target 1) or below (-1) x2 by a margin; output (N, 2, ...): x1, x2.",
             GD_ATTRS(struct pair, margin_ranking_attrs)},
    .target_dtype = gd_loss_takes_floats,
    .prepare = margin_ranking_prepare,
    .target_shape = pair_target_shape,
    .forward = margin_ranking_forward,
    .backward = margin_ranking_backward,
    .grad_fn = margin_ranking_grad_fn,
};

/* ---- CosineEmbeddingLoss: l = 1 - c where t = 1, max(0, c - margin) where t = -1, with the cosine
 * c = x1 x2 / sqrt((x1 x1 + e) (x2 x2 + e)), e = 1e-12 ------------------------------------------------ */

static const gd_attr cosine_embedding_attrs[] = {
    GD_FLOAT(struct pair, margin, .doc = "the cosine that unlike pairs may have; torch suggests 0 to 0.5"),
    GD_CHOICE(struct pair, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the pairs' losses"),
};

static gd_shape cosine_embedding_target_shape(const void *attrs, const gd_shape *output) {
    (void)attrs;
    return GD_SHAPE(output->dim[0]);
}

static int cosine_embedding_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                                    gd_loss_plan *ret_plan, gd_error *error) {
    const struct pair *a = attrs;
    char text[128];
    int code = gd_packed_check_output("CosineEmbeddingLoss", &output->shape, 2, 3, "two vectors", error);
    if (code)
        return code;
    if (output->shape.rank != 3)
        return gd_fail(error, GD_E_SHAPE, "CosineEmbeddingLoss wants an output (N, 2, D), got %s",
                       gd_shape_text(&output->shape, text, sizeof text));
    const gd_shape pairs = GD_SHAPE(output->shape.dim[0]);
    if ((code = gd_packed_check_target("CosineEmbeddingLoss", &target->shape, &pairs, error)) ||
        (code = gd_packed_check_signs("CosineEmbeddingLoss", target, error)))
        return code;
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &pairs)};
    return 0;
}

/* A pair's cosine and squared lengths. */
typedef struct angle {
    double cosine, square1, square2;
} angle;

static angle angle_of(const float *x1, const float *x2, int64_t size) {
    angle a = {0, 1e-12, 1e-12};
    double product = 0;
    for (int64_t i = 0; i < size; i++) {
        product += (double)x1[i] * x2[i];
        a.square1 += (double)x1[i] * x1[i];
        a.square2 += (double)x2[i] * x2[i];
    }
    a.cosine = product / sqrt(a.square1 * a.square2);
    return a;
}

static void cosine_embedding_forward(const gd_loss_call *call) {
    const struct pair *a = call->attrs;
    const gd_packed g = gd_packed_of(&call->output->shape);
    double sum = 0;
    for (int64_t n = 0; n < g.batch; n++) {
        const float *x1 = (const float *)call->output->data + 2 * n * g.inner;
        const double c = angle_of(x1, x1 + g.inner, g.inner).cosine, over = c - a->margin;
        const double loss = ((const float *)call->target->data)[n] == 1 ? 1 - c : over < 0 ? 0 : over;
        if (a->reduction == GD_REDUCE_NONE)
            call->loss[n] = (float)loss;
        sum += loss;
    }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum / gd_loss_divisor(a->reduction, g.batch));
}

/* dc/dx1 = x2 / sqrt((x1 x1 + e) (x2 x2 + e)) - c x1 / (x1 x1 + e), and so for x2 */
static void cosine_embedding_backward(const gd_loss_call *call) {
    const struct pair *a = call->attrs;
    const gd_packed g = gd_packed_of(&call->output->shape);
    for (int64_t n = 0; n < g.batch; n++) {
        const float *x1 = (const float *)call->output->data + 2 * n * g.inner, *x2 = x1 + g.inner;
        float *dx1 = call->grad + 2 * n * g.inner, *dx2 = dx1 + g.inner;
        const angle at = angle_of(x1, x2, g.inner);
        const bool alike = ((const float *)call->target->data)[n] == 1;
        const double slope = alike ? -1 : at.cosine - a->margin >= 0 ? 1 : 0;
        const double factor = slope / gd_loss_divisor(a->reduction, g.batch);
        const double across = factor / sqrt(at.square1 * at.square2);
        const double along1 = factor * at.cosine / at.square1, along2 = factor * at.cosine / at.square2;
        for (int64_t i = 0; i < g.inner; i++) {
            dx1[i] = (float)(across * x2[i] - along1 * x1[i]);
            dx2[i] = (float)(across * x1[i] - along2 * x2[i]);
        }
    }
}

/* The nodes of a squared length. */
static int square_chain(gd_chain *chain, int unbind) {
    const int at = gd_chain_next(chain, "AddBackward1");
    (void)gd_chain_next(chain, "SumBackward1");
    (void)gd_chain_pair(chain, "MulBackward0", unbind, unbind);
    return at;
}

static int cosine_embedding_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                                    gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct pair *a = attrs;
    gd_chain chain = {nodes, 0};
    (void)output, (void)class_indices;
    gd_chain_reduction(&chain, a->reduction);
    const int sum = gd_chain_pair(&chain, "AddBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_pair(&chain, "WhereBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_pair(&chain, "SubBackward0", GD_NEXT_NONE, GD_CHAIN_NEXT);
    const int cosine = gd_chain_pair(&chain, "DivBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_next(&chain, "SumBackward1");
    (void)gd_chain_pair(&chain, "MulBackward0", GD_CHAIN_NEXT, GD_CHAIN_NEXT);
    const int unbind = gd_packed_unbind(&chain);
    nodes[cosine].next[1] = gd_chain_next(&chain, "SqrtBackward0");
    const int squares = gd_chain_pair(&chain, "MulBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)square_chain(&chain, unbind);
    nodes[squares].next[1] = square_chain(&chain, unbind);
    nodes[sum].next[1] = gd_chain_pair(&chain, "WhereBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_next(&chain, "ClampMinBackward0");
    nodes[chain.count++] = (gd_grad_fn){"SubBackward1", {cosine}, 1};
    return chain.count;
}

const gd_loss gd_loss_cosine_embedding = {
    .kind = {.module = "CosineEmbeddingLoss",
             .function = "cosine_embedding_loss",
             .doc = "Turns like vectors (target 1) together and unlike (-1) apart; output (N, 2, D): x1, x2.",
             GD_ATTRS(struct pair, cosine_embedding_attrs)},
    .target_dtype = gd_loss_takes_floats,
    .prepare = cosine_embedding_prepare,
    .target_shape = cosine_embedding_target_shape,
    .forward = cosine_embedding_forward,
    .backward = cosine_embedding_backward,
    .grad_fn = cosine_embedding_grad_fn,
};
