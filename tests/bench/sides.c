/* sides.c -- start the sides, speak to them, end them. */
#include "tests/bench/sides.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const kind_names[BENCH_KINDS] = {"engine", "http", "json", "torch", "gemm"};

const char *bench_kind_name(bench_kind kind) {
    return kind_names[kind];
}

double bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

long bench_peak_memory(pid_t pid) {
    char path[32], line[128];
    long kib = 0;
    snprintf(path, sizeof path, pid ? "/proc/%d/status" : "/proc/self/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    if (file)
        fclose(file);
    return kib;
}

/* ---- processes ------------------------------------------------------------------------------------ */

/* A child with a pipe each way. It dies with this process, whatever happens. */
static int spawn(const char *const *arguments, bench_side *ret_side) {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC))
        return bench_complain(arguments[0], "no pipe");
    if (pipe2(from, O_CLOEXEC)) {
        close(to[0]), close(to[1]);
        return bench_complain(arguments[0], "no pipe");
    }
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent && dup2(to[0], 0) == 0 && dup2(from[1], 1) == 1)
            execvp(arguments[0], (char *const *)arguments);
        _exit(127);
    }
    close(to[0]), close(from[1]);
    *ret_side = (bench_side){.pid = pid, .to = fdopen(to[1], "w"), .from = fdopen(from[0], "r")};
    if (pid < 0 || !ret_side->to || !ret_side->from)
        return bench_complain(arguments[0], "did not start");
    return 0;
}

static int send_line(const bench_side *side, const char *line) {
    return fprintf(side->to, "%s\n", line) < 0 || fflush(side->to) ? bench_complain("side", "it ended") : 0;
}

static int wait_until_ready(bench_kind kind, bench_side *side) {
    char line[128], *end;
    if (!fgets(line, sizeof line, side->from) || strncmp(line, "ready ", 6) != 0)
        return bench_complain(bench_kind_name(kind), "it did not get ready");
    side->value = strtod(line + 6, &end);
    side->worker = (pid_t)strtol(end, &end, 10);
    side->operations = strtod(end, NULL);
    return 0;
}

int bench_side_start(bench_kind kind, const bench_job *job, const bench_side *torch, bench_side *ret_side) {
    char batch[24], threads[16], line[256];
    *ret_side = (bench_side){0};
    snprintf(batch, sizeof batch, "%" PRId64, job->batch);
    snprintf(threads, sizeof threads, "%d", job->threads);
    if (kind == BENCH_TORCH) {
        *ret_side = (bench_side){.to = torch->to, .from = torch->from};
        snprintf(line, sizeof line, "%s %s %s %s", job->name, bench_task_name(job->task), batch, threads);
        return send_line(ret_side, line) || wait_until_ready(kind, ret_side) ? -1 : 0;
    }
    const char *arguments[] = {"/proc/self/exe",
                               "--side",
                               bench_kind_name(kind),
                               job->model ? job->model : "-",
                               bench_task_name(job->task),
                               batch,
                               threads,
                               job->server ? job->server : "-",
                               job->hosted ? job->hosted : "-",
                               NULL};
    return spawn(arguments, ret_side) || wait_until_ready(kind, ret_side) ? -1 : 0;
}

int bench_torch_start(const char *python, bench_side *ret_torch, char *ret_version, size_t size) {
    const char *arguments[] = {python, "tests/bench/torch_steps.py", NULL};
    if (spawn(arguments, ret_torch) || !fgets(ret_version, (int)size, ret_torch->from))
        return bench_complain(python, "did not start");
    ret_version[strcspn(ret_version, "\n")] = 0;
    return 0;
}

int bench_side_ask(const bench_side *side, int steps) {
    char line[16];
    snprintf(line, sizeof line, "%d", steps);
    return send_line(side, line);
}

double bench_side_answer(const bench_side *side) {
    char line[64], *end;
    if (!fgets(line, sizeof line, side->from))
        return bench_complain("side", "it ended");
    double value = strtod(line, &end);
    return end == line ? bench_complain("side", line) : value;
}

double bench_side_run(const bench_side *side, int steps) {
    return bench_side_ask(side, steps) ? -1 : bench_side_answer(side);
}

void bench_pin(pid_t pid, int turn) {
    char path[32];
    cpu_set_t ours, one;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *threads = sched_getaffinity(0, sizeof ours, &ours) ? NULL : opendir(path);
    if (!threads)
        return;
    turn %= CPU_COUNT(&ours);
    int processor = 0;
    for (; !CPU_ISSET(processor, &ours) || turn > 0; processor++)
        turn -= CPU_ISSET(processor, &ours);
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    for (const struct dirent *entry; (entry = readdir(threads));) {
        const pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (thread > 0)
            sched_setaffinity(thread, sizeof one, &one);
    }
    closedir(threads);
}

int bench_side_steps(const bench_side *side, double seconds) {
    enum { MOST = 10000 };
    int steps = 1;
    for (;;) { /* more and more of them, until they take long enough to be measured */
        double took = bench_side_run(side, steps);
        if (took < 0)
            return 0;
        if (took > seconds / 8 || steps >= MOST) {
            double fit = seconds * steps / (took + 1e-9);
            return fit < 1 ? 1 : fit > MOST ? MOST : (int)fit;
        }
        steps *= 4;
    }
}

long bench_side_end(bench_side *side) {
    long kib = 0;
    if (side->to && side->from && !bench_side_ask(side, 0)) {
        double answer = bench_side_answer(side);
        kib = answer < 0 ? 0 : (long)answer;
    }
    if (side->pid > 0) {
        fclose(side->to);
        fclose(side->from);
        waitpid(side->pid, NULL, 0);
    }
    *side = (bench_side){0};
    return kib;
}

void bench_torch_end(bench_side *torch) {
    if (torch->pid > 0) {
        fclose(torch->to); /* ends its loop */
        fclose(torch->from);
        waitpid(torch->pid, NULL, 0);
    }
    *torch = (bench_side){0};
}
