/* gemm.h -- matrix products, by OpenBLAS or by our own. The only door to BLAS. */
#ifndef GD_KERNELS_GEMM_H
#define GD_KERNELS_GEMM_H

#include <stdbool.h>
#include <stdint.h>

/**
 * C = op(A) op(B) (+ C when accumulate), row-major; each matrix with the distance between its rows.
 *
 * @param a   (m, k), or (k, m) when transpose_a
 * @param b   (k, n), or (n, k) when transpose_b
 * @param c   (m, n)
 */
void gd_gemm_strided(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                     int64_t a_stride, const float *b, int64_t b_stride, float *c, int64_t c_stride,
                     bool accumulate);

/** The same for matrices without gaps. */
static inline void gd_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                           const float *a, const float *b, float *c, bool accumulate) {
    gd_gemm_strided(transpose_a, transpose_b, m, n, k, a, transpose_a ? m : k, b, transpose_b ? k : n, c, n,
                    accumulate);
}

/** Floats in a vector of the code that OpenBLAS chose: less than the processor has, where it does not know
 * it. */
int gd_blas_lanes(void);

/** Keep OpenBLAS on the calling thread; once per process, before the first product. */
void gd_blas_single_threaded(void);

#endif
