/* plot_test.c -- what is drawn in the terminal, character by character. */
#include <math.h>
#include <stdlib.h>

#include "clients/ctl/plot.h"
#include "tests/support.h"

/* @return allocated; NULL: nothing was drawn */
static char *draw(const double *x, const double *y, size_t count, int columns, int rows) {
    char *out = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&out, &size);
    const ctl_plot plot = {.title = "loss", .x = x, .y = y, .count = count, .columns = columns, .rows = rows};
    assert_non_null(file);
    bool any = ctl_plot_draw(file, &plot);
    assert_int_equal(fclose(file), 0);
    if (!any) {
        assert_int_equal(size, 0);
        free(out);
        return NULL;
    }
    return out;
}

static void assert_drawn(const double *x, const double *y, size_t count, int columns, int rows,
                         const char *expected) {
    char *out = draw(x, y, count, columns, rows);
    assert_non_null(out);
    assert_string_equal(out, expected);
    free(out);
}

static void a_curve_is_drawn_with_its_axes(void **state) {
    (void)state;
    const double x[] = {1, 2, 3, 4, 5}, y[] = {4, 2, 1, 0.5, 0};
    assert_drawn(x, y, 5, 24, 7,
                 "            loss\n"
                 "         4 ┤⠑⢄\n"
                 "           │ ⠈⠢⡀\n"
                 "     1.333 ┤   ⠈⠑⠤⣀\n"
                 "         0 ┤       ⠉⠒⠢⠤⣀\n"
                 "           └────────────\n"
                 "            1          5\n");
}

static void a_gap_is_left_where_there_is_no_number(void **state) {
    (void)state;
    const double x[] = {1, 2, 3, 4, 5}, y[] = {1, 1, NAN, 0, 0};
    assert_drawn(x, y, 5, 20, 7,
                 "            loss\n"
                 "         1 ┤⠉⠉⠁\n"
                 "           │\n"
                 "    0.3333 ┤\n"
                 "         0 ┤     ⢀⣀⣀\n"
                 "           └────────\n"
                 "            1      5\n");
}

static void a_constant_is_a_line_in_the_middle(void **state) {
    (void)state;
    const double x[] = {1, 2}, y[] = {0.01, 0.01};
    assert_drawn(x, y, 2, 20, 7,
                 "            loss\n"
                 "           │\n"
                 "      0.01 ┤⣀⣀⣀⣀⣀⣀⣀⣀\n"
                 "           │\n"
                 "           │\n"
                 "           └────────\n"
                 "            1      2\n");
}

static void one_point_is_a_dot(void **state) {
    (void)state;
    const double x[] = {7}, y[] = {-1e-30};
    char *out = draw(x, y, 1, 20, 7);
    assert_non_null(out);
    free(out);
}

static void nothing_is_drawn_of_no_numbers(void **state) {
    (void)state;
    const double x[] = {1, 2}, y[] = {NAN, INFINITY};
    assert_null(draw(x, y, 0, 40, 10));
    assert_null(draw(x, y, 2, 40, 10));
}

static void any_size_of_a_terminal_is_borne(void **state) {
    (void)state;
    const double x[] = {1, 2, 3}, y[] = {-1.7e308, 1.7e308, 0};
    for (int columns = -5; columns < 600; columns += 7) {
        for (int rows = -5; rows < 300; rows += 50) {
            char *out = draw(x, y, 3, columns, rows);
            assert_non_null(out);
            free(out);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_curve_is_drawn_with_its_axes),
        cmocka_unit_test(a_gap_is_left_where_there_is_no_number),
        cmocka_unit_test(a_constant_is_a_line_in_the_middle),
        cmocka_unit_test(one_point_is_a_dot),
        cmocka_unit_test(nothing_is_drawn_of_no_numbers),
        cmocka_unit_test(any_size_of_a_terminal_is_borne),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
