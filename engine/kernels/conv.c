/* conv.c -- im2col and col2im. */
#include "engine/kernels/conv.h"

#include <stdbool.h>
#include <string.h>

gd_window gd_window_reverse(const gd_window *w, int64_t filters) {
    gd_window r = *w;
    r.channels = filters;
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++) {
        r.in[axis] = w->out[axis];
        r.out[axis] = w->in[axis];
        r.padding[axis] = w->dilation[axis] * (w->kernel[axis] - 1) - w->padding[axis];
    }
    return r;
}

/* The windows p for which 0 <= p * stride + offset < in: [*first, *last). */
static void valid_range(int64_t offset, int64_t stride, int64_t in, int64_t out, int64_t *first,
                        int64_t *last) {
    int64_t low = offset < 0 ? (-offset + stride - 1) / stride : 0;
    int64_t high = offset < in ? (in - 1 - offset) / stride + 1 : 0;
    *first = low < out ? low : out;
    *last = high < out ? high : out;
    if (*last < *first)
        *last = *first;
}

/* Element (h, i, j) of every window: where it lies in window 0, and the columns whose pixel is inside. */
typedef struct element {
    int64_t offset[GD_WINDOW_AXES];
    int64_t first, last;
} element;

static element element_of(const gd_window *w, int64_t index) {
    const int64_t at[] = {index / (w->kernel[1] * w->kernel[2]), index / w->kernel[2] % w->kernel[1],
                          index % w->kernel[2]};
    element e;
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++)
        e.offset[axis] = at[axis] * w->dilation[axis] - w->padding[axis];
    valid_range(e.offset[2], w->stride[2], w->in[2], w->out[2], &e.first, &e.last);
    return e;
}

/* Where the element's row of pixels begins for the row (o, p) of windows; false: outside the image. */
static bool row_of(const gd_window *w, const element *e, int64_t o, int64_t p, int64_t *ret_start) {
    const int64_t z = o * w->stride[0] + e->offset[0], y = p * w->stride[1] + e->offset[1];
    *ret_start = (z * w->in[1] + y) * w->in[2] + e->offset[2];
    return z >= 0 && z < w->in[0] && y >= 0 && y < w->in[1];
}

/* One element of all windows: a row of the column matrix. */
static void gather(const gd_window *w, const element *e, const float *plane, float *column) {
    for (int64_t o = 0; o < w->out[0]; o++)
        for (int64_t p = 0; p < w->out[1]; p++, column += w->out[2]) {
            int64_t start;
            if (!row_of(w, e, o, p, &start)) {
                memset(column, 0, (size_t)w->out[2] * sizeof *column);
                continue;
            }
            const float *row = plane + start;
            for (int64_t q = 0; q < e->first; q++)
                column[q] = 0;
            if (w->stride[2] == 1)
                memcpy(column + e->first, row + e->first, (size_t)(e->last - e->first) * sizeof *column);
            else
                for (int64_t q = e->first; q < e->last; q++)
                    column[q] = row[q * w->stride[2]];
            for (int64_t q = e->last; q < w->out[2]; q++)
                column[q] = 0;
        }
}

static void scatter_add(const gd_window *w, const element *e, const float *column, float *plane) {
    for (int64_t o = 0; o < w->out[0]; o++)
        for (int64_t p = 0; p < w->out[1]; p++, column += w->out[2]) {
            int64_t start;
            if (!row_of(w, e, o, p, &start))
                continue;
            float *row = plane + start;
            if (w->stride[2] == 1)
                for (int64_t q = e->first; q < e->last; q++)
                    row[q] += column[q];
            else
                for (int64_t q = e->first; q < e->last; q++)
                    row[q * w->stride[2]] += column[q];
        }
}

void gd_im2col(const gd_window *w, const float *image, float *column) {
    const int64_t windows = gd_window_count(w);
    for (int64_t c = 0; c < w->channels; c++, image += gd_window_pixels(w))
        for (int64_t k = 0; k < gd_window_size(w); k++, column += windows) {
            const element e = element_of(w, k);
            gather(w, &e, image, column);
        }
}

void gd_col2im_add(const gd_window *w, const float *column, float *image) {
    const int64_t windows = gd_window_count(w);
    for (int64_t c = 0; c < w->channels; c++, image += gd_window_pixels(w))
        for (int64_t k = 0; k < gd_window_size(w); k++, column += windows) {
            const element e = element_of(w, k);
            scatter_add(w, &e, column, image);
        }
}
