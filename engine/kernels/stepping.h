/* stepping.h -- convolutions over images turned channels last, for windows that step over pixels or lie in
 * rows too short for vectors of pixels. Arguments are those of direct.h. */
#ifndef GD_KERNELS_STEPPING_H
#define GD_KERNELS_STEPPING_H

#include "engine/kernels/direct.h"

/** Is the pass faster this way than by im2col and a matrix product, or straight from the image? By the shape
 *  alone. */
bool gd_stepping_pays(gd_direct_pass pass, const gd_window *window, int64_t filters);
/** Bytes of scratch it needs. @return false: more than a size_t holds */
bool gd_stepping_scratch(gd_direct_pass pass, const gd_window *window, int64_t filters, size_t *ret_bytes);
void gd_stepping_forward(const gd_direct *d, const float *x, const float *weight, const float *bias,
                         bool relu, float *y, void *scratch);
void gd_stepping_input_gradient(const gd_direct *d, const float *dy, const float *weight, bool accumulate,
                                float *dx, void *scratch);
void gd_stepping_weight_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight,
                                 float *dbias, void *scratch);

#endif
