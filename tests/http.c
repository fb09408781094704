/* http.c */
#include "tests/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support.h"

enum { PATIENCE = 30 /* seconds */, MAX_HEAD = 65536 };

int test_connect(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct timeval patience = {.tv_sec = PATIENCE};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

void test_send(int fd, const void *bytes, size_t size) {
    const char *at = bytes;
    while (size) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            return; /* it closed on us: what it said before is what counts */
        }
        at += sent;
        size -= (size_t)sent;
    }
}

void test_send_text(int fd, const char *text) {
    test_send(fd, text, strlen(text));
}

const char *test_header(const test_reply *reply, const char *name, char *text, size_t size) {
    size_t length = strlen(name);
    text[0] = '\0';
    for (const char *line = strstr(reply->head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n")) {
        if (!strncasecmp(line + 2, name, length) && line[2 + length] == ':') {
            const char *value = line + 3 + length + strspn(line + 3 + length, " ");
            snprintf(text, size, "%.*s", (int)strcspn(value, "\r"), value);
            break;
        }
    }
    return text;
}

static void receive_all(int fd, char *bytes, size_t size) {
    while (size) {
        ssize_t n = recv(fd, bytes, size, 0);
        assert_true(n > 0);
        bytes += n;
        size -= (size_t)n;
    }
}

/* Chunks of a reply, until the one of no bytes. @return false: the connection ended before it */
static bool receive_chunks(int fd, test_reply *reply) {
    reply->body = calloc(1, 1);
    for (size_t size = 1; size;) {
        char line[32] = "";
        for (size_t i = 0; i < sizeof line - 1 && (i < 2 || memcmp(line + i - 2, "\r\n", 2) != 0); i++) {
            if (recv(fd, line + i, 1, 0) != 1) {
                return false;
            }
        }
        size = strtoul(line, NULL, 16);
        reply->body = realloc(reply->body, reply->size + size + 3);
        assert_non_null(reply->body);
        receive_all(fd, reply->body + reply->size, size + 2);
        assert_memory_equal(reply->body + reply->size + size, "\r\n", 2);
        reply->size += size;
        reply->body[reply->size] = '\0';
    }
    return true;
}

bool test_receive(int fd, bool no_body, test_reply *ret_reply) {
    test_reply reply = {.head = calloc(1, MAX_HEAD + 1)};
    assert_non_null(reply.head);
    size_t used = 0;
    while (used < MAX_HEAD && (used < 4 || memcmp(reply.head + used - 4, "\r\n\r\n", 4) != 0)) {
        if (recv(fd, reply.head + used, 1, 0) != 1) {
            free(reply.head);
            return false;
        }
        used++;
    }
    char text[32];
    assert_memory_equal(reply.head, "HTTP/1.", 7);
    reply.status = (int)strtol(reply.head + sizeof "HTTP/1.1", NULL, 10);
    bool bodiless = no_body || reply.status == 204 || reply.status == 304 || reply.status == 100;
    if (!bodiless && !strcmp(test_header(&reply, "Transfer-Encoding", text, sizeof text), "chunked")) {
        bool whole = receive_chunks(fd, &reply);
        if (!whole) {
            test_reply_release(&reply);
        }
        *ret_reply = reply;
        return whole;
    }
    reply.size = bodiless ? 0 : strtoul(test_header(&reply, "Content-Length", text, sizeof text), NULL, 10);
    reply.body = calloc(1, reply.size + 1);
    assert_non_null(reply.body);
    receive_all(fd, reply.body, reply.size);
    *ret_reply = reply;
    return true;
}

bool test_is_closed(int fd) {
    char byte;
    return recv(fd, &byte, 1, 0) <= 0;
}

void test_reply_release(test_reply *reply) {
    free(reply->head);
    free(reply->body);
    *reply = (test_reply){0};
}

void test_request(int fd, const char *method, const char *path, const char *headers, const void *body,
                  size_t size, test_reply *ret_reply) {
    char head[4096];
    *ret_reply = (test_reply){0};
    snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n", method,
             path, headers, size);
    test_send_text(fd, head);
    test_send(fd, body, size);
    if (!test_receive(fd, !strcmp(method, "HEAD"), ret_reply)) {
        fail_msg("%s %s: the connection ended without a reply", method, path);
    }
}

void test_call(const test_daemon *daemon, const char *method, const char *path, const char *json, int status,
               test_reply *ret_reply) {
    char *body = strdup(json ? json : "");
    assert_non_null(body);
    for (char *c = body; *c; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    int fd = test_connect(daemon->port);
    test_request(fd, method, path, "", body, strlen(body), ret_reply);
    close(fd);
    free(body);
    if (ret_reply->status != status) {
        fail_msg("%s %s: %d, not %d: %s", method, path, ret_reply->status, status, ret_reply->body);
    }
}

void test_expect(const test_daemon *daemon, const char *method, const char *path, const char *json,
                 int status, const char *part) {
    test_reply reply;
    test_call(daemon, method, path, json, status, &reply);
    const char *text = reply.body ? reply.body : "";
    if (!strstr(text, part)) {
        fail_msg("%s %s: \"%s\" is not in %s", method, path, part, text);
    }
    test_reply_release(&reply);
}

void test_create_small(const test_daemon *daemon, const char *name) {
    char json[512];
    snprintf(json, sizeof json, TEST_SMALL_MODEL, name);
    test_expect(daemon, "POST", "/v1/models", json, 201, name);
}
