/* pooled.c -- a convolution by 3x3 and max pooling by 2x2 in one go, by sums held in registers: of a few
 * filters, the four elements of a window in four vectors, whose lanes are windows that follow each other.
 *
 * For that an image is laid out by phases: the pixels of even and of odd rows and columns, in four planes. In
 * these the pixels that the same element of a window's convolution needs for windows side by side lie side by
 * side. Windows are counted along a phase's rows, which have one pixel more than there are windows: each row
 * ends with a window too many, whose maximum is made but not kept. */
#include "engine/kernels/pooled.h"

#include "engine/core/shape.h"
#include "engine/kernels/pool.h"
#include "engine/kernels/vec.h"
#include "engine/kernels/winograd.h"

enum {
    KERNEL = 3,
    TAPS = KERNEL * KERNEL,
    SIDE = KERNEL + 1, /* of the pixels under a window */
    ELEMENTS = 4,      /* of a window, and phases */
    FILTERS = GD_LANES < 16 ? 2 : 4,
};

typedef struct sweep {
    const gd_direct *d;
    int64_t rows, columns; /* windows */
    int64_t pitch;         /* of a phase's rows */
    int64_t count;         /* windows with those too many, in whole vectors */
    int64_t phase;         /* floats of one, and what vectors read beyond it */
    bool relu;
    float *planes;  /* (channels, ELEMENTS, phase) */
    float *weight;  /* by blocks of filters: (channels, TAPS, filters of the block) */
    float *max;     /* (FILTERS, count) */
    uint8_t *which; /* (FILTERS, count) */
} sweep;

static int64_t whole_vectors(int64_t count) {
    return gd_ceil_div(count, GD_LANES) * GD_LANES;
}

bool gd_pooled_pays(const gd_window *w, int64_t filters) {
    if (w->in[0] != 1 || w->kernel[0] != 1 || gd_winograd_pays(GD_DIRECT_FORWARD, w, filters))
        return false;
    for (int axis = 1; axis < GD_WINDOW_AXES; axis++)
        if (w->kernel[axis] != KERNEL || w->stride[axis] != 1 || w->dilation[axis] != 1 || w->padding[axis] ||
            w->out[axis] < 2)
            return false;
    return gd_pooled_gradient_pays(w, filters);
}

static int64_t phase_of(const gd_window *w) {
    const int64_t rows = w->out[1] / 2, pitch = w->out[2] / 2 + 1;
    return whole_vectors(whole_vectors(rows * pitch) + pitch + 1 + GD_LANES);
}

bool gd_pooled_scratch(const gd_window *w, int64_t filters, size_t *ret_bytes) {
    const size_t phase = (size_t)phase_of(w); /* a block's maximum and which it is take less */
    size_t bytes, gradient;
    if (!gd_pooled_gradient_scratch(w, filters, &gradient) ||
        !gd_mul(phase, (size_t)w->channels * ELEMENTS + 2 * FILTERS, &bytes) ||
        !gd_add(bytes, (size_t)whole_vectors(w->channels * TAPS * filters), &bytes) ||
        !gd_mul(bytes, sizeof(float), &bytes))
        return false;
    *ret_bytes = bytes > gradient ? bytes : gradient;
    return true;
}

static sweep sweep_of(const gd_direct *d, bool relu, void *scratch) {
    const int64_t *out = d->window.out;
    sweep s = {.d = d, .rows = out[1] / 2, .columns = out[2] / 2, .relu = relu, .planes = scratch};
    s.pitch = s.columns + 1;
    s.count = whole_vectors(s.rows * s.pitch);
    s.phase = phase_of(&d->window);
    s.weight = s.planes + d->window.channels * ELEMENTS * s.phase;
    s.max = s.weight + whole_vectors(d->window.channels * TAPS * d->filters);
    s.which = (uint8_t *)(s.max + FILTERS * s.count);
    return s;
}

/* ---- the image and the weight ----------------------------------------------------------------------- */

/* Filters are cut into blocks of nearly equal size: block i begins here. */
static int64_t block_begin(int64_t filters, int64_t i) {
    return i * filters / gd_ceil_div(filters, FILTERS);
}

static void lay_weight(const sweep *s, const float *weight) {
    const int64_t taps = s->d->window.channels * TAPS;
    float *to = s->weight;
    for (int64_t i = 0, f = 0; f < s->d->filters; i++) {
        const int64_t end = block_begin(s->d->filters, i + 1);
        for (int64_t t = 0; t < taps; t++)
            for (int64_t n = f; n < end; n++)
                *to++ = weight[n * taps + t];
        f = end;
    }
}

/* Rows are written by whole vectors, the last of which ends in the next row, or beyond the phase. */
static void lay_planes(const sweep *s, const float *image) {
    const gd_window *w = &s->d->window;
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t r = 0; r < 2 * (s->rows + 1); r++) {
            const float *from = image + (c * w->in[1] + r) * w->in[2];
            float *even = s->planes + (c * ELEMENTS + r % 2 * 2) * s->phase + r / 2 * s->pitch;
            for (int64_t i = 0; i < s->pitch; i += GD_LANES) {
                const int64_t left = 2 * (s->pitch - i), right = left > GD_LANES ? left - GD_LANES : 0;
                const gd_vec a =
                    gd_vec_load_some(from + 2 * i, gd_vec_lanes_of(0, gd_smaller(left, GD_LANES)));
                const gd_vec b = gd_vec_load_some(from + 2 * i + GD_LANES,
                                                  gd_vec_lanes_of(0, gd_smaller(right, GD_LANES)));
                gd_vec_store(even + i, gd_vec_even(a, b));
                gd_vec_store(even + s->phase + i, gd_vec_odd(a, b));
            }
        }
}

/* ---- tiles ------------------------------------------------------------------------------------------ */

/* The pixels of a row under a vector of windows. */
GD_INLINE void load_row(const sweep *s, int row, const float *planes, gd_vec pixels[SIDE]) {
    const float *even = planes + row % 2 * 2 * s->phase + row / 2 * s->pitch;
#pragma GCC unroll 4
    for (int i = 0; i < SIDE; i++)
        pixels[i] = gd_vec_load(even + i % 2 * s->phase + i / 2);
}

/* planes: those of the first channel, at the first window; weight: (channels, TAPS, filters) */
GD_INLINE void tile(const int filters, const sweep *s, const float *planes, const float *weight,
                    const float *bias, float *max, uint8_t *which) {
    gd_vec sum[FILTERS][ELEMENTS];
#pragma GCC unroll 4
    for (int f = 0; f < filters; f++)
#pragma GCC unroll 4
        for (int e = 0; e < ELEMENTS; e++)
            sum[f][e] = gd_vec_all(bias ? bias[f] : 0);
    for (int64_t c = 0; c < s->d->window.channels; c++, planes += ELEMENTS * s->phase) {
        gd_vec pixels[2][SIDE];
        load_row(s, 0, planes, pixels[0]);
#pragma GCC unroll 3
        for (int i = 0; i < KERNEL; i++) {
            const gd_vec *above = pixels[i % 2], *below = pixels[(i + 1) % 2];
            load_row(s, i + 1, planes, pixels[(i + 1) % 2]);
#pragma GCC unroll 3
            for (int j = 0; j < KERNEL; j++, weight += filters)
#pragma GCC unroll 4
                for (int f = 0; f < filters; f++) {
                    const gd_vec factor = gd_vec_all(weight[f]);
                    sum[f][0] += factor * above[j];
                    sum[f][1] += factor * above[j + 1];
                    sum[f][2] += factor * below[j];
                    sum[f][3] += factor * below[j + 1];
                }
        }
    }
#pragma GCC unroll 4
    for (int f = 0; f < filters; f++) {
        gd_vec largest = sum[f][0];
        gd_vec_mask at = {0};
#pragma GCC unroll 4
        for (int e = 1; e < ELEMENTS; e++)
            gd_vec_take_larger(sum[f][e], e, &largest, &at);
        gd_vec_store(max + f * s->count, s->relu ? gd_vec_relu(largest) : largest);
        gd_vec_store_bytes(which + f * s->count, at);
    }
}

/* All windows of a block of filters. */
#define BLOCK(N) \
    static void block_##N(const sweep *s, const float *weight, const float *bias) { \
        for (int64_t i = 0; i < s->count; i += GD_LANES) \
            tile(N, s, s->planes + i, weight, bias, s->max + i, s->which + i); \
    }
BLOCK(1)
BLOCK(2)
#if defined(__AVX512F__)
BLOCK(3)
BLOCK(4)
#endif

static void (*const blocks[FILTERS + 1])(const sweep *s, const float *weight,
                                         const float *bias) = {NULL, block_1, block_2,
#if defined(__AVX512F__)
                                                               block_3, block_4
#endif
};

/* ---- the pass --------------------------------------------------------------------------------------- */

/* Filter f's of the block, without the windows too many. Bytes are written by whole vectors, the last of
 * which ends in the next row, or beyond the plane, where there is room. */
static void keep(const sweep *s, int64_t f, float *y, uint8_t *at) {
    const float *max = s->max + f * s->count;
    const uint8_t *which = s->which + f * s->count;
    for (int64_t row = 0; row < s->rows; row++, max += s->pitch, which += s->pitch)
        for (int64_t i = 0; i < s->columns; i += GD_LANES) {
            const gd_vec_lanes lanes = gd_vec_lanes_of(0, gd_smaller(s->columns - i, GD_LANES));
            gd_vec_store_some(y + row * s->columns + i, gd_vec_load_some(max + i, lanes), lanes);
            if (at)
                memcpy(at + row * s->columns + i, which + i, GD_LANES);
        }
}

void gd_pooled_forward(const gd_direct *d, const gd_pooled *pooled, const float *x, const float *weight,
                       const float *bias, void *scratch) {
    const sweep s = sweep_of(d, pooled->relu, scratch);
    const int64_t bytes = gd_max_pool_2x2_bytes(s.rows * s.columns), taps = d->window.channels * TAPS;
    float *y = pooled->y;
    uint8_t *at = pooled->at;
    lay_weight(&s, weight);
    for (int64_t n = 0; n < d->samples; n++, x += d->x_step) {
        lay_planes(&s, x);
        for (int64_t i = 0, f = 0; f < d->filters; i++) {
            const int64_t begin = f, end = block_begin(d->filters, i + 1);
            blocks[end - begin](&s, s.weight + begin * taps, bias ? bias + begin : NULL);
            for (; f < end; f++, y += s.rows * s.columns) {
                keep(&s, f - begin, y, at);
                at = at ? at + bytes : NULL;
            }
        }
    }
}
