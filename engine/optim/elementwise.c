/* elementwise.c -- what the losses of elementwise.h share: checks, reductions and grad_fn. */
#include "engine/optim/elementwise.h"

#include <inttypes.h>

int gd_elementwise_check_weight(const char *module, const char *name, const gd_floats *weights,
                                const gd_shape *output, gd_error *error) {
    const int64_t columns = gd_elementwise_columns(output);
    if (!weights->data || weights->count == 1 || weights->count == (size_t)columns)
        return 0;
    return gd_fail_field(error, GD_E_ATTRIBUTE, name,
                         "%s: %s has %zu elements, but must have one, or %" PRId64
                         " as the output's last axis",
                         module, name, weights->count, columns);
}

static int check_target(const gd_elementwise_rules *rules, const struct gd_elementwise *attrs,
                        const gd_tensor *target, gd_error *error) {
    const float *t = target->data;
    const int64_t count = gd_numel(&target->shape);
    for (int64_t i = 0; t && i < count; i++)
        if (!rules->allows(attrs, t[i]))
            return gd_fail_field(error, GD_E_VALUE, "target",
                                 "%s: target element %" PRId64 " is %.6g, but must be %s", rules->module, i,
                                 (double)t[i], rules->allowed);
    return 0;
}

int gd_elementwise_prepare(const gd_elementwise_rules *rules, const struct gd_elementwise *attrs,
                           const gd_tensor *output, const gd_tensor *target, gd_loss_plan *ret_plan,
                           gd_error *error) {
    int code = rules->check ? rules->check(attrs, error) : 0;
    if (code || (code = gd_loss_check_same_shape(rules->module, output, target, error)) ||
        (code =
             gd_elementwise_check_weight(rules->module, "weight", &attrs->weight, &output->shape, error)) ||
        (code = gd_elementwise_check_weight(rules->module, "pos_weight", &attrs->pos_weight, &output->shape,
                                            error)) ||
        (rules->allows && (code = check_target(rules, attrs, target, error))))
        return code;
    *ret_plan = (gd_loss_plan){.loss = gd_loss_shape(attrs->reduction, &output->shape)};
    return 0;
}

double gd_elementwise_factor(const struct gd_elementwise *attrs, const gd_shape *output) {
    if (attrs->reduction == GD_REDUCE_BATCHMEAN)
        return 1.0 / (double)output->dim[0];
    return 1.0 / gd_loss_divisor(attrs->reduction, gd_numel(output));
}

int gd_elementwise_grad_fn(const gd_elementwise_rules *rules, const struct gd_elementwise *attrs,
                           gd_grad_fn *nodes) {
    gd_chain chain = {nodes, 0};
    if (rules->grad_name) {
        nodes[0] = (gd_grad_fn){rules->grad_name, {GD_NEXT_INPUT(0), GD_NEXT_NONE}, 1 + rules->target_edge};
        return 1;
    }
    if (attrs->reduction == GD_REDUCE_BATCHMEAN) {
        (void)gd_chain_pair(&chain, "DivBackward0", GD_CHAIN_NEXT, GD_NEXT_NONE);
        (void)gd_chain_next(&chain, "SumBackward0");
    } else {
        gd_chain_reduction(&chain, attrs->reduction);
    }
    rules->chain(attrs, &chain);
    return chain.count;
}
