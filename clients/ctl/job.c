/* job.c -- gradctl job start, ls, show, cancel, pause, resume; watch.c has watch. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "output.h"
#include "watch.h"

enum { MAX_SPEC = 16 << 20 /* bytes */ };

/* ---- the specification, from options ------------------------------------------------------------------ */

typedef enum kind { TEXT, WHOLE, REAL, REAL_LIST, SIZE, YES, NO } kind;

/* What an option sets in the job's specification. */
static const struct {
    const char *option, *path;
    kind kind;
    size_t offset; /* in ctl_options */
} rows[] = {
#define R(option, path, kind, field) \
    { option, path, kind, offsetof(ctl_options, field) }
    R("model", "model", TEXT, model),
    R("data", "dataset", TEXT, data),
    R("epochs", "epochs", WHOLE, epochs),
    R("steps", "steps", WHOLE, steps),
    R("batch-size", "batch_size", WHOLE, batch_size),
    R("seed", "seed", WHOLE, seed),
    R("no-shuffle", "shuffle", NO, no_shuffle),
    R("drop-last", "drop_last", YES, drop_last),
    R("pad", "transform.pad", WHOLE, pad),
    R("resize", "transform.resize", SIZE, resize),
    R("scale", "transform.scale", REAL, scale),
    R("mean", "transform.mean", REAL_LIST, mean),
    R("std", "transform.std", REAL_LIST, std),
    R("eval", "eval.split", TEXT, eval),
    R("accumulate", "accumulate", WHOLE, accumulate),
    R("clip-grad-norm", "clip_grad_norm", REAL, clip_grad_norm),
    R("patience", "early_stopping.patience", WHOLE, patience),
    R("on-nonfinite", "on_nonfinite", TEXT, on_nonfinite),
    R("checkpoint-every", "checkpoint.every_seconds", REAL, checkpoint_seconds),
    R("keep", "checkpoint.keep", WHOLE, keep),
#undef R
};

static json_t *value_of(kind type, const void *field) {
    switch (type) {
    case TEXT:
        return json_string(*(const char *const *)field);
    case WHOLE:
        return json_integer(*(const int64_t *)field);
    case REAL:
        return json_real(*(const double *)field);
    case REAL_LIST:
        return json_pack("[f]", *(const double *)field);
    case SIZE:
        return json_pack("[I, I]", (json_int_t)((const int64_t *)field)[0],
                         (json_int_t)((const int64_t *)field)[1]);
    case YES:
    case NO:
        return json_boolean(type == YES);
    }
    return NULL;
}

/* Set "eval.split", and make "eval" if need be. @return false: no memory, or not UTF-8 */
static bool set(json_t *spec, const char *path, json_t *value) {
    const char *point = strchr(path, '.');
    char outer[32];
    json_t *inner = spec;
    if (point) {
        snprintf(outer, sizeof outer, "%.*s", (int)(point - path), path);
        inner = json_object_get(spec, outer);
        if (!json_is_object(inner)) {
            inner = json_object();
            json_object_set_new(spec, outer, inner);
        }
    }
    return json_object_set_new(inner, point ? point + 1 : path, value) == 0;
}

/* What a plain `job start` means beyond what is said: one epoch; pixels come as 0 to 1; evaluate on the test
 * split if there is one. */
static int set_defaults(gradd_client *client, const ctl_options *o, json_t *spec) {
    gradd_dataset_info info;
    gradd_error error;
    if (gradd_dataset_show(client, o->data, &info, &error)) {
        return ctl_call_error(&error);
    }
    json_t *json = json_loads(info.json, 0, NULL);
    const json_t *splits = json_object_get(json, "splits");
    const json_t *input = json_object_get(json_object_get(splits, "train"), "input");
    const char *dtype = json_string_value(json_object_get(input, "dtype"));
    if (!ctl_options_seen(o, "steps")) {
        set(spec, "epochs", json_integer(o->epochs));
    }
    if (dtype && strcmp(dtype, "uint8") == 0) {
        set(spec, "transform.scale", json_real(o->scale));
    }
    if (json_is_integer(json_object_get(json_object_get(splits, "test"), "count"))) {
        set(spec, "eval.split", json_string(o->eval));
    }
    json_decref(json);
    gradd_dataset_info_free(&info);
    return CTL_OK;
}

static int read_spec(const char *path, json_t **ret_spec) {
    char *text = NULL;
    size_t size = 0;
    json_error_t why;
    int status = ctl_file_read(path, MAX_SPEC, &text, &size);
    if (status) {
        return status;
    }
    json_t *spec = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    free(text);
    if (!json_is_object(spec)) {
        status = spec ? ctl_error("%s: a job's specification is a JSON object", path)
                      : ctl_error("%s:%d:%d: %s", path, why.line, why.column, why.text);
        json_decref(spec);
        return status;
    }
    *ret_spec = spec;
    return CTL_OK;
}

/* @param ret_json the specification's text, to be freed */
static int make_spec(gradd_client *client, const ctl_options *o, char **ret_json) {
    json_t *spec = NULL;
    int status = CTL_OK;
    bool fine = true;
    if (o->json) {
        status = read_spec(o->json, &spec);
    } else {
        spec = json_object();
        status = set_defaults(client, o, spec);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !status; i++) {
        if (ctl_options_seen(o, rows[i].option)) {
            fine = set(spec, rows[i].path, value_of(rows[i].kind, (const char *)o + rows[i].offset)) && fine;
        }
    }
    if (!status && strcmp(o->eval, "none") == 0) {
        json_object_del(spec, "eval");
    }
    if (!status) {
        *ret_json = fine ? json_dumps(spec, JSON_REAL_PRECISION(17)) : NULL;
        status = *ret_json ? CTL_OK : ctl_error("no memory for the job, or an option is not UTF-8");
    }
    json_decref(spec);
    return status;
}

/* ---- printing ----------------------------------------------------------------------------------------- */

/* "0.3127", or nothing. */
static void number_cell(ctl_table *table, int digits, double value) {
    char text[32] = "";
    if (!isnan(value)) {
        snprintf(text, sizeof text, "%.*f", digits, value);
    }
    ctl_table_cell(table, "%s", text);
}

static void row(ctl_table *table, const void *item) {
    const gradd_job_info *job = item;
    ctl_table_cell(table, "%" PRId64, job->id);
    ctl_table_cell(table, "%s", job->state);
    ctl_table_cell(table, "%s", job->model);
    ctl_table_cell(table, "%s", job->dataset);
    ctl_table_cell(table, "%" PRId64, job->step);
    ctl_table_cell(table, "%" PRId64, job->total_steps);
    number_cell(table, 4, job->loss);
    number_cell(table, 4, job->eval_loss);
    number_cell(table, 4, job->eval_accuracy);
    number_cell(table, 0, job->eta_seconds);
    ctl_table_cell(table, "%s", job->created_at);
}

static void print_id(const void *item) {
    printf("%" PRId64 "\n", ((const gradd_job_info *)item)->id);
}

static int print(const gradd_job_info *items, size_t count, ctl_output output, bool list) {
    const ctl_listing listing = {
        .items = items,
        .count = count,
        .size = sizeof *items,
        .json = offsetof(gradd_job_info, json),
        .heading = "job state model dataset step total_steps loss eval_loss eval_accuracy eta_s created_at",
        .row = row,
        .name = print_id};
    return ctl_print_listing(&listing, output, list);
}

/* ---- commands ----------------------------------------------------------------------------------------- */

int ctl_job_start(gradd_client *client, const ctl_options *options) {
    gradd_job_info info;
    gradd_error error;
    char *json = NULL;
    int status = make_spec(client, options, &json);
    if (status) {
        return status;
    }
    if (gradd_job_start(client, json, NULL, &info, &error)) {
        status = ctl_call_error(&error);
    } else if (options->watch) {
        ctl_say("job %" PRId64 ": %s on %s", info.id, info.model, info.dataset);
        status = ctl_watch(client, options, info.id);
        gradd_job_info_free(&info);
    } else {
        status = print(&info, 1, options->output, false);
        gradd_job_info_free(&info);
    }
    free(json);
    return status;
}

int ctl_job_ls(gradd_client *client, const ctl_options *options) {
    gradd_job_list list;
    gradd_error error;
    if (gradd_job_list_all(client, &list, &error)) {
        return ctl_call_error(&error);
    }
    int status = print(list.items, list.count, options->output, true);
    gradd_job_list_free(&list);
    return status;
}

/* The number of a job. */
static int read_id(const ctl_options *options, int64_t *ret_id) {
    char *end;
    const char *text = options->argument;
    const long long id = strtoll(text, &end, 10);
    if (*text < '0' || *text > '9' || *end) {
        ctl_error("a job is a number, as `gradctl job ls` tells, not '%s'", text);
        return CTL_USAGE;
    }
    *ret_id = id;
    return CTL_OK;
}

static int show(gradd_client *client, int64_t id, gradd_job_info *ret_info, gradd_error *error) {
    return gradd_job_show(client, id, 0, ret_info, error);
}

/* A call that answers with the job. */
static int ask(gradd_client *client, const ctl_options *options,
               int (*call)(gradd_client *, int64_t, gradd_job_info *, gradd_error *)) {
    gradd_job_info info;
    gradd_error error;
    int64_t id;
    int status = read_id(options, &id);
    if (status) {
        return status;
    }
    if (call(client, id, &info, &error)) {
        return ctl_call_error(&error);
    }
    status = print(&info, 1, options->output, false);
    if (*info.error && options->output == CTL_TABLE) {
        ctl_say("it failed: %s", info.error);
    }
    gradd_job_info_free(&info);
    return status;
}

int ctl_job_show(gradd_client *client, const ctl_options *options) {
    return ask(client, options, show);
}

int ctl_job_cancel(gradd_client *client, const ctl_options *options) {
    return ask(client, options, gradd_job_cancel);
}

int ctl_job_pause(gradd_client *client, const ctl_options *options) {
    return ask(client, options, gradd_job_pause);
}

int ctl_job_resume(gradd_client *client, const ctl_options *options) {
    return ask(client, options, gradd_job_resume);
}

int ctl_job_watch(gradd_client *client, const ctl_options *options) {
    int64_t id;
    int status = read_id(options, &id);
    return status ? status : ctl_watch(client, options, id);
}
