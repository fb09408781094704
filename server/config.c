/* config.c -- reads flags and environment variables by the table in config.def. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef enum row_type { STRING, INTEGER, SIZE, SECONDS, FLAG, CHOICE } row_type;

typedef struct row {
    const char *flag;
    row_type type;
    size_t offset; /* of the member in gs_config */
    const char *initial;
    double min, max;
    const char *value; /* what stands for the value in --help; of a choice: the choices */
    const char *help;
} row;

static const row rows[] = {
#define C(member, flag, type, initial, min, max, value, help) \
    {flag, type, offsetof(gs_config, member), initial, min, max, value, help},
#include "config.def"
#undef C
};

enum { ROWS = sizeof rows / sizeof *rows };

/* "512", "64K", "1G": bytes. */
static bool parse_size(const char *text, int64_t *ret_size) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || value < 0) {
        return false;
    }
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    for (const char *u = units; unit && u <= unit; u++) {
        if (__builtin_mul_overflow(value, 1024LL, &value)) {
            return false;
        }
    }
    *ret_size = value;
    return !*end || (unit && (!end[1] || !strcasecmp(end + 1, "iB") || !strcasecmp(end + 1, "B")));
}

/* The index of text among "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text) {
    size_t length = strlen(text);
    int index = 0;
    for (const char *c = choices; c; c = strchr(c, '|'), index++) {
        c += *c == '|';
        if (!strncmp(c, text, length) && (!c[length] || c[length] == '|') && length) {
            return index;
        }
    }
    return -1;
}

static bool parse_flag(const char *text, bool *ret_value) {
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!strcasecmp(text, words[i])) {
            *ret_value = i % 2;
            return true;
        }
    }
    return false;
}

/* Set one member from text. `source` is how the user spelt it: "--threads" or "GRADD_THREADS". */
static bool set(gs_config *config, const row *r, const char *source, const char *text, char *message,
                size_t size) {
    void *member = (char *)config + r->offset;
    bool ok = true;
    double number = 0;
    switch (r->type) {
    case STRING:
        *(const char **)member = text;
        return true;
    case FLAG:
        ok = parse_flag(text, member);
        break;
    case CHOICE:
        *(int *)member = choice_index(r->value, text);
        ok = *(int *)member >= 0;
        break;
    case INTEGER:
    case SIZE:
        if (r->type == SIZE) {
            ok = parse_size(text, member);
        } else {
            char *end;
            errno = 0;
            *(int64_t *)member = strtoll(text, &end, 10);
            ok = !errno && end != text && !*end;
        }
        number = ok ? (double)*(int64_t *)member : NAN;
        break;
    case SECONDS: {
        char *end;
        number = strtod(text, &end);
        ok = end != text && !*end;
        *(double *)member = number;
        break;
    }
    }
    bool ranged = r->type == INTEGER || r->type == SIZE || r->type == SECONDS;
    if (ok && ranged && !(number >= r->min && number <= r->max)) {
        ok = false;
    }
    if (ok) {
        return true;
    }
    if (ranged) {
        snprintf(message, size, "%s: \"%s\" is not %s from %.15g to %.15g (for instance %s)", source, text,
                 r->type == SIZE      ? "a size (bytes, or with K, M, G, T)"
                 : r->type == SECONDS ? "a number of seconds"
                                      : "a whole number",
                 r->min, r->max, r->initial);
    } else {
        snprintf(message, size, "%s: \"%s\" is not one of %s", source, text,
                 r->type == FLAG ? "true|false" : r->value);
    }
    return false;
}

/* Levenshtein's distance, for words of up to 31 letters. */
static size_t distance(const char *a, const char *b) {
    size_t line[32], columns = strlen(b);
    if (columns > 31) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= columns; j++) {
        line[j] = j;
    }
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = line[0];
        line[0] = i + 1;
        for (size_t j = 0; j < columns; j++) {
            size_t best = diagonal + (a[i] != b[j]);
            diagonal = line[j + 1];
            best = best < line[j] + 1 ? best : line[j] + 1;
            line[j + 1] = best < diagonal + 1 ? best : diagonal + 1;
        }
    }
    return line[columns];
}

static const row *find(const char *name, size_t length) {
    for (size_t i = 0; i < ROWS; i++) {
        if (strlen(rows[i].flag) == length && !strncmp(rows[i].flag, name, length)) {
            return &rows[i];
        }
    }
    return NULL;
}

static void say_unknown(const char *argument, char *message, size_t size) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(argument, "="), argument);
    const char *word = name + strspn(name, "-");
    size_t best = 4; /* farther than this is no likely misspelling */
    const row *near = NULL;
    for (size_t i = 0; i < ROWS; i++) {
        size_t d = distance(word, rows[i].flag);
        if (d < best) {
            best = d;
            near = &rows[i];
        }
    }
    if (near) {
        snprintf(message, size, "%s is not a flag; did you mean --%s?", name, near->flag);
    } else {
        snprintf(message, size, "%s is not a flag; gradd --help lists them", name);
    }
}

static void environment_name(const row *r, char *name, size_t size) {
    snprintf(name, size, "GRADD_%s", r->flag);
    for (char *c = name; *c; c++) {
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    }
}

gs_config_outcome gs_config_read(int argc, char **argv, gs_config *ret_config, char *message, size_t size) {
    gs_config config = {0};
    for (size_t i = 0; i < ROWS; i++) {
        char name[64];
        environment_name(&rows[i], name, sizeof name);
        const char *text = getenv(name);
        if (!set(&config, &rows[i], name, text && *text ? text : rows[i].initial, message, size)) {
            return GS_CONFIG_BAD;
        }
    }
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            return GS_CONFIG_HELP;
        }
        if (!strcmp(argv[i], "--version")) {
            return GS_CONFIG_VERSION;
        }
        size_t length = strcspn(argv[i], "=");
        const row *r = !strncmp(argv[i], "--", 2) ? find(argv[i] + 2, length - 2) : NULL;
        if (!r) {
            say_unknown(argv[i], message, size);
            return GS_CONFIG_BAD;
        }
        char source[64];
        snprintf(source, sizeof source, "--%s", r->flag);
        const char *text = argv[i][length] ? argv[i] + length + 1 : NULL;
        if (!text && r->type == FLAG) {
            text = "true";
        } else if (!text && i + 1 < argc) {
            text = argv[++i];
        }
        if (!text) {
            snprintf(message, size, "%s needs a value: %s %s", source, source, r->value);
            return GS_CONFIG_BAD;
        }
        if (!set(&config, r, source, text, message, size)) {
            return GS_CONFIG_BAD;
        }
    }
    *ret_config = config;
    return GS_CONFIG_RUN;
}

void gs_config_help(FILE *stream) {
    fputs("usage: gradd [flags]\n\nA training daemon: define neural networks, send batches and train over "
          "HTTP.\n\n",
          stream);
    for (size_t i = 0; i < ROWS; i++) {
        char name[64], left[96];
        environment_name(&rows[i], name, sizeof name);
        snprintf(left, sizeof left, "--%s%s%s", rows[i].flag, *rows[i].value ? " " : "", rows[i].value);
        fprintf(stream, "  %-38s %s", left, rows[i].help);
        if (*rows[i].initial && rows[i].type != FLAG) {
            fprintf(stream, " (default %s)", rows[i].initial);
        }
        fprintf(stream, " [%s]\n", name);
    }
    fputs("  --help, --version\n\n"
          "Sizes take K, M, G or T. Each flag is also the environment variable in brackets; a flag wins.\n"
          "Exit codes: 0 stopped in good order, 1 could not start, 2 wrong usage, 3 stopped by force\n"
          "(a second signal, or requests still running after --drain-timeout).\n",
          stream);
}

bool gs_config_split_address(const char *address, char *host, size_t size, int *ret_port) {
    const char *colon = strrchr(address, ':');
    if (!colon || !isdigit((unsigned char)colon[1])) {
        return false;
    }
    const char *begin = address, *end = colon;
    if (*begin == '[') {
        begin++;
        if (end == begin || *--end != ']') {
            return false;
        }
    } else if (memchr(begin, ':', (size_t)(end - begin))) {
        return false; /* an IPv6 address needs its brackets */
    }
    char *rest;
    errno = 0;
    long port = strtol(colon + 1, &rest, 10);
    if (errno || *rest || port > 65535 || end == begin || (size_t)(end - begin) >= size) {
        return false;
    }
    snprintf(host, size, "%.*s", (int)(end - begin), begin);
    *ret_port = (int)port;
    return true;
}

bool gs_config_listed(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; *at; at += *at == ',') {
        at += strspn(at, " ");
        size_t span = strcspn(at, ",");
        size_t trimmed = span;
        while (trimmed && at[trimmed - 1] == ' ') {
            trimmed--;
        }
        if (trimmed == length && length && !strncasecmp(at, word, length)) {
            return true;
        }
        at += span;
    }
    return false;
}
