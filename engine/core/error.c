/* error.c -- codes, messages, and a spelling guess. */
#include "engine/core/error.h"

#include <stdarg.h>

static const struct {
    const char *code, *title;
} texts[] = {
#define X(name, code, text) [name - GD_E_FIRST] = {code, text},
    GD_ERRORS(X)
#undef X
};

static bool known(int code) {
    return code > GD_E_FIRST && code < GD_E_END;
}

const char *gd_error_code(int code) {
    return known(code) ? texts[code - GD_E_FIRST].code : "internal";
}

const char *gd_error_title(int code) {
    return known(code) ? texts[code - GD_E_FIRST].title : "Internal error";
}

static void fill(gd_error *error, int code, const char *field, const char *format, va_list arguments) {
    if (!error || error->code)
        return;
    error->code = code;
    error->layer = -1;
    snprintf(error->field, sizeof error->field, "%s", field);
    vsnprintf(error->message, sizeof error->message, format, arguments);
}

int gd_fail(gd_error *error, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fill(error, code, "", format, arguments);
    va_end(arguments);
    return code;
}

int gd_fail_field(gd_error *error, int code, const char *field, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fill(error, code, field, format, arguments);
    va_end(arguments);
    return code;
}

int gd_at_layer(gd_error *error, int layer, int code) {
    if (error && error->layer < 0)
        error->layer = layer;
    return code;
}

int gd_within(gd_error *error, const char *where, int code) {
    if (error && code) {
        char inner[sizeof error->path];
        memcpy(inner, error->path, sizeof inner);
        snprintf(error->path, sizeof error->path, "%s%s", where, inner);
    }
    return code;
}

/* Cost of turning a into b, both short: 2 for an edit, 1 for another case. Wagner and Fischer's table, one
 * row at a time. */
static size_t distance(const char *a, const char *b) {
    enum { LONGEST = 48 };
    size_t row[LONGEST + 1], n = strlen(b);
    if (n > LONGEST || strlen(a) > LONGEST)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = 2 * j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = 2 * (i + 1);
        for (size_t j = 0; j < n; j++) {
            size_t replace = diagonal + (a[i] == b[j] ? 0 : (a[i] | 32) == (b[j] | 32) ? 1 : 2);
            size_t edit = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 2;
            diagonal = row[j + 1];
            row[j + 1] = replace < edit ? replace : edit;
        }
    }
    return row[n];
}

const char *gd_nearest(const char *given, const char *const *names, size_t count) {
    const char *best = NULL;
    const size_t length = strlen(given);
    size_t least = 2 * (length / 3 + 1) + 1; /* at this cost it is another word */
    for (size_t i = 0; i < count; i++) {
        size_t cost = names[i] ? distance(given, names[i]) : SIZE_MAX;
        if (names[i] && length > 2 && strncmp(names[i], given, length) == 0)
            cost = 1; /* only begun */
        if (cost < least) {
            least = cost;
            best = names[i];
        }
    }
    return best;
}
