/* history.h -- the last steps of a model: loss, learning rate, gradient norm. Bounded; any thread. */
#ifndef GRADD_SERVER_HISTORY_H
#define GRADD_SERVER_HISTORY_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum { GS_HISTORY_POINTS = 16384 };

typedef struct gs_point {
    int64_t step;
    int64_t time_ms; /* since 1970 */
    double loss, lr, grad_norm;
    double accuracy; /* of the batch; negative: the target does not hold class indices */
} gs_point;

typedef struct gs_history {
    pthread_mutex_t lock; /* guards all */
    gs_point *points;     /* a ring */
    size_t capacity;
    uint64_t count; /* ever recorded: also the cursor */
} gs_history;

void gs_history_init(gs_history *history);
void gs_history_release(gs_history *history);
/** Record a point; the oldest goes when there are GS_HISTORY_POINTS. A point is lost when there is no memory.
 */
void gs_history_add(gs_history *history, const gs_point *point);
/**
 * The points recorded after cursor `since`, oldest first, at most the last `max`.
 *
 * @param ret_points malloc()ed; NULL when there are none
 * @param ret_cursor to ask with the next time
 * @return 0; -1: no memory
 */
int gs_history_read(gs_history *history, uint64_t since, size_t max, gs_point **ret_points, size_t *ret_count,
                    uint64_t *ret_cursor);

#endif
