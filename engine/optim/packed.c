/* packed.c -- what the losses of packed.h share. */
#include "engine/optim/packed.h"

#include <inttypes.h>

gd_packed gd_packed_of(const gd_shape *output) {
    return (gd_packed){output->dim[0], output->dim[1], gd_numel_of(output, 2, output->rank)};
}

int gd_packed_check_output(const char *module, const gd_shape *output, int64_t parts, int min_rank,
                           const char *what, gd_error *error) {
    char text[128];
    if (output->rank >= min_rank && output->dim[1] == parts)
        return 0;
    return gd_fail(error, GD_E_SHAPE,
                   "%s wants an output (N, %" PRId64 "%s): %s, stacked along axis 1; it is %s", module, parts,
                   min_rank > 2 ? ", ..., D" : ", ...", what, gd_shape_text(output, text, sizeof text));
}

int gd_packed_check_target(const char *module, const gd_shape *target, const gd_shape *wanted,
                           gd_error *error) {
    char x[128], y[128];
    if (gd_shape_equal(target, wanted))
        return 0;
    return gd_fail_field(error, GD_E_SHAPE, "target", "%s: the target is %s, but for this output must be %s",
                         module, gd_shape_text(target, x, sizeof x), gd_shape_text(wanted, y, sizeof y));
}

int gd_packed_check_signs(const char *module, const gd_tensor *target, gd_error *error) {
    const float *t = target->data;
    const int64_t count = gd_numel(&target->shape);
    for (int64_t i = 0; t && i < count; i++)
        if (t[i] != 1 && t[i] != -1)
            return gd_fail_field(error, GD_E_VALUE, "target",
                                 "%s: target element %" PRId64 " is %.6g, but must be 1 or -1", module, i,
                                 (double)t[i]);
    return 0;
}

int gd_packed_unbind(gd_chain *chain) {
    chain->nodes[chain->count] = (gd_grad_fn){"UnbindBackward0", {GD_NEXT_INPUT(0)}, 1};
    return chain->count++;
}
