/* datasets.c -- data that the daemon keeps. */
#include <inttypes.h>
#include <stdio.h>

#include "client.h"

static const gradd_field fields[] = {
    GRADD_FIELD(gradd_dataset_info, name, TEXT, .required = true),
    GRADD_FIELD(gradd_dataset_info, created_at, TEXT),
    GRADD_FIELD(gradd_dataset_info, builtin, BOOL),
    GRADD_FIELD(gradd_dataset_info, in_use, BOOL),
    GRADD_FIELD(gradd_dataset_info, bytes, INT),
    GRADD_FIELD(gradd_dataset_info, classes, INT),
};

static const gradd_kind kind = GRADD_KIND(gradd_dataset_info, fields);

void gradd_dataset_info_free(gradd_dataset_info *info) {
    gradd_info_free(&kind, info);
}

void gradd_dataset_list_free(gradd_dataset_list *list) {
    if (list) {
        gradd_infos_free(&kind, list->items, list->count);
        *list = (gradd_dataset_list){0};
    }
}

/* {method} /v1/datasets[/{dataset}[/{split}[/{part}]]] */
static gradd_request dataset_request(const char *method, const char *dataset, const char *split,
                                     const char *part) {
    gradd_request request = {.method = method, .accept = GRADD_JSON};
    gradd_url_add(&request.url, "/v1/datasets");
    gradd_url_name(&request.url, dataset);
    if (split) {
        gradd_url_name(&request.url, split);
    }
    if (part) {
        gradd_url_name(&request.url, part);
    }
    return request;
}

int gradd_dataset_put(gradd_client *client, const char *dataset, const char *split, const char *part,
                      const gradd_file *file, char **ret_json, gradd_error *error) {
    gradd_request request = dataset_request("PUT", dataset, split ? split : "", part);
    request.content_type = GRADD_BYTES;
    return gradd_send_file(client, &request, file, ret_json, error);
}

int gradd_dataset_list_all(gradd_client *client, gradd_dataset_list *ret_list, gradd_error *error) {
    gradd_request request = {.method = "GET", .accept = GRADD_JSON};
    void *items = NULL;
    gradd_url_add(&request.url, "/v1/datasets");
    int code = gradd_list_infos(client, &request, &kind, &items, &ret_list->count, error);
    if (!code) {
        ret_list->items = items;
    }
    return code;
}

int gradd_dataset_show(gradd_client *client, const char *dataset, gradd_dataset_info *ret_info,
                       gradd_error *error) {
    gradd_request request = dataset_request("GET", dataset, NULL, NULL);
    return gradd_send_for_info(client, &request, &kind, ret_info, error);
}

int gradd_dataset_delete(gradd_client *client, const char *dataset, gradd_error *error) {
    gradd_request request = dataset_request("DELETE", dataset, NULL, NULL);
    return gradd_send(client, &request, error);
}

int gradd_dataset_rows(gradd_client *client, const char *dataset, const char *split, const char *column,
                       int64_t offset, int64_t limit, gradd_tensor *ret_rows, gradd_error *error) {
    gradd_request request = dataset_request("GET", dataset, split ? split : "", column ? column : "");
    char number[24];
    snprintf(number, sizeof number, "%" PRId64, offset);
    gradd_url_query(&request.url, "offset", number);
    snprintf(number, sizeof number, "%" PRId64, limit);
    gradd_url_query(&request.url, "limit", number);
    return gradd_send_for_tensor(client, &request, ret_rows, error);
}
