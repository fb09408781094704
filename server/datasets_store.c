/* datasets_store.c -- datasets in the database and back. It is changed first, under `change`; the table
 * follows under `lock`, where nothing can fail any more. */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blob.h"
#include "datasets_internal.h"
#include "server.h"

/* ---- loading ------------------------------------------------------------------------------------- */

/* "[60000,28,28]" */
static void shape_text(const gd_shape *shape, char *text, size_t size) {
    size_t used = 0;
    for (int i = 0; i < shape->rank && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "," : "[", (long long)shape->dim[i]);
    }
    if (used < size) {
        snprintf(text + used, size - used, "]");
    }
}

static bool read_shape(const char *text, gd_shape *ret_shape) {
    gd_shape shape = {0};
    char *end = (char *)(uintptr_t)text;
    if (*text != '[') {
        return false;
    }
    for (const char *at = text + 1; shape.rank < GD_MAX_RANK; at = end + 1) {
        shape.dim[shape.rank] = strtoll(at, &end, 10);
        if (end == at || shape.dim[shape.rank++] < 1 || *end != ',') {
            break;
        }
    }
    *ret_shape = shape;
    return !strcmp(end, "]") && shape.rank && shape.dim[shape.rank - 1] > 0;
}

static bool find_dtype(const char *text, gd_dtype *ret_dtype) {
    static const struct {
        const char *name;
        gd_dtype dtype;
    } names[] = {{"float32", GD_FLOAT32}, {"int64", GD_INT64}, {"int32", GD_INT32}, {"uint8", GD_UINT8}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(names[i].name, text)) {
            *ret_dtype = names[i].dtype;
            return true;
        }
    }
    return false;
}

/* A row's part: what the row says must fit together, and the file must hold it. */
static bool is_sound(gs_store *store, const char *file, const gs_stored *stored) {
    struct stat status;
    uint64_t bytes = gd_dtype_size(stored->dtype), end;
    for (int i = 0; i < stored->shape.rank; i++) {
        if (__builtin_mul_overflow(bytes, (uint64_t)stored->shape.dim[i], &bytes)) {
            return false;
        }
    }
    return bytes == stored->bytes && !(stored->offset % gd_dtype_size(stored->dtype)) &&
           !__builtin_add_overflow(stored->offset, bytes, &end) &&
           !fstatat(gs_store_folder(store, GS_FOLDER_DATASETS), file, &status, AT_SYMLINK_NOFOLLOW) &&
           S_ISREG(status.st_mode) && (uint64_t)status.st_size >= end;
}

typedef struct loading {
    gs_datasets *datasets;
    const gs_log *log;
} loading;

static const char *column(sqlite3_stmt *row, int index) {
    const char *text = (const char *)sqlite3_column_text(row, index);
    return text ? text : "";
}

/* A file that another part of the split lies in already, or a new one. */
static gs_blob *blob_of(const gs_split *split, gs_store *store, const char *file) {
    for (int part = 0; part < GS_PARTS; part++) {
        gs_blob *blob = split->parts[part].blob;
        if (blob && !strcmp(gs_blob_name(blob), file)) {
            return gs_blob_ref(blob);
        }
    }
    return gs_blob_file(store, file);
}

/* Columns 3 ... 10: split, part, file, dtype, shape, offset, bytes, sha256. */
static int load_part(const loading *l, gs_dataset *dataset, sqlite3_stmt *row, gp_error *error) {
    const char *name = column(row, 3), *file = column(row, 5);
    const int part = gs_part_find(column(row, 4));
    gs_split *split = gs_dataset_split_at(dataset, name);
    if (part < 0) {
        return 0; /* of a later version, which this one would not have opened */
    }
    if (!split) {
        split = gs_dataset_make_room(dataset) ? gs_dataset_add_split(dataset, name) : NULL;
    }
    gs_blob *blob = split ? blob_of(split, l->datasets->store, file) : NULL;
    if (!blob) {
        return gs_dataset_no_memory(error);
    }
    gs_part loaded = {.blob = blob};
    bool reads =
        find_dtype(column(row, 6), &loaded.stored.dtype) && read_shape(column(row, 7), &loaded.stored.shape);
    loaded.stored.offset = (uint64_t)sqlite3_column_int64(row, 8);
    loaded.stored.bytes = (uint64_t)sqlite3_column_int64(row, 9);
    snprintf(loaded.stored.sha256, sizeof loaded.stored.sha256, "%s", column(row, 10));
    loaded.damaged = !reads || !is_sound(l->datasets->store, file, &loaded.stored);
    if (loaded.damaged) {
        gs_log_event(l->log, GS_ERROR, "dataset damaged", GS_S("dataset", dataset->name), GS_S("split", name),
                     GS_S("part", gs_part_names[part]), GS_S("file", file),
                     GS_S("reason", "the file is not there, or too short; upload it again"));
    }
    split->parts[part] = loaded;
    return 0;
}

static int load(gs_store *store, void *argument, gp_error *error) {
    const loading *l = argument;
    sqlite3_stmt *row = gs_sql_query(store, error,
                                     "SELECT d.id, d.name, d.created_ms, p.split, p.part, p.file, p.dtype, "
                                     "p.shape, p.offset, p.bytes, p.sha256 FROM datasets d "
                                     "JOIN dataset_parts p ON p.dataset = d.id",
                                     "");
    int more = row ? 0 : -1;
    while (row && (more = gs_sql_row(store, row, error)) == 1) {
        gs_datasets *datasets = l->datasets;
        gs_dataset *dataset = gs_datasets_at(datasets, column(row, 1));
        if (!dataset && datasets->count == datasets->limit) {
            gs_dataset **items = realloc(datasets->items, 2 * datasets->limit * sizeof *items);
            datasets->items = items ? items : datasets->items;
            datasets->limit *= items ? 2 : 1; /* for loading alone: --max-datasets is for new ones */
        }
        if (!dataset && datasets->count < datasets->limit) {
            dataset = gs_dataset_new(datasets, sqlite3_column_int64(row, 0), column(row, 1),
                                     sqlite3_column_int64(row, 2));
            if (dataset) {
                gs_datasets_insert(datasets, dataset);
            }
        }
        if (dataset ? load_part(l, dataset, row, error) : gs_dataset_no_memory(error)) {
            sqlite3_reset(row);
            return -1;
        }
    }
    return more;
}

static bool keep(void *argument, const char *name) {
    const gs_datasets *datasets = argument;
    for (size_t i = 0; i < datasets->count; i++) {
        const gs_dataset *dataset = datasets->items[i];
        for (size_t s = 0; s < dataset->count; s++) {
            for (int part = 0; part < GS_PARTS; part++) {
                const gs_blob *blob = dataset->splits[s].parts[part].blob;
                if (blob && !strcmp(gs_blob_name(blob), name)) {
                    return true;
                }
            }
        }
    }
    return false;
}

int gs_datasets_load(gs_datasets *datasets, const gs_log *log, gp_error *error) {
    loading l = {datasets, log};
    const size_t limit = datasets->limit;
    if (gs_store_do(datasets->store, load, &l, error)) {
        return -1;
    }
    datasets->limit = limit;
    gs_store_sweep(datasets->store, GS_FOLDER_DATASETS, keep, datasets);
    return 0;
}

/* ---- changing ------------------------------------------------------------------------------------ */

/* Under the lock. */
static int check_free(const gs_dataset *dataset, gp_error *error) {
    if (dataset && !dataset->id) {
        return gp_fail(error, GP_CONFLICT, "", "%s is built in and stays as it is; take another name",
                       dataset->name);
    }
    if (dataset && dataset->users) {
        return gp_fail(error, GP_CONFLICT, "", "a job uses the dataset \"%s\"; wait for its end or cancel it",
                       dataset->name);
    }
    return 0;
}

/* Does If-Match let the parts there are be replaced? Under the lock. */
static int check_match(const gs_split *split, int part, const char *if_match, gp_error *error) {
    bool any = false, matches = !if_match;
    for (int p = 0; p < GS_PARTS && if_match; p++) {
        if (split && split->parts[p].blob && (part == p || part == GS_PARTS)) {
            any = true;
            matches |= strstr(if_match, split->parts[p].stored.sha256) != NULL;
        }
    }
    matches |= any && !strcmp(if_match, "*");
    return matches ? 0
                   : gp_fail(error, GP_PRECONDITION_FAILED, "",
                             any ? "it has changed: read its ETag again" : "there is nothing yet to match");
}

/* Under the lock. */
static int check_put(gs_datasets *datasets, const char *name, const char *split_name, int part,
                     const char *if_match, gp_error *error) {
    const gs_dataset *dataset = gs_datasets_at(datasets, name);
    const gs_split *split = dataset ? gs_dataset_split_at(dataset, split_name) : NULL;
    if (check_free(dataset, error) || check_match(split, part, if_match, error)) {
        return -1;
    }
    if (!dataset && datasets->count >= datasets->limit) {
        return gp_fail(error, GP_TOO_MANY_DATASETS, "",
                       "there are %zu datasets, as many as --max-datasets allows; delete one",
                       datasets->limit - 1);
    }
    if (dataset && !split && dataset->count == GS_MAX_SPLITS) {
        return gp_fail(error, GP_LIMIT_EXCEEDED, "", "a dataset has at most %d splits", GS_MAX_SPLITS);
    }
    return 0;
}

int gs_datasets_expect(gs_datasets *datasets, const char *name, const char *split, int part,
                       const char *if_match, gp_error *error) {
    pthread_mutex_lock(&datasets->lock);
    int result = check_put(datasets, name, split, part, if_match, error);
    pthread_mutex_unlock(&datasets->lock);
    return result;
}

/* A change on its way through the database. */
typedef struct change {
    gs_dataset *dataset;
    const char *split;
    const gs_upload *upload;
} change;

static int write_part(gs_store *store, const change *c, int part, gp_error *error) {
    const gs_stored *stored = &c->upload->stored[part];
    char shape[GD_MAX_RANK * 24];
    shape_text(&stored->shape, shape, sizeof shape);
    return gs_sql(
        store, error,
        "INSERT OR REPLACE INTO dataset_parts(dataset, split, part, file, dtype, shape, offset, bytes, "
        "sha256) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "isssssiis", c->dataset->id, c->split, gs_part_names[part], c->upload->names[c->upload->file[part]],
        gs_dtype_name(stored->dtype), shape, (int64_t)stored->offset, (int64_t)stored->bytes, stored->sha256);
}

static int write_change(gs_store *store, void *argument, gp_error *error) {
    const change *c = argument;
    if (!c->dataset->id) {
        if (gs_sql(store, error, "INSERT INTO datasets(name, created_ms) VALUES(?, ?)", "si",
                   c->dataset->name, c->dataset->created_ms)) {
            return -1;
        }
        c->dataset->id = gs_sql_last_id(store);
    }
    for (int part = 0; part < GS_PARTS; part++) {
        if (c->upload->found[part] && write_part(store, c, part, error)) {
            return -1;
        }
    }
    return 0;
}

/* Does any part lie in this blob? */
static bool is_used(const gs_dataset *dataset, const gs_blob *blob) {
    for (size_t s = 0; s < dataset->count; s++) {
        for (int part = 0; part < GS_PARTS; part++) {
            if (dataset->splits[s].parts[part].blob == blob) {
                return true;
            }
        }
    }
    return false;
}

/* What a part lay in, when no other does: its file is removed with its last user. Under the lock. */
static void drop(const gs_dataset *dataset, gs_blob *blob) {
    if (blob && !is_used(dataset, blob)) {
        gs_blob_unwanted(blob);
    }
    gs_blob_unref(blob);
}

/* The table's part of a change. Under the lock. @return whether it is new */
static bool apply(gs_dataset *dataset, const char *name, const gs_upload *upload, gs_blob *const *blobs) {
    gs_split *split = gs_dataset_split_at(dataset, name);
    bool created = false;
    split = split ? split : gs_dataset_add_split(dataset, name);
    for (int part = 0; part < GS_PARTS; part++) {
        if (upload->found[part]) {
            gs_blob *old = split->parts[part].blob;
            split->parts[part] =
                (gs_part){.blob = gs_blob_ref(blobs[upload->file[part]]), .stored = upload->stored[part]};
            drop(dataset, old);
            created |= !old;
        }
    }
    return created;
}

/* With `change` held. */
static int put(gs_datasets *datasets, const char *name, const char *split, const gs_upload *upload,
               gs_blob *const *blobs, const char *if_match, bool *ret_created, gp_error *error) {
    pthread_mutex_lock(&datasets->lock);
    int result = check_put(datasets, name, split, upload->part, if_match, error);
    gs_dataset *old = gs_datasets_at(datasets, name),
               *dataset = old || result ? old : gs_dataset_new(datasets, 0, name, gs_time_ms());
    if (!result && (!dataset || !gs_dataset_make_room(dataset))) {
        result = gs_dataset_no_memory(error);
    }
    pthread_mutex_unlock(&datasets->lock);
    change c = {dataset, split, upload};
    if (!result) {
        result = gs_store_do(datasets->store, write_change, &c, error);
    }
    if (result) {
        if (dataset != old) {
            gs_dataset_free(dataset);
        }
        return -1;
    }
    pthread_mutex_lock(&datasets->lock);
    if (!old) {
        gs_datasets_insert(datasets, dataset);
    }
    *ret_created = apply(dataset, split, upload, blobs);
    pthread_mutex_unlock(&datasets->lock);
    return 0;
}

int gs_datasets_put(gs_datasets *datasets, const char *name, const char *split, gs_upload *upload,
                    const char *if_match, bool *ret_created, gp_error *error) {
    gs_blob *blobs[1 + GS_PARTS] = {NULL};
    if (gs_upload_commit(upload, error)) {
        return -1;
    }
    int result = 0;
    for (int i = 0; i < 1 + GS_PARTS && !result; i++) {
        if (*upload->names[i]) {
            blobs[i] = gs_blob_file(datasets->store, upload->names[i]);
            result = blobs[i] ? 0 : gs_dataset_no_memory(error);
        }
    }
    if (!result) {
        pthread_mutex_lock(&datasets->change);
        result = put(datasets, name, split, upload, blobs, if_match, ret_created, error);
        pthread_mutex_unlock(&datasets->change);
    }
    for (int i = 0; i < 1 + GS_PARTS; i++) {
        gs_blob_unref(blobs[i]);
    }
    if (result) {
        gs_upload_take_back(upload);
    }
    return result;
}

static int write_delete(gs_store *store, void *argument, gp_error *error) {
    const gs_dataset *dataset = argument;
    return gs_sql(store, error, "DELETE FROM dataset_parts WHERE dataset = ?", "i", dataset->id) ||
                   gs_sql(store, error, "DELETE FROM datasets WHERE id = ?", "i", dataset->id)
               ? -1
               : 0;
}

/* Under the lock. */
static void take_out(gs_datasets *datasets, const gs_dataset *dataset) {
    bool found;
    size_t at = gs_datasets_position(datasets, dataset->name, &found);
    datasets->count--;
    memmove(datasets->items + at, datasets->items + at + 1, (datasets->count - at) * sizeof *datasets->items);
}

int gs_datasets_delete(gs_datasets *datasets, const char *name, gp_error *error) {
    pthread_mutex_lock(&datasets->change);
    pthread_mutex_lock(&datasets->lock);
    gs_dataset *dataset = gs_datasets_at(datasets, name);
    int result = -1;
    if (dataset) {
        result = check_free(dataset, error);
    } else {
        gs_dataset_not_found(name, error);
    }
    pthread_mutex_unlock(&datasets->lock);
    result = result ? result : gs_store_do(datasets->store, write_delete, dataset, error);
    if (!result) {
        pthread_mutex_lock(&datasets->lock);
        take_out(datasets, dataset);
        pthread_mutex_unlock(&datasets->lock);
        for (size_t s = 0; s < dataset->count; s++) {
            for (int part = 0; part < GS_PARTS; part++) {
                if (dataset->splits[s].parts[part].blob) {
                    gs_blob_unwanted(dataset->splits[s].parts[part].blob);
                }
            }
        }
        gs_dataset_free(dataset);
    }
    pthread_mutex_unlock(&datasets->change);
    return result;
}
