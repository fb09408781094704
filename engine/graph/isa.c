/* isa.c -- which instruction sets there is code for, and choosing one. */
#include "engine/graph/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

extern const gd_isa gd_isa_avx2, gd_isa_avx512, gd_isa_amx;

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
/* Of a matrix unit Linux gives a process the registers, 8 kB a thread, when it asks for them. (libgcc's
 * __builtin_cpu_supports() knows the names, and says no.) */
static bool has_amx(void) {
    enum { TILE = 1 << 24, BF16 = 1 << 22, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & TILE && d & BF16 &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif
static bool has_all(void) {
    return true;
}

/* Best first. */
static const struct variant {
    const gd_isa *isa;
    bool (*supported)(void);
} variants[] = {
#if defined(__x86_64__)
    {&gd_isa_amx, has_amx},
    {&gd_isa_avx512, has_avx512},
    {&gd_isa_avx2, has_avx2},
#endif
    {&gd_isa_portable, has_all},
};

const char *gd_cpu_features_at(size_t index) {
    size_t found = 0;
    for (size_t i = 0; i < GD_COUNT(variants); i++)
        if (variants[i].supported() && found++ == index)
            return variants[i].isa->name;
    return NULL;
}

int gd_isa_choose(const char *name, const gd_isa **ret_isa, gd_error *error) {
    const bool any = !name || strcmp(name, "auto") == 0;
    for (size_t i = 0; i < GD_COUNT(variants); i++) {
        const bool named = any || strcmp(variants[i].isa->name, name) == 0;
        if (named && variants[i].supported()) {
            *ret_isa = variants[i].isa;
            return 0;
        }
        if (named && !any)
            return gd_fail_field(error, GD_E_VALUE, "cpu_features",
                                 "this processor cannot run %s code; 'auto' takes the best it can", name);
    }
    return gd_fail_field(error, GD_E_VALUE, "cpu_features",
                         "there is no code for '%.40s'; give auto, portable%s", name,
                         GD_COUNT(variants) > 1 ? ", avx2, avx512 or amx" : "");
}

/* Every variant has the same tables: a place in one is the place in all. */
#define TWIN(kind, singular, plural) \
    const kind *gd_isa_##singular(const gd_isa *isa, const kind *which) { \
        for (size_t i = 0; i < isa->singular##_count; i++) \
            if (gd_isa_portable.plural[i] == which) \
                return isa->plural[i]; \
        return which; \
    }
TWIN(gd_op, op, ops)
TWIN(gd_loss, loss, losses)
TWIN(gd_optimizer, optimizer, optimizers)
