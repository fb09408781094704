/* datasets.c -- the table of datasets, and what is in them. datasets_store.c changes it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "datasets_internal.h"
#include "server.h"

static const char digits[] = "digits";

int gs_dataset_no_memory(gp_error *error) {
    return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the dataset");
}

int gs_dataset_not_found(const char *name, gp_error *error) {
    return gp_fail(error, GP_NOT_FOUND, "", "there is no dataset named \"%s\"; GET /v1/datasets lists them",
                   name);
}

/* ---- the table: all of this under the lock ------------------------------------------------------- */

size_t gs_datasets_position(const gs_datasets *datasets, const char *name, bool *ret_found) {
    size_t low = 0, high = datasets->count;
    *ret_found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(datasets->items[middle]->name, name);
        if (!order) {
            *ret_found = true;
            return middle;
        }
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    return low;
}

gs_dataset *gs_datasets_at(const gs_datasets *datasets, const char *name) {
    bool found;
    size_t at = gs_datasets_position(datasets, name, &found);
    return found ? datasets->items[at] : NULL;
}

void gs_datasets_insert(gs_datasets *datasets, gs_dataset *dataset) {
    bool found;
    size_t at = gs_datasets_position(datasets, dataset->name, &found);
    memmove(datasets->items + at + 1, datasets->items + at, (datasets->count - at) * sizeof *datasets->items);
    datasets->items[at] = dataset;
    datasets->count++;
}

gs_dataset *gs_dataset_new(gs_datasets *datasets, int64_t id, const char *name, int64_t created_ms) {
    gs_dataset *dataset = calloc(1, sizeof *dataset);
    if (dataset) {
        dataset->all = datasets;
        dataset->id = id;
        dataset->created_ms = created_ms;
        snprintf(dataset->name, sizeof dataset->name, "%s", name);
    }
    return dataset;
}

void gs_dataset_free(gs_dataset *dataset) {
    for (size_t s = 0; dataset && s < dataset->count; s++) {
        for (int part = 0; part < GS_PARTS; part++) {
            gs_blob_unref(dataset->splits[s].parts[part].blob);
        }
    }
    if (dataset) {
        free(dataset->splits);
        free(dataset);
    }
}

gs_split *gs_dataset_split_at(const gs_dataset *dataset, const char *name) {
    for (size_t s = 0; s < dataset->count; s++) {
        if (!strcmp(dataset->splits[s].name, name)) {
            return &dataset->splits[s];
        }
    }
    return NULL;
}

/* Room for one more split. */
bool gs_dataset_make_room(gs_dataset *dataset) {
    if (dataset->count == dataset->capacity) {
        size_t capacity = dataset->capacity ? 2 * dataset->capacity : 2;
        gs_split *splits = realloc(dataset->splits, capacity * sizeof *splits);
        if (!splits) {
            return false;
        }
        dataset->splits = splits;
        dataset->capacity = capacity;
    }
    return true;
}

/* There is room. */
gs_split *gs_dataset_add_split(gs_dataset *dataset, const char *name) {
    size_t at = 0;
    while (at < dataset->count && strcmp(dataset->splits[at].name, name) < 0) {
        at++;
    }
    gs_split *split = &dataset->splits[at];
    memmove(split + 1, split, (dataset->count - at) * sizeof *split);
    *split = (gs_split){.parts = {{NULL}}};
    snprintf(split->name, sizeof split->name, "%s", name);
    dataset->count++;
    return split;
}

/* ---- digits -------------------------------------------------------------------------------------- */

static int add_digits(gs_datasets *datasets) {
    gs_dataset *dataset = gs_dataset_new(datasets, 0, digits, 0);
    bool ok = dataset;
    for (int test = 0; test < 2 && ok; test++) {
        const int64_t rows = test ? GD_DIGITS_TEST : GD_DIGITS_TRAIN, side = GD_DIGITS_SIDE;
        const uint64_t pixels = (uint64_t)(rows * side * side), labels = (uint64_t)rows * sizeof(int64_t);
        gs_blob *blob = gs_blob_digits(test);
        ok = blob && gs_dataset_make_room(dataset);
        if (!ok) {
            gs_blob_unref(blob);
            break;
        }
        gs_split *split = gs_dataset_add_split(dataset, test ? "test" : "train");
        split->parts[0] = (gs_part){blob, {GD_UINT8, {3, {rows, side, side}}, 0, pixels, ""}, false};
        split->parts[1] = (gs_part){gs_blob_ref(blob), {GD_INT64, {1, {rows}}, pixels, labels, ""}, false};
    }
    if (ok) {
        gs_datasets_insert(datasets, dataset);
    } else {
        gs_dataset_free(dataset);
    }
    return ok ? 0 : -1;
}

/* Draw and hash them, once. */
static void hash_digits(gs_datasets *datasets) {
    static const char *const splits[] = {"train", "test"};
    for (int i = 0; i < 2 * GS_PARTS; i++) {
        gs_part part = {0};
        char text[GS_NAME];
        if (gs_datasets_part(datasets, digits, splits[i / 2], i % 2, &part, NULL)) {
            continue;
        }
        const void *data = *part.stored.sha256 ? NULL : gs_part_data(&part, NULL);
        if (data) {
            gs_sha256_hex(data, part.stored.bytes, text);
            pthread_mutex_lock(&datasets->lock);
            gs_split *split = gs_dataset_split_at(gs_datasets_at(datasets, digits), splits[i / 2]);
            /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): a part that was found has a blob */
            memcpy(split->parts[i % 2].stored.sha256, text, sizeof text);
            pthread_mutex_unlock(&datasets->lock);
        }
        gs_part_release(&part);
    }
}

/* ---- the whole ---------------------------------------------------------------------------------- */

int gs_datasets_init(gs_datasets *datasets, gs_store *store, const gs_log *log, size_t limit,
                     gp_error *error) {
    *datasets = (gs_datasets){.store = store, .limit = limit + 1 /* digits */};
    pthread_mutex_init(&datasets->change, NULL);
    pthread_mutex_init(&datasets->lock, NULL);
    datasets->items = calloc(datasets->limit, sizeof(gs_dataset *));
    if (!datasets->items || add_digits(datasets)) {
        return gs_dataset_no_memory(error);
    }
    if (gs_datasets_load(datasets, log, error)) {
        return -1;
    }
    return 0;
}

void gs_datasets_release(gs_datasets *datasets) {
    if (!datasets->store) {
        return;
    }
    for (size_t i = 0; i < datasets->count; i++) {
        gs_dataset_free(datasets->items[i]);
    }
    free(datasets->items);
    pthread_mutex_destroy(&datasets->lock);
    pthread_mutex_destroy(&datasets->change);
}

/* ---- using one ----------------------------------------------------------------------------------- */

gs_dataset *gs_dataset_find(gs_server *server, const char *name) {
    gs_datasets *datasets = &server->datasets;
    pthread_mutex_lock(&datasets->change);
    pthread_mutex_lock(&datasets->lock);
    gs_dataset *dataset = gs_datasets_at(datasets, name);
    if (dataset) {
        dataset->users++;
    }
    pthread_mutex_unlock(&datasets->lock);
    pthread_mutex_unlock(&datasets->change);
    return dataset;
}

void gs_dataset_unref(gs_dataset *dataset) {
    if (dataset) {
        gs_datasets *datasets = dataset->all;
        pthread_mutex_lock(&datasets->lock);
        dataset->users--;
        pthread_mutex_unlock(&datasets->lock);
    }
}

const char *gs_dataset_name(const gs_dataset *dataset) {
    return dataset->name;
}

static int fail_rows(const char *split, int64_t inputs, int64_t targets, gp_error *error) {
    return gp_fail(error, GP_SHAPE_MISMATCH, "",
                   "split \"%s\" has %lld rows of input and %lld of target: row %lld has no %s", split,
                   (long long)inputs, (long long)targets, (long long)(inputs < targets ? inputs : targets),
                   gs_part_names[inputs > targets]);
}

int gs_dataset_split(gs_dataset *dataset, const char *name, gd_tensor *ret_input, gd_tensor *ret_target,
                     gp_error *error) {
    gd_tensor tensors[GS_PARTS];
    for (int p = 0; p < GS_PARTS; p++) {
        gs_part part;
        if (gs_datasets_part(dataset->all, dataset->name, name, p, &part, error)) {
            return -1;
        }
        const void *data = gs_part_data(&part, error);
        tensors[p] = (gd_tensor){part.stored.dtype, part.stored.shape, (void *)(uintptr_t)data};
        gs_part_release(&part); /* the dataset, which is in use, keeps it */
        if (!data) {
            return -1;
        }
    }
    const int64_t inputs = tensors[0].shape.dim[0], targets = tensors[1].shape.dim[0];
    if (inputs != targets) {
        return fail_rows(name, inputs, targets, error);
    }
    *ret_input = tensors[0];
    *ret_target = tensors[1];
    return 0;
}

/* ---- parts --------------------------------------------------------------------------------------- */

/* "train, test": what there is, for who asked for something else. Under the lock. */
static void list_splits(const gs_dataset *dataset, char *text, size_t size) {
    size_t used = 0;
    *text = '\0';
    for (size_t s = 0; s < dataset->count && used < size; s++) {
        for (int part = 0; part < GS_PARTS && used < size; part++) {
            if (dataset->splits[s].parts[part].blob) {
                used += (size_t)snprintf(text + used, size - used, "%s%s/%s", used ? ", " : "",
                                         dataset->splits[s].name, gs_part_names[part]);
            }
        }
    }
}

int gs_datasets_part(gs_datasets *datasets, const char *name, const char *split_name, int part,
                     gs_part *ret_part, gp_error *error) {
    char has[256];
    pthread_mutex_lock(&datasets->lock);
    const gs_dataset *dataset = gs_datasets_at(datasets, name);
    const gs_split *split = dataset ? gs_dataset_split_at(dataset, split_name) : NULL;
    const gs_part *found = split && part >= 0 && split->parts[part].blob ? &split->parts[part] : NULL;
    int result = 0;
    if (found) {
        *ret_part = *found;
        gs_blob_ref(found->blob);
    } else if (!dataset) {
        result = gs_dataset_not_found(name, error);
    } else {
        list_splits(dataset, has, sizeof has);
        result = gp_fail(error, GP_NOT_FOUND, "", "%s has no %.64s/%s; it has %s", name, split_name,
                         part < 0 ? "such part" : gs_part_names[part], has);
    }
    pthread_mutex_unlock(&datasets->lock);
    return result;
}

const void *gs_part_data(gs_part *part, gp_error *error) {
    const gs_stored *stored = &part->stored;
    const char *data = NULL;
    size_t size = 0;
    gp_error why = {0};
    if (!part->damaged && !gs_blob_data(part->blob, &data, &size, &why) &&
        (stored->offset > size || stored->bytes > size - stored->offset)) {
        part->damaged = true; /* it was longer when the daemon started */
    }
    if (why.problem == GP_OUT_OF_MEMORY) {
        gp_fail(error, why.problem, "", "%s", why.detail);
        return NULL;
    }
    if (part->damaged || !data) {
        gp_fail(error, GP_STORAGE_FAILED, "",
                "the data's file is damaged or cannot be read: upload it again");
        return NULL;
    }
    return data + stored->offset;
}

void gs_part_release(gs_part *part) {
    gs_blob_unref(part->blob);
    part->blob = NULL;
}

/* ---- as JSON ------------------------------------------------------------------------------------- */

const char *gs_dtype_name(gd_dtype dtype) {
    return dtype == GD_FLOAT32 ? "float32"
           : dtype == GD_INT64 ? "int64"
           : dtype == GD_INT32 ? "int32"
                               : "uint8";
}

json_t *gs_stored_json(const gs_stored *stored) {
    return json_pack("{s:s, s:o, s:I, s:I, s:s}", "dtype", gs_dtype_name(stored->dtype), "shape",
                     gp_shape_json(&stored->shape), "rows", (json_int_t)stored->shape.dim[0], "bytes",
                     (json_int_t)stored->bytes, "sha256", stored->sha256);
}

/* "count" is null while input and target have not as many rows, or one of them is not there. */
static json_t *split_json(const gs_split *split) {
    const gs_part *parts = split->parts;
    const bool whole =
        parts[0].blob && parts[1].blob && parts[0].stored.shape.dim[0] == parts[1].stored.shape.dim[0];
    json_t *json = json_object();
    json_object_set_new(json, "count", whole ? json_integer(parts[0].stored.shape.dim[0]) : json_null());
    for (int part = 0; part < GS_PARTS; part++) {
        if (parts[part].blob) {
            json_t *described = gs_stored_json(&parts[part].stored);
            if (parts[part].damaged) {
                json_object_set_new(described, "damaged", json_true());
            }
            json_object_set_new(json, gs_part_names[part], described);
        }
    }
    return json;
}

/* Under the lock. */
static json_t *dataset_json(const gs_dataset *dataset) {
    char time[GS_TIME_TEXT];
    json_t *splits = json_object();
    json_int_t bytes = 0;
    for (size_t s = 0; s < dataset->count; s++) {
        json_object_set_new(splits, dataset->splits[s].name, split_json(&dataset->splits[s]));
        for (int part = 0; part < GS_PARTS; part++) {
            const gs_part *at = &dataset->splits[s].parts[part];
            bytes += at->blob ? (json_int_t)at->stored.bytes : 0;
        }
    }
    json_t *json = json_pack("{s:s, s:b, s:b, s:I, s:o}", "name", dataset->name, "builtin", !dataset->id,
                             "in_use", dataset->users != 0, "bytes", bytes, "splits", splits);
    if (json && dataset->id) {
        json_object_set_new(json, "created_at", json_string(gs_time_text(dataset->created_ms, time)));
    } else if (json) {
        json_object_set_new(json, "classes", json_integer(GD_DIGITS_CLASSES));
    }
    return json;
}

json_t *gs_datasets_json(gs_datasets *datasets, const char *name, gp_error *error) {
    if (!strcmp(name, digits)) {
        hash_digits(datasets);
    }
    pthread_mutex_lock(&datasets->lock);
    const gs_dataset *dataset = gs_datasets_at(datasets, name);
    json_t *json = dataset ? dataset_json(dataset) : NULL;
    pthread_mutex_unlock(&datasets->lock);
    if (!dataset) {
        gs_dataset_not_found(name, error);
    } else if (!json) {
        gs_dataset_no_memory(error);
    }
    return json;
}

json_t *gs_datasets_list(gs_datasets *datasets, const char *after, size_t limit) {
    json_t *items = json_array();
    bool found;
    hash_digits(datasets);
    pthread_mutex_lock(&datasets->lock);
    size_t at = gs_datasets_position(datasets, after, &found) + found, end = at;
    for (; end < datasets->count && end - at < limit; end++) {
        json_array_append_new(items, dataset_json(datasets->items[end]));
    }
    json_t *next = end < datasets->count ? json_string(datasets->items[end - 1]->name) : json_null();
    pthread_mutex_unlock(&datasets->lock);
    return json_pack("{s:o, s:o}", "items", items, "next_cursor", next);
}
