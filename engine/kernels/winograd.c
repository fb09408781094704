/* winograd.c -- F(2x2, 3x3): a tile of outputs is A^T [(G g G^T) * (B^T d B)] A, where d is a tile of 4x4
 * inputs, g a filter's 3x3 weights, and * goes element by element: for each of the 16 elements, a matrix
 * product over channels of many tiles at once.
 *
 * Images are turned so that channels come last; then vectors are of channels or filters everywhere. */
#include "engine/kernels/winograd.h"

#include <string.h>

#include "engine/core/shape.h"
#include "engine/kernels/turned.h"
#include "engine/kernels/vec.h"

enum {
    ELEMENTS = 16, /* of a tile of inputs */
    TAPS = 9,
    LEAST = 16, /* channels and filters with which it pays */
    CHUNK = 96, /* tiles that are transformed, multiplied and transformed back while in the cache */
    SLACK = GD_TURNED_ROWS, /* tiles behind a chunk that are computed for nothing */
    SKEW = 16, /* floats between matrices: one right after the other they would share sets of the cache */
};

/* One side's images, in tiles. */
typedef struct grid {
    gd_turned image;
    int64_t samples, step;
} grid;

/* What both sides have in common. */
typedef struct tiling {
    int64_t down, across, tiles; /* of a sample */
    int64_t together, part;      /* a chunk is so many whole samples, or such a part of one */
} tiling;

static tiling tiling_of(const gd_window *w) {
    tiling t = {.down = (w->out[1] + 1) / 2, .across = (w->out[2] + 1) / 2};
    t.tiles = t.down * t.across;
    t.together = t.tiles < CHUNK ? CHUNK / t.tiles : 1;
    t.part = gd_smaller(t.tiles, CHUNK);
    return t;
}

static grid input_grid(const gd_window *w, int64_t samples, int64_t step) {
    const tiling t = tiling_of(w);
    return (grid){.image = {.channels = w->channels,
                            .height = w->in[1],
                            .width = w->in[2],
                            .top = w->padding[1],
                            .left = w->padding[2],
                            .rows = 2 * t.down + 2,
                            .columns = 2 * t.across + 2,
                            .depth = gd_turned_depth(w->channels)},
                  .samples = samples,
                  .step = step};
}

static grid output_grid(const gd_window *w, int64_t filters, int64_t samples, int64_t step) {
    const tiling t = tiling_of(w);
    return (grid){.image = {.channels = filters,
                            .height = w->out[1],
                            .width = w->out[2],
                            .rows = 2 * t.down,
                            .columns = 2 * t.across,
                            .depth = gd_turned_depth(filters)},
                  .samples = samples,
                  .step = step};
}

static int64_t element_step(int64_t rows, int64_t columns) {
    return rows * columns + SKEW;
}

/* Between the elements of a chunk's tiles. */
static int64_t chunk_step(const grid *g) {
    return element_step(CHUNK + SLACK, g->image.depth);
}

/* ---- transforms of tiles ---------------------------------------------------------------------------- */

/* Rows and columns of 4 become those of B^T: d0 - d2, d1 + d2, d2 - d1, d1 - d3. */
GD_INLINE void input_line(gd_vec *d, int step) {
    const gd_vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
    d[0] = d0 - d2;
    d[step] = d1 + d2;
    d[2 * step] = d2 - d1;
    d[3 * step] = d1 - d3;
}

/* Those of A^T: m0 + m1 + m2, m1 - m2 - m3. */
GD_INLINE void output_line(gd_vec *m, int step) {
    const gd_vec m0 = m[0], m1 = m[step], m2 = m[2 * step], m3 = m[3 * step];
    m[0] = m0 + m1 + m2;
    m[step] = m1 - m2 - m3;
}

/* Those of A: y0, y0 + y1, y0 - y1, -y1. */
GD_INLINE void gradient_line(gd_vec *y, int step) {
    const gd_vec y0 = y[0], y1 = y[step];
    y[step] = y0 + y1;
    y[2 * step] = y0 - y1;
    y[3 * step] = -y1;
}

/* A tile whose first pixel is at `from`, a vector of its channels. */
GD_INLINE void input_tile(const gd_turned *t, const float *from, gd_vec d[ELEMENTS]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            d[4 * i + j] = gd_vec_load(from + (i * t->columns + j) * t->depth);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        input_line(d + i, 4);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        input_line(d + 4 * i, 1);
}

GD_INLINE void gradient_tile(const gd_turned *t, const float *from, gd_vec d[ELEMENTS]) {
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            d[4 * i + j] = gd_vec_load(from + (i * t->columns + j) * t->depth);
    for (int i = 0; i < 2; i++)
        gradient_line(d + i, 4);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        gradient_line(d + 4 * i, 1);
}

/* Tiles first ... first + count - 1 of a turned image into v (ELEMENTS, tiles, depth). */
GD_INLINE void transform(const grid *g, bool gradient, const float *image, int64_t first, int64_t count,
                         float *v) {
    const gd_turned *t = &g->image;
    const int64_t step = chunk_step(g), across = gradient ? t->columns / 2 : t->columns / 2 - 1;
    for (int64_t i = first; i < first + count; i++) {
        const float *from = image + (i / across * t->columns + i % across) * 2 * t->depth;
        for (int64_t c = 0; c < t->depth; c += GD_LANES, v += GD_LANES) {
            gd_vec d[ELEMENTS];
            if (gradient)
                gradient_tile(t, from + c, d);
            else
                input_tile(t, from + c, d);
#pragma GCC unroll 16
            for (int e = 0; e < ELEMENTS; e++)
                gd_vec_store(v + e * step, d[e]);
        }
    }
}

/* Products m (ELEMENTS, tiles, depth) back to tiles of a turned image. */
static void transform_back(const grid *g, const float *m, const float *bias, bool relu, int64_t first,
                           int64_t count, float *image) {
    const gd_turned *t = &g->image;
    const int64_t step = chunk_step(g), across = t->columns / 2;
    for (int64_t i = first; i < first + count; i++) {
        float *to = image + (i / across * t->columns + i % across) * 2 * t->depth;
        for (int64_t c = 0; c < t->depth; c += GD_LANES, m += GD_LANES) {
            const gd_vec shift = gd_vec_load(bias + c);
            gd_vec d[ELEMENTS];
#pragma GCC unroll 16
            for (int e = 0; e < ELEMENTS; e++)
                d[e] = gd_vec_load(m + e * step);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                output_line(d + j, 4);
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                output_line(d + 4 * j, 1);
                for (int k = 0; k < 2; k++) {
                    const gd_vec y = d[4 * j + k] + shift;
                    gd_vec_store(to + (j * t->columns + k) * t->depth + c, relu ? gd_vec_relu(y) : y);
                }
            }
        }
    }
}

/* ---- transforms of weights -------------------------------------------------------------------------- */

/* A weight (filters, channels * TAPS) seen as an image of one row, to be turned. */
static gd_turned weight_image(int64_t filters, int64_t channels) {
    return (gd_turned){.channels = filters,
                       .height = 1,
                       .width = channels * TAPS,
                       .rows = 1,
                       .columns = channels * TAPS,
                       .depth = gd_turned_depth(filters)};
}

/* Those of G: g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2. */
GD_INLINE void weight_line(const gd_vec *g, int step, gd_vec *u, int u_step) {
    const gd_vec sum = 0.5F * (g[0] + g[2 * step]), half = 0.5F * g[step];
    u[0] = g[0];
    u[u_step] = sum + half;
    u[2 * u_step] = sum - half;
    u[3 * u_step] = g[2 * step];
}

/* u (ELEMENTS, channels, filters' depth) = G g G^T */
static void transform_weights(int64_t filters, int64_t channels, const float *weight, float *turned,
                              float *u) {
    const gd_turned image = weight_image(filters, channels);
    const int64_t depth = image.depth, step = element_step(channels, depth);
    gd_turn_in(&image, weight, turned);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t f = 0; f < depth; f += GD_LANES) {
            gd_vec g[TAPS], t[12], d[ELEMENTS];
            for (int k = 0; k < TAPS; k++)
                g[k] = gd_vec_load(turned + (c * TAPS + k) * depth + f);
            for (int j = 0; j < 3; j++)
                weight_line(g + j, 3, t + j, 3);
            for (int i = 0; i < 4; i++)
                weight_line(t + 3 * i, 1, d + 4 * i, 1);
            for (int e = 0; e < ELEMENTS; e++)
                gd_vec_store(u + e * step + c * depth + f, d[e]);
        }
}

/* The weights of the way back: filters and channels change places, and windows are turned round, which of
 * a line's four elements exchanges the first and the last.
 * @param u      (ELEMENTS, channels, filters' depth)
 * @param ret_u  (ELEMENTS, filters' depth, channels' depth) */
static void reverse_weights(int64_t filters, int64_t channels, const float *u, float *ret_u) {
    static const int other[] = {3, 1, 2, 0};
    const int64_t width = gd_turned_depth(filters), depth = gd_turned_depth(channels);
    const gd_turned image = {
        .channels = channels, .height = 1, .width = width, .rows = 1, .columns = width, .depth = depth};
    for (int e = 0; e < ELEMENTS; e++)
        gd_turn_in(&image, u + (4 * other[e / 4] + other[e % 4]) * element_step(channels, width),
                   ret_u + e * element_step(width, depth));
}

/* Lines of G^T: d0 + (d1 + d2) / 2, (d1 - d2) / 2, (d1 + d2) / 2 + d3. */
GD_INLINE void weight_gradient_line(const gd_vec *d, int step, gd_vec *g, int g_step) {
    const gd_vec sum = 0.5F * (d[step] + d[2 * step]);
    g[0] = d[0] + sum;
    g[g_step] = 0.5F * (d[step] - d[2 * step]);
    g[2 * g_step] = sum + d[3 * step];
}

/* dweight += G^T du G, with du (ELEMENTS, channels' depth, filters' depth) */
static void add_weights(int64_t filters, int64_t channels, const float *du, float *turned, float *dweight) {
    const gd_turned image = weight_image(filters, channels);
    const int64_t depth = image.depth, step = element_step(gd_turned_depth(channels), depth);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t f = 0; f < depth; f += GD_LANES) {
            gd_vec d[ELEMENTS], t[12], g[TAPS];
            for (int e = 0; e < ELEMENTS; e++)
                d[e] = gd_vec_load(du + e * step + c * depth + f);
            for (int j = 0; j < 4; j++)
                weight_gradient_line(d + j, 4, t + j, 4);
            for (int i = 0; i < 3; i++)
                weight_gradient_line(t + 4 * i, 1, g + 3 * i, 1);
            for (int k = 0; k < TAPS; k++)
                gd_vec_store(turned + (c * TAPS + k) * depth + f, g[k]);
        }
    gd_turn_out(&image, turned, true, dweight);
}

/* ---- passes ----------------------------------------------------------------------------------------- */

/* What the scratch holds: both sides' images, turned; tiles of both; transformed weights, of either way;
 * weights, turned; a bias for each lane. */
typedef struct memory {
    float *in, *out, *v, *m, *u, *reversed, *turned, *bias;
} memory;

/* @param in, out sides of the window's images, whichever way the pass goes */
static bool lay_out(const grid *in, const grid *out, float *scratch, memory *ret_memory, size_t *ret_floats) {
    const gd_turned *x = &in->image, *y = &out->image;
    const struct {
        float **at;
        int64_t size[3];
    } parts[] = {
        {&ret_memory->in, {x->rows, x->columns, x->depth}},
        {&ret_memory->out, {y->rows, y->columns, y->depth}},
        {&ret_memory->v, {ELEMENTS, CHUNK + SLACK, x->depth}},
        {&ret_memory->m, {ELEMENTS, CHUNK + SLACK, y->depth}},
        {&ret_memory->u, {ELEMENTS, x->depth, y->depth}},
        {&ret_memory->reversed, {ELEMENTS, x->depth, y->depth}},
        {&ret_memory->turned, {TAPS, x->depth, y->depth}},
        {&ret_memory->bias, {1, 1, x->depth > y->depth ? x->depth : y->depth}},
    };
    size_t total = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t floats = ELEMENTS * SKEW, size = 1;
        for (int k = 0; k < 3; k++)
            if (!gd_mul(size, (size_t)parts[i].size[k], &size))
                return false;
        if (scratch)
            *parts[i].at = scratch + total;
        if (!gd_add(floats, size, &floats) || !gd_add(total, floats, &total))
            return false;
    }
    *ret_floats = total;
    return true;
}

static void clear(const gd_turned *t, float *copy) {
    memset(copy, 0, (size_t)(t->rows * t->columns * t->depth) * sizeof *copy);
}

/* Where a chunk is: of samples sample ... sample + count - 1, tiles first ... first + tiles - 1. */
typedef struct chunk {
    int64_t sample, count, first, tiles;
} chunk;

static chunk first_chunk(const tiling *t, int64_t samples) {
    return (chunk){.count = gd_smaller(t->together, samples), .tiles = t->part};
}

/* @return false: that was the last */
static bool next_chunk(const tiling *t, int64_t samples, chunk *c) {
    c->first += c->tiles;
    if (c->first == t->tiles) {
        c->first = 0;
        c->sample += c->count;
        c->count = gd_smaller(t->together, samples - c->sample);
    }
    c->tiles = gd_smaller(t->part, t->tiles - c->first);
    return c->sample < samples;
}

/* A chunk of images into v; copy holds the sample under way.
 * @param sums (channels): to which those of each sample are added; or NULL */
GD_INLINE void read_chunk(const grid *g, bool gradient, const chunk *c, const float *images, float *sums,
                          float *copy, float *v) {
    for (int64_t i = 0; i < c->count; i++) {
        if (c->first == 0) {
            gd_turn_in(&g->image, images + (c->sample + i) * g->step, copy);
            if (sums)
                gd_turned_add_sums(&g->image, copy, sums);
        }
        transform(g, gradient, copy, c->first, c->tiles, v + i * c->tiles * g->image.depth);
    }
}

static void write_chunk(const grid *g, const tiling *t, const chunk *c, const float *m, const float *bias,
                        bool relu, bool add, float *copy, float *images) {
    for (int64_t i = 0; i < c->count; i++) {
        transform_back(g, m + i * c->tiles * g->image.depth, bias, relu, c->first, c->tiles, copy);
        if (c->first + c->tiles == t->tiles)
            gd_turn_out(&g->image, copy, add, images + (c->sample + i) * g->step);
    }
}

/* Images of one side to those of the other, by u (ELEMENTS, in's channels, out's depth), whose matrices are
 * u_step floats apart. */
static void convolve(const grid *in, const grid *out, const tiling *t, const float *u, int64_t u_step,
                     const float *from, const float *bias, bool relu, bool add, float *to, const memory *s) {
    const int64_t zero = 0;
    const gd_turned_sum sum = {.offset = &zero,
                               .stretches = 1,
                               .length = in->image.channels,
                               .a_row = in->image.depth,
                               .a_step = 1,
                               .b_row = out->image.depth,
                               .c_row = out->image.depth};
    memset(s->bias, 0, (size_t)out->image.depth * sizeof *s->bias);
    if (bias)
        memcpy(s->bias, bias, (size_t)out->image.channels * sizeof *s->bias);
    clear(&in->image, s->in);
    chunk c = first_chunk(t, in->samples);
    do {
        read_chunk(in, false, &c, from, NULL, s->in, s->v);
        for (int64_t e = 0; e < ELEMENTS; e++)
            gd_turned_product(&sum, c.count * c.tiles, out->image.depth, s->v + e * chunk_step(in),
                              u + e * u_step, s->m + e * chunk_step(out));
        write_chunk(out, t, &c, s->m, s->bias, relu, add, s->out, to);
    } while (next_chunk(t, in->samples, &c));
}

void gd_winograd_forward(const gd_direct *d, const float *x, const float *weight, const float *bias,
                         bool relu, float *y, void *scratch) {
    const grid in = input_grid(&d->window, d->samples, d->x_step),
               out = output_grid(&d->window, d->filters, d->samples, d->y_step);
    const tiling t = tiling_of(&d->window);
    memory s;
    size_t floats;
    (void)lay_out(&in, &out, scratch, &s, &floats);
    transform_weights(d->filters, d->window.channels, weight, s.turned, s.u);
    convolve(&in, &out, &t, s.u, element_step(d->window.channels, out.image.depth), x, bias, relu, false, y,
             &s);
}

void gd_winograd_input_gradient(const gd_direct *d, const float *dy, const float *weight, bool accumulate,
                                float *dx, void *scratch) {
    const gd_window r = gd_window_reverse(&d->window, d->filters);
    const grid in = input_grid(&r, d->samples, d->y_step),
               out = output_grid(&r, d->window.channels, d->samples, d->x_step);
    const tiling t = tiling_of(&r);
    memory s;
    size_t floats;
    (void)lay_out(&in, &out, scratch, &s, &floats);
    transform_weights(d->filters, d->window.channels, weight, s.turned, s.u);
    reverse_weights(d->filters, d->window.channels, s.u, s.reversed);
    convolve(&in, &out, &t, s.reversed, element_step(in.image.depth, out.image.depth), dy, NULL, false,
             accumulate, dx, &s);
}

void gd_winograd_weight_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight,
                                 float *dbias, void *scratch) {
    const grid in = input_grid(&d->window, d->samples, d->x_step),
               out = output_grid(&d->window, d->filters, d->samples, d->y_step);
    const tiling t = tiling_of(&d->window);
    const int64_t u_step = element_step(in.image.depth, out.image.depth), zero = 0;
    memory s;
    size_t floats;
    (void)lay_out(&in, &out, scratch, &s, &floats);
    clear(&in.image, s.in);
    clear(&out.image, s.out);
    memset(s.u, 0, (size_t)(ELEMENTS * u_step) * sizeof *s.u);
    chunk c = first_chunk(&t, d->samples);
    do {
        read_chunk(&in, false, &c, x, NULL, s.in, s.v);
        read_chunk(&out, true, &c, dy, dbias, s.out, s.m);
        const gd_turned_sum sum = {.offset = &zero,
                                   .stretches = 1,
                                   .length = c.count * c.tiles,
                                   .a_row = 1,
                                   .a_step = in.image.depth,
                                   .b_row = out.image.depth,
                                   .c_row = out.image.depth,
                                   .accumulate = true};
        for (int64_t e = 0; e < ELEMENTS; e++)
            gd_turned_product(&sum, in.image.depth, out.image.depth, s.v + e * chunk_step(&in),
                              s.m + e * chunk_step(&out), s.u + e * u_step);
    } while (next_chunk(&t, d->samples, &c));
    add_weights(d->filters, d->window.channels, s.u, s.turned, dweight);
}

/* ---- the choice ------------------------------------------------------------------------------------- */

bool gd_winograd_scratch(const gd_window *w, int64_t filters, size_t *ret_bytes) {
    const gd_window r = gd_window_reverse(w, filters);
    const grid in = input_grid(w, 1, 0), out = output_grid(w, filters, 1, 0);
    const grid back_in = input_grid(&r, 1, 0), back_out = output_grid(&r, w->channels, 1, 0);
    memory none;
    size_t there, back;
    if (!lay_out(&in, &out, NULL, &none, &there) || !lay_out(&back_in, &back_out, NULL, &none, &back))
        return false;
    return gd_mul(there > back ? there : back, sizeof(float), ret_bytes);
}

bool gd_winograd_pays(gd_direct_pass pass, const gd_window *w, int64_t filters) {
    (void)pass;
    bool fits =
        w->in[0] == 1 && w->out[0] == 1 && w->kernel[0] == 1 && w->kernel[1] == 3 && w->kernel[2] == 3;
    for (int axis = 1; axis < GD_WINDOW_AXES; axis++)
        fits = fits && w->stride[axis] == 1 && w->dilation[axis] == 1 && w->padding[axis] >= 0 &&
               w->padding[axis] <= 2 && w->out[axis] >= 8;
    return fits && w->padding[0] == 0 && w->channels >= LEAST && filters >= LEAST;
}
