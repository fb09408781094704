/* direct.h -- convolutions straight from the image, without a column matrix. */
#ifndef GD_KERNELS_DIRECT_H
#define GD_KERNELS_DIRECT_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/kernels/conv.h"

/** One group of channels of a batch. Images are (samples, window.channels, in) with x_step floats from one
 *  sample to the next, their windows' products (samples, filters, out) with y_step; the weight is (filters,
 *  window.channels, kernel). */
typedef struct gd_direct {
    gd_window window;
    int64_t filters;
    int64_t samples, x_step, y_step;
} gd_direct;

typedef enum gd_direct_pass {
    GD_DIRECT_FORWARD,
    GD_DIRECT_INPUT_GRADIENT,
    GD_DIRECT_WEIGHT_GRADIENT
} gd_direct_pass;
enum { GD_DIRECT_PASSES = 3 };

/** Is the pass faster this way than by im2col and a matrix product? By the shape alone. */
bool gd_direct_pays(gd_direct_pass pass, const gd_window *window, int64_t filters);
/** Bytes of scratch it needs, for any number of samples. @return false: more than a size_t holds */
bool gd_direct_scratch(gd_direct_pass pass, const gd_window *window, int64_t filters, size_t *ret_bytes);
/** That of the weight's gradient. */
bool gd_direct_weight_scratch(const gd_window *window, int64_t filters, size_t *ret_bytes);
/** The weight's gradient for fewer filters than a vector has lanes; below, it is chosen by itself. */
bool gd_direct_few_pays(const gd_window *window, int64_t filters);
bool gd_direct_few_scratch(const gd_window *window, int64_t filters, size_t *ret_bytes);
void gd_direct_few_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight, float *dbias,
                            void *scratch);

/** y[n, f] = bias[f] + sum over channels and window of weight[f] x[n]; with relu max(that, 0).
 *  @param bias (filters), or NULL */
void gd_direct_forward(const gd_direct *d, const float *x, const float *weight, const float *bias, bool relu,
                       float *y, void *scratch);
/** dx[n, c] (or with accumulate +)= sum over filters and window of weight[:, c] dy[n]. */
void gd_direct_input_gradient(const gd_direct *d, const float *dy, const float *weight, bool accumulate,
                              float *dx, void *scratch);
/** dweight += sum over samples and pixels of dy x; dbias += sum of dy. */
void gd_direct_weight_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight,
                               float *dbias, void *scratch);

#endif
