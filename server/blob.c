/* blob.c */
#include "blob.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/gradd_engine.h"

struct gs_blob {
    atomic_int references;
    atomic_bool unwanted;
    gs_store *store; /* NULL: digits */
    char name[GS_FILE_NAME];
    bool test;            /* of digits */
    pthread_mutex_t lock; /* guards what follows, until it is there */
    const char *data;
    size_t size;
};

static gs_blob *new_blob(gs_store *store) {
    gs_blob *blob = calloc(1, sizeof *blob);
    if (blob) {
        atomic_init(&blob->references, 1);
        pthread_mutex_init(&blob->lock, NULL);
        blob->store = store;
    }
    return blob;
}

gs_blob *gs_blob_file(gs_store *store, const char *name) {
    gs_blob *blob = new_blob(store);
    if (blob) {
        snprintf(blob->name, sizeof blob->name, "%s", name);
    }
    return blob;
}

gs_blob *gs_blob_digits(bool test) {
    gs_blob *blob = new_blob(NULL);
    if (blob) {
        blob->test = test;
    }
    return blob;
}

gs_blob *gs_blob_ref(gs_blob *blob) {
    atomic_fetch_add_explicit(&blob->references, 1, memory_order_relaxed);
    return blob;
}

void gs_blob_unref(gs_blob *blob) {
    if (!blob || atomic_fetch_sub_explicit(&blob->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (blob->store) {
        gs_file_unmap(blob->data, blob->size);
        if (atomic_load(&blob->unwanted)) {
            gs_file_remove(blob->store, GS_FOLDER_DATASETS, blob->name);
        }
    } else {
        free((void *)(uintptr_t)blob->data);
    }
    pthread_mutex_destroy(&blob->lock);
    free(blob);
}

void gs_blob_unwanted(gs_blob *blob) {
    atomic_store(&blob->unwanted, true);
}

const char *gs_blob_name(const gs_blob *blob) {
    return blob->name;
}

static int draw(gs_blob *blob, gp_error *error) {
    const int64_t rows = blob->test ? GD_DIGITS_TEST : GD_DIGITS_TRAIN;
    const size_t pixels = (size_t)rows * GD_DIGITS_SIDE * GD_DIGITS_SIDE; /* a multiple of 8 */
    char *data = malloc(pixels + (size_t)rows * sizeof(int64_t));
    if (!data) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the digits");
    }
    gd_digits(blob->test, 0, rows, (uint8_t *)data, (int64_t *)(data + pixels));
    blob->data = data;
    blob->size = pixels + (size_t)rows * sizeof(int64_t);
    return 0;
}

int gs_blob_data(gs_blob *blob, const char **ret_data, size_t *ret_size, gp_error *error) {
    int result = 0;
    pthread_mutex_lock(&blob->lock);
    if (!blob->data && blob->store) {
        const void *data;
        result = gs_file_map(blob->store, GS_FOLDER_DATASETS, blob->name, &data, &blob->size, error);
        blob->data = result ? NULL : data;
    } else if (!blob->data) {
        result = draw(blob, error);
    }
    *ret_data = blob->data;
    *ret_size = blob->size;
    pthread_mutex_unlock(&blob->lock);
    return result;
}
