/* output.c -- rows of text as an aligned table or as CSV. */
#include "output.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

void ctl_print_table(FILE *out, const char *const *cells, size_t rows, size_t columns) {
    for (size_t row = 0; row < rows; row++) {
        for (size_t column = 0; column < columns; column++) {
            const char *text = cells[row * columns + column];
            int width = 0;
            for (size_t i = 0; i < rows && column + 1 < columns; i++) {
                int length = (int)strnlen(cells[i * columns + column], 64);
                width = length > width ? length : width;
            }
            fprintf(out, "%-*s%s", width, text, column + 1 < columns ? "  " : "\n");
        }
    }
}

/* RFC 4180's quoting. */
static void print_csv_cell(FILE *out, const char *text) {
    if (!strpbrk(text, "\",\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        fputs(*text == '"' ? "\"\"" : (const char[]){*text, '\0'}, out);
    }
    fputc('"', out);
}

void ctl_print_csv(FILE *out, const char *const *cells, size_t rows, size_t columns) {
    for (size_t i = 0; i < rows * columns; i++) {
        print_csv_cell(out, cells[i]);
        fputc((i + 1) % columns ? ',' : '\n', out);
    }
}

void ctl_table_cell(ctl_table *t, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (t->count == t->capacity) {
        const size_t capacity = t->capacity ? 2 * t->capacity : 64;
        char **cells = realloc(t->cells, capacity * sizeof *cells);
        if (!cells) {
            t->failed = true;
            return;
        }
        t->cells = cells;
        t->capacity = capacity;
    }
    char *cell = strdup(text);
    if (cell) {
        t->cells[t->count++] = cell;
    } else {
        t->failed = true;
    }
}

void ctl_table_heading(ctl_table *t, const char *words) {
    for (const char *at = words; *at; at += strcspn(at, " "), at += *at == ' ') {
        ctl_table_cell(t, "%.*s", (int)strcspn(at, " "), at);
        t->columns++;
    }
}

int ctl_table_print(ctl_table *t, ctl_output output) {
    for (size_t i = 0; i < t->columns && i < t->count && output != CTL_CSV; i++) {
        for (char *c = t->cells[i]; *c; c++) {
            *c = (char)toupper((unsigned char)*c);
        }
    }
    if (!t->failed) {
        (output == CTL_CSV ? ctl_print_csv : ctl_print_table)(stdout, (const char *const *)t->cells,
                                                              t->count / t->columns, t->columns);
    }
    for (size_t i = 0; i < t->count; i++) {
        free(t->cells[i]);
    }
    free(t->cells);
    return t->failed ? ctl_error("out of memory") : CTL_OK;
}

int ctl_print_listing(const ctl_listing *l, ctl_output output, bool list) {
    ctl_table table = {0};
    if (output == CTL_TABLE || output == CTL_CSV) {
        ctl_table_heading(&table, l->heading);
    }
    for (size_t i = 0; i < l->count; i++) {
        const char *item = (const char *)l->items + i * l->size;
        if (output == CTL_JSON) {
            printf("%s%s", list ? i ? ",\n" : "[" : "", *(char *const *)(item + l->json));
        } else if (output == CTL_NAME) {
            l->name(item);
        } else {
            l->row(&table, item);
        }
    }
    if (output == CTL_JSON) {
        puts(list ? l->count ? "]" : "[]" : "");
    }
    return table.columns ? ctl_table_print(&table, output) : CTL_OK;
}
