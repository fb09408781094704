/* upload.c -- gzip is expanded and CSV is read as they come; npy, IDX and safetensors go into a file first,
 * which is then used in place, or rewritten once where the engine could not read it so. Everything goes
 * through small pieces of memory, whatever its size. */
#include "upload.h"

#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "server.h"

enum {
    HEAD = 4096,      /* bytes that tell the format */
    PIECE = 64 * 1024 /* elements or bytes handled at once */
};

const char *const gs_part_names[GS_PARTS] = {"input", "target"};

int gs_part_find(const char *name) {
    for (int part = 0; part < GS_PARTS; part++) {
        if (!strcmp(name, gs_part_names[part])) {
            return part;
        }
    }
    return -1;
}

void gs_upload_init(gs_upload *upload, gs_server *server, const char *part) {
    *upload = (gs_upload){.store = server->store,
                          .stop = &server->spools.stop,
                          .max = (uint64_t)server->config.max_dataset,
                          .part = part ? gs_part_find(part) : GS_PARTS};
    for (int i = 0; i < 1 + GS_PARTS; i++) {
        upload->files[i].fd = -1;
    }
}

/* ---- bytes in ------------------------------------------------------------------------------------ */

/* A stream whose first bytes have been looked at. */
typedef struct peeked {
    gp_read *read;
    void *argument;
    size_t size, at; /* of head */
    unsigned char head[HEAD];
} peeked;

static int peek(peeked *stream, gp_error *error) {
    for (size_t got = 1; got && stream->size < HEAD; stream->size += got) {
        if (stream->read(stream->argument, stream->head + stream->size, HEAD - stream->size, &got, error)) {
            return -1;
        }
    }
    return 0;
}

static int read_peeked(void *argument, void *out, size_t room, size_t *ret_size, gp_error *error) {
    peeked *stream = argument;
    size_t size = stream->size - stream->at;
    if (!size) {
        return stream->read(stream->argument, out, room, ret_size, error);
    }
    size = size < room ? size : room;
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): who reads gives room */
    memcpy(out, stream->head + stream->at, size);
    stream->at += size;
    *ret_size = size;
    return 0;
}

/* ---- bytes out ----------------------------------------------------------------------------------- */

static int go_on(const gs_upload *upload, gp_error *error) {
    return atomic_load(upload->stop) ? gp_fail(error, GP_DRAINING, "", "the daemon is shutting down") : 0;
}

static int create(gs_upload *upload, int index, gp_error *error) {
    return gs_file_create(upload->store, GS_FOLDER_DATASETS, 0, &upload->files[index], error);
}

static int put(gs_upload *upload, int index, const void *bytes, size_t size, gp_error *error) {
    gs_file *file = &upload->files[index];
    if (size > upload->max || file->size > upload->max - size) {
        return gp_fail(error, GP_BODY_TOO_LARGE, "",
                       "the data take more than the %" PRIu64 " bytes that --max-dataset allows",
                       upload->max);
    }
    return go_on(upload, error) ? -1 : gs_file_write(file, bytes, size, error);
}

/* Another descriptor of a file that is being written. */
static int reopen(const gs_upload *upload, int index, int flags) {
    return openat(gs_store_folder(upload->store, GS_FOLDER_DATASETS), upload->files[index].temporary,
                  flags | O_CLOEXEC | O_NOFOLLOW);
}

static int fail_io(gp_error *error) {
    return gp_fail(error, GP_STORAGE_FAILED, "", "an uploaded file cannot be read back");
}

static int map(const gs_upload *upload, int index, void **ret_data, gp_error *error) {
    int fd = reopen(upload, index, O_RDONLY);
    if (fd < 0) {
        return fail_io(error);
    }
    void *data = mmap(NULL, (size_t)upload->files[index].size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    *ret_data = data;
    return data == MAP_FAILED ? fail_io(error) : 0;
}

static void finish_hash(struct sha256_ctx *context, char text[GS_NAME]) {
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
}

/* Let go of pages that were read: they would count as the process's own. */
static void forget(const void *begin, const void *end) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)begin / page * page, to = (uintptr_t)end / page * page;
    if (to > from) {
        madvise((void *)from, to - from, MADV_DONTNEED);
    }
}

/* Hash a tensor that is used where it is. */
static int hash(const gs_upload *upload, const char *data, gs_stored *stored, gp_error *error) {
    enum { STEP = 1 << 20 };
    struct sha256_ctx context;
    sha256_init(&context);
    for (uint64_t at = 0; at < stored->bytes; at += STEP) {
        uint64_t left = stored->bytes - at, size = left < STEP ? left : STEP;
        if (go_on(upload, error)) {
            return -1;
        }
        sha256_update(&context, size, (const uint8_t *)data + at);
        forget(data + at, data + at + size);
    }
    finish_hash(&context, stored->sha256);
    return 0;
}

/* ---- tensors ------------------------------------------------------------------------------------- */

/* What each type is kept as: the engine reads these four. */
static const struct {
    gp_dtype kept;
    gd_dtype dtype;
} kept_as[GP_DTYPE_COUNT] = {
    [GP_FLOAT32] = {GP_FLOAT32, GD_FLOAT32}, [GP_FLOAT64] = {GP_FLOAT32, GD_FLOAT32},
    [GP_FLOAT16] = {GP_FLOAT32, GD_FLOAT32}, [GP_BFLOAT16] = {GP_FLOAT32, GD_FLOAT32},
    [GP_INT8] = {GP_INT64, GD_INT64},        [GP_UINT8] = {GP_UINT8, GD_UINT8},
    [GP_INT16] = {GP_INT64, GD_INT64},       [GP_UINT16] = {GP_INT64, GD_INT64},
    [GP_INT32] = {GP_INT32, GD_INT32},       [GP_UINT32] = {GP_INT64, GD_INT64},
    [GP_INT64] = {GP_INT64, GD_INT64},       [GP_BOOL] = {GP_INT64, GD_INT64},
};

static int rewrite(gs_upload *upload, int part, const gp_array *array, gp_error *error) {
    const gp_dtype kept = kept_as[array->dtype].kept;
    const size_t element = gp_dtype_size(kept), came = gp_dtype_size(array->dtype);
    const int64_t numel = gp_array_numel(array);
    const int index = 1 + part;
    char *piece = malloc(PIECE * element);
    int result = piece ? create(upload, index, error)
                       : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the upload");
    struct sha256_ctx context;
    sha256_init(&context);
    for (int64_t first = 0; first < numel && !result; first += PIECE) {
        const int64_t left = numel - first, count = left < PIECE ? left : PIECE;
        result = gp_array_convert_part(array, first, count, kept, piece, gs_part_names[part], error);
        if (!result) {
            sha256_update(&context, (size_t)count * element, (const uint8_t *)piece);
            result = put(upload, index, piece, (size_t)count * element, error);
        }
        if (!array->fortran_order) {
            const char *read = (const char *)array->data + (size_t)first * came;
            forget(read, read + (size_t)count * came);
        }
    }
    free(piece);
    upload->file[part] = index;
    upload->stored[part].offset = 0;
    finish_hash(&context, upload->stored[part].sha256);
    return result;
}

/* Keep an array that lies in the mapped first file. */
static int take(gs_upload *upload, int part, const gp_array *array, const char *base, gp_error *error) {
    const char *name = gs_part_names[part];
    gs_stored *stored = &upload->stored[part];
    char pointer[16];
    snprintf(pointer, sizeof pointer, "/%s", name);
    if (array->rank < 1) {
        return gp_fail(error, GP_SHAPE_MISMATCH, pointer,
                       "%s is a single number: its first axis must be the rows", name);
    }
    if (!array->size) {
        return gp_fail(error, GP_SHAPE_MISMATCH, pointer, "%s is empty: one of its axes is 0", name);
    }
    stored->dtype = kept_as[array->dtype].dtype;
    stored->shape.rank = array->rank;
    memcpy(stored->shape.dim, array->dim, sizeof array->dim);
    if (__builtin_mul_overflow((uint64_t)gp_array_numel(array), gd_dtype_size(stored->dtype),
                               &stored->bytes)) {
        return gp_fail(error, GP_BODY_TOO_LARGE, pointer, "%s is too large", name);
    }
    upload->found[part] = true;
    if (!gp_array_usable(array, kept_as[array->dtype].kept)) {
        return rewrite(upload, part, array, error);
    }
    upload->file[part] = 0;
    stored->offset = (uint64_t)((const char *)array->data - base);
    return hash(upload, array->data, stored, error);
}

static int check_rows(const gs_upload *upload, gp_error *error) {
    const int64_t inputs = upload->stored[0].shape.dim[0], targets = upload->stored[1].shape.dim[0];
    if (inputs == targets) {
        return 0;
    }
    return gp_fail(error, GP_SHAPE_MISMATCH, inputs < targets ? "/target" : "/input",
                   "input has %lld rows and target %lld: row %lld has no %s", (long long)inputs,
                   (long long)targets, (long long)(inputs < targets ? inputs : targets),
                   gs_part_names[inputs > targets]);
}

static int take_safetensors(gs_upload *upload, const char *base, size_t size, gp_error *error) {
    gp_safetensors read;
    if (gp_safetensors_read(base, size, 0, &read, error)) {
        return -1;
    }
    int result = 0;
    if (upload->part < GS_PARTS) {
        result =
            read.count == 1
                ? take(upload, upload->part, &read.arrays[0].array, base, error)
                : gp_fail(error, GP_INVALID_TENSOR, "",
                          "one tensor is expected, but the file has %zu; PUT input and target together to "
                          "the split",
                          read.count);
    } else {
        for (size_t i = 0; i < read.count && !result; i++) {
            int part = gs_part_find(read.arrays[i].name);
            result = part < 0 ? gp_fail(error, GP_UNKNOWN_FIELD, "",
                                        "there is a tensor \"%.64s\"; a split has input and target",
                                        read.arrays[i].name)
                              : take(upload, part, &read.arrays[i].array, base, error);
        }
        for (int part = 0; part < GS_PARTS && !result; part++) {
            result = upload->found[part] ? 0
                                         : gp_fail(error, GP_MISSING_FIELD, "", "there is no tensor \"%s\"",
                                                   gs_part_names[part]);
        }
        result = result ? result : check_rows(upload, error);
    }
    gp_safetensors_release(&read);
    return result;
}

static int take_one(gs_upload *upload, gp_format format, const char *base, size_t size, gp_error *error) {
    gp_array array;
    if (format == GP_SAFETENSORS) {
        return take_safetensors(upload, base, size, error);
    }
    if (format == GP_NPY ? gp_npy_read(base, size, &array, error) : gp_idx_read(base, size, &array, error)) {
        return -1;
    }
    return take(upload, upload->part, &array, base, error);
}

/* ---- formats ------------------------------------------------------------------------------------- */

/* Into a file as it comes, then look at it. */
static int receive_binary(gs_upload *upload, gp_format format, peeked *stream, gp_error *error) {
    char *piece = malloc(PIECE);
    void *data = NULL;
    int result = piece ? create(upload, 0, error)
                       : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the upload");
    for (size_t got = 1; got && !result;) {
        result = read_peeked(stream, piece, PIECE, &got, error);
        result = result ? result : put(upload, 0, piece, got, error);
    }
    free(piece);
    if (result || map(upload, 0, &data, error)) {
        return -1;
    }
    const size_t size = (size_t)upload->files[0].size;
    result = take_one(upload, format, data, size, error);
    munmap(data, size);
    return result;
}

/* Whole numbers were written until now; from here on they are float32. In place: each is half as long. */
static int turn_to_floats(gs_upload *upload, gp_error *error) {
    enum { COUNT = 4096 };
    int64_t whole[COUNT];
    float real[COUNT];
    gs_file *file = &upload->files[0];
    const uint64_t numel = file->size / sizeof *whole;
    int fd = reopen(upload, 0, O_RDWR);
    bool ok = fd >= 0;
    for (uint64_t first = 0; first < numel && ok; first += COUNT) {
        const size_t count = numel - first < COUNT ? (size_t)(numel - first) : COUNT;
        ok = pread(fd, whole, count * sizeof *whole, (off_t)(first * sizeof *whole)) ==
             (ssize_t)(count * sizeof *whole);
        for (size_t i = 0; i < count && ok; i++) {
            real[i] = (float)whole[i];
        }
        ok = ok && pwrite(fd, real, count * sizeof *real, (off_t)(first * sizeof *real)) ==
                       (ssize_t)(count * sizeof *real);
    }
    if (fd >= 0) {
        close(fd);
    }
    file->size = numel * sizeof *real;
    ok = ok && lseek(file->fd, (off_t)file->size, SEEK_SET) >= 0;
    return ok ? 0 : fail_io(error);
}

static int write_csv(gs_upload *upload, gp_csv *csv, gp_error *error) {
    bool real = false;
    do {
        if (gp_csv_next(csv, error) || (csv->real && !real && turn_to_floats(upload, error))) {
            return -1;
        }
        real = csv->real;
        if (put(upload, 0, &csv->values, csv->count * (real ? sizeof(float) : sizeof(int64_t)), error)) {
            return -1;
        }
    } while (csv->count);
    return 0;
}

static int receive_csv(gs_upload *upload, peeked *stream, gp_error *error) {
    gp_csv *csv = calloc(1, sizeof *csv);
    void *data = NULL;
    if (!csv) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the upload");
    }
    csv->read = read_peeked;
    csv->argument = stream;
    int result = create(upload, 0, error) || write_csv(upload, csv, error) ? -1 : 0;
    gp_array array = {.dtype = csv->real ? GP_FLOAT32 : GP_INT64,
                      .rank = csv->columns == 1 && upload->part == 1 ? 1 : 2,
                      .dim = {csv->rows, csv->columns},
                      .size = (size_t)upload->files[0].size};
    free(csv);
    if (result || map(upload, 0, &data, error)) {
        return -1;
    }
    array.data = data;
    result = take(upload, upload->part, &array, data, error);
    munmap(data, array.size);
    return result;
}

static int receive_plain(gs_upload *upload, peeked *stream, gp_error *error) {
    if (peek(stream, error)) {
        return -1;
    }
    const gp_format format = gp_format_detect(stream->head, stream->size);
    const bool binary = format == GP_NPY || format == GP_IDX || format == GP_SAFETENSORS;
    if (!binary && !(format == GP_UNKNOWN && gp_csv_detect(stream->head, stream->size))) {
        return gp_fail(error, GP_INVALID_TENSOR, "",
                       "the file %s; send IDX, npy, safetensors or CSV, as it is or gzip'ed",
                       stream->size ? "begins like none of the formats known here" : "is empty");
    }
    if (upload->part == GS_PARTS && format != GP_SAFETENSORS) {
        return gp_fail(error, GP_INVALID_TENSOR, "",
                       "a whole split is one safetensors file with input and target; PUT one of the two to "
                       ".../input or .../target");
    }
    return binary ? receive_binary(upload, format, stream, error) : receive_csv(upload, stream, error);
}

static int receive(gs_upload *upload, peeked *raw, peeked *expanded, gp_error *error) {
    if (peek(raw, error)) {
        return -1;
    }
    if (gp_format_detect(raw->head, raw->size) != GP_GZIP) {
        return receive_plain(upload, raw, error);
    }
    gp_expander *expander = gp_expander_new(read_peeked, raw, upload->max);
    if (!expander) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the upload");
    }
    *expanded = (peeked){.read = gp_expander_read, .argument = expander};
    int result = receive_plain(upload, expanded, error);
    gp_expander_free(expander);
    return result;
}

void gs_upload_receive(gs_upload *upload, gp_read *read, void *argument) {
    peeked raw = {.read = read, .argument = argument}, expanded;
    gp_error error = {0};
    if (receive(upload, &raw, &expanded, &error)) {
        gs_upload_release(upload);
        memset(upload->found, 0, sizeof upload->found);
    } else if (!upload->found[0] || upload->file[0]) {
        if (!upload->found[1] || upload->file[1]) {
            gs_file_abandon(&upload->files[0]); /* all of it was rewritten */
        }
    }
    upload->error = error;
}

/* ---- the end ------------------------------------------------------------------------------------- */

static int make_name(char name[GS_FILE_NAME], gp_error *error) {
    uint64_t bits[2];
    if (getrandom(bits, sizeof bits, 0) != sizeof bits) {
        return gp_fail(error, GP_INTERNAL, "", "there are no random numbers to name a file with");
    }
    snprintf(name, GS_FILE_NAME, "%016" PRIx64 "%016" PRIx64, bits[0], bits[1]);
    return 0;
}

int gs_upload_commit(gs_upload *upload, gp_error *error) {
    for (int i = 0; i < 1 + GS_PARTS; i++) {
        char name[GS_FILE_NAME];
        if (upload->files[i].fd < 0) {
            continue;
        }
        if (make_name(name, error) || gs_file_commit(&upload->files[i], name, error)) {
            gs_upload_take_back(upload);
            return -1;
        }
        upload->files[i].fd = -1;
        memcpy(upload->names[i], name, sizeof name);
    }
    return 0;
}

void gs_upload_release(gs_upload *upload) {
    for (int i = 0; i < 1 + GS_PARTS; i++) {
        if (upload->files[i].fd >= 0) {
            gs_file_abandon(&upload->files[i]);
            upload->files[i].fd = -1;
        }
    }
}

void gs_upload_take_back(gs_upload *upload) {
    for (int i = 0; i < 1 + GS_PARTS; i++) {
        if (*upload->names[i]) {
            gs_file_remove(upload->store, GS_FOLDER_DATASETS, upload->names[i]);
            *upload->names[i] = '\0';
        }
    }
}
