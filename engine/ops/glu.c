/* glu.c -- the gated linear unit. Formula: torch.nn.GLU. */
#include <inttypes.h>

#include "engine/kernels/math.h"
#include "engine/ops/axes.h"

struct glu {
    int64_t dim;
};

static const gd_attr glu_attrs[] = {
    GD_INT(struct glu, dim, .number = -1, .doc = "axis that is halved, the batch being 0"),
};

static int glu_infer(gd_infer *infer) {
    const struct glu *a = infer->attrs;
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    infer->outputs[0] = infer->inputs[0];
    const int64_t size = infer->inputs[0].dim[axis];
    if (size % 2)
        return gd_fail_field(infer->error, GD_E_SHAPE, "dim",
                             "axis %d (dim %" PRId64 ") is halved, so its size must be even, not %" PRId64,
                             axis, a->dim, size);
    infer->outputs[0].dim[axis] = size / 2;
    return 0;
}

/* Elements of half of one block: an input is (blocks, 2, this), an output (blocks, this). */
static int64_t half_of(const gd_call *call) {
    const gd_shape *y = &call->outputs[0].shape;
    return gd_numel_of(y, gd_axis_of(((const struct glu *)call->attrs)->dim, y->rank), y->rank);
}

/* y = a sigmoid(b), where the input is a and then b */
static void glu_forward(const gd_call *call) {
    const int64_t half = half_of(call), count = gd_numel(&call->outputs[0].shape);
    for (int64_t at = 0; at < count; at += half) {
        const float *a = (const float *)call->inputs[0].data + 2 * at, *b = a + half;
        float *y = (float *)call->outputs[0].data + at;
#pragma omp simd
        for (int64_t i = 0; i < half; i++)
            y[i] = a[i] * gd_sigmoid(b[i]);
    }
}

/* da = dy s, db = dy a s (1 - s), with s = sigmoid(b) */
static void glu_backward(const gd_call *call) {
    const int64_t half = half_of(call), count = gd_numel(&call->outputs[0].shape);
    const bool accumulate = call->accumulate[0];
    for (int64_t at = 0; call->input_grads[0].data && at < count; at += half) {
        const float *a = (const float *)call->inputs[0].data + 2 * at, *b = a + half;
        const float *dy = (const float *)call->output_grads[0].data + at;
        float *da = (float *)call->input_grads[0].data + 2 * at, *db = da + half;
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
            const float s = gd_sigmoid(b[i]);
            da[i] = (accumulate ? da[i] : 0) + dy[i] * s;
            db[i] = (accumulate ? db[i] : 0) + dy[i] * a[i] * s * (1 - s);
        }
    }
}

static void glu_repr(FILE *out, const void *attrs) {
    fprintf(out, "dim=%" PRId64, ((const struct glu *)attrs)->dim);
}

const gd_op gd_op_glu = {
    .kind = {.module = "GLU",
             .function = "glu",
             .doc = "Half of an axis, gated by the sigmoid of the other half.",
             GD_ATTRS(struct glu, glu_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = glu_infer,
    .forward = glu_forward,
    .backward = glu_backward,
    .repr = glu_repr,
    .grad_name = "GluBackward0",
};
