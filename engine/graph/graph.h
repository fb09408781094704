/* graph.h -- a network: nodes in the order they were given, values between them. Immutable once built. */
#ifndef GD_GRAPH_GRAPH_H
#define GD_GRAPH_GRAPH_H

#include "engine/graph/blocks.h"

/** What flows along an edge: a graph input or an output of a node. */
typedef struct gd_graph_value {
    int node;       /* that computes it; -1: a graph input */
    int uses;       /* by nodes, and one more for each output of the network that it is */
    int axis;       /* where the batch is; -1: it does not depend on the batch */
    bool learnable; /* a parameter lies behind it */
    gd_dtype dtype;
    int64_t limit;  /* it holds 0 ... limit - 1; 0: not known */
    gd_shape shape; /* for a batch of 2 */
} gd_graph_value;

typedef struct gd_node {
    const gd_op *op;
    void *attrs;
    const int *inputs; /* value ids */
    int input_count;
    int first_output; /* value id */
    int output_count;
    int first_param; /* index into the graph's params */
    int param_count;
    int shares;      /* the node whose parameters these are; -1: its own */
    int first_input; /* index among all nodes' inputs, for per-edge tables */
    bool parallel;   /* may be run slice by slice: every input has the batch on axis 0, or none to learn */
    bool view;       /* output 0 is input 0: the same bytes */
} gd_node;

typedef struct gd_graph_param {
    const gd_param_decl *decl;
    int layer;
    gd_shape shape;
    double value;                      /* what some initialisers go by */
    bool early;                        /* drawn before its layer's others */
    const struct gd_initializer *init; /* in place of the declared one; NULL */
    void *init_attrs;
    const char *name; /* "conv1.weight" */
} gd_graph_param;

struct gd_graph {
    atomic_int references;
    gd_arena arena; /* everything below */
    gd_flat flat;   /* names and blocks; layers, nodes and flat.layers go by the same index */
    gd_input_spec *inputs;
    gd_layer *layers; /* what users see; beside nodes, by the same index */
    gd_node *nodes;
    int *order;             /* node indices, topological; ties in the order given */
    gd_graph_value *values; /* graph inputs first */
    gd_graph_param *params;
    int input_count, node_count, value_count, param_count;
    int edge_count;            /* inputs of all nodes together */
    int outputs[GD_MAX_HEADS]; /* value ids */
    gd_output *heads;          /* what users see of them */
    int output_count;
    bool names_outputs; /* the specification does */
};

/** Shapes of one node for a batch. @param shapes of all values, with the batch axis; the node's outputs
 *  are written.
 *  @param op the node's, of the instruction set that will run it: what scratch it needs depends on that
 *  @return 0, or a code with a message that names the layer */
int gd_node_infer(const gd_graph *graph, int node, const gd_op *op, gd_shape *shapes, gd_infer *infer,
                  gd_error *error);
/** May this node train on inputs of these shapes? @return 0, or a code with the layer's name in error */
int gd_node_check_training(const gd_graph *graph, int index, const gd_shape *inputs, gd_error *error);
/** Is this value an output of the network? */
bool gd_value_is_output(const gd_graph *graph, int value);
/** A value's shape for a batch. */
gd_shape gd_value_batched(const gd_graph_value *value, int64_t batch);
/** A value's shape without its batch axis. */
gd_shape gd_value_sample(const gd_graph_value *value);

#endif
