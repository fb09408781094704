/* safetensors.c -- named tensors in one body: the header's length (64 bits, little-endian), the header (a
 * JSON object: name to dtype, shape and data_offsets), the data. Source: the format's description in
 * huggingface/safetensors. The header is scanned flat, so that the client library needs no JSON parser. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "json_scan.h"

static const char names[GP_DTYPE_COUNT][8] = {
#define X(id, size, torch, safetensors, numpy) [id] = safetensors,
    GP_DTYPES(X)
#undef X
};

enum { LENGTH = 8 /* bytes of the header's length */ };

/* A header on its way into tensors. */
typedef struct reader {
    gp_scan scan;
    size_t header; /* bytes */
    const char *data;
    size_t data_size;
    gp_safetensors tensors;
    size_t capacity; /* of tensors.arrays */
    gp_error *error;
} reader;

static int bad(reader *r, const char *what) {
    return gp_fail(r->error, GP_INVALID_TENSOR, "", "safetensors: %s", what);
}

static int bad_tensor(reader *r, const char *name, const char *what) {
    return gp_fail(r->error, GP_INVALID_TENSOR, "", "safetensors: tensor \"%s\" %s", name, what);
}

static int no_memory(reader *r) {
    return gp_fail(r->error, GP_OUT_OF_MEMORY, "", "safetensors: no memory for the header");
}

static int scan_string(reader *r, char *out, size_t size) {
    const char *wrong = gp_scan_string(&r->scan, out, size);
    return wrong ? gp_fail(r->error, GP_INVALID_TENSOR, "", "safetensors: there is %s in the header", wrong)
                 : 0;
}

static int scan_colon(reader *r) {
    return gp_scan_take(&r->scan, ':') ? 0 : bad(r, "the header is not valid JSON: a ':' is missing");
}

/* After a member or element: another one (true), or `close`. Anything else fails. */
static int scan_more(reader *r, char close, bool *ret_more) {
    *ret_more = gp_scan_take(&r->scan, ',');
    if (*ret_more || gp_scan_take(&r->scan, close))
        return 0;
    return gp_fail(r->error, GP_INVALID_TENSOR, "",
                   "safetensors: the header is not valid JSON: a ',' or '%c' is missing", close);
}

/* A whole number, 0 ... 2^63 - 1. */
static bool scan_whole(reader *r, int64_t *ret_value) {
    int64_t value = 0;
    gp_scan_space(&r->scan);
    const char *start = r->scan.at, *at = start;
    for (; at < r->scan.end && *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *at - '0', &value))
            return false;
    r->scan.at = at;
    *ret_value = value;
    return at > start && (*start != '0' || at == start + 1);
}

/* A list of at most `max` whole numbers. *ret_count is max + 1 when there are more. */
static int scan_list(reader *r, const char *name, int64_t *out, int max, int *ret_count) {
    bool more = true;
    int count = 0;
    if (!gp_scan_take(&r->scan, '['))
        return bad_tensor(r, name, "has a shape or data_offsets that is not a list");
    if (gp_scan_take(&r->scan, ']'))
        more = false;
    for (; more; count++) {
        int64_t value;
        if (!scan_whole(r, &value))
            return bad_tensor(r, name, "has a shape or data_offsets with something else than whole numbers");
        if (count == max) {
            count++;
            break;
        }
        out[count] = value;
        if (scan_more(r, ']', &more) < 0)
            return -1;
    }
    *ret_count = count;
    return 0;
}

/* ---- one tensor's fields ----------------------------------------------------------------------- */

/* What one entry of the header says. */
typedef struct entry {
    gp_named_array named;
    int64_t offsets[2];
} entry;

static int scan_dtype(reader *r, entry *e) {
    char text[32];
    if (scan_string(r, text, sizeof text) < 0)
        return -1;
    for (int i = 0; i < GP_DTYPE_COUNT; i++)
        if (strcmp(names[i], text) == 0) {
            e->named.array.dtype = (gp_dtype)i;
            return 0;
        }
    return gp_fail(r->error, GP_UNSUPPORTED_DTYPE, "",
                   "safetensors: tensor \"%s\" has dtype %s, which is not read here; save it as F32",
                   e->named.name, text);
}

static int scan_shape(reader *r, entry *e) {
    if (scan_list(r, e->named.name, e->named.array.dim, GP_MAX_RANK, &e->named.array.rank) < 0)
        return -1;
    if (e->named.array.rank > GP_MAX_RANK)
        return gp_fail(r->error, GP_LIMIT_EXCEEDED, "", "safetensors: tensor \"%s\" has more than %d axes",
                       e->named.name, GP_MAX_RANK);
    return 0;
}

static int scan_offsets(reader *r, entry *e) {
    int count = 0;
    if (scan_list(r, e->named.name, e->offsets, 2, &count) < 0)
        return -1;
    return count == 2 ? 0 : bad_tensor(r, e->named.name, "needs two data_offsets");
}

static int scan_entry(reader *r, entry *e) {
    static const struct {
        char name[16];
        int (*scan)(reader *r, entry *e);
    } fields[] = {{"dtype", scan_dtype}, {"shape", scan_shape}, {"data_offsets", scan_offsets}};
    enum { FIELDS = sizeof fields / sizeof fields[0] };
    bool seen[FIELDS] = {false}, more = true;

    if (!gp_scan_take(&r->scan, '{'))
        return bad_tensor(r, e->named.name, "is not described by an object");
    while (more) {
        char name[GP_MAX_NAME];
        int field = 0;
        if (scan_string(r, name, sizeof name) < 0 || scan_colon(r) < 0)
            return -1;
        while (field < FIELDS && strcmp(fields[field].name, name) != 0)
            field++;
        if (field == FIELDS || seen[field])
            return gp_fail(r->error, GP_INVALID_TENSOR, "", "safetensors: tensor \"%s\" has %s field \"%s\"",
                           e->named.name, field == FIELDS ? "an unknown" : "twice the", name);
        seen[field] = true;
        if (fields[field].scan(r, e) < 0 || scan_more(r, '}', &more) < 0)
            return -1;
    }
    for (int field = 0; field < FIELDS; field++)
        if (!seen[field])
            return gp_fail(r->error, GP_INVALID_TENSOR, "", "safetensors: tensor \"%s\" has no %s",
                           e->named.name, fields[field].name);
    return 0;
}

/* Check an entry's numbers against each other; where its data stands in the body is checked for all. */
static int check_entry(reader *r, entry *e) {
    if (gp_array_measure(&e->named.array, e->named.name, r->error) < 0)
        return -1;
    const int64_t begin = e->offsets[0], end = e->offsets[1], span = end - begin;
    if (span < 0)
        return bad_tensor(r, e->named.name, "ends before it begins (data_offsets)");
    if ((uint64_t)end > r->data_size)
        return gp_fail(r->error, GP_INVALID_TENSOR, "",
                       "safetensors: tensor \"%s\": ends at byte %lld of the data, which has %zu",
                       e->named.name, (long long)end, r->data_size);
    if ((uint64_t)span != e->named.array.size)
        return gp_fail(
            r->error, GP_INVALID_TENSOR, "",
            "safetensors: tensor \"%s\": shape and dtype make %zu bytes, but its data_offsets span %lld",
            e->named.name, e->named.array.size, (long long)span);
    e->named.array.data = r->data + begin;
    return 0;
}

static int add_entry(reader *r, const entry *e) {
    if (r->tensors.count == r->capacity) {
        const size_t capacity = r->capacity ? 2 * r->capacity : 16; /* bounded by the header's length */
        gp_named_array *arrays = realloc(r->tensors.arrays, capacity * sizeof *arrays);
        if (!arrays)
            return no_memory(r);
        r->tensors.arrays = arrays;
        r->capacity = capacity;
    }
    r->tensors.arrays[r->tensors.count++] = e->named;
    return 0;
}

/* ---- the whole header -------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorts the names. */
static int check_duplicates(reader *r, const char **all, size_t count) {
    if (count > 1)
        qsort(all, count, sizeof *all, compare_names);
    for (size_t i = 1; i < count; i++)
        if (strcmp(all[i - 1], all[i]) == 0)
            return gp_fail(r->error, GP_INVALID_TENSOR, "", "safetensors: \"%s\" stands twice in the header",
                           all[i]);
    return 0;
}

/* {"text": "text", ...}: checked and kept as it stands. */
static int scan_metadata(reader *r) {
    const char *start = r->scan.at;
    char *keys = malloc(r->header), *at = keys; /* decoded, a string is never longer than it was */
    const char **all = NULL;
    size_t count = 0, capacity = 0;
    int status = -1;
    bool more;

    if (!keys) {
        no_memory(r);
        goto out;
    }
    if (!gp_scan_take(&r->scan, '{')) {
        bad(r, "__metadata__ is not an object of strings");
        goto out;
    }
    for (more = !gp_scan_take(&r->scan, '}'); more; at += strlen(at) + 1) {
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            const char **grown = realloc(all, capacity * sizeof *grown);
            if (!grown) {
                no_memory(r);
                goto out;
            }
            all = grown;
        }
        all[count++] = at;
        if (scan_string(r, at, r->header - (size_t)(at - keys)) < 0 || scan_colon(r) < 0 ||
            scan_string(r, NULL, 0) < 0 || scan_more(r, '}', &more) < 0)
            goto out;
    }
    if (check_duplicates(r, all, count) < 0)
        goto out;
    const size_t length = (size_t)(r->scan.at - start);
    r->tensors.metadata = malloc(length + 1); /* not strndup: the header has no NUL behind it */
    status = r->tensors.metadata ? 0 : no_memory(r);
    if (r->tensors.metadata) {
        memcpy(r->tensors.metadata, start, length);
        r->tensors.metadata[length] = 0;
    }
out:
    free(all);
    free(keys);
    return status;
}

static int scan_header(reader *r) {
    bool more;
    if (r->scan.at == r->scan.end || *r->scan.at != '{')
        return bad(r, "the header does not begin with '{'");
    r->scan.at++;
    for (more = !gp_scan_take(&r->scan, '}'); more;) {
        entry e = {.offsets = {0}};
        if (scan_string(r, e.named.name, sizeof e.named.name) < 0 || scan_colon(r) < 0)
            return -1;
        if (strcmp(e.named.name, "__metadata__") == 0) {
            if (r->tensors.metadata)
                return bad(r, "\"__metadata__\" stands twice in the header");
            gp_scan_space(&r->scan);
            if (scan_metadata(r) < 0)
                return -1;
        } else if (scan_entry(r, &e) < 0 || check_entry(r, &e) < 0 || add_entry(r, &e) < 0) {
            return -1;
        }
        if (scan_more(r, '}', &more) < 0)
            return -1;
    }
    while (r->scan.at < r->scan.end && *r->scan.at == ' ')
        r->scan.at++;
    return r->scan.at == r->scan.end ? 0 : bad(r, "something follows the header's object");
}

static int check_names(reader *r) {
    const size_t count = r->tensors.count;
    const char **all = malloc((count ? count : 1) * sizeof *all);
    if (!all)
        return no_memory(r);
    for (size_t i = 0; i < count; i++)
        all[i] = r->tensors.arrays[i].name;
    const int status = check_duplicates(r, all, count);
    free(all);
    return status;
}

static int compare_data(const void *a, const void *b) {
    const gp_array *x = &((const gp_named_array *)a)->array, *y = &((const gp_named_array *)b)->array;
    const uintptr_t u = (uintptr_t)x->data, v = (uintptr_t)y->data;
    return u != v ? (u < v ? -1 : 1) : (x->size > y->size) - (x->size < y->size);
}

/* Put the tensors in the order of their data, which must cover the body without gap or overlap. */
static int check_cover(reader *r) {
    const char *expected = r->data;
    if (r->tensors.count > 1)
        qsort(r->tensors.arrays, r->tensors.count, sizeof *r->tensors.arrays, compare_data);
    for (size_t i = 0; i < r->tensors.count; i++) {
        const gp_named_array *named = &r->tensors.arrays[i];
        if (named->array.data != expected)
            return bad_tensor(r, named->name, "does not begin where the one before it ends (data_offsets)");
        expected += named->array.size;
    }
    if ((size_t)(expected - r->data) != r->data_size)
        return gp_fail(r->error, GP_INVALID_TENSOR, "",
                       "safetensors: the tensors end after %zu bytes of data, but %zu follow the header",
                       (size_t)(expected - r->data), r->data_size);
    return 0;
}

int gp_safetensors_read(const void *data, size_t size, size_t max_header, gp_safetensors *ret_tensors,
                        gp_error *error) {
    reader r = {.error = error};
    const size_t max = max_header ? max_header : GP_SAFETENSORS_MAX_HEADER;
    if (size < LENGTH)
        return bad(&r, "the data is shorter than the header's length field");
    const uint64_t header = gp_load_le(data, LENGTH);
    if (header > max)
        return gp_fail(error, GP_LIMIT_EXCEEDED, "",
                       "safetensors: the header has %llu bytes, at most %zu are read",
                       (unsigned long long)header, max);
    if (header > size - LENGTH)
        return bad(&r, "the data ends within the header");
    r.header = (size_t)header;
    r.scan.at = (const char *)data + LENGTH;
    r.scan.end = r.data = r.scan.at + r.header;
    r.data_size = size - LENGTH - r.header;
    if (scan_header(&r) < 0 || check_names(&r) < 0 || check_cover(&r) < 0) {
        gp_safetensors_release(&r.tensors);
        return -1;
    }
    *ret_tensors = r.tensors;
    return 0;
}

void gp_safetensors_release(gp_safetensors *tensors) {
    free(tensors->arrays);
    free(tensors->metadata);
    *tensors = (gp_safetensors){.count = 0};
}

const gp_array *gp_safetensors_find(const gp_safetensors *tensors, const char *name) {
    for (size_t i = 0; i < tensors->count; i++)
        if (strcmp(tensors->arrays[i].name, name) == 0)
            return &tensors->arrays[i].array;
    return NULL;
}

/* ---- writing ----------------------------------------------------------------------------------- */

/* Bytes on their way out, or with out NULL only counted. */
typedef struct sink {
    char *out;
    size_t size;
} sink;

static void put(sink *s, const char *bytes, size_t size) {
    if (s->out)
        memcpy(s->out + s->size, bytes, size);
    s->size += size;
}

static void put_text(sink *s, const char *text) {
    put(s, text, strlen(text));
}

static void put_number(sink *s, size_t number) {
    char text[24];
    put(s, text, (size_t)snprintf(text, sizeof text, "%zu", number));
}

static void put_string(sink *s, const char *string) {
    put_text(s, "\"");
    for (; *string; string++) {
        char escaped[8] = {*string};
        if (*string == '"' || *string == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", *string);
        else if ((unsigned char)*string < 0x20)
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)*string);
        put_text(s, escaped);
    }
    put_text(s, "\"");
}

static void put_entry(sink *s, const gp_named_array *named, size_t begin) {
    put_string(s, named->name);
    put_text(s, ":{\"dtype\":\"");
    put_text(s, names[named->array.dtype]);
    put_text(s, "\",\"shape\":[");
    for (int i = 0; i < named->array.rank; i++) {
        put_text(s, i ? "," : "");
        put_number(s, (size_t)named->array.dim[i]);
    }
    put_text(s, "],\"data_offsets\":[");
    put_number(s, begin);
    put_text(s, ",");
    put_number(s, begin + named->array.size);
    put_text(s, "]}");
}

static void put_metadata(sink *s, const gp_metadata *metadata) {
    put_text(s, "\"__metadata__\":{");
    for (size_t i = 0; metadata[i].key; i++) {
        put_text(s, i ? "," : "");
        put_string(s, metadata[i].key);
        put_text(s, ":");
        put_string(s, metadata[i].value);
    }
    put_text(s, "}");
}

/* The header's object, padded so that the data begins at a multiple of 8. */
static void put_header(sink *s, const gp_named_array *arrays, size_t count, const gp_metadata *metadata) {
    size_t begin = 0;
    put_text(s, "{");
    if (metadata)
        put_metadata(s, metadata);
    for (size_t i = 0; i < count; begin += arrays[i++].array.size) {
        put_text(s, i || metadata ? "," : "");
        put_entry(s, &arrays[i], begin);
    }
    put_text(s, "}");
    put(s, "        ", (8 - s->size % 8) % 8);
}

size_t gp_safetensors_header_size(const gp_named_array *arrays, size_t count, const gp_metadata *metadata) {
    sink s = {.out = NULL};
    put_header(&s, arrays, count, metadata);
    return LENGTH + s.size;
}

void gp_safetensors_write_header(const gp_named_array *arrays, size_t count, const gp_metadata *metadata,
                                 void *out) {
    sink s = {.out = (char *)out + LENGTH};
    put_header(&s, arrays, count, metadata);
    for (int i = 0; i < LENGTH; i++)
        ((unsigned char *)out)[i] = (unsigned char)((uint64_t)s.size >> 8 * i);
}
