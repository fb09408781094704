/* codec_test.c -- problems, conversion of elements, telling formats apart. */
#include <math.h>

#include "tests/proto/wire.h"

static gp_array vector(gp_dtype dtype, int64_t count, const void *data) {
    return (gp_array){.dtype = dtype,
                      .rank = 1,
                      .dim = {count},
                      .data = data,
                      .size = (size_t)count * gp_dtype_size(dtype)};
}

static void the_first_failure_is_kept(void **state) {
    (void)state;
    gp_error error = {.problem = GP_OK};
    assert_int_equal(gp_fail(&error, GP_INVALID_VALUE, "/a", "first %d", 1), -1);
    assert_int_equal(gp_fail(&error, GP_NOT_FOUND, "/b", "second"), -1);
    assert_int_equal(error.problem, GP_INVALID_VALUE);
    assert_string_equal(error.pointer, "/a");
    assert_string_equal(error.detail, "first 1");
    assert_int_equal(gp_fail(NULL, GP_NOT_FOUND, "", "nobody listens"), -1);
    assert_string_equal(gp_problem_code((gp_problem)9999), "internal");
    assert_int_equal(gp_problem_status(GP_BODY_TOO_LARGE), 413);
}

static void every_dtype_is_found_by_its_name(void **state) {
    (void)state;
    for (int i = 0; i < GP_DTYPE_COUNT; i++) {
        gp_dtype found = GP_DTYPE_COUNT;
        assert_true(gp_dtype_find(gp_dtype_name((gp_dtype)i), &found));
        assert_int_equal(found, i);
    }
    assert_false(gp_dtype_find("float", &(gp_dtype){0}));
}

static void every_half_is_the_float_it_stands_for(void **state) {
    (void)state;
    uint16_t halves[65536];
    static float floats[65536];
    for (int i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    const gp_array array = vector(GP_FLOAT16, 65536, halves);
    assert_int_equal(gp_array_convert(&array, GP_FLOAT32, floats, "x", NULL), 0);
    for (int i = 0; i < 65536; i++) {
        const int sign = i >> 15, exponent = i >> 10 & 31, fraction = i & 1023;
        const double magnitude = exponent == 31 ? (fraction ? (double)NAN : (double)INFINITY)
                                 : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                                : ldexp(fraction, -24);
        if (isnan(magnitude))
            assert_true(isnan(floats[i]));
        else
            assert_true((double)floats[i] == (sign ? -magnitude : magnitude) && !signbit(floats[i]) == !sign);
    }
}

static void values_that_do_not_fit_are_named_with_their_place(void **state) {
    (void)state;
    static const struct {
        gp_dtype from, to;
        double value;
        const char *part; /* NULL: it fits */
    } rows[] = {
        {GP_FLOAT64, GP_FLOAT32, 1e39, "x[1][0] is 1e+39, which float32 cannot hold"},
        {GP_FLOAT64, GP_FLOAT32, -1e39, "x[1][0] is -1e+39"},
        {GP_FLOAT64, GP_FLOAT32, 3.4028235677973366e38, "float32 cannot hold"}, /* half way to 2^128 */
        {GP_FLOAT64, GP_FLOAT32, 3.4028235677973362e38, NULL},
        {GP_FLOAT64, GP_FLOAT32, INFINITY, NULL},
        {GP_FLOAT64, GP_FLOAT32, NAN, NULL},
        {GP_FLOAT64, GP_FLOAT32, 1e-60, NULL},
        {GP_FLOAT64, GP_INT64, 0.5, "x[1][0] is 0.5, which int64 cannot hold"},
        {GP_FLOAT64, GP_INT64, NAN, "int64 cannot hold"},
        {GP_FLOAT64, GP_INT64, INFINITY, "int64 cannot hold"},
        {GP_FLOAT64, GP_INT64, 0x1p63, "int64 cannot hold"},
        {GP_FLOAT64, GP_INT64, -0x1p63, NULL},
        {GP_FLOAT64, GP_INT64, 0x1.fffffffffffffp62, NULL},
        {GP_FLOAT64, GP_INT64, -0.0, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const double values[4] = {0, 1, rows[i].value, 2};
        int64_t out[4];
        gp_error error = {.problem = GP_OK};
        gp_array array = vector(rows[i].from, 4, values);
        array.rank = 2;
        array.dim[0] = array.dim[1] = 2;
        const int status = gp_array_convert(&array, rows[i].to, out, "x", &error);
        if (rows[i].part) {
            wire_assert_refused(status, &error, rows[i].part, rows[i].part);
            assert_string_equal(error.pointer, "/x");
        } else {
            assert_int_equal(status, 0);
        }
    }
}

static void a_bad_value_behind_the_first_block_is_found(void **state) {
    (void)state;
    static double values[1000];
    static float out[1000];
    values[999] = 1e300;
    const gp_array array = vector(GP_FLOAT64, 1000, values);
    gp_error error = {.problem = GP_OK};
    wire_assert_refused(gp_array_convert(&array, GP_FLOAT32, out, "a/b~c", &error), &error, "a/b~c[999]",
                        "last");
    assert_string_equal(error.pointer, "/a~1b~0c");
}

static void a_bool_is_zero_or_one(void **state) {
    (void)state;
    const unsigned char good[2] = {0, 1}, bad[2] = {0, 2};
    int64_t out[2];
    gp_error error = {.problem = GP_OK};
    gp_array array = vector(GP_BOOL, 2, good);
    assert_int_equal(gp_array_convert(&array, GP_INT64, out, "x", NULL), 0);
    assert_int_equal(out[1], 1);
    array.data = bad;
    wire_assert_refused(gp_array_convert(&array, GP_INT64, out, "x", &error), &error,
                        "x[1] is 2, which bool cannot hold", "2");
}

static void integers_become_the_nearest_float(void **state) {
    (void)state;
    const int64_t ints[4] = {16777217, 16777219, INT64_MAX, INT64_MIN};
    const uint32_t unsigned_ints[2] = {UINT32_MAX, 16777217};
    float out[4];
    gp_array array = vector(GP_INT64, 4, ints);
    assert_int_equal(gp_array_convert(&array, GP_FLOAT32, out, "x", NULL), 0);
    assert_true(out[0] == 16777216 && out[1] == 16777220 && out[2] == 0x1p63f && out[3] == -0x1p63f);
    array = vector(GP_UINT32, 2, unsigned_ints);
    assert_int_equal(gp_array_convert(&array, GP_FLOAT32, out, "x", NULL), 0);
    assert_true(out[0] == 0x1p32f && out[1] == 16777216);
}

static void doubles_round_as_c_does(void **state) {
    (void)state;
    enum { COUNT = 10000 };
    static double values[COUNT];
    static float out[COUNT];
    uint64_t random = 7;
    for (int i = 0; i < COUNT; i++)
        values[i] = ldexp((double)wire_random(&random) + (double)wire_random(&random) * 0x1p-32,
                          (int)(wire_random(&random) % 200) - 170);
    const gp_array array = vector(GP_FLOAT64, COUNT, values);
    assert_int_equal(gp_array_convert(&array, GP_FLOAT32, out, "x", NULL), 0);
    for (int i = 0; i < COUNT; i++)
        assert_true(out[i] == (float)values[i]);
}

static void fortran_order_is_undone_for_any_rank(void **state) {
    (void)state;
    enum { A = 3, B = 4, C = 5, D = 7 };
    static int16_t data[A * B * C * D];
    static float out[A * B * C * D];
    int64_t position = 0;
    for (int d = 0; d < D; d++) /* the first axis varies fastest */
        for (int c = 0; c < C; c++)
            for (int b = 0; b < B; b++)
                for (int a = 0; a < A; a++)
                    data[position++] = (int16_t)(((a * B + b) * C + c) * D + d);
    const gp_array array = {.dtype = GP_INT16,
                            .rank = 4,
                            .dim = {A, B, C, D},
                            .data = data,
                            .size = sizeof data,
                            .fortran_order = true};
    assert_int_equal(gp_array_convert(&array, GP_FLOAT32, out, "x", NULL), 0);
    for (int i = 0; i < A * B * C * D; i++)
        assert_true(out[i] == (float)i);
}

static void only_aligned_row_major_little_endian_arrays_are_usable(void **state) {
    (void)state;
    static const float data[8] = {0};
    gp_array array = vector(GP_FLOAT32, 4, data);
    assert_true(gp_array_usable(&array, GP_FLOAT32));
    assert_false(gp_array_usable(&array, GP_INT64));
    array.fortran_order = true; /* of one axis: the same */
    assert_true(gp_array_usable(&array, GP_FLOAT32));
    array.rank = 2;
    array.dim[1] = 1;
    assert_false(gp_array_usable(&array, GP_FLOAT32));
    array = vector(GP_FLOAT32, 4, (const char *)data + 1);
    assert_false(gp_array_usable(&array, GP_FLOAT32));
    array = vector(GP_FLOAT32, 4, data);
    array.big_endian = true;
    assert_false(gp_array_usable(&array, GP_FLOAT32));
}

static void formats_are_told_from_the_first_bytes(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        gp_format format;
    } rows[] = {
        {"\x93NUMPY\x01", 7, GP_NPY},
        {"\x1f\x8b\x08", 3, GP_GZIP},
        {"\x02\0\0\0\0\0\0\0{}", 10, GP_SAFETENSORS},
        {"{\0\0\0\0\0\0\0{", 9, GP_SAFETENSORS}, /* a header of 123 bytes */
        {"\0\0\x08\x03\0\0\0\x01", 8, GP_IDX},
        {" \r\n\t{", 5, GP_JSON},
        {"[", 1, GP_JSON},
        {"{\"input\": [1, 2]}", 17, GP_JSON},
        {"", 0, GP_UNKNOWN},
        {"   ", 3, GP_UNKNOWN},
        {"1,2,3\n", 6, GP_UNKNOWN},
        {"\x93NUMP", 5, GP_UNKNOWN},
        {"\0\0\x08\x09", 4, GP_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *copy = malloc(rows[i].size + 1);
        assert_non_null(copy);
        memcpy(copy + 1, rows[i].bytes, rows[i].size);
        assert_int_equal(gp_format_detect(copy + 1, rows[i].size), rows[i].format);
        free(copy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_failure_is_kept),
        cmocka_unit_test(every_dtype_is_found_by_its_name),
        cmocka_unit_test(every_half_is_the_float_it_stands_for),
        cmocka_unit_test(values_that_do_not_fit_are_named_with_their_place),
        cmocka_unit_test(a_bad_value_behind_the_first_block_is_found),
        cmocka_unit_test(a_bool_is_zero_or_one),
        cmocka_unit_test(integers_become_the_nearest_float),
        cmocka_unit_test(doubles_round_as_c_does),
        cmocka_unit_test(fortran_order_is_undone_for_any_rank),
        cmocka_unit_test(only_aligned_row_major_little_endian_arrays_are_usable),
        cmocka_unit_test(formats_are_told_from_the_first_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
