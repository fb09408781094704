/* upsample.c -- images of another size. Formula: torch.nn.Upsample, torch.nn.functional.interpolate. */
#include <inttypes.h>

#include "engine/kernels/interpolate.h"
#include "engine/ops/window.h"

struct upsample {
    gd_ints size;
    gd_floats scale_factor;
    int mode;
    bool align_corners, recompute_scale_factor;
};

enum mode { NEAREST, LINEAR, BILINEAR, BICUBIC, TRILINEAR, NEAREST_EXACT };

static const char *const modes[] = {"nearest",   "linear",        "bilinear", "bicubic",
                                    "trilinear", "nearest-exact", NULL};

/* What a mode does along an axis, how many axes it is for (0: any), and torch's name of its graph node. */
static const struct mode_row {
    int taps, axes;
    const char *grad_name[GD_INTERPOLATE_AXES];
} mode_rows[] = {
    [NEAREST] = {1,
                 0,
                 {"UpsampleNearest1DBackward1", "UpsampleNearest2DBackward1", "UpsampleNearest3DBackward1"}},
    [LINEAR] = {2, 1, {"UpsampleLinear1DBackward1"}},
    [BILINEAR] = {2, 2, {NULL, "UpsampleBilinear2DBackward1"}},
    [BICUBIC] = {4, 2, {NULL, "UpsampleBicubic2DBackward1"}},
    [TRILINEAR] = {2, 3, {NULL, NULL, "UpsampleTrilinear3DBackward1"}},
    [NEAREST_EXACT] = {1,
                       0,
                       {"UpsampleNearestExact1DBackward1", "UpsampleNearestExact2DBackward1",
                        "UpsampleNearestExact3DBackward1"}},
};

static const gd_attr upsample_attrs[] = {
    GD_INTS(struct upsample, size, .min = 1,
            .doc = "size of the output, per axis or the same for all; this or scale_factor"),
    GD_FLOATS(struct upsample, scale_factor,
              .doc = "the output's size as a multiple of the input's, per axis or the same for all"),
    GD_CHOICE(struct upsample, mode, .choices = modes,
              .doc = "linear is for (N, C, L), bilinear and bicubic for (N, C, H, W), trilinear for "
                     "(N, C, D, H, W), the others for any"),
    GD_BOOL(struct upsample, align_corners,
            .doc = "corner elements lie on each other; not where it is nearest"),
    GD_BOOL(struct upsample, recompute_scale_factor,
            .doc = "take the scale from the sizes, as they were rounded, and not from scale_factor"),
};

static double factor_of(const struct upsample *a, int axis) {
    return a->scale_factor.data[a->scale_factor.count == 1 ? 0 : axis];
}

static int check_given(gd_infer *infer, const struct upsample *a, int axes) {
    const bool sized = a->size.count, scaled = a->scale_factor.data;
    const size_t count = sized ? a->size.count : a->scale_factor.count;
    if (sized == scaled)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "size", "give %s size or scale_factor%s",
                             sized ? "only one of" : "either", sized ? ", not both" : "");
    if (count != 1 && count != (size_t)axes)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, sized ? "size" : "scale_factor",
                             "%s must be one number or %d of them, one per axis of the input, not %zu",
                             sized ? "size" : "scale_factor", axes, count);
    if (a->align_corners && mode_rows[a->mode].taps == 1)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "align_corners",
                             "align_corners means nothing where mode is '%s'", modes[a->mode]);
    if (a->recompute_scale_factor && sized)
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "recompute_scale_factor",
                             "recompute_scale_factor means nothing where size is given");
    return 0;
}

static int infer_size(gd_infer *infer, const struct upsample *a, int axis, int64_t *ret_out) {
    if (a->size.count) {
        *ret_out = a->size.data[a->size.count == 1 ? 0 : axis];
        return 0;
    }
    const int64_t in = infer->inputs[0].dim[2 + axis];
    const double out = floor((double)in * factor_of(a, axis));
    if (!(out >= 1))
        return gd_fail_field(infer->error, GD_E_SHAPE, "scale_factor",
                             "scale_factor of %.6g leaves nothing of an axis of %" PRId64, factor_of(a, axis),
                             in);
    if (out > INT32_MAX)
        return gd_fail_field(infer->error, GD_E_LIMIT, "scale_factor",
                             "scale_factor of %.6g makes an axis larger than %d", factor_of(a, axis),
                             INT32_MAX);
    *ret_out = (int64_t)out;
    return 0;
}

static int upsample_infer(gd_infer *infer) {
    const struct upsample *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    const int axes = mode_rows[a->mode].axes;
    char text[128];
    if (axes ? x->rank != axes + 2 : x->rank < 3 || x->rank > 5)
        return gd_fail_field(infer->error, GD_E_SHAPE, "mode", "mode '%s' wants samples of %s, got %s",
                             modes[a->mode],
                             axes ? gd_window_sample(axes) : "[C, L], [C, H, W] or [C, D, H, W]",
                             gd_sample_text(x, text, sizeof text));
    int code = check_given(infer, a, x->rank - 2);
    size_t positions = GD_INTERPOLATE_AXES;
    infer->outputs[0] = *x;
    for (int i = 0; !code && i < x->rank - 2; i++) {
        code = infer_size(infer, a, i, &infer->outputs[0].dim[2 + i]);
        positions += (size_t)infer->outputs[0].dim[2 + i]; /* of 31 bits each */
    }
    infer->scratch = positions * sizeof(gd_taps);
    return code;
}

/* The position in the input that lies under the middle of output element `at`. */
static double source_of(const struct upsample *a, double scale, int64_t at) {
    if (a->align_corners)
        return scale * (double)at;
    const double source = scale * ((double)at + 0.5) - 0.5;
    return source < 0 && a->mode != BICUBIC ? 0 : source;
}

/* Cubic convolution with A = -0.75, at distance t from the second of four points: Keys (1981). */
static void cubic_weights(double t, float weight[4]) {
    const double A = -0.75;
    for (int i = 0; i < 4; i++) {
        const double d = fabs(t + 1 - i);
        weight[i] =
            (float)(d <= 1 ? ((A + 2) * d - (A + 3)) * d * d + 1 : ((A * d - 5 * A) * d + 8 * A) * d - 4 * A);
    }
}

static int64_t clamp(int64_t at, int64_t in) {
    return at < 0 ? 0 : at < in ? at : in - 1;
}

static gd_taps taps_of(const struct upsample *a, double scale, int64_t in, int64_t at) {
    gd_taps taps = {.weight = {1}};
    const int count = mode_rows[a->mode].taps;
    if (count == 1) { /* in float32, as torch: the rounding decides which neighbour is nearest */
        const float half = a->mode == NEAREST_EXACT ? 0.5F : 0;
        taps.at[0] = clamp((int64_t)floorf(((float)at + half) * (float)scale), in);
        return taps;
    }
    const double source = source_of(a, scale, at), below = floor(source);
    for (int i = 0; i < count; i++)
        taps.at[i] = clamp((int64_t)below + i - (count == 4), in);
    taps.weight[0] = (float)(1 - (source - below));
    taps.weight[1] = (float)(source - below);
    if (count == 4)
        cubic_weights(source - below, taps.weight);
    return taps;
}

/* Input elements per output element along an axis: torch's area_pixel_compute_scale. */
static double scale_of(const struct upsample *a, int axis, int64_t in, int64_t out) {
    if (a->align_corners)
        return out > 1 ? (double)(in - 1) / (double)(out - 1) : 0;
    if (a->scale_factor.data && !a->recompute_scale_factor)
        return 1 / factor_of(a, axis);
    return (double)in / (double)out;
}

/* The taps of all axes, into the scratch. */
static gd_interpolation prepare(const gd_call *call) {
    const struct upsample *a = call->attrs;
    const gd_shape *x = &call->inputs[0].shape, *y = &call->outputs[0].shape;
    const int missing = GD_INTERPOLATE_AXES + 2 - x->rank;
    gd_taps *taps = call->scratch;
    gd_interpolation p;
    for (int axis = 0; axis < GD_INTERPOLATE_AXES; axis++) {
        const bool there = axis >= missing;
        p.in[axis] = there ? x->dim[2 + axis - missing] : 1;
        p.out[axis] = there ? y->dim[2 + axis - missing] : 1;
        p.count[axis] = there ? mode_rows[a->mode].taps : 1;
        p.taps[axis] = taps;
        const double scale = there ? scale_of(a, axis - missing, p.in[axis], p.out[axis]) : 1;
        for (int64_t i = 0; i < p.out[axis]; i++)
            *taps++ = there ? taps_of(a, scale, p.in[axis], i) : (gd_taps){.weight = {1}};
    }
    return p;
}

static void upsample_forward(const gd_call *call) {
    const gd_interpolation p = prepare(call);
    gd_interpolate(&p, gd_numel_of(&call->inputs[0].shape, 0, 2), call->inputs[0].data,
                   call->outputs[0].data);
}

static void upsample_backward(const gd_call *call) {
    const gd_tensor *dx = &call->input_grads[0];
    if (!dx->data)
        return;
    const gd_interpolation p = prepare(call);
    if (!call->accumulate[0])
        memset(dx->data, 0, gd_tensor_bytes(dx));
    gd_interpolate_back_add(&p, gd_numel_of(&dx->shape, 0, 2), call->output_grads[0].data, dx->data);
}

static void upsample_repr(FILE *out, const void *attrs) {
    const struct upsample *a = attrs;
    const gd_floats *factors = &a->scale_factor;
    if (factors->data) {
        fputs(factors->count == 1 ? "scale_factor=" : "scale_factor=(", out);
        for (size_t i = 0; i < factors->count; i++) {
            fputs(i ? ", " : "", out);
            gd_repr_float(out, factors->data[i]);
        }
        fputs(factors->count == 1 ? "" : ")", out);
    } else if (a->size.count == 1) {
        fprintf(out, "size=%" PRId64, a->size.data[0]);
    } else {
        gd_repr_tuple(out, "size=", a->size.data, (int)a->size.count);
    }
    fprintf(out, ", mode=%s", modes[a->mode]);
}

static int upsample_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    const struct upsample *a = attrs;
    nodes[0] = (gd_grad_fn){mode_rows[a->mode].grad_name[inputs[0].rank - 3], {GD_NEXT_INPUT(0)}, 1};
    return 1;
}

const gd_op gd_op_upsample = {
    .kind = {.module = "Upsample",
             .function = "interpolate",
             .doc = "The same image in another size, over 1 to 3 axes.",
             GD_ATTRS(struct upsample, upsample_attrs)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH,
    .infer = upsample_infer,
    .forward = upsample_forward,
    .backward = upsample_backward,
    .repr = upsample_repr,
    .grad_fn = upsample_grad_fn,
};
