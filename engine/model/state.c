/* state.c -- all that a model's training depends on, as a list of named tensors: to save is to write them, to
 * load is to check and copy them. Sections, one after another, say what there is; each can say any of its
 * entries without going through those before it. */
#include "engine/model/model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

/* What integers of an entry may be, so that nothing that was read from a file leads astray. */
typedef struct range {
    int64_t least, most;
} range;

static const range any = {INT64_MIN, INT64_MAX}, flag = {0, 1}, tally = {0, INT64_C(1) << 53};

/* A model, or what it would be: with these slots of the optimizer's, hyperparameters in this config. */
typedef struct view {
    const gd_model *model;
    const gd_optimizer_config *optimizer;
    unsigned slots; /* bit k: slot k is there */
} view;

typedef struct section {
    size_t (*count)(const view *v);
    range (*at)(const view *v, size_t index, gd_state_entry *entry);
} section;

static unsigned slots_of(const gd_model *model) {
    unsigned slots = 0;
    for (int k = 0; model->optimizer.optimizer && k < model->optimizer.optimizer->slot_count; k++)
        slots |= (unsigned)(model->state[k].data != NULL) << k;
    return slots;
}

static view view_of(const gd_model *model) {
    return (view){model, &model->optimizer, slots_of(model)};
}

__attribute__((format(printf, 2, 3))) static void name(gd_state_entry *entry, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(entry->name, sizeof entry->name, format, arguments);
    va_end(arguments);
}

static gd_tensor scalar(gd_dtype dtype, const void *data) {
    return (gd_tensor){dtype, {0}, (void *)(uintptr_t)data};
}

static gd_tensor list(gd_dtype dtype, size_t count, const void *data) {
    return (gd_tensor){dtype, GD_SHAPE((int64_t)count), (void *)(uintptr_t)data};
}

/* ---- the sections ------------------------------------------------------------------------------------
 * Names end in torch's name of a parameter ("weight"), or in one that no parameter has; so layers may be
 * called what they like. */

static size_t parameter_count(const view *v) {
    return (size_t)v->model->graph->param_count;
}

static range parameter_at(const view *v, size_t index, gd_state_entry *entry) {
    name(entry, "%s", v->model->params[index].name);
    entry->tensor = v->model->tensors[index];
    return any;
}

static size_t trainable_count(const view *v) {
    return (size_t)v->model->trainable_count;
}

static range requires_grad_at(const view *v, size_t index, gd_state_entry *entry) {
    const gd_parameter *param = &v->model->params[v->model->trainable[index]];
    name(entry, "model.%s.requires_grad", param->name);
    entry->tensor = scalar(GD_UINT8, &param->requires_grad);
    return flag;
}

static size_t slot_count(const view *v) {
    return trainable_count(v) * (size_t)__builtin_popcount(v->slots);
}

static void name_slot(const gd_model *model, int p, int slot, gd_state_entry *entry) {
    name(entry, "optimizer.state.%s.%s", model->params[p].name, model->optimizer.optimizer->slot_names[slot]);
}

static range slot_at(const view *v, size_t index, gd_state_entry *entry) {
    const int p = v->model->trainable[index % trainable_count(v)];
    size_t before = index / trainable_count(v); /* how many slots */
    int k = 0;
    while (!(v->slots >> k & 1) || before--)
        k++;
    float *data = v->model->state[k].data; /* NULL: it is to be made */
    name_slot(v->model, p, k, entry);
    entry->tensor =
        (gd_tensor){GD_FLOAT32, v->model->params[p].shape, data ? data + v->model->offsets[p] : NULL};
    return any;
}

static size_t closure_count(const view *v) {
    return v->optimizer->optimizer && v->optimizer->optimizer->closure;
}

/* Numbers, then vectors as long as the slab: see take_apart() of lbfgs.c. */
static range closure_at(const view *v, size_t index, gd_state_entry *entry) {
    (void)index;
    name(entry, "optimizer.state");
    entry->tensor = list(GD_UINT8, gd_optimizer_closure_bytes(&v->model->optimizer, v->model->slab_floats),
                         v->model->state[GD_CLOSURE_STATE].data);
    return any;
}

static size_t hyperparameter_count(const view *v) {
    const gd_optimizer *optimizer = v->optimizer->optimizer;
    return optimizer ? v->optimizer->group_count * optimizer->kind.attr_count : 0;
}

static range integers_of(const gd_attr *row) {
    return (range){row->nullable ? GD_NONE : (int64_t)row->min, (int64_t)row->max};
}

static range choices_of(const gd_attr *row) {
    range r = {row->nullable ? -1 : 0, -1};
    while (row->choices[r.most + 1])
        r.most++;
    return r;
}

/* As they are now, whatever a scheduler has made of them. Optimizers have no lists of any length. */
static range hyperparameter_at(const view *v, size_t index, gd_state_entry *entry) {
    const gd_kind *kind = &v->optimizer->optimizer->kind;
    const size_t group = index / kind->attr_count;
    const gd_attr *row = &kind->attrs[index % kind->attr_count];
    const char *field = v->optimizer->groups[group].attrs + row->offset;
    name(entry, "optimizer.param_groups.%zu.%s", group, row->name);
    switch (row->type) {
    case GD_ATTR_BOOL:
        entry->tensor = scalar(GD_UINT8, field);
        return flag;
    case GD_ATTR_CHOICE:
        entry->tensor = scalar(GD_INT32, field);
        return choices_of(row);
    case GD_ATTR_INT:
        entry->tensor = scalar(GD_INT64, field);
        return integers_of(row);
    case GD_ATTR_INTN:
        entry->tensor = list(GD_INT64, (size_t)row->length, field);
        return integers_of(row);
    case GD_ATTR_FLOATN:
        entry->tensor = list(GD_FLOAT64, (size_t)row->length, field);
        return any;
    case GD_ATTR_FLOAT:
    case GD_ATTR_INTS:
    case GD_ATTR_FLOATS:
        break;
    }
    entry->tensor = scalar(GD_FLOAT64, field);
    return any;
}

enum { SCHEDULE_FIELDS = 2 /* besides its own numbers */ };

/* Entries of one group's scheduler and its children. */
static size_t schedule_size(const gd_schedule *schedule) {
    size_t size = schedule ? SCHEDULE_FIELDS + schedule->state_count : 0;
    for (size_t i = 0; schedule && i < schedule->child_count; i++)
        size += schedule_size(&schedule->children[i]);
    return size;
}

static size_t schedule_count(const view *v) {
    return v->optimizer->group_count * schedule_size(gd_model_scheduler(v->model));
}

static range schedule_at(const view *v, size_t index, gd_state_entry *entry) {
    const size_t size = schedule_size(gd_model_scheduler(v->model));
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): there is an entry, so there is a scheduler */
    const size_t group = index / size;
    const gd_schedule *top = gd_schedule_of(&v->model->schedule, group), *at = top;
    char child[24] = "";
    index %= size;
    for (size_t c = 0; index >= SCHEDULE_FIELDS + at->state_count; c++) { /* past this one */
        index -= SCHEDULE_FIELDS + at->state_count;
        at = &top->children[c];
        snprintf(child, sizeof child, "%zu.", c);
    }
    const char *const fields[SCHEDULE_FIELDS] = {"last_epoch", "base_lr"};
    const bool own = index >= SCHEDULE_FIELDS;
    name(entry, "scheduler.%zu.%s%s", group, child,
         own ? at->state_names[index - SCHEDULE_FIELDS] : fields[index]);
    entry->tensor = own     ? scalar(GD_FLOAT64, &at->state[index - SCHEDULE_FIELDS])
                    : index ? scalar(GD_FLOAT64, &at->base_lr)
                            : scalar(GD_INT64, &at->epoch);
    return index ? any : tally;
}

_Static_assert(sizeof(bool) == sizeof(uint8_t) && sizeof(int) == sizeof(int32_t), "they are saved as such");

enum { WORDS = sizeof((gd_rng){0}.state) / sizeof(uint32_t), SINGLES = 10 };

static size_t single_count(const view *v) {
    (void)v;
    return SINGLES;
}

/* What there is once. */
static range single_at(const view *v, size_t index, gd_state_entry *entry) {
    const gd_model *m = v->model;
    const int64_t params = m->graph->param_count;
    const struct {
        const char *name;
        gd_tensor tensor;
        range range;
    } singles[SINGLES] = {
        {"optimizer.steps", list(GD_INT64, (size_t)params, m->param_steps), tally},
        {"optimizer.scalars", {GD_FLOAT64, GD_SHAPE(params, GD_MAX_SCALARS), m->param_scalars}, any},
        {"rng.state", list(GD_INT32, WORDS, m->rng.state), any},
        {"rng.next", scalar(GD_INT32, &m->rng.next), {0, WORDS}},
        {"rng.has_spare", scalar(GD_UINT8, &m->rng.has_spare), flag},
        {"rng.spare", scalar(GD_FLOAT64, &m->rng.spare), any},
        {"model.step", scalar(GD_INT64, &m->steps), tally},
        {"model.version", scalar(GD_INT64, &m->version), tally},
        {"model.training", scalar(GD_UINT8, &m->training), flag},
        {"model.had_grad", list(GD_UINT8, (size_t)params, m->had_grad), flag},
    };
    name(entry, "%s", singles[index].name);
    entry->tensor = singles[index].tensor;
    return singles[index].range;
}

static const section parameters = {parameter_count, parameter_at},
                     hyperparameters = {hyperparameter_count, hyperparameter_at};

static const section *const sections[] = {
    &parameters,
    &(const section){trainable_count, requires_grad_at},
    &(const section){slot_count, slot_at},
    &(const section){closure_count, closure_at},
    &hyperparameters,
    &(const section){schedule_count, schedule_at},
    &(const section){single_count, single_at},
};

static size_t count_of(const view *v) {
    size_t count = 0;
    for (size_t s = 0; s < GD_COUNT(sections); s++)
        count += sections[s]->count(v);
    return count;
}

static range entry_at(const view *v, size_t index, gd_state_entry *entry) {
    size_t s = 0;
    for (size_t count; index >= (count = sections[s]->count(v)); s++)
        index -= count;
    return sections[s]->at(v, index, entry);
}

size_t gd_model_state_count(const gd_model *model) {
    const view v = view_of(model);
    return count_of(&v);
}

void gd_model_state_at(const gd_model *model, size_t index, gd_state_entry *ret_entry) {
    const view v = view_of(model);
    (void)entry_at(&v, index, ret_entry);
}

/* ---- loading: what is given ------------------------------------------------------------------------- */

typedef struct loading {
    gd_model *model;
    view view;                    /* what the model is to be */
    gd_optimizer_config staged;   /* with the hyperparameters given, in the model's spare groups */
    const gd_state_entry **given; /* (count) by name */
    size_t count;
    bool *known;                   /* (count): the model has one of that name */
    const gd_state_entry **wanted; /* (wanted_count): for each of the view's entries, the one given */
    size_t wanted_count;
    gd_error *error;
} loading;

static int by_name(const void *a, const void *b) {
    return strcmp((*(const gd_state_entry *const *)a)->name, (*(const gd_state_entry *const *)b)->name);
}

static const gd_state_entry *find(loading *l, const gd_state_entry *wanted) {
    const gd_state_entry **at = bsearch(&wanted, l->given, l->count, sizeof *l->given, by_name);
    if (at)
        l->known[at - l->given] = true;
    return at ? *at : NULL;
}

/* An element of an integer tensor, which in a file may lie anywhere. */
static int64_t integer_at(const gd_tensor *tensor, int64_t index) {
    int64_t wide;
    int32_t narrow;
    switch (tensor->dtype) {
    case GD_INT64:
        memcpy(&wide, (const char *)tensor->data + index * 8, sizeof wide);
        return wide;
    case GD_INT32:
        memcpy(&narrow, (const char *)tensor->data + index * 4, sizeof narrow);
        return narrow;
    case GD_UINT8:
        return ((const uint8_t *)tensor->data)[index];
    case GD_FLOAT32:
    case GD_FLOAT64:
        break;
    }
    return 0;
}

static int check_values(const gd_state_entry *given, range allowed, gd_error *error) {
    const int64_t count =
        allowed.least == any.least && allowed.most == any.most ? 0 : gd_numel(&given->tensor.shape);
    for (int64_t i = 0; i < count; i++) {
        const int64_t value = integer_at(&given->tensor, i);
        if (value < allowed.least || value > allowed.most)
            return gd_fail(error, GD_E_VALUE,
                           "'%s' in the state holds %" PRId64 ", but it can only be %" PRId64 " to %" PRId64,
                           given->name, value, allowed.least, allowed.most);
    }
    return 0;
}

static int check_entry(const gd_state_entry *wanted, const gd_state_entry *given, range allowed,
                       gd_error *error) {
    char is[128], should[128];
    if (!given)
        return gd_fail(error, GD_E_NOT_FOUND, "the state has no '%s', which the model needs", wanted->name);
    if (given->tensor.dtype != wanted->tensor.dtype)
        return gd_fail(error, GD_E_DTYPE, "'%s' in the state is %s, the model's is %s", wanted->name,
                       gd_dtype_name(given->tensor.dtype), gd_dtype_name(wanted->tensor.dtype));
    if (!gd_shape_equal(&given->tensor.shape, &wanted->tensor.shape))
        return gd_fail(error, GD_E_SHAPE, "'%s' in the state is %s, the model's is %s", wanted->name,
                       gd_shape_text(&given->tensor.shape, is, sizeof is),
                       gd_shape_text(&wanted->tensor.shape, should, sizeof should));
    return check_values(given, allowed, error);
}

static bool is_given(loading *l, int slot) {
    gd_state_entry entry;
    bool found = false;
    for (int t = 0; t < l->model->trainable_count && !found; t++) {
        name_slot(l->model, l->model->trainable[t], slot, &entry);
        found = find(l, &entry);
    }
    return found;
}

/* Slots may be there or not: a step's own hyperparameters may have turned one on. */
static unsigned slots_given(loading *l) {
    const gd_optimizer *optimizer = l->model->optimizer.optimizer;
    unsigned slots = 0;
    for (int k = 0; optimizer && k < optimizer->slot_count; k++)
        slots |= (unsigned)is_given(l, k) << k;
    return slots;
}

static int match(loading *l) {
    int code = 0;
    gd_state_entry wanted;
    for (size_t i = 0; i < l->wanted_count && !code; i++) {
        const range allowed = entry_at(&l->view, i, &wanted);
        l->wanted[i] = find(l, &wanted);
        code = check_entry(&wanted, l->wanted[i], allowed, l->error);
    }
    for (size_t i = 0; i < l->count && !code; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
        if (i + 1 < l->count && strcmp(l->given[i]->name, l->given[i + 1]->name) == 0)
            code = gd_fail(l->error, GD_E_VALUE, "'%s' is in the state twice", l->given[i]->name);
        else if (!l->known[i])
            code = gd_fail(l->error, GD_E_NOT_FOUND, "the state has '%s', but the model has no such thing",
                           l->given[i]->name);
    }
    return code;
}

/* ---- loading: what comes of it ---------------------------------------------------------------------- */

/* Copy the entries of a section, or of all. */
static void copy(const loading *l, const section *only) {
    gd_state_entry to;
    size_t first = 0;
    for (size_t s = 0; s < GD_COUNT(sections); first += sections[s++]->count(&l->view))
        for (size_t i = 0; (!only || only == sections[s]) && i < sections[s]->count(&l->view); i++) {
            (void)sections[s]->at(&l->view, i, &to);
            if (gd_tensor_bytes(&to.tensor))
                memcpy(to.tensor.data, l->wanted[first + i]->tensor.data, gd_tensor_bytes(&to.tensor));
        }
}

/* Whether the optimizer with the hyperparameters given has all that they need. */
static int check_optimizer(loading *l) {
    gd_model *model = l->model;
    const gd_optimizer *optimizer = l->staged.optimizer;
    size_t sizes[GD_STATE_BLOCKS];
    if (!optimizer)
        return 0;
    l->staged.groups = model->optimizer.spare;
    memcpy(l->staged.groups, model->optimizer.groups, l->staged.group_count * sizeof *l->staged.groups);
    l->view.optimizer = &l->staged;
    copy(l, &hyperparameters);
    l->view.optimizer = &model->optimizer;
    gd_optimizer_state_sizes(&l->staged, model->schedule.schedule, model->slab_floats, sizes);
    for (int k = 0; k < optimizer->slot_count && model->trainable_count; k++)
        if (sizes[k] && !(l->view.slots >> k & 1))
            return gd_fail(
                l->error, GD_E_NOT_FOUND,
                "the state has no %s of '%s', which %s needs with the hyperparameters in the state",
                optimizer->slot_names[k], model->params[model->trainable[0]].name, optimizer->kind.module);
    if (sizes[GD_CLOSURE_STATE] != gd_optimizer_closure_bytes(&model->optimizer, model->slab_floats))
        return gd_fail_field(l->error, GD_E_SHAPE, "history_size",
                             "%s's history_size in the state is not the model's", optimizer->kind.module);
    return 0;
}

static int check_closure(loading *l) {
    gd_state_entry wanted;
    if (!closure_count(&l->view))
        return 0;
    (void)closure_at(&l->view, 0, &wanted);
    return l->staged.optimizer->closure->valid(l->staged.groups[0].attrs, find(l, &wanted)->tensor.data)
               ? 0
               : gd_fail(l->error, GD_E_VALUE, "'%s' in the state is none that %s can have", wanted.name,
                         l->staged.optimizer->kind.module);
}

static int make_room(const loading *l) {
    gd_block *blocks[GD_MAX_SLOTS];
    size_t sizes[GD_MAX_SLOTS];
    for (int k = 0; k < GD_MAX_SLOTS; k++) {
        blocks[k] = &l->model->state[k];
        sizes[k] = l->view.slots >> k & 1 ? l->model->slab_floats * sizeof(float) : 0;
    }
    return gd_blocks_grow(blocks, sizes, GD_MAX_SLOTS, gd_model_budget(l->model), l->error);
}

/* What the copied values mean for the rest of the model. A parameter's version is not part of the state: the
 * model's is at least as high as any that was seen before. */
static void settle(const loading *l, uint64_t version_before) {
    gd_model *model = l->model;
    if (model->version <= version_before)
        model->version = version_before + 1;
    for (int k = 0; k < GD_MAX_SLOTS; k++)
        if (!(l->view.slots >> k & 1))
            gd_block_release(&model->state[k], gd_model_budget(model));
    gd_model_zero_grad(model);
    for (int p = 0; p < model->graph->param_count; p++) {
        gd_parameter *param = &model->params[p];
        model->grad_tensors[p].data = param->requires_grad ? param->grad : NULL;
        param->has_grad = false;
        param->version = model->version;
    }
    gd_model_forget(model);
}

static int begin(loading *l, gd_model *model, const gd_state_entry *entries, size_t count) {
    *l = (loading){.model = model,
                   .view = view_of(model),
                   .staged = model->optimizer,
                   .count = count,
                   .error = l->error};
    l->given = calloc(count + 1, sizeof *l->given);
    l->known = calloc(count + 1, sizeof *l->known);
    if (!l->given || !l->known)
        return gd_fail(l->error, GD_E_MEMORY, "no memory to load a state");
    for (size_t i = 0; i < count; i++)
        l->given[i] = &entries[i];
    qsort(l->given, count, sizeof *l->given, by_name);
    if (model->trainable_count)
        l->view.slots = slots_given(l);
    l->wanted_count = count_of(&l->view);
    l->wanted = calloc(l->wanted_count, sizeof *l->wanted);
    return l->wanted ? 0 : gd_fail(l->error, GD_E_MEMORY, "no memory to load a state");
}

int gd_model_state_load(gd_model *model, const gd_state_entry *entries, size_t count, gd_error *error) {
    loading l = {.error = error};
    const uint64_t version = model->version;
    int code = begin(&l, model, entries, count);
    if (!code && !(code = match(&l)) && !(code = check_optimizer(&l)) && !(code = check_closure(&l)) &&
        !(code = make_room(&l))) {
        copy(&l, NULL);
        settle(&l, version);
    }
    free(l.given);
    free(l.known);
    free(l.wanted);
    return code;
}
