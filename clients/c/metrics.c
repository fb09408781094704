/* metrics.c -- what is recorded of a model's steps. */
#include "client.h"

int gradd_model_metrics(gradd_client *client, const char *model, const gradd_option *options, char **ret_json,
                        gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, "metrics");
    gradd_request_options(&request, options);
    return gradd_send_for_text(client, &request, ret_json, error);
}

int gradd_model_metrics_csv(gradd_client *client, const char *model, const gradd_option *options,
                            const gradd_file *file, gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, "metrics");
    gradd_request_options(&request, options);
    request.accept = "text/csv";
    return gradd_receive_file(client, &request, file, error);
}

int gradd_model_metrics_add(gradd_client *client, const char *model, const char *json,
                            const gradd_option *options, char **ret_json, gradd_error *error) {
    gradd_request request = gradd_model_request("POST", model, "metrics");
    gradd_segment segment;
    gradd_request_options(&request, options);
    gradd_request_json(&request, &segment, json);
    return gradd_send_for_text(client, &request, ret_json, error);
}
