/* gradd_proto.h -- the wire's one header for the daemon: JSON models, JSON tensors and problem
 * documents, on top of the codecs. No sockets. jansson's objects follow its own ownership rules. */
#ifndef GRADD_PROTO_H
#define GRADD_PROTO_H

#include <jansson.h>

#include "engine/gradd_engine.h"
#include "proto/gradd_codec.h"

enum { GP_MAX_DEPTH = 64 /* of JSON */ };

/* ---- problem documents (RFC 9457) ---------------------------------------------------------------- */

/** Turn an engine error into a wire error: GD_E_SHAPE becomes GP_SHAPE_MISMATCH, error->layer and
 *  ->field become a JSON pointer below `prefix` ("/layers/3/kernel_size"). @return -1 */
int gp_fail_engine(gp_error *error, const gd_error *cause, const char *prefix);
/** The document as JSON text; the caller frees it. `instance` and `request_id` may hold any bytes. */
char *gp_problem_json(const gp_error *error, const char *instance, const char *request_id);

/* ---- JSON bodies --------------------------------------------------------------------------------- */

enum { GP_MAX_TEXT = 1 << 30 /* bytes of a gp_text */ };

/** A buffer that grows up to GP_MAX_TEXT. Once `failed` (the limit, no memory), it stays as it is, so that
 *  it is enough to look at the end. Zero-initialise. */
typedef struct gp_text {
    char *data; /* NUL-terminated once anything was added */
    size_t size, capacity;
    bool failed;
} gp_text;
void gp_text_add(gp_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gp_text_append(gp_text *text, const char *bytes, size_t size);
/** Append `size` of its own bytes, from `begin`, again. */
void gp_text_repeat(gp_text *text, size_t begin, size_t size);
void gp_text_release(gp_text *text);

/** A tensor parsed from JSON: its own memory, float32 or int64 (int64 when every number is an integer
 *  literal and no "dtype" says otherwise). Of other dtypes the values are checked against the dtype's
 *  range and kept as int64 (integers, bool) or float32 (floats), as they were written. */
typedef struct gp_json_tensor {
    gp_array array;
    void *memory; /* free() it; NULL when array is not set */
} gp_json_tensor;

/** One of several tensors that a member holds: {"label": T, "image": T}. */
typedef struct gp_json_part {
    char name[GD_MAX_NAME];
    gp_json_tensor tensor;
} gp_json_part;

/** One member of a body that holds tensors. */
typedef struct gp_json_member {
    const char *name;      /* in: which member */
    bool required;         /* in */
    gp_json_part *parts;   /* in: room for several; NULL: it is one tensor */
    size_t part_limit;     /* in: how many there is room for */
    bool found;            /* out */
    gp_json_tensor tensor; /* out: one tensor */
    size_t part_count;     /* out: 0, or it is an object of so many */
} gp_json_member;

/**
 * Parse a request body: an object whose members named in `members` are tensors (nested arrays, or
 * {"dtype", "shape", "data" or "base64"}) and are scanned straight into memory; everything else goes
 * to *ret_rest, a jansson object. Duplicate keys, unknown fields in tensor objects, ragged arrays
 * (names the index of the first bad row), depth over GP_MAX_DEPTH, bare NaN are refused.
 *
 * @param body     NUL-terminated at body[size]
 * @param members  member_count of them; their tensors are released with gp_json_members_release(),
 *                 also after a failure
 * @param ret_rest a new reference
 */
int gp_json_read(const char *body, size_t size, gp_json_member *members, size_t member_count,
                 json_t **ret_rest, gp_error *error);
/** A body that is one tensor (a nested array or a tensor object), NUL-terminated too. The caller frees
 * ret_tensor->memory. */
int gp_json_read_tensor(const char *body, size_t size, gp_json_tensor *ret_tensor, gp_error *error);
void gp_json_members_release(gp_json_member *members, size_t member_count);

/** {"dtype": "float32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}, float32 with at most 9 significant
 * digits, non-finite numbers as "NaN", "Infinity", "-Infinity". */
void gp_json_write_tensor(gp_text *text, const gd_tensor *tensor);
/** A number by the same rules. */
void gp_json_write_number(gp_text *text, double value, int significant_digits);
/** A double with as few digits, 9, 15 or 17, as read back to the same one. */
void gp_json_write_double(gp_text *text, double value);
void gp_json_write_integer(gp_text *text, int64_t value);
/** A string, quoted and escaped; bytes that are not UTF-8 become U+FFFD. */
void gp_json_write_string(gp_text *text, const char *string);
/** A double as JSON, non-finite as the strings above. A new reference. */
json_t *gp_json_number(double value);

/* ---- CSV: numbers, one sample a line ------------------------------------------------------------- */

enum {
    GP_CSV_BLOCK = 8192 /* values that come at once */,
    GP_CSV_TOKEN = 72 /* bytes of a number, and a NUL */
};

/**
 * A file of lines "1,2.5,-3e4", read piece by piece. A first line whose first field is no number is a header;
 * every other line has as many numbers as the one before it, and none is empty but at the end. Also nan, inf
 * and -inf are numbers. Begin with {.read = ..., .argument = ...}.
 */
typedef struct gp_csv {
    gp_read *read; /* where the file comes from */
    void *argument;
    int64_t rows, columns; /* so far */
    bool real;    /* values are float32; else int64, as every number so far is a whole one. Once it has
                     become true, values given before are to be turned into float32 */
    size_t count; /* of values; 0 at the end of the file */
    union {
        int64_t whole[GP_CSV_BLOCK];
        float real[GP_CSV_BLOCK];
    } values;
    /* the reader's own */
    bool ended;
    int64_t line, column;   /* of the next field, from 0 on */
    int64_t empty;          /* an empty line that came after a row, from 1 on; 0: none */
    int64_t header_columns; /* 0: no header */
    size_t at, size;        /* of buffer */
    char buffer[65536];
} gp_csv;

/** Could a file with these first bytes be one? */
bool gp_csv_detect(const void *data, size_t size);
/** The next values, into csv->values. @return 0; -1: names the line */
int gp_csv_next(gp_csv *csv, gp_error *error);

/* ---- models -------------------------------------------------------------------------------------- */

/** A parsed POST /v1/models. Everything in spec and config is owned by it. */
typedef struct gp_model {
    char name[65];
    bool has_seed;
    gd_graph_spec graph;
    gd_model_config config;
    void *memory; /* all of it */
} gp_model;

/** Read the definition of a model. Release with gp_model_release(). */
int gp_model_read(json_t *json, gp_model *ret_model, gp_error *error);
void gp_model_release(gp_model *model);

/** A loss, or hyperparameters alone, given as {"type": ..., attributes ...}. spec borrows from json. */
typedef struct gp_kind_spec {
    gd_kind_spec spec;
    void *memory;
} gp_kind_spec;
/** @param pointer where it stands, for errors: "/loss"
 *  @param type_required false: {"lr": 0.1} is fine, spec.type is NULL then */
int gp_kind_spec_read(json_t *json, const char *pointer, bool type_required, gp_kind_spec *ret_spec,
                      gp_error *error);
void gp_kind_spec_release(gp_kind_spec *spec);

/** A loss given as {"type": ..., attributes ..., "output", "target"}, its type's name, or a list of such
 * terms, which may have a "weight" (or, where that is an attribute of the loss, "loss_weight"). spec borrows
 * nothing. */
typedef struct gp_loss_spec {
    gd_loss_spec spec;
    void *memory;
} gp_loss_spec;
int gp_loss_spec_read(json_t *json, const char *pointer, gp_loss_spec *ret_spec, gp_error *error);
void gp_loss_spec_release(gp_loss_spec *spec);

/** A change of an optimizer: {"type": ..., hyperparameters ..., "param_groups": [{"params": "*.bias",
 * hyperparameters
 * ...}]}, any part of which may be missing. */
typedef struct gp_optimizer_spec {
    gd_optimizer_spec spec;
    void *memory;
} gp_optimizer_spec;
int gp_optimizer_spec_read(json_t *json, const char *pointer, gp_optimizer_spec *ret_spec, gp_error *error);
void gp_optimizer_spec_release(gp_optimizer_spec *spec);

/** A scheduler given as {"type": ..., attributes ..., "schedulers": [...]}; null: none, spec.type is NULL
 * then. spec borrows nothing. */
typedef struct gp_scheduler_spec {
    gd_scheduler_spec spec;
    void *memory;
} gp_scheduler_spec;
int gp_scheduler_spec_read(json_t *json, const char *pointer, gp_scheduler_spec *ret_spec, gp_error *error);
void gp_scheduler_spec_release(gp_scheduler_spec *spec);

/** The name rule of models, datasets, checkpoints and request ids. */
bool gp_name_ok(const char *name);

/** One kind with its attributes and parameters, for GET /v1/ops and its siblings. New reference. */
json_t *gp_kind_json(const gd_kind *kind);
/** {"lr": 0.01, ...}: the values of all attributes. New reference. */
json_t *gp_attrs_json(const gd_kind *kind, const void *attrs);
/** {"type": "SGD", "lr": 0.1, ..., "param_groups": [{"params": ["*.bias"], "parameters": ["fc.bias"], "lr":
 * 0.1,
 * ...}]}; null for none. New reference. */
json_t *gp_optimizer_json(const gd_model *model);
/** {"type": "StepLR", "gamma": 0.1, ..., "schedulers": [...], "state": {"last_epoch": 3, ...}}; null for
 * none. New reference. */
json_t *gp_schedule_json(const gd_schedule *schedule);
/** A model's loss as it would be defined; null for none. New reference. */
json_t *gp_loss_json(const gd_model *model);
/** {"logits": {"layer": "fc3", "shape": [10], "dtype": "float32"}, ...}. New reference. */
json_t *gp_outputs_json(const gd_graph *graph);
/** [6, 28, 28]. New reference. */
json_t *gp_shape_json(const gd_shape *shape);
/** The layers[] of GET /v1/models/{m}. New reference. */
json_t *gp_layers_json(const gd_graph *graph);

/** The document of proto/openapi.json, built into the binary. */
extern const char gp_openapi[];
extern const size_t gp_openapi_size;

#endif
