/* pad.c -- images with a border. */
#include "engine/kernels/pad.h"

/* Where element `at` of the output comes from along an axis; -1: from nowhere, it is constant. */
static inline int64_t origin(const gd_padding *p, int axis, int64_t at) {
    const int64_t in = p->in[axis], i = at - p->before[axis];
    if (i >= 0 && i < in)
        return i;
    switch (p->mode) {
    case GD_PAD_CONSTANT:
        break;
    case GD_PAD_REFLECT:
        return i < 0 ? -i : 2 * (in - 1) - i;
    case GD_PAD_REPLICATE:
        return i < 0 ? 0 : in - 1;
    case GD_PAD_CIRCULAR:
        return i < 0 ? i + in : i - in;
    }
    return -1;
}

/* Where row (o, p) of the output begins in a plane of the input; -1: nowhere. */
static int64_t row_origin(const gd_padding *p, int64_t o, int64_t r) {
    const int64_t z = origin(p, 0, o), y = origin(p, 1, r);
    return z < 0 || y < 0 ? -1 : (z * p->in[1] + y) * p->in[2];
}

void gd_pad(const gd_padding *p, int64_t planes, const float *x, float *y) {
    for (int64_t n = 0; n < planes; n++, x += p->in[0] * p->in[1] * p->in[2])
        for (int64_t o = 0; o < p->out[0]; o++)
            for (int64_t r = 0; r < p->out[1]; r++, y += p->out[2]) {
                const int64_t row = row_origin(p, o, r);
                for (int64_t q = 0; q < p->out[2]; q++) {
                    const int64_t column = origin(p, 2, q);
                    y[q] = row < 0 || column < 0 ? p->value : x[row + column];
                }
            }
}

void gd_pad_back_add(const gd_padding *p, int64_t planes, const float *dy, float *dx) {
    for (int64_t n = 0; n < planes; n++, dx += p->in[0] * p->in[1] * p->in[2])
        for (int64_t o = 0; o < p->out[0]; o++)
            for (int64_t r = 0; r < p->out[1]; r++, dy += p->out[2]) {
                const int64_t row = row_origin(p, o, r);
                for (int64_t q = 0; row >= 0 && q < p->out[2]; q++) {
                    const int64_t column = origin(p, 2, q);
                    if (column >= 0)
                        dx[row + column] += dy[q];
                }
            }
}
