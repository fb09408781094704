/* isa.h -- what computes. Ops, losses, optimizers and kernels are compiled once per instruction set, from
 * the same sources; an engine runs one of these. The portable one also stands for all of them wherever only
 * descriptions are asked for: names, attributes, shapes. */
#ifndef GD_GRAPH_ISA_H
#define GD_GRAPH_ISA_H

#include "engine/kernels/product.h"
#include "engine/optim/loss.h"
#include "engine/optim/optimizer.h"

typedef struct gd_isa {
    const char *name; /* as --cpu-features calls it */
    const gd_op *const *ops;
    const gd_loss *const *losses;
    const gd_optimizer *const *optimizers;
    size_t op_count, loss_count, optimizer_count;
    double (*sum_of_squares)(const float *values, int64_t count);
    /** gd_gemm_strided() of kernels/gemm.h */
    void (*gemm)(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                 int64_t a_stride, const float *b, int64_t b_stride, float *c, int64_t c_stride,
                 bool accumulate);
    /* of kernels/product.h */
    __typeof__(gd_product_transposed) *product_transposed;
    __typeof__(gd_product_gated) *product_gated;
} gd_isa;

extern const gd_isa gd_isa_portable;

/** The code for an instruction set; NULL or "auto": the best that this processor has.
 *  @return 0; GD_E_VALUE (unknown, not built in, or beyond this processor) */
int gd_isa_choose(const char *name, const gd_isa **ret_isa, gd_error *error);

/** The same thing as compiled for another instruction set. */
const gd_op *gd_isa_op(const gd_isa *isa, const gd_op *op);
const gd_loss *gd_isa_loss(const gd_isa *isa, const gd_loss *loss);
const gd_optimizer *gd_isa_optimizer(const gd_isa *isa, const gd_optimizer *optimizer);

#endif
