/* classes.h -- losses of an output (N, C, d...): one score for each of C classes at each position (n, i), i
 * running over the product of d. Targets that are class indices are (N, d...). */
#ifndef GD_OPTIM_CLASSES_H
#define GD_OPTIM_CLASSES_H

#include "engine/optim/loss.h"

typedef struct gd_classes {
    int64_t batch, classes, inner; /* inner: also the stride between a position's classes */
} gd_classes;

gd_classes gd_classes_of(const gd_shape *output);
/** At least (N, C), and a weight (if any) for each class. @return 0; GD_E_SHAPE; GD_E_ATTRIBUTE */
int gd_classes_check_output(const char *module, const gd_shape *output, const gd_floats *weight,
                            gd_error *error);
/** Every element is a class, or *ignored (NULL: none is). Data NULL: nothing to check.
 *  @return 0; GD_E_VALUE */
int gd_classes_check_indices(const char *module, const gd_tensor *target, int64_t classes,
                             const int64_t *ignored, gd_error *error);
/** The target is a class index per position. @return 0; GD_E_SHAPE; GD_E_VALUE */
int gd_classes_check_target(const char *module, const gd_tensor *output, const gd_tensor *target,
                            const int64_t *ignored, gd_error *error);
/** How many positions have their highest score (the first of equals) at the target's class, of those whose
 *  target is not *ignored. */
void gd_classes_accuracy(const gd_loss_call *call, const int64_t *ignored, int64_t *correct, int64_t *count);

/** 1, or the weight of class c. */
static inline double gd_classes_weight(const gd_floats *weight, int64_t c) {
    return weight->data ? weight->data[c] : 1.0;
}

/** The nodes of torch's negative log likelihood, leading to the node added next. */
void gd_classes_nll_chain(gd_chain *chain, const gd_shape *output, int reduction);

#endif
