/* json_parse.h -- the three floors of reading tensors from JSON: json_numbers.c scans nested arrays,
 * json_tensor.c the tensor around them, json_body.c the request body around that. */
#ifndef GP_JSON_PARSE_H
#define GP_JSON_PARSE_H

#include "internal.h"
#include "json_scan.h"

/** A text being read. begin[size] is a NUL, so numbers need no check for the end. */
typedef struct gp_json_source {
    gp_scan scan;
    const char *begin;
    gp_error *error;
} gp_json_source;

/** Refuse the text as JSON, naming line and column of `at`. @return -1 */
int gp_json_fail_at(gp_json_source *json, const char *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

typedef struct gp_number {
    bool integer;
    int64_t whole; /* when it is an integer literal within int64 */
    float real;    /* else; infinite when float32 cannot hold it */
    const char *end;
} gp_number;

/** A number by JSON's grammar. @return false when there is none at `text`, which ends with a NUL */
bool gp_scan_number(const char *text, gp_number *ret_number);

/** What stands in the place of a tensor, for errors. */
typedef struct gp_json_place {
    const char *name;    /* "input", "input.data" */
    const char *pointer; /* "/input", "/input/data" */
} gp_json_place;

/** Numbers in nested arrays, row-major: int64 while every literal is an integer, else float32. */
typedef struct gp_json_numbers {
    int rank;
    int64_t dim[GP_MAX_RANK];
    size_t numel;
    void *data;    /* free() it; never NULL after success */
    bool integers; /* data is int64 */
    bool booleans; /* at least one was written as true or false */
} gp_json_numbers;

int gp_json_scan_numbers(gp_json_source *json, gp_json_place place, gp_json_numbers *ret_numbers);
/** From int64 to float32, in place. */
void gp_json_turn_to_floats(gp_json_numbers *numbers);

/** A tensor in any of its JSON forms. The caller frees ret_tensor->memory. */
struct gp_json_tensor;
int gp_json_scan_tensor(gp_json_source *json, gp_json_place place, struct gp_json_tensor *ret_tensor);

#endif
