/* composite.c -- layers that stand for several: replaced by blocks before a network is laid open. */
#include "engine/graph/blocks.h"

static int no_memory(gd_error *error) {
    gd_fail(error, GD_E_MEMORY, "no memory for the graph");
    return GD_E_MEMORY;
}

gd_layer_spec *gd_expansion_add(gd_expansion *e, const char *type, const char *name,
                                const char *const *inputs, const gd_field *fields, size_t field_count) {
    size_t input_count = 0;
    while (inputs && inputs[input_count])
        input_count++;
    const char **names = GD_ARENA_NEW(e->arena, const char *, input_count);
    gd_field *copies = GD_ARENA_NEW(e->arena, gd_field, field_count);
    if (e->count == e->capacity) {
        const size_t capacity = e->capacity ? 2 * e->capacity : 16;
        gd_layer_spec *grown = GD_ARENA_NEW(e->arena, gd_layer_spec, capacity);
        if (grown && e->count)
            memcpy(grown, e->layers, e->count * sizeof *grown);
        e->layers = grown ? grown : e->layers;
        e->capacity = grown ? capacity : e->capacity;
    }
    if (!names || !copies || e->count == e->capacity) {
        e->failed = true;
        return &e->spare;
    }
    if (input_count)
        memcpy(names, inputs, input_count * sizeof *names);
    if (field_count)
        memcpy(copies, fields, field_count * sizeof *copies);
    gd_layer_spec *layer = &e->layers[e->count++];
    *layer = (gd_layer_spec){.type = type,
                             .name = name,
                             .inputs = names,
                             .input_count = input_count,
                             .fields = copies,
                             .field_count = field_count};
    return layer;
}

/* The composite of that name; NULL: it is none (and perhaps nothing at all, which is found out later). */
static const gd_op *composite_of(const char *type) {
    const gd_kind *kind = gd_kind_find(GD_OPS, type, NULL);
    const gd_op *op = (const gd_op *)kind; /* a gd_op begins with its kind */
    return op && op->expand ? op : NULL;
}

static int expand(gd_layer_spec *layer, const gd_op *op, gd_arena *arena, gd_error *error) {
    char what[GD_MAX_NAME + 64];
    void *attrs = gd_arena_alloc(arena, 1, op->kind.attr_size);
    gd_expansion expansion = {.arena = arena};
    if (!attrs)
        return no_memory(error);
    snprintf(what, sizeof what, "layer '%.100s' (%s)", layer->name ? layer->name : "", op->kind.module);
    int code = gd_attrs_parse(&op->kind, layer->fields, layer->field_count, what, arena, attrs, error);
    if (!code)
        code = op->expand(attrs, &expansion, error);
    if (code)
        return code;
    if (expansion.failed)
        return no_memory(error);
    layer->fields = NULL;
    layer->field_count = 0;
    layer->layers = expansion.layers;
    layer->layer_count = expansion.count;
    layer->output = expansion.output;
    layer->opaque = true;
    return 0;
}

int gd_open_composites(const gd_layer_spec *layers, size_t count, int depth, const char *path,
                       gd_arena *arena, const gd_layer_spec **ret_layers, gd_error *error) {
    if (depth > GD_MAX_BLOCKS)
        return gd_fail(error, GD_E_LIMIT, "blocks are nested more than %d deep", GD_MAX_BLOCKS);
    if (count > GD_MAX_LAYERS)
        return gd_fail(error, GD_E_LIMIT, "a network has at most %d layers", GD_MAX_LAYERS);
    gd_layer_spec *copies = GD_ARENA_NEW(arena, gd_layer_spec, count);
    if (!copies)
        return no_memory(error);
    for (size_t i = 0; i < count; i++) {
        char here[GD_PATH];
        copies[i] = layers[i];
        const gd_op *op = layers[i].layers ? NULL : composite_of(layers[i].type);
        snprintf(here, sizeof here, "%s/layers/%zu", path, i);
        int code = op ? expand(&copies[i], op, arena, error) : 0;
        if (code && error && !*error->path)
            snprintf(error->path, sizeof error->path, "%s", here);
        if (!code && copies[i].layers)
            code = gd_open_composites(copies[i].layers, copies[i].layer_count, depth + 1, here, arena,
                                      &copies[i].layers, error);
        if (code)
            return code;
    }
    *ret_layers = copies;
    return 0;
}
