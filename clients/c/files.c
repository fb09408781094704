/* files.c -- files sent and received by pieces, whatever their size. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"

/* ---- out ------------------------------------------------------------------------------------------ */

int gradd_send_file(gradd_client *client, gradd_request *request, const gradd_file *file, char **ret_json,
                    gradd_error *error) {
    struct stat status;
    int code = GRADD_OK;
    const char *path = file->path ? file->path : "the file";
    int fd = file->path ? open(file->path, O_RDONLY | O_CLOEXEC) : file->fd;
    if (fd < 0 || fstat(fd, &status)) {
        code = gradd_fail(error, GRADD_E_ARGUMENT, "cannot read %s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(status.st_mode)) { /* a pipe cannot be sent again */
        code = gradd_fail(error, GRADD_E_ARGUMENT, "%s is no regular file", path);
        goto out;
    }
    const gradd_source source = {.fd = fd, .size = (int64_t)status.st_size, .file = file};
    request->source = &source;
    code = gradd_send_for_text(client, request, ret_json, error);
out:
    request->source = NULL;
    if (file->path && fd >= 0) {
        close(fd);
    }
    return code;
}

/* ---- in ------------------------------------------------------------------------------------------- */

typedef struct download {
    const gradd_file *file;
    const char *path; /* for messages */
    int fd;
    int64_t done, total;
} download;

static int fail_to_write(const download *d, gradd_error *error) {
    return gradd_fail(error, GRADD_E_ARGUMENT, "cannot write %s: %s", d->path, strerror(errno));
}

static void tell(const download *d) {
    if (d->file->progress) {
        d->file->progress(d->file->argument, d->done, d->total);
    }
}

/* Each try begins anew. What is no regular file can't, and takes the bytes of one try only. */
static int begin(void *argument, int64_t size, gradd_error *error) {
    download *d = argument;
    if (d->done && (lseek(d->fd, 0, SEEK_SET) < 0 || ftruncate(d->fd, 0))) {
        return fail_to_write(d, error);
    }
    d->done = 0;
    d->total = size;
    tell(d);
    return GRADD_OK;
}

static int take(void *argument, const char *bytes, size_t size, gradd_error *error) {
    download *d = argument;
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(d->fd, bytes + done, size - done);
        if (wrote < 0 && errno != EINTR) {
            return fail_to_write(d, error);
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    d->done += (int64_t)size;
    tell(d);
    return GRADD_OK;
}

static int receive(gradd_client *client, gradd_request *request, download *d, gradd_error *error) {
    const gradd_sink sink = {.begin = begin, .write = take, .argument = d};
    request->sink = &sink;
    int code = gradd_send(client, request, error);
    request->sink = NULL;
    return code;
}

int gradd_receive_file(gradd_client *client, gradd_request *request, const gradd_file *file,
                       gradd_error *error) {
    char part[4096];
    download d = {.file = file, .path = file->path ? file->path : "the file", .fd = file->fd};
    if (!file->path) {
        return receive(client, request, &d, error);
    }
    int length = snprintf(part, sizeof part, "%s.part", file->path);
    if (length < 0 || (size_t)length >= sizeof part) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "the file's name is too long");
    }
    d.fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (d.fd < 0) {
        return fail_to_write(&d, error);
    }
    int code = receive(client, request, &d, error);
    if (close(d.fd) && !code) {
        code = fail_to_write(&d, error);
    }
    if (!code && rename(part, file->path)) {
        code = fail_to_write(&d, error);
    }
    if (code) {
        unlink(part);
    }
    return code;
}
