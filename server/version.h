/* version.h -- what this binary is. */
#ifndef GRADD_SERVER_VERSION_H
#define GRADD_SERVER_VERSION_H

typedef struct gs_version {
    const char *version; /* "0.1.0" */
    const char *commit;  /* git's, abbreviated */
    const char *build;   /* release, debug, asan, tsan */
    const char *flags;   /* the compiler's for this build */
    const char *compiler;
} gs_version;

extern const gs_version gs_this_version;

#endif
