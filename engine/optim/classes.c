/* classes.c -- checks, accuracy and grad_fn of the losses of classes.h. */
#include "engine/optim/classes.h"

#include <inttypes.h>

gd_classes gd_classes_of(const gd_shape *output) {
    return (gd_classes){output->dim[0], output->dim[1], gd_numel_of(output, 2, output->rank)};
}

int gd_classes_check_output(const char *module, const gd_shape *output, const gd_floats *weight,
                            gd_error *error) {
    char text[128];
    if (output->rank < 2)
        return gd_fail(error, GD_E_SHAPE, "%s wants an output (N, C, ...), got %s", module,
                       gd_shape_text(output, text, sizeof text));
    if (weight->data && weight->count != (size_t)output->dim[1])
        return gd_fail_field(error, GD_E_ATTRIBUTE, "weight",
                             "%s: weight has %zu elements, but the output has %" PRId64 " classes", module,
                             weight->count, output->dim[1]);
    return 0;
}

int gd_classes_check_indices(const char *module, const gd_tensor *target, int64_t classes,
                             const int64_t *ignored, gd_error *error) {
    const int64_t *y = target->data;
    const int64_t count = gd_numel(&target->shape);
    char other[32] = "";
    if (ignored)
        snprintf(other, sizeof other, " (or %" PRId64 ")", *ignored);
    for (int64_t i = 0; y && i < count; i++)
        if ((y[i] < 0 || y[i] >= classes) && !(ignored && y[i] == *ignored))
            return gd_fail_field(error, GD_E_VALUE, "target",
                                 "%s: target element %" PRId64 " is %" PRId64
                                 ", but a class index must be 0 to %" PRId64 "%s: the output has %" PRId64
                                 " classes (axis 1)",
                                 module, i, y[i], classes - 1, other, classes);
    return 0;
}

int gd_classes_check_target(const char *module, const gd_tensor *output, const gd_tensor *target,
                            const int64_t *ignored, gd_error *error) {
    char x[128], y[128], wanted[128];
    const gd_shape positions = gd_loss_without_axis_1(&output->shape);
    if (!gd_shape_equal(&target->shape, &positions))
        return gd_fail_field(error, GD_E_SHAPE, "target",
                             "%s: the target is %s, but an output of %s takes class indices of %s", module,
                             gd_shape_text(&target->shape, x, sizeof x),
                             gd_shape_text(&output->shape, y, sizeof y),
                             gd_shape_text(&positions, wanted, sizeof wanted));
    return gd_classes_check_indices(module, target, output->shape.dim[1], ignored, error);
}

void gd_classes_accuracy(const gd_loss_call *call, const int64_t *ignored, int64_t *correct, int64_t *count) {
    const gd_classes g = gd_classes_of(&call->output->shape);
    const int64_t *label = call->target->data;
    *correct = *count = 0;
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++, label++) {
            const float *x = (const float *)call->output->data + n * g.classes * g.inner + i;
            int64_t best = 0;
            if (ignored && *label == *ignored)
                continue;
            for (int64_t c = 1; c < g.classes; c++)
                if (x[c * g.inner] > x[best * g.inner])
                    best = c;
            *correct += best == *label;
            *count += 1;
        }
}

void gd_classes_nll_chain(gd_chain *chain, const gd_shape *output, int reduction) {
    if (output->rank == 2) {
        (void)gd_chain_next(chain, "NllLossBackward0");
    } else if (output->rank == 4) {
        (void)gd_chain_next(chain, "NllLoss2DBackward0");
    } else { /* brought to four axes and back */
        if (reduction == GD_REDUCE_NONE)
            (void)gd_chain_next(chain, "ViewBackward0");
        (void)gd_chain_next(chain, "NllLoss2DBackward0");
        (void)gd_chain_next(chain, "ViewBackward0");
    }
}
