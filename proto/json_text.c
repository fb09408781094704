/* json_text.c -- writing: a growing text, and numbers, strings and tensors as JSON. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_scan.h"
#include "proto/gradd_proto.h"

/* ---- text -------------------------------------------------------------------------------------- */

enum { START = 256 /* bytes of the first buffer */ };

/* Room for `size` more bytes and a NUL. @return where they go, or NULL and text->failed */
static char *reserve(gp_text *text, size_t size) {
    if (text->failed)
        return NULL;
    if (size < text->capacity - text->size)
        return text->data + text->size;
    if (size >= GP_MAX_TEXT - text->size) {
        text->failed = true;
        return NULL;
    }
    size_t capacity = text->capacity ? text->capacity : START;
    while (capacity - text->size <= size)
        capacity *= 2; /* at most GP_MAX_TEXT, a power of two */
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return NULL;
    }
    text->data = data;
    text->capacity = capacity;
    return data + text->size;
}

/* `end` is one past the last byte written to what reserve() gave. */
static void commit(gp_text *text, char *end) {
    *end = '\0';
    text->size = (size_t)(end - text->data);
}

void gp_text_append(gp_text *text, const char *bytes, size_t size) {
    char *out = reserve(text, size);
    if (!out)
        return;
    if (size > 0)
        memcpy(out, bytes, size);
    commit(text, out + size);
}

void gp_text_add(gp_text *text, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const size_t room = text->failed ? 0 : text->capacity - text->size;
    const int length = vsnprintf(room ? text->data + text->size : NULL, room, format, arguments);
    char *out = length < 0 ? NULL : reserve(text, (size_t)length);
    if (out) {
        if ((size_t)length >= room)
            vsnprintf(out, (size_t)length + 1, format, again);
        text->size += (size_t)length;
    } else if (room) {
        text->data[text->size] = '\0'; /* as it was */
    }
    text->failed |= length < 0;
    va_end(again);
    va_end(arguments);
}

void gp_text_repeat(gp_text *text, size_t begin, size_t size) {
    char *out = reserve(text, size);
    if (!out || !size)
        return;
    memcpy(out, text->data + begin, size);
    commit(text, out + size);
}

void gp_text_release(gp_text *text) {
    free(text->data);
    *text = (gp_text){.data = NULL};
}

/* ---- numbers ----------------------------------------------------------------------------------- */

enum { LONGEST = 24, DIGITS = 9 }; /* characters of any number; significant digits of a float32 */

static char *write_text(char *out, const char *text) {
    const size_t length = strlen(text);
    memcpy(out, text, length);
    return out + length;
}

/* `count` digits with leading zeros. */
static char *write_digits(char *out, uint64_t value, int count) {
    for (int i = count; i-- > 0; value /= 10)
        out[i] = (char)('0' + value % 10);
    return out + count;
}

static char *write_int(char *out, int64_t value) {
    if (value < 0)
        *out++ = '-';
    return gp_write_decimal(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

/* What JSON has no number for, as proto3's JSON mapping writes it; NULL for a finite value. */
static const char *nonfinite(double value) {
    return isnan(value) ? "\"NaN\"" : isinf(value) ? value > 0 ? "\"Infinity\"" : "\"-Infinity\"" : NULL;
}

/*
 * Split a finite value > 0 into `count` significant digits, 9 at most, and its decimal exponent: value =
 * d.dddddddd * 10^exponent. Scaling in double is off by a few 1e-16, and 9 digits are within 5e-9 (relative);
 * a float32 is told from its neighbours within 3e-8. So what is written with 9 reads back to the same
 * float32, without exact arithmetic. Else *ret_close says whether rounding was so close a thing that they may
 * be wrong.
 */
static uint64_t split(double value, int count, int *ret_exponent, bool *ret_close) {
    enum { LOWEST = -38 };
    static const double power[] = {
        1e-38, 1e-37, 1e-36, 1e-35, 1e-34, 1e-33, 1e-32, 1e-31, 1e-30, 1e-29, 1e-28, 1e-27, 1e-26, 1e-25,
        1e-24, 1e-23, 1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11,
        1e-10, 1e-9,  1e-8,  1e-7,  1e-6,  1e-5,  1e-4,  1e-3,  1e-2,  1e-1,  1e0,   1e1,   1e2,   1e3,
        1e4,   1e5,   1e6,   1e7,   1e8,   1e9,   1e10,  1e11,  1e12,  1e13,  1e14,  1e15,  1e16,  1e17,
        1e18,  1e19,  1e20,  1e21,  1e22,  1e23,  1e24,  1e25,  1e26,  1e27,  1e28,  1e29,  1e30,  1e31,
        1e32,  1e33,  1e34,  1e35,  1e36,  1e37,  1e38,  1e39,  1e40,  1e41,  1e42,  1e43,  1e44,  1e45,
        1e46,  1e47,  1e48,  1e49,  1e50,  1e51,  1e52,  1e53};
    const uint64_t low = (uint64_t)power[count - 1 - LOWEST], high = 10 * low;
    int binary;
    frexp(value, &binary);
    int exponent = (int)floor((binary - 1) * 0.30102999566398120); /* right, or one too small */
    double scaled = value * power[count - 1 - exponent - LOWEST];
    uint64_t digits = (uint64_t)llrint(scaled);
    if (digits >= high) {
        scaled = value * power[count - 1 - ++exponent - LOWEST];
        digits = (uint64_t)llrint(scaled);
    }
    *ret_exponent = exponent;
    *ret_close = fabs(fabs(scaled - (double)digits) - 0.5) < 1e-3 || scaled < (double)low || digits >= high;
    return digits < low ? low : digits; /* 999999999.6 became 10^9, and then a hair under 10^8 */
}

/* What split() gave, as printf's %.*g. @return one past the end */
static char *write_split(char *out, uint64_t digits, int count, int exponent) {
    const bool scientific = exponent < -4 || exponent >= count;
    for (; digits % 10 == 0; digits /= 10)
        count--;
    if (scientific) {
        char text[DIGITS] = "";
        write_digits(text, digits, count);
        *out++ = text[0];
        if (count > 1) {
            *out++ = '.';
            memcpy(out, text + 1, (size_t)count - 1);
            out += count - 1;
        }
        *out++ = 'e';
        *out++ = exponent < 0 ? '-' : '+';
        return write_digits(out, (uint64_t)(exponent < 0 ? -exponent : exponent), 2);
    }
    if (exponent < 0) {
        out = write_text(out, "0.");
        memset(out, '0', (size_t)-exponent - 1);
        return write_digits(out - exponent - 1, digits, count);
    }
    if (count <= exponent + 1) { /* an integer */
        out = write_digits(out, digits, count);
        memset(out, '0', (size_t)(exponent + 1 - count));
        return out + (exponent + 1 - count);
    }
    char text[DIGITS];
    write_digits(text, digits, count);
    memcpy(out, text, (size_t)exponent + 1);
    out[exponent + 1] = '.';
    memcpy(out + exponent + 2, text + exponent + 1, (size_t)(count - exponent - 1));
    return out + count + 1;
}

/* As printf's %.17g, which every double comes back from. */
static char *write_double(char *out, double value) {
    char text[LONGEST + 1];
    const char *special = nonfinite(value);
    if (!special)
        snprintf(text, sizeof text, value == 0 && signbit(value) ? "-0.0" : "%.17g", value);
    return write_text(out, special ? special : text);
}

/* As printf's %.9g, but -0 is -0.0 (Python would read -0 as the integer 0). @return one past the end */
static char *write_float(char *out, float value) {
    int exponent;
    bool close;
    const char *special = nonfinite((double)value);
    if (special)
        return write_text(out, special);
    if (value == 0)
        return write_text(out, signbit(value) ? "-0.0" : "0");
    if (value < 0)
        *out++ = '-';
    const uint64_t digits = split(fabs((double)value), DIGITS, &exponent, &close);
    return write_split(out, digits, DIGITS, exponent);
}

/* Is a double not 0, and of a size that split() takes? */
static bool is_medium(double value) {
    return fabs(value) >= 1e-37 && fabs(value) <= 1e38;
}

void gp_json_write_number(gp_text *text, double value, int significant_digits) {
    const char *special = nonfinite(value);
    int exponent;
    bool close = true;
    const bool few = significant_digits > 0 && significant_digits <= DIGITS;
    const uint64_t digits =
        few && is_medium(value) ? split(fabs(value), significant_digits, &exponent, &close) : 0;
    if (special) {
        gp_text_add(text, "%s", special);
    } else if (close) { /* to a tie between two roundings, or it was not split */
        gp_text_add(text, "%.*g", significant_digits, value);
    } else {
        char *out = reserve(text, LONGEST);
        if (!out)
            return;
        *out = '-';
        commit(text, write_split(out + (value < 0), digits, significant_digits, exponent));
    }
}

void gp_json_write_integer(gp_text *text, int64_t value) {
    char *out = reserve(text, LONGEST);
    if (out)
        commit(text, write_int(out, value));
}

/* Do nine digits read back to this very value? digits and the power are exact in double, so that their
 * product or quotient is rounded once, as a reader's is. */
static bool nine_digits_do(double value, uint64_t digits, int exponent) {
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const int scale = exponent - (DIGITS - 1);
    return scale >= 0 ? scale <= 22 && (double)digits * power[scale] == value
                      : scale >= -22 && (double)digits / power[-scale] == value;
}

void gp_json_write_double(gp_text *text, double value) {
    int exponent;
    bool close, nine = nonfinite(value) || value == 0;
    if (is_medium(value) && !nine) {
        const uint64_t digits = split(fabs(value), DIGITS, &exponent, &close);
        nine = nine_digits_do(fabs(value), digits, exponent);
    }
    if (nine) {
        gp_json_write_number(text, value, DIGITS);
    } else {
        char exact[32];
        snprintf(exact, sizeof exact, "%.15g", value);
        if (strtod(exact, NULL) != value)
            snprintf(exact, sizeof exact, "%.17g", value);
        gp_text_append(text, exact, strlen(exact));
    }
}

json_t *gp_json_number(double value) {
    const char *special = nonfinite(value);
    return special ? json_stringn(special + 1, strlen(special) - 2) : json_real(value);
}

/* ---- strings ----------------------------------------------------------------------------------- */

void gp_json_write_string(gp_text *text, const char *string) {
    size_t left = strlen(string);
    gp_text_append(text, "\"", 1);
    while (left > 0) {
        const size_t length = gp_utf8_length(string, left);
        const unsigned char c = (unsigned char)*string;
        if (length == 0)
            gp_text_append(text, "\xef\xbf\xbd", 3); /* U+FFFD */
        else if (c == '"' || c == '\\')
            gp_text_append(text, (const char[]){'\\', *string}, 2);
        else if (c < 0x20)
            gp_text_add(text, "\\u%04x", c);
        else
            gp_text_append(text, string, length);
        string += length ? length : 1;
        left -= length ? length : 1;
    }
    gp_text_append(text, "\"", 1);
}

/* ---- tensors ----------------------------------------------------------------------------------- */

/* The last axis of one row: count elements with commas between them. */
static void write_row(gp_text *text, const gd_tensor *tensor, int64_t first, int64_t count) {
    enum { BLOCK = 256 }; /* elements for which room is made at a time */
    for (int64_t i = 0; i < count;) {
        const int64_t end = count - i < BLOCK ? count : i + BLOCK;
        char *out = reserve(text, BLOCK * (LONGEST + 1));
        if (!out)
            return;
        for (; i < end; i++) {
            if (i > 0)
                *out++ = ',';
            switch (tensor->dtype) {
            case GD_FLOAT32:
                out = write_float(out, ((const float *)tensor->data)[first + i]);
                break;
            case GD_INT64:
                out = write_int(out, ((const int64_t *)tensor->data)[first + i]);
                break;
            case GD_INT32:
                out = write_int(out, ((const int32_t *)tensor->data)[first + i]);
                break;
            case GD_UINT8:
                out = write_int(out, ((const uint8_t *)tensor->data)[first + i]);
                break;
            case GD_FLOAT64:
                out = write_double(out, ((const double *)tensor->data)[first + i]);
                break;
            }
        }
        commit(text, out);
    }
}

/* How many of the lists around row `row` begin (or end) with it, the row's own list included. */
static int lists_at(const gd_shape *shape, int last, int64_t row) {
    int lists = 1;
    for (int axis = last; axis-- > 0 && row % shape->dim[axis] == 0; row /= shape->dim[axis])
        lists++;
    return lists;
}

static void write_nested(gp_text *text, const gd_tensor *tensor) {
    static const char open[] = "[[[[[[[[", close[] = "]]]]]]]]";
    const gd_shape *shape = &tensor->shape;
    int last = 0; /* the axis that rows lie along: the last one, or the first of length 0 */
    int64_t rows = 1;
    if (shape->rank == 0) {
        write_row(text, tensor, 0, 1);
        return;
    }
    while (last < shape->rank - 1 && shape->dim[last] > 0)
        rows *= shape->dim[last++];
    for (int64_t row = 0; row < rows && !text->failed; row++) {
        if (row > 0)
            gp_text_append(text, ",", 1);
        gp_text_append(text, open, (size_t)lists_at(shape, last, row));
        write_row(text, tensor, row * shape->dim[last], shape->dim[last]);
        gp_text_append(text, close, (size_t)lists_at(shape, last, row + 1));
    }
}

void gp_json_write_tensor(gp_text *text, const gd_tensor *tensor) {
    gp_text_add(text, "{\"dtype\": \"%s\", \"shape\": [", gd_dtype_name(tensor->dtype));
    for (int i = 0; i < tensor->shape.rank; i++)
        gp_text_add(text, "%s%lld", i ? ", " : "", (long long)tensor->shape.dim[i]);
    gp_text_add(text, "], \"data\": ");
    write_nested(text, tensor);
    gp_text_append(text, "}", 1);
}
