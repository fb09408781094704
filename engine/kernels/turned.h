/* turned.h -- images with their channels last: a pixel's channels lie side by side, so that vectors are of
 * channels, whatever an image's width, and windows may step over pixels as they like. */
#ifndef GD_KERNELS_TURNED_H
#define GD_KERNELS_TURNED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** An image (channels, height, width), and its copy (rows, columns, depth) that begins `top` rows and `left`
 *  columns before it and ends where it does, or later. */
typedef struct gd_turned {
    int64_t channels, height, width;
    int64_t top, left, rows, columns;
    int64_t depth; /* channels, rounded up to whole vectors */
} gd_turned;

/** `count`, rounded up to whole vectors. */
int64_t gd_turned_depth(int64_t count);

/** The image into its copy, channels that are not there as zeros; the border is left as it is. */
void gd_turn_in(const gd_turned *t, const float *image, float *copy);
/** The copy back into the image, or added to it. */
void gd_turn_out(const gd_turned *t, const float *copy, bool add, float *image);

/** sums[c] += the sum over all of the copy, border and all. */
void gd_turned_add_sums(const gd_turned *t, const float *copy, float *sums);

/** How the operands of a product lie: sums of `stretches` times `length` terms. */
typedef struct gd_turned_sum {
    const int64_t *offset; /* (stretches): where in a each of them begins */
    int64_t stretches, length;
    int64_t a_row, a_step; /* from one row, and from one term of a stretch, to the next */
    int64_t b_row, c_row;
    bool accumulate;
} gd_turned_sum;

/** More rows than were asked for are computed: up to a multiple of this. */
enum { GD_TURNED_ROWS = 16 };

/** c[m, n] (or with accumulate +)= sum over s, i of a[offset[s] + m a_row + i a_step] b[s length + i, n]
 *  @param columns a multiple of a vector's lanes */
void gd_turned_product(const gd_turned_sum *sum, int64_t rows, int64_t columns, const float *a,
                       const float *b, float *c);

#endif
