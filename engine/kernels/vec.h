/* vec.h -- a vector register of floats. One source for every instruction set: the engine is compiled for
 * each, and the number of lanes follows from the compiler's flags. `a * b + c` becomes one instruction where
 * there is one (-ffp-contract=fast). */
#ifndef GD_KERNELS_VEC_H
#define GD_KERNELS_VEC_H

#include <stdint.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "engine/kernels/math.h"

#if defined(__AVX512F__)
enum { GD_LANES = 16 };
#define GD_VEC_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define GD_VEC_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define GD_VEC_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define GD_VEC_EACH 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define GD_VEC_SWAP 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7
#define GD_VEC_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
enum { GD_LANES = 8 };
#define GD_VEC_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define GD_VEC_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define GD_VEC_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define GD_VEC_EACH 0, 1, 2, 3, 4, 5, 6, 7
#define GD_VEC_SWAP 4, 5, 6, 7, 0, 1, 2, 3
#define GD_VEC_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
enum { GD_LANES = 4 };
#define GD_VEC_EVEN 0, 2, 4, 6
#define GD_VEC_ODD 1, 3, 5, 7
#define GD_VEC_LOW 0, 4, 1, 5
#define GD_VEC_EACH 0, 1, 2, 3
#define GD_VEC_SWAP 2, 3, 0, 1
#define GD_VEC_HIGH 2, 6, 3, 7
#endif

typedef float gd_vec __attribute__((vector_size(GD_LANES * sizeof(float))));
typedef float gd_half __attribute__((vector_size(GD_LANES / 2 * sizeof(float))));
typedef int32_t gd_vec_mask __attribute__((vector_size(GD_LANES * sizeof(float)))); /* -1 or 0 per lane */
/* In an array of floats: at any element. */
typedef float gd_vec_at __attribute__((vector_size(GD_LANES * sizeof(float)), aligned(4), may_alias));

GD_INLINE gd_vec gd_vec_load(const float *from) {
    return *(const gd_vec_at *)from;
}

/** v itself, in a register: the compiler may not load it anew for each use, which costs where vectors
 * straddle cache lines. */
GD_INLINE gd_vec gd_vec_hold(gd_vec v) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(v));
#elif defined(__SSE__)
    __asm__("" : "+x"(v));
#endif
    return v;
}

GD_INLINE void gd_vec_store(float *to, gd_vec v) {
    *(gd_vec_at *)to = v;
}

/* Lanes `first` ... count - 1 of a vector: the others are neither read nor written. */
#if defined(__AVX512F__)
typedef __mmask16 gd_vec_lanes;

GD_INLINE gd_vec_lanes gd_vec_lanes_of(int64_t first, int64_t count) {
    return (gd_vec_lanes)((1U << count) - (1U << first));
}

/** The others are 0. */
GD_INLINE gd_vec gd_vec_load_some(const float *from, gd_vec_lanes lanes) {
    return (gd_vec)_mm512_maskz_loadu_ps(lanes, from);
}

GD_INLINE void gd_vec_store_some(float *to, gd_vec v, gd_vec_lanes lanes) {
    _mm512_mask_storeu_ps(to, lanes, (__m512)v);
}
#else
typedef gd_vec_mask gd_vec_lanes;

GD_INLINE gd_vec_lanes gd_vec_lanes_of(int64_t first, int64_t count) {
    gd_vec_mask lane;
    for (int i = 0; i < GD_LANES; i++)
        lane[i] = i;
    return (lane >= (int32_t)first) & (lane < (int32_t)count);
}

GD_INLINE gd_vec gd_vec_load_some(const float *from, gd_vec_lanes lanes) {
#if defined(__AVX__)
    return (gd_vec)_mm256_maskload_ps(from, (__m256i)lanes);
#else
    gd_vec v = {0};
    for (int i = 0; i < GD_LANES; i++)
        if (lanes[i])
            v[i] = from[i];
    return v;
#endif
}

GD_INLINE void gd_vec_store_some(float *to, gd_vec v, gd_vec_lanes lanes) {
#if defined(__AVX__)
    _mm256_maskstore_ps(to, (__m256i)lanes, (__m256)v);
#else
    for (int i = 0; i < GD_LANES; i++)
        if (lanes[i])
            to[i] = v[i];
#endif
}
#endif

/** The same number in every lane. */
GD_INLINE gd_vec gd_vec_all(float x) {
    return x - (gd_vec){0};
}

/** a where the mask is set, else b. */
GD_INLINE gd_vec gd_vec_select(gd_vec_mask mask, gd_vec a, gd_vec b) {
    return (gd_vec)((mask & (gd_vec_mask)a) | (~mask & (gd_vec_mask)b));
}

/** max(x, 0); NaN stays NaN. */
GD_INLINE gd_vec gd_vec_relu(gd_vec x) {
    return (gd_vec)(~(gd_vec_mask)(x < 0) & (gd_vec_mask)x);
}

/** Where the value is larger than the maximum, or NaN, it becomes that, and `at` becomes `here`. */
GD_INLINE void gd_vec_take_larger(gd_vec value, int32_t here, gd_vec *max, gd_vec_mask *at) {
    const gd_vec_mask take = (value > *max) | ~(value <= gd_vec_all(INFINITY));
    *max = gd_vec_select(take, value, *max);
    *at = (take & here) | (~take & *at);
}

/** The even, and the odd, elements of two vectors one after the other. */
GD_INLINE gd_vec gd_vec_even(gd_vec a, gd_vec b) {
    return __builtin_shufflevector(a, b, GD_VEC_EVEN);
}
GD_INLINE gd_vec gd_vec_odd(gd_vec a, gd_vec b) {
    return __builtin_shufflevector(a, b, GD_VEC_ODD);
}

/** What the even, and the odd, elements of two vectors were made of: elements of the one and the other in
 * turn. */
GD_INLINE gd_vec gd_vec_low(gd_vec even, gd_vec odd) {
    return __builtin_shufflevector(even, odd, GD_VEC_LOW);
}
GD_INLINE gd_vec gd_vec_high(gd_vec even, gd_vec odd) {
    return __builtin_shufflevector(even, odd, GD_VEC_HIGH);
}

/** The halves change places. */
GD_INLINE gd_vec gd_vec_swap(gd_vec v) {
    return __builtin_shufflevector(v, v, GD_VEC_SWAP);
}

/** A vector's first half from one place, its second from another; and back there. */
GD_INLINE gd_vec gd_vec_load_halves(const float *first, const float *second) {
    gd_half a, b;
    memcpy(&a, first, sizeof a);
    memcpy(&b, second, sizeof b);
    return __builtin_shufflevector(a, b, GD_VEC_EACH);
}
GD_INLINE void gd_vec_store_halves(float *first, float *second, gd_vec v) {
    memcpy(first, &v, sizeof v / 2);
    memcpy(second, (char *)&v + sizeof v / 2, sizeof v / 2);
}

/** Lanes that hold 0 ... 255 as bytes, and back. */
GD_INLINE void gd_vec_store_bytes(uint8_t *to, gd_vec_mask v) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX2__)
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
#else
    for (int i = 0; i < GD_LANES; i++)
        to[i] = (uint8_t)v[i];
#endif
}
GD_INLINE gd_vec_mask gd_vec_load_bytes(const uint8_t *from) {
#if defined(__AVX512F__)
    return (gd_vec_mask)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
    return (gd_vec_mask)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from));
#else
    gd_vec_mask v;
    for (int i = 0; i < GD_LANES; i++)
        v[i] = from[i];
    return v;
#endif
}

/** The sum of the lanes, in pairs. */
GD_INLINE float gd_vec_sum(gd_vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float lane[GD_LANES];
    gd_vec_store(lane, v);
    for (int width = GD_LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
#endif
}

/** The greatest lane; none may be NaN. */
GD_INLINE float gd_vec_max(gd_vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float lane[GD_LANES];
    gd_vec_store(lane, v);
    for (int width = GD_LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
    return lane[0];
#endif
}

/** What is left of `count` elements from the i-th on; 0 in the other lanes. */
GD_INLINE gd_vec gd_vec_rest(const float *from, int64_t i, int64_t count) {
    return gd_vec_load_some(from + i, gd_vec_lanes_of(0, count - i));
}

/** Sums of x[i], and of x[i] y[i], by lanes. (What compilers make of a loop adds its lanes
 *  one after the other, which takes longer than a short row.) */
GD_INLINE float gd_vec_total(int64_t count, const float *x) {
    gd_vec sum = {0};
    int64_t i = 0;
    for (; i + GD_LANES <= count; i += GD_LANES)
        sum += gd_vec_load(x + i);
    return gd_vec_sum(i < count ? sum + gd_vec_rest(x, i, count) : sum);
}
GD_INLINE float gd_vec_dot(int64_t count, const float *x, const float *y) {
    gd_vec sum = {0};
    int64_t i = 0;
    for (; i + GD_LANES <= count; i += GD_LANES)
        sum += gd_vec_load(x + i) * gd_vec_load(y + i);
    return gd_vec_sum(i < count ? sum + gd_vec_rest(x, i, count) * gd_vec_rest(y, i, count) : sum);
}

/** Rows become columns: lane j of row[i] and lane i of row[j] change places. Each round interleaves the upper
 *  half of the rows with the lower one; after log2(GD_LANES) rounds all are where they belong. */
GD_INLINE void gd_vec_transpose(gd_vec row[GD_LANES]) {
#pragma GCC unroll 4
    for (int round = 1; round < GD_LANES; round *= 2) {
        gd_vec next[GD_LANES];
#pragma GCC unroll 8
        for (int i = 0; i < GD_LANES / 2; i++) {
            const gd_vec a = row[i], b = row[i + GD_LANES / 2];
            next[2 * i] = __builtin_shufflevector(a, b, GD_VEC_LOW);
            next[2 * i + 1] = __builtin_shufflevector(a, b, GD_VEC_HIGH);
        }
#pragma GCC unroll 16
        for (int i = 0; i < GD_LANES; i++)
            row[i] = next[i];
    }
}

#endif
