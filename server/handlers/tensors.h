/* tensors.h -- the tensors of a request, in whatever encoding they came, and the scalars beside them. */
#ifndef GRADD_SERVER_TENSORS_H
#define GRADD_SERVER_TENSORS_H

#include "server/request.h"

/** One tensor that a request may have. */
typedef struct gs_tensor {
    const char *name;
    bool found;
    gp_array array;
    gs_buffer *buffer; /* a reference: what the array's bytes lie in */
} gs_tensor;

typedef struct gs_tensors {
    gs_tensor items[GS_MAX_HELD]; /* those asked for, then the parts of the group */
    size_t count, parts;          /* of all; of those at the end that are parts */
    char part_names[GD_MAX_HEADS][GD_MAX_NAME];
    const char *group; /* NULL: none */
    json_t *scalars;   /* an object: everything else that the body and the query string say */
} gs_tensors;

/**
 * Read the body, and the query string's scalars.
 *
 * @param names what tensors there may be; an npy body is the first of them
 * @param group a member that may be several, "target": in JSON one tensor or an object of them, in
 * safetensors all entries of other names. NULL: none
 * @return 0; -1: malformed, or a tensor of another name. Release *ret_tensors either way
 */
int gs_tensors_read(gs_request *request, const char *const *names, size_t count, const char *group,
                    gs_tensors *ret_tensors, gp_error *error);
/**
 * The group's tensors by name. A single one may be called as the group is, each "target.label" too.
 *
 * @param ret_parts count of them; NULL: not given
 * @return 0; -1: there is one that nobody asked for
 */
int gs_tensors_parts(const gs_tensors *tensors, const char (*names)[GD_MAX_NAME], size_t count,
                     const gs_tensor **ret_parts, gp_error *error);
/** A body that is one tensor, whatever its name. */
int gs_tensors_read_one(gs_request *request, gs_tensors *ret_tensors, gp_error *error);
void gs_tensors_release(gs_tensors *tensors);
gd_shape gs_tensor_shape(const gs_tensor *tensor);
/**
 * A tensor as the engine takes it: in place where its bytes allow, else converted.
 *
 * @param hold what keeps its bytes alive is added here, also after a failure
 * @return 0; -1: it is missing, or a value does not fit
 */
int gs_tensor_take(gs_request *request, const gs_tensor *tensor, gd_dtype dtype, gd_tensor *ret_tensor,
                   gs_hold *hold, gp_error *error);

#endif
