/* floor.c -- requests a second, start to ready, idleness, two models at once, all cores, growth with the
 * batch.
 */
#include "tests/bench/floor.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <poll.h>

#include "clients/c/gradd.h"
#include "tests/daemon.h"

#define LENET "clients/examples/lenet.json"
#define VGG "tests/bench/models/vgg.json"
#define RESNET20 "clients/examples/models/resnet20.json"

enum { ROUNDS = 15 };

static void start_daemon(int threads, test_daemon *ret_daemon) {
    char text[16];
    const char *const arguments[] = {"--threads", text, "--log-level", "warning", NULL};
    snprintf(text, sizeof text, "%d", threads);
    test_daemon_start(ret_daemon, arguments);
}

/* ---- start, idleness, requests ---------------------------------------------------------------------- */

/* Processor time of all threads of a process, in seconds: /proc/PID/task/TID/schedstat counts nanoseconds. */
static double processor_time(pid_t pid) {
    char path[64];
    double seconds = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        char line[64] = "", file_name[64];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(file_name, sizeof file_name, "/proc/%d/task/%.16s/schedstat", (int)pid, entry->d_name);
        FILE *file = fopen(file_name, "r");
        if (file && fgets(line, sizeof line, file))
            seconds += 1e-9 * strtod(line, NULL);
        if (file)
            fclose(file);
    }
    if (tasks)
        closedir(tasks);
    return seconds;
}

static int measure_daemon(const bench_plan *plan, bench_floor *floor) {
    static const char *const paths[BENCH_PATHS] = {"/v1/health/live", "/v1/version", "/v1/models",
                                                   "/v1/models/lenet"};
    const bench_job job = {.model = LENET, .task = BENCH_TRAIN, .batch = 64, .hosted = "lenet"};
    double starts[ROUNDS];
    test_daemon daemon;
    for (int i = 0; i < ROUNDS; i++) {
        const double begin = bench_now();
        start_daemon(plan->cores, &daemon);
        starts[i] = 1e3 * (bench_now() - begin);
        if (i < ROUNDS - 1)
            test_daemon_stop(&daemon);
    }
    floor->start_ms = bench_median(starts, ROUNDS);

    /* Idle with a model that has trained, half a second after it: what starting leaves to do is done. */
    bench_job with_server = job;
    bench_side side;
    with_server.server = daemon.server;
    int result = bench_side_start(BENCH_HTTP, &with_server, NULL, &side);
    nanosleep(&(struct timespec){.tv_nsec = 500 * 1000 * 1000}, NULL);
    const double before = processor_time(daemon.pid), begin = bench_now();
    nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
    floor->idle_share = (processor_time(daemon.pid) - before) / (bench_now() - begin);

    for (int i = 0; i < BENCH_PATHS && !result; i++) {
        floor->loads[i].path = paths[i];
        result = bench_load_run(daemon.port, fmin(plan->seconds / 4, 2), &floor->loads[i]);
    }
    bench_side_end(&side);
    test_daemon_stop(&daemon);
    return result;
}

/* ---- two models at once, all cores -------------------------------------------------------------------- */

/* Steps a second of sides that work at once: each is asked for one step after the other until the time is
 * over, so that none works alone before. Negative: one failed, said on stderr. */
static double at_once(const bench_side *sides, int count, double seconds) {
    enum { MOST = 2 };
    struct pollfd answers[MOST];
    int steps[MOST] = {0};
    double last[MOST] = {0}, per_second = 0;
    const double begin = bench_now();
    for (int i = 0; i < count; i++) {
        answers[i] = (struct pollfd){.fd = fileno(sides[i].from), .events = POLLIN};
        if (bench_side_ask(&sides[i], 1))
            return -1;
    }
    for (int working = count; working;) {
        if (poll(answers, (nfds_t)count, -1) < 0)
            return bench_complain("side", strerror(errno));
        for (int i = 0; i < count; i++) {
            if (!answers[i].revents)
                continue;
            if (bench_side_answer(&sides[i]) < 0)
                return -1;
            steps[i]++;
            last[i] = bench_now() - begin;
            if (last[i] < seconds && bench_side_ask(&sides[i], 1))
                return -1;
            if (last[i] >= seconds) {
                answers[i].fd = -1;
                working--;
            }
        }
    }
    for (int i = 0; i < count; i++)
        per_second += steps[i] / last[i];
    return per_second;
}

/* In turns: a side of one thread, which works in process `worker`, on one processor and on the next; and
 * others at once. @param ret_share the others' steps a second by twice the one's, in the same round */
static int in_turns(const bench_side *one, pid_t worker, const bench_side *others, int count, double seconds,
                    double *ret_one, double *ret_others, double *ret_share) {
    double one_alone[ROUNDS], together[ROUNDS], shares[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        double each[2];
        for (int processor = 0; processor < 2; processor++) {
            bench_pin(worker, processor);
            each[processor] = at_once(one, 1, seconds / 2);
        }
        together[i] = at_once(others, count, seconds);
        one_alone[i] = (each[0] + each[1]) / 2;
        shares[i] = together[i] / (each[0] + each[1]);
        if (each[0] < 0 || each[1] < 0 || together[i] < 0)
            return -1;
    }
    *ret_one = bench_median(one_alone, ROUNDS);
    *ret_others = bench_median(together, ROUNDS);
    *ret_share = bench_median(shares, ROUNDS);
    return 0;
}

/* One alone in a daemon of one thread, and two in a daemon of two. */
static int measure_two(const bench_plan *plan, bench_floor *floor) {
    static const char *const names[] = {"alone", "left", "right"};
    test_daemon one, two;
    bench_side sides[3] = {0};
    int result = 0;
    start_daemon(1, &one);
    start_daemon(2, &two);
    for (int i = 0; i < 3 && !result; i++) {
        const bench_job job = {.model = VGG,
                               .task = BENCH_TRAIN,
                               .batch = 64,
                               .server = i ? two.server : one.server,
                               .hosted = names[i]};
        result = bench_side_start(BENCH_HTTP, &job, NULL, &sides[i]);
    }
    if (!result)
        result = in_turns(sides, one.pid, sides + 1, 2, plan->seconds / ROUNDS, &floor->one_per_second,
                          &floor->two_per_second, &floor->two_share);
    for (int i = 0; i < 3; i++)
        bench_side_end(&sides[i]);
    test_daemon_stop(&one);
    test_daemon_stop(&two);
    return result;
}

/* The engine with one thread, and with all cores. */
static int measure_cores(const bench_plan *plan, bench_floor *floor) {
    static const bench_job jobs[BENCH_SPREAD] = {
        {.name = "vgg", .model = VGG, .task = BENCH_TRAIN, .batch = 64},
        {.name = "resnet20", .model = RESNET20, .task = BENCH_TRAIN, .batch = 128},
    };
    int result = 0;
    for (int i = 0; i < BENCH_SPREAD && !result; i++) {
        bench_spread *spread = &floor->spread[i];
        bench_side one = {0}, all = {0};
        bench_job job = jobs[i];
        double share = 0;
        spread->name = job.name;
        job.threads = 1;
        result = bench_side_start(BENCH_ENGINE, &job, NULL, &one);
        job.threads = plan->cores;
        if (!result)
            result = bench_side_start(BENCH_ENGINE, &job, NULL, &all);
        if (!result)
            result = in_turns(&one, one.worker, &all, 1, plan->seconds / ROUNDS, &spread->one_per_second,
                              &spread->all_per_second, &share);
        spread->speedup = 2 * share;
        bench_side_end(&one);
        bench_side_end(&all);
    }
    return result;
}

/* ---- growth with the batch --------------------------------------------------------------------------- */

/* What ?dry_run=true&batch=N says: what LeNet takes when it trains on so many samples, and these. */
static int foresee(int64_t batch, double *ret_bytes) {
    const gd_engine_config config = {.threads = 1, .helpers_only = true};
    gd_error error = GD_ERROR_INIT;
    gd_engine *engine = NULL;
    bench_work work;
    size_t bytes = 0, held = 0;
    int result = bench_work_open(LENET, 1, &work);
    if (!result && (gd_engine_new(&config, &engine, &error) ||
                    gd_graph_memory(engine, work.graph, &work.model.config, batch, &bytes, &error) ||
                    gd_graph_batch_bytes(work.graph, &work.model.config.loss, batch, &held, &error)))
        result = bench_complain("lenet", error.message);
    *ret_bytes = (double)(bytes + held);
    gd_engine_free(engine);
    bench_work_close(&work);
    return result;
}

static int reported(const char *server, const char *model, double *ret_bytes) {
    const gradd_config config = {.server = server};
    gradd_client *client = NULL;
    gradd_model_info info;
    gradd_error error;
    int code = gradd_client_new(&config, &client, &error);
    if (!code)
        code = gradd_model_show(client, model, &info, &error);
    if (!code) {
        *ret_bytes = (double)info.memory_bytes;
        gradd_model_info_free(&info);
    }
    gradd_client_free(client);
    return code ? bench_complain("lenet", error.message) : 0;
}

static int measure_growth(const bench_plan *plan, bench_floor *floor) {
    static const int64_t batches[BENCH_SCALES] = {64, 256, 1024, 4096};
    bench_side engines[BENCH_SCALES] = {0};
    double times[BENCH_SCALES][ROUNDS], growth[BENCH_SCALES][ROUNDS];
    int steps[BENCH_SCALES], result = 0;
    test_daemon daemon;
    start_daemon(1, &daemon);
    for (int i = 0; i < BENCH_SCALES && !result; i++) {
        const bench_job job = {.model = LENET,
                               .task = BENCH_TRAIN,
                               .batch = batches[i],
                               .threads = 1,
                               .server = daemon.server,
                               .hosted = "lenet"};
        bench_scale *scale = &floor->scales[i];
        bench_side http = {0};
        scale->batch = batches[i];
        result = foresee(batches[i], &scale->foreseen) || bench_side_start(BENCH_HTTP, &job, NULL, &http) ||
                         reported(daemon.server, "lenet", &scale->reported)
                     ? -1
                     : 0;
        bench_side_end(&http); /* deletes the model */
        if (!result && (bench_side_start(BENCH_ENGINE, &job, NULL, &engines[i]) ||
                        !(steps[i] = bench_side_steps(&engines[i], plan->slice))))
            result = -1;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < BENCH_SCALES && !result; i++) {
            bench_pin(engines[i].worker, round);
            const double seconds = bench_side_run(&engines[i], steps[i]);
            times[i][round] = 1e6 * seconds / steps[i] / (double)batches[i];
            growth[i][round] = times[i][round] / times[0][round] - 1;
            result = seconds < 0 ? -1 : 0;
        }
    for (int i = 0; i < BENCH_SCALES; i++) {
        if (!result) {
            floor->scales[i].us_per_sample = bench_median(times[i], ROUNDS);
            floor->scales[i].growth = bench_median(growth[i], ROUNDS);
        }
        bench_side_end(&engines[i]);
    }
    test_daemon_stop(&daemon);
    return result;
}

int bench_floor_measure(const bench_plan *plan, bench_floor *ret_floor) {
    *ret_floor = (bench_floor){0};
    return measure_daemon(plan, ret_floor) || measure_two(plan, ret_floor) ||
                   measure_cores(plan, ret_floor) || measure_growth(plan, ret_floor)
               ? -1
               : 0;
}
