/* npy.c -- numpy's file format, versions 1.0 to 3.0: a magic string, a header that is a Python dict with
 * exactly the keys descr, fortran_order and shape, and the data.
 * Source: numpy's documentation, numpy.lib.format. */
#include <stdio.h>
#include <string.h>

#include "internal.h"

enum { MAGIC = 6, ALIGN = 64 };

static const struct {
    char magic[MAGIC + 1];
    char descr[GP_DTYPE_COUNT][4]; /* without byte order */
} npy = {
    "\x93NUMPY",
    {
#define X(id, size, torch, safetensors, numpy) [id] = numpy,
        GP_DTYPES(X)
#undef X
    },
};

/* The header's text; every scan_ function takes its part from the front or fails. */
typedef struct header {
    const char *at, *end;
    gp_error *error;
} header;

static int bad(header *h, const char *what) {
    return gp_fail(h->error, GP_INVALID_TENSOR, "", "npy: %s", what);
}

static void skip_space(header *h) {
    while (h->at < h->end && *h->at == ' ')
        h->at++;
}

static bool take(header *h, char byte) {
    skip_space(h);
    if (h->at == h->end || *h->at != byte)
        return false;
    h->at++;
    return true;
}

static bool take_word(header *h, const char *word) {
    const size_t length = strlen(word);
    skip_space(h);
    if ((size_t)(h->end - h->at) < length || memcmp(h->at, word, length) != 0)
        return false;
    h->at += length;
    return true;
}

/* A Python string without escapes. */
static bool take_string(header *h, char *out, size_t size) {
    skip_space(h);
    const char quote = h->at < h->end ? *h->at : '\0';
    if (quote != '\'' && quote != '"')
        return false;
    const char *text = h->at + 1, *close = memchr(text, quote, (size_t)(h->end - text));
    if (!close || (size_t)(close - text) >= size || memchr(text, '\\', (size_t)(close - text)) ||
        memchr(text, '\0', (size_t)(close - text)))
        return false;
    memcpy(out, text, (size_t)(close - text));
    out[close - text] = '\0';
    h->at = close + 1;
    return true;
}

/* '<f4': byte order, kind, bytes. */
static int scan_descr(header *h, gp_array *array) {
    char text[32];
    if (!take_string(h, text, sizeof text))
        return bad(h, "descr is not one plain type such as '<f4' (structured arrays have no single type)");
    const char order = text[0];
    for (int i = 0; i < GP_DTYPE_COUNT; i++) {
        const bool one_byte = gp_dtype_size((gp_dtype)i) == 1;
        if (!npy.descr[i][0] || strcmp(text[0] ? text + 1 : text, npy.descr[i]) != 0)
            continue;
        if (order != '<' && order != '>' && !(order == '|' && one_byte))
            break;
        array->dtype = (gp_dtype)i;
        array->big_endian = order == '>' && !one_byte;
        return 0;
    }
    return gp_fail(
        h->error, GP_UNSUPPORTED_DTYPE, "",
        "npy: element type '%s' is not read here; save the array as float32, float64, float16, bool "
        "or an integer of up to 64 bits (uint64 excepted)",
        text);
}

static int scan_order(header *h, gp_array *array) {
    if (take_word(h, "True"))
        array->fortran_order = true;
    else if (take_word(h, "False"))
        array->fortran_order = false;
    else
        return bad(h, "fortran_order is neither True nor False");
    return 0;
}

static bool take_axis(header *h, int64_t *ret_value) {
    int64_t value = 0;
    skip_space(h);
    const char *start = h->at;
    for (; h->at < h->end && *h->at >= '0' && *h->at <= '9'; h->at++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *h->at - '0', &value))
            return false;
    *ret_value = value;
    return h->at > start && (*start != '0' || h->at == start + 1);
}

/* (), (3,), (3, 4) or (3, 4,). */
static int scan_shape(header *h, gp_array *array) {
    bool comma = true;
    if (!take(h, '('))
        return bad(h, "shape is not a tuple");
    for (array->rank = 0; !take(h, ')'); array->rank++) {
        if (array->rank == GP_MAX_RANK)
            return gp_fail(h->error, GP_LIMIT_EXCEEDED, "", "npy: the array has more than %d axes",
                           GP_MAX_RANK);
        if (!comma || !take_axis(h, &array->dim[array->rank]))
            return bad(h, "shape is not a tuple of axis lengths");
        comma = take(h, ',');
    }
    if (array->rank == 1 && !comma)
        return bad(h, "shape is not a tuple: one axis is written (3,)");
    return 0;
}

static int scan_header(header *h, gp_array *array) {
    static const struct {
        char name[16];
        int (*scan)(header *h, gp_array *array);
    } keys[] = {{"descr", scan_descr}, {"fortran_order", scan_order}, {"shape", scan_shape}};
    enum { KEYS = sizeof keys / sizeof keys[0] };
    bool seen[KEYS] = {false}, comma = true;

    if (!take(h, '{'))
        return bad(h, "the header is not a dict");
    while (!take(h, '}')) {
        char name[16];
        int key = 0;
        if (!comma || !take_string(h, name, sizeof name))
            return bad(h, "the header is not a dict of descr, fortran_order and shape");
        while (key < KEYS && strcmp(keys[key].name, name) != 0)
            key++;
        if (key == KEYS || seen[key] || !take(h, ':'))
            return bad(h, "the header has an unknown key, or one key twice");
        seen[key] = true;
        if (keys[key].scan(h, array) < 0)
            return -1;
        comma = take(h, ',');
    }
    for (int key = 0; key < KEYS; key++)
        if (!seen[key])
            return gp_fail(h->error, GP_INVALID_TENSOR, "", "npy: the header has no %s", keys[key].name);
    skip_space(h);
    if (h->end - h->at != 1 || *h->at != '\n')
        return bad(h, "the header's length is wrong: it must end with spaces and a newline");
    return 0;
}

int gp_npy_read(const void *data, size_t size, gp_array *ret_array, gp_error *error) {
    const unsigned char *bytes = data;
    header h = {.error = error};
    gp_array array = {.rank = 0};
    if (size < MAGIC + 4 || memcmp(bytes, npy.magic, MAGIC) != 0)
        return bad(&h, "the data does not begin with a whole npy header");
    const int major = bytes[MAGIC], minor = bytes[MAGIC + 1];
    if (major < 1 || major > 3 || minor != 0)
        return gp_fail(error, GP_INVALID_TENSOR, "", "npy: format version %d.%d is not 1.0, 2.0 or 3.0",
                       major, minor);
    const size_t prefix = major == 1 ? MAGIC + 4 : MAGIC + 6;
    if (size < prefix)
        return bad(&h, "the data ends within the header");
    const uint64_t length = gp_load_le(bytes + MAGIC + 2, major == 1 ? 2 : 4);
    if (length > GP_NPY_MAX_HEADER)
        return gp_fail(error, GP_LIMIT_EXCEEDED, "", "npy: the header has %llu bytes, at most %d are read",
                       (unsigned long long)length, GP_NPY_MAX_HEADER);
    if (length > size - prefix)
        return bad(&h, "the data ends within the header");
    h.at = (const char *)bytes + prefix;
    h.end = h.at + length;
    if (scan_header(&h, &array) < 0 || gp_array_measure(&array, "npy", error) < 0)
        return -1;
    array.data = h.end;
    if (array.size != size - prefix - length)
        return gp_fail(error, GP_INVALID_TENSOR, "",
                       "npy: shape and type make %zu bytes of data, but %zu follow the header", array.size,
                       size - prefix - (size_t)length);
    *ret_array = array;
    return 0;
}

/* ---- writing ----------------------------------------------------------------------------------- */

enum { LONGEST = 512 }; /* bytes of a dict with GP_MAX_RANK axes and its padding, with room to spare */

/* The dict as numpy writes it. @return its length */
static size_t format_dict(const gp_array *array, char text[LONGEST]) {
    const bool one_byte = gp_dtype_size(array->dtype) == 1;
    int used = snprintf(text, LONGEST, "{'descr': '%c%s', 'fortran_order': %s, 'shape': (",
                        one_byte            ? '|'
                        : array->big_endian ? '>'
                                            : '<',
                        npy.descr[array->dtype], array->fortran_order ? "True" : "False");
    for (int i = 0; i < array->rank; i++)
        used += snprintf(text + used, (size_t)(LONGEST - used), "%s%lld%s", i ? " " : "",
                         (long long)array->dim[i], i + 1 < array->rank || array->rank == 1 ? "," : "");
    used += snprintf(text + used, (size_t)(LONGEST - used), "), }");
    return (size_t)used;
}

size_t gp_npy_header_size(const gp_array *array) {
    char text[LONGEST];
    return (MAGIC + 4 + format_dict(array, text) + 1 + ALIGN - 1) / ALIGN * ALIGN;
}

void gp_npy_write_header(const gp_array *array, void *out) {
    char text[LONGEST], *header_text = (char *)out + MAGIC + 4;
    const size_t size = gp_npy_header_size(array), length = size - MAGIC - 4, used = format_dict(array, text);
    memcpy(out, npy.magic, MAGIC);
    memcpy((char *)out + MAGIC, (const unsigned char[]){1, 0, length & 0xff, length >> 8 & 0xff}, 4);
    memcpy(header_text, text, used);
    memset(header_text + used, ' ', length - used);
    header_text[length - 1] = '\n';
}
