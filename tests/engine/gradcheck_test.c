/* gradcheck_test.c -- every backward agrees with finite differences of its forward.
 *
 * For a parameter p (a source's is the op's input), a random output gradient g and a random direction v
 * of +-1: (sum g f(p + h v) - sum g f(p - h v)) / 2h must be <dL/dp, v>. */
#include <math.h>

#include "tests/sample.h"

enum { DIRECTIONS = 3 };

/* Relative to the gradient's norm, which is what <dL/dp, v> has on average. A wrong gradient is off by
 * something like 1. */
#define TOLERANCE 5e-3

static test_family family; /* of the row under test */

/* A model, its input and how to get one number out of it. */
typedef struct problem {
    gd_model *model;
    const gd_tensor *inputs;
    size_t input_count;
    const gd_tensor *gradient; /* of the output; NULL: the loss is the number */
    const gd_tensor *target;
} problem;

static double value_of(const problem *p) {
    gd_tensor output, loss;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(p->model, p->inputs, p->input_count, &output, &error), &error);
    if (p->target) {
        test_ok(gd_model_loss(p->model, p->target, NULL, &loss, &error), &error);
        return *(const float *)loss.data;
    }
    const float *y = output.data, *g = p->gradient->data;
    double sum = 0;
    for (int64_t i = 0; i < gd_numel(&output.shape); i++)
        sum += (double)y[i] * g[i];
    return sum;
}

/* values + step * direction, as float32; returns the values as stored before. */
static void shift(const problem *p, const gd_parameter *parameter, const float *values,
                  const float *direction, double step) {
    float *moved = malloc((size_t)parameter->numel * sizeof *moved);
    assert_non_null(moved);
    for (int64_t i = 0; i < parameter->numel; i++)
        moved[i] = (float)(values[i] + step * direction[i]);
    gd_tensor tensor = {.dtype = GD_FLOAT32, .shape = parameter->shape, .data = moved};
    test_set_parameter(p->model, parameter->name, &tensor);
    free(moved);
}

static void check_parameter(const problem *p, const gd_parameter *parameter, double step, uint64_t seed) {
    size_t size = (size_t)parameter->numel * sizeof(float);
    float *values = malloc(size), *gradient = malloc(size);
    assert_non_null(values);
    assert_non_null(gradient);
    memcpy(values, parameter->data, size);
    memcpy(gradient, parameter->grad, size);
    for (unsigned k = 0; k < DIRECTIONS; k++) {
        gd_tensor direction = test_random(parameter->shape, seed * DIRECTIONS + k);
        float *v = direction.data;
        double slope = 0;
        for (int64_t i = 0; i < parameter->numel; i++) {
            v[i] = v[i] < 0 ? -1.0F : 1.0F;
            slope += (double)gradient[i] * v[i];
        }
        shift(p, parameter, values, v, step);
        double above = value_of(p);
        shift(p, parameter, values, v, -step);
        double below = value_of(p);
        double measured = (above - below) / (2 * step);
        double norm = gd_norm(gradient, parameter->numel);
        if (!(fabs(measured - slope) <= TOLERANCE * norm + 1e-6))
            fail_msg("%s: the slope is %.7g, its gradient says %.7g (norm %.3g)", parameter->name, measured,
                     slope, norm);
        shift(p, parameter, values, v, 0);
        free(direction.data);
    }
    free(values);
    free(gradient);
}

static void check(problem *p, double step) {
    gd_error error = GD_ERROR_INIT;
    (void)value_of(p);
    test_ok(gd_model_backward(p->model, p->target ? NULL : p->gradient, false, &error), &error);
    for (size_t i = 0; i < gd_model_parameter_count(p->model); i++)
        if (!gd_model_parameter(p->model, i)->buffer)
            check_parameter(p, gd_model_parameter(p->model, i), step, i);
}

/* "Distinct" values are 4 / count apart and at least 1 / count away from zero: a step under that crosses
 * no kink. */
static double step_for(const json_t *row) {
    int64_t most = 1;
    size_t i;
    json_t *shape;
    if (json_object_get(row, "step"))
        return json_number_value(json_object_get(row, "step")); /* curves: short enough to be straight */
    if (!json_object_get(row, "values"))
        return 0.1; /* straight lines: a large step rounds least */
    if (strcmp(json_string_value(json_object_get(row, "values")), "positive") == 0)
        return 0.02; /* curves, steep towards zero */
    json_array_foreach(json_object_get(row, "inputs"), i, shape) {
        gd_shape s = test_shape(json_is_object(shape) ? json_object_get(shape, "shape") : shape);
        most = gd_numel(&s) > most ? gd_numel(&s) : most;
    }
    return 0.9 / (double)most;
}

static void gradients_of_an_op(void **state) {
    const json_t *row = *state;
    const char *values = json_string_value(json_object_get(row, "values"));
    if ((values && strcmp(values, "distinct") != 0 && strcmp(values, "positive") != 0) ||
        json_is_true(json_object_get(row, "no_slope")))
        return; /* no slope at ties, zeros and NaN, or where it says so: golden_test.c has them */
    sample s;
    sample_begin(row, &family.golden, SAMPLE_SOURCE, 1, &s);
    gd_tensor gradient = test_golden_get(&family.golden, "%s/output_grad", sample_name(row));
    problem p = {.model = s.model, .inputs = s.in.tensors, .input_count = s.in.count, .gradient = &gradient};
    if (json_array_size(json_object_get(json_object_get(family.grad_fn, sample_name(row)), "source")) > 0)
        check(&p, step_for(row));
    sample_end(&s);
}

static void gradient_of_a_loss(void **state) {
    const json_t *row = *state;
    gd_tensor value = test_golden_get(&family.golden, "%s/value", sample_name(row));
    if (value.shape.rank > 0 || isnan(*(const float *)value.data) || json_object_get(row, "scale") ||
        json_is_true(json_object_get(row, "no_slope")))
        return; /* not one number; no number; rounded off; kinks: golden_test.c has them */
    gd_tensor output = test_golden_get(&family.golden, "%s/output", sample_name(row));
    gd_tensor target = {.data = NULL};
    if (strcmp(json_string_value(json_object_get(row, "target")), "none") != 0)
        target = test_golden_get(&family.golden, "%s/target", sample_name(row));
    gd_engine *engine = test_engine(1, 0);
    problem p = {.model = test_model(engine, sample_definition(row, SAMPLE_SOURCE)), .target = &target};
    sample_set_source(p.model, 0, &output);
    gd_tensor identity = sample_identity(output.shape.dim[0]);
    p.inputs = &identity;
    p.input_count = 1;
    const json_t *step = json_object_get(row, "step");
    check(&p, step ? json_number_value(step) : 0.02);
    free(identity.data);
    gd_model_free(p.model);
    gd_engine_free(engine);
}

int main(void) {
    int failed = test_each_sample("ops", "gradients of an op", gradients_of_an_op, &family);
    failed += test_each_sample("losses", "gradient of a loss", gradient_of_a_loss, &family);
    return failed != 0;
}
