/* batch_norm.c -- normalisation by channel over the batch or over each sample, with running statistics.
 * Formulas: torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d.
 *
 *   y = (x - mean) / sqrt(var + eps) weight + bias
 *
 * Mean and (biased) variance are those of a channel of an instance: the whole batch in BatchNorm, one sample
 * in InstanceNorm. In eval mode they are the running ones, where those are tracked; in training
 * running = (1 - momentum) running + momentum statistic, with the unbiased variance. */
#include <inttypes.h>

#include "engine/core/shape.h"
#include "engine/graph/op.h"
#include "engine/kernels/norm.h"

enum {
    BLOCK = 16, /* channels of one piece of work, at most, */
    BLOCK_FLOATS =
        65536, /* and elements, if not of one channel alone: what the second pass finds in the cache */
};

struct channel_norm {
    int64_t num_features;
    double eps, momentum;
    bool affine, track_running_stats;
};

#define ROWS(affine_default, track_default, momentum_doc) \
    GD_INT(struct channel_norm, num_features, .min = 1, .inferred = true, .doc = "channels of the input"), \
        GD_FLOAT(struct channel_norm, eps, .min = 0, .number = 1e-5, .doc = "added to the variance"), \
        GD_FLOAT(struct channel_norm, momentum, .number = 0.1, .nullable = true, .doc = momentum_doc), \
        GD_BOOL(struct channel_norm, affine, .number = (affine_default), \
                .doc = "scale and shift each channel by learnable numbers"), \
        GD_BOOL(struct channel_norm, track_running_stats, .number = (track_default), \
                .doc = "keep running statistics for eval mode")

static const gd_attr batch_norm_attrs[] = {
    ROWS(1, 1, "weight of the newest statistics in the running ones; null: their plain average"),
};
static const gd_attr instance_norm_attrs[] = {
    ROWS(0, 0, "weight of the newest statistics in the running ones; null: none"),
};

static const gd_param_decl channel_norm_params[] = {
    {.name = "weight", .init = GD_INIT_ONES, .doc = "(num_features)"},
    {.name = "bias", .init = GD_INIT_ZEROS, .doc = "(num_features)"},
    {.name = "running_mean", .init = GD_INIT_ZEROS, .buffer = true, .doc = "(num_features)"},
    {.name = "running_var", .init = GD_INIT_ONES, .buffer = true, .doc = "(num_features)"},
    {.name = "num_batches_tracked",
     .dtype = GD_INT64,
     .init = GD_INIT_ZEROS,
     .buffer = true,
     .doc = "() forward passes in training"},
};

/* What is saved: mean and 1 / sqrt(var + eps) of each instance's channels (2, instances, num_features);
 * whether they are the input's own, and not the running ones (1). */
static int channel_norm_infer(gd_infer *infer, int most_rank, int least_rank, const char *wanted,
                              bool by_sample) {
    struct channel_norm *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    char text[128];
    if (x->rank < least_rank || x->rank > most_rank)
        return gd_fail(infer->error, GD_E_SHAPE, "wants samples of %s, got %s", wanted,
                       gd_sample_text(x, text, sizeof text));
    if (a->num_features == 0)
        a->num_features = x->dim[1];
    if (a->num_features != x->dim[1])
        return gd_fail_field(infer->error, GD_E_SHAPE, "num_features",
                             "num_features is %" PRId64 ", but the input has %" PRId64 " channels (axis 1)",
                             a->num_features, x->dim[1]);
    if (by_sample && gd_numel_of(x, 2, x->rank) == 1)
        return gd_fail(infer->error, GD_E_SHAPE,
                       "needs more than 1 value per channel and sample, got samples of %s",
                       gd_sample_text(x, text, sizeof text));
    infer->outputs[0] = *x;
    for (int decl = 0; decl < 2 && a->affine; decl++)
        gd_infer_param_add(infer, decl, GD_SHAPE(a->num_features));
    for (int decl = 2; decl < 5 && a->track_running_stats; decl++)
        gd_infer_param_add(infer, decl, decl < 4 ? GD_SHAPE(a->num_features) : (gd_shape){.rank = 0});
    infer->saved[0] = (gd_tensor){.shape = GD_SHAPE(2, by_sample ? x->dim[0] : 1, a->num_features)};
    infer->saved[1] = (gd_tensor){.dtype = GD_INT32, .shape = GD_SHAPE(1)};
    infer->saved_count = 2;
    return 0;
}

/* One value per channel has no variance. */
static int batch_norm_check_training(const gd_shape *inputs, gd_error *error) {
    if (inputs[0].dim[0] * gd_numel_of(&inputs[0], 2, inputs[0].rank) > 1)
        return 0;
    return gd_fail(error, GD_E_SHAPE,
                   "needs more than 1 value per channel in training; use a larger batch, or eval mode");
}

/* One forward or backward, cut by blocks of channels. */
typedef struct job {
    const gd_call *call;
    const struct channel_norm *attrs;
    int64_t instances;
    gd_channels shape; /* of one instance, all channels */
    int64_t block;     /* channels of a piece of work */
    bool own;          /* the input's own statistics */
    double momentum;
} job;

static job job_of(const gd_call *call, bool by_sample) {
    const struct channel_norm *a = call->attrs;
    const gd_shape *x = &call->inputs[0].shape;
    job j = {.call = call, .attrs = a, .instances = by_sample ? x->dim[0] : 1};
    j.shape = (gd_channels){.samples = by_sample ? 1 : x->dim[0],
                            .channels = x->dim[1],
                            .size = gd_numel_of(x, 2, x->rank),
                            .count = x->dim[1]};
    const int64_t fit = BLOCK_FLOATS / (j.shape.samples * j.shape.size);
    j.block = fit < 1 ? 1 : gd_smaller(fit, BLOCK);
    return j;
}

static void run(job *j, void (*block)(void *job, int64_t index, int slot)) {
    gd_parallel_for(j->call->pool, gd_ceil_div(j->shape.channels, j->block), block, j);
}

/* The channels of a block; *ret_first is the first of them. */
static gd_channels block_of(const job *j, int64_t index, int64_t *ret_first) {
    gd_channels shape = j->shape;
    *ret_first = index * j->block;
    shape.count = gd_smaller(shape.channels - *ret_first, j->block);
    return shape;
}

static int64_t place_of(const job *j, int64_t instance, int64_t channel) {
    return (instance * j->shape.samples * j->shape.channels + channel) * j->shape.size;
}

/* weight or bias (0, 1), or what they stand for; running_mean, running_var, num_batches_tracked (2, 3, 4). */
static void *param_data(const job *j, int decl) {
    const struct channel_norm *a = j->attrs;
    if (decl < 2)
        return a->affine ? j->call->params[decl].data : NULL;
    return a->track_running_stats ? j->call->params[decl - (a->affine ? 0 : 2)].data : NULL;
}

static float or_else(const float *values, int64_t channel, float otherwise) {
    return values ? values[channel] : otherwise;
}

/* Statistics of one instance's block of channels. */
static void statistics(const job *j, const gd_channels *shape, const float *x, int64_t first, float *mean,
                       double *var) {
    const double count = (double)(shape->samples * shape->size);
    const float *running_mean = param_data(j, 2), *running_var = param_data(j, 3);
    if (!j->own) {
        for (int64_t c = 0; c < shape->count; c++) {
            mean[c] = running_mean[first + c];
            var[c] = (double)running_var[first + c];
        }
        return;
    }
    double means[BLOCK];
    gd_channels_moments(shape, x, means, var);
    for (int64_t c = 0; c < shape->count; c++) {
        mean[c] = (float)means[c];
        var[c] /= count;
    }
}

/* Running statistics take in the mean over instances. */
static void track(const job *j, int64_t first, int64_t count, const double *means, const double *vars) {
    const double values = (double)(j->shape.samples * j->shape.size), unbiased = values / (values - 1);
    float *running_mean = (float *)param_data(j, 2) + first, *running_var = (float *)param_data(j, 3) + first;
    const double weight = j->momentum, instances = (double)j->instances;
    for (int64_t c = 0; c < count; c++) {
        running_mean[c] = (float)((1 - weight) * (double)running_mean[c] + weight * means[c] / instances);
        running_var[c] =
            (float)((1 - weight) * (double)running_var[c] + weight * vars[c] * unbiased / instances);
    }
}

static void forward_block(void *context, int64_t index, int slot) {
    (void)slot;
    const job *j = context;
    int64_t first;
    const gd_channels shape = block_of(j, index, &first);
    const float *weight = param_data(j, 0), *bias = param_data(j, 1);
    float *saved = j->call->saved[0].data;
    float mean[BLOCK], scale[BLOCK], shift[BLOCK];
    double var[BLOCK], means[BLOCK] = {0}, vars[BLOCK] = {0};
    for (int64_t i = 0; i < j->instances; i++) {
        const int64_t at = place_of(j, i, first);
        const float *x = (const float *)j->call->inputs[0].data + at;
        statistics(j, &shape, x, first, mean, var);
        for (int64_t c = 0; c < shape.count; c++) {
            const float inverse = (float)(1 / sqrt(var[c] + j->attrs->eps));
            scale[c] = inverse * or_else(weight, first + c, 1);
            shift[c] = or_else(bias, first + c, 0);
            means[c] += (double)mean[c];
            vars[c] += var[c];
            if (saved) {
                saved[i * shape.channels + first + c] = mean[c];
                saved[(j->instances + i) * shape.channels + first + c] = inverse;
            }
        }
        gd_channels_scale(&shape, x, mean, scale, shift, j->call->relu,
                          (float *)j->call->outputs[0].data + at);
    }
    if (j->call->training && j->attrs->track_running_stats)
        track(j, first, shape.count, means, vars);
}

static void forward(const gd_call *call, bool by_sample) {
    job j = job_of(call, by_sample);
    int64_t *batches = param_data(&j, 4);
    j.own = call->training || !j.attrs->track_running_stats;
    j.momentum = j.attrs->momentum;
    if (call->training && batches && !by_sample) /* torch's InstanceNorm does not count */
        ++*batches;
    if (isnan(j.momentum))
        j.momentum = batches && !by_sample && *batches > 0 ? 1 / (double)*batches : 0;
    if (call->saved[1].data)
        *(int32_t *)call->saved[1].data = j.own;
    run(&j, forward_block);
}

/* With m values per channel and x' = x - mean, s = 1 / sqrt(var + eps), g = weight:
 *   dweight += s sum(dy x'), dbias += sum(dy)
 *   dx = g s (dy - sum(dy) / m - x' s^2 sum(dy x') / m); of given statistics: dx = g s dy. */
static void backward_block(void *context, int64_t index, int slot) {
    (void)slot;
    const job *j = context;
    const gd_call *call = j->call;
    int64_t first;
    const gd_channels shape = block_of(j, index, &first);
    const double count = (double)(shape.samples * shape.size);
    const float *weight = param_data(j, 0), *saved = call->saved[0].data;
    float p[BLOCK], q[BLOCK], r[BLOCK];
    double sums[BLOCK], dots[BLOCK], dweight[BLOCK] = {0}, dbias[BLOCK] = {0};
    for (int64_t i = 0; i < j->instances; i++) {
        const int64_t at = place_of(j, i, first);
        const float *x = (const float *)call->inputs[0].data + at,
                    *dy = (const float *)call->output_grads[0].data + at;
        const float *mean = saved + i * shape.channels + first,
                    *inverse = mean + j->instances * shape.channels;
        gd_channels_dot(&shape, dy, x, mean, sums, dots);
        for (int64_t c = 0; c < shape.count; c++) {
            const double s = (double)inverse[c], g = (double)or_else(weight, first + c, 1);
            dbias[c] += sums[c];
            dweight[c] += dots[c] * s;
            p[c] = (float)(g * s);
            q[c] = j->own ? (float)(g * s * sums[c] / count) : 0;
            r[c] = j->own ? (float)(g * s * s * s * dots[c] / count) : 0;
        }
        if (call->input_grads[0].data)
            gd_channels_back(&shape, dy, x, mean, p, q, r, call->accumulate[0],
                             (float *)call->input_grads[0].data + at);
    }
    float *dw = j->attrs->affine ? call->param_grads[0].data : NULL;
    float *db = j->attrs->affine ? call->param_grads[1].data : NULL;
    for (int64_t c = 0; c < shape.count; c++) {
        if (dw)
            dw[first + c] += (float)dweight[c];
        if (db)
            db[first + c] += (float)dbias[c];
    }
}

static void backward(const gd_call *call, bool by_sample) {
    job j = job_of(call, by_sample);
    j.own = *(const int32_t *)call->saved[1].data;
    run(&j, backward_block);
}

static void channel_norm_repr(FILE *out, const void *attrs) {
    const struct channel_norm *a = attrs;
    fprintf(out, "%" PRId64 ", eps=", a->num_features);
    gd_repr_float(out, a->eps);
    fputs(", momentum=", out);
    gd_repr_float(out, a->momentum);
    fprintf(out, ", affine=%s, track_running_stats=%s", a->affine ? "True" : "False",
            a->track_running_stats ? "True" : "False");
}

static void batch_norm_forward(const gd_call *call) {
    forward(call, false);
}

static void batch_norm_backward(const gd_call *call) {
    backward(call, false);
}

static int batch_norm1d_infer(gd_infer *infer) {
    return channel_norm_infer(infer, 3, 2, "[C] or [C, L]", false);
}

static int batch_norm2d_infer(gd_infer *infer) {
    return channel_norm_infer(infer, 4, 4, "[C, H, W]", false);
}

static int batch_norm3d_infer(gd_infer *infer) {
    return channel_norm_infer(infer, 5, 5, "[C, D, H, W]", false);
}

#define BATCH_NORM(module_name, infer_function, text) \
    .kind = {.module = (module_name), \
             .doc = (text), \
             GD_ATTRS(struct channel_norm, batch_norm_attrs), \
             GD_PARAMS(channel_norm_params)}, \
    .min_inputs = 1, .max_inputs = 1, .flags = GD_SAVES_INPUT | GD_THEN_RELU, .infer = (infer_function), \
    .check_training = batch_norm_check_training, .forward = batch_norm_forward, \
    .backward = batch_norm_backward, .repr = channel_norm_repr, .grad_name = "NativeBatchNormBackward0"

const gd_op gd_op_batch_norm1d = {BATCH_NORM(
    "BatchNorm1d", batch_norm1d_infer, "Normalises each channel of (N, C) or (N, C, L) over the batch.")};
const gd_op gd_op_batch_norm2d = {
    BATCH_NORM("BatchNorm2d", batch_norm2d_infer, "Normalises each channel of (N, C, H, W) over the batch.")};
const gd_op gd_op_batch_norm3d = {BATCH_NORM("BatchNorm3d", batch_norm3d_infer,
                                             "Normalises each channel of (N, C, D, H, W) over the batch.")};

static int instance_norm1d_infer(gd_infer *infer) {
    return channel_norm_infer(infer, 3, 3, "[C, L]", true);
}

static int instance_norm2d_infer(gd_infer *infer) {
    return channel_norm_infer(infer, 4, 4, "[C, H, W]", true);
}

static int instance_norm3d_infer(gd_infer *infer) {
    return channel_norm_infer(infer, 5, 5, "[C, D, H, W]", true);
}

static void instance_norm_forward(const gd_call *call) {
    forward(call, true);
}

static void instance_norm_backward(const gd_call *call) {
    backward(call, true);
}

/* torch takes (N, C, ...) for one sample of N C channels, and weight and bias for N of each. */
static int instance_norm_grad_fn(const void *attrs, const gd_shape *inputs,
                                 gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct channel_norm *a = attrs;
    (void)inputs;
    nodes[0] = (gd_grad_fn){"ViewBackward0", {1}, 1};
    nodes[1] = (gd_grad_fn){
        "NativeBatchNormBackward0", {2, a->affine ? 3 : GD_NEXT_NONE, a->affine ? 4 : GD_NEXT_NONE}, 3};
    nodes[2] = (gd_grad_fn){"ViewBackward0", {GD_NEXT_INPUT(0)}, 1};
    nodes[3] = (gd_grad_fn){"RepeatBackward0", {GD_NEXT_PARAM(0)}, 1};
    nodes[4] = (gd_grad_fn){"RepeatBackward0", {GD_NEXT_PARAM(1)}, 1};
    return a->affine ? 5 : 3;
}

#define INSTANCE_NORM(module_name, infer_function, text) \
    .kind = {.module = (module_name), \
             .doc = (text), \
             GD_ATTRS(struct channel_norm, instance_norm_attrs), \
             GD_PARAMS(channel_norm_params)}, \
    .min_inputs = 1, .max_inputs = 1, .flags = GD_SAVES_INPUT | GD_THEN_RELU, .infer = (infer_function), \
    .forward = instance_norm_forward, .backward = instance_norm_backward, .repr = channel_norm_repr, \
    .grad_fn = instance_norm_grad_fn

const gd_op gd_op_instance_norm1d = {
    INSTANCE_NORM("InstanceNorm1d", instance_norm1d_infer, "Normalises each channel of each (C, L).")};
const gd_op gd_op_instance_norm2d = {
    INSTANCE_NORM("InstanceNorm2d", instance_norm2d_infer, "Normalises each channel of each (C, H, W).")};
const gd_op gd_op_instance_norm3d = {
    INSTANCE_NORM("InstanceNorm3d", instance_norm3d_infer, "Normalises each channel of each (C, D, H, W).")};
