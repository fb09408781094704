/* gradd.h -- libgradd, the C client of gradd, a daemon that trains neural networks over HTTP.
 *
 *     gradd_client *client = NULL;
 *     gradd_error error;
 *     if (gradd_client_new(NULL, &client, &error) != GRADD_OK)
 *         fprintf(stderr, "%s\n", error.message);
 *
 * Functions return GRADD_OK (0) or a GRADD_E... code, and fill a caller-owned gradd_error, which may be
 * NULL. Results (ret_...) are written on success only; a ret_ pointer may be NULL unless said otherwise.
 * Strings and tensors that are passed in are borrowed for the call; whatever a call returns belongs to
 * the caller, who releases it with the function named at its type.
 *
 * Threads: one handle serves any number of threads at once; each call uses a connection of its own.
 * Link with `pkg-config --libs libgradd` (add --static for libgradd.a). */
#ifndef GRADD_H
#define GRADD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GRADD_API __attribute__((visibility("default")))
#else
#define GRADD_API
#endif

#define GRADD_DEFAULT_SERVER "http://127.0.0.1:7117"

enum {
    GRADD_MAX_RANK = 8,
    GRADD_MAX_NAME = 256, /* bytes of a name, with the final NUL */
    GRADD_MAX_ETAG = 96   /* bytes of an ETag, with its quotes and the NUL */
};

/* ---- errors ------------------------------------------------------------------------------------ */

typedef enum gradd_code {
    GRADD_OK,
    GRADD_E_ARGUMENT,    /* the call itself is wrong: nothing was sent */
    GRADD_E_MEMORY,      /* no memory here, in the client */
    GRADD_E_UNREACHABLE, /* no connection: nothing was sent */
    GRADD_E_TIMEOUT,     /* no answer in time: the daemon may or may not have done it */
    GRADD_E_NETWORK,     /* the connection broke: the daemon may or may not have done it */
    GRADD_E_INTERRUPTED, /* gradd_config.interrupted said so */
    GRADD_E_REFUSED,     /* the daemon said no: see http_status, problem and message */
    GRADD_E_REPLY        /* the answer is not what a gradd daemon sends, or over the size limit */
} gradd_code;

/** Why a call failed. Owned by the caller, holds no pointers, untouched on success. */
typedef struct gradd_error {
    gradd_code code;
    int http_status;     /* of the reply, or 0 */
    char problem[64];    /* the daemon's stable code ("shape_mismatch"), or "" */
    char message[1024];  /* what went wrong and what to change */
    char request_id[72]; /* to be found in the daemon's log, or "" */
} gradd_error;

/* ---- the handle -------------------------------------------------------------------------------- */

typedef struct gradd_client gradd_client;

/** How to reach a daemon. Zero-initialise; every member's zero is its default. */
typedef struct gradd_config {
    const char *server;      /* URL; NULL: $GRADD_SERVER, or else GRADD_DEFAULT_SERVER */
    const char *token;       /* bearer token, or NULL */
    const char *token_file;  /* its first line is the token; NULL (and no token): $GRADD_TOKEN_FILE */
    long connect_timeout_ms; /* 0: 5 s */
    long timeout_ms;  /* of a whole call, or of standing still where a file or events are sent; 0: 5 min */
    size_t max_reply; /* bytes of one reply; 0: 1 GiB */
    int retries;      /* how often a call is tried again; 0: 2; negative: never. See below */
    bool (*interrupted)(void *argument); /* asked about once a second by a waiting call; may be NULL */
    void *argument;                      /* of interrupted */
} gradd_config;

/**
 * Make a handle. Does not connect yet. Proxies and redirects are not followed.
 *
 * A call is tried again where nothing can be applied twice: after a broken connection, a 429 or a 503 a GET,
 * a PUT, and a POST, for each POST bears an Idempotency-Key, a random one that is the same for its tries:
 * what the daemon did at the first try it answers again, and does not do again. (If it is still at it, the
 * call waits for that, at most timeout_ms.) Where the connection was refused, so that nothing was sent, any
 * call is tried again. PATCH and DELETE are not, nor is a PUT with an if_match, nor anything after a timeout.
 *
 * @param config     NULL: all defaults. Borrowed for the call (but `argument` until the free)
 * @param ret_client not NULL; released with gradd_client_free()
 * @return GRADD_OK; GRADD_E_ARGUMENT (URL, token or token file is no good); GRADD_E_MEMORY
 */
GRADD_API int gradd_client_new(const gradd_config *config, gradd_client **ret_client, gradd_error *error);
/** Close its connections. No call may be running on it. NULL is fine. */
GRADD_API void gradd_client_free(gradd_client *client);
/** The server's URL without a final slash, owned by the handle. */
GRADD_API const char *gradd_client_server(const gradd_client *client);
/** This library's version: "0.1.0". */
GRADD_API const char *gradd_version(void);
/** Release a string (or an array) that a call returned. NULL is fine. */
GRADD_API void gradd_free(void *memory);

/* ---- tensors ----------------------------------------------------------------------------------- */

typedef enum gradd_dtype { GRADD_FLOAT32, GRADD_INT64 } gradd_dtype;

/** A row-major, contiguous tensor. In requests `data` is borrowed and not written to; in results it
 *  belongs to the caller, who calls gradd_tensor_free(). In results whole numbers of any width are int64,
 *  all others float32. */
typedef struct gradd_tensor {
    gradd_dtype dtype;
    int rank; /* 0: a scalar */
    int64_t shape[GRADD_MAX_RANK];
    void *data;
} gradd_tensor;

typedef struct gradd_named_tensor {
    char name[GRADD_MAX_NAME];
    gradd_tensor tensor;
} gradd_named_tensor;

/** Several tensors as a result; released with gradd_tensors_free(). */
typedef struct gradd_tensors {
    gradd_named_tensor *items;
    size_t count;
} gradd_tensors;

/** Elements; 1 for a scalar; -1 when the shape is invalid (negative, rank over 8, or too large). */
GRADD_API int64_t gradd_tensor_numel(const gradd_tensor *tensor);
/** Free the data of a result and zero the struct (the struct itself is the caller's). NULL is fine. */
GRADD_API void gradd_tensor_free(gradd_tensor *tensor);
GRADD_API void gradd_tensors_free(gradd_tensors *tensors);
/** By name, borrowed from `tensors`; NULL when there is none. */
GRADD_API const gradd_tensor *gradd_tensors_find(const gradd_tensors *tensors, const char *name);

/** A scalar of a request, as in torch: {"lr", "0.001"}, {"clip_grad_norm", "1"}. Lists of them end with
 *  a row whose name is NULL. Two names go with every call that takes options:
 *
 *      {"if_match", info.etag}          only if the model still is at this version: else GRADD_E_REFUSED with
 *                                       http_status 412, and nothing has changed
 *      {"idempotency_key", "epoch-17"}  a POST's key is this, in place of a random one: the same call with
 * the same key, also from another process, is done once (for a day) */
typedef struct gradd_option {
    const char *name;
    const char *value; /* a JSON value; strings may be given without quotes */
} gradd_option;

/** A file to be sent, or to be filled. Whatever its size, little of it is in memory. Zero-initialise. */
typedef struct gradd_file {
    const char *path; /* to be filled: it is there when all has come, and not before */
    int fd; /* if path is NULL. All of the file is sent; what comes is written from its position on */
    void (*progress)(void *argument, int64_t done, int64_t total); /* bytes; total -1: unknown; may be NULL */
    void *argument;
} gradd_file;

/* ---- the daemon -------------------------------------------------------------------------------- */

/** Is the daemon up and ready for work? @return GRADD_E_REFUSED while it loads or shuts down */
GRADD_API int gradd_server_ready(gradd_client *client, gradd_error *error);
/** GET /v1/version as JSON text. @param ret_json released with gradd_free() */
GRADD_API int gradd_server_version(gradd_client *client, char **ret_json, gradd_error *error);

/* ---- models ------------------------------------------------------------------------------------ */

/** A model as the daemon describes it; released with gradd_model_info_free(). */
typedef struct gradd_model_info {
    char name[GRADD_MAX_NAME];
    char class_name[GRADD_MAX_NAME];
    char created_at[40]; /* RFC 3339, UTC */
    int64_t version;     /* counts changes */
    int64_t step;        /* optimizer steps taken */
    bool training;
    int64_t parameter_count;   /* tensors */
    int64_t parameter_numel;   /* values in them; -1 in a list that leaves it out */
    int64_t memory_bytes;      /* -1: left out */
    char etag[GRADD_MAX_ETAG]; /* of this version, for if_match; "" in a list */
    char *repr;                /* what Python's print(net) prints, or NULL in a list that leaves it out */
    char *json;                /* the whole document */
} gradd_model_info;

typedef struct gradd_model_list {
    gradd_model_info *items;
    size_t count;
} gradd_model_list;

GRADD_API void gradd_model_info_free(gradd_model_info *info);
GRADD_API void gradd_model_list_free(gradd_model_list *list);

/** Create a model from its JSON definition. @return GRADD_E_REFUSED with problem "name_taken" ... */
GRADD_API int gradd_model_create(gradd_client *client, const char *json, gradd_model_info *ret_info,
                                 gradd_error *error);
/** The same checks and the same answer, but nothing is created (?dry_run=true). */
GRADD_API int gradd_model_check(gradd_client *client, const char *json, gradd_model_info *ret_info,
                                gradd_error *error);
/** All models, page after page. @param ret_list not NULL; released with gradd_model_list_free() */
GRADD_API int gradd_model_list_all(gradd_client *client, gradd_model_list *ret_list, gradd_error *error);
GRADD_API int gradd_model_show(gradd_client *client, const char *model, gradd_model_info *ret_info,
                               gradd_error *error);
/** Change mode, hyperparameters or loss. @param json {"optimizer": {"lr": 0.001}} */
GRADD_API int gradd_model_patch(gradd_client *client, const char *model, const char *json,
                                const gradd_option *options, gradd_model_info *ret_info, gradd_error *error);
/** @param force also while a job runs on it */
GRADD_API int gradd_model_delete(gradd_client *client, const char *model, bool force, gradd_error *error);

/** What a step answers. */
typedef struct gradd_step_result {
    int64_t step;     /* optimizer steps so far; -1: not part of this call's answer */
    double loss;      /* NaN: not part of this call's answer */
    double lr;        /* learning rate used; NaN: not part of this call's answer */
    double grad_norm; /* L2 norm over all gradients, before clipping */
    int64_t count;    /* samples; -1: not part of this call's answer */
    int64_t correct;  /* samples whose class was right; -1: the target holds no class indices */
    int64_t parse_us, queue_us, compute_us, encode_us; /* where the daemon's time went; -1: not told */
} gradd_step_result;

typedef struct gradd_loss_result {
    double loss;
    char grad_fn[64]; /* "MseLossBackward0" */
} gradd_loss_result;

typedef struct gradd_evaluation {
    double loss;
    double accuracy; /* 0 ... 1; NaN: the target holds no class indices */
    int64_t count;   /* samples */
} gradd_evaluation;

/**
 * One batch forward; the daemon keeps the graph for gradd_model_backward().
 *
 * @param input      (N, ...sample shape) float32
 * @param ret_output (N, ...)
 */
GRADD_API int gradd_model_forward(gradd_client *client, const char *model, const gradd_tensor *input,
                                  gradd_tensor *ret_output, gradd_error *error);
/**
 * Loss of the last forward's output.
 *
 * @param target  (N) class indices as int64, or what the loss takes; NULL where it takes none, or an input of
 * the network ("@input")
 * @param options {"loss", "MSELoss"}: another loss for this once; or NULL
 * @return GRADD_E_REPLY also where the loss is no scalar (reduction "none")
 */
GRADD_API int gradd_model_loss(gradd_client *client, const char *model, const gradd_tensor *target,
                               const gradd_option *options, gradd_loss_result *ret_result,
                               gradd_error *error);
/** From the loss (gradient NULL) or from the output with dL/doutput; gradients add up.
 *  @param ret_grad_norm L2 norm over all gradients */
GRADD_API int gradd_model_backward(gradd_client *client, const char *model, const gradd_tensor *gradient,
                                   bool retain_graph, double *ret_grad_norm, gradd_error *error);
GRADD_API int gradd_model_zero_grad(gradd_client *client, const char *model, gradd_error *error);
/** One optimizer step from the accumulated gradients. @param options for this step only, or NULL */
GRADD_API int gradd_model_step(gradd_client *client, const char *model, const gradd_option *options,
                               gradd_step_result *ret_result, gradd_error *error);
/** Where a scheduler stands. */
typedef struct gradd_schedule_result {
    int64_t epoch; /* how often it has advanced */
    double lr;     /* the rate from now on */
} gradd_schedule_result;

/**
 * An epoch is over: advance a scheduler whose interval is "epoch".
 *
 * @param metric what ReduceLROnPlateau goes by; NULL for any other
 * @return GRADD_E_REFUSED where there is no such scheduler
 */
GRADD_API int gradd_model_scheduler_step(gradd_client *client, const char *model, const double *metric,
                                         gradd_schedule_result *ret_result, gradd_error *error);
/** Forward, loss and backward in one call; gradients add up. In this and the two below, target is NULL where
 * the loss takes none. */
GRADD_API int gradd_model_forward_backward(gradd_client *client, const char *model, const gradd_tensor *input,
                                           const gradd_tensor *target, const gradd_option *options,
                                           gradd_step_result *ret_result, gradd_error *error);
/** zero_grad, forward, loss, backward and step as one atomic step. */
GRADD_API int gradd_model_train_step(gradd_client *client, const char *model, const gradd_tensor *input,
                                     const gradd_tensor *target, const gradd_option *options,
                                     gradd_step_result *ret_result, gradd_error *error);
/** Output in eval mode; a kept graph stays as it is. */
GRADD_API int gradd_model_predict(gradd_client *client, const char *model, const gradd_tensor *input,
                                  gradd_tensor *ret_output, gradd_error *error);
/** predict, then the model's loss. */
GRADD_API int gradd_model_evaluate(gradd_client *client, const char *model, const gradd_tensor *input,
                                   const gradd_tensor *target, gradd_evaluation *ret_result,
                                   gradd_error *error);
/**
 * Forward or predict of a model with several inputs or outputs.
 *
 * @param action      "forward" or "predict"
 * @param inputs      count of them (1 ... 64)
 * @param ret_outputs not NULL; each under its name ("output" where the model names none); released with
 *                    gradd_tensors_free()
 */
GRADD_API int gradd_model_run(gradd_client *client, const char *model, const char *action,
                              const gradd_named_tensor *inputs, size_t count, gradd_tensors *ret_outputs,
                              gradd_error *error);
/**
 * Any POST /v1/models/{model}/{action} with named tensors: what the calls above are made of, for models
 * with several inputs, targets (each named as the loss's term says) or gradients (named as the outputs).
 *
 * @param tensors  count of them (at most 64), sent as safetensors in this order
 * @param ret_json the JSON answer; released with gradd_free()
 */
GRADD_API int gradd_model_post(gradd_client *client, const char *model, const char *action,
                               const gradd_named_tensor *tensors, size_t count, const gradd_option *options,
                               char **ret_json, gradd_error *error);

/* ---- parameters, gradients, the graph ------------------------------------------------------------ */

typedef struct gradd_parameter {
    char name[GRADD_MAX_NAME]; /* "conv1.weight" */
    int rank;
    int64_t shape[GRADD_MAX_RANK];
    int64_t numel;
    bool requires_grad;
    double norm;      /* L2 */
    double grad_norm; /* NaN: no gradient yet */
    int64_t version;  /* counts changes */
} gradd_parameter;

/** A node of the autograd graph, as torch's grad_fn and next_functions show it. */
typedef struct gradd_grad_node {
    int64_t id;
    char name[64];              /* "ConvolutionBackward0", "AccumulateGrad" */
    char layer[GRADD_MAX_NAME]; /* the layer it comes from, or "" */
    int64_t next[64];           /* ids; -1: torch's None */
    int next_count;
} gradd_grad_node;

/** In the order of net.parameters(). @param ret_items, ret_count not NULL; gradd_free(*ret_items) */
GRADD_API int gradd_model_parameters(gradd_client *client, const char *model, gradd_parameter **ret_items,
                                     size_t *ret_count, gradd_error *error);
/** @param ret_values not NULL; released with gradd_tensor_free() */
GRADD_API int gradd_parameter_get(gradd_client *client, const char *model, const char *name,
                                  gradd_tensor *ret_values, gradd_error *error);
/** @param options {"if_match", the parameter's ETag}, or NULL */
GRADD_API int gradd_parameter_put(gradd_client *client, const char *model, const char *name,
                                  const gradd_tensor *values, const gradd_option *options,
                                  gradd_error *error);
/** requires_grad false freezes it. */
GRADD_API int gradd_parameter_set_requires_grad(gradd_client *client, const char *model, const char *name,
                                                bool requires_grad, gradd_error *error);
/** @return GRADD_E_REFUSED with problem "no_gradient" before any backward (torch's None) */
GRADD_API int gradd_parameter_grad(gradd_client *client, const char *model, const char *name,
                                   gradd_tensor *ret_grad, gradd_error *error);
/** All parameters and buffers. @param ret_tensors not NULL; released with gradd_tensors_free() */
GRADD_API int gradd_state_dict_get(gradd_client *client, const char *model, gradd_tensors *ret_tensors,
                                   gradd_error *error);
/** @param strict   false: load what fits
 *  @param ret_json the daemon's answer (what was left out); released with gradd_free() */
GRADD_API int gradd_state_dict_put(gradd_client *client, const char *model, const gradd_named_tensor *tensors,
                                   size_t count, bool strict, char **ret_json, gradd_error *error);
/** The same to and from a safetensors file, such as torch's `safetensors.torch.save_file` writes. */
GRADD_API int gradd_state_dict_download(gradd_client *client, const char *model, const gradd_file *file,
                                        gradd_error *error);
GRADD_API int gradd_state_dict_upload(gradd_client *client, const char *model, const gradd_file *file,
                                      bool strict, char **ret_json, gradd_error *error);
/** All gradients there are. @param ret_tensors not NULL */
GRADD_API int gradd_model_gradients(gradd_client *client, const char *model, gradd_tensors *ret_tensors,
                                    gradd_error *error);
/** The autograd graph of the last forward and loss, its root first.
 *  @param ret_nodes, ret_count not NULL; gradd_free(*ret_nodes) */
GRADD_API int gradd_model_graph(gradd_client *client, const char *model, gradd_grad_node **ret_nodes,
                                size_t *ret_count, gradd_error *error);

/* ---- metrics ----------------------------------------------------------------------------------- */

/** What was recorded of a model's steps, as JSON text.
 *  @param options {"keys", "loss,lr"}, {"max_points", "1000"}, {"since", the cursor of an earlier answer},
 * {"from", a step}, {"to", ...}; or NULL */
GRADD_API int gradd_model_metrics(gradd_client *client, const char *model, const gradd_option *options,
                                  char **ret_json, gradd_error *error);
/** Every step of it as CSV. */
GRADD_API int gradd_model_metrics_csv(gradd_client *client, const char *model, const gradd_option *options,
                                      const gradd_file *file, gradd_error *error);
/** Add one's own. @param json {"step": 7, "values": {"my_metric": 1.5}}, or a list of such points */
GRADD_API int gradd_model_metrics_add(gradd_client *client, const char *model, const char *json,
                                      const gradd_option *options, char **ret_json, gradd_error *error);

/* ---- checkpoints ------------------------------------------------------------------------------- */

/** A model's whole state, kept by the daemon; released with gradd_checkpoint_info_free(). */
typedef struct gradd_checkpoint_info {
    char name[GRADD_MAX_NAME];
    char kind[16]; /* "manual", "auto" or "best" (a job's), "autosave" */
    char created_at[40];
    char sha256[65];
    char note[GRADD_MAX_NAME]; /* or "" */
    int64_t step, bytes;
    int64_t job;   /* that took it; -1: none */
    double metric; /* that "best" goes by; NaN: none */
    bool damaged;  /* it is not what was written, and never loaded */
    char *json;    /* the whole document */
} gradd_checkpoint_info;

typedef struct gradd_checkpoint_list {
    gradd_checkpoint_info *items; /* the newest first */
    size_t count;
} gradd_checkpoint_list;

GRADD_API void gradd_checkpoint_info_free(gradd_checkpoint_info *info);
GRADD_API void gradd_checkpoint_list_free(gradd_checkpoint_list *list);

/** Take one; it is on the daemon's disk when the call returns. @param name, note may be NULL */
GRADD_API int gradd_checkpoint_create(gradd_client *client, const char *model, const char *name,
                                      const char *note, gradd_checkpoint_info *ret_info, gradd_error *error);
/** @param ret_list not NULL */
GRADD_API int gradd_checkpoint_list_all(gradd_client *client, const char *model,
                                        gradd_checkpoint_list *ret_list, gradd_error *error);
/** As safetensors: weights by their state_dict names, and the rest by names of its own. */
GRADD_API int gradd_checkpoint_download(gradd_client *client, const char *model, const char *checkpoint,
                                        const gradd_file *file, gradd_error *error);
/** Training goes on from there as it did then, bit for bit. */
GRADD_API int gradd_checkpoint_restore(gradd_client *client, const char *model, const char *checkpoint,
                                       gradd_model_info *ret_info, gradd_error *error);
GRADD_API int gradd_checkpoint_delete(gradd_client *client, const char *model, const char *checkpoint,
                                      gradd_error *error);
/** A new model from a checkpoint of another: its definition and its state. */
GRADD_API int gradd_model_create_from(gradd_client *client, const char *name, const char *model,
                                      const char *checkpoint, gradd_model_info *ret_info, gradd_error *error);

/* ---- datasets ---------------------------------------------------------------------------------- */

/** A dataset of the daemon's; released with gradd_dataset_info_free(). */
typedef struct gradd_dataset_info {
    char name[GRADD_MAX_NAME];
    char created_at[40]; /* or "" */
    bool builtin;
    bool in_use;     /* by a job: it can be neither changed nor deleted */
    int64_t bytes;   /* -1: left out */
    int64_t classes; /* -1: its target holds no class indices */
    char *json;      /* the whole document, with splits, shapes and digests */
} gradd_dataset_info;

typedef struct gradd_dataset_list {
    gradd_dataset_info *items;
    size_t count;
} gradd_dataset_list;

GRADD_API void gradd_dataset_info_free(gradd_dataset_info *info);
GRADD_API void gradd_dataset_list_free(gradd_dataset_list *list);

/**
 * Upload a part of a dataset in place of what was there: IDX, npy, safetensors or CSV, plain or gzip'ed.
 *
 * @param split    "train", "test"
 * @param part     "input" or "target"; NULL: both, from safetensors
 * @param ret_json what it is now (shape, dtype, SHA-256); released with gradd_free()
 */
GRADD_API int gradd_dataset_put(gradd_client *client, const char *dataset, const char *split,
                                const char *part, const gradd_file *file, char **ret_json,
                                gradd_error *error);
/** @param ret_list not NULL */
GRADD_API int gradd_dataset_list_all(gradd_client *client, gradd_dataset_list *ret_list, gradd_error *error);
GRADD_API int gradd_dataset_show(gradd_client *client, const char *dataset, gradd_dataset_info *ret_info,
                                 gradd_error *error);
GRADD_API int gradd_dataset_delete(gradd_client *client, const char *dataset, gradd_error *error);
/** Rows of a dataset's input or target, from `offset` on; fewer than `limit` at the end, none past it.
 *
 * @param split    "train", "test"
 * @param column   "input", "target"
 * @param ret_rows not NULL; (rows, ...); released with gradd_tensor_free()
 */
GRADD_API int gradd_dataset_rows(gradd_client *client, const char *dataset, const char *split,
                                 const char *column, int64_t offset, int64_t limit, gradd_tensor *ret_rows,
                                 gradd_error *error);

/* ---- jobs: training that runs in the daemon ------------------------------------------------------ */

/** Where a job stands; released with gradd_job_info_free(). */
typedef struct gradd_job_info {
    int64_t id;
    char state[16]; /* "queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed",
                       "cancelled" */
    char model[GRADD_MAX_NAME], dataset[GRADD_MAX_NAME];
    int64_t epoch, epochs;           /* that are over, and to be; epochs is -1 for a job by steps */
    int64_t step, total_steps;       /* of this job */
    double loss, lr;                 /* of the last step; NaN: none yet */
    double eval_loss, eval_accuracy; /* of the last evaluation; NaN: none yet */
    double samples_per_second, eta_seconds;
    char problem[64]; /* "failed" for this reason: the daemon's stable code, or "" */
    char error[512];  /* and in words */
    char created_at[40];
    char *json; /* the whole document */
} gradd_job_info;

typedef struct gradd_job_list {
    gradd_job_info *items;
    size_t count;
} gradd_job_list;

GRADD_API void gradd_job_info_free(gradd_job_info *info);
GRADD_API void gradd_job_list_free(gradd_job_list *list);
/** Is this the state of a job that has ended? */
GRADD_API bool gradd_job_ended(const gradd_job_info *info);

/** @param json    {"model": "lenet", "dataset": "digits", "epochs": 3, ...}
 *  @param options {"idempotency_key", ...}, or NULL */
GRADD_API int gradd_job_start(gradd_client *client, const char *json, const gradd_option *options,
                              gradd_job_info *ret_info, gradd_error *error);
/** The newest first. @param ret_list not NULL */
GRADD_API int gradd_job_list_all(gradd_client *client, gradd_job_list *ret_list, gradd_error *error);
/** @param wait_seconds 0: at once; else when its state changes, but not later than that */
GRADD_API int gradd_job_show(gradd_client *client, int64_t job, int wait_seconds, gradd_job_info *ret_info,
                             gradd_error *error);
GRADD_API int gradd_job_cancel(gradd_client *client, int64_t job, gradd_job_info *ret_info,
                               gradd_error *error);
GRADD_API int gradd_job_pause(gradd_client *client, int64_t job, gradd_job_info *ret_info,
                              gradd_error *error);
GRADD_API int gradd_job_resume(gradd_client *client, int64_t job, gradd_job_info *ret_info,
                               gradd_error *error);

/** Something that happened to a job. The strings are borrowed until the callback returns. */
typedef struct gradd_event {
    const char *id;   /* to go on after it another time; "" if it has none */
    const char *name; /* "metrics", "state", "log", "end" */
    const char *data; /* JSON */
} gradd_event;

/**
 * Follow a job until it ends. Broken connections are made again, and the events go on without a gap.
 *
 * @param after_id  of the last event that is known already; NULL: from the beginning
 * @param each      called for each event; false ends the call (with GRADD_OK)
 * @return GRADD_OK when the job has ended; GRADD_E_INTERRUPTED; GRADD_E_REFUSED (there is no such job) ...
 */
GRADD_API int gradd_job_watch(gradd_client *client, int64_t job, const char *after_id,
                              bool (*each)(void *argument, const gradd_event *event), void *argument,
                              gradd_error *error);

#ifdef __cplusplus
}
#endif
#endif
