/* arena.c -- arenas and counted blocks. */
#include "engine/core/arena.h"

#include <sys/mman.h>

enum { CHUNK = 16 * 1024 };

struct gd_arena_chunk {
    struct gd_arena_chunk *next;
    size_t size, used;
    _Alignas(16) char data[];
};

void *gd_arena_alloc(gd_arena *arena, size_t count, size_t size) {
    size_t bytes, raised;
    if (!gd_mul(count, size, &bytes) || !gd_add(bytes, 15, &raised))
        return NULL;
    raised &= ~(size_t)15;
    struct gd_arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < raised) {
        size_t room = raised > CHUNK ? raised : CHUNK, total;
        if (!gd_add(room, sizeof *chunk, &total) || !(chunk = calloc(1, total)))
            return NULL;
        *chunk = (struct gd_arena_chunk){.next = arena->chunks, .size = room};
        arena->chunks = chunk;
    }
    void *result = chunk->data + chunk->used;
    chunk->used += raised;
    return result;
}

char *gd_arena_strdup(gd_arena *arena, const char *string) {
    size_t size = strlen(string) + 1;
    char *copy = gd_arena_alloc(arena, size, 1);
    return copy ? memcpy(copy, string, size) : NULL;
}

void gd_arena_release(gd_arena *arena) {
    while (arena->chunks) {
        struct gd_arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
}

static int reserve(gd_budget *budget, size_t bytes, gd_error *error) {
    size_t used = atomic_load(&budget->used);
    do {
        if (budget->limit && (bytes > budget->limit || used > budget->limit - bytes))
            return gd_fail(error, GD_E_MEMORY,
                           "this needs %zu bytes more, %zu of %zu are in use; use a smaller batch or model, "
                           "delete a model, or raise --max-memory",
                           bytes, used, budget->limit);
    } while (!atomic_compare_exchange_weak(&budget->used, &used, used + bytes));
    return 0;
}

/* Large blocks lie on large pages where the system has them: a pass over a batch's activations goes through
 * more small ones than a processor remembers the places of. */
static void *allocate(size_t bytes) {
    enum { LARGE = 2 << 20 };
    size_t pages = bytes; /* whole ones, as aligned_alloc() wants them */
    if (bytes < LARGE || !gd_add(bytes, LARGE - 1, &pages))
        return aligned_alloc(64, bytes);
    pages &= ~(size_t)(LARGE - 1);
    void *block = aligned_alloc(LARGE, pages);
#if defined(MADV_HUGEPAGE)
    if (block)
        (void)madvise(block, bytes & ~(size_t)(LARGE - 1), MADV_HUGEPAGE);
#endif
    return block;
}

int gd_blocks_grow(gd_block *const *blocks, const size_t *sizes, size_t count, gd_budget *budget,
                   gd_error *error) {
    enum { MOST = 8 };
    void *fresh[MOST] = {0};
    size_t rounded[MOST], grown = 0, freed = 0;
    for (size_t i = 0; i < count; i++) {
        if (!gd_round_up(sizes[i], &rounded[i]) || !gd_add(grown, rounded[i], &grown))
            return gd_fail(error, GD_E_MEMORY, "this needs more bytes than can be counted");
        if (rounded[i] <= blocks[i]->size) {
            grown -= rounded[i];
            rounded[i] = 0;
        } else {
            freed += blocks[i]->size;
        }
    }
    /* Only the difference counts: an old block goes as soon as its successor is there. */
    size_t more = grown - freed;
    if (grown == 0)
        return 0;
    int code = reserve(budget, more, error);
    if (code)
        return code;
    for (size_t i = 0; i < count; i++)
        if (rounded[i] && !(fresh[i] = allocate(rounded[i]))) {
            while (i--)
                free(fresh[i]);
            atomic_fetch_sub(&budget->used, more);
            return gd_fail(error, GD_E_MEMORY, "the system has no %zu bytes; use a smaller batch or model",
                           more);
        }
    for (size_t i = 0; i < count; i++)
        if (rounded[i]) {
            memset(fresh[i], 0, rounded[i]);
            free(blocks[i]->data);
            *blocks[i] = (gd_block){.data = fresh[i], .size = rounded[i]};
        }
    return 0;
}

void gd_block_release(gd_block *block, gd_budget *budget) {
    free(block->data);
    atomic_fetch_sub(&budget->used, block->size);
    *block = (gd_block){0};
}
