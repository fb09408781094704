/* rng.c -- mt19937, and uniform floats to the bit as torch draws them. */
#include "engine/core/rng.h"

#include <math.h>

enum { N = 624, M = 397 };

void gd_rng_seed(gd_rng *rng, uint64_t seed) {
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++)
        rng->state[i] = 1812433253U * (rng->state[i - 1] ^ (rng->state[i - 1] >> 30)) + i;
    rng->next = N;
    rng->has_spare = false;
}

static void refill(gd_rng *rng) {
    uint32_t *s = rng->state;
    for (int i = 0; i < N; i++) {
        uint32_t y = (s[i] & 0x80000000U) | (s[(i + 1) % N] & 0x7fffffffU);
        s[i] = s[(i + M) % N] ^ (y >> 1) ^ ((y & 1) ? 0x9908b0dfU : 0);
    }
    rng->next = 0;
}

uint32_t gd_rng_u32(gd_rng *rng) {
    if (rng->next >= N)
        refill(rng);
    uint32_t y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680U;
    y ^= (y << 15) & 0xefc60000U;
    return y ^ (y >> 18);
}

/* The first draw is the high half; 53 of the 64 bits count. */
double gd_rng_double(gd_rng *rng) {
    const uint64_t high = gd_rng_u32(rng);
    const uint64_t bits = high << 32 | gd_rng_u32(rng);
    return (double)(bits & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* 24 random bits make a float in [0, 1); the fused multiply-add decides the last bit. */
void gd_rng_uniform(gd_rng *rng, float *out, int64_t count, double from, double to) {
    const float low = (float)from, range = (float)to - (float)from;
    for (int64_t i = 0; i < count; i++)
        out[i] = fmaf((float)(gd_rng_u32(rng) & 0xffffff) * 0x1p-24f, range, low);
}
