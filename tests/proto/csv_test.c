/* csv_test.c -- numbers separated by commas, however the file is cut into pieces. */
#include <math.h>

#include "tests/proto/wire.h"

/* Bytes that come `step` at a time. */
typedef struct pieces {
    const char *at;
    size_t left, step;
} pieces;

static int read_pieces(void *argument, void *out, size_t room, size_t *ret_size, gp_error *error) {
    pieces *from = argument;
    size_t size = from->left < from->step ? from->left : from->step;
    (void)error;
    size = size < room ? size : room;
    memcpy(out, from->at, size);
    from->at += size;
    from->left -= size;
    *ret_size = size;
    return 0;
}

/* All numbers of a file, as doubles. */
typedef struct numbers {
    int64_t rows, columns;
    bool real;
    size_t count;
    double values[64];
} numbers;

static int read_csv(const char *text, size_t size, size_t step, numbers *ret, gp_error *error) {
    pieces from = {text, size, step};
    gp_csv *csv = calloc(1, sizeof *csv);
    assert_non_null(csv);
    csv->read = read_pieces;
    csv->argument = &from;
    *ret = (numbers){.rows = 0};
    int status;
    do {
        status = gp_csv_next(csv, error);
        for (size_t i = 0; i < csv->count && !status; i++) {
            assert_true(ret->count < 64);
            ret->values[ret->count++] =
                csv->real ? (double)csv->values.real[i] : (double)csv->values.whole[i];
        }
    } while (!status && csv->count);
    ret->rows = csv->rows;
    ret->columns = csv->columns;
    ret->real = csv->real;
    free(csv);
    return status;
}

static void numbers_are_read_whatever_the_pieces(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t rows, columns;
        bool real;
        double values[6];
    } rows[] = {
        {"1,2,3\n4,5,6\n", 2, 3, false, {1, 2, 3, 4, 5, 6}},
        {"1,2,3\r\n4,5,6", 2, 3, false, {1, 2, 3, 4, 5, 6}},
        {"7\n-8\n9\n\n\n", 3, 1, false, {7, -8, 9}},
        {"\xef\xbb\xbf"
         "1,2\n",
         1,
         2,
         false,
         {1, 2}},
        {"label,1x1\n5,0\n", 1, 2, false, {5, 0}},
        {"\"a, b\",\"c\"\n1,2\n", 1, 2, false, {1, 2}},
        {",0\n0,5\n", 1, 2, false, {0, 5}},
        {" 1 ,\t+2\n 3 , 4 \n", 2, 2, false, {1, 2, 3, 4}},
        {"1,2\n3,4.5\n", 2, 2, true, {1, 2, 3, 4.5}},
        {"1e3,-2.5E-1\n.5,5.\n", 2, 2, true, {1000, -0.25, 0.5, 5}},
        {"nan,inf\n-Infinity,+1.5\n", 2, 2, true, {NAN, INFINITY, -INFINITY, 1.5}},
        {"9007199254740993\n", 1, 1, false, {9007199254740993.}},
        {"1.0\n", 1, 1, true, {1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t step = 1; step <= 32; step++) {
            numbers got;
            gp_error error = {.problem = GP_OK};
            if (read_csv(rows[i].text, strlen(rows[i].text), step, &got, &error))
                fail_msg("%s: %s", rows[i].text, error.detail);
            assert_int_equal(got.rows, rows[i].rows);
            assert_int_equal(got.columns, rows[i].columns);
            assert_int_equal(got.real, rows[i].real);
            assert_int_equal(got.count, rows[i].rows * rows[i].columns);
            for (size_t v = 0; v < got.count; v++)
                assert_true(got.values[v] == rows[i].values[v] ||
                            (isnan(got.values[v]) && isnan(rows[i].values[v])));
        }
    }
}

static void what_is_wrong_is_refused_with_its_line(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"", "no line of numbers"},
        {"\n\n", "no line of numbers"},
        {"a,b\n", "no line of numbers"},
        {"1,2\n3\n", "line 2 has 1 numbers, but the lines before it have 2"},
        {"1,2\n3,4,5\n", "line 2 has more than 2 numbers"},
        {"a,b,c\n1,2\n", "line 2 has 2 numbers, but the header names 3"},
        {"1,2\n3,\n", "line 2, column 2: \"\" is no number"},
        {"1,2\n,3\n", "line 2, column 1: \"\" is no number"},
        {"1,2\n3,x\n", "line 2, column 2: \"x\" is no number"},
        {"1,x\n", "line 1, column 2: \"x\" is no number"},
        {"1\n\n2\n", "line 2 is empty"},
        {"\n1\n", "line 1 is empty"},
        {"1\n1e39\n", "line 2, column 1: \"1e39\" is more than float32 can hold"},
        {"1\n0x10\n", "\"0x10\" is no number"},
        {"1\n1 2\n", "\"1 2\" is no number"},
        {"1\n\"2\"\n", "is no number"},
        {"1\n1;2\n", "is no number"},
        {"1\n--1\n", "is no number"},
        {"1\n+-1\n", "is no number"},
        {"1\nnan(1)\n", "is no number"},
        {"1\n00000000000000000000000000000000000000000000000000000000000000000000000000000001\n",
         "is no number"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t step = 1; step <= 9; step += 4) {
            numbers got;
            gp_error error = {.problem = GP_OK};
            int status = read_csv(rows[i].text, strlen(rows[i].text), step, &got, &error);
            wire_assert_refused(status, &error, rows[i].part, rows[i].text);
        }
    }
}

/* 20,001 whole numbers, then one that is not: those given before are told to be turned. */
static void many_values_come_in_blocks_of_one_type(void **state) {
    (void)state;
    enum { ROWS = 20001 };
    char *text = malloc(ROWS * 8 + 16);
    assert_non_null(text);
    size_t size = 0, whole = 0, real = 0;
    for (int i = 0; i < ROWS; i++)
        size += (size_t)snprintf(text + size, 9, "%d\n", i);
    size += (size_t)snprintf(text + size, 16, "0.5\n");
    pieces from = {text, size, 1000};
    gp_csv *csv = calloc(1, sizeof *csv);
    assert_non_null(csv);
    csv->read = read_pieces;
    csv->argument = &from;
    do {
        assert_int_equal(gp_csv_next(csv, NULL), 0);
        for (size_t i = 0; i < csv->count; i++) {
            double expected = whole + real < ROWS ? (double)(whole + real) : 0.5;
            assert_true((csv->real ? (double)csv->values.real[i] : (double)csv->values.whole[i]) == expected);
            *(csv->real ? &real : &whole) += 1;
        }
    } while (csv->count);
    assert_int_equal(whole, 2 * GP_CSV_BLOCK);
    assert_int_equal(real, ROWS + 1 - 2 * GP_CSV_BLOCK);
    assert_int_equal(csv->rows, ROWS + 1);
    free(csv);
    free(text);
}

static int fail_reading(void *argument, void *out, size_t room, size_t *ret_size, gp_error *error) {
    (void)argument, (void)out, (void)room, (void)ret_size;
    return gp_fail(error, GP_STORAGE_FAILED, "", "no more");
}

static void what_its_source_says_is_passed_on(void **state) {
    (void)state;
    gp_error error = {.problem = GP_OK};
    gp_csv *csv = calloc(1, sizeof *csv);
    assert_non_null(csv);
    csv->read = fail_reading;
    wire_assert_refused(gp_csv_next(csv, &error), &error, "no more", "source");
    free(csv);
}

static void text_is_told_from_bytes(void **state) {
    (void)state;
    assert_true(gp_csv_detect("1,2\n", 4));
    assert_true(gp_csv_detect("\xef\xbb\xbf"
                              "a\r\n",
                              6));
    assert_false(gp_csv_detect("", 0));
    assert_false(gp_csv_detect("1\0"
                               "2",
                               3));
    assert_false(gp_csv_detect("\x7f"
                               "ELF",
                               4));
    assert_false(gp_csv_detect("{\"a\": 1}", 8));
    assert_false(gp_csv_detect("[1, 2]", 6));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_read_whatever_the_pieces),
        cmocka_unit_test(what_is_wrong_is_refused_with_its_line),
        cmocka_unit_test(many_values_come_in_blocks_of_one_type),
        cmocka_unit_test(what_its_source_says_is_passed_on),
        cmocka_unit_test(text_is_told_from_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
