/* pool.h -- what the kinds of pooling share. */
#ifndef GD_OPS_POOL_H
#define GD_OPS_POOL_H

#include "engine/ops/window.h"

/** The output's shape for windows over the last `axes` axes, after checks of rank, padding and size. */
int gd_pool_infer(gd_infer *infer, int axes, const int64_t *kernel, const int64_t *stride,
                  const int64_t *padding, const int64_t *dilation, bool ceil_mode);
/** Zero the input's gradient unless it is to be added to. @return false: it is not wanted */
bool gd_pool_clear(const gd_call *call);
/** torch pools (N, C, L) as (N, C, 1, L): the node called `name` between two views. */
int gd_pool_grad_fn_1d(const char *name, gd_grad_fn nodes[GD_MAX_GRAD_FN]);

#endif
