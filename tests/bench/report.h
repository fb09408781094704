/* report.h -- what was measured, for people and for machines. */
#ifndef GRADD_BENCH_REPORT_H
#define GRADD_BENCH_REPORT_H

#include "tests/bench/floor.h"
#include "tests/bench/measure.h"

void bench_print_head(const bench_plan *plan);
void bench_print_result(const bench_result *result);
void bench_print_floor(const bench_floor *floor);

/** New references. */
json_t *bench_result_json(const bench_result *result);
json_t *bench_floor_json(const bench_floor *floor);
/** The whole document. Steals both; either may be NULL. */
json_t *bench_report_json(const bench_plan *plan, json_t *results, json_t *floor);

#endif
