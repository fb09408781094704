/* sampler.c -- mt19937 and torch.randperm.
 * Source of the generator: M. Matsumoto, T. Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998), with the
 * initialisation of 2002 (init_genrand). */
#include "sampler.h"

enum { N = 624, M = 397 };

void ctl_generator_seed(ctl_generator *generator, uint32_t seed) {
    uint32_t *s = generator->state;
    s[0] = seed;
    for (uint32_t i = 1; i < N; i++) {
        s[i] = 1812433253u * (s[i - 1] ^ (s[i - 1] >> 30)) + i;
    }
    generator->next = N;
}

/* The next 624 words of state. */
static void twist(uint32_t *s) {
    for (int i = 0; i < N; i++) {
        uint32_t joined = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
        s[i] = s[(i + M) % N] ^ (joined >> 1) ^ (joined & 1 ? 0x9908b0dfu : 0);
    }
}

uint32_t ctl_generator_next(ctl_generator *generator) {
    if (generator->next == N) {
        twist(generator->state);
        generator->next = 0;
    }
    uint32_t y = generator->state[generator->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

void ctl_randperm(ctl_generator *generator, int64_t count, int64_t *out) {
    for (int64_t i = 0; i < count; i++) {
        out[i] = i;
    }
    for (int64_t i = 0; i < count - 1; i++) {
        int64_t j = i + ctl_generator_next(generator) % (count - i);
        int64_t kept = out[i];
        out[i] = out[j];
        out[j] = kept;
    }
}
