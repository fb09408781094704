/* blocks.h -- layers within blocks, made flat: full names, scopes, and the nesting for repr. */
#ifndef GD_GRAPH_BLOCKS_H
#define GD_GRAPH_BLOCKS_H

#include "engine/graph/op.h"

enum { GD_PATH = 128 /* bytes of a layer's path, as in gd_error */ };

/** A block as it stands: the network itself is block 0. */
typedef struct gd_block_layer {
    const char *class_name; /* for repr: "Sequential" */
    const char *name;       /* full: "layer1.0"; "" for the network */
    const char *path;       /* where it stands in the specification: "/layers/1"; NULL: the network */
    const char *const *inputs;
    size_t input_count;
    int parent; /* block; -1: none */
    int first;  /* its first layer */
    int before; /* layer whose output comes before it in its scope; -1: it is the first there */
    int last;   /* its last layer: what it gives out */
    bool frozen;
} gd_block_layer;

typedef struct gd_flat_layer {
    const gd_layer_spec *spec;
    const char *name; /* full */
    const char *path; /* where it stands in the specification: "/layers/1/layers/0" */
    int block;        /* it stands in */
    int before;       /* as above */
    int twin;         /* the layer whose first values it begins with; -1: its own */
    bool frozen;      /* its own parameters, or those of a block around it */
} gd_flat_layer;

/** The order things are printed in. */
typedef struct gd_entry {
    enum { GD_ENTRY_LAYER, GD_ENTRY_OPEN, GD_ENTRY_CLOSE } kind;
    int index; /* of the layer or block */
} gd_entry;

typedef struct gd_flat {
    gd_flat_layer *layers;
    gd_block_layer *blocks;
    gd_entry *entries;
    int layer_count, block_count, entry_count;
} gd_flat;

/** Replace composites by the blocks they stand for; composite.c.
 *  @param ret_layers a copy of the list, in the arena */
int gd_open_composites(const gd_layer_spec *layers, size_t count, int depth, const char *path,
                       gd_arena *arena, const gd_layer_spec **ret_layers, gd_error *error);
/** Everything in ret_flat belongs to the arena, or is borrowed from spec.
 *  @return 0; GD_E_LIMIT (too many, too deep), GD_E_GRAPH (an empty block, a name taken); GD_E_MEMORY */
int gd_flatten(const gd_graph_spec *spec, gd_arena *arena, gd_flat *ret_flat, gd_error *error);

/** What a name stands for, as seen from a block: siblings first, then the scopes around it. Inside a block
 *  "@input" is what the block reads, "@input:1" the second of its inputs. */
typedef struct gd_reference {
    enum { GD_REFERS_NOWHERE, GD_REFERS_LAYER, GD_REFERS_INPUT } to;
    int index;  /* of the layer or the network's input */
    int output; /* of the layer: the 1 in "lstm:1" */
} gd_reference;

gd_reference gd_refer(const gd_flat *flat, const gd_graph_spec *spec, int block, const char *name);
/** What a layer (or block) reads that names no inputs: what stands before it in its scope, or else what the
 *  block around it reads. */
gd_reference gd_refer_before(const gd_flat *flat, const gd_graph_spec *spec, int block, int before);

#endif
