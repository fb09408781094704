/* ctl.h -- what gradctl's files share. Data goes to stdout, messages and progress to stderr. */
#ifndef GRADD_CTL_H
#define GRADD_CTL_H

#include "clients/c/gradd.h"
#include "options.h"

/* Exit status, as --help tells it. */
#define CTL_EXITS(X) \
    X(CTL_OK, 0, "done") \
    X(CTL_ERROR, 1, "error") \
    X(CTL_USAGE, 2, "wrong usage: nothing was done") \
    X(CTL_NOT_FOUND, 3, "there is no such thing on the daemon") \
    X(CTL_NOT_ALLOWED, 4, "the daemon wants a token, or a better one") \
    X(CTL_UNREACHABLE, 5, "no answer from a daemon") \
    X(CTL_FAILED, 6, "training failed, or was cancelled") \
    X(CTL_INTERRUPTED, 130, "interrupted")

enum {
#define X(name, status, text) name = status,
    CTL_EXITS(X)
#undef X
};

/** The whole program. @return exit status */
int ctl_run(int argc, char **argv);

/** Print "gradctl: error: ..." on stderr; control characters are shown as '?'. @return CTL_ERROR */
int ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** Print a call's error with what to do about it. @return the exit status that belongs to it */
int ctl_call_error(const gradd_error *error);
/** From here on Ctrl-C waits until ctl_interrupted() is asked, between and during calls. */
void ctl_block_interrupt(void);
/** Has Ctrl-C been pressed while SIGINT is blocked? No handler and no flag are needed for that. */
bool ctl_interrupted(void *unused);
/** Print a message on stderr. */
void ctl_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The commands: each gets a handle and its checked options, prints, and returns an exit status. */
int ctl_model_create(gradd_client *client, const ctl_options *options);
int ctl_model_ls(gradd_client *client, const ctl_options *options);
int ctl_model_show(gradd_client *client, const ctl_options *options);
int ctl_model_rm(gradd_client *client, const ctl_options *options);
int ctl_model_scheduler_step(gradd_client *client, const ctl_options *options);
int ctl_model_export(gradd_client *client, const ctl_options *options);
int ctl_model_import(gradd_client *client, const ctl_options *options);
int ctl_data_put(gradd_client *client, const ctl_options *options);
int ctl_data_ls(gradd_client *client, const ctl_options *options);
int ctl_data_show(gradd_client *client, const ctl_options *options);
int ctl_data_rm(gradd_client *client, const ctl_options *options);
int ctl_data_fetch(gradd_client *client, const ctl_options *options);
int ctl_job_start(gradd_client *client, const ctl_options *options);
int ctl_job_ls(gradd_client *client, const ctl_options *options);
int ctl_job_show(gradd_client *client, const ctl_options *options);
int ctl_job_watch(gradd_client *client, const ctl_options *options);
int ctl_job_cancel(gradd_client *client, const ctl_options *options);
int ctl_job_pause(gradd_client *client, const ctl_options *options);
int ctl_job_resume(gradd_client *client, const ctl_options *options);
int ctl_metrics_get(gradd_client *client, const ctl_options *options);
int ctl_metrics_plot(gradd_client *client, const ctl_options *options);
int ctl_checkpoint_create(gradd_client *client, const ctl_options *options);
int ctl_checkpoint_ls(gradd_client *client, const ctl_options *options);
int ctl_checkpoint_get(gradd_client *client, const ctl_options *options);
int ctl_checkpoint_restore(gradd_client *client, const ctl_options *options);
int ctl_checkpoint_rm(gradd_client *client, const ctl_options *options);
int ctl_checkpoint_clone(gradd_client *client, const ctl_options *options);
int ctl_train(gradd_client *client, const ctl_options *options);
int ctl_health(gradd_client *client, const ctl_options *options);
int ctl_version(gradd_client *client, const ctl_options *options);
int ctl_completion(gradd_client *client, const ctl_options *options);

/** Read a model's definition and put the options' name and learning rate into it.
 *  @param path     a file, or "-" for stdin
 *  @param ret_json the definition's text; the caller frees it */
int ctl_definition_read(const char *path, const ctl_options *options, char **ret_json);

/** A file in memory, with a NUL after its end. @param max bytes; the caller frees *ret_data
 *  @return CTL_OK, or CTL_ERROR after a message */
int ctl_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size);

#endif
