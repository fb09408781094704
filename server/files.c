/* files.c -- the store's folder, and files in it that are either there as a whole or not at all: written
 * under another name, fsync, rename, fsync of the folder.
 *
 * An fsync that failed is never tried again: the kernel may have dropped the pages, and the second one would
 * say that all is well. The file is given up, and whoever wants it writes it anew. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_internal.h"

static const char *const folder_names[GS_FOLDERS] = {
    [GS_FOLDER_CHECKPOINTS] = "checkpoints", [GS_FOLDER_DATASETS] = "datasets"};

enum { TRY = 64 * 1024 /* bytes that are written to see whether files can be written */ };

/* ---- the folder ------------------------------------------------------------------------------------ */

static int explain(char *why, size_t size, const char *what, const char *path) {
    snprintf(why, size, "%s %s: %s", what, path, strerror(errno));
    return -1;
}

/* mkdir -p, for this user alone. A folder that is there keeps its rights. */
static int make_folders(const char *path) {
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof part) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] == '/' || !path[i]) {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0700) && errno != EEXIST && (!path[i] || errno != EACCES)) {
                return -1;
            }
        }
    }
    return 0;
}

static int make_temporary(char *path, size_t size) {
    const char *parent = getenv("TMPDIR");
    snprintf(path, size, "%s/gradd-XXXXXX", parent && *parent ? parent : P_tmpdir);
    return mkdtemp(path) ? 0 : -1;
}

/* One daemon for a folder. The lock goes with the process, however it ends. */
static int take_lock(gs_store *store, char *why, size_t size) {
    store->lock_fd = openat(store->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->lock_fd < 0) {
        return explain(why, size, "cannot open the lock file in", store->path);
    }
    char text[32] = "";
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK) {
            return explain(why, size, "cannot lock", store->path);
        }
        ssize_t got = pread(store->lock_fd, text, sizeof text - 1, 0);
        text[got < 0 ? 0 : strcspn(text, "\n")] = '\0';
        snprintf(why, size, "another gradd, process %s, has %s; stop it, or give another --data-dir",
                 *text ? text : "unknown", store->path);
        return -1;
    }
    int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(store->lock_fd, 0) || pwrite(store->lock_fd, text, (size_t)length, 0) != length) {
        return explain(why, size, "cannot write the lock file in", store->path);
    }
    return 0;
}

int gs_files_open(gs_store *store, const char *folder, char *why, size_t size) {
    store->ephemeral = !folder;
    if (folder && make_folders(folder)) {
        return explain(why, size, "cannot make", folder);
    }
    if (folder ? !realpath(folder, store->path) : make_temporary(store->path, sizeof store->path)) {
        *store->path = '\0';
        return explain(why, size, "cannot make", folder ? folder : "a temporary folder");
    }
    store->fd = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->fd < 0) {
        return explain(why, size, "cannot open", store->path);
    }
    if (take_lock(store, why, size)) {
        return -1;
    }
    for (int i = 0; i < GS_FOLDERS; i++) {
        if (mkdirat(store->fd, folder_names[i], 0700) && errno != EEXIST) {
            return explain(why, size, "cannot make a folder in", store->path);
        }
        store->folders[i] = openat(store->fd, folder_names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (store->folders[i] < 0) {
            return explain(why, size, "cannot open a folder in", store->path);
        }
    }
    return fsync(store->fd) ? explain(why, size, "cannot write to", store->path) : 0;
}

static bool keep_none(void *argument, const char *name) {
    (void)argument;
    (void)name;
    return false;
}

void gs_files_close(gs_store *store) {
    for (int i = 0; i < GS_FOLDERS; i++) {
        if (store->folders[i] < 0) {
            continue;
        }
        if (store->ephemeral) {
            gs_store_sweep(store, (gs_folder)i, keep_none, NULL);
            unlinkat(store->fd, folder_names[i], AT_REMOVEDIR);
        }
        close(store->folders[i]);
    }
    if (store->ephemeral && *store->path) {
        unlinkat(store->fd, "lock", 0);
        rmdir(store->path);
    }
    if (store->lock_fd >= 0) {
        close(store->lock_fd);
    }
    if (store->fd >= 0) {
        close(store->fd);
    }
}

int gs_store_folder(const gs_store *store, gs_folder folder) {
    return store->folders[folder];
}

/* ---- writing --------------------------------------------------------------------------------------- */

/* Give the file up; errno says why. */
static int fail(gs_file *file, const char *what, gp_error *error) {
    gp_error said = {0};
    gp_fail(&said, GP_STORAGE_FAILED, "", "cannot %s a file: %s", what, strerror(errno));
    gs_file_abandon(file);
    gs_store_report(file->store, &said);
    return gp_fail(error, said.problem, "", "%s", said.detail);
}

/* Reserve room. That a file system cannot is no failure. */
static int reserve(int fd, uint64_t size) {
    int code;
    if (size > INT64_MAX) {
        errno = EFBIG;
        return -1;
    }
    do {
        code = posix_fallocate(fd, 0, (off_t)size);
    } while (code == EINTR);
    errno = code;
    return code && code != EINVAL && code != EOPNOTSUPP ? -1 : 0;
}

int gs_file_create(gs_store *store, gs_folder folder, uint64_t expect, gs_file *ret_file, gp_error *error) {
    gs_file file = {.store = store, .folder = folder};
    snprintf(file.temporary, sizeof file.temporary, ".writing-%ld-%u", (long)getpid(),
             atomic_fetch_add(&store->file_count, 1));
    file.fd = openat(store->folders[folder], file.temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file.fd < 0) {
        return fail(&file, "make", error);
    }
    if (expect && reserve(file.fd, expect)) {
        return fail(&file, "reserve room for", error);
    }
    *ret_file = file;
    return 0;
}

int gs_file_write(gs_file *file, const void *bytes, size_t size, gp_error *error) {
    const char *at = bytes;
    for (size_t left = size; left;) {
        ssize_t wrote = write(file->fd, at, left);
        if (wrote < 0 && errno != EINTR) {
            return fail(file, "write", error);
        }
        if (wrote > 0) {
            at += wrote;
            left -= (size_t)wrote;
        }
    }
    file->size += size;
    return 0;
}

int gs_file_commit(gs_file *file, const char *name, gp_error *error) {
    const int folder = file->store->folders[file->folder], fd = file->fd;
    if (ftruncate(fd, (off_t)file->size) || fsync(fd)) { /* truncate: less came than was reserved */
        return fail(file, "save", error);
    }
    file->fd = -1; /* after close() it is gone, whatever that says */
    if (close(fd) || renameat(folder, file->temporary, folder, name)) {
        return fail(file, "save", error);
    }
    if (fsync(folder)) {
        int code = errno;
        unlinkat(folder, name, 0);
        errno = code;
        return fail(file, "save", error);
    }
    *file->temporary = '\0';
    gs_store_report(file->store, NULL);
    return 0;
}

void gs_file_abandon(gs_file *file) {
    int code = errno;
    if (file->fd >= 0) {
        close(file->fd);
    }
    if (*file->temporary) {
        unlinkat(file->store->folders[file->folder], file->temporary, 0);
    }
    file->fd = -1;
    *file->temporary = '\0';
    errno = code;
}

void gs_files_try(gs_store *store) {
    static const char zeros[TRY];
    gs_file file = {.fd = -1};
    if (gs_file_create(store, GS_FOLDER_CHECKPOINTS, 0, &file, NULL) ||
        gs_file_write(&file, zeros, sizeof zeros, NULL)) {
        return;
    }
    if (fsync(file.fd)) {
        fail(&file, "save", NULL);
        return;
    }
    gs_file_abandon(&file);
    gs_store_report(store, NULL);
}

/* ---- reading, removing ------------------------------------------------------------------------------ */

int gs_file_map(const gs_store *store, gs_folder folder, const char *name, const void **ret_data,
                size_t *ret_size, gp_error *error) {
    int fd = openat(store->folders[folder], name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT
                   ? gp_fail(error, GP_NOT_FOUND, "", "its file is not there")
                   : gp_fail(error, GP_STORAGE_FAILED, "", "cannot open a file: %s", strerror(errno));
    }
    struct stat status;
    void *data = NULL;
    int code = fstat(fd, &status) ? errno : 0;
    if (!code && status.st_size) {
        data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        code = data == MAP_FAILED ? errno : 0;
    }
    close(fd);
    if (code) {
        return gp_fail(error, GP_STORAGE_FAILED, "", "cannot read a file: %s", strerror(code));
    }
    *ret_data = data;
    *ret_size = (size_t)status.st_size;
    return 0;
}

void gs_file_unmap(const void *data, size_t size) {
    if (data) {
        munmap((void *)(uintptr_t)data, size);
    }
}

void gs_file_remove(const gs_store *store, gs_folder folder, const char *name) {
    unlinkat(store->folders[folder], name, 0);
}

void gs_store_sweep(gs_store *store, gs_folder folder, bool (*keep)(void *argument, const char *name),
                    void *argument) {
    int fd = openat(store->folders[folder], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && !keep(argument, entry->d_name)) {
            unlinkat(fd, entry->d_name, 0);
        }
    }
    closedir(directory);
}

void gs_sha256_hex(const void *data, size_t size, char text[65]) {
    struct sha256_ctx context;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&context);
    sha256_update(&context, size, data);
    sha256_digest(&context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
}
