/* strided.c -- strided copies: axes that can be walked as one are joined, and the last one is a loop. */
#include "engine/kernels/strided.h"

void gd_row_major(const gd_shape *shape, int64_t *steps) {
    int64_t step = 1;
    for (int i = shape->rank - 1; i >= 0; i--) {
        steps[i] = step;
        step *= shape->dim[i];
    }
}

gd_box gd_box_of(const gd_shape *shape) {
    gd_box box = {.rank = shape->rank};
    memcpy(box.size, shape->dim, sizeof box.size);
    gd_row_major(shape, box.x_step);
    gd_row_major(shape, box.y_step);
    return box;
}

/* The box without axes of size 1, and with neighbours joined that are one walk on both sides. */
static gd_box joined(const gd_box *box) {
    gd_box j = {.x_at = box->x_at, .y_at = box->y_at};
    for (int i = 0; i < box->rank; i++) {
        const int last = j.rank - 1;
        if (box->size[i] == 1)
            continue;
        if (j.rank && j.x_step[last] == box->x_step[i] * box->size[i] &&
            j.y_step[last] == box->y_step[i] * box->size[i]) {
            j.size[last] *= box->size[i];
        } else {
            j.size[j.rank++] = box->size[i];
        }
        j.x_step[j.rank - 1] = box->x_step[i];
        j.y_step[j.rank - 1] = box->y_step[i];
    }
    if (j.rank == 0) { /* one element */
        j.rank = 1;
        j.size[0] = 1;
        j.x_step[0] = j.y_step[0] = 1;
    }
    return j;
}

/* to[i * to_step] = or += from[i * from_step] */
static void move_row(float *to, int64_t to_step, const float *from, int64_t from_step, int64_t count,
                     bool add) {
    if (to_step == 1 && from_step == 1 && !add) {
        memcpy(to, from, (size_t)count * sizeof *to);
    } else if (to_step == 1 && from_step == 1) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            to[i] += from[i];
    } else if (add) {
        for (int64_t i = 0; i < count; i++)
            to[i * to_step] += from[i * from_step];
    } else {
        for (int64_t i = 0; i < count; i++)
            to[i * to_step] = from[i * from_step];
    }
}

static void move(const gd_box *box, float *to, const int64_t *to_step, const float *from,
                 const int64_t *from_step, bool add) {
    const int last = box->rank - 1;
    int64_t at[GD_MAX_RANK] = {0};
    for (;;) {
        move_row(to, to_step[last], from, from_step[last], box->size[last], add);
        int i = last - 1;
        for (; i >= 0; i--) { /* the next row */
            to += to_step[i];
            from += from_step[i];
            if (++at[i] < box->size[i])
                break;
            to -= to_step[i] * box->size[i];
            from -= from_step[i] * box->size[i];
            at[i] = 0;
        }
        if (i < 0)
            return;
    }
}

void gd_box_copy(const gd_box *box, const float *x, float *y) {
    const gd_box j = joined(box);
    move(&j, y + j.y_at, j.y_step, x + j.x_at, j.x_step, false);
}

void gd_box_return(const gd_box *box, float *dx, const float *dy, bool add) {
    const gd_box j = joined(box);
    move(&j, dx + j.x_at, j.x_step, dy + j.y_at, j.y_step, add);
}
