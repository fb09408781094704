/* change.c */
#include "change.h"

#include <stdlib.h>

static const gs_snapshot_spec autosave = {.kind = GS_CHECKPOINT_AUTOSAVE, .keep = GS_KEEP_AUTOSAVES};

int gs_change_begin(gs_hosted *hosted, gs_change *ret_change, gp_error *error) {
    *ret_change = (gs_change){.hosted = hosted};
    return hosted->models->server->config.ephemeral
               ? 0
               : gs_snapshot_take(hosted, &autosave, &ret_change->before, error);
}

void gs_change_drop(gs_change *change) {
    gs_snapshot_free(change->before);
    change->before = NULL;
}

void gs_change_undo(gs_change *change) {
    gp_error error = {0};
    if (change->before && gs_snapshot_put_back(change->before, &error)) {
        gs_log_event(&change->hosted->models->server->log, GS_ERROR, "change not taken back",
                     GS_S("model", change->hosted->name), GS_S("reason", error.detail));
    }
    gs_change_drop(change);
}

static int write_definition(gs_store *store, void *argument, gp_error *error) {
    const gs_change *change = argument;
    return gs_sql(store, error, "UPDATE models SET definition = ? WHERE id = ?", "si",
                  change->hosted->definition, (int64_t)change->hosted->id);
}

static void settle(void *argument, bool committed) {
    gs_change *change = argument;
    if (committed) {
        gs_change_drop(change);
    } else {
        gs_change_undo(change);
    }
    free(change);
}

static int commit(gs_request *request, gs_change *change, bool restored, gp_error *error) {
    gs_snapshot *after = NULL;
    if (!change->before) {
        if (restored) {
            gs_history_cut(&change->hosted->history, gd_model_steps(change->hosted->model));
        }
        return 0;
    }
    gs_change *kept = malloc(sizeof *kept);
    if (!kept || gs_snapshot_take(change->hosted, &autosave, &after, error)) {
        free(kept);
        gs_change_undo(change);
        return error->problem ? -1 : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    *kept = *change;
    if (restored) {
        gs_snapshot_cuts_metrics(after);
    }
    const gs_effect undo = {.write = write_definition, .settle = settle, .argument = kept};
    if (gs_effect_add(request, undo, error)) {
        gs_snapshot_free(after);
        return -1;
    }
    return gs_effect_add(request, gs_snapshot_effect(after), error);
}

int gs_change_commit(gs_request *request, gs_change *change, gp_error *error) {
    return commit(request, change, false, error);
}

int gs_change_commit_restored(gs_request *request, gs_change *change, gp_error *error) {
    return commit(request, change, true, error);
}
