/* conv.c -- im2col and col2im. */
#include "engine/kernels/conv.h"

#include <string.h>

/* The windows p for which 0 <= p * stride + offset < in: [*first, *last). */
static void valid_range(int64_t offset, int64_t stride, int64_t in, int64_t out, int64_t *first,
                        int64_t *last) {
    int64_t low = offset < 0 ? (-offset + stride - 1) / stride : 0;
    int64_t high = offset < in ? (in - 1 - offset) / stride + 1 : 0;
    *first = low < out ? low : out;
    *last = high < out ? high : out;
    if (*last < *first)
        *last = *first;
}

void gd_im2col(const gd_window *w, const float *image, float *column) {
    for (int64_t c = 0; c < w->channels; c++, image += w->in[0] * w->in[1])
        for (int64_t i = 0; i < w->kernel[0]; i++)
            for (int64_t j = 0; j < w->kernel[1]; j++) {
                int64_t y0 = i * w->dilation[0] - w->padding[0], x0 = j * w->dilation[1] - w->padding[1];
                int64_t first, last;
                valid_range(x0, w->stride[1], w->in[1], w->out[1], &first, &last);
                for (int64_t p = 0; p < w->out[0]; p++, column += w->out[1]) {
                    int64_t y = y0 + p * w->stride[0];
                    if (y < 0 || y >= w->in[0]) {
                        memset(column, 0, (size_t)w->out[1] * sizeof *column);
                        continue;
                    }
                    const float *row = image + y * w->in[1] + x0;
                    for (int64_t q = 0; q < first; q++)
                        column[q] = 0;
                    if (w->stride[1] == 1)
                        memcpy(column + first, row + first, (size_t)(last - first) * sizeof *column);
                    else
                        for (int64_t q = first; q < last; q++)
                            column[q] = row[q * w->stride[1]];
                    for (int64_t q = last; q < w->out[1]; q++)
                        column[q] = 0;
                }
            }
}

void gd_col2im_add(const gd_window *w, const float *column, float *image) {
    for (int64_t c = 0; c < w->channels; c++, image += w->in[0] * w->in[1])
        for (int64_t i = 0; i < w->kernel[0]; i++)
            for (int64_t j = 0; j < w->kernel[1]; j++) {
                int64_t y0 = i * w->dilation[0] - w->padding[0], x0 = j * w->dilation[1] - w->padding[1];
                int64_t first, last;
                valid_range(x0, w->stride[1], w->in[1], w->out[1], &first, &last);
                for (int64_t p = 0; p < w->out[0]; p++, column += w->out[1]) {
                    int64_t y = y0 + p * w->stride[0];
                    if (y < 0 || y >= w->in[0])
                        continue;
                    float *row = image + y * w->in[1] + x0;
                    if (w->stride[1] == 1)
                        for (int64_t q = first; q < last; q++)
                            row[q] += column[q];
                    else
                        for (int64_t q = first; q < last; q++)
                            row[q * w->stride[1]] += column[q];
                }
            }
}
