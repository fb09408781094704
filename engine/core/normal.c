/* normal.c -- the Box-Muller transform: for u, v uniform in [0, 1),
 *     sqrt(-2 log(1 - u)) cos(2 pi v)   and   sqrt(-2 log(1 - u)) sin(2 pi v)
 * are independent and normal. To get torch's bits, log, sin and cos are what torch's vectors compute: the
 * single precision polynomials of Moshier's Cephes library, with multiplications and additions fused. */
#include "engine/core/normal.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 16 }; /* numbers made from as many uniform ones */

/* log x for a normal x > 0: x = m 2^e with m in [sqrt(1/2), sqrt(2)), and a polynomial of m - 1. */
static float log_of(float x) {
    static const float p[] = {7.0376836292E-2F,  -1.1514610310E-1F, 1.1676998740E-1F,
                              -1.2420140846E-1F, 1.4249322787E-1F,  -1.6668057665E-1F,
                              2.0000714765E-1F,  -2.4999993993E-1F, 3.3333331174E-1F};
    int exponent;
    float m = frexpf(x, &exponent); /* in [1/2, 1) */
    const bool low = m < 0.707106781186547524F;
    const float e = (float)(exponent - low);
    m = low ? m - 1 + m : m - 1;
    const float z = m * m;
    float y = p[0];
    for (int i = 1; i < 9; i++)
        y = fmaf(y, m, p[i]);
    y = fmaf(y * m, z, e * -2.12194440E-4F);
    y = fmaf(-0.5F, z, y);
    return fmaf(e, 0.693359375F, m + y); /* log 2 in two parts: this and the -2.1e-4 above */
}

/* sin x and cos x for x in [0, 2 pi]: x is brought to within pi/4 of a multiple of pi/2. */
static void sin_cos(float x, float *ret_sin, float *ret_cos) {
    const int octant = ((int)(x * 1.27323954473516F) + 1) & ~1;
    const float n = (float)octant;
    x = fmaf(n, -0.78515625F, x); /* pi/4 in three parts */
    x = fmaf(n, -2.4187564849853515625e-4F, x);
    x = fmaf(n, -3.77489497744594108e-8F, x);
    const float z = x * x;
    float c = fmaf(fmaf(2.443315711809948E-5F, z, -1.388731625493765E-3F), z, 4.166664568298827E-2F) * z;
    c = fmaf(c, z, -0.5F * z) + 1;
    float s = fmaf(fmaf(-1.9515295891E-4F, z, 8.3321608736E-3F), z, -1.6666654611E-1F) * z;
    s = fmaf(s, x, x);
    const bool swap = octant & 2;
    *ret_sin = octant & 4 ? -(swap ? c : s) : swap ? c : s;
    *ret_cos = (octant - 2) & 4 ? (swap ? s : c) : -(swap ? s : c);
}

/* In place: uniform numbers become normal ones. */
static void transform(float *block) {
    for (int i = 0; i < BLOCK / 2; i++) {
        float sine, cosine;
        const float radius = sqrtf(-2 * log_of(1 - block[i]));
        sin_cos(6.28318530717958647692F * block[i + BLOCK / 2], &sine, &cosine);
        block[i] = radius * cosine;
        block[i + BLOCK / 2] = radius * sine;
    }
}

static double uniform_double(gd_rng *rng) {
    const uint64_t high = gd_rng_u32(rng), low = gd_rng_u32(rng);
    return (double)((high << 32 | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* One by one in double precision; each second one is kept for the next call. */
static float normal_double(gd_rng *rng) {
    if (rng->has_spare) {
        rng->has_spare = false;
        return (float)rng->spare;
    }
    const double angle = 6.28318530717958647692 * uniform_double(rng);
    const double radius = sqrt(-2 * log1p(-uniform_double(rng)));
    rng->spare = radius * sin(angle);
    rng->has_spare = true;
    return (float)(radius * cos(angle));
}

void gd_rng_normal(gd_rng *rng, float *out, int64_t count) {
    if (count < BLOCK) {
        for (int64_t i = 0; i < count; i++)
            out[i] = normal_double(rng);
        return;
    }
    gd_rng_uniform(rng, out, count, 0, 1);
    for (int64_t i = 0; i + BLOCK <= count; i += BLOCK)
        transform(out + i);
    if (count % BLOCK) { /* the last 16, drawn anew */
        gd_rng_uniform(rng, out + count - BLOCK, BLOCK, 0, 1);
        transform(out + count - BLOCK);
    }
}
