/* interpolate.c -- images of another size. */
#include "engine/kernels/interpolate.h"

/* One row of input under one row of output: y[q] += weight * sum of x[at] * its weight. */
static void add_row(const gd_taps *taps, int count, int64_t out, float weight, const float *x, float *y) {
    for (int64_t q = 0; q < out; q++) {
        float sum = 0;
        for (int t = 0; t < count; t++)
            sum += taps[q].weight[t] * x[taps[q].at[t]];
        y[q] += weight * sum;
    }
}

static void add_row_back(const gd_taps *taps, int count, int64_t out, float weight, const float *dy,
                         float *dx) {
    for (int64_t q = 0; q < out; q++)
        for (int t = 0; t < count; t++)
            dx[taps[q].at[t]] += weight * taps[q].weight[t] * dy[q];
}

void gd_interpolate(const gd_interpolation *p, int64_t planes, const float *x, float *y) {
    for (int64_t n = 0; n < planes; n++, x += p->in[0] * p->in[1] * p->in[2])
        for (int64_t o = 0; o < p->out[0]; o++)
            for (int64_t r = 0; r < p->out[1]; r++, y += p->out[2]) {
                const gd_taps *z = &p->taps[0][o], *h = &p->taps[1][r];
                for (int64_t q = 0; q < p->out[2]; q++)
                    y[q] = 0;
                for (int i = 0; i < p->count[0]; i++)
                    for (int j = 0; j < p->count[1]; j++)
                        add_row(p->taps[2], p->count[2], p->out[2], z->weight[i] * h->weight[j],
                                x + (z->at[i] * p->in[1] + h->at[j]) * p->in[2], y);
            }
}

void gd_interpolate_back_add(const gd_interpolation *p, int64_t planes, const float *dy, float *dx) {
    for (int64_t n = 0; n < planes; n++, dx += p->in[0] * p->in[1] * p->in[2])
        for (int64_t o = 0; o < p->out[0]; o++)
            for (int64_t r = 0; r < p->out[1]; r++, dy += p->out[2]) {
                const gd_taps *z = &p->taps[0][o], *h = &p->taps[1][r];
                for (int i = 0; i < p->count[0]; i++)
                    for (int j = 0; j < p->count[1]; j++)
                        add_row_back(p->taps[2], p->count[2], p->out[2], z->weight[i] * h->weight[j], dy,
                                     dx + (z->at[i] * p->in[1] + h->at[j]) * p->in[2]);
            }
}
