/* batch.h -- what a training request brings: inputs, a target, a loss for once, options of the step. */
#ifndef GRADD_SERVER_BATCH_H
#define GRADD_SERVER_BATCH_H

#include "tensors.h"

typedef struct gs_batch {
    gs_tensors tensors;
    gd_tensor inputs[GD_MAX_INPUTS];
    size_t input_count;
    gd_tensor targets[GD_MAX_TERMS]; /* as many as the loss takes */
    gs_hold input_hold, target_hold;
    gp_loss_spec loss_memory;
    const gd_loss_spec *loss; /* NULL: the model's */
    int output;               /* the one that is wanted; -1: all */
    gp_kind_spec option_memory;
    gd_step_options options;
} gs_batch;

enum {
    GS_BATCH_INPUT = 1,
    GS_BATCH_TARGET = 2,
    GS_BATCH_OPTIONS = 4, /* scalars beside "loss" are the step's options; else they are refused */
    GS_BATCH_KEPT = 8,    /* the model will go on reading it after the request */
    GS_BATCH_LOSS = 16,   /* "loss" may be given */
    GS_BATCH_OUTPUT = 32  /* outputs are the reply: "output" may pick one */
};

/** Read a batch of the parts named. Release *ret_batch either way. @return 0; -1 */
int gs_batch_read(gs_request *request, unsigned parts, gs_batch *ret_batch, gp_error *error);
void gs_batch_release(gs_batch *batch);
/** Step options from an object of scalars. *ret_memory is what they borrow from. @return 0; -1 */
int gs_options_read(json_t *scalars, gp_kind_spec *ret_memory, gd_step_options *ret_options, gp_error *error);
/** The model's graph now reads this batch: hold its bytes in place of those before. */
void gs_batch_keep(gs_hosted *hosted, gs_batch *batch);
/** An engine's error on a running model: "field" points into the request. @return -1 */
int gs_fail_run(gp_error *error, gd_error *cause);

#endif
