/* border.h -- images laid out so that every window lies inside: with their border of zeros. */
#ifndef GD_KERNELS_BORDER_H
#define GD_KERNELS_BORDER_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/kernels/conv.h"

typedef struct gd_border {
    int64_t size[GD_WINDOW_AXES]; /* of a plane as it is read: the image's own, or what the windows cover */
    int64_t pixels;               /* of such a plane */
    bool copied;                  /* false: the image is read where it is */
    bool slack;                   /* copied only because vectors leave the image: unless another follows it */
} gd_border;

/** @param slack read the image where it is only if vectors that begin at a window stay inside it: rows of
 *                at least so many windows */
gd_border gd_border_of(const gd_window *window, int64_t slack);
/** Floats of scratch for the copy, with a vector's more behind it. @return false: more than a size_t holds */
bool gd_border_floats(const gd_window *window, size_t *ret_floats);
/** Zeros, once for all images that gd_border_fill() is then given. */
void gd_border_clear(const gd_border *border, const gd_window *window, float *scratch);
/** The image (channels, in) as it is to be read. @return scratch, or image itself */
const float *gd_border_fill(const gd_border *border, const gd_window *window, const float *image,
                            float *scratch);
/** Where each element (channel, h, i, j) of the first window lies. */
void gd_border_offsets(const gd_border *border, const gd_window *window, int64_t *offsets);

#endif
