/* multi_label_soft_margin.c -- MultiLabelSoftMarginLoss. Formula: torch.nn; with C classes along the last
 * axis, l = -1 / C sum over c of w_c (t_c log s(x_c) + (1 - t_c) log s(-x_c)), s the sigmoid, which is
 * BCEWithLogitsLoss averaged over the classes first. */
#include <inttypes.h>

#include "engine/optim/elementwise.h"

struct multi_label_soft_margin {
    gd_floats weight;
    int reduction;
};

static const gd_attr multi_label_soft_margin_attrs[] = {
    GD_FLOATS(struct multi_label_soft_margin, weight, .doc = "a factor for each class"),
    GD_CHOICE(struct multi_label_soft_margin, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the samples' losses"),
};

static int check_target(const gd_tensor *target, gd_error *error) {
    const float *t = target->data;
    const int64_t count = gd_numel(&target->shape);
    for (int64_t i = 0; t && i < count; i++)
        if (!(t[i] >= 0 && t[i] <= 1))
            return gd_fail_field(error, GD_E_VALUE, "target",
                                 "MultiLabelSoftMarginLoss: target element %" PRId64
                                 " is %.6g, but must be 0 to 1",
                                 i, (double)t[i]);
    return 0;
}

static int multi_label_soft_margin_prepare(const void *attrs, const gd_tensor *output,
                                           const gd_tensor *target, gd_loss_plan *ret_plan, gd_error *error) {
    const struct multi_label_soft_margin *a = attrs;
    char text[128];
    gd_shape rows = output->shape;
    if (output->shape.rank < 2)
        return gd_fail(error, GD_E_SHAPE, "MultiLabelSoftMarginLoss wants an output (N, ..., C), got %s",
                       gd_shape_text(&output->shape, text, sizeof text));
    int code = gd_loss_check_same_shape("MultiLabelSoftMarginLoss", output, target, error);
    if (code ||
        (code = gd_elementwise_check_weight("MultiLabelSoftMarginLoss", "weight", &a->weight, &output->shape,
                                            error)) ||
        (code = check_target(target, error)))
        return code;
    rows.dim[--rows.rank] = 0;
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &rows)};
    return 0;
}

static void multi_label_soft_margin_forward(const gd_loss_call *call) {
    const struct multi_label_soft_margin *a = call->attrs;
    const float *x = call->output->data, *t = call->target->data;
    const int64_t classes = gd_elementwise_columns(&call->output->shape);
    const int64_t rows = gd_numel_of(&call->output->shape, 0, call->output->shape.rank - 1);
    double total = 0;
    for (int64_t r = 0; r < rows; r++, x += classes, t += classes) {
        double sum = 0;
        for (int64_t c = 0; c < classes; c++)
            sum += gd_elementwise_weight(&a->weight, c) *
                   (t[c] * gd_softplus(-(double)x[c]) + (1 - (double)t[c]) * gd_softplus(x[c]));
        sum /= (double)classes;
        if (a->reduction == GD_REDUCE_NONE)
            call->loss[r] = (float)sum;
        total += sum;
    }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(total / gd_loss_divisor(a->reduction, rows));
}

/* dl/dx_c = w_c / C (s(x_c) - t_c), with s(x_c) - t_c without cancellation */
static void multi_label_soft_margin_backward(const gd_loss_call *call) {
    const struct multi_label_soft_margin *a = call->attrs;
    const float *x = call->output->data, *t = call->target->data;
    const int64_t classes = gd_elementwise_columns(&call->output->shape);
    const int64_t rows = gd_numel_of(&call->output->shape, 0, call->output->shape.rank - 1);
    const double factor = 1 / ((double)classes * gd_loss_divisor(a->reduction, rows));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < classes; c++) {
            const int64_t i = r * classes + c;
            const double slope = (1 - (double)t[i]) * gd_sigmoid(x[i]) - t[i] * gd_sigmoid(-(double)x[i]);
            call->grad[i] = (float)(factor * gd_elementwise_weight(&a->weight, c) * slope);
        }
}

static int multi_label_soft_margin_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                                           gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct multi_label_soft_margin *a = attrs;
    gd_chain chain = {nodes, 0};
    (void)output, (void)class_indices;
    gd_chain_reduction(&chain, a->reduction);
    (void)gd_chain_pair(&chain, "DivBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_next(&chain, "SumBackward1");
    if (a->weight.data)
        (void)gd_chain_pair(&chain, "MulBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
    (void)gd_chain_next(&chain, "NegBackward0");
    (void)gd_chain_pair(&chain, "AddBackward0", GD_CHAIN_NEXT, chain.count + 3);
    (void)gd_chain_pair(&chain, "MulBackward0", GD_NEXT_NONE, GD_CHAIN_NEXT);
    nodes[chain.count++] = (gd_grad_fn){"LogSigmoidBackward0", {GD_NEXT_INPUT(0)}, 1};
    (void)gd_chain_pair(&chain, "MulBackward0", GD_NEXT_NONE, GD_CHAIN_NEXT);
    (void)gd_chain_next(&chain, "LogSigmoidBackward0");
    nodes[chain.count++] = (gd_grad_fn){"NegBackward0", {GD_NEXT_INPUT(0)}, 1};
    return chain.count;
}

const gd_loss gd_loss_multi_label_soft_margin = {
    .kind = {.module = "MultiLabelSoftMarginLoss",
             .function = "multilabel_soft_margin_loss",
             .doc = "Cross entropy of several classes, each a yes or no, averaged over the classes.",
             GD_ATTRS(struct multi_label_soft_margin, multi_label_soft_margin_attrs)},
    .target_dtype = gd_loss_takes_floats,
    .prepare = multi_label_soft_margin_prepare,
    .forward = multi_label_soft_margin_forward,
    .backward = multi_label_soft_margin_backward,
    .grad_fn = multi_label_soft_margin_grad_fn,
};
