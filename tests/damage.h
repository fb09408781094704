/* damage.h -- what can happen to a safetensors file that was whole, for tests of who reads it then. Whatever
 * goes wrong in here fails the test that called it. */
#ifndef GRADD_TESTS_DAMAGE_H
#define GRADD_TESTS_DAMAGE_H

#include <stddef.h>

typedef struct test_damage {
    const char *name; /* what it leaves */
    void (*apply)(const char *path);
} test_damage;

/** Every kind there is. */
extern const test_damage test_damages[];
extern const size_t test_damage_count;

/** Each file of a folder, with one kind after another. @return how many */
int test_damage_all(const char *folder);

#endif
