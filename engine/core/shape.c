/* shape.c -- shapes, dtypes, and checked size arithmetic. */
#include "engine/core/shape.h"

#include <inttypes.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [GD_FLOAT32] = {"float32", 4}, [GD_INT64] = {"int64", 8},     [GD_INT32] = {"int32", 4},
    [GD_UINT8] = {"uint8", 1},     [GD_FLOAT64] = {"float64", 8},
};

size_t gd_dtype_size(gd_dtype dtype) {
    return dtypes[dtype].size;
}

const char *gd_dtype_name(gd_dtype dtype) {
    return dtypes[dtype].name;
}

int64_t gd_numel_of(const gd_shape *shape, int first, int last) {
    int64_t product = 1;
    for (int i = first; i < last; i++)
        product *= shape->dim[i];
    return product;
}

int64_t gd_numel(const gd_shape *shape) {
    return gd_numel_of(shape, 0, shape->rank);
}

bool gd_shape_equal(const gd_shape *a, const gd_shape *b) {
    return a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

const char *gd_shape_text(const gd_shape *shape, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < shape->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i ? ", " : "", shape->dim[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
    return text;
}

bool gd_round_up(size_t bytes, size_t *result) {
    size_t raised;
    if (!gd_add(bytes, 63, &raised))
        return false;
    *result = raised & ~(size_t)63;
    return true;
}

int gd_shape_bytes(const gd_shape *shape, gd_dtype dtype, size_t *ret_bytes, gd_error *error) {
    size_t bytes = gd_dtype_size(dtype);
    bool empty = false;
    if (shape->rank < 0 || shape->rank > GD_MAX_RANK)
        return gd_fail(error, GD_E_LIMIT, "a tensor of %d axes; at most %d are possible", shape->rank,
                       GD_MAX_RANK);
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 0)
            return gd_fail(error, GD_E_SHAPE, "axis %d has a negative size, %" PRId64, i, shape->dim[i]);
        if (shape->dim[i] == 0)
            empty = true;
        else if (!gd_mul(bytes, (size_t)shape->dim[i], &bytes) || bytes > (size_t)INT64_MAX / 4)
            return gd_fail(error, GD_E_LIMIT, "a tensor larger than any memory; make axis %d smaller", i);
    }
    *ret_bytes = empty ? 0 : bytes;
    return 0;
}

gd_shape gd_shape_with_batch(const gd_shape *shape, int64_t batch) {
    gd_shape result = *shape;
    result.dim[0] = batch;
    return result;
}

gd_shape gd_shape_without_batch(const gd_shape *shape) {
    gd_shape result = {.rank = shape->rank ? shape->rank - 1 : 0};
    for (int i = 0; i < result.rank; i++)
        result.dim[i] = shape->dim[i + 1];
    return result;
}

gd_shape gd_shape_batched(const gd_shape *sample, int64_t batch) {
    gd_shape result = {.rank = sample->rank + 1, .dim = {batch}};
    for (int i = 0; i < sample->rank && i + 1 < GD_MAX_RANK; i++)
        result.dim[i + 1] = sample->dim[i];
    return result;
}

const char *gd_sample_text(const gd_shape *shape, char *text, size_t size) {
    const gd_shape sample = gd_shape_without_batch(shape);
    return gd_shape_text(&sample, text, size);
}

size_t gd_tensor_bytes(const gd_tensor *tensor) {
    return (size_t)gd_numel(&tensor->shape) * gd_dtype_size(tensor->dtype);
}
