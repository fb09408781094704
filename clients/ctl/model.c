/* model.c -- gradctl model ..., health, version. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "output.h"

enum { MAX_DEFINITION = 16 << 20 /* bytes */ };

int ctl_definition_read(const char *path, const ctl_options *options, char **ret_json) {
    int status = CTL_OK;
    char *text = NULL;
    size_t size = 0;
    json_t *json = NULL;
    json_error_t why;
    status = ctl_file_read(path, MAX_DEFINITION, &text, &size);
    if (status) {
        return status;
    }
    json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(json)) {
        status = json ? ctl_error("%s: a model's definition is a JSON object", path)
                      : ctl_error("%s:%d:%d: %s", path, why.line, why.column, why.text);
        goto out;
    }
    if (!options->name && isnan(options->lr)) {
        *ret_json = text; /* as it is, to the last digit */
        text = NULL;
        goto out;
    }
    if (options->name) {
        json_object_set_new(json, "name", json_string(options->name));
    }
    if (!isnan(options->lr)) {
        json_t *optimizer = json_object_get(json, "optimizer");
        if (!json_is_object(optimizer)) {
            status = ctl_error("--lr: %s has no \"optimizer\" to set it in", path);
            goto out;
        }
        json_object_set_new(optimizer, "lr", json_real(options->lr));
    }
    *ret_json = json_dumps(json, 0);
    if (!*ret_json) {
        status = ctl_error("no memory for %s (or --name is not UTF-8)", path);
    }
out:
    json_decref(json);
    free(text);
    return status;
}

/* ---- printing models ------------------------------------------------------------------------------ */

enum { COLUMNS = 7, CELL = GRADD_MAX_NAME };

static void info_cells(const gradd_model_info *info, char (*cells)[CELL]) {
    snprintf(cells[0], CELL, "%s", info->name);
    snprintf(cells[1], CELL, "%s", info->class_name);
    const int64_t numbers[] = {info->step, info->parameter_count, info->parameter_numel, info->memory_bytes};
    for (size_t i = 0; i < 4; i++) {
        if (numbers[i] >= 0) {
            snprintf(cells[2 + i], CELL, "%" PRId64, numbers[i]);
        }
    }
    snprintf(cells[6], CELL, "%s", info->created_at);
}

static int print_rows(ctl_output output, const gradd_model_info *items, size_t count) {
    static const char *const heading[COLUMNS] = {"NAME",   "CLASS",  "STEP",   "PARAMETERS",
                                                 "VALUES", "MEMORY", "CREATED"};
    static const char *const csv_heading[COLUMNS] = {"name",  "class_name",   "step",      "parameters",
                                                     "numel", "memory_bytes", "created_at"};
    char(*text)[CELL] = calloc(count + 1, COLUMNS * sizeof *text);
    const char **cells = calloc(count + 1, COLUMNS * sizeof *cells);
    if (!text || !cells) {
        free(text);
        free(cells);
        return ctl_error("out of memory");
    }
    memcpy(cells, output == CTL_CSV ? csv_heading : heading, sizeof heading);
    for (size_t i = 0; i < count; i++) {
        info_cells(&items[i], text + i * COLUMNS);
    }
    for (size_t i = 0; i < count * COLUMNS; i++) {
        cells[COLUMNS + i] = text[i];
    }
    (output == CTL_CSV ? ctl_print_csv : ctl_print_table)(stdout, cells, count + 1, COLUMNS);
    free(cells);
    free(text);
    return CTL_OK;
}

static int print_models(ctl_output output, const gradd_model_info *items, size_t count, bool list) {
    switch (output) {
    case CTL_JSON:
        for (size_t i = 0; i < count; i++) {
            printf("%s%s", list ? i ? ",\n" : "[" : "", items[i].json);
        }
        puts(list ? count ? "]" : "[]" : "");
        return CTL_OK;
    case CTL_NAME:
        for (size_t i = 0; i < count; i++) {
            puts(items[i].name);
        }
        return CTL_OK;
    default:
        return print_rows(output, items, count);
    }
}

/* ---- commands ------------------------------------------------------------------------------------- */

int ctl_model_create(gradd_client *client, const ctl_options *options) {
    gradd_model_info info;
    gradd_error error;
    char *json = NULL;
    int status = ctl_definition_read(options->argument, options, &json);
    if (status) {
        return status;
    }
    if (gradd_model_create(client, json, &info, &error)) {
        status = ctl_call_error(&error);
        if (strcmp(error.problem, "name_taken") == 0) {
            ctl_say("delete that model with `gradctl model rm NAME`, or choose another name with --name");
        }
    } else {
        status = print_models(options->output, &info, 1, false);
        gradd_model_info_free(&info);
    }
    free(json);
    return status;
}

int ctl_model_ls(gradd_client *client, const ctl_options *options) {
    gradd_model_list list;
    gradd_error error;
    if (gradd_model_list_all(client, &list, &error)) {
        return ctl_call_error(&error);
    }
    int status = print_models(options->output, list.items, list.count, true);
    gradd_model_list_free(&list);
    return status;
}

int ctl_model_show(gradd_client *client, const ctl_options *options) {
    gradd_model_info info;
    gradd_error error;
    int status = CTL_OK;
    if (gradd_model_show(client, options->argument, &info, &error)) {
        return ctl_call_error(&error);
    }
    if (options->output == CTL_TABLE && info.repr) {
        puts(info.repr);
    } else {
        status = print_models(options->output, &info, 1, false);
    }
    gradd_model_info_free(&info);
    return status;
}

int ctl_model_rm(gradd_client *client, const ctl_options *options) {
    gradd_error error;
    if (gradd_model_delete(client, options->argument, options->force, &error)) {
        return ctl_call_error(&error);
    }
    if (options->output == CTL_NAME) {
        puts(options->argument);
    } else {
        ctl_say("deleted %s", options->argument);
    }
    return CTL_OK;
}

int ctl_model_scheduler_step(gradd_client *client, const ctl_options *options) {
    gradd_schedule_result result;
    gradd_error error;
    const double *metric = isnan(options->metric) ? NULL : &options->metric;
    if (gradd_model_scheduler_step(client, options->argument, metric, &result, &error)) {
        return ctl_call_error(&error);
    }
    switch (options->output) {
    case CTL_JSON:
        printf("{\"epoch\": %" PRId64 ", \"lr\": %.17g}\n", result.epoch, result.lr);
        break;
    case CTL_CSV:
        printf("epoch,lr\n%" PRId64 ",%.17g\n", result.epoch, result.lr);
        break;
    case CTL_NAME:
        puts(options->argument);
        break;
    default:
        printf("epoch %" PRId64 ": learning rate %g\n", result.epoch, result.lr);
    }
    return CTL_OK;
}

int ctl_health(gradd_client *client, const ctl_options *options) {
    gradd_error error;
    if (gradd_server_ready(client, &error)) {
        return ctl_call_error(&error);
    }
    puts(options->output == CTL_JSON ? "{\"status\": \"ok\"}" : "ok");
    return CTL_OK;
}

int ctl_version(gradd_client *client, const ctl_options *options) {
    gradd_error error;
    char *text = NULL;
    bool json = options->output == CTL_JSON;
    if (!json) {
        printf("gradctl %s\n", gradd_version());
        fflush(stdout);
    }
    if (gradd_server_version(client, &text, &error)) {
        return ctl_call_error(&error);
    }
    json_t *server = json_loads(text, 0, NULL);
    if (json) {
        printf("{\"gradctl\": \"%s\", \"gradd\": %s}\n", gradd_version(), text);
    } else {
        const char *version = json_string_value(json_object_get(server, "version"));
        printf("gradd %s at %s\n", version ? version : "of unknown version", gradd_client_server(client));
    }
    json_decref(server);
    gradd_free(text);
    return CTL_OK;
}
