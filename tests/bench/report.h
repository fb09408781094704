/* report.h -- what was measured, for people and for machines. */
#ifndef GRADD_BENCH_REPORT_H
#define GRADD_BENCH_REPORT_H

#include "tests/bench/floor.h"
#include "tests/bench/jobs.h"
#include "tests/bench/measure.h"

void bench_print_head(const bench_plan *plan);
void bench_print_result(const bench_result *result);
void bench_print_floor(const bench_floor *floor);
void bench_print_jobs(const bench_jobs *jobs);

/** New references. */
json_t *bench_result_json(const bench_result *result);
json_t *bench_floor_json(const bench_floor *floor);
json_t *bench_jobs_json(const bench_jobs *jobs);
/** The whole document. Steals them; each may be NULL. */
json_t *bench_report_json(const bench_plan *plan, json_t *results, json_t *floor, json_t *jobs);

#endif
