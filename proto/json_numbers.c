/* json_numbers.c -- nested arrays of numbers, scanned in one pass straight into a tensor's memory. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_parse.h"

int gp_json_fail_at(gp_json_source *json, const char *at, const char *format, ...) {
    char text[256];
    size_t line = 1;
    const char *start = json->begin;
    for (const char *c = json->begin; c < at; c++)
        if (*c == '\n') {
            line++;
            start = c + 1;
        }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return gp_fail(json->error, GP_INVALID_JSON, "", "line %zu, column %zu: %s", line,
                   (size_t)(at - start) + 1, text);
}

/* ---- one number -------------------------------------------------------------------------------- */

static bool is_digit(char c) {
    return (unsigned char)(c - '0') < 10;
}

/*
 * The float32 nearest to digits * 10^exponent. Dividing or multiplying in double is off by less than two
 * units in double's last place, which rounds to the same float32 as the exact value does unless a midpoint
 * between two floats is that near: then (and for what double cannot scale in one operation) strtof decides.
 */
static float nearest_float(uint64_t digits, int exponent, bool exact, const char *text) {
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const int largest = (int)(sizeof power / sizeof power[0]) - 1;
    if (!exact || exponent < -largest || exponent > largest)
        return strtof(text, NULL);
    const double scaled = exponent < 0 ? (double)digits / power[-exponent] : (double)digits * power[exponent];
    uint64_t bits;
    memcpy(&bits, &scaled, sizeof bits);
    const int64_t half = 1 << 28,
                  from_half = (int64_t)(bits & 0x1fffffff) - half; /* of the 29 bits that go */
    if ((from_half > -4 && from_half < 4) || scaled >= 0x1p127)
        return strtof(text, NULL);
    return (float)scaled;
}

bool gp_scan_number(const char *text, gp_number *ret) {
    const bool negative = *text == '-';
    const char *at = text + negative, *first = at;
    uint64_t digits = 0; /* right while there are at most 19 */
    int exponent = 0;
    bool integer = true;

    for (; is_digit(*at); at++)
        digits = 10 * digits + (uint64_t)(*at - '0');
    ptrdiff_t count = at - first;
    if (count == 0 || (*first == '0' && count > 1))
        return false;
    if (*at == '.') {
        const char *point = at++;
        for (; is_digit(*at); at++)
            digits = 10 * digits + (uint64_t)(*at - '0');
        const ptrdiff_t decimals = at - point - 1;
        if (decimals == 0)
            return false;
        count += decimals;
        exponent = decimals < 1000 ? -(int)decimals : -1000; /* beyond the table in any case */
        integer = false;
    }
    if (*at == 'e' || *at == 'E') {
        const char *sign = ++at;
        int given = 0;
        at += *at == '-' || *at == '+';
        if (!is_digit(*at))
            return false;
        for (; is_digit(*at); at++)
            given = given < 10000 ? 10 * given + (*at - '0') : given;
        exponent += *sign == '-' ? -given : given;
        integer = false;
    }
    ret->end = at;
    /* -0 has a sign only as a float. */
    ret->integer = integer && count <= 19 && digits <= INT64_MAX && !(negative && digits == 0);
    if (ret->integer) {
        ret->whole = negative ? -(int64_t)digits : (int64_t)digits;
    } else {
        const float magnitude = nearest_float(digits, exponent, count <= 19, first);
        ret->real = negative ? -magnitude : magnitude;
    }
    return true;
}

/* ---- nested arrays ----------------------------------------------------------------------------- */

/* Numbers on their way in. */
typedef struct builder {
    gp_json_source *json;
    gp_json_place place;
    gp_json_numbers numbers;    /* rank -1 until the first number or empty list, dim -1 until a list ends */
    int depth;                  /* lists that are open */
    int64_t index[GP_MAX_RANK]; /* of the next element in each */
    size_t capacity;            /* bytes */
    size_t most;                /* elements that the rest of the text can hold */
} builder;

enum { START = 1 << 12 /* bytes of the first buffer */ };

static bool reserve(builder *b, size_t size) {
    if ((b->numbers.numel + 1) * size <= b->capacity)
        return true;
    const size_t most = b->most * sizeof(int64_t), doubled = b->capacity ? 2 * b->capacity : START;
    const size_t capacity = doubled < most ? doubled : most;
    void *data = realloc(b->numbers.data, capacity);
    if (!data)
        return gp_fail(b->json->error, GP_OUT_OF_MEMORY, b->place.pointer, "no memory for %s",
                       b->place.name) == 0;
    b->numbers.data = data;
    b->capacity = capacity;
    return true;
}

void gp_json_turn_to_floats(gp_json_numbers *numbers) {
    int64_t whole;
    for (size_t i = 0; i < numbers->numel; i++) {
        memcpy(&whole, (char *)numbers->data + i * sizeof whole, sizeof whole);
        const float real = (float)whole;
        memcpy((char *)numbers->data + i * sizeof real, &real, sizeof real);
    }
    numbers->integers = false;
}

static bool push(builder *b, const gp_number *value) {
    gp_json_numbers *numbers = &b->numbers;
    if (numbers->integers && !value->integer)
        gp_json_turn_to_floats(numbers);
    if (!reserve(b, numbers->integers ? sizeof(int64_t) : sizeof(float)))
        return false;
    if (numbers->integers)
        ((int64_t *)numbers->data)[numbers->numel++] = value->whole;
    else
        ((float *)numbers->data)[numbers->numel++] = value->integer ? (float)value->whole : value->real;
    return true;
}

/* Refuse the element at index[0 ... depth): "input[2][0] is 1e39, ..." */
static int fail_element(builder *b, gp_problem problem, int depth, const char *what) {
    char name[256], pointer[192];
    size_t used = (size_t)snprintf(name, sizeof name, "%s", b->place.name);
    snprintf(pointer, sizeof pointer, "%s", b->place.pointer);
    for (int i = 0; i < depth; i++) {
        char index[24];
        snprintf(index, sizeof index, "%lld", (long long)b->index[i]);
        if (used < sizeof name)
            used += (size_t)snprintf(name + used, sizeof name - used, "[%s]", index);
        gp_pointer_add(pointer, sizeof pointer, index);
    }
    return gp_fail(b->json->error, problem, pointer, "%s %s", name, what);
}

static bool scan_word(gp_scan *scan, const char *word) {
    const size_t length = strlen(word);
    if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

/* What may stand in a number's place. */
static bool scan_special(builder *b, gp_number *ret) {
    static const struct {
        const char *text;
        gp_number value;
        bool boolean;
    } specials[] = {
        {"\"NaN\"", {.real = NAN}, false},
        {"\"Infinity\"", {.real = INFINITY}, false},
        {"\"-Infinity\"", {.real = -INFINITY}, false},
        {"true", {.integer = true, .whole = 1}, true},
        {"false", {.integer = true, .whole = 0}, true},
    };
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++)
        if (scan_word(&b->json->scan, specials[i].text)) {
            *ret = specials[i].value;
            b->numbers.booleans |= specials[i].boolean;
            return true;
        }
    return false;
}

static int scan_element(builder *b) {
    gp_scan *scan = &b->json->scan;
    const char *at = scan->at;
    gp_number value = {.integer = false};
    if (b->numbers.rank < 0)
        b->numbers.rank = b->depth;
    if (b->depth != b->numbers.rank)
        return fail_element(b, GP_INVALID_TENSOR, b->depth, "is not nested as deep as what stands before it");
    if (gp_scan_number(at, &value)) {
        scan->at = value.end;
        if (!value.integer && isinf(value.real)) {
            char what[80];
            snprintf(what, sizeof what, "is %.*s, which float32 cannot hold",
                     (int)(value.end - at < 32 ? value.end - at : 32), at);
            return fail_element(b, GP_INVALID_VALUE, b->depth, what);
        }
    } else if (!scan_special(b, &value)) {
        return gp_json_fail_at(
            b->json, at,
            "a number is expected in %s (what is not finite is written \"NaN\", \"Infinity\" or "
            "\"-Infinity\", quoted)",
            b->place.name);
    }
    return push(b, &value) ? 0 : -1;
}

/* Take '['. */
static int open_list(builder *b) {
    if (b->depth == b->numbers.rank)
        return fail_element(b, GP_INVALID_TENSOR, b->depth, "is nested deeper than what stands before it");
    if (b->depth == GP_MAX_RANK)
        return gp_fail(b->json->error, GP_LIMIT_EXCEEDED, b->place.pointer, "%s has more than %d axes",
                       b->place.name, GP_MAX_RANK);
    b->json->scan.at++;
    b->index[b->depth++] = 0;
    return 0;
}

/* After ']': every list of an axis is as long as the first. */
static int close_list(builder *b) {
    const int axis = --b->depth;
    int64_t *dim = &b->numbers.dim[axis];
    if (*dim < 0)
        *dim = b->index[axis];
    if (*dim != b->index[axis]) {
        char what[128];
        snprintf(what, sizeof what, "has %lld elements, but the lists before it have %lld",
                 (long long)b->index[axis], (long long)*dim);
        return fail_element(b, GP_INVALID_TENSOR, axis, what);
    }
    return 0;
}

/* After an element or '[': the ends of lists, up to the next comma or the end of the outermost list. */
static int scan_closes(builder *b) {
    gp_scan *scan = &b->json->scan;
    while (b->depth > 0 && !gp_scan_take(scan, ',')) {
        if (!gp_scan_take(scan, ']'))
            return gp_json_fail_at(b->json, scan->at, "',' or ']' is expected in %s", b->place.name);
        if (close_list(b) < 0)
            return -1;
        if (b->depth > 0)
            b->index[b->depth - 1]++;
    }
    return 0;
}

static int scan_all(builder *b) {
    gp_scan *scan = &b->json->scan;
    do {
        if (gp_scan_peek(scan) != '[') {
            if (scan_element(b) < 0)
                return -1;
            if (b->depth > 0)
                b->index[b->depth - 1]++;
        } else {
            if (open_list(b) < 0)
                return -1;
            if (gp_scan_peek(scan) != ']')
                continue;
            if (b->numbers.rank < 0) /* an empty list: the last axis has no elements */
                b->numbers.rank = b->depth;
        }
        if (scan_closes(b) < 0)
            return -1;
    } while (b->depth > 0);
    return 0;
}

int gp_json_scan_numbers(gp_json_source *json, gp_json_place place, gp_json_numbers *ret_numbers) {
    builder b = {.json = json, .place = place, .numbers = {.rank = -1, .integers = true}};
    for (int i = 0; i < GP_MAX_RANK; i++)
        b.numbers.dim[i] = -1;
    b.most = (size_t)(json->scan.end - json->scan.at) / 2 + 1; /* an element takes two bytes at least */
    if (!reserve(&b, sizeof(int64_t)) || scan_all(&b) < 0) {
        free(b.numbers.data);
        return -1;
    }
    *ret_numbers = b.numbers;
    return 0;
}
