/* gradd_engine.h -- the engine's one public header.
 *
 * A network is an immutable graph of ops (gd_graph). A model (gd_model) is a graph with parameters,
 * gradients and an optimizer's state; it runs forward, loss, backward and step with the semantics of
 * torch.nn, torch.autograd and torch.optim.
 *
 * Errors: functions return 0 or a negative GD_E... code and fill a caller-owned gd_error (which may be
 * NULL). The first error wins; results (ret_...) are written on success only.
 * Threads: a graph may be shared; a model belongs to one caller at a time. */
#ifndef GRADD_ENGINE_H
#define GRADD_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GD_MAX_RANK = 8,         /* axes of a tensor */
    GD_MAX_NAME = 128,       /* bytes of a layer's or input's name, with the final NUL */
    GD_MAX_INPUTS = 64,      /* inputs of one layer */
    GD_MAX_HEADS = 16,       /* outputs of a network */
    GD_MAX_TERMS = 12,       /* of a loss */
    GD_MAX_LAYERS = 4096,    /* layers of one graph */
    GD_MAX_BLOCKS = 16,      /* blocks within blocks */
    GD_MAX_SCHEDULERS = 64,  /* in one that is made of several */
    GD_MAX_GROUPS = 64,      /* of an optimizer's parameters, beside the default one */
    GD_MAX_PATTERNS = 256,   /* of all its groups together */
    GD_MAX_STATE = 4,        /* numbers that a scheduler keeps */
    GD_MAX_STATE_NAME = 320, /* bytes of a state entry's name, with the final NUL */
};

/* ---- errors -------------------------------------------------------------------------------- */

/* enum, stable code for clients, what it means */
#define GD_ERRORS(X) \
    X(GD_E_UNKNOWN_KIND, "unknown_kind", "No such layer, loss, optimizer or scheduler") \
    X(GD_E_ATTRIBUTE, "invalid_attribute", "Attribute missing, unknown or out of range") \
    X(GD_E_GRAPH, "invalid_graph", "The layers do not form a graph") \
    X(GD_E_SHAPE, "shape_mismatch", "Shapes do not fit") \
    X(GD_E_DTYPE, "dtype_mismatch", "Wrong element type") \
    X(GD_E_VALUE, "invalid_value", "Value out of range") \
    X(GD_E_STATE, "wrong_order", "Called out of order") \
    X(GD_E_NO_GRADIENT, "no_gradient", "No gradient yet") \
    X(GD_E_NOT_FOUND, "not_found", "No such thing") \
    X(GD_E_LIMIT, "limit_exceeded", "Over a fixed limit") \
    X(GD_E_MEMORY, "out_of_memory", "Over the memory limit")

enum {
    GD_E_FIRST = -100,
#define X(name, code, text) name,
    GD_ERRORS(X)
#undef X
        GD_E_END /* one past the last */
};

typedef struct gd_error {
    int code;          /* 0: none yet */
    int layer;         /* index of the layer in question, all blocks laid open, or -1 */
    char path[128];    /* where it stands in the specification: "/layers/1/layers/0", or "" */
    char field[64];    /* attribute or field in question, or "" */
    char message[512]; /* one sentence the user can act on */
} gd_error;

/* Braces in macros: versions of clang-format differ. */
/* clang-format off */
/** An empty error: `gd_error error = GD_ERROR_INIT;` */
#define GD_ERROR_INIT {.layer = -1}
/* clang-format on */

/** The stable string of a GD_E... code ("shape_mismatch"); "internal" for anything else. */
const char *gd_error_code(int code);
/** The short title of a GD_E... code. */
const char *gd_error_title(int code);

/* ---- tensors ------------------------------------------------------------------------------- */

typedef enum gd_dtype { GD_FLOAT32, GD_INT64, GD_INT32, GD_UINT8, GD_FLOAT64 } gd_dtype;

/** Bytes of one element. */
size_t gd_dtype_size(gd_dtype dtype);
/** torch's name: "float32". */
const char *gd_dtype_name(gd_dtype dtype);

typedef struct gd_shape {
    int rank; /* 0: a scalar */
    int64_t dim[GD_MAX_RANK];
} gd_shape;

/** A view: row-major, contiguous, aligned to its element. Owns nothing. */
typedef struct gd_tensor {
    gd_dtype dtype;
    gd_shape shape;
    void *data;
} gd_tensor;

/** Elements of a shape; valid shapes never overflow. */
int64_t gd_numel(const gd_shape *shape);
bool gd_shape_equal(const gd_shape *a, const gd_shape *b);
/** "[6, 1, 3, 3]" into text (always terminated); returns text. */
const char *gd_shape_text(const gd_shape *shape, char *text, size_t size);
/** Checked: rank, every axis >= 0, and bytes fit in size_t. @return 0; GD_E_SHAPE; GD_E_LIMIT */
int gd_shape_bytes(const gd_shape *shape, gd_dtype dtype, size_t *ret_bytes, gd_error *error);

/* ---- kinds: what layers, losses, optimizers and schedulers have in common --------------------- */

typedef enum gd_family { GD_OPS, GD_LOSSES, GD_OPTIMIZERS, GD_SCHEDULERS, GD_INITIALIZERS } gd_family;

typedef enum gd_value_kind {
    GD_VALUE_NULL,
    GD_VALUE_BOOL,
    GD_VALUE_INT,
    GD_VALUE_FLOAT,
    GD_VALUE_STRING,
    GD_VALUE_INTS,
    GD_VALUE_FLOATS
} gd_value_kind;

/** One attribute's value, as given by a user or read back. Borrows strings and lists. */
typedef struct gd_value {
    gd_value_kind kind;
    size_t count; /* of ints or floats */
    union {
        bool boolean;
        int64_t integer;
        double number;
        const char *string;
        const int64_t *ints;
        const double *floats;
    };
} gd_value;

typedef struct gd_field {
    const char *name;
    gd_value value;
} gd_field;

typedef enum gd_attr_type {
    GD_ATTR_BOOL,
    GD_ATTR_INT,
    GD_ATTR_FLOAT,
    GD_ATTR_CHOICE, /* one of .choices, kept as its index (int) */
    GD_ATTR_INTN,   /* .length integers; a single one is repeated, as torch does; with .choices (and a
                       .min of 0) also one of these words, see gd_word_of() */
    GD_ATTR_INTS,   /* a list of integers of any length (gd_ints); a single one is a list of one */
    GD_ATTR_FLOATN, /* .length numbers */
    GD_ATTR_FLOATS  /* the same of numbers (gd_floats); null when not given */
} gd_attr_type;

/** What stands for null among integers. */
#define GD_NONE INT64_MIN

typedef struct gd_ints {
    int64_t *data;
    size_t count;
} gd_ints;

typedef struct gd_floats {
    double *data;
    size_t count;
} gd_floats;

/** One row of an attribute table. */
typedef struct gd_attr {
    const char *name; /* torch's */
    const char *doc;
    gd_attr_type type;
    size_t offset;              /* of the field in the attribute struct */
    int length;                 /* GD_ATTR_INTN, GD_ATTR_FLOATN */
    bool required;              /* must be given */
    bool inferred;              /* may be left out: taken from the input's shape (0 until then) */
    bool nullable;              /* null (torch's None) is a value: NAN, GD_NONE of integers, -1 of a choice */
    double number;              /* default of numbers and bools (NAN: null); of a choice: its index */
    const int64_t *ints;        /* default of GD_ATTR_INTS */
    size_t ints_count;          /* its length */
    const double *floats;       /* default of GD_ATTR_FLOATN: .length of them */
    const char *default_from;   /* default: the value of this earlier attribute */
    double min, max;            /* inclusive */
    const char *const *choices; /* NULL-terminated */
} gd_attr;

/** A parameter or buffer that a layer of this kind declares. */
typedef struct gd_param_decl {
    const char *name; /* torch's: "weight" */
    const char *doc;
    int init;       /* engine's initialiser */
    gd_dtype dtype; /* float32; of some buffers int64 */
    bool buffer;    /* in the state_dict, but not trained */
} gd_param_decl;

/** What every registered kind shows of itself. */
typedef struct gd_kind {
    const char *module;   /* torch's class name, or NULL */
    const char *function; /* torch's functional name, or NULL */
    const char *doc;      /* one line */
    const gd_attr *attrs;
    size_t attr_count;
    size_t attr_size; /* of the attribute struct */
    const gd_param_decl *params;
    size_t param_count;
} gd_kind;

/** The i-th kind of a family, in table order; NULL past the end. */
const gd_kind *gd_kind_at(gd_family family, size_t index);
/** By module or functional name. @return NULL and GD_E_UNKNOWN_KIND (with "did you mean") */
const gd_kind *gd_kind_find(gd_family family, const char *type, gd_error *error);
/** Which of its .choices a GD_ATTR_INTN holds instead of numbers; -1: it holds numbers. */
static inline int gd_word_of(const int64_t *numbers) {
    return numbers[0] < 0 && numbers[0] != GD_NONE ? (int)(-1 - numbers[0]) : -1;
}
/** Read one attribute of an attribute struct; lists are borrowed from it. */
gd_value gd_attr_read(const gd_attr *attr, const void *attrs);

/* ---- what to build -------------------------------------------------------------------------- */

/** A loss or an initialiser: its name and attributes. */
typedef struct gd_kind_spec {
    const char *type;
    const gd_field *fields;
    size_t field_count;
} gd_kind_spec;

/** One loss on one output. */
typedef struct gd_term_spec {
    gd_kind_spec loss;
    const char *output; /* its name; NULL: the first */
    const char *target; /* its name, or "@x": an input of the network; NULL: the output's name where outputs
                           are named and there are several terms, else "target" */
    double weight;      /* finite */
} gd_term_spec;

/** A loss: the sum of weight * term. No terms: no loss. */
typedef struct gd_loss_spec {
    const gd_term_spec *terms;
    size_t term_count;
} gd_loss_spec;

/** Some of an optimizer's parameters, and the hyperparameters that are theirs alone. */
typedef struct gd_group_spec {
    const char *const *patterns; /* fnmatch(3) over whole names of parameters; '*' matches dots too */
    size_t pattern_count;
    const gd_field *fields; /* the others are the optimizer's */
    size_t field_count;
} gd_group_spec;

/** An optimizer. A parameter is in the first group with a pattern that matches its name; those that no
 *  pattern matches are in the default group, which has the optimizer's own hyperparameters. */
typedef struct gd_optimizer_spec {
    const char *type;
    const gd_field *fields;
    size_t field_count;
    const gd_group_spec *groups; /* NULL: none but the default one; in a patch: as they are */
    size_t group_count;
} gd_optimizer_spec;

/** A scheduler. One that is made of others (SequentialLR) has them in `schedulers`. */
typedef struct gd_scheduler_spec {
    const char *type;
    const gd_field *fields;
    size_t field_count;
    const struct gd_scheduler_spec *schedulers;
    size_t scheduler_count;
} gd_scheduler_spec;

typedef struct gd_input_spec {
    const char *name; /* referred to as "@name" */
    gd_shape shape;   /* of one sample: no batch axis */
    gd_dtype dtype;
} gd_input_spec;

/** How a parameter begins, in place of torch's default for its layer. */
typedef struct gd_init_spec {
    const char *param; /* "weight" */
    gd_kind_spec init; /* "kaiming_normal_" and its attributes */
} gd_init_spec;

typedef struct gd_layer_spec {
    const char *type;
    const char *name;          /* NULL: its index, as in nn.Sequential */
    const char *const *inputs; /* layer names or "@input"; none: the layer before */
    size_t input_count;
    const gd_field *fields;
    size_t field_count;
    const gd_init_spec *inits; /* applied after all parameters have been drawn, in order */
    size_t init_count;
    const char *shares; /* use the parameters and attributes of this layer; NULL: its own */
    bool frozen;        /* its parameters, of a block those of all layers inside, begin with requires_grad
                           false */
    /* Given: a block of layers, as nn.Sequential or a module of one's own is. Its type is any class name,
     * shown in repr; names inside are relative to its own; "@input" inside is what the block reads; its
     * output is that of its last layer. */
    const struct gd_layer_spec *layers;
    size_t layer_count;
    const char *output; /* of a block: the layer inside whose output is the block's; NULL: the last */
    const char *copies; /* of a block: begin with the values of this block, its twin; NULL: its own */
    bool opaque;        /* a block that stands for one layer of the specification: errors point to it */
} gd_layer_spec;

/** An output of a network and the layer it comes from: "fc3", "decoder.2", "lstm:1". */
typedef struct gd_output_spec {
    const char *name;
    const char *layer;
} gd_output_spec;

typedef struct gd_graph_spec {
    const char *class_name; /* for repr: "Net" */
    const gd_input_spec *inputs;
    size_t input_count;
    const gd_layer_spec *layers;
    size_t layer_count;
    const gd_output_spec *outputs; /* none: the last layer's, called "output" */
    size_t output_count;
} gd_graph_spec;

/* ---- engine: threads and memory ------------------------------------------------------------- */

typedef struct gd_engine gd_engine;

typedef struct gd_engine_config {
    int threads;              /* compute threads, 1 ... 256 */
    size_t memory_limit;      /* bytes of all models' slabs and arenas; 0: no limit */
    bool helpers_only;        /* true: the caller computes too, so threads - 1 are started; false: the
                                 caller only submits, and all threads are started */
    const char *cpu_features; /* instruction set to compute with, of gd_cpu_features_at(); NULL or "auto": the
                                 best there is */
} gd_engine_config;

/** Start the threads. Models made on an engine must be freed before it. */
int gd_engine_new(const gd_engine_config *config, gd_engine **ret_engine, gd_error *error);
/** Waits for submitted tasks to end. NULL is fine. */
void gd_engine_free(gd_engine *engine);
/** Something to run on a compute thread. The submitter owns it; while it waits it must stay where it
 *  is, and once run() has been called it may go away or be submitted again. */
typedef struct gd_task {
    struct gd_task *next; /* the engine's */
    void (*run)(void *argument);
    void *argument;
} gd_task;

/** Queue a task: first come, first served. Any thread may call it. */
void gd_engine_submit(gd_engine *engine, gd_task *task);
int gd_engine_threads(const gd_engine *engine);
/** The instruction set it computes with: "avx2". */
const char *gd_engine_cpu_features(const gd_engine *engine);
/** Those that this build and this processor both have, best first: "avx2", "portable"; NULL past the end. */
const char *gd_cpu_features_at(size_t index);
/** Bytes that models hold now. Any thread may call it. */
size_t gd_engine_memory(gd_engine *engine);
size_t gd_engine_memory_limit(const gd_engine *engine);
/** What computes: "Zen", from OpenBLAS; its whole configuration line. */
const char *gd_engine_blas_core(void);
const char *gd_engine_blas_config(void);

/* ---- graph ---------------------------------------------------------------------------------- */

typedef struct gd_graph gd_graph;

/** A layer as built: what GET /v1/models/{m} shows. Everything is owned by the graph. */
typedef struct gd_layer {
    const char *name;
    const gd_kind *kind;
    bool is_module;            /* made by its module name: stands in repr */
    const void *attrs;         /* read with gd_attr_read() */
    const char *const *inputs; /* names: "conv1" or "@input" */
    size_t input_count;
    gd_shape output;    /* one sample's: no batch axis */
    size_t first_param; /* index of its first parameter in the model */
    size_t param_count;
} gd_layer;

/**
 * Check a specification and build the graph: names, attributes, topology, and every shape.
 *
 * @return 0; GD_E_UNKNOWN_KIND, GD_E_ATTRIBUTE, GD_E_GRAPH, GD_E_SHAPE, GD_E_LIMIT, GD_E_MEMORY;
 *         error->layer and error->field say where
 */
int gd_graph_new(const gd_graph_spec *spec, gd_graph **ret_graph, gd_error *error);
gd_graph *gd_graph_ref(gd_graph *graph);
void gd_graph_unref(gd_graph *graph);
const char *gd_graph_class_name(const gd_graph *graph);
size_t gd_graph_input_count(const gd_graph *graph);
const gd_input_spec *gd_graph_input(const gd_graph *graph, size_t index);
size_t gd_graph_layer_count(const gd_graph *graph);
const gd_layer *gd_graph_layer(const gd_graph *graph, size_t index);
/** An output as built, owned by the graph. */
typedef struct gd_output {
    const char *name;
    const char *layer; /* "fc3", "lstm:1" */
    gd_dtype dtype;
    gd_shape shape; /* one sample's: no batch axis */
} gd_output;

size_t gd_graph_output_count(const gd_graph *graph);
const gd_output *gd_graph_output(const gd_graph *graph, size_t index);
/** Whether the specification named them; else there is one, called "output". */
bool gd_graph_names_outputs(const gd_graph *graph);
/** "conv1.weight"; NULL past the end. */
const char *gd_graph_parameter_name(const gd_graph *graph, size_t index);
/** What Python's print(net) prints, without a final newline. The caller frees it. NULL: no memory. */
char *gd_graph_repr(const gd_graph *graph);
/* ---- model ---------------------------------------------------------------------------------- */

typedef struct gd_model gd_model;

typedef struct gd_model_config {
    uint64_t seed;               /* torch.manual_seed(seed) before the modules are built */
    gd_loss_spec loss;           /* no terms: none yet */
    gd_optimizer_spec optimizer; /* type NULL: none yet */
    gd_scheduler_spec scheduler; /* type NULL: none */
} gd_model_config;

/** Bytes that a model of this graph takes when it trains in steps of `batch` samples, everything counted:
 *  what gd_model_memory() will say after the first step. */
int gd_graph_memory(const gd_engine *engine, const gd_graph *graph, const gd_model_config *config,
                    int64_t batch, size_t *ret_bytes, gd_error *error);
/** Bytes of `batch` samples: inputs, and targets of the loss in the shapes that they usually have. The
 * caller's, not counted above, and read in place until the next forward. */
int gd_graph_batch_bytes(const gd_graph *graph, const gd_loss_spec *loss, int64_t batch, size_t *ret_bytes,
                         gd_error *error);

/** Allocate and initialise. The model takes a reference on the graph. */
int gd_model_new(gd_engine *engine, gd_graph *graph, const gd_model_config *config, gd_model **ret_model,
                 gd_error *error);
void gd_model_free(gd_model *model);
const gd_graph *gd_model_graph(const gd_model *model);
/** Bytes held now: slabs and arenas. */
size_t gd_model_memory(const gd_model *model);
/** Counts every change of parameters, hyperparameters and mode. Starts at 1. */
uint64_t gd_model_version(const gd_model *model);
/** Optimizer steps taken. */
int64_t gd_model_steps(const gd_model *model);
bool gd_model_training(const gd_model *model);
/** A term of a model's loss. */
typedef struct gd_term {
    const gd_kind *kind;
    const void *attrs;
    size_t output;      /* index among the network's */
    const char *target; /* its name, or "@x"; NULL: the loss takes none */
    double weight;
} gd_term;

/** NULL past the last term of the model's loss. */
const gd_term *gd_model_loss_term(const gd_model *model, size_t index);
/** NULL when there is none; the attributes in *ret_attrs are the default group's. */
const gd_kind *gd_model_optimizer_kind(const gd_model *model, const void **ret_attrs);

/** One of the groups of an optimizer's parameters. The first, the default one, has no patterns. */
typedef struct gd_group {
    const void *attrs; /* all its hyperparameters as they are now, its own and the optimizer's */
    const char *const *patterns;
    size_t pattern_count;
    double initial_lr; /* the rate that the scheduler started from; NAN when there is none */
} gd_group;

/** @return false when there is no such group (without an optimizer: none at all) */
bool gd_model_group(const gd_model *model, size_t index, gd_group *ret_group);
/** Index of a parameter's group. */
size_t gd_model_group_of(const gd_model *model, size_t parameter);

/** A scheduler as it stands. */
typedef struct gd_schedule {
    const gd_kind *kind;
    const void *attrs;
    int64_t epoch;  /* torch's last_epoch: how often it has advanced */
    double base_lr; /* the rate it started from */
    double state[GD_MAX_STATE];
    size_t state_count;
    const char *const *state_names; /* torch's: "num_bad_epochs" */
    struct gd_schedule *children;   /* what it is made of */
    size_t child_count;
} gd_schedule;

/** What the optimizer keeps of a parameter: torch's name ("exp_avg") and, in *ret_values, as many values as
 * the parameter has, or NULL where hyperparameters make it needless. NULL past the last slot. Of a list
 * (LBFGS's old_dirs) the name comes once for each item. */
const char *gd_model_optimizer_slot(const gd_model *model, size_t parameter, size_t slot,
                                    const float **ret_values);
/** Copy values in. @return 0; GD_E_NOT_FOUND (there is no such slot, or it is needless) */
int gd_model_set_optimizer_slot(gd_model *model, size_t parameter, size_t slot, const float *values,
                                gd_error *error);
/** What an optimizer that keeps one state for all parameters (LBFGS) has of numbers: torch's name ("n_iter").
 *  NULL past the last, and for other optimizers. Those that say how many slots there are come first: to bring
 *  a state back, set all numbers in order, then all slots. */
const char *gd_model_optimizer_number(const gd_model *model, size_t index, double *ret_value);
/** @return 0; GD_E_NOT_FOUND; GD_E_VALUE (it is a count, and out of range) */
int gd_model_set_optimizer_number(gd_model *model, size_t index, double value, gd_error *error);
/** The optimizer's present learning rate, the default group's; NAN when there is none. */
double gd_model_lr(const gd_model *model);
/** NULL when there is none. Every group has one of its own; this is the default group's. */
const gd_schedule *gd_model_scheduler(const gd_model *model);

typedef struct gd_model_patch {
    const bool *training;     /* NULL: as it is */
    const gd_loss_spec *loss; /* NULL: as it is */
    /* NULL: as it is; type NULL or the same: only hyperparameters change, those of a group too unless they
     * are its own, and groups, if given, take the place of those before; what it keeps of parameters stays.
     */
    const gd_optimizer_spec *optimizer;
    /* NULL: as it is; type NULL: none, the rates stay; else it begins, from each group's present rate.
     * One that is kept begins again when the optimizer is a new one or its groups are. */
    const gd_scheduler_spec *scheduler;
} gd_model_patch;

/** Change mode, loss or hyperparameters: all of it or, on error, nothing. */
int gd_model_change(gd_model *model, const gd_model_patch *patch, gd_error *error);
/** Would gd_model_change() do it? @return 0; what it would return, and nothing changes either way */
int gd_model_check_change(gd_model *model, const gd_model_patch *patch, gd_error *error);

/** A parameter or buffer. Read only; change it through gd_model_set_parameter(). */
typedef struct gd_parameter {
    char name[2 * GD_MAX_NAME]; /* "conv1.weight" */
    gd_shape shape;
    int64_t numel;
    gd_dtype dtype;     /* float32; of some buffers int64 */
    float *data;        /* (shape), in the model's slab; int64_t where dtype says so */
    float *grad;        /* (shape), meaningful when has_grad */
    bool buffer;        /* never has a gradient */
    bool requires_grad; /* false: frozen */
    bool has_grad;      /* false until the first backward: torch's None */
    uint64_t version;   /* counts changes of its values or of requires_grad */
    size_t layer;       /* index of the layer that declares it */
} gd_parameter;

size_t gd_model_parameter_count(const gd_model *model);
const gd_parameter *gd_model_parameter(const gd_model *model, size_t index);
/** NULL when there is none of that name. */
const gd_parameter *gd_model_find_parameter(const gd_model *model, const char *name, size_t *ret_index);
/** Copy values in. @return 0; GD_E_SHAPE; GD_E_DTYPE (it must be the parameter's) */
int gd_model_set_parameter(gd_model *model, size_t index, const gd_tensor *values, gd_error *error);
void gd_model_set_requires_grad(gd_model *model, size_t index, bool requires_grad);
/** L2 norm of n values, summed in double. */
double gd_norm(const float *values, int64_t count);

/**
 * Run one batch forward and keep what gd_model_backward() needs.
 *
 * @param inputs      one per graph input, (N, ...sample shape); N >= 1. Borrowed until the next forward
 * @param ret_outputs one per graph output, (N, ...). In the plan's arena until the next forward
 * @return 0; GD_E_SHAPE (names the axis); GD_E_DTYPE; GD_E_MEMORY (the model is as before the call)
 */
int gd_model_forward(gd_model *model, const gd_tensor *inputs, size_t input_count, gd_tensor *ret_outputs,
                     gd_error *error);
/** The last forward's outputs. @return 0; GD_E_STATE */
int gd_model_output(const gd_model *model, gd_tensor *ret_outputs, gd_error *error);
/** Drop the kept graph, so that borrowed inputs may go away. */
void gd_model_forget(gd_model *model);

/** The targets that a loss (NULL: the model's own) takes from the caller, by name. Inputs of the network
 *  ("@x") are none of them, and a loss that takes no target has none. */
typedef struct gd_targets {
    char names[GD_MAX_TERMS][GD_MAX_NAME];
    size_t count;
} gd_targets;

/** @return 0; GD_E_STATE (no loss at all); GD_E_UNKNOWN_KIND, GD_E_ATTRIBUTE, GD_E_GRAPH (no such output or
 *  input) */
int gd_model_targets(const gd_model *model, const gd_loss_spec *loss, gd_targets *ret_targets,
                     gd_error *error);
/** The dtype that a target (by its index in gd_targets) of this shape must have.
 *  @return 0; as gd_model_targets() */
int gd_model_target_dtype(const gd_model *model, const gd_loss_spec *loss, size_t index,
                          const gd_shape *target, gd_dtype *ret_dtype, gd_error *error);

/**
 * Loss of the last forward's outputs: the sum of weight * term.
 *
 * @param targets  one per name in gd_targets: (N) class indices, or (N, C) ...; borrowed until the next
 *                 forward or loss. NULL when there is none
 * @param loss     another loss for this once, or NULL
 * @param ret_loss a scalar, or (of a single term with weight 1 and reduction "none") the unreduced values; in
 *                 the model's memory until the next loss or forward
 */
int gd_model_loss(gd_model *model, const gd_tensor *targets, const gd_loss_spec *loss, gd_tensor *ret_loss,
                  gd_error *error);
/** The terms of the last loss, unweighted, in order. @return how many; 0: no loss, or it is unreduced */
size_t gd_model_loss_values(const gd_model *model, double ret_values[GD_MAX_TERMS]);

/** Backward from the loss (gradients NULL) or from the outputs with dL/doutput, one per output (data NULL:
 * none comes from there, as if zero); gradients add up.
 *  @return 0; GD_E_STATE (nothing to go back through: says what to call first); GD_E_SHAPE */
int gd_model_backward(gd_model *model, const gd_tensor *gradients, bool retain_graph, gd_error *error);
void gd_model_zero_grad(gd_model *model);
/** L2 norm over all gradients (torch.nn.utils.clip_grad_norm_'s total norm). */
double gd_model_grad_norm(gd_model *model);

typedef struct gd_step_options {
    const gd_field *fields; /* hyperparameters for this step only, of all groups as in a patch */
    size_t field_count;
    double clip_grad_norm;  /* > 0: torch.nn.utils.clip_grad_norm_; 0: off */
    double clip_grad_value; /* > 0: torch.nn.utils.clip_grad_value_; 0: off */
    bool only_finite; /* take no step when the loss (of train_step) or the gradients' norm is not finite, as
                         torch.amp's GradScaler does: parameters and the optimizer stay; what forward has done
                         to running statistics stays too. Not of LBFGS */
} gd_step_options;

typedef struct gd_step_result {
    int64_t step;                /* optimizer steps so far */
    double loss;                 /* train_step only */
    double lr;                   /* the one used, in the default group */
    double grad_norm;            /* before clipping */
    int64_t count;               /* samples */
    int64_t correct;             /* of the first term whose target holds class indices; -1: there is none */
    double losses[GD_MAX_TERMS]; /* each term, unweighted; where loss is */
    size_t loss_count;
    /* Of an optimizer that evaluates the loss itself (LBFGS): how often; 0 of others. The rest is then what
     * the first evaluation gave. */
    int64_t evaluations;
    bool skipped; /* no step was taken, as options->only_finite has it; step is still the one before */
} gd_step_result;

/** One optimizer step from the accumulated gradients. options may be NULL.
 *  @return 0; GD_E_STATE (no gradient yet; or LBFGS, which needs the batch: gd_model_train_step());
 *  GD_E_ATTRIBUTE; GD_E_VALUE */
int gd_model_step(gd_model *model, const gd_step_options *options, gd_step_result *ret_result,
                  gd_error *error);

/**
 * An epoch is over: advance a scheduler that does not advance with every step.
 *
 * @param metric what ReduceLROnPlateau goes by; NULL for any other
 * @return 0; GD_E_STATE (no such scheduler, or its cycle is over); GD_E_VALUE (metric missing, or not wanted)
 */
int gd_model_scheduler_step(gd_model *model, const double *metric, gd_error *error);

/** Forward, loss and backward in one call. Nothing changes unless everything fits. */
int gd_model_forward_backward(gd_model *model, const gd_tensor *inputs, size_t input_count,
                              const gd_tensor *targets, const gd_loss_spec *loss, gd_step_result *ret_result,
                              gd_error *error);
/** zero_grad, forward_backward and step as one atomic step. LBFGS repeats the first two as torch does with
 *  the closure it is given, clipping within; should the loss refuse an output on the way (GD_E_VALUE), the
 *  parameters are as before and it begins afresh. */
int gd_model_train_step(gd_model *model, const gd_tensor *inputs, size_t input_count,
                        const gd_tensor *targets, const gd_loss_spec *loss, const gd_step_options *options,
                        gd_step_result *ret_result, gd_error *error);

/** Eval mode, no graph kept, a kept one undisturbed. ret_outputs, one per graph output, live until the next
 *  predict or evaluate. */
int gd_model_predict(gd_model *model, const gd_tensor *inputs, size_t input_count, gd_tensor *ret_outputs,
                     gd_error *error);
/** predict, then the model's loss; result: loss, losses, count, correct. */
int gd_model_evaluate(gd_model *model, const gd_tensor *inputs, size_t input_count, const gd_tensor *targets,
                      gd_step_result *ret_result, gd_error *error);

/** A node of the autograd graph, as torch's grad_fn and next_functions show it. */
typedef struct gd_grad_node {
    const char *name;  /* "ConvolutionBackward0", "AccumulateGrad" */
    const char *layer; /* the layer it comes from; of AccumulateGrad the parameter's name */
    const int *next;   /* ids of the nodes it leads to, -1: none (torch's None); freed with the nodes */
    int next_count;
} gd_grad_node;

/** The kept graph from the loss (or the first output, when there is no loss yet) back. Node 0 is the root.
 *  The caller frees *ret_nodes. @return 0; GD_E_STATE; GD_E_MEMORY */
int gd_model_walk(const gd_model *model, gd_grad_node **ret_nodes, size_t *ret_count, gd_error *error);
/** The name of an output's grad_fn; "" when there is none. */
const char *gd_model_output_grad_fn(const gd_model *model, size_t output);
/** The name of the loss's grad_fn; "" when there is none. */
const char *gd_model_loss_grad_fn(const gd_model *model);

/* ---- a model's whole state --------------------------------------------------------------------- */

/** A named piece of all that a model's training depends on, save its definition. The tensor points into the
 *  model and is good until the model changes. */
typedef struct gd_state_entry {
    char name[GD_MAX_STATE_NAME]; /* "conv1.weight", "optimizer.state.conv1.weight.exp_avg", "rng.state" */
    gd_tensor tensor;
} gd_state_entry;

/** How many entries there are now. */
size_t gd_model_state_count(const gd_model *model);
/** Entry `index`, 0 ... gd_model_state_count() - 1. */
void gd_model_state_at(const gd_model *model, size_t index, gd_state_entry *ret_entry);
/**
 * Bring back what a model of the same definition was: from here on it does, bit for bit, what that one did.
 * Kept graph and gradients are gone; the version is the state's, or where the model is past that one, the
 * next.
 *
 * @param entries all that gd_model_state_at() gave there, in any order; copied
 * @return 0; GD_E_NOT_FOUND (one is missing, or the model has none of that name); GD_E_DTYPE; GD_E_SHAPE;
 *         GD_E_VALUE (no model can have it, or it is there twice); GD_E_MEMORY: and nothing has changed
 */
int gd_model_state_load(gd_model *model, const gd_state_entry *entries, size_t count, gd_error *error);

/* ---- data ----------------------------------------------------------------------------------- */

enum { GD_DIGITS_SIDE = 28, GD_DIGITS_CLASSES = 10, GD_DIGITS_TRAIN = 10000, GD_DIGITS_TEST = 2000 };

/** Draw `count` handwritten-looking digits of the built-in dataset, from row `first` on.
 *  @param test   which split
 *  @param pixels (count, 28, 28) uint8, 0 ... 255, white on black as in MNIST
 *  @param labels (count) int64, 0 ... 9; may be NULL
 *  The same row is the same picture, always and everywhere. */
void gd_digits(bool test, int64_t first, int64_t count, uint8_t *pixels, int64_t *labels);

/** torch.Generator(), the CPU's. */
typedef struct gd_generator gd_generator;

/** torch.Generator().manual_seed(seed). @return NULL: no memory */
gd_generator *gd_generator_new(uint64_t seed);
void gd_generator_free(gd_generator *generator);
/** torch.randperm(count, generator=generator), for which torch draws 32 bits a number below this count; more
 * are the caller's to refuse. */
enum { GD_MAX_PERMUTATION = UINT32_MAX / 20 - 1 };
/** @param count 0 ... GD_MAX_PERMUTATION  @param ret_order (count) 0 ... count - 1, shuffled */
void gd_generator_permute(gd_generator *generator, int64_t count, int64_t *ret_order);
/** Its state as bytes, in place: good until the next draw. */
const void *gd_generator_state(const gd_generator *generator, size_t *ret_size);
/** @param state what gd_generator_state() gave, aligned or not; copied
 *  @return 0; GD_E_VALUE (it is none) and nothing has changed */
int gd_generator_set_state(gd_generator *generator, const void *state, size_t size, gd_error *error);

/** What is done to samples before they are fed, in this order; what is zero is not done. All but the last
 * three are for pictures, (H, W) or (C, H, W). */
typedef struct gd_transform {
    int64_t resize[2]; /* height and width: F.interpolate(mode="bilinear", align_corners=False); or */
    int64_t pad;       /* zeros on each side */
    int64_t crop[2];   /* height and width of a piece: anywhere when augmenting, else from the middle */
    int64_t crop_pad;  /* zeros on each side for that, when augmenting */
    double flip;       /* when augmenting: probability of a mirror image, left for right */
    int64_t shift;     /* when augmenting: up to so many pixels up or down and left or right, in from zeros */
    double scale;      /* x * scale */
    const double *mean, *std; /* (x - mean) / std: (mean_count) and (std_count), which are 0, 1 or as many as
                                 there are channels: axis 0 of samples of any shape, but of (H, W) */
    size_t mean_count, std_count;
    uint64_t seed; /* of what is random */
} gd_transform;

/** Check a transform against the samples it is for, and tell what they become: (C, H, W) where anything is
 * done to pictures, else what they are.
 *  @return 0; GD_E_VALUE, GD_E_SHAPE (error->field is the field in question); GD_E_LIMIT */
int gd_transform_shape(const gd_transform *transform, const gd_shape *sample, gd_shape *ret_shape,
                       gd_error *error);
/** How many floats of scratch gd_transform_rows() takes; at least 1. */
size_t gd_transform_scratch(const gd_transform *transform, const gd_shape *sample);
/**
 * Transform rows of a dataset. What is random depends on seed, epoch and index of the row and on nothing
 * else: whoever asks, in whatever batch, gets the same picture. gd_transform_shape() has agreed.
 *
 * @param rows    (any, ...sample), of any dtype: as floats
 * @param indices (count) which of them; NULL: 0 ... count - 1
 * @param augment whether to do what is random: in training
 * @param scratch gd_transform_scratch() floats of the caller's, who shares them with no other thread
 * @param ret_out (count, ...gd_transform_shape())
 */
void gd_transform_rows(const gd_transform *transform, const gd_tensor *rows, const int64_t *indices,
                       int64_t count, uint64_t epoch, bool augment, float *scratch, float *ret_out);

#endif
