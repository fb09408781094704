/* auth.h -- bearer tokens from a file, kept as their SHA-256 and compared in constant time.
 *
 * The file has one token a line, "#" begins a comment:
 *     s3cret-token              may do everything (admin)
 *     other-token train         a scope after the token
 *     sha256:9f86d0…0a08 read   the hash in place of the token (64 hex digits) */
#ifndef GRADD_SERVER_AUTH_H
#define GRADD_SERVER_AUTH_H

#include <stddef.h>

/* Each scope includes those before it. */
typedef enum gs_scope {
    GS_SCOPE_NONE,  /* no token at all */
    GS_SCOPE_READ,  /* look at things, predict, evaluate */
    GS_SCOPE_TRAIN, /* create, change and train models */
    GS_SCOPE_ADMIN  /* delete as well */
} gs_scope;

typedef struct gs_auth gs_auth;

/** @param message why it failed: names the file's line, never the token
 *  @return NULL on failure */
gs_auth *gs_auth_load(const char *path, char *message, size_t size);
void gs_auth_free(gs_auth *auth);
/** The scope of an Authorization header's value ("Bearer TOKEN"; NULL when it was not sent).
 *  With auth NULL everyone is admin. */
gs_scope gs_auth_scope(const gs_auth *auth, const char *authorization);
/** "read", "train", "admin" */
const char *gs_scope_name(gs_scope scope);

#endif
