/* tutorial_test.c -- both tutorials run on a daemon; they check their own results. */
#include "tests/support.h"

#include "tests/daemon.h"

static void run(const char *program) {
    test_daemon daemon;
    test_output output;
    char variable[128];
    test_daemon_start(&daemon, NULL);
    snprintf(variable, sizeof variable, "GRADD_SERVER=%s", daemon.server);
    /* Twice: the first run must leave no model behind. */
    for (int i = 0; i < 2; i++) {
        test_run((const char *const[]){program, NULL}, (const char *const[]){variable, NULL}, &output);
        if (output.status != 0 || !strstr(output.out, "All results are as they should be.")) {
            fail_msg("%s: exit status %d\n%s\n%s", program, output.status, output.out, output.err);
        }
        test_output_release(&output);
    }
    test_daemon_stop(&daemon);
}

static void the_tutorial_in_c_finds_all_its_results_right(void **state) {
    (void)state;
    char program[512];
    run(test_program("tutorial", program));
}

static void the_tutorial_in_shell_finds_all_its_results_right(void **state) {
    (void)state;
    run("clients/examples/tutorial.sh");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tutorial_in_c_finds_all_its_results_right),
        cmocka_unit_test(the_tutorial_in_shell_finds_all_its_results_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
