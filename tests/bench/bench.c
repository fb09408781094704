/* bench.c -- gradd's engine, the daemon over HTTP and PyTorch side by side in one run, and the floor they
 * stand on. Started by tests/bench/run, which says where Python and the daemon are. */
#include <getopt.h>
#include <signal.h>
#include <unistd.h>

#include "engine/kernels/gemm.h"
#include "tests/bench/report.h"

static const char usage[] =
    "usage: tests/bench/run [--quick] [--json] [--threads N] [--seconds S] [WORKLOAD ...]\n"
    "\n"
    "  WORKLOAD       a name, all of its rows (lenet), or one of them (lenet/64, lenet/predict/1), or\n"
    "                 floor, or jobs; none: everything\n"
    "  --threads N    only on so many threads; else on 1 and on all cores\n"
    "  --seconds S    for a row's rounds (default 7; with --quick 1)\n"
    "  --quick        less time for each\n"
    "  --json         for machines\n";

typedef struct options {
    bool json;
    int threads; /* 0: 1 and all cores */
    double seconds;
    const char *python; /* "-": there is none with torch */
    char **names;
    int name_count;
    bool *named; /* (name_count): it chose something */
} options;

static int read_options(int argc, char **argv, bench_plan *plan, options *ret_options) {
    enum { JSON = 256, QUICK, THREADS, SECONDS, PYTHON, HELP };
    static const struct option longs[] = {{"json", no_argument, NULL, JSON},
                                          {"quick", no_argument, NULL, QUICK},
                                          {"threads", required_argument, NULL, THREADS},
                                          {"seconds", required_argument, NULL, SECONDS},
                                          {"python", required_argument, NULL, PYTHON},
                                          {"help", no_argument, NULL, HELP},
                                          {0}};
    options *o = ret_options;
    bool quick = false;
    char *end = (char[]){""};
    *o = (options){.python = "-"};
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (option) {
        case JSON:
            o->json = true;
            break;
        case QUICK:
            quick = true;
            break;
        case THREADS:
            o->threads = (int)strtol(optarg, &end, 10);
            if (*end || o->threads < 1 || o->threads > 256)
                return bench_complain("--threads", "a number from 1 to 256");
            break;
        case SECONDS:
            o->seconds = strtod(optarg, &end);
            if (*end || !(o->seconds > 0 && o->seconds <= 600))
                return bench_complain("--seconds", "a number above 0, up to 600");
            break;
        case PYTHON:
            o->python = optarg;
            break;
        default:
            fputs(usage, option == HELP ? stdout : stderr);
            return -1;
        }
    }
    plan->seconds = o->seconds > 0 ? o->seconds : quick ? 1 : 7;
    plan->slice = quick ? 0.03 : 0.08;
    o->names = argv + optind;
    o->name_count = argc - optind;
    return 0;
}

/* Is this name, or "name/batch", or "name/task/batch" asked for? Nothing asked: everything is. */
static bool chosen(const options *o, const char *name, const bench_workload *w) {
    bool found = o->name_count == 0;
    char row[96] = "", task[96] = "";
    if (w) {
        snprintf(row, sizeof row, "%s/%d", name, (int)w->batch);
        snprintf(task, sizeof task, "%s/%s/%d", name, bench_task_name(w->task), (int)w->batch);
    }
    for (int i = 0; i < o->name_count; i++)
        if (strcmp(o->names[i], name) == 0 || strcmp(o->names[i], task) == 0 ||
            (w && w->task == BENCH_TRAIN && strcmp(o->names[i], row) == 0))
            found = o->named[i] = true;
    return found;
}

static int check_names(options *o) {
    o->named = calloc((size_t)o->name_count + 1, sizeof *o->named);
    if (!o->named)
        return bench_complain("bench", "no memory");
    chosen(o, "floor", NULL);
    chosen(o, "jobs", NULL);
    for (size_t i = 0; i < bench_workload_count; i++)
        chosen(o, bench_workloads[i].name, &bench_workloads[i]);
    for (int i = 0; i < o->name_count; i++)
        if (!o->named[i])
            return bench_complain(o->names[i], "there is no such workload; see tests/bench/workloads.def");
    return 0;
}

static int measure_all(const bench_plan *plan, const options *o, json_t *rows) {
    int threads[2] = {1, plan->cores}, counts = plan->cores > 1 ? 2 : 1;
    if (o->threads) {
        threads[0] = o->threads;
        counts = 1;
    }
    for (size_t i = 0; i < bench_workload_count; i++)
        for (int t = 0; t < counts; t++) {
            bench_result result;
            if (!chosen(o, bench_workloads[i].name, &bench_workloads[i]))
                continue;
            if (bench_measure(plan, &bench_workloads[i], threads[t], &result))
                return -1;
            if (!o->json)
                bench_print_result(&result);
            json_array_append_new(rows, bench_result_json(&result));
        }
    return 0;
}

/* OpenBLAS takes a slow core on processors that it does not know. Every side, PyTorch's too, is to have the
 * one that suits; OpenBLAS reads its name when it is loaded, so this program starts anew. What the user has
 * set stays. */
static void suit_blas(char **argv) {
    const char *features = gd_cpu_features_at(0);
    const bool wide = strcmp(features, "avx512") == 0 || strcmp(features, "amx") == 0;
    const int lanes = wide ? 16 : strcmp(features, "avx2") == 0 ? 8 : 4;
    if (gd_blas_lanes() >= lanes || getenv("OPENBLAS_CORETYPE"))
        return;
    setenv("OPENBLAS_CORETYPE", wide ? "SkylakeX" : "Haswell", 1);
    setenv("BENCH_BLAS_FELL_BACK_TO", gd_engine_blas_core(), 1);
    execv("/proc/self/exe", argv);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--side") == 0)
        return bench_side_main(argc - 2, argv + 2);
    suit_blas(argv);
    bench_plan plan = {.cores = (int)sysconf(_SC_NPROCESSORS_ONLN)};
    options o = {0};
    bench_floor floor;
    bench_jobs jobs;
    json_t *rows = json_array(), *floor_json = NULL, *jobs_json = NULL;
    int result = 1;
    signal(SIGPIPE, SIG_IGN);
    if (read_options(argc, argv, &plan, &o) || check_names(&o)) {
        result = 2;
        goto out;
    }
    if (strcmp(o.python, "-") != 0 &&
        bench_torch_start(o.python, &plan.torch, plan.torch_version, sizeof plan.torch_version))
        goto out;
    if (bench_find_peak(&plan))
        goto out;
    if (!o.json)
        bench_print_head(&plan);
    if (measure_all(&plan, &o, rows))
        goto out;
    if (chosen(&o, "floor", NULL)) {
        if (bench_floor_measure(&plan, &floor))
            goto out;
        floor_json = bench_floor_json(&floor);
        if (!o.json)
            bench_print_floor(&floor);
    }
    if (chosen(&o, "jobs", NULL)) {
        if (bench_jobs_measure(&plan, o.threads, &jobs))
            goto out;
        jobs_json = bench_jobs_json(&jobs);
        if (!o.json)
            bench_print_jobs(&jobs);
    }
    if (o.json) {
        json_t *all =
            bench_report_json(&plan, json_incref(rows), json_incref(floor_json), json_incref(jobs_json));
        json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        printf("\n");
        json_decref(all);
    }
    result = 0;
out:
    json_decref(rows);
    json_decref(floor_json);
    json_decref(jobs_json);
    free(o.named);
    bench_torch_end(&plan.torch);
    return result;
}
