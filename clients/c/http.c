/* http.c -- requests over libcurl: a pool of connections, limits, and when to try again. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"

enum {
    FIRST_REPLY_SIZE = 16 << 10, /* bytes, when the reply doesn't tell its length */
    UPLOAD_BUFFER = 512 << 10,   /* bytes: a training batch leaves in few writes */
    EXPECT_FROM = 32 << 20,      /* bytes of a body: ask before sending it whether it will be taken */
    FIRST_PAUSE_MS = 100,        /* before trying again; doubles each time */
    MAX_PAUSE_MS = 5000,
    SLICE_MS = 100, /* how long a pause goes unasked whether it was interrupted */
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

/* ---- one transfer --------------------------------------------------------------------------------- */

typedef struct transfer {
    gradd_client *client;
    const gradd_request *request;
    CURL *curl;
    size_t segment, offset; /* of the next byte to send */
    char *data;             /* the reply's body */
    size_t size, capacity;
    size_t limit;
    bool too_large, no_memory;
    long status;
    long retry_after; /* seconds, or 0 */
} transfer;

static size_t body_size(const gradd_request *request) {
    size_t size = 0;
    for (size_t i = 0; i < request->body_count; i++) {
        size += request->body[i].size;
    }
    return size;
}

/* May this request reach the daemon twice? GET changes nothing; PUT of the same content ends the same. */
static bool replayable(const gradd_request *request) {
    return strcmp(request->method, "GET") == 0 || strcmp(request->method, "PUT") == 0;
}

static size_t send_body(char *out, size_t size, size_t count, void *argument) {
    transfer *t = argument;
    size_t room = size * count, sent = 0;
    while (sent < room && t->segment < t->request->body_count) {
        const gradd_segment *segment = &t->request->body[t->segment];
        size_t rest = segment->size - t->offset;
        size_t part = rest < room - sent ? rest : room - sent;
        if (part) {
            memcpy(out + sent, (const char *)segment->data + t->offset, part);
        }
        sent += part;
        t->offset += part;
        if (t->offset == segment->size) {
            t->segment++;
            t->offset = 0;
        }
    }
    return sent;
}

/* curl asks to rewind when it wants to send a request again on its own, after a kept connection turned
 * out to be dead. Refusing makes that an error for everything that must not be applied twice. */
static int rewind_body(void *argument, curl_off_t offset, int origin) {
    transfer *t = argument;
    if (!replayable(t->request) || origin != SEEK_SET || offset != 0) {
        return CURL_SEEKFUNC_FAIL;
    }
    t->segment = t->offset = 0;
    return CURL_SEEKFUNC_OK;
}

static bool reserve(transfer *t, size_t capacity) {
    if (capacity <= t->capacity) {
        return true;
    }
    char *data = realloc(t->data, capacity);
    if (!data) {
        t->no_memory = true;
        return false;
    }
    t->data = data;
    t->capacity = capacity;
    return true;
}

static size_t receive_body(char *bytes, size_t size, size_t count, void *argument) {
    transfer *t = argument;
    size_t length = size * count;
    if (length > t->limit - t->size) {
        t->too_large = true;
        return 0;
    }
    size_t need = t->size + length + 1;
    if (need > t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : FIRST_REPLY_SIZE;
        curl_off_t announced = -1;
        curl_easy_getinfo(t->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
        if (!t->capacity && announced > 0) {
            if ((uint64_t)announced > t->limit) {
                t->too_large = true;
                return 0;
            }
            capacity = (size_t)announced + 1;
        }
        if (!reserve(t, capacity > need ? capacity : need)) {
            return 0;
        }
    }
    memcpy(t->data + t->size, bytes, length);
    t->size += length;
    t->data[t->size] = '\0';
    return length;
}

static bool interrupted(const gradd_client *client) {
    return client->config.interrupted && client->config.interrupted(client->config.argument);
}

static int poll_interrupted(void *argument, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)a, (void)b, (void)c, (void)d;
    return interrupted(((transfer *)argument)->client);
}

static bool add_header(struct curl_slist **list, const char *text) {
    struct curl_slist *longer = curl_slist_append(*list, text);
    if (longer) {
        *list = longer;
    }
    return longer != NULL;
}

static bool make_headers(const transfer *t, struct curl_slist **ret_list) {
    const gradd_request *request = t->request;
    char text[128];
    snprintf(text, sizeof text, "Accept: %s", request->accept);
    bool ok = add_header(ret_list, text);
    if (ok && request->content_type) {
        snprintf(text, sizeof text, "Content-Type: %s", request->content_type);
        ok = add_header(ret_list, text);
    }
    if (ok && body_size(request) < EXPECT_FROM) {
        ok = add_header(ret_list, "Expect:"); /* none: waiting for "100 Continue" takes longer than sending */
    }
    if (ok && t->client->authorization) {
        ok = add_header(ret_list, t->client->authorization);
    }
    return ok;
}

static void configure(transfer *t, const char *url, struct curl_slist *headers) {
    CURL *curl = t->curl;
    const gradd_config *config = &t->client->config;
    curl_easy_reset(curl); /* keeps the connection */
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, config->connect_timeout_ms);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, config->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BUFFER);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "libgradd");
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, poll_interrupted);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
    if (t->request->content_type) {
        /* POST with another name serves PUT and PATCH as well. */
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_size(t->request));
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, send_body);
        curl_easy_setopt(curl, CURLOPT_READDATA, t);
        curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, rewind_body);
        curl_easy_setopt(curl, CURLOPT_SEEKDATA, t);
    }
    if (!t->request->content_type && !replayable(t->request)) {
        /* No body, no rewind_body() to refuse: a connection that served nothing yet is not tried again. */
        curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, t->request->method);
}

/* What curl's result means here. */
static int explain(const transfer *t, CURLcode result, const char *detail, gradd_error *error) {
    const char *server = t->client->server;
    const char *why = *detail ? detail : curl_easy_strerror(result);
    switch (result) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return gradd_fail(error, GRADD_E_UNREACHABLE,
                          "no gradd daemon at %s (%s): start one with `gradd`, or set GRADD_SERVER", server,
                          why);
    case CURLE_OPERATION_TIMEDOUT: {
        curl_off_t connected = 0;
        curl_easy_getinfo(t->curl, CURLINFO_CONNECT_TIME_T, &connected);
        return gradd_fail(error, connected ? GRADD_E_TIMEOUT : GRADD_E_UNREACHABLE, "no answer from %s: %s",
                          server, why);
    }
    case CURLE_ABORTED_BY_CALLBACK:
        return gradd_fail(error, GRADD_E_INTERRUPTED, "interrupted");
    case CURLE_OUT_OF_MEMORY:
        return gradd_fail_memory(error);
    case CURLE_WRITE_ERROR:
        if (t->too_large) {
            return gradd_fail(error, GRADD_E_REPLY, "the reply of %s is over the limit of %zu bytes",
                              t->request->url.text, t->limit);
        }
        if (t->no_memory) {
            return gradd_fail_memory(error);
        }
        break;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return gradd_fail(error, GRADD_E_ARGUMENT, "bad server URL %s: %s", server, why);
    case CURLE_SEND_FAIL_REWIND:
        why = "the connection was closed after the request had been sent";
        break;
    default:
        break;
    }
    return gradd_fail(error, GRADD_E_NETWORK, "the connection to %s broke: %s", server, why);
}

/* The text of a member, or "". */
static const char *member(const json_t *json, const char *name) {
    const char *text = json_string_value(json_object_get(json, name));
    return text ? text : "";
}

/* A status other than 2xx, in the words of the problem document where there is one. */
static int refused(const transfer *t, gradd_error *error) {
    json_t *json = t->size ? json_loadb(t->data, t->size, 0, NULL) : NULL;
    const char *detail = member(json, "detail");
    const char *title = member(json, "title");
    gradd_error failure = {0};
    gradd_error_set(&failure, GRADD_E_REFUSED, "%s", *detail ? detail : title);
    failure.http_status = (int)t->status;
    snprintf(failure.problem, sizeof failure.problem, "%s", member(json, "code"));
    snprintf(failure.request_id, sizeof failure.request_id, "%s", member(json, "request_id"));
    if (!*failure.message) {
        snprintf(failure.message, sizeof failure.message,
                 "%s %s%.500s: HTTP status %ld; is it a gradd daemon?", t->request->method, t->client->server,
                 t->request->url.text, t->status);
    }
    json_decref(json);
    if (error) {
        *error = failure;
    }
    return GRADD_E_REFUSED;
}

/* One try. Fills in t->status, t->data; the caller frees t->data. */
static int attempt(transfer *t, const char *url, gradd_error *error) {
    char detail[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = NULL;
    int code = GRADD_OK;
    t->segment = t->offset = t->size = 0;
    t->status = t->retry_after = 0;
    t->data[0] = '\0';
    if (!make_headers(t, &headers)) {
        code = gradd_fail_memory(error);
        goto out;
    }
    configure(t, url, headers);
    curl_easy_setopt(t->curl, CURLOPT_ERRORBUFFER, detail);
    CURLcode result = curl_easy_perform(t->curl);
    curl_easy_setopt(t->curl, CURLOPT_ERRORBUFFER, NULL);
    if (result != CURLE_OK) {
        code = explain(t, result, detail, error);
        goto out;
    }
    curl_off_t retry_after = 0;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &t->status);
    curl_easy_getinfo(t->curl, CURLINFO_RETRY_AFTER, &retry_after);
    t->retry_after = retry_after > MAX_PAUSE_MS / 1000 ? MAX_PAUSE_MS / 1000 : (long)retry_after;
    if (t->status < 200 || t->status > 299) {
        code = refused(t, error);
    }
out:
    curl_slist_free_all(headers);
    return code;
}

/* ---- the pool, and trying again ------------------------------------------------------------------- */

static CURL *take_connection(gradd_client *client) {
    pthread_mutex_lock(&client->lock);
    CURL *curl = client->idle_count ? client->idle[--client->idle_count] : NULL;
    pthread_mutex_unlock(&client->lock);
    return curl ? curl : curl_easy_init();
}

static void give_back(gradd_client *client, CURL *curl) {
    pthread_mutex_lock(&client->lock);
    if (client->idle_count < GRADD_MAX_IDLE) {
        client->idle[client->idle_count++] = curl;
        curl = NULL;
    }
    pthread_mutex_unlock(&client->lock);
    curl_easy_cleanup(curl);
}

static bool worth_another_try(const transfer *t, int code) {
    if (code == GRADD_E_UNREACHABLE) {
        return true; /* nothing was sent */
    }
    bool busy = code == GRADD_E_REFUSED && (t->status == 429 || t->status == 503);
    return replayable(t->request) && (code == GRADD_E_NETWORK || busy);
}

/* Wait before the next try. @return false when interrupted */
static bool pause_before(const transfer *t, int tries) {
    long ms = t->retry_after ? t->retry_after * 1000 : (long)FIRST_PAUSE_MS << (tries < 5 ? tries : 5);
    for (; ms > 0; ms -= SLICE_MS) {
        if (interrupted(t->client)) {
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
    int code = GRADD_OK;
    bool json = strcmp(request->accept, GRADD_JSON) == 0;
    size_t limit = client->config.max_reply;
    transfer t = {.client = client,
                  .request = request,
                  .limit = json && limit > GRADD_MAX_JSON_REPLY ? GRADD_MAX_JSON_REPLY : limit};
    size_t url_size = strlen(client->server) + request->url.size + 1;
    char *url = malloc(url_size);
    t.curl = take_connection(client);
    if (!url || !t.curl || !reserve(&t, 1)) {
        code = gradd_fail_memory(error);
        goto out;
    }
    t.capacity = 0; /* so that the first piece of the reply chooses a size */
    snprintf(url, url_size, "%s%s", client->server, request->url.text);
    for (int tries = 0;; tries++) {
        code = attempt(&t, url, error);
        if (!code || tries >= client->config.retries || !worth_another_try(&t, code)) {
            break;
        }
        if (!pause_before(&t, tries)) {
            code = gradd_fail(error, GRADD_E_INTERRUPTED, "interrupted");
            break;
        }
    }
    if (!code) {
        *ret_reply = (gradd_reply){.status = (int)t.status, .data = t.data, .size = t.size};
        t.data = NULL;
    }
out:
    if (t.curl) {
        give_back(client, t.curl);
    }
    free(t.data);
    free(url);
    return code;
}
