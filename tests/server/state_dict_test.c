/* state_dict_test.c -- weights go from PyTorch to the daemon and back: a state_dict that torch saved predicts
 * as in torch, comes back bit for bit, and what the daemon has trained on loads into torch's module. */
#include <unistd.h>

#include "tests/http.h"
#include "tests/support.h"

#define TENSORS "application/x-safetensors"

static const char *const examples[] = {"resnet20", "char_lstm", "transformer"};
enum { EXAMPLES = sizeof examples / sizeof examples[0] };

/* ---- requests --------------------------------------------------------------------------------------- */

static void expect_status(const test_reply *reply, int status) {
    if (reply->status != status)
        fail_msg("%d, should be %d: %s", reply->status, status, reply->body);
}

/* One request of /v1/models/NAME/ACTION whose body is safetensors, and its reply too where it can be. */
static void exchange(const char *method, const char *name, const char *action, const void *body, size_t size,
                     test_reply *ret_reply) {
    char path[128];
    snprintf(path, sizeof path, "/v1/models/%s/%s", name, action);
    int fd = test_connect(test_shared.port);
    test_request(fd, method, path, "Content-Type: " TENSORS "\r\nAccept: " TENSORS ", */*;q=0.5\r\n", body,
                 size, ret_reply);
    close(fd);
    expect_status(ret_reply, 200);
}

static gp_safetensors tensors_of(const test_reply *reply) {
    gp_safetensors tensors;
    gp_error error = {0};
    if (gp_safetensors_read(reply->body, reply->size, 0, &tensors, &error))
        fail_msg("%s", error.detail);
    return tensors;
}

/* These tensors of a golden file as a body. free() it */
static char *body_of(const test_golden *golden, const char *const *names, size_t count, size_t *ret_size) {
    gp_named_array arrays[2] = {{.name = ""}};
    assert_in_range(count, 1, 2);
    for (size_t i = 0; i < count; i++) {
        const gp_array *array = gp_safetensors_find(&golden->tensors, names[i]);
        assert_non_null(array);
        snprintf(arrays[i].name, sizeof arrays[i].name, "%s", names[i]);
        arrays[i].array = *array;
    }
    size_t used = gp_safetensors_header_size(arrays, count, NULL);
    char *body = malloc(used + arrays[0].array.size + arrays[1].array.size);
    assert_non_null(body);
    gp_safetensors_write_header(arrays, count, NULL, body);
    for (size_t i = 0; i < count; i++) {
        memcpy(body + used, arrays[i].array.data, arrays[i].array.size);
        used += arrays[i].array.size;
    }
    *ret_size = used;
    return body;
}

/* What the daemon predicts for the golden input equals `expected`, named `key` there. */
static void expect_prediction(const char *name, const test_golden *golden, const gp_safetensors *expected,
                              const char *key) {
    size_t size;
    char *body = body_of(golden, (const char *const[]){"input"}, 1, &size);
    test_reply reply;
    exchange("POST", name, "predict", body, size, &reply);
    gp_safetensors predicted = tensors_of(&reply);
    const gp_array *actual = gp_safetensors_find(&predicted, "output");
    const gp_array *wanted = gp_safetensors_find(expected, key);
    assert_non_null(actual);
    assert_non_null(wanted);
    assert_int_equal(actual->rank, wanted->rank);
    assert_memory_equal(actual->dim, wanted->dim, (size_t)wanted->rank * sizeof wanted->dim[0]);
    test_close_values(wanted->data, actual->data, (int64_t)(wanted->size / sizeof(float)), 1e-5,
                      "prediction");
    gp_safetensors_release(&predicted);
    test_reply_release(&reply);
    free(body);
}

/* ---- an example, its golden file, and torch's state_dict ---------------------------------------------- */

typedef struct fixture {
    const char *name;
    test_golden golden;
    char *state; /* the file's bytes */
    size_t size;
} fixture;

/* The model is made anew from the example's file, and the state_dict is put into it. */
static fixture begin(const char *name) {
    fixture f = {.name = name};
    char path[128];
    test_reply reply;
    size_t size;
    snprintf(path, sizeof path, "clients/examples/models/%s.json", name);
    char *definition = test_read_file(path, &size);
    int fd = test_connect(test_shared.port);
    test_request(fd, "POST", "/v1/models", "", definition, size, &reply);
    close(fd);
    expect_status(&reply, 201);
    test_reply_release(&reply);
    free(definition);
    snprintf(path, sizeof path, "models/%s.safetensors", name);
    test_golden_open(&f.golden, path);
    snprintf(path, sizeof path, "tests/golden/models/%s.state.safetensors", name);
    f.state = test_read_file(path, &f.size);
    exchange("PUT", name, "state_dict", f.state, f.size, &reply);
    test_reply_release(&reply);
    return f;
}

static void end(fixture *f) {
    char path[128];
    test_reply reply;
    snprintf(path, sizeof path, "/v1/models/%s", f->name);
    test_call(&test_shared, "DELETE", path, NULL, 204, &reply);
    test_reply_release(&reply);
    test_golden_close(&f->golden);
    free(f->state);
}

/* ---- what is proved of each --------------------------------------------------------------------------- */

static void a_state_dict_of_torch_predicts_as_in_torch(void **state) {
    fixture f = begin(*state);
    expect_prediction(f.name, &f.golden, &f.golden.tensors, "predicted");
    end(&f);
}

/* Names, kinds of numbers, shapes and bits, buffers included; and nothing else. */
static void it_comes_back_as_it_went(void **state) {
    fixture f = begin(*state);
    test_reply reply;
    gp_safetensors sent;
    gp_error error = {0};
    assert_int_equal(gp_safetensors_read(f.state, f.size, 0, &sent, &error), 0);
    exchange("GET", f.name, "state_dict", NULL, 0, &reply);
    gp_safetensors back = tensors_of(&reply);
    assert_int_equal(back.count, sent.count);
    for (size_t i = 0; i < sent.count; i++) {
        const gp_array *a = &sent.arrays[i].array, *b = gp_safetensors_find(&back, sent.arrays[i].name);
        if (!b || b->dtype != a->dtype || b->rank != a->rank || b->size != a->size ||
            memcmp(b->dim, a->dim, (size_t)a->rank * sizeof a->dim[0]) != 0 ||
            memcmp(b->data, a->data, a->size) != 0)
            fail_msg("%s does not come back as it went", sent.arrays[i].name);
    }
    gp_safetensors_release(&back);
    gp_safetensors_release(&sent);
    test_reply_release(&reply);
    end(&f);
}

/* An interpreter that has torch; NULL: there is none. */
static const char *torch(void) {
    static const char *const candidates[] = {"/usr/bin/python3", "/usr/local/bin/python3"};
    for (size_t i = 0; i < sizeof candidates / sizeof candidates[0]; i++) {
        test_output output;
        if (access(candidates[i], X_OK) != 0)
            continue;
        test_run((const char *const[]){candidates[i], "-c", "import torch", NULL}, NULL, &output);
        const bool has = output.status == 0;
        test_output_release(&output);
        if (has)
            return candidates[i];
    }
    return NULL;
}

/* After a step of training here torch's own module takes the state_dict, strictly, and predicts the same. */
static void what_was_trained_here_loads_into_torch(void **state) {
    const char *python = torch();
    if (!python) {
        print_message("no Python here imports torch (apt-get install python3-torch)\n");
        skip();
    }
    fixture f = begin(*state);
    test_folder folder;
    test_reply reply;
    test_output output;
    char trained[512], answer[512];
    size_t size;
    char *body = body_of(&f.golden, (const char *const[]){"input", "target"}, 2, &size);
    exchange("POST", f.name, "train_step", body, size, &reply);
    test_reply_release(&reply);
    exchange("GET", f.name, "state_dict", NULL, 0, &reply);
    test_folder_make(&folder);
    test_folder_write(&folder, "state.safetensors", reply.body, reply.size, trained);
    test_folder_write(&folder, "output.safetensors", "", 0, answer);
    test_run((const char *const[]){python, "tests/golden/predict.py", f.name, trained, answer, NULL},
             (const char *const[]){"PYTHONDONTWRITEBYTECODE=1", NULL}, &output);
    if (output.status != 0)
        fail_msg("tests/golden/predict.py: %s", output.err);
    test_reply_release(&reply);
    reply.body = test_read_file(answer, &reply.size);
    gp_safetensors expected = tensors_of(&reply);
    expect_prediction(f.name, &f.golden, &expected, "output");
    gp_safetensors_release(&expected);
    test_reply_release(&reply);
    test_output_release(&output);
    test_folder_remove(&folder);
    free(body);
    end(&f);
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction test;
    } proofs[] = {
        {"a_state_dict_of_torch_predicts_as_in_torch", a_state_dict_of_torch_predicts_as_in_torch},
        {"it_comes_back_as_it_went", it_comes_back_as_it_went},
        {"what_was_trained_here_loads_into_torch", what_was_trained_here_loads_into_torch},
    };
    enum { PROOFS = sizeof proofs / sizeof proofs[0] };
    char names[EXAMPLES * PROOFS][96];
    struct CMUnitTest tests[EXAMPLES * PROOFS];
    for (size_t i = 0; i < EXAMPLES * PROOFS; i++) {
        const char *name = examples[i / PROOFS];
        snprintf(names[i], sizeof names[i], "%s: %s", name, proofs[i % PROOFS].name);
        tests[i] = (struct CMUnitTest){
            .name = names[i], .test_func = proofs[i % PROOFS].test, .initial_state = (void *)(uintptr_t)name};
    }
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
