/* group_norm.c -- normalisation over groups of channels of each sample. Formula: torch.nn.GroupNorm. */
#include <inttypes.h>

#include "engine/graph/op.h"
#include "engine/kernels/norm.h"

enum { BLOCK = 32 }; /* channels taken at once */

struct group_norm {
    int64_t num_groups, num_channels;
    double eps;
    bool affine;
};

static const gd_attr group_norm_attrs[] = {
    GD_INT(struct group_norm, num_groups, .min = 1, .required = true, .doc = "groups of channels"),
    GD_INT(struct group_norm, num_channels, .min = 1, .inferred = true, .doc = "channels of the input"),
    GD_FLOAT(struct group_norm, eps, .min = 0, .number = 1e-5, .doc = "added to the variance"),
    GD_BOOL(struct group_norm, affine, .number = 1,
            .doc = "scale and shift each channel by learnable numbers"),
};

static const gd_param_decl group_norm_params[] = {
    {.name = "weight", .init = GD_INIT_ONES, .doc = "(num_channels)"},
    {.name = "bias", .init = GD_INIT_ZEROS, .doc = "(num_channels)"},
};

/* What is saved: mean and 1 / sqrt(var + eps) of every group (N, num_groups, 2). */
static int group_norm_infer(gd_infer *infer) {
    struct group_norm *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    char text[128];
    if (x->rank < 2)
        return gd_fail(infer->error, GD_E_SHAPE, "wants samples of [C, ...], got %s",
                       gd_sample_text(x, text, sizeof text));
    if (a->num_channels == 0)
        a->num_channels = x->dim[1];
    if (a->num_channels != x->dim[1])
        return gd_fail_field(infer->error, GD_E_SHAPE, "num_channels",
                             "num_channels is %" PRId64 ", but the input has %" PRId64 " channels (axis 1)",
                             a->num_channels, x->dim[1]);
    if (a->num_channels % a->num_groups)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "num_groups",
                             "num_channels (%" PRId64 ") must be divisible by num_groups (%" PRId64 ")",
                             a->num_channels, a->num_groups);
    infer->outputs[0] = *x;
    for (int decl = 0; decl < 2 && a->affine; decl++)
        gd_infer_param_add(infer, decl, GD_SHAPE(a->num_channels));
    infer->saved[0] = (gd_tensor){.shape = GD_SHAPE(x->dim[0], a->num_groups, 2)};
    infer->saved_count = 1;
    return 0;
}

/* Group `index` of all groups of the slice, its channels taken a block at a time. */
typedef struct group {
    gd_channels block;
    int64_t first, last; /* channels */
    int64_t at;          /* of its first element */
    double count;        /* elements */
} group;

static group group_of(const gd_call *call, int64_t index) {
    const struct group_norm *a = call->attrs;
    const int64_t width = a->num_channels / a->num_groups;
    group g = {.block = {.samples = 1, .channels = a->num_channels}};
    g.block.size = gd_numel_of(&call->inputs[0].shape, 2, call->inputs[0].shape.rank);
    g.first = index % a->num_groups * width;
    g.last = g.first + width;
    g.at = index * width * g.block.size;
    g.count = (double)(width * g.block.size);
    return g;
}

static int64_t group_count(const gd_call *call) {
    return call->inputs[0].shape.dim[0] * ((const struct group_norm *)call->attrs)->num_groups;
}

/* The block of channels from `channel` on. @return where its elements begin */
static int64_t take_block(group *g, int64_t channel) {
    g->block.count = g->last - channel < BLOCK ? g->last - channel : BLOCK;
    return g->at + (channel - g->first) * g->block.size;
}

static void statistics(const group *g, const float *x, double eps, float *ret_mean, float *ret_inverse) {
    const gd_channels row = {
        .samples = 1, .channels = 1, .size = (g->last - g->first) * g->block.size, .count = 1};
    double mean, squares;
    gd_channels_moments(&row, x + g->at, &mean, &squares);
    *ret_mean = (float)mean;
    *ret_inverse = (float)(1 / sqrt(squares / g->count + eps));
}

/* y = (x - mean) / sqrt(var + eps) weight + bias */
static void group_norm_forward(const gd_call *call) {
    const struct group_norm *a = call->attrs;
    const float *x = call->inputs[0].data;
    const float *weight = a->affine ? call->params[0].data : NULL;
    const float *bias = a->affine ? call->params[1].data : NULL;
    float *y = call->outputs[0].data, *saved = call->saved[0].data;
    for (int64_t i = 0; i < group_count(call); i++) {
        group g = group_of(call, i);
        float mean, inverse, centre[BLOCK], scale[BLOCK], shift[BLOCK];
        statistics(&g, x, a->eps, &mean, &inverse);
        if (saved) {
            saved[2 * i] = mean;
            saved[2 * i + 1] = inverse;
        }
        for (int64_t channel = g.first; channel < g.last; channel += BLOCK) {
            const int64_t at = take_block(&g, channel);
            for (int64_t c = 0; c < g.block.count; c++) {
                centre[c] = mean;
                scale[c] = inverse * (weight ? weight[channel + c] : 1);
                shift[c] = bias ? bias[channel + c] : 0;
            }
            gd_channels_scale(&g.block, x + at, centre, scale, shift, false, y + at);
        }
    }
}

/* Parameters' gradients of one group, and sum(g), sum(g x') with g = weight dy, x' = x - mean. */
static void backward_sums(const gd_call *call, group *g, float mean, float inverse, double *ret_sum,
                          double *ret_dot) {
    const struct group_norm *a = call->attrs;
    const float *weight = a->affine ? call->params[0].data : NULL;
    float *dweight = weight ? call->param_grads[0].data : NULL;
    float *dbias = weight ? call->param_grads[1].data : NULL;
    *ret_sum = *ret_dot = 0;
    for (int64_t channel = g->first; channel < g->last; channel += BLOCK) {
        const int64_t at = take_block(g, channel);
        const float *dy = (const float *)call->output_grads[0].data + at;
        float centre[BLOCK];
        double sums[BLOCK], dots[BLOCK];
        for (int64_t c = 0; c < g->block.count; c++)
            centre[c] = mean;
        gd_channels_dot(&g->block, dy, (const float *)call->inputs[0].data + at, centre, sums, dots);
        for (int64_t c = 0; c < g->block.count; c++) {
            const double w = weight ? (double)weight[channel + c] : 1;
            *ret_sum += w * sums[c];
            *ret_dot += w * dots[c];
            if (dweight)
                dweight[channel + c] += (float)dots[c] * inverse;
            if (dbias)
                dbias[channel + c] += (float)sums[c];
        }
    }
}

/* With m elements in a group and s = 1 / sqrt(var + eps):
 *   dweight += s sum(dy x'), dbias += sum(dy), dx = s (g - sum(g) / m - x' s^2 sum(g x') / m) */
static void group_norm_backward(const gd_call *call) {
    const struct group_norm *a = call->attrs;
    const float *x = call->inputs[0].data, *dy = call->output_grads[0].data, *saved = call->saved[0].data;
    const float *weight = a->affine ? call->params[0].data : NULL;
    float *dx = call->input_grads[0].data;
    for (int64_t i = 0; i < group_count(call); i++) {
        group g = group_of(call, i);
        const float mean = saved[2 * i], s = saved[2 * i + 1];
        float centre[BLOCK], p[BLOCK], q[BLOCK], r[BLOCK];
        double sum, dot;
        backward_sums(call, &g, mean, s, &sum, &dot);
        for (int64_t channel = g.first; dx && channel < g.last; channel += BLOCK) {
            const int64_t at = take_block(&g, channel);
            for (int64_t c = 0; c < g.block.count; c++) {
                centre[c] = mean;
                p[c] = s * (weight ? weight[channel + c] : 1);
                q[c] = (float)((double)s * sum / g.count);
                r[c] = (float)((double)s * (double)s * (double)s * dot / g.count);
            }
            gd_channels_back(&g.block, dy + at, x + at, centre, p, q, r, call->accumulate[0], dx + at);
        }
    }
}

static void group_norm_repr(FILE *out, const void *attrs) {
    const struct group_norm *a = attrs;
    fprintf(out, "%" PRId64 ", %" PRId64 ", eps=", a->num_groups, a->num_channels);
    gd_repr_float(out, a->eps);
    fprintf(out, ", affine=%s", a->affine ? "True" : "False");
}

const gd_op gd_op_group_norm = {
    .kind = {.module = "GroupNorm",
             .function = "group_norm",
             .doc = "Normalises groups of channels of each sample.",
             GD_ATTRS(struct group_norm, group_norm_attrs),
             GD_PARAMS(group_norm_params)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = group_norm_infer,
    .forward = group_norm_forward,
    .backward = group_norm_backward,
    .repr = group_norm_repr,
    .grad_name = "NativeGroupNormBackward0",
};
