/* gemm.c -- matrix products by whichever is faster, product.c or OpenBLAS; the one includer of cblas.h.
 * OpenBLAS runs on the calling thread alone: the pool is ours, and its own threads would change bits with
 * their number. */
#include "engine/kernels/gemm.h"

#include <cblas.h>
#include <string.h>
#include <strings.h>

#include "engine/gradd_engine.h"
#include "engine/kernels/product.h"
#include "engine/kernels/vec.h"

int gd_blas_lanes(void) {
    static const struct {
        const char *core;
        int lanes;
    } cores[] = {{"SkylakeX", 16}, {"Cooperlake", 16}, {"Sapphirerapids", 16}, {"Haswell", 8}, {"Zen", 8}};
    const char *core = openblas_get_corename();
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++)
        if (strcasecmp(core, cores[i].core) == 0)
            return cores[i].lanes;
    return 4;
}

/* Portable code leaves products to OpenBLAS, which looks at the processor itself. With vectors of 8 ours are
 * no slower than its; of 16, it has kernels of its own for small products whose last columns fill no vector,
 * if it knows the processor. */
static bool by_blas(int64_t m, int64_t n, int64_t k) {
    enum { SMALL = 1 << 20 };
    return GD_LANES == 4 || (GD_LANES == 16 && n % GD_LANES && m * n <= SMALL / k && gd_blas_lanes() == 16);
}

void gd_gemm_strided(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                     int64_t a_stride, const float *b, int64_t b_stride, float *c, int64_t c_stride,
                     bool accumulate) {
    if (by_blas(m, n, k))
        cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                    transpose_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0F, a,
                    (blasint)a_stride, b, (blasint)b_stride, accumulate ? 1.0F : 0.0F, c, (blasint)c_stride);
    else
        gd_product(m, n, k, (gd_operand){a, transpose_a ? 1 : a_stride, transpose_a ? a_stride : 1},
                   (gd_operand){b, transpose_b ? 1 : b_stride, transpose_b ? b_stride : 1}, c, c_stride,
                   accumulate);
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
