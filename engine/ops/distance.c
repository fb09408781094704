/* distance.c -- how near two inputs are along an axis: torch.nn.CosineSimilarity, torch.nn.PairwiseDistance.
 */
#include <inttypes.h>

#include "engine/ops/axes.h"
#include "engine/ops/broadcast.h"

/* Both inputs broadcast, and cut into lines along one axis. One line is n elements of each. */
typedef struct lines {
    gd_broadcast walk; /* over the outputs, beside it where a line begins in each input */
    int64_t n;
    int64_t step[2]; /* from one element of a line to the next */
} lines;

static lines lines_of(const gd_call *call, int axis_from_the_end) {
    const gd_shape *x[] = {&call->inputs[0].shape, &call->inputs[1].shape};
    const int rank = x[0]->rank > x[1]->rank ? x[0]->rank : x[1]->rank;
    lines l = {.walk = {.rows = 1}, .n = 1};
    gd_broadcast *w = &l.walk;
    int64_t passed[2] = {1, 1};
    for (int k = 1; k <= rank; k++) { /* from the last axis on */
        int64_t size[2], step[2];
        for (int i = 0; i < 2; i++) {
            size[i] = k > x[i]->rank ? 1 : x[i]->dim[x[i]->rank - k];
            step[i] = size[i] == 1 ? 0 : passed[i];
            passed[i] *= size[i];
        }
        const int64_t both = size[0] == 1 ? size[1] : size[0];
        if (k == axis_from_the_end) {
            l.n = both;
            memcpy(l.step, step, sizeof step);
            continue;
        }
        w->step[0][w->rank] = step[0];
        w->step[1][w->rank] = step[1];
        w->size[w->rank++] = both;
    }
    if (!w->rank)
        w->size[w->rank++] = 1;
    for (int k = 1; k < w->rank; k++)
        w->rows *= w->size[k];
    return l;
}

/* One line of both inputs, and its gradients where they are wanted. */
typedef struct line {
    const float *a, *b;
    float *da, *db;
    int64_t n, a_step, b_step;
} line;

static line line_at(const gd_call *call, const lines *l, int64_t i) {
    const int64_t a = l->walk.offset[0] + i * l->walk.step[0][0],
                  b = l->walk.offset[1] + i * l->walk.step[1][0];
    line at = {.a = (const float *)call->inputs[0].data + a,
               .b = (const float *)call->inputs[1].data + b,
               .n = l->n,
               .a_step = l->step[0],
               .b_step = l->step[1]};
    if (call->input_grads && call->input_grads[0].data)
        at.da = (float *)call->input_grads[0].data + a;
    if (call->input_grads && call->input_grads[1].data)
        at.db = (float *)call->input_grads[1].data + b;
    return at;
}

/* Gradients of repeated lines add up. */
static void clear_gradients(const gd_call *call) {
    for (int i = 0; i < 2; i++)
        if (call->input_grads[i].data && !call->accumulate[i])
            memset(call->input_grads[i].data, 0, gd_tensor_bytes(&call->input_grads[i]));
}

static void forward(const gd_call *call, int axis_from_the_end,
                    double (*f)(const void *attrs, const line *at)) {
    lines l = lines_of(call, axis_from_the_end);
    float *y = call->outputs[0].data;
    for (int64_t r = 0; r < l.walk.rows; r++, gd_broadcast_next(&l.walk))
        for (int64_t i = 0; i < l.walk.size[0]; i++) {
            const line at = line_at(call, &l, i);
            *y++ = (float)f(call->attrs, &at);
        }
}

static void backward(const gd_call *call, int axis_from_the_end,
                     void (*f)(const void *attrs, const line *at, double g)) {
    lines l = lines_of(call, axis_from_the_end);
    const float *dy = call->output_grads[0].data;
    clear_gradients(call);
    for (int64_t r = 0; r < l.walk.rows; r++, gd_broadcast_next(&l.walk))
        for (int64_t i = 0; i < l.walk.size[0]; i++) {
            const line at = line_at(call, &l, i);
            f(call->attrs, &at, *dy++);
        }
}

/* The output: both broadcast, without the axis or with it of size 1. */
static void drop_axis(gd_infer *infer, int axis, bool keep) {
    gd_shape *y = &infer->outputs[0];
    y->dim[axis] = 1;
    if (keep)
        return;
    for (int i = axis; i + 1 < y->rank; i++)
        y->dim[i] = y->dim[i + 1];
    y->rank--;
    if (infer->axes[0] > axis)
        infer->axes[0]--;
}

/* ---- CosineSimilarity ------------------------------------------------------------------------------- */

struct cosine {
    int64_t dim;
    double eps;
};

static const gd_attr cosine_attrs[] = {
    GD_INT(struct cosine, dim, .number = 1, .doc = "the axis along which the vectors lie"),
    GD_FLOAT(struct cosine, eps, .number = 1e-8, .min = 0, .doc = "the least a vector's length counts as"),
};

static int cosine_infer(gd_infer *infer) {
    const struct cosine *a = infer->attrs;
    int code = gd_broadcast_infer(infer), axis;
    if (!code)
        code = gd_axis(infer, "dim", a->dim, infer->outputs[0].rank, &axis);
    if (code)
        return code;
    if (axis == infer->axes[0])
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "dim",
                             "dim is %" PRId64
                             ", the batch axis, but samples are kept apart; name another of the "
                             "%d axes",
                             a->dim, infer->outputs[0].rank);
    drop_axis(infer, axis, false);
    return 0;
}

/* Dot product and lengths, these at least eps. */
typedef struct cosine_parts {
    double dot, a, b;
} cosine_parts;

static cosine_parts cosine_parts_of(const struct cosine *c, const line *at) {
    double ab = 0, aa = 0, bb = 0;
#pragma omp simd reduction(+ : ab, aa, bb)
    for (int64_t i = 0; i < at->n; i++) {
        const double a = at->a[i * at->a_step], b = at->b[i * at->b_step];
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    aa = sqrt(aa), bb = sqrt(bb);
    return (cosine_parts){ab, aa < c->eps ? c->eps : aa, bb < c->eps ? c->eps : bb};
}

/* y = a . b / (|a| |b|) */
static double cosine(const void *attrs, const line *at) {
    const cosine_parts p = cosine_parts_of(attrs, at);
    return p.dot / p.a / p.b;
}

/* da = g / |a| (b / |b| - y a / |a|), db likewise. Like torch's, it goes through a length below eps as if
 * that were the vector's. */
static void cosine_slopes(const void *attrs, const line *at, double g) {
    const cosine_parts p = cosine_parts_of(attrs, at);
    const double y = p.dot / p.a / p.b;
    for (int64_t i = 0; i < at->n; i++) {
        const double a = at->a[i * at->a_step] / p.a, b = at->b[i * at->b_step] / p.b;
        if (at->da)
            at->da[i * at->a_step] += (float)(g / p.a * (b - y * a));
        if (at->db)
            at->db[i * at->b_step] += (float)(g / p.b * (a - y * b));
    }
}

/* The axis as lines_of() counts. */
static int from_the_end(const gd_call *call) {
    const int one = call->inputs[0].shape.rank, two = call->inputs[1].shape.rank,
              rank = one > two ? one : two;
    return rank - gd_axis_of(((const struct cosine *)call->attrs)->dim, rank);
}

static void cosine_forward(const gd_call *call) {
    forward(call, from_the_end(call), cosine);
}

static void cosine_backward(const gd_call *call) {
    backward(call, from_the_end(call), cosine_slopes);
}

static int cosine_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    static const gd_grad_fn table[] = {
        {"SumBackward1", {1}, 1},
        {"MulBackward0", {2, 7}, 2},
        {"DivBackward0", {3, 4}, 2},
        {"ExpandBackward0", {GD_NEXT_INPUT(0)}, 1},
        {"SqrtBackward0", {5}, 1},
        {"SumBackward1", {6}, 1},
        {"PowBackward0", {3}, 1},
        {"DivBackward0", {8, 9}, 2},
        {"ExpandBackward0", {GD_NEXT_INPUT(1)}, 1},
        {"SqrtBackward0", {10}, 1},
        {"SumBackward1", {11}, 1},
        {"PowBackward0", {8}, 1},
    };
    (void)attrs, (void)inputs;
    memcpy(nodes, table, sizeof table);
    return (int)GD_COUNT(table);
}

const gd_op gd_op_cosine_similarity = {
    .kind = {.module = "CosineSimilarity",
             .function = "cosine_similarity",
             .doc = "Cosine of the angle between two vectors along an axis.",
             GD_ATTRS(struct cosine, cosine_attrs)},
    .min_inputs = 2,
    .max_inputs = 2,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = cosine_infer,
    .forward = cosine_forward,
    .backward = cosine_backward,
    .grad_fn = cosine_grad_fn,
};

/* ---- PairwiseDistance ------------------------------------------------------------------------------- */

struct pairwise {
    double p, eps;
    bool keepdim;
};

static const gd_attr pairwise_attrs[] = {
    GD_FLOAT(struct pairwise, p, .number = 2, .min = 0,
             .doc = "which norm; \"Infinity\": the largest difference"),
    GD_FLOAT(struct pairwise, eps, .number = 1e-6, .doc = "added to each difference"),
    GD_BOOL(struct pairwise, keepdim, .doc = "leave the last axis there, with size 1"),
};

static int pairwise_infer(gd_infer *infer) {
    const struct pairwise *a = infer->attrs;
    int code = gd_broadcast_infer(infer);
    if (code)
        return code;
    const int axis = infer->outputs[0].rank - 1;
    if (axis < 0 || axis == infer->axes[0])
        return gd_fail(infer->error, GD_E_SHAPE,
                       "the distance is along the last axis, and here that is the batch: it takes samples of "
                       "[..., features]");
    drop_axis(infer, axis, a->keepdim);
    return 0;
}

static double difference(const struct pairwise *p, const line *at, int64_t i) {
    return (double)at->a[i * at->a_step] - at->b[i * at->b_step] + p->eps;
}

/* y = |a - b + eps|, the p-norm: (sum |d|^p)^(1/p); p = 0: how many are not 0; infinite: the largest |d| */
static double pairwise(const void *attrs, const line *at) {
    const struct pairwise *p = attrs;
    double sum = 0;
    for (int64_t i = 0; i < at->n; i++) {
        const double d = fabs(difference(p, at, i));
        if (isinf(p->p))
            sum = d > sum || isnan(d) ? d : sum;
        else
            sum += p->p == 2 ? d * d : p->p == 1 ? d : p->p == 0 ? d != 0 : pow(d, p->p);
    }
    if (p->p == 0 || p->p == 1 || isinf(p->p))
        return sum;
    return p->p == 2 ? sqrt(sum) : pow(sum, 1 / p->p);
}

/* dy/dd = sign(d) (|d| / y)^(p - 1), 0 where y is 0; for the largest difference sign(d), shared by ties */
static double pairwise_slope(const struct pairwise *p, double d, double y, double ties) {
    const double sign = d > 0 ? 1 : d < 0 ? -1 : 0;
    if (p->p == 0 || d == 0 || y == 0)
        return 0;
    if (isinf(p->p))
        return fabs(d) == y ? sign / ties : 0;
    return p->p == 2 ? d / y : p->p == 1 ? sign : sign * pow(fabs(d) / y, p->p - 1);
}

static void pairwise_slopes(const void *attrs, const line *at, double g) {
    const struct pairwise *p = attrs;
    const double y = pairwise(p, at);
    double ties = 0;
    for (int64_t i = 0; isinf(p->p) && i < at->n; i++)
        ties += fabs(difference(p, at, i)) == y;
    for (int64_t i = 0; i < at->n; i++) {
        const float slope = (float)(g * pairwise_slope(p, difference(p, at, i), y, ties));
        if (at->da)
            at->da[i * at->a_step] += slope;
        if (at->db)
            at->db[i * at->b_step] -= slope;
    }
}

static void pairwise_forward(const gd_call *call) {
    forward(call, 1, pairwise);
}

static void pairwise_backward(const gd_call *call) {
    backward(call, 1, pairwise_slopes);
}

static int pairwise_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs, (void)inputs;
    nodes[0] = (gd_grad_fn){"NormBackward1", {1}, 1};
    nodes[1] = (gd_grad_fn){"AddBackward1", {2}, 1};
    nodes[2] = (gd_grad_fn){"SubBackward0", {GD_NEXT_INPUT(0), GD_NEXT_INPUT(1)}, 2};
    return 3;
}

const gd_op gd_op_pairwise_distance = {
    .kind = {.module = "PairwiseDistance",
             .function = "pairwise_distance",
             .doc = "Distance between two vectors along the last axis.",
             GD_ATTRS(struct pairwise, pairwise_attrs)},
    .min_inputs = 2,
    .max_inputs = 2,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = pairwise_infer,
    .forward = pairwise_forward,
    .backward = pairwise_backward,
    .grad_fn = pairwise_grad_fn,
};
