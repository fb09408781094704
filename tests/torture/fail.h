/* fail.h -- which call of the daemon's is to fail: shared memory of the test and of fail.c. */
#ifndef GRADD_TESTS_TORTURE_FAIL_H
#define GRADD_TESTS_TORTURE_FAIL_H

#include <stdatomic.h>

/* call, its name */
#define FAULT_CALLS(X) \
    X(FAULT_WRITE, "write") \
    X(FAULT_SHORT_WRITE, "short write") \
    X(FAULT_PWRITE, "pwrite") \
    X(FAULT_SHORT_PWRITE, "short pwrite") \
    X(FAULT_FSYNC, "fsync") \
    X(FAULT_FDATASYNC, "fdatasync") \
    X(FAULT_FTRUNCATE, "ftruncate") \
    X(FAULT_RENAME, "rename") \
    X(FAULT_FALLOCATE, "posix_fallocate") \
    X(FAULT_MMAP, "mmap") \
    X(FAULT_OPEN, "open")

typedef enum fault_call {
    FAULT_NONE,
#define X(call, name) call,
    FAULT_CALLS(X)
#undef X
        FAULT_CALL_COUNT
} fault_call;

struct fault {
    fault_call call;
    int first, times; /* calls first ... first + times - 1 fail */
    int error;        /* ENOSPC ... */
    atomic_int count; /* calls so far */
    atomic_int hit;   /* has one failed? */
};

#endif
