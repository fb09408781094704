/* executor.h -- runs requests on the engine's threads: one queue for each model, first come, first
 * served; models take turns. Beside them a queue may have work of its own, a job's: that is done in pieces,
 * alternating with requests. Any thread may call everything here. */
#ifndef GRADD_SERVER_EXECUTOR_H
#define GRADD_SERVER_EXECUTOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine/gradd_engine.h"

typedef struct gs_request gs_request;
typedef struct gs_route gs_route;

typedef struct gs_executor {
    gd_engine *engine;
    size_t max_queue;
    void (*run)(gs_request *request); /* on a compute thread, outside the lock */
    void (*wake)(void *argument);     /* called when the list of done requests turns non-empty */
    void *wake_argument;
    pthread_mutex_t lock; /* guards everything below, and every queue */
    gs_request *done, **done_tail;
    size_t waiting, running;
    size_t scheduled;    /* queues with a task */
    pthread_cond_t idle; /* scheduled is zero */
} gs_executor;

/** Something of the daemon's own to do in a model's turn; it goes before the requests that wait. */
typedef struct gs_errand {
    struct gs_errand *next;                /* the queue's */
    void (*run)(struct gs_errand *errand); /* on a compute thread; the errand may be gone, or added, again */
    void *argument;
} gs_errand;

/** What a request took. */
typedef struct gs_cost {
    const gs_route *route;
    size_t received; /* bytes of its body */
    int64_t us;
} gs_cost;

/** Requests that wait for one model. */
typedef struct gs_queue {
    gs_executor *executor;
    void *owner;                  /* what the queue is part of: held while a task refers to it */
    void (*hold)(void *owner);    /* under the lock; may be NULL, as may release */
    void (*release)(void *owner); /* outside the lock, on a compute thread */
    gs_request *head, **tail;
    size_t length;
    gs_errand *errands;
    gs_cost cost;                 /* of the last one that was not brief */
    bool (*work)(void *argument); /* see gs_queue_work(); NULL: none */
    void *work_argument;
    bool ready;     /* there is a piece of it to do */
    bool worked;    /* the last turn was a piece: the next is a request's */
    int briefs;     /* brief requests in a row since then */
    gd_task task;   /* runs the first request */
    bool scheduled; /* the task is submitted or running: there is but one, so requests keep their order */
} gs_queue;

void gs_executor_init(gs_executor *executor, gd_engine *engine, size_t max_queue, void (*run)(gs_request *),
                      void (*wake)(void *), void *wake_argument);
/** Waits until the last task has ended. */
void gs_executor_wait(gs_executor *executor);
/** After gs_executor_wait(). */
void gs_executor_release(gs_executor *executor);
void gs_queue_init(gs_queue *queue, gs_executor *executor, void *owner, void (*hold)(void *),
                   void (*release)(void *));

/** A request is the loop's again. */
void gs_executor_post(gs_executor *executor, gs_request *request);
/** Let a request wait for its turn. @return false: the queue is full */
bool gs_queue_add(gs_queue *queue, gs_request *request);
/** Do something in its turn; the errand stays where it is until it runs. */
void gs_queue_add_errand(gs_queue *queue, gs_errand *errand);
/** Run a request at once, on the calling thread, if nobody has the queue's turn and it is brief, or like the
 *  last one, which took `most_us` at the most: two threads need not wake each other for it.
 *  @return false: it did not */
bool gs_queue_run_now(gs_queue *queue, gs_request *request, int64_t most_us);
/** Take a request out again. @return false: it runs already, or is done */
bool gs_queue_remove(gs_queue *queue, gs_request *request);
/**
 * Give the queue work of its own: piece after piece in its turn, a request that waits between each two.
 *
 * Brief requests go on, a handful, before the next piece: many that look at a model do not wait for one each.
 *
 * @param work does a piece, a few milliseconds, on a compute thread; returns whether there is more to do now,
 *             else gs_queue_kick() says when. NULL: no work any more (by the work itself, or in its turn)
 */
void gs_queue_work(gs_queue *queue, bool (*work)(void *argument), void *argument);
/** There may be something to do for its work again. */
void gs_queue_kick(gs_queue *queue);
/** Requests that ran, linked by request->next, oldest first. */
gs_request *gs_executor_take_done(gs_executor *executor);
/** How many wait and how many run now. */
void gs_executor_load(gs_executor *executor, size_t *ret_waiting, size_t *ret_running);
/** Does anything run or wait for a compute thread, a job's piece among it? */
bool gs_executor_is_busy(gs_executor *executor);

#endif
