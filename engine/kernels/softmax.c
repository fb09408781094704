/* softmax.c -- along the last axis line by line; along another, lines side by side. */
#include "engine/kernels/softmax.h"

#include "engine/kernels/vec.h"

enum {
    SIDE = 64 /* lines side by side, at most */
};

/* The maximum leaves NaN out; it comes back in the sum and so reaches every element. */
static float line_max(const float *x, int64_t count, float scale) {
    gd_vec most = gd_vec_all(-INFINITY);
    int64_t k = 0;
    for (; k + GD_LANES <= count; k += GD_LANES) {
        const gd_vec v = scale * gd_vec_load(x + k);
        most = gd_vec_select(v > most, v, most);
    }
    float max = gd_vec_max(most);
    for (; k < count; k++)
        max = scale * x[k] > max ? scale * x[k] : max;
    return max;
}

static void line_forward(const gd_softmax *l, const float *x, float *y) {
    const float scale = l->scale, max = line_max(x, l->size, scale);
    if (l->log) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < l->size; k++)
            sum += gd_exp(scale * x[k] - max);
        /* cppcheck-suppress invalidFunctionArg ; the sum is at least 1, the maximum's own */
        sum = logf(sum);
#pragma omp simd
        for (int64_t k = 0; k < l->size; k++)
            y[k] = scale * x[k] - max - sum;
        return;
    }
#pragma omp simd
    for (int64_t k = 0; k < l->size; k++)
        y[k] = gd_exp(scale * x[k] - max);
    const float share = 1 / gd_vec_total(l->size, y);
#pragma omp simd
    for (int64_t k = 0; k < l->size; k++)
        y[k] *= share;
}

/* The same for `width` lines whose elements lie side by side. */
static void lines_forward(const gd_softmax *l, const float *x, int64_t width, float *y) {
    const float scale = l->scale;
    float max[SIDE], sum[SIDE] = {0};
    for (int64_t j = 0; j < SIDE; j++)
        max[j] = -INFINITY;
    for (int64_t k = 0; k < l->size; k++)
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
            max[j] = scale * x[k * l->inner + j] > max[j] ? scale * x[k * l->inner + j] : max[j];
    for (int64_t k = 0; k < l->size; k++)
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
            sum[j] += gd_exp(scale * x[k * l->inner + j] - max[j]);
    for (int64_t j = 0; j < width; j++)
        sum[j] = l->log ? logf(sum[j]) : 1 / sum[j];
    for (int64_t k = 0; k < l->size; k++)
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const float shifted = scale * x[k * l->inner + j] - max[j];
            y[k * l->inner + j] = l->log ? shifted - sum[j] : gd_exp(shifted) * sum[j];
        }
}

/* Inlined for each `log` and `accumulate`: compilers do not vectorise what depends on them. */
GD_INLINE void slopes(int64_t size, float scale, float sum, bool log, bool accumulate, const float *y,
                      const float *dy, float *dx) {
#pragma omp simd
    for (int64_t k = 0; k < size; k++)
        dx[k] = (accumulate ? dx[k] : 0) + scale * (log ? dy[k] - gd_exp(y[k]) * sum : y[k] * (dy[k] - sum));
}

static void line_backward(const gd_softmax *l, const float *y, const float *dy, bool accumulate, float *dx) {
    const float sum = l->log ? gd_vec_total(l->size, dy) : gd_vec_dot(l->size, dy, y);
    if (l->log && accumulate)
        slopes(l->size, l->scale, sum, true, true, y, dy, dx);
    else if (l->log)
        slopes(l->size, l->scale, sum, true, false, y, dy, dx);
    else if (accumulate)
        slopes(l->size, l->scale, sum, false, true, y, dy, dx);
    else
        slopes(l->size, l->scale, sum, false, false, y, dy, dx);
}

static void lines_backward(const gd_softmax *l, const float *y, const float *dy, int64_t width,
                           bool accumulate, float *dx) {
    const float scale = l->scale;
    float sum[SIDE] = {0};
    for (int64_t k = 0; k < l->size; k++)
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const int64_t at = k * l->inner + j;
            sum[j] += l->log ? dy[at] : dy[at] * y[at];
        }
    for (int64_t k = 0; k < l->size; k++)
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const int64_t at = k * l->inner + j;
            const float part = l->log ? dy[at] - gd_exp(y[at]) * sum[j] : y[at] * (dy[at] - sum[j]);
            dx[at] = (accumulate ? dx[at] : 0) + scale * part;
        }
}

/* Where line or group of lines `index` begins, and how many lines it has. */
static int64_t group(const gd_softmax *l, int64_t index, int64_t *width) {
    const int64_t groups = (l->inner + SIDE - 1) / SIDE, first = index % groups * SIDE;
    *width = l->inner - first < SIDE ? l->inner - first : SIDE;
    return index / groups * l->size * l->inner + first;
}

void gd_softmax_forward(const gd_softmax *lines, const float *x, float *y) {
    const int64_t groups = lines->outer * ((lines->inner + SIDE - 1) / SIDE);
    for (int64_t i = 0; i < groups; i++) {
        int64_t width;
        const int64_t at = group(lines, i, &width);
        if (lines->inner == 1)
            line_forward(lines, x + at, y + at);
        else
            lines_forward(lines, x + at, width, y + at);
    }
}

void gd_softmax_backward(const gd_softmax *lines, const float *y, const float *dy, bool accumulate,
                         float *dx) {
    const int64_t groups = lines->outer * ((lines->inner + SIDE - 1) / SIDE);
    for (int64_t i = 0; i < groups; i++) {
        int64_t width;
        const int64_t at = group(lines, i, &width);
        if (lines->inner == 1)
            line_backward(lines, y + at, dy + at, accumulate, dx + at);
        else
            lines_backward(lines, y + at, dy + at, width, accumulate, dx + at);
    }
}
