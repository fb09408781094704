/* line_search.c -- the strong Wolfe conditions: phi(t) <= phi(0) + c1 t phi'(0) and |phi'(t)| <= c2
 * |phi'(0)|. */
#include "engine/optim/line_search.h"

#include <math.h>

enum { MOST_TRIES = 25 };

static const double c1 = 1e-4, c2 = 0.9;
static const double least_change = 1e-9; /* of any parameter; torch does not pass its tolerance_change on */

typedef struct search {
    const gd_line *line;
    gd_line_point ends[2]; /* of an interval with good points in it; once found: ends[low] is one */
    int low;               /* the end of lower loss */
    bool found;
    int tries;
    gd_error *error;
} search;

/* Not enough less than at the start. */
static bool too_high(const search *s, const gd_line_point *point) {
    const gd_line_point *start = &s->line->start;
    return point->loss > start->loss + c1 * point->t * start->slope;
}

static bool flat_enough(const search *s, const gd_line_point *point) {
    return fabs(point->slope) <= -c2 * s->line->start.slope;
}

static int lower_end(const search *s) {
    return s->ends[0].loss <= s->ends[1].loss ? 0 : 1;
}

/* The minimum of the cubic through two points with their slopes (Nocedal and Wright, 3.59), kept within
 * bounds; their middle where the cubic has none. A NaN goes through to t. */
static double interpolate(const gd_line_point *p, const gd_line_point *q, double least, double most) {
    const gd_line_point *left = p->t <= q->t ? p : q, *right = p->t <= q->t ? q : p;
    const double width = right->t - left->t;
    const double d1 = left->slope + right->slope - 3 * (left->loss - right->loss) / (left->t - right->t);
    const double square = d1 * d1 - left->slope * right->slope;
    if (!(square >= 0))
        return (least + most) / 2;
    const double d2 = sqrt(square);
    const double t = right->t - width * ((right->slope + d2 - d1) / (right->slope - left->slope + 2 * d2));
    const double above = least > t ? least : t;
    return most < above ? most : above;
}

static int evaluate(search *s, double t, float *grad, gd_line_point *ret_point) {
    *ret_point = (gd_line_point){.t = t, .grad = grad};
    return s->line->evaluate(s->line->context, ret_point, s->error);
}

/* The buffer that neither of two points needs. */
static float *spare(const search *s, const gd_line_point *a, const gd_line_point *b) {
    for (int i = 0; i < 2; i++)
        if (s->line->buffers[i] != a->grad && s->line->buffers[i] != b->grad)
            return s->line->buffers[i];
    return s->line->buffers[2];
}

/* Algorithm 3.5: longer and longer steps until one is good or has gone past a good one. The start's gradient
 * is kept until the end, since the start is an end again when no step is long enough. */
static int bracket(search *s, double t) {
    const gd_line_point *start = &s->line->start;
    gd_line_point before = *start, now;
    int code = evaluate(s, t, spare(s, start, start), &now);
    for (; !code && s->tries < MOST_TRIES; s->tries++) {
        if (too_high(s, &now) || (s->tries > 1 && now.loss >= before.loss))
            break;
        s->found = flat_enough(s, &now);
        if (s->found || now.slope >= 0)
            break;
        const double next = interpolate(&before, &now, now.t + 0.01 * (now.t - before.t), now.t * 10);
        before = now;
        code = evaluate(s, next, spare(s, start, &before), &now);
    }
    s->ends[0] = s->found ? now : s->tries == MOST_TRIES ? *start : before;
    s->ends[1] = now;
    s->low = lower_end(s);
    return code;
}

/* Where to try next between the ends: at the cubic's minimum, but not twice running (nor at all on an end)
 * within a tenth of the interval from one of them. */
static double between(const search *s, bool *close) {
    const double a = s->ends[0].t, b = s->ends[1].t;
    const double least = a < b ? a : b, most = a < b ? b : a, margin = 0.1 * (most - least);
    const double t = interpolate(&s->ends[0], &s->ends[1], least, most);
    const bool before = *close;
    *close = fmin(most - t, t - least) < margin;
    if (!*close || !(before || t >= most || t <= least))
        return t;
    *close = false;
    return fabs(t - most) < fabs(t - least) ? most - margin : least + margin;
}

/* Algorithm 3.6: the interval grows smaller around good points until one is hit. */
static int zoom(search *s) {
    bool close = false;
    int code = 0;
    while (!code && !s->found && s->tries < MOST_TRIES &&
           !(fabs(s->ends[1].t - s->ends[0].t) * s->line->longest < least_change)) {
        gd_line_point now;
        const double t = between(s, &close);
        code = evaluate(s, t, spare(s, &s->ends[0], &s->ends[1]), &now);
        s->tries++;
        gd_line_point *low = &s->ends[s->low], *high = &s->ends[1 - s->low];
        if (too_high(s, &now) || now.loss >= low->loss) {
            *high = now;
            s->low = lower_end(s);
            continue;
        }
        s->found = flat_enough(s, &now);
        if (!s->found && now.slope * (high->t - low->t) >= 0)
            *high = *low;
        *low = now;
    }
    return code;
}

int gd_line_search(const gd_line *line, double t, gd_line_point *ret_point, gd_error *error) {
    search s = {.line = line, .error = error};
    int code = bracket(&s, t);
    if (!code)
        code = zoom(&s);
    if (!code)
        *ret_point = s.ends[s.low];
    return code;
}
