/* avg_pool.c -- average pooling. */
#include <string.h>

#include "engine/kernels/pool.h"

/* ---- windows of one size ------------------------------------------------------------------------- */

/* One window along one axis: the elements on the image, and how many it counts. */
typedef struct span {
    int64_t first, last, count;
} span;

static span span_of(const gd_window *w, bool include_pad, int axis, int64_t p) {
    const int64_t begin = p * w->stride[axis] - w->padding[axis];
    const int64_t end = begin + w->kernel[axis], edge = w->in[axis] + w->padding[axis];
    span s = {.first = begin > 0 ? begin : 0, .last = end < w->in[axis] ? end : w->in[axis]};
    s.count = include_pad ? (end < edge ? end : edge) - begin : s.last - s.first;
    return s;
}

/* Elements of a window that are on the image in any of a row's windows: first ... last - 1. (A window may be
 * far larger than the image, with padding to match.) */
static int64_t first_element(const gd_window *w) {
    const int64_t first = w->padding[2] - (w->out[2] - 1) * w->stride[2];
    return first > 0 ? first : 0;
}

static int64_t last_element(const gd_window *w) {
    const int64_t last = w->in[2] + w->padding[2];
    return last < w->kernel[2] ? last : w->kernel[2];
}

/* For which windows of a row is their element j on the image? begin ... end - 1 */
static void windows_with(const gd_window *w, int64_t j, int64_t *ret_begin, int64_t *ret_end) {
    const int64_t offset = j - w->padding[2], stride = w->stride[2];
    const int64_t room = w->in[2] - offset; /* q stride < room */
    const int64_t end = room > 0 ? (room + stride - 1) / stride : 0;
    *ret_begin = offset < 0 ? (-offset + stride - 1) / stride : 0;
    *ret_end = end < w->out[2] ? end : w->out[2];
}

/* values[q] /= what window q of the row divides by; `others` are counted along the other axes. */
static void divide_row(const gd_window *w, gd_divisor divisor, double others, float *values) {
    for (int64_t q = 0; q < w->out[2]; q++) {
        const double count = others * (double)span_of(w, divisor.include_pad, 2, q).count;
        values[q] /= (float)(divisor.divisor ? (double)divisor.divisor : count);
    }
}

/* y[q] += row[q stride + j - padding], for each element j of the windows */
static void add_row(const gd_window *w, const float *row, float *y) {
    for (int64_t j = first_element(w); j < last_element(w); j++) {
        int64_t begin, end;
        windows_with(w, j, &begin, &end);
        const float *from = row + j - w->padding[2];
#pragma omp simd
        for (int64_t q = begin; q < end; q++)
            y[q] += from[q * w->stride[2]];
    }
}

/* The reverse. */
static void spread_row(const gd_window *w, const float *dy, float *row) {
    for (int64_t j = first_element(w); j < last_element(w); j++) {
        int64_t begin, end;
        windows_with(w, j, &begin, &end);
        for (int64_t q = begin; q < end; q++)
            row[q * w->stride[2] + j - w->padding[2]] += dy[q];
    }
}

void gd_avg_pool(const gd_window *w, gd_divisor divisor, int64_t planes, const float *x, float *y) {
    for (int64_t plane = 0; plane < planes; plane++, x += gd_window_pixels(w))
        for (int64_t o = 0; o < w->out[0]; o++) {
            const span depth = span_of(w, divisor.include_pad, 0, o);
            for (int64_t p = 0; p < w->out[1]; p++, y += w->out[2]) {
                const span height = span_of(w, divisor.include_pad, 1, p);
                memset(y, 0, (size_t)w->out[2] * sizeof *y);
                for (int64_t h = depth.first; h < depth.last; h++)
                    for (int64_t i = height.first; i < height.last; i++)
                        add_row(w, x + (h * w->in[1] + i) * w->in[2], y);
                divide_row(w, divisor, (double)depth.count * (double)height.count, y);
            }
        }
}

void gd_avg_pool_backward(const gd_window *w, gd_divisor divisor, int64_t planes, const float *dy, float *row,
                          float *dx) {
    for (int64_t plane = 0; plane < planes; plane++, dx += gd_window_pixels(w))
        for (int64_t o = 0; o < w->out[0]; o++) {
            const span depth = span_of(w, divisor.include_pad, 0, o);
            for (int64_t p = 0; p < w->out[1]; p++, dy += w->out[2]) {
                const span height = span_of(w, divisor.include_pad, 1, p);
                memcpy(row, dy, (size_t)w->out[2] * sizeof *row);
                divide_row(w, divisor, (double)depth.count * (double)height.count, row);
                for (int64_t h = depth.first; h < depth.last; h++)
                    for (int64_t i = height.first; i < height.last; i++)
                        spread_row(w, row, dx + (h * w->in[1] + i) * w->in[2]);
            }
        }
}

/* ---- as many windows as wanted ------------------------------------------------------------------- */

typedef struct box {
    int64_t first[GD_WINDOW_AXES], last[GD_WINDOW_AXES];
} box;

static box box_of(const gd_window *w, int64_t window) {
    const int64_t at[GD_WINDOW_AXES] = {window / w->out[2] / w->out[1], window / w->out[2] % w->out[1],
                                        window % w->out[2]};
    box b;
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++)
        gd_adaptive_span(w, axis, at[axis], &b.first[axis], &b.last[axis]);
    return b;
}

static int64_t box_size(const box *b) {
    return (b->last[0] - b->first[0]) * (b->last[1] - b->first[1]) * (b->last[2] - b->first[2]);
}

void gd_adaptive_avg_pool(const gd_window *w, int64_t planes, const float *x, float *y) {
    for (int64_t plane = 0; plane < planes; plane++, x += gd_window_pixels(w))
        for (int64_t k = 0; k < gd_window_count(w); k++) {
            const box b = box_of(w, k);
            double sum = 0;
            for (int64_t h = b.first[0]; h < b.last[0]; h++)
                for (int64_t i = b.first[1]; i < b.last[1]; i++) {
                    const float *row = x + (h * w->in[1] + i) * w->in[2];
                    float part = 0;
#pragma omp simd reduction(+ : part)
                    for (int64_t j = b.first[2]; j < b.last[2]; j++)
                        part += row[j];
                    sum += (double)part;
                }
            *y++ = (float)(sum / (double)box_size(&b));
        }
}

void gd_adaptive_avg_pool_backward(const gd_window *w, int64_t planes, const float *dy, float *dx) {
    for (int64_t plane = 0; plane < planes; plane++, dx += gd_window_pixels(w))
        for (int64_t k = 0; k < gd_window_count(w); k++) {
            const box b = box_of(w, k);
            const float share = *dy++ / (float)box_size(&b);
            for (int64_t h = b.first[0]; h < b.last[0]; h++)
                for (int64_t i = b.first[1]; i < b.last[1]; i++) {
                    float *row = dx + (h * w->in[1] + i) * w->in[2];
#pragma omp simd
                    for (int64_t j = b.first[2]; j < b.last[2]; j++)
                        row[j] += share;
                }
        }
}
