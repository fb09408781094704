/* transformer.c -- layers of transformers, as blocks of the layers they are made of. Formulas and names:
 * torch.nn.TransformerEncoderLayer, TransformerDecoderLayer, TransformerEncoder.
 *
 * Layers are listed in the order in which torch registers them, which is that of parameters and of repr;
 * their inputs say in which order they are computed. */
#include "engine/graph/op.h"

struct transformer {
    int64_t d_model, nhead, dim_feedforward, num_layers;
    double dropout, layer_norm_eps;
    int activation;
    bool batch_first, norm_first, is_causal, norm;
};

static const char *const activations[] = {"relu", "gelu", NULL};

#define LAYER_ATTRS \
    GD_INT(struct transformer, d_model, .min = 1, .required = true, .doc = "features of input and output"), \
        GD_INT(struct transformer, nhead, .min = 1, .required = true, .doc = "heads; divides d_model"), \
        GD_INT(struct transformer, dim_feedforward, .min = 1, .number = 2048, \
               .doc = "features between linear1 and linear2"), \
        GD_FLOAT(struct transformer, dropout, .min = 0, .max = 1, .number = 0.1, .doc = "dropout"), \
        GD_CHOICE(struct transformer, activation, .choices = activations, .doc = "between the linears"), \
        GD_FLOAT(struct transformer, layer_norm_eps, .min = 0, .number = 1e-5, .doc = "eps of the norms"), \
        GD_BOOL(struct transformer, batch_first, .doc = "must be true: the batch comes first"), \
        GD_BOOL(struct transformer, norm_first, .doc = "norms before attention and linears, not after"), \
        GD_BOOL(struct transformer, is_causal, .doc = "self-attention looks only back")

static const gd_attr layer_attrs[] = {LAYER_ATTRS};
static const gd_attr encoder_attrs[] = {
    LAYER_ATTRS,
    GD_INT(struct transformer, num_layers, .min = 1, .max = 64, .required = true,
           .doc = "layers, one on another"),
    GD_BOOL(struct transformer, norm, .doc = "a LayerNorm at the end"),
};

#define INPUTS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define FIELDS(...) ((const gd_field[]){__VA_ARGS__}), GD_COUNT(((const gd_field[]){__VA_ARGS__}))
#define INT_FIELD(field, n) \
    { \
        field, { \
            .kind = GD_VALUE_INT, .integer = (n) \
        } \
    }
#define FLOAT_FIELD(field, x) \
    { \
        field, { \
            .kind = GD_VALUE_FLOAT, .number = (x) \
        } \
    }
#define BOOL_FIELD(field, b) \
    { \
        field, { \
            .kind = GD_VALUE_BOOL, .boolean = (b) \
        } \
    }

static void add_attention(gd_expansion *e, const struct transformer *a, const char *name, bool causal,
                          const char *const *inputs) {
    gd_expansion_add(e, "MultiheadAttention", name, inputs,
                     FIELDS(INT_FIELD("embed_dim", a->d_model), INT_FIELD("num_heads", a->nhead),
                            FLOAT_FIELD("dropout", a->dropout), BOOL_FIELD("batch_first", a->batch_first),
                            BOOL_FIELD("is_causal", causal)));
}

static void add_linear(gd_expansion *e, const char *name, const char *input, int64_t in, int64_t out) {
    gd_expansion_add(e, "Linear", name, INPUTS(input),
                     FIELDS(INT_FIELD("in_features", in), INT_FIELD("out_features", out)));
}

static void add_norm(gd_expansion *e, const struct transformer *a, const char *name,
                     const char *const *inputs) {
    gd_expansion_add(
        e, "LayerNorm", name, inputs,
        FIELDS(INT_FIELD("normalized_shape", a->d_model), FLOAT_FIELD("eps", a->layer_norm_eps)));
}

static void add_dropout(gd_expansion *e, const struct transformer *a, const char *name, const char *input) {
    gd_expansion_add(e, "Dropout", name, INPUTS(input), FIELDS(FLOAT_FIELD("p", a->dropout)));
}

static void add_sum(gd_expansion *e, const char *name, const char *x, const char *y) {
    gd_expansion_add(e, "add", name, INPUTS(x, y), NULL, 0);
}

/* linear2(dropout(activation(linear1(x)))), between which dropout stands in torch's order. */
static void add_feed_forward(gd_expansion *e, const struct transformer *a, const char *input) {
    add_linear(e, "linear1", input, a->d_model, a->dim_feedforward);
    gd_expansion_add(e, activations[a->activation], "activation", INPUTS("linear1"), NULL, 0);
    add_dropout(e, a, "dropout", "activation");
    add_linear(e, "linear2", "dropout", a->dim_feedforward, a->d_model);
}

/* after:  x = norm1(x + attention(x)); x = norm2(x + feed_forward(x))
 * before: x = x + attention(norm1(x)); x = x + feed_forward(norm2(x)) */
static int expand_encoder_layer(const void *attrs, gd_expansion *e, gd_error *error) {
    const struct transformer *a = attrs;
    const bool first = a->norm_first;
    (void)error;
    add_attention(e, a, "self_attn", a->is_causal, INPUTS(first ? "norm1" : "@input"));
    add_feed_forward(e, a, first ? "norm2" : "norm1");
    add_norm(e, a, "norm1", INPUTS(first ? "@input" : "sum1"));
    add_norm(e, a, "norm2", INPUTS(first ? "sum1" : "sum2"));
    add_dropout(e, a, "dropout1", "self_attn");
    add_dropout(e, a, "dropout2", "linear2");
    add_sum(e, "sum1", "@input", "dropout1");
    add_sum(e, "sum2", first ? "sum1" : "norm1", "dropout2");
    e->output = first ? "sum2" : "norm2";
    return 0;
}

/* As the encoder's, with attention to the memory, the second input, in between. */
static int expand_decoder_layer(const void *attrs, gd_expansion *e, gd_error *error) {
    const struct transformer *a = attrs;
    const bool first = a->norm_first;
    (void)error;
    add_attention(e, a, "self_attn", a->is_causal, INPUTS(first ? "norm1" : "@input"));
    add_attention(e, a, "multihead_attn", false, INPUTS(first ? "norm2" : "norm1", "@input:1", "@input:1"));
    add_feed_forward(e, a, first ? "norm3" : "norm2");
    add_norm(e, a, "norm1", INPUTS(first ? "@input" : "sum1"));
    add_norm(e, a, "norm2", INPUTS(first ? "sum1" : "sum2"));
    add_norm(e, a, "norm3", INPUTS(first ? "sum2" : "sum3"));
    add_dropout(e, a, "dropout1", "self_attn");
    add_dropout(e, a, "dropout2", "multihead_attn");
    add_dropout(e, a, "dropout3", "linear2");
    add_sum(e, "sum1", "@input", "dropout1");
    add_sum(e, "sum2", first ? "sum1" : "norm1", "dropout2");
    add_sum(e, "sum3", first ? "sum2" : "norm2", "dropout3");
    e->output = first ? "sum3" : "norm3";
    return 0;
}

/* Layers of one kind, which in torch begin as copies of one. */
static int expand_encoder(const void *attrs, gd_expansion *e, gd_error *error) {
    const struct transformer *a = attrs;
    gd_expansion layers = {.arena = e->arena};
    (void)error;
    for (int64_t i = 0; i < a->num_layers; i++) {
        gd_expansion inside = {.arena = e->arena};
        expand_encoder_layer(a, &inside, NULL);
        gd_layer_spec *layer = gd_expansion_add(&layers, "TransformerEncoderLayer", NULL, NULL, NULL, 0);
        layer->layers = inside.layers;
        layer->layer_count = inside.count;
        layer->output = inside.output;
        layer->copies = i ? "0" : NULL;
        e->failed = e->failed || inside.failed;
    }
    gd_layer_spec *list = gd_expansion_add(e, "ModuleList", "layers", NULL, NULL, 0);
    list->layers = layers.layers;
    list->layer_count = layers.count;
    e->failed = e->failed || layers.failed;
    if (a->norm)
        add_norm(e, a, "norm", NULL);
    return 0;
}

const gd_op gd_op_transformer_encoder_layer = {
    .kind = {.module = "TransformerEncoderLayer",
             .doc = "Self-attention and a feed-forward network, each with a residual and a norm.",
             GD_ATTRS(struct transformer, layer_attrs)},
    .expand = expand_encoder_layer,
    .min_inputs = 1,
    .max_inputs = 1,
};

const gd_op gd_op_transformer_decoder_layer = {
    .kind = {.module = "TransformerDecoderLayer",
             .doc = "As an encoder layer, with attention to a memory, the second input, in between.",
             GD_ATTRS(struct transformer, layer_attrs)},
    .expand = expand_decoder_layer,
    .min_inputs = 2,
    .max_inputs = 2,
};

const gd_op gd_op_transformer_encoder = {
    .kind = {.module = "TransformerEncoder",
             .doc = "Encoder layers, one on another; they begin alike, as in torch.",
             GD_ATTRS(struct transformer, encoder_attrs)},
    .expand = expand_encoder,
    .min_inputs = 1,
    .max_inputs = 1,
};
