/* damage.c */
#include "tests/damage.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support.h"

static off_t size_of(const char *path) {
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return status.st_size;
}

static void flip(const char *path, off_t at) {
    char byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void resize(const char *path, off_t size) {
    assert_int_equal(truncate(path, size), 0);
}

/* Of the first one: a parameter. */
static void flip_tensor(const char *path) {
    uint64_t header;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, &header, sizeof header), sizeof header);
    close(fd);
    flip(path, (off_t)(sizeof header + header + 5));
}

static void flip_header(const char *path) {
    flip(path, 40);
}

static void flip_length(const char *path) {
    flip(path, 0);
}

static void cut_tensors(const char *path) {
    resize(path, size_of(path) - 4);
}

static void cut_header(const char *path) {
    resize(path, 40);
}

static void grow(const char *path) {
    resize(path, size_of(path) + 1);
}

static void empty(const char *path) {
    resize(path, 0);
}

static void take_away(const char *path) {
    assert_int_equal(unlink(path), 0);
}

const test_damage test_damages[] = {
    {"another bit in a tensor", flip_tensor},
    {"another bit in the header", flip_header},
    {"another length of the header", flip_length},
    {"no last number", cut_tensors},
    {"half a header", cut_header},
    {"a byte too many", grow},
    {"an empty file", empty},
    {"no file", take_away},
};
const size_t test_damage_count = sizeof test_damages / sizeof *test_damages;

int test_damage_all(const char *folder) {
    char path[512];
    int count = 0;
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (*entry->d_name != '.') {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            test_damages[(size_t)count++ % test_damage_count].apply(path);
        }
    }
    closedir(directory);
    return count;
}
