/* flush.h -- subnormal numbers (below 1.2e-38) count as 0 while the engine computes, as after
 * torch.set_flush_denormal(True). Processors take a hundred steps for each, and training makes them: the
 * momentum of a weight whose gradient has become 0 shrinks towards it for ever. */
#ifndef GD_CORE_FLUSH_H
#define GD_CORE_FLUSH_H

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

enum { GD_FLUSH = 0x8040 }; /* results, and operands */

/** From here on, on this thread. @return what gd_flush_end() wants: how it was */
static inline unsigned gd_flush_begin(void) {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | GD_FLUSH);
    return before;
#else
    return 0;
#endif
}

static inline void gd_flush_end(unsigned before) {
#if defined(__SSE2__)
    _mm_setcsr((_mm_getcsr() & ~(unsigned)GD_FLUSH) | (before & GD_FLUSH));
#else
    (void)before;
#endif
}

#endif
