/* models.c -- define, list, show, change and delete models. */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "change.h"
#include "handlers.h"
#include "server/definition.h"
#include "server/jobs.h"

enum { DEFAULT_LIMIT = 100, MAX_LIMIT = 1000 };

static json_t *input_json(const gd_input_spec *input) {
    return json_pack("{s:o, s:s}", "shape", gp_shape_json(&input->shape), "dtype",
                     gd_dtype_name(input->dtype));
}

/* "input" of a network with one, "inputs" by name of one with several. */
static int set_inputs(json_t *json, const gd_graph *graph) {
    size_t count = gd_graph_input_count(graph);
    if (count == 1 && !strcmp(gd_graph_input(graph, 0)->name, "input")) {
        return json_object_set_new(json, "input", input_json(gd_graph_input(graph, 0)));
    }
    json_t *inputs = json_object();
    for (size_t i = 0; i < count; i++) {
        const gd_input_spec *input = gd_graph_input(graph, i);
        if (json_object_set_new(inputs, input->name, input_json(input))) {
            json_decref(inputs);
            return -1;
        }
    }
    return json_object_set_new(json, "inputs", inputs);
}

static json_t *parameters_json(const gd_model *model) {
    json_int_t count = 0, numel = 0, trainable = 0;
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        count += !parameter->buffer;
        numel += parameter->buffer ? 0 : parameter->numel;
        trainable += parameter->requires_grad && !parameter->buffer ? parameter->numel : 0;
    }
    return json_pack("{s:I, s:I, s:I}", "count", count, "numel", numel, "trainable", trainable);
}

/* ---- the document: what GET /v1/models/{m} shows ---------------------------------------------------------
 */

static json_t *identity_json(const char *name, uint64_t seed, int64_t created_ms, const gd_graph *graph) {
    char time[GS_TIME_TEXT];
    return json_pack("{s:s, s:s, s:s, s:I}", "name", name, "class_name", gd_graph_class_name(graph),
                     "created_at", gs_time_text(created_ms, time), "seed", (json_int_t)seed);
}

static json_t *structure_json(const gd_graph *graph) {
    char *repr = gd_graph_repr(graph);
    json_t *json = json_object();
    bool failed =
        !json || !repr || set_inputs(json, graph) ||
        json_object_set_new(json, "output",
                            json_pack("{s:o}", "shape", gp_shape_json(&gd_graph_output(graph, 0)->shape))) ||
        (gd_graph_names_outputs(graph) && json_object_set_new(json, "outputs", gp_outputs_json(graph))) ||
        json_object_set_new(json, "layers", gp_layers_json(graph)) ||
        json_object_set_new(json, "repr", json_string(repr));
    free(repr);
    if (failed) {
        json_decref(json);
        return NULL;
    }
    return json;
}

static json_t *settings_json(const gd_model *model) {
    return json_pack("{s:o, s:o, s:o, s:o}", "parameters", parameters_json(model), "loss",
                     gp_loss_json(model), "optimizer", gp_optimizer_json(model), "scheduler",
                     gp_schedule_json(gd_model_scheduler(model)));
}

/* An object's members in place of what the text has. Takes over `json`. @return 0; -1: no memory */
static int set_members(gp_text *text, json_t *json) {
    char *whole = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    text->size = 0;
    if (whole) {
        gp_text_append(text, whole + 1, strlen(whole) - 2);
    }
    free(whole);
    return whole && !text->failed ? 0 : -1;
}

/* Bring it up to the model. @return 0; -1: no memory, and nothing of it holds */
static int renew(gs_document *document, const char *name, uint64_t seed, int64_t created_ms,
                 const gd_model *model) {
    const gd_graph *graph = gd_model_graph(model);
    const uint64_t version = gd_model_version(model);
    bool failed = false;
    if (!document->structure.size) {
        failed = set_members(&document->identity, identity_json(name, seed, created_ms, graph)) ||
                 set_members(&document->structure, structure_json(graph));
    }
    if (!failed && (!document->settings.size || document->version != version)) {
        failed = set_members(&document->settings, settings_json(model)) != 0;
        document->version = version;
    }
    if (failed) {
        gs_document_clear(document);
    }
    return failed ? -1 : 0;
}

static void append(gp_text *text, const char *between, const gp_text *members) {
    gp_text_append(text, between, strlen(between));
    gp_text_append(text, members->data, members->size);
}

/* @param document an older one of this model, or none; it is brought up to the model */
static int reply_document(gs_request *request, int status, gs_document *document, const char *name,
                          uint64_t seed, int64_t created_ms, const gd_model *model, size_t memory,
                          gp_error *error) {
    gp_text text = {.data = NULL};
    if (renew(document, name, seed, created_ms, model)) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    append(&text, "{", &document->identity);
    gp_text_add(&text, ",\"version\":%" PRIu64 ",\"step\":%" PRId64 ",\"training\":%s",
                gd_model_version(model), gd_model_steps(model), gd_model_training(model) ? "true" : "false");
    append(&text, ",", &document->structure);
    append(&text, ",", &document->settings);
    gp_text_add(&text, ",\"memory_bytes\":%zu}", memory);
    return gs_reply_text(request, status, GS_MEDIA_JSON, &text, error);
}

int gs_reply_model(gs_request *request, int status, gs_hosted *hosted, gp_error *error) {
    char etag[96];
    gs_hosted_etag(hosted, etag, sizeof etag);
    gs_reply_etag(request, etag);
    return reply_document(request, status, &hosted->document, hosted->name, hosted->seed, hosted->created_ms,
                          hosted->model, gs_hosted_memory(hosted), error);
}

/* What would be made. With a batch, memory_bytes is what a model holds, with the bodies that it reads, once
 * it has trained on so many samples. */
static int reply_dry_run(gs_request *request, const gp_model *definition, const gd_model *model,
                         int64_t batch, gp_error *error) {
    const gd_graph *graph = gd_model_graph(model);
    const gd_model_config *config = &definition->config;
    gd_error cause = GD_ERROR_INIT;
    size_t held = 0, bytes = gd_model_memory(model);
    if (batch && (gd_graph_memory(request->server->engine, graph, config, batch, &bytes, &cause) ||
                  gd_graph_batch_bytes(graph, &config->loss, batch, &held, &cause))) {
        return gp_fail_engine(error, &cause, "");
    }
    gs_document document = {.version = 0};
    int result = reply_document(request, 200, &document, definition->name, config->seed, gs_time_ms(), model,
                                bytes + held, error);
    gs_document_clear(&document);
    return result;
}

/* ---- making them --------------------------------------------------------------------------------------- */

static int write_model(gs_store *store, void *argument, gp_error *error) {
    const gs_hosted *hosted = argument;
    gp_error why = {0};
    if (!gs_sql(store, &why,
                "INSERT INTO models(id, name, definition, seed, created_ms) VALUES(?, ?, ?, ?, ?)", "issii",
                (int64_t)hosted->id, hosted->name, hosted->definition, (int64_t)hosted->seed,
                hosted->created_ms)) {
        return 0;
    }
    return why.problem == GP_CONFLICT
               ? gp_fail(
                     error, GP_NAME_TAKEN, "/name",
                     "there is a model named \"%s\" in the data directory, which could not be brought back "
                     "when the daemon started (see its log); take another name",
                     hosted->name)
               : gp_fail(error, why.problem, "", "%s", why.detail);
}

/* From here on others may use it. Its name is free: only the common queue, in whose turn this is, adds
 * models.
 */
static void settle_model(void *argument, bool committed) {
    gs_hosted *hosted = argument;
    if (committed) {
        gs_models_add(hosted->models, hosted, NULL);
    }
    gs_hosted_unref(hosted);
}

/* Host a new model, if its effects can be committed. Takes over the reference. */
static int add_model(gs_request *request, gs_hosted *hosted, gp_error *error) {
    const gs_effect effect = {.write = write_model, .settle = settle_model, .argument = hosted};
    snprintf(request->reply.location, sizeof request->reply.location, "/v1/models/%s", hosted->name);
    if (gs_reply_model(request, 201, hosted, error)) {
        gs_hosted_unref(hosted);
        return -1;
    }
    return gs_effect_add(request, effect, error);
}

static int create(gs_request *request, json_t *body, bool dry_run, int64_t batch, gp_error *error) {
    gs_models *models = &request->server->models;
    gp_model definition;
    gd_model *model = NULL;
    char *text = NULL;
    gs_hosted *hosted = NULL;
    int result = -1;
    if (gp_model_read(body, &definition, error)) {
        return -1;
    }
    if (gs_models_check(models, definition.name, error) ||
        gs_model_build(request->server->engine, &definition, &model, error)) {
        goto out;
    }
    if (dry_run) {
        result = reply_dry_run(request, &definition, model, batch, error);
        goto out;
    }
    text = gs_definition_text(body, NULL);
    hosted = text ? gs_hosted_new(models, 0, definition.name, model, text, definition.config.seed) : NULL;
    if (!hosted) {
        gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
        goto out;
    }
    model = NULL; /* hosted has them */
    text = NULL;
    result = add_model(request, hosted, error);
out:
    free(text);
    gd_model_free(model);
    gp_model_release(&definition);
    return result;
}

/* "lenet/best": a model and one of its checkpoints. */
static int open_source(gs_request *request, const char *source, gs_restored *ret_restored, gp_error *error) {
    char name[65];
    const char *slash = strchr(source, '/');
    snprintf(name, sizeof name, "%.*s", (int)strcspn(source, "/"), source);
    if (!slash || slash - source >= (int)sizeof name || !gp_name_ok(name) || !gp_name_ok(slash + 1)) {
        return gp_fail(error, GP_INVALID_VALUE, "",
                       "the query parameter from_checkpoint must be MODEL/CHECKPOINT, not \"%.140s\"",
                       source);
    }
    gs_hosted *hosted = gs_models_find(&request->server->models, name);
    if (!hosted) {
        return gp_fail(error, GP_NOT_FOUND, "", "there is no model named \"%s\"", name);
    }
    int result = gs_checkpoint_open(hosted, slash + 1, 0, ret_restored, error);
    gs_hosted_unref(hosted);
    return result;
}

/* A model that goes on from a checkpoint of another one. */
static int create_from(gs_request *request, const char *source, json_t *body, gp_error *error) {
    static const gs_snapshot_spec first = {.kind = GS_CHECKPOINT_AUTOSAVE, .keep = GS_KEEP_AUTOSAVES};
    const json_t *name = json_object_get(body, "name");
    gs_restored restored = {.data = NULL};
    gs_hosted *hosted = NULL;
    gs_snapshot *snapshot;
    if (gs_check_members(body, "name", error)) {
        return -1;
    }
    if (name && (!json_is_string(name) || !gp_name_ok(json_string_value(name)))) {
        return gp_fail(error, GP_INVALID_NAME, "/name",
                       "name must be 1 to 64 letters, digits, \".\", \"_\" or \"-\", the first a letter or "
                       "digit");
    }
    if (open_source(request, source, &restored, error)) {
        return -1;
    }
    int result =
        gs_checkpoint_build(&request->server->models, &restored, 0, json_string_value(name), &hosted, error);
    gs_restored_release(&restored);
    if (result) {
        return -1;
    }
    if (gs_models_check(hosted->models, hosted->name, error) ||
        gs_snapshot_take(hosted, &first, &snapshot, error)) {
        gs_hosted_unref(hosted);
        return -1;
    }
    if (add_model(request, hosted, error)) {
        gs_snapshot_free(snapshot);
        return -1;
    }
    return gs_effect_add(request, gs_snapshot_effect(snapshot), error);
}

int gs_handle_model_create(gs_request *request, gp_error *error) {
    json_t *body = NULL;
    bool dry_run;
    int64_t batch;
    const char *source = gs_uri_find(&request->uri, "from_checkpoint");
    if (gs_query_bool(request, "dry_run", false, &dry_run, error) ||
        gs_query_integer(request, "batch", 0, 0, INT32_MAX, &batch, error)) {
        return -1;
    }
    if (batch && !dry_run) {
        return gp_fail(error, GP_INVALID_VALUE, "", "the query parameter batch belongs to dry_run=true");
    }
    if (source && dry_run) {
        return gp_fail(error, GP_INVALID_VALUE, "", "give from_checkpoint or dry_run, not both");
    }
    int result = gs_body_json(request, &body, error);
    if (!result) {
        result =
            source ? create_from(request, source, body, error) : create(request, body, dry_run, batch, error);
    }
    json_decref(body);
    return result;
}

/* ---- looking at them -------------------------------------------------------------------------------------
 */

static void add_summary(gp_text *text, gs_hosted *hosted) {
    char time[GS_TIME_TEXT];
    gs_summary summary = gs_hosted_summary(hosted);
    gp_text_add(text, "{\"name\":\"%s\",\"class_name\":", hosted->name);
    gp_json_write_string(text, hosted->class_name);
    gp_text_add(text,
                ",\"created_at\":\"%s\",\"version\":%" PRIu64 ",\"step\":%" PRId64
                ",\"training\":%s,\"parameters\":{\"count\":%zu,\"numel\":%" PRId64 "},\"memory_bytes\":%zu}",
                gs_time_text(hosted->created_ms, time), summary.version, summary.step,
                summary.training ? "true" : "false", summary.parameters, summary.numel, summary.memory);
}

int gs_handle_model_list(gs_request *request, gp_error *error) {
    gs_hosted *page[MAX_LIMIT + 1];
    int64_t limit;
    if (gs_query_integer(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT, &limit, error)) {
        return -1;
    }
    const char *cursor = gs_uri_find(&request->uri, "cursor"); /* the last name of the page before */
    if (cursor && !gp_name_ok(cursor)) {
        return gp_fail(error, GP_INVALID_VALUE, "", "cursor is not the next_cursor of a list of models");
    }
    size_t count = gs_models_list(&request->server->models, cursor ? cursor : "", page, (size_t)limit + 1);
    gp_text text = {0};
    bool more = count > (size_t)limit;
    const char *last = more ? page[limit - 1]->name : NULL;
    for (size_t i = 0; i < count - more; i++) {
        gp_text_add(&text, i ? "," : "{\"items\":[");
        add_summary(&text, page[i]);
    }
    gp_text_add(&text, count ? "]" : "{\"items\":[]");
    gp_text_add(&text, last ? ",\"next_cursor\":\"%s\"}" : ",\"next_cursor\":null}%s", last ? last : "");
    for (size_t i = 0; i < count; i++) {
        gs_hosted_unref(page[i]);
    }
    return gs_reply_text(request, 200, GS_MEDIA_JSON, &text, error);
}

int gs_handle_model_show(gs_request *request, gp_error *error) {
    return gs_reply_model(request, 200, request->model, error);
}

/* Change the model, and its definition. */
static int change(gs_request *request, json_t *body, const gd_model_patch *patch, gp_error *error) {
    gs_hosted *hosted = request->model;
    gs_change undo;
    gd_error cause = GD_ERROR_INIT;
    const void *attrs;
    const gd_kind *kind = gd_model_optimizer_kind(hosted->model, &attrs);
    if (gs_change_begin(hosted, &undo, error)) {
        return -1;
    }
    if (gd_model_change(hosted->model, patch, &cause)) {
        gs_change_drop(&undo);
        return gp_fail_engine(error, &cause, "");
    }
    bool merges = kind == gd_model_optimizer_kind(hosted->model, &attrs);
    char *definition = gs_definition_patched(hosted->definition, body, merges);
    if (!definition || gs_reply_model(request, 200, hosted, error)) {
        free(definition);
        gs_change_undo(&undo);
        return error->problem ? -1 : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    free(hosted->definition);
    hosted->definition = definition;
    return gs_change_commit(request, &undo, error);
}

int gs_handle_model_patch(gs_request *request, gp_error *error) {
    json_t *body = NULL;
    gp_loss_spec loss = {.memory = NULL};
    gp_optimizer_spec optimizer = {.memory = NULL};
    gp_scheduler_spec scheduler = {.memory = NULL};
    gd_model_patch patch = {0};
    bool training;
    int result = -1;
    if (gs_body_json(request, &body, error) ||
        gs_check_members(body, "training loss optimizer scheduler", error)) {
        goto out;
    }
    const json_t *mode = json_object_get(body, "training");
    json_t *loss_json = json_object_get(body, "loss"), *optimizer_json = json_object_get(body, "optimizer");
    json_t *scheduler_json = json_object_get(body, "scheduler");
    if (mode && !json_is_boolean(mode)) {
        gp_fail(error, GP_INVALID_VALUE, "/training", "training must be true or false");
        goto out;
    }
    if ((loss_json && gp_loss_spec_read(loss_json, "/loss", &loss, error)) ||
        (optimizer_json && gp_optimizer_spec_read(optimizer_json, "/optimizer", &optimizer, error)) ||
        (scheduler_json && gp_scheduler_spec_read(scheduler_json, "/scheduler", &scheduler, error))) {
        goto out;
    }
    training = json_is_true(mode);
    patch.training = mode ? &training : NULL;
    patch.loss = loss_json ? &loss.spec : NULL;
    patch.optimizer = optimizer_json ? &optimizer.spec : NULL;
    patch.scheduler = scheduler_json ? &scheduler.spec : NULL;
    result = change(request, body, &patch, error);
out:
    gp_loss_spec_release(&loss);
    gp_optimizer_spec_release(&optimizer);
    gp_scheduler_spec_release(&scheduler);
    json_decref(body);
    return result;
}

/* A model that goes, with its row and files. */
typedef struct removal {
    gs_hosted *hosted; /* the request has a reference */
    int64_t *checkpoints;
    size_t count;
} removal;

static int write_removal(gs_store *store, void *argument, gp_error *error) {
    removal *r = argument;
    const int64_t model = (int64_t)r->hosted->id;
    sqlite3_stmt *row = gs_sql_query(store, error, "SELECT id FROM checkpoints WHERE model = ?", "i", model);
    int more = row ? 1 : -1;
    while (more > 0 && (more = gs_sql_row(store, row, error)) > 0) {
        int64_t *grown = reallocarray(r->checkpoints, r->count + 1, sizeof *grown);
        if (!grown) {
            return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
        }
        r->checkpoints = grown;
        grown[r->count++] = sqlite3_column_int64(row, 0);
    }
    return more ? -1 : gs_sql(store, error, "DELETE FROM models WHERE id = ?", "i", model);
}

static void settle_removal(void *argument, bool committed) {
    removal *r = argument;
    gs_server *server = r->hosted->models->server;
    for (size_t i = 0; i < r->count && committed; i++) {
        char name[64];
        gs_checkpoint_file_name(r->checkpoints[i], name, sizeof name);
        gs_file_remove(server->store, GS_FOLDER_CHECKPOINTS, name);
    }
    if (committed) {
        gs_models_remove(&server->models, r->hosted);
        gs_jobs_model_gone(server->jobs, r->hosted);
        gs_idempotency_forget(server->idempotency, r->hosted->id, 0);
    }
    free(r->checkpoints);
    free(r);
}

int gs_handle_model_delete(gs_request *request, gp_error *error) {
    bool force;
    if (gs_query_bool(request, "force", false, &force, error)) {
        return -1;
    }
    const int64_t job = gs_jobs_on_model(request->server->jobs, request->model);
    if (job && !force) {
        return gp_fail(error, GP_CONFLICT, "",
                       "job %" PRId64 " is on the model \"%s\"; cancel it first, or give ?force=true", job,
                       request->model->name);
    }
    removal *r = calloc(1, sizeof *r);
    if (!r) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    r->hosted = request->model;
    gs_reply_nothing(request);
    const gs_effect effect = {.write = write_removal, .settle = settle_removal, .argument = r};
    return gs_effect_add(request, effect, error);
}
