/* config.c -- losses with their attributes. */
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
