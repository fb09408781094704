/* axes.c -- checks of the axes that attributes name. */
#include "engine/ops/axes.h"

#include <inttypes.h>

int gd_axis(const gd_infer *infer, const char *field, int64_t given, int rank, int *ret_axis) {
    if (given < -rank || given >= rank)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, field,
                             "%s is %" PRId64 ", but with %d axes, the batch included, it can be %d ... %d",
                             field, given, rank, -rank, rank - 1);
    *ret_axis = gd_axis_of(given, rank);
    return 0;
}

int gd_sample_axis(const gd_infer *infer, const char *field, int64_t given, int *ret_axis) {
    const int rank = infer->inputs[0].rank;
    int code = gd_axis(infer, field, given, rank, ret_axis);
    if (!code && *ret_axis == infer->input_axes[0])
        code = gd_fail_field(infer->error, GD_E_ATTRIBUTE, field,
                             "%s is %" PRId64 ", the batch axis, but samples are kept apart; name another of "
                             "the %d axes (axis 0 is the batch, unless a layer before moved it)",
                             field, given, rank);
    return code;
}
