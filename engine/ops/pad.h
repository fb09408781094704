/* pad.h -- what padding and convolution share: a border around the trailing axes. */
#ifndef GD_OPS_PAD_H
#define GD_OPS_PAD_H

#include "engine/graph/op.h"
#include "engine/kernels/pad.h"

/**
 * The padding of an input whose last `axes` axes (1 to 3) get a border, checked.
 *
 * @param field the attribute it comes from, for errors
 * @param pads  before and after, per axis and the last axis first, as torch.nn.functional.pad has them:
 *              left, right, top, bottom, front, back
 */
int gd_padding_infer(gd_infer *infer, const char *field, gd_pad_mode mode, int axes, const int64_t *pads,
                     gd_padding *ret_padding);
/** The same for an input that has been checked. Planes are all axes before the last `axes`. */
gd_padding gd_padding_of(const gd_shape *input, gd_pad_mode mode, int axes, const int64_t *pads);
/** torch's graph of it over `axes` axes, from nodes[at] on. @return how many nodes */
int gd_padding_grad_fn(gd_pad_mode mode, int axes, const int64_t *pads, gd_grad_fn *nodes, int at);

#endif
