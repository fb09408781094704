/* loss.c -- a model's loss: the sum of weight * term, each term a loss (engine/optim) on one output. */
#include <inttypes.h>

#include "engine/model/model.h"

/* ---- from a specification ----------------------------------------------------------------------------- */

/* What is wrong with a term of several: say which one it is. */
static int in_term(const gd_loss_spec *spec, size_t t, gd_error *error, int code) {
    char message[sizeof error->message];
    if (!error || error->code != code || spec->term_count < 2 || *error->path)
        return code;
    snprintf(message, sizeof message, "%s", error->message);
    snprintf(error->message, sizeof error->message, "term %zu of the loss: %.*s", t + 1,
             (int)sizeof error->message - 48, message);
    snprintf(error->path, sizeof error->path, "/loss/%zu", t);
    return code;
}

static int find_output(const gd_graph *graph, const char *name, size_t *ret_index, gd_error *error) {
    const char *names[GD_MAX_HEADS];
    for (int i = 0; i < graph->output_count; i++) {
        names[i] = graph->heads[i].name;
        if (!name || strcmp(names[i], name) == 0)
            return *ret_index = (size_t)i, 0;
    }
    const char *nearest = gd_nearest(name, names, (size_t)graph->output_count);
    return gd_fail_field(error, GD_E_GRAPH, "output", "the network has no output '%.64s'%s%s%s", name,
                         nearest ? "; did you mean '" : "; one is called '", nearest ? nearest : names[0],
                         nearest ? "'?" : "'");
}

static int find_input(const gd_graph *graph, const char *target, int *ret_index, gd_error *error) {
    for (int i = 0; i < graph->input_count; i++)
        if (strcmp(graph->inputs[i].name, target + 1) == 0)
            return *ret_index = i, 0;
    return gd_fail_field(error, GD_E_GRAPH, "target",
                         "the target '%.64s' is an input of the network, but there is no such input; "
                         "one is '@%.64s'",
                         target, graph->inputs[0].name);
}

/* Where a term's target comes from: an input of the network, or the caller, who gives each name once. */
static int wire_target(gd_loss_config *config, const gd_graph *graph, const gd_loss_spec *spec,
                       gd_loss_part *part, const gd_term_spec *term, gd_error *error) {
    const bool by_output = graph->names_outputs && spec->term_count > 1;
    const char *name = term->target ? term->target
                       : by_output  ? graph->heads[part->term.output].name
                                    : "target";
    part->input = part->target = -1;
    if (part->loss->no_target)
        return 0;
    if (!*name || strlen(name) >= GD_MAX_NAME)
        return gd_fail_field(error, GD_E_GRAPH, "target", "a target's name must have 1 to %d bytes",
                             GD_MAX_NAME - 1);
    if (!(part->term.target = gd_arena_strdup(&config->arena, name)))
        return gd_fail(error, GD_E_MEMORY, "no memory for the loss");
    if (*name == '@')
        return find_input(graph, name, &part->input, error);
    for (int i = 0; i < config->target_count; i++)
        if (strcmp(config->targets[i], name) == 0)
            return part->target = i, 0;
    part->target = config->target_count;
    config->targets[config->target_count++] = part->term.target;
    return 0;
}

static int configure_term(const gd_isa *isa, gd_loss_config *config, const gd_graph *graph,
                          const gd_loss_spec *spec, const gd_term_spec *term, gd_error *error) {
    gd_loss_part *part = &config->parts[config->count];
    const gd_kind *kind = gd_kind_find(GD_LOSSES, term->loss.type, error);
    if (!kind)
        return GD_E_UNKNOWN_KIND;
    void *attrs = gd_arena_alloc(&config->arena, 1, kind->attr_size);
    int code = attrs ? gd_attrs_parse(kind, term->loss.fields, term->loss.field_count, kind->module,
                                      &config->arena, attrs, error)
                     : gd_fail(error, GD_E_MEMORY, "no memory for the loss");
    if (code)
        return code;
    part->loss = gd_isa_loss(isa, (const gd_loss *)kind); /* a gd_loss begins with its kind */
    part->term = (gd_term){.kind = kind, .attrs = attrs, .weight = term->weight};
    if (!isfinite(term->weight))
        return gd_fail_field(error, GD_E_VALUE, "weight", "the weight of a loss must be a finite number");
    if ((code = find_output(graph, term->output, &part->term.output, error)) ||
        (code = wire_target(config, graph, spec, part, term, error)))
        return code;
    part->value = graph->outputs[part->term.output];
    part->first = true;
    for (int i = 0; i < config->count; i++)
        part->first = part->first && config->parts[i].value != part->value;
    config->outputs |= 1U << part->term.output;
    config->count++;
    return 0;
}

int gd_loss_configure(const gd_isa *isa, const gd_loss_spec *spec, const gd_graph *graph,
                      gd_loss_config *ret_config, gd_error *error) {
    gd_loss_config config = {.count = 0};
    if (spec->term_count > GD_MAX_TERMS)
        return gd_fail_field(error, GD_E_LIMIT, "loss", "the loss has %zu terms, at most %d are allowed",
                             spec->term_count, GD_MAX_TERMS);
    for (size_t t = 0; t < spec->term_count; t++) {
        int code = configure_term(isa, &config, graph, spec, &spec->terms[t], error);
        if (code) {
            gd_loss_config_release(&config);
            return in_term(spec, t, error, code);
        }
    }
    config.plain = config.count == 1 && config.parts[0].term.weight == 1;
    *ret_config = config;
    return 0;
}

void gd_loss_config_release(gd_loss_config *config) {
    gd_arena_release(&config->arena);
    *config = (gd_loss_config){.count = 0};
}

/* ---- checks -------------------------------------------------------------------------------------------- */

static int check_part(const gd_loss_part *part, const gd_tensor *output, const gd_tensor *target,
                      gd_loss_plan *ret_plan, gd_error *error) {
    const void *attrs = part->term.attrs;
    gd_tensor shape_only = *target;
    if (output->dtype != GD_FLOAT32)
        return gd_fail(error, GD_E_DTYPE, "a loss takes float32, but the network's output is %s",
                       gd_dtype_name(output->dtype));
    if (part->loss->no_target)
        return part->loss->prepare(attrs, output, target, ret_plan, error);
    const gd_dtype wanted = part->loss->target_dtype(attrs, &output->shape, &target->shape);
    if (target->dtype != wanted)
        shape_only.data = NULL; /* a wrong shape is the better message */
    int code = part->loss->prepare(attrs, output, &shape_only, ret_plan, error);
    if (!code && target->dtype != wanted)
        return gd_fail_field(error, GD_E_DTYPE, "target", "%s takes this target as %s, not %s",
                             part->loss->kind.module, gd_dtype_name(wanted), gd_dtype_name(target->dtype));
    return code;
}

/* The words that tell a term from the others: "the loss on 'logits': ...". */
static int in_part(const gd_loss_config *config, const gd_loss_part *part, const gd_graph *graph,
                   gd_error *error, int code) {
    char message[sizeof error->message];
    if (!error || !code || config->count < 2)
        return code;
    snprintf(message, sizeof message, "%s", error->message);
    snprintf(error->message, sizeof error->message, "term %d of the loss, on output '%.64s': %.*s",
             (int)(part - config->parts) + 1, graph->heads[part->term.output].name,
             (int)sizeof error->message - 128, message);
    return code;
}

int gd_loss_check(const gd_loss_config *config, const gd_graph *graph, const gd_tensor *outputs,
                  const gd_tensor *inputs, const gd_tensor *targets, gd_loss_batch *ret_batch,
                  gd_error *error) {
    static const gd_tensor none = {.dtype = GD_FLOAT32};
    for (int t = 0; t < config->count; t++) {
        const gd_loss_part *part = &config->parts[t];
        ret_batch->targets[t] = part->input >= 0    ? inputs[part->input]
                                : part->target >= 0 ? targets[part->target]
                                                    : none;
        int code = check_part(part, &outputs[part->term.output], &ret_batch->targets[t], &ret_batch->plans[t],
                              error);
        if (!code && !config->plain && ret_batch->plans[t].loss.rank)
            code = gd_fail_field(error, GD_E_STATE, "loss",
                                 "what is weighted or added up must be a scalar; use reduction \"mean\" or "
                                 "\"sum\"");
        if (code)
            return in_part(config, part, graph, error, code);
    }
    return 0;
}

int gd_loss_check_outputs(const gd_loss_config *config, const gd_graph *graph, const gd_tensor *outputs,
                          gd_error *error) {
    for (int t = 0; t < config->count; t++) {
        const gd_loss_part *part = &config->parts[t];
        int code = part->loss->check_output
                       ? part->loss->check_output(part->term.attrs, &outputs[part->term.output], error)
                       : 0;
        if (code)
            return in_part(config, part, graph, error, code);
    }
    return 0;
}

/* ---- memory -------------------------------------------------------------------------------------------- */

/* Where the pieces lie: the total, each term's result and what it saves, and last a gradient that is to be
 * added to another. */
typedef struct layout {
    size_t result[GD_MAX_TERMS], saved[GD_MAX_TERMS], gradient, bytes;
} layout;

/* The next `bytes`, from a cache line on. Each piece is far below 2^50 bytes, and they are few. */
static size_t take(layout *l, size_t bytes) {
    size_t rounded = 0, at = l->bytes;
    (void)gd_round_up(bytes, &rounded);
    l->bytes += rounded;
    return at;
}

static layout lay_out(const gd_loss_config *config, const gd_loss_plan *plans, const gd_tensor *outputs) {
    layout l = {.bytes = 0};
    size_t gradient = 0;
    if (config->count && !config->plain)
        (void)take(&l, sizeof(float));
    for (int t = 0; t < config->count; t++) {
        const size_t output = gd_tensor_bytes(&outputs[config->parts[t].term.output]);
        l.result[t] = take(&l, (size_t)gd_numel(&plans[t].loss) * sizeof(float));
        l.saved[t] = take(&l, plans[t].saved);
        if (!config->parts[t].first && output > gradient)
            gradient = output;
    }
    l.gradient = take(&l, gradient);
    return l;
}

size_t gd_loss_bytes(const gd_loss_config *config, const gd_loss_batch *batch, const gd_tensor *outputs) {
    return lay_out(config, batch->plans, outputs).bytes;
}

/* A target of a term, as it usually is. */
static gd_tensor usual_target(const gd_loss_part *part, const gd_tensor *output) {
    gd_tensor target = *output;
    if (part->loss->target_shape)
        target.shape = part->loss->target_shape(part->term.attrs, &output->shape);
    target.dtype = part->loss->target_dtype(part->term.attrs, &output->shape, &target.shape);
    return target;
}

int gd_loss_target_bytes(const gd_loss_config *config, const gd_tensor *outputs, size_t *ret_bytes,
                         gd_error *error) {
    size_t total = 0, bytes;
    for (int given = 0; given < config->target_count; given++) {
        int t = 0; /* the first of the terms that read it */
        while (config->parts[t].target != given)
            t++;
        const gd_tensor target = usual_target(&config->parts[t], &outputs[config->parts[t].term.output]);
        int code = gd_shape_bytes(&target.shape, target.dtype, &bytes, error);
        if (code)
            return code;
        if (!gd_add(total, bytes, &total))
            return gd_fail(error, GD_E_LIMIT, "these targets are larger than any memory");
    }
    *ret_bytes = total;
    return 0;
}

int gd_loss_foresee(const gd_loss_config *config, const gd_tensor *outputs, size_t *ret_bytes,
                    gd_error *error) {
    gd_loss_batch batch;
    for (int t = 0; t < config->count; t++) {
        const gd_loss_part *part = &config->parts[t];
        const gd_tensor *output = &outputs[part->term.output];
        const gd_tensor target = usual_target(part, output);
        int code = part->loss->prepare(part->term.attrs, output, &target, &batch.plans[t], error);
        if (code)
            return code;
    }
    *ret_bytes = gd_loss_bytes(config, &batch, outputs);
    return 0;
}

/* ---- computing ----------------------------------------------------------------------------------------- */

static gd_loss_call call_of(const gd_loss_config *config, const gd_loss_state *state, const layout *l,
                            const gd_tensor *outputs, int t) {
    char *memory = state->memory.data;
    return (gd_loss_call){.attrs = config->parts[t].term.attrs,
                          .output = &outputs[config->parts[t].term.output],
                          .target = &state->batch.targets[t],
                          .loss = (float *)(void *)(memory + l->result[t]),
                          .saved = memory + l->saved[t]};
}

void gd_loss_forward(const gd_loss_config *config, gd_loss_state *state, const gd_loss_batch *batch,
                     const gd_tensor *outputs) {
    state->batch = *batch;
    const layout l = lay_out(config, batch->plans, outputs);
    float total = 0;
    for (int t = 0; t < config->count; t++) {
        const gd_loss_call call = call_of(config, state, &l, outputs, t);
        config->parts[t].loss->forward(&call);
        const float weighted = (float)config->parts[t].term.weight * *call.loss;
        total = t ? total + weighted : weighted;
        state->values[t] = *call.loss;
    }
    if (!config->plain)
        *(float *)state->memory.data = total;
    state->result = (gd_tensor){GD_FLOAT32, {0}, state->memory.data};
    if (config->plain)
        state->result.shape = batch->plans[0].loss;
    state->value_count = state->result.shape.rank ? 0 : (size_t)config->count;
    state->computed = true;
}

/* dL/doutput = the sum, over the terms on that output, of weight * dterm/doutput; in the order of the terms.
 */
void gd_loss_backward(const gd_loss_config *config, const gd_loss_state *state, const gd_tensor *outputs,
                      gd_tensor *grads) {
    const layout l = lay_out(config, state->batch.plans, outputs);
    for (int t = 0; t < config->count; t++) {
        const gd_loss_part *part = &config->parts[t];
        const float weight = (float)part->term.weight;
        const int64_t count = gd_numel(&grads[part->value].shape);
        float *sum = grads[part->value].data;
        gd_loss_call call = call_of(config, state, &l, outputs, t);
        call.grad = part->first ? sum : (float *)(void *)((char *)state->memory.data + l.gradient);
        part->loss->backward(&call);
        for (int64_t i = 0; !part->first && i < count; i++)
            sum[i] += weight * call.grad[i];
        for (int64_t i = 0; part->first && weight != 1 && i < count; i++)
            sum[i] *= weight;
    }
}

void gd_loss_score(const gd_loss_config *config, const gd_loss_state *state, const gd_tensor *outputs,
                   gd_step_result *result) {
    const layout l = lay_out(config, state->batch.plans, outputs);
    result->loss = *(const float *)state->result.data;
    result->loss_count = state->value_count;
    memcpy(result->losses, state->values, sizeof result->losses);
    result->correct = -1;
    for (int t = 0; t < config->count; t++)
        if (state->batch.plans[t].class_indices && config->parts[t].loss->accuracy) {
            const gd_loss_call call = call_of(config, state, &l, outputs, t);
            config->parts[t].loss->accuracy(&call, &result->correct, &result->count);
            return;
        }
}
