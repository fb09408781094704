/* state.h -- a model's state as the bytes of a checkpoint's file, and back. */
#ifndef GRADD_SERVER_STATE_H
#define GRADD_SERVER_STATE_H

#include "checkpoints.h"

/** A checkpoint's file in memory, counted against --max-memory. In the model's turn.
 *  @param order the tensor "job.order", or NULL  @return 0; -1: GP_OUT_OF_MEMORY */
int gs_state_file(gs_hosted *hosted, const gs_checkpoint *row, const void *order, size_t order_size,
                  gs_buffer **ret_file, gp_error *error);
/** Read such a file. @param ret_definition free() it  @return 0; -1: GP_DAMAGED, GP_OUT_OF_MEMORY */
int gs_state_read(const void *data, size_t size, gp_safetensors *ret_tensors, char **ret_definition,
                  gp_error *error);
/** Put tensors into a model of their definition.
 *  @param version that the model is to have, or 0: as gd_model_state_load() says
 *  @return 0; -1: GP_DAMAGED: they do not fit; GP_OUT_OF_MEMORY */
int gs_state_load(gd_model *model, const gp_safetensors *tensors, int64_t version, gp_error *error);
/** Is this the name of something in a checkpoint that is no parameter? (A parameter may bear it too.) */
bool gs_state_is_other(const char *name);
/** Is this "__metadata__" a checkpoint's? NULL: no. */
bool gs_state_is_ours(const char *metadata);

#endif
