/* job_spec.h -- what POST /v1/jobs asks for. */
#ifndef GRADD_SERVER_JOB_SPEC_H
#define GRADD_SERVER_JOB_SPEC_H

#include "proto/gradd_proto.h"

enum { GS_JOB_NAME = 65 /* bytes of a name, with the NUL */, GS_MAX_CHANNELS = 64 /* of mean and std */ };

/* What to do about a loss or gradients that are not finite. */
typedef enum gs_on_nonfinite {
    GS_NONFINITE_STOP,    /* take no step, and the job has failed */
    GS_NONFINITE_SKIP,    /* take no step, and go on with the next batch */
    GS_NONFINITE_CONTINUE /* take it */
} gs_on_nonfinite;

/* What "best" and early stopping go by. */
typedef enum gs_job_metric { GS_METRIC_EVAL_LOSS, GS_METRIC_EVAL_ACCURACY, GS_METRIC_LOSS } gs_job_metric;
const char *gs_job_metric_name(int64_t metric);

typedef struct gs_job_spec {
    json_t *json; /* as it was posted */
    char model[GS_JOB_NAME], dataset[GS_JOB_NAME], split[GS_JOB_NAME];
    int64_t epochs, steps; /* one of them; the other is 0 */
    int64_t batch_size, seed;
    bool shuffle, drop_last;
    gd_transform transform; /* mean and std point into the next two */
    double mean[GS_MAX_CHANNELS], std[GS_MAX_CHANNELS];
    char eval_split[GS_JOB_NAME]; /* "": no evaluation */
    int64_t eval_steps, eval_epochs;
    json_t *scheduler; /* part of json; NULL: as the model has it */
    double clip_grad_norm, clip_grad_value;
    int64_t accumulate;
    int64_t patience; /* 0: no early stopping */
    int64_t metric;   /* gs_job_metric */
    double min_delta;
    int64_t checkpoint_steps; /* 0: not by steps */
    double checkpoint_seconds;
    int64_t checkpoint_keep;
    int64_t on_nonfinite; /* gs_on_nonfinite */
} gs_job_spec;

/** Read and check it, as far as that can be done without model and data; keeps a reference on json.
 *  Do not move it. Release it either way. @return 0; -1: 400 */
int gs_job_spec_read(json_t *json, gs_job_spec *ret_spec, gp_error *error);
void gs_job_spec_release(gs_job_spec *spec);

#endif
