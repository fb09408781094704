/* jobs.c -- the table of jobs: who runs, who waits, what becomes of whom. */
#include "job.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "feed.h"
#include "loop.h"
#include "request.h"

enum { KEPT = 1000 /* jobs that have ended */ };

static const struct {
    const char *name;
    bool is_end;
} states[] = {
#define X(state, name, is_end) {name, is_end},
    GS_JOB_STATES(X)
#undef X
};

const char *gs_job_state_name(gs_job_state state) {
    return states[state].name;
}

bool gs_job_state_is_end(gs_job_state state) {
    return states[state].is_end;
}

gs_job_state gs_job_state_find(const char *name) {
    int state = 0;
    while (state < GS_JOB_STATE_COUNT && strcmp(states[state].name, name)) {
        state++;
    }
    return (gs_job_state)state;
}

/* ---- one job ------------------------------------------------------------------------------------------ */

gs_job *gs_job_new(gs_jobs *jobs, int64_t id, gs_job_spec *spec) {
    gs_job *job = calloc(1, sizeof *job);
    if (!job) {
        return NULL;
    }
    atomic_init(&job->references, 1);
    job->jobs = jobs;
    job->id = id;
    job->created_ms = gs_time_ms();
    job->spec = *spec;
    job->spec.transform.mean = job->spec.mean;
    job->spec.transform.std = job->spec.std;
    spec->json = NULL; /* the job's now */
    job->asked = job->wanted = job->unwritten = GS_JOB_STATE_COUNT;
    job->position = gs_position_begin;
    return job;
}

gs_job *gs_job_ref(gs_job *job) {
    atomic_fetch_add_explicit(&job->references, 1, memory_order_relaxed);
    return job;
}

void gs_job_unref(gs_job *job) {
    if (!job || atomic_fetch_sub_explicit(&job->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (size_t i = 0; i < job->event_count; i++) {
        free(job->events[i].data);
    }
    gs_run_free(job->run);
    free(job->events);
    free(job->error);
    free(job->storage_error);
    gs_dataset_unref(job->dataset);
    if (job->hosted) {
        gs_hosted_unref(job->hosted);
    }
    gs_job_spec_release(&job->spec);
    free(job);
}

int64_t gs_job_id(const gs_job *job) {
    return job->id;
}

bool gs_job_is_running(const gs_job *job) {
    return job->state == GS_JOB_RUNNING || job->state == GS_JOB_PAUSING || job->state == GS_JOB_CANCELLING;
}

void gs_job_tell(gs_job *job, int64_t time_ms) {
    char data[160], time[GS_TIME_TEXT];
    snprintf(data, sizeof data, "{\"state\":\"%s\",\"step\":%" PRId64 ",\"time\":\"%s\"}",
             gs_job_state_name(job->state), job->position.step, gs_time_text(time_ms, time));
    gs_job_event_add(job, GS_EVENT_STATE, strdup(data));
    if (gs_job_state_is_end(job->state)) {
        gs_job_event_add(job, GS_EVENT_END, strdup(data));
    }
}

void gs_job_change(gs_job *job, gs_job_state state) {
    gs_executor *executor = &job->jobs->server->executor;
    job->state = state;
    job->changes++;
    gs_job_tell(job, gs_time_ms());
    while (job->waiters) {
        gs_request *request = job->waiters;
        job->waiters = request->next;
        gs_executor_post(executor, request);
    }
    gs_job_wake_streams(job);
    gs_log_event(&job->jobs->server->log, GS_INFO, "job", GS_I("job", job->id),
                 GS_S("state", gs_job_state_name(state)), GS_S("model", job->spec.model),
                 GS_I("step", job->position.step));
}

gs_job_state gs_job_look(gs_job *job, bool *ret_draining) {
    pthread_mutex_lock(&job->jobs->lock);
    gs_job_state state = job->state;
    *ret_draining = job->jobs->draining;
    pthread_mutex_unlock(&job->jobs->lock);
    return state;
}

/* An end stays one. Else what a client asks for, whose request the same commit may answer, counts for more
 * than a pause that the job has just come to; and so does what a client has got since it was asked to pause.
 */
gs_job_state gs_job_state_to_write(const gs_job *job) {
    const bool is_end = job->wanted != GS_JOB_STATE_COUNT && gs_job_state_is_end(job->wanted);
    const bool pauses = job->wanted == GS_JOB_PAUSED && job->state == GS_JOB_PAUSING;
    return is_end                             ? job->wanted
           : job->asked != GS_JOB_STATE_COUNT ? job->asked
           : pauses                           ? GS_JOB_PAUSED
                                              : job->state;
}

void gs_job_want(gs_job *job, gs_job_state state, const gp_error *error) {
    char instance[64];
    snprintf(instance, sizeof instance, "/v1/jobs/%" PRId64, job->id);
    char *text = error ? gp_problem_json(error, instance, "") : NULL;
    pthread_mutex_lock(&job->jobs->lock);
    job->wanted = state;
    if (text) {
        free(job->error);
        job->error = text;
    }
    if (gs_job_state_is_end(state)) {
        job->ended_ms = gs_time_ms();
    }
    pthread_mutex_unlock(&job->jobs->lock);
}

/* Under the lock: it has no turn with its model any more, or until it is put to work again. */
static void leave_queue(gs_job *job) {
    if (job->working) {
        gs_queue_work(&job->hosted->queue, NULL, NULL);
        job->working = false;
        job->jobs->working--;
    }
}

/* Under the lock: it needs neither model nor data any more; the caller drops the references. */
static void let_go(gs_job *job, gs_hosted **ret_hosted, gs_dataset **ret_dataset) {
    leave_queue(job);
    *ret_hosted = job->hosted;
    *ret_dataset = job->dataset;
    if (job->hosted && job->began) {
        atomic_store(&job->hosted->job, 0);
    }
    job->hosted = NULL;
    job->dataset = NULL;
}

void gs_job_settle(gs_job *job, gs_job_state state) {
    gs_hosted *hosted = NULL;
    gs_dataset *dataset = NULL;
    pthread_mutex_lock(&job->jobs->lock);
    if (gs_job_state_is_end(job->state)) { /* its model was deleted meanwhile */
        pthread_mutex_unlock(&job->jobs->lock);
        return;
    }
    job->wanted = job->unwritten = GS_JOB_STATE_COUNT;
    if (state == GS_JOB_PAUSED) { /* it may have been asked for something else meanwhile */
        state = job->state == GS_JOB_CANCELLING ? GS_JOB_CANCELLED
                : job->state == GS_JOB_RUNNING  ? GS_JOB_QUEUED
                                                : state;
    }
    if (gs_job_state_is_end(state)) {
        job->ended_ms = job->ended_ms ? job->ended_ms : gs_time_ms();
        let_go(job, &hosted, &dataset);
    }
    gs_job_change(job, state);
    gs_job_save(job);
    pthread_mutex_unlock(&job->jobs->lock);
    gs_dataset_unref(dataset);
    if (hosted) {
        gs_hosted_unref(hosted);
    }
    gs_jobs_schedule(job->jobs);
}

bool gs_job_try_later(gs_job *job, gs_job_state state) {
    pthread_mutex_lock(&job->jobs->lock);
    const bool has_model = job->hosted;
    if (has_model) {
        job->wanted = GS_JOB_STATE_COUNT; /* what is written meanwhile must not say that it has ended */
        job->unwritten = state;
    }
    pthread_mutex_unlock(&job->jobs->lock);
    if (has_model) {
        gs_jobs_schedule(job->jobs); /* others need not wait for it */
    }
    return has_model;
}

gs_job_state gs_job_take_unwritten(gs_job *job) {
    pthread_mutex_lock(&job->jobs->lock);
    const gs_job_state state = job->unwritten;
    job->unwritten = GS_JOB_STATE_COUNT;
    pthread_mutex_unlock(&job->jobs->lock);
    return state;
}

void gs_job_rest(gs_job *job) {
    gs_jobs *jobs = job->jobs;
    pthread_mutex_lock(&jobs->lock);
    leave_queue(job);
    pthread_mutex_unlock(&jobs->lock);
    gs_loop_wake(jobs->server->loop); /* which may wait for it, to stop */
}

void gs_job_publish(gs_job *job, const gs_position *position, double samples_per_second,
                    double steps_per_second) {
    pthread_mutex_lock(&job->jobs->lock);
    const bool more = position->step != job->position.step;
    const int64_t checkpoint_step = job->position.checkpoint_step; /* the store's thread knows better */
    job->position = *position;
    job->position.checkpoint_step = checkpoint_step;
    job->samples_per_second = samples_per_second;
    job->steps_per_second = steps_per_second;
    if (more) {
        gs_job_wake_streams(job);
    }
    pthread_mutex_unlock(&job->jobs->lock);
}

void gs_job_storage(gs_job *job, const char *why) {
    pthread_mutex_lock(&job->jobs->lock);
    free(job->storage_error);
    job->storage_error = why ? strdup(why) : NULL;
    pthread_mutex_unlock(&job->jobs->lock);
}

/* ---- the table ------------------------------------------------------------------------------------------
 */

gs_jobs *gs_jobs_new(gs_server *server) {
    gs_jobs *jobs = calloc(1, sizeof *jobs);
    if (jobs) {
        jobs->server = server;
        pthread_mutex_init(&jobs->lock, NULL);
    }
    return jobs;
}

void gs_jobs_stop(gs_jobs *jobs) {
    if (!jobs) {
        return;
    }
    gs_store_drain(jobs->server->store); /* checkpoints that are being written */
    for (size_t i = 0; i < jobs->count; i++) {
        gs_job *job = jobs->items[i];
        gs_run_free(job->run);
        job->run = NULL;
        gs_hosted *hosted = job->hosted;
        gs_dataset *dataset = job->dataset;
        job->hosted = NULL;
        job->dataset = NULL;
        gs_dataset_unref(dataset);
        if (hosted) {
            gs_hosted_unref(hosted);
        }
    }
}

void gs_jobs_free(gs_jobs *jobs) {
    if (!jobs) {
        return;
    }
    for (size_t i = 0; i < jobs->count; i++) {
        gs_job_unref(jobs->items[i]);
    }
    free(jobs->items);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs);
}

/* Under the lock: make room for one more among the ended. */
static void forget_oldest(gs_jobs *jobs) {
    size_t ended = 0, oldest = 0;
    for (size_t i = jobs->count; i-- > 0;) {
        bool is_end = gs_job_state_is_end(jobs->items[i]->state);
        oldest = is_end ? i : oldest;
        ended += is_end;
    }
    if (ended > KEPT) {
        gs_job_unref(jobs->items[oldest]);
        memmove(jobs->items + oldest, jobs->items + oldest + 1,
                (jobs->count - oldest - 1) * sizeof(gs_job *));
        jobs->count--;
    }
}

bool gs_jobs_add(gs_jobs *jobs, gs_job *job) {
    pthread_mutex_lock(&jobs->lock);
    forget_oldest(jobs);
    bool ok = jobs->count < jobs->capacity;
    if (!ok) {
        size_t capacity = jobs->capacity ? 2 * jobs->capacity : 16;
        gs_job **items = realloc(jobs->items, capacity * sizeof(gs_job *));
        if (items) {
            jobs->items = items;
            jobs->capacity = capacity;
            ok = true;
        }
    }
    if (ok) { /* by id: two that were posted at once may come in either order */
        size_t at = jobs->count++;
        for (; at && jobs->items[at - 1]->id > job->id; at--) {
            jobs->items[at] = jobs->items[at - 1];
        }
        jobs->items[at] = gs_job_ref(job);
    }
    pthread_mutex_unlock(&jobs->lock);
    return ok;
}

/* Under the lock: may a job that waits begin, or go on? */
static bool may_start(const gs_job *job) {
    return job->state == GS_JOB_QUEUED && job->asked == GS_JOB_STATE_COUNT &&
           job->wanted == GS_JOB_STATE_COUNT && job->hosted &&
           (job->began || !atomic_load(&job->hosted->job));
}

static size_t max_jobs(const gs_server *server) {
    const gs_config *config = &server->config;
    return (size_t)(config->max_jobs ? config->max_jobs : config->threads ? config->threads : 1);
}

/* Under the lock. */
static void put_to_work(gs_job *job) {
    job->working = true;
    job->jobs->working++;
    gs_queue_work(&job->hosted->queue, gs_runner_piece, job);
}

void gs_jobs_schedule(gs_jobs *jobs) {
    const size_t limit = max_jobs(jobs->server);
    pthread_mutex_lock(&jobs->lock);
    size_t running = 0;
    for (size_t i = 0; i < jobs->count; i++) {
        running += gs_job_is_running(jobs->items[i]) && jobs->items[i]->unwritten == GS_JOB_STATE_COUNT;
    }
    for (size_t i = 0; i < jobs->count && running < limit && !jobs->draining; i++) {
        gs_job *job = jobs->items[i];
        if (!may_start(job)) {
            continue;
        }
        job->began = true;
        running++;
        job->started_ms = job->started_ms ? job->started_ms : gs_time_ms();
        atomic_store(&job->hosted->job, job->id);
        gs_job_change(job, GS_JOB_RUNNING);
        put_to_work(job);
    }
    pthread_mutex_unlock(&jobs->lock);
}

void gs_jobs_drain(gs_jobs *jobs) {
    pthread_mutex_lock(&jobs->lock);
    jobs->draining = true;
    for (size_t i = 0; i < jobs->count; i++) {
        if (jobs->items[i]->working) {
            gs_queue_kick(&jobs->items[i]->hosted->queue);
        }
    }
    pthread_mutex_unlock(&jobs->lock);
}

size_t gs_jobs_working(gs_jobs *jobs) {
    if (!jobs) {
        return 0;
    }
    pthread_mutex_lock(&jobs->lock);
    size_t working = jobs->working;
    pthread_mutex_unlock(&jobs->lock);
    return working;
}

void gs_jobs_tick(gs_jobs *jobs) {
    const int64_t now = gs_clock_us();
    char text[sizeof((gp_error *)0)->detail];
    const bool trouble = gs_store_trouble(jobs->server->store, text, sizeof text);
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->count; i++) {
        gs_job *job = jobs->items[i];
        gs_job_beat(job, now);
        if (job->unwritten != GS_JOB_STATE_COUNT && !job->working && !trouble && !jobs->draining) {
            put_to_work(job);
        }
    }
    pthread_mutex_unlock(&jobs->lock);
}

void gs_jobs_count(void *argument, size_t *counts) {
    gs_jobs *jobs = argument;
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->count; i++) {
        counts[jobs->items[i]->state]++;
    }
    pthread_mutex_unlock(&jobs->lock);
}

/* Under the lock. */
static gs_job *find(const gs_jobs *jobs, int64_t id) {
    for (size_t low = 0, high = jobs->count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (jobs->items[middle]->id == id) {
            return jobs->items[middle];
        }
        if (jobs->items[middle]->id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

gs_job *gs_jobs_find(gs_jobs *jobs, int64_t id) {
    pthread_mutex_lock(&jobs->lock);
    gs_job *job = find(jobs, id);
    if (job) {
        gs_job_ref(job);
    }
    pthread_mutex_unlock(&jobs->lock);
    return job;
}

size_t gs_jobs_list(gs_jobs *jobs, int64_t before, gs_job_state state, const char *model, gs_job **ret_jobs,
                    size_t max) {
    size_t count = 0;
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = jobs->count; i-- > 0 && count < max;) {
        gs_job *job = jobs->items[i];
        if (job->id < before && (state == GS_JOB_STATE_COUNT || job->state == state) &&
            (!model || !strcmp(job->spec.model, model))) {
            ret_jobs[count++] = gs_job_ref(job);
        }
    }
    pthread_mutex_unlock(&jobs->lock);
    return count;
}

int64_t gs_jobs_on_model(gs_jobs *jobs, const gs_hosted *hosted) {
    int64_t id = 0;
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->count && !id; i++) {
        id = jobs->items[i]->hosted == hosted ? jobs->items[i]->id : 0;
    }
    pthread_mutex_unlock(&jobs->lock);
    return id;
}

void gs_jobs_model_gone(gs_jobs *jobs, gs_hosted *hosted) {
    for (int64_t id; (id = gs_jobs_on_model(jobs, hosted));) {
        gs_job *job = gs_jobs_find(jobs, id);
        if (job) {
            gs_job_rest(job);
            gs_run_free(job->run);
            job->run = NULL;
            gs_job_settle(job, GS_JOB_CANCELLED);
            gs_job_unref(job);
        }
    }
}

/* ---- posting ----------------------------------------------------------------------------------------------
 */

static int check_limit(gs_jobs *jobs, gp_error *error) {
    const size_t limit = (size_t)jobs->server->config.max_queued_jobs;
    size_t open = 0;
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->count; i++) {
        open += !gs_job_state_is_end(jobs->items[i]->state) && !gs_job_is_running(jobs->items[i]);
    }
    pthread_mutex_unlock(&jobs->lock);
    return open < limit ? 0
                        : gp_fail(error, GP_TOO_MANY_JOBS, "",
                                  "%zu jobs wait or are paused, as many as --max-queued-jobs allows", open);
}

static int check_scheduler(const gs_job_spec *spec, const gs_hosted *hosted, gp_error *error) {
    gp_scheduler_spec scheduler = {.memory = NULL};
    gd_error cause = GD_ERROR_INIT;
    if (!spec->scheduler) {
        return 0;
    }
    int result = gp_scheduler_spec_read(spec->scheduler, "/scheduler", &scheduler, error);
    const gd_model_patch patch = {.scheduler = &scheduler.spec};
    if (!result && gd_model_check_change(hosted->model, &patch, &cause)) {
        result = gp_fail_engine(error, &cause, "");
    }
    gp_scheduler_spec_release(&scheduler);
    return result;
}

static int check_optimizer(const gs_job_spec *spec, const gs_hosted *hosted, gp_error *error) {
    const void *attrs;
    const gd_kind *kind = gd_model_optimizer_kind(hosted->model, &attrs);
    if (!strcmp(kind->module, "LBFGS") && spec->accumulate > 1) {
        return gp_fail(error, GP_INVALID_VALUE, "/accumulate",
                       "LBFGS evaluates the loss of one batch several times: it cannot accumulate");
    }
    if (!strcmp(kind->module, "LBFGS") && spec->on_nonfinite == GS_NONFINITE_SKIP) {
        return gp_fail(error, GP_INVALID_VALUE, "/on_nonfinite", "LBFGS's steps cannot be skipped");
    }
    return 0;
}

/* Model, splits, transform and all else fit together. In the model's turn. */
static int check_fit(const gs_job_spec *spec, gs_hosted *hosted, gs_dataset *dataset, int64_t *ret_steps,
                     gp_error *error) {
    gs_feed feed;
    if (gs_feed_init(&feed, hosted, dataset, spec->split, &spec->transform, error) ||
        gs_run_length(spec, feed.count, ret_steps, error) || gs_feed_try(&feed, hosted, spec->split, error) ||
        check_optimizer(spec, hosted, error) || check_scheduler(spec, hosted, error)) {
        return -1;
    }
    if (*spec->eval_split &&
        (gs_feed_init(&feed, hosted, dataset, spec->eval_split, &spec->transform, error) ||
         gs_feed_try(&feed, hosted, spec->eval_split, error))) {
        if (error->problem == GP_NOT_FOUND) {
            snprintf(error->pointer, sizeof error->pointer, "/eval/split");
        }
        return -1;
    }
    return 0;
}

static int write_post(gs_store *store, void *argument, gp_error *error) {
    return gs_job_insert(store, argument, error);
}

static void settle_post(void *argument, bool committed) {
    gs_job *job = argument;
    if (committed) {
        pthread_mutex_lock(&job->jobs->lock);
        gs_job_change(job, GS_JOB_QUEUED); /* before it is in the table, from which anybody may start it */
        pthread_mutex_unlock(&job->jobs->lock);
    }
    if (committed && gs_jobs_add(job->jobs, job)) {
        gs_jobs_schedule(job->jobs);
    }
    gs_job_unref(job);
}

int gs_job_post(gs_request *request, gs_job_spec *spec, gs_job **ret_job, gp_error *error) {
    gs_jobs *jobs = request->server->jobs;
    gs_hosted *hosted = request->model;
    int64_t steps;
    if (check_limit(jobs, error)) {
        return -1;
    }
    gs_dataset *dataset = gs_dataset_find(request->server, spec->dataset);
    if (!dataset) {
        return gp_fail(error, GP_NOT_FOUND, "/dataset", "there is no dataset named \"%s\"", spec->dataset);
    }
    if (check_fit(spec, hosted, dataset, &steps, error)) {
        gs_dataset_unref(dataset);
        return -1;
    }
    pthread_mutex_lock(&jobs->lock);
    int64_t id = ++jobs->last_id;
    pthread_mutex_unlock(&jobs->lock);
    gs_job *job = gs_job_new(jobs, id, spec);
    if (!job) {
        gs_dataset_unref(dataset);
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    gs_hosted_ref(hosted);
    job->hosted = hosted;
    job->model_id = (int64_t)hosted->id;
    job->dataset = dataset;
    job->events_loaded = true;
    job->position.total_steps = steps;
    *ret_job = gs_job_ref(job);
    if (gs_effect_add(request, (gs_effect){write_post, settle_post, job}, error)) {
        gs_job_unref(*ret_job);
        return -1;
    }
    return 0;
}

/* ---- cancel, pause, resume
 * ---------------------------------------------------------------------------------- */

enum { SAME = -1, REFUSED = -2 };

/* What an action makes of a state. */
static int next_state(gs_job_action action, gs_job_state state) {
    static const int next[GS_JOB_ACTION_COUNT][GS_JOB_STATE_COUNT] = {
        [GS_JOB_CANCEL] = {[GS_JOB_QUEUED] = GS_JOB_CANCELLED,
                           [GS_JOB_RUNNING] = GS_JOB_CANCELLING,
                           [GS_JOB_PAUSING] = GS_JOB_CANCELLING,
                           [GS_JOB_PAUSED] = GS_JOB_CANCELLED,
                           [GS_JOB_CANCELLING] = SAME,
                           [GS_JOB_CANCELLED] = SAME,
                           [GS_JOB_SUCCEEDED] = REFUSED,
                           [GS_JOB_FAILED] = REFUSED},
        [GS_JOB_PAUSE] = {[GS_JOB_QUEUED] = GS_JOB_PAUSED,
                          [GS_JOB_RUNNING] = GS_JOB_PAUSING,
                          [GS_JOB_PAUSING] = SAME,
                          [GS_JOB_PAUSED] = SAME,
                          [GS_JOB_CANCELLING] = REFUSED,
                          [GS_JOB_CANCELLED] = REFUSED,
                          [GS_JOB_SUCCEEDED] = REFUSED,
                          [GS_JOB_FAILED] = REFUSED},
        [GS_JOB_RESUME] = {[GS_JOB_QUEUED] = SAME,
                           [GS_JOB_RUNNING] = SAME,
                           [GS_JOB_PAUSING] = GS_JOB_RUNNING,
                           [GS_JOB_PAUSED] = GS_JOB_QUEUED,
                           [GS_JOB_CANCELLING] = REFUSED,
                           [GS_JOB_CANCELLED] = REFUSED,
                           [GS_JOB_SUCCEEDED] = REFUSED,
                           [GS_JOB_FAILED] = REFUSED},
    };
    return next[action][state];
}

typedef struct wish {
    gs_job *job;
    gs_job_action action;
    gs_job_state state; /* that it leads to */
} wish;

static int write_wish(gs_store *store, void *argument, gp_error *error) {
    const wish *w = argument;
    pthread_mutex_lock(&w->job->jobs->lock);
    w->job->asked = w->state; /* again, as another wish may have come to its end since */
    pthread_mutex_unlock(&w->job->jobs->lock);
    if (gs_job_state_is_end(w->state)) {
        return gs_sql(store, error,
                      "UPDATE jobs SET state = ?, ended_ms = ? WHERE id = ? AND ended_ms IS NULL", "sii",
                      gs_job_state_name(w->state), gs_time_ms(), w->job->id);
    }
    return gs_sql(store, error, "UPDATE jobs SET state = ? WHERE id = ? AND ended_ms IS NULL", "si",
                  gs_job_state_name(w->state), w->job->id);
}

/* It may have gone on meanwhile: what is asked is asked again. */
static void settle_wish(void *argument, bool committed) {
    wish *w = argument;
    gs_job *job = w->job;
    pthread_mutex_lock(&job->jobs->lock);
    int state = next_state(w->action, job->state);
    const bool is_end = committed && state >= 0 && gs_job_state_is_end((gs_job_state)state);
    job->asked = is_end ? (gs_job_state)state : GS_JOB_STATE_COUNT; /* nobody starts it before it has ended */
    if (committed && state >= 0 && !is_end) {
        gs_job_change(job, (gs_job_state)state);
        if (job->working) {
            gs_queue_kick(&job->hosted->queue);
        }
    }
    if (committed && !is_end) {
        gs_job_save(job);
    }
    pthread_mutex_unlock(&job->jobs->lock);
    if (is_end) {
        gs_job_settle(job, (gs_job_state)state);
        pthread_mutex_lock(&job->jobs->lock);
        job->asked = GS_JOB_STATE_COUNT;
        pthread_mutex_unlock(&job->jobs->lock);
    }
    gs_jobs_schedule(job->jobs);
    gs_job_unref(job);
    free(w);
}

int gs_job_ask(gs_request *request, gs_job *job, gs_job_action action, gs_job_state *ret_state,
               gp_error *error) {
    static const char *const names[] = {
#define X(action, name) name,
        GS_JOB_ACTIONS(X)
#undef X
    };
    wish *w = malloc(sizeof *w);
    if (!w) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    pthread_mutex_lock(&job->jobs->lock);
    const gs_job_state now = job->state;
    const int state = next_state(action, now);
    if (state >= 0) {
        job->asked = (gs_job_state)state; /* what is written meanwhile must not undo it */
    }
    *ret_state = state >= 0 ? (gs_job_state)state : now;
    pthread_mutex_unlock(&job->jobs->lock);
    if (state < 0) {
        free(w);
        return state == SAME ? gs_effect_add(request, (gs_effect){.write = NULL}, error) /* for the key */
                             : gp_fail(error, GP_CONFLICT, "", "the job is %s; there is nothing to %s",
                                       gs_job_state_name(now), names[action]);
    }
    *w = (wish){gs_job_ref(job), action, (gs_job_state)state};
    return gs_effect_add(request, (gs_effect){write_wish, settle_wish, w}, error);
}
