/* models.h -- the models that the daemon hosts: name to model, counted references, history. */
#ifndef GRADD_SERVER_MODELS_H
#define GRADD_SERVER_MODELS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "buffer.h"
#include "engine/gradd_engine.h"
#include "executor.h"
#include "history.h"
#include "proto/gradd_proto.h"

typedef struct gs_models gs_models;
typedef struct gs_server gs_server;

enum { GS_MAX_HELD = GD_MAX_INPUTS + GD_MAX_HEADS /* as many as targets, or more */ };

/** Buffers that tensors point into. */
typedef struct gs_hold {
    gs_buffer *buffers[GS_MAX_HELD];
    size_t count;
} gs_hold;
/** Drop the references. */
void gs_hold_release(gs_hold *hold);

/** What GET /v1/models shows of a model without waiting for its turn. */
typedef struct gs_summary {
    uint64_t version;
    int64_t step;
    int64_t numel; /* of all parameters */
    size_t parameters;
    size_t memory;
    bool training;
} gs_summary;

/** What GET /v1/models/{m} shows, kept as text: members of one object, without its braces. */
typedef struct gs_document {
    gp_text identity, structure; /* of this graph for ever; empty: none yet */
    gp_text settings;            /* as of `version` */
    uint64_t version;
} gs_document;
/** Forget it: the graph is another one. */
void gs_document_clear(gs_document *document);

/** How much of a model is on the disk. */
typedef struct gs_saved {
    atomic_uint_fast64_t version; /* in its newest checkpoint, or 0: as its definition makes it */
    atomic_uint_fast64_t metrics; /* sequence number up to which they are in the store */
    atomic_bool busy;             /* an autosave is on its way */
    gs_errand errand;             /* that takes it */
    int64_t changed_us; /* since when there is something to save; 0: there is nothing. Loop thread */
    /* under the model's lock: metrics past a step have gone in memory, and are to be cut in the store by the
     * next checkpoint; counted, so that it is known which one has done it */
    bool cut;
    int64_t cut_step;
    uint64_t cuts;
} gs_saved;

/** A hosted model. Its gd_model, definition, holds, document and last_loss belong to whoever has its turn in
 * `queue`. */
typedef struct gs_hosted {
    atomic_int references;
    gs_models *models;
    uint64_t id; /* of its row in the store; never used twice */
    char name[65];
    char class_name[GD_MAX_NAME];
    uint64_t seed;
    int64_t created_ms;
    gd_model *model;
    char *definition; /* JSON text (definition.h) */
    gs_queue queue;
    atomic_bool deleted;
    atomic_int_fast64_t job; /* that trains it: nobody else may change it meanwhile. 0: none */
    int64_t began;           /* the last job that began to, or to go on; in the model's turn */
    gs_saved saved;
    gs_hold inputs; /* what the kept graph reads in place */
    gs_hold target;
    gs_document document;
    double last_loss;     /* of the last loss or forward_backward; NaN before */
    int64_t last_step_us; /* gs_clock_us() of the last step; 0: none yet */
    gs_history history;
    pthread_mutex_t lock; /* guards summary, and of saved what is said there */
    gs_summary summary;
} gs_hosted;

struct gs_models {
    pthread_mutex_t lock; /* guards items and count */
    gs_hosted **items;    /* sorted by name */
    size_t count, limit;
    gs_server *server;
    atomic_uint_fast64_t last_id, last_checkpoint; /* that were given */
    uint64_t boot;  /* tells the ETags of one run of the daemon from another's */
    gs_budget kept; /* bodies that kept graphs read in place: part of --max-memory */
    gs_executor *executor;
    gs_history_limits history; /* of each model */
};

int gs_models_init(gs_models *models, gs_executor *executor, size_t limit, size_t memory_limit);
/** Drops every model. */
void gs_models_release(gs_models *models);

/** Would a model of this name find room? @return 0; -1: 409, 429 */
int gs_models_check(gs_models *models, const char *name, gp_error *error);
/** A model that is not hosted yet, with one reference; takes over `model` and `definition` (malloc()ed).
 *  NULL (no memory): it does not. @param id 0: a new one */
gs_hosted *gs_hosted_new(gs_models *models, uint64_t id, const char *name, gd_model *model, char *definition,
                         uint64_t seed);
/** Host it: from here on others may use it. The table takes a reference.
 *  @return 0; -1: 409 the name is taken, 429 too many */
int gs_models_add(gs_models *models, gs_hosted *hosted, gp_error *error);
/** A reference on the model of this name, or NULL. */
gs_hosted *gs_models_find(gs_models *models, const char *name);
/** Forget the name; the model lives on until its references are gone. */
void gs_models_remove(gs_models *models, gs_hosted *hosted);
/** Up to `max` models whose names follow `after`, by name, with a reference each. */
size_t gs_models_list(gs_models *models, const char *after, gs_hosted **ret_hosted, size_t max);
size_t gs_models_count(gs_models *models);
/** Bytes of all models' metrics. */
size_t gs_models_history_memory(gs_models *models);

void gs_hosted_ref(gs_hosted *hosted);
void gs_hosted_unref(gs_hosted *hosted);
/** Record a step that was taken in the model's history. By whoever has the model's turn. */
void gs_hosted_record(gs_hosted *hosted, const gd_step_result *result);
/** Publish what the summary shows. By whoever has the model's turn. */
void gs_hosted_publish(gs_hosted *hosted);
gs_summary gs_hosted_summary(gs_hosted *hosted);
/** Bytes held: slabs, arenas, and bodies that the kept graph reads. */
size_t gs_hosted_memory(const gs_hosted *hosted);
/** The model's ETag, with quotes. */
void gs_hosted_etag(const gs_hosted *hosted, char *text, size_t size);
/** A parameter's. */
void gs_parameter_etag(const gs_hosted *hosted, size_t index, char *text, size_t size);
/** Is there room for so many bytes more in --max-memory, beside what all models hold? */
bool gs_models_have_room(const gs_models *models, size_t size);
/** Count a body against --max-memory before a graph is let to keep it. @return 0; -1: 507 */
int gs_hosted_charge(gs_hosted *hosted, const gs_hold *hold, gp_error *error);

#endif
