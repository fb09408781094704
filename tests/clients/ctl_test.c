/* ctl_test.c -- gradctl as its users see it: what it prints where, and its exit status. */
#include <jansson.h>

#include "tests/support.h"

#include <signal.h>
#include <unistd.h>

#include "tests/gradctl.h"

#define LENET "clients/examples/lenet.json"

/* ---- without a daemon ------------------------------------------------------------------------------- */

static void wrong_usage_ends_with_2_and_says_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *arguments[8], *message;
    } cases[] = {
        {{NULL}, "a command is missing"},
        {{"modle", "ls"}, "unknown command 'modle'"},
        {{"model"}, "needs a verb: create, ls, show, rm, scheduler-step, export, import"},
        {{"model", "lst"}, "needs a verb"},
        {{"model", "show"}, "NAME is missing"},
        {{"model", "show", "a", "b"}, "unexpected 'b'"},
        {{"health", "now"}, "unexpected 'now'"},
        {{"model", "ls", "--colour"}, "unknown option --colour"},
        {{"model", "ls", "-x"}, "unknown option -x"},
        {{"model", "ls", "-o", "xml"}, "--output takes table|json|csv|name, not 'xml'"},
        {{"model", "ls", "-o"}, "--output needs a value"},
        {{"model", "ls", "--epochs", "3"}, "--epochs does not go with 'model ls'"},
        {{"data", "put"}, "DIR|FILE... [NAME] is missing"},
        {{"checkpoint", "restore", "m"}, "MODEL NAME is missing"},
        {{"checkpoint", "create", "m", "a", "b"}, "unexpected 'b'"},
        {{"job", "start", "--model", "m"}, "job start needs --model NAME and --data NAME"},
        {{"job", "start", "--model=m", "--data=d", "--epochs=1", "--steps=1"}, "exclude each other"},
        {{"job", "show", "x"}, "a job is a number"},
        {{"data", "fetch", "imagenet"}, "fetch knows mnist and fashion-mnist"},
        {{"completion", "tcsh"}, "bash, zsh and fish"},
        {{"model", "rm", "--force=yes", "a"}, "--force takes no value"},
        {{"train", "--data", "digits"}, "train needs --model"},
        {{"train", "--epochs", "0"}, "--epochs takes a whole number from 1"},
        {{"train", "--epochs", "3x"}, "not '3x'"},
        {{"train", "--seed", "4294967296"}, "--seed takes a whole number"},
        {{"train", "--std", "0"}, "--std takes a number"},
        {{"train", "--mean", "nan"}, "--mean takes a number"},
        {{"train", "--scale", "1/0"}, "--scale takes a number"},
        {{"train", "--resize", "32"}, "as in 32x32"},
        {{"train", "--resize", "0x32"}, "as in 32x32"},
        {{"health", "--server", "ftp://x"}, "the server's URL must look like"},
        {{"health", "--token-file", "there/is/none"}, "cannot read the token file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_says(test_ctl(NULL, NULL, cases[i].arguments), 2, "", cases[i].message);
    }
    assert_says(CTL(NULL, "train", "--model", "a", "--data", "b", "--pad=2", "--resize=8x8"), 2, "",
                "exclude each other");
}

static void help_and_version_need_no_daemon(void **state) {
    (void)state;
    test_output output = CTL(NULL, "--help");
    assert_int_equal(output.status, 0);
    assert_non_null(strstr(output.out, "gradctl model create FILE.json|-"));
    assert_non_null(strstr(output.out, "--batch-size N"));
    assert_non_null(strstr(output.out, "130  interrupted"));
    assert_string_equal(output.err, "");
    test_output_release(&output);
    output = CTL(NULL, "model", "rm", "-h");
    assert_int_equal(output.status, 0);
    assert_non_null(strstr(output.out, "--force"));
    assert_null(strstr(output.out, "--epochs"));
    test_output_release(&output);
    output = CTL(NULL, "--version");
    assert_int_equal(output.status, 0);
    assert_int_equal(strncmp(output.out, "gradctl ", 8), 0);
    test_output_release(&output);
}

static void a_daemon_that_is_not_there_ends_with_5(void **state) {
    (void)state;
    assert_says(CTL(NULL, "health"), 5, "", "no gradd daemon at http://127.0.0.1:1");
}

static void a_faulty_definition_names_its_line(void **state) {
    (void)state;
    test_folder folder;
    char path[512], where[600];
    test_folder_make(&folder);
    test_folder_write(&folder, "m.json", "{\n\"name\": }", 11, path);
    snprintf(where, sizeof where, "%s:2:", path);
    assert_says(CTL(NULL, "model", "create", path), 1, "", where);
    assert_says(CTL(NULL, "model", "create", "there/is/none"), 1, "", "cannot read there/is/none");
    test_folder_remove(&folder);
}

/* ---- with a daemon ---------------------------------------------------------------------------------- */

static int start_daemon(void **state) {
    static test_daemon daemon;
    test_daemon_start(&daemon, NULL);
    *state = &daemon;
    return 0;
}

static int stop_daemon(void **state) {
    test_daemon_stop(*state);
    return 0;
}

static const char *server_of(void **state) {
    return ((const test_daemon *)*state)->server;
}

static void health_and_version_are_told(void **state) {
    assert_says(CTL(server_of(state), "health"), 0, "ok\n", NULL);
    test_output output = CTL(server_of(state), "version");
    assert_int_equal(output.status, 0);
    assert_non_null(strstr(output.out, "\ngradd "));
    test_output_release(&output);
}

static void a_model_is_created_listed_shown_and_deleted(void **state) {
    const char *server = server_of(state);
    char shown[1024];
    char *repr = test_read_file("tests/golden/lenet_repr.txt", NULL);
    snprintf(shown, sizeof shown, "%s\n", repr);
    free(repr);
    assert_says(CTL(server, "model", "create", LENET, "-o", "name"), 0, "lenet\n", NULL);
    assert_says(CTL(server, "model", "create", LENET), 1, "", "gradctl model rm NAME");
    assert_says(CTL(server, "model", "create", LENET, "--name=other", "-oname"), 0, "other\n", NULL);
    assert_says(CTL(server, "model", "ls", "-o", "name"), 0, "lenet\nother\n", NULL);
    assert_says(CTL(server, "model", "show", "lenet"), 0, shown, NULL);
    assert_says(CTL(server, "model", "rm", "other"), 0, "", "deleted other");
    assert_says(CTL(server, "model", "rm", "other"), 3, "", "other");
    assert_says(CTL(server, "model", "show", "other"), 3, "", NULL);
    assert_says(CTL(server, "model", "rm", "lenet"), 0, "", NULL);
}

static void an_epoch_is_ended(void **state) {
    static const char plateau[] =
        "{\"name\": \"m\", \"input\": {\"shape\": [2]}, \"layers\": [{\"type\": \"Linear\", "
        "\"out_features\": 2}],"
        " \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.5},"
        " \"scheduler\": {\"type\": \"ReduceLROnPlateau\", \"patience\": 0, \"factor\": 0.5}}";
    const char *server = server_of(state);
    test_folder folder;
    char path[512];
    test_folder_make(&folder);
    test_folder_write(&folder, "m.json", plateau, sizeof plateau - 1, path);
    assert_says(CTL(server, "model", "create", path, "-o", "name"), 0, "m\n", NULL);
    assert_says(CTL(server, "model", "scheduler-step", "m", "--metric", "2"), 0,
                "epoch 1: learning rate 0.5\n", NULL);
    assert_says(CTL(server, "model", "scheduler-step", "m", "--metric=2", "-ojson"), 0,
                "{\"epoch\": 2, \"lr\": 0.25}\n", NULL);
    assert_says(CTL(server, "model", "scheduler-step", "m"), 1, "", "metric");
    assert_says(CTL(server, "model", "scheduler-step", "other"), 3, "", "other");
    assert_says(CTL(server, "model", "rm", "m"), 0, "", NULL);
    test_folder_remove(&folder);
}

static void a_model_with_parameter_groups_is_shown(void **state) {
    static const char model[] =
        "{\"name\": \"grouped\", \"input\": {\"shape\": [4]},"
        " \"layers\": [{\"type\": \"Linear\", \"name\": \"fc\", \"out_features\": 3}],"
        " \"loss\": \"MSELoss\", \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.5,"
        " \"param_groups\": [{\"params\": \"*.bias\", \"lr\": 0.25}]}}";
    const char *server = server_of(state);
    test_folder folder;
    char path[512];
    test_folder_make(&folder);
    test_folder_write(&folder, "grouped.json", model, sizeof model - 1, path);
    assert_says(CTL(server, "model", "create", path, "--lr", "2", "-o", "name"), 0, "grouped\n", NULL);
    assert_says(CTL(server, "model", "show", "grouped"), 0,
                "Net(\n  (fc): Linear(in_features=4, out_features=3, bias=True)\n)\n", NULL);
    test_output output = CTL(server, "model", "show", "grouped", "-o", "json");
    json_t *json = json_loads(output.out, 0, NULL), *optimizer = json_object_get(json, "optimizer");
    const json_t *group = json_array_get(json_object_get(optimizer, "param_groups"), 0);
    assert_float_equal(json_number_value(json_object_get(optimizer, "lr")), 2, 0);
    assert_float_equal(json_number_value(json_object_get(group, "lr")), 0.25, 0); /* its own */
    json_decref(json);
    test_output_release(&output);
    assert_says(CTL(server, "model", "rm", "grouped"), 0, NULL, NULL);
    test_folder_remove(&folder);
}

static void lists_are_printed_as_table_csv_and_json(void **state) {
    const char *server = server_of(state);
    assert_says(CTL(server, "model", "create", LENET), 0, NULL, NULL);
    test_output output = CTL(server, "model", "ls");
    assert_int_equal(strncmp(output.out, "NAME   CLASS  STEP  PARAMETERS  VALUES  MEMORY", 46), 0);
    assert_non_null(strstr(output.out, "\nlenet  Net    0     10          81194 "));
    test_output_release(&output);
    output = CTL(server, "model", "ls", "-o", "csv");
    assert_non_null(strstr(
        output.out, "name,class_name,step,parameters,numel,memory_bytes,created_at\nlenet,Net,0,10,81194,"));
    test_output_release(&output);
    output = CTL(server, "model", "ls", "-o", "json");
    json_t *list = json_loads(output.out, 0, NULL);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "name")), "lenet");
    json_decref(list);
    test_output_release(&output);
    assert_says(CTL(server, "model", "rm", "lenet"), 0, "", NULL);
}

static void a_daemon_that_wants_a_token_ends_with_4(void **state) {
    (void)state;
    test_daemon daemon;
    test_folder folder;
    char path[512];
    test_folder_make(&folder);
    test_folder_write(&folder, "tokens", "a-long-secret\n", 14, path);
    test_daemon_start(&daemon, (const char *const[]){"--token-file", path, NULL});
    assert_says(CTL(daemon.server, "model", "ls"), 4, "", "--token-file");
    assert_says(CTL(daemon.server, "health"), 0, "ok\n", NULL);
    assert_says(CTL(daemon.server, "model", "ls", "--token-file", path, "-o", "json"), 0, "[]\n", NULL);
    test_daemon_stop(&daemon);
    test_folder_remove(&folder);
}

static void checkpoints_are_taken_listed_downloaded_restored_and_deleted(void **state) {
    const char *server = server_of(state);
    test_folder folder;
    char path[512];
    test_folder_make(&folder);
    snprintf(path, sizeof path, "%s/best.safetensors", folder.path);
    assert_says(CTL(server, "model", "create", LENET), 0, NULL, NULL);
    assert_says(CTL(server, "checkpoint", "create", "lenet", "first", "--note", "a, b", "-oname"), 0,
                "first\n", NULL);
    assert_says(CTL(server, "checkpoint", "create", "lenet", "first"), 1, "", "first");
    assert_says(CTL(server, "checkpoint", "create", "nothing"), 3, "", "nothing");
    assert_says(CTL(server, "checkpoint", "ls", "lenet", "-o", "name"), 0, "first\n", NULL);
    test_output output = CTL(server, "checkpoint", "ls", "lenet", "-o", "csv");
    assert_non_null(strstr(output.out, "name,kind,step,job,bytes,created_at,note\nfirst,manual,0,,"));
    assert_non_null(strstr(output.out, ",\"a, b\"\n"));
    test_output_release(&output);
    assert_says(CTL(server, "checkpoint", "get", "lenet", "first", path), 0, NULL, NULL);
    size_t size;
    free(test_read_file(path, &size));
    assert_true(size > 81194 * sizeof(float));
    assert_says(CTL(server, "checkpoint", "get", "lenet", "worst", path), 3, "", "worst");
    assert_says(CTL(server, "checkpoint", "get", "lenet", "first", "there/is/none"), 1, "", "cannot write");
    assert_says(CTL(server, "checkpoint", "restore", "lenet", "first"), 0, "lenet is at step 0\n", NULL);
    assert_says(CTL(server, "checkpoint", "clone", "lenet", "first", "twin"), 0, "twin\n", NULL);
    assert_says(CTL(server, "checkpoint", "rm", "lenet", "first"), 0, "", "deleted lenet/first");
    assert_says(CTL(server, "checkpoint", "rm", "lenet", "first"), 3, "", NULL);
    assert_says(CTL(NULL, "checkpoint", "ls", "lenet"), 5, "", NULL);
    assert_says(CTL(server, "model", "rm", "twin"), 0, NULL, NULL);
    assert_says(CTL(server, "model", "rm", "lenet"), 0, NULL, NULL);
    test_folder_remove(&folder);
}

static void weights_go_from_model_to_model_by_a_file(void **state) {
    const char *server = server_of(state);
    test_folder folder;
    char path[512], again[512];
    test_folder_make(&folder);
    snprintf(path, sizeof path, "%s/a", folder.path);
    snprintf(again, sizeof again, "%s/b", folder.path);
    assert_says(CTL(server, "model", "create", LENET, "--name", "a"), 0, NULL, NULL);
    assert_says(CTL(server, "model", "create", "clients/examples/models/mlp.json", "--name", "other"), 0,
                NULL, NULL);
    assert_says(CTL(server, "model", "export", "a", path), 0, NULL, NULL);
    assert_says(CTL(server, "model", "import", "a", path), 0, "", "a has the weights of");
    assert_says(CTL(server, "model", "export", "a", again), 0, NULL, NULL);
    size_t size, size_again;
    char *bytes = test_read_file(path, &size), *bytes_again = test_read_file(again, &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(bytes, bytes_again, size);
    free(bytes);
    free(bytes_again);
    assert_says(CTL(server, "model", "import", "other", path), 1, "", NULL);
    assert_says(CTL(server, "model", "import", "a", "there/is/none"), 1, "", "cannot read there/is/none");
    assert_says(CTL(server, "model", "export", "nothing", path), 3, "", "nothing");
    assert_says(CTL(server, "model", "rm", "a"), 0, NULL, NULL);
    assert_says(CTL(server, "model", "rm", "other"), 0, NULL, NULL);
    test_folder_remove(&folder);
}

/* bash itself reads what is printed for it. */
static void completion_completes(void **state) {
    (void)state;
    char script[1024], program[512];
    snprintf(script, sizeof script,
             "source <(%s completion bash); COMP_WORDS=(gradctl job p); COMP_CWORD=2; _gradctl; "
             "echo \"${COMPREPLY[@]}\"; COMP_WORDS=(gradctl job start --ep); COMP_CWORD=3; _gradctl; "
             "echo \"${COMPREPLY[@]}\"",
             test_program("gradctl", program));
    test_output output;
    test_run((const char *const[]){"/bin/bash", "-c", script, NULL}, NULL, &output);
    assert_says(output, 0, "pause\n--epochs\n", NULL);
    output = CTL(NULL, "completion", "fish");
    assert_non_null(strstr(output.out, "complete -c gradctl -l model -r -d '"));
    assert_non_null(strstr(output.out, "model\\'s"));
    test_output_release(&output);
}

/* ---- training --------------------------------------------------------------------------------------- */

/* 40 pictures of 4 x 4, each white in the row of its class: easily learned. */
static void write_pictures(const test_folder *folder) {
    enum { COUNT = 40, HEAD = 16, AREA = 16 };
    unsigned char pictures[HEAD + COUNT * AREA] = {0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, 4, 0, 0, 0, 4};
    unsigned char labels[8 + COUNT] = {0, 0, 8, 1, 0, 0, 0, COUNT};
    char path[512];
    for (int i = 0; i < COUNT; i++) {
        labels[8 + i] = (unsigned char)(i % 4);
        for (int x = 0; x < 4; x++) {
            pictures[HEAD + i * AREA + i % 4 * 4 + x] = (unsigned char)(200 + i);
        }
    }
    test_folder_write(folder, "train-images-idx3-ubyte", pictures, sizeof pictures, path);
    test_folder_write(folder, "train-labels-idx1-ubyte", labels, sizeof labels, path);
    test_folder_write(folder, "t10k-images-idx3-ubyte", pictures, sizeof pictures, path);
    test_folder_write(folder, "t10k-labels-idx1-ubyte", labels, sizeof labels, path);
    static const char model[] =
        "{\"name\": \"rows\", \"seed\": 1, \"input\": {\"shape\": [1, 6, 6]},"
        " \"layers\": [{\"type\": \"flatten\"}, {\"type\": \"Linear\", \"out_features\": 4}],"
        " \"loss\": {\"type\": \"CrossEntropyLoss\"},"
        " \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.5}}";
    test_folder_write(folder, "model.json", model, sizeof model - 1, path);
}

typedef struct school {
    test_folder folder;
    char model[512], log[512];
    const char *server;
} school;

static void open_school(school *s, void **state) {
    test_folder_make(&s->folder);
    write_pictures(&s->folder);
    snprintf(s->model, sizeof s->model, "%s/model.json", s->folder.path);
    snprintf(s->log, sizeof s->log, "%s/log.csv", s->folder.path);
    s->server = server_of(state);
}

static void close_school(const school *s) {
    assert_says(CTL(s->server, "model", "rm", "rows"), 0, NULL, NULL);
    test_folder_remove(&s->folder);
}

#define TRAIN(s, ...) \
    CTL((s)->server, "train", "--model", (s)->model, "--data", (s)->folder.path, "--pad", "1", __VA_ARGS__)

static int count_lines(const char *text) {
    int lines = 0;
    for (; *text; text++) {
        lines += *text == '\n';
    }
    return lines;
}

static void training_learns_and_tells_the_accuracy_last(void **state) {
    school s;
    open_school(&s, state);
    test_output output =
        TRAIN(&s, "--epochs", "10", "--batch-size", "16", "--progress", "never", "--log", s.log);
    char *log = test_read_file(s.log, NULL);
    if (output.status != 0) {
        fail_msg("%s", output.err);
    }
    assert_int_equal(count_lines(output.out), 11);
    assert_non_null(strstr(output.out, "epoch 10/10: training loss "));
    assert_non_null(strstr(output.out, "\ntest accuracy: 100.00 %\n"));
    assert_null(strstr(output.err, "it/s"));
    assert_int_equal(strncmp(log, "step,loss\n1,", 12), 0);
    assert_int_equal(count_lines(log), 1 + 10 * 3);
    free(log);
    test_output_release(&output);
    close_school(&s);
}

static void training_again_gives_the_same_losses(void **state) {
    school s;
    char *first, *second;
    open_school(&s, state);
    assert_says(TRAIN(&s, "--seed", "7", "--log", s.log), 0, NULL, NULL);
    first = test_read_file(s.log, NULL);
    assert_says(TRAIN(&s, "--seed", "7", "--log", s.log, "--replace"), 0, NULL, NULL);
    second = test_read_file(s.log, NULL);
    assert_string_equal(first, second);
    free(second);
    /* ... and another order gives others; batches of 16 tell the orders apart. */
    assert_says(TRAIN(&s, "--seed", "7", "--batch-size", "16", "--log", s.log, "--replace"), 0, NULL, NULL);
    free(first);
    first = test_read_file(s.log, NULL);
    assert_says(TRAIN(&s, "--seed", "8", "--batch-size", "16", "--log", s.log, "--replace"), 0, NULL, NULL);
    second = test_read_file(s.log, NULL);
    assert_string_not_equal(first, second);
    free(first);
    free(second);
    close_school(&s);
}

static void metrics_are_told_exported_and_drawn(void **state) {
    school s;
    open_school(&s, state);
    assert_says(TRAIN(&s, "--epochs", "4", "--progress", "never"), 0, NULL, NULL);
    assert_says(CTL(s.server, "metrics", "get", "rows", "-o", "name", "--keys", "lr,loss"), 0, "loss\nlr\n",
                NULL);
    test_output output = CTL(s.server, "metrics", "get", "rows", "--keys", "lr");
    assert_string_equal(output.out, "KEY  VALUES  FIRST_STEP  LAST_STEP  MIN  MAX  LAST\n"
                                    "lr   4       1           4          0.5  0.5  0.5\n");
    test_output_release(&output);
    output = CTL(s.server, "metrics", "get", "rows", "--keys", "lr", "-o", "csv");
    assert_int_equal(count_lines(output.out), 5);
    const char *const heading = "step,time,lr\r\n1,";
    if (strncmp(output.out, heading, strlen(heading)) != 0) {
        fail_msg("%s", output.out);
    }
    assert_int_equal(strspn(output.out + strlen(heading), "0123456789-T:.Z"),
                     24); /* the first step's time, whole */
    assert_string_equal(output.out + strlen(output.out) - 6, ",0.5\r\n");
    test_output_release(&output);
    output = CTL(s.server, "metrics", "plot", "rows");
    assert_int_equal(output.status, 0);
    assert_non_null(strstr(output.out, "loss of rows, by step\n"));
    test_output_release(&output);
    assert_says(CTL(s.server, "metrics", "plot", "rows", "--key", "nothing"), 1, "", "nothing");
    assert_says(CTL(s.server, "metrics", "plot", "nothing"), 3, "", "nothing");
    assert_says(CTL(s.server, "metrics", "get", "nothing", "-o", "csv"), 3, "", "nothing");
    assert_says(CTL(NULL, "metrics", "plot", "rows"), 5, "", NULL);
    close_school(&s);
}

static void a_batch_that_is_not_full_can_be_left_out(void **state) {
    school s;
    open_school(&s, state);
    assert_says(TRAIN(&s, "--batch-size", "16", "--drop-last", "--log", s.log), 0, NULL, NULL);
    char *log = test_read_file(s.log, NULL);
    assert_int_equal(count_lines(log), 1 + 2);
    free(log);
    assert_says(TRAIN(&s, "--batch-size", "64", "--drop-last", "--replace"), 1, "",
                "--drop-last leaves nothing");
    close_school(&s);
}

static void a_taken_name_is_left_alone_unless_replaced(void **state) {
    school s;
    open_school(&s, state);
    assert_says(TRAIN(&s, "--progress", "never"), 0, NULL, NULL);
    assert_says(TRAIN(&s, "--progress", "never"), 1, "", "--replace");
    assert_says(TRAIN(&s, "--replace"), 0, NULL, NULL);
    close_school(&s);
}

static void a_faulty_definition_does_not_replace_a_model(void **state) {
    school s;
    char path[512];
    open_school(&s, state);
    assert_says(TRAIN(&s, "--progress", "never"), 0, NULL, NULL);
    test_folder_write(&s.folder, "model.json", "{\"name\": \"rows\", \"input\": {\"shape\": [1]}}", 42, path);
    assert_says(TRAIN(&s, "--replace"), 1, "", "error");
    assert_says(CTL(s.server, "model", "show", "rows", "-o", "name"), 0, "rows\n", NULL);
    close_school(&s);
}

static void pictures_of_another_size_are_refused_in_the_daemons_words(void **state) {
    school s;
    open_school(&s, state);
    assert_says(TRAIN(&s, "--pad", "2"), 1, "", "[1, 6, 6]");
    close_school(&s);
}

static void a_loss_that_is_no_number_ends_with_6(void **state) {
    school s;
    open_school(&s, state);
    assert_says(TRAIN(&s, "--epochs", "1000", "--lr", "1e6", "--scale", "1e30"), 6, NULL,
                "try a smaller --lr");
    close_school(&s);
}

static void a_bar_is_drawn_where_it_is_asked_for(void **state) {
    school s;
    open_school(&s, state);
    test_output output = TRAIN(&s, "--progress", "always");
    assert_int_equal(output.status, 0);
    assert_non_null(strstr(output.err, "\repoch 1/1: 100%|██████████| 1/1 [00:0"));
    assert_null(strstr(output.out, "it/s"));
    test_output_release(&output);
    close_school(&s);
}

static void an_interrupted_training_ends_with_130_and_keeps_the_model(void **state) {
    school s;
    char program[512], variable[128], err[512];
    open_school(&s, state);
    snprintf(variable, sizeof variable, "GRADD_SERVER=%s", s.server);
    const char *const arguments[] = {test_program("gradctl", program),
                                     "train",
                                     "--model",
                                     s.model,
                                     "--data",
                                     s.folder.path,
                                     "--pad",
                                     "1",
                                     "--epochs",
                                     "1000000",
                                     "--progress",
                                     "never",
                                     NULL};
    pid_t pid = test_start(arguments, (const char *const[]){variable, NULL}, &s.folder);
    snprintf(err, sizeof err, "%s/out", s.folder.path);
    for (bool trained = false; !trained;) { /* until its first epoch is over */
        char *text = test_read_file(err, NULL);
        trained = strstr(text, "epoch 1/") != NULL;
        free(text);
        usleep(10000);
    }
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(test_wait(pid), 130);
    snprintf(err, sizeof err, "%s/err", s.folder.path);
    char *text = test_read_file(err, NULL);
    assert_non_null(strstr(text, "gradctl model show rows"));
    free(text);
    close_school(&s);
}

static void training_on_the_built_in_digits_fetches_them_all(void **state) {
    const char *server = server_of(state);
    test_output output = CTL(server, "train", "--model", LENET, "--data", "digits", "--pad", "2",
                             "--batch-size", "1000", "--progress", "never");
    if (output.status != 0) {
        fail_msg("%s", output.err);
    }
    assert_non_null(strstr(output.out, "test accuracy: "));
    test_output_release(&output);
    output = CTL(server, "model", "ls", "-o", "csv");
    assert_non_null(strstr(output.out, "\nlenet,Net,10,")); /* 10,000 samples in 10 steps */
    test_output_release(&output);
    assert_says(CTL(server, "model", "rm", "lenet"), 0, NULL, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_usage_ends_with_2_and_says_what_is_wrong),
        cmocka_unit_test(help_and_version_need_no_daemon),
        cmocka_unit_test(a_daemon_that_is_not_there_ends_with_5),
        cmocka_unit_test(a_faulty_definition_names_its_line),
        cmocka_unit_test(health_and_version_are_told),
        cmocka_unit_test(a_model_is_created_listed_shown_and_deleted),
        cmocka_unit_test(an_epoch_is_ended),
        cmocka_unit_test(a_model_with_parameter_groups_is_shown),
        cmocka_unit_test(lists_are_printed_as_table_csv_and_json),
        cmocka_unit_test(a_daemon_that_wants_a_token_ends_with_4),
        cmocka_unit_test(checkpoints_are_taken_listed_downloaded_restored_and_deleted),
        cmocka_unit_test(weights_go_from_model_to_model_by_a_file),
        cmocka_unit_test(completion_completes),
        cmocka_unit_test(metrics_are_told_exported_and_drawn),
        cmocka_unit_test(training_learns_and_tells_the_accuracy_last),
        cmocka_unit_test(training_again_gives_the_same_losses),
        cmocka_unit_test(a_batch_that_is_not_full_can_be_left_out),
        cmocka_unit_test(a_taken_name_is_left_alone_unless_replaced),
        cmocka_unit_test(a_faulty_definition_does_not_replace_a_model),
        cmocka_unit_test(pictures_of_another_size_are_refused_in_the_daemons_words),
        cmocka_unit_test(a_loss_that_is_no_number_ends_with_6),
        cmocka_unit_test(a_bar_is_drawn_where_it_is_asked_for),
        cmocka_unit_test(an_interrupted_training_ends_with_130_and_keeps_the_model),
        cmocka_unit_test(training_on_the_built_in_digits_fetches_them_all),
    };
    return cmocka_run_group_tests(tests, start_daemon, stop_daemon);
}
