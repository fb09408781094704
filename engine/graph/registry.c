/* registry.c -- the tables of everything that has a name, and looking it up. */
#include "engine/graph/isa.h"
#include "engine/model/initializer.h"
#include "engine/optim/scheduler.h"

#define SCHEDULER(name) extern const gd_scheduler gd_scheduler_##name;
#include "engine/optim/schedulers.def"
#undef SCHEDULER
#define INITIALIZER(name) extern const gd_initializer gd_initializer_##name;
#include "engine/model/initializers.def"
#undef INITIALIZER

const gd_scheduler *const gd_schedulers[] = {
#define SCHEDULER(name) &gd_scheduler_##name,
#include "engine/optim/schedulers.def"
#undef SCHEDULER
};
const size_t gd_scheduler_count = GD_COUNT(gd_schedulers);

const gd_initializer *const gd_initializers[] = {
#define INITIALIZER(name) &gd_initializer_##name,
#include "engine/model/initializers.def"
#undef INITIALIZER
};
const size_t gd_initializer_count = GD_COUNT(gd_initializers);

static const char *const family_names[] = {[GD_OPS] = "layer type",
                                           [GD_LOSSES] = "loss",
                                           [GD_OPTIMIZERS] = "optimizer",
                                           [GD_SCHEDULERS] = "scheduler",
                                           [GD_INITIALIZERS] = "initialiser"};
static const char *const paths[] = {[GD_OPS] = "ops",
                                    [GD_LOSSES] = "losses",
                                    [GD_OPTIMIZERS] = "optimizers",
                                    [GD_SCHEDULERS] = "schedulers",
                                    [GD_INITIALIZERS] = "initializers"};

const gd_kind *gd_kind_at(gd_family family, size_t index) {
    const gd_isa *isa = &gd_isa_portable;
    switch (family) {
    case GD_OPS:
        return index < isa->op_count ? &isa->ops[index]->kind : NULL;
    case GD_LOSSES:
        return index < isa->loss_count ? &isa->losses[index]->kind : NULL;
    case GD_OPTIMIZERS:
        return index < isa->optimizer_count ? &isa->optimizers[index]->kind : NULL;
    case GD_SCHEDULERS:
        return index < gd_scheduler_count ? &gd_schedulers[index]->kind : NULL;
    case GD_INITIALIZERS:
        return index < gd_initializer_count ? &gd_initializers[index]->kind : NULL;
    }
    return NULL;
}

static bool same(const char *a, const char *b) {
    return a && strcmp(a, b) == 0;
}

const gd_kind *gd_kind_find(gd_family family, const char *type, gd_error *error) {
    enum { MOST = 512 };
    const char *names[MOST];
    size_t count = 0;
    const gd_kind *kind;
    for (size_t i = 0; (kind = gd_kind_at(family, i)); i++) {
        if (same(kind->module, type) || same(kind->function, type))
            return kind;
        for (int k = 0; k < 2 && count < MOST; k++)
            names[count++] = k ? kind->function : kind->module;
    }
    const char *near = gd_nearest(type, names, count);
    if (near)
        gd_fail_field(error, GD_E_UNKNOWN_KIND, "type", "there is no %s '%.60s'; did you mean '%s'?",
                      family_names[family], type, near);
    else
        gd_fail_field(error, GD_E_UNKNOWN_KIND, "type",
                      "there is no %s '%.60s'; GET /v1/%s lists what there is", family_names[family], type,
                      paths[family]);
    return NULL;
}
