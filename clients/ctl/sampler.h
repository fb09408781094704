/* sampler.h -- torch's shuffling: the same generator, the same permutations. */
#ifndef GRADD_CTL_SAMPLER_H
#define GRADD_CTL_SAMPLER_H

#include <stdint.h>

/* torch.randperm draws 32 bits per element below this many elements, and more above: not done here. */
#define CTL_RANDPERM_MAX (UINT32_MAX / 20)

/** mt19937 of Matsumoto and Nishimura, which torch's CPU generator is. */
typedef struct ctl_generator {
    uint32_t state[624];
    int next;
} ctl_generator;

/** g = torch.Generator().manual_seed(seed) */
void ctl_generator_seed(ctl_generator *generator, uint32_t seed);
/** The next 32 bits. */
uint32_t ctl_generator_next(ctl_generator *generator);
/** torch.randperm(count, generator=g). @param out (count); 0 <= count < CTL_RANDPERM_MAX */
void ctl_randperm(ctl_generator *generator, int64_t count, int64_t *out);

#endif
