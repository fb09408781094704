/* steps.c -- running a model: forward, loss, backward, step, and the calls that join them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

static const gradd_field step_fields[] = {
    GRADD_FIELD(gradd_step_result, step, INT),
    GRADD_FIELD(gradd_step_result, loss, DOUBLE),
    GRADD_FIELD(gradd_step_result, lr, DOUBLE),
    GRADD_FIELD(gradd_step_result, grad_norm, DOUBLE),
    GRADD_FIELD(gradd_step_result, count, INT),
    GRADD_FIELD(gradd_step_result, correct, INT),
    GRADD_FIELD(gradd_step_result, parse_us, INT, .path = "timing_us.parse"),
    GRADD_FIELD(gradd_step_result, queue_us, INT, .path = "timing_us.queue"),
    GRADD_FIELD(gradd_step_result, compute_us, INT, .path = "timing_us.compute"),
    GRADD_FIELD(gradd_step_result, encode_us, INT, .path = "timing_us.encode"),
};

static const gradd_field loss_fields[] = {
    GRADD_FIELD(gradd_loss_result, loss, DOUBLE, .required = true),
    GRADD_FIELD(gradd_loss_result, grad_fn, TEXT),
};

static const gradd_field evaluation_fields[] = {
    GRADD_FIELD(gradd_evaluation, loss, DOUBLE, .required = true),
    GRADD_FIELD(gradd_evaluation, accuracy, DOUBLE),
    GRADD_FIELD(gradd_evaluation, count, INT, .required = true),
};

enum { MAX_TENSORS = 64 /* of a call with named ones */ };

/* What the body of a POST /v1/models/{model}/{action} is made of. */
typedef struct content {
    gradd_segment segment;
    void *memory;
} content;

/* Without tensors the body is an empty object. There is a body always, so that a request of which only
 * the head has left can't have been applied. */
static int prepare(gradd_request *request, content *c, const char *model, const char *action,
                   const gradd_named_tensor *tensors, size_t count, const gradd_option *options,
                   gradd_error *error) {
    gradd_request_model(request, "POST", model, action);
    gradd_request_options(request, options);
    if (!count) {
        gradd_request_json(request, &c->segment, "{}");
        return GRADD_OK;
    }
    return gradd_request_tensors(request, tensors, count, &c->memory, error);
}

/* Input and target (either may be NULL) as named tensors. @return how many */
static size_t name_tensors(const gradd_tensor *input, const gradd_tensor *target, gradd_named_tensor out[2]) {
    size_t count = 0;
    if (input) {
        out[count++] = (gradd_named_tensor){.name = "input", .tensor = *input};
    }
    if (target) {
        out[count++] = (gradd_named_tensor){.name = "target", .tensor = *target};
    }
    return count;
}

static int require(const gradd_tensor *tensor, const char *name, gradd_error *error) {
    return tensor ? GRADD_OK : gradd_fail(error, GRADD_E_ARGUMENT, "%s is NULL", name);
}

/* A call with input and target (as far as there are) that answers a record. */
static int call_for_record(gradd_client *client, const char *model, const char *action,
                           const gradd_tensor *input, const gradd_tensor *target, const gradd_option *options,
                           const gradd_field *fields, size_t field_count, void *record, gradd_error *error) {
    gradd_request request;
    content c = {.memory = NULL};
    gradd_named_tensor tensors[2];
    size_t count = name_tensors(input, target, tensors);
    int code = prepare(&request, &c, model, action, tensors, count, options, error);
    if (!code) {
        code = gradd_send_for_record(client, &request, fields, field_count, record, error);
        free(c.memory);
    }
    return code;
}

static int call_for_output(gradd_client *client, const char *model, const char *action,
                           const gradd_tensor *input, gradd_tensor *ret_output, gradd_error *error) {
    gradd_request request;
    content c = {.memory = NULL};
    gradd_named_tensor tensors[2];
    int code = require(input, "input", error);
    if (!code) {
        code = prepare(&request, &c, model, action, tensors, name_tensors(input, NULL, tensors), NULL, error);
    }
    if (!code) {
        code = gradd_send_for_tensor(client, &request, ret_output, error);
        free(c.memory);
    }
    return code;
}

static int call_for_step(gradd_client *client, const char *model, const char *action,
                         const gradd_tensor *input, const gradd_tensor *target, const gradd_option *options,
                         gradd_step_result *ret_result, gradd_error *error) {
    gradd_step_result result = {0};
    int code = call_for_record(client, model, action, input, target, options, step_fields, COUNT(step_fields),
                               &result, error);
    if (!code && ret_result) {
        *ret_result = result;
    }
    return code;
}

int gradd_model_forward(gradd_client *client, const char *model, const gradd_tensor *input,
                        gradd_tensor *ret_output, gradd_error *error) {
    return call_for_output(client, model, "forward", input, ret_output, error);
}

int gradd_model_predict(gradd_client *client, const char *model, const gradd_tensor *input,
                        gradd_tensor *ret_output, gradd_error *error) {
    return call_for_output(client, model, "predict", input, ret_output, error);
}

int gradd_model_loss(gradd_client *client, const char *model, const gradd_tensor *target,
                     const gradd_option *options, gradd_loss_result *ret_result, gradd_error *error) {
    gradd_loss_result result = {0};
    int code = call_for_record(client, model, "loss", NULL, target, options, loss_fields, COUNT(loss_fields),
                               &result, error);
    if (!code && ret_result) {
        *ret_result = result;
    }
    return code;
}

int gradd_model_backward(gradd_client *client, const char *model, const gradd_tensor *gradient,
                         bool retain_graph, double *ret_grad_norm, gradd_error *error) {
    static const gradd_field fields[] = {{.path = "grad_norm", .type = GRADD_FIELD_DOUBLE}};
    static const gradd_option retain[] = {{"retain_graph", "true"}, {NULL, NULL}};
    gradd_named_tensor tensor = {.name = "gradient"};
    double grad_norm;
    gradd_request request;
    content c = {.memory = NULL};
    if (gradient) {
        tensor.tensor = *gradient;
    }
    int code = prepare(&request, &c, model, "backward", &tensor, gradient ? 1 : 0,
                       retain_graph ? retain : NULL, error);
    if (!code) {
        code = gradd_send_for_record(client, &request, fields, COUNT(fields), &grad_norm, error);
        free(c.memory);
    }
    if (!code && ret_grad_norm) {
        *ret_grad_norm = grad_norm;
    }
    return code;
}

int gradd_model_zero_grad(gradd_client *client, const char *model, gradd_error *error) {
    gradd_request request;
    content c = {.memory = NULL};
    int code = prepare(&request, &c, model, "zero_grad", NULL, 0, NULL, error);
    return code ? code : gradd_send(client, &request, error);
}

int gradd_model_step(gradd_client *client, const char *model, const gradd_option *options,
                     gradd_step_result *ret_result, gradd_error *error) {
    return call_for_step(client, model, "step", NULL, NULL, options, ret_result, error);
}

/* What JSON has no number for is a string. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value)
                           : json_string(isnan(value) ? "NaN"
                                         : value > 0  ? "Infinity"
                                                      : "-Infinity");
}

int gradd_model_scheduler_step(gradd_client *client, const char *model, const double *metric,
                               gradd_schedule_result *ret_result, gradd_error *error) {
    static const gradd_field fields[] = {
        GRADD_FIELD(gradd_schedule_result, epoch, INT, .required = true),
        GRADD_FIELD(gradd_schedule_result, lr, DOUBLE, .required = true),
    };
    gradd_schedule_result result = {0};
    gradd_segment segment;
    json_t *body = json_object();
    if (metric) {
        json_object_set_new(body, "metric", number(*metric));
    }
    char *text = json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(body);
    if (!text) {
        return gradd_fail_memory(error);
    }
    gradd_request request = gradd_model_request("POST", model, "scheduler_step");
    gradd_request_json(&request, &segment, text);
    int code = gradd_send_for_record(client, &request, fields, COUNT(fields), &result, error);
    free(text);
    if (!code && ret_result) {
        *ret_result = result;
    }
    return code;
}

int gradd_model_forward_backward(gradd_client *client, const char *model, const gradd_tensor *input,
                                 const gradd_tensor *target, const gradd_option *options,
                                 gradd_step_result *ret_result, gradd_error *error) {
    int code = require(input, "input", error);
    return code ? code
                : call_for_step(client, model, "forward_backward", input, target, options, ret_result, error);
}

int gradd_model_train_step(gradd_client *client, const char *model, const gradd_tensor *input,
                           const gradd_tensor *target, const gradd_option *options,
                           gradd_step_result *ret_result, gradd_error *error) {
    int code = require(input, "input", error);
    return code ? code
                : call_for_step(client, model, "train_step", input, target, options, ret_result, error);
}

int gradd_model_evaluate(gradd_client *client, const char *model, const gradd_tensor *input,
                         const gradd_tensor *target, gradd_evaluation *ret_result, gradd_error *error) {
    gradd_evaluation result = {0};
    int code = require(input, "input", error);
    if (!code) {
        code = call_for_record(client, model, "evaluate", input, target, NULL, evaluation_fields,
                               COUNT(evaluation_fields), &result, error);
    }
    if (!code && ret_result) {
        *ret_result = result;
    }
    return code;
}

int gradd_model_run(gradd_client *client, const char *model, const char *action,
                    const gradd_named_tensor *inputs, size_t count, gradd_tensors *ret_outputs,
                    gradd_error *error) {
    gradd_request request;
    content c = {.memory = NULL};
    if (count < 1 || count > MAX_TENSORS || !inputs || !action || !*action) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "an action and 1 to %d inputs are needed", MAX_TENSORS);
    }
    int code = prepare(&request, &c, model, action, inputs, count, NULL, error);
    if (!code) {
        code = gradd_send_for_tensors(client, &request, ret_outputs, error);
        free(c.memory);
    }
    return code;
}

int gradd_model_post(gradd_client *client, const char *model, const char *action,
                     const gradd_named_tensor *tensors, size_t count, const gradd_option *options,
                     char **ret_json, gradd_error *error) {
    gradd_request request;
    content c = {.memory = NULL};
    if (count > MAX_TENSORS || (count && !tensors) || !action || !*action) {
        return gradd_fail(error, GRADD_E_ARGUMENT, "an action and at most %d tensors are needed",
                          MAX_TENSORS);
    }
    int code = prepare(&request, &c, model, action, tensors, count, options, error);
    if (!code) {
        code = gradd_send_for_text(client, &request, ret_json, error);
        free(c.memory);
    }
    return code;
}
