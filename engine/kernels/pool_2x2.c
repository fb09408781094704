/* pool_2x2.c -- max pooling by windows of 2x2 side by side, the usual case: without branches, a vector of
 * windows at a time. Its halves are windows that follow each other in a row, but not always in the same row:
 * so narrow planes fill a vector, too. */
#include "engine/kernels/pool.h"

#include "engine/core/shape.h"
#include "engine/kernels/vec.h"

enum { HALF = GD_LANES / 2 };

/* The windows of a plane by halves. Rows end with a half that overlaps the one before, or are shorter than
 * one: then it is not whole, and an odd image's last column goes along with it. Given by value, so that it
 * stays in registers whatever is written. */
typedef struct halves {
    int64_t rows, width; /* windows of a plane */
    int64_t image_width;
    int64_t count;                /* windows of a half */
    gd_vec_lanes windows, pixels; /* of a half, and of a row of its image */
} halves;

/* Where a half's first window lies on the image, and among the windows. */
typedef struct place {
    int64_t image, window;
} place;

static halves halves_of(const gd_window *w) {
    const int64_t count = gd_smaller(w->out[2], HALF);
    return (halves){.rows = w->out[1],
                    .width = w->out[2],
                    .image_width = w->in[2],
                    .count = count,
                    .windows = gd_vec_lanes_of(0, count),
                    .pixels = gd_vec_lanes_of(0, count == HALF ? GD_LANES : w->in[2])};
}

static int64_t pairs_of(const halves *h) {
    return gd_ceil_div(h->rows * gd_ceil_div(h->width, HALF), 2);
}

/* Goes through the halves of a plane; after the last: that one again. */
typedef struct cursor {
    int64_t rows, column; /* rows that are left, this one included */
    place begin;          /* of the row */
} cursor;

GD_INLINE place next_place(halves h, cursor *c) {
    const int64_t column = gd_smaller(c->column, h.width - h.count);
    const place here = {.image = c->begin.image + 2 * column, .window = c->begin.window + column};
    c->column += HALF;
    if (c->column >= h.width && c->rows > 1) {
        c->column = 0;
        c->rows--;
        c->begin.image += 2 * h.image_width;
        c->begin.window += h.width;
    }
    return here;
}

GD_INLINE gd_vec load_pixels(const bool whole, halves h, const float *from) {
    return whole ? gd_vec_load(from) : gd_vec_load_some(from, h.pixels);
}

GD_INLINE void store_pixels(const bool whole, halves h, float *to, gd_vec v) {
    if (whole)
        gd_vec_store(to, v);
    else
        gd_vec_store_some(to, v, h.pixels);
}

/* Numbers of the windows of two halves. */
GD_INLINE gd_vec load_windows(const bool whole, halves h, const float *windows, place a, place b) {
    if (whole)
        return gd_vec_load_halves(windows + a.window, windows + b.window);
    return gd_vec_load_some(windows + a.window, h.windows) +
           gd_vec_swap(gd_vec_load_some(windows + b.window, h.windows));
}

GD_INLINE void store_windows(const bool whole, halves h, float *windows, place a, place b, gd_vec v) {
    if (whole) {
        gd_vec_store_halves(windows + a.window, windows + b.window, v);
    } else {
        gd_vec_store_some(windows + a.window, v, h.windows);
        gd_vec_store_some(windows + b.window, gd_vec_swap(v), h.windows);
    }
}

/* Each window's byte, in order. A half that is not whole writes beyond its row, and the next row over that.
 */
GD_INLINE void store_bytes(uint8_t *at, place a, place b, gd_vec_mask which) {
    uint8_t bytes[GD_LANES];
    gd_vec_store_bytes(bytes, which);
    memcpy(at + a.window, bytes, HALF);
    memcpy(at + b.window, bytes + HALF, HALF);
}

GD_INLINE gd_vec_mask load_bytes(const uint8_t *at, place a, place b) {
    uint8_t bytes[GD_LANES];
    memcpy(bytes, at + a.window, HALF);
    memcpy(bytes + HALF, at + b.window, HALF);
    return gd_vec_load_bytes(bytes);
}

GD_INLINE void plane_max(const bool whole, halves h, const float *x, float *y, uint8_t *at) {
    const int64_t width = h.image_width;
    cursor c = {.rows = h.rows};
    for (int64_t left = pairs_of(&h); left; left--) {
        const place a = next_place(h, &c), b = next_place(h, &c);
        const gd_vec above_a = load_pixels(whole, h, x + a.image),
                     above_b = load_pixels(whole, h, x + b.image);
        const gd_vec below_a = load_pixels(whole, h, x + a.image + width),
                     below_b = load_pixels(whole, h, x + b.image + width);
        gd_vec max = gd_vec_even(above_a, above_b);
        gd_vec_mask which = {0};
        gd_vec_take_larger(gd_vec_odd(above_a, above_b), 1, &max, &which);
        gd_vec_take_larger(gd_vec_even(below_a, below_b), 2, &max, &which);
        gd_vec_take_larger(gd_vec_odd(below_a, below_b), 3, &max, &which);
        store_windows(whole, h, y, a, b, max);
        if (at)
            store_bytes(at, a, b, which);
    }
}

/* What no half covers: an odd plane's last column, if halves are whole, and its last row. */
static void clear_rest(halves h, int64_t height, float *dx) {
    for (int64_t row = 0; h.count == HALF && 2 * h.width < h.image_width && row < 2 * h.rows; row++)
        dx[row * h.image_width + 2 * h.width] = 0;
    if (2 * h.rows < height)
        memset(dx + 2 * h.rows * h.image_width, 0, (size_t)h.image_width * sizeof *dx);
}

GD_INLINE gd_vec gradient_at(gd_vec dy, gd_vec_mask which, int32_t here) {
    return (gd_vec)((which == here) & (gd_vec_mask)dy);
}

GD_INLINE void plane_gradient(const bool whole, halves h, const float *y, const float *dy, const uint8_t *at,
                              float *dx) {
    const int64_t width = h.image_width;
    cursor c = {.rows = h.rows};
    for (int64_t left = pairs_of(&h); left; left--) {
        const place a = next_place(h, &c), b = next_place(h, &c);
        gd_vec g = load_windows(whole, h, dy, a, b);
        const gd_vec_mask which = load_bytes(at, a, b);
        if (y)
            g = (gd_vec)(~(gd_vec_mask)(load_windows(whole, h, y, a, b) <= 0) & (gd_vec_mask)g);
        const gd_vec even_above = gradient_at(g, which, 0), odd_above = gradient_at(g, which, 1);
        const gd_vec even_below = gradient_at(g, which, 2), odd_below = gradient_at(g, which, 3);
        store_pixels(whole, h, dx + a.image, gd_vec_low(even_above, odd_above));
        store_pixels(whole, h, dx + a.image + width, gd_vec_low(even_below, odd_below));
        store_pixels(whole, h, dx + b.image, gd_vec_high(even_above, odd_above));
        store_pixels(whole, h, dx + b.image + width, gd_vec_high(even_below, odd_below));
    }
}

/* Windows one by one; those of overlapping halves once. */
static void plane_gradient_add(halves h, const float *y, const float *dy, const uint8_t *at, float *dx) {
    for (int64_t row = 0; row < h.rows; row++)
        for (int64_t half = 0; half < h.width; half += HALF) {
            const int64_t column = gd_smaller(half, h.width - h.count), window = row * h.width + column;
            float *to = dx + 2 * (row * h.image_width + column);
            for (int64_t i = half - column; i < h.count; i++) {
                const float g = y && y[window + i] <= 0 ? 0 : dy[window + i];
                const uint8_t which = at[window + i];
                to[which / 2 * h.image_width + 2 * i + which % 2] += g;
            }
        }
}

bool gd_pool_is_2x2(const gd_window *w) {
    if (w->in[0] != 1 || w->kernel[0] != 1 || w->padding[0])
        return false;
    for (int axis = 1; axis < GD_WINDOW_AXES; axis++)
        if (w->kernel[axis] != 2 || w->stride[axis] != 2 || w->padding[axis] || w->dilation[axis] != 1 ||
            w->out[axis] * 2 > w->in[axis])
            return false;
    return true;
}

int64_t gd_max_pool_2x2_bytes(int64_t windows) {
    return gd_ceil_div(windows + GD_LANES, GD_LANES) * GD_LANES;
}

void gd_max_pool_2x2(const gd_window *w, int64_t planes, const float *x, float *y, uint8_t *at) {
    const halves h = halves_of(w);
    const int64_t bytes = gd_max_pool_2x2_bytes(gd_window_count(w));
    for (int64_t plane = 0; plane < planes; plane++) {
        uint8_t *here = at ? at + plane * bytes : NULL;
        if (h.count == HALF)
            plane_max(true, h, x, y, here);
        else
            plane_max(false, h, x, y, here);
        x += gd_window_pixels(w);
        y += gd_window_count(w);
    }
}

void gd_max_pool_2x2_backward(const gd_window *w, int64_t planes, const float *y, const float *dy,
                              const uint8_t *at, bool accumulate, float *dx) {
    const halves h = halves_of(w);
    for (int64_t plane = 0; plane < planes; plane++) {
        const int64_t first = plane * gd_window_count(w);
        if (accumulate)
            plane_gradient_add(h, y ? y + first : NULL, dy + first, at, dx);
        else if (h.count == HALF)
            plane_gradient(true, h, y ? y + first : NULL, dy + first, at, dx);
        else
            plane_gradient(false, h, y ? y + first : NULL, dy + first, at, dx);
        if (!accumulate)
            clear_rest(h, w->in[1], dx);
        at += gd_max_pool_2x2_bytes(gd_window_count(w));
        dx += gd_window_pixels(w);
    }
}
