/* drain_test.c -- SIGTERM while requests run: they are finished, new ones are refused, the end is clean. */
#include "tests/support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/http.h"

enum { CLIENTS = 8 };

typedef struct client {
    pthread_t thread;
    int fd;
    int stepped, refused, cut; /* replies */
    atomic_int *begun;
} client;

static const char body[] = "{\"input\": [[1, 2, 3, 4]], \"target\": [0]}";

/* Train until the daemon says no. No assertions: cmocka's fail belongs to the main thread. */
static void *train(void *argument) {
    client *c = argument;
    char head[160];
    snprintf(head, sizeof head,
             "POST /v1/models/m/train_step HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
             sizeof body - 1, body);
    for (;;) {
        test_reply reply;
        test_send_text(c->fd, head);
        if (!test_receive(c->fd, false, &reply)) {
            c->cut++;
            return NULL;
        }
        int status = reply.status;
        test_reply_release(&reply);
        c->stepped += status == 200;
        c->refused += status == 503;
        atomic_fetch_add(c->begun, 1);
        if (status != 200) {
            return NULL;
        }
    }
}

static void requests_that_run_are_finished_and_new_ones_refused(void **state) {
    (void)state;
    test_daemon daemon;
    client clients[CLIENTS];
    atomic_int begun = 0;
    test_daemon_start(&daemon, NULL);
    test_create_small(&daemon, "m");
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (client){.fd = test_connect(daemon.port), .begun = &begun};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, train, &clients[i]), 0);
    }
    while (atomic_load(&begun) < 4 * CLIENTS) {
        usleep(1000);
    }
    test_daemon_stop(&daemon); /* exit status 0 */
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        /* told no, or found closed what was idle between two requests */
        assert_int_equal(clients[i].refused + clients[i].cut, 1);
        assert_true(clients[i].stepped > 0);
        close(clients[i].fd);
    }
}

static void new_requests_are_503_while_draining_and_those_begun_are_answered(void **state) {
    (void)state;
    test_daemon daemon;
    test_reply reply;
    char text[64];
    test_daemon_start(&daemon, NULL);
    int slow = test_connect(daemon.port), probe = test_connect(daemon.port), late = test_connect(daemon.port);
    test_request(late, "GET", "/v1/models", "", "", 0, &reply);
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    test_request(probe, "GET", "/v1/health/ready", "", "", 0, &reply);
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    /* an upload that is on its way holds the daemon up */
    test_send_text(slow, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n{");
    usleep(300000); /* until the daemon has seen it */
    assert_int_equal(kill(daemon.pid, SIGTERM), 0);
    usleep(300000);
    test_request(probe, "GET", "/v1/health/ready", "", "", 0, &reply);
    assert_int_equal(reply.status, 503);
    assert_string_equal(test_header(&reply, "Connection", text, sizeof text), "close");
    assert_true(*test_header(&reply, "Retry-After", text, sizeof text) != '\0');
    test_reply_release(&reply);
    test_request(late, "GET", "/v1/models", "", "", 0, &reply);
    assert_int_equal(reply.status, 503);
    assert_non_null(strstr(reply.body, "draining"));
    test_reply_release(&reply);
    close(late);
    test_send_text(slow, "  }");
    assert_true(test_receive(slow, false, &reply)); /* and is still answered */
    assert_int_equal(reply.status, 400);
    test_reply_release(&reply);
    close(slow);
    close(probe);
    int status;
    assert_int_equal(waitpid(daemon.pid, &status, 0), daemon.pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    test_folder_remove(&daemon.folder);
}

static void the_drain_ends_though_a_client_never_finishes(void **state) {
    (void)state;
    test_daemon daemon;
    test_daemon_start(&daemon, (const char *const[]){"--drain-timeout", "0.2", NULL});
    int fd = test_connect(daemon.port);
    test_send_text(fd, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    usleep(100000);
    char *log = test_daemon_end(&daemon);
    assert_non_null(strstr(log, "drain timeout"));
    free(log);
    assert_true(test_is_closed(fd));
    close(fd);
}

static void a_second_signal_forces_the_end(void **state) {
    (void)state;
    test_daemon daemon;
    int status;
    test_daemon_start(&daemon, (const char *const[]){"--drain-timeout", "60", NULL});
    int fd = test_connect(daemon.port);
    test_send_text(fd, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    usleep(300000);
    assert_int_equal(kill(daemon.pid, SIGTERM), 0);
    usleep(300000);
    assert_int_equal(kill(daemon.pid, SIGINT), 0);
    assert_int_equal(waitpid(daemon.pid, &status, 0), daemon.pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    close(fd);
    test_folder_remove(&daemon.folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_that_run_are_finished_and_new_ones_refused),
        cmocka_unit_test(new_requests_are_503_while_draining_and_those_begun_are_answered),
        cmocka_unit_test(the_drain_ends_though_a_client_never_finishes),
        cmocka_unit_test(a_second_signal_forces_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
