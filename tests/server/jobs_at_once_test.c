/* jobs_at_once_test.c -- jobs that several clients post and cancel while others begin and end: each is begun
 * once, and comes to an end. */
#include "tests/support.h"

#include <pthread.h>
#include <unistd.h>

#include "clients/c/gradd.h"
#include "tests/jobs.h"

enum { CLIENTS = 6, JOBS = 60, STEPS = 3 };

typedef struct client {
    pthread_t thread;
    const char *server;
    char model[16];
    int64_t step; /* the model's at the end, and the sum of its jobs' */
    int64_t steps_of_jobs;
    int ended; /* jobs */
    gradd_error error;
    int code;
} client;

/* Until it has ended. */
static void follow(client *c, gradd_client *handle, int64_t job) {
    gradd_job_info info;
    for (bool ended = false; !ended;) {
        if ((c->code = gradd_job_show(handle, job, 60, &info, &c->error)))
            return;
        ended = gradd_job_ended(&info);
        c->steps_of_jobs += ended ? info.step : 0;
        c->ended += ended;
        gradd_job_info_free(&info);
    }
}

/* No assertions in here: cmocka's fail belongs to the main thread. */
static void *post_and_cancel(void *argument) {
    client *c = argument;
    const gradd_config config = {.server = c->server};
    gradd_client *handle = NULL;
    gradd_model_info model;
    gradd_job_info info;
    char json[256];
    snprintf(json, sizeof json,
             "{\"model\": \"%s\", \"dataset\": \"digits\", \"steps\": %d, \"batch_size\": 8, "
             "\"transform\": {\"scale\": 0.00392156863}}",
             c->model, STEPS);
    c->code = gradd_client_new(&config, &handle, &c->error);
    for (int i = 0; i < JOBS && !c->code; i++) {
        if ((c->code = gradd_job_start(handle, json, NULL, &info, &c->error)))
            break;
        const int64_t job = info.id;
        gradd_job_info_free(&info);
        /* so that it is cancelled before it begins, while it does, and after its end */
        usleep((useconds_t)(i * 1237 % 4000));
        if (!gradd_job_cancel(handle, job, &info, &c->error))
            gradd_job_info_free(&info);
        follow(c, handle, job);
    }
    if (!c->code && !(c->code = gradd_model_show(handle, c->model, &model, &c->error))) {
        c->step = model.step;
        gradd_model_info_free(&model);
    }
    gradd_client_free(handle);
    return NULL;
}

static void jobs_that_are_posted_and_cancelled_at_once_are_begun_once(void **state) {
    (void)state;
    test_daemon daemon;
    static client clients[CLIENTS];
    test_daemon_start(&daemon, (const char *const[]){"--threads", "2", "--max-jobs", "1", NULL});
    for (int i = 0; i < CLIENTS; i++) {
        char json[1024];
        clients[i] = (client){.server = daemon.server};
        snprintf(clients[i].model, sizeof clients[i].model, "m%d", i);
        snprintf(json, sizeof json, TEST_SMALL("m%d"), i);
        test_job_model(&daemon, json);
    }
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&clients[i].thread, NULL, post_and_cancel, &clients[i]), 0);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(clients[i].thread, NULL);
    for (int i = 0; i < CLIENTS; i++) {
        if (clients[i].code)
            fail_msg("%s: %s", clients[i].model, clients[i].error.message);
        assert_int_equal(clients[i].ended, JOBS);
        assert_int_equal(clients[i].step, clients[i].steps_of_jobs);
        assert_in_range(clients[i].step, 0, STEPS * JOBS);
    }
    char *log = test_daemon_end(&daemon);
    assert_null(strstr(log, "drain timeout")); /* what has ended holds no model and no thread */
    free(log);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_that_are_posted_and_cancelled_at_once_are_begun_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
