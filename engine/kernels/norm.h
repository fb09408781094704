/* norm.h -- sums and affine maps by channel and by row, for normalisation. */
#ifndef GD_KERNELS_NORM_H
#define GD_KERNELS_NORM_H

#include <stdbool.h>
#include <stdint.h>

/** Some channels of (samples, channels, size): `count` of them from the one that x and y point to in the
 *  first sample. Arrays by channel have `count` entries. */
typedef struct gd_channels {
    int64_t samples, channels, size;
    int64_t count;
} gd_channels;

/** means[c] = mean of x, squares[c] = sum of (x - mean)^2, in one pass over memory where rows are long */
void gd_channels_moments(const gd_channels *shape, const float *x, double *means, double *squares);
/** sums[c] = sum of (x - centre[c])^2 */
void gd_channels_square(const gd_channels *shape, const float *x, const float *centre, double *sums);
/** sums[c] = sum of dy, dots[c] = sum of dy (x - centre[c]) */
void gd_channels_dot(const gd_channels *shape, const float *dy, const float *x, const float *centre,
                     double *sums, double *dots);
/** y = (x - centre[c]) scale[c] + shift[c]; with relu max(that, 0) */
void gd_channels_scale(const gd_channels *shape, const float *x, const float *centre, const float *scale,
                       const float *shift, bool relu, float *y);
/** dx = p[c] dy - q[c] - r[c] (x - centre[c]), or added to dx */
void gd_channels_back(const gd_channels *shape, const float *dy, const float *x, const float *centre,
                      const float *p, const float *q, const float *r, bool accumulate, float *dx);

/** One row: mean of x, sum of (x - mean)^2 */
void gd_row_moments(int64_t count, const float *x, double *mean, double *square);
/** One row: y = (x - mean) inverse weight + bias; weight and bias are (count), or NULL. */
void gd_row_scale(int64_t count, const float *x, float mean, float inverse, const float *weight,
                  const float *bias, float *y);
/** One row, with g = weight dy and x' = x - mean, where inverse is 1 / sqrt(mean(x'^2) + eps):
 *  dx = inverse (g - mean(g) - x' inverse^2 mean(g x')), without mean(g) unless `centred`; or added to dx. */
void gd_row_back(int64_t count, const float *dy, const float *x, const float *weight, float mean,
                 float inverse, bool centred, bool accumulate, float *dx);

#endif
