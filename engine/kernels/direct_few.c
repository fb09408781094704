/* direct_few.c -- the gradient of a convolution's weight where filters are fewer than a vector has lanes:
 * lanes are pixels that follow each other in a row. Each step multiplies a vector of dy, for a few filters,
 * with the pixels of x under a few elements (taps) of the window; lanes are added up when all samples are
 * done. */
#include "engine/kernels/direct.h"

#include "engine/core/shape.h"
#include "engine/kernels/border.h"
#include "engine/kernels/vec.h"

enum {
    FILTERS = 3,
    TAPS = GD_LANES < 16 ? 3 : 9, /* of a tile: what sums leave of the registers holds pixels */
    MAX_SUMS = 1024,              /* vectors of sums: 64 kB with AVX-512 */
};

typedef struct few {
    const gd_direct *d;
    gd_border border;
    int64_t taps, rounded; /* rounded up to whole tiles */
    int64_t *offset;       /* (rounded) of each tap's first pixel */
    float *sums;           /* (filters, rounded, GD_LANES) */
    float *image;
} few;

static int64_t rounded_taps(const gd_window *w) {
    return gd_ceil_div(w->channels * gd_window_size(w), TAPS) * TAPS;
}

bool gd_direct_few_pays(const gd_window *w, int64_t filters) {
    return filters < GD_LANES && w->stride[2] == 1 && 2 * w->out[2] >= GD_LANES &&
           w->channels * gd_window_size(w) <= MAX_SUMS && filters * rounded_taps(w) <= MAX_SUMS;
}

bool gd_direct_few_scratch(const gd_window *w, int64_t filters, size_t *ret_bytes) {
    const size_t taps = (size_t)rounded_taps(w);
    size_t image;
    return gd_border_floats(w, &image) && gd_add(image, taps * (size_t)filters * GD_LANES, &image) &&
           gd_mul(image, sizeof(float), &image) && gd_add(image, taps * sizeof(int64_t), ret_bytes);
}

static few few_of(const gd_direct *d, void *scratch) {
    const gd_window *w = &d->window;
    few s = {.d = d, .border = gd_border_of(w, 0), .offset = scratch};
    s.taps = w->channels * gd_window_size(w);
    s.rounded = rounded_taps(w);
    s.sums = (float *)(s.offset + s.rounded);
    s.image = s.sums + d->filters * s.rounded * GD_LANES;
    gd_border_offsets(&s.border, w, s.offset);
    memset(s.offset + s.taps, 0, (size_t)(s.rounded - s.taps) * sizeof *s.offset);
    memset(s.sums, 0, (size_t)(d->filters * s.rounded * GD_LANES) * sizeof *s.sums);
    gd_border_clear(&s.border, w, s.image);
    return s;
}

/* One vector of pixels, or its first lanes. x: the first one; offset: (TAPS) */
GD_INLINE void add_pixels(const int filters, const bool whole, gd_vec_lanes lanes, const float *x,
                          const int64_t *offset, const float *dy, int64_t plane, gd_vec sum[FILTERS][TAPS]) {
    gd_vec g[FILTERS];
#pragma GCC unroll 3
    for (int f = 0; f < filters; f++)
        g[f] = whole ? gd_vec_load(dy + f * plane) : gd_vec_load_some(dy + f * plane, lanes);
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; t++) {
        const float *from = x + offset[t];
        const gd_vec pixels = gd_vec_hold(whole ? gd_vec_load(from) : gd_vec_load_some(from, lanes));
#pragma GCC unroll 3
        for (int f = 0; f < filters; f++)
            sum[f][t] += g[f] * pixels;
    }
}

/* All pixels of one sample. dy: the first filter's plane; offsets: (TAPS); sums: as in `few`, from there on.
 */
GD_INLINE void tile(const int filters, const few *s, const float *image, const float *dy,
                    const int64_t *offsets, float *sums) {
    const gd_window *w = &s->d->window;
    const int64_t width = w->out[2], whole = width - width % GD_LANES, plane = gd_window_count(w);
    const gd_vec_lanes lanes = gd_vec_lanes_of(0, width - whole);
    gd_vec sum[FILTERS][TAPS];
    int64_t offset[TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; t++)
        offset[t] = offsets[t];
#pragma GCC unroll 3
    for (int f = 0; f < filters; f++)
#pragma GCC unroll 9
        for (int t = 0; t < TAPS; t++)
            sum[f][t] = gd_vec_load(sums + (f * s->rounded + t) * GD_LANES);
    for (int64_t depth = 0; depth < w->out[0]; depth++)
        for (int64_t height = 0; height < w->out[1]; height++, dy += width) {
            const float *row = image + (depth * w->stride[0] * s->border.size[1] + height * w->stride[1]) *
                                           s->border.size[2];
            for (int64_t column = 0; column < whole; column += GD_LANES)
                add_pixels(filters, true, lanes, row + column, offset, dy + column, plane, sum);
            if (whole < width)
                add_pixels(filters, false, lanes, row + whole, offset, dy + whole, plane, sum);
        }
#pragma GCC unroll 3
    for (int f = 0; f < filters; f++)
#pragma GCC unroll 9
        for (int t = 0; t < TAPS; t++)
            gd_vec_store(sums + (f * s->rounded + t) * GD_LANES, sum[f][t]);
}

#define BLOCK(N) \
    static void block_##N(const few *s, const float *image, const float *dy, float *sums) { \
        for (int64_t t = 0; t < s->rounded; t += TAPS) \
            tile(N, s, image, dy, s->offset + t, sums + t * GD_LANES); \
    }

BLOCK(1)
BLOCK(2)
BLOCK(3)

static void (*const blocks[])(const few *s, const float *image, const float *dy,
                              float *sums) = {NULL, block_1, block_2, block_3};

/* In four running sums. */
static float sum_of(int64_t count, const float *x) {
    gd_vec sum[4] = {0};
    int64_t i = 0;
    for (; i + 4 * GD_LANES <= count; i += 4 * GD_LANES)
        for (int64_t k = 0; k < 4; k++)
            sum[k] += gd_vec_load(x + i + k * GD_LANES);
    for (; i < count; i += GD_LANES)
        sum[0] += gd_vec_load_some(x + i, gd_vec_lanes_of(0, gd_smaller(count - i, GD_LANES)));
    return gd_vec_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

void gd_direct_few_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight, float *dbias,
                            void *scratch) {
    const few s = few_of(d, scratch);
    const int64_t plane = gd_window_count(&d->window);
    for (int64_t n = 0; n < d->samples; n++, x += d->x_step, dy += d->y_step) {
        const float *image = gd_border_fill(&s.border, &d->window, x, s.image);
        for (int64_t f = 0; f < d->filters; f += FILTERS)
            blocks[gd_smaller(FILTERS, d->filters - f)](&s, image, dy + f * plane,
                                                        s.sums + f * s.rounded * GD_LANES);
        for (int64_t f = 0; dbias && f < d->filters; f++)
            dbias[f] += sum_of(plane, dy + f * plane);
    }
    for (int64_t f = 0; f < d->filters; f++)
        for (int64_t t = 0; t < s.taps; t++)
            dweight[f * s.taps + t] += gd_vec_sum(gd_vec_load(s.sums + (f * s.rounded + t) * GD_LANES));
}
