/* config.h -- the daemon's flags and environment variables, one row each in config.def. */
#ifndef GRADD_SERVER_CONFIG_H
#define GRADD_SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef const char *gs_config_STRING;
typedef int64_t gs_config_INTEGER; /* a count */
typedef int64_t gs_config_SIZE;    /* bytes */
typedef double gs_config_SECONDS;
typedef bool gs_config_FLAG;
typedef int gs_config_CHOICE; /* index into the row's choices */

/** The settings in force. Strings are borrowed from argv, the environment or the table. */
typedef struct gs_config {
#define C(member, flag, type, initial, min, max, value, help) gs_config_##type member;
#include "config.def"
#undef C
} gs_config;

typedef enum gs_config_outcome {
    GS_CONFIG_RUN,
    GS_CONFIG_HELP,
    GS_CONFIG_VERSION,
    GS_CONFIG_BAD
} gs_config_outcome;

/**
 * Defaults, then the environment, then the flags.
 *
 * @param message why it is GS_CONFIG_BAD: names the flag and what would do
 */
gs_config_outcome gs_config_read(int argc, char **argv, gs_config *ret_config, char *message, size_t size);
/** The text of --help, from the table. */
void gs_config_help(FILE *stream);

/** Split "HOST:PORT" ("[::1]:80", "localhost:80"). host has room for size bytes.
 *  @return false when it is no such thing */
bool gs_config_split_address(const char *address, char *host, size_t size, int *ret_port);
/** Is this word one of a comma-separated list, letter case aside? */
bool gs_config_listed(const char *list, const char *word);

#endif
