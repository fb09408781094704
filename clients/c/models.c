/* models.c -- creating, listing, describing, changing and deleting models. */
#include <stdlib.h>
#include <string.h>

#include "client.h"

static const gradd_field info_fields[] = {
    GRADD_FIELD(gradd_model_info, name, TEXT, .required = true),
    GRADD_FIELD(gradd_model_info, class_name, TEXT),
    GRADD_FIELD(gradd_model_info, created_at, TEXT),
    GRADD_FIELD(gradd_model_info, version, INT),
    GRADD_FIELD(gradd_model_info, step, INT),
    GRADD_FIELD(gradd_model_info, training, BOOL),
    GRADD_FIELD(gradd_model_info, parameter_count, INT, .path = "parameters.count"),
    GRADD_FIELD(gradd_model_info, parameter_numel, INT, .path = "parameters.numel"),
    GRADD_FIELD(gradd_model_info, memory_bytes, INT),
    GRADD_FIELD(gradd_model_info, repr, STRING),
};

static const gradd_kind info_kind = GRADD_KIND(gradd_model_info, info_fields);

void gradd_model_info_free(gradd_model_info *info) {
    gradd_info_free(&info_kind, info);
}

void gradd_model_list_free(gradd_model_list *list) {
    if (list) {
        gradd_infos_free(&info_kind, list->items, list->count);
        *list = (gradd_model_list){0};
    }
}

int gradd_send_for_model(gradd_client *client, const gradd_request *request, gradd_model_info *ret_info,
                         gradd_error *error) {
    gradd_model_info info = {0};
    gradd_reply reply;
    json_t *json = NULL;
    int code = gradd_http(client, request, &reply, error);
    if (code) {
        return code;
    }
    code = gradd_reply_json(&reply, &json, error);
    if (!code && ret_info) {
        code = gradd_info_read(json, &info_kind, &info, error);
    }
    if (!code && ret_info) {
        memcpy(info.etag, reply.etag, sizeof info.etag);
        *ret_info = info;
    }
    json_decref(json);
    free(reply.data);
    return code;
}

static int create(gradd_client *client, const char *json, bool dry_run, gradd_model_info *ret_info,
                  gradd_error *error) {
    gradd_request request = {.method = "POST", .accept = GRADD_JSON};
    gradd_segment segment;
    gradd_url_add(&request.url, "/v1/models");
    if (dry_run) {
        gradd_url_query(&request.url, "dry_run", "true");
    }
    gradd_request_json(&request, &segment, json);
    return gradd_send_for_model(client, &request, ret_info, error);
}

int gradd_model_create(gradd_client *client, const char *json, gradd_model_info *ret_info,
                       gradd_error *error) {
    return create(client, json, false, ret_info, error);
}

int gradd_model_check(gradd_client *client, const char *json, gradd_model_info *ret_info,
                      gradd_error *error) {
    return create(client, json, true, ret_info, error);
}

int gradd_model_show(gradd_client *client, const char *model, gradd_model_info *ret_info,
                     gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, NULL);
    return gradd_send_for_model(client, &request, ret_info, error);
}

int gradd_model_patch(gradd_client *client, const char *model, const char *json, const gradd_option *options,
                      gradd_model_info *ret_info, gradd_error *error) {
    gradd_request request = gradd_model_request("PATCH", model, NULL);
    gradd_segment segment;
    gradd_request_options(&request, options);
    gradd_request_json(&request, &segment, json);
    return gradd_send_for_model(client, &request, ret_info, error);
}

int gradd_model_delete(gradd_client *client, const char *model, bool force, gradd_error *error) {
    gradd_request request = gradd_model_request("DELETE", model, NULL);
    if (force) {
        gradd_url_query(&request.url, "force", "true");
    }
    return gradd_send(client, &request, error);
}

int gradd_model_list_all(gradd_client *client, gradd_model_list *ret_list, gradd_error *error) {
    gradd_request request = {.method = "GET", .accept = GRADD_JSON};
    void *items = NULL;
    gradd_url_add(&request.url, "/v1/models");
    int code = gradd_list_infos(client, &request, &info_kind, &items, &ret_list->count, error);
    if (!code) {
        ret_list->items = items;
    }
    return code;
}
