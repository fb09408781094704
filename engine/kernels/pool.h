/* pool.h -- pooling over windows of planes: windows of the last two axes. */
#ifndef GD_KERNELS_POOL_H
#define GD_KERNELS_POOL_H

#include "engine/kernels/conv.h"

/**
 * y[plane, p, q] = max of the window; the first maximum wins, NaN wins over all (torch's rule).
 *
 * @param x      (planes, in[1], in[2]); window->channels is not used
 * @param y      (planes, out[1], out[2])
 * @param argmax as y: index into the plane; NULL when nothing goes back
 */
void gd_max_pool(const gd_window *window, int64_t planes, const float *x, float *y, int32_t *argmax);
/** dx[argmax] += dy: windows may overlap. */
void gd_max_pool_backward(const gd_window *window, int64_t planes, const float *dy, const int32_t *argmax,
                          float *dx);

#endif
