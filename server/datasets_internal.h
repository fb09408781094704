/* datasets_internal.h -- what datasets.c and datasets_store.c share. All of it under the table's lock. */
#ifndef GRADD_SERVER_DATASETS_INTERNAL_H
#define GRADD_SERVER_DATASETS_INTERNAL_H

#include "datasets.h"

struct gs_dataset {
    gs_datasets *all;
    int64_t id; /* in the database; 0: built in */
    char name[GS_NAME];
    int64_t created_ms;
    size_t users;
    gs_split *splits; /* by name */
    size_t count, capacity;
};

/** Where a name is, or where it belongs. */
size_t gs_datasets_position(const gs_datasets *datasets, const char *name, bool *ret_found);
/** NULL: there is none of that name. */
gs_dataset *gs_datasets_at(const gs_datasets *datasets, const char *name);
/** There is room for it. */
void gs_datasets_insert(gs_datasets *datasets, gs_dataset *dataset);
/** One that is not in the table yet. NULL: no memory. */
gs_dataset *gs_dataset_new(gs_datasets *datasets, int64_t id, const char *name, int64_t created_ms);
void gs_dataset_free(gs_dataset *dataset);
/** NULL: there is none of that name. */
gs_split *gs_dataset_split_at(const gs_dataset *dataset, const char *name);
/** Room for one more split, which may move those there are. @return false: no memory */
bool gs_dataset_make_room(gs_dataset *dataset);
/** There is room. */
gs_split *gs_dataset_add_split(gs_dataset *dataset, const char *name);
/** "float32" */
const char *gs_dtype_name(gd_dtype dtype);
/** Fail with these words. @return -1 */
int gs_dataset_no_memory(gp_error *error);
int gs_dataset_not_found(const char *name, gp_error *error);

/** Read the database into the table, and remove files that it does not know. */
int gs_datasets_load(gs_datasets *datasets, const gs_log *log, gp_error *error);

#endif
