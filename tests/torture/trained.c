/* trained.c -- a model that is trained by requests, and its checkpoints. */
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actions.h"

/* ---- a model that is trained by requests ----------------------------------------------------------------
 */

static const char *trained_path(const client *c, const char *rest, char path[160]) {
    char name[64];
    snprintf(path, 160, "/v1/models/%s%s", torture_name(c, "trained", c->ledger.trained, name), rest);
    return path;
}

/* Take step i, for the first time or again: what comes must be what came in the run that nothing
 * interrupted. */
int torture_take_step(client *c, int i) {
    char json[256], path[160], key[64];
    snprintf(json, sizeof json,
             "{'input': [[%d, 2, 3, 4], [1, %d, 2, -1], [0, 1, 0, %d]], 'target': [0, 1, 2]}", i % 11, -i % 7,
             i % 3);
    snprintf(key, sizeof key, "step-%d-%u-%u-%d", c->index, c->ledger.trained, c->ledger.restore.serial, i);
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

bool torture_begin_trained(client *c) {
    ledger *l = &c->ledger;
    char name[64], path[160];
    if (l->trained && !client_expect(c, client_ask(c, "DELETE", trained_path(c, "", path), NULL, NULL), 204,
                                     "drop trained")) {
        l->steps = STEPS; /* to be tried again */
        return false;
    }
    memset(l->checkpoints, 0, sizeof l->checkpoints);
    l->restore = (restore_entry){.presence = ABSENT};
    l->trained = ++c->serial;
    l->steps = l->saved = 0;
    l->step_unsure = false;
    return client_expect(c, torture_make_model(c, torture_name(c, "trained", l->trained, name), 7, 0.05), 201,
                         "make trained");
}

static bool one_step(client *c) {
    ledger *l = &c->ledger;
    l->step_unsure = true;
    if (!client_expect(c, torture_take_step(c, l->steps + 1), 200, "step")) {
        return false;
    }
    l->steps++;
    l->step_unsure = false;
    return true;
}

bool torture_step(client *c) {
    ledger *l = &c->ledger;
    if (!l->trained || l->steps == STEPS) {
        return torture_begin_trained(c);
    }
    for (uint32_t n = 1 + client_random(c, 8); n && l->steps < STEPS; n--) {
        if (!one_step(c)) {
            return false;
        }
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

static int ask_restore(client *c) {
    const restore_entry *r = &c->ledger.restore;
    char rest[64], path[160], key[64];
    snprintf(rest, sizeof rest, "/checkpoints/c%u/restore", r->checkpoint);
    snprintf(key, sizeof key, "restore-%d-%u", c->index, r->serial);
    return client_ask(c, "POST", trained_path(c, rest, path), key, "{}");
}

/* To the checkpoint of l->restore, for the first time or again. */
static bool bring_back(client *c) {
    ledger *l = &c->ledger;
    if (!client_expect(c, ask_restore(c), 200, "restore")) {
        return false;
    }
    l->restore.presence = THERE;
    l->steps = l->saved = l->restore.step;
    l->step_unsure = false;
    return true;
}

/* It is at some step that was saved; from there all requests are sent again, with their keys: those that are
 * in it already do nothing. */
bool torture_verify_steps(client *c) {
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
        status = torture_make_model(c, torture_name(c, "trained", l->trained, name), 7, 0.05);
        return client_expect(c, status, 201, "make trained again");
    }
    const char *at = status == 200 ? strstr(c->body, "\"step\":") : NULL;
    if (!at) {
        return client_expect(c, status, 200, "trained model");
    }
    const int now = (int)strtol(at + 7, NULL, 10), sent = l->steps + l->step_unsure;
    const bool restored = l->restore.presence == UNSURE && now == l->restore.step;
    if ((now < l->saved || now > sent) && !restored) {
        return client_fail(c, "the model is at step %d; %d were saved, %d sent", now, l->saved, sent);
    }
    if (!verify_history(c, now)) {
        return false;
    }
    if (l->restore.presence == UNSURE) {
        return bring_back(c) && verify_history(c, l->steps);
    }
    for (int i = now > l->restore.step + 3 ? now - 2 : l->restore.step + 1; i <= sent; i++) {
        if (!client_expect(c, torture_take_step(c, i), 200, "step again")) {
            return false;
        }
    }
    l->steps = sent;
    l->step_unsure = false;
    return verify_history(c, sent);
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

/* ---- its checkpoints ------------------------------------------------------------------------------------
 */

/* The model has been brought back, and has gone on: asked again it stays where it is. */
bool torture_verify_restore(client *c) {
    const ledger *l = &c->ledger;
    char path[160], part[32];
    if (l->restore.presence != THERE || l->steps == STEPS) {
        return true;
    }
    if (!client_expect_again(c, ask_restore(c), 200, true, "restore") ||
        !client_expect(c, client_ask(c, "GET", trained_path(c, "", path), NULL, NULL), 200,
                       "restored model")) {
        return false;
    }
    snprintf(part, sizeof part, "\"step\":%d,", l->steps);
    return strstr(c->body, part) || client_fail(c, "the model is not at %s: %.300s", part, c->body);
}

bool torture_restore(client *c) {
    ledger *l = &c->ledger;
    const checkpoint_entry *k = &l->checkpoints[client_random(c, CHECKPOINTS)];
    if (!l->trained || l->steps == STEPS || k->presence != THERE || k->step > l->saved) {
        return true; /* forward, where a kill may have left the model at what is saved, the metrics of the
                        steps between would not come back */
    }
    l->restore =
        (restore_entry){.presence = UNSURE, .serial = ++c->serial, .checkpoint = k->serial, .step = k->step};
    return bring_back(c) && one_step(c) && torture_verify_restore(c);
}

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

bool torture_make_checkpoint(client *c) {
    checkpoint_entry *k = &c->ledger.checkpoints[client_random(c, CHECKPOINTS)];
    if (!c->ledger.trained || c->ledger.steps == STEPS || k->presence != ABSENT) {
        return true;
    }
    *k = (checkpoint_entry){.presence = UNSURE, .serial = ++c->serial};
    return take_checkpoint(c, k);
}

bool torture_drop_checkpoint(client *c) {
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
             torture_name(c, "trained", c->ledger.trained, name), k->serial);
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

bool torture_verify_checkpoints(client *c) {
    const checkpoint_entry *any = &c->ledger.checkpoints[client_random(c, CHECKPOINTS)];
    for (size_t i = 0; i < CHECKPOINTS && c->ledger.trained; i++) {
        checkpoint_entry *k = &c->ledger.checkpoints[i];
        if (k->presence != ABSENT && !verify_checkpoint(c, k)) {
            return false;
        }
    }
    return any->presence != THERE || verify_loads(c, any);
}
