/* request.h -- one HTTP request from its first byte to its last: what came, what goes back. A request
 * belongs to one thread at a time: the loop's, or between queueing and being done, a compute thread. */
#ifndef GRADD_SERVER_REQUEST_H
#define GRADD_SERVER_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "effect.h"
#include "gate.h"
#include "idempotency.h"
#include "media.h"
#include "route.h"
#include "server.h"
#include "stream.h"
#include "uri.h"

struct MHD_Connection;

typedef enum gs_stage {
    GS_STAGE_NEW,     /* headers are coming */
    GS_STAGE_BODY,    /* the body is coming */
    GS_STAGE_DISCARD, /* the body is coming, but the answer is an error already */
    GS_STAGE_QUEUED,  /* waits for its turn, or runs */
    GS_STAGE_DONE,    /* ran; the reply may be queued */
    GS_STAGE_REPLIED  /* the reply is on its way */
} gs_stage;

/** What to answer. Zero-initialised it is empty. */
typedef struct gs_reply {
    int status;
    gs_media media;
    char *body;
    size_t size;
    bool owned;        /* body is malloc()ed; else it lives for ever */
    gs_stream *stream; /* in place of body; size counts what has gone out */
    bool is_file;      /* the body is what `file` holds, which is the reply's to close */
    int file;
    char etag[96];       /* with its quotes, or "" */
    char location[192];  /* or "" */
    char allow[64];      /* or "" */
    const char *grad_fn; /* X-Grad-Fn; lives for ever, or NULL */
    bool replayed;       /* Idempotency-Replayed: it was given before */
    bool close;          /* end the connection after it */
} gs_reply;

struct gs_request {
    gs_server *server;
    struct gs_connection *connection;
    struct MHD_Connection *mhd; /* loop thread alone */
    gs_stage stage;
    bool suspended;    /* loop thread alone */
    bool waited;       /* likewise: it was another thread's for a while */
    gs_stream *stream; /* likewise: that makes the reply that is on its way */
    bool full;         /* likewise: the spool has no room for more */
    char id[65];
    const char *method; /* HEAD reads as GET */
    bool head;
    const char *target; /* as it was sent */
    char *scratch;      /* what uri points into */
    gs_uri uri;
    gs_headers headers;
    const gs_route *route; /* NULL until it is known */
    const char *variables[GS_MAX_VARIABLES];
    char key[GS_MAX_KEY + 1];    /* Idempotency-Key, where it counts; or "" */
    gs_key *claim;               /* on this key, until the request has ended */
    gs_fingerprint *fingerprint; /* of a long body with a key; else NULL: it is taken when it is wanted */
    gs_media content;            /* of the body */
    gs_media accept;             /* of the reply */
    gs_buffer *body;             /* NULL: none */
    gs_spool *spool;             /* where a body that is a file goes, until its end; NULL: none */
    gs_upload *upload;           /* what became of it, for the handler */
    size_t body_limit;
    size_t received;         /* bytes of the body so far, discarded ones too */
    gs_hosted *model;        /* a reference, with GS_MODEL */
    gs_queue *_Atomic queue; /* while queued */
    bool moves;    /* its handler has found the model (and set it): it is to run again, in the model's turn */
    bool parked;   /* written by the loop's thread alone: its handler has no answer yet; it runs again, on the
                      loop, when somebody gives the request to gs_executor_post(), as unpark() does at
                      deadline_us */
    bool unparked; /* and it has to answer now */
    void *parked_on;                     /* what that is up to */
    void (*unpark)(gs_request *request); /* loop thread: nothing, if that has been done already */
    gs_request *next;                    /* in the queue, then among the done */
    int64_t began_us, body_us, queued_us, started_us, ended_us; /* gs_clock_us(), 0: not yet */
    int64_t deadline_us;                                        /* while queued */
    gs_effect effects[GS_MAX_EFFECTS];
    size_t effect_count;
    bool durable;   /* its effects are committed */
    bool of_state;  /* what they did goes when the model goes back to an earlier state; and its key with it */
    gp_error error; /* error.problem != GP_OK: answer with this */
    gs_reply reply;
    char texts[]; /* target and scratch */
};

/* ---- filling in the reply: all take over what they are given; 0, or -1 (out of memory) ----------- */

/** JSON, or whatever `media` says, as text. */
int gs_reply_text(gs_request *request, int status, gs_media media, gp_text *text, gp_error *error);
/** A jansson document. NULL (no memory for it) is an error. */
int gs_reply_json(gs_request *request, int status, json_t *json, gp_error *error);
/** Text that lives for ever. */
int gs_reply_static(gs_request *request, gs_media media, const char *text, size_t size);
/** Bytes that are made as they go out; the reply owns the stream. */
int gs_reply_stream(gs_request *request, gs_media media, gs_stream *stream);
/** The bytes of a file, sent from where they are. */
int gs_reply_file(gs_request *request, gs_media media, int fd, size_t size);
/** 204 */
int gs_reply_nothing(gs_request *request);
/** One tensor in the encoding that Accept asks for. In JSON it is the member `name` of an object, with
 *  `extra` behind it (",\"a\":1" or ""); with extra NULL the tensor is the whole reply. */
int gs_reply_tensor(gs_request *request, const char *name, const gd_tensor *tensor, const char *extra,
                    gp_error *error);
/** An engine's tensor as the wire sees it; its data stay where they are. */
gp_array gs_array_of(const gd_tensor *tensor);
/** Outputs of a network: one as gs_reply_tensor() has it, as "output"; several as {"outputs": {"logits": T,
 * ...}}, or an entry each in safetensors. `extra` as above. */
int gs_reply_outputs(gs_request *request, const gd_graph *graph, const gd_tensor *outputs, const char *extra,
                     gp_error *error);
/** Several, as safetensors. */
int gs_reply_tensors(gs_request *request, const gp_named_array *arrays, size_t count, gp_error *error);
/** The reply to request->error. */
void gs_reply_problem(gs_request *request);
void gs_reply_clear(gs_reply *reply);

/* ---- what handlers ask of a request --------------------------------------------------------------- */

/** Set the reply's strong ETag. */
void gs_reply_etag(gs_request *request, const char *etag);
/** Does If-Match let a change of what has this ETag pass? @return 0; -1: 412 */
int gs_check_if_match(const gs_request *request, const char *etag, gp_error *error);
/** A query parameter as a whole number. @return 0; -1: not one from min to max */
int gs_query_integer(const gs_request *request, const char *name, int64_t initial, int64_t min, int64_t max,
                     int64_t *ret_value, gp_error *error);
/** A query parameter as true or false. @return 0; -1 */
int gs_query_bool(const gs_request *request, const char *name, bool initial, bool *ret_value,
                  gp_error *error);
/** The body as a jansson document; an empty body reads as {}. A new reference. @return 0; -1 */
int gs_body_json(const gs_request *request, json_t **ret_json, gp_error *error);
/** Refuse members of a JSON object other than those listed (separated by spaces). @return 0; -1 */
int gs_check_members(const json_t *object, const char *members, gp_error *error);

/* ---- how a request goes through, in dispatch.c ------------------------------------------------------ */

/** With the headers there: everything that can be refused before the body comes. Loop thread.
 *  @return 0; -1 with request->error filled in, and reply.close where the connection must end */
int gs_request_admit(gs_request *request, const char *method, const char *version);
/** Add bytes to the body. @return 0; -1 as above, when it is over a limit */
int gs_request_receive(gs_request *request, const char *bytes, size_t size);
/** With the body there: run it now, or queue it. @return whether the reply is ready; else it is queued */
bool gs_request_dispatch(gs_request *request);
/** Run the handler and make its reply, or its error's. Whoever owns the request. */
void gs_request_run(gs_request *request);
/** Let it wait for its model's turn. @return false: the queue is full, and that is the reply */
bool gs_request_move(gs_request *request);

#endif
