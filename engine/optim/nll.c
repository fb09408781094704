/* nll.c -- negative log likelihood of class indices, of an output of log probabilities. Formula:
 * torch.nn.NLLLoss: l_i = -w_y x_iy, or 0 where y is ignored; the mean divides by the sum of the w_y that
 * count. */
#include "engine/optim/classes.h"

struct nll {
    gd_floats weight;
    int64_t ignore_index;
    int reduction;
};

static const gd_attr nll_attrs[] = {
    GD_FLOATS(struct nll, weight, .min = 0, .doc = "a factor for each class"),
    GD_INT(struct nll, ignore_index, .number = -100, .doc = "a class index that does not count"),
    GD_CHOICE(struct nll, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the positions' losses"),
};

static int nll_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                       gd_loss_plan *ret_plan, gd_error *error) {
    const struct nll *a = attrs;
    int code = gd_classes_check_output("NLLLoss", &output->shape, &a->weight, error);
    if (code || (code = gd_classes_check_target("NLLLoss", output, target, &a->ignore_index, error)))
        return code;
    const gd_shape positions = gd_loss_without_axis_1(&output->shape);
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &positions),
                               .saved = sizeof(double), /* the divisor */
                               .class_indices = true};
    return 0;
}

static void nll_forward(const gd_loss_call *call) {
    const struct nll *a = call->attrs;
    const gd_classes g = gd_classes_of(&call->output->shape);
    const float *x = call->output->data;
    const int64_t *y = call->target->data;
    double *divisor = call->saved, sum = 0, count = 0;
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const int64_t at = n * g.inner + i, label = y[at];
            const bool ignored = label == a->ignore_index;
            const double weight = ignored ? 0 : gd_classes_weight(&a->weight, label);
            const double loss = ignored ? 0 : -weight * x[(n * g.classes + label) * g.inner + i];
            if (a->reduction == GD_REDUCE_NONE)
                call->loss[at] = (float)loss;
            sum += loss;
            count += weight;
        }
    *divisor = a->reduction == GD_REDUCE_MEAN ? count : 1;
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum / *divisor);
}

/* dl/dx_iy = -w_y / divisor */
static void nll_backward(const gd_loss_call *call) {
    const struct nll *a = call->attrs;
    const gd_classes g = gd_classes_of(&call->output->shape);
    const int64_t *y = call->target->data;
    const double *divisor = call->saved;
    memset(call->grad, 0, gd_tensor_bytes(call->output));
    for (int64_t n = 0; n < g.batch; n++)
        for (int64_t i = 0; i < g.inner; i++) {
            const int64_t label = y[n * g.inner + i];
            if (label != a->ignore_index)
                call->grad[(n * g.classes + label) * g.inner + i] =
                    (float)(-gd_classes_weight(&a->weight, label) / *divisor);
        }
}

static void nll_accuracy(const gd_loss_call *call, int64_t *correct, int64_t *count) {
    const struct nll *a = call->attrs;
    gd_classes_accuracy(call, &a->ignore_index, correct, count);
}

static int nll_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                       gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct nll *a = attrs;
    gd_chain chain = {nodes, 0};
    (void)class_indices;
    gd_classes_nll_chain(&chain, output, a->reduction);
    nodes[chain.count - 1].next[0] = GD_NEXT_INPUT(0);
    return chain.count;
}

const gd_loss gd_loss_nll = {
    .kind = {.module = "NLLLoss",
             .function = "nll_loss",
             .doc = "Negative log likelihood of class indices, from log probabilities.",
             GD_ATTRS(struct nll, nll_attrs)},
    .target_dtype = gd_loss_takes_indices,
    .prepare = nll_prepare,
    .target_shape = gd_loss_class_shape,
    .forward = nll_forward,
    .backward = nll_backward,
    .accuracy = nll_accuracy,
    .grad_fn = nll_grad_fn,
};
