/* parallel.h -- the compute threads: tasks, and loops whose pieces idle threads help with. */
#ifndef GD_CORE_PARALLEL_H
#define GD_CORE_PARALLEL_H

#include "engine/core/error.h"

typedef struct gd_pool gd_pool;

/** Start `threads` threads (0 is fine). A loop has at most `runners` runners, its caller among them, who need
 *  not be one of the threads: 1 ... threads + 1. */
int gd_pool_new(int threads, int runners, gd_pool **ret_pool, gd_error *error);
/** Runs what was submitted, then joins. NULL is fine. */
void gd_pool_free(gd_pool *pool);
/** Queue a task: first come, first served, one thread each. Any thread may call it. */
void gd_pool_submit(gd_pool *pool, gd_task *task);

/**
 * Run body(context, i, slot) for i in 0 ... count - 1, on the caller and on whichever threads are idle, of
 * which loops that run at the same time have their equal parts; returns when all are done. Pieces of work
 * must not depend on each other or on who runs them, so results are the same for any number of threads;
 * subnormal numbers are flushed for all (flush.h). Not from inside a body.
 *
 * slot tells the concurrent runners of one loop apart: 0 ... gd_pool_slots() - 1.
 */
void gd_parallel_for(gd_pool *pool, int64_t count, void (*body)(void *context, int64_t index, int slot),
                     void *context);
/** Most runners that one loop can have. */
int gd_pool_slots(const gd_pool *pool);

#endif
