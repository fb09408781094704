/* vectors.c -- arithmetic on long vectors, block by block. */
#include "engine/optim/vectors.h"

#include <math.h>

typedef struct job {
    const float *a, *b;
    float *out;
    float scale;
    int64_t count; /* of the block's elements, in a kernel */
} job;

/** One block: changes job->out, or gives its part of a sum or maximum. */
typedef double (*block_kernel)(const job *block);

typedef struct loop {
    job whole;
    block_kernel kernel;
    double *partial; /* NULL: no results */
} loop;

int64_t gd_vector_blocks(int64_t count) {
    return count / GD_VECTOR_BLOCK + (count % GD_VECTOR_BLOCK != 0);
}

static void run_block(void *context, int64_t index, int slot) {
    (void)slot;
    const loop *l = context;
    const int64_t from = index * GD_VECTOR_BLOCK, left = l->whole.count - from;
    const job block = {.a = l->whole.a + from,
                       .b = l->whole.b ? l->whole.b + from : NULL,
                       .out = l->whole.out ? l->whole.out + from : NULL,
                       .scale = l->whole.scale,
                       .count = left < GD_VECTOR_BLOCK ? left : GD_VECTOR_BLOCK};
    const double result = l->kernel(&block);
    if (l->partial)
        l->partial[index] = result;
}

/* @return how many blocks there were */
static int64_t run(const gd_vectors *v, block_kernel kernel, double *partial, job whole) {
    loop l = {whole, kernel, partial};
    const int64_t blocks = gd_vector_blocks(whole.count);
    gd_parallel_for(v->pool, blocks, run_block, &l);
    return blocks;
}

static double sum(const gd_vectors *v, block_kernel kernel, job whole) {
    double total = 0;
    const int64_t blocks = run(v, kernel, v->partial, whole);
    for (int64_t i = 0; i < blocks; i++)
        total += v->partial[i];
    return total;
}

enum { LANES = 16 /* sums side by side, so that the compiler can use wide registers */ };

static double total_of(const double lanes[LANES]) {
    double total = 0;
    for (int lane = 0; lane < LANES; lane++)
        total += lanes[lane];
    return total;
}

static double dot_block(const job *j) {
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= j->count; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += (double)j->a[i + lane] * (double)j->b[i + lane];
    for (int lane = 0; i < j->count; i++, lane++)
        lanes[lane] += (double)j->a[i] * (double)j->b[i];
    return total_of(lanes);
}

static double sum_abs_block(const job *j) {
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= j->count; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += fabs((double)j->a[i + lane]);
    for (int lane = 0; i < j->count; i++, lane++)
        lanes[lane] += fabs((double)j->a[i]);
    return total_of(lanes);
}

/* The larger one, NaN above all. */
static double larger(double most, double value) {
    return value > most || isnan(value) ? value : most;
}

static double max_abs_block(const job *j) {
    double most = 0;
    for (int64_t i = 0; i < j->count; i++)
        most = larger(most, fabs((double)j->a[i]));
    return most;
}

static double add_block(const job *j) {
#pragma omp simd
    for (int64_t i = 0; i < j->count; i++)
        j->out[i] = j->a[i] + j->scale * j->b[i];
    return 0;
}

static double scale_block(const job *j) {
#pragma omp simd
    for (int64_t i = 0; i < j->count; i++)
        j->out[i] = j->scale * j->a[i];
    return 0;
}

double gd_vector_dot(const gd_vectors *v, const float *a, const float *b, int64_t count) {
    return sum(v, dot_block, (job){.a = a, .b = b, .count = count});
}

double gd_vector_sum_abs(const gd_vectors *v, const float *a, int64_t count) {
    return sum(v, sum_abs_block, (job){.a = a, .count = count});
}

double gd_vector_max_abs(const gd_vectors *v, const float *a, int64_t count) {
    double most = 0;
    const int64_t blocks = run(v, max_abs_block, v->partial, (job){.a = a, .count = count});
    for (int64_t i = 0; i < blocks; i++)
        most = larger(most, v->partial[i]);
    return most;
}

void gd_vector_add(const gd_vectors *v, float *out, const float *a, double scale, const float *b,
                   int64_t count) {
    run(v, add_block, NULL, (job){.a = a, .b = b, .out = out, .scale = (float)scale, .count = count});
}

void gd_vector_scale(const gd_vectors *v, float *out, double scale, const float *a, int64_t count) {
    run(v, scale_block, NULL, (job){.a = a, .out = out, .scale = (float)scale, .count = count});
}
