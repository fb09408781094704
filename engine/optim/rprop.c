/* rprop.c -- steps by the gradient's sign alone. Formula: torch.optim.Rprop. */
#include "engine/optim/optimizer.h"

struct rprop {
    double lr, etas[2], step_sizes[2];
    bool maximize;
};

static const double default_etas[] = {0.5, 1.2}, default_step_sizes[] = {1e-6, 50};

static const gd_attr rprop_attrs[] = {
    GD_FLOAT(struct rprop, lr, .min = 0, .number = 1e-2, .doc = "size of the first step"),
    GD_FLOAT2(
        struct rprop, etas, .min = 0, .floats = default_etas,
        .doc = "what a step is multiplied with when the sign changes (below 1), and when it stays (above 1)"),
    GD_FLOAT2(struct rprop, step_sizes, .min = 0, .floats = default_step_sizes,
              .doc = "smallest and largest step"),
    GD_BOOL(struct rprop, maximize, .doc = "go up the gradient"),
};

static int rprop_check(const void *attrs, gd_error *error) {
    const struct rprop *a = attrs;
    if (!(a->etas[0] > 0 && a->etas[0] < 1 && a->etas[1] > 1))
        return gd_fail_field(error, GD_E_ATTRIBUTE, "etas",
                             "Rprop: etas must be between 0 and 1, and above 1, not [%g, %g]", a->etas[0],
                             a->etas[1]);
    if (a->step_sizes[0] > a->step_sizes[1])
        return gd_fail_field(error, GD_E_ATTRIBUTE, "step_sizes",
                             "Rprop: step_sizes must be the smallest and the largest step, not [%g, %g]",
                             a->step_sizes[0], a->step_sizes[1]);
    return 0;
}

/* size *= etas[1] where g has the sign it had, etas[0] where it changed (and then g counts as 0), kept within
 * step_sizes; p -= sign(g) * size. */
static void rprop_step(const gd_optimizer_call *call) {
    const struct rprop *a = call->attrs;
    const float sign = a->maximize ? -1.0F : 1.0F, start = call->step == 1 ? (float)a->lr : 0.0F;
    const float down = (float)a->etas[0], up = (float)a->etas[1];
    const float least = (float)a->step_sizes[0], most = (float)a->step_sizes[1];
    float *restrict p = call->param, *restrict before = call->slots[0], *restrict size = call->slots[1];
    const float *restrict g = call->grad;
#pragma omp simd
    for (int64_t i = 0; i < call->count; i++) {
        float d = sign * g[i];
        const float both = d * before[i];
        float s = (start + size[i]) * (both > 0 ? up : both < 0 ? down : 1.0F);
        s = s < least ? least : s;
        s = s > most ? most : s;
        d = both < 0 ? 0.0F : d;
        size[i] = s;
        p[i] -= d > 0 ? s : d < 0 ? -s : 0.0F;
        before[i] = d;
    }
}

static const char *const rprop_slots[] = {"prev", "step_size"};

const gd_optimizer gd_optimizer_rprop = {
    .kind = {.module = "Rprop",
             .doc = "Steps that grow while the gradient keeps its sign; for whole-batch gradients.",
             GD_ATTRS(struct rprop, rprop_attrs)},
    .slot_count = 2,
    .slot_names = rprop_slots,
    .lr_offset = offsetof(struct rprop, lr),
    .check = rprop_check,
    .step = rprop_step,
};
