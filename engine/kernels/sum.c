/* sum.c */
#include "engine/kernels/sum.h"

#include "engine/core/shape.h"
#include "engine/kernels/vec.h"

enum { RUN = 1024, SIDE_BY_SIDE = 4 /* vectors: each sum waits for the one before it */ };

static float squares_of_run(const float *values, int64_t count) {
    gd_vec sums[SIDE_BY_SIDE] = {0};
    int64_t i = 0;
    for (; i + SIDE_BY_SIDE * GD_LANES <= count; i += SIDE_BY_SIDE * GD_LANES)
#pragma GCC unroll 4
        for (int k = 0; k < SIDE_BY_SIDE; k++) {
            const gd_vec v = gd_vec_load(values + i + k * GD_LANES);
            sums[k] += v * v;
        }
    for (; i < count; i += GD_LANES) {
        const gd_vec v = gd_vec_rest(values, i, gd_smaller(count, i + GD_LANES));
        sums[0] += v * v;
    }
    return gd_vec_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static double squares_in_double(const float *values, int64_t count) {
    enum { LANES = 32 };
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

double gd_sum_of_squares(const float *values, int64_t count) {
    const float least = 1e-30F, most = 1e36F;
    double total = 0;
    for (int64_t i = 0; i < count; i += RUN) {
        const float sum = squares_of_run(values + i, gd_smaller(RUN, count - i));
        if (!(sum > least && sum < most))
            return total + squares_in_double(values + i, count - i);
        total += sum;
    }
    return total;
}
