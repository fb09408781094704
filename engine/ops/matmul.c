/* matmul.c -- products of matrices: torch.matmul, torch.bmm.
 *
 * Inputs a (..., m, k) and b (..., k, n); the axes before the last two broadcast, and a vector (k) is a
 * matrix with one row or one column that the output does not have. */
#include <inttypes.h>

#include "engine/kernels/gemm.h"
#include "engine/ops/broadcast.h"

/* The axes before the last two. */
static gd_shape stack_of(const gd_shape *x) {
    gd_shape stack = {.rank = x->rank > 2 ? x->rank - 2 : 0};
    for (int i = 0; i < stack.rank; i++)
        stack.dim[i] = x->dim[i];
    return stack;
}

/* The stack that both broadcast to. */
static gd_shape broadcast_stacks(const gd_shape *a, const gd_shape *b) {
    gd_shape out = {.rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 1; i <= out.rank; i++) {
        const int64_t one = i > a->rank ? 1 : a->dim[a->rank - i],
                      two = i > b->rank ? 1 : b->dim[b->rank - i];
        out.dim[out.rank - i] = one == 1 ? two : one;
    }
    return out;
}

static bool fits(const gd_shape *stack, const gd_shape *out) {
    for (int i = 1; i <= stack->rank; i++)
        if (stack->dim[stack->rank - i] != 1 && stack->dim[stack->rank - i] != out->dim[out->rank - i])
            return false;
    return true;
}

typedef struct sizes {
    int64_t m, k, n;
    int64_t b_k; /* what b has for k */
} sizes;

static sizes sizes_of(const gd_shape *a, const gd_shape *b) {
    return (sizes){.m = a->rank > 1 ? a->dim[a->rank - 2] : 1,
                   .k = a->dim[a->rank - 1],
                   .b_k = b->dim[b->rank > 1 ? b->rank - 2 : 0],
                   .n = b->rank > 1 ? b->dim[b->rank - 1] : 1};
}

/* ---- shapes ----------------------------------------------------------------------------------------- */

static int wrong_shapes(gd_infer *infer, const char *why) {
    char a[128], b[128];
    return gd_fail(infer->error, GD_E_SHAPE, "cannot multiply %s by %s%s: %s",
                   gd_shape_text(&infer->inputs[0], a, sizeof a),
                   gd_shape_text(&infer->inputs[1], b, sizeof b),
                   infer->axes[0] < 0 ? "" : " (with a batch of samples)", why);
}

/* Where input i's batch axis comes to lie in the output: -1 it has none, -2 it would be summed over. */
static int axis_in_output(const gd_infer *infer, int i, int stack) {
    const int axis = infer->input_axes[i], rank = infer->inputs[i].rank;
    const int row = rank > 1 ? rank - 2 : -1, column = rank - 1, summed = i ? (row < 0 ? 0 : row) : column;
    if (axis < 0)
        return -1;
    if (axis == summed)
        return -2;
    if (axis == row)
        return stack;
    if (axis == column)
        return stack + (infer->inputs[0].rank > 1);
    return stack - (rank - 2) + axis;
}

static int find_batch_axis(gd_infer *infer, int stack) {
    const int a = axis_in_output(infer, 0, stack), b = axis_in_output(infer, 1, stack);
    if (a == -2 || b == -2)
        return wrong_shapes(infer, a == -2
                                       ? "the first input's last axis is the batch and would be summed over; "
                                         "samples are kept apart"
                                       : "the second input's last axis but one is the batch and would be "
                                         "summed over; samples are kept apart (unsqueeze makes a vector of "
                                         "each sample a matrix)");
    if (a >= 0 && b >= 0 && a != b)
        return wrong_shapes(infer,
                            "one's batch axis would lie beside another axis; give both inputs the same "
                            "number of axes (unsqueeze, view)");
    infer->axes[0] = a >= 0 ? a : b;
    return 0;
}

static int matmul_infer(gd_infer *infer) {
    const gd_shape *a = &infer->inputs[0], *b = &infer->inputs[1];
    gd_shape *y = &infer->outputs[0];
    if (a->rank < 1 || b->rank < 1)
        return wrong_shapes(infer, "both must have one axis or more");
    const sizes s = sizes_of(a, b);
    const gd_shape stack_a = stack_of(a), stack_b = stack_of(b);
    const int stack = stack_a.rank > stack_b.rank ? stack_a.rank : stack_b.rank;
    int code = find_batch_axis(infer, stack);
    if (code)
        return code;
    if (s.k != s.b_k)
        return wrong_shapes(infer, b->rank > 1
                                       ? "the first's last axis and the second's last but one must be equal"
                                       : "their last axes must be equal");
    *y = broadcast_stacks(&stack_a, &stack_b);
    if (!fits(&stack_a, y) || !fits(&stack_b, y))
        return wrong_shapes(infer, "the axes before the last two do not broadcast");
    if (a->rank > 1)
        y->dim[y->rank++] = s.m;
    if (b->rank > 1)
        y->dim[y->rank++] = s.n;
    return 0;
}

static int bmm_infer(gd_infer *infer) {
    const gd_shape *a = &infer->inputs[0], *b = &infer->inputs[1];
    if (a->rank != 3 || b->rank != 3)
        return wrong_shapes(infer, "bmm takes two inputs of 3 axes, the batch included; matmul takes others");
    if (a->dim[0] != b->dim[0])
        return wrong_shapes(infer,
                            "bmm takes as many matrices of the one as of the other; matmul broadcasts");
    return matmul_infer(infer);
}

/* ---- products --------------------------------------------------------------------------------------- */

/* The walk over a stack of products. Where b is one matrix, a's are one tall matrix: one product. */
typedef struct products {
    gd_broadcast walk;
    sizes size;
} products;

static products begin(const gd_call *call) {
    const gd_shape *a = &call->inputs[0].shape, *b = &call->inputs[1].shape;
    const gd_shape one = stack_of(a), two = stack_of(b), *const beside[] = {&one, &two};
    const gd_shape out = broadcast_stacks(&one, &two);
    products s = {.size = sizes_of(a, b)};
    if (gd_numel(&two) == 1) {
        s.size.m *= gd_numel(&one);
        s.walk = gd_broadcast_begin(&two, beside + 1, 1);
    } else {
        s.walk = gd_broadcast_begin(&out, beside, 2);
    }
    return s;
}

/* y = a b */
static void matmul_forward(const gd_call *call) {
    products s = begin(call);
    const sizes z = s.size;
    float *y = call->outputs[0].data;
    for (int64_t r = 0; r < s.walk.rows; r++, gd_broadcast_next(&s.walk))
        for (int64_t i = 0; i < s.walk.size[0]; i++, y += z.m * z.n) {
            const float *a = call->inputs[0].data, *b = call->inputs[1].data;
            a += (s.walk.offset[0] + i * s.walk.step[0][0]) * z.m * z.k;
            b += (s.walk.offset[1] + i * s.walk.step[1][0]) * z.k * z.n;
            gd_gemm(false, false, z.m, z.n, z.k, a, b, y, false);
        }
}

/* da = dy b^T, db = a^T dy, summed over the products in which a matrix was used */
static void matmul_backward(const gd_call *call) {
    products s = begin(call);
    const sizes z = s.size;
    const float *dy = call->output_grads[0].data;
    bool add[2];
    for (int i = 0; i < 2; i++) {
        const gd_tensor *grad = &call->input_grads[i];
        const int64_t count = s.walk.rows * s.walk.size[0];
        const bool repeated = count * (i ? z.k * z.n : z.m * z.k) != gd_numel(&grad->shape);
        if (grad->data && repeated && !call->accumulate[i])
            memset(grad->data, 0, gd_tensor_bytes(grad));
        add[i] = repeated || call->accumulate[i];
    }
    for (int64_t r = 0; r < s.walk.rows; r++, gd_broadcast_next(&s.walk))
        for (int64_t i = 0; i < s.walk.size[0]; i++, dy += z.m * z.n) {
            const int64_t at_a = (s.walk.offset[0] + i * s.walk.step[0][0]) * z.m * z.k;
            const int64_t at_b = (s.walk.offset[1] + i * s.walk.step[1][0]) * z.k * z.n;
            float *da = call->input_grads[0].data, *db = call->input_grads[1].data;
            if (da)
                gd_gemm(false, true, z.m, z.k, z.n, dy, (const float *)call->inputs[1].data + at_b, da + at_a,
                        add[0]);
            if (db)
                gd_gemm(true, false, z.k, z.n, z.m, (const float *)call->inputs[0].data + at_a, dy, db + at_b,
                        add[1]);
        }
}

/* ---- torch's graph ---------------------------------------------------------------------------------- */

enum { A = GD_NEXT_INPUT(0), B = GD_NEXT_INPUT(1) };

/* Would torch's reshape of x, its stack expanded to `stack` axes of these sizes, have to copy? It need not
 * where each axis's stride is that of the next times its size. */
static bool must_copy(const gd_shape *x, const gd_shape *out, int stack) {
    int64_t stride = x->dim[x->rank - 1] * x->dim[x->rank - 2], expected = -1;
    for (int i = stack - 1; i >= 0; i--) {
        const int axis = i - (stack - (x->rank - 2));
        const int64_t size = axis < 0 ? 1 : x->dim[axis];
        const int64_t here = size == out->dim[i] ? stride : 0;
        stride *= size;
        if (out->dim[i] == 1)
            continue;
        if (expected >= 0 && here != expected)
            return true;
        expected = here * out->dim[i];
    }
    return false;
}

/* How torch makes a stack of matrices of an input. @return nodes written */
static int add_stack(gd_grad_fn *nodes, int at, bool copies, int input) {
    int count = 0;
    if (copies) {
        nodes[at] = (gd_grad_fn){"UnsafeViewBackward0", {at + 1}, 1};
        nodes[at + 1] = (gd_grad_fn){"CloneBackward0", {at + 2}, 1};
        count = 2;
    } else {
        nodes[at] = (gd_grad_fn){"ReshapeAliasBackward0", {at + 1}, 1};
        count = 1;
    }
    nodes[at + count] = (gd_grad_fn){"ExpandBackward0", {input}, 1};
    return count + 1;
}

static int stacks_grad_fn(const gd_shape *inputs, gd_grad_fn *nodes) {
    const gd_shape one = stack_of(&inputs[0]), two = stack_of(&inputs[1]);
    const gd_shape out = broadcast_stacks(&one, &two);
    nodes[0] = (gd_grad_fn){"UnsafeViewBackward0", {1}, 1};
    const int first = add_stack(nodes, 2, must_copy(&inputs[0], &out, out.rank), A);
    nodes[1] = (gd_grad_fn){"BmmBackward0", {2, 2 + first}, 2};
    return 2 + first + add_stack(nodes, 2 + first, must_copy(&inputs[1], &out, out.rank), B);
}

/* It depends on the numbers of axes: many matrices by one are folded into one product, and one by many are
 * transposed before and after. */
static int matmul_grad_fn(const void *attrs, const gd_shape *inputs, gd_grad_fn nodes[GD_MAX_GRAD_FN]) {
    static const gd_grad_fn dot[] = {{"DotBackward0", {A, B}, 2}}, mv[] = {{"MvBackward0", {A, B}, 2}},
                            mm[] = {{"MmBackward0", {A, B}, 2}},
                            row[] = {{"SqueezeBackward3", {1}, 1},
                                     {"MmBackward0", {2, B}, 2},
                                     {"UnsqueezeBackward0", {A}, 1}},
                            tall_mv[] = {{"UnsafeViewBackward0", {1}, 1},
                                         {"MvBackward0", {2, B}, 2},
                                         {"ReshapeAliasBackward0", {A}, 1}},
                            tall[] = {{"UnsafeViewBackward0", {1}, 1},
                                      {"MmBackward0", {2, B}, 2},
                                      {"ReshapeAliasBackward0", {A}, 1}},
                            row_by_many[] = {{"UnsafeViewBackward0", {1}, 1},
                                             {"MvBackward0", {2, A}, 2},
                                             {"UnsafeViewBackward0", {3}, 1},
                                             {"CloneBackward0", {4}, 1},
                                             {"TransposeBackward0", {B}, 1}},
                            one_by_many[] = {{"CloneBackward0", {1}, 1},      {"TransposeBackward0", {2}, 1},
                                             {"UnsafeViewBackward0", {3}, 1}, {"MmBackward0", {4, 7}, 2},
                                             {"UnsafeViewBackward0", {5}, 1}, {"CloneBackward0", {6}, 1},
                                             {"TransposeBackward0", {B}, 1},  {"TBackward0", {A}, 1}};
    static const struct {
        const gd_grad_fn *nodes;
        size_t count;
    } by_rank[3][3] = {
        {{dot, GD_COUNT(dot)}, {row, GD_COUNT(row)}, {row_by_many, GD_COUNT(row_by_many)}},
        {{mv, GD_COUNT(mv)}, {mm, GD_COUNT(mm)}, {one_by_many, GD_COUNT(one_by_many)}},
        {{tall_mv, GD_COUNT(tall_mv)}, {tall, GD_COUNT(tall)}, {NULL, 0}},
    };
    const int a = inputs[0].rank < 3 ? inputs[0].rank : 3, b = inputs[1].rank < 3 ? inputs[1].rank : 3;
    (void)attrs;
    if (a == 3 && b == 3)
        return stacks_grad_fn(inputs, nodes);
    memcpy(nodes, by_rank[a - 1][b - 1].nodes, by_rank[a - 1][b - 1].count * sizeof *nodes);
    return (int)by_rank[a - 1][b - 1].count;
}

const gd_op gd_op_matmul = {
    .kind = {.function = "matmul",
             .doc = "Product of two matrices, or of stacks of them; a vector is a row or a column."},
    .min_inputs = 2,
    .max_inputs = 2,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = matmul_infer,
    .forward = matmul_forward,
    .backward = matmul_backward,
    .grad_fn = matmul_grad_fn,
};

const gd_op gd_op_bmm = {
    .kind = {.function = "bmm", .doc = "Product of two matrices per sample."},
    .min_inputs = 2,
    .max_inputs = 2,
    .flags = GD_BATCH | GD_SAVES_INPUT,
    .infer = bmm_infer,
    .forward = matmul_forward,
    .backward = matmul_backward,
    .grad_name = "BmmBackward0",
};
