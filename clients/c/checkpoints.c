/* checkpoints.c -- a model's whole state as a file on the daemon. */
#include <stdio.h>
#include <stdlib.h>

#include "client.h"

static const gradd_field fields[] = {
    GRADD_FIELD(gradd_checkpoint_info, name, TEXT, .required = true),
    GRADD_FIELD(gradd_checkpoint_info, kind, TEXT),
    GRADD_FIELD(gradd_checkpoint_info, created_at, TEXT),
    GRADD_FIELD(gradd_checkpoint_info, sha256, TEXT),
    GRADD_FIELD(gradd_checkpoint_info, note, TEXT),
    GRADD_FIELD(gradd_checkpoint_info, step, INT),
    GRADD_FIELD(gradd_checkpoint_info, bytes, INT),
    GRADD_FIELD(gradd_checkpoint_info, job, INT),
    GRADD_FIELD(gradd_checkpoint_info, metric, DOUBLE),
    GRADD_FIELD(gradd_checkpoint_info, damaged, BOOL),
};

static const gradd_kind kind = GRADD_KIND(gradd_checkpoint_info, fields);

void gradd_checkpoint_info_free(gradd_checkpoint_info *info) {
    gradd_info_free(&kind, info);
}

void gradd_checkpoint_list_free(gradd_checkpoint_list *list) {
    if (list) {
        gradd_infos_free(&kind, list->items, list->count);
        *list = (gradd_checkpoint_list){0};
    }
}

/* {method} /v1/models/{model}/checkpoints/{checkpoint} */
static gradd_request checkpoint_request(const char *method, const char *model, const char *checkpoint) {
    gradd_request request = gradd_model_request(method, model, "checkpoints");
    gradd_url_name(&request.url, checkpoint);
    return request;
}

/* {"name": ..., "note": ...} of what is there. NULL: no memory, or no UTF-8 */
static char *body_of(const char *name, const char *note) {
    json_t *body = json_object();
    bool fine = body && (!name || !json_object_set_new(body, "name", json_string(name))) &&
                (!note || !json_object_set_new(body, "note", json_string(note)));
    char *text = fine ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return text;
}

int gradd_checkpoint_create(gradd_client *client, const char *model, const char *name, const char *note,
                            gradd_checkpoint_info *ret_info, gradd_error *error) {
    gradd_request request = gradd_model_request("POST", model, "checkpoints");
    gradd_segment segment;
    char *body = body_of(name, note);
    if (!body) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "name and note must be UTF-8");
    }
    gradd_request_json(&request, &segment, body);
    int code = gradd_send_for_info(client, &request, &kind, ret_info, error);
    free(body);
    return code;
}

int gradd_checkpoint_list_all(gradd_client *client, const char *model, gradd_checkpoint_list *ret_list,
                              gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, "checkpoints");
    void *items = NULL;
    int code = gradd_list_infos(client, &request, &kind, &items, &ret_list->count, error);
    if (!code) {
        ret_list->items = items;
    }
    return code;
}

int gradd_checkpoint_download(gradd_client *client, const char *model, const char *checkpoint,
                              const gradd_file *file, gradd_error *error) {
    gradd_request request = checkpoint_request("GET", model, checkpoint);
    request.accept = GRADD_SAFETENSORS;
    return gradd_receive_file(client, &request, file, error);
}

int gradd_checkpoint_restore(gradd_client *client, const char *model, const char *checkpoint,
                             gradd_model_info *ret_info, gradd_error *error) {
    gradd_request request = checkpoint_request("POST", model, checkpoint);
    gradd_segment segment;
    gradd_url_add(&request.url, "/restore");
    gradd_request_json(&request, &segment, "{}");
    return gradd_send_for_model(client, &request, ret_info, error);
}

int gradd_checkpoint_delete(gradd_client *client, const char *model, const char *checkpoint,
                            gradd_error *error) {
    gradd_request request = checkpoint_request("DELETE", model, checkpoint);
    return gradd_send(client, &request, error);
}

int gradd_model_create_from(gradd_client *client, const char *name, const char *model, const char *checkpoint,
                            gradd_model_info *ret_info, gradd_error *error) {
    gradd_request request = {.method = "POST", .accept = GRADD_JSON};
    gradd_segment segment;
    char source[2 * GRADD_MAX_NAME];
    int size = snprintf(source, sizeof source, "%s/%s", model, checkpoint);
    char *body = body_of(name, NULL);
    if (!body || size < 0 || (size_t)size >= sizeof source) {
        free(body);
        return gradd_fail(error, GRADD_E_ARGUMENT, "the names are too long, or not UTF-8");
    }
    gradd_url_add(&request.url, "/v1/models");
    gradd_url_query(&request.url, "from_checkpoint", source);
    gradd_request_json(&request, &segment, body);
    int code = gradd_send_for_model(client, &request, ret_info, error);
    free(body);
    return code;
}
