/* lbfgs.c -- limited-memory BFGS. Formulas: torch.optim.LBFGS; Nocedal and Wright, Numerical Optimization,
 * 2nd ed., algorithm 7.4 (two-loop recursion). All parameters are one vector x, all gradients one vector g.
 */
#include "engine/optim/line_search.h"
#include "engine/optim/optimizer.h"
#include "engine/optim/vectors.h"

struct lbfgs {
    double lr;
    int64_t max_iter, max_eval;
    double tolerance_grad, tolerance_change;
    int64_t history_size;
    int line_search_fn; /* -1: none */
};

static const char *const line_searches[] = {"strong_wolfe", NULL};

static const gd_attr lbfgs_attrs[] = {
    GD_FLOAT(struct lbfgs, lr, .min = 0, .number = 1,
             .doc = "length of a step, or with a line search of the first try"),
    GD_INT(struct lbfgs, max_iter, .min = 1, .number = 20,
           .doc = "most changes of the parameters in one step"),
    GD_INT(struct lbfgs, max_eval, .min = 1, .nullable = true, .number = NAN,
           .doc = "evaluations of the loss after which a step ends; null: 5/4 of max_iter"),
    GD_FLOAT(struct lbfgs, tolerance_grad, .min = 0, .number = 1e-7,
             .doc = "a step ends when no gradient is larger"),
    GD_FLOAT(struct lbfgs, tolerance_change, .min = 0, .number = 1e-9,
             .doc = "a step ends when the loss, or every parameter, changes by less"),
    GD_INT(struct lbfgs, history_size, .min = 1, .number = 100,
           .doc = "changes remembered; each takes twice the parameters' memory. Another one forgets all"),
    GD_CHOICE(struct lbfgs, line_search_fn, .nullable = true, .number = NAN, .choices = line_searches,
              .doc = "how to find a step's length; null: it is lr"),
};

/* ---- state -------------------------------------------------------------------------------------------- */

/** At the beginning of the state; doubles throughout, so that all of it is numbers. */
struct numbers {
    double n_iter, func_evals; /* since the beginning */
    double history;            /* pairs remembered */
    double t, h_diag, prev_loss;
    double oldest; /* where in old_dirs and old_stps the oldest pair is */
};

enum {
    HEAD = 8,      /* doubles for struct numbers */
    GRADIENTS = 3, /* the present one and two more, of the line search */
    VECTORS = 7    /* besides the history */
};

/** The state taken apart. Vectors of `count` floats. */
typedef struct memory {
    struct numbers *numbers;
    double *ro, *al;                /* (history_size), by place */
    double *partial;                /* of gd_vectors */
    float *old_dirs, *old_stps;     /* (history_size, count): y and s, a ring */
    float *d, *prev_flat_grad;      /* (count) */
    float *gradients[GRADIENTS];    /* within a step */
    float *line_start, *step_start; /* parameters, within a step */
} memory;

static size_t lbfgs_bytes(const void *attrs, int64_t count) {
    const struct lbfgs *a = attrs;
    const size_t history = (size_t)a->history_size;
    size_t vectors, floats, doubles, bytes;
    if (gd_mul(history, 2, &doubles) && gd_add(doubles, VECTORS, &vectors) &&
        gd_mul(vectors, (size_t)count, &floats) && gd_mul(floats, sizeof(float), &floats) &&
        gd_add(doubles, HEAD + (size_t)gd_vector_blocks(count), &doubles) &&
        gd_mul(doubles, sizeof(double), &doubles) && gd_round_up(doubles, &doubles) &&
        gd_add(doubles, floats, &bytes))
        return bytes;
    return SIZE_MAX;
}

/* lbfgs_bytes() has counted all of this. */
static memory take_apart(const struct lbfgs *a, void *state, int64_t count) {
    const size_t history = (size_t)a->history_size, n = (size_t)count;
    memory m = {.numbers = state, .ro = (double *)state + HEAD};
    size_t doubles;
    m.al = m.ro + history;
    m.partial = m.al + history;
    (void)gd_round_up((size_t)((char *)(m.partial + gd_vector_blocks(count)) - (char *)state), &doubles);
    m.old_dirs = (float *)(void *)((char *)state + doubles);
    m.old_stps = m.old_dirs + history * n;
    m.d = m.old_stps + history * n;
    m.prev_flat_grad = m.d + n;
    for (int i = 0; i < GRADIENTS; i++)
        m.gradients[i] = m.prev_flat_grad + (size_t)(i + 1) * n;
    m.line_start = m.gradients[GRADIENTS - 1] + n;
    m.step_start = m.line_start + n;
    return m;
}

/* Where the i-th oldest pair is. */
static size_t place(const struct lbfgs *a, const memory *m, size_t i) {
    return ((size_t)m->numbers->oldest + i) % (size_t)a->history_size;
}

static const char *lbfgs_vector(const void *attrs, void *state, int64_t count, size_t index,
                                const float **ret_vector) {
    const memory m = take_apart(attrs, state, count);
    if (index < 2) {
        *ret_vector = index ? m.prev_flat_grad : m.d;
        return index ? "prev_flat_grad" : "d";
    }
    const size_t history = (size_t)m.numbers->history, item = index - 2;
    if (item >= 2 * history)
        return NULL;
    *ret_vector =
        (item < history ? m.old_dirs : m.old_stps) + place(attrs, &m, item % history) * (size_t)count;
    return item < history ? "old_dirs" : "old_stps";
}

static bool lbfgs_number(const void *attrs, void *state, int64_t count, size_t index,
                         gd_closure_number *ret_number) {
    static const double countable = 9007199254740992.0; /* 2^53 */
    const struct lbfgs *a = attrs;
    const memory m = take_apart(a, state, count);
    struct numbers *n = m.numbers;
    const gd_closure_number head[] = {
        {"history", &n->history, (double)a->history_size},
        {"n_iter", &n->n_iter, countable},
        {"func_evals", &n->func_evals, countable},
        {"t", &n->t, 0},
        {"H_diag", &n->h_diag, 0},
        {"prev_loss", &n->prev_loss, 0},
    };
    if (index >= GD_COUNT(head) + (size_t)n->history)
        return false;
    *ret_number = index < GD_COUNT(head)
                      ? head[index]
                      : (gd_closure_number){"ro", &m.ro[place(a, &m, index - GD_COUNT(head))], 0};
    return true;
}

static bool is_place(double value, int64_t most) {
    return value >= 0 && value <= (double)most && value == floor(value);
}

static bool lbfgs_valid(const void *attrs, const void *state) {
    const struct lbfgs *a = attrs;
    struct numbers n;
    memcpy(&n, state, sizeof n); /* which need not be aligned */
    return is_place(n.history, a->history_size) && is_place(n.oldest, a->history_size - 1);
}

/* ---- one step ------------------------------------------------------------------------------------------ */

typedef struct run {
    const gd_closure *closure;
    const struct lbfgs *attrs;
    memory m;
    gd_vectors vectors;
    float *grad; /* at the present parameters: one of m.gradients */
    double loss; /* there */
    int64_t evaluations, iterations;
} run;

/* parameters = from + t d. Buffers and frozen parameters stay. */
static void move(run *r, const float *from, double t) {
    const gd_closure *c = r->closure;
    for (int p = 0; p < c->parameter_count; p++) {
        const size_t at = c->offsets[p];
        if (c->parameters[p].requires_grad)
            gd_vector_add(&r->vectors, c->params + at, from + at, t, r->m.d + at, c->parameters[p].numel);
    }
}

static void put_back(run *r) {
    const gd_closure *c = r->closure;
    for (int p = 0; p < c->parameter_count; p++)
        if (c->parameters[p].requires_grad)
            memcpy(c->params + c->offsets[p], r->m.step_start + c->offsets[p],
                   (size_t)c->parameters[p].numel * sizeof(float));
}

/* Loss and gradient at the present parameters. */
static int evaluate(run *r, double *ret_loss, float *grad, gd_error *error) {
    int code = r->closure->evaluate(r->closure->context, ret_loss, error);
    if (code)
        return code;
    memcpy(grad, r->closure->grads, (size_t)r->closure->count * sizeof(float));
    r->evaluations++;
    r->m.numbers->func_evals++;
    return 0;
}

/* y = g - g_before and s = t d, where they curve upwards. */
static void remember(run *r) {
    const int64_t n = r->closure->count;
    memory *m = &r->m;
    float *y = m->gradients[r->grad == m->gradients[0]],
          *s = m->gradients[r->grad == m->gradients[2] ? 1 : 2];
    gd_vector_add(&r->vectors, y, r->grad, -1, m->prev_flat_grad, n);
    gd_vector_scale(&r->vectors, s, m->numbers->t, m->d, n);
    const double ys = gd_vector_dot(&r->vectors, y, s, n);
    if (!(ys > 1e-10))
        return;
    const size_t at = place(r->attrs, m, (size_t)m->numbers->history); /* the oldest's, when it is full */
    if (m->numbers->history < (double)r->attrs->history_size)
        m->numbers->history++;
    else
        m->numbers->oldest = (double)place(r->attrs, m, 1);
    memcpy(m->old_dirs + at * (size_t)n, y, (size_t)n * sizeof(float));
    memcpy(m->old_stps + at * (size_t)n, s, (size_t)n * sizeof(float));
    m->ro[at] = 1 / ys;
    m->numbers->h_diag = ys / gd_vector_dot(&r->vectors, y, y, n);
}

/* d = -H g, H from the history: algorithm 7.4. Without history d = -g. */
static void find_direction(run *r) {
    const gd_closure *c = r->closure;
    const gd_vectors *v = &r->vectors;
    memory *m = &r->m;
    if (m->numbers->n_iter == 1) {
        m->numbers->history = 0;
        m->numbers->oldest = 0;
        m->numbers->h_diag = 1;
    } else {
        remember(r);
    }
    gd_vector_scale(v, m->d, -1, r->grad, c->count);
    const size_t history = (size_t)m->numbers->history;
    for (size_t i = history; i--;) {
        const size_t at = place(r->attrs, m, i), from = at * (size_t)c->count;
        m->al[at] = gd_vector_dot(v, m->old_stps + from, m->d, c->count) * m->ro[at];
        gd_vector_add(v, m->d, m->d, -m->al[at], m->old_dirs + from, c->count);
    }
    gd_vector_scale(v, m->d, m->numbers->h_diag, m->d, c->count);
    for (size_t i = 0; i < history; i++) {
        const size_t at = place(r->attrs, m, i), from = at * (size_t)c->count;
        const double be = gd_vector_dot(v, m->old_dirs + from, m->d, c->count) * m->ro[at];
        gd_vector_add(v, m->d, m->d, m->al[at] - be, m->old_stps + from, c->count);
    }
    for (int p = 0; p < c->parameter_count; p++) /* frozen since it moved last */
        if (!c->parameters[p].buffer && !c->parameters[p].requires_grad)
            memset(m->d + c->offsets[p], 0, (size_t)c->parameters[p].numel * sizeof(float));
}

static int evaluate_on_line(void *context, gd_line_point *point, gd_error *error) {
    run *r = context;
    move(r, r->m.line_start, point->t);
    int code = evaluate(r, &point->loss, point->grad, error);
    if (!code)
        point->slope = gd_vector_dot(&r->vectors, point->grad, r->m.d, r->closure->count);
    return code;
}

static int search_line(run *r, double slope, gd_error *error) {
    const int64_t n = r->closure->count;
    gd_line line = {.evaluate = evaluate_on_line,
                    .context = r,
                    .start = {.loss = r->loss, .slope = slope, .grad = r->grad},
                    .longest = gd_vector_max_abs(&r->vectors, r->m.d, n)};
    memcpy(line.buffers, r->m.gradients, sizeof line.buffers);
    memcpy(r->m.line_start, r->closure->params, (size_t)n * sizeof(float));
    gd_line_point found;
    int code = gd_line_search(&line, r->m.numbers->t, &found, error);
    if (code)
        return code;
    r->m.numbers->t = found.t;
    r->loss = found.loss;
    r->grad = found.grad;
    move(r, r->m.line_start, found.t);
    return 0;
}

/* By t, without asking; the last iteration needs no loss. */
static int go(run *r, gd_error *error) {
    move(r, r->closure->params, r->m.numbers->t);
    return r->iterations == r->attrs->max_iter ? 0 : evaluate(r, &r->loss, r->grad, error);
}

static bool at_minimum(const run *r) {
    return gd_vector_max_abs(&r->vectors, r->grad, r->closure->count) <= r->attrs->tolerance_grad;
}

/* Whether an iteration that has moved the parameters was the last. */
static bool is_over(const run *r) {
    const struct lbfgs *a = r->attrs;
    const struct numbers *n = r->m.numbers;
    const int64_t most = a->max_eval == GD_NONE ? a->max_iter * 5 / 4 : a->max_eval;
    return r->iterations >= a->max_iter || r->evaluations >= most || at_minimum(r) ||
           fabs(n->t) * gd_vector_max_abs(&r->vectors, r->m.d, r->closure->count) <= a->tolerance_change ||
           fabs(r->loss - n->prev_loss) < a->tolerance_change;
}

static int iterate(run *r, bool *ret_over, gd_error *error) {
    const int64_t count = r->closure->count;
    struct numbers *n = r->m.numbers;
    r->iterations++;
    n->n_iter++;
    find_direction(r);
    memcpy(r->m.prev_flat_grad, r->grad, (size_t)count * sizeof(float));
    n->prev_loss = r->loss;
    n->t = r->attrs->lr;
    if (n->n_iter == 1) /* nothing is known of lengths yet */
        n->t *= fmin(1, 1 / gd_vector_sum_abs(&r->vectors, r->grad, count));
    const double slope = gd_vector_dot(&r->vectors, r->grad, r->m.d, count);
    *ret_over = slope > -r->attrs->tolerance_change;
    if (*ret_over)
        return 0;
    int code = r->attrs->line_search_fn < 0 ? go(r, error) : search_line(r, slope, error);
    *ret_over = code || is_over(r);
    return code;
}

static int lbfgs_step(const gd_closure *closure, int64_t *ret_evaluations, gd_error *error) {
    run r = {.closure = closure, .attrs = closure->attrs};
    r.m = take_apart(r.attrs, closure->state, closure->count);
    r.vectors = (gd_vectors){.pool = closure->pool, .partial = r.m.partial};
    r.grad = r.m.gradients[0];
    int code = evaluate(&r, &r.loss, r.grad, error);
    if (code)
        return code;
    memcpy(r.m.step_start, closure->params, (size_t)closure->count * sizeof(float));
    bool over = at_minimum(&r);
    while (!over)
        code = iterate(&r, &over, error);
    if (code) { /* what it has learnt of the way there is of no use here */
        put_back(&r);
        *r.m.numbers = (struct numbers){0};
        return code;
    }
    *ret_evaluations = r.evaluations;
    return 0;
}

static const gd_closure_optimizer lbfgs_closure = {
    .state_bytes = lbfgs_bytes,
    .step = lbfgs_step,
    .vector = lbfgs_vector,
    .number = lbfgs_number,
    .valid = lbfgs_valid,
};

const gd_optimizer gd_optimizer_lbfgs = {
    .kind = {.module = "LBFGS",
             .doc =
                 "Quasi-Newton steps from the gradients' history; evaluates the batch several times, so only "
                 "train_step makes one.",
             GD_ATTRS(struct lbfgs, lbfgs_attrs)},
    .lr_offset = offsetof(struct lbfgs, lr),
    .closure = &lbfgs_closure,
};
