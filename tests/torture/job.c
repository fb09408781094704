/* job.c -- jobs: one of the first client's that must end as if nothing had happened, others that are
 * cancelled. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actions.h"

/* ---- a job; of the first client -------------------------------------------------------------------------
 */

#define JOB_MODEL \
    "{'name': '%s', 'seed': 3, 'input': {'shape': [16]}, 'layers': [{'type': 'Linear', 'name': 'a', " \
    "'out_features': 32}, {'type': 'BatchNorm1d', 'name': 'b'}, {'type': 'relu'}, {'type': 'Dropout', 'p': " \
    "0.2}, {'type': 'Linear', 'name': 'c', 'out_features': 4}], 'loss': {'type': 'CrossEntropyLoss'}, " \
    "'optimizer': {'type': 'Adam', 'lr': 0.001}, 'scheduler': {'type': 'StepLR', 'step_size': 2000, " \
    "'gamma': 0.5}}"
/* 21 batches an epoch: some of the checkpoints are between two epochs, some within one. */
#define JOB \
    "{'model': '%s', 'dataset': 'blobs', 'steps': %d, 'batch_size': 24, 'seed': 5, 'eval': {'every_steps': " \
    "250}, 'checkpoint': {'every_steps': 70, 'keep': 2}, 'clip_grad_norm': 1.0}"

enum { ROWS = 500, COLUMNS = 16 };

static bool put_blobs(client *c, const char *split, uint64_t seed) {
    char *input = malloc(ROWS * 200), *target = malloc(ROWS * 4), path[96];
    size_t input_size = 0, target_size = 0;
    client source = {.random = seed};
    for (size_t i = 0; i < ROWS; i++) {
        const uint32_t class = client_random(&source, 4);
        for (uint32_t j = 0; j < COLUMNS; j++) {
            const double value = client_random(&source, 1000) / 1000.0 + (j % 4 == class ? 0.5 : 0);
            input_size +=
                (size_t)snprintf(input + input_size, 12, "%.3f%c", value, j + 1 < COLUMNS ? ',' : '\n');
        }
        target[target_size++] = (char)('0' + class);
        target[target_size++] = '\n';
    }
    snprintf(path, sizeof path, "/v1/datasets/blobs/%s/input", split);
    const char *const none[] = {NULL};
    int status = client_send(c, "PUT", path, none, input, input_size);
    if (status / 100 == 2) {
        snprintf(path, sizeof path, "/v1/datasets/blobs/%s/target", split);
        status = client_send(c, "PUT", path, none, target, target_size);
    }
    free(input);
    free(target);
    return status / 100 == 2 || client_fail(c, "blobs: %d %s", status, c->body);
}

bool torture_prepare(client *c) {
    return put_blobs(c, "train", 1) && put_blobs(c, "test", 2);
}

/* Model and job, as far as they are not there: with keys, so that there is one of each. */
static bool begin_job(client *c) {
    ledger *l = &c->ledger;
    char name[64], json[1024], key[80];
    l->job_serial = l->job_serial ? l->job_serial : ++c->serial;
    torture_name(c, "job", l->job_serial, name);
    snprintf(json, sizeof json, JOB_MODEL, name);
    snprintf(key, sizeof key, "make-%s", name);
    if (!client_expect(c, client_ask(c, "POST", "/v1/models", key, json), 201, "make the job's model")) {
        return false;
    }
    snprintf(json, sizeof json, JOB, name, JOB_STEPS);
    snprintf(key, sizeof key, "begin-%s", name);
    if (!client_expect(c, client_ask(c, "POST", "/v1/jobs", key, json), 202, "job")) {
        return false;
    }
    const char *id = strstr(c->body, "\"id\":");
    l->job = id ? (int)strtol(id + 5, NULL, 10) : 0;
    l->job_step = 0;
    l->job_kills = 0;
    return l->job > 0 || client_fail(c, "a job without an id: %s", c->body);
}

/* CSV of the model's metrics without its column of times: step,value,...; in place. */
static bool get_history(client *c, const char *keys) {
    char path[200], name[64];
    snprintf(path, sizeof path, "/v1/models/%s/metrics?keys=%s",
             torture_name(c, "job", c->ledger.job_serial, name), keys);
    int status = 0; /* a job that comes back after a restart cuts its history: then the export breaks off */
    for (int i = 0; !status && i < 3; i++) {
        status = client_send(c, "GET", path, (const char *const[]){"Accept: text/csv", NULL}, NULL, 0);
    }
    if (!client_expect(c, status, 200, "the job's history")) {
        return false;
    }
    char *to = c->body;
    for (const char *line = c->body; *line;) {
        size_t length = strcspn(line, "\n") + 1, before = strcspn(line, ",");
        const char *rest = line + before + 1 + strcspn(line + before + 1, ",\n");
        memmove(to, line, before);
        memmove(to + before, rest, (size_t)(line + length - rest));
        to += before + (size_t)(line + length - rest);
        line += length;
    }
    *to = '\0';
    c->size = (size_t)(to - c->body);
    return true;
}

#define STEP_KEYS "loss,lr,grad_norm,accuracy"
#define EVAL_KEYS "eval_loss,eval_accuracy"

static bool get_state(client *c) {
    char path[128], name[64];
    snprintf(path, sizeof path, "/v1/models/%s/state_dict",
             torture_name(c, "job", c->ledger.job_serial, name));
    return client_expect(c, client_ask(c, "GET", path, NULL, NULL), 200, "the job's weights");
}

/* Its numbers so far are those of the run that nothing interrupted: each step once, in order, to the bit. */
static bool verify_job_history(client *c, bool ended) {
    const char *expected = c->expected->history;
    if (!get_history(c, STEP_KEYS)) {
        return false;
    }
    if (strncmp(expected, c->body, c->size) != 0 || (ended && strlen(expected) != c->size)) {
        size_t same = 0;
        while (expected[same] && expected[same] == c->body[same]) {
            same++;
        }
        while (same && expected[same - 1] != '\n') {
            same--;
        }
        return client_fail(c, "the job's history has %.80s where %.80s belongs", c->body + same,
                           expected + same);
    }
    return true;
}

static bool verify_job_end(client *c) {
    if (!verify_job_history(c, true) || !get_history(c, EVAL_KEYS)) {
        return false;
    }
    if (strcmp(c->body, c->expected->evaluations) != 0) {
        return client_fail(c, "evaluations are %.300s, not %.300s", c->body, c->expected->evaluations);
    }
    if (!get_state(c)) {
        return false;
    }
    return (c->size == c->expected->state_size && !memcmp(c->body, c->expected->state, c->size)) ||
           client_fail(c, "the job's weights are others");
}

/* How the job is. @return 1: it has succeeded, 0: it goes on; -1 */
static int look_at_job(client *c) {
    char path[64];
    snprintf(path, sizeof path, "/v1/jobs/%d", c->ledger.job);
    if (!client_expect(c, client_ask(c, "GET", path, NULL, NULL), 200, "the job")) {
        return -1;
    }
    const char *at = strstr(c->body, "\"step\":");
    c->ledger.job_step = at ? (int)strtol(at + 7, NULL, 10) : 0;
    if (strstr(c->body, "\"state\":\"succeeded\"")) {
        return 1;
    }
    if (strstr(c->body, "\"state\":\"failed\"") || strstr(c->body, "\"state\":\"cancelled\"")) {
        client_fail(c, "the job is over: %s", c->body);
        return -1;
    }
    return 0;
}

static bool end_job(client *c) {
    ledger *l = &c->ledger;
    char path[128], name[64];
    if (!verify_job_end(c)) {
        return false;
    }
    c->jobs_ended++;
    c->most_job_kills = l->job_kills > c->most_job_kills ? l->job_kills : c->most_job_kills;
    snprintf(path, sizeof path, "/v1/models/%s", torture_name(c, "job", l->job_serial, name));
    l->job_serial = l->pause = 0;
    l->job = 0;
    return client_expect(c, client_ask(c, "DELETE", path, NULL, NULL), 204, "drop the job's model");
}

bool torture_job(client *c) {
    if (c->index) {
        return true;
    }
    if (!c->ledger.job) {
        return c->only_finish || begin_job(c);
    }
    int ended = look_at_job(c);
    return ended > 0 ? end_job(c) : !ended;
}

/* The last pause (0) or resume (1), for the first time or again. 409: the job has ended meanwhile. */
static bool ask_pause(client *c, int i) {
    static const char *const actions[] = {"pause", "resume"};
    ledger *l = &c->ledger;
    const bool known = l->asked[i] == THERE;
    char path[64], key[64];
    snprintf(path, sizeof path, "/v1/jobs/%d/%s", l->job, actions[i]);
    snprintf(key, sizeof key, "%s-%d-%u", actions[i], c->index, l->pause);
    l->asked[i] = known ? THERE : UNSURE;
    int status = client_ask(c, "POST", path, key, "{}");
    if (status == 409 && !known) {
        l->asked[i] = ABSENT;
        return true;
    }
    if (!client_expect_again(c, status, 202, known, path)) {
        return false;
    }
    l->asked[i] = THERE;
    return true;
}

/* Pauses of a moment change nothing. */
bool torture_pause_job(client *c) {
    ledger *l = &c->ledger;
    if (c->index || !l->job || client_random(c, 3)) {
        return true;
    }
    l->pause = ++c->serial;
    l->asked[0] = l->asked[1] = ABSENT;
    return ask_pause(c, 0) && ask_pause(c, 1);
}

/* Both are sent again; the pause, which is over, a third time. */
static bool verify_pause(client *c) {
    ledger *l = &c->ledger;
    if (!l->pause || l->asked[0] == ABSENT) {
        return true;
    }
    return ask_pause(c, 0) && ask_pause(c, 1) && (l->asked[0] == ABSENT || ask_pause(c, 0));
}

bool torture_verify_job(client *c) {
    ledger *l = &c->ledger;
    if (!l->job_serial) {
        return true;
    }
    if (!l->job) {
        return begin_job(c);
    }
    l->job_kills++;
    int ended = verify_pause(c) ? look_at_job(c) : -1;
    if (!ended && strstr(c->body, "\"state\":\"paus")) {
        return client_fail(c, "the job has paused once more: %.300s", c->body);
    }
    return ended >= 0 && (ended ? end_job(c) : verify_job_history(c, false));
}

bool torture_job_ended(client *c) {
    return !c->ledger.job_serial || (c->ledger.job && look_at_job(c) > 0 && end_job(c));
}

/* ---- jobs that are cancelled; of the other clients ------------------------------------------------------
 */

/* Its model, the job, and that it is cancelled; each for the first time or again. */
static bool cancel(client *c) {
    ledger *l = &c->ledger;
    char name[64], json[1024], key[80], path[64];
    torture_name(c, "cancelled", l->cancelled, name);
    snprintf(json, sizeof json, JOB_MODEL, name);
    snprintf(key, sizeof key, "make-%s", name);
    if (!client_expect(c, client_ask(c, "POST", "/v1/models", key, json), 201, name)) {
        return false;
    }
    snprintf(json, sizeof json, JOB, name, 100000000);
    snprintf(key, sizeof key, "begin-%s", name);
    const int before = l->cancelled_job, status = client_ask(c, "POST", "/v1/jobs", key, json);
    if (!client_expect_again(c, status, 202, before != 0, "job to cancel")) {
        return false;
    }
    const char *id = strstr(c->body, "\"id\":");
    l->cancelled_job = id ? (int)strtol(id + 5, NULL, 10) : 0;
    if (!l->cancelled_job || (before && before != l->cancelled_job)) {
        return client_fail(c, "job %d is %.300s", before, c->body);
    }
    snprintf(path, sizeof path, "/v1/jobs/%d/cancel", l->cancelled_job);
    snprintf(key, sizeof key, "cancel-%s", name);
    if (!client_expect_again(c, client_ask(c, "POST", path, key, "{}"), 202, l->cancel_known, path)) {
        return false;
    }
    l->cancel_known = true;
    return true;
}

/* There is one, and it ends. @return 1: it has, 0: not yet; -1 */
static int look_at_cancelled(client *c) {
    char name[64], path[160];
    snprintf(path, sizeof path, "/v1/jobs?model=%s", torture_name(c, "cancelled", c->ledger.cancelled, name));
    if (!client_expect(c, client_ask(c, "GET", path, NULL, NULL), 200, path)) {
        return -1;
    }
    const char *one = strstr(c->body, "\"spec\":");
    if (!one || strstr(one + 1, "\"spec\":") || !strstr(c->body, "\"state\":\"cancel")) {
        client_fail(c, "not one job that is cancelled: %.600s", c->body);
        return -1;
    }
    return strstr(c->body, "\"state\":\"cancelled\"") != NULL;
}

static bool forget_cancelled(client *c) {
    char name[64], path[128];
    snprintf(path, sizeof path, "/v1/models/%s", torture_name(c, "cancelled", c->ledger.cancelled, name));
    c->ledger.cancelled_unsure = true;
    if (!client_expect(c, client_ask(c, "DELETE", path, NULL, NULL), 204, "drop the cancelled job's model")) {
        return false;
    }
    c->ledger.cancelled = 0;
    return true;
}

bool torture_cancel_job(client *c) {
    ledger *l = &c->ledger;
    if (!c->index) {
        return true;
    }
    if (!l->cancelled) {
        l->cancelled = ++c->serial;
        l->cancelled_job = 0;
        l->cancel_known = l->cancelled_unsure = false;
        return cancel(c);
    }
    const int ended = look_at_cancelled(c);
    return ended > 0 ? forget_cancelled(c) : !ended;
}

bool torture_verify_cancelled(client *c) {
    ledger *l = &c->ledger;
    char name[64], path[128];
    if (!l->cancelled) {
        return true;
    }
    if (l->cancelled_unsure) { /* with its model went the keys */
        snprintf(path, sizeof path, "/v1/models/%s", torture_name(c, "cancelled", l->cancelled, name));
        int status = client_ask(c, "GET", path, NULL, NULL);
        if (status == 404) {
            l->cancelled = 0;
            return true;
        }
        if (!client_expect(c, status, 200, path)) {
            return false;
        }
        l->cancelled_unsure = false;
    }
    return cancel(c) && look_at_cancelled(c) >= 0;
}

/* ---- the run that nothing interrupts ---------------------------------------------------------------------
 */

static char *copy_body(const client *c) {
    char *copy = malloc(c->size + 1);
    memcpy(copy, c->body, c->size + 1);
    return copy;
}

bool reference_run(client *c, reference *r) {
    if (!torture_prepare(c) || !begin_job(c) || !torture_begin_trained(c)) {
        return false;
    }
    for (int i = 1; i <= STEPS; i++) {
        if (!client_expect(c, torture_take_step(c, i), 200, "step")) {
            return false;
        }
        r->steps[i] = copy_body(c);
    }
    int ended;
    while (!(ended = look_at_job(c))) {
    }
    if (ended < 0 || !get_history(c, STEP_KEYS)) {
        return false;
    }
    r->history = copy_body(c);
    if (!get_history(c, EVAL_KEYS)) {
        return false;
    }
    r->evaluations = copy_body(c);
    if (!get_state(c)) {
        return false;
    }
    r->state = copy_body(c);
    r->state_size = c->size;
    return true;
}

void reference_release(reference *r) {
    for (int i = 1; i <= STEPS; i++) {
        free(r->steps[i]);
    }
    free(r->history);
    free(r->evaluations);
    free(r->state);
}
