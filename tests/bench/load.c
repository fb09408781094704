/* load.c -- a small HTTP load loop: plain sockets, kept alive, the next request only after the reply. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/floor.h"

enum { REPLY = 64 * 1024, TIMEOUT_MS = 5000 };

typedef struct connection {
    int fd;
    size_t size; /* of the reply so far */
    char reply[REPLY];
} connection;

static int open_connection(int port) {
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = TIMEOUT_MS / 1000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience)) {
        if (fd >= 0)
            close(fd);
        return bench_complain("load", strerror(errno));
    }
    return fd;
}

/* Read what there is. @return 1: the reply is whole; 0: not yet; -1: it is no good */
static int read_some(connection *c) {
    ssize_t got = recv(c->fd, c->reply + c->size, REPLY - 1 - c->size, 0);
    if (got <= 0)
        return bench_complain("load", got ? strerror(errno) : "the daemon closed a connection");
    c->size += (size_t)got;
    c->reply[c->size] = 0;
    const char *body = strstr(c->reply, "\r\n\r\n");
    if (!body)
        return 0;
    const char *length = strcasestr(c->reply, "\r\nContent-Length:");
    if (strncmp(c->reply, "HTTP/1.1 200", 12) != 0 || !length || length > body)
        return bench_complain("load", c->reply);
    const size_t whole = (size_t)(body + 4 - c->reply) + strtoul(length + 17, NULL, 10);
    if (c->size < whole)
        return whole < REPLY ? 0 : bench_complain("load", "the reply is too long");
    c->size = 0;
    return 1;
}

static int ask(const connection *c, const char *request, size_t size) {
    return send(c->fd, request, size, MSG_NOSIGNAL) == (ssize_t)size
               ? 0
               : bench_complain("load", strerror(errno));
}

/* Replies a second on `count` connections, or negative. */
static double throughput(connection *connections, int count, const char *request, double seconds) {
    const size_t size = strlen(request);
    struct epoll_event events[BENCH_CONNECTIONS];
    const int poll = epoll_create1(EPOLL_CLOEXEC);
    const double begin = bench_now();
    double done = 0, now = begin;
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, connections[i].fd, &event) || ask(&connections[i], request, size))
            goto failed;
    }
    while ((now = bench_now()) - begin < seconds) {
        int ready = epoll_wait(poll, events, count, TIMEOUT_MS);
        if (ready <= 0)
            goto failed;
        for (int i = 0; i < ready; i++) {
            connection *c = events[i].data.ptr;
            int whole = read_some(c);
            if (whole < 0 || (whole && ask(c, request, size)))
                goto failed;
            done += whole;
        }
    }
    close(poll);
    return done / (now - begin);
failed:
    close(poll);
    return bench_complain("load", "a connection failed");
}

/* p50 and p99 of one request after another. */
static int latency(connection *c, const char *request, double seconds, bench_load *load) {
    enum { MOST = 200000 };
    const size_t size = strlen(request);
    double *times = malloc(MOST * sizeof *times);
    int count = 0;
    if (!times)
        return bench_complain("load", "no memory");
    for (double begin = bench_now(), now = begin; count < MOST && now - begin < seconds; count++) {
        const double start = now;
        int whole = ask(c, request, size);
        while (!whole)
            whole = read_some(c);
        if (whole < 0) {
            free(times);
            return -1;
        }
        now = bench_now();
        times[count] = 1e6 * (now - start);
    }
    load->p50_us = bench_median(times, count); /* sorts them */
    load->p99_us = times[(int)(0.99 * (count - 1))];
    free(times);
    return 0;
}

int bench_load_run(int port, double seconds, bench_load *load) {
    char request[256];
    int result = -1, count = 0;
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", load->path, port);
    connection *connections = calloc(BENCH_CONNECTIONS + 1, sizeof *connections);
    for (; connections && count <= BENCH_CONNECTIONS; count++)
        if ((connections[count].fd = open_connection(port)) < 0)
            goto out;
    if (!connections)
        return bench_complain("load", "no memory");
    /* The last one is for latency: the others may have an answer on the way. */
    if (latency(&connections[BENCH_CONNECTIONS], request, seconds, load))
        goto out;
    load->per_second = throughput(connections, BENCH_CONNECTIONS, request, seconds);
    result = load->per_second < 0 ? -1 : 0;
out:
    while (count > 0)
        close(connections[--count].fd);
    free(connections);
    return result;
}
