/* fail.c -- preloaded into a daemon: calls that store something fail when they are told to.
 *
 * GRADD_FAIL names a file of 24 bytes that the test maps too (struct fault in fail.h): which call, from which
 * one on, how many of them, and with what error. Only calls on files below the daemon's --data-dir count. */
#include "fail.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static struct fault *fault; /* shared with the test */
static char folder[PATH_MAX];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *next(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))next(#name))

static void begin(void) {
    const char *path = getenv("GRADD_FAIL"), *below = getenv("GRADD_FAIL_BELOW");
    int fd = path ? REAL(int, open, const char *, int, ...)(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0 || !below) {
        return;
    }
    snprintf(folder, sizeof folder, "%s/", below);
    void *mapped = REAL(void *, mmap, void *, size_t, int, int, int,
                        off_t)(NULL, sizeof *fault, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    fault = mapped == MAP_FAILED ? NULL : mapped;
}

/* Is it a file of the data directory's? Sockets and the log are none. */
static bool is_ours(int fd) {
    char entry[64], target[PATH_MAX];
    snprintf(entry, sizeof entry, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(entry, target, sizeof target - 1);
    if (length < 0) {
        return false;
    }
    target[length] = '\0';
    return !strncmp(target, folder, strlen(folder)) || !strncmp(target, folder, strlen(folder) - 1);
}

/* Count a call. @return whether it is to fail; errno says how */
static bool fails(fault_call call, int fd) {
    pthread_once(&once, begin);
    if (!fault || fault->call != call || (fd >= 0 && !is_ours(fd))) {
        return false;
    }
    const int n = atomic_fetch_add(&fault->count, 1) + 1;
    if (n < fault->first || n >= fault->first + fault->times) {
        return false;
    }
    atomic_store(&fault->hit, 1);
    errno = fault->error;
    return true;
}

ssize_t write(int fd, const void *bytes, size_t size) {
    if (fails(FAULT_WRITE, fd)) {
        return -1;
    }
    if (size > 1 && fails(FAULT_SHORT_WRITE, fd)) {
        size /= 2;
    }
    return REAL(ssize_t, write, int, const void *, size_t)(fd, bytes, size);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
    if (fails(FAULT_PWRITE, fd)) {
        return -1;
    }
    if (size > 1 && fails(FAULT_SHORT_PWRITE, fd)) {
        size /= 2;
    }
    return REAL(ssize_t, pwrite, int, const void *, size_t, off_t)(fd, bytes, size, at);
}

int fsync(int fd) {
    return fails(FAULT_FSYNC, fd) ? -1 : REAL(int, fsync, int)(fd);
}

int fdatasync(int fd) {
    return fails(FAULT_FDATASYNC, fd) ? -1 : REAL(int, fdatasync, int)(fd);
}

int ftruncate(int fd, off_t size) {
    return fails(FAULT_FTRUNCATE, fd) ? -1 : REAL(int, ftruncate, int, off_t)(fd, size);
}

int rename(const char *from, const char *to) {
    return fails(FAULT_RENAME, -1) ? -1 : REAL(int, rename, const char *, const char *)(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    return fails(FAULT_RENAME, from_fd)
               ? -1
               : REAL(int, renameat, int, const char *, int, const char *)(from_fd, from, to_fd, to);
}

/* Gives the error and does not set it. */
int posix_fallocate(int fd, off_t at, off_t size) {
    return fails(FAULT_FALLOCATE, fd) ? fault->error
                                      : REAL(int, posix_fallocate, int, off_t, off_t)(fd, at, size);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t at) {
    return fd >= 0 && fails(FAULT_MMAP, fd) ? MAP_FAILED
                                            : REAL(void *, mmap, void *, size_t, int, int, int,
                                                   off_t)(address, size, protection, flags, fd, at);
}

/* Only files that are made or written, by their path or in a folder of ours. */
static bool open_fails(int fd, const char *path, int flags) {
    pthread_once(&once, begin);
    const bool ours = fd < 0 ? !strncmp(path, folder, strlen(folder)) : true;
    return ours && (flags & O_ACCMODE) != O_RDONLY && fails(FAULT_OPEN, fd);
}

static mode_t mode_of(int flags, va_list more) {
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_fails(-1, path, flags) ? -1 : REAL(int, open, const char *, int, ...)(path, flags, mode);
}

int openat(int fd, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_fails(fd, path, flags)
               ? -1
               : REAL(int, openat, int, const char *, int, ...)(fd, path, flags, mode);
}

/* Where off_t has 64 bits these are the same calls by another name. */
_Static_assert(sizeof(off_t) == 8, "off_t has 64 bits");
#define ALSO(other, name) extern __typeof__(name) other __attribute__((alias(#name)))
ALSO(pwrite64, pwrite);
ALSO(ftruncate64, ftruncate);
ALSO(posix_fallocate64, posix_fallocate);
ALSO(mmap64, mmap);
ALSO(open64, open);
ALSO(openat64, openat);
