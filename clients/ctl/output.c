/* output.c -- rows of text as an aligned table or as CSV. */
#include "output.h"

#include <string.h>

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
