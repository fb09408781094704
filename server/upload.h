/* upload.h -- an uploaded file on its way to become tensors in files of the datasets folder: little-endian,
 * row-major, of a type that the engine reads, so that they can be mapped. By one thread. */
#ifndef GRADD_SERVER_UPLOAD_H
#define GRADD_SERVER_UPLOAD_H

#include <stdatomic.h>

#include "engine/gradd_engine.h"
#include "proto/gradd_proto.h"
#include "store.h"

typedef struct gs_server gs_server;

enum { GS_PARTS = 2 }; /* of a split: its input and its target */
/** "input", "target" */
extern const char *const gs_part_names[GS_PARTS];
/** By its name; -1: neither. */
int gs_part_find(const char *name);

enum { GS_NAME = 65 /* bytes of a name, with the NUL */, GS_FILE_NAME = 40 };

/** A tensor in a file. */
typedef struct gs_stored {
    gd_dtype dtype;
    gd_shape shape;  /* rank >= 1, no axis 0 */
    uint64_t offset; /* of its first byte in the file, a multiple of the element's size */
    uint64_t bytes;
    char sha256[GS_NAME]; /* of these bytes */
} gs_stored;

typedef struct gs_upload {
    gs_store *store;
    const atomic_bool *stop; /* give up */
    uint64_t max;            /* bytes of each file */
    int part;                /* what is uploaded; GS_PARTS: both, under their names */
    gp_error error;          /* why there is nothing */
    bool found[GS_PARTS];
    gs_stored stored[GS_PARTS];
    int file[GS_PARTS];          /* which of `files` each is in */
    gs_file files[1 + GS_PARTS]; /* the first as it came, or what was in it; then what was rewritten */
    char names[1 + GS_PARTS][GS_FILE_NAME]; /* once committed; "" before */
} gs_upload;

/** @param part "input", "target", or NULL: both */
void gs_upload_init(gs_upload *upload, gs_server *server, const char *part);
/** Take everything that comes, and tell the format from the first bytes. Either upload->error is set and
 *  nothing is left, or `found` says what there is. */
void gs_upload_receive(gs_upload *upload, gp_read *read, void *argument);
/** Make the files last, under names of their own. @return 0; -1: storage */
int gs_upload_commit(gs_upload *upload, gp_error *error);
/** Remove what was not committed. */
void gs_upload_release(gs_upload *upload);
/** And what was: nobody uses it after all. */
void gs_upload_take_back(gs_upload *upload);

#endif
