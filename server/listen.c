/* listen.c */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gate.h"

static struct addrinfo *resolve(const char *host, int port, int *ret_code) {
    char service[8];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    *ret_code = getaddrinfo(host, service, &hints, &found);
    // cppcheck-suppress memleak // getaddrinfo() allocates on success only
    return *ret_code ? NULL : found;
}

bool gs_listen_is_local(const char *host) {
    int code;
    struct addrinfo *found = resolve(host, 0, &code);
    bool local = found != NULL;
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        char name[64];
        local = local &&
                !getnameinfo(a->ai_addr, a->ai_addrlen, name, sizeof name, NULL, 0, NI_NUMERICHOST) &&
                gs_is_loopback(name);
    }
    if (found) {
        freeaddrinfo(found);
    }
    return local;
}

static int bound_port(int fd, bool *ret_anywhere) {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {0};
    socklen_t size = sizeof address;
    if (getsockname(fd, &address.any, &size)) {
        return -1;
    }
    if (address.any.sa_family == AF_INET6) {
        *ret_anywhere = IN6_IS_ADDR_UNSPECIFIED(&address.v6.sin6_addr);
        return ntohs(address.v6.sin6_port);
    }
    *ret_anywhere = address.v4.sin_addr.s_addr == INADDR_ANY;
    return ntohs(address.v4.sin_port);
}

/* Bytes that a socket takes in before somebody reads them: a batch comes in few pieces. */
enum { RECEIVE_BUFFER = 4 << 20 };

int gs_listen(const char *host, int port, int *ret_port, bool *ret_anywhere, char *message, size_t size) {
    int code, fd = -1, on = 1, room = RECEIVE_BUFFER;
    struct addrinfo *found = resolve(host, port, &code);
    if (!found) {
        snprintf(message, size, "%s: %s", host, gai_strerror(code));
        return -1;
    }
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) {
            snprintf(message, size, "%s:%d: %s", host, port, strerror(errno));
            continue;
        }
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        /* accepted sockets inherit it */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, SOMAXCONN) ||
            (*ret_port = bound_port(fd, ret_anywhere)) < 0) {
            snprintf(message, size, "%s:%d: %s", host, port, strerror(errno));
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

int gs_write_port(const char *path, int port, char *message, size_t size) {
    char temporary[4096], text[16];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (length < 0 || (size_t)length >= sizeof temporary) {
        snprintf(message, size, "the path is too long");
        return -1;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    length = snprintf(text, sizeof text, "%d\n", port);
    bool ok = fd >= 0 && write(fd, text, (size_t)length) == length;
    ok = fd >= 0 && !close(fd) && ok;
    if (!ok || rename(temporary, path)) {
        snprintf(message, size, "%s", strerror(errno));
        unlink(temporary);
        return -1;
    }
    return 0;
}
