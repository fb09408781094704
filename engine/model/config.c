/* config.c -- losses and optimizers with their attributes. */
#include "engine/model/model.h"

int gd_loss_configure(const gd_isa *isa, const gd_kind_spec *spec, gd_loss_config *ret_config,
                      gd_error *error) {
    gd_loss_config config = {0};
    if (!spec->type) {
        *ret_config = config;
        return 0;
    }
    const gd_kind *kind = gd_kind_find(GD_LOSSES, spec->type, error);
    if (!kind)
        return GD_E_UNKNOWN_KIND;
    config.loss = gd_isa_loss(isa, (const gd_loss *)kind); /* a gd_loss begins with its kind */
    config.attrs = gd_arena_alloc(&config.arena, 1, kind->attr_size);
    int code = config.attrs ? gd_attrs_parse(kind, spec->fields, spec->field_count, kind->module,
                                             &config.arena, config.attrs, error)
                            : gd_fail(error, GD_E_MEMORY, "no memory for the loss");
    if (code)
        gd_loss_config_release(&config);
    else
        *ret_config = config;
    return code;
}

void gd_loss_config_release(gd_loss_config *config) {
    gd_arena_release(&config->arena);
    *config = (gd_loss_config){0};
}

static int check(const gd_optimizer_config *config, gd_error *error) {
    return config->optimizer->check ? config->optimizer->check(config->attrs, error) : 0;
}

int gd_optimizer_configure(const gd_isa *isa, const gd_kind_spec *spec, gd_optimizer_config *ret_config,
                           gd_error *error) {
    gd_optimizer_config config = {0};
    if (!spec->type) {
        *ret_config = config;
        return 0;
    }
    const gd_kind *kind = gd_kind_find(GD_OPTIMIZERS, spec->type, error);
    if (!kind)
        return GD_E_UNKNOWN_KIND;
    config.optimizer = gd_isa_optimizer(isa, (const gd_optimizer *)kind); /* it begins with its kind */
    int code = gd_attrs_parse(kind, spec->fields, spec->field_count, kind->module, NULL, config.attrs, error);
    if (!code)
        code = check(&config, error);
    if (!code)
        *ret_config = config;
    return code;
}

int gd_optimizer_update(gd_optimizer_config *config, const gd_field *fields, size_t field_count,
                        gd_error *error) {
    gd_optimizer_config changed = *config;
    if (!config->optimizer)
        return gd_fail(
            error, GD_E_STATE,
            "the model has no optimizer; give it one first: {\"optimizer\": {\"type\": \"SGD\", ...}}");
    int code = gd_attrs_update(&config->optimizer->kind, fields, field_count, config->optimizer->kind.module,
                               changed.attrs, error);
    if (!code)
        code = check(&changed, error);
    if (!code)
        *config = changed;
    return code;
}

size_t gd_optimizer_state_bytes(const gd_optimizer_config *config, size_t slab_floats) {
    const gd_optimizer *optimizer = config->optimizer;
    if (optimizer && optimizer->closure)
        return optimizer->closure->state_bytes(config->attrs, (int64_t)slab_floats);
    return optimizer ? (size_t)optimizer->slot_count * slab_floats * sizeof(float) : 0;
}
