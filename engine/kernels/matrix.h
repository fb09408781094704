/* matrix.h -- products of a weight with a batch by a matrix unit (AMX), which multiplies bfloat16s and adds
 * up floats.
 *
 * A float is a sum of three bfloat16s, exactly: 24 bits are 8 + 8 + 8. Of the nine products of two such sums
 * six are computed, the small ones first. What the others would add is below 2^-21 of a product, and of sums
 * as much as rounding takes from them anyway. (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial
 * Intelligence Datatype For Higher-Precision Computations, 2019.) The six take a third of the time that
 * vectors of floats take for the one; with the splitting, two thirds. */
#ifndef GD_KERNELS_MATRIX_H
#define GD_KERNELS_MATRIX_H

#include "engine/kernels/product.h"

enum {
    GD_MATRIX_UNIT = 16, /* rows and columns of a tile of sums; rows or columns of a strip of the weight */
    GD_MATRIX_TILES = 4, /* of a strip's sums */
    GD_MATRIX_SIDE = GD_MATRIX_TILES * GD_MATRIX_UNIT, /* rows or columns of the batch at once, */
    GD_MATRIX_STRIPS = 64,                             /* and strips of the weight */
};

typedef float gd_matrix_tile[GD_MATRIX_UNIT][GD_MATRIX_UNIT];
typedef struct gd_matrix_sums {
    _Alignas(64) gd_matrix_tile tiles[GD_MATRIX_STRIPS][GD_MATRIX_TILES];
    bool odd[GD_MATRIX_STRIPS]; /* strips that are not finite: infinities have no such parts, so their sums
                                   are to be computed otherwise */
} gd_matrix_sums;

#if defined(__AMX_BF16__)
/** A part of the weight times a part of the batch, each in turn on the left: strip s are rows, or on the
 * right columns, 16 s ... 16 s + 15 of the product, and tile t columns, or rows, 16 t ... 16 t + 15.
 *  @param left    the weight is on the left
 *  @param weight  (count, k) or (k, count), row by row; count at most GD_MATRIX_STRIPS * GD_MATRIX_UNIT
 *  @param batch   (k, side), one of its steps being 1, or (side, k), row by row; side at most GD_MATRIX_SIDE
 *  @return is the batch finite? Else there are no sums. */
bool gd_matrix_multiply(bool left, int64_t count, int64_t side, int64_t k, gd_operand weight,
                        gd_operand batch, gd_matrix_sums *ret_sums);
#endif

#endif
