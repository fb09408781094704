/* server.c -- health, version, what kinds there are, the document and the pages. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"

static int reply_literal(gs_request *request, gs_media media, const char *text) {
    return gs_reply_static(request, media, text, strlen(text));
}

int gs_handle_health_live(gs_request *request, gp_error *error) {
    (void)error;
    return reply_literal(request, GS_MEDIA_JSON, "{\"status\":\"ok\"}");
}

int gs_handle_health_ready(gs_request *request, gp_error *error) {
    if (request->server->draining) {
        return gp_fail(error, GP_DRAINING, "", "the daemon is shutting down");
    }
    char trouble[sizeof error->detail];
    if (gs_store_trouble(request->server->store, trouble, sizeof trouble)) {
        return gp_fail(error, GP_STORAGE_FAILED, "", "%s", trouble);
    }
    return reply_literal(request, GS_MEDIA_JSON, "{\"status\":\"ok\"}");
}

int gs_handle_openapi(gs_request *request, gp_error *error) {
    (void)error;
    return gs_reply_static(request, GS_MEDIA_JSON, gp_openapi, gp_openapi_size);
}

int gs_handle_dashboard(gs_request *request, gp_error *error) {
    (void)error;
    return reply_literal(
        request, GS_MEDIA_HTML,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>gradd</title>"
        "<h1>gradd</h1><p>A training daemon. <a href=\"/docs\">The API</a>, "
        "<a href=\"/v1/models\">the models</a>, <a href=\"/metrics\">metrics</a>.</p></html>\n");
}

/* One line for each route. The table's texts are ours and have no markup. */
int gs_handle_docs(gs_request *request, gp_error *error) {
    gp_text text = {0};
    gp_text_add(
        &text, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>gradd: the API</title>"
               "<h1>gradd: the API</h1><p>In full: <a href=\"/openapi.json\">/openapi.json</a></p><table>\n");
    for (size_t i = 0; i < GS_ROUTES; i++) {
        const gs_route *route = gs_route_at(i);
        gp_text_add(&text, "<tr><td>%s<td><code>%s</code><td>%s</tr>\n", route->method, route->path,
                    route->summary);
    }
    gp_text_add(&text, "</table></html>\n");
    return gs_reply_text(request, 200, GS_MEDIA_HTML, &text, error);
}

/* ---- kinds ----------------------------------------------------------------------------------------- */

static int reply_kinds(gs_request *request, gd_family family, gp_error *error) {
    json_t *items = json_array();
    for (size_t i = 0; gd_kind_at(family, i); i++) {
        json_array_append_new(items, gp_kind_json(gd_kind_at(family, i)));
    }
    return gs_reply_json(request, 200, json_pack("{s:o, s:n}", "items", items, "next_cursor"), error);
}

int gs_handle_ops(gs_request *request, gp_error *error) {
    return reply_kinds(request, GD_OPS, error);
}

int gs_handle_losses(gs_request *request, gp_error *error) {
    return reply_kinds(request, GD_LOSSES, error);
}

int gs_handle_optimizers(gs_request *request, gp_error *error) {
    return reply_kinds(request, GD_OPTIMIZERS, error);
}

int gs_handle_schedulers(gs_request *request, gp_error *error) {
    return reply_kinds(request, GD_SCHEDULERS, error);
}

int gs_handle_initializers(gs_request *request, gp_error *error) {
    return reply_kinds(request, GD_INITIALIZERS, error);
}

/* ---- version --------------------------------------------------------------------------------------- */

static json_t *cpu_json(void) {
    json_t *features = json_array();
#if defined(__x86_64__)
#define FEATURE(feature) \
    if (__builtin_cpu_supports(feature)) { \
        json_array_append_new(features, json_string(feature)); \
    }
    FEATURE("sse4.2")
    FEATURE("avx")
    FEATURE("avx2")
    FEATURE("fma")
    FEATURE("avx512f")
    FEATURE("avx512bw")
    FEATURE("avx512vl")
    FEATURE("avx512vnni")
    FEATURE("avx512bf16")
#undef FEATURE
#endif
    return features;
}

/* What stays the same as long as the daemon runs. NULL: no memory. */
static char *version_text(const gs_server *server) {
    const gs_config *config = &server->config;
    const gs_version *v = &gs_this_version;
    json_t *limits = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:i, s:i, s:i, s:i}", "max_body",
        (json_int_t)config->max_body, "max_json_body", (json_int_t)config->max_json_body, "max_body_memory",
        (json_int_t)config->max_body_memory, "max_memory", (json_int_t)config->max_memory, "max_models",
        (json_int_t)config->max_models, "max_connections", (json_int_t)config->max_connections, "max_queue",
        (json_int_t)config->max_queue, "max_dataset", (json_int_t)config->max_dataset, "max_datasets",
        (json_int_t)config->max_datasets, "max_checkpoints", (json_int_t)config->max_checkpoints,
        "max_queued_jobs", (json_int_t)config->max_queued_jobs, "request_timeout", config->request_timeout,
        "max_rank", GD_MAX_RANK, "max_layers", GD_MAX_LAYERS, "max_uri", GS_MAX_URI, "max_header_bytes",
        GS_MAX_HEADER_BYTES);
    /* OpenBLAS runs on one thread of its caller: the engine's threads are the parallel ones */
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:{s:s, s:s, s:i}, s:o, s:s, s:i, s:o}", "version", v->version,
                  "commit", v->commit, "build", v->build, "flags", v->flags, "compiler", v->compiler, "blas",
                  "core", gd_engine_blas_core(), "config", gd_engine_blas_config(), "threads", 1, "cpu",
                  cpu_json(), "cpu_features", gd_engine_cpu_features(server->engine), "threads",
                  gd_engine_threads(server->engine), "limits", limits);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    return text;
}

int gs_handle_version(gs_request *request, gp_error *error) {
    gs_server *server = request->server;
    if (!server->version && !(server->version = version_text(server))) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the reply");
    }
    return reply_literal(request, GS_MEDIA_JSON, server->version);
}
