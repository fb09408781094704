/* progress_test.c -- the progress line has tqdm's form, and is drawn when it should be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h wants the three above first */
#include <cmocka.h>
#include <math.h>

#include "clients/ctl/progress.h"

static const int64_t MS = 1000000;

static void a_line_reads_as_tqdms(void **state) {
    (void)state;
    char line[256];
    int columns = ctl_progress_line(line, sizeof line, "epoch 1/3", 394, 938, 3.2455, 0.31268, 0.01);
    assert_string_equal(
        line, "epoch 1/3:  42%|████▏     | 394/938 [00:03<00:04, 121.4it/s, loss=0.3127, lr=1.0e-02]");
    assert_int_equal(columns, 85);
}

static void the_bar_is_empty_at_first_and_full_at_last(void **state) {
    (void)state;
    char line[256];
    ctl_progress_line(line, sizeof line, "e", 0, 938, 0, 2.3, 0.1);
    assert_string_equal(line, "e:   0%|          | 0/938 [00:00<?, ?it/s, loss=2.3000, lr=1.0e-01]");
    ctl_progress_line(line, sizeof line, "e", 938, 938, 3700, 2.3, 0.1);
    assert_string_equal(line,
                        "e: 100%|██████████| 938/938 [1:01:40<00:00, 3.9s/it, loss=2.3000, lr=1.0e-01]");
}

static void a_loss_that_is_huge_or_no_number_keeps_the_line_short(void **state) {
    (void)state;
    char line[256];
    ctl_progress_line(line, sizeof line, "e", 1, 2, 1, 1e30, 0.1);
    assert_non_null(strstr(line, "loss=1.000e+30,"));
    ctl_progress_line(line, sizeof line, "e", 1, 2, 1, NAN, 0.1);
    assert_non_null(strstr(line, "nan,"));
}

static void the_mode_follows_choice_and_terminal(void **state) {
    (void)state;
    assert_int_equal(ctl_progress_choose(CTL_AUTO, true, "xterm"), CTL_PROGRESS_BAR);
    assert_int_equal(ctl_progress_choose(CTL_AUTO, true, "dumb"), CTL_PROGRESS_LINES);
    assert_int_equal(ctl_progress_choose(CTL_AUTO, true, NULL), CTL_PROGRESS_LINES);
    assert_int_equal(ctl_progress_choose(CTL_AUTO, false, "xterm"), CTL_PROGRESS_LINES);
    assert_int_equal(ctl_progress_choose(CTL_ALWAYS, false, NULL), CTL_PROGRESS_BAR);
    assert_int_equal(ctl_progress_choose(CTL_NEVER, true, "xterm"), CTL_PROGRESS_NONE);
}

/* A thousand updates, 10 ms apart. @return how often `sign` was written */
static int count_drawn(ctl_progress_mode mode, char sign) {
    char *text = NULL;
    size_t size = 0;
    int count = 0;
    ctl_progress progress = {.out = open_memstream(&text, &size), .mode = mode};
    ctl_progress_begin(&progress, "e", 1000, 0);
    for (int i = 1; i <= 1000; i++) {
        ctl_progress_update(&progress, i, 1, 1, i * 10 * MS);
    }
    ctl_progress_end(&progress, 1000, 1, 1, 10000 * MS);
    fclose(progress.out);
    for (size_t i = 0; i < size; i++) {
        count += text[i] == sign;
    }
    free(text);
    return count;
}

static void a_bar_is_drawn_ten_times_a_second_and_ends_its_line(void **state) {
    (void)state;
    assert_int_equal(count_drawn(CTL_PROGRESS_BAR, '\r'), 101); /* 10 s, and the end */
    assert_int_equal(count_drawn(CTL_PROGRESS_BAR, '\n'), 1);
}

static void without_a_terminal_a_line_is_written_every_ten_seconds_and_at_the_end(void **state) {
    (void)state;
    assert_int_equal(count_drawn(CTL_PROGRESS_LINES, '\n'), 2);
    assert_int_equal(count_drawn(CTL_PROGRESS_LINES, '\r'), 0);
    assert_int_equal(count_drawn(CTL_PROGRESS_NONE, '\n'), 0);
}

static void a_narrow_terminal_cuts_the_line_and_a_shorter_one_wipes_out_a_longer(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    ctl_progress progress = {.out = open_memstream(&text, &size), .mode = CTL_PROGRESS_BAR, .columns = 12};
    ctl_progress_begin(&progress, "e", 2, 0);
    ctl_progress_end(&progress, 2, 1, 1, MS);
    fflush(progress.out);
    assert_string_equal(text, "\re: 100%|███\n"); /* 11 columns */
    progress.columns = 5;
    ctl_progress_end(&progress, 2, 1, 1, MS);
    fclose(progress.out);
    assert_string_equal(text, "\re: 100%|███\n\re: 1       \n");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_reads_as_tqdms),
        cmocka_unit_test(the_bar_is_empty_at_first_and_full_at_last),
        cmocka_unit_test(a_loss_that_is_huge_or_no_number_keeps_the_line_short),
        cmocka_unit_test(the_mode_follows_choice_and_terminal),
        cmocka_unit_test(a_bar_is_drawn_ten_times_a_second_and_ends_its_line),
        cmocka_unit_test(without_a_terminal_a_line_is_written_every_ten_seconds_and_at_the_end),
        cmocka_unit_test(a_narrow_terminal_cuts_the_line_and_a_shorter_one_wipes_out_a_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
