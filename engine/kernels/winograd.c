/* winograd.c -- F(2x2, 3x3): a tile of outputs is A^T [(G g G^T) * (B^T d B)] A, where d is a tile of 4x4
 * inputs, g a filter's 3x3 weights, and * goes element by element: for each of the 16 elements, a matrix
 * product over channels of all tiles at once.
 *
 * Images are first cut into four planes, of even and odd rows and columns; then neighbouring tiles read
 * neighbouring floats, and a vector holds one element of as many tiles. */
#include "engine/kernels/winograd.h"

#include <string.h>

#include "engine/core/shape.h"
#include "engine/kernels/product.h"
#include "engine/kernels/vec.h"

enum {
    ELEMENTS = 16, /* of a tile of inputs */
    TAPS = 9,
    CHUNK = 64, /* tiles that are transformed, multiplied and transformed back while they are in the cache */
    SLACK = 16, /* floats behind a row of tiles: vectors are stored whole */
};

/* An image in tiles, and how it is cut into planes. */
typedef struct grid {
    int64_t channels, height, width; /* of the image */
    int64_t border;                  /* zeros before its first row and column */
    int64_t down, across;            /* tiles */
    int64_t pitch, plane;            /* of the planes: a row, all of one */
    int64_t samples, step;
} grid;

/* Of windows' inputs: tiles overlap, and reach one row and column of each plane further. */
static grid input_grid(const gd_window *w, int64_t samples, int64_t step) {
    grid g = {.channels = w->channels,
              .height = w->in[1],
              .width = w->in[2],
              .border = w->padding[1],
              .down = (w->out[1] + 1) / 2,
              .across = (w->out[2] + 1) / 2,
              .samples = samples,
              .step = step};
    g.pitch = g.across + 1;
    g.plane = (g.down + 1) * g.pitch;
    return g;
}

/* Of windows' outputs: tiles of 2x2. */
static grid output_grid(const gd_window *w, int64_t filters, int64_t samples, int64_t step) {
    grid g = {.channels = filters,
              .height = w->out[1],
              .width = w->out[2],
              .down = (w->out[1] + 1) / 2,
              .across = (w->out[2] + 1) / 2,
              .samples = samples,
              .step = step};
    g.pitch = g.across;
    g.plane = g.down * g.pitch;
    return g;
}

/* Rows of tiles that make a chunk, over all samples; and how far the tiles of one channel are from the
 * next's. */
static int64_t chunk_rows(const grid *g) {
    return g->across < CHUNK ? CHUNK / g->across : 1;
}
static int64_t row_pitch(const grid *g) {
    return chunk_rows(g) * g->across + SLACK;
}

/* From one element's matrix to the next's: not a multiple of a page, whose lines would all share one set of
 * the cache. */
static int64_t element_step(int64_t rows, int64_t columns) {
    return rows * columns + SLACK;
}

/* ---- planes ----------------------------------------------------------------------------------------- */

static float *plane_of(const grid *g, float *planes, int64_t channel, int64_t row, int64_t column) {
    return planes + ((channel * 2 + row) * 2 + column) * g->plane;
}

/* Every second of 2 * count floats each. */
static void part(const float *from, int64_t count, float *even, float *odd) {
    int64_t j = 0;
    for (; j + GD_LANES <= count; j += GD_LANES) {
        const gd_vec a = gd_vec_load(from + 2 * j), b = gd_vec_load(from + 2 * j + GD_LANES);
        gd_vec_store(even + j, __builtin_shufflevector(a, b, GD_VEC_EVEN));
        gd_vec_store(odd + j, __builtin_shufflevector(a, b, GD_VEC_ODD));
    }
    for (; j < count; j++) {
        even[j] = from[2 * j];
        odd[j] = from[2 * j + 1];
    }
}

/* Element (i, j) of the image with its border goes to (i / 2, j / 2) of plane (i % 2, j % 2); what is not of
 * the image stays as it is: zero. */
static void cut(const grid *g, const float *image, float *planes) {
    const int64_t rows = gd_smaller(g->height, 2 * (g->plane / g->pitch) - g->border);
    const int64_t width = gd_smaller(g->width, 2 * g->pitch - g->border), second = g->border + 1;
    for (int64_t c = 0; c < g->channels; c++)
        for (int64_t i = 0; i < rows; i++) {
            const float *from = image + (c * g->height + i) * g->width;
            const int64_t row = i + g->border, start = row / 2 * g->pitch;
            float *first_to = plane_of(g, planes, c, row % 2, g->border % 2) + start + g->border / 2;
            float *second_to = plane_of(g, planes, c, row % 2, second % 2) + start + second / 2;
            part(from, width / 2, first_to, second_to);
            if (width % 2)
                first_to[width / 2] = from[width - 1];
        }
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

/* A vector of tiles from (row, column) on. */
GD_INLINE void input_tile(const grid *g, const float *planes, int64_t row, int64_t column,
                          gd_vec d[ELEMENTS]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            d[4 * i + j] = gd_vec_load(planes + (2 * (i % 2) + j % 2) * g->plane + (row + i / 2) * g->pitch +
                                       column + j / 2);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        input_line(d + i, 4);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        input_line(d + 4 * i, 1);
}

GD_INLINE void gradient_tile(const grid *g, const float *planes, int64_t row, int64_t column,
                             gd_vec d[ELEMENTS]) {
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            d[4 * i + j] = gd_vec_load(planes + (2 * i + j) * g->plane + row * g->pitch + column);
    for (int i = 0; i < 2; i++)
        gradient_line(d + i, 4);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        gradient_line(d + 4 * i, 1);
}

/* Where a chunk begins: a row of tiles of a sample. */
typedef struct place {
    int64_t sample, row;
} place;

/* Transform the next chunk of tiles into v (ELEMENTS, channels, row_pitch()). planes holds the sample under
 * way.
 * @return tiles; 0: none are left */
GD_INLINE int64_t transform(const grid *g, bool gradient, place *at, const float *images, float *planes,
                            float *v) {
    const int64_t pitch = row_pitch(g), step = element_step(g->channels, pitch);
    int64_t tiles = 0;
    for (int64_t left = chunk_rows(g); left && at->sample < g->samples;) {
        const int64_t rows = gd_smaller(left, g->down - at->row);
        if (at->row == 0)
            cut(g, images + at->sample * g->step, planes);
        for (int64_t c = 0; c < g->channels; c++)
            for (int64_t row = 0; row < rows; row++)
                for (int64_t column = 0; column < g->across; column += GD_LANES) {
                    float *to = v + c * pitch + tiles + row * g->across + column;
                    gd_vec d[ELEMENTS];
                    if (gradient)
                        gradient_tile(g, planes + c * 4 * g->plane, at->row + row, column, d);
                    else
                        input_tile(g, planes + c * 4 * g->plane, at->row + row, column, d);
#pragma GCC unroll 16
                    for (int e = 0; e < ELEMENTS; e++)
                        gd_vec_store(to + e * step, d[e]);
                }
        tiles += rows * g->across;
        left -= rows;
        at->row += rows;
        if (at->row == g->down)
            *at = (place){at->sample + 1, 0};
    }
    return tiles;
}

/* ---- outputs ---------------------------------------------------------------------------------------- */

typedef struct output {
    const float *bias;
    bool relu, add;
} output;

/* Some of 2 * GD_LANES neighbouring outputs. */
GD_INLINE void put(gd_vec even, gd_vec odd, const output *o, float bias, int64_t count, float *to) {
    gd_vec low = __builtin_shufflevector(even, odd, GD_VEC_LOW) + gd_vec_all(bias);
    gd_vec high = __builtin_shufflevector(even, odd, GD_VEC_HIGH) + gd_vec_all(bias);
    if (o->relu) {
        low = gd_vec_relu(low);
        high = gd_vec_relu(high);
    }
    if (count >= 2 * GD_LANES) {
        gd_vec_store(to, o->add ? low + gd_vec_load(to) : low);
        gd_vec_store(to + GD_LANES, o->add ? high + gd_vec_load(to + GD_LANES) : high);
        return;
    }
    float lane[2 * GD_LANES];
    gd_vec_store(lane, low);
    gd_vec_store(lane + GD_LANES, high);
    for (int64_t i = 0; i < count; i++)
        to[i] = lane[i] + (o->add ? to[i] : 0);
}

/* The chunk's products m (ELEMENTS, channels, row_pitch()) back to images. */
static void write_outputs(const grid *g, place at, int64_t tiles, const float *m, const output *o,
                          float *images) {
    const int64_t pitch = row_pitch(g), step = element_step(g->channels, pitch);
    for (int64_t done = 0; done < tiles; done += g->across) {
        for (int64_t c = 0; c < g->channels; c++) {
            float *to = images + at.sample * g->step + (c * g->height + 2 * at.row) * g->width;
            const float bias = o->bias ? o->bias[c] : 0;
            for (int64_t column = 0; column < g->across; column += GD_LANES) {
                const float *from = m + c * pitch + done + column;
                gd_vec d[ELEMENTS];
#pragma GCC unroll 16
                for (int e = 0; e < ELEMENTS; e++)
                    d[e] = gd_vec_load(from + e * step);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    output_line(d + i, 4);
                for (int i = 0; i < 2; i++)
                    output_line(d + 4 * i, 1);
                for (int i = 0; i < 2 && 2 * at.row + i < g->height; i++)
                    put(d[4 * i], d[4 * i + 1], o, bias, g->width - 2 * column,
                        to + i * g->width + 2 * column);
            }
        }
        if (++at.row == g->down)
            at = (place){at.sample + 1, 0};
    }
}

/* ---- transforms of weights -------------------------------------------------------------------------- */

/* weight[f, c, k] lies at f * f_step + c * c_step + k, with `turned` at ... + 8 - k. */
typedef struct weights {
    const float *at;
    int64_t f_step, c_step;
    bool turned;
} weights;

/* Those of G: g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2. */
GD_INLINE void weight_line(const gd_vec *g, int step, gd_vec *u, int u_step) {
    const gd_vec sum = 0.5F * (g[0] + g[2 * step]), half = 0.5F * g[step];
    u[0] = g[0];
    u[u_step] = sum + half;
    u[2 * u_step] = sum - half;
    u[3 * u_step] = g[2 * step];
}

/* u (ELEMENTS, filters, channels) = G g G^T, a vector of channels at a time. */
static void transform_weights(const weights *w, int64_t filters, int64_t channels, float *u) {
    const int64_t step = element_step(filters, channels);
    for (int64_t f = 0; f < filters; f++)
        for (int64_t c = 0; c < channels; c += GD_LANES) {
            const float *from = w->at + f * w->f_step + c * w->c_step;
            const int64_t count = gd_smaller(channels - c, GD_LANES);
            float lane[TAPS][GD_LANES] = {{0}};
            gd_vec g[TAPS], t[12], d[ELEMENTS];
            for (int64_t i = 0; i < count; i++)
                for (int k = 0; k < TAPS; k++)
                    lane[k][i] = from[i * w->c_step + (w->turned ? TAPS - 1 - k : k)];
            for (int k = 0; k < TAPS; k++)
                g[k] = gd_vec_load(lane[k]);
            for (int j = 0; j < 3; j++)
                weight_line(g + j, 3, t + j, 3);
            for (int i = 0; i < 4; i++)
                weight_line(t + 3 * i, 1, d + 4 * i, 1);
            float *to = u + f * channels + c;
            for (int e = 0; e < ELEMENTS; e++, to += step) {
                if (count == GD_LANES)
                    gd_vec_store(to, d[e]);
                else
                    memcpy(to, &d[e], (size_t)count * sizeof *to);
            }
        }
}

/* dg += G^T du G */
static void add_weights(const float *du, int64_t filters, int64_t channels, float *dweight) {
    const int64_t step = element_step(filters, channels);
    for (int64_t i = 0; i < filters * channels; i++, du++, dweight += TAPS) {
        float t[3][4];
        for (int j = 0; j < 4; j++) {
            const float d0 = du[j * step], d1 = du[(4 + j) * step], d2 = du[(8 + j) * step],
                        d3 = du[(12 + j) * step];
            t[0][j] = d0 + 0.5F * (d1 + d2);
            t[1][j] = 0.5F * (d1 - d2);
            t[2][j] = 0.5F * (d1 + d2) + d3;
        }
        for (int k = 0; k < 3; k++) {
            dweight[3 * k] += t[k][0] + 0.5F * (t[k][1] + t[k][2]);
            dweight[3 * k + 1] += 0.5F * (t[k][1] - t[k][2]);
            dweight[3 * k + 2] += 0.5F * (t[k][1] + t[k][2]) + t[k][3];
        }
    }
}

/* ---- passes ----------------------------------------------------------------------------------------- */

/* What the scratch holds: planes of both sides' images, tiles of both sides, weights. */
typedef struct memory {
    float *in_planes, *out_planes, *v, *m, *u;
} memory;

static bool lay_out(const grid *in, const grid *out, float *scratch, memory *ret_memory, size_t *ret_floats) {
    const int64_t sizes[][3] = {{4, in->channels, in->plane},
                                {4, out->channels, out->plane},
                                {ELEMENTS, in->channels, row_pitch(in)},
                                {ELEMENTS, out->channels, row_pitch(out)},
                                {ELEMENTS, in->channels, out->channels}};
    float **parts[] = {&ret_memory->in_planes, &ret_memory->out_planes, &ret_memory->v, &ret_memory->m,
                       &ret_memory->u};
    size_t total = 0;
    for (int i = 0; i < 5; i++) {
        size_t floats = 1;
        for (int k = 0; k < 3; k++)
            if (!gd_mul(floats, (size_t)sizes[i][k], &floats))
                return false;
        if (scratch)
            *parts[i] = scratch + total;
        if (!gd_add(floats, ELEMENTS * SLACK, &floats) || !gd_add(total, floats, &total))
            return false;
    }
    *ret_floats = total;
    return true;
}

/* Images of one side to those of the other, by weights. */
static void convolve(const grid *in, const grid *out, const weights *w, const float *from, const output *o,
                     float *to, float *scratch) {
    memory s;
    size_t floats;
    (void)lay_out(in, out, scratch, &s, &floats);
    const int64_t pitch = row_pitch(in), u_step = element_step(out->channels, in->channels);
    const int64_t v_step = element_step(in->channels, pitch), m_step = element_step(out->channels, pitch);
    transform_weights(w, out->channels, in->channels, s.u);
    memset(s.in_planes, 0, (size_t)(4 * in->channels * in->plane + SLACK) * sizeof *s.in_planes);
    place at = {0};
    for (place before = at;; before = at) {
        const int64_t tiles = transform(in, false, &at, from, s.in_planes, s.v);
        if (!tiles)
            break;
        for (int64_t e = 0; e < ELEMENTS; e++)
            gd_product(out->channels, tiles, in->channels, (gd_operand){s.u + e * u_step, in->channels, 1},
                       (gd_operand){s.v + e * v_step, pitch, 1}, s.m + e * m_step, pitch, false);
        write_outputs(out, before, tiles, s.m, o, to);
    }
}

void gd_winograd_forward(const gd_direct *d, const float *x, const float *weight, const float *bias,
                         bool relu, float *y, void *scratch) {
    const grid in = input_grid(&d->window, d->samples, d->x_step),
               out = output_grid(&d->window, d->filters, d->samples, d->y_step);
    const weights w = {.at = weight, .f_step = TAPS * in.channels, .c_step = TAPS};
    convolve(&in, &out, &w, x, &(output){.bias = bias, .relu = relu}, y, scratch);
}

void gd_winograd_input_gradient(const gd_direct *d, const float *dy, const float *weight, bool accumulate,
                                float *dx, void *scratch) {
    const gd_window r = gd_window_reverse(&d->window, d->filters);
    const grid in = input_grid(&r, d->samples, d->y_step),
               out = output_grid(&r, d->window.channels, d->samples, d->x_step);
    const weights w = {.at = weight, .f_step = TAPS, .c_step = TAPS * out.channels, .turned = true};
    convolve(&in, &out, &w, dy, &(output){.add = accumulate}, dx, scratch);
}

static void add_bias(const gd_direct *d, const float *dy, float *dbias) {
    const int64_t plane = gd_window_count(&d->window);
    for (int64_t n = 0; n < d->samples; n++)
        for (int64_t f = 0; f < d->filters; f++) {
            const float *from = dy + n * d->y_step + f * plane;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < plane; i++)
                sum += from[i];
            dbias[f] += sum;
        }
}

void gd_winograd_weight_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight,
                                 float *dbias, void *scratch) {
    const grid in = input_grid(&d->window, d->samples, d->x_step),
               out = output_grid(&d->window, d->filters, d->samples, d->y_step);
    memory s;
    size_t floats;
    (void)lay_out(&in, &out, scratch, &s, &floats);
    const int64_t pitch = row_pitch(&in), u_step = element_step(out.channels, in.channels);
    const int64_t v_step = element_step(in.channels, pitch), m_step = element_step(out.channels, pitch);
    memset(s.in_planes, 0, (size_t)(4 * in.channels * in.plane + SLACK) * sizeof *s.in_planes);
    memset(s.out_planes, 0, (size_t)(4 * out.channels * out.plane + SLACK) * sizeof *s.out_planes);
    memset(s.u, 0, (size_t)(ELEMENTS * u_step) * sizeof *s.u);
    place at = {0}, same = {0};
    for (int64_t tiles; (tiles = transform(&in, false, &at, x, s.in_planes, s.v));) {
        (void)transform(&out, true, &same, dy, s.out_planes, s.m);
        for (int64_t e = 0; e < ELEMENTS; e++)
            gd_product(out.channels, in.channels, tiles, (gd_operand){s.m + e * m_step, pitch, 1},
                       (gd_operand){s.v + e * v_step, 1, pitch}, s.u + e * u_step, in.channels, true);
    }
    add_weights(s.u, out.channels, in.channels, dweight);
    if (dbias)
        add_bias(d, dy, dbias);
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
    return fits && w->padding[0] == 0 && w->padding[1] == w->padding[2] && w->channels >= 24 && filters >= 24;
}
