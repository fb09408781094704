/* checkpoint.c -- gradctl checkpoint ..., model export and import. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "output.h"

static void row(ctl_table *table, const void *item) {
    const gradd_checkpoint_info *c = item;
    ctl_table_cell(table, "%s", c->name);
    ctl_table_cell(table, "%s%s", c->kind, c->damaged ? ", damaged" : "");
    ctl_table_cell(table, "%" PRId64, c->step);
    if (c->job >= 0) {
        ctl_table_cell(table, "%" PRId64, c->job);
    } else {
        ctl_table_cell(table, "%s", "");
    }
    ctl_table_cell(table, "%" PRId64, c->bytes);
    ctl_table_cell(table, "%s", c->created_at);
    ctl_table_cell(table, "%s", c->note);
}

static void name(const void *item) {
    puts(((const gradd_checkpoint_info *)item)->name);
}

static int print(const gradd_checkpoint_info *items, size_t count, ctl_output output, bool list) {
    const ctl_listing listing = {.items = items,
                                 .count = count,
                                 .size = sizeof *items,
                                 .json = offsetof(gradd_checkpoint_info, json),
                                 .heading = "name kind step job bytes created_at note",
                                 .row = row,
                                 .name = name};
    return ctl_print_listing(&listing, output, list);
}

int ctl_checkpoint_create(gradd_client *client, const ctl_options *options) {
    gradd_checkpoint_info info;
    gradd_error error;
    if (gradd_checkpoint_create(client, options->words[0], options->words[1], options->note, &info, &error)) {
        return ctl_call_error(&error);
    }
    int status = print(&info, 1, options->output, false);
    gradd_checkpoint_info_free(&info);
    return status;
}

int ctl_checkpoint_ls(gradd_client *client, const ctl_options *options) {
    gradd_checkpoint_list list;
    gradd_error error;
    if (gradd_checkpoint_list_all(client, options->argument, &list, &error)) {
        return ctl_call_error(&error);
    }
    int status = print(list.items, list.count, options->output, true);
    gradd_checkpoint_list_free(&list);
    return status;
}

int ctl_checkpoint_get(gradd_client *client, const ctl_options *options) {
    char path[512];
    gradd_error error;
    snprintf(path, sizeof path, "%s.safetensors", options->words[1]);
    const gradd_file file = {.path = options->words[2] ? options->words[2] : path};
    if (gradd_checkpoint_download(client, options->words[0], options->words[1], &file, &error)) {
        return ctl_call_error(&error);
    }
    puts(file.path);
    return CTL_OK;
}

int ctl_checkpoint_restore(gradd_client *client, const ctl_options *options) {
    gradd_model_info info;
    gradd_error error;
    if (gradd_checkpoint_restore(client, options->words[0], options->words[1], &info, &error)) {
        return ctl_call_error(&error);
    }
    if (options->output == CTL_JSON) {
        puts(info.json);
    } else {
        printf("%s is at step %" PRId64 "\n", info.name, info.step);
    }
    gradd_model_info_free(&info);
    return CTL_OK;
}

int ctl_checkpoint_rm(gradd_client *client, const ctl_options *options) {
    gradd_error error;
    if (gradd_checkpoint_delete(client, options->words[0], options->words[1], &error)) {
        return ctl_call_error(&error);
    }
    if (options->output == CTL_NAME) {
        puts(options->words[1]);
    } else {
        ctl_say("deleted %s/%s", options->words[0], options->words[1]);
    }
    return CTL_OK;
}

int ctl_checkpoint_clone(gradd_client *client, const ctl_options *options) {
    gradd_model_info info;
    gradd_error error;
    if (gradd_model_create_from(client, options->words[2], options->words[0], options->words[1], &info,
                                &error)) {
        return ctl_call_error(&error);
    }
    puts(options->output == CTL_JSON ? info.json : info.name);
    gradd_model_info_free(&info);
    return CTL_OK;
}

/* ---- weights to and from a file --------------------------------------------------------------------- */

int ctl_model_export(gradd_client *client, const ctl_options *options) {
    gradd_error error;
    const gradd_file file = {.path = options->words[1]};
    if (gradd_state_dict_download(client, options->words[0], &file, &error)) {
        return ctl_call_error(&error);
    }
    puts(file.path);
    return CTL_OK;
}

int ctl_model_import(gradd_client *client, const ctl_options *options) {
    gradd_error error;
    char *json = NULL;
    const gradd_file file = {.path = options->words[1]};
    if (gradd_state_dict_upload(client, options->words[0], &file, !options->partial, &json, &error)) {
        return ctl_call_error(&error);
    }
    if (options->output == CTL_JSON || options->partial) {
        puts(json);
    } else {
        ctl_say("%s has the weights of %s", options->words[0], options->words[1]);
    }
    gradd_free(json);
    return CTL_OK;
}
