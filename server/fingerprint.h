/* fingerprint.h -- XXH3 by whatever vectors the processor has; the result is the same. */
#ifndef GRADD_SERVER_FINGERPRINT_H
#define GRADD_SERVER_FINGERPRINT_H

#define XXH_INLINE_ALL
#include <xxhash.h>

void gs_fingerprint_update_avx2(XXH3_state_t *state, const void *bytes, size_t size);

/** XXH3_128bits_update(), faster where it can be. */
static inline void gs_fingerprint_update(XXH3_state_t *state, const void *bytes, size_t size) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) {
        gs_fingerprint_update_avx2(state, bytes, size);
        return;
    }
#endif
    XXH3_128bits_update(state, bytes, size);
}

#endif
