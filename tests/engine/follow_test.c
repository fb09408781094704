/* follow_test.c -- an optimizer that follows the backward pass does what one does that comes after it. */
#include <math.h>

#include "tests/support.h"

enum { BATCH = 9, IN = 70, CLASSES = 5, STEPS = 3 };

typedef struct fixture {
    gd_engine *engine;
    gd_model *following, *after; /* the same network twice */
    float x[BATCH * IN];
    int64_t y[BATCH];
    gd_tensor input, target;
} fixture;

/* Names of parameters are 0.weight, 0.bias, 2.weight ... */
static const char chain[] = "{'type': 'Linear', 'out_features': 300}, {'type': 'ReLU'},"
                            "{'type': 'Linear', 'out_features': 70}, {'type': 'ReLU'}";
static const char shared[] = "{'type': 'Linear', 'name': 'twice', 'out_features': 70}, {'type': 'ReLU'},"
                             "{'type': 'Linear', 'shares': 'twice'}, {'type': 'ReLU'}";

static gd_model *network(gd_engine *engine, const char *layers, const char *optimizer) {
    char text[1024];
    snprintf(text, sizeof text,
             "{'name': 'f', 'class_name': 'Sequential', 'seed': 3, 'input': {'shape': [70]}, 'layers': [%s,"
             "{'type': 'Linear', 'out_features': 5}], 'loss': {'type': 'CrossEntropyLoss'}, 'optimizer': %s}",
             layers, optimizer);
    return test_model(engine, test_json(text));
}

static void begin(fixture *f, int threads, const char *layers, const char *optimizer) {
    f->engine = test_engine(threads, 0);
    f->following = network(f->engine, layers, optimizer);
    f->after = network(f->engine, layers, optimizer);
    for (int i = 0; i < BATCH * IN; i++)
        f->x[i] = sinf((float)i);
    for (int i = 0; i < BATCH; i++)
        f->y[i] = i % CLASSES;
    f->input = (gd_tensor){GD_FLOAT32, {2, {BATCH, IN}}, f->x};
    f->target = (gd_tensor){GD_INT64, {1, {BATCH}}, f->y};
}

static void end(fixture *f) {
    gd_model_free(f->following);
    gd_model_free(f->after);
    gd_engine_free(f->engine);
}

static void same(const gd_model *a, const gd_model *b) {
    for (size_t p = 0; p < gd_model_parameter_count(a); p++) {
        const gd_parameter *one = gd_model_parameter(a, p), *other = gd_model_parameter(b, p);
        for (int64_t i = 0; i < one->numel; i++)
            if (one->grad[i] != other->grad[i] || one->data[i] != other->data[i]) /* 0 may be -0 */
                fail_msg("%s[%d] differs", one->name, (int)i);
        assert_int_equal(one->version, other->version);
    }
}

static void steps(fixture *f, size_t batch) {
    gd_error error = GD_ERROR_INIT;
    gd_step_result one, other;
    gd_tensor outputs[GD_MAX_HEADS], loss;
    f->input.shape.dim[0] = f->target.shape.dim[0] = (int64_t)batch;
    for (int i = 0; i < STEPS; i++) {
        test_ok(gd_model_train_step(f->following, &f->input, 1, &f->target, NULL, NULL, &one, &error),
                &error);
        gd_model_zero_grad(f->after);
        test_ok(gd_model_forward(f->after, &f->input, 1, outputs, &error), &error);
        test_ok(gd_model_loss(f->after, &f->target, NULL, &loss, &error), &error);
        test_ok(gd_model_backward(f->after, NULL, false, &error), &error);
        test_ok(gd_model_step(f->after, NULL, &other, &error), &error);
        same(f->following, f->after);
        assert_true(fabs(one.grad_norm - other.grad_norm) <= 1e-6 * other.grad_norm);
        assert_int_equal(one.step, other.step);
    }
}

static void following_gives_the_same_bits(void **state) {
    static const char *const optimizers[] = {
        "{'type': 'SGD', 'lr': 0.1}",
        "{'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.01}",
        "{'type': 'NAdam', 'lr': 0.01}",
        "{'type': 'Adam', 'lr': 0.01, 'amsgrad': true, 'param_groups': [{'params': '2.*', 'lr': 0.5}]}",
    };
    (void)state;
    for (size_t k = 0; k < sizeof optimizers / sizeof *optimizers; k++)
        for (int threads = 1; threads <= 2; threads++) {
            fixture f;
            begin(&f, threads, chain, optimizers[k]);
            steps(&f, BATCH);
            steps(&f, 1); /* by other kernels */
            end(&f);
        }
}

static void frozen_weights_stay(void **state) {
    fixture f;
    (void)state;
    begin(&f, 1, chain, "{'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}");
    gd_model_set_requires_grad(f.following, 2, false);
    gd_model_set_requires_grad(f.after, 2, false);
    float before[4];
    memcpy(before, gd_model_parameter(f.following, 2)->data, sizeof before);
    steps(&f, BATCH);
    assert_memory_equal(before, gd_model_parameter(f.following, 2)->data, sizeof before);
    end(&f);
}

/* Its gradient is complete only after both layers. */
static void a_weight_of_two_layers_is_stepped_once(void **state) {
    fixture f;
    (void)state;
    begin(&f, 2, shared, "{'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}");
    assert_int_equal(gd_model_parameter_count(f.following), 4);
    steps(&f, BATCH);
    end(&f);
}

/* What needs the norm first is not followed: a step that is skipped changes nothing. */
static void a_skipped_step_changes_nothing(void **state) {
    const gd_step_options options = {.only_finite = true};
    gd_error error = GD_ERROR_INIT;
    gd_step_result result;
    fixture f;
    (void)state;
    begin(&f, 1, chain, "{'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}");
    f.x[3] = INFINITY;
    test_ok(gd_model_train_step(f.following, &f.input, 1, &f.target, NULL, &options, &result, &error),
            &error);
    assert_true(result.skipped);
    for (size_t p = 0; p < gd_model_parameter_count(f.following); p++)
        assert_memory_equal(gd_model_parameter(f.following, p)->data, gd_model_parameter(f.after, p)->data,
                            (size_t)gd_model_parameter(f.after, p)->numel * sizeof(float));
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(following_gives_the_same_bits),
        cmocka_unit_test(frozen_weights_stay),
        cmocka_unit_test(a_weight_of_two_layers_is_stepped_once),
        cmocka_unit_test(a_skipped_step_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
