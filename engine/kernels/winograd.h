/* winograd.h -- convolutions with 3x3 windows by fewer products: Winograd's F(2x2, 3x3).
 *
 * A tile of 2x2 outputs takes 16 products for each channel and filter in place of 36. Formulas and names:
 * Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2015). Arguments are those of direct.h.
 */
#ifndef GD_KERNELS_WINOGRAD_H
#define GD_KERNELS_WINOGRAD_H

#include "engine/kernels/direct.h"

/** Can the pass be computed this way, and is it faster? By the shape alone. */
bool gd_winograd_pays(gd_direct_pass pass, const gd_window *window, int64_t filters);
/** Bytes of scratch that any pass needs. @return false: more than a size_t holds */
bool gd_winograd_scratch(const gd_window *window, int64_t filters, size_t *ret_bytes);
void gd_winograd_forward(const gd_direct *d, const float *x, const float *weight, const float *bias,
                         bool relu, float *y, void *scratch);
void gd_winograd_input_gradient(const gd_direct *d, const float *dy, const float *weight, bool accumulate,
                                float *dx, void *scratch);
void gd_winograd_weight_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight,
                                 float *dbias, void *scratch);

#endif
