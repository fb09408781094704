/* progress.h -- a progress bar in tqdm's form, on stderr. */
#ifndef GRADD_CTL_PROGRESS_H
#define GRADD_CTL_PROGRESS_H

#include <stdint.h>
#include <stdio.h>

#include "options.h"

typedef enum ctl_progress_mode {
    CTL_PROGRESS_NONE,
    CTL_PROGRESS_LINES, /* no terminal: a line at the end and every 10 s */
    CTL_PROGRESS_BAR
} ctl_progress_mode;

typedef struct ctl_progress {
    FILE *out;
    ctl_progress_mode mode;
    int columns; /* of the terminal; 0: unknown */
    char label[32];
    int64_t total; /* steps, or bytes */
    bool bytes;
    int64_t start, drawn; /* ns */
    int width;            /* columns of what stands there now */
} ctl_progress;

/** How to show it. @param term $TERM, or NULL */
ctl_progress_mode ctl_progress_choose(ctl_progress_choice choice, bool terminal, const char *term);

/** One line: "epoch 1/3:  42%|████▏     | 394/938 [00:03<00:05, 121.4it/s, loss=0.3127, lr=1.0e-02]".
 *  @param seconds since the first step began
 *  @return columns it takes on a terminal */
int ctl_progress_line(char *out, size_t size, const char *label, int64_t done, int64_t total, double seconds,
                      double loss, double lr);

/** The same of bytes: "train/input:  42%|████▏     | 4.1M/9.9M [00:03<00:05, 1.3MB/s]". */
int ctl_progress_bytes_line(char *out, size_t size, const char *label, int64_t done, int64_t total,
                            double seconds);

/** On stderr, as the user wants it and the terminal can do it. */
void ctl_progress_open(ctl_progress *progress, ctl_progress_choice choice);
/** CLOCK_MONOTONIC in ns. */
int64_t ctl_now_ns(void);

/** @param now in ns, here and below; by any clock, but by one */
void ctl_progress_begin(ctl_progress *progress, const char *label, int64_t total, int64_t now);
/** Draw, if a tenth of a second has passed (lines: 10 s) since it was last done. */
void ctl_progress_update(ctl_progress *progress, int64_t done, double loss, double lr, int64_t now);
/** Draw for the last time, and go to the next line. */
void ctl_progress_end(ctl_progress *progress, int64_t done, double loss, double lr, int64_t now);

#endif
