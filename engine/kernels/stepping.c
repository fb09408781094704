/* stepping.c -- the sums of a convolution over images turned channels last: rows of windows by vectors of
 * filters. Of the input's gradient, pixels that the same elements of windows (taps) have met go together:
 * with a step of 2 along both axes there are four such phases, and to a phase dx is a convolution without
 * steps. */
#include "engine/kernels/stepping.h"

#include <string.h>

#include "engine/core/shape.h"
#include "engine/kernels/turned.h"
#include "engine/kernels/vec.h"

enum {
    MOST_STEPS = 4,    /* phases along an axis */
    MOST_TERMS = 4096, /* of a sum: weights of a block of filters that stay in the L2 cache */
};

/* Both sides' images, and the scratch they are turned into. */
typedef struct sides {
    gd_turned x, y;
    int64_t taps;
    int64_t *offset; /* (taps, or rows of y) */
    float *weight;   /* (taps, channels, y.depth), (taps, filters, x.depth), or the former of x.depth */
    float *in, *out; /* x and y; rows behind their last one are computed for nothing */
} sides;

/* Forward and for the weight x has a border and y has none; on the way back it is the other way round. */
static sides sides_of(gd_direct_pass pass, const gd_window *w, int64_t filters) {
    sides s = {.x = {.channels = w->channels, .height = w->in[1], .width = w->in[2]},
               .y = {.channels = filters, .height = w->out[1], .width = w->out[2]},
               .taps = w->kernel[1] * w->kernel[2]};
    int64_t *const begin[] = {NULL, &s.x.top, &s.x.left}, *const back_begin[] = {NULL, &s.y.top, &s.y.left};
    int64_t *const size[] = {NULL, &s.x.rows, &s.x.columns}, *const out[] = {NULL, &s.y.rows, &s.y.columns};
    for (int axis = 1; axis < GD_WINDOW_AXES; axis++) {
        const int64_t reach = (w->kernel[axis] - 1) * w->dilation[axis], step = w->stride[axis];
        if (pass == GD_DIRECT_INPUT_GRADIENT) {
            *back_begin[axis] = reach / step;
            *size[axis] = w->in[axis];
            *out[axis] =
                reach / step + gd_larger(w->out[axis], (w->in[axis] - 1 + w->padding[axis]) / step + 1);
        } else {
            *begin[axis] = w->padding[axis];
            *size[axis] = gd_larger(w->padding[axis] + w->in[axis], (w->out[axis] - 1) * step + reach + 1);
            *out[axis] = w->out[axis];
        }
    }
    s.x.depth = gd_turned_depth(w->channels);
    s.y.depth = gd_turned_depth(filters);
    return s;
}

/* Where the scratch has what; with NULL only how much of it there is. */
static bool lay_out(const gd_window *w, sides *s, void *scratch, size_t *ret_bytes) {
    const size_t slack = 1 + GD_TURNED_ROWS * (size_t)gd_larger(w->stride[2], 1);
    size_t in, out, weight, offsets = (size_t)gd_larger(s->taps, s->y.height);
    if (!gd_mul((size_t)s->x.rows, (size_t)s->x.columns, &in) || !gd_add(in, slack, &in) ||
        !gd_mul(in, (size_t)s->x.depth, &in) || !gd_mul((size_t)s->y.rows, (size_t)s->y.columns, &out) ||
        !gd_add(out, slack, &out) || !gd_mul(out, (size_t)s->y.depth, &out) ||
        !gd_mul((size_t)s->x.depth, (size_t)s->y.depth, &weight) || !gd_mul(weight, (size_t)s->taps, &weight))
        return false;
    s->offset = scratch;
    if (scratch) {
        s->in = (float *)(s->offset + offsets);
        s->out = s->in + in;
        s->weight = s->out + out;
    }
    return gd_mul(offsets, sizeof *s->offset, &offsets) && gd_add(in, out, ret_bytes) &&
           gd_add(*ret_bytes, weight, ret_bytes) && gd_mul(*ret_bytes, sizeof(float), ret_bytes) &&
           gd_add(*ret_bytes, offsets, ret_bytes);
}

static sides begin(gd_direct_pass pass, const gd_direct *d, void *scratch) {
    sides s = sides_of(pass, &d->window, d->filters);
    size_t bytes;
    (void)lay_out(&d->window, &s, scratch, &bytes);
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): scratch is given, so it is laid out */
    memset(s.in, 0, (size_t)(s.x.rows * s.x.columns * s.x.depth) * sizeof *s.in);
    memset(s.out, 0, (size_t)(s.y.rows * s.y.columns * s.y.depth) * sizeof *s.out);
    memset(s.weight, 0, (size_t)(s.taps * s.x.depth * s.y.depth) * sizeof *s.weight);
    return s;
}

/* ---- forward ---------------------------------------------------------------------------------------- */

static void finish(const gd_turned *t, const float *bias, bool relu, float *copy) {
    for (int64_t c = 0; c < t->depth && (bias || relu); c += GD_LANES) {
        float lane[GD_LANES] = {0};
        for (int64_t i = 0; bias && i < gd_smaller(t->channels - c, GD_LANES); i++)
            lane[i] = bias[c + i];
        const gd_vec shift = gd_vec_load(lane);
        for (float *at = copy + c; at < copy + t->rows * t->columns * t->depth; at += t->depth) {
            const gd_vec y = gd_vec_load(at) + shift;
            gd_vec_store(at, relu ? gd_vec_relu(y) : y);
        }
    }
}

void gd_stepping_forward(const gd_direct *d, const float *x, const float *weight, const float *bias,
                         bool relu, float *y, void *scratch) {
    const gd_window *w = &d->window;
    const sides s = begin(GD_DIRECT_FORWARD, d, scratch);
    for (int64_t t = 0; t < s.taps; t++) {
        s.offset[t] =
            (t / w->kernel[2] * w->dilation[1] * s.x.columns + t % w->kernel[2] * w->dilation[2]) * s.x.depth;
        for (int64_t c = 0; c < w->channels; c++)
            for (int64_t f = 0; f < d->filters; f++)
                s.weight[(t * w->channels + c) * s.y.depth + f] = weight[(f * w->channels + c) * s.taps + t];
    }
    const gd_turned_sum sum = {.offset = s.offset,
                               .stretches = s.taps,
                               .length = w->channels,
                               .a_row = w->stride[2] * s.x.depth,
                               .a_step = 1,
                               .b_row = s.y.depth,
                               .c_row = s.y.depth};
    for (int64_t n = 0; n < d->samples; n++) {
        gd_turn_in(&s.x, x + n * d->x_step, s.in);
        for (int64_t r = 0; r < s.y.rows; r++)
            gd_turned_product(&sum, s.y.columns, s.y.depth, s.in + r * w->stride[1] * s.x.columns * s.x.depth,
                              s.weight, s.out + r * s.y.columns * s.y.depth);
        finish(&s.y, bias, relu, s.out);
        gd_turn_out(&s.y, s.out, false, y + n * d->y_step);
    }
}

/* ---- the input's gradient --------------------------------------------------------------------------- */

/* Along an axis, pixel i = m * stride + phase - padding has met tap t of window m - (t * dilation - phase) /
 * stride, where that divides. */
static bool meets(const gd_window *w, int axis, int64_t phase, int64_t t) {
    return (t * w->dilation[axis] - phase) % w->stride[axis] == 0;
}
static int64_t windows_before(const gd_window *w, int axis, int64_t phase, int64_t t) {
    return (t * w->dilation[axis] - phase) / w->stride[axis];
}

/* The taps of a pair of phases: they follow each other in the weight, and so do their offsets. */
typedef struct phase_taps {
    int64_t first, count;
} phase_taps;

/* The next phases' taps, from `first` on. */
static phase_taps take_taps(const gd_direct *d, const sides *s, int64_t down, int64_t across, int64_t first,
                            const float *weight) {
    const gd_window *w = &d->window;
    phase_taps taps = {.first = first};
    for (int64_t i = 0; i < w->kernel[1]; i++)
        for (int64_t j = 0; j < w->kernel[2]; j++) {
            if (!meets(w, 1, down, i) || !meets(w, 2, across, j))
                continue;
            const int64_t at = first + taps.count++, t = i * w->kernel[2] + j;
            s->offset[at] =
                -(windows_before(w, 1, down, i) * s->y.columns + windows_before(w, 2, across, j)) *
                s->y.depth;
            for (int64_t f = 0; f < d->filters; f++)
                for (int64_t c = 0; c < w->channels; c++)
                    s->weight[(at * d->filters + f) * s->x.depth + c] =
                        weight[(f * w->channels + c) * s->taps + t];
        }
    return taps;
}

/* The pixels of x in these phases. Rows go upwards: what one writes behind its end the next overwrites. */
static void gradient_row(const gd_direct *d, const sides *s, int64_t i, int64_t across,
                         const phase_taps *taps) {
    const gd_window *w = &d->window;
    const int64_t step = w->stride[2], m = (i + w->padding[1]) / w->stride[1];
    const int64_t first_m = gd_ceil_div(gd_larger(w->padding[2] - across, 0), step);
    const int64_t first = first_m * step + across - w->padding[2];
    const gd_turned_sum sum = {.offset = s->offset + taps->first,
                               .stretches = taps->count,
                               .length = d->filters,
                               .a_row = s->y.depth,
                               .a_step = 1,
                               .b_row = s->x.depth,
                               .c_row = step * s->x.depth};
    if (first < w->in[2])
        gd_turned_product(&sum, gd_ceil_div(w->in[2] - first, step), s->x.depth,
                          s->out + ((s->y.top + m) * s->y.columns + s->y.left + first_m) * s->y.depth,
                          s->weight + taps->first * d->filters * s->x.depth,
                          s->in + (i * s->x.columns + first) * s->x.depth);
}

void gd_stepping_input_gradient(const gd_direct *d, const float *dy, const float *weight, bool accumulate,
                                float *dx, void *scratch) {
    const gd_window *w = &d->window;
    const sides s = begin(GD_DIRECT_INPUT_GRADIENT, d, scratch);
    phase_taps taps[MOST_STEPS][MOST_STEPS];
    int64_t first = 0;
    for (int64_t i = 0; i < w->stride[1]; i++)
        for (int64_t j = 0; j < w->stride[2]; j++) {
            taps[i][j] = take_taps(d, &s, i, j, first, weight);
            first += taps[i][j].count;
        }
    for (int64_t n = 0; n < d->samples; n++) {
        gd_turn_in(&s.y, dy + n * d->y_step, s.out);
        for (int64_t i = 0; i < w->in[1]; i++)
            for (int64_t j = 0; j < w->stride[2]; j++)
                gradient_row(d, &s, i, j, &taps[(i + w->padding[1]) % w->stride[1]][j]);
        gd_turn_out(&s.x, s.in, accumulate, dx + n * d->x_step);
    }
}

/* ---- the weight's gradient -------------------------------------------------------------------------- */

void gd_stepping_weight_gradient(const gd_direct *d, const float *x, const float *dy, float *dweight,
                                 float *dbias, void *scratch) {
    const gd_window *w = &d->window;
    const sides s = begin(GD_DIRECT_WEIGHT_GRADIENT, d, scratch);
    for (int64_t r = 0; r < s.y.rows; r++)
        s.offset[r] = r * w->stride[1] * s.x.columns * s.x.depth;
    const gd_turned_sum sum = {.offset = s.offset,
                               .stretches = s.y.rows,
                               .length = s.y.columns,
                               .a_row = 1,
                               .a_step = w->stride[2] * s.x.depth,
                               .b_row = s.y.depth,
                               .c_row = s.y.depth,
                               .accumulate = true};
    for (int64_t n = 0; n < d->samples; n++) {
        gd_turn_in(&s.x, x + n * d->x_step, s.in);
        gd_turn_in(&s.y, dy + n * d->y_step, s.out);
        for (int64_t t = 0; t < s.taps; t++)
            gd_turned_product(
                &sum, s.x.depth, s.y.depth,
                s.in + (t / w->kernel[2] * w->dilation[1] * s.x.columns + t % w->kernel[2] * w->dilation[2]) *
                           s.x.depth,
                s.out, s.weight + t * s.x.depth * s.y.depth);
        if (dbias)
            gd_turned_add_sums(&s.y, s.out, dbias);
    }
    for (int64_t f = 0; f < d->filters; f++)
        for (int64_t c = 0; c < w->channels; c++)
            for (int64_t t = 0; t < s.taps; t++)
                dweight[(f * w->channels + c) * s.taps + t] += s.weight[(t * s.x.depth + c) * s.y.depth + f];
}

/* ---- the choice ------------------------------------------------------------------------------------- */

bool gd_stepping_scratch(gd_direct_pass pass, const gd_window *w, int64_t filters, size_t *ret_bytes) {
    sides s = sides_of(pass, w, filters);
    return lay_out(w, &s, NULL, ret_bytes);
}

/* Vectors of filters, or of channels, must be full enough. */
bool gd_stepping_pays(gd_direct_pass pass, const gd_window *w, int64_t filters) {
    const bool flat = w->in[0] == 1 && w->out[0] == 1 && w->kernel[0] == 1 && w->padding[0] == 0;
    const bool steps = w->stride[1] > 1 || w->stride[2] > 1;
    const bool few_steps = w->stride[1] <= MOST_STEPS && w->stride[2] <= MOST_STEPS;
    const bool many_filters = 2 * filters >= GD_LANES, many_channels = 2 * w->channels >= GD_LANES;
    if (!flat || !steps || w->channels * gd_window_size(w) > MOST_TERMS)
        return false;
    switch (pass) {
    case GD_DIRECT_FORWARD:
        return many_filters;
    case GD_DIRECT_INPUT_GRADIENT:
        return many_channels && few_steps;
    case GD_DIRECT_WEIGHT_GRADIENT:
        return many_channels && many_filters;
    }
    return false;
}
