/* client.c */
#include "client.h"

#include <nettle/sha2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

enum { PATIENCE = 60 /* seconds */ };

void client_init(client *c, int index, uint64_t seed, const reference *expected) {
    *c = (client){.index = index, .random = seed * 1000003 + (uint64_t)index + 1, .expected = expected};
    c->curl = curl_easy_init();
    assert_non_null(c->curl);
}

void client_release(client *c) {
    curl_easy_cleanup(c->curl);
    free(c->body);
}

uint32_t client_random(client *c, uint32_t below) { /* splitmix64 */
    uint64_t z = c->random += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return below ? (uint32_t)((z ^ (z >> 31)) % below) : 0;
}

/* ---- requests ------------------------------------------------------------------------------------------ */

static size_t receive(char *bytes, size_t one, size_t count, void *argument) {
    client *c = argument;
    char *grown = realloc(c->body, c->size + count + 1);
    (void)one;
    if (!grown) {
        return 0;
    }
    c->body = grown;
    memcpy(c->body + c->size, bytes, count);
    c->size += count;
    c->body[c->size] = '\0';
    return count;
}

static size_t look_at_header(char *bytes, size_t one, size_t count, void *argument) {
    static const char replayed[] = "Idempotency-Replayed: true";
    client *c = argument;
    (void)one;
    c->replayed =
        c->replayed || (count >= sizeof replayed - 1 && !memcmp(bytes, replayed, sizeof replayed - 1));
    return count;
}

int client_send(client *c, const char *method, const char *path, const char *const *headers, const void *body,
                size_t size) {
    char url[512];
    long status = 0;
    struct curl_slist *list = NULL;
    for (size_t i = 0; headers[i]; i++) {
        list = curl_slist_append(list, headers[i]);
    }
    list = curl_slist_append(list, "Expect:");
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", c->port, path);
    free(c->body);
    c->body = calloc(1, 1);
    c->size = 0;
    c->replayed = false;
    c->requests++;
    curl_easy_reset(c->curl); /* connections stay */
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, (long)PATIENCE);
    curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(c->curl, CURLOPT_HEADERFUNCTION, look_at_header);
    curl_easy_setopt(c->curl, CURLOPT_HEADERDATA, c);
    if (body) {
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body);
    }
    CURLcode code = curl_easy_perform(c->curl);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(list);
    if (code == CURLE_OPERATION_TIMEDOUT) {
        client_fail(c, "%s %s: no reply within %d s", method, path, PATIENCE);
    }
    return code ? 0 : (int)status;
}

int client_ask(client *c, const char *method, const char *path, const char *key, const char *json) {
    char header[300];
    char *body = json ? strdup(json) : NULL;
    for (char *at = body; at && *at; at++) {
        *at = *at == '\'' ? '"' : *at;
    }
    snprintf(header, sizeof header, "Idempotency-Key: %s", key ? key : "");
    int status = client_send(c, method, path, (const char *const[]){key ? header : NULL, NULL}, body,
                             body ? strlen(body) : 0);
    free(body);
    return status;
}

bool client_fail(client *c, const char *format, ...) {
    va_list values;
    if (!*c->failure) {
        int used = snprintf(c->failure, sizeof c->failure, "client %d: ", c->index);
        va_start(values, format);
        vsnprintf(c->failure + used, sizeof c->failure - (size_t)used, format, values);
        va_end(values);
    }
    return false;
}

bool client_expect(client *c, int status, int expected, const char *what) {
    if (status == expected) {
        return true;
    }
    if (status == 503 && c->may_end) {
        return false;
    }
    return status || c->verifies
               ? client_fail(c, "%s: %d, not %d: %.300s", what, status, expected, c->body ? c->body : "")
               : false;
}

bool client_expect_again(client *c, int status, int expected, bool known, const char *what) {
    if (!client_expect(c, status, expected, what)) {
        return false;
    }
    return !known || c->replayed || client_fail(c, "%s was done twice: %.300s", what, c->body);
}

/* ---- actions ------------------------------------------------------------------------------------------- */

bool client_verify(client *c) {
    c->verifies = true;
    for (size_t i = 0; i < torture_action_count; i++) {
        if (torture_actions[i].verify && !torture_actions[i].verify(c)) {
            return false;
        }
    }
    c->verifies = false;
    return true;
}

bool client_act(client *c) {
    uint32_t sum = 0;
    for (size_t i = 0; i < torture_action_count; i++) {
        sum += (uint32_t)torture_actions[i].weight;
    }
    uint32_t at = client_random(c, sum);
    size_t i = 0;
    while (at >= (uint32_t)torture_actions[i].weight) {
        at -= (uint32_t)torture_actions[i++].weight;
    }
    c->done[i]++;
    return torture_actions[i].act(c);
}
