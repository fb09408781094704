/* ctc.c -- connectionist temporal classification: the likelihood of a label sequence whatever its alignment.
 * Formula: torch.nn.CTCLoss; Graves et al., "Connectionist Temporal Classification" (2006).
 *
 * The output is (N, T, C) log probabilities (torch's is (T, N, C)), the target (N, S + 2): up to S labels,
 * then torch's input_length and target_length. With the labels extended by blanks before, between and after,
 * l' of 2 U + 1 entries, U the target length:
 *   alpha_t(s) = x_t(l'_s) + log(sum of exp alpha_{t-1} of s, s - 1 and, for a label other than the one
 *                before, s - 2),  and beta alike from the end;
 *   l = -log(exp alpha_T(2 U) + exp alpha_T(2 U - 1)).
 * As torch's, the gradient is that of what a log softmax before it was given:
 *   dl/dx_t(c) = exp x_t(c) - exp(l - x_t(c)) sum over s with l'_s = c of exp(alpha_t(s) + beta_t(s)). */
#include <inttypes.h>

#include "engine/optim/loss.h"

struct ctc {
    int64_t blank;
    int reduction;
    bool zero_infinity;
};

static const gd_attr ctc_attrs[] = {
    GD_INT(struct ctc, blank, .min = 0, .doc = "the class that stands for no label"),
    GD_CHOICE(struct ctc, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the sequences' losses; mean divides each by its target length first"),
    GD_BOOL(struct ctc, zero_infinity,
            .doc = "a target that is too long for its input counts as 0 with no gradient"),
};

typedef struct sizes {
    int64_t batch, steps, classes, labels; /* N, T, C, S */
    int64_t width;                         /* 2 S + 1: the most entries of l' */
} sizes;

static sizes sizes_of(const gd_shape *output, const gd_shape *target) {
    const int64_t labels = target->dim[1] - 2;
    return (sizes){output->dim[0], output->dim[1], output->dim[2], labels, 2 * labels + 1};
}

/* One sample: its scores (T, C), its labels and its lengths. */
typedef struct sequence {
    const float *x;
    const int64_t *labels;
    int64_t steps, count;        /* input_length, target_length */
    int64_t classes, blank, end; /* end: entries of l' */
} sequence;

static sequence sequence_at(const gd_loss_call *call, const sizes *z, int64_t n) {
    const struct ctc *a = call->attrs;
    const int64_t *row = (const int64_t *)call->target->data + n * (z->labels + 2);
    return (sequence){.x = (const float *)call->output->data + n * z->steps * z->classes,
                      .labels = row,
                      .steps = row[z->labels],
                      .count = row[z->labels + 1],
                      .classes = z->classes,
                      .blank = a->blank,
                      .end = 2 * row[z->labels + 1] + 1};
}

/* ---- checks ---------------------------------------------------------------------------------------- */

static int check_row(const struct ctc *a, const sizes *z, const int64_t *row, int64_t n, gd_error *error) {
    const int64_t steps = row[z->labels], count = row[z->labels + 1];
    if (steps < 1 || steps > z->steps)
        return gd_fail_field(error, GD_E_VALUE, "target",
                             "CTCLoss: the input length of sample %" PRId64 " (target[:, -2]) is %" PRId64
                             ", but must be 1 to %" PRId64,
                             n, steps, z->steps);
    if (count < 0 || count > z->labels)
        return gd_fail_field(error, GD_E_VALUE, "target",
                             "CTCLoss: the target length of sample %" PRId64 " (target[:, -1]) is %" PRId64
                             ", but must be 0 to %" PRId64,
                             n, count, z->labels);
    for (int64_t u = 0; u < count; u++)
        if (row[u] < 0 || row[u] >= z->classes || row[u] == a->blank)
            return gd_fail_field(error, GD_E_VALUE, "target",
                                 "CTCLoss: label %" PRId64 " of sample %" PRId64 " is %" PRId64
                                 ", but must be 0 to %" PRId64 " and not the blank, %" PRId64,
                                 u, n, row[u], z->classes - 1, a->blank);
    return 0;
}

/* Doubles that forward keeps: l (N), alpha (N, T, 2 S + 1); and that backward works in: beta of two steps,
 * a sum per class. @return false: more than any memory */
static bool saved_bytes(const sizes *z, size_t *ret_bytes) {
    size_t alpha, rest, total;
    return gd_mul((size_t)z->batch, (size_t)z->steps, &alpha) && gd_mul(alpha, (size_t)z->width, &alpha) &&
           gd_mul(2, (size_t)z->width, &rest) && gd_add(rest, (size_t)z->classes, &rest) &&
           gd_add(rest, (size_t)z->batch, &rest) && gd_add(alpha, rest, &total) &&
           gd_mul(total, sizeof(double), ret_bytes) && *ret_bytes <= SIZE_MAX / 4;
}

static int ctc_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                       gd_loss_plan *ret_plan, gd_error *error) {
    const struct ctc *a = attrs;
    const gd_shape *x = &output->shape, *y = &target->shape;
    char text[128];
    size_t bytes;
    if (x->rank != 3 || x->dim[1] < 1 || x->dim[2] < 1)
        return gd_fail(error, GD_E_SHAPE, "CTCLoss wants an output (N, T, C) of log probabilities, got %s",
                       gd_shape_text(x, text, sizeof text));
    if (a->blank >= x->dim[2])
        return gd_fail_field(error, GD_E_ATTRIBUTE, "blank",
                             "CTCLoss: blank is %" PRId64 ", but the output has %" PRId64 " classes (axis 2)",
                             a->blank, x->dim[2]);
    if (y->rank != 2 || y->dim[0] != x->dim[0] || y->dim[1] < 2)
        return gd_fail_field(error, GD_E_SHAPE, "target",
                             "CTCLoss: the target is %s, but must be [%" PRId64
                             ", S + 2]: up to S labels, the input length and the target length",
                             gd_shape_text(y, text, sizeof text), x->dim[0]);
    const sizes z = sizes_of(x, y);
    for (int64_t n = 0; target->data && n < z.batch; n++) {
        int code = check_row(a, &z, (const int64_t *)target->data + n * (z.labels + 2), n, error);
        if (code)
            return code;
    }
    if (!saved_bytes(&z, &bytes))
        return gd_fail(error, GD_E_LIMIT, "CTCLoss: these sequences are larger than any memory");
    const gd_shape samples = GD_SHAPE(z.batch);
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &samples), .saved = bytes};
    return 0;
}

/* The longest targets that make sense: a label at each step. */
static gd_shape ctc_target_shape(const void *attrs, const gd_shape *output) {
    (void)attrs;
    return GD_SHAPE(output->dim[0], output->rank > 1 ? output->dim[1] + 2 : 2);
}

/* ---- computing --------------------------------------------------------------------------------------- */

/* log(exp a + exp b) */
static double log_add(double a, double b) {
    const double most = a > b ? a : b, least = a > b ? b : a;
    return most == -INFINITY ? most : most + log1p(exp(least - most));
}

/* l'_s */
static int64_t extended(const sequence *q, int64_t s) {
    return s % 2 ? q->labels[s / 2] : q->blank;
}

/* Whether one may step from s - 2 to s: over a blank, between two labels that differ. */
static bool may_skip(const sequence *q, int64_t s) {
    return s % 2 && s >= 3 && s < q->end && q->labels[s / 2] != q->labels[s / 2 - 1];
}

/* alpha (steps, width) of one sample. @return l */
static double alphas(const sequence *q, int64_t width, double *alpha) {
    for (int64_t s = 0; s < q->end; s++)
        alpha[s] = s < 2 ? q->x[extended(q, s)] : -INFINITY;
    for (int64_t t = 1; t < q->steps; t++) {
        const double *before = alpha + (t - 1) * width;
        for (int64_t s = 0; s < q->end; s++) {
            double sum = before[s];
            if (s >= 1)
                sum = log_add(sum, before[s - 1]);
            if (may_skip(q, s))
                sum = log_add(sum, before[s - 2]);
            alpha[t * width + s] = sum + q->x[t * q->classes + extended(q, s)];
        }
    }
    const double *last = alpha + (q->steps - 1) * width;
    return -(q->end > 1 ? log_add(last[q->end - 1], last[q->end - 2]) : last[q->end - 1]);
}

/* beta of step t from that of the step after (NULL: t is the last). */
static void betas(const sequence *q, int64_t t, const double *after, double *beta) {
    for (int64_t s = 0; s < q->end; s++) {
        double sum = s + 2 >= q->end ? 0 : -INFINITY;
        if (after) {
            sum = after[s];
            if (s + 1 < q->end)
                sum = log_add(sum, after[s + 1]);
            if (may_skip(q, s + 2))
                sum = log_add(sum, after[s + 2]);
        }
        beta[s] = sum + q->x[t * q->classes + extended(q, s)];
    }
}

/* What a sample's loss counts for in the result. */
static double share_of(const struct ctc *a, const sequence *q, int64_t batch) {
    if (a->reduction != GD_REDUCE_MEAN)
        return 1;
    return 1 / ((double)batch * (double)(q->count > 1 ? q->count : 1));
}

static void ctc_forward(const gd_loss_call *call) {
    const struct ctc *a = call->attrs;
    const sizes z = sizes_of(&call->output->shape, &call->target->shape);
    double *losses = call->saved, *alpha = losses + z.batch, sum = 0;
    for (int64_t n = 0; n < z.batch; n++) {
        const sequence q = sequence_at(call, &z, n);
        losses[n] = alphas(&q, z.width, alpha + n * z.steps * z.width);
        const double loss = a->zero_infinity && losses[n] == INFINITY ? 0 : losses[n];
        if (a->reduction == GD_REDUCE_NONE)
            call->loss[n] = (float)loss;
        sum += share_of(a, &q, z.batch) * loss;
    }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)sum;
}

/* One sample's gradient (T, C), zero before. An impossible target's is NaN, as torch's. */
static void sequence_backward(const sequence *q, const sizes *z, double loss, double share,
                              const double *alpha, double *work, float *dx) {
    double *beta = work, *after = work + z->width, *sums = work + 2 * z->width;
    for (int64_t t = q->steps - 1; t >= 0; t--) {
        const float *x = q->x + t * z->classes;
        betas(q, t, t == q->steps - 1 ? NULL : after, beta);
        for (int64_t c = 0; c < z->classes; c++)
            sums[c] = -INFINITY;
        for (int64_t s = 0; s < q->end; s++) {
            double *sum = &sums[extended(q, s)];
            *sum = log_add(*sum, alpha[t * z->width + s] + beta[s]);
        }
        for (int64_t c = 0; c < z->classes; c++) {
            const double through = sums[c] == -INFINITY ? 0 : exp(sums[c] + loss - x[c]);
            dx[t * z->classes + c] = loss == INFINITY ? NAN : (float)(share * (exp((double)x[c]) - through));
        }
        double *swap = beta;
        beta = after;
        after = swap;
    }
}

static void ctc_backward(const gd_loss_call *call) {
    const struct ctc *a = call->attrs;
    const sizes z = sizes_of(&call->output->shape, &call->target->shape);
    double *losses = call->saved, *alpha = losses + z.batch, *work = alpha + z.batch * z.steps * z.width;
    memset(call->grad, 0, gd_tensor_bytes(call->output));
    for (int64_t n = 0; n < z.batch; n++) {
        const sequence q = sequence_at(call, &z, n);
        if (!(a->zero_infinity && losses[n] == INFINITY))
            sequence_backward(&q, &z, losses[n], share_of(a, &q, z.batch), alpha + n * z.steps * z.width,
                              work, call->grad + n * z.steps * z.classes);
    }
}

static int ctc_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                       gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct ctc *a = attrs;
    gd_chain chain = {nodes, 0};
    (void)output, (void)class_indices;
    gd_chain_reduction(&chain, a->reduction);
    if (a->reduction == GD_REDUCE_MEAN)
        (void)gd_chain_pair(&chain, "DivBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    if (a->zero_infinity)
        (void)gd_chain_pair(&chain, "WhereBackward0", GD_NEXT_NONE, GD_CHAIN_NEXT);
    (void)gd_chain_next(&chain, "CtcLossBackward0");
    nodes[chain.count++] = (gd_grad_fn){"TransposeBackward0", {GD_NEXT_INPUT(0)}, 1};
    return chain.count;
}

const gd_loss gd_loss_ctc = {
    .kind = {.module = "CTCLoss",
             .function = "ctc_loss",
             .doc =
                 "Likelihood of label sequences in (N, T, C) log probabilities; target (N, S + 2): labels, "
                 "input length, target length.",
             GD_ATTRS(struct ctc, ctc_attrs)},
    .target_dtype = gd_loss_takes_indices,
    .prepare = ctc_prepare,
    .target_shape = ctc_target_shape,
    .forward = ctc_forward,
    .backward = ctc_backward,
    .grad_fn = ctc_grad_fn,
};
