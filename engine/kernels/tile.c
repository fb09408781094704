/* tile.c -- a block of C stays in registers while k goes by: per step a few vectors of b, and one element of
 * a for each row. */
#include "engine/kernels/tile.h"

#include "engine/kernels/gemm.h"
#include "engine/kernels/vec.h"

/* Registers of a block: ROWS * WIDE sums, WIDE of b, one of a. */
enum { ROWS = 6, WIDE = 2 };

/* c (rows, wide vectors) */
GD_INLINE void block(int rows, int wide, int64_t k, gd_tile a, const float *b, int64_t b_stride, float *c,
                     int64_t c_stride) {
    gd_vec sum[ROWS][WIDE] = {{{0}}};
    for (int64_t step = 0; step < k; step++, a.data += a.column, b += b_stride) {
        gd_vec right[WIDE];
#pragma GCC unroll 8
        for (int w = 0; w < wide; w++)
            right[w] = gd_vec_load(b + w * GD_LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int w = 0; w < wide; w++)
                sum[r][w] += a.data[r * a.row] * right[w];
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int w = 0; w < wide; w++)
            gd_vec_store(c + r * c_stride + w * GD_LANES, sum[r][w]);
}

/* All m rows of c, `wide` vectors of each. */
GD_INLINE void columns(int wide, int64_t m, int64_t k, gd_tile a, const float *b, int64_t b_stride, float *c,
                       int64_t c_stride) {
    for (; m >= ROWS; m -= ROWS, a.data += ROWS * a.row, c += ROWS * c_stride)
        block(ROWS, wide, k, a, b, b_stride, c, c_stride);
    for (; m >= 2; m -= 2, a.data += 2 * a.row, c += 2 * c_stride)
        block(2, wide, k, a, b, b_stride, c, c_stride);
    if (m)
        block(1, wide, k, a, b, b_stride, c, c_stride);
}

/* Steps of 1 are told to the compiler. */
GD_INLINE void columns_of(int wide, int64_t m, int64_t k, gd_tile a, const float *b, int64_t b_stride,
                          float *c, int64_t c_stride) {
    if (a.row == 1)
        columns(wide, m, k, (gd_tile){a.data, 1, a.column}, b, b_stride, c, c_stride);
    else
        columns(wide, m, k, (gd_tile){a.data, a.row, 1}, b, b_stride, c, c_stride);
}

void gd_tile_product(int64_t m, int64_t n, int64_t k, gd_tile a, const float *b, int64_t b_stride, float *c,
                     int64_t c_stride) {
    int64_t j = 0;
    for (; j + WIDE * GD_LANES <= n; j += WIDE * GD_LANES)
        columns_of(WIDE, m, k, a, b + j, b_stride, c + j, c_stride);
    for (; j + GD_LANES <= n; j += GD_LANES)
        columns_of(1, m, k, a, b + j, b_stride, c + j, c_stride);
    if (j < n)
        gd_gemm_strided(a.row == 1, false, m, n - j, k, a.data, a.row == 1 ? a.column : a.row, b + j,
                        b_stride, c + j, c_stride, false);
}

void gd_tile_transpose(int64_t rows, int64_t columns, const float *from, int64_t stride, float *to) {
    const int64_t whole_rows = rows - rows % GD_LANES, whole = columns - columns % GD_LANES;
    for (int64_t i = 0; i < whole_rows; i += GD_LANES)
        for (int64_t j = 0; j < whole; j += GD_LANES) {
            gd_vec square[GD_LANES];
            for (int r = 0; r < GD_LANES; r++)
                square[r] = gd_vec_load(from + (i + r) * stride + j);
            gd_vec_transpose(square);
            for (int r = 0; r < GD_LANES; r++)
                gd_vec_store(to + (j + r) * rows + i, square[r]);
        }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = i < whole_rows ? whole : 0; j < columns; j++)
            to[j * rows + i] = from[i * stride + j];
}
