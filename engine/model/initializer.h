/* initializer.h -- what torch.nn.init offers: first values of a parameter, by name. */
#ifndef GD_MODEL_INITIALIZER_H
#define GD_MODEL_INITIALIZER_H

#include "engine/core/rng.h"
#include "engine/graph/op.h"

typedef struct gd_initializer {
    gd_kind kind; /* first; found by function name: "kaiming_uniform_" */
    /** Does it make sense for this shape? NULL: for all. @return 0; GD_E_ATTRIBUTE; GD_E_SHAPE */
    int (*check)(const void *attrs, const gd_shape *shape, gd_error *error);
    /** Fill a float32 parameter. */
    void (*fill)(const void *attrs, gd_rng *rng, const gd_shape *shape, float *data);
} gd_initializer;

extern const gd_initializer *const gd_initializers[];
extern const size_t gd_initializer_count;

#endif
