/* model.h -- what a model is made of. */
#ifndef GD_MODEL_MODEL_H
#define GD_MODEL_MODEL_H

#include "engine/core/rng.h"
#include "engine/graph/plan.h"
#include "engine/optim/loss.h"
#include "engine/optim/optimizer.h"
#include "engine/optim/scheduler.h"

struct gd_engine {
    gd_pool *pool;
    const gd_isa *isa;
    gd_budget budget;
    int threads;
};

/** A term of a loss, with what it reads. */
typedef struct gd_loss_part {
    gd_term term; /* as users see it */
    const gd_loss *loss;
    int target; /* index among the caller's targets; -1 */
    int input;  /* the network's input that is the target; -1 */
    int value;  /* of the graph: the output */
    bool first; /* no earlier term is on the same value */
} gd_loss_part;

/** A loss with its attributes, in memory of its own. Zero-initialise. */
typedef struct gd_loss_config {
    gd_loss_part parts[GD_MAX_TERMS];
    int count;                         /* 0: no loss */
    bool plain;                        /* one term of weight 1: it may be unreduced */
    const char *targets[GD_MAX_TERMS]; /* names of what the caller gives */
    int target_count;
    unsigned outputs; /* bit i: there is a term on output i */
    gd_arena arena;
} gd_loss_config;

/** Parameters that have their hyperparameters in common: torch's param group. */
typedef struct gd_param_group {
    _Alignas(16) char attrs[GD_MAX_ATTR_SIZE];
    uint64_t own; /* bit i: attribute i is not the default group's */
    const char *const *patterns;
    size_t pattern_count;
} gd_param_group;

/** An optimizer with its groups, in memory of its own. Zero-initialise. */
typedef struct gd_optimizer_config {
    const gd_optimizer *optimizer; /* NULL: none */
    gd_param_group *groups;        /* (group_count), the default one first */
    gd_param_group *spare;         /* (group_count): room for gd_optimizer_override() */
    size_t group_count;
    uint8_t *group_of; /* (graph->param_count) */
    gd_arena arena;
} gd_optimizer_config;

/** A scheduler with its attributes, in memory of its own. Zero-initialise. */
typedef struct gd_schedule_config {
    gd_schedule *schedule; /* as specified; NULL: none */
    gd_arena arena;
    gd_schedule *groups; /* one for each of the optimizer's groups: itself, then its children. malloc's */
} gd_schedule_config;

/** How far the kept graph has come. */
typedef enum gd_progress {
    GD_NOTHING, /* no forward yet */
    GD_FORWARD, /* an output to go back from */
    GD_FREED    /* backward has been through */
} gd_progress;

/** What is found out about a loss before it is computed: for each term. */
typedef struct gd_loss_batch {
    gd_loss_plan plans[GD_MAX_TERMS];
    gd_tensor targets[GD_MAX_TERMS];
} gd_loss_batch;

/** A loss as computed: its result, and what its backward needs. */
typedef struct gd_loss_state {
    gd_loss_batch batch;
    gd_block memory;  /* see lay_out() of loss.c */
    gd_tensor result; /* the total: a scalar, or unreduced */
    double values[GD_MAX_TERMS];
    size_t value_count;
    bool computed;
} gd_loss_state;

/* What an optimizer keeps: a block for each slot, or one for all that a closure optimizer has. */
enum { GD_CLOSURE_STATE = GD_MAX_SLOTS, GD_STATE_BLOCKS };

/* A sum of squares that one thread adds to, piece by piece: no two are on one cache line. */
typedef struct gd_square_sum {
    double sum;
    char apart[56];
} gd_square_sum;

struct gd_model {
    gd_engine *engine;
    gd_graph *graph;
    gd_rng rng;
    bool training;
    uint64_t version;
    int64_t steps;

    /* One slab each, parameters at the same offsets, each on a cache line. */
    gd_block parameters, gradients;
    gd_block state[GD_STATE_BLOCKS]; /* of slots that no group uses: empty. The last: see GD_CLOSURE_STATE */
    size_t slab_floats;
    gd_parameter *params;    /* (graph->param_count) */
    size_t *offsets;         /* of each parameter, in floats */
    int64_t *param_steps;    /* optimizer steps of each parameter */
    double *param_scalars;   /* the optimizer's numbers: (graph->param_count, GD_MAX_SCALARS) */
    gd_tensor *tensors;      /* params as tensors */
    gd_tensor *grad_tensors; /* data NULL: frozen or a buffer */
    int *trainable;          /* (trainable_count): which of params are no buffers */
    int trainable_count;
    bool *followed; /* (graph->param_count): stepped while the last backward went on; see gd_step_begin() */
    gd_square_sum *followed_squares; /* of their gradients: over GD_PARAM_ROWS rows each, */
    int64_t *first_square;           /* a parameter's from here on: (graph->param_count + 1) */
    bool *had_grad;                  /* (graph->param_count): has had a gradient; see gd_step_zeroed() */

    gd_loss_config loss;        /* the model's own */
    gd_loss_config override;    /* of the last loss call, if it named one */
    const gd_loss_config *used; /* which of the two computed loss_state */
    gd_optimizer_config optimizer;
    gd_schedule_config schedule;

    gd_plan plan, predict_plan;
    gd_block arena, predict_arena;
    gd_block scratch;  /* shared by both plans */
    gd_tensor *inputs; /* of the last forward: (graph->input_count), borrowed data */
    gd_progress progress;
    gd_loss_state loss_state, evaluate_state;
};

static inline gd_budget *gd_model_budget(gd_model *model) {
    return &model->engine->budget;
}

/** A group's lr field. */
static inline double *gd_optimizer_lr(const gd_optimizer_config *config, size_t group) {
    return (double *)(void *)(config->groups[group].attrs + config->optimizer->lr_offset);
}

/* ---- init.c ---- */
/** Draw all parameters, in order, as torch.manual_seed(seed) and building the modules would. */
void gd_model_init(gd_model *model, uint64_t seed);

/* ---- loss.c ---- */
int gd_loss_configure(const gd_isa *isa, const gd_loss_spec *spec, const gd_graph *graph,
                      gd_loss_config *ret_config, gd_error *error);
void gd_loss_config_release(gd_loss_config *config);
/** Check that a loss can be computed, all but what the outputs hold.
 *  @param outputs one per output of the network, shapes only
 *  @param inputs  the network's; targets: the caller's, one per config->targets */
int gd_loss_check(const gd_loss_config *config, const gd_graph *graph, const gd_tensor *outputs,
                  const gd_tensor *inputs, const gd_tensor *targets, gd_loss_batch *ret_batch,
                  gd_error *error);
/** Whether the loss can take what the network has made of its inputs: known only once it has. */
int gd_loss_check_outputs(const gd_loss_config *config, const gd_graph *graph, const gd_tensor *outputs,
                          gd_error *error);
/** Bytes of state->memory. */
size_t gd_loss_bytes(const gd_loss_config *config, const gd_loss_batch *batch, const gd_tensor *outputs);
/** The same without targets: a loss takes as much whatever target it gets. */
int gd_loss_foresee(const gd_loss_config *config, const gd_tensor *outputs, size_t *ret_bytes,
                    gd_error *error);
/** Bytes of the targets that go with outputs. @return 0; GD_E_LIMIT */
int gd_loss_target_bytes(const gd_loss_config *config, const gd_tensor *outputs, size_t *ret_bytes,
                         gd_error *error);
void gd_loss_forward(const gd_loss_config *config, gd_loss_state *state, const gd_loss_batch *batch,
                     const gd_tensor *outputs);
/** Write the gradients of the outputs there are terms on. @param grads of all values of the graph */
void gd_loss_backward(const gd_loss_config *config, const gd_loss_state *state, const gd_tensor *outputs,
                      gd_tensor *grads);
/** Fill in loss, losses, correct and (where there is something to count) count. */
void gd_loss_score(const gd_loss_config *config, const gd_loss_state *state, const gd_tensor *outputs,
                   gd_step_result *result);

/* ---- optimizer.c ---- */
/** @param from an optimizer of the same kind, whose default group's hyperparameters are the defaults; or NULL
 */
int gd_optimizer_configure(const gd_isa *isa, const gd_optimizer_spec *spec, const gd_graph *graph,
                           const gd_optimizer_config *from, gd_optimizer_config *ret_config, gd_error *error);
void gd_optimizer_config_release(gd_optimizer_config *config);
/** The same optimizer with other hyperparameters, which lie in config->spare until the next call. A group
 *  keeps its own. */
int gd_optimizer_override(const gd_optimizer_config *config, const gd_field *fields, size_t field_count,
                          gd_optimizer_config *ret_config, gd_error *error);
/** Bytes of what a closure optimizer keeps, 0 for others; SIZE_MAX: more than can be counted. */
size_t gd_optimizer_closure_bytes(const gd_optimizer_config *config, size_t slab_floats);
/** Bytes of each block of its state: 0 where no group uses it.
 *  @param schedule NULL: none; it may turn on the momentum */
void gd_optimizer_state_sizes(const gd_optimizer_config *config, const gd_schedule *schedule,
                              size_t slab_floats, size_t ret_sizes[GD_STATE_BLOCKS]);
/** Room for this optimizer's state; what there is stays. @return 0; GD_E_MEMORY */
int gd_model_make_state(gd_model *model, const gd_optimizer_config *config, const gd_schedule *schedule,
                        gd_error *error);
/** All of it zero, and none that the model's optimizer does not use. */
void gd_model_clear_state(gd_model *model);

/* ---- schedule.c ---- */
int gd_schedule_configure(const gd_scheduler_spec *spec, gd_schedule_config *ret_config, gd_error *error);
void gd_schedule_config_release(gd_schedule_config *config);
/** Whether a scheduler (NULL: none) can turn this optimizer's rate. @return 0; GD_E_STATE; GD_E_ATTRIBUTE */
int gd_schedule_fits(const gd_schedule *schedule, const gd_optimizer_config *optimizer, gd_error *error);
/** One for each of `count` groups. *ret_groups: malloc's, NULL when there is no scheduler. @return 0;
 * GD_E_MEMORY */
int gd_schedule_for_groups(const gd_schedule_config *config, size_t count, gd_schedule **ret_groups,
                           gd_error *error);
/** Begin at epoch 0 with this optimizer's rates. Takes groups. */
void gd_schedule_start(gd_schedule_config *config, gd_schedule *groups, const gd_optimizer_config *optimizer);
/** A group's scheduler. */
gd_schedule *gd_schedule_of(const gd_schedule_config *config, size_t group);
/** Does it advance with every optimizer step? */
bool gd_schedule_by_step(const gd_schedule *schedule);
/** The scheduler goes on to its next epoch. */
void gd_model_advance(gd_model *model, double metric);

/* ---- passes.c ---- */
/** The outputs' shapes for a batch, before there are any. */
void gd_outputs_for(const gd_graph *graph, int64_t batch, gd_tensor outputs[GD_MAX_HEADS]);

/* ---- step.c ---- */
/** Whether a step could be made; ret_config: the optimizer with the options' overrides, until the next call.
 */
int gd_step_prepare(gd_model *model, const gd_step_options *options, gd_optimizer_config *ret_config,
                    gd_error *error);
/** A step under way. */
typedef struct gd_step {
    gd_model *model;
    const gd_optimizer_config *config;
    const gd_step_options *options; /* NULL: none */
    gd_follow follow;
} gd_step;
/** Before a backward pass that overwrites all gradients: have the optimizer follow it, where nothing has to
 * be known of the gradients first. */
void gd_step_begin(gd_step *step, gd_run *run);
/** After it, or for gradients that were there: clip and step, whatever has not been followed. */
void gd_step_apply(gd_step *step, gd_step_result *result);
/** Gradients are zero now: so are those that there were when the state was saved that the model goes on from.
 *  torch's step takes a gradient of zero for one, other than None. */
void gd_step_zeroed(gd_model *model);
/** Clip all gradients as the options (NULL: nothing) say. @return their norm before */
double gd_step_clip(gd_model *model, const gd_step_options *options);
/** Does a step change this parameter? */
bool gd_step_changes(const gd_parameter *param);
/** The parameters have been changed: count the step and go on with the schedule. */
void gd_step_finish(gd_model *model, const gd_optimizer_config *config, gd_step_result *result);

/* ---- closure.c ---- */
/** zero_grad, forward, loss and backward of one batch, as often as wanted. */
typedef struct gd_closure_pass {
    /** @return 0; GD_E_VALUE (the loss refuses the output) */
    int (*run)(void *context, gd_step_result *result, gd_error *error);
    void *context;
} gd_closure_pass;

/** The step of an optimizer that evaluates the loss itself; result: of the first evaluation. */
int gd_step_closure(gd_model *model, const gd_optimizer_config *config, const gd_step_options *options,
                    const gd_closure_pass *pass, gd_step_result *result, gd_error *error);

#endif
