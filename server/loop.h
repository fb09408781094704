/* loop.h -- the daemon's one event loop: HTTP, signals, timers, and requests coming back from compute
 * threads. */
#ifndef GRADD_SERVER_LOOP_H
#define GRADD_SERVER_LOOP_H

typedef struct gs_server gs_server;
typedef struct gs_loop gs_loop;

/** Make the loop. NULL: it cannot be done. */
gs_loop *gs_loop_new(gs_server *server);
/** Requests ran, or streams were woken: answer them. The one function here that any thread may call. */
void gs_loop_wake(void *loop);
/** Serve server->http until SIGTERM or SIGINT, then drain: refuse what is new, finish what is there, for
 *  at most --drain-timeout. Ends the process with code 3 when told twice, or when requests still run a
 *  while after that. @return 0; -1: it could not start */
int gs_loop_run(gs_loop *loop);
/** After the last possible gs_loop_wake(). NULL is fine. */
void gs_loop_free(gs_loop *loop);

#endif
