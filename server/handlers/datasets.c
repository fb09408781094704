/* datasets.c -- datasets over HTTP. */
#include <stdio.h>
#include <string.h>

#include "handlers.h"

enum { DEFAULT_ROWS = 100 };

int gs_handle_dataset_list(gs_request *request, gp_error *error) {
    int64_t limit;
    if (gs_query_integer(request, "limit", 100, 1, 1000, &limit, error)) {
        return -1;
    }
    const char *cursor = gs_uri_find(&request->uri, "cursor");
    return gs_reply_json(request, 200,
                         gs_datasets_list(&request->server->datasets, cursor ? cursor : "", (size_t)limit),
                         error);
}

int gs_handle_dataset_show(gs_request *request, gp_error *error) {
    json_t *json = gs_datasets_json(&request->server->datasets, request->variables[0], error);
    return json ? gs_reply_json(request, 200, json, error) : -1;
}

int gs_handle_dataset_delete(gs_request *request, gp_error *error) {
    return gs_datasets_delete(&request->server->datasets, request->variables[0], error)
               ? -1
               : gs_reply_nothing(request);
}

/* As many rows as a reply may have: text takes several times the room of what it says. */
static int64_t most_rows(const gs_request *request, const gs_stored *stored) {
    const gs_config *config = &request->server->config;
    const int64_t row = (int64_t)(stored->bytes / (uint64_t)stored->shape.dim[0]);
    const int64_t bytes = request->accept == GS_MEDIA_JSON ? config->max_json_body / 4 : config->max_body;
    return bytes / row > 1 ? bytes / row : 1;
}

static int reply_rows(gs_request *request, int index, gs_part *part, gp_error *error) {
    const int64_t total = part->stored.shape.dim[0], most = most_rows(request, &part->stored);
    int64_t offset, limit;
    if (gs_query_integer(request, "offset", 0, 0, total, &offset, error) ||
        gs_query_integer(request, "limit", most < DEFAULT_ROWS ? most : DEFAULT_ROWS, 1, INT64_MAX, &limit,
                         error)) {
        return -1;
    }
    limit = limit < total - offset ? limit : total - offset;
    if (limit > most) {
        return gp_fail(error, GP_LIMIT_EXCEEDED, "", "at most %lld of these rows fit into one reply (%s)",
                       (long long)most,
                       request->accept == GS_MEDIA_JSON ? "--max-json-body; npy takes less room"
                                                        : "--max-body");
    }
    const char *data = gs_part_data(part, error);
    if (!data) {
        return -1;
    }
    gd_tensor rows = {part->stored.dtype, part->stored.shape, NULL};
    rows.data = (void *)(uintptr_t)(data + part->stored.bytes / (uint64_t)total * (uint64_t)offset);
    rows.shape.dim[0] = limit;
    if (*part->stored.sha256) {
        char etag[GS_NAME + 2];
        snprintf(etag, sizeof etag, "\"%s\"", part->stored.sha256);
        gs_reply_etag(request, etag);
    }
    return gs_reply_tensor(request, gs_part_names[index], &rows, NULL, error);
}

int gs_handle_dataset_rows(gs_request *request, gp_error *error) {
    const int index = gs_part_find(request->variables[2]);
    gs_part part;
    if (gs_datasets_part(&request->server->datasets, request->variables[0], request->variables[1], index,
                         &part, error)) {
        return -1;
    }
    int result = reply_rows(request, index, &part, error);
    gs_part_release(&part);
    return result;
}

/* ---- PUT -------------------------------------------------------------------------------------------------
 */

/* What was put: a part of a split, or the two of them under their names. */
static json_t *put_json(const gs_request *request, const gs_upload *upload) {
    json_t *json = upload->part < GS_PARTS ? gs_stored_json(&upload->stored[upload->part]) : json_object();
    json_object_set_new(json, "dataset", json_string(request->variables[0]));
    json_object_set_new(json, "split", json_string(request->variables[1]));
    if (upload->part < GS_PARTS) {
        json_object_set_new(json, "part", json_string(gs_part_names[upload->part]));
        return json;
    }
    for (int part = 0; part < GS_PARTS; part++) {
        json_object_set_new(json, gs_part_names[part], gs_stored_json(&upload->stored[part]));
    }
    return json;
}

static int put(gs_request *request, gp_error *error) {
    gs_upload *upload = request->upload;
    const char *name = request->variables[0], *split = request->variables[1];
    bool created;
    if (!upload) {
        return gp_fail(error, GP_INVALID_TENSOR, "", "send the file as the body: curl -T FILE");
    }
    if (upload->error.problem) {
        *error = upload->error;
        return -1;
    }
    if (gs_datasets_put(&request->server->datasets, name, split, upload, request->headers.if_match, &created,
                        error) ||
        gs_reply_json(request, created ? 201 : 200, put_json(request, upload), error)) {
        return -1;
    }
    if (upload->part < GS_PARTS) {
        char etag[GS_NAME + 2];
        snprintf(etag, sizeof etag, "\"%s\"", upload->stored[upload->part].sha256);
        gs_reply_etag(request, etag);
        snprintf(request->reply.location, sizeof request->reply.location, "/v1/datasets/%s/%s/%s", name,
                 split, gs_part_names[upload->part]);
    } else {
        snprintf(request->reply.location, sizeof request->reply.location, "/v1/datasets/%s", name);
    }
    return 0;
}

int gs_handle_dataset_put(gs_request *request, gp_error *error) {
    return put(request, error);
}

int gs_handle_dataset_put_split(gs_request *request, gp_error *error) {
    return put(request, error);
}
