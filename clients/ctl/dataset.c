/* dataset.c -- gradctl data put, ls, show, rm. */
#include "dataset.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"
#include "progress.h"

/* ---- uploading ------------------------------------------------------------------------------------------
 */

static void draw(void *argument, int64_t done, int64_t total) {
    ctl_progress *progress = argument;
    progress->total = total;
    if (done < total) {
        ctl_progress_update(progress, done, 0, 0, ctl_now_ns());
    } else if (done) {
        ctl_progress_end(progress, done, 0, 0, ctl_now_ns());
    }
}

/* "[60000, 28, 28]" */
static void shape_text(const json_t *part, char *out, size_t size) {
    char *text = json_dumps(json_object_get(part, "shape"), 0);
    snprintf(out, size, "%s", text ? text : "");
    free(text);
}

static void say_part(const char *where, const char *name, const json_t *part) {
    char shape[128];
    const char *dtype = json_string_value(json_object_get(part, "dtype"));
    shape_text(part, shape, sizeof shape);
    printf("%s/%s: %s %s\n", where, name, dtype ? dtype : "", shape);
}

static void print_upload(const ctl_options *options, const char *dataset, const ctl_upload *upload,
                         const char *text) {
    char where[160];
    json_t *json = json_loads(text, 0, NULL);
    snprintf(where, sizeof where, "%s/%s", dataset, upload->split);
    if (options->output == CTL_JSON) {
        puts(text);
    } else if (upload->part) {
        say_part(where, upload->part, json);
    } else {
        say_part(where, "input", json_object_get(json, "input"));
        say_part(where, "target", json_object_get(json, "target"));
    }
    fflush(stdout);
    json_decref(json);
}

int ctl_upload_file(gradd_client *client, const ctl_options *options, const char *dataset,
                    const ctl_upload *upload) {
    ctl_progress progress;
    gradd_error error;
    char label[32], *text = NULL;
    snprintf(label, sizeof label, "%.20s/%s", upload->split, upload->part ? upload->part : "*");
    ctl_progress_open(&progress, options->progress);
    progress.bytes = true;
    progress.mode = progress.mode == CTL_PROGRESS_LINES ? CTL_PROGRESS_NONE : progress.mode;
    ctl_progress_begin(&progress, label, 0, ctl_now_ns());
    const gradd_file file = {.path = upload->path, .progress = draw, .argument = &progress};
    if (gradd_dataset_put(client, dataset, upload->split, upload->part, &file, &text, &error)) {
        return ctl_call_error(&error);
    }
    print_upload(options, dataset, upload, text);
    gradd_free(text);
    return CTL_OK;
}

/* ---- which file is what ---------------------------------------------------------------------------------
 */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* What MNIST's files are called, and what one would call one's own: train-images-idx3-ubyte.gz,
 * test_target.npy. */
static bool tell_by_name(const char *path, ctl_upload *upload) {
    static const struct {
        const char *begins, *split;
    } splits[] = {{"train", "train"}, {"t10k", "test"}, {"test", "test"}, {"val", "validation"}};
    static const struct {
        const char *holds, *part;
    } parts[] = {{"images", "input"}, {"input", "input"}, {"labels", "target"}, {"target", "target"}};
    const char *name = base_name(path);
    *upload->split = '\0';
    upload->part = NULL;
    for (size_t i = 0; i < sizeof splits / sizeof *splits && !*upload->split; i++) {
        if (strncmp(name, splits[i].begins, strlen(splits[i].begins)) == 0) {
            snprintf(upload->split, sizeof upload->split, "%s", splits[i].split);
        }
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !upload->part; i++) {
        upload->part = strstr(name, parts[i].holds) ? parts[i].part : NULL;
    }
    return *upload->split && (upload->part || strstr(name, ".safetensors"));
}

static bool is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool is_there(const char *path) {
    return access(path, F_OK) == 0;
}

static int put_folder(gradd_client *client, const ctl_options *options, const char *folder,
                      const char *dataset) {
    static const char *const names[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                        "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};
    ctl_upload uploads[4] = {0};
    for (size_t i = 0; i < 4; i++) { /* before anything is sent */
        int length = snprintf(uploads[i].path, sizeof uploads[i].path, "%s/%s", folder, names[i]);
        if (length < 0 || (size_t)length + sizeof ".gz" > sizeof uploads[i].path) {
            return ctl_error("the folder's name is too long");
        }
        if (!is_there(uploads[i].path)) {
            memcpy(uploads[i].path + length, ".gz", sizeof ".gz");
        }
        if (!is_there(uploads[i].path)) {
            return ctl_error("%s holds neither %s nor %s.gz", folder, names[i], names[i]);
        }
        tell_by_name(uploads[i].path, &uploads[i]);
    }
    int status = CTL_OK;
    for (size_t i = 0; i < 4 && !status; i++) {
        status = ctl_upload_file(client, options, dataset, &uploads[i]);
    }
    return status;
}

static int put_files(gradd_client *client, const ctl_options *options, size_t count, const char *dataset) {
    ctl_upload *uploads = calloc(count, sizeof *uploads);
    if (!uploads) {
        return ctl_error("out of memory");
    }
    int status = CTL_OK;
    for (size_t i = 0; i < count && !status; i++) {
        const char *path = options->words[i];
        ctl_upload *upload = &uploads[i];
        bool told = tell_by_name(path, upload);
        snprintf(upload->path, sizeof upload->path, "%s", path);
        if (options->split || options->part) {
            told = options->split && count == 1;
            snprintf(upload->split, sizeof upload->split, "%s", options->split ? options->split : "");
            upload->part = options->part;
        }
        if (!is_there(path)) {
            status = ctl_error("there is no file %s", path);
        } else if (!told) {
            ctl_error("of what split and part is %s? Give one file at a time with --split and --part", path);
            status = CTL_USAGE;
        }
    }
    for (size_t i = 0; i < count && !status; i++) {
        status = ctl_upload_file(client, options, dataset, &uploads[i]);
    }
    free(uploads);
    return status;
}

/* The last word is the dataset's name if it is no file. Else it is called after the folder, or the folder of
 * the first file. */
static int dataset_name(const ctl_options *options, size_t *ret_files, char name[65]) {
    const size_t count = options->word_count;
    const char *last = options->words[count - 1];
    char *resolved = NULL;
    *ret_files = count;
    if (count > 1 && !is_there(last) && !strchr(last, '/')) {
        snprintf(name, 65, "%s", last);
        *ret_files = count - 1;
        return CTL_OK;
    }
    resolved = realpath(options->words[0], NULL);
    if (resolved && !is_folder(resolved)) {
        *strrchr(resolved, '/') = '\0';
    }
    snprintf(name, 65, "%s", resolved ? base_name(resolved) : "");
    free(resolved);
    return *name ? CTL_OK : ctl_error("there is no file %s", options->words[0]);
}

int ctl_data_put(gradd_client *client, const ctl_options *options) {
    char name[65];
    size_t files;
    int status = dataset_name(options, &files, name);
    if (status) {
        return status;
    }
    if (is_folder(options->words[0])) {
        if (files > 1 || options->split || options->part) {
            ctl_error("a folder stands for its four files: it goes with no other file, --split or --part");
            return CTL_USAGE;
        }
        return put_folder(client, options, options->words[0], name);
    }
    return put_files(client, options, files, name);
}

/* ---- looking ---------------------------------------------------------------------------------------------
 */

/* "train 60000, test 10000" */
static void splits_text(const json_t *splits, char *out, size_t size) {
    const char *name;
    json_t *split;
    *out = '\0';
    json_object_foreach((json_t *)(uintptr_t)splits, name, split) {
        const json_t *count = json_object_get(split, "count");
        const size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%s %s%" JSON_INTEGER_FORMAT, used ? ", " : "", name,
                 json_is_integer(count) ? "" : "not whole ", json_integer_value(count));
    }
}

static void row(ctl_table *table, const void *item) {
    const gradd_dataset_info *d = item;
    char splits[256];
    json_t *json = json_loads(d->json, 0, NULL);
    splits_text(json_object_get(json, "splits"), splits, sizeof splits);
    json_decref(json);
    ctl_table_cell(table, "%s", d->name);
    ctl_table_cell(table, "%s", splits);
    ctl_table_cell(table, d->classes >= 0 ? "%" PRId64 : "", d->classes);
    ctl_table_cell(table, "%" PRId64, d->bytes);
    ctl_table_cell(table, "%s", d->builtin ? "built in" : d->in_use ? "in use" : "");
    ctl_table_cell(table, "%s", d->created_at);
}

static void print_name(const void *item) {
    puts(((const gradd_dataset_info *)item)->name);
}

int ctl_data_ls(gradd_client *client, const ctl_options *options) {
    gradd_dataset_list list;
    gradd_error error;
    if (gradd_dataset_list_all(client, &list, &error)) {
        return ctl_call_error(&error);
    }
    const ctl_listing listing = {.items = list.items,
                                 .count = list.count,
                                 .size = sizeof *list.items,
                                 .json = offsetof(gradd_dataset_info, json),
                                 .heading = "name splits classes bytes note created_at",
                                 .row = row,
                                 .name = print_name};
    int status = ctl_print_listing(&listing, options->output, true);
    gradd_dataset_list_free(&list);
    return status;
}

static int print_parts(const char *text, ctl_output output) {
    static const char *const parts[] = {"input", "target"};
    ctl_table table = {0};
    json_t *json = json_loads(text, 0, NULL), *split;
    const char *name;
    ctl_table_heading(&table, "split part dtype shape bytes sha256");
    json_object_foreach(json_object_get(json, "splits"), name, split) {
        for (size_t i = 0; i < 2; i++) {
            const json_t *part = json_object_get(split, parts[i]);
            char shape[128];
            if (!json_is_object(part)) {
                continue;
            }
            shape_text(part, shape, sizeof shape);
            ctl_table_cell(&table, "%s", name);
            ctl_table_cell(&table, "%s", parts[i]);
            ctl_table_cell(&table, "%s", json_string_value(json_object_get(part, "dtype")));
            ctl_table_cell(&table, "%s", shape);
            ctl_table_cell(&table, "%" JSON_INTEGER_FORMAT,
                           json_integer_value(json_object_get(part, "bytes")));
            ctl_table_cell(&table, "%s", json_string_value(json_object_get(part, "sha256")));
        }
    }
    json_decref(json);
    return ctl_table_print(&table, output);
}

int ctl_data_show(gradd_client *client, const ctl_options *options) {
    gradd_dataset_info info;
    gradd_error error;
    int status = CTL_OK;
    if (gradd_dataset_show(client, options->argument, &info, &error)) {
        return ctl_call_error(&error);
    }
    if (options->output == CTL_JSON || options->output == CTL_NAME) {
        puts(options->output == CTL_JSON ? info.json : info.name);
    } else {
        status = print_parts(info.json, options->output);
    }
    gradd_dataset_info_free(&info);
    return status;
}

int ctl_data_rm(gradd_client *client, const ctl_options *options) {
    gradd_error error;
    if (gradd_dataset_delete(client, options->argument, &error)) {
        return ctl_call_error(&error);
    }
    if (options->output == CTL_NAME) {
        puts(options->argument);
    } else {
        ctl_say("deleted %s", options->argument);
    }
    return CTL_OK;
}
