/* datasets_test.c -- uploads in every format, what is refused, what a restart finds. */
#include "tests/support.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/http.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- a daemon whose data outlive it -------------------------------------------------------------- */

typedef struct fixture {
    test_folder folder;
    char path[300], files[320]; /* the data directory, and its datasets */
    test_daemon daemon;
} fixture;

static void start(fixture *f, const char *flag, const char *value) {
    test_daemon_start(&f->daemon, ARGS("--data-dir", f->path, "--request-timeout", "2", flag, value));
}

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    test_folder_make(&f->folder);
    snprintf(f->path, sizeof f->path, "%s/state", f->folder.path);
    snprintf(f->files, sizeof f->files, "%s/datasets", f->path);
    start(f, NULL, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    test_daemon_stop(&f->daemon);
    test_folder_remove(&f->folder);
    free(f);
    return 0;
}

static int count_files(const fixture *f) {
    DIR *folder = opendir(f->files);
    int count = 0;
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        count += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    }
    closedir(folder);
    return count;
}

/* What goes away goes away soon: the daemon notices a client's end a moment later. */
static void expect_files(const fixture *f, int count) {
    for (int waited = 0; count_files(f) != count && waited < 5000; waited++) {
        usleep(1000);
    }
    assert_int_equal(count_files(f), count);
}

/* PUT these bytes, on a connection of its own. */
static void put(const fixture *f, const char *path, const void *bytes, size_t size, int status,
                const char *part) {
    test_reply reply;
    char full[256];
    int fd = test_connect(f->daemon.port);
    snprintf(full, sizeof full, "/v1/datasets/%s", path);
    test_request(fd, "PUT", full, "", bytes, size, &reply);
    close(fd);
    if (reply.status != status || !strstr(reply.body, part)) {
        fail_msg("PUT %s: %d, not %d with \"%s\": %s", path, reply.status, status, part, reply.body);
    }
    test_reply_release(&reply);
}

static void put_text(const fixture *f, const char *path, const char *text, int status, const char *part) {
    put(f, path, text, strlen(text), status, part);
}

static void put_file(const fixture *f, const char *path, const char *file, int status, const char *part) {
    size_t size;
    char *bytes = test_read_file(file, &size);
    put(f, path, bytes, size, status, part);
    free(bytes);
}

static void get(const fixture *f, const char *path, int status, const char *part) {
    char full[256];
    snprintf(full, sizeof full, "/v1/datasets/%s", path);
    test_expect(&f->daemon, "GET", full, NULL, status, part);
}

static void *gzip(const void *data, size_t size, size_t *ret_size) {
    z_stream z = {.next_in = (void *)(uintptr_t)data, .avail_in = (uInt)size};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t room = deflateBound(&z, (uLong)size);
    unsigned char *packed = malloc(room);
    assert_non_null(packed);
    z.next_out = packed;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *ret_size = z.total_out;
    deflateEnd(&z);
    return packed;
}

/* ---- formats ------------------------------------------------------------------------------------- */

/* What a dtype is kept as. */
static gp_dtype kept(gp_dtype dtype) {
    switch (dtype) {
    case GP_FLOAT32:
    case GP_FLOAT64:
    case GP_FLOAT16:
    case GP_BFLOAT16:
        return GP_FLOAT32;
    case GP_UINT8:
    case GP_INT32:
        return dtype;
    default:
        return GP_INT64;
    }
}

/* Rows as safetensors are those of `array`, as they are to be kept. */
static void expect_rows(const fixture *f, const char *path, const gp_array *array, const char *name) {
    test_reply reply;
    char full[256];
    const gp_dtype dtype = kept(array->dtype);
    const size_t size = (size_t)gp_array_numel(array) * gp_dtype_size(dtype);
    void *expected = malloc(size);
    gp_safetensors read;
    assert_int_equal(gp_array_convert_part(array, 0, gp_array_numel(array), dtype, expected, "x", NULL), 0);
    snprintf(full, sizeof full, "/v1/datasets/%s", path);
    int fd = test_connect(f->daemon.port);
    test_request(fd, "GET", full, "Accept: application/x-safetensors\r\n", "", 0, &reply);
    close(fd);
    assert_int_equal(reply.status, 200);
    assert_int_equal(gp_safetensors_read(reply.body, reply.size, 0, &read, NULL), 0);
    const gp_array *got = gp_safetensors_find(&read, name);
    assert_non_null(got);
    assert_int_equal(got->dtype, dtype);
    assert_int_equal(got->rank, array->rank);
    assert_memory_equal(got->dim, array->dim, (size_t)got->rank * sizeof *got->dim);
    assert_int_equal(got->size, size);
    assert_memory_equal(got->data, expected, size);
    gp_safetensors_release(&read);
    test_reply_release(&reply);
    free(expected);
}

static void every_type_that_numpy_writes_comes_back(void **state) {
    fixture *f = *state;
    static const char *const names[] = {
        "little_f4", "little_f8",  "little_f2",      "little_i1", "little_u1",   "little_i2",
        "little_u2", "little_i4",  "little_u4",      "little_i8", "little_b1",   "big_f4",
        "big_f8",    "big_f2",     "big_i2",         "big_u2",    "big_i4",      "big_u4",
        "big_i8",    "fortran_f4", "fortran_big_i2", "vector_i8", "version2_f4", "version3_f4"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        size_t size, packed_size;
        gp_array array;
        snprintf(path, sizeof path, "tests/golden/wire/%s.npy", names[i]);
        char *bytes = test_read_file(path, &size);
        assert_int_equal(gp_npy_read(bytes, size, &array, NULL), 0);
        put(f, "npy/train/input", bytes, size, i ? 200 : 201, gp_dtype_name(kept(array.dtype)));
        expect_rows(f, "npy/train/input", &array, "input");
        void *packed = gzip(bytes, size, &packed_size);
        put(f, "npy/train/target", packed, packed_size, i ? 200 : 201, "sha256");
        expect_rows(f, "npy/train/target", &array, "target");
        free(packed);
        free(bytes);
    }
    expect_files(f, 2); /* what was replaced is gone */
    put_file(f, "npy/train/input", "tests/golden/wire/refused_c8.npy", 400, "unsupported_dtype");
    put_file(f, "npy/train/input", "tests/golden/wire/scalar_f8.npy", 400, "single number");
    put_file(f, "npy/train/input", "tests/golden/wire/empty_f4.npy", 400, "empty");
    expect_files(f, 2);
}

static void idx_comes_back_plain_and_packed(void **state) {
    fixture *f = *state;
    static const char *const names[] = {"plain.idx", "packed.idx.gz", "two_members.gz", "float64.idx"};
    for (size_t i = 0; i < 4; i++) {
        char path[256];
        size_t size, plain_size;
        gp_array array;
        snprintf(path, sizeof path, "tests/golden/wire/%s", names[i]);
        put_file(f, "idx/train/input", path, i ? 200 : 201, "sha256");
        char *bytes = test_read_file(path, &size);
        void *plain = bytes;
        if (strstr(path, ".gz")) {
            assert_int_equal(gp_gunzip(bytes, size, 1 << 20, &plain, &plain_size, NULL), 0);
            size = plain_size;
        }
        assert_int_equal(gp_idx_read(plain, size, &array, NULL), 0);
        expect_rows(f, "idx/train/input", &array, "input");
        if (plain != bytes) {
            free(plain);
        }
        free(bytes);
    }
    get(f, "idx/train/input?offset=1&limit=1", 200, "\"shape\": [1]");
    get(f, "idx/train/input?offset=99", 400, "offset");
}

/* A safetensors file with these arrays; free() it. */
static char *make_safetensors(gp_named_array *arrays, size_t count, size_t *ret_size) {
    size_t header = gp_safetensors_header_size(arrays, count, NULL), size = header;
    for (size_t i = 0; i < count; i++) {
        size += arrays[i].array.size;
    }
    char *bytes = malloc(size), *out = bytes + header;
    assert_non_null(bytes);
    gp_safetensors_write_header(arrays, count, NULL, bytes);
    for (size_t i = 0; i < count; i++) {
        memcpy(out, arrays[i].array.data, arrays[i].array.size);
        out += arrays[i].array.size;
    }
    *ret_size = size;
    return bytes;
}

/* uint8 (3, 5), so that what follows is not aligned; int64 (n). */
static gp_named_array input_array(const uint8_t pixels[15]) {
    return (gp_named_array){"input",
                            {.dtype = GP_UINT8, .rank = 2, .dim = {3, 5}, .data = pixels, .size = 15}};
}

static gp_named_array target_array(const int64_t *labels, int64_t rows) {
    return (gp_named_array){
        "target",
        {.dtype = GP_INT64, .rank = 1, .dim = {rows}, .data = labels, .size = (size_t)rows * sizeof *labels}};
}

static void a_split_comes_in_one_safetensors(void **state) {
    fixture *f = *state;
    static const uint8_t pixels[15] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    static const int64_t labels[4] = {7, 8, 9, 10};
    size_t size;
    for (int unaligned = 0; unaligned < 2; unaligned++) {
        gp_named_array arrays[2];
        arrays[unaligned ? 0 : 1] = input_array(pixels);
        arrays[unaligned ? 1 : 0] = target_array(labels, 3);
        char *bytes = make_safetensors(arrays, 2, &size);
        put(f, "st/train", bytes, size, unaligned ? 200 : 201,
            "\"target\":{\"dtype\":\"int64\",\"shape\":[3]");
        free(bytes);
        expect_rows(f, "st/train/input", &arrays[unaligned ? 0 : 1].array, "input");
        expect_rows(f, "st/train/target", &arrays[unaligned ? 1 : 0].array, "target");
        get(f, "st", 200, "\"count\":3");
        expect_files(f, 1 + unaligned); /* one for both where that goes */
    }
    gp_named_array wrong[2] = {target_array(labels, 4), input_array(pixels)};
    char *bytes = make_safetensors(wrong, 2, &size);
    put(f, "st/train", bytes, size, 400, "input has 3 rows and target 4: row 3 has no input");
    put(f, "st/train/input", bytes, size, 400, "one tensor is expected, but the file has 2");
    free(bytes);
    bytes = make_safetensors(wrong, 1, &size);
    put(f, "st/train", bytes, size, 400, "there is no tensor \\\"input\\\"");
    put(f, "st/train/target", bytes, size, 200, "\"rows\":4");
    free(bytes);
    get(f, "st", 200, "\"count\":null");
    snprintf(wrong[0].name, sizeof wrong[0].name, "labels");
    bytes = make_safetensors(wrong, 2, &size);
    put(f, "st/train", bytes, size, 400, "labels");
    free(bytes);
    put_text(f, "st/train", "1,2\n", 400, "a whole split is one safetensors file");
    expect_files(f, 2);
}

static void csv_comes_back_as_integers_or_floats(void **state) {
    fixture *f = *state;
    put_text(f, "csv/train/input", "a,b\n1,2\n3,4\n5,6\n", 201, "\"dtype\":\"int64\",\"shape\":[3,2]");
    get(f, "csv/train/input", 200, "[[1,2],[3,4],[5,6]]");
    put_text(f, "csv/train/input", "1,2\n3,4.5\n", 200, "\"dtype\":\"float32\",\"shape\":[2,2]");
    get(f, "csv/train/input", 200, "[[1,2],[3,4.5]]");
    put_text(f, "csv/train/target", "1\n0\n", 201, "\"shape\":[2]");
    put_text(f, "csv/test/input", "1\n0\n", 201, "\"shape\":[2,1]");
    put_text(f, "csv/test/target", "1,0\n0,1\n", 201, "\"shape\":[2,2]");
    put_text(f, "csv/test/target", "1,0\n0\n", 400, "line 2 has 1 numbers");
    put_text(f, "csv/test/target", "1,0\n0,x\n", 400, "line 2, column 2");
    get(f, "csv/test/target", 200, "[[1,0],[0,1]]");
    expect_files(f, 4);
}

/* Large enough to have been written as whole numbers before the last line says that they are not. */
static void a_large_csv_turns_to_floats_at_its_end(void **state) {
    fixture *f = *state;
    enum { ROWS = 300000 };
    char *text = malloc(ROWS * 8 + 8);
    assert_non_null(text);
    size_t size = 0, packed_size;
    for (int i = 0; i < ROWS; i++) {
        size += (size_t)snprintf(text + size, 9, "%d\n", i);
    }
    size += (size_t)snprintf(text + size, 8, "0.5\n");
    void *packed = gzip(text, size, &packed_size);
    put(f, "big/train/target", packed, packed_size, 201, "\"dtype\":\"float32\",\"shape\":[300001]");
    get(f, "big/train/target?offset=0&limit=3", 200, "[0,1,2]");
    get(f, "big/train/target?offset=123456&limit=2", 200, "[123456,123457]");
    get(f, "big/train/target?offset=299999", 200, "[299999,0.5]");
    get(f, "big", 200, "\"bytes\":1200004");
    free(packed);
    free(text);
}

static void mnist_comes_back(void **state) {
    fixture *f = *state;
    static const char *const paths[] = {"../shared/data/mnist/", "../../shared/data/mnist/", "/data/mnist/"};
    char images[256] = "", labels[256];
    for (size_t i = 0; i < 3 && access(images, R_OK); i++) {
        snprintf(images, sizeof images, "%strain-images-idx3-ubyte.gz", paths[i]);
        snprintf(labels, sizeof labels, "%strain-labels-idx1-ubyte.gz", paths[i]);
    }
    if (access(images, R_OK)) {
        print_message("no MNIST in ../shared/data/mnist\n");
        skip();
    }
    put_file(f, "mnist/train/input", images, 201, "\"dtype\":\"uint8\",\"shape\":[60000,28,28]");
    put_file(f, "mnist/train/target", labels, 201, "\"shape\":[60000]");
    get(f, "mnist/train/target?limit=5", 200, "[5,0,4,1,9]");
    get(f, "mnist", 200, "\"count\":60000");
}

/* ---- what is refused, and leaves nothing ------------------------------------------------------------------
 */

static void what_is_no_dataset_is_refused_and_leaves_nothing(void **state) {
    fixture *f = *state;
    static const char *const good[] = {"tests/golden/wire/plain.idx", "tests/golden/wire/packed.idx.gz",
                                       "tests/golden/wire/big_f8.npy", "tests/golden/wire/all.safetensors"};
    for (size_t i = 0; i < 4; i++) { /* cut, and with a byte too many */
        size_t size;
        char *bytes = test_read_file(good[i], &size);
        for (size_t length = 1; length < size; length += 1 + size / 16) {
            put(f, "bad/train/input", bytes, length, 400, "\"status\": 400");
        }
        put(f, "bad/train/input", bytes, size + 1, 400, "\"status\": 400"); /* test_read_file() adds a NUL */
        free(bytes);
    }
    put_text(f, "bad/train/input", "{\"input\": [1]}", 400, "none of the formats");
    put(f, "bad/train/input", "\x89PNG\r\n\x1a\n", 8, 400, "none of the formats");
    put(f, "bad/train/input", "", 0, 400, "send the file as the body");
    put_text(f, "bad/train/inputs", "1\n", 404, "no \\\"inputs\\\"");
    put_text(f, "-bad/train/input", "1\n", 400, "invalid_name");
    put_text(f, "bad/-train/input", "1\n", 400, "invalid_name");
    put_text(f, "digits/train/input", "1\n", 409, "built in");
    test_expect(&f->daemon, "DELETE", "/v1/datasets/digits", NULL, 409, "built in");
    test_expect(&f->daemon, "DELETE", "/v1/datasets/bad", NULL, 404, "no dataset named");
    get(f, "bad", 404, "not_found");
    get(f, "digits/train/labels", 404, "train/input");
    int fd = test_connect(f->daemon.port);
    test_reply reply;
    test_request(fd, "PUT", "/v1/datasets/bad/train/input", "Content-Type: application/json\r\n", "1\n", 2,
                 &reply);
    assert_int_equal(reply.status, 415);
    test_reply_release(&reply);
    close(fd);
    expect_files(f, 0);
}

static void a_value_that_does_not_fit_is_named(void **state) {
    fixture *f = *state;
    static const double values[4] = {1, 2, 3, 1e39};
    gp_named_array array = {"x", {.dtype = GP_FLOAT64, .rank = 2, .dim = {2, 2}, .data = values, .size = 32}};
    size_t size;
    char *bytes = make_safetensors(&array, 1, &size);
    put(f, "fit/train/input", bytes, size, 400, "input[1][1] is 1e+39, which float32 cannot hold");
    free(bytes);
    expect_files(f, 0);
}

static void limits_hold(void **state) {
    fixture *f = *state;
    test_reply reply;
    test_daemon_stop(&f->daemon);
    test_daemon_start(&f->daemon, ARGS("--data-dir", f->path, "--max-dataset", "64K", "--max-datasets", "1",
                                       "--request-timeout", "2"));
    int fd = test_connect(f->daemon.port);
    test_send_text(
        fd, "PUT /v1/datasets/a/train/input HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n");
    assert_true(test_receive(fd, false, &reply)); /* without its body */
    assert_int_equal(reply.status, 413);
    assert_non_null(strstr(reply.body, "--max-dataset"));
    test_reply_release(&reply);
    close(fd);
    fd = test_connect(f->daemon.port); /* in chunks */
    test_send_text(fd, "PUT /v1/datasets/a/train/input HTTP/1.1\r\nHost: localhost\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 70; i++) {
        char chunk[1024 + 1];
        memset(chunk, '1', sizeof chunk);
        chunk[1023] = '\n';
        test_send_text(fd, "400\r\n");
        test_send(fd, chunk, 1024);
        test_send_text(fd, "\r\n");
    }
    test_send_text(fd, "0\r\n\r\n");
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 413);
    test_reply_release(&reply);
    close(fd);
    /* 200 bytes that would be 100 KB; and numbers that take more room than their text */
    static const char zeros[100000];
    size_t size;
    void *packed = gzip(zeros, sizeof zeros, &size);
    assert_true(size < 1000);
    put(f, "a/train/input", packed, size, 400, "none of the formats");
    free(packed);
    char *text = malloc(100000);
    for (int i = 0; i < 50000; i++) {
        memcpy(text + 2L * i, "1\n", 2);
    }
    packed = gzip(text, 100000, &size);
    put(f, "a/train/input", packed, size, 413, "body_too_large");
    put(f, "a/train/input", text, 20000, 413, "--max-dataset");
    put(f, "a/train/input", text, 10000, 201, "5000");
    put(f, "b/train/input", text, 10000, 429, "too_many_datasets");
    free(packed);
    free(text);
    expect_files(f, 1);
}

static void a_client_that_goes_away_leaves_no_file(void **state) {
    fixture *f = *state;
    static const char head[] = "PUT /v1/datasets/gone/train/input HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Length: 10000000\r\n\r\n";
    size_t size;
    char *bytes = test_read_file("tests/golden/wire/plain.idx", &size);
    for (int i = 0; i < 3; i++) {
        int fd = test_connect(f->daemon.port);
        test_send_text(fd, head);
        test_send(fd, bytes, size);
        for (int k = 0; k < 40 * i; k++) {
            static const char zeros[65536];
            test_send(fd, zeros, sizeof zeros);
        }
        if (i) {
            expect_files(f, 1);
        }
        close(fd);
        expect_files(f, 0);
    }
    free(bytes);
    get(f, "gone", 404, "not_found");
    test_expect(&f->daemon, "GET", "/v1/health/live", NULL, 200, "ok");
}

static void an_upload_that_stops_is_cut_off(void **state) {
    fixture *f = *state;
    int fd = test_connect(f->daemon.port);
    char *bytes = calloc(1, 3 << 20);
    assert_non_null(bytes);
    memcpy(bytes, "\0\0\x08\x01\x7f\0\0", 8);
    test_send_text(fd, "PUT /v1/datasets/slow/train/input HTTP/1.1\r\nHost: localhost\r\n"
                       "Content-Length: 2130706440\r\n\r\n");
    test_send(fd, bytes, 3 << 20);
    free(bytes);
    expect_files(f, 1);
    assert_true(test_is_closed(fd)); /* --request-timeout 2: within half a minute, however much came first */
    close(fd);
    expect_files(f, 0);
}

static void too_many_uploads_are_503(void **state) {
    fixture *f = *state;
    test_daemon_stop(&f->daemon);
    start(f, "--max-uploads", "1");
    int fd = test_connect(f->daemon.port);
    test_send_text(fd, "PUT /v1/datasets/one/train/target HTTP/1.1\r\nHost: localhost\r\n"
                       "Content-Length: 4\r\n\r\n1\n");
    for (int i = 0; i < 1000 && count_files(f) == 0; i++) { /* text is peeked at whole: nothing yet */
        usleep(100);
    }
    put_text(f, "two/train/target", "1\n", 503, "--max-uploads");
    test_send_text(fd, "2\n");
    test_reply reply;
    assert_true(test_receive(fd, false, &reply));
    assert_int_equal(reply.status, 201);
    test_reply_release(&reply);
    close(fd);
    put_text(f, "two/train/target", "1\n", 201, "");
}

/* ---- tags -------------------------------------------------------------------------------------------------
 */

static void parts_have_tags(void **state) {
    fixture *f = *state;
    test_reply reply;
    char etag[96], header[160], text[256];
    int fd = test_connect(f->daemon.port);
    test_request(fd, "PUT", "/v1/datasets/t/train/target", "", "1\n2\n", 4, &reply);
    assert_int_equal(reply.status, 201);
    test_header(&reply, "ETag", etag, sizeof etag);
    assert_int_equal(strlen(etag), 66);
    assert_string_equal(test_header(&reply, "Location", text, sizeof text), "/v1/datasets/t/train/target");
    test_reply_release(&reply);
    snprintf(header, sizeof header, "If-None-Match: %s\r\n", etag);
    test_request(fd, "GET", "/v1/datasets/t/train/target", header, "", 0, &reply);
    assert_int_equal(reply.status, 304);
    test_reply_release(&reply);
    snprintf(header, sizeof header, "If-Match: %s\r\n", etag);
    test_request(fd, "PUT", "/v1/datasets/t/train/target", header, "3\n4\n", 4, &reply);
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    test_request(fd, "PUT", "/v1/datasets/t/train/target", header, "5\n6\n", 4, &reply);
    assert_int_equal(reply.status, 412);
    test_reply_release(&reply);
    close(fd);
    get(f, "t/train/target", 200, "[3,4]");
    fd = test_connect(f->daemon.port);
    test_request(fd, "PUT", "/v1/datasets/t/test/target", "If-Match: *\r\n", "5\n6\n", 4, &reply);
    assert_int_equal(reply.status, 412);
    test_reply_release(&reply);
    close(fd);
}

static void datasets_are_listed_page_by_page(void **state) {
    fixture *f = *state;
    put_text(f, "a/train/target", "1\n", 201, "");
    put_text(f, "z/train/target", "1\n", 201, "");
    test_expect(&f->daemon, "GET", "/v1/datasets", NULL, 200, "\"next_cursor\":null");
    test_expect(&f->daemon, "GET", "/v1/datasets?limit=2", NULL, 200, "\"next_cursor\":\"digits\"");
    test_expect(&f->daemon, "GET", "/v1/datasets?limit=2&cursor=digits", NULL, 200, "\"name\":\"z\"");
    test_expect(&f->daemon, "DELETE", "/v1/datasets/z", NULL, 204, "");
    test_expect(&f->daemon, "GET", "/v1/datasets?cursor=digits", NULL, 200, "\"items\":[]");
    expect_files(f, 1);
}

/* ---- a restart --------------------------------------------------------------------------------------------
 */

static void what_was_acknowledged_is_there_after_a_crash(void **state) {
    fixture *f = *state;
    static const char head[] = "PUT /v1/datasets/torn/train/input HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Length: 10000000\r\n\r\n";
    char text[32], name[64];
    for (int i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "%d\n%d\n", i, i + 1);
        snprintf(name, sizeof name, "crash/split%d/target", i % 7);
        put_text(f, name, text, i < 7 ? 201 : 200, "");
    }
    put_text(f, "deleted/train/input", "1\n", 201, "");
    test_expect(&f->daemon, "DELETE", "/v1/datasets/deleted", NULL, 204, "");
    int fd = test_connect(f->daemon.port);
    size_t size;
    char *bytes = test_read_file("tests/golden/wire/plain.idx", &size);
    char *body = calloc(1, 1 << 16);
    assert_non_null(body);
    memcpy(body, bytes, size);
    test_send_text(fd, head);
    test_send(fd, body, 1 << 16);
    expect_files(f, 8);
    test_daemon_kill(&f->daemon);
    close(fd);
    free(body);
    free(bytes);
    start(f, NULL, NULL);
    expect_files(f, 7); /* the torn one is swept */
    for (int i = 13; i < 20; i++) {
        snprintf(text, sizeof text, "[%d,%d]", i, i + 1);
        snprintf(name, sizeof name, "crash/split%d/target", i % 7);
        get(f, name, 200, text);
    }
    get(f, "deleted", 404, "");
    get(f, "torn", 404, "");
}

static void a_file_that_is_gone_or_short_is_damage(void **state) {
    fixture *f = *state;
    put_text(f, "hurt/train/input", "1,2\n3,4\n", 201, "");
    put_text(f, "whole/train/input", "1\n", 201, "");
    test_daemon_stop(&f->daemon);
    DIR *folder = opendir(f->files);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat status;
        if (!fstatat(dirfd(folder), entry->d_name, &status, 0) && S_ISREG(status.st_mode) &&
            status.st_size == 32) {
            char path[640];
            snprintf(path, sizeof path, "%s/%s", f->files, entry->d_name);
            assert_int_equal(truncate(path, 31), 0);
        }
    }
    closedir(folder);
    start(f, NULL, NULL);
    get(f, "hurt", 200, "\"damaged\":true");
    get(f, "hurt/train/input", 503, "upload it again");
    get(f, "whole/train/input", 200, "[[1]]");
    char log[320];
    snprintf(log, sizeof log, "%s/log", f->daemon.folder.path);
    char *said = test_read_file(log, NULL);
    assert_non_null(strstr(said, "dataset damaged"));
    free(said);
    put_text(f, "hurt/train/input", "1,2\n3,4\n", 200, "");
    get(f, "hurt/train/input", 200, "[[1,2],[3,4]]");
    expect_files(f, 2);
}

/* ---- large --------------------------------------------------------------------------------------- */

static long peak_kib(pid_t pid) {
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "VmHWM:", 6)) {
            kib = strtol(line + 6, NULL, 10);
        }
    }
    fclose(file);
    return kib;
}

typedef struct watch {
    const test_daemon *daemon;
    atomic_bool stop;
    double worst_ms;
} watch;

/* Is it alive, over and over? */
static void *ask_health(void *argument) {
    watch *w = argument;
    while (!atomic_load(&w->stop)) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        test_expect(w->daemon, "GET", "/v1/health/live", NULL, 200, "ok");
        clock_gettime(CLOCK_MONOTONIC, &to);
        double ms = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6;
        w->worst_ms = ms > w->worst_ms ? ms : w->worst_ms;
        usleep(2000);
    }
    return NULL;
}

/* 300 MB of IDX, once as bytes that are used in place, once as float64 that is rewritten. */
static void a_large_upload_takes_little_memory(void **state) {
    fixture *f = *state;
    enum { PIECE = 1 << 20, PIECES = 300 };
    char *piece = calloc(1, PIECE);
    assert_non_null(piece);
    long before = peak_kib(f->daemon.pid);
    watch w = {.daemon = &f->daemon};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ask_health, &w), 0);
    for (int wide = 0; wide < 2; wide++) {
        char head[256];
        const uint32_t numel = (uint32_t)PIECES * PIECE / (wide ? 8 : 1);
        const unsigned char idx[8] = {0,
                                      0,
                                      wide ? 0x0e : 0x08,
                                      1,
                                      (unsigned char)(numel >> 24),
                                      (unsigned char)(numel >> 16),
                                      (unsigned char)(numel >> 8),
                                      (unsigned char)numel};
        test_reply reply;
        int fd = test_connect(f->daemon.port);
        snprintf(
            head, sizeof head,
            "PUT /v1/datasets/large/train/input HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n",
            PIECES * PIECE + 8);
        test_send_text(fd, head);
        test_send(fd, idx, sizeof idx);
        for (int i = 0; i < PIECES; i++) {
            test_send(fd, piece, PIECE);
        }
        assert_true(test_receive(fd, false, &reply));
        if (reply.status != 201 - wide) {
            fail_msg("%d: %s", reply.status, reply.body);
        }
        test_reply_release(&reply);
        close(fd);
        expect_files(f, 1);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    long grown = peak_kib(f->daemon.pid) - before;
    print_message("%ld KiB more at the peak; health within %.1f ms\n", grown, w.worst_ms);
#ifndef __SANITIZE_ADDRESS__
#ifndef __SANITIZE_THREAD__
    assert_true(grown < 32 * 1024);
#endif
#endif
    get(f, "large/train/input?limit=2", 200, "[0,0]");
    free(piece);
}

/* Many at once, so that threads and budgets meet. */
static void *put_many(void *argument) {
    const fixture *f = argument;
    for (int i = 0; i < 20; i++) {
        put_text(f, "shared/train/target", "1\n2\n3\n", 200, "rows");
        get(f, "shared/train/target", 200, "[1,2,3]");
    }
    return NULL;
}

static void puts_of_one_part_replace_each_other(void **state) {
    fixture *f = *state;
    pthread_t threads[4];
    put_text(f, "shared/train/target", "1\n2\n3\n", 201, "");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, f), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    expect_files(f, 1);
}

static void curl_uploads_files(void **state) {
    fixture *f = *state;
    test_output output;
    char url[256], path[512];
    if (access("/usr/bin/curl", X_OK)) {
        skip();
    }
    size_t size = 4 << 20;
    char *text = malloc(size + 1);
    assert_non_null(text);
    for (size_t i = 0; i < size; i += 4) {
        memcpy(text + i, "1,2\n", 4);
    }
    test_folder_write(&f->folder, "file.csv", text, size, path);
    free(text);
    snprintf(url, sizeof url, "%s/v1/datasets/curl/train/input", f->daemon.server);
    test_run(ARGS("/usr/bin/curl", "-sS", "-T", path, url), NULL, &output);
    assert_int_equal(output.status, 0);
    assert_non_null(strstr(output.out, "\"shape\":[1048576,2]"));
    test_output_release(&output);
    char at[600];
    snprintf(at, sizeof at, "@%s", path);
    test_run(ARGS("/usr/bin/curl", "-sS", "-X", "PUT", "--data-binary", at, url), NULL, &output);
    assert_non_null(strstr(output.out, "\"shape\":[1048576,2]"));
    test_output_release(&output);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_type_that_numpy_writes_comes_back),
        TEST(idx_comes_back_plain_and_packed),
        TEST(a_split_comes_in_one_safetensors),
        TEST(csv_comes_back_as_integers_or_floats),
        TEST(a_large_csv_turns_to_floats_at_its_end),
        TEST(mnist_comes_back),
        TEST(what_is_no_dataset_is_refused_and_leaves_nothing),
        TEST(a_value_that_does_not_fit_is_named),
        TEST(limits_hold),
        TEST(a_client_that_goes_away_leaves_no_file),
        TEST(an_upload_that_stops_is_cut_off),
        TEST(too_many_uploads_are_503),
        TEST(parts_have_tags),
        TEST(datasets_are_listed_page_by_page),
        TEST(what_was_acknowledged_is_there_after_a_crash),
        TEST(a_file_that_is_gone_or_short_is_damage),
        TEST(a_large_upload_takes_little_memory),
        TEST(puts_of_one_part_replace_each_other),
        TEST(curl_uploads_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
