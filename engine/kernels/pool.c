/* pool.c -- max pooling. */
#include "engine/kernels/pool.h"

#include <math.h>
#include <stdbool.h>

/* The part of window p that lies on the image: [*first, *last) in steps of dilation. */
static void clip(const gd_window *w, int axis, int64_t p, int64_t *first, int64_t *last) {
    int64_t begin = p * w->stride[axis] - w->padding[axis];
    int64_t end = begin + (w->kernel[axis] - 1) * w->dilation[axis] + 1;
    if (begin < 0)
        begin += (-begin + w->dilation[axis] - 1) / w->dilation[axis] * w->dilation[axis];
    *first = begin;
    *last = end < w->in[axis] ? end : w->in[axis];
}

static void window_max(const gd_window *w, const float *x, int64_t p, int64_t q, float *ret_max,
                       int32_t *ret_at) {
    int64_t y0, y1, x0, x1;
    clip(w, 1, p, &y0, &y1);
    clip(w, 2, q, &x0, &x1);
    /* Dilation and padding can leave a window with no element on the image: -inf, and no gradient. */
    int64_t at = y0 < y1 && x0 < x1 ? y0 * w->in[2] + x0 : -1;
    float max = -INFINITY;
    for (int64_t i = y0; i < y1; i += w->dilation[1])
        for (int64_t j = x0; j < x1; j += w->dilation[2]) {
            float value = x[i * w->in[2] + j];
            if (value > max || value != value) {
                max = value;
                at = i * w->in[2] + j;
            }
        }
    *ret_max = max;
    *ret_at = (int32_t)at;
}

/* Windows of 2x2 side by side, the usual case: branch-free, one row of windows at a time. */
static void max_pool_2x2_row(const float *above, const float *below, int64_t count, int32_t base,
                             int32_t width, float *y, int32_t *argmax) {
    for (int64_t q = 0; q < count; q++) {
        float a = above[2 * q], b = above[2 * q + 1], c = below[2 * q], d = below[2 * q + 1];
        float max = a;
        int32_t at = base + (int32_t)(2 * q), right = at + 1;
        bool take = (b > max) | (b != b);
        max = take ? b : max;
        at = take ? right : at;
        take = (c > max) | (c != c);
        max = take ? c : max;
        at = take ? right - 1 + width : at;
        take = (d > max) | (d != d);
        y[q] = take ? d : max;
        if (argmax)
            argmax[q] = take ? right + width : at;
    }
}

static int is_2x2(const gd_window *w) {
    for (int axis = 1; axis < GD_WINDOW_AXES; axis++)
        if (w->kernel[axis] != 2 || w->stride[axis] != 2 || w->padding[axis] || w->dilation[axis] != 1 ||
            w->out[axis] * 2 > w->in[axis])
            return 0;
    return 1;
}

void gd_max_pool(const gd_window *w, int64_t planes, const float *x, float *y, int32_t *argmax) {
    const int fast = is_2x2(w);
    for (int64_t plane = 0; plane < planes; plane++, x += w->in[1] * w->in[2])
        for (int64_t p = 0; p < w->out[1]; p++, y += w->out[2]) {
            if (fast) {
                const float *above = x + 2 * p * w->in[2];
                max_pool_2x2_row(above, above + w->in[2], w->out[2], (int32_t)(2 * p * w->in[2]),
                                 (int32_t)w->in[2], y, argmax);
            } else {
                for (int64_t q = 0; q < w->out[2]; q++) {
                    int32_t at;
                    window_max(w, x, p, q, &y[q], &at);
                    if (argmax)
                        argmax[q] = at;
                }
            }
            if (argmax)
                argmax += w->out[2];
        }
}

void gd_max_pool_backward(const gd_window *w, int64_t planes, const float *dy, const int32_t *argmax,
                          float *dx) {
    const int64_t windows = w->out[1] * w->out[2];
    for (int64_t plane = 0; plane < planes; plane++, dx += w->in[1] * w->in[2])
        for (int64_t i = 0; i < windows; i++, dy++, argmax++)
            if (*argmax >= 0)
                dx[*argmax] += *dy;
}
