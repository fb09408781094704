/* gradd_codec.h -- tensors as bytes: npy, safetensors, IDX. Depends on libc and zlib alone, so that
 * clients use it too. Readers are strict: whatever is not exactly the format is refused, and no size
 * is believed before it was checked against the bytes that are there.
 *
 * Functions return 0, or -1 and a reason in a caller-owned gp_error (which may be NULL). */
#ifndef GRADD_CODEC_H
#define GRADD_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GP_MAX_RANK = 8,
    GP_MAX_NAME = 256,                  /* bytes of a tensor's name, with the final NUL */
    GP_NPY_MAX_HEADER = 10000,          /* bytes */
    GP_SAFETENSORS_MAX_HEADER = 1 << 20 /* bytes */
};

/* Why something was refused: the kinds of problem that the wire knows (problems.def). */
typedef enum gp_problem {
    GP_OK,
#define P(name, status, code, title) GP_##name,
#include "problems.def"
#undef P
    GP_PROBLEM_COUNT
} gp_problem;

typedef struct gp_error {
    gp_problem problem;
    char pointer[192]; /* JSON pointer of the field in question, or "" */
    char detail[640];  /* one sentence the user can act on */
} gp_error;

/** Fill in an error unless it holds one already. @return -1 */
int gp_fail(gp_error *error, gp_problem problem, const char *pointer, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/** HTTP status, stable code and title of a problem. */
int gp_problem_status(gp_problem problem);
const char *gp_problem_code(gp_problem problem);
const char *gp_problem_title(gp_problem problem);

enum { GP_DECIMAL = 20 /* bytes of the longest number that gp_write_decimal() writes */ };
/** Write a whole number as decimal digits, without a NUL. @return one past the last digit */
char *gp_write_decimal(char *out, uint64_t value);

/* name, bytes, torch's name, safetensors' name, numpy's descr without byte order */
#define GP_DTYPES(X) \
    X(GP_FLOAT32, 4, "float32", "F32", "f4") \
    X(GP_FLOAT64, 8, "float64", "F64", "f8") \
    X(GP_FLOAT16, 2, "float16", "F16", "f2") \
    X(GP_BFLOAT16, 2, "bfloat16", "BF16", "") \
    X(GP_INT8, 1, "int8", "I8", "i1") \
    X(GP_UINT8, 1, "uint8", "U8", "u1") \
    X(GP_INT16, 2, "int16", "I16", "i2") \
    X(GP_UINT16, 2, "uint16", "U16", "u2") \
    X(GP_INT32, 4, "int32", "I32", "i4") \
    X(GP_UINT32, 4, "uint32", "U32", "u4") \
    X(GP_INT64, 8, "int64", "I64", "i8") \
    X(GP_BOOL, 1, "bool", "BOOL", "b1")

typedef enum gp_dtype {
#define X(name, size, torch, safetensors, numpy) name,
    GP_DTYPES(X)
#undef X
        GP_DTYPE_COUNT
} gp_dtype;

size_t gp_dtype_size(gp_dtype dtype);
/** torch's name: "float32". */
const char *gp_dtype_name(gp_dtype dtype);
/** By torch's name. @return false if there is no such dtype */
bool gp_dtype_find(const char *name, gp_dtype *ret_dtype);

/** A tensor as it stands in a body: a view of bytes that may be unaligned, big-endian or in Fortran
 *  order. Owns nothing. */
typedef struct gp_array {
    gp_dtype dtype;
    int rank;
    int64_t dim[GP_MAX_RANK];
    const void *data;
    size_t size; /* bytes: product of dims times the element's size, checked */
    bool big_endian;
    bool fortran_order;
} gp_array;

int64_t gp_array_numel(const gp_array *array);
/** Does `array` serve as it is for `dtype`: same dtype, little-endian, row-major, aligned? */
bool gp_array_usable(const gp_array *array, gp_dtype dtype);
/**
 * Convert every element, row-major and native-endian.
 *
 * @param dtype GP_FLOAT32 or GP_INT64
 * @param out   numel elements of dtype
 * @param name  what to call the tensor in errors: "input"
 * @return 0; -1: a value does not fit (1e39 as float32, 0.5 or NaN as int64): names index and value.
 *         Infinities and NaN are float32 values. bool is 0 or 1 on the wire, else refused
 */
int gp_array_convert(const gp_array *array, gp_dtype dtype, void *out, const char *name, gp_error *error);
/** The same for `count` elements from the row-major position `first` on; dtype may also be the array's own.
 */
int gp_array_convert_part(const gp_array *array, int64_t first, int64_t count, gp_dtype dtype, void *out,
                          const char *name, gp_error *error);

/** What a body looks like from its first bytes. */
typedef enum gp_format { GP_UNKNOWN, GP_JSON, GP_NPY, GP_SAFETENSORS, GP_IDX, GP_GZIP } gp_format;
gp_format gp_format_detect(const void *data, size_t size);

/* ---- npy: one tensor (numpy's format versions 1.0 to 3.0) -------------------------------------- */

int gp_npy_read(const void *data, size_t size, gp_array *ret_array, gp_error *error);
/** Bytes of the header that precedes the data of such an array: a multiple of 64. */
size_t gp_npy_header_size(const gp_array *array);
/** Write that header (version 1.0). */
void gp_npy_write_header(const gp_array *array, void *out);

/* ---- safetensors: several named tensors ------------------------------------------------------- */

typedef struct gp_named_array {
    char name[GP_MAX_NAME];
    gp_array array;
} gp_named_array;

typedef struct gp_safetensors {
    gp_named_array *arrays; /* in the order of their data */
    size_t count;
    char *metadata; /* the "__metadata__" object as JSON text, or NULL */
} gp_safetensors;

/** Arrays are views of `data`. Release with gp_safetensors_release().
 *  @param max_header bytes; 0: GP_SAFETENSORS_MAX_HEADER */
int gp_safetensors_read(const void *data, size_t size, size_t max_header, gp_safetensors *ret_tensors,
                        gp_error *error);
void gp_safetensors_release(gp_safetensors *tensors);
/** NULL when there is none of that name. */
const gp_array *gp_safetensors_find(const gp_safetensors *tensors, const char *name);
/** One string of "__metadata__". */
typedef struct gp_metadata {
    const char *key, *value; /* UTF-8; key NULL: the end of a list */
} gp_metadata;

/** Bytes of the 8-byte length and the header for these arrays: a multiple of 8 (padded with spaces).
 *  Data follows in array order without gaps. @param metadata NULL: none */
size_t gp_safetensors_header_size(const gp_named_array *arrays, size_t count, const gp_metadata *metadata);
/** Write them. @return how many bytes they are, again */
size_t gp_safetensors_write_header(const gp_named_array *arrays, size_t count, const gp_metadata *metadata,
                                   void *out);
/** Bytes that suffice for them without metadata: sooner known than how many they are. */
size_t gp_safetensors_header_limit(const gp_named_array *arrays, size_t count);

/* ---- IDX: MNIST's format ---------------------------------------------------------------------- */

/** A plain IDX file in memory (gunzip it first). Big-endian, as the format is. */
int gp_idx_read(const void *data, size_t size, gp_array *ret_array, gp_error *error);
/** Where bytes come from: up to `room` of them, at least one; *ret_size 0: the end. @return 0; -1 */
typedef int gp_read(void *argument, void *out, size_t room, size_t *ret_size, gp_error *error);
/** Expands gzip as it is read, all members of it. NULL: no memory.
 *  @param read where the gzip comes from, with `argument`
 *  @param max  bytes that may come out, else GP_BODY_TOO_LARGE */
typedef struct gp_expander gp_expander;
gp_expander *gp_expander_new(gp_read *read, void *argument, uint64_t max);
/** A gp_read of what comes out; its argument is the expander. room > 0. */
int gp_expander_read(void *expander, void *out, size_t room, size_t *ret_size, gp_error *error);
/** NULL is fine. */
void gp_expander_free(gp_expander *expander);
/** Expand gzip to a new buffer, at most `max` bytes. The caller frees *ret_data. */
int gp_gunzip(const void *data, size_t size, size_t max, void **ret_data, size_t *ret_size, gp_error *error);

#endif
