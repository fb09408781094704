/* http.h -- HTTP over a plain socket, for tests that must see and send every byte themselves. Whatever
 * goes wrong in here fails the test that called it. */
#ifndef GRADD_TESTS_HTTP_H
#define GRADD_TESTS_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/daemon.h"

/** A reply. Release with test_reply_release(). */
typedef struct test_reply {
    int status;
    char *head;  /* status line and headers */
    char *body;  /* NUL-terminated */
    size_t size; /* of body */
} test_reply;

/** A connection to a loopback port; reads give up after half a minute. */
int test_connect(int port);
void test_send(int fd, const void *bytes, size_t size);
void test_send_text(int fd, const char *text);
/** Read one reply. @param no_body it answers HEAD @return false: the connection ended before it */
bool test_receive(int fd, bool no_body, test_reply *ret_reply);
/** Has the daemon ended this connection? Waits for it. */
bool test_is_closed(int fd);
/** A header's value into text; "" when it is not there. @return text */
const char *test_header(const test_reply *reply, const char *name, char *text, size_t size);
void test_reply_release(test_reply *reply);

/** One request on a connection that is open. @param headers more of them, each with "\r\n"; or "" */
void test_request(int fd, const char *method, const char *path, const char *headers, const void *body,
                  size_t size, test_reply *ret_reply);
/** One request with a JSON body (or NULL) on a connection of its own; its status must be the one given.
 *  A body is written with ' for " to be readable in C. */
void test_call(const test_daemon *daemon, const char *method, const char *path, const char *json, int status,
               test_reply *ret_reply);
/** The same where the reply does not matter beyond its status, and that its body has `part` in it. */
void test_expect(const test_daemon *daemon, const char *method, const char *path, const char *json,
                 int status, const char *part);

/** A small network: 4 numbers in, Linear to 3, cross entropy, SGD. */
#define TEST_SMALL_MODEL \
    "{'name': '%s', 'seed': 1, 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'fc', " \
    "'in_features': 4, 'out_features': 3}], 'loss': {'type': 'CrossEntropyLoss'}, " \
    "'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}}"
/** Create it under this name. */
void test_create_small(const test_daemon *daemon, const char *name);

#endif
