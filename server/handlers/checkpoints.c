/* checkpoints.c -- take, list, show, download, delete and restore a model's checkpoints. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "change.h"
#include "handlers.h"

enum { DEFAULT_LIMIT = 100, MAX_LIMIT = 1000, MAX_NOTE = sizeof((gs_checkpoint *)0)->note - 1 };

static json_t *checkpoint_json(const gs_checkpoint *c) {
    char time[GS_TIME_TEXT];
    return json_pack("{s:I, s:s, s:s, s:I, s:s, s:I, s:s, s:o, s:o, s:s, s:b}", "id", (json_int_t)c->id,
                     "name", c->name, "kind", gs_checkpoint_kind_name(c->kind), "step", (json_int_t)c->step,
                     "created_at", gs_time_text(c->created_ms, time), "bytes", (json_int_t)c->bytes, "sha256",
                     c->sha256, "job", c->job ? json_integer(c->job) : json_null(), "metric",
                     isnan(c->metric) ? json_null() : gp_json_number(c->metric), "note", c->note, "damaged",
                     c->damaged);
}

/* The one that the path names. @return 0; -1: 404 */
static int find(gs_request *request, gs_checkpoint *ret_checkpoint, gp_error *error) {
    const char *name = request->variables[1];
    size_t count;
    if (gs_checkpoint_list(request->model, name, 0, ret_checkpoint, 1, &count, error)) {
        return -1;
    }
    return count ? 0
                 : gp_fail(error, GP_NOT_FOUND, "",
                           "the model \"%s\" has no checkpoint named \"%s\"; GET /v1/models/%s/checkpoints "
                           "lists them",
                           request->model->name, name, request->model->name);
}

/* ---- taking one --------------------------------------------------------------------------------------- */

/* A checkpoint whose reply is made once it is written, within its transaction. */
typedef struct taking {
    gs_request *request;
    gs_snapshot *snapshot;
    gs_effect effect; /* of the snapshot */
} taking;

static int write_taking(gs_store *store, void *argument, gp_error *error) {
    taking *t = argument;
    const gs_checkpoint *checkpoint = gs_snapshot_checkpoint(t->snapshot);
    if (t->effect.write(store, t->effect.argument, error)) {
        return -1;
    }
    gs_reply *reply = &t->request->reply;
    snprintf(reply->location, sizeof reply->location, "/v1/models/%s/checkpoints/%s", t->request->model->name,
             checkpoint->name);
    return gs_reply_json(t->request, 201, checkpoint_json(checkpoint), error);
}

static void settle_taking(void *argument, bool committed) {
    taking *t = argument;
    t->effect.settle(t->effect.argument, committed);
    free(t);
}

/* {"name"?, "note"?}; both borrowed from the body. */
static int read_spec(json_t *body, gs_snapshot_spec *spec, gp_error *error) {
    const json_t *name = json_object_get(body, "name"), *note = json_object_get(body, "note");
    if (gs_check_members(body, "name note", error)) {
        return -1;
    }
    if (name && (!json_is_string(name) || !gp_name_ok(json_string_value(name)))) {
        return gp_fail(error, GP_INVALID_NAME, "/name",
                       "name must be 1 to 64 letters, digits, \".\", \"_\" or \"-\", the first a letter or "
                       "digit");
    }
    if (name && !strcmp(json_string_value(name), "best")) {
        return gp_fail(error, GP_INVALID_NAME, "/name",
                       "\"best\" is the name of the checkpoint that was best by a job's evaluation");
    }
    if (note && (!json_is_string(note) || json_string_length(note) > MAX_NOTE)) {
        return gp_fail(error, GP_INVALID_VALUE, "/note", "note must be a string of at most %d bytes",
                       (int)MAX_NOTE);
    }
    *spec = (gs_snapshot_spec){
        .kind = GS_CHECKPOINT_MANUAL, .name = json_string_value(name), .note = json_string_value(note)};
    return 0;
}

static int take(gs_request *request, const gs_snapshot_spec *spec, gp_error *error) {
    taking *t = calloc(1, sizeof *t);
    if (!t || gs_snapshot_take(request->model, spec, &t->snapshot, error)) {
        free(t);
        return error->problem ? -1 : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    t->request = request;
    t->effect = gs_snapshot_effect(t->snapshot);
    return gs_effect_add(request, (gs_effect){.write = write_taking, .settle = settle_taking, .argument = t},
                         error);
}

int gs_handle_checkpoint_create(gs_request *request, gp_error *error) {
    json_t *body = NULL;
    gs_snapshot_spec spec;
    int result =
        gs_body_json(request, &body, error) || read_spec(body, &spec, error) || take(request, &spec, error)
            ? -1
            : 0;
    json_decref(body);
    return result;
}

/* ---- looking at them ------------------------------------------------------------------------------------
 */

int gs_handle_checkpoint_list(gs_request *request, gp_error *error) {
    int64_t limit, before;
    size_t count = 0;
    if (gs_query_integer(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT, &limit, error) ||
        gs_query_integer(request, "cursor", 0, 1, INT64_MAX, &before, error)) {
        return -1;
    }
    gs_checkpoint *page = calloc((size_t)limit + 1, sizeof *page);
    json_t *items = json_array();
    int result = !page || !items ? gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory")
                                 : gs_checkpoint_list(request->model, NULL, before, page, (size_t)limit + 1,
                                                      &count, error);
    if (!result) {
        bool more = count > (size_t)limit;
        char next[24];
        snprintf(next, sizeof next, "%" PRId64, more ? page[limit - 1].id : 0);
        for (size_t i = 0; i < count - more; i++) {
            json_array_append_new(items, checkpoint_json(&page[i]));
        }
        result = gs_reply_json(
            request, 200,
            json_pack("{s:O, s:o}", "items", items, "next_cursor", more ? json_string(next) : json_null()),
            error);
    }
    json_decref(items);
    free(page);
    return result;
}

int gs_handle_checkpoint_show(gs_request *request, gp_error *error) {
    gs_checkpoint found;
    if (find(request, &found, error)) {
        return -1;
    }
    if (request->accept == GS_MEDIA_JSON) {
        return gs_reply_json(request, 200, checkpoint_json(&found), error);
    }
    int fd = gs_checkpoint_file(request->model, &found, error);
    if (fd < 0) {
        return -1;
    }
    char etag[96];
    snprintf(etag, sizeof etag, "\"%s\"", found.sha256);
    gs_reply_etag(request, etag);
    return gs_reply_file(request, GS_MEDIA_SAFETENSORS, fd, (size_t)found.bytes);
}

/* ---- deleting one -----------------------------------------------------------------------------------------
 */

/* A checkpoint that goes. */
typedef struct removal {
    gs_hosted *hosted; /* the request has a reference */
    int64_t id;
    gs_effect effect; /* of an autosave that takes its place, or nothing */
} removal;

static int write_removal(gs_store *store, void *argument, gp_error *error) {
    removal *r = argument;
    return (r->effect.write && r->effect.write(store, r->effect.argument, error)) ||
                   gs_sql(store, error, "DELETE FROM checkpoints WHERE id = ?", "i", r->id)
               ? -1
               : 0;
}

static void settle_removal(void *argument, bool committed) {
    removal *r = argument;
    char name[64];
    if (r->effect.settle) {
        r->effect.settle(r->effect.argument, committed);
    }
    if (committed) {
        gs_checkpoint_file_name(r->id, name, sizeof name);
        gs_file_remove(r->hosted->models->server->store, GS_FOLDER_CHECKPOINTS, name);
    }
    free(r);
}

/* Where the newest one goes, which is the state that the model would come back with, another one is taken. */
static int take_its_place(removal *r, gp_error *error) {
    static const gs_snapshot_spec autosave = {.kind = GS_CHECKPOINT_AUTOSAVE, .keep = GS_KEEP_AUTOSAVES};
    gs_checkpoint newest;
    gs_snapshot *snapshot;
    size_t count;
    if (r->hosted->models->server->config.ephemeral) {
        return 0;
    }
    if (gs_checkpoint_list(r->hosted, NULL, 0, &newest, 1, &count, error)) {
        return -1;
    }
    if (!count || newest.id != r->id) {
        return 0;
    }
    if (gs_snapshot_take(r->hosted, &autosave, &snapshot, error)) {
        return -1;
    }
    r->effect = gs_snapshot_effect(snapshot);
    return 0;
}

int gs_handle_checkpoint_delete(gs_request *request, gp_error *error) {
    gs_checkpoint found;
    const int64_t job = atomic_load(&request->model->job);
    if (find(request, &found, error)) {
        return -1;
    }
    if (job && found.job == job) {
        return gp_fail(error, GP_CONFLICT, "",
                       "job %" PRId64 " may go on from this checkpoint; wait for its end", job);
    }
    removal *r = calloc(1, sizeof *r);
    if (!r) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    r->hosted = request->model;
    r->id = found.id;
    if (take_its_place(r, error)) {
        free(r);
        return -1;
    }
    gs_reply_nothing(request);
    return gs_effect_add(request,
                         (gs_effect){.write = write_removal, .settle = settle_removal, .argument = r}, error);
}

/* ---- going back to one
 * -------------------------------------------------------------------------------------- */

static int restore(gs_request *request, gs_restored *restored, gp_error *error) {
    gs_hosted *hosted = request->model;
    gs_change undo;
    if (gs_metrics_store(hosted, error) || gs_change_begin(hosted, &undo, error)) {
        return -1;
    }
    if (gs_checkpoint_put(hosted, restored, error)) {
        if (error->problem == GP_DAMAGED) {
            gs_checkpoint_mark(request->server, &restored->checkpoint, hosted->name, error);
        }
        gs_change_drop(&undo);
        return -1;
    }
    if (gs_reply_model(request, 200, hosted, error)) {
        gs_change_undo(&undo);
        return -1;
    }
    return gs_change_commit_restored(request, &undo, error);
}

int gs_handle_checkpoint_restore(gs_request *request, gp_error *error) {
    json_t *body = NULL;
    gs_restored restored;
    int result = -1;
    if (!gs_body_json(request, &body, error) && !gs_check_members(body, "", error) &&
        !gs_checkpoint_open(request->model, request->variables[1], 0, &restored, error)) {
        result = restore(request, &restored, error);
        gs_restored_release(&restored);
    }
    json_decref(body);
    return result;
}
