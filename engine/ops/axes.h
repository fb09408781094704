/* axes.h -- the axes that attributes name: torch's counting, negative ones from the end, and the batch
 * axis left alone. */
#ifndef GD_OPS_AXES_H
#define GD_OPS_AXES_H

#include "engine/graph/op.h"

/** An attribute's axis among `rank`, -rank ... rank - 1, as 0 ... rank - 1.
 *  @return 0; GD_E_ATTRIBUTE with infer->error filled in */
int gd_axis(const gd_infer *infer, const char *field, int64_t given, int rank, int *ret_axis);
/** The same for an axis of input 0 along which the op works: any but the batch. */
int gd_sample_axis(const gd_infer *infer, const char *field, int64_t given, int *ret_axis);
/** What gd_axis() found, once it is known to be one. */
static inline int gd_axis_of(int64_t given, int rank) {
    return (int)(given < 0 ? given + rank : given);
}

#endif
