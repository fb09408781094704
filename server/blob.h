/* blob.h -- bytes that parts of datasets lie in: a file of the datasets folder, or a split of `digits`.
 * Counted references: the file goes with the last one once it is no longer wanted. Any thread. */
#ifndef GRADD_SERVER_BLOB_H
#define GRADD_SERVER_BLOB_H

#include <stdbool.h>
#include <stddef.h>

#include "store.h"
#include "upload.h"

typedef struct gs_blob gs_blob;

/** A file, by its name in the folder, with one reference. NULL: no memory. */
gs_blob *gs_blob_file(gs_store *store, const char *name);
/** digits' train or test: the pixels, then the labels. */
gs_blob *gs_blob_digits(bool test);
gs_blob *gs_blob_ref(gs_blob *blob);
/** NULL is fine. */
void gs_blob_unref(gs_blob *blob);
/** Remove the file when the last reference goes. */
void gs_blob_unwanted(gs_blob *blob);
/** Its name in the folder; "": it has no file. */
const char *gs_blob_name(const gs_blob *blob);
/** Its bytes, mapped or drawn when they are first wanted, there until the last reference goes.
 *  @return 0; -1: storage, memory */
int gs_blob_data(gs_blob *blob, const char **ret_data, size_t *ret_size, gp_error *error);

#endif
