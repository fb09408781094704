/* idempotency.h -- the keys of requests that changed something, with their first replies: the same request
 * with the same key gets the reply again, and nothing is done twice. A key is durable if and only if what
 * its request did is: it is committed with the request's effects or, of a step on a model, with the model's
 * next checkpoint. Any thread may call everything here, but where it says otherwise. */
#ifndef GRADD_SERVER_IDEMPOTENCY_H
#define GRADD_SERVER_IDEMPOTENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store.h"

typedef struct gs_idempotency gs_idempotency;
typedef struct gs_key gs_key;
typedef struct gs_fingerprint gs_fingerprint; /* of a body, as far as it has come */
typedef struct gs_request gs_request;

enum { GS_MAX_KEPT_REPLY = 1 << 20 /* bytes; of a larger one it is only known that it was given */ };

/** @param keys   how many are remembered, for a day; the oldest are forgotten first
 *  @param memory bytes of their replies; those of the oldest are dropped first
 *  @return NULL: no memory */
gs_idempotency *gs_idempotency_new(size_t keys, size_t memory);
/** Remember what the store has, and forget there what is too old. At start. @return 0; -1 */
int gs_idempotency_load(gs_idempotency *table, gs_store *store, gp_error *error);
/** NULL is fine. */
void gs_idempotency_free(gs_idempotency *table);

/* ---- a request's way -------------------------------------------------------------------------------- */

/** A piece of its body has come, and is not part of request->body yet. Of a long one the fingerprint is taken
 * piece by piece, while the bytes are in the cache, but for the last MB: request->fingerprint, which is
 * malloc()ed. Loop thread. */
void gs_idempotency_receive(gs_request *request, const char *bytes, size_t size);
/** Before a request runs. @return whether it may. If not, it has its reply, the first one's, or
 * request->error (409, 422, 507) */
bool gs_idempotency_claim(gs_request *request);
/** On the store's thread, in the transaction of the request's effects. */
int gs_idempotency_write(gs_store *store, gs_request *request, gp_error *error);
/** It went well: keep the reply. */
void gs_idempotency_keep(gs_request *request);
/** It failed, and changed nothing: the key is free again. */
void gs_idempotency_drop(gs_request *request);
/** Its reply has gone out. Until then a request with a key keeps its body, by which another one with the same
 *  key is told from a second try. */
void gs_idempotency_end(const gs_request *request);

/* ---- steps, whose effects become durable with a checkpoint -------------------------------------------- */

/**
 * Write the keys of a model's steps that a checkpoint has the effects of and that are not written yet. On the
 * store's thread, in the checkpoint's transaction. Afterwards call gs_idempotency_settle() with the same
 * version.
 *
 * @param version the model's (gd_model_version()) in the checkpoint
 */
int gs_idempotency_save(gs_idempotency *table, gs_store *store, uint64_t model, uint64_t version,
                        gp_error *error);
/** After that transaction. */
void gs_idempotency_settle(gs_idempotency *table, uint64_t model, uint64_t version, bool committed);
/** A model goes on from an older version than it had, or (version 0) is deleted: forget the keys of later
 *  steps. In the store they go with the model's row, or by gs_idempotency_cut(). */
void gs_idempotency_forget(gs_idempotency *table, uint64_t model, uint64_t version);
/** The same in the store; on its thread. */
int gs_idempotency_cut(gs_store *store, uint64_t model, uint64_t version, gp_error *error);

#endif
