/* vectors.h -- arithmetic on long vectors: the same bits for any number of threads. Sums are taken in double
 * over blocks of a fixed length and added up in the blocks' order. */
#ifndef GD_OPTIM_VECTORS_H
#define GD_OPTIM_VECTORS_H

#include "engine/core/parallel.h"

enum { GD_VECTOR_BLOCK = 16384 /* floats that one thread takes at a time */ };

/** What a computation on vectors of up to `count` floats needs. */
typedef struct gd_vectors {
    gd_pool *pool;
    double *partial; /* (gd_vector_blocks(count)) */
} gd_vectors;

int64_t gd_vector_blocks(int64_t count);

/** sum a[i] * b[i] */
double gd_vector_dot(const gd_vectors *v, const float *a, const float *b, int64_t count);
/** sum |a[i]| */
double gd_vector_sum_abs(const gd_vectors *v, const float *a, int64_t count);
/** max |a[i]|; NaN wins. 0 for none */
double gd_vector_max_abs(const gd_vectors *v, const float *a, int64_t count);
/** out = a + scale * b; out may be either. */
void gd_vector_add(const gd_vectors *v, float *out, const float *a, double scale, const float *b,
                   int64_t count);
/** out = scale * a; out may be a. */
void gd_vector_scale(const gd_vectors *v, float *out, double scale, const float *a, int64_t count);

#endif
