/* models_test.c -- the API's Models section, request by request. The numbers are the engine's tests' matter.
 */
#include "tests/support.h"

#include <string.h>
#include <unistd.h>

#include "tests/http.h"

#define BATCH "{'input': [[1, 2, 3, 4], [4, 3, 2, 1]], 'target': [0, 2]}"

/* A member of the reply to a request, by path ("a.b"), as compact JSON text. */
static void get(const char *path, const char *member, char *text, size_t size) {
    test_reply reply;
    test_call(&test_shared, "GET", path, NULL, 200, &reply);
    json_t *json = json_loads(reply.body, 0, NULL);
    char *value = json_dumps(json_object_get(json, member), JSON_COMPACT | JSON_ENCODE_ANY);
    snprintf(text, size, "%s", value ? value : "");
    free(value);
    json_decref(json);
    test_reply_release(&reply);
}

static void a_model_is_created_shown_listed_and_deleted(void **state) {
    (void)state;
    test_reply reply;
    char text[128], etag[128];
    test_call(&test_shared, "POST", "/v1/models",
              "{'name': 'a', 'class_name': 'Net', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', "
              "'name': 'fc', "
              "'out_features': 3}, {'type': 'relu'}]}",
              201, &reply);
    assert_string_equal(test_header(&reply, "Location", text, sizeof text), "/v1/models/a");
    assert_true(*test_header(&reply, "ETag", etag, sizeof etag) == '"');
    test_reply_release(&reply);
    get("/v1/models/a", "repr", text, sizeof text);
    assert_string_equal(text, "\"Net(\\n  (fc): Linear(in_features=4, out_features=3, bias=True)\\n)\"");
    get("/v1/models/a", "parameters", text, sizeof text);
    assert_string_equal(text, "{\"count\":2,\"numel\":15,\"trainable\":15}");
    get("/v1/models/a", "optimizer", text, sizeof text);
    assert_string_equal(text, "null");
    test_expect(&test_shared, "GET", "/v1/models", NULL, 200, "\"name\":\"a\"");
    test_expect(&test_shared, "POST", "/v1/models",
                "{'name': 'a', 'input': {'shape': [4]}, 'layers': [{'type': 'relu'}]}", 409, "name_taken");
    test_expect(&test_shared, "DELETE", "/v1/models/a", NULL, 204, "");
    test_expect(&test_shared, "GET", "/v1/models/a", NULL, 404, "not_found");
}

static void a_dry_run_answers_in_full_and_makes_nothing(void **state) {
    (void)state;
    test_expect(&test_shared, "POST", "/v1/models?dry_run=true",
                "{'name': 'dry', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'out_features': 3}]}",
                200, "\"output_shape\":[3]");
    test_expect(&test_shared, "GET", "/v1/models/dry", NULL, 404, "not_found");
}

/* The number called memory_bytes in a reply. */
static double memory_of(const char *method, const char *path, const char *body) {
    test_reply reply;
    test_call(&test_shared, method, path, body, strcmp(method, "GET") != 0 && !strchr(path, '?') ? 201 : 200,
              &reply);
    json_t *json = json_loads(reply.body, 0, NULL);
    double bytes = json_number_value(json_object_get(json, "memory_bytes"));
    json_decref(json);
    test_reply_release(&reply);
    return bytes;
}

static void a_dry_run_foresees_the_memory_of_a_step(void **state) {
    (void)state;
    enum { BATCH_SIZE = 64, FEATURES = 50 };
    static const char *const losses[] = {"CrossEntropyLoss", "MSELoss"};
    for (size_t l = 0; l < 2; l++) {
        char model[512], path[64], step[64];
        gp_text batch = {0};
        snprintf(path, sizeof path, "/v1/models/foreseen%zu", l);
        snprintf(step, sizeof step, "%s/train_step", path);
        snprintf(
            model, sizeof model,
            "{'name': 'foreseen%zu', 'input': {'shape': [%d]}, 'layers': [{'type': 'Linear', 'out_features': "
            "40}, {'type': 'relu'}], 'loss': {'type': '%s'}, 'optimizer': {'type': 'Adam'}}",
            l, FEATURES, losses[l]);
        gp_text_add(&batch, "{'input': [");
        for (int i = 0; i < BATCH_SIZE; i++) {
            gp_text_add(&batch, "%s[", i ? "," : "");
            for (int k = 0; k < FEATURES; k++)
                gp_text_add(&batch, "%s%d", k ? "," : "", (i + k) % 5);
            gp_text_add(&batch, "]");
        }
        gp_text_add(&batch, "], 'target': [");
        for (int i = 0; i < BATCH_SIZE; i++) {
            gp_text_add(&batch, l ? "%s[" : "%s3", i ? "," : "");
            for (int k = 0; k < 40 && l; k++)
                gp_text_add(&batch, "%s0.5", k ? "," : "");
            gp_text_add(&batch, l ? "]" : "");
        }
        gp_text_add(&batch, "]}");
        double foreseen = memory_of("POST", "/v1/models?dry_run=true&batch=64", model);
        double before = memory_of("POST", "/v1/models", model);
        test_expect(&test_shared, "POST", step, batch.data, 200, "loss");
        double after = memory_of("GET", path, NULL);
        assert_true(after > 1.05 * before);
        assert_true(foreseen == after); /* JSON's tensors are held alone; other bodies with their heads */
        gp_text_release(&batch);
    }
    test_expect(&test_shared, "POST", "/v1/models?batch=64",
                "{'name': 'dry', 'input': {'shape': [4]}, 'layers': [{'type': 'relu'}]}", 400,
                "belongs to dry_run=true");
}

static void a_bad_definition_names_the_place(void **state) {
    (void)state;
    static const struct {
        const char *json, *part;
    } bad[] = {
        {"{'name': 'b'", "invalid_json"},
        {"{'name': 'b', 'name': 'c'}", "twice"},
        {"{'name': '../b', 'input': {'shape': [4]}, 'layers': [{'type': 'relu'}]}", "invalid_name"},
        {"{'name': 'b', 'input': {'shape': [4]}, 'layers': [{'type': 'Linaer', 'out_features': 3}]}",
         "Linear"},
        {"{'name': 'b', 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'in_features': 5, "
         "'out_features': 3}]}",
         "5"},
        {"{'name': 'b', 'input': {'shape': [4]}, 'layers': [{'type': 'relu'}], 'lawyers': 1}", "lawyers"},
        {"{'name': 'b', 'layers': [{'type': 'relu'}]}", "input"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_expect(&test_shared, "POST", "/v1/models", bad[i].json, 400, bad[i].part);
    }
    test_expect(&test_shared, "GET", "/v1/models/b", NULL, 404, "not_found");
}

static void lists_come_in_pages(void **state) {
    (void)state;
    test_create_small(&test_shared, "page-1");
    test_create_small(&test_shared, "page-2");
    test_create_small(&test_shared, "page-3");
    test_expect(&test_shared, "GET", "/v1/models?limit=2&cursor=page-0", NULL, 200,
                "\"next_cursor\":\"page-2\"");
    test_expect(&test_shared, "GET", "/v1/models?limit=2&cursor=page-2", NULL, 200, "\"name\":\"page-3\"");
    test_expect(&test_shared, "GET", "/v1/models?limit=0", NULL, 400, "limit");
    test_expect(&test_shared, "GET", "/v1/models?limit=1001", NULL, 400, "limit");
    test_expect(&test_shared, "GET", "/v1/models?limit=99999999999999999999", NULL, 400, "limit");
    test_expect(&test_shared, "GET", "/v1/models/page-1/parameters?limit=1", NULL, 200,
                "\"next_cursor\":\"1\"");
    test_expect(&test_shared, "GET", "/v1/models/page-1/parameters?cursor=1", NULL, 200, "fc.bias");
}

static void a_step_goes_from_forward_to_step(void **state) {
    (void)state;
    test_create_small(&test_shared, "walk");
    test_expect(&test_shared, "GET", "/v1/models/walk/parameters/fc.bias/grad", NULL, 404, "no_gradient");
    test_expect(&test_shared, "POST", "/v1/models/walk/backward", "{}", 409, "wrong_order");
    test_expect(&test_shared, "POST", "/v1/models/walk/forward", "{'input': [[1, 2, 3, 4]]}", 200,
                "\"grad_fn\":\"AddmmBackward0\"");
    test_expect(&test_shared, "POST", "/v1/models/walk/loss", "{'target': [1]}", 200,
                "\"grad_fn\":\"NllLossBackward0\"");
    test_expect(&test_shared, "GET", "/v1/models/walk/graph", NULL, 200,
                "\"name\":\"AccumulateGrad\",\"layer\":\"fc.bias\"");
    test_expect(&test_shared, "POST", "/v1/models/walk/backward", "{}", 200, "\"grad_norm\":");
    test_expect(&test_shared, "POST", "/v1/models/walk/backward", "{}", 409, "wrong_order");
    test_expect(&test_shared, "GET", "/v1/models/walk/parameters/fc.bias/grad", NULL, 200, "\"shape\": [3]");
    test_expect(&test_shared, "POST", "/v1/models/walk/step?lr=0.25", NULL, 200, "{\"step\":1,\"lr\":0.25,");
    test_expect(&test_shared, "POST", "/v1/models/walk/zero_grad", NULL, 200, "{}");
    test_expect(&test_shared, "POST", "/v1/models/walk/forward_backward", BATCH, 200, "\"count\":2");
    test_expect(&test_shared, "POST", "/v1/models/walk/train_step", BATCH, 200, "\"timing_us\":{\"parse\":");
    test_expect(&test_shared, "POST", "/v1/models/walk/evaluate", BATCH, 200, "\"accuracy\":");
    test_expect(&test_shared, "POST", "/v1/models/walk/predict", "{'input': [[1, 2, 3, 4]]}", 200,
                "\"output\":");
    test_expect(&test_shared, "GET", "/v1/models/walk/metrics?keys=loss", NULL, 200, "\"cursor\":2");
    test_expect(&test_shared, "GET", "/v1/models/walk/metrics?keys=lss", NULL, 400, "lss");
}

static void bad_batches_change_nothing(void **state) {
    (void)state;
    static const struct {
        const char *json, *part;
        int status;
    } bad[] = {
        {"{'input': [[1, 2, 3]], 'target': [0]}", "shape_mismatch", 400},
        {"{'input': [1, 2, 3, 4], 'target': [0]}", "batch", 400},
        {"{'input': [[1, 2, 3, 4], [1, 2]], 'target': [0, 1]}", "[1]", 400},
        {"{'input': [[1, 2, 3, 4]], 'target': [7]}", "7", 400},
        {"{'input': [[1, 2, 3, 4]], 'target': [0, 1]}", "shape_mismatch", 400},
        {"{'input': [[1, 2, 3, 1e39]], 'target': [0]}", "1e39", 400},
        {"{'input': [[1, 2, 3, NaN]], 'target': [0]}", "invalid_json", 400},
        {"{'input': [[1, 2, 3, 4]]}", "target", 400},
        {"{'target': [0]}", "input", 400},
        {"{'input': [[1, 2, 3, 4]], 'target': [0], 'learning_rate': 1}", "learning_rate", 400},
        {"{'input': [[1, 2, 3, 4]], 'target': [0], 'lr': -1}", "lr", 400},
        {"{'input': [[1, 2, 3, 4]], 'target': [0], 'loss': {'type': 'MSE'}}", "MSELoss", 400},
        {"{'input': [[1, 2, 3, 4]], 'target': [0], 'clip_grad_norm': 0}", "clip_grad_norm", 400},
    };
    char before[128], after[128];
    test_create_small(&test_shared, "solid");
    get("/v1/models/solid/parameters", "items", before, sizeof before);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_expect(&test_shared, "POST", "/v1/models/solid/train_step", bad[i].json, bad[i].status,
                    bad[i].part);
    }
    get("/v1/models/solid/parameters", "items", after, sizeof after);
    assert_string_equal(before, after);
    get("/v1/models/solid", "version", after, sizeof after);
    assert_string_equal(after, "1");
}

static void a_nan_loss_is_a_string(void **state) {
    (void)state;
    test_create_small(&test_shared, "nan");
    test_expect(&test_shared, "POST", "/v1/models/nan/train_step",
                "{'input': [['NaN', 0, 0, 0]], 'target': [0]}", 200, "\"loss\":\"NaN\"");
    test_expect(&test_shared, "GET", "/v1/models/nan/metrics", NULL, 200, "\"last\":[\"NaN\"]");
}

static void etags_guard_changes(void **state) {
    (void)state;
    test_reply reply;
    char etag[128], header[256];
    test_create_small(&test_shared, "tagged");
    int fd = test_connect(test_shared.port);
    test_request(fd, "GET", "/v1/models/tagged", "", "", 0, &reply);
    test_header(&reply, "ETag", etag, sizeof etag);
    test_reply_release(&reply);
    snprintf(header, sizeof header, "If-None-Match: \"other\", %s\r\n", etag);
    test_request(fd, "GET", "/v1/models/tagged", header, "", 0, &reply);
    assert_int_equal(reply.status, 304);
    test_reply_release(&reply);
    snprintf(header, sizeof header, "If-Match: %s\r\n", etag);
    test_request(fd, "PATCH", "/v1/models/tagged", header, "{\"training\": false}", 19, &reply);
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    test_request(fd, "PATCH", "/v1/models/tagged", header, "{\"training\": true}", 18, &reply);
    assert_int_equal(reply.status, 412);
    test_reply_release(&reply);
    test_request(fd, "DELETE", "/v1/models/tagged", header, "", 0, &reply);
    assert_int_equal(reply.status, 412);
    test_reply_release(&reply);
    /* a parameter has its own */
    test_request(fd, "GET", "/v1/models/tagged/parameters/fc.bias", "", "", 0, &reply);
    test_header(&reply, "ETag", etag, sizeof etag);
    test_reply_release(&reply);
    snprintf(header, sizeof header, "If-Match: %s\r\n", etag);
    test_request(fd, "PUT", "/v1/models/tagged/parameters/fc.bias", header, "[1, 2, 3]", 9, &reply);
    assert_int_equal(reply.status, 200);
    test_reply_release(&reply);
    test_request(fd, "PUT", "/v1/models/tagged/parameters/fc.bias", header, "[1, 2, 3]", 9, &reply);
    assert_int_equal(reply.status, 412);
    test_reply_release(&reply);
    close(fd);
    get("/v1/models/tagged", "training", header, sizeof header);
    assert_string_equal(header, "false");
}

/* The document is kept until it changes: here it is seen to be neither old nor cut short. */
static void what_a_model_shows_follows_every_change(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *body, *member, *wanted;
    } changes[] = {
        {"PATCH", "", "{'training': false}", "training", "false"},
        {"POST", "/train_step", BATCH, "step", "1"},
        {"POST", "/train_step", BATCH, "step", "2"},
        {"PATCH", "/parameters/fc.bias", "{'requires_grad': false}", "parameters",
         "{\"count\":2,\"numel\":15,\"trainable\":12}"},
        {"PATCH", "", "{'loss': {'type': 'MSELoss'}}", "loss", NULL},
    };
    char path[64], text[256], before[256], again[256];
    test_create_small(&test_shared, "shown");
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        get("/v1/models/shown", changes[i].member, before, sizeof before);
        snprintf(path, sizeof path, "/v1/models/shown%s", changes[i].path);
        test_expect(&test_shared, changes[i].method, path, changes[i].body, 200, "");
        get("/v1/models/shown", changes[i].member, text, sizeof text);
        get("/v1/models/shown", changes[i].member, again, sizeof again);
        assert_string_not_equal(text, before);
        assert_string_equal(again, text);
        if (changes[i].wanted) {
            assert_string_equal(text, changes[i].wanted);
        }
    }
}

static void hyperparameters_change_together_or_not_at_all(void **state) {
    (void)state;
    test_create_small(&test_shared, "tuned");
    test_expect(&test_shared, "PATCH", "/v1/models/tuned", "{'optimizer': {'lr': 0.5}}", 200,
                "\"lr\":0.5,\"momentum\":0.9");
    test_expect(&test_shared, "PATCH", "/v1/models/tuned", "{'training': false, 'optimizer': {'lr': -1}}",
                400, "lr");
    test_expect(&test_shared, "GET", "/v1/models/tuned", NULL, 200, "\"training\":true");
    test_expect(&test_shared, "PATCH", "/v1/models/tuned", "{'schedule': {}}", 400, "unknown_field");
}

static void a_parameter_goes_in_and_out_in_every_encoding(void **state) {
    (void)state;
    test_reply first, second;
    char type[64];
    test_create_small(&test_shared, "codec");
    int fd = test_connect(test_shared.port);
    static const char *const types[] = {"application/x-npy", "application/x-safetensors", "application/json"};
    for (size_t i = 0; i < 3; i++) {
        char header[128];
        snprintf(header, sizeof header, "Accept: %s\r\n", types[i]);
        test_request(fd, "GET", "/v1/models/codec/parameters/fc.weight", header, "", 0, &first);
        assert_string_equal(test_header(&first, "Content-Type", type, sizeof type), types[i]);
        snprintf(header, sizeof header, "Content-Type: %s\r\n", types[i]);
        test_request(fd, "PUT", "/v1/models/codec/parameters/fc.weight", header, first.body, first.size,
                     &second);
        assert_int_equal(second.status, 200);
        test_reply_release(&second);
        snprintf(header, sizeof header, "Accept: %s\r\n", types[i]);
        test_request(fd, "GET", "/v1/models/codec/parameters/fc.weight", header, "", 0, &second);
        assert_int_equal(first.size, second.size);
        assert_memory_equal(first.body, second.body, first.size);
        test_reply_release(&first);
        test_reply_release(&second);
    }
    close(fd);
    test_expect(&test_shared, "PUT", "/v1/models/codec/parameters/fc.bias", "[1, 2]", 400, "shape_mismatch");
    test_expect(&test_shared, "PUT", "/v1/models/codec/parameters/fc.boas", "[1, 2]", 404, "fc.boas");
    test_expect(&test_shared, "PATCH", "/v1/models/codec/parameters/fc.bias", "{'requires_grad': false}", 200,
                "\"requires_grad\":false");
}

static void a_state_dict_is_loaded_whole_or_not_at_all(void **state) {
    (void)state;
    test_reply dict, reply;
    char before[64], after[64];
    test_create_small(&test_shared, "from");
    test_expect(
        &test_shared, "POST", "/v1/models",
        "{'name': 'to', 'seed': 9, 'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'fc', "
        "'out_features': 3}, {'type': 'Linear', 'name': 'more', 'out_features': 2}]}",
        201, "to");
    int fd = test_connect(test_shared.port);
    test_request(fd, "GET", "/v1/models/from/state_dict", "", "", 0, &dict);
    assert_int_equal(dict.status, 200);
    get("/v1/models/to", "version", before, sizeof before);
    static const char type[] = "Content-Type: application/x-safetensors\r\n";
    test_request(fd, "PUT", "/v1/models/to/state_dict", type, dict.body, dict.size, &reply);
    assert_int_equal(reply.status, 400);
    assert_non_null(strstr(reply.body, "more.weight"));
    test_reply_release(&reply);
    get("/v1/models/to", "version", after, sizeof after);
    assert_string_equal(before, after);
    test_request(fd, "PUT", "/v1/models/to/state_dict?strict=false", type, dict.body, dict.size, &reply);
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(reply.body, "\"missing\":[\"more.weight\",\"more.bias\"]"));
    test_reply_release(&reply);
    close(fd);
    test_reply a, b;
    test_call(&test_shared, "GET", "/v1/models/from/parameters/fc.weight", NULL, 200, &a);
    test_call(&test_shared, "GET", "/v1/models/to/parameters/fc.weight", NULL, 200, &b);
    assert_string_equal(a.body, b.body);
    test_reply_release(&a);
    test_reply_release(&b);
    test_reply_release(&dict);
}

static void a_kept_graph_outlives_its_request(void **state) {
    (void)state;
    test_create_small(&test_shared, "kept");
    test_create_small(&test_shared, "other");
    test_expect(&test_shared, "POST", "/v1/models/kept/forward", "{'input': [[1, 2, 3, 4]]}", 200, "output");
    test_expect(&test_shared, "POST", "/v1/models/kept/loss", "{'target': [1]}", 200, "loss");
    for (int i = 0; i < 20; i++) { /* reuse whatever memory the request had */
        test_expect(&test_shared, "POST", "/v1/models/other/train_step", BATCH, 200, "loss");
        test_expect(&test_shared, "POST", "/v1/models/kept/predict", "{'input': [[9, 9, 9, 9]]}", 200,
                    "output");
        test_expect(&test_shared, "POST", "/v1/models/kept/forward", "{'input': [[9, 9, 9]]}", 400, "shape");
    }
    test_expect(&test_shared, "POST", "/v1/models/kept/backward", NULL, 200, "grad_norm");
    /* dL/dW of one sample is (p - onehot) x^T: columns in proportion 1 : 2 : 3 : 4 */
    test_reply reply;
    test_call(&test_shared, "GET", "/v1/models/kept/parameters/fc.weight/grad", NULL, 200, &reply);
    json_t *json = json_loads(reply.body, 0, NULL);
    json_t *row = json_array_get(json_object_get(json, "data"), 0);
    double one = json_number_value(json_array_get(row, 0)), four = json_number_value(json_array_get(row, 3));
    assert_true(one != 0 && four / one > 3.999 && four / one < 4.001);
    json_decref(json);
    test_reply_release(&reply);
}

static void the_digits_can_be_read(void **state) {
    (void)state;
    test_expect(&test_shared, "GET", "/v1/datasets/digits", NULL, 200, "\"shape\":[10000,28,28]");
    test_expect(&test_shared, "GET", "/v1/datasets/digits/test/target?offset=1999&limit=5", NULL, 200,
                "\"shape\": [1]");
    test_expect(&test_shared, "GET", "/v1/datasets/digits/train/input?limit=2", NULL, 200,
                "\"shape\": [2, 28, 28]");
    test_expect(&test_shared, "GET", "/v1/datasets/digits/train/inputs", NULL, 404, "train/input");
    test_expect(&test_shared, "GET", "/v1/datasets/mnist", NULL, 404, "mnist");
}

static void every_page_answers(void **state) {
    (void)state;
    static const char *const paths[] = {
        "/",          "/docs",          "/openapi.json",  "/metrics",         "/v1/version", "/v1/ops",
        "/v1/losses", "/v1/optimizers", "/v1/schedulers", "/v1/initializers", "/v1/datasets"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        test_expect(&test_shared, "GET", paths[i], NULL, 200, "");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_is_created_shown_listed_and_deleted),
        cmocka_unit_test(a_dry_run_answers_in_full_and_makes_nothing),
        cmocka_unit_test(a_dry_run_foresees_the_memory_of_a_step),
        cmocka_unit_test(a_bad_definition_names_the_place),
        cmocka_unit_test(lists_come_in_pages),
        cmocka_unit_test(a_step_goes_from_forward_to_step),
        cmocka_unit_test(bad_batches_change_nothing),
        cmocka_unit_test(a_nan_loss_is_a_string),
        cmocka_unit_test(etags_guard_changes),
        cmocka_unit_test(what_a_model_shows_follows_every_change),
        cmocka_unit_test(hyperparameters_change_together_or_not_at_all),
        cmocka_unit_test(a_parameter_goes_in_and_out_in_every_encoding),
        cmocka_unit_test(a_state_dict_is_loaded_whole_or_not_at_all),
        cmocka_unit_test(a_kept_graph_outlives_its_request),
        cmocka_unit_test(the_digits_can_be_read),
        cmocka_unit_test(every_page_answers),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
