/* allocation_test.c -- once a shape has been trained on, nothing is allocated: every call of the allocator is
 * counted, the engine's, OpenBLAS's and libc's own alike, and the second time there is none. */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

#include "tests/sample.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* ---- the counter ------------------------------------------------------------------------------- */

static _Atomic bool counting;
static _Atomic long allocations; /* while counting, by any thread */

static void count_one(void) {
    if (atomic_load_explicit(&counting, memory_order_relaxed))
        atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
}

#ifdef SANITIZED
/* The sanitizer has the allocator, and tells of every call. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *));

static void on_malloc(const volatile void *block, size_t size) {
    (void)block;
    (void)size;
    count_one();
}

static void on_free(const volatile void *block) {
    (void)block;
}

static int install(void) {
    return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}
#else
/* A program's own malloc takes the place of glibc's, which is called by its other name. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    count_one();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    count_one();
    return __libc_calloc(count, size);
}

void *realloc(void *block, size_t size) {
    count_one();
    return __libc_realloc(block, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    count_one();
    return __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size) {
    count_one();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **ret_block, size_t alignment, size_t size) {
    count_one();
    void *block = __libc_memalign(alignment, size);
    if (!block)
        return ENOMEM;
    *ret_block = block;
    return 0;
}

static int install(void) {
    return 1;
}
#endif

static void raise_flag(void *flag) {
    atomic_store((_Atomic bool *)flag, true);
}

/* Wait until an engine's other thread runs: starting one allocates. */
static gd_engine *started(gd_engine *engine) {
    _Atomic bool ran = false;
    gd_task task = {.run = raise_flag, .argument = &ran};
    gd_engine_submit(engine, &task);
    while (!atomic_load(&ran))
        sched_yield();
    return engine;
}

/* What a model is put through, again and again. */
typedef struct work {
    gd_model *model;
    const gd_tensor *inputs;
    size_t input_count;
    const gd_tensor *target;   /* of a loss */
    const gd_tensor *gradient; /* to begin the backward from, where there is no loss */
} work;

/* The first time makes plans and scratch memory, the second may not. */
static void expect_none_the_second_time(void (*run)(const work *w), const work *w) {
    run(w);
    atomic_store(&allocations, 0);
    atomic_store(&counting, true);
    run(w);
    atomic_store(&counting, false);
    if (atomic_load(&allocations) > 0)
        fail_msg("%ld allocations at a shape that has been seen", atomic_load(&allocations));
}

static void the_counter_counts(void **state) {
    (void)state;
    atomic_store(&allocations, 0);
    atomic_store(&counting, true);
    void *volatile a = malloc(3), *volatile b = calloc(2, 3), *volatile c = aligned_alloc(64, 64);
    void *volatile grown = realloc(b, 5000);
    atomic_store(&counting, false);
    assert_int_equal(atomic_load(&allocations), 4);
    free(a);
    free(grown);
    free(c);
}

/* ---- what must not allocate -------------------------------------------------------------------------- */

static test_family family; /* of the row under test */

static bool has_golden(const json_t *row, const char *what) {
    char name[GP_MAX_NAME];
    snprintf(name, sizeof name, "%s/%s", sample_name(row), what);
    return test_golden_has(&family.golden, name);
}

static void forward_and_back(const work *w) {
    gd_tensor output;
    gd_error error = GD_ERROR_INIT;
    gd_model_zero_grad(w->model);
    test_ok(gd_model_forward(w->model, w->inputs, w->input_count, &output, &error), &error);
    if (w->gradient)
        test_ok(gd_model_backward(w->model, w->gradient, false, &error), &error);
    test_ok(gd_model_predict(w->model, w->inputs, w->input_count, &output, &error), &error);
}

/* Behind a source, so that every gradient there is has to be computed. */
static void an_op(void **state) {
    const json_t *row = *state, *graph = json_object_get(family.grad_fn, sample_name(row));
    sample s;
    sample_begin(row, &family.golden, SAMPLE_SOURCE, 2, &s);
    (void)started(s.engine);
    const gd_tensor gradient = test_golden_get(&family.golden, "%s/output_grad", sample_name(row));
    const bool differentiable = json_array_size(json_object_get(graph, "source")) > 0;
    expect_none_the_second_time(forward_and_back, &(work){.model = s.model,
                                                          .inputs = s.in.tensors,
                                                          .input_count = s.in.count,
                                                          .gradient = differentiable ? &gradient : NULL});
    sample_end(&s);
}

static void loss_and_back(const work *w) {
    gd_tensor output, loss;
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_forward(w->model, w->inputs, w->input_count, &output, &error), &error);
    test_ok(gd_model_loss(w->model, w->target, NULL, &loss, &error), &error);
    if (loss.shape.rank == 0) {
        test_ok(gd_model_backward(w->model, NULL, false, &error), &error);
        test_ok(gd_model_evaluate(w->model, w->inputs, w->input_count, w->target, &result, &error), &error);
    }
}

static void a_loss(void **state) {
    const json_t *row = *state;
    const gd_tensor output = test_golden_get(&family.golden, "%s/output", sample_name(row));
    const gd_tensor target = has_golden(row, "target")
                                 ? test_golden_get(&family.golden, "%s/target", sample_name(row))
                                 : (gd_tensor){.data = NULL};
    gd_engine *engine = started(test_engine(2, 0));
    gd_model *model = test_model(engine, sample_definition(row, SAMPLE_SOURCE));
    sample_set_source(model, 0, &output);
    gd_tensor identity = sample_identity(output.shape.dim[0]);
    expect_none_the_second_time(
        loss_and_back, &(work){.model = model, .inputs = &identity, .input_count = 1, .target = &target});
    free(identity.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void train_step(const work *w) {
    const gd_field lr[] = {{"lr", {.kind = GD_VALUE_FLOAT, .number = 0.01}}};
    const gd_step_options options = {
        .fields = lr, .field_count = 1, .clip_grad_norm = 1, .clip_grad_value = 0.5};
    gd_step_result result;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_model_train_step(w->model, w->inputs, w->input_count, w->target, NULL, NULL, &result, &error),
            &error);
    test_ok(
        gd_model_train_step(w->model, w->inputs, w->input_count, w->target, NULL, &options, &result, &error),
        &error);
}

/* A Linear on one batch, as this spec of an optimizer and of a scheduler (or NULL) train it. */
static void train(const json_t *optimizer, const json_t *scheduler) {
    json_t *definition = test_json("{'name': 'layer', 'input': {'shape': [4]}, 'loss': {'type': 'MSELoss'},"
                                   " 'layers': [{'type': 'Linear', 'out_features': 3}]}");
    json_object_set(definition, "optimizer", (json_t *)(uintptr_t)optimizer);
    if (scheduler)
        json_object_set(definition, "scheduler", (json_t *)(uintptr_t)scheduler);
    gd_engine *engine = started(test_engine(2, 0));
    gd_model *model = test_model(engine, definition);
    gd_tensor input = test_random(TEST_SHAPE(6, 4), 1), target = test_random(TEST_SHAPE(6, 3), 2);
    expect_none_the_second_time(
        train_step, &(work){.model = model, .inputs = &input, .input_count = 1, .target = &target});
    free(input.data);
    free(target.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

static void steps_of_an_optimizer(void **state) {
    const json_t *row = *state;
    json_t *spec = json_copy(json_object_get(row, "attributes"));
    json_object_set(spec, "type", json_object_get(row, "optimizer"));
    train(spec, NULL);
    json_decref(spec);
}

static void steps_with_a_scheduler(void **state) {
    const json_t *row = *state;
    json_t *spec = json_copy(json_object_get(row, "attributes"));
    json_t *optimizer = test_json("{'type': 'SGD', 'lr': 0.1}");
    json_object_set(spec, "type", json_object_get(row, "scheduler"));
    json_object_update(optimizer, json_object_get(row, "optimizer"));
    train(optimizer, spec);
    json_decref(optimizer);
    json_decref(spec);
}

static void steps_of_groups(void **state) {
    (void)state;
    json_t *optimizer = test_json("{'type': 'AdamW', 'param_groups': [{'params': '*.bias', 'lr': 0.1}]}");
    json_t *scheduler = test_json("{'type': 'OneCycleLR', 'max_lr': 1, 'total_steps': 90}");
    train(optimizer, scheduler);
    json_decref(optimizer);
    json_decref(scheduler);
}

static void lenet(void **state) {
    (void)state;
    gd_engine *engine = started(test_engine(2, 0));
    gd_model *model = test_model(
        engine, test_lenet("{'type': 'CrossEntropyLoss'}", "{'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}"));
    gd_tensor input = test_random(TEST_SHAPE(37, 1, 32, 32), 1), target = test_random_classes(37, 10, 2);
    expect_none_the_second_time(
        train_step, &(work){.model = model, .inputs = &input, .input_count = 1, .target = &target});
    free(input.data);
    free(target.data);
    gd_model_free(model);
    gd_engine_free(engine);
}

/* Two outputs, three terms, of which two meet at one output and one has an input as its target. */
static void several_terms(void **state) {
    (void)state;
    gd_engine *engine = started(test_engine(2, 0));
    gd_model *model = test_model(
        engine,
        test_json(
            "{'name': 'heads', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'trunk', "
            "'out_features': 8}, {'type': 'relu'}, {'type': 'Linear', 'name': 'kind', 'out_features': 3}, "
            "{'type': 'Linear', 'name': 'again', 'inputs': ['trunk'], 'out_features': 4}], "
            "'outputs': ['kind', 'again'], 'loss': [{'type': 'CrossEntropyLoss', 'output': 'kind'}, "
            "{'type': 'MSELoss', 'output': 'again', 'target': '@input', 'weight': 0.1}, "
            "{'type': 'L1Loss', 'output': 'again', 'target': 'near'}], "
            "'optimizer': {'type': 'Adam'}}"));
    gd_tensor input = test_random(TEST_SHAPE(37, 4), 1),
              targets[] = {test_random_classes(37, 3, 2), test_random(TEST_SHAPE(37, 4), 3)};
    gd_targets wanted;
    test_ok(gd_model_targets(model, NULL, &wanted, NULL), NULL);
    assert_int_equal(wanted.count, 2);
    expect_none_the_second_time(
        train_step, &(work){.model = model, .inputs = &input, .input_count = 1, .target = targets});
    free(input.data);
    free(targets[0].data);
    free(targets[1].data);
    gd_model_free(model);
    gd_engine_free(engine);
}

int main(void) {
    const struct CMUnitTest counter[] = {cmocka_unit_test(several_terms),
                                         cmocka_unit_test(the_counter_counts), cmocka_unit_test(lenet),
                                         cmocka_unit_test(steps_of_groups)};
    if (!install())
        return 1;
    int failed = cmocka_run_group_tests(counter, NULL, NULL);
    failed += test_each_sample("ops", "an op", an_op, &family);
    failed += test_each_sample("losses", "a loss", a_loss, &family);
    failed += test_each_sample("optimizers", "steps of an optimizer", steps_of_an_optimizer, &family);
    failed += test_each_sample("schedulers", "steps with a scheduler", steps_with_a_scheduler, &family);
    return failed != 0;
}
