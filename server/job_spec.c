/* job_spec.c -- a job's specification: a table of fields for each of its objects. */
#include "job_spec.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum kind { NAME, INTEGER, NUMBER, BOOLEAN, CHOICE, OTHER } kind;

typedef struct field {
    const char *name;
    kind kind;
    size_t offset; /* of gs_job_spec; of a CHOICE it is an int64_t */
    double min, max;
    const char *const *choices; /* ends with NULL */
} field;

#define AT(member) offsetof(gs_job_spec, member)

static const char *const nonfinite_names[] = {"stop", "skip", "continue", NULL};
static const char *const metric_names[] = {"eval_loss", "eval_accuracy", "loss", NULL};

static const field job_fields[] = {
    {"model", NAME, AT(model), 0, 0, NULL},
    {"dataset", NAME, AT(dataset), 0, 0, NULL},
    {"split", NAME, AT(split), 0, 0, NULL},
    {"epochs", INTEGER, AT(epochs), 1, 1e9, NULL},
    {"steps", INTEGER, AT(steps), 1, 1e12, NULL},
    {"batch_size", INTEGER, AT(batch_size), 1, 1e7, NULL},
    {"shuffle", BOOLEAN, AT(shuffle), 0, 0, NULL},
    {"drop_last", BOOLEAN, AT(drop_last), 0, 0, NULL},
    {"seed", INTEGER, AT(seed), 0, 9.2e18, NULL},
    {"transform", OTHER, 0, 0, 0, NULL},
    {"eval", OTHER, 0, 0, 0, NULL},
    {"scheduler", OTHER, 0, 0, 0, NULL},
    {"clip_grad_norm", NUMBER, AT(clip_grad_norm), 0, 1e30, NULL},
    {"clip_grad_value", NUMBER, AT(clip_grad_value), 0, 1e30, NULL},
    {"accumulate", INTEGER, AT(accumulate), 1, 1e6, NULL},
    {"early_stopping", OTHER, 0, 0, 0, NULL},
    {"checkpoint", OTHER, 0, 0, 0, NULL},
    {"on_nonfinite", CHOICE, AT(on_nonfinite), 0, 0, nonfinite_names},
    {NULL, OTHER, 0, 0, 0, NULL},
};

static const field transform_fields[] = {
    {"resize", OTHER, 0, 0, 0, NULL},
    {"pad", INTEGER, AT(transform.pad), 0, 10000, NULL},
    {"crop", OTHER, 0, 0, 0, NULL},
    {"crop_pad", INTEGER, AT(transform.crop_pad), 0, 10000, NULL},
    {"flip", NUMBER, AT(transform.flip), 0, 1, NULL},
    {"shift", INTEGER, AT(transform.shift), 0, 10000, NULL},
    {"scale", NUMBER, AT(transform.scale), -1e30, 1e30, NULL},
    {"mean", OTHER, 0, 0, 0, NULL},
    {"std", OTHER, 0, 0, 0, NULL},
    {NULL, OTHER, 0, 0, 0, NULL},
};

static const field eval_fields[] = {
    {"split", NAME, AT(eval_split), 0, 0, NULL},
    {"every_steps", INTEGER, AT(eval_steps), 1, 1e12, NULL},
    {"every_epochs", INTEGER, AT(eval_epochs), 1, 1e9, NULL},
    {NULL, OTHER, 0, 0, 0, NULL},
};

static const field stopping_fields[] = {
    {"patience", INTEGER, AT(patience), 1, 1e9, NULL},
    {"metric", CHOICE, AT(metric), 0, 0, metric_names},
    {"min_delta", NUMBER, AT(min_delta), 0, 1e30, NULL},
    {NULL, OTHER, 0, 0, 0, NULL},
};

static const field checkpoint_fields[] = {
    {"every_steps", INTEGER, AT(checkpoint_steps), 1, 1e12, NULL},
    {"every_seconds", NUMBER, AT(checkpoint_seconds), 0.1, 1e9, NULL},
    {"keep", INTEGER, AT(checkpoint_keep), 1, 1000, NULL},
    {NULL, OTHER, 0, 0, 0, NULL},
};

const char *gs_job_metric_name(int64_t metric) {
    return metric_names[metric];
}

/* A place in the document, for errors. */
typedef struct place {
    char pointer[128];
} place;

static place at(const char *prefix, const char *name) {
    place p;
    snprintf(p.pointer, sizeof p.pointer, "%s/%.60s", prefix, name);
    return p;
}

static int bad(gp_error *error, const place *p, const char *what) {
    return gp_fail(error, GP_INVALID_VALUE, p->pointer, "%s must be %s", strrchr(p->pointer, '/') + 1, what);
}

static int read_choice(const field *f, const json_t *value, int64_t *ret, const place *p, gp_error *error) {
    const char *text = json_string_value(value);
    char known[128] = "";
    for (int64_t i = 0; f->choices[i]; i++) {
        if (text && !strcmp(text, f->choices[i])) {
            *ret = i;
            return 0;
        }
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s\"%s\"", i ? ", " : "one of ",
                 f->choices[i]);
    }
    return bad(error, p, known);
}

static int read_number(const field *f, const json_t *value, double *ret, const place *p, gp_error *error) {
    char text[96];
    *ret = json_number_value(value);
    if (!json_is_number(value) || *ret < f->min || *ret > f->max) {
        snprintf(text, sizeof text, "a number from %g to %g", f->min, f->max);
        return bad(error, p, text);
    }
    return 0;
}

static int read_integer(const field *f, const json_t *value, int64_t *ret, const place *p, gp_error *error) {
    char text[96];
    *ret = json_integer_value(value);
    if (!json_is_integer(value) || (double)*ret < f->min || (double)*ret > f->max) {
        snprintf(text, sizeof text, "a whole number from %.0f to %.0f", f->min, f->max);
        return bad(error, p, text);
    }
    return 0;
}

static int read_field(const field *f, const json_t *value, gs_job_spec *spec, const place *p,
                      gp_error *error) {
    void *to = (char *)spec + f->offset;
    switch (f->kind) {
    case NAME:
        if (!json_is_string(value) || !gp_name_ok(json_string_value(value))) {
            return gp_fail(error, GP_INVALID_NAME, p->pointer,
                           "%s must be a name: 1 to 64 letters, digits, \".\", \"_\" or \"-\"", f->name);
        }
        snprintf(to, GS_JOB_NAME, "%s", json_string_value(value));
        return 0;
    case INTEGER:
        return read_integer(f, value, to, p, error);
    case NUMBER:
        return read_number(f, value, to, p, error);
    case BOOLEAN:
        *(bool *)to = json_is_true(value);
        return json_is_boolean(value) ? 0 : bad(error, p, "true or false");
    case CHOICE:
        return read_choice(f, value, to, p, error);
    case OTHER:
        break;
    }
    return 0;
}

/* The members of an object, by its table. */
static int read_fields(const json_t *json, const field *fields, const char *prefix, gs_job_spec *spec,
                       gp_error *error) {
    const char *key;
    json_t *value;
    if (!json_is_object(json)) {
        const char *name = *prefix ? prefix + 1 : "the body";
        return gp_fail(error, GP_INVALID_VALUE, prefix, "%s must be an object", name);
    }
    json_object_foreach((json_t *)(uintptr_t)json, key, value) {
        const place p = at(prefix, key);
        const field *f = fields;
        char known[320] = "";
        for (; f->name && strcmp(f->name, key); f++) {
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *known ? " " : "", f->name);
        }
        if (!f->name) {
            return gp_fail(error, GP_UNKNOWN_FIELD, p.pointer, "unknown field \"%.64s\"; known are: %s", key,
                           known);
        }
        if (read_field(f, value, spec, &p, error)) {
            return -1;
        }
    }
    return 0;
}

/* 32, or [32, 32]. */
static int read_size(const json_t *transform, const char *name, int64_t ret[2], gp_error *error) {
    const json_t *value = json_object_get(transform, name);
    const place p = at("/transform", name);
    if (!value) {
        return 0;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        ret[i] = json_integer_value(one);
        if ((json_is_array(value) && json_array_size(value) != 2) || !json_is_integer(one) || ret[i] < 1 ||
            ret[i] > 10000) {
            return bad(error, &p, "a whole number from 1 to 10000, or [height, width]");
        }
    }
    return 0;
}

/* 0.1307, or a number for each channel. */
static int read_channels(const json_t *transform, const char *name, double ret[GS_MAX_CHANNELS],
                         size_t *ret_count, gp_error *error) {
    const json_t *value = json_object_get(transform, name);
    const place p = at("/transform", name);
    size_t count = json_is_array(value) ? json_array_size(value) : value != NULL;
    bool fine = count <= GS_MAX_CHANNELS && (!value || count);
    for (size_t i = 0; i < count && fine; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        ret[i] = json_number_value(one);
        fine = json_is_number(one);
    }
    *ret_count = count;
    return fine ? 0 : bad(error, &p, "a number, or a list of one for each channel, 64 at most");
}

static int read_transform(gs_job_spec *spec, gp_error *error) {
    const json_t *transform = json_object_get(spec->json, "transform");
    gd_transform *t = &spec->transform;
    if (!transform) {
        return 0;
    }
    t->mean = spec->mean;
    t->std = spec->std;
    return read_fields(transform, transform_fields, "/transform", spec, error) ||
                   read_size(transform, "resize", t->resize, error) ||
                   read_size(transform, "crop", t->crop, error) ||
                   read_channels(transform, "mean", spec->mean, &t->mean_count, error) ||
                   read_channels(transform, "std", spec->std, &t->std_count, error)
               ? -1
               : 0;
}

static int read_eval(gs_job_spec *spec, gp_error *error) {
    const json_t *eval = json_object_get(spec->json, "eval");
    if (!eval) {
        return 0;
    }
    snprintf(spec->eval_split, sizeof spec->eval_split, "test");
    if (read_fields(eval, eval_fields, "/eval", spec, error)) {
        return -1;
    }
    if (spec->eval_steps && spec->eval_epochs) {
        return gp_fail(error, GP_INVALID_VALUE, "/eval/every_epochs",
                       "give every_steps or every_epochs, not both");
    }
    spec->eval_epochs = spec->eval_steps || spec->eval_epochs ? spec->eval_epochs : 1;
    return 0;
}

static int read_stopping(gs_job_spec *spec, gp_error *error) {
    const json_t *stopping = json_object_get(spec->json, "early_stopping");
    spec->metric = *spec->eval_split ? GS_METRIC_EVAL_LOSS : GS_METRIC_LOSS;
    if (!stopping) {
        return 0;
    }
    if (read_fields(stopping, stopping_fields, "/early_stopping", spec, error)) {
        return -1;
    }
    if (!spec->patience) {
        return gp_fail(error, GP_MISSING_FIELD, "/early_stopping/patience",
                       "early_stopping needs a patience: after how many evaluations without improvement");
    }
    if (!*spec->eval_split && spec->metric != GS_METRIC_LOSS) {
        return gp_fail(error, GP_INVALID_VALUE, "/early_stopping/metric",
                       "%s needs an evaluation: give eval, or \"metric\": \"loss\"",
                       gs_job_metric_name(spec->metric));
    }
    return 0;
}

static int check_whole(const gs_job_spec *spec, gp_error *error) {
    if (!*spec->model || !*spec->dataset) {
        const char *missing = *spec->model ? "dataset" : "model";
        const place p = at("", missing);
        return gp_fail(error, GP_MISSING_FIELD, p.pointer, "a job needs a %s", missing);
    }
    if (!spec->epochs == !spec->steps) {
        return gp_fail(error, spec->epochs ? GP_INVALID_VALUE : GP_MISSING_FIELD, "/epochs",
                       "give epochs or steps%s", spec->epochs ? ", not both" : "");
    }
    return 0;
}

int gs_job_spec_read(json_t *json, gs_job_spec *spec, gp_error *error) {
    *spec = (gs_job_spec){.json = json_incref(json),
                          .split = "train",
                          .batch_size = 64,
                          .shuffle = true,
                          .accumulate = 1,
                          .checkpoint_seconds = 60,
                          .checkpoint_keep = 3};
    const json_t *checkpoint = json_object_get(json, "checkpoint");
    if (read_fields(json, job_fields, "", spec, error) || check_whole(spec, error) ||
        read_transform(spec, error) || read_eval(spec, error) || read_stopping(spec, error) ||
        (checkpoint && read_fields(checkpoint, checkpoint_fields, "/checkpoint", spec, error))) {
        return -1;
    }
    spec->transform.seed = (uint64_t)spec->seed;
    spec->scheduler = json_object_get(json, "scheduler");
    return 0;
}

void gs_job_spec_release(gs_job_spec *spec) {
    json_decref(spec->json);
    spec->json = NULL;
}
