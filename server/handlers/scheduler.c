/* scheduler.c -- an epoch is over: the scheduler goes on to the next. */
#include <math.h>
#include <stdio.h>

#include "handlers.h"

/* {"metric": 0.25}; NaN is a metric too, and a string in JSON. *ret_given: whether there is one. */
static int read_metric(json_t *body, double *ret_metric, bool *ret_given, gp_error *error) {
    gp_kind_spec memory = {0};
    if (gs_check_members(body, "metric", error) ||
        (json_object_size(body) && gp_kind_spec_read(body, "", false, &memory, error))) {
        return -1;
    }
    int result = 0;
    *ret_given = memory.spec.field_count;
    if (*ret_given) {
        const gd_value *value = &memory.spec.fields[0].value;
        *ret_metric = value->kind == GD_VALUE_INT ? (double)value->integer : value->number;
        if (value->kind != GD_VALUE_INT && value->kind != GD_VALUE_FLOAT) {
            result = gp_fail(error, GP_INVALID_VALUE, "/metric", "metric must be a number");
        }
    }
    gp_kind_spec_release(&memory);
    return result;
}

int gs_handle_scheduler_step(gs_request *request, gp_error *error) {
    gd_model *model = request->model->model;
    json_t *body = NULL;
    gd_error cause = GD_ERROR_INIT;
    double metric = NAN;
    bool given = false;
    int result = gs_body_json(request, &body, error);
    if (!result) {
        result = read_metric(body, &metric, &given, error);
    }
    if (!result && gd_model_scheduler_step(model, given ? &metric : NULL, &cause)) {
        result = gp_fail_engine(error, &cause, "");
    }
    if (!result) {
        json_t *json = json_pack("{s:I, s:o}", "epoch", (json_int_t)gd_model_scheduler(model)->epoch, "lr",
                                 gp_json_number(gd_model_lr(model)));
        result = gs_reply_json(request, 200, json, error);
    }
    json_decref(body);
    return result;
}
