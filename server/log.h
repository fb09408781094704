/* log.h -- structured lines on stderr: "2026-01-31T12:00:00.000Z info request method="GET" ..." or the
 * same as one JSON object a line. Strings are escaped: a client cannot forge a line. Any thread. */
#ifndef GRADD_SERVER_LOG_H
#define GRADD_SERVER_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum gs_level { GS_ERROR, GS_WARNING, GS_INFO, GS_DEBUG } gs_level;

typedef struct gs_log {
    gs_level level; /* the most detailed that is written */
    bool json;
} gs_log;

/** One field: a string, or an integer when string is NULL. */
typedef struct gs_log_field {
    const char *name;
    const char *string;
    int64_t integer;
} gs_log_field;

#define GS_S(name, string) ((gs_log_field){(name), (string), 0})
#define GS_I(name, integer) ((gs_log_field){(name), NULL, (int64_t)(integer)})

void gs_log_write(const gs_log *log, gs_level level, const char *event, const gs_log_field *fields,
                  size_t count);

/** gs_log_event(log, GS_INFO, "listening", GS_S("host", host), GS_I("port", port)) */
#define gs_log_event(log, level, event, ...) \
    gs_log_write((log), (level), (event), (gs_log_field[]){__VA_ARGS__}, \
                 sizeof((gs_log_field[]){__VA_ARGS__}) / sizeof(gs_log_field))

enum { GS_TIME_TEXT = 40 };
/** Now in RFC 3339, UTC, with milliseconds; returns text (GS_TIME_TEXT bytes). */
const char *gs_time_text(int64_t unix_ms, char *text);
/** Milliseconds since 1970. */
int64_t gs_time_ms(void);
/** Microseconds of a clock that only goes forward. */
int64_t gs_clock_us(void);

#endif
