/* pool.c -- max pooling. */
#include "engine/kernels/pool.h"

#include <math.h>

/* The part of a window that lies on the image, per axis: first ... last - 1 in steps. */
typedef struct part {
    int64_t first[GD_WINDOW_AXES], last[GD_WINDOW_AXES], step[GD_WINDOW_AXES];
} part;

static void clip(const gd_window *w, int axis, int64_t p, part *ret_part) {
    const int64_t step = w->dilation[axis];
    int64_t begin = p * w->stride[axis] - w->padding[axis];
    int64_t end = begin + (w->kernel[axis] - 1) * step + 1;
    if (begin < 0)
        begin += (-begin + step - 1) / step * step;
    ret_part->first[axis] = begin;
    ret_part->last[axis] = end < w->in[axis] ? end : w->in[axis];
    ret_part->step[axis] = step;
}

static void adapt(const gd_window *w, int axis, int64_t p, part *ret_part) {
    gd_adaptive_span(w, axis, p, &ret_part->first[axis], &ret_part->last[axis]);
    ret_part->step[axis] = 1;
}

static void window_max(const gd_window *w, const float *x, const part *a, float *ret_max, int32_t *ret_at) {
    const int64_t height = w->in[1], width = w->in[2];
    int64_t at = (a->first[0] * height + a->first[1]) * width + a->first[2];
    float max = -INFINITY;
    /* Dilation and padding can leave a window with no element on the image: -inf, and no gradient. */
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++)
        if (a->first[axis] >= a->last[axis])
            at = -1;
    for (int64_t h = a->first[0]; h < a->last[0]; h += a->step[0])
        for (int64_t i = a->first[1]; i < a->last[1]; i += a->step[1])
            for (int64_t j = a->first[2]; j < a->last[2]; j += a->step[2]) {
                const int64_t here = (h * height + i) * width + j;
                const float value = x[here];
                if (value > max || value != value) {
                    max = value;
                    at = here;
                }
            }
    *ret_max = max;
    *ret_at = (int32_t)at;
}

/* One plane, with windows as `place` puts them. */
static void max_pool_plane(const gd_window *w, void (*place)(const gd_window *, int, int64_t, part *),
                           const float *x, float *y, int32_t *argmax) {
    int64_t i = 0;
    part a;
    for (int64_t o = 0; o < w->out[0]; o++) {
        place(w, 0, o, &a);
        for (int64_t p = 0; p < w->out[1]; p++) {
            place(w, 1, p, &a);
            for (int64_t q = 0; q < w->out[2]; q++, i++) {
                int32_t at;
                place(w, 2, q, &a);
                window_max(w, x, &a, &y[i], &at);
                if (argmax)
                    argmax[i] = at;
            }
        }
    }
}

void gd_max_pool(const gd_window *w, int64_t planes, const float *x, float *y, int32_t *argmax) {
    const int64_t pixels = gd_window_pixels(w), windows = gd_window_count(w);
    for (int64_t plane = 0; plane < planes; plane++, x += pixels, y += windows)
        max_pool_plane(w, clip, x, y, argmax ? argmax + plane * windows : NULL);
}

void gd_adaptive_max_pool(const gd_window *w, int64_t planes, const float *x, float *y, int32_t *argmax) {
    const int64_t pixels = gd_window_pixels(w), windows = gd_window_count(w);
    for (int64_t plane = 0; plane < planes; plane++, x += pixels, y += windows)
        max_pool_plane(w, adapt, x, y, argmax ? argmax + plane * windows : NULL);
}

void gd_max_pool_backward(const gd_window *w, int64_t planes, const float *y, const float *dy,
                          const int32_t *argmax, float *dx) {
    const int64_t pixels = gd_window_pixels(w), windows = gd_window_count(w);
    for (int64_t plane = 0; plane < planes; plane++, dx += pixels)
        for (int64_t i = plane * windows; i < (plane + 1) * windows; i++)
            if (argmax[i] >= 0 && !(y && y[i] <= 0))
                dx[argmax[i]] += dy[i];
}
