/* sum.c */
#include "engine/kernels/sum.h"

double gd_sum_of_squares(const float *values, int64_t count) {
    enum { LANES = 32 }; /* sums side by side: each waits for the one before it */
    double sums[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += (double)values[i + lane] * (double)values[i + lane];
    for (int lane = 0; i < count; i++, lane++)
        sums[lane] += (double)values[i] * (double)values[i];
    for (int width = LANES / 2; width; width /= 2)
        for (int lane = 0; lane < width; lane++)
            sums[lane] += sums[lane + width];
    return sums[0];
}
