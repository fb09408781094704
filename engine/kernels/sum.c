/* sum.c -- in double, but for short runs of floats whose squares are far from any limit: converting each
 * would take three times as long. */
#include "engine/kernels/sum.h"

#include <float.h>

#include "engine/kernels/vec.h"

enum { RUN = 8 * GD_LANES /* floats: four squares added up in each lane of two vectors */ };

static double in_double(const float *values, int64_t count) {
    enum { LANES = 16 };
    double sums[LANES] = {0}, total = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += (double)values[i + lane] * (double)values[i + lane];
    for (int lane = 0; i < count && lane < LANES; i++, lane++)
        sums[lane] += (double)values[i] * (double)values[i];
    for (int lane = 0; lane < LANES; lane++)
        total += sums[lane];
    return total;
}

static float of_run(const float *values) {
    gd_vec even = gd_vec_all(0), odd = even;
#pragma GCC unroll 4
    for (int i = 0; i < RUN; i += 2 * GD_LANES) {
        const gd_vec a = gd_vec_load(values + i), b = gd_vec_load(values + i + GD_LANES);
        even += a * a;
        odd += b * b;
    }
    return gd_vec_sum(even + odd);
}

double gd_sum_of_squares(const float *values, int64_t count) {
    const float least = 1e-25F; /* squares that are lost below 1e-38 do not count beside it */
    double total = 0;
    for (; count >= RUN; count -= RUN, values += RUN) {
        const float sum = of_run(values);
        total += sum > least && sum <= FLT_MAX ? (double)sum : in_double(values, RUN);
    }
    return count ? total + in_double(values, count) : total;
}
