/* mse.c -- mean squared error. Formula: torch.nn.MSELoss. */
#include "engine/optim/loss.h"

const char *const gd_reductions[] = {
    [GD_REDUCE_NONE] = "none", [GD_REDUCE_MEAN] = "mean", [GD_REDUCE_SUM] = "sum", NULL};

struct mse {
    int reduction;
};

static const gd_attr mse_attrs[] = {
    GD_CHOICE(struct mse, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the elements' losses"),
};

static gd_dtype mse_target_dtype(const void *attrs, const gd_shape *output, const gd_shape *target) {
    (void)attrs, (void)output, (void)target;
    return GD_FLOAT32;
}

static int mse_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                       gd_loss_plan *ret_plan, gd_error *error) {
    const struct mse *a = attrs;
    char x[128], y[128];
    if (!gd_shape_equal(&output->shape, &target->shape))
        return gd_fail_field(error, GD_E_SHAPE, "target", "MSELoss: the target is %s, but the output is %s",
                             gd_shape_text(&target->shape, x, sizeof x),
                             gd_shape_text(&output->shape, y, sizeof y));
    *ret_plan = (gd_loss_plan){.loss = a->reduction == GD_REDUCE_NONE ? output->shape : (gd_shape){0}};
    return 0;
}

static void mse_forward(const gd_loss_call *call) {
    const struct mse *a = call->attrs;
    const float *x = call->output->data, *t = call->target->data;
    const int64_t count = gd_numel(&call->output->shape);
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        const float d = x[i] - t[i];
        if (a->reduction == GD_REDUCE_NONE)
            call->loss[i] = d * d;
        sum += (double)d * d;
    }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(a->reduction == GD_REDUCE_MEAN ? sum / (double)count : sum);
}

static void mse_backward(const gd_loss_call *call) {
    const struct mse *a = call->attrs;
    const float *x = call->output->data, *t = call->target->data;
    const int64_t count = gd_numel(&call->output->shape);
    const float factor = a->reduction == GD_REDUCE_MEAN ? (float)(2.0 / (double)count) : 2.0F;
    for (int64_t i = 0; i < count; i++)
        call->grad[i] = factor * (x[i] - t[i]);
}

static int mse_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                       gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs, (void)output, (void)class_indices;
    nodes[0] = (gd_grad_fn){"MseLossBackward0", {GD_NEXT_INPUT(0), GD_NEXT_NONE}, 2};
    return 1;
}

const gd_loss gd_loss_mse = {
    .kind = {.module = "MSELoss",
             .function = "mse_loss",
             .doc = "Squared difference of output and target.",
             GD_ATTRS(struct mse, mse_attrs)},
    .target_dtype = mse_target_dtype,
    .prepare = mse_prepare,
    .forward = mse_forward,
    .backward = mse_backward,
    .grad_fn = mse_grad_fn,
};
