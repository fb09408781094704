/* direct.c -- convolution as sums held in registers: several filters by several vectors of pixels that follow
 * each other in a row. Each step loads the pixels under one element (a tap) of the window and multiplies them
 * with that element's weight in each filter. The gradient of the input is the same with filters and channels
 * exchanged and the window turned round. */
#include "engine/kernels/winograd.h"

#include "engine/core/shape.h"
#include "engine/kernels/border.h"
#include "engine/kernels/vec.h"

/* Sums of a tile: 12 leave 4 of 16 registers to pixels and weights; with AVX-512 there are 32. */
enum {
    MAX_FILTERS = GD_LANES < 16 ? 6 : 8,
    MAX_VECTORS = 8,
    MAX_TAPS = 1280,
};

/* One pass over the images of a batch, read through windows with stride 1 along the last axis. */
typedef struct sweep {
    gd_window window;
    gd_border border;
    int64_t filters, taps;
    int64_t vectors; /* of one plane that is written */
    bool relu, add;
    int64_t *offset; /* (taps) of each tap's first pixel */
    float *weight;   /* by blocks of filters: (taps, filters of the block) */
    float *image;
} sweep;

/* ---- tiles ------------------------------------------------------------------------------------------ */

/* A vector of pixels: where its first one is read and written, in a plane. Rows end with a vector that
 * overlaps the one before: its first `skip` pixels were there already. */
typedef struct spot {
    int64_t from, to, skip;
} spot;

/* Steps through the vectors of a plane. */
typedef struct cursor {
    int64_t depth, height, column; /* of the next one */
    int64_t from, to;              /* where its row begins */
} cursor;

static inline void next_row(const sweep *s, cursor *c) {
    const gd_window *w = &s->window;
    c->column = 0;
    c->to += w->out[2];
    c->from += w->stride[1] * s->border.size[2];
    if (++c->height == w->out[1]) {
        c->height = 0;
        c->from = ++c->depth * w->stride[0] * s->border.size[1] * s->border.size[2];
    }
}

static inline spot next_spot(const sweep *s, cursor *c) {
    const int64_t width = s->window.out[2], fit = width < GD_LANES ? 0 : width - GD_LANES;
    const int64_t column = c->column < fit ? c->column : fit;
    const spot here = {.from = c->from + column, .to = c->to + column, .skip = c->column - column};
    c->column += GD_LANES;
    if (c->column >= width)
        next_row(s, c);
    return here;
}

static inline void put_some(float *to, gd_vec sum, gd_vec_lanes lanes, bool add) {
    gd_vec_store_some(to, add ? sum + gd_vec_load_some(to, lanes) : sum, lanes);
}

/* weight: (taps, filters); bias: (filters) or NULL; to: the first filter's plane. */
GD_INLINE void tile(const int filters, const int vectors, const sweep *s, const spot *spots,
                    const float *image, const float *weight, const float *bias, float *to) {
    gd_vec sum[MAX_FILTERS][MAX_VECTORS];
    const float *pixels[MAX_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
        pixels[v] = image + spots[v].from;
#pragma GCC unroll 8
    for (int f = 0; f < filters; f++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            sum[f][v] = gd_vec_all(bias ? bias[f] : 0);
    for (int64_t t = 0; t < s->taps; t++, weight += filters) {
        gd_vec x[MAX_VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            x[v] = gd_vec_load(pixels[v] + s->offset[t]);
#pragma GCC unroll 8
        for (int f = 0; f < filters; f++) {
            const gd_vec factor = gd_vec_all(weight[f]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++)
                sum[f][v] += factor * x[v];
        }
    }
    const int64_t plane = gd_window_count(&s->window), width = s->window.out[2];
    const int64_t count = width < GD_LANES ? width : GD_LANES;
    const bool add = s->add, relu = s->relu;
#pragma GCC unroll 8
    for (int f = 0; f < filters; f++, to += plane)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            const gd_vec y = relu ? gd_vec_relu(sum[f][v]) : sum[f][v];
            if (count == GD_LANES && !add)
                gd_vec_store(to + spots[v].to, y);
            else
                put_some(to + spots[v].to, y, gd_vec_lanes_of(spots[v].skip, count), add);
        }
}

/* All pixels of a block of filters: by `VECTORS` at a time, and one by one what is left. */
#define BLOCK(FILTERS, VECTORS) \
    static void block_##FILTERS(const sweep *s, const float *image, const float *weight, const float *bias, \
                                float *to) { \
        cursor c = {0}; \
        spot spots[VECTORS]; \
        int64_t left = s->vectors; \
        for (; left >= (VECTORS); left -= (VECTORS)) { \
            for (int v = 0; v < (VECTORS); v++) \
                spots[v] = next_spot(s, &c); \
            tile(FILTERS, VECTORS, s, spots, image, weight, bias, to); \
        } \
        for (; left; left--) { \
            spots[0] = next_spot(s, &c); \
            tile(FILTERS, 1, s, spots, image, weight, bias, to); \
        } \
    }

BLOCK(1, 8)
#if defined(__AVX512F__)
BLOCK(2, 8)
BLOCK(3, 6)
BLOCK(4, 5)
BLOCK(5, 4)
BLOCK(6, 3)
BLOCK(7, 3)
BLOCK(8, 3)
#else
BLOCK(2, 4)
BLOCK(3, 4)
BLOCK(4, 3)
BLOCK(5, 2)
BLOCK(6, 2)
#endif

static void (*const blocks[])(const sweep *s, const float *image, const float *weight, const float *bias,
                              float *to) = {NULL,    block_1, block_2, block_3, block_4, block_5, block_6,
#if defined(__AVX512F__)
                                            block_7, block_8
#endif
};

/* Filters are cut into blocks of nearly equal size: block i begins here. */
static int64_t block_begin(int64_t filters, int64_t i) {
    const int64_t count = (filters + MAX_FILTERS - 1) / MAX_FILTERS;
    return i * filters / count;
}

/* ---- passes ----------------------------------------------------------------------------------------- */

static bool sweep_scratch(const gd_window *w, int64_t filters, size_t *ret_bytes) {
    size_t taps, weight, image;
    return gd_mul((size_t)w->channels, (size_t)gd_window_size(w), &taps) &&
           gd_mul(taps, (size_t)filters, &weight) && gd_border_floats(w, &image) &&
           gd_add(weight, image, &image) && gd_mul(image, sizeof(float), &image) &&
           gd_mul(taps, sizeof(int64_t), &taps) && gd_add(taps, image, ret_bytes);
}

/* weight[f, c, k] lies at f * f_step + c * c_step + k, with `turned` at ... + (size - 1 - k). */
typedef struct weights {
    const float *at;
    int64_t f_step, c_step;
    bool turned;
} weights;

static sweep sweep_of(const gd_window *w, int64_t filters, const weights *from, void *scratch) {
    const int64_t size = gd_window_size(w);
    sweep s = {.window = *w, .border = gd_border_of(w, GD_LANES), .filters = filters, .offset = scratch};
    s.taps = w->channels * size;
    s.vectors = w->out[0] * w->out[1] * ((w->out[2] + GD_LANES - 1) / GD_LANES);
    s.weight = (float *)(s.offset + s.taps);
    s.image = s.weight + filters * s.taps;
    gd_border_offsets(&s.border, w, s.offset);
    float *to = s.weight;
    for (int64_t i = 0, f = 0; f < filters; i++) {
        const int64_t end = block_begin(filters, i + 1);
        for (int64_t c = 0; c < w->channels; c++)
            for (int64_t k = 0; k < size; k++) {
                const float *tap = from->at + c * from->c_step + (from->turned ? size - 1 - k : k);
                for (int64_t n = f; n < end; n++)
                    *to++ = tap[n * from->f_step];
            }
        f = end;
    }
    gd_border_clear(&s.border, w, s.image);
    return s;
}

/* A vector goes on for up to GD_LANES - 1 pixels after the image's last one: into the next sample's. What it
 * finds there comes into no sum. */
static const float *image_of(const sweep *s, const float *from, int64_t from_step, bool last) {
    if (s->border.slack && !last && from_step >= GD_LANES)
        return from;
    return gd_border_fill(&s->border, &s->window, from, s->image);
}

static void sweep_run(const sweep *s, int64_t samples, const float *from, int64_t from_step,
                      const float *bias, float *to, int64_t to_step) {
    const int64_t plane = gd_window_count(&s->window);
    for (int64_t n = 0; n < samples; n++, from += from_step, to += to_step) {
        const float *image = image_of(s, from, from_step, n + 1 == samples);
        for (int64_t i = 0, f = 0; f < s->filters; i++) {
            const int64_t end = block_begin(s->filters, i + 1);
            blocks[end - f](s, image, s->weight + f * s->taps, bias ? bias + f : NULL, to + f * plane);
            f = end;
        }
    }
}

void gd_direct_forward(const gd_direct *d, const float *x, const float *weight, const float *bias, bool relu,
                       float *y, void *scratch) {
    if (gd_winograd_pays(GD_DIRECT_FORWARD, &d->window, d->filters)) {
        gd_winograd_forward(d, x, weight, bias, relu, y, scratch);
        return;
    }
    const int64_t size = gd_window_size(&d->window);
    const weights from = {.at = weight, .f_step = d->window.channels * size, .c_step = size};
    sweep s = sweep_of(&d->window, d->filters, &from, scratch);
    s.relu = relu;
    sweep_run(&s, d->samples, x, d->x_step, bias, y, d->y_step);
}

void gd_direct_input_gradient(const gd_direct *d, const float *dy, const float *weight, bool accumulate,
                              float *dx, void *scratch) {
    if (gd_winograd_pays(GD_DIRECT_INPUT_GRADIENT, &d->window, d->filters)) {
        gd_winograd_input_gradient(d, dy, weight, accumulate, dx, scratch);
        return;
    }
    const int64_t size = gd_window_size(&d->window);
    const gd_window r = gd_window_reverse(&d->window, d->filters);
    const weights from = {.at = weight, .f_step = size, .c_step = d->window.channels * size, .turned = true};
    sweep s = sweep_of(&r, d->window.channels, &from, scratch);
    s.add = accumulate;
    sweep_run(&s, d->samples, dy, d->y_step, NULL, dx, d->x_step);
}

/* ---- the choice ------------------------------------------------------------------------------------- */

bool gd_direct_scratch(gd_direct_pass pass, const gd_window *w, int64_t filters, size_t *ret_bytes) {
    const gd_window r = gd_window_reverse(w, filters);
    if (gd_winograd_pays(pass, w, filters))
        return gd_winograd_scratch(w, filters, ret_bytes);
    switch (pass) {
    case GD_DIRECT_FORWARD:
        return sweep_scratch(w, filters, ret_bytes);
    case GD_DIRECT_INPUT_GRADIENT:
        return sweep_scratch(&r, w->channels, ret_bytes);
    case GD_DIRECT_WEIGHT_GRADIENT:
        return gd_direct_weight_scratch(w, filters, ret_bytes);
    }
    return false;
}

/* Rows that fill half a vector, and weights of a block that stay in the L1 cache. */
static bool sweep_pays(const gd_window *w) {
    return w->stride[2] == 1 && 2 * w->out[2] >= GD_LANES && w->channels * gd_window_size(w) <= MAX_TAPS;
}

bool gd_direct_pays(gd_direct_pass pass, const gd_window *w, int64_t filters) {
    const gd_window r = gd_window_reverse(w, filters);
    if (gd_winograd_pays(pass, w, filters))
        return true;
    switch (pass) {
    case GD_DIRECT_FORWARD:
        return sweep_pays(w);
    case GD_DIRECT_INPUT_GRADIENT:
        return w->stride[0] == 1 && w->stride[1] == 1 && sweep_pays(&r);
    case GD_DIRECT_WEIGHT_GRADIENT:
        return gd_direct_few_pays(w, filters) ||
               (2 * filters >= GD_LANES && w->channels * gd_window_size(w) <= MAX_TAPS);
    }
    return false;
}
