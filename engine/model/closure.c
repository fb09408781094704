/* closure.c -- the steps and the state of an optimizer that evaluates the loss itself (LBFGS). */
#include "engine/model/model.h"

typedef struct evaluations {
    gd_model *model;
    const gd_step_options *options;
    const gd_closure_pass *pass;
    gd_step_result *first; /* what the first one gave */
    bool any;
} evaluations;

/* What the closure of a torch.optim optimizer does, clipping included. */
static int evaluate(void *context, double *ret_loss, gd_error *error) {
    evaluations *e = context;
    gd_step_result result = {0};
    int code = e->pass->run(e->pass->context, &result, error);
    if (code)
        return code;
    result.grad_norm = gd_step_clip(e->model, e->options);
    if (!e->any)
        *e->first = result;
    e->any = true;
    *ret_loss = result.loss;
    return 0;
}

int gd_step_closure(gd_model *model, const gd_optimizer_config *config, const gd_step_options *options,
                    const gd_closure_pass *pass, gd_step_result *result, gd_error *error) {
    gd_step_result first = {0};
    evaluations e = {.model = model, .options = options, .pass = pass, .first = &first};
    const gd_closure closure = {
        .attrs = config->groups[0].attrs,
        .state = model->state[GD_CLOSURE_STATE].data,
        .params = model->parameters.data,
        .grads = model->gradients.data,
        .count = (int64_t)model->slab_floats,
        .parameters = model->params,
        .offsets = model->offsets,
        .parameter_count = model->graph->param_count,
        .pool = model->engine->pool,
        .evaluate = evaluate,
        .context = &e,
    };
    int code = config->optimizer->closure->step(&closure, &first.evaluations, error);
    if (code)
        return code;
    for (int p = 0; p < model->graph->param_count; p++)
        if (gd_step_changes(&model->params[p])) {
            model->param_steps[p]++;
            model->params[p].version++;
        }
    gd_step_finish(model, config, &first);
    *result = first;
    return 0;
}

/* ---- its state, to read and to bring back ---------------------------------------------------------------
 */

static const gd_closure_optimizer *closure_of(const gd_model *model) {
    return model->optimizer.optimizer ? model->optimizer.optimizer->closure : NULL;
}

const char *gd_model_optimizer_slot(const gd_model *model, size_t parameter, size_t slot,
                                    const float **ret_values) {
    const gd_optimizer *optimizer = model->optimizer.optimizer;
    const gd_closure_optimizer *closure = closure_of(model);
    const char *name = NULL;
    *ret_values = NULL;
    if (closure) {
        name = closure->vector(model->optimizer.groups[0].attrs, model->state[GD_CLOSURE_STATE].data,
                               (int64_t)model->slab_floats, slot, ret_values);
    } else if (optimizer && slot < (size_t)optimizer->slot_count) {
        name = optimizer->slot_names[slot];
        *ret_values = model->state[slot].data;
    }
    if (*ret_values)
        *ret_values += model->offsets[parameter];
    return name;
}

int gd_model_set_optimizer_slot(gd_model *model, size_t parameter, size_t slot, const float *values,
                                gd_error *error) {
    const float *to;
    (void)gd_model_optimizer_slot(model, parameter, slot, &to);
    if (!to)
        return gd_fail(error, GD_E_NOT_FOUND, "the optimizer keeps no slot %zu of parameter '%s'", slot,
                       model->params[parameter].name);
    memcpy((float *)(uintptr_t)to, values, (size_t)model->params[parameter].numel * sizeof *to);
    return 0;
}

static bool find_number(const gd_model *model, size_t index, gd_closure_number *ret_number) {
    const gd_closure_optimizer *closure = closure_of(model);
    return closure && closure->number(model->optimizer.groups[0].attrs, model->state[GD_CLOSURE_STATE].data,
                                      (int64_t)model->slab_floats, index, ret_number);
}

const char *gd_model_optimizer_number(const gd_model *model, size_t index, double *ret_value) {
    gd_closure_number number;
    if (!find_number(model, index, &number))
        return NULL;
    *ret_value = *number.value;
    return number.name;
}

int gd_model_set_optimizer_number(gd_model *model, size_t index, double value, gd_error *error) {
    gd_closure_number number;
    if (!find_number(model, index, &number))
        return gd_fail(error, GD_E_NOT_FOUND, "the optimizer keeps no number %zu", index);
    if (number.most > 0 && !(value >= 0 && value <= number.most && value == floor(value)))
        return gd_fail_field(error, GD_E_VALUE, number.name,
                             "%s must be a whole number, 0 ... %.17g, not %.17g", number.name, number.most,
                             value);
    *number.value = value;
    return 0;
}
