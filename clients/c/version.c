/* version.c -- the one file that knows the version: the Makefile defines GRADD_VERSION for it. */
#include "gradd.h"

const char *gradd_version(void) {
    return GRADD_VERSION;
}
