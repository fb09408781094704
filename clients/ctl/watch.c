/* watch.c -- follow a job: a bar for each epoch, a line for each evaluation, the end. */
#include "watch.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "progress.h"

enum { PATIENCE = 120 /* seconds that a daemon may be away */ };

static const int64_t SECOND = 1000000000;

typedef struct watching {
    gradd_client *client;
    int64_t job;
    int64_t epochs, epoch_steps; /* 0: it goes by steps, total of them */
    int64_t total;
    int64_t past;  /* the step it was at when we came: up to there nothing is drawn */
    int64_t epoch; /* that the bar is of, from 0 on; -1: none yet */
    int64_t step;  /* the last one */
    int64_t last;  /* when that was: the daemon's time in ns */
    double loss, lr;
    double sum;     /* of the epoch's losses */
    int64_t summed; /* how many they are */
    bool drawing;   /* a bar that is not at its end */
    ctl_progress progress;
    char event[64]; /* id of the last one */
} watching;

/* "2026-11-23T07:19:42.086Z" in ns. 0: it is something else */
static int64_t read_time(const char *text) {
    struct tm tm = {0};
    const char *end = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    return end ? (int64_t)timegm(&tm) * SECOND + (int64_t)(*end == '.' ? strtod(end, NULL) * 1e9 : 0) : 0;
}

static double number(const json_t *json) {
    return json_is_number(json) ? json_number_value(json) : NAN;
}

/* Learn how long the job is. @return exit status */
static int look(watching *w, gradd_job_info *ret_info) {
    gradd_error error;
    if (gradd_job_show(w->client, w->job, 0, ret_info, &error)) {
        return ctl_call_error(&error);
    }
    w->total = ret_info->total_steps > 0 ? ret_info->total_steps : 0;
    w->epochs = ret_info->epochs > 0 ? ret_info->epochs : 0;
    w->epoch_steps = w->epochs && w->total % w->epochs == 0 ? w->total / w->epochs : 0;
    return CTL_OK;
}

/* ---- steps ----------------------------------------------------------------------------------------------
 */

static void name_epoch(const watching *w, int64_t epoch, char label[32]) {
    if (w->epoch_steps) {
        snprintf(label, 32, "epoch %" PRId64 "/%" PRId64, epoch + 1, w->epochs);
    } else {
        snprintf(label, 32, "job %" PRId64, w->job);
    }
}

static void begin_epoch(watching *w, int64_t epoch, int64_t now) {
    char label[32];
    name_epoch(w, epoch, label);
    ctl_progress_begin(&w->progress, label, w->epoch_steps ? w->epoch_steps : w->total, now);
    w->epoch = epoch;
    w->sum = 0;
    w->summed = 0;
}

static void on_step(watching *w, const json_t *data) {
    const int64_t step = json_integer_value(json_object_get(data, "step"));
    const int64_t now = read_time(json_string_value(json_object_get(data, "time")));
    if (!w->total) {
        gradd_job_info info;
        if (look(w, &info) == CTL_OK) {
            gradd_job_info_free(&info);
        }
    }
    const int64_t size = w->epoch_steps ? w->epoch_steps : w->total;
    const int64_t epoch = w->epoch_steps ? (step - 1) / w->epoch_steps : 0;
    const int64_t done = step - epoch * w->epoch_steps;
    if (epoch != w->epoch) {
        begin_epoch(w, epoch, w->last ? w->last : now);
    }
    w->step = step;
    w->last = now;
    w->loss = number(json_object_get(data, "loss"));
    w->lr = number(json_object_get(data, "lr"));
    w->sum += w->loss;
    w->summed++;
    if (step <= w->past) {
        return;
    }
    w->drawing = done < size;
    if (w->drawing) {
        ctl_progress_update(&w->progress, done, w->loss, w->lr, now);
    } else {
        ctl_progress_end(&w->progress, done, w->loss, w->lr, now);
    }
}

/* What is said now begins a line of its own. */
static void leave_bar(watching *w) {
    if (w->drawing && w->progress.mode == CTL_PROGRESS_BAR && w->progress.width) {
        fputc('\n', stderr);
    }
    w->drawing = false;
    w->progress.width = 0;
}

/* ---- other events ---------------------------------------------------------------------------------------
 */

/* "epoch 1/3: training loss 1.1038, test loss 0.1862, test accuracy 94.00 %" */
static void on_evaluation(watching *w, const json_t *eval) {
    const double accuracy = number(json_object_get(eval, "accuracy"));
    const bool epoch_ends = w->epoch_steps && w->step && w->step % w->epoch_steps == 0;
    char label[32];
    name_epoch(w, w->epoch < 0 ? 0 : w->epoch, label);
    if (epoch_ends || !w->step) {
        printf("%s: ", label);
    } else {
        printf("step %" PRId64 ": ", w->step);
    }
    if (w->summed) {
        printf("training loss %.4f, ", w->sum / (double)w->summed);
    }
    printf("test loss %.4f", number(json_object_get(eval, "loss")));
    if (!isnan(accuracy)) {
        printf(", test accuracy %.2f %%", 100 * accuracy);
    }
    putchar('\n');
    fflush(stdout);
}

static void on_log(watching *w, const json_t *data) {
    const json_t *eval = json_object_get(data, "eval");
    const char *level = json_string_value(json_object_get(data, "level"));
    const char *message = json_string_value(json_object_get(data, "message"));
    const bool epoch =
        message && strncmp(message, "epoch ", 6) == 0; /* the evaluation tells it, or the bar */
    if (!json_is_object(eval) && (epoch || !message)) {
        return;
    }
    leave_bar(w);
    if (json_is_object(eval)) {
        on_evaluation(w, eval);
    } else {
        ctl_say("job %" PRId64 ": %s%s%s", w->job, level && strcmp(level, "info") != 0 ? level : "",
                level && strcmp(level, "info") != 0 ? ": " : "", message);
    }
}

static void on_state(watching *w, const json_t *data) {
    const char *state = json_string_value(json_object_get(data, "state"));
    if (state && (strcmp(state, "paused") == 0 || strcmp(state, "cancelling") == 0)) {
        leave_bar(w);
        ctl_say("job %" PRId64 " is %s", w->job, state);
    }
}

static bool each(void *argument, const gradd_event *event) {
    watching *w = argument;
    static const struct {
        const char *name;
        void (*take)(watching *w, const json_t *data);
    } kinds[] = {{"metrics", on_step}, {"log", on_log}, {"state", on_state}};
    json_t *data = json_loads(event->data, 0, NULL);
    for (size_t i = 0; data && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(event->name, kinds[i].name) == 0) {
            kinds[i].take(w, data);
        }
    }
    json_decref(data);
    snprintf(w->event, sizeof w->event, "%s", event->id);
    return true;
}

/* ---- beginning and end ------------------------------------------------------------------------------------
 */

/* Follow the events; a daemon that is started anew goes on with its jobs, so wait for it. */
static int follow(watching *w) {
    gradd_error error;
    int code = GRADD_OK;
    for (int tries = 0; tries < PATIENCE; tries++) {
        code = gradd_job_watch(w->client, w->job, *w->event ? w->event : NULL, each, w, &error);
        if (code != GRADD_E_NETWORK && code != GRADD_E_UNREACHABLE && code != GRADD_E_TIMEOUT) {
            break;
        }
        leave_bar(w);
        if (tries == 0) {
            ctl_say("%s", error.message);
            ctl_say("the job goes on when the daemon is back; waiting for it");
        }
        for (int i = 0; i < 10 && !ctl_interrupted(NULL); i++) {
            nanosleep(&(struct timespec){.tv_nsec = SECOND / 10}, NULL);
        }
    }
    if (!code) {
        return CTL_OK;
    }
    leave_bar(w);
    int status = code == GRADD_E_INTERRUPTED ? CTL_INTERRUPTED : ctl_call_error(&error);
    if (status != CTL_NOT_FOUND) {
        ctl_say("job %" PRId64 " goes on in the daemon: come back with `gradctl job watch %" PRId64
                "`, end it with `gradctl job cancel %" PRId64 "`",
                w->job, w->job, w->job);
    }
    return status;
}

static int tell_end(const gradd_job_info *info) {
    if (strcmp(info->state, "failed") == 0) {
        ctl_error("job %" PRId64 " failed at step %" PRId64 ": %s", info->id, info->step, info->error);
        return CTL_FAILED;
    }
    if (strcmp(info->state, "cancelled") == 0) {
        ctl_error("job %" PRId64 " was cancelled at step %" PRId64, info->id, info->step);
        return CTL_FAILED;
    }
    if (!isnan(info->eval_accuracy)) {
        printf("test accuracy: %.2f %%\n", 100 * info->eval_accuracy);
    } else if (!isnan(info->eval_loss)) {
        printf("test loss: %.4f\n", info->eval_loss);
    } else {
        printf("loss: %.4f\n", info->loss);
    }
    return CTL_OK;
}

int ctl_watch(gradd_client *client, const ctl_options *options, int64_t job) {
    watching w = {.client = client, .job = job, .epoch = -1};
    gradd_job_info info;
    int status = look(&w, &info);
    if (status) {
        return status;
    }
    w.past = gradd_job_ended(&info) ? INT64_MAX : info.step;
    gradd_job_info_free(&info);
    ctl_block_interrupt();
    ctl_progress_open(&w.progress, options->progress);
    status = follow(&w);
    leave_bar(&w);
    if (!status) {
        status = look(&w, &info);
    }
    if (!status) {
        status = tell_end(&info);
        gradd_job_info_free(&info);
    }
    return status;
}
