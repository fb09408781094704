/* listen.h -- the listening socket. */
#ifndef GRADD_SERVER_LISTEN_H
#define GRADD_SERVER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

/**
 * Bind and listen.
 *
 * @param ret_port     the bound port
 * @param ret_anywhere is it 0.0.0.0 or [::]?
 * @param message      why it failed
 * @return the descriptor, non-blocking; -1
 */
int gs_listen(const char *host, int port, int *ret_port, bool *ret_anywhere, char *message, size_t size);
/** Is every address of this host a loopback one? */
bool gs_listen_is_local(const char *host);
/** Write the port to a file, whole or not at all. @return 0; -1 and why */
int gs_write_port(const char *path, int port, char *message, size_t size);

#endif
