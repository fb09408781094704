/* plot.c -- a curve in the terminal, of braille characters. */
#include "plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LABEL = 10, /* columns left of the axis */
    MIN_COLUMNS = 20,
    MAX_COLUMNS = 500,
    MIN_ROWS = 4,
    MAX_ROWS = 200,
};

typedef struct canvas {
    int width, height;     /* in dots: 2 and 4 for each character */
    unsigned char *cells;  /* (height / 4, width / 2) dots, by the bits of U+2800 */
    double x0, x1, y0, y1; /* what its edges stand for */
} canvas;

static void set_dot(canvas *c, int x, int y) {
    static const unsigned char bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    if (x >= 0 && x < c->width && y >= 0 && y < c->height) {
        c->cells[y / 4 * (c->width / 2) + x / 2] |= bits[y % 4][x % 2];
    }
}

/* The dot that a value falls on. */
static int dot(double value, double low, double high, int size) {
    /* halves, as the whole range may be more than a double can be */
    return high > low ? (int)lround((value / 2 - low / 2) / (high / 2 - low / 2) * (size - 1)) : size / 2;
}

/* From one point to the next: a dot in each column, or in each row where it is steep. */
static void draw_line(canvas *c, int xa, int ya, int xb, int yb) {
    const int dx = abs(xb - xa), dy = abs(yb - ya), steps = dx > dy ? dx : dy;
    for (int i = 0; i <= steps; i++) {
        const double part = steps ? (double)i / steps : 0;
        set_dot(c, xa + (int)lround(part * (xb - xa)), ya + (int)lround(part * (yb - ya)));
    }
}

/* The edges: the least and greatest of all points. @return how many are finite */
static size_t find_range(canvas *c, const ctl_plot *p) {
    size_t found = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (!isfinite(p->x[i]) || !isfinite(p->y[i])) {
            continue;
        }
        c->x0 = found ? fmin(c->x0, p->x[i]) : p->x[i];
        c->x1 = found ? fmax(c->x1, p->x[i]) : p->x[i];
        c->y0 = found ? fmin(c->y0, p->y[i]) : p->y[i];
        c->y1 = found ? fmax(c->y1, p->y[i]) : p->y[i];
        found++;
    }
    return found;
}

/* A gap where a point is not finite. */
static void draw_curve(canvas *c, const ctl_plot *p) {
    bool pen = false;
    int last_x = 0, last_y = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (!isfinite(p->x[i]) || !isfinite(p->y[i])) {
            pen = false;
            continue;
        }
        const int x = dot(p->x[i], c->x0, c->x1, c->width);
        const int y = c->height - 1 - dot(p->y[i], c->y0, c->y1, c->height);
        draw_line(c, pen ? last_x : x, pen ? last_y : y, x, y);
        last_x = x;
        last_y = y;
        pen = true;
    }
}

static void print_cell(FILE *out, unsigned char dots) {
    if (dots) { /* U+2800 + dots as UTF-8 */
        fprintf(out, "\xe2%c%c", 0xa0 + (dots >> 6), 0x80 + (dots & 63));
    } else {
        fputc(' ', out);
    }
}

static void print_canvas(FILE *out, const canvas *c) {
    const int rows = c->height / 4, columns = c->width / 2;
    for (int row = 0; row < rows; row++) {
        const bool flat = c->y0 == c->y1; /* one label is enough, where the line is */
        const bool labelled = flat ? row == (c->height - 1 - c->height / 2) / 4
                                   : row == 0 || row == rows - 1 || row == rows / 2;
        const double part = (double)row / (rows - 1),
                     value = flat ? c->y0 : c->y1 * (1 - part) + c->y0 * part;
        if (labelled) {
            fprintf(out, "%*.4g ┤", LABEL, value);
        } else {
            fprintf(out, "%*s │", LABEL, "");
        }
        int used = columns; /* no spaces at the end */
        while (used && !c->cells[row * columns + used - 1]) {
            used--;
        }
        for (int i = 0; i < used; i++) {
            print_cell(out, c->cells[row * columns + i]);
        }
        fputc('\n', out);
    }
}

static void print_x_axis(FILE *out, const canvas *c) {
    char from[32], to[32];
    const int columns = c->width / 2;
    snprintf(from, sizeof from, "%.6g", c->x0);
    snprintf(to, sizeof to, "%.6g", c->x1);
    fprintf(out, "%*s └", LABEL, "");
    for (int i = 0; i < columns; i++) {
        fputs("─", out);
    }
    fprintf(out, "\n%*s  %s%*s\n", LABEL, "", from, columns - (int)strlen(from), to);
}

static int within(int value, int least, int most) {
    return value < least ? least : value > most ? most : value;
}

bool ctl_plot_draw(FILE *out, const ctl_plot *p) {
    const int columns = within(p->columns, MIN_COLUMNS, MAX_COLUMNS) - LABEL - 2;
    const int rows = within(p->rows, MIN_ROWS + 3, MAX_ROWS) - 3; /* title and axis */
    canvas c = {.width = 2 * columns, .height = 4 * rows};
    c.cells = calloc((size_t)columns, (size_t)rows);
    const bool any = c.cells && find_range(&c, p);
    if (any) {
        draw_curve(&c, p);
        fprintf(out, "%*s  %s\n", LABEL, "", p->title);
        print_canvas(out, &c);
        print_x_axis(out, &c);
    }
    free(c.cells);
    return any;
}
