/* arena.h -- memory that goes away all at once, and blocks that are counted against a limit. */
#ifndef GD_CORE_ARENA_H
#define GD_CORE_ARENA_H

#include <stdatomic.h>

#include "engine/core/shape.h"

/** Small things that live as long as their graph. Zero-initialise; allocations are zeroed. */
typedef struct gd_arena {
    struct gd_arena_chunk *chunks;
} gd_arena;

/** @return NULL when there is no memory (or count * size overflows) */
void *gd_arena_alloc(gd_arena *arena, size_t count, size_t size);
char *gd_arena_strdup(gd_arena *arena, const char *string);
void gd_arena_release(gd_arena *arena);
#define GD_ARENA_NEW(arena, type, count) ((type *)gd_arena_alloc(arena, count, sizeof(type)))

/** Bytes held against a limit; shared by all models of an engine. */
typedef struct gd_budget {
    size_t limit; /* 0: none */
    atomic_size_t used;
} gd_budget;

/** A large, 64-byte aligned piece of memory that only grows. Zero-initialise. */
typedef struct gd_block {
    void *data;
    size_t size;
} gd_block;

/**
 * Make `count` blocks at least sizes[i] bytes large, all of them or (on error) none. New memory is
 * zeroed, and a block that grows loses its contents.
 * @return 0; GD_E_MEMORY (names the bytes needed, held and allowed)
 */
int gd_blocks_grow(gd_block *const *blocks, const size_t *sizes, size_t count, gd_budget *budget,
                   gd_error *error);
void gd_block_release(gd_block *block, gd_budget *budget);

#endif
