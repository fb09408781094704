/* history.c -- a model's metrics: read in buckets, item by item, or as CSV; and values of clients' own. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/checkpoints.h"

#include "handlers.h"

enum {
    DEFAULT_POINTS = 1000,
    MAX_POINTS = 100000,
    POLL_ACTIVE_MS = 1000, /* while steps are taken, or were lately */
    POLL_IDLE_MS = 5000,
    LATELY_MS = 10000,
    PIECE = 512,       /* items that a stream takes at a time */
    CSV_PIECE = 64,    /* likewise, of each series */
    ENOUGH = 32 * 1024 /* bytes of CSV that are made at a time */
};

/* What is asked for. */
typedef struct query {
    gs_view view;
    bool *wanted;               /* [view.key_count] */
    bool no_eval[GS_EVAL_KEYS]; /* eval_loss, eval_accuracy: wanted, but there is none yet */
    gs_range range;
    int64_t max_points; /* 0: every item */
} query;

static const char *const eval_keys[GS_EVAL_KEYS] = {"eval_loss", "eval_accuracy"};

static void release_query(query *q) {
    gs_view_release(&q->view);
    free(q->wanted);
}

/* ---- the question ------------------------------------------------------------------------------------ */

static bool is_word(const char *word, const char *at, size_t length) {
    return strlen(word) == length && !strncmp(word, at, length);
}

/* Note that one of "loss,lr" is wanted. */
static int want(query *q, const char *at, size_t length, gp_error *error) {
    for (size_t i = 0; i < q->view.key_count; i++) {
        if (is_word(q->view.keys[i], at, length)) {
            q->wanted[i] = true;
            return 0;
        }
    }
    for (size_t i = 0; i < GS_EVAL_KEYS; i++) {
        if (is_word(eval_keys[i], at, length)) {
            q->no_eval[i] = true;
            return 0;
        }
    }
    char known[400] = "";
    for (size_t i = 0, size = 0; i < q->view.key_count && size < sizeof known - GS_KEY_TEXT - 8; i++) {
        size += (size_t)snprintf(known + size, sizeof known - size, "%s%s", i ? ", " : "", q->view.keys[i]);
    }
    return gp_fail(error, GP_INVALID_VALUE, "", "there is no series \"%.*s\"; there are %s",
                   (int)(length < 64 ? length : 64), at, known);
}

static int read_keys(const gs_request *request, query *q, gp_error *error) {
    const char *keys = gs_uri_find(&request->uri, "keys");
    q->wanted = calloc(q->view.key_count, sizeof *q->wanted);
    if (!q->wanted) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    for (size_t i = 0; i < q->view.key_count; i++) {
        q->wanted[i] = !keys;
    }
    while (keys) {
        const size_t length = strcspn(keys, ",");
        if (want(q, keys, length, error)) {
            return -1;
        }
        keys = keys[length] ? keys + length + 1 : NULL;
    }
    return 0;
}

/* Release it with release_query() also after a failure. */
static int read_query(gs_request *request, query *q, gp_error *error) {
    int64_t since;
    *q = (query){.wanted = NULL};
    if (gs_query_integer(request, "since", 0, 0, INT64_MAX, &since, error) ||
        gs_query_integer(request, "from", 0, 0, INT64_MAX, &q->range.from, error) ||
        gs_query_integer(request, "to", INT64_MAX, 0, INT64_MAX, &q->range.to, error) ||
        gs_query_integer(request, "max_points", DEFAULT_POINTS, 0, MAX_POINTS, &q->max_points, error)) {
        return -1;
    }
    if (gs_history_look(&request->model->history, &q->view)) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    q->range.since = (uint64_t)since;
    q->range.until = q->view.cursor;
    return read_keys(request, q, error);
}

/* ---- JSON -------------------------------------------------------------------------------------------- */

static const char *const columns[] = {"step", "time", "min", "max", "mean", "last", "count", "nonfinite"};
enum { STEP, TIME, MIN, MAX, MEAN, LAST, COUNT, NONFINITE, COLUMNS };

/* Digits that are kept of float32; 0: of a double, as many as it has. What is told from a few samples, or a
 * clock, needs no nine: 0.9 is shown as that, not as 0.899999976. */
static const int step_digits[GS_STEP_KEYS] = {
    [GS_LOSS] = 9, [GS_LR] = 0, [GS_GRAD_NORM] = 9, [GS_ACCURACY] = 7, [GS_SAMPLES_PER_SECOND] = 7};

static void write_value(gp_text *text, double value, size_t key) {
    const int digits = key < GS_STEP_KEYS ? step_digits[key] : 0;
    if (digits) {
        gp_json_write_number(text, value, digits);
    } else {
        gp_json_write_double(text, value);
    }
}

/* A mean is rounded anyway: 15 digits of a double, so that the mean of 0.1 and 0.1 is that. */
static void write_mean(gp_text *text, const gs_bucket *bucket, size_t key) {
    if (bucket->count == 1) {
        write_value(text, bucket->last, key);
    } else if (key < GS_STEP_KEYS) {
        gp_json_write_number(text, bucket->mean, step_digits[key] == 7 ? 7 : 9);
    } else {
        gp_json_write_number(text, bucket->mean, 15);
    }
}

static void write_cell(gp_text *text, const gs_bucket *bucket, size_t key, int column) {
    char time[GS_TIME_TEXT + 2];
    switch (column) {
    case STEP:
        gp_json_write_integer(text, bucket->step);
        break;
    case TIME:
        gs_time_text(bucket->time_ms, time + 1);
        time[0] = time[25] = '"';
        gp_text_append(text, time, 26);
        break;
    case MIN:
        write_value(text, bucket->min, key);
        break;
    case MAX:
        write_value(text, bucket->max, key);
        break;
    case MEAN:
        write_mean(text, bucket, key);
        break;
    case LAST:
        write_value(text, bucket->last, key);
        break;
    case COUNT:
        gp_json_write_integer(text, bucket->count);
        break;
    default:
        gp_json_write_integer(text, bucket->nonfinite);
    }
}

/* A column, or some of it: `begun` says whether there are cells before. */
static void write_cells(gp_text *text, const gs_bucket *buckets, size_t count, size_t key, int column,
                        bool begun) {
    for (size_t i = 0; i < count; i++) {
        gp_text_append(text, ",", begun || i);
        write_cell(text, &buckets[i], key, column);
    }
}

static void write_head(gp_text *text, const query *q) {
    const bool lately = gs_time_ms() - q->view.last_ms < LATELY_MS;
    gp_text_add(text, "{\"cursor\":%" PRIu64 ",\"poll_after_ms\":%d,\"series\":{", q->view.cursor,
                lately ? POLL_ACTIVE_MS : POLL_IDLE_MS);
}

/* "loss":{ after a comma where one belongs: what ends in "{" has nothing before. */
static void write_key(gp_text *text, const char *key, bool begun) {
    gp_text_add(text, "%s\"%s\":{", begun ? "," : "", key);
}

/* A series in the text, to copy cells from: every value is rendered once. */
typedef struct written {
    gs_bucket *buckets;
    size_t count;
    bool single; /* each bucket holds one value, a finite one: that is its minimum, maximum and mean, too */
    struct {
        size_t begin, size;
    } cells[COLUMNS];
} written;

static bool are_single(const gs_bucket *buckets, size_t count) {
    size_t i = 0;
    while (i < count && buckets[i].count == 1 && !buckets[i].nonfinite) {
        i++;
    }
    return i == count;
}

static bool have_same_steps(const written *one, const written *other) {
    size_t i = 0;
    while (i < one->count && one->count == other->count && one->buckets[i].step == other->buckets[i].step &&
           one->buckets[i].time_ms == other->buckets[i].time_ms) {
        i++;
    }
    return i == one->count;
}

/* @param before the series before, of the same steps; or NULL */
static void write_column(gp_text *text, written *series, const written *before, size_t key, int column) {
    const size_t begin = text->size;
    const bool counts = column == COUNT || column == NONFINITE;
    if (series->single && column > MIN && column <= LAST) {
        gp_text_repeat(text, series->cells[MIN].begin, series->cells[MIN].size);
    } else if (before && (column <= TIME || (counts && series->single && before->single))) {
        gp_text_repeat(text, before->cells[column].begin, before->cells[column].size);
    } else {
        write_cells(text, series->buckets, series->count, key, column, false);
    }
    series->cells[column].begin = begin;
    series->cells[column].size = text->size - begin;
}

/* @param before what was written last, or nothing */
static void write_series(gp_text *text, const char *name, written *series, const written *before, size_t key,
                         bool *begun) {
    const bool same = series->count && have_same_steps(series, before);
    series->single = are_single(series->buckets, series->count);
    write_key(text, name, *begun);
    for (int column = 0; column < COLUMNS; column++) {
        gp_text_add(text, "%s\"%s\":[", column ? "," : "", columns[column]);
        write_column(text, series, same ? before : NULL, key, column);
        gp_text_append(text, "]", 1);
    }
    gp_text_append(text, "}", 1);
    *begun = true;
}

static void write_tail(gp_text *text, const query *q, bool begun) {
    written none = {.count = 0};
    for (size_t i = 0; i < GS_EVAL_KEYS; i++) {
        if (q->no_eval[i]) {
            write_series(text, eval_keys[i], &none, &none, 0, &begun);
        }
    }
    gp_text_append(text, "}}", 2);
}

/* @return 0; -1: no memory; 1: there was a cut meanwhile */
static int write_buckets(gp_text *text, gs_history *history, const query *q) {
    bool begun = false;
    int result = 0;
    written last = {.count = 0};
    write_head(text, q);
    for (size_t key = 0; key < q->view.key_count && !result; key++) {
        written series = {.count = 0};
        if (q->wanted[key]) {
            result = gs_history_read(history, &q->view, key, &q->range, (size_t)q->max_points,
                                     &series.buckets, &series.count);
        }
        if (q->wanted[key] && !result) {
            write_series(text, q->view.keys[key], &series, &last, key, &begun);
            free(last.buckets);
            last = series;
        }
    }
    free(last.buckets);
    write_tail(text, q, begun);
    return result;
}

static int reply_buckets(gs_request *request, query *q, gp_error *error) {
    gp_text text = {0};
    int result = write_buckets(&text, &request->model->history, q);
    while (result > 0) { /* what was looked at has gone: look again */
        gp_text_release(&text);
        release_query(q);
        if (read_query(request, q, error)) {
            return -1;
        }
        result = write_buckets(&text, &request->model->history, q);
    }
    if (result) {
        gp_text_release(&text);
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    return gs_reply_text(request, 200, GS_MEDIA_JSON, &text, error);
}

/* ---- streams ----------------------------------------------------------------------------------------- */

/* Next items of one series. */
typedef struct feed {
    size_t key;
    gs_range range; /* since: where it stands */
    bool more;
    int count, at;
    gs_bucket *items; /* [CSV_PIECE] */
} feed;

/* Every item of what was asked for, as it goes out. */
typedef struct export {
    gs_stream stream;
    gs_hosted *hosted; /* a reference */
    query query;
    int (*fill)(struct export *); /* into text. @return 0; GS_STREAM_END, GS_STREAM_FAILED */
    gp_text text;
    size_t sent; /* bytes of text */
    /* JSON */
    bool headed, begun, in_series, in_column, finished;
    size_t key;
    int column;
    uint64_t since;   /* where the column stands */
    size_t cells[2];  /* items of the first column, and of this one so far */
    gs_bucket *items; /* [PIECE] */
    /* CSV */
    feed *feeds;
    size_t feed_count;
}
export;

static void free_export(gs_stream *stream) {
    export *e = (export *)stream;
    for (size_t i = 0; i < e->feed_count; i++) {
        free(e->feeds[i].items);
    }
    free(e->feeds);
    free(e->items);
    gp_text_release(&e->text);
    release_query(&e->query);
    if (e->hosted) {
        gs_hosted_unref(e->hosted);
    }
    free(e);
}

static ssize_t more_of_export(gs_stream *stream, char *out, size_t size) {
    export *e = (export *)stream;
    while (e->sent == e->text.size) {
        e->sent = e->text.size = 0;
        int result = e->fill(e);
        if (result || e->text.failed) {
            return result == GS_STREAM_END ? GS_STREAM_END : GS_STREAM_FAILED;
        }
    }
    size_t left = e->text.size - e->sent;
    size = size < left ? size : left;
    memcpy(out, e->text.data + e->sent, size);
    e->sent += size;
    return (ssize_t)size;
}

/* Takes over the query. */
static export *new_export(gs_request *request, query *q, int (*fill)(export *)) {
    export *e = calloc(1, sizeof *e);
    if (e) {
        e->stream.more = more_of_export;
        e->stream.free = free_export;
        e->fill = fill;
        e->query = *q;
        *q = (query){.wanted = NULL};
        e->hosted = request->model;
        gs_hosted_ref(e->hosted);
    }
    return e;
}

/* ---- every item as JSON: column by column, each a walk over the series ------------------------------- */

/* The next items of a column. */
static int add_cells(export *e) {
    gs_range range = e->query.range;
    bool more;
    range.since = e->since;
    int count = gs_history_items(&e->hosted->history, &e->query.view, e->key, &range, e->items, PIECE,
                                 &e->since, &more);
    if (count < 0) {
        return GS_STREAM_FAILED; /* a cut: what went out does not hold any longer */
    }
    write_cells(&e->text, e->items, (size_t)count, e->key, e->column, e->cells[1] > 0);
    e->cells[1] += (size_t)count;
    if (more) {
        return 0;
    }
    gp_text_append(&e->text, "]", 1);
    e->in_column = false;
    e->cells[0] = e->column ? e->cells[0] : e->cells[1];
    if (e->cells[0] != e->cells[1]) {
        return GS_STREAM_FAILED; /* the oldest have gone between two columns */
    }
    e->column++;
    return 0;
}

static int fill_json(export *e) {
    if (e->finished) {
        return GS_STREAM_END;
    }
    if (!e->headed) {
        write_head(&e->text, &e->query);
        e->headed = true;
    }
    if (e->in_column) {
        return add_cells(e);
    }
    if (e->in_series && e->column < COLUMNS) {
        gp_text_add(&e->text, "%s\"%s\":[", e->column ? "," : "", columns[e->column]);
        e->in_column = true;
        e->cells[1] = 0;
        e->since = e->query.range.since;
        return 0;
    }
    if (e->in_series) {
        gp_text_append(&e->text, "}", 1);
        e->in_series = false;
        e->key++;
    }
    while (e->key < e->query.view.key_count && !e->query.wanted[e->key]) {
        e->key++;
    }
    if (e->key < e->query.view.key_count) {
        write_key(&e->text, e->query.view.keys[e->key], e->begun);
        e->begun = e->in_series = true;
        e->column = 0;
    } else {
        write_tail(&e->text, &e->query, e->begun);
        e->finished = true;
    }
    return 0;
}

static int reply_items(gs_request *request, query *q, gp_error *error) {
    export *e = new_export(request, q, fill_json);
    if (e) {
        e->items = malloc(PIECE * sizeof *e->items);
    }
    if (!e || !e->items) {
        gs_stream_drop(e ? &e->stream : NULL);
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    return gs_reply_stream(request, GS_MEDIA_JSON, &e->stream);
}

/* ---- every item as CSV: a line for each step, and for each value of another series ------------------- */

static int refill(export *e, feed *f) {
    if (f->at < f->count || !f->more) {
        return 0;
    }
    f->at = 0;
    do { /* a piece of steps may have no accuracy, say */
        f->count = gs_history_items(&e->hosted->history, &e->query.view, f->key, &f->range, f->items,
                                    CSV_PIECE, &f->range.since, &f->more);
    } while (!f->count && f->more);
    return f->count < 0 ? GS_STREAM_FAILED : 0;
}

static void write_csv_value(gp_text *text, double value, size_t key) {
    if (isfinite(value)) {
        write_value(text, value, key);
    } else {
        gp_text_add(text, "%s", isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
    }
}

/* The item with the smallest number, and what else has that number: values of one step. */
static void write_line(export *e, const gs_bucket *head) {
    char time[GS_TIME_TEXT];
    const uint64_t sequence = head->sequence;
    gp_json_write_integer(&e->text, head->step);
    gp_text_append(&e->text, ",", 1);
    gs_time_text(head->time_ms, time);
    gp_text_append(&e->text, time, strlen(time));
    for (size_t i = 0; i < e->feed_count; i++) {
        feed *f = &e->feeds[i];
        gp_text_append(&e->text, ",", 1);
        if (f->at < f->count && f->items[f->at].sequence == sequence) {
            write_csv_value(&e->text, f->items[f->at].last, f->key);
            f->at++;
        }
    }
    gp_text_append(&e->text, "\r\n", 2);
}

static void write_csv_head(export *e) {
    gp_text_add(&e->text, "step,time");
    for (size_t i = 0; i < e->feed_count; i++) {
        gp_text_add(&e->text, ",%s", e->query.view.keys[e->feeds[i].key]);
    }
    gp_text_append(&e->text, "\r\n", 2);
    e->headed = true;
}

static int fill_csv(export *e) {
    if (e->finished) {
        return GS_STREAM_END;
    }
    if (!e->headed) {
        write_csv_head(e);
    }
    while (e->text.size < ENOUGH && !e->text.failed) {
        const gs_bucket *head = NULL;
        for (size_t i = 0; i < e->feed_count; i++) {
            feed *f = &e->feeds[i];
            if (refill(e, f)) {
                return GS_STREAM_FAILED;
            }
            if (f->at < f->count && (!head || f->items[f->at].sequence < head->sequence)) {
                head = &f->items[f->at];
            }
        }
        if (!head) {
            e->finished = true;
            return 0;
        }
        write_line(e, head);
    }
    return 0;
}

static int reply_csv(gs_request *request, query *q, gp_error *error) {
    export *e = new_export(request, q, fill_csv);
    bool failed = !e || !(e->feeds = calloc(e->query.view.key_count, sizeof *e->feeds));
    for (size_t key = 0; !failed && key < e->query.view.key_count; key++) {
        if (e->query.wanted[key]) {
            feed *f = &e->feeds[e->feed_count++];
            *f = (feed){.key = key, .range = e->query.range, .more = true};
            failed = !(f->items = malloc(CSV_PIECE * sizeof *f->items));
        }
    }
    if (failed) {
        gs_stream_drop(e ? &e->stream : NULL);
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    return gs_reply_stream(request, GS_MEDIA_CSV, &e->stream);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

/* Changes whenever the answer does. */
static void history_etag(gs_request *request, char *text, size_t size) {
    uint64_t cuts, cursor = gs_history_cursor(&request->model->history, &cuts);
    snprintf(text, size, "\"%" PRIx64 "-%" PRIu64 "-m%" PRIu64 "-%" PRIu64 "-%d\"",
             request->model->models->boot, request->model->id, cursor, cuts, (int)request->accept);
}

int gs_handle_history(gs_request *request, gp_error *error) {
    query q;
    char etag[96];
    history_etag(request, etag,
                 sizeof etag); /* before it is read, so that it is not newer than what was read */
    int result = read_query(request, &q, error);
    if (!result) {
        const char *known = request->headers.if_none_match;
        gs_reply_etag(request, etag);
        result = known && strstr(known, etag) ? gs_reply_static(request, request->accept, "", 0) /* 304 */
                 : request->accept == GS_MEDIA_CSV ? reply_csv(request, &q, error)
                 : q.max_points                    ? reply_buckets(request, &q, error)
                                                   : reply_items(request, &q, error);
    }
    release_query(&q);
    return result;
}

/* ---- adding ------------------------------------------------------------------------------------------ */

/* The body, an object or a list of them, as {"points": [...]}. A new reference. */
static int read_points(const gs_request *request, json_t **ret_json, bool *ret_list, gp_error *error) {
    const gs_buffer *body = request->body;
    const char *data = body && body->size ? body->data : "{}";
    const size_t size = body && body->size ? body->size : 2;
    gp_text text = {0};
    *ret_list = data[strspn(data, " \t\r\n")] == '[';
    gp_text_add(&text, *ret_list ? "{\"points\":" : "{\"points\":[");
    gp_text_append(&text, data, size);
    gp_text_append(&text, *ret_list ? "}" : "]}", *ret_list ? 1 : 2);
    int result = text.failed ? gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory")
                             : gp_json_read(text.data, text.size, NULL, 0, ret_json, error);
    gp_text_release(&text);
    return result;
}

static bool read_number(const json_t *json, double *ret_value) {
    const char *text = json_string_value(json);
    if (!text) {
        *ret_value = json_number_value(json);
        return json_is_number(json);
    }
    *ret_value = !strcmp(text, "NaN") ? NAN : *text == '-' ? -INFINITY : INFINITY;
    return !strcmp(text, "NaN") || !strcmp(text, "Infinity") || !strcmp(text, "-Infinity");
}

/* "/0/values/my_metric", or "/values/my_metric" where the body is no list. */
static const char *pointer_to(char *pointer, size_t size, bool list, size_t index, const char *member) {
    if (list) {
        snprintf(pointer, size, "/%zu%s", index, member);
    } else {
        snprintf(pointer, size, "%s", member);
    }
    return pointer;
}

/* The values of one point, appended. Keys stay the document's. */
static int read_point(const json_t *point, bool list, size_t index, gs_value value, gs_value *values,
                      size_t *count, gp_error *error) {
    char at[192], member[128];
    const char *key;
    json_t *number;
    if (!json_is_object(point)) {
        return gp_fail(error, GP_INVALID_VALUE, pointer_to(at, sizeof at, list, index, ""),
                       "a point must be an object: {\"step\": 12, \"values\": {\"my_metric\": 1.5}}");
    }
    if (gs_check_members(point, "step values", error)) {
        return -1;
    }
    const json_t *step = json_object_get(point, "step"), *given = json_object_get(point, "values");
    if (step && (!json_is_integer(step) || json_integer_value(step) < 0)) {
        return gp_fail(error, GP_INVALID_VALUE, pointer_to(at, sizeof at, list, index, "/step"),
                       "step must be a whole number, 0 or more");
    }
    if (!json_is_object(given)) {
        return gp_fail(error, given ? GP_INVALID_VALUE : GP_MISSING_FIELD,
                       pointer_to(at, sizeof at, list, index, "/values"),
                       "values must be an object of numbers: {\"my_metric\": 1.5}");
    }
    value.step = step ? json_integer_value(step) : value.step;
    json_object_foreach((json_t *)(uintptr_t)given, key, number) {
        snprintf(member, sizeof member, "/values/%.100s", key);
        pointer_to(at, sizeof at, list, index, member);
        if (!gp_name_ok(key)) {
            return gp_fail(
                error, GP_INVALID_NAME, at,
                "a metric's name must be of letters, digits, \".\", \"_\", \"-\", begin with a letter or "
                "digit, and have 64 of them at most");
        }
        if (!read_number(number, &value.value)) {
            return gp_fail(error, GP_INVALID_VALUE, at,
                           "%s must be a number, \"NaN\", \"Infinity\" or \"-Infinity\"", key);
        }
        value.key = key;
        values[(*count)++] = value;
    }
    return 0;
}

static int add_points(gs_request *request, const json_t *points, bool list, gs_value *values,
                      size_t *ret_count, gp_error *error) {
    const gs_value initial = {.step = gd_model_steps(request->model->model), .time_ms = gs_time_ms()};
    size_t count = 0, bad = 0;
    for (size_t i = 0; i < json_array_size(points); i++) {
        if (read_point(json_array_get(points, i), list, i, initial, values, &count, error)) {
            return -1;
        }
    }
    if (gs_history_put(&request->model->history, values, count, &bad, error)) {
        size_t point = 0;
        for (size_t left = bad;
             left >= json_object_size(json_object_get(json_array_get(points, point), "values")); point++) {
            left -= json_object_size(json_object_get(json_array_get(points, point), "values"));
        }
        char member[128];
        /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): bad is one of those that were read */
        snprintf(member, sizeof member, "/values/%.64s", values[bad].key);
        pointer_to(error->pointer, sizeof error->pointer, list, point, member);
        return -1;
    }
    *ret_count = count;
    return 0;
}

/* Values that were added, until they are on the disk. */
typedef struct addition {
    gs_hosted *hosted; /* the request's */
    uint64_t before;   /* sequence number before them */
    uint64_t last;     /* up to which they are stored */
} addition;

static int write_addition(gs_store *store, void *argument, gp_error *error) {
    addition *a = argument;
    return gs_metrics_commit(store, a->hosted, &a->last, error);
}

static void settle_addition(void *argument, bool committed) {
    addition *a = argument;
    if (committed) {
        gs_metrics_note(a->hosted, a->last);
    } else {
        gs_history_take_back(&a->hosted->history, a->before);
    }
    free(a);
}

/* Add the values, to be committed with the request. */
static int add_durably(gs_request *request, const json_t *points, bool list, gs_value *values,
                       size_t *ret_count, gp_error *error) {
    uint64_t cuts;
    gs_history *history = &request->model->history;
    addition *a = malloc(sizeof *a);
    if (!a) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    *a = (addition){.hosted = request->model, .before = gs_history_cursor(history, &cuts)};
    if (add_points(request, points, list, values, ret_count, error)) {
        if (gs_history_cursor(history, &cuts) > a->before) { /* some are there: no memory for all */
            gs_history_take_back(history, a->before);
        }
        free(a);
        return -1;
    }
    request->of_state = true;
    const gs_effect effect = {.write = write_addition, .settle = settle_addition, .argument = a};
    return gs_effect_add(request, effect, error);
}

int gs_handle_history_add(gs_request *request, gp_error *error) {
    json_t *body = NULL;
    gs_value *values = NULL;
    bool list;
    size_t count = 0;
    int result = -1;
    if (read_points(request, &body, &list, error) || gs_check_members(body, "points", error)) {
        goto out;
    }
    const json_t *points = json_object_get(body, "points");
    for (size_t i = 0; i < json_array_size(points); i++) {
        count += json_object_size(json_object_get(json_array_get(points, i), "values"));
    }
    values = malloc((count + 1) * sizeof *values);
    if (!values) {
        gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
        goto out;
    }
    if (add_durably(request, points, list, values, &count, error)) {
        goto out;
    }
    uint64_t cuts, cursor = gs_history_cursor(&request->model->history, &cuts);
    gp_text text = {0};
    gp_text_add(&text, "{\"added\":%zu,\"cursor\":%" PRIu64 "}", count, cursor);
    result = gs_reply_text(request, 200, GS_MEDIA_JSON, &text, error);
out:
    free(values);
    json_decref(body);
    return result;
}
