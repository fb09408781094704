/* server.c -- the daemon itself. */
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
