/* jobs.h -- training that runs in the daemon.
 *
 * A job is steps of one model over a dataset. It waits in a queue until fewer than --max-jobs run; then a thread
 * of its own (loader.h) makes batches ahead, and runner.c takes steps in the model's turn, a few milliseconds at a
 * time, between clients' requests. What it is and how far it has come is in the store: the specification when it is
 * posted, where it stands with each checkpoint. After a restart a job that ran goes on from its last checkpoint. */
#ifndef GRADD_SERVER_JOBS_H
#define GRADD_SERVER_JOBS_H

#include "checkpoints.h"
#include "models.h"

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

#endif
