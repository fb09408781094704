/* pooled.h -- back through max pooling by 2x2 and the convolution before it in one go: of a window's four
 * products only the largest has a gradient, and the others are neither written nor multiplied. */
#ifndef GD_KERNELS_POOLED_H
#define GD_KERNELS_POOLED_H

#include "engine/kernels/direct.h"

/** What came back to the pooled planes, (samples, filters, window.out / 2). */
typedef struct gd_pooled {
    const float *y;    /* NULL; or the planes, of a ReLU's output: nothing goes back where they are 0 */
    const float *dy;   /* their gradient */
    const uint8_t *at; /* as gd_max_pool_2x2() left it */
} gd_pooled;

/** Can it be done, and is it faster than one after the other? By the shape of the convolution alone. */
bool gd_pooled_pays(const gd_window *window, int64_t filters);
/** Bytes of scratch it needs, for any number of samples. @return false: more than a size_t holds */
bool gd_pooled_scratch(const gd_window *window, int64_t filters, size_t *ret_bytes);
/**
 * The gradients of a convolution, each as in direct.h.
 *
 * @param dweight += ; NULL: not wanted
 * @param dbias   += ; NULL: not wanted
 * @param dx      = or, with accumulate, += ; NULL: not wanted
 */
void gd_pooled_backward(const gd_direct *d, const gd_pooled *back, const float *x, const float *weight,
                        float *dweight, float *dbias, bool accumulate, float *dx, void *scratch);

#endif
