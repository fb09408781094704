/* server.c -- health, version, metrics, what kinds there are, the document and the pages. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

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
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:i, s:i, s:i, s:i}", "max_body",
        (json_int_t)config->max_body, "max_json_body", (json_int_t)config->max_json_body, "max_body_memory",
        (json_int_t)config->max_body_memory, "max_memory", (json_int_t)config->max_memory, "max_models",
        (json_int_t)config->max_models, "max_connections", (json_int_t)config->max_connections, "max_queue",
        (json_int_t)config->max_queue, "request_timeout", config->request_timeout, "max_rank", GD_MAX_RANK,
        "max_layers", GD_MAX_LAYERS, "max_uri", GS_MAX_URI, "max_header_bytes", GS_MAX_HEADER_BYTES);
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

/* ---- Prometheus ------------------------------------------------------------------------------------ */

static void add_metric(gp_text *text, const char *type, const char *name, const char *help, double value) {
    gp_text_add(text, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, type, name, value);
}

static void route_labels(size_t row, char *text, size_t size) {
    if (row < GS_ROUTES) {
        snprintf(text, size, "method=\"%s\",route=\"%s\"", gs_route_at(row)->method, gs_route_at(row)->path);
    } else {
        snprintf(text, size, "method=\"\",route=\"\"");
    }
}

static void add_requests(gp_text *text, const gs_metrics *metrics) {
    char labels[160];
    gp_text_add(text,
                "# HELP gradd_http_requests_total Completed requests by status class; 0xx was cut off.\n"
                "# TYPE gradd_http_requests_total counter\n");
    for (size_t row = 0; row < GS_METRIC_ROUTES; row++) {
        route_labels(row, labels, sizeof labels);
        for (int status = 0; status < 6; status++) {
            if (metrics->routes[row].replies[status]) {
                gp_text_add(text, "gradd_http_requests_total{%s,status=\"%dxx\"} %" PRIu64 "\n", labels,
                            status, metrics->routes[row].replies[status]);
            }
        }
    }
    gp_text_add(text, "# HELP gradd_http_request_seconds Time from a request's first line to its last byte.\n"
                      "# TYPE gradd_http_request_seconds histogram\n");
    for (size_t row = 0; row < GS_METRIC_ROUTES; row++) {
        const gs_route_metrics *m = &metrics->routes[row];
        uint64_t total = 0;
        route_labels(row, labels, sizeof labels);
        for (int bucket = 0; bucket < GS_METRIC_BUCKETS; bucket++) {
            total += m->buckets[bucket];
        }
        uint64_t below = 0;
        for (int bucket = 0; bucket < GS_METRIC_BUCKETS && total; bucket++) {
            char bound[16] = "+Inf";
            if (bucket < GS_METRIC_BUCKETS - 1) {
                snprintf(bound, sizeof bound, "%g", (double)gs_metric_bounds_us[bucket] / 1e6);
            }
            below += m->buckets[bucket];
            gp_text_add(text, "gradd_http_request_seconds_bucket{%s,le=\"%s\"} %" PRIu64 "\n", labels, bound,
                        below);
        }
        if (total) {
            gp_text_add(
                text,
                "gradd_http_request_seconds_sum{%s} %.9g\ngradd_http_request_seconds_count{%s} %" PRIu64 "\n",
                labels, m->seconds, labels, total);
        }
    }
}

static double resident_bytes(void) {
    char line[128] = "";
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (!fgets(line, sizeof line, file)) {
            line[0] = '\0';
        }
        fclose(file);
    }
    const char *second = strchr(line, ' '); /* the first number is the virtual size */
    return second ? (double)strtol(second, NULL, 10) * (double)sysconf(_SC_PAGESIZE) : 0;
}

int gs_handle_metrics(gs_request *request, gp_error *error) {
    gs_server *server = request->server;
    gs_metrics *metrics = &server->metrics;
    gp_text text = {0};
    size_t waiting, running;
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    gs_executor_load(&server->executor, &waiting, &running);
    gp_text_add(&text,
                "# HELP gradd_build_info What runs.\n# TYPE gradd_build_info gauge\n"
                "gradd_build_info{version=\"%s\",commit=\"%s\",build=\"%s\"} 1\n",
                gs_this_version.version, gs_this_version.commit, gs_this_version.build);
    add_metric(&text, "gauge", "gradd_models", "Models hosted.", (double)gs_models_count(&server->models));
    add_metric(&text, "gauge", "gradd_model_memory_bytes", "Memory of all models.",
               (double)gd_engine_memory(server->engine) + (double)atomic_load(&server->models.kept.used));
    add_metric(&text, "gauge", "gradd_model_memory_limit_bytes", "What --max-memory allows.",
               (double)server->config.max_memory);
    add_metric(&text, "counter", "gradd_steps_total", "Optimizer steps taken.",
               (double)atomic_load(&metrics->steps));
    add_metric(&text, "counter", "gradd_samples_total", "Samples trained on.",
               (double)atomic_load(&metrics->samples));
    add_metric(&text, "gauge", "gradd_requests_waiting", "Requests that wait for their model's turn.",
               (double)waiting);
    add_metric(&text, "gauge", "gradd_requests_running", "Requests that compute now.", (double)running);
    add_metric(&text, "gauge", "gradd_http_connections", "Open connections.", (double)metrics->connections);
    add_metric(&text, "counter", "gradd_http_connections_total", "Connections accepted.",
               (double)metrics->connections_total);
    add_metric(&text, "counter", "gradd_http_received_bytes_total", "Bytes of request bodies.",
               (double)metrics->bytes_in);
    add_metric(&text, "counter", "gradd_http_sent_bytes_total", "Bytes of reply bodies.",
               (double)metrics->bytes_out);
    add_metric(&text, "gauge", "gradd_http_body_memory_bytes", "Memory of request bodies on their way.",
               (double)atomic_load(&server->bodies.used));
    add_metric(&text, "counter", "process_cpu_seconds_total", "Processor time.",
               (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    add_metric(&text, "gauge", "process_resident_memory_bytes", "Resident memory.", resident_bytes());
    add_metric(&text, "gauge", "process_start_time_seconds", "Start, in seconds since 1970.",
               (double)server->started_ms / 1000);
    add_requests(&text, metrics);
    return gs_reply_text(request, 200, GS_MEDIA_METRICS, &text, error);
}
