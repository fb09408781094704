/* product.c -- products by tiles of registers.
 *
 * A block of B, DEPTH rows by COLUMNS columns, is packed into panels of WIDTH columns. Then A goes by, ROWS
 * rows at a time and each element once, and is multiplied into every panel while it is in the nearest cache.
 */
#include "engine/kernels/product.h"

#include <string.h>

#include "engine/core/shape.h"
#include "engine/kernels/vec.h"

enum {
    WIDTH = 2 * GD_LANES,
    ROWS = GD_LANES == 16 ? 12 : 6, /* times two sums, and two vectors of B: what registers hold */
    DEPTH = 256,
    COLUMNS = GD_PACKED_COLUMNS,
    HEIGHT = 256, /* rows of a block of C that is to be transposed */
};
_Static_assert(COLUMNS % WIDTH == 0, "panels must fill a block");

/* ---- packing ---------------------------------------------------------------------------------------- */

/* Rows that lie one after the other. */
static void pack_rows(int64_t k, int64_t columns, const float *b, int64_t row, float *panel) {
    for (int64_t i = 0; i < k; i++, b += row, panel += WIDTH) {
        if (columns == WIDTH) {
            gd_vec_store(panel, gd_vec_load(b));
            gd_vec_store(panel + GD_LANES, gd_vec_load(b + GD_LANES));
        } else {
            for (int64_t j = 0; j < WIDTH; j++)
                panel[j] = j < columns ? b[j] : 0;
        }
    }
}

/* Columns that lie one after the other. */
static void pack_columns(int64_t k, int64_t columns, const float *b, int64_t column, float *panel) {
    int64_t i = 0;
    for (; columns == WIDTH && i + GD_LANES <= k; i += GD_LANES)
        for (int half = 0; half < WIDTH; half += GD_LANES) {
            gd_vec square[GD_LANES];
            for (int j = 0; j < GD_LANES; j++)
                square[j] = gd_vec_load(b + (half + j) * column + i);
            gd_vec_transpose(square);
            for (int j = 0; j < GD_LANES; j++)
                gd_vec_store(panel + (i + j) * WIDTH + half, square[j]);
        }
    for (; i < k; i++)
        for (int64_t j = 0; j < WIDTH; j++)
            panel[i * WIDTH + j] = j < columns ? b[j * column + i] : 0;
}

static void pack(int64_t k, int64_t n, gd_operand b, float *panels) {
    for (int64_t first = 0; first < n; first += WIDTH, panels += k * WIDTH) {
        const float *from = b.at + first * b.column;
        const int64_t columns = gd_smaller(n - first, WIDTH);
        if (b.column == 1)
            pack_rows(k, columns, from, b.row, panels);
        else
            pack_columns(k, columns, from, b.column, panels);
    }
}

/* ---- tiles ------------------------------------------------------------------------------------------ */

typedef struct strip {
    int64_t k;
    gd_operand a;
    const float *panel;
    float *c;
    int64_t c_row;
    bool accumulate;
} strip;

/* Some rows of A by a panel; `rows` is a constant wherever this is used. */
GD_INLINE void tile(const strip *s, int rows) {
    const float *a = s->a.at, *b = s->panel;
    const int64_t row = s->a.row, column = s->a.column;
    gd_vec low[ROWS], high[ROWS];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = gd_vec_all(0);
    for (int64_t i = 0; i < s->k; i++, a += column, b += WIDTH) {
        const gd_vec b_low = gd_vec_load(b), b_high = gd_vec_load(b + GD_LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const gd_vec x = gd_vec_all(a[r * row]);
            low[r] += x * b_low;
            high[r] += x * b_high;
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        float *c = s->c + r * s->c_row;
        gd_vec_store(c, s->accumulate ? low[r] + gd_vec_load(c) : low[r]);
        gd_vec_store(c + GD_LANES, s->accumulate ? high[r] + gd_vec_load(c + GD_LANES) : high[r]);
    }
}

/* Rows of A whose elements lie far apart, one after the other: each is read for every panel. */
GD_INLINE void gather(const strip *s, float *to, int rows) {
    for (int64_t i = 0; i < s->k; i++)
        memcpy(to + i * ROWS, s->a.at + i * s->a.column, (size_t)rows * sizeof *to);
}

#define TILE(rows) \
    static void gather_##rows(const strip *s, float *to) { \
        gather(s, to, rows); \
    } \
    static void tile_##rows(const strip *s) { \
        tile(s, rows); \
    }
/* clang-format off */
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if defined(__AVX512F__)
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif

#define AT(rows) {tile_##rows, gather_##rows}
static const struct {
    void (*multiply)(const strip *);
    void (*gather)(const strip *, float *);
} tiles[ROWS + 1] = {
    {NULL, NULL}, AT(1), AT(2), AT(3), AT(4), AT(5), AT(6),
#if defined(__AVX512F__)
    AT(7), AT(8), AT(9), AT(10), AT(11), AT(12),
#endif
};
/* clang-format on */

/* The last panel, where C has fewer columns: by way of a tile that has them all. */
static void narrow(const strip *s, int rows, int64_t columns) {
    float whole[ROWS * WIDTH];
    strip q = *s;
    q.c = whole;
    q.c_row = WIDTH;
    q.accumulate = false;
    tiles[rows].multiply(&q);
    for (int r = 0; r < rows; r++)
        for (int64_t j = 0; j < columns; j++) {
            float *c = &s->c[r * s->c_row + j];
            *c = whole[r * WIDTH + j] + (s->accumulate ? *c : 0);
        }
}

/* All rows by all panels; in tiles of nearly equal height, for a low one keeps the multipliers waiting: 16
 * rows are 6 + 5 + 5. */
static void sweep(int64_t m, int64_t n, strip s, const float *panels) {
    float gathered[ROWS * DEPTH];
    const bool scattered = s.a.row == 1 && s.a.column != 1 && n > WIDTH && s.k > DEPTH / 2;
    for (int64_t left = (m + ROWS - 1) / ROWS; left; left--) {
        const int rows = (int)((m + left - 1) / left);
        strip t = s;
        t.panel = panels;
        if (scattered) {
            tiles[rows].gather(&s, gathered);
            t.a = (gd_operand){gathered, 1, ROWS};
        }
        for (int64_t first = 0; first < n; first += WIDTH, t.panel += s.k * WIDTH, t.c += WIDTH) {
            if (n - first >= WIDTH)
                tiles[rows].multiply(&t);
            else
                narrow(&t, rows, n - first);
        }
        m -= rows;
        s.a.at += rows * s.a.row;
        s.c += rows * s.c_row;
    }
}

/* ---- products --------------------------------------------------------------------------------------- */

/* At most COLUMNS columns. */
static void product_block(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, float *c,
                          int64_t c_row, bool accumulate) {
    _Alignas(64) float panels[DEPTH * COLUMNS];
    for (int64_t begin = 0; begin < k; begin += DEPTH) {
        const int64_t depth = gd_smaller(k - begin, DEPTH);
        pack(depth, n, (gd_operand){b.at + begin * b.row, b.row, b.column}, panels);
        sweep(m, n,
              (strip){.k = depth,
                      .a = {a.at + begin * a.column, a.row, a.column},
                      .c = c,
                      .c_row = c_row,
                      .accumulate = accumulate || begin},
              panels);
    }
}

void gd_product(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, float *c, int64_t c_row,
                bool accumulate) {
    for (int64_t first = 0; first < n; first += COLUMNS)
        product_block(m, gd_smaller(n - first, COLUMNS), k, a,
                      (gd_operand){b.at + first * b.column, b.row, b.column}, c + first, c_row, accumulate);
}

/* Blocks one after the other, each as product_block() packs it. */
static float *packed_block(float *panels, int64_t n, int64_t begin, int64_t first, int64_t depth) {
    return panels + begin * (gd_packed_floats(1, n)) + first * depth;
}

void gd_product_pack(int64_t k, int64_t n, gd_operand b, float *panels) {
    for (int64_t begin = 0; begin < k; begin += DEPTH)
        for (int64_t first = 0; first < n; first += COLUMNS) {
            const int64_t depth = gd_smaller(k - begin, DEPTH);
            pack(depth, gd_smaller(n - first, COLUMNS),
                 (gd_operand){b.at + begin * b.row + first * b.column, b.row, b.column},
                 packed_block(panels, n, begin, first, depth));
        }
}

void gd_product_packed(int64_t m, int64_t n, int64_t k, gd_operand a, const float *panels, float *c,
                       int64_t c_row, bool accumulate) {
    for (int64_t begin = 0; begin < k; begin += DEPTH)
        for (int64_t first = 0; first < n; first += COLUMNS) {
            const int64_t depth = gd_smaller(k - begin, DEPTH);
            sweep(m, gd_smaller(n - first, COLUMNS),
                  (strip){.k = depth,
                          .a = {a.at + begin * a.column, a.row, a.column},
                          .c = c + first,
                          .c_row = c_row,
                          .accumulate = accumulate || begin},
                  packed_block((float *)(uintptr_t)panels, n, begin, first, depth));
        }
}

/* One element of a row at a time, where a square of GD_LANES does not fit. */
static void write_transposed(int64_t m, int64_t n, const float *block, const float *bias, bool relu, float *c,
                             int64_t c_row) {
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            const float y = block[i * COLUMNS + j] + (bias ? bias[i] : 0);
            c[j * c_row + i] = relu && y <= 0 ? 0 : y; /* NaN stays NaN */
        }
}

static void write_square(const float *block, const float *bias, bool relu, float *c, int64_t c_row) {
    gd_vec square[GD_LANES];
    for (int i = 0; i < GD_LANES; i++)
        square[i] = gd_vec_load(block + i * COLUMNS);
    gd_vec_transpose(square);
    const gd_vec shift = bias ? gd_vec_load(bias) : gd_vec_all(0);
    for (int j = 0; j < GD_LANES; j++) {
        const gd_vec y = square[j] + shift;
        gd_vec_store(c + j * c_row, relu ? gd_vec_relu(y) : y);
    }
}

static void finish(int64_t m, int64_t n, const float *block, const float *bias, bool relu, float *c,
                   int64_t c_row) {
    const int64_t whole_m = m - m % GD_LANES, whole_n = n - n % GD_LANES;
    for (int64_t i = 0; i < whole_m; i += GD_LANES)
        for (int64_t j = 0; j < whole_n; j += GD_LANES)
            write_square(block + i * COLUMNS + j, bias ? bias + i : NULL, relu, c + j * c_row + i, c_row);
    write_transposed(m - whole_m, whole_n, block + whole_m * COLUMNS, bias ? bias + whole_m : NULL, relu,
                     c + whole_m, c_row);
    write_transposed(m, n - whole_n, block + whole_n, bias, relu, c + whole_n * c_row, c_row);
}

void gd_product_transposed(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *bias,
                           bool relu, float *c, int64_t c_row) {
    _Alignas(64) float block[HEIGHT * COLUMNS];
    for (int64_t first = 0; first < n; first += COLUMNS)
        for (int64_t top = 0; top < m; top += HEIGHT) {
            const int64_t columns = gd_smaller(n - first, COLUMNS), rows = gd_smaller(m - top, HEIGHT);
            product_block(rows, columns, k, (gd_operand){a.at + top * a.row, a.row, a.column},
                          (gd_operand){b.at + first * b.column, b.row, b.column}, block, COLUMNS, false);
            finish(rows, columns, block, bias ? bias + top : NULL, relu, c + first * c_row + top, c_row);
        }
}
