/* parameters.c -- parameters, gradients, the autograd graph. */
#include <stdlib.h>
#include <string.h>

#include "client.h"

static const gradd_field parameter_fields[] = {
    GRADD_FIELD(gradd_parameter, name, TEXT, .required = true),
    GRADD_FIELD(gradd_parameter, numel, INT),
    GRADD_FIELD(gradd_parameter, requires_grad, BOOL),
    GRADD_FIELD(gradd_parameter, norm, DOUBLE),
    GRADD_FIELD(gradd_parameter, grad_norm, DOUBLE),
    GRADD_FIELD(gradd_parameter, version, INT),
};

static const gradd_field node_fields[] = {
    GRADD_FIELD(gradd_grad_node, id, INT, .required = true),
    GRADD_FIELD(gradd_grad_node, name, TEXT, .required = true),
    GRADD_FIELD(gradd_grad_node, layer, TEXT),
};

/* GET, PUT, PATCH /v1/models/{model}/parameters/{name}, and what is below it. */
static gradd_request parameter_request(const char *method, const char *model, const char *name,
                                       const char *below) {
    gradd_request request = gradd_model_request(method, model, "parameters");
    gradd_url_name(&request.url, name);
    gradd_url_add(&request.url, below);
    return request;
}

static int read_parameter(const json_t *json, gradd_parameter *parameter, gradd_error *error) {
    int code = gradd_record_read(json, parameter_fields, COUNT(parameter_fields), parameter, error);
    if (!code) {
        parameter->rank = gradd_ints_read(json_object_get(json, "shape"), parameter->shape, GRADD_MAX_RANK);
        if (parameter->rank < 0) {
            code = gradd_fail(error, GRADD_E_REPLY, "the reply's shape of '%s' is no shape", parameter->name);
        }
    }
    return code;
}

int gradd_model_parameters(gradd_client *client, const char *model, gradd_parameter **ret_items,
                           size_t *ret_count, gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, "parameters");
    json_t *list = NULL;
    int code = gradd_list_all(client, &request, &list, error);
    if (code) {
        return code;
    }
    size_t count = json_array_size(list);
    gradd_parameter *items = calloc(count + 1, sizeof *items);
    code = items ? GRADD_OK : gradd_fail_memory(error);
    for (size_t i = 0; i < count && !code; i++) {
        code = read_parameter(json_array_get(list, i), &items[i], error);
    }
    if (code) {
        free(items);
    } else {
        *ret_items = items;
        *ret_count = count;
    }
    json_decref(list);
    return code;
}

int gradd_parameter_get(gradd_client *client, const char *model, const char *name, gradd_tensor *ret_values,
                        gradd_error *error) {
    gradd_request request = parameter_request("GET", model, name, "");
    return gradd_send_for_tensor(client, &request, ret_values, error);
}

int gradd_parameter_grad(gradd_client *client, const char *model, const char *name, gradd_tensor *ret_grad,
                         gradd_error *error) {
    gradd_request request = parameter_request("GET", model, name, "/grad");
    return gradd_send_for_tensor(client, &request, ret_grad, error);
}

int gradd_parameter_put(gradd_client *client, const char *model, const char *name, const gradd_tensor *values,
                        const gradd_option *options, gradd_error *error) {
    gradd_request request = parameter_request("PUT", model, name, "");
    gradd_request_options(&request, options);
    gradd_named_tensor tensor = {.name = "input", .tensor = *values};
    void *memory = NULL;
    int code = gradd_request_tensors(&request, &tensor, 1, &memory, error);
    if (!code) {
        code = gradd_send(client, &request, error);
        free(memory);
    }
    return code;
}

int gradd_parameter_set_requires_grad(gradd_client *client, const char *model, const char *name,
                                      bool requires_grad, gradd_error *error) {
    gradd_request request = parameter_request("PATCH", model, name, "");
    gradd_segment segment;
    gradd_request_json(&request, &segment,
                       requires_grad ? "{\"requires_grad\": true}" : "{\"requires_grad\": false}");
    return gradd_send(client, &request, error);
}

int gradd_state_dict_get(gradd_client *client, const char *model, gradd_tensors *ret_tensors,
                         gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, "state_dict");
    return gradd_send_for_tensors(client, &request, ret_tensors, error);
}

int gradd_model_gradients(gradd_client *client, const char *model, gradd_tensors *ret_tensors,
                          gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, "gradients");
    return gradd_send_for_tensors(client, &request, ret_tensors, error);
}

int gradd_state_dict_put(gradd_client *client, const char *model, const gradd_named_tensor *tensors,
                         size_t count, bool strict, char **ret_json, gradd_error *error) {
    gradd_request request = gradd_model_request("PUT", model, "state_dict");
    void *memory = NULL;
    if (!strict) {
        gradd_url_query(&request.url, "strict", "false");
    }
    int code = gradd_request_tensors(&request, tensors, count, &memory, error);
    if (!code) {
        code = gradd_send_for_text(client, &request, ret_json, error);
        free(memory);
    }
    return code;
}

int gradd_state_dict_download(gradd_client *client, const char *model, const gradd_file *file,
                              gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, "state_dict");
    request.accept = GRADD_SAFETENSORS;
    return gradd_receive_file(client, &request, file, error);
}

int gradd_state_dict_upload(gradd_client *client, const char *model, const gradd_file *file, bool strict,
                            char **ret_json, gradd_error *error) {
    gradd_request request = gradd_model_request("PUT", model, "state_dict");
    if (!strict) {
        gradd_url_query(&request.url, "strict", "false");
    }
    request.content_type = GRADD_SAFETENSORS;
    return gradd_send_file(client, &request, file, ret_json, error);
}

static int read_node(const json_t *json, gradd_grad_node *node, gradd_error *error) {
    int code = gradd_record_read(json, node_fields, COUNT(node_fields), node, error);
    if (!code) {
        node->next_count = gradd_ints_read(json_object_get(json, "next"), node->next, COUNT(node->next));
        if (node->next_count < 0) {
            code = gradd_fail(error, GRADD_E_REPLY, "the reply's node '%s' leads nowhere", node->name);
        }
    }
    return code;
}

int gradd_model_graph(gradd_client *client, const char *model, gradd_grad_node **ret_nodes, size_t *ret_count,
                      gradd_error *error) {
    gradd_request request = gradd_model_request("GET", model, "graph");
    json_t *json = NULL;
    int code = gradd_send_for_json(client, &request, &json, error);
    if (code) {
        return code;
    }
    const json_t *list = json_object_get(json, "nodes");
    size_t count = json_array_size(list);
    gradd_grad_node *nodes = calloc(count + 1, sizeof *nodes);
    code = nodes ? GRADD_OK : gradd_fail_memory(error);
    if (!code && !json_is_array(list)) {
        code = gradd_fail(error, GRADD_E_REPLY, "the reply has no 'nodes'");
    }
    for (size_t i = 0; i < count && !code; i++) {
        code = read_node(json_array_get(list, i), &nodes[i], error);
    }
    if (code) {
        free(nodes);
    } else {
        *ret_nodes = nodes;
        *ret_count = count;
    }
    json_decref(json);
    return code;
}
