/* datasets.c -- the built-in dataset: digits, drawn by the engine. */
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"

enum { PIXELS = GD_DIGITS_SIDE * GD_DIGITS_SIDE, PIECE = 500 /* rows drawn at a time */, DEFAULT_ROWS = 100 };

static const char name[] = "digits";
static const char *const split_names[2] = {"train", "test"};
static const char *const part_names[2] = {"input", "target"};
static const int64_t split_rows[2] = {GD_DIGITS_TRAIN, GD_DIGITS_TEST};

static void hex_digest(struct sha256_ctx *context, char text[65]) {
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
}

/* Hash a split's pixels and labels (little-endian int64), once. @return 0; -1: no memory */
static int hash_split(gs_server *server, int split) {
    if (*server->digits_sha256[split][0]) {
        return 0;
    }
    uint8_t *pixels = malloc((size_t)PIECE * PIXELS);
    int64_t *labels = malloc(PIECE * sizeof *labels);
    if (pixels && labels) {
        struct sha256_ctx input, target;
        sha256_init(&input);
        sha256_init(&target);
        for (int64_t row = 0; row < split_rows[split]; row += PIECE) {
            gd_digits(split, row, PIECE, pixels, labels);
            sha256_update(&input, (size_t)PIECE * PIXELS, pixels);
            sha256_update(&target, PIECE * sizeof *labels, (const uint8_t *)labels);
        }
        hex_digest(&target, server->digits_sha256[split][1]);
        hex_digest(&input, server->digits_sha256[split][0]);
    }
    bool ok = pixels && labels;
    free(pixels);
    free(labels);
    return ok ? 0 : -1;
}

_Static_assert(GD_DIGITS_TRAIN % PIECE == 0 && GD_DIGITS_TEST % PIECE == 0, "a split is whole pieces");

static json_t *split_json(const gs_server *server, int split) {
    json_int_t rows = split_rows[split];
    return json_pack("{s:I, s:{s:[I,i,i], s:s, s:I, s:s}, s:{s:[I], s:s, s:I, s:s}}", "count", rows, "input",
                     "shape", rows, GD_DIGITS_SIDE, GD_DIGITS_SIDE, "dtype", "uint8", "bytes", rows * PIXELS,
                     "sha256", server->digits_sha256[split][0], "target", "shape", rows, "dtype", "int64",
                     "bytes", rows * (json_int_t)sizeof(int64_t), "sha256", server->digits_sha256[split][1]);
}

/* The common queue runs one request at a time, so the hashes need no lock. */
static json_t *dataset_json(gs_server *server) {
    if (hash_split(server, 0) || hash_split(server, 1)) {
        return NULL;
    }
    return json_pack("{s:s, s:b, s:i, s:{s:o, s:o}}", "name", name, "builtin", 1, "classes",
                     GD_DIGITS_CLASSES, "splits", split_names[0], split_json(server, 0), split_names[1],
                     split_json(server, 1));
}

int gs_handle_dataset_list(gs_request *request, gp_error *error) {
    int64_t limit;
    if (gs_query_integer(request, "limit", 100, 1, 1000, &limit, error)) {
        return -1;
    }
    const char *cursor = gs_uri_find(&request->uri, "cursor");
    json_t *items = json_array();
    if (!cursor || strcmp(cursor, name) < 0) {
        json_array_append_new(items, dataset_json(request->server));
    }
    return gs_reply_json(request, 200, json_pack("{s:o, s:n}", "items", items, "next_cursor"), error);
}

static int check_name(const gs_request *request, gp_error *error) {
    return strcmp(request->variables[0], name)
               ? gp_fail(error, GP_NOT_FOUND, "", "there is no dataset named \"%s\"; there is digits",
                         request->variables[0])
               : 0;
}

int gs_handle_dataset_show(gs_request *request, gp_error *error) {
    return check_name(request, error) ? -1
                                      : gs_reply_json(request, 200, dataset_json(request->server), error);
}

static int index_of(const char *const names[2], const char *text) {
    return !strcmp(text, names[0]) ? 0 : !strcmp(text, names[1]) ? 1 : -1;
}

int gs_handle_dataset_rows(gs_request *request, gp_error *error) {
    int split = index_of(split_names, request->variables[1]),
        part = index_of(part_names, request->variables[2]);
    int64_t offset, limit;
    if (check_name(request, error)) {
        return -1;
    }
    if (split < 0 || part < 0) {
        return gp_fail(error, GP_NOT_FOUND, "",
                       "digits has train/input, train/target, test/input and test/target");
    }
    int64_t total = split_rows[split];
    if (gs_query_integer(request, "offset", 0, 0, total, &offset, error) ||
        gs_query_integer(request, "limit", DEFAULT_ROWS, 1, INT64_MAX, &limit, error)) {
        return -1;
    }
    int64_t rows = limit < total - offset ? limit : total - offset;
    uint8_t *pixels = malloc((size_t)rows * PIXELS + 1);
    int64_t *labels = malloc((size_t)rows * sizeof *labels + 1);
    int result = pixels && labels
                     ? 0
                     : gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for %lld rows", (long long)rows);
    if (!result) {
        gd_digits(split, offset, rows, pixels, labels);
        gd_tensor input = {GD_UINT8, {3, {rows, GD_DIGITS_SIDE, GD_DIGITS_SIDE}}, pixels};
        gd_tensor target = {GD_INT64, {1, {rows}}, labels};
        result = gs_reply_tensor(request, part_names[part], part ? &target : &input, NULL, error);
    }
    free(pixels);
    free(labels);
    return result;
}
