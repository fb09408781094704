/* graph.c -- the autograd graph as JSON and as DOT. */
#include <stdlib.h>

#include "batch.h"
#include "handlers.h"

static void add_json(gp_text *text, const gd_grad_node *nodes, size_t count) {
    gp_text_add(text, "{\"nodes\":[");
    for (size_t i = 0; i < count; i++) {
        gp_text_add(text, "%s{\"id\":%zu,\"name\":", i ? "," : "", i);
        gp_json_write_string(text, nodes[i].name);
        gp_text_add(text, ",\"layer\":");
        gp_json_write_string(text, nodes[i].layer ? nodes[i].layer : "");
        gp_text_add(text, ",\"next\":[");
        for (int n = 0; n < nodes[i].next_count; n++) {
            gp_text_append(text, ",", n > 0);
            if (nodes[i].next[n] < 0) {
                gp_text_add(text, "null"); /* what needs no gradient: torch's None */
            } else {
                gp_text_add(text, "%d", nodes[i].next[n]);
            }
        }
        gp_text_add(text, "]}");
    }
    gp_text_add(text, "]}");
}

/* Names of layers and ops have no character that DOT's strings would need escaped but the quote and the
 * backslash, which JSON's escaping takes care of. */
static void add_dot(gp_text *text, const gd_grad_node *nodes, size_t count) {
    gp_text_add(text, "digraph autograd {\n  node [shape=box];\n");
    for (size_t i = 0; i < count; i++) {
        gp_text_add(text, "  n%zu [label=", i);
        gp_json_write_string(text, nodes[i].name);
        if (nodes[i].layer && *nodes[i].layer) {
            gp_text_add(text, ", xlabel=");
            gp_json_write_string(text, nodes[i].layer);
        }
        gp_text_add(text, "];\n");
    }
    for (size_t i = 0; i < count; i++) {
        for (int n = 0; n < nodes[i].next_count; n++) {
            if (nodes[i].next[n] >= 0) {
                gp_text_add(text, "  n%zu -> n%d;\n", i, nodes[i].next[n]);
            }
        }
    }
    gp_text_add(text, "}\n");
}

int gs_handle_graph(gs_request *request, gp_error *error) {
    gd_grad_node *nodes = NULL;
    size_t count;
    gd_error cause = GD_ERROR_INIT;
    gp_text text = {0};
    if (gd_model_walk(request->model->model, &nodes, &count, &cause)) {
        return gs_fail_run(error, &cause);
    }
    (request->accept == GS_MEDIA_DOT ? add_dot : add_json)(&text, nodes, count);
    free(nodes);
    return gs_reply_text(request, 200, request->accept, &text, error);
}
