/* tables.c -- the tables of what computes; compiled once per instruction set, GD_ISA being its name. */
#include "engine/graph/isa.h"
#include "engine/kernels/gemm.h"
#include "engine/kernels/sum.h"

#ifndef GD_ISA
#define GD_ISA portable
#endif
#define NAME_OF(x) #x
#define NAME(x) NAME_OF(x)
#define SYMBOL_OF(x) gd_isa_##x
#define SYMBOL(x) SYMBOL_OF(x)

#define OP(name) extern const gd_op gd_op_##name;
#include "engine/ops/ops.def"
#undef OP
#define LOSS(name) extern const gd_loss gd_loss_##name;
#include "engine/optim/losses.def"
#undef LOSS
#define OPTIMIZER(name) extern const gd_optimizer gd_optimizer_##name;
#include "engine/optim/optimizers.def"
#undef OPTIMIZER

static const gd_op *const ops[] = {
#define OP(name) &gd_op_##name,
#include "engine/ops/ops.def"
#undef OP
};

static const gd_loss *const losses[] = {
#define LOSS(name) &gd_loss_##name,
#include "engine/optim/losses.def"
#undef LOSS
};

static const gd_optimizer *const optimizers[] = {
#define OPTIMIZER(name) &gd_optimizer_##name,
#include "engine/optim/optimizers.def"
#undef OPTIMIZER
};

extern const gd_isa SYMBOL(GD_ISA);
const gd_isa SYMBOL(GD_ISA) = {.name = NAME(GD_ISA),
                               .ops = ops,
                               .losses = losses,
                               .optimizers = optimizers,
                               .op_count = GD_COUNT(ops),
                               .loss_count = GD_COUNT(losses),
                               .optimizer_count = GD_COUNT(optimizers),
                               .sum_of_squares = gd_sum_of_squares,
                               .gemm = gd_gemm_strided,
                               .product_transposed = gd_product_transposed,
                               .product_gated = gd_product_gated};
