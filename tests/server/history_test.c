/* history_test.c -- a model's history against a plain list of what went in. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/history.h"
#include "server/log.h"
#include "tests/support.h"

enum { SERIES = 3, MOST = 6000 };

/* What went in and was not cut, of the steps (key 0) and of other series. */
typedef struct plain {
    gs_point steps[MOST];
    uint64_t step_sequence[MOST];
    size_t step_count;
    struct {
        gs_value values[MOST];
        uint64_t sequence[MOST];
        size_t count;
    } series[SERIES];
    uint64_t sequence;
} plain;

static const char *const keys[SERIES] = {"eval_loss", "mine", "yours"};
static const gs_history_limits limits = {.items = 1000000, .keys = 64};

static uint64_t random_state = 1;
static unsigned draw(unsigned below) {
    random_state = random_state * 6364136223846793005 + 1442695040888963407;
    return (unsigned)(random_state >> 33) % below;
}

static double draw_value(void) {
    const unsigned kind = draw(20);
    return kind == 0 ? NAN : kind == 1 ? INFINITY : kind == 2 ? -INFINITY : (float)draw(1000000) / 1024 - 300;
}

static void add_step(gs_history *history, plain *p, int64_t step) {
    gs_point point = {.step = step, .time_ms = 1000000 + step * 7};
    for (size_t i = 0; i < GS_STEP_KEYS; i++) {
        point.value[i] = draw_value();
        point.lacks |= (unsigned)(draw(10) == 0) << i;
    }
    point.value[GS_LR] = 0.1 / (double)step; /* a double */
    gs_history_add(history, &point);
    p->step_sequence[p->step_count] = ++p->sequence;
    p->steps[p->step_count++] = point;
}

static void add_value(gs_history *history, plain *p, size_t series, int64_t step) {
    const gs_value value = {
        .key = keys[series], .step = step, .time_ms = 1000000 + step * 7 + 1, .value = draw_value() / 3};
    size_t bad;
    gp_error error = {0};
    assert_int_equal(gs_history_put(history, &value, 1, &bad, &error), 0);
    const size_t at = p->series[series].count++;
    p->series[series].values[at] = value;
    p->series[series].sequence[at] = ++p->sequence;
}

static void cut(gs_history *history, plain *p, int64_t step) {
    gs_history_cut(history, step);
    while (p->step_count && p->steps[p->step_count - 1].step > step) {
        p->step_count--;
    }
    for (size_t i = 0; i < SERIES; i++) {
        while (p->series[i].count && p->series[i].values[p->series[i].count - 1].step > step) {
            p->series[i].count--;
        }
    }
}

/* Random steps and values, and a cut now and then. */
static void fill(gs_history *history, plain *p, size_t steps) {
    int64_t step = p->step_count ? p->steps[p->step_count - 1].step : 0;
    for (size_t i = 0; i < steps; i++) {
        add_step(history, p, ++step);
        if (draw(10) == 0) {
            add_value(history, p, draw(SERIES), step);
        }
        if (draw(400) == 0) {
            step -= draw(100);
            step = step < 1 ? 1 : step;
            cut(history, p, step);
        }
    }
}

static size_t plain_count(const plain *p, size_t key) {
    return key < GS_STEP_KEYS ? p->step_count : p->series[key - GS_STEP_KEYS].count;
}

/* Item i of a key as a bucket; count 0: it has no value. */
static gs_bucket plain_item(const plain *p, size_t key, size_t i) {
    gs_bucket bucket = {.count = 1};
    double value;
    if (key < GS_STEP_KEYS) {
        const gs_point *point = &p->steps[i];
        value = key == GS_LR ? point->value[key] : (double)(float)point->value[key];
        bucket.count = !(point->lacks >> key & 1);
        bucket.step = point->step;
        bucket.time_ms = point->time_ms;
        bucket.sequence = p->step_sequence[i];
    } else {
        const gs_value *given = &p->series[key - GS_STEP_KEYS].values[i];
        value = given->value;
        bucket.step = given->step;
        bucket.time_ms = given->time_ms;
        bucket.sequence = p->series[key - GS_STEP_KEYS].sequence[i];
    }
    bucket.last = value;
    return bucket;
}

static bool in_range(const gs_bucket *item, const gs_range *range) {
    return item->sequence > range->since && item->sequence <= range->until && item->step >= range->from &&
           item->step <= range->to;
}

static void same_number(double is, double wanted) {
    assert_true(isnan(wanted) ? isnan(is) : is == wanted);
}

/* The buckets are, one behind the other, all that is in the range, each summed up rightly. */
static void check_buckets(const plain *p, size_t key, const gs_range *range, const gs_bucket *buckets,
                          size_t count) {
    size_t i = 0;
    for (size_t b = 0; b < count; b++) {
        const gs_bucket *bucket = &buckets[b];
        double min = INFINITY, max = -INFINITY, sum = 0, size = 0, last = NAN;
        uint32_t values = 0, nonfinite = 0;
        assert_true(bucket->count > 0);
        for (; i < plain_count(p, key); i++) {
            const gs_bucket item = plain_item(p, key, i);
            if (item.sequence > bucket->sequence) {
                break;
            }
            if (!in_range(&item, range) || !item.count) {
                continue;
            }
            values++;
            last = item.last;
            if (isfinite(last)) {
                min = fmin(min, last);
                max = fmax(max, last);
                sum += last;
                size += fabs(last);
            } else {
                nonfinite++;
            }
        }
        const gs_bucket end = plain_item(p, key, i - 1);
        assert_int_equal(bucket->step, end.step);
        assert_int_equal(bucket->time_ms, end.time_ms);
        assert_int_equal(bucket->sequence, end.sequence);
        assert_int_equal(bucket->count, values);
        assert_int_equal(bucket->nonfinite, nonfinite);
        same_number(bucket->last, last);
        same_number(bucket->min, values > nonfinite ? min : NAN);
        same_number(bucket->max, values > nonfinite ? max : NAN);
        if (values > nonfinite) {
            assert_true(fabs(bucket->mean - sum / (values - nonfinite)) <= 1e-12 * size);
        } else {
            assert_true(isnan(bucket->mean));
        }
    }
    for (; i < plain_count(p, key); i++) { /* nothing is left over */
        const gs_bucket item = plain_item(p, key, i);
        assert_false(in_range(&item, range) && item.count);
    }
}

/* Where a series stands among a view's keys; key_count: nowhere. */
static size_t find_key(const gs_view *view, const char *key) {
    size_t i = 0;
    while (i < view->key_count && strcmp(view->keys[i], key)) {
        i++;
    }
    return i;
}

static void check_query(gs_history *history, const plain *p, const gs_range *range, size_t max) {
    gs_view view;
    assert_int_equal(gs_history_look(history, &view), 0);
    for (size_t key = 0; key < GS_STEP_KEYS + SERIES; key++) {
        const char *name = key < GS_STEP_KEYS ? gs_history_key(key) : keys[key - GS_STEP_KEYS];
        const size_t at = find_key(&view, name);
        gs_bucket *buckets = NULL;
        size_t count = 0;
        if (at < view.key_count) {
            assert_int_equal(gs_history_read(history, &view, at, range, max, &buckets, &count), 0);
        }
        assert_true(count <= max);
        check_buckets(p, key, range, buckets, count);
        free(buckets);
    }
    gs_view_release(&view);
}

static gs_range everything(void) {
    return (gs_range){.until = UINT64_MAX, .to = INT64_MAX};
}

static void check_queries(gs_history *history, const plain *p, int queries) {
    static const size_t counts[] = {1, 2, 3, 7, 10, 64, 100, 500, 1000, 5000, 100000};
    for (int i = 0; i < queries; i++) {
        gs_range range = everything();
        if (draw(2)) {
            range.since = draw((unsigned)p->sequence + 2);
        }
        if (draw(3) == 0) {
            range.until = range.since + draw((unsigned)p->sequence + 2);
        }
        if (draw(3) == 0) {
            range.from = draw(MOST);
        }
        if (draw(3) == 0) {
            range.to = draw(MOST);
        }
        check_query(history, p, &range, counts[draw(sizeof counts / sizeof *counts)]);
    }
}

static void buckets_of_any_range_and_number_are_what_a_plain_list_says(void **state) {
    (void)state;
    plain *p = calloc(1, sizeof *p);
    gs_history history;
    gs_history_init(&history, &limits);
    check_queries(&history, p, 3);
    for (int round = 0; round < 20; round++) {
        fill(&history, p, 1 + draw(300));
        check_queries(&history, p, 20);
    }
    for (size_t max = 1; max < 200; max++) {
        const gs_range range = everything();
        check_query(&history, p, &range, max);
    }
    gs_history_release(&history);
    free(p);
}

static void polls_give_every_step_once(void **state) {
    (void)state;
    plain *p = calloc(1, sizeof *p);
    gs_history history;
    gs_history_init(&history, &limits);
    uint64_t since = 0, seen[2] = {0};
    for (int round = 0; round < 200; round++) {
        int64_t step = (int64_t)p->step_count;
        for (unsigned i = draw(60); i > 0; i--) {
            add_step(&history, p, ++step);
            add_value(&history, p, draw(SERIES), step);
        }
        gs_view view;
        assert_int_equal(gs_history_look(&history, &view), 0);
        gs_range range = everything();
        range.since = since;
        range.until = view.cursor;
        for (size_t key = 0; key < view.key_count; key++) {
            gs_bucket *buckets = NULL;
            size_t count = 0;
            assert_int_equal(gs_history_read(&history, &view, key, &range, 1 + draw(40), &buckets, &count),
                             0);
            if (key < GS_STEP_KEYS) {
                check_buckets(p, key, &range, buckets, count);
            }
            for (size_t i = 0; i < count && key >= GS_STEP_KEYS; i++) {
                seen[0] += buckets[i].count;
            }
            for (size_t i = 0; i < count && key == GS_LR; i++) {
                seen[1] += buckets[i].count;
            }
            free(buckets);
        }
        since = view.cursor;
        gs_view_release(&view);
    }
    size_t values = 0, rates = 0;
    for (size_t i = 0; i < SERIES; i++) {
        values += p->series[i].count;
    }
    for (size_t i = 0; i < p->step_count; i++) {
        rates += !(p->steps[i].lacks >> GS_LR & 1);
    }
    assert_int_equal(seen[0], values);
    assert_int_equal(seen[1], rates);
    gs_history_release(&history);
    free(p);
}

static void a_cut_gives_new_numbers_to_steps_taken_again(void **state) {
    (void)state;
    gs_history history;
    gs_history_init(&history, &limits);
    for (int64_t step = 1; step <= 100; step++) {
        gs_history_add(&history, &(gs_point){.step = step});
    }
    uint64_t cuts, before;
    assert_int_equal(gs_history_cursor(&history, &before), 100);
    gs_history_cut(&history, 60);
    gs_history_add(&history, &(gs_point){.step = 61});
    assert_int_equal(gs_history_cursor(&history, &cuts), 101);
    assert_int_not_equal(cuts, before);
    /* Without being told: a step that is taken again takes the place of the one before, and of what followed.
     */
    gs_history_add(&history, &(gs_point){.step = 41});
    assert_int_equal(history.steps.count, 41);
    assert_int_equal(gs_track_last(&history.steps)->sequence, 102);
    gs_history_cut(&history, -1);
    assert_null(gs_track_last(&history.steps));
    gs_history_release(&history);
}

static void a_view_from_before_a_cut_is_told_so(void **state) {
    (void)state;
    gs_history history;
    gs_history_init(&history, &limits);
    gs_history_add(&history, &(gs_point){.step = 1});
    gs_view view;
    assert_int_equal(gs_history_look(&history, &view), 0);
    gs_history_cut(&history, 0);
    const gs_range range = everything();
    gs_bucket *buckets, item;
    size_t count;
    uint64_t since;
    bool more;
    assert_int_equal(gs_history_read(&history, &view, 0, &range, 10, &buckets, &count), 1);
    assert_int_equal(gs_history_items(&history, &view, 0, &range, &item, 1, &since, &more), -1);
    gs_view_release(&view);
    gs_history_release(&history);
}

static void values_are_refused_all_or_none(void **state) {
    (void)state;
    gs_history history;
    gs_history_init(&history, &(gs_history_limits){.items = 1000, .keys = 2});
    const struct {
        gs_value values[4];
        size_t count, bad;
        const char *why; /* NULL: they are taken */
    } rows[] = {
        {{{"mine", 5, 0, 1}, {"mine", 5, 0, 2}, {"mine", 6, 0, 3}}, 3, 0, NULL},
        {{{"mine", 7, 0, 1}, {"loss", 7, 0, 1}}, 2, 1, "recorded by the daemon"},
        {{{"mine", 5, 0, 1}}, 1, 0, "must not go back"},
        {{{"mine", 9, 0, 1}, {"mine", 8, 0, 1}}, 2, 1, "already, and this one is of step 8"},
        {{{"eval_loss", 1, 0, 1}, {"yours", 1, 0, 1}}, 2, 0, NULL},
        {{{"eval_accuracy", 1, 0, 1}, {"third", 1, 0, 1}}, 2, 1, "--max-metric-keys"},
        {{{"mine", 6, 0, 4}}, 1, 0, NULL},
    };
    size_t taken = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gp_error error = {0};
        size_t bad = 99;
        uint64_t cuts;
        assert_int_equal(gs_history_put(&history, rows[i].values, rows[i].count, &bad, &error),
                         rows[i].why ? -1 : 0);
        if (rows[i].why) {
            assert_non_null(strstr(error.detail, rows[i].why));
            assert_int_equal(bad, rows[i].bad);
        } else {
            taken += rows[i].count;
        }
        assert_int_equal(gs_history_cursor(&history, &cuts), taken);
    }
    gs_view view;
    assert_int_equal(gs_history_look(&history, &view), 0);
    assert_int_equal(find_key(&view, "eval_accuracy"),
                     view.key_count); /* it came with one that was refused */
    gs_view_release(&view);
    gs_history_release(&history);
}

static void the_oldest_go(void **state) {
    (void)state;
    gs_history history;
    plain *p = calloc(1, sizeof *p);
    gs_history_init(&history, &(gs_history_limits){.items = 1000, .keys = 2});
    for (int64_t step = 1; step <= 5000; step++) {
        add_step(&history, p, step);
        if (step % 97 == 0) {
            gs_range range = everything();
            range.since = step > 1000 ? (uint64_t)step - 1000 : 0; /* so many are kept at least */
            check_query(&history, p, &range, 1 + draw(300));
        }
    }
    assert_true(history.steps.count - history.steps.first < 1000 + GS_ITEM_BLOCK);
    assert_true(gs_history_memory(&history) < 300000);
    gs_history_cut(&history, 4100);
    p->step_count = 4100;
    const gs_range range = {.since = 4000, .until = UINT64_MAX, .to = INT64_MAX};
    check_query(&history, p, &range, 10);
    gs_history_release(&history);
    free(p);
}

/* ---- packing ----------------------------------------------------------------------------------------- */

static void what_is_packed_comes_back_piece_by_piece(void **state) {
    (void)state;
    plain *p = calloc(1, sizeof *p);
    gs_history history, again;
    gs_pack packs[50];
    size_t count = 0;
    gs_history_init(&history, &limits);
    gs_history_init(&again, &limits);
    uint64_t since = 0, cuts;
    for (int round = 0; round < 50; round++) {
        int64_t step = (int64_t)p->step_count;
        for (unsigned i = draw(100); i > 0; i--) {
            add_step(&history, p, ++step);
            if (draw(4) == 0) {
                add_value(&history, p, draw(SERIES), step);
            }
        }
        assert_int_equal(gs_history_pack(&history, since, &packs[count]), 0);
        since = packs[count].last;
        assert_int_equal(since, p->sequence);
        if (packs[count].data) {
            assert_int_equal(packs[count].max_step, step);
            count++;
        }
    }
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        gp_error error = {0};
        assert_int_equal(gs_history_unpack(&again, packs[i].data, packs[i].size, &error), 0);
        bytes += packs[i].size;
        free(packs[i].data);
    }
    assert_true(bytes < 32 * p->step_count + 16 * p->step_count);
    check_queries(&again, p, 100);
    assert_true(gs_history_cursor(&again, &cuts) > since); /* numbers that were given are not given again */
    gs_history_release(&history);
    gs_history_release(&again);
    free(p);
}

static void after_a_cut_the_packs_that_held_more_are_made_anew(void **state) {
    (void)state;
    gs_history history, again;
    gs_pack pack, anew;
    gp_error error = {0};
    gs_history_init(&history, &limits);
    gs_history_init(&again, &limits);
    for (int64_t step = 1; step <= 100; step++) {
        gs_history_add(&history, &(gs_point){.step = step, .value = {(double)step}});
    }
    assert_int_equal(gs_history_pack(&history, 30, &pack), 0);
    assert_int_equal(pack.first, 31);
    assert_int_equal(pack.max_step, 100);
    gs_history_cut(&history, 50);
    for (int64_t step = 51; step <= 55; step++) {
        gs_history_add(&history, &(gs_point){.step = step, .value = {(double)-step}});
    }
    assert_int_equal(gs_history_pack(&history, pack.first - 1, &anew), 0);
    assert_int_equal(gs_history_unpack(&again, anew.data, anew.size, &error), 0);
    assert_int_equal(again.steps.count, 25);
    assert_int_equal(gs_track_last(&again.steps)->step, 55);
    /* Even where the one before was not dropped, no step is there twice. */
    gs_history_release(&again);
    gs_history_init(&again, &limits);
    free(anew.data);
    assert_int_equal(gs_history_pack(&history, pack.last, &anew), 0);
    assert_int_equal(gs_history_unpack(&again, pack.data, pack.size, &error), 0);
    assert_int_equal(gs_history_unpack(&again, anew.data, anew.size, &error), 0);
    assert_int_equal(again.steps.count, 25);
    free(pack.data);
    free(anew.data);
    gs_history_release(&again);
    gs_history_release(&history);
}

static void a_damaged_pack_changes_nothing(void **state) {
    (void)state;
    plain *p = calloc(1, sizeof *p);
    gs_history history;
    gs_pack pack;
    gs_history_init(&history, &limits);
    fill(&history, p, 50);
    assert_int_equal(gs_history_pack(&history, 0, &pack), 0);
    for (size_t size = 0; size < pack.size; size++) { /* cut anywhere: refused, or the end of a series */
        gs_history again;
        gp_error error = {0};
        gs_history_init(&again, &limits);
        char *bytes = malloc(size + 1); /* so that a byte too many is seen by ASan */
        memcpy(bytes, pack.data, size);
        if (gs_history_unpack(&again, bytes, size, &error)) {
            assert_int_equal(again.steps.count, 0);
            assert_int_equal(again.series_count, 0);
            assert_non_null(strstr(error.detail, "damaged"));
        } else {
            assert_true(size >= 4);
            assert_true(size == 4 || again.steps.count == p->step_count);
        }
        free(bytes);
        gs_history_release(&again);
    }
    for (size_t i = 0; i < 5000; i++) { /* flipped anywhere: no crash */
        gs_history again;
        gp_error error = {0};
        gs_history_init(&again, &limits);
        char *bytes = malloc(pack.size);
        memcpy(bytes, pack.data, pack.size);
        bytes[draw((unsigned)pack.size)] ^= (char)(1 << draw(8));
        gs_history_unpack(&again, bytes, pack.size, &error);
        free(bytes);
        gs_history_release(&again);
    }
    free(pack.data);
    gs_history_release(&history);
    free(p);
}

/* ---- a million steps --------------------------------------------------------------------------------- */

static double ms_since(int64_t began) {
    return (double)(gs_clock_us() - began) / 1000;
}

static void read_all(gs_history *history, uint64_t since, size_t max) {
    gs_view view;
    assert_int_equal(gs_history_look(history, &view), 0);
    const gs_range range = {.since = since, .until = view.cursor, .to = INT64_MAX};
    for (size_t key = 0; key < view.key_count; key++) {
        gs_bucket *buckets = NULL;
        size_t count = 0;
        assert_int_equal(gs_history_read(history, &view, key, &range, max, &buckets, &count), 0);
        free(buckets);
    }
    gs_view_release(&view);
}

static void a_million_steps_fit_in_100_mb_and_come_back_in_a_second(void **state) {
    (void)state;
    enum { STEPS = 1000000 };
    gs_history history, again;
    gs_pack pack;
    gp_error error = {0};
    gs_history_init(&history, &(gs_history_limits){.items = STEPS, .keys = 64});
    gs_history_init(&again, &(gs_history_limits){.items = STEPS, .keys = 64});
    int64_t began = gs_clock_us();
    for (int64_t step = 1; step <= STEPS; step++) {
        gs_history_add(
            &history,
            &(gs_point){.step = step, .time_ms = step, .value = {1.0 / (double)step, 0.1, 2, 1, 9}});
    }
    const double adding = ms_since(began);
    assert_true(gs_history_memory(&history) < 100 << 20);
    began = gs_clock_us();
    read_all(&history, 0, 1000);
    const double all = ms_since(began);
    began = gs_clock_us();
    read_all(&history, STEPS - 10, 1000);
    const double poll = ms_since(began);
    began = gs_clock_us();
    assert_int_equal(gs_history_pack(&history, 0, &pack), 0);
    const double packing = ms_since(began);
    began = gs_clock_us();
    assert_int_equal(gs_history_unpack(&again, pack.data, pack.size, &error), 0);
    const double unpacking = ms_since(began);
    assert_int_equal(again.steps.count, STEPS);
    print_message("a million steps: %zu bytes; %.0f ns to add one; query %.2f ms, poll %.3f ms; pack %zu "
                  "bytes, %.0f ms; "
                  "unpack %.0f ms\n",
                  gs_history_memory(&history), adding * 1e6 / STEPS, all, poll, pack.size, packing,
                  unpacking);
    free(pack.data);
    gs_history_release(&history);
    gs_history_release(&again);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_of_any_range_and_number_are_what_a_plain_list_says),
        cmocka_unit_test(polls_give_every_step_once),
        cmocka_unit_test(a_cut_gives_new_numbers_to_steps_taken_again),
        cmocka_unit_test(a_view_from_before_a_cut_is_told_so),
        cmocka_unit_test(values_are_refused_all_or_none),
        cmocka_unit_test(the_oldest_go),
        cmocka_unit_test(what_is_packed_comes_back_piece_by_piece),
        cmocka_unit_test(after_a_cut_the_packs_that_held_more_are_made_anew),
        cmocka_unit_test(a_damaged_pack_changes_nothing),
        cmocka_unit_test(a_million_steps_fit_in_100_mb_and_come_back_in_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
