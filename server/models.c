/* models.c */
#include "models.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "log.h"

int gs_models_init(gs_models *models, gs_executor *executor, size_t limit, size_t memory_limit) {
    *models = (gs_models){.limit = limit, .executor = executor, .kept.limit = memory_limit};
    models->items = calloc(limit, sizeof(gs_hosted *));
    if (!models->items) {
        return -1;
    }
    if (getrandom(&models->boot, sizeof models->boot, 0) != sizeof models->boot) {
        models->boot = (uint64_t)gs_time_ms();
    }
    pthread_mutex_init(&models->lock, NULL);
    return 0;
}

void gs_models_release(gs_models *models) {
    if (!models->items) {
        return;
    }
    for (size_t i = 0; i < models->count; i++) {
        gs_hosted_unref(models->items[i]);
    }
    free(models->items);
    pthread_mutex_destroy(&models->lock);
}

/* Under the lock: where `name` is, or where it belongs. */
static size_t position(const gs_models *models, const char *name, bool *ret_found) {
    size_t low = 0, high = models->count;
    *ret_found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(models->items[middle]->name, name);
        if (!order) {
            *ret_found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Under the lock. */
static int check(const gs_models *models, const char *name, size_t *ret_position, gp_error *error) {
    bool found;
    *ret_position = position(models, name, &found);
    if (found) {
        return gp_fail(error, GP_NAME_TAKEN, "/name",
                       "there is a model named \"%s\"; delete it first or take another name", name);
    }
    if (models->count == models->limit) {
        return gp_fail(error, GP_TOO_MANY_MODELS, "",
                       "%zu models are hosted, as many as --max-models allows; delete one", models->count);
    }
    return 0;
}

int gs_models_check(gs_models *models, const char *name, gp_error *error) {
    size_t at;
    pthread_mutex_lock(&models->lock);
    int result = check(models, name, &at, error);
    pthread_mutex_unlock(&models->lock);
    return result;
}

void gs_hosted_ref(gs_hosted *hosted) {
    atomic_fetch_add_explicit(&hosted->references, 1, memory_order_relaxed);
}

static void hold_hosted(void *owner) {
    gs_hosted_ref(owner);
}

static void release_hosted(void *owner) {
    gs_hosted_unref(owner);
}

gs_hosted *gs_hosted_new(gs_models *models, uint64_t id, const char *name, gd_model *model, char *definition,
                         uint64_t seed) {
    gs_hosted *hosted = calloc(1, sizeof *hosted);
    if (!hosted) {
        return NULL;
    }
    snprintf(hosted->name, sizeof hosted->name, "%s", name);
    snprintf(hosted->class_name, sizeof hosted->class_name, "%s", gd_graph_class_name(gd_model_graph(model)));
    hosted->models = models;
    hosted->id = id ? id : atomic_fetch_add(&models->last_id, 1) + 1;
    hosted->seed = seed;
    hosted->created_ms = gs_time_ms();
    hosted->last_loss = NAN;
    hosted->model = model;
    hosted->definition = definition;
    atomic_init(&hosted->saved.version, gd_model_version(model));
    atomic_init(&hosted->references, 1);
    gs_queue_init(&hosted->queue, models->executor, hosted, hold_hosted, release_hosted);
    gs_history_init(&hosted->history, &models->history);
    pthread_mutex_init(&hosted->lock, NULL);
    gs_hosted_publish(hosted);
    return hosted;
}

int gs_models_add(gs_models *models, gs_hosted *hosted, gp_error *error) {
    size_t at;
    pthread_mutex_lock(&models->lock);
    int result = check(models, hosted->name, &at, error);
    if (!result) {
        memmove(models->items + at + 1, models->items + at, (models->count - at) * sizeof *models->items);
        hold_hosted(hosted);
        models->items[at] = hosted;
        models->count++;
    }
    pthread_mutex_unlock(&models->lock);
    return result;
}

gs_hosted *gs_models_find(gs_models *models, const char *name) {
    bool found;
    pthread_mutex_lock(&models->lock);
    size_t at = position(models, name, &found);
    gs_hosted *hosted = found ? models->items[at] : NULL;
    if (hosted) {
        hold_hosted(hosted);
    }
    pthread_mutex_unlock(&models->lock);
    return hosted;
}

void gs_models_remove(gs_models *models, gs_hosted *hosted) {
    bool found;
    pthread_mutex_lock(&models->lock);
    size_t at = position(models, hosted->name, &found);
    found = found && models->items[at] == hosted;
    if (found) {
        models->count--;
        memmove(models->items + at, models->items + at + 1, (models->count - at) * sizeof *models->items);
        atomic_store(&hosted->deleted, true);
    }
    pthread_mutex_unlock(&models->lock);
    if (found) {
        gs_hosted_unref(hosted);
    }
}

size_t gs_models_list(gs_models *models, const char *after, gs_hosted **ret_hosted, size_t max) {
    bool found;
    pthread_mutex_lock(&models->lock);
    size_t at = position(models, after, &found) + found, count = 0;
    for (; at < models->count && count < max; at++) {
        hold_hosted(models->items[at]);
        ret_hosted[count++] = models->items[at];
    }
    pthread_mutex_unlock(&models->lock);
    return count;
}

size_t gs_models_history_memory(gs_models *models) {
    size_t bytes = 0;
    pthread_mutex_lock(&models->lock);
    for (size_t i = 0; i < models->count; i++) {
        bytes += gs_history_memory(&models->items[i]->history);
    }
    pthread_mutex_unlock(&models->lock);
    return bytes;
}

size_t gs_models_count(gs_models *models) {
    pthread_mutex_lock(&models->lock);
    size_t count = models->count;
    pthread_mutex_unlock(&models->lock);
    return count;
}

void gs_hold_release(gs_hold *hold) {
    for (size_t i = 0; i < hold->count; i++) {
        gs_buffer_unref(hold->buffers[i]);
    }
    hold->count = 0;
}

void gs_document_clear(gs_document *document) {
    gp_text_release(&document->identity);
    gp_text_release(&document->structure);
    gp_text_release(&document->settings);
}

void gs_hosted_unref(gs_hosted *hosted) {
    if (atomic_fetch_sub_explicit(&hosted->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    gd_model_free(hosted->model);
    free(hosted->definition);
    gs_hold_release(&hosted->inputs);
    gs_hold_release(&hosted->target);
    gs_history_release(&hosted->history);
    gs_document_clear(&hosted->document);
    pthread_mutex_destroy(&hosted->lock);
    free(hosted);
}

static size_t held_bytes(const gs_hosted *hosted) {
    const gs_hold *holds[] = {&hosted->inputs, &hosted->target};
    size_t bytes = 0;
    const gs_buffer *last = NULL;
    for (size_t h = 0; h < 2; h++) {
        for (size_t i = 0; i < holds[h]->count; i++) {
            /* one body that holds every tensor counts once */
            bytes += holds[h]->buffers[i] == last ? 0 : holds[h]->buffers[i]->capacity;
            last = holds[h]->buffers[i];
        }
    }
    return bytes;
}

size_t gs_hosted_memory(const gs_hosted *hosted) {
    return gd_model_memory(hosted->model) + held_bytes(hosted);
}

void gs_hosted_record(gs_hosted *hosted, const gd_step_result *result) {
    const int64_t now = gs_clock_us(), since = hosted->last_step_us;
    const bool counted = result->count > 0, classes = counted && result->correct >= 0;
    gs_point point = {
        .step = result->step,
        .time_ms = gs_time_ms(),
        .value = {[GS_LOSS] = result->loss, [GS_LR] = result->lr, [GS_GRAD_NORM] = result->grad_norm}};
    hosted->last_step_us = now;
    if (classes) {
        point.value[GS_ACCURACY] = (double)result->correct / (double)result->count;
    } else {
        point.lacks |= 1u << GS_ACCURACY;
    }
    if (counted && since && now > since) {
        point.value[GS_SAMPLES_PER_SECOND] = (double)result->count * 1e6 / (double)(now - since);
    } else {
        point.lacks |= 1u << GS_SAMPLES_PER_SECOND;
    }
    gs_history_add(&hosted->history, &point);
}

void gs_hosted_publish(gs_hosted *hosted) {
    gs_summary summary = {
        .version = gd_model_version(hosted->model),
        .step = gd_model_steps(hosted->model),
        .training = gd_model_training(hosted->model),
        .memory = gs_hosted_memory(hosted),
        .numel = hosted->summary.numel, /* these two never change */
        .parameters = hosted->summary.parameters,
    };
    if (!summary.parameters) {
        for (size_t i = 0; i < gd_model_parameter_count(hosted->model); i++) {
            const gd_parameter *parameter = gd_model_parameter(hosted->model, i);
            summary.parameters += !parameter->buffer;
            summary.numel += parameter->buffer ? 0 : parameter->numel;
        }
    }
    pthread_mutex_lock(&hosted->lock);
    hosted->summary = summary;
    pthread_mutex_unlock(&hosted->lock);
}

gs_summary gs_hosted_summary(gs_hosted *hosted) {
    pthread_mutex_lock(&hosted->lock);
    gs_summary summary = hosted->summary;
    pthread_mutex_unlock(&hosted->lock);
    return summary;
}

void gs_hosted_etag(const gs_hosted *hosted, char *text, size_t size) {
    snprintf(text, size, "\"%" PRIx64 "-%" PRIu64 "-%" PRIu64 "\"", hosted->models->boot, hosted->id,
             gd_model_version(hosted->model));
}

void gs_parameter_etag(const gs_hosted *hosted, size_t index, char *text, size_t size) {
    snprintf(text, size, "\"%" PRIx64 "-%" PRIu64 "-p%zu-%" PRIu64 "\"", hosted->models->boot, hosted->id,
             index, gd_model_parameter(hosted->model, index)->version);
}

bool gs_models_have_room(const gs_models *models, size_t size) {
    size_t limit = models->kept.limit,
           others = gd_engine_memory(models->executor->engine) + atomic_load(&models->kept.used);
    return size <= limit && others <= limit - size;
}

int gs_hosted_charge(gs_hosted *hosted, const gs_hold *hold, gp_error *error) {
    gs_budget *kept = &hosted->models->kept;
    gd_engine *engine = hosted->models->executor->engine;
    for (size_t i = 0; i < hold->count; i++) {
        size_t others = gd_engine_memory(engine) + atomic_load(&kept->used),
               size = hold->buffers[i]->capacity;
        if (hold->buffers[i]->budget == kept) {
            continue;
        }
        if (!gs_models_have_room(hosted->models, size) || !gs_buffer_charge(hold->buffers[i], kept)) {
            return gp_fail(
                error, GP_OUT_OF_MEMORY, "",
                "a batch of %zu bytes beside the %zu that models hold would exceed --max-memory %zu; "
                "send a smaller batch or delete a model",
                size, others, kept->limit);
        }
    }
    return 0;
}
