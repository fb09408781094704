/* transform.c -- pad or resize pictures, then scale and normalise them, as PyTorch would in float32. */
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "data.h"

/* One plane of a picture, (height, width). */
typedef struct plane {
    int64_t height, width;
} plane;

/* out (height + 2 pad, width + 2 pad) is zero already. */
static void pad_plane(const float *in, plane from, int64_t pad, float *out) {
    int64_t width = from.width + 2 * pad;
    for (int64_t y = 0; y < from.height; y++) {
        memcpy(out + (y + pad) * width + pad, in + y * from.width, (size_t)from.width * sizeof *out);
    }
}

/* Between which two rows (or columns) an output row lies, and how near the second. */
typedef struct tap {
    int64_t first, second;
    float weight; /* of the second */
} tap;

/* Pixels are areas (align_corners=False): the centre of output i lies at (i + 0.5) * in / out - 0.5. */
static tap tap_at(int64_t i, int64_t in, int64_t out) {
    float position = (float)in / (float)out * ((float)i + 0.5f) - 0.5f;
    position = position < 0 ? 0 : position;
    int64_t first = (int64_t)position;
    first = first < in ? first : in - 1;
    return (tap){first, first + 1 < in ? first + 1 : first, position - (float)first};
}

static void resize_plane(const float *in, plane from, plane to, float *out) {
    for (int64_t y = 0; y < to.height; y++) {
        tap v = tap_at(y, from.height, to.height);
        const float *above = in + v.first * from.width, *below = in + v.second * from.width;
        for (int64_t x = 0; x < to.width; x++) {
            tap h = tap_at(x, from.width, to.width);
            float top = (1 - h.weight) * above[h.first] + h.weight * above[h.second];
            float bottom = (1 - h.weight) * below[h.first] + h.weight * below[h.second];
            out[y * to.width + x] = (1 - v.weight) * top + v.weight * bottom;
        }
    }
}

static void normalise(const ctl_transform *t, float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        values[i] = (values[i] * t->scale - t->mean) / t->std;
    }
}

/* Plane i of the source as floats. */
static void load_plane(const ctl_images *images, int64_t i, int64_t size, float *out) {
    if (images->values) {
        memcpy(out, images->values + i * size, (size_t)size * sizeof *out);
        return;
    }
    for (int64_t k = 0; k < size; k++) {
        out[k] = images->bytes[i * size + k];
    }
}

int ctl_images_transform(const ctl_transform *t, ctl_images *images) {
    plane from = {images->height, images->width};
    plane to =
        t->height ? (plane){t->height, t->width} : (plane){from.height + 2 * t->pad, from.width + 2 * t->pad};
    int64_t planes, total, area;
    if (__builtin_mul_overflow(images->count, images->channels, &planes) ||
        __builtin_mul_overflow(to.height, to.width, &area) || __builtin_mul_overflow(planes, area, &total) ||
        total > INT64_MAX / (int64_t)sizeof(float)) {
        return ctl_error("the transformed pictures would be too large");
    }
    float *scratch = calloc((size_t)(from.height * from.width), sizeof *scratch);
    float *values = calloc((size_t)total, sizeof *values);
    if (!scratch || !values) {
        free(scratch);
        free(values);
        return ctl_error("no memory for %lld MB of transformed pictures",
                         (long long)(total * (int64_t)sizeof(float) >> 20));
    }
    for (int64_t i = 0; i < planes; i++) {
        load_plane(images, i, from.height * from.width, scratch);
        if (t->height) {
            resize_plane(scratch, from, to, values + i * area);
        } else {
            pad_plane(scratch, from, t->pad, values + i * area);
        }
    }
    normalise(t, values, total);
    free(scratch);
    free(images->bytes);
    free(images->values);
    images->bytes = NULL;
    images->values = values;
    images->height = to.height;
    images->width = to.width;
    return CTL_OK;
}
