/* tile.h -- products of small matrices that are not copied first: heads of attention. (BLAS packs both
 * operands, which pays when they are large.) */
#ifndef GD_KERNELS_TILE_H
#define GD_KERNELS_TILE_H

#include <stdint.h>

/** Element (i, j) of a matrix is data[i * row + j * column]. */
typedef struct gd_tile {
    const float *data;
    int64_t row, column;
} gd_tile;

/** C = A B: a is (m, k), one of its steps being 1; b is (k, n) and c (m, n), with the distances between their
 *  rows. c overlaps neither. */
void gd_tile_product(int64_t m, int64_t n, int64_t k, gd_tile a, const float *b, int64_t b_stride, float *c,
                     int64_t c_stride);

/** to (columns, rows) = the transpose of from (rows, columns), whose rows are `stride` apart. */
void gd_tile_transpose(int64_t rows, int64_t columns, const float *from, int64_t stride, float *to);

#endif
