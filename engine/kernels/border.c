/* border.c -- copies of images with a border of zeros. */
#include "engine/kernels/border.h"

#include "engine/core/shape.h"
#include "engine/kernels/vec.h"

/* What windows cover along an axis, from the first one's begin to the last one's end. */
static int64_t covered(const gd_window *w, int axis) {
    return (w->out[axis] - 1) * w->stride[axis] + w->dilation[axis] * (w->kernel[axis] - 1) + 1;
}

gd_border gd_border_of(const gd_window *w, int64_t slack) {
    gd_border b = {.slack = w->out[2] < slack};
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++) {
        b.copied = b.copied || w->padding[axis] || covered(w, axis) > w->in[axis];
        b.slack = b.slack && covered(w, axis) == w->in[axis];
    }
    b.slack = b.slack && !b.copied;
    b.copied = b.copied || w->out[2] < slack;
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++)
        b.size[axis] = b.copied ? covered(w, axis) : w->in[axis];
    b.pixels = b.size[0] * b.size[1] * b.size[2];
    return b;
}

bool gd_border_floats(const gd_window *w, size_t *ret_floats) {
    *ret_floats = (size_t)w->channels;
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++)
        if (!gd_mul(*ret_floats, (size_t)covered(w, axis), ret_floats))
            return false;
    return gd_add(*ret_floats, GD_LANES, ret_floats);
}

void gd_border_clear(const gd_border *b, const gd_window *w, float *scratch) {
    if (b->copied)
        memset(scratch, 0, (size_t)(w->channels * b->pixels + GD_LANES) * sizeof *scratch);
}

/* A row by whole vectors, the last of which may overlap the one before; or by part of one. */
static inline void copy_row(const float *from, int64_t count, gd_vec_lanes lanes, float *to) {
    if (count < GD_LANES) {
        gd_vec_store_some(to, gd_vec_load_some(from, lanes), lanes);
        return;
    }
    for (int64_t i = 0; i < count - GD_LANES; i += GD_LANES)
        gd_vec_store(to + i, gd_vec_load(from + i));
    gd_vec_store(to + count - GD_LANES, gd_vec_load(from + count - GD_LANES));
}

const float *gd_border_fill(const gd_border *b, const gd_window *w, const float *image, float *scratch) {
    if (!b->copied)
        return image;
    int64_t first[GD_WINDOW_AXES], last[GD_WINDOW_AXES]; /* what of the copy is image */
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++) {
        const int64_t end = w->in[axis] + w->padding[axis];
        first[axis] = w->padding[axis] > 0 ? w->padding[axis] : 0;
        last[axis] = end < b->size[axis] ? end : b->size[axis];
    }
    const int64_t count = last[2] - first[2];
    const gd_vec_lanes lanes = gd_vec_lanes_of(0, gd_smaller(count, GD_LANES));
    const int64_t begin = (first[1] - w->padding[1]) * w->in[2] + first[2] - w->padding[2];
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t h = first[0]; h < last[0]; h++) {
            const float *from = image + (c * w->in[0] + h - w->padding[0]) * w->in[1] * w->in[2] + begin;
            float *to = scratch + c * b->pixels + (h * b->size[1] + first[1]) * b->size[2] + first[2];
            for (int64_t i = first[1]; i < last[1]; i++, from += w->in[2], to += b->size[2])
                copy_row(from, count, lanes, to);
        }
    return scratch;
}

void gd_border_offsets(const gd_border *b, const gd_window *w, int64_t *offsets) {
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t h = 0; h < w->kernel[0]; h++)
            for (int64_t i = 0; i < w->kernel[1]; i++) {
                const int64_t row = (h * w->dilation[0] * b->size[1] + i * w->dilation[1]) * b->size[2];
                for (int64_t j = 0; j < w->kernel[2]; j++)
                    *offsets++ = c * b->pixels + row + j * w->dilation[2];
            }
}
