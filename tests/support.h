/* support.h -- what tests share: golden files, models from JSON, comparisons. Whatever goes wrong in
 * here fails the test that called it. Tests run in the repository's root. */
#ifndef GRADD_TESTS_SUPPORT_H
#define GRADD_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
/* cmocka.h wants the two above first */
#include <cmocka.h>

#include "engine/gradd_engine.h"
#include "proto/gradd_proto.h"

/* ---- golden files ------------------------------------------------------------------------------ */

/** A file's bytes, NUL-terminated; free() them. */
char *test_read_file(const char *path, size_t *ret_size);

/** A safetensors file of tests/golden. */
typedef struct test_golden {
    char *bytes;
    gp_safetensors tensors;
} test_golden;

void test_golden_open(test_golden *golden, const char *name);
void test_golden_close(test_golden *golden);
/** A view of one tensor, named as printf does. */
gd_tensor test_golden_get(const test_golden *golden, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
bool test_golden_has(const test_golden *golden, const char *name);
/** A JSON file of tests/golden. A new reference. */
json_t *test_golden_json(const char *name);

/* ---- samples ----------------------------------------------------------------------------------- */

/** One file of tests/golden/samples, and what torch says of its rows. */
typedef struct test_family {
    json_t *rows; /* {"ops": [...], "losses": [...], "optimizers": [...], "bad": [...]} */
    json_t *grad_fn, *repr;
    test_golden golden;
} test_family;

/** Call visit() for every family. @return the sum of what it returned */
int test_each_family(int (*visit)(test_family *family, void *context), void *context);
/** Run test(row) as a test of its own for each row of a table in every family, named prefix and row's
 *  name. *current (which may be NULL) is the row's family meanwhile. @return how many failed */
int test_each_sample(const char *table, const char *prefix, CMUnitTestFunction test, test_family *current);

/* ---- models ------------------------------------------------------------------------------------ */

/** Why a model was not built, in the words a client would read. */
typedef struct test_failure {
    char code[64];
    char field[64];
    char message[1024];
} test_failure;

gd_engine *test_engine(int threads, size_t memory_limit);
/** Build the model that a definition (API.md's POST /v1/models) describes. @return 0 or -1 */
int test_build(gd_engine *engine, json_t *definition, gd_model **ret_model, test_failure *failure);
/** The same, where nothing may go wrong. Takes the reference to definition. */
gd_model *test_model(gd_engine *engine, json_t *definition);
/** From JSON text, written with ' for " to be readable in C. */
json_t *test_json(const char *text);
/** The tutorial's LeNet with loss and optimizer given as JSON (NULL: none). A new reference. */
json_t *test_lenet(const char *loss, const char *optimizer);

const gd_parameter *test_parameter(const gd_model *model, const char *name);
void test_set_parameter(gd_model *model, const char *name, const gd_tensor *values);
/** All parameters' values one after another, for comparing; free() it. */
float *test_parameters(const gd_model *model, size_t *ret_count);

/** A tensor of n random standard-normal-like values with its own memory; free(.data). */
gd_tensor test_random(gd_shape shape, uint64_t seed);
/** (n) int64 values 0 ... classes-1. */
gd_tensor test_random_classes(int64_t n, int64_t classes, uint64_t seed);
gd_shape test_shape(const json_t *dims);
#define TEST_SHAPE(...) \
    ((gd_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = {__VA_ARGS__}})

struct gd_isa;
/** The op of a module name ("Conv2d") as an instruction set has it; none fails the test. */
const struct gd_op *test_op(const struct gd_isa *isa, const char *module);

/* ---- comparisons ---------------------------------------------------------------------------------- */

/** The call gives 0; else its message is shown. */
#define test_ok(code, error) test_ok_(code, error, __FILE__, __LINE__)
void test_ok_(int code, const gd_error *error, const char *file, int line);
/** Same shape, and each element within tolerance * (its size + the root mean square); NaN equals NaN.
 *  @param expected, actual float32 */
void test_close(const gd_tensor *expected, const gd_tensor *actual, double tolerance, const char *what);
void test_close_values(const float *expected, const float *actual, int64_t count, double tolerance,
                       const char *what);
/** The autograd graph of the model equals [[name, [next]], ...] of grad_fn.json. */
void test_walk(const gd_model *model, const json_t *expected);

#endif
