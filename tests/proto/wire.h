/* wire.h -- what the tests of the codecs share. */
#ifndef GRADD_TESTS_WIRE_H
#define GRADD_TESTS_WIRE_H

#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

/** A reader under test: reads `size` bytes and releases what it read. @return what the codec returned */
typedef int (*wire_reader)(const void *data, size_t size, gp_error *error);

/** Read an exact copy on the heap, so that ASan sees every byte too many. */
static inline int wire_read_copy(wire_reader read, const void *data, size_t size, gp_error *error) {
    char *copy = malloc(size + 1);
    assert_non_null(copy);
    memmove(copy + 1, data, size); /* and unaligned at that */
    const int status = read(copy + 1, size, error);
    free(copy);
    return status;
}

/** What was refused says why: a problem, and a sentence with `part` in it. */
static inline void wire_assert_refused(int status, const gp_error *error, const char *part,
                                       const char *what) {
    if (status != -1 || error->problem == GP_OK || !strstr(error->detail, part))
        fail_msg("%s: status %d, \"%s\" (%s) instead of \"%s\"", what, status, error->detail,
                 gp_problem_code(error->problem), part);
}

/** Every shorter version of good data is refused. */
static inline void wire_truncate(wire_reader read, const void *data, size_t size) {
    for (size_t length = 0; length < size; length++) {
        gp_error error = {.problem = GP_OK};
        wire_assert_refused(wire_read_copy(read, data, length, &error), &error, "", "truncated");
    }
}

/** Whatever one byte is changed to, the reader comes back with an answer. */
static inline void wire_flip(wire_reader read, const void *data, size_t size) {
    unsigned char *copy = malloc(size);
    assert_non_null(copy);
    memcpy(copy, data, size);
    for (size_t i = 0; i < size; i++) {
        static const unsigned char masks[] = {0x01, 0x04, 0x10, 0x20, 0x80, 0xff};
        for (size_t m = 0; m < sizeof masks; m++) {
            gp_error error = {.problem = GP_OK};
            copy[i] ^= masks[m];
            const int status = wire_read_copy(read, copy, size, &error);
            assert_true(status == 0 ? error.problem == GP_OK : error.problem != GP_OK && error.detail[0]);
            copy[i] ^= masks[m];
        }
    }
    free(copy);
}

/** A random number; the same ones in every run. */
static inline uint32_t wire_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

#endif
