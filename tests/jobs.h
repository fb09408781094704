/* jobs.h -- models and jobs on the daemon's own data, for tests. Whatever goes wrong in here fails the test
 * that called it. JSON is written with ' for ". */
#ifndef GRADD_TESTS_JOBS_H
#define GRADD_TESTS_JOBS_H

#include <jansson.h>

#include "tests/daemon.h"

#define TEST_LENET_LAYERS \
    "[{'type': 'Conv2d', 'name': 'conv1', 'out_channels': 6, 'kernel_size': 3}, {'type': 'relu'}, " \
    "{'type': 'max_pool2d', 'kernel_size': 2}, {'type': 'Conv2d', 'name': 'conv2', 'out_channels': 16, " \
    "'kernel_size': 3}, {'type': 'relu'}, {'type': 'max_pool2d', 'kernel_size': 2}, {'type': 'flatten'}, " \
    "{'type': 'Linear', 'name': 'fc1', 'out_features': 120}, {'type': 'relu'}, {'type': 'Linear', 'name': " \
    "'fc2', 'out_features': 84}, {'type': 'relu'}, {'type': 'Linear', 'name': 'fc3', 'out_features': 10}]"
#define TEST_CROSS_ENTROPY "'loss': {'type': 'CrossEntropyLoss'}"
#define TEST_SGD "'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}"
#define TEST_LENET(name) \
    "{'name': '" name "', 'seed': 0, 'input': {'shape': [1, 32, 32]}, 'layers': " TEST_LENET_LAYERS \
    ", " TEST_CROSS_ENTROPY ", " TEST_SGD "}"
/* One layer, with everything that draws or keeps something. */
#define TEST_SMALL(name) \
    "{'name': '" name \
    "', 'seed': 3, 'input': {'shape': [28, 28]}, 'layers': [{'type': 'flatten'}, {'type': " \
    "'Linear', 'name': 'a', 'out_features': 16}, {'type': 'BatchNorm1d', 'name': 'b'}, {'type': 'relu'}, " \
    "{'type': 'Dropout', 'p': 0.2}, {'type': 'Linear', 'name': 'c', 'out_features': " \
    "10}], " TEST_CROSS_ENTROPY ", 'optimizer': {'type': 'Adam', 'lr': 0.001}}"
#define TEST_SCALED "'transform': {'scale': 0.00392156863}"
#define TEST_PADDED "'transform': {'pad': 2, 'scale': 0.00392156863, 'mean': 0.1307, 'std': 0.3081}"

/** A reply's body, a new reference. */
json_t *test_job_call(const test_daemon *daemon, const char *method, const char *path, const char *json,
                      int status);
/** A member's text, or ""; its number, or 0. */
const char *test_text_of(const json_t *json, const char *name);
double test_number_of(const json_t *json, const char *name);
void test_job_model(const test_daemon *daemon, const char *json);
/** @return its id */
int test_job_post(const test_daemon *daemon, const char *json);
/** GET it. @param headers each with "\r\n"  @return a new reference */
json_t *test_job_show(const test_daemon *daemon, int id, const char *headers);
/** Wait until it has this state, and ends in no other; a new reference. */
json_t *test_job_wait_for(const test_daemon *daemon, int id, const char *state);
void test_job_wait(const test_daemon *daemon, int id, const char *state);
void test_job_wait_for_step(const test_daemon *daemon, int id, int step);
/** POST /v1/jobs/{id}/{action}: status, and what the body has in it. */
void test_job_act(const test_daemon *daemon, int id, const char *action, int status, const char *part);
/** The state_dicts of two models and their metrics, but for times and speed, are the same bytes. */
void test_same_training(const test_daemon *a, const char *model_a, const test_daemon *b, const char *model_b);

#endif
