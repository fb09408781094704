/* sum.h -- sums of many values. */
#ifndef GD_KERNELS_SUM_H
#define GD_KERNELS_SUM_H

#include <stdint.h>

/** To 1e-7 of it, without overflow; always in the same order. */
double gd_sum_of_squares(const float *values, int64_t count);

#endif
