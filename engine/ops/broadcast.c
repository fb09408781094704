/* broadcast.c -- which shapes broadcast, and the walk over them. */
#include "engine/ops/broadcast.h"

#include <assert.h>

/* Where an axis of an input comes to lie in an output of this rank. */
static int lined_up(int axis, const gd_shape *input, int rank) {
    return axis + rank - input->rank;
}

static int different_sizes(gd_infer *infer) {
    char list[320] = "";
    size_t used = 0;
    for (int i = 0; i < infer->input_count && used < sizeof list; i++) {
        char text[128];
        if (infer->input_axes[i] == 0)
            gd_sample_text(&infer->inputs[i], text, sizeof text);
        else
            gd_shape_text(&infer->inputs[i], text, sizeof text);
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s%s", i ? " and " : "",
                                 infer->input_axes[i] == 0 ? "samples of " : "", text);
    }
    return gd_fail(infer->error, GD_E_SHAPE,
                   "%s do not broadcast: lined up at the right, each pair of sizes must be equal or one of "
                   "them 1",
                   list);
}

/* All batch axes must come to lie on one: put it in *ret_axis, -1 when no input depends on the batch. */
static int find_batch_axis(gd_infer *infer, int rank, int *ret_axis) {
    int axis = -1, first = -1;
    for (int i = 0; i < infer->input_count; i++) {
        if (infer->input_axes[i] < 0)
            continue;
        const int here = lined_up(infer->input_axes[i], &infer->inputs[i], rank);
        if (axis >= 0 && here != axis)
            return gd_fail(
                infer->error, GD_E_SHAPE,
                "inputs %d and %d have %d and %d axes with the batch, so that lined up at the right "
                "(as torch does) one's batch axis would lie beside another axis; give both the same "
                "number of axes (unsqueeze, view)",
                first, i, infer->inputs[first].rank, infer->inputs[i].rank);
        axis = here;
        first = first < 0 ? i : first;
    }
    *ret_axis = axis;
    return 0;
}

int gd_broadcast_infer(gd_infer *infer) {
    gd_shape *y = &infer->outputs[0];
    *y = (gd_shape){0};
    for (int i = 0; i < infer->input_count; i++)
        y->rank = infer->inputs[i].rank > y->rank ? infer->inputs[i].rank : y->rank;
    int code = find_batch_axis(infer, y->rank, &infer->axes[0]);
    if (code)
        return code;
    for (int k = 0; k < y->rank; k++)
        y->dim[k] = 1;
    for (int i = 0; i < infer->input_count; i++) {
        const gd_shape *x = &infer->inputs[i];
        for (int k = 0; k < x->rank; k++) {
            int64_t *size = &y->dim[lined_up(k, x, y->rank)];
            if (x->dim[k] != *size && x->dim[k] != 1 && *size != 1)
                return different_sizes(infer);
            *size = *size == 1 ? x->dim[k] : *size;
        }
    }
    return 0;
}

/* Does an axis with these steps go on in every input where the last axis of the walk ends? */
static bool goes_on(const gd_broadcast *w, const int64_t *step, int count) {
    const int inner = w->rank - 1;
    for (int i = 0; i < count; i++)
        if (step[i] != w->step[i][inner] * w->size[inner])
            return false;
    return true;
}

gd_broadcast gd_broadcast_begin(const gd_shape *output, const gd_shape *const *inputs, int count) {
    assert(count <= GD_BROADCAST_INPUTS);
    gd_broadcast w = {.rows = 1};
    int64_t passed[GD_BROADCAST_INPUTS] = {1, 1, 1}; /* elements of the input behind axis k */
    for (int k = output->rank - 1; k >= 0; k--) {
        int64_t step[GD_BROADCAST_INPUTS] = {0};
        if (output->dim[k] == 1)
            continue;
        for (int i = 0; i < count; i++) {
            const int axis = k - (output->rank - inputs[i]->rank);
            const int64_t size = axis < 0 ? 1 : inputs[i]->dim[axis];
            step[i] = size == 1 ? 0 : passed[i];
            passed[i] *= size;
        }
        if (w.rank && goes_on(&w, step, count)) {
            w.size[w.rank - 1] *= output->dim[k];
            continue;
        }
        for (int i = 0; i < count; i++)
            w.step[i][w.rank] = step[i];
        w.size[w.rank++] = output->dim[k];
    }
    if (!w.rank)
        w.size[w.rank++] = 1;
    for (int k = 1; k < w.rank; k++)
        w.rows *= w.size[k];
    return w;
}

void gd_broadcast_next(gd_broadcast *w) {
    for (int k = 1; k < w->rank; k++) {
        for (int i = 0; i < GD_BROADCAST_INPUTS; i++)
            w->offset[i] += w->step[i][k];
        if (++w->at[k] < w->size[k])
            return;
        for (int i = 0; i < GD_BROADCAST_INPUTS; i++)
            w->offset[i] -= w->step[i][k] * w->size[k];
        w->at[k] = 0;
    }
}
