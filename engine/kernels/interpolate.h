/* interpolate.h -- images of another size: every output is a weighted sum of a few inputs along each axis. */
#ifndef GD_KERNELS_INTERPOLATE_H
#define GD_KERNELS_INTERPOLATE_H

#include <stdint.h>

enum { GD_INTERPOLATE_AXES = 3, GD_MAX_TAPS = 4 };

/** Where one output position along an axis comes from. */
typedef struct gd_taps {
    int64_t at[GD_MAX_TAPS];
    float weight[GD_MAX_TAPS];
} gd_taps;

/** Sizes per axis (depth, height, width); an image of fewer axes is one of size 1 along the first. */
typedef struct gd_interpolation {
    int64_t in[GD_INTERPOLATE_AXES], out[GD_INTERPOLATE_AXES];
    int count[GD_INTERPOLATE_AXES];           /* taps used per axis, 1 ... GD_MAX_TAPS */
    const gd_taps *taps[GD_INTERPOLATE_AXES]; /* out[axis] of them */
} gd_interpolation;

/** x: (planes, in); y: (planes, out) */
void gd_interpolate(const gd_interpolation *interpolation, int64_t planes, const float *x, float *y);
/** The reverse: adds dy to what it was made of, times the weights. */
void gd_interpolate_back_add(const gd_interpolation *interpolation, int64_t planes, const float *dy,
                             float *dx);

#endif
