/* csv.c -- numbers separated by commas, one sample a line. Source: RFC 4180, without what only text needs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json_parse.h"
#include "proto/gradd_proto.h"

/* What stands between two commas, without the spaces around it. */
typedef struct field {
    char text[GP_CSV_TOKEN]; /* the first bytes of it */
    size_t length;           /* of all of it */
    int end;                 /* what ended it: ',', '\n' or EOF */
} field;

bool gp_csv_detect(const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] == 0x7f || (bytes[i] < 0x20 && !memchr("\t\r\n", bytes[i], 3)))
            return false;
    return size > 0 && *bytes != '{' && *bytes != '[';
}

/* ---- bytes and fields ---------------------------------------------------------------------------- */

static int refill(gp_csv *csv, gp_error *error) {
    csv->at = csv->size = 0;
    if (!csv->ended && csv->read(csv->argument, csv->buffer, sizeof csv->buffer, &csv->size, error) < 0)
        return -1;
    csv->ended = csv->size == 0;
    return 0;
}

/* The next field. Within quotes, which only a header has, a comma is part of it. */
static int take_field(gp_csv *csv, bool quotes, field *ret, gp_error *error) {
    size_t length = 0, trailing = 0;
    bool quoted = false;
    for (;;) {
        if (csv->at == csv->size && refill(csv, error) < 0)
            return -1;
        ret->end = csv->ended ? EOF : (unsigned char)csv->buffer[csv->at++];
        if (ret->end == EOF || (!quoted && (ret->end == ',' || ret->end == '\n')))
            break;
        const char c = (char)ret->end;
        const bool space = c == ' ' || c == '\t' || c == '\r';
        quoted ^= quotes && c == '"';
        if (space && length == 0)
            continue;
        trailing = space ? trailing + 1 : 0;
        if (length < sizeof ret->text - 1)
            ret->text[length] = c;
        length++;
    }
    ret->length = length - trailing;
    ret->text[ret->length < sizeof ret->text - 1 ? ret->length : sizeof ret->text - 1] = '\0';
    return 0;
}

/* ---- numbers ------------------------------------------------------------------------------------- */

/* What is no number in JSON but one here: nan, inf, ".5", "5.", "+1". */
static bool scan_other(const char *text, gp_number *ret) {
    const char *digits = text + (*text == '-' || *text == '+');
    char *end;
    const bool special = strcasecmp(digits, "nan") == 0 || strcasecmp(digits, "inf") == 0 ||
                         strcasecmp(digits, "infinity") == 0;
    if (!special && digits[strspn(digits, "0123456789.eE+-")] != '\0')
        return false; /* strtof also reads hexadecimal and NAN(...) */
    if (*text == '+' && *digits != '+' && *digits != '-' && gp_scan_number(digits, ret) && *ret->end == '\0')
        return true;
    ret->integer = false;
    ret->real = strtof(text, &end);
    ret->end = end;
    return end > text && *end == '\0';
}

/* Infinite when it is too large, and then *ret_fits is false. */
static bool scan_number(const field *f, gp_number *ret, bool *ret_fits) {
    if (f->length >= sizeof f->text || f->length == 0)
        return false;
    if (!(gp_scan_number(f->text, ret) && *ret->end == '\0') && !scan_other(f->text, ret))
        return false;
    *ret_fits = ret->integer || !isinf(ret->real) || strpbrk(f->text, "iI");
    return true;
}

static int fail_field(const gp_csv *csv, const field *f, const char *what, gp_error *error) {
    return gp_fail(error, GP_INVALID_VALUE, "", "CSV: line %lld, column %lld: \"%.40s\" is %s",
                   (long long)csv->line + 1, (long long)csv->column + 1, f->text, what);
}

static void turn_to_floats(gp_csv *csv) {
    for (size_t i = 0; i < csv->count; i++) { /* in place: a float is never past its integer */
        const float value = (float)csv->values.whole[i];
        csv->values.real[i] = value;
    }
    csv->real = true;
}

static int add_number(gp_csv *csv, const field *f, gp_error *error) {
    gp_number number;
    bool fits;
    if (!scan_number(f, &number, &fits))
        return fail_field(csv, f, "no number", error);
    if (!fits)
        return fail_field(csv, f, "more than float32 can hold", error);
    if (!number.integer && !csv->real)
        turn_to_floats(csv);
    if (csv->real)
        csv->values.real[csv->count++] = number.integer ? (float)number.whole : number.real;
    else
        csv->values.whole[csv->count++] = number.whole;
    return 0;
}

/* ---- lines --------------------------------------------------------------------------------------- */

/* Without what some programs put before UTF-8. */
static void skip_mark(field *f) {
    if (strncmp(f->text, "\xef\xbb\xbf", 3) == 0) {
        memmove(f->text, f->text + 3, sizeof f->text - 3);
        f->length -= 3;
    }
}

/* The rest of the first line, whose first field is no number. */
static int skip_header(gp_csv *csv, field *f, gp_error *error) {
    for (csv->header_columns = 1; f->end == ','; csv->header_columns++)
        if (take_field(csv, true, f, error) < 0)
            return -1;
    csv->line = 1;
    return 0;
}

static int fail_ragged(const gp_csv *csv, int64_t has, bool more, gp_error *error) {
    return gp_fail(error, GP_INVALID_TENSOR, "", "CSV: line %lld has %s%lld numbers, but %s %lld",
                   (long long)csv->line + 1, more ? "more than " : "", (long long)has,
                   csv->rows ? "the lines before it have" : "the header names", (long long)csv->columns);
}

static int end_row(gp_csv *csv, gp_error *error) {
    if (csv->rows == 0 && csv->header_columns == 0)
        csv->columns = csv->column;
    if (csv->column != csv->columns)
        return fail_ragged(csv, csv->column, false, error);
    csv->rows++;
    csv->line++;
    csv->column = 0;
    return 0;
}

static int take_value(gp_csv *csv, const field *f, gp_error *error) {
    if (csv->column == 0 && csv->empty)
        return gp_fail(error, GP_INVALID_TENSOR, "", "CSV: line %lld is empty", (long long)csv->empty);
    if (csv->rows == 0 && csv->column == 0)
        csv->columns = csv->header_columns ? csv->header_columns : INT64_MAX;
    if (csv->column == csv->columns)
        return fail_ragged(csv, csv->columns, true, error);
    if (add_number(csv, f, error) < 0)
        return -1;
    csv->column++;
    return f->end == ',' ? 0 : end_row(csv, error);
}

int gp_csv_next(gp_csv *csv, gp_error *error) {
    csv->count = 0;
    while (csv->count < GP_CSV_BLOCK) {
        field f;
        const bool first = csv->line == 0 && csv->column == 0;
        if (take_field(csv, first, &f, error) < 0)
            return -1;
        gp_number number;
        bool fits;
        if (first)
            skip_mark(&f);
        if (csv->column == 0 && f.length == 0 && f.end != ',') { /* an empty line, or the end */
            if (f.end == EOF)
                break;
            csv->empty = csv->empty ? csv->empty : csv->line + 1;
            csv->line++;
        } else if (first && !csv->header_columns && !scan_number(&f, &number, &fits)) {
            if (skip_header(csv, &f, error) < 0)
                return -1;
        } else if (take_value(csv, &f, error) < 0) {
            return -1;
        }
    }
    if (csv->count == 0 && csv->rows == 0)
        return gp_fail(error, GP_INVALID_TENSOR, "", "CSV: there is no line of numbers");
    return 0;
}
