/* blocks.c -- a network's layers, with all blocks laid open. */
#include "engine/graph/blocks.h"

static int no_memory(gd_error *error) {
    gd_fail(error, GD_E_MEMORY, "no memory for the graph");
    return GD_E_MEMORY;
}

/* How many layers and blocks there are in a list of layers. */
static int count(const gd_layer_spec *layers, size_t layer_count, int depth, gd_flat *counts,
                 gd_error *error) {
    if (depth > GD_MAX_BLOCKS)
        return gd_fail(error, GD_E_LIMIT, "blocks are nested more than %d deep", GD_MAX_BLOCKS);
    if (layer_count > GD_MAX_LAYERS)
        return gd_fail(error, GD_E_LIMIT, "a network has at most %d layers", GD_MAX_LAYERS);
    for (size_t i = 0; i < layer_count; i++) {
        counts->layer_count += !layers[i].layers;
        counts->block_count += !!layers[i].layers;
        if (counts->layer_count > GD_MAX_LAYERS || counts->block_count > GD_MAX_LAYERS)
            return gd_fail(error, GD_E_LIMIT, "a network has at most %d layers", GD_MAX_LAYERS);
        int code =
            layers[i].layers ? count(layers[i].layers, layers[i].layer_count, depth + 1, counts, error) : 0;
        if (code)
            return code;
    }
    return 0;
}

typedef struct flattening {
    gd_flat *flat;
    gd_arena *arena;
    gd_error *error;
} flattening;

/* Is `full` the name of `length` bytes within the scope of a block? */
static bool matches(const char *full, const char *prefix, const char *name, size_t length) {
    const size_t skip = strlen(prefix);
    if (strncmp(full, prefix, skip) != 0 || (skip && full[skip] != '.'))
        return false;
    full += skip + (skip > 0);
    return strncmp(full, name, length) == 0 && !full[length];
}

static bool taken(const gd_flat *flat, const char *name) {
    for (int i = 0; i < flat->layer_count; i++)
        if (strcmp(flat->layers[i].name, name) == 0)
            return true;
    for (int i = 1; i < flat->block_count; i++)
        if (strcmp(flat->blocks[i].name, name) == 0)
            return true;
    return false;
}

/* The full name of the index-th thing in a block. */
static int full_name(const flattening *f, const gd_layer_spec *spec, int block, size_t index,
                     const char **ret_name) {
    char name[2 * GD_MAX_NAME + 32];
    const char *prefix = f->flat->blocks[block].name;
    int length = spec->name ? snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", spec->name)
                            : snprintf(name, sizeof name, "%s%s%zu", prefix, *prefix ? "." : "", index);
    if (length >= GD_MAX_NAME || (spec->name && !*spec->name)) {
        gd_at_layer(
            f->error, f->flat->layer_count,
            gd_fail_field(f->error, GD_E_GRAPH, "name",
                          "layer %d: a name has 1 to %d bytes, with the names of the blocks around it",
                          f->flat->layer_count, GD_MAX_NAME - 1));
        return GD_E_GRAPH;
    }
    if (taken(f->flat, name)) {
        gd_at_layer(f->error, f->flat->layer_count,
                    gd_fail_field(f->error, GD_E_GRAPH, "name",
                                  "two layers are called '%s'; name one of them otherwise", name));
        return GD_E_GRAPH;
    }
    *ret_name = gd_arena_strdup(f->arena, name);
    return *ret_name ? 0 : no_memory(f->error);
}

/* What a block gives out: its last layer, or the one it names. */
static int find_output(const flattening *f, const gd_layer_spec *spec, int block) {
    const gd_flat *flat = f->flat;
    const char *prefix = flat->blocks[block].name;
    if (!spec->output)
        return flat->blocks[block].last;
    for (int i = flat->blocks[block].first; i < flat->layer_count; i++)
        if (matches(flat->layers[i].name, prefix, spec->output, strlen(spec->output)))
            return i;
    for (int i = block + 1; i < flat->block_count; i++)
        if (matches(flat->blocks[i].name, prefix, spec->output, strlen(spec->output)))
            return flat->blocks[i].last;
    return -1;
}

/* Layers of a block that copies begin as those of its twin, one by one. */
static int pair_twins(const flattening *f, const gd_layer_spec *spec, int block) {
    gd_flat *flat = f->flat;
    const gd_block_layer *copy = &flat->blocks[block];
    const char *prefix = flat->blocks[copy->parent].name;
    for (int b = 1; spec->copies && b < block; b++) {
        const gd_block_layer *twin = &flat->blocks[b];
        if (twin->parent != copy->parent || !matches(twin->name, prefix, spec->copies, strlen(spec->copies)))
            continue;
        for (int i = copy->first; i < flat->layer_count; i++)
            flat->layers[i].twin = twin->first + (i - copy->first);
        return 0;
    }
    return spec->copies
               ? gd_fail(f->error, GD_E_GRAPH, "the block '%s' copies '%s', which is no block before it",
                         copy->name, spec->copies)
               : 0;
}

static int flatten(const flattening *f, const gd_layer_spec *layers, size_t layer_count, int block,
                   const char *path, bool opaque);

static int flatten_block(const flattening *f, const gd_layer_spec *spec, const char *name, int parent,
                         const char *path, bool opaque) {
    gd_flat *flat = f->flat;
    const int block = flat->block_count++;
    flat->blocks[block] = (gd_block_layer){.class_name = spec->type,
                                           .name = name,
                                           .path = gd_arena_strdup(f->arena, path),
                                           .inputs = spec->inputs,
                                           .input_count = spec->input_count,
                                           .parent = parent,
                                           .first = flat->layer_count,
                                           .frozen = spec->frozen || flat->blocks[parent].frozen};
    if (!flat->blocks[block].path)
        return no_memory(f->error);
    flat->entries[flat->entry_count++] = (gd_entry){GD_ENTRY_OPEN, block};
    int code = flatten(f, spec->layers, spec->layer_count, block, path, opaque || spec->opaque);
    if (code || (code = pair_twins(f, spec, block)))
        return code;
    flat->entries[flat->entry_count++] = (gd_entry){GD_ENTRY_CLOSE, block};
    flat->blocks[block].last = find_output(f, spec, block);
    if (flat->blocks[block].last < 0)
        return gd_fail(f->error, GD_E_GRAPH, "the block '%s' gives out '%s', but has no such layer", name,
                       spec->output);
    return 0;
}

/* opaque: what is inside has no place of its own in the specification, errors point to path itself */
static int flatten(const flattening *f, const gd_layer_spec *layers, size_t layer_count, int block,
                   const char *path, bool opaque) {
    gd_flat *flat = f->flat;
    int before = -1;
    if (layer_count == 0) {
        if (f->error)
            snprintf(f->error->path, sizeof f->error->path, "%s", path);
        return gd_fail_field(f->error, GD_E_GRAPH, "layers", "%s%s%s has no layers",
                             block ? "the block '" : "the network", flat->blocks[block].name,
                             block ? "'" : "");
    }
    for (size_t i = 0; i < layer_count; i++) {
        const gd_layer_spec *spec = &layers[i];
        const char *name = "";
        char here[GD_PATH];
        if (opaque)
            snprintf(here, sizeof here, "%s", path);
        else
            snprintf(here, sizeof here, "%s/layers/%zu", path, i);
        int code = full_name(f, spec, block, i, &name);
        if (code) {
            if (f->error)
                snprintf(f->error->path, sizeof f->error->path, "%s", here);
            return code;
        }
        if (spec->layers) {
            const int inner = flat->block_count;
            if ((code = flatten_block(f, spec, name, block, here, opaque)))
                return code;
            before = flat->blocks[inner].last;
        } else {
            before = flat->layer_count++;
            flat->layers[before] = (gd_flat_layer){.spec = spec,
                                                   .name = name,
                                                   .path = gd_arena_strdup(f->arena, here),
                                                   .block = block,
                                                   .twin = -1,
                                                   .frozen = spec->frozen || flat->blocks[block].frozen};
            if (!flat->layers[before].path)
                return no_memory(f->error);
            flat->entries[flat->entry_count++] = (gd_entry){GD_ENTRY_LAYER, before};
        }
    }
    flat->blocks[block].last = before;
    return 0;
}

/* Every layer's predecessor in its scope: the last layer of whatever stands before it there. */
static void link_layers(gd_flat *flat) {
    int before[GD_MAX_BLOCKS + 2], depth = 0;
    before[0] = -1;
    for (int e = 0; e < flat->entry_count; e++) {
        const gd_entry *entry = &flat->entries[e];
        switch (entry->kind) {
        case GD_ENTRY_LAYER:
            flat->layers[entry->index].before = before[depth];
            before[depth] = entry->index;
            break;
        case GD_ENTRY_OPEN:
            flat->blocks[entry->index].before = before[depth];
            before[++depth] = -1;
            break;
        case GD_ENTRY_CLOSE:
            before[--depth] = flat->blocks[entry->index].last;
            break;
        }
    }
}

/* A block may name as its inputs only what there is, whether or not a layer inside reads it. */
static int check_inputs(const gd_flat *flat, const gd_graph_spec *spec, gd_error *error) {
    for (int b = 1; b < flat->block_count; b++) {
        const gd_block_layer *block = &flat->blocks[b];
        for (size_t i = 0; i < block->input_count; i++) {
            const char *name = block->inputs[i];
            if (gd_refer(flat, spec, block->parent, name).to != GD_REFERS_NOWHERE)
                continue;
            if (error)
                snprintf(error->path, sizeof error->path, "%s", block->path);
            return gd_fail_field(error, GD_E_GRAPH, "inputs",
                                 "the block '%s' reads '%.80s', but there is no such %s", block->name, name,
                                 *name == '@' ? "input" : "layer");
        }
    }
    return 0;
}

int gd_flatten(const gd_graph_spec *spec, gd_arena *arena, gd_flat *ret_flat, gd_error *error) {
    gd_flat flat = {.block_count = 1};
    const gd_layer_spec *layers;
    int code = gd_open_composites(spec->layers, spec->layer_count, 0, "", arena, &layers, error);
    if (code || (code = count(layers, spec->layer_count, 0, &flat, error)))
        return code;
    flat.layers = GD_ARENA_NEW(arena, gd_flat_layer, (size_t)flat.layer_count);
    flat.blocks = GD_ARENA_NEW(arena, gd_block_layer, (size_t)flat.block_count);
    flat.entries = GD_ARENA_NEW(arena, gd_entry, (size_t)(flat.layer_count + 2 * flat.block_count));
    if (!flat.layers || !flat.blocks || !flat.entries)
        return no_memory(error);
    flat.layer_count = flat.entry_count = 0;
    flat.block_count = 1;
    flat.blocks[0] = (gd_block_layer){
        .class_name = spec->class_name ? spec->class_name : "Net", .name = "", .parent = -1, .before = -1};
    const flattening f = {&flat, arena, error};
    if ((code = flatten(&f, layers, spec->layer_count, 0, "", false)))
        return code;
    link_layers(&flat);
    if ((code = check_inputs(&flat, spec, error)))
        return code;
    *ret_flat = flat;
    return 0;
}

/* ---- names ------------------------------------------------------------------------------------------ */

/* The number behind a name's colon, or 0; -1: that is no number. *ret_length: of the name itself. */
static int output_of(const char *name, size_t *ret_length) {
    const char *colon = strchr(name, ':');
    char *end;
    *ret_length = colon ? (size_t)(colon - name) : strlen(name);
    if (!colon)
        return 0;
    if (colon[1] < '0' || colon[1] > '9')
        return -1;
    const long number = strtol(colon + 1, &end, 10);
    return *end || number > GD_MAX_OUTPUTS ? -1 : (int)number;
}

gd_reference gd_refer_before(const gd_flat *flat, const gd_graph_spec *spec, int block, int before) {
    if (before >= 0)
        return (gd_reference){GD_REFERS_LAYER, before, 0};
    if (block == 0)
        return (gd_reference){GD_REFERS_INPUT, 0, 0};
    const gd_block_layer *b = &flat->blocks[block];
    return b->input_count ? gd_refer(flat, spec, b->parent, b->inputs[0])
                          : gd_refer_before(flat, spec, b->parent, b->before);
}

gd_reference gd_refer(const gd_flat *flat, const gd_graph_spec *spec, int block, const char *name) {
    size_t length;
    if (block > 0 && strncmp(name, "@input", 6) == 0) {
        const int which = output_of(name, &length);
        const gd_block_layer *b = &flat->blocks[block];
        if (length == 6 && which == 0)
            return gd_refer_before(flat, spec, block, -1);
        if (length == 6 && which > 0 && (size_t)which < b->input_count)
            return gd_refer(flat, spec, b->parent, b->inputs[which]);
    }
    for (size_t i = 0; *name == '@' && i < spec->input_count; i++)
        if (strcmp(spec->inputs[i].name, name + 1) == 0)
            return (gd_reference){GD_REFERS_INPUT, (int)i, 0};
    const int output = output_of(name, &length);
    for (; output >= 0 && block >= 0; block = flat->blocks[block].parent) {
        const char *prefix = flat->blocks[block].name;
        for (int i = 0; i < flat->layer_count; i++)
            if (matches(flat->layers[i].name, prefix, name, length))
                return (gd_reference){GD_REFERS_LAYER, i, output};
        for (int i = 1; i < flat->block_count; i++)
            if (matches(flat->blocks[i].name, prefix, name, length))
                return (gd_reference){GD_REFERS_LAYER, flat->blocks[i].last, output};
    }
    return (gd_reference){GD_REFERS_NOWHERE, 0, 0};
}
