/* flush.h -- subnormal numbers (below 1.2e-38) count as 0 while the engine computes, as after
 * torch.set_flush_denormal(True). Processors take a hundred steps for each, and training makes them: the
 * momentum of a weight whose gradient has become 0 shrinks towards it for ever. */
#ifndef GD_CORE_FLUSH_H
#define GD_CORE_FLUSH_H

#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__SSE2__)
enum { GD_FLUSH = 0x8040 }; /* of MXCSR: results, and operands */
#elif defined(__aarch64__)
enum { GD_FLUSH = 1 << 24 }; /* of FPCR: both */
#endif

/** From here on, on this thread. @return what gd_flush_end() wants: how it was */
static inline unsigned gd_flush_begin(void) {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | GD_FLUSH);
    return before;
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | GD_FLUSH));
    return (unsigned)before;
#else
    return 0;
#endif
}

static inline void gd_flush_end(unsigned before) {
#if defined(__SSE2__)
    _mm_setcsr((_mm_getcsr() & ~(unsigned)GD_FLUSH) | (before & GD_FLUSH));
#elif defined(__aarch64__)
    uint64_t now;
    __asm__ volatile("mrs %0, fpcr" : "=r"(now));
    __asm__ volatile("msr fpcr, %0" : : "r"((now & ~(uint64_t)GD_FLUSH) | (before & GD_FLUSH)));
#else
    (void)before;
#endif
}

#endif
