/* stream_test.c -- what libgradd sends and receives by pieces: files, and a job's events. */
#include "tests/fake.h"

#include <unistd.h>

#include "tests/daemon.h"

/* ---- files ----------------------------------------------------------------------------------------- */

typedef struct travelled {
    int64_t done, total, calls;
} travelled;

static void note(void *argument, int64_t done, int64_t total) {
    travelled *t = argument;
    assert_true(done >= t->done || done == 0);
    *t = (travelled){.done = done, .total = total, .calls = t->calls + 1};
}

/* A file of one's own, deleted already, with `size` bytes of "abc...". */
static FILE *make_file(size_t size) {
    FILE *file = tmpfile();
    assert_non_null(file);
    for (size_t i = 0; i < size; i++) {
        fputc('a' + (int)(i % 26), file);
    }
    assert_int_equal(fflush(file), 0);
    return file;
}

static void a_file_is_sent_whole_and_again_from_its_beginning(void **state) {
    (void)state;
    test_fake f;
    travelled t = {0};
    FILE *file = make_file(3000);
    char *json = NULL;
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_OK_JSON);
    const gradd_file upload = {.fd = fileno(file), .progress = note, .argument = &t};
    assert_int_equal(gradd_dataset_put(f.client, "d", "train", "input", &upload, &json, &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 2);
    assert_string_equal(json, "{}");
    gradd_free(json);
    assert_memory_equal(f.requests[0], f.requests[1], sizeof f.requests[0]);
    assert_non_null(strstr(f.requests[1], "PUT /v1/datasets/d/train/input HTTP/1.1\r\n"));
    assert_non_null(strstr(f.requests[1], "\r\nContent-Length: 3000\r\n"));
    const char *body = strstr(f.requests[1], "\r\n\r\n") + 4;
    assert_int_equal(strlen(body), 3000);
    for (size_t i = 0; i < 3000; i++) {
        assert_int_equal(body[i], 'a' + (int)(i % 26));
    }
    assert_int_equal(t.done, 3000);
    assert_int_equal(t.total, 3000);
    fclose(file);
}

static void a_large_file_is_sent_to_its_last_byte(void **state) {
    (void)state;
    test_fake f;
    travelled t = {0};
    enum { SIZE = 33 << 20 };
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), SIZE + 7), 0);
    test_fake_start(&f, (const char *const[]){FAKE_EARLY "HTTP/1.1 100 Continue\r\n\r\n", NULL},
                    (gradd_config){.timeout_ms = 2000});
    const gradd_file upload = {.fd = fileno(file), .progress = note, .argument = &t};
    assert_int_equal(gradd_dataset_put(f.client, "d", "train", NULL, &upload, NULL, &f.error),
                     GRADD_E_TIMEOUT); /* there is no reply, which is not the point here */
    test_fake_stop(&f);
    assert_int_equal(f.more, SIZE + 7);
    assert_int_equal(t.done, SIZE + 7);
    assert_true(t.calls > 100);
    fclose(file);
}

static void what_is_no_file_is_not_sent(void **state) {
    (void)state;
    test_fake f;
    TEST_PLAY(&f, FAKE_OK_JSON);
    gradd_file upload = {.path = "there/is/none"};
    assert_int_equal(gradd_dataset_put(f.client, "d", "a", NULL, &upload, NULL, &f.error), GRADD_E_ARGUMENT);
    assert_non_null(strstr(f.error.message, "there/is/none"));
    upload.path = "/";
    assert_int_equal(gradd_dataset_put(f.client, "d", "a", NULL, &upload, NULL, &f.error), GRADD_E_ARGUMENT);
    assert_int_equal(test_fake_stop(&f), 0);
}

static void a_download_is_there_when_all_has_come(void **state) {
    (void)state;
    test_fake f;
    travelled t = {0};
    test_folder folder;
    char path[512], part[600];
    test_folder_make(&folder);
    test_folder_write(&folder, "file", "old", 3, path);
    snprintf(part, sizeof part, "%s.part", path);
    TEST_PLAY(&f, "HTTP/1.1 200 OK\r\n" FAKE_THEN_CLOSE "Content-Length: 8\r\n\r\n0123",
              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n",
              "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}");
    const gradd_file file = {.path = path, .progress = note, .argument = &t};
    assert_int_equal(gradd_checkpoint_download(f.client, "m", "best", &file, &f.error), GRADD_OK);
    char *text = test_read_file(path, NULL);
    assert_string_equal(text, "abcd");
    free(text);
    assert_int_equal(t.done, 4);
    assert_int_equal(t.total, -1);
    assert_int_equal(gradd_checkpoint_download(f.client, "m", "no", &file, &f.error), GRADD_E_REFUSED);
    text = test_read_file(path, NULL);
    assert_string_equal(text, "abcd"); /* as it was */
    free(text);
    assert_int_equal(access(part, F_OK), -1);
    assert_int_equal(test_fake_stop(&f), 3);
    test_folder_remove(&folder);
}

/* ---- events ---------------------------------------------------------------------------------------- */

typedef struct heard {
    char text[1024];
    int count, stop_after; /* 0: never */
} heard;

static bool hear(void *argument, const gradd_event *event) {
    heard *h = argument;
    size_t size = strlen(h->text);
    snprintf(h->text + size, sizeof h->text - size, "[%s|%s|%s]", event->id, event->name, event->data);
    return ++h->count != h->stop_after;
}

#define EVENTS "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

/* Every kind of line, and every end of one. */
static const char stream[] =
    ": hello\n\nid: 1\nevent: metrics\ndata: {\"a\":\ndata: 1}\n\n"
    "id:2\r\nevent:state\r\ndata: x\r\n\r\n: beat\r\rid: 3\revent: log\rdata\r\r"
    "data:  y:z\nretry: 5\nother\nevents: no\n\nevent: nothing\n\nevent: end\ndata: {}\nid: 5\n\n: more\n\n";
static const char heard_of_it[] = "[1|metrics|{\"a\":\n1}][2|state|x][3|log|][3|message| y:z][5|end|{}]";

/* `text` as a reply in chunks of `size` bytes: each comes to the parser by itself. Allocated. */
static char *chunked(const char *text, size_t size) {
    static const char head[] = EVENTS "Transfer-Encoding: chunked\r\n\r\n";
    char *out = NULL;
    size_t capacity = 0;
    FILE *file = open_memstream(&out, &capacity);
    assert_non_null(file);
    fputs(head, file);
    for (size_t left = strlen(text); left;) {
        size_t part = left < size ? left : size;
        fprintf(file, "%zx\r\n%.*s\r\n", part, (int)part, text);
        text += part;
        left -= part;
    }
    fputs("0\r\n\r\n", file);
    assert_int_equal(fclose(file), 0);
    return out;
}

static void events_are_read_wherever_the_stream_is_cut(void **state) {
    (void)state;
    for (size_t size = 1; size <= sizeof stream; size++) {
        test_fake f;
        heard h = {0};
        char *reply = chunked(stream, size);
        TEST_PLAY(&f, reply);
        assert_int_equal(gradd_job_watch(f.client, 17, NULL, hear, &h, &f.error), GRADD_OK);
        assert_int_equal(test_fake_stop(&f), 1);
        assert_string_equal(h.text, heard_of_it);
        free(reply);
        assert_non_null(strstr(f.requests[0], "GET /v1/jobs/17/events HTTP/1.1\r\n"));
        assert_non_null(strstr(f.requests[0], "\r\nAccept: text/event-stream\r\n"));
        assert_null(strstr(f.requests[0], "Last-Event-ID"));
    }
}

static void a_broken_stream_goes_on_after_the_last_event(void **state) {
    (void)state;
    test_fake f;
    heard h = {0};
    static const char *const replies[] = {EVENTS FAKE_THEN_CLOSE "\r\nid: 7\ndata: a\n\nid: 8\ndata: cut",
                                          FAKE_HANG_UP,
                                          FAKE_BUSY,
                                          EVENTS FAKE_THEN_CLOSE "\r\nid: 8\ndata: b\n\nid: 9\nev",
                                          EVENTS FAKE_THEN_CLOSE "\r\nid: 9\nevent: end\ndata: c\n\n",
                                          NULL};
    test_fake_start(&f, replies, (gradd_config){.timeout_ms = 20000, .retries = 3});
    assert_int_equal(gradd_job_watch(f.client, 1, "6", hear, &h, &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 5);
    assert_string_equal(h.text, "[7|message|a][8|message|b][9|end|c]");
    static const char *const ids[] = {"6", "7", "7", "7", "8"};
    for (size_t i = 0; i < 5; i++) {
        char line[64];
        snprintf(line, sizeof line, "\r\nLast-Event-ID: %s\r\n", ids[i]);
        assert_non_null(strstr(f.requests[i], line));
    }
}

static void a_stream_that_stays_broken_is_given_up(void **state) {
    (void)state;
    test_fake f;
    heard h = {0};
    TEST_PLAY(&f, FAKE_HANG_UP, FAKE_HANG_UP, FAKE_HANG_UP, FAKE_HANG_UP);
    assert_int_equal(gradd_job_watch(f.client, 1, NULL, hear, &h, &f.error), GRADD_E_NETWORK);
    assert_int_equal(test_fake_stop(&f), 3);
}

static void whoever_listens_can_stop(void **state) {
    (void)state;
    test_fake f;
    heard h = {.stop_after = 1};
    TEST_PLAY(&f, EVENTS "Content-Length: 100000\r\n\r\ndata: a\n\ndata: b\n\n");
    assert_int_equal(gradd_job_watch(f.client, 1, NULL, hear, &h, &f.error), GRADD_OK);
    assert_string_equal(h.text, "[|message|a]");
    test_fake_stop(&f);
}

static void a_job_that_is_not_there_is_told(void **state) {
    (void)state;
    test_fake f;
    heard h = {0};
    TEST_PLAY(&f, "HTTP/1.1 404 Not Found\r\nContent-Length: 21\r\n\r\n{\"code\": \"not_found\"}");
    assert_int_equal(gradd_job_watch(f.client, 1, NULL, hear, &h, &f.error), GRADD_E_REFUSED);
    assert_string_equal(f.error.problem, "not_found");
    assert_int_equal(test_fake_stop(&f), 1);
}

static void a_job_is_read_and_waited_for(void **state) {
    (void)state;
    test_fake f;
    gradd_job_info info;
    TEST_PLAY(&f, "HTTP/1.1 200 OK\r\n" FAKE_THEN_CLOSE
                  "\r\n{\"id\": 3, \"state\": \"failed\", \"loss\": \"NaN\", "
                  "\"eval\": null, \"error\": {\"code\": \"nonfinite\", \"detail\": \"no\"}}");
    assert_int_equal(gradd_job_show(f.client, 3, 30, &info, &f.error), GRADD_OK);
    assert_int_equal(test_fake_stop(&f), 1);
    assert_non_null(strstr(f.requests[0], "\r\nPrefer: wait=30\r\n"));
    assert_int_equal(info.id, 3);
    assert_true(gradd_job_ended(&info));
    assert_string_equal(info.problem, "nonfinite");
    assert_string_equal(info.error, "no");
    gradd_job_info_free(&info);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_sent_whole_and_again_from_its_beginning),
        cmocka_unit_test(a_large_file_is_sent_to_its_last_byte),
        cmocka_unit_test(what_is_no_file_is_not_sent),
        cmocka_unit_test(a_download_is_there_when_all_has_come),
        cmocka_unit_test(events_are_read_wherever_the_stream_is_cut),
        cmocka_unit_test(a_broken_stream_goes_on_after_the_last_event),
        cmocka_unit_test(a_stream_that_stays_broken_is_given_up),
        cmocka_unit_test(whoever_listens_can_stop),
        cmocka_unit_test(a_job_that_is_not_there_is_told),
        cmocka_unit_test(a_job_is_read_and_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
