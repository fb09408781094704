/* pool.h -- pooling over windows of planes. */
#ifndef GD_KERNELS_POOL_H
#define GD_KERNELS_POOL_H

#include <stdbool.h>

#include "engine/kernels/conv.h"

/* x is (planes, in), y is (planes, out); window->channels is not used. */

/**
 * y = max of the window; the first maximum wins, NaN wins over all (torch's rule).
 *
 * @param argmax as y: index into the plane; NULL when nothing goes back
 */
void gd_max_pool(const gd_window *window, int64_t planes, const float *x, float *y, int32_t *argmax);
/** The same over the windows of gd_adaptive_span(). */
void gd_adaptive_max_pool(const gd_window *window, int64_t planes, const float *x, float *y, int32_t *argmax);
/** dx[argmax] += dy: windows may overlap.
 *  @param y NULL; or x is a ReLU's output and dx the gradient of its input: nothing goes back where y <= 0 */
void gd_max_pool_backward(const gd_window *window, int64_t planes, const float *y, const float *dy,
                          const int32_t *argmax, float *dx);

/** Are these windows of 2x2 side by side, on planes? Then the same can be had faster. */
bool gd_pool_is_2x2(const gd_window *window);
/** Bytes that say of a plane's windows, one after the other, which element was the largest: 0 and 1 above, 2
 * and 3 below; with room behind them for whole vectors. */
int64_t gd_max_pool_2x2_bytes(int64_t windows);
/** @param at (planes, gd_max_pool_2x2_bytes()), or NULL */
void gd_max_pool_2x2(const gd_window *window, int64_t planes, const float *x, float *y, uint8_t *at);
/** dx (or with accumulate +)= dy, at the largest elements. @param y as above */
void gd_max_pool_2x2_backward(const gd_window *window, int64_t planes, const float *y, const float *dy,
                              const uint8_t *at, bool accumulate, float *dx);

/** What a window's sum is divided by: `divisor`, or when that is 0 its number of elements, with those of the
 *  padding (include_pad) or without. */
typedef struct gd_divisor {
    int64_t divisor;
    bool include_pad;
} gd_divisor;

/** y = sum of the window / divisor, the padding being zeros. Dilation is not used. */
void gd_avg_pool(const gd_window *window, gd_divisor divisor, int64_t planes, const float *x, float *y);
/** dx += dy / divisor, for every element of the window.
 *  @param row scratch (out[2]) */
void gd_avg_pool_backward(const gd_window *window, gd_divisor divisor, int64_t planes, const float *dy,
                          float *row, float *dx);

/** Window i of an axis cut into out[axis] windows of nearly equal size:
 *  floor(i in / out) ... ceil((i + 1) in / out) - 1 (torch.nn.AdaptiveAvgPool2d). Of a window only in and out
 *  are used. */
static inline void gd_adaptive_span(const gd_window *window, int axis, int64_t i, int64_t *ret_first,
                                    int64_t *ret_last) {
    const int64_t in = window->in[axis], out = window->out[axis];
    *ret_first = i * in / out;
    *ret_last = ((i + 1) * in + out - 1) / out;
}

/** y = mean of the window. */
void gd_adaptive_avg_pool(const gd_window *window, int64_t planes, const float *x, float *y);
/** dx += dy / elements of the window. */
void gd_adaptive_avg_pool_backward(const gd_window *window, int64_t planes, const float *dy, float *dx);

#endif
