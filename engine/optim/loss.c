/* loss.c -- what losses share: reductions, checks, and writing down a grad_fn. */
#include "engine/optim/loss.h"

const char *const gd_reductions[] = {
    [GD_REDUCE_NONE] = "none", [GD_REDUCE_MEAN] = "mean", [GD_REDUCE_SUM] = "sum", NULL};

gd_dtype gd_loss_takes_floats(const void *attrs, const gd_shape *output, const gd_shape *target) {
    (void)attrs, (void)output, (void)target;
    return GD_FLOAT32;
}

gd_dtype gd_loss_takes_indices(const void *attrs, const gd_shape *output, const gd_shape *target) {
    (void)attrs, (void)output, (void)target;
    return GD_INT64;
}

gd_shape gd_loss_class_shape(const void *attrs, const gd_shape *output) {
    (void)attrs;
    return output->rank < 2 ? *output : gd_loss_without_axis_1(output);
}

int gd_loss_check_same_shape(const char *module, const gd_tensor *output, const gd_tensor *target,
                             gd_error *error) {
    char x[128], y[128];
    if (gd_shape_equal(&output->shape, &target->shape))
        return 0;
    return gd_fail_field(error, GD_E_SHAPE, "target", "%s: the target is %s, but the output is %s", module,
                         gd_shape_text(&target->shape, x, sizeof x),
                         gd_shape_text(&output->shape, y, sizeof y));
}

gd_shape gd_loss_shape(int reduction, const gd_shape *unreduced) {
    return reduction == GD_REDUCE_NONE ? *unreduced : (gd_shape){0};
}

gd_shape gd_loss_without_axis_1(const gd_shape *output) {
    gd_shape shape = {.rank = output->rank - 1, .dim = {output->dim[0]}};
    for (int i = 1; i < shape.rank; i++)
        shape.dim[i] = output->dim[i + 1];
    return shape;
}

double gd_loss_divisor(int reduction, int64_t count) {
    return reduction == GD_REDUCE_MEAN ? (double)count : 1.0;
}

int gd_chain_pair(gd_chain *chain, const char *name, int first, int second) {
    const int at = chain->count++;
    chain->nodes[at] = (gd_grad_fn){
        name, {first == GD_CHAIN_NEXT ? at + 1 : first, second == GD_CHAIN_NEXT ? at + 1 : second}, 2};
    return at;
}

int gd_chain_next(gd_chain *chain, const char *name) {
    const int at = chain->count++;
    chain->nodes[at] = (gd_grad_fn){name, {at + 1}, 1};
    return at;
}

void gd_chain_reduction(gd_chain *chain, int reduction) {
    if (reduction == GD_REDUCE_MEAN)
        (void)gd_chain_next(chain, "MeanBackward0");
    else if (reduction == GD_REDUCE_SUM)
        (void)gd_chain_next(chain, "SumBackward0");
}
