/* feed.c */
#include "feed.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The shape of one row. */
static gd_shape row_shape(const gd_tensor *rows) {
    gd_shape shape = {.rank = rows->shape.rank - 1};
    memcpy(shape.dim, rows->shape.dim + 1, (size_t)shape.rank * sizeof *shape.dim);
    return shape;
}

/* A picture (H, W) is one of a single channel, (1, H, W). */
static gd_shape as_picture(const gd_shape *shape) {
    return shape->rank == 2 ? (gd_shape){3, {1, shape->dim[0], shape->dim[1]}} : *shape;
}

static int fail_cause(gp_error *error, const gd_error *cause, const char *pointer) {
    return gp_fail_engine(error, cause, pointer);
}

static int check_input(gs_feed *feed, const gd_graph *graph, gp_error *error) {
    const gd_input_spec *input = gd_graph_input(graph, 0);
    char is[128], wanted[128];
    gd_error cause = GD_ERROR_INIT;
    gd_shape row = row_shape(&feed->rows), made;
    if (gd_graph_input_count(graph) != 1) {
        return gp_fail(error, GP_SHAPE_MISMATCH, "/model", "the network has %zu inputs; a job feeds one",
                       gd_graph_input_count(graph));
    }
    if (gd_transform_shape(&feed->transform, &row, &made, &cause)) {
        char at[96] = "/transform"; /* the engine's field goes behind it */
        return fail_cause(error, &cause, at);
    }
    gd_shape a = as_picture(&made), b = as_picture(&input->shape);
    if (!gd_shape_equal(&a, &b)) {
        return gp_fail(error, GP_SHAPE_MISMATCH, "/dataset",
                       "the network takes %s, but a row of the split%s is %s; see transform",
                       gd_shape_text(&input->shape, wanted, sizeof wanted),
                       gd_shape_equal(&row, &made) ? "" : ", transformed,",
                       gd_shape_text(&made, is, sizeof is));
    }
    feed->dtype = input->dtype;
    feed->sample = input->shape;
    if (input->dtype != GD_FLOAT32 &&
        (feed->rows.dtype == GD_FLOAT32 || feed->transform.scale != 0 || feed->transform.mean_count ||
         feed->transform.std_count || !gd_shape_equal(&row, &made))) {
        return gp_fail(error, GP_DTYPE_MISMATCH, "/dataset",
                       "the network takes %s: rows of integers, and no transform",
                       gd_dtype_name(input->dtype));
    }
    return 0;
}

static int check_target(gs_feed *feed, const gd_model *model, gp_error *error) {
    gd_targets targets;
    gd_error cause = GD_ERROR_INIT;
    if (gd_model_targets(model, NULL, &targets, &cause)) {
        return fail_cause(error, &cause, "");
    }
    if (targets.count > 1) {
        return gp_fail(error, GP_SHAPE_MISMATCH, "/model", "the loss takes %zu targets; a job feeds one",
                       targets.count);
    }
    feed->has_target = targets.count;
    if (!feed->has_target) {
        return 0;
    }
    gd_shape one = feed->targets.shape;
    one.dim[0] = 1;
    if (gd_model_target_dtype(model, NULL, 0, &one, &feed->target_dtype, &cause)) {
        return fail_cause(error, &cause, "");
    }
    if (feed->target_dtype != GD_FLOAT32 && feed->targets.dtype == GD_FLOAT32) {
        return gp_fail(error, GP_DTYPE_MISMATCH, "/dataset",
                       "the loss takes %s, but the split's target is float32",
                       gd_dtype_name(feed->target_dtype));
    }
    feed->target_sample = row_shape(&feed->targets);
    return 0;
}

int gs_feed_init(gs_feed *feed, const gs_hosted *hosted, gs_dataset *dataset, const char *split,
                 const gd_transform *transform, gp_error *error) {
    const void *attrs;
    *feed = (gs_feed){.transform = *transform};
    if (!gd_model_loss_term(hosted->model, 0)) {
        return gp_fail(error, GP_WRONG_ORDER, "/model",
                       "the model has no loss; give it one first: PATCH it with {\"loss\": {\"type\": "
                       "\"CrossEntropyLoss\"}}");
    }
    if (!gd_model_optimizer_kind(hosted->model, &attrs)) {
        return gp_fail(error, GP_WRONG_ORDER, "/model",
                       "the model has no optimizer; give it one first: PATCH it with {\"optimizer\": "
                       "{\"type\": \"SGD\", \"lr\": 0.01}}");
    }
    if (gs_dataset_split(dataset, split, &feed->rows, &feed->targets, error)) {
        return -1;
    }
    feed->count = feed->rows.shape.dim[0];
    if (check_input(feed, gd_model_graph(hosted->model), error) || check_target(feed, hosted->model, error)) {
        return -1;
    }
    feed->sample_bytes = (size_t)gd_numel(&feed->sample) * gd_dtype_size(feed->dtype);
    feed->target_bytes = (size_t)gd_numel(&feed->target_sample) * gd_dtype_size(feed->target_dtype);
    return 0;
}

/* ---- class indices ----------------------------------------------------------------------------------- */

static int64_t whole(const gd_tensor *tensor, int64_t i) {
    switch (tensor->dtype) {
    case GD_INT64:
        return ((const int64_t *)tensor->data)[i];
    case GD_INT32:
        return ((const int32_t *)tensor->data)[i];
    case GD_UINT8:
        return ((const uint8_t *)tensor->data)[i];
    default:
        return (int64_t)((const float *)tensor->data)[i];
    }
}

/* How many classes the loss's target may name; 0: it names none. */
static int64_t class_count(const gd_model *model, int64_t *ret_ignored) {
    static const char *const losses[] = {"CrossEntropyLoss", "NLLLoss", "MultiMarginLoss"};
    const gd_term *term = gd_model_loss_term(model, 0);
    const gd_output *output = gd_graph_output(gd_model_graph(model), term->output);
    *ret_ignored = INT64_MIN;
    for (size_t a = 0; a < term->kind->attr_count; a++) {
        if (!strcmp(term->kind->attrs[a].name, "ignore_index")) {
            *ret_ignored = gd_attr_read(&term->kind->attrs[a], term->attrs).integer;
        }
    }
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        if (term->kind->module && !strcmp(term->kind->module, losses[i])) {
            return output->shape.rank ? output->shape.dim[0] : 0;
        }
    }
    return 0;
}

static int check_classes(const gs_feed *feed, const gd_model *model, const char *split, gp_error *error) {
    int64_t ignored, classes = class_count(model, &ignored);
    const int64_t each = gd_numel(&feed->target_sample);
    if (!feed->has_target || feed->target_dtype != GD_INT64 || !classes) {
        return 0;
    }
    for (int64_t i = 0; i < feed->count * each; i++) {
        const int64_t class = whole(&feed->targets, i);
        if ((class < 0 || class >= classes) && class != ignored) {
            return gp_fail(error, GP_INVALID_VALUE, "/dataset",
                           "row %" PRId64 " of the split %s has the class %" PRId64
                           ", but the network tells classes 0 to %" PRId64,
                           i / each, split, class, classes - 1);
        }
    }
    return 0;
}

int gs_feed_try(const gs_feed *feed, gs_hosted *hosted, const char *split, gp_error *error) {
    gs_rows rows;
    gd_step_result result;
    gd_error cause = GD_ERROR_INIT;
    if (!feed->count) {
        return gp_fail(error, GP_INVALID_VALUE, "/dataset", "the split %s has no rows", split);
    }
    if (check_classes(feed, hosted->model, split, error) || gs_rows_init(&rows, feed, 1, error)) {
        return -1;
    }
    gs_feed_take(feed, NULL, 0, 1, 0, false, &rows);
    int result_code = gd_model_evaluate(hosted->model, &rows.input, 1, &rows.target, &result, &cause);
    gs_rows_release(&rows);
    if (result_code) {
        gp_fail_engine(error, &cause, "");
        snprintf(error->pointer, sizeof error->pointer, "/dataset");
        return -1;
    }
    return 0;
}

/* ---- taking rows ------------------------------------------------------------------------------------- */

static gd_tensor tensor_of(gd_dtype dtype, const gd_shape *sample, int64_t count, void *data) {
    gd_tensor tensor = {.dtype = dtype, .data = data, .shape = {.rank = sample->rank + 1, .dim = {count}}};
    memcpy(tensor.shape.dim + 1, sample->dim, (size_t)sample->rank * sizeof *sample->dim);
    return tensor;
}

static void *allocate(int64_t count, size_t bytes) {
    const size_t size = (size_t)count * (bytes ? bytes : 1);
    return bytes && size / bytes != (size_t)count ? NULL : aligned_alloc(64, (size + 63) / 64 * 64);
}

int gs_rows_init(gs_rows *rows, const gs_feed *feed, int64_t count, gp_error *error) {
    gd_shape row = row_shape(&feed->rows);
    size_t scratch = gd_transform_scratch(&feed->transform, &row);
    if (scratch < (size_t)gd_numel(&feed->target_sample)) {
        scratch = (size_t)gd_numel(&feed->target_sample);
    }
    *rows =
        (gs_rows){.input = tensor_of(feed->dtype, &feed->sample, count, allocate(count, feed->sample_bytes)),
                  .target = tensor_of(feed->target_dtype, &feed->target_sample, count,
                                      allocate(count, feed->target_bytes)),
                  .scratch = malloc(scratch * sizeof(float))};
    if (!rows->input.data || !rows->target.data || !rows->scratch) {
        gs_rows_release(rows);
        return gp_fail(error, GP_OUT_OF_MEMORY, "/batch_size",
                       "out of memory for a batch of %" PRId64 " rows", count);
    }
    return 0;
}

void gs_rows_release(gs_rows *rows) {
    free(rows->input.data);
    free(rows->target.data);
    free(rows->scratch);
    *rows = (gs_rows){.scratch = NULL};
}

/* Integers as int64_t. */
static void take_whole(const gd_tensor *from, const int64_t *indices, int64_t first, int64_t count,
                       int64_t each, int64_t *out) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = indices ? indices[i] : first + i;
        for (int64_t k = 0; k < each; k++) {
            out[i * each + k] = whole(from, row * each + k);
        }
    }
}

/* From the row `first` on. */
static gd_tensor rows_from(const gd_tensor *rows, int64_t first) {
    const gd_shape row = row_shape(rows);
    gd_tensor rest = *rows;
    rest.data = (char *)rows->data + (size_t)(first * gd_numel(&row)) * gd_dtype_size(rows->dtype);
    rest.shape.dim[0] -= first;
    return rest;
}

static void take(const gd_tensor *from, const gd_transform *transform, const int64_t *indices, int64_t first,
                 int64_t count, int64_t epoch, bool augment, float *scratch, gd_tensor *to) {
    const gd_shape row = row_shape(from);
    const gd_tensor rows = rows_from(from, indices ? 0 : first);
    to->shape.dim[0] = count;
    if (to->dtype == GD_FLOAT32) {
        gd_transform_rows(transform, &rows, indices, count, (uint64_t)epoch, augment, scratch, to->data);
    } else {
        take_whole(from, indices, first, count, gd_numel(&row), to->data);
    }
}

void gs_feed_take(const gs_feed *feed, const int64_t *indices, int64_t first, int64_t count, int64_t epoch,
                  bool augment, gs_rows *rows) {
    static const gd_transform none;
    take(&feed->rows, &feed->transform, indices, first, count, epoch, augment, rows->scratch, &rows->input);
    if (feed->has_target) {
        take(&feed->targets, &none, indices, first, count, epoch, false, rows->scratch, &rows->target);
    }
}
