/* output.h -- rows of text as an aligned table or as CSV, and things that the daemon describes as what -o
 * says. */
#ifndef GRADD_CTL_OUTPUT_H
#define GRADD_CTL_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "options.h"

/** @param cells (rows, columns), borrowed; the first row is the heading */
void ctl_print_table(FILE *out, const char *const *cells, size_t rows, size_t columns);
void ctl_print_csv(FILE *out, const char *const *cells, size_t rows, size_t columns);

/** A table that grows cell by cell. Zero-initialise, but for the columns. */
typedef struct ctl_table {
    size_t columns;
    char **cells; /* count of them, row by row; the first row is the heading */
    size_t count, capacity;
    bool failed; /* no memory */
} ctl_table;

void ctl_table_cell(ctl_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** The heading: words with spaces between. */
void ctl_table_heading(ctl_table *table, const char *words);
/** Print it (a table's heading in capitals) and release it. @return exit status */
int ctl_table_print(ctl_table *table, ctl_output output);

/** Structs of libgradd's with a document each. */
typedef struct ctl_listing {
    const void *items;
    size_t count, size; /* of one */
    size_t json;        /* where its `char *json` is */
    const char *heading;
    void (*row)(ctl_table *table, const void *item);
    void (*name)(const void *item); /* print it, for -o name */
} ctl_listing;

/** @param list false: there is one, and its JSON is not in brackets. @return exit status */
int ctl_print_listing(const ctl_listing *listing, ctl_output output, bool list);

#endif
