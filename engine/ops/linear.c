/* linear.c -- affine maps. Formula: torch.nn.Linear. */
#include <inttypes.h>

#include "engine/graph/op.h"
#include "engine/kernels/math.h"
#include "engine/kernels/product.h"
#include "engine/kernels/rows.h"

struct linear {
    int64_t in_features, out_features;
    bool bias;
};

static const gd_attr linear_attrs[] = {
    GD_INT(struct linear, in_features, .min = 1, .inferred = true, .doc = "size of the input's last axis"),
    GD_INT(struct linear, out_features, .min = 1, .required = true, .doc = "size of the output's last axis"),
    GD_BOOL(struct linear, bias, .number = 1, .doc = "add a learnable bias"),
};

static const gd_param_decl linear_params[] = {
    {.name = "weight", .init = GD_INIT_KAIMING_UNIFORM, .doc = "(out_features, in_features)"},
    {.name = "bias", .init = GD_INIT_FAN_IN_UNIFORM, .doc = "(out_features)"},
};

static int linear_infer(gd_infer *infer) {
    struct linear *a = infer->attrs;
    const gd_shape *x = &infer->inputs[0];
    char text[128];
    if (x->rank < 2)
        return gd_fail(infer->error, GD_E_SHAPE, "wants samples of [..., in_features], got %s",
                       gd_sample_text(x, text, sizeof text));
    const int64_t features = x->dim[x->rank - 1];
    if (a->in_features == 0)
        a->in_features = features;
    if (a->in_features != features)
        return gd_fail_field(infer->error, GD_E_SHAPE, "in_features",
                             "in_features is %" PRId64
                             ", but the last axis of the input's samples, %s, has %" PRId64 "%s",
                             a->in_features, gd_sample_text(x, text, sizeof text), features,
                             x->rank > 2 ? "; is a flatten missing before it?" : "");
    infer->whole_batch = true; /* cut into tiles here, not by samples */
    infer->outputs[0] = *x;
    infer->outputs[0].dim[x->rank - 1] = a->out_features;
    gd_infer_param_add(infer, 0, GD_SHAPE(a->out_features, a->in_features));
    if (a->bias)
        gd_infer_param_add(infer, 1, GD_SHAPE(a->out_features));
    return 0;
}

static int64_t rows_of(const gd_tensor *x) {
    return gd_numel_of(&x->shape, 0, x->shape.rank - 1);
}

/* A product of (rows, columns) is computed by tiles, each of them on one thread. */
enum {
    TILE_ROWS = 256,
    TILE_COLUMNS = 256,
    TILE_PRODUCTS = 1 << 20,
    STRIP = 16, /* columns that a kernel may take at once: however many tiles there are, they are the same */
    MANY_ROWS = 128,
    LARGE_WEIGHT = 1 << 18,
};

typedef struct tiling {
    const gd_call *call;
    int64_t rows, columns;           /* of the product */
    int64_t tile_rows, tile_columns; /* of a tile */
    int64_t across;                  /* tiles side by side */
} tiling;

/* A tile is no smaller than is worth the while: where there are few rows or products, it is wider; but each
 * thread has one, if it can.
 * @param least columns that it has at least, too */
static void by_tiles(const gd_call *call, int64_t rows, int64_t columns, int64_t depth, int64_t least,
                     void (*body)(void *context, int64_t index, int slot)) {
    tiling t = {.call = call, .rows = rows, .columns = columns};
    t.tile_rows = gd_smaller(rows, TILE_ROWS);
    const int64_t share = rows > TILE_ROWS ? TILE_COLUMNS : gd_ceil_div(columns, gd_pool_slots(call->pool));
    t.tile_columns = gd_larger(gd_smaller(TILE_COLUMNS, share), TILE_PRODUCTS / (t.tile_rows * depth));
    t.tile_columns = gd_larger(gd_larger(t.tile_columns, least), STRIP);
    t.tile_columns = gd_smaller(columns, gd_ceil_div(t.tile_columns, STRIP) * STRIP);
    t.across = gd_ceil_div(columns, t.tile_columns);
    gd_parallel_for(call->pool, t.across * gd_ceil_div(rows, t.tile_rows), body, &t);
}

typedef struct tile {
    int64_t row, column, rows, columns;
} tile;

static tile tile_at(const tiling *t, int64_t index) {
    tile at = {.row = index / t->across * t->tile_rows, .column = index % t->across * t->tile_columns};
    at.rows = gd_smaller(t->tile_rows, t->rows - at.row);
    at.columns = gd_smaller(t->tile_columns, t->columns - at.column);
    return at;
}

static bool is_large(const struct linear *a) {
    return a->in_features * a->out_features >= LARGE_WEIGHT;
}

/* The weight from here on. */
static gd_operand weight_at(const struct linear *a, const float *at) {
    return (gd_operand){at, a->in_features, 1, is_large(a)};
}

static void forward_tile(void *context, int64_t index, int slot) {
    (void)slot;
    const tiling *t = context;
    const struct linear *a = t->call->attrs;
    const tile at = tile_at(t, index);
    const float *x = (const float *)t->call->inputs[0].data + at.row * a->in_features;
    const float *weight = (const float *)t->call->params[0].data + at.column * a->in_features;
    float *y = (float *)t->call->outputs[0].data + at.row * a->out_features + at.column;
    const float *bias = a->bias ? (const float *)t->call->params[1].data + at.column : NULL;
    if (at.rows <= GD_FEW_ROWS) {
        gd_rows_forward(at.rows, at.columns, a->in_features, x, a->in_features, weight, bias, y,
                        a->out_features);
        for (int64_t r = 0; t->call->relu && r < at.rows; r++)
            gd_relu(at.columns, y + r * a->out_features);
        return;
    }
    if (at.rows >= MANY_ROWS) { /* the weight is packed in next to no time */
        gd_product_affine(at.rows, at.columns, a->in_features, (gd_operand){x, a->in_features, 1},
                          (gd_operand){weight, 1, a->in_features}, bias, t->call->relu, y, a->out_features);
        return;
    }
    /* y^T = W x^T: the weight is read once, where it lies. */
    gd_product_transposed(at.columns, at.rows, a->in_features, weight_at(a, weight),
                          (gd_operand){x, 1, a->in_features}, bias, t->call->relu, y, a->out_features);
}

/* y = x W^T + b. Each tile packs its rows of x: where these are few, there is one for each thread. */
static void linear_forward(const gd_call *call) {
    const struct linear *a = call->attrs;
    const int64_t rows = rows_of(&call->inputs[0]);
    const int64_t share = rows < MANY_ROWS ? gd_ceil_div(a->out_features, gd_pool_slots(call->pool)) : 0;
    by_tiles(call, rows, a->out_features, a->in_features, share, forward_tile);
}

static void backward_tile(void *context, int64_t index, int slot) {
    (void)slot;
    const tiling *t = context;
    const struct linear *a = t->call->attrs;
    const tile at = tile_at(t, index);
    const float *dy = (const float *)t->call->output_grads[0].data + at.row * a->out_features;
    const float *weight = (const float *)t->call->params[0].data + at.column;
    const float *x = (const float *)t->call->inputs[0].data + at.row * a->in_features + at.column;
    float *dx = (float *)t->call->input_grads[0].data + at.row * a->in_features + at.column;
    if (t->call->relu && at.rows > GD_FEW_ROWS)
        gd_product_gated(at.rows, at.columns, a->out_features, (gd_operand){dy, a->out_features, 1},
                         weight_at(a, weight), x, dx, a->in_features);
    else if (at.rows <= GD_FEW_ROWS)
        gd_rows_backward(at.rows, a->out_features, at.columns, dy, weight, a->in_features,
                         t->call->accumulate[0], dx);
    else
        gd_product(at.rows, at.columns, a->out_features, (gd_operand){dy, a->out_features, 1},
                   (gd_operand){weight, a->in_features, 1}, dx, a->in_features, t->call->accumulate[0]);
    for (int64_t r = 0; t->call->relu && at.rows <= GD_FEW_ROWS && r < at.rows; r++)
        gd_relu_backward(at.columns, x + r * a->in_features, dx + r * a->in_features);
}

/* dx = dy W; with relu only where x > 0 */
static void linear_backward(const gd_call *call) {
    const struct linear *a = call->attrs;
    const int64_t rows = rows_of(&call->inputs[0]), slots = gd_pool_slots(call->pool);
    const int64_t share = is_large(a) && rows < MANY_ROWS ? gd_ceil_div(a->in_features, slots) : 0;
    if (call->input_grads[0].data)
        by_tiles(call, rows, a->in_features, a->out_features, share, backward_tile);
}

/* A follower takes what rows.c computed. */
static void take_all(const gd_follower *follower, int64_t rows, int64_t columns) {
    for (int64_t r = 0; follower && r < rows; r++)
        follower->take(follower, r * columns, columns);
}

/* dW += dy^T x, db += column sums of dy, for the rows begin ... end - 1 of W. */
static void linear_backward_params(const gd_call *call) {
    const struct linear *a = call->attrs;
    const int64_t rows = rows_of(&call->inputs[0]), out = call->end - call->begin;
    const float *dy = (const float *)call->output_grads[0].data + call->begin;
    float *dw = call->param_grads[0].data, *db = a->bias ? call->param_grads[1].data : NULL;
    if (dw && rows <= GD_FEW_ROWS) {
        gd_rows_weight(rows, out, a->in_features, dy, a->out_features, call->inputs[0].data, !call->fresh,
                       dw + call->begin * a->in_features);
        take_all(call->follower, out, a->in_features);
    } else if (dw) {
        gd_product_followed(out, a->in_features, rows, (gd_operand){dy, 1, a->out_features},
                            (gd_operand){call->inputs[0].data, a->in_features, 1},
                            dw + call->begin * a->in_features, !call->fresh, call->follower);
    }
    if (!db)
        return;
    float sums[GD_MOST_PARAM_ROWS] = {0};
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++)
            sums[o] += dy[r * a->out_features + o];
    for (int64_t o = 0; o < out; o++)
        db[call->begin + o] = sums[o] + (call->fresh ? 0 : db[call->begin + o]);
}

static void linear_repr(FILE *out, const void *attrs) {
    const struct linear *a = attrs;
    fprintf(out, "in_features=%" PRId64 ", out_features=%" PRId64 ", bias=%s", a->in_features,
            a->out_features, a->bias ? "True" : "False");
}

/* How torch computes it depends on the rank: addmm(bias, x, W.t()) for a matrix, and for more axes the same
 * between views, or without addmm. */
static int linear_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    enum { X = GD_NEXT_INPUT(0), W = GD_NEXT_PARAM(0), B = GD_NEXT_PARAM(1) };
    static const gd_grad_fn addmm[] = {{"AddmmBackward0", {B, X, 1}, 3}, {"TBackward0", {W}, 1}},
                            mm[] = {{"MmBackward0", {X, 1}, 2}, {"TBackward0", {W}, 1}},
                            addmm_3[] = {{"ViewBackward0", {1}, 1},
                                         {"AddmmBackward0", {B, 2, 3}, 3},
                                         {"ViewBackward0", {X}, 1},
                                         {"TBackward0", {W}, 1}},
                            mm_n[] = {{"UnsafeViewBackward0", {1}, 1},
                                      {"MmBackward0", {2, 3}, 2},
                                      {"ReshapeAliasBackward0", {X}, 1},
                                      {"TBackward0", {W}, 1}},
                            add_n[] = {{"AddBackward0", {1, B}, 2},
                                       {"UnsafeViewBackward0", {2}, 1},
                                       {"MmBackward0", {3, 4}, 2},
                                       {"ReshapeAliasBackward0", {X}, 1},
                                       {"TBackward0", {W}, 1}};
    const struct linear *a = attrs;
    const int rank = inputs[0].rank;
#define GIVE(table) return memcpy(nodes, table, sizeof(table)), (int)GD_COUNT(table)
    if (rank == 2 && a->bias)
        GIVE(addmm);
    if (rank == 2)
        GIVE(mm);
    if (!a->bias)
        GIVE(mm_n);
    if (rank == 3)
        GIVE(addmm_3);
    GIVE(add_n);
#undef GIVE
}

const gd_op gd_op_linear = {
    .kind = {.module = "Linear",
             .function = "linear",
             .doc = "Affine map of the last axis.",
             GD_ATTRS(struct linear, linear_attrs),
             GD_PARAMS(linear_params)},
    .min_inputs = 1,
    .max_inputs = 1,
    .flags = GD_BATCH | GD_SAVES_INPUT | GD_THEN_RELU | GD_AFTER_RELU | GD_OVERWRITES | GD_FOLLOWED,
    .infer = linear_infer,
    .forward = linear_forward,
    .backward = linear_backward,
    .backward_params = linear_backward_params,
    .repr = linear_repr,
    .grad_fn = linear_grad_fn,
};
