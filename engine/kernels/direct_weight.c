/* direct_weight.c -- the gradient of a convolution's weight as sums held in registers: vectors of filters by
 * several elements (taps) of the window. Each step loads one pixel of dy in all those filters, for which dy
 * is turned so that a pixel's filters lie side by side, and multiplies it with the pixels of x under the
 * taps. Any stride and any width go through it. */
#include "engine/core/shape.h"
#include "engine/kernels/border.h"
#include "engine/kernels/vec.h"
#include "engine/kernels/winograd.h"

enum {
    STRIP = 256, /* pixels after which sums go to memory: fewer round less, and so much of dy stays in L1 */
    WIDE_TAPS = 6,
    NARROW_TAPS = 9, /* taps of a tile of 2 and of 1 vectors of filters */
    TAP_ROUND = WIDE_TAPS * NARROW_TAPS / 3,
};

typedef struct gather {
    const gd_direct *d;
    gd_border border;
    int64_t taps, pixels, strip; /* strip: rows */
    int64_t *offset;             /* (taps rounded up) of each tap's first pixel */
    float *sums;                 /* by blocks of filters: (taps rounded up, filters of the block) */
    float *turned;               /* (pixels, filters of the block): dy */
    float *bias;                 /* (filters) */
    float *image;
} gather;

static int64_t rounded(int64_t count, int64_t step) {
    return (count + step - 1) / step * step;
}

static gather gather_of(const gd_direct *d, void *scratch) {
    const gd_window *w = &d->window;
    gather g = {.d = d, .border = gd_border_of(w, 0), .offset = scratch};
    g.taps = w->channels * gd_window_size(w);
    g.pixels = gd_window_count(w);
    g.strip = (STRIP + w->out[2] - 1) / w->out[2];
    const int64_t taps = rounded(g.taps, TAP_ROUND), filters = rounded(d->filters, GD_LANES);
    g.sums = (float *)(g.offset + taps);
    g.bias = g.sums + taps * filters;
    g.turned = g.bias + filters;
    g.image = g.turned + 2 * GD_LANES * g.pixels;
    gd_border_offsets(&g.border, w, g.offset);
    memset(g.offset + g.taps, 0, (size_t)(taps - g.taps) * sizeof *g.offset);
    memset(g.sums, 0, (size_t)((taps + 1) * filters) * sizeof *g.sums);
    gd_border_clear(&g.border, w, g.image);
    return g;
}

bool gd_direct_weight_scratch(const gd_window *w, int64_t filters, size_t *ret_bytes) {
    size_t taps, sums, turned = 2 * GD_LANES, image;
    if (gd_direct_few_pays(w, filters))
        return gd_direct_few_scratch(w, filters, ret_bytes);
    for (int axis = 0; axis < GD_WINDOW_AXES; axis++)
        if (!gd_mul(turned, (size_t)w->out[axis], &turned))
            return false;
    return gd_add((size_t)filters, GD_LANES, &sums) &&
           gd_mul((size_t)w->channels, (size_t)gd_window_size(w), &taps) && gd_add(taps, TAP_ROUND, &taps) &&
           gd_mul(sums, taps + 1, &sums) && gd_border_floats(w, &image) && gd_add(sums, image, &image) &&
           gd_add(turned, image, &image) && gd_mul(image, sizeof(float), &image) &&
           gd_mul(taps, sizeof(int64_t), &taps) && gd_add(taps, image, ret_bytes);
}

/* ---- dy, turned ------------------------------------------------------------------------------------- */

/* to (pixels, `step` floats apart): lane i is filter i's; lanes from `filters` on are 0. */
static void turn(const float *dy, int64_t filters, int64_t pixels, float *to, int64_t step) {
    for (int64_t p = 0; p < pixels; p += GD_LANES) {
        const int64_t at = p + GD_LANES <= pixels ? p : pixels - GD_LANES;
        gd_vec row[GD_LANES];
        if (at < 0)
            break;
        for (int64_t i = 0; i < GD_LANES; i++)
            row[i] = i < filters ? gd_vec_load(dy + i * pixels + at) : gd_vec_all(0);
        gd_vec_transpose(row);
        for (int64_t i = 0; i < GD_LANES; i++)
            gd_vec_store(to + (at + i) * step, row[i]);
    }
    for (int64_t p = 0; pixels < GD_LANES && p < pixels; p++)
        for (int64_t i = 0; i < GD_LANES; i++)
            to[p * step + i] = i < filters ? dy[i * pixels + p] : 0;
}

/* bias += the sum over pixels, in four running sums. */
static void add_pixels(const float *turned, int64_t pixels, int64_t step, float *bias) {
    gd_vec sum[4] = {0};
    for (int64_t p = 0; p < pixels; p++)
        sum[p % 4] += gd_vec_load(turned + p * step);
    gd_vec_store(bias, gd_vec_load(bias) + ((sum[0] + sum[1]) + (sum[2] + sum[3])));
}

/* ---- tiles ------------------------------------------------------------------------------------------ */

/* Rows first ... last - 1 of windows; offset: (taps); sums: (taps, vectors). */
GD_INLINE void tile(const int vectors, const int taps, const gather *g, const float *image, int64_t first,
                    int64_t last, const int64_t *offset, float *sums) {
    const gd_window *w = &g->d->window;
    const int64_t width = w->out[2], step = w->stride[2];
    gd_vec sum[NARROW_TAPS][2];
#pragma GCC unroll 9
    for (int t = 0; t < taps; t++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[t][v] = gd_vec_all(0);
    const float *dy = g->turned + first * width * vectors * GD_LANES;
    int64_t depth = first / w->out[1], height = first % w->out[1], below[NARROW_TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < taps; t++)
        below[t] = offset[t];
    for (int64_t r = first; r < last; r++) {
        const float *x =
            image + (depth * w->stride[0] * g->border.size[1] + height * w->stride[1]) * g->border.size[2];
        for (int64_t q = 0; q < width; q++, x += step, dy += vectors * GD_LANES) {
            gd_vec pixel[2];
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                pixel[v] = gd_vec_load(dy + v * GD_LANES);
#pragma GCC unroll 9
            for (int t = 0; t < taps; t++) {
                const gd_vec factor = gd_vec_all(x[below[t]]);
#pragma GCC unroll 2
                for (int v = 0; v < vectors; v++)
                    sum[t][v] += factor * pixel[v];
            }
        }
        if (++height == w->out[1]) {
            height = 0;
            depth++;
        }
    }
#pragma GCC unroll 9
    for (int t = 0; t < taps; t++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++, sums += GD_LANES)
            gd_vec_store(sums, gd_vec_load(sums) + sum[t][v]);
}

GD_INLINE void block(const int vectors, const int tile_taps, const gather *g, const float *image,
                     float *sums) {
    const int64_t rows = g->d->window.out[0] * g->d->window.out[1];
    for (int64_t first = 0; first < rows; first += g->strip) {
        const int64_t last = first + g->strip < rows ? first + g->strip : rows;
        for (int64_t t = 0; t < g->taps; t += tile_taps)
            tile(vectors, tile_taps, g, image, first, last, g->offset + t, sums + t * vectors * GD_LANES);
    }
}

static void block_narrow(const gather *g, const float *image, float *sums) {
    block(1, NARROW_TAPS, g, image, sums);
}

static void block_wide(const gather *g, const float *image, float *sums) {
    block(2, WIDE_TAPS, g, image, sums);
}

/* ---- the pass --------------------------------------------------------------------------------------- */

/* Vectors of the block of filters that begins at f. */
static int64_t vectors_at(const gd_direct *d, int64_t f) {
    return d->filters - f > GD_LANES ? 2 : 1;
}

static void add_sample(const gather *g, const float *x, const float *dy, bool bias) {
    const gd_direct *d = g->d;
    const float *image = gd_border_fill(&g->border, &d->window, x, g->image);
    const int64_t taps = rounded(g->taps, TAP_ROUND);
    for (int64_t f = 0; f < d->filters;) {
        const int64_t vectors = vectors_at(d, f), step = vectors * GD_LANES;
        float *sums = g->sums + f * taps;
        for (int64_t v = 0; v < vectors; v++, f += GD_LANES) {
            float *to = g->turned + v * GD_LANES;
            turn(dy + f * g->pixels, d->filters - f, g->pixels, to, step);
            if (bias)
                add_pixels(to, g->pixels, step, g->bias + f);
        }
        (vectors == 2 ? block_wide : block_narrow)(g, image, sums);
    }
}

/* Lanes of sums (taps, `step` apart) are filters: dweight (filters, taps) += them, turned back. */
static void add_turned(const float *sums, int64_t step, int64_t filters, int64_t taps, float *dweight) {
    for (int64_t t = 0; t < taps; t += GD_LANES) {
        gd_vec row[GD_LANES];
        for (int64_t i = 0; i < GD_LANES; i++)
            row[i] = t + i < taps ? gd_vec_load(sums + (t + i) * step) : gd_vec_all(0);
        gd_vec_transpose(row);
        for (int64_t f = 0; f < GD_LANES && f < filters; f++) {
            float *to = dweight + f * taps + t;
            if (t + GD_LANES <= taps) {
                gd_vec_store(to, gd_vec_load(to) + row[f]);
                continue;
            }
            float lane[GD_LANES];
            gd_vec_store(lane, row[f]);
            for (int64_t i = 0; t + i < taps; i++)
                to[i] += lane[i];
        }
    }
}

void gd_direct_weight_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight,
                               float *dbias, void *scratch) {
    if (gd_winograd_pays(GD_DIRECT_WEIGHT_GRADIENT, &d->window, d->filters)) {
        gd_winograd_weight_gradient(d, x, dy, dweight, dbias, scratch);
        return;
    }
    if (gd_direct_few_pays(&d->window, d->filters)) {
        gd_direct_few_gradient(d, x, dy, dweight, dbias, scratch);
        return;
    }
    const gather g = gather_of(d, scratch);
    for (int64_t n = 0; n < d->samples; n++)
        add_sample(&g, x + n * d->x_step, dy + n * d->y_step, dbias);
    const int64_t taps = rounded(g.taps, TAP_ROUND);
    for (int64_t f = 0; f < d->filters;) {
        const int64_t vectors = vectors_at(d, f);
        const float *sums = g.sums + f * taps;
        for (int64_t v = 0; v < vectors; v++, f += GD_LANES)
            add_turned(sums + v * GD_LANES, vectors * GD_LANES, d->filters - f, g.taps, dweight + f * g.taps);
    }
    for (int64_t f = 0; dbias && f < d->filters; f++)
        dbias[f] += g.bias[f];
}
