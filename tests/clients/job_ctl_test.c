/* job_ctl_test.c -- gradctl job ...: start, follow, pause, resume, cancel; how a job's end is told. */
#include "tests/support.h"

#include <signal.h>
#include <unistd.h>

#include "tests/gradctl.h"

static const char model[] =
    "{\"name\": \"net\", \"seed\": 1, \"input\": {\"shape\": [1, 28, 28]},"
    " \"layers\": [{\"type\": \"flatten\"}, {\"type\": \"Linear\", \"out_features\": 10}],"
    " \"loss\": {\"type\": \"CrossEntropyLoss\"},"
    " \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.1}}";

static test_folder folder;

static int set_up(void **state) {
    char path[512];
    test_shared_start(state);
    test_folder_make(&folder);
    test_folder_write(&folder, "net.json", model, sizeof model - 1, path);
    assert_says(CTL(test_shared.server, "model", "create", path), 0, NULL, NULL);
    return 0;
}

static int tear_down(void **state) {
    test_folder_remove(&folder);
    return test_shared_stop(state);
}

#define START(...) \
    CTL(test_shared.server, "job", "start", "--model", "net", "--data", "digits", "--batch-size", "1000", \
        __VA_ARGS__)

/* The number of a job that was started with -o name. */
static void started(test_output output, char id[16]) {
    if (output.status != 0) {
        fail_msg("%s", output.err);
    }
    snprintf(id, 16, "%.*s", (int)strcspn(output.out, "\n"), output.out);
    test_output_release(&output);
}

static void a_job_is_followed_to_its_end(void **state) {
    (void)state;
    test_output output = START("--epochs", "2", "--watch", "--progress", "always");
    if (output.status != 0) {
        fail_msg("%s", output.err);
    }
    assert_int_equal(strncmp(output.out, "epoch 1/2: training loss ", 25), 0);
    assert_non_null(strstr(output.out, "\nepoch 2/2: training loss "));
    assert_non_null(strstr(output.out, "\ntest accuracy: "));
    assert_non_null(strstr(output.err, ": net on digits\n"));
    assert_non_null(strstr(output.err, "epoch 2/2: 100%|██████████| 10/10 ["));
    test_output_release(&output);
}

static void a_job_that_is_over_is_told_again(void **state) {
    (void)state;
    char id[16];
    started(START("--steps", "3", "--eval", "none", "-o", "name"), id);
    assert_says(CTL(test_shared.server, "job", "watch", id, "--progress", "never"), 0, NULL, "");
    test_output output = CTL(test_shared.server, "job", "watch", id);
    assert_int_equal(strncmp(output.out, "loss: ", 6), 0); /* there was no evaluation */
    test_output_release(&output);
    output = CTL(test_shared.server, "job", "show", id, "-o", "csv");
    assert_non_null(strstr(output.out, ",succeeded,net,digits,3,3,"));
    test_output_release(&output);
    output = CTL(test_shared.server, "job", "ls", "-o", "name");
    assert_int_equal(strncmp(output.out, id, strlen(id)), 0); /* the newest first */
    test_output_release(&output);
}

static void a_job_is_paused_resumed_and_cancelled(void **state) {
    (void)state;
    char id[16];
    started(START("--epochs", "100000", "-o", "name"), id);
    assert_says(CTL(test_shared.server, "job", "pause", id, "-o", "name"), 0, NULL, NULL);
    for (bool paused = false; !paused; usleep(10000)) {
        test_output output = CTL(test_shared.server, "job", "show", id, "-o", "csv");
        paused = strstr(output.out, ",paused,") != NULL;
        test_output_release(&output);
    }
    assert_says(CTL(test_shared.server, "job", "resume", id, "-o", "name"), 0, NULL, NULL);
    assert_says(CTL(test_shared.server, "job", "cancel", id, "-o", "name"), 0, NULL, NULL);
    assert_says(CTL(test_shared.server, "job", "watch", id, "--progress", "never"), 6, NULL,
                "was cancelled at step");
}

static void ctrl_c_leaves_a_job_running(void **state) {
    (void)state;
    char id[16], program[512], variable[128], path[512], out[512];
    started(START("--epochs", "100000", "-o", "name"), id);
    snprintf(variable, sizeof variable, "GRADD_SERVER=%s", test_shared.server);
    const char *const arguments[] = {test_program("gradctl", program), "job", "watch", id, NULL};
    pid_t pid = test_start(arguments, (const char *const[]){variable, NULL}, &folder);
    snprintf(out, sizeof out, "%s/out", folder.path);
    for (bool follows = false; !follows; usleep(10000)) {
        char *text = test_read_file(out, NULL);
        follows = strstr(text, "epoch 1/") != NULL;
        free(text);
    }
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(test_wait(pid), 130);
    snprintf(path, sizeof path, "%s/err", folder.path);
    char *text = test_read_file(path, NULL);
    assert_non_null(strstr(text, "goes on in the daemon: come back with `gradctl job watch "));
    free(text);
    test_output output = CTL(test_shared.server, "job", "show", id, "-o", "csv");
    assert_non_null(strstr(output.out, ",running,"));
    test_output_release(&output);
    assert_says(CTL(test_shared.server, "job", "cancel", id), 0, NULL, NULL);
    assert_says(CTL(test_shared.server, "job", "watch", id, "--progress", "never"), 6, NULL, NULL);
}

static void a_job_that_fails_ends_with_6(void **state) {
    (void)state;
    assert_says(START("--epochs", "100", "--scale", "1e30", "--watch", "--progress", "never"), 6, NULL,
                " failed at step ");
}

static void a_specification_comes_from_a_file_and_options_change_it(void **state) {
    (void)state;
    static const char spec[] =
        "{\"model\": \"net\", \"dataset\": \"digits\", \"epochs\": 7, \"batch_size\": 5000,"
        " \"transform\": {\"scale\": 0.01}}";
    char path[512];
    test_folder_write(&folder, "job.json", spec, sizeof spec - 1, path);
    test_output output = CTL(test_shared.server, "job", "start", "--json", path, "--epochs", "1", "--mean",
                             "0.5", "-o", "json");
    if (output.status != 0) {
        fail_msg("%s", output.err);
    }
    json_t *json = json_loads(output.out, 0, NULL), *sent = json_object_get(json, "spec");
    json_t *transform = json_object_get(sent, "transform");
    assert_int_equal(json_integer_value(json_object_get(sent, "epochs")), 1);
    assert_int_equal(json_integer_value(json_object_get(sent, "batch_size")), 5000);
    assert_null(json_object_get(sent, "eval")); /* what is not said is not added */
    assert_true(json_number_value(json_object_get(transform, "scale")) == 0.01);
    assert_true(json_number_value(json_array_get(json_object_get(transform, "mean"), 0)) == 0.5);
    json_decref(json);
    test_output_release(&output);
    test_folder_write(&folder, "job.json", "[]", 2, path);
    assert_says(CTL(test_shared.server, "job", "start", "--json", path), 1, "", "is a JSON object");
}

static void what_is_not_there_or_does_not_fit_is_refused(void **state) {
    (void)state;
    const char *server = test_shared.server;
    assert_says(CTL(server, "job", "start", "--model", "net", "--data", "none"), 3, "", "none");
    assert_says(CTL(server, "job", "start", "--model", "none", "--data", "digits"), 3, "", "none");
    assert_says(START("--pad", "2"), 1, "", "[1, 28, 28]");
    assert_says(START("--on-nonfinite", "pray"), 1, "", "on_nonfinite");
    assert_says(CTL(server, "job", "show", "999"), 3, "", "999");
    assert_says(CTL(server, "job", "watch", "999"), 3, "", "999");
    assert_says(CTL(server, "job", "cancel", "999"), 3, "", "999");
    assert_says(CTL(NULL, "job", "ls"), 5, "", "no gradd daemon");
    assert_says(CTL(NULL, "job", "watch", "1"), 5, "", "no gradd daemon");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_is_followed_to_its_end),
        cmocka_unit_test(a_job_that_is_over_is_told_again),
        cmocka_unit_test(a_job_is_paused_resumed_and_cancelled),
        cmocka_unit_test(ctrl_c_leaves_a_job_running),
        cmocka_unit_test(a_specification_comes_from_a_file_and_options_change_it),
        cmocka_unit_test(what_is_not_there_or_does_not_fit_is_refused),
        cmocka_unit_test(a_job_that_fails_ends_with_6),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
