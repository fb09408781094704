/* json_test.c -- JSON tensors and bodies in, JSON out. Texts in tables have ' for ". */
#include <math.h>

#include "tests/proto/wire.h"

/* A NUL-terminated copy of exactly the text's size, with " for '. free() it. */
static char *text_of(const char *quoted, size_t *ret_size) {
    *ret_size = strlen(quoted);
    char *text = malloc(*ret_size + 1);
    assert_non_null(text);
    for (size_t i = 0; i <= *ret_size; i++)
        text[i] = quoted[i] == '\'' ? '"' : quoted[i];
    return text;
}

static int read_tensor(const char *quoted, gp_json_tensor *ret, gp_error *error) {
    size_t size;
    char *text = text_of(quoted, &size);
    *error = (gp_error){.problem = GP_OK};
    const int status = gp_json_read_tensor(text, size, ret, error);
    free(text);
    return status;
}

static int read_body(const char *quoted, gp_json_member *members, size_t count, json_t **ret_rest,
                     gp_error *error) {
    size_t size;
    char *text = text_of(quoted, &size);
    *error = (gp_error){.problem = GP_OK};
    const int status = gp_json_read(text, size, members, count, ret_rest, error);
    free(text);
    return status;
}

/* For wire_truncate() and wire_flip(): a body with a tensor "input". */
static int read_input(const void *data, size_t size, gp_error *error) {
    gp_json_member members[] = {{.name = "input", .required = true}};
    json_t *rest = NULL;
    char *text = malloc(size + 1);
    assert_non_null(text);
    memcpy(text, data, size);
    text[size] = '\0';
    const int status = gp_json_read(text, size, members, 1, &rest, error);
    gp_json_members_release(members, 1);
    json_decref(rest);
    free(text);
    return status;
}

static void nested_lists_give_shape_type_and_values(void **state) {
    (void)state;
    static const struct {
        const char *text;
        gp_dtype dtype;
        int rank;
        int64_t dim[8];
        double values[4];
    } rows[] = {
        {"[[1, 2], [3, 4]]", GP_INT64, 2, {2, 2}, {1, 2, 3, 4}},
        {"[[1, 2], [3, 4.0]]", GP_FLOAT32, 2, {2, 2}, {1, 2, 3, 4}},
        {" \t\r\n[\n1\t,2 ] ", GP_INT64, 1, {2}, {1, 2}},
        {"3.5", GP_FLOAT32, 0, {0}, {3.5}},
        {"-7", GP_INT64, 0, {0}, {-7}},
        {"[]", GP_INT64, 1, {0}, {0}},
        {"[[], []]", GP_INT64, 2, {2, 0}, {0}},
        {"[[[]], [[]]]", GP_INT64, 3, {2, 1, 0}, {0}},
        {"[[[[[[[[1.5]]]]]]]]", GP_FLOAT32, 8, {1, 1, 1, 1, 1, 1, 1, 1}, {1.5}},
        {"['NaN', 'Infinity', '-Infinity', 1]",
         GP_FLOAT32,
         1,
         {4},
         {(double)NAN, (double)INFINITY, -(double)INFINITY, 1}},
        {"[1e2, 1E+2, 1e-2, 0e9]", GP_FLOAT32, 1, {4}, {100, 100, (double)0.01f, 0}},
        {"[-0, 0]", GP_FLOAT32, 1, {2}, {-0.0, 0}},
        {"[9223372036854775807, -9223372036854775807]", GP_INT64, 1, {2}, {0x1p63, -0x1p63}},
        {"[9223372036854775808]", GP_FLOAT32, 1, {1}, {0x1p63}},
        {"[16777217, 0.5]", GP_FLOAT32, 1, {2}, {16777216, 0.5}},
        {"[1e-60]", GP_FLOAT32, 1, {1}, {0}},
        {"{'data': [1, 2]}", GP_INT64, 1, {2}, {1, 2}},
        {"{'dtype': 'float32', 'shape': [2, 2], 'data': [1, 2, 3, 4]}", GP_FLOAT32, 2, {2, 2}, {1, 2, 3, 4}},
        {"{'data': [[1, 2], [3, 4]], 'shape': [2, 2], 'dtype': 'float64'}",
         GP_FLOAT32,
         2,
         {2, 2},
         {1, 2, 3, 4}},
        {"{'dtype': 'uint8', 'data': [0, 255]}", GP_INT64, 1, {2}, {0, 255}},
        {"{'dtype': 'bool', 'data': [true, false, 1]}", GP_INT64, 1, {3}, {1, 0, 1}},
        {"{'shape': [], 'data': 2.5}", GP_FLOAT32, 0, {0}, {2.5}},
        {"{'shape': [0, 3], 'data': []}", GP_INT64, 2, {0, 3}, {0}},
        {"{'shape': [2, 0, 3], 'data': [[], []]}", GP_INT64, 3, {2, 0, 3}, {0}},
        {"{'dtype': 'float32', 'shape': [2], 'base64': 'AACAPwAAAEA='}", GP_FLOAT32, 1, {2}, {1, 2}},
        {"{'dtype': 'float32', 'shape': [1], 'base64': 'AACAPw=='}", GP_FLOAT32, 1, {1}, {1}},
        {"{'dtype': 'int16', 'shape': [3], 'base64': 'AQD\\/\\/wIA'}", GP_INT64, 1, {3}, {1, -1, 2}},
        {"{'base64': 'AAGA', 'dtype': 'uint8', 'shape': [3]}", GP_INT64, 1, {3}, {0, 1, 128}},
        {"{'dtype': 'float16', 'shape': [1], 'base64': 'ADw='}", GP_FLOAT32, 1, {1}, {1}},
        {"{'dtype': 'int64', 'shape': [0, 2], 'base64': ''}", GP_INT64, 2, {0, 2}, {0}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gp_json_tensor tensor;
        gp_error error;
        if (read_tensor(rows[i].text, &tensor, &error) < 0)
            fail_msg("%s: %s", rows[i].text, error.detail);
        if (tensor.array.dtype != rows[i].dtype || tensor.array.rank != rows[i].rank)
            fail_msg("%s: %s, rank %d", rows[i].text, gp_dtype_name(tensor.array.dtype), tensor.array.rank);
        for (int axis = 0; axis < rows[i].rank; axis++)
            assert_int_equal(tensor.array.dim[axis], rows[i].dim[axis]);
        const int64_t numel = gp_array_numel(&tensor.array);
        assert_int_equal(tensor.array.size, (size_t)numel * gp_dtype_size(tensor.array.dtype));
        for (int64_t k = 0; k < numel; k++) {
            const double value = tensor.array.dtype == GP_INT64
                                     ? (double)((const int64_t *)tensor.array.data)[k]
                                     : (double)((const float *)tensor.array.data)[k];
            if (isnan(rows[i].values[k])
                    ? !isnan(value)
                    : value != rows[i].values[k] || !signbit(value) != !signbit(rows[i].values[k]))
                fail_msg("%s: element %lld is %g", rows[i].text, (long long)k, value);
        }
        free(tensor.memory);
    }
}

static void the_shortest_elements_fit_into_the_memory_made_for_them(void **state) {
    (void)state;
    for (size_t count = 1; count < 3000; count += count < 10 ? 1 : 97) { /* "[1,1,...]": two bytes each */
        char *text = malloc(2 * count + 2);
        gp_json_tensor tensor;
        gp_error error = {.problem = GP_OK};
        assert_non_null(text);
        for (size_t i = 0; i < count; i++)
            memcpy(text + 2 * i, i ? ",1" : "[1", 2);
        memcpy(text + 2 * count, "]", 2);
        assert_int_equal(gp_json_read_tensor(text, 2 * count + 1, &tensor, &error), 0);
        assert_int_equal(gp_array_numel(&tensor.array), count);
        assert_int_equal(((const int64_t *)tensor.array.data)[count - 1], 1);
        free(tensor.memory);
        free(text);
    }
}

static void malformed_tensors_are_refused_in_words(void **state) {
    (void)state;
    static const struct {
        const char *text, *part, *pointer;
    } rows[] = {
        /* ragged: the first bad row by its index */
        {"[[1, 2], [3]]", "tensor[1] has 1 elements, but the lists before it have 2", "/1"},
        {"[[1, 2], [3, 4], [5, 6, 7]]", "tensor[2] has 3 elements", "/2"},
        {"[[[1], [2]], [[3], [4, 5]]]", "tensor[1][1] has 2 elements", "/1/1"},
        {"[[1], [2], 3]", "tensor[2] is not nested as deep", "/2"},
        {"[1, [2]]", "tensor[1] is nested deeper", "/1"},
        {"[[], [1]]", "tensor[1] has 1 elements", "/1"},
        {"[[], [[]]]", "tensor[1][0] is nested deeper", "/1/0"},
        {"[[[]], []]", "tensor[1] has 0 elements", "/1"},
        {"[[1], []]", "tensor[1] has 0 elements", "/1"},
        {"[[[[[[[[[1]]]]]]]]]", "more than 8 axes", ""},
        /* values */
        {"[0, [", "tensor[1] is nested deeper", "/1"},
        {"[[0, 1e39]]", "tensor[0][1] is 1e39, which float32 cannot hold", "/0/1"},
        {"[-1e400]", "tensor[0] is -1e400, which", "/0"},
        {"[NaN]", "line 1, column 2: a number is expected in tensor", ""},
        {"[Infinity]", "a number is expected", ""},
        {"['nan']", "a number is expected", ""},
        {"[null]", "a number is expected", ""},
        {"['1']", "a number is expected", ""},
        {"[true]", "\"dtype\": \"bool\" only", ""},
        {"{'dtype': 'float32', 'data': [true]}", "\"dtype\": \"bool\" only", ""},
        {"{'dtype': 'uint8', 'data': [0, 256]}", "tensor.data[1] is 256, which uint8 cannot hold", ""},
        {"{'dtype': 'uint8', 'data': [[-1]]}", "tensor.data[0][0] is -1", ""},
        {"{'dtype': 'int8', 'data': [-129]}", "int8 cannot hold", ""},
        {"{'dtype': 'bool', 'data': [2]}", "bool cannot hold", ""},
        {"{'dtype': 'float16', 'data': [65536]}", "float16 cannot hold", ""},
        {"{'dtype': 'int64', 'data': [0.5]}", "dtype int64 takes integers only", ""},
        {"{'dtype': 'int64', 'data': ['NaN']}", "takes integers only", ""},
        /* grammar */
        {"", "a number is expected", ""},
        {"[", "a number is expected", ""},
        {"[1", "',' or ']' is expected", ""},
        {"[1,", "a number is expected", ""},
        {"[1,]", "a number is expected", ""},
        {"[,1]", "a number is expected", ""},
        {"[1 2]", "',' or ']' is expected", ""},
        {"[1]]", "something follows", ""},
        {"[1] x", "something follows", ""},
        {"[01]", "a number is expected", ""},
        {"[+1]", "a number is expected", ""},
        {"[.5]", "a number is expected", ""},
        {"[1.]", "a number is expected", ""},
        {"[1.e5]", "a number is expected", ""},
        {"[1e]", "a number is expected", ""},
        {"[1e+]", "a number is expected", ""},
        {"[-]", "a number is expected", ""},
        {"[0x10]", "',' or ']' is expected", ""},
        {"[1f]", "',' or ']' is expected", ""},
        {"[\n\n  1,\n  x]", "line 4, column 3", ""},
        /* objects */
        {"{}", "needs data or base64", ""},
        {"{'data': [1], 'base64': ''}", "needs data or base64, one", ""},
        {"{'data': [1], 'data': [2]}", "tensor.data is given twice", ""},
        {"{'date': [1]}", "tensor.date is unknown", "/date"},
        {"{'dtype': 'int3', 'data': [1]}", "\"int3\" is none of float32", "/dtype"},
        {"{'dtype': 32, 'data': [1]}", "no string where one", ""},
        {"{'shape': [2], 'data': [1]}", "neither nested as shape says nor a flat list", ""},
        {"{'shape': [2, 2], 'data': [[1, 2, 3, 4]]}", "neither nested as shape", ""},
        {"{'shape': [1, 1], 'data': 1}", "neither nested as shape", ""},
        {"{'shape': [-1], 'data': [1]}", "not a list of axis lengths", "/shape"},
        {"{'shape': [1.5], 'data': [1]}", "not a list of axis lengths", "/shape"},
        {"{'shape': 1, 'data': [1]}", "not a list of axis lengths", "/shape"},
        {"{'shape': [1,1,1,1,1,1,1,1,1], 'data': [1]}", "more than 8 axes", "/shape"},
        {"{'shape': [4294967296, 4294967296, 4294967296], 'data': []}", "more elements than memory", ""},
        {"{'shape': [1], 'base64': 'AA=='}", "needs dtype and shape", ""},
        {"{'dtype': 'uint8', 'base64': 'AA=='}", "needs dtype and shape", ""},
        {"{'dtype': 'uint8', 'shape': [2], 'base64': 'AA=='}", "make 2 bytes, but base64 holds 1", ""},
        {"{'dtype': 'uint8', 'shape': [1], 'base64': 'AA'}", "not base64", "/base64"},
        {"{'dtype': 'uint8', 'shape': [1], 'base64': 'AA=A'}", "not base64", "/base64"},
        {"{'dtype': 'uint8', 'shape': [1], 'base64': 'A==='}", "not base64", "/base64"},
        {"{'dtype': 'uint8', 'shape': [1], 'base64': 'AB=='}", "not base64", "/base64"},
        {"{'dtype': 'uint8', 'shape': [1], 'base64': 'A_8='}", "not base64", "/base64"},
        {"{'dtype': 'uint8', 'shape': [1], 'base64': 'AA==AA=='}", "not base64", "/base64"},
        {"{'dtype': 'bool', 'shape': [1], 'base64': 'Ag=='}", "tensor[0] is 2, which bool cannot hold", ""},
        {"{'data': [1]", "',' or '}' is expected", ""},
        {"{'data' [1]}", "':' is expected", ""},
        {"{data: [1]}", "no string where one", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gp_json_tensor tensor;
        gp_error error;
        wire_assert_refused(read_tensor(rows[i].text, &tensor, &error), &error, rows[i].part, rows[i].text);
        if (strcmp(error.pointer, rows[i].pointer) != 0)
            fail_msg("%s: pointer \"%s\"", rows[i].text, error.pointer);
    }
}

static void a_body_gives_its_tensors_and_the_rest(void **state) {
    (void)state;
    gp_json_member members[] = {{.name = "input", .required = true}, {.name = "target"}, {.name = "other"}};
    json_t *rest;
    gp_error error;
    if (read_body("{'lr': 0.5, 'input': [[1.5]], 'loss': {'type': 'MSELoss', 'a': [1, {'b': '}]'}]}, "
                  "'target': [3]}",
                  members, 3, &rest, &error) < 0)
        fail_msg("%s", error.detail);
    assert_true(members[0].found && members[1].found && !members[2].found);
    assert_true(*(const float *)members[0].tensor.array.data == 1.5f);
    assert_int_equal(*(const int64_t *)members[1].tensor.array.data, 3);
    assert_null(members[2].tensor.memory);
    assert_int_equal(json_object_size(rest), 2);
    assert_true(json_real_value(json_object_get(rest, "lr")) == 0.5);
    assert_string_equal(json_string_value(json_object_get(json_object_get(rest, "loss"), "type")), "MSELoss");
    json_decref(rest);
    gp_json_members_release(members, 3);
    assert_null(members[0].tensor.memory);
    gp_json_members_release(members, 3); /* again: nothing to do */
}

static void malformed_bodies_are_refused_in_words(void **state) {
    (void)state;
    static const struct {
        const char *text, *part, *pointer;
    } rows[] = {
        {"", "the body is empty", ""},
        {"[1]", "must be a JSON object", ""},
        {"{}", "\"input\" is missing", "/input"},
        {"{'lr': 1}", "\"input\" is missing", "/input"},
        {"{'input': null}", "a number is expected in input", ""},
        {"{'input': [[1], [2, 3]]}", "input[1] has 2 elements", "/input/1"},
        {"{'input': {'data': [[1], [2, 3]]}}", "input.data[1] has 2 elements", "/input/data/1"},
        {"{'input': [1], 'input': [1]}", "\"input\" is given twice", ""},
        {"{'input': [1], 'lr': 1, 'lr': 2}", "\"lr\" is given twice", ""},
        {"{'input': [1], '\\u006cr': 1, 'lr': 2}", "\"lr\" is given twice", ""},
        {"{'input': [1], 'loss': {'a': 1, 'a': 2}}", "duplicate object key", ""},
        {"{'input': [1], 'lr': NaN}", "invalid token", ""},
        {"{'input': [1], 'lr': 1e400}", "real number overflow", ""},
        {"{'input': [1], 'seed': 18446744073709551616}", "too big integer", ""},
        {"{'input': [1], 'lr': }", "a value is expected", ""},
        {"{'input': [1], 'lr': 1 2}", "',' or '}' is expected", ""},
        {"{'input': [1],}", "no string where one", ""},
        {"{'input': [1]", "',' or '}' is expected", ""},
        {"{'input': [1]} {}", "something follows", ""},
        {"{'input': [1], 'a': [}", "line 1, column 22", ""},
        {"{'input': [1],\n 'a': {'b': tru}}", "line 2, column 1", ""},
        {"{'input': [1], 'a': '\x01'}", "a control character", ""},
        {"{'input': [1], 'a': '\xff'}", "not UTF-8", ""},
        {"{'input': [1], 'a': '\\u0000'}", "there is a NUL", ""},
        {"{'input': [1], 'a': 'b}", "without an end", ""},
        {"\xef\xbb\xbf{}", "must be a JSON object", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gp_json_member members[] = {{.name = "input", .required = true}};
        json_t *rest;
        gp_error error;
        wire_assert_refused(read_body(rows[i].text, members, 1, &rest, &error), &error, rows[i].part,
                            rows[i].text);
        if (strcmp(error.pointer, rows[i].pointer) != 0)
            fail_msg("%s: pointer \"%s\"", rows[i].text, error.pointer);
        gp_json_members_release(members, 1);
    }
}

static void depth_64_is_read_and_65_refused(void **state) {
    (void)state;
    for (int depth = 63; depth <= 64; depth++) { /* of the lists, in the body's object */
        char text[256] = "{'a': ";
        size_t used = strlen(text);
        memset(text + used, '[', (size_t)depth);
        memset(text + used + depth, ']', (size_t)depth);
        text[used + 2 * (size_t)depth] = '}';
        text[used + 2 * (size_t)depth + 1] = '\0';
        json_t *rest;
        gp_error error;
        const int status = read_body(text, NULL, 0, &rest, &error);
        if (depth == 64) {
            wire_assert_refused(status, &error, "deeper than 64", "depth");
        } else {
            assert_int_equal(status, 0);
            json_decref(rest);
        }
    }
}

static void a_nul_within_the_body_is_refused(void **state) {
    (void)state;
    static const char body[] = "{\"input\": [1]}\0{}", inside[] = "{\"input\": [1\0]}";
    gp_error error = {.problem = GP_OK};
    wire_assert_refused(read_input(body, sizeof body - 1, &error), &error, "something follows", "behind");
    error.problem = GP_OK;
    wire_assert_refused(read_input(inside, sizeof inside - 1, &error), &error, "',' or ']' is expected",
                        "inside");
}

static void truncated_and_damaged_bodies_do_no_harm(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "{\"input\": [[1.5, -2e3], [\"NaN\", 40000000000]], \"loss\": {\"type\": \"MSELoss\", \"w\": [1, "
        "null]}}",
        "{\"a\": \"\\ud83d\\ude00\\n\", \"input\": {\"dtype\": \"int16\", \"shape\": [1, 3], \"base64\": "
        "\"AQD/\\/wIA\"}}",
        "{\"input\": {\"dtype\": \"uint8\", \"shape\": [2, 2], \"data\": [[1, 2], [3, 4]]}}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        gp_error error = {.problem = GP_OK};
        if (read_input(bodies[i], strlen(bodies[i]), &error) < 0)
            fail_msg("%s: %s", bodies[i], error.detail);
        wire_truncate(read_input, bodies[i], strlen(bodies[i]));
        wire_flip(read_input, bodies[i], strlen(bodies[i]));
    }
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- numbers ----------------------------------------------------------------------------------- */

static void any_decimal_reads_as_the_nearest_float(void **state) {
    (void)state;
    static const char *const hard[] = {
        "16777217.0",
        "16777219.0",
        "16777217.0000000000000000000000000001",
        "16777216.9999999999999999999999",
        "33554434.0",
        "0.1",
        "1.17549435e-38",
        "1.17549429e-38",
        "1.40129846e-45",
        "7.00649232162408535e-46",
        "7.00649232162408536e-46",
        "3.40282347e38",
        "3.4028235677973362e38",
        "340282346638528859811704183484516925440.0",
        "1.00000005960464477539062500",
        "1.000000059604644775390624",
        "1.000000059604644775390626",
        "1.000000059604644776",
        "1.000000178813934326",
        "8388609.5",
        "8388608.5",
        "0.000000000000000000000000000001",
        "123456789012345678901234567890.0",
        "9007199254740993.0",
        "1e22",
        "1e23",
        "1e-22",
        "1e-23",
        "18446744073709551615.0",
        "0.3333333333333333333",
        "99999999999999999999e-20",
        "1.5e+00002",
        "0.0000000000000000000e+999",
        "4503599627370497.5e-3",
    };
    for (size_t i = 0; i < sizeof hard / sizeof hard[0]; i++) {
        gp_json_tensor tensor;
        gp_error error;
        if (read_tensor(hard[i], &tensor, &error) < 0)
            fail_msg("%s: %s", hard[i], error.detail);
        const float expected = strtof(hard[i], NULL);
        if (bits_of(*(const float *)tensor.array.data) != bits_of(expected))
            fail_msg("%s reads as %a instead of %a", hard[i], (double)*(const float *)tensor.array.data,
                     (double)expected);
        free(tensor.memory);
    }
}

static float random_float(uint64_t *random) {
    for (;;) {
        const uint32_t bits = wire_random(random);
        float value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value))
            return value;
    }
}

static void random_floats_read_right_from_any_number_of_digits(void **state) {
    (void)state;
    uint64_t random = 1;
    for (int i = 0; i < 60000; i++) {
        char text[64];
        gp_json_tensor tensor;
        gp_error error;
        /* Of ordinary size every second time: there the fast path works. Around midpoints every third. */
        double value = (double)random_float(&random);
        if (i % 2)
            value = ldexp(frexp(value, &(int){0}), (int)(wire_random(&random) % 40) - 20);
        if (i % 3 == 0)
            value = (double)(float)value * (1 + 0x1p-24);
        if (fabs(value) > 0x1.fffffep127)
            continue;
        snprintf(text, sizeof text, "%.*e", (int)(wire_random(&random) % 20), value);
        const float expected = strtof(text, NULL);
        if (isinf(expected))
            continue;
        if (read_tensor(text, &tensor, &error) < 0)
            fail_msg("%s: %s", text, error.detail);
        if (bits_of(*(const float *)tensor.array.data) != bits_of(expected))
            fail_msg("%s reads as %a instead of %a", text, (double)*(const float *)tensor.array.data,
                     (double)expected);
        free(tensor.memory);
    }
}

/* ---- writing ----------------------------------------------------------------------------------- */

static void numbers_are_written_as_printf_would(void **state) {
    (void)state;
    static const struct {
        float value;
        const char *text;
    } rows[] = {
        {0, "0"},
        {-0.0f, "-0.0"},
        {1, "1"},
        {-1.5f, "-1.5"},
        {0.1f, "0.100000001"},
        {1e8f, "100000000"},
        {1e9f, "1e+09"},
        {123456792, "123456792"},
        {1e-4f, "9.99999975e-05"},
        {0.00012207031f, "0.000122070312"},
        {1.5e-5f, "1.49999996e-05"},
        {0x1.fffffep127f, "3.40282347e+38"},
        {0x1p-149f, "1.40129846e-45"},
        {0x1p-126f, "1.17549435e-38"},
        {1e10f, "1e+10"},
        {100, "100"},
        {1234.5f, "1234.5"},
        {NAN, "\"NaN\""},
        {INFINITY, "\"Infinity\""},
        {-INFINITY, "\"-Infinity\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gp_text text = {.data = NULL};
        float value = rows[i].value;
        char expected[128];
        const gd_tensor tensor = {.dtype = GD_FLOAT32, .shape = {.rank = 0}, .data = &value};
        snprintf(expected, sizeof expected, "{\"dtype\": \"float32\", \"shape\": [], \"data\": %s}",
                 rows[i].text);
        gp_json_write_tensor(&text, &tensor);
        assert_string_equal(text.data, expected);
        gp_text_release(&text);
    }
}

static void doubles_of_any_number_of_digits_are_written_as_printf_would(void **state) {
    (void)state;
    uint64_t random = 5;
    gp_text text = {.data = NULL};
    for (int i = 0; i < 60000; i++) {
        char expected[64];
        const double sizes[] = {
            (double)random_float(&random), /* any; of a few bits; as shares are; in the middle of two */
            ldexp(wire_random(&random) % 4096, (int)(wire_random(&random) % 40) - 20),
            wire_random(&random) % 1000000 / (double)(1 + wire_random(&random) % 1000),
            (wire_random(&random) % 100000 + 0.5) / 1e6};
        const double value = sizes[i % 4];
        for (int digits = 1; digits <= 9 && value != 0; digits++) {
            text.size = 0;
            gp_json_write_number(&text, value, digits);
            snprintf(expected, sizeof expected, "%.*g", digits, value);
            if (strcmp(text.data, expected) != 0)
                fail_msg("%a is written as %s instead of %s", value, text.data, expected);
        }
    }
    gp_text_release(&text);
}

static void every_float_survives_a_round_trip_bit_for_bit(void **state) {
    (void)state;
    enum { COUNT = 1 << 16 };
    float *values = malloc(COUNT * sizeof *values);
    uint64_t random = 3;
    assert_non_null(values);
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < COUNT; i++)
            values[i] = round == 0 ? (float)(i % 1000) / 100 : random_float(&random);
        const gd_tensor tensor = {
            .dtype = GD_FLOAT32, .shape = {.rank = 4, .dim = {64, 1, 32, 32}}, .data = values};
        gp_text text = {.data = NULL};
        gp_json_tensor read;
        gp_error error = {.problem = GP_OK};
        gp_json_write_tensor(&text, &tensor);
        assert_false(text.failed);
        if (gp_json_read_tensor(text.data, text.size, &read, &error) < 0)
            fail_msg("%s", error.detail);
        assert_int_equal(read.array.rank, 4);
        assert_memory_equal(read.array.data, values, COUNT * sizeof *values);
        free(read.memory);
        gp_text_release(&text);
    }
    free(values);
}

static void what_is_written_is_valid_json(void **state) {
    (void)state;
    static float floats[24];
    static int64_t ints[4] = {INT64_MIN, INT64_MAX, 0, -1};
    static int32_t small[2] = {INT32_MIN, INT32_MAX};
    static uint8_t bytes[2] = {0, 255};
    static double doubles[5] = {0.1, -0.0, -2.2250738585072014e-308, NAN, 1e6};
    const struct {
        gd_tensor tensor;
        const char *expected; /* of data */
    } rows[] = {
        {{GD_INT64, {2, {2, 2}}, ints}, "[[-9223372036854775808,9223372036854775807],[0,-1]]"},
        {{GD_INT32, {1, {2}}, small}, "[-2147483648,2147483647]"},
        {{GD_UINT8, {2, {1, 2}}, bytes}, "[[0,255]]"},
        {{GD_FLOAT64, {1, {5}}, doubles},
         "[0.10000000000000001,-0.0,-2.2250738585072014e-308,\"NaN\",1000000]"},
        {{GD_FLOAT32, {3, {2, 1, 3}}, floats}, "[[[0,0,0]],[[0,0,0]]]"},
        {{GD_FLOAT32, {3, {1, 2, 2}}, floats}, "[[[0,0],[0,0]]]"},
        {{GD_FLOAT32, {1, {0}}, floats}, "[]"},
        {{GD_FLOAT32, {2, {0, 3}}, floats}, "[]"},
        {{GD_FLOAT32, {2, {3, 0}}, floats}, "[[],[],[]]"},
        {{GD_FLOAT32, {3, {2, 0, 4}}, floats}, "[[],[]]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gp_text text = {.data = NULL};
        json_error_t wrong;
        gp_json_write_tensor(&text, &rows[i].tensor);
        json_t *json = json_loads(text.data, JSON_REJECT_DUPLICATES, &wrong);
        if (!json)
            fail_msg("%s: %s", text.data, wrong.text);
        json_decref(json);
        const char *data = strstr(text.data, "\"data\": ");
        assert_non_null(data);
        assert_memory_equal(data + 8, rows[i].expected, strlen(rows[i].expected));
        assert_string_equal(data + 8 + strlen(rows[i].expected), "}");
        gp_text_release(&text);
    }
}

static void strings_are_escaped_and_made_utf_8(void **state) {
    (void)state;
    gp_text text = {.data = NULL};
    gp_json_write_string(&text, "a\"b\\c\n\x01\xc3\xa9\xff\xc3");
    assert_string_equal(text.data, "\"a\\\"b\\\\c\\u000a\\u0001\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\"");
    gp_text_release(&text);
}

static void numbers_of_doubles_follow_the_same_rules(void **state) {
    (void)state;
    gp_text text = {.data = NULL};
    gp_json_write_number(&text, 0.01, 9);
    gp_text_add(&text, " ");
    gp_json_write_number(&text, -(double)INFINITY, 9);
    assert_string_equal(text.data, "0.01 \"-Infinity\"");
    gp_text_release(&text);
    json_t *number = gp_json_number((double)NAN), *plain = gp_json_number(0.5);
    assert_string_equal(json_string_value(number), "NaN");
    assert_true(json_real_value(plain) == 0.5);
    json_decref(number);
    json_decref(plain);
}

static void a_text_grows_by_what_is_added_formatted_or_repeated(void **state) {
    (void)state;
    static char expected[4096];
    gp_text text = {.data = NULL};
    size_t size = 0;
    for (int i = 0; i < 300; i++) { /* across each of its sizes */
        gp_text_add(&text, "%d,", i);
        size += (size_t)snprintf(expected + size, sizeof expected - size, "%d,", i);
        gp_text_repeat(&text, size - 2, i % 3 ? 2 : 0);
        memcpy(expected + size, expected + size - 2, 2);
        size += i % 3 ? 2 : 0;
        expected[size] = '\0';
        assert_int_equal(text.size, size);
        assert_string_equal(text.data, expected);
    }
    gp_text_repeat(&text, 0, (size_t)GP_MAX_TEXT);
    assert_true(text.failed);
    assert_string_equal(text.data, expected);
    gp_text_release(&text);
}

static void a_text_stops_at_its_limit_and_stays_as_it_is(void **state) {
    (void)state;
    gp_text text = {.data = NULL};
    const size_t size = (size_t)GP_MAX_TEXT;
    gp_text_add(&text, "%s", "kept");
    gp_text_append(&text, "", size); /* never read: refused by its size */
    assert_true(text.failed);
    gp_text_add(&text, "more");
    assert_int_equal(text.size, 4);
    assert_string_equal(text.data, "kept");
    gp_text_release(&text);
    gp_text_append(&text, "", 0);
    assert_string_equal(text.data, "");
    gp_text_release(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nested_lists_give_shape_type_and_values),
        cmocka_unit_test(the_shortest_elements_fit_into_the_memory_made_for_them),
        cmocka_unit_test(malformed_tensors_are_refused_in_words),
        cmocka_unit_test(a_body_gives_its_tensors_and_the_rest),
        cmocka_unit_test(malformed_bodies_are_refused_in_words),
        cmocka_unit_test(depth_64_is_read_and_65_refused),
        cmocka_unit_test(a_nul_within_the_body_is_refused),
        cmocka_unit_test(truncated_and_damaged_bodies_do_no_harm),
        cmocka_unit_test(any_decimal_reads_as_the_nearest_float),
        cmocka_unit_test(random_floats_read_right_from_any_number_of_digits),
        cmocka_unit_test(numbers_are_written_as_printf_would),
        cmocka_unit_test(doubles_of_any_number_of_digits_are_written_as_printf_would),
        cmocka_unit_test(every_float_survives_a_round_trip_bit_for_bit),
        cmocka_unit_test(what_is_written_is_valid_json),
        cmocka_unit_test(strings_are_escaped_and_made_utf_8),
        cmocka_unit_test(numbers_of_doubles_follow_the_same_rules),
        cmocka_unit_test(a_text_grows_by_what_is_added_formatted_or_repeated),
        cmocka_unit_test(a_text_stops_at_its_limit_and_stays_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
