/* reader.h -- reading definitions out of JSON: memory that goes away all at once, where errors stand, values.
 */
#ifndef GP_READER_H
#define GP_READER_H

#include "proto/gradd_proto.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

typedef struct gp_reader {
    void *memory; /* of what was read: gp_release() it */
    gp_error *error;
} gp_reader;

/** Zeroed memory for `count` items, at least one. NULL: failed, r->error says so. */
void *gp_take(gp_reader *r, size_t count, size_t size);
void gp_release(void *memory);

/** A value's place in the document. */
typedef struct gp_place {
    char pointer[192];
} gp_place;

gp_place gp_below(const char *pointer, const char *token);
gp_place gp_element(const char *pointer, size_t index);

/* What is wrong, each -1. */
int gp_wrong_type(gp_reader *r, const json_t *json, const char *pointer, const char *wanted);
int gp_missing(gp_reader *r, const char *pointer, const char *field, const char *hint);
int gp_unknown(gp_reader *r, const char *pointer, const char *field, const char *const *known, size_t count);

/** A copy. */
int gp_read_string(gp_reader *r, const json_t *json, const char *pointer, const char **ret_string);
/** Every member of an object whose key is not among `others`, as an attribute. */
int gp_read_fields(gp_reader *r, json_t *json, const char *pointer, const char *const *others,
                   size_t other_count, const gd_field **ret_fields, size_t *ret_count);

/* ---- settings.c ---- */
int gp_read_kind(gp_reader *r, json_t *json, const char *pointer, bool type_required, gd_kind_spec *ret_spec);
int gp_read_terms(gp_reader *r, json_t *json, const char *pointer, gd_loss_spec *ret_loss);
int gp_read_optimizer(gp_reader *r, json_t *json, const char *pointer, bool type_required,
                      gd_optimizer_spec *ret_spec);
int gp_read_schedule(gp_reader *r, json_t *json, const char *pointer, gd_scheduler_spec *ret_spec);

#endif
