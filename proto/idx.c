/* idx.c -- MNIST's format, and the gzip around it.
 * IDX: two zero bytes, the element type, the number of axes, each axis as a big-endian 32-bit integer,
 * then the data, big-endian and row-major. Source: the description on MNIST's page by LeCun et al. */
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#include "internal.h"

static bool find_type(unsigned char code, gp_dtype *ret_dtype) {
    static const struct {
        unsigned char code;
        gp_dtype dtype;
    } types[] = {{0x08, GP_UINT8}, {0x09, GP_INT8},    {0x0b, GP_INT16},
                 {0x0c, GP_INT32}, {0x0d, GP_FLOAT32}, {0x0e, GP_FLOAT64}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].code == code) {
            *ret_dtype = types[i].dtype;
            return true;
        }
    return false;
}

int gp_idx_read(const void *data, size_t size, gp_array *ret_array, gp_error *error) {
    const unsigned char *bytes = data;
    gp_array array = {.big_endian = true};
    if (size < 4 || bytes[0] != 0 || bytes[1] != 0)
        return gp_fail(error, GP_INVALID_TENSOR, "", "IDX: the data does not begin with a whole IDX header");
    if (!find_type(bytes[2], &array.dtype))
        return gp_fail(error, GP_UNSUPPORTED_DTYPE, "",
                       "IDX: element type 0x%02x is none that the format has", bytes[2]);
    array.rank = bytes[3];
    if (array.rank < 1 || array.rank > GP_MAX_RANK)
        return gp_fail(error, GP_LIMIT_EXCEEDED, "", "IDX: %d axes; 1 to %d are read", array.rank,
                       GP_MAX_RANK);
    const size_t header = 4 + 4 * (size_t)array.rank;
    if (size < header)
        return gp_fail(error, GP_INVALID_TENSOR, "", "IDX: the data ends within the header");
    for (int i = 0; i < array.rank; i++)
        array.dim[i] = (int64_t)gp_load_be(bytes + 4 + 4 * i, 4);
    if (gp_array_measure(&array, "IDX", error) < 0)
        return -1;
    if (array.size != size - header)
        return gp_fail(error, GP_INVALID_TENSOR, "",
                       "IDX: shape and type make %zu bytes of data, but %zu follow the header", array.size,
                       size - header);
    array.big_endian = gp_dtype_size(array.dtype) > 1;
    array.data = bytes + header;
    *ret_array = array;
    return 0;
}

/* ---- gzip -------------------------------------------------------------------------------------- */

enum { START = 1 << 16 }; /* bytes of the first output buffer */

/* An output buffer on its way to *ret_data. */
typedef struct output {
    unsigned char *data;
    size_t size, capacity;
    size_t limit; /* of capacity: one byte more than allowed, so that too much is told from just enough */
} output;

static bool grow(output *out) {
    const size_t capacity = out->capacity > out->limit / 2 ? out->limit : 2 * out->capacity;
    unsigned char *data = realloc(out->data, capacity);
    if (!data)
        return false;
    out->data = data;
    out->capacity = capacity;
    return true;
}

static int damaged(gp_error *error, const char *what) {
    return gp_fail(error, GP_INVALID_TENSOR, "", "gzip: %s", what);
}

/* All members of the file, one after the other, as gunzip expands them. */
static int expand(z_stream *z, const unsigned char *data, size_t size, output *out, gp_error *error) {
    const unsigned char *end = data + size;
    int status = Z_OK;
    z->next_in = (z_const Bytef *)data;
    do {
        const size_t left = (size_t)(end - z->next_in);
        if (status == Z_STREAM_END) {
            if (left == 0)
                return 0;
            if (inflateReset(z) != Z_OK)
                return damaged(error, "the data cannot be read");
        }
        if (out->size == out->capacity && !grow(out))
            return gp_fail(error, GP_OUT_OF_MEMORY, "", "gzip: no memory for the expanded data");
        const size_t room = out->capacity - out->size;
        z->avail_in = left < UINT_MAX ? (uInt)left : UINT_MAX;
        z->next_out = out->data + out->size;
        z->avail_out = room < UINT_MAX ? (uInt)room : UINT_MAX;
        status = inflate(z, Z_NO_FLUSH);
        out->size = (size_t)(z->next_out - out->data);
        if (out->size == out->limit)
            return gp_fail(error, GP_BODY_TOO_LARGE, "", "gzip: the data expands to more than %zu bytes",
                           out->limit - 1);
    } while (status == Z_OK || status == Z_STREAM_END);
    if (status == Z_MEM_ERROR)
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "gzip: no memory to expand the data");
    return damaged(error, status == Z_BUF_ERROR ? "the data ends too early" : "the data is damaged");
}

int gp_gunzip(const void *data, size_t size, size_t max, void **ret_data, size_t *ret_size, gp_error *error) {
    z_stream z = {.next_in = NULL};
    output out = {.limit = max < SIZE_MAX ? max + 1 : max};
    int status = -1;
    if (inflateInit2(&z, 15 + 16) != Z_OK) /* the largest window; gzip only */
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "gzip: no memory to expand the data");
    out.capacity = out.limit < START ? out.limit : START;
    out.data = malloc(out.capacity);
    if (!out.data) {
        gp_fail(error, GP_OUT_OF_MEMORY, "", "gzip: no memory for the expanded data");
        goto out;
    }
    status = expand(&z, data, size, &out, error);
    if (status < 0)
        goto out;
    *ret_data = out.data;
    *ret_size = out.size;
    out.data = NULL;
out:
    free(out.data);
    inflateEnd(&z);
    return status;
}
