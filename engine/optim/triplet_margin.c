/* triplet_margin.c -- an anchor nearer to a positive than to a negative example. Formula:
 * torch.nn.TripletMarginLoss: of vectors a, p, n along the last axis,
 *   l = max(0, d(a, p) - d(a, n) + margin),  d(u, v) = ||u - v + eps||_p,
 * with swap min(d(a, n), d(p, n)) in place of d(a, n), a tie sharing its gradient. There is no target.
 * torch's clamp(min=0) has slope 1 at 0. */
#include "engine/optim/packed.h"

struct triplet {
    double margin, p, eps;
    bool swap;
    int reduction;
};

static const gd_attr triplet_attrs[] = {
    GD_FLOAT(struct triplet, margin, .number = 1, .doc = "how much nearer the positive should be"),
    GD_FLOAT(struct triplet, p, .number = 2, .min = 0, .doc = "the distance's norm"),
    GD_FLOAT(struct triplet, eps, .number = 1e-6, .doc = "added to each difference"),
    GD_BOOL(struct triplet, swap, .doc = "use the positive's distance to the negative where it is less"),
    GD_CHOICE(struct triplet, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the triplets' losses"),
};

enum { ANCHOR, POSITIVE, NEGATIVE, PARTS };

static int triplet_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                           gd_loss_plan *ret_plan, gd_error *error) {
    const struct triplet *a = attrs;
    (void)target;
    int code = gd_packed_check_output("TripletMarginLoss", &output->shape, PARTS, 3,
                                      "the anchor, the positive and the negative", error);
    if (code)
        return code;
    gd_shape rows = gd_loss_without_axis_1(&output->shape);
    rows.dim[--rows.rank] = 0;
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &rows)};
    return 0;
}

/* Triplets and their vectors: (N, PARTS, rows, size). */
typedef struct triplets {
    int64_t batch, rows, size;
} triplets;

static triplets triplets_of(const gd_shape *output) {
    const gd_packed g = gd_packed_of(output);
    const int64_t size = output->dim[output->rank - 1];
    return (triplets){g.batch, size ? g.inner / size : 0, size};
}

static double distance(const struct triplet *a, const float *u, const float *v, int64_t size) {
    double sum = 0;
    for (int64_t i = 0; i < size; i++) {
        const double z = fabs((double)u[i] - v[i] + a->eps);
        sum += a->p == 2 ? z * z : a->p == 1 ? z : z == 0 ? 0 : pow(z, a->p);
    }
    return a->p == 2 ? sqrt(sum) : a->p == 1 || a->p == 0 ? sum : pow(sum, 1 / a->p);
}

/* du += factor dd/du and dv -= the same, with dd/du_i = sign(z_i) (|z_i| / d)^(p-1), 0 where z_i is. */
static void add_slope(const struct triplet *a, const float *u, const float *v, double d, double factor,
                      int64_t size, float *du, float *dv) {
    for (int64_t i = 0; i < size; i++) {
        const double z = (double)u[i] - v[i] + a->eps;
        if (z == 0 || a->p == 0)
            continue;
        const double slope = factor * (a->p == 2 ? z / d : copysign(pow(fabs(z) / d, a->p - 1), z));
        du[i] += (float)slope;
        dv[i] -= (float)slope;
    }
}

/* A triplet's distances and loss before the clamp. */
typedef struct spread {
    const float *x[PARTS];
    double positive, negative, swapped, excess;
} spread;

static spread spread_of(const struct triplet *a, const float *x, const triplets *t) {
    spread s = {.x = {x, x + t->rows * t->size, x + 2 * t->rows * t->size}};
    s.positive = distance(a, s.x[ANCHOR], s.x[POSITIVE], t->size);
    s.negative = distance(a, s.x[ANCHOR], s.x[NEGATIVE], t->size);
    s.swapped = a->swap ? distance(a, s.x[POSITIVE], s.x[NEGATIVE], t->size) : INFINITY;
    s.excess = s.positive - (s.swapped < s.negative ? s.swapped : s.negative) + a->margin;
    return s;
}

static void triplet_forward(const gd_loss_call *call) {
    const struct triplet *a = call->attrs;
    const triplets t = triplets_of(&call->output->shape);
    double sum = 0;
    for (int64_t n = 0; n < t.batch; n++)
        for (int64_t r = 0; r < t.rows; r++) {
            const float *x = (const float *)call->output->data + (PARTS * n * t.rows + r) * t.size;
            const double excess = spread_of(a, x, &t).excess, loss = excess < 0 ? 0 : excess;
            if (a->reduction == GD_REDUCE_NONE)
                call->loss[n * t.rows + r] = (float)loss;
            sum += loss;
        }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum / gd_loss_divisor(a->reduction, t.batch * t.rows));
}

static void triplet_backward(const gd_loss_call *call) {
    const struct triplet *a = call->attrs;
    const triplets t = triplets_of(&call->output->shape);
    const double factor = 1 / gd_loss_divisor(a->reduction, t.batch * t.rows);
    memset(call->grad, 0, gd_tensor_bytes(call->output));
    for (int64_t n = 0; n < t.batch; n++)
        for (int64_t r = 0; r < t.rows; r++) {
            const int64_t at = (PARTS * n * t.rows + r) * t.size, part = t.rows * t.size;
            const spread s = spread_of(a, (const float *)call->output->data + at, &t);
            float *da = call->grad + at, *dp = da + part, *dn = dp + part;
            if (s.excess < 0)
                continue;
            const double share = !a->swap || s.negative < s.swapped ? 1 : s.negative > s.swapped ? 0 : 0.5;
            add_slope(a, s.x[ANCHOR], s.x[POSITIVE], s.positive, factor, t.size, da, dp);
            if (share > 0)
                add_slope(a, s.x[ANCHOR], s.x[NEGATIVE], s.negative, -factor * share, t.size, da, dn);
            if (share < 1)
                add_slope(a, s.x[POSITIVE], s.x[NEGATIVE], s.swapped, -factor * (1 - share), t.size, dp, dn);
        }
}

/* The nodes of one distance, between two parts. */
static int distance_chain(gd_chain *chain, int unbind) {
    const int at = gd_chain_next(chain, "NormBackward1");
    (void)gd_chain_next(chain, "AddBackward1");
    (void)gd_chain_pair(chain, "SubBackward0", unbind, unbind);
    return at;
}

static int triplet_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                           gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct triplet *a = attrs;
    gd_chain chain = {nodes, 0};
    (void)output, (void)class_indices;
    gd_chain_reduction(&chain, a->reduction);
    (void)gd_chain_next(&chain, "ClampMinBackward0");
    const int difference = gd_chain_pair(&chain, "SubBackward0", GD_NEXT_NONE, GD_NEXT_NONE);
    const int add = gd_chain_next(&chain, "AddBackward1");
    const int unbind = gd_packed_unbind(&chain);
    nodes[difference].next[0] = add;
    nodes[add].next[0] = distance_chain(&chain, unbind);
    if (a->swap) {
        const int minimum = gd_chain_pair(&chain, "MinimumBackward0", GD_NEXT_NONE, GD_NEXT_NONE);
        nodes[difference].next[1] = minimum;
        nodes[minimum].next[0] = distance_chain(&chain, unbind);
        nodes[minimum].next[1] = distance_chain(&chain, unbind);
    } else {
        nodes[difference].next[1] = distance_chain(&chain, unbind);
    }
    return chain.count;
}

const gd_loss gd_loss_triplet_margin = {
    .kind = {.module = "TripletMarginLoss",
             .function = "triplet_margin_loss",
             .doc =
                 "Draws anchors to positives, from negatives; output (N, 3, ..., D) holds them; no target.",
             GD_ATTRS(struct triplet, triplet_attrs)},
    .no_target = true,
    .target_dtype = gd_loss_takes_floats,
    .prepare = triplet_prepare,
    .forward = triplet_forward,
    .backward = triplet_backward,
    .grad_fn = triplet_grad_fn,
};
