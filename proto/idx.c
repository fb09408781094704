/* idx.c -- MNIST's format, and the gzip around it.
 * IDX: two zero bytes, the element type, the number of axes, each axis as a big-endian 32-bit integer,
 * then the data, big-endian and row-major. Source: the description on MNIST's page by LeCun et al. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
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

enum {
    PIECE = 1 << 16, /* compressed bytes that are read at once */
    START = 1 << 16  /* bytes of the first output buffer */
};

struct gp_expander {
    z_stream z;
    gp_read *read;
    void *argument;
    uint64_t max, left; /* bytes that may come out: in all, from now on */
    bool between;       /* a member has ended: another one may follow, or nothing */
    unsigned char in[PIECE];
};

gp_expander *gp_expander_new(gp_read *read, void *argument, uint64_t max) {
    gp_expander *expander = calloc(1, sizeof *expander);
    if (!expander)
        return NULL;
    expander->read = read;
    expander->argument = argument;
    expander->max = expander->left = max;
    if (inflateInit2(&expander->z, 15 + 16) != Z_OK) { /* the largest window; gzip only */
        free(expander);
        return NULL;
    }
    return expander;
}

void gp_expander_free(gp_expander *expander) {
    if (expander) {
        inflateEnd(&expander->z);
        free(expander);
    }
}

static int damaged(gp_error *error, const char *what) {
    return gp_fail(error, GP_INVALID_TENSOR, "", "gzip: %s", what);
}

/* More of the file when all is used up. *ret_end: there is none, and may be none. */
static int refill(gp_expander *expander, bool *ret_end, gp_error *error) {
    size_t size = 0;
    *ret_end = false;
    if (expander->z.avail_in)
        return 0;
    if (expander->read(expander->argument, expander->in, sizeof expander->in, &size, error) < 0)
        return -1;
    expander->z.next_in = expander->in;
    expander->z.avail_in = (uInt)size;
    *ret_end = size == 0 && expander->between;
    return size || *ret_end ? 0 : damaged(error, "the data ends too early");
}

/* Expand what there is into what room there is. */
static int expand(gp_expander *expander, gp_error *error) {
    if (expander->between && inflateReset(&expander->z) != Z_OK)
        return damaged(error, "the data cannot be read");
    const int status = inflate(&expander->z, Z_NO_FLUSH);
    expander->between = status == Z_STREAM_END;
    if (status == Z_MEM_ERROR)
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "gzip: no memory to expand the data");
    return status == Z_OK || status == Z_STREAM_END ? 0 : damaged(error, "the data is damaged");
}

int gp_expander_read(void *argument, void *out, size_t room, size_t *ret_size, gp_error *error) {
    gp_expander *expander = argument;
    const uInt most = room < UINT_MAX ? (uInt)room : UINT_MAX;
    bool end = false;
    expander->z.next_out = out;
    expander->z.avail_out = most;
    while (expander->z.avail_out == most && !end) {
        if (refill(expander, &end, error) < 0 || (!end && expand(expander, error) < 0))
            return -1;
    }
    const uInt size = most - expander->z.avail_out;
    if (size > expander->left)
        return gp_fail(error, GP_BODY_TOO_LARGE, "", "gzip: the data expands to more than %llu bytes",
                       (unsigned long long)expander->max);
    expander->left -= size;
    *ret_size = size;
    return 0;
}

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

/* Bytes in memory, as a file is read. */
typedef struct memory {
    const unsigned char *at;
    size_t left;
} memory;

static int read_memory(void *argument, void *out, size_t room, size_t *ret_size, gp_error *error) {
    memory *from = argument;
    const size_t size = from->left < room ? from->left : room;
    (void)error;
    if (size)
        memcpy(out, from->at, size);
    from->at += size;
    from->left -= size;
    *ret_size = size;
    return 0;
}

int gp_gunzip(const void *data, size_t size, size_t max, void **ret_data, size_t *ret_size, gp_error *error) {
    memory from = {data, size};
    output out = {.limit = max < SIZE_MAX ? max + 1 : max};
    int status = -1;
    size_t got = 1;
    gp_expander *expander = gp_expander_new(read_memory, &from, max);
    out.capacity = out.limit < START ? out.limit : START;
    out.data = malloc(out.capacity);
    if (!expander || !out.data) {
        gp_fail(error, GP_OUT_OF_MEMORY, "", "gzip: no memory to expand the data");
        goto out;
    }
    while (got) {
        if (out.size == out.capacity && !grow(&out)) {
            gp_fail(error, GP_OUT_OF_MEMORY, "", "gzip: no memory for the expanded data");
            goto out;
        }
        if (gp_expander_read(expander, out.data + out.size, out.capacity - out.size, &got, error) < 0)
            goto out;
        out.size += got;
    }
    *ret_data = out.data;
    *ret_size = out.size;
    out.data = NULL;
    status = 0;
out:
    free(out.data);
    gp_expander_free(expander);
    return status;
}
