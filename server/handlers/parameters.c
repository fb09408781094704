/* parameters.c -- parameters, their gradients, the state_dict. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "change.h"
#include "handlers.h"
#include "server/state.h"

enum { DEFAULT_LIMIT = 100, MAX_LIMIT = 1000, MAX_HEADER = 16 << 20 /* bytes of a state_dict's */ };

static json_t *parameter_json(const gd_parameter *parameter) {
    json_t *grad_norm =
        parameter->has_grad ? gp_json_number(gd_norm(parameter->grad, parameter->numel)) : json_null();
    json_t *norm = parameter->dtype == GD_FLOAT32 ? gp_json_number(gd_norm(parameter->data, parameter->numel))
                                                  : json_null();
    return json_pack("{s:s, s:o, s:I, s:b, s:b, s:o, s:o, s:I}", "name", parameter->name, "shape",
                     gp_shape_json(&parameter->shape), "numel", (json_int_t)parameter->numel, "requires_grad",
                     parameter->requires_grad, "buffer", parameter->buffer, "norm", norm, "grad_norm",
                     grad_norm, "version", (json_int_t)parameter->version);
}

int gs_handle_parameter_list(gs_request *request, gp_error *error) {
    const gd_model *model = request->model->model;
    int64_t limit, first;
    size_t count = gd_model_parameter_count(model);
    if (gs_query_integer(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT, &limit, error) ||
        gs_query_integer(request, "cursor", 0, 0, (int64_t)count, &first, error)) {
        return -1;
    }
    size_t end = (size_t)first + (size_t)limit;
    end = end < count ? end : count;
    json_t *items = json_array();
    for (size_t i = (size_t)first; i < end; i++) {
        json_array_append_new(items, parameter_json(gd_model_parameter(model, i)));
    }
    char cursor[24];
    snprintf(cursor, sizeof cursor, "%zu", end);
    return gs_reply_json(request, 200,
                         json_pack("{s:o, s:s?}", "items", items, "next_cursor", end < count ? cursor : NULL),
                         error);
}

/* The parameter that the path names. NULL: 404 */
static const gd_parameter *find(gs_request *request, size_t *ret_index, gp_error *error) {
    const gd_parameter *parameter =
        gd_model_find_parameter(request->model->model, request->variables[1], ret_index);
    if (!parameter) {
        gp_fail(error, GP_NOT_FOUND, "",
                "the model \"%s\" has no parameter \"%.128s\"; GET /v1/models/%s/parameters lists them",
                request->model->name, request->variables[1], request->model->name);
    }
    return parameter;
}

static void set_etag(gs_request *request, size_t index) {
    char etag[96];
    gs_parameter_etag(request->model, index, etag, sizeof etag);
    gs_reply_etag(request, etag);
}

static int reply_parameter(gs_request *request, size_t index, gp_error *error) {
    set_etag(request, index);
    return gs_reply_json(request, 200, parameter_json(gd_model_parameter(request->model->model, index)),
                         error);
}

int gs_handle_parameter_show(gs_request *request, gp_error *error) {
    size_t index;
    const gd_parameter *parameter = find(request, &index, error);
    if (!parameter) {
        return -1;
    }
    gd_tensor values = {.dtype = parameter->dtype, .shape = parameter->shape, .data = parameter->data};
    set_etag(request, index);
    return gs_reply_tensor(request, parameter->name, &values, NULL, error);
}

int gs_handle_parameter_grad(gs_request *request, gp_error *error) {
    size_t index;
    const gd_parameter *parameter = find(request, &index, error);
    if (!parameter) {
        return -1;
    }
    if (!parameter->has_grad) {
        return gp_fail(error, GP_NO_GRADIENT, "", "%s",
                       parameter->buffer          ? "a buffer never has a gradient"
                       : parameter->requires_grad ? "there is no gradient before a backward"
                                                  : "a frozen parameter gets no gradient");
    }
    gd_tensor values = {.dtype = GD_FLOAT32, .shape = parameter->shape, .data = parameter->grad};
    return gs_reply_tensor(request, parameter->name, &values, NULL, error);
}

int gs_handle_parameter_put(gs_request *request, gp_error *error) {
    size_t index;
    gs_tensors tensors = {0};
    gs_hold hold = {.count = 0};
    gd_tensor values;
    gd_error cause = GD_ERROR_INIT;
    int result = -1;
    const gd_parameter *parameter = find(request, &index, error);
    if (!parameter || gs_tensors_read_one(request, &tensors, error) ||
        gs_tensor_take(request, &tensors.items[0], parameter->dtype, &values, &hold, error)) {
        goto out;
    }
    if (gd_model_set_parameter(request->model->model, index, &values, &cause)) {
        gs_fail_run(error, &cause);
        goto out;
    }
    result = reply_parameter(request, index, error);
out:
    gs_hold_release(&hold);
    gs_tensors_release(&tensors);
    return result;
}

int gs_handle_parameter_patch(gs_request *request, gp_error *error) {
    size_t index;
    json_t *body = NULL;
    int result = -1;
    const gd_parameter *parameter = find(request, &index, error);
    if (!parameter || gs_body_json(request, &body, error) || gs_check_members(body, "requires_grad", error)) {
        goto out;
    }
    const json_t *value = json_object_get(body, "requires_grad");
    if (!json_is_boolean(value)) {
        gp_fail(error, value ? GP_INVALID_VALUE : GP_MISSING_FIELD, "/requires_grad",
                "requires_grad must be true or false");
        goto out;
    }
    if (parameter->buffer && json_is_true(value)) {
        gp_fail(error, GP_INVALID_VALUE, "/requires_grad", "\"%s\" is a buffer: it has no gradient",
                parameter->name);
        goto out;
    }
    gd_model_set_requires_grad(request->model->model, index, json_is_true(value));
    result = reply_parameter(request, index, error);
out:
    json_decref(body);
    return result;
}

/* ---- all at once ----------------------------------------------------------------------------------- */

/* Reply with every parameter's values, or with the gradients that there are. */
static int reply_all(gs_request *request, bool gradients, gp_error *error) {
    const gd_model *model = request->model->model;
    size_t total = gd_model_parameter_count(model), count = 0;
    gp_named_array *arrays = calloc(total + 1, sizeof *arrays);
    if (!arrays) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
    }
    for (size_t i = 0; i < total; i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        if (gradients && !parameter->has_grad) {
            continue;
        }
        gp_named_array *named = &arrays[count++];
        snprintf(named->name, sizeof named->name, "%s", parameter->name);
        named->array = gs_array_of(&(gd_tensor){.dtype = gradients ? GD_FLOAT32 : parameter->dtype,
                                                .shape = parameter->shape,
                                                .data = gradients ? parameter->grad : parameter->data});
    }
    int result = gs_reply_tensors(request, arrays, count, error);
    free(arrays);
    return result;
}

int gs_handle_state_dict_show(gs_request *request, gp_error *error) {
    char etag[96];
    gs_hosted_etag(request->model, etag, sizeof etag);
    gs_reply_etag(request, etag);
    return reply_all(request, false, error);
}

int gs_handle_gradients(gs_request *request, gp_error *error) {
    return reply_all(request, true, error);
}

/* What one entry of a state_dict is to the model. */
typedef struct entry {
    size_t index; /* of the parameter */
    gd_tensor values;
    gs_buffer *buffer; /* converted values, or NULL: in place */
} entry;

/* One entry of the file into *ret_entry. @return 0; 1: it does not fit, *ret_error says how; -1 */
static int read_entry(gs_request *request, const gp_named_array *named, entry *ret_entry,
                      gp_error *ret_error) {
    const gd_parameter *parameter =
        gd_model_find_parameter(request->model->model, named->name, &ret_entry->index);
    if (!parameter) {
        gp_fail(ret_error, GP_UNKNOWN_FIELD, "",
                "the model has no parameter \"%.128s\"; ?strict=false skips it", named->name);
        return 1;
    }
    gd_shape shape = {.rank = named->array.rank};
    memcpy(shape.dim, named->array.dim, sizeof shape.dim);
    if (!gd_shape_equal(&shape, &parameter->shape)) {
        char got[128], wanted[128];
        gp_fail(ret_error, GP_SHAPE_MISMATCH, "", "\"%s\" is %s, but the model's is %s", parameter->name,
                gd_shape_text(&shape, got, sizeof got),
                gd_shape_text(&parameter->shape, wanted, sizeof wanted));
        return 1;
    }
    gs_tensor tensor = {
        .name = parameter->name, .found = true, .array = named->array, .buffer = request->body};
    gs_hold hold = {.count = 0};
    int result = gs_tensor_take(request, &tensor, parameter->dtype, &ret_entry->values, &hold, ret_error);
    ret_entry->buffer = hold.count ? hold.buffers[0] : NULL;
    return result;
}

static json_t *missing_names(const gd_model *model, const bool *loaded) {
    json_t *missing = json_array();
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        if (!loaded[i]) {
            json_array_append_new(missing, json_string(gd_model_parameter(model, i)->name));
        }
    }
    return missing;
}

/* Check everything, then copy: a file that does not fit changes nothing. */
static int load_state(gs_request *request, const gp_safetensors *file, bool strict, gp_error *error) {
    gd_model *model = request->model->model;
    size_t total = gd_model_parameter_count(model), count = 0;
    entry *entries = calloc(file->count + 1, sizeof *entries);
    bool *loaded = calloc(total + 1, sizeof *loaded);
    json_t *names = json_array(), *unexpected = json_array(), *missing = NULL;
    int result = 0;
    if (!entries || !loaded || !names || !unexpected) {
        gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory");
        result = -1;
        goto out;
    }
    const bool checkpoint = gs_state_is_ours(file->metadata); /* of which the weights alone are loaded */
    for (size_t i = 0; i < file->count && !result; i++) {
        gp_error why = {0};
        size_t index;
        if (checkpoint && gs_state_is_other(file->arrays[i].name) &&
            !gd_model_find_parameter(model, file->arrays[i].name, &index)) {
            continue;
        }
        int fits = read_entry(request, &file->arrays[i], &entries[count], &why);
        if (fits == 0) {
            loaded[entries[count++].index] = true;
            json_array_append_new(names, json_string(file->arrays[i].name));
        } else if (fits < 0 || strict) {
            *error = why;
            result = -1;
            count += fits < 0; /* it may hold a buffer */
        } else {
            json_array_append_new(unexpected, json_string(file->arrays[i].name));
        }
    }
    missing = result ? NULL : missing_names(model, loaded);
    if (!result && strict && json_array_size(missing)) {
        result = gp_fail(error, GP_MISSING_FIELD, "",
                         "%zu parameters are missing, \"%s\" first; ?strict=false leaves them as they are",
                         json_array_size(missing), json_string_value(json_array_get(missing, 0)));
    }
    for (size_t i = 0; i < count; i++) {
        gd_error cause = GD_ERROR_INIT;
        if (!result && gd_model_set_parameter(model, entries[i].index, &entries[i].values, &cause)) {
            result = gs_fail_run(error, &cause); /* cannot be: shape and dtype were checked */
        }
        gs_buffer_unref(entries[i].buffer);
    }
    if (!result) {
        result = gs_reply_json(
            request, 200,
            json_pack("{s:O, s:O, s:O}", "loaded", names, "missing", missing, "unexpected", unexpected),
            error);
    }
out:
    json_decref(names);
    json_decref(unexpected);
    json_decref(missing);
    free(loaded);
    free(entries);
    return result;
}

int gs_handle_state_dict_put(gs_request *request, gp_error *error) {
    bool strict;
    gp_safetensors file;
    if (gs_query_bool(request, "strict", true, &strict, error)) {
        return -1;
    }
    const gs_buffer *body = request->body;
    if (!body || gp_safetensors_read(body->data, body->size, MAX_HEADER, &file, error)) {
        return gp_fail(error, GP_INVALID_TENSOR, "", "a safetensors body is expected");
    }
    gs_change undo;
    int result = gs_change_begin(request->model, &undo, error);
    if (!result && (result = load_state(request, &file, strict, error))) {
        gs_change_drop(&undo); /* it is loaded as a whole, or not at all */
    } else if (!result) {
        result = gs_change_commit(request, &undo, error);
    }
    gp_safetensors_release(&file);
    return result;
}
