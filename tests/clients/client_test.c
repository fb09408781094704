/* client_test.c -- libgradd's calls against a daemon, from one thread and from several. */
#include "tests/support.h"

#include <math.h>
#include <pthread.h>

#include "clients/c/gradd.h"
#include "tests/daemon.h"

static const char small[] = "{\"name\": \"%s\", \"seed\": 0, \"input\": {\"shape\": [3]},"
                            " \"layers\": [{\"type\": \"Linear\", \"name\": \"fc\", \"out_features\": 2}],"
                            " \"loss\": {\"type\": \"CrossEntropyLoss\"},"
                            " \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.1}}";

typedef struct fixture {
    test_daemon daemon;
    gradd_client *client;
} fixture;

static int set_up(void **state) {
    static fixture f;
    test_daemon_start(&f.daemon, NULL);
    const gradd_config config = {.server = f.daemon.server};
    assert_int_equal(gradd_client_new(&config, &f.client, NULL), GRADD_OK);
    *state = &f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    gradd_client_free(f->client);
    test_daemon_stop(&f->daemon);
    return 0;
}

/* The call succeeds, or its error is shown. */
#define ok(call) ok_(call, &error, __FILE__, __LINE__)
static void ok_(int code, const gradd_error *error, const char *file, int line) {
    if (code) {
        print_error("%d %s: %s\n", code, error->problem, error->message);
        _fail(file, line);
    }
}

static void create(gradd_client *client, const char *name) {
    char json[1024];
    gradd_error error;
    snprintf(json, sizeof json, small, name); /* NOLINT: the format is the constant above */
    ok(gradd_model_create(client, json, NULL, &error));
}

static const gradd_tensor input = {
    .dtype = GRADD_FLOAT32, .rank = 2, .shape = {2, 3}, .data = (float[]){1, 2, 3, -1, 0, 1}};
static const gradd_tensor target = {.dtype = GRADD_INT64, .rank = 1, .shape = {2}, .data = (int64_t[]){0, 1}};

static void a_model_is_described_and_changed(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_model_info info;
    gradd_error error;
    create(client, "m");
    ok(gradd_model_show(client, "m", &info, &error));
    assert_string_equal(info.name, "m");
    assert_true(info.training);
    assert_int_equal(info.parameter_count, 2);
    assert_int_equal(info.parameter_numel, 8);
    assert_int_equal(info.step, 0);
    assert_non_null(strstr(info.repr, "(fc): Linear(in_features=3, out_features=2, bias=True)"));
    assert_non_null(strstr(info.json, "\"lr\": 0.1"));
    gradd_model_info_free(&info);
    ok(gradd_model_patch(client, "m", "{\"training\": false, \"optimizer\": {\"lr\": 0.5}}", NULL, &info,
                         &error));
    assert_false(info.training);
    assert_non_null(strstr(info.json, "\"lr\": 0.5"));
    gradd_model_info_free(&info);
    ok(gradd_model_delete(client, "m", false, &error));
    assert_int_equal(gradd_model_show(client, "m", &info, &error), GRADD_E_REFUSED);
    assert_int_equal(error.http_status, 404);
    assert_string_equal(error.problem, "not_found");
    assert_true(*error.request_id);
}

static void a_check_creates_nothing(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_model_info info;
    gradd_model_list list;
    gradd_error error;
    char json[1024];
    snprintf(json, sizeof json, small, "dry");
    ok(gradd_model_check(client, json, &info, &error));
    assert_int_equal(info.parameter_numel, 8);
    gradd_model_info_free(&info);
    ok(gradd_model_list_all(client, &list, &error));
    assert_int_equal(list.count, 0);
    gradd_model_list_free(&list);
}

static void a_list_goes_over_all_pages(void **state) {
    enum { MODELS = 105 }; /* a page holds 100 */
    gradd_client *client = ((fixture *)*state)->client;
    gradd_model_list list;
    gradd_error error;
    char name[16];
    for (int i = 0; i < MODELS; i++) {
        snprintf(name, sizeof name, "m%03d", i);
        create(client, name);
    }
    ok(gradd_model_list_all(client, &list, &error));
    assert_int_equal(list.count, MODELS);
    for (size_t i = 0; i < list.count; i++) {
        ok(gradd_model_delete(client, list.items[i].name, false, &error));
    }
    gradd_model_list_free(&list);
}

static void a_step_by_parts_equals_a_train_step(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_step_result by_parts, whole;
    gradd_loss_result loss;
    gradd_tensors a, b;
    gradd_error error;
    double grad_norm = 0;
    create(client, "a");
    create(client, "b");
    gradd_tensor output;
    ok(gradd_model_zero_grad(client, "a", &error));
    ok(gradd_model_forward(client, "a", &input, &output, &error));
    assert_int_equal(output.rank, 2);
    assert_int_equal(output.shape[0], 2);
    assert_int_equal(output.shape[1], 2);
    gradd_tensor_free(&output);
    ok(gradd_model_loss(client, "a", &target, NULL, &loss, &error));
    assert_string_equal(loss.grad_fn, "NllLossBackward0");
    ok(gradd_model_backward(client, "a", NULL, false, &grad_norm, &error));
    ok(gradd_model_step(client, "a", NULL, &by_parts, &error));
    ok(gradd_model_train_step(client, "b", &input, &target, NULL, &whole, &error));
    assert_int_equal(whole.step, 1);
    assert_int_equal(by_parts.step, 1);
    assert_int_equal(whole.count, 2);
    assert_in_range(whole.correct, 0, 2);
    assert_true(whole.compute_us >= 0);
    assert_true(whole.loss == loss.loss);
    assert_true(by_parts.grad_norm == grad_norm);
    assert_true(fabs(whole.grad_norm - grad_norm) <= 1e-6 * grad_norm); /* added up by other pieces */
    ok(gradd_state_dict_get(client, "a", &a, &error));
    ok(gradd_state_dict_get(client, "b", &b, &error));
    assert_int_equal(a.count, 2);
    for (size_t i = 0; i < a.count; i++) {
        const gradd_tensor *x = &a.items[i].tensor, *y = gradd_tensors_find(&b, a.items[i].name);
        assert_non_null(y);
        assert_memory_equal(x->data, y->data, (size_t)gradd_tensor_numel(x) * sizeof(float));
    }
    gradd_tensors_free(&a);
    gradd_tensors_free(&b);
    ok(gradd_model_delete(client, "a", false, &error));
    ok(gradd_model_delete(client, "b", false, &error));
}

static void options_change_one_step(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_step_result result;
    gradd_loss_result loss;
    gradd_error error;
    const gradd_option faster[] = {{"lr", "0.25"}, {"clip_grad_norm", "1"}, {NULL, NULL}};
    const gradd_option unknown[] = {{"speed", "1"}, {NULL, NULL}};
    const gradd_option mse[] = {{"loss", "MSELoss"}, {NULL, NULL}};
    const gradd_tensor wanted = {
        .dtype = GRADD_FLOAT32, .rank = 2, .shape = {2, 2}, .data = (float[]){1, 2, 3, 4}};
    create(client, "m");
    ok(gradd_model_train_step(client, "m", &input, &target, faster, &result, &error));
    assert_true(result.lr == 0.25);
    ok(gradd_model_forward_backward(client, "m", &input, &target, NULL, &result, &error));
    assert_int_equal(result.step, -1);
    ok(gradd_model_step(client, "m", faster, &result, &error));
    assert_true(result.lr == 0.25);
    ok(gradd_model_step(client, "m", NULL, &result, &error));
    assert_true(result.lr == 0.1);
    assert_int_equal(gradd_model_step(client, "m", unknown, &result, &error), GRADD_E_REFUSED);
    assert_non_null(strstr(error.message, "speed"));
    ok(gradd_model_forward(client, "m", &input, NULL, &error));
    ok(gradd_model_loss(client, "m", &wanted, mse, &loss, &error));
    assert_string_equal(loss.grad_fn, "MseLossBackward0");
    ok(gradd_model_delete(client, "m", false, &error));
}

static void an_epoch_ends_when_the_client_says_so(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_schedule_result result;
    gradd_error error;
    const double metrics[] = {0.25, NAN, INFINITY}, rates[] = {0.1, 0.05, 0.025};
    create(client, "m");
    assert_int_equal(gradd_model_scheduler_step(client, "m", NULL, &result, &error), GRADD_E_REFUSED);
    assert_non_null(strstr(error.message, "no scheduler"));
    ok(gradd_model_patch(
        client, "m", "{\"scheduler\": {\"type\": \"ReduceLROnPlateau\", \"patience\": 0, \"factor\": 0.5}}",
        NULL, NULL, &error));
    for (int i = 0; i < 3; i++) {
        ok(gradd_model_scheduler_step(client, "m", &metrics[i], &result, &error));
        assert_int_equal(result.epoch, i + 1);
        assert_true(fabs(result.lr - rates[i]) < 1e-12);
    }
    assert_int_equal(gradd_model_scheduler_step(client, "m", NULL, &result, &error), GRADD_E_REFUSED);
    assert_non_null(strstr(error.message, "metric"));
    ok(gradd_model_patch(client, "m",
                         "{\"scheduler\": {\"type\": \"StepLR\", \"step_size\": 2, \"interval\": \"epoch\"}}",
                         NULL, NULL, &error));
    ok(gradd_model_scheduler_step(client, "m", NULL, NULL, &error));
    ok(gradd_model_scheduler_step(client, "m", NULL, &result, &error));
    assert_int_equal(result.epoch, 2);
    assert_true(fabs(result.lr - 0.0025) < 1e-12);
    ok(gradd_model_delete(client, "m", false, &error));
}

static void a_kept_graph_survives_predict_evaluate_and_its_first_backward(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_evaluation evaluation;
    gradd_tensor output;
    gradd_error error;
    create(client, "m");
    ok(gradd_model_forward(client, "m", &input, NULL, &error));
    ok(gradd_model_loss(client, "m", &target, NULL, NULL, &error));
    ok(gradd_model_predict(client, "m", &input, &output, &error));
    gradd_tensor_free(&output);
    ok(gradd_model_evaluate(client, "m", &input, &target, &evaluation, &error));
    assert_int_equal(evaluation.count, 2);
    assert_true(evaluation.accuracy >= 0 && evaluation.accuracy <= 1);
    ok(gradd_model_backward(client, "m", NULL, true, NULL, &error));
    ok(gradd_model_backward(client, "m", NULL, false, NULL, &error));
    assert_int_equal(gradd_model_backward(client, "m", NULL, false, NULL, &error), GRADD_E_REFUSED);
    assert_string_equal(error.problem, "wrong_order");
    ok(gradd_model_delete(client, "m", false, &error));
}

static void parameters_are_read_written_and_frozen(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_parameter *items;
    size_t count;
    gradd_tensor values;
    gradd_error error;
    const gradd_tensor bias = {.dtype = GRADD_FLOAT32, .rank = 1, .shape = {2}, .data = (float[]){0.1f, -7}};
    create(client, "m");
    ok(gradd_parameter_put(client, "m", "fc.bias", &bias, NULL, &error));
    ok(gradd_parameter_get(client, "m", "fc.bias", &values, &error));
    assert_memory_equal(values.data, bias.data, 2 * sizeof(float));
    gradd_tensor_free(&values);
    assert_int_equal(gradd_parameter_grad(client, "m", "fc.bias", &values, &error), GRADD_E_REFUSED);
    assert_string_equal(error.problem, "no_gradient");
    ok(gradd_parameter_set_requires_grad(client, "m", "fc.weight", false, &error));
    ok(gradd_model_train_step(client, "m", &input, &target, NULL, NULL, &error));
    ok(gradd_parameter_grad(client, "m", "fc.bias", &values, &error));
    assert_int_equal(values.shape[0], 2);
    gradd_tensor_free(&values);
    ok(gradd_model_parameters(client, "m", &items, &count, &error));
    assert_int_equal(count, 2);
    assert_string_equal(items[0].name, "fc.weight");
    assert_int_equal(items[0].rank, 2);
    assert_int_equal(items[0].shape[1], 3);
    assert_false(items[0].requires_grad);
    assert_true(isnan(items[0].grad_norm));
    assert_true(items[1].requires_grad && items[1].grad_norm > 0);
    gradd_free(items);
    ok(gradd_model_delete(client, "m", false, &error));
}

static void a_state_dict_goes_from_model_to_model(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_tensors weights, gradients;
    gradd_tensor copy;
    gradd_error error;
    char *json = NULL;
    create(client, "from");
    create(client, "to");
    ok(gradd_model_train_step(client, "from", &input, &target, NULL, NULL, &error));
    ok(gradd_model_gradients(client, "from", &gradients, &error));
    assert_int_equal(gradients.count, 2);
    gradd_tensors_free(&gradients);
    ok(gradd_state_dict_get(client, "from", &weights, &error));
    ok(gradd_state_dict_put(client, "to", weights.items, weights.count, true, NULL, &error));
    ok(gradd_parameter_get(client, "to", "fc.weight", &copy, &error));
    assert_memory_equal(copy.data, gradd_tensors_find(&weights, "fc.weight")->data, 6 * sizeof(float));
    gradd_tensor_free(&copy);
    assert_int_equal(gradd_state_dict_put(client, "to", weights.items, 1, true, NULL, &error),
                     GRADD_E_REFUSED);
    ok(gradd_state_dict_put(client, "to", weights.items, 1, false, &json, &error));
    assert_non_null(json);
    gradd_free(json);
    gradd_tensors_free(&weights);
    ok(gradd_model_delete(client, "from", false, &error));
    ok(gradd_model_delete(client, "to", false, &error));
}

static void the_graph_and_the_metrics_are_read(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_grad_node *nodes;
    size_t count;
    gradd_error error;
    char *json = NULL;
    const gradd_option keys[] = {{"keys", "loss"}, {NULL, NULL}};
    create(client, "m");
    ok(gradd_model_train_step(client, "m", &input, &target, NULL, NULL, &error));
    ok(gradd_model_metrics(client, "m", keys, &json, &error));
    assert_non_null(strstr(json, "\"loss\""));
    gradd_free(json);
    ok(gradd_model_forward(client, "m", &input, NULL, &error));
    ok(gradd_model_graph(client, "m", &nodes, &count, &error));
    assert_string_equal(nodes[0].name, "AddmmBackward0");
    assert_string_equal(nodes[0].layer, "fc");
    assert_int_equal(nodes[0].next_count, 3);
    assert_int_equal(nodes[0].next[1], -1); /* the input needs no gradient: torch's None */
    gradd_free(nodes);
    ok(gradd_model_delete(client, "m", false, &error));
}

static void several_targets_and_outputs_go_by_name(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_error error;
    gradd_tensors outputs;
    gradd_step_result result;
    char *json = NULL;
    ok(gradd_model_create(
        client,
        "{\"name\": \"heads\", \"seed\": 0, \"input\": {\"shape\": [3]}, \"layers\": [{\"type\": \"Linear\", "
        "\"name\": \"code\", \"out_features\": 2}, {\"type\": \"Linear\", \"name\": \"image\", "
        "\"out_features\": 3}], \"outputs\": [\"code\", \"image\"], \"loss\": [{\"type\": "
        "\"CrossEntropyLoss\", \"target\": \"label\"}, {\"type\": \"MSELoss\", \"output\": \"image\", "
        "\"weight\": "
        "2}], \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.1}}",
        NULL, &error));
    const gradd_named_tensor batch[] = {{.name = "input", .tensor = input},
                                        {.name = "label", .tensor = target},
                                        {.name = "image", .tensor = input}};
    ok(gradd_model_post(client, "heads", "train_step", batch, 3, NULL, &json, &error));
    assert_non_null(strstr(json, "\"losses\":["));
    gradd_free(json);
    ok(gradd_model_run(client, "heads", "forward", batch, 1, &outputs, &error));
    assert_int_equal(outputs.count, 2);
    assert_int_equal(gradd_tensors_find(&outputs, "image")->shape[1], 3);
    gradd_tensors_free(&outputs);
    assert_int_equal(gradd_model_run(client, "heads", "forward", NULL, 0, &outputs, &error),
                     GRADD_E_ARGUMENT);
    ok(gradd_model_patch(client, "heads",
                         "{\"loss\": {\"type\": \"MSELoss\", \"output\": \"image\", \"target\": \"@input\"}}",
                         NULL, NULL, &error));
    ok(gradd_model_train_step(client, "heads", &input, NULL, NULL, &result, &error)); /* its own target */
    assert_true(result.loss > 0 && result.step == 2);
    ok(gradd_model_delete(client, "heads", false, &error));
}

static void a_model_with_two_inputs_takes_them_by_name(void **state) {
    static const char definition[] =
        "{\"name\": \"two\", \"inputs\": {\"x\": {\"shape\": [2]}, \"y\": {\"shape\": [2]}},"
        " \"layers\": [{\"type\": \"add\", \"inputs\": [\"@x\", \"@y\"]}]}";
    gradd_client *client = ((fixture *)*state)->client;
    gradd_error error;
    char *json = NULL;
    float x[] = {1, 2}, y[] = {10, 20};
    const gradd_named_tensor inputs[] = {
        {"x", {.dtype = GRADD_FLOAT32, .rank = 2, .shape = {1, 2}, .data = x}},
        {"y", {.dtype = GRADD_FLOAT32, .rank = 2, .shape = {1, 2}, .data = y}}};
    ok(gradd_model_create(client, definition, NULL, &error));
    ok(gradd_model_post(client, "two", "predict", inputs, 2, NULL, &json, &error));
    assert_non_null(strstr(json, "11"));
    assert_non_null(strstr(json, "22"));
    gradd_free(json);
    ok(gradd_model_delete(client, "two", false, &error));
}

static void rows_of_the_digits_are_read(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    gradd_tensor rows;
    gradd_error error;
    ok(gradd_dataset_rows(client, "digits", "test", "input", 1990, 100, &rows, &error));
    assert_int_equal(rows.rank, 3);
    assert_int_equal(rows.shape[0], 10);
    assert_int_equal(rows.shape[1], 28);
    gradd_tensor_free(&rows);
    ok(gradd_dataset_rows(client, "digits", "train", "target", 0, 3, &rows, &error));
    assert_int_equal(rows.dtype, GRADD_INT64);
    assert_int_equal(rows.shape[0], 3);
    gradd_tensor_free(&rows);
}

/* ---- several threads, one handle -------------------------------------------------------------------- */

enum { THREADS = 8, STEPS = 25 };

typedef struct worker {
    gradd_client *client;
    pthread_t thread;
    char model[16];
    int failed;
    double loss; /* of the last step */
} worker;

static void *train(void *argument) {
    worker *w = argument;
    gradd_step_result result = {0};
    for (int i = 0; i < STEPS; i++) {
        w->failed += gradd_model_train_step(w->client, w->model, &input, &target, NULL, &result, NULL) != 0;
    }
    w->loss = result.loss;
    return NULL;
}

static void run(worker *workers) {
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&workers[i].thread, NULL, train, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].failed, 0);
    }
}

static void threads_that_share_a_handle_train_their_models_undisturbed(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    worker workers[THREADS] = {0};
    gradd_error error;
    for (int i = 0; i < THREADS; i++) {
        workers[i].client = client;
        snprintf(workers[i].model, sizeof workers[i].model, "w%d", i);
        create(client, workers[i].model);
    }
    run(workers);
    worker alone = {.client = client, .model = "alone"};
    create(client, "alone");
    train(&alone);
    for (int i = 0; i < THREADS; i++) {
        assert_true(workers[i].loss == alone.loss);
        ok(gradd_model_delete(client, workers[i].model, false, &error));
    }
    ok(gradd_model_delete(client, "alone", false, &error));
}

static void every_step_on_a_shared_model_counts_once(void **state) {
    gradd_client *client = ((fixture *)*state)->client;
    worker workers[THREADS] = {0};
    gradd_model_info info;
    gradd_error error;
    create(client, "shared");
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.client = client, .model = "shared"};
    }
    run(workers);
    ok(gradd_model_show(client, "shared", &info, &error));
    assert_int_equal(info.step, THREADS * STEPS);
    gradd_model_info_free(&info);
    ok(gradd_model_delete(client, "shared", false, &error));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_is_described_and_changed),
        cmocka_unit_test(a_check_creates_nothing),
        cmocka_unit_test(a_list_goes_over_all_pages),
        cmocka_unit_test(a_step_by_parts_equals_a_train_step),
        cmocka_unit_test(options_change_one_step),
        cmocka_unit_test(an_epoch_ends_when_the_client_says_so),
        cmocka_unit_test(a_kept_graph_survives_predict_evaluate_and_its_first_backward),
        cmocka_unit_test(parameters_are_read_written_and_frozen),
        cmocka_unit_test(a_state_dict_goes_from_model_to_model),
        cmocka_unit_test(the_graph_and_the_metrics_are_read),
        cmocka_unit_test(a_model_with_two_inputs_takes_them_by_name),
        cmocka_unit_test(rows_of_the_digits_are_read),
        cmocka_unit_test(threads_that_share_a_handle_train_their_models_undisturbed),
        cmocka_unit_test(every_step_on_a_shared_model_counts_once),
        cmocka_unit_test(several_targets_and_outputs_go_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
