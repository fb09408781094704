/* data_ctl_test.c -- gradctl data ...: uploading, listing, deleting, and fetching from a mirror. */
#include "tests/support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/gradctl.h"

enum { COUNT = 6, AREA = 4 };

/* MNIST's four files, with 6 pictures of 2 x 2. */
static void write_mnist(const test_folder *folder) {
    unsigned char pictures[16 + COUNT * AREA] = {0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, 2, 0, 0, 0, 2};
    const unsigned char labels[8 + COUNT] = {0, 0, 8, 1, 0, 0, 0, COUNT, 0, 1, 2, 0, 1, 2};
    char path[512];
    for (int i = 0; i < COUNT * AREA; i++) {
        pictures[16 + i] = (unsigned char)(10 * i);
    }
    test_folder_write(folder, "train-images-idx3-ubyte", pictures, sizeof pictures, path);
    test_folder_write(folder, "train-labels-idx1-ubyte", labels, sizeof labels, path);
    test_folder_write(folder, "t10k-images-idx3-ubyte", pictures, sizeof pictures, path);
    test_folder_write(folder, "t10k-labels-idx1-ubyte", labels, sizeof labels, path);
}

static const char uploaded[] = "%s/train/input: uint8 [6, 2, 2]\n%s/train/target: uint8 [6]\n"
                               "%s/test/input: uint8 [6, 2, 2]\n%s/test/target: uint8 [6]\n";

static const char *uploaded_to(const char *name, char text[512]) {
    snprintf(text, 512, uploaded, name, name, name, name); /* NOLINT: the format is the constant above */
    return text;
}

static void a_folder_of_four_files_is_uploaded_listed_and_deleted(void **state) {
    (void)state;
    test_folder folder;
    char text[512];
    test_folder_make(&folder);
    write_mnist(&folder);
    assert_says(CTL(test_shared.server, "data", "put", folder.path, "tiny"), 0, uploaded_to("tiny", text),
                "");
    assert_says(CTL(test_shared.server, "data", "ls", "-o", "name"), 0, "digits\ntiny\n", NULL);
    test_output output = CTL(test_shared.server, "data", "ls", "-o", "csv");
    assert_non_null(strstr(output.out, "name,splits,classes,bytes,note,created_at\n"));
    assert_non_null(strstr(output.out, "\ntiny,\"test 6, train 6\","));
    test_output_release(&output);
    output = CTL(test_shared.server, "data", "show", "tiny", "-o", "csv");
    assert_non_null(strstr(output.out, "\ntrain,input,uint8,\"[6, 2, 2]\",24,"));
    test_output_release(&output);
    assert_says(CTL(test_shared.server, "data", "rm", "tiny"), 0, "", "deleted tiny");
    assert_says(CTL(test_shared.server, "data", "rm", "tiny"), 3, "", "tiny");
    assert_says(CTL(test_shared.server, "data", "show", "tiny"), 3, "", "tiny");
    assert_says(CTL(NULL, "data", "put", folder.path, "tiny"), 5, "", "no gradd daemon");
    assert_says(CTL(NULL, "data", "ls"), 5, "", NULL);
    test_folder_remove(&folder);
}

static void a_folder_without_one_of_the_files_sends_nothing(void **state) {
    (void)state;
    test_folder folder;
    char path[600];
    test_folder_make(&folder);
    write_mnist(&folder);
    snprintf(path, sizeof path, "%s/t10k-labels-idx1-ubyte", folder.path);
    assert_int_equal(unlink(path), 0);
    assert_says(CTL(test_shared.server, "data", "put", folder.path, "tiny"), 1, "",
                "holds neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte.gz");
    assert_says(CTL(test_shared.server, "data", "show", "tiny"), 3, "", NULL);
    assert_says(CTL(test_shared.server, "data", "put", folder.path, "tiny", "--split", "train"), 2, "",
                "a folder stands for its four files");
    test_folder_remove(&folder);
}

static void files_are_told_by_their_names_or_by_options(void **state) {
    (void)state;
    test_folder folder;
    char input[512], target[512], odd[512], name[600];
    test_folder_make(&folder);
    test_folder_write(&folder, "train_input.csv", "0.5,1\n2,3\n", 10, input);
    test_folder_write(&folder, "train-labels.csv", "1\n0\n", 4, target);
    test_folder_write(&folder, "odd", "4,5\n", 4, odd);
    assert_says(CTL(test_shared.server, "data", "put", input, target, "mine"), 0,
                "mine/train/input: float32 [2, 2]\nmine/train/target: int64 [2]\n", "");
    assert_says(CTL(test_shared.server, "data", "put", odd, "mine"), 2, "", "--split and --part");
    assert_says(CTL(test_shared.server, "data", "put", odd, input, "mine", "--split", "a"), 2, "", NULL);
    assert_says(CTL(test_shared.server, "data", "put", odd, "mine", "--split", "extra", "--part", "input"), 0,
                "mine/extra/input: int64 [1, 2]\n", "");
    assert_says(CTL(test_shared.server, "data", "put", "there/is/none", "mine"), 1, "", "there/is/none");
    assert_says(CTL(test_shared.server, "data", "put", input, target), 0, NULL,
                ""); /* called after the folder */
    snprintf(name, sizeof name, "%s", strrchr(folder.path, '/') + 1);
    assert_says(CTL(test_shared.server, "data", "rm", name), 0, "", NULL);
    test_folder_write(&folder, "train_input.csv", "1\n2,3\n", 6, input);
    assert_says(CTL(test_shared.server, "data", "put", input, "mine"), 1, "", "gradctl: error: ");
    assert_says(CTL(test_shared.server, "data", "rm", "mine"), 0, "", NULL);
    test_folder_remove(&folder);
}

static void a_bar_of_bytes_is_drawn_where_it_is_asked_for(void **state) {
    (void)state;
    test_folder folder;
    char path[512];
    test_folder_make(&folder);
    test_folder_write(&folder, "train_input.csv", "0.5,1\n2,3\n", 10, path);
    assert_says(CTL(test_shared.server, "data", "put", path, "mine", "--progress", "always"), 0, NULL,
                "\rtrain/input: 100%|██████████| 10/10 [00:00<00:00, ");
    assert_says(CTL(test_shared.server, "data", "rm", "mine"), 0, "", NULL);
    test_folder_remove(&folder);
}

/* ---- a mirror
 * ------------------------------------------------------------------------------------------------ */

/* Serves a folder's files, one request a connection. */
typedef struct mirror {
    test_folder folder, cache;
    int listener;
    pthread_t thread;
    atomic_int served;
    char url[64], sums[512], environment[600];
} mirror;

static void answer(mirror *m, int connection) {
    char request[4096], path[600];
    ssize_t got = recv(connection, request, sizeof request - 1, 0);
    size_t size = 0;
    request[got > 0 ? got : 0] = '\0';
    const char *target = strncmp(request, "GET /", 5) == 0 ? request + 4 : "/"; /* GET /some/name HTTP/1.1 */
    char name[256];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(target, " \r\n"), target);
    snprintf(path, sizeof path, "%s%s", m->folder.path, strrchr(name, '/'));
    struct stat status;
    const bool there = stat(path, &status) == 0 && S_ISREG(status.st_mode);
    char *body = there ? test_read_file(path, &size) : NULL;
    dprintf(connection, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
            there ? "200 OK" : "404 Not Found", size);
    m->served += there; /* before the client has it all, and looks */
    if (there && write(connection, body, size) != (ssize_t)size) {
        m->served--;
    }
    free(body);
}

static void *serve(void *argument) {
    mirror *m = argument;
    int connection;
    while ((connection = accept(m->listener, NULL, NULL)) >= 0) {
        answer(m, connection);
        close(connection);
    }
    return NULL;
}

/* With the digests of what is there, by sha256sum itself. */
static void open_mirror(mirror *m) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char command[700];
    test_output output;
    *m = (mirror){.served = 0};
    test_folder_make(&m->folder);
    test_folder_make(&m->cache);
    write_mnist(&m->folder);
    snprintf(command, sizeof command, "cd %s && gzip -n ./* && sha256sum -- *", m->folder.path);
    test_run((const char *const[]){"/bin/sh", "-c", command, NULL}, NULL, &output);
    assert_int_equal(output.status, 0);
    test_folder_write(&m->cache, "sums", output.out, strlen(output.out), m->sums);
    test_output_release(&output);
    snprintf(m->environment, sizeof m->environment, "XDG_CACHE_HOME=%s/a/b", m->cache.path);
    m->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(m->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(m->listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(listen(m->listener, 8), 0);
    snprintf(m->url, sizeof m->url, "http://127.0.0.1:%d/some/", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&m->thread, NULL, serve, m), 0);
}

static void close_mirror(mirror *m) {
    shutdown(m->listener, SHUT_RDWR);
    pthread_join(m->thread, NULL);
    close(m->listener);
    test_folder_remove(&m->folder);
    test_folder_remove(&m->cache);
}

#define FETCH(m, ...) \
    test_ctl(test_shared.server, (m)->environment, \
             (const char *const[]){"data", "fetch", __VA_ARGS__, "--from", (m)->url, NULL})

static void a_dataset_is_fetched_checked_kept_and_uploaded(void **state) {
    (void)state;
    mirror m;
    char text[512];
    open_mirror(&m);
    assert_says(FETCH(&m, "mnist", "--sha256sums", m.sums), 0, uploaded_to("mnist", text),
                "fetching train-images-idx3-ubyte.gz from http://127.0.0.1:");
    assert_int_equal(m.served, 4);
    assert_says(FETCH(&m, "mnist", "again", "--sha256sums", m.sums), 0, uploaded_to("again", text), "");
    assert_int_equal(m.served, 4); /* they were kept */
    assert_says(CTL(test_shared.server, "data", "rm", "mnist"), 0, "", NULL);
    assert_says(CTL(test_shared.server, "data", "rm", "again"), 0, "", NULL);
    close_mirror(&m);
}

static void what_is_not_the_original_is_neither_kept_nor_uploaded(void **state) {
    (void)state;
    mirror m;
    char part[900];
    open_mirror(&m);
    for (int i = 0; i < 2; i++) { /* by the digests of the real ones */
        assert_says(FETCH(&m, "fashion-mnist"), 1, "", "is not what it should be: its SHA-256 is");
        assert_int_equal(m.served, i + 1);
    }
    snprintf(part, sizeof part, "%s/a/b/gradd/fashion-mnist/train-images-idx3-ubyte.gz.part", m.cache.path);
    assert_int_equal(access(part, F_OK), -1);
    part[strlen(part) - 5] = '\0';
    assert_int_equal(access(part, F_OK), -1);
    assert_says(CTL(test_shared.server, "data", "show", "fashion-mnist"), 3, "", NULL);
    close_mirror(&m);
}

static void a_kept_file_that_was_damaged_is_fetched_again(void **state) {
    (void)state;
    mirror m;
    char path[900];
    open_mirror(&m);
    assert_says(FETCH(&m, "mnist", "--sha256sums", m.sums), 0, NULL, NULL);
    snprintf(path, sizeof path, "%s/a/b/gradd/mnist/t10k-labels-idx1-ubyte.gz", m.cache.path);
    assert_int_equal(truncate(path, 7), 0);
    assert_says(FETCH(&m, "mnist", "--sha256sums", m.sums), 0, NULL, "fetching t10k-labels-idx1-ubyte.gz");
    assert_int_equal(m.served, 5);
    assert_says(CTL(test_shared.server, "data", "rm", "mnist"), 0, "", NULL);
    close_mirror(&m);
}

static void a_mirror_that_has_nothing_or_is_not_there_is_named(void **state) {
    (void)state;
    mirror m;
    char path[900];
    open_mirror(&m);
    snprintf(path, sizeof path, "%s/train-labels-idx1-ubyte.gz", m.folder.path);
    assert_int_equal(unlink(path), 0);
    assert_says(FETCH(&m, "mnist", "--sha256sums", m.sums), 5, "", "train-labels-idx1-ubyte.gz: ");
    snprintf(m.url, sizeof m.url, "http://127.0.0.1:1");
    assert_says(FETCH(&m, "mnist", "--sha256sums", m.sums), 5, "", "http://127.0.0.1:1/train-labels");
    snprintf(m.url, sizeof m.url, "file:///etc");
    assert_says(FETCH(&m, "mnist", "--sha256sums", m.sums), 5, "", NULL);
    assert_says(CTL(test_shared.server, "data", "show", "mnist"), 3, "", NULL);
    close_mirror(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_of_four_files_is_uploaded_listed_and_deleted),
        cmocka_unit_test(a_folder_without_one_of_the_files_sends_nothing),
        cmocka_unit_test(files_are_told_by_their_names_or_by_options),
        cmocka_unit_test(a_bar_of_bytes_is_drawn_where_it_is_asked_for),
        cmocka_unit_test(a_dataset_is_fetched_checked_kept_and_uploaded),
        cmocka_unit_test(what_is_not_the_original_is_neither_kept_nor_uploaded),
        cmocka_unit_test(a_kept_file_that_was_damaged_is_fetched_again),
        cmocka_unit_test(a_mirror_that_has_nothing_or_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
