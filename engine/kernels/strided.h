/* strided.h -- copies between two arrays whose elements lie at steps: slices, permutations, repetitions
 * and reversals are all of this kind. */
#ifndef GD_KERNELS_STRIDED_H
#define GD_KERNELS_STRIDED_H

#include "engine/core/shape.h"

/** A box of elements seen in two arrays: element (i0, i1, ...) lies at x_at + sum i * x_step in one and
 *  at y_at + sum i * y_step in the other. Steps may be 0 (repeated) or negative (reversed). */
typedef struct gd_box {
    int rank;
    int64_t size[GD_MAX_RANK];
    int64_t x_step[GD_MAX_RANK], y_step[GD_MAX_RANK];
    int64_t x_at, y_at;
} gd_box;

/** Steps of a row-major array. */
void gd_row_major(const gd_shape *shape, int64_t *steps);
/** The box of all of an array of this shape, row-major on both sides. */
gd_box gd_box_of(const gd_shape *shape);

/** y = x over the box. */
void gd_box_copy(const gd_box *box, const float *x, float *y);
/** dx = dy over the box, or with add dx += dy (needed where x_step is 0). */
void gd_box_return(const gd_box *box, float *dx, const float *dy, bool add);

#endif
