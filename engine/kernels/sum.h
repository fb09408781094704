/* sum.h -- sums in double. */
#ifndef GD_KERNELS_SUM_H
#define GD_KERNELS_SUM_H

#include <stdint.h>

/** Sixteen sums side by side, so that they fill wide registers; always in the same order. */
double gd_sum_of_squares(const float *values, int64_t count);

#endif
