/* transform.c -- samples become what a network is fed: pictures resized, padded, cut, turned and moved;
 * numbers scaled and normalised, in float32 as PyTorch would. Formulas: torch.nn.functional.interpolate and
 * pad; torchvision's RandomCrop, CenterCrop, RandomHorizontalFlip and Normalize. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "engine/core/shape.h"

enum { LONGEST_SIDE = 65535 /* pixels that may be asked for */ };

typedef struct plane {
    int64_t height, width;
} plane;

/* What a transform makes of a sample's planes. Samples that are no pictures are planes of one row. */
typedef struct geometry {
    bool picture;
    int64_t channels;
    plane in, mid, out; /* as they come, after resize, in the end */
} geometry;

static int64_t area(plane p) {
    return p.height * p.width;
}

static bool is_for_pictures(const gd_transform *t) {
    return t->resize[0] || t->pad || t->crop[0] || t->flip > 0 || t->shift;
}

/* The shape is one that check() lets through. */
static geometry geometry_of(const gd_transform *t, const gd_shape *sample) {
    const int rank = sample->rank;
    if (!is_for_pictures(t)) {
        const bool apart = t->mean_count > 1 || t->std_count > 1;
        const plane row = {1, gd_numel_of(sample, apart, rank)};
        return (geometry){.channels = apart ? sample->dim[0] : 1, .in = row, .mid = row, .out = row};
    }
    geometry g = {.picture = true,
                  .channels = rank == 3 ? sample->dim[0] : 1,
                  .in = {sample->dim[rank - 2], sample->dim[rank - 1]}};
    g.mid = t->resize[0] ? (plane){t->resize[0], t->resize[1]} : g.in;
    g.out = t->crop[0] ? (plane){t->crop[0], t->crop[1]}
                       : (plane){g.mid.height + 2 * t->pad, g.mid.width + 2 * t->pad};
    return g;
}

/* ---- checks ------------------------------------------------------------------------------------------ */

static int check_side(const char *field, int64_t value, int64_t least, gd_error *error) {
    if (value >= least && value <= LONGEST_SIDE)
        return 0;
    return gd_fail_field(error, GD_E_VALUE, field, "%s must be %" PRId64 " to %d pixels, not %" PRId64, field,
                         least, LONGEST_SIDE, value);
}

/* Height and width: both or neither. */
static int check_sides(const char *field, const int64_t sides[2], gd_error *error) {
    const bool asked = sides[0] || sides[1];
    int code = check_side(field, sides[0], asked, error);
    return code ? code : check_side(field, sides[1], asked, error);
}

static int check_sizes(const gd_transform *t, gd_error *error) {
    int code;
    if ((code = check_sides("resize", t->resize, error)) || (code = check_side("pad", t->pad, 0, error)) ||
        (code = check_sides("crop", t->crop, error)) ||
        (code = check_side("crop_pad", t->crop_pad, 0, error)) ||
        (code = check_side("shift", t->shift, 0, error)))
        return code;
    if (t->resize[0] && t->pad)
        return gd_fail_field(error, GD_E_VALUE, "pad", "give resize or pad, not both");
    if (t->crop_pad && !t->crop[0])
        return gd_fail_field(error, GD_E_VALUE, "crop_pad", "crop_pad is for crop: give that one too");
    if (!(t->flip >= 0 && t->flip <= 1))
        return gd_fail_field(error, GD_E_VALUE, "flip", "flip is a probability, 0 to 1, not %g", t->flip);
    return 0;
}

/* Pictures fit what is done to them. */
static int check_picture(const gd_transform *t, const gd_shape *sample, gd_error *error) {
    char text[128];
    if (sample->rank != 2 && sample->rank != 3)
        return gd_fail_field(error, GD_E_SHAPE, "",
                             "resize, pad, crop, flip and shift are for pictures, (H, W) or (C, H, W), and a "
                             "sample is %s",
                             gd_shape_text(sample, text, sizeof text));
    const int64_t *side = &sample->dim[sample->rank - 2];
    if (side[0] < 1 || side[1] < 1 || side[0] > LONGEST_SIDE || side[1] > LONGEST_SIDE)
        return gd_fail_field(error, GD_E_SHAPE, "",
                             "pictures have sides of 1 to %d pixels, and a sample is %s", LONGEST_SIDE,
                             gd_shape_text(sample, text, sizeof text));
    for (int i = 0; i < 2; i++) {
        const int64_t whole = t->resize[0] ? t->resize[i] : side[i] + 2 * t->pad;
        if (t->crop[i] > whole)
            return gd_fail_field(error, GD_E_SHAPE, "crop",
                                 "crop takes %" PRId64 " pixels of axis %s, which has %" PRId64, t->crop[i],
                                 i ? "W" : "H", whole);
        if (t->shift >= (t->crop[i] ? t->crop[i] : whole))
            return gd_fail_field(error, GD_E_SHAPE, "shift",
                                 "shift by %" PRId64 " pixels would move all of the picture out of sight",
                                 t->shift);
    }
    return 0;
}

static int check_numbers(const char *field, const double *numbers, size_t count, int64_t channels,
                         gd_error *error) {
    if (count > 1 && (int64_t)count != channels)
        return gd_fail_field(error, GD_E_SHAPE, field,
                             "%s has %zu numbers; give one, or one for each of %" PRId64 " channels", field,
                             count, channels);
    for (size_t i = 0; i < count; i++)
        if (!isfinite((float)numbers[i]))
            return gd_fail_field(error, GD_E_VALUE, field, "%s must be finite numbers, not %g", field,
                                 numbers[i]);
    return 0;
}

static int check_values(const gd_transform *t, const gd_shape *sample, gd_error *error) {
    const bool flat = sample->rank == 0 || (is_for_pictures(t) && sample->rank == 2);
    const int64_t channels = flat ? 1 : sample->dim[0];
    int code = check_numbers("scale", &t->scale, 1, channels, error);
    if (!code)
        code = check_numbers("mean", t->mean, t->mean_count, channels, error);
    if (!code)
        code = check_numbers("std", t->std, t->std_count, channels, error);
    for (size_t i = 0; i < t->std_count && !code; i++)
        if (!((float)t->std[i] > 0))
            code = gd_fail_field(error, GD_E_VALUE, "std", "std must be above 0, not %g", t->std[i]);
    return code;
}

int gd_transform_shape(const gd_transform *transform, const gd_shape *sample, gd_shape *ret_shape,
                       gd_error *error) {
    size_t bytes;
    int code = check_sizes(transform, error);
    if (!code && is_for_pictures(transform))
        code = check_picture(transform, sample, error);
    if (!code)
        code = check_values(transform, sample, error);
    if (code)
        return code;
    const geometry g = geometry_of(transform, sample);
    const gd_shape shape = g.picture ? GD_SHAPE(g.channels, g.out.height, g.out.width) : *sample;
    code = gd_shape_bytes(&shape, GD_FLOAT32, &bytes, error);
    if (!code)
        *ret_shape = shape;
    return code;
}

/* ---- what is random ---------------------------------------------------------------------------------- */

enum { DRAW_TOP, DRAW_LEFT, DRAW_FLIP, DRAW_DOWN, DRAW_RIGHT };

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15) /* 2^64 over the golden ratio */

/* Number `index` + 1 of the generator seeded with `key`: splitmix64, S. Vigna 2015 (public domain), after G.
 * Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. */
static uint64_t splitmix64(uint64_t key, uint64_t index) {
    uint64_t z = key + (index + 1) * GOLDEN;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* 0 ... most. */
static int64_t draw(uint64_t key, uint64_t index, int64_t most) {
    return (int64_t)((splitmix64(key, index) >> 32) * ((uint64_t)most + 1) >> 32);
}

/* Which part of a plane is seen, and how: position (y, x) shows what is at (y - down + top, x - right +
 * left), or with right and left changed over; what is outside is zero. */
typedef struct window {
    int64_t top, left, down, right;
    bool mirrored;
} window;

/* Half of it, to the even side, as Python rounds. */
static int64_t middle(int64_t spare) {
    return spare / 2 + (spare % 2 && spare / 2 % 2);
}

static window window_of(const gd_transform *t, const geometry *g, int64_t row, uint64_t epoch, bool augment) {
    const int64_t down = g->mid.height + 2 * t->pad - g->out.height,
                  right = g->mid.width + 2 * t->pad - g->out.width; /* how far a piece can go */
    window w = {.top = -t->pad, .left = -t->pad};
    if (!augment) {
        w.top += middle(down);
        w.left += middle(right);
        return w;
    }
    const uint64_t key = splitmix64(splitmix64(t->seed, epoch), (uint64_t)row);
    w.top += draw(key, DRAW_TOP, down + 2 * t->crop_pad) - t->crop_pad;
    w.left += draw(key, DRAW_LEFT, right + 2 * t->crop_pad) - t->crop_pad;
    w.mirrored = (double)(splitmix64(key, DRAW_FLIP) >> 11) * 0x1p-53 < t->flip;
    w.down = draw(key, DRAW_DOWN, 2 * t->shift) - t->shift;
    w.right = draw(key, DRAW_RIGHT, 2 * t->shift) - t->shift;
    return w;
}

/* ---- planes ------------------------------------------------------------------------------------------ */

#define LOAD(type) \
    for (int64_t i = 0; i < count; i++) \
    out[i] = (float)((const type *)in)[i]

static void load(gd_dtype dtype, const void *in, int64_t count, float *out) {
    switch (dtype) {
    case GD_FLOAT32:
        LOAD(float);
        break;
    case GD_FLOAT64:
        LOAD(double);
        break;
    case GD_INT64:
        LOAD(int64_t);
        break;
    case GD_INT32:
        LOAD(int32_t);
        break;
    case GD_UINT8:
        LOAD(uint8_t);
        break;
    }
}

/* Between which two columns (or rows) one of the output lies, and how near the second. */
typedef struct tap {
    int32_t first, second;
    float weight; /* of the second */
} tap;

/* Pixels are areas: the centre of output i is at (i + 0.5) * in / out - 0.5. */
static tap tap_at(int64_t i, int64_t in, int64_t out) {
    float position = (float)in / (float)out * ((float)i + 0.5F) - 0.5F;
    position = position < 0 ? 0 : position;
    const int64_t first = gd_smaller((int64_t)position, in - 1);
    return (tap){(int32_t)first, (int32_t)gd_smaller(first + 1, in - 1), position - (float)first};
}

/* The caller's scratch taken apart. */
typedef struct scratch {
    float *plane; /* (in) as floats */
    float *wide;  /* (in.height, mid.width) */
    float *mid;   /* (mid) */
    tap *taps;    /* (mid.width) */
} scratch;

enum { TAP = sizeof(tap) / sizeof(float) };

size_t gd_transform_scratch(const gd_transform *transform, const gd_shape *sample) {
    const geometry g = geometry_of(transform, sample);
    const int64_t floats = area(g.in) + (g.in.height + g.mid.height + TAP) * g.mid.width;
    return g.picture ? (size_t)floats : 1; /* sides are short */
}

static scratch take_apart(const geometry *g, float *floats) {
    scratch s = {.plane = floats, .wide = floats + area(g->in)};
    s.mid = s.wide + g->in.height * g->mid.width;
    s.taps = (tap *)(void *)(s.mid + area(g->mid));
    for (int64_t x = 0; x < g->mid.width; x++)
        s.taps[x] = tap_at(x, g->in.width, g->mid.width);
    return s;
}

/* In two goes, rows and then columns: in (from) to wide (from.height, to.width) to out (to). */
static void resize(const float *in, plane from, const scratch *s, float *restrict out, plane to) {
    float *restrict wide = s->wide;
    for (int64_t y = 0; y < from.height; y++)
        for (int64_t x = 0; x < to.width; x++) {
            const tap h = s->taps[x];
            const float *row = in + y * from.width;
            wide[y * to.width + x] = (1 - h.weight) * row[h.first] + h.weight * row[h.second];
        }
    for (int64_t y = 0; y < to.height; y++) {
        const tap v = tap_at(y, from.height, to.height);
        const float *restrict above = wide + v.first * to.width, *restrict below = wide + v.second * to.width;
        for (int64_t x = 0; x < to.width; x++)
            out[y * to.width + x] = (1 - v.weight) * above[x] + v.weight * below[x];
    }
}

/* One row of what is seen: columns u of the piece that are on both sides, at u + right. */
static void show_row(const float *restrict in, int64_t in_width, const window *w, float *restrict out,
                     int64_t width) {
    const int64_t end = width - 1 + w->left; /* where the last column comes from */
    int64_t first = w->mirrored ? end + 1 - in_width : -w->left,
            last = w->mirrored ? end + 1 : in_width - w->left;
    first = first > 0 ? first : 0;
    first = first > -w->right ? first : -w->right;
    last = gd_smaller(gd_smaller(last, width), width - w->right);
    for (int64_t u = first; w->mirrored && u < last; u++)
        out[u + w->right] = in[end - u];
    if (!w->mirrored && first < last)
        memcpy(out + first + w->right, in + first + w->left, (size_t)(last - first) * sizeof *out);
}

static void show(const float *in, plane from, const window *w, float *out, plane to) {
    memset(out, 0, (size_t)area(to) * sizeof *out);
    for (int64_t y = 0; y < to.height; y++) {
        const int64_t piece = y - w->down, source = piece + w->top;
        if (piece >= 0 && piece < to.height && source >= 0 && source < from.height)
            show_row(in + source * from.width, from.width, w, out + y * to.width, to.width);
    }
}

static float number_of(const double *numbers, size_t count, int64_t channel, float otherwise) {
    return count ? (float)numbers[count > 1 ? channel : 0] : otherwise;
}

static void normalise(const gd_transform *t, int64_t channel, float *values, int64_t count) {
    const float scale = t->scale != 0 ? (float)t->scale : 1;
    const float mean = number_of(t->mean, t->mean_count, channel, 0);
    const float std = number_of(t->std, t->std_count, channel, 1);
    for (int64_t i = 0; i < count; i++)
        values[i] = (values[i] * scale - mean) / std;
}

static void picture(const geometry *g, gd_dtype dtype, const void *in, const scratch *s, const window *w,
                    float *out) {
    const float *at = in;
    if (dtype != GD_FLOAT32) {
        load(dtype, in, area(g->in), s->plane);
        at = s->plane;
    }
    if (g->mid.height != g->in.height || g->mid.width != g->in.width) {
        resize(at, g->in, s, s->mid, g->mid);
        at = s->mid;
    }
    show(at, g->mid, w, out, g->out);
}

void gd_transform_rows(const gd_transform *transform, const gd_tensor *rows, const int64_t *indices,
                       int64_t count, uint64_t epoch, bool augment, float *scratch_floats, float *ret_out) {
    const gd_shape sample = gd_shape_without_batch(&rows->shape);
    const geometry g = geometry_of(transform, &sample);
    const size_t step = (size_t)area(g.in) * gd_dtype_size(rows->dtype);
    const scratch s = g.picture ? take_apart(&g, scratch_floats) : (scratch){0};
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = indices ? indices[i] : i;
        const window w = g.picture ? window_of(transform, &g, row, epoch, augment) : (window){0};
        for (int64_t c = 0; c < g.channels; c++, ret_out += area(g.out)) {
            const char *in = (const char *)rows->data + (size_t)(row * g.channels + c) * step;
            if (g.picture)
                picture(&g, rows->dtype, in, &s, &w, ret_out);
            else
                load(rows->dtype, in, area(g.in), ret_out);
            normalise(transform, c, ret_out, area(g.out));
        }
    }
}
