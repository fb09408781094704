/* pool.c -- what the kinds of pooling share. */
#include <inttypes.h>

#include "engine/ops/pool.h"

int gd_pool_infer(gd_infer *infer, int axes, const int64_t *kernel, const int64_t *stride,
                  const int64_t *padding, const int64_t *dilation, bool ceil_mode) {
    const gd_shape *x = &infer->inputs[0];
    gd_window w;
    if (x->rank != axes + 2)
        return gd_window_wrong_rank(infer, axes);
    for (int axis = 0; axis < axes; axis++)
        if (2 * padding[axis] > kernel[axis])
            return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "padding",
                                 "padding must be at most %" PRId64 ", half of kernel_size (%" PRId64
                                 "), not %" PRId64,
                                 kernel[axis] / 2, kernel[axis], padding[axis]);
    int code = gd_window_infer(infer, axes, kernel, stride, padding, dilation, ceil_mode, &w);
    if (!code)
        infer->outputs[0] = gd_window_shape(x->dim[0], x->dim[1], w.out, axes);
    return code;
}

bool gd_pool_clear(const gd_call *call) {
    const gd_tensor *grad = &call->input_grads[0];
    if (grad->data && !call->accumulate[0])
        memset(grad->data, 0, gd_tensor_bytes(grad));
    return grad->data;
}

int gd_pool_grad_fn_1d(const char *name, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    nodes[0] = (gd_grad_fn){"SqueezeBackward1", {1}, 1};
    nodes[1] = (gd_grad_fn){name, {2}, 1};
    nodes[2] = (gd_grad_fn){"UnsqueezeBackward0", {GD_NEXT_INPUT(0)}, 1};
    return 3;
}
