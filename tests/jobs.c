/* jobs.c */
#include "tests/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/http.h"
#include "tests/support.h"

json_t *test_job_call(const test_daemon *daemon, const char *method, const char *path, const char *json,
                      int status) {
    test_reply reply;
    test_call(daemon, method, path, json, status, &reply);
    json_t *body = json_loads(reply.body, 0, NULL);
    test_reply_release(&reply);
    assert_non_null(body);
    return body;
}

const char *test_text_of(const json_t *json, const char *name) {
    const char *text = json_string_value(json_object_get(json, name));
    return text ? text : "";
}

double test_number_of(const json_t *json, const char *name) {
    return json_number_value(json_object_get(json, name));
}

/* @return its id */
int test_job_post(const test_daemon *daemon, const char *json) {
    json_t *job = test_job_call(daemon, "POST", "/v1/jobs", json, 202);
    int id = (int)test_number_of(job, "id");
    json_decref(job);
    return id;
}

void test_job_model(const test_daemon *daemon, const char *json) {
    test_expect(daemon, "POST", "/v1/models", json, 201, "layers");
}

json_t *test_job_show(const test_daemon *daemon, int id, const char *headers) {
    char path[64];
    test_reply reply;
    int fd = test_connect(daemon->port);
    snprintf(path, sizeof path, "/v1/jobs/%d", id);
    test_request(fd, "GET", path, headers, NULL, 0, &reply);
    close(fd);
    assert_int_equal(reply.status, 200);
    json_t *job = json_loads(reply.body, 0, NULL);
    test_reply_release(&reply);
    assert_non_null(job);
    return job;
}

/* Wait until it has this state, and nothing else in its place; a new reference. */
json_t *test_job_wait_for(const test_daemon *daemon, int id, const char *state) {
    for (int i = 0; i < 60; i++) {
        json_t *job = test_job_show(daemon, id, i ? "Prefer: wait=20\r\n" : "");
        const char *now = test_text_of(job, "state");
        if (!strcmp(now, state)) {
            return job;
        }
        if (!strcmp(now, "succeeded") || !strcmp(now, "failed") || !strcmp(now, "cancelled")) {
            char *dump = json_dumps(job, 0);
            fail_msg("the job is %s, not %s: %s", now, state, dump);
        }
        json_decref(job);
    }
    fail_msg("the job is not %s", state);
    return NULL;
}

void test_job_wait(const test_daemon *daemon, int id, const char *state) {
    json_decref(test_job_wait_for(daemon, id, state));
}

void test_job_wait_for_step(const test_daemon *daemon, int id, int step) {
    for (int i = 0; i < 60000; i++) {
        json_t *job = test_job_show(daemon, id, "");
        bool there = test_number_of(job, "step") >= step;
        json_decref(job);
        if (there) {
            return;
        }
        usleep(1000);
    }
    fail_msg("the job does not come to step %d", step);
}

void test_job_act(const test_daemon *daemon, int id, const char *action, int status, const char *part) {
    char path[64];
    snprintf(path, sizeof path, "/v1/jobs/%d/%s", id, action);
    test_expect(daemon, "POST", path, NULL, status, part);
}

/* A model's state_dict and metrics but for times and speed, in one text. */
static char *fingerprint(const test_daemon *daemon, const char *model, size_t *ret_size) {
    char path[160];
    test_reply state, metrics;
    snprintf(path, sizeof path, "/v1/models/%s/state_dict", model);
    test_call(daemon, "GET", path, NULL, 200, &state);
    snprintf(path, sizeof path,
             "/v1/models/%s/metrics?keys=loss,lr,grad_norm,accuracy,eval_loss,eval_accuracy", model);
    int fd = test_connect(daemon->port);
    test_request(fd, "GET", path, "Accept: text/csv\r\n", NULL, 0, &metrics);
    close(fd);
    assert_int_equal(metrics.status, 200);
    char *all = malloc(state.size + metrics.size + 1);
    memcpy(all, state.body, state.size);
    size_t size = state.size;
    for (const char *line = metrics.body; *line;) { /* step,time,... */
        size_t length = strcspn(line, "\n"), step = strcspn(line, ",");
        const char *rest = line + step + 1 + strcspn(line + step + 1, ",");
        memcpy(all + size, line, step);
        memcpy(all + size + step, rest, (size_t)(line + length - rest));
        size += step + (size_t)(line + length - rest);
        all[size++] = '\n';
        line += length + (line[length] == '\n');
    }
    test_reply_release(&state);
    test_reply_release(&metrics);
    *ret_size = size;
    return all;
}

void test_same_training(const test_daemon *a, const char *model_a, const test_daemon *b,
                        const char *model_b) {
    size_t size_a, size_b;
    char *print_a = fingerprint(a, model_a, &size_a), *print_b = fingerprint(b, model_b, &size_b);
    assert_int_equal(size_a, size_b);
    assert_memory_equal(print_a, print_b, size_a);
    free(print_a);
    free(print_b);
}
