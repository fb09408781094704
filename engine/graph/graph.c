/* graph.c -- from a specification to a checked graph. */
#include "engine/graph/graph.h"

#include <assert.h>
#include <inttypes.h>

#include "engine/model/initializer.h"

static int no_memory(gd_error *error) {
    return gd_fail(error, GD_E_MEMORY, "no memory for the graph");
}

static const char *kind_name(const gd_kind *kind, bool is_module) {
    return is_module ? kind->module : kind->function;
}

/* "layer 'conv1' (Conv2d)" */
static const char *describe(const gd_layer *layer, char *text, size_t size) {
    snprintf(text, size, "layer '%s' (%s)", layer->name, kind_name(layer->kind, layer->is_module));
    return text;
}

/* Put the layer's name before a message that came from its op. */
static int in_layer(const gd_graph *graph, int index, gd_error *error, int code) {
    char text[GD_MAX_NAME * 2 + 32], message[sizeof error->message];
    if (error && error->code == code && error->layer < 0) {
        snprintf(message, sizeof message, "%s", error->message);
        snprintf(error->message, sizeof error->message, "%s: %.*s",
                 describe(&graph->layers[index], text, sizeof text),
                 (int)(sizeof error->message - sizeof text - 3), message);
    }
    return gd_at_layer(error, index, code);
}

gd_infer_param *gd_infer_param_add(gd_infer *infer, int decl, gd_shape shape) {
    assert(infer->param_count < GD_MAX_PARAMS);
    gd_infer_param *param = &infer->params[infer->param_count++];
    *param = (gd_infer_param){.decl = decl, .shape = shape};
    return param;
}

bool gd_value_is_output(const gd_graph *graph, int value) {
    for (int i = 0; i < graph->output_count; i++)
        if (graph->outputs[i] == value)
            return true;
    return false;
}

gd_shape gd_value_batched(const gd_graph_value *value, int64_t batch) {
    gd_shape shape = value->shape;
    if (value->axis >= 0)
        shape.dim[value->axis] = batch;
    return shape;
}

gd_shape gd_value_sample(const gd_graph_value *value) {
    gd_shape sample = value->shape;
    if (value->axis < 0)
        return sample;
    for (int i = value->axis; i + 1 < sample.rank; i++)
        sample.dim[i] = sample.dim[i + 1];
    sample.rank--;
    return sample;
}

static int check_output(const gd_shape *shape, gd_error *error) {
    size_t bytes;
    int code = gd_shape_bytes(shape, GD_FLOAT32, &bytes, error);
    if (!code && gd_numel(shape) == 0)
        code = gd_fail(error, GD_E_SHAPE, "its output would be empty");
    if (!code && gd_numel(shape) > INT32_MAX)
        code = gd_fail(error, GD_E_LIMIT, "its output would have over 2^31 elements; use a smaller batch");
    return code;
}

/* What an op asks for besides its outputs must be countable too: attributes alone can make it huge. */
static int check_rest(const gd_node *node, const gd_infer *infer, gd_error *error) {
    size_t bytes;
    int code = 0;
    for (int k = 0; !code && k < infer->param_count; k++) {
        const gd_shape *shape = &infer->params[k].shape;
        if (gd_shape_bytes(shape, GD_INT64, &bytes, NULL) || gd_numel(shape) > INT32_MAX)
            code = gd_fail(error, GD_E_LIMIT, "parameter '%s' would have over 2^31 elements",
                           node->op->kind.params[infer->params[k].decl].name);
    }
    for (int i = 0; !code && i < infer->saved_count; i++)
        code = gd_shape_bytes(&infer->saved[i].shape, infer->saved[i].dtype, &bytes, error);
    return code;
}

int gd_node_infer(const gd_graph *graph, int index, const gd_op *op, gd_shape *shapes, gd_infer *infer,
                  gd_error *error) {
    const gd_node *node = &graph->nodes[index];
    gd_shape inputs[GD_MAX_INPUTS];
    int axes[GD_MAX_INPUTS], axis = -1;
    for (int i = 0; i < node->input_count; i++) {
        inputs[i] = shapes[node->inputs[i]];
        axes[i] = graph->values[node->inputs[i]].axis;
        if (axis < 0)
            axis = axes[i];
    }
    *infer = (gd_infer){.attrs = node->attrs,
                        .inputs = inputs,
                        .input_axes = axes,
                        .input_count = node->input_count,
                        .output_count = node->output_count,
                        .error = error};
    for (int i = 0; i < node->output_count; i++)
        infer->axes[i] = axis;
    int code = op->infer(infer);
    for (int i = 0; !code && i < infer->output_count; i++) {
        code = check_output(&infer->outputs[i], error);
        shapes[node->first_output + i] = infer->outputs[i];
    }
    if (!code)
        code = check_rest(node, infer, error);
    infer->inputs = NULL;
    infer->input_axes = NULL;
    return code ? in_layer(graph, index, error, code) : 0;
}

int gd_node_check_training(const gd_graph *graph, int index, const gd_shape *inputs, gd_error *error) {
    const gd_op *op = graph->nodes[index].op;
    int code = op->check_training ? op->check_training(inputs, error) : 0;
    return code ? in_layer(graph, index, error, code) : 0;
}

/* ---- building, step by step ---------------------------------------------------------------------- */

static int copy_inputs(gd_graph *graph, const gd_graph_spec *spec, gd_error *error) {
    graph->input_count = (int)spec->input_count;
    if (spec->input_count < 1 || spec->input_count > GD_MAX_INPUTS)
        return gd_fail(error, GD_E_GRAPH, "a network needs 1 to %d inputs, not %zu", GD_MAX_INPUTS,
                       spec->input_count);
    if (!(graph->inputs = GD_ARENA_NEW(&graph->arena, gd_input_spec, spec->input_count)))
        return no_memory(error);
    for (int i = 0; i < graph->input_count; i++) {
        const gd_input_spec *input = &spec->inputs[i];
        size_t bytes;
        graph->inputs[i] = *input;
        if (!(graph->inputs[i].name = gd_arena_strdup(&graph->arena, input->name)))
            return no_memory(error);
        if (input->shape.rank >= GD_MAX_RANK)
            return gd_fail_field(error, GD_E_LIMIT, "shape",
                                 "input '%.64s' has %d axes; with the batch axis at most %d are possible",
                                 input->name, input->shape.rank, GD_MAX_RANK);
        int code = gd_shape_bytes(&input->shape, input->dtype, &bytes, error);
        if (code)
            return code;
        if (bytes == 0 || gd_numel(&input->shape) > INT32_MAX)
            return gd_fail_field(error, GD_E_SHAPE, "shape",
                                 "input '%.64s': every axis must have at least 1 element, and all together "
                                 "fewer than 2^31",
                                 input->name);
        for (int k = 0; k < i; k++)
            if (strcmp(graph->inputs[k].name, graph->inputs[i].name) == 0)
                return gd_fail(error, GD_E_GRAPH, "two inputs are called '%.64s'", input->name);
    }
    return 0;
}

/* A layer that shares takes the other's kind, attributes and, later, parameters. */
static int share_layer(gd_graph *graph, const gd_graph_spec *spec, int index, gd_error *error) {
    const gd_flat_layer *flat = &graph->flat.layers[index];
    gd_layer *layer = &graph->layers[index];
    gd_node *node = &graph->nodes[index];
    const gd_reference other = gd_refer(&graph->flat, spec, flat->block, flat->spec->shares);
    if (other.to != GD_REFERS_LAYER || other.index >= index)
        return gd_at_layer(
            error, index,
            gd_fail_field(error, GD_E_GRAPH, "shares",
                          "layer '%s' shares the parameters of '%.64s', but no layer before it "
                          "is called so",
                          flat->name, flat->spec->shares));
    if (flat->spec->field_count || strcmp(flat->spec->type, graph->flat.layers[other.index].spec->type) != 0)
        return gd_at_layer(error, index,
                           gd_fail_field(error, GD_E_GRAPH, "shares",
                                         "layer '%s' shares all of '%s': give it the same type, '%s', and no "
                                         "attributes",
                                         flat->name, graph->layers[other.index].name,
                                         graph->flat.layers[other.index].spec->type));
    *node = graph->nodes[other.index];
    node->shares = graph->nodes[other.index].shares >= 0 ? graph->nodes[other.index].shares : other.index;
    layer->kind = &node->op->kind;
    layer->attrs = node->attrs;
    return 0;
}

static int copy_layer(gd_graph *graph, const gd_graph_spec *spec, int index, gd_error *error) {
    const gd_layer_spec *given = graph->flat.layers[index].spec;
    gd_layer *layer = &graph->layers[index];
    gd_node *node = &graph->nodes[index];
    char text[GD_MAX_NAME * 2 + 32];
    int code;
    layer->name = graph->flat.layers[index].name;
    node->shares = -1;
    if (given->shares) {
        if ((code = share_layer(graph, spec, index, error)))
            return code;
    } else {
        if (!(layer->kind = gd_kind_find(GD_OPS, given->type, error)))
            return gd_at_layer(error, index, GD_E_UNKNOWN_KIND);
        layer->is_module = layer->kind->module && strcmp(layer->kind->module, given->type) == 0;
        node->op = (const gd_op *)layer->kind; /* a gd_op begins with its kind */
        layer->attrs = node->attrs = gd_arena_alloc(&graph->arena, 1, layer->kind->attr_size);
        if (!node->attrs)
            return no_memory(error);
        code = gd_attrs_parse(layer->kind, given->fields, given->field_count,
                              describe(layer, text, sizeof text), &graph->arena, node->attrs, error);
        if (code)
            return gd_at_layer(error, index, code);
    }
    node->output_count = node->op->outputs ? node->op->outputs(node->attrs) : 1;
    if (node->output_count < 1 || node->output_count > GD_MAX_OUTPUTS)
        return in_layer(graph, index, error,
                        gd_fail(error, GD_E_LIMIT, "it would have %d outputs; 1 to %d are possible",
                                node->output_count, GD_MAX_OUTPUTS));
    node->first_output = graph->value_count;
    graph->value_count += node->output_count;
    return 0;
}

/* The value that a layer's input, called `name`, stands for. */
static int find_value(const gd_graph *graph, int layer, gd_reference reference, const char *name,
                      int *ret_value, gd_error *error) {
    const char *reader = graph->layers[layer].name;
    if (reference.to == GD_REFERS_NOWHERE)
        return gd_at_layer(
            error, layer,
            gd_fail_field(error, GD_E_GRAPH, "inputs", "layer '%s' reads '%.80s', but there is no such %s%s",
                          reader, name, *name == '@' ? "input" : "layer",
                          *name == '@' ? "" : "; an input of the network is written with an @"));
    if (reference.to == GD_REFERS_INPUT)
        return *ret_value = reference.index, 0;
    const gd_node *node = &graph->nodes[reference.index];
    if (reference.output >= node->output_count)
        return gd_at_layer(error, layer,
                           gd_fail_field(error, GD_E_GRAPH, "inputs",
                                         "layer '%s' reads '%.80s', but layer '%s' has only %d output%s",
                                         reader, name, graph->layers[reference.index].name,
                                         node->output_count, node->output_count == 1 ? "" : "s"));
    *ret_value = node->first_output + reference.output;
    return 0;
}

/* A reference's name as seen from outside all blocks: "@input", "layer1.0.bn2", "lstm:1". */
static char *reference_name(gd_graph *graph, gd_reference reference) {
    char name[GD_MAX_NAME + 16];
    if (reference.to == GD_REFERS_INPUT)
        snprintf(name, sizeof name, "@%.*s", GD_MAX_NAME, graph->inputs[reference.index].name);
    else if (reference.output)
        snprintf(name, sizeof name, "%s:%d", graph->layers[reference.index].name, reference.output);
    else
        snprintf(name, sizeof name, "%s", graph->layers[reference.index].name);
    return gd_arena_strdup(&graph->arena, name);
}

static int wire_layer(gd_graph *graph, const gd_graph_spec *spec, int index, gd_error *error) {
    const gd_flat_layer *flat = &graph->flat.layers[index];
    gd_layer *layer = &graph->layers[index];
    gd_node *node = &graph->nodes[index];
    char text[GD_MAX_NAME * 2 + 32];
    const bool given = flat->spec->input_count > 0;
    const size_t count = given ? flat->spec->input_count : node->op->max_inputs > 0;
    if (count < (size_t)node->op->min_inputs || count > (size_t)node->op->max_inputs)
        return gd_at_layer(error, index,
                           gd_fail_field(error, GD_E_GRAPH, "inputs",
                                         "%s takes %d%s input%s, not %zu; name them in \"inputs\"",
                                         describe(layer, text, sizeof text), node->op->min_inputs,
                                         node->op->max_inputs > node->op->min_inputs ? " or more" : "",
                                         node->op->min_inputs == 1 ? "" : "s", count));
    int *values = GD_ARENA_NEW(&graph->arena, int, count);
    const char **names = GD_ARENA_NEW(&graph->arena, const char *, count);
    if (!values || !names)
        return no_memory(error);
    for (size_t i = 0; i < count; i++) {
        const gd_reference reference = given
                                           ? gd_refer(&graph->flat, spec, flat->block, flat->spec->inputs[i])
                                           : gd_refer_before(&graph->flat, spec, flat->block, flat->before);
        int code = find_value(graph, index, reference, given ? flat->spec->inputs[i] : "what comes before it",
                              &values[i], error);
        if (code)
            return code;
        if (!(names[i] = reference_name(graph, reference)))
            return no_memory(error);
        graph->values[values[i]].uses++;
    }
    node->inputs = values;
    node->input_count = (int)count;
    node->first_input = graph->edge_count;
    graph->edge_count += (int)count;
    layer->inputs = names;
    layer->input_count = count;
    return 0;
}

static int no_such_layer(const gd_graph *graph, const gd_output_spec *output, gd_error *error) {
    const char **names = calloc((size_t)graph->node_count, sizeof *names);
    if (!names)
        return no_memory(error);
    for (int n = 0; n < graph->node_count; n++)
        names[n] = graph->layers[n].name;
    const char *nearest = gd_nearest(output->layer, names, (size_t)graph->node_count);
    int code = gd_fail_field(error, GD_E_GRAPH, "outputs",
                             "output '%.64s' is that of layer '%.64s', but there is no such layer%s%s%s",
                             output->name, output->layer, nearest ? "; did you mean '" : "",
                             nearest ? nearest : "", nearest ? "'?" : "");
    free(names);
    return code;
}

/* One output of the network: the value it is, and what users see of it. */
static int wire_output(gd_graph *graph, const gd_graph_spec *spec, const gd_output_spec *output,
                       gd_error *error) {
    const gd_reference from = gd_refer(&graph->flat, spec, 0, output->layer);
    const int index = graph->output_count;
    gd_output *head = &graph->heads[index];
    if (!*output->name || strlen(output->name) >= GD_MAX_NAME)
        return gd_fail_field(error, GD_E_GRAPH, "outputs", "an output's name must have 1 to %d bytes",
                             GD_MAX_NAME - 1);
    for (int i = 0; i < index; i++)
        if (strcmp(graph->heads[i].name, output->name) == 0)
            return gd_fail_field(error, GD_E_GRAPH, "outputs", "two outputs are called '%.64s'",
                                 output->name);
    if (from.to != GD_REFERS_LAYER)
        return no_such_layer(graph, output, error);
    const gd_node *node = &graph->nodes[from.index];
    if (from.output >= node->output_count)
        return gd_fail_field(error, GD_E_GRAPH, "outputs",
                             "output '%.64s' is '%.80s', but layer '%s' has only %d output%s", output->name,
                             output->layer, graph->layers[from.index].name, node->output_count,
                             node->output_count == 1 ? "" : "s");
    head->name = gd_arena_strdup(&graph->arena, output->name);
    head->layer = reference_name(graph, from);
    if (!head->name || !head->layer)
        return no_memory(error);
    graph->outputs[graph->output_count++] = node->first_output + from.output;
    graph->values[node->first_output + from.output].uses++;
    return 0;
}

/* The outputs that the specification names, or else that of the last layer. */
static int wire_outputs(gd_graph *graph, const gd_graph_spec *spec, gd_error *error) {
    const gd_output_spec last = {"output", graph->layers[graph->flat.blocks[0].last].name};
    const gd_output_spec *outputs = spec->output_count ? spec->outputs : &last;
    const size_t count = spec->output_count ? spec->output_count : 1;
    graph->names_outputs = spec->output_count > 0;
    if (count > GD_MAX_HEADS)
        return gd_fail_field(error, GD_E_LIMIT, "outputs",
                             "the network has %zu outputs, at most %d are allowed", count, GD_MAX_HEADS);
    if (!(graph->heads = GD_ARENA_NEW(&graph->arena, gd_output, count)))
        return no_memory(error);
    for (size_t i = 0; i < count; i++) {
        int code = wire_output(graph, spec, &outputs[i], error);
        if (code)
            return code;
    }
    return 0;
}

/* Kahn's algorithm, always taking the first layer that is ready, so that the given order is kept where
 * it can be. */
static int sort_layers(gd_graph *graph, gd_error *error) {
    bool *done = GD_ARENA_NEW(&graph->arena, bool, (size_t)graph->value_count);
    if (!done)
        return no_memory(error);
    for (int i = 0; i < graph->input_count; i++)
        done[i] = true;
    int sorted = 0;
    for (bool progress = true; progress;) {
        progress = false;
        for (int n = 0; n < graph->node_count; n++) {
            const gd_node *node = &graph->nodes[n];
            bool ready = !done[node->first_output];
            for (int i = 0; ready && i < node->input_count; i++)
                ready = done[node->inputs[i]];
            if (!ready)
                continue;
            graph->order[sorted++] = n;
            for (int i = 0; i < node->output_count; i++)
                done[node->first_output + i] = true;
            progress = true;
        }
    }
    for (int n = 0; n < graph->node_count; n++)
        if (!done[graph->nodes[n].first_output])
            return gd_at_layer(error, n,
                               gd_fail_field(error, GD_E_GRAPH, "inputs",
                                             "layer '%s' is part of a cycle, or waits for one: following its "
                                             "inputs back never ends at an input of the network",
                                             graph->layers[n].name));
    return 0;
}

/* What an output's batch axis must be for the shapes to be those of a batch. */
static int check_axis(const gd_infer *infer, int output, int64_t batch, gd_error *error) {
    const int axis = infer->axes[output];
    if (axis < 0 || (axis < infer->outputs[output].rank && infer->outputs[output].dim[axis] == batch))
        return 0;
    return gd_fail(error, GD_E_SHAPE, "axis %d must stay the batch axis", axis);
}

/* Can samples be taken through this node a few at a time? */
static bool is_parallel(const gd_graph *graph, const gd_node *node, const gd_infer *infer) {
    bool any = false;
    if (!(node->op->flags & GD_BATCH) || infer->whole_batch)
        return false;
    for (int i = 0; i < node->input_count; i++) {
        const gd_graph_value *value = &graph->values[node->inputs[i]];
        if (value->axis > 0 || (value->axis < 0 && value->learnable))
            return false;
        any = any || value->axis == 0;
    }
    for (int i = 0; i < node->output_count; i++)
        any = any && infer->axes[i] == 0;
    return any;
}

static int check_dtypes(const gd_graph *graph, int n, gd_error *error) {
    const gd_node *node = &graph->nodes[n];
    for (int i = 0; i < node->input_count; i++) {
        const gd_dtype given = graph->values[node->inputs[i]].dtype;
        const gd_dtype wanted = node->op->index_inputs >> i & 1 ? GD_INT64 : GD_FLOAT32;
        if (given != wanted)
            return in_layer(graph, n, error,
                            gd_fail_field(error, GD_E_DTYPE, "inputs", "it takes %s, but '%.80s' holds %s",
                                          gd_dtype_name(wanted), graph->layers[n].inputs[i],
                                          gd_dtype_name(given)));
    }
    return 0;
}

/* Indices that are no input of the network, where a pass checks them, must be known to be small enough. */
static int check_computed_indices(const gd_graph *graph, int n, const gd_shape *shapes, gd_error *error) {
    const gd_node *node = &graph->nodes[n];
    gd_shape inputs[GD_MAX_INPUTS];
    for (int i = 0; i < node->input_count; i++)
        inputs[i] = shapes[node->inputs[i]];
    for (int i = 0; node->op->index_limit && i < node->input_count; i++) {
        const gd_graph_value *value = &graph->values[node->inputs[i]];
        if (!(node->op->index_inputs >> i & 1) || value->node < 0)
            continue;
        const int64_t limit = node->op->index_limit(node->attrs, inputs, i);
        if (!value->limit || value->limit > limit)
            return in_layer(graph, n, error,
                            gd_fail_field(error, GD_E_GRAPH, "inputs",
                                          "it takes the indices 0 ... %" PRId64 ", but '%.80s' may hold %s",
                                          limit - 1, graph->layers[n].inputs[i],
                                          value->limit ? "larger ones"
                                                       : "any; make them an input of the "
                                                         "network, where they are checked"));
    }
    return 0;
}

/* Infer every shape for a batch; what depends on the batch anywhere but on its axis is refused. */
static int infer_all(gd_graph *graph, int64_t batch, gd_error *error) {
    gd_infer infer;
    gd_shape *shapes = GD_ARENA_NEW(&graph->arena, gd_shape, (size_t)graph->value_count);
    if (!shapes)
        return no_memory(error);
    for (int i = 0; i < graph->input_count; i++)
        shapes[i] = gd_shape_batched(&graph->inputs[i].shape, batch);
    for (int i = 0; i < graph->node_count; i++) {
        const int n = graph->order[i];
        gd_node *node = &graph->nodes[n];
        int code = check_dtypes(graph, n, error);
        if (!code)
            code = gd_node_infer(graph, n, graph->nodes[n].op, shapes, &infer, error);
        if (!code)
            code = check_computed_indices(graph, n, shapes, error);
        if (code)
            return code;
        node->param_count = infer.param_count;
        node->parallel = is_parallel(graph, node, &infer);
        node->view = node->op->flags & GD_VIEW || infer.view;
        bool learnable = infer.param_count > 0;
        for (int k = 0; k < node->input_count; k++)
            learnable = learnable || graph->values[node->inputs[k]].learnable;
        for (int k = 0; k < node->output_count; k++) {
            gd_graph_value *value = &graph->values[node->first_output + k];
            if ((code = check_axis(&infer, k, batch, error)))
                return in_layer(graph, n, error, code);
            value->axis = infer.axes[k];
            value->dtype = infer.dtypes[k];
            value->limit = infer.limits[k];
            value->learnable = learnable;
            value->shape = shapes[node->first_output + k];
        }
    }
    return 0;
}

/* Parameters in the order of the layers given, as in a state_dict. */
static int declare_params(gd_graph *graph, gd_error *error) {
    gd_infer infer;
    gd_shape *shapes = GD_ARENA_NEW(&graph->arena, gd_shape, (size_t)graph->value_count);
    for (int n = 0; n < graph->node_count; n++) {
        gd_node *node = &graph->nodes[n];
        node->first_param = node->shares < 0 ? graph->param_count : graph->nodes[node->shares].first_param;
        graph->layers[n].first_param = (size_t)node->first_param;
        graph->layers[n].param_count = (size_t)node->param_count;
        graph->layers[n].output = gd_value_sample(&graph->values[node->first_output]);
        graph->param_count += node->shares < 0 ? node->param_count : 0;
    }
    graph->params = GD_ARENA_NEW(&graph->arena, gd_graph_param, (size_t)graph->param_count);
    if (!graph->params || !shapes)
        return no_memory(error);
    for (int v = 0; v < graph->value_count; v++)
        shapes[v] = graph->values[v].shape;
    for (int n = 0; n < graph->node_count; n++) {
        const gd_node *node = &graph->nodes[n];
        if (!node->param_count || node->shares >= 0)
            continue;
        int code = gd_node_infer(graph, n, node->op, shapes, &infer, error);
        if (code)
            return code;
        for (int k = 0; k < node->param_count; k++) {
            char name[2 * GD_MAX_NAME];
            const gd_param_decl *decl = &node->op->kind.params[infer.params[k].decl];
            snprintf(name, sizeof name, "%s.%s", graph->layers[n].name,
                     *infer.params[k].name ? infer.params[k].name : decl->name);
            graph->params[node->first_param + k] =
                (gd_graph_param){.decl = decl,
                                 .layer = n,
                                 .shape = infer.params[k].shape,
                                 .value = infer.params[k].value,
                                 .early = infer.params[k].early,
                                 .name = gd_arena_strdup(&graph->arena, name)};
            if (!graph->params[node->first_param + k].name)
                return no_memory(error);
        }
    }
    return 0;
}

/* Values exist once every layer's number of outputs is known. */
static int make_values(gd_graph *graph, gd_error *error) {
    graph->values = GD_ARENA_NEW(&graph->arena, gd_graph_value, (size_t)graph->value_count);
    if (!graph->values)
        return no_memory(error);
    for (int i = 0; i < graph->input_count; i++)
        graph->values[i] = (gd_graph_value){.node = -1,
                                            .dtype = graph->inputs[i].dtype,
                                            .shape = gd_shape_batched(&graph->inputs[i].shape, 2)};
    for (int n = 0; n < graph->node_count; n++)
        for (int k = 0; k < graph->nodes[n].output_count; k++)
            graph->values[graph->nodes[n].first_output + k] =
                (gd_graph_value){.node = n, .dtype = GD_FLOAT32};
    return 0;
}

/* An initialiser that the specification names for a parameter. */
static int choose_init(gd_graph *graph, int n, const gd_init_spec *spec, gd_error *error) {
    char what[2 * GD_MAX_NAME + 64];
    const gd_node *node = &graph->nodes[n];
    const size_t prefix = strlen(graph->layers[n].name) + 1;
    gd_graph_param *param = NULL;
    for (int p = node->first_param; p < node->first_param + node->param_count && !param; p++)
        if (strcmp(graph->params[p].name + prefix, spec->param) == 0)
            param = &graph->params[p];
    if (!param || param->decl->dtype != GD_FLOAT32)
        return gd_fail_field(error, GD_E_ATTRIBUTE, "init", "it has no parameter '%.64s' to initialise",
                             spec->param);
    const gd_kind *kind = gd_kind_find(GD_INITIALIZERS, spec->init.type, error);
    if (!kind)
        return GD_E_UNKNOWN_KIND;
    param->init = (const gd_initializer *)kind; /* a gd_initializer begins with its kind */
    param->init_attrs = gd_arena_alloc(&graph->arena, 1, kind->attr_size);
    if (!param->init_attrs)
        return no_memory(error);
    snprintf(what, sizeof what, "%s of '%s'", kind->function, param->name);
    int code = gd_attrs_parse(kind, spec->init.fields, spec->init.field_count, what, &graph->arena,
                              param->init_attrs, error);
    if (!code && param->init->check)
        code = param->init->check(param->init_attrs, &param->shape, error);
    return code;
}

static int choose_inits(gd_graph *graph, gd_error *error) {
    for (int n = 0; n < graph->node_count; n++) {
        const gd_layer_spec *spec = graph->flat.layers[n].spec;
        int code = 0;
        if (graph->nodes[n].shares >= 0 && (spec->init_count || spec->frozen))
            code = gd_fail_field(error, GD_E_GRAPH, spec->init_count ? "init" : "requires_grad",
                                 "its parameters belong to another layer; say it there");
        for (size_t i = 0; !code && i < spec->init_count; i++)
            code = choose_init(graph, n, &spec->inits[i], error);
        if (code)
            return in_layer(graph, n, error, code);
    }
    return 0;
}

/* The specification goes away; what repr needs of it stays. */
static int own_blocks(gd_graph *graph, gd_error *error) {
    for (int b = 0; b < graph->flat.block_count; b++) {
        gd_block_layer *block = &graph->flat.blocks[b];
        if (!(block->class_name = gd_arena_strdup(&graph->arena, block->class_name)))
            return no_memory(error);
        block->inputs = NULL;
    }
    for (int n = 0; n < graph->node_count; n++)
        graph->flat.layers[n].spec = NULL;
    return 0;
}

static int build(gd_graph *graph, const gd_graph_spec *spec, gd_error *error) {
    int code = copy_inputs(graph, spec, error);
    if (code || (code = gd_flatten(spec, &graph->arena, &graph->flat, error)))
        return code;
    const size_t layers = (size_t)graph->flat.layer_count;
    graph->node_count = graph->flat.layer_count;
    graph->value_count = graph->input_count;
    graph->layers = GD_ARENA_NEW(&graph->arena, gd_layer, layers);
    graph->nodes = GD_ARENA_NEW(&graph->arena, gd_node, layers);
    graph->order = GD_ARENA_NEW(&graph->arena, int, layers);
    if (!graph->layers || !graph->nodes || !graph->order)
        return no_memory(error);
    for (int n = 0; n < graph->node_count; n++)
        if ((code = copy_layer(graph, spec, n, error)))
            return code;
    if ((code = make_values(graph, error)))
        return code;
    for (int n = 0; n < graph->node_count; n++)
        if ((code = wire_layer(graph, spec, n, error)))
            return code;
    if ((code = wire_outputs(graph, spec, error)) || (code = sort_layers(graph, error)))
        return code;
    /* Two batch sizes, so that a shape that happens to fit one is found out. */
    if ((code = infer_all(graph, 3, error)) || (code = infer_all(graph, 2, error)))
        return code;
    if ((code = declare_params(graph, error)) || (code = choose_inits(graph, error)))
        return code;
    for (int i = 0; i < graph->output_count; i++) {
        const gd_graph_value *value = &graph->values[graph->outputs[i]];
        graph->heads[i].dtype = value->dtype;
        graph->heads[i].shape = gd_value_sample(value);
    }
    return own_blocks(graph, error);
}

int gd_graph_new(const gd_graph_spec *spec, gd_graph **ret_graph, gd_error *error) {
    gd_graph *graph = calloc(1, sizeof *graph);
    if (!graph)
        return no_memory(error);
    atomic_init(&graph->references, 1);
    int code = build(graph, spec, error);
    if (code && error && error->layer >= 0 && error->layer < graph->node_count && !*error->path)
        snprintf(error->path, sizeof error->path, "%s", graph->flat.layers[error->layer].path);
    if (code)
        gd_graph_unref(graph);
    else
        *ret_graph = graph;
    return code;
}

gd_graph *gd_graph_ref(gd_graph *graph) {
    atomic_fetch_add(&graph->references, 1);
    return graph;
}

void gd_graph_unref(gd_graph *graph) {
    if (!graph || atomic_fetch_sub(&graph->references, 1) > 1)
        return;
    gd_arena_release(&graph->arena);
    free(graph);
}

/* ---- looking at it ------------------------------------------------------------------------------- */

const char *gd_graph_class_name(const gd_graph *graph) {
    return graph->flat.blocks[0].class_name;
}

size_t gd_graph_input_count(const gd_graph *graph) {
    return (size_t)graph->input_count;
}

const gd_input_spec *gd_graph_input(const gd_graph *graph, size_t index) {
    return index < (size_t)graph->input_count ? &graph->inputs[index] : NULL;
}

size_t gd_graph_layer_count(const gd_graph *graph) {
    return (size_t)graph->node_count;
}

const gd_layer *gd_graph_layer(const gd_graph *graph, size_t index) {
    return index < (size_t)graph->node_count ? &graph->layers[index] : NULL;
}

size_t gd_graph_output_count(const gd_graph *graph) {
    return (size_t)graph->output_count;
}

const gd_output *gd_graph_output(const gd_graph *graph, size_t index) {
    return index < (size_t)graph->output_count ? &graph->heads[index] : NULL;
}

bool gd_graph_names_outputs(const gd_graph *graph) {
    return graph->names_outputs;
}

const char *gd_graph_parameter_name(const gd_graph *graph, size_t index) {
    return index < (size_t)graph->param_count ? graph->params[index].name : NULL;
}

/* A name without those of the blocks around it. */
static const char *local_name(const char *name, const char *block) {
    return *block ? name + strlen(block) + 1 : name;
}

/* Printing: how deep, and whether the block being printed has shown anything yet. */
typedef struct printer {
    FILE *out;
    int depth;
    bool any[GD_MAX_BLOCKS + 2];
} printer;

static void begin_line(printer *p, const char *name) {
    fprintf(p->out, "\n%*s(%s): ", 2 * (p->depth + 1), "", name);
    p->any[p->depth] = true;
}

static void end_block(printer *p) {
    if (p->any[p->depth])
        fprintf(p->out, "\n%*s", 2 * p->depth, "");
    fputc(')', p->out);
    p->depth--;
}

static void print_layer(printer *p, const gd_graph *graph, int index) {
    const gd_layer *layer = &graph->layers[index];
    const gd_op *op = graph->nodes[index].op;
    if (!layer->is_module)
        return;
    begin_line(p, local_name(layer->name, graph->flat.blocks[graph->flat.layers[index].block].name));
    fprintf(p->out, "%s(", layer->kind->module);
    if (op->repr)
        op->repr(p->out, layer->attrs);
    if (op->repr_children && op->repr_children(p->out, layer->attrs, 2 * (p->depth + 2)))
        fprintf(p->out, "\n%*s", 2 * (p->depth + 1), "");
    fputc(')', p->out);
}

static void print_graph(printer *p, const gd_graph *graph) {
    fprintf(p->out, "%s(", graph->flat.blocks[0].class_name);
    for (int e = 0; e < graph->flat.entry_count; e++) {
        const gd_entry *entry = &graph->flat.entries[e];
        const gd_block_layer *block = &graph->flat.blocks[entry->kind == GD_ENTRY_LAYER ? 0 : entry->index];
        switch (entry->kind) {
        case GD_ENTRY_LAYER:
            print_layer(p, graph, entry->index);
            break;
        case GD_ENTRY_OPEN:
            begin_line(p, local_name(block->name, graph->flat.blocks[block->parent].name));
            fprintf(p->out, "%s(", block->class_name);
            p->any[++p->depth] = false;
            break;
        case GD_ENTRY_CLOSE:
            end_block(p);
            break;
        }
    }
    end_block(p);
}

char *gd_graph_repr(const gd_graph *graph) {
    char *text = NULL;
    size_t size;
    printer p = {.out = open_memstream(&text, &size)};
    if (!p.out)
        return NULL;
    print_graph(&p, graph);
    if (fclose(p.out)) {
        free(text);
        return NULL;
    }
    return text;
}
