/* checkpoints_test.c -- what outlives a daemon: states of models, their metrics and keys, over real daemons
 * that are killed; and checkpoints that are damaged. */
#include "tests/support.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/damage.h"
#include "tests/http.h"

/* All that a state has: an optimizer's slots, a scheduler, running statistics, random numbers. */
#define MODEL \
    "{'name': '%s', 'seed': 3, 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'fc1', " \
    "'in_features': 4, 'out_features': 8}, {'type': 'BatchNorm1d', 'name': 'bn', 'num_features': 8}, " \
    "{'type': 'Dropout', 'p': 0.5}, {'type': 'Linear', 'name': 'fc2', 'in_features': 8, 'out_features': " \
    "3}], 'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': {'type': 'Adam', 'lr': 0.05}, " \
    "'scheduler': {'type': 'StepLR', 'step_size': 4}}"

enum { RECORD = 256, STEPS = 10 };

/* ---- a daemon with a data directory ------------------------------------------------------------------- */

typedef struct fixture {
    test_folder data;
    test_daemon daemon;
} fixture;

static void start(fixture *f, const char *autosave) {
    test_daemon_start(&f->daemon, (const char *const[]){"--data-dir", f->data.path, "--autosave", autosave,
                                                        "--max-checkpoints", "3", NULL});
}

static void begin(fixture *f, const char *autosave) {
    test_folder_make(&f->data);
    start(f, autosave);
}

static void crash(fixture *f, const char *autosave) {
    test_daemon_kill(&f->daemon);
    start(f, autosave);
}

static void end(fixture *f) {
    test_daemon_stop(&f->daemon);
    test_folder_remove(&f->data);
}

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void create(const test_daemon *daemon, const char *name) {
    char json[1024];
    snprintf(json, sizeof json, MODEL, name);
    test_expect(daemon, "POST", "/v1/models", json, 201, name);
}

/* A step on a batch of its own. @param record what it says, without times */
static void step_with(const test_daemon *daemon, int i, const char *headers, char record[RECORD]) {
    char body[256];
    test_reply reply;
    snprintf(body, sizeof body,
             "{\"input\": [[%d, 2, 3, 4], [1, %d, 2, -1], [0, 1, 0, %d]], \"target\": [0, 1, 2]}", i, -i,
             i % 3);
    int fd = test_connect(daemon->port);
    test_request(fd, "POST", "/v1/models/m/train_step", headers, body, strlen(body), &reply);
    close(fd);
    if (reply.status != 200) {
        fail_msg("%s", reply.body);
    }
    snprintf(record, RECORD, "%.*s", (int)(strstr(reply.body, ",\"timing_us\"") - reply.body), reply.body);
    test_reply_release(&reply);
}

static void steps(const test_daemon *daemon, int first, int last) {
    char record[RECORD];
    for (int i = first; i <= last; i++) {
        step_with(daemon, i, "", record);
    }
}

/* A GET's body; test_reply_release() it. */
static test_reply get(const test_daemon *daemon, const char *path) {
    test_reply reply;
    test_call(daemon, "GET", path, NULL, 200, &reply);
    return reply;
}

static void same_bytes(const test_reply *a, const test_reply *b) {
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->body, b->body, a->size);
}

/* The model has these steps in its metrics, each once. */
static void expect_metrics(const test_daemon *daemon, int count) {
    char expected[1024];
    snprintf(expected, sizeof expected, "\"step\":[%s", count ? "" : "]");
    for (int i = 1; i <= count; i++) {
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%d%s", i,
                 i < count ? "," : "]");
    }
    test_expect(daemon, "GET", "/v1/models/m/metrics?keys=loss", NULL, 200, expected);
}

/* The model has this state, which is released, and these steps in its metrics. */
static void expect_state(const test_daemon *daemon, test_reply *state, int count) {
    test_reply now = get(daemon, "/v1/models/m/state_dict");
    same_bytes(state, &now);
    expect_metrics(daemon, count);
    test_reply_release(&now);
    test_reply_release(state);
}

/* Wait until a checkpoint of this name is there. */
static void wait_for(const test_daemon *daemon, const char *name) {
    char part[96];
    snprintf(part, sizeof part, "\"name\":\"%s\"", name);
    for (int i = 0; i < 500; i++) {
        test_reply reply = get(daemon, "/v1/models/m/checkpoints");
        bool there = strstr(reply.body, part);
        test_reply_release(&reply);
        if (there) {
            return;
        }
        pause_ms(20);
    }
    fail_msg("there is no checkpoint %s", name);
}

static int files_in(const fixture *f) {
    char path[300];
    snprintf(path, sizeof path, "%s/checkpoints", f->data.path);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        count += *entry->d_name != '.' || strstr(entry->d_name, "writing");
    }
    closedir(directory);
    return count;
}

/* ---- crashes ------------------------------------------------------------------------------------------ */

static void training_goes_on_bit_for_bit_after_a_crash(void **state) {
    (void)state;
    fixture f;
    char expected[STEPS][RECORD], record[RECORD];
    test_daemon whole;
    test_daemon_start(&whole, NULL);
    create(&whole, "m");
    steps(&whole, 1, 5);
    for (int i = 0; i < STEPS; i++) {
        step_with(&whole, 6 + i, "", expected[i]);
    }
    begin(&f, "0");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 5);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "\"step\":5,");
    test_reply before = get(&f.daemon, "/v1/models/m/state_dict");
    steps(&f.daemon, 6, 8); /* which are lost, and their metrics, stored by then, with them */
    pause_ms(500);
    crash(&f, "0");
    expect_state(&f.daemon, &before, 5);
    for (int i = 0; i < STEPS; i++) {
        step_with(&f.daemon, 6 + i, "", record);
        assert_string_equal(record, expected[i]);
    }
    expect_metrics(&f.daemon, 5 + STEPS);
    test_daemon_stop(&whole);
    end(&f);
}

static void metrics_are_neither_lost_nor_doubled(void **state) {
    (void)state;
    fixture f;
    begin(&f, "0");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 4);
    pause_ms(300);
    steps(&f.daemon, 5, 6);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "");
    crash(&f, "0"); /* at once: the checkpoint has brought them */
    expect_metrics(&f.daemon, 6);
    steps(&f.daemon, 7, 9);
    pause_ms(500);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints/c/restore", "{}", 200, "\"step\":6,");
    expect_metrics(&f.daemon, 6);
    crash(&f, "0");
    expect_metrics(&f.daemon, 6);
    steps(&f.daemon, 7, 8);
    expect_metrics(&f.daemon, 8);
    /* of other series too, of which nothing new comes that would take their place */
    test_expect(&f.daemon, "POST", "/v1/models/m/metrics", "{'values': {'mine': 0.5}}", 200, "");
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints/c/restore", "{}", 200, "\"step\":6,");
    steps(&f.daemon, 7, 9);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{}", 201, "\"step\":9,");
    crash(&f, "0");
    test_expect(&f.daemon, "GET", "/v1/models/m/metrics", NULL, 200, "\"series\":{\"loss\"");
    test_reply reply = get(&f.daemon, "/v1/models/m/metrics");
    const char *mine = strstr(reply.body, "\"mine\"");
    assert_true(!mine || !strncmp(mine, "\"mine\":{\"step\":[]", 18));
    test_reply_release(&reply);
    end(&f);
}

static void many_packs_of_metrics_become_one(void **state) {
    (void)state;
    enum { MANY = 70 };
    fixture f;
    begin(&f, "0");
    create(&f.daemon, "m");
    for (int i = 1; i <= MANY; i++) { /* each with a pack of its own */
        steps(&f.daemon, i, i);
        test_expect(&f.daemon, "PATCH", "/v1/models/m", "{'training': true}", 200, "");
    }
    for (int i = 0; i < 3; i++) {
        crash(&f, "0");
        expect_metrics(&f.daemon, MANY + i);
        steps(&f.daemon, MANY + i + 1, MANY + i + 1);
        test_expect(&f.daemon, "PATCH", "/v1/models/m", "{'training': true}", 200, "");
    }
    end(&f);
}

static void a_key_is_known_if_and_only_if_its_step_is_there(void **state) {
    (void)state;
    fixture f;
    char first[RECORD], again[RECORD];
    begin(&f, "0");
    create(&f.daemon, "m");
    step_with(&f.daemon, 1, "Idempotency-Key: one\r\n", first);
    step_with(&f.daemon, 1, "Idempotency-Key: one\r\n", again);
    assert_string_equal(first, again);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "\"step\":1,");
    step_with(&f.daemon, 2, "Idempotency-Key: two\r\n", again);
    crash(&f, "0");
    step_with(&f.daemon, 1, "Idempotency-Key: one\r\n", again);
    assert_string_equal(first, again);
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":1,");
    step_with(&f.daemon, 2, "Idempotency-Key: two\r\n", again); /* is taken anew */
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":2,");
    end(&f);
}

static void a_changed_model_saves_itself(void **state) {
    (void)state;
    fixture f;
    begin(&f, "0.2");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 3);
    wait_for(&f.daemon, "autosave-3");
    for (int i = 4; i < 7; i++) { /* the last two are kept */
        char name[32];
        steps(&f.daemon, i, i);
        snprintf(name, sizeof name, "autosave-%d", i);
        wait_for(&f.daemon, name);
    }
    assert_int_equal(files_in(&f), 2);
    test_reply before = get(&f.daemon, "/v1/models/m/state_dict");
    crash(&f, "0.2");
    expect_state(&f.daemon, &before, 6);
    end(&f);
}

static void the_end_saves_what_has_changed(void **state) {
    (void)state;
    fixture f;
    begin(&f, "0");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 3);
    test_reply before = get(&f.daemon, "/v1/models/m/state_dict");
    test_daemon_stop(&f.daemon);
    start(&f, "0");
    expect_state(&f.daemon, &before, 3);
    test_daemon_stop(&f.daemon); /* nothing has changed: nothing is written */
    assert_int_equal(files_in(&f), 1);
    start(&f, "0");
    end(&f);
}

static void what_is_patched_or_put_is_durable(void **state) {
    (void)state;
    fixture f;
    begin(&f, "0");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 2);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'adam'}", 201, "");
    test_expect(&f.daemon, "PATCH", "/v1/models/m", "{'optimizer': {'lr': 0.125}, 'training': false}", 200,
                "");
    crash(&f, "0");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"lr\":0.125");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"training\":false");
    test_expect(&f.daemon, "PATCH", "/v1/models/m",
                "{'optimizer': {'type': 'SGD', 'lr': 0.25, 'momentum': 0.5}, 'scheduler': null}", 200, "");
    crash(&f, "0");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"type\":\"SGD\"");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"scheduler\":null");
    /* a checkpoint from before is of another definition */
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints/adam/restore", "{}", 200, "\"type\":\"Adam\"");
    test_reply file = get(&f.daemon, "/v1/models/m/state_dict");
    steps(&f.daemon, 3, 5);
    int fd = test_connect(f.daemon.port);
    test_reply reply;
    test_request(fd, "PUT", "/v1/models/m/state_dict", "Content-Type: application/x-safetensors\r\n",
                 file.body, file.size, &reply);
    close(fd);
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    crash(&f, "0");
    expect_state(&f.daemon, &file, 5);
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"type\":\"Adam\"");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":5,");
    end(&f);
}

static void a_model_that_is_deleted_leaves_nothing(void **state) {
    (void)state;
    fixture f;
    begin(&f, "0");
    create(&f.daemon, "m");
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{}", 201, "manual-0");
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{}", 201, "manual-0-2");
    assert_int_equal(files_in(&f), 2);
    test_expect(&f.daemon, "DELETE", "/v1/models/m", NULL, 204, "");
    assert_int_equal(files_in(&f), 0);
    crash(&f, "0");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 404, "");
    create(&f.daemon, "m");
    test_expect(&f.daemon, "GET", "/v1/models/m/checkpoints", NULL, 200, "\"items\":[]");
    end(&f);
}

static void files_that_no_row_knows_are_swept(void **state) {
    (void)state;
    fixture f;
    char path[512];
    begin(&f, "0");
    create(&f.daemon, "m");
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "");
    test_folder_write(&f.data, "checkpoints/999.safetensors", "x", 1, path);
    test_folder_write(&f.data, "checkpoints/.writing-1-1", "x", 1, path);
    crash(&f, "0");
    assert_int_equal(files_in(&f), 1);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints/c/restore", "{}", 200, "");
    end(&f);
}

/* ---- requests ------------------------------------------------------------------------------------------ */

static void names_are_unique_and_limits_hold(void **state) {
    (void)state;
    fixture f;
    const test_daemon *d = &f.daemon;
    char note[400];
    begin(&f, "0");
    create(d, "m");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'a', 'note': 'first'}", 201,
                "\"note\":\"first\"");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'a'}", 409, "name_taken");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': '../a'}", 400, "invalid_name");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'best'}", 400, "invalid_name");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'nme': 'a'}", 400, "unknown_field");
    snprintf(note, sizeof note, "{'note': '%0300d'}", 0);
    test_expect(d, "POST", "/v1/models/m/checkpoints", note, 400, "256");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'b'}", 201, "");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'd'}", 429, "too_many_checkpoints");
    test_expect(d, "GET", "/v1/models/m/checkpoints?limit=2", NULL, 200, "\"next_cursor\":\"3\"");
    test_expect(d, "GET", "/v1/models/m/checkpoints?limit=2&cursor=3", NULL, 200, "\"name\":\"a\"");
    test_expect(d, "GET", "/v1/models/m/checkpoints/d", NULL, 404, "not_found");
    test_expect(d, "POST", "/v1/models/m/checkpoints/d/restore", "{}", 404, "not_found");
    test_expect(d, "DELETE", "/v1/models/m/checkpoints/d", NULL, 404, "not_found");
    test_expect(d, "GET", "/v1/models/none/checkpoints", NULL, 404, "not_found");
    test_expect(d, "DELETE", "/v1/models/m/checkpoints/a", NULL, 204, "");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'd'}", 201, "");
    end(&f);
}

static void the_newest_one_is_replaced_when_it_is_deleted(void **state) {
    (void)state;
    fixture f;
    begin(&f, "0");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 3);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "");
    test_expect(&f.daemon, "DELETE", "/v1/models/m/checkpoints/c", NULL, 204, "");
    assert_int_equal(files_in(&f), 1);
    crash(&f, "0");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":3,");
    end(&f);
}

static void a_checkpoint_is_downloaded_and_makes_another_model(void **state) {
    (void)state;
    fixture f;
    char etag[96], sha256[80], headers[200];
    begin(&f, "0");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 3);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "");
    test_reply file = get(&f.daemon, "/v1/models/m/checkpoints/c"), reply;
    test_header(&file, "ETag", etag, sizeof etag);
    snprintf(sha256, sizeof sha256, "%.64s", etag + 1);
    int fd = test_connect(f.daemon.port);
    test_request(fd, "GET", "/v1/models/m/checkpoints/c", "Accept: application/json\r\n", NULL, 0, &reply);
    assert_non_null(strstr(reply.body, sha256));
    test_reply_release(&reply);
    snprintf(headers, sizeof headers, "If-None-Match: %s\r\n", etag);
    test_request(fd, "GET", "/v1/models/m/checkpoints/c", headers, NULL, 0, &reply);
    assert_int_equal(reply.status, 304);
    test_reply_release(&reply);
    test_request(fd, "PUT", "/v1/models/m/state_dict", "Content-Type: application/x-safetensors\r\n",
                 file.body, file.size, &reply);
    assert_int_equal(reply.status, 200); /* the weights of it */
    test_reply_release(&reply);
    close(fd);
    test_expect(&f.daemon, "POST", "/v1/models?from_checkpoint=m/c", "{}", 409, "name_taken");
    test_expect(&f.daemon, "POST", "/v1/models?from_checkpoint=m/d", "{'name': 'n'}", 404, "");
    test_expect(&f.daemon, "POST", "/v1/models?from_checkpoint=m", "{'name': 'n'}", 400, "from_checkpoint");
    test_expect(&f.daemon, "POST", "/v1/models?from_checkpoint=m/c", "{'name': 'n', 'seed': 1}", 400, "seed");
    test_expect(&f.daemon, "POST", "/v1/models?from_checkpoint=m/c", "{'name': 'n'}", 201, "\"step\":3,");
    crash(&f, "0");
    test_reply one = get(&f.daemon, "/v1/models/m/state_dict"),
               other = get(&f.daemon, "/v1/models/n/state_dict");
    same_bytes(&one, &other);
    test_reply_release(&one);
    test_reply_release(&other);
    test_reply_release(&file);
    end(&f);
}

static void python_reads_a_checkpoint(void **state) {
    (void)state;
    static const char script[] =
        "import sys, json, struct\n"
        "try:\n"
        "    from safetensors import safe_open\n"
        "    f = safe_open(sys.argv[1], 'np')\n"
        "    names, shape = list(f.keys()), f.get_tensor('fc1.weight').shape\n"
        "    meta = f.metadata()\n"
        "except ImportError:\n"
        "    b = open(sys.argv[1], 'rb').read()\n"
        "    n = struct.unpack('<Q', b[:8])[0]\n"
        "    head = json.loads(b[8:8 + n])\n"
        "    meta = head.pop('__metadata__')\n"
        "    names, e = list(head), head['fc1.weight']\n"
        "    begin, end = e['data_offsets']\n"
        "    shape = e['shape']\n"
        "    struct.unpack('<32f', b[8 + n + begin:8 + n + end])\n"
        "assert tuple(shape) == (8, 4), shape\n"
        "assert 'bn.running_mean' in names and 'rng.state' in names, names\n"
        "assert meta['step'] == '2' and json.loads(meta['definition'])['name'] == 'm', meta\n";
    fixture f;
    char path[512];
    test_output output;
    begin(&f, "0");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 2);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "");
    test_reply file = get(&f.daemon, "/v1/models/m/checkpoints/c");
    test_folder_write(&f.data, "c.safetensors", file.body, file.size, path);
    test_run((const char *const[]){"/usr/bin/env", "python3", "-c", script, path, NULL}, NULL, &output);
    int status = output.status;
    if (status && status != 127) {
        fail_msg("%s", output.err);
    }
    test_output_release(&output);
    test_reply_release(&file);
    end(&f);
    if (status) {
        skip();
    }
}

/* ---- damage -------------------------------------------------------------------------------------------- */

static void write_all(const char *path, const char *bytes, size_t size) {
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
}

static void no_byte_of_a_checkpoint_can_be_another(void **state) {
    (void)state;
    fixture f;
    char path[300];
    size_t size;
    begin(&f, "0");
    create(&f.daemon, "m");
    steps(&f.daemon, 1, 2);
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{'name': 'c'}", 201, "\"id\":1,");
    steps(&f.daemon, 3, 3);
    snprintf(path, sizeof path, "%s/checkpoints/1.safetensors", f.data.path);
    char *bytes = test_read_file(path, &size);
    for (size_t i = 0; i < size; i += 1 + size / 150) {
        bytes[i] ^= (char)(1 << i % 8);
        write_all(path, bytes, size);
        test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints/c/restore", "{}", 409, "\"damaged\"");
        bytes[i] ^= (char)(1 << i % 8);
        write_all(path, bytes, i);
        test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints/c/restore", "{}", 409, "\"damaged\"");
    }
    test_expect(&f.daemon, "GET", "/v1/models/m/checkpoints", NULL, 200, "\"damaged\":true");
    test_expect(&f.daemon, "GET", "/v1/models/m/checkpoints/c", NULL, 409, "\"damaged\"");
    test_expect(&f.daemon, "POST", "/v1/models?from_checkpoint=m/c", "{'name': 'n'}", 409, "\"damaged\"");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":3,");
    write_all(path, bytes, size); /* it is whole again */
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints/c/restore", "{}", 200, "\"step\":2,");
    test_expect(&f.daemon, "GET", "/v1/models/m/checkpoints", NULL, 200, "\"damaged\":false");
    free(bytes);
    end(&f);
}

static void save_by_request(const test_daemon *daemon, int step) {
    (void)step;
    test_expect(daemon, "POST", "/v1/models/m/checkpoints", "{}", 201, "");
}

static void save_by_itself(const test_daemon *daemon, int step) {
    char name[32];
    snprintf(name, sizeof name, "autosave-%d", step);
    wait_for(daemon, name);
}

/* The file of the newest checkpoint, into path of 512 bytes. */
static void find_newest(const fixture *f, char *path) {
    test_reply list = get(&f->daemon, "/v1/models/m/checkpoints?limit=1");
    const char *id = strstr(list.body, "\"id\":");
    assert_non_null(id);
    snprintf(path, 512, "%s/checkpoints/%ld.safetensors", f->data.path, strtol(id + 5, NULL, 10));
    test_reply_release(&list);
}

/* Each damage to the newest checkpoint: the model comes back as it was at the one before. */
static void damage_the_newest(const char *autosave, void (*save)(const test_daemon *, int)) {
    for (size_t i = 0; i < test_damage_count; i++) {
        fixture f;
        char path[512], first[RECORD], again[RECORD];
        begin(&f, autosave);
        create(&f.daemon, "m");
        steps(&f.daemon, 1, 2);
        save(&f.daemon, 2);
        test_reply old = get(&f.daemon, "/v1/models/m/state_dict");
        step_with(&f.daemon, 3, "Idempotency-Key: three\r\n", first);
        save(&f.daemon, 3);
        find_newest(&f, path);
        test_daemon_kill(&f.daemon);
        test_damages[i].apply(path);
        const int files = files_in(&f);
        start(&f, "0");
        test_daemon_expect_log(&f.daemon, "checkpoint damaged");
        test_expect(&f.daemon, "GET", "/v1/models/m/checkpoints", NULL, 200, "\"damaged\":true");
        assert_int_equal(files_in(&f), files); /* it stays, to be looked at */
        test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":2,");
        expect_state(&f.daemon, &old, 2);
        /* is taken anew, as what it did was lost */
        step_with(&f.daemon, 3, "Idempotency-Key: three\r\n", again);
        assert_string_equal(first, again);
        test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":3,");
        expect_metrics(&f.daemon, 3);
        end(&f);
    }
}

static void a_damaged_checkpoint_is_passed_over_at_the_start(void **state) {
    (void)state;
    damage_the_newest("0", save_by_request);
}

static void a_damaged_autosave_is_passed_over_at_the_start(void **state) {
    (void)state;
    damage_the_newest("0.1", save_by_itself);
}

static void a_model_without_any_whole_checkpoint_is_as_it_was_defined(void **state) {
    (void)state;
    fixture f;
    char checkpoints[300];
    begin(&f, "0");
    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", f.data.path);
    create(&f.daemon, "m");
    test_reply fresh = get(&f.daemon, "/v1/models/m/state_dict");
    for (int i = 1; i <= 3; i++) {
        steps(&f.daemon, i, i);
        save_by_request(&f.daemon, i);
    }
    test_daemon_kill(&f.daemon);
    assert_int_equal(test_damage_all(checkpoints), 3);
    start(&f, "0");
    test_daemon_expect_log(&f.daemon, "checkpoint damaged");
    test_expect(&f.daemon, "GET", "/v1/health/ready", NULL, 200, "");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":0,");
    expect_state(&f.daemon, &fresh, 0);
    steps(&f.daemon, 1, 2); /* it is none the worse for it */
    test_expect(&f.daemon, "DELETE", "/v1/models/m/checkpoints/manual-1", NULL, 204, "");
    save_by_request(&f.daemon, 2);
    crash(&f, "0");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "\"step\":2,");
    expect_metrics(&f.daemon, 2);
    end(&f);
}

/* ---- a disk that is full ---------------------------------------------------------------------------------
 */

#define LARGE \
    "{'name': 'm', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'fc1', 'in_features': 4, " \
    "'out_features': 300000}, {'type': 'Linear', 'out_features': 3}], 'loss': {'type': " \
    "'CrossEntropyLoss'}, " \
    "'optimizer': {'type': 'SGD', 'lr': 0.25}}"

static void a_full_disk_harms_nothing_that_is_there(void **state) {
    (void)state;
    fixture f;
    const test_daemon *d = &f.daemon;
    begin(&f, "0");
    test_expect(d, "POST", "/v1/models", LARGE, 201, "");
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'before'}", 201, "");
    steps(d, 1, 2);
    struct rlimit limit, small = {.rlim_cur = 4 << 20}; /* room for the database, and not for a checkpoint */
    assert_int_equal(prlimit(d->pid, RLIMIT_FSIZE, NULL, &limit), 0);
    small.rlim_max = limit.rlim_max;
    assert_int_equal(prlimit(d->pid, RLIMIT_FSIZE, &small, NULL), 0);
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'full'}", 503, "storage_failed");
    test_expect(d, "GET", "/v1/health/ready", NULL, 503, "storage_failed");
    test_expect(d, "PATCH", "/v1/models/m", "{'optimizer': {'lr': 0.5}}", 503, "storage_failed");
    test_expect(d, "GET", "/v1/models/m", NULL, 200, "\"lr\":0.25"); /* taken back */
    test_expect(d, "POST", "/v1/models/m/checkpoints/before/restore", "{}", 503, "storage_failed");
    test_expect(d, "GET", "/v1/models/m", NULL, 200, "\"step\":2,");
    expect_metrics(d, 2);
    assert_int_equal(files_in(&f), 1);
    steps(d, 3, 3); /* the running state goes on */
    assert_int_equal(prlimit(d->pid, RLIMIT_FSIZE, &limit, NULL), 0);
    test_expect(d, "POST", "/v1/models/m/checkpoints", "{'name': 'after'}", 201, "\"step\":3,");
    test_expect(d, "GET", "/v1/health/ready", NULL, 200, "");
    test_expect(d, "PATCH", "/v1/models/m", "{'optimizer': {'lr': 0.5}}", 200, "\"lr\":0.5");
    crash(&f, "0");
    test_expect(d, "GET", "/v1/models/m", NULL, 200, "\"lr\":0.5");
    expect_metrics(d, 3);
    end(&f);
}

static void a_snapshot_counts_against_the_memory(void **state) {
    (void)state;
    fixture f;
    test_folder_make(&f.data);
    test_daemon_start(&f.daemon,
                      (const char *const[]){"--data-dir", f.data.path, "--max-memory", "24M", NULL});
    test_expect(&f.daemon, "POST", "/v1/models", LARGE, 201, "");
    test_expect(&f.daemon, "POST", "/v1/models/m/checkpoints", "{}", 507, "--max-memory");
    test_expect(&f.daemon, "GET", "/v1/models/m", NULL, 200, "");
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_goes_on_bit_for_bit_after_a_crash),
        cmocka_unit_test(metrics_are_neither_lost_nor_doubled),
        cmocka_unit_test(many_packs_of_metrics_become_one),
        cmocka_unit_test(a_key_is_known_if_and_only_if_its_step_is_there),
        cmocka_unit_test(a_changed_model_saves_itself),
        cmocka_unit_test(the_end_saves_what_has_changed),
        cmocka_unit_test(what_is_patched_or_put_is_durable),
        cmocka_unit_test(a_model_that_is_deleted_leaves_nothing),
        cmocka_unit_test(files_that_no_row_knows_are_swept),
        cmocka_unit_test(names_are_unique_and_limits_hold),
        cmocka_unit_test(the_newest_one_is_replaced_when_it_is_deleted),
        cmocka_unit_test(a_checkpoint_is_downloaded_and_makes_another_model),
        cmocka_unit_test(python_reads_a_checkpoint),
        cmocka_unit_test(no_byte_of_a_checkpoint_can_be_another),
        cmocka_unit_test(a_damaged_checkpoint_is_passed_over_at_the_start),
        cmocka_unit_test(a_damaged_autosave_is_passed_over_at_the_start),
        cmocka_unit_test(a_model_without_any_whole_checkpoint_is_as_it_was_defined),
        cmocka_unit_test(a_full_disk_harms_nothing_that_is_there),
        cmocka_unit_test(a_snapshot_counts_against_the_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
