/* autograd_test.c -- forward, loss and backward behave as torch.autograd's do, and a failed call leaves
 * everything as it was. */
#include <math.h>

#include "tests/support.h"

/* A small network and a batch for it, made anew for each test. */
typedef struct fixture {
    gd_engine *engine;
    gd_model *model;
    gd_tensor input, target;
} fixture;

static const char small_net[] =
    "{'name': 'small', 'seed': 3, 'input': {'shape': [2, 6, 6]}, 'layers': ["
    "{'type': 'Conv2d', 'name': 'conv', 'out_channels': 3, 'kernel_size': 3}, {'type': 'relu'},"
    "{'type': 'max_pool2d', 'kernel_size': 2}, {'type': 'flatten'},"
    "{'type': 'Linear', 'name': 'fc1', 'out_features': 7}, {'type': 'relu'},"
    "{'type': 'Linear', 'name': 'fc2', 'out_features': 4}],"
    "'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}}";

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->engine = test_engine(1, 0);
    f->model = test_model(f->engine, test_json(small_net));
    f->input = test_random(TEST_SHAPE(5, 2, 6, 6), 11);
    f->target = test_random_classes(5, 4, 12);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    gd_model_free(f->model);
    gd_engine_free(f->engine);
    free(f->input.data);
    free(f->target.data);
    free(f);
    return 0;
}

static gd_tensor forward(fixture *f) {
    gd_tensor output;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(f->model, &f->input, 1, &output, &error), &error);
    return output;
}

static float forward_and_loss(fixture *f) {
    gd_tensor loss;
    gd_error error = GD_ERROR_INIT;
    (void)forward(f);
    test_ok(gd_model_loss(f->model, &f->target, NULL, &loss, &error), &error);
    return *(const float *)loss.data;
}

static void backward(fixture *f) {
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_backward(f->model, NULL, false, &error), &error);
}

/* A copy of a parameter's gradient. */
static float *gradient_of(const fixture *f, const char *name) {
    const gd_parameter *parameter = test_parameter(f->model, name);
    assert_true(parameter->has_grad);
    float *copy = malloc((size_t)parameter->numel * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, parameter->grad, (size_t)parameter->numel * sizeof *copy);
    return copy;
}

static void refused(int code, const gd_error *error, int expected, const char *says) {
    assert_int_equal(code, expected);
    assert_int_equal(error->code, expected);
    if (!strstr(error->message, says))
        fail_msg("the message does not say '%s': %s", says, error->message);
}

/* ---- gradients --------------------------------------------------------------------------------- */

static void there_is_no_gradient_before_backward(void **state) {
    fixture *f = *state;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < gd_model_parameter_count(f->model); i++)
            assert_false(gd_model_parameter(f->model, i)->has_grad);
        (void)forward_and_loss(f);
    }
    backward(f);
    for (size_t i = 0; i < gd_model_parameter_count(f->model); i++)
        assert_true(gd_model_parameter(f->model, i)->has_grad);
}

static void every_gradient_adds_up(void **state) {
    fixture *f = *state;
    float *once[16];
    size_t count = gd_model_parameter_count(f->model);
    assert_in_range(count, 1, 16);
    (void)forward_and_loss(f);
    backward(f);
    for (size_t i = 0; i < count; i++)
        once[i] = gradient_of(f, gd_model_parameter(f->model, i)->name);
    (void)forward_and_loss(f);
    backward(f);
    for (size_t i = 0; i < count; i++) {
        const gd_parameter *parameter = gd_model_parameter(f->model, i);
        assert_true(gd_norm(once[i], parameter->numel) > 0);
        for (int64_t k = 0; k < parameter->numel; k++)
            once[i][k] *= 2;
        test_close_values(once[i], parameter->grad, parameter->numel, 1e-6, parameter->name);
        free(once[i]);
    }
}

static void zero_grad_clears_every_gradient(void **state) {
    fixture *f = *state;
    (void)forward_and_loss(f);
    backward(f);
    float *once = gradient_of(f, "fc1.weight");
    gd_model_zero_grad(f->model);
    for (size_t i = 0; i < gd_model_parameter_count(f->model); i++) {
        const gd_parameter *parameter = gd_model_parameter(f->model, i);
        if (parameter->has_grad)
            assert_true(gd_norm(parameter->grad, parameter->numel) == 0);
    }
    (void)forward_and_loss(f);
    backward(f);
    const gd_parameter *weight = test_parameter(f->model, "fc1.weight");
    assert_memory_equal(weight->grad, once, (size_t)weight->numel * sizeof(float));
    free(once);
}

static void the_gradient_norm_is_over_all_parameters(void **state) {
    fixture *f = *state;
    double squares = 0;
    (void)forward_and_loss(f);
    backward(f);
    for (size_t i = 0; i < gd_model_parameter_count(f->model); i++) {
        const gd_parameter *parameter = gd_model_parameter(f->model, i);
        squares += pow(gd_norm(parameter->grad, parameter->numel), 2);
    }
    assert_true(squares > 0);
    assert_float_equal(gd_model_grad_norm(f->model), sqrt(squares), 1e-6 * sqrt(squares));
}

/* Squares that a float can't hold count all the same. */
static void a_norm_may_be_huge_or_tiny(void **state) {
    (void)state;
    enum { COUNT = 3000 };
    float values[COUNT];
    for (int power = -30; power <= 36; power += 6) {
        const double size = pow(10, power);
        for (int i = 0; i < COUNT; i++)
            values[i] = i % 2 ? (float)(3 * size) : (float)(4 * size);
        const double norm = sqrt(COUNT / 2.0) * 5 * size;
        assert_true(fabs(gd_norm(values, COUNT) - norm) <= 1e-6 * norm);
    }
    values[COUNT / 2] = INFINITY;
    assert_true(isinf(gd_norm(values, COUNT)));
    values[COUNT / 2] = NAN;
    assert_true(isnan(gd_norm(values, COUNT)));
}

/* Larger than what one thread takes at a time: its sums are put together, and zeroed all. */
static double norm_of_a_large_net(int threads) {
    gd_engine *engine = test_engine(threads, 0);
    gd_model *model = test_model(
        engine,
        test_json("{'name': 'large', 'class_name': 'Net', 'seed': 0, 'inputs': {'x': {'shape': [300]}},"
                  " 'layers': [{'type': 'Linear', 'out_features': 301},"
                  "            {'type': 'Linear', 'out_features': 7}]}"));
    gd_tensor x = test_random(TEST_SHAPE(3, 300), 1), gradient = test_random(TEST_SHAPE(3, 7), 2),
              output = {0};
    gd_error error = GD_ERROR_INIT;
    double squares = 0;
    test_ok(gd_model_forward(model, &x, 1, &output, &error), &error);
    test_ok(gd_model_backward(model, &gradient, false, &error), &error);
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        for (int64_t k = 0; k < parameter->numel; k++)
            squares += (double)parameter->grad[k] * (double)parameter->grad[k];
    }
    const double norm = gd_model_grad_norm(model);
    assert_true(fabs(norm - sqrt(squares)) <= 1e-8 * norm);
    gd_model_zero_grad(model);
    assert_true(gd_model_grad_norm(model) == 0);
    free(x.data);
    free(gradient.data);
    gd_model_free(model);
    gd_engine_free(engine);
    return norm;
}

static void a_large_nets_gradient_norm_is_the_same_for_any_threads(void **state) {
    (void)state;
    const double norm = norm_of_a_large_net(1);
    assert_true(norm > 0);
    assert_true(norm == norm_of_a_large_net(3));
}

static void a_given_gradient_goes_back_from_the_output(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_tensor output = forward(f);
    gd_tensor gradient = test_random(output.shape, 5);
    test_ok(gd_model_backward(f->model, &gradient, false, &error), &error);
    const gd_parameter *bias = test_parameter(f->model, "fc2.bias");
    for (int64_t k = 0; k < 4; k++) { /* dL/dbias is the gradient's column sums */
        double sum = 0;
        for (int64_t n = 0; n < 5; n++)
            sum += ((const float *)gradient.data)[n * 4 + k];
        assert_float_equal(bias->grad[k], sum, 1e-5);
    }
    free(gradient.data);
}

static void an_output_of_indices_has_no_loss_and_no_backward(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_model *model = test_model(
        f->engine, test_json("{'name': 'indices', 'seed': 1, 'input': {'shape': [3]}, 'layers': ["
                             "{'type': 'Linear', 'out_features': 4}, {'type': 'argmax', 'dim': 1}],"
                             "'loss': {'type': 'MSELoss'}, 'optimizer': {'type': 'SGD', 'lr': 0.1}}"));
    gd_tensor input = test_random(TEST_SHAPE(5, 3), 1), target = test_random(TEST_SHAPE(5), 2), output, loss;
    gd_step_result result;
    test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
    assert_int_equal(output.dtype, GD_INT64);
    assert_int_equal(gd_model_loss(model, &target, NULL, &loss, &error), GD_E_DTYPE);
    assert_non_null(strstr(error.message, "int64"));
    assert_int_equal(gd_model_evaluate(model, &input, 1, &target, &result, NULL), GD_E_DTYPE);
    assert_int_equal(gd_model_train_step(model, &input, 1, &target, NULL, NULL, &result, NULL), GD_E_DTYPE);
    assert_int_not_equal(gd_model_backward(model, &target, false, NULL), 0);
    assert_string_equal(gd_model_output_grad_fn(model, 0), "");
    free(input.data);
    free(target.data);
    gd_model_free(model);
}

static void a_given_gradient_of_another_shape_is_refused(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    (void)forward(f);
    gd_tensor gradient = test_random(TEST_SHAPE(4, 5), 5);
    refused(gd_model_backward(f->model, &gradient, false, &error), &error, GD_E_SHAPE, "[5, 4]");
    assert_non_null(strstr(error.message, "[4, 5]"));
    assert_false(gd_model_parameter(f->model, 0)->has_grad);
    gradient.shape = TEST_SHAPE(5, 4); /* the graph is still there */
    error = (gd_error)GD_ERROR_INIT;
    test_ok(gd_model_backward(f->model, &gradient, false, &error), &error);
    free(gradient.data);
}

/* ---- the graph's life ----------------------------------------------------------------------------- */

static void backward_without_forward_says_to_call_forward(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    refused(gd_model_backward(f->model, NULL, false, &error), &error, GD_E_STATE, "forward");
}

static void backward_without_loss_says_to_call_loss_or_give_a_gradient(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    (void)forward(f);
    refused(gd_model_backward(f->model, NULL, false, &error), &error, GD_E_STATE, "loss");
    assert_non_null(strstr(error.message, "gradient"));
}

static void loss_without_forward_says_to_call_forward(void **state) {
    fixture *f = *state;
    gd_tensor loss;
    gd_error error = GD_ERROR_INIT;
    refused(gd_model_loss(f->model, &f->target, NULL, &loss, &error), &error, GD_E_STATE, "forward");
}

static void a_second_backward_is_refused(void **state) {
    fixture *f = *state;
    (void)forward_and_loss(f);
    backward(f);
    float *once = gradient_of(f, "fc1.weight");
    gd_error error = GD_ERROR_INIT;
    refused(gd_model_backward(f->model, NULL, false, &error), &error, GD_E_STATE, "retain_graph");
    assert_non_null(strstr(error.message, "forward"));
    const gd_parameter *weight = test_parameter(f->model, "fc1.weight");
    assert_memory_equal(weight->grad, once, (size_t)weight->numel * sizeof(float));
    free(once);
}

static void retain_graph_allows_a_second_backward(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    (void)forward_and_loss(f);
    test_ok(gd_model_backward(f->model, NULL, true, &error), &error);
    float *once = gradient_of(f, "conv.weight");
    test_ok(gd_model_backward(f->model, NULL, false, &error), &error);
    const gd_parameter *weight = test_parameter(f->model, "conv.weight");
    for (int64_t i = 0; i < weight->numel; i++)
        once[i] *= 2;
    test_close_values(once, weight->grad, weight->numel, 1e-6, "conv.weight's gradient");
    refused(gd_model_backward(f->model, NULL, false, &error), &error, GD_E_STATE, "retain_graph");
    free(once);
}

/* Runners' memory is used by every slice and by predictions: nothing that backward reads may lie there. */
static void a_kept_graph_of_many_slices_goes_back_twice(void **state) {
    fixture *f = *state;
    gd_model *model = test_model(f->engine, test_lenet("{'type': 'CrossEntropyLoss'}", NULL));
    gd_tensor input = test_random(TEST_SHAPE(130, 1, 32, 32), 1), output, loss;
    gd_tensor target = test_random_classes(130, 10, 2), other = test_random(TEST_SHAPE(77, 1, 32, 32), 3);
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
    test_ok(gd_model_loss(model, &target, NULL, &loss, &error), &error);
    test_ok(gd_model_backward(model, NULL, true, &error), &error);
    const gd_parameter *weight = test_parameter(model, "conv2.weight");
    float once[16 * 6 * 9];
    assert_int_equal(weight->numel, 16 * 6 * 9);
    memcpy(once, weight->grad, sizeof once);
    gd_model_zero_grad(model);
    test_ok(gd_model_predict(model, &other, 1, &output, &error), &error);
    test_ok(gd_model_backward(model, NULL, false, &error), &error);
    assert_memory_equal(weight->grad, once, sizeof once);
    gd_model_free(model);
    free(input.data);
    free(target.data);
    free(other.data);
}

static void a_second_loss_on_the_same_output_replaces_the_first(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_tensor loss;
    float first = forward_and_loss(f);
    const gd_field sum[] = {{"reduction", {.kind = GD_VALUE_STRING, .string = "sum"}}};
    const gd_term_spec term = {.loss = {"CrossEntropyLoss", sum, 1}, .weight = 1};
    const gd_loss_spec summed = {&term, 1};
    test_ok(gd_model_loss(f->model, &f->target, &summed, &loss, &error), &error);
    assert_float_equal(*(const float *)loss.data, 5 * first, 1e-4);
    test_ok(gd_model_loss(f->model, &f->target, NULL, &loss, &error), &error); /* for that once only */
    assert_float_equal(*(const float *)loss.data, first, 0);
    backward(f);
}

static void a_forgotten_graph_has_no_backward(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    (void)forward_and_loss(f);
    gd_model_forget(f->model);
    refused(gd_model_backward(f->model, NULL, false, &error), &error, GD_E_STATE, "forward");
    gd_grad_node *nodes = NULL;
    size_t count = 0;
    error = (gd_error)GD_ERROR_INIT;
    refused(gd_model_walk(f->model, &nodes, &count, &error), &error, GD_E_STATE, "forward");
    assert_null(nodes);
}

static void predict_does_not_disturb_a_kept_graph(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    (void)forward_and_loss(f);
    backward(f);
    float *undisturbed = gradient_of(f, "conv.weight");
    gd_model_zero_grad(f->model);

    (void)forward_and_loss(f);
    gd_tensor other = test_random(TEST_SHAPE(9, 2, 6, 6), 77), output;
    gd_tensor classes = test_random_classes(9, 4, 78);
    gd_step_result result;
    test_ok(gd_model_predict(f->model, &other, 1, &output, &error), &error);
    test_ok(gd_model_evaluate(f->model, &other, 1, &classes, &result, &error), &error);
    assert_int_equal(result.count, 9);
    backward(f);
    const gd_parameter *weight = test_parameter(f->model, "conv.weight");
    assert_memory_equal(weight->grad, undisturbed, (size_t)weight->numel * sizeof(float));
    free(undisturbed);
    free(other.data);
    free(classes.data);
}

static void predict_and_evaluate_agree_with_forward_and_loss(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_tensor predicted, output;
    gd_step_result result;
    float loss = forward_and_loss(f);
    test_ok(gd_model_output(f->model, &output, &error), &error);
    test_ok(gd_model_predict(f->model, &f->input, 1, &predicted, &error), &error);
    test_close(&output, &predicted, 1e-6, "prediction");
    test_ok(gd_model_evaluate(f->model, &f->input, 1, &f->target, &result, &error), &error);
    assert_float_equal(result.loss, loss, 1e-5);
    int64_t correct = 0;
    for (int64_t n = 0; n < 5; n++) {
        const float *row = (const float *)output.data + n * 4;
        int64_t best = 0;
        for (int64_t k = 1; k < 4; k++)
            best = row[k] > row[best] ? k : best;
        correct += best == ((const int64_t *)f->target.data)[n];
    }
    assert_int_equal(result.correct, correct);
}

/* ---- frozen parameters -------------------------------------------------------------------------------- */

static void freeze(fixture *f, const char *name, bool frozen) {
    size_t index = 0;
    assert_non_null(gd_model_find_parameter(f->model, name, &index));
    gd_model_set_requires_grad(f->model, index, !frozen);
}

static void a_frozen_parameter_gets_no_gradient_and_the_others_the_same(void **state) {
    fixture *f = *state;
    (void)forward_and_loss(f);
    backward(f);
    float *bias = gradient_of(f, "fc1.bias");
    tear_down(state);
    set_up(state);
    f = *state;
    freeze(f, "conv.weight", true);
    freeze(f, "conv.bias", true);
    freeze(f, "fc1.weight", true);
    (void)forward_and_loss(f);
    backward(f);
    assert_false(test_parameter(f->model, "conv.weight")->has_grad);
    assert_false(test_parameter(f->model, "fc1.weight")->has_grad);
    const gd_parameter *after = test_parameter(f->model, "fc1.bias");
    assert_true(after->has_grad);
    assert_memory_equal(after->grad, bias, (size_t)after->numel * sizeof(float));
    free(bias);
}

static void a_frozen_parameter_is_not_stepped(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    freeze(f, "fc1.weight", true);
    size_t count;
    float *before = test_parameters(f->model, &count);
    test_ok(gd_model_train_step(f->model, &f->input, 1, &f->target, NULL, NULL, &result, &error), &error);
    const float *at = before;
    for (size_t i = 0; i < gd_model_parameter_count(f->model); i++) {
        const gd_parameter *parameter = gd_model_parameter(f->model, i);
        bool same = memcmp(at, parameter->data, (size_t)parameter->numel * sizeof *at) == 0;
        assert_int_equal(same, strcmp(parameter->name, "fc1.weight") == 0);
        at += parameter->numel;
    }
    free(before);
}

static void nothing_to_go_back_to_is_refused(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    for (size_t i = 0; i < gd_model_parameter_count(f->model); i++)
        gd_model_set_requires_grad(f->model, i, false);
    (void)forward_and_loss(f);
    assert_string_equal(gd_model_loss_grad_fn(f->model), "");
    refused(gd_model_backward(f->model, NULL, false, &error), &error, GD_E_STATE, "requires_grad");
}

static void a_frozen_parameter_stands_in_the_graph_as_none(void **state) {
    fixture *f = *state;
    freeze(f, "conv.weight", true);
    freeze(f, "conv.bias", true);
    freeze(f, "fc1.weight", true);
    (void)forward_and_loss(f);
    json_t *expected =
        test_json("[['NllLossBackward0', [1]], ['LogSoftmaxBackward0', [2]], ['AddmmBackward0', [3, 4, 7]],"
                  " ['AccumulateGrad', []], ['ReluBackward0', [5]], ['AddmmBackward0', [6, -1, -1]],"
                  " ['AccumulateGrad', []], ['TBackward0', [8]], ['AccumulateGrad', []]]");
    test_walk(f->model, expected);
    json_decref(expected);
}

/* ---- several paths ------------------------------------------------------------------------------------- */

static void a_value_used_twice_gets_both_gradients(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_model *model =
        test_model(f->engine, test_json("{'name': 'twice', 'seed': 1, 'input': {'shape': [3]}, 'layers': ["
                                        "{'type': 'Linear', 'name': 'a', 'out_features': 3},"
                                        "{'type': 'relu', 'name': 'b'},"
                                        "{'type': 'add', 'name': 'c', 'inputs': ['a', 'b'], 'alpha': 2},"
                                        "{'type': 'add', 'name': 'd', 'inputs': ['c', 'c']}]}"));
    gd_tensor input = test_random(TEST_SHAPE(4, 3), 3), output, gradient = test_random(TEST_SHAPE(4, 3), 4);
    test_ok(gd_model_forward(model, &input, 1, &output, &error), &error);
    test_ok(gd_model_backward(model, &gradient, false, &error), &error);
    /* d = 2 (a + 2 relu(a)): slope 2 where a < 0 and 6 where a > 0, d having the sign of a */
    const float *y = output.data, *g = gradient.data;
    const gd_parameter *bias = test_parameter(model, "a.bias");
    for (int64_t k = 0; k < 3; k++) {
        double sum = 0;
        for (int64_t n = 0; n < 4; n++)
            sum += g[n * 3 + k] * (y[n * 3 + k] > 0 ? 6.0 : 2.0);
        assert_float_equal(bias->grad[k], sum, 1e-4);
    }
    free(input.data);
    free(gradient.data);
    gd_model_free(model);
}

/* ---- failures change nothing ------------------------------------------------------------------------ */

typedef struct snapshot {
    float *values, *gradient;
    size_t count;
    uint64_t version;
    int64_t steps;
} snapshot;

static snapshot take(const fixture *f) {
    snapshot s = {.version = gd_model_version(f->model), .steps = gd_model_steps(f->model)};
    s.values = test_parameters(f->model, &s.count);
    s.gradient = gradient_of(f, "conv.weight");
    return s;
}

static void unchanged(const fixture *f, snapshot *s) {
    snapshot now = take(f);
    assert_int_equal(now.version, s->version);
    assert_int_equal(now.steps, s->steps);
    assert_memory_equal(now.values, s->values, s->count * sizeof(float));
    assert_memory_equal(now.gradient, s->gradient,
                        (size_t)test_parameter(f->model, "conv.weight")->numel * sizeof(float));
    free(now.values);
    free(now.gradient);
    free(s->values);
    free(s->gradient);
}

static void a_failed_train_step_changes_nothing(void **state) {
    fixture *f = *state;
    gd_step_result result;
    (void)forward_and_loss(f);
    backward(f);
    snapshot before = take(f);
    gd_error error = GD_ERROR_INIT;
    ((int64_t *)f->target.data)[4] = 4; /* classes are 0 ... 3 */
    int code = gd_model_train_step(f->model, &f->input, 1, &f->target, NULL, NULL, &result, &error);
    refused(code, &error, GD_E_VALUE, "4");
    gd_tensor wrong = {GD_FLOAT32, TEST_SHAPE(5, 2, 6, 5), f->input.data};
    ((int64_t *)f->target.data)[4] = 0;
    error = (gd_error)GD_ERROR_INIT;
    code = gd_model_train_step(f->model, &wrong, 1, &f->target, NULL, NULL, &result, &error);
    refused(code, &error, GD_E_SHAPE, "5");
    const gd_field bad[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = -1}}};
    const gd_step_options options = {.fields = bad, .field_count = 1};
    error = (gd_error)GD_ERROR_INIT;
    code = gd_model_train_step(f->model, &f->input, 1, &f->target, NULL, &options, &result, &error);
    refused(code, &error, GD_E_ATTRIBUTE, "lr");
    unchanged(f, &before);
}

static void a_step_without_gradients_is_refused_or_changes_nothing(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    size_t count;
    float *before = test_parameters(f->model, &count), *after;
    int code = gd_model_step(f->model, NULL, &result, &error);
    if (code)
        assert_non_null(strstr(error.message, "backward"));
    after = test_parameters(f->model, &count);
    assert_memory_equal(before, after, count * sizeof *before);
    free(before);
    free(after);
}

static void a_missing_batch_axis_is_refused_and_the_message_says_so(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_tensor one = {GD_FLOAT32, TEST_SHAPE(2, 6, 6), f->input.data}, output;
    refused(gd_model_forward(f->model, &one, 1, &output, &error), &error, GD_E_SHAPE, "batch");
    assert_non_null(strstr(error.message, "[1, 2, 6, 6]"));
}

static void an_empty_batch_is_refused(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_tensor none = {GD_FLOAT32, TEST_SHAPE(0, 2, 6, 6), f->input.data}, output;
    refused(gd_model_forward(f->model, &none, 1, &output, &error), &error, GD_E_SHAPE, "batch");
    error = (gd_error)GD_ERROR_INIT;
    refused(gd_model_predict(f->model, &none, 1, &output, &error), &error, GD_E_SHAPE, "batch");
}

static void an_input_of_another_dtype_is_refused(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_tensor wrong = {GD_INT32, f->input.shape, f->input.data}, output;
    refused(gd_model_forward(f->model, &wrong, 1, &output, &error), &error, GD_E_DTYPE, "float32");
}

static void a_failed_forward_keeps_the_graph_of_the_last_one(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_tensor none = {GD_FLOAT32, TEST_SHAPE(0, 2, 6, 6), f->input.data}, output;
    (void)forward_and_loss(f);
    assert_int_not_equal(gd_model_forward(f->model, &none, 1, &output, &error), 0);
    backward(f);
}

static void every_change_is_counted_in_the_version(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    assert_int_equal(gd_model_version(f->model), 1);
    (void)forward_and_loss(f);
    backward(f);
    assert_int_equal(gd_model_version(f->model), 1);
    test_ok(gd_model_step(f->model, NULL, &result, &error), &error);
    uint64_t stepped = gd_model_version(f->model), weight = test_parameter(f->model, "fc2.weight")->version;
    assert_true(stepped > 1);
    gd_tensor values = test_random(TEST_SHAPE(4, 7), 9);
    test_set_parameter(f->model, "fc2.weight", &values);
    assert_true(gd_model_version(f->model) > stepped);
    assert_true(test_parameter(f->model, "fc2.weight")->version > weight);
    assert_memory_equal(test_parameter(f->model, "fc2.weight")->data, values.data, 28 * sizeof(float));
    free(values.data);
}

static void a_parameter_of_another_shape_is_refused(void **state) {
    fixture *f = *state;
    gd_error error = GD_ERROR_INIT;
    size_t index;
    gd_tensor values = test_random(TEST_SHAPE(7, 4), 9);
    const gd_parameter *weight = gd_model_find_parameter(f->model, "fc2.weight", &index);
    assert_non_null(weight);
    float first = weight->data[0];
    refused(gd_model_set_parameter(f->model, index, &values, &error), &error, GD_E_SHAPE, "[4, 7]");
    assert_float_equal(weight->data[0], first, 0);
    free(values.data);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(there_is_no_gradient_before_backward),
        T(every_gradient_adds_up),
        T(zero_grad_clears_every_gradient),
        T(the_gradient_norm_is_over_all_parameters),
        T(a_norm_may_be_huge_or_tiny),
        T(a_large_nets_gradient_norm_is_the_same_for_any_threads),
        T(a_given_gradient_goes_back_from_the_output),
        T(an_output_of_indices_has_no_loss_and_no_backward),
        T(a_given_gradient_of_another_shape_is_refused),
        T(backward_without_forward_says_to_call_forward),
        T(backward_without_loss_says_to_call_loss_or_give_a_gradient),
        T(loss_without_forward_says_to_call_forward),
        T(a_second_backward_is_refused),
        T(retain_graph_allows_a_second_backward),
        T(a_kept_graph_of_many_slices_goes_back_twice),
        T(a_second_loss_on_the_same_output_replaces_the_first),
        T(a_forgotten_graph_has_no_backward),
        T(predict_does_not_disturb_a_kept_graph),
        T(predict_and_evaluate_agree_with_forward_and_loss),
        T(a_frozen_parameter_gets_no_gradient_and_the_others_the_same),
        T(a_frozen_parameter_is_not_stepped),
        T(nothing_to_go_back_to_is_refused),
        T(a_frozen_parameter_stands_in_the_graph_as_none),
        T(a_value_used_twice_gets_both_gradients),
        T(a_failed_train_step_changes_nothing),
        T(a_step_without_gradients_is_refused_or_changes_nothing),
        T(a_missing_batch_axis_is_refused_and_the_message_says_so),
        T(an_empty_batch_is_refused),
        T(an_input_of_another_dtype_is_refused),
        T(a_failed_forward_keeps_the_graph_of_the_last_one),
        T(every_change_is_counted_in_the_version),
        T(a_parameter_of_another_shape_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
