/* buffer.h -- a request's body: counted references, so that a kept graph may go on reading a batch in
 * place after its request has been answered; and budgets that bound what all of them hold. */
#ifndef GRADD_SERVER_BUFFER_H
#define GRADD_SERVER_BUFFER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/** Bytes held against a limit. Any thread. */
typedef struct gs_budget {
    atomic_size_t used;
    size_t limit;
} gs_budget;

/** @return false, and nothing taken, when it would go over the limit */
bool gs_budget_take(gs_budget *budget, size_t bytes);
void gs_budget_give(gs_budget *budget, size_t bytes);

typedef struct gs_buffer {
    atomic_int references;
    gs_budget *budget; /* that `capacity` is held against */
    char *data;        /* aligned to 64 bytes when the buffer's own; NUL at data[size] */
    size_t size, capacity;
    bool wrapped; /* data is malloc()ed memory that was handed over */
} gs_buffer;

/** A buffer with room for capacity bytes (and a NUL). NULL: over the budget, or no memory. */
gs_buffer *gs_buffer_new(gs_budget *budget, size_t capacity);
/** Take over malloc()ed memory. NULL: over the budget, or no memory; data stays the caller's then. */
gs_buffer *gs_buffer_wrap(gs_budget *budget, void *data, size_t size);
gs_buffer *gs_buffer_ref(gs_buffer *buffer);
/** NULL is fine. */
void gs_buffer_unref(gs_buffer *buffer);
/** Append to a buffer with one reference, which moves when it must grow; never past `limit` bytes.
 *  @return false: over a limit, or no memory; the buffer is as it was */
bool gs_buffer_append(gs_buffer **buffer, const void *bytes, size_t size, size_t limit);
/** Hold it against another budget from now on. One thread at a time. @return false: over that budget */
bool gs_buffer_charge(gs_buffer *buffer, gs_budget *budget);

#endif
