/* rng.h -- torch's CPU generator: mt19937 (Matsumoto and Nishimura 1998). */
#ifndef GD_CORE_RNG_H
#define GD_CORE_RNG_H

#include "engine/gradd_engine.h"

typedef struct gd_rng {
    uint32_t state[624];
    int next; /* 624: make the next batch first */
    bool has_spare;
    double spare; /* the second of two normal numbers: see normal.c */
} gd_rng;

/** torch.manual_seed(seed): the low 32 bits count, as in torch. */
void gd_rng_seed(gd_rng *rng, uint64_t seed);
/** The next 32 bits. */
uint32_t gd_rng_u32(gd_rng *rng);
/** torch's uniform double in [0, 1), of two draws: what bernoulli_ (where torch is built without MKL) and
 *  rrelu compare or stretch. */
double gd_rng_double(gd_rng *rng);
/** torch.Tensor.uniform_(from, to): `count` float32 values, one 32-bit draw each. */
void gd_rng_uniform(gd_rng *rng, float *out, int64_t count, double from, double to);

#endif
