/* pad.c -- borders around the trailing axes. Formulas: torch.nn.functional.pad, torch.nn.ConstantPad2d,
 * torch.nn.ReflectionPad2d, torch.nn.ReplicationPad2d. */
#include "engine/ops/pad.h"

#include <inttypes.h>

#include "engine/ops/window.h"

enum { MOST_PADS = 2 * GD_PAD_AXES };

gd_padding gd_padding_of(const gd_shape *input, gd_pad_mode mode, int axes, const int64_t *pads) {
    gd_padding p = {.mode = mode};
    for (int axis = 0; axis < GD_PAD_AXES; axis++) {
        const int back = GD_PAD_AXES - 1 - axis; /* 0: the last axis */
        const bool there = back < axes;
        p.in[axis] = there ? input->dim[input->rank - 1 - back] : 1;
        p.before[axis] = there ? pads[2 * back] : 0;
        p.out[axis] = p.in[axis] + (there ? pads[2 * back] + pads[2 * back + 1] : 0);
    }
    return p;
}

int gd_padding_infer(gd_infer *infer, const char *field, gd_pad_mode mode, int axes, const int64_t *pads,
                     gd_padding *ret_padding) {
    const gd_shape *x = &infer->inputs[0];
    for (int back = 0; back < axes; back++) {
        const int64_t in = x->dim[x->rank - 1 - back], before = pads[2 * back], after = pads[2 * back + 1];
        const int64_t larger = before > after ? before : after;
        const char *name = gd_window_axis(axes, axes - 1 - back);
        if (mode == GD_PAD_REFLECT && larger >= in)
            return gd_fail_field(infer->error, GD_E_SHAPE, field,
                                 "%s must be less than the input's %s (%" PRId64
                                 ") where it reflects, not %" PRId64,
                                 field, name, in, larger);
        if (mode == GD_PAD_CIRCULAR && larger > in)
            return gd_fail_field(infer->error, GD_E_SHAPE, field,
                                 "%s must be at most the input's %s (%" PRId64
                                 ") where it wraps around, not %" PRId64,
                                 field, name, in, larger);
        if (in + before + after < 1)
            return gd_fail_field(infer->error, GD_E_SHAPE, field,
                                 "%s (%" PRId64 " and %" PRId64 ") leaves nothing of the input's %s (%" PRId64
                                 ")",
                                 field, before, after, name, in);
    }
    *ret_padding = gd_padding_of(x, mode, axes, pads);
    return 0;
}

/* torch makes a circular border by copies into slices of an empty tensor: the image first, then each side
 * that has one, from what is there already. */
static int circular_grad_fn(int axes, const int64_t *pads, gd_grad_fn *nodes, int at) {
    int sides = 0, count = at;
    for (int i = 0; i < 2 * axes; i++)
        sides += pads[i] > 0;
    for (int i = 0; i < sides; i++, count += 2) {
        nodes[count] = (gd_grad_fn){"CopySlices", {count + 2, count + 1}, 2};
        nodes[count + 1] = (gd_grad_fn){"SliceBackward0", {count + 2}, 1};
    }
    nodes[count] = (gd_grad_fn){"CopySlices", {GD_NEXT_NONE, count + 1}, 2};
    count++;
    for (int i = 0; i < axes; i++, count++)
        nodes[count] = (gd_grad_fn){"SliceBackward0", {i + 1 < axes ? count + 1 : GD_NEXT_INPUT(0)}, 1};
    return count - at;
}

int gd_padding_grad_fn(gd_pad_mode mode, int axes, const int64_t *pads, gd_grad_fn *nodes, int at) {
    static const char *const names[][GD_PAD_AXES] = {
        [GD_PAD_CONSTANT] = {"ConstantPadNdBackward0", "ConstantPadNdBackward0", "ConstantPadNdBackward0"},
        [GD_PAD_REFLECT] = {"ReflectionPad1DBackward0", "ReflectionPad2DBackward0",
                            "ReflectionPad3DBackward0"},
        [GD_PAD_REPLICATE] = {"ReplicationPad1DBackward0", "ReplicationPad2DBackward0",
                              "ReplicationPad3DBackward0"},
    };
    if (mode == GD_PAD_CIRCULAR)
        return circular_grad_fn(axes, pads, nodes, at);
    nodes[at] = (gd_grad_fn){names[mode][axes - 1], {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

/* ---- forward and backward, of all of them ------------------------------------------------------------ */

static int64_t planes_of(const gd_shape *x, int axes) {
    return gd_numel_of(x, 0, x->rank - axes);
}

static int infer_border(gd_infer *infer, const char *field, gd_pad_mode mode, int axes, const int64_t *pads) {
    const gd_shape *x = &infer->inputs[0];
    if (x->rank <= axes || (mode != GD_PAD_CONSTANT && x->rank > axes + 2))
        return gd_window_wrong_rank(infer, axes);
    gd_padding p;
    int code = gd_padding_infer(infer, field, mode, axes, pads, &p);
    infer->outputs[0] = *x;
    for (int i = 0; i < axes; i++)
        infer->outputs[0].dim[x->rank - axes + i] = p.out[GD_PAD_AXES - axes + i];
    return code;
}

/* y = x, and around it what the mode says */
static void forward_border(const gd_call *call, gd_pad_mode mode, int axes, const int64_t *pads,
                           double value) {
    gd_padding p = gd_padding_of(&call->inputs[0].shape, mode, axes, pads);
    p.value = (float)value;
    gd_pad(&p, planes_of(&call->inputs[0].shape, axes), call->inputs[0].data, call->outputs[0].data);
}

/* dx = the sum of dy over the copies of x */
static void backward_border(const gd_call *call, gd_pad_mode mode, int axes, const int64_t *pads) {
    const gd_tensor *dx = &call->input_grads[0];
    const gd_padding p = gd_padding_of(&call->inputs[0].shape, mode, axes, pads);
    if (!dx->data)
        return;
    if (!call->accumulate[0])
        memset(dx->data, 0, gd_tensor_bytes(dx));
    gd_pad_back_add(&p, planes_of(&dx->shape, axes), call->output_grads[0].data, dx->data);
}

/* ---- modules: one mode and number of axes each --------------------------------------------------------- */

struct pad {
    int64_t padding[MOST_PADS];
    double value;
};

#define PADDING_ROW(n, text) \
    GD_INTN(struct pad, padding, 2 * (n), .required = true, \
            .doc = "elements added on each side (negative: cut off), the last axis first: " text)
#define PADDING_ROW_1 PADDING_ROW(1, "left, right")
#define PADDING_ROW_2 PADDING_ROW(2, "left, right, top, bottom")
#define PADDING_ROW_3 PADDING_ROW(3, "left, right, top, bottom, front, back")
#define VALUE_ROW GD_FLOAT(struct pad, value, .required = true, .doc = "what stands in the border")

static void pad_repr(FILE *out, const void *attrs, int axes) {
    gd_repr_tuple(out, "", ((const struct pad *)attrs)->padding, 2 * axes);
}

static void constant_pad_repr(FILE *out, const void *attrs, int axes) {
    gd_repr_tuple(out, "padding=", ((const struct pad *)attrs)->padding, 2 * axes);
    fputs(", value=", out);
    gd_repr_float(out, ((const struct pad *)attrs)->value);
}

/* The op gd_op_NAME: mode MODE over n axes. */
#define PAD_OP(NAME, MODULE, DOC, n, MODE, REPR, ...) \
    static const gd_attr NAME##_attrs[] = {__VA_ARGS__}; \
    static int NAME##_infer(gd_infer *infer) { \
        return infer_border(infer, "padding", MODE, n, ((struct pad *)infer->attrs)->padding); \
    } \
    static void NAME##_forward(const gd_call *call) { \
        const struct pad *a = call->attrs; \
        forward_border(call, MODE, n, a->padding, a->value); \
    } \
    static void NAME##_backward(const gd_call *call) { \
        backward_border(call, MODE, n, ((const struct pad *)call->attrs)->padding); \
    } \
    static void NAME##_repr(FILE *out, const void *attrs) { \
        REPR(out, attrs, n); \
    } \
    static int NAME##_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) { \
        (void)inputs; \
        return gd_padding_grad_fn(MODE, n, ((const struct pad *)attrs)->padding, nodes, 0); \
    } \
    const gd_op gd_op_##NAME = { \
        .kind = {.module = MODULE, .doc = DOC, GD_ATTRS(struct pad, NAME##_attrs)}, \
        .min_inputs = 1, \
        .max_inputs = 1, \
        .flags = GD_BATCH, \
        .infer = NAME##_infer, \
        .forward = NAME##_forward, \
        .backward = NAME##_backward, \
        .repr = NAME##_repr, \
        .grad_fn = NAME##_grad_fn, \
    }

PAD_OP(constant_pad1d, "ConstantPad1d", "A border of one value around (N, C, L).", 1, GD_PAD_CONSTANT,
       constant_pad_repr, PADDING_ROW_1, VALUE_ROW);
PAD_OP(constant_pad2d, "ConstantPad2d", "A border of one value around (N, C, H, W).", 2, GD_PAD_CONSTANT,
       constant_pad_repr, PADDING_ROW_2, VALUE_ROW);
PAD_OP(constant_pad3d, "ConstantPad3d", "A border of one value around (N, C, D, H, W).", 3, GD_PAD_CONSTANT,
       constant_pad_repr, PADDING_ROW_3, VALUE_ROW);
PAD_OP(zero_pad2d, "ZeroPad2d", "A border of zeros around (N, C, H, W).", 2, GD_PAD_CONSTANT, pad_repr,
       PADDING_ROW_2);
PAD_OP(reflection_pad1d, "ReflectionPad1d", "A border that mirrors (N, C, L).", 1, GD_PAD_REFLECT, pad_repr,
       PADDING_ROW_1);
PAD_OP(reflection_pad2d, "ReflectionPad2d", "A border that mirrors (N, C, H, W).", 2, GD_PAD_REFLECT,
       pad_repr, PADDING_ROW_2);
PAD_OP(reflection_pad3d, "ReflectionPad3d", "A border that mirrors (N, C, D, H, W).", 3, GD_PAD_REFLECT,
       pad_repr, PADDING_ROW_3);
PAD_OP(replication_pad1d, "ReplicationPad1d", "A border that repeats the edge of (N, C, L).", 1,
       GD_PAD_REPLICATE, pad_repr, PADDING_ROW_1);
PAD_OP(replication_pad2d, "ReplicationPad2d", "A border that repeats the edge of (N, C, H, W).", 2,
       GD_PAD_REPLICATE, pad_repr, PADDING_ROW_2);
PAD_OP(replication_pad3d, "ReplicationPad3d", "A border that repeats the edge of (N, C, D, H, W).", 3,
       GD_PAD_REPLICATE, pad_repr, PADDING_ROW_3);

/* ---- the function: any mode ---------------------------------------------------------------------------- */

struct pad_any {
    gd_ints pad;
    int mode;
    double value;
};

static const char *const modes[] = {"constant", "reflect", "replicate", "circular", NULL};

static const gd_attr pad_any_attrs[] = {
    GD_INTS(struct pad_any, pad, .required = true,
            .doc = "elements added before and after each axis, the last axis first: left, right, top, ..."),
    GD_CHOICE(struct pad_any, mode, .choices = modes, .doc = "what stands in the border"),
    GD_FLOAT(struct pad_any, value, .doc = "the constant"),
};

static int pad_any_axes(const struct pad_any *a) {
    return (int)(a->pad.count / 2);
}

static int pad_any_infer(gd_infer *infer) {
    const struct pad_any *a = infer->attrs;
    const int axes = pad_any_axes(a), rank = infer->inputs[0].rank;
    char text[128];
    if (a->pad.count < 2 || a->pad.count > MOST_PADS || a->pad.count % 2)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "pad", "pad must have 2, 4 or 6 numbers, not %zu",
                             a->pad.count);
    if (axes >= rank || (a->mode != GD_PAD_CONSTANT && rank > axes + 2))
        return gd_fail_field(infer->error, GD_E_SHAPE, "pad",
                             "pad has %zu numbers, for %d axes, but the samples are %s; %s", a->pad.count,
                             axes, gd_sample_text(&infer->inputs[0], text, sizeof text),
                             axes >= rank ? "give two per axis, and none for the batch"
                                          : "give two for each axis after the channels");
    return infer_border(infer, "pad", (gd_pad_mode)a->mode, axes, a->pad.data);
}

static void pad_any_forward(const gd_call *call) {
    const struct pad_any *a = call->attrs;
    forward_border(call, (gd_pad_mode)a->mode, pad_any_axes(a), a->pad.data, a->value);
}

static void pad_any_backward(const gd_call *call) {
    const struct pad_any *a = call->attrs;
    backward_border(call, (gd_pad_mode)a->mode, pad_any_axes(a), a->pad.data);
}

static int pad_any_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn *nodes) {
    const struct pad_any *a = attrs;
    (void)inputs;
    return gd_padding_grad_fn((gd_pad_mode)a->mode, pad_any_axes(a), a->pad.data, nodes, 0);
}

const gd_op gd_op_pad = {
    .kind = {.function = "pad",
             .doc = "A border around the last axes, 1 to 3 of them.",
             GD_ATTRS(struct pad_any, pad_any_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = pad_any_infer,
    .forward = pad_any_forward,
    .backward = pad_any_backward,
    .grad_fn = pad_any_grad_fn,
};
