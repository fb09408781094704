/* matrix.c -- a block of the batch is split into bfloat16s once, for all of the weight, which goes by in
 * strips. Each is multiplied into four tiles of sums, 32 elements of the depth at a time; meanwhile vectors
 * split the next ones. */
#include "engine/kernels/matrix.h"

#include "engine/core/shape.h"
#include "engine/kernels/vec.h"

#if defined(__AMX_BF16__)

enum {
    UNIT = GD_MATRIX_UNIT, /* rows of a tile, and floats of such a row, */
    STEP = 2 * UNIT,       /* or bfloat16s, */
    TILE = UNIT * STEP,    /* and those of a tile */
    ROW_BYTES = STEP * sizeof(uint16_t),
    SUMS = GD_MATRIX_TILES,
    ALONG = 1024, /* depth of a block where a strip's rows are read from end to end: it fills the second-level
                     cache; */
    ACROSS = 64,  /* and where a strip is a column of lines of the cache, far apart: the nearest */
};
enum { HIGH, MIDDLE, LOW, PARTS }; /* of floats */

typedef uint16_t batch_step[PARTS][SUMS][TILE];
typedef uint16_t strip_step[PARTS][TILE];

static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} whole_tiles = {
    .palette = 1,
    .row_bytes = {ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES},
    .rows = {UNIT, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT}};

/* ---- splitting -------------------------------------------------------------------------------------- */

/* What a tile is made of: its row r are the 16 floats at r * row and the 16 that lie `gap` further. On the
 * left of a product they follow one another, on the right they take turns. */
typedef struct source {
    const float *at;
    int64_t row, gap;
} source;

/* Of two vectors the upper words, which are bfloat16s, in the order of a tile's row. */
static __m512i word_order(bool left) {
    _Alignas(64) uint16_t order[STEP];
    for (int i = 0; i < STEP; i++)
        order[i] = (uint16_t)(left ? 2 * i + 1 : i % 2 * STEP + i / 2 * 2 + 1);
    return _mm512_load_si512(order);
}

/* x without its upper word. */
GD_INLINE gd_vec rest(gd_vec x) {
    return x - (gd_vec)((gd_vec_mask)x & -65536);
}

/* A tile's row, of each part, which are `step` apart. *odd: lanes that were not finite */
GD_INLINE void split_row(source s, int r, __m512i order, uint16_t *to, int step, __mmask16 *odd) {
    const float *at = s.at + r * s.row;
    gd_vec first = gd_vec_load(at), second = gd_vec_load(at + s.gap);
#define PUT(part) \
    _mm512_store_si512(to + (part)*step + r * STEP, \
                       _mm512_permutex2var_epi16((__m512i)first, order, (__m512i)second))
    PUT(HIGH);
    first = rest(first);
    second = rest(second);
    *odd |= _mm512_cmp_ps_mask((__m512)first, (__m512)second, _CMP_UNORD_Q);
    PUT(MIDDLE);
    first = rest(first);
    second = rest(second);
    PUT(LOW);
#undef PUT
}

/* A corner of a matrix, with zeros around it, in rows of `width`. */
static const float *padded(const float *at, int64_t row, int64_t rows, int64_t columns, int64_t width,
                           float *room) {
    memset(room, 0, TILE * sizeof *room);
    for (int64_t r = 0; r < gd_smaller(rows, TILE / width); r++)
        for (int64_t i = 0; i < gd_smaller(columns, width); i++)
            room[r * width + i] = at[r * row + i];
    return room;
}

/* For the left: 16 rows, 32 elements of each, or as many as there are. */
GD_INLINE source rows_at(const float *at, int64_t row, int64_t rows, int64_t depth, float *room) {
    return rows >= UNIT && depth >= STEP ? (source){at, row, UNIT}
                                         : (source){padded(at, row, rows, depth, STEP, room), STEP, UNIT};
}

/* For the right: 32 rows, 16 elements of each. */
GD_INLINE source columns_at(const float *at, int64_t row, int64_t columns, int64_t depth, float *room) {
    return columns >= UNIT && depth >= STEP
               ? (source){at, 2 * row, row}
               : (source){padded(at, row, depth, columns, UNIT, room), 2 * UNIT, UNIT};
}

/* For the right, where columns lie one after the other. */
static source turned_at(const float *at, int64_t column, int64_t columns, int64_t depth, float *room) {
    _Alignas(64) float near[TILE];
    const source s = rows_at(at, column, columns, depth, near);
    for (int half = 0; half < STEP; half += UNIT) {
        gd_vec square[UNIT];
        for (int j = 0; j < UNIT; j++)
            square[j] = gd_vec_load(s.at + j * s.row + half);
        gd_vec_transpose(square);
        for (int i = 0; i < UNIT; i++)
            gd_vec_store(room + (half + i) * UNIT, square[i]);
    }
    return (source){room, 2 * UNIT, UNIT};
}

/* @return is it finite? */
static bool split_batch(bool left, int64_t side, int64_t depth, gd_operand x, batch_step *ret_steps) {
    _Alignas(64) float room[TILE];
    const __m512i order = word_order(left);
    __mmask16 odd = 0;
    for (int64_t i = 0; i < depth; i += STEP)
        for (int t = 0; t < SUMS; t++) {
            const int64_t count = side - t * UNIT, deep = depth - i;
            const float *at = left ? x.at + t * UNIT * x.row + i : x.at + i * x.row + t * UNIT * x.column;
            const source s = left            ? rows_at(at, x.row, count, deep, room)
                             : x.column == 1 ? columns_at(at, x.row, count, deep, room)
                                             : turned_at(at, x.column, count, deep, room);
            for (int r = 0; r < UNIT; r++)
                split_row(s, r, order, ret_steps[i / STEP][0][t], SUMS * TILE, &odd);
        }
    return !odd;
}

/* ---- multiplying ------------------------------------------------------------------------------------ */

/* The unit's tiles 0 ... 3 are sums, 4 ... 6 a strip's parts, 7 is one of the batch's. */
#define EACH_SUM(what) what(0) what(1) what(2) what(3)
#define LOAD(tile, from) _tile_loadd(tile, from, ROW_BYTES);
#define ADD(sum, part) \
    if (left) \
        _tile_dpbf16ps(sum, part, 7); \
    else \
        _tile_dpbf16ps(sum, 7, part);
#define SPLIT(r) split_row(next, r, order, ret_next[0], TILE, odd);
#define BY_LOW(t) LOAD(7, batch[LOW][t]) ADD(t, 4) SPLIT(t)
#define BY_MIDDLE(t) LOAD(7, batch[MIDDLE][t]) ADD(t, 5) ADD(t, 4) SPLIT(4 + t)
#define BY_HIGH(t) LOAD(7, batch[HIGH][t]) ADD(t, 6) ADD(t, 5) SPLIT(8 + 2 * t) ADD(t, 4) SPLIT(9 + 2 * t)

/* A step, and the next one of the strip is split. */
GD_INLINE void multiply(bool left, const uint16_t (*strip)[TILE], const uint16_t (*batch)[SUMS][TILE],
                        source next, __m512i order, uint16_t (*ret_next)[TILE], __mmask16 *odd) {
    __asm__ volatile("" : : : "memory"); /* a compiler may not know that a tile is loaded from memory */
    LOAD(4, strip[HIGH])
    LOAD(5, strip[MIDDLE])
    LOAD(6, strip[LOW])
    EACH_SUM(BY_LOW)
    EACH_SUM(BY_MIDDLE)
    EACH_SUM(BY_HIGH)
}

/* The sums of a strip of `count` rows or columns, or what is to be added to them. @return is it finite? */
GD_INLINE bool add_strip(bool left, int64_t count, int64_t depth, gd_operand w, const batch_step *batch,
                         bool accumulate, gd_matrix_tile *sums) {
    _Alignas(64) strip_step strip[2];
    _Alignas(64) float room[TILE];
    const __m512i order = word_order(left);
    __mmask16 odd = 0;
#define PARTS_AT(i) \
    (left ? rows_at(w.at + (i), w.row, count, depth - (i), room) \
          : columns_at(w.at + (i)*w.row, w.row, count, depth - (i), room))
    source s = PARTS_AT(0);
    for (int r = 0; r < UNIT; r++)
        split_row(s, r, order, strip[0][0], TILE, &odd);
#define CLEAR(t) _tile_zero(t);
#define TAKE(t) LOAD(t, sums[t])
    if (accumulate) {
        EACH_SUM(TAKE)
    } else {
        EACH_SUM(CLEAR)
    }
    for (int64_t i = 0; i < depth; i += STEP) {
        const int64_t turn = i / STEP % 2;
        if (i + STEP < depth)
            s = PARTS_AT(i + STEP);
        multiply(left, strip[turn], batch[i / STEP], s, order, strip[!turn], &odd);
    }
#define STORE(t) _tile_stored(t, sums[t], ROW_BYTES);
    EACH_SUM(STORE)
    return !odd;
}

GD_INLINE bool multiply_all(bool left, int64_t block, int64_t count, int64_t side, int64_t k, gd_operand w,
                            gd_operand x, batch_step *batch, gd_matrix_sums *ret_sums) {
    bool finite = true;
    memset(ret_sums->odd, 0, sizeof ret_sums->odd);
    _tile_loadconfig(&whole_tiles);
    for (int64_t begin = 0; finite && begin < k; begin += block) {
        const int64_t depth = gd_smaller(k - begin, block);
        finite = split_batch(!left, side, depth,
                             (gd_operand){x.at + begin * (left ? x.row : x.column), x.row, x.column}, batch);
        for (int64_t i = 0; finite && i < count; i += UNIT) {
            const float *at = left ? w.at + i * w.row + begin : w.at + begin * w.row + i;
            ret_sums->odd[i / UNIT] |=
                !add_strip(left, count - i, depth, (gd_operand){at, w.row, w.column},
                           (const batch_step *)batch, begin > 0, ret_sums->tiles[i / UNIT]);
        }
    }
    _tile_release();
    return finite;
}

bool gd_matrix_multiply(bool left, int64_t count, int64_t side, int64_t k, gd_operand weight,
                        gd_operand batch, gd_matrix_sums *ret_sums) {
    _Alignas(64) batch_step steps[ALONG / STEP];
    return left ? multiply_all(true, ALONG, count, side, k, weight, batch, steps, ret_sums)
                : multiply_all(false, ACROSS, count, side, k, weight, batch, steps, ret_sums);
}

#endif
