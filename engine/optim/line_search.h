/* line_search.h -- how far to go along a direction: a step that fulfils the strong Wolfe conditions.
 * Source: Nocedal and Wright, Numerical Optimization, 2nd ed., algorithms 3.5 and 3.6, with the bounds and
 * constants of torch.optim.LBFGS, so that the loss is evaluated at the same points and as often. */
#ifndef GD_OPTIM_LINE_SEARCH_H
#define GD_OPTIM_LINE_SEARCH_H

#include "engine/core/error.h"

/** A point of the line x + t d. */
typedef struct gd_line_point {
    double t;
    double loss;  /* phi(t) = f(x + t d) */
    double slope; /* phi'(t) = gradient . d */
    float *grad;  /* the gradient there */
} gd_line_point;

typedef struct gd_line {
    /** Fill in point->loss, ->slope and the gradient at ->grad for point->t. @return 0, or what ends the
     * search
     */
    int (*evaluate)(void *context, gd_line_point *point, gd_error *error);
    void *context;
    gd_line_point start; /* at t = 0, downhill */
    double longest;      /* max |d[i]| */
    float *buffers[3];   /* for gradients; start.grad is one of them */
} gd_line;

/**
 * Search along a line.
 *
 * @param t         the first step to try, > 0
 * @param ret_point the point found; its gradient is in one of the line's buffers
 * @return 0, or the first error of evaluate()
 */
int gd_line_search(const gd_line *line, double t, gd_line_point *ret_point, gd_error *error);

#endif
