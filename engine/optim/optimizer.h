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

/** What an optimizer gets that evaluates the loss itself, and more than once in a step. Vectors are as long
 * as the model's slab, parameters at their offsets; buffers and the gaps between have a gradient of 0. */
typedef struct gd_closure {
    const void *attrs;
    void *state;        /* state_bytes() of it, zero before the first step */
    float *params;      /* (count) */
    const float *grads; /* (count) as the last evaluate() left them; 0 where a parameter has none */
    int64_t count;
    const gd_parameter *parameters; /* (parameter_count); those that require a gradient may be changed */
    const size_t *offsets;          /* of each, in floats */
    int parameter_count;
    gd_pool *pool;
    /** zero_grad, forward, loss, backward at the present parameters. @return 0, or why the loss can't be
     * computed
     */
    int (*evaluate)(void *context, double *ret_loss, gd_error *error);
    void *context;
} gd_closure;

/** A number of the state that such an optimizer keeps for all parameters. */
typedef struct gd_closure_number {
    const char *name; /* torch's: "n_iter" */
    double *value;
    double most; /* > 0: it counts, 0 ... most */
} gd_closure_number;

/** What makes an optimizer one that evaluates the loss itself. */
typedef struct gd_closure_optimizer {
    /** Bytes of its state for vectors of `count` floats; SIZE_MAX: more than can be counted. */
    size_t (*state_bytes)(const void *attrs, int64_t count);
    /** One step. *ret_evaluations: how often it called evaluate(). On error the parameters are as before.
     *  @return 0, or what evaluate() returned */
    int (*step)(const gd_closure *closure, int64_t *ret_evaluations, gd_error *error);
    /** The vectors of its state by torch's names, those of a list one after another; NULL past the last. */
    const char *(*vector)(const void *attrs, void *state, int64_t count, size_t index,
                          const float **ret_vector);
    /** The numbers of its state, those that say how long the lists are first. @return false past the last */
    bool (*number)(const void *attrs, void *state, int64_t count, size_t index,
                   gd_closure_number *ret_number);
    /** Whether state_bytes() from a file can be its state: that nothing in it leads out of it. */
    bool (*valid)(const void *attrs, const void *state);
} gd_closure_optimizer;

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
    const gd_closure_optimizer
        *closure; /* in place of slots, scalars, begin() and step(); NULL: it has those */
} gd_optimizer;

#endif
