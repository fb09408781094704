/* tutorial.c -- PyTorch's "Neural Networks" tutorial on a gradd daemon, in C. After ">>>" stands the line
 * of Python, below it what the daemon answers. Checks its own results; exit status 1 if one is wrong.
 *
 *     gradd & tutorial                     # the daemon of $GRADD_SERVER, or on 127.0.0.1:7117 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/gradd.h"

#define NAME "tutorial"
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const float learning_rate = 0.01f;

/* class Net(nn.Module): the layers of its __init__ in the order of its forward(). */
static const char definition[] =
    "{\"name\": \"" NAME "\", \"class_name\": \"Net\", \"seed\": 0, \"input\": {\"shape\": [1, 32, 32]},"
    " \"layers\": ["
    "  {\"type\": \"Conv2d\", \"name\": \"conv1\", \"in_channels\": 1, \"out_channels\": 6, \"kernel_size\": "
    "3},"
    "  {\"type\": \"relu\"}, {\"type\": \"max_pool2d\", \"kernel_size\": 2},"
    "  {\"type\": \"Conv2d\", \"name\": \"conv2\", \"in_channels\": 6, \"out_channels\": 16, "
    "\"kernel_size\": 3},"
    "  {\"type\": \"relu\"}, {\"type\": \"max_pool2d\", \"kernel_size\": 2}, {\"type\": \"flatten\"},"
    "  {\"type\": \"Linear\", \"name\": \"fc1\", \"in_features\": 576, \"out_features\": 120}, {\"type\": "
    "\"relu\"},"
    "  {\"type\": \"Linear\", \"name\": \"fc2\", \"in_features\": 120, \"out_features\": 84}, {\"type\": "
    "\"relu\"},"
    "  {\"type\": \"Linear\", \"name\": \"fc3\", \"in_features\": 84, \"out_features\": 10}],"
    " \"loss\": {\"type\": \"MSELoss\"}, \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.01}}";

static const char net[] = "Net(\n"
                          "  (conv1): Conv2d(1, 6, kernel_size=(3, 3), stride=(1, 1))\n"
                          "  (conv2): Conv2d(6, 16, kernel_size=(3, 3), stride=(1, 1))\n"
                          "  (fc1): Linear(in_features=576, out_features=120, bias=True)\n"
                          "  (fc2): Linear(in_features=120, out_features=84, bias=True)\n"
                          "  (fc3): Linear(in_features=84, out_features=10, bias=True)\n"
                          ")";

typedef struct lesson {
    gradd_client *client;
    gradd_error error; /* of the last call */
    int wrong;         /* how many results were not as they should be */
    gradd_tensor input, target, gradient;
} lesson;

/* ---- small things --------------------------------------------------------------------------------- */

static void python(const char *line) {
    printf("\n>>> %s\n", line);
}

static void check(lesson *l, bool right, const char *what) {
    if (!right) {
        printf("WRONG: %s\n", what);
        l->wrong++;
    }
}

/* A call that must succeed. */
static bool done(lesson *l, int code) {
    if (code) {
        printf("WRONG: %s\n", l->error.message);
        l->wrong++;
    }
    return code == GRADD_OK;
}

/* Stands in for torch.randn: mean 0, variance 1, uniform, the same on every run (Park and Miller's
 * generator). */
static void fill(gradd_tensor *tensor, uint64_t seed) {
    float *values = tensor->data;
    for (int64_t i = 0; i < gradd_tensor_numel(tensor); i++) {
        seed = seed * 16807 % 2147483647;
        values[i] = (float)(((double)seed / 2147483647 - 0.5) * sqrt(12));
    }
}

static void print_values(const gradd_tensor *tensor) {
    int64_t numel = gradd_tensor_numel(tensor);
    printf("tensor([");
    for (int64_t i = 0; i < numel && i < 10; i++) {
        printf("%s%.4f", i ? ", " : "", ((const float *)tensor->data)[i]);
    }
    puts(numel > 10 ? ", ...])" : "])");
}

static bool shape_is(const gradd_tensor *tensor, int64_t rows, int64_t columns) {
    return tensor->rank == 2 && tensor->shape[0] == rows && tensor->shape[1] == columns;
}

static float largest(const gradd_tensor *tensor) {
    float most = 0;
    for (int64_t i = 0; i < gradd_tensor_numel(tensor); i++) {
        most = fmaxf(most, fabsf(((const float *)tensor->data)[i]));
    }
    return most;
}

/* ---- the tutorial --------------------------------------------------------------------------------- */

static bool define_the_network(lesson *l) {
    gradd_model_info info;
    gradd_parameter *params = NULL;
    size_t count = 0;
    python("net = Net(); print(net)");
    if (!done(l, gradd_model_create(l->client, definition, &info, &l->error))) {
        return false;
    }
    puts(info.repr ? info.repr : "");
    check(l, info.repr && strcmp(info.repr, net) == 0, "print(net) looks different in PyTorch");
    gradd_model_info_free(&info);

    python("params = list(net.parameters()); print(len(params)); print(params[0].size())");
    if (done(l, gradd_model_parameters(l->client, NAME, &params, &count, &l->error))) {
        printf("%zu\n", count);
        check(l, count == 10, "there are 10 parameters");
        const gradd_parameter *first = params;
        const int64_t size[] = {6, 1, 3, 3};
        printf("torch.Size([%lld, %lld, %lld, %lld])\n", (long long)first->shape[0],
               (long long)first->shape[1], (long long)first->shape[2], (long long)first->shape[3]);
        check(l, count && first->rank == 4 && memcmp(first->shape, size, sizeof size) == 0,
              "conv1.weight is [6, 1, 3, 3]");
        gradd_free(params);
    }
    return true;
}

static void run_it_forward_and_backward(lesson *l) {
    gradd_tensor out = {0};
    python("input = torch.randn(1, 1, 32, 32); out = net(input); print(out)");
    if (done(l, gradd_model_forward(l->client, NAME, &l->input, &out, &l->error))) {
        print_values(&out);
        check(l, shape_is(&out, 1, 10), "out is [1, 10]");
        gradd_tensor_free(&out);
    }
    python("net.zero_grad(); out.backward(torch.randn(1, 10))");
    double grad_norm = 0;
    if (done(l, gradd_model_zero_grad(l->client, NAME, &l->error)) &&
        done(l, gradd_model_backward(l->client, NAME, &l->gradient, false, &grad_norm, &l->error))) {
        printf("norm of all gradients: %.4f\n", grad_norm);
        check(l, grad_norm > 0, "there are gradients");
    }
}

static void compute_a_loss(lesson *l) {
    gradd_loss_result loss;
    python("output = net(input); target = torch.randn(10).view(1, -1); loss = nn.MSELoss()(output, target)");
    python("print(loss); print(loss.grad_fn)");
    if (done(l, gradd_model_forward(l->client, NAME, &l->input, NULL, &l->error)) &&
        done(l, gradd_model_loss(l->client, NAME, &l->target, NULL, &loss, &l->error))) {
        printf("tensor(%.4f, grad_fn=<%s>)\n", loss.loss, loss.grad_fn);
        check(l, isfinite(loss.loss) && loss.loss > 0, "the loss is a positive number");
        check(l, strcmp(loss.grad_fn, "MseLossBackward0") == 0, "the loss's grad_fn is MseLossBackward0");
    }
}

/* The next node that is no parameter's (AccumulateGrad, or the transposed weight of a Linear). */
static const gradd_grad_node *next_node(const gradd_grad_node *nodes, size_t count,
                                        const gradd_grad_node *node) {
    for (int i = 0; i < node->next_count; i++) {
        for (size_t k = 0; k < count; k++) {
            if (nodes[k].id == node->next[i] && strcmp(nodes[k].name, "AccumulateGrad") != 0 &&
                strcmp(nodes[k].name, "TBackward0") != 0) {
                return &nodes[k];
            }
        }
    }
    return NULL;
}

static void walk_the_graph(lesson *l) {
    static const char *const expected[] = {"MseLossBackward0",
                                           "AddmmBackward0",
                                           "ReluBackward0",
                                           "AddmmBackward0",
                                           "ReluBackward0",
                                           "AddmmBackward0",
                                           "ReshapeAliasBackward0",
                                           "MaxPool2DWithIndicesBackward0",
                                           "ReluBackward0",
                                           "ConvolutionBackward0",
                                           "MaxPool2DWithIndicesBackward0",
                                           "ReluBackward0",
                                           "ConvolutionBackward0"};
    gradd_grad_node *nodes = NULL;
    size_t count = 0, steps = 0;
    python("node = loss.grad_fn\n... while node: print(node); node = node.next_functions[0][0]  # and so on");
    if (!done(l, gradd_model_graph(l->client, NAME, &nodes, &count, &l->error))) {
        return;
    }
    for (const gradd_grad_node *node = count ? nodes : NULL; node && steps < count; steps++) {
        printf("<%s>%s%s\n", node->name, *node->layer ? "  # " : "", node->layer);
        check(l, steps < COUNT(expected) && strcmp(node->name, expected[steps]) == 0,
              "PyTorch has another node here");
        node = next_node(nodes, count, node);
    }
    check(l, steps == COUNT(expected), "the walk ends at the first convolution");
    gradd_free(nodes);
}

static float largest_bias_grad(lesson *l) {
    gradd_tensor grad = {0};
    float most = NAN;
    if (done(l, gradd_parameter_grad(l->client, NAME, "conv1.bias", &grad, &l->error))) {
        print_values(&grad);
        most = largest(&grad);
        gradd_tensor_free(&grad);
    }
    return most;
}

static void backpropagate(lesson *l) {
    python("net.zero_grad(); print(net.conv1.bias.grad)  # before backward");
    done(l, gradd_model_zero_grad(l->client, NAME, &l->error));
    check(l, largest_bias_grad(l) == 0, "gradients are zero after zero_grad");
    python("loss.backward(); print(net.conv1.bias.grad)  # after backward");
    done(l, gradd_model_backward(l->client, NAME, NULL, false, NULL, &l->error));
    check(l, largest_bias_grad(l) > 0, "gradients are not zero after backward");
}

/* f.data.sub_(f.grad.data * learning_rate) */
static void update_by_hand(lesson *l, const char *name, const gradd_tensor *before) {
    gradd_tensor grad = {0}, after = *before;
    int64_t numel = gradd_tensor_numel(before);
    if (!done(l, gradd_parameter_grad(l->client, NAME, name, &grad, &l->error))) {
        return;
    }
    float *values = malloc((size_t)numel * sizeof *values);
    check(l, values && gradd_tensor_numel(&grad) == numel, "the gradient has the parameter's shape");
    if (values && gradd_tensor_numel(&grad) == numel) {
        for (int64_t i = 0; i < numel; i++) {
            values[i] = ((const float *)before->data)[i] - learning_rate * ((const float *)grad.data)[i];
        }
        after.data = values;
        done(l, gradd_parameter_put(l->client, NAME, name, &after, NULL, &l->error));
    }
    free(values);
    gradd_tensor_free(&grad);
}

static bool same(const gradd_tensors *a, const gradd_tensors *b, float tolerance) {
    bool equal = a->count == b->count;
    for (size_t i = 0; i < a->count && equal; i++) {
        const gradd_tensor *x = &a->items[i].tensor, *y = gradd_tensors_find(b, a->items[i].name);
        equal = y && gradd_tensor_numel(x) == gradd_tensor_numel(y);
        for (int64_t k = 0; equal && k < gradd_tensor_numel(x); k++) {
            equal = fabsf(((const float *)x->data)[k] - ((const float *)y->data)[k]) <= tolerance;
        }
    }
    return equal;
}

static void update_the_weights(lesson *l) {
    gradd_tensors start = {0}, by_hand = {0}, by_optimizer = {0};
    gradd_step_result step;
    if (!done(l, gradd_state_dict_get(l->client, NAME, &start, &l->error))) {
        return;
    }
    python("for f in net.parameters(): f.data.sub_(f.grad.data * learning_rate)");
    for (size_t i = 0; i < start.count; i++) {
        update_by_hand(l, start.items[i].name, &start.items[i].tensor);
    }
    done(l, gradd_state_dict_get(l->client, NAME, &by_hand, &l->error));
    printf("%zu parameters changed\n", by_hand.count);
    check(l, !same(&start, &by_hand, 0), "the update changes the weights");

    python("optimizer = optim.SGD(net.parameters(), lr=0.01); optimizer.step()  # from the same weights");
    done(l, gradd_state_dict_put(l->client, NAME, start.items, start.count, true, NULL, &l->error));
    if (done(l, gradd_model_step(l->client, NAME, NULL, &step, &l->error))) {
        printf("step %lld, lr %g, norm of all gradients %.4f\n", (long long)step.step, step.lr,
               step.grad_norm);
    }
    done(l, gradd_state_dict_get(l->client, NAME, &by_optimizer, &l->error));
    check(l, same(&by_hand, &by_optimizer, 1e-6f), "the optimizer does what was done by hand");
    gradd_tensors_free(&start);
    gradd_tensors_free(&by_hand);
    gradd_tensors_free(&by_optimizer);
}

static void learn(lesson *l) {
    gradd_step_result first, second;
    python("for _ in range(2):  # the training loop\n...     optimizer.zero_grad(); loss = "
           "criterion(net(input), "
           "target); loss.backward(); optimizer.step()");
    if (done(l, gradd_model_train_step(l->client, NAME, &l->input, &l->target, NULL, &first, &l->error)) &&
        done(l, gradd_model_train_step(l->client, NAME, &l->input, &l->target, NULL, &second, &l->error))) {
        printf("loss %.4f, then %.4f\n", first.loss, second.loss);
        check(l, second.loss < first.loss, "the loss falls");
    }
}

static void make_a_mistake(lesson *l) {
    gradd_tensor small = l->input;
    small.shape[2] = small.shape[3] = 28;
    python("net(torch.randn(1, 1, 28, 28))  # the network was defined for 32 x 32");
    int code = gradd_model_forward(l->client, NAME, &small, NULL, &l->error);
    printf("%d %s: %s\n", l->error.http_status, l->error.problem, l->error.message);
    check(l, code == GRADD_E_REFUSED && strcmp(l->error.problem, "shape_mismatch") == 0,
          "a wrong shape is refused");
}

int main(void) {
    float input[32 * 32], target[10], gradient[10];
    lesson l = {
        .input = {.dtype = GRADD_FLOAT32, .rank = 4, .shape = {1, 1, 32, 32}, .data = input},
        .target = {.dtype = GRADD_FLOAT32, .rank = 2, .shape = {1, 10}, .data = target},
        .gradient = {.dtype = GRADD_FLOAT32, .rank = 2, .shape = {1, 10}, .data = gradient},
    };
    fill(&l.input, 1);
    fill(&l.target, 2);
    fill(&l.gradient, 3);
    if (!done(&l, gradd_client_new(NULL, &l.client, &l.error))) {
        return 1;
    }
    if (define_the_network(&l)) {
        run_it_forward_and_backward(&l);
        compute_a_loss(&l);
        walk_the_graph(&l);
        backpropagate(&l);
        update_the_weights(&l);
        learn(&l);
        make_a_mistake(&l);
        done(&l, gradd_model_delete(l.client, NAME, false, &l.error));
    }
    gradd_client_free(l.client);
    if (l.wrong) {
        printf("\n%d results are wrong\n", l.wrong);
        return 1;
    }
    puts("\nAll results are as they should be.");
    return 0;
}
