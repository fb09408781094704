/* data.c -- read MNIST's files, or fetch a dataset from the daemon. */
#include "data.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "proto/gradd_codec.h"
#include "sampler.h"

enum {
    MAX_FILE = 1 << 30, /* bytes, gzipped and plain */
    PAGE_ROWS = 1000,   /* rows of one request */
};

void ctl_images_release(ctl_images *images) {
    free(images->bytes);
    free(images->values);
    free(images->labels);
    *images = (ctl_images){0};
}

/* ---- files ---------------------------------------------------------------------------------------- */

/* The file or its gzipped twin, expanded. */
static int read_idx(const char *directory, const char *name, char **ret_data, gp_array *ret_array) {
    char path[PATH_MAX];
    char *data = NULL;
    size_t size = 0;
    gp_error why = {0};
    int length = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (length < 0 || (size_t)length + sizeof ".gz" > sizeof path) {
        return ctl_error("--data: the folder's name is too long");
    }
    if (access(path, F_OK) != 0) {
        memcpy(path + length, ".gz", sizeof ".gz");
        if (access(path, F_OK) != 0) {
            return ctl_error("--data: %s holds neither %s nor %s.gz", directory, name, name);
        }
    }
    int status = ctl_file_read(path, MAX_FILE, &data, &size);
    if (status) {
        return status;
    }
    if (gp_format_detect(data, size) == GP_GZIP) {
        void *plain = NULL;
        if (gp_gunzip(data, size, MAX_FILE, &plain, &size, &why)) {
            free(data);
            return ctl_error("%s: %s", path, why.detail);
        }
        free(data);
        data = plain;
    }
    if (gp_idx_read(data, size, ret_array, &why)) {
        free(data);
        return ctl_error("%s: %s", path, why.detail);
    }
    *ret_data = data;
    return CTL_OK;
}

/* (N, H, W) or (N, C, H, W), uint8 kept as it is, anything else as float32. */
static int take_pictures(const gp_array *array, const char *name, ctl_images *images) {
    int64_t numel = gp_array_numel(array);
    gp_error why = {0};
    if ((array->rank != 3 && array->rank != 4) || numel <= 0) {
        return ctl_error("%s: pictures are (N, H, W) or (N, C, H, W), and at least one", name);
    }
    images->count = array->dim[0];
    images->channels = array->rank == 4 ? array->dim[1] : 1;
    images->height = array->dim[array->rank - 2];
    images->width = array->dim[array->rank - 1];
    if (array->dtype == GP_UINT8) {
        images->bytes = malloc((size_t)numel);
        if (images->bytes) {
            memcpy(images->bytes, array->data, (size_t)numel);
        }
    } else {
        images->values = calloc((size_t)numel, sizeof *images->values);
        if (images->values && gp_array_convert(array, GP_FLOAT32, images->values, name, &why)) {
            return ctl_error("%s", why.detail);
        }
    }
    return images->bytes || images->values ? CTL_OK : ctl_error("no memory for the pictures of %s", name);
}

static int take_labels(const gp_array *array, const char *name, ctl_images *images) {
    gp_error why = {0};
    if (images->count < 1 || array->rank != 1 || array->dim[0] != images->count) {
        return ctl_error("%s: there must be one label for each of the %lld pictures", name,
                         (long long)images->count);
    }
    images->labels = calloc((size_t)images->count, sizeof *images->labels);
    if (!images->labels) {
        return ctl_error("no memory for the labels of %s", name);
    }
    return gp_array_convert(array, GP_INT64, images->labels, name, &why) ? ctl_error("%s", why.detail)
                                                                         : CTL_OK;
}

int ctl_images_read(const char *directory, const char *stem, ctl_images *ret_images) {
    static const struct {
        const char *suffix;
        int (*take)(const gp_array *array, const char *name, ctl_images *images);
    } parts[] = {{"images-idx3-ubyte", take_pictures}, {"labels-idx1-ubyte", take_labels}};
    ctl_images images = {0};
    int status = CTL_OK;
    for (size_t i = 0; i < 2 && !status; i++) {
        char name[64];
        char *data = NULL;
        gp_array array = {0};
        snprintf(name, sizeof name, "%s-%s", stem, parts[i].suffix);
        status = read_idx(directory, name, &data, &array);
        if (!status) {
            status = parts[i].take(&array, name, &images);
        }
        free(data);
    }
    if (status) {
        ctl_images_release(&images);
    } else {
        *ret_images = images;
    }
    return status;
}

/* ---- the daemon's datasets --------------------------------------------------------------------------- */

/* All rows of a column as one tensor. */
static int fetch_column(gradd_client *client, const char *dataset, const char *split, const char *column,
                        gradd_tensor *ret_tensor) {
    gradd_tensor all = {0};
    gradd_error error;
    int status = CTL_OK;
    for (bool more = true; more;) {
        gradd_tensor page = {0};
        int64_t rows = all.data ? all.shape[0] : 0;
        if (gradd_dataset_rows(client, dataset, split, column, rows, PAGE_ROWS, &page, &error)) {
            status = ctl_call_error(&error);
            break;
        }
        more = page.rank > 0 && page.shape[0] == PAGE_ROWS;
        if (!all.data) {
            all = page;
            continue;
        }
        size_t width = page.dtype == GRADD_INT64 ? sizeof(int64_t) : sizeof(float);
        size_t old = (size_t)gradd_tensor_numel(&all) * width,
               added = (size_t)gradd_tensor_numel(&page) * width;
        bool same = page.rank == all.rank && page.dtype == all.dtype &&
                    memcmp(page.shape + 1, all.shape + 1, (size_t)(page.rank - 1) * sizeof *page.shape) == 0;
        void *data =
            same && page.shape[0] < CTL_RANDPERM_MAX - rows ? realloc(all.data, old + added + 1) : NULL;
        if (data) {
            memcpy((char *)data + old, page.data, added);
            all.data = data;
            all.shape[0] += page.shape[0];
        } else {
            status = ctl_error("dataset %s: its pages do not fit together, or into memory", dataset);
            more = false;
        }
        gradd_tensor_free(&page);
    }
    if (status) {
        gradd_tensor_free(&all);
    } else {
        *ret_tensor = all;
    }
    return status;
}

/* Pixels as they came: whole numbers 0 ... 255 as bytes, as in MNIST's files, or float32. */
static int take_pixels(gradd_tensor *input, ctl_images *images) {
    int64_t numel = gradd_tensor_numel(input);
    if (input->dtype == GRADD_FLOAT32) {
        images->values = input->data;
        input->data = NULL;
        return CTL_OK;
    }
    images->bytes = malloc((size_t)numel);
    if (!images->bytes) {
        return ctl_error("no memory for the pictures");
    }
    for (int64_t i = 0; i < numel; i++) {
        int64_t pixel = ((const int64_t *)input->data)[i];
        if (pixel < 0 || pixel > UINT8_MAX) {
            return ctl_error("a pixel is %lld, not 0 to 255", (long long)pixel);
        }
        images->bytes[i] = (uint8_t)pixel;
    }
    return CTL_OK;
}

int ctl_images_fetch(gradd_client *client, const char *dataset, const char *split, ctl_images *ret_images) {
    gradd_tensor input = {0}, target = {0};
    ctl_images images = {0};
    int status = fetch_column(client, dataset, split, "input", &input);
    if (!status) {
        status = fetch_column(client, dataset, split, "target", &target);
    }
    if (status) {
        goto out;
    }
    bool fits = (input.rank == 3 || input.rank == 4) && target.rank == 1 && target.dtype == GRADD_INT64 &&
                target.shape[0] == input.shape[0] && gradd_tensor_numel(&input) > 0;
    if (!fits) {
        status =
            ctl_error("dataset %s: its split %s does not hold pictures with a class each", dataset, split);
        goto out;
    }
    images = (ctl_images){.count = input.shape[0],
                          .channels = input.rank == 4 ? input.shape[1] : 1,
                          .height = input.shape[input.rank - 2],
                          .width = input.shape[input.rank - 1],
                          .labels = target.data};
    target.data = NULL;
    status = take_pixels(&input, &images);
    if (!status) {
        *ret_images = images;
        images = (ctl_images){0};
    }
out:
    ctl_images_release(&images);
    gradd_tensor_free(&input);
    gradd_tensor_free(&target);
    return status;
}
