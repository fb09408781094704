/* parallel_test.c -- the compute threads: every task and every piece of a loop is run once. */
#include "engine/core/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/support.h"

enum { PIECES = 5000, TASKS = 300, LOOPS = 200 };

static gd_pool *pool_of(int threads) {
    gd_pool *pool = NULL;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_pool_new(threads, threads + 1, &pool, &error), &error);
    return pool;
}

typedef struct pieces {
    atomic_int runs[PIECES];
    atomic_int in_slot[64]; /* runners inside right now, by slot */
    atomic_int clashes;
    int slots;
} pieces;

static void run_piece(void *context, int64_t index, int slot) {
    pieces *p = context;
    if (slot < 0 || slot >= p->slots || atomic_fetch_add(&p->in_slot[slot], 1) != 0)
        atomic_fetch_add(&p->clashes, 1);
    atomic_fetch_add(&p->runs[index], 1);
    if (slot >= 0 && slot < p->slots)
        atomic_fetch_sub(&p->in_slot[slot], 1);
}

static void every_piece_of_a_loop_runs_once_in_a_slot_of_its_own(void **state) {
    (void)state;
    for (int threads = 0; threads <= 10; threads += threads < 4 ? 1 : 3) {
        gd_pool *pool = pool_of(threads);
        pieces *p = calloc(1, sizeof *p);
        assert_non_null(p);
        p->slots = gd_pool_slots(pool);
        assert_in_range(p->slots, 1, 64);
        for (int loop = 1; loop <= LOOPS; loop++) {
            int64_t count = loop == LOOPS ? PIECES : loop % 7;
            gd_parallel_for(pool, count, run_piece, p);
        }
        assert_int_equal(atomic_load(&p->clashes), 0);
        for (int i = 0; i < PIECES; i++) {
            int expected = 1;
            for (int loop = 1; loop < LOOPS; loop++)
                expected += i < loop % 7;
            assert_int_equal(atomic_load(&p->runs[i]), expected);
        }
        free(p);
        gd_pool_free(pool);
    }
}

static volatile float tiny = 1e-39F; /* subnormal */

static void note_flush(void *context, int64_t index, int slot) {
    (void)slot;
    ((bool *)context)[index] = tiny * 1.0F == 0;
}

/* Threads must not differ in it, and the caller gets back what it had. */
static void loops_flush_subnormal_numbers_and_callers_do_not(void **state) {
    (void)state;
#if defined(__SSE2__)
    for (int threads = 0; threads <= 2; threads++) {
        gd_pool *pool = pool_of(threads);
        bool *flushed = calloc(PIECES, sizeof *flushed);
        assert_non_null(flushed);
        gd_parallel_for(pool, 1, note_flush, flushed);
        assert_true(flushed[0]);
        gd_parallel_for(pool, PIECES, note_flush, flushed);
        for (int i = 0; i < PIECES; i++)
            assert_true(flushed[i]);
        assert_true(tiny * 1.0F != 0);
        free(flushed);
        gd_pool_free(pool);
    }
#endif
}

typedef struct job {
    gd_task task;
    gd_pool *pool;
    atomic_int *done;
    atomic_int sum;
} job;

static void add_index(void *context, int64_t index, int slot) {
    (void)slot;
    atomic_fetch_add((atomic_int *)context, (int)index);
}

/* A task that loops: what a model's step is. */
static void run_job(void *argument) {
    job *j = argument;
    gd_parallel_for(j->pool, 100, add_index, &j->sum);
    atomic_fetch_add(j->done, 1);
}

static void a_loop_has_no_more_runners_than_it_may(void **state) {
    (void)state;
    for (int runners = 1; runners <= 4; runners++) {
        gd_pool *pool = NULL;
        gd_error error = GD_ERROR_INIT;
        test_ok(gd_pool_new(3, runners, &pool, &error), &error);
        pieces *p = calloc(1, sizeof *p);
        assert_non_null(p);
        p->slots = runners;
        assert_int_equal(gd_pool_slots(pool), runners);
        for (int loop = 0; loop < LOOPS; loop++)
            gd_parallel_for(pool, PIECES, run_piece, p);
        assert_int_equal(atomic_load(&p->clashes), 0);
        for (int i = 0; i < PIECES; i++)
            assert_int_equal(atomic_load(&p->runs[i]), LOOPS);
        free(p);
        gd_pool_free(pool);
    }
}

/* A loop that two are inside of until another loop has ended. */
typedef struct sharing {
    gd_pool *pool;
    atomic_int inside, ended;
    atomic_int slots; /* of the other: the highest */
} sharing;

static void wait_for_the_other(void *context, int64_t index, int slot) {
    sharing *s = context;
    (void)index;
    (void)slot;
    atomic_fetch_add(&s->inside, 1);
    while (!atomic_load(&s->ended))
        usleep(100);
}

static void note_slot(void *context, int64_t index, int slot) {
    sharing *s = context;
    (void)index;
    if (slot > atomic_load(&s->slots))
        atomic_store(&s->slots, slot);
    usleep(500); /* time for a helper to come */
}

static void *run_the_first(void *argument) {
    sharing *s = argument;
    gd_parallel_for(s->pool, 2, wait_for_the_other, s);
    return NULL;
}

/* Two loops at once, and the next one. @return the highest slot that was seen of the latter */
static int share_and_go_on(sharing *s) {
    pthread_t first;
    atomic_store(&s->inside, 0);
    atomic_store(&s->ended, 0);
    atomic_store(&s->slots, 0);
    assert_int_equal(pthread_create(&first, NULL, run_the_first, s), 0);
    while (atomic_load(&s->inside) < 2)
        usleep(100);
    gd_parallel_for(s->pool, 20, note_slot, s);
    assert_int_equal(atomic_load(&s->slots), 0);
    atomic_store(&s->ended, 1);
    pthread_join(first, NULL);
    gd_parallel_for(s->pool, 2, note_slot, s);
    return atomic_load(&s->slots);
}

/* Of two threads that a loop may have, two loops have one each, though a third one is idle, and the next loop
 * in a moment, which on a busy machine may be over already. Later a loop has both. */
static void loops_at_once_share_the_threads(void **state) {
    enum { ATTEMPTS = 50 };
    sharing s = {.pool = NULL};
    gd_error error = GD_ERROR_INIT;
    int attempts = 0;
    (void)state;
    test_ok(gd_pool_new(2, 2, &s.pool, &error), &error);
    while (attempts < ATTEMPTS && share_and_go_on(&s))
        attempts++;
    assert_in_range(attempts, 0, ATTEMPTS - 1);
    gd_parallel_for(s.pool, 200, note_slot, &s);
    assert_int_equal(atomic_load(&s.slots), 1);
    gd_pool_free(s.pool);
}

static void freeing_the_pool_runs_what_was_submitted(void **state) {
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        gd_pool *pool = pool_of(threads);
        job *jobs = calloc(TASKS, sizeof *jobs);
        atomic_int done = 0;
        assert_non_null(jobs);
        for (int i = 0; i < TASKS; i++) {
            jobs[i].task = (gd_task){.run = run_job, .argument = &jobs[i]};
            jobs[i].pool = pool;
            jobs[i].done = &done;
            gd_pool_submit(pool, &jobs[i].task);
        }
        gd_pool_free(pool);
        assert_int_equal(atomic_load(&done), TASKS);
        for (int i = 0; i < TASKS; i++)
            assert_int_equal(atomic_load(&jobs[i].sum), 99 * 100 / 2);
        free(jobs);
    }
}

typedef struct order {
    gd_task tasks[TASKS];
    int seen[TASKS]; /* written by one thread, read after it was joined */
    atomic_int count;
    struct order_entry {
        struct order *order;
        int index;
    } entries[TASKS];
} order;

static void note(void *argument) {
    struct order_entry *entry = argument;
    entry->order->seen[atomic_fetch_add(&entry->order->count, 1)] = entry->index;
}

static void one_thread_runs_tasks_in_the_order_submitted(void **state) {
    (void)state;
    gd_pool *pool = pool_of(1);
    order *o = calloc(1, sizeof *o);
    assert_non_null(o);
    for (int i = 0; i < TASKS; i++) {
        o->entries[i] = (struct order_entry){o, i};
        o->tasks[i] = (gd_task){.run = note, .argument = &o->entries[i]};
        gd_pool_submit(pool, &o->tasks[i]);
    }
    gd_pool_free(pool);
    assert_int_equal(atomic_load(&o->count), TASKS);
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(o->seen[i], i);
    free(o);
}

static void a_pool_that_is_null_is_freed(void **state) {
    (void)state;
    gd_pool_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_of_a_loop_runs_once_in_a_slot_of_its_own),
        cmocka_unit_test(a_loop_has_no_more_runners_than_it_may),
        cmocka_unit_test(loops_flush_subnormal_numbers_and_callers_do_not),
        cmocka_unit_test(loops_at_once_share_the_threads),
        cmocka_unit_test(freeing_the_pool_runs_what_was_submitted),
        cmocka_unit_test(one_thread_runs_tasks_in_the_order_submitted),
        cmocka_unit_test(a_pool_that_is_null_is_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
