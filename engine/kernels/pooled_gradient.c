/* pooled_gradient.c -- gradients of a convolution by 3x3 from those of its output's largest elements. Under a
 * window of 2x2 lies a patch of 4x4 pixels, a vector of 16 lanes; which element of the window was the largest
 * says where in the patch its 3x3 pixels are, in one of four ways.
 *
 * For the weight's gradient every patch is laid out in all four ways, so that the 3x3 pixels come first: what
 * the windows of a row have chosen of theirs is added up, for one filter after the other. For the input's,
 * every filter's weight is laid out in all four places of a patch: what the filters have chosen is added up
 * for one window after the other, and the patch to the image. */
#include "engine/kernels/pooled.h"

#include "engine/core/shape.h"
#include "engine/kernels/pool.h"
#include "engine/kernels/vec.h"

enum {
    KERNEL = 3,
    TAPS = KERNEL * KERNEL,
    SIDE = KERNEL + 1,
    PATCH = SIDE * SIDE,
    PARTS = PATCH / GD_LANES, /* vectors of a patch */
    WAYS = 4,
    PATCHES = GD_LANES < 8 ? 3 : 6, /* of sums that are in registers at once */
    SUMS = PATCHES * PARTS,
    MOST = 512, /* patches in each way of a table that stays in a near cache: 128 kB */
};

typedef struct walk {
    int64_t channels, filters;
    int64_t height, width; /* of the image */
    int64_t rows, columns; /* windows */
    int64_t pitch;         /* windows, in whole vectors */
    int64_t bytes;         /* of `at`, of a plane */
    float *weights;        /* (filters, WAYS, channels, PATCH) */
    float *patches;        /* (columns, WAYS, channels, PATCH), of a row */
    float *sums;           /* (filters, channels, PATCH): of the weight's gradient */
    float *bias;           /* (filters, GD_LANES): likewise of the bias's */
    float *slopes;         /* (filters, pitch): gradients of the windows' largest elements */
    int32_t *ways;         /* (filters, pitch): how many floats after the first their ways begin */
} walk;

static int64_t pitch_of(const gd_window *w) {
    return gd_ceil_div(w->out[1] / 2 * (w->out[2] / 2), PATCH) * PATCH;
}

bool gd_pooled_gradient_pays(const gd_window *w, int64_t filters) {
    return w->channels <= MOST && filters <= MOST / w->channels && w->out[2] / 2 <= MOST / w->channels;
}

bool gd_pooled_gradient_scratch(const gd_window *w, int64_t filters, size_t *ret_bytes) {
    const size_t channels = (size_t)w->channels, count = (size_t)filters, columns = (size_t)(w->out[2] / 2);
    size_t floats, windows;
    *ret_bytes = ((count + columns) * WAYS + count) * channels * PATCH + count * GD_LANES; /* at most MOST */
    return gd_mul((size_t)pitch_of(w), count, &windows) && gd_mul(windows, 2, &windows) &&
           gd_add(windows, *ret_bytes, &floats) && gd_mul(floats, sizeof(float), ret_bytes);
}

static walk walk_of(const gd_direct *d, void *scratch) {
    const gd_window *w = &d->window;
    walk s = {.channels = w->channels,
              .filters = d->filters,
              .height = w->in[1],
              .width = w->in[2],
              .rows = w->out[1] / 2,
              .columns = w->out[2] / 2,
              .pitch = pitch_of(w),
              .bytes = gd_max_pool_2x2_bytes(w->out[1] / 2 * (w->out[2] / 2)),
              .weights = scratch};
    const int64_t entry = WAYS * s.channels * PATCH;
    s.patches = s.weights + s.filters * entry;
    s.sums = s.patches + s.columns * entry;
    s.bias = s.sums + s.filters * s.channels * PATCH;
    s.slopes = s.bias + s.filters * GD_LANES;
    s.ways = (int32_t *)(s.slopes + s.filters * s.pitch);
    return s;
}

/* ---- tables ----------------------------------------------------------------------------------------- */

typedef float quad __attribute__((vector_size(SIDE * sizeof(float)), aligned(4), may_alias));

static inline quad load(const float *from) {
    return *(const quad *)from;
}

static inline void store(float *to, quad v) {
    *(quad *)to = v;
}

/* Lanes of a vector twice over, from lane n on. */
#define TURNED(n) \
    n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7, n + 8, n + 9, n + 10, n + 11, n + 12, n + 13, \
        n + 14, n + 15

/* A patch of the image in all ways, `step` floats from one to the next: from its pixel (way / 2, way % 2) on.
 * Beyond the 3x3 pixels is anything. */
static inline void lay_pixels(const float *image, int64_t width, float *to, int64_t step) {
#if defined(__AVX512F__)
    const gd_half above = __builtin_shufflevector(load(image), load(image + width), 0, 1, 2, 3, 4, 5, 6, 7);
    const gd_half below =
        __builtin_shufflevector(load(image + 2 * width), load(image + 3 * width), 0, 1, 2, 3, 4, 5, 6, 7);
    const gd_vec v = __builtin_shufflevector(above, below, GD_VEC_EACH);
    gd_vec_store(to, v);
    gd_vec_store(to + step, __builtin_shufflevector(v, v, TURNED(1)));
    gd_vec_store(to + 2 * step, __builtin_shufflevector(v, v, TURNED(SIDE)));
    gd_vec_store(to + 3 * step, __builtin_shufflevector(v, v, TURNED(SIDE + 1)));
#else
    quad row[SIDE][2];
    for (int i = 0; i < SIDE; i++) {
        row[i][0] = load(image + i * width);
        row[i][1] = __builtin_shufflevector(row[i][0], row[i][0], 1, 2, 3, 3);
    }
    for (int way = 0; way < WAYS; way++, to += step)
        for (int i = 0; i < KERNEL; i++)
            store(to + i * SIDE, row[way / 2 + i][way % 2]);
#endif
}

/* A window's weight in a patch of zeros, in all ways: its first element at (way / 2, way % 2). */
static inline void lay_weight(const float *weight, float *to, int64_t step) {
    const quad zero = {0}, last = load(weight + TAPS - SIDE);
    quad row[SIDE + 1][2] = {{zero, zero}};
    for (int i = 0; i < KERNEL; i++) {
        const quad taps = i + 1 < KERNEL ? load(weight + i * KERNEL) : last;
        row[i + 1][0] = i + 1 < KERNEL ? __builtin_shufflevector(taps, zero, 0, 1, 2, 4)
                                       : __builtin_shufflevector(taps, zero, 1, 2, 3, 4);
        row[i + 1][1] = __builtin_shufflevector(row[i + 1][0], zero, 4, 0, 1, 2);
    }
    row[SIDE][0] = row[SIDE][1] = zero;
    for (int way = 0; way < WAYS; way++, to += step)
        for (int i = 0; i < SIDE; i++)
            store(to + i * SIDE, row[i + 1 - way / 2][way % 2]);
}

static void lay_weights(const walk *s, const float *weight) {
    const int64_t step = s->channels * PATCH;
    for (int64_t f = 0; f < s->filters; f++)
        for (int64_t c = 0; c < s->channels; c++, weight += TAPS)
            lay_weight(weight, s->weights + f * WAYS * step + c * PATCH, step);
}

/* Of row `row` of the windows. */
static void lay_patches(const walk *s, const float *image, int64_t row) {
    const int64_t step = s->channels * PATCH;
    for (int64_t c = 0; c < s->channels; c++) {
        const float *from = image + (c * s->height + 2 * row) * s->width;
        for (int64_t q = 0; q < s->columns; q++)
            lay_pixels(from + 2 * q, s->width, s->patches + q * WAYS * step + c * PATCH, step);
    }
}

/* What came back to a sample's planes, and whereto; with bias, its sums. */
static void take_slopes(const walk *s, const gd_pooled *pooled, int64_t sample, bool bias) {
    const int64_t windows = s->rows * s->columns, first = sample * s->filters * windows;
    const float *dy = pooled->dy + first, *y = pooled->relu ? pooled->y + first : NULL;
    const uint8_t *at = pooled->at + sample * s->filters * s->bytes;
    const int32_t step = (int32_t)s->channels * PATCH;
    for (int64_t f = 0; f < s->filters; f++, dy += windows, at += s->bytes) {
        float *slopes = s->slopes + f * s->pitch;
        int32_t *ways = s->ways + f * s->pitch;
        gd_vec sum = gd_vec_all(0);
        for (int64_t i = 0; i < windows; i += GD_LANES) {
            const gd_vec_lanes lanes = gd_vec_lanes_of(0, gd_smaller(windows - i, GD_LANES));
            gd_vec g = gd_vec_load_some(dy + i, lanes);
            if (y)
                g = (gd_vec)(~(gd_vec_mask)(gd_vec_load_some(y + f * windows + i, lanes) <= 0) &
                             (gd_vec_mask)g);
            const gd_vec_mask way = gd_vec_load_bytes(at + i) * step;
            gd_vec_store(slopes + i, g);
            memcpy(ways + i, &way, sizeof way);
            sum += g;
        }
        if (bias)
            gd_vec_store(s->bias + f * GD_LANES, gd_vec_load(s->bias + f * GD_LANES) + sum);
    }
}

/* ---- sums ------------------------------------------------------------------------------------------- */

/* How terms lie: slopes and their ways `step` from one to the next, and the tables' entries. */
typedef struct terms {
    int64_t count, step;
    int64_t entry; /* floats */
    int64_t pitch; /* from a filter's slopes to the next one's */
} terms;

/* sums (filters, channels, PATCH) += each slope times its entry's patches, the way it goes. */
GD_INLINE void add(const int filters, const int channels, const terms *t, const float *slope,
                   const int32_t *way, const float *table, float *sums) {
    const int64_t count = t->count, step = t->step, entry = t->entry, pitch = t->pitch;
    const int vectors = channels * PARTS;
    gd_vec sum[SUMS];
#pragma GCC unroll 12
    for (int i = 0; i < filters * vectors; i++)
        sum[i] = gd_vec_load(sums + i * GD_LANES);
    for (int64_t k = 0; k < count; k++, slope += step, way += step, table += entry) {
#pragma GCC unroll 6
        for (int f = 0; f < filters; f++) {
            const gd_vec g = gd_vec_all(slope[f * pitch]);
            const float *patches = table + way[f * pitch];
#pragma GCC unroll 12
            for (int i = 0; i < vectors; i++)
                sum[f * vectors + i] += g * gd_vec_load(patches + i * GD_LANES);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < filters * vectors; i++)
        gd_vec_store(sums + i * GD_LANES, sum[i]);
}

typedef void adder(const terms *t, const float *slopes, const int32_t *ways, const float *table, float *sums);

#define ADD(filters, channels) \
    static void add_##filters##_##channels(const terms *t, const float *slopes, const int32_t *ways, \
                                           const float *table, float *sums) { \
        add(filters, channels, t, slopes, ways, table, sums); \
    }
/* clang-format off */
ADD(1, 1) ADD(1, 2) ADD(1, 3) ADD(2, 1) ADD(3, 1)
#if defined(__AVX__)
ADD(1, 4) ADD(1, 5) ADD(1, 6) ADD(4, 1) ADD(5, 1) ADD(6, 1)
#endif

static adder *const add_channels[PATCHES + 1] = {
    NULL, add_1_1, add_1_2, add_1_3,
#if defined(__AVX__)
    add_1_4, add_1_5, add_1_6,
#endif
};
static adder *const add_filters[PATCHES + 1] = {
    NULL, add_1_1, add_2_1, add_3_1,
#if defined(__AVX__)
    add_4_1, add_5_1, add_6_1,
#endif
};
/* clang-format on */

/* One filter's, for all channels. */
static inline void add_all(int64_t channels, const terms *t, const float *slopes, const int32_t *ways,
                           const float *table, float *sums) {
    for (; channels > 0; channels -= PATCHES, table += PATCHES * PATCH, sums += PATCHES * PATCH)
        add_channels[gd_smaller(channels, PATCHES)](t, slopes, ways, table, sums);
}

/* ---- gradients -------------------------------------------------------------------------------------- */

/* Of a row of windows; of an image with one channel several filters at a time. */
static void add_row(const walk *s, int64_t row, const terms *t) {
    const float *slopes = s->slopes + row * s->columns;
    const int32_t *ways = s->ways + row * s->columns;
    float *sums = s->sums;
    for (int64_t f = 0, count; f < s->filters; f += count) {
        count = s->channels == 1 ? gd_smaller(PATCHES, s->filters - f) : 1;
        if (s->channels == 1)
            add_filters[count](t, slopes, ways, s->patches, sums);
        else
            add_all(s->channels, t, slopes, ways, s->patches, sums);
        slopes += count * s->pitch;
        ways += count * s->pitch;
        sums += count * s->channels * PATCH;
    }
}

static void add_weight_sums(const walk *s, const float *image) {
    const terms t = {.count = s->columns, .step = 1, .entry = WAYS * s->channels * PATCH, .pitch = s->pitch};
    for (int64_t row = 0; row < s->rows; row++) {
        lay_patches(s, image, row);
        add_row(s, row, &t);
    }
}

/* The image += a window's patches (channels, PATCH). */
static inline void add_to_image(const walk *s, const float *patch, float *image) {
    for (int64_t c = 0; c < s->channels; c++, image += s->height * s->width)
        for (int i = 0; i < SIDE; i++, patch += SIDE)
            store(image + i * s->width, load(image + i * s->width) + load(patch));
}

static void add_to_input(const walk *s, float *image) {
    const terms t = {.count = s->filters, .step = s->pitch, .entry = WAYS * s->channels * PATCH};
    float *patch = s->patches;
    for (int64_t row = 0; row < s->rows; row++)
        for (int64_t column = 0; column < s->columns; column++) {
            const int64_t window = row * s->columns + column;
            memset(patch, 0, (size_t)(s->channels * PATCH) * sizeof *patch);
            add_all(s->channels, &t, s->slopes + window, s->ways + window, s->weights, patch);
            add_to_image(s, patch, image + 2 * (row * s->width + column));
        }
}

static void finish(const walk *s, float *dweight, float *dbias) {
    const float *sums = s->sums;
    for (int64_t i = 0; dweight && i < s->filters * s->channels; i++, sums += PATCH, dweight += TAPS)
        for (int t = 0; t < TAPS; t++)
            dweight[t] += sums[t / KERNEL * SIDE + t % KERNEL];
    for (int64_t f = 0; dbias && f < s->filters; f++)
        dbias[f] += gd_vec_sum(gd_vec_load(s->bias + f * GD_LANES));
}

void gd_pooled_backward(const gd_direct *d, const gd_pooled *pooled, const float *x, const float *weight,
                        float *dweight, float *dbias, bool accumulate, float *dx, void *scratch) {
    const walk s = walk_of(d, scratch);
    const size_t image_bytes = (size_t)(s.channels * s.height * s.width) * sizeof *dx;
    memset(s.sums, 0, (size_t)((char *)s.slopes - (char *)s.sums));
    if (dx)
        lay_weights(&s, weight);
    for (int64_t n = 0; n < d->samples; n++, x += d->x_step) {
        take_slopes(&s, pooled, n, dbias);
        if (dweight)
            add_weight_sums(&s, x);
        if (!dx)
            continue;
        if (!accumulate)
            memset(dx, 0, image_bytes);
        add_to_input(&s, dx);
        dx += d->x_step;
    }
    finish(&s, dweight, dbias);
}
