/* plot.h -- a curve in the terminal, of braille characters: each has two columns of four dots. */
#ifndef GRADD_CTL_PLOT_H
#define GRADD_CTL_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct ctl_plot {
    const char *title;
    const double *x, *y; /* (count) points, x rising. Those that are not finite are left out */
    size_t count;
    int columns, rows; /* of the terminal that it takes, axes included */
} ctl_plot;

/** Draw it with its axes. @return false: there is no finite point */
bool ctl_plot_draw(FILE *out, const ctl_plot *plot);

#endif
