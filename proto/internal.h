/* internal.h -- what proto's own files share and nobody else sees. Needs libc alone: the codecs of the
 * client library include it too. */
#ifndef GP_INTERNAL_H
#define GP_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "proto/gradd_codec.h"

/* Floats are moved between the wire and memory as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the codecs are written for little-endian machines");

/** Set array->size from its dtype, rank and dims, all of which a client may have made up.
 *  @param what begins the message: "npy", "safetensors: tensor \"x\""
 *  @return 0; -1: a product overflows, also when another axis is 0 */
int gp_array_measure(gp_array *array, const char *what, gp_error *error);

/** Append "/token" to a JSON pointer, escaped as RFC 6901 wants; cut off when there is no room. */
void gp_pointer_add(char *pointer, size_t size, const char *token);

/** "[3][0]" for the element at this row-major position. @return text */
const char *gp_index_text(const gp_array *array, int64_t position, char *text, size_t size);

static inline uint64_t gp_load_le(const unsigned char *bytes, int count) {
    uint64_t value = 0;
    for (int i = count; i-- > 0;)
        value = value << 8 | bytes[i];
    return value;
}

static inline uint64_t gp_load_be(const unsigned char *bytes, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

#endif
