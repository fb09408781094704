/* progress.c -- a progress bar in tqdm's form: its bar of eighths, its clock, its rate. */
#include "progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { CELLS = 10, EIGHTHS = 8, MAX_LINE = 256 };

static const int64_t SECOND = 1000000000;

ctl_progress_mode ctl_progress_choose(ctl_progress_choice choice, bool terminal, const char *term) {
    if (choice == CTL_NEVER) {
        return CTL_PROGRESS_NONE;
    }
    bool capable = terminal && term && *term && strcmp(term, "dumb") != 0;
    return choice == CTL_ALWAYS || capable ? CTL_PROGRESS_BAR : CTL_PROGRESS_LINES;
}

/* "03:07", from an hour on "1:03:07". */
static void clock_text(char out[24], double seconds) {
    if (!(seconds >= 0 && seconds < 1e9)) {
        snprintf(out, 24, "?");
        return;
    }
    long s = (long)seconds;
    if (s >= 3600) {
        snprintf(out, 24, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(out, 24, "%02ld:%02ld", s / 60, s % 60);
    }
}

/* "121.4it/s"; below one step a second the other way round. */
static void rate_text(char out[24], double rate) {
    if (!(rate > 0) || isinf(rate)) {
        snprintf(out, 24, "?it/s");
    } else if (rate >= 1) {
        snprintf(out, 24, "%.1fit/s", rate);
    } else {
        snprintf(out, 24, "%.1fs/it", 1 / rate);
    }
}

static void loss_text(char out[24], double loss) {
    snprintf(out, 24, fabs(loss) < 1e4 ? "%.4f" : "%.3e", loss);
}

/* The bar's cells as UTF-8: full blocks, one of so many eighths, spaces. */
static void bar_text(char out[CELLS * 3 + 1], double part) {
    static const char *const eighth[EIGHTHS] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int filled = (int)(part * CELLS * EIGHTHS);
    char *end = out;
    for (int i = 0; i < CELLS; i++) {
        int here = filled - i * EIGHTHS;
        const char *cell = here >= EIGHTHS ? "█" : eighth[here > 0 ? here : 0];
        size_t length = strlen(cell);
        memcpy(end, cell, length);
        end += length;
    }
    *end = '\0';
}

static int columns_of(const char *text) {
    int columns = 0;
    for (; *text; text++) {
        columns += ((unsigned char)*text & 0xc0) != 0x80; /* not a continuation byte of UTF-8 */
    }
    return columns;
}

int ctl_progress_line(char *out, size_t size, const char *label, int64_t done, int64_t total, double seconds,
                      double loss, double lr) {
    char bar[CELLS * 3 + 1], elapsed[24], remaining[24], rate[24], loss_is[24];
    double part = total > 0 ? (double)done / (double)total : 0;
    double per_second = seconds > 0 ? (double)done / seconds : 0;
    bar_text(bar, part);
    clock_text(elapsed, seconds);
    clock_text(remaining, per_second > 0 ? (double)(total - done) / per_second : -1);
    rate_text(rate, per_second);
    loss_text(loss_is, loss);
    snprintf(out, size, "%s: %3.0f%%|%s| %lld/%lld [%s<%s, %s, loss=%s, lr=%.1e]", label, part * 100, bar,
             (long long)done, (long long)total, elapsed, remaining, rate, loss_is, lr);
    return columns_of(out);
}

/* "9.9M", as tqdm's unit_scale does it. */
static void amount_text(char out[24], double amount) {
    static const char *const units[] = {"", "k", "M", "G", "T"};
    size_t unit = 0;
    for (; amount >= 999.5 && unit + 1 < sizeof units / sizeof *units; unit++) {
        amount /= 1000;
    }
    snprintf(out, 24, unit && amount < 99.5 ? "%.1f%s" : "%.0f%s", amount, units[unit]);
}

int ctl_progress_bytes_line(char *out, size_t size, const char *label, int64_t done, int64_t total,
                            double seconds) {
    char bar[CELLS * 3 + 1], elapsed[24], remaining[24], done_is[24], total_is[24], rate[24];
    const double part = total > 0 ? (double)done / (double)total : 1;
    const double per_second = seconds > 0 ? (double)done / seconds : 0;
    bar_text(bar, part);
    clock_text(elapsed, seconds);
    clock_text(remaining, per_second > 0 ? (double)(total - done) / per_second : -1);
    amount_text(done_is, (double)done);
    amount_text(total_is, (double)total);
    amount_text(rate, per_second);
    snprintf(out, size, "%s: %3.0f%%|%s| %s/%s [%s<%s, %sB/s]", label, part * 100, bar, done_is, total_is,
             elapsed, remaining, rate);
    return columns_of(out);
}

/* Cut a line to the terminal's width: a longer one would wrap, and not be overwritten. */
static int cut(char *line, int columns) {
    int used = 0;
    for (char *c = line; *c; c++) {
        used += ((unsigned char)*c & 0xc0) != 0x80;
        if (used > columns) {
            *c = '\0';
            return columns;
        }
    }
    return used;
}

static void draw(ctl_progress *p, int64_t done, double loss, double lr, int64_t now) {
    char line[MAX_LINE];
    const double seconds = (double)(now - p->start) / (double)SECOND;
    int width = p->bytes ? ctl_progress_bytes_line(line, sizeof line, p->label, done, p->total, seconds)
                         : ctl_progress_line(line, sizeof line, p->label, done, p->total, seconds, loss, lr);
    if (p->mode == CTL_PROGRESS_LINES) {
        fprintf(p->out, "%s\n", line);
    } else {
        if (p->columns > 1) {
            width = cut(line, p->columns - 1);
        }
        /* Spaces wipe out the rest of a longer line, as tqdm does it: every terminal knows them. */
        fprintf(p->out, "\r%s%*s", line, p->width > width ? p->width - width : 0, "");
        p->width = width;
    }
    fflush(p->out);
    p->drawn = now;
}

void ctl_progress_open(ctl_progress *p, ctl_progress_choice choice) {
    struct winsize window = {0};
    const bool terminal = isatty(STDERR_FILENO);
    *p = (ctl_progress){.out = stderr, .mode = ctl_progress_choose(choice, terminal, getenv("TERM"))};
    if (terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0) {
        p->columns = window.ws_col;
    }
}

int64_t ctl_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

void ctl_progress_begin(ctl_progress *p, const char *label, int64_t total, int64_t now) {
    snprintf(p->label, sizeof p->label, "%s", label);
    p->total = total;
    p->start = p->drawn = now;
    p->width = 0;
}

void ctl_progress_update(ctl_progress *p, int64_t done, double loss, double lr, int64_t now) {
    int64_t pause = p->mode == CTL_PROGRESS_BAR ? SECOND / 10 : 10 * SECOND;
    if (p->mode != CTL_PROGRESS_NONE && now - p->drawn >= pause) {
        draw(p, done, loss, lr, now);
    }
}

void ctl_progress_end(ctl_progress *p, int64_t done, double loss, double lr, int64_t now) {
    if (p->mode == CTL_PROGRESS_NONE) {
        return;
    }
    draw(p, done, loss, lr, now);
    if (p->mode == CTL_PROGRESS_BAR) {
        fputc('\n', p->out);
    }
}
