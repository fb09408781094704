/* fake.h -- for tests of clients: a server in the test's own program that plays one script of replies, and a
 * client of it. */
#ifndef GRADD_TESTS_FAKE_H
#define GRADD_TESTS_FAKE_H

#include "tests/support.h"

#include <pthread.h>

#include "clients/c/gradd.h"

enum { FAKE_REQUESTS = 16, FAKE_TEXT = 8192 };

#define FAKE_OK_JSON "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
#define FAKE_BUSY "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
#define FAKE_IN_USE \
    "HTTP/1.1 409 Conflict\r\nContent-Length: 34\r\n\r\n{\"code\": \"idempotency_key_in_use\"}"
#define FAKE_HANG_UP ""                     /* read the request, then close without a word */
#define FAKE_THEN_CLOSE "X-Then: close\r\n" /* in a reply: close after it */
#define FAKE_EARLY \
    "!" /* before a reply: send it once the request's head is there, then read what else comes */

/** Answers the n-th request with the n-th reply; a reply of "" closes the connection. */
typedef struct test_fake {
    int listener;
    int port;
    const char *const *replies; /* ends with NULL */
    pthread_t thread;
    char requests[FAKE_REQUESTS][FAKE_TEXT]; /* head and body, NUL-terminated where they hold none */
    int count;
    size_t more; /* bytes that came after an early reply */
    gradd_client *client;
    gradd_error error;
} test_fake;

/** Start it. @param replies ends with NULL */
void test_fake_start(test_fake *f, const char *const *replies, gradd_config config);
/** Its end, and the client's. @return how many requests came in */
int test_fake_stop(test_fake *f);

#define TEST_PLAY(f, ...) \
    test_fake_start(f, (const char *const[]){__VA_ARGS__, NULL}, (gradd_config){.timeout_ms = 20000})

/* The steps that test_fake_start() goes, for a server that comes up late: a listener that does not listen
 * yet, the client, the server's thread. */
int test_fake_bind(int *ret_port);
void test_fake_client(test_fake *f, gradd_config config);
void *test_fake_serve(void *fake);

#endif
