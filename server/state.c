/* state.c */
#include "state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "definition.h"
#include "request.h"
#include "server.h"

#define FORMAT "gradd.checkpoint" /* this member of the metadata is the version of the format */
#define FORMAT_VERSION "1"
#define ORDER "job.order"

enum { MAX_HEADER = 1 << 28 /* bytes of our own files' */ };

/* ---- writing ------------------------------------------------------------------------------------------- */

static int no_memory(gp_error *error) {
    return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for a checkpoint");
}

/* Every entry of the model's state, and the order. NULL: it failed. */
static gp_named_array *list_arrays(const gd_model *model, const void *order, size_t order_size,
                                   size_t *ret_count, gp_error *error) {
    const size_t count = gd_model_state_count(model);
    gp_named_array *arrays = calloc(count + 1, sizeof *arrays);
    if (!arrays) {
        no_memory(error);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        gd_state_entry entry;
        gd_model_state_at(model, i, &entry);
        if (strlen(entry.name) >= sizeof arrays->name) {
            gp_fail(error, GP_LIMIT_EXCEEDED, "",
                    "\"%.100s...\" is too long a name for a checkpoint; give the layer a shorter one",
                    entry.name);
            free(arrays);
            return NULL;
        }
        memcpy(arrays[i].name, entry.name, strlen(entry.name) + 1);
        arrays[i].array = gs_array_of(&entry.tensor);
    }
    if (order) {
        gp_array array = {
            .dtype = GP_UINT8, .rank = 1, .dim = {(int64_t)order_size}, .data = order, .size = order_size};
        arrays[count] = (gp_named_array){.name = ORDER, .array = array};
    }
    *ret_count = count + (order != NULL);
    return arrays;
}

static int measure(const gp_named_array *arrays, size_t count, size_t header, size_t *ret_size) {
    size_t size = header;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(size, arrays[i].array.size, &size)) {
            return -1;
        }
    }
    *ret_size = size;
    return 0;
}

/* Room in --max-memory. */
static gs_buffer *make_buffer(gs_models *models, size_t size, gp_error *error) {
    gs_buffer *buffer = gs_models_have_room(models, size) ? gs_buffer_new(&models->kept, size) : NULL;
    if (!buffer) {
        gp_fail(error, GP_OUT_OF_MEMORY, "",
                "a checkpoint takes %zu bytes for a while, which beside what models hold would exceed "
                "--max-memory %zu; allow more, or delete a model",
                size, models->kept.limit);
    }
    return buffer;
}

static gs_buffer *write_arrays(gs_models *models, const gp_named_array *arrays, size_t count,
                               const gp_metadata *metadata, gp_error *error) {
    const size_t header = gp_safetensors_header_size(arrays, count, metadata);
    size_t size;
    gs_buffer *buffer =
        measure(arrays, count, header, &size) ? (no_memory(error), NULL) : make_buffer(models, size, error);
    if (!buffer) {
        return NULL;
    }
    buffer->size = size;
    gp_safetensors_write_header(arrays, count, metadata, buffer->data);
    char *at = buffer->data + header;
    for (size_t i = 0; i < count; i++) {
        if (arrays[i].array.size) {
            memcpy(at, arrays[i].array.data, arrays[i].array.size);
        }
        at += arrays[i].array.size;
    }
    return buffer;
}

int gs_state_file(gs_hosted *hosted, const gs_checkpoint *row, const void *order, size_t order_size,
                  gs_buffer **ret_file, gp_error *error) {
    char step[24], version[24], seed[24], job[24], time[GS_TIME_TEXT];
    snprintf(step, sizeof step, "%" PRId64, row->step);
    snprintf(version, sizeof version, "%" PRId64, row->version);
    snprintf(seed, sizeof seed, "%" PRIu64, hosted->seed);
    snprintf(job, sizeof job, "%" PRId64, row->job);
    const gp_metadata metadata[] = {
        {FORMAT, FORMAT_VERSION},
        {"format", "pt"}, /* what torch's loaders look for */
        {"gradd_version", gs_this_version.version},
        {"model", hosted->name},
        {"class_name", hosted->class_name},
        {"definition", hosted->definition},
        {"kind", gs_checkpoint_kind_name(row->kind)},
        {"step", step},
        {"version", version},
        {"seed", seed},
        {"created_at", gs_time_text(row->created_ms, time)},
        {row->job ? "job" : NULL, job},
        {NULL, NULL},
    };
    size_t count;
    gp_named_array *arrays = list_arrays(hosted->model, order, order_size, &count, error);
    if (!arrays) {
        return -1;
    }
    gs_buffer *file = write_arrays(hosted->models, arrays, count, metadata, error);
    free(arrays);
    *ret_file = file;
    return file ? 0 : -1;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static int damaged(gp_error *error, const char *why) {
    return gp_fail(error, GP_DAMAGED, "", "the checkpoint is damaged: %s", why);
}

/* A failure of what reads it: damage, or no memory. */
static int fail_reading(gp_error *error, const gp_error *why) {
    return why->problem == GP_OUT_OF_MEMORY ? gp_fail(error, why->problem, "", "%s", why->detail)
                                            : damaged(error, why->detail);
}

static int read_metadata(const char *text, char **ret_definition, gp_error *error) {
    json_t *metadata = text ? gs_definition_json(text) : NULL;
    const char *version = json_string_value(json_object_get(metadata, FORMAT));
    const char *definition = json_string_value(json_object_get(metadata, "definition"));
    int result = 0;
    if (!version || !definition) {
        result = damaged(error, "the file has not what a checkpoint has in __metadata__");
    } else if (strcmp(version, FORMAT_VERSION) != 0) {
        result = damaged(error, "the file is of a newer format");
    } else if (!(*ret_definition = strdup(definition))) {
        result = no_memory(error);
    }
    json_decref(metadata);
    return result;
}

int gs_state_read(const void *data, size_t size, gp_safetensors *ret_tensors, char **ret_definition,
                  gp_error *error) {
    gp_safetensors tensors;
    gp_error why = {0};
    if (gp_safetensors_read(data, size, MAX_HEADER, &tensors, &why)) {
        return fail_reading(error, &why);
    }
    if (read_metadata(tensors.metadata, ret_definition, error)) {
        gp_safetensors_release(&tensors);
        return -1;
    }
    *ret_tensors = tensors;
    return 0;
}

static bool engine_dtype(gp_dtype dtype, gd_dtype *ret_dtype) {
    switch (dtype) {
    case GP_FLOAT32:
        *ret_dtype = GD_FLOAT32;
        return true;
    case GP_FLOAT64:
        *ret_dtype = GD_FLOAT64;
        return true;
    case GP_INT64:
        *ret_dtype = GD_INT64;
        return true;
    case GP_INT32:
        *ret_dtype = GD_INT32;
        return true;
    case GP_UINT8:
        *ret_dtype = GD_UINT8;
        return true;
    default:
        return false;
    }
}

/* What of the file is the model's. @return 0; -1 */
static int list_entries(const gp_safetensors *tensors, const int64_t *version, gd_state_entry *entries,
                        size_t *ret_count, gp_error *error) {
    size_t count = 0;
    for (size_t i = 0; i < tensors->count; i++) {
        const gp_named_array *named = &tensors->arrays[i];
        gd_state_entry *entry = &entries[count];
        if (!strcmp(named->name, ORDER)) {
            continue;
        }
        if (!engine_dtype(named->array.dtype, &entry->tensor.dtype)) {
            return damaged(error, "a tensor has an element type that no model has");
        }
        snprintf(entry->name, sizeof entry->name, "%s", named->name);
        entry->tensor.shape.rank = named->array.rank;
        memcpy(entry->tensor.shape.dim, named->array.dim, sizeof entry->tensor.shape.dim);
        entry->tensor.data = (void *)(uintptr_t)named->array.data;
        if (*version && !strcmp(named->name, "model.version")) {
            entry->tensor.data = (void *)(uintptr_t)version;
        }
        count++;
    }
    *ret_count = count;
    return 0;
}

int gs_state_load(gd_model *model, const gp_safetensors *tensors, int64_t version, gp_error *error) {
    gd_state_entry *entries = calloc(tensors->count + 1, sizeof *entries);
    gd_error cause = GD_ERROR_INIT;
    size_t count = 0;
    if (!entries) {
        return no_memory(error);
    }
    int result = list_entries(tensors, &version, entries, &count, error);
    if (!result && (result = gd_model_state_load(model, entries, count, &cause))) {
        gp_error why = {0};
        gp_fail_engine(&why, &cause, "");
        result = fail_reading(error, &why);
    }
    free(entries);
    return result;
}

bool gs_state_is_other(const char *name) {
    static const char *const prefixes[] = {"optimizer.", "scheduler.", "rng.", "model.", "job."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (!strncmp(name, prefixes[i], strlen(prefixes[i]))) {
            return true;
        }
    }
    return false;
}

bool gs_state_is_ours(const char *metadata) {
    json_t *json = metadata ? gs_definition_json(metadata) : NULL;
    bool ours = json_is_string(json_object_get(json, FORMAT));
    json_decref(json);
    return ours;
}
