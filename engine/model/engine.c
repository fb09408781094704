/* engine.c -- threads and memory that models share. */
#include "engine/kernels/gemm.h"
#include "engine/model/model.h"

int gd_engine_new(const gd_engine_config *config, gd_engine **ret_engine, gd_error *error) {
    if (config->threads < 1 || config->threads > 256)
        return gd_fail_field(error, GD_E_VALUE, "threads", "threads must be 1 to 256, not %d",
                             config->threads);
    const gd_isa *isa;
    int code = gd_isa_choose(config->cpu_features, &isa, error);
    if (code)
        return code;
    gd_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return gd_fail(error, GD_E_MEMORY, "no memory for the engine");
    engine->isa = isa;
    engine->threads = config->threads;
    engine->budget.limit = config->memory_limit;
    code = gd_pool_new(config->threads - config->helpers_only, config->threads, &engine->pool, error);
    if (code) {
        free(engine);
        return code;
    }
    gd_blas_single_threaded();
    *ret_engine = engine;
    return 0;
}

void gd_engine_free(gd_engine *engine) {
    if (!engine)
        return;
    gd_pool_free(engine->pool);
    free(engine);
}

void gd_engine_submit(gd_engine *engine, gd_task *task) {
    gd_pool_submit(engine->pool, task);
}

const char *gd_engine_cpu_features(const gd_engine *engine) {
    return engine->isa->name;
}

int gd_engine_threads(const gd_engine *engine) {
    return engine->threads;
}

size_t gd_engine_memory(gd_engine *engine) {
    return atomic_load(&engine->budget.used);
}

size_t gd_engine_memory_limit(const gd_engine *engine) {
    return engine->budget.limit;
}
