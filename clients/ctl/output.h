/* output.h -- rows of text as an aligned table or as CSV. */
#ifndef GRADD_CTL_OUTPUT_H
#define GRADD_CTL_OUTPUT_H

#include <stddef.h>
#include <stdio.h>

/** @param cells (rows, columns), borrowed; the first row is the heading */
void ctl_print_table(FILE *out, const char *const *cells, size_t rows, size_t columns);
void ctl_print_csv(FILE *out, const char *const *cells, size_t rows, size_t columns);

#endif
