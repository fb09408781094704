/* tensors.c -- tensors to and from safetensors, by the codec that the daemon uses too. */
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "proto/gradd_codec.h"

_Static_assert((int)GRADD_MAX_RANK == (int)GP_MAX_RANK, "the wire's rank limit is the client's");
_Static_assert((int)GRADD_MAX_NAME == (int)GP_MAX_NAME, "the wire's names are the client's");

int64_t gradd_tensor_numel(const gradd_tensor *tensor) {
    if (tensor->rank < 0 || tensor->rank > GRADD_MAX_RANK) {
        return -1;
    }
    int64_t numel = 1;
    bool empty = false;
    for (int i = 0; i < tensor->rank; i++) {
        empty = empty || tensor->shape[i] == 0;
        if (tensor->shape[i] < 0 ||
            (tensor->shape[i] > 0 && __builtin_mul_overflow(numel, tensor->shape[i], &numel))) {
            return -1;
        }
    }
    return empty ? 0 : numel <= INT64_MAX / 8 ? numel : -1;
}

void gradd_tensor_free(gradd_tensor *tensor) {
    if (tensor) {
        free(tensor->data);
        *tensor = (gradd_tensor){0};
    }
}

void gradd_tensors_free(gradd_tensors *tensors) {
    if (tensors) {
        for (size_t i = 0; i < tensors->count; i++) {
            gradd_tensor_free(&tensors->items[i].tensor);
        }
        free(tensors->items);
        *tensors = (gradd_tensors){0};
    }
}

const gradd_tensor *gradd_tensors_find(const gradd_tensors *tensors, const char *name) {
    for (size_t i = 0; i < tensors->count; i++) {
        if (strcmp(tensors->items[i].name, name) == 0) {
            return &tensors->items[i].tensor;
        }
    }
    return NULL;
}

/* A request's tensor as the codec sees it. */
static int to_array(const gradd_named_tensor *named, gp_named_array *out, gradd_error *error) {
    const gradd_tensor *tensor = &named->tensor;
    int64_t numel = gradd_tensor_numel(tensor);
    if (numel < 0 || (numel > 0 && !tensor->data)) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "tensor '%.100s': %s", named->name,
                          numel < 0 ? "its shape is invalid" : "its data is NULL");
    }
    if (tensor->dtype != GRADD_FLOAT32 && tensor->dtype != GRADD_INT64) {
        return gradd_fail(error, GRADD_E_ARGUMENT,
                          "tensor '%.100s': dtype must be GRADD_FLOAT32 or GRADD_INT64", named->name);
    }
    memcpy(out->name, named->name, sizeof out->name);
    out->name[sizeof out->name - 1] = '\0';
    out->array = (gp_array){.dtype = tensor->dtype == GRADD_INT64 ? GP_INT64 : GP_FLOAT32,
                            .rank = tensor->rank,
                            .data = tensor->data};
    for (int i = 0; i < tensor->rank; i++) {
        out->array.dim[i] = tensor->shape[i];
    }
    out->array.size = (size_t)numel * gp_dtype_size(out->array.dtype);
    return GRADD_OK;
}

int gradd_request_tensors(gradd_request *request, const gradd_named_tensor *tensors, size_t count,
                          void **ret_memory, gradd_error *error) {
    int code = GRADD_OK;
    gp_named_array *arrays = calloc(count ? count : 1, sizeof *arrays);
    if (!arrays) {
        return gradd_fail_memory(error);
    }
    for (size_t i = 0; i < count && !code; i++) {
        code = to_array(&tensors[i], &arrays[i], error);
    }
    if (code) {
        goto out;
    }
    /* One block: the segments, then the header that the first of them shows. */
    gradd_segment *body = malloc((count + 1) * sizeof *body + gp_safetensors_header_limit(arrays, count));
    if (!body) {
        code = gradd_fail_memory(error);
        goto out;
    }
    void *header = body + count + 1;
    body[0] = (gradd_segment){header, gp_safetensors_write_header(arrays, count, NULL, header)};
    for (size_t i = 0; i < count; i++) {
        body[i + 1] = (gradd_segment){arrays[i].array.data, arrays[i].array.size};
    }
    request->content_type = GRADD_SAFETENSORS;
    request->body = body;
    request->body_count = count + 1;
    *ret_memory = body;
out:
    free(arrays);
    return code;
}

/* One tensor of a reply, in memory of its own. */
static int from_array(const gp_array *array, const char *name, gradd_tensor *ret_tensor, gradd_error *error) {
    bool floating = array->dtype == GP_FLOAT32 || array->dtype == GP_FLOAT64 || array->dtype == GP_FLOAT16 ||
                    array->dtype == GP_BFLOAT16;
    gradd_tensor tensor = {.dtype = floating ? GRADD_FLOAT32 : GRADD_INT64, .rank = array->rank};
    for (int i = 0; i < array->rank; i++) {
        tensor.shape[i] = array->dim[i];
    }
    int64_t numel = gradd_tensor_numel(&tensor);
    if (numel < 0) {
        return gradd_fail(error, GRADD_E_REPLY, "tensor '%s' of the reply is too large", name);
    }
    gp_dtype dtype = floating ? GP_FLOAT32 : GP_INT64;
    gp_error why = {0};
    tensor.data = malloc(numel ? (size_t)numel * gp_dtype_size(dtype) : 1);
    if (!tensor.data) {
        return gradd_fail_memory(error);
    }
    if (gp_array_convert(array, dtype, tensor.data, name, &why)) {
        free(tensor.data);
        return gradd_fail(error, GRADD_E_REPLY, "%s", why.detail);
    }
    *ret_tensor = tensor;
    return GRADD_OK;
}

int gradd_reply_tensors(const gradd_reply *reply, gradd_tensors *ret_tensors, gradd_error *error) {
    int code = GRADD_OK;
    gp_safetensors file = {0};
    gp_error why = {0};
    gradd_tensors tensors = {0};
    if (gp_safetensors_read(reply->data, reply->size, 0, &file, &why)) {
        return gradd_fail(error, GRADD_E_REPLY, "the reply is not safetensors: %s", why.detail);
    }
    tensors.items = calloc(file.count ? file.count : 1, sizeof *tensors.items);
    if (!tensors.items) {
        code = gradd_fail_memory(error);
        goto out;
    }
    for (size_t i = 0; i < file.count && !code; i++) {
        gradd_named_tensor *item = &tensors.items[tensors.count++];
        memcpy(item->name, file.arrays[i].name, sizeof item->name);
        code = from_array(&file.arrays[i].array, item->name, &item->tensor, error);
    }
    if (!code) {
        *ret_tensors = tensors;
        tensors = (gradd_tensors){0};
    }
out:
    gradd_tensors_free(&tensors);
    gp_safetensors_release(&file);
    return code;
}
