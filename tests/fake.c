/* fake.c -- a server that plays one script of replies. */
#include "fake.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Head and body, or the head alone. @return false when the client hung up */
static bool read_request(int connection, char *text, bool head_alone) {
    size_t size = 0, whole = 0;
    while (!whole || size < whole) {
        ssize_t got = recv(connection, text + size, FAKE_TEXT - 1 - size, 0);
        if (got <= 0) {
            return false;
        }
        size += (size_t)got;
        text[size] = '\0';
        const char *end = strstr(text, "\r\n\r\n");
        if (end && head_alone) {
            break;
        }
        if (end && !whole) {
            const char *length = strstr(text, "Content-Length: ");
            whole = (size_t)(end + 4 - text) + (length ? strtoul(length + 16, NULL, 10) : 0);
        }
    }
    return true;
}

/* Does the client go on with this connection? If it comes with a new one, the old one is left. */
static bool goes_on(const test_fake *f, int connection) {
    struct pollfd fds[] = {{.fd = connection, .events = POLLIN}, {.fd = f->listener, .events = POLLIN}};
    return poll(fds, 2, -1) > 0 && fds[0].revents;
}

static void read_more(test_fake *f, int connection) {
    static char bytes[1 << 16];
    ssize_t got;
    while ((got = recv(connection, bytes, sizeof bytes, 0)) > 0) {
        f->more += (size_t)got;
    }
}

void *test_fake_serve(void *argument) {
    test_fake *f = argument;
    while (f->replies[f->count]) {
        int connection = accept(f->listener, NULL, NULL);
        if (connection < 0) {
            break; /* shut down by test_fake_stop() */
        }
        while (f->replies[f->count] && goes_on(f, connection) &&
               read_request(connection, f->requests[f->count], *f->replies[f->count] == *FAKE_EARLY)) {
            const char *reply = f->replies[f->count++];
            bool early = *reply == *FAKE_EARLY;
            reply += early;
            if (!*reply || send(connection, reply, strlen(reply), MSG_NOSIGNAL) < 0 ||
                strstr(reply, FAKE_THEN_CLOSE)) {
                break;
            }
            if (early) {
                read_more(f, connection);
            }
        }
        close(connection);
    }
    return NULL;
}

int test_fake_bind(int *ret_port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    *ret_port = ntohs(address.sin_port);
    return listener;
}

void test_fake_client(test_fake *f, gradd_config config) {
    char server[64];
    snprintf(server, sizeof server, "http://127.0.0.1:%d/", f->port);
    config.server = server;
    assert_int_equal(gradd_client_new(&config, &f->client, &f->error), GRADD_OK);
}

void test_fake_start(test_fake *f, const char *const *replies, gradd_config config) {
    *f = (test_fake){.replies = replies};
    f->listener = test_fake_bind(&f->port);
    assert_int_equal(listen(f->listener, 8), 0);
    test_fake_client(f, config);
    assert_int_equal(pthread_create(&f->thread, NULL, test_fake_serve, f), 0);
}

int test_fake_stop(test_fake *f) {
    gradd_client_free(f->client);
    shutdown(f->listener, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->listener);
    return f->count;
}
