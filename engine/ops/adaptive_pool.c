/* adaptive_pool.c -- pooling into a given number of windows.
 * Formulas: torch.nn.AdaptiveAvgPool2d, torch.nn.AdaptiveMaxPool2d. */
#include <inttypes.h>

#include "engine/kernels/pool.h"
#include "engine/ops/pool.h"

struct adaptive_pool {
    int64_t output_size[GD_WINDOW_AXES]; /* GD_NONE: as the input */
};

static const gd_attr adaptive_pool1d_attrs[] = {
    GD_INTN(struct adaptive_pool, output_size, 1, .min = 1, .required = true, .doc = "number of windows"),
};
static const gd_attr adaptive_pool2d_attrs[] = {
    GD_INTN(struct adaptive_pool, output_size, 2, .min = 1, .required = true, .nullable = true,
            .doc = "number of windows per axis; null: as many as the input has elements"),
};
static const gd_attr adaptive_pool3d_attrs[] = {
    GD_INTN(struct adaptive_pool, output_size, 3, .min = 1, .required = true, .nullable = true,
            .doc = "number of windows per axis; null: as many as the input has elements"),
};

static int64_t output_size(const struct adaptive_pool *a, const gd_shape *x, int axis) {
    return a->output_size[axis] == GD_NONE ? x->dim[2 + axis] : a->output_size[axis];
}

static int adaptive_infer(gd_infer *infer, int axes) {
    const gd_shape *x = &infer->inputs[0];
    if (x->rank != axes + 2)
        return gd_window_wrong_rank(infer, axes);
    infer->outputs[0] = *x;
    for (int axis = 0; axis < axes; axis++)
        infer->outputs[0].dim[2 + axis] = output_size(infer->attrs, x, axis);
    return 0;
}

static int max_infer(gd_infer *infer, int axes) {
    int code = adaptive_infer(infer, axes);
    infer->saved[0] = (gd_tensor){.dtype = GD_INT32, .shape = infer->outputs[0]}; /* argmax in the plane */
    infer->saved_count = 1;
    return code;
}

static int adaptive_avg_pool1d_infer(gd_infer *infer) {
    return adaptive_infer(infer, 1);
}

static int adaptive_avg_pool2d_infer(gd_infer *infer) {
    return adaptive_infer(infer, 2);
}

static int adaptive_avg_pool3d_infer(gd_infer *infer) {
    return adaptive_infer(infer, 3);
}

static int adaptive_max_pool1d_infer(gd_infer *infer) {
    return max_infer(infer, 1);
}

static int adaptive_max_pool2d_infer(gd_infer *infer) {
    return max_infer(infer, 2);
}

static int adaptive_max_pool3d_infer(gd_infer *infer) {
    return max_infer(infer, 3);
}

/* Only sizes of the input and the output count. */
static gd_window window_of(const gd_call *call) {
    static const int64_t ones[GD_WINDOW_AXES] = {1, 1, 1}, zeros[GD_WINDOW_AXES] = {0, 0, 0};
    return gd_window_of(&call->inputs[0].shape, &call->outputs[0].shape, ones, ones, zeros, ones);
}

static int64_t planes_of(const gd_call *call) {
    return gd_numel_of(&call->inputs[0].shape, 0, 2);
}

static void avg_forward(const gd_call *call) {
    const gd_window w = window_of(call);
    gd_adaptive_avg_pool(&w, planes_of(call), call->inputs[0].data, call->outputs[0].data);
}

static void avg_backward(const gd_call *call) {
    const gd_window w = window_of(call);
    if (gd_pool_clear(call))
        gd_adaptive_avg_pool_backward(&w, planes_of(call), call->output_grads[0].data,
                                      call->input_grads[0].data);
}

static void max_forward(const gd_call *call) {
    const gd_window w = window_of(call);
    gd_adaptive_max_pool(&w, planes_of(call), call->inputs[0].data, call->outputs[0].data,
                         call->saved[0].data);
}

static void max_backward(const gd_call *call) {
    const gd_window w = window_of(call);
    if (gd_pool_clear(call))
        gd_max_pool_backward(&w, planes_of(call), NULL, call->output_grads[0].data, call->saved[0].data,
                             call->input_grads[0].data);
}

static void adaptive_repr(FILE *out, const struct adaptive_pool *a, int axes) {
    if (a->output_size[0] != GD_NONE && gd_all_are(a->output_size, axes, a->output_size[0])) {
        fprintf(out, "output_size=%" PRId64, a->output_size[0]);
        return;
    }
    for (int axis = 0; axis < axes; axis++) {
        fputs(axis ? ", " : "output_size=(", out);
        if (a->output_size[axis] == GD_NONE)
            fputs("None", out);
        else
            fprintf(out, "%" PRId64, a->output_size[axis]);
    }
    fputc(')', out);
}

static void adaptive_pool1d_repr(FILE *out, const void *attrs) {
    adaptive_repr(out, attrs, 1);
}

static void adaptive_pool2d_repr(FILE *out, const void *attrs) {
    adaptive_repr(out, attrs, 2);
}

static void adaptive_pool3d_repr(FILE *out, const void *attrs) {
    adaptive_repr(out, attrs, 3);
}

/* torch averages into one window with mean(). */
static const char *avg_name(const void *attrs, const gd_shape *x, int axes, const char *name) {
    for (int axis = 0; axis < axes; axis++)
        if (output_size(attrs, x, axis) != 1)
            return name;
    return "MeanBackward1";
}

static int avg1d_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    return gd_pool_grad_fn_1d(avg_name(attrs, &inputs[0], 1, "AdaptiveAvgPool2DBackward0"), nodes);
}

static int avg2d_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    nodes[0] =
        (gd_grad_fn){avg_name(attrs, &inputs[0], 2, "AdaptiveAvgPool2DBackward0"), {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

static int avg3d_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    nodes[0] =
        (gd_grad_fn){avg_name(attrs, &inputs[0], 3, "AdaptiveAvgPool3DBackward0"), {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

static int max1d_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    (void)attrs;
    (void)inputs;
    return gd_pool_grad_fn_1d("AdaptiveMaxPool2DBackward0", nodes);
}

/* clang-format off */
#define ADAPTIVE(kind_name, axes, which, module_name, text) \
    .kind = {.module = module_name, \
             .function = #kind_name, \
             .doc = text, \
             GD_ATTRS(struct adaptive_pool, adaptive_pool##axes##d_attrs)}, \
    .min_inputs = 1, .max_inputs = 1, .flags = GD_BATCH, .infer = kind_name##_infer, \
    .forward = which##_forward, .backward = which##_backward, .repr = adaptive_pool##axes##d_repr
/* clang-format on */

const gd_op gd_op_adaptive_avg_pool1d = {
    ADAPTIVE(adaptive_avg_pool1d, 1, avg, "AdaptiveAvgPool1d", "Average of (N, C, L) in equal parts."),
    .grad_fn = avg1d_grad_fn,
};
const gd_op gd_op_adaptive_avg_pool2d = {
    ADAPTIVE(adaptive_avg_pool2d, 2, avg, "AdaptiveAvgPool2d", "Average of (N, C, H, W) in equal parts."),
    .grad_fn = avg2d_grad_fn,
};
const gd_op gd_op_adaptive_avg_pool3d = {
    ADAPTIVE(adaptive_avg_pool3d, 3, avg, "AdaptiveAvgPool3d", "Average of (N, C, D, H, W) in equal parts."),
    .grad_fn = avg3d_grad_fn,
};
const gd_op gd_op_adaptive_max_pool1d = {
    ADAPTIVE(adaptive_max_pool1d, 1, max, "AdaptiveMaxPool1d", "Maximum of (N, C, L) in equal parts."),
    .grad_fn = max1d_grad_fn,
};
const gd_op gd_op_adaptive_max_pool2d = {
    ADAPTIVE(adaptive_max_pool2d, 2, max, "AdaptiveMaxPool2d", "Maximum of (N, C, H, W) in equal parts."),
    .grad_name = "AdaptiveMaxPool2DBackward0",
};
const gd_op gd_op_adaptive_max_pool3d = {
    ADAPTIVE(adaptive_max_pool3d, 3, max, "AdaptiveMaxPool3d", "Maximum of (N, C, D, H, W) in equal parts."),
    .grad_name = "AdaptiveMaxPool3DBackward0",
};
