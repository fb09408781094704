/* heads_test.c -- networks of several outputs and losses of several terms over HTTP: targets, outputs and
 * gradients by name, in JSON and safetensors; and losses that take no target. */
#include "tests/support.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "tests/http.h"

#define TENSORS "application/x-safetensors"
#define LAYERS \
    "'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'name': 'code', 'out_features': 3}, " \
    "{'type': 'Linear', 'name': 'logits', 'out_features': 2}, " \
    "{'type': 'Linear', 'name': 'decoder', 'inputs': ['code'], 'out_features': 4}]"
#define TERMS \
    "[{'type': 'CrossEntropyLoss', 'output': 'logits', 'target': 'label'}, " \
    "{'type': 'MSELoss', 'output': 'image', 'weight': 0.1}]"
#define HEADS \
    LAYERS ", 'outputs': {'logits': 'logits', 'image': 'decoder'}, 'loss': " TERMS \
           ", 'optimizer': {'type': 'SGD', 'lr': 0.1}"
#define X "[[1, 2, 3, 4], [4, 3, 2, 1]]"
#define BATCH \
    "{'input': " X \
    ", 'target': {'label': [0, 1], 'image': " X \
    "}}"

static void create(const char *name, const char *rest) {
    char json[2048];
    snprintf(json, sizeof json, "{'name': '%s', 'seed': 3, %s}", name, rest);
    test_expect(&test_shared, "POST", "/v1/models", json, 201, name);
}

/* One request of /v1/models/NAME/ACTION, JSON in and out. @return the reply */
static json_t *post(const char *name, const char *action, const char *json, int status) {
    char path[128];
    test_reply reply;
    snprintf(path, sizeof path, "/v1/models/%s/%s", name, action);
    test_call(&test_shared, "POST", path, json, status, &reply);
    json_t *result = json_loads(reply.body, 0, NULL);
    assert_non_null(result);
    test_reply_release(&reply);
    return result;
}

static double number(const json_t *json, const char *name) {
    assert_true(json_is_number(json_object_get(json, name)));
    return json_number_value(json_object_get(json, name));
}

static const float x[8] = {1, 2, 3, 4, 4, 3, 2, 1};
static const int64_t label[2] = {0, 1};

/* The same batch as safetensors, the targets under these names (NULL: left out). free() it */
static char *tensors(const char *label_name, const char *image_name, size_t *ret_size) {
    gp_named_array arrays[3] = {{.name = "input"}};
    size_t count = 1;
    arrays[0].array = (gp_array){.dtype = GP_FLOAT32, .rank = 2, .dim = {2, 4}, .data = x, .size = sizeof x};
    if (image_name) {
        arrays[count].array = arrays[0].array;
        snprintf(arrays[count++].name, GP_MAX_NAME, "%s", image_name);
    }
    if (label_name) {
        arrays[count].array =
            (gp_array){.dtype = GP_INT64, .rank = 1, .dim = {2}, .data = label, .size = sizeof label};
        snprintf(arrays[count++].name, GP_MAX_NAME, "%s", label_name);
    }
    size_t used = gp_safetensors_header_size(arrays, count, NULL);
    char *body = malloc(used + 2 * sizeof x + sizeof label);
    assert_non_null(body);
    gp_safetensors_write_header(arrays, count, NULL, body);
    for (size_t i = 0; i < count; i++) {
        memcpy(body + used, arrays[i].array.data, arrays[i].array.size);
        used += arrays[i].array.size;
    }
    *ret_size = used;
    return body;
}

static void send_tensors(const char *name, const char *action, const char *accept, const char *label_name,
                         const char *image_name, int status, test_reply *ret_reply) {
    char path[128], headers[256];
    size_t size;
    char *body = tensors(label_name, image_name, &size);
    snprintf(path, sizeof path, "/v1/models/%s/%s", name, action);
    snprintf(headers, sizeof headers, "Content-Type: " TENSORS "\r\nAccept: %s, application/problem+json\r\n",
             accept);
    int fd = test_connect(test_shared.port);
    test_request(fd, "POST", path, headers, body, size, ret_reply);
    close(fd);
    free(body);
    if (ret_reply->status != status) {
        fail_msg("%s: %d, not %d: %s", path, ret_reply->status, status, ret_reply->body);
    }
}

static double loss_of_tensors(const char *name, const char *action, const char *label_name,
                              const char *image_name) {
    test_reply reply;
    send_tensors(name, action, "application/json", label_name, image_name, 200, &reply);
    json_t *json = json_loads(reply.body, 0, NULL);
    const double loss = number(json, "loss");
    json_decref(json);
    test_reply_release(&reply);
    return loss;
}

/* ---- several targets ---------------------------------------------------------------------------------- */

static void a_step_tells_the_total_and_its_terms(void **state) {
    (void)state;
    create("steps", HEADS);
    static const char *const actions[] = {"evaluate", "forward_backward", "train_step"};
    double first = 0;
    for (size_t i = 0; i < 3; i++) { /* none of them has changed the parameters before it */
        json_t *reply = post("steps", actions[i], BATCH, 200);
        const json_t *losses = json_object_get(reply, "losses");
        assert_int_equal(json_array_size(losses), 2);
        const double loss = number(reply, "loss"), a = json_number_value(json_array_get(losses, 0)),
                     b = json_number_value(json_array_get(losses, 1));
        assert_true(a > 0 && b > 0 && fabs(loss - (a + 0.1 * b)) < 1e-5);
        assert_true(i == 0 || loss == first);
        assert_int_equal(number(reply, "count"), 2);
        assert_true(json_is_integer(json_object_get(reply, "correct"))); /* of the first term */
        first = loss;
        json_decref(reply);
    }
    json_t *after = post("steps", "evaluate", BATCH, 200);
    assert_true(number(after, "loss") < first);
    json_decref(after);
}

static void safetensors_name_the_targets(void **state) {
    (void)state;
    create("named", HEADS);
    json_t *reply = post("named", "evaluate", BATCH, 200);
    const double loss = number(reply, "loss");
    assert_true(loss_of_tensors("named", "evaluate", "label", "image") == loss);
    assert_true(loss_of_tensors("named", "forward_backward", "target.label", "target.image") == loss);
    assert_true(loss_of_tensors("named", "train_step", "label", "target.image") == loss);
    json_decref(reply);
    test_reply bad;
    send_tensors("named", "train_step", "application/json", "label", NULL, 400, &bad);
    assert_non_null(strstr(bad.body, "/target/image"));
    test_reply_release(&bad);
    send_tensors("named", "train_step", "application/json", "lable", "image", 400, &bad);
    assert_non_null(strstr(bad.body, "lable"));
    test_reply_release(&bad);
}

static void outputs_come_by_name(void **state) {
    (void)state;
    create("outs", HEADS);
    static const char *const actions[] = {"forward", "predict"};
    for (size_t i = 0; i < 2; i++) {
        json_t *all = post("outs", actions[i], "{'input': " X "}", 200);
        json_t *one = post("outs", actions[i], "{'input': " X ", 'output': 'image'}", 200);
        assert_null(json_object_get(all, "output"));
        const json_t *outputs = json_object_get(all, "outputs");
        assert_int_equal(json_object_size(outputs), 2);
        assert_true(json_equal(json_object_get(outputs, "image"), json_object_get(one, "output")));
        if (i == 0)
            assert_string_equal(json_string_value(json_object_get(json_object_get(all, "grad_fn"), "logits")),
                                "AddmmBackward0");
        json_decref(all);
        json_decref(one);
        test_reply reply;
        gp_safetensors read;
        send_tensors("outs", actions[i], TENSORS, NULL, NULL, 200, &reply);
        assert_int_equal(gp_safetensors_read(reply.body, reply.size, 0, &read, NULL), 0);
        assert_int_equal(read.count, 2);
        assert_int_equal(gp_safetensors_find(&read, "logits")->dim[1], 2);
        assert_int_equal(gp_safetensors_find(&read, "image")->dim[1], 4);
        gp_safetensors_release(&read);
        test_reply_release(&reply);
        send_tensors("outs", actions[i], "application/x-npy", NULL, NULL, 406, &reply);
        assert_non_null(strstr(reply.body, "2 outputs"));
        test_reply_release(&reply);
    }
    test_reply reply;
    send_tensors("outs", "predict?output=image", "application/x-npy", NULL, NULL, 200, &reply);
    test_reply_release(&reply);
    test_expect(&test_shared, "POST", "/v1/models/outs/predict", "{'input': " X ", 'output': 'imag'}", 400,
                "logits");
}

static void gradients_go_in_by_name(void **state) {
    (void)state;
    create("grads", HEADS);
    test_expect(&test_shared, "POST", "/v1/models/grads/forward", "{'input': " X "}", 200, "outputs");
    test_expect(&test_shared, "POST", "/v1/models/grads/backward", "{'gradient': [[1, 0], [0, 1]]}", 400,
                "there are 2 tensors to give");
    test_expect(&test_shared, "POST", "/v1/models/grads/backward", "{'gradient': {'imag': [[1, 0], [0, 1]]}}",
                400, "imag");
    test_expect(&test_shared, "POST", "/v1/models/grads/backward",
                "{'gradient': {'logits': [[1, 0], [0, 1]]}}", 200, "grad_norm");
    test_expect(&test_shared, "GET", "/v1/models/grads/parameters/logits.bias/grad", NULL, 200,
                "\"data\": [1,1]");
    test_expect(&test_shared, "GET", "/v1/models/grads/parameters/decoder.bias/grad", NULL, 404,
                "no_gradient");
}

static void a_loss_of_terms_is_shown_changed_and_given_for_once(void **state) {
    (void)state;
    create("shown", HEADS);
    test_expect(&test_shared, "GET", "/v1/models/shown", NULL, 200,
                "\"outputs\":{\"logits\":{\"layer\":\"logits\",\"shape\":[2],\"dtype\":\"float32\"},"
                "\"image\":{\"layer\":\"decoder\"");
    test_expect(&test_shared, "GET", "/v1/models/shown", NULL, 200,
                "\"output\":\"image\",\"target\":\"image\",\"weight\":0.1");
    json_t *once =
        post("shown", "train_step",
             "{'target': {'code': [1, 0]}, 'loss': [{'type': 'NLLLoss', 'output': 'logits', 'target': "
             "'code'}, {'type': 'L1Loss', 'output': 'image', 'target': '@input', 'weight': 2}], "
             "'input': " X "}",
             200); /* the targets before the loss that says their names */
    assert_int_equal(json_array_size(json_object_get(once, "losses")), 2);
    json_decref(once);
    test_expect(&test_shared, "PATCH", "/v1/models/shown",
                "{'loss': {'type': 'MSELoss', 'output': 'image', 'target': '@input'}}", 200,
                "\"target\":\"@input\"");
    json_t *alone = post("shown", "train_step", "{'input': " X "}", 200); /* no second copy of the input */
    assert_null(json_object_get(alone, "losses"));
    json_decref(alone);
    test_expect(&test_shared, "PATCH", "/v1/models/shown",
                "{'loss': [{'type': 'MSELoss', 'output': 'image'}, {'type': 'MSELoss', 'output': 'logit'}]}",
                400, "\"pointer\": \"/loss/1/output\"");
    test_expect(&test_shared, "GET", "/v1/models/shown", NULL, 200, "\"target\":\"@input\"");
}

static void bad_targets_change_nothing(void **state) {
    (void)state;
    create("bad", HEADS);
    static const struct {
        const char *target, *part;
    } bad[] = {
        {"[0, 1]", "there are 2 tensors to give"},
        {"{'label': [0, 1]}", "/target/image"},
        {"{'label': [0, 1], 'image': " X ", 'more': [1]}", "more"},
        {"{'label': [0, 1], 'label': [0, 1]}", "given twice"},
        {"{'label': [0, 2], 'image': " X "}", "term 1 of the loss"},
        {"{'label': [0, 1], 'image': [[1, 2], [3, 4]]}", "term 2 of the loss"},
        {"{'label': [0, 1], 'image': [[1, 2, 3, 4], [1]]}", "/target/image"},
        {"{'label': [0, 1], 'image': }", "invalid_json"},
        {"{'label' [0, 1]}", "':' is expected"},
        {"{'label': [0, 1]", "invalid_json"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[512];
        snprintf(json, sizeof json, "{'input': " X ", 'target': %s}", bad[i].target);
        test_expect(&test_shared, "POST", "/v1/models/bad/train_step", json, 400, bad[i].part);
    }
    test_expect(&test_shared, "GET", "/v1/models/bad", NULL, 200, "\"step\":0");
}

static void one_target_may_be_called_by_its_name_or_not(void **state) {
    (void)state;
    create("single",
           LAYERS ", 'outputs': ['logits'], 'loss': {'type': 'CrossEntropyLoss', 'target': 'label'}, "
                  "'optimizer': {'type': 'SGD', 'lr': 0}");
    json_t *reply = post("single", "train_step", "{'input': " X ", 'target': [0, 1]}", 200);
    const double loss = number(reply, "loss");
    json_decref(reply);
    static const char *const forms[] = {"{'label': [0, 1]}", "{'data': [0, 1]}",
                                        "{'label': {'shape': [2], 'data': [0, 1]}}"};
    for (size_t i = 0; i < 3; i++) {
        char json[256];
        snprintf(json, sizeof json, "{'input': " X ", 'target': %s}", forms[i]);
        reply = post("single", "train_step", json, 200);
        assert_true(number(reply, "loss") == loss);
        json_decref(reply);
    }
    assert_true(loss_of_tensors("single", "train_step", "label", NULL) == loss);
    assert_true(loss_of_tensors("single", "train_step", "target", NULL) == loss);
}

/* ---- no target -------------------------------------------------------------------------------------------
 */

static void a_loss_that_takes_no_target_gets_none(void **state) {
    (void)state;
    create("triplet",
           "'input': {'shape': [4]}, 'layers': [{'type': 'Linear', 'out_features': 6}, {'type': 'view', "
           "'shape': [-1, 3, 2]}], 'loss': {'type': 'TripletMarginLoss'}, "
           "'optimizer': {'type': 'SGD', 'lr': 0}");
    static const char *const actions[] = {"train_step", "forward_backward", "evaluate"};
    double loss = -1;
    for (size_t i = 0; i < 3; i++) {
        json_t *reply = post("triplet", actions[i], "{'input': " X "}", 200);
        assert_true(loss < 0 || number(reply, "loss") == loss);
        loss = number(reply, "loss");
        assert_null(json_object_get(reply, "correct"));
        assert_true(loss_of_tensors("triplet", actions[i], NULL, NULL) == loss);
        json_decref(reply);
    }
    test_expect(&test_shared, "POST", "/v1/models/triplet/forward", "{'input': " X "}", 200, "output");
    json_t *reply = post("triplet", "loss", "{}", 200);
    assert_true(number(reply, "loss") == loss);
    json_decref(reply);
    create("wants", HEADS);
    test_expect(&test_shared, "POST", "/v1/models/wants/train_step", "{'input': " X "}", 400,
                "/target/label");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_tells_the_total_and_its_terms),
        cmocka_unit_test(safetensors_name_the_targets),
        cmocka_unit_test(outputs_come_by_name),
        cmocka_unit_test(gradients_go_in_by_name),
        cmocka_unit_test(a_loss_of_terms_is_shown_changed_and_given_for_once),
        cmocka_unit_test(bad_targets_change_nothing),
        cmocka_unit_test(one_target_may_be_called_by_its_name_or_not),
        cmocka_unit_test(a_loss_that_takes_no_target_gets_none),
    };
    return cmocka_run_group_tests(tests, test_shared_start, test_shared_stop);
}
