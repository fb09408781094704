/* jobs.c -- training that runs in the daemon: post, look, wait, cancel, pause, resume, follow. */
#include "server/jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"

enum { DEFAULT_LIMIT = 100, MAX_LIMIT = 1000, MAX_WAIT = 60 /* seconds */ };

/* The job that the path names, with a reference. */
static gs_job *find_job(const gs_request *request, gp_error *error) {
    char *end;
    const char *text = request->variables[0];
    long long id = strtoll(text, &end, 10);
    gs_job *job = *end || *text < '0' || *text > '9' ? NULL : gs_jobs_find(request->server->jobs, id);
    if (!job) {
        gp_fail(error, GP_NOT_FOUND, "", "there is no job %.32s", text);
    }
    return job;
}

static int reply_job(gs_request *request, int status, gs_job *job, gs_job_state state, gp_error *error) {
    char etag[96];
    json_t *json = gs_job_json(job, etag);
    if (json && state != GS_JOB_STATE_COUNT) { /* that it has when this is committed */
        json_object_set_new(json, "state", json_string(gs_job_state_name(state)));
    } else {
        gs_reply_etag(request, etag);
    }
    return gs_reply_json(request, status, json, error);
}

/* In two turns: the common one, which reads the body and finds the model, and then the model's. */
int gs_handle_job_create(gs_request *request, gp_error *error) {
    gs_job_spec spec = {.json = NULL};
    json_t *body = NULL;
    gs_job *job = NULL;
    int result = gs_body_json(request, &body, error);
    if (!result) {
        result = gs_job_spec_read(body, &spec, error);
    }
    if (!result && !request->model) {
        request->model = gs_models_find(&request->server->models, spec.model);
        request->moves = request->model != NULL;
        result = request->model
                     ? 0
                     : gp_fail(error, GP_NOT_FOUND, "/model", "there is no model named \"%s\"", spec.model);
        goto out;
    }
    if (!result && !(result = gs_job_post(request, &spec, &job, error))) {
        snprintf(request->reply.location, sizeof request->reply.location, "/v1/jobs/%" PRId64,
                 gs_job_id(job));
        result = reply_job(request, 202, job, GS_JOB_QUEUED, error);
    }
out:
    gs_job_unref(job);
    gs_job_spec_release(&spec);
    json_decref(body);
    return result;
}

int gs_handle_job_list(gs_request *request, gp_error *error) {
    gs_job *page[MAX_LIMIT + 1];
    int64_t limit, before;
    const char *state_name = gs_uri_find(&request->uri, "state"),
               *model = gs_uri_find(&request->uri, "model");
    const gs_job_state state = state_name ? gs_job_state_find(state_name) : GS_JOB_STATE_COUNT;
    if (gs_query_integer(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT, &limit, error) ||
        gs_query_integer(request, "cursor", INT64_MAX, 1, INT64_MAX, &before, error)) {
        return -1;
    }
    if (state_name && state == GS_JOB_STATE_COUNT) {
        return gp_fail(error, GP_INVALID_VALUE, "",
                       "the query parameter state must be queued, running, pausing, paused, cancelling, "
                       "succeeded, failed or cancelled, not \"%.32s\"",
                       state_name);
    }
    size_t count = gs_jobs_list(request->server->jobs, before, state, model, page, (size_t)limit + 1);
    const bool more = count > (size_t)limit;
    json_t *items = json_array(), *next = more ? NULL : json_null();
    for (size_t i = 0; i < count; i++) {
        if (i < (size_t)limit) {
            json_array_append_new(items, gs_job_json(page[i], NULL));
        }
    }
    if (more) {
        char text[32];
        snprintf(text, sizeof text, "%" PRId64, gs_job_id(page[limit - 1]));
        next = json_string(text);
    }
    for (size_t i = 0; i < count; i++) {
        gs_job_unref(page[i]);
    }
    return gs_reply_json(request, 200, json_pack("{s:o, s:o}", "items", items, "next_cursor", next), error);
}

/* Seconds of "Prefer: wait=30", 60 at most; 0: none. */
static double wanted_wait(const char *prefer) {
    for (const char *at = prefer ? prefer : ""; *at; at += strcspn(at, ",;"), at += *at != '\0') {
        at += strspn(at, " \t");
        if (!strncmp(at, "wait=", 5)) {
            const double seconds = strtod(at + 5, NULL);
            return seconds > MAX_WAIT ? MAX_WAIT : seconds > 0 ? seconds : 0;
        }
    }
    return 0;
}

int gs_handle_job_show(gs_request *request, gp_error *error) {
    gs_job *job = find_job(request, error);
    if (!job) {
        gs_job_unref(request->parked_on);
        request->parked_on = NULL;
        return -1;
    }
    const double seconds = wanted_wait(request->headers.prefer);
    const bool waits = seconds > 0 && !request->unparked &&
                       gs_job_wait(job, request, request->headers.if_none_match, seconds);
    int result = waits ? 0 : reply_job(request, 200, job, GS_JOB_STATE_COUNT, error);
    if (!waits) {
        gs_job_unref(request->parked_on);
        request->parked_on = NULL;
    }
    gs_job_unref(job);
    return result;
}

static int act(gs_request *request, gs_job_action action, gp_error *error) {
    json_t *body = NULL;
    gs_job_state state;
    gs_job *job = find_job(request, error);
    int result = !job || gs_body_json(request, &body, error) || gs_check_members(body, "", error) ||
                         gs_job_ask(request, job, action, &state, error)
                     ? -1
                     : reply_job(request, 202, job, state, error);
    gs_job_unref(job);
    json_decref(body);
    return result;
}

int gs_handle_job_cancel(gs_request *request, gp_error *error) {
    return act(request, GS_JOB_CANCEL, error);
}

int gs_handle_job_pause(gs_request *request, gp_error *error) {
    return act(request, GS_JOB_PAUSE, error);
}

int gs_handle_job_resume(gs_request *request, gp_error *error) {
    return act(request, GS_JOB_RESUME, error);
}

int gs_handle_job_events(gs_request *request, gp_error *error) {
    const char *header = request->headers.last_event_id;
    int64_t last = 0;
    gs_stream *stream = NULL;
    if (gs_query_integer(request, "last_event_id", 0, 0, INT64_MAX, &last, error)) {
        return -1;
    }
    if (header && *header) { /* what a browser sends when it connects again is newer than the URL */
        char *end;
        last = strtoll(header, &end, 10);
        if (*end || last < 0) {
            return gp_fail(error, GP_INVALID_VALUE, "",
                           "Last-Event-ID must be the id of an event, not \"%.32s\"", header);
        }
    }
    gs_job *job = find_job(request, error);
    int result = job ? gs_job_events(job, last, &stream, error) : -1;
    gs_job_unref(job);
    return result ? result : gs_reply_stream(request, GS_MEDIA_EVENTS, stream);
}
