/* track.h -- a sequence of items, each of a step, that only grows at its end, and above it a pyramid: for
 * each full bucket of 32, 64, 128 ... items what a chart needs to know of it. Nothing in it ever moves. So
 * any stretch of a million items is summed up from a few dozen pieces. The caller locks. */
#ifndef GRADD_SERVER_TRACK_H
#define GRADD_SERVER_TRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What every item begins with. Of a track, steps do not fall and sequence numbers grow. */
typedef struct gs_item {
    int64_t step;
    int64_t time_ms; /* since 1970 */
    uint64_t sequence;
} gs_item;

/** What is known of one column of a stretch of items. NaN and infinities are counted, but do not spoil the
 *  rest. */
typedef struct gs_stat {
    double min, max, sum; /* of finite values: infinity, -infinity and 0 when there are none */
    double last;
    uint32_t count, nonfinite; /* values; how many of them are not finite */
} gs_stat;

/** Equal pieces of memory, found by the index of what they hold. */
typedef struct gs_blocks {
    void **blocks; /* NULL: not there */
    size_t capacity;
    size_t size, per; /* bytes of one; how many there are in a block */
} gs_blocks;

enum {
    GS_BUCKET_SHIFT = 5, /* the smallest bucket: 32 items */
    GS_LEVELS = 32,
    GS_ITEM_BLOCK = 512, /* items; a multiple of the smallest bucket */
    GS_BUCKET_BLOCK = 64 /* buckets */
};

/** The value of a column. @return false: the item has none */
typedef bool gs_value_of(const gs_item *item, size_t column, double *ret_value);

typedef struct gs_track {
    gs_value_of *value_of;
    size_t columns;
    size_t first, count; /* items first ... count - 1 are there; older ones have gone */
    size_t limit;        /* how many are kept, and up to a block more */
    gs_blocks items;
    gs_blocks levels[GS_LEVELS]; /* [l]: full buckets of 32 << l items, `columns` stats each */
} gs_track;

/** @param size bytes of an item */
void gs_track_init(gs_track *track, size_t size, size_t columns, gs_value_of *value_of, size_t limit);
void gs_track_release(gs_track *track);

/** Append a copy of an item. @return false: no memory, and nothing has changed */
bool gs_track_add(gs_track *track, const gs_item *item);
const gs_item *gs_track_at(const gs_track *track, size_t index);
/** The last one; NULL: there is none. */
const gs_item *gs_track_last(const gs_track *track);
/** Index of the first item of this step or a later one. */
size_t gs_track_find_step(const gs_track *track, int64_t step);
/** Index of the first item with a larger sequence number. */
size_t gs_track_find_after(const gs_track *track, uint64_t sequence);
/** Sum up a column of the items begin ... end - 1. */
void gs_track_sum(const gs_track *track, size_t begin, size_t end, size_t column, gs_stat *ret_stat);
/** Forget items from `count` on. */
void gs_track_cut(gs_track *track, size_t count);
/** Bytes allocated. */
size_t gs_track_memory(const gs_track *track);

#endif
