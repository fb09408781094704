/* pad.h -- images with a border, or with some of it cut off. */
#ifndef GD_KERNELS_PAD_H
#define GD_KERNELS_PAD_H

#include <stdint.h>

enum { GD_PAD_AXES = 3 };

/** What stands in the border: torch's modes of torch.nn.functional.pad. */
typedef enum gd_pad_mode {
    GD_PAD_CONSTANT,  /* .value */
    GD_PAD_REFLECT,   /* the image mirrored at its edge, the edge itself once: c b | a b c */
    GD_PAD_REPLICATE, /* the edge: a a | a b c */
    GD_PAD_CIRCULAR   /* the image again: b c | a b c */
} gd_pad_mode;

/** Sizes per axis (depth, height, width); an image of fewer axes is one of size 1 along the first. */
typedef struct gd_padding {
    gd_pad_mode mode;
    float value;
    int64_t in[GD_PAD_AXES], out[GD_PAD_AXES];
    int64_t before[GD_PAD_AXES]; /* elements of border before the image; negative: cut off */
} gd_padding;

/** y = x with its border. x: (planes, in); y: (planes, out) */
void gd_pad(const gd_padding *padding, int64_t planes, const float *x, float *y);
/** The reverse: adds every element of dy to the one it was copied from. */
void gd_pad_back_add(const gd_padding *padding, int64_t planes, const float *dy, float *dx);

#endif
