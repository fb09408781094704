/* auth.c */
#include "auth.h"

#include <errno.h>
#include <nettle/memops.h>
#include <nettle/sha2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_TOKENS = 4096, MAX_LINE = 1024 };

typedef struct token {
    uint8_t hash[SHA256_DIGEST_SIZE];
    gs_scope scope;
} token;

struct gs_auth {
    size_t count;
    token tokens[];
};

static const char *const scope_names[] = {"none", "read", "train", "admin"};

const char *gs_scope_name(gs_scope scope) {
    return scope_names[scope];
}

static void hash_of(const char *text, size_t size, uint8_t *hash) {
    struct sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, size, (const uint8_t *)text);
    sha256_digest(&context, SHA256_DIGEST_SIZE, hash);
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool parse_hex(const char *text, uint8_t *hash) {
    if (strlen(text) != 2 * SHA256_DIGEST_SIZE) {
        return false;
    }
    for (size_t i = 0; i < SHA256_DIGEST_SIZE; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        hash[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* One line into *ret_token. @return 1: a token, 0: nothing on this line, -1: *ret_reason says why not */
static int parse_line(char *line, token *ret_token, const char **ret_reason) {
    char *rest = line;
    const char *word = strsep(&rest, " \t\r\n");
    while (word && !*word) {
        word = strsep(&rest, " \t\r\n");
    }
    if (!word || *word == '#') {
        return 0;
    }
    const char *scope = rest ? strsep(&rest, " \t\r\n") : NULL;
    while (scope && !*scope) {
        scope = strsep(&rest, " \t\r\n");
    }
    ret_token->scope = GS_SCOPE_ADMIN;
    if (scope && *scope != '#') {
        ret_token->scope = GS_SCOPE_NONE;
        for (gs_scope s = GS_SCOPE_READ; s <= GS_SCOPE_ADMIN; s++) {
            if (!strcmp(scope, scope_names[s])) {
                ret_token->scope = s;
            }
        }
        if (ret_token->scope == GS_SCOPE_NONE) {
            *ret_reason = "the scope is none of read, train, admin";
            return -1;
        }
    }
    if (!strncmp(word, "sha256:", 7)) {
        if (!parse_hex(word + 7, ret_token->hash)) {
            *ret_reason = "sha256: needs 64 hex digits after it";
            return -1;
        }
        return 1;
    }
    if (strlen(word) < 8) {
        *ret_reason = "the token is shorter than 8 characters";
        return -1;
    }
    hash_of(word, strlen(word), ret_token->hash);
    return 1;
}

gs_auth *gs_auth_load(const char *path, char *message, size_t size) {
    gs_auth *auth = NULL, *result = NULL;
    char line[MAX_LINE];
    const char *reason = NULL;
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(message, size, "cannot read it: %s", strerror(errno));
        goto out;
    }
    auth = calloc(1, sizeof *auth + MAX_TOKENS * sizeof *auth->tokens);
    if (!auth) {
        snprintf(message, size, "out of memory");
        goto out;
    }
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        token next = {0};
        int found = -1;
        if (strlen(line) == sizeof line - 1) {
            reason = "it is longer than 1022 bytes";
        } else if (auth->count == MAX_TOKENS) {
            reason = "there are more than 4096 tokens";
        } else {
            found = parse_line(line, &next, &reason);
        }
        if (found < 0) {
            snprintf(message, size, "line %d: %s", number, reason);
            goto out;
        }
        if (found) {
            auth->tokens[auth->count++] = next;
        }
    }
    if (ferror(file)) {
        snprintf(message, size, "cannot read it: %s", strerror(errno));
    } else if (!auth->count) {
        snprintf(message, size, "there is no token in it");
    } else {
        result = auth;
        auth = NULL;
    }
out:
    explicit_bzero(line, sizeof line);
    if (file) {
        fclose(file);
    }
    free(auth);
    return result;
}

void gs_auth_free(gs_auth *auth) {
    free(auth);
}

gs_scope gs_auth_scope(const gs_auth *auth, const char *authorization) {
    if (!auth) {
        return GS_SCOPE_ADMIN;
    }
    if (!authorization || strncasecmp(authorization, "Bearer ", 7)) {
        return GS_SCOPE_NONE;
    }
    const char *text = authorization + 7;
    text += strspn(text, " ");
    uint8_t hash[SHA256_DIGEST_SIZE];
    hash_of(text, strlen(text), hash);
    gs_scope scope = GS_SCOPE_NONE;
    for (size_t i = 0; i < auth->count; i++) { /* all of them: the time says nothing of which one */
        if (memeql_sec(hash, auth->tokens[i].hash, sizeof hash) && auth->tokens[i].scope > scope) {
            scope = auth->tokens[i].scope;
        }
    }
    return scope;
}
