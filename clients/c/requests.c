/* requests.c -- what every call is made of: a request, and a reply read as what it should be. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

void gradd_request_model(gradd_request *request, const char *method, const char *model, const char *action) {
    memset(request, 0, offsetof(gradd_request, url.text)); /* and not 5 kB of text */
    request->url.text[0] = request->headers[0] = '\0';
    request->method = method;
    request->accept = GRADD_JSON;
    gradd_url_add(&request->url, "/v1/models");
    gradd_url_name(&request->url, model);
    if (action) {
        gradd_url_add(&request->url, "/");
        gradd_url_add(&request->url, action);
    }
}

gradd_request gradd_model_request(const char *method, const char *model, const char *action) {
    gradd_request request;
    gradd_request_model(&request, method, model, action);
    return request;
}

int gradd_send(gradd_client *client, const gradd_request *request, gradd_error *error) {
    gradd_reply reply;
    int code = gradd_http(client, request, &reply, error);
    if (!code) {
        free(reply.data);
    }
    return code;
}

int gradd_send_for_text(gradd_client *client, const gradd_request *request, char **ret_text,
                        gradd_error *error) {
    gradd_reply reply;
    int code = gradd_http(client, request, &reply, error);
    if (!code && ret_text) {
        *ret_text = reply.data;
    } else if (!code) {
        free(reply.data);
    }
    return code;
}

int gradd_send_for_json(gradd_client *client, const gradd_request *request, json_t **ret_json,
                        gradd_error *error) {
    gradd_reply reply;
    int code = gradd_http(client, request, &reply, error);
    if (!code) {
        code = gradd_reply_json(&reply, ret_json, error);
        free(reply.data);
    }
    return code;
}

int gradd_send_for_tensors(gradd_client *client, gradd_request *request, gradd_tensors *ret_tensors,
                           gradd_error *error) {
    gradd_reply reply;
    request->accept = GRADD_SAFETENSORS;
    int code = gradd_http(client, request, &reply, error);
    if (!code) {
        code = gradd_reply_tensors(&reply, ret_tensors, error);
        free(reply.data);
    }
    return code;
}

int gradd_send_for_tensor(gradd_client *client, gradd_request *request, gradd_tensor *ret_tensor,
                          gradd_error *error) {
    gradd_tensors tensors;
    int code = gradd_send_for_tensors(client, request, &tensors, error);
    if (code) {
        return code;
    }
    if (tensors.count != 1) {
        code = gradd_fail(error, GRADD_E_REPLY, "the reply holds %zu tensors, not one", tensors.count);
    } else if (ret_tensor) {
        *ret_tensor = tensors.items[0].tensor;
        tensors.items[0].tensor = (gradd_tensor){0};
    }
    gradd_tensors_free(&tensors);
    return code;
}

int gradd_send_for_record(gradd_client *client, const gradd_request *request, const gradd_field *fields,
                          size_t count, void *record, gradd_error *error) {
    gradd_reply reply;
    int code = gradd_http(client, request, &reply, error);
    if (!code) {
        code = gradd_reply_record(&reply, fields, count, record, error);
        free(reply.data);
    }
    return code;
}

int gradd_send_for_info(gradd_client *client, const gradd_request *request, const gradd_kind *kind,
                        void *ret_info, gradd_error *error) {
    json_t *json = NULL;
    int code = gradd_send_for_json(client, request, &json, error);
    if (!code && ret_info) {
        code = gradd_info_read(json, kind, ret_info, error);
    }
    json_decref(json);
    return code;
}

void gradd_request_json(gradd_request *request, gradd_segment *segment, const char *json) {
    *segment = (gradd_segment){json, strlen(json)};
    request->content_type = GRADD_JSON;
    request->body = segment;
    request->body_count = 1;
}

int gradd_list_all(gradd_client *client, const gradd_request *base, json_t **ret_items, gradd_error *error) {
    enum { MAX_PAGES = 1000 };
    char cursor[512] = "";
    json_t *items = json_array();
    int code = items ? GRADD_OK : gradd_fail_memory(error);
    for (int pages = 0; !code; pages++) {
        gradd_request request = *base;
        json_t *page = NULL;
        if (*cursor) {
            gradd_url_query(&request.url, "cursor", cursor);
        }
        code = gradd_send_for_json(client, &request, &page, error);
        const json_t *next = json_object_get(page, "next_cursor");
        const char *text = json_string_value(next);
        if (code) {
            break;
        }
        if (!json_is_array(json_object_get(page, "items")) || pages == MAX_PAGES ||
            (text && strlen(text) >= sizeof cursor)) {
            code = gradd_fail(error, GRADD_E_REPLY, "the reply is not a list, or one without end");
        } else if (json_array_extend(items, json_object_get(page, "items"))) {
            code = gradd_fail_memory(error);
        }
        snprintf(cursor, sizeof cursor, "%s", !code && text ? text : "");
        json_decref(page);
        if (!*cursor) {
            break;
        }
    }
    if (code) {
        json_decref(items);
    } else {
        *ret_items = items;
    }
    return code;
}

int gradd_list_infos(gradd_client *client, const gradd_request *base, const gradd_kind *kind,
                     void **ret_infos, size_t *ret_count, gradd_error *error) {
    json_t *items = NULL;
    int code = gradd_list_all(client, base, &items, error);
    if (code) {
        return code;
    }
    const size_t count = json_array_size(items);
    size_t read = 0;
    char *infos = calloc(count + 1, kind->size);
    code = infos ? GRADD_OK : gradd_fail_memory(error);
    for (; read < count && !code; read += !code) {
        code = gradd_info_read(json_array_get(items, read), kind, infos + read * kind->size, error);
    }
    json_decref(items);
    if (code) {
        gradd_infos_free(kind, infos, read);
    } else {
        *ret_infos = infos;
        *ret_count = count;
    }
    return code;
}
