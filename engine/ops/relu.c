/* relu.c -- rectified linear unit. Formula: torch.nn.ReLU. */
#include "engine/graph/op.h"

static int relu_infer(gd_infer *infer) {
    infer->outputs[0] = infer->inputs[0];
    return 0;
}

/* y = max(x, 0), and NaN stays NaN. */
static void relu_forward(const gd_call *call) {
    const float *x = call->inputs[0].data;
    float *y = call->outputs[0].data;
    const int64_t count = gd_numel(&call->outputs[0].shape);
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] = x[i] <= 0 ? 0 : x[i];
}

/* dx = dy where y > 0, and where y is NaN; y tells as much as x does. dx and dy may be the same memory. */
static void relu_backward(const gd_call *call) {
    const float *y = call->outputs[0].data, *dy = call->output_grads[0].data;
    float *dx = call->input_grads[0].data;
    const int64_t count = dx ? gd_numel(&call->outputs[0].shape) : 0;
    if (count && call->accumulate[0]) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] += y[i] <= 0 ? 0 : dy[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            dx[i] = y[i] <= 0 ? 0 : dy[i];
    }
}

const gd_op gd_op_relu = {
    .kind = {.module = "ReLU", .function = "relu", .doc = "max(x, 0), element by element."},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_INPLACE | GD_SAVES_OUTPUT,
    .infer = relu_infer,
    .forward = relu_forward,
    .backward = relu_backward,
    .grad_name = "ReluBackward0",
};
