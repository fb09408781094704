/* sampler.c -- the order of samples: torch.Generator and torch.randperm. */
#include <stdlib.h>
#include <string.h>

#include "engine/core/error.h"
#include "engine/core/rng.h"

struct gd_generator {
    gd_rng rng;
};

/* The state: 624 words and the place among them; nothing here draws normal numbers. */
enum { STATE_BYTES = offsetof(gd_rng, has_spare), WORDS = sizeof((gd_rng){0}.state) / sizeof(uint32_t) };
_Static_assert(STATE_BYTES == (WORDS + 1) * sizeof(uint32_t), "no bytes between them");

gd_generator *gd_generator_new(uint64_t seed) {
    gd_generator *generator = calloc(1, sizeof *generator);
    if (generator)
        gd_rng_seed(&generator->rng, seed);
    return generator;
}

void gd_generator_free(gd_generator *generator) {
    free(generator);
}

/* Fisher and Yates, from the front. */
void gd_generator_permute(gd_generator *generator, int64_t count, int64_t *ret_order) {
    for (int64_t i = 0; i < count; i++)
        ret_order[i] = i;
    for (int64_t i = 0; i < count - 1; i++) {
        const int64_t j = i + gd_rng_u32(&generator->rng) % (count - i), kept = ret_order[i];
        ret_order[i] = ret_order[j];
        ret_order[j] = kept;
    }
}

const void *gd_generator_state(const gd_generator *generator, size_t *ret_size) {
    *ret_size = STATE_BYTES;
    return &generator->rng;
}

int gd_generator_set_state(gd_generator *generator, const void *state, size_t size, gd_error *error) {
    gd_rng rng = generator->rng;
    if (size != STATE_BYTES)
        return gd_fail(error, GD_E_VALUE, "a generator's state has %d bytes, not %zu", STATE_BYTES, size);
    memcpy(&rng, state, size);
    if (rng.next < 0 || rng.next > WORDS)
        return gd_fail(error, GD_E_VALUE, "a generator's state ends in a place from 0 to %d, not in %d",
                       WORDS, rng.next);
    generator->rng = rng;
    return 0;
}
