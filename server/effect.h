/* effect.h -- what a request makes durable. A handler changes memory in a way that can be taken back, fills
 * in the reply, and adds an effect for each thing that must outlive the daemon; they are written together,
 * and with the request's idempotency key, in one transaction, before the reply goes out. */
#ifndef GRADD_SERVER_EFFECT_H
#define GRADD_SERVER_EFFECT_H

#include <stdbool.h>

#include "proto/gradd_codec.h"
#include "store.h"

typedef struct gs_request gs_request;

enum { GS_MAX_EFFECTS = 4 /* of one request */ };

typedef struct gs_effect {
    /** On the store's thread, inside the transaction. NULL: nothing. @return 0; -1: nothing is committed */
    int (*write)(gs_store *store, void *argument, gp_error *error);
    /** Then, on the request's own thread, the last effect first: it is on the disk, or must be taken back in
     *  memory. Frees the argument. NULL: nothing. */
    void (*settle)(void *argument, bool committed);
    void *argument;
} gs_effect;

/** For handlers, whose route must have GS_DURABLE. @return 0; -1: there are GS_MAX_EFFECTS (the effect has
 * been taken back) */
int gs_effect_add(gs_request *request, gs_effect effect, gp_error *error);
/** After the handler: commit the effects and settle them, or, when request->error is set, take them back.
 *  request->error is set if they cannot be committed. */
void gs_effects_end(gs_request *request);

#endif
