/* gradctl.c -- run gradctl. */
#include "gradctl.h"

#include "tests/support.h"

enum { MAX_ARGUMENTS = 32 };

test_output test_ctl(const char *server, const char *environment, const char *const *arguments) {
    char program[512], variable[128];
    const char *all[MAX_ARGUMENTS + 1] = {test_program("gradctl", program)};
    const char *variables[] = {variable, "NO_COLOR=1", environment, NULL};
    test_output output;
    snprintf(variable, sizeof variable, "GRADD_SERVER=%s", server ? server : "http://127.0.0.1:1");
    for (size_t i = 0; arguments[i]; i++) {
        assert_true(i + 1 < MAX_ARGUMENTS);
        all[i + 1] = arguments[i];
    }
    test_run(all, variables, &output);
    return output;
}

void assert_says(test_output output, int status, const char *out, const char *err) {
    if (output.status != status || (out && strcmp(output.out, out) != 0) ||
        (err && !strstr(output.err, err))) {
        fail_msg("exit status %d (should be %d)\nstdout: %s\nstderr: %s", output.status, status, output.out,
                 output.err);
    }
    test_output_release(&output);
}
