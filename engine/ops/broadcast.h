/* broadcast.h -- torch's broadcasting: shapes lined up at the right, axes of size 1 and missing ones
 * repeated (torch's "Broadcasting semantics"). */
#ifndef GD_OPS_BROADCAST_H
#define GD_OPS_BROADCAST_H

#include "engine/graph/op.h"

enum { GD_BROADCAST_INPUTS = 3 };

/** The output's shape and batch axis from those of all inputs.
 *
 *  Inputs of different rank are fine as long as all batch axes come to lie on one axis of the output.
 *  @return 0; GD_E_SHAPE, the message says which shapes and what would do */
int gd_broadcast_infer(gd_infer *infer);

/** Walks an output row by row and, beside it, inputs that may be repeated along some axes. Axes that every
 *  input passes in one go are one axis here, so that rows are long. */
typedef struct gd_broadcast {
    int rank;                  /* 1 or more */
    int64_t size[GD_MAX_RANK]; /* elements of the output; axis 0 is the innermost: a row */
    int64_t rows;
    int64_t step[GD_BROADCAST_INPUTS][GD_MAX_RANK]; /* elements of an input; 0: repeated. In a row 0 or 1 */
    int64_t at[GD_MAX_RANK];                        /* the row now */
    int64_t offset[GD_BROADCAST_INPUTS];            /* of its first element in each input */
} gd_broadcast;

/** Walk over `output`, beside it inputs of these shapes, which broadcast to it. */
gd_broadcast gd_broadcast_begin(const gd_shape *output, const gd_shape *const *inputs, int count);
/** To the next row. */
void gd_broadcast_next(gd_broadcast *walk);

#endif
