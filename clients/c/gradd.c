/* gradd.c -- the handle: configuration, token, errors. */
#include "gradd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

enum {
    CONNECT_TIMEOUT_MS = 5 * 1000,
    TIMEOUT_MS = 5 * 60 * 1000,
    MAX_REPLY = 1 << 30,
    RETRIES = 2,
};

void gradd_error_set(gradd_error *error, gradd_code code, const char *format, ...) {
    if (!error) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    *error = (gradd_error){.code = code};
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
}

void gradd_free(void *memory) {
    free(memory);
}

const char *gradd_client_server(const gradd_client *client) {
    return client->server;
}

/* The URL without final slashes; "host:port" gets its "http://". */
static int server_url(const char *server, char **ret_url, gradd_error *error) {
    if (!server) {
        server = getenv("GRADD_SERVER");
    }
    if (!server || !*server) {
        server = GRADD_DEFAULT_SERVER;
    }
    const char *scheme = strstr(server, "://") ? "" : "http://";
    size_t length = strlen(server);
    while (length > 0 && server[length - 1] == '/') {
        length--;
    }
    bool known = *scheme || strncmp(server, "http://", 7) == 0 || strncmp(server, "https://", 8) == 0;
    if (!known || length > GRADD_MAX_SERVER || strcspn(server, "?# \t\r\n") < length) {
        return gradd_fail(error, GRADD_E_ARGUMENT,
                          "the server's URL must look like http://127.0.0.1:7117, not '%.100s'", server);
    }
    size_t size = strlen(scheme) + length + 1;
    char *url = malloc(size);
    if (!url) {
        return gradd_fail_memory(error);
    }
    snprintf(url, size, "%s%.*s", scheme, (int)length, server);
    *ret_url = url;
    return GRADD_OK;
}

/* What requests say of the URL: host and path. */
static int split_url(gradd_client *client, gradd_error *error) {
    char *user = NULL, *host = NULL, *port = NULL, *path = NULL;
    CURLU *url = curl_url();
    int code = url ? GRADD_OK : gradd_fail_memory(error);
    if (code) {
        return code;
    }
    if (curl_url_set(url, CURLUPART_URL, client->server, CURLU_PATH_AS_IS) ||
        curl_url_get(url, CURLUPART_HOST, &host, 0) || curl_url_get(url, CURLUPART_PATH, &path, 0) ||
        !curl_url_get(url, CURLUPART_USER, &user, 0)) {
        code = gradd_fail(error, GRADD_E_ARGUMENT, "the server's URL %s must be a host, a port and a path",
                          client->server);
        goto out;
    }
    bool has_port = !curl_url_get(url, CURLUPART_PORT, &port, 0);
    size_t size = strlen(host) + (has_port ? strlen(port) : 0) + 2;
    client->host = malloc(size);
    client->prefix = strdup(strcmp(path, "/") != 0 ? path : "");
    client->tls = strncmp(client->server, "https:", 6) == 0;
    if (!client->host || !client->prefix) {
        code = gradd_fail_memory(error);
        goto out;
    }
    snprintf(client->host, size, "%s%s%s", host, has_port ? ":" : "", has_port ? port : "");
out:
    curl_free(user);
    curl_free(host);
    curl_free(port);
    curl_free(path);
    curl_url_cleanup(url);
    return code;
}

/* The first line of a file, without its end. */
static int read_token(const char *path, char token[GRADD_MAX_TOKEN], gradd_error *error) {
    FILE *file = fopen(path, "re");
    if (!file) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "cannot read the token file %s: %s", path,
                          strerror(errno));
    }
    bool read = fgets(token, GRADD_MAX_TOKEN, file) != NULL;
    fclose(file);
    token[read ? strcspn(token, "\r\n") : 0] = '\0';
    return *token ? GRADD_OK : gradd_fail(error, GRADD_E_ARGUMENT, "the token file %s is empty", path);
}

/* The Authorization header, or NULL where there is no token. Visible characters only, so that a token
 * can't smuggle in a header of its own. */
static int token_header(const gradd_config *config, char **ret_header, gradd_error *error) {
    char buffer[GRADD_MAX_TOKEN];
    const char *token = config->token;
    const char *path = config->token_file;
    if (!token && !path) {
        path = getenv("GRADD_TOKEN_FILE");
    }
    if (!token && path && *path) {
        int code = read_token(path, buffer, error);
        if (code) {
            return code;
        }
        token = buffer;
    }
    *ret_header = NULL;
    if (!token) {
        return GRADD_OK;
    }
    for (const char *c = token; *c; c++) {
        if (*c <= ' ' || *c > '~') {
            return gradd_fail(error, GRADD_E_ARGUMENT, "the token must be visible characters without spaces");
        }
    }
    static const char prefix[] = "Authorization: Bearer ";
    size_t size = sizeof prefix + strlen(token);
    *ret_header = malloc(size);
    if (!*ret_header) {
        return gradd_fail_memory(error);
    }
    snprintf(*ret_header, size, "%s%s", prefix, token);
    return GRADD_OK;
}

int gradd_client_new(const gradd_config *config, gradd_client **ret_client, gradd_error *error) {
    gradd_client *client = calloc(1, sizeof *client);
    if (!client || curl_global_init(CURL_GLOBAL_DEFAULT)) { /* curl counts these calls under a lock */
        free(client);
        return gradd_fail_memory(error);
    }
    if (config) {
        client->config = *config;
    }
    gradd_config *c = &client->config;
    c->connect_timeout_ms = c->connect_timeout_ms > 0 ? c->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    c->timeout_ms = c->timeout_ms > 0 ? c->timeout_ms : TIMEOUT_MS;
    c->max_reply = c->max_reply ? c->max_reply : MAX_REPLY;
    c->retries = c->retries ? c->retries : RETRIES;
    pthread_mutex_init(&client->lock, NULL);

    int code = server_url(c->server, &client->server, error);
    if (!code) {
        code = split_url(client, error);
    }
    if (!code) {
        code = token_header(c, &client->authorization, error);
    }
    c->server = c->token = c->token_file = NULL;
    if (code) {
        gradd_client_free(client);
        return code;
    }
    *ret_client = client;
    return GRADD_OK;
}

void gradd_client_free(gradd_client *client) {
    if (!client) {
        return;
    }
    for (size_t i = 0; i < client->idle_count; i++) {
        gradd_disconnect(client->idle[i]);
    }
    curl_global_cleanup();
    pthread_mutex_destroy(&client->lock);
    free(client->authorization);
    free(client->prefix);
    free(client->host);
    free(client->server);
    free(client);
}
