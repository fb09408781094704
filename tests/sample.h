/* sample.h -- a row of tests/golden/samples as a model.
 *
 * The engine gives gradients of parameters, not of inputs. So a sample can be built behind a source: a
 * Linear without bias that is fed with the identity matrix. Its output is then its weight, transposed,
 * and the gradient of its weight is the gradient of whatever it feeds. */
#ifndef GRADD_TESTS_SAMPLE_H
#define GRADD_TESTS_SAMPLE_H

#include "tests/support.h"

enum { SAMPLE_MAX_INPUTS = 4 };

typedef enum sample_feed {
    SAMPLE_DIRECT, /* the layer 'layer' fed with inputs x0, x1 ... */
    SAMPLE_SOURCE, /* the same, or the loss alone, behind sources source0, source1 ... fed with input e */
    SAMPLE_TWICE   /* as SAMPLE_SOURCE, with the layer 'again' reading the same, and 'layer' + 'again' */
} sample_feed;

const char *sample_name(const json_t *row);
/** The definition of a sample's model. An op's row has "op" and "inputs", a loss's "loss" and "output". */
json_t *sample_definition(const json_t *row, sample_feed feed);
/** Golden parameters into the layers 'layer' and 'again'. */
void sample_set_parameters(gd_model *model, const test_golden *golden, const char *name);
/** What a sample's model is fed with. */
typedef struct sample_inputs {
    gd_tensor tensors[SAMPLE_MAX_INPUTS];
    size_t count;
    void *identity; /* the sources' input, free() it; NULL: no sources */
} sample_inputs;

/** A row's model with golden parameters, in the row's mode, and what to feed it with. */
typedef struct sample {
    gd_engine *engine;
    gd_model *model;
    sample_inputs in;
} sample;

/** Make one; undo it with sample_end(). */
void sample_begin(const json_t *row, const test_golden *golden, sample_feed feed, int threads, sample *ret);
void sample_end(sample *s);

/** Golden inputs into the sources, or as tensors to feed. */
void sample_feed_model(gd_model *model, const json_t *row, const test_golden *golden, sample_feed feed,
                       sample_inputs *ret_inputs);
/** (n, n), ones on the diagonal. free(.data) */
gd_tensor sample_identity(int64_t n);
/** Make source `index` give x. */
void sample_set_source(gd_model *model, size_t index, const gd_tensor *x);
/** dL/dx of what source `index` gives. free(.data) */
gd_tensor sample_source_gradient(const gd_model *model, size_t index, const gd_shape *shape);

#endif
