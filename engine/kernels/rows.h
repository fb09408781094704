/* rows.h -- products of a weight with so few rows that packing it, as BLAS does, would cost more than the
 * product. */
#ifndef GD_KERNELS_ROWS_H
#define GD_KERNELS_ROWS_H

#include <stdbool.h>
#include <stdint.h>

enum { GD_FEW_ROWS = 4 };

/** y = x W^T + bias
 *  @param x (rows, in); rows at x_stride
 *  @param weight (out, in)
 *  @param bias (out), or NULL
 *  @param y (rows, out); rows at y_stride */
void gd_rows_forward(int64_t rows, int64_t out, int64_t in, const float *x, int64_t x_stride,
                     const float *weight, const float *bias, float *y, int64_t y_stride);
/** dx = dy W, or added to dx, for `columns` of the weight's columns from the one it points to on.
 *  @param weight (out, columns); rows at w_stride
 *  @param dx (rows, columns); rows at w_stride too */
void gd_rows_backward(int64_t rows, int64_t out, int64_t columns, const float *dy, const float *weight,
                      int64_t w_stride, bool accumulate, float *dx);
/** dW (+)= dy^T x
 *  @param dy (rows, out); rows at dy_stride
 *  @param dweight (out, in) */
void gd_rows_weight(int64_t rows, int64_t out, int64_t in, const float *dy, int64_t dy_stride, const float *x,
                    bool accumulate, float *dweight);

#endif
