/* sum.h -- sums of squares. */
#ifndef GD_KERNELS_SUM_H
#define GD_KERNELS_SUM_H

#include <stdint.h>

/** Runs are added up in floats, side by side, and the runs in double: to 1e-6 at worst, over many runs far
 *  better. From the first run on whose sum comes near a float's bounds, all is added up in double. Always in
 *  the same order.
 *  @return infinity or NaN where a value is */
double gd_sum_of_squares(const float *values, int64_t count);

#endif
