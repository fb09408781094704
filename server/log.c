/* log.c -- one line, one write(2). */
#include "log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 4096, STRING_LIMIT = 1024 /* of one escaped string */ };

typedef struct line {
    char data[LINE];
    size_t size;
} line;

static const char *const level_names[] = {"error", "warning", "info", "debug"};

static void add(line *l, const char *bytes, size_t size) {
    size_t room = LINE - 4 - l->size; /* 4: for an end that always fits */
    size = size < room ? size : room;
    memcpy(l->data + l->size, bytes, size);
    l->size += size;
}

static void add_text(line *l, const char *text) {
    add(l, text, strlen(text));
}

/* Quoted, ASCII only; what is cut off ends in "...". */
static void add_string(line *l, const char *string) {
    add(l, "\"", 1);
    size_t written = 0;
    for (const unsigned char *c = (const unsigned char *)string; *c; c++) {
        char escaped[8] = {(char)*c};
        if (*c == '"' || *c == '\\') {
            snprintf(escaped, sizeof escaped, "\\%c", *c);
        } else if (*c < 0x20 || *c >= 0x7f) {
            snprintf(escaped, sizeof escaped, "\\u%04x", *c);
        }
        written += strlen(escaped);
        if (written > STRING_LIMIT || l->size + 16 > LINE) {
            add(l, "...", 3);
            break;
        }
        add_text(l, escaped);
    }
    add(l, "\"", 1);
}

static void add_field(line *l, bool json, const gs_log_field *field) {
    if (l->size > LINE - 128) {
        return; /* a line that is full stays well-formed */
    }
    char text[32];
    if (json) {
        add(l, ",\"", 2);
        add_text(l, field->name);
        add(l, "\":", 2);
    } else {
        add(l, " ", 1);
        add_text(l, field->name);
        add(l, "=", 1);
    }
    if (field->string) {
        add_string(l, field->string);
    } else {
        snprintf(text, sizeof text, "%lld", (long long)field->integer);
        add_text(l, text);
    }
}

void gs_log_write(const gs_log *log, gs_level level, const char *event, const gs_log_field *fields,
                  size_t count) {
    if (level > log->level) {
        return;
    }
    char time[GS_TIME_TEXT];
    gs_time_text(gs_time_ms(), time);
    line l = {.size = 0};
    if (log->json) {
        add_text(&l, "{\"time\":\"");
        add_text(&l, time);
        add_text(&l, "\",\"level\":\"");
        add_text(&l, level_names[level]);
        add_text(&l, "\",\"event\":");
        add_string(&l, event);
    } else {
        add_text(&l, time);
        add(&l, " ", 1);
        add_text(&l, level_names[level]);
        add(&l, " ", 1);
        add_text(&l, event);
    }
    for (size_t i = 0; i < count; i++) {
        if (fields[i].name) {
            add_field(&l, log->json, &fields[i]);
        }
    }
    add_text(&l, log->json ? "}" : "");
    l.data[l.size++] = '\n';
    ssize_t ignored =
        write(STDERR_FILENO, l.data, l.size); /* nowhere to report a log that cannot be written */
    (void)ignored;
}

/* Digits of a small number with leading zeros. */
static void put_digits(char *out, int64_t value, int count) {
    for (int i = count; i-- > 0; value /= 10) {
        out[i] = (char)('0' + value % 10);
    }
}

/* By arithmetic, as a chart has thousands of them. The days are counted in years that begin in March, so that
 * a leap day comes last (Howard Hinnant, chrono-compatible low-level date algorithms). */
const char *gs_time_text(int64_t unix_ms, char *text) {
    const int64_t first = -62135596800000, last = 253402300799999; /* years 1 to 9999 */
    unix_ms = unix_ms < first ? first : unix_ms > last ? last : unix_ms;
    const int64_t since_march = unix_ms + INT64_C(719468) * 86400000, ms = since_march % 86400000;
    const int64_t days = since_march / 86400000, era = days / 146097, day_of_era = days % 146097;
    const int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const int64_t march_month = (5 * day_of_year + 2) / 153;
    const int64_t month = march_month < 10 ? march_month + 3 : march_month - 9;
    memcpy(text, "YYYY-MM-DDThh:mm:ss.mmmZ", 25);
    put_digits(text, year_of_era + era * 400 + (month <= 2), 4);
    put_digits(text + 5, month, 2);
    put_digits(text + 8, day_of_year - (153 * march_month + 2) / 5 + 1, 2);
    put_digits(text + 11, ms / 3600000, 2);
    put_digits(text + 14, ms / 60000 % 60, 2);
    put_digits(text + 17, ms / 1000 % 60, 2);
    put_digits(text + 20, ms % 1000, 3);
    return text;
}

int64_t gs_time_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t gs_clock_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
