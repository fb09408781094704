/* gate.c -- RFC 9110 and 9112 say what a head may be; libmicrohttpd lets more through. */
#include "gate.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <string.h>
#include <strings.h>

#include "server.h"

typedef struct reading {
    gs_headers headers;
    gp_error *error;
    size_t count, bytes;
} reading;

static const struct {
    const char *name;
    size_t size;
    size_t offset;
} known[] = {
#define X(member, name) {name, sizeof name - 1, offsetof(gs_headers, member)},
    GS_HEADERS(X)
#undef X
};

/* RFC 9110, 5.6.2: the characters of a field's name. */
static bool is_token(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i], letter = c | 0x20;
        bool common = (letter >= 'a' && letter <= 'z') || c == '-';
        if (!common && (c <= 0x20 || c >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", c))) {
            return false;
        }
    }
    return size > 0;
}

static enum MHD_Result read_header(void *argument, enum MHD_ValueKind kind, const char *name,
                                   size_t name_size, const char *value, size_t value_size) {
    reading *r = argument;
    (void)kind;
    r->count++;
    r->bytes += name_size + value_size + 4;
    if (r->count > GS_MAX_HEADERS || r->bytes > GS_MAX_HEADER_BYTES) {
        gp_fail(r->error, GP_HEADERS_TOO_LARGE, "", "more than %d header fields or %d bytes of them",
                GS_MAX_HEADERS, GS_MAX_HEADER_BYTES);
        return MHD_NO;
    }
    if (!is_token(name, name_size)) {
        gp_fail(r->error, GP_BAD_REQUEST, "",
                "a header field's name has a space or another byte it must not have");
        return MHD_NO;
    }
    for (size_t i = 0; i < value_size; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            gp_fail(r->error, GP_BAD_REQUEST, "",
                    "the value of the header field %.64s has a control byte (0x%02x)", name, c);
            return MHD_NO;
        }
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (name_size == known[i].size && !strcasecmp(name, known[i].name)) {
            const char **member = (const char **)((char *)&r->headers + known[i].offset);
            if (*member && strcmp(known[i].name, "Accept")) {
                gp_fail(r->error, GP_BAD_REQUEST, "", "the header field %s was sent twice", known[i].name);
                return MHD_NO;
            }
            *member = *member ? *member : value ? value : "";
        }
    }
    return MHD_YES;
}

/* How long is the body? @return 0; -1: it cannot be told for sure */
static int check_framing(gs_headers *headers, bool http_1_1, gp_error *error) {
    if (headers->transfer_encoding) {
        if (headers->content_length) {
            return gp_fail(error, GP_BAD_REQUEST, "",
                           "Content-Length and Transfer-Encoding exclude each other");
        }
        if (!http_1_1 || strcasecmp(headers->transfer_encoding, "chunked")) {
            return gp_fail(error, GP_BAD_REQUEST, "",
                           "the only Transfer-Encoding is \"chunked\", with HTTP/1.1");
        }
        headers->has_body = true;
        headers->length = -1;
        return 0;
    }
    int64_t length = 0;
    const char *digit = headers->content_length;
    if (!digit) {
        return 0;
    }
    if (!*digit) {
        return gp_fail(error, GP_BAD_REQUEST, "", "Content-Length is empty");
    }
    for (; *digit; digit++) {
        if (*digit < '0' || *digit > '9' || __builtin_mul_overflow(length, 10, &length) ||
            __builtin_add_overflow(length, *digit - '0', &length)) {
            return gp_fail(error, GP_BAD_REQUEST, "", "Content-Length is no whole number");
        }
    }
    headers->length = length;
    headers->has_body = length > 0;
    return 0;
}

int gs_gate_headers(struct MHD_Connection *connection, const char *version, gs_headers *ret_headers,
                    gp_error *error) {
    reading r = {.error = error};
    MHD_get_connection_values_n(connection, MHD_HEADER_KIND, read_header, &r);
    if (error->problem) {
        return -1;
    }
    bool http_1_1 = !strcmp(version, "HTTP/1.1");
    if (!http_1_1 && strcmp(version, "HTTP/1.0")) {
        return gp_fail(error, GP_BAD_REQUEST, "", "only HTTP/1.1 and HTTP/1.0 are spoken here");
    }
    if (!r.headers.host && http_1_1) {
        return gp_fail(error, GP_BAD_REQUEST, "", "HTTP/1.1 needs a Host header field");
    }
    if (check_framing(&r.headers, http_1_1, error)) {
        return -1;
    }
    *ret_headers = r.headers;
    return 0;
}

bool gs_is_loopback(const char *host) {
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
    }
    return !strcasecmp(host, "localhost");
}

/* "name:port", "name", "[::1]:port" to the name alone. @return false: it is none of these */
static bool host_name(const char *authority, char *name, size_t size) {
    const char *end;
    if (*authority == '[') {
        end = strchr(++authority, ']');
        if (!end || (end[1] && end[1] != ':')) {
            return false;
        }
    } else {
        end = authority + strcspn(authority, ":");
    }
    size_t length = (size_t)(end - authority);
    const char *port = end + (*end == ']');
    if (!length || length >= size || (*port && (port[1 + strspn(port + 1, "0123456789")] || !port[1]))) {
        return false;
    }
    memcpy(name, authority, length);
    name[length] = '\0';
    return true;
}

int gs_gate_origin(const gs_server *server, const gs_headers *headers, const char *authority,
                   const char *local, gp_error *error) {
    char name[256];
    const char *host = authority ? authority : headers->host;
    if (host) { /* HTTP/1.0 may come without; no browser does */
        if (!host_name(host, name, sizeof name)) {
            return gp_fail(error, GP_BAD_REQUEST, "", "the Host header field is no host name or address");
        }
        const char *allowed = server->config.allowed_host;
        if (!gs_is_loopback(name) && strcasecmp(name, server->listen_host) && strcasecmp(name, local) &&
            !gs_config_listed(allowed, name) && !gs_config_listed(allowed, "*")) {
            return gp_fail(error, GP_FORBIDDEN_HOST, "",
                           "Host \"%.128s\" is not a name of this daemon; start it with --allowed-host "
                           "%.128s to allow it",
                           name, name);
        }
    }
    const char *origin = headers->origin;
    if (origin) {
        const char *scheme_end = strstr(origin, "://");
        bool same = scheme_end && host && !strcasecmp(scheme_end + 3, host);
        if (!same && !gs_config_listed(server->config.cors_origin, origin)) {
            return gp_fail(
                error, GP_FORBIDDEN_ORIGIN, "",
                "pages of %.128s may not call this daemon; start it with --cors-origin %.128s to allow it",
                origin, origin);
        }
    }
    return 0;
}

/* Quoted it is a string of RFC 8941, 3.3.3, with \" and \\ in it and nothing behind it. */
int gs_gate_key(const char *value, char ret_key[GS_MAX_KEY + 1], gp_error *error) {
    const bool quoted = *value == '"';
    const char *at = value + quoted;
    size_t size = 0;
    bool good = true;
    for (; good && *at && !(quoted && *at == '"'); at++) {
        const bool escaped = quoted && *at == '\\';
        at += escaped;
        good = size<GS_MAX_KEY && * at> ' ' && *at <= '~' && (!escaped || *at == '"' || *at == '\\');
        ret_key[good ? size++ : 0] = *at;
    }
    if (!good || !size || (quoted && strcmp(at, "\"") != 0)) {
        *ret_key = '\0';
        return gp_fail(error, GP_BAD_REQUEST, "",
                       "Idempotency-Key must be 1 to %d visible ASCII characters, bare or in quotes",
                       GS_MAX_KEY);
    }
    ret_key[size] = '\0';
    return 0;
}
