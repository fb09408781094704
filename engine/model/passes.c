/* passes.c -- forward, loss, backward, and what is made of them. Every call first checks all it is given
 * and makes room; from then on nothing can fail, so a model is never left half-changed. The one exception:
 * a loss may refuse what the network made of its inputs, and then there has been a forward. */
#include "engine/model/model.h"

#include <inttypes.h>

/* ---- checks ---------------------------------------------------------------------------------------- */

static int check_input(const gd_input_spec *wanted, const gd_tensor *given, int64_t batch, gd_error *error) {
    char got[128], sample[128];
    const gd_shape *shape = &given->shape;
    const gd_shape without = gd_shape_without_batch(shape);
    if (given->dtype != wanted->dtype)
        return gd_fail_field(error, GD_E_DTYPE, wanted->name, "input '%.64s' takes %s, not %s", wanted->name,
                             gd_dtype_name(wanted->dtype), gd_dtype_name(given->dtype));
    gd_shape_text(shape, got, sizeof got);
    gd_shape_text(&wanted->shape, sample, sizeof sample);
    if (gd_shape_equal(shape, &wanted->shape) && shape->rank)
        return gd_fail_field(error, GD_E_SHAPE, wanted->name,
                             "input '%.64s' is one sample of %s; add the batch axis: [1, %s", wanted->name,
                             got, got + 1);
    if (shape->rank < 1 || !gd_shape_equal(&without, &wanted->shape))
        return gd_fail_field(error, GD_E_SHAPE, wanted->name,
                             "input '%.64s' is %s, but the network takes the batch axis and then %s",
                             wanted->name, got, sample);
    if (shape->dim[0] < 1)
        return gd_fail_field(error, GD_E_SHAPE, wanted->name,
                             "input '%.64s' is %s: an empty batch; axis 0 needs at least one sample",
                             wanted->name, got);
    if (shape->dim[0] != batch)
        return gd_fail_field(error, GD_E_SHAPE, wanted->name,
                             "input '%.64s' has %" PRId64
                             " samples (axis 0), but the first input has %" PRId64,
                             wanted->name, shape->dim[0], batch);
    return 0;
}

/* Every index that an op will look something up by must be there. */
static int check_indices(const gd_graph *graph, int n, const gd_tensor *inputs, gd_error *error) {
    const gd_node *node = &graph->nodes[n];
    gd_shape shapes[GD_MAX_INPUTS];
    for (int i = 0; i < node->input_count; i++)
        shapes[i] = gd_value_batched(&graph->values[node->inputs[i]], inputs[0].shape.dim[0]);
    for (int i = 0; i < node->input_count; i++) {
        if (!(node->op->index_inputs >> i & 1) || node->inputs[i] >= graph->input_count)
            continue; /* computed ones were checked when the graph was built */
        const gd_tensor *given = &inputs[node->inputs[i]]; /* graph inputs are the first values */
        const int64_t *index = given->data, count = gd_numel(&given->shape);
        const int64_t limit = node->op->index_limit(node->attrs, shapes, i);
        for (int64_t k = 0; k < count; k++)
            if (index[k] < 0 || index[k] >= limit)
                return gd_fail_field(error, GD_E_VALUE, graph->inputs[node->inputs[i]].name,
                                     "input '%.64s' holds the index %" PRId64 " (element %" PRId64
                                     "), but layer '%.80s' takes 0 ... %" PRId64,
                                     graph->inputs[node->inputs[i]].name, index[k], k, graph->layers[n].name,
                                     limit - 1);
    }
    return 0;
}

static int check_inputs(const gd_model *model, const gd_tensor *inputs, size_t count, gd_error *error) {
    if (count != (size_t)model->graph->input_count)
        return gd_fail(error, GD_E_SHAPE, "the network takes %d inputs, not %zu", model->graph->input_count,
                       count);
    for (size_t i = 0; i < count; i++) {
        int code = check_input(&model->graph->inputs[i], &inputs[i], inputs[0].shape.dim[0], error);
        if (code)
            return code;
    }
    for (int n = 0; n < model->graph->node_count; n++) {
        int code = model->graph->nodes[n].op->index_limit ? check_indices(model->graph, n, inputs, error) : 0;
        if (code)
            return code;
    }
    return 0;
}

/* Scratch belongs to no pass, and may have moved since the plan was bound. */
static gd_run run_of(gd_model *model, gd_plan *plan, bool training) {
    plan->scratch = model->scratch.data;
    return (gd_run){.plan = plan,
                    .pool = model->engine->pool,
                    .rng = &model->rng,
                    .params = model->tensors,
                    .param_grads = model->grad_tensors,
                    .training = training};
}

/* ---- room ------------------------------------------------------------------------------------------ */

/* Lay a plan out for a batch and make room for it and (with a loss) for the loss. On failure everything is
 * as before, a kept graph included. */
static int make_room(gd_model *model, gd_plan *plan, gd_block *arena, int64_t batch, gd_loss_state *state,
                     size_t loss_bytes, gd_error *error) {
    const int64_t before = plan->batch;
    gd_block *blocks[] = {arena, &model->scratch, &state->memory};
    int code = gd_plan_layout(plan, batch, error);
    if (!code && plan->training && model->training)
        code = gd_plan_check_training(plan, error);
    if (!code) {
        size_t scratch;
        if (!gd_mul(plan->scratch_bytes, (size_t)gd_pool_slots(model->engine->pool), &scratch))
            scratch = SIZE_MAX / 2;
        size_t sizes[] = {plan->arena_bytes, scratch, loss_bytes};
        code = gd_blocks_grow(blocks, sizes, 3, gd_model_budget(model), error);
    }
    if (code && before && plan->batch != before) {
        /* It was laid out for this batch once, so it can be again. */
        (void)gd_plan_layout(plan, before, NULL);
        if (plan->training && model->progress != GD_NOTHING)
            gd_plan_bind(plan, model->inputs, arena->data, model->scratch.data);
    }
    return code;
}

/* ---- the passes themselves ------------------------------------------------------------------------- */

static void outputs_of(const gd_plan *plan, gd_tensor outputs[GD_MAX_HEADS]) {
    for (int i = 0; i < plan->graph->output_count; i++)
        outputs[i] = plan->values[plan->graph->outputs[i]];
}

void gd_outputs_for(const gd_graph *graph, int64_t batch, gd_tensor outputs[GD_MAX_HEADS]) {
    for (int i = 0; i < graph->output_count; i++) {
        const gd_graph_value *value = &graph->values[graph->outputs[i]];
        outputs[i] = (gd_tensor){.dtype = value->dtype, .shape = gd_value_batched(value, batch)};
    }
}

/* Forward in training may have changed buffers (running statistics). */
static void note_buffers(gd_model *model) {
    bool any = false;
    for (int p = 0; p < model->graph->param_count; p++)
        if (model->params[p].buffer) {
            model->params[p].version++;
            any = true;
        }
    model->version += any;
}

static void forward(gd_model *model, const gd_tensor *inputs) {
    for (int i = 0; i < model->graph->input_count; i++)
        model->inputs[i] = inputs[i];
    gd_plan_bind(&model->plan, model->inputs, model->arena.data, model->scratch.data);
    gd_run run = run_of(model, &model->plan, model->training);
    gd_run_forward(&run);
    model->progress = GD_FORWARD;
    model->loss_state.computed = false;
    if (model->training)
        note_buffers(model);
}

/* With the outputs' gradients in place: add to the parameters' gradients. */
static void backward(gd_model *model, const gd_run *run) {
    gd_run_backward(run);
    for (int n = 0; n < model->graph->node_count; n++) {
        const gd_node *node = &model->graph->nodes[n];
        for (int p = node->first_param; run->plan->active[n] && p < node->first_param + node->param_count;
             p++) {
            model->params[p].has_grad |= model->params[p].requires_grad;
            model->had_grad[p] |= model->params[p].has_grad;
        }
    }
}

static void backward_from_loss(gd_model *model, const gd_run *run) {
    gd_tensor outputs[GD_MAX_HEADS];
    outputs_of(&model->plan, outputs);
    gd_loss_backward(model->used, &model->loss_state, outputs, model->plan.grads);
    backward(model, run);
}

static int nothing_trainable(gd_error *error) {
    return gd_fail(error, GD_E_STATE,
                   "no parameter that the output depends on requires a gradient; unfreeze one: "
                   "PATCH .../parameters/{name} {\"requires_grad\": true}");
}

/* ---- losses: the model's own, or another for once --------------------------------------------------- */

/* ret_once is filled in when the request brings its own loss; release it. */
static int choose_loss(const gd_model *model, const gd_loss_spec *spec, gd_loss_config *ret_once,
                       const gd_loss_config **ret_config, gd_error *error) {
    *ret_once = (gd_loss_config){.count = 0};
    *ret_config = &model->loss;
    if (spec && spec->term_count) {
        *ret_config = ret_once;
        return gd_loss_configure(model->engine->isa, spec, model->graph, ret_once, error);
    }
    if (!model->loss.count)
        return gd_fail_field(error, GD_E_STATE, "loss",
                             "the model has no loss; give one with the request or the model: "
                             "{\"loss\": {\"type\": \"MSELoss\"}}");
    return 0;
}

/* Keep the loss that computed loss_state until backward has used it. */
static void keep_loss(gd_model *model, const gd_loss_config *config, gd_loss_config *once) {
    model->used = config;
    if (config != once)
        return;
    gd_loss_config_release(&model->override);
    model->override = *once;
    *once = (gd_loss_config){.count = 0};
    model->used = &model->override;
}

int gd_model_targets(const gd_model *model, const gd_loss_spec *spec, gd_targets *ret_targets,
                     gd_error *error) {
    gd_loss_config once;
    const gd_loss_config *config;
    int code = choose_loss(model, spec, &once, &config, error);
    if (!code) {
        ret_targets->count = (size_t)config->target_count;
        for (int i = 0; i < config->target_count; i++)
            snprintf(ret_targets->names[i], GD_MAX_NAME, "%s", config->targets[i]);
    }
    gd_loss_config_release(&once);
    return code;
}

int gd_model_target_dtype(const gd_model *model, const gd_loss_spec *spec, size_t index,
                          const gd_shape *target, gd_dtype *ret_dtype, gd_error *error) {
    gd_loss_config once;
    const gd_loss_config *config;
    gd_tensor outputs[GD_MAX_HEADS];
    int code = choose_loss(model, spec, &once, &config, error), t = 0;
    if (!code) {
        gd_outputs_for(model->graph, target->rank ? target->dim[0] : 1, outputs);
        while (t < config->count - 1 && config->parts[t].target != (int)index)
            t++;
        const gd_loss_part *part = &config->parts[t];
        *ret_dtype = part->loss->target_dtype(part->term.attrs, &outputs[part->term.output].shape, target);
    }
    gd_loss_config_release(&once);
    return code;
}

/* ---- public --------------------------------------------------------------------------------------- */

int gd_model_forward(gd_model *model, const gd_tensor *inputs, size_t input_count, gd_tensor *ret_outputs,
                     gd_error *error) {
    int code = check_inputs(model, inputs, input_count, error);
    if (!code)
        code = make_room(model, &model->plan, &model->arena, inputs[0].shape.dim[0], &model->loss_state, 0,
                         error);
    if (code)
        return code;
    forward(model, inputs);
    outputs_of(&model->plan, ret_outputs);
    return 0;
}

int gd_model_output(const gd_model *model, gd_tensor *ret_outputs, gd_error *error) {
    if (model->progress == GD_NOTHING)
        return gd_fail(error, GD_E_STATE, "there is no output yet; call forward first");
    outputs_of(&model->plan, ret_outputs);
    return 0;
}

void gd_model_forget(gd_model *model) {
    model->progress = GD_NOTHING;
    model->loss_state.computed = false;
}

int gd_model_loss(gd_model *model, const gd_tensor *targets, const gd_loss_spec *spec, gd_tensor *ret_loss,
                  gd_error *error) {
    gd_loss_config once;
    gd_loss_batch batch;
    const gd_loss_config *config;
    gd_tensor outputs[GD_MAX_HEADS];
    int code = gd_model_output(model, outputs, error);
    if (code)
        return code;
    code = choose_loss(model, spec, &once, &config, error);
    if (!code &&
        !(code = gd_loss_check(config, model->graph, outputs, model->inputs, targets, &batch, error)) &&
        !(code = gd_loss_check_outputs(config, model->graph, outputs, error))) {
        gd_block *blocks[] = {&model->loss_state.memory};
        size_t sizes[] = {gd_loss_bytes(config, &batch, outputs)};
        code = gd_blocks_grow(blocks, sizes, 1, gd_model_budget(model), error);
    }
    if (!code) {
        gd_loss_forward(config, &model->loss_state, &batch, outputs);
        keep_loss(model, config, &once);
        *ret_loss = model->loss_state.result;
    }
    gd_loss_config_release(&once);
    return code;
}

size_t gd_model_loss_values(const gd_model *model, double ret_values[GD_MAX_TERMS]) {
    const gd_loss_state *state = &model->loss_state;
    const size_t count = state->computed ? state->value_count : 0;
    memcpy(ret_values, state->values, count * sizeof *ret_values);
    return count;
}

/* ---- backward --------------------------------------------------------------------------------------- */

static int check_gradient(const gd_output *head, const gd_tensor *gradient, const gd_tensor *output,
                          gd_error *error) {
    char text[128], wanted[128];
    if (output->dtype != GD_FLOAT32)
        return gd_fail_field(error, GD_E_DTYPE, "gradient", "output '%.64s' holds %s, which has no gradient",
                             head->name, gd_dtype_name(output->dtype));
    if (gradient->dtype != GD_FLOAT32)
        return gd_fail_field(error, GD_E_DTYPE, "gradient", "the gradient must be float32, not %s",
                             gd_dtype_name(gradient->dtype));
    if (!gd_shape_equal(&gradient->shape, &output->shape))
        return gd_fail_field(error, GD_E_SHAPE, "gradient", "the gradient is %s, but the output is %s",
                             gd_shape_text(&gradient->shape, text, sizeof text),
                             gd_shape_text(&output->shape, wanted, sizeof wanted));
    return 0;
}

/* *ret_outputs: by which of them gradients come in, a bit each. */
static int check_gradients(const gd_model *model, const gd_tensor *gradients, unsigned *ret_outputs,
                           gd_error *error) {
    gd_tensor outputs[GD_MAX_HEADS];
    outputs_of(&model->plan, outputs);
    *ret_outputs = 0;
    for (int i = 0; i < model->graph->output_count; i++) {
        if (!gradients[i].data)
            continue;
        int code = check_gradient(&model->graph->heads[i], &gradients[i], &outputs[i], error);
        if (code)
            return code;
        *ret_outputs |= 1U << i;
    }
    return *ret_outputs ? 0 : gd_fail_field(error, GD_E_SHAPE, "gradient", "give a gradient of an output");
}

static int check_backward(const gd_model *model, const gd_tensor *gradients, const gd_run *run,
                          unsigned *ret_outputs, gd_error *error) {
    const gd_loss_state *state = &model->loss_state;
    char text[128];
    int code = 0;
    if (model->progress == GD_NOTHING)
        return gd_fail(error, GD_E_STATE, "there is no graph to go back through; call forward%s first",
                       gradients ? "" : " and loss");
    if (model->progress == GD_FREED)
        return gd_fail(error, GD_E_STATE,
                       "the graph was freed by the last backward; call forward again, or pass "
                       "retain_graph: true to the backward before");
    if (!gradients && !state->computed)
        return gd_fail(error, GD_E_STATE,
                       "there is no loss to go back from; call loss first, or pass a gradient of the output");
    if (!gradients && state->result.shape.rank)
        return gd_fail(error, GD_E_STATE,
                       "the loss is unreduced, %s, and backward needs a scalar; use reduction "
                       "\"mean\" or \"sum\", or pass a gradient of the output",
                       gd_shape_text(&state->result.shape, text, sizeof text));
    if (gradients)
        code = check_gradients(model, gradients, ret_outputs, error);
    else
        *ret_outputs = model->used->outputs;
    if (code)
        return code;
    return gd_run_trace(run, *ret_outputs) ? 0 : nothing_trainable(error);
}

/* Put the gradients where backward begins; two outputs may be one value. */
static void place_gradients(gd_model *model, const gd_tensor *gradients) {
    for (int i = 0; i < model->graph->output_count; i++) {
        const gd_tensor *grad = &model->plan.grads[model->graph->outputs[i]];
        bool first = true;
        for (int k = 0; k < i; k++)
            first = first && !(gradients[k].data && model->graph->outputs[k] == model->graph->outputs[i]);
        if (gradients[i].data && first)
            memcpy(grad->data, gradients[i].data, gd_tensor_bytes(grad));
        for (int64_t e = 0; gradients[i].data && !first && e < gd_numel(&grad->shape); e++)
            ((float *)grad->data)[e] += ((const float *)gradients[i].data)[e];
    }
}

int gd_model_backward(gd_model *model, const gd_tensor *gradients, bool retain_graph, gd_error *error) {
    const gd_run run = run_of(model, &model->plan, model->training);
    unsigned outputs;
    int code = check_backward(model, gradients, &run, &outputs, error);
    if (code)
        return code;
    if (gradients) {
        place_gradients(model, gradients);
        backward(model, &run);
    } else {
        backward_from_loss(model, &run);
    }
    if (!retain_graph)
        model->progress = GD_FREED;
    return 0;
}

/* ---- steps ------------------------------------------------------------------------------------------- */

/* Check everything a training pass needs and make room for it. */
static int prepare_pass(gd_model *model, const gd_tensor *inputs, size_t input_count,
                        const gd_tensor *targets, const gd_loss_config *config, gd_loss_batch *ret_batch,
                        gd_error *error) {
    const gd_run run = run_of(model, &model->plan, model->training);
    gd_tensor outputs[GD_MAX_HEADS];
    int code = check_inputs(model, inputs, input_count, error);
    if (code)
        return code;
    gd_outputs_for(model->graph, inputs[0].shape.dim[0], outputs);
    if ((code = gd_loss_check(config, model->graph, outputs, inputs, targets, ret_batch, error)))
        return code;
    if (ret_batch->plans[0].loss.rank)
        return gd_fail_field(error, GD_E_STATE, "loss",
                             "training needs a scalar loss; use reduction \"mean\" or \"sum\"");
    if (!gd_run_trace(&run, config->outputs))
        return nothing_trainable(error);
    return make_room(model, &model->plan, &model->arena, inputs[0].shape.dim[0], &model->loss_state,
                     gd_loss_bytes(config, ret_batch, outputs), error);
}

/* A training pass that prepare_pass() has let through; it may be run again and again. */
typedef struct pass {
    gd_model *model;
    const gd_tensor *inputs;
    gd_loss_config *once;         /* the request's own loss; the model has it from the first run on */
    const gd_loss_config *config; /* the loss: the model's or once */
    gd_loss_batch batch;
    gd_step *step; /* that follows backward; NULL: none */
} pass;

/* Forward, loss and, after zero_grad where asked for, backward. The one thing that can go wrong is that the
 * loss cannot take the output; then this was a forward and no more, as in torch. */
static int run_pass(pass *p, bool zero_grad, gd_step_result *result, gd_error *error) {
    gd_model *model = p->model;
    gd_run run = run_of(model, &model->plan, model->training);
    gd_tensor outputs[GD_MAX_HEADS];
    forward(model, p->inputs);
    outputs_of(&model->plan, outputs);
    int code = gd_loss_check_outputs(p->config, model->graph, outputs, error);
    if (code)
        return code;
    gd_loss_forward(p->config, &model->loss_state, &p->batch, outputs);
    result->count = model->plan.batch;
    gd_loss_score(p->config, &model->loss_state, outputs, result);
    keep_loss(model, p->config, p->once);
    p->config = model->used;
    run.zero_grad = zero_grad;
    if (p->step)
        gd_step_begin(p->step, &run);
    backward_from_loss(model, &run);
    if (zero_grad)
        gd_step_zeroed(model);
    model->progress = GD_FREED;
    return 0;
}

int gd_model_forward_backward(gd_model *model, const gd_tensor *inputs, size_t input_count,
                              const gd_tensor *targets, const gd_loss_spec *spec, gd_step_result *ret_result,
                              gd_error *error) {
    gd_loss_config once;
    pass p = {.model = model, .inputs = inputs, .once = &once};
    int code = choose_loss(model, spec, &once, &p.config, error);
    if (!code && !(code = prepare_pass(model, inputs, input_count, targets, p.config, &p.batch, error))) {
        gd_step_result result = {.step = model->steps};
        code = run_pass(&p, false, &result, error);
        if (!code) {
            result.grad_norm = gd_model_grad_norm(model);
            *ret_result = result;
        }
    }
    gd_loss_config_release(&once);
    return code;
}

static int run_again(void *context, gd_step_result *result, gd_error *error) {
    return run_pass(context, true, result, error);
}

/* The passes of one step, and the step. */
static int run_step(pass *p, const gd_optimizer_config *optimizer, const gd_step_options *options,
                    gd_step_result *result, gd_error *error) {
    const gd_closure_pass again = {.run = run_again, .context = p};
    if (optimizer->optimizer->closure)
        return gd_step_closure(p->model, optimizer, options, &again, result, error);
    gd_step step = {.model = p->model, .config = optimizer, .options = options};
    pass followed = *p;
    followed.step = &step;
    int code = run_pass(&followed, true, result, error);
    if (!code)
        gd_step_apply(&step, result);
    return code;
}

int gd_model_train_step(gd_model *model, const gd_tensor *inputs, size_t input_count,
                        const gd_tensor *targets, const gd_loss_spec *spec, const gd_step_options *options,
                        gd_step_result *ret_result, gd_error *error) {
    gd_loss_config once;
    gd_optimizer_config optimizer;
    pass p = {.model = model, .inputs = inputs, .once = &once};
    int code = choose_loss(model, spec, &once, &p.config, error);
    if (!code && !(code = gd_step_prepare(model, options, &optimizer, error)) &&
        !(code = prepare_pass(model, inputs, input_count, targets, p.config, &p.batch, error))) {
        gd_step_result result = {0};
        code = run_step(&p, &optimizer, options, &result, error);
        if (!code)
            *ret_result = result;
    }
    gd_loss_config_release(&once);
    return code;
}

static void predict(gd_model *model, const gd_tensor *inputs) {
    gd_plan_bind(&model->predict_plan, inputs, model->predict_arena.data, model->scratch.data);
    gd_run run = run_of(model, &model->predict_plan, false);
    gd_run_forward(&run);
}

int gd_model_predict(gd_model *model, const gd_tensor *inputs, size_t input_count, gd_tensor *ret_outputs,
                     gd_error *error) {
    int code = check_inputs(model, inputs, input_count, error);
    if (!code)
        code = make_room(model, &model->predict_plan, &model->predict_arena, inputs[0].shape.dim[0],
                         &model->evaluate_state, 0, error);
    if (code)
        return code;
    predict(model, inputs);
    outputs_of(&model->predict_plan, ret_outputs);
    return 0;
}

int gd_model_evaluate(gd_model *model, const gd_tensor *inputs, size_t input_count, const gd_tensor *targets,
                      gd_step_result *ret_result, gd_error *error) {
    gd_loss_config once;
    gd_loss_batch batch;
    const gd_loss_config *config;
    gd_tensor outputs[GD_MAX_HEADS];
    int code = choose_loss(model, NULL, &once, &config, error);
    if (!code)
        code = check_inputs(model, inputs, input_count, error);
    if (code)
        return code;
    const int64_t samples = inputs[0].shape.dim[0];
    gd_outputs_for(model->graph, samples, outputs);
    if ((code = gd_loss_check(config, model->graph, outputs, inputs, targets, &batch, error)))
        return code;
    if (batch.plans[0].loss.rank)
        return gd_fail_field(error, GD_E_STATE, "loss",
                             "evaluate needs a scalar loss; PATCH the model's loss to "
                             "reduction \"mean\" or \"sum\"");
    if ((code = make_room(model, &model->predict_plan, &model->predict_arena, samples, &model->evaluate_state,
                          gd_loss_bytes(config, &batch, outputs), error)))
        return code;
    predict(model, inputs);
    outputs_of(&model->predict_plan, outputs);
    if ((code = gd_loss_check_outputs(config, model->graph, outputs, error)))
        return code;
    gd_step_result result = {.step = model->steps, .count = samples};
    gd_loss_forward(config, &model->evaluate_state, &batch, outputs);
    gd_loss_score(config, &model->evaluate_state, outputs, &result);
    *ret_result = result;
    return 0;
}
