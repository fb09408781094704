/* multi_margin.c -- hinge losses over the classes, (N, C): MultiMarginLoss (one class is right) and
 * MultiLabelMarginLoss (several are). Formulas: torch.nn. */
#include <inttypes.h>

#include "engine/optim/classes.h"

static int check_rank(const char *module, const gd_shape *output, gd_error *error) {
    char text[128];
    if (output->rank == 2)
        return 0;
    return gd_fail(error, GD_E_SHAPE, "%s wants an output (N, C), got %s", module,
                   gd_shape_text(output, text, sizeof text));
}

/* ---- MultiMarginLoss: l_n = w_y / C sum over c != y of max(0, margin - x_y + x_c)^p ----------------- */

struct multi_margin {
    int64_t p;
    double margin;
    gd_floats weight;
    int reduction;
};

static const gd_attr multi_margin_attrs[] = {
    GD_INT(struct multi_margin, p, .number = 1, .min = 1, .max = 2, .doc = "the hinge's exponent"),
    GD_FLOAT(struct multi_margin, margin, .number = 1,
             .doc = "how far the right class should be above the others"),
    GD_FLOATS(struct multi_margin, weight, .doc = "a factor for each class"),
    GD_CHOICE(struct multi_margin, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the samples' losses"),
};

static gd_shape multi_margin_target_shape(const void *attrs, const gd_shape *output) {
    (void)attrs;
    return GD_SHAPE(output->dim[0]);
}

static int multi_margin_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                                gd_loss_plan *ret_plan, gd_error *error) {
    const struct multi_margin *a = attrs;
    int code = check_rank("MultiMarginLoss", &output->shape, error);
    if (code || (code = gd_classes_check_output("MultiMarginLoss", &output->shape, &a->weight, error)) ||
        (code = gd_classes_check_target("MultiMarginLoss", output, target, NULL, error)))
        return code;
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &target->shape), .class_indices = true};
    return 0;
}

static void multi_margin_forward(const gd_loss_call *call) {
    const struct multi_margin *a = call->attrs;
    const gd_classes g = gd_classes_of(&call->output->shape);
    double sum = 0;
    for (int64_t n = 0; n < g.batch; n++) {
        const float *x = (const float *)call->output->data + n * g.classes;
        const int64_t y = ((const int64_t *)call->target->data)[n];
        double loss = 0;
        for (int64_t c = 0; c < g.classes; c++) {
            const double z = a->margin - x[y] + x[c];
            if (c != y && z > 0)
                loss += a->p == 1 ? z : z * z;
        }
        loss *= gd_classes_weight(&a->weight, y) / (double)g.classes;
        if (a->reduction == GD_REDUCE_NONE)
            call->loss[n] = (float)loss;
        sum += loss;
    }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(sum / gd_loss_divisor(a->reduction, g.batch));
}

/* With z = margin - x_y + x_c > 0: dl/dx_c = p z^(p-1) w_y / C, and dl/dx_y = -their sum. */
static void multi_margin_backward(const gd_loss_call *call) {
    const struct multi_margin *a = call->attrs;
    const gd_classes g = gd_classes_of(&call->output->shape);
    for (int64_t n = 0; n < g.batch; n++) {
        const float *x = (const float *)call->output->data + n * g.classes;
        float *dx = call->grad + n * g.classes;
        const int64_t y = ((const int64_t *)call->target->data)[n];
        const double factor =
            gd_classes_weight(&a->weight, y) / ((double)g.classes * gd_loss_divisor(a->reduction, g.batch));
        double total = 0;
        for (int64_t c = 0; c < g.classes; c++) {
            const double z = a->margin - x[y] + x[c];
            const double slope = c != y && z > 0 ? factor * (a->p == 1 ? 1 : 2 * z) : 0;
            dx[c] = (float)slope;
            total += slope;
        }
        dx[y] = (float)-total;
    }
}

static void multi_margin_accuracy(const gd_loss_call *call, int64_t *correct, int64_t *count) {
    gd_classes_accuracy(call, NULL, correct, count);
}

static int multi_margin_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                                gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs, (void)output, (void)class_indices;
    nodes[0] = (gd_grad_fn){"MultiMarginLossBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

const gd_loss gd_loss_multi_margin = {
    .kind = {.module = "MultiMarginLoss",
             .function = "multi_margin_loss",
             .doc = "Hinge loss of class indices: the right class above all others by a margin.",
             GD_ATTRS(struct multi_margin, multi_margin_attrs)},
    .target_dtype = gd_loss_takes_indices,
    .prepare = multi_margin_prepare,
    .target_shape = multi_margin_target_shape,
    .forward = multi_margin_forward,
    .backward = multi_margin_backward,
    .accuracy = multi_margin_accuracy,
    .grad_fn = multi_margin_grad_fn,
};

/* ---- MultiLabelMarginLoss: a target row holds the right classes and then -1;
 * l_n = 1 / C sum over right j and wrong i of max(0, 1 - x_j + x_i) ---------------------------------- */

struct multi_label_margin {
    int reduction;
};

static const gd_attr multi_label_margin_attrs[] = {
    GD_CHOICE(struct multi_label_margin, reduction, .number = GD_REDUCE_MEAN, .choices = gd_reductions,
              .doc = "what becomes of the samples' losses"),
};

static int multi_label_margin_prepare(const void *attrs, const gd_tensor *output, const gd_tensor *target,
                                      gd_loss_plan *ret_plan, gd_error *error) {
    const struct multi_label_margin *a = attrs;
    const int64_t end = -1;
    int code = check_rank("MultiLabelMarginLoss", &output->shape, error);
    if (code || (code = gd_loss_check_same_shape("MultiLabelMarginLoss", output, target, error)) ||
        (code = gd_classes_check_indices("MultiLabelMarginLoss", target, output->shape.dim[1], &end, error)))
        return code;
    const gd_shape samples = GD_SHAPE(output->shape.dim[0]);
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(a->reduction, &samples),
                               .saved = (size_t)gd_numel(&output->shape)}; /* (N, C) bytes: right or wrong */
    return 0;
}

/* Mark the right classes of a row. @return how many labels stand before -1 */
static int64_t mark_right(const int64_t *labels, int64_t classes, bool *right) {
    int64_t count = 0;
    memset(right, 0, (size_t)classes * sizeof *right);
    while (count < classes && labels[count] >= 0)
        right[labels[count++]] = true;
    return count;
}

static void multi_label_margin_forward(const gd_loss_call *call) {
    const struct multi_label_margin *a = call->attrs;
    const gd_classes g = gd_classes_of(&call->output->shape);
    double total = 0;
    for (int64_t n = 0; n < g.batch; n++) {
        const float *x = (const float *)call->output->data + n * g.classes;
        const int64_t *labels = (const int64_t *)call->target->data + n * g.classes;
        bool *right = (bool *)call->saved + n * g.classes;
        const int64_t count = mark_right(labels, g.classes, right);
        double sum = 0;
        for (int64_t k = 0; k < count; k++)
            for (int64_t i = 0; i < g.classes; i++) {
                const double z = 1 - (double)x[labels[k]] + x[i];
                sum += !right[i] && z > 0 ? z : 0;
            }
        sum /= (double)g.classes;
        if (a->reduction == GD_REDUCE_NONE)
            call->loss[n] = (float)sum;
        total += sum;
    }
    if (a->reduction != GD_REDUCE_NONE)
        call->loss[0] = (float)(total / gd_loss_divisor(a->reduction, g.batch));
}

/* Every pair with 1 - x_j + x_i > 0 draws x_i down and x_j up. */
static void multi_label_margin_backward(const gd_loss_call *call) {
    const struct multi_label_margin *a = call->attrs;
    const gd_classes g = gd_classes_of(&call->output->shape);
    const float step = (float)(1 / ((double)g.classes * gd_loss_divisor(a->reduction, g.batch)));
    memset(call->grad, 0, gd_tensor_bytes(call->output));
    for (int64_t n = 0; n < g.batch; n++) {
        const float *x = (const float *)call->output->data + n * g.classes;
        const int64_t *labels = (const int64_t *)call->target->data + n * g.classes;
        const bool *right = (const bool *)call->saved + n * g.classes;
        float *dx = call->grad + n * g.classes;
        for (int64_t k = 0; k < g.classes && labels[k] >= 0; k++)
            for (int64_t i = 0; i < g.classes; i++)
                if (!right[i] && 1 - (double)x[labels[k]] + x[i] > 0) {
                    dx[i] += step;
                    dx[labels[k]] -= step;
                }
    }
}

static int multi_label_margin_grad_fn(const void *attrs, const gd_shape *output, bool class_indices,
                                      gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs, (void)output, (void)class_indices;
    nodes[0] = (gd_grad_fn){"MultilabelMarginLossBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

const gd_loss gd_loss_multi_label_margin = {
    .kind = {.module = "MultiLabelMarginLoss",
             .function = "multilabel_margin_loss",
             .doc = "Hinge loss of several right classes each; a target row lists them, then -1.",
             GD_ATTRS(struct multi_label_margin, multi_label_margin_attrs)},
    .target_dtype = gd_loss_takes_indices,
    .prepare = multi_label_margin_prepare,
    .forward = multi_label_margin_forward,
    .backward = multi_label_margin_backward,
    .grad_fn = multi_label_margin_grad_fn,
};
