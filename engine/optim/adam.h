/* adam.h -- what Adam and its descendants share. */
#ifndef GD_OPTIM_ADAM_H
#define GD_OPTIM_ADAM_H

#include "engine/optim/optimizer.h"

/** (0.9, 0.999). */
extern const double gd_adam_betas[2];

#define GD_BETAS(T) \
    GD_FLOAT2(T, betas, .min = 0, .max = 1, .floats = gd_adam_betas, \
              .doc = "what the averages of the gradient and of its square keep per step; both below 1")

/** Both below 1, or nothing would ever come in. @return 0; GD_E_ATTRIBUTE */
int gd_adam_check_betas(const char *what, const double betas[2], gd_error *error);

#endif
