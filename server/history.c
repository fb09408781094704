/* history.c */
#include "history.h"

#include <stdlib.h>

void gs_history_init(gs_history *history) {
    *history = (gs_history){0};
    pthread_mutex_init(&history->lock, NULL);
}

void gs_history_release(gs_history *history) {
    pthread_mutex_destroy(&history->lock);
    free(history->points);
}

void gs_history_add(gs_history *history, const gs_point *point) {
    pthread_mutex_lock(&history->lock);
    if (history->count >= history->capacity && history->capacity < GS_HISTORY_POINTS) {
        /* Until the ring is full size nothing was dropped, so growing moves nothing around. */
        size_t capacity = history->capacity ? 2 * history->capacity : 64;
        gs_point *grown = realloc(history->points, capacity * sizeof *grown);
        if (!grown) {
            pthread_mutex_unlock(&history->lock);
            return;
        }
        history->points = grown;
        history->capacity = capacity;
    }
    history->points[history->count++ % history->capacity] = *point;
    pthread_mutex_unlock(&history->lock);
}

int gs_history_read(gs_history *history, uint64_t since, size_t max, gs_point **ret_points, size_t *ret_count,
                    uint64_t *ret_cursor) {
    int result = 0;
    pthread_mutex_lock(&history->lock);
    uint64_t first = history->count > history->capacity ? history->count - history->capacity : 0;
    first = since > first ? since : first;
    first = first > history->count ? history->count : first;
    if (history->count - first > max) {
        first = history->count - max;
    }
    size_t count = (size_t)(history->count - first);
    gs_point *points = count ? malloc(count * sizeof *points) : NULL;
    if (count && !points) {
        result = -1;
    } else {
        for (size_t i = 0; i < count; i++) {
            points[i] = history->points[(first + i) % history->capacity];
        }
        *ret_points = points;
        *ret_count = count;
        *ret_cursor = history->count;
    }
    pthread_mutex_unlock(&history->lock);
    return result;
}
