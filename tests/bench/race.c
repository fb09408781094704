/* race.c -- LeNet on MNIST: a job, and the same script in PyTorch. */
#include <math.h>
#include <unistd.h>

#include "tests/bench/jobs.h"
#include "tests/http.h"
#include "tests/jobs.h"
#include "tests/support.h"

enum { CLOSE_STEPS = 200 };
#define CLOSE 1e-3

static int upload(const test_daemon *daemon, const char *folder) {
    static const char *const parts[][2] = {{"train-images-idx3-ubyte.gz", "train/input"},
                                           {"train-labels-idx1-ubyte.gz", "train/target"},
                                           {"t10k-images-idx3-ubyte.gz", "test/input"},
                                           {"t10k-labels-idx1-ubyte.gz", "test/target"}};
    int status = 201;
    for (size_t i = 0; i < 4 && status == 201; i++) {
        char path[512];
        size_t size;
        test_reply reply;
        snprintf(path, sizeof path, "%s/%s", folder, parts[i][0]);
        char *bytes = test_read_file(path, &size);
        snprintf(path, sizeof path, "/v1/datasets/mnist/%s", parts[i][1]);
        int fd = test_connect(daemon->port);
        test_request(fd, "PUT", path, "", bytes, size, &reply);
        close(fd);
        status = reply.status;
        test_reply_release(&reply);
        free(bytes);
    }
    return status == 201 ? 0 : bench_complain("mnist", "the daemon did not take it");
}

/* All losses of the job, a new reference to an array. */
static json_t *train(const test_daemon *daemon, bench_race *race) {
    test_job_model(daemon, TEST_LENET("race"));
    const double begin = bench_now();
    int id = test_job_post(daemon, "{'model': 'race', 'dataset': 'mnist', 'epochs': 3, 'batch_size': 64, "
                                   "'seed': 0, 'eval': {'split': 'test'}, " TEST_PADDED "}");
    json_t *job = test_job_wait_for(daemon, id, "succeeded");
    race->seconds = bench_now() - begin;
    race->accuracy = test_number_of(json_object_get(job, "eval"), "accuracy");
    json_decref(job);
    json_t *body = test_job_call(daemon, "GET", "/v1/models/race/metrics?keys=loss&max_points=0", NULL, 200);
    json_t *losses =
        json_incref(json_object_get(json_object_get(json_object_get(body, "series"), "loss"), "last"));
    json_decref(body);
    return losses;
}

/* The same in PyTorch: its answer, a new reference; NULL: none. */
static json_t *train_torch(const bench_plan *plan, const char *folder, int threads) {
    json_error_t error;
    if (!plan->torch.to || fprintf(plan->torch.to, "job %s 64 %d\n", folder, threads) < 0 ||
        fflush(plan->torch.to))
        return NULL;
    json_t *answer = json_loadf(plan->torch.from, JSON_DISABLE_EOF_CHECK, &error);
    if (!answer)
        bench_complain("torch", error.text);
    else
        fgetc(plan->torch.from); /* the line's end */
    return answer;
}

static double at(const json_t *losses, size_t i) {
    return json_number_value(json_array_get(losses, i));
}

static void find_means(const json_t *losses, double *means) {
    const size_t steps = json_array_size(losses) / BENCH_EPOCHS;
    for (size_t epoch = 0; epoch < BENCH_EPOCHS; epoch++) {
        double sum = 0;
        for (size_t i = 0; i < steps; i++)
            sum += at(losses, epoch * steps + i);
        means[epoch] = sum / (double)steps;
    }
}

static void find_parting(const json_t *a, const json_t *b, double *ret_apart, int *ret_parts) {
    *ret_apart = 0;
    *ret_parts = 0;
    for (size_t i = 0; i < json_array_size(a) && i < json_array_size(b); i++) {
        const double difference = fabs(at(a, i) - at(b, i));
        if (i < CLOSE_STEPS)
            *ret_apart = fmax(*ret_apart, difference);
        if (difference > CLOSE && !*ret_parts)
            *ret_parts = (int)i + 1;
    }
}

int bench_race_run(const bench_plan *plan, const char *folder, int threads, bench_race *ret_race) {
    char text[16];
    const char *const arguments[] = {"--threads", text, "--log-level", "warning", NULL};
    test_daemon daemon;
    *ret_race = (bench_race){.threads = threads, .torch_seconds = NAN};
    snprintf(text, sizeof text, "%d", threads);
    test_daemon_start(&daemon, arguments);
    int result = upload(&daemon, folder);
    json_t *losses = result ? NULL : train(&daemon, ret_race);
    test_daemon_stop(&daemon);
    json_t *torch = losses ? train_torch(plan, folder, threads) : NULL;
    if (losses)
        find_means(losses, ret_race->loss);
    if (torch) {
        const json_t *theirs = json_object_get(torch, "losses");
        ret_race->torch_seconds = test_number_of(torch, "seconds");
        ret_race->torch_accuracy = test_number_of(torch, "accuracy");
        find_means(theirs, ret_race->torch_loss);
        find_parting(losses, theirs, &ret_race->apart, &ret_race->parts);
        find_parting(json_object_get(torch, "turned"), theirs, &ret_race->self_apart, &ret_race->self_parts);
    } else if (plan->torch.to) {
        result = -1;
    }
    json_decref(losses);
    json_decref(torch);
    return result;
}
