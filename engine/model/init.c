/* init.c -- first values of parameters, as torch draws them. */
#include "engine/core/normal.h"
#include "engine/model/initializer.h"
#include "engine/model/model.h"

/* What one output element of a layer sums over: torch.nn.init._calculate_fan_in_and_fan_out. */
static double fan_in(const gd_shape *weight) {
    return (double)gd_numel_of(weight, 1, weight->rank);
}

/* How many output elements one input element goes into: the first axis times the window. */
static double fan_out(const gd_shape *weight) {
    return (double)(weight->dim[0] * gd_numel_of(weight, 2, weight->rank));
}

static void fill(gd_parameter *param, double value) {
    for (int64_t i = 0; i < param->numel; i++)
        if (param->dtype == GD_INT64)
            ((int64_t *)(void *)param->data)[i] = (int64_t)value;
        else
            param->data[i] = (float)value;
}

/* Row -1: none. */
static void clear_row(gd_parameter *param, int64_t row) {
    const int64_t width = gd_numel_of(&param->shape, 1, param->shape.rank);
    if (row >= 0)
        memset(param->data + row * width, 0, (size_t)width * sizeof *param->data);
}

static void initialise(gd_model *model, int p) {
    const gd_graph *graph = model->graph;
    const gd_graph_param *declared = &graph->params[p];
    const gd_shape *first = &graph->params[graph->nodes[declared->layer].first_param].shape;
    gd_parameter *param = &model->params[p];
    double bound;
    switch ((gd_init)declared->decl->init) {
    case GD_INIT_ZEROS:
        fill(param, 0);
        break;
    case GD_INIT_ONES:
        fill(param, 1);
        break;
    case GD_INIT_CONSTANT:
        fill(param, declared->value);
        break;
    case GD_INIT_KAIMING_UNIFORM: /* bound = sqrt(3) * gain / sqrt(fan_in), gain = sqrt(2 / (1 + 5)) */
        bound = sqrt(3.0) * (sqrt(2.0 / 6.0) / sqrt(fan_in(&param->shape)));
        gd_rng_uniform(&model->rng, param->data, param->numel, -bound, bound);
        break;
    case GD_INIT_XAVIER_UNIFORM: /* bound = sqrt(3) * sqrt(2 / (fan_in + fan_out)) */
        bound = sqrt(3.0) * sqrt(2.0 / (fan_in(&param->shape) + fan_out(&param->shape)));
        gd_rng_uniform(&model->rng, param->data, param->numel, -bound, bound);
        break;
    case GD_INIT_FAN_IN_UNIFORM:
    case GD_INIT_DRAWN_ZERO:
        bound = 1 / sqrt(fan_in(first));
        gd_rng_uniform(&model->rng, param->data, param->numel, -bound, bound);
        if (declared->decl->init == GD_INIT_DRAWN_ZERO)
            fill(param, 0);
        break;
    case GD_INIT_NORMAL:
        gd_rng_normal(&model->rng, param->data, param->numel);
        clear_row(param, (int64_t)declared->value);
        break;
    case GD_INIT_UNIFORM:
        gd_rng_uniform(&model->rng, param->data, param->numel, -declared->value, declared->value);
        break;
    }
}

static void copy_values(const gd_parameter *from, gd_parameter *to) {
    memcpy(to->data, from->data, (size_t)to->numel * gd_dtype_size(to->dtype));
}

/* In order, but within a layer those first that torch draws first; then what the specification asks for,
 * as a script does that builds its modules and then calls torch.nn.init. */
void gd_model_init(gd_model *model, uint64_t seed) {
    const gd_graph *graph = model->graph;
    gd_rng_seed(&model->rng, seed);
    for (int n = 0; n < graph->node_count; n++) {
        const gd_node *node = &graph->nodes[n];
        const int twin = graph->flat.layers[n].twin;
        for (int k = 0; twin >= 0 && k < node->param_count; k++)
            copy_values(&model->params[graph->nodes[twin].first_param + k],
                        &model->params[node->first_param + k]);
        for (int late = 0; late < 2 && node->shares < 0 && twin < 0; late++)
            for (int p = node->first_param; p < node->first_param + node->param_count; p++)
                if (graph->params[p].early == !late)
                    initialise(model, p);
    }
    for (int p = 0; p < graph->param_count; p++) {
        const gd_graph_param *param = &graph->params[p];
        if (param->init)
            param->init->fill(param->init_attrs, &model->rng, &param->shape, model->params[p].data);
    }
}
