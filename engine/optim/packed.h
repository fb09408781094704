/* packed.h -- losses of several things that the network makes: distances between samples, or a mean and its
 * variance. A network has one output, so they come stacked along axis 1, as torch.stack(..., 1) makes
 * them: (N, parts, d...). In torch's terms the loss is loss(*output.unbind(1), target). */
#ifndef GD_OPTIM_PACKED_H
#define GD_OPTIM_PACKED_H

#include "engine/optim/loss.h"

typedef struct gd_packed {
    int64_t batch, parts, inner; /* inner: elements of one part of one sample */
} gd_packed;

gd_packed gd_packed_of(const gd_shape *output);

/** The output is (N, parts, ...) of at least min_rank axes; `what` says what is stacked. @return 0;
 * GD_E_SHAPE */
int gd_packed_check_output(const char *module, const gd_shape *output, int64_t parts, int min_rank,
                           const char *what, gd_error *error);
/** The target has the shape wanted. @return 0; GD_E_SHAPE */
int gd_packed_check_target(const char *module, const gd_shape *target, const gd_shape *wanted,
                           gd_error *error);
/** Every element is 1 or -1. Data NULL: nothing to check. @return 0; GD_E_VALUE */
int gd_packed_check_signs(const char *module, const gd_tensor *target, gd_error *error);

/** Add the node that takes the output apart: the last of a grad_fn. @return its index */
int gd_packed_unbind(gd_chain *chain);

#endif
