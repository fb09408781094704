/* feed.h -- a split of a dataset as a network takes it: transformed, in its dtypes and shapes. Once made it
 * is only read: any thread. */
#ifndef GRADD_SERVER_FEED_H
#define GRADD_SERVER_FEED_H

#include "datasets.h"
#include "models.h"

typedef struct gs_feed {
    gd_tensor rows, targets; /* the split's, (n, ...) */
    int64_t count;           /* n */
    gd_transform transform;  /* mean and std are the specification's */
    gd_dtype dtype, target_dtype;
    gd_shape sample, target_sample; /* without the batch axis */
    size_t sample_bytes, target_bytes;
    bool has_target; /* the loss takes one */
} gs_feed;

/** Check that the split, transformed, fits the model's input and its loss. In the model's turn.
 *  @return 0; -1: 400, 404, 409, 503: names the field of the job */
int gs_feed_init(gs_feed *feed, const gs_hosted *hosted, gs_dataset *dataset, const char *split,
                 const gd_transform *transform, gp_error *error);
/** Check every row's class index, and run the first row through the model, which finds whatever else does not
 *  fit. In the model's turn. @return 0; -1: names the row */
int gs_feed_try(const gs_feed *feed, gs_hosted *hosted, const char *split, gp_error *error);

/** Memory for `count` rows. @return 0; -1 */
typedef struct gs_rows {
    gd_tensor input, target; /* (count, ...) */
    float *scratch;
} gs_rows;
int gs_rows_init(gs_rows *rows, const gs_feed *feed, int64_t count, gp_error *error);
void gs_rows_release(gs_rows *rows);
/** Fill in rows `indices` (count) of the split, or with NULL first ... first + count - 1. */
void gs_feed_take(const gs_feed *feed, const int64_t *indices, int64_t first, int64_t count, int64_t epoch,
                  bool augment, gs_rows *rows);

#endif
