/* actions.c -- what clients do while the daemon is killed under them, and what must then be true: a table. */
#include <inttypes.h>
#include <jansson.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* ---- models: made, changed, deleted ------------------------------------------------------------------- */

#define MODEL \
    "{'name': '%s', 'seed': %u, 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'fc1', " \
    "'in_features': 4, 'out_features': 8}, {'type': 'BatchNorm1d', 'name': 'bn', 'num_features': 8}, " \
    "{'type': 'Dropout', 'p': 0.5}, {'type': 'Linear', 'name': 'fc2', 'in_features': 8, 'out_features': " \
    "3}], 'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': {'type': 'Adam', 'lr': %.9g}, " \
    "'scheduler': {'type': 'StepLR', 'step_size': 40}}"

/* One of the client's things: names begin with what it is and whose, and end with its place or number. */
static const char *name_of(const client *c, const char *what, unsigned number, char text[64]) {
    snprintf(text, 64, "%s-%d-%u", what, c->index, number);
    return text;
}

static int make_model(client *c, const char *name, unsigned seed, double lr) {
    char json[1024], key[80];
    snprintf(json, sizeof json, MODEL, name, seed, lr);
    snprintf(key, sizeof key, "make-%s", name);
    return client_ask(c, "POST", "/v1/models", key, json);
}

static int ask_model(client *c, const char *method, const char *name, const char *json) {
    char path[128];
    snprintf(path, sizeof path, "/v1/models/%s", name);
    return client_ask(c, method, path, NULL, json);
}

static bool model_make(client *c) {
    char name[64];
    model_entry *m = &c->ledger.models[client_random(c, MODELS)];
    if (m->presence != ABSENT) {
        return true;
    }
    *m = (model_entry){.presence = UNSURE, .serial = ++c->serial, .lr = 0.5, .other_lr = 0.5};
    if (!client_expect(c, make_model(c, name_of(c, "model", m->serial, name), 7, m->lr), 201, "make")) {
        return false;
    }
    m->presence = THERE;
    return true;
}

static bool model_change(client *c) {
    char name[64], json[64];
    model_entry *m = &c->ledger.models[client_random(c, MODELS)];
    if (m->presence != THERE) {
        return true;
    }
    m->other_lr = 1.0 / (double)(2 << client_random(c, 8));
    snprintf(json, sizeof json, "{'optimizer': {'lr': %.9g}}", m->other_lr);
    if (!client_expect(c, ask_model(c, "PATCH", name_of(c, "model", m->serial, name), json), 200, "change")) {
        return false;
    }
    m->lr = m->other_lr;
    return true;
}

static bool model_drop(client *c) {
    char name[64];
    model_entry *m = &c->ledger.models[client_random(c, MODELS)];
    if (m->presence != THERE) {
        return true;
    }
    m->presence = UNSURE;
    if (!client_expect(c, ask_model(c, "DELETE", name_of(c, "model", m->serial, name), NULL), 204, "drop")) {
        return false;
    }
    m->presence = ABSENT;
    return true;
}

static bool verify_model(client *c, model_entry *m) {
    char name[64], one[32], other[32];
    name_of(c, "model", m->serial, name);
    int status = m->serial ? ask_model(c, "GET", name, NULL) : 404;
    if (m->presence == UNSURE && status == 404) {
        m->presence = ABSENT;
    }
    if (!client_expect(c, status, m->presence == ABSENT ? 404 : 200, name) || status == 404) {
        return !*c->failure;
    }
    snprintf(one, sizeof one, "\"lr\":%.9g", m->lr);
    snprintf(other, sizeof other, "\"lr\":%.9g", m->other_lr);
    const bool is_other = strstr(c->body, other) != NULL;
    if (!is_other && !strstr(c->body, one)) {
        return client_fail(c, "model %s has neither %s nor %s: %s", name, one, other, c->body);
    }
    m->presence = THERE;
    m->lr = m->other_lr = is_other ? m->other_lr : m->lr;
    return true;
}

static bool models_verify(client *c) {
    for (size_t i = 0; i < MODELS; i++) {
        if (!verify_model(c, &c->ledger.models[i])) {
            return false;
        }
    }
    return true;
}

/* ---- datasets: uploaded, replaced, deleted ------------------------------------------------------------- */

enum { ROW = 16 };

/* An npy file of (n, ROW) uint8, all of it from its seed; free() it. */
static char *make_npy(uint64_t seed, size_t *ret_rows, size_t *ret_head, size_t *ret_size) {
    client source = {.random = seed};
    const uint32_t scale = client_random(&source, 40) ? 4096 : 150000; /* rows: 64 KiB, seldom 2 MiB */
    const size_t rows = 1 + client_random(&source, scale), size = 128 + rows * ROW;
    char *bytes = malloc(size), text[119];
    int used = snprintf(text, sizeof text, "{'descr': '|u1', 'fortran_order': False, 'shape': (%zu, %d), }",
                        rows, ROW);
    memcpy(bytes, "\x93NUMPY\x01\x00\x76\x00", 10);
    memset(bytes + 10, ' ', 117);
    memcpy(bytes + 10, text, (size_t)used);
    bytes[127] = '\n';
    for (size_t i = 128; i < size; i++) {
        bytes[i] = (char)client_random(&source, 256);
    }
    *ret_rows = rows;
    *ret_head = 128;
    *ret_size = size;
    return bytes;
}

static void hash(const void *bytes, size_t size, char text[65]) {
    struct sha256_ctx context;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&context);
    sha256_update(&context, size, bytes);
    sha256_digest(&context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
}

static int dataset_ask(client *c, const char *method, size_t place, const char *rest, const char *header,
                       const void *body, size_t size) {
    char name[64], path[160];
    snprintf(path, sizeof path, "/v1/datasets/%s%s", name_of(c, "data", (unsigned)place, name), rest);
    return client_send(c, method, path, (const char *const[]){header, NULL}, body, size);
}

static bool dataset_put(client *c) {
    size_t rows, head, size, place = client_random(c, DATASETS);
    dataset_entry *d = &c->ledger.datasets[place];
    d->before = d->seed;
    d->seed = client_random(c, UINT32_MAX) + UINT64_C(1);
    d->presence = UNSURE;
    char *bytes = make_npy(d->seed, &rows, &head, &size);
    int status = dataset_ask(c, "PUT", place, "/train/input", NULL, bytes, size);
    free(bytes);
    if (status != 200 && !client_expect(c, status, 201, "upload")) {
        return false;
    }
    d->presence = THERE;
    d->before = d->seed;
    return true;
}

static bool dataset_drop(client *c) {
    size_t place = client_random(c, DATASETS);
    dataset_entry *d = &c->ledger.datasets[place];
    if (d->presence != THERE) {
        return true;
    }
    d->presence = UNSURE;
    if (!client_expect(c, dataset_ask(c, "DELETE", place, "", NULL, NULL, 0), 204, "drop")) {
        return false;
    }
    *d = (dataset_entry){0};
    return true;
}

/* Is what the daemon has this one, byte for byte? */
static bool has_contents(client *c, size_t place, uint64_t seed) {
    size_t rows, head, size;
    char path[80];
    char *bytes = make_npy(seed, &rows, &head, &size);
    snprintf(path, sizeof path, "/train/input?limit=%zu", rows + 1);
    int status = dataset_ask(c, "GET", place, path, "Accept: application/x-npy", NULL, 0);
    bool same = status == 200 && c->size > size - head &&
                !memcmp(c->body + c->size - (size - head), bytes + head, size - head);
    if (same) { /* and its length is no other */
        char shape[48];
        snprintf(shape, sizeof shape, "(%zu, %d)", rows, ROW);
        same = memmem(c->body, c->size - (size - head), shape, strlen(shape)) != NULL;
    }
    free(bytes);
    return same;
}

static bool datasets_verify(client *c) {
    for (size_t i = 0; i < DATASETS; i++) {
        dataset_entry *d = &c->ledger.datasets[i];
        int status = dataset_ask(c, "GET", i, "", NULL, NULL, 0);
        if (status == 404 &&
            (d->presence == ABSENT || (d->presence == UNSURE && d->before != d->seed && !d->before))) {
            *d = (dataset_entry){0};
            continue;
        }
        if (status == 404 && d->presence == UNSURE && d->before == d->seed) { /* it was being deleted */
            *d = (dataset_entry){0};
            continue;
        }
        if (!client_expect(c, status, d->presence == ABSENT ? 404 : 200, "dataset")) {
            return false;
        }
        const bool is_new = has_contents(c, i, d->seed);
        if (!is_new && !(d->before && has_contents(c, i, d->before))) {
            return client_fail(c, "dataset %zu is not what was uploaded", i);
        }
        d->seed = d->before = is_new ? d->seed : d->before;
        d->presence = THERE;
    }
    return true;
}

/* ---- a model that is trained by requests ----------------------------------------------------------------
 */

static const char *trained_path(const client *c, const char *rest, char path[160]) {
    char name[64];
    snprintf(path, 160, "/v1/models/%s%s", name_of(c, "trained", c->ledger.trained, name), rest);
    return path;
}

/* Take step i, for the first time or again: what comes must be what came in the run that nothing
 * interrupted. */
static int take_step(client *c, int i) {
    char json[256], path[160], key[64];
    snprintf(json, sizeof json,
             "{'input': [[%d, 2, 3, 4], [1, %d, 2, -1], [0, 1, 0, %d]], 'target': [0, 1, 2]}", i % 11, -i % 7,
             i % 3);
    snprintf(key, sizeof key, "step-%d-%u-%d", c->index, c->ledger.trained, i);
    int status = client_ask(c, "POST", trained_path(c, "/train_step", path), key, json);
    char *times = status == 200 ? strstr(c->body, ",\"timing_us\"") : NULL;
    if (times) {
        *times = '\0';
    }
    if (times && c->expected && strcmp(c->body, c->expected->steps[i]) != 0) {
        client_fail(c, "step %d gave %s, not %s", i, c->body, c->expected->steps[i]);
        return -1;
    }
    return status;
}

static bool begin_trained(client *c) {
    ledger *l = &c->ledger;
    char name[64], path[160];
    if (l->trained && !client_expect(c, client_ask(c, "DELETE", trained_path(c, "", path), NULL, NULL), 204,
                                     "drop trained")) {
        l->steps = STEPS; /* to be tried again */
        return false;
    }
    memset(l->checkpoints, 0, sizeof l->checkpoints);
    l->trained = ++c->serial;
    l->steps = l->saved = 0;
    l->step_unsure = false;
    return client_expect(c, make_model(c, name_of(c, "trained", l->trained, name), 7, 0.05), 201,
                         "make trained");
}

static bool step(client *c) {
    ledger *l = &c->ledger;
    if (!l->trained || l->steps == STEPS) {
        return begin_trained(c);
    }
    for (uint32_t n = 1 + client_random(c, 8); n && l->steps < STEPS; n--) {
        l->step_unsure = true;
        if (!client_expect(c, take_step(c, l->steps + 1), 200, "step")) {
            return false;
        }
        l->steps++;
        l->step_unsure = false;
    }
    return true;
}

/* Its metrics have each step once, in order. */
static bool verify_history(client *c, int steps) {
    char path[160];
    int expected = 0;
    int status = client_send(c, "GET", trained_path(c, "/metrics?keys=loss", path),
                             (const char *const[]){"Accept: text/csv", NULL}, NULL, 0);
    if (!client_expect(c, status, 200, "history")) {
        return false;
    }
    for (const char *line = strchr(c->body, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
        const int at = (int)strtol(line + 1, NULL, 10);
        if (at != ++expected) {
            return client_fail(c, "the history has step %d where %d belongs", at, expected);
        }
    }
    return expected == steps || client_fail(c, "the history ends at step %d, not %d", expected, steps);
}

/* It is at some step that was saved; from there all requests are sent again, with their keys: those that are
 * in it already do nothing. */
static bool steps_verify(client *c) {
    ledger *l = &c->ledger;
    char path[160], name[64];
    if (!l->trained) {
        return true;
    }
    int status = client_ask(c, "GET", trained_path(c, "", path), NULL, NULL);
    if (status == 404 && l->steps == STEPS) { /* its deletion, or the next one's making, was not answered */
        memset(l->checkpoints, 0, sizeof l->checkpoints);
        l->trained = 0;
        return true;
    }
    if (status == 404 && !l->steps && !l->saved) {
        status = make_model(c, name_of(c, "trained", l->trained, name), 7, 0.05);
        return client_expect(c, status, 201, "make trained again");
    }
    const char *at = status == 200 ? strstr(c->body, "\"step\":") : NULL;
    if (!at) {
        return client_expect(c, status, 200, "trained model");
    }
    const int now = (int)strtol(at + 7, NULL, 10), sent = l->steps + l->step_unsure;
    if (now < l->saved || now > sent) {
        return client_fail(c, "the model is at step %d; %d were saved, %d sent", now, l->saved, sent);
    }
    if (!verify_history(c, now)) {
        return false;
    }
    for (int i = now > 3 ? now - 2 : 1; i <= sent; i++) {
        if (!client_expect(c, take_step(c, i), 200, "step again")) {
            return false;
        }
    }
    l->steps = sent;
    l->step_unsure = false;
    return verify_history(c, sent);
}

/* ---- its checkpoints ------------------------------------------------------------------------------------
 */

static int checkpoint_ask(client *c, const char *method, const checkpoint_entry *k, const char *header) {
    char rest[64], path[160];
    snprintf(rest, sizeof rest, "/checkpoints/c%u", k->serial);
    return client_send(c, method, trained_path(c, rest, path), (const char *const[]){header, NULL}, NULL, 0);
}

/* Take it, for the first time or again. */
static bool take_checkpoint(client *c, checkpoint_entry *k) {
    char json[64], key[64], path[160];
    snprintf(json, sizeof json, "{'name': 'c%u'}", k->serial);
    snprintf(key, sizeof key, "checkpoint-%d-%u", c->index, k->serial);
    int status = client_ask(c, "POST", trained_path(c, "/checkpoints", path), key, json);
    if (!client_expect(c, status, 201, "checkpoint")) {
        return false;
    }
    const char *hex = strstr(c->body, "\"sha256\":\""), *at = strstr(c->body, "\"step\":");
    if (!hex || !at) {
        return client_fail(c, "a checkpoint without its hash or step: %s", c->body);
    }
    snprintf(k->sha256, sizeof k->sha256, "%.64s", hex + 10);
    k->step = (int)strtol(at + 7, NULL, 10);
    k->presence = THERE;
    c->ledger.saved = k->step > c->ledger.saved ? k->step : c->ledger.saved;
    return true;
}

static bool checkpoint_make(client *c) {
    checkpoint_entry *k = &c->ledger.checkpoints[client_random(c, CHECKPOINTS)];
    if (!c->ledger.trained || c->ledger.steps == STEPS || k->presence != ABSENT) {
        return true;
    }
    *k = (checkpoint_entry){.presence = UNSURE, .serial = ++c->serial};
    return take_checkpoint(c, k);
}

static bool checkpoint_drop(client *c) {
    checkpoint_entry *k = &c->ledger.checkpoints[client_random(c, CHECKPOINTS)];
    if (k->presence != THERE) {
        return true;
    }
    k->presence = UNSURE;
    if (!client_expect(c, checkpoint_ask(c, "DELETE", k, NULL), 204, "drop checkpoint")) {
        return false;
    }
    *k = (checkpoint_entry){0};
    return true;
}

/* A model made from it is at its step. */
static bool verify_loads(client *c, const checkpoint_entry *k) {
    char path[200], name[64], json[96], part[32];
    snprintf(path, sizeof path, "/v1/models?from_checkpoint=%s/c%u",
             name_of(c, "trained", c->ledger.trained, name), k->serial);
    snprintf(json, sizeof json, "{'name': 'copy-%d'}", c->index);
    snprintf(part, sizeof part, "\"step\":%d,", k->step);
    if (!client_expect(c, client_ask(c, "POST", path, NULL, json), 201, "from_checkpoint")) {
        return false;
    }
    if (!strstr(c->body, part)) {
        return client_fail(c, "a copy is not at %s: %s", part, c->body);
    }
    snprintf(path, sizeof path, "/v1/models/copy-%d", c->index);
    return client_expect(c, client_ask(c, "DELETE", path, NULL, NULL), 204, "drop copy");
}

static bool verify_checkpoint(client *c, checkpoint_entry *k) {
    char sha256[65];
    const bool going = k->presence == UNSURE && *k->sha256;
    if (k->presence == UNSURE && !going && !take_checkpoint(c, k)) { /* with its key: it is there once */
        return false;
    }
    int status = checkpoint_ask(c, "GET", k, NULL);
    if (going && status == 404) {
        *k = (checkpoint_entry){0};
        return true;
    }
    if (!client_expect(c, status, 200, "checkpoint's file")) {
        return false;
    }
    hash(c->body, c->size, sha256);
    k->presence = THERE;
    return !strcmp(sha256, k->sha256) || client_fail(c, "checkpoint c%u is not what it was", k->serial);
}

static bool checkpoints_verify(client *c) {
    const checkpoint_entry *any = &c->ledger.checkpoints[client_random(c, CHECKPOINTS)];
    for (size_t i = 0; i < CHECKPOINTS && c->ledger.trained; i++) {
        checkpoint_entry *k = &c->ledger.checkpoints[i];
        if (k->presence != ABSENT && !verify_checkpoint(c, k)) {
            return false;
        }
    }
    return any->presence != THERE || verify_loads(c, any);
}

/* ---- metrics of one's own --------------------------------------------------------------------------------
 */

static int post_note(client *c, int i) {
    char json[64], key[64], path[64];
    snprintf(json, sizeof json, "{'values': {'note': %d}}", i);
    snprintf(key, sizeof key, "note-%d-%d", c->index, i);
    snprintf(path, sizeof path, "/v1/models/notes-%d/metrics", c->index);
    return client_ask(c, "POST", path, key, json);
}

static bool note(client *c) {
    ledger *l = &c->ledger;
    char name[64];
    snprintf(name, sizeof name, "notes-%d", c->index);
    if (!l->has_notes) {
        int status = make_model(c, name, 7, 0.05);
        l->has_notes = status == 201;
        return client_expect(c, status, 201, "make notes");
    }
    l->note_unsure = true;
    if (!client_expect(c, post_note(c, l->notes + 1), 200, "note")) {
        return false;
    }
    l->notes++;
    l->note_unsure = false;
    return true;
}

/* The one without a reply is sent again; then each is there once, in order. */
static bool notes_verify(client *c) {
    ledger *l = &c->ledger;
    char path[96];
    int expected = 0;
    if (!l->has_notes) {
        return true;
    }
    if (l->note_unsure && !client_expect(c, post_note(c, l->notes + 1), 200, "note again")) {
        return false;
    }
    l->notes += l->note_unsure;
    l->note_unsure = false;
    snprintf(path, sizeof path, "/v1/models/notes-%d/metrics?keys=note", c->index);
    int status = client_send(c, "GET", path, (const char *const[]){"Accept: text/csv", NULL}, NULL, 0);
    if (!client_expect(c, status, 200, "notes")) {
        return false;
    }
    for (const char *line = strchr(c->body, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
        const char *comma = line + strcspn(line + 1, "\n") + 1;
        while (comma[-1] != ',') {
            comma--;
        }
        const int at = (int)strtod(comma, NULL);
        if (at != ++expected) {
            return client_fail(c, "note %d stands where %d belongs", at, expected);
        }
    }
    return expected == l->notes || client_fail(c, "%d notes are there, %d were taken", expected, l->notes);
}

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

enum { ROWS = 500 };

static bool put_blobs(client *c, const char *split, uint64_t seed) {
    char *input = malloc(ROWS * 200), *target = malloc(ROWS * 4), path[96];
    size_t input_size = 0, target_size = 0;
    client source = {.random = seed};
    for (size_t i = 0; i < ROWS; i++) {
        const uint32_t class = client_random(&source, 4);
        for (uint32_t j = 0; j < ROW; j++) {
            const double value = client_random(&source, 1000) / 1000.0 + (j % 4 == class ? 0.5 : 0);
            input_size += (size_t)snprintf(input + input_size, 12, "%.3f%c", value, j + 1 < ROW ? ',' : '\n');
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
    name_of(c, "job", l->job_serial, name);
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
             name_of(c, "job", c->ledger.job_serial, name), keys);
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
    snprintf(path, sizeof path, "/v1/models/%s/state_dict", name_of(c, "job", c->ledger.job_serial, name));
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
    snprintf(path, sizeof path, "/v1/models/%s", name_of(c, "job", l->job_serial, name));
    l->job_serial = 0;
    l->job = 0;
    return client_expect(c, client_ask(c, "DELETE", path, NULL, NULL), 204, "drop the job's model");
}

static bool job(client *c) {
    if (c->index) {
        return note(c);
    }
    if (!c->ledger.job) {
        return c->only_finish || begin_job(c);
    }
    int ended = look_at_job(c);
    return ended > 0 ? end_job(c) : !ended;
}

/* Pauses of a moment change nothing. */
static bool job_pause(client *c) {
    char path[64];
    if (c->index || !c->ledger.job || client_random(c, 3)) {
        return true;
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/v1/jobs/%d/%s", c->ledger.job, i ? "resume" : "pause");
        int status = client_ask(c, "POST", path, NULL, NULL);
        if (status != 409 && !client_expect(c, status, 202, path)) { /* 409: it has ended meanwhile */
            return false;
        }
    }
    return true;
}

static bool job_verify(client *c) {
    ledger *l = &c->ledger;
    char path[64];
    if (!l->job_serial) {
        return true;
    }
    if (!l->job) {
        return begin_job(c);
    }
    l->job_kills++;
    int ended = look_at_job(c);
    if (!ended && (strstr(c->body, "\"state\":\"paus"))) {
        snprintf(path, sizeof path, "/v1/jobs/%d/resume", l->job);
        if (!client_expect(c, client_ask(c, "POST", path, NULL, NULL), 202, path)) {
            return false;
        }
    }
    return ended >= 0 && (ended ? end_job(c) : verify_job_history(c, false));
}

bool torture_job_ended(client *c) {
    return !c->ledger.job_serial || (c->ledger.job && look_at_job(c) > 0 && end_job(c));
}

/* ---- the run that nothing interrupts ---------------------------------------------------------------------
 */

static char *copy_body(const client *c) {
    char *copy = malloc(c->size + 1);
    memcpy(copy, c->body, c->size + 1);
    return copy;
}

bool reference_run(client *c, reference *r) {
    if (!torture_prepare(c) || !begin_job(c) || !begin_trained(c)) {
        return false;
    }
    for (int i = 1; i <= STEPS; i++) {
        if (!client_expect(c, take_step(c, i), 200, "step")) {
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

/* ---- the table -------------------------------------------------------------------------------------------
 */

const action torture_actions[] = {
    {"model made", 4, model_make, models_verify},
    {"model changed", 4, model_change, NULL},
    {"model deleted", 2, model_drop, NULL},
    {"dataset uploaded", 5, dataset_put, datasets_verify},
    {"dataset deleted", 1, dataset_drop, NULL},
    {"steps", 8, step, steps_verify},
    {"checkpoint taken", 5, checkpoint_make, checkpoints_verify},
    {"checkpoint deleted", 2, checkpoint_drop, NULL},
    {"metrics posted", 6, note, notes_verify},
    {"job", 4, job, job_verify},
    {"job paused", 1, job_pause, NULL},
};
const size_t torture_action_count = COUNT(torture_actions);
