/* http.c -- requests over a pool of connections: URLs, refusals, and when to try again. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
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

/* ---- headers ------------------------------------------------------------------------------------- */

void gradd_request_header(gradd_request *request, const char *name, const char *value) {
    const size_t used = strlen(request->headers);
    const size_t length = strlen(value);
    bool fine = length > 0 && length <= 255;
    for (const char *c = value; *c; c++) {
        fine = fine && *c > ' ' && *c <= '~'; /* no value can smuggle in a header of its own */
    }
    if (!fine || used + strlen(name) + length + sizeof ": \r\n" > sizeof request->headers) {
        request->bad_header = true;
        return;
    }
    snprintf(request->headers + used, sizeof request->headers - used, "%s: %s\r\n", name, value);
}

void gradd_request_options(gradd_request *request, const gradd_option *options) {
    for (; options && options->name; options++) {
        const char *value = options->value ? options->value : "null";
        if (strcmp(options->name, "if_match") == 0) {
            gradd_request_header(request, "If-Match", value);
            request->conditional = true;
        } else if (strcmp(options->name, "idempotency_key") == 0) {
            gradd_request_header(request, "Idempotency-Key", value);
            request->has_key = true;
        } else {
            gradd_url_query(&request->url, options->name, value);
        }
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

int gradd_http_once(gradd_client *client, const gradd_request *request, const char *key,
                    gradd_reply *ret_reply, gradd_error *error) {
    gradd_connection *connection;
    bool keep;
    const bool json = strcmp(request->accept, GRADD_JSON) == 0;
    const size_t limit = client->config.max_reply;
    int code = take_connection(client, &connection, error);
    if (code) {
        return code;
    }
    code = gradd_exchange(client, connection, request, key,
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

bool gradd_interrupted(const gradd_client *client) {
    return client->config.interrupted && client->config.interrupted(client->config.argument);
}

bool gradd_pause(const gradd_client *client, long retry_after, int tries) {
    long ms = retry_after ? retry_after * 1000 : (long)FIRST_PAUSE_MS << (tries < 5 ? tries : 5);
    for (; ms > 0; ms -= SLICE_MS) {
        if (gradd_interrupted(client)) {
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = SLICE_MS * 1000000L}, NULL);
    }
    return true;
}

/* A call with all its tries. */
typedef struct call {
    const gradd_client *client;
    const gradd_request *request;
    int tries;
    bool lost;          /* a reply: the daemon may have done it */
    int64_t deadline_s; /* then: for a request that the daemon is still at */
    gradd_error error;  /* of the last try */
} call;

static int64_t now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec;
}

/* May this request reach the daemon twice? GET changes nothing; PUT of the same content ends the same; a POST
 * has a key, by which the daemon knows it again. */
static bool replayable(const gradd_request *request) {
    const char *method = request->method;
    return strcmp(method, "GET") == 0 || strcmp(method, "POST") == 0 ||
           (strcmp(method, "PUT") == 0 && !request->conditional);
}

static bool worth_another_try(call *c, const gradd_reply *reply, int code) {
    const bool refused = code == GRADD_E_REFUSED;
    const bool busy = refused && (reply->status == 429 || reply->status == 503);
    if (refused && strcmp(c->error.problem, "idempotency_key_in_use") == 0) {
        return c->lost && now_s() < c->deadline_s; /* an earlier try goes on there: its reply will come */
    }
    if (code != GRADD_E_UNREACHABLE && !(replayable(c->request) && (code == GRADD_E_NETWORK || busy))) {
        return false;
    }
    return c->tries++ < c->client->config.retries;
}

/* The last error as the caller's. Once a reply got lost, neither "nothing was sent" nor "come back later" is
 * true of the whole call. */
static int give_up(const call *c, int code, const gradd_reply *reply, gradd_error *error) {
    const bool vague = code == GRADD_E_UNREACHABLE ||
                       (code == GRADD_E_REFUSED && (reply->status == 429 || reply->status == 503 ||
                                                    strcmp(c->error.problem, "idempotency_key_in_use") == 0));
    if (c->lost && vague) {
        return gradd_fail(error, GRADD_E_NETWORK,
                          "the connection to %s broke before the reply came, and then: %s", c->client->server,
                          c->error.message);
    }
    if (error) {
        *error = c->error;
    }
    return code;
}

/* 128 random bits in hexadecimal. */
static int make_key(char key[GRADD_KEY], gradd_error *error) {
    static const char hex[] = "0123456789abcdef";
    unsigned char bits[(GRADD_KEY - 1) / 2];
    if (getrandom(bits, sizeof bits, 0) != sizeof bits) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "the system has no random numbers");
    }
    for (size_t i = 0; i < sizeof bits; i++) {
        key[2 * i] = hex[bits[i] >> 4];
        key[2 * i + 1] = hex[bits[i] & 15];
    }
    key[GRADD_KEY - 1] = '\0';
    return GRADD_OK;
}

static int check(const gradd_request *request, gradd_error *error) {
    if (request->url.bad_name) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "a name must not be empty, '.' or '..'");
    }
    if (request->url.overflow) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "names and options are too long: %d bytes are the limit",
                          GRADD_MAX_URL);
    }
    return request->bad_header ? gradd_fail(error, GRADD_E_ARGUMENT,
                                            "if_match and idempotency_key take 1 to 255 visible characters")
                               : GRADD_OK;
}

int gradd_http(gradd_client *client, const gradd_request *request, gradd_reply *ret_reply,
               gradd_error *error) {
    call c = {.client = client, .request = request};
    char key[GRADD_KEY];
    const bool keyed = strcmp(request->method, "POST") == 0 && !request->has_key;
    int code = check(request, error);
    if (!code && keyed) {
        code = make_key(key, error);
    }
    while (!code) {
        gradd_reply reply = {0};
        code = gradd_http_once(client, request, keyed ? key : NULL, &reply, &c.error);
        if (!code) {
            *ret_reply = reply;
            return GRADD_OK;
        }
        if (code == GRADD_E_NETWORK && !c.lost) {
            c.lost = true;
            c.deadline_s = now_s() + client->config.timeout_ms / 1000;
        }
        if (!worth_another_try(&c, &reply, code)) {
            return give_up(&c, code, &reply, error);
        }
        code = gradd_pause(client, reply.retry_after, c.tries - 1)
                   ? GRADD_OK
                   : gradd_fail(error, GRADD_E_INTERRUPTED, "interrupted");
    }
    return code;
}
