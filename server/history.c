/* history.c */
#include "history.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE = 64 /* buckets that are copied before the lock is given back for a moment */ };

static const char *const step_keys[GS_STEP_KEYS] = {
    [GS_LOSS] = "loss",
    [GS_LR] = "lr",
    [GS_GRAD_NORM] = "grad_norm",
    [GS_ACCURACY] = "accuracy",
    [GS_SAMPLES_PER_SECOND] = "samples_per_second",
};

const char *gs_history_key(size_t key) {
    return step_keys[key];
}

static bool value_of_step(const gs_item *item, size_t column, double *ret_value) {
    const gs_row *row = (const gs_row *)item;
    switch (column) {
    case GS_LOSS:
        *ret_value = (double)row->loss;
        break;
    case GS_LR:
        *ret_value = row->lr;
        break;
    case GS_GRAD_NORM:
        *ret_value = (double)row->grad_norm;
        break;
    case GS_ACCURACY:
        *ret_value = (double)row->accuracy;
        break;
    default:
        *ret_value = (double)row->samples_per_second;
    }
    return !(row->lacks >> column & 1);
}

static bool value_of_scalar(const gs_item *item, size_t column, double *ret_value) {
    (void)column;
    *ret_value = ((const gs_scalar *)item)->value;
    return true;
}

void gs_history_init(gs_history *history, const gs_history_limits *limits) {
    *history = (gs_history){.limits = *limits};
    gs_track_init(&history->steps, sizeof(gs_row), GS_STEP_KEYS, value_of_step, limits->items);
    pthread_mutex_init(&history->lock, NULL);
}

static void free_series(gs_series *series) {
    gs_track_release(&series->track);
    free(series);
}

void gs_history_release(gs_history *history) {
    gs_track_release(&history->steps);
    for (size_t i = 0; i < history->series_count; i++) {
        free_series(history->series[i]);
    }
    free(history->series);
    pthread_mutex_destroy(&history->lock);
}

size_t gs_history_memory(gs_history *history) {
    pthread_mutex_lock(&history->lock);
    size_t bytes = gs_track_memory(&history->steps);
    for (size_t i = 0; i < history->series_count; i++) {
        bytes += sizeof(gs_series) + gs_track_memory(&history->series[i]->track);
    }
    pthread_mutex_unlock(&history->lock);
    return bytes;
}

/* ---- recording --------------------------------------------------------------------------------------- */

bool gs_history_append(gs_history *history, gs_track *track, const gs_item *item) {
    const gs_item *last = gs_track_last(track);
    const bool again = track == &history->steps; /* a step is taken once, but may be evaluated twice */
    if (last && (again ? item->step <= last->step : item->step < last->step)) {
        gs_track_cut(track, gs_track_find_step(track, item->step + !again));
        history->cuts++;
    }
    return gs_track_add(track, item);
}

void gs_history_add(gs_history *history, const gs_point *point) {
    gs_row row = {.item = {.step = point->step, .time_ms = point->time_ms},
                  .loss = (float)point->value[GS_LOSS],
                  .lr = point->value[GS_LR],
                  .grad_norm = (float)point->value[GS_GRAD_NORM],
                  .accuracy = (float)point->value[GS_ACCURACY],
                  .samples_per_second = (float)point->value[GS_SAMPLES_PER_SECOND],
                  .lacks = (uint8_t)point->lacks};
    pthread_mutex_lock(&history->lock);
    row.item.sequence = history->sequence + 1;
    history->sequence += gs_history_append(history, &history->steps, &row.item);
    pthread_mutex_unlock(&history->lock);
}

static gs_series *find_series(const gs_history *history, const char *key) {
    for (size_t i = 0; i < history->series_count; i++) {
        if (!strcmp(history->series[i]->key, key)) {
            return history->series[i];
        }
    }
    return NULL;
}

gs_series *gs_history_series(gs_history *history, const char *key) {
    gs_series *series = find_series(history, key);
    if (series) {
        return series;
    }
    gs_series **grown = realloc(history->series, (history->series_count + 1) * sizeof(gs_series *));
    if (!grown) {
        return NULL;
    }
    history->series = grown;
    series = calloc(1, sizeof *series);
    if (series) {
        snprintf(series->key, sizeof series->key, "%s", key);
        gs_track_init(&series->track, sizeof(gs_scalar), 1, value_of_scalar, history->limits.items);
        series->step = INT64_MIN;
        history->series[history->series_count++] = series;
    }
    return series;
}

/* Under the lock: may a value be added? Notes its step in its series, which is made for it. */
static int check_value(gs_history *history, const gs_value *value, gp_error *error) {
    for (size_t i = 0; i < GS_STEP_KEYS; i++) {
        if (!strcmp(value->key, step_keys[i])) {
            return gp_fail(error, GP_INVALID_VALUE, "",
                           "%s is recorded by the daemon at every step; take another name", value->key);
        }
    }
    gs_series *series = find_series(history, value->key);
    const bool of_eval = !strcmp(value->key, "eval_loss") || !strcmp(value->key, "eval_accuracy");
    size_t others = 0;
    for (size_t i = 0; i < history->series_count; i++) {
        others +=
            strcmp(history->series[i]->key, "eval_loss") && strcmp(history->series[i]->key, "eval_accuracy");
    }
    if (!series && !of_eval && others >= history->limits.keys) {
        return gp_fail(error, GP_LIMIT_EXCEEDED, "",
                       "the model has %zu series of its clients, as many as --max-metric-keys allows",
                       others);
    }
    series = series ? series : gs_history_series(history, value->key);
    if (!series) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    if (value->step < series->step) {
        return gp_fail(error, GP_INVALID_VALUE, "",
                       "the steps of a series must not go back: %s has a value of step %" PRId64
                       " already, and this one is of step %" PRId64,
                       value->key, series->step, value->step);
    }
    series->step = value->step;
    return 0;
}

int gs_history_put(gs_history *history, const gs_value *values, size_t count, size_t *ret_bad,
                   gp_error *error) {
    int result = 0;
    pthread_mutex_lock(&history->lock);
    const size_t before = history->series_count;
    for (size_t i = 0; i < before; i++) {
        const gs_item *last = gs_track_last(&history->series[i]->track);
        history->series[i]->step = last ? last->step : INT64_MIN;
    }
    for (size_t i = 0; i < count && !result; i++) {
        *ret_bad = i;
        result = check_value(history, &values[i], error);
    }
    while (result && history->series_count > before) {
        free_series(history->series[--history->series_count]);
    }
    for (size_t i = 0; i < count && !result; i++) {
        const gs_scalar scalar = {
            .item = {.step = values[i].step, .time_ms = values[i].time_ms, .sequence = history->sequence + 1},
            .value = values[i].value};
        gs_series *series = find_series(history, values[i].key);
        if (!gs_history_append(history, &series->track, &scalar.item)) {
            result = gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory after %zu of %zu values", i, count);
        } else {
            history->sequence++;
        }
    }
    pthread_mutex_unlock(&history->lock);
    return result;
}

static void cut_track(gs_track *track, int64_t step) {
    if (step < INT64_MAX) {
        gs_track_cut(track, gs_track_find_step(track, step + 1));
    }
}

void gs_history_cut(gs_history *history, int64_t step) {
    pthread_mutex_lock(&history->lock);
    cut_track(&history->steps, step);
    for (size_t i = 0; i < history->series_count; i++) {
        cut_track(&history->series[i]->track, step);
    }
    history->cuts++;
    pthread_mutex_unlock(&history->lock);
}

void gs_history_take_back(gs_history *history, uint64_t sequence) {
    pthread_mutex_lock(&history->lock);
    for (size_t i = 0; i < history->series_count; i++) {
        gs_track *track = &history->series[i]->track;
        gs_track_cut(track, gs_track_find_after(track, sequence));
    }
    history->cuts++;
    pthread_mutex_unlock(&history->lock);
}

/* ---- looking at it ----------------------------------------------------------------------------------- */

gs_track *gs_history_track(gs_history *history, size_t key) {
    return key < GS_STEP_KEYS                           ? &history->steps
           : key - GS_STEP_KEYS < history->series_count ? &history->series[key - GS_STEP_KEYS]->track
                                                        : NULL;
}

static int64_t later(int64_t time_ms, const gs_track *track) {
    const gs_item *last = gs_track_last(track);
    return last && last->time_ms > time_ms ? last->time_ms : time_ms;
}

int gs_history_look(gs_history *history, gs_view *ret_view) {
    pthread_mutex_lock(&history->lock);
    gs_view view = {.cursor = history->sequence, .cuts = history->cuts, .last_ms = later(0, &history->steps)};
    view.key_count = GS_STEP_KEYS + history->series_count;
    view.keys = malloc(view.key_count * sizeof *view.keys);
    for (size_t i = 0; i < view.key_count && view.keys; i++) {
        const gs_series *series = i < GS_STEP_KEYS ? NULL : history->series[i - GS_STEP_KEYS];
        snprintf(view.keys[i], GS_KEY_TEXT, "%s", series ? series->key : step_keys[i]);
        view.last_ms = series ? later(view.last_ms, &series->track) : view.last_ms;
    }
    pthread_mutex_unlock(&history->lock);
    if (!view.keys) {
        return -1;
    }
    *ret_view = view;
    return 0;
}

void gs_view_release(gs_view *view) {
    free(view->keys);
    *view = (gs_view){0};
}

uint64_t gs_history_cursor(gs_history *history, uint64_t *ret_cuts) {
    pthread_mutex_lock(&history->lock);
    const uint64_t sequence = history->sequence;
    *ret_cuts = history->cuts;
    pthread_mutex_unlock(&history->lock);
    return sequence;
}

/* The items of a range: *ret_begin ... *ret_end - 1, or none. */
static void find_range(const gs_track *track, const gs_range *range, size_t *ret_begin, size_t *ret_end) {
    const size_t begin = gs_track_find_after(track, range->since),
                 from = gs_track_find_step(track, range->from);
    const size_t end = gs_track_find_after(track, range->until),
                 to = range->to < INT64_MAX ? gs_track_find_step(track, range->to + 1) : track->count;
    *ret_begin = begin > from ? begin : from;
    *ret_end = end < to ? end : to;
    *ret_end = *ret_end < *ret_begin ? *ret_begin : *ret_end;
}

/* Sum up begin ... end - 1 (one at least). @return false: there is no value in it */
static bool fill_bucket(const gs_track *track, size_t column, size_t begin, size_t end, gs_bucket *bucket) {
    gs_stat stat;
    gs_track_sum(track, begin, end, column, &stat);
    const gs_item *last = gs_track_at(track, end - 1);
    const bool finite = stat.count > stat.nonfinite;
    *bucket = (gs_bucket){.step = last->step,
                          .time_ms = last->time_ms,
                          .sequence = last->sequence,
                          .min = finite ? stat.min : NAN,
                          .max = finite ? stat.max : NAN,
                          .mean = finite ? stat.sum / (stat.count - stat.nonfinite) : NAN,
                          .last = stat.last,
                          .count = stat.count,
                          .nonfinite = stat.nonfinite};
    return stat.count;
}

/* The smallest power of two such that aligned groups of so many items number `max` at most: its logarithm. */
static int group_shift(size_t begin, size_t end, size_t max) {
    int shift = 0;
    while (end - begin > max && ((end - 1) >> shift) - (begin >> shift) >= max) {
        shift++;
    }
    return shift;
}

/* Under the lock: what view->keys[key] is of; NULL: things were cut since. */
static const gs_track *viewed(gs_history *history, const gs_view *view, size_t key, size_t *ret_column) {
    *ret_column = key < GS_STEP_KEYS ? key : 0;
    return view->cuts == history->cuts ? gs_history_track(history, key) : NULL;
}

/* Under the lock: buckets of the groups `group` ... of begin ... end - 1, until there are SLICE. */
static void read_slice(const gs_track *track, size_t column, int shift, size_t begin, size_t end,
                       size_t *group, gs_bucket *buckets, size_t *count) {
    for (size_t i = 0; i < SLICE && *group <= (end - 1) >> shift; i++, ++*group) {
        size_t low = *group << shift, high = (*group + 1) << shift;
        low = low < begin ? begin : low;
        low = low < track->first ? track->first : low; /* the oldest may have gone meanwhile */
        high = high > end ? end : high;
        *count += low < high && fill_bucket(track, column, low, high, &buckets[*count]);
    }
}

int gs_history_read(gs_history *history, const gs_view *view, size_t key, const gs_range *range, size_t max,
                    gs_bucket **ret_buckets, size_t *ret_count) {
    size_t column, begin = 0, end = 0, count = 0;
    pthread_mutex_lock(&history->lock);
    const gs_track *track = viewed(history, view, key, &column);
    if (track) {
        find_range(track, range, &begin, &end);
    }
    pthread_mutex_unlock(&history->lock);
    gs_bucket *buckets = NULL;
    if (track && begin < end) {
        const int shift = group_shift(begin, end, max);
        size_t group = begin >> shift;
        buckets = malloc((((end - 1) >> shift) - group + 1) * sizeof *buckets);
        if (!buckets) {
            return -1;
        }
        while (track && group <= (end - 1) >> shift) {
            pthread_mutex_lock(&history->lock);
            track = viewed(history, view, key, &column);
            if (track) {
                read_slice(track, column, shift, begin, end, &group, buckets, &count);
            }
            pthread_mutex_unlock(&history->lock);
        }
    }
    if (!track) {
        free(buckets);
        return 1;
    }
    *ret_buckets = buckets;
    *ret_count = count;
    return 0;
}

int gs_history_items(gs_history *history, const gs_view *view, size_t key, const gs_range *range,
                     gs_bucket *buckets, size_t max, uint64_t *ret_since, bool *ret_more) {
    size_t column, begin, end;
    int count = -1;
    pthread_mutex_lock(&history->lock);
    const gs_track *track = viewed(history, view, key, &column);
    if (track) {
        find_range(track, range, &begin, &end);
        count = 0;
        *ret_more = end - begin > max;
        *ret_since = range->until;
        for (end = *ret_more ? begin + max : end; begin < end; begin++) {
            *ret_since = gs_track_at(track, begin)->sequence;
            count += fill_bucket(track, column, begin, begin + 1, &buckets[count]);
        }
    }
    pthread_mutex_unlock(&history->lock);
    return count;
}

size_t gs_history_rows(gs_history *history, int64_t after, gs_row *rows, size_t max) {
    pthread_mutex_lock(&history->lock);
    const gs_track *track = &history->steps;
    size_t at = gs_track_find_step(track, after + 1), count = 0;
    for (; at < track->count && count < max; at++) {
        rows[count++] = *(const gs_row *)gs_track_at(track, at);
    }
    pthread_mutex_unlock(&history->lock);
    return count;
}

int64_t gs_history_last_step(gs_history *history, const char *key) {
    pthread_mutex_lock(&history->lock);
    const gs_series *series = find_series(history, key);
    const gs_item *last = series ? gs_track_last(&series->track) : NULL;
    const int64_t step = last ? last->step : -1;
    pthread_mutex_unlock(&history->lock);
    return step;
}
