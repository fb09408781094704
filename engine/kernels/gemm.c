/* gemm.c -- the one includer of cblas.h. OpenBLAS runs on the calling thread alone: the pool is ours, and
 * its own threads would change bits with their number. */
#include "engine/kernels/gemm.h"

#include <cblas.h>

#include "engine/gradd_engine.h"

void gd_gemm_strided(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                     int64_t a_stride, const float *b, int64_t b_stride, float *c, int64_t c_stride,
                     bool accumulate) {
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0F, a,
                (blasint)a_stride, b, (blasint)b_stride, accumulate ? 1.0F : 0.0F, c, (blasint)c_stride);
}

void gd_blas_single_threaded(void) {
    openblas_set_num_threads(1);
}

const char *gd_engine_blas_core(void) {
    return openblas_get_corename();
}

const char *gd_engine_blas_config(void) {
    return openblas_get_config();
}
