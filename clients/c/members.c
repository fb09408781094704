/* members.c -- the members of a reply's object, read straight off its text: what a step answers needs neither
 * a tree nor memory. Known here are objects of whole numbers, doubles, words, plain strings and objects. For
 * everything else, also for what is no JSON, jansson is asked: what both know, they read alike. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

enum { OUTERMOST = -1 /* the object that the text is */ };

typedef struct reader {
    const char *at; /* the next byte; there is a NUL at the end */
    gradd_members *members;
} reader;

static bool read_object(reader *r, int index);

static void skip_space(reader *r) {
    const char *at = r->at;
    while (*at <= ' ' && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) {
        at++;
    }
    r->at = at;
}

/* Take a byte if it comes next, after spaces. */
static bool take(reader *r, char byte) {
    skip_space(r);
    if (*r->at != byte) {
        return false;
    }
    r->at++;
    return true;
}

static bool take_word(reader *r, const char *word) {
    const size_t length = strlen(word);
    if (strncmp(r->at, word, length) != 0) {
        return false;
    }
    r->at += length;
    return true;
}

/* The rest of a string, behind its first quote: printable ASCII without escapes. */
static bool read_text(reader *r, const char **ret_text, size_t *ret_size) {
    const char *begin = r->at, *end = begin;
    while (*end >= ' ' && *end <= '~' && *end != '"' && *end != '\\') {
        end++;
    }
    *ret_text = begin;
    *ret_size = (size_t)(end - begin);
    r->at = end + (*end == '"');
    return *end == '"';
}

/* Digits, behind those that *value has. @return how many */
static int read_digits(reader *r, uint64_t *value) {
    enum { MOST = 1000 };
    const char *begin = r->at, *end = begin;
    uint64_t digits = *value;
    for (; *end >= '0' && *end <= '9' && end - begin < MOST; end++) {
        digits = 10 * digits + (uint64_t)(*end - '0');
    }
    *value = digits;
    r->at = end;
    return (int)(end - begin);
}

/* Digits of a double, and what they are multiplied by: 10^scale. Below 2^53 they are exact, and so is a power
 * up to 10^22: one operation rounds as strtod() does. */
static double scaled(uint64_t digits, int scale) {
    double power = 1;
    for (int i = abs(scale); i > 0; i--) {
        power *= 10;
    }
    return scale < 0 ? (double)digits / power : (double)digits * power;
}

static bool read_number(reader *r, gradd_value *ret_value) {
    enum { WHOLE_DIGITS = 18, EXACT_DIGITS = 15, EXACT_POWER = 22, POWER_DIGITS = 3 };
    const char *text = r->at;
    const bool negative = *text == '-', zero = text[negative] == '0';
    uint64_t digits = 0, power = 0;
    r->at += negative;
    int count = read_digits(r, &digits), decimals = 0;
    if (count == 0 || (zero && count > 1)) {
        return false;
    }
    if (*r->at != '.' && *r->at != 'e' && *r->at != 'E') {
        *ret_value =
            (gradd_value){.kind = GRADD_WHOLE, .whole = negative ? -(int64_t)digits : (int64_t)digits};
        return count <= WHOLE_DIGITS;
    }
    if (*r->at == '.') {
        r->at++;
        decimals = read_digits(r, &digits);
        count += decimals;
        if (decimals == 0) {
            return false;
        }
    }
    bool small = false;
    if (*r->at == 'e' || *r->at == 'E') {
        r->at++;
        small = *r->at == '-';
        r->at += *r->at == '-' || *r->at == '+';
        const int power_digits = read_digits(r, &power);
        if (power_digits == 0 || power_digits > POWER_DIGITS) {
            return false;
        }
    }
    const int scale = (small ? -(int)power : (int)power) - decimals;
    *ret_value = (gradd_value){.kind = GRADD_REAL};
    if (count <= EXACT_DIGITS && abs(scale) <= EXACT_POWER) {
        const double size = scaled(digits, scale);
        ret_value->real = negative ? -size : size;
        return true;
    }
    char *end;
    ret_value->real = strtod(text, &end); /* which stops at the point where a locale has another one */
    return end == r->at && isfinite(ret_value->real);
}

/* The value of the member at `index`. */
static bool read_value(reader *r, int index) {
    gradd_value *value = &r->members->items[index].value;
    *value = (gradd_value){.kind = GRADD_NOTHING};
    if (take(r, '"')) {
        value->kind = GRADD_TEXT;
        return read_text(r, &value->text, &value->size);
    }
    switch (*r->at) {
    case '{':
        value->kind = GRADD_OTHER;
        return read_object(r, index);
    case 'n':
        return take_word(r, "null");
    case 't':
        *value = (gradd_value){.kind = GRADD_BOOLEAN, .boolean = true};
        return take_word(r, "true");
    case 'f':
        value->kind = GRADD_BOOLEAN;
        return take_word(r, "false");
    default:
        return read_number(r, value);
    }
}

/* The object that is the value of the member at `index`. */
static bool read_object(reader *r, int index) {
    gradd_members *members = r->members;
    if (!take(r, '{')) {
        return false;
    }
    if (take(r, '}')) {
        return true;
    }
    do {
        const int next = members->count;
        if (next == GRADD_MAX_MEMBERS) {
            return false;
        }
        gradd_member *member = &members->items[members->count++];
        member->inside = index;
        if (!take(r, '"') || !read_text(r, &member->name, &member->name_size) || !take(r, ':') ||
            !read_value(r, next)) {
            return false;
        }
    } while (take(r, ','));
    return take(r, '}');
}

bool gradd_members_read(const gradd_reply *reply, gradd_members *ret_members) {
    reader r = {.at = reply->data, .members = ret_members};
    ret_members->count = 0;
    if (!read_object(&r, OUTERMOST)) {
        return false;
    }
    skip_space(&r);
    return r.at == reply->data + reply->size;
}

/* What follows a member's name in a path: "" or "parse". NULL: the path begins with another name. */
static const char *after_name(const gradd_member *member, const char *path) {
    for (size_t i = 0; i < member->name_size; i++, path++) {
        if (*path != member->name[i] || *path == '.') {
            return NULL;
        }
    }
    return *path == '.' ? path + 1 : *path ? NULL : path;
}

gradd_value gradd_members_find(const gradd_members *members, const char *path) {
    int inside = OUTERMOST, i = members->count - 1;
    while (i > inside) { /* from the end: of two with the same name the last counts */
        const gradd_member *member = &members->items[i];
        const char *rest = member->inside == inside ? after_name(member, path) : NULL;
        if (rest && !*rest) {
            return member->value;
        }
        if (rest) {
            inside = i;
            path = rest;
            i = members->count;
        }
        i--;
    }
    return (gradd_value){.kind = GRADD_NOTHING};
}
