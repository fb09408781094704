/* product.c -- products by tiles of registers.
 *
 * A block of B, DEPTH rows by as many columns as fit, is packed into panels of WIDTH columns. Then A goes by,
 * a strip of ROWS rows at a time and each element once, and is multiplied into every panel while it is in the
 * nearest cache. Of a B that comes from far away, the first strip does the packing. What is to be read soon
 * is fetched while a tile is computed: multiplications leave the memory idle.
 */
#include "engine/kernels/product.h"

#include <string.h>

#include "engine/core/shape.h"
#include "engine/kernels/matrix.h"
#include "engine/kernels/vec.h"

enum {
    WIDTH = 2 * GD_LANES,
    ROWS = GD_LANES == 16 ? 12 : 6, /* times two sums, and two vectors of B: what registers hold */
    DEPTH = 256,
    BLOCK = 64 * 1024,    /* floats of B that are packed at once: half of a small second-level cache */
    STRIP = ROWS * DEPTH, /* floats of a strip that is copied */
    STRIPS = 48 / ROWS,   /* that are copied at once: whole lines of the cache of each column, */
    LINES = 8,            /* and so many columns of all of them: they may share one set of the cache */
    AHEAD = 32,           /* rows of a panel that are fetched before their turn: it lies in a farther cache */
    NEAR = 512,           /* floats from row to row: two such matrices can be read where they lie, */
    NEAR_AHEAD = 8,       /* and so many rows are fetched: more would share too few sets of the cache */
    FAR_AHEAD = 32,       /* rows of B that are fetched into the second-level cache before they are packed */
    LINE = 16,            /* floats of a line of the cache */
    TILES = 4,            /* after so many of them a follower takes */
    FLOATS = ROWS * WIDTH,  /* of a tile: */
    PIECE = TILES * FLOATS, /* as many as they have */
    COLUMNS = 64,
    HEIGHT = 256, /* of a block of C that is to be transposed */
};
_Static_assert(GD_PACKED_COLUMNS % WIDTH == 0, "panels must fill a block");

/* A matrix from this row and column on. */
static gd_operand part_of(gd_operand x, int64_t row, int64_t column) {
    x.at += row * x.row + column * x.column;
    return x;
}

/* ---- packing ---------------------------------------------------------------------------------------- */

/* Of `columns` columns of a panel, those in each of its two vectors. */
typedef struct halves {
    gd_vec_lanes low, high;
} halves;

static halves halves_of(int64_t columns) {
    return (halves){gd_vec_lanes_of(0, gd_smaller(columns, GD_LANES)),
                    gd_vec_lanes_of(0, columns < GD_LANES ? 0 : columns - GD_LANES)};
}

/* Rows that lie one after the other, each read from end to end. */
static void pack_rows(int64_t k, int64_t n, const float *b, int64_t row, float *panels) {
    const int64_t whole = n / WIDTH * WIDTH;
    const halves some = halves_of(n - whole);
    for (int64_t i = 0; i < k; i++, b += row, panels += WIDTH) {
        for (int64_t first = 0; first < whole; first += WIDTH) {
            gd_vec_store(panels + first * k, gd_vec_load(b + first));
            gd_vec_store(panels + first * k + GD_LANES, gd_vec_load(b + first + GD_LANES));
        }
        if (whole == n)
            continue;
        gd_vec_store(panels + whole * k, gd_vec_load_some(b + whole, some.low));
        gd_vec_store(panels + whole * k + GD_LANES, gd_vec_load_some(b + whole + GD_LANES, some.high));
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
    if (b.column == 1)
        pack_rows(k, n, b.at, b.row, panels);
    for (int64_t first = 0; b.column != 1 && first < n; first += WIDTH)
        pack_columns(k, gd_smaller(n - first, WIDTH), b.at + first * b.column, b.column, panels + first * k);
}

/* ---- followers -------------------------------------------------------------------------------------- */

/* Rows of C that are complete and that the follower has yet to take, from the first one to the last. */
typedef struct trail {
    const gd_follower *follower;
    int64_t rows, columns, c_row;
    int64_t from;  /* where the first of them begins, in floats from C's first */
    int64_t taken; /* columns of the first */
    int tiles;     /* computed since the follower took its last piece */
} trail;

static void follow(trail *t, int64_t count) {
    while (t->rows && count) {
        const int64_t piece = gd_smaller(count, t->columns - t->taken);
        t->follower->take(t->follower, t->from + t->taken, piece);
        count -= piece;
        t->taken += piece;
        if (t->taken < t->columns)
            continue;
        t->taken = 0;
        t->from += t->c_row;
        t->rows--;
    }
}

/* ---- tiles ------------------------------------------------------------------------------------------ */

typedef struct strip {
    int64_t k;
    gd_operand a;
    const float *panel;
    int64_t b_row; /* from one row of B to the next where it is read in place; 0: packed */
    float *packed; /* where panels that are read in place are packed; NULL: they need not be */
    float *c;
    int64_t c_row;
    const float *bias; /* of the panel's columns: what sums begin as; NULL: as 0 */
    const float *gate; /* elements of C are 0 where its are at most 0; laid out like C; NULL: none */
    bool accumulate, relu;
    trail *trail;             /* NULL: nobody follows */
    const float *reads[ROWS]; /* what is soon to be read is fetched while a tile is computed: */
    int read_count, lines;    /* so many lines of the cache of each */
} strip;
_Static_assert((int)GD_MOST_READS <= (int)ROWS, "a follower's are among them");

/* 0 where the gate is at most 0. */
GD_INLINE gd_vec pass(gd_vec y, gd_vec gate) {
    return (gd_vec)(~(gd_vec_mask)(gate <= 0) & (gd_vec_mask)y);
}

GD_INLINE void put(float *c, gd_vec sum, const strip *s) {
    gd_vec y = s->accumulate ? gd_vec_load(c) + sum : sum;
    if (s->gate)
        y = pass(y, gd_vec_load(s->gate + (c - s->c)));
    gd_vec_store(c, s->relu ? gd_vec_relu(y) : y);
}

/* How a tile is computed. */
enum {
    PLAIN,
    HALF,     /* by the panel's lower half */
    BESIDE,   /* rows of A lie side by side */
    IN_PLACE, /* and B is read where it lies */
    PACKING,  /* B is read where it lies, and packed */
    KINDS
};

/* Elements of some rows of A by the panel's next row. */
GD_INLINE void multiply_add(gd_vec *low, gd_vec *high, const float *a, int64_t row, const float *b, int rows,
                            bool half) {
    const gd_vec b_low = gd_vec_load(b), b_high = half ? b_low : gd_vec_load(b + GD_LANES);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        const gd_vec x = gd_vec_all(a[r * row]);
        low[r] += x * b_low;
        if (!half)
            high[r] += x * b_high;
    }
}

GD_INLINE void fetch_row(const float *b) {
    for (int j = 0; j < WIDTH; j += LINE)
        __builtin_prefetch(b + j);
}

/* The row that a panel is read from becomes one of the packed panel. */
GD_INLINE void pack_row(const float *b, int64_t b_row, float *packed) {
    for (int j = 0; j < WIDTH; j += LINE)
        __builtin_prefetch(b + FAR_AHEAD * b_row + j, 0, 2);
    gd_vec_store(packed, gd_vec_load(b));
    gd_vec_store(packed + GD_LANES, gd_vec_load(b + GD_LANES));
}

/* Some rows of A by a panel; `rows` and `kind` are constants wherever this is used. */
GD_INLINE void tile(const strip *s, int rows, int kind) {
    const bool half = kind == HALF, in_place = kind == IN_PLACE, packing = kind == PACKING;
    const float *a = s->a.at, *b = s->panel;
    const int64_t row = kind == BESIDE || in_place ? 1 : s->a.row, column = s->a.column, c_row = s->c_row;
    const int64_t b_row = in_place || packing ? s->b_row : WIDTH;
    const int64_t ahead = (in_place || packing ? NEAR_AHEAD : AHEAD) * b_row;
    float *c = s->c, *packed = s->packed;
    gd_vec low[ROWS], high[ROWS];
    low[0] = s->bias ? gd_vec_load(s->bias) : gd_vec_all(0);
    high[0] = s->bias && !half ? gd_vec_load(s->bias + GD_LANES) : gd_vec_all(0);
#pragma GCC unroll 12
    for (int r = 1; r < rows; r++) {
        low[r] = low[0];
        high[r] = high[0];
    }
    int64_t i = 0;
    for (int l = 0; (kind == BESIDE || kind == PLAIN) && l < s->read_count; l++) {
        const float *read = s->reads[l];
        const int64_t end = gd_smaller(i + s->lines, s->k);
#pragma GCC unroll 2
        for (; i < end; i++, a += column, b += b_row, read += LINE) {
            __builtin_prefetch(read, 1);
            fetch_row(b + ahead);
            multiply_add(low, high, a, row, b, rows, half);
        }
    }
#pragma GCC unroll 2
    for (; i < s->k; i++, a += column, b += b_row) {
        fetch_row(b + ahead);
        if (packing) {
            pack_row(b, b_row, packed);
            packed += WIDTH;
        }
        if (in_place) {
            __builtin_prefetch(a + NEAR_AHEAD * column);
            __builtin_prefetch(a + NEAR_AHEAD * column + rows - 1);
        }
        multiply_add(low, high, a, row, b, rows, half);
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++, c += c_row) {
        put(c, low[r], s);
        if (!half)
            put(c + GD_LANES, high[r], s);
    }
}

/* Rows of A whose elements lie far apart: those of depth begin ... end - 1 one after the other. */
GD_INLINE void gather(const strip *s, int64_t begin, int64_t end, float *to, int rows) {
    for (int64_t i = begin; i < end; i++)
        memcpy(to + i * ROWS, s->a.at + i * s->a.column, (size_t)rows * sizeof *to);
}

#define TILE(rows) \
    static void gather_##rows(const strip *s, int64_t begin, int64_t end, float *to) { \
        gather(s, begin, end, to, rows); \
    } \
    static void tile_##rows(const strip *s) { \
        tile(s, rows, PLAIN); \
    } \
    static void half_##rows(const strip *s) { \
        tile(s, rows, HALF); \
    } \
    static void beside_##rows(const strip *s) { \
        tile(s, rows, BESIDE); \
    } \
    static void in_place_##rows(const strip *s) { \
        tile(s, rows, IN_PLACE); \
    } \
    static void packing_##rows(const strip *s) { \
        tile(s, rows, PACKING); \
    }
/* clang-format off */
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if defined(__AVX512F__)
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif

#define AT(rows) {{tile_##rows, half_##rows, beside_##rows, in_place_##rows, packing_##rows}, gather_##rows}
static const struct {
    void (*multiply[KINDS])(const strip *);
    void (*gather)(const strip *, int64_t begin, int64_t end, float *to);
} tiles[ROWS + 1] = {
    {{NULL}, NULL}, AT(1), AT(2), AT(3), AT(4), AT(5), AT(6),
#if defined(__AVX512F__)
    AT(7), AT(8), AT(9), AT(10), AT(11), AT(12),
#endif
};
/* clang-format on */

static void put_some(float *c, const float *sum, gd_vec_lanes lanes, const strip *s) {
    const gd_vec v = gd_vec_load(sum);
    gd_vec y = s->accumulate ? gd_vec_load_some(c, lanes) + v : v;
    if (s->gate)
        y = pass(y, gd_vec_load_some(s->gate + (c - s->c), lanes));
    gd_vec_store_some(c, s->relu ? gd_vec_relu(y) : y, lanes);
}

/* The last panel, where C has fewer columns: by way of a tile that has them all. */
static void narrow(const strip *s, int rows, int64_t columns) {
    float whole[ROWS * WIDTH], bias[WIDTH] = {0};
    strip q = *s;
    q.c = whole;
    q.c_row = WIDTH;
    q.accumulate = q.relu = false;
    q.gate = NULL;
    if (s->bias)
        q.bias = memcpy(bias, s->bias, (size_t)columns * sizeof *bias);
    tiles[rows].multiply[columns <= GD_LANES ? HALF : PLAIN](&q);
    const halves some = halves_of(columns);
    for (int r = 0; r < rows; r++) {
        put_some(s->c + r * s->c_row, whole + r * WIDTH, some.low, s);
        put_some(s->c + r * s->c_row + GD_LANES, whole + r * WIDTH + GD_LANES, some.high, s);
    }
}

/* Strips of A whose columns lie together: each strip to where its elements follow one another. */
static void copy_strips(int64_t m, int rows, const strip *s, float *to) {
    for (int64_t begin = 0; begin < s->k; begin += LINES) {
        strip q = *s;
        for (int64_t r = 0; r < m; r += rows, q.a.at += rows)
            tiles[gd_smaller(rows, m - r)].gather(&q, begin, gd_smaller(begin + LINES, s->k),
                                                  to + r / rows * STRIP);
    }
}

/* The follower takes a piece after this tile or one of the next, and what is to be fetched is a tile's share
 * of the one after that. */
static void fetch_reads(strip *s) {
    const trail *t = s->trail;
    s->read_count = t->rows ? t->follower->read_count : 0;
    s->lines = FLOATS / LINE;
    for (int l = 0; l < s->read_count; l++)
        s->reads[l] = t->follower->reads[l] + t->from + t->taken + PIECE + t->tiles * FLOATS;
}

/* The next strip, by so few panels that its way here counts. */
static void fetch_strip(strip *s, int rows) {
    s->read_count = rows;
    s->lines = (int)gd_ceil_div(s->k, LINE);
    for (int r = 0; r < rows; r++)
        s->reads[r] = s->a.at + (rows + r) * s->a.row;
}

/* One strip by all panels. */
static void multiply(int rows, int64_t n, strip s) {
    const int kind = s.packed ? PACKING : s.b_row ? IN_PLACE : s.a.row == 1 ? BESIDE : PLAIN;
    const int64_t next = s.b_row ? WIDTH : s.k * WIDTH;
    for (int64_t first = 0; first < n; first += WIDTH, s.panel += next, s.c += WIDTH) {
        if (s.trail)
            fetch_reads(&s);
        else if (kind == PLAIN && n <= 2 * WIDTH && first + WIDTH >= n)
            fetch_strip(&s, rows);
        if (n - first >= WIDTH)
            tiles[rows].multiply[kind](&s);
        else
            narrow(&s, rows, n - first);
        if (s.trail && ++s.trail->tiles == TILES) {
            follow(s.trail, PIECE);
            s.trail->tiles = 0;
        }
        s.bias = s.bias ? s.bias + WIDTH : NULL;
        s.gate = s.gate ? s.gate + WIDTH : NULL;
        s.packed = s.packed ? s.packed + s.k * WIDTH : NULL;
    }
}

/* All rows by all panels, in strips of one height but the last. */
static void sweep(int64_t m, int64_t n, strip s) {
    _Alignas(64) float near[STRIPS * STRIP];
    const int rows = (int)gd_ceil_div(m, gd_ceil_div(m, ROWS));
    const bool scattered = (!s.b_row || s.packed) && s.a.row == 1 && s.a.column != 1 && n > 2 * WIDTH;
    for (int64_t r = 0; r < m; r += rows, s.a.at += rows * s.a.row, s.c += rows * s.c_row) {
        const int64_t place = r / rows % STRIPS;
        strip t = s;
        if (scattered && place == 0)
            copy_strips(gd_smaller(m - r, STRIPS * rows), rows, &s, near);
        if (scattered)
            t.a = (gd_operand){near + place * STRIP, 1, ROWS};
        multiply((int)gd_smaller(rows, m - r), n, t);
        if (s.packed) { /* by the first strip */
            s.panel = s.packed;
            s.packed = NULL;
            s.b_row = 0;
        }
        s.gate = s.gate ? s.gate + rows * s.c_row : NULL;
        if (s.trail)
            s.trail->rows += gd_smaller(rows, m - r);
    }
}

/* ---- products --------------------------------------------------------------------------------------- */

/* C = A B, or what `form` says of bias, gate, accumulate and relu, block by block of B. */
static void by_blocks(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, strip form,
                      const gd_follower *follower) {
    _Alignas(64) float panels[BLOCK];
    const bool in_place =
        a.row == 1 && a.column > 1 && a.column <= NEAR && b.column == 1 && b.row <= NEAR && n % WIDTH == 0;
    const bool far = b.column == 1 && k * n > BLOCK; /* B is in no near cache */
    const int64_t across = in_place ? n : BLOCK / gd_smaller(k, DEPTH) / WIDTH * WIDTH;
    for (int64_t first = 0; first < n; first += across)
        for (int64_t begin = 0; begin < k; begin += DEPTH) {
            const int64_t depth = gd_smaller(k - begin, DEPTH), columns = gd_smaller(n - first, across);
            trail t = {.follower = follower, .columns = columns, .c_row = form.c_row, .from = first};
            const gd_operand block = part_of(b, begin, first);
            const bool packing = far && !in_place && columns % WIDTH == 0;
            if (!in_place && !packing)
                pack(depth, columns, block, panels);
            sweep(m, columns,
                  (strip){.k = depth,
                          .a = part_of(a, 0, begin),
                          .panel = in_place || packing ? block.at : panels,
                          .b_row = in_place || packing ? b.row : 0,
                          .packed = packing ? panels : NULL,
                          .c = form.c + first,
                          .c_row = form.c_row,
                          .bias = form.bias && !begin ? form.bias + first : NULL,
                          .gate = form.gate && begin + depth == k ? form.gate + first : NULL,
                          .accumulate = form.accumulate || begin,
                          .relu = form.relu && begin + depth == k,
                          .trail = follower && begin + depth == k ? &t : NULL});
            follow(&t, t.rows * t.columns);
        }
}

void gd_product(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, float *c, int64_t c_row,
                bool accumulate) {
    by_blocks(m, n, k, a, b, (strip){.c = c, .c_row = c_row, .accumulate = accumulate}, NULL);
}

void gd_product_followed(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, float *c,
                         bool accumulate, const gd_follower *follower) {
    by_blocks(m, n, k, a, b, (strip){.c = c, .c_row = n, .accumulate = accumulate}, follower);
}

void gd_product_affine(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *bias,
                       bool relu, float *c, int64_t c_row) {
    by_blocks(m, n, k, a, b, (strip){.c = c, .c_row = c_row, .bias = bias, .relu = relu}, NULL);
}

/* Blocks one after the other, each as product_block() packs it. */
static float *packed_block(float *panels, int64_t n, int64_t begin, int64_t first, int64_t depth) {
    return panels + begin * (gd_packed_floats(1, n)) + first * depth;
}

void gd_product_pack(int64_t k, int64_t n, gd_operand b, float *panels) {
    for (int64_t begin = 0; begin < k; begin += DEPTH)
        for (int64_t first = 0; first < n; first += COLUMNS) {
            const int64_t depth = gd_smaller(k - begin, DEPTH);
            pack(depth, gd_smaller(n - first, COLUMNS), part_of(b, begin, first),
                 packed_block(panels, n, begin, first, depth));
        }
}

void gd_product_packed(int64_t m, int64_t n, int64_t k, gd_operand a, const float *panels, const float *bias,
                       float *c, int64_t c_row, bool accumulate) {
    for (int64_t begin = 0; begin < k; begin += DEPTH)
        for (int64_t first = 0; first < n; first += COLUMNS) {
            const int64_t depth = gd_smaller(k - begin, DEPTH);
            sweep(m, gd_smaller(n - first, COLUMNS),
                  (strip){.k = depth,
                          .a = part_of(a, 0, begin),
                          .panel = packed_block((float *)(uintptr_t)panels, n, begin, first, depth),
                          .c = c + first,
                          .c_row = c_row,
                          .bias = bias && !begin ? bias + first : NULL,
                          .accumulate = accumulate || begin});
        }
}

/* One element of a row at a time, where a square of GD_LANES does not fit. */
static void write_transposed(int64_t m, int64_t n, const float *block, int64_t row, const float *bias,
                             bool relu, float *c, int64_t c_row) {
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            /* A depth is over 0. NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
            const float y = block[i * row + j] + (bias ? bias[i] : 0);
            c[j * c_row + i] = relu && y <= 0 ? 0 : y; /* NaN stays NaN */
        }
}

static void write_square(const float *block, int64_t row, const float *bias, bool relu, float *c,
                         int64_t c_row) {
    gd_vec square[GD_LANES];
    for (int i = 0; i < GD_LANES; i++)
        square[i] = gd_vec_load(block + i * row);
    gd_vec_transpose(square);
    const gd_vec shift = bias ? gd_vec_load(bias) : gd_vec_all(0);
    for (int j = 0; j < GD_LANES; j++) {
        const gd_vec y = square[j] + shift;
        gd_vec_store(c + j * c_row, relu ? gd_vec_relu(y) : y);
    }
}

/* C from the sums of some of its elements, `row` from one row of them to the next. */
static void finish(int64_t m, int64_t n, const float *block, int64_t row, const float *bias, bool relu,
                   float *c, int64_t c_row) {
    const int64_t whole_m = m - m % GD_LANES, whole_n = n - n % GD_LANES;
    for (int64_t j = 0; j < whole_n; j += GD_LANES)
        for (int64_t i = 0; i < whole_m; i += GD_LANES)
            write_square(block + i * row + j, row, bias ? bias + i : NULL, relu, c + j * c_row + i, c_row);
    write_transposed(m - whole_m, whole_n, block + whole_m * row, row, bias ? bias + whole_m : NULL, relu,
                     c + whole_m, c_row);
    write_transposed(m, n - whole_n, block + whole_n, row, bias, relu, c + whole_n * c_row, c_row);
}

static void transposed_by_vectors(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b,
                                  const float *bias, bool relu, float *c, int64_t c_row) {
    _Alignas(64) float block[HEIGHT * COLUMNS], panels[BLOCK];
    const bool once = k <= BLOCK / COLUMNS; /* B is packed, for all rows of A */
    for (int64_t first = 0; first < n; first += COLUMNS)
        for (int64_t top = 0; top < m; top += HEIGHT) {
            const int64_t columns = gd_smaller(n - first, COLUMNS), rows = gd_smaller(m - top, HEIGHT);
            for (int64_t begin = 0; begin < k; begin += DEPTH) {
                const int64_t depth = gd_smaller(k - begin, DEPTH);
                float *packed = panels + (once ? begin * COLUMNS : 0);
                if (top == 0 || !once)
                    pack(depth, columns, part_of(b, begin, first), packed);
                sweep(rows, columns,
                      (strip){.k = depth,
                              .a = part_of(a, top, begin),
                              .panel = packed,
                              .c = block,
                              .c_row = COLUMNS,
                              .accumulate = begin > 0});
            }
            finish(rows, columns, block, COLUMNS, bias ? bias + top : NULL, relu, c + first * c_row + top,
                   c_row);
        }
}

/* ---- by a matrix unit ------------------------------------------------------------------------------- */

#if defined(__AMX_BF16__)
enum { UNIT = GD_MATRIX_UNIT, SIDE = GD_MATRIX_SIDE, COUNT = GD_MATRIX_STRIPS * UNIT };

static void transposed_by_unit(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *bias,
                               bool relu, float *c, int64_t c_row) {
    gd_matrix_sums sums;
    const bool summed = 2 * n >= SIDE && gd_matrix_multiply(true, m, n, k, a, b, &sums);
    if (!summed)
        transposed_by_vectors(m, n, k, a, b, bias, relu, c, c_row);
    for (int64_t i = 0; summed && i < m; i += UNIT) {
        const int64_t rows = gd_smaller(m - i, UNIT);
        const float *some_bias = bias ? bias + i : NULL;
        if (sums.odd[i / UNIT])
            transposed_by_vectors(rows, n, k, part_of(a, i, 0), b, some_bias, relu, c + i, c_row);
        for (int64_t j = 0; !sums.odd[i / UNIT] && j < n; j += UNIT)
            finish(rows, gd_smaller(n - j, UNIT), sums.tiles[i / UNIT][j / UNIT][0], UNIT, some_bias, relu,
                   c + j * c_row + i, c_row);
    }
}

static void gated_by_unit(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *gate,
                          float *c, int64_t c_row) {
    gd_matrix_sums sums;
    const strip form = {.c = c, .c_row = c_row, .gate = gate};
    const bool summed = 2 * m >= SIDE && gd_matrix_multiply(false, n, m, k, b, a, &sums);
    if (!summed)
        by_blocks(m, n, k, a, b, form, NULL);
    for (int64_t i = 0; summed && i < m; i++)
        for (int64_t j = 0; j < n; j += UNIT)
            put_some(c + i * c_row + j, sums.tiles[j / UNIT][i / UNIT][i % UNIT],
                     gd_vec_lanes_of(0, gd_smaller(n - j, UNIT)), &form);
    for (int64_t j = 0; summed && j < n; j += UNIT)
        if (sums.odd[j / UNIT])
            by_blocks(m, gd_smaller(n - j, UNIT), k, a, part_of(b, 0, j),
                      (strip){.c = c + j, .c_row = c_row, .gate = gate ? gate + j : NULL}, NULL);
}
#endif

void gd_product_transposed(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *bias,
                           bool relu, float *c, int64_t c_row) {
#if defined(__AMX_BF16__)
    for (int64_t j = 0; a.large && j < n; j += SIDE)
        for (int64_t i = 0; i < m; i += COUNT)
            transposed_by_unit(gd_smaller(m - i, COUNT), gd_smaller(n - j, SIDE), k, part_of(a, i, 0),
                               part_of(b, 0, j), bias ? bias + i : NULL, relu, c + j * c_row + i, c_row);
    if (a.large)
        return;
#endif
    transposed_by_vectors(m, n, k, a, b, bias, relu, c, c_row);
}

void gd_product_gated(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *gate,
                      float *c, int64_t c_row) {
#if defined(__AMX_BF16__)
    for (int64_t i = 0; b.large && i < m; i += SIDE)
        for (int64_t j = 0; j < n; j += COUNT)
            gated_by_unit(gd_smaller(m - i, SIDE), gd_smaller(n - j, COUNT), k, part_of(a, i, 0),
                          part_of(b, 0, j), gate ? gate + i * c_row + j : NULL, c + i * c_row + j, c_row);
    if (b.large)
        return;
#endif
    by_blocks(m, n, k, a, b, (strip){.c = c, .c_row = c_row, .gate = gate}, NULL);
}
