/* train.c -- forward, loss, backward, step, and their combinations. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "batch.h"
#include "handlers.h"

/* ---- writing results ------------------------------------------------------------------------------- */

/* "name": behind `before`; not by printf, whose code is not in the cache after a step. */
static void add_name(gp_text *text, char before, const char *name) {
    const char open[] = {before, '"'};
    gp_text_append(text, open, sizeof open);
    gp_text_append(text, name, strlen(name));
    gp_text_append(text, "\":", 2);
}

static void add_number(gp_text *text, const char *name, double value) {
    add_name(text, text->size ? ',' : '{', name);
    gp_json_write_number(text, value, 9);
}

static void add_integer(gp_text *text, const char *name, int64_t value) {
    add_name(text, text->size ? ',' : '{', name);
    gp_json_write_integer(text, value);
}

static void add_counts(gp_text *text, const gd_step_result *result) {
    if (result->correct >= 0) {
        add_integer(text, "correct", result->correct);
    }
    add_integer(text, "count", result->count);
}

/* ,"losses":[...] of several terms */
static void add_losses(gp_text *text, const double *losses, size_t count) {
    for (size_t i = 0; i < count && count > 1; i++) {
        gp_text_add(text, "%s", i ? "," : ",\"losses\":[");
        gp_json_write_number(text, losses[i], 9);
    }
    gp_text_append(text, "]", count > 1);
}

static int reply_record(gs_request *request, gp_text *text, gp_error *error) {
    gp_text_append(text, "}", 1);
    return gs_reply_text(request, 200, GS_MEDIA_JSON, text, error);
}

/* ,"grad_fn":"AddmmBackward0" */
static void grad_fn_member(const char *grad_fn, char *text, size_t size) {
    if (grad_fn && *grad_fn) {
        snprintf(text, size, ",\"grad_fn\":\"%s\"", grad_fn);
    } else {
        snprintf(text, size, ",\"grad_fn\":null");
    }
}

/* The same of the outputs that are shown: by name where they are several. */
static void grad_fns_member(const gd_model *model, int output, gp_text *text) {
    const gd_graph *graph = gd_model_graph(model);
    const size_t count = gd_graph_output_count(graph);
    char member[96];
    if (count == 1 || output >= 0) {
        grad_fn_member(gd_model_output_grad_fn(model, output < 0 ? 0 : (size_t)output), member,
                       sizeof member);
        gp_text_add(text, "%s", member);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = gd_model_output_grad_fn(model, i);
        gp_text_add(text, "%s", i ? "," : ",\"grad_fn\":{");
        gp_json_write_string(text, gd_graph_output(graph, i)->name);
        gp_text_add(text, *name ? ":\"%s\"" : ":null%s", name);
    }
    gp_text_append(text, "}", 1);
}

static int reply_outputs(gs_request *request, const gs_batch *batch, const gd_tensor *outputs,
                         const char *extra, gp_error *error) {
    return batch->output < 0
               ? gs_reply_outputs(request, gd_model_graph(request->model->model), outputs, extra, error)
               : gs_reply_tensor(request, "output", &outputs[batch->output], extra, error);
}

/* ,"timing_us":{...}: where a request's time went; it was read at `parsed` and done at `computed`. */
static void add_timing(gp_text *text, const gs_request *request, int64_t parsed, int64_t computed) {
    const struct {
        const char *name;
        int64_t us;
    } parts[] = {
        {"parse", parsed - request->started_us},
        {"queue", request->started_us - request->queued_us},
        {"compute", computed - parsed},
        {"encode", gs_clock_us() - computed},
    };
    add_name(text, ',', "timing_us");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        add_name(text, i ? ',' : '{', parts[i].name);
        gp_json_write_integer(text, parts[i].us);
    }
    gp_text_append(text, "}", 1);
}

/* A step was taken, in so many microseconds. */
static void record_step(gs_request *request, const gd_step_result *result, int64_t took_us) {
    gs_hosted_record(request->model, result);
    gs_metrics_step(&request->server->metrics, result->count, took_us);
}

/* ---- handlers -------------------------------------------------------------------------------------- */

int gs_handle_forward(gs_request *request, gp_error *error) {
    gs_hosted *hosted = request->model;
    gs_batch batch;
    gd_tensor outputs[GD_MAX_HEADS];
    gd_error cause = GD_ERROR_INIT;
    gp_text grad_fns = {0};
    int result = gs_batch_read(request, GS_BATCH_INPUT | GS_BATCH_OUTPUT | GS_BATCH_KEPT, &batch, error);
    if (result) {
        goto out;
    }
    result = gd_model_forward(hosted->model, batch.inputs, batch.input_count, outputs, &cause);
    if (result) {
        gs_fail_run(error, &cause);
        goto out;
    }
    gs_batch_keep(hosted, &batch);
    const char *grad_fn = gd_model_output_grad_fn(hosted->model, batch.output < 0 ? 0 : (size_t)batch.output);
    request->reply.grad_fn = *grad_fn ? grad_fn : NULL;
    grad_fns_member(hosted->model, batch.output, &grad_fns);
    result = grad_fns.failed ? gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the reply")
                             : reply_outputs(request, &batch, outputs, grad_fns.data, error);
out:
    gp_text_release(&grad_fns);
    gs_batch_release(&batch);
    return result ? -1 : 0;
}

int gs_handle_loss(gs_request *request, gp_error *error) {
    gs_hosted *hosted = request->model;
    gs_batch batch;
    gd_tensor loss;
    gd_error cause = GD_ERROR_INIT;
    gp_text text = {0};
    char extra[96];
    double losses[GD_MAX_TERMS];
    int result = gs_batch_read(request, GS_BATCH_TARGET | GS_BATCH_LOSS | GS_BATCH_KEPT, &batch, error);
    if (result) {
        goto out;
    }
    result = gd_model_loss(hosted->model, batch.targets, batch.loss, &loss, &cause);
    if (result) {
        gs_fail_run(error, &cause);
        goto out;
    }
    gs_batch_keep(hosted, &batch);
    grad_fn_member(gd_model_loss_grad_fn(hosted->model), extra, sizeof extra);
    if (loss.shape.rank == 0) {
        hosted->last_loss = *(const float *)loss.data;
        add_number(&text, "loss", hosted->last_loss);
        add_losses(&text, losses, gd_model_loss_values(hosted->model, losses));
    } else { /* reduction "none" */
        hosted->last_loss = NAN;
        gp_text_add(&text, "{\"loss\":");
        gp_json_write_tensor(&text, &loss);
    }
    gp_text_add(&text, "%s", extra);
    result = reply_record(request, &text, error);
out:
    gs_batch_release(&batch);
    return result ? -1 : 0;
}

/* {"gradient": T}, or of several outputs {"gradient": {"logits": T, ...}}; *ret_given: any at all. */
static int take_gradients(gs_request *request, const gs_tensors *tensors, gd_tensor *gradients, gs_hold *hold,
                          bool *ret_given, gp_error *error) {
    const gd_graph *graph = gd_model_graph(request->model->model);
    const size_t count = gd_graph_output_count(graph);
    const gs_tensor *given[GD_MAX_HEADS];
    char names[GD_MAX_HEADS][GD_MAX_NAME];
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], GD_MAX_NAME, "%s", gd_graph_output(graph, i)->name);
    }
    int result = gs_tensors_parts(tensors, (const char(*)[GD_MAX_NAME])names, count, given, error);
    *ret_given = false;
    for (size_t i = 0; i < count && !result; i++) {
        gradients[i].data = NULL;
        if (given[i]) {
            *ret_given = true;
            result = gs_tensor_take(request, given[i], GD_FLOAT32, &gradients[i], hold, error);
        }
    }
    return result;
}

int gs_handle_backward(gs_request *request, gp_error *error) {
    gd_model *model = request->model->model;
    gs_tensors tensors;
    gs_hold hold = {.count = 0};
    gd_tensor gradients[GD_MAX_HEADS];
    gd_error cause = GD_ERROR_INIT;
    gp_text text = {0};
    bool given;
    int result = gs_tensors_read(request, NULL, 0, "gradient", &tensors, error);
    if (result || (result = gs_check_members(tensors.scalars, "retain_graph", error))) {
        goto out;
    }
    const json_t *retain = json_object_get(tensors.scalars, "retain_graph");
    if (retain && !json_is_boolean(retain)) {
        result = gp_fail(error, GP_INVALID_VALUE, "/retain_graph", "retain_graph must be true or false");
        goto out;
    }
    if ((result = take_gradients(request, &tensors, gradients, &hold, &given, error))) {
        goto out;
    }
    result = gd_model_backward(model, given ? gradients : NULL, json_is_true(retain), &cause);
    if (result) {
        gs_fail_run(error, &cause);
        goto out;
    }
    add_number(&text, "grad_norm", gd_model_grad_norm(model));
    result = reply_record(request, &text, error);
out:
    gs_hold_release(&hold);
    gs_tensors_release(&tensors);
    return result ? -1 : 0;
}

int gs_handle_zero_grad(gs_request *request, gp_error *error) {
    json_t *body = NULL;
    int result = gs_body_json(request, &body, error);
    if (!result && !(result = gs_check_members(body, "", error))) {
        gd_model_zero_grad(request->model->model);
        result = gs_reply_json(request, 200, json_object(), error);
    }
    json_decref(body);
    return result;
}

int gs_handle_step(gs_request *request, gp_error *error) {
    gs_tensors scalars;
    gp_kind_spec memory = {0};
    gd_step_options options;
    gd_step_result done;
    gd_error cause = GD_ERROR_INIT;
    gp_text text = {0};
    int result = gs_tensors_read(request, NULL, 0, NULL, &scalars, error);
    if (result || (result = gs_options_read(scalars.scalars, &memory, &options, error))) {
        goto out;
    }
    const int64_t parsed = gs_clock_us();
    result = gd_model_step(request->model->model, &options, &done, &cause);
    if (result) {
        gs_fail_run(error, &cause);
        goto out;
    }
    done.loss = request->model->last_loss;
    done.correct = -1;
    done.count = 0;
    record_step(request, &done, gs_clock_us() - parsed);
    add_integer(&text, "step", done.step);
    add_number(&text, "lr", done.lr);
    add_number(&text, "grad_norm", done.grad_norm);
    result = reply_record(request, &text, error);
out:
    gp_kind_spec_release(&memory);
    gs_tensors_release(&scalars);
    return result ? -1 : 0;
}

int gs_handle_forward_backward(gs_request *request, gp_error *error) {
    gs_batch batch;
    gd_step_result done;
    gd_error cause = GD_ERROR_INIT;
    gp_text text = {0};
    int result = gs_batch_read(request, GS_BATCH_INPUT | GS_BATCH_TARGET | GS_BATCH_LOSS | GS_BATCH_KEPT,
                               &batch, error);
    if (result) {
        goto out;
    }
    result = gd_model_forward_backward(request->model->model, batch.inputs, batch.input_count, batch.targets,
                                       batch.loss, &done, &cause);
    if (result) {
        gs_fail_run(error, &cause);
        goto out;
    }
    gs_batch_keep(request->model, &batch);
    request->model->last_loss = done.loss;
    add_number(&text, "loss", done.loss);
    add_losses(&text, done.losses, done.loss_count);
    add_number(&text, "grad_norm", done.grad_norm);
    add_counts(&text, &done);
    result = reply_record(request, &text, error);
out:
    gs_batch_release(&batch);
    return result ? -1 : 0;
}

int gs_handle_train_step(gs_request *request, gp_error *error) {
    gs_batch batch;
    gd_step_result done;
    gd_error cause = GD_ERROR_INIT;
    gp_text text = {0};
    int result = gs_batch_read(
        request, GS_BATCH_INPUT | GS_BATCH_TARGET | GS_BATCH_LOSS | GS_BATCH_OPTIONS | GS_BATCH_KEPT, &batch,
        error);
    if (result) {
        goto out;
    }
    int64_t parsed = gs_clock_us();
    result = gd_model_train_step(request->model->model, batch.inputs, batch.input_count, batch.targets,
                                 batch.loss, &batch.options, &done, &cause);
    if (result) {
        gs_fail_run(error, &cause);
        goto out;
    }
    int64_t computed = gs_clock_us();
    gs_batch_keep(request->model, &batch);
    request->model->last_loss = done.loss;
    record_step(request, &done, computed - parsed);
    add_integer(&text, "step", done.step);
    add_number(&text, "loss", done.loss);
    add_losses(&text, done.losses, done.loss_count);
    add_number(&text, "lr", done.lr);
    add_number(&text, "grad_norm", done.grad_norm);
    add_counts(&text, &done);
    if (done.evaluations) {
        add_integer(&text, "evaluations", done.evaluations);
    }
    add_timing(&text, request, parsed, computed);
    result = reply_record(request, &text, error);
out:
    gs_batch_release(&batch);
    return result ? -1 : 0;
}

int gs_handle_predict(gs_request *request, gp_error *error) {
    gs_batch batch;
    gd_tensor outputs[GD_MAX_HEADS];
    gd_error cause = GD_ERROR_INIT;
    int result = gs_batch_read(request, GS_BATCH_INPUT | GS_BATCH_OUTPUT, &batch, error);
    if (result) {
        goto out;
    }
    result = gd_model_predict(request->model->model, batch.inputs, batch.input_count, outputs, &cause);
    result = result ? gs_fail_run(error, &cause) : reply_outputs(request, &batch, outputs, "", error);
out:
    gs_batch_release(&batch);
    return result ? -1 : 0;
}

int gs_handle_evaluate(gs_request *request, gp_error *error) {
    gs_batch batch;
    gd_step_result done;
    gd_error cause = GD_ERROR_INIT;
    gp_text text = {0};
    int result = gs_batch_read(request, GS_BATCH_INPUT | GS_BATCH_TARGET, &batch, error);
    if (result) {
        goto out;
    }
    result = gd_model_evaluate(request->model->model, batch.inputs, batch.input_count, batch.targets, &done,
                               &cause);
    if (result) {
        gs_fail_run(error, &cause);
        goto out;
    }
    add_number(&text, "loss", done.loss);
    add_losses(&text, done.losses, done.loss_count);
    if (done.correct >= 0 && done.count > 0) {
        add_number(&text, "accuracy", (double)done.correct / (double)done.count);
    }
    add_counts(&text, &done);
    result = reply_record(request, &text, error);
out:
    gs_batch_release(&batch);
    return result ? -1 : 0;
}
