/* window.h -- what convolution and pooling share: windows over the trailing axes. */
#ifndef GD_OPS_WINDOW_H
#define GD_OPS_WINDOW_H

#include "engine/graph/op.h"
#include "engine/kernels/conv.h"

/** Fail: the input is not (N, C, and `axes` more). */
int gd_window_wrong_rank(gd_infer *infer, int axes);
/** Number of windows per axis, for an input (N, C, H, W); a window that does not fit is an error. */
int gd_window_infer(gd_infer *infer, const int64_t kernel[2], const int64_t stride[2],
                    const int64_t padding[2], const int64_t dilation[2], bool ceil_mode,
                    gd_window *ret_window);
/** The window of tensors whose shapes are known. */
gd_window gd_window_of(const gd_shape *input, const gd_shape *output, const int64_t kernel[2],
                       const int64_t stride[2], const int64_t padding[2], const int64_t dilation[2]);
/** ", stride=(2, 2)"; nothing when the pair equals `unless` (which may be NULL). */
void gd_repr_pair(FILE *out, const char *prefix, const int64_t pair[2], const int64_t *unless);
/** The same as torch prints what was given as one number: ", stride=2" when both are equal. */
void gd_repr_number_or_pair(FILE *out, const char *prefix, const int64_t pair[2]);

#endif
