/* model.c -- a model's life: its slabs, its parameters, its settings. */
#include "engine/model/model.h"
#include "engine/kernels/sum.h"

#include <inttypes.h>

static int no_memory(gd_error *error) {
    return gd_fail(error, GD_E_MEMORY, "no memory for the model");
}

/* Offsets of parameters in their slab, each on a cache line. @return false on overflow */
static bool lay_out(const gd_graph *graph, size_t *offsets, size_t *ret_floats) {
    size_t floats = 0, next;
    for (int p = 0; p < graph->param_count; p++) {
        if (offsets)
            offsets[p] = floats;
        const size_t words = gd_dtype_size(graph->params[p].decl->dtype) / sizeof(float);
        if (!gd_add(floats, ((size_t)gd_numel(&graph->params[p].shape) * words + 15) & ~(size_t)15, &next))
            return false;
        floats = next;
    }
    *ret_floats = floats;
    return gd_mul(floats, GD_MAX_SLOTS * sizeof(float), &next);
}

static int make_tables(gd_model *model, gd_error *error) {
    const gd_graph *graph = model->graph;
    const size_t params = (size_t)graph->param_count + 1; /* never an empty allocation */
    model->params = calloc(params, sizeof *model->params);
    model->offsets = calloc(params, sizeof *model->offsets);
    model->param_steps = calloc(params, sizeof *model->param_steps);
    model->param_scalars = calloc(params, GD_MAX_SCALARS * sizeof *model->param_scalars);
    model->tensors = calloc(params, sizeof *model->tensors);
    model->grad_tensors = calloc(params, sizeof *model->grad_tensors);
    model->trainable = calloc(params, sizeof *model->trainable);
    model->had_grad = calloc(params, sizeof *model->had_grad);
    model->followed = calloc(params, sizeof *model->followed);
    model->first_square = calloc(params, sizeof *model->first_square);
    for (int p = 0; model->first_square && p < graph->param_count; p++) {
        const gd_shape *shape = &graph->params[p].shape;
        model->first_square[p + 1] =
            model->first_square[p] + (shape->rank ? gd_ceil_div(shape->dim[0], GD_PARAM_ROWS) : 1);
    }
    if (model->first_square)
        model->followed_squares =
            calloc((size_t)model->first_square[params - 1] + 1, sizeof *model->followed_squares);
    model->inputs = calloc((size_t)graph->input_count, sizeof *model->inputs);
    if (!model->params || !model->offsets || !model->param_steps || !model->param_scalars ||
        !model->tensors || !model->grad_tensors || !model->trainable || !model->had_grad || !model->inputs ||
        !model->followed || !model->followed_squares)
        return no_memory(error);
    int code = gd_plan_new(graph, model->engine->isa, true, &model->plan, error);
    return code ? code : gd_plan_new(graph, model->engine->isa, false, &model->predict_plan, error);
}

static int make_slabs(gd_model *model, gd_error *error) {
    if (!lay_out(model->graph, model->offsets, &model->slab_floats))
        return gd_fail(error, GD_E_LIMIT, "the parameters would be larger than any memory");
    gd_block *blocks[] = {&model->parameters, &model->gradients};
    const size_t sizes[] = {model->slab_floats * sizeof(float), model->slab_floats * sizeof(float)};
    int code = gd_blocks_grow(blocks, sizes, GD_COUNT(blocks), gd_model_budget(model), error);
    return code ? code : gd_model_make_state(model, &model->optimizer, model->schedule.schedule, error);
}

static void fill_tables(gd_model *model) {
    const gd_graph *graph = model->graph;
    for (int p = 0; p < graph->param_count; p++) {
        const gd_graph_param *declared = &graph->params[p];
        gd_parameter *param = &model->params[p];
        *param = (gd_parameter){
            .shape = declared->shape,
            .numel = gd_numel(&declared->shape),
            .dtype = declared->decl->dtype,
            .data = (float *)model->parameters.data + model->offsets[p],
            .grad = (float *)model->gradients.data + model->offsets[p],
            .buffer = declared->decl->buffer,
            .requires_grad = !declared->decl->buffer && !graph->flat.layers[declared->layer].frozen,
            .version = 1,
            .layer = (size_t)declared->layer,
        };
        snprintf(param->name, sizeof param->name, "%s", declared->name);
        model->tensors[p] = (gd_tensor){param->dtype, param->shape, param->data};
        model->grad_tensors[p] =
            (gd_tensor){GD_FLOAT32, param->shape, param->requires_grad ? param->grad : NULL};
        if (!param->buffer)
            model->trainable[model->trainable_count++] = p;
    }
}

int gd_model_new(gd_engine *engine, gd_graph *graph, const gd_model_config *config, gd_model **ret_model,
                 gd_error *error) {
    int code;
    gd_schedule *schedules = NULL;
    gd_model *model = calloc(1, sizeof *model);
    if (!model)
        return no_memory(error);
    model->engine = engine;
    model->graph = gd_graph_ref(graph);
    model->training = true;
    model->version = 1;
    if ((code = gd_loss_configure(engine->isa, &config->loss, graph, &model->loss, error)) ||
        (code = gd_optimizer_configure(engine->isa, &config->optimizer, graph, NULL, &model->optimizer,
                                       error)) ||
        (code = gd_schedule_configure(&config->scheduler, &model->schedule, error)) ||
        (code = gd_schedule_fits(model->schedule.schedule, &model->optimizer, error)) ||
        (code = make_tables(model, error)) || (code = make_slabs(model, error)) ||
        (code = gd_schedule_for_groups(&model->schedule, model->optimizer.group_count, &schedules, error))) {
        gd_model_free(model);
        return code;
    }
    gd_schedule_start(&model->schedule, schedules, &model->optimizer);
    fill_tables(model);
    gd_model_init(model, config->seed);
    *ret_model = model;
    return 0;
}

void gd_model_free(gd_model *model) {
    if (!model)
        return;
    gd_block *blocks[] = {&model->parameters,           &model->gradients, &model->arena,
                          &model->predict_arena,        &model->scratch,   &model->loss_state.memory,
                          &model->evaluate_state.memory};
    for (size_t i = 0; i < GD_COUNT(blocks); i++)
        gd_block_release(blocks[i], gd_model_budget(model));
    for (int k = 0; k < GD_STATE_BLOCKS; k++)
        gd_block_release(&model->state[k], gd_model_budget(model));
    gd_plan_release(&model->plan);
    gd_plan_release(&model->predict_plan);
    gd_loss_config_release(&model->loss);
    gd_loss_config_release(&model->override);
    gd_optimizer_config_release(&model->optimizer);
    gd_schedule_config_release(&model->schedule);
    free(model->params);
    free(model->offsets);
    free(model->param_steps);
    free(model->param_scalars);
    free(model->tensors);
    free(model->grad_tensors);
    free(model->trainable);
    free(model->had_grad);
    free(model->followed);
    free(model->followed_squares);
    free(model->first_square);
    free(model->inputs);
    gd_graph_unref(model->graph);
    free(model);
}

/* ---- looking at it ------------------------------------------------------------------------------- */

const gd_graph *gd_model_graph(const gd_model *model) {
    return model->graph;
}

size_t gd_model_memory(const gd_model *model) {
    size_t state = 0;
    for (int k = 0; k < GD_STATE_BLOCKS; k++)
        state += model->state[k].size;
    return model->parameters.size + model->gradients.size + state + model->arena.size +
           model->predict_arena.size + model->scratch.size + model->loss_state.memory.size +
           model->evaluate_state.memory.size;
}

uint64_t gd_model_version(const gd_model *model) {
    return model->version;
}

int64_t gd_model_steps(const gd_model *model) {
    return model->steps;
}

bool gd_model_training(const gd_model *model) {
    return model->training;
}

const gd_term *gd_model_loss_term(const gd_model *model, size_t index) {
    return index < (size_t)model->loss.count ? &model->loss.parts[index].term : NULL;
}

size_t gd_model_parameter_count(const gd_model *model) {
    return (size_t)model->graph->param_count;
}

const gd_parameter *gd_model_parameter(const gd_model *model, size_t index) {
    return index < (size_t)model->graph->param_count ? &model->params[index] : NULL;
}

const gd_parameter *gd_model_find_parameter(const gd_model *model, const char *name, size_t *ret_index) {
    for (size_t i = 0; i < (size_t)model->graph->param_count; i++)
        if (strcmp(model->params[i].name, name) == 0) {
            if (ret_index)
                *ret_index = i;
            return &model->params[i];
        }
    return NULL;
}

double gd_norm(const float *values, int64_t count) {
    return sqrt(gd_sum_of_squares(values, count));
}

/* ---- changing it --------------------------------------------------------------------------------- */

int gd_model_set_parameter(gd_model *model, size_t index, const gd_tensor *values, gd_error *error) {
    gd_parameter *param = &model->params[index];
    char given[128], wanted[128];
    if (values->dtype != param->dtype)
        return gd_fail(error, GD_E_DTYPE, "parameter '%s' holds %s, not %s", param->name,
                       gd_dtype_name(param->dtype), gd_dtype_name(values->dtype));
    if (!gd_shape_equal(&values->shape, &param->shape))
        return gd_fail(error, GD_E_SHAPE, "parameter '%s' is %s, but %s was given", param->name,
                       gd_shape_text(&param->shape, wanted, sizeof wanted),
                       gd_shape_text(&values->shape, given, sizeof given));
    memcpy(param->data, values->data, gd_tensor_bytes(values));
    param->version++;
    model->version++;
    return 0;
}

void gd_model_set_requires_grad(gd_model *model, size_t index, bool requires_grad) {
    gd_parameter *param = &model->params[index];
    if (param->buffer || param->requires_grad == requires_grad)
        return;
    param->requires_grad = requires_grad;
    model->grad_tensors[index].data = requires_grad ? param->grad : NULL;
    param->version++;
    model->version++;
}

/* Everything that a patch makes new, before anything is changed. */
typedef struct change {
    gd_optimizer_config optimizer; /* borrowed, of the model or of made */
    gd_optimizer_config made;
    bool fresh;     /* it forgets all: another optimizer than before, or another history_size */
    bool regrouped; /* other groups than before: fresh ones too */
    gd_loss_config loss;
    gd_schedule_config schedule;
    gd_schedule *schedules; /* of each group, where the scheduler begins (again) */
} change;

/* A new optimizer begins afresh, and so does one whose history is to be longer or shorter; else the same one
 * goes on with other hyperparameters or groups. */
static int change_optimizer(const gd_model *model, const gd_optimizer_spec *spec, change *to,
                            gd_error *error) {
    const gd_optimizer_config *now = &model->optimizer;
    const gd_kind *kind = NULL;
    if (spec->type && !(kind = gd_kind_find(GD_OPTIMIZERS, spec->type, error)))
        return gd_within(error, "/optimizer", GD_E_UNKNOWN_KIND);
    if (!kind && !now->optimizer)
        return gd_fail(
            error, GD_E_STATE,
            "the model has no optimizer; give it one first: {\"optimizer\": {\"type\": \"SGD\", ...}}");
    to->fresh = kind && (!now->optimizer || strcmp(kind->module, now->optimizer->kind.module) != 0);
    to->regrouped = to->fresh || spec->groups;
    int code;
    if (to->regrouped) {
        code = gd_optimizer_configure(model->engine->isa, spec, model->graph, to->fresh ? NULL : now,
                                      &to->made, error);
        to->optimizer = to->made;
    } else {
        code = gd_within(error, "/optimizer",
                         gd_optimizer_override(now, spec->fields, spec->field_count, &to->optimizer, error));
    }
    to->fresh = to->fresh || (!code && gd_optimizer_closure_bytes(&to->optimizer, model->slab_floats) !=
                                           gd_optimizer_closure_bytes(now, model->slab_floats));
    return code;
}

static int prepare_change(gd_model *model, const gd_model_patch *patch, change *to, gd_error *error) {
    int code = 0;
    to->optimizer = model->optimizer;
    if (patch->optimizer)
        code = change_optimizer(model, patch->optimizer, to, error);
    if (!code && patch->loss)
        code = gd_loss_configure(model->engine->isa, patch->loss, model->graph, &to->loss, error);
    if (!code && patch->scheduler)
        code = gd_schedule_configure(patch->scheduler, &to->schedule, error);
    const gd_schedule_config *schedule = patch->scheduler ? &to->schedule : &model->schedule;
    if (!code)
        code = gd_schedule_fits(schedule->schedule, &to->optimizer, error);
    if (!code && (patch->scheduler || to->regrouped))
        code = gd_schedule_for_groups(schedule, to->optimizer.group_count, &to->schedules, error);
    return code ? code : gd_model_make_state(model, &to->optimizer, schedule->schedule, error);
}

static void drop_change(change *to) {
    gd_optimizer_config_release(&to->made);
    gd_loss_config_release(&to->loss);
    gd_schedule_config_release(&to->schedule);
    free(to->schedules);
}

static void set_optimizer(gd_model *model, const change *to) {
    if (to->regrouped) {
        gd_optimizer_config_release(&model->optimizer);
        model->optimizer = to->made;
    } else if (to->optimizer.groups != model->optimizer.groups) { /* with other hyperparameters */
        memcpy(model->optimizer.groups, to->optimizer.groups,
               model->optimizer.group_count * sizeof *model->optimizer.groups);
    }
}

int gd_model_change(gd_model *model, const gd_model_patch *patch, gd_error *error) {
    change to = {0};
    int code = prepare_change(model, patch, &to, error);
    if (code) {
        drop_change(&to);
        return code;
    }
    set_optimizer(model, &to);
    if (patch->loss) {
        if (model->used == &model->loss)
            model->loss_state.computed = false; /* what it computed goes with it */
        gd_loss_config_release(&model->loss);
        model->loss = to.loss;
    }
    if (patch->scheduler) {
        gd_schedule_config_release(&model->schedule);
        model->schedule = to.schedule;
    }
    if (to.fresh)
        gd_model_clear_state(model);
    if (patch->scheduler || to.regrouped)
        gd_schedule_start(&model->schedule, to.schedules, &model->optimizer);
    if (patch->training)
        model->training = *patch->training;
    model->version++;
    return 0;
}

int gd_model_check_change(gd_model *model, const gd_model_patch *patch, gd_error *error) {
    change to = {0};
    int code = prepare_change(model, patch, &to, error);
    drop_change(&to);
    return code;
}

/* ---- how much it will take ------------------------------------------------------------------------- */

static int loss_memory(const gd_graph *graph, const gd_loss_spec *spec, int64_t batch, size_t *ret_bytes,
                       gd_error *error) {
    gd_loss_config config;
    gd_tensor outputs[GD_MAX_HEADS];
    int code = gd_loss_configure(&gd_isa_portable, spec, graph, &config, error);
    if (code)
        return code;
    gd_outputs_for(graph, batch, outputs);
    code = gd_loss_foresee(&config, outputs, ret_bytes, error);
    gd_loss_config_release(&config);
    return code;
}

/* Bytes of each slot of the optimizer's state. */
static int state_memory(const gd_graph *graph, const gd_model_config *config, size_t slab_floats,
                        size_t ret_sizes[GD_STATE_BLOCKS], gd_error *error) {
    gd_optimizer_config optimizer = {0};
    gd_schedule_config schedule = {0};
    int code = gd_optimizer_configure(&gd_isa_portable, &config->optimizer, graph, NULL, &optimizer, error);
    if (!code && !(code = gd_schedule_configure(&config->scheduler, &schedule, error)) &&
        !(code = gd_schedule_fits(schedule.schedule, &optimizer, error)))
        gd_optimizer_state_sizes(&optimizer, schedule.schedule, slab_floats, ret_sizes);
    gd_optimizer_config_release(&optimizer);
    gd_schedule_config_release(&schedule);
    return code;
}

int gd_graph_memory(const gd_engine *engine, const gd_graph *graph, const gd_model_config *config,
                    int64_t batch, size_t *ret_bytes, gd_error *error) {
    size_t floats, loss, scratch, rounded, total = 0, state[GD_STATE_BLOCKS];
    gd_plan plan;
    int code;
    if (!lay_out(graph, NULL, &floats))
        return gd_fail(error, GD_E_LIMIT, "the parameters would be larger than any memory");
    if ((code = state_memory(graph, config, floats, state, error)) ||
        (code = loss_memory(graph, &config->loss, batch, &loss, error)) ||
        (code = gd_plan_new(graph, engine->isa, true, &plan, error)))
        return code;
    if (!(code = gd_plan_layout(&plan, batch, error))) {
        bool fits = gd_mul(plan.scratch_bytes, (size_t)gd_pool_slots(engine->pool), &scratch);
        const size_t pieces[] = {floats * sizeof(float), floats * sizeof(float), plan.arena_bytes, scratch,
                                 loss};
        for (size_t i = 0; i < GD_COUNT(pieces); i++)
            fits = fits && gd_round_up(pieces[i], &rounded) && gd_add(total, rounded, &total);
        for (int k = 0; k < GD_STATE_BLOCKS; k++)
            fits = fits && gd_round_up(state[k], &rounded) && gd_add(total, rounded, &total);
        if (fits)
            *ret_bytes = total;
        else
            code = gd_fail(error, GD_E_LIMIT, "this batch or this optimizer is larger than any memory");
    }
    gd_plan_release(&plan);
    return code;
}

int gd_graph_batch_bytes(const gd_graph *graph, const gd_loss_spec *loss, int64_t batch, size_t *ret_bytes,
                         gd_error *error) {
    gd_loss_config config;
    gd_tensor outputs[GD_MAX_HEADS];
    size_t total, bytes;
    int code = gd_loss_configure(&gd_isa_portable, loss, graph, &config, error);
    if (code)
        return code;
    gd_outputs_for(graph, batch, outputs);
    code = gd_loss_target_bytes(&config, outputs, &total, error);
    gd_loss_config_release(&config);
    for (int i = 0; i < graph->input_count && !code; i++) {
        const gd_graph_value *value = &graph->values[i]; /* inputs are the first */
        const gd_shape shape = gd_value_batched(value, batch);
        code = gd_shape_bytes(&shape, value->dtype, &bytes, error);
        if (!code && !gd_add(total, bytes, &total))
            code = gd_fail(error, GD_E_LIMIT, "this batch is larger than any memory");
    }
    if (!code)
        *ret_bytes = total;
    return code;
}
