/* norm.c -- sums and affine maps by channel and by row. Sums are taken in float over short stretches, which
 * vectorise, and in double over those. */
#include "engine/kernels/norm.h"

#include "engine/kernels/vec.h"

enum { STRETCH = 1024 };

#define INLINE static inline __attribute__((always_inline))

INLINE int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

INLINE float stretch_square(const float *x, float centre, int64_t count) {
    gd_vec sum = {0};
    int64_t i = 0;
    for (; i + GD_LANES <= count; i += GD_LANES) {
        const gd_vec from = gd_vec_load(x + i) - centre;
        sum += from * from;
    }
    float rest = 0;
    for (; i < count; i++)
        rest += (x[i] - centre) * (x[i] - centre);
    return gd_vec_sum(sum) + rest;
}

/* A stretch's own mean and squares, joined to those of `before` elements (Chan, Golub, LeVeque 1979). With
 * the exact mean instead of its rounding m, squares would be less by count (mean - m)^2. */
INLINE void join_stretch(const float *x, int64_t count, int64_t before, double *mean, double *square) {
    const double n = (double)count;
    const double own = (double)gd_vec_total(count, x) / n, rounding = own - (double)(float)own;
    const double own_square = (double)stretch_square(x, (float)own, count) - n * rounding * rounding;
    if (before == 0) {
        *mean = own;
        *square = own_square;
        return;
    }
    const double delta = own - *mean, part = n / (double)(before + count);
    *mean += delta * part;
    *square += own_square + delta * delta * part * (double)before;
}

void gd_row_moments(int64_t count, const float *x, double *mean, double *square) {
    *mean = *square = 0;
    for (int64_t i = 0; i < count; i += STRETCH)
        join_stretch(x + i, least(STRETCH, count - i), i, mean, square);
}

/* Channels of one element lie side by side: all of them at once, sample by sample. */
static void side_moments(const gd_channels *s, const float *x, double *means, double *squares) {
    for (int64_t n = 0; n < s->samples; n++)
#pragma omp simd
        for (int64_t c = 0; c < s->count; c++)
            means[c] += (double)x[n * s->channels + c];
    for (int64_t c = 0; c < s->count; c++)
        means[c] /= (double)s->samples;
    for (int64_t n = 0; n < s->samples; n++)
#pragma omp simd
        for (int64_t c = 0; c < s->count; c++) {
            const double from_mean = (double)x[n * s->channels + c] - means[c];
            squares[c] += from_mean * from_mean;
        }
}

void gd_channels_moments(const gd_channels *s, const float *x, double *means, double *squares) {
    for (int64_t c = 0; c < s->count; c++)
        means[c] = squares[c] = 0;
    if (s->size == 1) {
        side_moments(s, x, means, squares);
        return;
    }
    for (int64_t n = 0; n < s->samples; n++)
        for (int64_t c = 0; c < s->count; c++) {
            const float *row = x + (n * s->channels + c) * s->size;
            for (int64_t i = 0; i < s->size; i += STRETCH)
                join_stretch(row + i, least(STRETCH, s->size - i), n * s->size + i, &means[c], &squares[c]);
        }
}

void gd_channels_square(const gd_channels *s, const float *x, const float *centre, double *sums) {
    for (int64_t c = 0; c < s->count; c++)
        sums[c] = 0;
    for (int64_t n = 0; n < s->samples; n++)
        for (int64_t c = 0; c < s->count; c++) {
            const float *row = x + (n * s->channels + c) * s->size;
            for (int64_t i = 0; i < s->size; i += STRETCH)
                sums[c] += (double)stretch_square(row + i, centre[c], least(STRETCH, s->size - i));
        }
}

INLINE void row_dot(const float *dy, const float *x, float centre, int64_t count, double *sum, double *dot) {
    for (int64_t first = 0; first < count; first += STRETCH) {
        const int64_t last = least(count, first + STRETCH);
        gd_vec part = {0}, part_dot = {0};
        float rest = 0, rest_dot = 0;
        int64_t i = first;
        for (; i + GD_LANES <= last; i += GD_LANES) {
            const gd_vec g = gd_vec_load(dy + i);
            part += g;
            part_dot += g * (gd_vec_load(x + i) - centre);
        }
        for (; i < last; i++) {
            rest += dy[i];
            rest_dot += dy[i] * (x[i] - centre);
        }
        *sum += (double)(gd_vec_sum(part) + rest);
        *dot += (double)(gd_vec_sum(part_dot) + rest_dot);
    }
}

void gd_channels_dot(const gd_channels *s, const float *dy, const float *x, const float *centre, double *sums,
                     double *dots) {
    for (int64_t c = 0; c < s->count; c++)
        sums[c] = dots[c] = 0;
    for (int64_t n = 0; n < s->samples; n++) {
        const int64_t at = n * s->channels * s->size;
        if (s->size == 1) {
#pragma omp simd
            for (int64_t c = 0; c < s->count; c++) {
                sums[c] += (double)dy[at + c];
                dots[c] += (double)(dy[at + c] * (x[at + c] - centre[c]));
            }
            continue;
        }
        for (int64_t c = 0; c < s->count; c++) {
            const int64_t row = at + c * s->size;
            row_dot(dy + row, x + row, centre[c], s->size, &sums[c], &dots[c]);
        }
    }
}

/* One row of gd_channels_scale(): the coefficients step by 1 or stay (0). */
INLINE void scale_row(int64_t count, int64_t step, const float *x, const float *centre, const float *scale,
                      const float *shift, bool relu, float *y) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        const float z = (x[i] - centre[i * step]) * scale[i * step] + shift[i * step];
        y[i] = relu && z <= 0 ? 0 : z; /* NaN stays NaN */
    }
}

INLINE void scale(const gd_channels *s, const float *x, const float *centre, const float *factor,
                  const float *shift, bool relu, float *y) {
    for (int64_t n = 0; n < s->samples; n++) {
        const int64_t at = n * s->channels * s->size;
        if (s->size == 1) {
            scale_row(s->count, 1, x + at, centre, factor, shift, relu, y + at);
            continue;
        }
        for (int64_t c = 0; c < s->count; c++)
            scale_row(s->size, 0, x + at + c * s->size, centre + c, factor + c, shift + c, relu,
                      y + at + c * s->size);
    }
}

void gd_channels_scale(const gd_channels *s, const float *x, const float *centre, const float *factor,
                       const float *shift, bool relu, float *y) {
    if (relu)
        scale(s, x, centre, factor, shift, true, y);
    else
        scale(s, x, centre, factor, shift, false, y);
}

/* One row of gd_channels_back(): the coefficients step by 1 or stay (0). */
INLINE void back_row(int64_t count, int64_t step, const float *dy, const float *x, const float *centre,
                     const float *p, const float *q, const float *r, bool accumulate, float *dx) {
    if (accumulate) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] += p[i * step] * dy[i] - q[i * step] - r[i * step] * (x[i] - centre[i * step]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] = p[i * step] * dy[i] - q[i * step] - r[i * step] * (x[i] - centre[i * step]);
    }
}

void gd_channels_back(const gd_channels *s, const float *dy, const float *x, const float *centre,
                      const float *p, const float *q, const float *r, bool accumulate, float *dx) {
    for (int64_t n = 0; n < s->samples; n++) {
        const int64_t at = n * s->channels * s->size;
        if (s->size == 1) {
            back_row(s->count, 1, dy + at, x + at, centre, p, q, r, accumulate, dx + at);
            continue;
        }
        for (int64_t c = 0; c < s->count; c++) {
            const int64_t row = at + c * s->size;
            back_row(s->size, 0, dy + row, x + row, centre + c, p + c, q + c, r + c, accumulate, dx + row);
        }
    }
}

void gd_row_scale(int64_t count, const float *x, float mean, float inverse, const float *weight,
                  const float *bias, float *y) {
    if (weight && bias) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
    } else if (weight) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            y[i] = (x[i] - mean) * inverse * weight[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            y[i] = (x[i] - mean) * inverse;
    }
}

/* The weight steps by 1, or is a single one (0). */
INLINE void row_back(int64_t count, int64_t step, const float *dy, const float *x, const float *weight,
                     float mean, float inverse, bool centred, bool accumulate, float *dx) {
    double sum = 0, dot = 0;
    for (int64_t first = 0; first < count; first += STRETCH) {
        const int64_t last = first + STRETCH < count ? first + STRETCH : count;
        gd_vec part = {0}, part_dot = {0};
        float rest = 0, rest_dot = 0;
        int64_t i = first;
        for (; i + GD_LANES <= last; i += GD_LANES) {
            const gd_vec g = (step ? gd_vec_load(weight + i) : gd_vec_all(*weight)) * gd_vec_load(dy + i);
            part += g;
            part_dot += g * (gd_vec_load(x + i) - mean);
        }
        for (; i < last; i++) {
            const float g = weight[i * step] * dy[i];
            rest += g;
            rest_dot += g * (x[i] - mean);
        }
        sum += (double)(gd_vec_sum(part) + rest);
        dot += (double)(gd_vec_sum(part_dot) + rest_dot);
    }
    const double s = (double)inverse;
    const float q = centred ? (float)(s * sum / (double)count) : 0;
    const float r = (float)(s * s * s * dot / (double)count);
    if (accumulate) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] += inverse * weight[i * step] * dy[i] - q - r * (x[i] - mean);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] = inverse * weight[i * step] * dy[i] - q - r * (x[i] - mean);
    }
}

void gd_row_back(int64_t count, const float *dy, const float *x, const float *weight, float mean,
                 float inverse, bool centred, bool accumulate, float *dx) {
    static const float one = 1;
    if (weight)
        row_back(count, 1, dy, x, weight, mean, inverse, centred, accumulate, dx);
    else
        row_back(count, 0, dy, x, &one, mean, inverse, centred, accumulate, dx);
}
