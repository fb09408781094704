/* jobs.h -- training that runs in the daemon.
 *
 * A job is steps of one model over a dataset. It waits in a queue until fewer than --max-jobs run and no
 * other has its model; then a thread of its own (loader.h) makes batches ahead, and runner.c takes steps in
 * the model's turn, a few milliseconds at a time, between clients' requests. What it is and how far it has
 * come is in the store: the specification when it is posted, where it stands with each checkpoint. After a
 * restart a job that ran goes on from its last checkpoint, and ends with the same bits as if nothing had
 * been.
 *
 * Any thread, where nothing else is said. */
#ifndef GRADD_SERVER_JOBS_H
#define GRADD_SERVER_JOBS_H

#include "checkpoints.h"
#include "job_spec.h"
#include "models.h"
#include "stream.h"

typedef struct gs_server gs_server;
typedef struct gs_job gs_job;
typedef struct gs_jobs gs_jobs;

/* state, its name, whether it is an end */
#define GS_JOB_STATES(X) \
    X(GS_JOB_QUEUED, "queued", false) \
    X(GS_JOB_RUNNING, "running", false) \
    X(GS_JOB_PAUSING, "pausing", false) \
    X(GS_JOB_PAUSED, "paused", false) \
    X(GS_JOB_CANCELLING, "cancelling", false) \
    X(GS_JOB_SUCCEEDED, "succeeded", true) \
    X(GS_JOB_FAILED, "failed", true) \
    X(GS_JOB_CANCELLED, "cancelled", true)

typedef enum gs_job_state {
#define X(state, name, is_end) state,
    GS_JOB_STATES(X)
#undef X
        GS_JOB_STATE_COUNT
} gs_job_state;

const char *gs_job_state_name(gs_job_state state);
bool gs_job_state_is_end(gs_job_state state);
/** By its name; GS_JOB_STATE_COUNT: there is none. */
gs_job_state gs_job_state_find(const char *name);

/* What a client can ask of a job: name in the path */
#define GS_JOB_ACTIONS(X) \
    X(GS_JOB_CANCEL, "cancel") \
    X(GS_JOB_PAUSE, "pause") \
    X(GS_JOB_RESUME, "resume")

typedef enum gs_job_action {
#define X(action, name) action,
    GS_JOB_ACTIONS(X)
#undef X
        GS_JOB_ACTION_COUNT
} gs_job_action;

/** @return NULL: no memory */
gs_jobs *gs_jobs_new(gs_server *server);
/** At start, with models and datasets there: bring jobs back, and let them go on. @return 0; -1: storage */
int gs_jobs_restore(gs_jobs *jobs, gp_error *error);
/** The daemon shuts down: jobs that run take a checkpoint after their step, and stop. Loop thread. */
void gs_jobs_drain(gs_jobs *jobs);
/** How many have not yet. */
size_t gs_jobs_working(gs_jobs *jobs);
/** After gs_executor_wait(): let go of models and datasets. NULL is fine, here and below. */
void gs_jobs_stop(gs_jobs *jobs);
/** After gs_store_close(). */
void gs_jobs_free(gs_jobs *jobs);
/** The timer's, twice a second: heartbeats of event streams. Loop thread. */
void gs_jobs_tick(gs_jobs *jobs);
/** For gs_metrics.count_jobs. */
void gs_jobs_count(void *jobs, size_t *counts);

/** Post a job: in the model's turn, everything is checked, and an effect added to the request. The spec is
 *  taken over. @return 0 with a reference in *ret_job; -1 */
int gs_job_post(gs_request *request, gs_job_spec *spec, gs_job **ret_job, gp_error *error);
/** Ask something of a job; adds an effect. The job shows it when that is committed.
 *  @return 0 with the state that it will have; -1: 409 */
int gs_job_ask(gs_request *request, gs_job *job, gs_job_action action, gs_job_state *ret_state,
               gp_error *error);
/** A reference, or NULL. */
gs_job *gs_jobs_find(gs_jobs *jobs, int64_t id);
void gs_job_unref(gs_job *job);
int64_t gs_job_id(const gs_job *job);
/** Up to `max` jobs with smaller ids than `before`, newest first, a reference each.
 *  @param state GS_JOB_STATE_COUNT: any  @param model NULL: any */
size_t gs_jobs_list(gs_jobs *jobs, int64_t before, gs_job_state state, const char *model, gs_job **ret_jobs,
                    size_t max);
/** Everything about it, as JSON; `etag` (96 bytes) may be NULL. NULL: no memory. */
json_t *gs_job_json(gs_job *job, char *etag);
/** Let the request wait for a change of state, if there was none since `known` (an If-None-Match, or NULL:
 * since now) and there can be one. @return whether it waits: parked. Loop thread */
bool gs_job_wait(gs_job *job, gs_request *request, const char *known, double seconds);
/** A job that has not ended and is on this model; 0: none. */
int64_t gs_jobs_on_model(gs_jobs *jobs, const gs_hosted *hosted);
/** The model is deleted: its jobs end now. In the model's turn. */
void gs_jobs_model_gone(gs_jobs *jobs, gs_hosted *hosted);

/** Its events from the one after `last_id` on, as a stream. Waits for the store: no loop thread.
 *  @return 0; -1 */
int gs_job_events(gs_job *job, int64_t last_id, gs_stream **ret_stream, gp_error *error);

#endif
