/* report.c -- the table, and the same as JSON. */
#include "tests/bench/report.h"

#include <inttypes.h>
#include <math.h>

/* ---- for people ------------------------------------------------------------------------------------- */

/* A number to `width`, with `wanted` behind it where something is; "-" for NaN. */
static void cell(int width, int digits, double value, double scale, const char *unit) {
    if (isnan(value))
        printf("  %*s", width + (int)strlen(unit), "-");
    else
        printf("  %*.*f%s", width, digits, value * scale, unit);
}

static void want(int width, int digits, double value, double scale) {
    char text[32] = "";
    if (value > 0)
        snprintf(text, sizeof text, "(%.*f)", digits, value * scale);
    printf(" %-*s", width, text);
}

void bench_print_head(const bench_plan *plan) {
    const char *fell_back = getenv("BENCH_BLAS_FELL_BACK_TO"), *set = getenv("OPENBLAS_CORETYPE");
    printf("Medians of rounds in which every side takes its turn; (wanted). OpenBLAS %s",
           gd_engine_blas_core());
    if (fell_back)
        printf(" for every side (by OPENBLAS_CORETYPE: by itself it takes %s, not knowing this processor)",
               fell_back);
    else if (set)
        printf(" (by OPENBLAS_CORETYPE)");
    printf(", peak %.1f GFLOP/s on one thread (OpenBLAS's sgemm or our own, %d x %d); PyTorch %s.\n\n",
           plan->gemm_peak * 1e-9, plan->gemm_size, plan->gemm_size,
           plan->torch.to ? plan->torch_version : "is not there: gradd runs alone");
    printf("%-22s %7s  %9s  %9s  %8s  %9s  %14s  %9s  %12s  %24s\n", "", "threads", "engine ms", "http ms",
           "json ms", "torch ms", "torch/engine", "http over", "of GEMM", "RSS MB engine gradd torch");
    fflush(stdout);
}

void bench_print_result(const bench_result *r) {
    const bench_workload *w = r->workload;
    char name[64];
    snprintf(name, sizeof name, "%s%s %" PRId64, w->name, w->task == BENCH_PREDICT ? " predict" : "",
             w->batch);
    printf("%-22s %7d", name, r->threads);
    cell(9, 3, r->ms[BENCH_ENGINE], 1, "");
    cell(9, 3, r->ms[BENCH_HTTP], 1, "");
    cell(8, 2, r->ms[BENCH_JSON], 1, "");
    cell(9, 3, r->ms[BENCH_TORCH], 1, "");
    cell(6, 2, r->speedup, 1, "");
    want(7, 2, r->threads == 1 ? w->want_one : w->want_all, 1);
    cell(9, 3, r->http_overhead, 1, "");
    cell(5, 0, r->share, 100, "%");
    want(5, 0, r->threads == 1 ? w->want_share : 0, 100);
    cell(11, 0, r->rss[BENCH_ENGINE], 1, "");
    cell(4, 0, r->rss[BENCH_HTTP], 1, "");
    cell(4, 0, r->rss[BENCH_TORCH], 1, "");
    printf("\n");
    fflush(stdout);
}

void bench_print_floor(const bench_floor *f) {
    printf("\nThe floor\n");
    for (int i = 0; i < BENCH_PATHS; i++) {
        const bench_load *load = &f->loads[i];
        printf("  GET %-24s %8.0f a second on %d connections; on one p50 %.1f us, p99 %.1f us\n", load->path,
               load->per_second, BENCH_CONNECTIONS, load->p50_us, load->p99_us);
    }
    printf("  start to ready %.0f ms; idle %.2f %% of a core\n", f->start_ms, 100 * f->idle_share);
    printf("  two models at once, a thread each: %.1f steps/s; one alone on one thread %.1f; %.0f %% of "
           "twice that\n",
           f->two_per_second, f->one_per_second, 100 * f->two_share);
    for (int i = 0; i < BENCH_SPREAD; i++) {
        const bench_spread *s = &f->spread[i];
        printf("  %s, all cores: %.2f times as fast as one thread (%.1f and %.1f steps/s)\n", s->name,
               s->speedup, s->all_per_second, s->one_per_second);
    }
    printf("  LeNet by batch, one thread:\n");
    for (int i = 0; i < BENCH_SCALES; i++) {
        const bench_scale *s = &f->scales[i];
        printf("    %5d: %7.2f us per sample (%+.0f %%); memory foreseen %.2f MB, the daemon says %.2f MB "
               "(%+.1f %%)\n",
               (int)s->batch, s->us_per_sample, 100 * s->growth, s->foreseen * 1e-6, s->reported * 1e-6,
               100 * (s->reported / s->foreseen - 1));
    }
    fflush(stdout);
}

static void print_race(const bench_race *r) {
    printf("  LeNet on MNIST, 3 epochs, %d thread%s: %.2f s, PyTorch %.2f s (%.2f times as fast; wanted 2); "
           "accuracy %.2f %%, PyTorch %.2f %%\n",
           r->threads, r->threads > 1 ? "s" : "", r->seconds, r->torch_seconds, r->torch_seconds / r->seconds,
           100 * r->accuracy, 100 * r->torch_accuracy);
    printf("    mean losses %.4f %.4f %.4f, PyTorch %.4f %.4f %.4f\n", r->loss[0], r->loss[1], r->loss[2],
           r->torch_loss[0], r->torch_loss[1], r->torch_loss[2]);
    printf(
        "    a step's loss: at most %.1e apart in the first 200, more than 1e-3 from step %d (PyTorch from "
        "itself, rows of each batch turned: %.1e, step %d)\n",
        r->apart, r->parts, r->self_apart, r->self_parts);
}

void bench_print_jobs(const bench_jobs *j) {
    const bench_history *h = &j->history;
    const bench_reader *r = &j->reader;
    printf("\nJobs\n");
    for (int i = 0; i < j->race_count; i++)
        print_race(&j->races[i]);
    printf("  a history of %" PRId64 " steps (a job of %.1f s): %.1f MB, the daemon has grown by %.1f MB\n",
           h->steps, h->seconds, h->memory * 1e-6, h->grown * 1e-6);
    for (int i = 0; i < BENCH_QUERIES; i++)
        printf("    %-22s p50 %.2f ms, p99 %.2f ms, %zu kB\n", h->queries[i].name, h->queries[i].p50_ms,
               h->queries[i].p99_ms, h->queries[i].bytes / 1000);
    printf("  %d clients poll while LeNet trains (alone %.1f steps/s)\n", BENCH_CLIENTS, j->crowd.alone);
    for (int i = 0; i < BENCH_PACES; i++) {
        const bench_pace *p = &j->crowd.paces[i];
        printf("    %4.0f a second (answered %.0f): the job at %.1f %%; p50 %.2f ms, p99 %.2f ms, worst %.1f "
               "ms\n",
               p->asked, p->answered, 100 * p->share, p->p50_ms, p->p99_ms, p->worst_ms);
    }
    printf("  events over %d connections, %d broken off inside an event: %" PRId64
           " steps, each once and in order (%" PRId64 " while they were taken), %.1f s\n",
           r->connections, r->in_pieces, r->steps, r->live, r->seconds);
    fflush(stdout);
}

/* ---- for machines ----------------------------------------------------------------------------------- */

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static void set(json_t *object, const char *key, double value) {
    json_object_set_new(object, key, number(value));
}

json_t *bench_result_json(const bench_result *r) {
    const bench_workload *w = r->workload;
    json_t *row =
        json_pack("{s:s, s:s, s:I, s:i, s:i}", "workload", w->name, "task", bench_task_name(w->task), "batch",
                  (json_int_t)w->batch, "threads", r->threads, "rounds", r->rounds);
    char key[32];
    const double wanted = r->threads == 1 ? w->want_one : w->want_all;
    for (int kind = 0; kind < BENCH_GEMM; kind++) {
        snprintf(key, sizeof key, "%s_ms", bench_kind_name((bench_kind)kind));
        set(row, key, r->ms[kind]);
    }
    for (int kind = 0; kind < BENCH_GEMM; kind++) {
        if (kind == BENCH_JSON) /* its daemon is http's */
            continue;
        snprintf(key, sizeof key, "%s_rss_mb", bench_kind_name((bench_kind)kind));
        set(row, key, r->rss[kind]);
    }
    set(row, "engine_speedup", r->speedup);
    set(row, "engine_speedup_wanted", wanted > 0 ? wanted : NAN);
    set(row, "http_speedup", r->http_speedup);
    set(row, "http_overhead_ms", r->http_overhead);
    set(row, "operations", r->operations);
    set(row, "gemm_gflops", r->gemm * 1e-9);
    set(row, "gemm_share", r->share);
    set(row, "gemm_share_wanted", r->threads == 1 && w->want_share > 0 ? w->want_share : NAN);
    return row;
}

json_t *bench_floor_json(const bench_floor *f) {
    json_t *loads = json_array(), *spread = json_array(), *scales = json_array();
    for (int i = 0; i < BENCH_PATHS; i++) {
        const bench_load *l = &f->loads[i];
        json_array_append_new(loads, json_pack("{s:s, s:i, s:f, s:f, s:f}", "path", l->path, "connections",
                                               BENCH_CONNECTIONS, "per_second", l->per_second, "p50_us",
                                               l->p50_us, "p99_us", l->p99_us));
    }
    for (int i = 0; i < BENCH_SPREAD; i++) {
        const bench_spread *s = &f->spread[i];
        json_array_append_new(spread, json_pack("{s:s, s:f, s:f, s:f}", "workload", s->name, "one_per_second",
                                                s->one_per_second, "all_per_second", s->all_per_second,
                                                "speedup", s->speedup));
    }
    for (int i = 0; i < BENCH_SCALES; i++) {
        const bench_scale *s = &f->scales[i];
        json_array_append_new(scales,
                              json_pack("{s:I, s:f, s:f, s:f, s:f}", "batch", (json_int_t)s->batch,
                                        "us_per_sample", s->us_per_sample, "growth", s->growth,
                                        "foreseen_bytes", s->foreseen, "reported_bytes", s->reported));
    }
    return json_pack("{s:o, s:f, s:f, s:f, s:f, s:f, s:o, s:o}", "loads", loads, "start_ms", f->start_ms,
                     "idle_share", f->idle_share, "one_model_per_second", f->one_per_second,
                     "two_models_per_second", f->two_per_second, "two_models_share", f->two_share,
                     "all_cores", spread, "lenet_by_batch", scales);
}

static json_t *race_json(const bench_race *r) {
    json_t *row =
        json_pack("{s:i, s:f, s:f, s:i, s:i}", "threads", r->threads, "seconds", r->seconds, "accuracy",
                  r->accuracy, "parts_at_step", r->parts, "torch_parts_from_itself_at_step", r->self_parts);
    json_t *loss = json_array(), *torch_loss = json_array();
    for (int i = 0; i < BENCH_EPOCHS; i++) {
        json_array_append_new(loss, json_real(r->loss[i]));
        json_array_append_new(torch_loss, json_real(r->torch_loss[i]));
    }
    set(row, "torch_seconds", r->torch_seconds);
    set(row, "torch_accuracy", r->torch_accuracy);
    set(row, "apart_in_200_steps", r->apart);
    set(row, "torch_from_itself", r->self_apart);
    json_object_set_new(row, "epoch_loss", loss);
    json_object_set_new(row, "torch_epoch_loss", torch_loss);
    return row;
}

json_t *bench_jobs_json(const bench_jobs *j) {
    const bench_history *h = &j->history;
    json_t *races = json_array(), *queries = json_array(), *paces = json_array();
    for (int i = 0; i < j->race_count; i++)
        json_array_append_new(races, race_json(&j->races[i]));
    for (int i = 0; i < BENCH_QUERIES; i++) {
        const bench_query *q = &h->queries[i];
        json_array_append_new(queries,
                              json_pack("{s:s, s:f, s:f, s:I}", "query", q->name, "p50_ms", q->p50_ms,
                                        "p99_ms", q->p99_ms, "bytes", (json_int_t)q->bytes));
    }
    for (int i = 0; i < BENCH_PACES; i++) {
        const bench_pace *p = &j->crowd.paces[i];
        json_array_append_new(paces,
                              json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "asked_per_second", p->asked,
                                        "answered_per_second", p->answered, "p50_ms", p->p50_ms, "p99_ms",
                                        p->p99_ms, "worst_ms", p->worst_ms, "job_share", p->share));
    }
    return json_pack("{s:o, s:{s:I, s:f, s:f, s:f, s:o}, s:{s:i, s:f, s:o}, s:{s:i, s:i, s:I, s:I, s:f}}",
                     "mnist", races, "history", "steps", (json_int_t)h->steps, "job_seconds", h->seconds,
                     "bytes", h->memory, "grown_bytes", h->grown, "queries", queries, "polls", "clients",
                     BENCH_CLIENTS, "alone_steps_per_second", j->crowd.alone, "paces", paces, "events",
                     "connections", j->reader.connections, "inside_an_event", j->reader.in_pieces, "steps",
                     (json_int_t)j->reader.steps, "live", (json_int_t)j->reader.live, "seconds",
                     j->reader.seconds);
}

json_t *bench_report_json(const bench_plan *plan, json_t *results, json_t *floor, json_t *jobs) {
    return json_pack("{s:s, s:i, s:f, s:i, s:o, s:o*, s:o*, s:o*}", "blas", gd_engine_blas_core(), "cores",
                     plan->cores, "gemm_peak_gflops", plan->gemm_peak * 1e-9, "gemm_size", plan->gemm_size,
                     "torch", plan->torch.to ? json_string(plan->torch_version) : json_null(), "results",
                     results, "floor", floor, "jobs", jobs);
}
