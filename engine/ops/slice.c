/* slice.c -- parts of an axis: torch.narrow, slicing, select, split and chunk. Samples are kept apart, so
 * the axis is never the batch. */
#include <inttypes.h>

#include "engine/kernels/strided.h"
#include "engine/ops/axes.h"

/* One output: elements at, at + step, ... of an axis, `count` of them. */
typedef struct window {
    int axis;
    int64_t at, step, count;
} window;

/* What output `output` is of an input of shape x. */
typedef window (*window_of)(const void *attrs, const gd_shape *x, int output);

static gd_box box_of(const gd_shape *x, const window *w) {
    gd_shape y = *x;
    y.dim[w->axis] = w->count;
    gd_box box = gd_box_of(&y);
    gd_row_major(x, box.x_step);
    box.x_at = w->at * box.x_step[w->axis];
    box.x_step[w->axis] *= w->step;
    return box;
}

static void forward(const gd_call *call, window_of of, int outputs) {
    for (int k = 0; k < outputs; k++) {
        const window w = of(call->attrs, &call->inputs[0].shape, k);
        const gd_box box = box_of(&call->inputs[0].shape, &w);
        gd_box_copy(&box, call->inputs[0].data, call->outputs[k].data);
    }
}

/* dx is dy in the windows, and zero elsewhere. */
static void backward(const gd_call *call, window_of of, int outputs) {
    const gd_tensor *dx = &call->input_grads[0];
    if (!dx->data)
        return;
    if (!call->accumulate[0])
        memset(dx->data, 0, gd_tensor_bytes(dx));
    for (int k = 0; k < outputs; k++) {
        const window w = of(call->attrs, &dx->shape, k);
        const gd_box box = box_of(&dx->shape, &w);
        if (call->output_grads[k].data)
            gd_box_return(&box, dx->data, call->output_grads[k].data, call->accumulate[0]);
    }
}

/* ---- narrow ------------------------------------------------------------------------------------------ */

struct narrow {
    int64_t dim, start, length;
};

static const gd_attr narrow_attrs[] = {
    GD_INT(struct narrow, dim, .required = true, .doc = "axis to take a part of; not the batch"),
    GD_INT(struct narrow, start, .required = true, .doc = "first element; negative: counted from the end"),
    GD_INT(struct narrow, length, .required = true, .min = 1, .doc = "how many"),
};

static window narrow_window(const void *attrs, const gd_shape *x, int output) {
    const struct narrow *a = attrs;
    (void)output;
    const int axis = gd_axis_of(a->dim, x->rank);
    return (window){axis, a->start < 0 ? a->start + x->dim[axis] : a->start, 1, a->length};
}

static int narrow_infer(gd_infer *infer) {
    const struct narrow *a = infer->attrs;
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    const int64_t size = infer->inputs[0].dim[axis];
    const window w = narrow_window(a, &infer->inputs[0], 0);
    if (w.at < 0 || w.at >= size || w.count > size - w.at)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, w.at < 0 || w.at >= size ? "start" : "length",
                             "start %" PRId64 " and length %" PRId64 " do not lie within axis %d, which has "
                             "%" PRId64,
                             a->start, a->length, axis, size);
    infer->outputs[0] = infer->inputs[0];
    infer->outputs[0].dim[axis] = a->length;
    return 0;
}

static void narrow_forward(const gd_call *call) {
    forward(call, narrow_window, 1);
}

static void narrow_backward(const gd_call *call) {
    backward(call, narrow_window, 1);
}

const gd_op gd_op_narrow = {
    .kind = {.function = "narrow", .doc = "A stretch of an axis.", GD_ATTRS(struct narrow, narrow_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = narrow_infer,
    .forward = narrow_forward,
    .backward = narrow_backward,
    .grad_name = "SliceBackward0",
};

/* ---- slice: start:end:step as Python has it ------------------------------------------------------------ */

struct slice {
    int64_t dim, start, end, step;
};

static const gd_attr slice_attrs[] = {
    GD_INT(struct slice, dim, .required = true, .doc = "axis to take a part of; not the batch"),
    GD_INT(struct slice, start, .nullable = true, .number = NAN,
           .doc = "first element, negative: counted from the end; null: the first"),
    GD_INT(struct slice, end, .nullable = true, .number = NAN,
           .doc = "where to stop, negative: counted from the end; null: after the last"),
    GD_INT(struct slice, step, .number = 1, .min = 1, .doc = "every how many-th"),
};

/* An end of a slice as an index 0 ... size, as Python clips it. */
static int64_t clipped(int64_t given, int64_t size, int64_t absent) {
    if (given == GD_NONE)
        return absent;
    given += given < 0 ? size : 0;
    if (given < 0)
        return 0;
    return given < size ? given : size;
}

static window slice_window(const void *attrs, const gd_shape *x, int output) {
    const struct slice *a = attrs;
    (void)output;
    const int axis = gd_axis_of(a->dim, x->rank);
    const int64_t size = x->dim[axis];
    const int64_t from = clipped(a->start, size, 0), to = clipped(a->end, size, size);
    return (window){axis, from, a->step, to > from ? (to - from - 1) / a->step + 1 : 0};
}

static int slice_infer(gd_infer *infer) {
    const struct slice *a = infer->attrs;
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    const window w = slice_window(a, &infer->inputs[0], 0);
    if (w.count == 0)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "end",
                             "nothing lies between start and end on axis %d, which has %" PRId64
                             "; start must come before end",
                             axis, infer->inputs[0].dim[axis]);
    infer->outputs[0] = infer->inputs[0];
    infer->outputs[0].dim[axis] = w.count;
    return 0;
}

static void slice_forward(const gd_call *call) {
    forward(call, slice_window, 1);
}

static void slice_backward(const gd_call *call) {
    backward(call, slice_window, 1);
}

const gd_op gd_op_slice = {
    .kind = {.function = "slice",
             .doc = "Part of an axis, start:end:step as Python slices.",
             GD_ATTRS(struct slice, slice_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = slice_infer,
    .forward = slice_forward,
    .backward = slice_backward,
    .grad_name = "SliceBackward0",
};

/* ---- select: one element of an axis, which goes away ------------------------------------------------ */

struct select {
    int64_t dim, index;
};

static const gd_attr select_attrs[] = {
    GD_INT(struct select, dim, .required = true, .doc = "axis to take one element of; not the batch"),
    GD_INT(struct select, index, .required = true, .doc = "which; negative: counted from the end"),
};

static window select_window(const void *attrs, const gd_shape *x, int output) {
    const struct select *a = attrs;
    (void)output;
    const int axis = gd_axis_of(a->dim, x->rank);
    return (window){axis, a->index < 0 ? a->index + x->dim[axis] : a->index, 1, 1};
}

static int select_infer(gd_infer *infer) {
    const struct select *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    gd_shape *y = &infer->outputs[0];
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    const window w = select_window(a, x, 0);
    if (w.at < 0 || w.at >= x->dim[axis])
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "index",
                             "index is %" PRId64 ", but axis %d has only %" PRId64, a->index, axis,
                             x->dim[axis]);
    for (int i = 0; i < x->rank; i++)
        if (i != axis)
            y->dim[y->rank++] = x->dim[i];
    infer->axes[0] -= axis < infer->axes[0];
    return 0;
}

static void select_forward(const gd_call *call) {
    forward(call, select_window, 1);
}

static void select_backward(const gd_call *call) {
    backward(call, select_window, 1);
}

const gd_op gd_op_select = {
    .kind = {.function = "select",
             .doc = "One element of an axis, without that axis.",
             GD_ATTRS(struct select, select_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = select_infer,
    .forward = select_forward,
    .backward = select_backward,
    .grad_name = "SelectBackward0",
};

/* ---- split and chunk: an axis in pieces, each an output --------------------------------------------- */

struct split {
    gd_ints split_size_or_sections;
    int64_t dim;
};

static const gd_attr split_attrs[] = {
    GD_INTS(struct split, split_size_or_sections, .required = true, .min = 1,
            .doc =
                "the sizes of all outputs as a list, so that their number is known; for equal parts: chunk"),
    GD_INT(struct split, dim, .doc = "axis to cut; not the batch, which is axis 0"),
};

static int split_outputs(const void *attrs) {
    const size_t count = ((const struct split *)attrs)->split_size_or_sections.count;
    return count < INT32_MAX ? (int)count : INT32_MAX;
}

static window split_window(const void *attrs, const gd_shape *x, int output) {
    const struct split *a = attrs;
    window w = {gd_axis_of(a->dim, x->rank), 0, 1, a->split_size_or_sections.data[output]};
    for (int k = 0; k < output; k++)
        w.at += a->split_size_or_sections.data[k];
    return w;
}

static int split_infer(gd_infer *infer) {
    const struct split *a = infer->attrs;
    const gd_ints *sizes = &a->split_size_or_sections;
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    int64_t sum = 0; /* of at most GD_MAX_OUTPUTS 32-bit sizes */
    for (size_t k = 0; k < sizes->count; k++) {
        sum += sizes->data[k];
        infer->outputs[k] = infer->inputs[0];
        infer->outputs[k].dim[axis] = sizes->data[k];
    }
    if (sum != infer->inputs[0].dim[axis])
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "split_size_or_sections",
                             "split_size_or_sections adds up to %" PRId64 ", but axis %d has %" PRId64
                             "; list the size of every output, or use chunk for equal parts",
                             sum, axis, infer->inputs[0].dim[axis]);
    return 0;
}

static void split_forward(const gd_call *call) {
    forward(call, split_window, split_outputs(call->attrs));
}

static void split_backward(const gd_call *call) {
    backward(call, split_window, split_outputs(call->attrs));
}

const gd_op gd_op_split = {
    .kind = {.function = "split",
             .doc = "An axis cut into outputs of given sizes: 'name', 'name:1' ...",
             GD_ATTRS(struct split, split_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .outputs = split_outputs,
    .infer = split_infer,
    .forward = split_forward,
    .backward = split_backward,
    .grad_name = "SplitWithSizesBackward0",
};

struct chunk {
    int64_t chunks, dim;
};

static const gd_attr chunk_attrs[] = {
    GD_INT(struct chunk, chunks, .required = true, .min = 1, .max = GD_MAX_OUTPUTS,
           .doc = "how many outputs"),
    GD_INT(struct chunk, dim, .doc = "axis to cut; not the batch, which is axis 0"),
};

static int chunk_outputs(const void *attrs) {
    return (int)((const struct chunk *)attrs)->chunks;
}

/* All of size ceil(size / chunks), but the last of what is left. */
static window chunk_window(const void *attrs, const gd_shape *x, int output) {
    const struct chunk *a = attrs;
    const int axis = gd_axis_of(a->dim, x->rank);
    const int64_t size = x->dim[axis], each = (size + a->chunks - 1) / a->chunks;
    const int64_t left = size - output * each;
    return (window){axis, output * each, 1, left < each ? left : each};
}

static int chunk_infer(gd_infer *infer) {
    const struct chunk *a = infer->attrs;
    int axis;
    int code = gd_sample_axis(infer, "dim", a->dim, &axis);
    if (code)
        return code;
    for (int k = 0; k < a->chunks; k++) {
        const window w = chunk_window(a, &infer->inputs[0], k);
        if (w.count <= 0)
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "chunks",
                                 "axis %d, of %" PRId64 ", comes apart into only %d parts, not %" PRId64
                                 "; torch's chunks are of one size but the last, here give chunks %d",
                                 axis, infer->inputs[0].dim[axis], k, a->chunks, k);
        infer->outputs[k] = infer->inputs[0];
        infer->outputs[k].dim[axis] = w.count;
    }
    return 0;
}

static void chunk_forward(const gd_call *call) {
    forward(call, chunk_window, chunk_outputs(call->attrs));
}

static void chunk_backward(const gd_call *call) {
    backward(call, chunk_window, chunk_outputs(call->attrs));
}

const gd_op gd_op_chunk = {
    .kind = {.function = "chunk",
             .doc = "An axis cut into equal outputs, the last perhaps smaller: 'name', 'name:1' ...",
             GD_ATTRS(struct chunk, chunk_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .outputs = chunk_outputs,
    .infer = chunk_infer,
    .forward = chunk_forward,
    .backward = chunk_backward,
    .grad_name = "SplitBackward0",
};
