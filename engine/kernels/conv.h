/* conv.h -- images to columns and back: convolution as a matrix product. */
#ifndef GD_KERNELS_CONV_H
#define GD_KERNELS_CONV_H

#include <stdint.h>

enum { GD_WINDOW_AXES = 3 };

/** How windows lie on an image, per axis (depth, height, width); an image of fewer axes is one of size 1
 *  along the first. */
typedef struct gd_window {
    int64_t channels;               /* of the image */
    int64_t in[GD_WINDOW_AXES];     /* image size */
    int64_t out[GD_WINDOW_AXES];    /* number of windows */
    int64_t kernel[GD_WINDOW_AXES]; /* window size */
    int64_t stride[GD_WINDOW_AXES], padding[GD_WINDOW_AXES], dilation[GD_WINDOW_AXES];
} gd_window;

/** Elements of one channel. */
static inline int64_t gd_window_pixels(const gd_window *window) {
    return window->in[0] * window->in[1] * window->in[2];
}
/** Number of windows. */
static inline int64_t gd_window_count(const gd_window *window) {
    return window->out[0] * window->out[1] * window->out[2];
}
/** Elements of a window. */
static inline int64_t gd_window_size(const gd_window *window) {
    return window->kernel[0] * window->kernel[1] * window->kernel[2];
}

/** The windows on dy whose products are dx: which windows (of `filters` filters) a pixel has gone into. */
gd_window gd_window_reverse(const gd_window *window, int64_t filters);

/** column[(c, h, i, j), (o, p, q)] = image[c, o * stride - padding + h * dilation, ...], 0 outside.
 *  @param image  (channels, in)
 *  @param column (channels * kernel, out) */
void gd_im2col(const gd_window *window, const float *image, float *column);
/** The reverse: adds every column entry to the pixel it came from. */
void gd_col2im_add(const gd_window *window, const float *column, float *image);

#endif
