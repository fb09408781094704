/* track.c */
#include "track.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- blocks ------------------------------------------------------------------------------------------ */

static void *at(const gs_blocks *blocks, size_t index) {
    return (char *)blocks->blocks[index / blocks->per] + index % blocks->per * blocks->size;
}

/* Make the block that holds `index`. @return false: no memory */
static bool reserve(gs_blocks *blocks, size_t index) {
    const size_t block = index / blocks->per;
    if (block >= blocks->capacity) {
        size_t capacity = blocks->capacity ? blocks->capacity : 8;
        while (capacity <= block) {
            capacity *= 2;
        }
        void **grown = realloc(blocks->blocks, capacity * sizeof *grown); /* of pointers alone */
        if (!grown) {
            return false;
        }
        memset(grown + blocks->capacity, 0, (capacity - blocks->capacity) * sizeof *grown);
        blocks->blocks = grown;
        blocks->capacity = capacity;
    }
    if (!blocks->blocks[block]) {
        blocks->blocks[block] = malloc(blocks->per * blocks->size);
    }
    return blocks->blocks[block];
}

/* Free what holds nothing of begin ... end - 1. */
static void keep(gs_blocks *blocks, size_t begin, size_t end) {
    const size_t low = begin / blocks->per, high = (end + blocks->per - 1) / blocks->per;
    /* There is a block behind each that is kept at most, and few before: what went before, has gone. */
    for (size_t i = low; i-- > 0 && i < blocks->capacity && blocks->blocks[i];) {
        free(blocks->blocks[i]);
        blocks->blocks[i] = NULL;
    }
    for (size_t i = high; i < blocks->capacity && blocks->blocks[i]; i++) {
        free(blocks->blocks[i]);
        blocks->blocks[i] = NULL;
    }
}

static void release(gs_blocks *blocks) {
    for (size_t i = 0; i < blocks->capacity; i++) {
        free(blocks->blocks[i]);
    }
    free(blocks->blocks);
}

static size_t memory(const gs_blocks *blocks) {
    size_t bytes = blocks->capacity * sizeof *blocks->blocks;
    for (size_t i = 0; i < blocks->capacity; i++) {
        bytes += blocks->blocks[i] ? blocks->per * blocks->size : 0;
    }
    return bytes;
}

/* ---- stats ------------------------------------------------------------------------------------------- */

static const gs_stat nothing = {.min = INFINITY, .max = -INFINITY, .last = NAN};

static void add_value(gs_stat *stat, double value) {
    stat->count++;
    stat->last = value;
    if (!isfinite(value)) {
        stat->nonfinite++;
        return;
    }
    stat->min = value < stat->min ? value : stat->min;
    stat->max = value > stat->max ? value : stat->max;
    stat->sum += value;
}

/* `next` is of the items that follow. */
static void add_stat(gs_stat *stat, const gs_stat *next) {
    stat->min = next->min < stat->min ? next->min : stat->min;
    stat->max = next->max > stat->max ? next->max : stat->max;
    stat->sum += next->sum;
    stat->last = next->count ? next->last : stat->last;
    stat->count += next->count;
    stat->nonfinite += next->nonfinite;
}

static void add_item(const gs_track *track, size_t index, size_t column, gs_stat *stat) {
    double value;
    if (track->value_of(at(&track->items, index), column, &value)) {
        add_value(stat, value);
    }
}

/* ---- the pyramid ------------------------------------------------------------------------------------- */

static size_t bucket_size(size_t level) {
    return (size_t)1 << (GS_BUCKET_SHIFT + level);
}

/* Does a bucket of this level that is all there end with the last of `count` items? Which one is it? */
static bool completes(const gs_track *track, size_t count, size_t level, size_t *ret_bucket) {
    if (level == GS_LEVELS || count % bucket_size(level)) {
        return false;
    }
    *ret_bucket = count / bucket_size(level) - 1;
    return *ret_bucket * bucket_size(level) >= track->first;
}

static void fill_bucket(gs_track *track, size_t level, size_t bucket) {
    gs_stat *stat = at(&track->levels[level], bucket);
    for (size_t column = 0; column < track->columns; column++) {
        stat[column] = nothing;
        for (size_t i = 0; i < 2 && level; i++) {
            const gs_stat *half = at(&track->levels[level - 1], 2 * bucket + i);
            add_stat(&stat[column], &half[column]);
        }
        for (size_t i = 0; i < bucket_size(0) && !level; i++) {
            add_item(track, bucket * bucket_size(0) + i, column, &stat[column]);
        }
    }
}

void gs_track_sum(const gs_track *track, size_t begin, size_t end, size_t column, gs_stat *ret_stat) {
    *ret_stat = nothing;
    while (begin < end) {
        /* The largest bucket that begins here and is within: by the zeros at the end of `begin`. */
        const int fits = 63 - __builtin_clzll(end - begin);
        int shift = begin ? __builtin_ctzll(begin) : 63;
        shift = shift < fits ? shift : fits;
        if (shift < GS_BUCKET_SHIFT) {
            add_item(track, begin++, column, ret_stat);
            continue;
        }
        const size_t deep = (size_t)shift - GS_BUCKET_SHIFT, level = deep < GS_LEVELS ? deep : GS_LEVELS - 1;
        const gs_stat *stat = at(&track->levels[level], begin / bucket_size(level));
        add_stat(ret_stat, &stat[column]);
        begin += bucket_size(level);
    }
}

/* ---- the track --------------------------------------------------------------------------------------- */

void gs_track_init(gs_track *track, size_t size, size_t columns, gs_value_of *value_of, size_t limit) {
    *track = (gs_track){.value_of = value_of,
                        .columns = columns,
                        .limit = limit,
                        .items = {.size = size, .per = GS_ITEM_BLOCK}};
    for (size_t level = 0; level < GS_LEVELS; level++) {
        track->levels[level] = (gs_blocks){.size = columns * sizeof(gs_stat), .per = GS_BUCKET_BLOCK};
    }
}

void gs_track_release(gs_track *track) {
    release(&track->items);
    for (size_t level = 0; level < GS_LEVELS; level++) {
        release(&track->levels[level]);
    }
}

/* Free what is outside first ... count - 1. */
static void shrink(gs_track *track) {
    keep(&track->items, track->first, track->count);
    for (size_t level = 0; level < GS_LEVELS; level++) {
        keep(&track->levels[level], track->first / bucket_size(level), track->count / bucket_size(level));
    }
}

bool gs_track_add(gs_track *track, const gs_item *item) {
    const size_t count = track->count + 1;
    size_t bucket;
    if (!reserve(&track->items, track->count)) {
        return false;
    }
    for (size_t level = 0; completes(track, count, level, &bucket); level++) {
        if (!reserve(&track->levels[level], bucket)) {
            return false;
        }
    }
    memcpy(at(&track->items, track->count), item, track->items.size);
    track->count = count;
    for (size_t level = 0; completes(track, count, level, &bucket); level++) {
        fill_bucket(track, level, bucket);
    }
    if (count - track->first >= track->limit + GS_ITEM_BLOCK) {
        track->first += GS_ITEM_BLOCK;
        shrink(track);
    }
    return true;
}

const gs_item *gs_track_at(const gs_track *track, size_t index) {
    return at(&track->items, index);
}

const gs_item *gs_track_last(const gs_track *track) {
    return track->count > track->first ? at(&track->items, track->count - 1) : NULL;
}

size_t gs_track_find_step(const gs_track *track, int64_t step) {
    size_t low = track->first, high = track->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (gs_track_at(track, middle)->step < step) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

size_t gs_track_find_after(const gs_track *track, uint64_t sequence) {
    size_t low = track->first, high = track->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (gs_track_at(track, middle)->sequence <= sequence) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void gs_track_cut(gs_track *track, size_t count) {
    if (count < track->count) {
        track->count = count;
        shrink(track);
    }
}

size_t gs_track_memory(const gs_track *track) {
    size_t bytes = memory(&track->items);
    for (size_t level = 0; level < GS_LEVELS; level++) {
        bytes += memory(&track->levels[level]);
    }
    return bytes;
}
