/* actions.c -- what clients do while the daemon is killed under them, and what must then be true: a table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actions.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* ---- models: made, changed, deleted ------------------------------------------------------------------- */

#define MODEL \
    "{'name': '%s', 'seed': %u, 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'fc1', " \
    "'in_features': 4, 'out_features': 8}, {'type': 'BatchNorm1d', 'name': 'bn', 'num_features': 8}, " \
    "{'type': 'Dropout', 'p': 0.5}, {'type': 'Linear', 'name': 'fc2', 'in_features': 8, 'out_features': " \
    "3}], 'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': {'type': 'Adam', 'lr': %.9g}, " \
    "'scheduler': {'type': 'StepLR', 'step_size': 40}}"

const char *torture_name(const client *c, const char *what, unsigned number, char text[64]) {
    snprintf(text, 64, "%s-%d-%u", what, c->index, number);
    return text;
}

int torture_make_model(client *c, const char *name, unsigned seed, double lr) {
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
    if (!client_expect(c, torture_make_model(c, torture_name(c, "model", m->serial, name), 7, m->lr), 201,
                       "make")) {
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
    if (!client_expect(c, ask_model(c, "PATCH", torture_name(c, "model", m->serial, name), json), 200,
                       "change")) {
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
    if (!client_expect(c, ask_model(c, "DELETE", torture_name(c, "model", m->serial, name), NULL), 204,
                       "drop")) {
        return false;
    }
    m->presence = ABSENT;
    return true;
}

static bool verify_model(client *c, model_entry *m) {
    char name[64], one[32], other[32];
    torture_name(c, "model", m->serial, name);
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

static int dataset_ask(client *c, const char *method, size_t place, const char *rest, const char *header,
                       const void *body, size_t size) {
    char name[64], path[160];
    snprintf(path, sizeof path, "/v1/datasets/%s%s", torture_name(c, "data", (unsigned)place, name), rest);
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
        int status = torture_make_model(c, name, 7, 0.05);
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
    if (!l->notes) { /* there is no such series yet */
        return true;
    }
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

/* ---- the table -------------------------------------------------------------------------------------------
 */

const action torture_actions[] = {
    {"model made", 4, model_make, models_verify},
    {"model changed", 4, model_change, NULL},
    {"model deleted", 2, model_drop, NULL},
    {"dataset uploaded", 5, dataset_put, datasets_verify},
    {"dataset deleted", 1, dataset_drop, NULL},
    {"steps", 8, torture_step, torture_verify_steps},
    {"restored", 1, torture_restore, torture_verify_restore},
    {"checkpoint taken", 5, torture_make_checkpoint, torture_verify_checkpoints},
    {"checkpoint deleted", 2, torture_drop_checkpoint, NULL},
    {"metrics posted", 6, note, notes_verify},
    {"job", 4, torture_job, torture_verify_job},
    {"job paused", 1, torture_pause_job, NULL},
    {"job cancelled", 2, torture_cancel_job, torture_verify_cancelled},
};
const size_t torture_action_count = COUNT(torture_actions);
