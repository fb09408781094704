/* where.c -- one input or the other, by a condition. Formula: torch.where. */
#include "engine/ops/broadcast.h"

static gd_broadcast begin(const gd_call *call) {
    const gd_shape *const shapes[] = {&call->inputs[0].shape, &call->inputs[1].shape, &call->inputs[2].shape};
    return gd_broadcast_begin(&call->outputs[0].shape, shapes, 3);
}

/* y = a where the condition holds (is not 0), else b */
static void where_forward(const gd_call *call) {
    gd_broadcast w = begin(call);
    float *y = call->outputs[0].data;
    for (int64_t r = 0; r < w.rows; r++, y += w.size[0], gd_broadcast_next(&w)) {
        const int64_t *c = (const int64_t *)call->inputs[0].data + w.offset[0];
        const float *a = (const float *)call->inputs[1].data + w.offset[1];
        const float *b = (const float *)call->inputs[2].data + w.offset[2];
        const int64_t c_step = w.step[0][0], a_step = w.step[1][0], b_step = w.step[2][0];
        for (int64_t i = 0; i < w.size[0]; i++)
            y[i] = c[i * c_step] ? a[i * a_step] : b[i * b_step];
    }
}

/* dL/da = dy where the condition holds, dL/db = dy elsewhere, both summed where they were repeated */
static void where_backward(const gd_call *call) {
    for (int which = 1; which <= 2; which++) {
        const gd_tensor *grad = &call->input_grads[which];
        const float *dy = call->output_grads[0].data;
        if (!grad->data)
            continue;
        if (!call->accumulate[which])
            memset(grad->data, 0, gd_tensor_bytes(grad));
        gd_broadcast w = begin(call);
        for (int64_t r = 0; r < w.rows; r++, dy += w.size[0], gd_broadcast_next(&w)) {
            const int64_t *c = (const int64_t *)call->inputs[0].data + w.offset[0];
            float *dx = (float *)grad->data + w.offset[which];
            for (int64_t i = 0; i < w.size[0]; i++)
                dx[i * w.step[which][0]] += (c[i * w.step[0][0]] != 0) == (which == 1) ? dy[i] : 0;
        }
    }
}

static int where_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    (void)attrs, (void)inputs;
    nodes[0] = (gd_grad_fn){"WhereBackward0", {GD_NEXT_INPUT(1), GD_NEXT_INPUT(2)}, 2};
    return 1;
}

const gd_op gd_op_where = {
    .kind =
        {.function = "where",
         .doc = "Of three inputs, the second where the first, an int64 condition, is not 0; else the third."},
    .min_inputs = 3,
    .max_inputs = 3,
    .index_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = gd_broadcast_infer,
    .forward = where_forward,
    .backward = where_backward,
    .grad_fn = where_grad_fn,
};
