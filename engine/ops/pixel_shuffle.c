/* pixel_shuffle.c -- channels to pixels and back. Formulas: torch.nn.PixelShuffle, torch.nn.PixelUnshuffle.
 */
#include <inttypes.h>

#include "engine/graph/op.h"

struct pixel_shuffle {
    int64_t upscale_factor;
};
struct pixel_unshuffle {
    int64_t downscale_factor;
};

static const gd_attr pixel_shuffle_attrs[] = {
    GD_INT(struct pixel_shuffle, upscale_factor, .min = 1, .required = true,
           .doc = "r: r * r channels become r by r pixels"),
};

static const gd_attr pixel_unshuffle_attrs[] = {
    GD_INT(struct pixel_unshuffle, downscale_factor, .min = 1, .required = true,
           .doc = "r: r by r pixels become r * r channels"),
};

/* wide[m, c, h r + i, w r + j] = deep[m, (c r + i) r + j, h, w], or the other way round. The shape is the
 * wide tensor's. */
static void shuffle(const gd_shape *wide_shape, int64_t r, const float *from, float *to, bool widen,
                    bool add) {
    const int rank = wide_shape->rank;
    const int64_t planes = gd_numel_of(wide_shape, 0, rank - 2);
    const int64_t height = wide_shape->dim[rank - 2] / r, width = wide_shape->dim[rank - 1] / r;
    int64_t deep = 0;
    for (int64_t c = 0; c < planes; c++)
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < r; j++)
                for (int64_t h = 0; h < height; h++, deep += width) {
                    const int64_t wide = ((c * height + h) * r + i) * width * r + j;
                    for (int64_t w = 0; w < width; w++) {
                        const int64_t source = widen ? deep + w : wide + w * r;
                        const int64_t target = widen ? wide + w * r : deep + w;
                        to[target] = from[source] + (add ? to[target] : 0);
                    }
                }
}

static int wrong_rank(gd_infer *infer) {
    char text[128];
    return gd_fail(infer->error, GD_E_SHAPE, "wants samples of [..., C, H, W], got %s",
                   gd_sample_text(&infer->inputs[0], text, sizeof text));
}

static int pixel_shuffle_infer(gd_infer *infer) {
    const int64_t r = ((const struct pixel_shuffle *)infer->attrs)->upscale_factor;
    gd_shape *y = &infer->outputs[0];
    *y = infer->inputs[0];
    if (y->rank < 4)
        return wrong_rank(infer);
    int64_t *size = y->dim + y->rank - 3;
    if (size[0] % (r * r)) /* r is an int32: no overflow */
        return gd_fail_field(infer->error, GD_E_SHAPE, "upscale_factor",
                             "the input's channels (%" PRId64
                             ") must be divisible by upscale_factor squared (%" PRId64 ")",
                             size[0], r * r);
    size[0] /= r * r;
    if (__builtin_mul_overflow(size[1], r, &size[1]) || __builtin_mul_overflow(size[2], r, &size[2]))
        return gd_fail(infer->error, GD_E_LIMIT, "an output larger than any memory");
    return 0;
}

static int pixel_unshuffle_infer(gd_infer *infer) {
    const int64_t r = ((const struct pixel_unshuffle *)infer->attrs)->downscale_factor;
    gd_shape *y = &infer->outputs[0];
    *y = infer->inputs[0];
    if (y->rank < 4)
        return wrong_rank(infer);
    int64_t *size = y->dim + y->rank - 3;
    if (size[1] % r || size[2] % r)
        return gd_fail_field(infer->error, GD_E_SHAPE, "downscale_factor",
                             "the input's height (%" PRId64 ") and width (%" PRId64
                             ") must be divisible by downscale_factor (%" PRId64 ")",
                             size[1], size[2], r);
    size[1] /= r;
    size[2] /= r;
    if (__builtin_mul_overflow(size[0], r * r, &size[0]))
        return gd_fail(infer->error, GD_E_LIMIT, "an output larger than any memory");
    return 0;
}

static void pixel_shuffle_forward(const gd_call *call) {
    const struct pixel_shuffle *a = call->attrs;
    shuffle(&call->outputs[0].shape, a->upscale_factor, call->inputs[0].data, call->outputs[0].data, true,
            false);
}

static void pixel_shuffle_backward(const gd_call *call) {
    const struct pixel_shuffle *a = call->attrs;
    if (call->input_grads[0].data)
        shuffle(&call->outputs[0].shape, a->upscale_factor, call->output_grads[0].data,
                call->input_grads[0].data, false, call->accumulate[0]);
}

static void pixel_unshuffle_forward(const gd_call *call) {
    const struct pixel_unshuffle *a = call->attrs;
    shuffle(&call->inputs[0].shape, a->downscale_factor, call->inputs[0].data, call->outputs[0].data, false,
            false);
}

static void pixel_unshuffle_backward(const gd_call *call) {
    const struct pixel_unshuffle *a = call->attrs;
    if (call->input_grads[0].data)
        shuffle(&call->inputs[0].shape, a->downscale_factor, call->output_grads[0].data,
                call->input_grads[0].data, true, call->accumulate[0]);
}

static void pixel_shuffle_repr(FILE *out, const void *attrs) {
    fprintf(out, "upscale_factor=%" PRId64, ((const struct pixel_shuffle *)attrs)->upscale_factor);
}

static void pixel_unshuffle_repr(FILE *out, const void *attrs) {
    fprintf(out, "downscale_factor=%" PRId64, ((const struct pixel_unshuffle *)attrs)->downscale_factor);
}

const gd_op gd_op_pixel_shuffle = {
    .kind = {.module = "PixelShuffle",
             .function = "pixel_shuffle",
             .doc = "Channels to pixels: (N, C r r, H, W) to (N, C, H r, W r).",
             GD_ATTRS(struct pixel_shuffle, pixel_shuffle_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = pixel_shuffle_infer,
    .forward = pixel_shuffle_forward,
    .backward = pixel_shuffle_backward,
    .repr = pixel_shuffle_repr,
    .grad_name = "PixelShuffleBackward0",
};

const gd_op gd_op_pixel_unshuffle = {
    .kind = {.module = "PixelUnshuffle",
             .function = "pixel_unshuffle",
             .doc = "Pixels to channels: (N, C, H r, W r) to (N, C r r, H, W).",
             GD_ATTRS(struct pixel_unshuffle, pixel_unshuffle_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = pixel_unshuffle_infer,
    .forward = pixel_unshuffle_forward,
    .backward = pixel_unshuffle_backward,
    .repr = pixel_unshuffle_repr,
    .grad_name = "PixelUnshuffleBackward0",
};
