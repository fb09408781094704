/* definition.h -- what a model was made of: the JSON of POST /v1/models, kept as text beside the model and in
 * each of its checkpoints, with what PATCH has changed since. */
#ifndef GRADD_SERVER_DEFINITION_H
#define GRADD_SERVER_DEFINITION_H

#include "proto/gradd_proto.h"

/** Build what was read of a definition. @return 0; -1 */
int gs_model_build(gd_engine *engine, const gp_model *read, gd_model **ret_model, gp_error *error);
/** The same from text. @return 0; -1 */
int gs_definition_build(gd_engine *engine, const char *definition, gd_model **ret_model, uint64_t *ret_seed,
                        gp_error *error);
/** A definition as text, its members in their order (which that of inputs depends on). free() it.
 *  @param name NULL: as it is  @return NULL: no memory */
char *gs_definition_text(json_t *definition, const char *name);
/** Of text. A new reference; NULL: it is no JSON, or no memory. */
json_t *gs_definition_json(const char *definition);
/** What PATCH makes of a definition. free() it.
 *  @param merges the optimizer is of the kind that it was: what is given goes to what there is
 *  @return NULL: no memory */
char *gs_definition_patched(const char *definition, json_t *patch, bool merges);

#endif
