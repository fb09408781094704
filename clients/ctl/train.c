/* train.c -- gradctl train: create a model, feed it shuffled batches, evaluate it after each epoch. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "data.h"
#include "progress.h"
#include "sampler.h"

enum {
    EVALUATE_ROWS = 1000,      /* samples of one evaluate request, at most */
    EVALUATE_BYTES = 16 << 20, /* and bytes */
};

typedef struct training {
    gradd_client *client;
    const ctl_options *options;
    char model[GRADD_MAX_NAME];
    ctl_images train, test;
    ctl_generator generator;
    int64_t *order;      /* (train.count) the epoch's permutation */
    gradd_tensor input;  /* (batch, channels, height, width) */
    gradd_tensor target; /* (batch) */
    FILE *log;           /* or NULL */
    ctl_progress progress;
    gradd_step_result last; /* of the last step */
} training;

/* ---- data ----------------------------------------------------------------------------------------- */

static int load(training *t) {
    const ctl_options *o = t->options;
    bool built_in = strcmp(o->data, "digits") == 0;
    int status = built_in ? ctl_images_fetch(t->client, o->data, "train", &t->train)
                          : ctl_images_read(o->data, "train", &t->train);
    if (!status) {
        status = built_in ? ctl_images_fetch(t->client, o->data, "test", &t->test)
                          : ctl_images_read(o->data, "t10k", &t->test);
    }
    const ctl_transform transform = {.pad = o->pad,
                                     .height = o->resize[0],
                                     .width = o->resize[1],
                                     .scale = (float)o->scale,
                                     .mean = (float)o->mean,
                                     .std = (float)o->std};
    if (!status) {
        status = ctl_images_transform(&transform, &t->train);
    }
    if (!status) {
        status = ctl_images_transform(&transform, &t->test);
    }
    if (!status && t->train.count >= CTL_RANDPERM_MAX) {
        status = ctl_error("more than %u training samples", (unsigned)CTL_RANDPERM_MAX);
    }
    if (!status && o->drop_last && t->train.count < o->batch_size) {
        status = ctl_error("--drop-last leaves nothing: %" PRId64 " samples are less than one batch",
                           t->train.count);
    }
    return status;
}

static int64_t sample_size(const ctl_images *images) {
    return images->channels * images->height * images->width;
}

/* Shape and memory of a batch of up to `rows` samples. */
static int make_batch(training *t, int64_t rows) {
    const ctl_images *images = &t->train;
    t->input = (gradd_tensor){
        .dtype = GRADD_FLOAT32, .rank = 4, .shape = {rows, images->channels, images->height, images->width}};
    t->target = (gradd_tensor){.dtype = GRADD_INT64, .rank = 1, .shape = {rows}};
    t->input.data = calloc((size_t)rows, (size_t)sample_size(images) * sizeof(float));
    t->target.data = calloc((size_t)rows, sizeof(int64_t));
    t->order = calloc((size_t)images->count, sizeof *t->order);
    return t->input.data && t->target.data && t->order ? CTL_OK : ctl_error("no memory for a batch");
}

/* Samples order[first ...] of the training split. */
static void gather(training *t, int64_t first, int64_t rows) {
    int64_t size = sample_size(&t->train);
    for (int64_t i = 0; i < rows; i++) {
        int64_t from = t->order[first + i];
        memcpy((float *)t->input.data + i * size, t->train.values + from * size,
               (size_t)size * sizeof(float));
        ((int64_t *)t->target.data)[i] = t->train.labels[from];
    }
    t->input.shape[0] = t->target.shape[0] = rows;
}

/* ---- the model -------------------------------------------------------------------------------------- */

/* With --replace the definition is checked before the old model goes. The daemon minds a taken name last,
 * so that answer says that all else is right. */
static int replace(training *t, const char *json) {
    gradd_error error = {0};
    json_t *definition = json_loads(json, 0, NULL);
    const char *name = json_string_value(json_object_get(definition, "name"));
    int status = CTL_OK;
    if (gradd_model_check(t->client, json, NULL, &error) && strcmp(error.problem, "name_taken") != 0) {
        status = ctl_call_error(&error);
    } else if (gradd_model_delete(t->client, name, false, &error) && error.http_status != 404) {
        status = ctl_call_error(&error);
    }
    json_decref(definition);
    return status;
}

static int create(training *t) {
    gradd_error error;
    gradd_model_info info;
    char *json = NULL;
    int status = ctl_definition_read(t->options->model, t->options, &json);
    if (!status && t->options->replace) {
        status = replace(t, json);
    }
    if (status) {
        goto out;
    }
    if (gradd_model_create(t->client, json, &info, &error)) {
        status = ctl_call_error(&error);
        if (strcmp(error.problem, "name_taken") == 0) {
            ctl_say("delete that model with `gradctl model rm NAME`, train with --replace, or give the new "
                    "one another name with --name");
        }
        goto out;
    }
    memcpy(t->model, info.name, sizeof t->model);
    ctl_say("model %s: %" PRId64 " parameters, %" PRId64 " values", info.name, info.parameter_count,
            info.parameter_numel);
    gradd_model_info_free(&info);
out:
    free(json);
    return status;
}

/* ---- training --------------------------------------------------------------------------------------- */

static int stop_with(training *t, const gradd_error *error) {
    if (error->code != GRADD_E_INTERRUPTED) {
        return ctl_call_error(error);
    }
    ctl_say("interrupted after step %" PRId64 "; model %s keeps what it has learned: gradctl model show %s",
            t->last.step, t->model, t->model);
    return CTL_INTERRUPTED;
}

/* One batch. @return exit status */
static int step(training *t, int64_t first, int64_t rows) {
    gradd_error error = {.code = GRADD_E_INTERRUPTED};
    gather(t, first, rows);
    if (ctl_interrupted(NULL) ||
        gradd_model_train_step(t->client, t->model, &t->input, &t->target, NULL, &t->last, &error)) {
        return stop_with(t, &error);
    }
    if (t->log && fprintf(t->log, "%" PRId64 ",%.9g\n", t->last.step, t->last.loss) < 0) {
        return ctl_error("cannot write %s: %s", t->options->log, strerror(errno));
    }
    if (!isfinite(t->last.loss)) {
        ctl_error("the loss is %g at step %" PRId64 ": training has diverged; try a smaller --lr",
                  t->last.loss, t->last.step);
        return CTL_FAILED;
    }
    return CTL_OK;
}

/* One pass over the shuffled training split. @param ret_loss mean over samples */
static int train_epoch(training *t, int64_t epoch, double *ret_loss) {
    const ctl_options *o = t->options;
    int64_t count = t->train.count, size = o->batch_size;
    int64_t batches = o->drop_last ? count / size : (count + size - 1) / size;
    double sum = 0;
    int64_t seen = 0, done = 0;
    char label[32];
    int status = CTL_OK;
    snprintf(label, sizeof label, "epoch %" PRId64 "/%" PRId64, epoch, o->epochs);
    ctl_randperm(&t->generator, count, t->order);
    ctl_progress_begin(&t->progress, label, batches, ctl_now_ns());
    while (done < batches) {
        int64_t rows = count - done * size < size ? count - done * size : size;
        status = step(t, done * size, rows);
        if (status) {
            break;
        }
        sum += t->last.loss * (double)rows;
        seen += rows;
        done++;
        ctl_progress_update(&t->progress, done, t->last.loss, t->last.lr, ctl_now_ns());
    }
    if (done) {
        ctl_progress_end(&t->progress, done, t->last.loss, t->last.lr, ctl_now_ns());
    }
    *ret_loss = sum / (double)(seen ? seen : 1);
    return status;
}

/* Loss and accuracy over the test split, in its own order. */
static int evaluate(training *t, double *ret_loss, double *ret_accuracy) {
    const ctl_images *test = &t->test;
    int64_t size = sample_size(test), rows = EVALUATE_BYTES / ((int64_t)sizeof(float) * size);
    rows = rows < 1 ? 1 : rows > EVALUATE_ROWS ? EVALUATE_ROWS : rows;
    double loss = 0, correct = 0;
    for (int64_t first = 0; first < test->count; first += rows) {
        int64_t n = test->count - first < rows ? test->count - first : rows;
        const gradd_tensor input = {.dtype = GRADD_FLOAT32,
                                    .rank = 4,
                                    .shape = {n, test->channels, test->height, test->width},
                                    .data = test->values + first * size};
        const gradd_tensor target = {
            .dtype = GRADD_INT64, .rank = 1, .shape = {n}, .data = test->labels + first};
        gradd_error error = {.code = GRADD_E_INTERRUPTED};
        gradd_evaluation part;
        if (ctl_interrupted(NULL) ||
            gradd_model_evaluate(t->client, t->model, &input, &target, &part, &error)) {
            return stop_with(t, &error);
        }
        loss += part.loss * (double)n;
        correct += part.accuracy * (double)n;
    }
    *ret_loss = loss / (double)test->count;
    *ret_accuracy = correct / (double)test->count;
    return CTL_OK;
}

static int train(training *t) {
    const ctl_options *o = t->options;
    double train_loss = NAN, test_loss = NAN, accuracy = NAN;
    ctl_generator_seed(&t->generator, (uint32_t)o->seed);
    for (int64_t epoch = 1; epoch <= o->epochs; epoch++) {
        int status = train_epoch(t, epoch, &train_loss);
        status = status ? status : evaluate(t, &test_loss, &accuracy);
        if (status) {
            return status;
        }
        printf("epoch %" PRId64 "/%" PRId64 ": training loss %.4f, test loss %.4f", epoch, o->epochs,
               train_loss, test_loss);
        if (!isnan(accuracy)) { /* a loss that does not look at the labels has none */
            printf(", test accuracy %.2f %%", 100 * accuracy);
        }
        printf("\n");
        fflush(stdout);
    }
    if (!isnan(accuracy)) {
        printf("test accuracy: %.2f %%\n", 100 * accuracy);
    } else {
        printf("test loss: %.4f\n", test_loss);
    }
    return CTL_OK;
}

static int open_log(training *t) {
    if (!t->options->log) {
        return CTL_OK;
    }
    t->log = fopen(t->options->log, "we");
    if (!t->log || fputs("step,loss\n", t->log) < 0) {
        return ctl_error("cannot write %s: %s", t->options->log, strerror(errno));
    }
    return CTL_OK;
}

static int close_log(training *t, int status) {
    if (t->log && fclose(t->log) && !status) {
        status = ctl_error("cannot write %s: %s", t->options->log, strerror(errno));
    }
    return status;
}

int ctl_train(gradd_client *client, const ctl_options *options) {
    training t = {.client = client, .options = options};
    int status = load(&t);
    if (!status) {
        int64_t rows = options->batch_size < t.train.count ? options->batch_size : t.train.count;
        status = make_batch(&t, rows);
    }
    if (!status) {
        status = open_log(&t);
    }
    if (!status) {
        status = create(&t);
    }
    if (!status) {
        ctl_block_interrupt();
        ctl_progress_open(&t.progress, options->progress);
        status = train(&t);
    }
    status = close_log(&t, status);
    ctl_images_release(&t.train);
    ctl_images_release(&t.test);
    gradd_tensor_free(&t.input);
    gradd_tensor_free(&t.target);
    free(t.order);
    return status;
}
