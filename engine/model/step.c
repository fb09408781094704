/* step.c -- gradients into parameters: norms, clipping, the optimizer. */
#include <math.h>

#include "engine/model/model.h"

enum {
    STEP_BLOCK = 131072, /* floats that one thread takes at a time: worth waking it for */
    PASS_PIECES = 64,    /* of a slab, at most */
    NEAR = 2048,         /* floats that are still in the nearest cache when they are read again */
};

static int64_t blocks_of(const gd_model *model) {
    return (int64_t)((model->slab_floats + STEP_BLOCK - 1) / STEP_BLOCK);
}

static void zero_block(void *context, int64_t index, int slot) {
    (void)slot;
    const gd_model *model = context;
    const size_t begin = (size_t)index * STEP_BLOCK * sizeof(float), left = model->gradients.size - begin;
    const size_t most = STEP_BLOCK * sizeof(float);
    memset((char *)model->gradients.data + begin, 0, left < most ? left : most);
}

void gd_model_zero_grad(gd_model *model) {
    if (model->gradients.data)
        gd_parallel_for(model->engine->pool, blocks_of(model), zero_block, model);
    gd_step_zeroed(model);
}

void gd_step_zeroed(gd_model *model) {
    for (int p = 0; p < model->graph->param_count; p++)
        model->params[p].has_grad |= model->had_grad[p];
}

/* Gradients that a norm and a step are about. */
bool gd_step_changes(const gd_parameter *param) {
    return param->has_grad && param->requires_grad;
}

/* Parameter p's share of the slab's floats *begin ... *end - 1; false: none that has yet to do with a step.
 */
static bool share_of(const gd_model *model, int p, size_t *begin, size_t *end) {
    const size_t first = model->offsets[p], last = first + (size_t)model->params[p].numel;
    *begin = first > *begin ? first : *begin;
    *end = last < *end ? last : *end;
    return gd_step_changes(&model->params[p]) && !model->followed[p] && *begin < *end;
}

/* One pass over the slab, for the norm of its gradients, a step, or both: then a gradient is read from memory
 * once. */
typedef struct slab_pass {
    gd_model *model;
    const gd_optimizer_config *config; /* NULL: no step */
    bool norm;
    size_t piece;                /* floats that one thread takes at a time, from the slab's size alone */
    double squares[PASS_PIECES]; /* sums of the pieces', added in order */
} slab_pass;

static void step_values(const gd_model *model, const gd_optimizer_config *config, int p, size_t from,
                        size_t count) {
    gd_optimizer_call call = {
        .attrs = config->groups[config->group_of[p]].attrs,
        .param = (float *)model->parameters.data + from,
        .grad = (const float *)model->gradients.data + from,
        .count = (int64_t)count,
        .step = model->param_steps[p],
        .scalars = model->param_scalars + (size_t)p * GD_MAX_SCALARS,
    };
    for (int k = 0; k < config->optimizer->slot_count; k++)
        call.slots[k] = model->state[k].data ? (float *)model->state[k].data + from : NULL;
    config->optimizer->step(&call);
}

/* A stretch of the slab: whatever parts of parameters lie in it. */
static void pass_piece(void *context, int64_t index, int slot) {
    (void)slot;
    slab_pass *pass = context;
    const gd_model *model = pass->model;
    const size_t begin = (size_t)index * pass->piece, end = begin + pass->piece;
    double squares = 0;
    for (int p = 0; p < model->graph->param_count && model->offsets[p] < end; p++) {
        size_t from = begin, to = end;
        if (!share_of(model, p, &from, &to))
            continue;
        for (size_t count; from < to; from += count) {
            count = to - from < NEAR ? to - from : NEAR;
            if (pass->norm)
                squares += model->engine->isa->sum_of_squares((const float *)model->gradients.data + from,
                                                              (int64_t)count);
            if (pass->config)
                step_values(model, pass->config, p, from, count);
        }
    }
    pass->squares[index] = squares;
}

/* The norm, if it is asked for, else 0. */
static double run_pass(gd_model *model, const gd_optimizer_config *config, bool norm) {
    const size_t even = (model->slab_floats + PASS_PIECES - 1) / PASS_PIECES;
    slab_pass pass = {
        .model = model, .config = config, .norm = norm, .piece = even > STEP_BLOCK ? even : STEP_BLOCK};
    const int64_t pieces = (int64_t)((model->slab_floats + pass.piece - 1) / pass.piece);
    double total = 0;
    gd_parallel_for(model->engine->pool, pieces, pass_piece, &pass);
    for (int64_t i = 0; i < pieces; i++)
        total += pass.squares[i];
    for (int p = 0; norm && p < model->graph->param_count; p++)
        for (int64_t i = model->first_square[p]; model->followed[p] && i < model->first_square[p + 1]; i++)
            total += model->followed_squares[i].sum;
    return sqrt(total);
}

double gd_model_grad_norm(gd_model *model) {
    return run_pass(model, NULL, true);
}

/* torch.nn.utils.clip_grad_norm_: by max_norm / (norm + 1e-6) where that is under 1. */
static void clip_norm(gd_model *model, double max_norm, double norm) {
    const float factor = (float)(max_norm / (norm + 1e-6));
    if (factor >= 1)
        return;
    for (int p = 0; p < model->graph->param_count; p++)
        for (int64_t i = 0; gd_step_changes(&model->params[p]) && i < model->params[p].numel; i++)
            model->params[p].grad[i] *= factor;
}

/* torch.nn.utils.clip_grad_value_; NaN stays. */
static void clip_value(gd_model *model, double max_value) {
    const float most = (float)max_value;
    for (int p = 0; p < model->graph->param_count; p++)
        for (int64_t i = 0; gd_step_changes(&model->params[p]) && i < model->params[p].numel; i++) {
            float *g = &model->params[p].grad[i];
            *g = *g > most ? most : *g < -most ? -most : *g;
        }
}

/* Does a step advance the scheduler? */
static bool advances(const gd_model *model) {
    return model->schedule.schedule && gd_schedule_by_step(model->schedule.schedule);
}

int gd_step_prepare(gd_model *model, const gd_step_options *options, gd_optimizer_config *ret_config,
                    gd_error *error) {
    *ret_config = model->optimizer;
    int code = 0;
    if (!model->optimizer.optimizer)
        return gd_fail(
            error, GD_E_STATE,
            "the model has no optimizer; give it one first: {\"optimizer\": {\"type\": \"SGD\", ...}}");
    if (options && !(options->clip_grad_norm >= 0))
        return gd_fail_field(error, GD_E_VALUE, "clip_grad_norm", "clip_grad_norm must be at least 0");
    if (options && !(options->clip_grad_value >= 0))
        return gd_fail_field(error, GD_E_VALUE, "clip_grad_value", "clip_grad_value must be at least 0");
    if (advances(model) && (code = gd_schedule_ready(gd_model_scheduler(model), error)))
        return code;
    if (!options || !options->field_count)
        return 0;
    code = gd_optimizer_override(&model->optimizer, options->fields, options->field_count, ret_config, error);
    if (!code && gd_optimizer_closure_bytes(ret_config, model->slab_floats) !=
                     gd_optimizer_closure_bytes(&model->optimizer, model->slab_floats))
        return gd_fail_field(error, GD_E_ATTRIBUTE, "history_size",
                             "%s: history_size can't be another one for a single step; PATCH the model",
                             ret_config->optimizer->kind.module);
    return code ? code
                : gd_model_make_state(model, ret_config, model->schedule.schedule,
                                      error); /* they may turn one on */
}

double gd_step_clip(gd_model *model, const gd_step_options *options) {
    const double norm = gd_model_grad_norm(model);
    if (options && options->clip_grad_norm > 0)
        clip_norm(model, options->clip_grad_norm, norm);
    if (options && options->clip_grad_value > 0)
        clip_value(model, options->clip_grad_value);
    return norm;
}

void gd_step_finish(gd_model *model, const gd_optimizer_config *config, gd_step_result *result) {
    model->version++;
    result->step = ++model->steps;
    result->lr = *gd_optimizer_lr(config, 0);
    if (advances(model))
        gd_model_advance(model, NAN);
}

/* Is something decided by the norm, which must be known first? */
static bool goes_by_norm(const gd_step_options *options) {
    return options && (options->clip_grad_norm > 0 || options->clip_grad_value > 0 || options->only_finite);
}

static void begin_parameter(const gd_step *step, int p) {
    gd_model *model = step->model;
    const gd_optimizer_config *config = step->config;
    model->param_steps[p]++;
    model->params[p].version++;
    if (config->optimizer->begin)
        config->optimizer->begin(config->groups[config->group_of[p]].attrs, model->param_steps[p],
                                 model->param_scalars + (size_t)p * GD_MAX_SCALARS);
}

/* ---- following backward ------------------------------------------------------------------------------
 * A weight's gradient is normed and stepped by piece by piece, soon after its product computed the piece:
 * it need not come back from memory, and weight and state come while the product computes. */

static void take(const gd_follower *follower, int64_t from, int64_t count) {
    const gd_step *step = follower->context;
    const gd_model *model = step->model;
    const size_t at = follower->offset + (size_t)from;
    *follower->sum += model->engine->isa->sum_of_squares((const float *)model->gradients.data + at, count);
    step_values(model, step->config, follower->param, at, (size_t)count);
}

static void follow_rows(const void *context, int p, int64_t begin, gd_follower *ret_follower) {
    const gd_step *step = context;
    gd_model *model = step->model;
    const gd_parameter *param = &model->params[p];
    const size_t offset = model->offsets[p] + (size_t)(begin * (param->numel / param->shape.dim[0]));
    _Static_assert((int)GD_MOST_READS > (int)GD_MAX_SLOTS, "the parameter and its state");
    *ret_follower = (gd_follower){
        .take = take,
        .reads = {(const float *)model->parameters.data + offset},
        .read_count = 1,
        .context = step,
        .param = p,
        .offset = offset,
        .sum = &model->followed_squares[model->first_square[p] + begin / GD_PARAM_ROWS].sum,
    };
    for (int k = 0; k < step->config->optimizer->slot_count; k++)
        if (model->state[k].data)
            ret_follower->reads[ret_follower->read_count++] = (const float *)model->state[k].data + offset;
}

void gd_step_begin(gd_step *step, gd_run *run) {
    gd_model *model = step->model;
    if (goes_by_norm(step->options))
        return;
    for (int p = 0; p < model->graph->param_count; p++) {
        if (!gd_run_completes(run, p))
            continue;
        model->followed[p] = true;
        for (int64_t i = model->first_square[p]; i < model->first_square[p + 1]; i++)
            model->followed_squares[i].sum = 0;
        begin_parameter(step, p);
    }
    step->follow = (gd_follow){.params = model->followed, .rows = follow_rows, .context = step};
    run->follow = &step->follow;
}

void gd_step_apply(gd_step *step, gd_step_result *result) {
    gd_model *model = step->model;
    const gd_step_options *options = step->options;
    const bool first = goes_by_norm(options); /* else the norm comes with the pass */
    if (first)
        result->grad_norm = gd_step_clip(model, options);
    if (options && options->only_finite && !(isfinite(result->loss) && isfinite(result->grad_norm))) {
        result->skipped = true;
        result->step = model->steps;
        result->lr = *gd_optimizer_lr(step->config, 0);
        return;
    }
    for (int p = 0; p < model->graph->param_count; p++)
        if (gd_step_changes(&model->params[p]) && !model->followed[p])
            begin_parameter(step, p);
    const double norm = run_pass(model, step->config, !first);
    if (!first)
        result->grad_norm = norm;
    memset(model->followed, 0, (size_t)model->graph->param_count * sizeof *model->followed);
    gd_step_finish(model, step->config, result);
}

int gd_model_step(gd_model *model, const gd_step_options *options, gd_step_result *ret_result,
                  gd_error *error) {
    gd_optimizer_config config;
    bool any = false;
    int code = gd_step_prepare(model, options, &config, error);
    if (code)
        return code;
    if (config.optimizer->closure)
        return gd_fail(error, GD_E_STATE,
                       "%s evaluates the loss several times in a step, so it needs the batch: use train_step",
                       config.optimizer->kind.module);
    for (int p = 0; p < model->graph->param_count; p++)
        any = any || gd_step_changes(&model->params[p]);
    if (!any)
        return gd_fail(error, GD_E_STATE, "there is no gradient to step by; call backward first");
    gd_step_result result = {.correct = -1};
    gd_step step = {.model = model, .config = &config, .options = options};
    gd_step_apply(&step, &result);
    *ret_result = result;
    return 0;
}
