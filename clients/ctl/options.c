/* options.c -- parse the command line and print help, both from tables. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- tables --------------------------------------------------------------------------------------- */

enum {
    CREATE = 1 << 0,
    LS = 1 << 1,
    SHOW = 1 << 2,
    RM = 1 << 3,
    TRAIN = 1 << 4,
    HEALTH = 1 << 5,
    VERSION = 1 << 6,
    SCHEDULE = 1 << 7,
    ALL = (1 << 8) - 1,
    PRINTS = ALL & ~TRAIN,
};

static const ctl_command commands[] = {
    {"model", "create", "FILE.json|-", "create a model from its definition", CREATE, ctl_model_create},
    {"model", "ls", NULL, "list the models", LS, ctl_model_ls},
    {"model", "show", "NAME", "print a model as Python's print(net) does", SHOW, ctl_model_show},
    {"model", "rm", "NAME", "delete a model", RM, ctl_model_rm},
    {"model", "scheduler-step", "NAME", "end an epoch: the model's scheduler goes on to the next", SCHEDULE,
     ctl_model_scheduler_step},
    {"train", NULL, NULL, "create a model, train it, and tell its accuracy on the test split", TRAIN,
     ctl_train},
    {"health", NULL, NULL, "is the daemon ready for work?", HEALTH, ctl_health},
    {"version", NULL, NULL, "versions of gradctl and of the daemon", VERSION, ctl_version},
};

typedef enum option_type { FLAG, STRING, INTEGER, NUMBER, SIZE, OUTPUT, PROGRESS } option_type;

typedef struct option_row {
    const char *name;
    char letter;
    const char *argument;
    option_type type;
    size_t offset;
    double min, max;
    unsigned commands;
    const char *doc;
} option_row;

static const option_row rows[] = {
#define O(name, letter, argument, type, field, min, max, commands, doc) \
    {name, letter, argument, type, offsetof(ctl_options, field), min, max, commands, doc},
#include "options.def"
#undef O
};

static const char *const outputs[] = {
    [CTL_TABLE] = "table", [CTL_JSON] = "json", [CTL_CSV] = "csv", [CTL_NAME] = "name"};
static const char *const progress_choices[] = {
    [CTL_AUTO] = "auto", [CTL_ALWAYS] = "always", [CTL_NEVER] = "never"};

/* ---- values --------------------------------------------------------------------------------------- */

static bool usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool usage(const char *format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    ctl_error("%s (gradctl --help lists commands and options)", message);
    return false;
}

static bool read_integer(const char *text, char **end, int64_t *out) {
    errno = 0;
    long long value = strtoll(text, end, 10);
    *out = value;
    return *end != text && errno == 0;
}

static bool value_integer(const option_row *row, const char *text, int64_t *out) {
    char *end;
    int64_t value;
    if (!read_integer(text, &end, &value) || *end || (double)value < row->min || (double)value > row->max) {
        return usage("--%s takes a whole number from %.0f to %.0f, not '%s'", row->name, row->min, row->max,
                     text);
    }
    *out = value;
    return true;
}

/* "0.1307" or "1/255". */
static bool value_number(const option_row *row, const char *text, double *out) {
    char *end;
    double value = strtod(text, &end);
    bool ok = end != text;
    if (ok && *end == '/') {
        const char *divisor = end + 1;
        value /= strtod(divisor, &end);
        ok = end != divisor;
    }
    if (!ok || *end || !isfinite(value) || value < row->min || value > row->max) {
        return usage("--%s takes a number from %g to %g (or a fraction such as 1/255), not '%s'", row->name,
                     row->min, row->max, text);
    }
    *out = value;
    return true;
}

/* "32x32": height, width. */
static bool value_size(const option_row *row, const char *text, int64_t out[2]) {
    char *end;
    int64_t size[2];
    bool ok =
        read_integer(text, &end, &size[0]) && *end == 'x' && read_integer(end + 1, &end, &size[1]) && !*end;
    for (int i = 0; ok && i < 2; i++) {
        ok = (double)size[i] >= row->min && (double)size[i] <= row->max;
    }
    if (!ok) {
        return usage("--%s takes height and width from %.0f to %.0f, as in 32x32, not '%s'", row->name,
                     row->min, row->max, text);
    }
    memcpy(out, size, sizeof size);
    return true;
}

static bool value_choice(const option_row *row, const char *text, const char *const *choices, size_t count,
                         int *out) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, choices[i]) == 0) {
            *out = (int)i;
            return true;
        }
    }
    return usage("--%s takes %s, not '%s'", row->name, row->argument, text);
}

static bool store(const option_row *row, const char *text, ctl_options *options) {
    void *field = (char *)options + row->offset;
    int choice = 0;
    switch (row->type) {
    case FLAG:
        *(bool *)field = true;
        return true;
    case STRING:
        *(const char **)field = text;
        return *text || usage("--%s needs a value", row->name);
    case INTEGER:
        return value_integer(row, text, field);
    case NUMBER:
        return value_number(row, text, field);
    case SIZE:
        return value_size(row, text, field);
    case OUTPUT:
        if (!value_choice(row, text, outputs, COUNT(outputs), &choice)) {
            return false;
        }
        *(ctl_output *)field = (ctl_output)choice;
        return true;
    case PROGRESS:
        if (!value_choice(row, text, progress_choices, COUNT(progress_choices), &choice)) {
            return false;
        }
        *(ctl_progress_choice *)field = (ctl_progress_choice)choice;
        return true;
    }
    return false;
}

/* ---- parsing -------------------------------------------------------------------------------------- */

typedef struct parser {
    int argc, next;
    char **argv;
    bool seen[COUNT(rows)];
    const char *words[3]; /* noun, verb, argument */
    size_t word_count;
} parser;

static const option_row *find_row(const char *name, size_t length, char letter) {
    for (size_t i = 0; i < COUNT(rows); i++) {
        bool long_match = name && strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0;
        if (long_match || (letter && rows[i].letter == letter)) {
            return &rows[i];
        }
    }
    return NULL;
}

/* "--name", "--name=value", "--name value", "-o value", "-ovalue". */
static bool parse_option(parser *p, ctl_options *options) {
    const char *text = p->argv[p->next++];
    bool is_long = text[1] == '-';
    size_t length = is_long ? strcspn(text + 2, "=") : 1;
    const option_row *row = is_long ? find_row(text + 2, length, 0) : find_row(NULL, 0, text[1]);
    const char *rest = is_long ? text + 2 + length : text + 2;
    if (!row) {
        return usage("unknown option %s", text);
    }
    p->seen[row - rows] = true;
    if (!row->argument) {
        return *rest ? usage("--%s takes no value", row->name) : store(row, "", options);
    }
    if (*rest) {
        return store(row, rest + is_long, options);
    }
    if (p->next == p->argc) {
        return usage("--%s needs a value: %s", row->name, row->argument);
    }
    return store(row, p->argv[p->next++], options);
}

static bool parse_words(parser *p, ctl_options *options) {
    bool only_words = false;
    while (p->next < p->argc) {
        const char *text = p->argv[p->next];
        if (!only_words && strcmp(text, "--") == 0) {
            only_words = true;
            p->next++;
        } else if (!only_words && text[0] == '-' && text[1]) {
            if (!parse_option(p, options)) {
                return false;
            }
        } else if (p->word_count == COUNT(p->words)) {
            return usage("too many words: '%s'", text);
        } else {
            p->words[p->word_count++] = text;
            p->next++;
        }
    }
    return true;
}

static bool find_command(const parser *p, ctl_options *options) {
    bool noun_known = false;
    for (size_t i = 0; i < COUNT(commands); i++) {
        const ctl_command *c = &commands[i];
        if (strcmp(p->words[0], c->noun) != 0) {
            continue;
        }
        noun_known = true;
        size_t used = c->verb ? 2 : 1;
        if (c->verb && (p->word_count < 2 || strcmp(p->words[1], c->verb) != 0)) {
            continue;
        }
        options->command = c;
        if (p->word_count > used + (c->argument != NULL)) {
            return usage("unexpected '%s'", p->words[used + (c->argument != NULL)]);
        }
        options->argument = p->word_count > used ? p->words[used] : NULL;
        return options->argument || !c->argument || options->help || usage("%s is missing", c->argument);
    }
    if (!noun_known) {
        return usage("unknown command '%s'", p->words[0]);
    }
    return options->help || usage("'%s' needs a verb: create, ls, show or rm", p->words[0]);
}

/* What the options mean together. */
static bool check(const parser *p, const ctl_options *options) {
    const ctl_command *c = options->command;
    for (size_t i = 0; c && i < COUNT(rows); i++) {
        if (p->seen[i] && !(rows[i].commands & c->bit)) {
            return usage("--%s does not go with '%s%s%s'", rows[i].name, c->noun, c->verb ? " " : "",
                         c->verb ? c->verb : "");
        }
    }
    if (c && c->bit == TRAIN && !options->help) {
        if (!options->model || !options->data) {
            return usage("train needs --model FILE.json and --data DIR or --data digits");
        }
        if (options->pad && options->resize[0]) {
            return usage("--pad and --resize exclude each other");
        }
    }
    return true;
}

bool ctl_options_parse(int argc, char **argv, ctl_options *ret_options) {
    ctl_options options = {
        .lr = NAN, .metric = NAN, .epochs = 1, .batch_size = 64, .scale = 1.0 / 255, .std = 1};
    parser p = {.argc = argc, .argv = argv, .next = 1};
    if (!parse_words(&p, &options)) {
        return false;
    }
    if (p.word_count ? !find_command(&p, &options) : !options.help && !options.version) {
        return p.word_count ? false : usage("a command is missing");
    }
    if (!check(&p, &options)) {
        return false;
    }
    *ret_options = options;
    return true;
}

/* ---- help ----------------------------------------------------------------------------------------- */

static void help_command(FILE *out, const ctl_command *c) {
    char line[64];
    snprintf(line, sizeof line, "%s %s%s%s", c->noun, c->verb ? c->verb : "", c->verb ? " " : "",
             c->argument ? c->argument : "");
    fprintf(out, "  gradctl %-26s %s\n", line, c->doc);
}

static void help_options(FILE *out, unsigned bits, bool common) {
    for (size_t i = 0; i < COUNT(rows); i++) {
        const option_row *row = &rows[i];
        if ((row->commands == ALL) != common || !(row->commands & bits)) {
            continue;
        }
        char line[64];
        snprintf(line, sizeof line, "--%s%s%s", row->name, row->argument ? " " : "",
                 row->argument ? row->argument : "");
        char letter[8] = "";
        if (row->letter) {
            snprintf(letter, sizeof letter, "-%c, ", row->letter);
        }
        fprintf(out, "  %4s%-28s %s\n", letter, line, row->doc);
    }
}

void ctl_options_help(FILE *out, const ctl_command *command) {
    fputs("gradctl: train networks on a gradd daemon.\n\nCommands:\n", out);
    for (size_t i = 0; i < COUNT(commands); i++) {
        if (!command || command == &commands[i]) {
            help_command(out, &commands[i]);
        }
    }
    fputs("\nOptions:\n", out);
    help_options(out, command ? command->bit : ALL, false);
    fputs("\nOptions of every command:\n", out);
    help_options(out, ALL, true);
    fputs("\nExit status:\n", out);
#define X(name, status, text) fprintf(out, "  %3d  %s\n", status, text);
    CTL_EXITS(X)
#undef X
    fputs("\nNO_COLOR and TERM=dumb are honoured.\n", out);
}
