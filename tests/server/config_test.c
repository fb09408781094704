/* config_test.c -- flags, environment variables, --help, exit codes. */
#include "tests/support.h"

#include <string.h>
#include <unistd.h>

#include "tests/http.h"

/* Run the daemon with these arguments to its end. */
static test_output run(const char *const *arguments, const char *const *environment) {
    char program[512];
    const char *all[16] = {test_program("gradd", program)};
    test_output output;
    for (size_t i = 0; arguments[i]; i++) {
        all[i + 1] = arguments[i];
    }
    test_run(all, environment, &output);
    return output;
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect_refusal(const char *const *arguments, const char *const *environment, int status,
                           const char *part) {
    test_output output = run(arguments, environment);
    if (output.status != status || !strstr(output.err, part)) {
        fail_msg("%s: status %d, not %d, or \"%s\" is not in: %s", arguments[0], output.status, status, part,
                 output.err);
    }
    test_output_release(&output);
}

static void a_bad_flag_is_named_with_what_would_do(void **state) {
    (void)state;
    expect_refusal(ARGS("--max-modles", "3"), NULL, 2, "did you mean --max-models?");
    expect_refusal(ARGS("--frobnicate"), NULL, 2, "--help");
    expect_refusal(ARGS("--threads", "1000"), NULL, 2,
                   "--threads: \"1000\" is not a whole number from 0 to 256");
    expect_refusal(ARGS("--threads", "2x"), NULL, 2, "--threads");
    expect_refusal(ARGS("--max-body", "9Q"), NULL, 2, "--max-body");
    expect_refusal(ARGS("--max-body=99999999999T"), NULL, 2, "--max-body");
    expect_refusal(ARGS("--log-format", "xml"), NULL, 2, "text|json");
    expect_refusal(ARGS("--request-timeout", "nan"), NULL, 2, "--request-timeout");
    expect_refusal(ARGS("--listen"), NULL, 2, "--listen HOST:PORT");
    expect_refusal(ARGS("serve"), NULL, 2, "serve is not a flag");
}

static void a_bad_variable_is_named(void **state) {
    (void)state;
    expect_refusal(ARGS("--threads=1"), ARGS("GRADD_MAX_QUEUE=none"), 2, "GRADD_MAX_QUEUE");
}

static void what_cannot_be_listened_on_is_refused(void **state) {
    (void)state;
    expect_refusal(ARGS("--listen", "localhost"), NULL, 1, "HOST:PORT");
    expect_refusal(ARGS("--listen", "127.0.0.1:99999"), NULL, 1, "HOST:PORT");
    test_daemon daemon;
    char address[64];
    test_daemon_start(&daemon, NULL);
    snprintf(address, sizeof address, "127.0.0.1:%d", daemon.port);
    expect_refusal(ARGS("--listen", address), NULL, 1, "in use");
    test_daemon_stop(&daemon);
}

static void an_open_address_needs_a_token_or_consent(void **state) {
    (void)state;
    expect_refusal(ARGS("--listen", "0.0.0.0:0"), NULL, 1, "--token-file");
    expect_refusal(ARGS("--listen", "[::]:0"), NULL, 1, "--insecure-no-auth");
    expect_refusal(ARGS("--listen", "0.0.0.0:0", "--token-file", "/nonexistent"), NULL, 1, "--token-file");
}

static void help_and_version_are_told(void **state) {
    (void)state;
    test_output output = run(ARGS("--help"), NULL);
    assert_int_equal(output.status, 0);
    assert_non_null(strstr(output.out, "--max-models N"));
    assert_non_null(strstr(output.out, "GRADD_MAX_MODELS"));
    test_output_release(&output);
    output = run(ARGS("--version"), NULL);
    assert_int_equal(output.status, 0);
    assert_int_equal(strncmp(output.out, "gradd ", 6), 0);
    test_output_release(&output);
}

static void sizes_take_units_and_a_flag_wins_over_its_variable(void **state) {
    (void)state;
    test_daemon daemon;
    assert_int_equal(setenv("GRADD_MAX_BODY", "1M", 1), 0);
    assert_int_equal(setenv("GRADD_MAX_QUEUE", "7", 1), 0);
    test_daemon_start(&daemon, ARGS("--max-queue", "9", "--max-json-body", "64KiB"));
    unsetenv("GRADD_MAX_BODY");
    unsetenv("GRADD_MAX_QUEUE");
    test_expect(&daemon, "GET", "/v1/version", NULL, 200, "\"max_body\":1048576,");
    test_expect(&daemon, "GET", "/v1/version", NULL, 200, "\"max_json_body\":65536,");
    test_expect(&daemon, "GET", "/v1/version", NULL, 200, "\"max_queue\":9,");
    test_daemon_stop(&daemon);
}

static void a_json_log_is_json_whatever_a_client_sends(void **state) {
    (void)state;
    test_daemon daemon;
    char path[512];
    size_t lines = 0;
    test_daemon_start(&daemon, ARGS("--log-format", "json"));
    test_reply reply;
    test_call(&daemon, "GET", "/v1/%22%0a%5c{\"level\":\"forged\"}?x=\xff", NULL, 400, &reply);
    test_reply_release(&reply);
    snprintf(path, sizeof path, "%s/log", daemon.folder.path);
    char *log = test_read_file(path, NULL);
    for (int tries = 0; tries < 1000 && !strstr(log, "forged"); tries++) { /* it is written after the reply */
        usleep(10000);
        free(log);
        log = test_read_file(path, NULL);
    }
    assert_non_null(strstr(log, "forged"));
    char *rest = log;
    for (char *line; (line = strsep(&rest, "\n")) && *line; lines++) {
        json_t *json = json_loads(line, 0, NULL);
        assert_true(json_is_string(json_object_get(json, "event")));
        json_decref(json);
    }
    assert_true(lines >= 2);
    free(log);
    test_daemon_stop(&daemon);
}

static void a_data_directory_that_will_not_do_is_refused(void **state) {
    (void)state;
    static const char garbage[] =
        "this is no database, however long one looks at it; it is text, and text it stays";
    test_folder folder;
    test_daemon daemon;
    char path[512], inside[600];
    test_folder_make(&folder);
    expect_refusal(ARGS("--listen", "127.0.0.1:0", "--data-dir", "/proc/gradd"),
                   ARGS("GRADD_EPHEMERAL=false"), 1, "--data-dir: cannot make /proc/gradd");
    test_daemon_start(&daemon, ARGS("--data-dir", folder.path));
    expect_refusal(ARGS("--listen", "127.0.0.1:0", "--data-dir", folder.path), ARGS("GRADD_EPHEMERAL=false"),
                   1, "another gradd, process ");
    test_daemon_kill(&daemon);
    test_daemon_start(&daemon, ARGS("--data-dir", folder.path)); /* the lock went with the process */
    test_daemon_stop(&daemon);
    test_folder_write(&folder, "gradd.db", garbage, sizeof garbage, path);
    expect_refusal(ARGS("--listen", "127.0.0.1:0", "--data-dir", folder.path), ARGS("GRADD_EPHEMERAL=false"),
                   1, "from a backup");
    snprintf(inside, sizeof inside, "%s/below/gradd", path); /* a file is no folder */
    expect_refusal(ARGS("--listen", "127.0.0.1:0", "--data-dir", inside), ARGS("GRADD_EPHEMERAL=false"), 1,
                   "Not a directory");
    test_folder_remove(&folder);
}

static void the_data_directory_is_where_the_user_keeps_state(void **state) {
    (void)state;
    char program[512], home[300], database[400];
    test_folder folder;
    test_folder_make(&folder);
    static const char *const below[] = {"/.local/state/gradd", "/gradd"};
    for (int xdg = 0; xdg < 2; xdg++) {
        snprintf(home, sizeof home, "%s=%s", xdg ? "XDG_STATE_HOME" : "HOME", folder.path);
        snprintf(database, sizeof database, "%s%s/gradd.db", folder.path, below[xdg]);
        const char *environment[] = {"GRADD_EPHEMERAL=false",
                                     "GRADD_DATA_DIR=", xdg ? "HOME=" : "XDG_STATE_HOME=", home, NULL};
        /* it opens its state before it finds that there is no such instruction set */
        test_output output;
        test_run((const char *const[]){test_program("gradd", program), "--cpu-features", "none", NULL},
                 environment, &output);
        assert_int_equal(output.status, 1);
        assert_int_equal(access(database, F_OK), 0);
        test_output_release(&output);
    }
    expect_refusal(ARGS("--listen", "127.0.0.1:0"), ARGS("GRADD_EPHEMERAL=false", "HOME=", "XDG_STATE_HOME="),
                   1, "--ephemeral");
    test_folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_flag_is_named_with_what_would_do),
        cmocka_unit_test(a_bad_variable_is_named),
        cmocka_unit_test(what_cannot_be_listened_on_is_refused),
        cmocka_unit_test(an_open_address_needs_a_token_or_consent),
        cmocka_unit_test(a_data_directory_that_will_not_do_is_refused),
        cmocka_unit_test(the_data_directory_is_where_the_user_keeps_state),
        cmocka_unit_test(help_and_version_are_told),
        cmocka_unit_test(sizes_take_units_and_a_flag_wins_over_its_variable),
        cmocka_unit_test(a_json_log_is_json_whatever_a_client_sends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
