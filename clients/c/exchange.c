/* exchange.c -- one request and its reply by HTTP/1.1. A body leaves from where it lies, by the same calls as
 * its head; a reply of known length is read to where it stays. (Over a transfer of libcurl's a small request
 * took 100 us longer, and each body was copied once more.) */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "proto/gradd_codec.h"

enum {
    EXPECT_FROM = 32 << 20, /* bytes of a body: ask before sending it whether it will be taken */
    SLICE_MS = 1000, /* how long a wait goes unasked whether it was interrupted, or for "100 Continue" */
    PIECES = 16,     /* of a body, that leave by one call */
    MAX_HEAD = GRADD_MAX_URL + GRADD_MAX_SERVER + GRADD_MAX_TOKEN + GRADD_MAX_HEADERS + 1024, /* bytes */
    MAX_LINE = 16 << 10,         /* bytes, of a reply's head */
    BLOCK = 256 << 10,           /* bytes of a file that are read at once */
    FIRST_REPLY_SIZE = 16 << 10, /* bytes, when the reply doesn't tell its length */
};

/* What the next bytes of the reply are. */
typedef enum stage { STATUS, HEADERS, BODY, BODY_TO_END, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, DONE } stage;

typedef struct exchange {
    const gradd_client *client;
    gradd_connection *connection;
    const gradd_request *request;
    const char *key; /* Idempotency-Key, or NULL */
    gradd_error *error;
    int64_t deadline_ms; /* 0: not yet, for nothing has been waited for */
    /* out: piece 0 is the head, the others are the body's */
    size_t head_size;
    size_t piece, offset; /* of the next byte to send */
    bool holding;         /* the body, until "100 Continue" */
    char *block;          /* of a file that is sent: what is the body's only piece now; or NULL */
    size_t block_size;
    int64_t sent; /* bytes of the file, up to the end of the block */
    /* in */
    stage stage;
    size_t begin, end;             /* of what is left in `in` */
    size_t rest;                   /* bytes of the body, or of a chunk, that are still to come */
    int64_t length;                /* by Content-Length, or -1 */
    bool chunked, keep, cut_short; /* cut_short: the request has not left whole */
    int status;
    long retry_after; /* seconds, or 0 */
    bool to_sink;     /* where the reply's body goes */
    char etag[GRADD_MAX_ETAG];
    char *data; /* the reply's body */
    size_t size, capacity, limit;
    char head[MAX_HEAD];
    char in[MAX_LINE];
} exchange;

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int fail_broken(const exchange *x, const char *why) {
    return gradd_fail(x->error, GRADD_E_NETWORK, "the connection to %s broke: %s", x->client->server, why);
}

/* ---- the request ---------------------------------------------------------------------------------- */

static size_t body_size(const gradd_request *request) {
    size_t size = request->source ? (size_t)request->source->size : 0;
    for (size_t i = 0; i < request->body_count; i++) {
        size += request->body[i].size;
    }
    return size;
}

/* Append to the head; what doesn't fit is counted only. */
static void put(exchange *x, const char *text, size_t size) {
    if (x->head_size + size <= sizeof x->head) {
        memcpy(x->head + x->head_size, text, size);
    }
    x->head_size += size;
}

static void put_text(exchange *x, const char *text) {
    put(x, text, strlen(text));
}

/* Without printf, which takes as long as all else that is done between two requests. */
static int write_head(exchange *x) {
    const gradd_request *request = x->request;
    const gradd_client *client = x->client;
    put_text(x, request->method);
    put_text(x, " ");
    put_text(x, client->prefix);
    put(x, request->url.text, request->url.size);
    put_text(x, " HTTP/1.1\r\nHost: ");
    put_text(x, client->host);
    put_text(x, "\r\nUser-Agent: libgradd\r\nAccept: ");
    put_text(x, request->accept);
    if (request->content_type) {
        char length[GP_DECIMAL];
        const size_t size = body_size(request);
        x->holding = size >= EXPECT_FROM;
        put_text(x, "\r\nContent-Type: ");
        put_text(x, request->content_type);
        put_text(x, "\r\nContent-Length: ");
        put(x, length, (size_t)(gp_write_decimal(length, size) - length));
        put_text(x, x->holding ? "\r\nExpect: 100-continue" : "");
    }
    if (x->key) {
        put_text(x, "\r\nIdempotency-Key: ");
        put_text(x, x->key);
    }
    put_text(x, "\r\n");
    put_text(x, request->headers);
    if (client->authorization) {
        put_text(x, client->authorization);
        put_text(x, "\r\n");
    }
    put_text(x, "\r\n");
    return x->head_size <= sizeof x->head
               ? GRADD_OK
               : gradd_fail(x->error, GRADD_E_ARGUMENT, "the request's head is too long");
}

static size_t body_count(const exchange *x) {
    return x->request->source ? 1 : x->request->body_count;
}

static size_t piece_count(const exchange *x) {
    return 1 + (x->holding ? 0 : body_count(x));
}

static bool unsent(const exchange *x) {
    return x->piece < 1 + body_count(x);
}

static void send_no_more(exchange *x) {
    x->piece = 1 + body_count(x);
    x->holding = false;
    x->cut_short = true;
}

/* Something has moved: where a file is sent or received, the time limit is one for standing still. */
static void moved(exchange *x) {
    if (x->request->source || x->request->sink) {
        x->deadline_ms = now_ms() + x->client->config.timeout_ms;
    }
}

/* The next pieces to send. @return how many */
static size_t gather(const exchange *x, struct iovec pieces[PIECES]) {
    const size_t from = x->piece, count = piece_count(x);
    const gradd_segment block = {x->block, x->block_size};
    const gradd_segment *body = x->request->source ? &block : x->request->body;
    size_t n = 0;
    for (size_t i = from; i < count && n < PIECES; i++) {
        const size_t skip = i == from ? x->offset : 0;
        /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): a source has one block at a time */
        const char *data = i ? body[i - 1].data : x->head;
        const size_t size = i ? body[i - 1].size : x->head_size;
        pieces[n++] = (struct iovec){(char *)(uintptr_t)data + skip, size - skip};
    }
    return n;
}

/* All pieces have left: the file's next block becomes the body's piece again, if there is one. */
static int refill(exchange *x) {
    const gradd_source *source = x->request->source;
    if (!source || x->holding || x->cut_short || unsent(x)) {
        return GRADD_OK;
    }
    if (source->file->progress) {
        source->file->progress(source->file->argument, x->sent, source->size);
    }
    moved(x);
    if (x->sent == source->size) {
        return GRADD_OK;
    }
    const int64_t left = source->size - x->sent;
    ssize_t got = pread(source->fd, x->block, left < BLOCK ? (size_t)left : BLOCK, x->sent);
    if (got <= 0) {
        return gradd_fail(x->error, GRADD_E_ARGUMENT, "cannot read the file that is sent: %s",
                          got ? strerror(errno) : "it became shorter");
    }
    x->block_size = (size_t)got;
    x->sent += got;
    x->piece = 1;
    x->offset = 0;
    return GRADD_OK;
}

/* Send as much as goes without waiting. */
static int push(exchange *x) {
    struct iovec pieces[PIECES];
    size_t count;
    while ((count = gather(x, pieces))) {
        ssize_t sent = pieces->iov_len ? gradd_connection_send(x->connection, pieces, count) : 0;
        if (sent == GRADD_LATER) {
            return GRADD_OK;
        }
        if (sent < 0) { /* there may be a reply all the same that says why */
            send_no_more(x);
            return GRADD_OK;
        }
        for (size_t i = 0; i < count && (size_t)sent >= pieces[i].iov_len; i++) {
            sent -= (ssize_t)pieces[i].iov_len;
            x->piece++;
            x->offset = 0;
        }
        x->offset += (size_t)sent;
        int code = refill(x);
        if (code) {
            return code;
        }
    }
    return GRADD_OK;
}

/* ---- the reply ------------------------------------------------------------------------------------ */

static int fail_too_large(const exchange *x) {
    return gradd_fail(x->error, GRADD_E_REPLY, "the reply of %s is over the limit of %zu bytes",
                      x->request->url.text, x->limit);
}

/* Room for so many bytes of the reply's body, and a NUL. */
static int reserve(exchange *x, size_t size) {
    if (size > x->limit) {
        return fail_too_large(x);
    }
    if (size < x->capacity) {
        return GRADD_OK;
    }
    char *data = realloc(x->data, size + 1);
    if (!data) {
        return gradd_fail_memory(x->error);
    }
    x->data = data;
    x->capacity = size + 1;
    return GRADD_OK;
}

/* More of the body. */
static int append(exchange *x, const char *bytes, size_t size) {
    if (x->to_sink) {
        moved(x);
        return size ? x->request->sink->write(x->request->sink->argument, bytes, size, x->error) : GRADD_OK;
    }
    if (size > x->limit - x->size) {
        return fail_too_large(x);
    }
    size_t need = x->size + size;
    if (need >= x->capacity) {
        size_t room = x->capacity ? 2 * x->capacity : FIRST_REPLY_SIZE;
        int code = reserve(x, room > x->limit ? x->limit : room > need ? room : need);
        if (code) {
            return code;
        }
    }
    memcpy(x->data + x->size, bytes, size);
    x->size = need;
    return GRADD_OK;
}

/* A whole number in decimal and nothing else, or -1. */
static int64_t whole_number(const char *text) {
    int64_t value = *text ? 0 : -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *text - '0', &value)) {
            return -1;
        }
    }
    return value;
}

/* "HTTP/1.1 200 OK" */
static int read_status(exchange *x, const char *line) {
    const char *code = line + 9;
    if (strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12 || line[8] != ' ' ||
        !isdigit((unsigned char)code[0]) || !isdigit((unsigned char)code[1]) ||
        !isdigit((unsigned char)code[2])) {
        return fail_broken(x, "what it sends is not HTTP/1.1");
    }
    x->status = (code[0] - '0') * 100 + (code[1] - '0') * 10 + (code[2] - '0');
    x->keep = line[7] != '0';
    x->length = -1;
    x->chunked = false;
    x->stage = HEADERS;
    return GRADD_OK;
}

/* The value when this is the header `name`, or NULL. */
static const char *header_value(const char *line, const char *name) {
    const size_t size = strlen(name);
    /* most lines are another header: their first letter tells it */
    return (*line | ' ') == (*name | ' ') && strncasecmp(line, name, size) == 0 && line[size] == ':'
               ? line + size + 1 + strspn(line + size + 1, " \t")
               : NULL;
}

static int read_header(exchange *x, const char *line) {
    const char *value;
    if ((value = header_value(line, "Content-Length"))) {
        const int64_t length = whole_number(value);
        if (length < 0 || (x->length >= 0 && x->length != length)) {
            return fail_broken(x, "the reply's Content-Length is no number");
        }
        x->length = length;
    } else if ((value = header_value(line, "Transfer-Encoding"))) {
        if (strcasecmp(value, "chunked") != 0) {
            return fail_broken(x, "the reply's Transfer-Encoding is not known");
        }
        x->chunked = true;
    } else if ((value = header_value(line, "Connection"))) {
        x->keep = x->keep && strcasecmp(value, "close") != 0;
    } else if ((value = header_value(line, "ETag"))) {
        snprintf(x->etag, sizeof x->etag, "%s", value);
    } else if ((value = header_value(line, "Retry-After"))) {
        const int64_t seconds = whole_number(value);
        x->retry_after = seconds < 0 ? 0 : seconds > GRADD_MAX_PAUSE ? GRADD_MAX_PAUSE : (long)seconds;
    }
    return GRADD_OK;
}

static int end_head(exchange *x) {
    if (x->status < 200) { /* "100 Continue", or a proxy's small talk */
        x->holding = false;
        x->stage = STATUS;
        return GRADD_OK;
    }
    if (unsent(x)) { /* an answer before the end of the question: no */
        send_no_more(x);
    }
    x->to_sink = x->request->sink && x->status >= 200 && x->status < 300;
    if (x->to_sink) {
        int code = x->request->sink->begin(x->request->sink->argument, x->length, x->error);
        if (code) {
            return code;
        }
    }
    if (x->status == 204 || x->status == 304) {
        x->stage = DONE;
    } else if (x->chunked) {
        x->keep = x->keep && x->length < 0;
        x->stage = CHUNK_SIZE;
    } else if (x->length >= 0) {
        x->rest = (size_t)x->length;
        x->stage = x->rest ? BODY : DONE;
        return x->to_sink ? GRADD_OK : reserve(x, x->rest);
    } else {
        x->keep = false;
        x->stage = BODY_TO_END;
    }
    return GRADD_OK;
}

static int read_chunk_size(exchange *x, const char *line) {
    char *end = NULL;
    errno = 0;
    unsigned long long size = strtoull(line, &end, 16);
    if (!isxdigit((unsigned char)*line) || errno || !strchr("; \t", *end)) {
        return fail_broken(x, "a chunk of the reply has no size");
    }
    if (size > x->limit && !x->to_sink) {
        return fail_too_large(x);
    }
    x->rest = (size_t)size;
    x->stage = size ? CHUNK : TRAILERS;
    return GRADD_OK;
}

static int read_line(exchange *x, const char *line) {
    switch (x->stage) {
    case STATUS:
        return read_status(x, line);
    case HEADERS:
        return *line ? read_header(x, line) : end_head(x);
    case CHUNK_SIZE:
        return read_chunk_size(x, line);
    case CHUNK_END:
        x->stage = CHUNK_SIZE;
        return *line ? fail_broken(x, "a chunk of the reply is longer than its size") : GRADD_OK;
    default: /* TRAILERS */
        x->stage = *line ? TRAILERS : DONE;
        return GRADD_OK;
    }
}

/* The next line, without its end, or NULL: it isn't there yet. */
static char *take_line(exchange *x) {
    char *line = x->in + x->begin, *end = memchr(line, '\n', x->end - x->begin);
    if (!end) {
        return NULL;
    }
    x->begin = (size_t)(end + 1 - x->in);
    *end = '\0';
    if (end > line && end[-1] == '\r') {
        end[-1] = '\0';
    }
    return line;
}

/* Use what has come so far. */
static int consume(exchange *x) {
    int code = GRADD_OK;
    while (!code && x->stage != DONE) {
        if (x->stage == BODY || x->stage == CHUNK || x->stage == BODY_TO_END) {
            size_t there = x->end - x->begin;
            size_t part = x->stage == BODY_TO_END || there < x->rest ? there : x->rest;
            code = append(x, x->in + x->begin, part);
            x->begin += part;
            x->rest -= x->stage == BODY_TO_END ? 0 : part;
            if (x->stage == BODY_TO_END || x->rest) {
                return code;
            }
            x->stage = x->stage == BODY ? DONE : CHUNK_END;
        } else {
            const char *line = take_line(x);
            if (!line) {
                return x->end - x->begin < MAX_LINE ? GRADD_OK
                                                    : fail_broken(x, "a line of the reply is too long");
            }
            code = read_line(x, line);
        }
    }
    return code;
}

/* Read what is there, if anything. @param ret_some false: one has to wait */
static int pull(exchange *x, bool *ret_some) {
    /* the rest of a body comes straight to its place */
    const bool straight = x->stage == BODY && x->begin == x->end && !x->to_sink;
    if (!straight && x->begin) {
        memmove(x->in, x->in + x->begin, x->end - x->begin);
        x->end -= x->begin;
        x->begin = 0;
    }
    ssize_t got = straight ? gradd_connection_receive(x->connection, x->data + x->size, x->rest)
                           : gradd_connection_receive(x->connection, x->in + x->end, MAX_LINE - x->end);
    *ret_some = got != GRADD_LATER;
    if (got == GRADD_LATER) {
        return GRADD_OK;
    }
    if (got == 0 && x->stage == BODY_TO_END) {
        x->stage = DONE;
        return GRADD_OK;
    }
    if (got <= 0) {
        return fail_broken(x, got ? "it was reset" : "it was closed before the reply had come whole");
    }
    if (!straight) {
        x->end += (size_t)got;
        return consume(x);
    }
    x->size += (size_t)got;
    x->rest -= (size_t)got;
    x->stage = x->rest ? BODY : DONE;
    return GRADD_OK;
}

/* Wait for something to read, or for room to send more. */
static int await(exchange *x) {
    const int64_t now = now_ms();
    if (!x->deadline_ms) {
        x->deadline_ms = now + x->client->config.timeout_ms;
    }
    const int64_t left = x->deadline_ms - now;
    if (gradd_interrupted(x->client)) {
        return gradd_fail(x->error, GRADD_E_INTERRUPTED, "interrupted");
    }
    if (left <= 0) {
        return gradd_fail(x->error, GRADD_E_TIMEOUT, "no answer from %s within %ld ms", x->client->server,
                          x->client->config.timeout_ms);
    }
    int found = gradd_connection_await(x->connection, x->piece < piece_count(x),
                                       left < SLICE_MS ? (int)left : SLICE_MS);
    if (found < 0 && errno != EINTR) {
        return fail_broken(x, strerror(errno));
    }
    if (found == 0) {
        x->holding = false; /* it knows no "100 Continue" */
    }
    return GRADD_OK;
}

static int run(exchange *x) {
    int code = write_head(x);
    if (!code && x->request->source && !(x->block = malloc(BLOCK))) {
        code = gradd_fail_memory(x->error);
    }
    while (!code && x->stage != DONE) {
        bool some = true;
        code = push(x);
        if (!code) {
            code = pull(x, &some);
        }
        if (!code && !some) {
            code = await(x);
        }
    }
    return code;
}

int gradd_exchange(const gradd_client *client, gradd_connection *connection, const gradd_request *request,
                   const char *key, size_t limit, gradd_reply *ret_reply, bool *ret_keep,
                   gradd_error *error) {
    exchange x;
    memset(&x, 0, offsetof(exchange, head));
    x.client = client;
    x.connection = connection;
    x.request = request;
    x.key = key;
    x.error = error;
    x.limit = limit;
    int code = run(&x);
    if (!code) {
        code = reserve(&x, x.size); /* there may have been no body */
    }
    free(x.block);
    if (code) {
        free(x.data);
        *ret_keep = false;
        return code;
    }
    x.data[x.size] = '\0';
    *ret_keep = x.keep && !x.cut_short && x.begin == x.end;
    *ret_reply =
        (gradd_reply){.status = x.status, .retry_after = x.retry_after, .data = x.data, .size = x.size};
    memcpy(ret_reply->etag, x.etag, sizeof x.etag);
    return GRADD_OK;
}
