/* npy_test.c -- numpy's files in, numpy's files out. tests/golden/wire/make_wire.py made the files. */
#include <math.h>

#include "tests/proto/wire.h"

static int read_npy(const void *data, size_t size, gp_error *error) {
    gp_array array;
    float values[64];
    if (gp_npy_read(data, size, &array, error) < 0)
        return -1;
    if (gp_array_numel(&array) <= 64) /* touch what it promises */
        return gp_array_convert(&array, GP_FLOAT32, values, "x", error);
    return 0;
}

static gp_array open_npy(const char *name, char **ret_bytes) {
    char path[256];
    size_t size;
    gp_array array;
    gp_error error = {.problem = GP_OK};
    snprintf(path, sizeof path, "tests/golden/wire/%s.npy", name);
    *ret_bytes = test_read_file(path, &size);
    if (gp_npy_read(*ret_bytes, size, &array, &error) < 0)
        fail_msg("%s: %s", name, error.detail);
    return array;
}

/* An npy file of version 1.0 with this header (spaces and a newline are added) and `data` zero bytes. */
static size_t make_npy(const char *header, size_t data, char *out, size_t room) {
    const size_t text = strlen(header), length = text + 3;
    assert_true(10 + length + data <= room);
    memset(out, 0, room);
    memcpy(out, "\x93NUMPY\x01", 8);
    out[8] = (char)(length & 0xff);
    out[9] = (char)(length >> 8);
    memcpy(out + 10, header, text);
    memcpy(out + 10 + text, "  \n", 3);
    return 10 + length + data;
}

static void every_type_order_and_version_that_numpy_writes_is_read(void **state) {
    (void)state;
    static const struct {
        const char *name;
        gp_dtype dtype;
    } files[] = {
        {"little_f4", GP_FLOAT32},   {"little_f8", GP_FLOAT64},    {"little_f2", GP_FLOAT16},
        {"little_i1", GP_INT8},      {"little_u1", GP_UINT8},      {"little_i2", GP_INT16},
        {"little_u2", GP_UINT16},    {"little_i4", GP_INT32},      {"little_u4", GP_UINT32},
        {"little_i8", GP_INT64},     {"big_f4", GP_FLOAT32},       {"big_f8", GP_FLOAT64},
        {"big_f2", GP_FLOAT16},      {"big_i2", GP_INT16},         {"big_u2", GP_UINT16},
        {"big_i4", GP_INT32},        {"big_u4", GP_UINT32},        {"big_i8", GP_INT64},
        {"fortran_f4", GP_FLOAT32},  {"fortran_big_i2", GP_INT16}, {"version2_f4", GP_FLOAT32},
        {"version3_f4", GP_FLOAT32}, {"little_b1", GP_BOOL},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *bytes;
        const gp_array array = open_npy(files[i].name, &bytes);
        float floats[6];
        int64_t ints[6];
        assert_int_equal(array.dtype, files[i].dtype);
        assert_int_equal(array.rank, 2);
        assert_int_equal(array.dim[0], 2);
        assert_int_equal(array.dim[1], 3);
        assert_int_equal(gp_array_convert(&array, GP_FLOAT32, floats, "x", NULL), 0);
        assert_int_equal(gp_array_convert(&array, GP_INT64, ints, "x", NULL), 0);
        for (int k = 0; k < 6; k++) {
            const int expected = array.dtype == GP_BOOL ? k % 2 : k;
            if (floats[k] != (float)expected || ints[k] != expected)
                fail_msg("%s[%d] is %g and %lld", files[i].name, k, (double)floats[k], (long long)ints[k]);
        }
        free(bytes);
    }
}

static void a_scalar_a_vector_and_an_empty_array_are_read(void **state) {
    (void)state;
    char *bytes;
    float value;
    gp_array array = open_npy("scalar_f8", &bytes);
    assert_int_equal(array.rank, 0);
    assert_int_equal(gp_array_convert(&array, GP_FLOAT32, &value, "x", NULL), 0);
    assert_true(value == 2.5f);
    free(bytes);
    array = open_npy("vector_i8", &bytes);
    assert_int_equal(array.rank, 1);
    assert_int_equal(array.dim[0], 6);
    free(bytes);
    array = open_npy("empty_f4", &bytes);
    assert_int_equal(gp_array_numel(&array), 0);
    assert_int_equal(array.dim[1], 3);
    free(bytes);
}

static void nan_infinities_negative_zero_and_subnormals_survive(void **state) {
    (void)state;
    static const char *const names[] = {"special_f4", "special_f2"};
    static const float tiny[] = {0x1p-149f, 0x1p-24f}, large[] = {0x1.fffffep127f, 65504};
    for (int i = 0; i < 2; i++) {
        char *bytes;
        float values[6];
        const gp_array array = open_npy(names[i], &bytes);
        assert_int_equal(gp_array_convert(&array, GP_FLOAT32, values, "x", NULL), 0);
        assert_true(isnan(values[0]));
        assert_true(values[1] == INFINITY && values[2] == -INFINITY);
        assert_true(values[3] == 0 && signbit(values[3]));
        assert_true(values[4] == tiny[i]);
        assert_true(values[5] == large[i]);
        free(bytes);
    }
}

static void types_without_a_place_here_are_named(void **state) {
    (void)state;
    static const struct {
        const char *name, *part;
    } files[] = {{"refused_c8", "'<c8'"},
                 {"refused_u8", "'<u8'"},
                 {"refused_text", "'<U1'"},
                 {"refused_struct", "one plain type"}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[256];
        size_t size;
        gp_array array;
        gp_error error = {.problem = GP_OK};
        snprintf(path, sizeof path, "tests/golden/wire/%s.npy", files[i].name);
        char *bytes = test_read_file(path, &size);
        wire_assert_refused(gp_npy_read(bytes, size, &array, &error), &error, files[i].part, files[i].name);
        free(bytes);
    }
}

static void what_is_not_exactly_the_format_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *part;
    } rows[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 23, "make 24 bytes of data, but 23"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 25, "make 24 bytes of data, but 25"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } 'x'", 24, "length is wrong"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), ", 24, "not a dict of"},
        {"['descr', '<f4']", 0, "not a dict"},
        {"{'descr': '<f4', 'fortran_order': False}", 0, "has no shape"},
        {"{'descr': '<f4', 'shape': ()}", 4, "has no fortran_order"},
        {"{'fortran_order': False, 'shape': ()}", 4, "has no descr"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}", 4, "one key twice"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), 'more': 1}", 4, "unknown key"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': ()}", 4, "neither True nor False"},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': ()}", 4, "not a dict of"},
        {"{'descr': 'f4', 'fortran_order': False, 'shape': ()}", 4, "'f4' is not read"},
        {"{'descr': '=f4', 'fortran_order': False, 'shape': ()}", 4, "'=f4' is not read"},
        {"{'descr': '|f4', 'fortran_order': False, 'shape': ()}", 4, "'|f4' is not read"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': ()}", 8, "'|O' is not read"},
        {"{'descr': '', 'fortran_order': False, 'shape': ()}", 4, "'' is not read"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 6}", 24, "not a tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6)}", 24, "one axis is written (3,)"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", 0, "tuple of axis lengths"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (06,)}", 24, "tuple of axis lengths"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6L,)}", 24, "tuple of axis lengths"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", 4, "tuple of axis lengths"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", 4,
         "tuple of axis lengths"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", 0,
         "more elements than memory"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4294967296, 4294967296)}", 0,
         "more elements than"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2305843009213693952,)}", 0,
         "more elements than memory"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 4, "more than 8 axes"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char bytes[512];
        gp_error error = {.problem = GP_OK};
        const size_t size = make_npy(rows[i].header, rows[i].data, bytes, sizeof bytes);
        wire_assert_refused(wire_read_copy(read_npy, bytes, size, &error), &error, rows[i].part,
                            rows[i].header);
    }
}

static void other_versions_and_long_headers_are_refused(void **state) {
    (void)state;
    char *bytes;
    size_t size;
    gp_array array;
    bytes = test_read_file("tests/golden/wire/version2_f4.npy", &size);
    for (int version = 0; version < 256; version++) {
        gp_error error = {.problem = GP_OK};
        if (version >= 1 && version <= 3)
            continue;
        bytes[6] = (char)version;
        wire_assert_refused(gp_npy_read(bytes, size, &array, &error), &error, "version", "version");
    }
    gp_error error = {.problem = GP_OK};
    bytes[6] = 2;
    memcpy(bytes + 8, "\x11\x27\0\0", 4); /* 10001 */
    wire_assert_refused(gp_npy_read(bytes, size, &array, &error), &error, "at most 10000", "header");
    free(bytes);
}

static void truncated_and_damaged_files_do_no_harm(void **state) {
    (void)state;
    static const char *const names[] = {"little_f4", "fortran_big_i2", "version3_f4", "scalar_f8"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];
        size_t size;
        snprintf(path, sizeof path, "tests/golden/wire/%s.npy", names[i]);
        char *bytes = test_read_file(path, &size);
        wire_truncate(read_npy, bytes, size);
        wire_flip(read_npy, bytes, size);
        free(bytes);
    }
}

static void headers_are_written_as_numpy_writes_them(void **state) {
    (void)state;
    static const char *const names[] = {"little_f4", "little_i8", "little_u1", "little_b1",      "big_f8",
                                        "empty_f4",  "scalar_f8", "vector_i8", "fortran_big_i2", "little_f2"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *bytes, header[1024];
        const gp_array array = open_npy(names[i], &bytes);
        const size_t size = gp_npy_header_size(&array);
        assert_int_equal(size, (const char *)array.data - bytes);
        gp_npy_write_header(&array, header);
        assert_memory_equal(header, bytes, size);
        free(bytes);
    }
}

static void the_largest_header_is_read_back(void **state) {
    (void)state;
    char bytes[1024];
    gp_array read;
    gp_error error = {.problem = GP_OK};
    const gp_array array = {
        .dtype = GP_FLOAT32, .rank = 8, .dim = {1000000000000000000, 1, 1, 1, 1, 1, 1, 0}};
    const size_t size = gp_npy_header_size(&array);
    assert_true(size % 64 == 0 && size <= sizeof bytes);
    gp_npy_write_header(&array, bytes);
    if (gp_npy_read(bytes, size, &read, &error) < 0)
        fail_msg("%s", error.detail);
    assert_memory_equal(read.dim, array.dim, sizeof array.dim);
}

static void a_part_converts_as_in_the_whole(void **state) {
    (void)state;
    static const char *const files[] = {"little_f4", "big_i8", "fortran_f4", "fortran_big_i2", "little_b1"};
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        char *bytes;
        const gp_array array = open_npy(files[f], &bytes);
        const int64_t numel = gp_array_numel(&array);
        float whole[64], part[64];
        assert_true(numel <= 64);
        assert_int_equal(gp_array_convert(&array, GP_FLOAT32, whole, "x", NULL), 0);
        for (int64_t first = 0; first <= numel; first++)
            for (int64_t count = 0; count <= numel - first; count++) {
                assert_int_equal(gp_array_convert_part(&array, first, count, GP_FLOAT32, part, "x", NULL), 0);
                assert_memory_equal(part, whole + first, (size_t)count * sizeof *part);
            }
        free(bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_order_and_version_that_numpy_writes_is_read),
        cmocka_unit_test(a_scalar_a_vector_and_an_empty_array_are_read),
        cmocka_unit_test(nan_infinities_negative_zero_and_subnormals_survive),
        cmocka_unit_test(types_without_a_place_here_are_named),
        cmocka_unit_test(what_is_not_exactly_the_format_is_refused),
        cmocka_unit_test(other_versions_and_long_headers_are_refused),
        cmocka_unit_test(truncated_and_damaged_files_do_no_harm),
        cmocka_unit_test(headers_are_written_as_numpy_writes_them),
        cmocka_unit_test(the_largest_header_is_read_back),
        cmocka_unit_test(a_part_converts_as_in_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
