/* history.h -- a model's metrics: a row for each training step, and other series, such as eval_loss, by name.
 * Any thread.
 *
 * Rows and values are numbered in the order they came, 1, 2, 3 ...: these sequence numbers are the cursor of
 * a poll. They are never given twice, so that after a cut (a restore), or after a restart, a client that asks
 * for what is new gets the steps that are taken again. Of what it has, the new ones replace those of the same
 * steps and later ones. */
#ifndef GRADD_SERVER_HISTORY_H
#define GRADD_SERVER_HISTORY_H

#include <pthread.h>

#include "proto/gradd_codec.h"
#include "track.h"

/** What is recorded of every step, in the order of gs_history_key(). */
enum { GS_LOSS, GS_LR, GS_GRAD_NORM, GS_ACCURACY, GS_SAMPLES_PER_SECOND, GS_STEP_KEYS };

enum { GS_KEY_TEXT = 65 /* bytes of a key */, GS_EVAL_KEYS = 2 /* there is always room for these */ };

/** A step. */
typedef struct gs_point {
    int64_t step;
    int64_t time_ms; /* since 1970 */
    double value[GS_STEP_KEYS];
    unsigned lacks; /* 1 << GS_ACCURACY: it has no accuracy */
} gs_point;

/** A value of another series. */
typedef struct gs_value {
    const char *key; /* obeys the name rule */
    int64_t step;
    int64_t time_ms;
    double value;
} gs_value;

typedef struct gs_history_limits {
    size_t items; /* rows, and values of each other series; the oldest go */
    size_t keys;  /* other series, beside eval_loss and eval_accuracy */
} gs_history_limits;

typedef struct gs_series {
    char key[GS_KEY_TEXT];
    gs_track track;
    int64_t step; /* while values are checked: the last one's */
} gs_series;

typedef struct gs_history {
    pthread_mutex_t lock; /* guards all. Held for microseconds, whatever is asked */
    gs_history_limits limits;
    gs_track steps;
    gs_series **series;
    size_t series_count;
    uint64_t sequence; /* the last that was given, or skipped */
    uint64_t cuts;     /* how many: what was looked at before may have gone */
} gs_history;

void gs_history_init(gs_history *history, const gs_history_limits *limits);
void gs_history_release(gs_history *history);

/** Record a step. One that is not past the last one takes the place of that and of all after it. It is lost
 * when there is no memory. */
void gs_history_add(gs_history *history, const gs_point *point);
/** Record values, all of them or none. @return 0; -1: value *ret_bad has a key that is a step's, or is one
 * too many, or it is of a step before the last of its series */
int gs_history_put(gs_history *history, const gs_value *values, size_t count, size_t *ret_bad,
                   gp_error *error);
/** Forget what lies past a step. */
void gs_history_cut(gs_history *history, int64_t step);
/** Forget the values of other series after this sequence number: they could not be stored. */
void gs_history_take_back(gs_history *history, uint64_t sequence);
/** Bytes allocated. */
size_t gs_history_memory(gs_history *history);

/* ---- looking at it ----------------------------------------------------------------------------------- */

/** What there is at one moment. A series' place among the keys stays the same. */
typedef struct gs_view {
    uint64_t cursor, cuts;
    int64_t last_ms; /* when the last row or value came; 0: there is none */
    size_t key_count;
    char (*keys)[GS_KEY_TEXT]; /* loss, lr ..., then the other series in the order they came */
} gs_view;
/** @return 0; -1: no memory. Release with gs_view_release(). */
int gs_history_look(gs_history *history, gs_view *ret_view);
void gs_view_release(gs_view *view);
/** The sequence number given last; cuts change `ret_cuts`. */
uint64_t gs_history_cursor(gs_history *history, uint64_t *ret_cuts);

/** Which items: sequence numbers since + 1 ... until, steps from ... to. */
typedef struct gs_range {
    uint64_t since, until;
    int64_t from, to;
} gs_range;

/** A stretch of a series. */
typedef struct gs_bucket {
    int64_t step, time_ms; /* of its last item */
    uint64_t sequence;     /* likewise */
    double min, max, mean; /* of finite values; NaN: there are none */
    double last;
    uint32_t count, nonfinite;
} gs_bucket;

/**
 * A series in at most `max` buckets, oldest first: items where that is enough for all, else stretches of 2,
 * 4, 8
 * ... items. Those at both ends have no more in them than the range says. Items without a value count
 * nowhere.
 *
 * @param key         its place in view->keys
 * @param ret_buckets malloc()ed; NULL when there are none
 * @return 0; -1: no memory; 1: there was a cut since `view`, look again
 */
int gs_history_read(gs_history *history, const gs_view *view, size_t key, const gs_range *range, size_t max,
                    gs_bucket **ret_buckets, size_t *ret_count);
/** The first of a range's items, at most `max`, each as a bucket; go on with range->since as *ret_since.
 *  @return how many; -1: there was a cut. *ret_more: there may be more of them */
int gs_history_items(gs_history *history, const gs_view *view, size_t key, const gs_range *range,
                     gs_bucket *buckets, size_t max, uint64_t *ret_since, bool *ret_more);

/* ---- keeping it (history_pack.c) --------------------------------------------------------------------- */

/** Rows and values as bytes. */
typedef struct gs_pack {
    void *data; /* malloc()ed; NULL: there are none */
    size_t size;
    uint64_t first, last; /* sequence numbers: of the first in it; up to which there is no other */
    int64_t max_step;
} gs_pack;

/**
 * Pack what came after `since`, which is 0 or an earlier pack's `last`. After a cut at `step`, packs with a
 * larger max_step hold what has gone: drop them, and pack anew after the smallest of their `first` less one.
 *
 * @return 0; -1: no memory
 */
int gs_history_pack(gs_history *history, uint64_t since, gs_pack *ret_pack);
/** Add what was packed, packs in the order they were made. Later sequence numbers leave a gap, which is for
 * those that were given and not kept. @return 0; -1: it is damaged, and nothing has changed, or there is no
 * memory */
int gs_history_unpack(gs_history *history, const void *data, size_t size, gp_error *error);

/* ---- rows as they are (also for history_pack.c)
 * ------------------------------------------------------------------------------ */

/** A step as it is kept. */
typedef struct gs_row {
    gs_item item;
    double lr;
    float loss, grad_norm, accuracy, samples_per_second;
    uint8_t lacks;
} gs_row;

/** A value as it is kept. */
typedef struct gs_scalar {
    gs_item item;
    double value;
} gs_scalar;

/** Under the lock: append, with the sequence number that is set; steps that it goes back over are cut.
 *  @return false: no memory */
bool gs_history_append(gs_history *history, gs_track *track, const gs_item *item);
/** Under the lock: the series of this name, made if need be; NULL: no memory. */
gs_series *gs_history_series(gs_history *history, const char *key);
/** Under the lock: NULL: there is no such key. */
gs_track *gs_history_track(gs_history *history, size_t key);
/** The step of the last value of a series; -1: it has none. */
int64_t gs_history_last_step(gs_history *history, const char *key);
/** Copies of the first rows past a step, at most `max`. @return how many */
size_t gs_history_rows(gs_history *history, int64_t after, gs_row *rows, size_t max);
/** Name of what is recorded of every step. */
const char *gs_history_key(size_t key);

#endif
