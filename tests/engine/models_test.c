/* models_test.c -- the example networks are PyTorch's: what they print, their parameters to the bit, output,
 * gradients, and the losses of some steps. */
#include <dirent.h>
#include <math.h>

#include "tests/support.h"

#define FOLDER "clients/examples/models/"

typedef struct example {
    const char *path, *name;
    double tolerance; /* of output and gradients; deep networks with batch norm round more */
    double losses;    /* of each step */
    double predicted; /* after the steps; of resnet20's fifty torch's float32 and float64 part by 1e-2 */
} example;

static const example examples[] = {
    {"clients/examples/lenet.json", "lenet", 1e-5, 1e-4, 1e-3},
    {FOLDER "mlp.json", "mlp", 1e-5, 1e-4, 1e-3},
    {FOLDER "vgg11.json", "vgg11", 1e-4, 1e-4, 1e-3},
    {FOLDER "resnet20.json", "resnet20", 1e-4, 3e-4, 2e-2},
    {FOLDER "autoencoder.json", "autoencoder", 1e-5, 1e-4, 1e-3},
    {FOLDER "char_lstm.json", "char_lstm", 1e-5, 1e-4, 1e-3},
    {FOLDER "transformer.json", "transformer", 1e-5, 1e-4, 1e-3},
};
enum { EXAMPLES = sizeof examples / sizeof examples[0] };

/* An example built and what torch says of it. */
typedef struct fixture {
    const example *example;
    gd_engine *engine;
    gd_model *model;
    json_t *torch; /* {"repr": ..., "state_dict": [names], "lr": of the steps} */
    test_golden golden;
    gd_tensor input, target;
} fixture;

static fixture begin(const example *which) {
    fixture f = {.example = which, .engine = test_engine(2, 0)};
    char path[128];
    json_error_t error;
    json_t *definition = json_load_file(which->path, 0, &error);
    if (!definition)
        fail_msg("%s, line %d: %s", which->path, error.line, error.text);
    f.model = test_model(f.engine, definition);
    snprintf(path, sizeof path, "models/%s.json", which->name);
    f.torch = test_golden_json(path);
    snprintf(path, sizeof path, "models/%s.safetensors", which->name);
    test_golden_open(&f.golden, path);
    f.input = test_golden_get(&f.golden, "input");
    f.target = test_golden_has(&f.golden, "target") ? test_golden_get(&f.golden, "target") : f.input;
    return f;
}

static void end(fixture *f) {
    gd_model_free(f->model);
    gd_engine_free(f->engine);
    json_decref(f->torch);
    test_golden_close(&f->golden);
}

/* ---- what is proved of each ------------------------------------------------------------------------ */

static void it_prints_as_in_torch(void **state) {
    fixture f = begin(*state);
    char *text = gd_graph_repr(gd_model_graph(f.model));
    assert_non_null(text);
    assert_string_equal(text, json_string_value(json_object_get(f.torch, "repr")));
    free(text);
    end(&f);
}

/* The sum of the bits as unsigned words; of int64 of the values. */
static int64_t bits(const gd_parameter *parameter) {
    int64_t sum = 0;
    for (int64_t i = 0; i < parameter->numel; i++) {
        uint32_t word;
        memcpy(&word, &parameter->data[i], sizeof word);
        sum += parameter->dtype == GD_INT64 ? ((const int64_t *)(const void *)parameter->data)[i] : word;
    }
    return sum;
}

static void its_state_dict_begins_as_in_torch(void **state) {
    fixture f = begin(*state);
    const json_t *names = json_object_get(f.torch, "state_dict");
    const gd_tensor init = test_golden_get(&f.golden, "init");
    assert_int_equal(gd_model_parameter_count(f.model), json_array_size(names));
    for (size_t i = 0; i < json_array_size(names); i++) {
        const gd_parameter *parameter = gd_model_parameter(f.model, i);
        assert_string_equal(parameter->name, json_string_value(json_array_get(names, i)));
        if (bits(parameter) != ((const int64_t *)init.data)[i])
            fail_msg("%s does not begin with torch's values", parameter->name);
    }
    end(&f);
}

/* A gradient that is zero but for rounding (of a bias before a batch norm, which takes it away again). */
static bool is_nothing(double norm) {
    return norm < 1e-12;
}

static void compare_gradient(const fixture *f, const gd_parameter *parameter, double norm) {
    char name[GP_MAX_NAME];
    const double actual = gd_norm(parameter->grad, parameter->numel), tolerance = f->example->tolerance;
    snprintf(name, sizeof name, "grad.%s", parameter->name);
    assert_true(parameter->has_grad);
    if (is_nothing(norm)) {
        if (!(actual < 1e-5))
            fail_msg("%s: should be zero, its norm is %g", name, actual);
        return;
    }
    if (!(fabs(actual - norm) <= tolerance * norm))
        fail_msg("%s: the norm is %.9g, should be %.9g", name, actual, norm);
    if (test_golden_has(&f->golden, name)) {
        gd_tensor expected = test_golden_get(&f->golden, "%s", name);
        gd_tensor grad = {.dtype = GD_FLOAT32, .shape = parameter->shape, .data = parameter->grad};
        test_close(&expected, &grad, tolerance, name);
    }
}

static void its_output_and_gradients_match(void **state) {
    fixture f = begin(*state);
    gd_error error = GD_ERROR_INIT;
    gd_tensor output, loss, expected = test_golden_get(&f.golden, "output");
    const gd_tensor norms = test_golden_get(&f.golden, "grad_norm");
    const gd_tensor losses = test_golden_get(&f.golden, "losses");
    test_ok(gd_model_forward(f.model, &f.input, 1, &output, &error), &error);
    test_close(&expected, &output, f.example->tolerance, "output");
    test_ok(gd_model_loss(f.model, &f.target, NULL, &loss, &error), &error);
    test_close_values(losses.data, loss.data, 1, f.example->tolerance, "loss");
    test_ok(gd_model_backward(f.model, NULL, false, &error), &error);
    int64_t trained = 0;
    for (size_t i = 0; i < gd_model_parameter_count(f.model); i++) {
        const gd_parameter *parameter = gd_model_parameter(f.model, i);
        if (parameter->buffer)
            continue;
        assert_in_range(trained, 0, norms.shape.dim[0] - 1);
        compare_gradient(&f, parameter, (double)((const float *)norms.data)[trained++]);
    }
    assert_int_equal(trained, norms.shape.dim[0]);
    end(&f);
}

static void its_losses_match_step_by_step(void **state) {
    fixture f = begin(*state);
    gd_error error = GD_ERROR_INIT;
    const gd_tensor losses = test_golden_get(&f.golden, "losses");
    gd_tensor output, expected = test_golden_get(&f.golden, "predicted");
    const double lr = json_number_value(json_object_get(f.torch, "lr"));
    const gd_field field = {"lr", {.kind = GD_VALUE_FLOAT, .number = lr}};
    const gd_step_options options = {.fields = &field, .field_count = 1};
    for (int64_t step = 0; step < losses.shape.dim[0]; step++) {
        const double wanted = ((const float *)losses.data)[step];
        gd_step_result result;
        test_ok(gd_model_train_step(f.model, &f.input, 1, &f.target, NULL, &options, &result, &error),
                &error);
        if (!(fabs(result.loss - wanted) <= f.example->losses * (1 + fabs(wanted))))
            fail_msg("step %d: the loss is %.7g, should be %.7g", (int)step + 1, result.loss, wanted);
    }
    /* in eval mode: with the running statistics that the steps have left */
    test_ok(gd_model_predict(f.model, &f.input, 1, &output, &error), &error);
    test_close(&expected, &output, f.example->predicted, "prediction after the steps");
    end(&f);
}

/* ---- the table and the folder ------------------------------------------------------------------------- */

static int is_json(const struct dirent *entry) {
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".json") == 0;
}

static void every_example_is_proved(void **state) {
    (void)state;
    struct dirent **entries;
    const int count = scandir(FOLDER, &entries, is_json, alphasort);
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        char path[512];
        bool found = false;
        snprintf(path, sizeof path, FOLDER "%s", entries[i]->d_name);
        for (size_t k = 0; k < EXAMPLES; k++)
            found = found || strcmp(examples[k].path, path) == 0;
        if (!found)
            fail_msg("%s is not in the table of this test", path);
        free(entries[i]);
    }
    free(entries);
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction test;
    } proofs[] = {
        {"it_prints_as_in_torch", it_prints_as_in_torch},
        {"its_state_dict_begins_as_in_torch", its_state_dict_begins_as_in_torch},
        {"its_output_and_gradients_match", its_output_and_gradients_match},
        {"its_losses_match_step_by_step", its_losses_match_step_by_step},
    };
    enum { PROOFS = sizeof proofs / sizeof proofs[0] };
    char names[EXAMPLES * PROOFS][96];
    struct CMUnitTest tests[EXAMPLES * PROOFS + 1] = {cmocka_unit_test(every_example_is_proved)};
    for (size_t i = 0; i < EXAMPLES * PROOFS; i++) {
        const example *which = &examples[i / PROOFS];
        snprintf(names[i], sizeof names[i], "%s: %s", which->name, proofs[i % PROOFS].name);
        tests[i + 1] = (struct CMUnitTest){.name = names[i],
                                           .test_func = proofs[i % PROOFS].test,
                                           .initial_state = (void *)(uintptr_t)which};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
