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

const char *gs_time_text(int64_t unix_ms, char *text) {
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t size = strftime(text, GS_TIME_TEXT, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + size, GS_TIME_TEXT - size, ".%03dZ", (int)(unix_ms % 1000));
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
