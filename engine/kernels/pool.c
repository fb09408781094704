/* pool.c -- max pooling. */
#include "engine/kernels/pool.h"

#include "engine/kernels/vec.h"

enum { HALF = GD_LANES / 2 };

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

/* Windows of 2x2 side by side, the usual case: branch-free, one row of windows at a time. */
GD_INLINE void take_larger(gd_vec value, gd_vec_mask here, gd_vec *max, gd_vec_mask *at) {
    const gd_vec_mask take = (value > *max) | ~(value <= gd_vec_all(INFINITY)); /* larger, or NaN */
    *max = gd_vec_select(take, value, *max);
    *at = (take & here) | (~take & *at);
}

/* Vectors of windows whose halves begin at q and r. */
GD_INLINE void max_pool_2x2_vec(const float *above, const float *below, int64_t q, int64_t r, int32_t base,
                                int32_t width, float *y, int32_t *argmax) {
    const gd_vec a0 = gd_vec_load(above + 2 * q), a1 = gd_vec_load(above + 2 * r);
    const gd_vec b0 = gd_vec_load(below + 2 * q), b1 = gd_vec_load(below + 2 * r);
    gd_vec max = gd_vec_even(a0, a1);
    gd_vec_mask first, at;
    for (int i = 0; i < GD_LANES; i++)
        first[i] = base + 2 * (int32_t)(i < HALF ? q + i : r + i - HALF);
    at = first;
    take_larger(gd_vec_odd(a0, a1), first + 1, &max, &at);
    take_larger(gd_vec_even(b0, b1), first + width, &max, &at);
    take_larger(gd_vec_odd(b0, b1), first + width + 1, &max, &at);
    memcpy(y + q, &max, sizeof max / 2);
    memcpy(y + r, (char *)&max + sizeof max / 2, sizeof max / 2);
    if (argmax) {
        memcpy(argmax + q, &at, sizeof at / 2);
        memcpy(argmax + r, (char *)&at + sizeof at / 2, sizeof at / 2);
    }
}

static void max_pool_2x2_row(const float *above, const float *below, int64_t count, int32_t base,
                             int32_t width, float *y, int32_t *argmax) {
    const int64_t fit = count - HALF; /* where the last half of a vector begins; it may overlap another */
    for (int64_t q = 0; fit >= 0 && q < count; q += GD_LANES)
        max_pool_2x2_vec(above, below, q < fit ? q : fit, q + HALF < fit ? q + HALF : fit, base, width, y,
                         argmax);
    for (int64_t q = 0; fit < 0 && q < count; q++) {
        const int32_t here = base + (int32_t)(2 * q);
        const float value[] = {above[2 * q], above[2 * q + 1], below[2 * q], below[2 * q + 1]};
        const int32_t index[] = {here, here + 1, here + width, here + width + 1};
        int best = 0;
        for (int i = 1; i < 4; i++)
            best = (value[i] > value[best]) | (value[i] != value[i]) ? i : best;
        y[q] = value[best];
        if (argmax)
            argmax[q] = index[best];
    }
}

static int is_2x2(const gd_window *w) {
    if (w->in[0] != 1 || w->kernel[0] != 1 || w->padding[0])
        return 0;
    for (int axis = 1; axis < GD_WINDOW_AXES; axis++)
        if (w->kernel[axis] != 2 || w->stride[axis] != 2 || w->padding[axis] || w->dilation[axis] != 1 ||
            w->out[axis] * 2 > w->in[axis])
            return 0;
    return 1;
}

static void max_pool_2x2(const gd_window *w, const float *x, float *y, int32_t *argmax) {
    for (int64_t p = 0; p < w->out[1]; p++) {
        const int64_t row = p * w->out[2], above = 2 * p * w->in[2];
        max_pool_2x2_row(x + above, x + above + w->in[2], w->out[2], (int32_t)above, (int32_t)w->in[2],
                         y + row, argmax ? argmax + row : NULL);
    }
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
    const int fast = is_2x2(w);
    for (int64_t plane = 0; plane < planes; plane++, x += pixels, y += windows) {
        int32_t *at = argmax ? argmax + plane * windows : NULL;
        if (fast)
            max_pool_2x2(w, x, y, at);
        else
            max_pool_plane(w, clip, x, y, at);
    }
}

void gd_adaptive_max_pool(const gd_window *w, int64_t planes, const float *x, float *y, int32_t *argmax) {
    const int64_t pixels = gd_window_pixels(w), windows = gd_window_count(w);
    for (int64_t plane = 0; plane < planes; plane++, x += pixels, y += windows)
        max_pool_plane(w, adapt, x, y, argmax ? argmax + plane * windows : NULL);
}

void gd_max_pool_backward(const gd_window *w, int64_t planes, const float *dy, const int32_t *argmax,
                          float *dx) {
    const int64_t pixels = gd_window_pixels(w), windows = gd_window_count(w);
    for (int64_t plane = 0; plane < planes; plane++, dx += pixels)
        for (int64_t i = 0; i < windows; i++, dy++, argmax++)
            if (*argmax >= 0)
                dx[*argmax] += *dy;
}
