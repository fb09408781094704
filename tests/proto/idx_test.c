/* idx_test.c -- MNIST's format and gzip. tests/golden/wire/make_wire.py made the files. */
#include <zlib.h>

#include "tests/proto/wire.h"

enum { MAX = 1 << 20 };

static int read_idx(const void *data, size_t size, gp_error *error) {
    gp_array array;
    float values[64];
    if (gp_idx_read(data, size, &array, error) < 0)
        return -1;
    return gp_array_numel(&array) <= 64 ? gp_array_convert(&array, GP_FLOAT32, values, "x", error) : 0;
}

static int read_gzip(const void *data, size_t size, gp_error *error) {
    void *expanded;
    size_t expanded_size;
    if (gp_gunzip(data, size, MAX, &expanded, &expanded_size, error) < 0)
        return -1;
    free(expanded);
    return 0;
}

static void images_and_big_endian_doubles_are_read(void **state) {
    (void)state;
    static const struct {
        const char *path;
        gp_dtype dtype;
    } files[] = {{"tests/golden/wire/plain.idx", GP_UINT8}, {"tests/golden/wire/float64.idx", GP_FLOAT64}};
    for (int i = 0; i < 2; i++) {
        size_t size;
        char *bytes = test_read_file(files[i].path, &size);
        gp_array array;
        float values[6];
        assert_int_equal(gp_idx_read(bytes, size, &array, NULL), 0);
        assert_int_equal(array.dtype, files[i].dtype);
        assert_int_equal(gp_array_numel(&array), 6);
        assert_int_equal(gp_array_usable(&array, GP_UINT8), i == 0);
        assert_int_equal(gp_array_convert(&array, GP_FLOAT32, values, "x", NULL), 0);
        for (int k = 0; k < 6; k++)
            assert_true(values[k] == (float)k);
        wire_truncate(read_idx, bytes, size);
        wire_flip(read_idx, bytes, size);
        free(bytes);
    }
}

static void what_is_not_exactly_the_format_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *part;
    } rows[] = {
        {"\0\0\x08\x01\0\0\0\x02\x01", 9, "make 2 bytes of data, but 1"},
        {"\0\0\x08\x01\0\0\0\x02\x01\x02\x03", 11, "make 2 bytes of data, but 3"},
        {"\0\0\x08\x01\0\0\0", 7, "ends within the header"},
        {"\0\0\x0a\x01\0\0\0\0", 8, "type 0x0a"},
        {"\0\0\x00\x01\0\0\0\0", 8, "type 0x00"},
        {"\0\0\x08\x00\0", 5, "0 axes; 1 to 8"},
        {"\0\0\x08\x09\0\0\0\0", 8, "9 axes; 1 to 8"},
        {"\0\x01\x08\x01\0\0\0\0", 8, "whole IDX header"},
        {"\0\0\x0e\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16, "more elements than memory"},
        {"\0\0\x08\x04\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 20,
         "more elements than memory"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gp_error error = {.problem = GP_OK};
        wire_assert_refused(wire_read_copy(read_idx, rows[i].bytes, rows[i].size, &error), &error,
                            rows[i].part, rows[i].part);
    }
}

static void gzip_of_one_and_of_two_members_expands(void **state) {
    (void)state;
    static const char *const paths[] = {"tests/golden/wire/packed.idx.gz",
                                        "tests/golden/wire/two_members.gz"};
    size_t plain_size;
    char *plain = test_read_file("tests/golden/wire/plain.idx", &plain_size);
    for (int i = 0; i < 2; i++) {
        size_t size, expanded_size;
        void *expanded;
        char *bytes = test_read_file(paths[i], &size);
        assert_int_equal(gp_gunzip(bytes, size, MAX, &expanded, &expanded_size, NULL), 0);
        assert_int_equal(expanded_size, plain_size);
        assert_memory_equal(expanded, plain, plain_size);
        free(expanded);
        free(bytes);
    }
    free(plain);
}

static void expansion_stops_at_the_limit_and_not_before(void **state) {
    (void)state;
    size_t size, plain_size, expanded_size;
    void *expanded;
    char *bytes = test_read_file("tests/golden/wire/packed.idx.gz", &size);
    gp_error error = {.problem = GP_OK};
    free(test_read_file("tests/golden/wire/plain.idx", &plain_size));
    assert_int_equal(gp_gunzip(bytes, size, plain_size, &expanded, &expanded_size, NULL), 0);
    free(expanded);
    assert_int_equal(gp_gunzip(bytes, size, SIZE_MAX, &expanded, &expanded_size, NULL), 0);
    free(expanded);
    for (size_t max = 0; max < plain_size; max++) {
        error.problem = GP_OK;
        wire_assert_refused(gp_gunzip(bytes, size, max, &expanded, &expanded_size, &error), &error,
                            "expands to more than", "limit");
        assert_int_equal(error.problem, GP_BODY_TOO_LARGE);
    }
    free(bytes);
}

static void truncated_and_damaged_gzip_does_no_harm(void **state) {
    (void)state;
    size_t size;
    char *bytes = test_read_file("tests/golden/wire/packed.idx.gz", &size);
    wire_truncate(read_gzip, bytes, size);
    wire_flip(read_gzip, bytes, size);
    char *longer = malloc(size + 1);
    assert_non_null(longer);
    memcpy(longer, bytes, size);
    longer[size] = 'x';
    gp_error error = {.problem = GP_OK};
    wire_assert_refused(wire_read_copy(read_gzip, longer, size + 1, &error), &error,
                        "gzip:", "trailing byte");
    free(longer);
    free(bytes);
}

static void a_large_file_grows_its_buffer(void **state) {
    (void)state;
    enum { SIZE = 1 << 19 };
    unsigned char *plain = malloc(SIZE), *packed = malloc(2 * SIZE);
    uint64_t random = 1;
    assert_true(plain && packed);
    for (int i = 0; i < SIZE; i++)
        plain[i] = (unsigned char)(wire_random(&random) & 15);
    z_stream z = {.next_in = plain, .avail_in = SIZE, .next_out = packed, .avail_out = 2 * SIZE};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    void *expanded;
    size_t expanded_size;
    assert_int_equal(gp_gunzip(packed, z.total_out, SIZE, &expanded, &expanded_size, NULL), 0);
    assert_int_equal(expanded_size, SIZE);
    assert_memory_equal(expanded, plain, SIZE);
    free(expanded);
    free(packed);
    free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_and_big_endian_doubles_are_read),
        cmocka_unit_test(what_is_not_exactly_the_format_is_refused),
        cmocka_unit_test(gzip_of_one_and_of_two_members_expands),
        cmocka_unit_test(expansion_stops_at_the_limit_and_not_before),
        cmocka_unit_test(truncated_and_damaged_gzip_does_no_harm),
        cmocka_unit_test(a_large_file_grows_its_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
