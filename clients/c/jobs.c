/* jobs.c -- training that runs in the daemon. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client.h"

static const gradd_field fields[] = {
    GRADD_FIELD(gradd_job_info, id, INT, .required = true),
    GRADD_FIELD(gradd_job_info, state, TEXT, .required = true),
    GRADD_FIELD(gradd_job_info, model, TEXT),
    GRADD_FIELD(gradd_job_info, dataset, TEXT),
    GRADD_FIELD(gradd_job_info, epoch, INT),
    GRADD_FIELD(gradd_job_info, epochs, INT),
    GRADD_FIELD(gradd_job_info, created_at, TEXT),
    GRADD_FIELD(gradd_job_info, step, INT),
    GRADD_FIELD(gradd_job_info, total_steps, INT),
    GRADD_FIELD(gradd_job_info, loss, DOUBLE),
    GRADD_FIELD(gradd_job_info, lr, DOUBLE),
    GRADD_FIELD(gradd_job_info, eval_loss, DOUBLE, .path = "eval.loss"),
    GRADD_FIELD(gradd_job_info, eval_accuracy, DOUBLE, .path = "eval.accuracy"),
    GRADD_FIELD(gradd_job_info, samples_per_second, DOUBLE),
    GRADD_FIELD(gradd_job_info, eta_seconds, DOUBLE),
    GRADD_FIELD(gradd_job_info, problem, TEXT, .path = "error.code"),
    GRADD_FIELD(gradd_job_info, error, TEXT, .path = "error.detail"),
};

static const gradd_kind kind = GRADD_KIND(gradd_job_info, fields);

void gradd_job_info_free(gradd_job_info *info) {
    gradd_info_free(&kind, info);
}

void gradd_job_list_free(gradd_job_list *list) {
    if (list) {
        gradd_infos_free(&kind, list->items, list->count);
        *list = (gradd_job_list){0};
    }
}

bool gradd_job_ended(const gradd_job_info *info) {
    static const char *const ends[] = {"succeeded", "failed", "cancelled"};
    for (size_t i = 0; i < COUNT(ends); i++) {
        if (strcmp(info->state, ends[i]) == 0) {
            return true;
        }
    }
    return false;
}

gradd_request gradd_job_request(const char *method, int64_t job, const char *below) {
    gradd_request request = {.method = method, .accept = GRADD_JSON};
    char path[64];
    snprintf(path, sizeof path, "/v1/jobs/%" PRId64 "%s", job, below);
    gradd_url_add(&request.url, path);
    return request;
}

int gradd_job_start(gradd_client *client, const char *json, const gradd_option *options,
                    gradd_job_info *ret_info, gradd_error *error) {
    gradd_request request = {.method = "POST", .accept = GRADD_JSON};
    gradd_segment segment;
    gradd_url_add(&request.url, "/v1/jobs");
    gradd_request_options(&request, options);
    gradd_request_json(&request, &segment, json);
    return gradd_send_for_info(client, &request, &kind, ret_info, error);
}

int gradd_job_list_all(gradd_client *client, gradd_job_list *ret_list, gradd_error *error) {
    gradd_request request = {.method = "GET", .accept = GRADD_JSON};
    void *items = NULL;
    gradd_url_add(&request.url, "/v1/jobs");
    int code = gradd_list_infos(client, &request, &kind, &items, &ret_list->count, error);
    if (!code) {
        ret_list->items = items;
    }
    return code;
}

int gradd_job_show(gradd_client *client, int64_t job, int wait_seconds, gradd_job_info *ret_info,
                   gradd_error *error) {
    gradd_request request = gradd_job_request("GET", job, "");
    char wait[32];
    snprintf(wait, sizeof wait, "wait=%d", wait_seconds);
    if (wait_seconds > 0) {
        gradd_request_header(&request, "Prefer", wait);
    }
    return gradd_send_for_info(client, &request, &kind, ret_info, error);
}

static int ask(gradd_client *client, int64_t job, const char *action, gradd_job_info *ret_info,
               gradd_error *error) {
    gradd_request request = gradd_job_request("POST", job, action);
    gradd_segment segment;
    gradd_request_json(&request, &segment, "{}");
    return gradd_send_for_info(client, &request, &kind, ret_info, error);
}

int gradd_job_cancel(gradd_client *client, int64_t job, gradd_job_info *ret_info, gradd_error *error) {
    return ask(client, job, "/cancel", ret_info, error);
}

int gradd_job_pause(gradd_client *client, int64_t job, gradd_job_info *ret_info, gradd_error *error) {
    return ask(client, job, "/pause", ret_info, error);
}

int gradd_job_resume(gradd_client *client, int64_t job, gradd_job_info *ret_info, gradd_error *error) {
    return ask(client, job, "/resume", ret_info, error);
}
