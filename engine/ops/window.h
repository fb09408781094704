/* window.h -- what convolution and pooling share: windows over the trailing axes. */
#ifndef GD_OPS_WINDOW_H
#define GD_OPS_WINDOW_H

#include "engine/graph/op.h"
#include "engine/kernels/conv.h"

/** "[C, L]", "[C, H, W]", "[C, D, H, W]": a sample with 1, 2 or 3 axes after the channels. */
const char *gd_window_sample(int axes);
/** "length"; "height", "width"; "depth", "height", "width". */
const char *gd_window_axis(int axes, int axis);
/** Fail: the input is not (N, C, and `axes` more). */
int gd_window_wrong_rank(gd_infer *infer, int axes);
/** Check a convolution's channels; fills in in_channels when that was left to the input (0). */
int gd_channels_infer(gd_infer *infer, int64_t *in_channels, int64_t out_channels, int64_t groups);
/** Number of windows along one axis; 0 when none fits. */
int64_t gd_window_fit(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                      bool ceil_mode);
/** Number of windows per axis, for an input (N, C, and `axes` more, 1 to 3); a window that does not fit is an
 *  error. kernel, stride, padding and dilation have `axes` numbers each. */
int gd_window_infer(gd_infer *infer, int axes, const int64_t *kernel, const int64_t *stride,
                    const int64_t *padding, const int64_t *dilation, bool ceil_mode, gd_window *ret_window);
/** The window of tensors (N, C, 1 to 3 more) whose shapes are known. */
gd_window gd_window_of(const gd_shape *input, const gd_shape *output, const int64_t *kernel,
                       const int64_t *stride, const int64_t *padding, const int64_t *dilation);
/** (batch, channels, and the last `axes` of three sizes) */
gd_shape gd_window_shape(int64_t batch, int64_t channels, const int64_t sizes[GD_WINDOW_AXES], int axes);

/** Are all of them `number`? */
bool gd_all_are(const int64_t *numbers, int count, int64_t number);
/** ", stride=(2, 2)"; of one number "(2,)". */
void gd_repr_tuple(FILE *out, const char *prefix, const int64_t *numbers, int count);
/** The same as torch prints what was given as one number: ", stride=2" when all are equal. */
void gd_repr_number_or_tuple(FILE *out, const char *prefix, const int64_t *numbers, int count);

#endif
