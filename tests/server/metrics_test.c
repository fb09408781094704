/* metrics_test.c -- a model's metrics and the daemon's, over sockets. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/http.h"
#include "tests/support.h"

#define STEP "{'input': [[1, 2, 3, 4], [0, 1, 0, 1]], 'target': [0, 2]}"

static void train(const char *model, int steps) {
    char path[128];
    snprintf(path, sizeof path, "/v1/models/%s/train_step", model);
    for (int i = 0; i < steps; i++) {
        test_expect(&test_shared, "POST", path, STEP, 200, "loss");
    }
}

/* GET .../metrics<query>, parsed. A new reference. */
static json_t *metrics(const char *model, const char *query) {
    char path[256];
    test_reply reply;
    snprintf(path, sizeof path, "/v1/models/%s/metrics%s", model, query);
    test_call(&test_shared, "GET", path, NULL, 200, &reply);
    json_t *json = json_loadb(reply.body, reply.size, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    test_reply_release(&reply);
    return json;
}

static json_t *column(json_t *json, const char *key, const char *name) {
    json_t *values = json_object_get(json_object_get(json_object_get(json, "series"), key), name);
    assert_true(json_is_array(values));
    return values;
}

static double cell(json_t *json, const char *key, const char *name, size_t i) {
    json_t *value = json_array_get(column(json, key, name), i);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static int64_t cursor(json_t *json) {
    return json_integer_value(json_object_get(json, "cursor"));
}

/* GET with headers. */
static void get(const char *path, const char *headers, int status, test_reply *ret_reply) {
    int fd = test_connect(test_shared.port);
    test_request(fd, "GET", path, headers, "", 0, ret_reply);
    close(fd);
    assert_int_equal(ret_reply->status, status);
}

static void every_step_has_its_columns(void **state) {
    (void)state;
    static const char *const names[] = {"step", "time", "min", "max", "mean", "last", "count", "nonfinite"};
    test_create_small(&test_shared, "columns");
    train("columns", 3);
    json_t *json = metrics("columns", "");
    const char *keys[] = {"loss", "lr", "grad_norm", "accuracy"};
    for (size_t k = 0; k < 4; k++) {
        for (size_t i = 0; i < 8; i++) {
            assert_int_equal(json_array_size(column(json, keys[k], names[i])), 3);
        }
        assert_true(cell(json, keys[k], "mean", 1) == cell(json, keys[k], "last", 1));
        assert_true(cell(json, keys[k], "count", 1) == 1);
    }
    /* The first step has none before it. */
    assert_int_equal(json_array_size(column(json, "samples_per_second", "step")), 2);
    assert_true(cell(json, "samples_per_second", "step", 0) == 2);
    assert_true(cell(json, "samples_per_second", "last", 0) > 0);
    assert_true(cell(json, "lr", "last", 2) == 0.1);
    assert_int_equal(cursor(json), 3);
    assert_int_equal(json_string_length(json_array_get(column(json, "loss", "time"), 0)), 24);
    json_decref(json);
}

static void polls_and_ranges_give_what_they_say(void **state) {
    (void)state;
    test_create_small(&test_shared, "ranges");
    train("ranges", 10);
    json_t *json = metrics("ranges", "?keys=loss&since=7");
    assert_int_equal(json_array_size(column(json, "loss", "step")), 3);
    assert_true(cell(json, "loss", "step", 0) == 8);
    assert_null(json_object_get(json_object_get(json, "series"), "lr"));
    json_decref(json);
    json = metrics("ranges", "?keys=loss,lr&from=4&to=6");
    assert_int_equal(json_array_size(column(json, "lr", "step")), 3);
    assert_true(cell(json, "loss", "step", 0) == 4);
    json_decref(json);
    json = metrics("ranges", "?keys=loss&max_points=2");
    assert_int_equal(json_array_size(column(json, "loss", "step")), 2);
    assert_true(cell(json, "loss", "count", 0) + cell(json, "loss", "count", 1) == 10);
    assert_true(cell(json, "loss", "min", 0) < cell(json, "loss", "max", 0));
    json_decref(json);
    json = metrics("ranges", "?since=10");
    assert_int_equal(json_array_size(column(json, "loss", "step")), 0);
    assert_int_equal(cursor(json), 10);
    json_decref(json);
    json = metrics("ranges", "?keys=eval_loss"); /* there may be one yet */
    assert_int_equal(json_array_size(column(json, "eval_loss", "step")), 0);
    json_decref(json);
}

static void every_point_is_streamed_when_asked_for(void **state) {
    (void)state;
    char body[1 << 17];
    size_t size = 1;
    body[0] = '[';
    test_create_small(&test_shared, "stream");
    train("stream", 2);
    for (int i = 0; i < 1500; i++) {
        size += (size_t)snprintf(body + size, sizeof body - size,
                                 "%s{'step':%d,'values':{'a':%d,'b':%.9g,'c':%s}}", i ? "," : "", i, i,
                                 -i / 3.0, i == 700 ? "'NaN'" : "1");
    }
    snprintf(body + size, sizeof body - size, "]");
    test_expect(&test_shared, "POST", "/v1/models/stream/metrics", body, 200,
                "{\"added\":4500,\"cursor\":4502}");
    json_t *json = metrics("stream", "?max_points=0"), *bounded = metrics("stream", "?max_points=100000");
    assert_int_equal(json_array_size(column(json, "a", "nonfinite")), 1500);
    assert_true(cell(json, "a", "last", 1499) == 1499);
    assert_true(json_equal(json_object_get(json, "series"), json_object_get(bounded, "series")));
    json_decref(json);
    json_decref(bounded);
    json = metrics("stream", "?max_points=0&keys=eval_loss,a&from=10&to=12");
    assert_int_equal(json_array_size(column(json, "a", "step")), 3);
    assert_int_equal(json_array_size(column(json, "eval_loss", "step")), 0);
    json_decref(json);
}

static void clients_add_series_of_their_own(void **state) {
    (void)state;
    static const struct {
        const char *body;
        int status;
        const char *part;
    } rows[] = {
        {"{'values': {'mine': 1.5}}", 200, "{\"added\":1,\"cursor\":2}"},
        {"{'step': 7, 'values': {'mine': 'NaN', 'other': 0.1}}", 200, "\"added\":2"},
        {"[{'step': 7, 'values': {'mine': 2}}, {'step': 9, 'values': {'mine': '-Infinity'}}]", 200,
         "\"added\":2"},
        {"[]", 200, "\"added\":0"},
        {"{'step': 8, 'values': {'mine': 1}}", 400, "\"/values/mine\""},
        {"[{'values': {'other': 9, 'fine': 1}}, {'step': 10, 'values': {'fine': 2, 'loss': 1}}]", 400,
         "\"/0/values/other\""},
        {"[{'step': 9, 'values': {'other': 9, 'fine': 1}}, {'step': 10, 'values': {'fine': 2, 'loss': 1}}]",
         400, "\"/1/values/loss\""},
        {"{'step': -1, 'values': {'mine': 1}}", 400, "\"/step\""},
        {"{'step': 1.5, 'values': {'mine': 1}}", 400, "\"/step\""},
        {"{'step': 9}", 400, "missing_field"},
        {"{}", 400, "missing_field"},
        {"[3]", 400, "a point must be an object"},
        {"{'values': {'mine': 'high'}}", 400, "must be a number"},
        {"{'values': {'mine': null}}", 400, "must be a number"},
        {"{'values': {'a b': 1}}", 400, "invalid_name"},
        {"{'values': {'mine': 1}, 'when': 3}", 400, "when"},
        {"[{'values': {'mine': 1}}], 'x': [1]", 400, "unknown_field"},
        {"{'values': {'mine': 1}", 400, "invalid_json"},
    };
    test_create_small(&test_shared, "own");
    train("own", 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        test_expect(&test_shared, "POST", "/v1/models/own/metrics", rows[i].body, rows[i].status,
                    rows[i].part);
    }
    json_t *json = metrics("own", "?keys=mine,other&max_points=1");
    assert_true(cell(json, "mine", "count", 0) == 4);
    assert_true(cell(json, "mine", "nonfinite", 0) == 2);
    assert_true(cell(json, "mine", "mean", 0) == 1.75);
    assert_string_equal(json_string_value(json_array_get(column(json, "mine", "last"), 0)), "-Infinity");
    assert_true(cell(json, "other", "last", 0) == 0.1);
    json_decref(json);
    test_expect(&test_shared, "GET", "/v1/models/own/metrics?keys=fine", NULL, 400,
                "there is no series \\\"fine\\\"");
    test_expect(&test_shared, "POST", "/v1/models/none/metrics", "{'values': {}}", 404, "not_found");
}

static void bad_parameters_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"keys=",   "keys=loss,,lr", "keys=LOSS",         "since=-1",
                                      "since=x", "max_points=-1", "max_points=100001", "from=a",
                                      "to=-3",   "till=3"};
    char path[128];
    test_create_small(&test_shared, "bad");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(path, sizeof path, "/v1/models/bad/metrics?%s", bad[i]);
        test_expect(&test_shared, "GET", path, NULL, 400, "\"status\": 400");
    }
}

static void csv_has_every_step_and_value(void **state) {
    (void)state;
    test_reply reply;
    char type[64];
    test_create_small(&test_shared, "csv");
    train("csv", 2);
    test_expect(&test_shared, "POST", "/v1/models/csv/metrics", "{'values': {'mine': 0.25, 'worse': 'NaN'}}",
                200, "2");
    train("csv", 1);
    get("/v1/models/csv/metrics?max_points=1", "Accept: text/csv\r\n", 200, &reply);
    assert_string_equal(test_header(&reply, "Content-Type", type, sizeof type), "text/csv; charset=utf-8");
    static const char *const head = "step,time,loss,lr,grad_norm,accuracy,samples_per_second,mine,worse\r\n";
    assert_memory_equal(reply.body, head, strlen(head));
    static const int steps[] = {1, 2, 2, 2, 3};
    const char *line = reply.body + strlen(head);
    for (size_t i = 0; i < 5; i++) {
        int step, commas = 0;
        double loss;
        const size_t length = strcspn(line, "\r");
        for (size_t c = 0; c < length; c++) {
            commas += line[c] == ',';
        }
        assert_int_equal(commas, 8);
        /* NOLINTNEXTLINE(cert-err34-c): what it does not take is not equal */
        assert_int_equal(sscanf(line, "%d,%*[^,],%lf", &step, &loss), i == 2 || i == 3 ? 1 : 2);
        assert_int_equal(step, steps[i]);
        if (i == 2 || i == 3) { /* of step 2, behind it */
            const char *end = i == 2 ? ",,,,,,0.25," : ",,,,,,,NaN";
            assert_memory_equal(line + length - strlen(end), end, strlen(end));
        } else {
            assert_memory_equal(line + length - 2, ",,", 2);
        }
        line += length + 2;
    }
    assert_string_equal(line, "");
    test_reply_release(&reply);
    get("/v1/models/csv/metrics?keys=loss&from=3", "Accept: text/csv\r\n", 200, &reply);
    assert_memory_equal(reply.body, "step,time,loss\r\n3,", 18);
    test_reply_release(&reply);
}

static void nothing_new_is_304(void **state) {
    (void)state;
    test_reply reply;
    char etag[96], header[256];
    test_create_small(&test_shared, "etag");
    train("etag", 1);
    for (int csv = 0; csv < 2; csv++) {
        const char *accept = csv ? "Accept: text/csv\r\n" : "";
        get("/v1/models/etag/metrics", accept, 200, &reply);
        assert_true(strlen(test_header(&reply, "ETag", etag, sizeof etag)) > 4);
        test_reply_release(&reply);
        snprintf(header, sizeof header, "%sIf-None-Match: %s\r\n", accept, etag);
        get("/v1/models/etag/metrics", header, 304, &reply);
        test_reply_release(&reply);
        get("/v1/models/etag/metrics", csv ? header + strlen(accept) : header, csv ? 200 : 304, &reply);
        test_reply_release(&reply);
        train("etag", 1);
        get("/v1/models/etag/metrics", header, 200, &reply);
        test_reply_release(&reply);
    }
}

static void a_stream_survives_its_client(void **state) {
    (void)state;
    char body[1 << 17], request[256];
    test_create_small(&test_shared, "cutoff");
    for (int round = 0; round < 40; round++) {
        size_t size = 1;
        body[0] = '[';
        for (int i = 0; i < 1500; i++) {
            size += (size_t)snprintf(body + size, sizeof body - size, "%s{'step':%d,'values':{'a':%d}}",
                                     i ? "," : "", round * 1500 + i, i);
        }
        snprintf(body + size, sizeof body - size, "]");
        test_expect(&test_shared, "POST", "/v1/models/cutoff/metrics", body, 200, "1500");
    }
    for (int i = 0; i < 20; i++) { /* it asks, reads nothing or a little, and is gone */
        int fd = test_connect(test_shared.port);
        snprintf(request, sizeof request,
                 "GET /v1/models/cutoff/metrics?max_points=0 HTTP/1.1\r\nHost: localhost\r\n%s\r\n",
                 i % 2 ? "Accept: text/csv\r\n" : "");
        test_send_text(fd, request);
        if (i % 4 > 1) {
            char bytes[1000];
            assert_true(read(fd, bytes, sizeof bytes) > 0);
        }
        close(fd);
    }
    json_t *json = metrics("cutoff", "?max_points=0&keys=a"); /* 4 MB */
    assert_int_equal(json_array_size(column(json, "a", "last")), 60000);
    json_decref(json);
    test_reply reply;
    int fd = test_connect(test_shared.port);
    test_request(fd, "HEAD", "/v1/models/cutoff/metrics?max_points=0", "", "", 0, &reply);
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    assert_true(test_is_closed(fd)); /* without a byte more */
    close(fd);
}

static void limits_are_flags(void **state) {
    (void)state;
    test_daemon daemon;
    test_daemon_start(&daemon,
                      (const char *const[]){"--max-metric-keys", "1", "--max-history", "1000", NULL});
    test_create_small(&daemon, "m");
    test_expect(&daemon, "POST", "/v1/models/m/metrics", "{'values': {'a': 1, 'eval_loss': 1}}", 200, "2");
    test_expect(&daemon, "POST", "/v1/models/m/metrics", "{'values': {'b': 1}}", 400, "--max-metric-keys");
    char body[1 << 17];
    size_t size = 0;
    for (int i = 0; i < 2000; i++) {
        size += (size_t)snprintf(body + size, sizeof body - size, "%c{'step':%d,'values':{'a':%d}}",
                                 i ? ',' : '[', i, i);
    }
    snprintf(body + size, sizeof body - size, "]");
    test_expect(&daemon, "POST", "/v1/models/m/metrics", body, 200, "2000");
    test_expect(&daemon, "GET", "/v1/models/m/metrics?keys=a&to=100", NULL, 200, "\"step\":[]");
    test_expect(&daemon, "GET", "/v1/models/m/metrics?keys=a&from=1999", NULL, 200, "\"last\":[1999]");
    test_daemon_stop(&daemon);
}

/* ---- Prometheus -------------------------------------------------------------------------------------- */

/* The number behind `name` in the page. */
static double sample(const char *page, const char *name) {
    for (const char *at = page; (at = strstr(at, name)); at++) {
        if ((at == page || at[-1] == '\n') && at[strlen(name)] == ' ') {
            return strtod(at + strlen(name), NULL);
        }
    }
    fail_msg("%s is not in %s", name, page);
    return 0;
}

/* As the system lists them. */
static double open_files_of(const test_daemon *daemon) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)daemon->pid);
    DIR *folder = opendir(path);
    double count = 0;
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder));) {
        count += entry->d_name[0] != '.';
    }
    closedir(folder);
    return count;
}

static void the_daemon_counts(void **state) {
    (void)state;
    test_daemon daemon;
    test_reply reply;
    test_daemon_start(&daemon, NULL);
    test_create_small(&daemon, "m");
    for (int i = 0; i < 3; i++) {
        test_expect(&daemon, "POST", "/v1/models/m/train_step", STEP, 200, "loss");
    }
    test_expect(&daemon, "GET", "/v1/models/none", NULL, 404, "none");
    test_expect(&daemon, "GET",
                "/nowhere/"
                "at/all",
                NULL, 404, "nothing");
    test_call(&daemon, "GET", "/metrics", NULL, 200, &reply);
    static const struct {
        const char *name;
        double least, most;
    } rows[] = {
        {"gradd_steps_total", 3, 3},
        {"gradd_samples_total", 6, 6},
        {"gradd_step_duration_seconds_count", 3, 3},
        {"gradd_step_duration_seconds_bucket{le=\"+Inf\"}", 3, 3},
        {"gradd_step_duration_seconds_sum", 0, 5},
        {"gradd_queue_depth", 0, 0},
        {"gradd_jobs{state=\"running\"}", 0, 0},
        {"gradd_memory_bytes{kind=\"models\"}", 100, 1e9},
        {"gradd_connections", 1, 9},
        {"gradd_http_request_duration_seconds_count{route=\"/v1/models/{m}/"
         "train_step\",method=\"POST\",code=\"2xx\"}",
         3, 3},
        {"gradd_http_request_duration_seconds_count{route=\"/v1/models/{m}\",method=\"GET\",code=\"4xx\"}", 1,
         1},
        {"gradd_http_request_duration_seconds_count{route=\"none\",method=\"none\",code=\"4xx\"}", 1, 1},
        {"process_open_fds", 4, 1000},
        {"process_resident_memory_bytes", 1e6, 1e12},
        {"process_cpu_seconds_total", 0, 1e6},
        {"process_start_time_seconds", 1e9, 1e11},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const double value = sample(reply.body, rows[i].name);
        if (value < rows[i].least || value > rows[i].most) {
            fail_msg("%s is %g", rows[i].name, value);
        }
    }
    /* But for connections that were closed on one side alone when it counted. */
    assert_true(fabs(sample(reply.body, "process_open_fds") - open_files_of(&daemon)) <= 8);
    assert_non_null(strstr(reply.body, "gradd_build_info{version=\""));
    assert_null(strstr(reply.body, "nowhere")); /* no label is a client's word */
    test_reply_release(&reply);
    test_daemon_stop(&daemon);
}

/* promtool is in Debian's package prometheus. */
static void promtool_finds_no_fault(void **state) {
    (void)state;
    const char *tool = getenv("PROMTOOL") ? getenv("PROMTOOL") : "promtool";
    char command[512], path[512];
    snprintf(command, sizeof command, "command -v %s >/dev/null", tool);
    if (system(command)) { /* NOLINT(cert-env33-c): the tester's own tool */
        print_message("SKIPPED: promtool is not installed (Debian's package prometheus; or PROMTOOL=path)\n");
        skip();
    }
    test_reply reply;
    test_folder folder;
    test_create_small(&test_shared, "prom");
    train("prom", 1);
    test_call(&test_shared, "GET", "/metrics", NULL, 200, &reply);
    test_folder_make(&folder);
    test_folder_write(&folder, "page", reply.body, reply.size, path);
    snprintf(command, sizeof command, "%s check metrics <%s", tool, path);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) */
    test_reply_release(&reply);
    test_folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step_has_its_columns),
        cmocka_unit_test(polls_and_ranges_give_what_they_say),
        cmocka_unit_test(every_point_is_streamed_when_asked_for),
        cmocka_unit_test(clients_add_series_of_their_own),
        cmocka_unit_test(bad_parameters_are_refused),
        cmocka_unit_test(csv_has_every_step_and_value),
        cmocka_unit_test(nothing_new_is_304),
        cmocka_unit_test(a_stream_survives_its_client),
        cmocka_unit_test(limits_are_flags),
        cmocka_unit_test(the_daemon_counts),
        cmocka_unit_test(promtool_finds_no_fault),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
