/* ctl.c -- from the command line to a command, and what all commands share: messages and files. */
#include "ctl.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* May stderr be coloured? https://no-color.org: any value but an empty one says no. */
static bool colour(void) {
    const char *no = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    return !(no && *no) && term && strcmp(term, "dumb") != 0 && isatty(STDERR_FILENO);
}

/* What came from elsewhere must not steer the terminal. */
static void print_clean(const char *text) {
    for (const char *c = text; *c; c++) {
        bool control = ((unsigned char)*c < ' ' && *c != '\n' && *c != '\t') || *c == 127;
        fputc(control ? '?' : *c, stderr);
    }
    fputc('\n', stderr);
}

int ctl_error(const char *format, ...) {
    char message[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    fputs(colour() ? "gradctl: \033[31merror:\033[0m " : "gradctl: error: ", stderr);
    print_clean(message);
    return CTL_ERROR;
}

void ctl_say(const char *format, ...) {
    char message[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    print_clean(message);
}

static int exit_status(const gradd_error *error) {
    switch (error->code) {
    case GRADD_E_UNREACHABLE:
    case GRADD_E_TIMEOUT:
    case GRADD_E_NETWORK:
        return CTL_UNREACHABLE;
    case GRADD_E_INTERRUPTED:
        return CTL_INTERRUPTED;
    case GRADD_E_REFUSED:
        return error->http_status == 404                                ? CTL_NOT_FOUND
               : error->http_status == 401 || error->http_status == 403 ? CTL_NOT_ALLOWED
                                                                        : CTL_ERROR;
    default:
        return CTL_ERROR;
    }
}

int ctl_call_error(const gradd_error *error) {
    const char *hint = "";
    if (error->http_status == 401) {
        hint = "; give one with --token-file or GRADD_TOKEN_FILE";
    }
    bool id = *error->request_id && error->http_status >= 500;
    ctl_error("%s%s%s%s%s", error->message, hint, id ? " (request " : "", id ? error->request_id : "",
              id ? ")" : "");
    return exit_status(error);
}

int ctl_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size) {
    int status = CTL_ERROR;
    bool standard = strcmp(path, "-") == 0;
    char *data = NULL;
    size_t size = 0, capacity = 0;
    FILE *file = standard ? stdin : fopen(path, "re");
    if (!file) {
        return ctl_error("cannot read %s: %s", path, strerror(errno));
    }
    for (;;) {
        if (size == capacity) {
            capacity = capacity ? 2 * capacity : 64 << 10;
            char *larger = realloc(data, capacity + 1);
            if (!larger) {
                ctl_error("no memory to read %s", path);
                goto out;
            }
            data = larger;
        }
        size_t got = fread(data + size, 1, capacity - size, file);
        size += got;
        if (size > max) {
            ctl_error("%s is over the limit of %zu bytes", path, max);
            goto out;
        }
        if (got == 0) {
            break;
        }
    }
    if (ferror(file)) {
        ctl_error("cannot read %s: %s", path, strerror(errno));
        goto out;
    }
    data[size] = '\0';
    *ret_data = data;
    *ret_size = size;
    data = NULL;
    status = CTL_OK;
out:
    free(data);
    if (!standard) {
        fclose(file);
    }
    return status;
}

bool ctl_interrupted(void *unused) {
    sigset_t pending;
    (void)unused;
    sigpending(&pending);
    return sigismember(&pending, SIGINT) == 1;
}

void ctl_block_interrupt(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

int ctl_completion(gradd_client *client, const ctl_options *options) {
    (void)client;
    if (!ctl_options_completion(stdout, options->argument)) {
        ctl_error("completion is there for bash, zsh and fish, not for '%s'", options->argument);
        return CTL_USAGE;
    }
    return CTL_OK;
}

static int run_command(const ctl_options *options) {
    gradd_client *client = NULL;
    gradd_error error;
    gradd_config config = {
        .server = options->server, .token_file = options->token_file, .interrupted = ctl_interrupted};
    if (gradd_client_new(&config, &client, &error)) {
        ctl_call_error(&error);
        return CTL_USAGE;
    }
    int status = options->command->run(client, options);
    gradd_client_free(client);
    return status;
}

int ctl_run(int argc, char **argv) {
    ctl_options options;
    if (!ctl_options_parse(argc, argv, &options)) {
        return CTL_USAGE;
    }
    int status = CTL_OK;
    if (options.help) {
        ctl_options_help(stdout, options.command);
    } else if (options.version) {
        printf("gradctl %s\n", gradd_version());
    } else {
        status = run_command(&options);
    }
    if ((fflush(stdout) || ferror(stdout)) && status == CTL_OK) {
        status = ctl_error("cannot write to stdout: %s", strerror(errno));
    }
    return status;
}
