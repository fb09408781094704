/* math.h -- elementary functions that the compiler can vectorise: no branches, no calls, no tables.
 *
 * A relative error of about 1e-7, NaN stays NaN. Series are Taylor's; errors are of the first term left
 * out. (libm's expf and tanhf are as good, but called once per element.) */
#ifndef GD_KERNELS_MATH_H
#define GD_KERNELS_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/** A loop is vectorised only if all it calls is part of it. */
#define GD_INLINE static inline __attribute__((always_inline))

/** max(x, 0) in place; NaN stays NaN. */
GD_INLINE void gd_relu(int64_t count, float *x) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        x[i] = x[i] <= 0 ? 0 : x[i];
}

/** dx = 0 where x, what a ReLU gave, is at most 0. */
GD_INLINE void gd_relu_backward(int64_t count, const float *x, float *dx) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        dx[i] = x[i] <= 0 ? 0 : dx[i];
}

/** e^x = (1 + part) * high * low, where high and low are powers of two: x = n ln 2 + r with |r| <= ln 2 / 2
 *  and part = e^r - 1. Two factors, for one could not hold 2^128 or 2^-150. */
typedef struct gd_exp_parts {
    float part, high, low;
} gd_exp_parts;

GD_INLINE float gd_power_of_two(int32_t exponent) {
    const uint32_t bits = (uint32_t)(exponent + 127) << 23;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

GD_INLINE gd_exp_parts gd_exp_split(float x) {
    x = x < -104 ? -104 : x; /* e^-104 is 0 */
    x = x > 89 ? 89 : x;     /* e^89 is infinite */
    /* Added to 1.5 * 2^23 a float has no place for a fraction: it is rounded, and its low bits count. */
    const float shifter = 0x1.8p23F, shifted = x * 1.44269504F + shifter, n = shifted - shifter;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    const int32_t whole = (int32_t)(bits - 0x4b400000U); /* n; anything for NaN */
    const int32_t half = whole >> 1;
    /* ln 2 in two floats, the first short enough for n times it to be exact. */
    const float r = (x - n * 0x1.62ep-1F) - n * 0x1.0bfbe8p-15F;
    const float series =
        1.0F / 2 + r * (1.0F / 6 + r * (1.0F / 24 + r * (1.0F / 120 + r * (1.0F / 720 + r * (1.0F / 5040)))));
    return (gd_exp_parts){
        .part = r + r * r * series, .high = gd_power_of_two(half), .low = gd_power_of_two(whole - half)};
}

/** e^x */
GD_INLINE float gd_exp(float x) {
    const gd_exp_parts e = gd_exp_split(x);
    return (1 + e.part) * e.high * e.low;
}

/** e^x - 1, exact to the last digits near 0. */
GD_INLINE float gd_expm1(float x) {
    const gd_exp_parts e = gd_exp_split(x > 64 ? 64 : x);
    const float power = e.high * e.low, near = e.part * power + (power - 1);
    return x > 64 ? gd_exp(x) : near;
}

/** 1 / (1 + e^-x) */
GD_INLINE float gd_sigmoid(float x) {
    return 1 / (1 + gd_exp(-x));
}

/** With t = e^-2|x| - 1: -t / (2 + t), and x's sign. */
GD_INLINE float gd_tanh(float x) {
    const float t = gd_expm1(-2 * fabsf(x));
    return copysignf(t / (2 + t), x);
}

/** ln(1 + x) for x from 0 to 1: 2 artanh(s) with s = x / (2 + x) <= 1/3. */
GD_INLINE float gd_log1p_unit(float x) {
    const float s = x / (2 + x), q = s * s;
    const float series =
        q * (1.0F / 3 + q * (1.0F / 5 + q * (1.0F / 7 + q * (1.0F / 9 + q * (1.0F / 11 + q * (1.0F / 13))))));
    return 2 * (s + s * series);
}

/** ln(1 + e^x) */
GD_INLINE float gd_softplus(float x) {
    return (x > 0 ? x : 0) + gd_log1p_unit(gd_exp(-fabsf(x)));
}

/** The error function, to 2e-7: up to 1 its series 2 / sqrt(pi) sum (-1)^n x^(2n + 1) / (n! (2n + 1)), beyond
 *  formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions. */
GD_INLINE float gd_erf(float x) {
    const float q = x * x, size = fabsf(x), t = 1 / (1 + 0.3275911F * size);
    float near = 1.0F / 76204800;
    near = near * q - 1.0F / 6894720;
    near = near * q + 1.0F / 685440;
    near = near * q - 1.0F / 75600;
    near = near * q + 1.0F / 9360;
    near = near * q - 1.0F / 1320;
    near = near * q + 1.0F / 216;
    near = near * q - 1.0F / 42;
    near = near * q + 1.0F / 10;
    near = near * q - 1.0F / 3;
    near = near * q + 1;
    const float poly =
        t *
        (0.254829592F + t * (-0.284496736F + t * (1.421413741F + t * (-1.453152027F + t * 1.061405429F))));
    const float far = 1 - poly * gd_exp(-q);
    return copysignf(size > 1 ? far : 1.12837916709551257F * size * near, x);
}

#endif
