/* vec.h -- a vector register of floats. One source for every instruction set: the engine is compiled for
 * each, and the number of lanes follows from the compiler's flags. `a * b + c` becomes one instruction where
 * there is one (-ffp-contract=fast). */
#ifndef GD_KERNELS_VEC_H
#define GD_KERNELS_VEC_H

#include <stdint.h>

#include "engine/kernels/math.h"

#if defined(__AVX512F__)
enum { GD_LANES = 16 };
#define GD_VEC_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define GD_VEC_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define GD_VEC_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define GD_VEC_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define GD_VEC_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define GD_VEC_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif defined(__AVX__)
enum { GD_LANES = 8 };
#define GD_VEC_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define GD_VEC_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define GD_VEC_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define GD_VEC_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define GD_VEC_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define GD_VEC_ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
enum { GD_LANES = 4 };
#define GD_VEC_EVEN 0, 2, 4, 6
#define GD_VEC_ODD 1, 3, 5, 7
#define GD_VEC_LOW 0, 4, 1, 5
#define GD_VEC_HIGH 2, 6, 3, 7
#define GD_VEC_EVEN 0, 2, 4, 6
#define GD_VEC_ODD 1, 3, 5, 7
#endif

typedef float gd_vec __attribute__((vector_size(GD_LANES * sizeof(float))));
typedef int32_t gd_vec_mask __attribute__((vector_size(GD_LANES * sizeof(float)))); /* -1 or 0 per lane */
/* In an array of floats: at any element. */
typedef float gd_vec_at __attribute__((vector_size(GD_LANES * sizeof(float)), aligned(4), may_alias));

GD_INLINE gd_vec gd_vec_load(const float *from) {
    return *(const gd_vec_at *)from;
}

GD_INLINE void gd_vec_store(float *to, gd_vec v) {
    *(gd_vec_at *)to = v;
}

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

/** The even, and the odd, elements of two vectors one after the other. */
GD_INLINE gd_vec gd_vec_even(gd_vec a, gd_vec b) {
    return __builtin_shufflevector(a, b, GD_VEC_EVEN);
}
GD_INLINE gd_vec gd_vec_odd(gd_vec a, gd_vec b) {
    return __builtin_shufflevector(a, b, GD_VEC_ODD);
}

/** The sum of the lanes, in pairs. */
GD_INLINE float gd_vec_sum(gd_vec v) {
    float lane[GD_LANES];
    gd_vec_store(lane, v);
    for (int width = GD_LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
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
