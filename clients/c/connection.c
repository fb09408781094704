/* connection.c -- connections to the daemon: libcurl makes them, by TLS where the URL says so; waiting. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "client.h"

/* Looking out for a reply; all in nanoseconds. */
enum {
    EARLY = 140000,         /* it begins so long before the reply is due: the timer may be late by 50 us */
    LOOKOUT = 250000,       /* it takes so long at the most */
    LONGEST_WAIT = 20000000 /* beyond it a sleeper's waking is not worth it */
};
enum {
    TAKEN = 30000, /* nanoseconds away from the processor, which somebody else needs then */
    REST = 100,    /* replies to sleep for then; after lookouts in vain 1, 3, 7 and so on up to it */
};

struct gradd_connection {
    CURL *curl;
    curl_socket_t fd; /* curl's */
    bool tls;         /* bytes go through curl */
    bool asked;       /* something was sent since the last wait for a reply */
    int rest, vain;   /* replies not to look out for: still, and after the last lookout in vain */
    int64_t wait;     /* for the last reply, in nanoseconds */
};

static int poll_interrupted(void *client, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)a, (void)b, (void)c, (void)d;
    return gradd_interrupted(client);
}

static void configure(CURL *curl, gradd_client *client, char *detail) {
    const gradd_config *config = &client->config;
    curl_easy_setopt(curl, CURLOPT_URL, client->server);
    curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, config->connect_timeout_ms);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, config->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, poll_interrupted);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, client);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
}

/* What curl's result means here. Nothing was sent. */
static int explain(const gradd_client *client, CURLcode result, const char *detail, gradd_error *error) {
    const char *why = *detail ? detail : curl_easy_strerror(result);
    switch (result) {
    case CURLE_ABORTED_BY_CALLBACK:
        return gradd_fail(error, GRADD_E_INTERRUPTED, "interrupted");
    case CURLE_OUT_OF_MEMORY:
        return gradd_fail_memory(error);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return gradd_fail(error, GRADD_E_ARGUMENT, "bad server URL %s: %s", client->server, why);
    case CURLE_OPERATION_TIMEDOUT:
        return gradd_fail(error, GRADD_E_UNREACHABLE, "no answer from %s: %s", client->server, why);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return gradd_fail(error, GRADD_E_UNREACHABLE,
                          "no gradd daemon at %s (%s): start one with `gradd`, or set GRADD_SERVER",
                          client->server, why);
    default: /* of TLS, mostly */
        return gradd_fail(error, GRADD_E_NETWORK, "the connection to %s broke: %s", client->server, why);
    }
}

int gradd_connect(gradd_client *client, gradd_connection **ret_connection, gradd_error *error) {
    char detail[CURL_ERROR_SIZE] = "";
    gradd_connection *connection = calloc(1, sizeof *connection);
    if (!connection || !(connection->curl = curl_easy_init())) {
        gradd_disconnect(connection);
        return gradd_fail_memory(error);
    }
    configure(connection->curl, client, detail);
    CURLcode result = curl_easy_perform(connection->curl);
    if (!result) {
        result = curl_easy_getinfo(connection->curl, CURLINFO_ACTIVESOCKET, &connection->fd);
    }
    curl_easy_setopt(connection->curl, CURLOPT_ERRORBUFFER, NULL);
    if (result) {
        gradd_disconnect(connection);
        return explain(client, result, detail, error);
    }
    connection->tls = client->tls;
    *ret_connection = connection;
    return GRADD_OK;
}

void gradd_disconnect(gradd_connection *connection) {
    if (connection) {
        curl_easy_cleanup(connection->curl);
        free(connection);
    }
}

bool gradd_connection_idle(const gradd_connection *connection) {
    char byte;
    return recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* The bytes that went through curl, GRADD_LATER or GRADD_BROKEN. */
static ssize_t through_curl(CURLcode result, size_t bytes) {
    return !result ? (ssize_t)bytes : result == CURLE_AGAIN ? GRADD_LATER : GRADD_BROKEN;
}

static ssize_t through_socket(ssize_t bytes) {
    return bytes >= 0                                                  ? bytes
           : errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? GRADD_LATER
                                                                       : GRADD_BROKEN;
}

ssize_t gradd_connection_send(gradd_connection *connection, const struct iovec *pieces, size_t count) {
    connection->asked = true;
    if (connection->tls) {
        size_t sent = 0;
        CURLcode result = curl_easy_send(connection->curl, pieces->iov_base, pieces->iov_len, &sent);
        return through_curl(result, sent);
    }
    const struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = count};
    return through_socket(sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

ssize_t gradd_connection_receive(gradd_connection *connection, void *bytes, size_t size) {
    if (connection->tls) {
        size_t received = 0;
        CURLcode result = curl_easy_recv(connection->curl, bytes, size, &received);
        return through_curl(result, received);
    }
    return through_socket(recv(connection->fd, bytes, size, MSG_DONTWAIT));
}

/* ---- waiting -------------------------------------------------------------------------------------- */

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* As poll() without a pause, until there is something or it was in vain. */
static int look_out(gradd_connection *connection, struct pollfd *wanted) {
    int64_t before, now = now_ns();
    const int64_t end = now + LOOKOUT;
    do {
        const int found = poll(wanted, 1, 0);
        if (found) {
            connection->vain = 0;
            return found;
        }
        before = now;
        sched_yield();
        now = now_ns();
    } while (now < end && now - before < TAKEN);
    const int rest = now < end ? REST : 2 * connection->vain + 1;
    connection->rest = connection->vain = rest < REST ? rest : REST;
    return 0;
}

/* Waking the processor of a client that sleeps takes 40 us, and finds it cold. So shortly before the reply is
 * due, as long after the question as the one before it was, the client is awake. */
static int await_reply(gradd_connection *connection, struct pollfd *wanted, int timeout_ms) {
    const int64_t begin = now_ns(), due = connection->wait;
    int found = 0;
    if (connection->rest > 0) {
        connection->rest--;
    } else if (due && due < LONGEST_WAIT && due < (int64_t)timeout_ms * 1000000) {
        const struct timespec sleep = {.tv_nsec = due - EARLY};
        found = due > EARLY ? ppoll(wanted, 1, &sleep, NULL) : 0;
        found = found ? found : look_out(connection, wanted);
    }
    found = found ? found : poll(wanted, 1, timeout_ms);
    connection->wait = now_ns() - begin;
    return found;
}

int gradd_connection_await(gradd_connection *connection, bool to_send, int timeout_ms) {
    struct pollfd wanted = {.fd = connection->fd, .events = (short)(POLLIN | (to_send ? POLLOUT : 0))};
    if (to_send || !connection->asked) {
        return poll(&wanted, 1, timeout_ms);
    }
    connection->asked = false;
    return await_reply(connection, &wanted, timeout_ms);
}
