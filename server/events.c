/* events.c -- a job's events, as Server-Sent Events: a metrics event for each step, from the model's history;
 * states, log and the end from the job's own list. Nothing is kept for a reader but where it is.
 *
 * Ids: what happens after the k-th recorded step has an id from 1000 k on, and the step's metrics have 1000 k
 * itself. So an id says what a reader has seen, whoever asks, also another daemon after a crash. That takes
 * back the steps past the last checkpoint, but they are taken again and are the same, bit for bit, so that a
 * reader who has seen them waits until the job is where it was, and sees every step once. Meanwhile it is
 * told of states (and the end) in events without an id. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "request.h"

enum {
    ROWS = 64,         /* steps looked up at a time */
    ENOUGH = 16384,    /* bytes made at a time */
    BEAT_US = 15000000 /* a comment, when there is nothing else for so long */
};

struct gs_job_stream {
    gs_stream stream; /* first */
    gs_job *job;
    gs_hosted *hosted; /* whose history has the steps; NULL: it is gone */
    int64_t at;        /* id of what was written last */
    size_t next_event; /* of the job's list */
    gp_text text;
    size_t sent;       /* of text */
    bool ended;        /* the end is in text */
    int64_t seen_rows; /* what there was when it was looked at last */
    size_t seen_events;
    /* under jobs->lock: */
    gs_job_stream *next;
    bool waiting, beat;
    int64_t since_us; /* waits since */
};

static const char *const names[] = {
    [GS_EVENT_STATE] = "state",
    [GS_EVENT_LOG] = "log",
    [GS_EVENT_END] = "end",
};

const char *gs_event_name(gs_event_kind kind) {
    return names[kind];
}

/* ---- the list -------------------------------------------------------------------------------------------
 */

void gs_job_event_add(gs_job *job, gs_event_kind kind, char *data) {
    if (job->event_count == job->event_capacity) {
        size_t capacity = job->event_capacity ? 2 * job->event_capacity : 16;
        gs_job_event *events = realloc(job->events, capacity * sizeof *events);
        if (events) {
            job->events = events;
            job->event_capacity = capacity;
        }
    }
    const int64_t base = GS_EVENTS_A_STEP * gs_position_rows(&job->position);
    const int64_t last = job->event_count ? job->events[job->event_count - 1].id : 0;
    const int64_t id = last >= base ? last + 1 : base + 1;
    const bool full = job->event_count >= GS_MAX_EVENTS || id >= base + GS_EVENTS_A_STEP - 8;
    if (!data || job->event_count == job->event_capacity || (full && kind == GS_EVENT_LOG) ||
        id >= base + GS_EVENTS_A_STEP) {
        free(data);
        return;
    }
    job->events[job->event_count++] =
        (gs_job_event){.id = id, .time_ms = gs_time_ms(), .kind = kind, .data = data};
}

void gs_job_log(gs_job *job, const char *level, const char *extra, const char *format, ...) {
    char message[768], time[GS_TIME_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    gp_text text = {0};
    pthread_mutex_lock(&job->jobs->lock);
    gp_text_add(&text, "{\"level\":\"%s\",\"step\":%" PRId64 ",\"time\":\"%s\",\"message\":", level,
                job->position.step, gs_time_text(gs_time_ms(), time));
    gp_json_write_string(&text, message);
    gp_text_add(&text, "%s}", extra);
    if (text.failed) {
        gp_text_release(&text);
    }
    gs_job_event_add(job, GS_EVENT_LOG, text.data);
    gs_job_wake_streams(job);
    pthread_mutex_unlock(&job->jobs->lock);
}

void gs_job_events_cut(gs_job *job) {
    const int64_t end = GS_EVENTS_A_STEP * (gs_position_rows(&job->position) + 1);
    while (job->event_count && job->events[job->event_count - 1].id >= end) {
        free(job->events[--job->event_count].data);
    }
    job->stored = job->captured = 0; /* written again; see gs_job_write() */
    for (gs_job_stream *stream = job->streams; stream; stream = stream->next) {
        stream->next_event = stream->next_event < job->event_count ? stream->next_event : job->event_count;
    }
}

void gs_job_wake_streams(gs_job *job) {
    for (gs_job_stream *stream = job->streams; stream; stream = stream->next) {
        if (stream->waiting) {
            stream->waiting = false;
            gs_stream_wake(&stream->stream);
        }
    }
}

void gs_job_beat(gs_job *job, int64_t now_us) {
    for (gs_job_stream *stream = job->streams; stream; stream = stream->next) {
        if (stream->waiting && now_us - stream->since_us >= BEAT_US) {
            stream->beat = true;
            stream->waiting = false;
            gs_stream_wake(&stream->stream);
        }
    }
}

/* ---- a reader -------------------------------------------------------------------------------------------
 */

static void add_member(gp_text *text, const char *name, double value) {
    gp_text_add(text, ",\"%s\":", name);
    gp_json_write_number(text, value, 9);
}

static void write_metrics(gs_job_stream *s, const gs_row *row, int64_t base) {
    gp_text *text = &s->text;
    char time[GS_TIME_TEXT];
    s->at = GS_EVENTS_A_STEP * (row->item.step - base);
    gp_text_add(text,
                "id: %" PRId64 "\nevent: metrics\ndata: {\"step\":%" PRId64 ",\"model_step\":%" PRId64
                ",\"time\":\"%s\"",
                s->at, row->item.step - base, row->item.step, gs_time_text(row->item.time_ms, time));
    add_member(text, "loss", (double)row->loss);
    gp_text_add(text, ",\"lr\":");
    gp_json_write_double(text, row->lr);
    add_member(text, "grad_norm", (double)row->grad_norm);
    if (!(row->lacks >> GS_ACCURACY & 1)) {
        add_member(text, "accuracy", (double)row->accuracy);
    }
    if (!(row->lacks >> GS_SAMPLES_PER_SECOND & 1)) {
        add_member(text, "samples_per_second", (double)row->samples_per_second);
    }
    gp_text_append(text, "}\n\n", 3);
}

/* Does the history have all the steps that were taken? Not after a restart, while a job that stood further
 * waits to go on from its checkpoint. */
static bool has_rows(const gs_job_stream *s, int64_t base, int64_t rows) {
    gs_row last;
    return !s->hosted || !rows || gs_history_rows(&s->hosted->history, base + rows - 1, &last, 1);
}

/* Under the lock. An id past steps that are to be taken again would say that the reader has seen them. */
static void write_event(gs_job_stream *s, const gs_job_event *event, bool whole) {
    if (event->id > s->at && (whole || event->id / GS_EVENTS_A_STEP <= s->at / GS_EVENTS_A_STEP)) {
        s->at = event->id;
        gp_text_add(&s->text, "id: %" PRId64 "\n", event->id);
    }
    gp_text_add(&s->text, "event: %s\ndata: %s\n\n", names[event->kind], event->data);
    s->ended = s->ended || event->kind == GS_EVENT_END;
}

/* Steps up to the one that comes before the event with this id. Of a job that has ended, what has taken their
 * place since is another's. */
static void write_rows(gs_job_stream *s, int64_t base, int64_t before_id, int64_t ended_ms) {
    gs_row rows[ROWS];
    const int64_t first = s->at / GS_EVENTS_A_STEP;
    int64_t after = base + first;
    bool more = s->hosted != NULL;
    while (more && s->text.size < ENOUGH) {
        const size_t count = gs_history_rows(&s->hosted->history, after, rows, ROWS);
        more = count == ROWS;
        for (size_t i = 0; i < count; i++) {
            after = rows[i].item.step;
            if (GS_EVENTS_A_STEP * (after - base) >= before_id || s->text.size >= ENOUGH) {
                return;
            }
            if (!ended_ms || rows[i].item.time_ms <= ended_ms) {
                write_metrics(s, &rows[i], base);
            }
        }
    }
}

/* What there is now, or part of it. */
static void fill(gs_job_stream *s) {
    gs_job *job = s->job;
    pthread_mutex_lock(&job->jobs->lock);
    const int64_t base = job->position.base, rows = gs_position_rows(&job->position);
    const int64_t ended_ms = gs_job_state_is_end(job->state) ? job->ended_ms : 0;
    int64_t before = GS_EVENTS_A_STEP * (rows + 1);
    const bool event = s->next_event < job->event_count;
    s->seen_rows = rows;
    s->seen_events = job->event_count;
    if (event && job->events[s->next_event].id < before) {
        before = job->events[s->next_event].id;
    }
    pthread_mutex_unlock(&job->jobs->lock);
    if (s->at < before) {
        write_rows(s, base, before, ended_ms);
    }
    if (s->text.size >= ENOUGH || !event) {
        return;
    }
    const bool whole = ended_ms || has_rows(s, base, rows);
    pthread_mutex_lock(&job->jobs->lock);
    while (s->next_event < job->event_count && !s->ended && s->text.size < ENOUGH) {
        const gs_job_event *next = &job->events[s->next_event];
        if (next->id > before && next->id / GS_EVENTS_A_STEP > before / GS_EVENTS_A_STEP) {
            break; /* steps come before it */
        }
        if (next->id > s->at || next->kind != GS_EVENT_LOG) {
            write_event(s, next, whole);
        }
        s->next_event++;
    }
    pthread_mutex_unlock(&job->jobs->lock);
}

/* fill(), or wait for something to fill with. */
static void fill_or_wait(gs_job_stream *s) {
    gs_jobs *jobs = s->job->jobs;
    bool again = true;
    s->text.size = s->sent = 0;
    while (again) {
        fill(s);
        pthread_mutex_lock(&jobs->lock);
        if (!s->text.size && s->beat) {
            gp_text_append(&s->text, ": alive\n\n", 9);
        }
        const bool nothing = !s->text.size && !s->text.failed;
        again = nothing && (s->seen_events != s->job->event_count ||
                            s->seen_rows != gs_position_rows(&s->job->position));
        s->waiting = nothing && !again;
        s->beat = false;
        s->since_us = gs_clock_us();
        pthread_mutex_unlock(&jobs->lock);
    }
}

static ssize_t more(gs_stream *stream, char *out, size_t size) {
    gs_job_stream *s = (gs_job_stream *)stream;
    gs_jobs *jobs = s->job->jobs;
    if (s->sent == s->text.size) {
        if (s->ended || jobs->server->draining) {
            return GS_STREAM_END;
        }
        fill_or_wait(s);
        if (s->text.failed) {
            return GS_STREAM_FAILED;
        }
    }
    const size_t left = s->text.size - s->sent, count = left < size ? left : size;
    if (count) {
        memcpy(out, s->text.data + s->sent, count);
    }
    s->sent += count;
    return (ssize_t)count;
}

static void detach(gs_stream *stream) {
    gs_job_stream *s = (gs_job_stream *)stream;
    pthread_mutex_lock(&s->job->jobs->lock);
    gs_job_stream **at = &s->job->streams;
    while (*at && *at != s) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = s->next;
    }
    pthread_mutex_unlock(&s->job->jobs->lock);
}

static void free_stream(gs_stream *stream) {
    gs_job_stream *s = (gs_job_stream *)stream;
    if (s->hosted) {
        gs_hosted_unref(s->hosted);
    }
    gs_job_unref(s->job);
    gp_text_release(&s->text);
    free(s);
}

/* Under the lock: where to begin, and what is to be said at once. */
static void begin(gs_job_stream *s) {
    const gs_job *job = s->job;
    while (s->next_event < job->event_count && job->events[s->next_event].id <= s->at) {
        s->next_event++;
    }
    const bool all_seen = s->next_event == job->event_count && job->event_count;
    const int64_t end = GS_EVENTS_A_STEP * (gs_position_rows(&job->position) + 1);
    if (all_seen && (gs_job_state_is_end(job->state) || s->at >= end)) {
        s->next_event--; /* the end again; or, to one that is ahead of the job after a crash, how it is */
    }
}

int gs_job_events(gs_job *job, int64_t last_id, gs_stream **ret_stream, gp_error *error) {
    if (gs_job_load_events(job, error)) {
        return -1;
    }
    gs_job_stream *s = calloc(1, sizeof *s);
    if (!s) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    s->stream = (gs_stream){.more = more, .detach = detach, .free = free_stream};
    s->at = last_id;
    gp_text_append(&s->text, "retry: 1000\n\n", 13);
    pthread_mutex_lock(&job->jobs->lock);
    s->job = gs_job_ref(job);
    s->hosted = job->hosted;
    if (s->hosted) {
        gs_hosted_ref(s->hosted);
    }
    s->next = job->streams;
    job->streams = s;
    begin(s);
    pthread_mutex_unlock(&job->jobs->lock);
    if (!s->hosted) {
        s->hosted = gs_models_find(&job->jobs->server->models, job->spec.model);
        if (s->hosted && (int64_t)s->hosted->id != job->model_id) {
            gs_hosted_unref(s->hosted);
            s->hosted = NULL;
        }
    }
    *ret_stream = &s->stream;
    return 0;
}
