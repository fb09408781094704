/* walk.c -- the kept graph as torch would show it: grad_fn and next_functions. */
#include "engine/model/model.h"

enum { NEXT = sizeof((gd_grad_fn){0}.next) / sizeof(int) }; /* edges of one piece */

/* Depth first from the root, a node's id being given when it is first met, as one would number torch's
 * nodes following next_functions. Nodes that lead nowhere are torch's None. */
typedef struct place {
    gd_grad_fn pieces[GD_MAX_GRAD_FN]; /* what one op or loss leaves behind */
    int count;
    bool plain; /* one piece that leads to the op's inputs, however many, and parameters: see plain_next() */
    int ids[GD_MAX_GRAD_FN]; /* -1: not met yet */
} place;

typedef struct walk {
    const gd_model *model;
    place *places; /* per graph node, then per term of the loss, and one for their sum */
    int *params;   /* id of each parameter's AccumulateGrad; -1 */
    const bool *needs;
    gd_grad_node *nodes;
    int *edges; /* behind the nodes, in the same block */
    size_t count, capacity, edge_count;
} walk;

/* Where an edge of a place leads in the end: a piece of some place, a parameter, or nowhere. */
typedef struct target {
    enum { NOWHERE, PIECE, PARAMETER } kind;
    int place, index;
} target;

static target resolve(const walk *w, int at, int next);

static int sum_place(const walk *w) {
    return w->model->graph->node_count + GD_MAX_TERMS;
}

/* The target that stands for what computed a value. */
static target of_value(const walk *w, int value) {
    const int node = w->model->graph->values[value].node;
    if (node < 0 || !w->needs[value])
        return (target){NOWHERE, 0, 0};
    if (w->places[node].count == 0) /* an op without a trace */
        return of_value(w, w->model->graph->nodes[node].inputs[0]);
    return (target){PIECE, node, 0};
}

/* How many edges an op without a grad_fn of its own has: one per input that is not an index, and with its
 * parameters at most NEXT. */
static int plain_count(const gd_node *node) {
    int count = 0, declared = (int)node->op->kind.param_count;
    for (int k = 0; k < node->input_count; k++)
        count += !(node->op->index_inputs >> k & 1);
    for (; declared && count < NEXT; declared--)
        count++;
    return count;
}

/* Edge `i` of an op without a grad_fn of its own: its inputs that are not indices, then its parameters. */
static int plain_next(const gd_node *node, int i) {
    for (int k = 0; k < node->input_count; k++)
        if (!(node->op->index_inputs >> k & 1) && i-- == 0)
            return GD_NEXT_INPUT(k);
    return GD_NEXT_PARAM(i);
}

static int next_of(const walk *w, int at, int piece, int i) {
    const place *p = &w->places[at];
    return p->plain ? plain_next(&w->model->graph->nodes[at], i) : p->pieces[piece].next[i];
}

/* What an op's input, a term's output or a summand stands for. */
static target of_input(const walk *w, int at, int input) {
    const gd_graph *graph = w->model->graph;
    if (at < graph->node_count)
        return of_value(w, graph->nodes[at].inputs[input]);
    return at == sum_place(w) ? resolve(w, graph->node_count + input, 0)
                              : of_value(w, w->model->used->parts[at - graph->node_count].value);
}

static target resolve(const walk *w, int at, int next) {
    const gd_graph *graph = w->model->graph;
    if (next < 0)
        return (target){NOWHERE, 0, 0};
    if (next >= GD_NEXT_PARAM(0)) {
        const gd_node *node = &graph->nodes[at];
        const int k = next - GD_NEXT_PARAM(0), p = node->first_param + k;
        bool there = k < node->param_count && w->model->params[p].requires_grad;
        return there ? (target){PARAMETER, 0, p} : (target){NOWHERE, 0, 0};
    }
    if (next >= GD_NEXT_INPUT(0))
        return of_input(w, at, next - GD_NEXT_INPUT(0));
    /* A piece all of whose ways lead nowhere is not there either. */
    // cppcheck-suppress arrayIndexOutOfBoundsCond // next < GD_MAX_GRAD_FN here
    const gd_grad_fn *piece = &w->places[at].pieces[next];
    for (int i = 0; i < piece->next_count; i++)
        if (resolve(w, at, next_of(w, at, next, i)).kind != NOWHERE)
            return (target){PIECE, at, next};
    return (target){NOWHERE, 0, 0};
}

static void describe_places(walk *w) {
    const gd_model *model = w->model;
    const gd_graph *graph = model->graph;
    for (int n = 0; n < graph->node_count; n++) {
        const gd_node *node = &graph->nodes[n];
        place *p = &w->places[n];
        if (!model->training && (node->op->flags & GD_EVAL_IDENTITY)) {
            p->count = 0;
        } else if (node->op->grad_fn) {
            gd_shape shapes[GD_MAX_INPUTS];
            for (int i = 0; i < node->input_count; i++)
                shapes[i] = model->plan.values[node->inputs[i]].shape;
            p->count = node->op->grad_fn(node->attrs, shapes, p->pieces);
        } else {
            p->count = 1;
            p->plain = true;
            p->pieces[0] = (gd_grad_fn){.name = node->op->grad_name, .next_count = plain_count(node)};
        }
    }
    for (int n = 0; n <= sum_place(w); n++)
        for (int i = 0; i < GD_MAX_GRAD_FN; i++)
            w->places[n].ids[i] = -1;
    for (int p = 0; p < graph->param_count; p++)
        w->params[p] = -1;
}

static int *id_of(const walk *w, const target *t) {
    return t->kind == PARAMETER ? &w->params[t->index] : &w->places[t->place].ids[t->index];
}

static void add_node(walk *w, const target *t) {
    const gd_graph *graph = w->model->graph;
    gd_grad_node *node = &w->nodes[w->count];
    *id_of(w, t) = (int)w->count++;
    *node = (gd_grad_node){.next = &w->edges[w->edge_count]};
    if (t->kind == PARAMETER) {
        node->name = "AccumulateGrad";
        node->layer = w->model->params[t->index].name;
    } else {
        node->name = w->places[t->place].pieces[t->index].name;
        node->next_count = w->places[t->place].pieces[t->index].next_count;
        node->layer = t->place < graph->node_count ? graph->layers[t->place].name : "loss";
    }
    for (int i = 0; i < node->next_count; i++)
        w->edges[w->edge_count++] = -1;
}

/* One level of the depth-first walk: a node, and which of its edges comes next. */
typedef struct level {
    target at;
    int edge;
} level;

static void follow(walk *w, target root, level *stack) {
    size_t depth = 0;
    add_node(w, &root);
    stack[depth++] = (level){root, 0};
    while (depth) {
        level *top = &stack[depth - 1];
        const int from = *id_of(w, &top->at);
        if (top->at.kind == PARAMETER || top->edge == w->nodes[from].next_count) {
            depth--;
            continue;
        }
        const int edge = top->edge++;
        const target to = resolve(w, top->at.place, next_of(w, top->at.place, top->at.index, edge));
        if (to.kind == NOWHERE)
            continue;
        if (*id_of(w, &to) < 0) {
            add_node(w, &to);
            stack[depth++] = (level){to, 0};
        }
        w->edges[w->nodes[from].next - w->edges + edge] = *id_of(w, &to);
    }
}

/* w1 * l1 + w2 * l2 + ... as Python computes it, from left to right: the last sum is the root. */
static void describe_sum(const gd_loss_config *loss, place *p) {
    const int terms = loss->count, adds = terms - 1;
    int summand[GD_MAX_TERMS];
    _Static_assert(2 * GD_MAX_TERMS - 1 <= GD_MAX_GRAD_FN, "a sum and a product for each term");
    p->count = adds;
    for (int t = 0; t < terms; t++) {
        summand[t] = GD_NEXT_INPUT(t);
        if (loss->parts[t].term.weight == 1)
            continue;
        summand[t] = p->count;
        p->pieces[p->count++] = (gd_grad_fn){"MulBackward0", {GD_NEXT_INPUT(t), GD_NEXT_NONE}, 2};
    }
    for (int i = 0; i < adds; i++) /* piece i adds term adds - i to the sum of those before it */
        p->pieces[i] =
            (gd_grad_fn){"AddBackward0", {i + 1 < adds ? i + 1 : summand[0], summand[adds - i]}, 2};
}

static target root_of_loss(walk *w) {
    const gd_model *model = w->model;
    const gd_loss_config *loss = model->used;
    const int first = model->graph->node_count;
    for (int t = 0; t < loss->count; t++) {
        const gd_loss_part *part = &loss->parts[t];
        place *p = &w->places[first + t];
        p->count = part->loss->grad_fn(part->term.attrs, &model->plan.values[part->value].shape,
                                       model->loss_state.batch.plans[t].class_indices, p->pieces);
    }
    if (loss->plain)
        return resolve(w, first, 0);
    describe_sum(loss, &w->places[sum_place(w)]);
    return resolve(w, sum_place(w), 0);
}

static void release(walk *w) {
    free(w->places);
    free(w->params);
    free(w->nodes);
}

static int begin(walk *w, const gd_model *model, gd_error *error) {
    const gd_graph *graph = model->graph;
    *w = (walk){.model = model, .needs = model->plan.needs};
    if (model->progress == GD_NOTHING) {
        (void)gd_fail(error, GD_E_STATE, "there is no graph; call forward first");
        return GD_E_STATE;
    }
    const size_t places = (size_t)sum_place(w) + 1;
    w->capacity = places * GD_MAX_GRAD_FN + (size_t)graph->param_count;
    w->places = calloc(places, sizeof *w->places);
    w->params = calloc((size_t)graph->param_count + 1, sizeof *w->params);
    const size_t edges = w->capacity * NEXT + (size_t)graph->edge_count;
    w->nodes = calloc(1, w->capacity * sizeof *w->nodes + edges * sizeof *w->edges);
    if (!w->places || !w->params || !w->nodes) {
        release(w);
        (void)gd_fail(error, GD_E_MEMORY, "no memory for the graph's nodes");
        return GD_E_MEMORY;
    }
    w->edges = (int *)(void *)(w->nodes + w->capacity);
    const gd_run run = {.plan = (gd_plan *)(uintptr_t)&model->plan, .param_grads = model->grad_tensors};
    (void)gd_run_trace(&run, ~0U); /* which values need a gradient now */
    describe_places(w);
    return 0;
}

int gd_model_walk(const gd_model *model, gd_grad_node **ret_nodes, size_t *ret_count, gd_error *error) {
    walk w;
    int code = begin(&w, model, error);
    if (code)
        return code;
    level *stack = calloc(w.capacity + 1, sizeof *stack);
    if (!stack) {
        release(&w);
        return gd_fail(error, GD_E_MEMORY, "no memory for the graph's nodes");
    }
    const target root =
        model->loss_state.computed ? root_of_loss(&w) : of_value(&w, model->graph->outputs[0]);
    if (root.kind == PIECE)
        follow(&w, root, stack);
    *ret_nodes = w.nodes;
    *ret_count = w.count;
    w.nodes = NULL;
    free(stack);
    release(&w);
    return 0;
}

static const char *name_of(walk *w, target root) {
    return root.kind == PIECE ? w->places[root.place].pieces[root.index].name : "";
}

const char *gd_model_output_grad_fn(const gd_model *model, size_t output) {
    walk w;
    if (begin(&w, model, NULL))
        return "";
    const char *name = name_of(&w, of_value(&w, model->graph->outputs[output]));
    release(&w);
    return name;
}

const char *gd_model_loss_grad_fn(const gd_model *model) {
    walk w;
    if (!model->loss_state.computed || begin(&w, model, NULL))
        return "";
    const char *name = name_of(&w, root_of_loss(&w));
    release(&w);
    return name;
}
