/* normal.h -- normally distributed numbers as torch draws them on a CPU. */
#ifndef GD_CORE_NORMAL_H
#define GD_CORE_NORMAL_H

#include "engine/core/rng.h"

/** torch.Tensor.normal_(0, 1): `count` float32 values, from 32 bits each and 16 at a time; fewer than 16 from
 *  128 bits for each two of them. */
void gd_rng_normal(gd_rng *rng, float *out, int64_t count);

#endif
