/* buffer.c */
#include "buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, HEADER = (sizeof(gs_buffer) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT };

bool gs_budget_take(gs_budget *budget, size_t bytes) {
    size_t used = atomic_load(&budget->used);
    do {
        if (bytes > budget->limit || used > budget->limit - bytes) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&budget->used, &used, used + bytes));
    return true;
}

void gs_budget_give(gs_budget *budget, size_t bytes) {
    atomic_fetch_sub(&budget->used, bytes);
}

gs_buffer *gs_buffer_new(gs_budget *budget, size_t capacity) {
    size_t bytes;
    if (__builtin_add_overflow(capacity, (size_t)HEADER + ALIGNMENT, &bytes) ||
        !gs_budget_take(budget, capacity)) {
        return NULL;
    }
    gs_buffer *buffer = aligned_alloc(ALIGNMENT, bytes / ALIGNMENT * ALIGNMENT); /* leaves at least the NUL */
    if (!buffer) {
        gs_budget_give(budget, capacity);
        return NULL;
    }
    *buffer = (gs_buffer){.budget = budget, .data = (char *)buffer + HEADER, .capacity = capacity};
    atomic_init(&buffer->references, 1);
    buffer->data[0] = '\0';
    return buffer;
}

gs_buffer *gs_buffer_wrap(gs_budget *budget, void *data, size_t size) {
    if (!gs_budget_take(budget, size)) {
        return NULL;
    }
    gs_buffer *buffer = malloc(sizeof *buffer);
    if (!buffer) {
        gs_budget_give(budget, size);
        return NULL;
    }
    *buffer = (gs_buffer){.budget = budget, .data = data, .size = size, .capacity = size, .wrapped = true};
    atomic_init(&buffer->references, 1);
    return buffer;
}

gs_buffer *gs_buffer_ref(gs_buffer *buffer) {
    atomic_fetch_add_explicit(&buffer->references, 1, memory_order_relaxed);
    return buffer;
}

void gs_buffer_unref(gs_buffer *buffer) {
    if (buffer && atomic_fetch_sub_explicit(&buffer->references, 1, memory_order_acq_rel) == 1) {
        gs_budget_give(buffer->budget, buffer->capacity);
        if (buffer->wrapped) {
            free(buffer->data);
        }
        free(buffer);
    }
}

bool gs_buffer_append(gs_buffer **buffer, const void *bytes, size_t size, size_t limit) {
    gs_buffer *old = *buffer;
    if (size > limit || old->size > limit - size) {
        return false;
    }
    size_t need = old->size + size;
    if (need > old->capacity) {
        size_t capacity = old->capacity < limit / 2 ? 2 * old->capacity : limit;
        gs_buffer *grown = gs_buffer_new(old->budget, capacity > need ? capacity : need);
        if (!grown) {
            return false;
        }
        memcpy(grown->data, old->data, old->size);
        grown->size = old->size;
        gs_buffer_unref(old);
        *buffer = old = grown;
    }
    memcpy(old->data + old->size, bytes, size);
    old->size = need;
    old->data[need] = '\0';
    return true;
}

bool gs_buffer_charge(gs_buffer *buffer, gs_budget *budget) {
    if (buffer->budget == budget) {
        return true;
    }
    if (!gs_budget_take(budget, buffer->capacity)) {
        return false;
    }
    gs_budget_give(buffer->budget, buffer->capacity);
    buffer->budget = budget;
    return true;
}
