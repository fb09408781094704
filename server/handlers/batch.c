/* batch.c */
#include "batch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int gs_fail_run(gp_error *error, gd_error *cause) {
    cause->layer = -1; /* the request has no layers to point at; the message names the layer */
    return gp_fail_engine(error, cause, "");
}

/* A positive number, taken out of scalars. */
static int take_clip(json_t *scalars, const char *name, double *ret_value, gp_error *error) {
    const json_t *value = json_object_get(scalars, name);
    if (!value) {
        return 0;
    }
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number > 0)) {
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/%s", name);
        return gp_fail(error, GP_INVALID_VALUE, pointer, "%s must be a number above 0", name);
    }
    *ret_value = number;
    json_object_del(scalars, name);
    return 0;
}

int gs_options_read(json_t *scalars, gp_kind_spec *ret_memory, gd_step_options *ret_options,
                    gp_error *error) {
    gd_step_options options = {0};
    if (take_clip(scalars, "clip_grad_norm", &options.clip_grad_norm, error) ||
        take_clip(scalars, "clip_grad_value", &options.clip_grad_value, error)) {
        return -1;
    }
    if (json_object_get(scalars, "type")) {
        return gp_fail(error, GP_UNKNOWN_FIELD, "/type",
                       "a step cannot change the optimizer; PATCH the model");
    }
    if (json_object_get(scalars, "param_groups")) {
        return gp_fail(error, GP_UNKNOWN_FIELD, "/param_groups",
                       "a step cannot change the optimizer's groups; PATCH the model");
    }
    if (json_object_size(scalars)) {
        if (gp_kind_spec_read(scalars, "", false, ret_memory, error)) {
            return -1;
        }
        options.fields = ret_memory->spec.fields;
        options.field_count = ret_memory->spec.field_count;
    }
    *ret_options = options;
    return 0;
}

static int take_inputs(gs_request *request, gs_batch *batch, gp_error *error) {
    const gd_graph *graph = gd_model_graph(request->model->model);
    batch->input_count = gd_graph_input_count(graph);
    for (size_t i = 0; i < batch->input_count; i++) {
        if (gs_tensor_take(request, &batch->tensors.items[i], gd_graph_input(graph, i)->dtype,
                           &batch->inputs[i], &batch->input_hold, error)) {
            return -1;
        }
    }
    return 0;
}

static int missing_target(const char *name, size_t count, gp_error *error) {
    char pointer[GD_MAX_NAME + 32];
    snprintf(pointer, sizeof pointer, count > 1 ? "/target/%s" : "/target", name);
    return gp_fail(error, GP_MISSING_FIELD, pointer, "the tensor \"%s\" is missing",
                   count > 1 ? name : "target");
}

static int take_targets(gs_request *request, gs_batch *batch, gp_error *error) {
    const gd_model *model = request->model->model;
    const gs_tensor *given[GD_MAX_TERMS];
    gd_targets wanted;
    gd_error cause = GD_ERROR_INIT;
    if (gd_model_targets(model, batch->loss, &wanted, &cause)) {
        return gs_fail_run(error, &cause);
    }
    if (gs_tensors_parts(&batch->tensors, (const char(*)[GD_MAX_NAME])wanted.names, wanted.count, given,
                         error)) {
        return -1;
    }
    for (size_t i = 0; i < wanted.count; i++) {
        gd_dtype dtype;
        if (!given[i]) {
            return missing_target(wanted.names[i], wanted.count, error);
        }
        const gd_shape shape = gs_tensor_shape(given[i]);
        if (gd_model_target_dtype(model, batch->loss, i, &shape, &dtype, &cause)) {
            return gs_fail_run(error, &cause);
        }
        if (gs_tensor_take(request, given[i], dtype, &batch->targets[i], &batch->target_hold, error)) {
            return -1;
        }
    }
    return 0;
}

/* Which of several outputs the reply is to be. npy holds one tensor. */
static int take_output(gs_request *request, gs_batch *batch, gp_error *error) {
    const gd_graph *graph = gd_model_graph(request->model->model);
    const size_t count = gd_graph_output_count(graph);
    const json_t *name = json_object_get(batch->tensors.scalars, "output");
    for (size_t i = 0; i < count && json_string_value(name); i++) {
        if (!strcmp(gd_graph_output(graph, i)->name, json_string_value(name))) {
            batch->output = (int)i;
            return 0;
        }
    }
    if (name) {
        return gp_fail(error, GP_INVALID_VALUE, "/output", "output must be the name of one, such as \"%s\"",
                       gd_graph_output(graph, 0)->name);
    }
    if (count > 1 && request->accept == GS_MEDIA_NPY) {
        return gp_fail(error, GP_NOT_ACCEPTABLE, "",
                       "npy holds one tensor, but the network has %zu outputs; name one in \"output\", or "
                       "accept application/x-safetensors or application/json",
                       count);
    }
    return 0;
}

static int take_loss(gs_batch *batch, gp_error *error) {
    json_t *loss = json_object_get(batch->tensors.scalars, "loss");
    if (!loss) {
        return 0;
    }
    /* the spec borrows from the JSON it was read from, so that stays a member until the end */
    if (gp_loss_spec_read(loss, "/loss", &batch->loss_memory, error)) {
        return -1;
    }
    batch->loss = &batch->loss_memory.spec;
    return 0;
}

/* Only what counts: all of it is 20 kB. */
static void begin(gs_batch *batch) {
    batch->input_count = batch->input_hold.count = batch->target_hold.count = 0;
    batch->loss = NULL;
    batch->loss_memory = (gp_loss_spec){.memory = NULL};
    batch->option_memory = (gp_kind_spec){.memory = NULL};
    batch->options = (gd_step_options){.fields = NULL};
    batch->output = -1;
}

int gs_batch_read(gs_request *request, unsigned parts, gs_batch *ret_batch, gp_error *error) {
    gs_batch *batch = ret_batch;
    begin(batch);
    const gd_graph *graph = gd_model_graph(request->model->model);
    const char *names[GS_MAX_HELD];
    size_t count = 0;
    for (size_t i = 0; (parts & GS_BATCH_INPUT) && i < gd_graph_input_count(graph); i++) {
        names[count++] = gd_graph_input(graph, i)->name;
    }
    if (gs_tensors_read(request, names, count, parts & GS_BATCH_TARGET ? "target" : NULL, &batch->tensors,
                        error) ||
        ((parts & GS_BATCH_LOSS) && take_loss(batch, error))) {
        return -1;
    }
    json_t *scalars = batch->tensors.scalars;
    if (parts & GS_BATCH_OPTIONS) {
        json_t *loss = json_incref(json_object_get(scalars, "loss"));
        json_object_del(scalars, "loss");
        int result = gs_options_read(scalars, &batch->option_memory, &batch->options, error);
        if (loss && json_object_set_new(scalars, "loss", loss) &&
            !result) { /* what batch->loss borrows from */
            result = gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
        }
        if (result) {
            return -1;
        }
    } else if (gs_check_members(scalars,
                                parts & GS_BATCH_LOSS     ? "loss"
                                : parts & GS_BATCH_OUTPUT ? "output"
                                                          : "",
                                error)) {
        return -1;
    }
    if (((parts & GS_BATCH_INPUT) && take_inputs(request, batch, error)) ||
        ((parts & GS_BATCH_TARGET) && take_targets(request, batch, error)) ||
        ((parts & GS_BATCH_OUTPUT) && take_output(request, batch, error))) {
        return -1;
    }
    if ((parts & GS_BATCH_KEPT) && (gs_hosted_charge(request->model, &batch->input_hold, error) ||
                                    gs_hosted_charge(request->model, &batch->target_hold, error))) {
        return -1;
    }
    return 0;
}

void gs_batch_release(gs_batch *batch) {
    gs_hold_release(&batch->input_hold);
    gs_hold_release(&batch->target_hold);
    gp_loss_spec_release(&batch->loss_memory);
    gp_kind_spec_release(&batch->option_memory);
    gs_tensors_release(&batch->tensors);
}

static void move_hold(gs_hold *to, gs_hold *from) {
    gs_hold_release(to);
    *to = *from;
    from->count = 0;
}

void gs_batch_keep(gs_hosted *hosted, gs_batch *batch) {
    if (batch->input_hold.count) {
        move_hold(&hosted->inputs, &batch->input_hold);
    }
    move_hold(&hosted->target, &batch->target_hold);
}
