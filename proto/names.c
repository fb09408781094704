/* names.c -- which names are allowed, and which name was meant by a misspelt one. */
#include "names.h"

#include <string.h>

#include "proto/gradd_proto.h"

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool gp_name_ok(const char *name) {
    if (!is_letter(*name) && !is_digit(*name))
        return false;
    size_t length = 1;
    for (; length <= 64 && name[length]; length++)
        if (!is_letter(name[length]) && !is_digit(name[length]) && !strchr("._-", name[length]))
            return false;
    return length <= 64;
}

bool gp_layer_name_ok(const char *name) {
    size_t length = 0;
    bool word = false; /* the last byte was part of a word */
    for (; length < GD_MAX_NAME && name[length]; length++) {
        const char c = name[length];
        if (!is_letter(c) && !is_digit(c) && c != '_' && !(c == '.' && word))
            return false;
        word = c != '.';
    }
    return word && length < GD_MAX_NAME;
}

bool gp_tensor_key(const char *key) {
    static const char *const keys[] = {"dtype", "shape", "data", "base64"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

bool gp_tensor_name_ok(const char *name) {
    return gp_layer_name_ok(name) && !gp_tensor_key(name) && strcmp(name, "__metadata__") != 0;
}

bool gp_identifier_ok(const char *name) {
    return gp_layer_name_ok(name) && !is_digit(*name) && !strchr(name, '.');
}

enum { LONGEST = 40 /* bytes of a name that is compared */ };

/* Insertions, deletions and replacements that turn one into the other (Levenshtein). */
static size_t distance(const char *a, const char *b) {
    const size_t columns = strlen(b);
    size_t row[LONGEST + 1];
    for (size_t j = 0; j <= columns; j++)
        row[j] = j;
    for (size_t i = 1; *a; a++, i++) {
        size_t diagonal = row[0]; /* of the row above */
        row[0] = i;
        for (size_t j = 1; j <= columns; j++) {
            const size_t replaced = diagonal + (*a != b[j - 1]);
            const size_t shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replaced < shorter ? replaced : shorter;
        }
    }
    return row[columns];
}

const char *gp_nearest(const char *given, const char *const *names, size_t count) {
    const size_t length = strnlen(given, LONGEST + 1);
    size_t least = length / 3 + 1; /* more edits than that make another word */
    const char *nearest = NULL;
    for (size_t i = 0; i < count && length <= LONGEST; i++) {
        if (strlen(names[i]) > LONGEST)
            continue;
        const size_t edits = distance(given, names[i]);
        if (edits <= least && (!nearest || edits < least)) {
            least = edits;
            nearest = names[i];
        }
    }
    return nearest;
}
