/* connection.c -- connections to the daemon: libcurl makes them, by TLS where the URL says so. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "client.h"

struct gradd_connection {
    CURL *curl;
    curl_socket_t fd; /* curl's */
    bool tls;         /* bytes go through curl */
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

int gradd_connection_fd(const gradd_connection *connection) {
    return connection->fd;
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
