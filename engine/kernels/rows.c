/* rows.c -- products with few rows: every element of the weight is read once, in order. */
#include "engine/kernels/rows.h"

#include <string.h>

#include "engine/kernels/vec.h"

static void add_scaled(int64_t count, float scale, const float *restrict x, float *restrict sum) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        sum[i] += scale * x[i];
}

static void set_scaled(int64_t count, float scale, const float *restrict x, float *restrict y) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] = scale * x[i];
}

void gd_rows_forward(int64_t rows, int64_t out, int64_t in, const float *x, int64_t x_stride,
                     const float *weight, const float *bias, float *y, int64_t y_stride) {
    for (int64_t o = 0; o < out; o++, weight += in)
        for (int64_t r = 0; r < rows; r++)
            y[r * y_stride + o] = gd_vec_dot(in, x + r * x_stride, weight) + (bias ? bias[o] : 0);
}

void gd_rows_backward(int64_t rows, int64_t out, int64_t columns, const float *dy, const float *weight,
                      int64_t w_stride, bool accumulate, float *dx) {
    for (int64_t r = 0; r < rows && !accumulate; r++)
        memset(dx + r * w_stride, 0, (size_t)columns * sizeof *dx);
    for (int64_t o = 0; o < out; o++)
        for (int64_t r = 0; r < rows; r++)
            add_scaled(columns, dy[r * out + o], weight + o * w_stride, dx + r * w_stride);
}

void gd_rows_weight(int64_t rows, int64_t out, int64_t in, const float *dy, int64_t dy_stride, const float *x,
                    bool accumulate, float *dweight) {
    for (int64_t o = 0; o < out; o++, dweight += in)
        for (int64_t r = 0; r < rows; r++)
            (r || accumulate ? add_scaled : set_scaled)(in, dy[r * dy_stride + o], x + r * in, dweight);
}
