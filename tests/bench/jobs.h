/* jobs.h -- jobs: against the same script in PyTorch, a long history, a crowd that polls, a reader that comes
 * and goes. */
#ifndef GRADD_BENCH_JOBS_H
#define GRADD_BENCH_JOBS_H

#include "tests/bench/measure.h"

enum { BENCH_EPOCHS = 3, BENCH_RACES = 2, BENCH_QUERIES = 3, BENCH_PACES = 2 };

/** LeNet on MNIST, here and in PyTorch. NaN or 0 without it. */
typedef struct bench_race {
    int threads;
    double seconds, torch_seconds; /* all epochs and the evaluation */
    double loss[BENCH_EPOCHS], torch_loss[BENCH_EPOCHS];
    double accuracy, torch_accuracy;
    double apart;      /* the largest difference of a loss to PyTorch's in the first 200 steps */
    int parts;         /* the first step with one above 1e-3; 0: none */
    double self_apart; /* the same of PyTorch and PyTorch with each batch's rows the other way round */
    int self_parts;
} bench_race;

typedef struct bench_query {
    const char *name;
    double p50_ms, p99_ms;
    size_t bytes; /* of a reply */
} bench_query;

typedef struct bench_history {
    int64_t steps;
    double seconds; /* that a job took for them */
    double memory;  /* bytes: of the history, by the daemon's word */
    double grown;   /* bytes of resident memory that the daemon has more than before */
    bench_query queries[BENCH_QUERIES];
} bench_history;

enum { BENCH_CLIENTS = 200 };
/** Clients that poll while a job trains. */
typedef struct bench_pace {
    double asked, answered; /* requests a second */
    double p50_ms, p99_ms, worst_ms;
    double share; /* of the job's steps a second alone; a median of rounds */
} bench_pace;

typedef struct bench_crowd {
    double alone; /* the job's steps a second */
    bench_pace paces[BENCH_PACES];
} bench_crowd;

typedef struct bench_reader {
    int connections, in_pieces; /* how many of them ended in the middle of an event */
    int64_t steps, live;        /* seen, once each and in order; of these while the job ran */
    double seconds;
} bench_reader;

typedef struct bench_jobs {
    bench_race races[BENCH_RACES];
    int race_count; /* 0: MNIST is not there */
    bench_history history;
    bench_crowd crowd;
    bench_reader reader;
} bench_jobs;

/** @param threads 0: on one and on all cores @return 0; -1, said on stderr */
int bench_jobs_measure(const bench_plan *plan, int threads, bench_jobs *ret_jobs);

/** The parts. @return 0; -1 */
int bench_race_run(const bench_plan *plan, const char *folder, int threads, bench_race *ret_race);
int bench_history_run(const bench_plan *plan, bench_history *ret_history);
int bench_crowd_run(const bench_plan *plan, bench_crowd *ret_crowd);
int bench_reader_run(const bench_plan *plan, bench_reader *ret_reader);

#endif
