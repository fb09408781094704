/* datasets.h -- named tensors on the disk, for training: a dataset has splits ("train", "test" ...), a split
 * an input and a target, whose first axis is the rows. Files are mapped when they are first read. The
 * built-in dataset `digits` is drawn into memory then, and else like any other. Any thread. */
#ifndef GRADD_SERVER_DATASETS_H
#define GRADD_SERVER_DATASETS_H

#include <pthread.h>
#include <stdbool.h>

#include "engine/gradd_engine.h"
#include "proto/gradd_proto.h"
#include "store.h"
#include "upload.h"

typedef struct gs_server gs_server;
typedef struct gs_log gs_log;
typedef struct gs_blob gs_blob;
typedef struct gs_dataset gs_dataset;

enum { GS_MAX_SPLITS = 64 /* of one dataset */ };

/* ---- for jobs ------------------------------------------------------------------------------------ */

/** Use a dataset: while somebody does, it cannot be changed or deleted. NULL: there is none of that name.
 *  Waits for a change that is being committed: not on the loop's thread. */
gs_dataset *gs_dataset_find(gs_server *server, const char *name);
/** Use it no longer. NULL is fine. */
void gs_dataset_unref(gs_dataset *dataset);
const char *gs_dataset_name(const gs_dataset *dataset);
/**
 * A split's tensors, in place: float32, int64, int32 or uint8, (rows, ...); good while the dataset is used.
 *
 * @return 0; -1: 404 there is no such split, or one of the two is not there; 400 they have not as many rows
 *         (names the first row without the other); 503 a file is damaged
 */
int gs_dataset_split(gs_dataset *dataset, const char *split, gd_tensor *ret_input, gd_tensor *ret_target,
                     gp_error *error);

/* ---- for the handlers ----------------------------------------------------------------------------- */

/** One of a split's tensors. */
typedef struct gs_part {
    gs_blob *blob; /* what it lies in; NULL: there is none */
    gs_stored stored;
    bool damaged; /* its file is gone, or too short */
} gs_part;

typedef struct gs_split {
    char name[GS_NAME];
    gs_part parts[GS_PARTS];
} gs_split;

typedef struct gs_datasets {
    gs_store *store;
    pthread_mutex_t change; /* held by whoever changes table and database together; taken before lock */
    pthread_mutex_t lock;   /* guards everything below, and what it leads to */
    gs_dataset **items;     /* by name */
    size_t count, limit;
} gs_datasets;

/** With what the store has of them, and `digits`. @return 0; -1 with *error filled in */
int gs_datasets_init(gs_datasets *datasets, gs_store *store, const gs_log *log, size_t limit,
                     gp_error *error);
void gs_datasets_release(gs_datasets *datasets);

/** May a part of this split be put, as far as is known before it comes? Brief: for the loop's thread too.
 *  @param part     GS_PARTS: both
 *  @param if_match the header's value, or NULL
 *  @return 0; -1: 409 in use or built in, 412, 429 too many */
int gs_datasets_expect(gs_datasets *datasets, const char *name, const char *split, int part,
                       const char *if_match, gp_error *error);
/** Put what was uploaded: what it replaces is gone with its last user. Waits for the disk.
 *  @return 0; -1, and all is as it was: as above, or storage */
int gs_datasets_put(gs_datasets *datasets, const char *name, const char *split, gs_upload *upload,
                    const char *if_match, bool *ret_created, gp_error *error);
/** @return 0; -1: 404; 409 in use or built in; storage */
int gs_datasets_delete(gs_datasets *datasets, const char *name, gp_error *error);

/** One dataset as JSON, a new reference. NULL with *error filled in: there is none */
json_t *gs_datasets_json(gs_datasets *datasets, const char *name, gp_error *error);
/** {"items": [...], "next_cursor": ...}: up to `limit` of them whose names follow `after`. */
json_t *gs_datasets_list(gs_datasets *datasets, const char *after, size_t limit);
/** {"dtype", "shape", "rows", "bytes", "sha256"}. A new reference. */
json_t *gs_stored_json(const gs_stored *stored);

/** A part with a reference on what it lies in: gs_part_release() it. @return 0; -1: 404 */
int gs_datasets_part(gs_datasets *datasets, const char *name, const char *split, int part, gs_part *ret_part,
                     gp_error *error);
/** Its first byte, mapped or drawn now if need be. NULL: it is damaged */
const void *gs_part_data(gs_part *part, gp_error *error);
void gs_part_release(gs_part *part);

#endif
