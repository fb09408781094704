/* plan.h -- how a graph is run for one batch size: every shape, where every tensor lies in the arena, and
 * how the work is cut. All decisions fall here, so that running is a walk without failures or memory.
 *
 * The nodes form segments: runs of batch-parallel nodes, or single nodes that take the whole batch. A
 * parallel segment is run depth first: a few samples (a slice) go through all its nodes while they are in
 * the cache. What nobody needs once a slice has gone through lies in the runner's own memory, where the next
 * slice overwrites it, and takes no room for the whole batch. Slices are grouped into parts, at most
 * GD_MAX_PARTS; parts are what threads share out, and each has its own partial gradients, added up in order
 * afterwards. Slices and parts depend on the network and the batch alone, never on the number of threads, so
 * the bits don't either. */
#ifndef GD_GRAPH_PLAN_H
#define GD_GRAPH_PLAN_H

#include "engine/graph/graph.h"
#include "engine/graph/isa.h"
#include "engine/kernels/product.h"

enum {
    GD_MAX_PARTS = 16,           /* pieces a batch is shared out in */
    GD_MAX_SLICE = 64,           /* samples that go through a segment together */
    GD_SLICE_BYTES = 256 * 1024, /* what a node reads and writes of a slice, at most: it stays in the cache */
    GD_GRAIN = 64 * 1024,        /* elements or products that are worth a part of their own */
    GD_WAKE = 256 * 1024,        /* products that are worth waking another thread for */
    GD_HEAVY =
        48, /* products per element from which on weights are worth more in the cache than activations */
};

/** What is run together. Slices and parts are those of the batch laid out last. */
typedef struct gd_segment {
    int first, last; /* into graph->order, last exclusive */
    bool parallel;
    int part_count;        /* 1 when not parallel */
    int64_t slice, part;   /* samples of each */
    size_t partial_floats; /* of one part's partial gradients */
} gd_segment;

/** A piece of the arena: needed from one moment to another, moments being segments of a pass. Or, if it is
 *  local, of a runner's memory, of the size of a slice: moments then are nodes of a pass. */
typedef struct gd_buffer {
    size_t size, offset;
    int first, last; /* inclusive; first > last: not needed */
    bool shared;     /* between slices: never local */
    bool local;
} gd_buffer;

typedef struct gd_plan {
    const gd_graph *graph;
    const gd_op **ops; /* per node: its op, as compiled for this processor */
    bool training;     /* keep what backward needs */
    gd_segment *segments;
    int segment_count;
    int *segment_of;  /* per node */
    int *value_root;  /* per value: whose memory it uses (its own id, or another's it shares with) */
    int *grad_root;   /* the same for gradients */
    bool *kept;       /* per value root: backward reads it */
    bool *then_relu;  /* per node: it does the ReLU that follows it too */
    bool *done;       /* per node: a ReLU, or pooling below, whose forward is done by a node before it */
    bool *after_relu; /* per node: its backward does that of the ReLU before it too */
    bool *undone;     /* per node: a ReLU whose backward is done by the node after it, or pooling below */

    /* For the batch laid out last: */
    int64_t batch;           /* 0: none yet */
    gd_tensor *values;       /* (value_count) data set by gd_plan_bind(); NULL: local */
    gd_tensor *grads;        /* (value_count) */
    gd_tensor *saved;        /* (node_count, GD_MAX_SAVED) */
    int *saved_count;        /* per node */
    bool *pools, *may_pool;  /* per node: as in gd_infer */
    int *pooling;            /* per node: the pooling that is done along with it; -1: none */
    bool *unseen;            /* per value: made and used within a node that pools */
    size_t *workspace_bytes; /* (node_count, 2) forward's and backward's */
    void **workspaces;       /* likewise */
    gd_buffer *buffers;      /* values, grads, saved, partials: see plan.c */
    int buffer_count;
    int *sorted;            /* scratch for placing buffers */
    size_t *local_value;    /* per value: where it lies in a runner's scratch; SIZE_MAX: in the arena */
    size_t *local_grad;     /* likewise */
    size_t *partial_offset; /* per node: where its first parameter's lies among a part's partial gradients, in
                               floats; SIZE_MAX: it has none */
    float *partials;        /* of the segment under way: (part_count, partial_floats) */
    size_t arena_bytes;
    size_t scratch_bytes; /* of one runner, a multiple of 64: what ops ask for, then what is local */
    void *scratch;        /* (slots, scratch_bytes) */

    /* For the backward pass under way: */
    bool *needs;      /* per value: something trainable lies behind it */
    bool *reached;    /* per value: its gradient has been written */
    bool *active;     /* per node */
    bool *accumulate; /* per edge: add to the input's gradient */
    bool *fresh;      /* per graph param: its gradient holds nothing yet, and its nodes need not add to it */
    void *memory;     /* the tables above */
} gd_plan;

int gd_plan_new(const gd_graph *graph, const gd_isa *isa, bool training, gd_plan *ret_plan, gd_error *error);
void gd_plan_release(gd_plan *plan);
/** Lay the plan out for a batch: shapes, sizes, offsets. On failure the plan is as if never laid out.
 *  @return 0; GD_E_SHAPE, GD_E_LIMIT with the layer's name */
int gd_plan_layout(gd_plan *plan, int64_t batch, gd_error *error);
/** May a plan that is laid out train? @return 0; GD_E_SHAPE with the layer's name */
int gd_plan_check_training(const gd_plan *plan, gd_error *error);
/** Floats that a parameter takes among partial gradients: whole cache lines. */
size_t gd_partial_size(const gd_shape *param);
/** Set every tensor's address.
 *  @param inputs  one per graph input, borrowed
 *  @param arena   plan->arena_bytes
 *  @param scratch slots * plan->scratch_bytes */
void gd_plan_bind(gd_plan *plan, const gd_tensor *inputs, void *arena, void *scratch);

/* ---- run.c -------------------------------------------------------------------------------------- */

/** What follows a backward pass: gradients are taken as their rows are complete. */
typedef struct gd_follow {
    const bool *params; /* per graph param: followed, which takes that gd_run_completes() it */
    /** Who takes the gradient of a parameter's rows from `begin` on, a multiple of GD_PARAM_ROWS; called on
     *  the thread that computes them. */
    void (*rows)(const void *context, int param, int64_t begin, gd_follower *ret_follower);
    const void *context;
} gd_follow;

/** A model's parameters as a run sees them. */
typedef struct gd_run {
    gd_plan *plan;
    gd_pool *pool;
    struct gd_rng *rng;
    const gd_tensor *params;      /* per graph param */
    const gd_tensor *param_grads; /* per graph param; data NULL: frozen or a buffer */
    bool training;
    bool zero_grad;          /* backward begins with gradients of zero, whatever they hold */
    const gd_follow *follow; /* NULL: nothing follows backward */
} gd_run;

void gd_run_forward(const gd_run *run);
/** Find out which nodes take part in backward: those between an output and a trainable parameter.
 *  @param outputs bit i: a gradient comes in by the network's output i
 *  @return false: none */
bool gd_run_trace(const gd_run *run, unsigned outputs);
/** After gd_run_trace(): does backward complete a parameter's gradient row by row, and read the parameter no
 *  more by then? So that what follows may change it. */
bool gd_run_completes(const gd_run *run, int param);
/** After gd_run_trace() and with those outputs' gradients in plan->grads: add to the gradients of every
 *  trainable parameter that is reached. */
void gd_run_backward(const gd_run *run);

#endif
