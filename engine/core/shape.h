/* shape.h -- shapes and the only place where sizes are multiplied. */
#ifndef GD_CORE_SHAPE_H
#define GD_CORE_SHAPE_H

#include "engine/core/error.h"

/** a * b or a + b into *result. @return false on overflow */
static inline bool gd_mul(size_t a, size_t b, size_t *result) {
    return !__builtin_mul_overflow(a, b, result);
}
static inline bool gd_add(size_t a, size_t b, size_t *result) {
    return !__builtin_add_overflow(a, b, result);
}
/** Round up to a multiple of a cache line (64 bytes). @return false on overflow */
bool gd_round_up(size_t bytes, size_t *result);

static inline int64_t gd_smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t gd_larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}
/** a / b, rounded up; both above 0. */
static inline int64_t gd_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/** Product of the axes first ... last - 1. */
int64_t gd_numel_of(const gd_shape *shape, int first, int last);
/** The shape with its first axis replaced, or (with batch < 0) removed. */
gd_shape gd_shape_with_batch(const gd_shape *shape, int64_t batch);
gd_shape gd_shape_without_batch(const gd_shape *shape);
/** A sample's shape with a batch axis put before it. */
gd_shape gd_shape_batched(const gd_shape *sample, int64_t batch);
#define GD_SHAPE(...) \
    ((gd_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = {__VA_ARGS__}})

/** A batch's shape without its batch axis, as users give samples: "[1, 32, 32]". Returns text. */
const char *gd_sample_text(const gd_shape *shape, char *text, size_t size);

/** Bytes of a tensor that is known to be valid. */
size_t gd_tensor_bytes(const gd_tensor *tensor);

#endif
