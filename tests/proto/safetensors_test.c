/* safetensors_test.c -- files of the safetensors library in, headers that it reads out. */
#include "tests/proto/wire.h"

static int read_safetensors(const void *data, size_t size, gp_error *error) {
    gp_safetensors tensors;
    if (gp_safetensors_read(data, size, 0, &tensors, error) < 0)
        return -1;
    int status = 0;
    for (size_t i = 0; i < tensors.count && status == 0; i++) { /* touch what it promises */
        float values[64];
        if (gp_array_numel(&tensors.arrays[i].array) <= 64)
            status = gp_array_convert(&tensors.arrays[i].array, GP_FLOAT32, values, "x", error);
    }
    gp_safetensors_release(&tensors);
    return status;
}

/* A body of this header and `data` zero bytes. */
static size_t make_body(const char *header, size_t data, char *out, size_t room) {
    const size_t length = strlen(header);
    assert_true(8 + length + data <= room);
    memset(out, 0, room);
    out[0] = (char)(length & 0xff);
    out[1] = (char)(length >> 8);
    memcpy(out + 8, header, length);
    return 8 + length + data;
}

static void every_type_that_the_library_writes_is_read(void **state) {
    (void)state;
    size_t size;
    char *bytes = test_read_file("tests/golden/wire/all.safetensors", &size);
    gp_safetensors tensors;
    gp_error error = {.problem = GP_OK};
    if (gp_safetensors_read(bytes, size, 0, &tensors, &error) < 0)
        fail_msg("%s", error.detail);
    assert_int_equal(tensors.count, GP_DTYPE_COUNT + 3);
    for (int dtype = 0; dtype < GP_DTYPE_COUNT; dtype++) {
        const gp_array *array = gp_safetensors_find(&tensors, gp_dtype_name((gp_dtype)dtype));
        float floats[6];
        int64_t ints[6];
        assert_non_null(array);
        assert_int_equal(array->dtype, dtype);
        assert_int_equal(array->rank, 2);
        assert_int_equal(array->dim[1], 3);
        assert_int_equal(gp_array_convert(array, GP_FLOAT32, floats, "x", NULL), 0);
        assert_int_equal(gp_array_convert(array, GP_INT64, ints, "x", NULL), 0);
        for (int k = 0; k < 6; k++) {
            assert_true(floats[k] == (float)(dtype == GP_BOOL ? k % 2 : k));
            assert_int_equal(ints[k], dtype == GP_BOOL ? k % 2 : k);
        }
    }
    assert_int_equal(gp_safetensors_find(&tensors, "scalar")->rank, 0);
    assert_int_equal(gp_safetensors_find(&tensors, "empty")->dim[1], 3);
    assert_non_null(
        gp_safetensors_find(&tensors, "a \"quoted\" \\ name, \xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80"));
    assert_null(gp_safetensors_find(&tensors, "none"));
    assert_string_equal(tensors.metadata, "{\"note\":\"line\\nbreak\",\"format\":\"pt\"}");
    gp_safetensors_release(&tensors);
    free(bytes);
}

static void tensors_come_in_the_order_of_their_data(void **state) {
    (void)state;
    char bytes[512];
    gp_safetensors tensors;
    const size_t size =
        make_body("{\"b\": {\"dtype\": \"U8\", \"shape\": [2], \"data_offsets\": [1, 3]},"
                  " \"a\": {\"data_offsets\": [0, 1], \"shape\": [1], \"dtype\": \"U8\"},"
                  " \"e\": {\"dtype\": \"F32\", \"shape\": [0], \"data_offsets\": [1, 1]}}   ",
                  3, bytes, sizeof bytes);
    assert_int_equal(gp_safetensors_read(bytes, size, 0, &tensors, NULL), 0);
    assert_string_equal(tensors.arrays[0].name, "a");
    assert_string_equal(tensors.arrays[1].name, "e");
    assert_string_equal(tensors.arrays[2].name, "b");
    assert_null(tensors.metadata);
    gp_safetensors_release(&tensors);
}

static void escapes_in_names_are_decoded(void **state) {
    (void)state;
    char bytes[512];
    gp_safetensors tensors;
    const size_t size =
        make_body("{\"\\u0041\\n\\/\\ud83d\\ude00\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}",
                  1, bytes, sizeof bytes);
    assert_int_equal(gp_safetensors_read(bytes, size, 0, &tensors, NULL), 0);
    assert_string_equal(tensors.arrays[0].name, "A\n/\xf0\x9f\x98\x80");
    gp_safetensors_release(&tensors);
}

#define ONE(dtype, shape, offsets) \
    "{\"x\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(first, second) \
    "{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" first \
    "},\"y\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" second "}}"

static void what_is_not_exactly_the_format_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *part;
    } rows[] = {
        {ONE("F32", "[2]", "[0,8]"), 7, "ends at byte 8 of the data, which has 7"},
        {ONE("F32", "[2]", "[0,8]"), 9, "end after 8 bytes of data, but 9 follow"},
        {ONE("F32", "[2]", "[4,12]"), 12, "does not begin where"},
        {ONE("F32", "[2]", "[8,0]"), 8, "ends before it begins"},
        {ONE("F32", "[2]", "[0,4]"), 4, "make 8 bytes, but its data_offsets span 4"},
        {ONE("F32", "[2]", "[0,12]"), 12, "make 8 bytes, but its data_offsets span 12"},
        {ONE("F32", "[2]", "[0]"), 8, "needs two data_offsets"},
        {ONE("F32", "[2]", "[]"), 8, "needs two data_offsets"},
        {ONE("F32", "[2]", "[0,8,8]"), 8, "needs two data_offsets"},
        {ONE("F32", "[2]", "[-8,0]"), 8, "whole numbers"},
        {ONE("F32", "[2]", "[0,8.0]"), 8, "',' or ']' is missing"},
        {ONE("F32", "[2]", "[0,08]"), 8, "whole numbers"},
        {ONE("F32", "[2]", "[0,99999999999999999999]"), 8, "whole numbers"},
        {ONE("F32", "[2]", "[0,9223372036854775807]"), 8, "ends at byte"},
        {ONE("F32", "[2,]", "[0,8]"), 8, "whole numbers"},
        {ONE("F32", "2", "[0,8]"), 8, "not a list"},
        {ONE("F32", "[4294967296,4294967296]", "[0,8]"), 8, "more elements than memory"},
        {ONE("F32", "[0,4294967296,4294967296]", "[0,0]"), 0, "more elements than memory"},
        {ONE("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "more than 8 axes"},
        {ONE("F8_E4M3", "[8]", "[0,8]"), 8, "dtype F8_E4M3"},
        {ONE("f32", "[2]", "[0,8]"), 8, "dtype f32"},
        {TWO("[0,4]", "[0,4]"), 4, "does not begin where"},
        {TWO("[0,4]", "[2,6]"), 6, "does not begin where"},
        {TWO("[0,4]", "[5,9]"), 9, "does not begin where"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[]}}", 0, "has no data_offsets"},
        {"{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,0]}}", 0, "has no shape"},
        {"{\"x\":{\"shape\":[],\"data_offsets\":[0,1]}}", 1, "has no dtype"},
        {"{\"x\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
         "twice the field \"dtype\""},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"more\":1}}", 1,
         "unknown field \"more\""},
        {"{\"x\":{}}", 0, "no string where one"},
        {"{\"x\":[]}", 0, "not described by an object"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},\"x\":{\"dtype\":\"U8\",\"shape\":[],"
         "\"data_offsets\":[1,2]}}",
         2, "\"x\" stands twice"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},\"\\u0078\":{\"dtype\":\"U8\","
         "\"shape\":[],\"data_offsets\":[1,2]}}",
         2, "\"x\" stands twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "\"__metadata__\" stands twice"},
        {"{\"__metadata__\":{\"a\":\"1\",\"b\":\"2\",\"a\":\"3\"}}", 0, "\"a\" stands twice"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "no string where one"},
        {"{\"__metadata__\":[]}", 0, "not an object of strings"},
        {"{\"__metadata__\":{\"a\":{}}}", 0, "no string where one"},
        {"{}", 1, "end after 0 bytes of data, but 1 follow"},
        {"", 0, "does not begin with '{'"},
        {" {}", 0, "does not begin with '{'"},
        {"[]", 0, "does not begin with '{'"},
        {"{}{}", 0, "something follows"},
        {"{}\n", 0, "something follows"},
        {"{\"x\"}", 0, "':' is missing"},
        {"{\"x", 0, "without an end"},
        {"{\"x\\", 0, "escape"},
        {"{\"x\\q\":1}", 0, "escape"},
        {"{\"x\\ud800\":1}", 0, "surrogate"},
        {"{\"x\\udc00\":1}", 0, "surrogate"},
        {"{\"x\\u0000\":1}", 0, "NUL"},
        {"{\"x\x01\":1}", 0, "control character"},
        {"{\"x\xc0\x80\":1}", 0, "not UTF-8"},
        {"{\"x\xed\xa0\x80\":1}", 0, "not UTF-8"},
        {"{\"x\xf4\x90\x80\x80\":1}", 0, "not UTF-8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char bytes[512];
        gp_error error = {.problem = GP_OK};
        const size_t size = make_body(rows[i].header, rows[i].data, bytes, sizeof bytes);
        wire_assert_refused(wire_read_copy(read_safetensors, bytes, size, &error), &error, rows[i].part,
                            rows[i].header);
    }
}

static void a_header_longer_than_the_body_or_the_limit_is_refused(void **state) {
    (void)state;
    gp_safetensors tensors;
    unsigned char bytes[16] = {9, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    gp_error error = {.problem = GP_OK};
    wire_assert_refused(gp_safetensors_read(bytes, sizeof bytes, 0, &tensors, &error), &error, "ends within",
                        "long");
    memset(bytes, 0xff, 8);
    error.problem = GP_OK;
    wire_assert_refused(gp_safetensors_read(bytes, sizeof bytes, 0, &tensors, &error), &error,
                        "at most 1048576", "huge");
    memcpy(bytes, "\x08\0\0\0\0\0\0\0{}      ", 16);
    assert_int_equal(gp_safetensors_read(bytes, sizeof bytes, 8, &tensors, NULL), 0);
    gp_safetensors_release(&tensors);
    error.problem = GP_OK;
    wire_assert_refused(gp_safetensors_read(bytes, sizeof bytes, 7, &tensors, &error), &error, "at most 7",
                        "limit");
}

static void a_name_of_255_bytes_is_read_and_of_256_refused(void **state) {
    (void)state;
    for (int length = 255; length <= 256; length++) {
        char header[512], bytes[1024], name[257] = "";
        gp_error error = {.problem = GP_OK};
        memset(name, 'n', (size_t)length);
        snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}",
                 name);
        const size_t size = make_body(header, 1, bytes, sizeof bytes);
        const int status = wire_read_copy(read_safetensors, bytes, size, &error);
        if (length == 255)
            assert_int_equal(status, 0);
        else
            wire_assert_refused(status, &error, "too long", "name");
    }
}

static void truncated_and_damaged_bodies_do_no_harm(void **state) {
    (void)state;
    size_t size;
    char *bytes = test_read_file("tests/golden/wire/all.safetensors", &size);
    wire_truncate(read_safetensors, bytes, size);
    wire_flip(read_safetensors, bytes, size);
    free(bytes);
}

static void what_is_written_is_read_back(void **state) {
    (void)state;
    float first[3] = {1, 2, 3};
    int64_t second[2] = {-1, INT64_MAX};
    const gp_named_array arrays[] = {
        {"conv1.weight",
         {.dtype = GP_FLOAT32, .rank = 2, .dim = {1, 3}, .data = first, .size = sizeof first}},
        {"a \"name\"\n\xc3\xa9\\",
         {.dtype = GP_INT64, .rank = 1, .dim = {2}, .data = second, .size = sizeof second}},
        {"empty", {.dtype = GP_BOOL, .rank = 1, .dim = {0}}},
        {"scalar", {.dtype = GP_FLOAT32, .rank = 0, .data = first, .size = 4}},
    };
    char bytes[1024];
    gp_safetensors tensors;
    gp_error error = {.problem = GP_OK};
    for (size_t count = 0; count <= 4; count++) {
        const size_t header = gp_safetensors_header_size(arrays, count, NULL);
        size_t size = header;
        assert_int_equal(header % 8, 0);
        memset(bytes, 0x55, sizeof bytes);
        assert_int_equal(gp_safetensors_write_header(arrays, count, NULL, bytes), header);
        assert_int_equal(bytes[header], 0x55);
        for (size_t i = 0; i < count; size += arrays[i++].array.size)
            if (arrays[i].array.size)
                memcpy(bytes + size, arrays[i].array.data, arrays[i].array.size);
        if (gp_safetensors_read(bytes, size, 0, &tensors, &error) < 0)
            fail_msg("%s", error.detail);
        assert_int_equal(tensors.count, count);
        for (size_t i = 0; i < count; i++) {
            const gp_array *array = gp_safetensors_find(&tensors, arrays[i].name);
            assert_non_null(array);
            assert_int_equal(array->dtype, arrays[i].array.dtype);
            assert_int_equal(array->rank, arrays[i].array.rank);
            assert_memory_equal(array->dim, arrays[i].array.dim, sizeof array->dim);
            if (array->size)
                assert_memory_equal(array->data, arrays[i].array.data, arrays[i].array.size);
        }
        gp_safetensors_release(&tensors);
    }
}

static void a_header_stays_within_its_limit(void **state) {
    (void)state;
    static gp_named_array arrays[3]; /* with the longest names, dtype's name and numbers that there are */
    for (size_t count = 0; count <= 3; count++) {
        assert_in_range(gp_safetensors_header_size(arrays, count, NULL), 8,
                        gp_safetensors_header_limit(arrays, count));
    }
    for (size_t i = 0; i < 3; i++) {
        memset(arrays[i].name, 1, GP_MAX_NAME - 1); /* "\\u0001" */
        arrays[i].array = (gp_array){.dtype = GP_BFLOAT16, .rank = GP_MAX_RANK, .size = i ? 0 : SIZE_MAX};
        for (int axis = 0; axis < GP_MAX_RANK; axis++)
            arrays[i].array.dim[axis] = -1; /* 2^64 - 1 */
    }
    for (size_t count = 0; count <= 3; count++) {
        assert_in_range(gp_safetensors_header_size(arrays, count, NULL), 8,
                        gp_safetensors_header_limit(arrays, count));
    }
}

static void metadata_is_written_and_read_back(void **state) {
    (void)state;
    static const gp_metadata metadata[] = {
        {"format", "pt"}, {"a \"b\"", "{\"c\": \"d\\e\"}\n"}, {NULL, NULL}};
    static const gp_metadata none[] = {{NULL, NULL}};
    float values[2] = {1, 2};
    const gp_named_array array = {
        "x", {.dtype = GP_FLOAT32, .rank = 1, .dim = {2}, .data = values, .size = sizeof values}};
    char bytes[512];
    gp_safetensors tensors;
    gp_error error = {.problem = GP_OK};
    for (size_t count = 0; count <= 1; count++) {
        const size_t header = gp_safetensors_header_size(&array, count, metadata);
        gp_safetensors_write_header(&array, count, metadata, bytes);
        memcpy(bytes + header, values, sizeof values);
        if (gp_safetensors_read(bytes, header + count * sizeof values, 0, &tensors, &error) < 0)
            fail_msg("%s", error.detail);
        assert_int_equal(tensors.count, count);
        json_t *read = json_loads(tensors.metadata, 0, NULL);
        assert_int_equal(json_object_size(read), 2);
        for (size_t i = 0; metadata[i].key; i++)
            assert_string_equal(json_string_value(json_object_get(read, metadata[i].key)), metadata[i].value);
        json_decref(read);
        gp_safetensors_release(&tensors);
    }
    gp_safetensors_write_header(&array, 0, none, bytes);
    assert_int_equal(
        gp_safetensors_read(bytes, gp_safetensors_header_size(&array, 0, none), 0, &tensors, &error), 0);
    assert_string_equal(tensors.metadata, "{}");
    gp_safetensors_release(&tensors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_that_the_library_writes_is_read),
        cmocka_unit_test(tensors_come_in_the_order_of_their_data),
        cmocka_unit_test(escapes_in_names_are_decoded),
        cmocka_unit_test(what_is_not_exactly_the_format_is_refused),
        cmocka_unit_test(a_header_longer_than_the_body_or_the_limit_is_refused),
        cmocka_unit_test(a_name_of_255_bytes_is_read_and_of_256_refused),
        cmocka_unit_test(truncated_and_damaged_bodies_do_no_harm),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_header_stays_within_its_limit),
        cmocka_unit_test(metadata_is_written_and_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
