/* jobs.c -- the parts of the section on jobs. */
#include "tests/bench/jobs.h"

#include <unistd.h>

static const char *mnist(void) {
    static const char *const folders[] = {"../shared/data/mnist", "../../shared/data/mnist"};
    const char *folder = getenv("MNIST");
    for (size_t i = 0; !folder && i < 2; i++)
        folder = access(folders[i], R_OK) ? NULL : folders[i];
    return folder;
}

int bench_jobs_measure(const bench_plan *plan, int threads, bench_jobs *ret_jobs) {
    const int counts[BENCH_RACES] = {threads ? threads : 1, plan->cores};
    const char *folder = mnist();
    *ret_jobs = (bench_jobs){.race_count = !folder ? 0 : threads || plan->cores == 1 ? 1 : BENCH_RACES};
    if (!folder)
        fputs("MNIST is not in ../shared/data/mnist (MNIST=... names a folder): no job on it\n", stderr);
    for (int i = 0; i < ret_jobs->race_count; i++)
        if (bench_race_run(plan, folder, counts[i], &ret_jobs->races[i]))
            return -1;
    return bench_history_run(plan, &ret_jobs->history) || bench_crowd_run(plan, &ret_jobs->crowd) ||
                   bench_reader_run(plan, &ret_jobs->reader)
               ? -1
               : 0;
}
