/* http.c -- requests over a pool of connections: URLs, refusals, and when to try again. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"

enum {
    FIRST_PAUSE_MS = 100, /* before trying again; doubles each time */
    SLICE_MS = 100,       /* how long a pause goes unasked whether it was interrupted */
};

/* ---- URLs ---------------------------------------------------------------------------------------- */

static void put(gradd_url *url, const char *bytes, size_t size) {
    if (url->overflow || size >= sizeof url->text - url->size) {
        url->overflow = true;
        return;
    }
    memcpy(url->text + url->size, bytes, size);
    url->size += size;
    url->text[url->size] = '\0';
}

/* All but RFC 3986's unreserved characters are written as %XX. */
static void put_encoded(gradd_url *url, const char *text) {
    static const char hex[] = "0123456789ABCDEF";
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c < 128 && (isalnum(*c) || strchr("-._~", *c))) {
            put(url, (const char *)c, 1);
        } else {
            put(url, (const char[]){'%', hex[*c >> 4], hex[*c & 15]}, 3);
        }
    }
}

void gradd_url_add(gradd_url *url, const char *text) {
    put(url, text, strlen(text));
}

void gradd_url_name(gradd_url *url, const char *name) {
    /* "", "." and ".." would name something else than what was asked for. */
    if (!name || !*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        url->bad_name = true;
        return;
    }
    put(url, "/", 1);
    put_encoded(url, name);
}

void gradd_url_query(gradd_url *url, const char *key, const char *value) {
    put(url, url->has_query ? "&" : "?", 1);
    url->has_query = true;
    put_encoded(url, key);
    put(url, "=", 1);
    put_encoded(url, value);
}

void gradd_url_options(gradd_url *url, const gradd_option *options) {
    for (; options && options->name; options++) {
        gradd_url_query(url, options->name, options->value ? options->value : "null");
    }
}

/* ---- the pool ------------------------------------------------------------------------------------- */

/* A kept connection that still is one, or a new one. */
static int take_connection(gradd_client *client, gradd_connection **ret_connection, gradd_error *error) {
    for (;;) {
        pthread_mutex_lock(&client->lock);
        gradd_connection *kept = client->idle_count ? client->idle[--client->idle_count] : NULL;
        pthread_mutex_unlock(&client->lock);
        if (!kept) {
            return gradd_connect(client, ret_connection, error);
        }
        if (gradd_connection_idle(kept)) {
            *ret_connection = kept;
            return GRADD_OK;
        }
        gradd_disconnect(kept); /* the daemon has closed it */
    }
}

static void give_back(gradd_client *client, gradd_connection *connection) {
    pthread_mutex_lock(&client->lock);
    if (client->idle_count < GRADD_MAX_IDLE) {
        client->idle[client->idle_count++] = connection;
        connection = NULL;
    }
    pthread_mutex_unlock(&client->lock);
    gradd_disconnect(connection);
}

/* ---- one try, and trying again -------------------------------------------------------------------- */

/* The text of a member, or "". */
static const char *member(const json_t *json, const char *name) {
    const char *text = json_string_value(json_object_get(json, name));
    return text ? text : "";
}

/* A status other than 2xx, in the words of the problem document where there is one. */
static int refused(const gradd_client *client, const gradd_request *request, const gradd_reply *reply,
                   gradd_error *error) {
    json_t *json = reply->size ? json_loadb(reply->data, reply->size, 0, NULL) : NULL;
    const char *detail = member(json, "detail");
    const char *title = member(json, "title");
    gradd_error failure = {0};
    gradd_error_set(&failure, GRADD_E_REFUSED, "%s", *detail ? detail : title);
    failure.http_status = reply->status;
    snprintf(failure.problem, sizeof failure.problem, "%s", member(json, "code"));
    snprintf(failure.request_id, sizeof failure.request_id, "%s", member(json, "request_id"));
    if (!*failure.message) {
        snprintf(failure.message, sizeof failure.message,
                 "%s %s%.500s: HTTP status %d; is it a gradd daemon?", request->method, client->server,
                 request->url.text, reply->status);
    }
    json_decref(json);
    if (error) {
        *error = failure;
    }
    return GRADD_E_REFUSED;
}

static int attempt(gradd_client *client, const gradd_request *request, gradd_reply *ret_reply,
                   gradd_error *error) {
    gradd_connection *connection;
    bool keep;
    const bool json = strcmp(request->accept, GRADD_JSON) == 0;
    const size_t limit = client->config.max_reply;
    int code = take_connection(client, &connection, error);
    if (code) {
        return code;
    }
    code = gradd_exchange(client, connection, request,
                          json && limit > GRADD_MAX_JSON_REPLY ? GRADD_MAX_JSON_REPLY : limit, ret_reply,
                          &keep, error);
    if (keep) {
        give_back(client, connection);
    } else {
        gradd_disconnect(connection);
    }
    if (!code && (ret_reply->status < 200 || ret_reply->status > 299)) {
        code = refused(client, request, ret_reply, error);
        free(ret_reply->data);
    }
    return code;
}

/* May this request reach the daemon twice? GET changes nothing; PUT of the same content ends the same. */
static bool replayable(const gradd_request *request) {
    return strcmp(request->method, "GET") == 0 || strcmp(request->method, "PUT") == 0;
}

static bool worth_another_try(const gradd_request *request, const gradd_reply *reply, int code) {
    if (code == GRADD_E_UNREACHABLE) {
        return true; /* nothing was sent */
    }
    const bool busy = code == GRADD_E_REFUSED && (reply->status == 429 || reply->status == 503);
    return replayable(request) && (code == GRADD_E_NETWORK || busy);
}

bool gradd_interrupted(const gradd_client *client) {
    return client->config.interrupted && client->config.interrupted(client->config.argument);
}

/* Wait before the next try. @return false when interrupted */
static bool pause_before(const gradd_client *client, const gradd_reply *reply, int tries) {
    long ms =
        reply->retry_after ? reply->retry_after * 1000 : (long)FIRST_PAUSE_MS << (tries < 5 ? tries : 5);
    for (; ms > 0; ms -= SLICE_MS) {
        if (gradd_interrupted(client)) {
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = SLICE_MS * 1000000L}, NULL);
    }
    return true;
}

int gradd_http(gradd_client *client, const gradd_request *request, gradd_reply *ret_reply,
               gradd_error *error) {
    if (request->url.bad_name) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "a name must not be empty, '.' or '..'");
    }
    if (request->url.overflow) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "names and options are too long: %d bytes are the limit",
                          GRADD_MAX_URL);
    }
    for (int tries = 0;; tries++) {
        gradd_reply reply = {0};
        int code = attempt(client, request, &reply, error);
        if (!code) {
            *ret_reply = reply;
            return GRADD_OK;
        }
        if (tries >= client->config.retries || !worth_another_try(request, &reply, code)) {
            return code;
        }
        if (!pause_before(client, &reply, tries)) {
            return gradd_fail(error, GRADD_E_INTERRUPTED, "interrupted");
        }
    }
}
