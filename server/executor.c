/* executor.c -- a queue that turns non-empty submits one task; the task runs one request, or a piece of the
 * queue's own work, and submits itself again if there is more, behind the tasks of other models. */
#include "executor.h"

#include "request.h"

enum { MAX_BRIEFS = 16 /* in a row, while there is a piece of work to do */ };

void gs_executor_init(gs_executor *executor, gd_engine *engine, size_t max_queue, void (*run)(gs_request *),
                      void (*wake)(void *), void *wake_argument) {
    *executor = (gs_executor){
        .engine = engine, .max_queue = max_queue, .run = run, .wake = wake, .wake_argument = wake_argument};
    executor->done_tail = &executor->done;
    pthread_mutex_init(&executor->lock, NULL);
    pthread_cond_init(&executor->idle, NULL);
}

void gs_executor_wait(gs_executor *executor) {
    pthread_mutex_lock(&executor->lock);
    while (executor->scheduled) {
        pthread_cond_wait(&executor->idle, &executor->lock);
    }
    pthread_mutex_unlock(&executor->lock);
}

void gs_executor_release(gs_executor *executor) {
    pthread_cond_destroy(&executor->idle);
    pthread_mutex_destroy(&executor->lock);
}

static void run_one(void *argument);

void gs_queue_init(gs_queue *queue, gs_executor *executor, void *owner, void (*hold)(void *),
                   void (*release)(void *)) {
    *queue = (gs_queue){.executor = executor, .owner = owner, .hold = hold, .release = release};
    queue->task = (gd_task){.run = run_one, .argument = queue};
    queue->tail = &queue->head;
}

/* Under the lock. */
static gs_request *pop(gs_queue *queue) {
    gs_request *request = queue->head;
    if (request) {
        queue->head = request->next;
        queue->tail = queue->head ? queue->tail : &queue->head;
        queue->length--;
        queue->executor->waiting--;
        request->next = NULL;
    }
    return request;
}

static bool is_brief(const gs_request *request) {
    return request->route && (request->route->flags & GS_BRIEF);
}

/* Under the lock. */
static void note_cost(gs_queue *queue, const gs_request *request) {
    if (!is_brief(request)) {
        queue->cost = (gs_cost){request->route, request->received, request->ended_us - request->started_us};
    }
}

/* Under the lock: what a request takes, as far as the last one tells. */
static int64_t expected_us(const gs_queue *queue, const gs_request *request) {
    const gs_cost *last = &queue->cost;
    bool alike = last->route && last->route == request->route && last->received >= request->received;
    return is_brief(request) ? 0 : alike ? last->us : INT64_MAX;
}

/* Outside the lock, by whoever had the turn: nothing is scheduled any more. */
static void end_turn(gs_queue *queue) {
    gs_executor *executor = queue->executor;
    if (queue->release) {
        queue->release(queue->owner);
    }
    pthread_mutex_lock(&executor->lock);
    if (!--executor->scheduled) {
        pthread_cond_broadcast(&executor->idle);
    }
    pthread_mutex_unlock(&executor->lock);
}

/* Under the lock: whoever has the turn now is the only one, until end_turn(). */
static void begin_turn(gs_queue *queue) {
    queue->scheduled = true;
    queue->executor->scheduled++;
    if (queue->hold) {
        queue->hold(queue->owner);
    }
}

/* Under the lock: hand the turn to the next request. @return false: there is none */
static bool go_on(gs_queue *queue) {
    queue->scheduled = queue->head || queue->errands || (queue->work && queue->ready);
    if (queue->scheduled) {
        gd_engine_submit(queue->executor->engine, &queue->task);
    }
    return queue->scheduled;
}

/* Under the lock: may the first request go before the next piece? One may after each, and brief ones, a
 * handful, until one is not: many that look at a model must not wait for a piece each. */
static bool goes_first(gs_queue *queue) {
    if (!queue->head) {
        return false;
    }
    const bool brief = is_brief(queue->head);
    const bool first = queue->worked || (brief && queue->briefs && queue->briefs < MAX_BRIEFS);
    queue->briefs = first && brief ? (queue->worked ? 1 : queue->briefs + 1) : 0;
    return first;
}

/* Under the lock: is it the work's turn? Then *ret_work is what does a piece of it. */
static bool take_work(gs_queue *queue, bool (**ret_work)(void *), void **ret_argument) {
    queue->worked = queue->work && queue->ready && !goes_first(queue);
    *ret_work = queue->work;
    *ret_argument = queue->work_argument;
    queue->ready = queue->ready && !queue->worked;
    return queue->worked;
}

/* Under the lock: the loop's again. @return whether to wake it */
static bool add_done(gs_executor *executor, gs_request *request) {
    bool first = !executor->done;
    request->next = NULL;
    *executor->done_tail = request;
    executor->done_tail = &request->next;
    return first;
}

/* Run a request. @return NULL: it waits in another queue now */
static gs_request *run_request(gs_executor *executor, gs_request *request) {
    executor->run(request);
    if (!request->moves) {
        return request;
    }
    request->moves = false;
    return gs_request_move(request) ? NULL : request;
}

static void run_one(void *argument) {
    gs_queue *queue = argument;
    gs_executor *executor = queue->executor;
    bool (*work)(void *) = NULL;
    void *work_argument = NULL;
    pthread_mutex_lock(&executor->lock);
    gs_errand *errand = queue->errands;
    queue->errands = errand ? errand->next : NULL;
    bool worked = !errand && take_work(queue, &work, &work_argument);
    gs_request *request = errand || worked ? NULL : pop(queue); /* NULL: it was taken out in the meantime */
    const bool counted = request != NULL;
    executor->running += counted;
    pthread_mutex_unlock(&executor->lock);
    if (errand) {
        errand->run(errand);
    }
    bool again = worked && work(work_argument);
    if (request) {
        request = run_request(executor, request);
    }
    bool wake = false;
    pthread_mutex_lock(&executor->lock);
    queue->ready = queue->ready || again;
    bool more = go_on(queue);
    executor->running -= counted;
    if (request) {
        note_cost(queue, request);
        wake = add_done(executor, request);
    }
    pthread_mutex_unlock(&executor->lock);
    if (wake) {
        executor->wake(executor->wake_argument);
    }
    if (!more) {
        end_turn(queue);
    }
}

void gs_executor_post(gs_executor *executor, gs_request *request) {
    pthread_mutex_lock(&executor->lock);
    bool wake = add_done(executor, request);
    pthread_mutex_unlock(&executor->lock);
    if (wake) {
        executor->wake(executor->wake_argument);
    }
}

bool gs_queue_run_now(gs_queue *queue, gs_request *request, int64_t most_us) {
    gs_executor *executor = queue->executor;
    pthread_mutex_lock(&executor->lock);
    bool mine = !queue->scheduled && expected_us(queue, request) <= most_us;
    if (mine) {
        begin_turn(queue);
        executor->running++;
    }
    pthread_mutex_unlock(&executor->lock);
    if (!mine) {
        return false;
    }
    executor->run(request);
    pthread_mutex_lock(&executor->lock);
    executor->running--;
    note_cost(queue, request);
    bool more = go_on(queue);
    pthread_mutex_unlock(&executor->lock);
    if (!more) {
        end_turn(queue);
    }
    return true;
}

bool gs_queue_add(gs_queue *queue, gs_request *request) {
    gs_executor *executor = queue->executor;
    pthread_mutex_lock(&executor->lock);
    bool room = queue->length < executor->max_queue;
    if (room) {
        request->next = NULL;
        *queue->tail = request;
        queue->tail = &request->next;
        queue->length++;
        executor->waiting++;
        if (!queue->scheduled) {
            begin_turn(queue);
            gd_engine_submit(executor->engine, &queue->task);
        }
    }
    pthread_mutex_unlock(&executor->lock);
    return room;
}

void gs_queue_add_errand(gs_queue *queue, gs_errand *errand) {
    gs_executor *executor = queue->executor;
    pthread_mutex_lock(&executor->lock);
    errand->next = queue->errands;
    queue->errands = errand;
    if (!queue->scheduled) {
        begin_turn(queue);
        gd_engine_submit(executor->engine, &queue->task);
    }
    pthread_mutex_unlock(&executor->lock);
}

/* Under the lock. */
static void schedule(gs_queue *queue) {
    if (!queue->scheduled && queue->work && queue->ready) {
        begin_turn(queue);
        gd_engine_submit(queue->executor->engine, &queue->task);
    }
}

void gs_queue_work(gs_queue *queue, bool (*work)(void *argument), void *argument) {
    pthread_mutex_lock(&queue->executor->lock);
    queue->work = work;
    queue->work_argument = argument;
    queue->ready = work != NULL;
    schedule(queue);
    pthread_mutex_unlock(&queue->executor->lock);
}

void gs_queue_kick(gs_queue *queue) {
    pthread_mutex_lock(&queue->executor->lock);
    queue->ready = true;
    schedule(queue);
    pthread_mutex_unlock(&queue->executor->lock);
}

bool gs_queue_remove(gs_queue *queue, gs_request *request) {
    gs_executor *executor = queue->executor;
    bool found = false;
    pthread_mutex_lock(&executor->lock);
    for (gs_request **at = &queue->head; *at; at = &(*at)->next) {
        if (*at == request) {
            *at = request->next;
            queue->tail = *at ? queue->tail : at;
            request->next = NULL;
            queue->length--;
            executor->waiting--;
            found = true;
            break;
        }
    }
    pthread_mutex_unlock(&executor->lock);
    return found;
}

gs_request *gs_executor_take_done(gs_executor *executor) {
    pthread_mutex_lock(&executor->lock);
    gs_request *done = executor->done;
    executor->done = NULL;
    executor->done_tail = &executor->done;
    pthread_mutex_unlock(&executor->lock);
    return done;
}

void gs_executor_load(gs_executor *executor, size_t *ret_waiting, size_t *ret_running) {
    pthread_mutex_lock(&executor->lock);
    *ret_waiting = executor->waiting;
    *ret_running = executor->running;
    pthread_mutex_unlock(&executor->lock);
}

bool gs_executor_is_busy(gs_executor *executor) {
    pthread_mutex_lock(&executor->lock);
    const bool busy = executor->scheduled > 0;
    pthread_mutex_unlock(&executor->lock);
    return busy;
}
