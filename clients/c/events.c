/* events.c -- Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html */
#include <stdlib.h>
#include <string.h>

#include "client.h"

enum {
    MAX_ID = 256,        /* bytes, with the NUL */
    MAX_TEXT = 16 << 20, /* bytes of a line, and of an event's data */
};

typedef struct text {
    char *bytes; /* NUL-terminated, or NULL */
    size_t size, capacity;
} text;

typedef struct watch {
    bool (*each)(void *argument, const gradd_event *event);
    void *argument;
    text line, data;
    bool after_cr;        /* the last byte was CR: an LF that follows belongs to it */
    bool has_data;        /* also when it is empty */
    char name[64];        /* of the event that is being read */
    char next_id[MAX_ID]; /* likewise */
    char id[MAX_ID];      /* of the last whole one */
    bool some;            /* events have come by this connection */
    bool ended, stopped;
} watch;

static int append(text *t, const char *bytes, size_t size, gradd_error *error) {
    if (size > MAX_TEXT - t->size) {
        return gradd_fail(error, GRADD_E_REPLY, "an event is over the limit of %d bytes", MAX_TEXT);
    }
    if (t->size + size >= t->capacity) {
        const size_t capacity = 2 * (t->size + size) + 256;
        char *larger = realloc(t->bytes, capacity);
        if (!larger) {
            return gradd_fail_memory(error);
        }
        t->bytes = larger;
        t->capacity = capacity;
    }
    memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
    t->bytes[t->size] = '\0';
    return GRADD_OK;
}

static void clear(text *t) {
    t->size = 0;
    if (t->bytes) {
        *t->bytes = '\0';
    }
}

/* An empty line: the event is whole. */
static void dispatch(watch *w) {
    memcpy(w->id, w->next_id, sizeof w->id);
    if (w->has_data) {
        const gradd_event event = {
            .id = w->id, .name = *w->name ? w->name : "message", .data = w->data.bytes};
        w->some = true;
        w->ended = strcmp(event.name, "end") == 0;
        w->stopped = !w->each(w->argument, &event);
    }
    *w->name = '\0';
    w->has_data = false;
    clear(&w->data);
}

/* "name: value"; the space is no part of the value. A line that begins with a colon is a comment. */
static int take_line(watch *w, gradd_error *error) {
    char *line = w->line.bytes ? w->line.bytes : (char[]){""};
    if (!*line) {
        dispatch(w);
        return GRADD_OK;
    }
    char *value = line + strcspn(line, ":");
    const size_t length = (size_t)(value - line);
    value += *value == ':';
    value += *value == ' ';
    const size_t size = strlen(value);
    if (length == 4 && memcmp(line, "data", 4) == 0) {
        int code = w->has_data ? append(&w->data, "\n", 1, error) : GRADD_OK;
        w->has_data = true;
        return code ? code : append(&w->data, value, size, error);
    }
    if (length == 5 && memcmp(line, "event", 5) == 0 && size < sizeof w->name) {
        memcpy(w->name, value, size + 1);
    } else if (length == 2 && memcmp(line, "id", 2) == 0 && size < sizeof w->next_id) {
        memcpy(w->next_id, value, size + 1);
    }
    return GRADD_OK;
}

/* Lines end with LF, CR LF or CR; pieces end anywhere. */
static int take(void *argument, const char *bytes, size_t size, gradd_error *error) {
    watch *w = argument;
    int code = GRADD_OK;
    while (size && !code && !w->ended && !w->stopped) {
        if (w->after_cr && *bytes == '\n') {
            w->after_cr = false;
            bytes++;
            size--;
            continue;
        }
        w->after_cr = false;
        size_t part = 0;
        while (part < size && bytes[part] != '\n' && bytes[part] != '\r') {
            part++;
        }
        code = append(&w->line, bytes, part, error);
        if (!code && part < size) {
            w->after_cr = bytes[part] == '\r';
            code = take_line(w, error);
            clear(&w->line);
            part++;
        }
        bytes += part;
        size -= part;
    }
    /* the connection is of no more use: this code ends the exchange, and stays in this file */
    return !code && (w->ended || w->stopped) ? GRADD_E_INTERRUPTED : code;
}

/* What came of an event before its connection broke is forgotten: it comes again. */
static int begin(void *argument, int64_t size, gradd_error *error) {
    watch *w = argument;
    (void)size, (void)error;
    clear(&w->line);
    clear(&w->data);
    w->after_cr = w->has_data = w->some = false;
    *w->name = '\0';
    memcpy(w->next_id, w->id, sizeof w->id);
    return GRADD_OK;
}

/* One connection. */
static int follow(gradd_client *client, int64_t job, watch *w, gradd_reply *reply, gradd_error *error) {
    const gradd_sink sink = {.begin = begin, .write = take, .argument = w};
    gradd_request request = gradd_job_request("GET", job, "/events");
    request.accept = "text/event-stream";
    request.sink = &sink;
    if (*w->id) {
        gradd_request_header(&request, "Last-Event-ID", w->id);
    }
    if (request.bad_header) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "the id of an event must be visible characters");
    }
    int code = gradd_http_once(client, &request, NULL, reply, error);
    if (w->ended || w->stopped) {
        return GRADD_OK;
    }
    if (!code) {
        free(reply->data);
        return gradd_fail(error, GRADD_E_NETWORK, "the events of job %lld ended before it did",
                          (long long)job);
    }
    return code;
}

int gradd_job_watch(gradd_client *client, int64_t job, const char *after_id,
                    bool (*each)(void *argument, const gradd_event *event), void *argument,
                    gradd_error *error) {
    watch w = {.each = each, .argument = argument};
    gradd_error why = {0};
    int code;
    if (after_id && strlen(after_id) >= sizeof w.id) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "the id of an event is too long");
    }
    if (after_id) {
        memcpy(w.id, after_id, strlen(after_id) + 1);
    }
    for (int tries = 0;; tries++) {
        gradd_reply reply = {0};
        w.some = false;
        code = follow(client, job, &w, &reply, &why);
        const bool busy = code == GRADD_E_REFUSED && (reply.status == 429 || reply.status == 503);
        tries = w.some ? 0 : tries; /* it went well for a while */
        if ((code != GRADD_E_NETWORK && code != GRADD_E_UNREACHABLE && code != GRADD_E_TIMEOUT && !busy) ||
            tries >= client->config.retries) {
            break;
        }
        if (!gradd_pause(client, reply.retry_after, tries)) {
            code = gradd_fail(&why, GRADD_E_INTERRUPTED, "interrupted");
            break;
        }
    }
    free(w.line.bytes);
    free(w.data.bytes);
    if (code && error) {
        *error = why;
    }
    return code;
}
