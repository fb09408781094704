/* effect.c */
#include "effect.h"

#include "idempotency.h"
#include "request.h"

int gs_effect_add(gs_request *request, gs_effect effect, gp_error *error) {
    if (request->effect_count == GS_MAX_EFFECTS) {
        if (effect.settle) {
            effect.settle(effect.argument, false);
        }
        return gp_fail(error, GP_INTERNAL, "", "a request has more than %d effects", GS_MAX_EFFECTS);
    }
    request->effects[request->effect_count++] = effect;
    return 0;
}

/* All of it, or nothing. */
static int write_all(gs_store *store, void *argument, gp_error *error) {
    gs_request *request = argument;
    for (size_t i = 0; i < request->effect_count; i++) {
        const gs_effect *effect = &request->effects[i];
        if (effect->write && effect->write(store, effect->argument, error)) {
            return -1;
        }
    }
    return gs_idempotency_write(store, request, error);
}

void gs_effects_end(gs_request *request) {
    gp_error *error = &request->error;
    if (!request->effect_count) {
        return;
    }
    bool committed = !error->problem && !gs_store_do(request->server->store, write_all, request, error);
    while (request->effect_count) {
        const gs_effect *effect = &request->effects[--request->effect_count];
        if (effect->settle) {
            effect->settle(effect->argument, committed);
        }
    }
    request->durable = committed;
}
