/* reply.c -- filling in replies, and what handlers ask of a request. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "request.h"

static int no_memory(gp_error *error) {
    return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the reply");
}

int gs_reply_text(gs_request *request, int status, gs_media media, gp_text *text, gp_error *error) {
    if (text->failed) {
        gp_text_release(text);
        return no_memory(error);
    }
    request->reply.status = status;
    request->reply.media = media;
    request->reply.body = text->data;
    request->reply.size = text->size;
    request->reply.owned = true;
    *text = (gp_text){0};
    return 0;
}

int gs_reply_json(gs_request *request, int status, json_t *json, gp_error *error) {
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!text) {
        return no_memory(error);
    }
    request->reply.status = status;
    request->reply.media = GS_MEDIA_JSON;
    request->reply.body = text;
    request->reply.size = strlen(text);
    request->reply.owned = true;
    return 0;
}

int gs_reply_static(gs_request *request, gs_media media, const char *text, size_t size) {
    request->reply.status = 200;
    request->reply.media = media;
    request->reply.body = (char *)(uintptr_t)text;
    request->reply.size = size;
    return 0;
}

int gs_reply_stream(gs_request *request, gs_media media, gs_stream *stream) {
    stream->http = request->server->http;
    stream->request = request;
    request->reply.status = 200;
    request->reply.media = media;
    request->reply.stream = stream;
    return 0;
}

int gs_reply_file(gs_request *request, gs_media media, int fd, size_t size) {
    request->reply.status = 200;
    request->reply.media = media;
    request->reply.is_file = true;
    request->reply.file = fd;
    request->reply.size = size;
    return 0;
}

int gs_reply_nothing(gs_request *request) {
    request->reply.status = 204;
    request->reply.media = GS_MEDIA_NONE;
    return 0;
}

gp_array gs_array_of(const gd_tensor *tensor) {
    static const gp_dtype dtypes[] = {
        [GD_FLOAT32] = GP_FLOAT32, [GD_INT64] = GP_INT64,     [GD_INT32] = GP_INT32,
        [GD_UINT8] = GP_UINT8,     [GD_FLOAT64] = GP_FLOAT64,
    };
    gp_array array = {.dtype = dtypes[tensor->dtype], .rank = tensor->shape.rank, .data = tensor->data};
    memcpy(array.dim, tensor->shape.dim, sizeof tensor->shape.dim);
    array.size = (size_t)gd_numel(&tensor->shape) * gd_dtype_size(tensor->dtype);
    return array;
}

/* header bytes, then each array's data, in one piece of memory. */
static int reply_binary(gs_request *request, gs_media media, const gp_named_array *arrays, size_t count,
                        gp_error *error) {
    size_t header = media == GS_MEDIA_NPY ? gp_npy_header_size(&arrays[0].array)
                                          : gp_safetensors_header_size(arrays, count, NULL);
    size_t size = header;
    for (size_t i = 0; i < count; i++) {
        size += arrays[i].array.size;
    }
    char *body = malloc(size);
    if (!body) {
        return no_memory(error);
    }
    if (media == GS_MEDIA_NPY) {
        gp_npy_write_header(&arrays[0].array, body);
    } else {
        gp_safetensors_write_header(arrays, count, NULL, body);
    }
    char *out = body + header;
    for (size_t i = 0; i < count; i++) {
        if (arrays[i].array.size) {
            memcpy(out, arrays[i].array.data, arrays[i].array.size);
        }
        out += arrays[i].array.size;
    }
    request->reply.status = 200;
    request->reply.media = media;
    request->reply.body = body;
    request->reply.size = size;
    request->reply.owned = true;
    return 0;
}

int gs_reply_tensor(gs_request *request, const char *name, const gd_tensor *tensor, const char *extra,
                    gp_error *error) {
    if (request->accept != GS_MEDIA_JSON) {
        gp_named_array named = {.array = gs_array_of(tensor)};
        snprintf(named.name, sizeof named.name, "%s", name);
        return reply_binary(request, request->accept, &named, 1, error);
    }
    gp_text text = {0};
    if (extra) {
        gp_text_add(&text, "{");
        gp_json_write_string(&text, name);
        gp_text_add(&text, ":");
    }
    gp_json_write_tensor(&text, tensor);
    if (extra) {
        gp_text_add(&text, "%s}", extra);
    }
    return gs_reply_text(request, 200, GS_MEDIA_JSON, &text, error);
}

int gs_reply_outputs(gs_request *request, const gd_graph *graph, const gd_tensor *outputs, const char *extra,
                     gp_error *error) {
    const size_t count = gd_graph_output_count(graph);
    if (count == 1) {
        return gs_reply_tensor(request, "output", outputs, extra, error);
    }
    if (request->accept != GS_MEDIA_JSON) {
        gp_named_array named[GD_MAX_HEADS];
        for (size_t i = 0; i < count; i++) {
            named[i].array = gs_array_of(&outputs[i]);
            snprintf(named[i].name, sizeof named[i].name, "%s", gd_graph_output(graph, i)->name);
        }
        return gs_reply_tensors(request, named, count, error);
    }
    gp_text text = {0};
    gp_text_add(&text, "{\"outputs\":");
    for (size_t i = 0; i < count; i++) {
        gp_text_add(&text, "%c", i ? ',' : '{');
        gp_json_write_string(&text, gd_graph_output(graph, i)->name);
        gp_text_add(&text, ":");
        gp_json_write_tensor(&text, &outputs[i]);
    }
    gp_text_add(&text, "}%s}", extra);
    return gs_reply_text(request, 200, GS_MEDIA_JSON, &text, error);
}

int gs_reply_tensors(gs_request *request, const gp_named_array *arrays, size_t count, gp_error *error) {
    return reply_binary(request, GS_MEDIA_SAFETENSORS, arrays, count, error);
}

void gs_reply_clear(gs_reply *reply) {
    if (reply->owned) {
        free(reply->body);
    }
    if (reply->is_file) {
        close(reply->file);
    }
    gs_stream_drop(reply->stream);
    *reply = (gs_reply){0};
}

void gs_reply_problem(gs_request *request) {
    gs_reply reply = {.status = gp_problem_status(request->error.problem),
                      .media = GS_MEDIA_PROBLEM,
                      .close = request->reply.close};
    memcpy(reply.allow, request->reply.allow, sizeof reply.allow);
    gs_idempotency_drop(request);
    request->reply.close = false;
    gs_reply_clear(&request->reply);
    char instance[512];
    snprintf(instance, sizeof instance, "%.*s", (int)strcspn(request->target, "?"), request->target);
    reply.body = gp_problem_json(&request->error, instance, request->id);
    reply.owned = reply.body;
    if (!reply.body) {
        static const char text[] = "{\"title\":\"Out of memory\",\"status\":500,\"code\":\"internal\"}";
        reply.status = 500;
        reply.body = (char *)(uintptr_t)text;
    }
    reply.size = strlen(reply.body);
    request->reply = reply;
}

void gs_reply_etag(gs_request *request, const char *etag) {
    snprintf(request->reply.etag, sizeof request->reply.etag, "%s", etag);
}

int gs_check_if_match(const gs_request *request, const char *etag, gp_error *error) {
    const char *wanted = request->headers.if_match;
    if (!wanted || !strcmp(wanted, "*")) {
        return 0;
    }
    /* A strong comparison: W/"..." never matches, as its quoted part follows a "/". */
    for (const char *at = wanted; (at = strstr(at, etag)); at++) {
        const char *end = at + strlen(etag);
        bool starts = at == wanted || at[-1] == ' ' || at[-1] == ',' || at[-1] == '\t';
        if (starts && (!*end || *end == ' ' || *end == ',' || *end == '\t')) {
            return 0;
        }
    }
    return gp_fail(error, GP_PRECONDITION_FAILED, "", "it has changed: its ETag is %s now; read it again",
                   etag);
}

int gs_query_integer(const gs_request *request, const char *name, int64_t initial, int64_t min, int64_t max,
                     int64_t *ret_value, gp_error *error) {
    const char *text = gs_uri_find(&request->uri, name);
    if (!text) {
        *ret_value = initial;
        return 0;
    }
    char *end;
    long long value =
        strtoll(text, &end, 10); /* past the ends of its range it saturates: out of range below */
    if (end == text || *end || value < min || value > max) {
        return gp_fail(error, GP_INVALID_VALUE, "",
                       "the query parameter %s must be a whole number from %" PRId64 " to %" PRId64
                       ", not \"%.32s\"",
                       name, min, max, text);
    }
    *ret_value = value;
    return 0;
}

int gs_query_bool(const gs_request *request, const char *name, bool initial, bool *ret_value,
                  gp_error *error) {
    const char *text = gs_uri_find(&request->uri, name);
    if (text && strcmp(text, "true") && strcmp(text, "false")) {
        return gp_fail(error, GP_INVALID_VALUE, "",
                       "the query parameter %s must be true or false, not \"%.32s\"", name, text);
    }
    *ret_value = text ? !strcmp(text, "true") : initial;
    return 0;
}

int gs_body_json(const gs_request *request, json_t **ret_json, gp_error *error) {
    const gs_buffer *body = request->body;
    return body && body->size ? gp_json_read(body->data, body->size, NULL, 0, ret_json, error)
                              : gp_json_read("{}", 2, NULL, 0, ret_json, error);
}

int gs_check_members(const json_t *object, const char *members, gp_error *error) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        size_t length = strlen(key);
        bool known = false;
        for (const char *at = members; *at && !known; at += strspn(at, " ")) {
            size_t span = strcspn(at, " ");
            known = span == length && !strncmp(at, key, length);
            at += span;
        }
        if (!known) {
            char pointer[128];
            snprintf(pointer, sizeof pointer, "/%.100s", key);
            return gp_fail(error, GP_UNKNOWN_FIELD, pointer, "unknown field \"%.64s\"; known are: %s", key,
                           *members ? members : "none");
        }
    }
    return 0;
}
