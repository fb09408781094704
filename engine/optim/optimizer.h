/* optimizer.h -- what an optimizer is: attributes, state slots per parameter, and one step. */
#ifndef GD_OPTIM_OPTIMIZER_H
#define GD_OPTIM_OPTIMIZER_H

#include "engine/graph/op.h"

enum {
    GD_MAX_SLOTS = 4,  /* tensors of state per parameter */
    GD_MAX_SCALARS = 4 /* numbers of state per parameter */
};

/** A piece of one parameter; every element by itself, so pieces may be computed anywhere. */
typedef struct gd_optimizer_call {
    const void *attrs;
    float *param;
    const float *grad;
    float *slots[GD_MAX_SLOTS]; /* the optimizer's state, zero before it is first used; see slots_used */
    const double *scalars;      /* the parameter's numbers, as begin() left them */
    int64_t count;
    int64_t step; /* of this parameter, from 1 */
} gd_optimizer_call;

typedef struct gd_optimizer {
    gd_kind kind;
    int slot_count;
    const char *const *slot_names; /* torch's: "momentum_buffer" */
    /** Which slots these attributes use: bit k for slot k; the others are NULL unless another group uses
     *  them. NULL: all, always. */
    unsigned (*slots_used)(const void *attrs);
    int scalar_count;
    const char *const *scalar_names; /* torch's where it has them: "mu_product" */
    size_t lr_offset;                /* of the double `lr` in the attribute struct */
    size_t momentum_offset;          /* of the double `momentum` or the first of `betas`; 0: none */
    /** What the rows can't say of several attributes together. May be NULL. @return 0; GD_E_ATTRIBUTE */
    int (*check)(const void *attrs, gd_error *error);
    /** Before a parameter's step (from 1): bring its scalars up to date; zero before the first. May be NULL.
     */
    void (*begin)(const void *attrs, int64_t step, double *scalars);
    void (*step)(const gd_optimizer_call *call);
} gd_optimizer;

#endif
