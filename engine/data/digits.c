/* digits.c -- the built-in dataset: handwritten-looking digits, drawn and not stored.
 *
 * A digit is a few pen strokes through control points. Each row takes one of the digit's styles, moves
 * every control point a little, slants, turns, bends and scales the whole, and draws it with a pen of
 * some width. Everything is integer arithmetic but for sqrt(), which IEEE 754 rounds exactly, so a row
 * is the same bytes on every machine. */
#include <math.h>

#include "engine/gradd_engine.h"

enum {
    SIDE = GD_DIGITS_SIDE,
    ONE = 256,       /* a pixel, and 1.0, in fixed point */
    MAX_POINTS = 20, /* control points of a glyph */
    PIECES = 6,      /* line pieces of one arc */
    MAX_PIECES = MAX_POINTS * PIECES,
    MARGIN = 2 * ONE, /* between the middle of a stroke and the picture's edge */
    HEIGHT = 100,     /* of a glyph's box, whose width is about 60 */
};

/* A stroke starts at START, rounds off at ROUND and turns sharply at CORNER. */
enum point_kind { START, ROUND, CORNER };

struct pen_point {
    enum point_kind kind;
    int x, y; /* y grows downwards */
};

struct glyph {
    int digit;
    int weight; /* how often it is drawn, relative to the digit's other styles */
    struct pen_point points[MAX_POINTS];
    int count;
};

#define COUNT_(...) (int)(sizeof((struct pen_point[]){__VA_ARGS__}) / sizeof(struct pen_point))
/* Braces in macros: versions of clang-format differ. */
/* clang-format off */
#define GLYPH(digit_, weight_, ...) \
    {.digit = (digit_), .weight = (weight_), .points = {__VA_ARGS__}, .count = COUNT_(__VA_ARGS__)}
#define S(x, y) {START, x, y}
#define R(x, y) {ROUND, x, y}
#define C(x, y) {CORNER, x, y}
/* clang-format on */

/* Rounding cuts corners off, so round strokes have control points outside the shape they draw.
 * Sorted by digit. */
static const struct glyph glyphs[] = {
    GLYPH(0, 4, S(36, 2), R(2, 0), R(-6, 52), R(8, 104), R(48, 106), R(68, 56), R(60, -2), R(30, 2)),
    GLYPH(0, 2, S(24, 8), R(4, 24), R(-6, 70), R(18, 110), R(52, 96), R(68, 44), R(56, -8), R(26, 0),
          R(14, 16)),
    GLYPH(0, 1, S(44, 10), R(20, -10), R(-4, 30), R(-2, 92), R(30, 110), R(62, 80), R(60, 20), R(34, -2)),
    GLYPH(1, 4, S(32, 0), R(31, 50), R(29, 100)),
    GLYPH(1, 2, S(12, 24), R(24, 14), C(34, 0), R(33, 50), R(32, 100)),
    GLYPH(1, 1, S(14, 22), R(26, 12), C(34, 0), C(33, 100), S(10, 100), R(34, 98), R(56, 100)),
    GLYPH(2, 3, S(4, 26), R(8, -4), R(44, -8), R(66, 22), R(44, 58), C(2, 98), R(30, 94), R(64, 98)),
    GLYPH(2, 2, S(6, 18), R(24, -8), R(62, -2), R(60, 40), R(34, 78), R(6, 106), R(-6, 88), R(14, 78),
          R(34, 96), R(66, 96)),
    GLYPH(2, 1, S(2, 12), R(30, -2), R(60, 0), R(54, 34), C(4, 96), C(60, 98)),
    GLYPH(3, 3, S(4, 12), R(24, -6), R(62, 0), R(58, 40), C(22, 47), R(64, 48), R(70, 94), R(30, 108),
          R(0, 86)),
    GLYPH(3, 1, S(6, 3), R(30, 1), C(58, 2), R(40, 20), C(24, 42), R(66, 44), R(70, 96), R(26, 108),
          R(0, 86)),
    GLYPH(3, 1, S(8, 16), R(22, -8), R(58, -4), R(60, 34), R(36, 50), R(16, 48), R(30, 42), R(66, 54),
          R(62, 100), R(22, 110), R(-2, 88)),
    GLYPH(4, 2, S(8, 4), R(6, 30), C(1, 54), R(30, 52), R(64, 50), S(46, 8), R(45, 50), R(42, 100)),
    GLYPH(4, 2, S(44, 0), R(26, 32), C(0, 66), R(30, 64), R(66, 66), S(45, 2), R(46, 40), R(44, 100)),
    GLYPH(4, 1, S(10, 2), R(-2, 36), R(2, 60), R(26, 58), R(48, 42), C(54, 0), R(50, 40), R(46, 100)),
    GLYPH(5, 2, S(58, 1), R(40, 3), C(14, 3), R(12, 20), C(8, 46), R(28, 32), R(66, 42), R(64, 98),
          R(26, 108), R(0, 90)),
    GLYPH(5, 2, S(14, 6), R(12, 26), C(8, 44), R(44, 28), R(70, 60), R(52, 104), R(18, 106), R(0, 92),
          S(13, 4), R(36, 6), R(62, 0)),
    GLYPH(5, 1, S(56, 4), R(30, -6), R(6, 4), R(2, 44), R(42, 42), R(68, 64), R(50, 104), R(20, 106),
          R(0, 92)),
    GLYPH(6, 3, S(46, 0), R(14, 16), R(-6, 66), R(4, 108), R(50, 108), R(66, 72), R(44, 46), R(14, 58),
          R(4, 80)),
    GLYPH(6, 2, S(34, 0), R(16, 30), R(0, 70), R(2, 104), R(34, 106), R(62, 88), R(46, 58), R(22, 62),
          R(10, 84)),
    GLYPH(6, 1, S(52, 8), R(38, -6), R(8, 10), R(-6, 66), R(6, 110), R(56, 104), R(60, 60), R(26, 50),
          R(4, 72)),
    GLYPH(7, 3, S(2, 6), R(30, 2), C(60, 3), R(36, 44), R(24, 100)),
    GLYPH(7, 2, S(2, 4), R(30, 4), C(60, 2), R(42, 36), R(22, 100), S(12, 50), R(34, 48), R(56, 48)),
    GLYPH(7, 1, S(4, 24), R(5, 14), C(6, 4), R(34, 8), C(62, 0), R(34, 50), R(30, 100)),
    GLYPH(8, 3, S(54, 12), R(38, -10), R(-2, -4), R(4, 38), R(46, 48), R(70, 72), R(48, 110), R(8, 108),
          R(-8, 76), R(20, 56), R(58, 34), R(60, 10), R(44, 2)),
    GLYPH(8, 1, S(30, 0), R(4, -2), R(0, 42), R(30, 48), R(60, 42), R(58, -2), R(30, 0), S(30, 47), R(-4, 48),
          R(-4, 102), R(30, 101), R(64, 102), R(64, 48), R(30, 47)),
    GLYPH(8, 1, S(34, 46), R(0, 34), R(4, -8), R(40, -8), R(62, 12), R(38, 44), R(0, 66), R(-4, 104),
          R(36, 112), R(66, 92), R(56, 60), R(30, 44)),
    GLYPH(9, 2, S(56, 14), R(40, -6), R(2, -6), R(-4, 44), R(26, 60), R(52, 36), C(57, 6), R(54, 50),
          R(50, 100)),
    GLYPH(9, 2, S(54, 20), R(46, -6), R(6, -8), R(-6, 36), R(14, 60), R(48, 50), C(57, 10), R(60, 64),
          R(50, 108), R(22, 104), R(8, 94)),
    GLYPH(9, 1, S(50, 8), R(24, -8), R(-4, 14), R(4, 50), R(40, 56), R(62, 26), R(48, -2), R(58, 30),
          R(46, 70), R(28, 102)),
};

enum { GLYPH_COUNT = sizeof glyphs / sizeof glyphs[0] };

/* ---- random numbers ------------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 ... n-1. */
static int below(uint64_t *state, int n) {
    return (int)((next_random(state) >> 32) * (uint64_t)n >> 32);
}

/* -spread ... spread, bell-shaped: the middle of three uniform draws' sum. */
static int around_zero(uint64_t *state, int spread) {
    return (below(state, 2 * spread + 1) + below(state, 2 * spread + 1) + below(state, 2 * spread + 1)) / 3 -
           spread;
}

/* ---- from glyph to line pieces --------------------------------------------------------------------- */

struct point {
    int x, y; /* 1/256 pixel */
};

static int lesser(int a, int b) {
    return a < b ? a : b;
}

static int greater(int a, int b) {
    return a > b ? a : b;
}

static int clamp(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}

/* Line pieces; piece i runs from from[i] to to[i]. */
struct drawing {
    struct point from[MAX_PIECES], to[MAX_PIECES];
    int count;
};

/* What one writer does to every glyph. Factors are in 1/256. */
struct hand {
    int xx, xy, yx, yy; /* scale, turn and slant as one matrix */
    int bend;           /* how much vertical strokes curve */
    int widen;          /* how much wider the bottom is than the top */
    int wobble;         /* spread of every control point, in glyph units */
    int radius;         /* of the pen, 1/256 pixel */
    int edge;           /* width of the pen's soft edge, 1/256 pixel */
    int ink;            /* brightest value */
    struct point shift;
};

static struct hand pick_hand(uint64_t *random) {
    struct hand hand;
    int height = 19 * ONE + around_zero(random, 2 * ONE); /* of the glyph's box on the picture */
    int width = height * (ONE + around_zero(random, 80)) / ONE;
    /* a turn by angle a: with t = tan(a/2), cos a = (1 - t^2) / (1 + t^2), sin a = 2t / (1 + t^2) */
    int t = around_zero(random, 45);
    int norm = ONE * ONE + t * t;
    int cosine = (ONE * ONE - t * t) * ONE / norm;
    int sine = 2 * t * ONE * ONE / norm;
    int slant = 28 - around_zero(random, 130); /* most people lean to the right */
    hand.xx = width * cosine / ONE;
    hand.xy = -height * (sine + slant * cosine / ONE) / ONE;
    hand.yx = width * sine / ONE;
    hand.yy = height * (cosine - slant * sine / ONE) / ONE;
    hand.bend = around_zero(random, 130);
    hand.widen = around_zero(random, 80);
    hand.wobble = 4 + below(random, 10);
    hand.radius = 210 + below(random, 130) + below(random, 150);
    hand.edge = 150 + below(random, 170);
    hand.ink = 255 - below(random, 30);
    hand.shift.x = around_zero(random, 4 * ONE);
    hand.shift.y = around_zero(random, 4 * ONE);
    return hand;
}

/* A control point on the picture, (0, 0) being the glyph's middle. */
static struct point place(const struct pen_point *pen, const struct hand *hand, uint64_t *random) {
    /* glyph units to 1/256 of the glyph's height */
    int x = (pen->x - 30 + around_zero(random, hand->wobble)) * ONE / HEIGHT;
    int y = (pen->y - 50 + around_zero(random, hand->wobble)) * ONE / HEIGHT;
    x = x * (ONE + hand->widen * y / ONE) / ONE + hand->bend * y / ONE * y / ONE;
    return (struct point){(x * hand->xx + y * hand->xy) / ONE, (x * hand->yx + y * hand->yy) / ONE};
}

static struct point middle(struct point a, struct point b) {
    return (struct point){(a.x + b.x) / 2, (a.y + b.y) / 2};
}

/* A quadratic Bezier arc as line pieces. */
static void add_arc(struct drawing *drawing, struct point start, struct point control, struct point end) {
    struct point last = start;
    for (int i = 1; i <= PIECES; i++) {
        int a = (PIECES - i) * (PIECES - i), b = 2 * i * (PIECES - i), c = i * i;
        struct point next = {(a * start.x + b * control.x + c * end.x) / (PIECES * PIECES),
                             (a * start.y + b * control.y + c * end.y) / (PIECES * PIECES)};
        drawing->from[drawing->count] = last;
        drawing->to[drawing->count++] = next;
        last = next;
    }
}

/* Does the curve pass through this point? Between the others it only bends towards it. */
static bool is_firm(const struct glyph *glyph, int i) {
    return i + 1 >= glyph->count || glyph->points[i].kind != ROUND || glyph->points[i + 1].kind == START;
}

/* Strokes as quadratic B-splines: arcs from middle to middle of the control points. */
static void write_glyph(const struct glyph *glyph, const struct hand *hand, uint64_t *random,
                        struct drawing *drawing) {
    struct point points[MAX_POINTS] = {0};
    for (int i = 0; i < glyph->count; i++)
        points[i] = place(&glyph->points[i], hand, random);
    drawing->count = 0;
    struct point pen = points[0];
    for (int i = 1; i < glyph->count; i++) {
        if (glyph->points[i].kind == START) {
            pen = points[i];
        } else if (!is_firm(glyph, i)) {
            struct point end = is_firm(glyph, i + 1) ? points[i + 1] : middle(points[i], points[i + 1]);
            add_arc(drawing, pen, points[i], end);
            pen = end;
        } else if (is_firm(glyph, i - 1)) { /* straight on; a round point's arc has come here already */
            add_arc(drawing, pen, middle(pen, points[i]), points[i]);
            pen = points[i];
        }
    }
}

/* Move the drawing's box to the middle of the picture, give or take a shift that keeps it inside. */
static void centre(struct drawing *drawing, struct point shift) {
    struct point low = drawing->from[0], high = low;
    for (int i = 0; i < drawing->count; i++) {
        const struct point ends[] = {drawing->from[i], drawing->to[i]};
        for (int k = 0; k < 2; k++) {
            low = (struct point){lesser(low.x, ends[k].x), lesser(low.y, ends[k].y)};
            high = (struct point){greater(high.x, ends[k].x), greater(high.y, ends[k].y)};
        }
    }
    int room_x = SIDE * ONE / 2 - MARGIN - (high.x - low.x) / 2;
    int room_y = SIDE * ONE / 2 - MARGIN - (high.y - low.y) / 2;
    int dx = SIDE * ONE / 2 - (low.x + high.x) / 2 + (room_x > 0 ? clamp(shift.x, -room_x, room_x) : 0);
    int dy = SIDE * ONE / 2 - (low.y + high.y) / 2 + (room_y > 0 ? clamp(shift.y, -room_y, room_y) : 0);
    for (int i = 0; i < drawing->count; i++) {
        drawing->from[i].x += dx, drawing->from[i].y += dy;
        drawing->to[i].x += dx, drawing->to[i].y += dy;
    }
}

/* ---- from line pieces to pixels --------------------------------------------------------------------- */

/* Distance from p to the line piece from a to b, 1/256 pixel. */
static int distance(struct point p, struct point a, struct point b) {
    int dx = b.x - a.x, dy = b.y - a.y;
    int along = (p.x - a.x) * dx + (p.y - a.y) * dy, length = dx * dx + dy * dy;
    int64_t t = length > 0 ? (int64_t)clamp(along, 0, length) * ONE / length : 0;
    int ex = p.x - a.x - (int)(dx * t / ONE), ey = p.y - a.y - (int)(dy * t / ONE);
    return (int)sqrt((double)ex * ex + (double)ey * ey);
}

/* Each pixel takes the most ink that any line piece gives it. pixels: (28, 28). */
static void draw(const struct drawing *drawing, const struct hand *hand, uint64_t *random, uint8_t *pixels) {
    int radius = hand->radius;
    for (int i = 0; i < drawing->count; i++) {
        struct point a = drawing->from[i], b = drawing->to[i];
        radius = clamp(radius + around_zero(random, 24), hand->radius * 3 / 4, hand->radius * 5 / 4);
        int reach = radius + hand->edge;
        int left = clamp((lesser(a.x, b.x) - reach) / ONE, 0, SIDE - 1);
        int right = clamp((greater(a.x, b.x) + reach) / ONE, 0, SIDE - 1);
        int top = clamp((lesser(a.y, b.y) - reach) / ONE, 0, SIDE - 1);
        int bottom = clamp((greater(a.y, b.y) + reach) / ONE, 0, SIDE - 1);
        for (int y = top; y <= bottom; y++) {
            for (int x = left; x <= right; x++) {
                struct point p = {x * ONE + ONE / 2, y * ONE + ONE / 2};
                int inside = radius + hand->edge / 2 - distance(p, a, b);
                int ink = clamp(inside * hand->ink / hand->edge, 0, hand->ink);
                if (ink > pixels[y * SIDE + x])
                    pixels[y * SIDE + x] = (uint8_t)ink;
            }
        }
    }
}

/* Paper and scanner: inked pixels are a little uneven. */
static void add_grain(uint8_t *pixels, uint64_t *random) {
    for (int i = 0; i < SIDE * SIDE; i++)
        if (pixels[i] > 0)
            pixels[i] = (uint8_t)clamp(pixels[i] + around_zero(random, 16), 0, 255);
}

static const struct glyph *pick_style(int digit, uint64_t *random) {
    int total = 0, i = 0;
    for (int k = 0; k < GLYPH_COUNT; k++)
        total += glyphs[k].digit == digit ? glyphs[k].weight : 0;
    int draw_lot = below(random, total);
    for (; i < GLYPH_COUNT; i++) {
        if (glyphs[i].digit != digit)
            continue;
        if (draw_lot < glyphs[i].weight)
            break;
        draw_lot -= glyphs[i].weight;
    }
    return &glyphs[i];
}

/* One row: the seed is the split and the index, nothing else. pixels: (28, 28). @return the digit */
static int draw_row(bool test, int64_t index, uint8_t *pixels) {
    uint64_t random = (uint64_t)index * 2 + (test ? 1 : 0);
    random = next_random(&random); /* neighbouring rows start far apart */
    int digit = below(&random, GD_DIGITS_CLASSES);
    const struct glyph *glyph = pick_style(digit, &random);
    struct hand hand = pick_hand(&random);
    struct drawing drawing = {.count = 0};
    write_glyph(glyph, &hand, &random, &drawing);
    centre(&drawing, hand.shift);
    memset(pixels, 0, SIDE * SIDE);
    draw(&drawing, &hand, &random, pixels);
    add_grain(pixels, &random);
    return digit;
}

void gd_digits(bool test, int64_t first, int64_t count, uint8_t *pixels, int64_t *labels) {
    for (int64_t i = 0; i < count; i++) {
        int digit = draw_row(test, first + i, pixels + i * SIDE * SIDE);
        if (labels)
            labels[i] = digit;
    }
}
