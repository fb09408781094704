/* pooled.h -- a convolution by 3x3 and the max pooling by 2x2 that alone reads its output, in one go: what
 * the convolution makes is never written, and of a window's four products only the largest has a gradient. */
#ifndef GD_KERNELS_POOLED_H
#define GD_KERNELS_POOLED_H

#include "engine/kernels/direct.h"

/** The planes that come out of the pooling, (samples, filters, window.out / 2). */
typedef struct gd_pooled {
    float *y;
    uint8_t *at;     /* as gd_max_pool_2x2() leaves it; NULL: nothing will go back */
    const float *dy; /* backward: what came back */
    bool relu;       /* max(y, 0), through which nothing goes back where it is 0 */
} gd_pooled;

/** Can it be done, and is it faster than one after the other? By the shape of the convolution alone. */
bool gd_pooled_pays(const gd_window *window, int64_t filters);
/** Bytes of scratch it needs, for any number of samples. @return false: more than a size_t holds */
bool gd_pooled_scratch(const gd_window *window, int64_t filters, size_t *ret_bytes);
/** That of the gradients, and whether its tables stay in a near cache. */
bool gd_pooled_gradient_scratch(const gd_window *window, int64_t filters, size_t *ret_bytes);
bool gd_pooled_gradient_pays(const gd_window *window, int64_t filters);

/** y = the largest of each window of convolution + bias, and at.
 *  @param bias (filters), or NULL */
void gd_pooled_forward(const gd_direct *d, const gd_pooled *pooled, const float *x, const float *weight,
                       const float *bias, void *scratch);

/**
 * The gradients of the convolution, each as in direct.h.
 *
 * @param dweight += ; NULL: not wanted
 * @param dbias   += ; NULL: not wanted
 * @param dx      = or, with accumulate, += ; NULL: not wanted
 */
void gd_pooled_backward(const gd_direct *d, const gd_pooled *pooled, const float *x, const float *weight,
                        float *dweight, float *dbias, bool accumulate, float *dx, void *scratch);

#endif
