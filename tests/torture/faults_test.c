/* faults_test.c -- the N-th call that stores something fails, for each call, each N and some errors: the
 * client is told, nothing that was good is harmed, things go on once the fault is over, and after a restart
 * all that was acknowledged is there.
 *
 *     faults_test [--every N] [--from FIRST]      only FIRST, FIRST + N ... of them: with --every 4 the parts
 *                                                 --from 1, 2, 3 and 4 together are all */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "fail.h"
#include "tests/support.h"

#include "tests/daemon.h"

#define SMALL(name) \
    "{'name': '" name "', 'seed': 1, 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'fc', " \
    "'in_features': 4, 'out_features': 3}], 'loss': {'type': 'CrossEntropyLoss'}, " \
    "'optimizer': {'type': 'SGD', 'lr': 0.25, 'momentum': 0.9}}"
#define INPUT "1,2,3,4\n4,3,2,1\n1,0,1,0\n0,1,2,3\n"

static unsigned option_every = 25, option_from = 1;

static const struct {
    fault_call call;
    const char *name;
} calls[] = {
#define X(call, name) {call, name},
    FAULT_CALLS(X)
#undef X
};

/* What a client does, in order; and what is to be seen when it was done, and when it was refused. */
typedef struct stage {
    const char *method, *path, *json;
    int status;              /* of success; another 2xx, too */
    const char *look;        /* where to look */
    const char *done, *not ; /* what is there when it was done, and when not; NULL: nothing, 404 */
} stage;

static const stage stages[] = {
    {"POST", "/v1/models", SMALL("m"), 201, "/v1/models/m", "\"name\":\"m\"", NULL},
    {"PUT", "/v1/datasets/d/train/input", INPUT, 201, "/v1/datasets/d", "\"input\"", NULL},
    {"PUT", "/v1/datasets/d/train/target", "0\n1\n2\n0\n", 201, "/v1/datasets/d", "\"target\"", ""},
    {"PATCH", "/v1/models/m", "{'optimizer': {'lr': 0.5}}", 200, "/v1/models/m", "\"lr\":0.5", "\"lr\":0.25"},
    {"POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "/v1/models/m/checkpoints", "\"name\":\"c\"",
     ""},
    {"POST", "/v1/models/m/metrics", "{'values': {'note': 7.5}}", 200, "/v1/models/m/metrics", "\"note\"",
     ""},
    {"POST", "/v1/models", SMALL("j"), 201, "/v1/models/j", "\"name\":\"j\"", NULL},
    {"POST", "/v1/jobs",
     "{'model': 'j', 'dataset': 'd', 'steps': 40, 'batch_size': 2, 'checkpoint': {'every_steps': 10}}", 202,
     "/v1/jobs", "\"model\":\"j\"", "\"items\":[]"},
    {"PUT", "/v1/datasets/e/train/input", INPUT, 201, "/v1/datasets/e", "\"input\"", NULL},
    {"DELETE", "/v1/datasets/e", NULL, 204, "/v1/datasets/e", NULL, ""},
    {"DELETE", "/v1/models/m/checkpoints/c", NULL, 204, "/v1/models/m/checkpoints", "", ""},
};
enum { STAGES = sizeof stages / sizeof *stages, MAX_CALLS = 3000 };

/* One daemon's life with one fault. */
typedef struct trial {
    test_folder data, folder;
    pid_t pid;
    client client;
    struct fault *fault;
    char fault_path[512];
    int result[STAGES]; /* 1: acknowledged; -1: refused; 0: not tried, its stage before was refused */
} trial;

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void fail_trial(trial *t, const char *what) {
    char path[512];
    snprintf(path, sizeof path, "%s/err", t->folder.path);
    char *log = test_read_file(path, NULL);
    print_error("the daemon's log:\n%s\n", log);
    free(log);
    kill(t->pid, SIGKILL);
    fail_msg("%s, call %d: %s", t->fault->call ? calls[t->fault->call - 1].name : "no fault", t->fault->first,
             what);
}

/* Start the daemon, with the fault's library. @return false: it has refused to start, in good order */
static bool start(trial *t) {
    char program[512], library[600], file[512], path[600], port[600], below[512];
    snprintf(port, sizeof port, "%s/port", t->folder.path);
    unlink(port);
    snprintf(library, sizeof library, "LD_PRELOAD=%s", test_program("tests/torture/fail.so", path));
    snprintf(file, sizeof file, "GRADD_FAIL=%.480s", t->fault_path);
    snprintf(below, sizeof below, "GRADD_FAIL_BELOW=%.256s", t->data.path);
    const char *const arguments[] = {test_program("gradd", program),
                                     "--listen",
                                     "127.0.0.1:0",
                                     "--port-file",
                                     port,
                                     "--data-dir",
                                     t->data.path,
                                     "--autosave",
                                     "0.1",
                                     "--threads",
                                     "2",
                                     NULL};
    const char *const environment[] = {
        "GRADD_EPHEMERAL=false",
        library,
        file,
        below,
        "ASAN_OPTIONS=verify_asan_link_order=0:detect_stack_use_after_return=1",
        NULL};
    t->pid = test_start(arguments, environment, &t->folder);
    for (int waited = 0; waited < 30000; waited++) {
        int status;
        FILE *opened = fopen(port, "r");
        char line[16] = "";
        if (opened) {
            t->client.port =
                fgets(line, sizeof line, opened) && strchr(line, '\n') ? (int)strtol(line, NULL, 10) : 0;
            fclose(opened);
            if (t->client.port) {
                return true;
            }
        }
        if (waitpid(t->pid, &status, WNOHANG) == t->pid) {
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) {
                fail_trial(t, "did not start, and not in good order");
            }
            return false;
        }
        pause_ms(1);
    }
    fail_trial(t, "does not start");
    return false;
}

static int ask(trial *t, const char *method, const char *path, const char *json) {
    int status = client_ask(&t->client, method, path, NULL, json);
    if (!status) {
        fail_trial(t, "a connection was lost");
    }
    return status;
}

static void check_ready(trial *t) {
    for (int waited = 0; ask(t, "GET", "/v1/health/ready", NULL) != 200; waited++) {
        if (waited > 6000) { /* storage is tried every two seconds, and each try may be one that fails */
            fail_trial(t, "is not ready again");
        }
        pause_ms(10);
    }
}

/* Is what stage i did, or did not do, to be seen? */
static void look(trial *t, int i) {
    const stage *s = &stages[i];
    const char *part = t->result[i] > 0 ? s->done : s->not ;
    char what[1200];
    int status = ask(t, "GET", s->look, NULL);
    bool fine = part ? status == 200 && strstr(t->client.body, part) : status == 404;
    if (!fine) {
        snprintf(what, sizeof what, "%s %s was %s, but there is %d %.800s", s->method, s->path,
                 t->result[i] > 0 ? "acknowledged" : "refused", status, t->client.body);
        fail_trial(t, what);
    }
}

/* A stage; whatever fails is told as what it is. @return whether it was done */
static bool run_stage(trial *t, int i) {
    const stage *s = &stages[i];
    char what[700];
    int status = ask(t, s->method, s->path, s->json);
    if (status / 100 != 2 && !strstr(t->client.body, "storage_failed") &&
        !strstr(t->client.body, "\"damaged\"")) {
        snprintf(what, sizeof what, "%s %s: %d %.500s", s->method, s->path, status, t->client.body);
        fail_trial(t, what);
    }
    t->result[i] = status / 100 == 2 ? 1 : -1;
    return t->result[i] > 0;
}

/* Requests of which each is tried again until it is done: the fault is over by then. */
static void run_scenario(trial *t) {
    for (int i = 0; i < STAGES; i++) {
        for (int tries = 0; !run_stage(t, i); tries++) {
            if (tries == 100) {
                fail_trial(t, "it does not go on though the fault is over");
            }
            look(t, i); /* taken back */
            pause_ms(5);
        }
        look(t, i);
    }
    for (int i = 0; i < 3; i++) { /* what has no part in storage goes on whatever happens */
        if (ask(t, "POST", "/v1/models/m/train_step", "{'input': [[1, 2, 3, 4]], 'target': [1]}") != 200) {
            fail_trial(t, t->client.body);
        }
    }
    for (int waited = 0;
         ask(t, "GET", "/v1/jobs", NULL) != 200 || !strstr(t->client.body, "\"state\":\"succeeded\"");
         waited++) {
        /* its end waits for storage, which is tried every two seconds; each try may be one that fails */
        if (waited > 12000 || strstr(t->client.body, "\"state\":\"failed\"")) {
            fail_trial(t, t->client.body);
        }
        pause_ms(5);
    }
    pause_ms(150); /* autosave */
}

static void stop(trial *t) {
    kill(t->pid, SIGTERM);
    int status = test_wait(t->pid);
    if (status) {
        char what[64];
        snprintf(what, sizeof what, "ended with exit status %d", status);
        fail_trial(t, what);
    }
}

/* After a restart without the fault. */
static void check_all(trial *t) {
    t->fault->call = FAULT_NONE;
    if (!start(t)) {
        fail_trial(t, "does not start again");
    }
    check_ready(t);
    for (int i = 0; i < STAGES; i++) {
        if (t->result[i] > 0 && stages[i].done) {
            bool dropped =
                !strcmp(stages[i].path, "/v1/models/m/checkpoints") || strstr(stages[i].path, "/datasets/e/");
            if (!dropped) {
                look(t, i);
            }
        }
    }
    if (t->result[STAGES - 1] > 0) {
        ask(t, "GET", "/v1/models/j", NULL);
        if (!strstr(t->client.body, "\"step\":40,")) {
            fail_trial(t, t->client.body);
        }
    }
    kill(t->pid, SIGKILL);
    test_wait(t->pid);
}

static void open_fault(trial *t, struct fault fault) {
    test_folder_write(&t->folder, "fault", &fault, sizeof fault, t->fault_path);
    int fd = open(t->fault_path, O_RDWR | O_CLOEXEC);
    t->fault = mmap(NULL, sizeof fault, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    assert_true(t->fault != MAP_FAILED);
}

static void close_fault(trial *t) {
    munmap(t->fault, sizeof *t->fault);
}

/* @return whether the call was reached at all */
static bool try_fault(fault_call call, int first, int times, int error) {
    trial t = {.pid = 0};
    test_folder_make(&t.data);
    test_folder_make(&t.folder);
    client_init(&t.client, 0, 1, NULL);
    open_fault(&t, (struct fault){.call = call, .first = first, .times = times, .error = error});
    if (start(&t)) {
        run_scenario(&t);
        check_ready(&t);
        stop(&t);
    }
    const bool hit = atomic_load(&t.fault->hit);
    check_all(&t);
    close_fault(&t);
    client_release(&t.client);
    test_folder_remove(&t.folder);
    test_folder_remove(&t.data);
    return hit;
}

static void each_call_fails(int times, int error) {
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        int n = (int)option_from, tried = 0;
        while (n < MAX_CALLS && try_fault(calls[i].call, n, times, error)) {
            n += (int)option_every;
            tried++;
        }
        print_message("  %-16s %s: %d faults\n", calls[i].name, strerror(error), tried);
    }
}

static void a_call_that_fails_once_harms_nothing(void **state) {
    (void)state;
    each_call_fails(1, ENOSPC);
}

static void a_call_that_fails_for_a_while_harms_nothing(void **state) {
    (void)state;
    each_call_fails(12, ENOSPC);
}

static void an_error_of_the_disk_harms_nothing(void **state) {
    (void)state;
    each_call_fails(1, EIO);
}

static void an_error_of_the_disk_for_a_while_harms_nothing(void **state) {
    (void)state;
    each_call_fails(12, EIO);
}

static void nothing_fails_without_a_fault(void **state) {
    (void)state;
    assert_false(try_fault(FAULT_NONE, 0, 0, 0));
}

/* ---- a file system that is full ------------------------------------------------------------------------ */

#define LARGE \
    "{'name': 'l', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'out_features': 50000}, {'type': " \
    "'Linear', 'out_features': 3}], 'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': {'type': 'SGD', " \
    "'lr': 0.001}}"

/* Wait until the job, as JSON, has this part, or has it no more. @return its step */
static long wait_for(trial *t, const char *part, bool there) {
    for (int waited = 0; ask(t, "GET", "/v1/jobs/1", NULL) != 200 || !strstr(t->client.body, part) == there;
         waited++) {
        if (waited > 3000) {
            fail_trial(t, t->client.body);
        }
        pause_ms(5);
    }
    const char *step = strstr(t->client.body, "\"step\":");
    return step ? strtol(step + 7, NULL, 10) : 0;
}

/* All the room that is left, byte for byte. */
static void fill_up(const trial *t, char path[512]) {
    static const char zeros[4096];
    snprintf(path, 512, "%s/filler", t->data.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, zeros, sizeof zeros) > 0) {
    }
    close(fd);
}

static void a_job_goes_on_while_the_disk_is_full(void **state) {
    (void)state;
    trial t = {.pid = 0};
    struct fault none = {.call = FAULT_NONE};
    char filler[512], what[64];
    test_folder_make(&t.data);
    test_folder_make(&t.folder);
    if (mount("tmpfs", t.data.path, "tmpfs", 0, "size=12m")) {
        print_message("no tmpfs can be mounted (%s): skipped\n", strerror(errno));
        test_folder_remove(&t.data);
        test_folder_remove(&t.folder);
        skip();
    }
    client_init(&t.client, 0, 1, NULL);
    t.fault = &none;
    assert_true(start(&t));
    assert_int_equal(ask(&t, "POST", "/v1/models", LARGE), 201);
    assert_int_equal(ask(&t, "PUT", "/v1/datasets/d/train/input", INPUT), 201);
    assert_int_equal(ask(&t, "PUT", "/v1/datasets/d/train/target", "0\n1\n2\n0\n"), 201);
    assert_int_equal(ask(&t, "POST", "/v1/jobs",
                         "{'model': 'l', 'dataset': 'd', 'epochs': 100000000, 'batch_size': 2, "
                         "'checkpoint': {'every_seconds': 0.1, 'keep': 2}}"),
                     202);
    wait_for(&t, "\"running\"", true);
    fill_up(&t, filler);
    const long full = wait_for(&t, "\"storage_error\":\"", true);
    for (int waited = 0; wait_for(&t, "\"running\"", true) <= full; waited++) {
        assert_true(waited < 1000);
        pause_ms(5);
    }
    assert_int_equal(ask(&t, "GET", "/v1/health/ready", NULL), 503);
    assert_int_equal(unlink(filler), 0);
    const long room = wait_for(&t, "\"storage_error\":\"", false);
    assert_true(room > full);
    kill(t.pid, SIGKILL);
    test_wait(t.pid);
    assert_true(start(&t));
    if (wait_for(&t, "\"running\"", true) < full) { /* a checkpoint from when there was room again */
        snprintf(what, sizeof what, "it has gone back before step %ld", full);
        fail_trial(&t, what);
    }
    stop(&t);
    client_release(&t.client);
    assert_int_equal(umount(t.data.path), 0);
    test_folder_remove(&t.folder);
    test_folder_remove(&t.data);
}

/* ---- a job whose first checkpoint fails --------------------------------------------------------------- */

/* Without a checkpoint of its own it begins anew after a crash: from where it began, and not from a client's
 * checkpoint that has steps of it. */
static void no_step_is_taken_twice_when_the_first_checkpoint_fails(void **state) {
    (void)state;
    trial t = {.pid = 0};
    test_folder_make(&t.data);
    test_folder_make(&t.folder);
    client_init(&t.client, 0, 1, NULL);
    open_fault(&t, (struct fault){.call = FAULT_RENAME, .first = 1000000, .times = 1, .error = ENOSPC});
    assert_true(start(&t));
    assert_int_equal(ask(&t, "POST", "/v1/models", SMALL("l")), 201);
    assert_int_equal(ask(&t, "PUT", "/v1/datasets/d/train/input", INPUT), 201);
    assert_int_equal(ask(&t, "PUT", "/v1/datasets/d/train/target", "0\n1\n2\n0\n"), 201);
    t.fault->first = atomic_load(&t.fault->count) + 1;
    assert_int_equal(ask(&t, "POST", "/v1/jobs",
                         "{'model': 'l', 'dataset': 'd', 'epochs': 100000000, 'batch_size': 2, "
                         "'checkpoint': {'every_seconds': 1000}}"),
                     202);
    wait_for(&t, "\"storage_error\":\"", true);
    for (int waited = 0; wait_for(&t, "\"running\"", true) < 10; waited++) {
        assert_true(waited < 1000);
        pause_ms(5);
    }
    assert_int_equal(ask(&t, "POST", "/v1/models/l/checkpoints", "{'name': 'c'}"), 409);
    assert_non_null(strstr(t.client.body, "storage_error"));
    kill(t.pid, SIGKILL);
    test_wait(t.pid);
    assert_true(start(&t));
    wait_for(&t, "\"running\"", true);
    assert_non_null(strstr(t.client.body, "\"first_model_step\":1,"));
    assert_int_equal(ask(&t, "POST", "/v1/models/l/checkpoints", "{'name': 'c'}"), 201);
    stop(&t);
    close_fault(&t);
    client_release(&t.client);
    test_folder_remove(&t.folder);
    test_folder_remove(&t.data);
}

static void a_preloaded_library_comes_before_a_sanitizer(void **state) {
    (void)state;
    skip();
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i += 2) {
        const unsigned value = i + 1 < argc ? (unsigned)strtoul(argv[i + 1], NULL, 10) : 0;
        if (value && value <= MAX_CALLS && !strcmp(argv[i], "--every")) {
            option_every = value;
        } else if (value && value <= MAX_CALLS && !strcmp(argv[i], "--from")) {
            option_from = value;
        } else {
            fprintf(stderr, "usage: faults_test [--every N] [--from FIRST]\n");
            return 2;
        }
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const char *build = getenv("BUILD_DIR");
    const struct CMUnitTest none[] = {cmocka_unit_test(a_preloaded_library_comes_before_a_sanitizer)};
    if (build && (strstr(build, "asan") || strstr(build, "tsan"))) {
        return cmocka_run_group_tests(none, NULL, NULL);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_fails_without_a_fault),
        cmocka_unit_test(a_call_that_fails_once_harms_nothing),
        cmocka_unit_test(a_call_that_fails_for_a_while_harms_nothing),
        cmocka_unit_test(an_error_of_the_disk_harms_nothing),
        cmocka_unit_test(an_error_of_the_disk_for_a_while_harms_nothing),
        cmocka_unit_test(a_job_goes_on_while_the_disk_is_full),
        cmocka_unit_test(no_step_is_taken_twice_when_the_first_checkpoint_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
