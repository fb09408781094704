/* change.h -- a change of a model that is durable before its reply: an autosave goes with it; and if that
 * cannot be committed, the model is what it was. */
#ifndef GRADD_SERVER_CHANGE_H
#define GRADD_SERVER_CHANGE_H

#include "server/checkpoints.h"
#include "server/request.h"

/** How to take a change back. */
typedef struct gs_change {
    gs_hosted *hosted;
    gs_snapshot *before; /* NULL: nothing outlives the daemon, so nothing can fail */
} gs_change;

/** Before the change. Then one of those below. @return 0; -1: GP_OUT_OF_MEMORY */
int gs_change_begin(gs_hosted *hosted, gs_change *ret_change, gp_error *error);
/** There was none. */
void gs_change_drop(gs_change *change);
/** Take it back. */
void gs_change_undo(gs_change *change);
/** Add what makes it durable to the request's effects. */
int gs_change_commit(gs_request *request, gs_change *change, gp_error *error);
/** The same where the model was brought back to an earlier state: metrics past that go with it. */
int gs_change_commit_restored(gs_request *request, gs_change *change, gp_error *error);

#endif
