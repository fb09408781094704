/* arithmetic.c -- sums with torch's broadcasting. Formula: torch.add. */
#include <inttypes.h>

#include "engine/graph/op.h"

struct add {
    double alpha;
};

static const gd_attr add_attrs[] = {
    GD_FLOAT(struct add, alpha, .number = 1, .doc = "factor of the second input"),
};

/* Axes of size 1 are repeated. Ranks must agree: torch lines shapes up at the right, which would put the
 * batch axis beside another one. */
static int add_infer(gd_infer *infer) {
    const gd_shape *x = &infer->inputs[0], *z = &infer->inputs[1];
    char a[128], b[128];
    bool fits = x->rank == z->rank;
    infer->outputs[0] = *x;
    for (int i = 0; fits && i < x->rank; i++) {
        fits = x->dim[i] == z->dim[i] || (i > 0 && (x->dim[i] == 1 || z->dim[i] == 1));
        infer->outputs[0].dim[i] = x->dim[i] == 1 ? z->dim[i] : x->dim[i];
    }
    if (!fits)
        return gd_fail(
            infer->error, GD_E_SHAPE,
            "cannot add samples of %s and %s: axes must be equal in number, and each pair of sizes "
            "equal or one of them 1",
            gd_sample_text(x, a, sizeof a), gd_sample_text(z, b, sizeof b));
    return 0;
}

/* Walks the output and, beside it, an input that may be repeated along some axes. */
typedef struct walk {
    int rank;
    int64_t size[GD_MAX_RANK], step[GD_MAX_RANK], at[GD_MAX_RANK];
    int64_t offset; /* in the input */
} walk;

static walk walk_of(const gd_shape *input, const gd_shape *output) {
    walk w = {.rank = output->rank};
    int64_t step = 1;
    for (int i = output->rank - 1; i >= 0; i--) {
        w.size[i] = output->dim[i];
        w.step[i] = input->dim[i] == 1 ? 0 : step;
        step *= input->dim[i];
    }
    return w;
}

static void advance(walk *w) {
    for (int i = w->rank - 1; i >= 0; i--) {
        w->offset += w->step[i];
        if (++w->at[i] < w->size[i])
            return;
        w->offset -= w->step[i] * w->size[i];
        w->at[i] = 0;
    }
}

/* y = x + alpha z */
static void add_forward(const gd_call *call) {
    const float alpha = (float)((const struct add *)call->attrs)->alpha;
    const gd_tensor *out = &call->outputs[0];
    const float *x = call->inputs[0].data, *z = call->inputs[1].data;
    float *y = out->data;
    const int64_t count = gd_numel(&out->shape);
    if (gd_shape_equal(&call->inputs[0].shape, &call->inputs[1].shape)) {
        for (int64_t i = 0; i < count; i++)
            y[i] = x[i] + alpha * z[i];
        return;
    }
    walk u = walk_of(&call->inputs[0].shape, &out->shape), v = walk_of(&call->inputs[1].shape, &out->shape);
    for (int64_t i = 0; i < count; i++, advance(&u), advance(&v))
        y[i] = x[u.offset] + alpha * z[v.offset];
}

/* dx = dy summed over the axes along which x was repeated; dz the same, times alpha. */
static void add_backward(const gd_call *call) {
    const gd_tensor *out = &call->output_grads[0];
    const float *dy = out->data;
    const int64_t count = gd_numel(&out->shape);
    for (int input = 0; input < 2; input++) {
        const gd_tensor *grad = &call->input_grads[input];
        const float factor = input ? (float)((const struct add *)call->attrs)->alpha : 1.0F;
        float *dx = grad->data;
        if (!dx)
            continue;
        if (!call->accumulate[input])
            memset(dx, 0, gd_tensor_bytes(grad));
        if (gd_shape_equal(&grad->shape, &out->shape)) {
            for (int64_t i = 0; i < count; i++)
                dx[i] += factor * dy[i];
            continue;
        }
        walk w = walk_of(&grad->shape, &out->shape);
        for (int64_t i = 0; i < count; i++, advance(&w))
            dx[w.offset] += factor * dy[i];
    }
}

const gd_op gd_op_add = {
    .kind = {.function = "add",
             .doc = "Sum of two inputs, the second times alpha, with broadcasting.",
             GD_ATTRS(struct add, add_attrs)},
    .min_inputs = 2,
    .max_inputs = 2,
    .flags = GD_BATCH,
    .infer = add_infer,
    .forward = add_forward,
    .backward = add_backward,
    .grad_name = "AddBackward0",
};
