/* version.c -- compiled anew when the commit changes; the strings come from the Makefile. */
#include "version.h"

const gs_version gs_this_version = {
    .version = GRADD_VERSION,
    .commit = GRADD_COMMIT,
    .build = GRADD_BUILD,
    .flags = GRADD_FLAGS,
    .compiler = __VERSION__,
};
