/* gradctl.h -- for tests that run gradctl: what it prints where, and its exit status. */
#ifndef GRADD_TESTS_GRADCTL_H
#define GRADD_TESTS_GRADCTL_H

#include "tests/daemon.h"

/** Run gradctl with these arguments, against a server (NULL: one that isn't there). NO_COLOR is set; the
 * cache folder is that of `environment`. @param environment "NAME=value", or NULL */
test_output test_ctl(const char *server, const char *environment, const char *const *arguments);

#define CTL(server, ...) test_ctl(server, NULL, (const char *const[]){__VA_ARGS__, NULL})

/** It ended with this status and printed exactly `out` and, somewhere, `err` (either may be NULL). */
void assert_says(test_output output, int status, const char *out, const char *err);

#endif
