/* digits_test.c -- the built-in dataset is the same bytes always, and looks like digits. */
#include "tests/support.h"

enum { ROWS = 1000, PIXELS = GD_DIGITS_SIDE * GD_DIGITS_SIDE };

static uint8_t pixels[ROWS * PIXELS];
static int64_t labels[ROWS];

/* FNV-1a, 64 bits. */
static uint64_t hash_of(const void *bytes, size_t size, uint64_t hash) {
    const uint8_t *b = bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ b[i]) * 0x100000001b3U;
    return hash;
}

static void the_first_rows_are_the_same_bytes_everywhere(void **state) {
    static const uint64_t expected[] = {0x56cbb084fe4bb41fU, 0xb1e4ce392355ceceU};
    (void)state;
    for (int test = 0; test < 2; test++) {
        gd_digits(test, 0, ROWS, pixels, labels);
        uint64_t hash = hash_of(pixels, sizeof pixels, 0xcbf29ce484222325U);
        for (int i = 0; i < ROWS; i++) { /* labels as little-endian bytes */
            uint8_t bytes[8] = {(uint8_t)labels[i]};
            hash = hash_of(bytes, sizeof bytes, hash);
        }
        assert_true(hash == expected[test]);
    }
}

static void a_row_does_not_depend_on_where_drawing_began(void **state) {
    (void)state;
    uint8_t one[PIXELS];
    int64_t label;
    gd_digits(false, 0, ROWS, pixels, labels);
    for (int64_t i = 0; i < ROWS; i += 97) {
        gd_digits(false, i, 1, one, &label);
        assert_memory_equal(one, pixels + i * PIXELS, PIXELS);
        assert_int_equal(label, labels[i]);
    }
    gd_digits(false, 5, 1, one, NULL); /* labels may be left out */
    assert_memory_equal(one, pixels + 5 * PIXELS, PIXELS);
}

static void the_splits_share_no_picture(void **state) {
    (void)state;
    uint8_t one[PIXELS];
    gd_digits(false, 0, ROWS, pixels, NULL);
    for (int64_t i = 0; i < 50; i++) {
        gd_digits(true, i, 1, one, NULL);
        for (int64_t k = 0; k < ROWS; k++)
            assert_memory_not_equal(one, pixels + k * PIXELS, PIXELS);
    }
}

static void every_digit_comes_about_equally_often(void **state) {
    (void)state;
    int counts[GD_DIGITS_CLASSES] = {0};
    gd_digits(false, 0, ROWS, pixels, labels);
    for (int i = 0; i < ROWS; i++) {
        assert_in_range(labels[i], 0, GD_DIGITS_CLASSES - 1);
        counts[labels[i]]++;
    }
    for (int k = 0; k < GD_DIGITS_CLASSES; k++)
        assert_in_range(counts[k], ROWS / 20, ROWS / 5);
}

static void a_picture_is_ink_in_the_middle_of_black(void **state) {
    (void)state;
    gd_digits(false, 0, ROWS, pixels, labels);
    for (int i = 0; i < ROWS; i++) {
        int inked = 0, on_edge = 0, brightest = 0;
        for (int p = 0; p < PIXELS; p++) {
            int value = pixels[i * PIXELS + p], x = p % GD_DIGITS_SIDE, y = p / GD_DIGITS_SIDE;
            inked += value > 127;
            brightest = value > brightest ? value : brightest;
            on_edge +=
                value > 127 && (x == 0 || y == 0 || x == GD_DIGITS_SIDE - 1 || y == GD_DIGITS_SIDE - 1);
        }
        assert_in_range(inked, 15, PIXELS / 2);
        assert_true(brightest > 180);
        assert_true(on_edge < 12);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_rows_are_the_same_bytes_everywhere),
        cmocka_unit_test(a_row_does_not_depend_on_where_drawing_began),
        cmocka_unit_test(the_splits_share_no_picture),
        cmocka_unit_test(every_digit_comes_about_equally_often),
        cmocka_unit_test(a_picture_is_ink_in_the_middle_of_black),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
