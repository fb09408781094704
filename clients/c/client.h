/* client.h -- what libgradd's files share. Private: nothing of it is exported. */
#ifndef GRADD_CLIENT_H
#define GRADD_CLIENT_H

#include <curl/curl.h>
#include <jansson.h>
#include <pthread.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "gradd.h"

enum {
    GRADD_MAX_SERVER = 1024,         /* bytes of the server's URL */
    GRADD_MAX_URL = 4096,            /* bytes of a path with its query */
    GRADD_MAX_IDLE = 8,              /* connections kept between calls */
    GRADD_MAX_JSON_REPLY = 64 << 20, /* bytes */
    GRADD_MAX_TOKEN = 4096,          /* bytes */
    GRADD_MAX_PAUSE = 5,             /* seconds before trying again, whatever the daemon says */
    GRADD_MAX_HEADERS = 1024,        /* bytes of a request's headers, beside those of every request */
    GRADD_KEY = 33,                  /* bytes of an Idempotency-Key, with the NUL */
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef struct gradd_connection gradd_connection;

struct gradd_client {
    char *server;        /* no final slash */
    char *host, *prefix; /* of it: the Host header, and the path or "" */
    bool tls;
    char *authorization;  /* the token's header, or NULL */
    gradd_config config;  /* defaults filled in; its strings are not used */
    pthread_mutex_t lock; /* guards idle, idle_count */
    gradd_connection *idle[GRADD_MAX_IDLE];
    size_t idle_count;
};

/** Fill in an error, which may be NULL. */
void gradd_error_set(gradd_error *error, gradd_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** The same, with the code as its value: in sight of callers, which analysers read one file at a time. */
#define gradd_fail(error, code, ...) (gradd_error_set(error, code, __VA_ARGS__), (int)(code))
#define gradd_fail_memory(error) gradd_fail(error, GRADD_E_MEMORY, "out of memory in the client")

/* ---- http.c ------------------------------------------------------------------------------------- */

/** Path and query of a request, built piece by piece; once something did not fit, it stays `overflow`. */
typedef struct gradd_url {
    size_t size;
    bool overflow, bad_name;
    bool has_query;
    char text[GRADD_MAX_URL];
} gradd_url;

/** Append as it stands: "/v1/models". */
void gradd_url_add(gradd_url *url, const char *text);
/** Append "/" and the name, percent-encoded. "", "." and ".." are bad names. */
void gradd_url_name(gradd_url *url, const char *name);
/** Append ?key=value or &key=value, percent-encoded. */
void gradd_url_query(gradd_url *url, const char *key, const char *value);

/** A piece of a body, borrowed. */
typedef struct gradd_segment {
    const void *data;
    size_t size;
} gradd_segment;

#define GRADD_JSON "application/json"
#define GRADD_SAFETENSORS "application/x-safetensors"
#define GRADD_BYTES "application/octet-stream"

/** A body that is read from a file while it is sent. */
typedef struct gradd_source {
    int fd; /* read from its beginning, whatever its position */
    int64_t size;
    const gradd_file *file; /* who wants to know how far it is */
} gradd_source;

/** Where the body of a 2xx goes as it comes, in place of memory. */
typedef struct gradd_sink {
    /** @param size bytes that will come, or -1. Once for each try */
    int (*begin)(void *argument, int64_t size, gradd_error *error);
    int (*write)(void *argument, const char *bytes, size_t size, gradd_error *error);
    void *argument;
} gradd_sink;

typedef struct gradd_request {
    const char *method; /* "GET" ... */
    const char *accept;
    bool bad_header;
    bool has_key;             /* an Idempotency-Key is one of them */
    bool conditional;         /* If-Match is */
    const char *content_type; /* NULL: no body */
    const gradd_segment *body;
    size_t body_count;
    const gradd_source *source; /* or this is the body */
    const gradd_sink *sink;     /* or NULL */
    gradd_url url;
    char headers[GRADD_MAX_HEADERS]; /* more of them, each with its end of line */
} gradd_request;

/** Add a header. A value that is longer than 255 bytes or not visible ASCII makes it a bad request. */
void gradd_request_header(gradd_request *request, const char *name, const char *value);

/** Owned by the caller: free(reply.data). data is NUL-terminated past its end, never NULL. */
typedef struct gradd_reply {
    int status;
    long retry_after;          /* seconds, at most GRADD_MAX_PAUSE; 0: it does not say */
    char etag[GRADD_MAX_ETAG]; /* or "" */
    char *data;
    size_t size;
} gradd_reply;

/** Options as query parameters, but for the two that are headers. */
void gradd_request_options(gradd_request *request, const gradd_option *options);
/** Send a request, with retries by the rule in gradd.h; only 2xx is a success. */
int gradd_http(gradd_client *client, const gradd_request *request, gradd_reply *ret_reply,
               gradd_error *error);
/** The same without retries. @param key the Idempotency-Key, or NULL */
int gradd_http_once(gradd_client *client, const gradd_request *request, const char *key,
                    gradd_reply *ret_reply, gradd_error *error);
/** Wait before the next try. @return false: interrupted */
bool gradd_pause(const gradd_client *client, long retry_after, int tries);
/** Does the user want to wait no longer? */
bool gradd_interrupted(const gradd_client *client);

/* ---- exchange.c ----------------------------------------------------------------------------------- */

/** Send a request over an idle connection and read the reply, of any status. Once.
 *  @param key      the Idempotency-Key, or NULL
 *  @param limit    bytes of the reply's body, unless it goes to a sink
 *  @param ret_keep set in any case: the connection is idle again; else it is no good any more */
int gradd_exchange(const gradd_client *client, gradd_connection *connection, const gradd_request *request,
                   const char *key, size_t limit, gradd_reply *ret_reply, bool *ret_keep, gradd_error *error);

/* ---- connection.c --------------------------------------------------------------------------------- */

/** @return GRADD_E_UNREACHABLE and others: nothing was sent */
int gradd_connect(gradd_client *client, gradd_connection **ret_connection, gradd_error *error);
/** NULL is fine. */
void gradd_disconnect(gradd_connection *connection);
/** Is it still there, with nothing to read? */
bool gradd_connection_idle(const gradd_connection *connection);

enum { GRADD_LATER = -1, GRADD_BROKEN = -2 };
/** Neither waits. @return bytes; 0 on receiving: the end; GRADD_LATER: none go now; GRADD_BROKEN */
ssize_t gradd_connection_send(gradd_connection *connection, const struct iovec *pieces, size_t count);
ssize_t gradd_connection_receive(gradd_connection *connection, void *bytes, size_t size);
/** Wait until there is something to receive, or room to send where that is wanted, too.
 *  @return as poll() does: 0 after timeout_ms, -1 on an error, of which errno tells */
int gradd_connection_await(gradd_connection *connection, bool to_send, int timeout_ms);

/* ---- tensors.c ------------------------------------------------------------------------------------ */

/** Make the request's body from tensors, without copying their data: they must outlive the request.
 *  @param ret_memory to be freed after the request */
int gradd_request_tensors(gradd_request *request, const gradd_named_tensor *tensors, size_t count,
                          void **ret_memory, gradd_error *error);
/** Read a safetensors reply: floats become float32, integers int64. */
int gradd_reply_tensors(const gradd_reply *reply, gradd_tensors *ret_tensors, gradd_error *error);

/* ---- members.c ------------------------------------------------------------------------------------ */

typedef enum gradd_value_kind {
    GRADD_NOTHING, /* left out, or null */
    GRADD_WHOLE,
    GRADD_REAL,
    GRADD_BOOLEAN,
    GRADD_TEXT,
    GRADD_OTHER, /* an object, a list */
} gradd_value_kind;

/** What a member of a reply's object is. */
typedef struct gradd_value {
    gradd_value_kind kind;
    union {
        int64_t whole;
        double real;
        bool boolean;
        struct {
            const char *text; /* borrowed from the reply, or its JSON */
            size_t size;      /* bytes; no NUL follows them */
        };
    };
} gradd_value;

enum { GRADD_MAX_MEMBERS = 32 };

typedef struct gradd_member {
    const char *name; /* in the reply */
    size_t name_size;
    int inside; /* the member whose value it is part of; -1: none */
    gradd_value value;
} gradd_member;

/** The members of an object and of the objects in it, in the order of the text. */
typedef struct gradd_members {
    int count;
    gradd_member items[GRADD_MAX_MEMBERS];
} gradd_members;

/** Read a reply that is a small, plain object, without memory of its own.
 *  @param ret_members views of the reply
 *  @return false: ask jansson. It reads more, and knows what to say of what is no JSON */
bool gradd_members_read(const gradd_reply *reply, gradd_members *ret_members);
/** @param path "loss", "timing_us.parse" */
gradd_value gradd_members_find(const gradd_members *members, const char *path);

/* ---- records.c ------------------------------------------------------------------------------------ */

typedef enum gradd_field_type {
    GRADD_FIELD_INT,    /* int64_t; -1 when left out */
    GRADD_FIELD_DOUBLE, /* double; NaN when left out or null; "NaN", "Infinity" are numbers */
    GRADD_FIELD_BOOL,
    GRADD_FIELD_TEXT,  /* char[size], cut to fit; "" when left out */
    GRADD_FIELD_STRING /* char *, allocated; NULL when left out */
} gradd_field_type;

/** One member of a reply's object and where it goes in the record. */
typedef struct gradd_field {
    const char *path; /* "loss", "timing_us.parse" */
    gradd_field_type type;
    size_t offset, size;
    bool required;
} gradd_field;

/* Braces in macros: versions of clang-format differ. */
/* clang-format off */
#define GRADD_FIELD(record, member, kind, ...) \
    {.path = #member, .type = GRADD_FIELD_##kind, .offset = offsetof(record, member), \
     .size = sizeof(((record *)NULL)->member), __VA_ARGS__}
/* clang-format on */

/** Parse a reply as JSON. @param ret_json a new reference */
int gradd_reply_json(const gradd_reply *reply, json_t **ret_json, gradd_error *error);
/** Fill in a record that the caller zeroed. Strings allocated so far stay in it on failure. */
int gradd_record_read(const json_t *json, const gradd_field *fields, size_t count, void *record,
                      gradd_error *error);
/** The same from the reply's text, through jansson only where it must be. */
int gradd_reply_record(const gradd_reply *reply, const gradd_field *fields, size_t count, void *record,
                       gradd_error *error);
/** A list of integers (null: -1) into a fixed array. @return how many, or -1 when it is no such list */
int gradd_ints_read(const json_t *json, int64_t *out, size_t max);

/** A kind of thing that the daemon describes: a struct whose last member is the whole document. */
typedef struct gradd_kind {
    const gradd_field *fields;
    size_t count; /* of fields */
    size_t size;  /* of the struct */
    size_t json;  /* where its `char *json` is */
} gradd_kind;

/* clang-format off */
#define GRADD_KIND(record, field_table) \
    {.fields = field_table, .count = COUNT(field_table), .size = sizeof(record), \
     .json = offsetof(record, json)}
/* clang-format on */

/** @param ret_info a struct of that kind; untouched on failure */
int gradd_info_read(const json_t *json, const gradd_kind *kind, void *ret_info, gradd_error *error);
/** Free its strings and zero it. NULL is fine. */
void gradd_info_free(const gradd_kind *kind, void *info);
void gradd_infos_free(const gradd_kind *kind, void *infos, size_t count);

/* ---- files.c -------------------------------------------------------------------------------------- */

/** A PUT of a whole file, by pieces. */
int gradd_send_file(gradd_client *client, gradd_request *request, const gradd_file *file, char **ret_json,
                    gradd_error *error);
/** A GET of what is written to a file, which is there when all of it has come, and not before. */
int gradd_receive_file(gradd_client *client, gradd_request *request, const gradd_file *file,
                       gradd_error *error);

/* ---- jobs.c --------------------------------------------------------------------------------------- */

/** {method} /v1/jobs/{job}{below}, JSON expected. */
gradd_request gradd_job_request(const char *method, int64_t job, const char *below);

/* ---- models.c ------------------------------------------------------------------------------------- */

/** Send a request and read the reply as a model with its ETag. @param ret_info may be NULL */
int gradd_send_for_model(gradd_client *client, const gradd_request *request, gradd_model_info *ret_info,
                         gradd_error *error);

/* ---- requests.c ----------------------------------------------------------------------------------- */

/** {method} /v1/models/{model}[/{action}], JSON expected. */
gradd_request gradd_model_request(const char *method, const char *model, const char *action);
/** The same in place: a request is 5 kB, which a step need not copy. */
void gradd_request_model(gradd_request *request, const char *method, const char *model, const char *action);
/** Give it a JSON body: `segment` and `json` must outlive the request. */
void gradd_request_json(gradd_request *request, gradd_segment *segment, const char *json);

/* Send a request and read the reply: not at all, as text (released with free()), as JSON (a new
 * reference), as a record, as tensors, as exactly one tensor. Where it says ret_ and the caller doesn't
 * want it, NULL is fine for text and tensor. */
int gradd_send(gradd_client *client, const gradd_request *request, gradd_error *error);
int gradd_send_for_text(gradd_client *client, const gradd_request *request, char **ret_text,
                        gradd_error *error);
int gradd_send_for_json(gradd_client *client, const gradd_request *request, json_t **ret_json,
                        gradd_error *error);
int gradd_send_for_record(gradd_client *client, const gradd_request *request, const gradd_field *fields,
                          size_t count, void *record, gradd_error *error);
int gradd_send_for_tensors(gradd_client *client, gradd_request *request, gradd_tensors *ret_tensors,
                           gradd_error *error);
int gradd_send_for_tensor(gradd_client *client, gradd_request *request, gradd_tensor *ret_tensor,
                          gradd_error *error);
/** @param ret_info a struct of that kind, or NULL */
int gradd_send_for_info(gradd_client *client, const gradd_request *request, const gradd_kind *kind,
                        void *ret_info, gradd_error *error);
/** All pages of a list as structs of that kind. @param ret_infos not NULL; gradd_infos_free() */
int gradd_list_infos(gradd_client *client, const gradd_request *base, const gradd_kind *kind,
                     void **ret_infos, size_t *ret_count, gradd_error *error);
/** The items of all pages of a list. @param ret_items a new reference to an array */
int gradd_list_all(gradd_client *client, const gradd_request *base, json_t **ret_items, gradd_error *error);

#endif
