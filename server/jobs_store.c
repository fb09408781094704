/* jobs_store.c -- jobs and their events in the store, and back at start. */
#include <inttypes.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "request.h"

const gs_position gs_position_begin = {.epoch_loss = NAN,
                                       .loss = NAN,
                                       .lr = NAN,
                                       .eval_step = -1,
                                       .eval_loss = NAN,
                                       .eval_accuracy = NAN,
                                       .best = NAN,
                                       .checkpoint_step = -1};

/* ---- positions ----------------------------------------------------------------------------------------- */

/* Numbers as text in hexadecimal: bit for bit, NaN and infinity too. */
char *gs_position_text(const gs_position *p) {
    gp_text text = {0};
#define I(name) gp_text_add(&text, "%c\"" #name "\":%" PRId64, text.size ? ',' : '{', p->name);
#define N(name) gp_text_add(&text, "%c\"" #name "\":\"%a\"", text.size ? ',' : '{', p->name);
    GS_POSITION(I, N)
#undef I
#undef N
    gp_text_append(&text, "}", 1);
    if (text.failed) {
        gp_text_release(&text);
        return NULL;
    }
    return text.data;
}

int gs_position_read(const char *text, gs_position *ret_position) {
    json_t *json = text ? json_loads(text, 0, NULL) : NULL;
    gs_position p = gs_position_begin;
#define I(name) p.name = json_integer_value(json_object_get(json, #name));
#define N(name) \
    { \
        const char *digits = json_string_value(json_object_get(json, #name)); \
        p.name = digits ? strtod(digits, NULL) : NAN; \
    }
    GS_POSITION(I, N)
#undef I
#undef N
    bool fine = json_is_object(json) && p.epoch >= 0 && p.batch >= 0 && p.step >= 0 && p.skipped >= 0 &&
                p.skipped <= p.step;
    json_decref(json);
    if (!fine) {
        return -1;
    }
    *ret_position = p;
    return 0;
}

/* ---- writing ---------------------------------------------------------------------------------------------
 */

int gs_job_insert(gs_store *store, gs_job *job, gp_error *error) {
    char *spec = json_dumps(job->spec.json, JSON_COMPACT | JSON_REAL_PRECISION(17));
    char *position = gs_position_text(&job->position);
    int result =
        spec && position
            ? gs_sql(store, error,
                     "INSERT INTO jobs(id, model, model_name, dataset, spec, state, progress, created_ms) "
                     "VALUES(?, (SELECT id FROM models WHERE id = ?), ?, ?, ?, 'queued', ?, ?)",
                     "iissssi", job->id, job->model_id, job->spec.model, job->spec.dataset, spec, position,
                     job->created_ms)
            : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    if (!result) { /* only the last ones are kept */
        result =
            gs_sql(store, error,
                   "DELETE FROM jobs WHERE ended_ms IS NOT NULL AND id NOT IN (SELECT id FROM jobs WHERE "
                   "ended_ms IS NOT NULL ORDER BY id DESC LIMIT 1000)",
                   "");
    }
    free(spec);
    free(position);
    return result;
}

/* What is to be written, copied under the lock. */
typedef struct copy {
    gs_job_state state;
    char *position, *error;
    int64_t started_ms, ended_ms;
    gs_job_event *events;
    size_t first, count;
    bool failed;
} copy;

static void take_copy(gs_job *job, copy *c) {
    pthread_mutex_lock(&job->jobs->lock);
    c->state = gs_job_state_to_write(job);
    c->position = gs_position_text(&job->position);
    c->error = job->error ? strdup(job->error) : NULL;
    c->started_ms = job->started_ms;
    c->ended_ms = gs_job_state_is_end(c->state) ? job->ended_ms : 0;
    c->first = job->stored;
    c->count = job->event_count - job->stored;
    c->events = calloc(c->count + 1, sizeof *c->events);
    c->failed = !c->events || !c->position;
    for (size_t i = 0; i < c->count && c->events; i++) {
        c->events[i] = job->events[job->stored + i];
        c->events[i].data = strdup(c->events[i].data);
        c->failed |= !c->events[i].data;
    }
    job->captured = job->event_count;
    pthread_mutex_unlock(&job->jobs->lock);
}

static void release_copy(copy *c) {
    for (size_t i = 0; i < c->count && c->events; i++) {
        free(c->events[i].data);
    }
    free(c->events);
    free(c->position);
    free(c->error);
}

static int write_copy(gs_store *store, int64_t id, const copy *c, gp_error *error) {
    if (c->failed) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    if (gs_sql(store, error,
               "UPDATE jobs SET state = ?, progress = ?, error = ?, started_ms = nullif(?, 0), ended_ms = "
               "nullif(?, 0) WHERE id = ?",
               "sssiii", gs_job_state_name(c->state), c->position, c->error, c->started_ms, c->ended_ms,
               id)) {
        return -1;
    }
    if (!c->first && gs_sql(store, error, "DELETE FROM job_events WHERE job = ?", "i", id)) {
        return -1;
    }
    for (size_t i = 0; i < c->count; i++) {
        const gs_job_event *event = &c->events[i];
        if (gs_sql(
                store, error,
                "INSERT OR REPLACE INTO job_events(job, seq, time_ms, kind, at_row, data) SELECT id, ?, ?, "
                "?, ?, ? FROM jobs WHERE id = ?",
                "iisisi", event->id, event->time_ms, gs_event_name(event->kind), event->id / GS_EVENTS_A_STEP,
                event->data, id)) {
            return -1;
        }
    }
    return 0;
}

int gs_job_write(gs_store *store, void *argument, gp_error *error) {
    gs_job *job = argument;
    copy c = {.failed = false};
    take_copy(job, &c);
    int result = write_copy(store, job->id, &c, error);
    release_copy(&c);
    return result;
}

void gs_job_written(gs_job *job, bool committed) {
    pthread_mutex_lock(&job->jobs->lock);
    if (committed) {
        job->stored = job->captured;
    }
    pthread_mutex_unlock(&job->jobs->lock);
}

static void submit_save(gs_job *job);

static void save_done(gs_store_task *task, int result) {
    gs_job *job = task->argument;
    gs_job_written(job, !result);
    pthread_mutex_lock(&job->jobs->lock);
    const bool again = job->dirty;
    job->saving = again;
    if (again) {
        submit_save(job);
    }
    pthread_mutex_unlock(&job->jobs->lock);
    if (!again) {
        gs_job_unref(job);
    }
}

static int run_save(gs_store *store, void *argument, gp_error *error) {
    return gs_job_write(store, argument, error);
}

static void submit_save(gs_job *job) {
    job->dirty = false;
    job->save = (gs_store_task){.run = run_save, .done = save_done, .argument = job};
    gs_store_submit(job->jobs->server->store, &job->save);
}

void gs_job_save(gs_job *job) {
    if (job->saving) {
        job->dirty = true;
        return;
    }
    job->saving = true;
    gs_job_ref(job);
    submit_save(job);
}

/* ---- reading
 * ------------------------------------------------------------------------------------------------ */

typedef struct reading {
    gs_jobs *jobs;
    gs_job *job; /* whose events are read */
} reading;

static gs_job *read_row(gs_jobs *jobs, sqlite3_stmt *row) {
    gs_job_spec spec = {.json = NULL};
    gp_error error = {0};
    const char *text = (const char *)sqlite3_column_text(row, 3);
    json_t *json = text ? json_loads(text, 0, NULL) : NULL;
    gs_job *job = NULL;
    if (json && !gs_job_spec_read(json, &spec, &error)) {
        job = gs_job_new(jobs, sqlite3_column_int64(row, 0), &spec);
    }
    if (job) {
        const char *problem = (const char *)sqlite3_column_text(row, 6);
        job->model_id = sqlite3_column_int64(row, 1);
        job->state = gs_job_state_find((const char *)sqlite3_column_text(row, 4));
        gs_position_read((const char *)sqlite3_column_text(row, 5), &job->position);
        job->error = problem ? strdup(problem) : NULL;
        job->created_ms = sqlite3_column_int64(row, 7);
        job->started_ms = sqlite3_column_int64(row, 8);
        job->ended_ms = sqlite3_column_int64(row, 9);
    } else {
        gs_log_event(&jobs->server->log, GS_ERROR, "a job cannot be read",
                     GS_I("job", sqlite3_column_int64(row, 0)), GS_S("why", error.detail));
    }
    gs_job_spec_release(&spec);
    json_decref(json);
    return job;
}

static int read_jobs(gs_store *store, void *argument, gp_error *error) {
    gs_jobs *jobs = argument;
    sqlite3_stmt *query =
        gs_sql_query(store, error,
                     "SELECT id, model, model_name, spec, state, progress, error, created_ms, "
                     "started_ms, ended_ms FROM jobs ORDER BY id",
                     "");
    int more;
    while (query && (more = gs_sql_row(store, query, error)) == 1) {
        gs_job *job = read_row(jobs, query);
        jobs->last_id = sqlite3_column_int64(query, 0);
        if (job && job->state < GS_JOB_STATE_COUNT) {
            gs_jobs_add(jobs, job);
        }
        gs_job_unref(job);
    }
    if (!query || more) {
        return -1;
    }
    query = gs_sql_query(store, error, "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'", "");
    if (query && gs_sql_row(store, query, error) == 1) { /* ids of jobs that are gone are not given again */
        const int64_t last = sqlite3_column_int64(query, 0);
        jobs->last_id = last > jobs->last_id ? last : jobs->last_id;
        sqlite3_reset(query);
    }
    return query ? 0 : -1;
}

static gs_event_kind kind_of(const char *name) {
    return !strcmp(name, "end") ? GS_EVENT_END : !strcmp(name, "log") ? GS_EVENT_LOG : GS_EVENT_STATE;
}

static bool rests(gs_job_state state) {
    return state == GS_JOB_PAUSED || gs_job_state_is_end(state);
}

/* Is its state what its events say last? */
static bool has_told(const gs_job *job) {
    char part[48];
    size_t i = job->event_count;
    while (i && job->events[i - 1].kind == GS_EVENT_LOG) {
        i--;
    }
    snprintf(part, sizeof part, "{\"state\":\"%s\"", gs_job_state_name(job->state));
    return i && !strncmp(job->events[i - 1].data, part, strlen(part));
}

static int read_events(gs_store *store, void *argument, gp_error *error) {
    gs_job *job = argument;
    gp_text text = {0};
    sqlite3_stmt *query = gs_sql_query(
        store, error, "SELECT seq, time_ms, kind, data FROM job_events WHERE job = ? ORDER BY seq", "i",
        job->id);
    int more;
    while (query && (more = gs_sql_row(store, query, error)) == 1) {
        gs_job_event event = {.id = sqlite3_column_int64(query, 0),
                              .time_ms = sqlite3_column_int64(query, 1),
                              .kind = kind_of((const char *)sqlite3_column_text(query, 2)),
                              .data = strdup((const char *)sqlite3_column_text(query, 3))};
        pthread_mutex_lock(&job->jobs->lock);
        if (job->event_count == job->event_capacity) {
            size_t capacity = job->event_capacity ? 2 * job->event_capacity : 16;
            gs_job_event *events = realloc(job->events, capacity * sizeof *events);
            job->events = events ? events : job->events;
            job->event_capacity = events ? capacity : job->event_capacity;
        }
        bool room = job->event_count < job->event_capacity && event.data;
        if (room) {
            job->events[job->event_count++] = event;
        } else {
            free(event.data);
        }
        pthread_mutex_unlock(&job->jobs->lock);
    }
    gp_text_release(&text);
    if (!query || more) {
        return -1;
    }
    pthread_mutex_lock(&job->jobs->lock);
    job->stored = job->captured = job->event_count;
    job->events_loaded = true;
    if (rests(job->state) && !has_told(job)) { /* a crash came between the state's commit and its events' */
        gs_job_tell(job, job->ended_ms ? job->ended_ms : gs_time_ms());
    }
    pthread_mutex_unlock(&job->jobs->lock);
    return 0;
}

static int read_events_once(gs_store *store, void *argument, gp_error *error) {
    gs_job *job = argument;
    pthread_mutex_lock(&job->jobs->lock);
    const bool loaded = job->events_loaded;
    pthread_mutex_unlock(&job->jobs->lock);
    return loaded ? 0 : read_events(store, job, error);
}

int gs_job_load_events(gs_job *job, gp_error *error) {
    return gs_store_do(job->jobs->server->store, read_events_once, job, error);
}

/* Before the loop runs: give an open job back its model and its data, or end it. */
static int revive(gs_job *job, gp_error *error) {
    gs_server *server = job->jobs->server;
    gp_error why = {0};
    if (gs_job_load_events(job, error)) {
        return -1;
    }
    job->began = job->revived = job->started_ms != 0;
    job->hosted = gs_models_find(&server->models, job->spec.model);
    if (job->hosted && (int64_t)job->hosted->id != job->model_id) {
        gs_hosted_unref(job->hosted);
        job->hosted = NULL;
    }
    job->dataset = gs_dataset_find(server, job->spec.dataset);
    if (job->hosted && job->began) {
        atomic_store(&job->hosted->job, job->id);
    }
    if (job->state == GS_JOB_CANCELLING) {
        gs_job_settle(job, GS_JOB_CANCELLED);
    } else if (!job->hosted || !job->dataset) {
        gp_fail(&why, GP_NOT_FOUND, job->hosted ? "/dataset" : "/model",
                "the %s \"%s\" did not come back after a restart of the daemon",
                job->hosted ? "dataset" : "model", job->hosted ? job->spec.dataset : job->spec.model);
        gs_job_want(job, GS_JOB_FAILED, &why);
        gs_job_settle(job, GS_JOB_FAILED);
    } else if (job->state == GS_JOB_PAUSING) {
        gs_job_settle(job, GS_JOB_PAUSED);
    } else if (job->state == GS_JOB_RUNNING) {
        job->state = GS_JOB_QUEUED;
    }
    return 0;
}

int gs_jobs_restore(gs_jobs *jobs, gp_error *error) {
    int result = gs_store_do(jobs->server->store, read_jobs, jobs, error);
    jobs->draining = true; /* nothing starts before all are there */
    for (size_t i = 0; i < jobs->count && !result; i++) {
        if (!gs_job_state_is_end(jobs->items[i]->state)) {
            result = revive(jobs->items[i], error);
        }
    }
    jobs->draining = false;
    if (!result) {
        gs_jobs_schedule(jobs);
    }
    return result;
}
