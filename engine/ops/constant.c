/* constant.c -- values that are part of the network's definition: torch.tensor(data).reshape(shape), and
 * torch.arange. They do not depend on the batch (a batch axis of -1) and are never trained. */
#include <inttypes.h>

#include "engine/graph/op.h"

struct constant {
    gd_floats data;
    gd_ints shape;
    int dtype; /* index into constant_dtypes */
};

static const char *const constant_dtypes[] = {"float32", "int64", NULL};

static const gd_attr constant_attrs[] = {
    GD_FLOATS(struct constant, data, .required = true, .doc = "the values, row by row"),
    GD_INTS(struct constant, shape, .min = 1, .doc = "its sizes; left out: one axis; there is no batch axis"),
    GD_CHOICE(struct constant, dtype, .choices = constant_dtypes, .doc = "element type"),
};

static int check_integers(const struct constant *a, int64_t *ret_limit, gd_error *error) {
    int64_t least = 0, most = 0;
    for (size_t i = 0; i < a->data.count; i++)
        if (a->data.data[i] != floor(a->data.data[i]) || fabs(a->data.data[i]) > 0x1p53)
            return gd_fail_field(error, GD_E_ATTRIBUTE, "data",
                                 "with dtype int64 data must hold integers of at most 2^53, not %.17g",
                                 a->data.data[i]);
    for (size_t i = 0; i < a->data.count; i++) {
        const int64_t value = (int64_t)a->data.data[i];
        least = value < least ? value : least;
        most = value > most ? value : most;
    }
    *ret_limit = least < 0 ? 0 : most + 1;
    return 0;
}

static int constant_infer(gd_infer *infer) {
    const struct constant *a = infer->attrs;
    gd_shape *y = &infer->outputs[0];
    char text[128];
    size_t bytes;
    infer->axes[0] = -1;
    if (a->shape.count > GD_MAX_RANK)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "shape",
                             "shape must have at most %d axes, not %zu", GD_MAX_RANK, a->shape.count);
    *y = (gd_shape){.rank = (int)a->shape.count};
    for (int i = 0; i < y->rank; i++)
        y->dim[i] = a->shape.data[i];
    if (!y->rank && a->data.count != 1)
        *y = GD_SHAPE((int64_t)a->data.count);
    int code = gd_shape_bytes(y, GD_FLOAT32, &bytes, infer->error);
    if (code)
        return code;
    if (gd_numel(y) != (int64_t)a->data.count)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "data",
                             "data holds %zu values, but the shape %s takes %" PRId64, a->data.count,
                             gd_shape_text(y, text, sizeof text), gd_numel(y));
    infer->dtypes[0] = a->dtype ? GD_INT64 : GD_FLOAT32;
    return a->dtype ? check_integers(a, &infer->limits[0], infer->error) : 0;
}

static void constant_forward(const gd_call *call) {
    const struct constant *a = call->attrs;
    float *y = call->outputs[0].data;
    int64_t *integers = call->outputs[0].data;
    for (size_t i = 0; i < a->data.count; i++)
        if (a->dtype)
            integers[i] = (int64_t)a->data.data[i];
        else
            y[i] = (float)a->data.data[i];
}

static void no_backward(const gd_call *call) {
    (void)call;
}

static int no_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs, (void)inputs, (void)nodes;
    return 0;
}

struct arange {
    int64_t end, start, step;
};

static const gd_attr arange_attrs[] = {
    GD_INT(struct arange, end, .required = true, .doc = "where to stop, itself not included"),
    GD_INT(struct arange, start, .doc = "the first value"),
    GD_INT(struct arange, step, .number = 1, .doc = "from one value to the next"),
};

static int arange_infer(gd_infer *infer) {
    const struct arange *a = infer->attrs;
    const int64_t way = a->end - a->start; /* attributes are of 32 bits */
    if (a->step == 0 || way == 0 || (way > 0) != (a->step > 0))
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, a->step ? "end" : "step",
                             "steps of %" PRId64 " from %" PRId64 " do not lead to %" PRId64, a->step,
                             a->start, a->end);
    infer->outputs[0] = GD_SHAPE((way + a->step - (a->step > 0 ? 1 : -1)) / a->step);
    infer->axes[0] = -1;
    infer->dtypes[0] = GD_INT64;
    const int64_t last = a->start + (infer->outputs[0].dim[0] - 1) * a->step;
    if (a->start >= 0 && last >= 0)
        infer->limits[0] = (last > a->start ? last : a->start) + 1;
    return 0;
}

static void arange_forward(const gd_call *call) {
    const struct arange *a = call->attrs;
    int64_t *y = call->outputs[0].data;
    for (int64_t i = 0; i < call->outputs[0].shape.dim[0]; i++)
        y[i] = a->start + i * a->step;
}

const gd_op gd_op_constant = {
    .kind = {.function = "constant",
             .doc = "Fixed values, the same for every sample; takes no inputs and has no batch axis.",
             GD_ATTRS(struct constant, constant_attrs)},
    .infer = constant_infer,
    .forward = constant_forward,
    .backward = no_backward,
    .grad_fn = no_grad_fn,
};

const gd_op gd_op_arange = {
    .kind = {.function = "arange",
             .doc = "int64 values from start to before end, such as positions; no inputs, no batch axis.",
             GD_ATTRS(struct arange, arange_attrs)},
    .infer = arange_infer,
    .forward = arange_forward,
    .backward = no_backward,
    .grad_fn = no_grad_fn,
};
