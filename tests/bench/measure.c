/* measure.c -- the rounds of one workload: every side in turn, each first in turn, so that whatever else
 * the machine does hits all of them. */
#include "tests/bench/measure.h"

#include <math.h>

#include "tests/daemon.h"

enum { MIN_ROUNDS = 8, MAX_ROUNDS = 201 };

int bench_find_peak(bench_plan *plan) {
    static const int sizes[] = {512, 768, 1024};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        enum { ROUNDS = 9 };
        const bench_job job = {.batch = sizes[i], .threads = 1};
        bench_side side;
        double times[ROUNDS];
        int steps = 0;
        if (!bench_side_start(BENCH_GEMM, &job, NULL, &side))
            steps = bench_side_steps(&side, plan->slice);
        for (int round = 0; round < ROUNDS && steps; round++) {
            times[round] = bench_side_run(&side, steps) / steps;
            steps = times[round] < 0 ? 0 : steps;
        }
        const double peak = steps ? side.operations / bench_median(times, ROUNDS) : 0;
        bench_side_end(&side);
        if (!steps)
            return -1;
        if (peak > plan->gemm_peak) {
            plan->gemm_peak = peak;
            plan->gemm_size = sizes[i];
        }
    }
    return 0;
}

/* The sides that take part, and their times. */
typedef struct rounds {
    bench_side sides[BENCH_KINDS];
    int steps[BENCH_KINDS]; /* in one round */
    double times[BENCH_KINDS][MAX_ROUNDS];
    int count;
    long daemon_kib; /* its peak memory */
} rounds;

static bool takes_part(const bench_plan *plan, const bench_workload *w, int threads, bench_kind kind) {
    return kind == BENCH_JSON    ? w->json
           : kind == BENCH_TORCH ? plan->torch.to != NULL
           : kind == BENCH_GEMM  ? threads == 1
                                 : true;
}

/* The same seed, network and batch must give the same number everywhere. */
static int check_same(const bench_workload *w, const bench_side *sides) {
    const double want = sides[BENCH_ENGINE].value;
    char text[256];
    for (int kind = 0; kind < BENCH_GEMM; kind++) {
        const double value = sides[kind].value;
        if (sides[kind].to && !(fabs(value - want) <= 1e-3 * fmax(fabs(want), 1e-2))) {
            snprintf(text, sizeof text,
                     "it is not the engine's network: its first step gives %.7g, the engine's %.7g", value,
                     want);
            fprintf(stderr, "bench: %s, %s: %s\n", w->name, bench_kind_name((bench_kind)kind), text);
            return -1;
        }
    }
    return 0;
}

static int start(const bench_plan *plan, const bench_workload *w, int threads, const test_daemon *daemon,
                 rounds *r) {
    for (int k = 0; k < BENCH_KINDS; k++) {
        const bench_kind kind = (bench_kind)k;
        const bench_job job = {.name = w->name,
                               .model = w->model,
                               .task = w->task,
                               .batch = kind == BENCH_GEMM ? plan->gemm_size : w->batch,
                               .threads = threads,
                               .server = daemon->server,
                               .hosted = bench_kind_name(kind)};
        if (takes_part(plan, w, threads, kind) &&
            (bench_side_start(kind, &job, &plan->torch, &r->sides[k]) ||
             !(r->steps[k] = bench_side_steps(&r->sides[k], plan->slice))))
            return -1;
        if (kind == BENCH_HTTP) /* before JSON, whose bodies would add to it */
            r->daemon_kib = bench_peak_memory(daemon->pid);
    }
    return check_same(w, r->sides);
}

/* Neighbours of a virtual machine slow its processors one by one, for seconds or minutes, and a process stays
 * where it is. So on one thread all sides of a round run on one processor, and on the next in the next. */
static void change_processor(const rounds *r, const test_daemon *daemon) {
    for (int kind = 0; kind < BENCH_KINDS; kind++)
        if (r->sides[kind].to)
            bench_pin(kind == BENCH_HTTP || kind == BENCH_JSON ? daemon->pid : r->sides[kind].worker,
                      r->count);
}

static int run(const bench_plan *plan, int threads, const test_daemon *daemon, rounds *r) {
    const double begin = bench_now();
    while (r->count < MAX_ROUNDS && (r->count < MIN_ROUNDS || bench_now() - begin < plan->seconds)) {
        if (threads == 1)
            change_processor(r, daemon);
        for (int i = 0; i < BENCH_KINDS; i++) {
            const int kind = (r->count + i) % BENCH_KINDS;
            if (!r->sides[kind].to)
                continue;
            const double seconds = bench_side_run(&r->sides[kind], r->steps[kind]);
            if (seconds < 0)
                return -1;
            r->times[kind][r->count] = seconds / r->steps[kind];
        }
        r->count++;
    }
    return 0;
}

static double ratio(double a, double b) {
    return a / b;
}

static double difference(double a, double b) {
    return a - b;
}

/* The median of what the rounds gave for two sides' times. */
static double compare(const rounds *r, bench_kind a, bench_kind b, double (*of)(double, double)) {
    double values[MAX_ROUNDS];
    if (!r->sides[a].to || !r->sides[b].to || !r->count)
        return NAN;
    for (int i = 0; i < r->count; i++)
        values[i] = of(r->times[a][i], r->times[b][i]);
    return bench_median(values, r->count);
}

int bench_measure(const bench_plan *plan, const bench_workload *workload, int threads,
                  bench_result *ret_result) {
    char text[16];
    const char *const arguments[] = {"--threads", text, "--log-level", "warning", NULL};
    test_daemon daemon;
    rounds r = {0};
    bench_result result = {.workload = workload, .threads = threads, .gemm = NAN};
    snprintf(text, sizeof text, "%d", threads);
    test_daemon_start(&daemon, arguments);
    const int code = start(plan, workload, threads, &daemon, &r) || run(plan, threads, &daemon, &r) ? -1 : 0;
    result.rounds = r.count;
    result.operations = r.sides[BENCH_ENGINE].operations;
    result.speedup = compare(&r, BENCH_TORCH, BENCH_ENGINE, ratio);
    result.http_speedup = compare(&r, BENCH_TORCH, BENCH_HTTP, ratio);
    result.http_overhead = 1e3 * compare(&r, BENCH_HTTP, BENCH_ENGINE, difference);
    result.share =
        compare(&r, BENCH_GEMM, BENCH_ENGINE, ratio) * result.operations / r.sides[BENCH_GEMM].operations;
    if (r.sides[BENCH_GEMM].to && !code)
        result.gemm = r.sides[BENCH_GEMM].operations / bench_median(r.times[BENCH_GEMM], r.count);
    for (int kind = 0; kind < BENCH_KINDS; kind++) {
        const bool ran = r.sides[kind].to && !code;
        const long own_kib = bench_side_end(&r.sides[kind]),
                   kib = kind == BENCH_HTTP ? r.daemon_kib : own_kib;
        result.ms[kind] = ran ? 1e3 * bench_median(r.times[kind], r.count) : NAN;
        result.rss[kind] = ran && kib ? (double)kib * 1024e-6 : NAN;
    }
    test_daemon_stop(&daemon);
    if (!code)
        *ret_result = result;
    return code;
}
