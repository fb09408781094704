/* product.h -- matrix products of a weight with a batch. A BLAS packs both operands at every call; here the
 * weight, which is large, is read where it lies, and only pieces of the batch's side are packed. */
#ifndef GD_KERNELS_PRODUCT_H
#define GD_KERNELS_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GD_PACKED_COLUMNS = 64 /* packed matrices have whole blocks of so many columns */ };

/** An operand: element (i, j) lies at i * row + j * column. */
typedef struct gd_operand {
    const float *at;
    int64_t row, column;
    bool large; /* a part of a weight that is worth preparing for a matrix unit: there its columns lie
                   together. The parts of a product must agree on it. */
} gd_operand;

enum { GD_MOST_READS = 5 };

/** What goes along with a product and takes what is complete of C while the rest is being computed: it finds
 *  that in a near cache, and what it reads beside it is fetched in the shadow of the multiplications. */
typedef struct gd_follower {
    /** Floats from ... from + count - 1 of C, counted from its first, are complete. Each comes once. */
    void (*take)(const struct gd_follower *follower, int64_t from, int64_t count);
    const float *reads[GD_MOST_READS]; /* what take() reads beside C, laid out like C */
    int read_count;
    const void *context; /* this and what follows are take()'s own */
    int param;
    size_t offset;
    double *sum;
} gd_follower;

/** C = A B, or C += A B.
 *  @param a (m, k), in any order
 *  @param b (k, n), row by row or column by column: one of its steps is 1
 *  @param c (m, n), c_row from one row to the next */
void gd_product(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, float *c, int64_t c_row,
                bool accumulate);

/** The same for a C without gaps between its rows, with a follower (NULL: none). */
void gd_product_followed(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, float *c,
                         bool accumulate, const gd_follower *follower);

/** C = A B, or 0 where gate, which is laid out like C, is at most 0: the gradient before a ReLU whose output
 *  gate is. NULL: no gate. */
void gd_product_gated(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *gate,
                      float *c, int64_t c_row);

/** C = A B + bias, or the greater of that and 0.
 *  @param bias (n): one for each column of B; NULL: none */
void gd_product_affine(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *bias,
                       bool relu, float *c, int64_t c_row);

/** C = (A B + bias)^T, or the greater of that and 0.
 *  @param bias (m): one for each row of A; NULL: none
 *  @param c    (n, m), c_row from one row to the next */
void gd_product_transposed(int64_t m, int64_t n, int64_t k, gd_operand a, gd_operand b, const float *bias,
                           bool relu, float *c, int64_t c_row);

/** Floats that a packed (k, n) matrix takes; the same for every instruction set. */
static inline int64_t gd_packed_floats(int64_t k, int64_t n) {
    return k * ((n + GD_PACKED_COLUMNS - 1) / GD_PACKED_COLUMNS * GD_PACKED_COLUMNS);
}
/** Pack B (k, n) for many products with few rows. */
void gd_product_pack(int64_t k, int64_t n, gd_operand b, float *panels);
/** C = A B + bias (NULL: none), or C += A B + bias, with B packed. */
void gd_product_packed(int64_t m, int64_t n, int64_t k, gd_operand a, const float *panels, const float *bias,
                       float *c, int64_t c_row, bool accumulate);

#endif
