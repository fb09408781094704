/* runner.c -- one job's steps, evaluations and checkpoints, in its model's turn: a few milliseconds at a
 * time.
 *
 * Everything that decides what the next step is stands in gs_position, and with the model's state in each
 * checkpoint. So a run that goes on from one does what it would have done, bit for bit. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "definition.h"
#include "job.h"
#include "loader.h"
#include "request.h"

enum { PIECE_US = 2000 };

struct gs_run {
    gs_position at;
    void *order; /* the generator's state when the epoch of the last batch began; NULL: none, not shuffled */
    size_t order_size;
    gs_feed train, eval;
    gs_loader *loader; /* NULL: it rests */
    gs_rows eval_rows;
    struct { /* an evaluation on its way */
        bool on, classes;
        int64_t row;
        double loss, correct;
    } evaluation;
    struct { /* batches that make one step together */
        int64_t batches, samples, correct;
        double loss;
    } group;
    int64_t checkpoint_us; /* when the last one was taken */
    int64_t rate_us;       /* since when samples are counted */
    int64_t rate_samples, rate_steps;
    double samples_per_second, steps_per_second;
};

/* Stops what runs beside it. */
static void rest(gs_run *run) {
    gs_loader_free(run->loader);
    run->loader = NULL;
    gs_rows_release(&run->eval_rows);
    run->evaluation.on = false;
    run->rate_us = 0;
}

void gs_run_free(gs_run *run) {
    if (run) {
        rest(run);
        free(run->order);
        free(run);
    }
}

int gs_run_length(const gs_job_spec *spec, int64_t rows, int64_t *ret_steps, gp_error *error) {
    const int64_t batches = gs_loader_batches(rows, spec->batch_size, spec->drop_last);
    const int64_t steps = batches / spec->accumulate + (batches % spec->accumulate != 0);
    if (!batches) {
        return gp_fail(error, GP_INVALID_VALUE, "/batch_size",
                       "with drop_last, %" PRId64 " rows are less than one batch of %" PRId64, rows,
                       spec->batch_size);
    }
    *ret_steps = spec->steps ? spec->steps : spec->epochs * steps;
    return 0;
}

static void publish(gs_job *job) {
    gs_run *run = job->run;
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a job that publishes runs */
    gs_job_publish(job, &run->at, run->samples_per_second, run->steps_per_second);
}

/* ---- checkpoints ------------------------------------------------------------------------------------------
 */

/* One that is being written. */
typedef struct writing {
    gs_job *job;
    gs_job_state state; /* that it commits; GS_JOB_STATE_COUNT: none */
    int64_t step;
    bool counted;     /* in job->writing */
    int64_t before;   /* the step of the one before */
    char *definition; /* of the model, where that has changed; or NULL */
} writing;

static int write_along(gs_store *store, void *argument, gp_error *error) {
    writing *w = argument;
    pthread_mutex_lock(&w->job->jobs->lock);
    w->before = w->job->position.checkpoint_step;
    w->job->position.checkpoint_step = w->step;
    pthread_mutex_unlock(&w->job->jobs->lock);
    if (w->definition && gs_sql(store, error, "UPDATE models SET definition = ? WHERE id = ?", "si",
                                w->definition, w->job->model_id)) {
        return -1;
    }
    return gs_job_write(store, w->job, error);
}

/* On the store's thread. What could not be written stops nobody; only an end waits until it is: whoever had
 * the model next would have its steps stored, and a restart would take them once more. */
static void written(void *argument, const gs_checkpoint *checkpoint, const gp_error *error) {
    writing *w = argument;
    gs_job *job = w->job;
    gs_job_written(job, checkpoint != NULL);
    gs_job_storage(job, checkpoint ? NULL : error->detail);
    if (!checkpoint) {
        pthread_mutex_lock(&job->jobs->lock);
        job->position.checkpoint_step = w->before;
        pthread_mutex_unlock(&job->jobs->lock);
    }
    if (w->counted) {
        atomic_store(&job->writing, false);
    }
    if (w->state != GS_JOB_STATE_COUNT &&
        (checkpoint || !gs_job_state_is_end(w->state) || error->problem != GP_STORAGE_FAILED ||
         !gs_job_try_later(job, w->state))) {
        gs_job_settle(job, w->state);
    }
    gs_job_unref(job);
    free(w->definition);
    free(w);
}

/* Take one, and have it written. With `state` that is committed along, and then the job's. */
static void take_checkpoint(gs_job *job, gs_hosted *hosted, gs_checkpoint_kind kind, gs_job_state state) {
    gs_run *run = job->run;
    gs_snapshot *snapshot = NULL;
    gp_error error = {0};
    char *position = gs_position_text(&run->at);
    writing *w = malloc(sizeof *w);
    const gs_snapshot_spec spec = {.kind = kind,
                                   .job = job->id,
                                   .position = position,
                                   .order = run->order,
                                   .order_size = run->order_size,
                                   .metric = kind == GS_CHECKPOINT_BEST ? run->at.best : NAN,
                                   .keep = kind == GS_CHECKPOINT_BEST ? 1 : (int)job->spec.checkpoint_keep};
    int result = -1;
    if (w && position) {
        result = gs_snapshot_take(hosted, &spec, &snapshot, &error);
    } else {
        gp_fail(&error, GP_OUT_OF_MEMORY, "", "out of memory for a checkpoint");
    }
    free(position);
    if (result) {
        free(w);
        gs_job_storage(job, error.detail);
        if (state != GS_JOB_STATE_COUNT) {
            gs_job_settle(job, state);
        }
        return;
    }
    *w = (writing){.job = gs_job_ref(job), .state = state, .step = run->at.step};
    pthread_mutex_lock(&job->jobs->lock);
    w->before = job->position.checkpoint_step;
    pthread_mutex_unlock(&job->jobs->lock);
    w->counted = kind == GS_CHECKPOINT_AUTO && state == GS_JOB_STATE_COUNT;
    if (w->counted) {
        atomic_store(&job->writing, true);
    }
    w->definition = job->spec.scheduler ? strdup(hosted->definition) : NULL;
    if (kind == GS_CHECKPOINT_AUTO) {
        run->checkpoint_us = gs_clock_us();
        run->at.checkpoint_step = run->at.step;
    }
    gs_snapshot_add(snapshot, write_along, w);
    gs_snapshot_write(snapshot, written, w);
}

static bool checkpoint_is_due(const gs_job *job) {
    const gs_run *run = job->run;
    const gs_job_spec *spec = &job->spec;
    const bool by_steps = spec->checkpoint_steps && run->at.step % spec->checkpoint_steps == 0;
    const bool by_time = (double)(gs_clock_us() - run->checkpoint_us) >= spec->checkpoint_seconds * 1e6;
    return run->at.checkpoint_step != run->at.step && (by_steps || by_time) && !atomic_load(&job->writing);
}

/* ---- endings
 * ----------------------------------------------------------------------------------------------- */

/* With a checkpoint that commits the state too. */
static void end(gs_job *job, gs_hosted *hosted, gs_job_state state, const gp_error *error) {
    publish(job);
    rest(job->run);
    gs_job_want(job, state, error);
    gs_job_rest(job);
    take_checkpoint(job, hosted, GS_CHECKPOINT_AUTO, state);
}

static void fail(gs_job *job, gs_hosted *hosted, const gp_error *error) {
    publish(job);
    gs_job_log(job, "error", "", "%s", error->detail);
    end(job, hosted, GS_JOB_FAILED, error);
}

static void fail_engine(gs_job *job, gs_hosted *hosted, const gd_error *cause) {
    gp_error error = {0};
    gp_fail_engine(&error, cause, "");
    fail(job, hosted, &error);
}

/* ---- beginning
 * ----------------------------------------------------------------------------------------------- */

static int copy_order(gs_run *run, const void *order, size_t size) {
    void *copy = size ? malloc(size) : NULL;
    if (size && !copy) {
        return -1;
    }
    if (size) {
        memcpy(copy, order, size);
        free(run->order);
        run->order = copy;
        run->order_size = size;
    }
    return 0;
}

static int patch_scheduler(gs_job *job, gs_hosted *hosted, gp_error *error) {
    gp_scheduler_spec scheduler = {.memory = NULL};
    gd_error cause = GD_ERROR_INIT;
    if (!job->spec.scheduler) {
        return 0;
    }
    int result = gp_scheduler_spec_read(job->spec.scheduler, "/scheduler", &scheduler, error);
    const gd_model_patch patch = {.scheduler = &scheduler.spec};
    if (!result && gd_model_change(hosted->model, &patch, &cause)) {
        result = gp_fail_engine(error, &cause, "");
    }
    gp_scheduler_spec_release(&scheduler);
    json_t *change = result ? NULL : json_pack("{s:O}", "scheduler", job->spec.scheduler);
    char *definition = change ? gs_definition_patched(hosted->definition, change, true) : NULL;
    json_decref(change);
    if (!definition) {
        return result ? result : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    free(hosted->definition);
    hosted->definition = definition; /* with the job's first checkpoint it is in the store, too */
    return result;
}

/* The state that an earlier daemon left. *ret_found: it had come to take a checkpoint. */
static int restore(gs_job *job, gs_hosted *hosted, bool *ret_found, gp_error *error) {
    gs_restored restored;
    gs_run *run = job->run;
    const int64_t expected = job->position.checkpoint_step;
    gp_error why = {0};
    *ret_found = !gs_checkpoint_open(hosted, NULL, job->id, &restored, &why);
    if (!*ret_found && why.problem == GP_NOT_FOUND) {
        return expected < 0 ? 0
                            : gp_fail(error, GP_DAMAGED, "",
                                      "the job cannot go on after a restart, as no checkpoint of it is "
                                      "whole; the last one was of step %" PRId64,
                                      expected);
    }
    if (!*ret_found) {
        *error = why;
        return -1;
    }
    const gp_array *order = gp_safetensors_find(&restored.tensors, "job.order");
    int result = gs_position_read(restored.position, &run->at);
    if (result || (order && copy_order(run, order->data, order->size))) {
        result = gp_fail(error, GP_DAMAGED, "", "the job's last checkpoint does not say where it stood");
    } else {
        result = gs_checkpoint_load(hosted, &restored, error);
    }
    run->at.checkpoint_step = run->at.step;
    const bool damaged = restored.passed_over;
    gs_restored_release(&restored);
    if (result) {
        return -1;
    }
    pthread_mutex_lock(&job->jobs->lock);
    job->position = run->at;
    gs_job_events_cut(job);
    pthread_mutex_unlock(&job->jobs->lock);
    gs_job_log(job, "info", "", "goes on after step %" PRId64 ", from its last checkpoint", run->at.step);
    if (damaged) {
        gs_job_log(job, "warning", "",
                   "the checkpoint of step %" PRId64 " is damaged: the one before it was taken", expected);
    }
    return 0;
}

/* Data, and a thread that makes batches of it. */
static int connect(gs_job *job, gs_hosted *hosted, gp_error *error) {
    gs_run *run = job->run;
    const gs_job_spec *spec = &job->spec;
    const int64_t rows = spec->batch_size;
    if (gs_feed_init(&run->train, hosted, job->dataset, spec->split, &spec->transform, error) ||
        gs_run_length(spec, run->train.count, &run->at.total_steps, error)) {
        return -1;
    }
    if (*spec->eval_split &&
        (gs_feed_init(&run->eval, hosted, job->dataset, spec->eval_split, &spec->transform, error) ||
         gs_rows_init(&run->eval_rows, &run->eval, rows < run->eval.count ? rows : run->eval.count, error))) {
        return -1;
    }
    /* Between two epochs run->order is still where the one before began: shuffle that again, and go on. */
    const bool between = !run->at.batch && run->at.epoch > 0;
    const gs_loader_spec loader = {
        .feed = &run->train,
        .batch_size = spec->batch_size,
        .shuffle = spec->shuffle,
        .drop_last = spec->drop_last,
        .seed = (uint64_t)spec->seed,
        .epoch = run->at.epoch - between,
        .batch = between ? gs_loader_batches(run->train.count, rows, spec->drop_last) : run->at.batch,
        .order = run->order,
        .order_size = run->order_size,
        .ready = (void (*)(void *))gs_queue_kick,
        .argument = &hosted->queue};
    return gs_loader_new(&loader, &run->loader, error);
}

/* Begin, go on after a pause, or after a restart. */
static int start(gs_job *job, gs_hosted *hosted, gp_error *error) {
    const bool fresh = !job->run;
    bool again = false;
    if (fresh) {
        gs_run *run = calloc(1, sizeof *run);
        if (!run) {
            return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
        }
        run->at = job->position;
        job->run = run;
        if ((job->revived && restore(job, hosted, &again, error)) ||
            (!again && patch_scheduler(job, hosted, error))) {
            return -1;
        }
        if (!again) {
            run->at.base = gd_model_steps(hosted->model);
        }
    }
    if (connect(job, hosted, error)) {
        return -1;
    }
    hosted->last_step_us = 0;
    hosted->began = job->id;
    if (fresh) {
        publish(job);
        take_checkpoint(job, hosted, GS_CHECKPOINT_AUTO, GS_JOB_STATE_COUNT);
    }
    return 0;
}

/* ---- evaluation
 * ---------------------------------------------------------------------------------------------- */

/* Is a value of the metric better than the best so far? */
static bool improves(const gs_job *job, double value) {
    const double best = job->run->at.best, delta = job->spec.min_delta;
    return !isnan(value) &&
           (isnan(best) ||
            (job->spec.metric == GS_METRIC_EVAL_ACCURACY ? value > best + delta : value < best - delta));
}

/* The metric has a new value. */
static void judge(gs_job *job, gs_hosted *hosted, double value) {
    gs_position *at = &job->run->at;
    if (improves(job, value)) {
        at->best = value;
        at->best_step = at->step;
        at->waited = 0;
        publish(job);
        if (job->spec.metric != GS_METRIC_LOSS) {
            take_checkpoint(job, hosted, GS_CHECKPOINT_BEST, GS_JOB_STATE_COUNT);
        }
        return;
    }
    at->waited++;
    if (job->spec.patience && at->waited >= job->spec.patience) {
        at->stopped_early = 1;
        gs_job_log(job, "info", "", "stopped early: %s is no better than %g since %" PRId64 " evaluations",
                   gs_job_metric_name(job->spec.metric), at->best, at->waited);
    }
}

static void record_evaluation(gs_job *job, gs_hosted *hosted) {
    const gs_position *at = &job->run->at;
    const int64_t step = gd_model_steps(hosted->model), now = gs_time_ms();
    const gs_value values[] = {{"eval_loss", step, now, at->eval_loss},
                               {"eval_accuracy", step, now, at->eval_accuracy}};
    size_t bad;
    gp_error error = {0};
    /* after a restart an evaluation may come again, the same */
    if (gs_history_last_step(&hosted->history, "eval_loss") < step) {
        gs_history_put(&hosted->history, values, isnan(at->eval_accuracy) ? 1 : 2, &bad, &error);
    }
    gp_text extra = {0};
    gp_text_add(&extra, ",\"eval\":{\"loss\":");
    gp_json_write_number(&extra, at->eval_loss, 9);
    if (!isnan(at->eval_accuracy)) {
        gp_text_add(&extra, ",\"accuracy\":");
        gp_json_write_number(&extra, at->eval_accuracy, 9);
    }
    gp_text_add(&extra, "}");
    publish(job);
    gs_job_log(job, "info", extra.failed ? "" : extra.data, "evaluated on %s: loss %.6g",
               job->spec.eval_split, at->eval_loss);
    gp_text_release(&extra);
}

static void finish_evaluation(gs_job *job, gs_hosted *hosted) {
    gs_run *run = job->run;
    gs_position *at = &run->at;
    const double rows = (double)run->eval.count;
    run->evaluation.on = false;
    at->evaluate = 0;
    at->eval_step = at->step;
    at->eval_loss = run->evaluation.loss / rows;
    at->eval_accuracy = run->evaluation.classes ? run->evaluation.correct / rows : NAN;
    record_evaluation(job, hosted);
    if (job->spec.metric != GS_METRIC_LOSS) {
        judge(job, hosted, job->spec.metric == GS_METRIC_EVAL_LOSS ? at->eval_loss : at->eval_accuracy);
    }
}

/* A batch of it. @return false: the job has failed */
static bool evaluate(gs_job *job, gs_hosted *hosted) {
    gs_run *run = job->run;
    gd_step_result result;
    gd_error cause = GD_ERROR_INIT;
    if (!run->evaluation.on) {
        memset(&run->evaluation, 0, sizeof run->evaluation);
        run->evaluation.on = run->evaluation.classes = true;
    }
    const int64_t left = run->eval.count - run->evaluation.row,
                  rows = left < job->spec.batch_size ? left : job->spec.batch_size;
    gs_feed_take(&run->eval, NULL, run->evaluation.row, rows, 0, false, &run->eval_rows);
    if (gd_model_evaluate(hosted->model, &run->eval_rows.input, 1, &run->eval_rows.target, &result, &cause)) {
        fail_engine(job, hosted, &cause);
        return false;
    }
    run->evaluation.loss += result.loss * (double)rows;
    run->evaluation.correct += (double)result.correct;
    run->evaluation.classes = run->evaluation.classes && result.correct >= 0;
    run->evaluation.row += rows;
    if (run->evaluation.row == run->eval.count) {
        finish_evaluation(job, hosted);
    }
    return true;
}

/* ---- steps
 * ------------------------------------------------------------------------------------------------------ */

/* One that goes by epochs goes on. It may want a metric: the evaluation's loss, if there are any. */
static int advance_scheduler(gs_job *job, gs_hosted *hosted, gd_error *error) {
    const gs_position *at = &job->run->at;
    const double metric = at->eval_step >= 0 ? at->eval_loss : at->epoch_loss;
    gd_error cause = GD_ERROR_INIT;
    if (!gd_model_scheduler(hosted->model)) {
        return 0;
    }
    int code = gd_model_scheduler_step(hosted->model, NULL, &cause);
    if (code == GD_E_VALUE && !strcmp(cause.field, "metric")) {
        cause = (gd_error)GD_ERROR_INIT;
        code = gd_model_scheduler_step(hosted->model, &metric, &cause);
    }
    if (code && code != GD_E_STATE) { /* GD_E_STATE: it goes by steps, or its cycle is over */
        *error = cause;
        return code;
    }
    return 0;
}

/* @return false: the job has failed */
static bool end_epoch(gs_job *job, gs_hosted *hosted) {
    gs_position *at = &job->run->at;
    gd_error cause = GD_ERROR_INIT;
    at->epoch_ends = 0;
    at->epoch_loss = at->epoch_count ? at->epoch_sum / (double)at->epoch_count : NAN;
    at->epoch_sum = 0;
    at->epoch_count = 0;
    at->epoch++;
    at->batch = 0;
    if (advance_scheduler(job, hosted, &cause)) {
        fail_engine(job, hosted, &cause);
        return false;
    }
    publish(job);
    gs_job_log(job, "info", "", "epoch %" PRId64 ": mean training loss %.9g", at->epoch, at->epoch_loss);
    if (job->spec.metric == GS_METRIC_LOSS) {
        judge(job, hosted, at->epoch_loss);
    }
    return true;
}

/* What follows a step, by where it is. */
static void plan(gs_job *job, bool epoch_ends) {
    const gs_job_spec *spec = &job->spec;
    gs_position *at = &job->run->at;
    at->epoch_ends = epoch_ends;
    at->evaluate =
        *spec->eval_split && ((spec->eval_steps && at->step % spec->eval_steps == 0) ||
                              (spec->eval_epochs && epoch_ends && (at->epoch + 1) % spec->eval_epochs == 0) ||
                              at->step == at->total_steps);
}

/* The mean of a group's gradients, in place of their sum. */
static void average_gradients(gd_model *model, int64_t batches) {
    const float factor = 1.0f / (float)batches;
    for (size_t i = 0; i < gd_model_parameter_count(model) && batches > 1; i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        for (int64_t k = 0; parameter->has_grad && k < parameter->numel; k++) {
            parameter->grad[k] *= factor;
        }
    }
}

/* One batch of several that make a step. @return as step_on(); 1: more batches belong to it */
static int accumulate(gs_job *job, gd_model *model, const gs_loaded *batch, const gd_step_options *options,
                      gd_step_result *result, gd_error *error) {
    gs_run *run = job->run;
    if (!run->group.batches) {
        memset(&run->group, 0, sizeof run->group);
        gd_model_zero_grad(model);
    }
    int code =
        gd_model_forward_backward(model, &batch->rows.input, 1, &batch->rows.target, NULL, result, error);
    if (code) {
        return code;
    }
    run->group.batches++;
    run->group.samples += result->count;
    run->group.loss += result->loss * (double)result->count;
    run->group.correct += result->correct;
    if (run->group.batches < job->spec.accumulate && !batch->last) {
        return 1;
    }
    const gd_step_result sum = {.loss = run->group.loss / (double)run->group.samples,
                                .count = run->group.samples,
                                .correct = result->correct < 0 ? -1 : run->group.correct};
    average_gradients(model, run->group.batches);
    run->group.batches = 0;
    if (options->only_finite && !isfinite(sum.loss)) {
        *result = sum;
        result->skipped = true;
        return 0;
    }
    code = gd_model_step(model, options, result, error);
    result->loss = sum.loss;
    result->count = sum.count;
    result->correct = sum.correct;
    return code;
}

/* A step whose loss or gradients are not finite: not taken, but by an optimizer that evaluates the loss
 * itself (LBFGS). @return false: the job has failed */
static bool mind_nonfinite(gs_job *job, gs_hosted *hosted, const gd_step_result *result) {
    gs_position *at = &job->run->at;
    gp_error error = {0};
    if (job->spec.on_nonfinite == GS_NONFINITE_SKIP) {
        at->skipped++;
        publish(job);
        gs_job_log(job, "warning", "", "step %" PRId64 " was skipped: its loss is %g, its gradients' norm %g",
                   at->step, result->loss, result->grad_norm);
        return true;
    }
    gp_fail(&error, GP_NOT_FINITE, "",
            "at step %" PRId64
            " the loss is %g and the gradients' norm %g: training has diverged. The step was %s; "
            "try a smaller learning rate, or clip_grad_norm",
            at->step, result->loss, result->grad_norm,
            result->skipped ? "not taken: the model is as after the step before it" : "taken");
    at->step -= result->skipped;
    fail(job, hosted, &error);
    return false;
}

static void count_rate(gs_run *run, int64_t samples, int64_t now) {
    enum { WINDOW_US = 500000 };
    if (!run->rate_us) {
        run->rate_us = now;
        run->rate_samples = run->rate_steps = 0;
        return;
    }
    run->rate_samples += samples;
    run->rate_steps++;
    const double seconds = (double)(now - run->rate_us) / 1e6;
    if (now - run->rate_us < WINDOW_US && run->samples_per_second > 0) {
        return;
    }
    const double share = run->samples_per_second > 0 ? 0.3 : 1; /* of what is new */
    run->samples_per_second += share * ((double)run->rate_samples / seconds - run->samples_per_second);
    run->steps_per_second += share * ((double)run->rate_steps / seconds - run->steps_per_second);
    if (now - run->rate_us >= WINDOW_US) {
        run->rate_us = now;
        run->rate_samples = run->rate_steps = 0;
    }
}

/* @return true: there may be more to do now */
static bool step(gs_job *job, gs_hosted *hosted) {
    gs_run *run = job->run;
    gs_position *at = &run->at;
    const gs_job_spec *spec = &job->spec;
    const gs_loaded *batch = gs_loader_peek(run->loader);
    const gd_step_options options = {.clip_grad_norm = spec->clip_grad_norm,
                                     .clip_grad_value = spec->clip_grad_value,
                                     .only_finite = spec->on_nonfinite != GS_NONFINITE_CONTINUE};
    gd_step_result result = {.correct = -1};
    gd_error cause = GD_ERROR_INIT;
    if (!batch) {
        return false; /* the loader kicks */
    }
    const int64_t began = gs_clock_us();
    if (!batch->batch) {
        copy_order(run, batch->order, batch->order_size);
    }
    int code = spec->accumulate > 1
                   ? accumulate(job, hosted->model, batch, &options, &result, &cause)
                   : gd_model_train_step(hosted->model, &batch->rows.input, 1, &batch->rows.target, NULL,
                                         &options, &result, &cause);
    const bool epoch_ends = batch->last;
    gs_loader_pop(run->loader);
    if (code < 0) {
        fail_engine(job, hosted, &cause);
        return false;
    }
    at->batch++;
    if (code > 0) {
        return true;
    }
    const int64_t now = gs_clock_us();
    at->step++;
    if (!result.skipped) {
        at->epoch_sum += result.loss * (double)result.count;
        at->epoch_count += result.count;
        at->loss = result.loss;
        at->lr = result.lr;
        hosted->last_loss = result.loss;
        gs_hosted_record(hosted, &result);
        gs_metrics_step(&job->jobs->server->metrics, result.count, now - began);
    }
    const bool finite = isfinite(result.loss) && isfinite(result.grad_norm);
    if (options.only_finite && !finite && !mind_nonfinite(job, hosted, &result)) {
        return false;
    }
    count_rate(run, result.count, now);
    plan(job, epoch_ends);
    return true;
}

/* ---- what to do next
 * ----------------------------------------------------------------------------------------------- */

/* @return true: there may be more to do now */
static bool advance(gs_job *job, gs_hosted *hosted) {
    gs_run *run = job->run;
    bool draining;
    const gs_job_state state = gs_job_look(job, &draining);
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a job that advances runs */
    if (run->group.batches && state != GS_JOB_CANCELLING) {
        return step(job, hosted); /* a step that has begun is ended first */
    }
    if (state == GS_JOB_CANCELLING) {
        end(job, hosted, GS_JOB_CANCELLED, NULL);
        return false;
    }
    if (state == GS_JOB_PAUSING || draining) {
        publish(job);
        rest(run);
        if (state == GS_JOB_PAUSING) {
            gs_job_want(job, GS_JOB_PAUSED, NULL);
        }
        gs_job_rest(job);
        take_checkpoint(job, hosted, GS_CHECKPOINT_AUTO,
                        state == GS_JOB_PAUSING ? GS_JOB_PAUSED : GS_JOB_STATE_COUNT);
        return false;
    }
    if (run->at.evaluate) {
        return evaluate(job, hosted);
    }
    if (run->at.epoch_ends) {
        return end_epoch(job, hosted);
    }
    if (run->at.step >= run->at.total_steps || run->at.stopped_early) {
        end(job, hosted, GS_JOB_SUCCEEDED, NULL);
        return false;
    }
    if (checkpoint_is_due(job)) {
        publish(job);
        take_checkpoint(job, hosted, GS_CHECKPOINT_AUTO, GS_JOB_STATE_COUNT);
    }
    return step(job, hosted);
}

/* It could not even begin. */
static void fail_start(gs_job *job, gs_hosted *hosted, const gp_error *error) {
    if (job->run) {
        rest(job->run);
    }
    gs_job_log(job, "error", "", "%s", error->detail);
    gs_job_want(job, GS_JOB_FAILED, error);
    gs_job_rest(job);
    (void)hosted;
    gs_job_settle(job, GS_JOB_FAILED);
}

bool gs_runner_piece(void *argument) {
    gs_job *job = gs_job_ref(argument);
    gs_hosted *hosted = job->hosted; /* the queue holds it during its turn */
    if (!hosted) {                   /* the job has ended before this turn came */
        gs_job_unref(job);
        return false;
    }
    const int64_t until = gs_clock_us() + PIECE_US;
    bool more = true, draining;
    gp_error error = {0};
    const gs_job_state unwritten = gs_job_take_unwritten(job);
    if (unwritten != GS_JOB_STATE_COUNT) {
        const bool cancelled = gs_job_look(job, &draining) == GS_JOB_CANCELLING;
        end(job, hosted, cancelled ? GS_JOB_CANCELLED : unwritten, NULL);
        more = false;
    } else if ((!job->run || !job->run->loader) && start(job, hosted, &error)) {
        fail_start(job, hosted, &error);
        more = false;
    } else {
        while (more && gs_clock_us() < until) {
            more = advance(job, hosted);
        }
        publish(job);
    }
    gd_model_forget(hosted->model); /* what it read in place is the loader's, or gone */
    gs_hold_release(&hosted->inputs);
    gs_hold_release(&hosted->target);
    gs_hosted_publish(hosted);
    gs_job_unref(job);
    return more;
}
