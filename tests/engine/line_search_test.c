/* line_search_test.c -- the line search tries the very points that torch.optim.LBFGS's does. */
#include "engine/optim/line_search.h"

#include <math.h>

#include "tests/support.h"

enum { MOST = 64 };

static json_t *golden;

/* The functions of tests/golden/make_lbfgs.py and their derivatives. */
static double parabola(double t, double *slope) {
    *slope = 2 * (t - 1);
    return (t - 1) * (t - 1);
}

static double rational(double t, double *slope) {
    *slope = (t * t - 2) / ((t * t + 2) * (t * t + 2));
    return -t / (t * t + 2);
}

static double quintic(double t, double *slope) {
    const double s = t + 0.004;
    *slope = 5 * pow(s, 4) - 8 * pow(s, 3);
    return pow(s, 5) - 2 * pow(s, 4);
}

static double waves(double t, double *slope) {
    *slope = (t - 2) / 5 - 5 * cos(5 * t);
    return (t - 2) * (t - 2) / 10 - sin(5 * t);
}

static double downhill(double t, double *slope) {
    *slope = -1;
    return -t;
}

static double cliff(double t, double *slope) {
    *slope = t < 5e23 ? -1 : 1;
    return t * *slope;
}

static double decay(double t, double *slope) {
    *slope = -exp(-t);
    return exp(-t);
}

static double kink(double t, double *slope) {
    *slope = t > 1 ? 1 : t < 1 ? -1 : 0;
    return fabs(t - 1);
}

static double wall(double t, double *slope) {
    *slope = 1 / (1 - t) - 3;
    return -log(1 - t) - 3 * t;
}

static double quartic(double t, double *slope) {
    *slope = 4 * t * t * t - 9 * t * t + 4 * t - 1;
    return t * t * t * t - 3 * t * t * t + 2 * t * t - t;
}

static const struct {
    const char *name;
    double (*at)(double t, double *slope);
} functions[] = {{"parabola", parabola}, {"rational", rational}, {"quintic", quintic}, {"waves", waves},
                 {"downhill", downhill}, {"decay", decay},       {"cliff", cliff},     {"kink", kink},
                 {"wall", wall},         {"quartic", quartic}};

typedef struct trial {
    double (*at)(double t, double *slope);
    double tried[MOST];
    int count, fail_at; /* refuse the fail_at-th evaluation; 0: none */
} trial;

static int evaluate(void *context, gd_line_point *point, gd_error *error) {
    trial *t = context;
    assert_true(t->count < MOST);
    t->tried[t->count++] = point->t;
    if (t->count == t->fail_at)
        return gd_fail(error, GD_E_VALUE, "refused");
    point->loss = t->at(point->t, &point->slope);
    *point->grad = (float)point->slope;
    return 0;
}

static int search(trial *t, double first, gd_line_point *ret_point, gd_error *error) {
    float gradients[3] = {0};
    gd_line line = {.evaluate = evaluate,
                    .context = t,
                    .longest = 1,
                    .start = {.grad = &gradients[1]},
                    .buffers = {&gradients[0], &gradients[1], &gradients[2]}};
    line.start.loss = t->at(0, &line.start.slope);
    *line.start.grad = (float)line.start.slope;
    int code = gd_line_search(&line, first, ret_point, error);
    if (code)
        return code;
    assert_true(ret_point->grad >= gradients && ret_point->grad < gradients + 3);
    if (!isnan(ret_point->slope)) /* the gradient that comes with the point is the point's */
        assert_float_equal(*ret_point->grad, (float)ret_point->slope, 0);
    return 0;
}

static trial trial_of(const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "function"));
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (strcmp(functions[i].name, name) == 0)
            return (trial){.at = functions[i].at};
    fail_msg("no function '%s'", name);
    return (trial){0};
}

static void expect_close(double expected, double actual, const char *what) {
    if (!(fabs(expected - actual) <= 1e-9 * fabs(expected)))
        fail_msg("%s: %.17g should be %.17g", what, actual, expected);
}

static void the_same_points_are_tried(void **state) {
    (void)state;
    const char *key;
    const json_t *row;
    int rows = 0;
    json_object_foreach(golden, key, row) {
        if (strncmp(key, "line", 4) != 0)
            continue;
        const json_t *tried = json_object_get(row, "tried");
        gd_error error = GD_ERROR_INIT;
        gd_line_point found;
        trial t = trial_of(row);
        test_ok(search(&t, json_number_value(json_array_get(tried, 0)), &found, &error), &error);
        if (t.count != (int)json_array_size(tried))
            fail_msg("%s: %d evaluations, should be %zu", key, t.count, json_array_size(tried));
        for (int i = 0; i < t.count; i++)
            expect_close(json_number_value(json_array_get(tried, (size_t)i)), t.tried[i], key);
        expect_close(json_number_value(json_object_get(row, "found")), found.t, key);
        rows++;
    }
    assert_int_equal(rows, 50);
}

static void a_refused_evaluation_ends_the_search(void **state) {
    (void)state;
    for (int at = 1; at <= 8; at++) { /* of ten: in both phases */
        gd_error error = GD_ERROR_INIT;
        gd_line_point found = {.t = -1};
        trial t = {.at = quintic, .fail_at = at};
        assert_int_equal(search(&t, 0.1, &found, &error), GD_E_VALUE);
        assert_string_equal(error.message, "refused");
        assert_int_equal(t.count, at);
        assert_float_equal(found.t, -1, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_points_are_tried),
        cmocka_unit_test(a_refused_evaluation_ends_the_search),
    };
    golden = test_golden_json("lbfgs.json");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(golden);
    return failed;
}
