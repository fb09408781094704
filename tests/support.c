/* support.c -- golden files, models from JSON, comparisons. */
#include "tests/support.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>

#include "engine/graph/isa.h"

#define GOLDEN "tests/golden/"

/* ---- golden files ------------------------------------------------------------------------------ */

char *test_read_file(const char *path, size_t *ret_size) {
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: %s (tests run in the repository's root)", path, strerror(errno));
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    assert_true(size >= 0);
    rewind(file);
    char *bytes = malloc((size_t)size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
    fclose(file);
    bytes[size] = 0;
    if (ret_size)
        *ret_size = (size_t)size;
    return bytes;
}

void test_golden_open(test_golden *golden, const char *name) {
    char path[256];
    size_t size;
    gp_error error = {0};
    snprintf(path, sizeof path, GOLDEN "%s", name);
    golden->bytes = test_read_file(path, &size);
    if (gp_safetensors_read(golden->bytes, size, 0, &golden->tensors, &error))
        fail_msg("%s: %s", path, error.detail);
}

void test_golden_close(test_golden *golden) {
    gp_safetensors_release(&golden->tensors);
    free(golden->bytes);
}

bool test_golden_has(const test_golden *golden, const char *name) {
    return gp_safetensors_find(&golden->tensors, name) != NULL;
}

gd_tensor test_golden_get(const test_golden *golden, const char *format, ...) {
    char name[GP_MAX_NAME];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    const gp_array *array = gp_safetensors_find(&golden->tensors, name);
    if (!array) {
        fail_msg("golden file without '%s': run tests/golden/make_golden.py", name);
        return (gd_tensor){0};
    }
    assert_true(array->dtype == GP_FLOAT32 || array->dtype == GP_INT64);
    assert_true(gp_array_usable(array, array->dtype));
    /* a cast that drops const: views for reading only */
    gd_tensor tensor = {.dtype = array->dtype == GP_INT64 ? GD_INT64 : GD_FLOAT32,
                        .data = (void *)(uintptr_t)array->data};
    tensor.shape.rank = array->rank;
    memcpy(tensor.shape.dim, array->dim, (size_t)array->rank * sizeof *array->dim);
    return tensor;
}

json_t *test_golden_json(const char *name) {
    char path[256];
    json_error_t error;
    snprintf(path, sizeof path, GOLDEN "%s", name);
    json_t *json = json_load_file(path, 0, &error);
    if (!json)
        fail_msg("%s, line %d: %s", path, error.line, error.text);
    return json;
}

/* ---- samples ----------------------------------------------------------------------------------- */

static int is_samples(const struct dirent *entry) {
    const char *dot = strchr(entry->d_name, '.');
    return dot && dot > entry->d_name && strcmp(dot, ".json") == 0;
}

int test_each_family(int (*visit)(test_family *family, void *context), void *context) {
    struct dirent **entries;
    int count = scandir(GOLDEN "samples", &entries, is_samples, alphasort), failed = 0;
    if (count <= 0) {
        fprintf(stderr, "no samples in " GOLDEN "samples (tests run in the repository's root)\n");
        return 1;
    }
    for (int i = 0; i < count; i++) {
        char name[64], path[160];
        test_family family = {.rows = NULL};
        snprintf(name, sizeof name, "%.*s", (int)strcspn(entries[i]->d_name, "."), entries[i]->d_name);
        snprintf(path, sizeof path, "samples/%s.json", name);
        family.rows = test_golden_json(path);
        snprintf(path, sizeof path, "samples/%s.grad_fn.json", name);
        family.grad_fn = test_golden_json(path);
        snprintf(path, sizeof path, "samples/%s.repr.json", name);
        family.repr = test_golden_json(path);
        snprintf(path, sizeof path, "samples/%s.safetensors", name);
        test_golden_open(&family.golden, path);
        failed += visit(&family, context);
        test_golden_close(&family.golden);
        json_decref(family.rows);
        json_decref(family.grad_fn);
        json_decref(family.repr);
        free(entries[i]);
    }
    free(entries);
    return failed;
}

typedef struct selection {
    const char *table, *prefix;
    CMUnitTestFunction test;
    test_family *current;
    bool any;
} selection;

static int run_family(test_family *family, void *context) {
    selection *s = context;
    const json_t *rows = json_object_get(family->rows, s->table);
    const size_t count = json_array_size(rows);
    if (count == 0)
        return 0;
    s->any = true;
    if (s->current)
        *s->current = *family;
    struct CMUnitTest *tests = calloc(count, sizeof *tests);
    size_t made = 0;
    for (; tests && made < count; made++) {
        char *name = NULL;
        json_t *row = json_array_get(rows, made);
        if (asprintf(&name, "%s: %s", s->prefix, json_string_value(json_object_get(row, "name"))) < 0)
            break;
        tests[made] = (struct CMUnitTest){.name = name, .test_func = s->test, .initial_state = row};
    }
    int failed = made == count ? _cmocka_run_group_tests(s->prefix, tests, made, NULL, NULL) : 1;
    while (made--)
        free((void *)(uintptr_t)tests[made].name);
    free(tests);
    return failed;
}

int test_each_sample(const char *table, const char *prefix, CMUnitTestFunction test, test_family *current) {
    selection s = {.table = table, .prefix = prefix, .test = test, .current = current};
    int failed = test_each_family(run_family, &s);
    if (!s.any) {
        fprintf(stderr, GOLDEN "samples: no rows in any '%s'\n", table);
        failed++;
    }
    return failed;
}

/* ---- models ------------------------------------------------------------------------------------ */

gd_engine *test_engine(int threads, size_t memory_limit) {
    gd_engine *engine = NULL;
    gd_error error = GD_ERROR_INIT;
    gd_engine_config config = {.threads = threads,
                               .memory_limit = memory_limit,
                               .helpers_only = true,
                               .cpu_features = getenv("GRADD_CPU_FEATURES")};
    test_ok(gd_engine_new(&config, &engine, &error), &error);
    return engine;
}

static int explain(test_failure *failure, const char *code, const char *field, const char *message) {
    snprintf(failure->code, sizeof failure->code, "%s", code);
    snprintf(failure->field, sizeof failure->field, "%.63s", field);
    snprintf(failure->message, sizeof failure->message, "%s", message);
    return -1;
}

int test_build(gd_engine *engine, json_t *definition, gd_model **ret_model, test_failure *failure) {
    gp_model read = {0};
    gp_error wire = {0};
    gd_error error = GD_ERROR_INIT;
    gd_graph *graph = NULL;
    int result = -1;
    if (gp_model_read(definition, &read, &wire)) {
        explain(failure, gp_problem_code(wire.problem), wire.pointer, wire.detail);
        goto out;
    }
    int code = gd_graph_new(&read.graph, &graph, &error);
    if (code == 0)
        code = gd_model_new(engine, graph, &read.config, ret_model, &error);
    if (code == 0)
        result = 0;
    else
        explain(failure, gd_error_code(code), error.field, error.message);
out:
    gd_graph_unref(graph);
    gp_model_release(&read);
    return result;
}

gd_model *test_model(gd_engine *engine, json_t *definition) {
    gd_model *model = NULL;
    test_failure failure;
    if (test_build(engine, definition, &model, &failure))
        fail_msg("%s (%s): %s", failure.code, failure.field, failure.message);
    json_decref(definition);
    return model;
}

json_t *test_json(const char *text) {
    char *copy = strdup(text);
    json_error_t error;
    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    json_t *json = json_loads(copy, JSON_DECODE_ANY, &error);
    if (!json)
        fail_msg("%s at %d: %s", error.text, error.position, copy);
    free(copy);
    return json;
}

json_t *test_lenet(const char *loss, const char *optimizer) {
    json_t *definition = test_json(
        "{'name': 'lenet', 'class_name': 'Net', 'seed': 0, 'input': {'shape': [1, 32, 32]}, 'layers': ["
        "{'type': 'Conv2d', 'name': 'conv1', 'in_channels': 1, 'out_channels': 6, 'kernel_size': 3},"
        "{'type': 'relu'}, {'type': 'max_pool2d', 'kernel_size': 2},"
        "{'type': 'Conv2d', 'name': 'conv2', 'in_channels': 6, 'out_channels': 16, 'kernel_size': 3},"
        "{'type': 'relu'}, {'type': 'max_pool2d', 'kernel_size': 2}, {'type': 'flatten'},"
        "{'type': 'Linear', 'name': 'fc1', 'in_features': 576, 'out_features': 120}, {'type': 'relu'},"
        "{'type': 'Linear', 'name': 'fc2', 'in_features': 120, 'out_features': 84}, {'type': 'relu'},"
        "{'type': 'Linear', 'name': 'fc3', 'in_features': 84, 'out_features': 10}]}");
    if (loss)
        json_object_set_new(definition, "loss", test_json(loss));
    if (optimizer)
        json_object_set_new(definition, "optimizer", test_json(optimizer));
    return definition;
}

const gd_parameter *test_parameter(const gd_model *model, const char *name) {
    const gd_parameter *parameter = gd_model_find_parameter(model, name, NULL);
    if (!parameter)
        fail_msg("no parameter '%s'", name);
    return parameter;
}

void test_set_parameter(gd_model *model, const char *name, const gd_tensor *values) {
    size_t index = 0;
    gd_error error = GD_ERROR_INIT;
    if (!gd_model_find_parameter(model, name, &index))
        fail_msg("no parameter '%s'", name);
    test_ok(gd_model_set_parameter(model, index, values, &error), &error);
}

float *test_parameters(const gd_model *model, size_t *ret_count) {
    size_t count = 0;
    for (size_t i = 0; i < gd_model_parameter_count(model); i++)
        count += (size_t)gd_model_parameter(model, i)->numel;
    float *values = malloc((count + 1) * sizeof *values), *to = values;
    assert_non_null(values);
    for (size_t i = 0; i < gd_model_parameter_count(model); i++) {
        const gd_parameter *parameter = gd_model_parameter(model, i);
        memcpy(to, parameter->data, (size_t)parameter->numel * sizeof *to);
        to += parameter->numel;
    }
    *ret_count = count;
    return values;
}

static uint32_t draw(uint64_t *state) { /* a 64-bit linear congruential generator's upper half */
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(*state >> 32);
}

gd_tensor test_random(gd_shape shape, uint64_t seed) {
    int64_t count = gd_numel(&shape);
    float *values = malloc((size_t)(count + 1) * sizeof *values);
    assert_non_null(values);
    uint64_t state = seed + 1;
    for (int64_t i = 0; i < count; i++) {
        double sum = 0; /* of 12 uniform draws: mean 6, variance 1 */
        for (int k = 0; k < 12; k++)
            sum += draw(&state) * 0x1p-32;
        values[i] = (float)(sum - 6);
    }
    return (gd_tensor){.dtype = GD_FLOAT32, .shape = shape, .data = values};
}

gd_tensor test_random_classes(int64_t n, int64_t classes, uint64_t seed) {
    int64_t *values = malloc((size_t)(n + 1) * sizeof *values);
    assert_non_null(values);
    uint64_t state = seed + 1;
    for (int64_t i = 0; i < n; i++)
        values[i] = draw(&state) % classes;
    return (gd_tensor){.dtype = GD_INT64, .shape = TEST_SHAPE(n), .data = values};
}

gd_shape test_shape(const json_t *dims) {
    gd_shape shape = {.rank = (int)json_array_size(dims)};
    for (int i = 0; i < shape.rank; i++)
        shape.dim[i] = json_integer_value(json_array_get(dims, (size_t)i));
    return shape;
}

const gd_op *test_op(const gd_isa *isa, const char *module) {
    for (size_t i = 0; i < isa->op_count; i++)
        if (isa->ops[i]->kind.module && strcmp(isa->ops[i]->kind.module, module) == 0)
            return isa->ops[i];
    fail_msg("there is no %s", module);
    return NULL;
}

/* ---- comparisons ---------------------------------------------------------------------------------- */

void test_ok_(int code, const gd_error *error, const char *file, int line) {
    if (code == 0)
        return;
    print_error("%s: %s\n", gd_error_code(code), error ? error->message : "");
    _fail(file, line);
}

void test_close_values(const float *expected, const float *actual, int64_t count, double tolerance,
                       const char *what) {
    double squares = 0;
    int64_t finite = 0;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(expected[i])) {
            squares += (double)expected[i] * expected[i];
            finite++;
        }
    double size = finite ? sqrt(squares / (double)finite) : 0;
    for (int64_t i = 0; i < count; i++) {
        double a = expected[i], b = actual[i];
        bool near = isfinite(a) ? fabs(a - b) <= tolerance * (fabs(a) + size) : isnan(a) ? isnan(b) : a == b;
        if (!near)
            fail_msg("%s: element %lld is %.9g, should be %.9g", what, (long long)i, b, a);
    }
}

void test_close(const gd_tensor *expected, const gd_tensor *actual, double tolerance, const char *what) {
    char a[128], b[128];
    assert_int_equal(expected->dtype, actual->dtype);
    if (!gd_shape_equal(&expected->shape, &actual->shape))
        fail_msg("%s: shape is %s, should be %s", what, gd_shape_text(&actual->shape, a, sizeof a),
                 gd_shape_text(&expected->shape, b, sizeof b));
    if (expected->dtype == GD_INT64)
        assert_memory_equal(expected->data, actual->data,
                            (size_t)gd_numel(&expected->shape) * sizeof(int64_t));
    else
        test_close_values(expected->data, actual->data, gd_numel(&expected->shape), tolerance, what);
}

/* Do two graphs look the same from these nodes on? -1 is no node. Expected is numbered depth first, so
 * `seen` (expected id -> actual id, -1: not yet) also proves that shared nodes are shared. */
static void same_walk(const json_t *expected, int from, const gd_grad_node *nodes, int at, int *seen) {
    if (from < 0 || at < 0) {
        if (from >= 0 || at >= 0)
            fail_msg("an edge leads to %s, should lead to %s", at < 0 ? "nothing" : nodes[at].name,
                     from < 0 ? "nothing"
                              : json_string_value(json_array_get(json_array_get(expected, (size_t)from), 0)));
        return;
    }
    if (seen[from] >= 0) {
        assert_int_equal(seen[from], at);
        return;
    }
    seen[from] = at;
    const json_t *node = json_array_get(expected, (size_t)from), *next = json_array_get(node, 1);
    assert_string_equal(nodes[at].name, json_string_value(json_array_get(node, 0)));
    if (nodes[at].next_count != (int)json_array_size(next))
        fail_msg("%s leads to %d nodes, should lead to %zu", nodes[at].name, nodes[at].next_count,
                 json_array_size(next));
    for (int i = 0; i < nodes[at].next_count; i++)
        same_walk(expected, (int)json_integer_value(json_array_get(next, (size_t)i)), nodes,
                  nodes[at].next[i], seen);
}

void test_walk(const gd_model *model, const json_t *expected) {
    gd_grad_node *nodes = NULL;
    size_t count = 0;
    gd_error error = GD_ERROR_INIT;
    int seen[128];
    assert_non_null(expected);
    assert_in_range(json_array_size(expected), 1, 128);
    test_ok(gd_model_walk(model, &nodes, &count, &error), &error);
    for (int i = 0; i < 128; i++)
        seen[i] = -1;
    same_walk(expected, 0, nodes, 0, seen);
    assert_int_equal(count, json_array_size(expected));
    free(nodes);
}
