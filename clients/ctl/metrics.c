/* metrics.c -- gradctl metrics get and plot. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ctl.h"
#include "output.h"
#include "plot.h"

enum { MAX_POINTS = 1000 };

/* A number, or NaN for what stands for one that JSON does not have. */
static double number(const json_t *json) {
    return json_is_number(json) ? json_number_value(json) : NAN;
}

static int get(gradd_client *client, const ctl_options *options, const char *keys, json_t **ret_json,
               char **ret_text) {
    gradd_error error;
    char points[24];
    snprintf(points, sizeof points, "%d", MAX_POINTS);
    const gradd_option query[] = {{"max_points", points}, {keys ? "keys" : NULL, keys}, {NULL, NULL}};
    if (gradd_model_metrics(client, options->argument, query, ret_text, &error)) {
        return ctl_call_error(&error);
    }
    *ret_json = json_loads(*ret_text, 0, NULL);
    return *ret_json ? CTL_OK : ctl_error("the daemon's metrics are no JSON");
}

/* ---- get -------------------------------------------------------------------------------------------- */

static int print_summary(const json_t *json, ctl_output output) {
    ctl_table table = {0};
    const char *key;
    json_t *series;
    ctl_table_heading(&table, "key values first_step last_step min max last");
    json_object_foreach((json_t *)(uintptr_t)json_object_get(json, "series"), key, series) {
        const json_t *steps = json_object_get(series, "step");
        const size_t count = json_array_size(steps);
        double values = 0, least = NAN, most = NAN;
        if (!count) {
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            values += number(json_array_get(json_object_get(series, "count"), i));
            least = fmin(least, number(json_array_get(json_object_get(series, "min"), i)));
            most = fmax(most, number(json_array_get(json_object_get(series, "max"), i)));
        }
        ctl_table_cell(&table, "%s", key);
        ctl_table_cell(&table, "%.0f", values);
        ctl_table_cell(&table, "%.0f", number(json_array_get(steps, 0)));
        ctl_table_cell(&table, "%.0f", number(json_array_get(steps, count - 1)));
        ctl_table_cell(&table, "%.6g", least);
        ctl_table_cell(&table, "%.6g", most);
        ctl_table_cell(&table, "%.6g", number(json_array_get(json_object_get(series, "last"), count - 1)));
    }
    return ctl_table_print(&table, output);
}

static void print_keys(const json_t *json) {
    const char *key;
    json_t *series;
    json_object_foreach((json_t *)(uintptr_t)json_object_get(json, "series"), key, series) {
        puts(key);
    }
}

int ctl_metrics_get(gradd_client *client, const ctl_options *options) {
    gradd_error error;
    json_t *json = NULL;
    char *text = NULL;
    if (options->output == CTL_CSV) { /* all of it, whatever its size */
        const gradd_file out = {.fd = STDOUT_FILENO};
        const gradd_option query[] = {{options->keys ? "keys" : NULL, options->keys}, {NULL, NULL}};
        return gradd_model_metrics_csv(client, options->argument, query, &out, &error)
                   ? ctl_call_error(&error)
                   : CTL_OK;
    }
    int status = get(client, options, options->keys, &json, &text);
    if (!status && options->output == CTL_JSON) {
        puts(text);
    } else if (!status && options->output == CTL_NAME) {
        print_keys(json);
    } else if (!status) {
        status = print_summary(json, options->output);
    }
    json_decref(json);
    gradd_free(text);
    return status;
}

/* ---- plot ------------------------------------------------------------------------------------------- */

/* The terminal's size, or 80 x 24. */
static void terminal_size(int *ret_columns, int *ret_rows) {
    struct winsize window = {0};
    const char *columns = getenv("COLUMNS");
    *ret_columns = columns ? (int)strtol(columns, NULL, 10) : 80;
    *ret_rows = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col && window.ws_row) {
        *ret_columns = window.ws_col;
        *ret_rows = window.ws_row;
    }
}

static int plot(const json_t *series, const char *title) {
    const json_t *steps = json_object_get(series, "step"), *means = json_object_get(series, "mean");
    const size_t count = json_array_size(steps);
    double *points = calloc(count + 1, 2 * sizeof *points);
    if (!points) {
        return ctl_error("out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        points[i] = number(json_array_get(steps, i));
        points[count + i] = number(json_array_get(means, i));
    }
    ctl_plot p = {.title = title, .x = points, .y = points + count, .count = count};
    terminal_size(&p.columns, &p.rows);
    p.rows = p.rows > 24 ? 24 : p.rows - 1;
    const bool any = ctl_plot_draw(stdout, &p);
    free(points);
    return any ? CTL_OK : ctl_error("there is nothing to draw: %s has no value yet", title);
}

int ctl_metrics_plot(gradd_client *client, const ctl_options *options) {
    json_t *json = NULL;
    char *text = NULL, title[256];
    const char *key = options->key ? options->key : "loss";
    int status = get(client, options, key, &json, &text);
    snprintf(title, sizeof title, "%s of %s, by step", key, options->argument);
    if (!status) {
        status = plot(json_object_get(json_object_get(json, "series"), key), title);
    }
    json_decref(json);
    gradd_free(text);
    return status;
}
