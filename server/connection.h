/* connection.h -- one TCP connection, as the sweep of http.c sees it. Loop thread alone. */
#ifndef GRADD_SERVER_CONNECTION_H
#define GRADD_SERVER_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gs_server gs_server;
typedef struct gs_request gs_request;

enum {
    GS_DISCARD = 64 * 1024, /* bytes of a body that nobody wants which are read, to keep the connection */
    GS_MIN_RATE = 4096      /* bytes a second that bodies must come and replies must go at */
};

typedef struct gs_connection {
    gs_server *server;
    struct gs_connection *previous, *next;
    int fd;
    gs_request *request; /* the current one, or NULL */
    int64_t since_us;    /* since when the state lasts that the sweep looks at */
    size_t since_bytes;  /* of the body that were there then */
    bool over_limit;     /* accepted beyond --max-connections, to be told so */
    bool ended;          /* the client has ended its side before its body was whole, the sweep saw */
    bool cut;            /* the sweep has shut it down */
    char local[64];      /* our address, where the daemon listens on any */
} gs_connection;

#endif
