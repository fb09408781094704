/* loss.h -- what a loss is: a scalar (or, unreduced, a tensor) from an output and a target. */
#ifndef GD_OPTIM_LOSS_H
#define GD_OPTIM_LOSS_H

#include "engine/graph/op.h"

/** torch's reductions, in the order of gd_reductions. */
enum gd_reduction { GD_REDUCE_NONE, GD_REDUCE_MEAN, GD_REDUCE_SUM };
extern const char *const gd_reductions[]; /* for GD_CHOICE */

/** What prepare() finds out before anything is computed. */
typedef struct gd_loss_plan {
    gd_shape loss;      /* of the result: () or, unreduced, as torch gives it */
    size_t saved;       /* bytes that forward keeps for backward */
    bool class_indices; /* the target holds class indices: accuracy makes sense */
} gd_loss_plan;

typedef struct gd_loss_call {
    const void *attrs;
    const gd_tensor *output; /* (N, ...) float32: the network's */
    const gd_tensor *target;
    float *loss; /* forward: the result */
    void *saved;
    float *grad; /* backward: dL/doutput, overwritten */
} gd_loss_call;

typedef struct gd_loss {
    gd_kind kind;
    bool no_target; /* it takes none: one that is given is not looked at */
    /** The dtype the target must have, from its shape alone. */
    gd_dtype (*target_dtype)(const void *attrs, const gd_shape *output, const gd_shape *target);
    /** Check shapes and every value of the target (data NULL: shapes only), so that computing cannot
     *  fail. @return 0; GD_E_SHAPE; GD_E_VALUE; GD_E_ATTRIBUTE */
    int (*prepare)(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                   gd_loss_plan *ret_plan, gd_error *error);
    /** Check what the network made of its inputs, before forward(). NULL: any values will do.
     *  @return 0; GD_E_VALUE */
    int (*check_output)(const void *attrs, const gd_tensor *output, gd_error *error);
    /** A target that goes with an output, for foreseeing memory. NULL: the output's shape. */
    gd_shape (*target_shape)(const void *attrs, const gd_shape *output);
    void (*forward)(const gd_loss_call *call);
    void (*backward)(const gd_loss_call *call);
    /** How many targets are predicted right, and how many count; NULL: no such thing. */
    void (*accuracy)(const gd_loss_call *call, int64_t *correct, int64_t *count);
    /** torch's grad_fn, node 0 the loss itself, leading to GD_NEXT_INPUT(0), the output. @return nodes */
    int (*grad_fn)(const void *attrs, const gd_shape *output, bool class_indices,
                   gd_grad_fn nodes[GD_MAX_GRAD_FN]);
} gd_loss;

/* ---- what losses share (loss.c) -------------------------------------------------------------------- */

/** The target_dtype() of a loss whose targets are always float32, or always class indices. */
gd_dtype gd_loss_takes_floats(const void *attrs, const gd_shape *output, const gd_shape *target);
gd_dtype gd_loss_takes_indices(const void *attrs, const gd_shape *output, const gd_shape *target);
/** The target_shape() of a loss of class indices: (N, ...) of outputs (N, C, ...). */
gd_shape gd_loss_class_shape(const void *attrs, const gd_shape *output);
/** The target must have the output's shape. @return 0; GD_E_SHAPE */
int gd_loss_check_same_shape(const char *module, const gd_tensor *output, const gd_tensor *target,
                             gd_error *error);
/** The shape of a result: () when reduced. */
gd_shape gd_loss_shape(int reduction, const gd_shape *unreduced);
/** The output's shape without axis 1: one value for all classes, or one of the things stacked there. */
gd_shape gd_loss_without_axis_1(const gd_shape *output);
/** What a sum of `count` losses is divided by. */
double gd_loss_divisor(int reduction, int64_t count);

/** A grad_fn as it is written down, from the root on. */
typedef struct gd_chain {
    gd_grad_fn *nodes;
    int count;
} gd_chain;

/** Add a node that leads to the one added after it. @return its index */
int gd_chain_next(gd_chain *chain, const char *name);
/** Add a node with two edges; GD_CHAIN_NEXT: the node added after it. @return its index */
int gd_chain_pair(gd_chain *chain, const char *name, int first, int second);
/** Add the mean's or the sum's node; unreduced, none. */
void gd_chain_reduction(gd_chain *chain, int reduction);
enum { GD_CHAIN_NEXT = -2 };

#endif
