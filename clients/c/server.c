/* server.c -- the daemon itself, and its datasets. */
#include <inttypes.h>
#include <stdio.h>

#include "client.h"

int gradd_server_ready(gradd_client *client, gradd_error *error) {
    gradd_request request = {.method = "GET", .accept = GRADD_JSON};
    gradd_url_add(&request.url, "/v1/health/ready");
    return gradd_send(client, &request, error);
}

int gradd_server_version(gradd_client *client, char **ret_json, gradd_error *error) {
    gradd_request request = {.method = "GET", .accept = GRADD_JSON};
    gradd_url_add(&request.url, "/v1/version");
    return gradd_send_for_text(client, &request, ret_json, error);
}

int gradd_dataset_rows(gradd_client *client, const char *dataset, const char *split, const char *column,
                       int64_t offset, int64_t limit, gradd_tensor *ret_rows, gradd_error *error) {
    gradd_request request = {.method = "GET"};
    char number[24];
    gradd_url_add(&request.url, "/v1/datasets");
    gradd_url_name(&request.url, dataset);
    gradd_url_name(&request.url, split);
    gradd_url_name(&request.url, column);
    snprintf(number, sizeof number, "%" PRId64, offset);
    gradd_url_query(&request.url, "offset", number);
    snprintf(number, sizeof number, "%" PRId64, limit);
    gradd_url_query(&request.url, "limit", number);
    return gradd_send_for_tensor(client, &request, ret_rows, error);
}
