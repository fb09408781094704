/* definition.c */
#include "definition.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT = JSON_COMPACT | JSON_REAL_PRECISION(17) /* every double survives */ };

int gs_model_build(gd_engine *engine, const gp_model *read, gd_model **ret_model, gp_error *error) {
    gd_error cause = GD_ERROR_INIT;
    gd_graph *graph = NULL;
    int result = gd_graph_new(&read->graph, &graph, &cause);
    if (!result) {
        result = gd_model_new(engine, graph, &read->config, ret_model, &cause);
    }
    gd_graph_unref(graph);
    return result ? gp_fail_engine(error, &cause, "") : 0;
}

int gs_definition_build(gd_engine *engine, const char *definition, gd_model **ret_model, uint64_t *ret_seed,
                        gp_error *error) {
    json_t *json = NULL;
    gp_model read;
    int result = -1;
    if (!gp_json_read(definition, strlen(definition), NULL, 0, &json, error) &&
        !gp_model_read(json, &read, error)) {
        result = gs_model_build(engine, &read, ret_model, error);
        *ret_seed = read.config.seed;
        gp_model_release(&read);
    }
    json_decref(json);
    return result;
}

char *gs_definition_text(json_t *definition, const char *name) {
    json_t *copy = json_copy(definition); /* not of what is in it */
    char *text = NULL;
    if (copy && (!name || !json_object_set_new(copy, "name", json_string(name)))) {
        text = json_dumps(copy, TEXT);
    }
    json_decref(copy);
    return text;
}

json_t *gs_definition_json(const char *definition) {
    json_t *json = NULL;
    return gp_json_read(definition, strlen(definition), NULL, 0, &json, NULL) ? NULL : json;
}

char *gs_definition_patched(const char *definition, json_t *patch, bool merges) {
    static const char *const members[] = {"loss", "optimizer", "scheduler"};
    json_t *json = gs_definition_json(definition);
    bool complete = json;
    for (size_t i = 0; complete && i < sizeof members / sizeof *members; i++) {
        json_t *changed = json_object_get(patch, members[i]), *is = json_object_get(json, members[i]);
        if (i == 1 && merges && json_is_object(is) && json_is_object(changed)) {
            complete = !json_object_update(is, changed);
        } else if (changed) {
            complete = !json_object_set(json, members[i], changed);
        }
    }
    char *text = complete ? json_dumps(json, TEXT) : NULL;
    json_decref(json);
    return text;
}
