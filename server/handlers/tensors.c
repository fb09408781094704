/* tensors.c */
#include "tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a query parameter's text is: a number, true, false, an object ...; anything else is a string. */
static json_t *scalar(const char *name, const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (!value) {
        value = json_string(text);
    }
    /* ?loss=MSELoss is short for {"type": "MSELoss"} */
    return json_is_string(value) && !strcmp(name, "loss") ? json_pack("{s:o}", "type", value) : value;
}

static int add_query(const gs_request *request, json_t *scalars, gp_error *error) {
    const gs_uri *uri = &request->uri;
    for (size_t i = 0; i < uri->parameter_count; i++) {
        const gs_parameter *parameter = &uri->parameters[i];
        if (json_object_get(scalars, parameter->name)) {
            return gp_fail(error, GP_BAD_REQUEST, "", "\"%.64s\" stands in the body and in the query string",
                           parameter->name);
        }
        if (json_object_set_new(scalars, parameter->name, scalar(parameter->name, parameter->value))) {
            return gp_fail(error, GP_INVALID_VALUE, "", "the query parameter \"%.64s\" is not UTF-8",
                           parameter->name);
        }
    }
    return 0;
}

/* A new part of the group, or NULL: there are too many. */
static gs_tensor *add_part(gs_tensors *tensors, const char *name) {
    if (tensors->parts == GD_MAX_HEADS || strlen(name) >= GD_MAX_NAME) {
        return NULL;
    }
    char *copy = tensors->part_names[tensors->parts++];
    snprintf(copy, GD_MAX_NAME, "%s", name);
    gs_tensor *item = &tensors->items[tensors->count++];
    *item = (gs_tensor){.name = copy};
    return item;
}

/* What was parsed becomes an item's: its memory too. */
static int move_tensor(gs_request *request, gp_json_tensor *from, gs_tensor *item, gp_error *error) {
    item->array = from->array;
    item->buffer = gs_buffer_wrap(&request->server->bodies, from->memory, item->array.size);
    if (!item->buffer) {
        return gp_fail(error, GP_OVERLOADED, "",
                       "request bodies take as much memory as --max-body-memory allows; try again");
    }
    from->memory = NULL; /* the buffer's now */
    item->found = true;
    return 0;
}

static int move_group(gs_request *request, gp_json_member *member, gs_tensors *tensors, gp_error *error) {
    if (!member->found) {
        return 0;
    }
    if (!member->part_count) {
        return move_tensor(request, &member->tensor, add_part(tensors, tensors->group), error);
    }
    int result = 0;
    for (size_t i = 0; i < member->part_count && !result; i++) {
        gp_json_part *part = &member->parts[i];
        result = move_tensor(request, &part->tensor, add_part(tensors, part->name), error);
    }
    return result;
}

static int read_json(gs_request *request, gs_tensors *tensors, gp_error *error) {
    gp_json_member members[GD_MAX_INPUTS + 1] = {0};
    gp_json_part parts[GD_MAX_HEADS] = {0};
    const gs_buffer *body = request->body;
    const size_t count = tensors->count, with_group = count + (tensors->group != NULL);
    for (size_t i = 0; i < count; i++) {
        members[i].name = tensors->items[i].name;
    }
    if (tensors->group) {
        members[count] = (gp_json_member){.name = tensors->group, .parts = parts, .part_limit = GD_MAX_HEADS};
    }
    bool empty = !body || !body->size;
    int result = gp_json_read(empty ? "{}" : body->data, empty ? 2 : body->size, members, with_group,
                              &tensors->scalars, error);
    for (size_t i = 0; i < count && !result; i++) {
        if (members[i].found) {
            result = move_tensor(request, &members[i].tensor, &tensors->items[i], error);
        }
    }
    if (tensors->group && !result) {
        result = move_group(request, &members[count], tensors, error);
    }
    gp_json_members_release(members, with_group);
    return result;
}

static void set_in_place(gs_request *request, gs_tensor *item, const gp_array *array) {
    item->array = *array;
    item->buffer = gs_buffer_ref(request->body);
    item->found = true;
}

static int read_safetensors(gs_request *request, gs_tensors *tensors, gp_error *error) {
    gp_safetensors read;
    if (gp_safetensors_read(request->body->data, request->body->size, 0, &read, error)) {
        return -1;
    }
    int result = 0;
    for (size_t i = 0; i < read.count && !result; i++) {
        size_t at = 0;
        while (at < tensors->count - tensors->parts && strcmp(tensors->items[at].name, read.arrays[i].name)) {
            at++;
        }
        gs_tensor *item = at < tensors->count - tensors->parts ? &tensors->items[at]
                          : tensors->group                     ? add_part(tensors, read.arrays[i].name)
                                                               : NULL;
        if (item) {
            set_in_place(request, item, &read.arrays[i].array);
        } else {
            result =
                gp_fail(error, GP_UNKNOWN_FIELD, "", "there is no tensor named \"%.64s\" here; \"%s\" is one",
                        read.arrays[i].name, tensors->count ? tensors->items[0].name : "");
        }
    }
    gp_safetensors_release(&read);
    return result;
}

static gp_format format_of(const gs_request *request) {
    const gs_buffer *body = request->body;
    if (!body || !body->size) {
        return GP_JSON; /* nothing: {} */
    }
    switch (request->content) {
    case GS_MEDIA_NPY:
        return GP_NPY;
    case GS_MEDIA_SAFETENSORS:
        return GP_SAFETENSORS;
    case GS_MEDIA_OCTETS:
        return gp_format_detect(body->data, body->size);
    default:
        return GP_JSON;
    }
}

static int read_npy(gs_request *request, gs_tensors *tensors, gp_error *error) {
    gp_array array;
    if (gp_npy_read(request->body->data, request->body->size, &array, error)) {
        return -1;
    }
    set_in_place(request, tensors->count ? &tensors->items[0] : add_part(tensors, tensors->group), &array);
    return 0;
}

static int unknown_format(gp_error *error) {
    return gp_fail(error, GP_UNSUPPORTED_MEDIA_TYPE, "",
                   "the body's first bytes are those of no format known here; send safetensors, npy or JSON");
}

/* Only what counts: clearing all of it, 12 kB, would be the larger part of reading a small batch. */
static void begin(gs_tensors *tensors, const char *const *names, size_t count, const char *group) {
    tensors->count = count;
    tensors->parts = 0;
    tensors->group = group;
    tensors->scalars = NULL;
    for (size_t i = 0; i < count; i++) {
        tensors->items[i] = (gs_tensor){.name = names[i]};
    }
}

int gs_tensors_read(gs_request *request, const char *const *names, size_t count, const char *group,
                    gs_tensors *ret_tensors, gp_error *error) {
    begin(ret_tensors, names, count, group);
    int result;
    switch (format_of(request)) {
    case GP_JSON:
        result = read_json(request, ret_tensors, error);
        break;
    case GP_NPY:
        result = read_npy(request, ret_tensors, error);
        break;
    case GP_SAFETENSORS:
        result = read_safetensors(request, ret_tensors, error);
        break;
    default:
        result = unknown_format(error);
    }
    if (!result && !ret_tensors->scalars && !(ret_tensors->scalars = json_object())) {
        result = gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    return result ? result : add_query(request, ret_tensors->scalars, error);
}

static int read_one_json(gs_request *request, gs_tensor *item, gp_error *error) {
    gp_json_tensor tensor = {0};
    const gs_buffer *body = request->body;
    if (gp_json_read_tensor(body ? body->data : "", body ? body->size : 0, &tensor, error)) {
        return -1;
    }
    item->buffer = gs_buffer_wrap(&request->server->bodies, tensor.memory, tensor.array.size);
    if (!item->buffer) {
        free(tensor.memory);
        return gp_fail(error, GP_OVERLOADED, "",
                       "request bodies take as much memory as --max-body-memory allows; try again");
    }
    item->array = tensor.array;
    item->found = true;
    return 0;
}

int gs_tensors_read_one(gs_request *request, gs_tensors *ret_tensors, gp_error *error) {
    begin(ret_tensors, (const char *const[]){"values"}, 1, NULL);
    gp_safetensors read;
    switch (format_of(request)) {
    case GP_JSON:
        return read_one_json(request, &ret_tensors->items[0], error);
    case GP_NPY:
        return read_npy(request, ret_tensors, error);
    case GP_SAFETENSORS:
        if (gp_safetensors_read(request->body->data, request->body->size, 0, &read, error)) {
            return -1;
        }
        if (read.count == 1) {
            set_in_place(request, &ret_tensors->items[0], &read.arrays[0].array);
        } else {
            gp_fail(error, GP_INVALID_TENSOR, "", "one tensor is expected, but the body has %zu", read.count);
        }
        gp_safetensors_release(&read);
        return error->problem ? -1 : 0;
    default:
        return unknown_format(error);
    }
}

/* Is this what the group's tensor `name` may be called? */
static bool called(const char *given, const char *group, const char *name, bool only) {
    const size_t length = strlen(group);
    if (!strcmp(given, name) || (only && !strcmp(given, group))) {
        return true;
    }
    return !strncmp(given, group, length) && given[length] == '.' && !strcmp(given + length + 1, name);
}

static int unknown_part(const gs_tensors *tensors, const char *given, const char (*names)[GD_MAX_NAME],
                        size_t count, gp_error *error) {
    char pointer[GD_MAX_NAME + 32];
    snprintf(pointer, sizeof pointer, "/%s", strcmp(given, tensors->group) != 0 ? given : tensors->group);
    if (!strcmp(given, tensors->group)) {
        return gp_fail(error, GP_INVALID_VALUE, pointer,
                       "there are %zu tensors to give: {\"%s\": {\"%s\": ..., \"%s\": ...}}", count,
                       tensors->group, names[0], names[1]);
    }
    return gp_fail(error, GP_UNKNOWN_FIELD, pointer, "there is no tensor named \"%.64s\" here; \"%s\" is one",
                   given,
                   count                             ? names[0]
                   : tensors->count > tensors->parts ? tensors->items[0].name
                                                     : "");
}

int gs_tensors_parts(const gs_tensors *tensors, const char (*names)[GD_MAX_NAME], size_t count,
                     const gs_tensor **ret_parts, gp_error *error) {
    for (size_t n = 0; n < count; n++) {
        ret_parts[n] = NULL;
    }
    for (size_t i = tensors->count - tensors->parts; i < tensors->count; i++) {
        const gs_tensor *item = &tensors->items[i];
        size_t n = 0;
        while (n < count && !called(item->name, tensors->group, names[n], count == 1)) {
            n++;
        }
        if (n < count && !ret_parts[n]) {
            ret_parts[n] = item;
        } else if (count || strcmp(item->name, tensors->group) != 0) {
            /* nothing wanted, and one tensor given all the same: not looked at */
            return unknown_part(tensors, item->name, names, count, error);
        }
    }
    return 0;
}

void gs_tensors_release(gs_tensors *tensors) {
    for (size_t i = 0; i < tensors->count; i++) {
        gs_buffer_unref(tensors->items[i].buffer);
    }
    json_decref(tensors->scalars);
    begin(tensors, NULL, 0, NULL);
}

gd_shape gs_tensor_shape(const gs_tensor *tensor) {
    gd_shape shape = {.rank = tensor->array.rank};
    memcpy(shape.dim, tensor->array.dim, sizeof shape.dim);
    return shape;
}

/* Consecutive tensors of one body need it once. */
static void add_hold(gs_hold *hold, gs_buffer *buffer) {
    if (!hold->count || hold->buffers[hold->count - 1] != buffer) {
        hold->buffers[hold->count++] = gs_buffer_ref(buffer);
    }
}

int gs_tensor_take(gs_request *request, const gs_tensor *tensor, gd_dtype dtype, gd_tensor *ret_tensor,
                   gs_hold *hold, gp_error *error) {
    static const gp_dtype wire[] = {
        [GD_FLOAT32] = GP_FLOAT32, [GD_INT64] = GP_INT64,     [GD_INT32] = GP_INT32,
        [GD_UINT8] = GP_UINT8,     [GD_FLOAT64] = GP_FLOAT64,
    };
    char pointer[96];
    if (!tensor->found) {
        snprintf(pointer, sizeof pointer, "/%s", tensor->name);
        return gp_fail(error, GP_MISSING_FIELD, pointer, "the tensor \"%s\" is missing", tensor->name);
    }
    const gp_array *array = &tensor->array;
    gd_tensor taken = {.dtype = dtype, .shape = gs_tensor_shape(tensor)};
    if (gp_array_usable(array, wire[dtype])) {
        taken.data = (void *)(uintptr_t)array->data;
        add_hold(hold, tensor->buffer);
        *ret_tensor = taken;
        return 0;
    }
    if (dtype != GD_FLOAT32 && dtype != GD_INT64) {
        return gp_fail(error, GP_DTYPE_MISMATCH, "", "\"%s\" must be %s, not %s", tensor->name,
                       gd_dtype_name(dtype), gp_dtype_name(array->dtype));
    }
    size_t bytes;
    gd_error cause = GD_ERROR_INIT;
    if (gd_shape_bytes(&taken.shape, dtype, &bytes, &cause)) {
        return gp_fail_engine(error, &cause, "");
    }
    gs_buffer *buffer = gs_buffer_new(&request->server->bodies, bytes);
    if (!buffer) {
        return gp_fail(error, GP_OVERLOADED, "",
                       "request bodies take as much memory as --max-body-memory allows; try again");
    }
    buffer->size = bytes;
    int result = gp_array_convert(array, wire[dtype], buffer->data, tensor->name, error);
    if (!result) {
        taken.data = buffer->data;
        add_hold(hold, buffer);
        *ret_tensor = taken;
    }
    gs_buffer_unref(buffer);
    return result;
}
