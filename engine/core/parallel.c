/* parallel.c -- a thread pool. Threads take tasks first, then help with loops; with nothing to do they
 * spin for a moment (the next loop of a step follows within microseconds) and then park, so that an
 * idle daemon uses no CPU. */
#include "engine/core/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <time.h>

#include "engine/core/flush.h"
#include "engine/core/shape.h"

enum {
    SPINS = 2000,    /* about 40 us */
    MAX_RANGES = 8,  /* in which a loop's pieces are */
    MOMENT_US = 3000 /* within which a model's next step comes, if its client sends it at once */
};

/* Neighbouring pieces of a loop. */
typedef struct gd_range {
    atomic_int_fast64_t next;
    int64_t end;
} gd_range;

/* One gd_parallel_for(); lives on its caller's stack. Each runner begins in the range of its processor and
 * helps with the others' after it: so what loops read and write of the same samples or weights, step for
 * step, stays in the cache of one processor. */
typedef struct gd_loop {
    LIST_ENTRY(gd_loop) listed;
    void (*body)(void *context, int64_t index, int slot);
    void *context;
    int range_count;
    gd_range ranges[MAX_RANGES];
    int64_t began_us;
    int processor;      /* its caller's */
    int runners;        /* that it was given, its caller among them; under the lock */
    atomic_int slots;   /* of them that have begun; the caller's is 0 */
    atomic_int helpers; /* threads inside; raised under the lock, while the loop is listed */
} gd_loop;

struct gd_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    gd_task *first_task, **last_task;
    LIST_HEAD(gd_loops, gd_loop) loops;
    atomic_uint events; /* counts what was published, for those who spin */
    int parked;
    atomic_int coming; /* threads on their way here for work, whom nobody needs to wake */
    bool stopping;
    int runners; /* most of one loop */
    int sharing; /* loops that were there at once, a moment ago at most: each has its part of those */
    int64_t sharing_end_us;
#if defined(__linux__)
    cpu_set_t processors; /* that threads may run on */
#endif
    int thread_count;
    pthread_t threads[];
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Which processor this thread runs on; -1: nobody can say. */
static int processor_now(void) {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* A thread that was woken may find itself behind its waker on one processor while another has nothing to do:
 * the system puts it there if that one was busy at the moment, and takes milliseconds to see that it no
 * longer is. */
static void move_away(const gd_pool *pool, int processor) {
#if defined(__linux__)
    cpu_set_t others = pool->processors;
    if (processor < 0 || processor >= CPU_SETSIZE || processor_now() != processor)
        return;
    CPU_CLR(processor, &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
        (void)sched_setaffinity(0, sizeof pool->processors, &pool->processors);
#else
    (void)pool, (void)processor;
#endif
}

static void run_loop(gd_loop *loop, int slot) {
    const int processor = processor_now(), first = processor < 0 ? slot : processor;
    const unsigned before = gd_flush_begin();
    for (int i = 0; i < loop->range_count; i++) {
        gd_range *range = &loop->ranges[(first + i) % loop->range_count];
        int64_t index;
        while ((index = atomic_fetch_add(&range->next, 1)) < range->end)
            loop->body(loop->context, index, slot);
    }
    gd_flush_end(before);
}

static void cut(gd_loop *loop, int64_t count, int ranges) {
    loop->range_count = ranges;
    for (int i = 0; i < ranges; i++) {
        atomic_init(&loop->ranges[i].next, count * i / ranges);
        loop->ranges[i].end = count * (i + 1) / ranges;
    }
}

/* Pieces that nobody took? */
static bool is_open(const gd_loop *loop) {
    for (int i = 0; i < loop->range_count; i++)
        if (atomic_load(&loop->ranges[i].next) < loop->ranges[i].end)
            return true;
    return false;
}

/* ---- sharing ---------------------------------------------------------------------------------------- */

/* Models that compute at the same time keep their threads, for a moment after a loop, too: the next is on its
 * way. A thread that helped another model meanwhile would let that one wait for its last piece, and its own
 * next loop for the rest of that one. */

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* With the lock held. */
static int listed_loops(const gd_pool *pool) {
    int count = 0;
    const gd_loop *loop;
    LIST_FOREACH(loop, &pool->loops, listed) {
        count++;
    }
    return count;
}

/* With the lock held: the runners that each loop may have. */
static int fair_part(gd_pool *pool) {
    const int loops = listed_loops(pool);
    if (pool->sharing <= loops || now_us() >= pool->sharing_end_us)
        pool->sharing = loops ? loops : 1;
    return (int)gd_ceil_div(pool->runners, pool->sharing);
}

/* With the lock held: a loop ends, and is still listed. Its thread is kept no longer than it was used. */
static void keep_part(gd_pool *pool, const gd_loop *loop) {
    if (listed_loops(pool) == 1)
        return;
    const int64_t now = now_us();
    pool->sharing_end_us = now + gd_smaller(now - loop->began_us, MOMENT_US);
}

/* With the lock held: wait for work, or for the end of the moment. */
static void park(gd_pool *pool) {
    const int64_t end = pool->sharing_end_us;
    pool->parked++;
    if (pool->sharing > 1 && now_us() < end) {
        const struct timespec at = {.tv_sec = end / 1000000, .tv_nsec = end % 1000000 * 1000};
        pthread_cond_timedwait(&pool->work, &pool->lock, &at);
    } else {
        pthread_cond_wait(&pool->work, &pool->lock);
    }
    pool->parked--;
}

/* ---- threads ---------------------------------------------------------------------------------------- */

/* With the lock held: a loop that still has pieces nobody took, and may have one more runner. */
static gd_loop *open_loop(gd_pool *pool) {
    const int part = LIST_EMPTY(&pool->loops) ? 0 : fair_part(pool);
    gd_loop *loop;
    LIST_FOREACH(loop, &pool->loops, listed) {
        if (loop->runners < part && is_open(loop))
            return loop;
    }
    return NULL;
}

static void come_back(gd_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_sub(&pool->coming, 1);
}

/* With the lock held: take one piece of work, run it without the lock. @param ret_spin does more follow soon?
 * Of a loop yes, after a task no: who waits for what it did wants a processor. @return false: there is none
 */
static bool work_once(gd_pool *pool, bool *ret_spin) {
    gd_task *task = pool->first_task;
    gd_loop *loop;
    if (task) {
        if (!(pool->first_task = task->next))
            pool->last_task = &pool->first_task;
        void (*run)(void *) = task->run;
        void *argument = task->argument;
        pthread_mutex_unlock(&pool->lock);
        run(argument); /* the task itself may be gone, or submitted again */
        atomic_fetch_add(&pool->coming, 1);
        *ret_spin = false;
    } else if ((loop = open_loop(pool))) {
        loop->runners++;
        atomic_fetch_add(&loop->helpers, 1);
        pthread_mutex_unlock(&pool->lock);
        move_away(pool, loop->processor);
        run_loop(loop, atomic_fetch_add(&loop->slots, 1));
        atomic_fetch_add(&pool->coming, 1);
        atomic_fetch_sub(&loop->helpers,
                         1); /* the loop may be gone from here on, and the next one be there */
        *ret_spin = true;
    } else {
        return false;
    }
    come_back(pool);
    return true;
}

static void *thread_main(void *argument) {
    gd_pool *pool = argument;
    bool fresh = false; /* helped with a loop since the last spin */
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        unsigned seen = atomic_load(&pool->events);
        if (work_once(pool, &fresh)) {
            continue;
        } else if (pool->stopping) {
            break;
        } else if (fresh) {
            fresh = false;
            atomic_fetch_add(&pool->coming, 1);
            pthread_mutex_unlock(&pool->lock);
            for (int i = 0; i < SPINS && atomic_load_explicit(&pool->events, memory_order_relaxed) == seen;
                 i++)
                relax();
            come_back(pool);
        } else {
            park(pool);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* With the lock held: say that there is work, and wake so many threads for it. */
static void publish(gd_pool *pool, int64_t woken) {
    atomic_fetch_add(&pool->events, 1);
    for (int i = 0; i < pool->parked && i < woken; i++)
        pthread_cond_signal(&pool->work);
}

int gd_pool_new(int threads, int runners, gd_pool **ret_pool, gd_error *error) {
    gd_pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->threads[0]);
    if (!pool)
        return gd_fail(error, GD_E_MEMORY, "no memory for %d threads", threads);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pool->last_task = &pool->first_task;
    pool->runners = runners;
    pool->sharing = 1;
#if defined(__linux__)
    if (sched_getaffinity(0, sizeof pool->processors, &pool->processors))
        CPU_ZERO(&pool->processors);
#endif
    for (; pool->thread_count < threads; pool->thread_count++)
        if (pthread_create(&pool->threads[pool->thread_count], NULL, thread_main, pool)) {
            gd_pool_free(pool);
            return gd_fail(error, GD_E_LIMIT, "the system starts no %d threads; use --threads with fewer",
                           threads);
        }
    *ret_pool = pool;
    return 0;
}

void gd_pool_free(gd_pool *pool) {
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void gd_pool_submit(gd_pool *pool, gd_task *task) {
    if (pool->thread_count == 0) { /* nobody else to do it */
        task->run(task->argument);
        return;
    }
    task->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->last_task = task;
    pool->last_task = &task->next;
    publish(pool, 1);
    pthread_mutex_unlock(&pool->lock);
}

int gd_pool_slots(const gd_pool *pool) {
    return pool->runners;
}

void gd_parallel_for(gd_pool *pool, int64_t count, void (*body)(void *context, int64_t index, int slot),
                     void *context) {
    if (count <= 1 || pool->runners == 1) {
        const unsigned before = gd_flush_begin();
        for (int64_t i = 0; i < count; i++)
            body(context, i, 0);
        gd_flush_end(before);
        return;
    }
    gd_loop loop = {.body = body,
                    .context = context,
                    .began_us = now_us(),
                    .processor = processor_now(),
                    .runners = 1,
                    .slots = 1};
    cut(&loop, count, pool->runners < MAX_RANGES ? pool->runners : MAX_RANGES);
    pthread_mutex_lock(&pool->lock);
    // cppcheck-suppress autoVariables // unlisted again below, before this returns
    LIST_INSERT_HEAD(&pool->loops, &loop, listed);
    publish(pool, gd_smaller(count, fair_part(pool)) - 1 - atomic_load(&pool->coming));
    pthread_mutex_unlock(&pool->lock);

    run_loop(&loop, 0);

    pthread_mutex_lock(&pool->lock);
    keep_part(pool, &loop);
    LIST_REMOVE(&loop, listed);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; atomic_load(&loop.helpers); i++)
        i < SPINS ? relax() : (void)sched_yield();
}
