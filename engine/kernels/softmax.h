/* softmax.h -- softmax and its logarithm. Formulas: torch.nn.Softmax, torch.nn.LogSoftmax. */
#ifndef GD_KERNELS_SOFTMAX_H
#define GD_KERNELS_SOFTMAX_H

#include <stdbool.h>
#include <stdint.h>

/** Along the middle axis of (outer, size, inner): of scale x (-1: softmin), or its logarithm. */
typedef struct gd_softmax {
    int64_t outer, size, inner;
    float scale;
    bool log;
} gd_softmax;

/** y = e^(scale x - max) / sum, or scale x - max - ln sum. y may be x. */
void gd_softmax_forward(const gd_softmax *lines, const float *x, float *y);
/** dx (or with accumulate +) = scale y (dy - sum of y dy), or scale (dy - e^y sum of dy). dx may be dy. */
void gd_softmax_backward(const gd_softmax *lines, const float *y, const float *dy, bool accumulate,
                         float *dx);

#endif
