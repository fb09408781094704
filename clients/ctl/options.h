/* options.h -- the command line: commands and options are tables, from which parsing and help are made. */
#ifndef GRADD_CTL_OPTIONS_H
#define GRADD_CTL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct gradd_client;
struct ctl_options;

typedef enum ctl_output { CTL_TABLE, CTL_JSON, CTL_CSV, CTL_NAME } ctl_output;
typedef enum ctl_progress_choice { CTL_AUTO, CTL_ALWAYS, CTL_NEVER } ctl_progress_choice;

enum { CTL_MAX_WORDS = 32 /* that follow a command */ };

/** One command: "model create FILE". */
typedef struct ctl_command {
    const char *noun, *verb; /* verb NULL: the noun alone */
    const char *argument;    /* what follows, or NULL: "MODEL [NAME]", "FILE..." */
    const char *doc;
    unsigned bit; /* options name the commands they belong to by these bits */
    int (*run)(struct gradd_client *client, const struct ctl_options *options);
} ctl_command;

typedef struct ctl_options {
    const ctl_command *command;           /* NULL: only help or version was asked for */
    const char *argument;                 /* of the command: the first word, or NULL */
    const char *words[CTL_MAX_WORDS + 1]; /* all of them; NULL-terminated */
    size_t word_count;
    uint64_t seen; /* options that were given; see ctl_options_seen() */
    const char *server, *token_file;
    ctl_output output;
    bool help, version;
    const char *name;
    double lr;     /* NaN: as the model's definition says */
    double metric; /* NaN: none */
    bool force;
    const char *model, *data, *log;
    int64_t epochs, batch_size, seed, pad;
    int64_t resize[2]; /* height, width; 0: not asked for */
    double scale, mean, std;
    bool replace, drop_last, no_shuffle, watch, partial;
    const char *split, *part, *eval, *json, *from, *digests, *keys, *key, *note, *on_nonfinite;
    int64_t steps, accumulate, patience, keep;
    double checkpoint_seconds, clip_grad_norm;
    ctl_progress_choice progress;
} ctl_options;

/** Parse the command line. Strings are borrowed from argv.
 *  @return true; false after a message on stderr that says what is wrong */
bool ctl_options_parse(int argc, char **argv, ctl_options *ret_options);
/** Was this option given? @param name "epochs" */
bool ctl_options_seen(const ctl_options *options, const char *name);
/** Print a script that completes commands and options. @return false: no such shell */
bool ctl_options_completion(FILE *out, const char *shell);
/** Print the help of one command, or with NULL of the program. */
void ctl_options_help(FILE *out, const ctl_command *command);

#endif
