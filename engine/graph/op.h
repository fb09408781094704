/* op.h -- what an op is. A descriptor is all there is to know about one: names, documentation,
 * attributes, parameters, shapes, forward, backward. One op (or family) is one file in engine/ops/ and
 * one line in ops.def; everything else (JSON, errors, repr, GET /v1/ops, tests) is derived from it. */
#ifndef GD_GRAPH_OP_H
#define GD_GRAPH_OP_H

#include <math.h>
#include <stdio.h>

#include "engine/core/arena.h"
#include "engine/core/parallel.h"

enum {
    GD_MAX_OUTPUTS = 16,      /* of one op */
    GD_MAX_PARAMS = 64,       /* of one op */
    GD_MAX_SAVED = 9,         /* tensors that forward keeps for backward */
    GD_MAX_ATTR_SIZE = 256,   /* bytes of an optimizer's attribute struct */
    GD_PARAM_ROWS = 64,       /* rows that backward_params gets at once: a multiple of these, */
    GD_MOST_PARAM_ROWS = 256, /* at most so many */
};

/* ---- attribute tables --------------------------------------------------------------------------
 * Rows over a struct of plain fields: bool, int64_t, int64_t[n], double, double[n], int (a choice's index),
 * gd_ints, gd_floats. Defaults are zero unless .number, .ints, .floats or .default_from says otherwise. */

/* Braces in macros: versions of clang-format differ. */
/* clang-format off */
#define GD_ATTR(kind, T, field, ...) {.name = #field, .type = kind, .offset = offsetof(T, field), __VA_ARGS__}
/* clang-format on */
#define GD_BOOL(T, field, ...) GD_ATTR(GD_ATTR_BOOL, T, field, .max = 1, __VA_ARGS__)
#define GD_INT(T, field, ...) GD_ATTR(GD_ATTR_INT, T, field, .min = INT32_MIN, .max = INT32_MAX, __VA_ARGS__)
#define GD_INTN(T, field, n, ...) \
    GD_ATTR(GD_ATTR_INTN, T, field, .length = (n), .min = INT32_MIN, .max = INT32_MAX, __VA_ARGS__)
#define GD_INT2(T, field, ...) GD_INTN(T, field, 2, __VA_ARGS__)
#define GD_INTS(T, field, ...) \
    GD_ATTR(GD_ATTR_INTS, T, field, .min = INT32_MIN, .max = INT32_MAX, __VA_ARGS__)
#define GD_FLOAT(T, field, ...) \
    GD_ATTR(GD_ATTR_FLOAT, T, field, .min = -INFINITY, .max = INFINITY, __VA_ARGS__)
#define GD_FLOAT2(T, field, ...) \
    GD_ATTR(GD_ATTR_FLOATN, T, field, .length = 2, .min = -INFINITY, .max = INFINITY, __VA_ARGS__)
#define GD_FLOATS(T, field, ...) \
    GD_ATTR(GD_ATTR_FLOATS, T, field, .min = -INFINITY, .max = INFINITY, __VA_ARGS__)
#define GD_CHOICE(T, field, ...) GD_ATTR(GD_ATTR_CHOICE, T, field, __VA_ARGS__)
#define GD_COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* The .attrs, .attr_count and .attr_size of a gd_kind. */
#define GD_ATTRS(T, table) .attrs = (table), .attr_count = GD_COUNT(table), .attr_size = sizeof(T)
#define GD_PARAMS(table) .params = (table), .param_count = GD_COUNT(table)

/**
 * Fill an attribute struct with defaults, then with what was given; check names, types and ranges.
 *
 * @param what  how to call the owner in errors: "layer 'conv1' (Conv2d)"
 * @param attrs zeroed struct of kind->attr_size bytes
 * @param arena keeps lists
 * @return 0; GD_E_ATTRIBUTE; GD_E_MEMORY
 */
int gd_attrs_parse(const gd_kind *kind, const gd_field *fields, size_t field_count, const char *what,
                   gd_arena *arena, void *attrs, gd_error *error);
/** Overwrite only what was given; on error nothing. For kinds without lists, of at most
 *  GD_MAX_ATTR_SIZE bytes: optimizers. */
int gd_attrs_update(const gd_kind *kind, const gd_field *fields, size_t field_count, const char *what,
                    void *attrs, gd_error *error);

/** Which attributes are given: bit i for row i. */
uint64_t gd_attrs_given(const gd_kind *kind, const gd_field *fields, size_t field_count);
/** Copy the attributes of these bits. For kinds without lists: optimizers. */
void gd_attrs_copy(const gd_kind *kind, uint64_t rows, const void *from, void *to);

/** A float as Python's repr() writes it: "1e-05", "0.1", "2.0", "None" for NAN. */
void gd_repr_float(FILE *out, double value);

/* ---- initialisers ------------------------------------------------------------------------------ */

typedef enum gd_init {
    GD_INIT_ZEROS,
    GD_INIT_ONES,
    GD_INIT_KAIMING_UNIFORM, /* kaiming_uniform_(a=sqrt(5)): what Linear's and Conv's weights begin as */
    GD_INIT_FAN_IN_UNIFORM,  /* uniform in +-1/sqrt(fan_in) of the layer's first parameter: their biases */
    GD_INIT_CONSTANT,        /* gd_infer_param.value */
    GD_INIT_UNIFORM,         /* uniform in +-gd_infer_param.value */
    GD_INIT_XAVIER_UNIFORM,  /* xavier_uniform_ with gain 1 */
    GD_INIT_DRAWN_ZERO,      /* as GD_INIT_FAN_IN_UNIFORM, then set to zero: what a module draws and undoes */
    GD_INIT_NORMAL           /* normal_(0, 1), but row gd_infer_param.value (-1: none) is zero */
} gd_init;

/* ---- shapes ------------------------------------------------------------------------------------ */

/** A parameter or buffer that a node turns out to have. */
typedef struct gd_infer_param {
    int decl; /* index into the kind's params: documentation, initialiser, buffer or not */
    gd_shape shape;
    double value;  /* what some initialisers go by */
    bool early;    /* drawn before the node's other parameters, whatever the order they are listed in */
    char name[32]; /* "": the declared one; else torch's for this one: "weight_hh_l1_reverse" */
} gd_infer_param;

/** infer() reads attrs and inputs, fills in what the attributes left to the input, and writes the rest.
 *  It is called when a graph is built (with two batch sizes) and whenever a plan is made.
 *
 *  Most values have the batch on axis 0. An op that moves the batch axis, or whose input does not depend on
 *  the batch at all (axis -1: a constant and what is made of it), says where it is in the outputs. */
typedef struct gd_infer {
    void *attrs;
    const gd_shape *inputs; /* with the batch axis */
    const int *input_axes;  /* batch axis of each input */
    int input_count;
    gd_shape outputs[GD_MAX_OUTPUTS];
    int axes[GD_MAX_OUTPUTS]; /* batch axis of each output; before infer(): that of the first input that
                                 depends on the batch */
    gd_dtype dtypes[GD_MAX_OUTPUTS];
    int64_t limits[GD_MAX_OUTPUTS]; /* of an int64 output that holds indices: all are 0 ... limit - 1; 0: not
                                       known, so that nothing can be looked up by them */
    int output_count;               /* as the op's outputs() says, or 1 */
    gd_infer_param params[GD_MAX_PARAMS];
    int param_count;
    gd_tensor saved[GD_MAX_SAVED]; /* dtype and shape of what forward keeps for backward */
    int saved_count;
    size_t scratch;   /* bytes one runner needs while it computes */
    bool whole_batch; /* this time the samples must come all at once, GD_BATCH or not */
    bool pools_2x2;   /* max pooling by 2x2: saved[0] says of each window which element was the largest */
    bool may_pool;    /* forward and backward can go on through such pooling of output 0: gd_call.pooling */
    bool view;        /* this time the output is the input, as with GD_VIEW */
    /* Bytes that a whole-batch op needs while it runs, once and not per runner. */
    size_t workspace, backward_workspace;
    gd_error *error;
} gd_infer;

/** Declare the next parameter: row `decl` of the kind's table. The result may be given a name and value. */
gd_infer_param *gd_infer_param_add(gd_infer *infer, int decl, gd_shape shape);

/* ---- calls ------------------------------------------------------------------------------------- */

/** Max pooling by 2x2 that alone reads an op's output, or that of the ReLU behind it, and is done along with
 *  them: then nobody sees those outputs, nor their gradients. */
typedef struct gd_pooling {
    gd_tensor output, which; /* what it makes, and saves: data NULL in predict */
    gd_tensor output_grad;   /* backward */
    bool relu;               /* there is one */
} gd_pooling;

/** What forward and backward get. Tensors of a batch-parallel op hold the samples of one slice; the op
 *  need not know. A gradient whose data is NULL is not wanted. */
typedef struct gd_call {
    const void *attrs;
    const gd_tensor *inputs;
    const gd_tensor *outputs;
    const gd_tensor *params;
    const gd_tensor *saved;        /* data NULL in predict: nothing will go back */
    const gd_tensor *input_grads;  /* backward */
    const gd_tensor *output_grads; /* backward: dL/doutput; data NULL: nothing came back through it */
    const gd_tensor *param_grads;  /* backward: add; so does backward_params, or see GD_OVERWRITES */
    struct gd_rng *rng;            /* of the model, for ops flagged GD_RANDOM */
    const bool *accumulate;        /* backward, per input: add to the gradient; else overwrite it */
    int input_count;
    void *scratch;   /* what infer asked for */
    void *workspace; /* likewise, of this pass */
    gd_pool *pool;   /* for ops that take the whole batch */
    bool training;
    bool relu; /* forward, GD_THEN_RELU: the output is max(y, 0); backward, GD_AFTER_RELU: input 0 is max(x,
                  0), and its gradient to be that of x */
    const gd_pooling *pooling; /* done along with this: outputs and output_grads are nowhere; NULL: none is */
    int64_t begin, end;        /* backward_params: which rows of the parameters (axis 0) */
    bool fresh;                /* GD_OVERWRITES: the gradient holds nothing yet */
    const struct gd_follower *follower; /* GD_FOLLOWED: takes those rows of parameter 0's gradient, counted
                                           from `begin`; NULL: nobody does */
} gd_call;

/* ---- descriptors ------------------------------------------------------------------------------- */

enum gd_op_flags {
    GD_BATCH = 1,   /* samples do not see each other: may be run slice by slice */
    GD_INPLACE = 2, /* output 0 may share input 0's memory, and so may their gradients, if it is as large */
    GD_VIEW = 4,    /* as GD_INPLACE, and does not even write: the same bytes, another shape */
    GD_SAVES_INPUT = 8,    /* backward reads the inputs */
    GD_SAVES_OUTPUT = 16,  /* backward reads the outputs */
    GD_RANDOM = 32,        /* forward draws random numbers, and then takes the whole batch */
    GD_EVAL_IDENTITY = 64, /* in eval mode the output is the input, and torch's graph has no trace of it */
    GD_RELU = 128,         /* forward is max(x, 0), element by element */
    GD_THEN_RELU = 256,    /* forward can do that to its output along the way */
    GD_OVERWRITES = 512,   /* backward_params overwrites gradients that are fresh */
    GD_AFTER_RELU = 1024, /* backward can go on through a ReLU whose output is input 0, and reads the input if
                            GD_SAVES_INPUT, else the output */
    GD_FOLLOWED = 2048    /* backward_params has a follower (kernels/product.h) take parameter 0's gradient */
};

/** A piece of torch's autograd graph: what one op or loss puts into it. Nodes lead to each other (by
 *  index), to what computed an input, to a parameter, or nowhere. */
typedef struct gd_grad_fn {
    const char *name;
    int next[3];
    int next_count;
} gd_grad_fn;

enum { GD_NEXT_NONE = -1, GD_MAX_GRAD_FN = 24 };
#define GD_NEXT_INPUT(i) (64 + (i))
#define GD_NEXT_PARAM(i) (256 + (i))

/** The layers that a composite (a TransformerEncoderLayer) stands for: a block of them. */
typedef struct gd_expansion {
    gd_arena *arena;
    gd_layer_spec *layers;
    size_t count, capacity;
    const char *output;  /* as in gd_layer_spec */
    bool failed;         /* no memory */
    gd_layer_spec spare; /* what gd_expansion_add() returns then */
} gd_expansion;

/** Add a layer; inputs: names as inside a block, NULL-terminated, or NULL for the layer before. */
gd_layer_spec *gd_expansion_add(gd_expansion *expansion, const char *type, const char *name,
                                const char *const *inputs, const gd_field *fields, size_t field_count);

typedef struct gd_op {
    gd_kind kind; /* first: a kind of family GD_OPS is an op */
    /* A composite: says which layers it stands for, and has none of what follows. NULL: an op proper.
     * @return 0, or a code with error filled in */
    int (*expand)(const void *attrs, gd_expansion *expansion, gd_error *error);
    int min_inputs, max_inputs;
    uint64_t index_inputs; /* bit i: input i is int64, not float32 */
    /* How many values indices may have: 0 ... limit - 1. Where they are an input of the network they are
     * checked before a pass begins; where computed, when the graph is built, by gd_infer.limits. NULL: they
     * may be anything. */
    int64_t (*index_limit)(const void *attrs, const gd_shape *inputs, int input);
    unsigned flags;
    int (*outputs)(const void *attrs); /* how many, 1 ... GD_MAX_OUTPUTS; NULL: one */
    int (*infer)(gd_infer *infer);     /* 0, or a code with infer->error filled in */
    /* Refuse what shapes allow but training does not: 0, or a code with error filled in. NULL: nothing. */
    int (*check_training)(const gd_shape *inputs, gd_error *error);
    void (*forward)(const gd_call *call);
    void (*backward)(const gd_call *call);
    /* Large parameters' gradients, from the whole batch at once and cut by rows instead of by samples;
     * backward then leaves them alone. NULL: backward does them. */
    void (*backward_params)(const gd_call *call);
    void (*repr)(FILE *out, const void *attrs); /* torch's extra_repr; NULL: empty */
    /* Modules inside the module, each on a line of its own ("\n", indent, "(name): ..."); whether there
     * were any. NULL: none. */
    bool (*repr_children)(FILE *out, const void *attrs, int indent);
    /* torch's grad_fn, leading to the inputs that are not indices and then to the parameters. */
    const char *grad_name;
    /* Replaces it where there is more to say: fills nodes (0 is the root) and returns how many; 0: the op
     * leaves no trace, as torch.flatten of one axis. */
    int (*grad_fn)(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]);
} gd_op;

#endif
