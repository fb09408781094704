/* error.h -- how the engine says what went wrong. */
#ifndef GD_CORE_ERROR_H
#define GD_CORE_ERROR_H

#include "engine/gradd_engine.h"

/** Fill in an error unless it holds one already. @return code */
int gd_fail(gd_error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/** The same, naming the attribute or field in question. @return code */
int gd_fail_field(gd_error *error, int code, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/** Name the layer of a fresh failure. @return code, so that `return gd_at_layer(...)` reads well */
int gd_at_layer(gd_error *error, int layer, int code);

/** Where in the specification a fresh failure is: `where` ("/optimizer") goes before its path. @return code
 */
int gd_within(gd_error *error, const char *where, int code);

/** The nearest of `count` names, or NULL when none is near: for "did you mean". */
const char *gd_nearest(const char *given, const char *const *names, size_t count);

#endif
