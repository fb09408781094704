/* job_show.c -- a job as clients see it, and waiting for it to change. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "job.h"
#include "request.h"

static json_t *time_json(int64_t ms) {
    char text[GS_TIME_TEXT];
    return ms ? json_string(gs_time_text(ms, text)) : json_null();
}

static json_t *known(double value, bool is_known) {
    return is_known ? gp_json_number(value) : json_null();
}

static json_t *eval_json(const gs_position *p) {
    if (p->eval_step < 0) {
        return json_null();
    }
    json_t *json =
        json_pack("{s:I, s:o}", "step", (json_int_t)p->eval_step, "loss", gp_json_number(p->eval_loss));
    if (!isnan(p->eval_accuracy)) {
        json_object_set_new(json, "accuracy", gp_json_number(p->eval_accuracy));
    }
    return json;
}

static json_t *best_json(const gs_job *job) {
    const gs_position *p = &job->position;
    return isnan(p->best) ? json_null()
                          : json_pack("{s:s, s:o, s:I}", "metric", gs_job_metric_name(job->spec.metric),
                                      "value", gp_json_number(p->best), "step", (json_int_t)p->best_step);
}

/* Under the lock. */
static json_t *describe(const gs_job *job) {
    const gs_position *p = &job->position;
    const bool rated = gs_job_is_running(job) && job->steps_per_second > 0;
    const double left = (double)(p->total_steps - p->step);
    json_t *json = json_object();
    const struct {
        const char *name;
        json_t *value;
    } members[] = {
        {"id", json_integer((json_int_t)job->id)},
        {"state", json_string(gs_job_state_name(job->state))},
        {"model", json_string(job->spec.model)},
        {"dataset", json_string(job->spec.dataset)},
        {"epoch", json_integer((json_int_t)p->epoch)},
        {"epochs", job->spec.epochs ? json_integer((json_int_t)job->spec.epochs) : json_null()},
        {"step", json_integer((json_int_t)p->step)},
        {"total_steps", json_integer((json_int_t)p->total_steps)},
        {"first_model_step", json_integer((json_int_t)p->base + 1)},
        {"skipped_steps", json_integer((json_int_t)p->skipped)},
        {"loss", known(p->loss, p->step > p->skipped)},
        {"epoch_loss", known(p->epoch_loss, p->epoch > 0)},
        {"lr", known(p->lr, p->step > p->skipped)},
        {"eval", eval_json(p)},
        {"best", best_json(job)},
        {"stopped_early", json_boolean(p->stopped_early)},
        {"samples_per_second", known(job->samples_per_second, rated)},
        {"eta_seconds", known(left / job->steps_per_second, rated)},
        {"checkpoint_step", p->checkpoint_step < 0 ? json_null() : json_integer(p->checkpoint_step)},
        {"created_at", time_json(job->created_ms)},
        {"started_at", time_json(job->started_ms)},
        {"ended_at", time_json(gs_job_state_is_end(job->state) ? job->ended_ms : 0)},
        {"error",
         job->error && gs_job_state_is_end(job->state) ? json_loads(job->error, 0, NULL) : json_null()},
        {"storage_error", job->storage_error ? json_string(job->storage_error) : json_null()},
        {"spec", json_deep_copy(job->spec.json)},
    };
    bool failed = !json;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        failed |= json_object_set_new(json, members[i].name, members[i].value) != 0;
    }
    if (failed) {
        json_decref(json);
        return NULL;
    }
    return json;
}

/* Under the lock: "\"5f-j17-s4" is what ETags of one state begin with. */
static void state_tag(const gs_job *job, char *text, size_t size) {
    snprintf(text, size, "\"%" PRIx64 "-j%" PRId64 "-s%" PRIu64 "-", job->jobs->server->models.boot, job->id,
             job->changes);
}

json_t *gs_job_json(gs_job *job, char *etag) {
    pthread_mutex_lock(&job->jobs->lock);
    json_t *json = describe(job);
    if (etag) {
        const gs_position *p = &job->position;
        state_tag(job, etag, 64);
        const size_t used = strlen(etag);
        snprintf(etag + used, 96 - used, "%" PRId64 ".%" PRId64 "%s\"", p->step, p->eval_step,
                 job->storage_error ? "e" : "");
    }
    pthread_mutex_unlock(&job->jobs->lock);
    return json;
}

/* ---- waiting for a change
 * ---------------------------------------------------------------------------------------- */

/* Loop thread: its time is up, or the daemon's. */
static void unpark(gs_request *request) {
    gs_job *job = request->parked_on;
    pthread_mutex_lock(&job->jobs->lock);
    gs_request **at = &job->waiters;
    while (*at && *at != request) {
        at = &(*at)->next;
    }
    const bool found = *at;
    if (found) {
        *at = request->next;
    }
    pthread_mutex_unlock(&job->jobs->lock);
    if (found) {
        gs_executor_post(&job->jobs->server->executor, request);
    }
}

bool gs_job_wait(gs_job *job, gs_request *request, const char *known_tag, double seconds) {
    char tag[64];
    pthread_mutex_lock(&job->jobs->lock);
    state_tag(job, tag, sizeof tag);
    bool wait = !gs_job_state_is_end(job->state) && !request->server->draining &&
                (!known_tag || strstr(known_tag, tag));
    if (wait) {
        request->parked = true;
        request->parked_on = gs_job_ref(job);
        request->unpark = unpark;
        request->deadline_us = gs_clock_us() + (int64_t)(seconds * 1e6);
        request->next = job->waiters;
        job->waiters = request;
    }
    pthread_mutex_unlock(&job->jobs->lock);
    return wait;
}
