/* softmax.h -- softmax and its logarithm. Formulas: torch.nn.Softmax, torch.nn.LogSoftmax. */
#ifndef GD_KERNELS_SOFTMAX_H
#define GD_KERNELS_SOFTMAX_H

#include <stdbool.h>
#include <stdint.h>

/** Along the middle axis of (outer, size, inner): of sign x (1, or -1: softmin), or its logarithm. */
typedef struct gd_softmax {
    int64_t outer, size, inner;
    float sign;
    bool log;
} gd_softmax;

/** y = e^(sign x - max) / sum, or sign x - max - ln sum. y may be x. */
void gd_softmax_forward(const gd_softmax *lines, const float *x, float *y);
/** dx (or with accumulate +) = sign y (dy - sum of y dy), or sign (dy - e^y sum of dy). dx may be dy. */
void gd_softmax_backward(const gd_softmax *lines, const float *y, const float *dy, bool accumulate,
                         float *dx);

#endif
