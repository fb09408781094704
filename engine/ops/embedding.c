/* embedding.c -- rows of a table looked up by number. Formula: torch.nn.Embedding. */
#include <inttypes.h>

#include "engine/graph/op.h"

struct embedding {
    int64_t num_embeddings, embedding_dim, padding_idx;
};

static const gd_attr embedding_attrs[] = {
    GD_INT(struct embedding, num_embeddings, .min = 1, .required = true,
           .doc = "rows of the table: indices are 0 ... num_embeddings - 1"),
    GD_INT(struct embedding, embedding_dim, .min = 1, .required = true, .doc = "size of a row"),
    GD_INT(struct embedding, padding_idx, .nullable = true, .number = NAN,
           .doc = "a row that begins as zeros and gets no gradient, negative: counted from the end"),
};

static const gd_param_decl embedding_params[] = {
    {.name = "weight", .init = GD_INIT_NORMAL, .doc = "(num_embeddings, embedding_dim)"},
};

/* The padding row; -1: none */
static int64_t padding_of(const struct embedding *a) {
    if (a->padding_idx == GD_NONE)
        return -1;
    return a->padding_idx < 0 ? a->padding_idx + a->num_embeddings : a->padding_idx;
}

static int embedding_infer(gd_infer *infer) {
    const struct embedding *a = infer->attrs;
    gd_shape *y = &infer->outputs[0];
    if (a->padding_idx != GD_NONE && (padding_of(a) < 0 || padding_of(a) >= a->num_embeddings))
        return gd_fail_field(infer->error, GD_E_ATTRIBUTE, "padding_idx",
                             "padding_idx is %" PRId64 ", but there are only %" PRId64 " rows",
                             a->padding_idx, a->num_embeddings);
    *y = infer->inputs[0];
    if (y->rank == GD_MAX_RANK)
        return gd_fail(infer->error, GD_E_LIMIT, "its output would have over %d axes", GD_MAX_RANK);
    y->dim[y->rank++] = a->embedding_dim;
    gd_infer_param_add(infer, 0, GD_SHAPE(a->num_embeddings, a->embedding_dim))->value =
        (double)padding_of(a);
    return 0;
}

static int64_t embedding_limit(const void *attrs, const gd_shape *inputs, int input) {
    (void)inputs, (void)input;
    return ((const struct embedding *)attrs)->num_embeddings;
}

/* y[i] = W[x[i]] */
static void embedding_forward(const gd_call *call) {
    const int64_t width = ((const struct embedding *)call->attrs)->embedding_dim;
    const int64_t *index = call->inputs[0].data, count = gd_numel(&call->inputs[0].shape);
    const float *table = call->params[0].data;
    float *y = call->outputs[0].data;
    for (int64_t i = 0; i < count; i++)
        memcpy(y + i * width, table + index[i] * width, (size_t)width * sizeof *y);
}

/* Indices have no gradient. */
static void embedding_backward(const gd_call *call) {
    (void)call;
}

/* dW[x[i]] += dy[i], for the rows begin ... end - 1 of W: the table may be far larger than a batch. */
static void embedding_backward_params(const gd_call *call) {
    const struct embedding *a = call->attrs;
    const int64_t width = a->embedding_dim, padding = padding_of(a);
    const int64_t *index = call->inputs[0].data, count = gd_numel(&call->inputs[0].shape);
    const float *dy = call->output_grads[0].data;
    float *grad = call->param_grads[0].data;
    for (int64_t i = 0; grad && i < count; i++) {
        if (index[i] < call->begin || index[i] >= call->end || index[i] == padding)
            continue;
        float *row = grad + index[i] * width;
#pragma omp simd
        for (int64_t k = 0; k < width; k++)
            row[k] += dy[i * width + k];
    }
}

static void embedding_repr(FILE *out, const void *attrs) {
    const struct embedding *a = attrs;
    fprintf(out, "%" PRId64 ", %" PRId64, a->num_embeddings, a->embedding_dim);
    if (a->padding_idx != GD_NONE)
        fprintf(out, ", padding_idx=%" PRId64, padding_of(a));
}

const gd_op gd_op_embedding = {
    .kind = {.module = "Embedding",
             .function = "embedding",
             .doc = "Looks rows of a learned table up by their numbers.",
             GD_ATTRS(struct embedding, embedding_attrs),
             GD_PARAMS(embedding_params)},
    .min_inputs = 1,
    .max_inputs = 1,
    .index_inputs = 1,
    .index_limit = embedding_limit,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = embedding_infer,
    .forward = embedding_forward,
    .backward = embedding_backward,
    .backward_params = embedding_backward_params,
    .repr = embedding_repr,
    .grad_name = "EmbeddingBackward0",
};
