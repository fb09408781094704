/* window.c -- windows over the trailing axes. */
#include "engine/ops/window.h"

#include <inttypes.h>

int gd_window_wrong_rank(gd_infer *infer, int axes) {
    char text[128];
    const gd_shape *x = &infer->inputs[0];
    return gd_fail(infer->error, GD_E_SHAPE, "wants samples of [C, %s], got %s%s", axes == 1 ? "L" : "H, W",
                   gd_sample_text(x, text, sizeof text),
                   x->rank == axes + 1 ? "; is the channel axis missing?" : "");
}

/* torch's pooling_output_shape: with ceil_mode a last window may hang over, if it begins inside. */
static int64_t windows(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                       bool ceil_mode) {
    int64_t span = in + 2 * padding - dilation * (kernel - 1) - 1;
    if (span < 0)
        return 0;
    int64_t out = (span + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    if (ceil_mode && (out - 1) * stride >= in + padding)
        out--;
    return out;
}

int gd_window_infer(gd_infer *infer, const int64_t kernel[2], const int64_t stride[2],
                    const int64_t padding[2], const int64_t dilation[2], bool ceil_mode,
                    gd_window *ret_window) {
    const gd_shape *x = &infer->inputs[0];
    gd_window w = {.channels = x->dim[1]};
    for (int axis = 0; axis < 2; axis++) {
        w.in[axis] = x->dim[2 + axis];
        w.kernel[axis] = kernel[axis];
        w.stride[axis] = stride[axis];
        w.padding[axis] = padding[axis];
        w.dilation[axis] = dilation[axis];
        w.out[axis] =
            windows(w.in[axis], kernel[axis], stride[axis], padding[axis], dilation[axis], ceil_mode);
        if (w.out[axis] < 1)
            return gd_fail_field(infer->error, GD_E_SHAPE, "kernel_size",
                                 "its window takes %" PRId64
                                 " elements of the %s, but the padded input has %" PRId64
                                 "; use a smaller kernel_size or dilation, or more padding",
                                 dilation[axis] * (kernel[axis] - 1) + 1, axis ? "width" : "height",
                                 w.in[axis] + 2 * padding[axis]);
    }
    *ret_window = w;
    return 0;
}

gd_window gd_window_of(const gd_shape *input, const gd_shape *output, const int64_t kernel[2],
                       const int64_t stride[2], const int64_t padding[2], const int64_t dilation[2]) {
    gd_window w = {.channels = input->dim[1]};
    for (int axis = 0; axis < 2; axis++) {
        w.in[axis] = input->dim[2 + axis];
        w.out[axis] = output->dim[2 + axis];
        w.kernel[axis] = kernel[axis];
        w.stride[axis] = stride[axis];
        w.padding[axis] = padding[axis];
        w.dilation[axis] = dilation[axis];
    }
    return w;
}

void gd_repr_pair(FILE *out, const char *prefix, const int64_t pair[2], const int64_t *unless) {
    if (!unless || pair[0] != unless[0] || pair[1] != unless[1])
        fprintf(out, "%s(%" PRId64 ", %" PRId64 ")", prefix, pair[0], pair[1]);
}

void gd_repr_number_or_pair(FILE *out, const char *prefix, const int64_t pair[2]) {
    if (pair[0] == pair[1])
        fprintf(out, "%s%" PRId64, prefix, pair[0]);
    else
        gd_repr_pair(out, prefix, pair, NULL);
}
