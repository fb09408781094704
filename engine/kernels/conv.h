/* conv.h -- images to columns and back: convolution as a matrix product. */
#ifndef GD_KERNELS_CONV_H
#define GD_KERNELS_CONV_H

#include <stdint.h>

/** How windows lie on an image, per axis (height, width). */
typedef struct gd_window {
    int64_t channels;  /* of the image */
    int64_t in[2];     /* image size */
    int64_t out[2];    /* number of windows */
    int64_t kernel[2]; /* window size */
    int64_t stride[2], padding[2], dilation[2];
} gd_window;

/** column[(c, i, j), (p, q)] = image[c, p * stride - padding + i * dilation, ...], 0 outside.
 *  @param image  (channels, in[0], in[1])
 *  @param column (channels * kernel[0] * kernel[1], out[0] * out[1]) */
void gd_im2col(const gd_window *window, const float *image, float *column);
/** The reverse: adds every column entry to the pixel it came from. */
void gd_col2im_add(const gd_window *window, const float *column, float *image);

#endif
