/* json_tensor.c -- a tensor in JSON: nested arrays, or {"dtype", "shape", "data" or "base64"}. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_parse.h"
#include "proto/gradd_proto.h"

/* The fields of a tensor object that were there so far. */
typedef struct object {
    gp_json_source *json;
    gp_json_place place;
    bool has_dtype, has_shape, has_data, has_bytes;
    gp_dtype dtype;
    int rank;
    int64_t dim[GP_MAX_RANK];
    gp_json_numbers numbers; /* "data" */
    unsigned char *bytes;    /* "base64" */
    size_t byte_count;
} object;

static int fail(object *o, gp_problem problem, const char *what) {
    return gp_fail(o->json->error, problem, o->place.pointer, "%s: %s", o->place.name, what);
}

static bool is_float(gp_dtype dtype) {
    return dtype == GP_FLOAT32 || dtype == GP_FLOAT64 || dtype == GP_FLOAT16 || dtype == GP_BFLOAT16;
}

/* ---- fields ------------------------------------------------------------------------------------ */

static int scan_dtype(object *o, gp_json_place place) {
    char name[32];
    gp_scan *scan = &o->json->scan;
    const char *wrong = gp_scan_string(scan, name, sizeof name);
    if (wrong)
        return gp_json_fail_at(o->json, scan->at, "there is %s in %s", wrong, place.name);
    o->has_dtype = gp_dtype_find(name, &o->dtype);
    if (!o->has_dtype)
        return gp_fail(
            o->json->error, GP_UNSUPPORTED_DTYPE, place.pointer,
            "%s \"%s\" is none of float32, float64, float16, bfloat16, int8, uint8, int16, uint16, int32, "
            "uint32, int64, bool",
            place.name, name);
    return 0;
}

static int scan_shape(object *o, gp_json_place place) {
    gp_json_numbers axes;
    int status = -1;
    if (gp_json_scan_numbers(o->json, place, &axes) < 0)
        return -1;
    bool lengths = axes.rank == 1 && axes.integers && !axes.booleans;
    for (size_t i = 0; lengths && i < axes.numel; i++)
        lengths = ((const int64_t *)axes.data)[i] >= 0;
    if (!lengths) {
        gp_fail(o->json->error, GP_INVALID_TENSOR, place.pointer, "%s is not a list of axis lengths",
                place.name);
        goto out;
    }
    if (axes.numel > GP_MAX_RANK) {
        gp_fail(o->json->error, GP_LIMIT_EXCEEDED, place.pointer, "%s has more than %d axes", place.name,
                GP_MAX_RANK);
        goto out;
    }
    for (size_t i = 0; i < axes.numel; i++)
        o->dim[i] = ((const int64_t *)axes.data)[i];
    o->rank = (int)axes.numel;
    o->has_shape = true;
    status = 0;
out:
    free(axes.data);
    return status;
}

static int scan_data(object *o, gp_json_place place) {
    const int status = gp_json_scan_numbers(o->json, place, &o->numbers);
    o->has_data = status == 0;
    return status;
}

/* A base64 digit's value; -1: none. */
static int sextet(char c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Decode RFC 4648's base64, padded. '/' may be escaped, as some JSON writers do.
 * @return false when [at, end) is not exactly that; *ret_size bytes else */
static bool decode_base64(const char *at, const char *end, unsigned char *out, size_t *ret_size) {
    uint32_t group = 0;
    int digits = 0, padding = 0;
    size_t size = 0;
    for (; at < end; at++) {
        if (*at == '\\' && at[1] == '/')
            at++;
        const int value = *at == '=' ? 0 : sextet(*at);
        padding += *at == '=';
        if (value < 0 || (padding && *at != '=') || padding > 2)
            return false;
        group = group << 6 | (uint32_t)value;
        if (++digits % 4 == 0) {
            for (int i = 0; i < 3 - padding; i++)
                out[size++] = (unsigned char)(group >> (16 - 8 * i));
            if (padding && group & ((1u << 8 * padding) - 1)) /* bits that nobody would read */
                return false;
            group = 0;
        } else if (padding && digits % 4 < 3) {
            return false;
        }
        digits %= 4;
    }
    *ret_size = size;
    return digits == 0;
}

static int scan_bytes(object *o, gp_json_place place) {
    gp_scan *scan = &o->json->scan;
    gp_scan_space(scan);
    const char *start = scan->at, *wrong = gp_scan_string(scan, NULL, 0);
    if (wrong)
        return gp_json_fail_at(o->json, scan->at, "there is %s in %s", wrong, place.name);
    const char *text = start + 1, *end = scan->at - 1;
    o->bytes = malloc((size_t)(end - text) / 4 * 3 + 3);
    if (!o->bytes)
        return gp_fail(o->json->error, GP_OUT_OF_MEMORY, place.pointer, "no memory for %s", place.name);
    o->has_bytes = decode_base64(text, end, o->bytes, &o->byte_count);
    if (!o->has_bytes)
        return gp_fail(o->json->error, GP_INVALID_TENSOR, place.pointer,
                       "%s is not base64 (RFC 4648: A-Z a-z 0-9 + /, padded with =)", place.name);
    return 0;
}

static int scan_fields(object *o) {
    static const struct {
        char name[8];
        int (*scan)(object *o, gp_json_place place);
    } fields[] = {{"dtype", scan_dtype}, {"shape", scan_shape}, {"data", scan_data}, {"base64", scan_bytes}};
    enum { FIELDS = sizeof fields / sizeof fields[0] };
    bool seen[FIELDS] = {false};
    gp_scan *scan = &o->json->scan;

    if (gp_scan_take(scan, '}'))
        return 0;
    do {
        char key[GP_MAX_NAME], name[2 * GP_MAX_NAME], pointer[192];
        int field = 0;
        const char *wrong = gp_scan_string(scan, key, sizeof key);
        if (wrong)
            return gp_json_fail_at(o->json, scan->at, "there is %s", wrong);
        snprintf(name, sizeof name, "%s.%s", o->place.name, key);
        snprintf(pointer, sizeof pointer, "%s", o->place.pointer);
        gp_pointer_add(pointer, sizeof pointer, key);
        while (field < FIELDS && strcmp(fields[field].name, key) != 0)
            field++;
        if (field == FIELDS)
            return gp_fail(
                o->json->error, GP_UNKNOWN_FIELD, pointer,
                "%s is unknown: a tensor is nested lists of numbers, or an object with dtype, shape and "
                "data or base64",
                name);
        if (seen[field])
            return gp_json_fail_at(o->json, scan->at, "%s is given twice", name);
        seen[field] = true;
        if (!gp_scan_take(scan, ':'))
            return gp_json_fail_at(o->json, scan->at, "':' is expected after \"%s\"", key);
        gp_scan_space(scan);
        if (fields[field].scan(o, (gp_json_place){name, pointer}) < 0)
            return -1;
    } while (gp_scan_take(scan, ','));
    return gp_scan_take(scan, '}')
               ? 0
               : gp_json_fail_at(o->json, scan->at, "',' or '}' is expected in %s", o->place.name);
}

/* ---- putting it together ------------------------------------------------------------------------- */

/* How far the values of a dtype reach. */
static void dtype_range(gp_dtype dtype, double *ret_min, double *ret_max) {
    static const double max[GP_DTYPE_COUNT] = {
        [GP_FLOAT32] = INFINITY, [GP_FLOAT64] = INFINITY,  [GP_FLOAT16] = 65504,   [GP_BFLOAT16] = 0x1.fep127,
        [GP_INT8] = INT8_MAX,    [GP_UINT8] = UINT8_MAX,   [GP_INT16] = INT16_MAX, [GP_UINT16] = UINT16_MAX,
        [GP_INT32] = INT32_MAX,  [GP_UINT32] = UINT32_MAX, [GP_INT64] = 0x1p63,    [GP_BOOL] = 1,
    };
    const bool is_unsigned =
        dtype == GP_UINT8 || dtype == GP_UINT16 || dtype == GP_UINT32 || dtype == GP_BOOL;
    *ret_max = max[dtype];
    *ret_min = is_unsigned ? 0 : is_float(dtype) ? -max[dtype] : -max[dtype] - 1;
}

/* Do the values lie in the range of the dtype they are said to have? */
static int check_range(object *o) {
    double min, max;
    dtype_range(o->dtype, &min, &max);
    for (size_t i = 0; i < o->numbers.numel; i++) {
        const double value = o->numbers.integers ? (double)((const int64_t *)o->numbers.data)[i]
                                                 : (double)((const float *)o->numbers.data)[i];
        if ((value < min || value > max) && isfinite(value)) {
            gp_array array = {.rank = o->numbers.rank};
            char index[GP_MAX_RANK * 24];
            memcpy(array.dim, o->numbers.dim, sizeof array.dim);
            return gp_fail(o->json->error, GP_INVALID_VALUE, o->place.pointer,
                           "%s.data%s is %.9g, which %s cannot hold", o->place.name,
                           gp_index_text(&array, (int64_t)i, index, sizeof index), value,
                           gp_dtype_name(o->dtype));
        }
    }
    return 0;
}

/* "data" is nested as "shape" says, or flat. */
static int check_shape(object *o) {
    const gp_json_numbers *numbers = &o->numbers;
    gp_array declared = {.rank = o->rank, .dtype = GP_INT64};
    memcpy(declared.dim, o->dim, sizeof declared.dim);
    if (gp_array_measure(&declared, o->place.name, o->json->error) < 0)
        return -1;
    const bool nested =
        numbers->rank == o->rank && memcmp(numbers->dim, o->dim, (size_t)o->rank * sizeof *o->dim) == 0;
    const bool flat = numbers->rank == 1 || numbers->numel == 0; /* [[], []] cannot say what follows its 0 */
    if (!nested && !(flat && (size_t)gp_array_numel(&declared) == numbers->numel))
        return fail(o, GP_INVALID_TENSOR,
                    "data is neither nested as shape says nor a flat list of so many elements");
    return 0;
}

static int take_data(object *o, gp_json_tensor *ret) {
    gp_json_numbers *numbers = &o->numbers;
    if (numbers->booleans && !(o->has_dtype && o->dtype == GP_BOOL))
        return fail(o, GP_INVALID_TENSOR, "true and false are read in tensors with \"dtype\": \"bool\" only");
    if (o->has_shape && check_shape(o) < 0)
        return -1;
    if (o->has_dtype && check_range(o) < 0)
        return -1;
    if (o->has_dtype && !numbers->integers && !is_float(o->dtype))
        return gp_fail(o->json->error, GP_INVALID_VALUE, o->place.pointer,
                       "%s: dtype %s takes integers only, written without '.' and exponent", o->place.name,
                       gp_dtype_name(o->dtype));
    if (o->has_dtype && numbers->integers && is_float(o->dtype))
        gp_json_turn_to_floats(numbers);
    ret->memory = numbers->data;
    ret->array.dtype = numbers->integers ? GP_INT64 : GP_FLOAT32;
    ret->array.rank = o->has_shape ? o->rank : numbers->rank;
    memcpy(ret->array.dim, o->has_shape ? o->dim : numbers->dim, sizeof ret->array.dim);
    ret->array.data = ret->memory;
    ret->array.size = numbers->numel * gp_dtype_size(ret->array.dtype);
    numbers->data = NULL;
    return 0;
}

static int take_bytes(object *o, gp_json_tensor *ret) {
    gp_array array = {.dtype = o->dtype, .rank = o->rank, .data = o->bytes};
    const gp_dtype kept = is_float(o->dtype) ? GP_FLOAT32 : GP_INT64;
    if (!o->has_dtype || !o->has_shape)
        return fail(o, GP_MISSING_FIELD, "base64 needs dtype and shape beside it");
    memcpy(array.dim, o->dim, sizeof array.dim);
    if (gp_array_measure(&array, o->place.name, o->json->error) < 0)
        return -1;
    if (array.size != o->byte_count)
        return gp_fail(o->json->error, GP_INVALID_TENSOR, o->place.pointer,
                       "%s: shape and dtype make %zu bytes, but base64 holds %zu", o->place.name, array.size,
                       o->byte_count);
    ret->array = array;
    ret->memory = o->bytes;
    if (gp_array_usable(&array, kept)) {
        o->bytes = NULL;
        return 0;
    }
    const size_t size = (size_t)gp_array_numel(&array) * gp_dtype_size(kept);
    void *converted = malloc(size ? size : 1);
    if (!converted)
        return fail(o, GP_OUT_OF_MEMORY, "no memory for the tensor");
    gp_error wrong = {.problem = GP_OK};
    if (gp_array_convert(&array, kept, converted, o->place.name, &wrong) < 0) {
        free(converted);
        return gp_fail(o->json->error, wrong.problem, o->place.pointer, "%s", wrong.detail);
    }
    ret->array.dtype = kept;
    ret->array.size = size;
    ret->array.data = ret->memory = converted;
    return 0;
}

int gp_json_scan_tensor(gp_json_source *json, gp_json_place place, gp_json_tensor *ret_tensor) {
    object o = {.json = json, .place = place};
    gp_json_tensor tensor = {.memory = NULL};
    int status = -1;
    if (!gp_scan_take(&json->scan, '{')) {
        if (scan_data(&o, place) == 0)
            status = take_data(&o, &tensor);
        goto out;
    }
    if (scan_fields(&o) < 0)
        goto out;
    if (o.has_data == o.has_bytes)
        fail(&o, o.has_data ? GP_INVALID_TENSOR : GP_MISSING_FIELD,
             "a tensor object needs data or base64, one of them");
    else
        status = o.has_data ? take_data(&o, &tensor) : take_bytes(&o, &tensor);
out:
    if (status == 0)
        *ret_tensor = tensor;
    free(o.numbers.data);
    free(o.bytes);
    return status;
}
