/* codec.c -- what all codecs share: problems, element types, conversion, telling formats apart. */
#include "proto/gradd_codec.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

/* ---- problems ---------------------------------------------------------------------------------- */

static const struct {
    int status;
    const char *code, *title;
} problems[GP_PROBLEM_COUNT] = {
    [GP_OK] = {200, "ok", "OK"},
#define P(name, status, code, title) [GP_##name] = {status, code, title},
#include "problems.def"
#undef P
};

/* A number from outside the table is our own mistake, so it reads as one. */
static gp_problem known(gp_problem problem) {
    return (unsigned)problem < GP_PROBLEM_COUNT ? problem : GP_INTERNAL;
}

int gp_problem_status(gp_problem problem) {
    return problems[known(problem)].status;
}

const char *gp_problem_code(gp_problem problem) {
    return problems[known(problem)].code;
}

const char *gp_problem_title(gp_problem problem) {
    return problems[known(problem)].title;
}

int gp_fail(gp_error *error, gp_problem problem, const char *pointer, const char *format, ...) {
    if (!error || error->problem != GP_OK)
        return -1;
    error->problem = problem;
    snprintf(error->pointer, sizeof error->pointer, "%s", pointer);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->detail, sizeof error->detail, format, arguments);
    va_end(arguments);
    return -1;
}

void gp_pointer_add(char *pointer, size_t size, const char *token) {
    size_t used = strlen(pointer);
    if (used + 1 < size)
        pointer[used++] = '/';
    for (; *token && used + 2 < size; token++) {
        const bool escape = *token == '~' || *token == '/';
        pointer[used++] = escape ? '~' : *token;
        if (escape)
            pointer[used++] = *token == '~' ? '0' : '1';
    }
    pointer[used] = '\0';
}

/* ---- element types ----------------------------------------------------------------------------- */

static const struct {
    size_t size;
    const char *name;
} dtypes[GP_DTYPE_COUNT] = {
#define X(id, size, torch, safetensors, numpy) [id] = {size, torch},
    GP_DTYPES(X)
#undef X
};

size_t gp_dtype_size(gp_dtype dtype) {
    return dtypes[dtype].size;
}

const char *gp_dtype_name(gp_dtype dtype) {
    return dtypes[dtype].name;
}

bool gp_dtype_find(const char *name, gp_dtype *ret_dtype) {
    for (int i = 0; i < GP_DTYPE_COUNT; i++)
        if (strcmp(dtypes[i].name, name) == 0) {
            *ret_dtype = (gp_dtype)i;
            return true;
        }
    return false;
}

/* ---- arrays ------------------------------------------------------------------------------------ */

int64_t gp_array_numel(const gp_array *array) {
    int64_t numel = 1;
    for (int i = 0; i < array->rank; i++)
        numel *= array->dim[i];
    return numel;
}

int gp_array_measure(gp_array *array, const char *what, gp_error *error) {
    /* Axes of 0 are left out of the check's product, so that what is derived from the other axes
     * (the bytes of one row) cannot overflow either. */
    int64_t bytes = (int64_t)gp_dtype_size(array->dtype);
    bool empty = false;
    for (int i = 0; i < array->rank; i++) {
        empty |= array->dim[i] == 0;
        if (array->dim[i] < 0 || __builtin_mul_overflow(bytes, array->dim[i] ? array->dim[i] : 1, &bytes))
            return gp_fail(error, GP_INVALID_TENSOR, "",
                           "%s: the shape has more elements than memory can hold", what);
    }
    array->size = empty ? 0 : (size_t)bytes;
    return 0;
}

const char *gp_index_text(const gp_array *array, int64_t position, char *text, size_t size) {
    int64_t index[GP_MAX_RANK] = {0};
    for (int i = array->rank; i-- > 0; position /= array->dim[i])
        index[i] = position % array->dim[i];
    text[0] = '\0';
    for (int i = 0, used = 0; i < array->rank && (size_t)used < size; i++)
        used += snprintf(text + used, size - (size_t)used, "[%lld]", (long long)index[i]);
    return text;
}

bool gp_array_usable(const gp_array *array, gp_dtype dtype) {
    const size_t size = gp_dtype_size(dtype);
    return array->dtype == dtype && (!array->big_endian || size == 1) &&
           (!array->fortran_order || array->rank < 2) && (uintptr_t)array->data % size == 0;
}

/* ---- numbers ----------------------------------------------------------------------------------- */

char *gp_write_decimal(char *out, uint64_t value) {
    char digits[GP_DECIMAL], *at = digits + sizeof digits;
    do
        *--at = (char)('0' + value % 10);
    while (value /= 10);
    const size_t count = (size_t)(digits + sizeof digits - at);
    memcpy(out, at, count);
    return out + count;
}

/* ---- conversion -------------------------------------------------------------------------------- */

/* A conversion goes in blocks: elements are gathered in row-major order, swapped to native-endian,
 * widened to double (which holds every type but int64 exactly) and narrowed with a range check. */
enum { BLOCK = 256 };

typedef union block {
    unsigned char bytes[BLOCK * 8];
    float f32[BLOCK];
    double f64[BLOCK];
    int8_t i8[BLOCK];
    uint8_t u8[BLOCK];
    int16_t i16[BLOCK];
    uint16_t u16[BLOCK];
    int32_t i32[BLOCK];
    uint32_t u32[BLOCK];
    int64_t i64[BLOCK];
    uint64_t u64[BLOCK];
} block;

/* Where the next element in row-major order stands. */
typedef struct cursor {
    const gp_array *array;
    size_t offset;              /* bytes */
    size_t stride[GP_MAX_RANK]; /* bytes; Fortran order only */
    int64_t index[GP_MAX_RANK]; /* Fortran order only */
} cursor;

static cursor cursor_start(const gp_array *array, int64_t position) {
    cursor c = {.array = array};
    size_t stride = gp_dtype_size(array->dtype);
    if (!array->fortran_order) {
        c.offset = (size_t)position * stride;
        return c;
    }
    for (int i = 0; i < array->rank; i++) {
        c.stride[i] = stride;
        stride *= (size_t)array->dim[i];
    }
    for (int i = array->rank; i-- > 0 && position > 0; position /= array->dim[i]) {
        c.index[i] = position % array->dim[i];
        c.offset += c.stride[i] * (size_t)c.index[i];
    }
    return c;
}

/* The next `count` elements, still in the array's byte order. */
static void gather(cursor *c, int64_t count, unsigned char *out) {
    const unsigned char *data = c->array->data;
    const size_t size = gp_dtype_size(c->array->dtype);
    if (!c->array->fortran_order) {
        memcpy(out, data + c->offset, (size_t)count * size);
        c->offset += (size_t)count * size;
        return;
    }
    for (; count > 0; count--, out += size) {
        memcpy(out, data + c->offset, size);
        for (int axis = c->array->rank; axis-- > 0;) {
            c->offset += c->stride[axis];
            if (++c->index[axis] < c->array->dim[axis])
                break;
            c->offset -= c->stride[axis] * (size_t)c->array->dim[axis];
            c->index[axis] = 0;
        }
    }
}

static void swap_bytes(block *b, size_t size, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (size == 2)
            b->u16[i] = __builtin_bswap16(b->u16[i]);
        else if (size == 4)
            b->u32[i] = __builtin_bswap32(b->u32[i]);
        else if (size == 8)
            b->u64[i] = __builtin_bswap64(b->u64[i]);
    }
}

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static float float_of_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31,
                   fraction = half & 0x3ff;
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent > 0)
        return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float tiny = (float)fraction * 0x1p-24f;
    return sign ? -tiny : tiny;
}

/* @return false when a bool is neither 0 nor 1; its position in *ret_bad */
static bool widen(gp_dtype dtype, const block *in, int64_t count, double *out, int64_t *ret_bad) {
#define WIDEN(type, element) \
    case type: \
        for (int64_t i = 0; i < count; i++) \
            out[i] = element; \
        break
    switch (dtype) {
        WIDEN(GP_FLOAT32, in->f32[i]);
        WIDEN(GP_FLOAT64, in->f64[i]);
        WIDEN(GP_FLOAT16, float_of_half(in->u16[i]));
        WIDEN(GP_BFLOAT16, float_of_bits((uint32_t)in->u16[i] << 16));
        WIDEN(GP_INT8, in->i8[i]);
        WIDEN(GP_UINT8, in->u8[i]);
        WIDEN(GP_INT16, in->i16[i]);
        WIDEN(GP_UINT16, in->u16[i]);
        WIDEN(GP_INT32, in->i32[i]);
        WIDEN(GP_UINT32, in->u32[i]);
        WIDEN(GP_BOOL, in->u8[i]);
    case GP_INT64: /* goes its own way */
    case GP_DTYPE_COUNT:
        break;
    }
#undef WIDEN
    for (int64_t i = 0; dtype == GP_BOOL && i < count; i++)
        if (in->u8[i] > 1) {
            *ret_bad = i;
            return false;
        }
    return true;
}

/* @return false at the first value beyond float32's range */
static bool narrow_float(const double *in, int64_t count, float *out, int64_t *ret_bad) {
    bool fits = true;
    for (int64_t i = 0; i < count; i++) {
        out[i] = (float)in[i];
        fits &= isinf(out[i]) == isinf(in[i]);
    }
    for (int64_t i = 0; !fits && i < count; i++)
        if (isinf(out[i]) != isinf(in[i])) {
            *ret_bad = i;
            break;
        }
    return fits;
}

/* @return false at the first value that is not an integer of 64 bits */
static bool narrow_int(const double *in, int64_t count, int64_t *out, int64_t *ret_bad) {
    for (int64_t i = 0; i < count; i++) {
        // cppcheck-suppress incorrectLogicOperator // misreads hexadecimal floats
        const bool in_range = in[i] >= -0x1p63 && in[i] < 0x1p63; /* false for NaN */
        const bool fits = in_range && (double)(int64_t)in[i] == in[i];
        if (!fits) {
            *ret_bad = i;
            return false;
        }
        out[i] = (int64_t)in[i];
    }
    return true;
}

static int fail_value(const gp_array *array, gp_dtype dtype, int64_t position, double value, const char *name,
                      gp_error *error) {
    char index[GP_MAX_RANK * 24], pointer[sizeof error->pointer] = "";
    gp_pointer_add(pointer, sizeof pointer, name);
    return gp_fail(error, GP_INVALID_VALUE, pointer, "%s%s is %.9g, which %s cannot hold", name,
                   gp_index_text(array, position, index, sizeof index), value,
                   gp_dtype_name(array->dtype == GP_BOOL ? GP_BOOL : dtype));
}

int gp_array_convert_part(const gp_array *array, int64_t first, int64_t count, gp_dtype dtype, void *out,
                          const char *name, gp_error *error) {
    const size_t size = gp_dtype_size(array->dtype);
    cursor c = cursor_start(array, first);
    double wide[BLOCK] = {0};
    for (int64_t done = 0; done < count; done += BLOCK) {
        const int64_t n = count - done < BLOCK ? count - done : BLOCK;
        block in;
        int64_t bad = 0;
        gather(&c, n, in.bytes);
        if (array->big_endian)
            swap_bytes(&in, size, n);
        if (array->dtype == dtype) { /* bit for bit: a NaN keeps its payload */
            memcpy((char *)out + (size_t)done * size, in.bytes, (size_t)n * size);
        } else if (array->dtype == GP_INT64) {
            for (int64_t i = 0; i < n; i++)
                ((float *)out)[done + i] = (float)in.i64[i];
        } else if (!widen(array->dtype, &in, n, wide, &bad) ||
                   !(dtype == GP_FLOAT32 ? narrow_float(wide, n, (float *)out + done, &bad)
                                         : narrow_int(wide, n, (int64_t *)out + done, &bad))) {
            return fail_value(array, dtype, first + done + bad, wide[bad], name, error);
        }
    }
    return 0;
}

int gp_array_convert(const gp_array *array, gp_dtype dtype, void *out, const char *name, gp_error *error) {
    return gp_array_convert_part(array, 0, gp_array_numel(array), dtype, out, name, error);
}

/* ---- formats ----------------------------------------------------------------------------------- */

static bool looks_like_safetensors(const unsigned char *bytes, size_t size) {
    const uint64_t largest = 100 << 20; /* bytes of a header: what other readers take at most */
    return size > 8 && bytes[8] == '{' && gp_load_le(bytes, 8) <= largest;
}

static bool looks_like_idx(const unsigned char *bytes, size_t size) {
    return size >= 4 && bytes[0] == 0 && bytes[1] == 0 && bytes[2] >= 0x08 && bytes[2] <= 0x0e &&
           bytes[3] >= 1 && bytes[3] <= GP_MAX_RANK;
}

gp_format gp_format_detect(const void *data, size_t size) {
    const unsigned char *bytes = data;
    if (size >= 6 && memcmp(bytes, "\x93NUMPY", 6) == 0)
        return GP_NPY;
    if (size >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b)
        return GP_GZIP;
    if (looks_like_safetensors(bytes, size)) /* before JSON: the length may begin with the byte of a '{' */
        return GP_SAFETENSORS;
    if (looks_like_idx(bytes, size))
        return GP_IDX;
    while (size > 0 && memchr(" \t\r\n", *bytes, 4))
        bytes++, size--;
    return size > 0 && (*bytes == '{' || *bytes == '[') ? GP_JSON : GP_UNKNOWN;
}
