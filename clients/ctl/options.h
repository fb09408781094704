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

/** One command: "model create FILE". */
typedef struct ctl_command {
    const char *noun, *verb; /* verb NULL: the noun alone */
    const char *argument;    /* what follows, or NULL */
    const char *doc;
    unsigned bit; /* options name the commands they belong to by these bits */
    int (*run)(struct gradd_client *client, const struct ctl_options *options);
} ctl_command;

typedef struct ctl_options {
    const ctl_command *command; /* NULL: only help or version was asked for */
    const char *argument;       /* of the command, or NULL */
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
    bool replace, drop_last;
    ctl_progress_choice progress;
} ctl_options;

/** Parse the command line. Strings are borrowed from argv.
 *  @return true; false after a message on stderr that says what is wrong */
bool ctl_options_parse(int argc, char **argv, ctl_options *ret_options);
/** Print the help of one command, or with NULL of the program. */
void ctl_options_help(FILE *out, const ctl_command *command);

#endif
