/* json_scan.h -- the few steps that every scanner of JSON text takes: spaces, one byte, one string.
 * Inline, because the tensor scanner calls them for every number, and free of jansson, because the
 * safetensors reader is part of the client library. */
#ifndef GP_JSON_SCAN_H
#define GP_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct gp_scan {
    const char *at, *end; /* the next byte; one past the last */
} gp_scan;

static inline void gp_scan_space(gp_scan *scan) {
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
        scan->at++;
}

/** The next byte that is not a space, without taking it; NUL at the end. */
static inline char gp_scan_peek(gp_scan *scan) {
    gp_scan_space(scan);
    return scan->at < scan->end ? *scan->at : '\0';
}

/** Take `byte` if it comes next, after spaces. */
static inline bool gp_scan_take(gp_scan *scan, char byte) {
    gp_scan_space(scan);
    if (scan->at == scan->end || *scan->at != byte)
        return false;
    scan->at++;
    return true;
}

/** Bytes of the UTF-8 character at `at`, 1 ... 4; 0 when it is none (overlong, surrogate, cut off). */
static inline size_t gp_utf8_length(const char *at, size_t left) {
    const unsigned char *u = (const unsigned char *)at;
    if (left == 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    const size_t length = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
    if (u[0] < 0xc2 || u[0] > 0xf4 || left < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    const bool overlong = (u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xf0 && u[1] < 0x90);
    const bool surrogate = u[0] == 0xed && u[1] >= 0xa0;
    const bool too_big = u[0] == 0xf4 && u[1] >= 0x90;
    return overlong || surrogate || too_big ? 0 : length;
}

/** Write a code point as UTF-8. @return bytes written, 1 ... 4 */
static inline size_t gp_utf8_encode(uint32_t code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00u >> length & 0xff) | code);
    return length;
}

/** Four hex digits. @return -1 when they are none */
static inline int32_t gp_scan_hex4(const char *at, size_t left) {
    int32_t code = 0;
    if (left < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const char c = at[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return -1;
        code = code << 4 | digit;
    }
    return code;
}

/** Decode the escape after a backslash; scan->at stands behind the backslash. @return NULL or what is wrong
 */
static inline const char *gp_scan_escape(gp_scan *scan, char out[4], size_t *ret_length) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char c = scan->at < scan->end ? *scan->at++ : '\0';
    const char *simple = c ? strchr(from, c) : NULL;
    *ret_length = 1;
    if (simple) {
        out[0] = to[simple - from];
        return NULL;
    }
    int32_t code = c == 'u' ? gp_scan_hex4(scan->at, (size_t)(scan->end - scan->at)) : -1;
    if (code < 0)
        return "an escape that JSON does not know";
    scan->at += 4;
    if (code >= 0xd800 && code < 0xdc00) { /* the first half of a pair */
        const bool pair = scan->end - scan->at >= 6 && scan->at[0] == '\\' && scan->at[1] == 'u';
        const int32_t low = pair ? gp_scan_hex4(scan->at + 2, 4) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return "half of a surrogate pair";
        scan->at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000) {
        return "half of a surrogate pair";
    }
    if (code == 0)
        return "a NUL";
    *ret_length = gp_utf8_encode((uint32_t)code, out);
    return NULL;
}

/**
 * Take a string, after spaces.
 *
 * @param out      gets the decoded bytes and a NUL; NULL: check and skip only
 * @param out_size with room for the NUL
 * @return NULL, or what is wrong in words that follow "there is"; scan->at then stands at the place
 */
static inline const char *gp_scan_string(gp_scan *scan, char *out, size_t out_size) {
    size_t size = 0;
    if (!gp_scan_take(scan, '"'))
        return "no string where one is expected";
    while (scan->at < scan->end && *scan->at != '"') {
        const size_t left = (size_t)(scan->end - scan->at);
        char decoded[4];
        const char *from = scan->at;
        size_t length = 1;
        if ((unsigned char)*from < 0x20)
            return "a control character in a string";
        if (*from == '\\') {
            scan->at++;
            const char *wrong = gp_scan_escape(scan, decoded, &length);
            if (wrong)
                return wrong;
            from = decoded;
        } else {
            length = gp_utf8_length(from, left);
            if (length == 0)
                return "a string that is not UTF-8";
            scan->at += length;
        }
        if (out && length >= out_size - size)
            return "a name that is too long";
        if (out)
            memcpy(out + size, from, length);
        size += length;
    }
    if (scan->at == scan->end)
        return "a string without an end";
    scan->at++;
    if (out)
        out[size] = '\0';
    return NULL;
}

#endif
