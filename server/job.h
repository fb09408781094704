/* job.h -- a job from inside: jobs.c, jobs_store.c, job_show.c, runner.c, events.c. */
#ifndef GRADD_SERVER_JOB_H
#define GRADD_SERVER_JOB_H

#include "datasets.h"
#include "jobs.h"

typedef struct gs_run gs_run;
typedef struct gs_job_stream gs_job_stream;

/* Where a job stands: all that a run needs to go on with, and what GET shows. Integers, and numbers that must
 * come back bit for bit. I: int64_t, N: double. */
#define GS_POSITION(I, N) \
    I(base)            /* the model's steps when it began */ \
    I(total_steps)     /* 0: not known yet */ \
    I(epoch)           /* of the next batch, from 0 on */ \
    I(batch)           /* likewise, in its epoch */ \
    I(step)            /* batches (groups of them, when accumulating) that are done, skipped ones too */ \
    I(skipped)         /* of these */ \
    I(evaluate)        /* 1: an evaluation is due */ \
    I(epoch_ends)      /* 1: and then the end of an epoch */ \
    I(epoch_count)     /* samples of the epoch so far */ \
    N(epoch_sum)       /* of their losses */ \
    N(epoch_loss)      /* mean of the last whole epoch's losses */ \
    N(loss)            /* of the last step */ \
    N(lr)              /* likewise */ \
    I(eval_step)       /* when it was evaluated last; -1: never */ \
    N(eval_loss)       /* then */ \
    N(eval_accuracy)   /* likewise */ \
    N(best)            /* of the metric; NaN: none yet */ \
    I(best_step)       /* when that was */ \
    I(waited)          /* evaluations since */ \
    I(stopped_early)   /* 1: patience is over */ \
    I(checkpoint_step) /* of the last one that is written; -1: none */

typedef struct gs_position {
#define I(name) int64_t name;
#define N(name) double name;
    GS_POSITION(I, N)
#undef I
#undef N
} gs_position;

extern const gs_position gs_position_begin;
/** As JSON text: free() it. NULL: no memory. */
char *gs_position_text(const gs_position *position);
/** @return 0; -1: it is none */
int gs_position_read(const char *text, gs_position *ret_position);

typedef enum gs_event_kind { GS_EVENT_STATE, GS_EVENT_LOG, GS_EVENT_END } gs_event_kind;
const char *gs_event_name(gs_event_kind kind);

enum {
    GS_EVENTS_A_STEP = 1000, /* ids of one step: its metrics, and what happens until the next one */
    GS_MAX_EVENTS = 4096     /* of one job, beside metrics: log events beyond are not kept */
};

typedef struct gs_job_event {
    int64_t id; /* GS_EVENTS_A_STEP * steps taken before it + its number among those, from 1 on */
    int64_t time_ms;
    gs_event_kind kind;
    char *data; /* JSON */
} gs_job_event;

struct gs_job {
    atomic_int references;
    gs_jobs *jobs;
    int64_t id, model_id, created_ms;
    bool revived; /* it had begun when the daemon started */
    gs_job_spec spec;
    atomic_bool writing; /* its last checkpoint is not yet on the disk */
    gs_run *run;         /* of whoever has the model's turn; NULL: it has not begun in this process */
    /* under jobs->lock: */
    gs_hosted *hosted; /* until it ends */
    gs_dataset *dataset;
    gs_job_state state;
    gs_job_state asked;           /* by a client: it is being committed; GS_JOB_STATE_COUNT: nothing is */
    gs_job_state wanted;          /* by the job itself: its end, or GS_JOB_PAUSED; likewise */
    gs_job_state unwritten;       /* the end that it has come to and that could not be
                                     written: to be tried again. GS_JOB_STATE_COUNT: none */
    uint64_t changes;             /* of state */
    bool began;                   /* it has the model, until it ends */
    bool working;                 /* its queue has its work */
    int64_t started_ms, ended_ms; /* 0: not yet */
    gs_position position;         /* as last published */
    double samples_per_second, steps_per_second; /* 0: not known */
    char *error;                                 /* a problem document, or NULL */
    char *storage_error;                         /* why the last checkpoint could not be written, or NULL */
    gs_job_event *events;
    size_t event_count, event_capacity;
    size_t captured, stored; /* events that are on their way to the store; that are in it */
    bool events_loaded;
    gs_request *waiters; /* linked by next */
    gs_job_stream *streams;
    gs_store_task save;
    bool saving, dirty;
};

struct gs_jobs {
    gs_server *server;
    pthread_mutex_t lock; /* guards what follows, and of jobs what is said there; a leaf but for the
                             executor's, the store's and http's */
    gs_job **items;       /* by id */
    size_t count, capacity;
    size_t working; /* with their queue's work */
    int64_t last_id;
    bool draining;
};

/* ---- jobs.c ------------------------------------------------------------------------------------------ */

/** What the store is to say of a job's state while changes of it are being committed. Under the lock. */
gs_job_state gs_job_state_to_write(const gs_job *job);

/** A job that nobody knows yet, with one reference; takes over the spec. NULL: no memory. */
gs_job *gs_job_new(gs_jobs *jobs, int64_t id, gs_job_spec *spec);
gs_job *gs_job_ref(gs_job *job);
/** Put it into the table, which takes a reference. @return false: no memory */
bool gs_jobs_add(gs_jobs *jobs, gs_job *job);
/** Start what may run. */
void gs_jobs_schedule(gs_jobs *jobs);
/** Under the lock: does it take one of --max-jobs? */
bool gs_job_is_running(const gs_job *job);
/** What its steps have to mind. *ret_draining: it is to stop where it is. */
gs_job_state gs_job_look(gs_job *job, bool *ret_draining);
/** Under the lock: it has another state from here on: events, waiters, streams. */
void gs_job_change(gs_job *job, gs_job_state state);
/** Under the lock: the events that say which state it has. */
void gs_job_tell(gs_job *job, int64_t time_ms);
/** The state that the transaction which follows commits. */
void gs_job_want(gs_job *job, gs_job_state state, const gp_error *error);
/** And it has, or has failed to (which stops nobody): an end lets go of all. */
void gs_job_settle(gs_job *job, gs_job_state state);
/** Its end could not be written: it keeps its model until it can be. @return false: it has none any more */
bool gs_job_try_later(gs_job *job, gs_job_state state);
/** The end that is to be tried again now, once; GS_JOB_STATE_COUNT: none. */
gs_job_state gs_job_take_unwritten(gs_job *job);
/** Its queue has its work no longer. In the model's turn. */
void gs_job_rest(gs_job *job);
/** Show how far it has come. */
void gs_job_publish(gs_job *job, const gs_position *position, double samples_per_second,
                    double steps_per_second);
/** What was wrong with storage; NULL: nothing. */
void gs_job_storage(gs_job *job, const char *why);

/* ---- jobs_store.c -------------------------------------------------------------------------------------- */

/** Its row, on the store's thread, in a transaction. */
int gs_job_insert(gs_store *store, gs_job *job, gp_error *error);
/** What has changed: state, position, events. On the store's thread. */
int gs_job_write(gs_store *store, void *job, gp_error *error);
/** And that is committed, or not. */
void gs_job_written(gs_job *job, bool committed);
/** Write it soon, whatever else happens. Under the lock. */
void gs_job_save(gs_job *job);
/** Events that an earlier daemon has written. Not on the loop's thread. */
int gs_job_load_events(gs_job *job, gp_error *error);

/* ---- events.c --------------------------------------------------------------------------------------------
 */

/** Under the lock: something happened, after `position` steps. data is JSON, taken over; NULL is fine. */
void gs_job_event_add(gs_job *job, gs_event_kind kind, char *data);
/** Log what happened. Takes the lock. `extra` is ",\"name\":..." or "". */
void gs_job_log(gs_job *job, const char *level, const char *extra, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/** Under the lock: events past where it stands never were: a crash took them back. */
void gs_job_events_cut(gs_job *job);
/** Under the lock: there are new ones. */
void gs_job_wake_streams(gs_job *job);
/** Under the lock: the timer's. */
void gs_job_beat(gs_job *job, int64_t now_us);
/** Steps that are recorded in the model's history. */
static inline int64_t gs_position_rows(const gs_position *position) {
    return position->step - position->skipped;
}

/* ---- runner.c
 * ---------------------------------------------------------------------------------------------- */

/** gs_queue_work()'s. */
bool gs_runner_piece(void *job);
void gs_run_free(gs_run *run);
/** Steps of a whole run. @return 0; -1: 400 */
int gs_run_length(const gs_job_spec *spec, int64_t rows, int64_t *ret_steps, gp_error *error);

#endif
