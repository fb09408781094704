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

void gradd_model_info_free(gradd_model_info *info) {
    if (info) {
        free(info->repr);
        free(info->json);
        *info = (gradd_model_info){0};
    }
}

void gradd_model_list_free(gradd_model_list *list) {
    if (list) {
        for (size_t i = 0; i < list->count; i++) {
            gradd_model_info_free(&list->items[i]);
        }
        free(list->items);
        *list = (gradd_model_list){0};
    }
}

static int read_info(const json_t *json, gradd_model_info *ret_info, gradd_error *error) {
    gradd_model_info info = {0};
    int code = gradd_record_read(json, info_fields, COUNT(info_fields), &info, error);
    if (!code) {
        info.json = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        code = info.json ? GRADD_OK : gradd_fail_memory(error);
    }
    if (code) {
        gradd_model_info_free(&info);
    } else {
        *ret_info = info;
    }
    return code;
}

static int send_for_info(gradd_client *client, const gradd_request *request, gradd_model_info *ret_info,
                         gradd_error *error) {
    json_t *json = NULL;
    int code = gradd_send_for_json(client, request, &json, error);
    if (!code && ret_info) {
        code = read_info(json, ret_info, error);
    }
    json_decref(json);
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
    return send_for_info(client, &request, ret_info, error);
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
    return send_for_info(client, &request, ret_info, error);
}

int gradd_model_patch(gradd_client *client, const char *model, const char *json, gradd_model_info *ret_info,
                      gradd_error *error) {
    gradd_request request = gradd_model_request("PATCH", model, NULL);
    gradd_segment segment;
    gradd_request_json(&request, &segment, json);
    return send_for_info(client, &request, ret_info, error);
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
    gradd_model_list list = {0};
    json_t *items = NULL;
    gradd_url_add(&request.url, "/v1/models");
    int code = gradd_list_all(client, &request, &items, error);
    if (code) {
        return code;
    }
    list.items = calloc(json_array_size(items) + 1, sizeof *list.items);
    code = list.items ? GRADD_OK : gradd_fail_memory(error);
    for (size_t i = 0; i < json_array_size(items) && !code; i++) {
        code = read_info(json_array_get(items, i), &list.items[i], error);
        list.count += !code;
    }
    if (code) {
        gradd_model_list_free(&list);
    } else {
        *ret_list = list;
    }
    json_decref(items);
    return code;
}
