/* window.c -- windows over the trailing axes. */
#include "engine/ops/window.h"

#include <inttypes.h>

const char *gd_window_sample(int axes) {
    static const char *const samples[] = {"[C]", "[C, L]", "[C, H, W]", "[C, D, H, W]"};
    return samples[axes];
}

const char *gd_window_axis(int axes, int axis) {
    static const char *const names[] = {"depth", "height", "width"};
    return axes == 1 ? "length" : names[GD_WINDOW_AXES - axes + axis];
}

int gd_window_wrong_rank(gd_infer *infer, int axes) {
    char text[128];
    const gd_shape *x = &infer->inputs[0];
    return gd_fail(infer->error, GD_E_SHAPE, "wants samples of %s, got %s%s", gd_window_sample(axes),
                   gd_sample_text(x, text, sizeof text),
                   x->rank == axes + 1 ? "; is the channel axis missing?" : "");
}

int gd_channels_infer(gd_infer *infer, int64_t *in_channels, int64_t out_channels, int64_t groups) {
    const int64_t channels = infer->inputs[0].dim[1];
    if (*in_channels == 0)
        *in_channels = channels;
    if (*in_channels != channels)
        return gd_fail_field(infer->error, GD_E_SHAPE, "in_channels",
                             "in_channels is %" PRId64 ", but the input has %" PRId64 " channels (axis 1)",
                             *in_channels, channels);
    if (channels % groups || out_channels % groups)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "groups",
                             "in_channels (%" PRId64 ") and out_channels (%" PRId64
                             ") must both be divisible by groups (%" PRId64 ")",
                             channels, out_channels, groups);
    return 0;
}

int64_t gd_window_fit(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                      bool ceil_mode) {
    /* torch's pooling_output_shape: with ceil_mode a last window may hang over, if it begins inside. */
    int64_t span = in + 2 * padding - dilation * (kernel - 1) - 1;
    if (span < 0)
        return 0;
    int64_t out = (span + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    if (ceil_mode && (out - 1) * stride >= in + padding)
        out--;
    return out;
}

/* All that is said of one axis. */
static void set_axis(gd_window *w, int axis, int64_t in, int64_t out, int64_t kernel, int64_t stride,
                     int64_t padding, int64_t dilation) {
    w->in[axis] = in;
    w->out[axis] = out;
    w->kernel[axis] = kernel;
    w->stride[axis] = stride;
    w->padding[axis] = padding;
    w->dilation[axis] = dilation;
}

gd_window gd_window_of(const gd_shape *input, const gd_shape *output, const int64_t *kernel,
                       const int64_t *stride, const int64_t *padding, const int64_t *dilation) {
    const int axes = input->rank - 2, missing = GD_WINDOW_AXES - axes;
    gd_window w = {.channels = input->dim[1]};
    for (int i = 0; i < missing; i++)
        set_axis(&w, i, 1, 1, 1, 1, 0, 1);
    for (int i = 0; i < axes; i++)
        set_axis(&w, missing + i, input->dim[2 + i], output->dim[2 + i], kernel[i], stride[i], padding[i],
                 dilation[i]);
    return w;
}

int gd_window_infer(gd_infer *infer, int axes, const int64_t *kernel, const int64_t *stride,
                    const int64_t *padding, const int64_t *dilation, bool ceil_mode, gd_window *ret_window) {
    const gd_shape *x = &infer->inputs[0];
    gd_shape y = *x;
    for (int i = 0; i < axes; i++) {
        y.dim[2 + i] = gd_window_fit(x->dim[2 + i], kernel[i], stride[i], padding[i], dilation[i], ceil_mode);
        if (y.dim[2 + i] < 1)
            return gd_fail_field(
                infer->error, GD_E_SHAPE, "kernel_size",
                "its window takes %" PRId64 " elements of the %s, but the padded input has %" PRId64
                "; use a smaller kernel_size or dilation, or more padding",
                dilation[i] * (kernel[i] - 1) + 1, gd_window_axis(axes, i), x->dim[2 + i] + 2 * padding[i]);
    }
    *ret_window = gd_window_of(x, &y, kernel, stride, padding, dilation);
    return 0;
}

gd_shape gd_window_shape(int64_t batch, int64_t channels, const int64_t sizes[GD_WINDOW_AXES], int axes) {
    gd_shape shape = GD_SHAPE(batch, channels);
    for (int i = 0; i < axes; i++)
        shape.dim[shape.rank++] = sizes[GD_WINDOW_AXES - axes + i];
    return shape;
}

bool gd_all_are(const int64_t *numbers, int count, int64_t number) {
    for (int i = 0; i < count; i++)
        if (numbers[i] != number)
            return false;
    return true;
}

void gd_repr_tuple(FILE *out, const char *prefix, const int64_t *numbers, int count) {
    fprintf(out, "%s(", prefix);
    for (int i = 0; i < count; i++)
        fprintf(out, "%s%" PRId64, i ? ", " : "", numbers[i]);
    fputs(count == 1 ? ",)" : ")", out);
}

void gd_repr_number_or_tuple(FILE *out, const char *prefix, const int64_t *numbers, int count) {
    if (gd_all_are(numbers, count, numbers[0]))
        fprintf(out, "%s%" PRId64, prefix, numbers[0]);
    else
        gd_repr_tuple(out, prefix, numbers, count);
}
