/* turned.c -- images turned by squares of a vector of channels by as many pixels, and products by tiles of
 * registers. */
#include "engine/kernels/turned.h"

#include "engine/core/shape.h"
#include "engine/kernels/vec.h"

int64_t gd_turned_depth(int64_t count) {
    return gd_ceil_div(count, GD_LANES) * GD_LANES;
}

/* ---- turning ---------------------------------------------------------------------------------------- */

/* Steps through the pixels of a copy that belong to the image. */
typedef struct cursor {
    int64_t at, column;
} cursor;

GD_INLINE void next_pixel(const gd_turned *t, cursor *c) {
    c->at += t->depth;
    if (++c->column == t->width) {
        c->column = 0;
        c->at += (t->columns - t->width) * t->depth;
    }
}

void gd_turn_in(const gd_turned *t, const float *image, float *copy) {
    const int64_t pixels = t->height * t->width;
    for (int64_t first = 0; first < t->channels; first += GD_LANES) {
        const float *from = image + first * pixels;
        float *to = copy + (t->top * t->columns + t->left) * t->depth + first;
        const int64_t count = gd_smaller(t->channels - first, GD_LANES);
        cursor c = {0};
        int64_t p = 0;
        for (; p + GD_LANES <= pixels; p += GD_LANES) {
            gd_vec square[GD_LANES];
            for (int i = 0; i < GD_LANES; i++)
                square[i] = i < count ? gd_vec_load(from + i * pixels + p) : gd_vec_all(0);
            gd_vec_transpose(square);
            for (int i = 0; i < GD_LANES; i++, next_pixel(t, &c))
                gd_vec_store(to + c.at, square[i]);
        }
        for (; p < pixels; p++, next_pixel(t, &c))
            for (int64_t i = 0; i < GD_LANES; i++)
                to[c.at + i] = i < count ? from[i * pixels + p] : 0;
    }
}

void gd_turn_out(const gd_turned *t, const float *copy, bool add, float *image) {
    const int64_t pixels = t->height * t->width;
    for (int64_t first = 0; first < t->channels; first += GD_LANES) {
        const float *from = copy + (t->top * t->columns + t->left) * t->depth + first;
        float *to = image + first * pixels;
        const int64_t count = gd_smaller(t->channels - first, GD_LANES);
        cursor c = {0};
        int64_t p = 0;
        for (; p + GD_LANES <= pixels; p += GD_LANES) {
            gd_vec square[GD_LANES];
            for (int i = 0; i < GD_LANES; i++, next_pixel(t, &c))
                square[i] = gd_vec_load(from + c.at);
            gd_vec_transpose(square);
            for (int i = 0; i < count; i++) {
                float *row = to + i * pixels + p;
                gd_vec_store(row, add ? gd_vec_load(row) + square[i] : square[i]);
            }
        }
        for (; p < pixels; p++, next_pixel(t, &c))
            for (int64_t i = 0; i < count; i++)
                to[i * pixels + p] = from[c.at + i] + (add ? to[i * pixels + p] : 0);
    }
}

/* In four running sums: one alone would wait for each addition, and round more. */
void gd_turned_add_sums(const gd_turned *t, const float *copy, float *sums) {
    const int64_t pixels = t->rows * t->columns;
    for (int64_t c = 0; c < t->channels; c += GD_LANES) {
        gd_vec sum[4] = {0};
        float lane[GD_LANES];
        for (int64_t p = 0; p < pixels; p++)
            sum[p % 4] += gd_vec_load(copy + p * t->depth + c);
        gd_vec_store(lane, (sum[0] + sum[1]) + (sum[2] + sum[3]));
        for (int64_t i = 0; i < gd_smaller(t->channels - c, GD_LANES); i++)
            sums[c + i] += lane[i];
    }
}

/* ---- products --------------------------------------------------------------------------------------- */

enum {
    MOST_VECTORS = 3,
    HIGH = GD_LANES == 16 ? 16 : GD_LANES, /* rows of a tile of one vector, */
    LOW = GD_LANES == 16 ? 8 : 4,          /* of two and of three: sums that fit the registers */
};
_Static_assert(GD_TURNED_ROWS % HIGH == 0 && HIGH % LOW == 0, "rows must fill tiles");

/* `rows`, `vectors` and in places `row` are constants wherever this is used. */
GD_INLINE void tile(int rows, int vectors, int64_t row, const gd_turned_sum *s, const float *a,
                    const float *b, float *c) {
    gd_vec sum[HIGH][MOST_VECTORS];
    const int64_t step = s->a_step, b_row = s->b_row;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++)
            sum[r][v] = gd_vec_all(0);
    for (int64_t n = 0; n < s->stretches; n++) {
        const float *x = a + s->offset[n];
        for (int64_t i = 0; i < s->length; i++, x += step, b += b_row) {
            gd_vec y[MOST_VECTORS];
#pragma GCC unroll 3
            for (int v = 0; v < vectors; v++)
                y[v] = gd_vec_load(b + v * GD_LANES);
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                const gd_vec factor = gd_vec_all(x[r * row]);
#pragma GCC unroll 3
                for (int v = 0; v < vectors; v++)
                    sum[r][v] += factor * y[v];
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) {
            float *to = c + r * s->c_row + v * GD_LANES;
            gd_vec_store(to, s->accumulate ? gd_vec_load(to) + sum[r][v] : sum[r][v]);
        }
}

/* Many rows at once: there are not enough registers for their steps, but steps known beforehand need none. */
#define STRIP(VECTORS, ROWS) \
    static void strip_##VECTORS(const gd_turned_sum *s, int64_t rows, const float *a, const float *b, \
                                float *c) { \
        for (int64_t r = 0; r < rows; r += (ROWS), a += (ROWS)*s->a_row, c += (ROWS)*s->c_row) { \
            if (s->a_row == 1) \
                tile(ROWS, VECTORS, 1, s, a, b, c); \
            else if ((VECTORS) == 1 && s->a_row == GD_LANES) \
                tile(ROWS, VECTORS, GD_LANES, s, a, b, c); \
            else \
                tile(ROWS, VECTORS, s->a_row, s, a, b, c); \
        } \
    }
STRIP(1, HIGH)
STRIP(2, LOW)
STRIP(3, LOW)

void gd_turned_product(const gd_turned_sum *s, int64_t rows, int64_t columns, const float *a, const float *b,
                       float *c) {
    static void (*const strips[])(const gd_turned_sum *, int64_t, const float *, const float *,
                                  float *) = {NULL, strip_1, strip_2, strip_3};
    for (int64_t left = columns / GD_LANES, done; left;
         left -= done, b += done * GD_LANES, c += done * GD_LANES) {
        done = left == 4 ? 2 : gd_smaller(left, MOST_VECTORS);
        strips[done](s, rows, a, b, c);
    }
}
