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

/* name, noun, verb, words that follow, function, help */
#define COMMANDS(X) \
    X(CREATE, "model", "create", "FILE.json|-", model_create, "create a model from its definition") \
    X(LS, "model", "ls", NULL, model_ls, "list the models") \
    X(SHOW, "model", "show", "NAME", model_show, "print a model as Python's print(net) does") \
    X(RM, "model", "rm", "NAME", model_rm, "delete a model") \
    X(SCHEDULE, "model", "scheduler-step", "NAME", model_scheduler_step, \
      "end an epoch: the model's scheduler goes on to the next") \
    X(EXPORT, "model", "export", "NAME FILE", model_export, "write its weights to a safetensors file") \
    X(IMPORT, "model", "import", "NAME FILE", model_import, "read its weights from a safetensors file") \
    X(PUT, "data", "put", "DIR|FILE... [NAME]", data_put, \
      "upload a folder of MNIST's four files, or single files") \
    X(DATA_LS, "data", "ls", NULL, data_ls, "list the datasets") \
    X(DATA_SHOW, "data", "show", "NAME", data_show, "the parts of a dataset") \
    X(DATA_RM, "data", "rm", "NAME", data_rm, "delete a dataset") \
    X(FETCH, "data", "fetch", "mnist|fashion-mnist [NAME]", data_fetch, \
      "download a public dataset, check it, and upload it") \
    X(START, "job", "start", NULL, job_start, "train a model on a dataset, in the daemon") \
    X(JOB_LS, "job", "ls", NULL, job_ls, "list the jobs, the newest first") \
    X(JOB_SHOW, "job", "show", "JOB", job_show, "where a job stands") \
    X(WATCH, "job", "watch", "JOB", job_watch, "follow a job to its end; Ctrl-C leaves it running") \
    X(CANCEL, "job", "cancel", "JOB", job_cancel, "end a job after its step") \
    X(PAUSE, "job", "pause", "JOB", job_pause, "let a job rest after its step") \
    X(RESUME, "job", "resume", "JOB", job_resume, "let a paused job go on") \
    X(GET, "metrics", "get", "MODEL", metrics_get, "metrics of a model's steps; -o csv: of every step") \
    X(PLOT, "metrics", "plot", "MODEL", metrics_plot, "draw a metric in the terminal") \
    X(TAKE, "checkpoint", "create", "MODEL [NAME]", checkpoint_create, "take a checkpoint") \
    X(CHECKPOINT_LS, "checkpoint", "ls", "MODEL", checkpoint_ls, \
      "list a model's checkpoints, the newest first") \
    X(DOWNLOAD, "checkpoint", "get", "MODEL NAME [FILE]", checkpoint_get, "download one as safetensors") \
    X(RESTORE, "checkpoint", "restore", "MODEL NAME", checkpoint_restore, "bring the model back to it") \
    X(CHECKPOINT_RM, "checkpoint", "rm", "MODEL NAME", checkpoint_rm, "delete one") \
    X(CLONE, "checkpoint", "clone", "MODEL NAME NEW", checkpoint_clone, "make a new model of one") \
    X(TRAIN, "train", NULL, NULL, train, \
      "create a model, train it from here, tell its accuracy on the test split") \
    X(HEALTH, "health", NULL, NULL, health, "is the daemon ready for work?") \
    X(VERSION, "version", NULL, NULL, version, "versions of gradctl and of the daemon") \
    X(COMPLETION, "completion", NULL, "bash|zsh|fish", completion, \
      "a script that makes your shell complete all this")

enum {
#define X(name, noun, verb, argument, run, doc) name##_NUMBER,
    COMMANDS(X) COMMAND_COUNT
#undef X
};
_Static_assert(COMMAND_COUNT <= 31, "each command has a bit of an int");

enum {
#define X(name, noun, verb, argument, run, doc) name = 1 << name##_NUMBER,
    COMMANDS(X)
#undef X
        ALL = (int)((1u << COMMAND_COUNT) - 1),
    PRINTS = ALL & ~(TRAIN | WATCH | PLOT | COMPLETION),
};

static const ctl_command commands[] = {
#define X(name, noun, verb, argument, run, doc) {noun, verb, argument, doc, name, ctl_##run},
    COMMANDS(X)
#undef X
};

_Static_assert(sizeof(((ctl_options *)NULL)->seen) == 8, "options have a bit there");

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
    uint64_t seen;                        /* bits of rows */
    const char *words[2 + CTL_MAX_WORDS]; /* noun, verb, what follows */
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
    p->seen |= UINT64_C(1) << (row - rows);
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

/* How many words an argument's text stands for: "MODEL [NAME]": 1 to 2, "FILE...": 1 and more. */
static void count_words(const char *argument, size_t *ret_least, size_t *ret_most) {
    *ret_least = *ret_most = 0;
    for (const char *at = argument ? argument : ""; *at; at += strcspn(at, " "), at += *at == ' ') {
        ++*ret_most;
        *ret_least += *at != '[';
        if (strstr(at, "...")) {
            *ret_most = CTL_MAX_WORDS;
            return;
        }
    }
}

static bool take_words(const parser *p, size_t used, ctl_options *options) {
    size_t least, most;
    const ctl_command *c = options->command;
    count_words(c->argument, &least, &most);
    options->word_count = p->word_count - used;
    if (options->word_count > most) {
        return usage("unexpected '%s'", p->words[used + most]);
    }
    memcpy(options->words, p->words + used, options->word_count * sizeof *p->words);
    options->argument = options->words[0];
    return options->word_count >= least || options->help || usage("%s is missing", c->argument);
}

static bool find_command(const parser *p, ctl_options *options) {
    char verbs[256] = "";
    for (size_t i = 0; i < COUNT(commands); i++) {
        const ctl_command *c = &commands[i];
        if (strcmp(p->words[0], c->noun) != 0) {
            continue;
        }
        if (!c->verb || (p->word_count > 1 && strcmp(p->words[1], c->verb) == 0)) {
            options->command = c;
            return take_words(p, c->verb ? 2 : 1, options);
        }
        const size_t length = strlen(verbs);
        snprintf(verbs + length, sizeof verbs - length, "%s%s", length ? ", " : "", c->verb);
    }
    if (!*verbs) {
        return usage("unknown command '%s'", p->words[0]);
    }
    return options->help || usage("'%s' needs a verb: %s", p->words[0], verbs);
}

bool ctl_options_seen(const ctl_options *options, const char *name) {
    const option_row *row = find_row(name, strlen(name), 0);
    return row && (options->seen >> (row - rows) & 1);
}

/* What must be there, or must not be together. */
static bool check_command(const ctl_options *o) {
    if (o->command->bit == TRAIN && (!o->model || !o->data)) {
        return usage("train needs --model FILE.json and --data DIR or --data digits");
    }
    if (o->command->bit == START && !o->json && (!o->model || !o->data)) {
        return usage("job start needs --model NAME and --data NAME, or --json FILE");
    }
    if (o->pad && o->resize[0]) {
        return usage("--pad and --resize exclude each other");
    }
    if (ctl_options_seen(o, "epochs") && ctl_options_seen(o, "steps")) {
        return usage("--epochs and --steps exclude each other");
    }
    return true;
}

/* What the options mean together. */
static bool check(const ctl_options *options) {
    const ctl_command *c = options->command;
    for (size_t i = 0; c && i < COUNT(rows); i++) {
        if ((options->seen >> i & 1) && !(rows[i].commands & c->bit)) {
            return usage("--%s does not go with '%s%s%s'", rows[i].name, c->noun, c->verb ? " " : "",
                         c->verb ? c->verb : "");
        }
    }
    return !c || options->help || check_command(options);
}

bool ctl_options_parse(int argc, char **argv, ctl_options *ret_options) {
    ctl_options options = {.lr = NAN,
                           .metric = NAN,
                           .epochs = 1,
                           .batch_size = 64,
                           .scale = 1.0 / 255,
                           .std = 1,
                           .eval = "test"};
    parser p = {.argc = argc, .argv = argv, .next = 1};
    if (!parse_words(&p, &options)) {
        return false;
    }
    options.seen = p.seen;
    if (p.word_count ? !find_command(&p, &options) : !options.help && !options.version) {
        return p.word_count ? false : usage("a command is missing");
    }
    if (!check(&options)) {
        return false;
    }
    *ret_options = options;
    return true;
}

/* ---- completion ----------------------------------------------------------------------------------- */

/* Nouns, and each noun's verbs, once. */
static void print_words(FILE *out, const char *noun) {
    const char *last = "";
    for (size_t i = 0; i < COUNT(commands); i++) {
        const ctl_command *c = &commands[i];
        if (!noun && strcmp(last, c->noun) != 0) {
            fprintf(out, "%s%s", *last ? " " : "", c->noun);
        } else if (noun && strcmp(noun, c->noun) == 0 && c->verb) {
            fprintf(out, "%s%s", *last ? " " : "", c->verb);
        }
        last = !noun || strcmp(noun, c->noun) == 0 ? c->noun : last;
    }
}

static void print_bash(FILE *out) {
    fputs("_gradctl() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} words=\n"
          "    case $COMP_CWORD,${COMP_WORDS[1]},$word in\n"
          "        *,*,-*) words='",
          out);
    for (size_t i = 0; i < COUNT(rows); i++) {
        fprintf(out, "%s--%s", i ? " " : "", rows[i].name);
    }
    fputs("' ;;\n        1,*) words='", out);
    print_words(out, NULL);
    fputs("' ;;\n", out);
    for (size_t i = 0; i < COUNT(commands); i++) {
        if (commands[i].verb && (i == 0 || strcmp(commands[i - 1].noun, commands[i].noun) != 0)) {
            fprintf(out, "        2,%s,*) words='", commands[i].noun);
            print_words(out, commands[i].noun);
            fputs("' ;;\n", out);
        }
    }
    fputs("    esac\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
          "    [ -n \"$words\" ] || COMPREPLY=($(compgen -f -- \"$word\"))\n"
          "}\n"
          "complete -o filenames -F _gradctl gradctl\n",
          out);
}

/* A quote within quotes. */
static void print_quoted(FILE *out, const char *text) {
    for (; *text; text++) {
        fputs(*text == '\'' ? "\\'" : (const char[]){*text, '\0'}, out);
    }
}

static void print_fish(FILE *out) {
    for (size_t i = 0; i < COUNT(commands); i++) {
        const ctl_command *c = &commands[i];
        const bool first = i == 0 || strcmp(commands[i - 1].noun, c->noun) != 0;
        if (first) {
            fprintf(out, "complete -c gradctl -n __fish_use_subcommand -a %s", c->noun);
            fputs(c->verb ? "\n" : " -d '", out);
            print_quoted(out, c->verb ? "" : c->doc);
            fputs(c->verb ? "" : "'\n", out);
        }
        if (c->verb) {
            fprintf(out, "complete -c gradctl -n '__fish_seen_subcommand_from %s' -a %s -d '", c->noun,
                    c->verb);
            print_quoted(out, c->doc);
            fputs("'\n", out);
        }
    }
    for (size_t i = 0; i < COUNT(rows); i++) {
        fprintf(out, "complete -c gradctl -l %s%s -d '", rows[i].name, rows[i].argument ? " -r" : "");
        print_quoted(out, rows[i].doc);
        fputs("'\n", out);
    }
}

bool ctl_options_completion(FILE *out, const char *shell) {
    if (strcmp(shell, "zsh") == 0) {
        fputs("autoload -Uz compinit bashcompinit && compinit && bashcompinit\n", out);
    }
    if (strcmp(shell, "bash") == 0 || strcmp(shell, "zsh") == 0) {
        print_bash(out);
        return true;
    }
    if (strcmp(shell, "fish") == 0) {
        print_fish(out);
        return true;
    }
    return false;
}

/* ---- help ----------------------------------------------------------------------------------------- */

static void help_command(FILE *out, const ctl_command *c) {
    char line[64];
    snprintf(line, sizeof line, "%s %s%s%s", c->noun, c->verb ? c->verb : "", c->verb ? " " : "",
             c->argument ? c->argument : "");
    fprintf(out, "  gradctl %-32s %s\n", line, c->doc);
}

static void help_options(FILE *out, unsigned bits, bool common) {
    for (size_t i = 0; i < COUNT(rows); i++) {
        const option_row *row = &rows[i];
        if ((row->commands == (unsigned)ALL) != common || !(row->commands & bits)) {
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
    help_options(out, command ? command->bit : (unsigned)ALL, false);
    fputs("\nOptions of every command:\n", out);
    help_options(out, (unsigned)ALL, true);
    fputs("\nExit status:\n", out);
#define X(name, status, text) fprintf(out, "  %3d  %s\n", status, text);
    CTL_EXITS(X)
#undef X
    fputs("\nNO_COLOR and TERM=dumb are honoured.\n", out);
}
